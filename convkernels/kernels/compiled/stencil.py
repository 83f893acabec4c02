"""The stencil: a few rows of a few accumulators in registers, each of which takes its taps from cells of one channel.

    for each row of cells that exists, for each of its cells that some accumulator takes:
        outputs:   y[output] += x[cell] * w[tap]     for the outputs and taps that take it
        weights:   w[tap]    += x[cell] * y[output]

A vector's lanes are channels, or outputs next to each other along a row. Which cells of a row exist is known when the
code is emitted, so cells outside cost nothing at all; rows outside are jumped over. Two loops around it go over
channels and rows of tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

from llvmlite import ir

from .isa import Isa
from .reach import Pairs
from .tile import INDEX, WORD, compiled

ARGUMENTS = (
    *("x", "w", "y"),  # addresses: of the first output's base cell, the first tap, the first output
    "bias",  # what sums begin with, for each channel
    *("planes", "planes_count"),  # offsets into x and into w of what is summed over beside rows: depths, say
    *("row", "rows"),  # the base row of cells, and how many there are
    *("x_row", "x_cell", "w_row", "w_tap", "y_row", "y_output"),  # strides in bytes
    "channels",  # that exist, of those that lie in lanes
    *("inner", "inner_row", "inner_x", "inner_w", "inner_y", "inner_bias"),  # tiles in a loop, and its steps
    *("outer", "outer_row", "outer_x", "outer_w", "outer_y", "outer_bias"),
    *("x_ahead", "y_ahead"),  # from a tile to the next along a row, which is fetched into the cache
)
"""What a stencil takes, all of them 64-bit integers."""


class Read(NamedTuple):
    """A tap, the cell that an accumulator's first lane takes it from, and the lanes that do."""

    tap: int
    cell: int
    begin: int
    end: int


class Place(NamedTuple):
    """An accumulator of a row: its first lane's output, the lanes that exist, and what they take."""

    output: int
    kept: int
    reads: tuple[Read, ...]


class Shape(NamedTuple):
    """A stencil: rows of outputs with their taps and rows of cells, the places of each row, and the lanes' meaning.

    Where lanes are outputs, ``step`` cells lie from one lane to the next, and ``spread`` outputs; else both are 0.
    """

    rows: tuple[Pairs, ...]
    places: tuple[Place, ...]
    outputs: int
    step: int
    spread: int
    lanes: int
    itemsize: int
    weights: bool


Values = list[Any]


class Emitter:
    """Emits one stencil."""

    def __init__(self, shape: Shape, arguments: Sequence[str] = ARGUMENTS) -> None:
        self.shape, self.lanes = shape, shape.lanes
        self.across = shape.step == 0
        self.element = ir.FloatType() if shape.itemsize == 4 else ir.DoubleType()
        self.vector = ir.VectorType(self.element, self.lanes)
        self.mask = ir.VectorType(ir.IntType(1), self.lanes)
        self.pointer = self.vector.as_pointer()
        self.module = ir.Module("stencil")
        self.suffix = f"v{self.lanes}f{8 * shape.itemsize}"
        self.zeros = ir.Constant(self.vector, [0.0] * self.lanes)
        function = ir.Function(self.module, ir.FunctionType(ir.VoidType(), [WORD] * len(arguments)), "stencil")
        self.given = dict(zip(arguments, function.args, strict=True))
        self.build = ir.IRBuilder(function.append_basic_block("entry"))
        # Rows of cells that no tile above has read, where tiles go through channels: too many streams for the hardware.
        every = sorted({cells for pairs in shape.rows for _, cells in pairs})
        self.fresh = every[-len(shape.rows) :] if self.across else []
        # The accumulators: outputs by row and place, or taps by row and column.
        reads = [(row, tap, read.tap) for row in shape.rows for tap, _ in row for p in shape.places for read in p.reads]
        self.sums: list[tuple[int, int]] = (
            sorted({(tap, column) for _, tap, column in reads})
            if shape.weights
            else [(row, place) for row in range(len(shape.rows)) for place in range(len(shape.places))]
        )

    def call(self, name: str, result: Any, *arguments: Any) -> Any:
        """Call an intrinsic of LLVM's."""
        found = self.module.globals.get(name)
        if found is None:
            found = ir.Function(self.module, ir.FunctionType(result, [each.type for each in arguments]), name)
        return self.build.call(found, arguments)

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

    def number(self, address: Any, kind: Any, size: int) -> Any:
        """What stands at an address."""
        found = self.build.load(self.build.inttoptr(address, kind.as_pointer()))
        found.align = size
        return found

    def between(self, begin: int, end: int) -> Any:
        """The mask of some lanes."""
        return ir.Constant(self.mask, [int(begin <= lane < end) for lane in range(self.lanes)])

    def load(self, address: Any, begin: int, end: int) -> Any:
        """Some lanes of a vector, zeros in the others; of channels, those that exist."""
        pointer = self.build.inttoptr(address, self.pointer)
        aligned = ir.Constant(INDEX, self.shape.itemsize)
        if not self.across and (begin, end) == (0, self.lanes):
            found = self.build.load(pointer)
            found.align = self.shape.itemsize
            return found
        mask = self.channels if self.across else self.between(begin, end)
        return self.call(f"llvm.masked.load.{self.suffix}.p0", self.vector, pointer, aligned, mask, self.zeros)

    def store(self, value: Any, address: Any, kept: int) -> None:
        """Store some lanes of a vector; of channels, those that exist."""
        pointer = self.build.inttoptr(address, self.pointer)
        aligned = ir.Constant(INDEX, self.shape.itemsize)
        mask = self.channels if self.across else self.between(0, kept)
        if self.across and not self.shape.weights:
            self.fetch(self.build.add(address, self.given["y_ahead"]), writing=True)
        self.call(f"llvm.masked.store.{self.suffix}.p0", ir.VoidType(), value, pointer, aligned, mask)

    def fetch(self, address: Any, *, writing: bool) -> None:
        """Ask for a line of the cache; any address will do."""
        pointer = self.build.inttoptr(address, self.pointer)
        near, data = ir.Constant(INDEX, 3), ir.Constant(INDEX, 1)
        self.call("llvm.prefetch.p0", ir.VoidType(), pointer, ir.Constant(INDEX, int(writing)), near, data)

    def lanes_apart(self, address: Any, stride: int) -> Any:
        """A vector of pointers to elements so many places apart."""
        places = ir.Constant(
            ir.VectorType(WORD, self.lanes), [lane * stride * self.shape.itemsize for lane in range(self.lanes)]
        )
        wide = self.build.add(self.spread(address, places.type), places)
        return self.build.inttoptr(wide, ir.VectorType(self.element.as_pointer(), self.lanes))

    def cells(self, address: Any, read: Read) -> Any:
        """The cells that an accumulator takes."""
        step, size = self.shape.step, self.shape.itemsize
        if step < 2:
            return self.load(address, read.begin, read.end)
        if step == 2:
            first, last = 2 * read.begin, 2 * read.end - 1
            halves = [
                self.load(
                    self.build.add(address, self.word(half * self.lanes * size)),
                    max(0, first - half * self.lanes),
                    max(0, min(self.lanes, last - half * self.lanes)),
                )
                for half in (0, 1)
            ]
            even = ir.Constant(ir.VectorType(INDEX, self.lanes), [2 * lane for lane in range(self.lanes)])
            return self.build.shuffle_vector(*halves, even)
        pointers, mask = self.lanes_apart(address, step), self.between(read.begin, read.end)
        aligned = ir.Constant(INDEX, size)
        name = f"llvm.masked.gather.{self.suffix}.v{self.lanes}p0"
        return self.call(name, self.vector, pointers, aligned, mask, self.zeros)

    def repeat(self, times: Any, values: Values, body: Callable[[Any, Values], Values]) -> Values:
        """A loop that changes values; what they are in the end."""
        build, entry = self.build, self.build.block
        head, inside, done = (build.append_basic_block() for _ in range(3))
        build.branch(head)
        build.position_at_end(head)
        place, *found = (build.phi(value.type) for value in (times, *values))
        for phi, value in zip((place, *found), (self.word(0), *values), strict=True):
            phi.add_incoming(value, entry)
        build.cbranch(build.icmp_signed("<", place, times), inside, done)
        build.position_at_end(inside)
        following = body(place, found)
        for phi, value in zip((place, *found), (build.add(place, self.word(1)), *following), strict=True):
            phi.add_incoming(value, build.block)
        build.branch(head)
        build.position_at_end(done)
        return found

    def where(self, condition: Any, values: Values, body: Callable[[Values], Values]) -> Values:
        """Change values on a condition."""
        build, before = self.build, self.build.block
        inside, done = (build.append_basic_block() for _ in range(2))
        build.cbranch(condition, inside, done)
        build.position_at_end(inside)
        changed, last = body(list(values)), build.block
        build.branch(done)
        build.position_at_end(done)
        found = []
        for value, other in zip(values, changed, strict=True):
            if value is other:
                found.append(value)
                continue
            phi = build.phi(value.type)
            phi.add_incoming(value, before)
            phi.add_incoming(other, last)
            found.append(phi)
        return found

    def emit(self) -> str:
        """The stencil as LLVM assembly."""
        build, given = self.build, self.given
        names = ("row", "x", "w", "y", "bias")

        def stepped(values: Values, loop: str) -> Values:
            return [build.add(value, given[f"{loop}_{name}"]) for value, name in zip(values, names, strict=True)]

        def inner(place: Any, values: Values) -> Values:
            self.tile(place, *values)
            return stepped(values, "inner")

        def outer(_: Any, values: Values) -> Values:
            self.repeat(given["inner"], values, inner)
            return stepped(values, "outer")

        self.repeat(given["outer"], [given[name] for name in names], outer)
        build.ret_void()
        return str(self.module)

    def tile(self, place: Any, row: Any, x: Any, w: Any, y: Any, bias: Any) -> None:
        """One tile."""
        build, given = self.build, self.given
        if self.across:
            wide = ir.VectorType(WORD, self.lanes)
            left = build.sub(given["channels"], build.mul(place, self.word(self.lanes)))
            self.channels = build.icmp_signed("<", ir.Constant(wide, list(range(self.lanes))), self.spread(left, wide))

        def plane(count: Any, sums: Values) -> Values:
            entry = build.add(given["planes"], build.mul(count, self.word(16)))
            x_plane = build.add(x, self.number(entry, WORD, 8))
            w_plane = build.add(w, self.number(build.add(entry, self.word(8)), WORD, 8))
            now = self.taps(w_plane) if self.shape.weights else sums
            for cells in sorted({cells for pairs in self.shape.rows for _, cells in pairs}):
                exists = build.icmp_unsigned("<", build.add(row, self.word(cells)), given["rows"])
                now = self.where(exists, now, partial(self.row, cells, x_plane, w_plane, y))
            if not self.shape.weights:
                return now
            for value, (tap, column) in zip(now, self.sums, strict=True):
                self.store(value, self.tap(w_plane, tap, column), self.lanes)
            return []

        sums = self.repeat(given["planes_count"], [] if self.shape.weights else self.biases(bias), plane)
        if not self.shape.weights:
            for number in range(len(self.shape.rows)):
                places = [value for value, (of, _) in zip(sums, self.sums, strict=True) if of == number]
                self.store_row(places, self.at(y, given["y_row"], number))

    def tap(self, w: Any, row: int, column: int) -> Any:
        """The address of a tap."""
        return self.at(self.at(w, self.given["w_row"], row), self.given["w_tap"], column)

    def taps(self, w: Any) -> Values:
        """The sums for taps as they are so far."""
        return [self.load(self.tap(w, row, column), 0, self.lanes) for row, column in self.sums]

    def biases(self, bias: Any) -> Values:
        """What sums for outputs begin with."""
        if self.across:
            value = self.load(bias, 0, self.lanes)
        else:
            value = self.spread(self.number(bias, self.element, self.shape.itemsize), self.vector)
        return [value] * len(self.sums)

    def row(self, cells: int, x: Any, w: Any, y: Any, sums: Values) -> Values:
        """Add what a row of cells gives: each cell is loaded once for all that take it."""
        shape, place_of = self.shape, {key: place for place, key in enumerate(self.sums)}
        start = self.at(x, self.given["x_row"], cells)
        users = [(row, tap) for row, pairs in enumerate(shape.rows) for tap, at in pairs if at == cells]
        takers: dict[tuple[int, int, int], list[tuple[int, int]]] = {}
        for place, each in enumerate(shape.places):
            for read in each.reads:
                takers.setdefault(read[1:], []).append((place, read.tap))
        others: dict[tuple[int, int], Any] = {}
        for (cell, begin, end), taken in sorted(takers.items()):
            address = self.at(start, self.given["x_cell"], cell)
            found = self.cells(address, Read(0, cell, begin, end))
            if cells in self.fresh:
                self.fetch(self.build.add(address, self.given["x_ahead"]), writing=False)
            for place, column in taken:
                for row, tap in users:
                    key = (row, place) if shape.weights else (tap, column)
                    if key not in others:
                        others[key] = self.output(y, row, place) if shape.weights else self.weight(w, tap, column)
                    into = place_of[(tap, column) if shape.weights else (row, place)]
                    sums[into] = self.call(f"llvm.fmuladd.{self.suffix}", self.vector, found, others[key], sums[into])
        return sums

    def weight(self, w: Any, row: int, column: int) -> Any:
        """The weight of a tap: the channels', or the one of all lanes."""
        address = self.tap(w, row, column)
        if self.across:
            return self.load(address, 0, self.lanes)
        return self.spread(self.number(address, self.element, self.shape.itemsize), self.vector)

    def output(self, y: Any, row: int, place: int) -> Any:
        """The outputs of an accumulator, which gradients are given."""
        each = self.shape.places[place]
        start = self.at(y, self.given["y_row"], row)
        return self.load(self.at(start, self.given["y_output"], each.output), 0, each.kept)

    def store_row(self, values: Sequence[Any], y: Any) -> None:
        """Store a row of outputs; those that lie between each other's are mixed first."""
        shape, lanes = self.shape, self.lanes
        if shape.spread == 2:
            mixed = []
            for even, odd in zip(values[::2], values[1::2], strict=True):
                for half in (0, lanes // 2):
                    order = [half + lane // 2 + (lane % 2) * lanes for lane in range(lanes)]
                    mixed.append(self.build.shuffle_vector(even, odd, ir.Constant(ir.VectorType(INDEX, lanes), order)))
            for place, value in enumerate(mixed):
                kept = min(lanes, shape.outputs - place * lanes)
                if kept > 0:
                    self.store(value, self.build.add(y, self.word(place * lanes * shape.itemsize)), kept)
            return
        for value, each in zip(values, shape.places, strict=True):
            address = self.at(y, self.given["y_output"], each.output)
            if shape.spread < 2:
                self.store(value, address, each.kept)
            elif each.kept > 0:
                pointers = self.lanes_apart(address, shape.spread)
                aligned, mask = ir.Constant(INDEX, shape.itemsize), self.between(0, each.kept)
                name = f"llvm.masked.scatter.{self.suffix}.v{lanes}p0"
                self.call(name, ir.VoidType(), value, pointers, aligned, mask)


def fold(lanes: int, itemsize: int) -> str:
    """Sum the lanes of vectors, as LLVM assembly; it takes where they lie, where the sums go, and how many they are."""
    emitter = Emitter(Shape((), (), 0, 1, 1, lanes, itemsize, weights=False), ("source", "target", "count"))
    build = emitter.build
    source, target, count = emitter.given.values()

    def body(number: Any, values: Values) -> Values:
        found = emitter.load(build.add(source, build.mul(number, emitter.word(lanes * itemsize))), 0, lanes)
        half = lanes // 2
        while half:
            # Always the same order: the upper half to the lower.
            order = ir.Constant(ir.VectorType(INDEX, lanes), [(lane + half) % lanes for lane in range(lanes)])
            found = build.fadd(found, build.shuffle_vector(found, found, order))
            half //= 2
        to = build.add(target, build.mul(number, emitter.word(itemsize)))
        first = build.extract_element(found, ir.Constant(INDEX, 0))
        build.store(first, build.inttoptr(to, emitter.element.as_pointer())).align = itemsize
        return values

    emitter.repeat(count, [], body)
    build.ret_void()
    return str(emitter.module)


@lru_cache(maxsize=8)
def fold_address(lanes: int, itemsize: int, isa: Isa) -> int:
    """Where the code that sums lanes is."""
    return compiled(fold(lanes, itemsize), "stencil", isa)


@lru_cache(maxsize=512)
def address(shape: Shape, isa: Isa) -> int:
    """Where the code of a stencil is."""
    return compiled(Emitter(shape).emit(), "stencil", isa)
