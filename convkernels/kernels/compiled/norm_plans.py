"""Norms on arrays that lie like those before: all but their addresses is worked out once.

There is a plan where the compiled code can read and write the small arrays as they are: of the data's type, end on end.
Statistics that are given may be of any type, for they are copied.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ...config import Resources
from ...layout import Array
from ...norm_spec import NormSpec
from .function import Work
from .norm_forms import FLOAT, THREADS, Columns, Rows, coefficients
from .norms import adds_up, backward, forward, gathered, whole_form, work_of
from .thread_count import by_threads

Run = Callable[..., None]


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
) -> Run | None:
    """Plan a norm by the data's own statistics."""
    form = whole_form(spec, (gamma, beta), (x, out), resources)
    if form is None or not reads(form, spec, (gamma, beta), (mean, var)):
        return None
    ones, zeros = coefficients(form, spec, gamma=None, beta=None)
    work = by_threads(resources.threads, work_of(spec), lambda most: forward(spec, form, False, min(most, THREADS)))

    def run(x: Array, gamma: Array | None, beta: Array | None, out: Array, mean: Array, var: Array) -> None:
        work().run(x, out, ones if gamma is None else gamma, zeros if beta is None else beta, mean, var)

    return run


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
) -> Run | None:
    """Plan a norm by given statistics."""
    form = whole_form(spec, (gamma, beta), (x, out), resources, given=True)
    if form is None or not reads(form, spec, (gamma, beta)):
        return None
    ones, zeros = coefficients(form, spec, gamma=None, beta=None)
    work = by_threads(resources.threads, work_of(spec), lambda most: forward(spec, form, True, min(most, THREADS)))
    copied = copier(form, spec, mean, var)

    def run(x: Array, gamma: Array | None, beta: Array | None, mean: Array, var: Array, out: Array) -> None:
        small = ones if gamma is None else gamma, zeros if beta is None else beta
        given = (mean, var) if copied is None else (copied(mean), copied(var))
        work().run(x, out, *small, *given)

    return run


def norm_grad(
    spec: NormSpec,
    dy: Array,
    x: Array,
    gamma: Array | None,
    mean: Array,
    var: Array,
    *,
    out: Array,
    dgamma: Array | None,
    dbeta: Array | None,
    resources: Resources,
    given: bool = False,
) -> Run | None:
    """Plan a gradient, through the statistics unless they were given."""
    form = whole_form(spec, (gamma, dgamma, dbeta), (x, dy, out), resources, given=given, backward=True)
    if form is None or not reads(form, spec, (gamma,)):
        return None
    if not all(form.is_plain(each, form.varying) for each in (dgamma, dbeta)):
        return None
    (ones,) = coefficients(form, spec, gamma=None)
    totals = adds_up(form)

    def make(most: int) -> Work:
        return backward(spec, form, given, min(most, THREADS), writes=True, totals=totals)

    work = by_threads(resources.threads, work_of(spec), make)
    copied = copier(form, spec, mean, var)
    unwanted = np.empty(math.prod(form.varying), spec.compute_dtype)

    def run(dy: Array, x: Array, gamma: Array | None, mean: Array, var: Array, out: Array, *sums: Array | None) -> None:
        given = (mean, var) if copied is None else (copied(mean), copied(var))
        arrays = x, dy, out, ones if gamma is None else gamma, *given
        if totals:
            work().run(*arrays, totals=[unwanted if each is None else each for each in sums])
            return
        found = gathered(form, work().run(*arrays))
        with np.errstate(all="ignore"):
            for place, target in enumerate(sums):
                if target is not None:
                    target.reshape(-1)[...] = found[place].reshape(-1)

    return run


def reads(
    form: Rows | Columns, spec: NormSpec, given: Sequence[Array | None], statistics: Sequence[Array] = ()
) -> bool:
    """Whether coefficients can be read where they are, and statistics written."""
    if any(each is not None and each.dtype != spec.compute_dtype for each in given):
        return False
    every = (*((each, form.varying) for each in given), *((each, form.kept) for each in statistics))
    return all(form.is_plain(each, sizes) for each, sizes in every)


def copier(form: Rows | Columns, spec: NormSpec, *statistics: Array) -> Callable[[Array], Array] | None:
    """What makes statistics that are given such as steps take; None if they are."""
    if all(each.dtype == FLOAT and form.is_plain(each, form.kept) for each in statistics):
        return None

    def copied(small: Array) -> Array:
        with np.errstate(all="ignore"):
            return form.statistic(small.reshape(spec.statistics_shape))

    return copied
