"""Weights as tiles read them: rows of as many output channels as a tile has, where they lie or copied into panels."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np

from ...layout import Array
from ...window import Ints
from .amounts import padded_taps
from .axes import PAGE, Axes, contiguous
from .copies import Copy, copy_plan
from .isa import Isa, paired, ways
from .scratch import LINE
from .tile import Shape, address

NOTHING = copy_plan((), (), (), 1)
PACK_SERIAL = 2**18
"""Bytes of weights below which one thread copies them."""
UNEVEN = 0.25
"""What a panel narrower than the others costs, or all of one vector each, in vectors."""
LONELY = 0.5
"""What a last panel of one vector costs besides, which reads a number for each multiply-add."""
TALL = 24
"""Rows of a tile of one vector below which that takes its time in all panels, of which there are several."""
VECTORS = {32: {3: 1.0, 4: 1.01, 6: 1.02, 2: 1.03, 1: 1.03}, 16: {2: 1.0, 3: 1.1, 1: 1.1}}
"""By the number of registers, the vectors that a row of tiles may have, and the time that a multiply-add takes then."""
SHORT = 1.03
"""How much longer that is for one or two vectors of rows that lie apart, which are fetched a line too late."""
OF_WAYS = 3 / 4
"""The part of a set of the first-level cache that rows of a tile may take."""
LATENCY = 8
"""Accumulators that a tile needs to keep the multiplier busy: two a cycle, four cycles each."""
LOW = 6
"""Rows of a tile below which vectors of B come too slowly from the second-level cache for two multiply-adds a cycle."""


class Tiling(NamedTuple):
    """The tiles of a matrix of outputs: its columns in panels, each stretch of rows in tiles of one height or two."""

    width: int
    panels: int
    last: int
    tallest: int
    starts: Array
    # The code of each tile in a whole panel, and behind these in the last one, which may be of fewer vectors.
    codes: Array
    # The stretch that each tile belongs to.
    stretches: Array


def split(size: int, most: int) -> tuple[Array, list[int]]:
    """Cut rows into tiles of nearly the same height: where each starts, and its rows.

    Examples
    --------
    >>> split(55, 14)
    (array([ 0, 14, 28, 42]), [14, 14, 14, 13])
    """
    count = -(-size // most)
    least, more = divmod(size, count)
    heights = [least + 1] * more + [least] * (count - more)
    return np.cumsum([0, *heights[:-1]]), heights


def tallest(vectors: int, row: int, isa: Isa) -> int:
    """The most rows of a tile, from a row to the next of which it is so many bytes in what is read.

    Rows a multiple of a page apart share a set of the first-level cache, which holds few lines.
    """
    return min(isa.rows(vectors), int(OF_WAYS * ways()) * (PAGE // math.gcd(row, PAGE)))


@lru_cache(maxsize=512)
def vectors_for(
    rows: int, columns: int, itemsize: int, isa: Isa, row: int = 1, *, apart: bool = False, threads: int = 1
) -> int:
    """The vectors in a row of tiles: many accumulators, no narrow panels, no short lines of a B that lies apart.

    Where so many threads share the panels, what counts is the busiest one's.
    """
    whole, times = -(-columns // isa.lanes(itemsize)), VECTORS[isa.registers]
    low = LOW if paired(isa) else LOW / 2

    def cost(vectors: int) -> float:
        height = -(-rows // -(-rows // tallest(vectors, row, isa)))
        uneven = whole % vectors > 0 or vectors < min(2, whole)
        each = times[vectors] * (SHORT if apart and vectors < 3 else 1)
        lonely = LONELY if whole % vectors == 1 < vectors else 0
        least = TALL if vectors == 1 < whole else low
        busiest = min(whole, -(-whole // (vectors * threads)) * vectors)
        return busiest * each * max(1, LATENCY / (height * vectors), least / height) + UNEVEN * uneven + lonely

    return min(times, key=cost)


def ends(width: int, last: int, itemsize: int, isa: Isa) -> tuple[Shape, Shape]:
    """A row of a panel so many elements wide, and of the last one."""
    lanes = isa.lanes(itemsize)
    whole, short = (Shape(1, -(-count // lanes), itemsize, count % lanes > 0) for count in (width, last))
    return whole, short


@lru_cache(maxsize=512)
def tiling(stretches: Ints, columns: int, vectors: int, itemsize: int, isa: Isa, row: int = 1) -> Tiling:
    """Cut a matrix of outputs, whose rows lie in stretches, into tiles of so many vectors."""
    width = vectors * isa.lanes(itemsize)
    panels = -(-columns // width)
    tiles = [split(rows, tallest(vectors, row, isa)) for rows in stretches]
    heights = [height for _, each in tiles for height in each]
    last = columns - (panels - 1) * width
    rows = ends(width, last, itemsize, isa)
    codes = [address(replace(row, rows=height), isa) for row in rows for height in heights]
    return Tiling(
        *(width, panels, last, max(heights)),
        *(np.cumsum([0, *heights[:-1]]), np.array(codes, np.int64)),
        np.repeat(np.arange(len(stretches)), [len(each) for _, each in tiles]),
    )


def padded(rows: list[Array]) -> Array:
    """Rows of different lengths, filled up with zeros."""
    found = np.zeros((len(rows), max((len(row) for row in rows), default=0)), np.int64)
    for place, row in enumerate(rows):
        found[place, : len(row)] = row
    return found


class Filters(NamedTuple):
    """Where tiles read weights: the bytes of a copy, where in w to begin, and the strides in what is read.

    `inner` and `last` say how to copy a panel there; weights that are read as they lie are no bytes.
    """

    bytes: int
    start: int
    group: int
    panel: int
    row: int
    depth: int
    taps: Ints
    from_group: int
    from_panel: int
    inner: Copy
    last: Copy

    def offsets(self, axes: Axes) -> Array:
        """The byte offsets of the taps of some axes, the last axis innermost."""
        places = [[place * step for place, _ in axis.taps] for axis, step in zip(axes, self.taps, strict=False)]
        return np.array([sum(each) for each in product(*places)], np.int64)


def lying(strides: Ints, from_group: int, start: int, tile: Tiling, size: int) -> Filters:
    """The weights where they lie; `strides` are those of a column, a step of the depth, and the taps."""
    panel = tile.width * size
    return Filters(
        0, start, from_group, panel, strides[0], strides[1], strides[2:], from_group, panel, NOTHING, NOTHING
    )


def by_rows(strides: Ints, from_group: int, sizes: Ints, groups: int, tile: Tiling, size: int) -> Filters:
    """The weights of one tap, each column with its steps of the depth next to each other, in panels of some columns."""
    columns, depth = sizes[:2]
    row = depth * size
    inner, last = (copy_plan((count, depth), (row, size), strides[:2], size) for count in (tile.width, tile.last))
    panel = tile.width * row
    written = (groups * columns * row, 0, columns * row, panel, row, size, (0, 0, 0))
    return Filters(*written, from_group, tile.width * strides[0], inner, last)


def packed(
    strides: Ints,
    from_group: int,
    start: int,
    sizes: Ints,
    groups: int,
    tile: Tiling,
    size: int,
    order: Ints,
) -> Filters:
    """The weights in panels.

    Parameters
    ----------
    strides : tuple of int
        Of w: those of a column, a step of the depth, and the taps.
    from_group : int
        The stride between groups in w.
    start : int
        Where in w to begin.
    sizes : tuple of int
        The columns of a group, the depth, and the taps along each axis.
    order : tuple of int
        The axes of `sizes` in the order in which they lie in a panel, without the columns, which lie innermost.
    """
    row = min(tile.width, sizes[0])
    first, *inner_sizes = (sizes[axis] for axis in order)
    rows = padded_taps(math.prod(inner_sizes)) if order[0] == 1 else math.prod(inner_sizes)
    to = dict(zip(order, (rows * row * size, *contiguous((*inner_sizes, row), size)[:-1]), strict=True))
    panel = first * rows * row * size
    steps = (size, *(to[axis] for axis in range(1, 5)))
    inner, last = (copy_plan((count, *sizes[1:]), steps, strides, size) for count in (tile.width, tile.last))
    return Filters(
        *(
            groups * tile.panels * panel,
            start,
            tile.panels * panel,
            panel,
            steps[0],
            steps[1],
            steps[2:],
            from_group,
            tile.width * strides[0],
            inner,
            last,
        )
    )


def runs_of(strides: Ints, counts: Ints, size: int) -> tuple[Array, int, int]:
    """The lines of the cache that elements with such strides lie in, as runs of lines equally far apart.

    Returns where each run begins, the bytes from a line of it to the next, and how many these are. Of elements that
    follow each other the line that the first begins in is left out, if they go on: those before have it, too.

    Examples
    --------
    >>> runs_of((4, 400, 1200), (48, 3, 64), 4)  # 3 lines in each of 192 rows
    (array([ 60, 124, 188]), 400, 192)
    >>> runs_of((4, 192, 9216), (48, 48, 2), 4)  # 288 lines
    (array([60]), 64, 288)
    """
    along = sorted((abs(stride), count) for stride, count in zip(strides, counts, strict=True) if stride and count > 1)
    axes = [(size, 1)]
    for stride, count in along:
        step, several = axes[-1]
        if stride == step * several:
            axes[-1] = step, several * count
        else:
            axes.append((stride, count))
    following = axes[0][1]
    axes[0] = LINE, -(-following * size // LINE)
    longest = max(axes, key=lambda axis: axis[1])
    others = [range(0, stride * count, stride) for stride, count in axes if (stride, count) != longest]
    lowest = sum(min(0, stride * (count - 1)) for stride, count in zip(strides, counts, strict=True))
    first = lowest + (LINE - size if following > 1 else 0)
    return first + np.array([sum(each) for each in product(*others)], np.int64), *longest
