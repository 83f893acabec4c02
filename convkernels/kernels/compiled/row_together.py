"""Gradients of a block of families, where each is one row and coefficients differ by column.

Sums along four rows wait for each other a quarter as long, and take gamma once for all. Then the gradient of x is
written in strips of a few columns, down all rows of the block, which the cache still holds: what is summed down the
columns stays in registers, and memory with the sums in float64 is written once for all rows. What a family comes to
does not depend on those beside it, and one whose numbers leave the data's type is left to the slower way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from llvmlite import ir

from ..norm_blocks import LEAST_EPS
from .code import Code
from .row_code import FEW, Family, Variant, slope_and_offset
from .values import DOUBLE, Values

ABREAST = 4
"""Rows that are summed along together."""
STRIP = 4
"""Vectors of columns that are written together."""
FACTORS = 5
"""Numbers of a row: x - the first times the second plus the third is normal; times the fourth plus the fifth it is a
part of dx."""


def can_go_together(code: Code) -> Any:
    """Whether families are rows, and `eps` is such that float32 will do."""
    build = code.build
    single = build.icmp_signed("==", code["rows"], code.word(1))
    large = build.fcmp_ordered(">=", code.number("eps"), code.double(LEAST_EPS))
    return build.and_(single, large)


class Block:
    """Some families in a row in a function that is being written, a lane of a vector each: so many as float32 adds up.

    With 4 families instead, 1024 rows of 768 columns took 5 % less, and 3136 of 96 columns as long.
    """

    def __init__(self, code: Code, variant: Variant) -> None:
        self.code, self.variant = code, variant
        self.sums = code.room(2 * code.lanes * 8)
        self.factors = code.room(FACTORS * code.lanes * code.itemsize)

    def take(self, first: Any, last: Any, piece: Any) -> Any:
        """Take families back and add to the sums of a piece, if all numbers fit the data's type; whether they do."""
        many = self.code.build.sub(last, first)
        fits = self.find_factors(first, last, self.code.first_lanes(many))
        with self.code.build.if_then(fits):
            write(self, first, last, piece)
        return fits

    def place(self, table: Any, which: int, size: int, family: Any = None) -> Any:
        """Where a line of a table begins, or a family's place in it."""
        place = self.code.word(0) if family is None else family
        return self.code.at(table, (self.code.word(which), self.code.lanes * size), (place, size))

    def find_factors(self, first: Any, last: Any, mask: Any) -> Any:
        """Find the factors of families; whether all fit the data's type."""
        code, build = self.code, self.code.build
        by_few(code, first, last, partial(self.sum_along, first))
        mean, var = (
            code.load(code.at(code[name], (first, 8)), code.word(0), mask, code.wide) for name in ("mean", "var")
        )
        total, products = (
            code.load(self.place(self.sums, which, 8), code.word(0), mask, code.wide) for which in (0, 1)
        )
        rstd, (centre, residual) = code.reciprocal_root(var), code.rounded(mean)
        products = build.fsub(products, build.fmul(residual, total))
        slope, offset = slope_and_offset(code, self.variant, rstd, residual, total, products)
        factors = centre, rstd, build.fneg(build.fmul(residual, rstd)), slope, offset
        for which, factor in enumerate(factors):
            table = self.place(self.factors, which, code.itemsize)
            code.store(code.fit(factor, wide=False), table, code.word(0), None)
        return build.and_(code.ordinary(rstd, slope), code.ordinary(centre, offset, least=0.0))

    def sum_along(self, first: Any, numbers: Sequence[Any]) -> None:
        """Put the sums along some rows to their places."""
        code, build = self.code, self.code.build
        families = [Family(code, self.variant, "backward", each) for each in numbers]
        centres = [code.rounded(code.read(family.statistic("mean"), DOUBLE))[0] for family in families]
        found = code.totals(sums_along(code, [family.start for family in families], centres, code["gamma"]))
        for place, value in enumerate(found):
            family = build.sub(numbers[place // 2], first)
            code.write(value, self.place(self.sums, place % 2, 8, family))


def go_together(code: Code, variant: Variant, piece: Any, first: Any, last: Any, slowly: Callable[[Any], None]) -> None:
    """Take some families back, and add to the sums of a piece; `slowly` takes one."""
    block = Block(code, variant)
    by_vectors(code, first, last, lambda start, stop: block.take(start, stop, piece), slowly)


def by_few(code: Code, first: Any, last: Any, body: Callable[[Sequence[Any]], None]) -> None:
    """``body(numbers)`` for a few neighbours at a time, the rest one by one."""
    build = code.build

    def some(count: int, number: Any) -> list[Any]:
        body([build.add(number, code.word(place)) for place in range(count)])
        return []

    many = build.sub(last, build.srem(build.sub(last, first), code.word(ABREAST)))
    for start, stop, count in ((first, many, ABREAST), (many, last, 1)):
        code.loop(start, stop, code.word(count), [], partial(some, count))


def by_vectors(
    code: Code, first: Any, last: Any, take: Callable[[Any, Any], Any], slowly: Callable[[Any], Any]
) -> None:
    """``take(start, stop)`` a vector of families; if that does not hold, each alone, or else ``slowly(number)``."""
    build, lanes = code.build, code.word(code.lanes)

    def some(start: Any) -> list[Any]:
        stop = code.least(build.add(start, lanes), last)
        with build.if_then(build.not_(take(start, stop))):
            code.loop(start, stop, code.word(1), [], alone)
        return []

    def alone(number: Any) -> list[Any]:
        with build.if_then(build.not_(take(number, build.add(number, code.word(1))))):
            slowly(number)
        return []

    code.loop(first, last, lanes, [], some)


def sums_along(code: Code, starts: Sequence[Mapping[str, Any]], centres: Sequence[Any], gamma: Any = None) -> list[Any]:
    """The sums of g and g * (x - centre) along rows, g being dy, times gamma if there is one for each column.

    Numbers are summed a few vectors at a time in the data's type. What is not finite there is not in the sums, either.
    """
    build = code.build
    nothing = ir.Constant(code.narrow, [0.0] * code.lanes)
    middles = [code.spread(code.fit(centre, wide=False)) for centre in centres]
    length = code.word(2 * FEW * code.lanes)

    def vector(column: Any, mask: Any, *now: Any) -> list[Any]:
        coefficient, found = None if gamma is None else code.load(gamma, column, mask), []
        for start, middle, total, products in zip(starts, middles, now[::2], now[1::2], strict=True):
            dy, x = (code.load(start[name], column, mask) for name in ("dy", "x"))
            given = dy if coefficient is None else build.fmul(dy, coefficient)
            found += [build.fadd(total, given), code.multiply_add(given, build.fsub(x, middle), products)]
        return found

    def run(start: Any, *totals: Any) -> list[Any]:
        stop = code.least(build.add(start, length), code["columns"])
        found = code.columns(start, stop, 1, [nothing] * len(totals), vector)
        return [build.fadd(old, code.widened(new)) for old, new in zip(totals, found, strict=True)]

    return code.loop(code.word(0), code["columns"], length, [code.zeros] * 2 * len(starts), run)


def write(block: Block, first: Any, last: Any, piece: Any) -> None:
    """Write the gradients of a block if there is an address for them, and add to the sums of a piece."""
    code, build = block.code, block.code.build
    line = build.mul(code["columns"], code.word(8))
    sums = code.at(code["sums"], (piece, build.mul(line, code.word(2))))

    def strip(writes: bool, places: list[tuple[Any, Any]]) -> None:
        gammas = [code.load(code["gamma"], *place) for place in places]

        def row(wide: bool, number: Any, *now: Any) -> list[Any]:
            family, found = Family(code, block.variant, "backward", number), []
            place = build.sub(number, first)
            middle, rstd, shift, slope, offset = (
                code.spread(code.read(block.place(block.factors, which, code.itemsize, place), code.element))
                for which in range(FACTORS)
            )
            for place, gamma, products, total in zip(places, gammas, now[::2], now[1::2], strict=True):
                dy, x = (code.load(family.start[name], *place) for name in ("dy", "x"))
                off = build.fsub(x, middle)
                normal = code.multiply_add(off, rstd, shift)
                if writes and (not wide or code.narrow == code.wide):
                    value = code.multiply_add(off, slope, offset)
                    value = code.multiply_add(build.fmul(dy, gamma), rstd, value)
                    code.store(value, family.start["out"], *place)
                given, factor = (code.widened(value) if wide else value for value in (dy, normal))
                found += [code.multiply_add(given, factor, products), build.fadd(total, given)]
            return found

        def go(state: Values, wide: bool) -> Values:
            return code.loop(first, last, code.word(1), state, partial(row, wide))

        targets = [(start, *place) for place in places for start in (sums, build.add(sums, line))]
        found = code.few(len(targets), lambda: [code.load(*target, code.wide) for target in targets], go)
        for value, target in zip(found, targets, strict=True):
            code.store(value, *target)

    with build.if_else(build.icmp_signed("!=", code["out"], code.word(0))) as ways:
        for way, writes in zip(ways, (True, False), strict=True):
            with way:
                code.strips(code.word(0), code["columns"], STRIP, partial(strip, writes))
