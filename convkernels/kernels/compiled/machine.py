"""What loops over addresses need of the machine: calls of emitted code, arrays at addresses, bytes, words of threads.

What loops use has a twin in plain Python, so that they run uncompiled under NUMBA_DISABLE_JIT, too.
"""

from __future__ import annotations

import ctypes
import platform
import struct
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ...layout import Array
from .tile import WORD

DISABLED = bool(numba.config.DISABLE_JIT)
WORDS = types.int64
PAUSES = {"x86_64": "llvm.x86.sse2.pause", "AMD64": "llvm.x86.sse2.pause"}
"""The instruction by which a thread that waits for a word leaves the processor's units to others."""


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
def set_bytes(typing_context, target, count, value):  # type: ignore[no-untyped-def]
    """Set so many bytes to a value."""

    def generate(context, builder, signature, given):  # type: ignore[no-untyped-def]
        to, byte = builder.inttoptr(given[0], cgutils.voidptr_t), builder.trunc(given[2], cgutils.int8_t)
        cgutils.memset(builder, to, given[1], byte)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


@intrinsic
def pointer(typing_context, address, kind):  # type: ignore[no-untyped-def]
    """Take an address for that of numbers of a kind, or of an array's."""

    def generate(context, builder, signature, given):  # type: ignore[no-untyped-def]
        return builder.inttoptr(given[0], context.get_value_type(signature.return_type))

    element = kind.dtype if isinstance(kind, types.Array) else kind.instance_type
    return types.CPointer(element)(types.int64, kind), generate


@intrinsic
def read(typing_context, address):  # type: ignore[no-untyped-def]
    """Read a word that other threads write."""

    def generate(context, builder, signature, given):  # type: ignore[no-untyped-def]
        return builder.load_atomic(builder.inttoptr(given[0], WORD.as_pointer()), "seq_cst", 8)

    return types.int64(types.int64), generate


@intrinsic
def increase(typing_context, address, amount):  # type: ignore[no-untyped-def]
    """Add to a word to which other threads add, too; what it was before. All that came before it is seen by then."""

    def generate(context, builder, signature, given):  # type: ignore[no-untyped-def]
        return builder.atomic_rmw("add", builder.inttoptr(given[0], WORD.as_pointer()), given[1], "seq_cst")

    return types.int64(types.int64, types.int64), generate


@intrinsic
def pause(typing_context):  # type: ignore[no-untyped-def]
    """Wait for an instant."""

    def generate(context, builder, signature, given):  # type: ignore[no-untyped-def]
        if platform.machine() in PAUSES:
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, PAUSES[platform.machine()]), [])
        return context.get_dummy_value()

    return types.void(), generate


@numba.njit(inline="always")  # type: ignore[untyped-decorator]
def words_at(address: int, count: int) -> Array:
    """The words at an address as an array."""
    found: Array = numba.carray(pointer(address, WORDS), count)
    return found


@numba.njit(inline="always")  # type: ignore[untyped-decorator]
def singles_at(address: int, count: int) -> Array:
    """The float32 numbers at an address."""
    found: Array = numba.carray(pointer(address, types.float32), count)
    return found


@numba.njit(inline="always")  # type: ignore[untyped-decorator]
def doubles_at(address: int, count: int) -> Array:
    """The float64 numbers at an address."""
    found: Array = numba.carray(pointer(address, types.float64), count)
    return found


@numba.njit(inline="always")  # type: ignore[untyped-decorator]
def like(array: Array, address: int, count: int) -> Array:
    """The numbers of an array's kind at an address."""
    found: Array = numba.carray(pointer(address, array), count)
    return found


@intrinsic(prefer_literal=True)
def fixed(typing_context, array, count):  # type: ignore[no-untyped-def]
    """The first words of an array as a tuple of a constant length.

    Numba takes 5 microseconds to unpack a call's named tuples of 60 integers, and 1 for an array that is unpacked
    inside by its `to_fixed_tuple`, which copies the whole tuple for each number.
    """
    several = types.UniTuple(types.int64, count.literal_value)

    def generate(context, builder, signature, given):  # type: ignore[no-untyped-def]
        words = context.make_array(array)(context, builder, given[0]).data
        places = (cgutils.gep_inbounds(builder, words, place) for place in range(several.count))
        return context.make_tuple(builder, signature.return_type, [builder.load(place) for place in places])

    return several(array, count), generate


def words(kind: Any) -> types.Type:
    """The compiled type of a named tuple of integers."""
    return types.NamedUniTuple(WORDS, len(kind._fields), kind)


if DISABLED:

    def numbers_at(kind: Any, address: int, count: int) -> Array:
        """The numbers at an address as an array."""
        return np.ctypeslib.as_array((kind * int(count)).from_address(int(address)))

    words_at = partial(numbers_at, ctypes.c_int64)
    singles_at = partial(numbers_at, ctypes.c_float)
    doubles_at = partial(numbers_at, ctypes.c_double)

    def like(array, address, count):  # type: ignore[no-untyped-def]
        """The numbers of an array's kind at an address."""
        return numbers_at(ctypes.c_float if array.itemsize == 4 else ctypes.c_double, address, count)

    def fixed(array, count):  # type: ignore[no-untyped-def]
        """The first numbers of an array."""
        return tuple(map(int, array[:count]))

    def invoke(code, numbers):  # type: ignore[no-untyped-def]
        """Call the code at an address with integers."""
        ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * len(numbers))(int(code))(*map(int, numbers))

    def copy_bytes(target, source, count):  # type: ignore[no-untyped-def]
        """Copy bytes."""
        ctypes.memmove(int(target), int(source), int(count))

    def set_bytes(target, count, value):  # type: ignore[no-untyped-def]
        """Set bytes to a value."""
        ctypes.memset(int(target), int(value), int(count))


class Entry(NamedTuple):
    """Compiled code by its address and, where nothing is compiled, the function itself.

    It takes the address of its arguments as words, the first piece of its work and the one behind the last, and scratch
    memory.
    """

    code: int
    function: Callable[[int, int, int, int], None]


def entry(function: Callable[[int, int, int, int], None], **options: Any) -> Entry:
    """Compile a function of that kind."""
    if DISABLED:
        return Entry(0, function)
    return Entry(numba.cfunc(types.void(*[WORDS] * 4), cache=True, **options)(function).address, function)


_word = ctypes.c_int64.from_address
_BEHIND_HEADER = object.__basicsize__


def address(array: Array) -> int:
    """Where an array's first element is.

    NumPy's C interface promises it right behind the object's header; ``array.ctypes.data`` takes 1 us to say the same.
    """
    return _word(id(array) + _BEHIND_HEADER).value


_BEHIND_BYTES = bytes.__basicsize__ - 1  # which counts the 0 at the end


def listed(count: int) -> Callable[..., bytes]:
    """What packs so many words, such as arrays by their ``id``, where compiled code finds the rest.

    That takes 0.7 us for eight arrays, and their addresses in an array 2.
    """
    return struct.Struct(f"{count}q").pack


def behind(array: Array, start: int) -> Array:
    """What stands so many bytes behind an array's first element: its address, for whoever keeps the array."""
    if not start:
        return array
    return np.frombuffer(memoryview((ctypes.c_char * 1).from_address(address(array) + start)), np.uint8)


def address_of(packed: bytes) -> int:
    """Where packed words are."""
    return id(packed) + _BEHIND_BYTES


_BEHIND_SIZE = tuple.__basicsize__


def items_of(objects: tuple[object, ...]) -> int:
    """Where the items of a tuple are, each a word that is its ``id``: packing those of eight arrays takes 1 us."""
    return id(objects) + _BEHIND_SIZE


@numba.njit(inline="always")  # type: ignore[untyped-decorator]
def data_of(array: int) -> int:
    """Where the first element is of an array, given by its ``id``."""
    found: int = words_at(array + _BEHIND_HEADER, 1)[0]
    return found


def tables(*arrays: Array) -> list[int]:
    """Arrays of words as arguments: where each is, and its size."""
    return [number for array in arrays for number in (address(array), array.size)]


@numba.njit(inline="always")  # type: ignore[untyped-decorator]
def array_in(words: Array, place: int) -> Array:
    """One of the arrays that arguments begin with."""
    found: Array = words_at(words[2 * place], words[2 * place + 1])
    return found
