"""What pools compute with: numbers of one kind, in vectors or alone, compared, added and divided."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from .isa import Isa
from .lines import Lines, Operand

CORRECTED = 2.0**22
"""What divisors must stay below for quotients to be corrected: a quarter of the units in a float32."""


class Arithmetic:
    """Numbers of one kind: floating, or signed or unsigned whole ones."""

    def __init__(self, code: Lines, operand: Operand, isa: Isa) -> None:
        self.code, self.build, self.kind, self.element = code, code.build, operand.kind, operand.element
        self.floating, self.fused = operand.kind == "f", isa.fused

    def constant(self, value: float) -> Any:
        """A vector of a number."""
        return self.code.constant(self.element, value if self.floating else int(value))

    def worst(self, best: str) -> Any:
        """What nothing exceeds, or nothing falls below."""
        if self.floating:
            return self.constant(float("-inf") if best == "max" else float("inf"))
        bits = self.element.width
        low, high = (0, 2**bits - 1) if self.kind == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        return self.constant(low if best == "max" else high)

    def compare(self, sign: str, left: Any, right: Any) -> Any:
        """A comparison, false where either is NaN."""
        if self.floating:
            return self.build.fcmp_ordered(sign, left, right)
        return (self.build.icmp_unsigned if self.kind == "u" else self.build.icmp_signed)(sign, left, right)

    def known(self, value: Any) -> Any:
        """Where a floating value is a number, not NaN."""
        return self.build.fcmp_ordered("ord", value, value)

    def better(self, best: str, one: Any, other: Any) -> Any:
        """The better of two; NaN is better than any number."""
        chosen = self.build.select(self.compare(">" if best == "max" else "<", other, one), other, one)
        # This is one instruction of x86, which gives the second if either is NaN. It takes a mask besides, of where the
        # other is a number, which need not wait for `one`.
        return self.build.select(self.known(other), chosen, other) if self.floating else chosen

    def beats(self, sign: str, value: Any, best: Any) -> Any:
        """Whether a value takes the place of the best before: it compares so, or is the first NaN."""
        if not self.floating:
            return self.compare(sign, value, best)
        unordered = self.build.fcmp_unordered(sign, value, best)
        return self.build.and_(unordered, self.known(best))

    def add(self, left: Any, right: Any) -> Any:
        """The sum."""
        return self.build.fadd(left, right) if self.floating else self.build.add(left, right)

    def over(self, value: Any, number: Any, *, large: bool = False) -> Any:
        """The quotient of a vector or a number by a whole number, a float64; below `CORRECTED` if it is not large.

        The product q with its reciprocal is off by two units at most. What is left, value - q * number, is then exact
        in a fused multiply-add, and so small that its own quotient may be off by a unit of its own: the sum of both is
        nearer to the quotient than that is to any middle between two numbers, where rounding changes, for these are a
        unit over twice the divisor away. (A quotient that is such a middle itself would have a dividend of too many
        bits, but among subnormal numbers, where it may be rounded to either side.) That takes a vector 3 cycles, and to
        divide 16: gradients of means of 5x5 by steps of 3, 512 channels of 14x14 in NHWC, took 22 us, and take 13.
        """
        build = self.build
        by = number if self.element == number.type else build.fptrunc(number, self.element)
        reciprocal = build.fdiv(ir.Constant(self.element, 1.0), by)
        if value.type != self.element:
            by, reciprocal = (self.code.spread(each, self.code.lanes) for each in (by, reciprocal))
        if large or not self.fused:
            return build.fdiv(value, by)
        first = build.fmul(value, reciprocal)
        left = self.apply("fma", build.fneg(first), by, value)
        # Of an infinite value, NaN is left.
        return build.select(self.known(left), self.apply("fma", left, reciprocal, first), first)

    def size(self, value: Any) -> Any:
        """The absolute value."""
        return self.apply("fabs", value)

    def root(self, value: Any) -> Any:
        """The square root."""
        return self.apply("sqrt", value)

    def apply(self, name: str, *values: Any) -> Any:
        """One of LLVM's functions of numbers or vectors of one kind."""
        kind = values[0].type
        element, many = (kind.element, f"v{self.code.lanes}") if isinstance(kind, ir.VectorType) else (kind, "")
        letter = (
            f"i{element.width}" if isinstance(element, ir.IntType) else {"float": "f32", "double": "f64"}[str(element)]
        )
        function = self.code.intrinsic(f"llvm.{name}.{many}{letter}", kind, *[kind] * len(values))
        return self.build.call(function, values)
