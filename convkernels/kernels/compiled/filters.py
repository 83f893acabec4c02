"""Weights as tiles read them: rows of as many output channels as a tile has, where they lie or copied into panels."""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np

from ...layout import Array
from .axes import Axes, Axis, contiguous
from .copies import copy
from .isa import Isa
from .nest import split
from .scratch import arena
from .tile import Shape, address

FEW_CHANNELS = 16
"""Input channels below which it pays to go over the taps of a row together with them."""


class Tiling(NamedTuple):
    """The tiles of a matrix of outputs: its columns in panels, its rows in tiles of nearly the same height."""

    width: int
    panels: int
    last: int
    starts: Array
    codes: Array


@lru_cache(maxsize=512)
def tiling(rows: int, columns: int, itemsize: int, isa: Isa) -> Tiling:
    """Cut a matrix of outputs into tiles."""
    lanes = isa.lanes(itemsize)
    whole = -(-columns // lanes)
    vectors = whole if whole in (1, 3) else 2
    width = vectors * lanes
    panels = -(-columns // width)
    starts, heights = split(rows, isa.rows(vectors))
    codes = [address(Shape(height, vectors, itemsize), isa) for height in heights]
    return Tiling(width, panels, columns - (panels - 1) * width, starts, np.array(codes, np.int64))


def picked(axis: Axis) -> slice:
    """The taps of an axis in w, in the order of their offsets; they are evenly spaced."""
    places = [tap for tap, _ in axis.taps]
    if not places:
        return slice(0, 0)
    step = places[1] - places[0] if len(places) > 1 else 1
    end = places[-1] + (1 if step > 0 else -1)
    return slice(places[0], None if end < 0 else end, step)


def packed(w: Array, axes: Axes, tile: Tiling) -> Array:
    """Weights (O, I, taps) as panels of output channels: (panel, taps of each axis, I, channel of the panel)."""
    chosen = w[:, :, *map(picked, axes)].transpose(2, 3, 4, 1, 0)
    panels = arena.empty((tile.panels, *chosen.shape[:-1], tile.width), w.dtype)
    panels[-1, ..., tile.last :] = 0
    for panel in range(tile.panels):
        part = chosen[..., panel * tile.width : (panel + 1) * tile.width]
        for plane, values in zip(panels[panel, ..., : part.shape[-1]], part, strict=True):
            copy(plane, values)
    return panels


class Filter(NamedTuple):
    """Where a correlation reads weights: an address, strides between panels and steps of the depth, and the taps'."""

    address: int
    panel: int
    depth: int
    offsets: Array
    owner: Array


def lying_filter(w: Array, axes: Axes, tile: Tiling, *, merged: bool) -> Filter | None:
    """The weights where they lie, if output channels lie next to each other and the depth has one stride."""
    chosen = w[:, :, *map(picked, axes)]
    size, channels = w.itemsize, w.shape[1]
    if chosen.strides[0] != size or (
        merged and chosen.shape[4] > 1 and chosen.strides[4] != channels * chosen.strides[1]
    ):
        return None
    shape, steps = (chosen.shape[2:4], chosen.strides[2:4]) if merged else (chosen.shape[2:], chosen.strides[2:])
    places = [[n * step for n in range(count)] for count, step in zip(shape, steps, strict=True)]
    offsets = np.array([sum(each) for each in product(*places)], np.int64)
    return Filter(chosen.ctypes.data, tile.width * size, chosen.strides[1], offsets, chosen)


def turned_filter(w: Array, axes: Axes, tile: Tiling) -> Filter | None:
    """Weights (O, I, taps), contiguous in that order, as panels (I, taps, channel of the panel): a matrix turned."""
    size, taps, channels = w.itemsize, math.prod(w.shape[2:]), w.shape[1]
    every = all(
        [tap for tap, _ in axis.taps] == list(range(count)) for axis, count in zip(axes, w.shape[2:], strict=True)
    )
    if not every or w.strides[1:] != contiguous(w.shape[1:], size) or channels < FEW_CHANNELS:
        return None
    panels = arena.empty((tile.panels, channels * taps, tile.width), w.dtype)
    panels[-1, :, tile.last :] = 0
    flat = w.reshape(len(w), channels * taps)
    for panel in range(tile.panels):
        part = flat[panel * tile.width : (panel + 1) * tile.width].T
        copy(panels[panel, :, : part.shape[1]][np.newaxis, np.newaxis], part[np.newaxis, np.newaxis])
    row = tile.width * size
    return Filter(panels.ctypes.data, panels.strides[0], taps * row, np.arange(taps, dtype=np.int64) * row, panels)


def panel_filter(w: Array, axes: Axes, tile: Tiling, depth: int) -> Filter:
    """The weights copied into panels."""
    panels = packed(w, axes, tile)
    row = tile.width * w.itemsize
    taps = panels[0].size // (depth * tile.width) if depth else 0
    return Filter(panels.ctypes.data, panels.strides[0], row, np.arange(taps, dtype=np.int64) * depth * row, panels)
