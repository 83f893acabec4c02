"""The register tile: C = init + sum over t, k of A[:, t, k] B[t, k, :], a few rows by a few vectors, all in registers.

    for t in range(taps):
        for k in range(depth):
            b = the vectors at  B + b_offsets[t] + k * b_depth
            for each row r:  acc[r] += (the element at  A + a_offsets[t] + r * a_row + k * a_depth) * b

Each element of A is broadcast against the vectors of B, so an operand may have any strides but B's last, and neither
needs packing where it lies right. One multiply-add for each accumulator and step keeps the multiplier busy as long as
there are more accumulators than its latency: every shape of 8 to 28 measured 113 to 117 GFLOP/s in float32 on a Zen 4
core with AVX-512, whose limit is 117.

The code is LLVM's, emitted here and compiled in some 30 ms, so it needs no cache on disk. Rows of vectors are
masked: nothing outside the operands is read or written.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Any

from llvmlite import binding, ir

from .isa import Isa

ARGUMENTS = (
    *("a", "b", "c", "init"),  # addresses
    *("a_offsets", "b_offsets", "taps", "depth"),
    *("a_row", "a_depth", "b_depth", "c_row", "init_row"),  # strides in bytes
    "columns",  # elements of a row that exist
    *("ahead", "ahead_step"),  # an address to fetch into the cache, and what it moves by in each step of the depth
)
"""What a tile takes, all of them 64-bit integers."""

WORD = ir.IntType(64)
INDEX = ir.IntType(32)


@dataclass(frozen=True)
class Shape:
    """A tile's rows, vectors in a row, and the bytes of an element."""

    rows: int
    vectors: int
    itemsize: int


class Emitter:
    """Emits one tile."""

    def __init__(self, shape: Shape, lanes: int) -> None:
        self.shape, self.lanes = shape, lanes
        self.element = ir.FloatType() if shape.itemsize == 4 else ir.DoubleType()
        self.vector = ir.VectorType(self.element, lanes)
        self.module = ir.Module("tile")
        suffix = f"v{lanes}f{8 * shape.itemsize}"
        mask = ir.VectorType(ir.IntType(1), lanes)
        pointer = self.vector.as_pointer()
        self.multiply_add = self.declare(f"llvm.fmuladd.{suffix}", self.vector, self.vector, self.vector, self.vector)
        self.load_some = self.declare(f"llvm.masked.load.{suffix}.p0", self.vector, pointer, INDEX, mask, self.vector)
        self.store_some = self.declare(
            f"llvm.masked.store.{suffix}.p0", ir.VoidType(), self.vector, pointer, INDEX, mask
        )
        kinds = [pointer, INDEX, INDEX, INDEX]
        self.prefetch = self.declare("llvm.prefetch.p0", ir.VoidType(), *kinds)
        function = ir.Function(self.module, ir.FunctionType(ir.VoidType(), [WORD] * len(ARGUMENTS)), "tile")
        self.given = dict(zip(ARGUMENTS, function.args, strict=True))
        self.build = ir.IRBuilder(function.append_basic_block("entry"))

    def declare(self, name: str, result: Any, *arguments: Any) -> ir.Function:
        """An intrinsic of LLVM's."""
        return ir.Function(self.module, ir.FunctionType(result, arguments), name)

    def word(self, value: int) -> ir.Constant:
        """A number."""
        return ir.Constant(WORD, value)

    def at(self, base: Any, stride: Any, count: int) -> Any:
        """The address base + stride * count."""
        return self.build.add(base, self.build.mul(stride, self.word(count)))

    def spread(self, scalar: Any, vector: ir.VectorType) -> Any:
        """A vector of equal elements."""
        empty = ir.Constant(vector, ir.Undefined)
        one = self.build.insert_element(empty, scalar, ir.Constant(INDEX, 0))
        return self.build.shuffle_vector(one, empty, ir.Constant(ir.VectorType(INDEX, self.lanes), [0] * self.lanes))

    def load(self, address: Any, kind: Any) -> Any:
        """An element at any address."""
        found = self.build.load(self.build.inttoptr(address, kind.as_pointer()))
        found.align = self.shape.itemsize
        return found

    def load_row(self, address: Any) -> list[Any]:
        """The vectors of a row, zeros where none exist."""
        zeros = ir.Constant(self.vector, [0.0] * self.lanes)
        return [
            self.build.call(self.load_some, [self.vector_at(address, place), self.alignment, mask, zeros])
            for place, mask in enumerate(self.masks)
        ]

    def store_row(self, row: list[Any], address: Any) -> None:
        """Store what exists."""
        for place, (value, mask) in enumerate(zip(row, self.masks, strict=True)):
            self.build.call(self.store_some, [value, self.vector_at(address, place), self.alignment, mask])

    def fetch(self, address: Any, writing: int) -> None:
        """Ask for a line of the cache; any address will do."""
        near, data = ir.Constant(INDEX, 3), ir.Constant(INDEX, 1)
        pointer = self.build.inttoptr(address, self.vector.as_pointer())
        self.build.call(self.prefetch, [pointer, ir.Constant(INDEX, writing), near, data])

    def fetch_row(self, address: Any) -> None:
        """Ask for a row that will be stored, which takes as long as some hundred multiplications."""
        for place in range(0, self.shape.vectors * self.lanes * self.shape.itemsize, 64):
            self.fetch(self.build.add(address, self.word(place)), 1)

    def vector_at(self, address: Any, place: int) -> Any:
        """A pointer to a vector of a row."""
        offset = self.word(place * self.lanes * self.shape.itemsize)
        return self.build.inttoptr(self.build.add(address, offset), self.vector.as_pointer())

    @property
    def alignment(self) -> ir.Constant:
        """Of an element, which is all that is known."""
        return ir.Constant(INDEX, self.shape.itemsize)

    def emit(self) -> str:
        """The tile as LLVM assembly: two nested loops whose values are the accumulators."""
        build, given, rows = self.build, self.given, range(self.shape.rows)
        places = ir.VectorType(WORD, self.lanes)
        counts = [
            ir.Constant(places, list(range(n * self.lanes, (n + 1) * self.lanes))) for n in range(self.shape.vectors)
        ]
        columns = self.spread(given["columns"], places)
        c_end = self.at(given["c"], given["c_row"], self.shape.rows - 1)
        self.masks = [build.icmp_signed("<", count, columns) for count in counts]
        initial = [self.load_row(self.at(given["init"], given["init_row"], row)) for row in rows]
        blocks = {name: build.append_basic_block(name) for name in ("taps", "tap", "depth", "step", "next", "done")}
        entry = build.block
        build.branch(blocks["taps"])

        build.position_at_end(blocks["taps"])
        tap = self.variable(self.word(0), entry)
        ahead_start, c_start = (self.variable(given[name], entry) for name in ("ahead", "c"))
        outer = [[self.variable(value, entry) for value in row] for row in initial]
        build.cbranch(build.icmp_signed("<", tap, given["taps"]), blocks["tap"], blocks["done"])

        build.position_at_end(blocks["tap"])
        place = build.mul(tap, self.word(8))
        a_start, b_start = (
            build.add(given[name], self.load(build.add(given[f"{name}_offsets"], place), WORD)) for name in ("a", "b")
        )
        build.branch(blocks["depth"])

        build.position_at_end(blocks["depth"])
        left, a, b = (self.variable(value, blocks["tap"]) for value in (given["depth"], a_start, b_start))
        ahead, c_row = (self.variable(value, blocks["tap"]) for value in (ahead_start, c_start))
        inner = [[self.variable(value, blocks["tap"]) for value in row] for row in outer]
        build.cbranch(build.icmp_signed(">", left, self.word(0)), blocks["step"], blocks["next"])

        build.position_at_end(blocks["step"])
        self.fetch(ahead, 0)
        ahead.add_incoming(build.add(ahead, given["ahead_step"]), blocks["step"])
        self.fetch_row(c_row)
        following = build.select(build.icmp_signed("==", c_row, c_end), self.word(0), given["c_row"])
        c_row.add_incoming(build.add(c_row, following), blocks["step"])
        vectors = self.load_row(b)
        for row in rows:
            element = self.spread(self.load(self.at(a, given["a_row"], row), self.element), self.vector)
            for accumulator, vector in zip(inner[row], vectors, strict=True):
                accumulator.add_incoming(build.call(self.multiply_add, [element, vector, accumulator]), blocks["step"])
        left.add_incoming(build.sub(left, self.word(1)), blocks["step"])
        a.add_incoming(build.add(a, given["a_depth"]), blocks["step"])
        b.add_incoming(build.add(b, given["b_depth"]), blocks["step"])
        build.branch(blocks["depth"])

        build.position_at_end(blocks["next"])
        tap.add_incoming(build.add(tap, self.word(1)), blocks["next"])
        ahead_start.add_incoming(ahead, blocks["next"])
        c_start.add_incoming(c_row, blocks["next"])
        for row in rows:
            for accumulator, value in zip(outer[row], inner[row], strict=True):
                accumulator.add_incoming(value, blocks["next"])
        build.branch(blocks["taps"])

        build.position_at_end(blocks["done"])
        for row in rows:
            self.store_row(outer[row], self.at(given["c"], given["c_row"], row))
        build.ret_void()
        return str(self.module)

    def variable(self, value: Any, origin: Any) -> Any:
        """A value that a loop changes."""
        found = self.build.phi(value.type)
        found.add_incoming(value, origin)
        return found


_engines: list[Any] = []
_lock = Lock()


def compiled(text: str, name: str, isa: Isa) -> int:
    """Compile LLVM assembly; where the function of that name is."""
    with _lock:
        binding.initialize_native_target()
        binding.initialize_native_asmprinter()
        features = "" if isa.cpu else binding.get_host_cpu_features().flatten()
        machine = binding.Target.from_default_triple().create_target_machine(
            cpu=isa.cpu or binding.get_host_cpu_name(), features=features, opt=3
        )
        module = binding.parse_assembly(text)
        module.verify()
        engine = binding.create_mcjit_compiler(module, machine)
        engine.finalize_object()
        _engines.append(engine)  # owns the code
        return int(engine.get_function_address(name))


@lru_cache(maxsize=256)
def address(shape: Shape, isa: Isa) -> int:
    """Where the code of a tile is."""
    return compiled(Emitter(shape, isa.lanes(shape.itemsize)).emit(), "tile", isa)
