"""The steps of tiles: what their depth goes over, and the taps beside it, of which some rows of outputs reach a few."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np

from ...layout import Array
from .axes import Axes, Axis, tap_offsets
from .filters import Filters, Tiling
from .geometry import Source
from .ways import Walk, Way, stretches_of


def starts_of(axis: Axis, tile: Tiling) -> Array:
    """The output that each tile begins to read for, then for each the place that it begins to write."""
    if not axis.rests:
        return np.concatenate([tile.starts, tile.starts])
    before = np.cumsum([0, *(rest.outputs for rest in axis.rests[:-1])])
    reads = tile.starts - before[tile.stretches]
    firsts = np.array([rest.first for rest in axis.rests])
    return np.concatenate([reads, firsts[tile.stretches] + reads * axis.turns])


class Steps(NamedTuple):
    """The steps of a tile: its depth, how far apart these are in what is read, and its taps.

    Of taps there are at most so many in `each` stretch. Rows of outputs that the same ones reach share a list of their
    offsets, in what is read and in w; for each row and stretch there are its first and its length.
    """

    depth: int
    step: int
    each: list[int]
    read_offsets: Array
    w_offsets: Array
    spans: Array


def steps_of(axes: Axes, channels: int, size: int, read: Source, filters: Filters, way: Way) -> Steps:
    """The steps of a tile that goes along channels, pixels or taps."""
    *outer, w = axes
    stretches = stretches_of(w, way)
    if way.along is Walk.CHANNELS:
        every, last = [(*outer, w._replace(taps=stretch.taps)) for stretch in stretches], read.read_w
        depth, step = channels, read.read_channel
    elif way.along is Walk.WINDOWS:
        every, last = [axes], 0
        depth, step = channels * read.read_channel // read.read_w, read.read_w
    elif way.along is Walk.PIXELS:
        every, last = [tuple(outer)], 0
        depth, step = channels * len(w.taps), size
    else:
        channel = Axis(1, 1, tuple((place, place) for place in range(channels)), channels)
        every, last = [(*outer, channel)], read.read_channel
        depth, step = len(w.taps), read.read_w
    # Offsets count from the first cell of all stretches.
    begins = [(some[2].lowest - w.lowest) * last if way.along is Walk.CHANNELS else 0 for some in every]
    strides = (read.read_d, read.read_h, last)
    read_offsets = [begin + tap_offsets(some, strides) for begin, some in zip(begins, every, strict=True)]
    w_offsets = [filters.offsets(some) for some in every]
    return Steps(depth, step, [len(some) for some in read_offsets], *existing(axes, read_offsets, w_offsets))


def existing(axes: Axes, read_offsets: list[Array], w_offsets: list[Array]) -> tuple[Array, Array, Array]:
    """Lists of the taps whose cells exist, as others would only add zeros, and which of them is whose."""
    d, h, _ = axes
    (some_d, of_d), (some_h, of_h) = (np.unique(reaching(axis), axis=0, return_inverse=True) for axis in (d, h))
    read, w, spans, begin = [], [], [], 0
    for (first_d, end_d), (first_h, end_h) in product(some_d, some_h):
        for offsets in zip(read_offsets, w_offsets, strict=True):
            shape = (len(d.taps), len(h.taps), len(offsets[0]) // max(1, len(d.taps) * len(h.taps)))
            reached = [each.reshape(shape)[first_d:end_d, first_h:end_h].ravel() for each in offsets]
            read.append(reached[0])
            w.append(reached[1])
            spans.append((begin, len(reached[0])))
            begin += len(reached[0])
    table = np.array(spans, np.int64).reshape(len(some_d), len(some_h), -1)
    every = table[of_d.reshape(-1, 1), of_h.reshape(-1)]
    return np.concatenate(read), np.concatenate(w), every.reshape(-1)


def reaching(axis: Axis) -> Array:
    """For each output along an axis the first tap whose cell exists, and the one behind the last."""
    offsets, starts = np.array([offset for _, offset in axis.taps]), axis.step * np.arange(axis.outputs)
    return np.stack([np.searchsorted(offsets, edge - starts) for edge in (0, axis.size)], -1)
