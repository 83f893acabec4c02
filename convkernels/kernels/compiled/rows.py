"""Loops over rows, emitted as LLVM: windows reduced across rows first, and then along.

    for each image, channel, piece:
        the border of a buffer = what changes no result
        for each row of targets:
            buffer = body of the first stage, over the rows that it reads
            for each run:                     # targets that read the buffer alike
                for each pixel of the run:    # or all in one line
                    target = body of the second stage

So each cell is loaded from memory once for each row of targets, not once for each window, padding along rows is part of
the buffer, which stays in the fastest cache, and a stride is met only there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from llvmlite import ir

from .lines import BYTE, LOOPS, Body, Line, Lines

PIECE = 9
"""Words of a piece: the counts of two loops over rows, elements of the buffer that a row fills, and those in front and
behind, the source's and the target's offset, the runs' address and number. The divisor of the first stage and its list
of steps follow."""
RUN = 5
"""Words of a run: pixels, groups and elements of a line, the buffer's and the target's offset. The divisor and lists of
steps follow."""
PIXEL = LOOPS + 1
"""The place among an operand's strides of the one from pixel to pixel."""


class Rows(Lines):
    """Emits loops over rows. Operands are a source, which is dense, the buffer and the target."""

    def fill(self, start: Any, count: Any, value: Any) -> None:
        """Whole vectors of a value over at least so many elements."""
        element, build = self.operands[1].element, self.build
        with self.loop(self.word(0), count, self.lanes) as position:
            address = build.add(start, build.mul(position, self.word(self.operands[1].itemsize)))
            build.store(value, build.inttoptr(address, ir.VectorType(element, self.lanes).as_pointer())).align = 1

    def rows(self, across: Body, along: Body, border: Any) -> str:
        """The whole as LLVM assembly; `border` is a vector that changes no result."""
        build, zero = self.build, self.word(0)
        size = self.operands[1].itemsize
        dense = replace(self.operands[1], access="dense")
        with self.pieces(PIECE + 3) as (piece, bases):
            counts = [self.word_at(piece, place) for place in range(2)]
            filled, before, behind = (self.word_at(piece, place) for place in range(2, 5))
            buffer = bases[1]
            row = build.add(buffer, build.mul(before, self.word(size)))
            self.fill(buffer, before, border)
            self.fill(build.add(row, build.mul(filled, self.word(size))), behind, border)
            starts = [build.add(bases[0], self.word_at(piece, 5)), buffer, build.add(bases[2], self.word_at(piece, 6))]
            length = RUN + 1 + 2 * self.phases
            table = self.word_at(piece, 7)
            end = build.add(table, build.mul(self.word_at(piece, 8), self.word(BYTE * length)))
            divisor, read = self.lists(build.add(piece, self.word(BYTE * PIECE)))
            lanes = [strides[-1] for strides in self.strides]
            with self.loop(zero, counts[0]) as first:
                outer = self.moved(starts, 2, first)
                with self.loop(zero, counts[1]) as second:
                    inner = self.moved(outer, 3, second)
                    line = Line((self.operands[0], dense), [inner[0], row], lanes[:2], filled, filled, read, divisor)
                    self.go(across, line)
                    with self.loop(table, end, BYTE * length) as run:
                        pixels, groups, elements = (self.word_at(run, place) for place in range(3))
                        base = [build.add(inner[place], self.word_at(run, 2 + place)) for place in (1, 2)]
                        number, steps = self.lists(build.add(run, self.word(BYTE * RUN)), self.phases)
                        with self.loop(zero, pixels) as pixel:
                            moved = [
                                build.add(start, build.mul(pixel, self.strides[place][PIXEL]))
                                for place, start in enumerate(base, 1)
                            ]
                            line = Line(self.operands[1:], moved, lanes[1:], groups, elements, steps, number)
                            self.go(along, line, self.phases)
        build.ret_void()
        return str(self.module)
