"""Loops over whole planes, emitted as LLVM: one window that is all there is, lying in one piece.

Its cells are reduced lane by lane, and then the lanes; a gradient is spread over all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

from llvmlite import ir

from .lines import Line, Lines, Operand, Place
from .spans import Combine, Finish


class Wholes(Lines):
    """Emits loops over planes. Operands are the planes and their results, the target last.

    In the place of the table and its length, a call has the plane's cells and the divisor.
    """

    def __init__(self, source: Operand, target: Operand, lanes: int, plane: int) -> None:
        super().__init__((source, target), lanes)
        self.plane, self.single = plane, 1 - plane

    def planes(self, body: Callable[[Line, Any], None], several: Callable[[Line, Any], None] | None = None) -> str:
        """The whole as LLVM assembly; `body` takes a plane as a line, and the address of its result.

        `several` takes the first of as many planes as there are lanes, if that is given.
        """
        build, call, zero = self.build, self.function.args[0], self.word(0)
        size, divisor = self.word_at(call, 0), build.bitcast(self.word_at(call, 1), ir.DoubleType())
        bases = self.begin()
        with self.loop(zero, self.word_at(call, 2)) as image:
            outer = self.moved(bases, 0, image)
            first, count = zero, self.word_at(call, 3)
            for step, take in ((self.lanes, several), (1, body)):
                if take is None:
                    continue
                with self.loop(first, build.sub(count, self.word(step - 1)), step) as channel:
                    starts = self.moved(outer, 1, channel)
                    operand, lane = self.operands[self.plane], self.word(self.operands[self.plane].itemsize)
                    take(Line((operand,), [starts[self.plane]], [lane], size, size, (), divisor), starts[self.single])
                first = channel
        build.ret_void()
        return str(self.module)

    def one(self, address: Any) -> Any:
        """A pointer to a result."""
        return self.build.inttoptr(address, self.operands[self.single].element.as_pointer())

    def reduced(self, combine: Combine, initial: Any, finish: Finish) -> str:
        """Planes to results: `initial` changes none, `finish` takes a number or a vector and the divisor."""
        return self.planes(self.one_by_one(combine, initial, finish))

    def one_by_one(self, combine: Combine, initial: Any, finish: Finish) -> Callable[..., None]:
        """What reduces a plane."""
        build, lanes, size = self.build, self.lanes, self.operands[0].itemsize

        def body(plane: Line, result: Any) -> None:
            group, first = self.word(4 * lanes * size), plane.starts[0]
            end = build.add(first, build.mul(plane.size, self.word(size)))
            zero = self.word(0)

            def step(width: int) -> Callable[[Any, list[list[Any]]], list[list[Any]]]:
                def combined(address: Any, values: list[list[Any]]) -> list[list[Any]]:
                    line = Line(plane.operands, [address], plane.strides, plane.groups, plane.size, (), plane.divisor)
                    found = Place(self, line, zero, width, None).read(0, zero)
                    return [[combine(total, value) for total, value in zip(values[0], found, strict=True)]]

                return combined

            rest = build.srem(build.sub(end, first), group)
            whole = build.sub(end, rest)
            totals = self.fold(first, whole, [[initial] * 4], step(4), 4 * lanes * size)[0]
            total = combine(combine(totals[0], totals[1]), combine(totals[2], totals[3]))
            left = build.srem(rest, self.word(lanes * size))
            last = build.sub(end, left)
            total = self.fold(whole, last, [[total]], step(1), lanes * size)[0][0]
            count = build.sdiv(left, self.word(size))
            line = Line(plane.operands, [last], plane.strides, plane.groups, plane.size, (), plane.divisor)
            place = Place(self, line, zero, 1, count)
            value = build.select(place.masks[0], place.read(0, zero)[0], initial)
            total = combine(total, value)
            kind = ir.IntType(32)
            for half in (2**power for power in reversed(range(lanes.bit_length() - 1))):
                parts = [range(half), range(half, 2 * half)]
                order = [ir.Constant(ir.VectorType(kind, half), list(part)) for part in parts]
                total = combine(*(build.shuffle_vector(total, total, each) for each in order))
            found = finish(build.extract_element(total, ir.Constant(kind, 0)), plane.divisor)
            build.store(found, self.one(result)).align = 1

        return body

    def reduced_together(self, cells: int, combine: Combine, initial: Any, finish: Finish) -> str:
        """The same of planes of so few cells, on end as their results: as many together as there are lanes."""
        build, lanes, size = self.build, self.lanes, self.operands[0].itemsize
        vector, bit = ir.VectorType(self.operands[0].element, lanes), ir.IntType(1)

        def several(plane: Line, result: Any) -> None:
            def read(place: int, first: int) -> Any:
                """A vector of a plane's cells, from one on."""
                address = build.add(plane.starts[0], self.word((place * cells + first) * size))
                if cells - first >= lanes:
                    return self.load(address, vector)
                held = [ir.Constant(bit, int(lane < cells - first)) for lane in range(lanes)]
                mask, pointer = (
                    ir.Constant(ir.VectorType(bit, lanes), held),
                    build.inttoptr(address, vector.as_pointer()),
                )
                return build.select(mask, self.masked("load", self.operands[0], lanes, pointer, mask), initial)

            totals = [reduce(combine, (read(place, at) for at in range(0, cells, lanes))) for place in range(lanes)]
            kind = ir.VectorType(ir.IntType(32), lanes)
            while len(totals) > 1:
                # Neighbours are reduced to one, those of two vectors together.
                orders = [ir.Constant(kind, list(range(first, 2 * lanes, 2))) for first in (0, 1)]
                pairs = zip(totals[::2], totals[1::2], strict=True)
                totals = [combine(*(build.shuffle_vector(*pair, order) for order in orders)) for pair in pairs]
            pointer = build.inttoptr(result, vector.as_pointer())
            build.store(finish(totals[0], plane.divisor), pointer).align = 1

        return self.planes(self.one_by_one(combine, initial, finish), several)

    def filled(self, finish: Finish) -> str:
        """Results to planes."""
        build = self.build

        def body(plane: Line, result: Any) -> None:
            value = build.load(self.one(result))
            value.align = 1
            vector = finish(self.spread(value, self.lanes), plane.divisor)
            self.go(lambda place, phase: [vector] * place.vectors, plane)

        return self.planes(body)
