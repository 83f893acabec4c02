"""Norms where a row of memory goes through many families: sums down the columns, and results row by row.

The formulas are those of `row_code`, and the sums are taken as there, a gradient's in float32 over a few rows. A block
is gone through in phases: a centre for each column is written; rows are summed, in pieces that the cache holds; the
sums of all pieces and of all members of a family are added up, and factors for each column made of them; results are
written, piece by piece. Where coefficients differ by row, their gradients are summed along each. How rows are cut
depends on the problem alone, so results do not on the threads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from llvmlite import ir

from .code import DOUBLE, TINY, Code, Values
from .function import Function
from .isa import Isa
from .tile import WORD, compiled

ARRAYS = {"forward": ("x", "out"), "backward": ("x", "dy", "out")}
"""Whose beginnings by block, and strides along rows, are given."""
ARGUMENTS = {
    which: (
        *("phases", "first", "last", "first_piece", "last_piece", "pieces", "height", "rows", "families", "members"),
        *("gamma", "beta", "coefficient_starts", "family_step", "member_step", "row_step", "mean", "var"),
        *("count", "eps", "lines", "mode", "sums", "sum_step", "across"),
        *(name for array in arrays for name in (array, f"{array}_starts", f"{array}_row")),
    )
    for which, arrays in ARRAYS.items()
}
"""What the functions take; `count` and `eps` are floating numbers, `phases` a sum of those wanted."""
FIRST, MEAN, SUM, SETTLE, WRITE = 1, 2, 4, 8, 16
"""The phases; a centre is a family's first number, or its mean."""
LINES = 5
"""Rows of scratch for a block: the centre, and up to four of factors."""
STRIP = 2
"""Vectors taken together down the columns: with 16 of float32, two lines of the cache."""

GROUP = 8
"""Rows taken together: as many streams as are prefetched, and sums are written once for all of them."""

Places = list[tuple[Any, Any]]
Rows = Callable[[list[Any], Callable[..., list[Any]]], list[Any]]


@dataclass(frozen=True)
class Variant:
    """What a function is written for: `given` are statistics that do not depend on x."""

    itemsize: int
    centred: bool
    given: bool
    by_row: bool


class Block:
    """One block in a function that is being written."""

    def __init__(self, code: Code, variant: Variant, which: str, number: Any) -> None:
        self.code, self.variant, self.number = code, variant, number
        self.columns = code.build.mul(code["families"], code["members"])
        self.start = {name: self.begin(name, f"{name}_starts") for name in ARRAYS[which]}
        self.start |= {name: self.begin(name, "coefficient_starts") for name in ("gamma", "beta")}

    def begin(self, name: str, starts: str) -> Any:
        """Where the block begins in an array, by a table."""
        code = self.code
        return code.build.add(code[name], code.read(code.at(code[starts], (self.number, 8)), WORD))

    def line(self, index: int) -> Any:
        """A row of scratch."""
        code = self.code
        return code.at(code["lines"], (self.columns, 8 * index))

    def sums(self, piece: Any, which: int) -> Any:
        """A row of sums."""
        code = self.code
        slot = code.build.mul(self.number, code["sum_step"])
        place = code.build.add(code.build.mul(slot, code["pieces"]), piece)
        return code.at(code["sums"], (code.build.mul(place, self.columns), 16), (self.columns, 8 * which))

    def statistic(self, name: str, family: Any) -> Any:
        """Where a number of a family's stands."""
        code = self.code
        return code.at(code[name], (code.build.add(code.build.mul(self.number, code["families"]), family), 8))

    def by_member(self, family: Any, body: Callable[[Any, Any], None]) -> None:
        """``body(member, column)`` for each column of a family."""
        build, code = self.code.build, self.code

        def one(member: Any) -> list[Any]:
            body(member, build.add(build.mul(family, code["members"]), member))
            return []

        code.each(code["members"], [], one)

    def coefficient(self, name: str, family: Any, member: Any) -> Any:
        """A column's gamma or beta."""
        code = self.code
        return code.read_element(
            code.at(self.start[name], (family, code["family_step"]), (member, code["member_step"]))
        )

    def of_row(self, name: str, row: Any, wide: bool) -> Any:
        """A row's gamma or beta, in all lanes."""
        code = self.code
        return code.spread(code.fit(code.read_element(code.at(self.start[name], (row, code["row_step"]))), wide))

    def families(self, body: Callable[[Any], None]) -> None:
        """``body(family)``."""

        def one(family: Any) -> list[Any]:
            body(family)
            return []

        self.code.each(self.code["families"], [], one)

    def groups(self, piece: Any, body: Callable[[Rows], None]) -> None:
        """``body(rows)`` for each few rows; in it, ``rows(state, step)`` is ``state = step(row, *state)`` for these."""
        build, code = self.code.build, self.code

        first = build.mul(piece, code["height"])
        last = code.least(build.add(first, code["height"]), code["rows"])

        def group(start: Any) -> list[Any]:
            stop = code.least(build.add(start, code.word(GROUP)), last)
            body(lambda state, step: code.loop(start, stop, code.word(1), state, step))
            return []

        code.loop(first, last, code.word(GROUP), [], group)

    def load(self, name: str, row: Any, place: tuple[Any, Any], wide: bool = True) -> Any:
        """A vector of an array."""
        line = self.code.at(self.start[name], (row, self.code[f"{name}_row"]))
        return (self.code.load_wide if wide else self.code.load)(line, *place)


def put_line(block: Block, line: int, found: Callable[[Any], Any]) -> None:
    """Write a number of each family's for each column."""
    code = block.code

    def family(number: Any) -> None:
        value = found(number)
        block.by_member(number, lambda _, column: code.write(value, code.at(block.line(line), (column, 8))))

    block.families(family)


def first_number(block: Block, family: Any) -> Any:
    """The first number of a family's, or 0."""
    code = block.code
    if not block.variant.centred:
        return code.double(0.0)
    column = code.build.mul(family, code["members"])
    return code.finite(code.read_element(code.at(block.start["x"], (column, code.itemsize))))


def mean_of(block: Block, family: Any) -> tuple[Any, Any]:
    """The mean of a family, which is known, as rounded to the data's type, and what that leaves."""
    return block.code.rounded(block.code.read(block.statistic("mean", family), DOUBLE))


def rstd_of(block: Block, family: Any) -> Any:
    """One by the root of the variance of a family, which is known."""
    return block.code.reciprocal_root(block.code.read(block.statistic("var", family), DOUBLE))


def add_up(block: Block, piece: Any) -> None:
    """Sum x less the centre and its square, or dy and its product with that, down the rows of a piece."""
    code, build, backward = block.code, block.code.build, "dy" in block.start

    def clear(places: Places) -> None:
        for which in (0, 1):
            for place in places:
                code.store(code.zeros, block.sums(piece, which), *place)

    def adder(places: Places, centres: list[Any], wide: bool) -> Callable[..., list[Any]]:
        many, middles = len(places), [code.fit(centre, wide) for centre in centres]

        def add(row: Any, *now: Any) -> list[Any]:
            pairs = zip(places, middles, strict=True)
            offs = [build.fsub(block.load("x", row, place, wide), middle) for place, middle in pairs]
            first = [block.load("dy", row, place, wide) for place in places] if backward else offs
            if backward and block.variant.by_row:
                gamma = block.of_row("gamma", row, wide)
                first = [build.fmul(each, gamma) for each in first]
            totals = [build.fadd(old, new) for old, new in zip(now[:many], first, strict=True)]
            return totals + [code.multiply_add(*each) for each in zip(first, offs, now[many:], strict=True)]

        return add

    def group(rows: Rows) -> None:
        def strip(places: Places) -> None:
            centres = [code.load(block.line(0), *place, code.wide) for place in places]
            targets = [(block.sums(piece, which), *place) for which in (0, 1) for place in places]

            def go(state: Values, wide: bool) -> Values:
                return rows([*state], adder(places, centres, wide))

            before = [code.load(*target, code.wide) for target in targets]
            found = code.few(before, go) if backward else go(before, wide=True)
            for target, value in zip(targets, found, strict=True):
                code.store(value, *target)

        code.strips(block.columns, STRIP, strip)
        if backward and block.variant.by_row:
            rows([], partial(add_across, block))

    code.strips(block.columns, 1, clear)
    block.groups(piece, group)


def add_across(block: Block, row: Any) -> list[Any]:
    """Sum dy * (x - mean) * rstd and dy along a row: its shares in the gradients of coefficients."""
    code, build = block.code, block.code.build

    def add(column: Any, mask: Any, products: Any, total: Any) -> list[Any]:
        middle, rstd, less = (code.load(block.line(index), column, mask, code.wide) for index in range(3))
        given, off = block.load("dy", row, (column, mask)), build.fsub(block.load("x", row, (column, mask)), middle)
        normal = build.fsub(build.fmul(off, rstd), less)
        return [code.multiply_add(given, normal, products), build.fadd(total, given)]

    place = build.add(build.mul(block.number, code["rows"]), row)
    for which, found in enumerate(code.columns(code.word(0), block.columns, 2, [code.zeros] * 2, add)):
        code.write(code.total(found), code.at(code["across"], (place, 16), (code.word(which), 8)))
    return []


def join_pieces(block: Block) -> None:
    """Add the sums of all pieces to those of the first."""
    code = block.code

    def strip(places: Places) -> None:
        for which in (0, 1):
            for place in places:
                line = block.sums(code.word(0), which)

                def add(piece: Any, total: Any, which: int = which, place: tuple[Any, Any] = place) -> list[Any]:
                    return [code.build.fadd(total, code.load(block.sums(piece, which), *place, code.wide))]

                first = [code.load(line, *place, code.wide)]
                code.store(code.loop(code.word(1), code["pieces"], code.word(1), first, add)[0], line, *place)

    code.strips(block.columns, 1, strip)


def family_sums(block: Block, family: Any, weighted: bool) -> list[Any]:
    """Both sums over the members of a family, weighted by gamma or not."""
    code, build = block.code, block.code.build

    def add(member: Any, *totals: Any) -> list[Any]:
        column = build.add(build.mul(family, code["members"]), member)
        found = [code.read(code.at(block.sums(code.word(0), which), (column, 8)), DOUBLE) for which in (0, 1)]
        if weighted:
            gamma = block.coefficient("gamma", family, member)
            found = [build.fmul(gamma, each) for each in found]
        return [build.fadd(old, new) for old, new in zip(totals, found, strict=True)]

    return code.each(code["members"], [code.double(0.0)] * 2, add)


def settle_forward(block: Block) -> None:
    """Find statistics unless they are given, and make factors: centre, scale, shift; the mean is the new centre."""
    code, build, variant = block.code, block.code.build, block.variant

    def family(number: Any) -> None:
        at_mean, at_var = (block.statistic(name, number) for name in ("mean", "var"))
        if variant.given:
            mean, var = code.read(at_mean, DOUBLE), code.read(at_var, DOUBLE)
        else:
            total, square = (build.fdiv(each, code.number("count")) for each in family_sums(block, number, False))
            mean, var = code.double(0.0), square
            if variant.centred:
                before = code.at(block.line(0), (build.mul(number, code["members"]), 8))
                mean, var = build.fadd(code.read(before, DOUBLE), total), code.less_square(square, total)
            code.write(mean, at_mean)
            code.write(var, at_var)
        rstd = code.reciprocal_root(var)
        middle, residual = code.rounded(mean)

        def factors(member: Any, column: Any) -> None:
            scale, beta = rstd, code.double(0.0)
            if not variant.by_row:
                scale = build.fmul(rstd, block.coefficient("gamma", number, member))
                beta = block.coefficient("beta", number, member)
            values = (mean, middle, scale, build.fsub(beta, build.fmul(residual, scale)))
            for index, value in enumerate(values):
                code.write(value, code.at(block.line(index), (column, 8)))

        block.by_member(number, factors)

    block.families(family)


def settle_backward(block: Block) -> None:
    """Make factors: centre, factor, slope, offset; the products are scaled to what gamma's gradient is the sum of."""
    code, build, variant = block.code, block.code.build, block.variant

    def family(number: Any) -> None:
        rstd, (middle, residual) = rstd_of(block, number), mean_of(block, number)
        total, products = family_sums(block, number, not variant.by_row)
        products = build.fsub(products, build.fmul(residual, total))
        share = build.fdiv(rstd, code.number("count"))
        slope = build.fneg(build.fmul(build.fmul(products, share), build.fmul(rstd, rstd)))
        offset = build.fneg(build.fmul(residual, slope))
        if variant.centred:
            offset = build.fsub(offset, build.fmul(total, share))

        def factors(member: Any, column: Any) -> None:
            factor = rstd if variant.by_row else build.fmul(rstd, block.coefficient("gamma", number, member))
            for index, value in enumerate((middle, factor, slope, offset), 1):
                code.write(value, code.at(block.line(index), (column, 8)))
            alone, place = (code.at(block.sums(code.word(0), which), (column, 8)) for which in (0, 1))
            off = build.fsub(code.read(place, DOUBLE), build.fmul(residual, code.read(alone, DOUBLE)))
            code.write(build.fmul(off, rstd), place)

        block.by_member(number, factors)

    block.families(family)


def choose_mode(block: Block, steep: tuple[int, ...], flat: tuple[int, ...]) -> None:
    """Note whether all factors fit float32, and if so, put them into it; of the flat ones, none may be too large."""
    code, build = block.code, block.code.build
    if code.itemsize == 8:
        return

    def check(column: Any, mask: Any, holds: Any) -> list[Any]:
        for indices, least in ((steep, TINY), (flat, 0.0)):
            values = [code.load(block.line(index), column, mask, code.wide) for index in indices]
            holds = build.and_(holds, code.ordinary(*values, least=least))
        return [holds]

    (fits,) = code.vectors(block.columns, [ir.Constant(ir.IntType(1), 1)], check)
    code.write(build.zext(fits, WORD), code["mode"])

    def strip(places: Places) -> None:
        for index in (*steep, *flat):
            for place in places:
                value = code.load(block.line(index), *place, code.wide)
                code.store(code.fit(value, wide=False), block.line(index), *place)

    with build.if_then(fits):
        code.strips(block.columns, 1, strip)


def write(block: Block, piece: Any) -> None:
    """Write the results of a piece."""
    code, build, variant = block.code, block.code.build, block.variant
    backward = "dy" in block.start
    fits = build.trunc(code.read(code["mode"], WORD), ir.IntType(1))

    def results(wide: bool) -> None:
        kind = code.wide if wide else code.narrow

        def group(rows: Rows) -> None:
            code.strips(block.columns, STRIP, lambda places: strip(rows, places))

        def strip(rows: Rows, places: Places) -> None:
            indices = range(1, LINES if backward else LINES - 1)
            factors = [[code.load(block.line(index), *place, kind) for index in indices] for place in places]

            def put(row: Any) -> list[Any]:
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

            rows([], put)

        block.groups(piece, group)

    code.narrow_or_wide(fits, results)


@lru_cache(maxsize=64)
def compiled_for(which: str, variant: Variant, isa: Isa) -> Function:
    """The function that goes through the phases wanted of some blocks, and in them of some pieces."""
    code = Code(which, ARGUMENTS[which], variant.itemsize, isa)
    build = code.build

    def wanted(phase: int) -> Any:
        return build.if_then(build.icmp_signed("!=", build.and_(code["phases"], code.word(phase)), code.word(0)))

    def pieces(body: Callable[[Any], None]) -> None:
        def one(piece: Any) -> list[Any]:
            body(piece)
            return []

        code.loop(code["first_piece"], code["last_piece"], code.word(1), [], one)

    def one(number: Any) -> list[Any]:
        block = Block(code, variant, which, number)
        with wanted(FIRST):
            put_line(block, 0, partial(first_number, block))
        with wanted(MEAN):
            put_line(block, 0, lambda family: mean_of(block, family)[0])
            if which == "backward" and variant.by_row:
                put_line(block, 1, partial(rstd_of, block))
                put_line(block, 2, lambda family: build.fmul(mean_of(block, family)[1], rstd_of(block, family)))
        with wanted(SUM):
            pieces(lambda piece: add_up(block, piece))
        with wanted(SETTLE):
            if which == "backward" or not variant.given:
                join_pieces(block)
            if which == "forward":
                settle_forward(block)
                choose_mode(block, (2,), (1, 3))
            else:
                settle_backward(block)
                choose_mode(block, (2,) if variant.given else (2, 3), (1, 4))
        with wanted(WRITE):
            pieces(lambda piece: write(block, piece))
        return []

    code.loop(code["first"], code["last"], code.word(1), [], one)
    return Function(compiled(code.finish(), which, isa), ARGUMENTS[which])
