"""Batch, group, layer, instance and rms norms, compiled, where the data lie in one of two forms; else NumPy's way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ...config import Resources
from ...layout import Array
from ...norm_spec import NormSpec
from ...views import slices
from .. import norms as numpy_norms
from . import norm_columns, norm_rows
from .norm_available import ROOM
from .norm_forms import THREADS, Columns, Rows, form_of
from .scratch import arena
from .thread_count import now_usable

CELL = 40
"""Floating-point operations in whose time a cell passes through: memory, not arithmetic, takes it."""


def threads_for(spec: NormSpec, resources: Resources) -> int:
    """How many threads to use."""
    return min(THREADS, now_usable(resources.threads, CELL * math.prod(spec.shape)))


def together(
    spec: NormSpec,
    coefficients: Sequence[Array | None],
    arrays: Sequence[Array],
    limit: int,
    *,
    given: bool = False,
    backward: bool = False,
) -> list[slice]:
    """The samples to go through at a time, so that scratch stays below what was said; none for NumPy's way.

    Where samples are normalised each by itself, whether one is must not depend on how many there are.
    """
    whole, room = form_of(spec, coefficients, arrays, given=given, backward=backward), min(limit, ROOM)
    if whole is None:
        return []
    if spec.kind == "batch" and not given:
        return [slice(0, len(arrays[0]))] if needs(spec, whole) <= room else []
    one, first = of_samples(spec, slice(0, 1)), [array[:1] for array in arrays]
    single = form_of(one, coefficients, first, given=given, backward=backward)
    taken = room + 1 if single is None else needs(spec, single)
    return slices(len(arrays[0]), room // taken) if taken <= room else []


def needs(spec: NormSpec, form: Rows | Columns) -> int:
    """Bytes of scratch at most."""
    return norm_rows.needs(form) if isinstance(form, Rows) else norm_columns.needs(form, spec.compute_dtype.itemsize)


def of_samples(spec: NormSpec, part: slice) -> NormSpec:
    """The problem of some samples."""
    count = part.stop - part.start
    return spec if spec.shape[0] == count else replace(spec, shape=(count, *spec.shape[1:]))


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
    parts = together(spec, (gamma, beta), (x, out), resources.max_workspace)
    if not parts:
        numpy_norms.norm(spec, x, gamma, beta, out=out, mean=mean, var=var, resources=resources)
    for part in parts:
        some = of_samples(spec, part)
        form = form_of(some, (gamma, beta), (x[part], out[part]))
        assert form
        with arena:
            found = normalise(some, form, x[part], gamma, beta, out[part], None, threads_for(spec, resources))
            for target, values in zip((mean, var), found, strict=True):
                form.ordered(target[part])[...] = values.reshape(form.kept)


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
    parts = together(spec, (gamma, beta), (x, out), resources.max_workspace, given=True)
    if not parts:
        numpy_norms.batch_norm(spec, x, gamma, beta, mean, var, out=out, resources=resources)
    for part in parts:
        some = of_samples(spec, part)
        form = form_of(some, (gamma, beta), (x[part], out[part]), given=True)
        assert form
        with arena:
            given = [form.statistic(each) for each in (mean, var)]
            normalise(some, form, x[part], gamma, beta, out[part], given, threads_for(spec, resources))


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
    how = {"given": given, "backward": True}
    parts = together(spec, (gamma, dgamma, dbeta), arrays, resources.max_workspace, **how)
    if not parts:
        numpy_norms.norm_grad(
            spec, dy, x, gamma, mean, var, out=out, dgamma=dgamma, dbeta=dbeta, resources=resources, given=given
        )
        return
    totals = [total for total in (dgamma, dbeta) if total is not None]
    for total in totals:
        total[...] = 0
    for part in parts:
        some = of_samples(spec, part)
        form = form_of(some, (gamma, dgamma, dbeta), [array[part] for array in arrays], **how)
        assert form
        with arena, np.errstate(all="ignore"):
            middle, spread = (form.statistic(each[part] if len(each) > 1 else each) for each in (mean, var))
            rstd = 1 / np.sqrt(spread + spec.eps)
            place = None if out is None else out[part]
            arguments = (x[part], dy[part], gamma, middle, rstd, place, threads_for(spec, resources))
            found: Sequence[Array] | Array
            if isinstance(form, Rows):
                found = norm_rows.pull_back(some, form, *arguments, given=given)
            else:
                found = norm_columns.pull_back(some, form, *arguments, given=given)
            form.collect(found[0], dgamma)
            form.collect(found[1], dbeta)
