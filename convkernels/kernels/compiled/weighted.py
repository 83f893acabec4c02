"""Plans that first rearrange the weights: for one call, or once for many."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ...layout import Array
from .scratch import arena

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
