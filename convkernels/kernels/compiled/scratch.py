"""Scratch memory that a thread keeps from one call to the next: fresh pages cost as much as filling them."""

from __future__ import annotations

import threading
from typing import Self

import numpy as np

from ...layout import Array

KEPT = 32 * 2**20
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
            if self.memory.size < self.most <= KEPT:
                self.memory = np.empty(self.most, np.uint8)
                self.start = self.memory.ctypes.data
            self.others.clear()
            self.most = 0

    def reserve(self, size: int) -> int:
        """The address of so many bytes, which are there until the arena is left."""
        size += LINE
        self.used += size
        self.most = max(self.most, self.used)
        if self.used <= self.memory.size:
            start = self.start + self.used - size
        else:
            self.others.append(np.empty(size, np.uint8))
            start = self.others[-1].ctypes.data
        return start + -start % LINE


arena = Arena()
