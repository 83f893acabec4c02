"""Functions that are written in `code`: their arguments by name, and their pieces shared out.

Threads share a run of a function, which is worked out once for arrays that lie alike: a `Step`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...layout import Array
from .machine import address, address_of, array_in, data_of, entry, invoke, listed, tables, words_at
from .parallel import run_at
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

        Where the arrays named `later` are is said each time, in that order.
        """
        packed, names = self.pack(arguments), tuple(later)
        owned, room = [], rounded(packed.nbytes)
        for name, size in (scratch or {}).items():
            owned += [self.names.index(name), room]
            room += rounded(size)
        lists = packed, np.array(owned, np.int64), np.array([self.names.index(name) for name in names], np.int64)
        words = np.array([*tables(*lists), self.code, *map(self.names.index, span)], np.int64)
        return Step(address(words), listed(1 + len(names)), count, threads, room, (words, lists, dict(arguments)))


class Step(NamedTuple):
    """A run of a function but for where some arrays are; `kept` is what its words point to."""

    words: int
    listed: Callable[..., bytes]
    pieces: int
    threads: int
    room: int
    kept: Any

    def run(self, arrays: Iterable[Array]) -> None:
        """Run on these arrays."""
        given = self.listed(self.words, *map(id, arrays))
        run_at(perform, address_of(given), self.pieces, self.threads, self.room)


@entry
def perform(words: int, begin: int, end: int, memory: int) -> None:
    """Call a function on some pieces.

    The arguments are the address of others, and arrays. Those are three tables: the function's own arguments, of which
    each thread has a copy; those that are scratch memory, and where that is; and those that are the arrays. The code
    follows, and which arguments are the first piece and the one behind the last.
    """
    given = words_at(words_at(words, 1)[0], 9)
    packed, owned, later = array_in(given, 0), array_in(given, 1), array_in(given, 2)
    arrays = words_at(words, 1 + later.size)
    changed = words_at(memory, packed.size)
    changed[:] = packed
    for n in range(0, owned.size, 2):
        changed[owned[n]] = memory + owned[n + 1]
    for n in range(later.size):
        changed[later[n]] = data_of(arrays[1 + n])
    changed[given[7]], changed[given[8]] = begin, end
    invoke(given[6], (memory,))
