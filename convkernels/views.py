"""Views and copies that all NumPy implementations share: padding, the window view and its adjoint.

Arrays are canonical: two leading axes, then the spatial ones; `windows` appends the kernel axes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from .layout import Array
from .window import Pairs, Tile, Window


def pad(x: Array, padding: Pairs, value: Any = 0) -> Array:
    """Pad or crop the trailing axes; a view where nothing is added.

    Examples
    --------
    >>> pad(np.array([[[1, 2, 3]]]), ((2, -1),))
    array([[[0, 0, 1, 2]]])
    """
    lead = x.ndim - len(padding)
    axes = list(zip(x.shape[lead:], padding, strict=True))
    source: Tile = tuple(slice(max(0, -lo), size + min(0, hi)) for size, (lo, hi) in axes)
    kept = x[..., *source]
    if all(lo <= 0 and hi <= 0 for lo, hi in padding):
        return kept
    sizes = tuple(size + lo + hi for size, (lo, hi) in axes)
    # In the memory order of x, so that rows of channels stay rows of channels.
    padded = np.full_like(x, value, order="K", shape=(*x.shape[:lead], *sizes), subok=False)
    if kept.size:
        middle: Tile = tuple(
            slice(max(0, lo), size - max(0, hi)) for size, (lo, hi) in zip(sizes, padding, strict=True)
        )
        padded[..., *middle] = kept
    return padded


def windows(x: Array, window: Window, pad_value: Any = 0) -> Array:
    """See every window: shape (N, C, *out_size, *kernel_size), read-only.

    Nothing is copied but, where some window reaches beyond the input, what `pad` copies.

    Examples
    --------
    >>> x = np.arange(4.0).reshape(1, 1, 4)
    >>> windows(x, Window.make((4,), kernel_size=2, padding=((0, 1),)))[0, 0]
    array([[0., 1.],
           [1., 2.],
           [2., 3.],
           [3., 0.]])
    """
    part, exact = window.exact
    lead = x.ndim - window.rank
    padded = pad(x[..., *part], exact.padding, pad_value)
    spatial = padded.strides[lead:]
    strides = (
        *padded.strides[:lead],
        *(stride * step for stride, step in zip(spatial, window.stride, strict=True)),
        *(stride * step for stride, step in zip(spatial, window.dilation, strict=True)),
    )
    return as_strided(padded, x.shape[:lead] + exact.out_size + window.kernel_size, strides, writeable=False)


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
            out[..., *inputs] += cells[..., *outputs, *tap]


def grouped(array: Array, groups: int) -> Array:
    """See (N, C, spatial) as (N, groups, C/groups, spatial)."""
    return array.reshape(array.shape[0], groups, array.shape[1] // groups, *array.shape[2:])


def blas_takes(matrices: Array) -> bool:
    """Whether BLAS can use the trailing two axes as they lie: one of them contiguous, the other no shorter."""
    rows, columns = matrices.shape[-2:]
    down, along = matrices.strides[-2:]
    size = matrices.itemsize
    return (along == size and down >= columns * size) or (down == size and along >= rows * size)


def readable(matrices: Array) -> Array:
    """The matrices as they lie if BLAS can read them so, else a copy; NumPy's own loops are 20 times slower."""
    return matrices if blas_takes(matrices) else np.ascontiguousarray(matrices)


def flat_view(block: Array, lead: int) -> Array | None:
    """The axes after `lead` as one, so that BLAS can use the matrices where they lie, or None.

    Examples
    --------
    >>> flat_view(np.zeros((2, 3, 4)), 1).shape
    (2, 12)
    >>> flat_view(np.zeros((2, 3, 4))[:, :, :2], 1) is None
    True
    """
    try:
        matrices = block.reshape(*block.shape[:lead], -1, copy=False)
    except ValueError:  # NumPy's way of saying that there is no such view
        return None
    return matrices if blas_takes(matrices) else None


def slices(total: int, step: int) -> list[slice]:
    """Cut a range into slices of at most `step`.

    Examples
    --------
    >>> slices(5, 2)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    return [slice(begin, min(begin + step, total)) for begin in range(0, total, step)]
