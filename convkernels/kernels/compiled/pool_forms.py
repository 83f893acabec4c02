"""Programs of pools that reduce planes of one form or another, for which there is code of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ...pool_spec import PoolSpec
from ...views import slices
from . import reductions
from .calls import SCRATCH, Call, Program, Task, View, by_pairs, by_planes, by_slides, by_strides, program
from .isa import Isa
from .pairs import in_pairs
from .reductions import Reduction
from .slides import slide
from .strides import strides

SMALL = 128
"""Cells of planes that are reduced together, as many as a vector has lanes: 2048 of 7x7 took 16 us one by one."""


def formed(
    spec: PoolSpec,
    arrays: tuple[View, View],
    reduction: Reduction,
    threads: int,
    isa: Isa,
    *,
    forward: bool,
    ordered: bool,
    parted: bool,
) -> Program | None:
    """Windows to outputs, or outputs to cells, if planes have such a form.

    Results may be `ordered` otherwise than tap by tap, and `parted` ones use a buffer of rows.
    """
    if reduction.name not in ("max", "min", "sum"):
        return None
    divisor = spec.divisor_override or spec.window.taps
    if ordered and whole(spec, arrays[0 if forward else 1]):
        first, second = arrays
        small = spec.window.taps if spec.window.taps <= SMALL and first.on_end(1) and second.on_end(1) else 0
        planes = (reductions.by_planes, reduction, small) if forward else (reductions.over_planes, reduction)
        return shared(0, arrays, threads, lambda *some: by_planes(some, divisor, planes))
    # Images, or channels where these do not come out even.
    axis = 0 if spec.batch % threads == 0 or spec.batch >= 4 * threads else 1
    if in_pairs(spec.window, isa, *arrays):
        pairs = reductions.by_pairs if forward else reductions.over_pairs, reduction, spec.window.in_size[1]
        return shared(axis, arrays, threads, lambda *some: by_pairs(some, divisor, pairs))
    lanes, size = isa.lanes(arrays[0].itemsize), arrays[0].itemsize
    sliding = slide(spec, lanes, *arrays, forward=forward) if parted else None
    if sliding:
        slides = reductions.by_slides, reduction, sliding
        masks, room = sliding.masks(lanes), sliding.buffer(lanes, size)
        buffer = View(SCRATCH, 0, (room,), (0, 0), arrays[0].kind, size)
        return shared(
            axis, arrays, threads, lambda read, written: by_slides(read, buffer, written, masks, divisor, slides), room
        )
    if forward and ordered and strides(spec, lanes, *arrays):
        rows = reductions.by_strides, reduction, replace(spec, batch=1, channels=1)
        step = spec.window.stride[0]
        return shared(axis, arrays, threads, lambda read, written: by_strides(read, written, step, divisor, rows))
    return None


def shared(
    axis: int, arrays: tuple[View, View], threads: int, call: Callable[[View, View], Call], room: int = 0
) -> Program:
    """A call for each thread's part of the images or channels, which need so much scratch memory."""
    size = arrays[0].shape[axis]
    return program(
        [
            Task((call(*(array.cut(axis, some) for array in arrays)),), room)
            for some in slices(size, max(1, -(-size // threads)))
        ]
    )


def whole(spec: PoolSpec, plane: View) -> bool:
    """Whether there is one window, which is all of a plane that lies in one piece."""
    window = spec.window
    alone = window.kernel_size == window.in_size and not window.padded and set(window.out_size) == {1}
    return plane.on_end(2) and alone and set(window.dilation) == {1} and window.taps > 1
