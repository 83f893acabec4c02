"""Code for norms where a row of memory goes through many families: sums down the columns, and results row by row.

Rows are taken in pieces that the cache holds, and the sums of pieces added up. How rows are cut depends on the problem
alone, so results do not on the threads.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from itertools import product
from typing import Any

from .code import Code, function
from .isa import Isa
from .tile import WORD, compiled

ARRAYS = {"squares": ("x",), "scale": ("x", "out"), "products": ("x", "dy"), "combine": ("x", "dy", "out")}
"""What each function reads and writes."""
ARGUMENTS = {
    which: (
        *("first", "last", "pieces", "height", "rows", "columns", "factors", "sums"),
        *(name for array in arrays for name in (array, f"{array}_starts", f"{array}_row")),
    )
    for which, arrays in ARRAYS.items()
}
FACTORS = {"squares": 1, "scale": 3, "products": 1, "combine": 4}
"""Rows of numbers for each block that go into it: a centre, factors, a shift."""
STRIP = 2
"""Vectors taken together down the columns: a line of the cache each."""

Places = list[tuple[Any, Any]]


class Piece:
    """Some rows of a block in a function that is being written, and the numbers that go with its columns."""

    def __init__(self, code: Code, which: str, number: Any, factor_bytes: int) -> None:
        build = code.build
        self.code, self.number = code, number
        block, piece = build.sdiv(number, code["pieces"]), build.srem(number, code["pieces"])
        start = build.mul(piece, code["height"])
        left = build.sub(code["rows"], start)
        self.rows = build.select(build.icmp_signed("<", left, code["height"]), left, code["height"])
        self.start = {
            name: code.at(
                build.add(code[name], code.read(code.at(code[f"{name}_starts"], (block, 8)), WORD)),
                (start, code[f"{name}_row"]),
            )
            for name in ARRAYS[which]
        }
        self.factor_row = build.mul(code["columns"], code.word(factor_bytes))
        self.factors = code.at(code["factors"], (build.mul(block, self.factor_row), FACTORS[which]))
        sums = code.at(code["sums"], (build.mul(number, code["columns"]), 16))
        self.sums = (sums, code.at(sums, (code["columns"], 8)))

    def row(self, name: str, row: Any) -> Any:
        """Where a row begins."""
        return self.code.at(self.start[name], (row, self.code[f"{name}_row"]))

    def load(self, name: str, row: Any, place: tuple[Any, Any], wide: bool = True) -> Any:
        """A vector of an array."""
        return (self.code.load_wide if wide else self.code.load)(self.row(name, row), *place)

    def factor(self, index: int, place: tuple[Any, Any], wide: bool) -> Any:
        """A vector of the numbers that go with the columns."""
        code = self.code
        return code.load(code.at(self.factors, (self.factor_row, index)), *place, code.wide if wide else None)

    def write_sums(self, values: list[Any], places: Places) -> None:
        """Write both sums of each vector, first all of the one."""
        targets = product(self.sums, places)
        for value, (target, place) in zip(values, targets, strict=True):
            self.code.store(value, target, *place)


def down(piece: Piece, state: list[Any], body: Callable[..., list[Any]]) -> list[Any]:
    """``state = body(row, *state)`` for all rows."""
    return piece.code.each(piece.rows, state, body)


def squares(piece: Piece, places: Places) -> None:
    """The sums of x - centre and of its square, for each column."""
    code, many = piece.code, len(places)
    centres = [piece.factor(0, place, wide=True) for place in places]

    def add(row: Any, *now: Any) -> list[Any]:
        offs = off_centre(piece, row, places, centres)
        totals = [code.build.fadd(old, off) for old, off in zip(now[:many], offs, strict=True)]
        return totals + [code.multiply_add(off, off, old) for old, off in zip(now[many:], offs, strict=True)]

    piece.write_sums(down(piece, [code.zeros] * (2 * many), add), places)


def products(piece: Piece, places: Places) -> None:
    """The sums of dy and of dy * (x - centre), for each column."""
    code, many = piece.code, len(places)
    centres = [piece.factor(0, place, wide=True) for place in places]

    def add(row: Any, *now: Any) -> list[Any]:
        given = [piece.load("dy", row, place) for place in places]
        totals = [code.build.fadd(old, one) for old, one in zip(now[:many], given, strict=True)]
        terms = zip(given, off_centre(piece, row, places, centres), now[many:], strict=True)
        return totals + [code.multiply_add(*each) for each in terms]

    piece.write_sums(down(piece, [code.zeros] * (2 * many), add), places)


def off_centre(piece: Piece, row: Any, places: Places, centres: list[Any]) -> list[Any]:
    """Vectors of a row less their centres."""
    pairs = zip(places, centres, strict=True)
    return [piece.code.build.fsub(piece.load("x", row, place), centre) for place, centre in pairs]


def scale(piece: Piece, places: Places, wide: bool) -> None:
    """(x - centre) * factor + shift, by column."""
    code = piece.code
    factors = [[piece.factor(index, place, wide) for index in range(3)] for place in places]

    def write(row: Any) -> list[Any]:
        for place, (centre, factor, shift) in zip(places, factors, strict=True):
            off = code.build.fsub(piece.load("x", row, place, wide), centre)
            value = code.multiply_add(off, factor, shift)
            code.store(code.fit(value, wide=False), piece.row("out", row), *place)
        return []

    down(piece, [], write)


def combine(piece: Piece, places: Places, wide: bool, given: bool) -> None:
    """Dy * factor + (x - centre) * slope + offset, by column, or only the first if statistics were given."""
    code = piece.code
    factors = [[piece.factor(index, place, wide) for index in range(4)] for place in places]

    def write(row: Any) -> list[Any]:
        for place, (centre, factor, slope, offset) in zip(places, factors, strict=True):
            dy = piece.load("dy", row, place, wide)
            value = code.build.fmul(dy, factor)
            if not given:
                off = code.build.fsub(piece.load("x", row, place, wide), centre)
                value = code.multiply_add(dy, factor, code.multiply_add(off, slope, offset))
            code.store(code.fit(value, wide=False), piece.row("out", row), *place)
        return []

    down(piece, [], write)


@lru_cache(maxsize=64)
def compiled_for(which: str, itemsize: int, wide: bool, given: bool, isa: Isa) -> Callable[[Any], None]:
    """A function for some pieces; `given` are statistics that a gradient does not pass through."""
    code = Code(which, ARGUMENTS[which], itemsize, isa)

    def one(number: Any) -> list[Any]:
        piece = Piece(code, which, number, 8 if wide else itemsize)
        bodies = {
            "squares": partial(squares, piece),
            "products": partial(products, piece),
            "scale": partial(scale, piece, wide=wide),
            "combine": partial(combine, piece, wide=wide, given=given),
        }
        code.strips(code["columns"], STRIP, bodies[which])
        return []

    code.loop(code["first"], code["last"], code.word(1), [], one)
    return function(compiled(code.finish(), which, isa), ARGUMENTS[which])
