"""Normalisation over blocks that stay in the cache, with the sums left to BLAS.

    mean = sum x / count        var = sum (x - mean)^2 / count        y = (x - mean) * s + beta,  s = gamma * rstd

with rstd = 1 / sqrt(var + eps). The variance is never E[x^2] - E[x]^2, which cancels. Both passes run in the data's own
type, a block at a time, and add up in float64. So that neither loses what float32 has, the second pass takes off the
mean as rounded to that type, c, and corrects by what this leaves (Chan, Golub and LeVeque, "Algorithms for computing
the sample variance", 1983): with d = x - c,

    r = sum d / count           mean = c + r           var = sum d^2 / count - r^2           y = d * s + (beta - r * s)

Near c the difference d is exact (Sterbenz), and r is a rounding error, so r^2 cancels nothing. Where float32 overflows,
as with the squares of 1e20, everything is done again in float64.

The gradient, with xh = (x - mean) * rstd and g = dy * gamma, is

    dx = rstd * (g - mean(g) - xh * mean(g * xh))        dgamma = sum dy * xh        dbeta = sum dy

(Ioffe and Szegedy, 2015), the means over the cells that share statistics; an rms norm (Zhang and Sennrich, 2019) has no
mean, and no mean(g).
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from ..config import Resources
from ..layout import Array
from ..norm_spec import NormSpec
from ..views import slices
from ..window import Ints, Tile

CLAIMS = frozenset({"batch_invariant", "nan_strict", "bounded"})
TARGET = 2 * 2**20
"""Bytes of a block: 1 MiB was 20 % slower on arrays beyond the cache, 256 KiB 3 times, and 4 MiB no faster."""
COPIES = 8
"""Blocks of scratch at most: three to work in, data cast, ones, coefficients repeated and in float64."""
RUN = 1024
"""Cells that an elementwise loop should go over at a time; each loop costs NumPy the time of some 200 cells."""
SCALARS = 128
"""Cells that share one coefficient, from which on repeating it does not pay."""
TINY = 2**-64
"""An eps from which on it does not matter that squares below 1e-38 vanish in float32."""


class Group(NamedTuple):
    """Some families of cells that share statistics: the place of the statistics, and the data's in blocks."""

    place: Tile
    parts: list[Tile]


@lru_cache(maxsize=512)
def groups(shape: Ints, reduced: Ints, cells: int) -> list[Group]:
    """Cut data in memory order into blocks of so many cells, each axis either summed over or not.

    The axes that are not are cut first, as long as runs of memory stay long: a family in one block is read once.
    """
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
    """How blocks are summed: one product with ones over the longest run of axes, then the rest, which is little."""

    lead: Ints
    length: int
    tail: Ints
    rest: Ints
    shape: Ints


@lru_cache(maxsize=512)
def summation(shape: Ints, total: Ints) -> Summation:
    """Plan the sum of a block over the axes where `total` has one."""
    axes = [axis for axis, size in enumerate(total) if size == 1]
    runs = [(first, last) for first in axes for last in axes if all(axis in axes for axis in range(first, last + 1))]
    first, last = max(runs, key=lambda run: math.prod(shape[run[0] : run[1] + 1]), default=(0, -1))
    rest = tuple(axis for axis in axes if not first <= axis <= last)
    run = range(first, last + 1)
    part = tuple(1 if axis in run else size for axis, size in enumerate(shape))
    return Summation(shape[:first], math.prod(shape[first : last + 1]), shape[last + 1 :], rest, part)


class Scratch:
    """Three blocks to work in, and ones to sum with."""

    def __init__(self, dtype: np.dtype[Any], cells: int) -> None:
        self.dtype = dtype
        self.blocks = np.empty((3, cells), dtype)
        self.ones = np.ones(cells, dtype)

    def block(self, index: int, shape: Ints) -> Array:
        """One of the blocks, in that shape."""
        return self.blocks[index, : math.prod(shape)].reshape(shape)

    def add_sum(self, cells: Array, total: Array) -> None:
        """Add the sums of a block over the axes of one of `total`."""
        plan = summation(cells.shape, total.shape)
        ones = self.ones[: plan.length]
        if math.prod(plan.tail) == 1:
            part = np.vecdot(cells.reshape(*plan.lead, plan.length), ones)
        else:
            part = ones @ cells.reshape(*plan.lead, plan.length, math.prod(plan.tail))
        total += np.add.reduce(part.reshape(plan.shape), plan.rest, dtype=total.dtype, keepdims=True)

    def add_dot(self, first: Array, second: Array, total: Array) -> None:
        """Add the sums of the products of two blocks; overwrites block 1."""
        plan = summation(first.shape, total.shape)
        if math.prod(plan.tail) > 1:
            self.add_sum(np.multiply(first, second, out=self.block(1, first.shape)), total)
            return
        rows = (*plan.lead, plan.length)
        part = np.vecdot(first.reshape(rows), second.reshape(rows)).reshape(plan.shape)
        total += np.add.reduce(part, plan.rest, dtype=total.dtype, keepdims=True)

    def repeated(self, small: Array, shape: Ints) -> Array:
        """A coefficient with axes of one, in the type of the data, and repeated until it has long runs."""
        scalars = 1
        for size, repeats in zip(reversed(small.shape), reversed(shape), strict=True):
            if size > 1:
                break
            scalars *= repeats
        if scalars >= min(SCALARS, math.prod(shape)):
            return small.astype(self.dtype)
        sizes, length = list(small.shape), 1
        for axis in reversed(range(len(shape))):
            if length >= RUN:
                break
            sizes[axis] = shape[axis]
            length *= shape[axis]
        return np.ascontiguousarray(np.broadcast_to(small, sizes), self.dtype)

    def off_centre(self, cells: Array, centre: Array) -> Array:
        """Block 0: x - c."""
        return np.subtract(cells, self.repeated(centre, cells.shape), out=self.block(0, cells.shape))

    def scaled(self, cells: Array, scale: Array, shift: Array | None, out: Array, where: Any = True) -> None:
        """``out[where] = cells * scale + shift``; overwrites `cells` if there is a shift."""
        target = out if shift is None else cells
        np.multiply(cells, self.repeated(scale, cells.shape), out=target, casting="same_kind")
        if shift is not None:
            np.add(target, self.repeated(shift, cells.shape), out=out, where=where, casting="same_kind")


def at(small: Array, place: Tile) -> Array:
    """The part of an array with axes of one that goes with a block of the data."""
    cut: Tile = tuple(part if size > 1 else slice(None) for part, size in zip(place, small.shape, strict=True))
    return small[cut]


def part_of(where: Any, place: Tile) -> Any:
    """The part of a choice of samples, or of the choice of all, that goes with a block."""
    return at(where, place) if where.ndim else where


def in_memory_order(spec: NormSpec, x: Array, *arrays: Array | None) -> tuple[Ints, tuple[Any, ...]]:
    """Put the axes with the longest strides of x first, of it and the others; the places of those summed over.

    The batch stands first in any case if its samples are normalised each by itself: then all products are over one
    sample, and its result cannot depend on the others.
    """
    lead = () if 0 in spec.reduced else (0,)
    others = sorted(range(len(lead), x.ndim), key=lambda axis: -abs(x.strides[axis]))
    order = (*lead, *others)
    reduced = tuple(place for place, axis in enumerate(order) if axis in spec.reduced)
    return reduced, tuple(None if array is None else array.transpose(order) for array in (x, *arrays))


def types(spec: NormSpec) -> tuple[np.dtype[Any], ...]:
    """What to work in: the data's type, and where that may not do, the wider type of the statistics."""
    narrow, wide = spec.compute_dtype, spec.statistics_dtype
    return (wide,) if narrow == wide or spec.eps < TINY else (narrow, wide)


def block_cells(dtype: np.dtype[Any], limit: int) -> int:
    """How large a block may be."""
    return max(1, min(TARGET, limit // COPIES) // dtype.itemsize)


def workspace(spec: NormSpec, limit: int) -> int:
    """Scratch bytes at most, whatever the order of memory."""
    wide = types(spec)[-1]
    return min(math.prod(spec.seen_shape) or 1, block_cells(wide, limit)) * wide.itemsize * COPIES


def norm(
    spec: NormSpec,
    x: Array,
    gamma: Array | None,
    beta: Array | None,
    *,
    out: Array,
    mean: Array,
    var: Array,
    resources: Resources,
) -> None:
    """Take the statistics in two passes, and normalise in a third."""
    reduced, (x, gamma, beta, out, mean, var) = in_memory_order(spec, x, gamma, beta, out, mean, var)
    at_once, where = few_factors(spec, gamma), np.True_
    for dtype in types(spec):
        cells = block_cells(dtype, resources.max_workspace)
        scratch, statistics = Scratch(dtype, min(cells, x.size)), np.zeros((2, *mean.shape), mean.dtype)
        with overflow_ignored(spec, dtype):
            for group in groups(x.shape, reduced, cells):
                found = (at(statistics[0], group.place), at(statistics[1], group.place))
                standardise(spec, scratch, group, where, x, gamma, beta, out, *found, at_once=at_once)
        np.copyto(mean, statistics[0], where=where)
        np.copyto(var, statistics[1], where=where)
        where = overflowed(spec, var)
        if not where.any():
            return


def overflow_ignored(spec: NormSpec, dtype: np.dtype[Any]) -> AbstractContextManager[None]:
    """No warnings of NumPy's while there is a wider type to try."""
    return nullcontext() if dtype == types(spec)[-1] else np.errstate(over="ignore", invalid="ignore")


def overflowed(spec: NormSpec, *sums: Array) -> Any:
    """The samples whose sums are not finite, with axes of one; the others' results must not depend on them."""
    finite = np.logical_and.reduce([np.isfinite(each) for each in sums])
    kept = tuple(range(0 if 0 in spec.reduced else 1, finite.ndim))
    return ~np.logical_and.reduce(finite, kept, keepdims=True)


def standardise(
    spec: NormSpec,
    scratch: Scratch,
    group: Group,
    where: Any,
    x: Array,
    gamma: Array | None,
    beta: Array | None,
    out: Array,
    mean: Array,
    var: Array,
    *,
    at_once: bool,
) -> None:
    """Normalise some families by their statistics, which are added to the zeros in `mean` and `var`."""
    residual = np.zeros_like(mean)
    if spec.centred:
        for place in group.parts:
            scratch.add_sum(x[place].astype(scratch.dtype, copy=False), mean)
        mean /= spec.count
    centre = mean.astype(scratch.dtype)
    for place in group.parts:
        cells = scratch.off_centre(x[place], centre)
        scratch.add_dot(cells, cells, var)
        if spec.centred:
            scratch.add_sum(cells, residual)
    residual /= spec.count
    var /= spec.count
    var -= np.square(residual)
    np.maximum(var, 0, out=var)
    mean[...] = centre + residual
    for place in group.parts:
        if len(group.parts) > 1:
            cells = scratch.off_centre(x[place], centre)
        factors = (deviation(spec, var), residual, gamma, beta)
        affine(scratch, cells, *factors, place, out[place], at_once=at_once, where=part_of(where, place))


def deviation(spec: NormSpec, var: Array) -> Array:
    """One over the standard deviation, in the type of the statistics."""
    rstd: Array = 1 / np.sqrt(var.astype(spec.statistics_dtype) + spec.eps)
    return rstd


def few_factors(spec: NormSpec, gamma: Array | None) -> bool:
    """Whether rstd * gamma is small beside the data, as it is unless a layer norm's gamma is as large as a sample."""
    if gamma is None:
        return True
    factors = math.prod(map(max, spec.statistics_shape[1:], gamma.shape[1:]))
    return bool(factors * 8 <= math.prod(spec.seen_shape[1:]))


def affine(
    scratch: Scratch,
    cells: Array,
    rstd: Array,
    residual: Array,
    gamma: Array | None,
    beta: Array | None,
    place: Tile,
    out: Array,
    *,
    at_once: bool,
    where: Any = True,
) -> None:
    """(d - r) * rstd * gamma + beta, with a product of the factors or one after the other."""
    scale, shift = rstd, None if beta is None else at(beta, place)
    if gamma is not None and not at_once:
        scratch.scaled(cells, rstd, -residual * rstd, cells)
        scratch.scaled(cells, at(gamma, place), np.zeros_like(rstd) if shift is None else shift, out, where)
        return
    if gamma is not None:
        scale = rstd * at(gamma, place)
    scratch.scaled(cells, scale, -residual * scale if shift is None else shift - residual * scale, out, where)


def batch_norm(
    spec: NormSpec,
    x: Array,
    gamma: Array | None,
    beta: Array | None,
    mean: Array,
    var: Array,
    *,
    out: Array,
    resources: Resources,
) -> None:
    """Normalise with given statistics."""
    _, (x, gamma, beta, out, mean, var) = in_memory_order(spec, x, gamma, beta, out, mean, var)
    cells = block_cells(spec.compute_dtype, resources.max_workspace)
    scratch = Scratch(spec.compute_dtype, min(cells, x.size))
    centre, rstd, at_once = mean.astype(scratch.dtype), deviation(spec, var), few_factors(spec, gamma)
    residual = mean - centre.astype(rstd.dtype)
    for place, _ in groups(x.shape, (), cells):
        block = scratch.off_centre(x[place], at(centre, place))
        factors = (at(rstd, place), at(residual, place), gamma, beta)
        affine(scratch, block, *factors, place, out[place], at_once=at_once)


def norm_grad(
    spec: NormSpec,
    dy: Array,
    x: Array,
    gamma: Array | None,
    mean: Array,
    var: Array,
    *,
    out: Array | None,
    dgamma: Array | None,
    dbeta: Array | None,
    resources: Resources,
    given: bool = False,
) -> None:
    """Sum what the statistics pass back, unless they were given, and combine."""
    reduced, arrays = in_memory_order(spec, x, dy, gamma, mean, var, out, dgamma, dbeta)
    totals, where = [total for total in (dgamma, dbeta) if total is not None], np.True_
    for dtype in types(spec):
        cells = block_cells(dtype, resources.max_workspace)
        scratch, sums = Scratch(dtype, min(cells, x.size)), np.zeros((2, *arrays[3].shape), spec.statistics_dtype)
        for total in totals:
            total[...] = 0
        with overflow_ignored(spec, dtype):
            for group in groups(arrays[0].shape, reduced, cells):
                found = (at(sums[0], group.place), at(sums[1], group.place))
                pull_back(spec, scratch, group, where, given, *found, *arrays)
        where = overflowed(spec, *sums)
        if not where.any() and all(np.isfinite(total).all() for total in totals):
            return


def pull_back(
    spec: NormSpec,
    scratch: Scratch,
    group: Group,
    where: Any,
    given: bool,
    sums: Array,
    products: Array,
    x: Array,
    dy: Array,
    gamma: Array | None,
    mean: Array,
    var: Array,
    out: Array | None,
    dgamma: Array | None,
    dbeta: Array | None,
) -> None:
    """The gradient of some families; `sums` and `products` are zeros that are added to."""
    mean, rstd = at(mean, group.place), deviation(spec, at(var, group.place))
    centre = mean.astype(scratch.dtype)
    residual = mean - centre.astype(rstd.dtype)

    def prepare(place: Tile) -> tuple[Array, Array]:
        normalised, cells = scratch.off_centre(x[place], centre), dy[place].astype(scratch.dtype, copy=False)
        scratch.scaled(normalised, rstd, -residual * rstd, normalised)
        return normalised, cells

    def times_gamma(cells: Array, place: Tile) -> Array:
        if gamma is None:
            return cells
        weighted = scratch.block(2, cells.shape)
        scratch.scaled(cells, at(gamma, place), None, weighted)
        return weighted

    for place in group.parts:
        normalised, cells = prepare(place)
        if dbeta is not None:
            scratch.add_sum(cells, at(dbeta, place))
        if dgamma is not None:
            scratch.add_dot(cells, normalised, at(dgamma, place))
        cells = times_gamma(cells, place)
        if not given and out is not None:
            scratch.add_dot(cells, normalised, products)
            if spec.centred:
                scratch.add_sum(cells, sums)
    if out is None:
        return
    sums *= -rstd / spec.count
    products *= -rstd / spec.count
    for place in group.parts:
        if len(group.parts) > 1:
            normalised, cells = prepare(place)
            cells = times_gamma(cells, place)
        scaled = scratch.block(2, cells.shape)
        scratch.scaled(cells, rstd, None, scaled)
        if given:
            out[place] = scaled
            continue
        scratch.scaled(normalised, products, sums, normalised)
        np.add(scaled, normalised, out=out[place], where=part_of(where, place), casting="same_kind")
