"""Covering the outputs of a channel with stencils, each with the cells that exist where it lies."""

from __future__ import annotations

import operator
from itertools import product
from typing import NamedTuple

import numpy as np

from ...layout import Array
from ...views import slices
from ...window import Ints
from .isa import Isa
from .reach import Reach, cut
from .stencil import Place, Read, Shape, address


class Form(NamedTuple):
    """What stencils have in common: whether lanes are channels, how many, bytes of an element, whether w is summed."""

    across: bool
    lanes: int
    size: int
    weights: bool


class Lying(NamedTuple):
    """An array's strides in bytes; that of its channels, and how many of them belong to one channel."""

    image: int
    channel: int
    d: int
    h: int
    w: int
    several: int


class Cover(NamedTuple):
    """Stencils, and where in their list each row of tiles begins.

    A stencil is its code, offsets into x and y, the base row of cells, the tiles below each other, and from each to the
    next the rows of cells and the offsets.
    """

    jobs: Array
    starts: Ints
    # The cells and outputs from a tile to the next along a row.
    ahead: tuple[int, int]


def lanes_for(outputs: int, size: int, isa: Isa) -> int:
    """The lanes of a vector along a row: as many as there are, or no more than hold it."""
    lanes = isa.lanes(size)
    while lanes > 2 and lanes // 2 >= outputs:
        lanes //= 2
    return lanes


def room(h: Reach, w: Reach, form: Form, isa: Isa) -> tuple[int, int, int]:
    """The most rows of a stencil, outputs of a row, and rows of taps.

    The best of some that were measured on shapes of MobileNet, EfficientNet and ConvNeXt: about half of the registers
    hold outputs, the others cells and weights. Of taps as many are summed as fit, whose rows are shared out evenly.
    """
    taps_h, taps_w, free = len(h.offsets), len(w.offsets), isa.registers // 2 - 2
    if form.weights:
        most = isa.registers - (11 if form.across else 4)
        groups = -(-taps_h // max(1, most // taps_w))
        if form.across:
            return 2, 14, -(-taps_h // groups)
        # Wide strips are streams of memory; with many taps their cells would not stay in registers.
        vectors = min(4, -(-w.outputs // form.lanes)) if 2 * taps_h * taps_w <= most else 1
        return min(14, 28 // vectors), vectors * form.lanes, -(-taps_h // groups)
    if form.across:
        return 2, free // 2, taps_h
    each = form.lanes * w.spread
    vectors = min(4, -(-w.outputs // each), max(1, free // w.spread))
    return max(1, free // (vectors * w.spread)), vectors * each, taps_h


def places(reach: Reach, start: int, count: int, form: Form) -> tuple[Place, ...]:
    """The accumulators of so many outputs of a row."""
    base = reach.base(start)
    if form.across:
        taken = (
            tuple(Read(tap, cell - base, 0, form.lanes) for tap, cell in reach.existing(start + output))
            for output in range(count)
        )
        return tuple(Place(output, form.lanes, reads) for output, reads in enumerate(taken))
    found = []
    for first in range(0, count, form.lanes * reach.spread):
        for output in range(first, first + reach.spread):
            kept = max(0, min(form.lanes, -(-(count - output) // reach.spread)))
            reads = []
            for tap, cell in reach.pairs(start + output):
                # The lanes whose cells exist; lane l takes the one at cell + l * step.
                begin, end = max(0, -(cell // reach.step)), min(kept, (reach.cells - 1 - cell) // reach.step + 1)
                if begin < end:
                    reads.append(Read(tap, cell - base, begin, end))
            found.append(Place(output, kept, tuple(reads)))
    return tuple(found)


def cover(h: Reach, w: Reach, form: Form, x: Lying, y: Lying, isa: Isa, *, apart: bool) -> Cover:
    """Cover the outputs of a channel; each row of tiles is by itself, if `apart`."""
    most_rows, most_wide, tap_rows = room(h, w, form, isa)
    rows, down = cut(h.outputs, most_rows, h.spread)
    wide, along = cut(w.outputs, most_wide, w.spread)
    whole = h.outputs // rows
    spans = [(n * rows, rows, 1) for n in range(whole)] if apart else [(0, rows, whole)] if whole else []
    if whole < down:
        spans.append((whole * rows, h.outputs - whole * rows, 1))
    step, spread = (0, 0) if form.across else (w.step, w.spread)
    jobs, starts = [], [0]
    for start, height, tiles in spans:
        pairs = [tuple((tap, cell - h.base(0)) for tap, cell in h.pairs(row)) for row in range(height)]
        base, down_by = h.base(start), h.base(rows)
        for first in range(0, along * wide, wide):
            outputs = min(wide, w.outputs - first)
            found = places(w, first, outputs, form)
            for group in slices(len(h.offsets), tap_rows):
                used = tuple(tuple(pair for pair in row if group.start <= pair[0] < group.stop) for row in pairs)
                shape = Shape(used, found, outputs, step, spread, form.lanes, form.size, form.weights)
                offsets = (base * x.h + w.base(first) * x.w, start * y.h + first * y.w)
                jobs.append((address(shape, isa), *offsets, base, tiles, down_by, down_by * x.h, rows * y.h))
        starts.append(len(jobs))
    return Cover(np.array(jobs, np.int64).reshape(-1, 8), tuple(starts), (w.base(wide), wide))


def outer(
    reaches: tuple[Reach, ...], x: Ints, w: Ints, y: Ints, read: Lying, w_channel: int, weights: bool
) -> tuple[list[Ints], list[Ints]]:
    """What stencils are called for, and what each then sums over by itself.

    Parameters
    ----------
    reaches : tuple of Reach
        The axes outside of stencils.
    x, w, y : tuple of int
        The strides along these.
    read : Lying
        The source, of which several channels may be summed.
    w_channel : int
        The stride between these in w.
    weights : bool
        Whether taps are summed, each by itself.

    Returns
    -------
    visits : list of tuple
        The offset into y, and which of the `planes`, from where and how many.
    planes : list of tuple
        Offsets into x and w.
    """
    visits: list[Ints] = []
    planes: list[Ints] = []
    for outputs in product(*(range(each.outputs) for each in reaches)):
        offset = sum(map(operator.mul, outputs, y))
        found = [
            (
                sum(cell * step for (_, cell), step in zip(pairs, x, strict=False)) + j * read.channel,
                sum(tap * step for (tap, _), step in zip(pairs, w, strict=False)) + j * w_channel,
            )
            for pairs in product(*(each.existing(output) for each, output in zip(reaches, outputs, strict=True)))
            for j in range(read.several)
        ]
        ranges = [(len(planes) + n, 1) for n in range(len(found))] if weights else [(len(planes), len(found))]
        visits += [(offset, *each) for each in ranges]
        planes += found
    return visits, planes
