"""Pools and their gradients, by lines of vectors over boxes of windows that read alike.

A gradient is not scattered: each cell collects what it takes of the outputs whose windows hold it, so that it is
written once, needs no zeros before, and does not depend on how the work is shared. For sums that is a pool again, of
outputs by cells. For extrema, the *codes* of the winners are found first, a byte for each window as a rule, and a
cell takes the gradients of those windows whose code names it; codes of a block stay in the cache between the two.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np

from ...config import Resources
from ...layout import Array
from ...pool_spec import PoolSpec
from ...views import slices
from . import reductions
from .arithmetic import CORRECTED
from .boxes import Boxes
from .calls import (
    SCRATCH,
    Call,
    Program,
    Task,
    View,
    by_lines,
    by_rows,
    execute,
    program,
    views,
)
from .isa import Isa, host
from .planes import to_pixels, to_planes, turned, turned_parts, turning_pays
from .pool_blocks import MOST, ROOM, block, code_size, extreme, family, grad_threads, pool_threads, rule, work_of
from .pool_forms import formed
from .reductions import Reduction, Ties, collecting, finding, reducing, weighing
from .row_tables import RowBoxes
from .runs import margins
from .thread_count import now_usable

MANY = 16
"""Taps from which on lines along channels are read in longer pieces."""
SLAB = 2**17
"""Bytes of targets that all boxes go through together."""


def pool(spec: PoolSpec, x: Array, *, out: Array, resources: Resources) -> None:
    """Reduce every window."""
    threads = pool_threads(spec, now_usable(resources.threads, work_of(spec)), resources.max_workspace)
    execute(planned_pool(spec, *views(x, out), threads, resources.max_workspace, host()), threads, x, out)


def pool_grad(spec: PoolSpec, dy: Array, x: Array, y: Array, *, out: Array, resources: Resources) -> None:
    """Collect the gradient of every cell."""
    limit = resources.max_workspace
    threads = grad_threads(spec, now_usable(resources.threads, work_of(spec)), limit)
    if extreme(spec):
        execute(planned_extrema(spec, *views(dy, x, out), threads, limit, host()), threads, dy, x, out)
    elif family(spec) in ("lp1", "lp2"):
        execute(planned_norms(spec, *views(dy, y, x, out), threads, host()), threads, dy, y, x, out)
    else:
        execute(planned_sums(spec, *views(dy, out), threads, limit, host()), threads, dy, out)


def aligned(*arrays: View) -> tuple[tuple[View, ...], int | None]:
    """Choose the axis that lines lie along: the one that is dense in the most arrays, and then the longest.

    Returns the arrays, with that axis in the place of channels if it is images', and which spatial axis it is, if any.
    """

    def merit(axis: int) -> tuple[int, bool, int]:
        size = min(array.shape[axis] for array in arrays)
        dense = sum(array.strides[axis] == array.itemsize for array in arrays) if size > 1 else -1
        return dense, axis < 2, size

    chosen = max(range(len(arrays[0].shape)), key=merit)
    if chosen == 0:
        arrays = tuple(array.swapped() for array in arrays)
    return arrays, None if chosen < 2 else chosen - 2


def shares(batch: int, size: int, threads: int, step: int = 1) -> list[tuple[slice, slice]]:
    """Parts of nearly the same size: of images, or where these do not come out even, of the first spatial axis.

    There it is cut at multiples of a step.
    """
    if batch % threads == 0 or batch >= 4 * threads:
        return [(images, slice(0, size)) for images in slices(batch, max(1, -(-batch // threads)))]
    return [(slice(0, batch), part) for part in slices(size, -(-size // (threads * step)) * step)]


def near(array: View, axis: int | None) -> int:
    """The cells along the first spatial axis that take `SLAB` bytes, of all channels if lines lie along them."""
    each = array.itemsize * math.prod(array.shape[3:]) * (array.shape[1] if axis is None else 1)
    return max(1, SLAB // max(1, each))


def phases_of(axis: int | None, spec: PoolSpec, *arrays: View) -> int:
    """The neighbours along a line that are computed together: those between two windows, if vectors hold them."""
    dense = axis is not None and all(array.strides[2 + axis] == array.itemsize for array in arrays)
    return 2 if dense and spec.window.stride[axis or 0] == 2 else 1


def rows_of(boxes: Boxes, source: View, target: View) -> RowBoxes | None:
    """The same boxes by rows, where that is possible and saves anything."""
    window, axis, size = boxes.spec.window, boxes.axis, source.itemsize
    if axis is None:
        steps = [stride == source.shape[1] * size for stride in source.strides[2:]]
        if not any(steps) or source.strides[1] != size or target.strides[1] != size:
            return None
        axis, width = steps.index(True), source.shape[1]
        if window.stride[axis] > 1 or window.kernel_size[axis] == 1:
            return None  # too few windows share a cell: 3x3 by steps of 2 took 1.3 times as long
    elif source.strides[2 + axis] != size or target.strides[2 + axis] != size:
        return None
    elif not window.padded and (window.kernel_size[axis] <= window.stride[axis] or overlap_little(boxes)):
        return None  # few cells are read twice
    else:
        width = 1
    strides = source.strides[2:], target.strides[2:]
    asked = RowBoxes(boxes.spec, boxes.part, boxes.forward, axis, boxes.phases, width, size, *strides)
    return asked if asked.buffer <= MOST else None


def overlap_little(boxes: Boxes) -> bool:
    """Whether windows by steps of 2 share so little that lines are faster, or as fast as rows, and need no buffer.

    96 channels of 55x55 by 3x3 took 65 us by lines, and 80 by rows; with padding, 114 and 84.
    """
    window = boxes.spec.window
    return boxes.forward and set(window.stride) == {2} and max(window.kernel_size) <= 3 and window.taps <= 9


def turned_boxes(spec: PoolSpec, target: View, numbers: str, *, forward: bool) -> Boxes:
    """All boxes of some planes that were turned."""
    part, channels = (0, target.shape[2]), target.shape[1]
    return Boxes(spec, part, forward, None, 1, channels, numbers, near(target, None), bounded=forward)


def images_inside(array: View) -> bool:
    """Whether images lie between the cells of an axis.

    Then how many there are changes how the others lie, and sums are added tap by tap whatever that is, so that they do
    not depend on the batch. A stride of 0 says nothing.
    """
    others = [stride for stride, size in zip(array.strides[1:], array.shape[1:], strict=True) if size > 1]
    return 0 < abs(array.strides[0]) <= max(map(abs, others), default=0)


def separable(spec: PoolSpec, reduction: Reduction, *, forward: bool) -> bool:
    """Whether windows are reduced across rows and then along: not norms that know their largest first."""
    cropped = any(lo < 0 or hi < 0 for lo, hi in spec.window.padding)
    return reduction.name != "lp2" and reduction.divide != "each" and (forward or not cropped)


def reduced(
    spec: PoolSpec,
    arrays: tuple[View, View],
    reduction: Reduction,
    threads: int,
    limit: int,
    isa: Isa,
    *,
    forward: bool,
) -> Program:
    """Windows to outputs, or outputs to cells."""
    ordered = reduction.name in ("max", "min") or not any(map(images_inside, arrays))
    parted = ordered and limit >= ROOM and separable(spec, reduction, forward=forward)
    found = formed(spec, arrays, reduction, threads, isa, forward=forward, ordered=ordered, parted=parted)
    if found:
        return found
    (source, target), axis = aligned(*arrays)
    tasks = []
    if limit >= ROOM and turning_pays(spec, axis, *arrays):
        for images, channels in turned_parts(*arrays):
            read, written = (array.cut(0, images).cut(1, channels) for array in arrays)
            (source, target), end = turned(read, written)
            boxes = turned_boxes(spec, target, "count", forward=forward)
            call, end = reducing_call(boxes, source, target, reduction, parted, end)
            tasks.append(Task((to_pixels(read, source), call, to_planes(target, written)), end))
        return program(tasks)
    phases = 1 if forward else phases_of(axis, spec, source, target)
    for images, part in shares(target.shape[0], target.shape[2], threads, 1 if forward else spec.window.stride[0]):
        read, written = source.cut(0, images), target.cut(0, images)
        bounds = part.start, part.stop
        boxes = Boxes(spec, bounds, forward, axis, phases, target.shape[1], "count", near(target, axis))
        call, end = reducing_call(boxes, read, written, reduction, parted, 0)
        tasks.append(Task((call,), end))
    return program(tasks)


def reducing_call(
    boxes: Boxes, read: View, written: View, reduction: Reduction, parted: bool, start: int
) -> tuple[Call, int]:
    """The call that reduces, and where in the scratch memory its buffer ends."""
    rows = rows_of(boxes, read, written) if parted else None
    if rows is None:
        wide = boxes.forward and boxes.axis is None and boxes.spec.window.taps >= MANY
        return by_lines(boxes, (read,), (written,), (reducing, reduction, boxes.phases, wide)), start
    buffer = View(SCRATCH, start, (rows.buffer,), (1,), read.kind, read.itemsize)
    call = by_rows(rows, read, buffer, written, (reductions.by_rows, reduction, boxes.phases))
    return call, start + rows.buffer


def reduction_of(spec: PoolSpec, divide: str) -> Reduction:
    """What becomes of cells, which means `divide` at the "end", or "each"."""
    if family(spec) != "mean":
        return Reduction(family(spec))
    return Reduction("sum", divide, (spec.divisor_override or spec.window.taps) >= CORRECTED)


@lru_cache(maxsize=256)
def planned_pool(spec: PoolSpec, x: View, out: View, threads: int, limit: int, isa: Isa) -> Program:
    """The program of a pool."""
    return reduced(spec, (x, out), reduction_of(spec, "end"), threads, limit, isa, forward=True)


@lru_cache(maxsize=256)
def planned_sums(spec: PoolSpec, dy: View, out: View, threads: int, limit: int, isa: Isa) -> Program:
    """Sum the gradients of the windows that hold a cell, divided by their counts."""
    same = spec.divisor_override or isinstance(spec.count(spec.window.whole), int)
    return reduced(spec, (dy, out), reduction_of(spec, "end" if same else "each"), threads, limit, isa, forward=False)


@lru_cache(maxsize=256)
def planned_norms(spec: PoolSpec, dy: View, y: View, x: View, out: View, threads: int, isa: Isa) -> Program:
    """Sum the gradients of the windows that hold a cell, in proportion to it."""
    arrays, axis = aligned(dy, y, x, out)
    tasks, out = [], arrays[-1]
    for images, part in shares(out.shape[0], out.shape[2], threads, spec.window.stride[0]):
        boxes = Boxes(spec, (part.start, part.stop), False, axis, 1, out.shape[1], "count", near(out, axis))
        some = [array.cut(0, images) for array in arrays]
        tasks.append(Task((by_lines(boxes, some[:2], some[2:], (weighing, family(spec))),)))
    return program(tasks)


@lru_cache(maxsize=256)
def planned_extrema(spec: PoolSpec, dy: View, x: View, out: View, threads: int, limit: int, isa: Isa) -> Program:
    """Find the winners of a block's windows, and give their cells the gradients."""
    (x, dy, out), axis = aligned(x, dy, out)
    window, ties = spec.window, Ties(rule(spec), family(spec))
    phases, most = phases_of(axis, spec, dy, out), block(spec, x.shape[0], x.shape[1], limit, threads)
    tasks = []
    for images, channels, cells in product(
        slices(x.shape[0], most.images), slices(x.shape[1], most.channels), slices(window.in_size[0], most.cells)
    ):
        reached = margins(window, 0, cells)
        outputs = slice(max(reached.start, 0), min(reached.stop, window.out_size[0]))
        read, given, written = (array.cut(0, images).cut(1, channels) for array in (x, dy, out))
        codes, taken = scratch(spec, written, cells, axis)
        numbers, part = "bit" if ties.shared else "code", (outputs.start, outputs.stop)
        find = Boxes(spec, part, True, axis, 1, written.shape[1], numbers, near(written, axis))
        collect = replace(find, part=(cells.start, cells.stop), forward=False, phases=phases, bounded=False)
        calls = [by_lines(collect, (given, codes), (written,), (collecting, ties, phases), (0, 0))]
        if outputs.stop > outputs.start:
            calls.insert(0, by_lines(find, (read,), (codes,), (finding, ties, "")))
        tasks.append(Task(tuple(calls), taken, fill_of(ties)))
    return program(tasks)


def scratch(spec: PoolSpec, cells: View, part: slice, axis: int | None) -> tuple[View, int]:
    """Memory for the codes of all windows that could hold cells, and its bytes.

    It begins at output 0, wherever that is. Images come first in it, and the axis of lines last.
    """
    window, size = spec.window, code_size(spec)
    parts = [part, *(slice(0, length) for length in window.in_size[1:])]
    reached = [margins(window, place, some) for place, some in enumerate(parts)]
    shape = (*cells.shape[:2], *map(len, reached))
    last = 1 if axis is None else 2 + axis
    strides, step = [0] * len(shape), size
    for place in (last, *(place for place in reversed(range(len(shape))) if place != last)):
        strides[place] = step
        step *= shape[place]
    start = -sum(some.start * stride for some, stride in zip(reached, strides[2:], strict=True))
    return View(SCRATCH, start, shape, tuple(strides), "u", size), step


def fill_of(ties: Ties) -> int:
    """The byte of codes that no tap has."""
    return 0 if ties.shared else 255


class Kept(NamedTuple):
    """The codes of all windows of a problem."""

    memory: Array
    view: View


def pool_keeping(spec: PoolSpec, x: Array, *, out: Array, resources: Resources) -> Kept | None:
    """Reduce every window, and keep the codes of the winners if there is room for them."""
    seen, limit = views(x, out), resources.max_workspace
    codes, taken = kept_codes(spec, *seen, limit)
    if taken > limit:
        pool(spec, x, out=out, resources=resources)
        return None
    threads = pool_threads(spec, now_usable(resources.threads, work_of(spec)), limit - taken)
    memory = np.full(taken, fill_of(Ties(rule(spec), family(spec))), np.uint8)
    tasks = planned_winners(spec, *seen, codes, "codes", threads, limit - taken, host())
    execute(tasks, threads, x, out, memory)
    return Kept(memory, codes)


def pool_grad_kept(spec: PoolSpec, dy: Array, codes: Kept, *, out: Array, resources: Resources) -> None:
    """Collect the gradient of every cell by the codes that were kept."""
    limit = resources.max_workspace
    threads = pool_threads(spec, now_usable(resources.threads, work_of(spec)), limit)
    tasks = planned_collection(spec, *views(dy, out), codes.view, threads, limit, host())
    execute(tasks, threads, dy, out, codes.memory)


def pool_with_indices(spec: PoolSpec, x: Array, *, out: Array, indices: Array, resources: Resources) -> None:
    """Reduce every window, and say where in its plane each winner stands."""
    threads, limit = now_usable(resources.threads, work_of(spec)), resources.max_workspace
    tasks = planned_winners(spec, *views(x, out, indices), "indices", threads, limit, host())
    execute(tasks, threads, x, out, indices)


@lru_cache(maxsize=256)
def kept_codes(spec: PoolSpec, x: View, out: View, limit: int) -> tuple[View, int]:
    """Memory for all codes of a problem, in the order of its arrays, or of what these are turned to."""
    arrays, axis = aligned(x, out)
    if limit >= ROOM and turning_pays(spec, axis, x, out):
        axis = None
    swapped = arrays[0].strides[:2] != x.strides[:2] or arrays[0].shape[:2] != x.shape[:2]
    codes, taken = scratch(spec, arrays[0], slice(0, spec.window.in_size[0]), axis)
    codes = replace(codes, place=2)
    return (codes.swapped() if swapped else codes), taken


@lru_cache(maxsize=256)
def planned_winners(
    spec: PoolSpec, x: View, out: View, third: View, kept: str, threads: int, limit: int, isa: Isa
) -> Program:
    """The program of a pool that keeps where its winners stand."""
    ties, tasks = Ties(rule(spec), family(spec)), list[Task]()
    numbers = "bit" if ties.shared else "code"
    if kept == "codes" and limit >= ROOM and turning_pays(spec, aligned(x, out)[1], x, out):
        for images, channels in turned_parts(x, out):
            read, written, codes = (array.cut(0, images).cut(1, channels) for array in (x, out, third))
            (source, target), end = turned(read, written)
            boxes = turned_boxes(spec, target, numbers, forward=True)
            call = by_lines(boxes, (source,), (target, codes), (finding, ties, kept))
            tasks.append(Task((to_pixels(read, source), call, to_planes(target, written)), end))
        return program(tasks)
    (x, out, third), axis = aligned(x, out, third)
    cells = spec.window.in_size
    plane = tuple(math.prod(cells[axis + 1 :]) for axis in range(len(cells)))
    for images, part in shares(out.shape[0], out.shape[2], threads):
        read, *both = (array.cut(0, images) for array in (x, out, third))
        boxes = Boxes(spec, (part.start, part.stop), True, axis, 1, out.shape[1], numbers, near(out, axis))
        # The numbers of cells, as an array that begins at address 0.
        places = (View(SCRATCH, 0, read.shape, (0, 0, *plane), "i", 8),) if kept == "indices" else ()
        tasks.append(Task((by_lines(boxes, (read, *places), both, (finding, ties, kept)),)))
    return program(tasks)


@lru_cache(maxsize=256)
def planned_collection(spec: PoolSpec, dy: View, out: View, codes: View, threads: int, limit: int, isa: Isa) -> Program:
    """The program of a gradient by codes."""
    ties, tasks = Ties(rule(spec), family(spec)), list[Task]()
    numbers = "bit" if ties.shared else "code"
    along = codes.strides[1] == codes.itemsize
    if along and limit >= ROOM and turning_pays(spec, aligned(dy, out)[1], dy, out):
        for images, channels in turned_parts(dy, out):
            read, written, won = (array.cut(0, images).cut(1, channels) for array in (dy, out, codes))
            (source, target), end = turned(read, written)
            boxes = turned_boxes(spec, target, numbers, forward=False)
            call = by_lines(boxes, (source, won), (target,), (collecting, ties, 1))
            tasks.append(Task((to_pixels(read, source), call, to_planes(target, written)), end))
        return program(tasks)
    (dy, out, codes), axis = aligned(dy, out, codes)
    phases = phases_of(axis, spec, dy, out)
    for images, part in shares(out.shape[0], out.shape[2], threads, spec.window.stride[0]):
        some = [array.cut(0, images) for array in (dy, codes, out)]
        bounds = part.start, part.stop
        boxes = Boxes(spec, bounds, False, axis, phases, out.shape[1], numbers, near(out, axis), bounded=False)
        tasks.append(Task((by_lines(boxes, some[:2], some[2:], (collecting, ties, phases)),)))
    return program(tasks)
