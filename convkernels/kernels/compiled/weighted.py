"""Plans that first rearrange the weights: for one call, or once for many."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import numpy as np

from ...layout import Array
from .blocks import pack, together
from .copies import copy_plan, turner
from .isa import Isa
from .machine import address, tables
from .operands import Memory, Problem
from .parallel import run
from .scratch import arena, rounded

BYTE = np.dtype(np.uint8)


class Weighted(Protocol):
    """What is done with a problem's arrays, as far as it is known without data."""

    @property
    def bytes(self) -> int:
        """Of the weights rearranged; none where they are read as they lie."""

    def rearrange(self, w: Array, target: Array | None) -> Array:
        """Rearrange the weights into so many bytes, if there are any; what to read."""

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
        return rounded(self.copy) + self.inner.bytes

    def rearrange(self, w: Array, target: Array | None) -> Array:
        """Copy, and rearrange."""
        assert target is not None, "there are bytes"
        words = self.words.copy()
        words[-2:] = address(target), address(w)
        run(pack, words, self.groups, 1)
        return self.inner.rearrange(target, target[rounded(self.copy) :] if self.inner.bytes else None)

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
