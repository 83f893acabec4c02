"""Correlations as products of tiles on the data itself: each output is summed in registers and stored once.

With channels innermost, as in NHWC,

    a tile's rows      outputs next to each other along the last axis, ``step`` pixels of the source apart
    a tile's vectors   output channels
    its depth          input channels, together with the taps of the last axis where these lie next to each other
    its taps           the other ones, as offsets into the source

so the source is read where it lies. It is copied only where channels do not lie innermost or a window reaches
outside: once, with zeros around it, in blocks that stay in the cache, not once for each tap. 1x1 windows on rows of
pixels, as in NCHW, exchange the roles and copy nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from ...layout import Array
from ...views import slices
from ...window import Ints
from .axes import Axes, contiguous, correlation_amounts, tap_offsets
from .copies import copy
from .filters import lying_filter, panel_filter, tiling, turned_filter
from .isa import host
from .nest import nest
from .parallel import run
from .scratch import arena

FULL = 0.8
"""How much of the vectors must be used for rows of pixels to lie in them."""
FEW_OUTPUTS = 256
"""Outputs up to which copying weights into panels takes longer than it saves."""


def correlate(x: Array, w: Array, bias: Array | None, axes: Axes, out: Array, threads: int, limit: int) -> None:
    """One group: x (N, C, D, H, W), w (O, C, taps), out (N, O, D, H, W), of which the axes say what to fill."""
    size, (columns, channels) = x.itemsize, w.shape[:2]
    if is_pointwise(axes, x, out, host().lanes(size)):
        pointwise(x, w, bias, out, threads)
        return
    tile = tiling(axes[2].outputs, columns, size, host())
    target = out[:, :, *(slice(axis.first, None, axis.stride) for axis in axes)]
    lies = x.strides[1] == size and all(axis.inside for axis in axes)
    stored = target.strides[1] == size
    # Pixels that follow each other without a gap make one run of channels and taps.
    merged = axes[2].dense and len(axes[2].taps) > 0 and (not lies or x.strides[4] == channels * size)
    chosen = correlation_amounts(axes, channels, columns, size, limit, -(-threads // max(1, len(x))))
    rows, threads = chosen.rows, chosen.threads(threads, limit)
    read_sizes = (*(axis.reach(count) for axis, count in zip(axes, (*rows, axes[2].outputs), strict=True)), channels)
    written_sizes = (*rows, axes[2].outputs, columns)
    read_strides = (*x.strides[2:], size) if lies else contiguous(read_sizes, size)
    written_strides = (*target.strides[2:], size) if stored else contiguous(written_sizes, size)

    biases = arena.empty((tile.panels * tile.width,), x.dtype)
    biases[:] = 0
    if bias is not None:
        biases[:columns] = bias
    filters = turned_filter(w, axes, tile)
    merged = merged and filters is None
    outer, depth = (axes[:2], channels * len(axes[2].taps)) if merged else (axes, channels)
    if filters is None and math.prod(axis.outputs for axis in axes) * len(x) <= FEW_OUTPUTS:
        filters = lying_filter(w, axes, tile, merged=merged)
    if filters is None:
        filters = panel_filter(w, axes, tile, depth)
    a_offsets, b_offsets = tap_offsets(outer, read_strides), filters.offsets
    steps = [axis.step * stride for axis, stride in zip(axes, read_strides, strict=False)]
    strides = np.zeros((4, 4), np.int64)
    strides[0] = (0, filters.panel, tile.width * size, tile.width * size)
    strides[1:, 0] = steps
    strides[1:, 2] = written_strides[:3]
    numbers = np.array(
        [
            *(a_offsets.ctypes.data, b_offsets.ctypes.data, len(a_offsets), depth),
            *(steps[2], size, filters.depth, written_strides[2], 0),
            *(tile.width, tile.last),
        ],
        np.int64,
    )

    def work(pieces: Sequence[tuple[int, tuple[slice, ...]]]) -> None:
        with arena:
            scratch = None if lies else arena.empty(read_sizes, x.dtype)
            results = None if stored else arena.empty(written_sizes, x.dtype)
            for image, places in pieces:
                begin = (places[0].start, places[1].start, 0)
                counts = (places[0].stop - places[0].start, places[1].stop - places[1].start, axes[2].outputs)
                place: tuple[Any, ...] = (image, slice(None), *places)
                part = target[place]
                if scratch is None:
                    starts = (axis.lowest + first * axis.step for axis, first in zip(axes, begin, strict=True))
                    read = x.ctypes.data + image * x.strides[0]
                    read += sum(start * stride for start, stride in zip(starts, read_strides, strict=False))
                else:
                    filled(scratch, x[image], axes, begin, counts)
                    read = scratch.ctypes.data
                kept = part if results is None else results[: counts[0], : counts[1]]
                base = np.array([read, filters.address, kept.ctypes.data, biases.ctypes.data], np.int64)
                nest(tile.codes, tile.starts, np.array([tile.panels, *counts[:2]]), strides, base, numbers)
                if results is not None:
                    copy(part.transpose(1, 2, 3, 0), kept)

    blocks = product(slices(axes[0].outputs, rows[0]), slices(axes[1].outputs, rows[1]))
    run(work, list(product(range(len(x)), blocks)), threads)


def filled(scratch: Array, x: Array, axes: Axes, begin: Ints, outputs: Ints) -> None:
    """Copy what a block of outputs reads of one image's channels (C, D, H, W), with zeros around the image."""
    inner: list[slice] = []
    outer: list[slice] = []
    for place, (axis, first, count) in enumerate(zip(axes, begin, outputs, strict=True)):
        start, size = axis.lowest + first * axis.step, axis.reach(count)
        low, high = max(0, start), min(axis.size, start + size)
        high = max(low, high)
        outer.append(slice(low, high))
        inner.append(slice(low - start, high - start))
        for border in (slice(0, low - start), slice(high - start, size)):
            scratch[*inner[:place], border] = 0
    copy(scratch[tuple(inner)], x[:, *outer].transpose(1, 2, 3, 0))


def is_pointwise(axes: Axes, x: Array, out: Array, lanes: int) -> bool:
    """Whether each output is one pixel's and the pictures lie in memory as rows of pixels, which fill vectors."""
    pixels, size = math.prod(axis.outputs for axis in axes), x.itemsize
    plain = all(axis.taps == ((0, 0),) and axis.outputs == axis.size and axis.step == axis.stride == 1 for axis in axes)
    rows = all(array.strides[2:] == contiguous(array.shape[2:], size) for array in (x, out))
    return plain and rows and pixels / (-(-pixels // lanes) * lanes) >= FULL


def pointwise(x: Array, w: Array, bias: Array | None, out: Array, threads: int) -> None:
    """1x1 windows with the roles exchanged: a tile's rows are output channels, its vectors lie along the pixels.

    Nothing is copied: weights are broadcast from where they lie, pixels read and written where they do.
    """
    size, (outs, channels), pixels = x.itemsize, w.shape[:2], math.prod(x.shape[2:])
    # Panels of pixels are shared out; each is as wide as a few tiles, so that what it reads stays in the cache.
    tile = tiling(outs, pixels, size, host())
    biases = arena.empty((outs, tile.width), x.dtype)
    biases[...] = 0 if bias is None else bias[:, np.newaxis]
    row, zero = tile.width * size, np.zeros(1, np.int64)
    strides = np.zeros((4, 4), np.int64)
    strides[0, 1:3] = row
    strides[3] = (w.strides[0], 0, out.strides[1], row)
    numbers = [zero.ctypes.data, zero.ctypes.data, 1, channels, *w.strides[:2], x.strides[1], out.strides[1], row]

    def work(pieces: Sequence[tuple[int, slice]]) -> None:
        for image, panels in pieces:
            moved = panels.start * row
            places = (x.ctypes.data + image * x.strides[0] + moved, out.ctypes.data + image * out.strides[0] + moved)
            base = np.array([w.ctypes.data, *places, biases.ctypes.data], np.int64)
            last = tile.last if panels.stop == tile.panels else tile.width
            counts = np.array([panels.stop - panels.start, 1, 1])
            nest(tile.codes, tile.starts, counts, strides, base, np.array([*numbers, tile.width, last]))

    shares = slices(tile.panels, -(-tile.panels // threads))
    run(work, list(product(range(len(x)), shares)), threads)
