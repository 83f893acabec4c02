"""The definitions of the norms, in plain Python loops; they share nothing with the fast ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product

import numpy as np

from ..config import Resources
from ..layout import Array
from ..norm_spec import LocalNormSpec, NormSpec
from ..window import Ints

CLAIMS = frozenset({"batch_invariant", "nan_strict", "bounded"})


def families(spec: NormSpec) -> Iterator[tuple[Ints, list[Ints]]]:
    """The places whose cells share statistics: where these stand, and all of the cells."""
    kept = [range(1) if axis in spec.reduced else range(size) for axis, size in enumerate(spec.seen_shape)]
    for family in product(*kept):
        ranges = [
            range(size) if axis in spec.reduced else range(family[axis], family[axis] + 1)
            for axis, size in enumerate(spec.seen_shape)
        ]
        yield family, list(product(*ranges))


def coefficient(array: Array | None, place: Ints, default: float) -> float:
    """The cell of an array with axes of one that goes with a place."""
    if array is None:
        return default
    return float(array[tuple(index if size > 1 else 0 for index, size in zip(place, array.shape, strict=True))])


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
    """Y = gamma * (x - mean) / sqrt(var + eps) + beta, with the statistics of each family of cells."""
    for family, places in families(spec):
        values = [x.item(*place) for place in places]
        middle = math.fsum(values) / len(values) if spec.centred else 0.0
        spread = math.fsum((value - middle) ** 2 for value in values) / len(values)
        mean[family], var[family] = middle, spread
        for place, value in zip(places, values, strict=True):
            normalised = (value - middle) / math.sqrt(spread + spec.eps)
            out[place] = normalised * coefficient(gamma, place, 1.0) + coefficient(beta, place, 0.0)


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
) -> None:
    """dx[j] = sum over i of dy[i] * gamma[i] * dxh[i]/dx[j], the whole Jacobian of each family."""
    for total in (dgamma, dbeta):
        if total is not None:
            total[...] = 0
    for family, places in families(spec):
        deviation, count = math.sqrt(var[family] + spec.eps), len(places)
        normalised = [(x.item(*place) - mean[family]) / deviation for place in places]
        given = [dy.item(*place) for place in places]
        for place, one, cell in zip(places, given, normalised, strict=True):
            for total, term in ((dgamma, one * cell), (dbeta, one)):
                if total is not None:
                    total[tuple(i if size > 1 else 0 for i, size in zip(place, total.shape, strict=True))] += term
        if out is None:
            continue
        for j, place in enumerate(places):
            terms = []
            for i, source in enumerate(places):
                slope = (i == j) - (1 / count if spec.centred else 0) - normalised[i] * normalised[j] / count
                terms.append(given[i] * coefficient(gamma, source, 1.0) * slope / deviation)
            out[place] = math.fsum(terms)


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
    """Y = gamma * (x - mean) / sqrt(var + eps) + beta, cell by cell."""
    for place in product(*map(range, spec.seen_shape)):
        normalised = x.item(*place) - coefficient(mean, place, 0.0)
        normalised /= math.sqrt(coefficient(var, place, 1.0) + spec.eps)
        out[place] = normalised * coefficient(gamma, place, 1.0) + coefficient(beta, place, 0.0)


def batch_norm_grad(
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
) -> None:
    """The gradient dy * gamma / sqrt(var + eps): given statistics are constants."""
    for total in (dgamma, dbeta):
        if total is not None:
            total[...] = 0
    for place in product(*map(range, spec.seen_shape)):
        deviation = math.sqrt(coefficient(var, place, 1.0) + spec.eps)
        normalised = (x.item(*place) - coefficient(mean, place, 0.0)) / deviation
        for total, term in ((dgamma, dy.item(*place) * normalised), (dbeta, dy.item(*place))):
            if total is not None:
                total[tuple(i if size > 1 else 0 for i, size in zip(place, total.shape, strict=True))] += term
        if out is not None:
            out[place] = dy.item(*place) * coefficient(gamma, place, 1.0) / deviation


def windows(spec: LocalNormSpec, place: Ints) -> list[Ints]:
    """The places whose squares a cell is divided by: the channels from ``size`` of them about its own that exist."""
    start = place[1] - (spec.size - 1) // 2
    channels = range(start, start + spec.size)
    return [(place[0], channel, *place[2:]) for channel in channels if 0 <= channel < spec.shape[1]]


def local_base(spec: LocalNormSpec, x: Array, place: Ints) -> float:
    """What is raised to -beta."""
    return spec.bias + spec.alpha / spec.size * math.fsum(x.item(*other) ** 2 for other in windows(spec, place))


def local_response_norm(spec: LocalNormSpec, x: Array, *, out: Array, resources: Resources) -> None:
    """Y = x / base^beta, cell by cell."""
    for place in product(*map(range, spec.shape)):
        out[place] = x.item(*place) / local_base(spec, x, place) ** spec.beta


def local_response_norm_grad(spec: LocalNormSpec, dy: Array, x: Array, *, out: Array, resources: Resources) -> None:
    """dx[j] = sum over i of dy[i] * dy[i]/dx[j]: each output passes back to its own cell, and to all of its window."""
    total = np.zeros(spec.shape, spec.statistics_dtype)
    for place in product(*map(range, spec.shape)):
        base, given = local_base(spec, x, place), dy.item(*place)
        total[place] += given / base**spec.beta
        for other in windows(spec, place):
            slope = 2 * spec.alpha / spec.size * x.item(*other)
            total[other] -= given * x.item(*place) * spec.beta / base ** (spec.beta + 1) * slope
    out[...] = total
