"""Convolution by fewer multiplications: Winograd's algorithm on blocks of the picture, its products by register tiles.

In the names of Lavin and Gray (2016): a picture is cut into squares of m x m outputs, each of which reads n x n cells
(n = m + taps - 1). With U the transformed weights, V the transformed cells and M their products,

    U[xi] = (G g G.T)[xi]      for each input and output channel
    V[xi] = (B.T d B)[xi]      for each square and input channel
    M[xi] = V[xi] U[xi]        a matrix product for each of the n * n places xi
    y     = A.T M A            for each square and output channel

which takes (n / (m * taps))**2 of the multiplications: a quarter for 3 x 3 taps and m = 4. An axis of one tap has m = 1
and is left as it is. A block of squares goes through all steps while it stays in the cache.
"""

from __future__ import annotations

import math
from functools import lru_cache, partial
from itertools import product
from typing import NamedTuple

import numba
import numpy as np
from numba import types

from ...config import Resources
from ...layout import Array
from ...spec import ConvSpec
from ...views import slices
from ...window import Ints
from .axes import Amounts, Axes, direction, forward_axes, input_grad_axes, winograd_amounts, winograd_axes
from .blocks import (
    COPIES,
    LIST,
    PIECE,
    SOURCE,
    SOURCES,
    TABLE,
    TARGET,
    TARGETS,
    TURNERS,
    WORD,
    fill,
    move,
    together,
    words,
)
from .copies import Copy, Turner, copy_array, turner
from .filters import PACK_SERIAL, Filters, packed, tiling, vectors_for
from .geometry import Piece, Source, Target, cells_of, source, target
from .isa import Isa, host
from .machine import fixed, invoke
from .operands import Memory, Problem, backward, forward
from .parallel import run, usable
from .scratch import LINE, arena
from .toom_cook import transforms
from .transform import Square, address


class Squares(NamedTuple):
    """The squares of the outputs, their places xi, and where these lie."""

    # Along the rows and the columns of a square: places, outputs, taps. Squares in a row of them, rows of outputs.
    places_h: int
    places_w: int
    outs_h: int
    outs_w: int
    taps_h: int
    taps_w: int
    across: int
    height: int
    # Bytes between places in V, in M and in U; in U also between input channels, panels and groups.
    v_place: int
    m_place: int
    u_place: int
    u_channel: int
    u_panel: int
    u_group: int
    bias_group: int
    # The codes of the three transforms.
    into: int
    weights: int
    back: int


SQUARES, PLACED = words(Squares), len(Squares._fields)


@numba.njit(types.void(LIST, *[WORD] * 11), nogil=True, cache=True)  # type: ignore[untyped-decorator]
def transform_weights(
    numbers: Array,
    begin: int,
    end: int,
    from_group: int,
    from_panel: int,
    channels: int,
    channel: int,
    row: int,
    column: int,
    w: int,
    panel_of_w: int,
    u: int,
) -> None:
    """U of some panels of all groups' weights, each copied first with its output channels innermost."""
    t, rest = Target(*fixed(numbers, TARGETS)), numbers[TARGETS:]
    q, how = Squares(*fixed(rest, PLACED)), Turner(*fixed(rest[PLACED:], TURNERS))
    copies = rest[PLACED + TURNERS :]
    inner, last = Copy(*fixed(copies, COPIES)), Copy(*fixed(copies[COPIES:], COPIES))
    # Where a gradient takes the taps in reverse, their strides are negative.
    first = panel_of_w - min(0, row) * (q.taps_h - 1) - min(0, column) * (q.taps_w - 1)
    for place in range(begin, end):
        group, panel = place // t.panels, place % t.panels
        whole = panel < t.panels - 1
        copied = w + group * from_group + panel * from_panel
        if whole:
            copy_array(how, inner, panel_of_w, copied)
        else:
            copy_array(how, last, panel_of_w, copied)
        columns = t.width if whole else t.last
        to = u + group * q.u_group + panel * q.u_panel
        for c in range(channels):
            invoke(
                q.weights,
                (
                    *(first + c * channel, row, column, to + c * q.u_channel, q.places_w * q.u_place, q.u_place),
                    *(0, columns, q.places_h, q.places_w),
                ),
            )


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
                    v += s.channels * s.size


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


@numba.njit(  # type: ignore[untyped-decorator]
    types.void(LIST, TABLE, TABLE, TABLE, *[WORD] * 11), nogil=True, cache=True
)
def convolve(
    numbers: Array,
    codes: Array,
    starts: Array,
    pieces: Array,
    begin: int,
    end: int,
    x: int,
    u: int,
    biases: int,
    zero: int,
    out: int,
    block: int,
    v: int,
    m: int,
    results: int,
) -> None:
    """Compute some of the pieces."""
    s, t = Source(*fixed(numbers, SOURCES)), Target(*fixed(numbers[SOURCES:], TARGETS))
    rest = numbers[SOURCES + TARGETS :]
    q, how = Squares(*fixed(rest, PLACED)), Turner(*fixed(rest[PLACED:], TURNERS))
    line, width = s.channels * s.size, t.width * t.size
    for place in range(begin, end):
        of = pieces[place]
        piece = Piece(of[0], of[1], of[2], of[3], of[4], of[5], of[6])
        kind = of[7]
        target = out + piece.group * t.group + piece.image * t.image + piece.d * t.d + piece.h * q.outs_h * t.h
        fill(s, how, piece, x + piece.group * s.group + piece.image * s.image, block)
        transform_source(s, q, piece, block, v)
        kept = target if t.stored else results
        for panel in range(t.panels):
            columns = t.last if panel == t.panels - 1 else t.width
            b = u + piece.group * q.u_group + panel * q.u_panel
            for xi in range(q.places_h * q.places_w):
                for n in range(codes.shape[1]):
                    if codes[kind, n]:
                        first = starts[kind, n]
                        invoke(
                            codes[kind, n],
                            (
                                *(v + xi * q.v_place + first * line, b + xi * q.u_place),
                                *(m + xi * q.m_place + first * width, zero, zero, zero, 1, s.channels),
                                *(line, s.size, q.u_channel, width, 0, columns, b + (xi + 1) * q.u_place, 2 * LINE),
                            ),
                        )
            bias = biases + piece.group * q.bias_group + panel * width
            transform_back(t, q, piece, columns, m, bias, kept + panel * width)
        if not t.stored:
            rows = min(piece.hs * q.outs_h, q.height - piece.h * q.outs_h)
            written = Piece(piece.group, piece.image, piece.images, piece.d, piece.ds, piece.h, rows)
            move(t, how, written, results, target, (t.panels - 1) * t.width + t.last, 0)


class Room(NamedTuple):
    """Bytes of scratch memory: U for all, and for each thread a panel of w, a block, V, M and results."""

    u: int
    panel: int
    block: int
    v: int
    m: int
    results: int


class WinogradPlan(NamedTuple):
    """A convolution by squares, as far as it is known without data."""

    numbers: Array
    packing: Array
    channels: int
    panels: int
    filters: Filters
    # The strides of taps in a panel of w, in the order of their cells.
    tap_h: int
    tap_w: int
    codes: Array
    starts: Array
    zeros: Array
    pieces: Array
    groups: int
    threads: int
    room: Room


def winograd_plan(problem: Problem, axes: Axes, memory: Memory, limit: int, threads: int, isa: Isa) -> WinogradPlan:
    """Plan a convolution along some axes."""
    batch, groups, channels, columns, taps, size = problem
    squares = winograd_axes(axes)
    amounts = winograd_amounts(axes, batch, groups, channels, columns, size, limit, threads)
    steps = [axis.step for axis in squares]
    most = amounts.images * math.prod(amounts.rows) * squares[2].outputs
    vectors = vectors_for(most, columns, size, isa)
    tile = tiling(most, columns, vectors, size, isa)
    stored = memory.y.channel == size or columns == 1
    rows = amounts._replace(rows=(amounts.rows[0], amounts.rows[1] * steps[1]))
    order = (1, 2, 3, 4) if abs(memory.w[1]) > abs(memory.w[4]) else (2, 3, 4, 1)
    filters = packed(memory.w, memory.w_group, 0, (columns, channels, *taps), groups, tile, size, order)
    places, row = squares[1].span * squares[2].span, min(tile.width, columns) * size
    numbers = (
        *(squares[1].span, squares[2].span, steps[1], steps[2], taps[1], taps[2], squares[2].outputs, axes[1].outputs),
        *(most * channels * size, most * tile.width * size, channels * row, row),
        *(places * channels * row, tile.panels * places * channels * row, columns * size),
        *(code(axes, steps, name, size, isa) for name in ("source", "filter", "output")),
    )
    found = Squares(*numbers)
    pieces, kinds = cut(problem, squares, amounts)
    tilings = [tiling(count, columns, vectors, size, isa) for count in kinds]
    room = Room(
        groups * found.u_group,
        filters.panel,
        amounts.images * math.prod(cells_of(squares, amounts)) * channels * size,
        places * found.v_place,
        places * found.m_place,
        0 if stored else most * steps[1] * steps[2] * columns * size,
    )
    tap_h, tap_w = (filters.taps[axis] * direction(axes[axis], taps[axis]) for axis in (1, 2))
    how = turner(size, isa)
    read = source(squares, amounts, memory.x, channels, size, lies=False, inner=True)
    written = target(axes, rows, memory.y, tile, columns, size, stored=stored)
    return WinogradPlan(
        together(read, written, found, how),
        together(written, found, how, filters.inner, filters.last),
        channels,
        tile.panels,
        filters,
        tap_h,
        tap_w,
        table([each.codes for each in tilings]),
        table([each.starts for each in tilings]),
        np.zeros(max(tile.width, groups * columns), f"f{size}"),
        pieces,
        groups,
        amounts.threads(threads, limit),
        room,
    )


def code(axes: Axes, steps: list[int], name: str, size: int, isa: Isa) -> int:
    """Where the code of a transform is."""
    along = [getattr(transforms(step, len(axis.taps)), name) for step, axis in zip(steps, axes, strict=True)]
    return address(Square(along[1], along[2], size, biased=name == "output"), isa)


def cut(problem: Problem, squares: Axes, amounts: Amounts) -> tuple[Array, list[int]]:
    """Blocks of squares, each with the place of its number of squares in a list of these numbers."""
    spans = (slices(problem.groups, 1), slices(problem.batch, amounts.images))
    rows = (slices(axis.outputs, count) for axis, count in zip(squares, amounts.rows, strict=False))
    kinds: dict[int, int] = {}
    pieces = []
    for group, *places in product(*spans, *rows):
        counts = [place.stop - place.start for place in places]
        kind = kinds.setdefault(math.prod(counts) * squares[2].outputs, len(kinds))
        starts_and_counts = zip((place.start for place in places), counts, strict=True)
        pieces.append((group.start, *(number for pair in starts_and_counts for number in pair), kind))
    return np.array(pieces, np.int64).reshape(-1, 8), list(kinds)


def table(rows: list[Array]) -> Array:
    """Rows of different lengths, filled up with zeros."""
    found = np.zeros((len(rows), max((len(row) for row in rows), default=0)), np.int64)
    for place, row in enumerate(rows):
        found[place, : len(row)] = row
    return found


def run_winograd(what: WinogradPlan, x: int, w: int, bias: Array | None, out: int) -> None:
    """Run a planned convolution on arrays at these addresses."""
    biases = (what.zeros if bias is None else np.ascontiguousarray(bias)).ctypes.data
    with arena:
        u = arena.reserve(what.room.u)
        run(
            partial(transformed, what, w, u),
            what.groups * what.panels,
            what.threads if what.room.u > PACK_SERIAL else 1,
        )
        run(partial(convolved, what, x, u, biases, out), len(what.pieces), what.threads)


def transformed(what: WinogradPlan, w: int, u: int, begin: int, end: int) -> None:
    """Transform some of the panels of weights."""
    filters = what.filters
    with arena:
        transform_weights(
            *(what.packing, begin, end, filters.from_group, filters.from_panel),
            *(what.channels, filters.depth, what.tap_h, what.tap_w, w, arena.reserve(what.room.panel), u),
        )


def convolved(what: WinogradPlan, x: int, u: int, biases: int, out: int, begin: int, end: int) -> None:
    """Compute some of the pieces."""
    room = what.room
    with arena:
        convolve(
            *(what.numbers, what.codes, what.starts, what.pieces),
            *(begin, end, x, u, biases, what.zeros.ctypes.data, out),
            *(arena.reserve(size) for size in (room.block, room.v, room.m, room.results)),
        )


@lru_cache(maxsize=512)
def squares_plan(spec: ConvSpec, x: Ints, w: Ints, out: Ints, limit: int, threads: int) -> WinogradPlan:
    """The plan of a convolution by squares."""
    problem, memory = forward(spec, x, w, out)
    return winograd_plan(problem, forward_axes(spec), memory, limit, threads, host())


@lru_cache(maxsize=512)
def squares_grad_plan(spec: ConvSpec, dy: Ints, w: Ints, out: Ints, limit: int, threads: int) -> WinogradPlan:
    """The plan of an input gradient by squares."""
    problem, memory = backward(spec, dy, w, out)
    return winograd_plan(problem, input_grad_axes(spec)[0], memory, limit, threads, host())


def winograd(spec: ConvSpec, x: Array, w: Array, b: Array | None, *, out: Array, resources: Resources) -> None:
    """Correlate by squares."""
    how = (resources.max_workspace, usable(resources.threads, spec.flops))
    found = squares_plan(spec, x.strides, w.strides, out.strides, *how)
    run_winograd(found, x.ctypes.data, w.ctypes.data, b, out.ctypes.data)


def winograd_input_grad(spec: ConvSpec, dy: Array, w: Array, *, out: Array, resources: Resources) -> None:
    """Correlate by squares."""
    how = (resources.max_workspace, usable(resources.threads, spec.flops))
    found = squares_grad_plan(spec, dy.strides, w.strides, out.strides, *how)
    run_winograd(found, dy.ctypes.data, w.ctypes.data, None, out.ctypes.data)
