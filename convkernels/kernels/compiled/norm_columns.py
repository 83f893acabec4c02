"""Runs of the code for rows across families: first sums of pieces, then results; threads share the pieces."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np

from ...layout import Array
from ...norm_spec import NormSpec
from ...views import slices
from .code import HUGE, TINY
from .column_code import compiled_for
from .isa import host
from .norm_forms import Axis, Columns
from .parallel import run
from .scratch import arena

PIECE = 256 * 2**10
"""Bytes of an array in a piece."""
TOGETHER = 4 * 2**20
"""Bytes of an array's blocks between whose sums and results no others are read, so that they are in the cache still."""
FEWEST = 32
"""Rows of a piece at least: sums take twice the bytes of a row of float64."""


class Pass:
    """Blocks of arrays, cut into pieces of rows."""

    def __init__(self, form: Columns, spec: NormSpec, arrays: dict[str, Array], threads: int) -> None:
        self.form, self.dtype, self.arrays, self.threads = form, spec.compute_dtype, arrays, threads
        self.starts = [form.starts(place) for place in range(len(arrays))]
        self.varies = any(axis.varies for axis in form.outer)
        row_bytes = form.columns * self.dtype.itemsize
        self.height = min(form.row.size, max(FEWEST, PIECE // row_bytes))
        self.pieces = -(-form.row.size // self.height)
        self.together = max(1, TOGETHER // (row_bytes * form.row.size))

    def blocks(self) -> Sequence[slice]:
        """Blocks that are gone through together."""
        return slices(self.form.count, self.together)

    def run(self, which: str, names: Sequence[str], blocks: slice, factors: Array, given: bool = False) -> Array:
        """Run code over blocks, with rows of factors for each; what sums it makes, by block, kind and column."""
        form, many = self.form, blocks.stop - blocks.start
        writes = "out" in names
        sums = arena.empty((0 if writes else many, self.pieces, 2, form.columns), np.dtype(float))
        code = compiled_for(which, self.dtype.itemsize, factors.itemsize == 8, given, host())
        arguments: dict[str, Any] = {
            "pieces": self.pieces,
            "height": self.height,
            "rows": form.row.size,
            "columns": form.columns,
            "factors": factors,
            "sums": sums,
        }
        for name in names:
            place = list(self.arrays).index(name)
            arguments |= {name: self.arrays[name], f"{name}_row": form.row.strides[place]}
            arguments[f"{name}_starts"] = self.starts[place][blocks]

        def work(share: Sequence[int]) -> None:
            code({**arguments, "first": share[0], "last": share[-1] + 1})

        run(work, range(many * self.pieces), self.threads)
        total: Array = sums.sum(1)
        return total

    def write(self, which: str, names: Sequence[str], blocks: slice, factors: list[Array], given: bool = False) -> None:
        """Write results by rows of factors; in float64 for blocks where one is too large or small for float32."""
        stacked = np.stack(factors, 1)
        size = np.abs(stacked)
        steep = size[:, 1:-1]
        ordinary = (size <= HUGE).all((1, 2)) & ((steep >= TINY) | (steep == 0)).all((1, 2))
        start = blocks.start
        for fits, same in groupby(ordinary.tolist()):
            stop = start + len(list(same))
            part = stacked[start - blocks.start : stop - blocks.start]
            self.run(which, names, slice(start, stop), part.astype(self.dtype if fits else float), given)
            start = stop

    def spread(self, values: Array) -> Array:
        """Numbers by block and family, for each column."""
        return np.repeat(values, self.form.member.size, axis=-1)

    @property
    def within(self) -> tuple[Axis, ...]:
        """The axes along which coefficients may differ."""
        return (*self.form.outer, self.form.family, self.form.member)

    def coefficients(self, small: Array | None, default: float) -> Array:
        """Gamma or beta by block, or for all of these, and column."""
        found = self.form.coefficients(small, default, np.dtype(float))
        found = found.reshape([axis.size if axis.varies else 1 for axis in self.within])
        outer = [axis.size if self.varies else 1 for axis in self.form.outer]
        sizes = (*outer, self.form.family.size, self.form.member.size)
        return np.broadcast_to(found, sizes).reshape(-1, self.form.columns)

    def own(self, blocks: slice) -> slice:
        """The part of coefficients that goes with blocks."""
        return blocks if self.varies else slice(None)

    def alike(self, sums: Array) -> Array:
        """Sums by block, or over these, and column: over all axes that have one coefficient."""
        outer = [axis.size if self.varies else 1 for axis in self.form.outer]
        axes = tuple(place for place, axis in enumerate(self.within) if not axis.varies)
        total: Array = sums.reshape(*outer, self.form.family.size, self.form.member.size).sum(axes)
        return total

    def by_family(self, sums: Array) -> Array:
        """Sums by column, over the members of each family."""
        total: Array = sums.reshape(*sums.shape[:-1], self.form.family.size, self.form.member.size).sum(-1)
        return total


def statistics(work: Pass, spec: NormSpec, blocks: slice, first: Array) -> tuple[Array, Array]:
    """The mean and variance by block and family, as in `row_code`: of float64, found about the mean found before."""
    centre, square = first if spec.centred else np.zeros_like(first), np.zeros_like(first)
    for _ in range(2 if work.dtype.itemsize == 8 and spec.centred else 1):
        sums = work.by_family(work.run("squares", ("x",), blocks, work.spread(centre))) / spec.count
        total, square = sums[:, 0], sums[:, 1]
        if spec.centred:
            centre, square = centre + total, np.maximum(square - np.square(total), 0)
    return centre, square


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
    work = Pass(form, spec, {"x": x, "out": out}, threads)
    scales, shifts = work.coefficients(gamma, 1), work.coefficients(beta, 0)
    shape = (form.count, form.family.size)
    mean, var = np.empty((2, *shape)) if given is None else (each.reshape(shape) for each in given)
    places = tuple(slice(0, 1) if axis in spec.reduced else slice(None) for axis in range(x.ndim))
    first = np.nan_to_num(form.statistic(x[places]), nan=0, posinf=0, neginf=0)
    for blocks in work.blocks():
        with arena:
            if given is None:
                mean[blocks], var[blocks] = statistics(work, spec, blocks, first.reshape(shape)[blocks])
            centre = mean[blocks].astype(spec.compute_dtype).astype(float)
            rstd = 1 / np.sqrt(var[blocks] + spec.eps)
            own = work.own(blocks)
            scale = work.spread(rstd) * scales[own]
            shift = shifts[own] - work.spread(mean[blocks] - centre) * scale
            work.write("scale", ("x", "out"), blocks, [work.spread(centre), scale, shift])
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
    work = Pass(form, spec, {"x": x, "dy": dy} | ({} if out is None else {"out": out}), threads)
    scales = work.coefficients(gamma, 1)
    mean, rstd = (each.reshape(form.count, form.family.size) for each in (mean, rstd))
    found = np.zeros((2, form.count if work.varies else 1, form.columns))
    for blocks in work.blocks():
        own = work.own(blocks)
        with arena:
            total, products = np.moveaxis(work.run("products", ("x", "dy"), blocks, work.spread(mean[blocks])), 1, 0)
            of_gamma = products * work.spread(rstd[blocks])
            for target, values in zip(found, (of_gamma, total), strict=True):
                target[own] += values if work.varies else values.sum(0)
            if out is None:
                continue
            share = rstd[blocks] / spec.count
            total, products = (work.by_family(each * scales[own]) for each in (total, products))
            slope = -products * share * np.square(rstd[blocks])
            centre = mean[blocks].astype(spec.compute_dtype).astype(float)
            offset = (centre - mean[blocks]) * slope - (total * share if spec.centred else 0)
            factor = work.spread(rstd[blocks]) * scales[own]
            rows = [work.spread(centre), factor, work.spread(slope), work.spread(offset)]
            work.write("combine", ("x", "dy", "out"), blocks, rows, given)
    return [work.alike(values) for values in found]
