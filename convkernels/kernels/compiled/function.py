"""Functions that are written in `code`: their arguments by name, and their pieces shared out.

Threads share a run of a function, which is worked out once for arrays that lie alike: a `Step`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...layout import Array
from .machine import address, array_in, entry, invoke, tables, words_at
from .parallel import run
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
    ) -> Step:
        """A run on pieces, whose first and last are arguments; so are pieces of scratch memory of so many bytes.

        Where the arrays named `later` are is said each time.
        """
        packed = self.pack(arguments)
        owned, room = [], rounded(packed.nbytes)
        for name, size in (scratch or {}).items():
            owned += [self.names.index(name), room]
            room += rounded(size)
        places = np.array(owned, np.int64)
        head = [0, packed.size, *tables(places), self.code, *map(self.names.index, span)]
        words = np.array([*head, *packed], np.int64)
        patched = tuple((HEAD + self.names.index(name), name) for name in later)
        return Step(words, patched, count, threads, room, (places, dict(arguments)))


HEAD = 7
"""Words in front of a step's arguments: what `perform` takes."""


class Step(NamedTuple):
    """A run of a function but for where some arrays are; `kept` is what its words point to."""

    words: Array
    later: tuple[tuple[int, str], ...]
    pieces: int
    threads: int
    room: int
    kept: Any

    def run(self, addresses: Mapping[str, int]) -> None:
        """Run on arrays at these addresses."""
        words = self.words.copy()
        words[0] = address(words) + words.itemsize * HEAD
        for place, name in self.later:
            words[place] = addresses[name]
        run(perform, words, self.pieces, self.threads, self.room)


@entry
def perform(words: int, begin: int, end: int, memory: int) -> None:
    """Call a function on some pieces.

    The arguments are its own, of which each thread has a copy; those that are scratch memory, and where that is; the
    code; and which arguments are the first piece and the one behind the last.
    """
    given = words_at(words, 7)
    packed, owned = array_in(given, 0), array_in(given, 1)
    changed = words_at(memory, packed.size)
    changed[:] = packed
    for n in range(0, owned.size, 2):
        changed[owned[n]] = memory + owned[n + 1]
    changed[given[5]], changed[given[6]] = begin, end
    invoke(given[4], (memory,))
