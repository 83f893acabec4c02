"""Planes turned for pools, emitted as LLVM: from one channel after the other to pixels of some channels each.

Where planes are small, lines along them are short, and mostly ends; along channels they are whole vectors. So some
planes are turned into scratch memory, pooled there, and turned back; squares of a vector's side take a nanosecond or so
for each of their lines.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import product

from ...pool_spec import PoolSpec
from ...views import slices
from ...window import Ints
from .calls import SCRATCH, Call, View, made
from .isa import Isa, host
from .lines import LOOPS, Lines, Operand
from .pool_blocks import TURNED
from .scratch import rounded
from .tile import compiled
from .turn import square

MANY = 4
"""Vectors of channels whose planes are turned together, at most: as many as are worked on at a time."""
LONG = 32
"""Bytes of a row's outputs from which on lines along it pay by steps of 2."""


class Turns(Lines):
    """Emits loops over squares. Operands are planes or what they are turned to, and the other.

    In the place of the table and its length, a call has the lines and the elements of a line.
    """

    def turns(self, *, back: bool) -> str:
        """The whole as LLVM assembly, a plane of the target or of the source being gone through at a time."""
        build, call, zero, size = self.build, self.function.args[0], self.word(0), self.operands[0].itemsize
        lines, elements = self.word_at(call, 0), self.word_at(call, 1)
        bases = self.begin()
        steps = [strides[-1] for strides in self.strides]
        limits = (elements, lines) if back else (lines, elements)
        with self.loop(zero, self.word_at(call, 2)) as image:
            starts = self.moved(bases, 0, image)
            with self.loop(zero, limits[0], self.lanes) as outer, self.loop(zero, limits[1], self.lanes) as inner:
                line, element = (inner, outer) if back else (outer, inner)
                left = [build.sub(lines, line), build.sub(elements, element)]
                lanes = self.word(self.lanes)
                source, target = (
                    build.add(start, build.add(build.mul(one, step), build.mul(other, self.word(size))))
                    for start, step, one, other in zip(starts, steps, (line, element), (element, line), strict=True)
                )
                whole = build.and_(*(build.icmp_signed(">=", each, lanes) for each in left))
                given = [source, steps[0], target, steps[1], *left]
                with build.if_else(whole) as ways:
                    for way, known in zip(ways, (self.lanes, 0), strict=True):
                        with way:
                            square(build, self.lanes, size, given, known)
        build.ret_void()
        return str(self.module)


@lru_cache(maxsize=16)
def turning(source: Operand, target: Operand, back: bool, isa: Isa) -> int:
    """Where the code is that turns planes, or what they are turned to back."""
    return compiled(Turns((source, target), isa.lanes(source.itemsize)).turns(back=back), "lines", isa)


def to_pixels(planes: View, pixels: View) -> Call:
    """A call that turns planes."""
    channels, cells = planes.shape[1], math.prod(planes.shape[2:])
    return _turned(planes, planes.strides[1], pixels, pixels.strides[-1], (channels, cells), back=False)


def to_planes(pixels: View, planes: View) -> Call:
    """A call that turns them back."""
    channels, cells = planes.shape[1], math.prod(planes.shape[2:])
    return _turned(pixels, pixels.strides[-1], planes, planes.strides[1], (cells, channels), back=True)


def _turned(source: View, step: int, target: View, spacing: int, sizes: Ints, *, back: bool) -> Call:
    words = [*sizes, source.shape[0], 1]
    for array, line in ((source, step), (target, spacing)):
        words += [array.offset, array.strides[0], *[0] * (LOOPS + 1), line]
    operands = [Operand("u", array.itemsize, "dense") for array in (source, target)]
    return made((turning, back), operands, words, (source, target), ())


def turned(*arrays: View) -> tuple[list[View], int]:
    """Scratch memory for what arrays are turned to, and its bytes."""
    found, end = [], 0
    for array in arrays:
        strides, step = [0] * len(array.shape), array.itemsize
        for axis in (1, *reversed(range(2, len(array.shape))), 0):
            strides[axis] = step
            step *= array.shape[axis]
        found.append(View(SCRATCH, end, array.shape, tuple(strides), array.kind, array.itemsize))
        end += rounded(step)
    return found, end


def turning_pays(spec: PoolSpec, axis: int | None, *arrays: View) -> bool:
    """Whether to turn planes: these lie in one piece each, some have room, and pools along them are slow.

    512 channels of 14x14 by 3x3 took 120 us by rows, and 51 turned; averages of 5x5 by steps of 3 backwards 320 and 28.
    By steps of 2 lines pay from some outputs on: 28x28 by 2x2 took 31 us, and 42 turned; 14x14 31, and 25.
    """
    if axis is None or not all(map(in_planes, arrays)):
        return False
    lanes, window = host().lanes(arrays[0].itemsize), spec.window
    if 2 * arrays[0].shape[1] <= lanes or not together(*arrays):
        return False
    simple = set(window.stride) == {2} and max(window.kernel_size) <= 3 and not window.padded
    return not simple or window.out_size[-1] * arrays[0].itemsize < LONG


def in_planes(array: View) -> bool:
    """Whether an array's planes lie in one piece each, of numbers of which squares are turned."""
    step = array.itemsize
    for size, stride in zip(reversed(array.shape[2:]), reversed(array.strides[2:]), strict=True):
        if size > 1 and stride != step:
            return False
        step *= size
    return array.itemsize in (4, 8)


def together(*arrays: View) -> int:
    """The channels whose planes are turned together, 0 if there is no room for a vector of them."""
    lanes, channels = host().lanes(arrays[0].itemsize), arrays[0].shape[1]
    most = TURNED // sum(array.itemsize * math.prod(array.shape[2:]) for array in arrays)
    most = min(MANY * lanes, most // lanes * lanes)
    if most == 0:
        return 0
    return -(-channels // (-(-channels // most) * lanes)) * lanes


def turned_parts(*arrays: View) -> list[tuple[slice, slice]]:
    """Images and channels of each part."""
    batch, channels = arrays[0].shape[:2]
    return list(product(slices(batch, 1), slices(channels, together(*arrays))))
