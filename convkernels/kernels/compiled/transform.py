"""Winograd's transforms in registers: M X M.T of a small square, for as many channels at a time as a vector has.

Channels lie innermost in the source and in the target, whose cells have any strides. The matrix is given as factors,
applied to the columns first, then to the rows; each entry is a multiply-add known when the code is emitted.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from llvmlite import ir

from .isa import Isa
from .tile import INDEX, WORD, compiled
from .toom_cook import Factors

ARGUMENTS = (
    *("source", "source_row", "source_column"),
    *("target", "target_row", "target_column"),
    "bias",  # the address of what is added to each cell of the target, where the code does that
    "channels",
    *("rows", "columns"),  # cells of the target that exist
)
"""What a transform takes, all of them 64-bit integers; strides in bytes."""


@dataclass(frozen=True)
class Square:
    """A transform: the factors for columns and for rows, the bytes of an element, and whether a bias is added."""

    columns: Factors
    rows: Factors
    itemsize: int
    biased: bool


class Emitter:
    """Emits one transform."""

    def __init__(self, square: Square, lanes: int) -> None:
        self.square, self.lanes = square, lanes
        element = ir.FloatType() if square.itemsize == 4 else ir.DoubleType()
        self.vector = ir.VectorType(element, lanes)
        self.mask = ir.VectorType(ir.IntType(1), lanes)
        self.pointer = self.vector.as_pointer()
        self.module = ir.Module("transform")
        suffix, vector = f"v{lanes}f{8 * square.itemsize}", self.vector
        self.multiply_add = self.declare(f"llvm.fmuladd.{suffix}", vector, vector, vector, vector)
        self.load_some = self.declare(f"llvm.masked.load.{suffix}.p0", vector, self.pointer, INDEX, self.mask, vector)
        self.store_some = self.declare(
            f"llvm.masked.store.{suffix}.p0", ir.VoidType(), vector, self.pointer, INDEX, self.mask
        )
        function = ir.Function(self.module, ir.FunctionType(ir.VoidType(), [WORD] * len(ARGUMENTS)), "transform")
        self.given = dict(zip(ARGUMENTS, function.args, strict=True))
        self.build = ir.IRBuilder(function.append_basic_block("entry"))

    def declare(self, name: str, result: Any, *arguments: Any) -> ir.Function:
        """An intrinsic of LLVM's."""
        return ir.Function(self.module, ir.FunctionType(result, arguments), name)

    def constant(self, value: float) -> ir.Constant:
        """A vector of equal elements."""
        return ir.Constant(self.vector, [value] * self.lanes)

    def address(self, name: str, row: int, column: int, offset: Any) -> Any:
        """A pointer to some channels of a cell."""
        build, given = self.build, self.given
        place = build.add(given[name], offset)
        for count, stride in ((row, f"{name}_row"), (column, f"{name}_column")):
            place = build.add(place, build.mul(given[stride], ir.Constant(WORD, count)))
        return build.inttoptr(place, self.pointer)

    def product(self, factors: Factors, values: list[Any]) -> list[Any]:
        """Multiply a column by matrices."""
        for matrix in factors:
            values = [self.combination(row, values) for row in matrix]
        return values

    def combination(self, row: tuple[float, ...], values: list[Any]) -> Any:
        """A sum of multiples."""
        build, total = self.build, None
        # What is not multiplied comes first, for the others can then be added in the same instruction.
        terms = sorted((abs(entry) != 1, entry < 0, place) for place, entry in enumerate(row) if entry)
        for _, _, place in terms:
            entry, value = row[place], values[place]
            if total is None:
                total = value if entry == 1 else build.fmul(self.constant(entry), value)
            elif entry == 1:
                total = build.fadd(total, value)
            elif entry == -1:
                total = build.fsub(total, value)
            else:
                total = build.call(self.multiply_add, [self.constant(entry), value, total])
        return self.constant(0.0) if total is None else total

    def emit(self) -> str:
        """The transform as LLVM assembly: one loop over the channels."""
        build, given = self.build, self.given
        entry, head, body, done = build.block, *(build.append_basic_block(name) for name in ("head", "body", "done"))
        build.branch(head)
        build.position_at_end(head)
        channel = build.phi(WORD)
        channel.add_incoming(ir.Constant(WORD, 0), entry)
        build.cbranch(build.icmp_signed("<", channel, given["channels"]), body, done)

        # Whole vectors need no masks: a twentieth of the time of weights.
        build.position_at_end(body)
        left = build.sub(given["channels"], channel)
        sizes = (len(self.square.columns[-1]), "rows"), (len(self.square.rows[-1]), "columns")
        whole = build.icmp_signed(">=", left, ir.Constant(WORD, self.lanes))
        for count, name in sizes:
            whole = build.and_(whole, build.icmp_signed(">=", given[name], ir.Constant(WORD, count)))
        with build.if_else(whole) as (then, otherwise):
            with then:
                self.channels(channel, None)
            with otherwise:
                self.channels(channel, left)
        channel.add_incoming(build.add(channel, ir.Constant(WORD, self.lanes)), build.block)
        build.branch(head)

        build.position_at_end(done)
        build.ret_void()
        return str(self.module)

    def some(self, left: Any) -> Any:
        """The mask of so many lanes."""
        build, wide = self.build, ir.VectorType(WORD, self.lanes)
        one = build.insert_element(ir.Constant(wide, ir.Undefined), left, ir.Constant(INDEX, 0))
        every = build.shuffle_vector(one, one, ir.Constant(ir.VectorType(INDEX, self.lanes), [0] * self.lanes))
        return build.icmp_signed("<", ir.Constant(wide, list(range(self.lanes))), every)

    def channels(self, channel: Any, left: Any) -> None:
        """Transform a vector of channels to all cells, or so many as are `left` to those that exist."""
        build, given, square = self.build, self.given, self.square
        offset, mask = build.mul(channel, ir.Constant(WORD, square.itemsize)), None if left is None else self.some(left)
        none, aligned = ir.Constant(self.mask, [0] * self.lanes), ir.Constant(INDEX, square.itemsize)

        def load(address: Any) -> Any:
            if mask is None:
                found = build.load(address)
                found.align = square.itemsize
                return found
            return build.call(self.load_some, [address, aligned, mask, self.constant(0.0)])

        height, width = len(square.columns[0][0]), len(square.rows[0][0])
        columns = [
            self.product(square.columns, [load(self.address("source", row, column, offset)) for row in range(height)])
            for column in range(width)
        ]
        bias = load(build.inttoptr(build.add(given["bias"], offset), self.pointer)) if square.biased else None
        for row in range(len(square.columns[-1])):
            results = self.product(square.rows, [column[row] for column in columns])
            for column, result in enumerate(results):
                value = result if bias is None else build.fadd(result, bias)
                address = self.address("target", row, column, offset)
                if mask is None:
                    build.store(value, address).align = square.itemsize
                    continue
                inside = build.and_(
                    build.icmp_signed(">", given["rows"], ir.Constant(WORD, row)),
                    build.icmp_signed(">", given["columns"], ir.Constant(WORD, column)),
                )
                build.call(self.store_some, [value, address, aligned, build.select(inside, mask, none)])


@lru_cache(maxsize=64)
def address(square: Square, isa: Isa) -> int:
    """Where the code of a transform is."""
    return compiled(Emitter(square, isa.lanes(square.itemsize)).emit(), "transform", isa)
