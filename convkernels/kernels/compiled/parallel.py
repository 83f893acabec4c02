"""One pool of threads for everything that is compiled, to which work is handed over in a microsecond.

Work is an `Entry` and a number of pieces. Each thread has a range of them, the same one in every call of as many, whose
data its own cache may still hold: fetching what another's does takes longer than the work of small calls (norms of
14x14 cells of 1024 channels took 58 us, and 45 so). A thread takes its pieces by increasing a counter, and when none
are left it helps the others with theirs.

A thread that has nothing to do waits for the next work in compiled code, without the interpreter's lock, and sleeps if
none comes. It must not sleep at once: waking takes the system some 50 us, and where the system sees no cache that
processors share, the woken thread stays on the processor of the one that woke it for milliseconds (calls of up to
2.5 ms took as long on two threads as on one). Nobody waits for a thread that is not there yet: the others do its part.

The words that threads share are on a *board*, each on a cache line of its own:

    ticket      odd while there is work; no number is used twice
    inside      how many threads beside the caller are at work, or about to look at the ticket again
    work        what to do: code, words, pieces, how many to take at a time, threads, memory, each one's bytes of it
    next        for each thread, how many pieces of its range are taken
    asleep      for each thread, whether it sleeps

A thread goes inside, looks at the ticket again, and works only if it is the one that it came for; the caller changes
the ticket, then waits until nobody is inside. So whichever comes first, no thread works for a call that is over.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
from threading import Lock, Thread

import numba
import numpy as np
from numba import types

from ...layout import Array
from .machine import DISABLED, WORDS, Entry, address, increase, invoke, pause, read, words_at
from .scratch import LINE, arena

TICKET, INSIDE, WORK, NEXT, ASLEEP = range(0, 5 * LINE, LINE)
"""Where the words are on the board, in bytes; from NEXT on there are two lines for each thread."""
EACH = 2 * LINE
"""Bytes from a thread's to the next's."""
BYTES = 8
"""Of a word."""
PATIENCE = 100_000
"""How often a thread looks for work before it sleeps, which takes some 2 ms."""
UNEVEN = 1.25
"""How much longer the busiest thread may work than the mean of all, where else all would read all weights."""
SHARES = 4
"""The parts that a thread's range is cut into, so that one that is held up does not hold up the others."""


@numba.njit(types.void(*[WORDS] * 2), nogil=True, cache=True)  # type: ignore[untyped-decorator]
def take(board: int, slot: int) -> None:
    """Work on pieces until none are left, on those of a thread's own range first."""
    of = words_at(board + WORK, 7)
    code, words, count, step, threads, memory = of[0], of[1], of[2], of[3], of[4], of[5] + slot * of[6]
    for n in range(threads):
        whose = (slot + n) % threads
        first, end = count * whose // threads, count * (whose + 1) // threads
        begin = first + increase(board + NEXT + whose * EACH, step)
        while begin < end:
            invoke(code, (words, begin, min(end, begin + step), memory))
            begin = first + increase(board + NEXT + whose * EACH, step)


@numba.njit(types.void(*[WORDS] * 8), nogil=True, cache=True)  # type: ignore[untyped-decorator]
def share(board: int, code: int, words: int, count: int, step: int, threads: int, memory: int, room: int) -> None:
    """Work together with the threads that are there."""
    of = words_at(board + WORK, 7)
    of[0], of[1], of[2], of[3], of[4], of[5], of[6] = code, words, count, step, threads, memory, room
    for slot in range(threads):
        words_at(board + NEXT + slot * EACH, 1)[0] = 0
    increase(board + TICKET, 1)
    take(board, 0)
    increase(board + TICKET, 1)
    while read(board + INSIDE):
        pause()


@numba.njit(types.void(*[WORDS] * 3), nogil=True, cache=True)  # type: ignore[untyped-decorator]
def serve(board: int, slot: int, patience: int) -> None:
    """Take part in all work, until there was none for a while."""
    increase(board + ASLEEP + slot * EACH, -1)
    done = waited = 0
    while waited < patience:
        ticket = read(board + TICKET)
        if ticket % 2 and ticket != done:
            increase(board + INSIDE, 1)
            if read(board + TICKET) == ticket and slot < words_at(board + WORK, 7)[4]:
                take(board, slot)
            increase(board + INSIDE, -1)
            done, waited = ticket, 0
        else:
            waited += 1
            pause()
    increase(board + ASLEEP + slot * EACH, 1)


@numba.njit(types.void(*[WORDS] * 4), nogil=True, cache=True)  # type: ignore[untyped-decorator]
def alone(code: int, words: int, count: int, memory: int) -> None:
    """Work on all pieces."""
    invoke(code, (words, 0, count, memory))


def run(entry: Entry, words: Array, count: int, threads: int = 1, room: int = 0) -> None:
    """Run an entry on so many pieces, with so many bytes of scratch memory for each thread; neighbours go together."""
    run_at(entry, address(words), count, threads, room)


def run_at(entry: Entry, words: int, count: int, threads: int = 1, room: int = 0, shares: int = SHARES) -> None:
    """The same with words at an address; a thread's share of the pieces is cut into so many parts."""
    if threads > count:  # as `min` takes longer
        threads = count
    memory, start = arena.free(room * threads) if room else (None, 0)
    if DISABLED:
        entry.function(words, 0, count, start)
    elif threads < 2 or not _pool.share(entry.code, words, count, threads, start, room, shares):
        alone(entry.code, words, count, start)
    del memory  # which had to be there until now


class _Pool:
    """Threads that come into being when they are first needed."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.threads: list[Thread] = []
        self.parks: list[Lock] = []
        self.room, self.over, self.caller = 0, False, -1

    def share(self, code: int, words: int, count: int, threads: int, memory: int, room: int, shares: int) -> bool:
        """Work together with other threads, unless they have work already."""
        if not self.lock.acquire(blocking=False):
            return False
        try:
            if threads > self.room:
                self.grow(threads)
            self.wake(threads)
            step = max(1, count // (shares * threads))
            share(self.board, code, words, count, step, threads, memory, room)
        finally:
            self.lock.release()
        return True

    def grow(self, room: int) -> None:
        """Make a board for so many threads, of which the caller is one, and start them."""
        self.end()
        memory = np.zeros((NEXT + room * EACH + LINE) // BYTES, np.int64)
        self.memory = memory[-address(memory) % LINE // BYTES :]
        self.board, self.asleep = address(self.memory), self.memory[ASLEEP // BYTES :: EACH // BYTES]
        self.asleep[...] = 1
        self.room, self.over = room, False
        for slot in range(1, room):
            self.parks.append(Lock())
            self.threads.append(Thread(target=self.stay, args=(slot, self.parks[-1]), daemon=True))
            self.threads[-1].name = f"convkernels-{slot}"
            self.threads[-1].start()

    def wake(self, threads: int) -> None:
        """Wake those that sleep."""
        for slot in range(1, threads):
            if self.asleep[slot] and self.parks[slot - 1].locked():
                self.caller = processor()
                self.parks[slot - 1].release()

    def stay(self, slot: int, park: Lock) -> None:
        """What a thread does: it sleeps and serves in turn."""
        while True:
            park.acquire()
            if self.over:
                return
            step_aside(self.caller)
            serve(self.board, slot, PATIENCE)

    def end(self) -> None:
        """Let all threads go."""
        self.over = True
        for park in self.parks:
            if park.locked():
                park.release()
        for thread in self.threads:
            thread.join()
        self.threads.clear()
        self.parks.clear()


PLACED = hasattr(os, "sched_setaffinity") and hasattr(ctypes.PyDLL(None), "sched_getcpu")
"""Whether the system tells where threads run."""


def processor() -> int:
    """The processor that this runs on, if that can be known."""
    return int(ctypes.PyDLL(None).sched_getcpu()) if PLACED else -1


def step_aside(busy: int) -> None:
    """Leave the processor of the one that woke this thread, where the system is likely to have put it."""
    if PLACED and len(every := os.sched_getaffinity(0)) > 1:
        with contextlib.suppress(OSError):  # the processors that this process may use were changed in between
            os.sched_setaffinity(0, every - {busy})
            os.sched_setaffinity(0, every)


_pool = _Pool()
atexit.register(_pool.end)
if hasattr(os, "register_at_fork"):
    # A process that was forked has none of its parent's threads.
    os.register_at_fork(after_in_child=_pool.__init__)  # type: ignore[misc]  # a new, empty state
