"""A block of rows that go through many families, in a function that is being written: where its numbers are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .code import DOUBLE, Code

ARRAYS = {"forward": ("x", "out"), "backward": ("x", "dy", "out")}
"""Whose beginnings by block, and strides along rows, are given."""
ARGUMENTS = {
    which: (
        *("phases", "first", "last", "first_piece", "last_piece", "pieces", "height", "rows", "families", "members"),
        *("gamma", "beta", "coefficient_starts", "family_step", "member_step", "row_step", "mean", "var"),
        *("count", "eps", "lines", "mode", "sums", "sum_step", "across"),
        *("summed", "written"),
        *(name for array in arrays for name in (array, f"{array}_starts", f"{array}_row")),
    )
    for which, arrays in ARRAYS.items()
}
"""What the functions take; `count` and `eps` are floating numbers, `phases` a sum of those wanted, `summed` and
`written` the rows taken together."""
FIRST, MEAN, SUM, SETTLE, WRITE = 1, 2, 4, 8, 16
"""The phases; a centre is a family's first number, or its mean."""
LINES = 5
"""Rows of scratch for a block: the centre, and up to four of factors, where sums along rows have theirs before."""
ALONG = 3
"""Factors of sums along rows."""
CHUNK = 16
"""Vectors of some rows that are summed along them when they were down the columns: as many as float32 adds up."""
SUMMED, WRITTEN = 2, 4
"""Vectors taken together down the columns, when they are summed and when results are written."""

Places = list[tuple[Any, Any]]
Rows = Callable[[list[Any], Callable[..., list[Any]]], list[Any]]


@dataclass(frozen=True)
class Variant:
    """What a function is written for: `given` are statistics that do not depend on x."""

    itemsize: int
    centred: bool
    given: bool
    by_row: bool


class Block:
    """One block in a function that is being written."""

    def __init__(self, code: Code, variant: Variant, which: str, number: Any) -> None:
        self.code, self.variant, self.number = code, variant, number
        self.columns = code.build.mul(code["families"], code["members"])
        self.start = code.begins(ARRAYS[which], number)

    def line(self, index: int) -> Any:
        """A row of scratch."""
        code = self.code
        return code.at(code["lines"], (self.columns, 8 * index))

    def factors(self, wide: bool) -> list[Any]:
        """Where sums along rows have theirs: in wide arithmetic the lines themselves, else copies behind these."""
        code = self.code
        if wide:
            return [self.line(index) for index in range(ALONG)]
        return [code.at(self.line(ALONG), (self.columns, code.itemsize * index)) for index in range(ALONG)]

    def sums(self, piece: Any, which: int) -> Any:
        """A row of sums."""
        code = self.code
        slot = code.build.mul(self.number, code["sum_step"])
        place = code.build.add(code.build.mul(slot, code["pieces"]), piece)
        return code.at(code["sums"], (code.build.mul(place, self.columns), 16), (self.columns, 8 * which))

    def statistic(self, name: str, family: Any) -> Any:
        """Where a number of a family's stands."""
        code = self.code
        return code.at(code[name], (code.build.add(code.build.mul(self.number, code["families"]), family), 8))

    def by_member(self, family: Any, body: Callable[[Any, Any], None]) -> None:
        """``body(member, column)`` for each column of a family."""
        build, code = self.code.build, self.code

        def one(member: Any) -> list[Any]:
            body(member, build.add(build.mul(family, code["members"]), member))
            return []

        code.each(code["members"], [], one)

    def coefficient(self, name: str, family: Any, member: Any) -> Any:
        """A column's gamma or beta."""
        code = self.code
        return code.read_element(
            code.at(self.start[name], (family, code["family_step"]), (member, code["member_step"]))
        )

    def of_row(self, name: str, row: Any, wide: bool) -> Any:
        """A row's gamma or beta, in all lanes."""
        code = self.code
        return code.spread(code.fit(code.read_element(code.at(self.start[name], (row, code["row_step"]))), wide))

    def families(self, body: Callable[[Any], None]) -> None:
        """``body(family)``."""

        def one(family: Any) -> list[Any]:
            body(family)
            return []

        self.code.each(self.code["families"], [], one)

    def groups(self, piece: Any, size: Any, body: Callable[[Rows], None]) -> None:
        """``body(rows)`` for so many rows at a time; ``rows(state, step)``: ``state = step(row, *state)`` for these."""
        build, code = self.code.build, self.code

        first = build.mul(piece, code["height"])
        last = code.least(build.add(first, code["height"]), code["rows"])

        def group(start: Any) -> list[Any]:
            stop = code.least(build.add(start, size), last)
            body(lambda state, step: code.loop(start, stop, code.word(1), state, step))
            return []

        code.loop(first, last, size, [], group)

    def load(self, name: str, row: Any, place: tuple[Any, Any], wide: bool = True) -> Any:
        """A vector of an array."""
        line = self.code.at(self.start[name], (row, self.code[f"{name}_row"]))
        return (self.code.load_wide if wide else self.code.load)(line, *place)


def put_line(block: Block, line: int, found: Callable[[Any], Any]) -> None:
    """Write a number of each family's for each column."""
    code = block.code

    def family(number: Any) -> None:
        value = found(number)
        block.by_member(number, lambda _, column: code.write(value, code.at(block.line(line), (column, 8))))

    block.families(family)


def first_number(block: Block, family: Any) -> Any:
    """The first number of a family's, or 0."""
    code = block.code
    if not block.variant.centred:
        return code.double(0.0)
    column = code.build.mul(family, code["members"])
    return code.finite(code.read_element(code.at(block.start["x"], (column, code.itemsize))))


def mean_of(block: Block, family: Any) -> tuple[Any, Any]:
    """The mean of a family, which is known, as rounded to the data's type, and what that leaves."""
    return block.code.rounded(block.code.read(block.statistic("mean", family), DOUBLE))


def rstd_of(block: Block, family: Any) -> Any:
    """One by the root of the variance of a family, which is known."""
    return block.code.reciprocal_root(block.code.read(block.statistic("var", family), DOUBLE))
