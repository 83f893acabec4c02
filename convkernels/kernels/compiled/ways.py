"""How a correlation had better go: what vectors hold, what the depth goes over, and what is copied for that.

Vectors of pixels are for planes, as in NCHW, whose channels would have to be turned, and for output channels too few to
fill vectors: gradients by pictures, groups of a few.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import NamedTuple

from .axes import APART, FEW_CHANNELS, PAGE, Axes, Axis, Stretch, direction, pixel_channels, rests_apart
from .filters import LATENCY
from .geometry import Array5
from .isa import Isa
from .operands import Memory, Problem, in_one_line

COPYING, TURNING, SCATTERING, PACKING = 4, 18, 36, 16
"""Multiply-adds of vectors of 16 `LANES` that take as long as copying a number as it lies, into another order, or apart
from the next, and one of the weights.
"""
LANES = 16
BETWEEN = 1.08
"""What several vectors of pixels cost more that begin between two lines of the cache, as they do for most taps."""


class Walk(Enum):
    """What a tile's depth goes over; what is left of channels and taps are the tile's taps."""

    CHANNELS = "channels"
    # The taps of the last axis, one after the other with their channels: long sums where channels are few.
    PIXELS = "pixels"
    # The taps of the last axis in one channel, where pixels lie innermost and turning few channels costs too much.
    TAPS = "taps"


class Way(NamedTuple):
    """What the depth goes over, and whether vectors hold pixels."""

    along: Walk
    pixels: bool = False

    @property
    def inner(self) -> bool:
        """Whether blocks have their channels innermost."""
        return not self.pixels and self.along is not Walk.TAPS


def choose(problem: Problem, every: tuple[Axes, ...], memory: Memory, isa: Isa) -> tuple[Way, tuple[Axes, ...], Memory]:
    """The way, and the axes and strides to go by: for vectors of pixels these may be one line, or remainders apart."""
    seen = in_order(problem, every, memory)
    channels, apart = Way(walk(problem, every, memory, seen)), rests_apart(every)
    few = problem.columns <= APART or problem.taps == (1, 1, 1)
    reached = problem.batch and all(axis.taps and axis.outputs for axes in apart for axis in axes)
    # Outputs next to each other have to read cells next to each other.
    if not (few and reached) or any(axes[2].block.step > 1 for axes in apart):
        return channels, every, memory
    line = in_one_line(apart[0], memory, problem.size) if len(apart) == 1 else None
    apart, lying = line or (apart, memory)
    last = apart[0][2]
    # By a single tap sums are in the same order either way.
    here, there = (memory, lying) if problem.taps == (1, 1, 1) else (seen, seen)
    dense = len(apart) == 1 and direction(last, problem.taps[2]) != 0 and problem.channels < len(last.taps)
    pixels = Way(Walk.TAPS if dense else Walk.CHANNELS, pixels=True)
    if cost(problem, apart, there, pixels, isa) < cost(problem, every, here, channels, isa):
        return pixels, apart, lying
    return channels, every, memory


def in_order(problem: Problem, every: tuple[Axes, ...], memory: Memory) -> Memory:
    """How arrays would lie without gaps, by the order of their channels and pixels alone.

    The way decides the order of sums, which must not depend on the batch, and with images innermost all strides do.
    """
    last = every[0][2]

    def dense(array: Array5, channels: int, pixels: int) -> Array5:
        # Strides of an axis of one cell say nothing.
        if channels == 1 or (pixels > 1 and abs(array.w) < abs(array.channel)):
            return array._replace(w=problem.size, channel=pixels * problem.size)
        return array._replace(w=channels * problem.size, channel=problem.size)

    x = dense(memory.x, problem.groups * problem.channels, last.size)
    return memory._replace(x=x, y=dense(memory.y, problem.groups * problem.columns, last.places))


def cost(problem: Problem, every: tuple[Axes, ...], memory: Memory, way: Way, isa: Isa) -> float:
    """What a multiply-add of some correlations costs, of a full vector's.

    The batch counts only for a single tap, by which sums are in the same order either way.
    """
    lanes, total, sums = isa.lanes(problem.size), 0.0, 0
    for axes in every:
        taps, outputs = (math.prod(counts) for counts in zip(*((len(a.taps), a.outputs) for a in axes), strict=True))
        many, rows = (axes[2].outputs, problem.columns) if way.pixels else (problem.columns, axes[2].outputs)
        vectors = -(-many // lanes)
        filled = vectors * lanes / many * max(1, LATENCY / (vectors * rows))
        if way.pixels and taps > 1 and vectors > 1:
            filled *= BETWEEN
        turning = TURNING * -(-axes[2].outputs // lanes) * lanes / axes[2].outputs  # squares at the ends of rows, too
        read = memory.x.channel if way.inner else memory.x.w
        reading = 0 if lies(axes, problem, memory, way) else COPYING if read == problem.size else turning
        writing = 0 if stored(problem, axes, memory, way) else turning * axes[2].turns
        if way.pixels and axes[2].stride > 1:
            writing = SCATTERING
        rearranged = problem.taps == (1, 1, 1) and not way.pixels and memory.w[0] != problem.size
        packing = PACKING / (problem.batch * outputs) if rearranged else 0
        moved = reading / (problem.columns * taps) + writing / (problem.channels * taps) + packing
        total += (filled + moved * lanes / LANES) * outputs * taps
        sums += outputs * taps
    return total / sums


def walk(problem: Problem, every: tuple[Axes, ...], memory: Memory, seen: Memory) -> Walk:
    """What the depth had better go over where vectors hold channels; over channels and pixels, sums are alike."""
    axes = every[0]
    if len(every) > 1 or axes[2].rests or problem.channels >= FEW_CHANNELS or not direction(axes[2], problem.taps[2]):
        return Walk.CHANNELS
    if problem.channels > 1 and seen.x.w == problem.size and problem.taps[2] > 1 and len(axes[0].taps) == 1:
        return Walk.TAPS
    near = memory.x.w == problem.channels * problem.size
    return Walk.PIXELS if near or not lies(axes, problem, memory, Way(Walk.CHANNELS)) else Walk.CHANNELS


def lies(axes: Axes, problem: Problem, memory: Memory, way: Way) -> bool:
    """Whether the source is read where it lies, or not at all."""
    w = axes[2]  # what lies outside along the other two is left out
    if not all(axis.taps for axis in axes):
        return True
    if way.pixels:
        return w.inside and w.step == 1 and (memory.x.w == problem.size or w.outputs == 1)
    innermost = memory.x.channel == problem.size or problem.channels == 1
    # Pixels in one set of the cache had better be copied if they are read more than once.
    innermost = innermost and (w.step * memory.x.w % PAGE > 0 or w.outputs == 1 or problem.columns < APART)
    # What lies outside along w is left out where there are stretches.
    left_out = not w.rests and len(stretches_of(w, way)) > 1
    return (innermost or way.along is Walk.TAPS) and (w.inside or left_out)


def stored(problem: Problem, axes: Axes, memory: Memory, way: Way) -> bool:
    """Whether tiles write the outputs where they belong."""
    if way.pixels:
        return memory.y.w * axes[2].stride == problem.size
    return memory.y.channel == problem.size or problem.columns == 1


def row_bytes(axes: Axes, problem: Problem, memory: Memory, way: Way) -> int:
    """How far apart the rows of the source are that outputs next to each other read."""
    if lies(axes, problem, memory, way):
        return axes[2].step * memory.x.w
    channels = pixel_channels(problem.channels, problem.size) if way.inner else 1
    return axes[2].block.step * problem.size * channels


def stretches_of(axis: Axis, way: Way) -> tuple[Stretch, ...]:
    """The stretches of the last axis; it is whole where the depth goes over its taps, or vectors hold its pixels."""
    whole = way.pixels or way.along is not Walk.CHANNELS
    return (Stretch(axis.outputs, axis.taps),) if whole else axis.stretches
