"""Norms of families whose columns lie side by side, each family from its first sum to its last result at one time.

The statistics are taken about the family's first number s, in float64:

    mean = s + sum (x - s) / n          var = sum (x - s)^2 / n - (mean - s)^2

As s is one of the data, (mean - s)^2 is at most n * var, and the difference loses at most a factor n + 1: for float32,
of what float64 has beyond it. For float64 all is done again about the mean found, which leaves nothing to lose (Chan,
Golub and LeVeque, "Algorithms for computing the sample variance", 1983). Larger families of float32 numbers are first
summed by float32, a few vectors at a time, about the mean of some numbers, rounded. That is taken if (mean - s)^2 is
at most 4 * var: then the difference makes no more than five of a few roundings of float32, which mostly cancel.

The result is taken from the data less the mean as rounded to their own type, c, by

    y = (x - c) * scale + shift         scale = gamma * rstd        shift = beta - (mean - c) * scale

and a gradient, with the sums over the family of g = gamma * dy and g * (x - mean), by

    dx = g * rstd + (x - c) * slope + offset
    slope = -rstd^3 * sum g * (x - mean) / n        offset = -rstd * sum g / n - (mean - c) * slope

The sums of a gradient are float32's over a few vectors, of dy and dy * (x - c), and float64's of those: that is off by
a few roundings of float32 and half the time. c's share is taken off at the end: sum g * (x - mean) is
sum g * (x - c) - (mean - c) * sum g.

Where a factor is too large or small for float32, or a sum of few too large, float64 takes its place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

from llvmlite import ir

from .code import Code
from .values import TINY, Values

ARRAYS = {"forward": ("x", "out"), "backward": ("x", "dy", "out")}
"""Whose beginnings by family, and strides along parts and rows, are given."""
ARGUMENTS = {
    which: (
        *("gamma", "beta", "mean", "var", "rstd", "eps", "sums", "families", "pieces"),
        *("first", "last", "parts", "rows", "columns", "count", "coefficient_starts", "coefficient_part"),
        *("plain_parts", "plain_columns"),
        *(name for array in arrays for name in (array, f"{array}_starts", f"{array}_part", f"{array}_row")),
    )
    for which, arrays in ARRAYS.items()
}
"""What the functions take; `count` and `eps` are floating numbers.

The plain parts and columns are those of sums in which coefficients do not matter: parts that lie on end are one.
"""
UNROLL = 2
"""Vectors with sums of their own; 1 and 4 were no faster (Zen 4; a vector of float32 makes two of float64)."""
SHORT = 256
"""Numbers of a family below which float64 sums them as fast: 96 of 3136 families took 127 us, 151 by float32."""
SOME = 8
"""Numbers whose mean sums are about: of independent ones, that is a third of a deviation off."""
NEAR = 4.0
"""The square of its distance from the mean, in variances, up to which float32's sums will do."""
CHAINS = 4
"""The same where float32 sums numbers and their squares."""
FEW = 8
"""Vectors that float32 adds up, in each of its chains, before float64 does."""
Vector = Callable[..., Any]


@dataclass(frozen=True)
class Variant:
    """What a function is written for: `given` are statistics that do not depend on x."""

    itemsize: int
    by_column: bool
    centred: bool
    given: bool


class Family:
    """One family in a function that is being written: where its numbers are, and its mean, rounded and not."""

    def __init__(self, code: Code, variant: Variant, which: str, number: Any) -> None:
        self.code, self.variant, self.number = code, variant, number
        self.start = code.begins(ARRAYS[which], number)

    def statistic(self, name: str) -> Any:
        """Where a number of the family's stands."""
        return self.code.at(self.code[name], (self.number, 8))

    def row(self, name: str, part: Any, row: Any) -> Any:
        """Where a row begins."""
        code = self.code
        return code.at(self.start[name], (part, code[f"{name}_part"]), (row, code[f"{name}_row"]))

    def coefficient(self, name: str, part: Any) -> Any:
        """A part's gamma or beta."""
        return self.code.read_element(self.code.at(self.start[name], (part, self.code["coefficient_part"])))

    def sums(self, state: list[Any], vector: Callable[..., list[Any]], columns: str = "columns") -> list[Any]:
        """Sums over the vectors of a part: ``state = vector(row, column, mask, *state)``."""
        code = self.code

        def line(row: Any, *now: Any) -> list[Any]:
            return code.columns(code.word(0), code[columns], UNROLL, now, partial(vector, row))

        return code.each(code["rows"], state, line)

    def few_sums(
        self, state: list[Any], vector: Callable[[bool], Callable[..., list[Any]]], columns: str, unroll: int
    ) -> list[Any]:
        """The same, by float32's sums of a few vectors where these hold them; ``vector(wide)`` is the vector."""
        code, end = self.code, self.code[columns]

        def line(row: Any, *now: Any) -> list[Any]:
            def run(start: Any, *totals: Any) -> list[Any]:
                stop = code.least(code.build.add(start, length), end)

                def go(sums: Values, wide: bool) -> Values:
                    return code.columns(start, stop, unroll, sums, partial(vector(wide), row))

                return code.few(len(totals), lambda: totals, go)

            return code.loop(code.word(0), end, length, now, run)

        length = code.word(FEW * unroll * code.lanes)
        return code.each(code["rows"], state, line)

    def write_rows(self, part: Any, vector: Vector) -> None:
        """``out = vector(row, column, mask)`` for all of a part."""

        def put(row: Any, column: Any, mask: Any) -> list[Any]:
            value, line = self.code.fit(vector(row, column, mask), wide=False), self.row("out", part, row)
            self.code.fetch_ahead(line, column, mask, writing=True)
            self.code.store(value, line, column, mask)
            return []

        self.sums([], put)

    def load(self, name: str, part: Any, row: Any, column: Any, mask: Any, wide: bool = True) -> Any:
        """A vector of an array."""
        load = self.code.load_wide if wide else self.code.load
        return load(self.row(name, part, row), column, mask)

    def load_first(self, name: str, part: Any, row: Any, column: Any, mask: Any, wide: bool) -> Any:
        """The same where the cache is not likely to hold the array: what follows is asked for."""
        self.code.fetch_ahead(self.row(name, part, row), column, mask)
        return self.load(name, part, row, column, mask, wide)


def slope_and_offset(
    code: Code, variant: Variant, rstd: Any, residual: Any, total: Any, products: Any
) -> tuple[Any, Any]:
    """What a gradient takes of x, and what is added, by the sums of g and g * (x - mean); of one family or a vector."""
    build = code.build
    share = build.fdiv(rstd, code.like(rstd, code.number("count")))
    slope = build.fneg(build.fmul(build.fmul(products, share), build.fmul(rstd, rstd)))
    offset = build.fneg(build.fmul(residual, slope))
    return slope, build.fsub(offset, build.fmul(total, share)) if variant.centred else offset


def middle_of_some(family: Family) -> Any:
    """The mean of some numbers of the family's first row, rounded, which is likely to be near that of all; or 0."""
    code, build = family.code, family.code.build
    places = [build.sdiv(build.mul(code["columns"], code.word(place)), code.word(SOME)) for place in range(SOME)]
    numbers = [code.read_element(code.at(family.start["x"], (place, code.itemsize))) for place in places]
    total = reduce(build.fadd, numbers)
    return code.finite(code.rounded(build.fmul(total, code.double(1 / SOME)))[0])


def statistics(family: Family) -> tuple[Any, Any]:
    """The mean and variance of a family."""
    code, build, variant = family.code, family.code.build, family.variant
    count, nothing = code.number("count"), code.double(0.0)

    def about(shift: Any, few: bool) -> tuple[Any, Any, Any]:
        """The mean and variance by sums about a number, and how far off the mean that is."""

        def part(place: Any, *state: Any) -> list[Any]:
            def adder(wide: bool) -> Callable[..., list[Any]]:
                spread = code.spread(code.fit(shift, wide))
                zeros = ir.Constant(spread.type, [0.0] * code.lanes)

                def add(row: Any, column: Any, mask: Any, total: Any, squares: Any) -> list[Any]:
                    off = build.fsub(family.load_first("x", place, row, column, mask, wide), spread)
                    if mask is not None:
                        off = build.select(mask, off, zeros)
                    return [build.fadd(total, off), code.multiply_add(off, off, squares)]

                return add

            if few:
                return family.few_sums(list(state), adder, "plain_columns", CHAINS)
            return family.sums(list(state), adder(True), "plain_columns")

        total, squares = (
            build.fdiv(code.total(vector), count) for vector in code.each(code["plain_parts"], [code.zeros] * 2, part)
        )
        if not variant.centred:
            return nothing, squares, nothing
        return build.fadd(shift, total), code.less_square(squares, total), total

    first = code.finite(code.read_element(family.start["x"])) if variant.centred else nothing
    if variant.itemsize == 8:
        mean, var, _ = about(first, few=False)
        return about(mean, few=False)[:2] if variant.centred else (mean, var)

    def few() -> Values:
        mean, var, off = about(middle_of_some(family) if variant.centred else nothing, few=True)
        near = build.fcmp_ordered("<=", build.fmul(off, off), build.fmul(var, code.double(NEAR)))
        return [mean, var, build.and_(near, build.fcmp_ordered(">=", var, code.double(TINY)))]

    # One place for the wide sums, of which there is much code.
    long = build.fcmp_ordered(">=", count, code.double(SHORT))
    *found, near = code.choice(long, few, lambda: [nothing, nothing, ir.Constant(ir.IntType(1), 0)])
    mean, var = code.choice(near, lambda: found, lambda: about(first, few=False)[:2])
    return mean, var


def normalise(family: Family, mean: Any, rstd: Any) -> None:
    """Write a family's results."""
    code, build = family.code, family.code.build
    centre, residual = code.rounded(mean)

    def write(wide: bool) -> None:
        load = code.load_wide if wide else code.load

        def part(place: Any) -> list[Any]:
            scale, beta = rstd, code.double(0.0)
            if not family.variant.by_column:
                scale, beta = build.fmul(rstd, family.coefficient("gamma", place)), family.coefficient("beta", place)
            shift = build.fsub(beta, build.fmul(residual, scale))
            factors = [code.spread(code.fit(value, wide)) for value in (centre, scale, shift)]

            def vector(row: Any, column: Any, mask: Any) -> Any:
                off = build.fsub(family.load("x", place, row, column, mask, wide), factors[0])
                value = code.multiply_add(off, *factors[1:])
                if not family.variant.by_column:
                    return value
                gamma, beta = (load(family.start[name], column, mask) for name in ("gamma", "beta"))
                return code.multiply_add(value, gamma, beta)

            family.write_rows(place, vector)
            return []

        code.each(code["parts"], [], part)

    code.narrow_or_wide(build.and_(code.ordinary(rstd), code.ordinary(centre, least=0.0)), write)
