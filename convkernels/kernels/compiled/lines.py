"""Loops over lines of vectors, emitted as LLVM: the frame of all pooling.

    for each image, channel:                  # two outer loops
        for each piece:                       # a box of targets that read alike, see boxes.py
            for each line of the box:         # three loops
                for each vector of the line:  # whole ones in groups, the last one masked
                    target = body(what the vector's steps read)

A line lies along one axis of memory, of channels or of pixels, and its vectors may be read and written densely, by
every second element (loaded whole and shuffled), or by any stride (gathered). All that differs from one call to the
next is read from tables of 64-bit words, so that a body is compiled once, in some 20 ms. Nothing outside the arrays is
read or written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from .tile import INDEX, WORD

Vectors = list[Any]
"""A value of every lane of a group of vectors."""

BYTE = 8
HEAD, LOOPS, OPERAND = 4, 3, 7
"""Words of a call before its operands (the table of pieces, their number, and the counts of the two outer loops),
loops over lines, and words of an operand: its address, then strides in bytes of two outer loops, three inner ones, and
from lane to lane."""
PIECE = 5
"""Words of a piece before its operands' offsets: three counts, the groups and the elements of a line. The divisor and
the lists of steps follow."""
STEP = 3
"""Words of a step: its offsets in two operands, and a number."""
GROUP = 4
"""Vectors worked on at a time; of two phases, half as many of each."""
WIDE = 8
"""The same where each tap is read far from the others, so that longer pieces are better: the mean of 7x7 pixels of 2048
channels took 12 us, not 17."""


@dataclass(frozen=True)
class Operand:
    """An array as lines see it: NumPy's kind and bytes of an element, and how it lies along them.

    `access` is "dense", "even" (every second element, read only) or "any".
    """

    kind: str
    itemsize: int
    access: str

    @property
    def element(self) -> Any:
        """LLVM's type of an element."""
        if self.kind == "f":
            return ir.FloatType() if self.itemsize == 4 else ir.DoubleType()
        return ir.IntType(BYTE * self.itemsize)


@dataclass(frozen=True)
class Line:
    """A line as code sees it: how its arrays lie, where they start, the bytes from lane to lane, and how long it is.

    `size` elements of the last operand, the target, exist; `steps` are where each phase's steps begin and end.
    """

    operands: tuple[Operand, ...]
    starts: Sequence[Any]
    strides: Sequence[Any]
    groups: Any
    size: Any
    steps: Sequence[tuple[Any, Any]]
    divisor: Any


class Place:
    """Where a group of vectors stands: what a body reads, and with which steps.

    `left` is how many elements of the line are left for the last vector, None for whole ones.
    """

    def __init__(self, code: Lines, line: Line, first: Any, vectors: int, left: Any | None) -> None:
        self.code, self.line, self.first, self.vectors, self.left = code, line, first, vectors, left
        self.masks: tuple[Any, ...] = ()
        if left is not None:
            # Of every second element, a vector ends with the last that is wanted, and the second one begins there.
            wanted = code.build.sub(code.build.add(left, left), code.word(1))
            rest = code.build.sub(wanted, code.word(code.lanes - 1))
            self.masks = tuple(self.mask(code.lanes, count) for count in (left, wanted, rest))

    def mask(self, lanes: int, count: Any) -> Any:
        """The lanes before `count`."""
        kind = ir.VectorType(INDEX, lanes)
        numbers = ir.Constant(kind, list(range(lanes)))
        return self.code.build.icmp_signed("<", numbers, self.code.spread(self.code.narrow(count), lanes))

    def read(self, operand: int, offset: Any, where: Vectors | None = None) -> Vectors:
        """The vectors of an operand at an offset; `where` not, zeros, and memory is not touched."""
        masks = where or [self.masks[0] if self.masks else None] * self.vectors
        access = self.line.operands[operand].access
        access = "any" if where and access == "even" else access
        return [self._read(operand, offset, vector, mask, access) for vector, mask in enumerate(masks)]

    def _read(self, operand: int, offset: Any, vector: int, mask: Any | None, access: str) -> Any:
        code, kind, lanes = self.code, self.line.operands[operand], self.code.lanes
        build = code.build
        position = build.add(self.first, code.word(vector * lanes))
        start = build.add(self.line.starts[operand], offset)
        if access == "any":
            stride = self.line.strides[operand]
            pointers = code.pointers(build.add(start, build.mul(position, stride)), stride, kind)
            return code.masked("gather", kind, lanes, pointers, code.all(lanes) if mask is None else mask)
        if access == "dense":
            return self._load(kind, build.add(start, build.mul(position, code.word(kind.itemsize))), mask)
        address = build.add(start, build.mul(position, code.word(2 * kind.itemsize)))
        one, other = (
            self._load(kind, build.add(address, code.word(first * kind.itemsize)), some)
            for first, some in (
                (0, self.masks[1] if self.masks else None),
                (lanes - 1, self.masks[2] if self.masks else None),
            )
        )
        evens = [*range(0, lanes, 2), *range(lanes + 1, 2 * lanes, 2)]
        return build.shuffle_vector(one, other, ir.Constant(ir.VectorType(INDEX, lanes), evens))

    def _load(self, kind: Operand, address: Any, mask: Any | None) -> Any:
        vector = ir.VectorType(kind.element, self.code.lanes)
        if mask is None:
            return self.code.load(address, vector)
        pointer = self.code.build.inttoptr(address, vector.as_pointer())
        return self.code.masked("load", kind, self.code.lanes, pointer, mask)

    def write(self, phases: list[Vectors], operand: int = -1) -> None:
        """Store vectors of a target, the phases alternating."""
        code, kind, lanes = self.code, self.line.operands[operand], self.code.lanes
        build, mixed = code.build, len(phases)
        for vector in range(self.vectors):
            position = build.add(self.first, code.word(vector * lanes))
            start = self.line.starts[operand]
            if kind.access == "any":
                stride = self.line.strides[operand]
                pointers = code.pointers(build.add(start, build.mul(position, stride)), stride, kind)
                mask = self.masks[0] if self.masks else code.all(lanes)
                code.masked("scatter", kind, lanes, pointers, mask, phases[0][vector])
                continue
            for part in range(mixed):
                value = phases[0][vector]
                if mixed == 2:
                    order = [place // 2 + (place % 2) * lanes for place in range(part * lanes, (part + 1) * lanes)]
                    turned = ir.Constant(ir.VectorType(INDEX, lanes), order)
                    value = build.shuffle_vector(phases[0][vector], phases[1][vector], turned)
                element = build.add(build.mul(position, code.word(mixed)), code.word(part * lanes))
                address = build.add(start, build.mul(element, code.word(kind.itemsize)))
                pointer = build.inttoptr(address, value.type.as_pointer())
                if self.left is None:
                    build.store(value, pointer).align = 1
                else:
                    mask = self.masks[0] if mixed == 1 else self.mask(lanes, build.sub(self.line.size, element))
                    code.masked("store", kind, lanes, pointer, mask, value)

    def fold(
        self,
        phase: int,
        initial: list[Vectors],
        step: Callable[[Any, list[Vectors]], list[Vectors]],
        skip: int = 0,
    ) -> list[Vectors]:
        """Go through the steps of a phase but the first few with values that change; `step` takes a step's address."""
        code = self.code
        table, end = self.line.steps[phase]
        return code.fold(code.build.add(table, code.word(BYTE * STEP * skip)), end, initial, step)


Body = Callable[[Place, int], Vectors]
"""What a target is made of: takes a place and a phase."""


class Lines:
    """Emits the loops around a body. The last operand is the target."""

    def __init__(self, operands: Sequence[Operand], lanes: int, phases: int = 1, *, wide: bool = False) -> None:
        self.operands, self.lanes, self.phases = tuple(operands), lanes, phases
        self.wide = [WIDE] if wide else []
        self.module = ir.Module("lines")
        self.function = ir.Function(self.module, ir.FunctionType(ir.VoidType(), [WORD]), "lines")
        self.build = ir.IRBuilder(self.function.append_basic_block("entry"))
        self.declared: dict[str, Any] = {}

    def word(self, value: int) -> Any:
        """A number."""
        return ir.Constant(WORD, value)

    def narrow(self, value: Any) -> Any:
        """A number of 64 bits that fits 32, or the largest that does."""
        most = self.word(2**31 - 1)
        return self.build.trunc(self.build.select(self.build.icmp_signed("<", value, most), value, most), INDEX)

    def spread(self, scalar: Any, lanes: int) -> Any:
        """A vector of equal elements."""
        empty = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
        one = self.build.insert_element(empty, scalar, ir.Constant(INDEX, 0))
        return self.build.shuffle_vector(one, empty, ir.Constant(ir.VectorType(INDEX, lanes), [0] * lanes))

    def constant(self, kind: Any, value: Any) -> Any:
        """A vector of a constant."""
        return ir.Constant(ir.VectorType(kind, self.lanes), [ir.Constant(kind, value)] * self.lanes)

    def all(self, lanes: int) -> Any:
        """A mask of every lane."""
        return ir.Constant(ir.VectorType(ir.IntType(1), lanes), [ir.Constant(ir.IntType(1), 1)] * lanes)

    def load(self, address: Any, kind: Any) -> Any:
        """What stands at any address."""
        found = self.build.load(self.build.inttoptr(address, kind.as_pointer()))
        found.align = 1
        return found

    def word_at(self, address: Any, place: int) -> Any:
        """A word of a table."""
        return self.load(self.build.add(address, self.word(BYTE * place)), WORD)

    def pointers(self, start: Any, stride: Any, kind: Operand) -> Any:
        """The addresses of a vector's elements."""
        numbers = ir.Constant(ir.VectorType(WORD, self.lanes), list(range(self.lanes)))
        offsets = self.build.mul(numbers, self.spread(stride, self.lanes))
        addresses = self.build.add(self.spread(start, self.lanes), offsets)
        return self.build.inttoptr(addresses, ir.VectorType(kind.element.as_pointer(), self.lanes))

    def masked(self, what: str, kind: Operand, lanes: int, pointer: Any, mask: Any, value: Any = None) -> Any:
        """Call one of LLVM's masked accesses."""
        vector = ir.VectorType(kind.element, lanes)
        letter = f"{'f' if kind.kind == 'f' else 'i'}{BYTE * kind.itemsize}"
        many = "gather" in what or "scatter" in what
        name = f"llvm.masked.{what}.v{lanes}{letter}.{f'v{lanes}p0' if many else 'p0'}"
        align = ir.Constant(INDEX, 1)
        if value is None:
            arguments, result = [pointer, align, mask, ir.Constant(vector, None)], vector
        else:
            arguments, result = [value, pointer, align, mask], ir.VoidType()
        return self.build.call(self.intrinsic(name, result, *(each.type for each in arguments)), arguments)

    def intrinsic(self, name: str, result: Any, *arguments: Any) -> Any:
        """An intrinsic of LLVM's."""
        if name not in self.declared:
            self.declared[name] = ir.Function(self.module, ir.FunctionType(result, arguments), name)
        return self.declared[name]

    @contextmanager
    def loop(self, first: Any, stop: Any, step: int = 1) -> Iterator[Any]:
        """A loop from `first` to below `stop`; its variable stays valid behind it."""
        build, origin = self.build, self.build.block
        head, body, done = (self.function.append_basic_block(name) for name in ("head", "body", "done"))
        build.branch(head)
        build.position_at_end(head)
        variable = build.phi(WORD)
        variable.add_incoming(first, origin)
        build.cbranch(build.icmp_signed("<", variable, stop), body, done)
        build.position_at_end(body)
        yield variable
        variable.add_incoming(build.add(variable, self.word(step)), build.block)
        build.branch(head)
        build.position_at_end(done)

    def fold(
        self,
        table: Any,
        stop: Any,
        initial: list[Vectors],
        step: Callable[[Any, list[Vectors]], list[Vectors]],
        length: int = BYTE * STEP,
    ) -> list[Vectors]:
        """Go through a table of entries of so many bytes with values that change."""
        build, origin = self.build, self.build.block
        head, body, done = (self.function.append_basic_block(name) for name in ("fold", "step", "folded"))
        build.branch(head)
        build.position_at_end(head)
        address = build.phi(WORD)
        address.add_incoming(table, origin)
        values = [[build.phi(value.type) for value in group] for group in initial]
        for phis, group in zip(values, initial, strict=True):
            for phi, value in zip(phis, group, strict=True):
                phi.add_incoming(value, origin)
        build.cbranch(build.icmp_signed("<", address, stop), body, done)
        build.position_at_end(body)
        changed = step(address, values)
        for phis, group in zip(values, changed, strict=True):
            for phi, value in zip(phis, group, strict=True):
                phi.add_incoming(value, build.block)
        address.add_incoming(build.add(address, self.word(length)), build.block)
        build.branch(head)
        build.position_at_end(done)
        return values

    def begin(self) -> list[Any]:
        """Read what the call says of the operands: their strides, kept, and their addresses."""
        call, count = self.function.args[0], len(self.operands)
        self.strides = [
            [self.word_at(call, HEAD + operand * OPERAND + 1 + loop) for loop in range(LOOPS + 3)]
            for operand in range(count)
        ]
        return [self.word_at(call, HEAD + operand * OPERAND) for operand in range(count)]

    def moved(self, starts: Sequence[Any], loop: int, variable: Any) -> list[Any]:
        """Addresses moved by the strides of a loop."""
        return [
            self.build.add(start, self.build.mul(variable, strides[loop]))
            for start, strides in zip(starts, self.strides, strict=True)
        ]

    @contextmanager
    def pieces(self, length: int) -> Iterator[tuple[Any, list[Any]]]:
        """The loops over images, channels and pieces of so many words: where a piece stands, and the addresses."""
        call, zero, bases = self.function.args[0], self.word(0), self.begin()
        table = self.word_at(call, 0)
        end = self.build.add(table, self.build.mul(self.word_at(call, 1), self.word(BYTE * length)))
        with (
            self.loop(zero, self.word_at(call, 2)) as image,
            self.loop(zero, self.word_at(call, 3)) as channel,
            self.loop(table, end, BYTE * length) as piece,
        ):
            yield piece, self.moved(self.moved(bases, 0, image), 1, channel)

    def emit(self, body: Body) -> str:
        """The whole as LLVM assembly."""
        build, count, zero = self.build, len(self.operands), self.word(0)
        with self.pieces(PIECE + count + 1 + 2 * self.phases) as (piece, bases):
            starts = [build.add(base, self.word_at(piece, PIECE + operand)) for operand, base in enumerate(bases)]
            counts = [self.word_at(piece, place) for place in range(LOOPS)]
            groups, size = self.word_at(piece, LOOPS), self.word_at(piece, LOOPS + 1)
            divisor, steps = self.lists(build.add(piece, self.word(BYTE * (PIECE + count))), self.phases)
            lanes = [strides[-1] for strides in self.strides]
            with self.loop(zero, counts[0]) as first:
                outer = self.moved(starts, 2, first)
                with self.loop(zero, counts[1]) as second:
                    middle = self.moved(outer, 3, second)
                    with self.loop(zero, counts[2]) as third:
                        inner = self.moved(middle, 4, third)
                        self.go(body, Line(self.operands, inner, lanes, groups, size, steps, divisor), self.phases)
        build.ret_void()
        return str(self.module)

    def lists(self, address: Any, phases: int = 1) -> tuple[Any, list[tuple[Any, Any]]]:
        """What stands at an address: a divisor, and of each phase where its steps begin, and their number."""
        build, found = self.build, []
        for phase in range(phases):
            begin, count = self.word_at(address, 1 + 2 * phase), self.word_at(address, 2 + 2 * phase)
            found.append((begin, build.add(begin, build.mul(count, self.word(BYTE * STEP)))))
        return build.bitcast(self.word_at(address, 0), ir.DoubleType()), found

    def go(self, body: Body, line: Line, phases: int = 1) -> None:
        """One line: groups of whole vectors, whole vectors, and what is left."""
        build, first = self.build, self.word(0)

        def store(position: Any, vectors: int, left: Any | None) -> None:
            place = Place(self, line, position, vectors, left)
            place.write([body(place, phase) for phase in range(phases)])

        spare = 1 if phases > 1 else 0  # the last of them may not exist: such a line ends masked
        for vectors in (*self.wide, max(1, GROUP // phases), 1):
            whole = build.sub(line.groups, self.word(vectors * self.lanes - 1 + spare))
            with self.loop(first, whole, vectors * self.lanes) as position:
                store(position, vectors, None)
            first = position
        with self.loop(first, line.groups, self.lanes) as position:
            store(position, 1, build.sub(line.groups, position))
