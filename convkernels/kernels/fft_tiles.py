"""How large to make the transforms of a convolution by FFT, and how much to transform at a time.

A tile of m outputs along an axis reads m + K - 1 cells of a phase, K being the taps' reach in it, and takes a transform
of some length L no shorter. Long transforms waste little on the K - 1 cells that tiles share, but those of the weights,
one for each pair of channels, are as long. `choose` finds the lengths of least cost in a model of a few numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from typing import NamedTuple

from ..spec import ConvSpec
from ..views import slices
from ..window import Ints, Tile, Window

TARGET = 8 * 2**20
"""Bytes of transforms of tiles, and of several groups, to work on at a time."""
WEIGHTS = 16 * 2**20
"""Bytes of transformed weights at a time: more are mapped anew in each call, which takes as long as the transforms."""
LINES = 64
"""Transforms that are turned at a time, so that each of them advances within a line of the cache."""
BUFFERED = 2 * 8192
"""Numbers of two operands that NumPy takes at a time where it cannot read them as they lie."""
TURNED = 3
"""Products of each frequency, for each spectrum, from which on those by matrices pay for turning the spectra."""

TRANSFORM, MOVED, PRODUCT, CALLS = 0.4, 2.0, 0.7, 50_000.0
"""Nanoseconds of float32, fitted to 290 problems of three operations: for each frequency of a transform and doubling of
its length, for its copies besides, for a product of two frequencies, and for what Python does between the transforms of
a piece. float64 takes about twice as long, as it does in any other way."""


class Phase(NamedTuple):
    """Taps of an axis that see cells of one remainder by the stride: which these are, and where the taps lie in it."""

    remainder: int
    taps: slice
    places: slice


def phases(window: Window) -> list[tuple[Phase, ...]]:
    """The phases of each axis that have taps, in every combination.

    Examples
    --------
    >>> [len(phases(Window.make((9,), kernel_size=3, stride=step))) for step in (1, 2, 5)]
    [1, 2, 3]
    >>> phases(Window.make((9,), kernel_size=3, dilation=2))
    [(Phase(remainder=0, taps=slice(0, 3, 1), places=slice(0, 5, 2)),)]
    """
    return list(product(*(_axis_phases(window, axis) for axis in range(window.rank))))


def _axis_phases(window: Window, axis: int) -> list[Phase]:
    taps, step, spread = window.kernel_size[axis], window.stride[axis], window.dilation[axis]
    period = step // math.gcd(step, spread)
    found = []
    for first in range(min(period, taps)):
        begin, apart, count = first * spread // step, spread * period // step, len(range(first, taps, period))
        places = slice(begin, begin + (count - 1) * apart + 1, apart)
        found.append(Phase(first * spread % step, slice(first, taps, period), places))
    return found


def fast_length(least: int) -> int:
    """The shortest length from `least` on whose prime factors are 2, 3 and 5.

    Examples
    --------
    >>> [fast_length(least) for least in (1, 7, 11, 97, 1025)]
    [1, 8, 12, 100, 1080]
    """
    found, fives = 1 << (least - 1).bit_length(), 1
    while fives < found:
        odd = fives
        while odd < found:
            found = min(found, odd << (-(-least // odd) - 1).bit_length())
            odd *= 3
        fives *= 5
    return found


class Tiling(NamedTuple):
    """The lengths of transforms, the outputs of a tile, and the tiles of a picture."""

    lengths: Ints
    tile: Ints
    tiles: int

    @property
    def frequencies(self) -> int:
        """Of a transform of real cells; the others are conjugates."""
        *others, last = self.lengths
        return math.prod(others) * (last // 2 + 1)


class Plan(NamedTuple):
    """How much to work on at a time: groups, output channels, tiles; whether products are of matrices; all bytes."""

    tiling: Tiling
    groups: int
    outs: int
    together: int
    stacked: bool
    bytes: int

    def chunks(self, out_size: Ints) -> list[list[Tile]]:
        """The tiles of a picture, some at a time."""
        tiles = list(product(*map(slices, out_size, self.tiling.tile)))
        return [tiles[part] for part in slices(len(tiles), self.together)]


def reach(window: Window) -> Ints:
    """The cells of a phase from a window's first tap to its last."""
    return tuple(-(-extent // step) for extent, step in zip(window.extent, window.stride, strict=True))


def depth(spec: ConvSpec) -> int:
    """The input channels of a group, each phase of which is one by itself."""
    window = spec.window
    return spec.group_in * math.prod(
        min(taps, step // math.gcd(step, spread))
        for taps, step, spread in zip(window.kernel_size, window.stride, window.dilation, strict=True)
    )


def corner(sizes: Ints) -> Tile:
    """The first cells along each axis."""
    return tuple(map(slice, sizes))


def reached(window: Window) -> bool:
    """Whether some tap of some window falls on a real cell.

    Examples
    --------
    >>> reached(Window.make((1,), kernel_size=2, padding=((1, 1),), dilation=2))
    False
    """
    fields = zip(window.in_size, window.kernel_size, window.stride, window.padding, window.dilation, strict=True)
    axes = [Window((size,), (taps,), (step,), (pair,), (spread,)) for size, taps, step, pair, spread in fields]
    return all(any(map(axis.tap_slices, axis.kernel_positions())) for axis in axes)


def tilings(out: int, taps: int) -> list[tuple[int, int]]:
    """Lengths for an axis, with the outputs of a tile: at least as many as taps, or all.

    Examples
    --------
    >>> tilings(100, 21)
    [(120, 100), (72, 52), (54, 34), (45, 25)]
    """
    found, pieces = {}, 1
    while pieces == 1 or pieces * taps <= out:
        length = fast_length(-(-out // pieces) + taps - 1)
        found[length] = min(out, length - taps + 1)
        pieces += max(1, pieces // 2)
    return list(found.items())


@lru_cache(maxsize=512)
def plan(spec: ConvSpec, limit: int, sums: bool = False) -> Plan:
    """The cheapest tiling that fits, or the smallest; `sums` says that weights are what is computed."""
    window = spec.window
    axes = [tilings(out, taps) for out, taps in zip(window.out_size, reach(window), strict=True)]
    smallest = [min(axis) for axis in axes]

    def price(chosen: list[tuple[int, int]]) -> float:
        found = tiling(window, chosen)
        return cost(spec, found) if amounts(spec, found, 1, 1, 1, sums).bytes <= limit else math.inf

    chosen = list(smallest)
    for axis in (*range(window.rank), *range(window.rank)):
        chosen[axis] = min(axes[axis], key=lambda pair: price([*chosen[:axis], pair, *chosen[axis + 1 :]]))
    return filled(spec, tiling(window, chosen if price(chosen) < math.inf else smallest), limit, sums)


def tiling(window: Window, axes: list[tuple[int, int]]) -> Tiling:
    """The tiling by each axis' length and outputs."""
    lengths, tile = zip(*axes, strict=True)
    return Tiling(lengths, tile, math.prod(-(-out // part) for out, part in zip(window.out_size, tile, strict=True)))


def filled(spec: ConvSpec, tiling: Tiling, limit: int, sums: bool) -> Plan:
    """As many output channels, tiles and groups at a time as fit; nothing depends on the batch."""
    found, line = amounts(spec, tiling, 1, 1, 1, sums), spectrum_bytes(spec, tiling)
    for outs in halves(spec.group_out):
        found = amounts(spec, tiling, 1, outs, 1, sums)
        if found.bytes <= limit and outs * depth(spec) * line <= WEIGHTS:
            break
    for together in halves(tiling.tiles):
        found = amounts(spec, tiling, 1, found.outs, together, sums)
        if found.bytes <= limit and (depth(spec) + found.outs) * together * line <= TARGET:
            break
    if (found.outs, found.together) == (spec.group_out, tiling.tiles):
        for groups in halves(spec.groups):
            found = amounts(spec, tiling, groups, found.outs, found.together, sums)
            if found.bytes <= min(limit, 2 * TARGET):
                break
    return found


def halves(most: int) -> Iterator[int]:
    """A number, half of it, and so on, down to 1.

    Examples
    --------
    >>> list(halves(10))
    [10, 5, 3, 2, 1]
    """
    while most > 1:
        yield most
        most = -(-most // 2)
    yield 1


def spectrum_bytes(spec: ConvSpec, tiling: Tiling) -> int:
    """What a transform takes; its cells take no more."""
    return 2 * spec.compute_dtype.itemsize * tiling.frequencies


def amounts(spec: ConvSpec, tiling: Tiling, groups: int, outs: int, together: int, sums: bool) -> Plan:
    """The plan of these amounts.

    Held are the transforms of weights, tiles and results. Besides, there are cells before or after their transform or
    a product that is added, and without matrices one of its terms; where products are of matrices, transforms that are
    turned, too; and what NumPy works in.
    """
    channels = depth(spec)
    weights, sources, results = outs * channels, channels * together, outs * together
    stacked = outs * channels * together >= TURNED * (weights + sources + results)
    most = max(min(outs, rows_at_a_time(groups * channels)) * channels, sources, results)
    lines = weights * ((2 if stacked else 3) if sums else 1) + sources + results + most * (2 if stacked else 1)
    numbers = 2 * max(tiling.lengths) + BUFFERED
    size = 2 * spec.compute_dtype.itemsize
    return Plan(tiling, groups, outs, together, stacked, groups * lines * spectrum_bytes(spec, tiling) + numbers * size)


def rows_at_a_time(channels: int) -> int:
    """The output channels whose weights are transformed together."""
    return max(1, LINES // channels)


def cost(spec: ConvSpec, tiling: Tiling) -> float:
    """Nanoseconds of float32 for an image."""
    channels, outs, frequencies = depth(spec), spec.group_out, tiling.frequencies
    pieces = -(-outs * channels * spectrum_bytes(spec, tiling) // WEIGHTS)
    lines = spec.groups * (channels * outs + tiling.tiles * (channels * pieces + outs))
    each = TRANSFORM * math.log2(math.prod(tiling.lengths)) + MOVED
    products = spec.groups * channels * outs * tiling.tiles
    calls = 3 + lines * spectrum_bytes(spec, tiling) / TARGET
    return frequencies * (lines * each + PRODUCT * products) + CALLS * calls
