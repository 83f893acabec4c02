"""Views and copies that all NumPy implementations share: padding, the window view and its adjoint.

Arrays are canonical: two leading axes, then the spatial ones; `windows` appends the kernel axes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from .layout import Array
from .window import Ints, Pairs, Tile, Window


def pad(x: Array, padding: Pairs, value: Any = 0) -> Array:
    """Pad or crop the trailing axes; a view where nothing is added.

    Examples
    --------
    >>> pad(np.array([[[1, 2, 3]]]), ((2, -1),))
    array([[[0, 0, 1, 2]]])
    """
    lead = x.ndim - len(padding)
    source = tuple(
        slice(max(0, -lo), size + min(0, hi)) for size, (lo, hi) in zip(x.shape[lead:], padding, strict=True)
    )
    kept = x[(..., *source)]
    if all(lo <= 0 and hi <= 0 for lo, hi in padding):
        return kept
    sizes = tuple(size + lo + hi for size, (lo, hi) in zip(x.shape[lead:], padding, strict=True))
    padded = np.full(x.shape[:lead] + sizes, value, x.dtype)
    if kept.size:
        target = tuple(
            slice(max(0, lo), max(0, lo) + size) for size, (lo, _) in zip(kept.shape[lead:], padding, strict=True)
        )
        padded[(..., *target)] = kept
    return padded


def windows(x: Array, window: Window, tile: Tile | None = None, pad_value: Any = 0) -> Array:
    """See the window of every output, or of a tile of them: shape (N, C, *out_size, *kernel_size), read-only.

    Nothing is copied but the part of the input that a tile at the border reads, so as to pad it.

    Examples
    --------
    >>> x = np.arange(4.0).reshape(1, 1, 4)
    >>> windows(x, Window.make((4,), kernel_size=2, padding=((0, 1),)))[0, 0]
    array([[0., 1.],
           [1., 2.],
           [2., 3.],
           [3., 0.]])
    """
    part, inner = window.restrict(tile or window.whole)
    lead = x.ndim - window.rank
    padded = pad(x[(..., *part)], inner.padding, pad_value)
    spatial = padded.strides[lead:]
    strides = (
        *padded.strides[:lead],
        *(stride * step for stride, step in zip(spatial, window.stride, strict=True)),
        *(stride * step for stride, step in zip(spatial, window.dilation, strict=True)),
    )
    return as_strided(padded, x.shape[:lead] + inner.out_size + window.kernel_size, strides, writeable=False)


def scatter_windows(cells: Array, window: Window, out: Array) -> None:
    """Add every window's cells to the input cells they came from: the adjoint of `windows`, padding dropped.

    Parameters
    ----------
    cells : ndarray
        Shape (N, C, *out_size, *kernel_size).
    window : Window
        The geometry.
    out : ndarray
        Added to; shape (N, C, *in_size).
    """
    for tap in window.kernel_positions():
        slices = window.tap_slices(tap)
        if slices:
            outputs, inputs = slices
            out[(..., *inputs)] += cells[(..., *outputs, *tap)]


def merged(array: Array, start: int, stop: int) -> Array | None:
    """See axes start to stop as one, or None where the memory does not lie so that it is a view.

    Examples
    --------
    >>> merged(np.zeros((2, 3, 4)), 1, 3).shape
    (2, 12)
    >>> merged(np.zeros((2, 3, 4))[:, :, :2], 1, 3) is None
    True
    """
    axes = [axis for axis in range(start, stop) if array.shape[axis] > 1]
    for outer, inner in zip(axes, axes[1:], strict=False):
        if array.strides[outer] != array.strides[inner] * array.shape[inner]:
            return None
    # NumPy's reshape returns a view wherever one exists, which was just checked.
    return array.reshape(*array.shape[:start], math.prod(array.shape[start:stop]), *array.shape[stop:])


def grouped(array: Array, groups: int) -> Array:
    """See (N, C, spatial) as (N, groups, C/groups, spatial)."""
    return array.reshape(array.shape[0], groups, array.shape[1] // groups, *array.shape[2:])


def blas_takes(matrices: Array) -> bool:
    """Whether BLAS can read or write the trailing two axes as they lie: one of them contiguous, the other no shorter."""
    rows, columns = matrices.shape[-2:]
    down, along = (stride // matrices.itemsize for stride in matrices.strides[-2:])
    return (along == 1 and down >= columns) or (down == 1 and along >= rows)


def readable(matrices: Array) -> Array:
    """The matrices as they lie if BLAS can read them so, else a copy; NumPy's own loops are 20 times slower."""
    return matrices if blas_takes(matrices) else np.ascontiguousarray(matrices)


def tiles(size: Ints, tile: Ints) -> Iterator[Tile]:
    """Cut an area into tiles of at most the given size, in row-major order."""
    ranges = (range(0, total, step) for total, step in zip(size, tile, strict=True))
    for begins in product(*ranges):
        yield tuple(
            slice(begin, min(begin + step, total)) for begin, step, total in zip(begins, tile, size, strict=True)
        )
