"""Sums down the columns of rows that go through many families; and along rows, where coefficients differ by these."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

from llvmlite import ir

from .column_block import GROUP, SUMMED, Block, Places, mean_of, rstd_of
from .values import Values


def add_up(block: Block, piece: Any, *, few: bool = True) -> None:
    """Sum x less the centre and its square, or dy and its product with that, down the rows of a piece.

    That is by float32's sums of a few rows, if these do: those of x are looked at when statistics are made of them.
    """
    code, build, backward = block.code, block.code.build, "dy" in block.start

    def clear(places: Places) -> None:
        for which in (0, 1):
            for place in places:
                code.store(code.zeros, block.sums(piece, which), *place)

    def adder(places: Places, wide: bool) -> Callable[..., list[Any]]:
        many = len(places)
        middles = [code.fit(code.load(block.line(0), *place, code.wide), wide) for place in places]

        def add(row: Any, *now: Any) -> list[Any]:
            pairs = zip(places, middles, strict=True)
            block.fetch(("x", "dy") if backward else ("x",), row, places, code["summed"])
            offs = [build.fsub(block.load("x", row, place, wide), middle) for place, middle in pairs]
            first = [block.load("dy", row, place, wide) for place in places] if backward else offs
            totals = [build.fadd(old, new) for old, new in zip(now[:many], first, strict=True)]
            return totals + [code.multiply_add(*each) for each in zip(first, offs, now[many:], strict=True)]

        return add

    def group(start: Any, stop: Any) -> None:
        def strip(places: Places) -> None:
            targets = [(block.sums(piece, which), *place) for which in (0, 1) for place in places]

            def go(state: Values, wide: bool) -> list[Any]:
                return code.loop(start, stop, code.word(1), state, adder(places, wide))

            def before() -> Values:
                return [code.load(*target, code.wide) for target in targets]

            if backward:
                found = code.few(len(targets), before, go)
            elif few:
                nothing = ir.Constant(code.narrow, [0.0] * code.lanes)
                sums = go([nothing] * len(targets), wide=False)
                found = [build.fadd(old, code.widened(new)) for old, new in zip(before(), sums, strict=True)]
            else:
                found = go(before(), wide=True)
            for target, value in zip(targets, found, strict=True):
                code.store(value, *target)

        code.strips(code.word(0), block.columns, SUMMED, strip)

    code.strips(code.word(0), block.columns, 1, clear)
    if backward and block.variant.by_row:
        Both(block, piece).add()
    else:
        block.groups(piece, code["summed"], group)


class Both:
    """Sums of a piece down the columns and along the rows at once, so that each number is loaded one time.

    With n = (x - mean) * rstd, gamma * dy and gamma * dy * n are summed down the columns, and dy * n and dy along the
    rows. The latter are added up for each row across a strip's vectors; those of as many rows as a vector has lanes are
    then added up to a vector, a lane for each row.
    """

    def __init__(self, block: Block, piece: Any) -> None:
        self.block, self.piece, self.code = block, piece, block.code
        self.across = block.code.at(
            block.code["across"], (block.number, block.code.build.mul(block.code["rows"], block.code.word(16)))
        )
        self.room = block.code.room(2 * GROUP * block.code.lanes * 8)

    def add(self) -> None:
        """Add up all rows."""
        code, block = self.code, self.block
        block.groups(
            self.piece,
            code["summed"],
            lambda start, stop: code.strips(
                code.word(0), block.columns, SUMMED, lambda places: self.strip(start, stop, places)
            ),
        )

    def strip(self, start: Any, stop: Any, places: Places) -> None:
        """Add up some columns of a group of rows."""
        code, build = self.code, self.code.build
        targets = [(self.block.sums(self.piece, which), *place) for which in (0, 1) for place in places]
        first = [code.word(number) for number in range(0, GROUP, code.lanes)]
        masks = [code.first_lanes(build.sub(build.sub(stop, start), number)) for number in first]
        targets += [
            (code.at(self.across, (code["rows"], 8 * which)), build.add(start, number), mask)
            for which in (0, 1)
            for number, mask in zip(first, masks, strict=True)
        ]
        down = 2 * len(places)

        def go(state: Values, wide: bool) -> list[Any]:
            sums = code.loop(start, stop, code.word(1), state[:down], self.adder(start, places, wide))
            nothing = ir.Constant(code.wide if wide else code.narrow, [0.0] * code.lanes)
            found = [
                build.select(mask, self.along(which, number, wide), nothing)
                for which in (0, 1)
                for number, mask in zip(range(0, GROUP, code.lanes), masks, strict=True)
            ]
            return sums + [build.fadd(old, new) for old, new in zip(state[down:], found, strict=True)]

        found = code.few(len(targets), lambda: [code.load(*target, code.wide) for target in targets], go)
        for value, target in zip(found, targets, strict=True):
            code.store(value, *target)

    def line(self, which: int, number: Any, wide: bool) -> Any:
        """Where the sums of a row of the group stand."""
        size = self.code.lanes * (8 if wide else self.code.itemsize)
        return self.code.at(self.room, (self.code.word(which * GROUP), size), (number, size))

    def adder(self, start: Any, places: Places, wide: bool) -> Callable[..., list[Any]]:
        """What adds up a row down the columns, and puts its sums along the row into the room."""
        code, build, block = self.code, self.code.build, self.block
        kind = code.wide if wide else code.narrow
        factors = [[code.load(line, *place, kind) for line in block.factors(wide)] for place in places]

        def add(row: Any, *now: Any) -> list[Any]:
            gamma = block.of_row("gamma", row, wide)
            block.fetch(("x", "dy"), row, places, code["summed"])
            given = [block.load("dy", row, place, wide) for place in places]
            products = []
            for place, dy, (middle, *linear) in zip(places, given, factors, strict=True):
                normal = code.multiply_add(build.fsub(block.load("x", row, place, wide), middle), *linear)
                products.append(build.fmul(dy, normal))
            for which, found in enumerate((products, given)):
                code.store(reduce(build.fadd, found), self.line(which, build.sub(row, start), wide), code.word(0), None)
            return [code.multiply_add(gamma, new, old) for new, old in zip((*given, *products), now, strict=True)]

        return add

    def along(self, which: int, first: int, wide: bool) -> Any:
        """The sums along some rows as a vector."""
        code = self.code
        kind = code.wide if wide else code.narrow
        lines = [self.line(which, code.word(first + number), wide) for number in range(code.lanes)]
        return code.vector_of_totals([code.load(line, code.word(0), None, kind) for line in lines])


def put_factors(block: Block) -> None:
    """Write what sums along rows take: the mean, rounded, 1 by the root of the variance, and a shift."""
    code, build = block.code, block.code.build

    def family(number: Any) -> Values:
        middle, residual = mean_of(block, number)
        rstd = rstd_of(block, number)
        values = middle, rstd, build.fneg(build.fmul(residual, rstd))

        def put(place: Any) -> Values:
            for wide in (True, False) if code.itemsize == 4 else (True,):
                for value, line in zip(values, block.factors(wide), strict=True):
                    code.store(code.fit(code.all_lanes(value), wide), line, *place)
            return []

        block.by_member(number, [], put)
        return []

    block.families([], family)


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

    with code.build.if_then(code.build.icmp_signed(">", code["pieces"], code.word(1))):
        code.strips(code.word(0), block.columns, 1, strip)
