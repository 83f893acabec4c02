"""Transposed convolution by any input gradient: it is one, of the convolution that goes the other way.

y = A.T x, where A is the convolution that takes y's shape to x's. No zeros are put between the cells of x.
"""

from __future__ import annotations

from collections.abc import Callable

from ..config import Resources
from ..layout import Array
from ..spec import ConvTransposeSpec


def through(input_grad: Callable[..., None]) -> Callable[..., None]:
    """Make the transposed convolution that runs by an input gradient."""

    def run(spec: ConvTransposeSpec, x: Array, w: Array, b: Array | None, *, out: Array, resources: Resources) -> None:
        input_grad(spec.convolution, x, w, out=out, resources=resources)
        if b is not None:
            out += b.reshape(-1, *[1] * spec.window.rank)

    return run


def workspace_through(workspace: Callable[..., int]) -> Callable[[ConvTransposeSpec, int], int]:
    """Its scratch memory, from the input gradient's."""
    return lambda spec, limit: workspace(spec.convolution, limit)
