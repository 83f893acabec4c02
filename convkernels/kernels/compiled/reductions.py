"""What pools do with vectors: the bodies of lines.

    reduced    a window's cells to one number; and outputs to the gradient of a cell, for sums
    winner     where in its window an extremum stands, as a code
    collected  the gradient of a cell from the windows that it won

A rule for ties is how codes are made and compared: the number of the first or the last tap that wins, or a set of bits,
one for each tap that does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

from llvmlite import ir

from ...pool_spec import PoolSpec
from .arithmetic import Arithmetic
from .isa import Isa
from .lines import BYTE, Body, Lines, Operand, Place, Vectors
from .pairs import Pairs
from .rows import Rows
from .slides import Slide, Slides
from .spans import Combine, Finish
from .strides import Strides
from .tile import WORD, compiled
from .wholes import Wholes


@dataclass(frozen=True)
class Reduction:
    """What becomes of cells.

    Parameters
    ----------
    name : str
        "max", "min", "sum", "lp1" or "lp2".
    divide : str
        Whether sums are divided by the piece's divisor at the "end", "each" term by the step's, or neither.
    large : bool
        Whether divisors may be `CORRECTED` or more.
    """

    name: str
    divide: str = ""
    large: bool = False


@dataclass(frozen=True)
class Ties:
    """Which of several extrema win: `rule` is "first", "last", "split" or "all"; `best` is "max" or "min"."""

    rule: str
    best: str

    @property
    def shared(self) -> bool:
        """Whether several may win, so that codes are sets of bits."""
        return self.rule in ("split", "all")


def reduced(code: Lines, numbers: Arithmetic, reduction: Reduction) -> Body:
    """A window's cells, reduced: operands source, target."""
    build = code.build

    def folded(place: Place, phase: int, initial: Any, combine: Callable[[Any, Any], Any]) -> Vectors:
        def step(address: Any, values: list[Vectors]) -> list[Vectors]:
            found = place.read(0, code.word_at(address, 0))
            if reduction.divide == "each":
                number = build.bitcast(code.word_at(address, 2), ir.DoubleType())
                found = [numbers.over(value, number, large=reduction.large) for value in found]
            return [[combine(total, value) for total, value in zip(values[0], found, strict=True)]]

        total: Vectors = place.fold(phase, [[initial] * place.vectors], step)[0]
        return total

    def extremum(place: Place, phase: int) -> Vectors:
        return folded(
            place,
            phase,
            numbers.worst(reduction.name),
            lambda best, value: numbers.better(reduction.name, best, value),
        )

    def total(place: Place, phase: int) -> Vectors:
        sums = folded(place, phase, numbers.constant(0), numbers.add)
        if reduction.divide == "end":
            sums = [numbers.over(value, place.line.divisor, large=reduction.large) for value in sums]
        return sums

    def norm(place: Place, phase: int) -> Vectors:
        zero, one, infinite = (numbers.constant(value) for value in (0, 1, float("inf")))
        if reduction.name == "lp1":
            return folded(place, phase, zero, lambda sums, value: numbers.add(sums, numbers.size(value)))
        largest = folded(place, phase, zero, lambda best, value: numbers.better("max", best, numbers.size(value)))
        # As the definition: divided by the largest, so that only a result that is itself too large overflows.
        scales = [
            build.select(
                build.and_(numbers.compare(">", value, zero), numbers.compare("<", value, infinite)), value, one
            )
            for value in largest
        ]

        def step(address: Any, values: list[Vectors]) -> list[Vectors]:
            ratios = [
                build.fdiv(value, scale)
                for value, scale in zip(place.read(0, code.word_at(address, 0)), scales, strict=True)
            ]
            squares = [build.fmul(ratio, ratio) for ratio in ratios]
            return [[numbers.add(total, square) for total, square in zip(values[0], squares, strict=True)]]

        sums = place.fold(phase, [[zero] * place.vectors], step)[0]
        return [build.fmul(scale, numbers.root(value)) for scale, value in zip(scales, sums, strict=True)]

    return {"max": extremum, "min": extremum, "sum": total}.get(reduction.name, norm)


def winner(code: Lines, numbers: Arithmetic, ties: Ties, kept: str) -> Body:
    """Where a window's winner stands: operands source, codes.

    Or what it is, and where: of `kept` "codes" operands source, results, codes; of "indices" source, places, results,
    indices, where places have no memory, but the number of a cell in the place of its address.
    """
    build, target = code.build, code.operands[-1]
    word = ir.IntType(max(32, BYTE * target.itemsize))
    strict, loose = (">", ">=") if ties.best == "max" else ("<", "<=")

    def number(address: Any) -> Any:
        found = code.word_at(address, 1 if kept == "indices" else 2)
        return code.spread(found if word == WORD else build.trunc(found, word), code.lanes)

    def starts(place: Place) -> Vectors:
        """The number of the cell at which each window starts."""
        line = place.line
        lanes = ir.Constant(ir.VectorType(WORD, code.lanes), list(range(code.lanes)))
        found = []
        for vector in range(place.vectors):
            position = build.add(place.first, code.word(vector * code.lanes))
            first = build.add(line.starts[1], build.mul(position, line.strides[1]))
            found.append(
                build.add(code.spread(first, code.lanes), build.mul(lanes, code.spread(line.strides[1], code.lanes)))
            )
        return found

    def found(place: Place, phase: int) -> Vectors:
        def step(address: Any, values: list[Vectors]) -> list[Vectors]:
            mine, bests, codes = number(address), [], []
            for value, best, known in zip(place.read(0, code.word_at(address, 0)), *values, strict=True):
                equal = numbers.compare("==", value, best) if ties.shared else None
                others = build.select(equal, build.or_(known, mine), known) if ties.shared else known
                wins = numbers.beats(loose if ties.rule == "last" else strict, value, best)
                bests.append(build.select(wins, value, best))
                codes.append(build.select(wins, mine, others))
            return [bests, codes]

        start, _ = place.line.steps[phase]
        first = place.read(0, code.word_at(start, 0))
        bests, codes = place.fold(phase, [first, [number(start)] * place.vectors], step, skip=1)
        if kept:
            place.write([bests], -2)
        if kept == "indices":
            codes = [build.add(each, cell) for each, cell in zip(codes, starts(place), strict=True)]
        if target.itemsize * BYTE < word.width:
            codes = [build.trunc(each, ir.VectorType(target.element, code.lanes)) for each in codes]
        return list(codes)

    return found


def collected(code: Lines, numbers: Arithmetic, ties: Ties, codes: Operand) -> Body:
    """What a cell takes of the outputs whose windows it won: operands dy, codes, target."""
    build, word = code.build, codes.element

    def shared(gradient: Any, winners: Any) -> Any:
        """A winner's share; where there is none, gradients are 0 over 1."""
        none = build.icmp_unsigned("==", winners, code.constant(word, 0))
        count = numbers.apply("ctpop", winners)
        count = build.select(none, code.constant(word, 1), count)
        return build.fdiv(gradient, build.uitofp(count, gradient.type))

    def taken(place: Place, phase: int) -> Vectors:
        def step(address: Any, values: list[Vectors]) -> list[Vectors]:
            known, found = place.read(1, code.word_at(address, 1)), code.word_at(address, 2)
            mine = code.spread(found if word == WORD else build.trunc(found, word), code.lanes)
            if ties.shared:
                wins = [build.icmp_unsigned("!=", build.and_(each, mine), code.constant(word, 0)) for each in known]
            else:
                wins = [build.icmp_unsigned("==", each, mine) for each in known]
            if place.masks:
                wins = [build.and_(win, place.masks[0]) for win in wins]
            gradients = place.read(0, code.word_at(address, 0), wins)
            if ties.rule == "split":
                gradients = [shared(gradient, each) for gradient, each in zip(gradients, known, strict=True)]
            totals = [numbers.add(total, each) for total, each in zip(values[0], gradients, strict=True)]
            return [totals]

        return list(place.fold(phase, [[numbers.constant(0)] * place.vectors], step)[0])

    return taken


def weighed(code: Lines, numbers: Arithmetic, name: str) -> Body:
    """What a cell takes of norms of windows: operands dy, y, x, target."""
    build, zero = code.build, numbers.constant(0)

    def share(place: Place, phase: int) -> Vectors:
        cells = place.read(2, code.word(0))

        def step(address: Any, values: list[Vectors]) -> list[Vectors]:
            gradients, norms = place.read(0, code.word_at(address, 0)), place.read(1, code.word_at(address, 1))
            if name == "lp2":
                ratios = [build.fdiv(cell, norm) for cell, norm in zip(cells, norms, strict=True)]
                gradients = [build.fmul(ratio, each) for ratio, each in zip(ratios, gradients, strict=True)]
            return [[numbers.add(total, each) for total, each in zip(values[0], gradients, strict=True)]]

        sums = place.fold(phase, [[zero] * place.vectors], step)[0]
        found = []
        for cell, total in zip(cells, sums, strict=True):
            turned = build.select(numbers.compare("<", cell, zero), build.fneg(total), total)
            taken = turned if name == "lp1" else total
            found.append(build.select(numbers.compare("==", cell, zero), zero, taken))
        return found

    return share


@lru_cache(maxsize=256)
def reducing(source: Operand, target: Operand, reduction: Reduction, phases: int, wide: bool, isa: Isa) -> int:
    """Where the code is that reduces windows."""
    code = Lines((source, target), isa.lanes(source.itemsize), phases, wide=wide)
    return compiled(code.emit(reduced(code, Arithmetic(code, source, isa), reduction)), "lines", isa)


@lru_cache(maxsize=256)
def by_rows(source: Operand, buffer: Operand, target: Operand, reduction: Reduction, phases: int, isa: Isa) -> int:
    """Where the code is that reduces windows by rows."""
    code = Rows((source, buffer, target), isa.lanes(source.itemsize), phases)
    numbers = Arithmetic(code, source, isa)
    extremum = reduction.name in ("max", "min")
    across = reduced(code, numbers, Reduction(reduction.name))
    along = reduced(code, numbers, reduction if extremum else replace(reduction, name="sum"))
    border = numbers.worst(reduction.name) if extremum else numbers.constant(0)
    return compiled(code.rows(across, along, border), "lines", isa)


def finished(numbers: Arithmetic, reduction: Reduction, total: Any, divisor: Any) -> Any:
    """A sum, divided if it is to be."""
    return numbers.over(total, divisor, large=reduction.large) if reduction.divide else total


def parts(numbers: Arithmetic, reduction: Reduction) -> tuple[Combine, Any, Finish]:
    """What makes one of two vectors, a vector that changes nothing, and what makes results of the last."""
    finish = partial(finished, numbers, reduction)
    if reduction.name == "sum":
        return numbers.add, numbers.constant(0), finish
    return partial(numbers.better, reduction.name), numbers.worst(reduction.name), finish


@lru_cache(maxsize=64)
def by_planes(source: Operand, target: Operand, reduction: Reduction, cells: int, isa: Isa) -> int:
    """Where the code is that reduces whole planes, some of so many cells together or, if that is 0, one by one."""
    code = Wholes(source, target, isa.lanes(source.itemsize), 0)
    reduced = partial(code.reduced_together, cells) if cells else code.reduced
    return compiled(reduced(*parts(Arithmetic(code, source, isa), reduction)), "lines", isa)


@lru_cache(maxsize=64)
def by_pairs(source: Operand, target: Operand, reduction: Reduction, width: int, isa: Isa) -> int:
    """Where the code is that reduces windows of 2 x 2 in rows of so many cells."""
    code = Pairs(source, target, isa.lanes(source.itemsize), width)
    combine, _, finish = parts(Arithmetic(code, source, isa), reduction)
    return compiled(code.reduced(combine, finish), "lines", isa)


@lru_cache(maxsize=64)
def by_slides(source: Operand, buffer: Operand, target: Operand, reduction: Reduction, slide: Slide, isa: Isa) -> int:
    """Where the code is that reduces windows which slide over planes."""
    code = Slides((source, buffer, target), isa.lanes(source.itemsize), slide)
    return compiled(code.planes(*parts(Arithmetic(code, source, isa), reduction)), "lines", isa)


@lru_cache(maxsize=64)
def by_strides(source: Operand, target: Operand, reduction: Reduction, spec: PoolSpec, isa: Isa) -> int:
    """Where the code is that reduces windows which go by several steps along rows."""
    code = Strides((source, target), isa.lanes(source.itemsize), spec)
    return compiled(code.rows(*parts(Arithmetic(code, source, isa), reduction)), "lines", isa)


@lru_cache(maxsize=64)
def over_pairs(source: Operand, target: Operand, reduction: Reduction, width: int, isa: Isa) -> int:
    """Where the code is that spreads gradients of sums over windows of 2 x 2 in rows of so many cells."""
    code = Pairs(source, target, isa.lanes(source.itemsize), width)
    numbers = Arithmetic(code, source, isa)
    return compiled(code.filled(partial(finished, numbers, reduction)), "lines", isa)


@lru_cache(maxsize=64)
def over_planes(source: Operand, target: Operand, reduction: Reduction, isa: Isa) -> int:
    """Where the code is that spreads gradients of sums over whole planes."""
    code = Wholes(source, target, isa.lanes(source.itemsize), 1)
    numbers = Arithmetic(code, source, isa)
    return compiled(code.filled(partial(finished, numbers, reduction)), "lines", isa)


@lru_cache(maxsize=256)
def finding(*given: Any) -> int:
    """Where the code is that finds winners: of operands, then a rule for ties, what is kept, and the processor's."""
    *operands, ties, kept, isa = given
    code = Lines(operands, isa.lanes(operands[0].itemsize))
    numbers = Arithmetic(code, operands[0], isa)
    return compiled(code.emit(winner(code, numbers, ties, kept)), "lines", isa)


@lru_cache(maxsize=256)
def collecting(dy: Operand, codes: Operand, target: Operand, ties: Ties, phases: int, isa: Isa) -> int:
    """Where the code is that collects gradients."""
    code = Lines((dy, codes, target), isa.lanes(dy.itemsize), phases)
    numbers = Arithmetic(code, dy, isa)
    return compiled(code.emit(collected(code, numbers, ties, codes)), "lines", isa)


@lru_cache(maxsize=256)
def weighing(dy: Operand, y: Operand, x: Operand, target: Operand, name: str, isa: Isa) -> int:
    """Where the code is that collects the gradients of norms."""
    code = Lines((dy, y, x, target), isa.lanes(dy.itemsize))
    return compiled(code.emit(weighed(code, Arithmetic(code, dy, isa), name)), "lines", isa)
