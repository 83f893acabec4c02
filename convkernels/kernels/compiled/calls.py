"""Calls of emitted code, worked out once for arrays that lie alike, wherever that is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ...layout import Array
from ...window import Ints
from .boxes import Boxes, Given, bits, table
from .isa import host
from .lines import HEAD, LOOPS, OPERAND, Operand
from .machine import address, array_in, data_of, entry, fixed, invoke, items_of, set_bytes, tables, words_at
from .parallel import BYTES, run_at
from .row_tables import RowBoxes, row_table
from .scratch import rounded

SCRATCH = -1
"""The place of scratch memory among a plan's arrays; a task that has none sees an array that begins at address 0."""


@dataclass(frozen=True)
class View:
    """A part of one of a plan's arrays: which one, its first byte, and how it lies from there."""

    place: int
    offset: int
    shape: Ints
    strides: Ints
    kind: str
    itemsize: int

    def cut(self, axis: int, part: slice) -> View:
        """A part along an axis."""
        shape = (*self.shape[:axis], part.stop - part.start, *self.shape[axis + 1 :])
        return replace(self, offset=self.offset + part.start * self.strides[axis], shape=shape)

    def on_end(self, first: int) -> bool:
        """Whether the axes from one on lie in one piece, in their order."""
        step = self.itemsize
        for size, stride in zip(reversed(self.shape[first:]), reversed(self.strides[first:]), strict=True):
            if size > 1 and stride != step:
                return False
            step *= size
        return True

    def swapped(self) -> View:
        """The first two axes exchanged."""
        return replace(
            self,
            shape=(self.shape[1], self.shape[0], *self.shape[2:]),
            strides=(self.strides[1], self.strides[0], *self.strides[2:]),
        )


def views(*arrays: Array) -> tuple[View, ...]:
    """Arrays as plans see them."""
    return tuple(
        View(place, 0, array.shape, array.strides, array.dtype.kind, array.itemsize)
        for place, array in enumerate(arrays)
    )


WORDS = HEAD + 4 * OPERAND
"""Words of a call at most."""


class Call(NamedTuple):
    """A call but for the addresses of its arrays, to which its words' offsets are added; what they point to is kept."""

    code: int
    words: list[int]
    places: list[int]
    kept: Any


class Task(NamedTuple):
    """Calls one after the other, and the bytes of scratch memory they share.

    Before, its bytes are set to `fill`, if that is not negative.
    """

    calls: tuple[Call, ...]
    scratch: int = 0
    fill: int = -1


class Program(NamedTuple):
    """Tasks as the arguments of `perform`, but for the arrays; `kept` is what they point to."""

    words: Array
    kept: Any
    tasks: int
    room: int


def program(tasks: Sequence[Task]) -> Program:
    """String tasks together."""
    lines, calls, numbers, places = list[int](), list[int](), list[int](), list[int]()
    for task in tasks:
        lines += [len(calls) // 5, len(calls) // 5 + len(task.calls), task.scratch, task.fill]
        for call in task.calls:
            calls += [call.code, len(numbers), len(call.words), len(places), len(call.places)]
            numbers += call.words
            places += call.places
    joined = [np.array(each, np.int64) for each in (lines, calls, numbers, places)]
    scratch = rounded(max((task.scratch for task in tasks), default=0))
    return Program(np.array(tables(*joined), np.int64), (joined, tasks), len(tasks), scratch)


@entry
def perform(words: int, begin: int, end: int, memory: int) -> None:
    """Carry out some of the tasks.

    The arguments are four tables in an array, and the arrays; what the calls share is scratch memory. Of a call's
    words, each thread has a copy.
    """
    given = words_at(data_of(words_at(words, 1)[0]), 8)
    tasks, calls, numbers, places = array_in(given, 0), array_in(given, 1), array_in(given, 2), array_in(given, 3)
    changed = np.empty(WORDS, np.int64)
    for place in range(begin, end):
        first, last, scratch, fill = fixed(tasks[4 * place :], 4)
        if scratch and fill >= 0:
            set_bytes(memory, scratch, fill)
        for n in range(first, last):
            code, start, length, operands_start, operands = fixed(calls[5 * n :], 5)
            for k in range(length):
                changed[k] = numbers[start + k]
            for k in range(operands):
                array = places[operands_start + k]
                if array >= 0:
                    changed[HEAD + k * OPERAND] += data_of(words_at(words + BYTES * (1 + array), 1)[0])
                elif scratch:
                    changed[HEAD + k * OPERAND] += memory
            invoke(code, (changed.ctypes.data,))


def execute(what: Program, threads: int, *arrays: Array) -> None:
    """Carry out a program on arrays like those it was made for."""
    given = what.words, *arrays
    run_at(perform, items_of(given), what.tasks, threads, what.room)


Maker = tuple[Callable[..., int], *tuple[Any, ...]]
"""What makes the code of some operands, and what it takes beside them."""


def made(make: Maker, operands: Sequence[Operand], words: list[int], arrays: Sequence[View], kept: Any) -> Call:
    """A call of code for some operands."""
    function, *more = make
    return Call(function(*operands, *more, host()), words, [array.place for array in arrays], kept)


def moves(asked: Boxes, array: View, *, near: bool) -> Ints:
    """The strides of an array along the spatial axes from one target to the next; `near` it lies as the targets do."""
    window = asked.spec.window
    if near == asked.forward:
        return array.strides[2:]
    return tuple(
        stride * (1 if asked.phases > 1 and axis == asked.axis else step)
        for axis, (stride, step) in enumerate(zip(array.strides[2:], window.stride, strict=True))
    )


def by_lines(
    asked: Boxes, sources: Sequence[View], targets: Sequence[View], make: Maker, begins: Ints = (0, 0)
) -> Call:
    """A call of lines over boxes. Sources and targets begin at a place each along the first spatial axis."""
    given = table(
        asked,
        tuple(Given(array.strides[2:], begins[0]) for array in sources),
        tuple(Given(array.strides[2:], begins[1]) for array in targets),
    )
    loops = [axis for axis in range(asked.spec.window.rank) if axis != asked.axis]
    images, channels = targets[0].shape[:2]
    words = [given.words.ctypes.data, given.pieces, images, 1 if asked.axis is None else channels]
    operands = []
    for place, array in enumerate((*sources, *targets)):
        near = place >= len(sources)
        steps = moves(asked, array, near=near)
        lane = array.strides[1] if asked.axis is None else steps[asked.axis]
        access = {array.itemsize: "dense", 2 * array.itemsize: "any" if near else "even"}.get(lane, "any")
        operands.append(Operand(array.kind, array.itemsize, access))
        inner = [steps[axis] for axis in loops]
        words += [array.offset, *array.strides[:2], *[0] * (LOOPS - len(inner)), *inner, lane]
    return made(make, operands, words, (*sources, *targets), given)


def by_rows(asked: RowBoxes, source: View, buffer: View, target: View, make: Maker) -> Call:
    """A call of rows."""
    given = row_table(asked)
    window, axis, size = asked.spec.window, asked.axis, asked.itemsize
    loops = [place for place in range(window.rank) if place != axis]
    step, lines = window.stride[axis], asked.width == 1
    words = [given.words.ctypes.data, given.pieces, target.shape[0], target.shape[1] if lines else 1]

    def strides(array: View, moved: bool) -> list[int]:
        inner = [array.strides[2 + place] * (window.stride[place] if moved else 1) for place in loops]
        return [*array.strides[:2], *[0] * (2 - len(inner)), *inner]

    far, near = (step, 1) if asked.forward else (1, 1 if asked.phases > 1 else step)
    lanes = (far * size, near * size) if lines else (size, size)
    words += [source.offset, *strides(source, asked.forward), 0, size]
    words += [buffer.offset, *[0] * (LOOPS + 1), far * asked.width * size, lanes[0]]
    words += [target.offset, *strides(target, not asked.forward), near * target.strides[2 + axis], lanes[1]]
    operands = (
        Operand(source.kind, size, "dense"),
        Operand(source.kind, size, {size: "dense", 2 * size: "even"}.get(lanes[0], "any")),
        Operand(target.kind, size, "dense" if lanes[1] == size else "any"),
    )
    return made(make, operands, words, (source, buffer, target), given)


def by_pairs(arrays: tuple[View, View], divisor: int, make: Maker) -> Call:
    """A call of pairs of rows and their results, all of an image's on end."""
    pairs = min(math.prod(array.shape[1:3]) for array in arrays)
    words = [pairs, bits(divisor), arrays[0].shape[0], 1]
    for array in arrays:
        words += [array.offset, *array.strides[:2], *[0] * (LOOPS + 1)]
    return made(make, [Operand(array.kind, array.itemsize, "dense") for array in arrays], words, arrays, ())


def by_planes(arrays: tuple[View, View], divisor: int, make: Maker) -> Call:
    """A call of whole planes and their results, the target last."""
    cells = max(math.prod(array.shape[2:]) for array in arrays)
    words = [cells, bits(divisor), *arrays[0].shape[:2]]
    for array in arrays:
        words += [array.offset, *array.strides[:2], *[0] * (LOOPS + 1)]
    return made(make, [Operand(array.kind, array.itemsize, "dense") for array in arrays], words, arrays, ())


def by_slides(source: View, buffer: View, target: View, masks: Array, divisor: int, make: Maker) -> Call:
    """A call of windows that slide over planes."""
    words = [address(masks), bits(divisor), *target.shape[:2]]
    for array in (source, buffer, target):
        words += [array.offset, *array.strides[:2], *[0] * (LOOPS + 1)]
    operands = [Operand(array.kind, array.itemsize, "dense") for array in (source, buffer, target)]
    return made(make, operands, words, (source, buffer, target), masks)


def by_strides(source: View, target: View, step: int, divisor: int, make: Maker) -> Call:
    """A call of windows that go by several steps along rows, and by so many from row to row."""
    words = [0, bits(divisor), *target.shape[:2]]
    for array, rows in ((source, step), (target, 1)):
        near = array.strides[2]
        words += [array.offset, *array.strides[:2], near, 0, rows * near, array.itemsize]
    operands = [Operand(array.kind, array.itemsize, "dense") for array in (source, target)]
    return made(make, operands, words, (source, target), ())
