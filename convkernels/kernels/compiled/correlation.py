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
from itertools import product
from typing import NamedTuple

import numpy as np

from ...layout import Array
from ...views import slices
from .axes import Amounts, Axes, Axis, Stretch, correlation_amounts, direction, tap_offsets
from .blocks import correlate, pack, together
from .copies import turner
from .filters import PACK_SERIAL, Filters, Tiling, lying, packed, tiling, vectors_for
from .geometry import Product, cells_of, source, target
from .isa import Isa
from .machine import address, tables
from .operands import Memory, Problem
from .parallel import SHARES, run
from .scratch import LINE, arena, rounded

FEW_CHANNELS = 32
"""Input channels below which it pays to go over the taps of a row together with them."""
FEW_OUTPUTS = 256
"""Outputs up to which copying weights into panels takes longer than it saves."""
APART = 64
"""Output channels up to which copying what they read takes more than a tenth of the time."""
EVEN = 1.1
"""How much longer the busiest thread may work than the mean of all."""
CHUNK = 2**17
"""Bytes of a panel of weights that are worked on at a time, an eighth of a second-level cache."""


class Part(NamedTuple):
    """The correlation along some axes: its arguments but for four addresses, their tables, and where outputs start."""

    words: Array
    tables: tuple[Array, ...]
    pieces: int
    room: int
    offset: int


class Plan(NamedTuple):
    """Correlations by the same weights, as far as they are known without data."""

    parts: tuple[Part, ...]
    zeros: Array
    threads: int
    # Copying the weights: the bytes and the panels of all groups, arguments but for two addresses, and their table.
    bytes: int
    panels: int
    packing: Array
    table: Array
    start: int


def plan(problem: Problem, every: tuple[Axes, ...], memory: Memory, limit: int, threads: int, isa: Isa) -> Plan:
    """Plan the correlations along some axes."""
    batch, groups, channels, columns, w_taps, size = problem
    taps = math.prod(w_taps)
    chosen = [correlation_amounts(axes, batch, groups, channels, columns, taps, size, limit, threads) for axes in every]
    threads = min(amounts.threads(threads, limit) for amounts in chosen)
    way = direction(every[0][2], w_taps[2]) if len(every) == 1 else 0
    merged = way != 0 and channels < FEW_CHANNELS and (not lies(every[0], problem, memory) or dense(problem, memory))
    outputs = batch * sum(math.prod(axis.outputs for axis in axes) for axes in every)
    stretches = [tuple(each.outputs for each in stretches_of(axes[2], merged=merged)) for axes in every]
    vectors = vectors_for(max(map(max, stretches)), columns, size, isa)
    tiles = [tiling(each, columns, vectors, size, isa) for each in stretches]
    filters = filters_of(problem, memory, tiles[0], outputs, way if merged else 0)
    parts = tuple(
        part(problem, axes, memory, filters, amounts, tile, isa, threads, merged=merged)
        for axes, amounts, tile in zip(every, chosen, tiles, strict=True)
    )
    zeros, copies = np.zeros(groups * columns, f"f{size}"), together(turner(size, isa), filters.inner, filters.last)
    strides = (filters.group, filters.panel, filters.from_group, filters.from_panel)
    panels = tiles[0].panels
    packing = np.array([*tables(copies), panels, *strides, 0, 0], np.int64)
    return Plan(parts, zeros, threads, filters.bytes, groups * panels, packing, copies, filters.start)


def lies(axes: Axes, problem: Problem, memory: Memory) -> bool:
    """Whether the source is read where it lies, or not at all."""
    innermost = memory.x.channel == problem.size or problem.channels == 1
    d, h, w = axes
    # What lies outside along h is left out by `spans`, and along w where there are stretches.
    inside = d.inside and (h.inside or len(d.taps) == 1) and (w.inside or len(w.stretches) > 1)
    return (innermost and inside) or not all(axis.taps for axis in axes)


def stretches_of(axis: Axis, *, merged: bool) -> tuple[Stretch, ...]:
    """The stretches of the last axis; it is whole where its taps continue the channels."""
    return (Stretch(axis.outputs, axis.taps),) if merged else axis.stretches


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
    threads: int,
    *,
    merged: bool,
) -> Part:
    """Put the numbers of one correlation together."""
    batch, groups, channels, columns, _, size = problem
    read = source(axes, amounts, memory.x, channels, size, lies=lies(axes, problem, memory), inner=True)
    written = target(axes, amounts, memory.y, tile, columns, size, stored=stored(problem, memory))
    stretches, outer = stretches_of(axes[2], merged=merged), 2 if merged else 3
    cut = [(*axes[:2], axes[2]._replace(taps=each.taps)) for each in stretches]
    begins = [(each[2].lowest - axes[2].lowest) * read.read_w for each in cut]
    steps = (read.read_d, read.read_h, read.read_w)
    a_offsets = np.concatenate([b + tap_offsets(each[:outer], steps) for b, each in zip(begins, cut, strict=True)])
    b_offsets = np.concatenate([filters.offsets(each[:outer]) for each in cut])
    depth = channels * (len(axes[2].taps) if merged else 1)
    taps = math.prod(len(axis.taps) for axis in axes[:outer])
    chunks = max(1, round(taps * depth * tile.width * size / CHUNK))
    sums = Product(
        *(depth, -(-depth // chunks), filters.group, filters.panel, filters.depth, columns * size),
        *(tile.tallest, LINE // max(1, taps) if read.lies else 0, len(stretches)),
    )
    rows = [slices(axis.outputs, count) for axis, count in zip(axes, amounts.rows, strict=False)]
    blocks_of: list[list[slice]] = [slices(batch, amounts.images), *rows]
    heights = [math.prod(place.stop - place.start for place in places) for places in product(*blocks_of)] * groups
    panels = slices(tile.panels, panels_at_a_time(tile, heights, threads, lies=read.lies))
    numbered = product(slices(groups, 1), *blocks_of, panels)
    pieces = [
        (group.start, *(number for place in places for number in (place.start, place.stop - place.start)))
        for group, *places in numbered
    ]
    counts, cells = (amounts.images, *amounts.rows, axes[2].outputs), cells_of(tuple(a.block for a in axes), amounts)
    block = 0 if read.lies else rounded(amounts.images * math.prod(cells) * channels * size)
    results = 0 if written.stored else rounded(math.prod(counts) * columns * size)
    numbers, listed = together(read, written, sums, turner(size, isa)), np.array(pieces, np.int64).reshape(-1)
    within = spans(axes, [1 if merged else len(each.taps) for each in stretches])
    every = (numbers, tile.codes, tile.starts, tile.stretches, a_offsets, b_offsets, listed, within)
    words = np.array([*tables(*every), block, 0, 0, 0, 0], np.int64)
    offset = sum(axis.first * stride for axis, stride in zip(axes, memory.y[3:], strict=True))
    return Part(words, every, len(pieces), block + results, offset)


def spans(axes: Axes, each: list[int]) -> Array:
    """For each row of outputs, in each stretch, the first of the taps whose cells exist, and how many do.

    Others would only add zeros. A stretch takes `each` of its taps from a row of w. In three dimensions, where those
    that exist do not follow each other, all are taken.
    """
    d, rows, _ = axes
    offsets, starts = np.array([offset for _, offset in rows.taps]), rows.step * np.arange(rows.outputs)
    if len(d.taps) == 1:
        first, last = (np.searchsorted(offsets, edge - starts) for edge in (0, rows.size))
    else:
        first, last = np.zeros_like(starts), np.full_like(starts, len(d.taps) * len(offsets))
    begins = len(d.taps) * len(offsets) * np.cumsum([0, *each[:-1]])
    found = np.stack([begins + np.outer(first, each), np.outer(last - first, each)], -1)
    return found.reshape(-1).astype(np.int64)


def panels_at_a_time(tile: Tiling, heights: list[int], threads: int, *, lies: int) -> int:
    """How many panels of a block go together: fewer where blocks of such heights leave threads without work.

    A block that is copied is copied for each.
    """
    longest = -(-len(heights) // threads) * max(heights, default=0)
    if threads == 1 or longest * threads <= EVEN * sum(heights):
        return tile.panels
    fewest = 1 if lies else -(-APART // tile.width)
    parts = min(-(-SHARES * threads // len(heights)), tile.panels // fewest)
    return -(-tile.panels // max(1, parts))


def execute(what: Plan, x: Array, w: Array, bias: Array | None, out: Array) -> None:
    """Run planned correlations."""
    given = what.zeros if bias is None else np.ascontiguousarray(bias)
    weights = address(w)
    with arena:
        if what.bytes:
            target = arena.reserve(what.bytes)
            words = what.packing.copy()
            words[-2], words[-1] = target, weights + what.start
            run(pack, words, what.panels, what.threads if what.bytes > PACK_SERIAL else 1)
            weights = target
        for each in what.parts:
            words = each.words.copy()
            words[-4], words[-3], words[-2], words[-1] = address(x), weights, address(given), address(out) + each.offset
            run(correlate, words, each.pieces, what.threads, each.room)
