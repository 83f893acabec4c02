"""What the NumPy norms and their gradients share: blocks of data, their sums by BLAS, and their scaling.

Blocks are in the type of the data, sums in float64. A block is far larger than the second-level cache: NumPy's passes
are hardly slower from the third level, and a block costs some 40 calls.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property, lru_cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from ..layout import Array
from ..norm_spec import NormSpec
from ..recycling import empty
from ..views import slices
from ..window import Ints, Tile

TARGET = 8 * 2**20
"""Bytes of a block: with 2 MiB, arrays of 6 MiB take a quarter longer, and arrays beyond the cache as long."""
COPIES = 8
"""Blocks of scratch at most: two to work in, data cast, coefficients repeated and in float64."""
RUN = 1024
"""Cells that a loop should go over at a time, and of which BLAS adds up no more in float32 than it must."""
SCALARS = 256
"""Cells that share one coefficient, from which on repeating it does not pay."""
BUFFER = 2048
"""Cells of NumPy's buffer where it repeats coefficients itself: from 1024 to 4096 it took as long."""
ROW = 512
"""Cells that einsum should go over at a time."""
FEW = 4
"""Rows of a product, with which BLAS takes half the time for each that it takes for one."""
DOT = 64
"""Cells in a row, from which on BLAS takes their dot products faster than einsum."""
NEAR = 2.0
"""Deviations from zero up to which a mean need not be taken off first: the sums then cancel at most 5 times themselves.

In float32 the variance is right to 3e-6 at 2 deviations, and to 1e-5 at 4.
"""
LEAST_EPS = 2**-64
"""An eps from which on it does not matter that squares below 1e-38 vanish in float32."""


class Group(NamedTuple):
    """Some families of cells that share statistics: the place of the statistics, and the data's in blocks."""

    place: Tile
    parts: list[Tile]


@lru_cache(maxsize=512)
def groups(shape: Ints, reduced: Ints, cells: int) -> list[Group]:
    """Cut data in memory order into blocks of so many cells, each axis either summed over or not; () is everything.

    The axes that are not are cut first, as long as runs of memory stay long: a family in one block is read once.
    """
    if 0 < math.prod(shape) <= cells:
        return [Group((), [()])]
    sizes = [max(1, size) for size in shape]
    for least, axes in ((RUN, [axis for axis in range(len(shape)) if axis not in reduced]), (1, range(len(shape)))):
        for axis in axes:
            inner = math.prod(sizes[axis + 1 :])
            while sizes[axis] > 1 and math.prod(sizes) > cells and -(-sizes[axis] // 2) * inner >= least:
                sizes[axis] = -(-sizes[axis] // 2)
    cuts = [slices(size, step) for size, step in zip(shape, sizes, strict=True)]
    whole = [slice(None)]
    kept = product(*(whole if axis in reduced else cut for axis, cut in enumerate(cuts)))
    summed = list(product(*(cut if axis in reduced else whole for axis, cut in enumerate(cuts))))
    return [
        Group(
            place,
            [
                tuple(b if axis in reduced else a for axis, (a, b) in enumerate(zip(place, part, strict=True)))
                for part in summed
            ],
        )
        for place in kept
    ]


class Summation(NamedTuple):
    """How blocks are summed: by BLAS over `length` rows of `columns`, then the rest, which is little, in float64.

    What BLAS leaves has the shape `left`. The rest goes step by step, each over the middle one of three axes.
    """

    lead: Ints
    length: int
    columns: int
    left: Ints
    rest: tuple[Ints, ...]


@lru_cache(maxsize=512)
def summation(shape: Ints, total: Ints) -> Summation:
    """Plan the sum of a block over the axes where `total` has one.

    Of the longest run of such axes, as many of the last as make RUN cells. If there are few cells behind it, some of
    the run's stand beside each other in a row. Runs that make no multiple of FEW rows of a sample are cut so that they
    do. One product may go over several axes before the run, but not over the first, which may be the batch: no sample's
    sum may depend on how many there are.
    """
    axes = [axis for axis, size in enumerate(total) if size == 1 and (axis > 0 or shape[0] > 1)]
    runs = [(first, last) for first in axes for last in axes if all(axis in axes for axis in range(first, last + 1))]

    def use(run: tuple[int, int]) -> int:
        """The cells of a run; short rows, each of which is a sum, are slow."""
        length = math.prod(shape[run[0] : run[1] + 1])
        return length // 4 if length < DOT and math.prod(shape[run[1] + 1 :]) == 1 else length

    first, last = max(runs, key=use, default=(0, -1))
    start = max(first, 1)
    run = math.prod(shape[start : last + 1])
    while first < last and math.prod(shape[first + 1 : last + 1]) >= RUN:
        first += 1
    length, columns = math.prod(shape[first : last + 1]), math.prod(shape[last + 1 :])
    lead, side = (shape[0], math.prod(shape[1:first])) if first else (), 1
    if columns > 1:
        side = next((side for side in range(1, length) if length % side == 0 and side * columns >= ROW), length)
        columns *= side
    elif lead and lead[1] % FEW:
        even = [side for side in range(FEW, run // RUN + 1, FEW) if run % side == 0]
        if even or (first == 1 and run % FEW == 0):
            side = max(even, default=FEW)
            first, length, lead = start, run, (shape[0], math.prod(shape[1:start]) * side)
    part = tuple(1 if first <= axis <= last else size for axis, size in enumerate(shape))
    if last >= first:
        part = (*part[:first], side, *part[first + 1 :])
    rest: list[Ints] = []
    for axis in axes:
        if part[axis] > 1:
            before, behind = math.prod(part[:axis]), math.prod(part[axis + 1 :])
            if rest and rest[-1][2] == part[axis] * behind:
                rest[-1] = (before, rest[-1][1] * part[axis], behind)  # neighbours, summed together
            else:
                rest.append((before, part[axis], behind))
            part = (*part[:axis], 1, *part[axis + 1 :])
    return Summation(lead, length // side, columns, lead if columns == 1 else (*lead, columns), tuple(rest))


@lru_cache(maxsize=512)
def spread(small: Ints, shape: Ints) -> Ints:
    """The shape to which a coefficient with axes of one is repeated, so that loops over it are long."""
    scalars = math.prod(shape[max((axis + 1 for axis, size in enumerate(small) if size > 1), default=0) :])
    if scalars >= min(SCALARS, math.prod(shape)):
        return small
    sizes, length = list(small), 1
    for axis in reversed(range(len(shape))):
        if length >= RUN:
            break
        sizes[axis] = shape[axis]
        length *= shape[axis]
    return tuple(sizes)


@contextmanager
def arithmetic(wider: bool = False) -> Iterator[None]:
    """NumPy's settings for a norm: with a wider type to try, no warnings.

    NumPy repeats a coefficient into a buffer wherever the loop over the cells that share it is shorter than the buffer,
    8192 cells, and that takes as long again as the arithmetic. So the buffer is made small. Those in which it casts the
    operands of a step then are of no account either, as scratch memory.
    """
    with np.errstate(over="ignore", invalid="ignore") if wider else np.errstate():  # restores the size of the buffer
        np.setbufsize(SCALARS)
        yield


class Scratch:
    """Two blocks to work in, if need be, and what is done with blocks."""

    def __init__(self, dtype: np.dtype[Any], cells: int) -> None:
        self.dtype, self.wide, self.cells = dtype, np.promote_types(dtype, np.float64), cells

    @cached_property
    def blocks(self) -> Array:
        """The memory of both."""
        return empty((2, self.cells), self.dtype)

    def block(self, index: int, shape: Ints) -> Array:
        """One of the blocks, in that shape."""
        return self.blocks[index, : math.prod(shape)].reshape(shape)

    def cast(self, cells: Array) -> Array:
        """Cells in the type of the blocks and contiguous along all axes but the first, a copy only if they are not.

        Over strided cells, other loops of BLAS and NumPy run, which round otherwise: how a sample is strided may depend
        on its batch.
        """
        cast = cells.astype(self.dtype, copy=False)
        return cast if is_ordered(cast) else np.ascontiguousarray(cast)

    def moments(self, cells: Array, shape: Ints, centred: bool) -> Array:
        """The sums of a block, if wanted, and of its squares, over the axes where `shape` has one; one array of all."""
        plan = summation(cells.shape, shape)
        parts = empty((1 + centred, *plan.left), self.dtype)
        if centred:
            self.added(plan, cells, parts[0, ...])
        self.multiplied(plan, cells, cells, parts[-1, ...])
        return self.total(plan, parts).reshape(len(parts), *shape)

    def sum(self, cells: Array, shape: Ints) -> Array:
        """The sums of a block over the axes where `shape` has one."""
        plan = summation(cells.shape, shape)
        part = self.added(plan, cells, np.empty(plan.left, self.dtype))
        return self.total(plan, part[None]).reshape(shape)

    def dot(self, first: Array, second: Array, shape: Ints) -> Array:
        """The sums of the products of two blocks."""
        plan = summation(first.shape, shape)
        part = self.multiplied(plan, first, second, np.empty(plan.left, self.dtype))
        return self.total(plan, part[None]).reshape(shape)

    def added(self, plan: Summation, cells: Array, out: Array) -> Array:
        """What BLAS makes of a sum."""
        ones = np.ones(plan.length, self.dtype)
        if plan.columns == 1:
            return np.matmul(cells.reshape(*plan.lead, plan.length), ones, out=out)
        return np.matmul(ones, cells.reshape(*plan.lead, plan.length, plan.columns), out=out)

    def multiplied(self, plan: Summation, first: Array, second: Array, out: Array) -> Array:
        """What BLAS or einsum makes of a sum of products."""
        rows = (*plan.lead, plan.length) if plan.columns == 1 else (*plan.lead, plan.length, plan.columns)
        pair = first.reshape(rows), second.reshape(rows)
        if plan.columns == 1 and plan.length >= DOT:
            return np.vecdot(*pair, out=out)
        found: Array = np.einsum("...i,...i->..." if plan.columns == 1 else "...ij,...ij->...j", *pair, out=out)
        return found

    def total(self, plan: Summation, parts: Array) -> Array:
        """What BLAS has left of some sums, summed over the rest of the axes; of some neighbours faster by einsum.

        Of 8192 or more, the order in which that adds depends on how many sums there are.
        """
        for before, middle, behind in plan.rest:
            part = parts.reshape(len(parts), before, middle, behind)
            if behind == 1 and middle < RUN:
                parts = np.einsum("sijk->sik", part, dtype=self.wide)
            else:
                parts = np.add.reduce(part, 2, dtype=self.wide)
        if parts.dtype == self.wide:
            return parts
        found = empty(parts.shape, self.wide)
        np.copyto(found, parts)
        return found

    def combined(self, operation: np.ufunc, cells: Array, small: Array, out: Array) -> Array:
        """What an operation makes of cells and a coefficient with axes of one, repeated until it has long runs.

        If that is for every cell, it is in `out`, or where the cells are there, by NumPy in its buffer: an array less
        to go through.
        """
        small = small.astype(self.dtype, copy=False)
        sizes = spread(small.shape, cells.shape)
        if sizes == cells.shape != small.shape and np.may_share_memory(cells, out):
            before = np.setbufsize(BUFFER)
            operation(cells, small, out=out)
            np.setbufsize(before)
            return out
        if sizes != small.shape:
            repeats = out if sizes == cells.shape else empty(sizes, self.dtype)
            np.copyto(repeats, small)
            small = repeats
        operation(cells, small, out=out)
        return out

    def off_centre(self, cells: Array, centre: Array | None, into: Array | None = None) -> Array:
        """Cells less a centre, in block 0 or another place, or as they are."""
        if centre is None:
            return self.cast(cells)
        target = self.block(0, cells.shape) if into is None else into
        return self.combined(np.subtract, cells, centre, target)

    def writes(self, out: Array, where: Any) -> bool:
        """Whether results can be computed in `out` itself."""
        return where is True and out.dtype == self.dtype

    def scaled(self, cells: Array, scale: Array | None, shift: Array | None, out: Array, where: Any = True) -> None:
        """``out[where] = cells * scale + shift``; overwrites block 0 unless that is computed in `out`."""
        target = out if self.writes(out, where) else self.block(0, cells.shape)
        if scale is not None:
            cells = self.combined(np.multiply, cells, scale, target)
        if shift is not None:
            cells = self.combined(np.add, cells, shift, target)
        if cells is not out:
            np.copyto(out, cells, where=where, casting="same_kind")


def is_ordered(cells: Array) -> bool:
    """Whether all along the first axis are contiguous, one after the other."""
    if cells.flags.c_contiguous:
        return True
    first = cells[0]
    return bool(first.flags.c_contiguous and cells.strides[0] >= first.nbytes)


def at(small: Array, place: Tile) -> Array:
    """The part of an array with axes of one that goes with a block of the data."""
    if not place:
        return small
    return small[tuple([part if size > 1 else slice(None) for part, size in zip(place, small.shape, strict=True)])]


def part_of(where: Any, place: Tile) -> Any:
    """The part of a choice of samples, or of the choice of all, that goes with a block."""
    return where if where is True else at(where, place)


def in_memory_order(spec: NormSpec, x: Array, *arrays: Array | None) -> tuple[Ints, tuple[Any, ...]]:
    """Put the axes with the longest strides of x first, of it and the others; the places of those summed over.

    The batch stands first in any case if its samples are normalised each by itself: then all products are over one
    sample, and its result cannot depend on the others. A batch of one stands there too, so that one product may go over
    what comes behind it.
    """
    order, reduced = memory_order(x.shape, x.strides, spec.reduced)
    return reduced, tuple([None if array is None else array.transpose(order) for array in (x, *arrays)])


@lru_cache(maxsize=512)
def memory_order(shape: Ints, strides: Ints, reduced: Ints) -> tuple[Ints, Ints]:
    """The axes, the longest stride first, or after the batch, and the places of those summed over."""
    lead = () if 0 in reduced and shape[0] > 1 else (0,)
    steps = [abs(stride) if size > 1 else 0 for stride, size in zip(strides, shape, strict=True)]
    order = (*lead, *sorted(range(len(lead), len(strides)), key=lambda axis: -steps[axis]))
    return order, tuple(place for place, axis in enumerate(order) if axis in reduced)


def types(spec: NormSpec) -> tuple[np.dtype[Any], ...]:
    """What to work in: the data's type, and where that may not do, the wider type of the statistics."""
    narrow, wide = spec.compute_dtype, spec.statistics_dtype
    return (wide,) if narrow == wide or spec.eps < LEAST_EPS else (narrow, wide)


def block_cells(dtype: np.dtype[Any], limit: int) -> int:
    """How large a block may be."""
    return max(1, min(TARGET, limit // COPIES) // dtype.itemsize)


def workspace(spec: NormSpec, limit: int) -> int:
    """Scratch bytes at most, whatever the order of memory."""
    wide = types(spec)[-1]
    return min(math.prod(spec.seen_shape) or 1, block_cells(wide, limit)) * wide.itemsize * COPIES


def overflowed(spec: NormSpec, *sums: Array) -> Any:
    """The samples whose sums are not finite, with axes of one; the others' results must not depend on them."""
    finite = np.logical_and.reduce([np.isfinite(each) for each in sums])
    kept = tuple(range(0 if 0 in spec.reduced else 1, finite.ndim))
    return ~np.logical_and.reduce(finite, kept, keepdims=True)


def deviation(spec: NormSpec, var: Array) -> Array:
    """One over the standard deviation, in the type of the statistics."""
    rstd = empty(var.shape, spec.statistics_dtype)
    np.add(var, spec.eps, out=rstd)
    np.divide(1, np.sqrt(rstd, out=rstd), out=rstd)
    return rstd


def centre_of(mean: Array, rstd: Array, dtype: np.dtype[Any]) -> tuple[Array | None, Array]:
    """What to take off data with given statistics before all else, if anything, and how far the mean is from that."""
    near = np.abs(mean) * rstd <= NEAR
    if near.all():
        return None, mean
    centre = np.where(near, 0, mean).astype(dtype)
    return centre, mean - centre.astype(rstd.dtype)


def shapes_of(*arrays: Array | None) -> tuple[Any, ...]:
    """Their shapes, None for one that is not there."""
    return tuple(None if array is None else array.shape for array in arrays)


def common(*shapes: Ints | None) -> Ints:
    """The shape that arrays with axes of one broadcast to."""
    return tuple(map(max, zip(*(shape for shape in shapes if shape is not None), strict=True)))


def few_factors(shape: Ints, statistics: Ints, *coefficients: Ints | None) -> bool:
    """Whether rstd * gamma is small beside a sample, as it is unless a layer norm's gamma is as large as that."""
    factors = common(statistics, *coefficients)
    return factors == statistics or math.prod(factors[1:]) * 8 <= math.prod(shape[1:])
