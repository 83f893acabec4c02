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
from typing import Any, NamedTuple

import numpy as np

from ...layout import Array
from ...spec import ConvSpec
from ...views import slices
from ...window import Ints
from .axes import contiguous
from .blocks import pack, together
from .channels import Steps, convolve, weigh
from .conv_plans import keep, plan_backward, plan_forward, plan_weights, run_backward, run_forward, run_to_weights
from .copies import Copy, copy_plan, turner
from .cover import Form, Lying, cover, lanes_for, outer
from .isa import Isa, host
from .machine import address, tables
from .operands import lying, spread
from .parallel import run
from .reach import WHOLE, Reach, Reaches, backward_reaches, depthwise_amounts, forward_reaches
from .scratch import arena, rounded
from .stencil import fold_address

UNROLLED = 128
"""Taps of a plane up to which there is code for each."""
FAR = 4
"""The stride of rows in an input gradient up to which a stencil has as many."""
NOTHING = Copy(*[0] * len(Copy._fields))


class DepthwisePlan(NamedTuple):
    """A depthwise operation as far as it is known without data; a `Weighted` plan, unless it is a weight gradient.

    Arguments lack some addresses at the end; `kept` is what they point to. Weights in the order in which stencils take
    them, or their sums, take some bytes, and a copy to or from w's own order.
    """

    words: Array
    copying: Array
    kept: tuple[Array, ...]
    zeros: Array
    pieces: int
    threads: int
    room: int
    bytes: int

    def copy(self, target: int, source: int) -> None:
        """Copy weights, or sums, from one order to the other."""
        words = self.copying.copy()
        words[-2:] = target, source
        run(pack, words, 1)

    def rearrange(self, w: Array, target: Array | None) -> Array:
        """Copy the weights, if stencils do not take them as they lie; where they are."""
        if target is None:
            return w
        self.copy(address(target), address(w))
        return target

    def compute(self, x: Array, weights: Array, bias: Array | None, out: Array) -> None:
        """Correlate by rearranged weights."""
        given, words = self.zeros if bias is None else np.ascontiguousarray(bias), self.words.copy()
        words[-4:] = address(x), address(weights), address(out), address(given)
        run(convolve, words, self.pieces, self.threads, self.room)


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
    if not across:
        # Rows are read along their elements; the stride of a single one may be anything.
        x, y = (each._replace(w=size) if count == 1 else each for each, count in ((x, last.cells), (y, last.outputs)))
    copied = [not across and array.w != size for array in (x, y)]
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
    x_block = rounded(copied[0] * math.prod(each.cells for each in reaches) * chunk * x.several * size)
    y_block = rounded(copied[1] * math.prod(each.outputs for each in reaches) * chunk * y.several * size)
    zeros, how = np.zeros(channels * multiplier, f"f{size}"), turner(size, isa)
    every = (together(steps, how), *map(listed, ([*x_copies, *y_copies], found.jobs, visits, planes, pieces)))
    copies = together(how, copy, copy)
    words = [*tables(*every), x_block]
    if weights:
        lanes_room = 0 if across else chunk * multiplier * math.prod(taps) * lanes * size
        words += [y_block, 0 if across else fold_address(lanes, size, isa), 0, 0, 0]
    else:
        lanes_room, words = 0, [*words, 0, 0, 0, 0]
    return DepthwisePlan(
        *(listed(words), listed([*tables(copies), 1, 0, 0, 0, 0, 0, 0]), (*every, copies), zeros),
        *(len(pieces) * (1 if weights else batch), threads, x_block + y_block + lanes_room, total),
    )


def listed(rows: Any) -> Array:
    """Rows of numbers, one behind the other."""
    return np.array(rows, np.int64).reshape(-1)


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


def ordered(task: Task, w: Ints, form: Form) -> tuple[Ints, int, Copy]:
    """Weights or their sums in the order of stencils: strides, bytes if that is another than w's, and the copy.

    Where lanes are channels these lie innermost. Where they are outputs, a sum is a vector until its lanes are added.
    """
    _, _, channels, multiplier, taps, size = task
    sizes = (channels * multiplier, *taps)
    total = math.prod(sizes) * size
    if form.across:
        if w[0] == size and not task.weights:
            return w, 0, NOTHING
        order: Ints = (size, *contiguous((*taps, channels), size)[:3])
        return order, total, copy_plan(sizes, *((w, order) if task.weights else (order, w)), size)
    if not task.weights:
        return w, 0, NOTHING
    return contiguous(sizes, form.lanes * size), total, copy_plan(sizes, w, contiguous(sizes, size), size)


def run_depthwise_weights(what: DepthwisePlan, x: Array, dy: Array, dw: Array) -> None:
    """Run a planned weight gradient."""
    words = what.words.copy()
    with arena:
        sums = arena.reserve(what.bytes)
        ctypes.memset(sums, 0, what.bytes)
        words[-3:] = address(x), sums, address(dy)
        run(weigh, words, what.pieces, what.threads, what.room)
        what.copy(address(dw), sums)


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


def forward_plan(spec: ConvSpec, x: Ints, w: Ints, out: Ints, limit: int, threads: int) -> DepthwisePlan:
    """The plan of a convolution."""
    return plan_of(spec, "conv", x, w, out, limit, threads)


def input_grad_plan(spec: ConvSpec, dy: Ints, w: Ints, out: Ints, limit: int, threads: int) -> DepthwisePlan:
    """The plan of an input gradient."""
    return plan_of(spec, "conv_input_grad", out, w, dy, limit, threads)


def weight_grad_plan(spec: ConvSpec, x: Ints, dy: Ints, out: Ints, limit: int, threads: int) -> DepthwisePlan:
    """The plan of a weight gradient."""
    return plan_of(spec, "conv_weight_grad", x, out, dy, limit, threads)


depthwise = partial(run_forward, forward_plan)
depthwise_input_grad = partial(run_backward, input_grad_plan)
depthwise_weight_grad = partial(run_to_weights, weight_grad_plan, run_depthwise_weights)
plan_depthwise = partial(plan_forward, forward_plan)
plan_input_grad = partial(plan_backward, input_grad_plan)
plan_weight_grad = partial(plan_weights, weight_grad_plan, run_depthwise_weights)
keep_depthwise, keep_backward = partial(keep, forward_plan), partial(keep, input_grad_plan)
