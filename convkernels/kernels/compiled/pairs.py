"""Loops over pairs of rows, emitted as LLVM: windows of 2 x 2 that fill a plane, whose rows lie on end.

Planes are one long row of pairs then. Two rows are reduced to one, and neighbours of that to results, so that each cell
is loaded once, by whole vectors: those of short rows hold cells of the next ones too, whose results are written over,
and two pairs share a vector of results where they fit. Gradients of sums are written twice to each of two rows. The
last pairs are read and written through masks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

from llvmlite import ir

from ...window import Window
from .calls import View
from .isa import Isa
from .lines import Operand
from .spans import Combine, Finish, Spans
from .tile import INDEX

LONG = 8
"""Vectors of a row at most: there is code for each, and longer ones wait for memory, whatever reads them."""


def in_pairs(window: Window, isa: Isa, *arrays: View) -> bool:
    """Whether windows of 2 x 2 fill the planes, all of which lie on end, and rows are not long."""
    whole = set(window.padding) == {(0, 0)} and not any(size % 2 for size in window.in_size)
    if not whole or window.dilation != (1, 1) or window.kernel_size != (2, 2) or window.stride != (2, 2):
        return False
    short = window.in_size[1] <= LONG * isa.lanes(arrays[0].itemsize)
    return short and all(array.on_end(1) for array in arrays)


class Pairs(Spans):
    """Emits loops over pairs of rows of so many cells. Of the operands, a source and a target, one has the rows.

    In the place of the table and its length, a call has the pairs of all channels and the divisor.
    """

    def __init__(self, source: Operand, target: Operand, lanes: int, width: int) -> None:
        super().__init__((source, target), lanes)
        self.width, self.results = width, width // 2
        self.together = 2 if width <= lanes else 1

    def pairs(self, cells: Sequence[int], together: int, body: Callable[..., None]) -> str:
        """The whole as LLVM assembly, of operands with so many cells in a pair.

        ``body(addresses, divisor, together, masked)`` takes so many pairs, or one that must not be overstepped.
        """
        build, call, zero = self.build, self.function.args[0], self.word(0)
        pairs, divisor = self.word_at(call, 0), build.bitcast(self.word_at(call, 1), ir.DoubleType())
        bases = self.begin()
        behind = together - 1 - (-self.lanes // self.results)  # pairs whose results a vector may reach into
        with self.loop(zero, self.word_at(call, 2)) as image:
            starts = self.moved(bases, 0, image)

            def go(pair: Any, many: int, masked: bool) -> None:
                steps = [
                    self.word(count * operand.itemsize) for count, operand in zip(cells, self.operands, strict=True)
                ]
                at = [build.add(start, build.mul(pair, step)) for start, step in zip(starts, steps, strict=True)]
                body(at, divisor, many, masked)

            with self.loop(zero, build.sub(pairs, self.word(behind)), together) as pair:
                go(pair, together, False)
            with self.loop(pair, pairs) as pair:
                go(pair, 1, True)
        build.ret_void()
        return str(self.module)

    def reduced(self, combine: Combine, finish: Finish) -> str:
        """Windows to results; `finish` takes a vector of results and the divisor."""
        size = self.operands[1].itemsize

        def body(at: Sequence[Any], divisor: Any, together: int, masked: bool) -> None:
            for first in range(0, self.results, self.lanes):
                one, other = self.halves(at[0], first, together, masked, combine)
                found = finish(combine(one, other), divisor)
                count = min(self.results - first, self.lanes) if masked else self.lanes
                self.put(found, self.build.add(at[1], self.word(first * size)), count)

        return self.pairs((2 * self.width, self.results), self.together, body)

    def filled(self, finish: Finish) -> str:
        """Gradients of results to the windows."""
        build, lanes, size = self.build, self.lanes, self.operands[0].itemsize

        def body(at: Sequence[Any], divisor: Any, together: int, masked: bool) -> None:
            for row, first in product(range(2), range(0, self.results, lanes)):
                count = min(self.results - first, lanes) if masked else lanes
                value = finish(self.get(build.add(at[0], self.word(first * size)), 0, count), divisor)
                for vector in range(min(2, -(-2 * (self.results - first) // lanes))):
                    order = [(vector * lanes + place) // 2 for place in range(lanes)]
                    twice = build.shuffle_vector(value, value, ir.Constant(ir.VectorType(INDEX, lanes), order))
                    cell = 2 * first + vector * lanes
                    count = min(self.width - cell, lanes) if masked else lanes
                    self.put(twice, build.add(at[1], self.word((row * self.width + cell) * size)), count)

        return self.pairs((self.results, 2 * self.width), 1, body)

    def halves(self, source: Any, first: int, together: int, masked: bool, combine: Combine) -> tuple[Any, Any]:
        """The left and the right halves of windows, from a result of the pair on; each two rows reduced to one."""
        build, lanes, size = self.build, self.lanes, self.operands[0].itemsize
        # What the second vector holds: the next pair's cells, those next to the first's, or none.
        apart = 2 * self.width if together == 2 else lanes
        vectors = 2 if together == 2 or 2 * (self.results - first) > lanes else 1
        found = []
        for vector in range(vectors):
            cell = 2 * first + vector * apart
            count = min(lanes, self.width - 2 * first - vector * lanes) if masked else lanes
            rows = (
                self.get(build.add(source, self.word((cell + row * self.width) * size)), 0, count) for row in range(2)
            )
            found.append(combine(*rows))
        held = self.results if together == 2 else lanes
        places = [2 * (place % held) + lanes * (place // held) for place in range(lanes)]
        if together == 2:
            places = [place if place < 2 * lanes else 0 for place in places]
        sides = []
        for side in range(2):
            order = [place + side if vectors == 2 or place + side < lanes else 0 for place in places]
            mask = ir.Constant(ir.VectorType(INDEX, lanes), order)
            sides.append(build.shuffle_vector(found[0], found[-1], mask))
        return sides[0], sides[1]
