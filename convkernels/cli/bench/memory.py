"""The memory that a call takes at its peak, beyond what was there before; where the system tells."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

Result = TypeVar("Result")

PROCESS = Path("/proc/self")
RESET_PEAK = "5"
"""What /proc/self/clear_refs takes to set the peak back (proc_pid_clear_refs(5))."""
MOST_ARENAS = -8
"""M_ARENA_MAX of glibc's malloc.h."""


def peak_of(run: Callable[[], Result]) -> tuple[Result, int | None]:
    """Run once; the result, and the bytes that became resident at the peak, or None where that is not to be had.

    It runs in a thread of its own, which has kept no scratch memory from earlier calls.
    """
    with ThreadPoolExecutor(1) as thread:
        before = _reset()
        found = thread.submit(run).result()
        peak = _status("VmHWM") if before is not None else None
    return found, None if peak is None or before is None else max(0, peak - before)


def _reset() -> int | None:
    """Give free memory back and set the peak back; the bytes resident now."""
    try:
        # Otherwise what earlier calls freed would be taken again unseen.
        _allocator().malloc_trim(0)
        PROCESS.joinpath("clear_refs").write_text(RESET_PEAK)
    except (AttributeError, OSError, TypeError):
        return None
    return _status("VmRSS")


@cache
def _allocator() -> Any:
    """The C library, told to keep all memory in one arena, for it trims no other one's end."""
    library = ctypes.CDLL(None)
    library.mallopt(MOST_ARENAS, 1)
    return library


def _status(name: str) -> int | None:
    for line in PROCESS.joinpath("status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None
