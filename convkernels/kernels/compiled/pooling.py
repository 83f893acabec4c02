"""Pools and their gradients, by lines of vectors over boxes of windows that read alike.

A gradient is not scattered: each cell collects what it takes of the outputs whose windows hold it, so that it is
written once, needs no zeros before, and does not depend on how the work is shared. For sums that is a pool again, of
outputs by cells. For extrema, the *codes* of the winners are found first, a byte for each window as a rule, and a
cell takes the gradients of those windows whose code names it; codes of a block stay in the cache between the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np

from ...config import Resources
from ...layout import Array
from ...pool_spec import PoolSpec
from ...views import slices
from ...window import Ints
from .boxes import Boxes, Given, function, table
from .isa import host
from .lines import LOOPS, Operand
from .parallel import run, usable
from .pool_blocks import block, code_size, extreme, family, outputs_of, rule, work_of
from .reductions import Reduction, Ties, collecting, finding, reducing, weighing
from .scratch import arena


class Aligned(NamedTuple):
    """Arrays with the axis of lines, if that is no spatial one, brought to the place of channels."""

    arrays: tuple[Array, ...]
    axis: int | None


def aligned(*arrays: Array) -> Aligned:
    """Choose the axis that lines lie along: the one that is dense in all arrays, or in the first ones, or any."""

    def merit(axis: int) -> tuple[int, int, int]:
        size = min(array.shape[axis] for array in arrays)
        dense = sum(array.strides[axis] == array.itemsize for array in arrays) if size > 1 else -1
        return dense, axis < 2, size

    chosen = max(range(arrays[0].ndim), key=merit)
    if chosen == 0:
        arrays = tuple(array.swapaxes(0, 1) for array in arrays)
    return Aligned(arrays, None if chosen < 2 else chosen - 2)


@dataclass(frozen=True)
class Task:
    """Lines over boxes: arrays that are read by steps, then those that lie as the targets do, of which the last is one.

    Both begin at a place of their own along the first spatial axis.
    """

    boxes: Boxes
    sources: tuple[Array, ...]
    targets: tuple[Array, ...]
    sources_begin: int = 0
    targets_begin: int = 0

    def moves(self, place: int) -> Ints:
        """The strides of an array along the spatial axes, from one target to the next."""
        window, sources = self.boxes.spec.window, len(self.sources)
        if place < sources:
            strides, steps = self.sources[place].strides[2:], window.stride if self.boxes.forward else None
        else:
            strides, steps = self.targets[place - sources].strides[2:], None if self.boxes.forward else window.stride
        if steps is None:
            return strides
        alone = [self.boxes.phases == 1 or axis != self.boxes.axis for axis in range(window.rank)]
        return tuple(
            stride * (step if one else 1) for stride, step, one in zip(strides, steps, alone, strict=True)
        )

    def lanes(self, place: int) -> int:
        """Bytes from lane to lane."""
        axis = self.boxes.axis
        return (*self.sources, *self.targets)[place].strides[1] if axis is None else self.moves(place)[axis]

    def operands(self) -> list[Operand]:
        """How the arrays lie along lines."""
        found = []
        for place, array in enumerate((*self.sources, *self.targets)):
            size, read = array.itemsize, place < len(self.sources)
            access = {size: "dense", 2 * size: "even" if read else "any"}.get(self.lanes(place), "any")
            found.append(Operand(array.dtype.kind, size, access))
        return found

    def start(self, code: int) -> None:
        """Run the code at an address over all boxes."""
        boxes, arrays = self.boxes, (*self.sources, *self.targets)
        made = table(
            boxes,
            tuple(Given(array.strides[2:], self.sources_begin) for array in self.sources),
            tuple(Given(array.strides[2:], self.targets_begin) for array in self.targets),
        )
        loops = [axis for axis in range(boxes.spec.window.rank) if axis != boxes.axis]
        images, channels = arrays[0].shape[:2]
        words = [made.words.ctypes.data, made.pieces, images, 1 if boxes.axis is None else channels]
        for place, array in enumerate(arrays):
            moves = self.moves(place)
            inner = [moves[axis] for axis in loops]
            words += [array.ctypes.data, *array.strides[:2], *inner, *[0] * (LOOPS - len(inner)), self.lanes(place)]
        call = np.array(words, np.int64)
        function(code)(call.ctypes.data)  # type: ignore[operator]


def shares(batch: int, size: int, threads: int, step: int = 1) -> list[tuple[slice, slice]]:
    """Parts of nearly the same size: of images, or where these do not come out even, of the first spatial axis.

    There it is cut at multiples of a step.
    """
    if batch % threads == 0 or batch >= 4 * threads:
        return [(images, slice(0, size)) for images in slices(batch, max(1, -(-batch // threads)))]
    return [(slice(0, batch), part) for part in slices(size, -(-size // (threads * step)) * step)]


def ordered(array: Array, axis: int | None) -> Ints:
    """The place of each axis in memory where images come first and the axis of lines last."""
    last = 1 if axis is None else 2 + axis
    order = [0, *(place for place in range(1, array.ndim) if place != last), last]
    return tuple(order.index(place) for place in range(array.ndim))


def reordered_shape(array: Array, axis: int | None) -> Ints:
    """The shape in that order."""
    places = ordered(array, axis)
    shape = [0] * array.ndim
    for place, size in zip(places, array.shape, strict=True):
        shape[place] = size
    return tuple(shape)


def pool(spec: PoolSpec, x: Array, *, out: Array, resources: Resources) -> None:
    """Reduce every window."""
    (x, out), axis = aligned(x, out)
    threads = usable(resources.threads, work_of(spec))
    reduction = Reduction("sum", "end") if family(spec) == "mean" else Reduction(family(spec))

    def work(shares: Sequence[tuple[slice, slice]]) -> None:
        for images, part in shares:
            boxes = Boxes(spec.one_image, (part.start, part.stop), True, axis, 1, x.shape[1], "code")
            task = Task(boxes, (x[images],), (out[images],))
            task.start(reducing(*task.operands(), reduction, 1, host()))

    run(work, shares(len(x), spec.window.out_size[0], threads), threads)


def pool_grad(spec: PoolSpec, dy: Array, x: Array, y: Array, *, out: Array, resources: Resources) -> None:
    """Collect the gradient of every cell."""
    if extreme(spec):
        gradient_of_extrema(spec, dy, x, out, resources)
    else:
        gradient_of_sums(spec, dy, x, y, out, resources)


def phases_of(axis: int | None, spec: PoolSpec, *arrays: Array) -> int:
    """The neighbours along a line that are computed together: those between two windows, if vectors hold them."""
    dense = axis is not None and all(array.strides[2 + axis] == array.itemsize for array in arrays)
    return 2 if dense and spec.window.stride[axis or 0] == 2 else 1


def gradient_of_sums(spec: PoolSpec, dy: Array, x: Array, y: Array, out: Array, resources: Resources) -> None:
    """Sum the gradients of the windows that hold a cell, divided by their counts; of norms, in proportion to it."""
    norm = family(spec) in ("lp1", "lp2")
    (dy, out, *others), axis = aligned(dy, out, *((y, x) if norm else ()))
    sources, cells = (dy, *others[:1]), others[1:]
    threads, step = usable(resources.threads, work_of(spec)), spec.window.stride[0]
    phases = 1 if norm else phases_of(axis, spec, *sources, out)
    same = spec.divisor_override or isinstance(spec.count(spec.window.whole), int)
    divide = ("end" if same else "each") if family(spec) == "mean" else ""

    def work(parts: Sequence[tuple[slice, slice]]) -> None:
        for images, part in parts:
            boxes = Boxes(spec.one_image, (part.start, part.stop), False, axis, phases, out.shape[1], "count")
            near = tuple(array[images] for array in (*cells, out))
            task = Task(boxes, tuple(array[images] for array in sources), near)
            if norm:
                task.start(weighing(*task.operands(), family(spec), host()))
            else:
                task.start(reducing(*task.operands(), Reduction("sum", divide), phases, host()))

    run(work, shares(len(out), spec.window.in_size[0], threads, step), threads)


def gradient_of_extrema(spec: PoolSpec, dy: Array, x: Array, out: Array, resources: Resources) -> None:
    """Find the winners of a block's windows, and give their cells the gradients."""
    (x, dy, out), axis = aligned(x, dy, out)
    size, ties = code_size(spec), Ties(rule(spec), family(spec))
    numbers, isa, phases = "bit" if ties.shared else "code", host(), phases_of(axis, spec, dy, out)
    threads = usable(resources.threads, work_of(spec))
    most = block(spec, *x.shape[:2], resources.max_workspace, threads)
    window = spec.window

    def work(blocks: Sequence[tuple[slice, slice, slice]]) -> None:
        for images, channels, cells in blocks:
            outputs = outputs_of(window, cells)
            part = (images, channels, outputs)
            given, wide = dy[part], channels.stop - channels.start
            with arena:
                codes = arena.empty(reordered_shape(given, axis), np.dtype(f"u{size}"))
                codes = codes.transpose(ordered(given, axis))
                boxes = Boxes(spec.one_image, (outputs.start, outputs.stop), True, axis, 1, wide, numbers)
                task = Task(boxes, (x[images, channels],), (codes,), 0, outputs.start)
                task.start(finding(*task.operands(), ties, isa))
                boxes = Boxes(spec.one_image, (cells.start, cells.stop), False, axis, phases, wide, numbers)
                task = Task(boxes, (given, codes), (out[images, channels],), outputs.start)
                task.start(collecting(*task.operands(), ties, phases, isa))

    every = product(
        slices(len(x), most.images), slices(x.shape[1], most.channels), slices(window.in_size[0], most.cells)
    )
    run(work, list(every), most.threads)
