"""Vectors some of whose lanes exist, known when code is emitted: what loops over small planes read and write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from .lines import Lines

MOST = 256
"""Vectors that are read at most, counted in the code, which takes 0.3 ms to compile for each."""
Combine = Callable[[Any, Any], Any]
"""What makes one of two vectors."""
Finish = Callable[[Any, Any], Any]
"""What makes a result of a vector or a number, and the divisor."""


class Spans(Lines):
    """Emits accesses to vectors of the first operand's kind."""

    @property
    def vector(self) -> Any:
        """LLVM's type of a vector."""
        return ir.VectorType(self.operands[0].element, self.lanes)

    @property
    def size(self) -> int:
        """Bytes of an element."""
        return self.operands[0].itemsize

    def between(self, begin: int, end: int) -> Any:
        """The mask of some lanes."""
        bits = [ir.Constant(ir.IntType(1), int(begin <= lane < end)) for lane in range(self.lanes)]
        return ir.Constant(ir.VectorType(ir.IntType(1), self.lanes), bits)

    def get(self, address: Any, begin: int, end: int, rest: Any = None) -> Any:
        """A vector of which some lanes are read, and the others are as in `rest`, or 0."""
        if (begin, end) == (0, self.lanes):
            return self.load(address, self.vector)
        pointer = self.build.inttoptr(address, self.vector.as_pointer())
        found = self.masked("load", self.operands[0], self.lanes, pointer, self.between(begin, end))
        return found if rest is None else self.build.select(self.between(begin, end), found, rest)

    def put(self, value: Any, address: Any, count: int) -> None:
        """Write the first lanes."""
        pointer = self.build.inttoptr(address, value.type.as_pointer())
        if count == self.lanes:
            self.build.store(value, pointer).align = 1
        else:
            self.masked("store", self.operands[0], self.lanes, pointer, self.between(0, count), value)

    def shuffled(self, one: Any, other: Any, lanes: list[int]) -> Any:
        """The lanes of two vectors in some order."""
        order = [ir.Constant(ir.IntType(32), lane) for lane in lanes]
        return self.build.shuffle_vector(one, other, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), order))
