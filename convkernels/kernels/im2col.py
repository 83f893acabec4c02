"""Convolution as one matrix product: the windows are copied into columns (im2col; Chellapilla et al., 2006).

For one image and one group, with K = channels * taps and P output positions,

    y (O, P)      =  w (O, K)    @  columns (K, P)
    dcolumns      =  w.T (K, O)  @  dy (O, P)          which scattered back to where they came from is dx
    dw (O, K)    +=  dy (O, P)   @  columns.T (P, K)

The columns of a 3-D layer may take gigabytes, so they are made for a block of the outputs at a time (`blocking`); very
large weights, too, are taken some output channels at a time. The columns lie in memory as the data does: P innermost
where the rows of the picture are contiguous, K innermost where the channels are. Either way the copy moves whole runs,
and BLAS takes a transposed matrix as readily as a plain one.

Images and groups are outer axes of one `numpy.matmul`, which calls BLAS for each by itself, and the tile does not
depend on the batch: hence a sample's result does not either, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ..layout import Array, Order
from ..operation import Resources
from ..spec import ConvSpec
from ..views import blas_takes, grouped, merged, readable, scatter_windows, tiles, windows
from ..window import Tile
from .blocking import Block, choose, padded_cells

CLAIMS = frozenset({"exact_on_integers", "batch_invariant", "nan_strict", "bounded"})


def prefers(spec: ConvSpec, order: Order) -> str | None:
    """Columns pay once a product has some depth; a depthwise convolution's has none."""
    return "depthwise: one channel a group, a product without depth" if spec.group_in == 1 and spec.groups > 1 else None


class Plan:
    """The block sizes for one problem: output channels, then images, groups and a tile of the area."""

    def __init__(self, spec: ConvSpec, limit: int, weight_copies: int = 1) -> None:
        depth, itemsize = spec.group_in * spec.window.taps, spec.compute_dtype.itemsize
        weight_bytes = weight_copies * depth * itemsize
        self.outs = max(1, min(spec.group_out, limit // 2 // weight_bytes))

        def cost(tile: tuple[int, ...]) -> int:
            area = math.prod(tile)
            cells = depth * area + spec.group_in * padded_cells(spec.window, tile) + self.outs * area
            return cells * itemsize

        weights = self.outs * weight_bytes
        self.block: Block = choose(spec.batch, spec.groups, spec.window.out_size, cost, limit, weights)
        self.spec = spec

    def channel_blocks(self) -> Iterator[tuple[slice, slice]]:
        """The groups and, of each, the output channels whose weights are taken together."""
        for groups, outs in tiles((self.spec.groups, self.spec.group_out), (self.block.groups, self.outs)):
            yield groups, outs

    def area_blocks(self) -> Iterator[tuple[slice, Tile]]:
        """The images and the tile of their area whose columns are made together."""
        for images, _, tile in self.block.walk(self.spec.batch, 1, self.spec.window.out_size):
            yield images, tile


def workspace(spec: ConvSpec, limit: int) -> int:
    """Scratch bytes of `conv` and `conv_input_grad`: columns, padded input, a product, and the weights as a matrix."""
    return Plan(spec, limit).block.bytes


def workspace_weight_grad(spec: ConvSpec, limit: int) -> int:
    """Scratch bytes of `conv_weight_grad`: a second weight matrix holds the running sum."""
    return Plan(spec, limit, weight_copies=2).block.bytes


def channels_innermost(x: Array) -> bool:
    """Whether a step along the channels is the shortest in memory."""
    return x.shape[1] > 1 and all(abs(x.strides[1]) <= abs(stride) for stride in x.strides[2:])


def weight_matrix(spec: ConvSpec, w: Array, groups: slice, outs: slice, taps_first: bool) -> Array:
    """The weights of some groups and output channels as (groups, O, K); copied only where no view exists."""
    chosen = w.reshape(spec.groups, spec.group_out, *w.shape[1:])[groups, outs]
    if taps_first:
        chosen = np.moveaxis(chosen, 2, -1)
    return readable(chosen.reshape(*chosen.shape[:2], -1))


def columns_axes(rank: int, taps_first: bool) -> tuple[tuple[int, ...], int]:
    """Put window axes (N, G, C, tile, taps) in the columns' memory order, and say how many make up the rows."""
    tile, taps = range(3, 3 + rank), range(3 + rank, 3 + 2 * rank)
    if taps_first:
        return (0, 1, *tile, *taps, 2), rank
    return (0, 1, 2, *taps, *tile), 1 + rank


class Columns:
    """The matrix of all windows of a block, (N, G, K, P), in a buffer that every block reuses."""

    def __init__(self, spec: ConvSpec, block: Block, taps_first: bool) -> None:
        self.spec, self.taps_first = spec, taps_first
        depth = spec.group_in * spec.window.taps
        self.buffer = np.empty(block.images * block.groups * depth * math.prod(block.tile), spec.compute_dtype)

    def shaped(self, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """The buffer as windows (N, G, C, tile, taps), given their shape, and as the matrix; the same memory."""
        axes, rows = columns_axes(self.spec.window.rank, self.taps_first)
        laid = tuple(shape[axis] for axis in axes)
        memory = self.buffer[: math.prod(laid)].reshape(laid)
        matrix = memory.reshape(*laid[:2], math.prod(laid[2 : 2 + rows]), -1)
        return memory.transpose(np.argsort(axes)), matrix.swapaxes(2, 3) if self.taps_first else matrix

    def gather(self, x: Array, tile: Tile) -> Array:
        """Copy the windows of `x` (N, G, C, spatial); 1x1 windows that BLAS can read where they are stay there."""
        seen = windows(x, self.spec.window, tile)
        if self.spec.window.taps == 1:
            area = merged(seen, 3, seen.ndim)
            if area is not None and blas_takes(area):
                return area
        cells, matrix = self.shaped(seen.shape)
        np.copyto(cells, seen)
        return matrix


def multiply(left: Array, right: Array, target: Array) -> None:
    """Write the product (N, G, rows, P) to a target (N, G, rows, tile), directly where BLAS can."""
    area = merged(target, 3, target.ndim)
    if area is not None and blas_takes(area):
        np.matmul(left, right, out=area)
    else:
        target[...] = np.matmul(left, right).reshape(target.shape)


def flat(block: Array) -> Array:
    """A block (N, G, O, tile) as matrices (N, G, O, P), copied only where no view exists or BLAS cannot read it."""
    return readable(block.reshape(*block.shape[:3], -1))


def conv(spec: ConvSpec, x: Array, w: Array, b: Array | None, *, out: Array, resources: Resources) -> None:
    """Multiply the weights by the columns of each block."""
    plan = Plan(spec, resources.max_workspace)
    taps_first = channels_innermost(x)
    columns = Columns(spec, plan.block, taps_first)
    x, out = grouped(x, spec.groups), grouped(out, spec.groups)
    for groups, outs in plan.channel_blocks():
        weights = weight_matrix(spec, w, groups, outs, taps_first)
        for images, tile in plan.area_blocks():
            target = out[(images, groups, outs, *tile)]
            multiply(weights, columns.gather(x[images, groups], tile), target)
            if b is not None:
                target += b.reshape(spec.groups, spec.group_out, *[1] * spec.window.rank)[groups, outs]


def conv_input_grad(spec: ConvSpec, dy: Array, w: Array, *, out: Array, resources: Resources) -> None:
    """Multiply the transposed weights by dy, and scatter each block's columns back."""
    plan = Plan(spec, resources.max_workspace)
    taps_first = channels_innermost(out)
    columns = Columns(spec, plan.block, taps_first)
    dy, dx = grouped(dy, spec.groups), grouped(out, spec.groups)
    out[...] = 0
    for groups, outs in plan.channel_blocks():
        weights = weight_matrix(spec, w, groups, outs, taps_first).swapaxes(1, 2)
        for images, tile in plan.area_blocks():
            part, inner = spec.window.restrict(tile)
            block = dy[(images, groups, outs, *tile)]
            target = dx[(images, groups, slice(None), *part)]
            shape = (*target.shape[:3], *block.shape[3:], *spec.window.kernel_size)
            cells, matrix = columns.shaped(shape)
            np.matmul(weights, flat(block), out=matrix)
            scatter_windows(cells, inner, target)


def conv_weight_grad(spec: ConvSpec, x: Array, dy: Array, *, out: Array, resources: Resources) -> None:
    """Multiply dy by the columns of each block, and sum over the blocks."""
    plan = Plan(spec, resources.max_workspace, weight_copies=2)
    taps_first = channels_innermost(x)
    columns = Columns(spec, plan.block, taps_first)
    x, dy = grouped(x, spec.groups), grouped(dy, spec.groups)
    dw = out.reshape(spec.groups, spec.group_out, *out.shape[1:])
    for groups, outs in plan.channel_blocks():
        target = dw[groups, outs]
        laid = np.moveaxis(target, 2, -1) if taps_first else target
        total = np.zeros((*laid.shape[:2], math.prod(laid.shape[2:])), out.dtype)
        for images, tile in plan.area_blocks():
            matrix = columns.gather(x[images, groups], tile).swapaxes(2, 3)
            block = flat(dy[(images, groups, outs, *tile)])
            for image in range(len(block)):
                total += np.matmul(block[image], matrix[image])
        laid[...] = total.reshape(laid.shape)
