"""Which way a correlation had better go, by what a multiply-add costs in each, of what one of a full vector does.

The numbers are fitted to 243 layers of real networks in NCHW, each timed in all its ways on a Sapphire Rapids core,
forward and backward, in float32 and float64: 19 of 20 take no longer than 1.03 times their best way.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from .amounts import few_pixels
from .axes import APART, FEW_CHANNELS, Axes, direction, rests_apart
from .filters import LATENCY, LOW, TALL
from .geometry import Array5
from .isa import Isa, paired
from .operands import Memory, Problem, in_one_line, window_step
from .ways import Walk, Way, far, lies, packs, stored, turned

COPYING, TURNING, SCATTERING, LOWERING = 4, 18, 36, 8
"""Multiply-adds of vectors of 64 bytes that take as long as copying a number as it lies, into another order, or apart
from the next, and one for a tap.
"""
PACKING, PACKING_TAPS = 10, 20
"""The same for one of the weights, of a single tap or of several."""
VECTOR, OF_SIZE = 64, {4: 1.0, 8: 0.75}
"""Bytes of a vector, and how much of that it is for elements of a size."""
BETWEEN, SECOND, BOTH = 1.08, 1.08, 1.25
"""What several vectors of pixels cost more that begin between two lines of the cache, as they do for most taps, those
that come from a second-level cache, for `FIRST` has no room for a panel of them, and those that do both.
"""
FIRST = 3 * 2**14
"""Bytes of a first-level cache."""
ALONE = {Walk.CHANNELS: 1.17, Walk.PIXELS: 1.17, Walk.TAPS: 1.75}
"""What a single vector of channels costs more, as a number is read for each multiply-add."""
ALONE_APART = 1.5
"""The same for one of pixels, or more in tiles that are not tall."""
RAGGED = 1.04
"""What they cost more where rows end within vectors, so that the next ones begin there."""
FAR, FAR_BYTES = 1.3, 3 * 2**18
"""What pixels cost more if each step of the depth reads weights from another line of the cache, and so many of them."""
FARTHEST = 4
"""Cells between outputs up to which copying rows of them pays."""


def choose(problem: Problem, every: tuple[Axes, ...], memory: Memory, isa: Isa) -> tuple[Way, tuple[Axes, ...], Memory]:
    """The way, and the axes and strides to go by: for vectors of pixels these may be one line, or remainders apart."""
    seen = in_order(problem, every, memory)
    # By a single tap sums are in the same order any way, so that the batch and all strides may count.
    here = memory if problem.taps == (1, 1, 1) else seen
    channels = Way(walk(problem, every, memory, seen))
    ways = [(cost(problem, every, here, channels, isa), channels, every, memory)]
    for way, axes, strides in pixel_ways(problem, every, memory, seen):
        there = strides if problem.taps == (1, 1, 1) else seen
        ways.append((cost(problem, axes, there, way, isa), way, axes, strides))
    return min(ways, key=lambda found: found[0])[1:]


def pixel_ways(
    problem: Problem, every: tuple[Axes, ...], memory: Memory, seen: Memory
) -> Iterator[tuple[Way, tuple[Axes, ...], Memory]]:
    """The ways of vectors of pixels, and what they go by."""
    apart, last = rests_apart(every), every[0][2]
    if not problem.batch or not all(axis.taps and axis.outputs for axes in apart for axis in axes):
        return
    dense = len(apart) == 1 and direction(last, problem.taps[2]) != 0 and problem.channels < len(last.taps)
    along, few = Walk.TAPS if dense else Walk.CHANNELS, problem.columns <= APART or problem.taps == (1, 1, 1)
    # Outputs next to each other have to read cells next to each other.
    if few and all(axes[2].block.step == 1 for axes in apart):
        line = in_one_line(apart[0], memory, problem.size) if len(apart) == 1 else None
        yield Way(along, pixels=True), *(line or (apart, memory))
    if len(apart) > 1 or any(axis.stride > 1 for axis in apart[0]) or last.step > FARTHEST:
        return
    if problem.taps == (1, 1, 1) and all(axis.step == 1 for axis in apart[0]):
        return  # a line as it lies
    if few and seen.y.w == problem.size:
        yield Way(along, pixels=True, lowered=True), apart, memory
    used = tuple(tuple(tap for tap, _ in axis.taps) for axis in apart[0])
    if (
        used == tuple(tuple(range(count)) for count in problem.taps)
        and few_pixels(apart[0])
        and window_step(problem, memory)
    ):
        yield Way(Walk.WINDOWS, pixels=True, lowered=True), apart, memory


def in_order(problem: Problem, every: tuple[Axes, ...], memory: Memory) -> Memory:
    """How arrays would lie without gaps, by the order of their channels and pixels alone.

    The way decides the order of sums, which must not depend on the batch, and with images innermost all strides do; nor
    on gaps between weights, of which a plan's copy has none.
    """
    last = every[0][2]

    def dense(array: Array5, channels: int, pixels: int) -> Array5:
        # Strides of an axis of one cell say nothing.
        if channels == 1 or (pixels > 1 and abs(array.w) < abs(array.channel)):
            return array._replace(h=pixels * problem.size, w=problem.size, channel=pixels * problem.size)
        row = pixels * channels * problem.size
        return array._replace(h=row, w=channels * problem.size, channel=problem.size)

    x = dense(memory.x, problem.groups * problem.channels, last.size)
    # Of weights it counts whether columns are innermost.
    counts = (problem.columns, problem.channels, *problem.taps)
    others = (abs(stride) for stride, count in zip(memory.w[1:], counts[1:], strict=True) if count > 1)
    w = (problem.size if abs(memory.w[0]) <= min(others, default=abs(memory.w[0])) else 2 * problem.size, *memory.w[1:])
    return Memory(x, w, dense(memory.y, problem.groups * problem.columns, last.places), memory.w_group)


def cost(problem: Problem, every: tuple[Axes, ...], memory: Memory, way: Way, isa: Isa) -> float:
    """What a multiply-add of some correlations costs, of a full vector's.

    The batch counts only for a single tap, by which sums are in the same order either way.
    """
    total, sums = 0.0, 0
    for axes in every:
        operations = math.prod(len(axis.taps) * axis.outputs for axis in axes)
        moved = copied(problem, axes, memory, way, isa) if operations else 0
        total += (multiplied(problem, axes, memory, way, isa) + moved) * operations
        sums += operations
    return total / max(1, sums)


def multiplied(problem: Problem, axes: Axes, memory: Memory, way: Way, isa: Isa) -> float:
    """What tiles cost: for vectors that are not full, rows that are few, and what comes late."""
    _, h, w = axes
    lanes, taps = isa.lanes(problem.size), math.prod(len(axis.taps) for axis in axes)
    line = h.outputs * w.outputs if way.lowered else w.outputs
    # Rows of outputs are together where a single tap reads them.
    many, rows = (
        (line, problem.columns) if way.pixels else (problem.columns, w.outputs if taps > 1 else h.outputs * w.outputs)
    )
    vectors = -(-many // lanes)
    cost = vectors * lanes / many * max(1, LATENCY / (vectors * rows), (LOW if paired(isa) else LOW / 2) / rows)
    panel = problem.channels * taps * min(3, vectors) * isa.vector_bytes
    if vectors == 1:
        cost *= max(ALONE_APART, TALL / rows) if way.pixels else ALONE[way.along]
    elif way.pixels and taps > 1 and way.along is not Walk.WINDOWS:
        cost *= BOTH if panel > FIRST else BETWEEN
        cost *= RAGGED if w.outputs % lanes and not way.lowered else 1
    elif way.lowered and panel > FIRST:
        cost *= SECOND
    if way.lowered:
        # Rows of outputs are in a line with those of which some taps are outside.
        cost *= h.outputs * len(h.taps) / max(1, sum(behind - first for first, behind in h.reached))
    many_bytes = problem.columns * problem.channels * problem.size >= FAR_BYTES
    if way.pixels and many_bytes and far(problem, memory) and not turned(problem, axes, memory):
        cost *= FAR
    return cost


def copied(problem: Problem, axes: Axes, memory: Memory, way: Way, isa: Isa) -> float:
    """What copying costs, by multiply-add."""
    _, h, w = axes
    lanes, taps = isa.lanes(problem.size), math.prod(len(axis.taps) for axis in axes)
    ends = -(-w.outputs // lanes) * lanes / w.outputs  # vectors, or squares, at the ends of rows, too
    if way.lowered:
        planes = len(w.taps) * (len(h.taps) if way.along is Walk.WINDOWS else min(h.step, h.span))
        reading = planes * ends * (LOWERING if memory.x.w == problem.size else TURNING)
    elif lies(axes, problem, memory, way):
        reading = 0
    else:
        reading = COPYING if (memory.x.channel if way.inner else memory.x.w) == problem.size else TURNING * ends
    writing = 0 if stored(problem, axes, memory, way) else TURNING * ends * w.turns
    if way.pixels and w.stride > 1:
        writing = SCATTERING
    packing = 0.0
    if packs(problem, memory, way):
        packing = (PACKING if taps == 1 else PACKING_TAPS) / math.prod(axis.outputs for axis in axes)
    if problem.taps == (1, 1, 1):
        packing /= max(1, problem.batch)
    moved = reading / (problem.columns * taps) + writing / (problem.channels * taps) + packing
    return moved * isa.vector_bytes / VECTOR * OF_SIZE[problem.size]


def walk(problem: Problem, every: tuple[Axes, ...], memory: Memory, seen: Memory) -> Walk:
    """What the depth had better go over where vectors hold channels; over channels and pixels, sums are alike."""
    axes = every[0]
    if len(every) > 1 or axes[2].rests or problem.channels >= FEW_CHANNELS or not direction(axes[2], problem.taps[2]):
        return Walk.CHANNELS
    if problem.channels > 1 and seen.x.w == problem.size and problem.taps[2] > 1 and len(axes[0].taps) == 1:
        return Walk.TAPS
    near = memory.x.w == problem.channels * problem.size
    return Walk.PIXELS if near or not lies(axes, problem, memory, Way(Walk.CHANNELS)) else Walk.CHANNELS
