"""Functions that are written in `code`: their arguments by name, and their pieces shared out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

    def share(
        self, packed: Array, threads: int, count: int, span: tuple[str, str], scratch: Mapping[str, int] | None = None
    ) -> None:
        """Run on pieces, whose first and last are arguments; so are pieces of scratch memory of so many bytes."""
        owned, room = [], rounded(packed.nbytes)
        for name, size in (scratch or {}).items():
            owned += [self.names.index(name), room]
            room += rounded(size)
        places = np.array(owned, np.int64)
        words = [*tables(packed, places), self.code, *map(self.names.index, span)]
        run(perform, np.array(words, np.int64), count, threads, room)


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
