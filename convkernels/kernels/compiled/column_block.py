"""A block of rows that go through many families, in a function that is being written: where its numbers are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

from .code import Code
from .row_code import SOME
from .values import DOUBLE, Values

ARRAYS = {"forward": ("x", "out"), "backward": ("x", "dy", "out")}
"""Whose beginnings by block, and strides along rows, are given."""
ARGUMENTS = {
    which: (
        *("phases", "first", "last", "first_piece", "last_piece", "pieces", "height", "rows", "families", "members"),
        *("gamma", "beta", "coefficient_starts", "family_step", "member_step", "row_step", "mean", "var"),
        *("count", "eps", "lines", "mode", "sums", "sums_starts", "sums_line", "across"),
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
GROUP = 16
"""Rows taken together, as a rule: as many streams as are prefetched, and sums are written once for all of them."""
SUMMED, WRITTEN = 4, 4
"""Vectors taken together down the columns, when they are summed and when results are written."""

Places = list[tuple[Any, Any]]


@dataclass(frozen=True)
class Variant:
    """What a function is written for: `given` are statistics that do not depend on x.

    Coefficients differ `by_row`, or by family and member; where each family has a column `alone`, families are gone
    through by vectors, and else a family's members are. `steps` says whether coefficients differ within these vectors.
    """

    itemsize: int
    centred: bool
    given: bool
    by_row: bool
    alone: bool
    steps: bool


class Block:
    """One block in a function that is being written."""

    def __init__(self, code: Code, variant: Variant, which: str, number: Any) -> None:
        self.code, self.variant, self.number = code, variant, number
        self.columns = code.build.mul(code["families"], code["members"])
        self.start = code.begins((*ARRAYS[which], "sums"), number)

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
        line = code["sums_line"]
        return code.at(self.start["sums"], (code.build.add(piece, piece), line), (which, line))

    def get(self, line: Any, place: Any) -> Any:
        """What stands at a place of a line of float64, the number of a column, or a column and a mask."""
        if isinstance(place, tuple):
            column, mask = place
            return self.code.load(line, column, mask, self.code.wide)
        return self.code.read(self.code.at(line, (place, 8)), DOUBLE)

    def put(self, value: Any, line: Any, place: Any) -> None:
        """Put a number there."""
        if isinstance(place, tuple):
            self.code.store(self.code.all_lanes(value), line, *place)
        else:
            self.code.write(value, self.code.at(line, (place, 8)))

    def statistics(self, name: str) -> Any:
        """Where those of the families stand, end on end."""
        return self.code.at(self.code[name], (self.code.build.mul(self.number, self.code["families"]), 8))

    def first_column(self, family: Any) -> Any:
        """The place of a family's first column."""
        return family if self.variant.alone else self.code.build.mul(family, self.code["members"])

    def by_member(self, family: Any, state: Values, body: Callable[..., Values]) -> list[Any]:
        """``state = body(place, *state)`` for the columns of a family, a vector of them at a time."""
        code, first = self.code, self.first_column(family)
        if self.variant.alone:
            return [*body(family, *state)]
        return code.vectors(
            code["members"], state, lambda member, mask, *now: body((code.build.add(first, member), mask), *now)
        )

    def coefficient(self, name: str, family: Any, place: tuple[Any, Any]) -> Any:
        """Some columns' gamma or beta."""
        code = self.code
        if self.variant.alone:
            start, column = self.start[name], place[0]
        else:
            start = code.at(self.start[name], (family, code["family_step"]))
            column = code.build.sub(place[0], self.first_column(family))
        if self.variant.steps:
            return code.load_wide(start, column, place[1])
        return code.spread(code.read_element(start))

    def of_row(self, name: str, row: Any, wide: bool) -> Any:
        """A row's gamma or beta, in all lanes."""
        code = self.code
        return code.spread(code.fit(code.read_element(code.at(self.start[name], (row, code["row_step"]))), wide))

    def families(self, state: Values, body: Callable[..., Values]) -> list[Any]:
        """``state = body(family, *state)``."""
        code, count = self.code, self.code["families"]
        if self.variant.alone:
            return code.vectors(count, state, lambda column, mask, *now: body((column, mask), *now))
        return code.each(count, state, body)

    def groups(self, piece: Any, size: Any, body: Callable[[Any, Any], None]) -> None:
        """``body(start, stop)`` for so many rows at a time."""
        build, code = self.code.build, self.code

        first = build.mul(piece, code["height"])
        last = code.least(build.add(first, code["height"]), code["rows"])

        def group(start: Any) -> list[Any]:
            stop = code.least(build.add(start, size), last)
            body(start, stop)
            return []

        code.loop(first, last, size, [], group)

    def fetch(self, names: Sequence[str], row: Any, places: Places, rows: Any, *, writing: bool = False) -> None:
        """Ask for what comes after some vectors: those beside them, or the first of the row so many rows on."""
        code, build = self.code, self.code.build
        beside = build.add(places[0][0], code.word(len(places) * code.lanes))
        within = build.icmp_signed("<", beside, self.columns)
        following = build.add(row, build.select(within, code.word(0), rows))
        column = build.select(within, beside, code.word(0))
        for name in names:
            line = code.at(self.start[name], (following, code[f"{name}_row"]), (column, code.itemsize))
            for place in range(len(places)):
                code.fetch(code.at(line, (place, code.lanes * code.itemsize)), writing=writing)

    def load(self, name: str, row: Any, place: tuple[Any, Any], wide: bool = True) -> Any:
        """A vector of an array."""
        line = self.code.at(self.start[name], (row, self.code[f"{name}_row"]))
        return (self.code.load_wide if wide else self.code.load)(line, *place)


def put_line(block: Block, line: int, found: Callable[[Any], Any]) -> None:
    """Write a number of each family's for each column."""

    def family(number: Any) -> Values:
        value = found(number)

        def put(place: Any) -> Values:
            block.put(value, block.line(line), place)
            return []

        block.by_member(number, [], put)
        return []

    block.families([], family)


def first_number(block: Block, family: Any) -> Any:
    """The first number of a family's, or 0."""
    code, x = block.code, block.start["x"]
    if block.variant.alone:
        return code.finite(code.load_wide(x, *family)) if block.variant.centred else code.zeros
    if not block.variant.centred:
        return code.double(0.0)
    return code.finite(code.read_element(code.at(x, (block.first_column(family), code.itemsize))))


def middle_of_some(block: Block, family: Any) -> Any:
    """The mean of some numbers of a family's first column, rounded, which is likely to be near that of all; or 0."""
    code, build, alone = block.code, block.code.build, block.variant.alone
    if not block.variant.centred:
        return code.zeros if alone else code.double(0.0)
    numbers = []
    for place in range(SOME):
        row = build.sdiv(build.mul(code["rows"], code.word(place)), code.word(SOME))
        line = code.at(block.start["x"], (row, code["x_row"]))
        if alone:
            numbers.append(code.load_wide(line, *family))
        else:
            numbers.append(code.read_element(code.at(line, (block.first_column(family), code.itemsize))))
    mean = build.fmul(reduce(build.fadd, numbers), code.like(numbers[0], code.double(1 / SOME)))
    return code.finite(code.rounded(mean)[0])


def mean_of(block: Block, family: Any) -> tuple[Any, Any]:
    """The mean of a family, which is known, as rounded to the data's type, and what that leaves."""
    return block.code.rounded(block.get(block.statistics("mean"), family))


def rstd_of(block: Block, family: Any) -> Any:
    """One by the root of the variance of a family, which is known."""
    return block.code.reciprocal_root(block.get(block.statistics("var"), family))
