"""Weight gradients by fewer multiplications: Winograd's algorithm with outputs and taps exchanged.

A weight gradient correlates the input with the gradient dy, whose squares of r x r cells are the taps here; the taps
of w are the outputs. In the names of Lavin and Gray (2016), for m x m taps of w and n = m + r - 1,

    V[xi] = (B.T x B)[xi]              for each square of n x n cells and input channel
    W[xi] = (G dy G.T)[xi]             for each square of r x r cells and output channel
    M[xi] = sum of V[xi].T W[xi]       over all squares: a matrix product for each of the n * n places xi
    dw    = A.T M A                    once, for each input and output channel

which takes a quarter of the multiplications for m = 3 and r = 4. The squares of dy do not overlap, those of x do. An
axis of one tap has r = 1 and is left as it is; along the first of three axes each tap goes by itself.

A block of squares is transformed, then summed: each thread takes stripes of M, some input by some output channels at
all places, so each sum has one order, however many threads there are.
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache, partial
from itertools import product
from typing import NamedTuple

import numba
import numpy as np
from numba import types

from ...layout import Array
from ...spec import ConvSpec
from ...views import slices
from ...window import Ints
from .amounts import STRIPE, SquareSums, winograd_weight_amounts
from .axes import Axes, Axis, contiguous, forward_axes
from .blocks import COPIES, PIECE, SOURCE, SOURCES, TURNERS, WORD, fill, together
from .conv_plans import plan_weights, run_to_weights
from .copies import Copy, Turner, copy_array, copy_plan, turner
from .filters import padded, tiling, vectors_for
from .geometry import Array5, Piece, Source, block_bytes, source
from .isa import Isa, host
from .machine import address, array_in, behind, entry, fixed, invoke, tables, words, words_at
from .operands import Problem, lying, sizes, spread
from .parallel import run
from .pictures import tap_by_tap, winograd_axes
from .scratch import LINE, arena
from .tile import AHEAD
from .toom_cook import transforms
from .transform import Square
from .transform import address as transform_address


class Squares(NamedTuple):
    """Squares, their places xi, and the stripes of M."""

    # Along the rows and the columns of a square: places, taps of w. Squares in a row of them.
    places_h: int
    places_w: int
    taps_h: int
    taps_w: int
    across: int
    # Bytes of an element. Input channels, and how many of them are the rows of a stripe; the same of output channels.
    size: int
    channels: int
    rows: int
    columns: int
    width: int
    # The codes of the transforms of x, of dy, and of M.
    into: int
    grads: int
    back: int
    # The strides of dw between groups and between stripes.
    group: int
    down: int
    right: int


SQUARES, PLACED = words(Squares), len(Squares._fields)
PIECES = len(Piece._fields)
"""The numbers of a piece, behind which follows the place of its first square among those of its block."""


@numba.njit(types.void(SOURCE, SQUARES, PIECE, *[WORD] * 6), nogil=True, cache=True)  # type: ignore[untyped-decorator]
def transform_squares(
    s: Source, q: Squares, piece: Piece, code: int, wide: int, block: int, to: int, first: int, room: int
) -> None:
    """Transform the squares of a piece, the `first` and so on, where there is room for so many.

    What becomes of them lies by stripes of so `wide` channels, in each by places, squares and channels.
    """
    places = q.places_h * q.places_w
    for i in range(piece.images):
        for d in range(piece.ds):
            for h in range(piece.hs):
                row = block + i * s.read_image + d * s.step_d * s.read_d + h * s.step_h * s.read_h
                for w in range(q.across):
                    for c in range(0, s.channels, wide):
                        channels = min(wide, s.channels - c)
                        line = channels * q.size
                        invoke(
                            code,
                            (
                                *(row + w * s.step_w * s.read_w + c * q.size, s.read_h, s.read_w),
                                *(to + c * places * room * q.size + first * line, q.places_w * room * line),
                                *(room * line, 0, channels, q.places_h, q.places_w),
                            ),
                        )
                    first += 1


@entry
def transform_block(words: int, begin: int, end: int, memory: int) -> None:
    """V and W of some of the pieces of a block.

    The arguments are two tables, the bytes of a piece of x, which one of dy follows, for how many squares there is
    room, and four addresses.
    """
    given = words_at(words, 10)
    numbers, pieces, grads, room = array_in(given, 0), array_in(given, 1), memory + given[4], given[5]
    x, dy, v, w = given[6], given[7], given[8], given[9]
    s, t, rest = Source(*fixed(numbers, SOURCES)), Source(*fixed(numbers[SOURCES:], SOURCES)), numbers[2 * SOURCES :]
    q, how = Squares(*fixed(rest, PLACED)), Turner(*fixed(rest[PLACED:], TURNERS))
    channel = q.places_h * q.places_w * room * q.size
    for place in range(begin, end):
        words_of_it = pieces[(PIECES + 1) * place :]
        piece, first = Piece(*fixed(words_of_it, PIECES)), words_of_it[PIECES]
        fill(s, how, piece, x + piece.group * s.group + piece.image * s.image, memory)
        to = v + piece.group * q.channels * channel
        transform_squares(s, q, piece, q.into, q.rows, memory, to, first, room)
        fill(t, how, piece, dy + piece.group * t.group + piece.image * t.image, grads)
        to = w + piece.group * q.columns * channel
        transform_squares(t, q, piece, q.grads, q.width, grads, to, first, room)


@numba.njit(WORD(WORD), nogil=True, cache=True)  # type: ignore[untyped-decorator]
def spaced(size: int) -> int:
    """So many bytes, to the end of a line, and an odd number of lines."""
    return (size + LINE - 1) // LINE * LINE | LINE


@entry
def add_block(words: int, begin: int, end: int, memory: int) -> None:
    """Add the squares of a block to some stripes of M, of which the last block makes dw.

    The arguments are three tables, the tiles of a row of the second, how many squares the block has and for how many
    there is room, whether it is the first, whether it is the last, and five addresses: of zeros, V, W, M, or 0 where
    one block is all, and dw.
    """
    given = words_at(words, 16)
    numbers, codes, starts, tiles = array_in(given, 0), array_in(given, 1), array_in(given, 2), given[6]
    count, room, is_first, is_last, zeros, v, w, sums, dw = fixed(given[7:], 9)
    q, how = Squares(*fixed(numbers, PLACED)), Turner(*fixed(numbers[PLACED:], TURNERS))
    copies = numbers[PLACED + TURNERS :]
    places, size = q.places_h * q.places_w, q.size
    down, right = -(-q.channels // q.rows), -(-q.columns // q.width)
    for place in range(begin, end):
        group, stripe, panel = place // (down * right), place // right % down, place % right
        channel, column = group * q.channels + stripe * q.rows, group * q.columns + panel * q.width
        rows = min(q.rows, q.channels - stripe * q.rows)
        columns = min(q.width, q.columns - panel * q.width)
        last_down, last_right = int(stripe == down - 1), int(panel == right - 1)
        kind = 2 * last_down + last_right
        # In scratch memory, places lie an odd number of lines apart, so as not to share sets of the cache.
        whole, apart = rows * columns * size, spaced(rows * columns * size)
        if sums:
            m, step, results = sums + (channel * q.columns + rows * panel * q.width) * places * size, whole, memory
        else:
            m, step, results = memory, apart, memory + places * apart
        for xi in range(places):
            a = v + (channel * places + xi * rows) * room * size
            b = w + (column * places + xi * columns) * room * size
            for n in range(tiles):
                if codes[kind * tiles + n]:
                    start = starts[last_down * tiles + n]
                    tile = m + xi * step + start * columns * size
                    init, init_row = (zeros, 0) if is_first else (tile, columns * size)
                    invoke(
                        codes[kind * tiles + n],
                        (
                            *(a + start * size, b, tile, init, zeros, zeros, 1, count),
                            *(size, rows * size, columns * size, AHEAD * columns * size, columns * size),
                            *(init_row, columns, tile),
                            *(b + room * columns * size + n * LINE, columns * size),
                        ),
                    )
        if is_last:
            invoke(
                q.back,
                (
                    *(m, q.places_w * step, step, results, q.taps_w * apart, apart),
                    *(0, rows * columns, q.taps_h, q.taps_w),
                ),
            )
            to = dw + group * q.group + stripe * q.down + panel * q.right
            copy_array(how, Copy(*fixed(copies[kind * COPIES :], COPIES)), to, results)


class SquaresPlan(NamedTuple):
    """A weight gradient by squares, as far as it is known without data.

    Arguments lack what changes from block to block, and addresses at the end; `kept` is what they point to. A block is
    its first piece, the one behind its last, how many squares it has, and for how many there is room.
    """

    transforming: Array
    adding: Array
    kept: tuple[Array, ...]
    pieces: Array
    blocks: tuple[Ints, ...]
    stripes: int
    threads: int
    # Bytes of V and W together, of V of one square, of M if it is kept from block to block, and for each thread.
    forms: int
    square: int
    sums: int
    piece: int
    stripe: int


def plan(
    problem: Problem, axes: Axes, x: Array5, dy: Array5, dw: Ints, limit: int, threads: int, isa: Isa
) -> SquaresPlan:
    """Plan a weight gradient; `dw` holds the strides between groups, of output and input channels, and of taps."""
    batch, groups, channels, columns, taps, size = problem
    squares, lanes = winograd_axes(axes), isa.lanes(size)
    amounts = winograd_weight_amounts(axes, batch, groups, channels, columns, size, limit)
    pieces, threads = amounts.pieces, amounts.pieces.threads(threads, limit)
    places = squares[1].span * squares[2].span
    vectors = vectors_for(channels, columns, size, isa)
    width = min(columns, vectors * lanes)
    right = -(-columns // width)
    # As many rows as fit, in whole vectors, or fewer so that each thread has a stripe.
    most = STRIPE // (places * width * size) // lanes * lanes
    down = max(-(-channels // most), -(-threads // (groups * right)))
    rows = min(channels, -(-channels // (down * lanes)) * lanes)
    down = -(-channels // rows)
    heights, widths = (rows, channels - (down - 1) * rows), (width, columns - (right - 1) * width)
    tilings = [tiling((height,), columns, vectors, size, isa) for height in heights]
    codes = padded([half for each in tilings for half in np.split(each.codes, 2)])
    starts = padded([each.starts for each in tilings])
    numbers = (
        *(squares[1].span, squares[2].span, *taps[1:], squares[2].outputs),
        *(size, channels, rows, columns, width),
        *(code(axes, squares, name, size, isa) for name in ("source", "filter", "output")),
        *(dw[0], rows * dw[2], width * dw[1]),
    )
    found = Squares._make(numbers)
    copies = [complete(wide, height, taps, dw, size) for height, wide in product(heights, widths)]
    cells = tuple(map(gradient_axis, squares, axes))
    reads = source(squares, pieces, x, channels, size, lies=False, inner=True)
    grads = source(cells, pieces, dy, columns, size, lies=False, inner=True)
    block, how, zeros = block_bytes(reads, squares, pieces), turner(size, isa), np.zeros(max(width, lanes), f"f{size}")
    transforming, adding = together(reads, grads, found, how), together(found, how, *copies)
    every, blocks = cut(problem, squares, amounts)
    listed = (adding, codes.reshape(-1), starts.reshape(-1))
    return SquaresPlan(
        np.array([*tables(transforming, every), block, 0, 0, 0, 0, 0], np.int64),
        np.array([*tables(*listed), codes.shape[1], 0, 0, 0, 0, address(zeros), 0, 0, 0, 0], np.int64),
        *((transforming, *listed, zeros), every, blocks, groups * down * right, threads),
        *(amounts.forms, groups * places * channels * size, amounts.sums),
        block + block_bytes(grads, cells, pieces),
        (math.prod(taps) + (places if amounts.sums == 0 else 0)) * spaced(rows * width * size),
    )


def gradient_axis(square: Axis, axis: Axis) -> Axis:
    """The axis of dy of which an axis of x has squares; outside it has zeros."""
    step = square.step if len(axis.taps) > 1 else 1
    return Axis(square.outputs, step, tuple((place, place) for place in range(step)), axis.outputs)


def code(axes: Axes, squares: Axes, name: str, size: int, isa: Isa) -> int:
    """Where the code of a transform is: w has the outputs, and a square of dy the taps."""
    along = [getattr(transforms(len(a.taps), b.step), name) for a, b in zip(axes[1:], squares[1:], strict=True)]
    return transform_address(Square(along[0], along[1], size, biased=False), isa)


def complete(columns: int, rows: int, taps: Ints, dw: Ints, size: int) -> Copy:
    """How to copy a complete stripe, which lies by taps, rows and columns."""
    steps = contiguous(taps, spaced(rows * columns * size))
    return copy_plan((columns, rows, *taps), dw[1:], (size, columns * size, *steps), size)


def cut(problem: Problem, squares: Axes, amounts: SquareSums) -> tuple[Array, tuple[Ints, ...]]:
    """Pieces of all groups, each with the place of its first square in its block; and the blocks."""
    counts, groups = (amounts.pieces.images, *amounts.pieces.rows), problem.groups
    along = (problem.batch, *(axis.outputs for axis in squares[:2]))
    places = list(product(*map(slices, along, counts)))
    pieces, blocks = [], []
    for block in slices(len(places), amounts.per_block):
        first = 0
        for place in places[block]:
            spans = [(span.start, span.stop - span.start) for span in place]
            pieces += [(group, *itertools.chain(*spans), first) for group in range(groups)]
            first += math.prod(count for _, count in spans) * squares[2].outputs
        # An even number would put the places of a square into few sets of the first-level cache.
        blocks.append((block.start * groups, block.stop * groups, first, first | 1))
    return np.array(pieces, np.int64).reshape(-1), tuple(blocks)


def run_squares(what: SquaresPlan, x: Array, dy: Array, dw: Array) -> None:
    """Run the plan of a tap of the first axis."""
    transforming, adding, last = what.transforming.copy(), what.adding.copy(), what.blocks[-1]
    with arena:
        v = arena.reserve(what.forms)
        sums = arena.reserve(what.sums) if what.sums else 0
        transforming[6:9], adding[12], adding[14:] = (address(x), address(dy), v), v, (sums, address(dw))
        for block in what.blocks:
            begin, end, count, room = block
            transforming[2] = address(what.pieces) + begin * (PIECES + 1) * what.pieces.itemsize
            transforming[5], transforming[9] = room, v + room * what.square
            run(transform_block, transforming, end - begin, what.threads, what.piece)
            adding[7:11], adding[13] = (count, room, begin == 0, block == last), v + room * what.square
            run(add_block, adding, what.stripes, what.threads, what.stripe)


class Slices(NamedTuple):
    """The weights of a tap of the first axis: their plan, and where they begin in dw, in bytes."""

    plan: SquaresPlan
    start: int


@lru_cache(maxsize=512)
def squares_plan(spec: ConvSpec, x: Ints, dy: Ints, out: Ints, limit: int, threads: int) -> tuple[Slices, ...]:
    """The plan of a weight gradient."""
    ins, outs = spec.group_in, spec.group_out
    problem, strides = sizes(spec, ins, outs), (outs * out[0], *spread(out))
    one = problem._replace(taps=(1, *problem.taps[1:]))
    given = (lying(x, ins), lying(dy, outs), strides, limit, threads, host())
    every = tap_by_tap(forward_axes(spec))
    return tuple(Slices(plan(one, axes, *given), axes[0].taps[0][0] * strides[3]) for axes in every)


def run_slices(every: tuple[Slices, ...], x: Array, dy: Array, dw: Array) -> None:
    """Run a planned weight gradient."""
    for what, start in every:
        run_squares(what, x, dy, behind(dw, start))


winograd_weight_grad = partial(run_to_weights, squares_plan, run_slices)
plan_weight_grad = partial(plan_weights, squares_plan, run_slices)
