"""Convolution as one matrix product: the windows are copied into columns (im2col; Chellapilla et al., 2006).

For one image and one group, with K = channels * taps and P positions, columns are *gathered* from the input or
*scattered* into it:

    gather     y (O, P)       =  w (O, K)    @  columns (K, P)        columns of x
    scatter    columns (K, P) =  w.T (K, O)  @  dy (O, P)             added up where they came from, they are dx
               dw (O, K)     +=  dy (O, P)   @  columns.T (P, K)      columns of x

With stride 1 the transpose of a convolution is again one: swap the channels, flip the taps, pad by what was missing
(`transposed`). So the forward can be scattered and the input gradient gathered, and the columns are made on the side
that has fewer channels: where 412 channels become 12, they are 34 times smaller.

The columns of a 3-D layer may take gigabytes, so they are made for a block of the outputs at a time (`blocking`); very
large weights, too, are taken some output channels at a time. The columns lie in memory as the data does: P innermost
where the rows of the picture are contiguous, K innermost where the channels are. Either way the copy moves whole runs,
and BLAS takes a transposed matrix as readily as a plain one.

Images and groups are outer axes of one `numpy.matmul`, which calls BLAS for each by itself, and the tile does not
depend on the batch: hence a sample's result does not either, bit for bit.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..config import Resources
from ..layout import Array, Order
from ..spec import ConvSpec
from ..views import flat_view, grouped, readable, scatter_windows, slices, windows
from ..window import Ints, Tile, Window
from .blocking import Block, choose, padded_cells

CLAIMS = frozenset({"exact_on_integers", "batch_invariant", "nan_strict", "bounded"})


FEW = 8
"""Channels below which a run of them is too short to move memory by."""


def prefers(spec: ConvSpec, order: Order) -> str | None:
    """Columns of one group are copied in runs of its channels where these lie innermost; the taps' view is not."""
    if order == "channels_last" and spec.groups > 1 and spec.group_in < FEW:
        return f"{spec.group_in} channels in a group make short runs in channels-last memory"
    return None


class Plan(NamedTuple):
    """The amounts for one problem: output channels whose weights are taken together, and the rest of the block."""

    outs: int
    block: Block


@lru_cache(maxsize=512)
def plan(spec: ConvSpec, limit: int, weight_copies: int = 1) -> Plan:
    """Fit the weights into half of the limit and the columns into the rest, or weights of one channel at a time."""
    depth, itemsize = spec.group_in * spec.window.taps, spec.compute_dtype.itemsize

    def fitted(outs: int) -> Plan:
        def cost(tile: Ints) -> int:
            area = math.prod(tile)
            return (depth * area + spec.group_in * padded_cells(spec.window, tile) + outs * area) * itemsize

        weights = outs * weight_copies * depth * itemsize
        return Plan(outs, choose(spec.batch, spec.groups, spec.window, cost, limit, weights))

    preferred = fitted(max(1, min(spec.group_out, limit // 2 // (weight_copies * depth * itemsize))))
    return preferred if preferred.block.bytes <= limit else fitted(1)


@lru_cache(maxsize=512)
def transposed(spec: ConvSpec) -> ConvSpec:
    """The problem that takes this one's output back to its input; for stride 1."""
    window = spec.window
    padding = tuple(
        (extent - 1 - lo, extent - 1 - hi) for extent, (lo, hi) in zip(window.extent, window.padding, strict=True)
    )
    back = Window(window.out_size, window.kernel_size, window.stride, padding, window.dilation)
    return replace(spec, in_channels=spec.out_channels, out_channels=spec.in_channels, window=back)


SCATTERED = 3
"""What a scattered cell costs, in gathered ones: it is written by the product, read, and added to its place."""


def dense_steps(spec: ConvSpec) -> bool:
    """Whether the stride is 1 along every axis."""
    return all(step == 1 for step in spec.window.stride)


def forward_scatters(spec: ConvSpec) -> bool:
    """Whether the output's columns, scattered, are cheaper than the input's, gathered; 1x1 windows need none."""
    return dense_steps(spec) and spec.window.taps > 1 and spec.group_in > SCATTERED * spec.group_out


def input_grad_gathers(spec: ConvSpec) -> bool:
    """Whether the output gradient's columns, gathered, are cheaper than the input's, scattered."""
    return dense_steps(spec) and (spec.window.taps == 1 or spec.group_out <= SCATTERED * spec.group_in)


def workspace(spec: ConvSpec, limit: int) -> int:
    """Scratch bytes of `conv`: columns, padded input, a product, and the weights as a matrix."""
    return plan(transposed(spec) if forward_scatters(spec) else spec, limit).block.bytes


def workspace_input_grad(spec: ConvSpec, limit: int) -> int:
    """Scratch bytes of `conv_input_grad`, of the same kinds."""
    return plan(transposed(spec) if input_grad_gathers(spec) else spec, limit).block.bytes


def workspace_weight_grad(spec: ConvSpec, limit: int) -> int:
    """Scratch bytes of `conv_weight_grad`: a second weight matrix holds the running sum."""
    return plan(spec, limit, 2).block.bytes


def channels_innermost(x: Array) -> bool:
    """Whether a step along the channels is the shortest in memory; axes of one, whose steps mean nothing, aside."""
    spatial = zip(x.shape[2:], x.strides[2:], strict=True)
    return x.shape[1] > 1 and all(abs(x.strides[1]) <= abs(stride) for size, stride in spatial if size > 1)


def by_group(spec: ConvSpec, w: Array) -> Array:
    """The weights as (G, O, C, taps)."""
    return w.reshape(spec.groups, spec.group_out, *w.shape[1:])


def turned(w: Array) -> Array:
    """The transposed problem's weights: the channels swapped, the taps flipped."""
    return np.flip(w.swapaxes(1, 2), tuple(range(3, w.ndim)))


def weight_matrix(w: Array, taps_first: bool) -> Array:
    """Weights (G, O, C, taps) as matrices (G, O, K), copied only where no view exists or BLAS cannot read it."""
    laid = w.transpose(0, 1, *range(3, w.ndim), 2) if taps_first else w
    return readable(laid.reshape(*laid.shape[:2], -1))


class Arrangement(NamedTuple):
    """How window axes (N, G, C, tile, taps) lie in the columns' memory; the first `rows` of them make up the rows."""

    axes: tuple[int, ...]
    inverse: tuple[int, ...]
    rows: int


@lru_cache(maxsize=8)
def arrangement(rank: int, taps_first: bool) -> Arrangement:
    """(N, G, tile, taps, C), the transposed matrix with K innermost, or (N, G, C, taps, tile) with P innermost."""
    tile, taps = range(3, 3 + rank), range(3 + rank, 3 + 2 * rank)
    axes = (0, 1, *tile, *taps, 2) if taps_first else (0, 1, 2, *taps, *tile)
    return Arrangement(axes, tuple(map(axes.index, range(len(axes)))), rank if taps_first else 1 + rank)


class Columns:
    """The matrix of all windows of a block, (N, G, K, P), in a buffer that every block reuses."""

    def __init__(self, spec: ConvSpec, block: Block, taps_first: bool) -> None:
        self.spec, self.taps_first = spec, taps_first
        depth = spec.group_in * spec.window.taps
        self.buffer = np.empty(block.images * block.groups * depth * math.prod(block.tile), spec.compute_dtype)

    def shaped(self, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """The buffer as windows (N, G, C, tile, taps), given their shape, and as the matrix; the same memory."""
        axes, inverse, rows = arrangement(self.spec.window.rank, self.taps_first)
        laid = tuple(shape[axis] for axis in axes)
        memory = self.buffer[: math.prod(laid)].reshape(laid)
        matrix = memory.reshape(*laid[:2], math.prod(laid[2 : 2 + rows]), -1)
        return memory.transpose(inverse), matrix.swapaxes(2, 3) if self.taps_first else matrix

    def gather(self, x: Array, window: Window) -> Array:
        """Copy the windows of `x` (N, G, C, spatial); 1x1 windows that BLAS can read where they are stay there."""
        if window.taps == 1 and not window.padded:
            steps: Tile = tuple(slice(None, None, step) for step in window.stride)
            area = flat_view(x[..., *steps], 3)
            if area is not None:
                return area
        seen = windows(x, window)
        cells, matrix = self.shaped(seen.shape)
        np.copyto(cells, seen)
        return matrix


def multiply(left: Array, right: Array, target: Array) -> None:
    """Write the product (N, G, rows, P) to a target (N, G, rows, tile), directly where BLAS can."""
    area = flat_view(target, 3)
    if area is not None:
        np.matmul(left, right, out=area)
        return
    images, groups, rows, *tile = target.shape
    cells = math.prod(tile)
    # In the target's order, for BLAS rounds otherwise in the other, and where it can write depends on the batch.
    if channels_innermost(target[:, 0]):
        product = np.empty((images, groups, cells, rows), left.dtype).swapaxes(2, 3)
    else:
        product = np.empty((images, groups, rows, cells), left.dtype)
    target[...] = np.matmul(left, right, out=product).reshape(target.shape)


def flat(block: Array) -> Array:
    """A block (N, G, O, tile) as matrices (N, G, O, P), copied only where no view exists or BLAS cannot read it."""
    matrices = flat_view(block, 3)
    if matrices is not None:
        return matrices
    # A copy keeps the order, as above.
    if channels_innermost(block[:, 0]):
        cells_first = np.ascontiguousarray(np.moveaxis(block, 2, -1))
        return cells_first.reshape(*block.shape[:2], -1, block.shape[2]).swapaxes(2, 3)
    return np.ascontiguousarray(block.reshape(*block.shape[:3], -1))


def gather(spec: ConvSpec, x: Array, w: Array, b: Array | None, out: Array, limit: int) -> None:
    """Multiply the weights (G, O, C, taps) by the columns of each block."""
    outs_step, block = plan(spec, limit)
    taps_first = channels_innermost(x)
    columns = Columns(spec, block, taps_first)
    x, out = grouped(x, spec.groups), grouped(out, spec.groups)
    for groups in slices(spec.groups, block.groups):
        for outs in slices(spec.group_out, outs_step):
            weights = weight_matrix(w[groups, outs], taps_first)
            for images, part in block.images_and_parts(spec.batch):
                target = out[images, groups, outs, *part.tile]
                multiply(weights, columns.gather(x[images, groups, :, *part.cells], part.window), target)
                if b is not None:
                    target += b.reshape(spec.groups, spec.group_out, *[1] * spec.window.rank)[groups, outs]
            del weights  # before the next are copied


def scatter(spec: ConvSpec, dy: Array, w: Array, b: Array | None, out: Array, limit: int) -> None:
    """Multiply the transposed weights (G, O, C, taps) by dy, and add each block's columns up where they came from."""
    outs_step, block = plan(spec, limit)
    # Cells are added in runs of the innermost axis; of a few channels, the run along the row is longer.
    taps_first = channels_innermost(out) and spec.group_in >= FEW
    columns = Columns(spec, block, taps_first)
    dy, dx = grouped(dy, spec.groups), grouped(out, spec.groups)
    dx[...] = 0 if b is None else b.reshape(spec.groups, spec.group_in, *[1] * spec.window.rank)
    for groups in slices(spec.groups, block.groups):
        for outs in slices(spec.group_out, outs_step):
            weights = weight_matrix(w[groups, outs], taps_first).swapaxes(1, 2)
            for images, part in block.images_and_parts(spec.batch):
                given = dy[images, groups, outs, *part.tile]
                target = dx[images, groups, :, *part.cells]
                cells, matrix = columns.shaped((*target.shape[:3], *given.shape[3:], *spec.window.kernel_size))
                np.matmul(weights, flat(given), out=matrix)
                scatter_windows(cells, part.window, target)
            del weights  # before the next are copied


def conv(spec: ConvSpec, x: Array, w: Array, b: Array | None, *, out: Array, resources: Resources) -> None:
    """Gather the input's columns, or scatter the output's."""
    if forward_scatters(spec):
        scatter(transposed(spec), x, turned(by_group(spec, w)), b, out, resources.max_workspace)
    else:
        gather(spec, x, by_group(spec, w), b, out, resources.max_workspace)


def conv_input_grad(spec: ConvSpec, dy: Array, w: Array, *, out: Array, resources: Resources) -> None:
    """Scatter the input's columns, or gather the output gradient's."""
    if input_grad_gathers(spec):
        gather(transposed(spec), dy, turned(by_group(spec, w)), None, out, resources.max_workspace)
    else:
        scatter(spec, dy, by_group(spec, w), None, out, resources.max_workspace)


def conv_weight_grad(spec: ConvSpec, x: Array, dy: Array, *, out: Array, resources: Resources) -> None:
    """Multiply dy by the columns of each block, and sum over the blocks."""
    outs_step, block = plan(spec, resources.max_workspace, 2)
    taps_first = channels_innermost(x)
    columns = Columns(spec, block, taps_first)
    x, dy = grouped(x, spec.groups), grouped(dy, spec.groups)
    dw = by_group(spec, out)
    out[...] = 0
    for groups in slices(spec.groups, block.groups):
        for outs in slices(spec.group_out, outs_step):
            target = dw[groups, outs]
            target = np.moveaxis(target, 2, -1) if taps_first else target
            for images, part in block.images_and_parts(spec.batch):
                matrix = columns.gather(x[images, groups, :, *part.cells], part.window).swapaxes(2, 3)
                given = flat(dy[images, groups, outs, *part.tile])
                for image in range(len(given)):
                    target += np.matmul(given[image], matrix[image]).reshape(target.shape)
                del given  # before the next is copied
