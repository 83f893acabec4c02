"""Tables for lines: boxes of targets that read alike, of the runs along each axis, and what each target reads.

A *box* is one run along each spatial axis; its steps are the products of theirs. Tables depend on the window and on how
arrays lie, not on where, and are remembered.
"""

from __future__ import annotations

import ctypes
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import NamedTuple

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
    """

    spec: PoolSpec
    part: tuple[int, int]
    forward: bool
    axis: int | None
    phases: int
    width: int
    numbers: str


class Table(NamedTuple):
    """The words of all pieces, their number, and of targets and sources the elements from one to the next."""

    words: Array
    steps: Array
    pieces: int
    advances: Ints
    spacings: Ints


def bits(value: float) -> int:
    """A float64 as a word."""
    return int(struct.unpack("q", struct.pack("d", value))[0])


@lru_cache(maxsize=256)
def table(asked: Boxes, sources: tuple[Given, ...], targets: tuple[Given, ...]) -> Table:
    """Make a table for arrays that are read by steps, and others that lie as the targets do; strides are in bytes."""
    spec, axis = asked.spec, asked.axis
    window = spec.window
    sizes = window.out_size if asked.forward else window.in_size
    parts = [slice(*asked.part), *(slice(0, size) for size in sizes[1:])]
    if asked.forward:
        runs = [reading(spec, place, part) for place, part in enumerate(parts)]
    else:
        runs = [
            spreading(spec, place, part, together=place == axis and asked.phases > 1)
            for place, part in enumerate(parts)
        ]
    taps = [math.prod(window.kernel_size[place + 1 :]) for place in range(window.rank)]
    loops = [place for place in range(window.rank) if place != axis]
    entries: list[Ints] = []
    pieces: list[list[int]] = []
    where: dict[tuple[Step, ...], int] = {}
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
                "count": bits(spec.divisor_override or math.prod(step.count for step in steps)),
            }[asked.numbers]
            entries.append((far[0], far[-1], number - 2**64 if number >= 2**63 else number))
        return begin

    for box in product(*runs):
        line = box[axis] if axis is not None else None
        counts = [box[place].number for place in loops]
        width = (asked.width, asked.width) if line is None else (line.number, line.size)
        divisor = spec.divisor_override or math.prod(run.count for run in box)
        piece = [*counts, *[1] * (LOOPS - len(counts)), *width, bits(divisor)]
        piece += [offset(given, [run.origin for run in box]) for given in sources]
        piece += [offset(given, [run.first for run in box]) for given in targets]
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
    first: list[Run] = [run[0] for run in runs]
    return Table(words, steps, len(pieces), tuple(run.advance for run in first), tuple(run.spacing for run in first))


FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@lru_cache(maxsize=256)
def function(address: int) -> object:
    """Code as something to call; the interpreter's lock is released meanwhile."""
    return FUNCTION(address)
