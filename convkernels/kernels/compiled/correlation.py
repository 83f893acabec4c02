"""Correlations as products of tiles on the data itself: each output is summed in registers and stored once.

With channels innermost, as in NHWC,

    a tile's rows      outputs next to each other along the last axis, ``step`` pixels of the source apart
    a tile's vectors   output channels
    its depth          input channels, together with the taps of the last axis where these lie next to each other
    its taps           the other ones, as offsets into the source

so the source is read where it lies. It is copied only where channels do not lie innermost or a window reaches
outside: once, with zeros around it, in blocks that stay in the cache, not once for each tap. 1x1 windows on rows of
pixels, as in NCHW, exchange the roles and copy nothing.

What depends on shapes and strides alone is a plan, which is remembered.
"""

from __future__ import annotations

import math
from functools import partial
from itertools import product
from typing import NamedTuple

import numpy as np

from ...layout import Array
from ...views import slices
from .axes import Amounts, Axes, correlation_amounts, direction, tap_offsets
from .blocks import correlate, pack, together
from .copies import turner
from .filters import PACK_SERIAL, Filters, Tiling, lying, packed, tiling, vectors_for
from .geometry import Product, cells_of, source, target
from .isa import Isa
from .operands import Memory, Problem
from .parallel import run
from .scratch import LINE, arena, rounded

FEW_CHANNELS = 32
"""Input channels below which it pays to go over the taps of a row together with them."""
FEW_OUTPUTS = 256
"""Outputs up to which copying weights into panels takes longer than it saves."""
CHUNK = 2**17
"""Bytes of a panel of weights that are worked on at a time, an eighth of a second-level cache."""


class Part(NamedTuple):
    """The correlation along some axes; its outputs start at an offset."""

    numbers: Array
    tile: Tiling
    a_offsets: Array
    b_offsets: Array
    pieces: Array
    offset: int


class Plan(NamedTuple):
    """Correlations by the same weights, as far as they are known without data."""

    parts: tuple[Part, ...]
    filters: Filters
    zeros: Array
    no_bias: int
    groups: int
    panels: int
    threads: int
    block: int
    results: int
    packing: Array


def plan(problem: Problem, every: tuple[Axes, ...], memory: Memory, limit: int, threads: int, isa: Isa) -> Plan:
    """Plan the correlations along some axes."""
    batch, groups, channels, columns, w_taps, size = problem
    taps = math.prod(w_taps)
    chosen = [correlation_amounts(axes, batch, groups, channels, columns, taps, size, limit, threads) for axes in every]
    threads = min(amounts.threads(threads, limit) for amounts in chosen)
    way = direction(every[0][2], w_taps[2]) if len(every) == 1 else 0
    merged = way != 0 and channels < FEW_CHANNELS and (not lies(every[0], problem, memory) or dense(problem, memory))
    outputs = batch * sum(math.prod(axis.outputs for axis in axes) for axes in every)
    vectors = vectors_for(max(axes[2].outputs for axes in every), columns, size, isa)
    tiles = [tiling(axes[2].outputs, columns, vectors, size, isa) for axes in every]
    filters = filters_of(problem, memory, tiles[0], outputs, way if merged else 0)
    parts = []
    block = results = 0
    for axes, amounts, tile in zip(every, chosen, tiles, strict=True):
        parts.append(part(problem, axes, memory, filters, amounts, tile, isa, merged=merged))
        if not lies(axes, problem, memory):
            cells = cells_of(tuple(axis.block for axis in axes), amounts)
            block = max(block, rounded(amounts.images * math.prod(cells) * channels * size))
        if not stored(problem, memory):
            counts = (amounts.images, *amounts.rows, axes[2].outputs)
            results = max(results, math.prod(counts) * columns * size)
    zeros = np.zeros(groups * columns, np.dtype(f"f{size}"))
    packing = together(turner(size, isa), filters.inner, filters.last)
    return Plan(
        tuple(parts), filters, zeros, zeros.ctypes.data, groups, tiles[0].panels, threads, block, results, packing
    )


def lies(axes: Axes, problem: Problem, memory: Memory) -> bool:
    """Whether the source is read where it lies, or not at all."""
    innermost = memory.x.channel == problem.size or problem.channels == 1
    return (innermost and all(axis.inside for axis in axes)) or not all(axis.taps for axis in axes)


def stored(problem: Problem, memory: Memory) -> bool:
    """Whether tiles write the outputs where they belong."""
    return memory.y.channel == problem.size or problem.columns == 1


def dense(problem: Problem, memory: Memory) -> bool:
    """Whether pixels follow each other without a gap."""
    return memory.x.w == problem.channels * problem.size


def filters_of(problem: Problem, memory: Memory, tile: Tiling, outputs: int, merged: int) -> Filters:
    """Where to read the weights; `merged` is the direction in which taps of the last axis continue channels, or 0."""
    w, channels, size = memory.w, problem.channels, problem.size
    straight = not merged or (merged == 1 and w[4] == channels * w[1])
    if w[0] == size and straight and outputs <= FEW_OUTPUTS:
        return lying(w, memory.w_group, tile, size)
    sizes = (problem.columns, channels, *problem.taps)
    start = (problem.taps[2] - 1) * w[4] if merged < 0 else 0
    # As w has them: taps within channels, or the other way round.
    order = (1, 2, 3, 4) if not merged and abs(w[1]) > abs(w[4]) else (2, 3, 4, 1)
    strides = (*w[:4], -w[4] if merged < 0 else w[4])
    return packed(strides, memory.w_group, start, sizes, problem.groups, tile, size, order)


def part(
    problem: Problem,
    axes: Axes,
    memory: Memory,
    filters: Filters,
    amounts: Amounts,
    tile: Tiling,
    isa: Isa,
    *,
    merged: bool,
) -> Part:
    """Put the numbers of one correlation together."""
    batch, groups, channels, columns, _, size = problem
    read = source(axes, amounts, memory.x, channels, size, lies=lies(axes, problem, memory), inner=True)
    written = target(axes, amounts, memory.y, tile, columns, size, stored=stored(problem, memory))
    outer = 2 if merged else 3
    blocks = axes if read.lies else tuple(axis.block for axis in axes)
    a_offsets = tap_offsets(blocks[:outer], (read.read_d, read.read_h, read.read_w))
    b_offsets = filters.offsets(axes[:outer])
    depth = channels * (len(axes[2].taps) if merged else 1)
    chunks = max(1, round(len(a_offsets) * depth * tile.width * size / CHUNK))
    sums = Product(
        *(len(a_offsets), depth, -(-depth // chunks), filters.group, filters.panel, filters.depth, columns * size),
        *(tile.tallest, LINE // max(1, len(a_offsets)) if read.lies else 0),
    )
    rows = (slices(axis.outputs, count) for axis, count in zip(axes, amounts.rows, strict=False))
    pieces = [
        (group, *(number for place in places for number in (place.start, place.stop - place.start)))
        for group, *places in product(range(groups), slices(batch, amounts.images), *rows)
    ]
    offset = sum(axis.first * stride for axis, stride in zip(axes, memory.y[3:], strict=True))
    numbers = together(read, written, sums, turner(size, isa))
    return Part(numbers, tile, a_offsets, b_offsets, np.array(pieces, np.int64).reshape(-1, 7), offset)


def execute(what: Plan, x: int, w: int, bias: Array | None, out: int) -> None:
    """Run planned correlations on arrays at these addresses."""
    filters = what.filters
    given = None if bias is None else np.ascontiguousarray(bias)
    biases = what.no_bias if given is None else given.ctypes.data
    with arena:
        if filters.bytes:
            target = arena.reserve(filters.bytes)
            copy = partial(copied, what, w + filters.start, target)
            run(copy, what.groups * what.panels, what.threads if filters.bytes > PACK_SERIAL else 1)
            w = target
        for each in what.parts:
            run(partial(computed, what, each, x, w, biases, out + each.offset), len(each.pieces), what.threads)


def copied(what: Plan, w: int, target: int, begin: int, end: int) -> None:
    """Copy some of the panels of weights."""
    filters = what.filters
    strides = (filters.group, filters.panel, filters.from_group, filters.from_panel)
    pack(what.packing, what.panels, begin, end, *strides, target, w)


def computed(what: Plan, each: Part, x: int, w: int, biases: int, out: int, begin: int, end: int) -> None:
    """Compute some of the pieces."""
    tile = each.tile
    with arena:
        block = arena.reserve(what.block + what.results)
        correlate(
            *(each.numbers, tile.codes, tile.starts, each.a_offsets, each.b_offsets, each.pieces, begin, end),
            *(x, w, biases, out, block, block + what.block),
        )
