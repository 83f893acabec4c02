"""Gradients of families of short rows with a coefficient each: a few rows abreast.

A short row's sums take less time than they wait for: for what was added last, for numbers to be added across a vector,
for a root and quotients. So sums along a few rows are taken together, of neighbouring families or of parts of one, and
so are results written. Between the two, factors are found of one family of many parts, or of a vector of families of
one row each. What a family comes to does not depend on those beside it, and one whose numbers leave the data's type is
left to the slower way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .code import Code
from .row_code import ARRAYS, Family, Variant, slope_and_offset
from .row_together import by_few, by_vectors, can_go_together, sums_along
from .values import DOUBLE

SHORT = 128
"""Columns up to which rows are taken together: 512 of 49 columns took 22 us one by one, and take 18, and 1024 of 196
took 82 and 92, as eight streams of memory are not prefetched as two are."""
FACTORS = 4
"""Numbers of a row: dy times the first, and x less the second times the third, and the fourth make dx."""


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
    """Take families back, a vector of them at a time where each is one row; `slowly` takes one."""
    build = code.build

    def one(number: Any) -> list[Any]:
        with build.if_then(build.not_(Parts(code, variant).take(number))):
            slowly(number)
        return []

    with build.if_else(build.icmp_signed("==", code["parts"], code.word(1))) as (then, otherwise):
        with then:
            by_vectors(code, first, last, Singles(code, variant).take, slowly)
        with otherwise:
            code.loop(first, last, code.word(1), [], one)


class Abreast:
    """A few rows in a function that is being written."""

    def __init__(self, code: Code, variant: Variant) -> None:
        self.code, self.variant = code, variant

    def family(self, number: Any) -> Family:
        """A family."""
        return Family(self.code, self.variant, "backward", number)

    def line(self, family: Family, part: Any) -> Line:
        """A part of a family."""
        code = self.code
        begins = {name: code.at(family.start[name], (part, code[f"{name}_part"])) for name in ARRAYS["backward"]}
        return Line(family, part, begins)

    def places(self, number: Any, part: Any) -> tuple[Any, Any]:
        """Where the sums of a row stand, of dy * (x - mean) * rstd and of dy."""
        code = self.code
        index = code.build.add(code.build.mul(number, code["parts"]), part)
        many = code.build.mul(code["families"], code["parts"])
        return code.at(code["sums"], (index, 8)), code.at(code["sums"], (many, 8), (index, 8))

    def sum_along(self, lines: Sequence[Line], centres: Sequence[Any]) -> None:
        """Sum dy and dy * (x - centre) along rows."""
        code = self.code
        found = code.totals(sums_along(code, [line.start for line in lines], centres))
        for line, total, products in zip(lines, found[::2], found[1::2], strict=True):
            for value, place in zip((products, total), self.places(line.family.number, line.part), strict=True):
                code.write(value, place)

    def fit(self, rstd: Any, centre: Any, slope: Any, offset: Any) -> Any:
        """Whether factors, of one family or of a vector, fit the data's type."""
        code = self.code
        return code.build.and_(code.ordinary(rstd, slope), code.ordinary(centre, offset, least=0.0))

    def writing(self, fits: Any) -> Any:
        """The condition that gradients of x fit, and are wanted."""
        build = self.code.build
        return build.if_then(build.and_(fits, build.icmp_signed("!=", self.code["out"], self.code.word(0))))

    def write(self, lines: Sequence[Line], factors: Sequence[Sequence[Any]]) -> None:
        """Write the gradients of x in some rows, by each one's factors."""
        code, build = self.code, self.code.build
        every = [[code.spread(code.fit(each, wide=False)) for each in numbers] for numbers in factors]

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


class Parts(Abreast):
    """Parts of one family, of which there may be any number."""

    def take(self, number: Any) -> Any:
        """Take a family back, if all numbers fit the data's type; whether they do."""
        code, build, family = self.code, self.code.build, self.family(number)
        mean, var = (code.read(family.statistic(name), DOUBLE) for name in ("mean", "var"))
        rstd, (centre, residual) = code.reciprocal_root(var), code.rounded(mean)
        self.by_lines(family, lambda lines: self.sum_along(lines, [centre] * len(lines)))

        def add(part: Any, *totals: Any) -> list[Any]:
            with_x, alone = self.places(number, part)
            total = code.read(alone, DOUBLE)
            products = build.fsub(code.read(with_x, DOUBLE), build.fmul(residual, total))
            code.write(build.fmul(products, rstd), with_x)
            gamma = family.coefficient("gamma", part)
            return [code.multiply_add(gamma, new, old) for new, old in zip((total, products), totals, strict=True)]

        total, products = code.each(code["parts"], [code.double(0.0)] * 2, add)
        slope, offset = slope_and_offset(code, self.variant, rstd, residual, total, products)

        def write(lines: Sequence[Line]) -> None:
            scales = [build.fmul(rstd, family.coefficient("gamma", line.part)) for line in lines]
            self.write(lines, [(scale, centre, slope, offset) for scale in scales])

        fits = self.fit(rstd, centre, slope, offset)
        with self.writing(fits):
            self.by_lines(family, write)
        return fits

    def by_lines(self, family: Family, body: Callable[[Sequence[Line]], None]) -> None:
        """``body(lines)``, for a few of them at a time."""
        by_few(
            self.code,
            self.code.word(0),
            self.code["parts"],
            lambda parts: body([self.line(family, part) for part in parts]),
        )


class Singles(Abreast):
    """Families of one row, a lane of a vector each."""

    def __init__(self, code: Code, variant: Variant) -> None:
        super().__init__(code, variant)
        self.gammas = code.room(code.lanes * 8)
        self.factors = code.room(FACTORS * code.lanes * code.itemsize)

    def factor(self, which: int, place: Any) -> Any:
        """Where a family's factor stands."""
        code = self.code
        return code.at(self.factors, (code.word(which), code.lanes * code.itemsize), (place, code.itemsize))

    def take(self, first: Any, last: Any) -> Any:
        """Take families back, if all numbers fit the data's type; whether they do."""
        code, build = self.code, self.code.build
        mask, start = code.first_lanes(build.sub(last, first)), code.word(0)
        by_few(code, first, last, lambda numbers: self.sum(first, numbers))

        def load(address: Any) -> Any:
            return code.load(address, start, mask, code.wide)

        mean, var = (load(code.at(code[name], (first, 8))) for name in ("mean", "var"))
        rstd, (centre, residual) = code.reciprocal_root(var), code.rounded(mean)
        with_x, alone = self.places(first, start)
        total, gamma = load(alone), load(self.gammas)
        products = build.fsub(load(with_x), build.fmul(residual, total))
        weighted = (build.fmul(gamma, each) for each in (total, products))
        slope, offset = slope_and_offset(code, self.variant, rstd, residual, *weighted)
        fits = self.fit(rstd, centre, slope, offset)
        with build.if_then(fits):
            code.store(build.fmul(products, rstd), with_x, start, mask)
        with self.writing(fits):
            for which, value in enumerate((build.fmul(rstd, gamma), centre, slope, offset)):
                code.store(code.fit(value, wide=False), self.factor(which, start), start, None)
            by_few(code, first, last, lambda numbers: self.write_rows(first, numbers))
        return fits

    def sum(self, first: Any, numbers: Sequence[Any]) -> None:
        """Sum along the rows of some families, and put down their gammas."""
        code = self.code
        families = [self.family(number) for number in numbers]
        centres = [code.rounded(code.read(family.statistic("mean"), DOUBLE))[0] for family in families]
        self.sum_along([self.line(family, code.word(0)) for family in families], centres)
        for family in families:
            place = code.build.sub(family.number, first)
            code.write(family.coefficient("gamma", code.word(0)), code.at(self.gammas, (place, 8)))

    def write_rows(self, first: Any, numbers: Sequence[Any]) -> None:
        """Write the gradients of x in the rows of some families."""
        code = self.code
        places = [code.build.sub(number, first) for number in numbers]
        factors = [[code.read(self.factor(which, place), code.element) for which in range(FACTORS)] for place in places]
        self.write([self.line(self.family(number), code.word(0)) for number in numbers], factors)
