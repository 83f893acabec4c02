"""How many threads work gets."""

from __future__ import annotations

import os

SERIAL = 20_000_000
"""Floating-point operations, some 0.2 ms of a thread's time, below which handing work over costs more than it saves."""


def usable(threads: int | None, flops: int) -> int:
    """How many threads to use: those asked for or this process's processors, and one for little work."""
    if flops < SERIAL:
        return 1
    if threads is not None:
        return threads
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
