"""Rows of cells some steps apart in some channels, copied next to each other, with zeros for those outside.

Cells are read by whole vectors under masks, of which those that are wanted are brought together by shuffles: for a step
of 2 those of two vectors by one. Masks are alike for all channels and rows, and so made once for each vector of a row.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from llvmlite import ir

from .isa import Isa
from .tile import INDEX, Emitter, Shape, compiled

ARGUMENTS = (
    *("source", "source_channel", "source_row", "target", "target_channel", "target_row"),
    "channels",
    *("above", "rows", "below"),  # so many rows of zeros, of cells, and of zeros again
    *("columns", "first", "cells"),  # cells that are written, and where the first stands among those that exist
)
"""What it takes: addresses, strides in bytes, and numbers of channels, rows and cells."""
AHEAD = 4
"""Rows ahead of which one is fetched."""


class Spaced(Emitter):
    """Emits a copy of rows."""

    def __init__(self, itemsize: int, lanes: int, step: int) -> None:
        super().__init__(Shape(1, 1, itemsize, masked=False), lanes, ARGUMENTS)
        self.apart = step

    def emit(self) -> str:
        """The copy as LLVM assembly."""
        build, given = self.build, self.given
        wide, ahead = self.lanes * self.shape.itemsize, self.at(self.word(0), given["source_row"], AHEAD)
        vectors = build.udiv(build.add(given["columns"], self.word(self.lanes - 1)), self.word(self.lanes))
        none = ir.Constant(self.vector, [0.0] * self.lanes)

        def vector(_: Any, source: Any, target: Any, first: Any, left: Any) -> list[Any]:
            self.masks = [self.below(left)]
            some = [self.within(build.add(first, self.word(n * self.lanes))) for n in range(self.apart)]

            def zeros(_: Any, to: Any) -> list[Any]:
                self.store_row([none], to)
                return [build.add(to, given["target_row"])]

            def cells(_: Any, origin: Any, to: Any) -> list[Any]:
                found = none
                for number, mask in enumerate(some):
                    place = build.add(origin, self.word(number * wide))
                    self.fetch(build.add(place, ahead), 3)
                    part = build.call(self.load_some, [self.pointer(place), self.alignment, mask, none])
                    found = self.picked(found, part, number)
                self.store_row([found], to)
                return [build.add(origin, given["source_row"]), build.add(to, given["target_row"])]

            def channel(_: Any, origin: Any, to: Any) -> list[Any]:
                written = self.loop(given["above"], [to], zeros)
                _, *written = self.loop(given["rows"], [origin, *written], cells)
                self.loop(given["below"], written, zeros)
                return [build.add(origin, given["source_channel"]), build.add(to, given["target_channel"])]

            self.loop(given["channels"], [source, target], channel)
            moved = build.add(source, self.word(self.apart * wide)), build.add(target, self.word(wide))
            behind = build.add(first, self.word(self.apart * self.lanes))
            return [*moved, behind, build.sub(left, self.word(self.lanes))]

        self.loop(vectors, [given["source"], given["target"], given["first"], given["columns"]], vector)
        build.ret_void()
        return str(self.module)

    def within(self, first: Any) -> Any:
        """The mask of lanes whose cells exist, where the first one stands there."""
        return self.build.and_(
            self.below(self.build.sub(self.given["cells"], first)),
            self.build.not_(self.below(self.build.neg(first))),
        )

    def picked(self, found: Any, part: Any, number: int) -> Any:
        """Take the cells of a vector that are a step apart, behind those of the vectors before it."""
        places = []
        for lane in range(self.lanes):
            vector, place = divmod(lane * self.apart, self.lanes)
            places.append(self.lanes + place if vector == number else lane)
        order = ir.Constant(ir.VectorType(INDEX, self.lanes), places)
        return self.build.shuffle_vector(found, part, order)


@lru_cache(maxsize=16)
def address(itemsize: int, isa: Isa, step: int) -> int:
    """Where the code is."""
    return compiled(Spaced(itemsize, isa.lanes(itemsize), step).emit(), "tile", isa)
