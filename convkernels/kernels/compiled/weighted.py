"""Plans that first rearrange the weights: for one call, or once for many."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from ...layout import Array
from ...window import Ints
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


def without_gaps_in(w: Array, target: Array, order: Ints | None = None) -> Array:
    """Copy weights from end to end in some order of their axes, or that of their memory."""
    order = order or tuple(sorted(range(w.ndim), key=lambda axis: -abs(w.strides[axis])))
    dense = target[: w.nbytes].view(w.dtype).reshape([w.shape[axis] for axis in order])
    copied: Array = dense.transpose(np.argsort(order))
    copied[...] = w
    return copied


class Copied(NamedTuple):
    """What is done with weights that are copied first, as so many bytes without gaps."""

    inner: Weighted
    copy: int
    order: Ints | None = None

    @property
    def bytes(self) -> int:
        """Of the copy, and of the weights rearranged from it."""
        return rounded(self.copy) + self.inner.bytes

    def rearrange(self, w: Array, target: Array | None) -> Array:
        """Copy, and rearrange."""
        assert target is not None, "there are bytes"
        rest = target[rounded(self.copy) :] if self.inner.bytes else None
        return self.inner.rearrange(without_gaps_in(w, target, self.order), rest)

    def compute(self, x: Array, weights: Array, bias: Array | None, out: Array) -> None:
        """Compute by rearranged weights."""
        self.inner.compute(x, weights, bias, out)
