"""How the data of a norm lie in memory: as rows that each belong to one family, or as rows across families.

A *family* is what shares statistics. Axes are put into the order of memory and joined where they lie on end, are alike
summed over or not, and have alike coefficients of their own or not. What is left is one of two forms, or neither:

    Rows      families x parts x rows x columns: a row's numbers are of one family (NCHW; a layer norm's samples)
    Columns   blocks x rows x families x members: a row goes through many families (NHWC)

Coefficients differ by family, and by part or by column, in the first; by block, family and member, or by row, in the
second.

The result of a sample must not depend on the others, bit for bit, wherever these lie. So samples that are normalised
each by itself, or by given statistics, are families or blocks of their own, and never part of a row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, reduce
from typing import Any

import numpy as np

from ...layout import Array
from ...norm_spec import NormSpec
from ...window import Ints

FLOAT = np.dtype(float)
THREADS = 16
"""Threads at most: more do not make memory faster, and each has scratch of its own."""
STRIP = 2**19
"""Bytes of a strip of rows: half of a second-level cache."""
NARROW = 1536
"""Bytes of a row in a strip at least: what is shorter is not prefetched, and rows a power of 2 apart share the sets of
the cache, so that 784 rows of 512 channels took 1.5 times as long in strips of 128."""
SHORT_ROW = 512
"""The same of an array that the cache holds whole: 196 rows of 512 channels took 34 us, 25 so; gradients 52, 37."""
SHORT = 16
"""Columns of a row of one family below which rows across families are faster, if there are such."""


@dataclass(frozen=True)
class Axis:
    """Some axes joined: their cells, each array's strides, and the step in coefficients (0: they do not differ)."""

    size: int = 1
    summed: bool = False
    varies: bool = False
    strides: Ints = (0, 0, 0)
    step: int = 0
    batch: bool = False


ONE = Axis()


def offsets(axes: Sequence[Axis], steps: Sequence[int]) -> Array:
    """Where each place along some axes is, from the first."""
    found = np.zeros(1, np.int64)
    for axis, step in zip(axes, steps, strict=True):
        found = np.add.outer(found, np.arange(axis.size) * step).reshape(-1)
    return found


@dataclass(frozen=True)
class Form:
    """The order of axes in memory, the sizes in it of those that statistics and coefficients differ along, else ones.

    `outer` are the axes that statistics differ along, apart from one within the rows.
    """

    order: Ints
    kept: Ints
    varying: Ints
    outer: tuple[Axis, ...]

    @property
    def count(self) -> int:
        """The places along the outer axes: the families, or the blocks."""
        return math.prod(axis.size for axis in self.outer)

    def starts(self, array: int) -> Array:
        """Where in an array each of these begins, in bytes."""
        return offsets(self.outer, [axis.strides[array] for axis in self.outer])

    def ordered(self, small: Array) -> Array:
        """A small array with axes of one, its axes in the order of memory."""
        return small.transpose(self.order)

    def statistic(self, small: Array) -> Array:
        """A statistic in float64, by family end on end."""
        return np.ascontiguousarray(np.broadcast_to(self.ordered(small), self.kept), np.float64).reshape(-1)

    def is_plain(self, small: Array | None, sizes: Ints) -> bool:
        """Whether a small array, if there is one, lies end on end in the order of memory, with those sizes."""
        if small is None:
            return True
        ordered = self.ordered(small)
        return ordered.shape == sizes and ordered.flags.c_contiguous and ordered.flags.aligned

    def coefficients(self, small: Array | None, default: float, dtype: np.dtype[Any]) -> Array:
        """A coefficient for each place where any differs, end on end."""
        if small is None:
            return np.full(math.prod(self.varying), default, dtype)
        ordered = self.ordered(small)
        if ordered.shape != self.varying:
            ordered = np.broadcast_to(ordered, self.varying)
        return np.ascontiguousarray(ordered, dtype).reshape(-1)

    def collect(self, found: Array, total: Array | None) -> None:
        """Add sums for each place where coefficients differ to a coefficient's gradient."""
        if total is None:
            return
        target = self.ordered(total)
        axes = tuple(axis for axis, size in enumerate(target.shape) if size == 1)
        target += found.reshape(self.varying).sum(axes, keepdims=True)


def summed(sums: Array, axes: Ints) -> Array:
    """Sums over some axes, where there are any."""
    if not axes:
        return sums
    found = np.moveaxis(sums, axes, range(len(axes)))
    parts = found.reshape(-1, *found.shape[len(axes) :])
    with np.errstate(all="ignore"):  # as compiled code is silent of what is not finite
        total: Array = reduce(np.add, parts)  # in their order, as `norm_totals` adds them
    return total


def coefficients(form: Form, spec: NormSpec, **given: Array | None) -> list[Array]:
    """Gamma, beta or both, as steps take them."""
    default = {"gamma": 1, "beta": 0}
    return [form.coefficients(small, default[name], spec.compute_dtype) for name, small in given.items()]


@dataclass(frozen=True)
class Rows(Form):
    """Rows of one family each; coefficients differ by family and part, or by column."""

    part: Axis
    row: Axis
    columns: Axis


@dataclass(frozen=True)
class Columns(Form):
    """Rows across families; coefficients differ by block, family and member, or by row.

    Rows may be cut into strips of families, the last of the outer axes then.
    """

    row: Axis
    family: Axis
    member: Axis
    strips: int = 1

    @property
    def columns(self) -> int:
        """The numbers in a row."""
        return self.family.size * self.member.size

    @property
    def whole(self) -> Columns:
        """The same with strips joined again."""
        if self.strips == 1:
            return self
        family = replace(self.family, size=self.strips * self.family.size)
        return replace(self, outer=self.outer[:-1], family=family, strips=1)


def form_of(
    spec: NormSpec,
    coefficients: Sequence[Array | None],
    arrays: Sequence[Array],
    *,
    given: bool = False,
    backward: bool = False,
) -> Rows | Columns | None:
    """How data of a norm lie in memory, all arrays alike; None if in neither form, or not in the spec's type.

    Rows of one family are also rows of many members; a gradient takes them so, for then what it sums down the columns
    gives the gradients of coefficients too.
    """
    dtype = spec.compute_dtype
    if not arrays[0].size or any(a.dtype != dtype or not a.dtype.isnative or not a.flags.aligned for a in arrays):
        return None
    shapes = tuple(small.shape for small in coefficients if small is not None)
    return _form(spec, shapes, tuple(array.strides for array in arrays), given, backward)


@lru_cache(maxsize=512)
def _form(
    spec: NormSpec, shapes: tuple[Ints, ...], strides: tuple[Ints, ...], given: bool, backward: bool
) -> Rows | Columns | None:
    varying = np.broadcast_shapes(*shapes, (1,) * len(spec.seen_shape))
    summed = [axis for axis in spec.reduced if not (given and axis == 0)]
    order = tuple(sorted(range(len(varying)), key=lambda axis: -abs(strides[0][axis])))
    kept = tuple(1 if axis in summed else spec.seen_shape[axis] for axis in order)
    axes: list[Axis] = []
    step = math.prod(varying)
    for axis in order:
        step //= varying[axis]
        new = Axis(
            spec.seen_shape[axis],
            axis in summed,
            varying[axis] > 1,
            tuple(each[axis] for each in strides),
            step if varying[axis] > 1 else 0,
            axis == 0 and axis not in summed,
        )
        if new.size > 1:
            axes.append(new)
            join_last(axes)
    if not axes or any(stride != spec.compute_dtype.itemsize for stride in axes[-1].strides):
        return None
    common = (order, kept, tuple(varying[axis] for axis in order))
    rows, columns = as_rows(axes, common), as_columns(axes, common)
    if rows and columns and columns.family is ONE:
        return columns if backward else rows
    if not columns or (rows and rows.columns.size >= SHORT):
        return rows
    return columns if given else in_strips(columns, spec.compute_dtype.itemsize)


def in_strips(form: Columns, size: int) -> Columns:
    """Rows cut into strips of families: each is a block, which threads share and need nothing of others for.

    If coefficients differ by row, there are so many that the cache holds one till the end: gradients of 128 rows of
    3136 columns took 335 us whole, and 290 so.
    """
    line, arrays = form.columns * size, len(form.row.strides) - 1  # but for the one that is written
    least = max(1, -(-form.row.size * line * arrays // STRIP)) if form.row.varies else 2
    narrow = NARROW if form.row.varies or form.row.size * line > STRIP else SHORT_ROW
    families = form.family.size
    most = min(families, line // narrow)
    strips = next((strips for strips in range(least, most + 1) if families % strips == 0), 1)
    if strips == 1:
        return form
    few = families // strips
    strides = tuple(few * stride for stride in form.family.strides)
    apart = replace(form.family, size=strips, strides=strides, step=few * form.family.step)
    return replace(form, outer=(*form.outer, apart), family=replace(form.family, size=few), strips=strips)


def join_last(axes: list[Axis]) -> None:
    """Join the last axis with the one before it if they are alike and lie on end."""
    if len(axes) < 2:
        return
    one, two = axes[-2:]
    alike = (one.summed, one.varies, one.batch, two.batch) == (two.summed, two.varies, False, False)
    if alike and one.strides == tuple(two.size * stride for stride in two.strides):
        axes[-2:] = [replace(two, size=one.size * two.size)]


def as_rows(axes: Sequence[Axis], common: tuple[Ints, Ints, Ints]) -> Rows | None:
    """The form of rows of one family, if it is one."""
    *others, columns = axes
    outer = tuple(axis for axis in others if not axis.summed)
    parts = [axis for axis in others if axis.summed and axis.varies]
    rows = [axis for axis in others if axis.summed and not axis.varies]
    if not columns.summed or len(parts) > 1 or len(rows) > 1:
        return None
    if columns.varies and any(axis.varies for axis in others):
        return None
    return Rows(*common, outer, (*parts, ONE)[0], (*rows, ONE)[0], columns)


def as_columns(axes: Sequence[Axis], common: tuple[Ints, Ints, Ints]) -> Columns | None:
    """The form of rows across families, if it is one; of one family, if what lies outside its members is no family."""
    *others, family = axes
    member = ONE
    if family.summed and others:
        *others, family, member = axes
        on_end = family.strides == tuple(member.size * stride for stride in member.strides)
        if family.summed or family.batch or not on_end:
            others, family = [*others, family], ONE
    outer = tuple(axis for axis in others if not axis.summed)
    rows = [axis for axis in others if axis.summed]
    if family.summed or family.batch or len(rows) != 1:
        return None
    if rows[0].varies and any(axis.varies for axis in (*outer, family, member)):
        return None
    return Columns(*common, outer, rows[0], family, member)
