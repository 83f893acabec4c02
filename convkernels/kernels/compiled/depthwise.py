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

import numpy as np

from ...config import Resources
from ...layout import Array
from ...spec import ConvSpec
from ...views import slices
from ...window import Ints
from .axes import contiguous
from .channels import Steps, convolve, weigh
from .copies import Copy, Turner, copy_array, copy_plan, turner
from .cover import Form, Lying, cover, lanes_for, outer
from .isa import Isa, host
from .operands import lying, spread
from .parallel import run, usable
from .reach import WHOLE, Reach, Reaches, backward_reaches, depthwise_amounts, forward_reaches
from .scratch import arena
from .stencil import fold_address

UNROLLED = 128
"""Taps of a plane up to which there is code for each."""
FAR = 4
"""The stride of rows in an input gradient up to which a stencil has as many."""
NOTHING = Copy(*[0] * len(Copy._fields))


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


@lru_cache(maxsize=512)
def plan_of(spec: ConvSpec, operation: str, x: Ints, w: Ints, y: Ints, limit: int, threads: int) -> DepthwisePlan:
    """The plan of an operation on arrays with such strides; an input gradient reads y's and writes x's."""
    backward, weights = operation == "conv_input_grad", operation == "conv_weight_grad"
    chunk, amounts = depthwise_amounts(spec, limit, threads)
    taps = (1,) * (3 - spec.window.rank) + spec.window.kernel_size
    task = Task(weights, spec.batch, spec.groups, spec.group_out, taps, spec.compute_dtype.itemsize)
    arrays = Lying(*lying(x, 1)[1:], 1), Lying(*lying(y, 1)[1:], spec.group_out)
    reaches = backward_reaches(spec) if backward else forward_reaches(spec)
    first, _, *rest = spread(w)
    source, target = reversed(arrays) if backward else arrays
    threads = amounts.threads(threads, limit)
    return depthwise_plan(task, reaches, source, target, (first, *rest), chunk, threads, host())


def depthwise(spec: ConvSpec, x: Array, w: Array, b: Array | None, *, out: Array, resources: Resources) -> None:
    """Correlate each channel by itself."""
    how = (resources.max_workspace, usable(resources.threads, spec.flops))
    what = plan_of(spec, "conv", x.strides, w.strides, out.strides, *how)
    run_depthwise(what, x.ctypes.data, w.ctypes.data, b, out.ctypes.data)


def depthwise_input_grad(spec: ConvSpec, dy: Array, w: Array, *, out: Array, resources: Resources) -> None:
    """Correlate, with the outputs that took each cell."""
    how = (resources.max_workspace, usable(resources.threads, spec.flops))
    what = plan_of(spec, "conv_input_grad", out.strides, w.strides, dy.strides, *how)
    run_depthwise(what, dy.ctypes.data, w.ctypes.data, None, out.ctypes.data)


def depthwise_weight_grad(spec: ConvSpec, x: Array, dy: Array, *, out: Array, resources: Resources) -> None:
    """Sum over images and pixels for each channel by itself."""
    how = (resources.max_workspace, usable(resources.threads, spec.flops))
    what = plan_of(spec, "conv_weight_grad", x.strides, out.strides, dy.strides, *how)
    run_depthwise_weights(what, x.ctypes.data, dy.ctypes.data, out.ctypes.data)
