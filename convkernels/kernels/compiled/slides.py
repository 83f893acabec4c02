"""Loops over planes, emitted as LLVM: windows that slide by one cell and give planes of the same size.

A plane whose rows lie on end is one line. A window's rows are reduced first, each cell with those that lie whole rows
away: what is beyond the plane is beyond the line's ends, too. Then neighbours of what that gives are reduced, except
those across the ends of rows, of which a table of masks tells. So vectors go through the plane from its first cell to
its last, whatever the rows' length, and read every cell once for each row and column of a window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from llvmlite import ir

from ...layout import Array
from ...pool_spec import PoolSpec
from ...window import Ints
from .calls import View
from .lines import BYTE, Operand
from .scratch import rounded
from .spans import MOST, Combine, Finish, Spans
from .tile import WORD

BYTES = WORD.width // BYTE
"""Of a mask."""
LARGEST = 2**14
"""Bytes of a plane at most, so that what its rows are reduced to stays in the fastest cache."""


@dataclass(frozen=True)
class Slide:
    """A plane's width and cells, and how far away are the rows and columns that a target reads."""

    width: int
    cells: int
    rows: Ints
    columns: Ints

    def margin(self, itemsize: int) -> int:
        """Bytes in front of a line of a plane's cells and behind it that targets would read, as lines of the cache."""
        return rounded(max(map(abs, self.columns)) * itemsize)

    def room(self, lanes: int, itemsize: int) -> int:
        """Bytes of what the rows of a plane are reduced to, in whole vectors, with its margins."""
        return rounded((self.cells + lanes) * itemsize) + 2 * self.margin(itemsize)

    def together(self, room: int) -> int:
        """The planes whose rows are reduced one after the other, before columns of any, so as not to wait for them."""
        return max(1, LARGEST // room)

    def buffer(self, lanes: int, itemsize: int) -> int:
        """Bytes of what the rows of these are reduced to."""
        room = self.room(lanes, itemsize)
        return room * self.together(room)

    def reads(self, first: int, lanes: int) -> tuple[tuple[int, int, int], ...]:
        """What a vector of targets reads of rows: how far away each is, and the first and last lane that is there."""
        found = []
        for row in self.rows:
            away = row * self.width
            begin, end = max(0, -first - away), min(lanes, self.cells - first - away)
            if begin < end:
                found.append((away, begin, end))
        return tuple(found)

    def alike(self, lanes: int) -> list[tuple[tuple[tuple[int, int, int], ...], range]]:
        """The vectors of targets in runs of those that read alike, by their first targets."""
        found = groupby(range(0, self.cells, lanes), lambda first: self.reads(first, lanes))
        runs = [(reads, list(firsts)) for reads, firsts in found]
        return [(reads, range(firsts[0], firsts[-1] + 1, lanes)) for reads, firsts in runs]

    def masks(self, lanes: int) -> Array:
        """For each vector of targets and each column, the lanes that read no other row, as bits of a word."""
        found = [
            [
                sum(1 << lane for lane in range(lanes) if 0 <= (first + lane) % self.width + column < self.width)
                for column in self.columns
            ]
            for first in range(0, self.cells, lanes)
        ]
        return np.array(found, np.uint64).view(np.int64)


def slide(spec: PoolSpec, lanes: int, *arrays: View, forward: bool) -> Slide | None:
    """How windows slide over planes, if they do, count as many cells each, and planes lie in one piece each."""
    window = spec.window
    if window.rank != 2 or set(window.stride) != {1} or window.out_size != window.in_size:
        return None
    size = arrays[0].itemsize * window.in_size[0] * window.in_size[1]
    same = spec.divisor_override or isinstance(spec.count(window.whole), int)
    if size > LARGEST or not same or not all(array.on_end(2) for array in arrays):
        return None
    sign = 1 if forward else -1
    rows, columns = (
        tuple(away for tap in range(taps) if abs(away := sign * (tap * spread - lo)) < cells)
        for taps, spread, (lo, _), cells in zip(
            window.kernel_size, window.dilation, window.padding, window.in_size, strict=True
        )
    )
    found = Slide(window.in_size[1], window.in_size[0] * window.in_size[1], rows, columns)
    return found if sum(len(reads) for reads, _ in found.alike(lanes)) + len(columns) <= MOST else None


class Slides(Spans):
    """Emits loops over planes. Operands are a source, the buffer and the target.

    In the place of the table and its length, a call has the table of masks and the divisor.
    """

    def __init__(self, operands: Sequence[Operand], lanes: int, slide: Slide) -> None:
        super().__init__(operands, lanes)
        self.slide = slide

    def planes(self, combine: Combine, initial: Any, finish: Finish) -> str:
        """The whole as LLVM assembly: `initial` changes no result, `finish` takes a vector and the divisor."""
        build, call, zero = self.build, self.function.args[0], self.word(0)
        masks, divisor = self.word_at(call, 0), build.bitcast(self.word_at(call, 1), ir.DoubleType())
        bases = self.begin()
        room, margin = self.slide.room(self.lanes, self.size), self.slide.margin(self.size)
        several, count = self.slide.together(room), self.word_at(call, 3)
        with self.loop(zero, self.word_at(call, 2)) as image:
            source, buffer, target = self.moved(bases, 0, image)
            first = build.add(buffer, self.word(margin))
            with self.loop(zero, count, several) as channel:
                left = build.sub(count, channel)
                now = build.select(build.icmp_signed("<", left, self.word(several)), left, self.word(several))
                for stage in range(2):
                    with self.loop(zero, now) as plane:
                        line = build.add(first, build.mul(plane, self.word(room)))
                        read, _, written = self.moved((source, line, target), 1, build.add(channel, plane))
                        if stage == 0:
                            self.across(read, line, combine, initial)
                        else:
                            self.along(line, written, masks, combine, initial, lambda total: finish(total, divisor))
        build.ret_void()
        return str(self.module)

    def at(self, start: Any, count: Any) -> Any:
        """The address so many cells on."""
        cells = count if isinstance(count, ir.Value) else self.word(count)
        return self.build.add(start, self.build.mul(cells, self.word(self.size)))

    def across(self, source: Any, line: Any, combine: Combine, initial: Any) -> None:
        """Reduce the rows of windows: vectors that read alike in a loop."""
        lanes = self.lanes
        for reads, firsts in self.slide.alike(lanes):
            with self.loop(self.word(firsts.start), self.word(firsts.stop), lanes) as first:
                place, total = self.at(source, first), None
                for away, begin, end in reads:
                    found = self.get(self.at(place, away), begin, end, initial)
                    total = found if total is None else combine(total, found)
                self.put(total, self.at(line, first), lanes)

    def along(
        self, line: Any, target: Any, masks: Any, combine: Combine, initial: Any, finish: Callable[[Any], Any]
    ) -> None:
        """Reduce the columns of windows."""
        cells, lanes, columns = self.slide.cells, self.lanes, self.slide.columns
        whole = cells // lanes * lanes
        for start, stop in ((0, whole), (whole, cells)):
            with self.loop(self.word(start), self.word(stop), lanes) as first:
                total = None
                for number, away in enumerate(columns):
                    found = self.load(self.at(line, self.build.add(first, self.word(away))), self.vector)
                    if away:
                        vector = self.build.udiv(first, self.word(lanes))
                        entry = self.build.mul(vector, self.word(len(columns) * BYTES))
                        found = self.build.select(self.lanes_of(self.build.add(masks, entry), number), found, initial)
                    total = found if total is None else combine(total, found)
                self.put(finish(total), self.at(target, first), min(lanes, cells - start))

    def lanes_of(self, masks: Any, number: int) -> Any:
        """One of the masks at an address."""
        bits = self.word_at(masks, number)
        narrow = bits if self.lanes == WORD.width else self.build.trunc(bits, ir.IntType(self.lanes))
        return self.build.bitcast(narrow, ir.VectorType(ir.IntType(1), self.lanes))
