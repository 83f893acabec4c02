"""Loops around tiles: in each loop, every operand moves by a stride of its own."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ...layout import Array
from .tile import ARGUMENTS, WORD

LOOPS = 3
"""Loops beside the innermost one, over tiles."""


@intrinsic
def call_tile(typing_context, code, numbers):  # type: ignore[no-untyped-def]
    """Call the code at an address with a tuple of integers."""

    def generate(context, builder, signature, given):  # type: ignore[no-untyped-def]
        kind = ir.FunctionType(ir.VoidType(), [WORD] * len(ARGUMENTS))
        listed = [builder.extract_value(given[1], place) for place in range(len(ARGUMENTS))]
        builder.call(builder.inttoptr(given[0], kind.as_pointer()), listed)
        return context.get_dummy_value()

    return types.void(code, numbers), generate


def _call_tile(code: int, numbers: Sequence[int]) -> None:
    """Call the code at an address with integers."""
    ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * len(ARGUMENTS))(int(code))(*map(int, numbers))


if numba.config.DISABLE_JIT:
    call_tile = _call_tile  # the loops around it are Python's, too


@numba.njit("(int64[::1], int64[::1], int64[::1], int64[:, ::1], int64[::1], int64[::1])", nogil=True, cache=True)  # type: ignore[untyped-decorator]
def nest(codes: Array, starts: Array, counts: Array, strides: Array, base: Array, numbers: Array) -> None:
    """Run tiles at ``base + i * strides[0] + j * strides[1] + k * strides[2] + start * strides[3]``.

    The columns of `strides`, and `base`, are for a, b, c and init; `numbers` are the tile's other arguments, of which
    the last, the columns, holds in the first loop's last step, and the one before it else.
    """
    a_offsets, b_offsets, taps, depth = numbers[0], numbers[1], numbers[2], numbers[3]
    a_row, a_depth, b_depth, c_row, init_row = numbers[4], numbers[5], numbers[6], numbers[7], numbers[8]
    for i in range(counts[0]):
        last = numbers[10] if i == counts[0] - 1 else numbers[9]
        for j in range(counts[1]):
            for k in range(counts[2]):
                moved = base + i * strides[0] + j * strides[1] + k * strides[2]
                for n in range(codes.size):
                    a, b, c, init = (
                        moved[0] + starts[n] * strides[3, 0],
                        moved[1] + starts[n] * strides[3, 1],
                        moved[2] + starts[n] * strides[3, 2],
                        moved[3] + starts[n] * strides[3, 3],
                    )
                    call_tile(
                        codes[n],
                        (
                            a,
                            b,
                            c,
                            init,
                            a_offsets,
                            b_offsets,
                            taps,
                            depth,
                            a_row,
                            a_depth,
                            b_depth,
                            c_row,
                            init_row,
                            last,
                        ),
                    )


def split(size: int, most: int) -> tuple[Array, list[int]]:
    """Cut rows into tiles of nearly the same height: where each starts, and its rows.

    Examples
    --------
    >>> split(55, 14)
    (array([ 0, 14, 28, 42]), [14, 14, 14, 13])
    """
    count = -(-size // most)
    least, more = divmod(size, count)
    heights = [least + 1] * more + [least] * (count - more)
    return np.cumsum([0, *heights[:-1]]), heights
