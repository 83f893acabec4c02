"""Runs of the code for families whose columns lie side by side; threads share the families."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...layout import Array
from ...norm_spec import NormSpec
from .isa import host
from .norm_forms import Rows, offsets
from .parallel import run
from .row_code import Variant, compiled_for

PIECES = 16
"""Parts of the families whose shares in coefficients' gradients are summed apart: as many threads can be at work."""


def common(form: Rows, spec: NormSpec, gamma: Array | None, arrays: dict[str, Array | None]) -> dict[str, Any]:
    """What both functions take."""
    size = spec.compute_dtype.itemsize
    arguments = {
        "gamma": form.coefficients(gamma, 1, spec.compute_dtype),
        "count": float(spec.count),
        "eps": spec.eps,
        "parts": form.part.size,
        "rows": form.row.size,
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
    mean, var = np.empty((2, form.count)) if given is None else given
    arguments = common(form, spec, gamma, {"x": x, "out": out})
    arguments |= {"beta": form.coefficients(beta, 0, spec.compute_dtype), "mean": mean, "var": var}

    def work(share: Sequence[int]) -> None:
        code({**arguments, "first": share[0], "last": share[-1] + 1})

    run(work, range(form.count), threads)
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
    arguments |= {"mean": mean, "rstd": rstd}
    if form.columns.varies:
        return _down_the_columns(code, form, arguments, threads)
    own = (*form.outer, form.part)
    sums = np.empty((*(axis.size for axis in own), 2))
    arguments["sums"] = sums

    def work(share: Sequence[int]) -> None:
        code({**arguments, "first": share[0], "last": share[-1] + 1})

    run(work, range(form.count), threads)
    alike = tuple(place for place, axis in enumerate(own) if not axis.varies)
    total: Array = np.moveaxis(sums.sum(alike), -1, 0)
    return total


def _down_the_columns(code: Any, form: Rows, arguments: dict[str, Any], threads: int) -> Array:
    """As many sums as there are pieces of the families, whatever the number of threads."""
    pieces = min(PIECES, form.count)
    sums = np.zeros((pieces, 2, form.columns.size))

    def work(share: Sequence[int]) -> None:
        for piece in share:
            first, last = (form.count * place // pieces for place in (piece, piece + 1))
            code({**arguments, "dgamma": sums[piece, 0], "dbeta": sums[piece, 1], "first": first, "last": last})

    run(work, range(pieces), threads)
    total: Array = sums.sum(0)
    return total
