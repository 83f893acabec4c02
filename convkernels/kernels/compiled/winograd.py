"""Convolution by fewer multiplications: Winograd's algorithm on blocks of the picture, its products by register tiles.

In the names of Lavin and Gray (2016): a picture is cut into squares of m x m outputs, each of which reads n x n cells
(n = m + taps - 1). With U the transformed weights, V the transformed cells and M their products,

    U[xi] = (G g G.T)[xi]      for each input and output channel
    V[xi] = (B.T d B)[xi]      for each square and input channel
    M[xi] = V[xi] U[xi]        a matrix product for each of the n * n places xi
    y     = A.T M A            for each square and output channel

which takes (n / (m * taps))**2 of the multiplications: a quarter for 3 x 3 taps and m = 4. An axis of one tap has m = 1
and is left as it is. A block of squares goes through all steps while it stays in the cache. With dilation there is such
a picture for each remainder: outputs a dilation apart see cells as far apart. The input gradient of a convolution with
strides has one for each remainder of these, with taps of its own. A convolution with strides is the sum of one for each
remainder, whose products are added before they are transformed back.
"""

from __future__ import annotations

import math
from functools import lru_cache, partial
from itertools import product
from typing import NamedTuple

import numpy as np

from ...layout import Array
from ...spec import ConvSpec
from ...views import slices
from ...window import Ints
from .amounts import PANEL, Amounts, squares_amounts
from .axes import Axes, Axis, forward_axes, input_grad_axes, rests_apart
from .blocks import together
from .conv_plans import keep, plan_backward, plan_forward, run_backward, run_forward
from .copies import turner
from .filters import PACK_SERIAL, Tiling, lying, packed, padded, tiling, vectors_for
from .geometry import Target, block_bytes, source, target
from .isa import Isa, host
from .machine import address, tables
from .operands import Memory, Problem, backward, forward, line_of
from .parallel import UNEVEN, run
from .pictures import PLACES, Picture, pictures, winograd_axes
from .scratch import LINE, rounded
from .squares import Squares, convolve, transform_weights
from .toom_cook import transforms
from .transform import Square
from .transform import address as transform_address

CHUNK, SHORTEST = 3 * 2**17, 16
"""Bytes of U that are made at a time right before their tiles run, and the fewest channels whose sums tiles add up."""


class Weights(NamedTuple):
    """U of some of the taps: arguments but for two addresses, their table, where in w and in all U to begin.

    There are panels, bytes to copy one, and the channels of a chunk, and bytes of its U.
    """

    words: Array
    table: Array
    start: int
    offset: int
    panels: int
    room: int
    chunk: int
    u_bytes: int


class Part(NamedTuple):
    """The outputs of pictures that share rows: arguments but for addresses, what they point to, and y's first row."""

    words: Array
    kept: tuple[Array, ...]
    pieces: int
    room: int
    y: int


class WinogradPlan(NamedTuple):
    """Correlations by squares, as far as they are known without data; a `Weighted` plan."""

    parts: tuple[Part, ...]
    weights: tuple[Weights, ...]
    zeros: Array
    threads: int
    bytes: int

    def rearrange(self, w: Array, target: Array | None) -> Array:
        """Transform the weights, if that is not done panel by panel; where they are."""
        if target is None:
            return w
        threads = self.threads if self.bytes > PACK_SERIAL else 1
        for each in self.weights:
            words = each.words.copy()
            words[-2:] = address(w) + each.start, address(target) + each.offset
            run(transform_weights, words, each.panels, threads, each.room)
        return target

    def compute(self, x: Array, weights: Array, bias: Array | None, out: Array) -> None:
        """Correlate by transformed weights."""
        given = self.zeros if bias is None else np.ascontiguousarray(bias)
        at = address(weights) + (0 if self.bytes else self.weights[0].start)
        for each in self.parts:
            words = each.words.copy()
            words[-4:] = address(x), at, address(given), address(out) + each.y
            run(convolve, words, each.pieces, self.threads, each.room)


def winograd_plan(
    problem: Problem, every: tuple[Axes, ...], memory: Memory, limit: int, threads: int, isa: Isa, *, kept: bool = False
) -> WinogradPlan:
    """Plan the correlations along some axes, each with its own taps of w, transformed for one call or `kept`."""
    batch, groups, channels, columns, _, size = problem
    chosen = squares_amounts(every, batch, groups, channels, columns, size, limit, threads)
    zeros = np.zeros(groups * columns + PANEL // size, f"f{size}")
    late = None if kept else late_of(problem, every, chosen[0].bytes(threads, limit), limit, threads, isa)
    threads = min(each.threads(threads, limit) for each in chosen)
    sharing = list(zip(pictures(every), [late.amounts] if late else chosen, strict=True))
    # All share the width of panels.
    most = max(rows_of(one, amounts) for rows, amounts in sharing for one in rows)
    vectors = vectors_for(most, columns, size, isa)
    tile, weights, starts, u = tiling((most,), columns, vectors, size, isa), list[Weights](), {}, 0
    for one in sorted({one.number: one for rows, _ in sharing for one in rows}.values()):
        squares, starts[one.number] = squares_of(problem, one, most, 1, tile, late.chunk if late else 0, isa), u
        for number, phase in enumerate(one.sources):
            begin = u + number * channels * squares.u_channel
            weights.append(weights_of(problem, phase.axes, one.taps, memory, tile, squares, begin, isa))
        u += groups * squares.u_group
    making = (tuple(weights), late.shares) if late else None
    parts = tuple(
        part(problem, rows, memory, amounts, vectors, address(zeros), starts, isa, making) for rows, amounts in sharing
    )
    return WinogradPlan(parts, tuple(weights), zeros, threads, 0 if late else u)


class Late(NamedTuple):
    """Chunks of panels of U, made right before their tiles run.

    That is how much to work on at a time, the channels of a chunk, and how many threads share the panels of a group.
    """

    amounts: Amounts
    chunk: int
    shares: int


def late_of(
    problem: Problem, every: tuple[Axes, ...], promised: int, limit: int, threads: int, isa: Isa
) -> Late | None:
    """How to make U late, if each panel is of use for one block, and threads share them evenly in what was promised."""
    batch, groups, channels, columns, _, size = problem
    [rows, *others] = pictures(every)
    [one, *more], shares = rows, -(-threads // groups)
    [alone, *_] = squares_amounts(every, batch, groups, channels, columns, size, limit, 1)
    if others or more or not alone.are_all(batch, one.squares):
        return None
    most, places = rows_of(one, alone), math.prod(axis.span for axis in one.squares)
    tile = tiling((most,), columns, vectors_for(most, columns, size, isa), size, isa)
    each = places * min(tile.width, columns) * size
    chunk = chunk_of(channels, each)
    even = -(-tile.panels // shares) * tile.width * shares <= UNEVEN * columns
    room = threads * (alone.each + chunk * each + 2 * LINE * places) <= promised
    return Late(alone, chunk, shares) if room and (shares == 1 or even) else None


def weights_of(
    problem: Problem, axes: Axes, taps: Ints, memory: Memory, tile: Tiling, squares: Squares, offset: int, isa: Isa
) -> Weights:
    """Where to read the taps of some axes, and to write their U, as if there were so many; a chunk at a time."""
    _, groups, channels, columns, _, size = problem
    channels = min(channels, squares.chunk)
    steps = [axis.taps[1][0] - axis.taps[0][0] if len(axis.taps) > 1 else 1 for axis in axes]
    lowest = [min(axis.taps[0][0], axis.taps[-1][0]) for axis in axes]
    counts, apart = [len(axis.taps) for axis in axes], memory.w[2:]
    strides = (*memory.w[:2], *(abs(step) * stride for step, stride in zip(steps, apart, strict=True)))
    start = sum(place * stride for place, stride in zip(lowest, apart, strict=True))
    line = line_of(memory, problem.taps, size)
    if memory.w[0] == size:
        filters = lying(strides, memory.w_group, start, tile, size)._replace(panel=0)
    else:
        order = (1, 2, 3, 4) if abs(memory.w[1]) > abs(memory.w[4]) else (2, 3, 4, 1)
        filters = packed(strides, memory.w_group, start, (columns, channels, *counts), groups, tile, size, order)
    # Where a gradient takes the taps in reverse, it begins with the last.
    tap_h, tap_w = (filters.taps[axis] * (1 if steps[axis] > 0 else -1) for axis in (1, 2))
    transforming = squares._replace(weights=code(axes, taps, "filter", size, isa))
    table = together(
        (tile.panels, tile.width, tile.last), transforming, turner(size, isa, line), filters.inner, filters.last
    )
    reverse = sum((counts[axis] - 1) * filters.taps[axis] for axis in (1, 2) if steps[axis] < 0)
    given = (filters.from_group, filters.from_panel, channels, filters.depth, tap_h, tap_w, channels * memory.w[1])
    words = np.array([*tables(table), *given, filters.bytes, reverse, 0, 0], np.int64)
    made = squares.chunk, rounded(squares.u_panel)
    return Weights(words, table, filters.start, offset, groups * tile.panels, filters.panel, *made)


def rows_of(one: Picture, amounts: Amounts) -> int:
    """The squares of a block, which are the rows of its products."""
    return amounts.images * math.prod(amounts.rows) * one.squares[2].outputs


def chunk_of(channels: int, each: int) -> int:
    """How many channels to transform at a time, of so many bytes each in U.

    Examples
    --------
    >>> chunk_of(512, 36 * 64 * 4), chunk_of(3, 2**20), chunk_of(37, 36 * 64 * 4)
    (32, 3, 37)
    """
    fitting = (chunk for chunk in range(SHORTEST, channels + 1) if channels % chunk == 0 and chunk * each <= CHUNK)
    return max(fitting, default=channels)


def squares_of(problem: Problem, one: Picture, most: int, kinds: int, tile: Tiling, chunk: int, isa: Isa) -> Squares:
    """Describe the squares of a picture, at most so many in a block, and U: a chunk at a time or, for 0, all of it."""
    columns, size, axes, taps, squares = problem.columns, problem.size, one.axes, one.taps, one.squares
    sources, steps = len(one.sources), [axis.step for axis in squares]
    places, row, depth = squares[1].span * squares[2].span, min(tile.width, columns) * size, sources * problem.channels
    # Places an odd number of lines apart do not share sets of the cache.
    chunk = chunk or depth
    v_place, m_place, u_place = (
        rounded(place) | LINE for place in (most * depth * size, most * tile.width * size, chunk * row)
    )
    return Squares(
        *(squares[1].span, squares[2].span, steps[1], steps[2], squares[2].outputs, axes[1].outputs),
        *(v_place, m_place, u_place, row, places * u_place, tile.panels * places * u_place),
        *(kinds, sources, depth, depth * size, chunk),
        *(code(axes, taps, name, size, isa) for name in ("source", "filter", "output")),
    )


class Described(NamedTuple):
    """One of the pictures that share rows: its arguments but for where to begin, their tables, and bytes of scratch."""

    words: list[int]
    tables: tuple[Array, ...]
    room: int


def part(
    problem: Problem,
    rows: tuple[Picture, ...],
    memory: Memory,
    amounts: Amounts,
    vectors: int,
    zero: int,
    u: dict[int, int],
    isa: Isa,
    late: tuple[tuple[Weights, ...], int] | None,
) -> Part:
    """Put the numbers of pictures that share rows together; panels of U may be made `late`, and so many share them.

    Of several sources the arguments for that follow each other, and say how much further in w than the first it begins.
    """
    (d, h, _), squares = rows[0].axes, rows[0].squares
    columns, size = problem.columns, problem.size
    total = sum(one.axes[2].outputs for one in rows)
    whole, tile = (d, h, Axis(total, 1, ((0, 0),), total)), tiling((1,), columns, vectors, size, isa)
    counts = amounts._replace(rows=(amounts.rows[0], amounts.rows[1] * squares[1].step))
    written = target(whole, counts, memory.y, tile, columns, size, stored=memory.y.channel == size or columns == 1)
    made, shares = late or ((), 1)
    chunk = made[0].chunk if made else 0
    pieces, kinds = cut(problem, squares, amounts, slices(tile.panels, -(-tile.panels // shares)))
    described, numbers = [], list[int]()
    for one in rows:
        w = one.axes[2]
        kept = written._replace(kept_w=written.kept_w * w.stride, outs_w=w.outputs)
        described.append(describe(problem, one, memory, amounts, vectors, kinds, kept, chunk, isa))
        numbers += [*described[-1].words, u[one.number], w.first * written.kept_w]
    room = max(one.room for one in described)
    results = 0 if written.stored else rounded(written.kept_image * amounts.images)
    about = together(written, (squares[1].step, h.outputs, columns * size), turner(size, isa))
    makings = np.array([each.words for each in made], np.int64)
    if made:
        makings[:, -2] = [each.start - made[0].start for each in made]
    every = (about, pieces.reshape(-1), np.array(numbers, np.int64))
    behind, making, of_u = room + results, address(makings) if made else 0, made[0].u_bytes if made else 0
    words = np.array([*tables(*every), room, zero, making, behind, behind + of_u, 0, 0, 0, 0], np.int64)
    y = sum(axis.first * stride for axis, stride in zip((d, h), memory.y[3:], strict=False))
    kept_tables = (*every, makings, *(table for one in described for table in one.tables))
    return Part(words, kept_tables, len(pieces), behind + of_u + max((each.room for each in made), default=0), y)


def describe(
    problem: Problem,
    one: Picture,
    memory: Memory,
    amounts: Amounts,
    vectors: int,
    kinds: list[int],
    written: Target,
    chunk: int,
    isa: Isa,
) -> Described:
    """Put the numbers of one picture together."""
    channels, columns, size, most = problem.channels, problem.columns, problem.size, rows_of(one, amounts)
    tile = tiling((most,), columns, vectors, size, isa)
    found = squares_of(problem, one, most, len(kinds), tile, chunk, isa)
    tilings = [tiling((count * one.squares[2].outputs,), columns, vectors, size, isa) for count in kinds]
    places = found.places_h * found.places_w
    v, m = rounded(places * found.v_place), rounded(places * found.m_place)
    sources, block = list[tuple[int, ...]](), 0
    for phase in one.sources:
        squares = winograd_axes(phase.axes, one.taps)
        strides = {axis: getattr(memory.x, axis) * step for axis, step in zip("dhw", phase.spread, strict=True)}
        read = source(squares, amounts, memory.x._replace(**strides), channels, size, lies=False, inner=True)
        block = max(block, block_bytes(read, squares, amounts))
        sources += [read, (sum(first * stride for first, stride in zip(phase.first, memory.x[3:], strict=True)),)]
    codes = padded([half for each in tilings for half in np.split(each.codes, 2)])
    starts = padded([each.starts for each in tilings])
    every = (together(found, written, *sources), codes.reshape(-1), starts.reshape(-1))
    return Described([*tables(*every), block, block + v], every, block + v + m)


def code(axes: Axes, taps: Ints, name: str, size: int, isa: Isa) -> int:
    """Where the code of a transform is, for so many taps, of which the filter's reads only those that there are."""
    along = []
    for axis, count in zip(axes, taps, strict=True):
        step = PLACES[count] - count + 1 if count > 1 else 1
        first, *others = getattr(transforms(step, count), name)
        if name == "filter":
            first = tuple(row[: len(axis.taps)] for row in first)
        along.append((first, *others))
    return transform_address(Square(along[1], along[2], size, biased=name == "output"), isa)


def cut(problem: Problem, squares: Axes, amounts: Amounts, panels: list[slice]) -> tuple[Array, list[int]]:
    """Blocks of rows of squares, each with the place of its number of rows in a list of these numbers, and panels."""
    spans = (slices(problem.groups, 1), slices(problem.batch, amounts.images))
    rows = (slices(axis.outputs, count) for axis, count in zip(squares, amounts.rows, strict=False))
    kinds: dict[int, int] = {}
    pieces = []
    for group, *places, some in product(*spans, *rows, panels):
        counts = [place.stop - place.start for place in places]
        kind = kinds.setdefault(math.prod(counts), len(kinds))
        starts_and_counts = zip((place.start for place in places), counts, strict=True)
        numbers = (number for pair in starts_and_counts for number in pair)
        pieces.append((group.start, *numbers, kind, some.start, some.stop))
    return np.array(pieces, np.int64).reshape(-1, 10), list(kinds)


@lru_cache(maxsize=512)
def squares_plan(
    spec: ConvSpec, x: Ints, w: Ints, out: Ints, limit: int, threads: int, *, kept: bool = False
) -> WinogradPlan:
    """The plan of a convolution by squares."""
    problem, memory = forward(spec, x, w, out)
    return winograd_plan(problem, (forward_axes(spec),), memory, limit, threads, host(), kept=kept)


@lru_cache(maxsize=512)
def squares_grad_plan(
    spec: ConvSpec, dy: Ints, w: Ints, out: Ints, limit: int, threads: int, *, kept: bool = False
) -> WinogradPlan:
    """The plan of an input gradient by squares."""
    problem, memory = backward(spec, dy, w, out)
    return winograd_plan(problem, rests_apart(input_grad_axes(spec)), memory, limit, threads, host(), kept=kept)


winograd = partial(run_forward, squares_plan)
winograd_transpose = partial(run_forward, squares_grad_plan)
winograd_input_grad = partial(run_backward, squares_grad_plan)
plan_winograd = partial(plan_forward, squares_plan)
plan_input_grad = partial(plan_backward, squares_grad_plan)
plan_transpose = partial(plan_forward, squares_grad_plan)
keep_winograd, keep_backward = (partial(keep, partial(find, kept=True)) for find in (squares_plan, squares_grad_plan))
