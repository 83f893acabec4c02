"""Memory of large results, which is used again once nobody refers to it.

Fresh memory costs more than many a kernel: the system clears its pages when they are first written, and threads that
write to new pages wait for each other. (A training step of the MNIST network spent 24 of its 72 ms on that.)
"""

from __future__ import annotations

import math
import os
import sys
from threading import Lock
from typing import Any

import numpy as np

LARGE = 2**17
"""Bytes from which on memory is kept. Pieces of that size glibc gives back to the system, until it has seen larger ones
freed: results of 512 KiB, six of which were held at a time, took 250 microseconds each without this, and 40 with it."""
KEPT = 2**28
"""Bytes of results that are kept at most, in use or not."""
WASTED = 1.25
"""How much larger than needed a piece may be."""
LINE = 64
"""Bytes to which results are aligned, those of a cache line."""


class Recycler:
    """Pieces of memory, those used last at the end.

    A result is a view of its piece, and so is every view of it: a piece to which there are no more references than to
    one that is in this list alone is free.
    """

    def __init__(self) -> None:
        self.lock, self.bytes = Lock(), 0
        self.starts: dict[int, int] = {}
        self.pieces: list[np.ndarray[Any, Any]] = [np.empty(0, np.uint8)]
        self.idle = self.references(0)
        self.pieces.clear()

    def references(self, place: int) -> int:
        """References to a piece, as seen from here."""
        return sys.getrefcount(self.pieces[place])

    def put(self, piece: np.ndarray[Any, Any]) -> None:
        """Take in a piece as the last, and let go of the first ones where there are too many bytes."""
        self.pieces.append(piece)
        self.bytes += piece.size
        while self.bytes > KEPT:
            first = self.pieces.pop(0)
            self.bytes -= first.size
            del self.starts[id(first)]

    def take(self, size: int) -> tuple[np.ndarray[Any, Any], int]:
        """A free piece of about that size, or a new one, and where its first line starts, which takes long to find."""
        with self.lock:
            for place in reversed(range(len(self.pieces))):
                if size <= self.pieces[place].size <= WASTED * size and self.references(place) == self.idle:
                    self.bytes -= self.pieces[place].size
                    break
            else:
                place = -1
            piece = self.pieces.pop(place) if place >= 0 else np.empty(size, np.uint8)
            start = self.starts[id(piece)] if place >= 0 else -piece.ctypes.data % LINE
            self.starts[id(piece)] = start
            self.put(piece)
        return piece, start

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        """A contiguous array whose numbers are still to be written."""
        size = math.prod(shape) * dtype.itemsize
        if size < LARGE or not COUNTS:
            return np.empty(shape, dtype)
        piece, start = self.take(size + LINE)
        return np.ndarray(shape, dtype, piece, start)


COUNTS = not hasattr(sys, "_is_gil_enabled") or sys._is_gil_enabled()
"""Whether the interpreter counts references exactly, as it does with its lock."""
recycler = Recycler()
empty = recycler.empty
if hasattr(os, "register_at_fork"):
    # Another thread of the parent's may have held the lock.
    os.register_at_fork(after_in_child=recycler.__init__)  # type: ignore[misc]  # a new, empty state
