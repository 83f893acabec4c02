"""Pooling by any reducer: over copied windows (`im2col`), or over views of them (`stride_tricks`).

The two differ in what happens at the border. Copied windows are padded with the reducer's `pad_value`. Views have
nothing to pad: the outputs are cut into pieces whose windows lose the same taps to the padding (one piece inside, one
for each way to hang over the border), and each piece is a pool without padding over the taps it has left. The gradient
always goes by pieces, for a padding cell that ties with the maximum, minus infinity, must not take the gradient.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from ..config import Resources
from ..layout import Array
from ..pool_spec import PoolSpec
from ..views import scatter_windows, windows
from ..window import Ints, Tile, Window
from .blocking import Block, choose, padded_cells

CLAIMS = frozenset({"exact_on_integers", "batch_invariant", "nan_strict", "bounded"})

TEMPORARIES = 8
"""Arrays of the outputs' size that a reducer may make, beside those of the windows' size that it says."""


def plan(spec: PoolSpec, limit: int, window_copies: int) -> Block:
    """The block sizes, with room for so many copies of the windows."""
    return _plan(spec.window, spec.batch, spec.channels, spec.compute_dtype.itemsize, limit, window_copies)


@lru_cache(maxsize=512)
def _plan(window: Window, batch: int, channels: int, itemsize: int, limit: int, window_copies: int) -> Block:
    def cost(tile: Ints) -> int:
        cells = (window_copies * window.taps + TEMPORARIES) * math.prod(tile) + padded_cells(window, tile)
        return cells * itemsize

    return choose(batch, channels, window, cost, limit)


def workspace(spec: PoolSpec, limit: int) -> int:
    """Scratch bytes of `pool_views`."""
    return plan(spec, limit, spec.reducer.copies[0]).bytes


def workspace_columns(spec: PoolSpec, limit: int) -> int:
    """Scratch bytes of `pool_columns`."""
    return plan(spec, limit, spec.reducer.copies[0] + 1).bytes


def workspace_grad(spec: PoolSpec, limit: int) -> int:
    """Scratch bytes of both gradients."""
    return plan(spec, limit, spec.reducer.copies[1] + 1).bytes


def pieces(spec: PoolSpec, block: Block) -> Iterator[tuple[slice, slice, Tile, Tile, Window]]:
    """Every block's pieces: images, channels, the outputs, the input they read, and the unpadded window of the two."""
    for images, channels, part in block.walk(spec.batch, spec.channels):
        for outputs, cells, inner in part.window.unpadded_pieces:
            yield images, channels, shifted(outputs, part.tile), shifted(cells, part.cells), inner


def shifted(slices: Tile, origin: Tile) -> Tile:
    """Slices within a tile, as slices of the whole."""
    return tuple(
        slice(start.start + part.start, start.start + part.stop) for part, start in zip(slices, origin, strict=True)
    )


def gathered(seen: Array, rank: int) -> Array:
    """Copy windows so that each tap's plane is contiguous; the window axes become one, the last."""
    taps_first = np.moveaxis(seen, range(-rank, 0), range(2, 2 + rank))
    columns = taps_first.reshape(*seen.shape[:2], -1, *seen.shape[2 : 2 + rank])
    return np.moveaxis(np.ascontiguousarray(columns), 2, -1)


def pool_views(spec: PoolSpec, x: Array, *, out: Array, resources: Resources) -> None:
    """Reduce views of the windows, piece by piece."""
    block = plan(spec, resources.max_workspace, spec.reducer.copies[0])
    axes = tuple(range(2 + spec.window.rank, 2 + 2 * spec.window.rank))
    for images, channels, outputs, cells, inner in pieces(spec, block):
        seen = windows(x[images, channels, *cells], inner)
        out[images, channels, *outputs] = spec.reducer.reduced(seen, axes, spec.count(outputs))


def pool_columns(spec: PoolSpec, x: Array, *, out: Array, resources: Resources) -> None:
    """Reduce padded copies of the windows."""
    pad_value = spec.reducer.pad_value(spec.compute_dtype) if spec.reducer.pad_value else 0
    block, rank = plan(spec, resources.max_workspace, spec.reducer.copies[0] + 1), spec.window.rank
    for images, channels, part in block.walk(spec.batch, spec.channels):
        # Without a name, copies are gone before the next are made.
        out[images, channels, *part.tile] = spec.reducer.reduced(
            gathered(windows(x[images, channels, *part.cells], part.window, pad_value), rank),
            (2 + rank,),
            spec.count(part.tile),
        )


def pool_views_grad(spec: PoolSpec, dy: Array, x: Array, y: Array, *, out: Array, resources: Resources) -> None:
    """Give each window's cells their share of dy, from views of the windows."""
    grad(spec, dy, x, y, out, resources, copy=False)


def pool_columns_grad(spec: PoolSpec, dy: Array, x: Array, y: Array, *, out: Array, resources: Resources) -> None:
    """Give each window's cells their share of dy, from copies of the windows."""
    grad(spec, dy, x, y, out, resources, copy=True)


def grad(spec: PoolSpec, dy: Array, x: Array, y: Array, dx: Array, resources: Resources, *, copy: bool) -> None:
    """Scatter the reducer's gradient of every piece."""
    rank = spec.window.rank
    block = plan(spec, resources.max_workspace, spec.reducer.copies[1] + 1)
    dx[...] = 0
    for images, channels, outputs, cells, inner in pieces(spec, block):
        seen = windows(x[images, channels, *cells], inner)
        shape, place = seen.shape, (images, channels, *outputs)
        seen = gathered(seen, rank) if copy else seen
        axes = tuple(range(2 + rank, seen.ndim))
        shares = spec.reducer.shares(dy[place], seen, y[place], axes, spec.count(outputs))
        scatter_windows(shares.reshape(shape), inner, dx[images, channels, *cells])
        del seen, shares  # before the next are made
