"""What depthwise outputs reach: along each axis, the cells that an output takes its taps from.

Output o takes tap t from cell ``(o * step + offsets[t]) / spread``, where that is a whole number and the cell exists. A
convolution has a spread of 1; its input gradient of stride s has a step of 1 and a spread of s.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from ...spec import ConvSpec
from ...window import Ints
from .amounts import LINES, Amounts

PLANES = 2**17
"""Bytes of channels and outputs that are worked on at a time where each lies by itself; they stay in the cache."""

VECTOR = 64
"""Bytes of the widest vector."""

Pairs: TypeAlias = tuple[tuple[int, int], ...]
"""Taps, each with the cell it is taken from."""


class Reach(NamedTuple):
    """One axis."""

    outputs: int
    cells: int
    step: int
    spread: int
    offsets: Ints

    def base(self, output: int) -> int:
        """The cell from which a tile counts that begins at an output, a multiple of the spread."""
        return output * self.step // self.spread

    def pairs(self, output: int) -> Pairs:
        """The taps of an output and their cells, whether these exist or not."""
        places = ((tap, output * self.step + offset) for tap, offset in enumerate(self.offsets))
        return tuple((tap, place // self.spread) for tap, place in places if place % self.spread == 0)

    def existing(self, output: int) -> Pairs:
        """The taps of an output whose cells exist."""
        return tuple((tap, cell) for tap, cell in self.pairs(output) if 0 <= cell < self.cells)


WHOLE = Reach(1, 1, 1, 1, (0,))
Reaches: TypeAlias = tuple[Reach, Reach, Reach]


@lru_cache(maxsize=512)
def forward_reaches(spec: ConvSpec) -> Reaches:
    """The three axes of a convolution."""
    window = spec.window
    found = [
        Reach(out, size, step, 1, tuple(tap * spread - lo for tap in range(taps)))
        for out, size, step, spread, taps, (lo, _) in zip(
            window.out_size,
            window.in_size,
            window.stride,
            window.dilation,
            window.kernel_size,
            window.padding,
            strict=True,
        )
    ]
    d, h, w = [WHOLE] * (3 - len(found)) + found
    return d, h, w


@lru_cache(maxsize=512)
def backward_reaches(spec: ConvSpec) -> Reaches:
    """The three axes of an input gradient, whose outputs are the cells of the convolution."""
    d, h, w = (
        Reach(each.cells, each.outputs, 1, each.step, tuple(-offset for offset in each.offsets))
        for each in forward_reaches(spec)
    )
    return d, h, w


def cut(outputs: int, most: int, unit: int) -> tuple[int, int]:
    """Cut an axis into tiles of the same number of outputs, a multiple of the unit: that number, and how many tiles.

    The last one may have fewer outputs.

    Examples
    --------
    >>> cut(28, 8, 1), cut(15, 8, 2)
    ((7, 4), (8, 2))
    """
    each = max(1, most // unit) * unit
    count = -(-outputs // each)
    each = -(-outputs // (count * unit)) * unit
    return each, -(-outputs // each)


@lru_cache(maxsize=512)
def depthwise_amounts(spec: ConvSpec, limit: int, threads: int) -> tuple[int, Amounts]:
    """The channels whose planes a thread may copy at a time, and the bytes that takes, for any operation and order."""
    size, multiplier, taps = spec.compute_dtype.itemsize, spec.group_out, spec.window.taps
    reaches = forward_reaches(spec)
    cells, outputs = math.prod(each.cells for each in reaches), math.prod(each.outputs for each in reaches)
    each = (cells + multiplier * outputs) * size + multiplier * taps * VECTOR
    shared = taps * spec.out_channels * size + LINES
    fit = min(PLANES, (limit - shared) // threads - 2 * LINES)
    channels = max(1, min(-(-spec.groups // threads), fit // each))
    return channels, Amounts(1, (1, 1), shared, channels * each + 2 * LINES)
