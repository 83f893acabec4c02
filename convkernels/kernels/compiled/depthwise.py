"""Depthwise convolution: each channel by itself, in stencils on the data as they lie.

    y[n, c * m + j, o] = bias[c * m + j] + sum over taps t of x[n, c, o * stride + t * dilation - lo] * w[c * m + j, t]

With channels innermost a vector holds channels, and a stencil's accumulators are outputs next to each other; else it holds
outputs of a row, and an array whose rows have gaps is copied first. An input gradient is the same with other cells (see
`reach`), and a sum over j. A weight gradient has the taps in its accumulators; each sum belongs to one thread, which adds
images and rows in their order.
"""

from __future__ import annotations

import ctypes
import math
from functools import lru_cache, partial
from itertools import product
from typing import NamedTuple

import numba
import numpy as np
from numba import types

from ...layout import Array
from ...views import slices
from ...window import Ints
from .axes import contiguous
from .blocks import TABLE, WORD, words
from .copies import COPY, TURNER, Copy, Turner, copy_array, copy_plan, turner
from .isa import Isa
from .machine import clear_bytes, invoke
from .parallel import run
from .reach import Reach, Reaches, cut
from .scratch import arena
from .stencil import Place, Read, Shape, address, fold_address


class Steps(NamedTuple):
    """What a thread's loops add to addresses, in bytes, and what they pass on to the stencils."""

    x_image: int
    x_channel: int
    y_image: int
    y_channel: int
    w_channel: int
    bias_channel: int
    # What one channel of x has several of in y: how many, and their strides.
    repeats: int
    y_repeat: int
    w_repeat: int
    bias_repeat: int
    # Rows of cells, and strides of both arrays and of taps, as stencils take them.
    rows: int
    x_h: int
    x_w: int
    w_h: int
    w_w: int
    y_h: int
    y_w: int
    # The channels in a vector and its bytes, where lanes are channels; else 0.
    across: int
    width: int
    # Whether x and y are copied: 1 for y to be written, -1 for one that is read. The images; channels at a time.
    copy_x: int
    copy_y: int
    x_from_image: int
    x_from_channel: int
    y_from_image: int
    y_from_channel: int
    images: int
    chunk: int


class Copies(NamedTuple):
    """How the channels of x and y that are worked on at a time are copied, and the last of them."""

    x: Copy
    x_last: Copy
    y: Copy
    y_last: Copy


STEPS = words(Steps)
COPIES = types.NamedUniTuple(COPY, len(Copies._fields), Copies)
SCENE = (STEPS, COPIES, TURNER, TABLE, TABLE, TABLE, TABLE)


@numba.njit(types.void(*SCENE, *[WORD] * 8), nogil=True, cache=True)  # type: ignore[untyped-decorator]
def sweep(
    s: Steps,
    copies: Copies,
    how: Turner,
    jobs: Array,
    visits: Array,
    planes: Array,
    pieces: Array,
    number: int,
    image: int,
    x: int,
    w: int,
    y: int,
    bias: int,
    x_block: int,
    y_block: int,
) -> None:
    """Run the stencils of one piece of an image, with copies of x and y where these are needed."""
    piece = pieces[number]
    channel, channels = piece[0], piece[1]
    source, target = x + image * s.x_image + channel * s.x_channel, y + image * s.y_image + channel * s.y_channel
    array = y + image * s.y_from_image + channel * s.y_from_channel
    if s.copy_x:
        source, origin = x_block, x + image * s.x_from_image + channel * s.x_from_channel
        if channels == s.chunk:
            copy_array(how, copies.x, source, origin)
        else:
            copy_array(how, copies.x_last, source, origin)
    if s.copy_y:
        target = y_block
    if s.copy_y < 0:
        if channels == s.chunk:
            copy_array(how, copies.y, target, array)
        else:
            copy_array(how, copies.y_last, target, array)
    vectors = -(-channels // s.across) if s.across else 0
    for visit in range(piece[2], piece[3]):
        table = planes.ctypes.data + 16 * visits[visit, 1]
        for place in range(piece[4], piece[5]):
            job = jobs[place]
            tiles = (job[4], job[5], job[6], 0, job[7], 0)
            lanes = (vectors, 0, s.width, s.width, s.width, s.width)
            apart = (channels, 0, s.x_channel, s.w_channel, s.y_channel, s.bias_channel)
            inner, outer = (lanes, tiles) if s.across else (tiles, apart)
            for j in range(s.repeats):
                invoke(
                    job[0],
                    (
                        *(source + job[1], w + j * s.w_repeat, target + job[2] + visits[visit, 0] + j * s.y_repeat),
                        *(bias + j * s.bias_repeat, table, visits[visit, 2], job[3], s.rows),
                        *(s.x_h, s.x_w, s.w_h, s.w_w, s.y_h, s.y_w, channels),
                        *inner,
                        *outer,
                    ),
                )
    if s.copy_y > 0:
        if channels == s.chunk:
            copy_array(how, copies.y, array, target)
        else:
            copy_array(how, copies.y_last, array, target)


@numba.njit(types.void(*SCENE, *[WORD] * 8), nogil=True, cache=True)  # type: ignore[untyped-decorator]
def convolve(
    s: Steps,
    copies: Copies,
    how: Turner,
    jobs: Array,
    visits: Array,
    planes: Array,
    pieces: Array,
    begin: int,
    end: int,
    x: int,
    w: int,
    y: int,
    bias: int,
    x_block: int,
    y_block: int,
) -> None:
    """Compute some of the pieces of all images."""
    for place in range(begin, end):
        image, number = place // len(pieces), place % len(pieces)
        channel = pieces[number, 0]
        sweep(
            *(s, copies, how, jobs, visits, planes, pieces, number, image),
            *(x, w + channel * s.w_channel, y, bias + channel * s.bias_channel, x_block, y_block),
        )


@numba.njit(types.void(*SCENE, *[WORD] * 9), nogil=True, cache=True)  # type: ignore[untyped-decorator]
def weigh(
    s: Steps,
    copies: Copies,
    how: Turner,
    jobs: Array,
    visits: Array,
    planes: Array,
    pieces: Array,
    begin: int,
    end: int,
    x: int,
    sums: int,
    y: int,
    x_block: int,
    y_block: int,
    lanes: int,
    fold: int,
) -> None:
    """Sum over all images for the channels of some pieces, in `lanes` that are added last where these are outputs."""
    for number in range(begin, end):
        channel, channels = pieces[number, 0], pieces[number, 1]
        total = sums + channel * s.w_channel
        if not s.across:
            total = lanes
            clear_bytes(lanes, channels * s.w_channel)
        for image in range(s.images):
            sweep(
                *(s, copies, how, jobs, visits, planes, pieces, number, image),
                *(x, total, y, 0, x_block, y_block),
            )
        if not s.across:
            vectors, size = channels * s.w_channel // s.width, how.size
            target = sums + channel * s.w_channel // s.width * size
            invoke(fold, (lanes, target, vectors))


class DepthwisePlan(NamedTuple):
    """A depthwise operation as far as it is known without data."""

    steps: Steps
    copies: Copies
    turner: Turner
    jobs: Array
    visits: Array
    planes: Array
    pieces: Array
    zeros: Array
    threads: int
    x_block: int
    y_block: int
    # Weights in the order in which stencils take them, or their sums: bytes, and the copy to or from w's own order.
    weights: int
    copy: Copy | None
    lanes: int
    fold: int


class Task(NamedTuple):
    """What is computed: outputs, or weights; images, channels, how many outputs each has, taps, bytes of an element."""

    weights: bool
    batch: int
    channels: int
    multiplier: int
    taps: Ints
    size: int


class Lying(NamedTuple):
    """An array's strides in bytes; that of its channels, and how many of them belong to one channel."""

    image: int
    channel: int
    d: int
    h: int
    w: int
    several: int


class Form(NamedTuple):
    """What the stencils of a plan have in common: whether lanes are channels, their number, bytes of an element; what is summed."""

    across: bool
    lanes: int
    size: int
    weights: bool


def places(reach: Reach, start: int, count: int, form: Form) -> tuple[Place, ...]:
    """The accumulators of a row's outputs."""
    base, found = reach.base(start), []
    if form.across:
        for output in range(count):
            reads = tuple(Read(tap, cell - base, 0, form.lanes) for tap, cell in reach.existing(start + output))
            found.append(Place(output, form.lanes, reads))
        return tuple(found)
    each = form.lanes * reach.spread
    for first in range(0, count, each):
        for phase in range(reach.spread):
            output = first + phase
            kept = max(0, min(form.lanes, -(-(count - output) // reach.spread)))
            reads = []
            for tap, cell in reach.pairs(start + output):
                begin = max(0, -(cell // reach.step))
                end = min(kept, (reach.cells - 1 - cell) // reach.step + 1)
                if begin < end:
                    reads.append(Read(tap, cell - base, begin, end))
            found.append(Place(output, kept, tuple(reads)))
    return tuple(found)


class Grid(NamedTuple):
    """The stencils of an image and channel, and where those of each row of tiles begin in their list."""

    jobs: Array
    starts: Ints


def grid(task: Task, reaches: Reaches, form: Form, x: Lying, y: Lying, isa: Isa, *, apart: bool) -> Grid:
    """Cover the outputs of a plane with stencils; rows of tiles are each by itself, if `apart`."""
    _, h, w = reaches
    most_rows, most_places, tap_rows = room(task, reaches, form, isa)
    rows, count = cut(h.outputs, most_rows, h.spread)
    wide, across = cut(w.outputs, most_places * (1 if form.across else form.lanes * w.spread), w.spread)
    whole = h.outputs // rows
    spans = [(n * rows, rows, 1) for n in range(whole)] if apart else [(0, rows, whole)]
    if whole < count:
        spans.append((whole * rows, h.outputs - whole * rows, 1))
    jobs, starts = [], [0]
    for start, height, tiles in spans:
        base = h.base(start)
        pairs = [tuple((tap, cell - h.base(0)) for tap, cell in h.pairs(row)) for row in range(height)]
        for place in range(across):
            first = place * wide
            outputs = min(wide, w.outputs - first)
            found = places(w, first, outputs, form)
            for group in slices(task.taps[1], tap_rows):
                used = tuple(tuple(pair for pair in row if group.start <= pair[0] < group.stop) for row in pairs)
                shape = Shape(
                    *(used, found, outputs, 0 if form.across else w.step, 0 if form.across else w.spread),
                    *(form.lanes, form.size, form.weights),
                )
                step = h.base(rows)
                jobs.append(
                    (
                        *(address(shape, isa), base * x.h + w.base(first) * x.w, start * y.h + first * y.w),
                        *(base, tiles, step, step * x.h, rows * y.h),
                    )
                )
        starts.append(len(jobs))
    return Grid(np.array(jobs, np.int64).reshape(-1, 8), tuple(starts))


def room(task: Task, reaches: Reaches, form: Form, isa: Isa) -> tuple[int, int, int]:
    """The most rows of a stencil, places of a row, and rows of taps."""
    _, h, w = reaches
    if form.weights:
        tap_rows = max(1, (isa.registers - 6) // task.taps[2])
        return (1, 8, tap_rows) if form.across else (4, 4, tap_rows)
    taps = task.taps[1]
    if form.across:
        return (1, 8, taps)
    return (4, 2, taps)


def lanes_for(outputs: int, size: int, isa: Isa) -> int:
    """The lanes that waste least on a row of outputs: the widest of those."""
    most = isa.lanes(size)
    return min((most, most // 2, most // 4), key=lambda lanes: -(-outputs // max(lanes, 2)) * max(lanes, 2))


@lru_cache(maxsize=128)
def depthwise_plan(
    task: Task, reaches: Reaches, x: Lying, y: Lying, w: Ints, chunk: int, threads: int, isa: Isa
) -> DepthwisePlan:
    """Plan an operation; `w` holds the strides of an output channel and of the taps."""
    weights, batch, channels, multiplier, taps, size = task
    d, h, _ = reaches
    across = multiplier == 1 and channels > 1 and x.channel == size and y.channel == size
    lanes = isa.lanes(size) if across else lanes_for(-(-reaches[2].outputs // reaches[2].spread), size, isa)
    form = Form(across, lanes, size, weights)
    width = lanes * size
    copy_x = not across and x.w != size and reaches[2].cells > 1
    copy_y = not across and y.w != size and reaches[2].outputs > 1
    if across:
        chunk = -(-channels // (threads * lanes)) * lanes if weights else channels
    last = channels - (channels - 1) // chunk * chunk
    plans = []
    read, written = x, y
    for array, copied, shape, back in (
        (x, copy_x, [each.cells for each in reaches], False),
        (y, copy_y, [each.outputs for each in reaches], not weights),
    ):
        for count in (chunk, last):
            sizes = (count * array.several, *shape)
            block, strides = contiguous(sizes, size), array[1:5]
            plans.append(copy_plan(sizes, *((strides, block) if back else (block, strides)), size) if copied else NONE)
    if copy_x:
        read = Lying(0, *contiguous((1, *(each.cells for each in reaches)), size), x.several)
    if copy_y:
        written = Lying(0, *contiguous((1, *(each.outputs for each in reaches)), size), y.several)
    # The order of weights, or of their sums: taps and channels for lanes of channels, the other way round for outputs.
    count = math.prod(taps)
    outer = channels * multiplier
    copy, w_bytes = None, 0
    if across:
        packed = contiguous((*taps, channels), size)
        order = (size, *packed[:3])
        if weights or w[0] != size:
            copy = copy_plan((channels, *taps), *((w, order) if weights else (order, w)), size)
            w_bytes, w = count * channels * size, order
    elif weights:
        order = contiguous((outer, *taps), size)
        copy, w_bytes = copy_plan((outer, *taps), w, order, size), count * outer * size
        w = contiguous((outer, *taps), width)
    found = grid(task, reaches, form, read, written, isa, apart=across or not (copy_x or copy_y or weights))
    steps = Steps(
        *(read.image, read.channel * x.several, written.image),
        *(written.channel * y.several, w[0] * multiplier, size * multiplier),
        *(1 if x.several > 1 else multiplier, written.channel, w[0], size),
        *(h.cells, read.h, read.w if across else size, w[2], w[3], written.h, written.w if across else size),
        *(lanes if across else 0, width, int(copy_x), (-1 if weights else 1) if copy_y else 0),
        *(x.image, x.channel * x.several, y.image, y.channel * y.several, batch, chunk),
    )
    visits, planes = [], []
    for output in range(d.outputs):
        pairs = [
            (cell * read.d + j * read.channel, tap * w[1] + j * w[0])
            for tap, cell in d.existing(output)
            for j in range(x.several)
        ]
        visits += [(output * written.d, len(planes) + n, 1) for n in range(len(pairs))] if weights else [
            (output * written.d, len(planes), len(pairs))
        ]
        planes += pairs
    pieces = []
    parts = slices(len(visits), 1) if across and not weights else [slice(0, len(visits))]
    rows = list(zip(found.starts, found.starts[1:], strict=False)) if across and not weights else [(0, len(found.jobs))]
    for channel, part, row in product(slices(channels, chunk), parts, rows):
        pieces.append((channel.start, channel.stop - channel.start, part.start, part.stop, *row))
    return DepthwisePlan(
        *(steps, Copies(*plans), turner(size, isa), found.jobs),
        *(np.array(visits, np.int64).reshape(-1, 3), np.array(planes, np.int64).reshape(-1, 2)),
        *(np.array(pieces, np.int64), np.zeros(outer, f"f{size}"), threads),
        math.prod(each.cells for each in reaches) * chunk * x.several * size if copy_x else 0,
        math.prod(each.outputs for each in reaches) * chunk * y.several * size if copy_y else 0,
        *(w_bytes, copy, 0 if across or not weights else chunk * multiplier * count * width),
        fold_address(lanes, size, isa) if weights and not across else 0,
    )


NONE = Copy(*[0] * len(Copy._fields))


def run_depthwise(what: DepthwisePlan, x: int, w: int, bias: Array | None, y: int) -> None:
    """Run a planned convolution or input gradient on arrays at these addresses."""
    biases = (what.zeros if bias is None else np.ascontiguousarray(bias)).ctypes.data
    with arena:
        if what.copy is not None:
            packed = arena.reserve(what.weights)
            copy_array(what.turner, what.copy, packed, w)
            w = packed
        run(partial(convolved, what, x, w, y, biases), len(what.pieces) * what.steps.images, what.threads)


def convolved(what: DepthwisePlan, x: int, w: int, y: int, biases: int, begin: int, end: int) -> None:
    """Compute some of the pieces."""
    with arena:
        convolve(
            *(what.steps, what.copies, what.turner, what.jobs, what.visits, what.planes, what.pieces, begin, end),
            *(x, w, y, biases, arena.reserve(what.x_block), arena.reserve(what.y_block)),
        )


def run_depthwise_weights(what: DepthwisePlan, x: int, dy: int, dw: int) -> None:
    """Run a planned weight gradient on arrays at these addresses."""
    assert what.copy is not None, "sums lie in their own order"
    with arena:
        sums = arena.reserve(what.weights)
        ctypes.memset(sums, 0, what.weights)
        run(partial(weighed, what, x, dy, sums), len(what.pieces), what.threads)
        copy_array(what.turner, what.copy, dw, sums)


def weighed(what: DepthwisePlan, x: int, dy: int, sums: int, begin: int, end: int) -> None:
    """Sum over all images for some of the pieces."""
    with arena:
        weigh(
            *(what.steps, what.copies, what.turner, what.jobs, what.visits, what.planes, what.pieces, begin, end),
            *(x, sums, dy, arena.reserve(what.x_block), arena.reserve(what.y_block), arena.reserve(what.lanes)),
            what.fold,
        )
