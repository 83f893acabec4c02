"""Tables for rows: which rows each row of targets reads, how they lie in the buffer, and what targets read of it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np

from ...pool_spec import PoolSpec
from ...window import Ints
from .boxes import Table, bits
from .lines import BYTE, STEP
from .rows import PIECE, RUN
from .runs import Run, Step, margins, reading, spreading

BUFFER = 2**15
"""Bytes of a buffer that rows are cut to: of half as many, 3x3 by 1280 channels in NHWC took 1.4 times as long."""
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
    runs: list[Run]


def reach(asked: RowBoxes, part: slice) -> Reach:
    """What targets of a row read, as runs for which nothing is missing."""
    window, axis, step = asked.spec.window, asked.axis, asked.step
    lo, extent = window.padding[axis][0], window.extent[axis]
    if asked.forward:
        runs = outputs_runs(asked, part)
        begin, end = part.start * step - lo, (part.stop - 1) * step - lo + extent
        first, stop = window.bounds[axis]
    else:
        runs = spreading(asked.spec, axis, part, together=asked.phases > 1, bounded=False)
        reached = margins(window, axis, part)
        begin, end = reached.start, reached.stop
        first, stop = 0, window.out_size[axis]
    inside = min(max(begin, first), stop), min(max(end, first), stop)
    real = max(0, inside[1] - inside[0])
    before = inside[0] - begin if real else end - begin
    return Reach(inside[0], real, before, end - begin - before - real, begin, runs)


def outputs_runs(asked: RowBoxes, part: slice) -> list[Run]:
    """The runs of outputs, cut only where the cells that a window counts change."""
    window, axis = asked.spec.window, asked.axis
    every = tuple(Step(tap * window.dilation[axis], tap, 1) for tap in range(window.kernel_size[axis]))
    runs: list[Run] = []
    for run in reading(asked.spec, axis, part):
        first, number, origin = run.first, run.number, run.origin
        if runs and runs[-1].count == run.count:
            last = runs.pop()
            first, number, origin = last.first, last.number + number, last.origin
        runs.append(Run(first, number, 1, origin, asked.step, (every,), number, run.count))
    return runs


@lru_cache(maxsize=256)
def row_table(asked: RowBoxes) -> Table:
    """Make a table."""
    spec, axis, size, width = asked.spec, asked.axis, asked.itemsize, asked.width
    window = spec.window
    sizes = window.out_size if asked.forward else window.in_size
    parts = [slice(*asked.part), *(slice(0, length) for length in sizes[1:])]
    others = [place for place in range(window.rank) if place != axis]
    boxes = list(
        product(
            *(
                reading(spec, place, parts[place])
                if asked.forward
                else spreading(spec, place, parts[place], together=False)
                for place in others
            )
        )
    )
    entries: list[Ints] = []
    runs: list[Ints] = []
    pieces: list[Ints] = []

    def listed(offsets: Iterable[int]) -> Ints:
        """Where the list of some steps begins, and its length."""
        begin = len(entries)
        entries.extend((offset, offset, 0) for offset in offsets)
        return begin, len(entries) - begin

    rows = [
        listed(
            sum(step.distance * asked.source[place] for step, place in zip(steps, others, strict=True))
            for steps in product(*(run.phases[0] for run in box))
        )
        for box in boxes
    ]
    for start in range(parts[axis].start, parts[axis].stop, asked.cells):
        part = slice(start, min(start + asked.cells, parts[axis].stop))
        found = reach(asked, part)
        lists = [[listed(step.distance * width * size for step in phase) for phase in run.phases] for run in found.runs]
        for box, steps in zip(boxes, rows, strict=True):
            pieces.append(
                (
                    *[1] * (2 - len(box)),
                    *(run.number for run in box),
                    *(cells * width for cells in (found.filled, found.before, found.behind)),
                    found.first * asked.source[axis]
                    + sum(run.origin * asked.source[place] for run, place in zip(box, others, strict=True)),
                    start * asked.target[axis]
                    + sum(run.first * asked.target[place] for run, place in zip(box, others, strict=True)),
                    len(runs),
                    len(found.runs),
                    bits(1),
                    *steps,
                )
            )
            for run, phases in zip(found.runs, lists, strict=True):
                count = math.prod(one.count for one in box) * run.count
                runs.append(
                    (
                        *((1, run.number * width, run.size * width) if asked.whole else (run.number, width, width)),
                        (run.origin - found.begin) * width * size,
                        (run.first - start) * asked.target[axis],
                        bits(spec.divisor_override or count),
                        *(word for phase in phases for word in phase),
                    )
                )
    listed_steps, run_words, words = (np.array(each, np.int64) for each in (entries or [(0, 0, 0)], runs, pieces))
    words[:, 7] = run_words.ctypes.data + words[:, 7] * run_words.strides[0]
    words[:, PIECE + 1] = listed_steps.ctypes.data + words[:, PIECE + 1] * STEP * BYTE
    run_words[:, RUN + 1 :: 2] = listed_steps.ctypes.data + run_words[:, RUN + 1 :: 2] * STEP * BYTE
    return Table(words, (listed_steps, run_words), len(pieces))
