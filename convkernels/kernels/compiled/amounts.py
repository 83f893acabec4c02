"""How much of a correlation to work on at a time: what fits caches and the limit, and gives every thread a piece."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

from .axes import APART, Axes, Axis, cut_evenly, pixel_channels
from .pictures import Picture, pictures, winograd_axes
from .scratch import LINE

BLOCK = 2**19
"""Bytes of the source and of the outputs that are worked on at a time: half of a second-level cache."""
LARGEST = 2**21
"""The same where all weights or sums are read for each block; more leave a second-level cache, and have to come again
for each panel: 8 pictures of 28x28 cells, 256 to 256 channels in steps of two, took 1.16 times as long.
"""
OVERLAPPING = 8
"""How many times that large blocks may be if most of each is read again for others."""
PANEL = 384
"""Bytes of the widest row of tiles, six vectors of 64."""
SQUARES = 3 * 2**19
"""Bytes of squares in all their forms that are worked on at a time: few would make products of few rows."""
STRIPE = 3 * 2**17
"""Bytes of the sums of a weight gradient by squares that a thread works on at a time."""
FORMS = 3 * 2**20
"""Bytes of transformed squares that are summed at a time; twice those of the sums, if that is more."""
PIECE = 2**17
"""Bytes of the input and of the gradient that a thread copies at a time."""
LEAST_SQUARES, SHARED_PIECES = 64, 16
"""The fewest squares that are, and the pieces that these are made of at least, for threads to share."""
NARROW = 512
"""Columns of all groups above which panels are enough for threads to share."""
PARTS, PARTED = 8, 2**20
"""The most parts of a sum, and the bytes that these take at most."""
LOWERED = 2**18
"""Bytes of a block of rows in one line."""
FEW_PIXELS = 256
"""Outputs of an image up to which blocks may be matrices of whole windows."""
LINES = 1024
"""Bytes for what is small or lost to alignment."""


class Amounts(NamedTuple):
    """The images, and outputs along the first two axes, that are worked on at a time, and the bytes that takes."""

    images: int
    rows: tuple[int, int]
    shared: int
    each: int

    def threads(self, wanted: int, limit: int) -> int:
        """How many threads fit into a limit, one at least."""
        return max(1, min(wanted, (limit - self.shared) // self.each))

    def bytes(self, wanted: int, limit: int) -> int:
        """What so many threads take, or as many as fit."""
        return self.shared + self.threads(wanted, limit) * self.each

    def are_all(self, batch: int, axes: Axes) -> bool:
        """Whether one block is all of a batch, along some axes."""
        return batch <= self.images and all(a.outputs <= count for a, count in zip(axes, self.rows, strict=False))


def amounts(
    axes: Axes,
    batch: int,
    groups: int,
    channels: int,
    columns: int,
    shared: int,
    size: int,
    limit: int,
    threads: int,
    block: int = BLOCK,
) -> Amounts:
    """Choose how much to work on at a time: what fits the cache and the limit, and gives every thread a piece."""
    counts = [axis.outputs for axis in axes]
    most = min(block, limit - shared)

    def needed() -> int:
        read = math.prod(axis.reach(count) for axis, count in zip(axes, counts, strict=True))
        written = counts[0] * counts[1] * axes[2].places
        return (read * pixel_channels(channels, size) + written * columns) * size

    def pieces() -> int:
        return math.prod(-(-axis.outputs // count) for axis, count in zip(axes, counts, strict=True))

    def large(axis: int) -> bool:
        # Blocks of which most is read again by their neighbours had better leave the cache.
        overlaps = axes[axis].reach(counts[axis]) > 2 * counts[axis] * axes[axis].step
        return needed() + LINES > (min(OVERLAPPING * block, limit - shared) if overlaps else most)

    for axis in range(2):
        while counts[axis] > 1 and (large(axis) or pieces() * batch * groups < threads):
            counts[axis] = -(-counts[axis] // 2)
    images = max(1, min(batch, (most - LINES) // needed())) if pieces() == 1 else 1
    if images > 1:
        blocks = -(-batch // images)
        if groups % threads:  # as many blocks for each thread
            blocks = min(batch, -(-blocks // threads) * threads)
        images = -(-batch // blocks)
    return Amounts(images, (counts[0], counts[1]), shared, images * needed() + LINES)


def padded_taps(taps: int) -> int:
    """The rows of a channel in a panel of weights, one of them unused where channels would share sets of the cache.

    A row is 64 bytes or some times that, so 16 of them put all channels into a thirtieth of the first-level cache.
    """
    return taps + 1 if taps % 8 == 0 else taps


def filter_bytes(channels: int, columns: int, taps: int, size: int) -> int:
    """What one group's weights take in panels, of which the last may be narrower than its place."""
    row = columns * size
    return (row + min(row, PANEL)) * channels * padded_taps(taps) + LINES


def members(groups: int, channels: int, columns: int, size: int) -> int:
    """How many groups are copied together: as many as have a line of the cache between them.

    Examples
    --------
    >>> members(32, 4, 4, 4), members(32, 4, 8, 8), members(3, 4, 4, 4), members(32, 64, 64, 4)
    (4, 1, 3, 1)
    """
    most = LINE // (max(channels, columns) * size)
    return next((number for number in range(min(groups, most), 1, -1) if groups % number == 0), 1)


@lru_cache(maxsize=512)
def correlation_amounts(
    axes: Axes, batch: int, groups: int, channels: int, columns: int, taps: int, size: int, limit: int, threads: int
) -> Amounts:
    """The amounts of a correlation from so many channels to so many columns, by w of so many taps."""
    # Where vectors may hold pixels, the bias of all groups is repeated along a tile.
    repeated = (groups if taps == 1 or columns <= APART or few_pixels(axes) else 1) * columns * PANEL
    shared = groups * filter_bytes(channels, columns, taps, size) + groups * columns * size + repeated
    blocks = tuple(axis.block for axis in axes)
    # All weights are read for each block: the more they are, the larger the block that pays, while a cache keeps it.
    block = max(BLOCK, min(LARGEST, filter_bytes(channels, columns, taps, size)))
    several = members(groups, channels, columns, size)
    counts = (batch, groups // several, several * channels, several * columns)
    found = amounts(blocks, *counts, shared, size, limit, threads, block)
    least, most = lowered_bytes(axes, channels, columns, taps, size)
    return found._replace(each=max(found.each, least, min(most, LOWERED, limit - shared)))


def lowered_bytes(axes: Axes, channels: int, columns: int, taps: int, size: int) -> tuple[int, int]:
    """The bytes of a panel's lowered block, and of a whole picture's; none where blocks are never lowered."""
    panel, picture = PANEL // size, axes[1].outputs * axes[2].outputs
    ways = [whole for whole, may in ((False, columns <= APART or taps == 1), (True, few_pixels(axes))) if may]
    if not ways or not all(axis.taps and axis.outputs for axis in axes):
        return 0, 0
    least, most = (
        max(lowered_cells(axes, outs_d, outputs, whole=whole) * channels + outs_d * outputs * columns for whole in ways)
        for outs_d, outputs in ((1, panel), (axes[0].outputs, picture))
    )
    return least * size + LINES, most * size + LINES


def few_pixels(axes: Axes) -> bool:
    """Whether outputs are so few that copying weights takes a good part of the time."""
    return len(axes[0].taps) == 1 and math.prod(axis.outputs for axis in axes) <= FEW_PIXELS


def lowered_cells(axes: Axes, outs_d: int, outputs: int, *, whole: bool) -> int:
    """The cells of a channel of a lowered block that is of so many outputs along d, and in a line along h and w.

    It has a line of its own for each tap along h if it is of `whole` windows.

    Examples
    --------
    >>> from convkernels.kernels.compiled.axes import ONE, Axis
    >>> axis = Axis(14, 1, ((0, -1), (1, 0), (2, 1)), 14)
    >>> lowered_cells((ONE, axis, axis), 1, 14 * 14, whole=False) == 3 * (14 + 2) * 14
    True
    """
    d, h, w = axes
    taps, more = lines_of(h, whole=whole)
    return d.reach(outs_d) * taps * len(w.taps) * (rows_of(axes, outputs) + more) * w.outputs


def lines_of(h: Axis, *, whole: bool) -> tuple[int, int]:
    """How many taps along h have lines of their own, and the rows that these read beyond those of the outputs."""
    return (len(h.taps), 0) if whole else (min(h.step, h.span), (h.span - 1) // h.step)


def rows_of(axes: Axes, outputs: int) -> int:
    """How many rows so many outputs may be of that follow each other."""
    _, h, w = axes
    return min(h.outputs, (outputs + w.outputs - 2) // w.outputs + 1)


def pieces_of(axes: Axes, channels: int, size: int) -> Axes:
    """The axes of a weight gradient, with rows that fit a block; of the input and the gradient there are so many."""
    return cut_evenly(axes, BLOCK // (channels * size))


@lru_cache(maxsize=512)
def weight_amounts(
    axes: Axes, batch: int, groups: int, channels: int, columns: int, size: int, limit: int
) -> tuple[Amounts, int]:
    """The amounts of a weight gradient, of which the sums are shared, and into how many parts to cut what it sums over.

    Parts have sums of their own, which are added in their order: threads share them where columns are few.
    """
    sums = groups * channels * columns * math.prod(len(axis.taps) for axis in axes) * size
    blocks, fixed = tuple(axis.block for axis in axes), PANEL + 2 * LINES
    # The last panel of many may be narrower than its place.
    copied = columns + PANEL // size if columns * size > PANEL else columns

    def found(parts: int, limit: int) -> Amounts:
        # All sums are read and written for each block, which had better fit a second-level cache.
        block = max(BLOCK, min(LARGEST, 2 * sums))
        return amounts(blocks, batch, 1, channels, copied, parts * sums + fixed, size, limit, 1, block)

    spare = limit - found(1, 0).bytes(1, 0)
    parts = max(1, min(PARTS, PARTED // sums, 1 + spare // (4 * sums))) if groups * columns <= NARROW else 1
    return found(parts, limit), parts


@lru_cache(maxsize=512)
def squares_amounts(
    every: tuple[Axes, ...],
    batch: int,
    groups: int,
    channels: int,
    columns: int,
    size: int,
    limit: int,
    threads: int,
) -> list[Amounts]:
    """The amounts of correlations by squares, for those that share rows; all share the memory of U."""
    row, every_picture = columns + PANEL // size, pictures(every)
    sets = {one.number: one for rows in every_picture for one in rows}
    places = sum(len(one.sources) * math.prod(axis.span for axis in one.squares) for one in sets.values())
    lost = 2 * places * (columns * size + LINE)  # between the places of each panel
    shared = groups * ((channels * places * row + columns) * size + lost) + 2 * LINES
    sizes = (batch, groups, channels, columns, size, limit, threads)
    return [winograd_amounts(rows, shared, *sizes) for rows in every_picture]


def winograd_amounts(
    rows: tuple[Picture, ...],
    shared: int,
    batch: int,
    groups: int,
    channels: int,
    columns: int,
    size: int,
    limit: int,
    threads: int,
) -> Amounts:
    """The amounts of squares, of which a thread holds V, M of one panel, and the outputs of all that share rows."""
    row, total, found = columns + PANEL // size, sum(one.axes[2].outputs for one in rows), list[Amounts]()
    for one in rows:
        squares, depth = one.squares, channels * len(one.sources)
        places = math.prod(axis.span for axis in squares)
        outputs = squares[1].step * -(-total // squares[2].outputs)
        # A panel of w, and what is lost between places and blocks.
        fixed = channels * math.prod(one.taps) * min(row, PANEL // size) * size + 4 * LINE * places + LINES
        each = places * (depth + min(row, PANEL // size)) + outputs * columns
        # All of U is read for each block: the larger it is, the larger the block that pays.
        block = max(SQUARES, depth * places * row * size // 2)
        most = amounts(squares, batch, groups, channels, each, shared + fixed, size, limit, threads, block)
        found.append(most._replace(shared=shared, each=most.each + fixed))
    images, d, h = (min(counts) for counts in zip(*((each.images, *each.rows) for each in found), strict=True))
    return Amounts(images, (d, h), shared, max(each.each for each in found))


class SquareSums(NamedTuple):
    """How much of a weight gradient by squares to work on at a time.

    Threads transform pieces, of images and rows of squares; so many pieces are a block, whose squares take `forms`
    bytes once they are transformed. Their sums take as many as said, or none where one block is all.
    """

    pieces: Amounts
    per_block: int
    forms: int
    sums: int


@lru_cache(maxsize=512)
def winograd_weight_amounts(
    axes: Axes, batch: int, groups: int, channels: int, columns: int, size: int, limit: int
) -> SquareSums:
    """The amounts of a weight gradient by squares, which decide in what order sums are added, whatever the threads."""
    squares, taps = winograd_axes(axes), math.prod(len(axis.taps) for axis in axes)
    places, cells = math.prod(axis.span for axis in squares), math.prod(axis.step for axis in squares[1:])
    copied = cells * pixel_channels(columns, size)
    found = amounts(squares, batch, groups, channels, copied, 0, size, PIECE, SHARED_PIECES, PIECE)
    counts, along = (found.images, *found.rows), (batch, *(axis.outputs for axis in squares))
    pieces = math.prod(-(-most // count) for most, count in zip(along, counts, strict=False))
    square = groups * places * (channels + columns) * size
    piece = math.prod(counts) * squares[2].outputs * square
    stripe = min(STRIPE, places * channels * min(columns, PANEL // size) * size) // places + 2 * LINE
    each = max(found.each, (places + taps) * stripe) + LINES
    spare = limit - max(each, min(SHARED_PIECES * each, limit // 4)) - square - 2 * LINES
    sums, per_block = groups * places * channels * columns * size, pieces
    # All sums are read and written for each block, unless there is but one.
    most = max(FORMS, 2 * sums)
    if pieces * piece > min(most, spare):
        least = -(-LEAST_SQUARES * square // piece)
        blocks = -(-pieces // max(1, least, min(most, spare - sums) // piece))
        per_block = -(-pieces // blocks)
    forms, kept = per_block * piece + square, sums if per_block < pieces else 0
    return SquareSums(found._replace(shared=forms + kept + 2 * LINES, each=each), per_block, forms, kept)
