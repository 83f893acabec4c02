"""Local response normalisation: each cell against the channels near it (Krizhevsky, Sutskever and Hinton, 2012).

    base = bias + alpha / size * (sum of x^2 over the window)           y = x * base^-beta

The window of channel c is c - before to c + after, cut at the ends. With r = dy * x * base^(-beta - 1), a cell is in
the windows of the channels c - after to c + before, so that

    dx = dy * base^-beta - 2 * alpha * beta / size * x * (sum of r over the turned window)

All of it in float64, where the squares of float32 data cannot overflow.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import product

import numpy as np

from ..config import Resources
from ..layout import Array
from ..norm_spec import LocalNormSpec
from ..views import slices
from ..window import Ints, Tile
from .norm_blocks import arithmetic

CLAIMS = frozenset({"batch_invariant", "nan_strict", "bounded"})
TARGET = 2**18
"""Bytes of a block, which is gone over once for each channel of the window: they stay in the cache meanwhile."""
COPIES = 4
"""Blocks of scratch alive at a time."""


def block_cells(spec: LocalNormSpec, limit: int) -> int:
    """How many cells a block may have; the channels of one place at least."""
    return max(spec.shape[1], min(TARGET, limit // COPIES) // spec.statistics_dtype.itemsize)


def workspace(spec: LocalNormSpec, limit: int) -> int:
    """Scratch bytes: blocks with all of the channels."""
    return min(math.prod(spec.shape), block_cells(spec, limit)) * spec.statistics_dtype.itemsize * COPIES


@lru_cache(maxsize=512)
def blocks(shape: Ints, channels: int, cells: int) -> list[Tile]:
    """Cut data, its axes in memory order, into blocks of so many cells that have all channels."""
    sizes = [max(1, size) for size in shape]
    for axis in range(len(shape)):
        while axis != channels and sizes[axis] > 1 and math.prod(sizes) > cells:
            sizes[axis] = -(-sizes[axis] // 2)
    return list(product(*map(slices, shape, sizes)))


def in_memory_order(x: Array, *others: Array) -> tuple[int, list[Array]]:
    """Put the axes with the longest strides of x first, of it and the others; where the channels come to stand."""
    order = sorted(range(x.ndim), key=lambda axis: -abs(x.strides[axis]))
    return order.index(1), [array.transpose(order) for array in (x, *others)]


def window_sum(cells: Array, axis: int, before: int, after: int) -> Array:
    """Sum over the window of each channel, a channel of the window at a time."""
    cells = cells.swapaxes(0, axis)
    total = cells.copy(order="K")
    for step in range(1, min(before, len(cells) - 1) + 1):
        total[step:] += cells[:-step]
    for step in range(1, min(after, len(cells) - 1) + 1):
        total[:-step] += cells[step:]
    return total.swapaxes(0, axis)


def bases(spec: LocalNormSpec, cells: Array, axis: int) -> Array:
    """The sums of squares, scaled and shifted."""
    base = window_sum(np.square(cells), axis, spec.before, spec.after)
    base *= spec.alpha / spec.size
    base += spec.bias
    return base


def local_response_norm(spec: LocalNormSpec, x: Array, *, out: Array, resources: Resources) -> None:
    """Normalise block by block."""
    axis, (x, out) = in_memory_order(x, out)
    with arithmetic():
        for place in blocks(x.shape, axis, block_cells(spec, resources.max_workspace)):
            cells = x[place].astype(spec.statistics_dtype)
            factor = bases(spec, cells, axis)
            np.power(factor, -spec.beta, out=factor)
            np.multiply(cells, factor, out=out[place], casting="same_kind")


def local_response_norm_grad(spec: LocalNormSpec, dy: Array, x: Array, *, out: Array, resources: Resources) -> None:
    """Take the gradient block by block."""
    axis, (x, dy, out) = in_memory_order(x, dy, out)
    with arithmetic():
        for place in blocks(x.shape, axis, block_cells(spec, resources.max_workspace)):
            cells = x[place].astype(spec.statistics_dtype)
            base = bases(spec, cells, axis)
            result = np.power(base, -spec.beta)
            np.multiply(result, dy[place], out=result)
            share = np.divide(result, base, out=base)
            share *= cells
            share = window_sum(share, axis, spec.after, spec.before)
            share *= cells
            share *= -2 * spec.alpha * spec.beta / spec.size
            np.add(result, share, out=out[place], casting="same_kind")
