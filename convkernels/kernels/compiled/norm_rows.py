"""Runs of the code for families whose columns lie side by side; threads share the families."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...layout import Array
from ...norm_spec import NormSpec
from .isa import host
from .norm_forms import THREADS, Rows, offsets
from .row_code import Variant, compiled_for
from .scratch import arena

FLOAT = np.dtype(float)
PIECES = THREADS
"""Parts of the families whose shares in coefficients' gradients are summed apart."""


def needs(form: Rows) -> int:
    """Bytes of scratch at most, coefficients and tables included."""
    sums = 2 * max(PIECES * form.columns.size, form.count * form.part.size)
    return 8 * (sums + 3 * math.prod(form.varying) + 8 * form.count)


def common(form: Rows, spec: NormSpec, gamma: Array | None, arrays: dict[str, Array | None]) -> dict[str, Any]:
    """What both functions take."""
    size = spec.compute_dtype.itemsize
    on_end = form.row.size == 1 and form.part.strides[0] == form.columns.size * size
    arguments = {
        "gamma": form.coefficients(gamma, 1, spec.compute_dtype),
        "count": float(spec.count),
        "eps": spec.eps,
        "parts": form.part.size,
        "rows": form.row.size,
        "plain_parts": 1 if on_end else form.part.size,
        "plain_columns": form.columns.size * (form.part.size if on_end else 1),
        "columns": form.columns.size,
        "coefficient_starts": offsets(form.outer, [axis.step * size for axis in form.outer]),
        "coefficient_part": form.part.step * size,
    }
    for place, (name, array) in enumerate(arrays.items()):
        if array is None:
            arguments[f"{name}_starts"] = np.zeros(form.count, np.int64)  # is read, and of no account
            continue
        arguments |= {name: array, f"{name}_starts": form.starts(place)}
        arguments |= {f"{name}_part": form.part.strides[place], f"{name}_row": form.row.strides[place]}
    return arguments


def variant(form: Rows, spec: NormSpec, given: bool) -> Variant:
    """What to write code for."""
    return Variant(spec.compute_dtype.itemsize, form.columns.varies, spec.centred, given)


def normalise(
    spec: NormSpec,
    form: Rows,
    x: Array,
    gamma: Array | None,
    beta: Array | None,
    out: Array,
    given: Sequence[Array] | None,
    threads: int,
) -> Sequence[Array]:
    """Normalise by statistics, given or found; what these are, by family."""
    code = compiled_for("forward", variant(form, spec, given is not None), host())
    mean, var = arena.empty((2, form.count), FLOAT) if given is None else given
    arguments = common(form, spec, gamma, {"x": x, "out": out})
    arguments |= {"beta": form.coefficients(beta, 0, spec.compute_dtype), "mean": mean, "var": var}

    code.share(code.pack(arguments), threads, form.count, ("first", "last"))
    return mean, var


def pull_back(
    spec: NormSpec,
    form: Rows,
    x: Array,
    dy: Array,
    gamma: Array | None,
    mean: Array,
    rstd: Array,
    out: Array | None,
    threads: int,
    *,
    given: bool,
) -> Array:
    """Take gradients back; those of gamma and beta, for each place where any differs."""
    code = compiled_for("backward", variant(form, spec, given), host())
    arguments = common(form, spec, gamma, {"x": x, "dy": dy, "out": out})
    own = (*form.outer, form.part)
    pieces = min(PIECES, form.count) if form.columns.varies else form.count
    sums = arena.empty((pieces, 2, form.columns.size) if form.columns.varies else (*(a.size for a in own), 2), FLOAT)
    sums[...] = 0
    arguments |= {"mean": mean, "rstd": rstd, "sums": sums, "families": form.count, "pieces": pieces}
    code.share(code.pack(arguments), threads, pieces, ("first", "last"))
    if form.columns.varies:
        added: Array = np.add.reduce(sums, 0)
        return added
    alike = tuple(place for place, axis in enumerate(own) if not axis.varies)
    total: Array = np.moveaxis(np.add.reduce(sums, alike), -1, 0)
    return total
