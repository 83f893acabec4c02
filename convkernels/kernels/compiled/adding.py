"""Adding up what pixels made of taps, where windows overlap: each result of a column is a sum of a few products.

By the axes that rows are of, a table tells the products of each result, or of each row of results: of a row with steps
between pixels, those of each remainder lie next to each other, a tap's in a run, and are added by vectors.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise, product

import numba
import numpy as np

from ...layout import Array
from ...window import Ints
from .axes import ONE, Axes, Axis
from .machine import array_in, data_of, doubles_at, entry, fixed, like, singles_at, words_at
from .parallel import SHARES

REST, RUN = 4, 3
"""The numbers of a remainder and of a run in `runs`."""


def tables_of(
    axes: Axes, pixels: Ints, step: int, places: Ints, size: int, columns: int, threads: int, *, rows: bool
) -> tuple[Array, ...]:
    """What `add_up` takes: `shares`, `terms` of results or `rows` of them, and `runs` of a row, or two empty tables.

    Pixels and places are so many bytes apart along the axes, taps are by a `step`.
    """
    *outer, w = axes
    ends, found = np.zeros(0, np.int64), np.zeros(0, np.int64)
    if rows:
        axes, (ends, found), step = (*outer, ONE), runs(w, step // size, places[2]), step * len(w.taps)
    lists = terms(axes, pixels, step, places, size)
    return shares(columns, lists[0].size, threads), *lists, ends, found


def shares(columns: int, places: int, threads: int) -> Array:
    """Pieces for threads to share: the first column of each and the one behind its last, and the same of places."""
    parts = min(columns, SHARES * threads)
    cuts = -(-SHARES * threads // parts) if threads > 1 else 1
    along = (
        [number * many // count for number in range(count + 1)] for many, count in ((columns, parts), (places, cuts))
    )
    ends = [list(pairwise(each)) for each in along]
    return np.array([(*some, *these) for some, these in product(*ends)], np.int64).ravel()


@lru_cache(maxsize=16)
def terms(axes: Axes, pixels: Ints, step: int, places: Ints, size: int) -> tuple[Array, Array, Array]:
    """Where results of a column lie, in bytes, the first of each one's terms, and where all these lie in its products.

    Examples
    --------
    >>> from convkernels.kernels.compiled.axes import Axis
    >>> axis = Axis(2, 2, ((0, -1), (1, 0), (2, 1)), 4)  # 4 results of 2 pixels with 3 taps
    >>> [each.tolist() for each in terms((ONE, ONE, axis), (0, 0, 12), 4, (0, 0, 4), 4)]
    [[0, 4, 8, 12], [0, 1, 3, 4, 5], [1, 2, 3, 4, 5]]
    """
    results, found, taps = np.zeros(1, np.int64), np.zeros((1, 2), np.int64), step // size
    for axis, pixel, place in zip(reversed(axes), reversed(pixels), reversed(places), strict=True):
        along = [
            (output * axis.step + offset, output * pixel // size + tap * taps)
            for output in range(axis.outputs)
            for tap, offset in axis.taps
            if 0 <= output * axis.step + offset < axis.size
        ]
        inner = results.size
        table = np.array(along, np.int64).reshape(-1, 1, 2) * (inner, 1) + found
        results = np.add.outer(place * np.arange(axis.size), results).ravel()
        found, taps = table.reshape(-1, 2), taps * len(axis.taps)
    found = found[np.argsort(found[:, 0], kind="stable")]
    return results, np.searchsorted(found[:, 0], np.arange(results.size + 1)), np.ascontiguousarray(found[:, 1])


def runs(axis: Axis, step: int, place: int) -> tuple[Array, Array]:
    """What is added to the results of a row, by remainders of the step between pixels.

    Of each remainder, how many results there are, the byte that the first lies at, how far it is to the next, and the
    number behind its last run. Of each run, the first result, where its first product lies, and how many there are.
    Taps are so many numbers apart.

    Examples
    --------
    >>> axis = Axis(2, 2, ((0, -1), (1, 0), (2, 1)), 4)  # 4 results of 2 pixels with 3 taps
    >>> [each.reshape(-1, count).tolist() for each, count in zip(runs(axis, 2, 4), (4, 3), strict=True)]
    [[[2, 0, 8, 1], [2, 4, 8, 3]], [[0, 2, 2], [0, 1, 1], [0, 4, 2]]]
    """
    ends, found = [], []
    for rest in range(min(axis.step, axis.size)):
        for tap, offset in axis.taps:
            first = offset // axis.step
            count = -(-(axis.size - rest) // axis.step)
            begin, end = max(0, -first), min(axis.outputs, count - first)
            if offset % axis.step == rest and begin < end:
                found.append((begin + first, tap * step + begin, end - begin))
        ends.append((-(-(axis.size - rest) // axis.step), rest * place, axis.step * place, len(found)))
    return np.array(ends, np.int64).ravel(), np.array(found, np.int64).ravel()


@numba.njit  # type: ignore[untyped-decorator]
def add_places(
    y: int, products: Array, bias: float, tables: tuple[Array, ...], low: int, high: int, added: int
) -> None:
    """Add up some results, the first of them to what is there."""
    results, starts, terms = tables
    for place in range(low, high):
        result = like(products, y + results[place], 1)
        total = result[0] if place < added else bias
        for term in range(starts[place], starts[place + 1]):
            total += products[terms[term]]
        result[0] = total


@numba.njit  # type: ignore[untyped-decorator]
def add_rows(
    y: int,
    products: Array,
    bias: float,
    tables: tuple[Array, ...],
    low: int,
    high: int,
    added: int,
    rests: Array,
    runs: Array,
    sums: Array,
) -> None:
    """Add up some rows of results, the first of them to what is there."""
    results, starts, terms = tables
    for row in range(low, high):
        first = 0
        for rest in range(rests.size // REST):
            count, begin, step, behind = fixed(rests[REST * rest :], REST)
            to = y + results[row] + begin
            for place in range(count):
                sums[place] = like(products, to + place * step, 1)[0] if row < added else bias
            for term in range(starts[row], starts[row + 1]):
                for run in range(first, behind):
                    place, start, size = fixed(runs[RUN * run :], RUN)
                    some, more = sums[place : place + size], products[terms[term] + start : terms[term] + start + size]
                    for n in range(size):
                        some[n] += more[n]
            for place in range(count):
                like(products, to + place * step, 1)[0] = sums[place]
            first = behind


@numba.njit  # type: ignore[untyped-decorator]
def add_columns(
    y: int,
    products: Array,
    bias: Array,
    tables: tuple[Array, ...],
    rests: Array,
    runs: Array,
    sums: Array,
    piece: tuple[int, ...],
    added: int,
    y_column: int,
    column_step: int,
) -> None:
    """Add up a piece."""
    first, behind, low, high = piece
    for column in range(first, behind):
        to, some = y + column * y_column, products[column * column_step :]
        if rests.size:
            add_rows(to, some, bias[column], tables, low, high, added, rests, runs, sums)
        else:
            add_places(to, some, bias[column], tables, low, high, added)


@entry
def add_up(words: int, begin: int, end: int, unused: int) -> None:
    """Add up some pieces.

    The arguments are the address of a plan, by their ``id`` the products, the bias or zeros, and the results, the
    image, and its place among those of the products. The plan has the `tables_of` it. Then there are the size of an
    element, the columns, the strides of products along columns, in numbers, and of results along columns and images,
    how many places are added to what is there, where in the results to begin, how many products there are, and the
    stride of these along images.
    """
    arrays = words_at(words, 6)
    given = words_at(arrays[0], 21)
    pieces, tables = array_in(given, 0), (array_in(given, 1), array_in(given, 2), array_in(given, 3))
    rests, runs, (size, columns, step) = array_in(given, 4), array_in(given, 5), fixed(given[12:], 3)
    y_column, y_image, added, origin, count, image = fixed(given[15:], 6)
    p, b = data_of(arrays[1]) + arrays[5] * image, data_of(arrays[2])
    y, longest = data_of(arrays[3]) + arrays[4] * y_image + origin, rests[0] if rests.size else 0
    for place in range(begin, end):
        piece = fixed(pieces[4 * place :], 4)
        if size == 4:
            singles, biases, sums = singles_at(p, count), singles_at(b, columns), np.empty(longest, np.float32)
            add_columns(y, singles, biases, tables, rests, runs, sums, piece, added, y_column, step)
        else:
            doubles, others, wide = doubles_at(p, count), doubles_at(b, columns), np.empty(longest, np.float64)
            add_columns(y, doubles, others, tables, rests, runs, wide, piece, added, y_column, step)
