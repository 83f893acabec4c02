"""Gradients of norms of families whose columns lie side by side; see `row_code` for the formulas."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from .code import Code
from .function import Function
from .isa import Isa
from .row_abreast import can_go_abreast, go_abreast
from .row_code import ARGUMENTS, UNROLL, Family, Variant, slope_and_offset
from .row_moments import forward
from .row_together import can_go_together, go_together
from .tile import compiled
from .values import DOUBLE, Values

TOGETHER = 8
"""Families after which coefficients' gradients are summed down the columns, their rows being in the cache."""


def shares(family: Family, mean: Any, rstd: Any) -> tuple[Any, Any]:
    """The sums of g and g * (x - mean) over a family; by part, those of dy * (x - mean) * rstd and dy are written."""
    code, build = family.code, family.code.build
    centre, residual = code.rounded(mean)

    def add(place: Any, wide: bool) -> Callable[..., list[Any]]:
        middle = code.spread(code.fit(centre, wide))

        def vector(row: Any, column: Any, mask: Any, total: Any, products: Any) -> list[Any]:
            given = family.load_first("dy", place, row, column, mask, wide)
            if family.variant.by_column:
                load = code.load_wide if wide else code.load
                given = build.fmul(given, load(family.start["gamma"], column, mask))
            off = build.fsub(family.load_first("x", place, row, column, mask, wide), middle)
            return [build.fadd(total, given), code.multiply_add(given, off, products)]

        return vector

    def sums(place: Any) -> tuple[Any, Any]:
        """Those of a part."""
        found = family.few_sums([code.zeros] * 2, partial(add, place), "columns", UNROLL)
        total, products = (code.total(vector) for vector in found)
        return total, build.fsub(products, build.fmul(residual, total))

    if family.variant.by_column:
        return sums(code.word(0))

    def part(place: Any, *state: Any) -> list[Any]:
        found = sums(place)
        index = build.add(build.mul(family.number, code["parts"]), place)
        many = build.mul(code["families"], code["parts"])
        code.write(build.fmul(found[1], rstd), code.at(code["sums"], (index, 8)))
        code.write(found[0], code.at(code["sums"], (many, 8), (index, 8)))
        gamma = family.coefficient("gamma", place)
        return [code.multiply_add(gamma, new, old) for new, old in zip(found, state, strict=True)]

    total, products = code.each(code["parts"], [code.double(0.0)] * 2, part)
    return total, products


def pull_back(family: Family, mean: Any, rstd: Any, total: Any, products: Any) -> None:
    """Write a family's gradient."""
    code, build, variant = family.code, family.code.build, family.variant
    centre, residual = code.rounded(mean)
    slope, offset = slope_and_offset(code, variant, rstd, residual, total, products)

    def write(wide: bool) -> None:
        load = code.load_wide if wide else code.load
        middle, steep, shift = (code.spread(code.fit(value, wide)) for value in (centre, slope, offset))

        def part(place: Any) -> list[Any]:
            scale = rstd if variant.by_column else build.fmul(rstd, family.coefficient("gamma", place))
            factor = code.spread(code.fit(scale, wide))

            def vector(row: Any, column: Any, mask: Any) -> Any:
                given = family.load("dy", place, row, column, mask, wide)
                if variant.by_column:
                    given = build.fmul(given, load(family.start["gamma"], column, mask))
                if variant.given:
                    return build.fmul(given, factor)
                off = build.fsub(family.load("x", place, row, column, mask, wide), middle)
                return code.multiply_add(given, factor, code.multiply_add(off, steep, shift))

            family.write_rows(place, vector)
            return []

        code.each(code["parts"], [], part)

    fits = code.ordinary(rstd)
    if not variant.given:
        fits = build.and_(fits, build.and_(code.ordinary(slope), code.ordinary(centre, offset, least=0.0)))
    code.narrow_or_wide(fits, write)


def add_down(code: Code, variant: Variant, piece: Any, first: Any, last: Any) -> None:
    """Add dy * (x - mean) * rstd and dy of some families, column by column, to the sums of a piece."""
    build = code.build
    line = build.mul(code["columns"], code.word(8))
    sums = code.at(code["sums"], (piece, build.mul(line, code.word(2))))

    def strip(places: list[tuple[Any, Any]]) -> None:
        def go(state: Values, wide: bool) -> Values:
            def one(number: Any, *state: Any) -> list[Any]:
                family = Family(code, variant, "backward", number)
                mean, rstd = (code.read(family.statistic(name), DOUBLE) for name in ("mean", "rstd"))
                centre, residual = code.rounded(mean)
                shift = build.fneg(build.fmul(residual, rstd))
                middle, *linear = (code.spread(code.fit(value, wide)) for value in (centre, rstd, shift))

                def row(index: Any, *now: Any) -> list[Any]:
                    found = []
                    for (column, mask), gamma, beta in zip(places, now[::2], now[1::2], strict=True):
                        off = build.fsub(family.load("x", code.word(0), index, column, mask, wide), middle)
                        given = family.load("dy", code.word(0), index, column, mask, wide)
                        normal = code.multiply_add(off, *linear)
                        found += [code.multiply_add(given, normal, gamma), build.fadd(beta, given)]
                    return found

                return code.each(code["rows"], state, row)

            return code.loop(first, last, code.word(1), state, one)

        targets = [(start, *place) for place in places for start in (sums, build.add(sums, line))]

        def before() -> Values:
            return [code.load(*target, code.wide) for target in targets]

        single = build.icmp_signed("==", code["rows"], code.word(1))
        found = code.choice(single, lambda: code.few(len(targets), before, go), lambda: go(before(), True))
        for value, target in zip(found, targets, strict=True):
            code.store(value, *target)

    code.strips(code.word(0), code["columns"], 4, strip)


def backward(variant: Variant, isa: Isa) -> str:
    """The function that takes the gradient of some pieces of the families back, if an address is given for it."""
    code = Code("backward", ARGUMENTS["backward"], variant.itemsize, isa)
    build = code.build

    def one(number: Any) -> list[Any]:
        family = Family(code, variant, "backward", number)
        mean, var = (code.read(family.statistic(name), DOUBLE) for name in ("mean", "var"))
        rstd = code.reciprocal_root(var)
        code.write(rstd, family.statistic("rstd"))
        total, products = shares(family, mean, rstd)
        with build.if_then(build.icmp_signed("!=", code["out"], code.word(0))):
            pull_back(family, mean, rstd, total, products)
        return []

    def several(piece: Any) -> list[Any]:
        first, stop = (
            build.sdiv(build.mul(code["families"], place), code["pieces"])
            for place in (piece, build.add(piece, code.word(1)))
        )

        def slowly(first: Any, last: Any) -> None:
            code.loop(first, last, code.word(1), [], one)
            add_down(code, variant, piece, first, last)

        def some(start: Any) -> list[Any]:
            slowly(start, code.least(build.add(start, code.word(TOGETHER)), stop))
            return []

        if variant.given:
            code.loop(first, stop, code.word(TOGETHER), [], some)
            return []
        with build.if_else(can_go_together(code)) as (then, otherwise):
            with then:
                go_together(
                    code, variant, piece, first, stop, lambda number: slowly(number, build.add(number, code.word(1)))
                )
            with otherwise:
                code.loop(first, stop, code.word(TOGETHER), [], some)
        return []

    if variant.by_column:
        code.loop(code["first"], code["last"], code.word(1), [], several)
        return code.finish()
    # Each family is a piece.
    with build.if_else(can_go_abreast(code)) as (then, otherwise):
        with then:
            go_abreast(code, variant, code["first"], code["last"], one)
        with otherwise:
            code.loop(code["first"], code["last"], code.word(1), [], one)
    return code.finish()


@lru_cache(maxsize=64)
def compiled_for(which: str, variant: Variant, isa: Isa) -> Function:
    """The function, compiled."""
    text = {"forward": forward, "backward": backward}[which](variant, isa)
    return Function(compiled(text, which, isa), ARGUMENTS[which])
