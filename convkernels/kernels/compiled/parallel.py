"""One pool of threads for everything that is compiled; its work releases the interpreter's lock."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

SERIAL = 20_000_000
"""Floating-point operations, some 0.2 ms of a thread's time, below which handing work over costs more than it saves."""


class _Pool:
    """Made when it is first needed, and again by a process that was forked, which has no threads of its parent's."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.executor: ThreadPoolExecutor | None = None
        self.workers = 0

    def get(self, workers: int) -> ThreadPoolExecutor:
        with self.lock:
            if self.executor is None or workers > self.workers:
                from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  # takes 8 ms of the import

                # One that is too small ends by itself when its last task is done.
                self.executor, self.workers = ThreadPoolExecutor(workers, "convkernels"), workers
            return self.executor


_pool = _Pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.__init__)  # type: ignore[misc]  # a new, empty state


def usable(threads: int | None, flops: int) -> int:
    """How many threads to use: those asked for or this process's processors, and one for little work."""
    if flops < SERIAL:
        return 1
    if threads is not None:
        return threads
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(work: Callable[[int, int], None], count: int, threads: int) -> None:
    """Share out ``work(begin, end)`` over so many pieces, neighbours together; this thread takes the first."""
    threads = min(threads, count)
    if threads <= 1:
        work(0, count)
        return
    shares = list(pairwise(count * place // threads for place in range(threads + 1)))
    futures = [_pool.get(threads - 1).submit(work, *share) for share in shares[1:]]
    try:
        work(*shares[0])
    finally:
        for future in futures:
            future.exception()  # waits, for what they write must not outlive the call
    for future in futures:
        future.result()
