"""Batch, group, layer, instance and rms norms, compiled, where the data lie in one of two forms; else NumPy's way."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ...config import Resources
from ...layout import Array
from ...norm_spec import NormSpec
from ...views import slices
from .. import norm_gradients
from .. import norms as numpy_norms
from . import norm_columns, norm_rows
from .function import Work
from .isa import host
from .norm_available import ROOM
from .norm_forms import THREADS, Columns, Rows, coefficients, form_of
from .thread_count import now_usable

CELL = 28
"""Floating-point operations in whose time a cell passes through: memory, not arithmetic, takes it."""
MANY = 2**14
"""Families or blocks above which nothing is remembered: tables of them would take too much memory."""


def threads_for(spec: NormSpec, resources: Resources) -> int:
    """How many threads to use."""
    return min(THREADS, now_usable(resources.threads, work_of(spec)))


def work_of(spec: NormSpec) -> int:
    """What there is to do, in operations."""
    return CELL * math.prod(spec.shape)


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
    count, fits = len(arrays[0]), needs(spec, whole) <= room
    if spec.kind == "batch" and not given:
        return [slice(0, count)] if fits else []
    one, first = of_samples(spec, slice(0, 1)), [array[:1] for array in arrays]
    single = form_of(one, coefficients, first, given=given, backward=backward)
    taken = room + 1 if single is None else needs(spec, single)
    return slices(count, count if fits else room // taken) if taken <= room else []


def whole_form(
    spec: NormSpec,
    coefficients: Sequence[Array | None],
    arrays: Sequence[Array],
    resources: Resources,
    *,
    given: bool = False,
    backward: bool = False,
) -> Rows | Columns | None:
    """The form of the data if all samples are gone through at one time, and that may be remembered."""
    how = {"given": given, "backward": backward}
    parts = together(spec, coefficients, arrays, resources.max_workspace, **how)
    form = form_of(spec, coefficients, arrays, **how) if len(parts) == 1 else None
    return form if form and form.count <= MANY else None


def needs(spec: NormSpec, form: Rows | Columns) -> int:
    """Bytes of scratch at most."""
    return norm_rows.needs(form) if isinstance(form, Rows) else norm_columns.needs(form, spec.compute_dtype.itemsize)


def of_samples(spec: NormSpec, part: slice) -> NormSpec:
    """The problem of some samples."""
    count = part.stop - part.start
    return spec if spec.shape[0] == count else replace(spec, shape=(count, *spec.shape[1:]))


def forward(spec: NormSpec, form: Rows | Columns, given: bool, threads: int) -> Work:
    """What normalises by statistics, given or found."""
    make = norm_rows.forward if isinstance(form, Rows) else norm_columns.forward
    return (make if form.count <= MANY else make.__wrapped__)(spec, form, given, threads, host())


def backward(
    spec: NormSpec, form: Rows | Columns, given: bool, threads: int, *, writes: bool, totals: bool = False
) -> Work:
    """What takes gradients back; with `writes` that of x, too, and with `totals` those of coefficients to the end."""
    make = norm_rows.backward if isinstance(form, Rows) else norm_columns.backward
    return (make if form.count <= MANY else make.__wrapped__)(spec, form, given, threads, writes, totals, host())


def adds_up(form: Rows | Columns) -> bool:
    """Whether compiled code can add up the gradients of gamma and beta to the end."""
    return (norm_rows.shares(form) if isinstance(form, Rows) else norm_columns.shares(form)) is not None


def gathered(form: Rows | Columns, found: Mapping[str, Array]) -> Array:
    """The gradients of gamma and beta, for each place where any differs."""
    return norm_rows.gathered(form, found) if isinstance(form, Rows) else norm_columns.gathered(form, found)


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
        with np.errstate(all="ignore"):  # as compiled code is silent of what is not finite
            found = np.empty((2, math.prod(form.kept)))
            small = *coefficients(form, spec, gamma=gamma, beta=beta), *found
            forward(some, form, False, threads_for(spec, resources)).run(x[part], out[part], *small)
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
        with np.errstate(all="ignore"):
            small = *coefficients(form, spec, gamma=gamma, beta=beta), form.statistic(mean), form.statistic(var)
            forward(some, form, True, threads_for(spec, resources)).run(x[part], out[part], *small)


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
        norm_gradients.norm_grad(
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
        with np.errstate(all="ignore"):
            small = coefficients(form, spec, gamma=gamma)
            small += [form.statistic(each[part] if len(each) > 1 else each) for each in (mean, var)]
            written = () if out is None else (out[part],)
            work = backward(some, form, given, threads_for(spec, resources), writes=out is not None)
            found = gathered(form, work.run(x[part], dy[part], *written, *small))
            form.collect(found[0], dgamma)
            form.collect(found[1], dbeta)
