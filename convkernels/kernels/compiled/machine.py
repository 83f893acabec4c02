"""What loops over addresses need of the machine: calling emitted code, copying bytes and clearing them.

Each has a twin in plain Python, so that the loops run uncompiled under NUMBA_DISABLE_JIT, too.
"""

from __future__ import annotations

import ctypes

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.unsafe.ndarray import to_fixed_tuple

from .tile import WORD


@intrinsic
def invoke(typing_context, code, numbers):  # type: ignore[no-untyped-def]
    """Call the code at an address with a tuple of integers."""

    def generate(context, builder, signature, given):  # type: ignore[no-untyped-def]
        count = len(numbers)
        kind = ir.FunctionType(ir.VoidType(), [WORD] * count)
        listed = [builder.extract_value(given[1], place) for place in range(count)]
        builder.call(builder.inttoptr(given[0], kind.as_pointer()), listed)
        return context.get_dummy_value()

    return types.void(code, numbers), generate


@intrinsic
def copy_bytes(typing_context, target, source, count):  # type: ignore[no-untyped-def]
    """Copy so many bytes from one address to another; the two ranges do not overlap."""

    def generate(context, builder, signature, given):  # type: ignore[no-untyped-def]
        to, origin = (builder.inttoptr(address, cgutils.voidptr_t) for address in given[:2])
        cgutils.raw_memcpy(builder, to, origin, given[2], 1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


@intrinsic
def clear_bytes(typing_context, target, count):  # type: ignore[no-untyped-def]
    """Set so many bytes to zero."""

    def generate(context, builder, signature, given):  # type: ignore[no-untyped-def]
        cgutils.memset(builder, builder.inttoptr(given[0], cgutils.voidptr_t), given[1], 0)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


fixed = to_fixed_tuple
"""``fixed(array, count)``: the first numbers of an array as a tuple.

Numba takes 5 microseconds to unpack a call's named tuples of 60 integers, and 1 for an array that is unpacked inside.
"""

if numba.config.DISABLE_JIT:

    def fixed(array, count):  # type: ignore[no-untyped-def]
        """The first numbers of an array."""
        return tuple(map(int, array[:count]))

    def invoke(code, numbers):  # type: ignore[no-untyped-def]
        """Call the code at an address with integers."""
        ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * len(numbers))(int(code))(*map(int, numbers))

    def copy_bytes(target, source, count):  # type: ignore[no-untyped-def]
        """Copy bytes."""
        ctypes.memmove(int(target), int(source), int(count))

    def clear_bytes(target, count):  # type: ignore[no-untyped-def]
        """Set bytes to zero."""
        ctypes.memset(int(target), 0, int(count))
