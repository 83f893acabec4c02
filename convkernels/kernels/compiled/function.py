"""Functions that are written in `code`: their arguments by name, and their pieces shared out.

Threads share a run of a function, which is worked out once for arrays that lie alike: a `Step`. Several are a `Work`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numba
import numpy as np

from ...layout import Array
from ...window import Ints
from .machine import Entry, address, array_in, data_of, entry, invoke, items_of, tables, words_at
from .parallel import BYTES, SHARES, run_at
from .scratch import rounded


class Function(NamedTuple):
    """Code at an address, which takes words of these names."""

    code: int
    names: Sequence[str]

    def pack(self, arguments: Mapping[str, Any]) -> Array:
        """Arguments as words: integers, floating numbers by their bits, arrays by their addresses; 0 if not given."""
        words = np.zeros(len(self.names), np.int64)
        floating = words.view(np.float64)
        for name, value in arguments.items():
            if isinstance(value, float):
                floating[self.names.index(name)] = value
            elif value is not None:
                words[self.names.index(name)] = address(value) if isinstance(value, np.ndarray) else value
        return words

    def step(
        self,
        arguments: Mapping[str, Any],
        later: Iterable[str],
        threads: int,
        count: int,
        span: tuple[str, str],
        scratch: Mapping[str, int] | None = None,
        shares: int = SHARES,
    ) -> Step:
        """A run on pieces, whose first and last are arguments; so are pieces of scratch memory of so many bytes.

        Where the arrays named `later` are is said each time, in that order. A thread's share of the pieces is cut into
        so many parts.
        """
        packed, names = self.pack(arguments), tuple(later)
        owned, room = [], rounded(packed.nbytes)
        for name, size in (scratch or {}).items():
            owned += [self.names.index(name), room]
            room += rounded(size)
        lists = packed, np.array(owned, np.int64), np.array([self.names.index(name) for name in names], np.int64)
        words = np.array([*tables(*lists), self.code, *map(self.names.index, span)], np.int64)
        return Step(perform, words, count, min(threads, count), room, (lists, dict(arguments)), shares)


class Step(NamedTuple):
    """A run of a function but for where some arrays are; `kept` is what its words point to."""

    entry: Entry
    words: Array
    pieces: int
    threads: int
    room: int
    kept: Any
    shares: int = SHARES


class Work:
    """Steps on arrays, and the sizes of float64 numbers among these that they need, 0 at first."""

    def __init__(self, steps: Iterable[Step], scratch: Mapping[str, Ints]) -> None:
        self.steps, self.scratch = in_turn(steps), scratch

    def run(self, *arrays: Array, totals: Sequence[Array] = ()) -> dict[str, Array]:
        """Run on x, dy if there is one, what is written, gamma, beta if there is one, mean and var.

        The totals come behind the scratch memory, if steps ask for them. Returns what is in that memory then.
        """
        found = {name: np.zeros(sizes) for name, sizes in self.scratch.items()}
        for step in self.steps:
            given = step.words, *arrays, *found.values(), *totals
            run_at(step.entry, items_of(given), step.pieces, step.threads, step.room, step.shares)
        return found


def in_turn(steps: Iterable[Step]) -> list[Step]:
    """Steps, neighbours of one thread joined to one: handing over takes 1.3 us."""
    found: list[Step] = []
    for alone, group in groupby(steps, key=lambda step: step.threads == 1):
        several = list(group)
        if not alone or len(several) == 1:
            found += several
            continue
        listed = [number for step in several for number in (address(step.words), step.pieces)]
        words = np.array([len(several), *listed], np.int64)
        room = max(step.room for step in several)
        found.append(Step(perform_all, words, 1, 1, room, several))
    return found


@numba.njit(inline="always")  # type: ignore[untyped-decorator]
def carry_out(step: int, arrays: int, begin: int, end: int, memory: int) -> None:
    """Call a function on some pieces.

    A step is three tables: the function's own arguments, of which each thread has a copy; those that are scratch
    memory, and where that is; and those that are arrays. The code follows, and which arguments are the first piece and
    the one behind the last.
    """
    given = words_at(step, 9)
    packed, owned, later = array_in(given, 0), array_in(given, 1), array_in(given, 2)
    addresses = words_at(arrays, later.size)
    changed = words_at(memory, packed.size)
    changed[:] = packed
    for n in range(0, owned.size, 2):
        changed[owned[n]] = memory + owned[n + 1]
    for n in range(later.size):
        changed[later[n]] = data_of(addresses[n])
    changed[given[7]], changed[given[8]] = begin, end
    invoke(given[6], (memory,))


@entry
def perform(words: int, begin: int, end: int, memory: int) -> None:
    """Carry out some pieces of a step; the arguments are where that is, and arrays."""
    carry_out(data_of(words_at(words, 1)[0]), words + BYTES, begin, end, memory)


@entry
def perform_all(words: int, begin: int, end: int, memory: int) -> None:
    """Carry out steps; the arguments are where these are listed, and arrays."""
    listed = data_of(words_at(words, 1)[0])
    of = words_at(listed, 1)[0]
    steps = words_at(listed + BYTES, 2 * of)
    for n in range(begin, end * of):
        carry_out(steps[2 * n], words + BYTES, 0, steps[2 * n + 1], memory)
