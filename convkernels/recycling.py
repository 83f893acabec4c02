"""Memory of large results, which is used again once nobody refers to it.

Fresh memory costs more than many a kernel: the system clears its pages when they are first written, and threads that
write to new pages wait for each other. (A training step of the MNIST network spent 24 of its 72 ms on that.)
"""

from __future__ import annotations

import math
import os
import sys
from sys import getrefcount
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
        self.pieces: list[np.ndarray[Any, Any]] = [np.empty(0, np.uint8)]
        self.starts: list[int] = []
        self.idle = getrefcount(self.pieces[0])
        self.pieces.clear()

    def put(self, piece: np.ndarray[Any, Any], start: int) -> None:
        """Take in a piece as the last, and let go of the first ones where there are too many bytes."""
        self.pieces.append(piece)
        self.starts.append(start)
        self.bytes += piece.size
        while self.bytes > KEPT:
            self.drop(0)

    def drop(self, place: int) -> tuple[np.ndarray[Any, Any], int]:
        """Let go of a piece."""
        piece = self.pieces.pop(place)
        self.bytes -= piece.size
        return piece, self.starts.pop(place)

    def take(self, size: int) -> tuple[np.ndarray[Any, Any], int]:
        """A free piece of about that size, or a new one, and where its first line starts, which takes long to find."""
        with self.lock:
            pieces = self.pieces
            last = place = len(pieces) - 1
            while place >= 0:
                if size <= pieces[place].size <= WASTED * size and getrefcount(pieces[place]) == self.idle:
                    break
                place -= 1
            if place == last >= 0:  # as for who lets go of each result before the next: this takes half the time
                return pieces[place], self.starts[place]
            if place >= 0:
                found = self.drop(place)
            else:
                piece = np.empty(size, np.uint8)
                found = piece, -piece.ctypes.data % LINE
            self.put(*found)
        return found

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
