"""The loops of Winograd's algorithm over squares: U of the weights, V of a block of cells, M and what comes of it."""

from __future__ import annotations

from typing import NamedTuple

import numba
from numba import types

from ...layout import Array
from .blocks import COPIES, LIST, PIECE, SOURCE, SOURCES, TARGET, TARGETS, TURNERS, WORD, fill, following, move
from .copies import TURNER, Copy, Turner, copy_array
from .geometry import Piece, Source, Target
from .machine import array_in, entry, fixed, invoke, words, words_at
from .scratch import LINE
from .tile import AHEAD


class Squares(NamedTuple):
    """The squares of the outputs, their places xi, and where these lie."""

    # Along the rows and the columns of a square: places, outputs. Squares in a row of them, rows of outputs.
    places_h: int
    places_w: int
    outs_h: int
    outs_w: int
    across: int
    height: int
    # Bytes between places in V, in M and in U; in U also between input channels, panels and groups.
    v_place: int
    m_place: int
    u_place: int
    u_channel: int
    u_panel: int
    u_group: int
    # For so many kinds of blocks there are tiles.
    kinds: int
    # How many sources are added up; their channels together, and their bytes in V.
    sources: int
    depth: int
    line: int
    # The input channels of a panel of U that are there at a time.
    chunk: int
    # The codes of the three transforms.
    into: int
    weights: int
    back: int


SQUARES, PLACED = words(Squares), len(Squares._fields)
PICTURE, MAKING = 10, 13
"""The numbers of a picture in a call of `convolve`, and the arguments for U of a source."""


@numba.njit(types.void(*[WORD] * 7), nogil=True, cache=True)  # type: ignore[untyped-decorator]
def transform_panel(words: int, group: int, panel: int, chunk: int, w: int, panel_of_w: int, u: int) -> None:
    """U of a chunk of a panel of a group's weights, copied first if its output channels do not lie innermost.

    The arguments are a table, strides of w between groups and panels, channels, strides of a panel between channels and
    taps, that of w between chunks, whether panels are copied, where the first tap is, and two numbers that are not read
    here: addresses, or of several sources how much further in w than the first one begins.
    """
    given = words_at(words, MAKING)
    numbers, from_group, from_panel = array_in(given, 0), given[2], given[3]
    channels, channel, row, column = given[4], given[5], given[6], given[7]
    panels, width, last, rest = numbers[0], numbers[1], numbers[2], numbers[3:]
    q, how = Squares(*fixed(rest, PLACED)), Turner(*fixed(rest[PLACED:], TURNERS))
    copies = rest[PLACED + TURNERS :]
    inner, narrow = Copy(*fixed(copies, COPIES)), Copy(*fixed(copies[COPIES:], COPIES))
    first, columns = w + group * from_group + panel * from_panel + chunk * given[8], width
    if panel == panels - 1:
        inner, columns = narrow, last
    if given[9]:
        copy_array(how, inner, panel_of_w, first)
        first = panel_of_w
    first += given[10]
    for c in range(channels):
        invoke(
            q.weights,
            (
                *(first + c * channel, row, column, u + c * q.u_channel, q.places_w * q.u_place, q.u_place),
                *(0, columns, q.places_h, q.places_w),
            ),
        )


@entry
def transform_weights(words: int, begin: int, end: int, panel_of_w: int) -> None:
    """U of some panels of all groups' weights; the arguments are those of `transform_panel`."""
    given = words_at(words, MAKING)
    numbers = array_in(given, 0)
    q = Squares(*fixed(numbers[3:], PLACED))
    for place in range(begin, end):
        group, panel = place // numbers[0], place % numbers[0]
        u = given[12] + group * q.u_group + panel * q.u_panel
        transform_panel(words, group, panel, 0, given[11], panel_of_w, u)


@numba.njit(types.void(SOURCE, SQUARES, PIECE, WORD, WORD), nogil=True, cache=True)  # type: ignore[untyped-decorator]
def transform_source(s: Source, q: Squares, piece: Piece, block: int, v: int) -> None:
    """V of a block."""
    for i in range(piece.images):
        for d in range(piece.ds):
            for h in range(piece.hs):
                row = block + i * s.read_image + d * s.step_d * s.read_d + h * s.step_h * s.read_h
                for w in range(q.across):
                    invoke(
                        q.into,
                        (
                            *(row + w * s.step_w * s.read_w, s.read_h, s.read_w),
                            *(v, q.places_w * q.v_place, q.v_place, 0, s.channels, q.places_h, q.places_w),
                        ),
                    )
                    v += q.line


@numba.njit(types.void(TARGET, SQUARES, PIECE, *[WORD] * 4), nogil=True, cache=True)  # type: ignore[untyped-decorator]
def transform_back(t: Target, q: Squares, piece: Piece, columns: int, m: int, bias: int, kept: int) -> None:
    """A panel of the outputs of a block."""
    for i in range(piece.images):
        for d in range(piece.ds):
            for h in range(piece.hs):
                row = kept + i * t.kept_image + d * t.kept_d + h * q.outs_h * t.kept_h
                rows = q.height - (piece.h + h) * q.outs_h
                for w in range(q.across):
                    invoke(
                        q.back,
                        (
                            *(m, q.places_w * q.m_place, q.m_place),
                            *(row + w * q.outs_w * t.kept_w, t.kept_h, t.kept_w, bias, columns),
                            *(rows, t.outs_w - w * q.outs_w),
                        ),
                    )
                    m += t.width * t.size


@numba.njit(types.void(TARGET, SQUARES, TURNER, PIECE, *[LIST] * 3, *[WORD] * 15), nogil=True, cache=True)  # type: ignore[untyped-decorator]
def compute(
    t: Target,
    q: Squares,
    how: Turner,
    piece: Piece,
    sources: Array,
    codes: Array,
    starts: Array,
    kind: int,
    zero: int,
    x: int,
    u: int,
    bias: int,
    block: int,
    v: int,
    m: int,
    kept: int,
    late: int,
    panel_of_w: int,
    w: int,
    begin: int,
    end: int,
    last: int,
) -> None:
    """Compute some panels of a block of the squares of one picture, by tiles for its `kind` of block.

    `sources` has the numbers of each, and where it begins in x. Where panels of U are made right before they are used,
    `late` are the arguments for that, of each source, and `u` has room for a chunk of one. The next block is not
    fetched of the `last`.
    """
    tiles, width, each = starts.size // q.kinds, t.width * t.size, q.depth // q.sources
    for number in range(q.sources):
        numbers = sources[(SOURCES + 1) * number :]
        s, start = Source(*fixed(numbers, SOURCES)), numbers[SOURCES]
        fill(s, how, piece, x + start + piece.group * s.group + piece.image * s.image, block)
        transform_source(s, q, piece, block, v + number * (q.line // q.sources))
    # What the next block reads is fetched meanwhile, a line in each step of all tiles but the first of a place.
    coming, left = following(s, piece)
    coming, fetched = coming + x + start + piece.group * s.group + piece.image * s.image, 0
    if last:
        left = 0
    for panel in range(begin, end):
        is_last = panel == t.panels - 1
        columns, code = (t.last, (2 * kind + 1) * tiles) if is_last else (t.width, 2 * kind * tiles)
        for k in range(0, q.depth, q.chunk):
            b = u + panel * q.u_panel
            if late:
                b = u
                making, part = late + k // each * MAKING * 8, k % each // q.chunk
                begin_of_w = w + words_at(making, MAKING)[11]
                transform_panel(making, piece.group, panel, part, begin_of_w, panel_of_w, u)
            for xi in range(q.places_h * q.places_w):
                for n in range(tiles):
                    if codes[code + n]:
                        first = starts[kind * tiles + n]
                        c = m + xi * q.m_place + first * width
                        init, init_row = zero, 0
                        if k:
                            init, init_row = c, width
                        ahead, step = b + (xi + 1) * q.u_place, 2 * LINE
                        if n > 0 and fetched < left:
                            ahead, step = coming + fetched, LINE
                            fetched += q.chunk * LINE
                        invoke(
                            codes[code + n],
                            (
                                *(v + xi * q.v_place + first * q.line + k * t.size, b + xi * q.u_place, c, init),
                                *(zero, zero, 1, q.chunk, q.line, t.size, q.u_channel, AHEAD * q.u_channel),
                                *(width, init_row, columns, c),
                                *(ahead, step, 0),
                            ),
                        )
        transform_back(t, q, piece, columns, m, bias + panel * width, kept + panel * width)


@entry
def convolve(words: int, begin: int, end: int, block: int) -> None:
    """Compute some of the pieces.

    The arguments are tables of what is written, of pieces, and of pictures, of which each has `PICTURE` numbers: three
    more tables, where V and M are behind the block, and where to begin in U and what is written. Then there is where
    results are, the address of zeros, that of arguments for panels of U made `late` or 0, where in the memory these and
    panels of w are then, and four more addresses.
    """
    given = words_at(words, 15)
    whole, pieces, pictures = array_in(given, 0), array_in(given, 1), array_in(given, 2)
    results, zero, late = block + given[6], given[7], given[8]
    x, w, biases, out = given[11], given[12], given[13], given[14]
    t = Target(*fixed(whole, TARGETS))
    outs_h, height, bias_group, how = whole[TARGETS], whole[TARGETS + 1], whole[TARGETS + 2], whole[TARGETS + 3 :]
    turning = Turner(*fixed(how, TURNERS))
    for place in range(begin, end):
        piece = Piece(*fixed(pieces[10 * place :], 7))
        kind, first, behind = fixed(pieces[10 * place + 7 :], 3)
        target = out + piece.group * t.group + piece.image * t.image + piece.d * t.d + piece.h * outs_h * t.h
        kept = target if t.stored else results
        for number in range(pictures.size // PICTURE):
            one = pictures[PICTURE * number :]
            numbers, codes, starts = array_in(one, 0), array_in(one, 1), array_in(one, 2)
            q, rest = Squares(*fixed(numbers, PLACED)), numbers[PLACED:]
            u = w + one[8] + piece.group * q.u_group
            if late:
                u = block + given[9]
            compute(
                *(Target(*fixed(rest, TARGETS)), q, turning, piece, rest[TARGETS:], codes, starts, kind, zero, x),
                *(u, biases + piece.group * bias_group),
                *(block, block + one[6], block + one[7], kept + one[9], late, block + given[10], w),
                *(first, behind, place == end - 1),
            )
        if not t.stored:
            rows = min(piece.hs * outs_h, height - piece.h * outs_h)
            written = Piece(piece.group, piece.image, piece.images, piece.d, piece.ds, piece.h, rows)
            across, end_of_all = first * t.width, (t.panels - 1) * t.width + t.last
            columns = min(end_of_all, behind * t.width) - across
            move(t, turning, written, results + across * t.size, target + across * t.channel, columns, 0)
