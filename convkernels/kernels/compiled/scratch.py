"""Scratch memory that a thread keeps from one call to the next: fresh pages cost as much as filling them."""

from __future__ import annotations

import math
import threading
from typing import Any, Self

import numpy as np

from ...layout import Array
from ...window import Ints

KEPT = 32 * 2**20
"""Bytes that a thread keeps at most; what is larger is allocated for the call."""
LINE = 64
"""Bytes of a cache line, to which arrays are aligned."""


class Arena(threading.local):
    """Arrays one after the other in one piece of memory, which grows to what was needed."""

    def __init__(self) -> None:
        self.memory = np.empty(0, np.uint8)
        self.used = 0
        self.depth = 0

    def __enter__(self) -> Self:
        self.depth += 1
        return self

    def __exit__(self, *failure: object) -> None:
        self.depth -= 1
        if not self.depth:
            if self.used > self.memory.size and self.used <= KEPT:
                self.memory = np.empty(self.used, np.uint8)
            self.used = 0

    def empty(self, shape: Ints, dtype: np.dtype[Any]) -> Array:
        """An array that lasts until the arena is left."""
        size = math.prod(shape) * dtype.itemsize
        start = self.used + -(self.memory.ctypes.data + self.used) % LINE
        self.used = start + size
        if self.used > self.memory.size:
            return np.empty(shape, dtype)
        found: Array = self.memory[start : self.used].view(dtype).reshape(shape)
        return found


arena = Arena()
