"""Tables for rows: which rows each row of targets reads, how they lie in the buffer, and what targets read of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np

from ...pool_spec import PoolSpec
from ...views import slices
from ...window import Ints
from .boxes import Table, bits
from .lines import BYTE, STEP
from .rows import PIECE, RUN
from .runs import Run, Step, counts, reading, spreading

BUFFER = 2**14
"""Bytes of a buffer that rows are cut to: half of the fastest cache."""
MOST = 2**16
"""Bytes of a buffer, for what a single window takes."""
SPARE = 256
"""Bytes behind a buffer's elements, for whole vectors beyond them."""


@dataclass(frozen=True)
class RowBoxes:
    """What is asked of a table: rows lie along a spatial axis, and hold `width` elements for each of its cells.

    `part`, `forward` and `phases` are as for boxes; `source` and `target` are strides along the spatial axes in bytes.
    """

    spec: PoolSpec
    part: tuple[int, int]
    forward: bool
    axis: int
    phases: int
    width: int
    itemsize: int
    source: Ints
    target: Ints

    @property
    def step(self) -> int:
        """The stride along rows."""
        return self.spec.window.stride[self.axis]

    @property
    def whole(self) -> bool:
        """Whether all pixels of a run lie in one line: those of a row's channels, or of dense windows."""
        return self.width == 1 or (self.step == 1 and self.target[self.axis] == self.width * self.itemsize)

    @property
    def cells(self) -> int:
        """The targets of a row that are computed at a time, a multiple of what is computed together."""
        window = self.spec.window
        extent, room = window.extent[self.axis], BUFFER // (self.itemsize * self.width)
        if self.forward:
            return max((room - extent) // self.step + 1, 64 if self.width == 1 else 1)
        return max(room // self.step, 64 if self.width == 1 else 1) * self.step

    @property
    def buffer(self) -> int:
        """Bytes of the buffer."""
        window = self.spec.window
        count = min(self.cells, (window.out_size if self.forward else window.in_size)[self.axis])
        extent = window.extent[self.axis]
        length = (count - 1) * self.step + extent if self.forward else (count + extent - 2) // self.step + 2
        return length * self.width * self.itemsize + SPARE


@dataclass(frozen=True)
class Reach:
    """What some targets of a row read: elements of the buffer in front of and behind those that are real, and runs."""

    first: int
    filled: int
    before: int
    behind: int
    begin: int
    runs: tuple[Run, ...]


def reach(asked: RowBoxes, part: slice) -> Reach:
    """What targets of a row read, as runs for which nothing is missing."""
    window, axis, step = asked.spec.window, asked.axis, asked.step
    lo, extent, taps = window.padding[axis][0], window.extent[axis], window.kernel_size[axis]
    if asked.forward:
        begin, end = part.start * step - lo, (part.stop - 1) * step - lo + extent
        first, stop = window.bounds[axis]
        every = tuple(Step(tap * window.dilation[axis], tap, 1) for tap in range(taps))
        cut = reading(asked.spec, axis, part)
        runs = []
        for run in cut:
            if runs and runs[-1].count == run.count:
                last = runs.pop()
                number = last.number + run.number
                runs.append(Run(last.first, number, 1, last.origin, step, (every,), number, run.count))
            else:
                runs.append(Run(run.first, run.number, 1, run.origin, step, (every,), run.number, run.count))
    else:
        begin, end = -((extent - 1 - lo - part.start) // step), (part.stop - 1 + lo) // step + 1
        first, stop = 0, window.out_size[axis]
        runs = []
        together, count = asked.phases > 1, int(counts(asked.spec, axis)[0])
        for remainders in [range(step)] if together else [[remainder] for remainder in range(step)]:
            found = []
            for remainder in remainders:
                places = [divmod(remainder + lo - tap * window.dilation[axis], step) for tap in range(taps)]
                found.append(tuple(Step(q, tap, 1) for tap, (q, rest) in enumerate(places) if not rest)[::-1])
            target = part.start + remainders[0]
            number = len(range(target, part.stop, step))
            size = part.stop - target if together else number
            if number:
                runs.append(Run(target, number, step, part.start // step, 1, tuple(found), size, count))
    inside = min(max(begin, first), stop), min(max(end, first), stop)
    real = max(0, inside[1] - inside[0])
    before = min(max(inside[0] - begin, 0), end - begin) if real else end - begin
    return Reach(inside[0], real, before, end - begin - before - real, begin, tuple(runs))


@lru_cache(maxsize=256)
def row_table(asked: RowBoxes) -> Table:
    """Make a table."""
    spec, axis, size = asked.spec, asked.axis, asked.itemsize
    window = spec.window
    sizes = window.out_size if asked.forward else window.in_size
    parts = [slice(*asked.part), *(slice(0, size) for size in sizes[1:])]
    others = [place for place in range(window.rank) if place != axis]
    read = reading if asked.forward else lambda *given: spreading(*given, together=False)
    boxes = list(product(*(read(spec, place, parts[place]) for place in others)))
    entries: list[Ints] = []
    runs: list[Ints] = []
    pieces: list[list[int]] = []

    def listed(steps: Iterator[int]) -> Ints:
        begin = len(entries)
        entries.extend((offset, offset, bits(1)) for offset in steps)
        return begin, len(entries) - begin

    rows = [
        listed(
            sum(step.distance * asked.source[place] for step, place in zip(steps, others, strict=True))
            for steps in product(*(run.phases[0] for run in box))
        )
        for box in boxes
    ]
    for part in slices(parts[axis].stop - parts[axis].start, asked.cells):
        part = slice(part.start + parts[axis].start, part.stop + parts[axis].start)
        found, along = reach(asked, part), len(runs)
        # Lists do not differ from box to box, divisors may.
        lists = [[listed(step.distance * asked.width * size for step in phase) for phase in run.phases] for run in found.runs]
        for box, (begin, count) in zip(boxes, rows, strict=True):
            across = math.prod(run.count for run in box)
            along = len(runs)
            for run, phases in zip(found.runs, lists, strict=True):
                one = (1, run.number * asked.width, run.size * asked.width) if asked.whole else (run.number, asked.width, asked.width)
                offset = (run.origin - found.begin) * asked.width * size
                target = (run.first - part.start) * asked.target[axis]
                divisor = spec.divisor_override or across * run.count
                runs.append((*one, offset, target, bits(divisor), *(word for phase in phases for word in phase)))
            source = sum(run.origin * asked.source[place] for run, place in zip(box, others, strict=True))
            target = sum(run.first * asked.target[place] for run, place in zip(box, others, strict=True))
            numbers = [run.number for run in box]
            pieces.append(
                [
                    *numbers, *[1] * (2 - len(numbers)),
                    *(amount * asked.width for amount in (found.filled, found.before, found.behind)),
                    source + found.first * asked.source[axis],
                    target + part.start * asked.target[axis],
                    along, len(found.runs), 0, begin, count,
                ]
            )
    steps, run_words, words = (np.array(each, np.int64) for each in (entries or [(0, 0, 0)], runs, pieces))
    words[:, 7] = run_words.ctypes.data + words[:, 7] * run_words.strides[0]
    words[:, PIECE + 1] = steps.ctypes.data + words[:, PIECE + 1] * STEP * BYTE
    run_words[:, RUN + 1 :: 2] = steps.ctypes.data + run_words[:, RUN + 1 :: 2] * STEP * BYTE
    return Table(words, (steps, run_words), len(pieces), (), ())
