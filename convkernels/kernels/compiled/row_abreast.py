"""Gradients of families of short rows with a coefficient each: a few rows abreast.

A short row's sums take less time than they wait for: for what was added last, for numbers to be added across a vector,
for a root and quotients. So sums along a few rows are taken together, of neighbouring families or of parts of one, and
so are results written. What a family comes to does not depend on those beside it, and one whose numbers leave the
data's type is left to the slower way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from llvmlite import ir

from .code import DOUBLE, Code
from .row_code import ARRAYS, Family, Variant, slope_and_offset
from .row_together import ABREAST, can_go_together, sums_along

SHORT = 128
"""Columns up to which rows are taken together: 512 of 49 columns took 22 us one by one, and take 18, and 1024 of 196
took 82 and 92, as eight streams of memory are not prefetched as two are."""


class Line(NamedTuple):
    """A row of a family: its part, and where its numbers begin."""

    family: Family
    part: Any
    start: dict[str, Any]


def can_go_abreast(code: Code) -> Any:
    """Whether parts are short rows, and `eps` is such that float32 will do."""
    short = code.build.icmp_signed("<=", code["columns"], code.word(SHORT))
    return code.build.and_(can_go_together(code), short)


def go_abreast(code: Code, variant: Variant, first: Any, last: Any, slowly: Callable[[Any], Any]) -> None:
    """Take families back, a few at a time where each is one row; `slowly` takes one."""
    build = code.build
    single = build.icmp_signed("==", code["parts"], code.word(1))
    few = build.select(single, code.word(ABREAST), code.word(1))

    def some(start: Any) -> list[Any]:
        stop = code.least(build.add(start, few), last)
        full = build.icmp_signed("==", build.sub(stop, start), code.word(ABREAST))
        with build.if_else(full) as (then, otherwise):
            with then:
                fits = Abreast(code, variant, start, ABREAST).take()
                with build.if_then(build.not_(fits)):
                    code.loop(start, stop, code.word(1), [], alone)
            with otherwise:
                code.loop(start, stop, code.word(1), [], alone)
        return []

    def alone(number: Any) -> list[Any]:
        with build.if_then(build.not_(Abreast(code, variant, number, 1).take())):
            slowly(number)
        return []

    code.loop(first, last, few, [], some)


class Abreast:
    """A few families of one row, or one of any number of parts, in a function that is being written."""

    def __init__(self, code: Code, variant: Variant, first: Any, count: int) -> None:
        numbers = [code.build.add(first, code.word(place)) for place in range(count)]
        self.code, self.variant = code, variant
        self.families = [Family(code, variant, "backward", number) for number in numbers]
        self.centres = [code.rounded(code.read(each.statistic("mean"), DOUBLE))[0] for each in self.families]

    def take(self) -> Any:
        """Take the families back, if all numbers fit the data's type; whether they do."""
        code, build = self.code, self.code.build
        self.by_lines(self.sum_along)
        fits, factors = ir.Constant(ir.IntType(1), 1), []
        for family in self.families:
            found, fit = self.settle(family)
            factors.append(found)
            fits = build.and_(fits, fit)
        writes = build.icmp_signed("!=", code["out"], code.word(0))
        with build.if_then(build.and_(fits, writes)):
            self.by_lines(lambda lines: self.write(lines, factors))
        return fits

    def by_lines(self, body: Callable[[Sequence[Line]], None]) -> None:
        """``body(lines)``, for a few of them at a time."""
        code = self.code
        if len(self.families) > 1:
            body([self.line(family, code.word(0)) for family in self.families])
            return

        def some(part: Any, count: int) -> list[Any]:
            body([self.line(self.families[0], code.build.add(part, code.word(place))) for place in range(count)])
            return []

        many = code.build.sub(code["parts"], code.build.srem(code["parts"], code.word(ABREAST)))
        code.loop(code.word(0), many, code.word(ABREAST), [], lambda part: some(part, ABREAST))
        code.loop(many, code["parts"], code.word(1), [], lambda part: some(part, 1))

    def line(self, family: Family, part: Any) -> Line:
        """A part of a family."""
        code = self.code
        begins = {name: code.at(family.start[name], (part, code[f"{name}_part"])) for name in ARRAYS["backward"]}
        return Line(family, part, begins)

    def places(self, line: Line) -> tuple[Any, Any]:
        """Where the sums of a row stand, of dy * (x - mean) * rstd and of dy."""
        code = self.code
        index = code.build.add(code.build.mul(line.family.number, code["parts"]), line.part)
        many = code.build.mul(code["families"], code["parts"])
        return code.at(code["sums"], (index, 8)), code.at(code["sums"], (many, 8), (index, 8))

    def sum_along(self, lines: Sequence[Line]) -> None:
        """Sum dy and dy * (x - centre) along rows."""
        code = self.code
        centres = self.centres if len(self.centres) > 1 else self.centres * len(lines)
        found = code.totals(sums_along(code, [line.start for line in lines], centres))
        for line, total, products in zip(lines, found[::2], found[1::2], strict=True):
            for value, place in zip((products, total), self.places(line), strict=True):
                code.write(value, place)

    def settle(self, family: Family) -> tuple[list[Any], Any]:
        """The factors of a family: rstd, centre, slope, offset; whether they fit. Its sums are less the mean, then."""
        code, build = self.code, self.code.build
        mean, var = (code.read(family.statistic(name), DOUBLE) for name in ("mean", "var"))
        rstd, (centre, residual) = code.reciprocal_root(var), code.rounded(mean)

        def add(part: Any, *totals: Any) -> list[Any]:
            with_x, alone = self.places(self.line(family, part))
            total = code.read(alone, DOUBLE)
            products = build.fsub(code.read(with_x, DOUBLE), build.fmul(residual, total))
            code.write(build.fmul(products, rstd), with_x)
            gamma = family.coefficient("gamma", part)
            return [code.multiply_add(gamma, new, old) for new, old in zip((total, products), totals, strict=True)]

        state = [code.double(0.0)] * 2
        total, products = add(code.word(0), *state) if len(self.families) > 1 else code.each(code["parts"], state, add)
        slope, offset = slope_and_offset(code, self.variant, rstd, residual, total, products)
        fits = build.and_(code.ordinary(rstd, slope), code.ordinary(centre, offset, least=0.0))
        return [rstd, centre, slope, offset], fits

    def write(self, lines: Sequence[Line], factors: Sequence[Sequence[Any]]) -> None:
        """Write the gradients of x in some rows."""
        code, build = self.code, self.code.build
        every = []
        for line, (rstd, *others) in zip(lines, factors if len(factors) > 1 else [*factors] * len(lines), strict=True):
            scale = build.fmul(rstd, line.family.coefficient("gamma", line.part))
            every.append([code.spread(code.fit(each, wide=False)) for each in (scale, *others)])

        def vector(column: Any, mask: Any) -> list[Any]:
            for line, (scale, centre, slope, offset) in zip(lines, every, strict=True):
                dy = code.load(line.start["dy"], column, mask)
                value = build.fmul(dy, scale)
                if not self.variant.given:
                    off = build.fsub(code.load(line.start["x"], column, mask), centre)
                    value = code.multiply_add(dy, scale, code.multiply_add(off, slope, offset))
                code.store(value, line.start["out"], column, mask)
            return []

        code.vectors(code["columns"], [], vector)
