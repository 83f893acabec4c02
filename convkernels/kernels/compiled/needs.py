"""The scratch memory that convolutions take within a limit; this needs no Numba."""

from __future__ import annotations

import math

from ...spec import ConvSpec
from ...window import Ints
from .amounts import correlation_amounts, pieces_of, squares_amounts, weight_amounts, winograd_weight_amounts
from .axes import ONE, Axes, cut, exchanged_sums, forward_axes, input_grad_axes, mirrored, rests_apart
from .inward import of_inward
from .parts import Workspace, of_many
from .pictures import tap_by_tap
from .reach import depthwise_amounts
from .scattering import (
    FEW_COLUMNS,
    rows_along,
    scattered_bytes,
    scattered_few_bytes,
    scattered_images,
    scattered_rows,
    scatters,
)
from .scratch import LINE, rounded
from .thread_count import usable

PIXEL = ((ONE, ONE, ONE),)
"""The axes of a single pixel: that of windows that are whole pictures, as `one_tap` has it."""
COPIED = 2**20
"""Bytes of pictures that are copied at a time."""


@of_inward
def workspace_depthwise(spec: ConvSpec, limit: int) -> int:
    """Scratch bytes of `depthwise`: weights or their sums, and for each thread copied channels of both arrays."""
    threads = usable(None, spec.flops)
    return depthwise_amounts(spec, limit, threads)[1].bytes(threads, limit)


@of_inward
def whole_workspace(spec: ConvSpec, limit: int) -> int:
    """Scratch bytes of `conv`: weights in panels, and for each thread a block of the input and of the output."""
    axes, channels = forward_axes(spec), (spec.group_in, spec.group_out)
    needed = correlations(spec, (axes,), *channels, limit)
    if spec.group_out <= FEW_COLUMNS and all(axis.step == 1 for axis in axes):
        needed = max(needed, products(spec, mirrored(axes), *channels, limit))
    return max(needed, one_tap(spec, limit, backward=False)) if spec.window.is_whole else needed


@of_inward
def whole_workspace_input_grad(spec: ConvSpec, limit: int) -> int:
    """Scratch bytes of `conv_input_grad`: those of its largest correlation, or of products that are scattered."""
    channels = spec.group_out, spec.group_in
    needed = correlations(spec, input_grad_axes(spec), *channels, limit)
    needed = max(needed, products(spec, forward_axes(spec), *channels, limit))
    return max(needed, one_tap(spec, limit, backward=True)) if spec.window.is_whole else needed


def one_tap(spec: ConvSpec, limit: int, *, backward: bool) -> int:
    """Scratch bytes where windows are whole pictures: of products, of pictures, and of weights if these are copied."""
    copied = weights_bytes(spec) if copies_weights(spec, limit, backward=backward) else 0
    return copied + one_tap_products(spec, limit - copied, backward=backward)


def copies_weights(spec: ConvSpec, limit: int, *, backward: bool) -> bool:
    """Whether there is room to copy weights with gaps, where windows are whole pictures, whatever the batch."""
    left = limit - weights_bytes(spec)
    return one_tap_products(of_many(spec), left, backward=backward) <= left


def one_tap_products(spec: ConvSpec, limit: int, *, backward: bool) -> int:
    """Scratch bytes of products, and of pictures that are copied."""
    image, cells = spec.in_channels * spec.window.taps, spec.window.taps * spec.group_in
    copied = copied_images(spec.batch, image * spec.compute_dtype.itemsize) * image * spec.compute_dtype.itemsize + LINE
    channels = (spec.group_out, cells) if backward else (cells, spec.group_out)
    return copied + correlations(spec, PIXEL, *channels, limit - copied, taps=1)


def weights_bytes(spec: ConvSpec) -> int:
    """The bytes of the weights, to the end of a line and one more."""
    return rounded(spec.out_channels * spec.group_in * spec.window.taps * spec.compute_dtype.itemsize) + LINE


def copied_images(batch: int, image: int) -> int:
    """How many pictures of so many bytes are copied at a time."""
    return max(1, min(batch, COPIED // image))


def products(spec: ConvSpec, axes: Axes, channels: int, columns: int, limit: int) -> int:
    """Scratch bytes of an input gradient by products that are scattered; 0 where none are."""
    size, threads = spec.compute_dtype.itemsize, usable(None, spec.flops)
    counts, count = [axis.outputs for axis in axes], columns * spec.window.taps
    several = min(spec.batch, scattered_images(axes, spec.groups, channels, columns, size))
    room = rounded(channels * count * size)
    if several:
        room += sum(map(rounded, scattered_few_bytes(several, math.prod(counts), channels, count, size)))
        pixels: list[Ints] = [
            (1, 1, images * math.prod(counts)) for images in (several, spec.batch % several) if images
        ]
    elif scatters(axes, spec.groups, channels, columns, size):
        room += scattered_bytes(axes, columns, size)
        counts[rows_along(axes)] = scattered_rows(axes, columns, size)
        pixels = [tuple(counts)]
    else:
        return 0
    product = (1, 1, channels, count, 1, size, limit - room, threads)
    every = (tuple(ONE._replace(outputs=each, size=each) for each in some) for some in pixels)
    return room + max(correlation_amounts(some, *product).bytes(threads, limit - room) for some in every)


def correlations(
    spec: ConvSpec, every: tuple[Axes, ...], channels: int, columns: int, limit: int, taps: int | None = None
) -> int:
    """Scratch bytes of correlations along some axes, by all taps of w or so many."""
    size, threads = spec.compute_dtype.itemsize, usable(None, spec.flops)
    problem = (spec.batch, spec.groups, channels, columns, taps or spec.window.taps, size, limit, threads)
    pieces = (*every, *rests_apart(every), *cut(every, channels))
    return max(correlation_amounts(axes, *problem).bytes(threads, limit) for axes in pieces)


@of_inward
def workspace_winograd(spec: ConvSpec, limit: int) -> int:
    """Scratch bytes of `winograd`: transformed weights, and for each thread squares in all their forms."""
    return squares(spec, (forward_axes(spec),), spec.group_in, spec.group_out, limit)


@of_inward
def workspace_winograd_input_grad(spec: ConvSpec, limit: int) -> int:
    """Scratch bytes of `winograd_input_grad`."""
    return squares(spec, rests_apart(input_grad_axes(spec)), spec.group_out, spec.group_in, limit)


@of_inward
def workspace_winograd_weight_grad(spec: ConvSpec, limit: int) -> int:
    """Scratch bytes of `winograd_weight_grad`: squares and their sums, and for each thread a part of either."""
    if not spec.batch:
        return 0
    size, threads = spec.compute_dtype.itemsize, usable(None, spec.flops)
    problem = (spec.batch, spec.groups, spec.group_in, spec.group_out, size, limit)
    return winograd_weight_amounts(tap_by_tap(forward_axes(spec))[0], *problem).pieces.bytes(threads, limit)


def squares(spec: ConvSpec, every: tuple[Axes, ...], channels: int, columns: int, limit: int) -> int:
    """Scratch bytes of correlations by squares."""
    size, threads = spec.compute_dtype.itemsize, usable(None, spec.flops)
    found = squares_amounts(every, spec.batch, spec.groups, channels, columns, size, limit, threads)
    return max(amounts.bytes(threads, limit) for amounts in found)


@of_inward
def whole_workspace_weight_grad(spec: ConvSpec, limit: int) -> int:
    """Scratch bytes of `conv_weight_grad`: the sums, and for each thread a block of the input and of the gradient."""
    size, threads = spec.compute_dtype.itemsize, usable(None, spec.flops)
    axes, ins, outs = forward_axes(spec), spec.group_in, spec.group_out
    ways = [(axes, spec.batch, spec.groups, ins, outs)]
    if other := exchanged_sums(axes, ins):
        ways.append((other[0], spec.batch, spec.groups, outs, other[1]))
    found = [
        weight_amounts(pieces_of(axes, ins + outs, size), batch, groups, ins, outs, size, limit)[0]
        for axes, batch, groups, ins, outs in ways
    ]
    return max(amounts.bytes(threads, limit) for amounts in found)


workspace = Workspace(whole_workspace, "out_channels")
workspace_input_grad = Workspace(whole_workspace_input_grad, "in_channels")
workspace_weight_grad = Workspace(whole_workspace_weight_grad, "out_channels")
