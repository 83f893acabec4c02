"""Convolution by fewer multiplications: Winograd's algorithm on blocks of the picture, its products by register tiles.

In the names of Lavin and Gray (2016): a picture is cut into squares of m x m outputs, each of which reads n x n cells
(n = m + taps - 1). With U the transformed weights, V the transformed cells and M their products,

    U[xi] = (G g G.T)[xi]      for each input and output channel
    V[xi] = (B.T d B)[xi]      for each square and input channel
    M[xi] = V[xi] U[xi]        a matrix product for each of the n * n places xi
    y     = A.T M A            for each square and output channel

which takes (n / (m * taps))**2 of the multiplications: a quarter for 3 x 3 taps and m = 4. An axis of one tap has m = 1
and is left as it is. A block of squares goes through all steps while it stays in the cache. With dilation there are
such pictures for each remainder: outputs a dilation apart see cells as far apart.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numba
import numpy as np
from numba import types

from ...config import Resources
from ...layout import Array
from ...spec import ConvSpec, ConvTransposeSpec
from ...views import slices
from ...window import Ints
from .amounts import Amounts, winograd_amounts
from .axes import Axes, Phase, direction, forward_axes, input_grad_axes, phases, winograd_axes
from .blocks import (
    COPIES,
    PIECE,
    SOURCE,
    SOURCES,
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
from .filters import PACK_SERIAL, Tiling, packed, tiling, vectors_for
from .geometry import Piece, Source, Target, block_bytes, source, target
from .isa import Isa, host
from .machine import address, array_in, entry, fixed, invoke, tables, words_at
from .operands import Memory, Problem, backward, forward
from .parallel import run
from .scratch import LINE, rounded
from .thread_count import now_usable
from .toom_cook import transforms
from .transform import Square
from .transform import address as transform_address
from .weighted import execute


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


@entry
def transform_weights(words: int, begin: int, end: int, panel_of_w: int) -> None:
    """U of some panels of all groups' weights, each copied first with its output channels innermost.

    The arguments are a table, strides of w between groups and panels, channels, strides of a panel between channels and
    taps, and two addresses.
    """
    given = words_at(words, 10)
    numbers, from_group, from_panel = array_in(given, 0), given[2], given[3]
    channels, channel, row, column, w, u = given[4], given[5], given[6], given[7], given[8], given[9]
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


@entry
def convolve(words: int, begin: int, end: int, block: int) -> None:
    """Compute some of the pieces.

    The arguments are four tables, the tiles of a row of the third, the bytes of a block, V and M, which follow each
    other in memory and are followed by results, the address of zeros, and four more.
    """
    given = words_at(words, 17)
    numbers, codes, starts, pieces = array_in(given, 0), array_in(given, 1), array_in(given, 2), array_in(given, 3)
    tiles, v = given[8], block + given[9]
    m = v + given[10]
    results = m + given[11]
    zero, x, u, biases, out = given[12], given[13], given[14], given[15], given[16]
    s, t = Source(*fixed(numbers, SOURCES)), Target(*fixed(numbers[SOURCES:], TARGETS))
    rest = numbers[SOURCES + TARGETS :]
    q, how = Squares(*fixed(rest, PLACED)), Turner(*fixed(rest[PLACED:], TURNERS))
    line, width = s.channels * s.size, t.width * t.size
    for place in range(begin, end):
        piece, kind = Piece(*fixed(pieces[8 * place :], 7)), pieces[8 * place + 7]
        target = out + piece.group * t.group + piece.image * t.image + piece.d * t.d + piece.h * q.outs_h * t.h
        fill(s, how, piece, x + piece.group * s.group + piece.image * s.image, block)
        transform_source(s, q, piece, block, v)
        kept = target if t.stored else results
        for panel in range(t.panels):
            is_last = panel == t.panels - 1
            columns, code = (t.last, (2 * kind + 1) * tiles) if is_last else (t.width, 2 * kind * tiles)
            b = u + piece.group * q.u_group + panel * q.u_panel
            for xi in range(q.places_h * q.places_w):
                for n in range(tiles):
                    if codes[code + n]:
                        first = starts[kind * tiles + n]
                        invoke(
                            codes[code + n],
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


class Part(NamedTuple):
    """The outputs of one phase: arguments but for addresses, what they point to, and where in x and y to begin."""

    words: Array
    kept: tuple[Array, ...]
    pieces: int
    room: int
    x: int
    y: int


class WinogradPlan(NamedTuple):
    """A convolution by squares, as far as it is known without data; a `Weighted` plan.

    Arguments lack some addresses at the end; `kept` is what they point to. There are bytes for U, and for each thread
    some to transform weights.
    """

    parts: tuple[Part, ...]
    packing: Array
    kept: Array
    zeros: Array
    start: int
    panels: int
    threads: int
    bytes: int
    panel: int

    def rearrange(self, w: Array, target: int) -> int:
        """Transform the weights; where they are."""
        words = self.packing.copy()
        words[-2:] = address(w) + self.start, target
        run(transform_weights, words, self.panels, self.threads if self.bytes > PACK_SERIAL else 1, self.panel)
        return target

    def compute(self, x: Array, weights: int, bias: Array | None, out: Array) -> None:
        """Convolve by transformed weights."""
        given = self.zeros if bias is None else np.ascontiguousarray(bias)
        for each in self.parts:
            words = each.words.copy()
            words[-4:] = (address(x) + each.x, weights, address(given), address(out) + each.y)
            run(convolve, words, each.pieces, self.threads, each.room)


def winograd_plan(problem: Problem, axes: Axes, memory: Memory, limit: int, threads: int, isa: Isa) -> WinogradPlan:
    """Plan a convolution along some axes."""
    batch, groups, channels, columns, taps, size = problem
    every = phases(axes)
    sizes = (batch, groups, channels, columns, size, limit, threads)
    chosen = [winograd_amounts(phase.axes, *sizes) for phase in every]
    # All phases share U, and with it the width of panels.
    most = max(rows_of(phase.axes, amounts) for phase, amounts in zip(every, chosen, strict=True))
    vectors = vectors_for(most, columns, size, isa)
    tile = tiling((most,), columns, vectors, size, isa)
    order = (1, 2, 3, 4) if abs(memory.w[1]) > abs(memory.w[4]) else (2, 3, 4, 1)
    filters = packed(memory.w, memory.w_group, 0, (columns, channels, *taps), groups, tile, size, order)
    zeros = np.zeros(max(tile.width, groups * columns), f"f{size}")
    parts = tuple(
        part(problem, phase, memory, amounts, vectors, address(zeros), isa)
        for phase, amounts in zip(every, chosen, strict=True)
    )
    dense = every[0].axes
    found = squares_of(problem, dense, most, tile, isa)
    tap_h, tap_w = (filters.taps[axis] * direction(dense[axis], taps[axis]) for axis in (1, 2))
    written = target(dense, chosen[0], memory.y, tile, columns, size, stored=True)
    packing = together(written, found, turner(size, isa), filters.inner, filters.last)
    strides = (filters.from_group, filters.from_panel, channels, filters.depth, tap_h, tap_w)
    return WinogradPlan(
        *(parts, np.array([*tables(packing), *strides, 0, 0], np.int64), packing, zeros),
        *(filters.start, groups * tile.panels, min(amounts.threads(threads, limit) for amounts in chosen)),
        *(groups * found.u_group, filters.panel),
    )


def rows_of(axes: Axes, amounts: Amounts) -> int:
    """The squares of a block, which are the rows of its products."""
    return amounts.images * math.prod(amounts.rows) * winograd_axes(axes)[2].outputs


def squares_of(problem: Problem, axes: Axes, most: int, tile: Tiling, isa: Isa) -> Squares:
    """Describe the squares of some axes, at most so many in a block."""
    _, _, channels, columns, taps, size = problem
    squares = winograd_axes(axes)
    steps = [axis.step for axis in squares]
    places, row = squares[1].span * squares[2].span, min(tile.width, columns) * size
    return Squares(
        *(squares[1].span, squares[2].span, steps[1], steps[2], taps[1], taps[2], squares[2].outputs, axes[1].outputs),
        *(most * channels * size, most * tile.width * size, channels * row, row),
        *(places * channels * row, tile.panels * places * channels * row, columns * size),
        *(code(axes, steps, name, size, isa) for name in ("source", "filter", "output")),
    )


def part(problem: Problem, phase: Phase, memory: Memory, amounts: Amounts, vectors: int, zero: int, isa: Isa) -> Part:
    """Put the numbers of one phase together."""
    channels, columns, size, axes = problem.channels, problem.columns, problem.size, phase.axes
    squares, most = winograd_axes(axes), rows_of(axes, amounts)
    _, steps_h, steps_w = (axis.step for axis in squares)
    tile = tiling((most,), columns, vectors, size, isa)
    stored = memory.y.channel == size or columns == 1
    found = squares_of(problem, axes, most, tile, isa)
    pieces, kinds = cut(problem, squares, amounts)
    tilings = [tiling((count,), columns, vectors, size, isa) for count in kinds]
    places = found.places_h * found.places_w
    v, m = rounded(places * found.v_place), rounded(places * found.m_place)
    results = 0 if stored else rounded(most * steps_h * steps_w * columns * size)
    x = memory.x._replace(
        **{axis: getattr(memory.x, axis) * step for axis, step in zip("dhw", phase.spread, strict=True)}
    )
    read = source(squares, amounts, x, channels, size, lies=False, inner=True)
    block = block_bytes(read, squares, amounts)
    rows = amounts._replace(rows=(amounts.rows[0], amounts.rows[1] * steps_h))
    written = target(axes, rows, memory.y, tile, columns, size, stored=stored)
    codes = padded([half for each in tilings for half in np.split(each.codes, 2)])
    starts = padded([each.starts for each in tilings])
    every = (
        together(read, written, found, turner(size, isa)),
        codes.reshape(-1),
        starts.reshape(-1),
        pieces.reshape(-1),
    )
    words = np.array([*tables(*every), codes.shape[1], block, v, m, zero, 0, 0, 0, 0], np.int64)
    x_offset = sum(first * stride for first, stride in zip(phase.first, memory.x[3:], strict=True))
    y_offset = sum(axis.first * stride for axis, stride in zip(axes, memory.y[3:], strict=True))
    return Part(words, every, len(pieces), block + v + m + results, x_offset, y_offset)


def code(axes: Axes, steps: list[int], name: str, size: int, isa: Isa) -> int:
    """Where the code of a transform is."""
    along = [getattr(transforms(step, len(axis.taps)), name) for step, axis in zip(steps, axes, strict=True)]
    return transform_address(Square(along[1], along[2], size, biased=name == "output"), isa)


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


def padded(rows: list[Array]) -> Array:
    """Rows of different lengths, filled up with zeros."""
    found = np.zeros((len(rows), max((len(row) for row in rows), default=0)), np.int64)
    for place, row in enumerate(rows):
        found[place, : len(row)] = row
    return found


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
    how = (resources.max_workspace, now_usable(resources.threads, spec.flops))
    execute(squares_plan(spec, x.strides, w.strides, out.strides, *how), x, w, b, out)


def winograd_transpose(
    spec: ConvTransposeSpec, x: Array, w: Array, b: Array | None, *, out: Array, resources: Resources
) -> None:
    """Correlate by squares as an input gradient does, with a bias."""
    convolution = spec.convolution
    how = (resources.max_workspace, now_usable(resources.threads, convolution.flops))
    execute(squares_grad_plan(convolution, x.strides, w.strides, out.strides, *how), x, w, b, out)


def winograd_input_grad(spec: ConvSpec, dy: Array, w: Array, *, out: Array, resources: Resources) -> None:
    """Correlate by squares."""
    how = (resources.max_workspace, now_usable(resources.threads, spec.flops))
    execute(squares_grad_plan(spec, dy.strides, w.strides, out.strides, *how), dy, w, None, out)
