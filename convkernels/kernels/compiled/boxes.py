"""Tables for lines: boxes of targets that read alike, of the runs along each axis, and what each target reads.

A *box* is one run along each spatial axis; its steps are the products of theirs. Tables depend on the window and on how
arrays lie, not on where, and are remembered.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from ...layout import Array
from ...pool_spec import PoolSpec
from ...window import Ints
from .lines import BYTE, LOOPS, STEP
from .runs import Run, Step, reading, spreading


class Given(NamedTuple):
    """An array as boxes see it: its strides along the spatial axes, and the first of the first axis that it holds."""

    strides: Ints
    begin: int = 0


@dataclass(frozen=True)
class Boxes:
    """What is asked of a table.

    Parameters
    ----------
    part : slice
        The targets along the first spatial axis.
    forward : bool
        Whether outputs read cells, or cells outputs.
    axis : int or None
        The spatial axis that lines lie along; None for the channels.
    phases : int
        Along that axis, the neighbours that are computed together.
    width : int
        The channels, if lines lie along them.
    numbers : str
        What steps carry: "code", "bit" or "count".
    slab : int
        Targets along the first axis after which all boxes have been gone through, so that what is read and written
        stays near.
    bounded : bool
        Whether cells read only outputs that there are, or along lines beyond them too, so that fewer lines are cut.
        Across lines that would be whole vectors without memory: loads whose mask is empty, but some 200 ns each where
        their page is not mapped (192 channels, 71x71, by 3x3 and steps of 2: 490 us, not 140).
    """

    spec: PoolSpec
    part: tuple[int, int]
    forward: bool
    axis: int | None
    phases: int
    width: int
    numbers: str
    slab: int
    bounded: bool = True


class Table(NamedTuple):
    """The words of all pieces, what they point to, and their number."""

    words: Array
    kept: Any
    pieces: int


def slices_of(part: tuple[int, int], size: int) -> list[slice]:
    """A part, cut."""
    return [slice(start, min(start + size, part[1])) for start in range(part[0], part[1], size)]


def bits(value: float) -> int:
    """A float64 as a word."""
    return int(struct.unpack("q", struct.pack("d", value))[0])


@lru_cache(maxsize=256)
def table(asked: Boxes, sources: tuple[Given, ...], targets: tuple[Given, ...]) -> Table:
    """Make a table for arrays that are read by steps, and others that lie as the targets do; strides are in bytes."""
    spec, axis = asked.spec, asked.axis
    window = spec.window
    sizes = window.out_size if asked.forward else window.in_size
    rest = [slice(0, size) for size in sizes[1:]]

    def runs(part: slice) -> list[list[Run]]:
        """The runs of each axis, of a part of the first."""
        if asked.forward:
            return [reading(spec, place, part) for place, part in enumerate([part, *rest])]
        return [
            spreading(
                spec,
                place,
                part,
                together=place == axis and asked.phases > 1,
                bounded=asked.bounded or place != axis,
            )
            for place, part in enumerate([part, *rest])
        ]

    taps = [math.prod(window.kernel_size[place + 1 :]) for place in range(window.rank)]
    loops = [place for place in range(window.rank) if place != axis]
    entries: list[Ints] = []
    pieces: list[list[int]] = []
    where: dict[tuple[tuple[Step, ...], ...], int] = {}
    lists: list[tuple[int, int, int]] = []

    def offset(given: Given, places: Sequence[int]) -> int:
        moved = (places[0] - given.begin, *places[1:])
        return sum(place * stride for place, stride in zip(moved, given.strides, strict=True))

    def listed(chosen: Sequence[tuple[Step, ...]]) -> int:
        """The steps of a box; returns where their list begins."""
        begin = len(entries)
        for steps in product(*chosen):
            distances = [step.distance for step in steps]
            far = [
                sum(distance * stride for distance, stride in zip(distances, given.strides, strict=True))
                for given in sources
            ]
            tap = sum(step.tap * size for step, size in zip(steps, taps, strict=True))
            number = {
                "code": tap,
                "bit": 1 << tap % 64,
                "count": bits(spec.divisor_override or math.prod(step.counted for step in steps)),
            }[asked.numbers]
            entries.append((far[0], far[-1], number - 2**64 if number >= 2**63 else number))
        return begin

    step = 1 if asked.forward else window.stride[0]
    slabs = [runs(part) for part in slices_of(asked.part, max(step, asked.slab // step * step))]
    for box in (box for slab in slabs for box in product(*slab)):
        line = box[axis] if axis is not None else None
        counts = [box[place].number for place in loops]
        width = (asked.width, asked.width) if line is None else (line.number, line.size)
        divisor = spec.divisor_override or math.prod(run.count for run in box)
        piece = [*[1] * (LOOPS - len(counts)), *counts, *width]
        piece += [offset(given, [run.origin for run in box]) for given in sources]
        piece += [offset(given, [run.first for run in box]) for given in targets]
        piece.append(bits(divisor))
        for phase in range(asked.phases):
            chosen = tuple(
                run.phases[phase if place == axis and len(run.phases) > 1 else 0] for place, run in enumerate(box)
            )
            if chosen not in where:
                where[chosen] = listed(chosen)
            lists.append((len(pieces), len(piece), where[chosen]))
            piece += [0, math.prod(map(len, chosen))]
        pieces.append(piece)
    steps = np.array(entries or [(0, 0, 0)], np.int64)
    words = np.array(pieces, np.int64)
    for row, column, begin in lists:
        words[row, column] = steps.ctypes.data + begin * STEP * BYTE
    return Table(words, steps, len(pieces))
