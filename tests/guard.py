"""Memory that must not be overstepped, and processes of their own for what may end one."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys

import numpy as np


def child(code, environment=None):
    """Run code, which finds the folder of these tests as its first argument, in a process of its own.

    Where it fails, what it printed last is said, and of a fault where it was.
    """
    folder = os.path.dirname(__file__)  # noqa: PTH120  # goes to the child as text
    command = [sys.executable, "-X", "faulthandler", "-c", code, folder]
    result = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=300)
    said = result.stdout.splitlines()[-1:]
    assert result.returncode == 0, "\n".join([f"exit code {result.returncode}", *said, result.stderr])


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


def flush_arrays(problem):
    """A problem's arrays and outputs where memory ends, then where it begins; each is printed before it is used."""
    for at_end in (True, False):
        flush = Flush(at_end=at_end)
        arrays = {role: flush(array) for role, array in problem.arrays.items()}
        outputs = {name: flush(array) for name, array in problem.outputs().items()}
        print(problem, "at the end" if at_end else "at the beginning", flush=True)
        yield arrays, outputs


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
