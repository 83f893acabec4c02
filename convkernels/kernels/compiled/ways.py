"""How a correlation had better go: what vectors hold, what the depth goes over, and what is copied for that.

                 vectors of channels                       vectors of pixels
    A            the source, a row for each output         w, a row for each output channel
    B            w, whose columns lie next to each other   the source, whose pixels lie next to each other
    outputs      as they lie in NHWC                       as they lie in NCHW

Vectors of pixels are for planes whose channels would have to be turned, and for channels too few to fill vectors.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import NamedTuple

from .axes import PAGE, Axes, Axis, Stretch, direction, pixel_channels
from .filters import LATENCY
from .isa import Isa
from .operands import Memory, Problem, in_one_line

FEW_CHANNELS = 32
"""Input channels below which it pays to go over the taps of a row together with them."""
APART = 64
"""Output channels up to which copying what they read takes more than a tenth of the time."""
TURNING, COPYING = 12, 4
"""Multiply-adds that take as long as turning, or copying, a number of the source or of the outputs."""
BETWEEN = 1.08
"""What vectors of pixels cost more that begin between two lines of the cache, as they do for most taps."""
PACKING = 16
"""The same for a number of the weights."""


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
    """The way, and the axes and strides to go by: pixels in vectors may be one line."""
    channels = Way(walk(problem, every, memory))
    line = in_one_line(every[0], memory, problem.size) if len(every) == 1 else None
    axes, lying = line or (every[0], memory)
    window = axes[2]
    dense = direction(window, problem.taps[2]) != 0 and problem.channels < len(window.taps)
    pixels = Way(Walk.TAPS if dense else Walk.CHANNELS, pixels=True)
    if not may_hold_pixels(problem, every):
        return channels, every, memory
    if cost(problem, axes, lying, pixels, isa) < cost(problem, every[0], memory, channels, isa):
        return pixels, (axes,) if line else every, lying
    return channels, every, memory


def may_hold_pixels(problem: Problem, every: tuple[Axes, ...]) -> bool:
    """Whether outputs next to each other read cells next to each other, and w is small or read but once a block."""
    few = problem.columns <= APART or problem.taps == (1, 1, 1)
    reached = all(axis.taps for axes in every for axis in axes)
    return few and reached and not any(axes[2].rests or axes[2].block.step > 1 for axes in every)


def cost(problem: Problem, axes: Axes, memory: Memory, way: Way, isa: Isa) -> float:
    """What a multiply-add of a correlation costs, of a full vector's.

    The batch counts only where either way sums are in the same order.
    """
    lanes, taps = isa.lanes(problem.size), math.prod(len(axis.taps) for axis in axes)
    many, rows = (axes[2].outputs, problem.columns) if way.pixels else (problem.columns, axes[2].outputs)
    vectors = -(-many // lanes)
    filled = vectors * lanes / many * max(1, LATENCY / (vectors * rows))
    if way.pixels and taps > 1:
        filled *= BETWEEN
    read = memory.x.channel if way.inner else memory.x.w
    reading = 0 if lies(axes, problem, memory, way) else COPYING if read == problem.size else TURNING
    writing = 0 if stored(problem, memory, way) else TURNING
    outputs = problem.batch * math.prod(axis.outputs for axis in axes)
    packing = PACKING / max(1, outputs) if taps == 1 and not way.pixels else 0
    return filled + reading / (problem.columns * taps) + writing / (problem.channels * taps) + packing


def walk(problem: Problem, every: tuple[Axes, ...], memory: Memory) -> Walk:
    """What the depth had better go over where vectors hold channels."""
    axes = every[0]
    if len(every) > 1 or axes[2].rests or problem.channels >= FEW_CHANNELS or not direction(axes[2], problem.taps[2]):
        return Walk.CHANNELS
    if problem.channels > 1 and memory.x.w == problem.size and problem.taps[2] > 1 and len(axes[0].taps) == 1:
        return Walk.TAPS
    near = memory.x.w == problem.channels * problem.size
    return Walk.PIXELS if near or not lies(axes, problem, memory, Way(Walk.CHANNELS)) else Walk.CHANNELS


def lies(axes: Axes, problem: Problem, memory: Memory, way: Way) -> bool:
    """Whether the source is read where it lies, or not at all."""
    d, h, w = axes
    if not all(axis.taps for axis in axes):
        return True
    if not d.inside or not (h.inside or len(d.taps) == 1):  # what lies outside along h is left out by `spans`
        return False
    if way.pixels:
        return w.inside and w.step == 1 and (memory.x.w == problem.size or w.outputs == 1)
    innermost = memory.x.channel == problem.size or problem.channels == 1
    # Pixels in one set of the cache had better be copied if they are read more than once.
    innermost = innermost and (w.step * memory.x.w % PAGE > 0 or w.outputs == 1 or problem.columns < APART)
    # What lies outside along w is left out where there are stretches.
    left_out = not w.rests and len(stretches_of(w, way)) > 1
    return (innermost or way.along is Walk.TAPS) and (w.inside or left_out)


def stored(problem: Problem, memory: Memory, way: Way) -> bool:
    """Whether tiles write the outputs where they belong."""
    if way.pixels:
        return memory.y.w == problem.size
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
