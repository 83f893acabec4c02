"""Scratch memory that a thread keeps from one call to the next: fresh pages cost as much as filling them."""

from __future__ import annotations

import math
import threading
from typing import Any, Self

import numpy as np

from ...layout import Array
from ...window import Ints

KEPT = 64 * 2**20
"""Bytes that a thread keeps at most; what is larger is allocated for the call."""
LINE = 64
"""Bytes of a cache line, to which pieces are aligned."""


def rounded(size: int) -> int:
    """So many bytes, to the end of a line."""
    return size + -size % LINE


class Arena(threading.local):
    """Pieces one after the other in one block of memory, which grows to what was needed.

    Within ``with arena:`` pieces can be reserved; leaving gives back those of that block.
    """

    def __init__(self) -> None:
        self.memory, self.start = np.empty(0, np.uint8), 0
        self.used = self.most = 0
        self.marks: list[int] = []
        self.others: list[Array] = []

    def __enter__(self) -> Self:
        self.marks.append(self.used)
        return self

    def __exit__(self, *failure: object) -> None:
        self.used = self.marks.pop()
        if not self.marks:
            self.others.clear()  # before there is a larger block, so as not to have both
            if self.memory.size < self.most <= KEPT:
                self.memory = np.empty(self.most, np.uint8)
                self.start = self.memory.ctypes.data
            self.most = 0

    def free(self, size: int) -> tuple[Array, int]:
        """Memory and the address in it of so many bytes, which are there until others are reserved, or it is let go of.

        For compiled code that runs at once: this takes a fifth of the time of entering the arena.
        """
        own = self.__dict__  # this thread's, looked up once: each attribute takes as long
        used, kept = own["used"], own["memory"]
        wanted = used + size + LINE
        if wanted > kept.size:
            if self.marks or wanted > KEPT:
                self.most = max(self.most, wanted)
                memory = np.empty(size + LINE, np.uint8)
                start = memory.ctypes.data
                return memory, start + -start % LINE
            self.memory = kept = np.empty(0, np.uint8)  # before there is a larger block, so as not to have both
            self.memory = kept = np.empty(wanted, np.uint8)
            self.start = kept.ctypes.data
        start = own["start"] + used
        return kept, start + -start % LINE

    def reserve(self, size: int) -> int:
        """The address of so many bytes, which are there until the arena is left."""
        memory, start = self.take(size)
        return (self.start if memory is self.memory else memory.ctypes.data) + start

    def empty(self, shape: Ints, dtype: np.dtype[Any]) -> Array:
        """The same as an array."""
        size = math.prod(shape) * dtype.itemsize
        memory, start = self.take(size)
        found: Array = memory[start : start + size].view(dtype).reshape(shape)
        return found

    def take(self, size: int) -> tuple[Array, int]:
        """Memory, and from where on so many bytes of it are free."""
        self.used += size + LINE
        self.most = max(self.most, self.used)
        if self.used <= self.memory.size:
            start = self.used - size - LINE
            return self.memory, start + -(self.start + start) % LINE
        self.others.append(np.empty(size + LINE, np.uint8))
        return self.others[-1], -self.others[-1].ctypes.data % LINE


arena = Arena()
