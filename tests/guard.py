"""Memory that must not be overstepped, and processes of their own for what may end one."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys

import numpy as np


def child(code, environment=None):
    """Run code, which finds the folder of these tests as its first argument, in a process of its own."""
    command = [sys.executable, "-c", code, os.path.dirname(__file__)]  # noqa: PTH120  # goes to the child as text
    result = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr


def guarded(cells, itemsize, *, at_end):
    """Memory of so many elements flush against a page that must not be touched, behind it or in front."""
    page = mmap.PAGESIZE
    body = -(-cells * itemsize // page) * page
    memory = mmap.mmap(-1, body + 2 * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    for place in (start, start + page + body):
        assert protect(ctypes.c_void_p(place), page, 0) == 0
    offset = page + (body - cells * itemsize if at_end else 0)
    return memory, offset


class Flush:
    """Copies arrays, in their order of axes, to where memory ends or begins; keeps that memory."""

    def __init__(self, *, at_end):
        self.at_end, self.kept = at_end, []

    def __call__(self, array):
        if array is None:
            return None
        memory, offset = guarded(array.size, array.itemsize, at_end=self.at_end)
        self.kept.append(memory)
        ordered = sorted(range(array.ndim), key=lambda axis: -array.strides[axis])
        plain = np.frombuffer(memory, array.dtype, array.size, offset)
        placed = plain.reshape([array.shape[axis] for axis in ordered]).transpose(np.argsort(ordered))
        placed[...] = array
        return placed
