"""Plans that first rearrange the weights: for one call, or once for many."""

from __future__ import annotations

from typing import Protocol

from ...layout import Array
from .scratch import arena


class Weighted(Protocol):
    """What is done with a problem's arrays, as far as it is known without data."""

    @property
    def bytes(self) -> int:
        """Of the weights rearranged; none where they are read as they lie."""

    def rearrange(self, w: Array, target: int) -> int:
        """Rearrange the weights into so many bytes at an address; where to read them."""

    def compute(self, x: Array, weights: int, bias: Array | None, out: Array) -> None:
        """Compute by rearranged weights."""


def execute(what: Weighted, x: Array, w: Array, bias: Array | None, out: Array) -> None:
    """Compute."""
    if not what.bytes:
        what.compute(x, what.rearrange(w, 0), bias, out)
        return
    with arena:
        what.compute(x, what.rearrange(w, arena.reserve(what.bytes)), bias, out)
