"""How a correlation may go: what vectors hold, what the depth goes over, and what is copied for that.

Vectors of pixels are for planes, as in NCHW, whose channels would have to be turned, and for output channels too few to
fill vectors: gradients by pictures, groups of a few. `choice` says which is taken.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import NamedTuple

from .axes import APART, PAGE, Axes, Axis, Stretch, pixel_channels
from .operands import Memory, Problem

TURNED, TURNED_PIXELS = 2**17, 256
"""Bytes of the weights of one tap, and pixels, from which on it pays to turn weights whose columns follow each other:
for each step of the depth, tiles of pixels read a line of them, or a page, and again for each panel.
"""
NEAR = 2**15
"""Bytes of weights up to which reading a line of the cache for each of their numbers does no harm."""


class Walk(Enum):
    """What a tile's depth goes over; what is left of channels and taps are the tile's taps."""

    CHANNELS = "channels"
    # The taps of the last axis, one after the other with their channels: long sums where channels are few.
    PIXELS = "pixels"
    # The taps of the last axis in one channel, where pixels lie innermost and turning few channels costs too much.
    TAPS = "taps"
    # Channels with all taps, as weights have them, which need not be copied then.
    WINDOWS = "windows"


class Way(NamedTuple):
    """What the depth goes over, and whether vectors hold pixels."""

    along: Walk
    pixels: bool = False
    # Whether rows of outputs are one line, for which blocks are lowered.
    lowered: bool = False

    @property
    def inner(self) -> bool:
        """Whether blocks have their channels innermost."""
        return not self.pixels and self.along is not Walk.TAPS


def lies(axes: Axes, problem: Problem, memory: Memory, way: Way) -> bool:
    """Whether the source is read where it lies, or not at all."""
    w = axes[2]  # what lies outside along the other two is left out
    if not all(axis.taps for axis in axes):
        return True
    if way.lowered:
        return False
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
        rows = not way.lowered or axes[1].outputs == 1 or memory.y.h == axes[2].outputs * memory.y.w
        return rows and memory.y.w * axes[2].stride == problem.size
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


def packs(problem: Problem, memory: Memory, way: Way) -> bool:
    """Whether weights do not lie as tiles had better read them."""
    taps = math.prod(problem.taps)
    if memory.w[0] == problem.size or (way.pixels and (taps == 1 or way.along is Walk.WINDOWS)):
        return False
    return not way.pixels or problem.columns * problem.channels * taps * problem.size > NEAR


def far(problem: Problem, memory: Memory) -> bool:
    """Whether the weights of one tap are many, and their columns follow each other."""
    many = problem.columns * problem.channels * problem.size >= TURNED
    return problem.taps == (1, 1, 1) and many and memory.w[1] > memory.w[0] == problem.size


def turned(problem: Problem, axes: Axes, memory: Memory) -> bool:
    """Whether it pays to turn such weights for vectors of pixels."""
    return far(problem, memory) and math.prod(axis.outputs for axis in axes) >= TURNED_PIXELS
