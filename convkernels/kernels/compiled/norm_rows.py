"""Runs of the code for families whose columns lie side by side; threads share the families."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ...layout import Array
from ...norm_spec import NormSpec
from ...window import Ints
from .function import Work
from .isa import Isa
from .norm_forms import THREADS, Rows, offsets, summed
from .norm_totals import Shares, add_up, leading
from .row_code import Variant
from .row_gradients import compiled_for

PIECES = THREADS
"""Parts of the families whose shares in coefficients' gradients are summed apart, at most."""
PIECE = 2**15
"""Cells of such a part at least: its sums take as long to add up as to gather from some rows."""


def pieces_of(form: Rows) -> int:
    """How many parts there are, which depends on the problem alone."""
    return max(1, min(PIECES, form.count, form.count * form.row.size * form.columns.size // PIECE))


def needs(form: Rows) -> int:
    """Bytes of scratch at most, coefficients and tables included."""
    sums = 2 * max(pieces_of(form) * form.columns.size, form.count * form.part.size)
    return 8 * (sums + 3 * math.prod(form.varying) + 8 * form.count)


def common(form: Rows, spec: NormSpec, arrays: Sequence[str]) -> dict[str, Any]:
    """What both functions take, the arrays in their order in the form."""
    size = spec.compute_dtype.itemsize
    on_end = form.row.size == 1 and form.part.strides[0] == form.columns.size * size
    arguments = {
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
    for place, name in enumerate(arrays):
        arguments |= {f"{name}_starts": form.starts(place)}
        arguments |= {f"{name}_part": form.part.strides[place], f"{name}_row": form.row.strides[place]}
    return arguments


def variant(form: Rows, spec: NormSpec, given: bool) -> Variant:
    """What to write code for."""
    return Variant(spec.compute_dtype.itemsize, form.columns.varies, spec.centred, given)


@lru_cache(maxsize=256)
def forward(spec: NormSpec, form: Rows, given: bool, threads: int, isa: Isa) -> Work:
    """What normalises by statistics, given or found."""
    code = compiled_for("forward", variant(form, spec, given), isa)
    later = ("x", "out", "gamma", "beta", "mean", "var")
    arguments = common(form, spec, later[:2])
    return Work([code.step(arguments, later, threads, form.count, ("first", "last"))], {})


@lru_cache(maxsize=256)
def backward(spec: NormSpec, form: Rows, given: bool, threads: int, writes: bool, totals: bool, isa: Isa) -> Work:
    """What takes gradients back; with `writes` that of x, too, and with `totals` those of coefficients to the end."""
    code = compiled_for("backward", variant(form, spec, given), isa)
    arrays = ("x", "dy", "out")[: 3 if writes else 2]
    pieces = pieces_of(form) if form.columns.varies else form.count
    nothing = {} if writes else {"out_starts": np.zeros(form.count, np.int64)}  # is read, and of no account
    arguments = common(form, spec, arrays) | {"families": form.count, "pieces": pieces, **nothing}
    sizes = (pieces, 2, form.columns.size) if form.columns.varies else (2, *(a.size for a in (*form.outer, form.part)))
    later = (*arrays, "gamma", "mean", "var", "sums", "rstd")
    steps = [code.step(arguments, later, threads, pieces, ("first", "last"))]
    found = shares(form) if totals else None
    if found:
        steps.append(add_up(form, spec, found, later, isa))
    return Work(steps, {"sums": sizes, "rstd": (form.count,)})


def shares(form: Rows) -> Shares | None:
    """Where the shares in coefficients' gradients are, if they can be added up one after the other."""
    if form.columns.varies:
        return Shares("sums", pieces_of(form), 2 * form.columns.size, form.columns.size)
    sizes = tuple(axis.size for axis in (*form.outer, form.part))
    many, count = math.prod(sizes), leading(alike(form), sizes)
    return Shares("sums", count, many // count, many) if count else None


def alike(form: Rows) -> Ints:
    """The places of axes that coefficients do not differ along, of those that sums do."""
    return tuple(place for place, axis in enumerate((*form.outer, form.part)) if axis.size > 1 and not axis.varies)


def gathered(form: Rows, found: Mapping[str, Array]) -> Array:
    """The gradients of gamma and beta, for each place where any differs."""
    sums = found["sums"]
    if form.columns.varies:
        return sums[0] if len(sums) == 1 else summed(sums, (0,))
    return summed(sums, tuple(1 + place for place in alike(form)))
