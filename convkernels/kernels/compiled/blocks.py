"""Loops over the blocks of a correlation: copy what a block reads if it must be, run tiles, copy what they wrote.

These are the five loops around a tile of Goto and van de Geijn, with the rows of the picture in place of those of a
matrix: blocks that stay in the second-level cache, chunks of the depth, panels of output channels, rows, tiles.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import types

from ...layout import Array
from .copies import TURNER, Copy, Turner, copy_array, copy_matrix
from .geometry import Piece, Product, Source, Target
from .lowering import Lowering, lower, move_lines
from .machine import array_in, data_of, entry, fixed, invoke, set_bytes, words, words_at
from .scratch import LINE
from .tile import AHEAD

WORD = types.int64
LIST = types.int64[::1]
SOURCE, TARGET, PRODUCT, PIECE = map(words, (Source, Target, Product, Piece))
SOURCES, TARGETS, PRODUCTS, TURNERS, COPIES, LOWERINGS = (
    len(kind._fields) for kind in (Source, Target, Product, Turner, Copy, Lowering)
)
"""How many numbers there are of each; `together` strings them for a call."""


def together(*kinds: tuple[int, ...]) -> Array:
    """Tuples of numbers as one array, which a compiled function takes faster."""
    return np.array([number for kind in kinds for number in kind], np.int64)


@numba.njit(types.void(SOURCE, *[WORD] * 5), nogil=True, cache=True)  # type: ignore[untyped-decorator]
def clear(s: Source, row: int, begin: int, end: int, channel: int, several: int) -> None:
    """Put zeros into some cells of a row of a block, in several channels; all of them, where they lie innermost."""
    if s.read_w == s.size:
        for place in range(channel, min(s.channels, channel + several)):
            set_bytes(row + place * s.read_channel + begin * s.read_w, (end - begin) * s.read_w, 0)
    elif channel == 0:
        set_bytes(row + begin * s.read_w, (end - begin) * s.read_w, 0)


@numba.njit(types.void(SOURCE, TURNER, PIECE, WORD, WORD), nogil=True, cache=True)  # type: ignore[untyped-decorator]
def fill(s: Source, how: Turner, piece: Piece, x: int, block: int) -> None:
    """Copy what a block of outputs reads, with zeros where that is outside the source."""
    first = 0 if s.low_w >= 0 else -(s.low_w // s.cell_step_w)
    end = min(s.cells_w, (s.in_w - 1 - s.low_w) // s.cell_step_w + 1)
    # Channels that lie apart are each a stream of memory over all the rows, a few at a time.
    several = how.side if s.channel != s.size else s.channels
    # Whole rows that follow each other without a gap on both sides are one.
    whole = s.h == s.in_w * s.w and s.cells_w == s.in_w and s.low_w == 0 and s.cell_step_h * s.cell_step_w == 1
    hs = (piece.hs - 1) * s.step_h + s.span_h
    for i in range(piece.images):
        for d in range((piece.ds - 1) * s.step_d + s.span_d):
            in_d = s.low_d + piece.d * s.out_step_d + d * s.cell_step_d
            for channel in range(0, s.channels, several):
                h = 0
                while h < hs:
                    in_h = s.low_h + piece.h * s.out_step_h + h * s.cell_step_h
                    rows = min(hs - h, s.in_h - in_h) if whole and in_h >= 0 else 1
                    row = block + i * s.read_image + d * s.read_d + h * s.read_h
                    if 0 <= in_d < s.in_d and 0 <= in_h < s.in_h and first < end:
                        cell = x + i * s.image + in_d * s.d + in_h * s.h + channel * s.channel
                        clear(s, row, 0, first, channel, several)
                        clear(s, row, end, s.cells_w, channel, several)
                        copy_matrix(
                            *(how, row + first * s.read_w + channel * s.read_channel, s.read_w, s.read_channel),
                            *(cell + (s.low_w + first * s.cell_step_w) * s.w, s.cell_step_w * s.w, s.channel),
                            *(rows * (end - first), min(several, s.channels - channel), several * s.channel),
                        )
                    else:
                        rows = 1
                        clear(s, row, 0, s.cells_w, channel, several)
                    h += rows


@numba.njit(types.UniTuple(WORD, 2)(SOURCE, PIECE), nogil=True, cache=True)  # type: ignore[untyped-decorator]
def following(s: Source, piece: Piece) -> tuple[int, int]:
    """Where the rows behind those of a piece begin in its image of x, and the bytes of as many.

    There are none where channels do not lie innermost, or most of a pixel's belong to other groups.
    """
    rows = piece.h + piece.hs
    begin = (s.low_d + piece.d * s.out_step_d) * s.d + (s.low_h + rows * s.out_step_h) * s.h + s.low_w * s.w
    if s.channel != s.size or s.w > 2 * s.channels * s.size:
        return begin, 0
    return begin, piece.images * piece.hs * s.out_step_h * s.h


@numba.njit(types.void(TARGET, TURNER, PIECE, WORD, WORD, WORD, WORD), nogil=True, cache=True)  # type: ignore[untyped-decorator]
def move(t: Target, how: Turner, piece: Piece, block: int, array: int, columns: int, back: int) -> None:
    """Copy a block of so many channels of outputs to where they belong, or `back` from there."""
    # Rows that follow each other without a gap on both sides are one.
    whole = t.h == t.outs_w * t.w and t.kept_h == t.outs_w * t.kept_w
    rows, pixels = (1, piece.hs * t.outs_w) if whole else (piece.hs, t.outs_w)
    for i in range(piece.images):
        for d in range(piece.ds):
            for h in range(rows):
                there = array + i * t.image + d * t.d + h * t.h
                here = block + i * t.kept_image + d * t.kept_d + h * t.kept_h
                if back:
                    copy_matrix(how, here, t.kept_w, t.kept_channel, there, t.w, t.channel, pixels, columns, 0)
                else:
                    copy_matrix(how, there, t.w, t.channel, here, t.kept_w, t.kept_channel, pixels, columns, 0)


@numba.njit(types.void(SOURCE, TARGET, PRODUCT, PIECE, *[LIST] * 8, *[WORD] * 14), nogil=True, cache=True)  # type: ignore[untyped-decorator]
def multiply(
    s: Source,
    t: Target,
    p: Product,
    piece: Piece,
    codes: Array,
    starts: Array,
    stretches: Array,
    a_offsets: Array,
    b_offsets: Array,
    origins: Array,
    spans: Array,
    runs: Array,
    read: int,
    weights: int,
    kept: int,
    memory: int,
    first: int,
    count: int,
    biases: int,
    bias_panel: int,
    bias_row: int,
    coming: int,
    run: int,
    run_end: int,
    of_run: int,
    run_step: int,
) -> None:
    """Run tiles of some panels; the depth's first chunk starts from the bias, each later one from its forerunner.

    `starts` has for each tile what its first row reads, and then for each the row that it writes. `memory` is for a
    chunk of a panel of B, which may be gathered from these `origins` of its taps. What is `coming` is fetched
    meanwhile, a line in each step: some `runs` from there, of so many lines a step apart.
    """
    tiles, lines, fetched = starts.size // 2, -(-p.b_panel // LINE), 0
    for k in range(0, p.depth, p.chunk):
        depth = min(p.chunk, p.depth - k)
        for panel in range(first, first + count):
            is_last = panel == t.panels - 1
            columns, code, gather = (t.last, tiles, p.gather_last) if is_last else (t.width, 0, p.gather)
            across = panel * t.width * t.size
            line = 0
            for i in range(piece.images):
                for d in range(piece.ds):
                    for h in range(piece.hs):
                        a = read + i * s.read_image + d * s.step_d * s.read_d + h * s.step_h * s.read_h
                        b = weights
                        if p.channels:
                            a, b = b, a
                        a += k * p.a_depth
                        b += k * p.b_depth + panel * p.b_panel
                        c = kept + i * t.kept_image + d * t.kept_d + h * t.kept_h + across
                        right, b_depth = b, p.b_depth
                        if p.gather:
                            right, b_depth = memory, t.width * t.size
                            # Vectors of channels are the same for all rows.
                            if p.channels == 0 and i + d + h == 0:
                                for tap in range(origins.size):
                                    to = memory + tap * p.chunk * b_depth
                                    invoke(gather, (b + origins[tap], p.b_depth, to, b_depth, depth, columns))
                        for n in range(tiles):
                            place = 2 * (((piece.d + d) * p.rows + piece.h + h) * p.stretches + stretches[n])
                            skipped, taps, tile = 8 * spans[place], spans[place + 1], c + starts[tiles + n] * t.row
                            init, init_row = tile, t.next_row
                            if k == 0:
                                init, init_row = biases + panel * bias_panel + starts[n] * bias_row, bias_row
                            ahead, ahead_tap = a + (starts[n] + p.ahead) * p.a_row, 0
                            if p.ahead == 0:
                                ahead = b + p.b_panel + line * LINE + LINE - t.size
                                line, ahead_tap = (line + 1) % lines, p.b_tap - depth * p.b_depth
                            ahead_step = p.ahead_step
                            if ahead_step == 0 and run < run_end:
                                ahead, ahead_step = coming + runs[run] + fetched * run_step, run_step
                                fetched += taps * depth
                                if fetched >= of_run:
                                    run, fetched = run + 1, 0
                            following = c + t.kept_h + starts[tiles] * t.row
                            if n < tiles - 1:
                                following = c + starts[tiles + n + 1] * t.row
                            elif h == piece.hs - 1:
                                following += t.width * t.size - piece.hs * t.kept_h
                            # Vectors of pixels are kept by the first tile that reads them.
                            keeping = n == 0 and p.gather > 0 and p.channels > 0
                            source, step, run = right, b_depth, codes[code + n]
                            if keeping:
                                source, step, run = b, p.b_depth, gather
                            b_ahead = AHEAD * step
                            if p.b_ahead:
                                b_ahead = p.b_ahead
                            given = (
                                *(a + starts[n] * p.a_row, source, tile, init),
                                *(a_offsets.ctypes.data + skipped, b_offsets.ctypes.data + skipped, taps, depth),
                                *(p.a_row, p.a_depth, step, b_ahead, t.next_row, init_row),
                                *(columns, following),
                                *(ahead, ahead_step, ahead_tap),
                            )
                            if keeping:
                                invoke(run, (*given, right, b_depth))
                            else:
                                invoke(run, given)


@entry
def correlate(words: int, begin: int, end: int, memory: int) -> None:
    """Compute some of the pieces.

    The arguments are the address of a plan, x, the weights, the bias, whether there is one, the results, and how many
    bytes behind where x begins to; arrays are given by their ``id``. The plan has ten tables, where in the memory a
    block begins behind a panel of B, where copies of what tiles write do, where to begin in the results, and the
    strides of the bias between groups, panels and rows of tiles.
    """
    arrays = words_at(words, 7)
    given, x = words_at(arrays[0], 26), data_of(arrays[1]) + arrays[6]
    weights, biases = data_of(arrays[2]), data_of(arrays[3])
    numbers, codes, starts, stretches = array_in(given, 0), array_in(given, 1), array_in(given, 2), array_in(given, 3)
    a_offsets, b_offsets, origins = array_in(given, 4), array_in(given, 5), array_in(given, 6)
    pieces, spans, runs = array_in(given, 7), array_in(given, 8), array_in(given, 9)
    block, results, out = memory + given[20], memory + given[21], data_of(arrays[5]) + given[22]
    bias_group, bias_panel, bias_row = arrays[4] * given[23], arrays[4] * given[24], arrays[4] * given[25]
    s, t = Source(*fixed(numbers, SOURCES)), Target(*fixed(numbers[SOURCES:], TARGETS))
    rest = numbers[SOURCES + TARGETS :]
    p, how = Product(*fixed(rest, PRODUCTS)), Turner(*fixed(rest[PRODUCTS:], TURNERS))
    copies = rest[PRODUCTS + TURNERS :]
    inner, last = Copy(*fixed(copies, COPIES)), Copy(*fixed(copies[COPIES:], COPIES))
    for place in range(begin, end):
        piece = Piece(*fixed(pieces[9 * place :], 7))
        first, count = pieces[9 * place + 7], pieces[9 * place + 8]
        origin = x + piece.group * s.group + piece.image * s.image
        target = out + piece.group * t.group + piece.image * t.image + piece.d * t.d + piece.h * t.h
        across, many = first * t.width, (count - 1) * t.width + (t.last if first + count == t.panels else t.width)
        kept, read = target if t.stored else results, block
        if p.lowered:
            lines = Lowering(*fixed(copies[2 * COPIES :], LOWERINGS))
            row = across // lines.outputs
            lower(s, lines, how, piece, origin, block, row, (across + many - 1) // lines.outputs + 1 - row)
            read = block - row * lines.outputs * s.size
            if t.stored == 0:
                kept = results - across * t.size
        elif s.lies:
            d, h = s.low_d + piece.d * s.out_step_d, s.low_h + piece.h * s.out_step_h
            read = origin + d * s.d + h * s.h + s.low_w * s.w
        else:
            fill(s, how, piece, origin, block)
        coming, left = following(s, piece)
        coming, run, run_end, of_run, run_step = (
            origin + coming,
            0,
            int(place < end - 1 and left > 0),
            left // LINE,
            LINE,
        )
        for member in range(p.members):
            group = piece.group * p.members + member
            several, right = count, weights + p.w_start + group * p.w_group
            if p.late:
                several = 1
            for panel in range(first, first + count, several):
                b = right
                if p.late:
                    b, coming = memory - panel * p.b_panel, right + (panel + 1) * p.late_panel
                    run, run_end, of_run, run_step = 1, runs.size, p.late_count, p.late_step
                    if panel == t.panels - 1:
                        copy_array(how, last, memory, right + panel * p.late_panel)
                        coming = right + p.w_group
                        if 9 * (place + 1) == pieces.size:
                            run_end = run
                    else:
                        copy_array(how, inner, memory, right + panel * p.late_panel)
                multiply(
                    *(s, t, p, piece, codes, starts, stretches, a_offsets, b_offsets, origins, spans, runs),
                    *(read + member * p.read_member, b, kept + member * p.kept_member, memory),
                    *(panel, several, biases + group * bias_group, bias_panel, bias_row),
                    *(coming, run, run_end, of_run, run_step),
                )
        if t.stored:
            continue
        if p.lowered:
            move_lines(t, lines, how, piece, results, target, across, across + many, p.channels)
        elif p.channels:
            move(t, how, piece, results, target, p.channels, 0)
        else:
            move(t, how, piece, results + across * t.size, target + across * t.channel, many, 0)


@entry
def pack(words: int, begin: int, end: int, unused: int) -> None:
    """Copy some of the panels of all groups' weights.

    The arguments are a table, the panels of a group, the strides of what is written between groups and panels, those of
    what is read, and two addresses.
    """
    given = words_at(words, 9)
    numbers, panels, target, source = array_in(given, 0), given[2], given[7], given[8]
    how, rest = Turner(*fixed(numbers, TURNERS)), numbers[TURNERS:]
    inner, last = Copy(*fixed(rest, COPIES)), Copy(*fixed(rest[COPIES:], COPIES))
    for place in range(begin, end):
        group, panel = place // panels, place % panels
        to, origin = target + group * given[3] + panel * given[4], source + group * given[5] + panel * given[6]
        if panel == panels - 1:
            copy_array(how, last, to, origin)
        else:
            copy_array(how, inner, to, origin)
