"""The gradients of the NumPy norms.

With xh = (x - mean) * rstd and g = dy * gamma,

    dx = rstd * (g - mean(g) - xh * mean(g * xh))        dgamma = sum dy * xh        dbeta = sum dy

(Ioffe and Szegedy, 2015), the means over the cells that share statistics; an rms norm (Zhang and Sennrich, 2019) has no
mean, and no mean(g). All of these sums are of two, over the cells that share their statistics and their coefficients
too: with d = x - c, as in the forward pass, and mean = c + r,

    P = sum dy          Q = sum dy * d          sum dy * xh = rstd * (Q - r * P)

and then dx = dy * (rstd * gamma) + d * u + v with u and v as small as the statistics. A layer norm whose coefficients
are as large as a sample leaves no cells to share: there, xh and g are computed, and take the places of d and dy.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..config import Resources
from ..layout import Array
from ..norm_spec import NormSpec
from ..window import Tile
from .norm_blocks import (
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
    overflowed,
    part_of,
    shapes_of,
    types,
)


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
    shared = few_factors(*shapes_of(arrays[0], arrays[3], arrays[2], *arrays[6:]))
    totals, where = [total for total in (dgamma, dbeta) if total is not None], True
    for dtype in types(spec):
        cells = block_cells(dtype, resources.max_workspace)
        scratch, sums = Scratch(dtype, min(cells, x.size)), np.zeros((2, *arrays[3].shape), spec.statistics_dtype)
        for total in totals:
            total[...] = 0
        with arithmetic(wider=dtype != types(spec)[-1]):
            for group in groups(arrays[0].shape, reduced, cells):
                found = (at(sums[0], group.place), at(sums[1], group.place))
                pull_back(spec, scratch, group, where, given, shared, *found, *arrays)
        if all(np.isfinite(total).all() for total in (sums, *totals)):
            return
        if not given:
            where = overflowed(spec, *sums)
        elif out is not None:
            where = in_memory_order(spec, x, not_finite(out))[1][1]


def not_finite(out: Array) -> Array:
    """The samples that are not finite everywhere, with axes of one."""
    with np.errstate(over="ignore", invalid="ignore"):
        found: Array = ~np.isfinite(np.add.reduce(out, tuple(range(1, out.ndim)), keepdims=True))
    return found


def pull_back(
    spec: NormSpec,
    scratch: Scratch,
    group: Group,
    where: Any,
    given: bool,
    shared: bool,
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
    rstd = deviation(spec, at(var, group.place))
    centre, offset = centre_of(at(mean, group.place), rstd, scratch.dtype)
    through = out is not None and not given

    def prepared(place: Tile) -> tuple[Array, Array]:
        """The blocks d and dy, or xh and dy."""
        cells = scratch.off_centre(x[place], centre)
        if not shared:
            normalised = scratch.block(0, cells.shape)
            scratch.scaled(cells, rstd, -offset * rstd, normalised)
            cells = normalised
        return cells, scratch.cast(dy[place])

    def weighted(passed: Array, place: Tile) -> Array:
        """The block dy, or g."""
        if shared or gamma is None:
            return passed
        products = scratch.block(1, passed.shape)
        scratch.scaled(passed, at(gamma, place), None, products)
        return products

    for place in group.parts:
        cells, passed = prepared(place)
        if shared and (through or dgamma is not None or dbeta is not None):
            small = [None if array is None else at(array, place) for array in (gamma, dgamma, dbeta)]
            add_shared(spec, scratch, cells, passed, rstd, offset, sums, products, *small)
        elif not shared:
            if dbeta is not None:
                total = at(dbeta, place)
                total += scratch.sum(passed, total.shape)
            if dgamma is not None:
                total = at(dgamma, place)
                total += scratch.dot(passed, cells, total.shape)
            passed = weighted(passed, place)
            if through:
                products += scratch.dot(passed, cells, products.shape)
                if spec.centred:
                    sums += scratch.sum(passed, sums.shape)
    if out is None:
        return
    products *= -rstd * (rstd if shared else 1) / spec.count
    sums *= -rstd / spec.count
    if shared:
        sums -= offset * products
    for place in group.parts:
        if len(group.parts) > 1:
            cells, passed = prepared(place)
            passed = weighted(passed, place)
        scale = rstd * at(gamma, place) if shared and gamma is not None else rstd
        chosen = part_of(where, place)
        if given:
            scratch.scaled(passed, scale, None, out[place], chosen)
            continue
        dx = out[place] if scratch.writes(out, where) else scratch.block(1, cells.shape)
        scratch.scaled(passed, scale, None, dx)
        moved = scratch.block(0, cells.shape)
        scratch.scaled(cells, products, sums if spec.centred else None, moved)
        dx += moved
        if not scratch.writes(out, where):
            np.copyto(out[place], dx, where=chosen, casting="same_kind")


def add_shared(
    spec: NormSpec,
    scratch: Scratch,
    cells: Array,
    passed: Array,
    rstd: Array,
    offset: Array,
    sums: Array,
    products: Array,
    gamma: Array | None,
    dgamma: Array | None,
    dbeta: Array | None,
) -> None:
    """Add what one block, d and dy, gives to each of the sums."""
    shape = common(*shapes_of(rstd, gamma, dgamma, dbeta))
    plain, dotted = np.zeros(shape), scratch.dot(passed, cells, shape)
    if spec.centred or dbeta is not None:
        plain = scratch.sum(passed, shape)
        dotted -= offset * plain
    dotted *= rstd
    if dbeta is not None:
        fold(plain, dbeta)
    if dgamma is not None:
        fold(dotted, dgamma)
    weight = 1 if gamma is None else gamma
    fold(plain * weight, sums)
    fold(dotted * weight, products)


def fold(small: Array, total: Array) -> None:
    """Add the sums over the axes of one of `total`."""
    axes = tuple(axis for axis, size in enumerate(total.shape) if size < small.shape[axis])
    total += np.add.reduce(small, axes, keepdims=True) if axes else small
