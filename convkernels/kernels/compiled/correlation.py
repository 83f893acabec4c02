"""Correlations as products of tiles on the data itself: each output is summed in registers and stored once.

With channels innermost, as in NHWC,

    a tile's rows      outputs next to each other along the last axis, ``step`` pixels of the source apart
    a tile's vectors   output channels
    its depth          input channels, together with the taps of the last axis where these lie next to each other
    its taps           the other ones, as offsets into the source, without those that lie outside for all its rows

so the source is read where it lies. It is copied only where channels do not lie innermost or a window reaches
outside: once, with zeros around it, in blocks that stay in the cache, not once for each tap. In NCHW, where pixels lie
innermost, few channels become taps and taps the depth, and copies of rows are plain; 1x1 windows exchange the roles of
w and the planes and copy nothing.

What depends on shapes and strides alone is a plan, which is remembered.
"""

from __future__ import annotations

import math
from enum import Enum
from itertools import product
from typing import NamedTuple

import numpy as np

from ...layout import Array
from ...views import slices
from .axes import PAGE, Amounts, Axes, Axis, Stretch, correlation_amounts, direction, pixel_channels, tap_offsets
from .blocks import correlate, pack, together
from .copies import turner
from .filters import PACK_SERIAL, Filters, Tiling, lying, packed, tiling, vectors_for
from .geometry import Product, Source, block_bytes, source, target
from .isa import Isa
from .machine import address, tables
from .operands import Memory, Problem, exchanged
from .parallel import SHARES, run
from .scratch import LINE, arena, rounded

FEW_CHANNELS = 32
"""Input channels below which it pays to go over the taps of a row together with them."""
FEW_OUTPUTS = 256
"""Outputs up to which copying weights into panels takes longer than it saves."""
APART = 64
"""Output channels up to which copying what they read takes more than a tenth of the time."""
TURNING = 12
"""Multiply-adds that take as long as copying a number of the source or of the outputs, by half."""
PACKING = 16
"""The same for a number of the weights."""
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
    # Whether w is the source.
    exchanged: bool
    zeros: Array
    # How often each number of the bias is read, and its strides between groups, panels and rows of tiles.
    repeat: int
    bias: tuple[int, int, int]
    threads: int
    # Copying the weights: the bytes and the panels of all groups, arguments but for two addresses, and their table.
    bytes: int
    panels: int
    packing: Array
    table: Array
    start: int


class Walk(Enum):
    """What a tile's depth goes over; what is left of channels and taps are the tile's taps."""

    CHANNELS = "channels"
    # The taps of the last axis, one after the other with their channels: long sums where channels are few.
    PIXELS = "pixels"
    # The taps of the last axis in one channel, where pixels lie innermost and turning few channels costs too much.
    TAPS = "taps"


def plan(problem: Problem, every: tuple[Axes, ...], memory: Memory, limit: int, threads: int, isa: Isa) -> Plan:
    """Plan the correlations along some axes."""
    if len(every) == 1 and (other := exchanged(problem, every[0], memory)) and planes_pay(problem, other[0], isa):
        return planned(*other, Walk.CHANNELS, limit, threads, isa)
    return planned(problem, every, memory, walk(problem, every, memory), limit, threads, isa)


def planned(
    problem: Problem, every: tuple[Axes, ...], memory: Memory, along: Walk, limit: int, threads: int, isa: Isa
) -> Plan:
    """Plan correlations whose depth goes over that."""
    batch, groups, channels, columns, w_taps, size = problem
    taps = math.prod(w_taps)
    chosen = [correlation_amounts(axes, batch, groups, channels, columns, taps, size, limit, threads) for axes in every]
    if memory.exchanged:
        chosen = [Amounts(1, (1, 1), 0, LINE)]
    threads = min(amounts.threads(threads, limit) for amounts in chosen)
    outputs = batch * sum(math.prod(axis.places for axis in axes) for axes in every)
    stretches = [tuple(each.outputs for each in stretches_of(axes[2], along)) for axes in every]
    row = max(row_bytes(axes, problem, memory, along) for axes in every)
    vectors = vectors_for(max(map(max, stretches)), columns, size, isa, row)
    tiles = [tiling(each, columns, vectors, size, isa, row) for each in stretches]
    filters = filters_of(problem, every[0], memory, tiles[0], outputs, along)
    parts = tuple(
        part(problem, axes, memory, filters, amounts, tile, isa, threads, along)
        for axes, amounts, tile in zip(every, chosen, tiles, strict=True)
    )
    copies = together(turner(size, isa), filters.inner, filters.last)
    strides = (filters.group, filters.panel, filters.from_group, filters.from_panel)
    panels = tiles[0].panels
    packing = np.array([*tables(copies), panels, *strides, 0, 0], np.int64)
    width = tiles[0].width
    wide = width * size
    repeat, bias = (
        (width, (every[0][2].outputs * wide, 0, wide)) if memory.exchanged else (1, (columns * size, wide, 0))
    )
    copying = (filters.bytes, groups * panels, packing, copies, filters.start)
    return Plan(parts, memory.exchanged, np.zeros(width, f"f{size}"), repeat, bias, threads, *copying)


def planes_pay(problem: Problem, other: Problem, isa: Isa) -> bool:
    """Whether vectors of pixels cost less than copying the source and the outputs for vectors of channels.

    It may depend on the batch: either way sums are taken in the same order.
    """
    lanes = isa.lanes(problem.size)
    pixels = other.columns
    lost = -(-pixels // lanes) * lanes / pixels - 1
    return lost < TURNING * (1 / problem.channels + 1 / problem.columns) + PACKING / max(1, problem.batch * pixels)


def walk(problem: Problem, every: tuple[Axes, ...], memory: Memory) -> Walk:
    """What the depth had better go over."""
    axes = every[0]
    if len(every) > 1 or axes[2].rests or problem.channels >= FEW_CHANNELS or not direction(axes[2], problem.taps[2]):
        return Walk.CHANNELS
    if problem.channels > 1 and memory.x.w == problem.size and problem.taps[2] > 1 and len(axes[0].taps) == 1:
        return Walk.TAPS
    near = memory.x.w == problem.channels * problem.size
    return Walk.PIXELS if near or not lies(axes, problem, memory, Walk.CHANNELS) else Walk.CHANNELS


def lies(axes: Axes, problem: Problem, memory: Memory, along: Walk) -> bool:
    """Whether the source is read where it lies, or not at all."""
    d, h, w = axes
    innermost = memory.x.channel == problem.size or problem.channels == 1
    # Pixels in one set of the cache had better be copied if they are read more than once.
    innermost = innermost and (w.step * memory.x.w % PAGE > 0 or w.outputs == 1 or problem.columns < APART)
    innermost = innermost or along is Walk.TAPS or memory.exchanged
    # What lies outside along h is left out by `spans`, and along w where there are stretches.
    left_out = not w.rests and len(stretches_of(w, along)) > 1
    inside = d.inside and (h.inside or len(d.taps) == 1) and (w.inside or left_out)
    return (innermost and inside) or not all(axis.taps for axis in axes)


def row_bytes(axes: Axes, problem: Problem, memory: Memory, along: Walk) -> int:
    """How far apart what outputs next to each other read is."""
    if lies(axes, problem, memory, along):
        return axes[2].step * memory.x.w
    return (
        axes[2].block.step
        * problem.size
        * (1 if along is Walk.TAPS else pixel_channels(problem.channels, problem.size))
    )


def stretches_of(axis: Axis, along: Walk) -> tuple[Stretch, ...]:
    """The stretches of the last axis; it is whole where the depth goes over its taps."""
    return axis.stretches if along is Walk.CHANNELS else (Stretch(axis.outputs, axis.taps),)


def stored(problem: Problem, memory: Memory) -> bool:
    """Whether tiles write the outputs where they belong."""
    return memory.y.channel == problem.size or problem.columns == 1


def filters_of(problem: Problem, axes: Axes, memory: Memory, tile: Tiling, outputs: int, along: Walk) -> Filters:
    """Where to read the weights."""
    w, channels, size = memory.w, problem.channels, problem.size
    way = direction(axes[2], problem.taps[2])
    straight = along is Walk.CHANNELS or (along is Walk.PIXELS and way == 1 and w[4] == channels * w[1])
    if memory.exchanged or (w[0] == size and straight and outputs <= FEW_OUTPUTS):
        return lying(w, memory.w_group, tile, size)
    sizes = (problem.columns, channels, *problem.taps)
    start, strides = 0, w
    if along is not Walk.CHANNELS and way < 0:
        start, strides = (problem.taps[2] - 1) * w[4], (*w[:4], -w[4])
    if along is Walk.TAPS:
        sizes, strides = ((each[0], each[4], *each[2:4], each[1]) for each in (sizes, strides))
    # As w has them: taps within channels, or the other way round.
    order = (1, 2, 3, 4) if along is Walk.CHANNELS and abs(w[1]) > abs(w[4]) else (2, 3, 4, 1)
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
    along: Walk,
) -> Part:
    """Put the numbers of one correlation together."""
    batch, groups, channels, columns, _, size = problem
    inner = along is not Walk.TAPS
    read = source(axes, amounts, memory.x, channels, size, lies=lies(axes, problem, memory, along), inner=inner)
    written = target(axes, amounts, memory.y, tile, columns, size, stored=stored(problem, memory))
    how = steps_of(axes, channels, size, read, filters, along)
    chunks = max(1, round(max(how.each) * how.depth * tile.width * size / CHUNK))
    # Rows of w where it lies are far apart: those of the next panel are fetched, unless they fall into one set of the
    # cache; else the next rows of the source.
    ahead = (0, filters.depth)
    if filters.bytes or filters.depth % PAGE == 0:
        ahead = (tile.tallest, LINE // max(1, *how.each) if read.lies else 0)
    sums = Product(
        *(how.depth, -(-how.depth // chunks), how.step, filters.group, memory.w_image, filters.panel, filters.depth),
        *(*ahead, len(how.each)),
    )
    rows = [slices(axis.outputs, count) for axis, count in zip(axes, amounts.rows, strict=False)]
    blocks_of: list[list[slice]] = [slices(batch, amounts.images), *rows]
    heights = [math.prod(place.stop - place.start for place in places) for places in product(*blocks_of)] * groups
    panels = slices(tile.panels, panels_at_a_time(tile, heights, threads, lies=bool(read.lies)))
    numbered = product(slices(groups, 1), *blocks_of, panels)
    pieces = [
        (group.start, *(number for place in places for number in (place.start, place.stop - place.start)))
        for group, *places in numbered
    ]
    counts = (amounts.images, *amounts.rows, axes[2].places)
    block = block_bytes(read, axes, amounts)
    results = 0 if written.stored else rounded(math.prod(counts) * columns * size)
    numbers, listed = together(read, written, sums, turner(size, isa)), np.array(pieces, np.int64).reshape(-1)
    every = (
        numbers,
        tile.codes,
        starts_of(axes[2], tile),
        tile.stretches,
        how.a_offsets,
        how.b_offsets,
        listed,
        how.spans,
    )
    words = np.array([*tables(*every), block, *[0] * 7], np.int64)
    offset = sum(axis.first * stride for axis, stride in zip(axes, memory.y[3:], strict=True))
    return Part(words, every, len(pieces), block + results, offset)


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

    Of taps there are the offsets in what is read and in w, for one stretch behind the other, `each` of so many, and for
    each row of outputs, in each stretch, the first and the number of those whose cells exist.
    """

    depth: int
    step: int
    a_offsets: Array
    b_offsets: Array
    each: list[int]
    spans: Array


def steps_of(axes: Axes, channels: int, size: int, read: Source, filters: Filters, along: Walk) -> Steps:
    """The steps of a tile that goes along channels, pixels or taps."""
    *outer, w = axes
    stretches = stretches_of(w, along)
    if along is Walk.CHANNELS:
        every, last = [(*outer, w._replace(taps=stretch.taps)) for stretch in stretches], read.read_w
        depth, step = channels, read.read_channel
    elif along is Walk.PIXELS:
        every, last = [tuple(outer)], 0
        depth, step = channels * len(w.taps), size
    else:
        channel = Axis(1, 1, tuple((place, place) for place in range(channels)), channels)
        every, last = [(*outer, channel)], read.read_channel
        depth, step = len(w.taps), read.read_w
    # Offsets count from the first cell of all stretches.
    begins = [(some[2].lowest - w.lowest) * last if along is Walk.CHANNELS else 0 for some in every]
    strides = (read.read_d, read.read_h, last)
    a_offsets = [begin + tap_offsets(some, strides) for begin, some in zip(begins, every, strict=True)]
    b_offsets = [filters.offsets(some) for some in every]
    within = spans(axes, [math.prod(len(axis.taps) for axis in some[2:]) for some in every])
    counts = [len(some) for some in a_offsets]
    return Steps(depth, step, np.concatenate(a_offsets), np.concatenate(b_offsets), counts, within)


def spans(axes: Axes, each: list[int]) -> Array:
    """For each row of outputs, in each stretch, the first of the taps whose cells exist, and how many do.

    Others would only add zeros. A stretch takes `each` of them from a row of w. In three dimensions, where those
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


def panels_at_a_time(tile: Tiling, heights: list[int], threads: int, *, lies: bool) -> int:
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
    if what.exchanged:
        x, w = w, x
    given, steps = (what.zeros, (0, 0, 0)) if bias is None else (np.repeat(bias, what.repeat), what.bias)
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
            words[-7:] = (address(x), weights, address(given), address(out) + each.offset, *steps)
            run(correlate, words, each.pieces, what.threads, each.room)
