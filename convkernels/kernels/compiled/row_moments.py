"""Norms of families that are a short row with a coefficient each: a few abreast, their statistics as vectors.

A short row's sums take less time than they wait for each other, for a root and a quotient. Numbers and their squares
are summed about the mean of some, which will do where `row_code` says so. What a family comes to does not depend on
those beside it; the slower way takes one whose numbers leave the data's type, or whose mean is far from that of some.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from .code import Code
from .isa import Isa
from .row_code import ARGUMENTS, FEW, NEAR, Family, Variant, middle_of_some, normalise, statistics
from .row_together import by_few, by_vectors, can_go_together
from .values import DOUBLE

SHORT = 128
"""Columns up to which rows are taken together: 2048 of 49 columns took 68 us one by one, and take 48. Of rows with
coefficients by column, 3136 of 128 took 150 us, and so 187, for several streams of memory are prefetched less."""
CENTRE, TOTAL, SQUARES = range(3)
"""What is known of a family when its row was summed."""
MIDDLE, RSTD, RESIDUAL = range(3)
"""What its results are made of: the mean, rounded, 1 by the root of the variance, and what rounding left."""


def can_take_moments(code: Code) -> Any:
    """Whether families are short rows, and `eps` is such that float32 will do."""
    build = code.build
    single = build.icmp_signed("==", code["parts"], code.word(1))
    short = build.icmp_signed("<=", code["columns"], code.word(SHORT))
    return build.and_(can_go_together(code), build.and_(single, short))


def take_moments(code: Code, variant: Variant, first: Any, last: Any, slowly: Callable[[Any], Any]) -> None:
    """Normalise families, a vector of them at a time; `slowly` takes one."""
    by_vectors(code, first, last, Moments(code, variant).take, slowly)


class Moments:
    """Some families in a row in a function that is being written, a lane of a vector each."""

    def __init__(self, code: Code, variant: Variant) -> None:
        self.code, self.variant = code, variant
        self.sums, self.factors = (code.room(3 * code.lanes * 8) for _ in range(2))

    def place(self, table: Any, which: int, family: Any = None) -> Any:
        """Where a line of a table begins, or a family's place in it."""
        code = self.code
        return code.at(table, (code.word(which), code.lanes * 8), (code.word(0) if family is None else family, 8))

    def take(self, first: Any, last: Any) -> Any:
        """Normalise families if all numbers fit the data's type, and sums will do; whether they do."""
        code, build = self.code, self.code.build
        mask = code.first_lanes(build.sub(last, first))
        self.abreast(first, last, self.sum_along)
        lines = [code.load(self.place(self.sums, which), code.word(0), mask, code.wide) for which in range(3)]
        count = code.spread(code.number("count"))
        total, squares = (build.fdiv(lines[which], count) for which in (TOTAL, SQUARES))
        mean, var = (
            (build.fadd(lines[CENTRE], total), code.less_square(squares, total))
            if self.variant.centred
            else (code.zeros, squares)
        )
        rstd, (middle, residual) = code.reciprocal_root(var), code.rounded(mean)
        fits = build.and_(code.ordinary(rstd, var), code.ordinary(middle, least=0.0))
        near = build.fcmp_ordered("<=", build.fmul(total, total), build.fmul(var, code.like(var, code.double(NEAR))))
        fits = build.and_(fits, code.all_hold(near))
        with build.if_then(fits):
            for name, value in (("mean", mean), ("var", var)):
                code.store(value, code.at(code[name], (first, 8)), code.word(0), mask)
            for which, value in ((MIDDLE, middle), (RSTD, rstd), (RESIDUAL, residual)):
                code.store(value, self.place(self.factors, which), code.word(0), None)
            self.abreast(first, last, self.write)
        return fits

    def abreast(self, first: Any, last: Any, body: Callable[[Sequence[Family], Sequence[Any]], None]) -> None:
        """``body(families, places)``, a few at a time, where these stand in tables."""
        code = self.code

        def some(numbers: Sequence[Any]) -> None:
            families = [Family(code, self.variant, "forward", each) for each in numbers]
            body(families, [code.build.sub(each, first) for each in numbers])

        by_few(code, first, last, some)

    def sum_along(self, families: Sequence[Family], places: Sequence[Any]) -> None:
        """Put the sums along some rows to their places."""
        code = self.code
        centres: list[Any] = [code.double(0.0)] * len(families)
        if self.variant.centred:
            centres = [middle_of_some(family) for family in families]
        found = code.totals(self.sums_about(centres, families))
        for place, centre, total, squares in zip(places, centres, found[::2], found[1::2], strict=True):
            for which, value in ((CENTRE, centre), (TOTAL, total), (SQUARES, squares)):
                code.write(value, self.place(self.sums, which, place))

    def sums_about(self, centres: Sequence[Any], families: Sequence[Family]) -> list[Any]:
        """Sums of numbers less a centre, and of their squares, a few vectors at a time in the data's type."""
        code, build = self.code, self.code.build
        middles = [code.spread(code.fit(centre, wide=False)) for centre in centres]
        nothing = ir.Constant(code.narrow, [0.0] * code.lanes)
        length = code.word(2 * FEW * code.lanes)

        def vector(column: Any, mask: Any, *now: Any) -> list[Any]:
            found: list[Any] = []
            for family, middle, total, squares in zip(families, middles, now[::2], now[1::2], strict=True):
                off = build.fsub(code.load(family.start["x"], column, mask), middle)
                off = off if mask is None else build.select(mask, off, nothing)
                found += [build.fadd(total, off), code.multiply_add(off, off, squares)]
            return found

        def run(start: Any, *totals: Any) -> list[Any]:
            stop = code.least(build.add(start, length), code["columns"])
            found = code.columns(start, stop, 1, [nothing] * len(totals), vector)
            return [build.fadd(old, code.widened(new)) for old, new in zip(totals, found, strict=True)]

        return code.loop(code.word(0), code["columns"], length, [code.zeros] * 2 * len(families), run)

    def write(self, families: Sequence[Family], places: Sequence[Any]) -> None:
        """Write the results of some rows."""
        code, build = self.code, self.code.build
        factors = []
        for family, place in zip(families, places, strict=True):
            middle, rstd, residual = (code.read(self.place(self.factors, which, place), DOUBLE) for which in range(3))
            gamma, beta = (family.coefficient(name, code.word(0)) for name in ("gamma", "beta"))
            scale = build.fmul(rstd, gamma)
            values = middle, scale, build.fsub(beta, build.fmul(residual, scale))
            factors.append([code.spread(code.fit(value, wide=False)) for value in values])

        def vector(column: Any, mask: Any) -> list[Any]:
            for family, (middle, *linear) in zip(families, factors, strict=True):
                off = build.fsub(code.load(family.start["x"], column, mask), middle)
                code.store(code.multiply_add(off, *linear), family.start["out"], column, mask)
            return []

        code.vectors(code["columns"], [], vector)


def forward(variant: Variant, isa: Isa) -> str:
    """The function that normalises some families, and writes their statistics unless they are given."""
    code = Code("forward", ARGUMENTS["forward"], variant.itemsize, isa)

    def one(number: Any) -> list[Any]:
        family = Family(code, variant, "forward", number)
        if variant.given:
            mean, var = (code.read(family.statistic(name), DOUBLE) for name in ("mean", "var"))
        else:
            mean, var = statistics(family)
            code.write(mean, family.statistic("mean"))
            code.write(var, family.statistic("var"))
        normalise(family, mean, code.reciprocal_root(var))
        return []

    if variant.given or variant.by_column or variant.itemsize == 8:
        code.loop(code["first"], code["last"], code.word(1), [], one)
        return code.finish()
    with code.build.if_else(can_take_moments(code)) as (then, otherwise):
        with then:
            take_moments(code, variant, code["first"], code["last"], one)
        with otherwise:
            code.loop(code["first"], code["last"], code.word(1), [], one)
    return code.finish()
