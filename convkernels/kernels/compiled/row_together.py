"""Gradients of a few families at a time, where each is one row and coefficients differ by column.

Sums along four rows wait for each other a quarter as long, and take gamma once for all, and so do sums down columns and
the gradient of x, for which the fastest cache still holds the rows. What a family comes to does not depend on those
beside it, and one whose numbers leave the data's type is left to the slower way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from llvmlite import ir

from ..norm_blocks import LEAST_EPS
from .code import DOUBLE, Code
from .row_code import FEW, Family, Variant

ABREAST = 4
"""Rows taken together."""


class Factors(NamedTuple):
    """A row's: x - `centre` times `rstd` plus `shift` is normal; times `slope` plus `offset` it is a part of dx."""

    centre: Any
    rstd: Any
    shift: Any
    slope: Any
    offset: Any


def can_go_together(code: Code) -> Any:
    """Whether families are rows, and `eps` is such that float32 will do."""
    build = code.build
    single = build.icmp_signed("==", code["rows"], code.word(1))
    large = build.fcmp_ordered(">=", code.number("eps"), code.double(LEAST_EPS))
    return build.and_(single, large)


def go_together(code: Code, variant: Variant, piece: Any, first: Any, last: Any, slowly: Callable[[Any], None]) -> None:
    """Take some families back, and add to the sums of a piece; `slowly` takes one."""
    build, few = code.build, code.word(ABREAST)

    def families(number: Any, count: int) -> list[Family]:
        return [Family(code, variant, "backward", build.add(number, code.word(place))) for place in range(count)]

    def some(start: Any) -> list[Any]:
        stop = code.least(build.add(start, few), last)
        full = build.icmp_signed("==", build.sub(stop, start), few)
        one = ir.Constant(ir.IntType(1), 1)
        (left,) = code.choice(full, lambda: [build.not_(take(code, families(start, ABREAST), piece))], lambda: [one])
        with build.if_then(left):
            code.loop(start, stop, code.word(1), [], alone)
        return []

    def alone(number: Any) -> list[Any]:
        with build.if_then(build.not_(take(code, families(number, 1), piece))):
            slowly(number)
        return []

    code.loop(first, last, few, [], some)


def take(code: Code, families: Sequence[Family], piece: Any) -> Any:
    """Take families back if the numbers of all fit the data's type; whether they do."""
    build, known, factors = code.build, [], []
    for family in families:
        mean, var = (code.read(family.statistic(name), DOUBLE) for name in ("mean", "var"))
        known.append((code.reciprocal_root(var), *code.rounded(mean)))
    found = sums_along(code, families, [centre for _, centre, _ in known])
    fits: Any = ir.Constant(ir.IntType(1), 1)
    for place, (family, (rstd, centre, residual)) in enumerate(zip(families, known, strict=True)):
        total, products = (code.total(vector) for vector in found[2 * place : 2 * place + 2])
        slope, offset = family.slope(rstd, residual, total, build.fsub(products, build.fmul(residual, total)))
        ordinary = build.and_(code.ordinary(rstd, slope), code.ordinary(centre, offset, least=0.0))
        fits = build.and_(fits, ordinary)
        factors.append(Factors(centre, rstd, build.fneg(build.fmul(residual, rstd)), slope, offset))
    with build.if_then(fits):
        write(code, families, factors, piece)
    return fits


def sums_along(code: Code, families: Sequence[Family], centres: Sequence[Any]) -> list[Any]:
    """The sums of g and g * (x - centre) of each row, by sums of a few vectors in the data's type."""
    build = code.build
    nothing = ir.Constant(code.narrow, [0.0] * code.lanes)
    middles = [code.spread(code.fit(centre, wide=False)) for centre in centres]
    length = code.word(2 * FEW * code.lanes)

    def vector(column: Any, mask: Any, *now: Any) -> list[Any]:
        gamma, found = code.load(code["gamma"], column, mask), []
        for family, middle, total, products in zip(families, middles, now[::2], now[1::2], strict=True):
            dy, x = (code.load(family.start[name], column, mask) for name in ("dy", "x"))
            given = build.fmul(dy, gamma)
            found += [build.fadd(total, given), code.multiply_add(given, build.fsub(x, middle), products)]
        return found

    def run(start: Any, *totals: Any) -> list[Any]:
        stop = code.least(build.add(start, length), code["columns"])
        found = code.columns(start, stop, 1, [nothing] * len(totals), vector)
        return [build.fadd(old, code.widened(new)) for old, new in zip(totals, found, strict=True)]

    return code.loop(code.word(0), code["columns"], length, [code.zeros] * 2 * len(families), run)


def write(code: Code, families: Sequence[Family], factors: Sequence[Factors], piece: Any) -> None:
    """Write the gradients of rows if there is an address for them, and add to the sums of a piece."""
    build = code.build
    line = build.mul(code["columns"], code.word(8))
    sums = code.at(code["sums"], (piece, build.mul(line, code.word(2))))
    spread = [Factors(*(code.spread(code.fit(each, wide=False)) for each in of)) for of in factors]

    def vector(writes: bool, column: Any, mask: Any) -> list[Any]:
        gamma, products, total = code.load(code["gamma"], column, mask), None, None
        for family, row in zip(families, spread, strict=True):
            dy, x = (code.load(family.start[name], column, mask) for name in ("dy", "x"))
            off = build.fsub(x, row.centre)
            normal = code.multiply_add(off, row.rstd, row.shift)
            if writes:
                value = code.multiply_add(off, row.slope, row.offset)
                value = code.multiply_add(build.fmul(dy, gamma), row.rstd, value)
                code.store(value, family.start["out"], column, mask)
            products = build.fmul(dy, normal) if products is None else code.multiply_add(dy, normal, products)
            total = dy if total is None else build.fadd(total, dy)
        for start, new in ((sums, products), (build.add(sums, line), total)):
            old = code.load(start, column, mask, code.wide)
            code.store(build.fadd(old, code.widened(new)), start, column, mask)
        return []

    with build.if_else(build.icmp_signed("!=", code["out"], code.word(0))) as ways:
        for way, writes in zip(ways, (True, False), strict=True):
            with way:
                code.vectors(code["columns"], [], partial(vector, writes))
