"""Convolution and its gradients by tiles, group by group; the weight gradient is the same tile with other strides.

Its rows are input channels, its depth runs along the pixels of a row, and its taps are the rows of the picture:

    dw[tap, c, o] = sum over rows, pixels of x[row * step + offset, pixel * step + offset, c] * dy[row, pixel, o]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from ...config import Resources
from ...layout import Array
from ...spec import ConvSpec
from ...views import slices
from ...window import Ints
from .axes import Axes, contiguous, forward_axes, grid, input_grad_axes, weight_amounts
from .copies import copy
from .correlation import correlate, filled
from .filters import tiling
from .isa import host
from .nest import nest
from .parallel import run, usable
from .scratch import arena


def spread_out(array: Array) -> Array:
    """An array with three spatial axes."""
    return array.reshape(*array.shape[:2], *[1] * (5 - array.ndim), *array.shape[2:])


def gradient_of_weights(x: Array, dy: Array, axes: Axes, dilation: Ints, out: Array, threads: int, limit: int) -> None:
    """One group: x (N, C, D, H, W), dy (N, O, D, H, W), out (O, C, taps).

    Panels of output channels are shared out, so that each sum is one thread's and in the same order.
    """
    size, channels, columns = x.itemsize, x.shape[1], dy.shape[1]
    tile = tiling(channels, columns, size, host())
    lies = x.strides[1] == size and all(axis.inside for axis in axes)
    given = dy.strides[1] == size
    chosen = weight_amounts(axes, channels, columns, size, limit)
    rows, threads = chosen.rows, chosen.threads(threads, limit)
    read_sizes = (*(axis.reach(count) for axis, count in zip(axes, (*rows, axes[2].outputs), strict=True)), channels)
    read_strides = (*x.strides[2:], size) if lies else contiguous(read_sizes, size)
    taps = tuple(len(axis.taps) for axis in axes)
    total = arena.empty((*taps, channels, tile.panels * tile.width), x.dtype)
    total[...] = 0
    between = [spread * stride for spread, stride in zip(dilation, read_strides, strict=False)]
    steps = tuple(axis.step * stride for axis, stride in zip(axes, read_strides, strict=False))

    def work(panels: Sequence[int]) -> None:
        first, ends = panels[0] * tile.width, panels[-1] == tile.panels - 1
        wide = min(columns, (panels[-1] + 1) * tile.width) - first
        with arena:
            scratch = None if lies else arena.empty(read_sizes, x.dtype)
            turned = None if given else arena.empty((*rows, axes[2].outputs, wide), x.dtype)
            blocks = product(slices(axes[0].outputs, rows[0]), slices(axes[1].outputs, rows[1]))
            for image, places in product(range(len(x)), list(blocks)):
                begin = (places[0].start, places[1].start, 0)
                counts = (places[0].stop - places[0].start, places[1].stop - places[1].start, axes[2].outputs)
                if scratch is None:
                    starts = (axis.lowest + start * axis.step for axis, start in zip(axes, begin, strict=True))
                    read = x.ctypes.data + image * x.strides[0]
                    read += sum(start * stride for start, stride in zip(starts, read_strides, strict=False))
                else:
                    filled(scratch, x[image], axes, begin, counts)
                    read = scratch.ctypes.data
                part = dy[image, first : first + wide, *places].transpose(1, 2, 3, 0)
                if turned is not None:
                    copy(turned[: counts[0], : counts[1]], part)
                    part = turned[: counts[0], : counts[1]]
                a_offsets = grid(counts[:2], steps)
                b_offsets = grid(counts[:2], part.strides)
                row = total.strides[3]
                strides = np.zeros((4, 4), np.int64)
                strides[0, 1:] = tile.width * size
                strides[1] = (between[1], 0, total.strides[1], total.strides[1])
                strides[2] = (between[2], 0, total.strides[2], total.strides[2])
                strides[3] = (size, 0, row, row)
                numbers = np.array(
                    [
                        *(a_offsets.ctypes.data, b_offsets.ctypes.data, len(a_offsets), counts[2]),
                        *(size, steps[2], part.strides[2], row, row),
                        *(tile.width, tile.last if ends else tile.width),
                    ],
                    np.int64,
                )
                for plane in range(taps[0]):
                    sums = total[plane].ctypes.data + first * size
                    base = np.array([read + plane * between[0], part.ctypes.data, sums, sums], np.int64)
                    nest(tile.codes, tile.starts, np.array([len(panels), *taps[1:]]), strides, base, numbers)

    run(work, range(tile.panels), threads)
    for plane in range(taps[0]):
        copy(out[:, :, plane].transpose(2, 3, 1, 0), total[plane, ..., :columns])


def groups(spec: ConvSpec) -> Iterator[tuple[slice, slice]]:
    """The input and the output channels of each group."""
    for group in range(spec.groups):
        yield (
            slice(group * spec.group_in, (group + 1) * spec.group_in),
            slice(group * spec.group_out, (group + 1) * spec.group_out),
        )


def conv(spec: ConvSpec, x: Array, w: Array, b: Array | None, *, out: Array, resources: Resources) -> None:
    """Correlate each group."""
    x, w, out = map(spread_out, (x, w, out))
    axes, threads = forward_axes(spec), usable(resources.threads, spec.flops)
    for ins, outs in groups(spec):
        with arena:
            correlate(
                x[:, ins], w[outs], None if b is None else b[outs], axes, out[:, outs], threads, resources.max_workspace
            )


def conv_input_grad(spec: ConvSpec, dy: Array, w: Array, *, out: Array, resources: Resources) -> None:
    """Correlate each group with its channels exchanged, for each remainder of the stride."""
    dy, w, out = map(spread_out, (dy, w, out))
    threads = usable(resources.threads, spec.flops)
    for axes in input_grad_axes(spec):
        for ins, outs in groups(spec):
            with arena:
                correlate(
                    dy[:, outs], w[outs].swapaxes(0, 1), None, axes, out[:, ins], threads, resources.max_workspace
                )


def conv_weight_grad(spec: ConvSpec, x: Array, dy: Array, *, out: Array, resources: Resources) -> None:
    """Sum for each group."""
    x, dy, out = map(spread_out, (x, dy, out))
    axes, threads = forward_axes(spec), usable(resources.threads, spec.flops)
    dilation = (1,) * (3 - spec.window.rank) + spec.window.dilation
    for ins, outs in groups(spec):
        with arena:
            gradient_of_weights(x[:, ins], dy[:, outs], axes, dilation, out[outs], threads, resources.max_workspace)
