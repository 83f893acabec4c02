"""Depthwise convolution: each channel by itself, in stencils on the data as they lie.

    y[n, c * m + j, o] = bias[c * m + j] + sum over taps t of x[n, c, o * stride + t * dilation - lo] * w[c * m + j, t]

With channels innermost a vector holds channels, and a stencil's accumulators are outputs next to each other; else it
holds outputs of a row, and an array whose rows have gaps is copied first. An input gradient is the same with other
cells (see `reach`), and a sum over j. A weight gradient has the taps in its accumulators; each sum belongs to one
thread, which adds images and rows in their order.
"""

from __future__ import annotations

import ctypes
import math
from functools import lru_cache, partial
from itertools import pairwise, product
from typing import NamedTuple

import numba
import numpy as np
from numba import types

from ...layout import Array
from ...views import slices
from ...window import Ints
from .axes import contiguous
from .blocks import TABLE, WORD, words
from .copies import TURNER, Copy, Turner, copy_array, copy_plan, turner
from .cover import Form, Lying, cover, lanes_for, outer
from .isa import Isa
from .machine import clear_bytes, invoke
from .parallel import run
from .reach import WHOLE, Reach, Reaches
from .scratch import arena
from .stencil import fold_address

UNROLLED = 128
"""Taps of a plane up to which there is code for each."""
FAR = 4
"""The stride of rows in an input gradient up to which a stencil has as many."""
NOTHING = Copy(*[0] * len(Copy._fields))


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
    # From a tile to the next along a row.
    x_ahead: int
    y_ahead: int


STEPS = words(Steps)
SCENE = (STEPS, TURNER, TABLE, TABLE, TABLE, TABLE, TABLE)


@numba.njit(types.void(TURNER, TABLE, *[WORD] * 3), nogil=True, cache=True)  # type: ignore[untyped-decorator]
def copy_channels(how: Turner, copies: Array, number: int, target: int, source: int) -> None:
    """Copy some channels, as one of a list of plans says; a list, for a call is quicker than with tuples."""
    c = copies[number]
    plan = Copy(c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7], c[8], c[9], c[10], c[11], c[12], c[13], c[14])
    copy_array(how, plan, target, source)


@numba.njit(types.void(*SCENE, *[WORD] * 8), nogil=True, cache=True)  # type: ignore[untyped-decorator]
def sweep(
    s: Steps,
    how: Turner,
    copies: Array,
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
    channel, channels, whole = piece[0], piece[1], int(piece[1] == s.chunk)
    source, target = x + image * s.x_image + channel * s.x_channel, y + image * s.y_image + channel * s.y_channel
    array = y + image * s.y_from_image + channel * s.y_from_channel
    if s.copy_x:
        source, origin = x_block, x + image * s.x_from_image + channel * s.x_from_channel
        copy_channels(how, copies, whole, source, origin)
    if s.copy_y:
        target = y_block
    if s.copy_y < 0:
        copy_channels(how, copies, 2 + whole, target, array)
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
                        *(s.x_ahead, s.y_ahead),
                    ),
                )
    if s.copy_y > 0:
        copy_channels(how, copies, 2 + whole, array, target)


@numba.njit(types.void(*SCENE, *[WORD] * 8), nogil=True, cache=True)  # type: ignore[untyped-decorator]
def convolve(
    s: Steps,
    how: Turner,
    copies: Array,
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
            *(s, how, copies, jobs, visits, planes, pieces, number, image),
            *(x, w + channel * s.w_channel, y, bias + channel * s.bias_channel, x_block, y_block),
        )


@numba.njit(types.void(*SCENE, *[WORD] * 9), nogil=True, cache=True)  # type: ignore[untyped-decorator]
def weigh(
    s: Steps,
    how: Turner,
    copies: Array,
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
                *(s, how, copies, jobs, visits, planes, pieces, number, image),
                *(x, total, y, 0, x_block, y_block),
            )
        if not s.across:
            vectors, size = channels * s.w_channel // s.width, how.size
            target = sums + channel * s.w_channel // s.width * size
            invoke(fold, (lanes, target, vectors))


class DepthwisePlan(NamedTuple):
    """A depthwise operation as far as it is known without data."""

    steps: Steps
    turner: Turner
    copies: Array
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


@lru_cache(maxsize=128)
def depthwise_plan(
    task: Task, reaches: Reaches, x: Lying, y: Lying, w: Ints, chunk: int, threads: int, isa: Isa
) -> DepthwisePlan:
    """Plan an operation; `w` holds the strides of output channels and taps, `chunk` the channels to copy at a time."""
    weights, batch, channels, multiplier, taps, size = task
    across = multiplier == 1 and channels > 1 and x.channel == size and y.channel == size
    d, h, last = reaches
    lanes = isa.lanes(size) if across else lanes_for(-(-last.outputs // last.spread), size, isa)
    form = Form(across, lanes, size, weights)
    copied = [not across and array.w != size and count > 1 for array, count in ((x, last.cells), (y, last.outputs))]
    if across:
        chunk = -(-channels // (threads * lanes)) * lanes if weights else channels
    read, x_copies = block(x, [each.cells for each in reaches], channels, chunk, size, copied=copied[0], back=False)
    written, y_copies = block(
        y, [each.outputs for each in reaches], channels, chunk, size, copied=copied[1], back=not weights
    )
    w, total, copy = ordered(task, w, form)
    apart = not weights and (across or (not any(copied) and batch * -(-channels // chunk) < threads))
    visits, planes = outer(
        (d, h) if folded(h, last) else (d,), (read.d, read.h), (w[1], w[2]), (written.d, written.h), read, w[0], weights
    )
    found = cover(WHOLE if folded(h, last) else h, last, form, read, written, isa, apart=apart)
    steps = Steps(
        *(read.image, read.channel * x.several, written.image, written.channel * y.several),
        *(w[0] * multiplier, size * multiplier, y.several, written.channel, w[0], size),
        *(1 if folded(h, last) else h.cells, read.h, read.w if across else size, w[2], w[3]),
        *(written.h, written.w if across else size, lanes if across else 0, lanes * size),
        *(int(copied[0]), (-1 if weights else 1) * copied[1]),
        *(x.image, x.channel * x.several, y.image, y.channel * y.several, batch, chunk),
        *(found.ahead[0] * read.w, found.ahead[1] * written.w),
    )
    parts = slices(len(visits), 1) if apart else [slice(0, len(visits))]
    rows = list(pairwise(found.starts)) if apart else [(0, len(found.jobs))]
    pieces = [
        (channel.start, channel.stop - channel.start, part.start, part.stop, *row)
        for channel, part, row in product(slices(channels, chunk), parts, rows)
    ]
    return DepthwisePlan(
        steps,
        turner(size, isa),
        np.array([*x_copies, *y_copies], np.int64),
        found.jobs,
        np.array(visits, np.int64).reshape(-1, 3),
        np.array(planes, np.int64).reshape(-1, 2),
        np.array(pieces, np.int64).reshape(-1, 6),
        np.zeros(channels * multiplier, f"f{size}"),
        threads,
        copied[0] * math.prod(each.cells for each in reaches) * chunk * x.several * size,
        copied[1] * math.prod(each.outputs for each in reaches) * chunk * y.several * size,
        total,
        copy,
        chunk * multiplier * math.prod(taps) * lanes * size if weights and not across else 0,
        fold_address(lanes, size, isa) if weights and not across else 0,
    )


def folded(h: Reach, w: Reach) -> bool:
    """Whether rows are gone through like depths, one at a time, for there would be too much code."""
    return len(h.offsets) * len(w.offsets) > UNROLLED or h.spread > FAR


def block(
    array: Lying, shape: list[int], channels: int, chunk: int, size: int, *, copied: bool, back: bool
) -> tuple[Lying, list[Copy]]:
    """What stencils read or write, and the copies of the last channels and of a whole chunk to it, or `back`."""
    if not copied:
        return array, [NOTHING, NOTHING]
    copies = []
    for count in (channels - (channels - 1) // chunk * chunk, chunk):
        sizes = (count * array.several, *shape)
        to, origin = contiguous(sizes, size), array[1:5]
        copies.append(copy_plan(sizes, *((origin, to) if back else (to, origin)), size))
    return array._replace(image=0, channel=to[0], d=to[1], h=to[2], w=to[3]), copies


def ordered(task: Task, w: Ints, form: Form) -> tuple[Ints, int, Copy | None]:
    """Weights or their sums in the order of stencils: strides, bytes, and the copy to that, or back, if there is one.

    Where lanes are channels these lie innermost. Where they are outputs, a sum is a vector until its lanes are added.
    """
    _, _, channels, multiplier, taps, size = task
    sizes = (channels * multiplier, *taps)
    total = math.prod(sizes) * size
    if form.across:
        if w[0] == size and not task.weights:
            return w, 0, None
        order: Ints = (size, *contiguous((*taps, channels), size)[:3])
        return order, total, copy_plan(sizes, *((w, order) if task.weights else (order, w)), size)
    if not task.weights:
        return w, 0, None
    return contiguous(sizes, form.lanes * size), total, copy_plan(sizes, w, contiguous(sizes, size), size)


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
            *(what.steps, what.turner, what.copies, what.jobs, what.visits, what.planes, what.pieces, begin, end),
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
            *(what.steps, what.turner, what.copies, what.jobs, what.visits, what.planes, what.pieces, begin, end),
            *(x, sums, dy, arena.reserve(what.x_block), arena.reserve(what.y_block), arena.reserve(what.lanes)),
            what.fold,
        )
