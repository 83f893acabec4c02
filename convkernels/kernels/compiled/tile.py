"""The register tile: C = init + sum over t, k of A[:, t, k] B[t, k, :], a few rows by a few vectors, all in registers.

    for t in range(taps):
        for k in range(depth):
            b = the vectors at  B + b_offsets[t] + k * b_depth
            for each row r:  acc[r] += (the element at  A + a_offsets[t] + r * a_row + k * a_depth) * b

Each element of A is broadcast against the vectors of B, so an operand may have any strides but B's last, and neither
needs packing where it lies right. One multiply-add for each accumulator and step keeps the multipliers busy if there
are more accumulators than their latency and nothing else takes their place. On a Zen 4 core with AVX-512, which begins
one of these a cycle, every shape of 8 to 28 measured 113 to 117 GFLOP/s in float32, where 117 is the limit. A Sapphire
Rapids core begins two, on ports that masked loads and address arithmetic want, too; so only a last vector that is not
whole has a mask, rows are found from few addresses, and C is fetched in the first steps alone: 14 rows of two vectors
158 -> 174 GFLOP/s, 7 of three 142 -> 167, 30 of one 92 -> 137.

The code is LLVM's, emitted here and compiled in some 30 ms, so it needs no cache on disk. Nothing outside the operands
is read or written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Any

from llvmlite import binding, ir

from .isa import Isa

ARGUMENTS = (
    *("a", "b", "c", "init"),  # addresses
    *("a_offsets", "b_offsets", "taps", "depth"),
    *("a_row", "a_depth", "b_depth", "b_ahead", "c_row", "init_row"),  # strides in bytes; B is fetched so far ahead
    "columns",  # elements of a row that exist
    "next_c",  # where the tile writes that comes next, to be fetched meanwhile
    # An address to fetch into the cache, what it moves by in each step of the depth, and from tap to tap besides.
    *("ahead", "ahead_step", "ahead_tap"),
)
"""What a tile takes, all of them 64-bit integers."""
KEEPING = ("kept", "kept_row")
"""What one takes besides that keeps the rows of B: where these are stored, and how far apart."""

WORD = ir.IntType(64)
INDEX = ir.IntType(32)
AHEAD = 8
"""Steps ahead of which a row of B is fetched; 4 to 32 measured the same, 5 % less time than none, for panels that only
the second-level cache holds.
"""
NEAR_ROWS = 7
"""Rows found from one address, by 1, 3 and 5 strides times the powers of 2 that processors multiply by for nothing."""


@dataclass(frozen=True)
class Shape:
    """A tile's rows, vectors in a row, the bytes of an element, and whether columns end within the last vector.

    One that is `keeping` also stores the rows of B that it reads, for others to read them there.
    """

    rows: int
    vectors: int
    itemsize: int
    masked: bool
    keeping: bool = False


class Emitter:
    """Emits a function over rows of a few vectors."""

    def __init__(self, shape: Shape, lanes: int, arguments: Sequence[str]) -> None:
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
        function = ir.Function(self.module, ir.FunctionType(ir.VoidType(), [WORD] * len(arguments)), "tile")
        self.given = dict(zip(arguments, function.args, strict=True))
        self.build = ir.IRBuilder(function.append_basic_block("entry"))
        self.masks = [None] * (shape.vectors - shape.masked) + [self.mask()] * shape.masked

    def declare(self, name: str, result: Any, *arguments: Any) -> ir.Function:
        """An intrinsic of LLVM's."""
        return ir.Function(self.module, ir.FunctionType(result, arguments), name)

    def word(self, value: int) -> ir.Constant:
        """A number."""
        return ir.Constant(WORD, value)

    def at(self, base: Any, stride: Any, count: int) -> Any:
        """The address base + stride * count."""
        return self.build.add(base, self.build.mul(stride, self.word(count)))

    def hidden(self, value: Any) -> Any:
        """The same number, of which LLVM knows nothing: else it finds rows by ways of its own, each from the last."""
        return self.build.asm(ir.FunctionType(WORD, [WORD]), "", "=r,0", [value], side_effect=False)

    def spread(self, scalar: Any, vector: ir.VectorType) -> Any:
        """A vector of equal elements."""
        empty = ir.Constant(vector, ir.Undefined)
        one = self.build.insert_element(empty, scalar, ir.Constant(INDEX, 0))
        return self.build.shuffle_vector(one, empty, ir.Constant(ir.VectorType(INDEX, self.lanes), [0] * self.lanes))

    def mask(self) -> Any:
        """The lanes of the last vector that exist."""
        return self.below(self.build.sub(self.given["columns"], self.word((self.shape.vectors - 1) * self.lanes)))

    def below(self, count: Any) -> Any:
        """The mask of the lanes below a number."""
        places = ir.VectorType(WORD, self.lanes)
        return self.build.icmp_signed("<", ir.Constant(places, list(range(self.lanes))), self.spread(count, places))

    def load(self, address: Any, kind: Any) -> Any:
        """An element or vector at any address."""
        found = self.build.load(self.build.inttoptr(address, kind.as_pointer()))
        found.align = 8 if kind is WORD else self.shape.itemsize
        return found

    def load_row(self, address: Any) -> list[Any]:
        """The vectors of a row, zeros where none exist."""
        zeros = ir.Constant(self.vector, [0.0] * self.lanes)
        places = (self.build.add(address, self.word(place)) for place in self.places)
        return [
            self.load(place, self.vector)
            if mask is None
            else self.build.call(self.load_some, [self.pointer(place), self.alignment, mask, zeros])
            for place, mask in zip(places, self.masks, strict=True)
        ]

    def store_row(self, row: Sequence[Any], address: Any) -> None:
        """Store what exists."""
        for place, value, mask in zip(self.places, row, self.masks, strict=True):
            pointer = self.pointer(self.build.add(address, self.word(place)))
            if mask is None:
                self.build.store(value, pointer).align = self.shape.itemsize
            else:
                self.build.call(self.store_some, [value, pointer, self.alignment, mask])

    @property
    def places(self) -> range:
        """The bytes at which the vectors of a row begin."""
        step = self.lanes * self.shape.itemsize
        return range(0, self.shape.vectors * step, step)

    def pointer(self, address: Any) -> Any:
        """An address as that of a vector."""
        return self.build.inttoptr(address, self.vector.as_pointer())

    @property
    def alignment(self) -> ir.Constant:
        """Of an element, which is all that is known."""
        return ir.Constant(INDEX, self.shape.itemsize)

    def fetch(self, address: Any, near: int, *, writing: bool = False) -> None:
        """Ask for a line of the cache, the nearest one being 3; any address will do."""
        how = (ir.Constant(INDEX, number) for number in (int(writing), near, 1))
        self.build.call(self.prefetch, [self.pointer(address), *how])

    def fetch_row(self, address: Any, *, writing: bool = False) -> None:
        """Ask for each line of a row but a first that begins before it, which its neighbour asks for."""
        for place in range(0, self.shape.vectors * self.lanes * self.shape.itemsize, 64):
            self.fetch(self.build.add(address, self.word(place + 64 - self.shape.itemsize)), 3, writing=writing)

    def least(self, first: Any, second: Any) -> Any:
        """The smaller number."""
        return self.build.select(self.build.icmp_signed("<", first, second), first, second)

    def loop(self, count: Any, state: Sequence[Any], body: Callable[..., Sequence[Any]]) -> list[Any]:
        """``for index in range(count): state = body(index, *state)``; what the state is at the end."""
        build = self.build
        before, head, inside, after = build.block, *(build.append_basic_block() for _ in range(3))
        build.branch(head)
        build.position_at_end(head)
        start = [self.word(0), *state]
        index, *carried = variables = [build.phi(value.type) for value in start]
        build.cbranch(build.icmp_signed("<", index, count), inside, after)
        build.position_at_end(inside)
        following = [*body(index, *carried)]
        following = [build.add(index, self.word(1)), *following]
        for variable, first, last in zip(variables, start, following, strict=True):
            variable.add_incoming(first, before)
            variable.add_incoming(last, build.block)
        build.branch(head)
        build.position_at_end(after)
        return carried

    def emit(self) -> str:
        """The tile as LLVM assembly: nested loops whose values are the accumulators."""
        given, rows = self.given, range(self.shape.rows)
        self.strides = [self.hidden(self.build.mul(given["a_row"], self.word(odd))) for odd in (1, 3, 5)]
        initial = [self.load_row(self.at(given["init"], given["init_row"], row)) for row in rows]
        sums = [value for row in initial for value in row]
        kept = [given["kept"]] if self.shape.keeping else []
        state = given["next_c"], self.word(self.shape.rows), given["ahead"], *kept, *sums
        sums = self.loop(given["taps"], state, self.tap)[-len(sums) :]
        for row in rows:
            place = row * self.shape.vectors
            self.store_row(sums[place : place + self.shape.vectors], self.at(given["c"], given["c_row"], row))
        self.build.ret_void()
        return str(self.module)

    def tap(self, number: Any, c: Any, left: Any, ahead: Any, *state: Any) -> Sequence[Any]:
        """Add what one tap contributes; so many rows of the next C are left to be fetched."""
        build, given, keeping = self.build, self.given, self.shape.keeping
        place = build.mul(number, self.word(8))
        offsets = (self.load(build.add(given[name], place), WORD) for name in ("a_offsets", "b_offsets"))
        a, b = (build.add(given[name], offset) for name, offset in zip("ab", offsets, strict=True))
        near = [self.hidden(self.at(a, given["a_row"], row)) for row in range(0, self.shape.rows, NEAR_ROWS)]
        kept, sums = state[:keeping], state[keeping:]
        fetching = self.least(left, given["depth"])

        def fetch_and_step(index: Any, c: Any, *state: Any) -> Sequence[Any]:
            # Storing it takes as long as some hundred multiplications, as many as few channels with their taps make.
            self.fetch_row(c, writing=True)
            return [build.add(c, given["c_row"]), *self.step(index, *state)]

        c, *following = self.loop(fetching, [c, ahead, *kept, b, *near, *sums], fetch_and_step)
        ahead, *following = self.loop(build.sub(given["depth"], fetching), following, self.step)
        ahead = build.add(ahead, given["ahead_tap"])
        return [c, build.sub(left, fetching), ahead, *following[:keeping], *following[-len(sums) :]]

    def step(self, _: Any, ahead: Any, *state: Any) -> Sequence[Any]:
        """Add the products of a step of the depth."""
        build, given, rows, vectors = self.build, self.given, self.shape.rows, self.shape.vectors
        others, sums = state[: -rows * vectors], state[-rows * vectors :]
        kept, (b, *bases) = others[: self.shape.keeping], others[self.shape.keeping :]
        self.fetch(ahead, 2)  # the first-level cache is full
        self.fetch_row(build.add(b, given["b_ahead"]))
        row_of_b = self.load_row(b)
        for place in kept:
            self.store_row(row_of_b, place)
        found = []
        for row in range(rows):
            element = self.spread(self.load(self.row(bases, row), self.element), self.vector)
            for value, total in zip(row_of_b, sums[row * vectors :], strict=False):
                found.append(build.call(self.multiply_add, [element, value, total]))
        near = [self.hidden(build.add(base, given["a_depth"])) for base in bases]
        moved = [build.add(place, given["kept_row"]) for place in kept]
        return [build.add(ahead, given["ahead_step"]), *moved, build.add(b, given["b_depth"]), *near, *found]

    def row(self, bases: Sequence[Any], row: int) -> Any:
        """Where a row of A is, of whose `NEAR_ROWS` the first are known."""
        base, count = bases[row // NEAR_ROWS], row % NEAR_ROWS
        if count == 0:
            return base
        power = (count & -count).bit_length() - 1
        stride = self.strides[(count >> power) // 2]
        return self.build.add(base, self.build.shl(stride, self.word(power)))


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
    arguments = (*ARGUMENTS, *KEEPING * shape.keeping)
    return compiled(Emitter(shape, isa.lanes(shape.itemsize), arguments).emit(), "tile", isa)
