"""Normalisation over blocks that stay in the cache, with the sums left to BLAS.

    mean = sum x / count        var = sum (x - mean)^2 / count        y = (x - mean) * s + beta,  s = gamma * rstd

with rstd = 1 / sqrt(var + eps). Passes run in the data's own type, a block at a time, and add up in float64. They are
of d = x - c, with a centre c in the type of the data:

    r = sum d / count           mean = c + r           var = sum d^2 / count - r^2           y = d * s + (beta - r * s)

The difference of the mean square and the squared mean cancels if r is large beside the deviation. So c = 0, which takes
no pass, serves where that shows a mean within NEAR deviations of zero. Elsewhere c is the mean as rounded to the data's
type (Chan, Golub and LeVeque, "Algorithms for computing the sample variance", 1983): near it d is exact (Sterbenz), and
r a rounding error. Where float32 overflows, as with the squares of 1e20, everything is done again in float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from ..config import Resources
from ..layout import Array
from ..norm_spec import NormSpec
from ..recycling import empty
from ..window import Ints, Tile
from .norm_blocks import (
    NEAR,
    Group,
    Scratch,
    arithmetic,
    at,
    block_cells,
    centre_of,
    common,
    deviation,
    few_factors,
    groups,
    in_memory_order,
    is_ordered,
    overflowed,
    part_of,
    shapes_of,
    spread,
    types,
    workspace,
)

CLAIMS = frozenset({"batch_invariant", "nan_strict", "bounded"})
__all__ = ["CLAIMS", "batch_norm", "norm", "workspace"]


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
    """Take the statistics, and normalise by them."""
    reduced, (x, gamma, beta, out, mean, var) = in_memory_order(spec, x, gamma, beta, out, mean, var)
    at_once, where = in_one_step(*shapes_of(x, mean, gamma, beta)), True
    for dtype in types(spec):
        cells = block_cells(dtype, resources.max_workspace)
        scratch = Scratch(dtype, min(cells, x.size))
        with arithmetic(wider=dtype != types(spec)[-1]):
            for group in groups(x.shape, reduced, cells):
                total = (at(mean, group.place), at(var, group.place))
                found = standardise(spec, scratch, group, where, x, gamma, beta, out, total[0].shape, at_once)
                for statistic, value in zip(total, found, strict=True):
                    np.copyto(statistic, value, where=part_of(where, group.place))
        if np.isfinite(var).all():
            return
        where = overflowed(spec, var)


def standardise(
    spec: NormSpec,
    scratch: Scratch,
    group: Group,
    where: Any,
    x: Array,
    gamma: Array | None,
    beta: Array | None,
    out: Array,
    shape: Ints,
    at_once: bool,
) -> tuple[Any, Array]:
    """Normalise some families by their mean and variance, of that shape, which are returned."""
    into = out if scratch.writes(out, where) and out.strides == x.strides and is_ordered(x) else None
    blocks = Deviations(scratch, group.parts, x, into)
    mean, var, offset = moments(spec, blocks, shape)
    rstd = deviation(spec, var).astype(scratch.dtype, copy=False)
    if offset is not None:
        offset = offset.astype(scratch.dtype, copy=False)
    for place, cells in blocks.again():
        affine(scratch, cells, rstd, offset, gamma, beta, place, out[place], at_once, part_of(where, place))
    return mean, var


def moments(spec: NormSpec, blocks: Deviations, shape: Ints) -> tuple[Any, Array, Array | None]:
    """The mean and the variance, and how far the mean is from the centre chosen, if there is a mean."""
    if not spec.centred:
        return 0, blocks.moments(shape, spec.count, centred=False)[0], None
    with np.errstate(over="ignore", invalid="ignore"):
        mean, var = blocks.moments(shape, spec.count, centred=True)
        squared = np.square(mean, out=empty(mean.shape, mean.dtype))
        var -= squared
        squared *= NEAR**-2
        near = squared <= var
    near &= np.isfinite(var)
    if near.all():
        return mean, var, mean
    blocks.centre = np.where(near, 0, mean).astype(blocks.scratch.dtype)
    offset, var = blocks.moments(shape, spec.count, centred=True)
    var -= np.square(offset)
    return blocks.centre + offset, np.maximum(var, 0, out=var), offset


class Deviations:
    """The data of some families less a centre, block by block: kept in `into`, if given, where the result goes."""

    def __init__(self, scratch: Scratch, parts: list[Tile], x: Array, into: Array | None) -> None:
        self.scratch, self.parts, self.x, self.into = scratch, parts, x, into
        self.centre: Array | None = None

    def __iter__(self) -> Iterator[tuple[Tile, Array]]:
        """Compute them."""
        for place in self.parts:
            target = None if self.into is None else self.into[place]
            self.cells = self.scratch.off_centre(self.x[place], self.centre, target)
            yield place, self.cells

    def again(self) -> Iterator[tuple[Tile, Array]]:
        """Those of the last time, as far as they are there."""
        if self.centre is None:
            yield from self
        elif self.into is not None:
            yield from ((place, self.into[place]) for place in self.parts)
        elif len(self.parts) == 1:
            yield self.parts[0], self.cells
        else:
            yield from self

    def moments(self, shape: Ints, count: int, centred: bool) -> Array:
        """The mean of the deviations, if that is wanted, and of their squares."""
        found = (self.scratch.moments(cells, shape, centred) for _, cells in self)
        total = next(found)
        for part in found:
            total += part
        total /= count
        return total


@lru_cache(maxsize=512)
def in_one_step(shape: Ints, statistics: Ints, *coefficients: Ints | None) -> bool:
    """Whether to multiply by rstd * gamma, and not one after the other.

    Not if the product is large, nor if it has to be repeated for most cells where rstd alone has not.
    """
    factors = common(statistics, *coefficients)
    if factors == statistics or not few_factors(shape, statistics, *coefficients):
        return factors == statistics
    cells = math.prod(shape[1:])  # of a sample, as everywhere here the batch stands first
    product, alone = (math.prod(spread(small[1:], shape[1:])) * 2 <= cells for small in (factors, statistics))
    return product or not alone


def affine(
    scratch: Scratch,
    cells: Array,
    rstd: Array,
    offset: Array | None,
    gamma: Array | None,
    beta: Array | None,
    place: Tile,
    out: Array,
    at_once: bool,
    where: Any = True,
) -> None:
    """(d - r) * rstd * gamma + beta, with a product of the factors or one after the other."""
    scale, shift = None if gamma is None else at(gamma, place), None if beta is None else at(beta, place)
    if at_once:
        scale = rstd if scale is None else rstd * scale
        if offset is not None:
            shift = -offset * scale if shift is None else shift - offset * scale
    else:
        normalised = out if scratch.writes(out, where) else scratch.block(0, cells.shape)
        scratch.scaled(cells, rstd, None if offset is None else -offset * rstd, normalised)
        cells = normalised
    scratch.scaled(cells, scale, shift, out, where)


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
    at_once = in_one_step(*shapes_of(x, mean, gamma, beta))
    cells = block_cells(spec.compute_dtype, resources.max_workspace)
    scratch, rstd = Scratch(spec.compute_dtype, min(cells, x.size)), deviation(spec, var)
    centre, offset = centre_of(mean, rstd, scratch.dtype)
    with arithmetic():
        for place, _ in groups(x.shape, (), cells):
            block = scratch.off_centre(x[place], None if centre is None else at(centre, place))
            affine(scratch, block, at(rstd, place), at(offset, place), gamma, beta, place, out[place], at_once)
