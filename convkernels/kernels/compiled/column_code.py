"""Norms where a row of memory goes through many families: sums down the columns, and results row by row.

The formulas are those of `row_code`, and the sums are taken as there, a gradient's in float32 over a few rows. A block
is gone through in phases: a centre for each column is written; rows are summed, in pieces that the cache holds; the
sums of all pieces and of all members of a family are added up, and factors for each column made of them; results are
written, piece by piece. Where coefficients differ by row, their gradients are summed along each. How rows are cut
depends on the problem alone, so results do not on the threads.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from llvmlite import ir

from ..norm_blocks import LEAST_EPS
from .code import Code
from .column_block import (
    ARGUMENTS,
    FIRST,
    LINES,
    MEAN,
    SETTLE,
    SUM,
    WRITE,
    WRITTEN,
    Block,
    Places,
    Variant,
    first_number,
    mean_of,
    middle_of_some,
    put_line,
    rstd_of,
)
from .column_sums import add_up, join_pieces, put_factors
from .function import Function
from .isa import Isa
from .row_code import NEAR
from .tile import WORD, compiled
from .values import HUGE, TINY, Values


def family_sums(block: Block, family: Any, weighted: bool) -> list[Any]:
    """Both sums over the members of a family, weighted by gamma or not."""
    code, build = block.code, block.code.build

    def add(place: Any, *totals: Any) -> list[Any]:
        found = [block.get(block.sums(code.word(0), which), place) for which in (0, 1)]
        if weighted:
            gamma = block.coefficient("gamma", family, place)
            found = [build.fmul(gamma, each) for each in found]
        return [build.fadd(old, new) for old, new in zip(totals, found, strict=True)]

    found = block.by_member(family, [code.zeros] * 2, add)
    return found if block.variant.alone else code.totals(found)


def are_near(block: Block) -> Any:
    """Whether float32's sums will do: of families whose centre is near the mean, and whose squares did not vanish."""
    code, build = block.code, block.code.build
    large = build.fcmp_ordered(">=", code.number("eps"), code.double(LEAST_EPS))
    share = build.fdiv(code.double(1.0), code.number("count"))  # as quotients of vectors take long

    def check(family: Any, holds: Any) -> list[Any]:
        off, square = (build.fmul(each, code.like(each, share)) for each in family_sums(block, family, False))
        off = build.fmul(off, off) if block.variant.centred else code.like(square, code.double(0.0))
        var = build.fsub(square, off)

        def compared(sign: str, value: Any, limit: Any) -> Any:
            return build.fcmp_ordered(sign, value, code.like(value, limit))

        nothing = build.and_(compared("==", square, code.double(0.0)), code.like(square, large))
        seen = build.and_(compared(">=", var, code.double(TINY)), compared("<=", var, code.double(HUGE)))
        near = build.fcmp_ordered("<=", off, build.fmul(var, code.like(var, code.double(NEAR))))
        return [build.and_(holds, code.all_hold(build.and_(near, build.or_(seen, nothing))))]

    return block.families([ir.Constant(ir.IntType(1), 1)], check)[0]


def sum_again(block: Block, pieces: Callable[..., None]) -> None:
    """Sum all pieces by float64, about the first numbers."""
    put_line(block, 0, partial(first_number, block))
    pieces(partial(add_up, block, few=False))
    join_pieces(block)


def settle_forward(block: Block) -> None:
    """Find statistics unless they are given, and make factors: centre, scale, shift; the mean is the new centre."""
    code, build, variant = block.code, block.code.build, block.variant

    def family(number: Any) -> Values:
        kept = [block.statistics(name) for name in ("mean", "var")]
        if variant.given:
            mean, var = (block.get(line, number) for line in kept)
        else:
            sums = family_sums(block, number, False)
            total, square = (build.fdiv(each, code.like(each, code.number("count"))) for each in sums)
            mean, var = code.like(total, code.double(0.0)), square
            if variant.centred:
                before = block.get(block.line(0), block.first_column(number))
                mean, var = build.fadd(before, total), code.less_square(square, total)
            block.put(mean, kept[0], number)
            block.put(var, kept[1], number)
        rstd = code.reciprocal_root(var)
        middle, residual = code.rounded(mean)

        def factors(place: Any) -> Values:
            scale, beta = code.all_lanes(rstd), code.zeros
            if not variant.by_row:
                scale = build.fmul(scale, block.coefficient("gamma", number, place))
                beta = block.coefficient("beta", number, place)
            values = (mean, middle, scale, build.fsub(beta, build.fmul(code.all_lanes(residual), scale)))
            for index, value in enumerate(values):
                block.put(value, block.line(index), place)
            return []

        block.by_member(number, [], factors)
        return []

    block.families([], family)


def settle_backward(block: Block) -> None:
    """Make factors: centre, factor, slope, offset; the products are scaled to what gamma's gradient is the sum of."""
    code, build, variant = block.code, block.code.build, block.variant
    single = build.fdiv(code.double(1.0), code.number("count"))

    def family(number: Any) -> Values:
        middle, residual = mean_of(block, number)
        # Sums along rows had it written, in front of the time that a root and a quotient take.
        rstd = block.get(block.line(1), block.first_column(number)) if variant.by_row else rstd_of(block, number)
        total, products = family_sums(block, number, not variant.by_row)
        if not variant.by_row:
            products = build.fmul(build.fsub(products, build.fmul(residual, total)), rstd)
        share = build.fmul(rstd, code.like(rstd, single))
        slope = build.fneg(build.fmul(build.fmul(products, share), rstd))
        offset = build.fneg(build.fmul(residual, slope))
        if variant.centred:
            offset = build.fsub(offset, build.fmul(total, share))

        def factors(place: Any) -> Values:
            steep = factor = code.all_lanes(rstd)
            if not variant.by_row:
                factor = build.fmul(steep, block.coefficient("gamma", number, place))
            for index, value in enumerate((middle, factor, slope, offset), 1):
                block.put(value, block.line(index), place)
            if variant.by_row:
                return []
            alone, with_x = (block.sums(code.word(0), which) for which in (0, 1))
            off = build.fmul(code.all_lanes(residual), block.get(alone, place))
            block.put(build.fmul(build.fsub(block.get(with_x, place), off), steep), with_x, place)
            return []

        block.by_member(number, [], factors)
        return []

    block.families([], family)


def choose_mode(block: Block, steep: tuple[int, ...], flat: tuple[int, ...]) -> None:
    """Note whether all factors fit float32, and if so, put them into it; of the flat ones, none may be too large."""
    code, build = block.code, block.code.build
    if code.itemsize == 8:
        return

    def check(column: Any, mask: Any, holds: Any) -> list[Any]:
        for indices, least in ((steep, TINY), (flat, 0.0)):
            for index in indices:
                value = code.load(block.line(index), column, mask, code.wide)
                holds = build.and_(holds, code.ordinary(value, least=least))
        return [holds]

    (fits,) = code.vectors(block.columns, [ir.Constant(ir.IntType(1), 1)], check)
    code.write(build.zext(fits, WORD), code["mode"])

    def strip(places: Places) -> None:
        for index in (*steep, *flat):
            for place in places:
                value = code.load(block.line(index), *place, code.wide)
                code.store(code.fit(value, wide=False), block.line(index), *place)

    with build.if_then(fits):
        code.strips(code.word(0), block.columns, 1, strip)


def write(block: Block, piece: Any) -> None:
    """Write the results of a piece."""
    code, build, variant = block.code, block.code.build, block.variant
    backward = "dy" in block.start
    fits = build.trunc(code.read(code["mode"], WORD), ir.IntType(1))

    def results(wide: bool) -> None:
        kind = code.wide if wide else code.narrow

        def group(start: Any, stop: Any) -> None:
            code.strips(code.word(0), block.columns, WRITTEN, lambda places: strip(start, stop, places))

        def strip(start: Any, stop: Any, places: Places) -> None:
            indices = range(1, LINES if backward else LINES - 1)
            factors = [[code.load(block.line(index), *place, kind) for index in indices] for place in places]

            def put(row: Any) -> list[Any]:
                block.fetch(("out",), row, places, code["written"], writing=True)
                names = (("gamma",) if backward else ("gamma", "beta")) if variant.by_row else ()
                of_row = [block.of_row(name, row, wide) for name in names]
                for place, (middle, factor, *others) in zip(places, factors, strict=True):
                    given = block.load("dy", row, place, wide) if backward else None
                    if backward and of_row:
                        given = build.fmul(given, of_row[0])
                    if backward and variant.given:
                        value = build.fmul(given, factor)
                    else:
                        off = build.fsub(block.load("x", row, place, wide), middle)
                        if backward:
                            value = code.multiply_add(given, factor, code.multiply_add(off, *others))
                        else:
                            value = code.multiply_add(off, factor, *others)
                            value = code.multiply_add(value, *of_row) if of_row else value
                    line = code.at(block.start["out"], (row, code["out_row"]))
                    code.store(code.fit(value, wide=False), line, *place)
                return []

            code.loop(start, stop, code.word(1), [], put)

        block.groups(piece, code["written"], group)

    code.narrow_or_wide(fits, results)


@lru_cache(maxsize=64)
def compiled_for(which: str, variant: Variant, isa: Isa) -> Function:
    """The function that goes through the phases wanted of some blocks, and in them of some pieces."""
    code = Code(which, ARGUMENTS[which], variant.itemsize, isa)
    build = code.build

    def wanted(phase: int) -> Any:
        return build.if_then(build.icmp_signed("!=", build.and_(code["phases"], code.word(phase)), code.word(0)))

    def pieces(body: Callable[[Any], None], *, backwards: bool = False) -> None:
        def one(piece: Any) -> list[Any]:
            behind = build.sub(build.add(code["first_piece"], code["last_piece"]), code.word(1))
            body(build.sub(behind, piece) if backwards else piece)
            return []

        code.loop(code["first_piece"], code["last_piece"], code.word(1), [], one)

    def one(number: Any) -> list[Any]:
        block = Block(code, variant, which, number)
        with wanted(FIRST):
            put_line(block, 0, partial(first_number if variant.itemsize == 8 else middle_of_some, block))
        with wanted(MEAN):
            if which == "backward" and variant.by_row:
                put_factors(block)
            else:
                put_line(block, 0, lambda family: mean_of(block, family)[0])
        with wanted(SUM):
            pieces(lambda piece: add_up(block, piece))
        with wanted(SETTLE):
            if which == "backward" or not variant.given:
                join_pieces(block)
            if which == "forward" and not variant.given and variant.itemsize == 4:
                with build.if_then(build.not_(are_near(block)), likely=False):
                    sum_again(block, pieces)
            if which == "forward":
                settle_forward(block)
                choose_mode(block, (2,), (1, 3))
            else:
                settle_backward(block)
                choose_mode(block, *(((2,), ()) if variant.given else ((2, 3), (1, 4))))
        with wanted(WRITE):
            # From the last piece, which the cache still holds of the sums.
            pieces(lambda piece: write(block, piece), backwards=True)
        return []

    code.loop(code["first"], code["last"], code.word(1), [], one)
    return Function(compiled(code.finish(), which, isa), ARGUMENTS[which])
