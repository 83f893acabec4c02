"""Batch, group, layer, instance and rms norms, compiled, where the data lie in one of two forms; else NumPy's way."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ...config import Resources
from ...layout import Array
from ...norm_spec import NormSpec
from .. import norms as numpy_norms
from . import norm_columns, norm_rows
from .norm_forms import Columns, Rows, form_of
from .parallel import usable
from .scratch import arena

CELL = 40
"""Floating-point operations in whose time a cell passes through: memory, not arithmetic, takes it."""


def threads_for(spec: NormSpec, resources: Resources) -> int:
    """How many threads to use."""
    return usable(resources.threads, CELL * math.prod(spec.shape))


def fitting(spec: NormSpec, form: Rows | Columns | None, resources: Resources) -> Rows | Columns | None:
    """A form whose scratch stays below what was said: NumPy's way takes any less."""
    if form is None:
        return None
    size, threads = spec.compute_dtype.itemsize, threads_for(spec, resources)
    taken = norm_rows.needs(form) if isinstance(form, Rows) else norm_columns.needs(form, size, threads)
    return form if taken <= numpy_norms.workspace(spec, resources.max_workspace) else None


def normalise(
    spec: NormSpec,
    form: Rows | Columns,
    x: Array,
    gamma: Array | None,
    beta: Array | None,
    out: Array,
    given: Sequence[Array] | None,
    threads: int,
) -> Sequence[Array]:
    """Normalise by statistics, given or found; what these are."""
    with np.errstate(all="ignore"):  # as compiled code is silent of what is not finite
        if isinstance(form, Rows):
            return norm_rows.normalise(spec, form, x, gamma, beta, out, given, threads)
        return norm_columns.normalise(spec, form, x, gamma, beta, out, given, threads)


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
    """Normalise by the data's own statistics."""
    form = fitting(spec, form_of(spec, (gamma, beta), (x, out)), resources)
    if form is None:
        numpy_norms.norm(spec, x, gamma, beta, out=out, mean=mean, var=var, resources=resources)
        return
    with arena:
        found = normalise(spec, form, x, gamma, beta, out, None, threads_for(spec, resources))
        for target, values in zip((mean, var), found, strict=True):
            form.ordered(target)[...] = values.reshape(form.kept)


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
    """Normalise by given statistics."""
    form = fitting(spec, form_of(spec, (gamma, beta), (x, out), given=True), resources)
    if form is None:
        numpy_norms.batch_norm(spec, x, gamma, beta, mean, var, out=out, resources=resources)
        return
    given = [form.statistic(each) for each in (mean, var)]
    with arena:
        normalise(spec, form, x, gamma, beta, out, given, threads_for(spec, resources))


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
    """Take gradients back, through the statistics unless they were given."""
    arrays = [array for array in (x, dy, out) if array is not None]
    form = fitting(spec, form_of(spec, (gamma, dgamma, dbeta), arrays, given=given, backward=True), resources)
    if form is None:
        numpy_norms.norm_grad(
            spec, dy, x, gamma, mean, var, out=out, dgamma=dgamma, dbeta=dbeta, resources=resources, given=given
        )
        return
    mean, var = (form.statistic(each) for each in (mean, var))
    with arena, np.errstate(all="ignore"):
        rstd = 1 / np.sqrt(var + spec.eps)
        arguments = (x, dy, gamma, mean, rstd, out, threads_for(spec, resources))
        found: Sequence[Array] | Array
        if isinstance(form, Rows):
            found = norm_rows.pull_back(spec, form, *arguments, given=given)
        else:
            found = norm_columns.pull_back(spec, form, *arguments, given=given)
        form.collect(found[0], dgamma)
        form.collect(found[1], dbeta)
