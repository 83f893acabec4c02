"""Windows that are whole pictures, as products of matrices: a cell of a channel is a channel, of a gradient a column.

    y[i, o] = bias[o] + sum over k of x[i, k] w[o, k]        dx[i, k] = sum over o of dy[i, o] w[o, k]

Images are the pixels of one, and tiles as high as there are images read the weights where they lie: 64 pictures of 4x4
cells of 256 channels to 512 took 11.6 ms in NHWC, as weights were rearranged for the pixel of each, and 2.2 so. That
takes weights whose channels and cells are one axis. Pictures in which these lie otherwise are copied, some at a time:
the order of sums must not depend on that.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ...layout import Array
from ...spec import ConvSpec
from ...window import Ints
from .blocks import pack, together
from .copies import copy_plan, turner
from .correlation import plan
from .geometry import Array5
from .isa import Isa
from .machine import address, behind, tables
from .needs import PIXEL, copied_images, copies_weights, weights_bytes
from .operands import Memory, Problem, nested, without_gaps
from .parallel import run
from .scratch import arena
from .weighted import BYTE, Weighted, copied


class OneTap(NamedTuple):
    """A product for some images at a time; a `Weighted` plan."""

    product: Weighted
    # For each column the one whose bias it has; None if they are as they were.
    biases: Array | None
    # How many images there are, and how many go together; the bytes from one to the next in what is read and written.
    batch: int
    several: int
    images: Ints
    # The bytes of pictures that are copied, if they are, group by group; arguments of that but for two addresses.
    line: int
    groups: int
    copying: Array
    table: Array
    backward: bool

    @property
    def bytes(self) -> int:
        """Of the weights rearranged."""
        return self.product.bytes

    def rearrange(self, w: Array, target: Array | None) -> Array:
        """Rearrange the weights."""
        return self.product.rearrange(w, target)

    def compute(self, x: Array, weights: Array, bias: Array | None, out: Array) -> None:
        """Multiply."""
        given = bias if bias is None or self.biases is None else bias[self.biases]
        if not self.line:
            self.product.compute(x, weights, given, out)
            return
        with arena:
            line, words = arena.empty((self.line,), BYTE), self.copying.copy()
            for start in range(0, self.batch, self.several):
                first = min(start, self.batch - self.several)  # some may be computed again, to the same
                here, there = (behind(array, first * step) for array, step in zip((x, out), self.images, strict=True))
                if self.backward:
                    self.product.compute(here, weights, given, line)
                    words[-2:] = address(there), address(line)
                    run(pack, words, self.groups)
                else:
                    words[-2:] = address(line), address(here)
                    run(pack, words, self.groups)
                    self.product.compute(line, weights, given, there)


def one_tap_plan(
    problem: Problem,
    spec: ConvSpec,
    memory: Memory,
    limit: int,
    threads: int,
    isa: Isa,
    *,
    kept: bool,
    backward: bool = False,
) -> Weighted | None:
    """Plan such a problem, forward or `backward`; None if windows are others, or weights lie otherwise.

    Weights with gaps are copied first, if there is room: a plan's copy has none, and must add up in the same order.
    """
    if not spec.window.is_whole or spec.window.taps == 1 or not spec.batch:
        return None
    if found := lying_plan(problem, memory, limit, threads, isa, kept=kept, backward=backward):
        return found
    dense = without_gaps(problem, memory, backward=backward)
    if dense.w == memory.w or not copies_weights(spec, limit, backward=backward):
        return None
    left = limit - weights_bytes(spec)
    found = lying_plan(problem, dense, left, threads, isa, kept=kept, backward=backward)
    return found and copied(found, problem, memory, dense, isa)


def lying_plan(
    problem: Problem, memory: Memory, limit: int, threads: int, isa: Isa, *, kept: bool, backward: bool
) -> Weighted | None:
    """Plan it, if channels and cells of the weights are one axis."""
    batch, groups, channels, columns, taps, size = problem
    place, picture, count = (0, memory.y, columns) if backward else (1, memory.x, channels)
    sizes, filters, cells = (count, *taps), (memory.w[place], *memory.w[2:]), (picture.channel, *picture[3:])
    order = sorted(range(4), key=lambda axis: -abs(filters[axis]))
    counts, many = [sizes[axis] for axis in order], math.prod(sizes)
    step, apart = (nested([strides[axis] for axis in order], counts, size) for strides in (filters, cells))
    if not step:
        return None
    several, line, copying, table = batch, 0, np.zeros(0, np.int64), np.zeros(0, np.int64)
    if not apart:
        several, apart = copied_images(batch, groups * many * size), size
        line, image = several * groups * many * size, groups * many * size
        inner = {axis: math.prod(counts[number + 1 :]) * size for number, axis in enumerate(order)}
        ends = [((image, *map(inner.__getitem__, range(4))), many * size), (picture[1:], picture.group)]
        (to, to_group), (origin, from_group) = ends[:: -1 if backward else 1]
        copy = copy_plan((several, *sizes), to, origin, size)
        table = together(turner(size, isa), copy, copy)
        copying = np.array([*tables(table), 1, to_group, 0, from_group, 0, 0, 0], np.int64)
        picture = Array5(many * size, image, *(0,) * 4)
    picture = picture._replace(channel=apart)
    x, y = (memory.x, picture) if backward else (picture, memory.y)
    x, y = (each._replace(h=each.image, w=each.image) for each in (x, y))
    biases = None
    if backward:
        one, w = problem._replace(batch=several, columns=many, taps=(1, 1, 1)), (step, memory.w[1], 0, 0, 0)
        of_columns = np.arange(groups * count).reshape(groups, *(count if axis == 0 else 1 for axis in order))
        biases = np.broadcast_to(of_columns, (groups, *counts)).ravel()
    else:
        one, w = problem._replace(batch=several, channels=many, taps=(1, 1, 1)), (memory.w[0], step, 0, 0, 0)
    product = plan(one, PIXEL, memory._replace(x=x, w=w, y=y), limit - line, threads, isa, kept=kept)
    images = (memory.x.image, memory.y.image)
    return OneTap(product, biases, batch, several, images, line, groups, copying, table, backward)
