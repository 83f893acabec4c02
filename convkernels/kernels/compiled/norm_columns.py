"""Runs of the code for rows across families; threads share the blocks, or, where these are few, their pieces."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from ...layout import Array
from ...norm_spec import NormSpec
from .column_code import FIRST, LINES, MEAN, SETTLE, SUM, WRITE, Variant, compiled_for
from .isa import host
from .norm_forms import THREADS, Columns, offsets
from .scratch import arena

PIECE = 256 * 2**10
"""Bytes of an array in a piece."""
FLOAT = np.dtype(float)
FEWEST = 32
"""Rows of a piece at least: sums take twice the bytes of a row of float64."""


def piece_rows(form: Columns, size: int) -> int:
    """How many rows a piece has."""
    return min(form.row.size, max(FEWEST, PIECE // (form.columns * size)))


def needs(form: Columns, size: int) -> int:
    """Bytes of scratch at most, coefficients and tables included."""
    pieces = -(-form.row.size // piece_rows(form, size))
    sums = 2 * pieces * (form.count + THREADS)
    return 8 * (form.columns * (sums + LINES * THREADS) + 3 * math.prod(form.varying) + 8 * math.prod(form.kept))


class Passes:
    """Blocks of arrays to be gone through: their scratch, and the arguments for it."""

    def __init__(
        self, which: str, spec: NormSpec, form: Columns, arrays: dict[str, Array | None], given: bool, threads: int
    ) -> None:
        self.form, self.threads = form, threads
        size = spec.compute_dtype.itemsize
        height = piece_rows(form, size)
        self.pieces = -(-form.row.size // height)
        self.keeps = which == "backward"
        self.sums = self.sums_of(form.count if self.keeps else 0)
        self.code = compiled_for(which, Variant(size, spec.centred, given), host())
        self.arguments: dict[str, Any] = {
            "first_piece": 0,
            "last_piece": self.pieces,
            "pieces": self.pieces,
            "height": height,
            "rows": form.row.size,
            "families": form.family.size,
            "members": form.member.size,
            "count": float(spec.count),
            "eps": spec.eps,
            "sums": self.sums,
            "sum_step": int(self.keeps),
            "coefficient_starts": self.coefficient_starts(),
        }
        for place, (name, array) in enumerate(arrays.items()):
            # The table of an array that is not there is read, and of no account.
            starts = np.zeros(form.count, np.int64) if array is None else form.starts(place)
            self.arguments |= {name: array, f"{name}_starts": starts}
            if array is not None:
                self.arguments[f"{name}_row"] = form.row.strides[place]

    def coefficient_starts(self) -> Array:
        """Where the coefficients of each block begin, in bytes."""
        steps, step = [], 8 * self.form.columns
        for axis in reversed(self.form.outer):
            steps.append(step if axis.varies else 0)
            step *= axis.size if axis.varies else 1
        return offsets(self.form.outer, steps[::-1])

    def coefficients(self, small: Array | None, default: float) -> Array:
        """Gamma or beta by column, and by block where it differs."""
        axes = (*self.form.outer, self.form.family, self.form.member)
        found = self.form.coefficients(small, default, np.dtype(float))
        found = found.reshape([axis.size if axis.varies else 1 for axis in axes])
        sizes = [axis.size if axis.varies else 1 for axis in self.form.outer]
        return np.ascontiguousarray(np.broadcast_to(found, (*sizes, self.form.family.size, self.form.member.size)))

    def alike(self, sums: Array) -> Array:
        """Sums by block and column, over all axes that have one coefficient."""
        axes = (*self.form.outer, self.form.family, self.form.member)
        same = tuple(place for place, axis in enumerate(axes) if not axis.varies)
        total: Array = sums.reshape([axis.size for axis in axes]).sum(same)
        return total

    def sums_of(self, blocks: int) -> Array:
        """Memory for the sums of some blocks."""
        return arena.empty((blocks, self.pieces, 2, self.form.columns), FLOAT)

    def run(self, *phases: int) -> None:
        """Go through the phases: each thread through all of them with its blocks, or all with the pieces of a block."""
        blocks = self.form.count
        lines = {"lines": 8 * LINES * self.form.columns, "mode": 8}
        if self.threads == 1 or blocks >= self.threads:
            if not self.keeps:
                lines["sums"] = 8 * 2 * self.pieces * self.form.columns
            packed = self.code.pack({**self.arguments, "phases": sum(phases)})
            self.code.share(packed, self.threads, blocks, ("first", "last"), lines)
            return
        common: dict[str, Any] = {name: arena.empty((size // 8,), FLOAT) for name, size in lines.items()}
        if not self.keeps:
            common["sums"] = self.sums_of(1)
        for block, phase in product(range(blocks), phases):
            packed = self.code.pack({**self.arguments, **common, "phases": phase, "first": block, "last": block + 1})
            threads = self.threads if phase in (SUM, WRITE) else 1
            self.code.share(packed, threads, self.pieces, ("first_piece", "last_piece"))


def normalise(
    spec: NormSpec,
    form: Columns,
    x: Array,
    gamma: Array | None,
    beta: Array | None,
    out: Array,
    given: Sequence[Array] | None,
    threads: int,
) -> Sequence[Array]:
    """Normalise by statistics, given or found; what these are, by block and family."""
    passes = Passes("forward", spec, form, {"x": x, "out": out}, given is not None, threads)
    mean, var = arena.empty((2, form.count * form.family.size), FLOAT) if given is None else given
    coefficients = {"gamma": passes.coefficients(gamma, 1), "beta": passes.coefficients(beta, 0)}
    passes.arguments |= {**coefficients, "mean": mean, "var": var}
    if given is not None:
        passes.run(SETTLE, WRITE)
    elif spec.compute_dtype.itemsize == 8 and spec.centred:
        passes.run(FIRST, SUM, SETTLE)
        passes.run(MEAN, SUM, SETTLE, WRITE)
    else:
        passes.run(FIRST, SUM, SETTLE, WRITE)
    return mean, var


def pull_back(
    spec: NormSpec,
    form: Columns,
    x: Array,
    dy: Array,
    gamma: Array | None,
    mean: Array,
    rstd: Array,
    out: Array | None,
    threads: int,
    *,
    given: bool,
) -> Sequence[Array]:
    """Take gradients back; those of gamma and beta, for each place where any differs."""
    passes = Passes("backward", spec, form, {"x": x, "dy": dy, "out": out}, given, threads)
    passes.arguments |= {"gamma": passes.coefficients(gamma, 1), "mean": mean, "rstd": rstd}
    passes.run(MEAN, SUM, SETTLE, *(() if out is None else (WRITE,)))
    return [passes.alike(passes.sums[:, 0, which]) for which in (1, 0)]
