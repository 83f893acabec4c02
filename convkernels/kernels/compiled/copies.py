"""Copies between any two orders of memory, for what tiles read or write in another order than it lies in."""

from __future__ import annotations

import ctypes
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ...layout import Array
from .isa import host
from .tile import WORD
from .turn import address

WORDS: dict[int, np.dtype[Any]] = {4: np.dtype(np.uint32), 8: np.dtype(np.uint64)}
HUGE = 2**62


@intrinsic
def call_turn(typing_context, code, source, source_step, target, target_step):  # type: ignore[no-untyped-def]
    """Turn the square at an address."""

    def generate(context, builder, signature, given):  # type: ignore[no-untyped-def]
        kind = ir.FunctionType(ir.VoidType(), [WORD] * 4)
        builder.call(builder.inttoptr(given[0], kind.as_pointer()), given[1:])
        return context.get_dummy_value()

    return types.void(code, source, source_step, target, target_step), generate


def _call_turn(code: int, *numbers: int) -> None:
    """Turn the square at an address."""
    ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)(int(code))(*map(int, numbers))


if numba.config.DISABLE_JIT:
    call_turn = _call_turn  # the loops around it are Python's, too


def _signatures() -> list[Any]:
    return [
        types.void(
            types.Array(word, 4, "A"),
            types.Array(word, 4, "A", readonly=True),
            types.int64,
            types.int64,
            types.int64,
            types.int64,
        )
        for word in (types.uint32, types.uint64)
    ]


@numba.njit(_signatures(), nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _turn(target: Array, source: Array, to: int, origin: int, code: int, side: int) -> None:
    """Turn the last two axes in squares; what is left over is copied element by element.

    `to` and `origin` are the addresses of both arrays. The last axis is contiguous in the target, the one before it in
    the source.
    """
    into, out_of = target.strides, source.strides
    rows, columns = target.shape[2], target.shape[3]
    whole_rows, whole_columns = rows - rows % side, columns - columns % side
    for i in range(target.shape[0]):
        for j in range(target.shape[1]):
            for k in range(0, whole_rows, side):
                for n in range(0, whole_columns, side):
                    read = origin + i * out_of[0] + j * out_of[1] + k * out_of[2] + n * out_of[3]
                    written = to + i * into[0] + j * into[1] + k * into[2] + n * into[3]
                    call_turn(code, read, out_of[3], written, into[2])
                for n in range(whole_columns, columns):
                    for m in range(k, k + side):
                        target[i, j, m, n] = source[i, j, m, n]
            for k in range(whole_rows, rows):
                for n in range(columns):
                    target[i, j, k, n] = source[i, j, k, n]


def innermost(array: Array) -> int:
    """The axis with the shortest steps."""
    steps = [abs(step) if size > 1 else HUGE for step, size in zip(array.strides, array.shape, strict=True)]
    return steps.index(min(steps))


def copy(target: Array, source: Array) -> None:
    """Copy an array of four axes into another of the same shape and type."""
    into, out_of, size = innermost(target), innermost(source), target.itemsize
    turned = target.strides[into] == size == source.strides[out_of] and into != out_of
    if not turned or not source.flags.aligned or not target.flags.aligned:
        target[...] = source
        return
    isa, word = host(), WORDS[size]
    order = (*(axis for axis in range(4) if axis not in (into, out_of)), out_of, into)
    moved, read = target.view(word).transpose(order), source.view(word).transpose(order)
    _turn(moved, read, moved.ctypes.data, read.ctypes.data, address(size, isa), isa.lanes(size))
