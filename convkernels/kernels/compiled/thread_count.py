"""How many threads work gets."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import cache, partial
from typing import TypeVar

Plan = TypeVar("Plan")

SERIAL = 1_500_000
"""Floating-point operations, some 20 us of a thread's time, below which handing work over costs more than it saves."""
LONELY = 25_000_000
"""Those below which waking threads that sleep does, which costs some 100 us."""
SHORT = 0.002
"""Seconds after which threads that had no work sleep."""

_last = 0.0


def usable(threads: int | None, flops: int) -> int:
    """How many threads to use: those asked for or this process's processors, and one for little work."""
    if flops < SERIAL:
        return 1
    if threads is not None:
        return threads
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def now_usable(threads: int | None, flops: int) -> int:
    """How many to use now: one, too, for a small call that comes alone, after which the others may sleep on."""
    global _last  # when the last call came
    if flops < SERIAL:
        return 1
    before, _last = _last, time.perf_counter()
    return 1 if flops < LONELY and _last - before > SHORT else usable(threads, flops)


def by_threads(threads: int | None, flops: int, make: Callable[[int], Plan]) -> Callable[[], Plan]:
    """What gives the plan for as many threads as there should be now; each is made once."""
    made = cache(make)
    if threads == 1 or flops < SERIAL:
        return partial(made, 1)
    return lambda: made(now_usable(threads, flops))
