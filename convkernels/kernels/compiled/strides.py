"""Loops over rows, emitted as LLVM: windows that go by several steps along rows that registers hold.

The rows of a window are reduced to one, a few vectors that stay in registers. Of these, shuffles take each column of
all windows in a row. So each cell is loaded once for each row of windows, by whole vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from ...pool_spec import PoolSpec
from .calls import View
from .lines import Operand
from .runs import Run, reading
from .spans import MOST, Combine, Finish, Spans

LONG = 8
"""Vectors of a row at most."""


def strides(spec: PoolSpec, lanes: int, source: View, target: View) -> bool:
    """Whether windows go by several steps along rows that registers hold, and count as many cells each."""
    window = spec.window
    dense = all(array.strides[-1] == array.itemsize for array in (source, target))
    if window.rank != 2 or window.stride[1] < 2 or not dense:
        return False
    vectors, results = -(-reach(spec) // lanes), -(-window.out_size[1] // lanes)
    rows = sum(len(run.phases[0]) for run in reading(spec, 0, slice(0, window.out_size[0])))
    short = vectors <= LONG and rows * vectors + window.kernel_size[1] * results <= MOST
    return short and bool(spec.divisor_override or isinstance(spec.count(window.whole), int))


def reach(spec: PoolSpec) -> int:
    """The cells of a row from the first that a window reads to the last, padding among them."""
    window = spec.window
    return (window.out_size[1] - 1) * window.stride[1] + window.extent[1]


class Strides(Spans):
    """Emits loops over rows. Operands are a source and a target.

    In the place of the table and its length, a call has 0 and the divisor. Of an operand's inner loops, the first goes
    from row to row, and the last from window to window.
    """

    def __init__(self, operands: Sequence[Operand], lanes: int, spec: PoolSpec) -> None:
        super().__init__(operands, lanes)
        self.spec, self.window = spec, spec.window

    def rows(self, combine: Combine, initial: Any, finish: Finish) -> str:
        """The whole as LLVM assembly: `initial` changes no result."""
        build, call, zero = self.build, self.function.args[0], self.word(0)
        divisor = build.bitcast(self.word_at(call, 1), ir.DoubleType())
        bases = self.begin()
        with self.loop(zero, self.word_at(call, 2)) as image:
            outer = self.moved(bases, 0, image)
            with self.loop(zero, self.word_at(call, 3)) as channel:
                plane = self.moved(outer, 1, channel)
                for run in reading(self.spec, 0, slice(0, self.window.out_size[0])):
                    source = self.moved(plane, 2, self.word(run.origin))[0]
                    target = self.moved(plane, 2, self.word(run.first))[1]
                    with self.loop(zero, self.word(run.number)) as number:
                        row, results = self.moved((source, target), 4, number)
                        cells = self.across(run, row, combine, initial)
                        self.along(cells, results, combine, lambda total: finish(total, divisor))
        build.ret_void()
        return str(self.module)

    def across(self, run: Run, row: Any, combine: Combine, initial: Any) -> list[Any]:
        """The rows of windows reduced to one, from the first cell that a window reads."""
        lo, (first, stop) = self.window.padding[1][0], self.window.bounds[1]
        cells = []
        for start in range(0, reach(self.spec), self.lanes):
            begin, end = max(0, first + lo - start), min(self.lanes, stop + lo - start)
            if begin >= end:
                cells.append(initial)
                continue
            total = None
            for step in run.phases[0]:
                moved = self.build.add(row, self.build.mul(self.strides[0][2], self.word(step.distance)))
                address = self.build.add(moved, self.word((start - lo) * self.size))
                found = self.get(address, begin, end, initial)
                total = found if total is None else combine(total, found)
            cells.append(total)
        return cells

    def along(self, cells: list[Any], target: Any, combine: Combine, finish: Any) -> None:
        """Reduce the columns of windows."""
        window, lanes = self.window, self.lanes
        for first in range(0, window.out_size[1], lanes):
            count, total = min(lanes, window.out_size[1] - first), None
            for tap in range(window.kernel_size[1]):
                places = [first + min(lane, count - 1) for lane in range(lanes)]
                found = self.taken(cells, [place * window.stride[1] + tap * window.dilation[1] for place in places])
                total = found if total is None else combine(total, found)
            self.put(finish(total), self.build.add(target, self.word(first * self.size)), count)

    def taken(self, cells: list[Any], places: list[int]) -> Any:
        """A vector of cells that stand at some places."""
        lanes = self.lanes
        first, *others = sorted({place // lanes for place in places})
        found = cells[first]
        order = [place % lanes if place // lanes == first else lane for lane, place in enumerate(places)]
        if not others:
            return self.shuffled(found, found, order)
        for other in others:
            chosen = [
                lanes + place % lanes if place // lanes == other else order[lane] for lane, place in enumerate(places)
            ]
            found, order = self.shuffled(found, cells[other], chosen), list(range(lanes))
        return found
