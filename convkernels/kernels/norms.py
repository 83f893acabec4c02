"""Normalisation in three passes over blocks that stay in the cache.

    mean = sum x / count        var = sum (x - mean)^2 / count        y = x * s + (beta - mean * s),  s = gamma * rstd

with rstd = 1 / sqrt(var + eps). The variance is never E[x^2] - E[x]^2, which cancels. All three passes run in float64
for narrower data, so neither the sums nor x * s against mean * s lose what float32 has. The gradient, with
xh = (x - mean) * rstd and g = dy * gamma, is

    dx = rstd * (g - mean(g) - xh * mean(g * xh))        dgamma = sum dy * xh        dbeta = sum dy

(Ioffe and Szegedy, 2015), the means over the cells that share statistics; an rms norm (Zhang and Sennrich, 2019) has no
mean, and no mean(g).
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise, product
from typing import Any

import numpy as np

from ..config import Resources
from ..layout import Array
from ..norm_spec import NormSpec
from ..views import slices
from ..window import Ints, Tile

CLAIMS = frozenset({"batch_invariant", "nan_strict", "bounded"})
TARGET = 3 * 2**19
"""Bytes of float64 blocks to work in, 1.5 MiB: what is read again in the same pass then comes from the cache."""
COPIES = 3
"""Blocks alive at a time."""


def block_sizes(shape: Ints, order: Ints, itemsize: int, limit: int) -> Ints:
    """The largest block within `limit` bytes, cut along the axes in the given order."""
    sizes = [max(1, size) for size in shape]
    for axis in order:
        while sizes[axis] > 1 and math.prod(sizes) * itemsize * COPIES > limit:
            sizes[axis] = -(-sizes[axis] // 2)
    return tuple(sizes)


@lru_cache(maxsize=512)
def _places(shape: Ints, order: Ints, itemsize: int, limit: int) -> list[Tile]:
    sizes = block_sizes(shape, order, itemsize, limit)
    return list(product(*map(slices, shape, sizes)))


def blocks(spec: NormSpec, x: Array, limit: int) -> list[Tile]:
    """Cut the data, the axes with the longest strides first, so that blocks are near runs of memory."""
    order = tuple(sorted(range(x.ndim), key=lambda axis: -abs(x.strides[axis])))
    return _places(x.shape, order, spec.statistics_dtype.itemsize, min(limit, TARGET))


def workspace(spec: NormSpec, limit: int) -> int:
    """Scratch bytes: blocks in the type of the statistics."""
    itemsize = spec.statistics_dtype.itemsize
    order = tuple(range(len(spec.seen_shape)))
    return math.prod(block_sizes(spec.seen_shape, order, itemsize, min(limit, TARGET))) * itemsize * COPIES


def at(small: Array, place: Tile) -> Array:
    """The part of an array with axes of one that goes with a block of the data."""
    cut: Tile = tuple(part if size > 1 else slice(None) for part, size in zip(place, small.shape, strict=True))
    return small[cut]


def add_sum(cells: Array, total: Array, place: Tile) -> None:
    """Sum a block over the axes of one of `total`, and add that to its part."""
    part = at(total, place)
    axes = [axis for axis, size in enumerate(total.shape) if size == 1 and cells.shape[axis] > 1]
    axes.sort(key=lambda axis: -abs(cells.strides[axis]))
    # Axes that others lie between in memory are summed first, as whole rows; together with the innermost, as in groups
    # of channels in channels-last memory, NumPy would add a few numbers at a time and take 4 times as long.
    for cut, (outer, inner) in enumerate(pairwise(axes), start=1):
        if cells.strides[outer] != cells.strides[inner] * cells.shape[inner]:
            cells = np.add.reduce(cells, tuple(axes[:cut]), keepdims=True)
            axes = axes[cut:]
            break
    part += np.add.reduce(cells, tuple(axes), keepdims=True)


def norm(
    spec: NormSpec,
    x: Array,
    gamma: Array | None,
    beta: Array | None,
    *,
    out: Array,
    mean: Array,
    var: Array,
    resources: Resources,
) -> None:
    """Take the statistics in two passes, and normalise in a third."""
    places, wide = blocks(spec, x, resources.max_workspace), spec.statistics_dtype
    mean[...] = var[...] = 0
    if spec.centred:
        for place in places:
            add_sum(x[place].astype(wide), mean, place)
        mean /= spec.count
    for place in places:
        cells = np.subtract(x[place], at(mean, place), dtype=wide)
        add_sum(np.square(cells, out=cells), var, place)
    var /= spec.count
    scale_and_shift(spec, x, gamma, beta, mean, var, out, places)


def scale_and_shift(
    spec: NormSpec,
    x: Array,
    gamma: Array | None,
    beta: Array | None,
    mean: Array,
    var: Array,
    out: Array,
    places: list[Tile],
) -> None:
    """Normalise with given statistics: x * s + (beta - mean * s)."""
    rstd = 1 / np.sqrt(var.astype(spec.statistics_dtype) + spec.eps)
    for place in places:
        scale = at(rstd, place) if gamma is None else at(rstd, place) * at(gamma, place)
        shift = -at(mean, place) * scale
        if beta is not None:
            shift = shift + at(beta, place)
        cells = np.multiply(x[place], scale, dtype=spec.statistics_dtype)
        np.add(cells, shift, out=out[place], casting="same_kind")


def norm_grad(
    spec: NormSpec,
    dy: Array,
    x: Array,
    gamma: Array | None,
    mean: Array,
    var: Array,
    *,
    out: Array,
    dgamma: Array | None,
    dbeta: Array | None,
    resources: Resources,
) -> None:
    """Sum what the statistics pass back in one pass, and combine in a second."""
    places, wide = blocks(spec, x, resources.max_workspace), spec.statistics_dtype
    rstd = 1 / np.sqrt(var + spec.eps)
    sums, products = np.zeros_like(mean), np.zeros_like(mean)
    for total in (dgamma, dbeta):
        if total is not None:
            total[...] = 0
    for place in places:
        normalised, cells = standardised(x, mean, rstd, place, wide), dy[place].astype(wide)
        if dbeta is not None:
            add_sum(cells, dbeta, place)
        if gamma is not None:
            if dgamma is not None:
                add_sum(cells * normalised, dgamma, place)
            np.multiply(cells, at(gamma, place), out=cells)
        if spec.centred:
            add_sum(cells, sums, place)
        add_sum(np.multiply(cells, normalised, out=cells), products, place)
    sums /= spec.count
    products /= spec.count
    for place in places:
        normalised, cells = standardised(x, mean, rstd, place, wide), dy[place].astype(wide)
        if gamma is not None:
            np.multiply(cells, at(gamma, place), out=cells)
        np.subtract(cells, at(sums, place), out=cells)
        np.subtract(cells, np.multiply(normalised, at(products, place), out=normalised), out=cells)
        np.multiply(cells, at(rstd, place), out=out[place], casting="same_kind")


def standardised(x: Array, mean: Array, rstd: Array, place: Tile, wide: np.dtype[Any]) -> Array:
    """A block of x, its mean taken off, divided by its deviation."""
    cells: Array = np.subtract(x[place], at(mean, place), dtype=wide)
    return np.multiply(cells, at(rstd, place), out=cells)


def batch_norm(
    spec: NormSpec,
    x: Array,
    gamma: Array | None,
    beta: Array | None,
    mean: Array,
    var: Array,
    *,
    out: Array,
    resources: Resources,
) -> None:
    """Normalise with given statistics."""
    scale_and_shift(spec, x, gamma, beta, mean, var, out, blocks(spec, x, resources.max_workspace))
