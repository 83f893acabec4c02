"""Numbers in a function over rows of them: memory, and arithmetic in vectors or alone.

A function written with these is LLVM assembly that takes one pointer, to its arguments: 64-bit integers, some of them
addresses or the bits of floating numbers. Strides are in bytes. Numbers in memory are float32 or float64; *wide*
arithmetic is in float64 for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

from llvmlite import ir

from .isa import Isa
from .tile import INDEX, WORD

DOUBLE = ir.DoubleType()
EIGHT = 8
"""Vectors whose sums are found together, at most."""
AHEAD = 4096
"""Bytes ahead of which lines of the cache are asked for: a page, where processors stop by themselves. Batch norms of
3 MiB in NCHW took 304 us without, and 268 so; 410 and 280 while another processor used memory, 310 with half of it."""
HUGE, TINY = 2.0**90, 2.0**-90
"""Between these, products of a few numbers neither overflow nor vanish in float32."""

Values = Sequence[Any]


class Numbers:
    """A function's arguments and the numbers that it loads, computes and stores."""

    def __init__(self, name: str, arguments: Sequence[str], itemsize: int, isa: Isa) -> None:
        self.itemsize, self.lanes = itemsize, isa.lanes(itemsize)
        self.element = ir.FloatType() if itemsize == 4 else DOUBLE
        self.narrow, self.wide = ir.VectorType(self.element, self.lanes), ir.VectorType(DOUBLE, self.lanes)
        self.zeros = ir.Constant(self.wide, [0.0] * self.lanes)
        self.module = ir.Module(name)
        function = ir.Function(self.module, ir.FunctionType(ir.VoidType(), [WORD]), name)
        self.build = ir.IRBuilder(function.append_basic_block("entry"))
        self.given = {
            name: self.read(self.build.add(function.args[0], self.word(8 * place)), WORD)
            for place, name in enumerate(arguments)
        }

    def __getitem__(self, name: str) -> Any:
        """An argument."""
        return self.given[name]

    def number(self, name: str) -> Any:
        """An argument that holds the bits of a float64."""
        return self.build.bitcast(self.given[name], DOUBLE)

    def word(self, value: int) -> ir.Constant:
        """An integer."""
        return ir.Constant(WORD, value)

    def double(self, value: float) -> ir.Constant:
        """A number."""
        return ir.Constant(DOUBLE, value)

    def finish(self) -> str:
        """The assembly."""
        self.build.ret_void()
        return str(self.module)

    # Memory.

    def at(self, base: Any, *steps: tuple[Any, Any]) -> Any:
        """The address base + index * stride + ..., strides and indices as integers or values."""
        for index, stride in steps:
            factors = (self.word(each) if isinstance(each, int) else each for each in (index, stride))
            base = self.build.add(base, self.build.mul(*factors))
        return base

    def begins(self, arrays: Sequence[str], number: Any) -> dict[str, Any]:
        """Where a numbered part of each array begins, by tables; coefficients have one together."""
        tables = {name: f"{name}_starts" for name in arrays}
        tables |= dict.fromkeys(("gamma", "beta"), "coefficient_starts")
        return {
            name: self.build.add(self[name], self.read(self.at(self[table], (number, 8)), WORD))
            for name, table in tables.items()
        }

    def room(self, size: int) -> Any:
        """The address of so many bytes that are the function's own."""
        with self.build.goto_entry_block():
            return self.build.ptrtoint(self.build.alloca(ir.IntType(8), size), WORD)

    def read(self, address: Any, kind: Any) -> Any:
        """A number in memory."""
        return self.build.load(self.build.inttoptr(address, kind.as_pointer()))

    def read_element(self, address: Any) -> Any:
        """A number of the data's type, as float64."""
        return self.widened(self.read(address, self.element))

    def write(self, value: Any, address: Any) -> None:
        """Put a number into memory."""
        self.build.store(value, self.build.inttoptr(address, value.type.as_pointer()))

    def load(self, row: Any, column: Any, mask: Any, kind: Any = None) -> Any:
        """A vector of a row in memory of that kind, by default the data's; zeros where the mask says nothing is."""
        kind = kind or self.narrow
        size, pointer = self._place(row, column, kind)
        if mask is None:
            found = self.build.load(pointer)
            found.align = size
            return found
        nothing, name = ir.Constant(kind, [0.0] * self.lanes), f"llvm.masked.load.v{self.lanes}f{8 * size}.p0"
        function = self._declared(name, kind, pointer.type, INDEX, mask.type, kind)
        return self.build.call(function, [pointer, ir.Constant(INDEX, size), mask, nothing])

    def first_lanes(self, count: Any) -> Any:
        """The mask of so many lanes."""
        left = self.spread(self.build.trunc(count, INDEX))
        return self.build.icmp_signed(">", left, ir.Constant(left.type, list(range(self.lanes))))

    def load_wide(self, row: Any, column: Any, mask: Any) -> Any:
        """A vector of the data, as float64."""
        found = self.load(row, column, mask)
        return found if self.itemsize == 8 else self.build.fpext(found, self.wide)

    def store(self, value: Any, row: Any, column: Any, mask: Any) -> None:
        """Put a vector into a row of the data, or, a wide one, into a row of float64 if the data is."""
        size, pointer = self._place(row, column, value.type)
        if mask is None:
            self.build.store(value, pointer).align = size
            return
        name = f"llvm.masked.store.v{self.lanes}f{8 * size}.p0"
        function = self._declared(name, ir.VoidType(), value.type, pointer.type, INDEX, mask.type)
        self.build.call(function, [value, pointer, ir.Constant(INDEX, size), mask])

    def fetch(self, address: Any, *, writing: bool = False) -> None:
        """Ask for a line of the cache, to be read or written; any address will do."""
        pointer = self.build.inttoptr(address, self.narrow.as_pointer())
        function = self._declared("llvm.prefetch.p0", ir.VoidType(), pointer.type, INDEX, INDEX, INDEX)
        near, data = ir.Constant(INDEX, 3), ir.Constant(INDEX, 1)
        self.build.call(function, [pointer, ir.Constant(INDEX, int(writing)), near, data])

    def fetch_ahead(self, row: Any, column: Any, mask: Any, *, writing: bool = False) -> None:
        """Ask for what is some way behind a vector of the data, unless that ends a row."""
        if mask is None:
            self.fetch(self.at(row, (column, self.itemsize), (1, AHEAD)), writing=writing)

    def _place(self, row: Any, column: Any, kind: Any) -> tuple[int, Any]:
        size = 4 if isinstance(kind.element, ir.FloatType) else 8
        return size, self.build.inttoptr(self.at(row, (column, size)), kind.as_pointer())

    # Arithmetic.

    def _declared(self, name: str, result: Any, *kinds: Any) -> Any:
        return self.module.globals.get(name) or ir.Function(self.module, ir.FunctionType(result, kinds), name)

    def call(self, name: str, *values: Any) -> Any:
        """A function of LLVM's whose arguments and result are of one floating type, such as sqrt."""
        kind = values[0].type
        vector = isinstance(kind, ir.VectorType)
        size = 32 if isinstance(kind.element if vector else kind, ir.FloatType) else 64
        full = f"llvm.{name}.{f'v{self.lanes}' if vector else ''}f{size}"
        return self.build.call(self._declared(full, kind, *[kind] * len(values)), values)

    def multiply_add(self, first: Any, second: Any, third: Any) -> Any:
        """First * second + third, rounded once where the processor can."""
        return self.call("fmuladd", first, second, third)

    def spread(self, scalar: Any) -> Any:
        """A vector of equal numbers or integers."""
        empty = ir.Constant(ir.VectorType(scalar.type, self.lanes), ir.Undefined)
        one = self.build.insert_element(empty, scalar, ir.Constant(INDEX, 0))
        return self.build.shuffle_vector(one, empty, ir.Constant(ir.VectorType(INDEX, self.lanes), [0] * self.lanes))

    def all_lanes(self, value: Any) -> Any:
        """A vector as it is, or one of equal numbers."""
        return value if isinstance(value.type, ir.VectorType) else self.spread(value)

    def total(self, vector: Any) -> Any:
        """The sum of a wide vector, always in the same order."""
        sums = self._declared(f"llvm.vector.reduce.fadd.v{self.lanes}f64", DOUBLE, DOUBLE, self.wide)
        return self.build.call(sums, [self.double(0.0), vector], fastmath=("reassoc",))

    def totals(self, vectors: Values) -> list[Any]:
        """The sums of 1, 2, 4 or 8 wide vectors, in the order of one alone, in half the instructions."""
        lanes, found = self.lanes, [*vectors]
        while lanes > EIGHT:
            lanes //= 2
            halves = range(lanes), range(lanes, 2 * lanes)
            found = [self.build.fadd(*(self._picked(vector, vector, half) for half in halves)) for vector in found]
        for _ in range(lanes.bit_length() - 1):
            pairs = [*zip(found[::2], found[1::2], strict=True)] if len(found) > 1 else [(found[0], found[0])]
            found = [self._neighbours(*pair) for pair in pairs]
        return [
            self.build.extract_element(found[place // lanes], ir.Constant(INDEX, place % lanes))
            for place in range(len(vectors))
        ]

    def vector_of_totals(self, vectors: Values) -> Any:
        """The sums of as many vectors as each has lanes."""
        found = [*vectors]
        while len(found) > 1:
            found = [self._neighbours(*pair) for pair in zip(found[::2], found[1::2], strict=True)]
        return found[0]

    def _neighbours(self, one: Any, other: Any) -> Any:
        """The sums of neighbouring lanes of two vectors, the first's in front."""
        lanes = one.type.count
        return self.build.fadd(*(self._picked(one, other, range(first, 2 * lanes, 2)) for first in (0, 1)))

    def _picked(self, one: Any, other: Any, places: range) -> Any:
        """The lanes at some places of two vectors."""
        return self.build.shuffle_vector(one, other, ir.Constant(ir.VectorType(INDEX, len(places)), list(places)))

    def fit(self, value: Any, wide: bool) -> Any:
        """A float64 in wide arithmetic, or in the data's own."""
        kind = self.narrow if isinstance(value.type, ir.VectorType) else self.element
        return value if wide or value.type == kind else self.build.fptrunc(value, kind)

    def rounded(self, value: Any) -> tuple[Any, Any]:
        """A float64 as rounded to the data's type, and what that leaves."""
        found = self.widened(self.fit(value, wide=False))
        return found, self.build.fsub(value, found)

    def like(self, value: Any, scalar: Any) -> Any:
        """A number, in all lanes if the value is a vector."""
        return self.spread(scalar) if isinstance(value.type, ir.VectorType) else scalar

    def less_square(self, squares: Any, mean: Any) -> Any:
        """Squares - mean^2, but at least 0."""
        found, nothing = self.build.fsub(squares, self.build.fmul(mean, mean)), self.like(mean, self.double(0.0))
        return self.build.select(self.build.fcmp_ordered("<", found, nothing), nothing, found)

    def reciprocal_root(self, var: Any) -> Any:
        """One by the root of a variance, to which the argument `eps` is added."""
        root = self.call("sqrt", self.build.fadd(var, self.like(var, self.number("eps"))))
        return self.build.fdiv(self.like(var, self.double(1.0)), root)

    def widened(self, value: Any) -> Any:
        """A number or vector of the data's type as float64."""
        kind = self.wide if isinstance(value.type, ir.VectorType) else DOUBLE
        return value if value.type == kind else self.build.fpext(value, kind)

    def finite(self, value: Any) -> Any:
        """A number or vector with zeros for what is not finite."""
        zero = ir.Constant(value.type, [0.0] * self.lanes if isinstance(value.type, ir.VectorType) else 0.0)
        holds = self.build.fcmp_ordered("==", self.build.fsub(value, value), zero)
        return self.build.select(holds, value, zero)

    def ordinary(self, *values: Any, least: float = TINY) -> Any:
        """Whether numbers, or all of vectors, are 0 or in the middle of what float32 holds."""
        build, holds = self.build, []
        for value in values:
            vector = isinstance(value.type, ir.VectorType)
            low, high, zero = (
                ir.Constant(value.type, [limit] * self.lanes if vector else limit) for limit in (least, HUGE, 0.0)
            )
            size = self.call("fabs", value)
            inside = build.and_(build.fcmp_ordered(">=", size, low), build.fcmp_ordered("<=", size, high))
            found = build.or_(inside, build.fcmp_ordered("==", size, zero))
            holds.append(self._all(found) if vector else found)
        return reduce(build.and_, holds)

    def all_finite(self, *vectors: Any) -> Any:
        """Whether no lane is infinite or NaN, and none so large that sums of them are."""
        zeros = ir.Constant(vectors[0].type, [0.0] * self.lanes)
        found = [*vectors]
        while len(found) > 1:  # by pairs, which wait for each other less
            found = [reduce(self.build.fadd, found[place : place + 2]) for place in range(0, len(found), 2)]
        (total,) = found
        return self._all(self.build.fcmp_ordered("==", self.build.fsub(total, total), zeros))

    def all_hold(self, holds: Any) -> Any:
        """Whether a bit is set, or all of a vector of bits."""
        return self._all(holds) if isinstance(holds.type, ir.VectorType) else holds

    def _all(self, mask: Any) -> Any:
        """Whether all of a vector of bits are set."""
        bits = self.build.bitcast(mask, ir.IntType(self.lanes))
        return self.build.icmp_unsigned("==", bits, ir.Constant(bits.type, 2**self.lanes - 1))
