"""Plans that first rearrange the weights: for one call, or once for many."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple, Protocol

import numpy as np

from ...layout import Array
from ...spec import ConvSpec
from ...window import Ints
from .blocks import pack, together
from .copies import copy_plan, turner
from .isa import Isa
from .machine import address, behind, tables
from .operands import Memory, Problem
from .parallel import run
from .parts import Workspace
from .scratch import arena, rounded

BYTE = np.dtype(np.uint8)


class Weighted(Protocol):
    """What is done with a problem's arrays, as far as it is known without data."""

    @property
    def bytes(self) -> int:
        """Of the weights rearranged; none where they are read as they lie."""

    def rearrange(self, w: Array, target: Array | None) -> Array:
        """Rearrange the weights into so many bytes, if there are any; what to read, which begins there then."""

    def compute(self, x: Array, weights: Array, bias: Array | None, out: Array) -> None:
        """Compute by rearranged weights."""


def execute(what: Weighted, x: Array, w: Array, bias: Array | None, out: Array) -> None:
    """Compute."""
    if not what.bytes:
        what.compute(x, what.rearrange(w, None), bias, out)
        return
    with arena:
        what.compute(x, what.rearrange(w, arena.empty((what.bytes,), BYTE)), bias, out)


class Copied(NamedTuple):
    """What is done with weights that are copied first, to other strides; arguments of that but for two addresses."""

    inner: Weighted
    copy: int
    groups: int
    words: Array
    table: Array

    @property
    def bytes(self) -> int:
        """Of the copy, and of the weights rearranged from it."""
        return rounded(self.inner.bytes) + self.copy

    def rearrange(self, w: Array, target: Array | None) -> Array:
        """Copy, and rearrange."""
        assert target is not None, "there are bytes"
        # What is read stands first, as where several plans' weights are kept.
        copy, words = target[rounded(self.inner.bytes) :], self.words.copy()
        words[-2:] = address(copy), address(w)
        run(pack, words, self.groups, 1)
        return self.inner.rearrange(copy, target if self.inner.bytes else None)

    def compute(self, x: Array, weights: Array, bias: Array | None, out: Array) -> None:
        """Compute by rearranged weights."""
        self.inner.compute(x, weights, bias, out)


def copied(inner: Weighted, problem: Problem, memory: Memory, to: Memory, isa: Isa) -> Copied:
    """What is done with weights that lie as they do in `to`, after copying them there."""
    _, groups, channels, columns, taps, size = problem
    copy = copy_plan((columns, channels, *taps), to.w, memory.w, size)
    table = together(turner(size, isa), copy, copy)
    words = np.array([*tables(table), 1, to.w_group, 0, memory.w_group, 0, 0, 0], np.int64)
    return Copied(inner, groups * columns * channels * math.prod(taps) * size, groups, words, table)


class Parts(NamedTuple):
    """What is done with some columns at a time; all their weights are rearranged once where they are kept."""

    plans: tuple[Weighted, ...]
    columns: tuple[slice, ...]
    # Where each begins in w and in what is written, in bytes.
    starts: tuple[Ints, ...]
    # Where each one's weights are, if they are kept, and where the last ones end.
    places: Ints

    @property
    def bytes(self) -> int:
        """None, unless they are kept: each part has its own for as long as it takes."""
        return self.places[-1]

    def rearrange(self, w: Array, target: Array | None) -> Array:
        """Take the weights as they lie, or rearrange them for each part."""
        if target is None:
            return w
        for plan, (start, _), place in zip(self.plans, self.starts, self.places, strict=False):
            plan.rearrange(behind(w, start), target[place:])
        return target

    def compute(self, x: Array, weights: Array, bias: Array | None, out: Array) -> None:
        """Compute one part after the other."""
        for number, (plan, columns, (start, begin)) in enumerate(
            zip(self.plans, self.columns, self.starts, strict=True)
        ):
            some, to = None if bias is None else bias[columns], behind(out, begin)
            if self.bytes:
                plan.compute(x, weights[self.places[number] :], some, to)
            else:
                execute(plan, x, behind(weights, start), some, to)


def in_parts(
    find: Callable[..., Weighted],
    workspace: Workspace,
    spec: ConvSpec,
    x: Ints,
    w: Ints,
    out: Ints,
    limit: int,
    threads: int,
    *,
    kept: bool,
) -> Weighted:
    """The plan of a problem, or of as many parts as there have to be."""
    columns = workspace.parts(spec, limit)
    plans = tuple(find(workspace.part(spec, some), x, w, out, limit, threads, kept=kept) for some in columns)
    if len(plans) == 1:
        return plans[0]
    step = w[0] if workspace.side == "out_channels" else w[1]
    starts = tuple((some.start * step, some.start * out[1]) for some in columns)
    return Parts(plans, columns, starts, places_of(plans, kept=kept))


def places_of(plans: Sequence[Weighted], *, kept: bool) -> Ints:
    """Where the weights of each plan are, if all rearrange them and they are kept, and where the last ones end."""
    sizes = [rounded(plan.bytes) for plan in plans]
    return tuple(accumulate(sizes, initial=0)) if kept and all(sizes) else (0,)
