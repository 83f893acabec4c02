"""Correlations as products of tiles on the data itself: each output is summed in registers and stored once.

                vectors of channels                          vectors of pixels
    rows        outputs next to each other along the last    output channels
                axis, ``step`` pixels of the source apart
    vectors     output channels                              outputs next to each other
    depth       input channels, together with the taps of the last axis where these lie next to each other
    taps        the other ones, as offsets into the source, without those that lie outside for all its rows

so the source is read where it lies: channels innermost for vectors of channels, pixels innermost for those of pixels.
It is copied only where it does not lie so, or a window reaches outside: once, with zeros around it, in blocks that stay
in the cache, not once for each tap. `ways` chooses.

What depends on shapes and strides alone is a plan, which is remembered.
"""

from __future__ import annotations

import math
from dataclasses import replace
from enum import Enum
from itertools import product
from typing import NamedTuple

import numpy as np

from ...layout import Array
from ...views import slices
from ...window import Ints
from .amounts import Amounts, correlation_amounts, filter_bytes, members
from .axes import APART, FEW_CHANNELS, PAGE, Axes, cut, direction
from .blocks import correlate, pack, together
from .choice import choose
from .copies import turner
from .filters import PACK_SERIAL, Filters, Tiling, by_rows, ends, lying, packed, runs_of, tiling, vectors_for
from .geometry import Product, Source, Target, block_bytes, source, target
from .isa import Isa
from .lowering import lowered
from .machine import address, address_of, listed, tables
from .operands import Memory, Problem, columns_apart, images_together, line_of, own_taps, rows_together, window_step
from .parallel import SHARES, UNEVEN, run, run_at
from .scratch import LINE, rounded
from .steps import Steps, starts_of, steps_of
from .tile import AHEAD
from .tile import address as code
from .ways import Walk, Way, lies, packs, row_bytes, stored, stretches_of, turned

FEW_OUTPUTS = 256
"""Outputs up to which copying weights into panels takes longer than it saves."""
EVEN = 1.1
"""How much longer the busiest thread may work than the mean of all."""
TURNED_COLUMNS = 64
"""The columns that are turned at a time."""
CHUNK = 2**17
"""Bytes of a panel of weights that are worked on at a time, an eighth of a second-level cache."""
FAR_WEIGHTS, FEW_ROWS = 2**22, 128
"""Bytes of weights that lie in no near cache, and the rows of these to go through at a time for all panels, each a
page or so: few enough for a processor to guess the next line of all.
"""
GATHERED, GATHERED_PIXELS, CROWDED_PIXELS = 32, 48, 18
"""Rows of the result from which on copying a row of B that all read pays: one of weights, which come from far, or of
pixels, which the first tile keeps; and the latter where rows of B fall into one set of the cache."""
GAP = 2**15
"""Bytes between what threads write, if memory is ample: what is fetched ahead reaches that far, and would take it away
from another thread. 3 to 32 channels at 100x100 took 102 us without, and 88 so."""
ARGUMENTS = listed(7)


class Reading(Enum):
    """How tiles read the weights."""

    LYING = "where they lie, or gathered from there"
    ROWS = "turned, for vectors of pixels"
    PANELS = "in panels"
    LATE = "in panels, each copied right before its tiles run"


class Part(NamedTuple):
    """The correlation along some axes: where the numbers of its plan are, and what these point to."""

    at: int
    words: Array
    tables: tuple[Array, ...]
    pieces: int
    room: int


class Plan(NamedTuple):
    """Correlations by the same weights, as far as they are known without data; a `Weighted` plan."""

    parts: tuple[Part, ...]
    zeros: Array
    # How often each number of the bias is read.
    repeat: int
    threads: int
    # Copying the weights: the bytes and the panels of all groups, arguments but for two addresses, and their table.
    bytes: int
    panels: int
    packing: Array
    table: Array
    start: int

    def rearrange(self, w: Array, target: Array | None) -> Array:
        """Copy the weights into panels, if tiles do not read them where they lie; where they are."""
        if target is None:
            return w
        words = self.packing.copy()
        words[-2:] = address(target), address(w) + self.start
        run(pack, words, self.panels, self.threads if self.bytes > PACK_SERIAL else 1)
        return target

    def compute(self, x: Array, weights: Array, bias: Array | None, out: Array, start: int = 0) -> None:
        """Correlate by rearranged weights, from so many bytes behind where x begins."""
        given = self.zeros if bias is None else np.repeat(bias, self.repeat)
        for each in self.parts:
            words = ARGUMENTS(each.at, id(x), id(weights), id(given), bias is not None, id(out), start)
            run_at(correlate, address_of(words), each.pieces, self.threads, each.room)


def plan(
    problem: Problem, every: tuple[Axes, ...], memory: Memory, limit: int, threads: int, isa: Isa, *, kept: bool = False
) -> Plan:
    """Plan the correlations along some axes, by weights that are rearranged for one call, or `kept` for many."""
    pieces = cut(every, problem.channels)
    if pieces is not every:
        x, y = memory.x, memory.y
        every, memory = pieces, memory._replace(x=x._replace(h=x.w), y=y._replace(h=y.w))
    batch, groups, channels, columns, w_taps, size = problem
    sizes = (batch, groups, channels, columns, math.prod(w_taps), size, limit, threads)
    promised = max(correlation_amounts(axes, *sizes).bytes(threads, limit) for axes in every)
    way, every, memory = choose(problem, every, memory, isa)
    chosen = [correlation_amounts(axes, *sizes) for axes in every]
    if way.along is Walk.WINDOWS:
        problem, memory = columns_apart(problem, memory, threads)
        groups, columns = problem.groups, problem.columns
    if not way.pixels:
        every, memory, chosen = in_longer_rows(every, memory, chosen)
        if lies(every[0], problem, memory, way) and stored(problem, every[0], memory, way):
            problem, every, memory = images_together(problem, every, memory)
            batch, sizes = problem.batch, (problem.batch, *sizes[1:])
            every, memory, chosen = in_longer_rows(every, memory, [correlation_amounts(axes, *sizes) for axes in every])
    outputs = batch * sum(math.prod(axis.places for axis in axes) for axes in every)
    reading = reading_of(problem, every[0], memory, outputs, way, kept=kept)
    # The rows and columns of the matrices that tiles cover, and how far apart rows of A are.
    if way.pixels:
        matrices: list[tuple[Ints, int]] = [
            ((columns,), axes[2].outputs * (axes[1].outputs if way.lowered else 1)) for axes in every
        ]
        row = {Reading.LYING: memory.w[0], Reading.ROWS: channels * size}.get(reading, size)
    else:
        matrices = [(tuple(each.outputs for each in stretches_of(axes[2], way)), columns) for axes in every]
        row = max(row_bytes(axes, problem, memory, way) for axes in every)
    apart = all(lies(axes, problem, memory, way) for axes in every) if way.pixels else reading is Reading.LYING
    # Panels of weights that are of use for one block only are copied right before, and stay in the cache. Remainders
    # have taps of their own, which had better not lie innermost. Threads share panels then, if there are enough.
    alone = [correlation_amounts(axes, *sizes[:-1], 1) for axes in every]
    once = not way.pixels and all(found.are_all(batch, axes) for axes, found in zip(every, alone, strict=True))
    own = once and (reading is Reading.LYING or (not kept and (len(every) == 1 or size in memory.w[:2])))
    sharing = threads if own and outputs < columns * math.prod(w_taps) else 1
    most = max(max(rows) for rows, _ in matrices)
    vectors = vectors_for(most, matrices[0][1], size, isa, row, apart=apart, threads=sharing)
    tiles = [tiling(rows, wide, vectors, size, isa, row) for rows, wide in matrices]
    copied, shared = groups * filter_bytes(channels, columns, math.prod(w_taps), size), chosen[0].shared
    even = -(-tiles[0].panels // threads) * tiles[0].width * threads <= UNEVEN * columns
    room = threads * (max(found.each for found in alone) + copied // tiles[0].panels) <= promised - shared + copied
    if own and (threads == 1 or (sharing > 1 and even and room)):
        chosen, reading = alone, Reading.LYING if reading is Reading.LYING else Reading.LATE
    if stored(problem, every[0], memory, way):
        chosen = [
            found._replace(each=LINE) if lies(axes, problem, memory, way) else found
            for axes, found in zip(every, chosen, strict=True)
        ]
    threads = min(amounts.threads(threads, limit) for amounts in chosen)
    # What is promised is enough for copied weights; where there are none, panels may be gathered there.
    spare = (promised - shared + copied * (reading in (Reading.LYING, Reading.LATE))) // threads
    panels = tiles[0]
    if way.pixels:
        width = min(columns, TURNED_COLUMNS) if reading is Reading.ROWS else columns
        panels = panels._replace(width=width, panels=-(-columns // width), last=(columns - 1) % width + 1)
    filters = filters_of(problem, every[0], memory, panels, way, reading)
    parts = list[Part]()
    for axes, found, tile in zip(every, chosen, tiles, strict=True):
        given = (problem, axes, memory, filters, 0 if filters.bytes else filters.start)
        # Where there are no taps, none of the weights are read.
        here = reading if all(axis.taps for axis in axes) else Reading.LYING
        if here is Reading.LATE:
            smaller, start = own_taps(problem, axes, memory)
            weights = filters_of(*smaller, panels, way, here)
            given = (*smaller, weights, start + weights.start)
        parts.append(part(*given, found, tile, isa, threads, way, here, spare))
    copies = together(turner(size, isa, line_of(memory, w_taps, size)), filters.inner, filters.last)
    strides = (filters.group, filters.panel, filters.from_group, filters.from_panel)
    packing = np.array([*tables(copies), panels.panels, *strides, 0, 0], np.int64)
    repeat = tiles[0].width if way.pixels else 1
    copying = (groups * panels.panels, packing, copies)
    rearranged = (0, *copying, 0) if reading is Reading.LATE else (filters.bytes, *copying, filters.start)
    return Plan(tuple(parts), np.zeros(tiles[0].width, f"f{size}"), repeat, threads, *rearranged)


def in_longer_rows(
    every: tuple[Axes, ...], memory: Memory, chosen: list[Amounts]
) -> tuple[tuple[Axes, ...], Memory, list[Amounts]]:
    """The same, with as many rows as one as are worked on at a time."""
    every, memory, several = rows_together(every, memory, chosen[0].rows[1])
    return every, memory, [found._replace(rows=(found.rows[0], found.rows[1] // several)) for found in chosen]


def reading_of(problem: Problem, axes: Axes, memory: Memory, outputs: int, way: Way, *, kept: bool) -> Reading:
    """How tiles had better read w, which may be rearranged once for many calls."""
    if way.pixels:
        if turned(problem, axes, memory):
            return Reading.ROWS
        lying = not packs(problem, memory, way)
    else:
        forward = direction(axes[2], problem.taps[2]) == 1 and memory.w[4] == problem.channels * memory.w[1]
        straight = way.along is Walk.CHANNELS or (way.along is Walk.PIXELS and forward)
        lying = memory.w[0] == problem.size and straight and outputs <= FEW_OUTPUTS and not kept
    return Reading.LYING if lying else Reading.PANELS


def filters_of(problem: Problem, axes: Axes, memory: Memory, tile: Tiling, way: Way, reading: Reading) -> Filters:
    """Where to read the weights."""
    size = problem.size
    sizes, strides, start = (problem.columns, problem.channels, *problem.taps), memory.w, 0
    if reading is Reading.ROWS:
        return by_rows(strides, memory.w_group, sizes, problem.groups, tile, size)
    if way.along is Walk.WINDOWS:
        return lying((strides[0], window_step(problem, memory), 0, 0, 0), memory.w_group, 0, tile, size)
    if way.along is not Walk.CHANNELS and direction(axes[2], problem.taps[2]) < 0:
        start, strides = (problem.taps[2] - 1) * strides[4], (*strides[:4], -strides[4])
    if way.along is Walk.TAPS:
        sizes, strides = ((each[0], each[4], *each[2:4], each[1]) for each in (sizes, strides))
    if reading is Reading.LYING:
        return lying(strides, memory.w_group, start, tile, size)
    # As w has them: taps within channels, or the other way round.
    order = (1, 2, 3, 4) if way.along is Walk.CHANNELS and abs(strides[1]) > abs(strides[4]) else (2, 3, 4, 1)
    return packed(strides, memory.w_group, start, sizes, problem.groups, tile, size, order)


def part(
    problem: Problem,
    axes: Axes,
    memory: Memory,
    filters: Filters,
    start: int,
    amounts: Amounts,
    tile: Tiling,
    isa: Isa,
    threads: int,
    way: Way,
    reading: Reading,
    spare: int,
) -> Part:
    """Put the numbers of one correlation together."""
    batch, groups, channels, columns, _, size = problem
    whole, right = stored(problem, axes, memory, way), lies(axes, problem, memory, way)
    # Groups of few channels are copied together, where vectors do not hold those of one.
    several = members(groups, channels, columns, size) if way.pixels and not (way.lowered or (whole and right)) else 1
    groups, x, y = groups // several, *(each._replace(group=several * each.group) for each in (memory.x, memory.y))
    lines: tuple[int, ...] = ()
    if way.lowered:
        given = (batch * groups, channels, 0 if whole else columns, size, tile, amounts, threads, isa)
        axes, read, lines, amounts, panels = lowered(axes, x, *given, whole=way.along is Walk.WINDOWS)
        block, outputs = rounded(read.read_image), min(axes[2].outputs, panels * tile.width)
    else:
        read = source(axes, amounts, x, several * channels, size, lies=right, inner=way.inner)
        block, outputs, panels = block_bytes(read, axes, amounts), axes[2].places, tile.panels
    written = target(axes, amounts, y, tile, several * columns, size, stored=whole, outputs=outputs, pixels=way.pixels)
    how = steps_of(axes, channels, size, read, filters, way)
    counts = (amounts.images, *amounts.rows, outputs)
    results = 0 if whole else rounded(math.prod(counts) * several * columns * size)
    sums = operands_of(problem, axes, filters, tile, read, written, how, several, way, isa)._replace(
        w_start=start, lowered=int(way.lowered)
    )
    offsets = how.read_offsets if way.pixels else how.w_offsets
    origins, places = np.unique(offsets, return_inverse=True)
    panel = 0
    if gathers(problem, axes, tile, way, filters, sums.b_depth, lies=right):
        panel = rounded(origins.size * sums.chunk * tile.width * size)
    if 0 < panel <= spare - block - results:
        gather = gather_last = turner(size, isa).rows
        if way.pixels:
            shapes = ends(tile.width, tile.last, size, isa)
            gather, gather_last = (code(replace(one, rows=tile.tallest, keeping=True), isa) for one in shapes)
        sums = sums._replace(gather=gather, gather_last=gather_last)
        offsets = places * sums.chunk * tile.width * size
    else:
        panel = 0
    runs = np.zeros(1, np.int64)
    if reading is Reading.LATE:
        panel = rounded(filters.panel)
        found, step, count = runs_of(memory.w, (tile.width, channels, *problem.taps), size)
        runs = np.append(runs, found)
        late = {"late_panel": filters.from_panel, "late_step": step, "late_count": count}
        sums = sums._replace(w_group=filters.from_group, ahead_step=0, late=1, **late)
    rows = [slices(axis.outputs, count) for axis, count in zip(axes, amounts.rows, strict=False)]
    blocks_of: list[list[slice]] = [slices(batch, amounts.images), *rows]
    heights = [math.prod(place.stop - place.start for place in places) for places in product(*blocks_of)] * groups
    if not way.pixels or (whole and right):
        panels = panels_at_a_time(tile, heights, threads, lies=right)
    numbered = product(slices(groups, 1), *blocks_of, slices(tile.panels, panels))
    pieces = [
        (group.start, *(number for place in places for number in (place.start, place.stop - place.start)))
        for group, *places in numbered
    ]
    numbers = together(
        read, written, sums, turner(size, isa, line_of(memory, problem.taps, size)), filters.inner, filters.last, lines
    )
    places_of = np.array(pieces, np.int64).reshape(-1)
    offsets_of_a = how.w_offsets if way.pixels else how.read_offsets
    every = (
        *(numbers, tile.codes, starts_of(axes[2], tile), tile.stretches, offsets_of_a, offsets, origins, places_of),
        *(how.spans, runs),
    )
    offset = sum(axis.first * stride for axis, stride in zip(axes, memory.y[3:], strict=True))
    vector = tile.width * size
    bias = (problem.columns * vector, 0, vector) if way.pixels else (problem.columns * size, vector, 0)
    words = np.array([*tables(*every), panel, panel + block, offset, *bias], np.int64)
    room = panel + block + results
    apart = GAP if threads > 1 and room + 2 * GAP <= spare else 0
    return Part(address(words), words, every, len(pieces), room + apart)


def operands_of(
    problem: Problem,
    axes: Axes,
    filters: Filters,
    tile: Tiling,
    read: Source,
    written: Target,
    how: Steps,
    several: int,
    way: Way,
    isa: Isa,
) -> Product:
    """The operands of tiles, and in which chunks to sum."""
    taps, size = max(how.each), problem.size
    if way.pixels:
        channels, a, b = several * problem.columns, (filters.row, filters.depth), (tile.width * size, how.step)
        lines, apart = math.prod(len(axis.taps) for axis in axes[:2]) * problem.channels, read.lies
    else:
        channels, a, b = 0, (read.step_w * read.read_w, how.step), (filters.panel, filters.depth)
        lines, apart = taps * how.depth, not filters.bytes
    many = axes[2].outputs if way.pixels else problem.columns
    # Blocks of windows are read by whole lines, as a second-level cache likes it.
    chunks = 1 if way.along is Walk.WINDOWS else chunks_of(problem, lines, many, isa)
    weights = problem.columns * problem.channels * size
    if apart and not way.pixels and problem.taps == (1, 1, 1) and weights >= FAR_WEIGHTS:
        chunks = max(chunks, problem.channels // FEW_ROWS)
    depth = (how.depth, -(-how.depth // chunks))
    # Rows of B where it lies are far apart: those of the next panel are fetched, unless so many fall into one set of
    # the cache that it has no room for them; else the next rows of A.
    ahead = (0, b[1])
    if not apart or (b[1] % PAGE == 0 and (way.pixels or taps > 1)):
        ahead = (tile.tallest, LINE // max(1, taps) if read.lies and not way.pixels else 0)
    apart_by = (problem.channels * read.read_channel, problem.columns * written.kept_channel)
    rows = (axes[1].outputs, len(how.each))
    # B is fetched for the next panel if the next steps are another tap's, or behind a block of lines: what another
    # thread writes there would be taken away from it (32 groups of 16 channels 205 us on two threads, and 152 so).
    b_ahead = tile.width * size if way.pixels and taps > 1 and (way.lowered or how.depth < 2 * AHEAD) else 0
    offsets = how.read_offsets if way.pixels else how.w_offsets
    tap = offsets[1] - offsets[0] if len(offsets) > 1 else 0
    return Product._make(
        (channels, several, *apart_by, *depth, filters.group, *a, *b, b_ahead, *ahead, tap, *(0,) * 8, *rows)
    )


def chunks_of(problem: Problem, lines: int, columns: int, isa: Isa) -> int:
    """In how many chunks to sum so many rows of B, of each as many vectors as panels mostly have.

    Not as many as tiles have: these may depend on the batch, and the order of sums depends on chunks. By a single tap
    or over few channels, the way may depend on the batch, too.
    """
    vectors = 3 if problem.taps == (1, 1, 1) else min(3, -(-columns // isa.lanes(problem.size)))
    if problem.channels < FEW_CHANNELS:
        return 1
    return max(1, round(lines * vectors * isa.vector_bytes / CHUNK))


def gathers(problem: Problem, axes: Axes, tile: Tiling, way: Way, filters: Filters, apart: int, *, lies: bool) -> bool:
    """Whether panels had better be gathered from a B that is read where it lies, its rows so far apart.

    Channels of NCHW are planes apart: their rows begin anywhere in a line of the cache, and each on a page of its own.
    So do those of weights whose output channels follow each other.
    """
    if apart <= tile.width * problem.size:
        return False
    if way.pixels:
        least = CROWDED_PIXELS if apart % PAGE == 0 else GATHERED_PIXELS
        return lies and problem.taps == (1, 1, 1) and problem.columns >= least
    return not filters.bytes and way.along is Walk.CHANNELS and axes[1].outputs * axes[2].outputs >= GATHERED


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
