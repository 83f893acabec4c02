"""Runs of the code for rows across families; threads share the blocks, or, where these are few, their pieces."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import product
from math import gcd
from typing import Any

import numpy as np

from ...layout import Array
from ...norm_spec import NormSpec
from ...window import Ints
from .column_block import FIRST, GROUP, LINES, MEAN, SETTLE, SUM, WRITE, Variant
from .column_code import compiled_for
from .function import Step, Work
from .isa import Isa, paired
from .norm_forms import THREADS, Columns, offsets, summed
from .norm_totals import Shares, add_up

PIECE = 256 * 2**10
"""Bytes of an array in a piece."""
WAY = 4096
"""Bytes after which memory falls on the same lines of the fastest cache."""
SUMMED = {False: {1: 4}, True: {1: 8}}
WRITTEN = {1: 1, 2: 4}
"""Rows taken together where all, or every second, fall on the same lines, which then push each other out: 14x14 of 1024
channels were written in 114 us by 8 rows, in 46 by one. On processors with two units for whole vectors, whose fastest
cache has 12 lines for each place, they had their gradients summed and written in 134 us by 4 rows, in 123 by 8."""
PIECES = 32
"""Pieces at most: each has sums, and 50,000 rows of 256 columns in 392 pieces had more than memory was promised for."""
FEWEST = 32
"""Rows of a piece at least: sums take twice the bytes of a row of float64."""


def piece_rows(form: Columns, size: int) -> int:
    """How many rows a piece has; an even number of pieces are about equal, for threads."""
    pieces = min(PIECES, -(-form.row.size // max(FEWEST, PIECE // (form.columns * size))))
    return -(-form.row.size // (pieces if pieces == 1 else pieces + pieces % 2))


def needs(form: Columns, size: int) -> int:
    """Bytes of scratch at most, coefficients and tables included."""
    pieces = -(-form.row.size // piece_rows(form, size))
    sums = 2 * pieces * (form.count + min(form.count, THREADS))
    across = 2 * form.count * form.row.size if form.row.varies else 0
    small = 3 * math.prod(form.varying) + 8 * math.prod(form.kept)
    return 8 * (form.columns * (sums + LINES * THREADS) + across + small)


class Passes:
    """Blocks of arrays to be gone through: their scratch, and the arguments for it."""

    def __init__(
        self, which: str, spec: NormSpec, form: Columns, arrays: Sequence[str], given: bool, threads: int, isa: Isa
    ) -> None:
        self.form, self.threads, size = form, threads, spec.compute_dtype.itemsize
        height, period = piece_rows(form, size), WAY // gcd(WAY, form.whole.columns * size)
        self.pieces = -(-form.row.size // height)
        # Sums along rows are all that the gradients of coefficients are made of, where these differ by row.
        self.keeps = which == "backward" and not form.row.varies
        self.scratch: dict[str, Ints] = {}
        self.runs: list[Callable[[Sequence[str]], Step]] = []
        alone = form.member.size == 1
        steps = form.family.varies if alone else form.member.varies
        self.code = compiled_for(which, Variant(size, spec.centred, given, form.row.varies, alone, steps), isa)
        self.later = [*arrays, *(("gamma", "beta") if which == "forward" else ("gamma",)), "mean", "var"]
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
            "summed": SUMMED[paired(isa)].get(period, GROUP),
            "written": WRITTEN.get(period, GROUP),
            "coefficient_starts": offsets(form.outer, [axis.step * size for axis in form.outer]),
            "family_step": form.family.step * size,
            "member_step": form.member.step * size,
            "row_step": form.row.step * size,
        }
        for place, name in enumerate(arrays):
            self.arguments |= {f"{name}_starts": form.starts(place), f"{name}_row": form.row.strides[place]}
        kept = form.whole if self.keeps else form
        self.arguments["sums_line"] = 8 * kept.columns
        self.arguments["sums_starts"] = np.zeros(form.count, np.int64)
        if self.keeps:
            # Strips have their columns of a block's.
            sizes, strips = self.sums_of(kept.count, kept), np.arange(form.strips) * 8 * form.columns
            self.keep("sums", sizes)
            self.arguments["sums_starts"] = np.add.outer(np.arange(kept.count) * 8 * math.prod(sizes[1:]), strips)
        if which == "backward":
            if form.row.varies:
                self.keep("across", (form.count, 2, form.row.size))
            if "out" not in arrays:  # its table is read, and of no account
                self.arguments["out_starts"] = np.zeros(form.count, np.int64)

    def sums_of(self, blocks: int, form: Columns) -> Ints:
        """The sizes of the sums of some blocks."""
        return blocks, self.pieces, 2, form.columns

    def keep(self, name: str, sizes: Ints) -> None:
        """Ask for numbers that all threads share."""
        if name not in self.scratch:
            self.scratch[name] = sizes
            self.later.append(name)

    def go(self, *phases: int) -> None:
        """Go through the phases: each thread through all of them with its blocks, or all with the pieces of a block."""
        blocks, columns = self.form.count, self.form.columns
        if self.threads == 1 or blocks >= self.threads:
            lines = {"lines": 8 * LINES * columns, "mode": 8}
            if not self.keeps:
                lines["sums"] = 8 * math.prod(self.sums_of(1, self.form))
            given = {**self.arguments, "phases": sum(phases)}
            self.add(given, self.threads, blocks, ("first", "last"), lines)
            return
        self.keep("lines", (LINES * columns,))
        self.keep("mode", (1,))
        self.keep("sums", self.sums_of(1, self.form))
        for block, phase in product(range(blocks), phases):
            given = {**self.arguments, "phases": phase, "first": block, "last": block + 1}
            threads, span = self.threads if phase in (SUM, WRITE) else 1, ("first_piece", "last_piece")
            # In one part each: a thread that writes what it summed finds it in its own cache.
            self.add(given, threads, self.pieces, span, None, 1)

    def add(self, given: Mapping[str, Any], *how: Any) -> None:
        """Note a step, which is made when all numbers were asked for."""
        self.runs.append(lambda later: self.code.step(given, later, *how))

    def work(self, totals: Callable[[Sequence[str]], Step] | None = None) -> Work:
        """All of it, and totals of what was found, if they are wanted."""
        steps = [make(self.later) for make in (*self.runs, *([totals] if totals else []))]
        return Work(steps, self.scratch)


@lru_cache(maxsize=256)
def forward(spec: NormSpec, form: Columns, given: bool, threads: int, isa: Isa) -> Work:
    """What normalises by statistics, given or found."""
    passes = Passes("forward", spec, form, ("x", "out"), given, threads, isa)
    if given:
        passes.go(SETTLE, WRITE)
    elif spec.compute_dtype.itemsize == 8 and spec.centred:
        passes.go(FIRST, SUM, SETTLE)
        passes.go(MEAN, SUM, SETTLE, WRITE)
    else:
        passes.go(FIRST, SUM, SETTLE, WRITE)
    return passes.work()


@lru_cache(maxsize=256)
def backward(spec: NormSpec, form: Columns, given: bool, threads: int, writes: bool, totals: bool, isa: Isa) -> Work:
    """What takes gradients back; with `writes` that of x, too, and with `totals` those of coefficients to the end."""
    passes = Passes("backward", spec, form, ("x", "dy", "out")[: 3 if writes else 2], given, threads, isa)
    passes.go(MEAN, SUM, SETTLE, *((WRITE,) if writes else ()))
    found = shares(form, passes.pieces) if totals else None
    return passes.work(found and (lambda later: add_up(form, spec, found, later, isa)))


def shares(form: Columns, pieces: int = 1) -> Shares | None:
    """Where the shares in coefficients' gradients are, if they can be added up one after the other."""
    if form.row.varies:
        return Shares("across", form.count, 2 * form.row.size, form.row.size)
    form = form.whole
    if any(axis.varies for axis in form.outer) or not all(a.varies or a.size == 1 for a in (form.family, form.member)):
        return None
    return Shares("sums", form.count, 2 * pieces * form.columns, form.columns, gamma_first=False)


def gathered(form: Columns, found: Mapping[str, Array]) -> Array:
    """The gradients of gamma and beta, for each place where any differs."""
    if form.row.varies:
        across = found["across"]
        return across[0] if len(across) == 1 else summed(across, (0,))
    form = form.whole
    if form.count == 1 and all(axis.varies or axis.size == 1 for axis in (form.family, form.member)):
        return found["sums"][0, 0, ::-1]
    axes = (*form.outer, form.family, form.member)
    sums = found["sums"][:, 0, ::-1].swapaxes(0, 1).reshape(2, *(axis.size for axis in axes))
    alike = tuple(place for place, axis in enumerate(axes, 1) if axis.size > 1 and not axis.varies)
    return summed(sums, alike)
