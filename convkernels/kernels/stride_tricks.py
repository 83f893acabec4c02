"""Convolution tap by tap through a strided view of the windows; no columns are ever made.

For each tap t, the cells it reads make a strided view of the input, x_t (N, C, out), and

    y    +=  w_t @ x_t          (O, C) by (C, out), summed over the taps
    dx_t +=  w_t.T @ dy         dx_t is the same view of dx
    dw_t  =  dy @ x_t.T         summed over images and rows

What it costs: one small product for each tap and each row of the picture instead of one large one, and a pass over the
output for each tap. What it saves: the k-fold copy of the input, which `numpy.tensordot` on a window view makes in
secret. Where a group has one input channel there is nothing to sum within a tap, and a product is a multiplication.

Along a row the cells lie `stride` apart. In channels-first memory with a stride above 1 BLAS cannot read that, and the
one plane at hand is copied.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from ..config import Resources
from ..layout import Array
from ..spec import ConvSpec
from ..views import grouped, readable, windows
from ..window import Ints, Tap
from .blocking import Block, choose, padded_cells

CLAIMS = frozenset({"exact_on_integers", "nan_strict", "bounded"})
"""Not "batch_invariant": where channels lie before the batch, whether BLAS can read a plane depends on the batch."""


@lru_cache(maxsize=512)
def plan(spec: ConvSpec, limit: int) -> Block:
    """The block sizes: a tap's weights, its plane and its product, or the products of dw for each row."""

    def cost(tile: Ints) -> int:
        area, rows = math.prod(tile), math.prod(tile[:-1])
        product_cells = max(spec.group_out * area, spec.group_in * area, spec.group_out * spec.group_in * rows)
        planes = (spec.group_in + spec.group_out) * area + spec.group_in * padded_cells(spec.window, tile)
        return (product_cells + planes) * spec.compute_dtype.itemsize

    weights = spec.group_out * spec.group_in * spec.compute_dtype.itemsize
    return choose(spec.batch, spec.groups, spec.window, cost, limit, weights)


def workspace(spec: ConvSpec, limit: int) -> int:
    """Scratch bytes: one tap's products, and copies of what of that tap BLAS cannot read where it lies."""
    return plan(spec, limit).bytes


def rows(block: Array) -> Array:
    """A block (N, G, C, tile) as the matrices of its rows: (N, G, leading tile axes, row, C)."""
    return np.moveaxis(block, 2, -1)


def tap_weights(spec: ConvSpec, w: Array, groups: slice, tap: Tap) -> Array:
    """One tap's weights as (G, 1, O, C), with an axis of one for each leading tile axis."""
    chosen = w.reshape(spec.groups, spec.group_out, *w.shape[1:])[groups, slice(None), slice(None), *tap]
    return readable(chosen).reshape(len(chosen), *[1] * (spec.window.rank - 1), *chosen.shape[1:])


def add_product(left: Array, right: Array, target: Array) -> None:
    """Add the matrices' product to a target; it is made in memory of the target's order first."""
    if left.shape[-1] == 1:
        target += left * right
    else:
        target += np.matmul(readable(left), right, out=np.empty_like(target))


def conv(spec: ConvSpec, x: Array, w: Array, b: Array | None, *, out: Array, resources: Resources) -> None:
    """Sum the taps' products into the output."""
    x, out = grouped(x, spec.groups), grouped(out, spec.groups)
    if b is None:
        out[...] = 0
    else:
        out[...] = b.reshape(spec.groups, spec.group_out, *[1] * spec.window.rank)
    for images, groups, part in plan(spec, resources.max_workspace).walk(spec.batch, spec.groups):
        seen = windows(x[images, groups, :, *part.cells], part.window)
        target = rows(out[images, groups, :, *part.tile])
        for tap in spec.window.kernel_positions():
            weights, plane = tap_weights(spec, w, groups, tap).swapaxes(-1, -2), rows(seen[..., *tap])
            add_product(plane, weights, target)
        del seen, plane  # before the next cells are padded


def conv_input_grad(spec: ConvSpec, dy: Array, w: Array, *, out: Array, resources: Resources) -> None:
    """Add each tap's product to the cells that the tap reads."""
    dy, dx = grouped(dy, spec.groups), grouped(out, spec.groups)
    out[...] = 0
    for images, groups, part in plan(spec, resources.max_workspace).walk(spec.batch, spec.groups):
        block, target = dy[images, groups, :, *part.tile], dx[images, groups, :, *part.cells]
        for tap in spec.window.kernel_positions():
            slices = part.window.tap_slices(tap)
            if slices:
                outputs, inputs = slices
                weights, plane = tap_weights(spec, w, groups, tap), rows(block[..., *outputs])
                add_product(plane, weights, rows(target[..., *inputs]))


def conv_weight_grad(spec: ConvSpec, x: Array, dy: Array, *, out: Array, resources: Resources) -> None:
    """Multiply, row by row, dy by the cells that each tap reads."""
    x, dy = grouped(x, spec.groups), grouped(dy, spec.groups)
    dw = out.reshape(spec.groups, spec.group_out, *out.shape[1:])
    out[...] = 0
    summed = (0, *range(2, 1 + spec.window.rank))
    for images, groups, part in plan(spec, resources.max_workspace).walk(spec.batch, spec.groups):
        seen = windows(x[images, groups, :, *part.cells], part.window)
        block = readable(rows(dy[images, groups, :, *part.tile])).swapaxes(-1, -2)
        for tap in spec.window.kernel_positions():
            dw[groups, :, :, *tap] += np.matmul(block, readable(rows(seen[..., *tap]))).sum(summed)
        del block, seen  # before the next are copied and padded
