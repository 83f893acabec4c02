"""Copies between any two orders of memory, for what tiles read or write in another order than it lies in."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numba
from numba import types

from ...window import Ints
from .isa import Isa
from .machine import copy_bytes, invoke
from .straight import address as straight
from .turn import address

FEW = 4
"""Lines up to which copying element by element beats turning squares that are mostly empty."""
SHORT, LONG = 64, 1024
"""Bytes of a row, a vector at least, that the C library does not copy faster."""


class Turner(NamedTuple):
    """The size of an element, the side of a square, the code that turns whole ones and parts, and that for rows.

    `narrow` is the code for squares whose lines have `rest` elements.
    """

    size: int
    side: int
    whole: int
    part: int
    rows: int
    rest: int
    narrow: int


@lru_cache(maxsize=64)
def turner(size: int, isa: Isa, line: int = 0) -> Turner:
    """What turns elements of that size, in lines of so many if that is known."""
    side = isa.lanes(size)
    codes = (address(size, isa, elements) for elements in (side, 0, line % side))
    whole, part, narrow = codes
    return Turner(size, side, whole, part, straight(size, isa), line % side, narrow)


TURNER = types.NamedUniTuple(types.int64, len(Turner._fields), Turner)


@numba.njit(types.void(TURNER, *[types.int64] * 9), nogil=True, cache=True, inline="always")  # type: ignore[untyped-decorator]
def turn(
    how: Turner,
    target: int,
    t_column: int,
    source: int,
    s_row: int,
    rows: int,
    columns: int,
    ahead: int,
    r: int,
    c: int,
) -> None:
    """Turn the square that begins at element (r, c)."""
    lines, elements = min(how.side, rows - r), min(how.side, columns - c)
    code = how.part
    if lines == how.side:
        if elements == how.side:
            code = how.whole
        elif elements == how.rest:
            code = how.narrow
    read, written = source + r * s_row + c * how.size, target + r * how.size + c * t_column
    invoke(code, (read, s_row, written, t_column, lines, elements, ahead))


@numba.njit(types.void(TURNER, *[types.int64] * 9), nogil=True, cache=True)  # type: ignore[untyped-decorator]
def copy_matrix(
    how: Turner,
    target: int,
    t_row: int,
    t_column: int,
    source: int,
    s_row: int,
    s_column: int,
    rows: int,
    columns: int,
    ahead: int,
) -> None:
    """Copy element (r, c) from ``source + r * s_row + c * s_column`` to ``target + r * t_row + c * t_column``.

    What lies so many bytes ahead in the source is fetched meanwhile, where rows and columns change places.
    """
    size = how.size
    if s_row == size and (s_column != size or columns == 1):
        # Rows and columns change places, so that the source's lines are rows if it has any.
        t_row, t_column, s_row, s_column, rows, columns = t_column, t_row, s_column, s_row, columns, rows
    if s_column == size and t_column == size:
        line = columns * size
        if s_row == line and t_row == line:
            copy_bytes(target, source, rows * line)
        elif SHORT <= line < LONG:
            invoke(how.rows, (source, s_row, target, t_row, rows, columns))
        else:
            for r in range(rows):
                copy_bytes(target + r * t_row, source + r * s_row, line)
    elif s_column == size and t_row == size and min(rows, columns) > FEW:
        # The inner loop goes along the lines that lie further apart, so that each is a stream of memory.
        if abs(s_row) >= abs(t_column):
            for r in range(0, rows, how.side):
                for c in range(0, columns, how.side):
                    turn(how, target, t_column, source, s_row, rows, columns, ahead, r, c)
        else:
            for c in range(0, columns, how.side):
                for r in range(0, rows, how.side):
                    turn(how, target, t_column, source, s_row, rows, columns, ahead, r, c)
    elif size == 4:
        for r in range(rows):
            for c in range(columns):
                copy_bytes(target + r * t_row + c * t_column, source + r * s_row + c * s_column, 4)
    else:
        for r in range(rows):
            for c in range(columns):
                copy_bytes(target + r * t_row + c * t_column, source + r * s_row + c * s_column, 8)


class Copy(NamedTuple):
    """Three loops around a matrix: the counts and strides of all five axes."""

    i: int
    j: int
    k: int
    rows: int
    columns: int
    to_i: int
    to_j: int
    to_k: int
    to_row: int
    to_column: int
    from_i: int
    from_j: int
    from_k: int
    from_row: int
    from_column: int


COPY = types.NamedUniTuple(types.int64, len(Copy._fields), Copy)


@numba.njit(types.void(TURNER, COPY, types.int64, types.int64), nogil=True, cache=True)  # type: ignore[untyped-decorator]
def copy_array(how: Turner, plan: Copy, target: int, source: int) -> None:
    """Copy an array of up to five axes."""
    # The matrix after the next: of weights from beyond the second-level cache that takes a sixth less time.
    step = plan.from_k if plan.k > 2 else (plan.from_j if plan.j > 2 else plan.from_i)
    for i in range(plan.i):
        for j in range(plan.j):
            for k in range(plan.k):
                to = target + i * plan.to_i + j * plan.to_j + k * plan.to_k
                origin = source + i * plan.from_i + j * plan.from_j + k * plan.from_k
                copy_matrix(
                    *(how, to, plan.to_row, plan.to_column, origin, plan.from_row, plan.from_column),
                    *(plan.rows, plan.columns, 2 * step),
                )


@lru_cache(maxsize=512)
def copy_plan(shape: Ints, to: Ints, origin: Ints, size: int) -> Copy:
    """How to copy an array of at most five axes from some strides to others.

    Axes that both arrays step over alike are one; the matrix is of those with the shortest steps on either side.

    Examples
    --------
    >>> plan = copy_plan((8, 3, 3, 16), (576, 192, 64, 4), (36, 12, 4, 288), 4)
    >>> plan.i, plan.j, plan.k, plan.rows, plan.columns
    (1, 1, 1, 16, 72)
    """
    axes: list[tuple[int, int, int]] = []
    for count, t, s in sorted(zip(shape, to, origin, strict=True), key=lambda axis: (-abs(axis[1]), -abs(axis[2]))):
        if count == 1:
            continue
        if axes and axes[-1][1:] == (count * t, count * s):
            axes[-1] = (axes[-1][0] * count, t, s)
        else:
            axes.append((count, t, s))
    # The lines of the source and of the target, or else the longest axes.
    axes.sort(key=lambda axis: (axis[2] == size, axis[1] == size, axis[0]))
    axes = [(1, size, size)] * (5 - len(axes)) + axes
    # An axis of one element must not look like a line.
    counts, targets, sources = zip(*axes, strict=True)
    return Copy(*counts, *targets, *sources)
