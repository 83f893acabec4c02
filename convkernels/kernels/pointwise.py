"""Numbers taken one by one, and sums by channel: compiled where arrays are large and contiguous, else NumPy's."""

from __future__ import annotations

import math

import numpy as np

from ..config import get_config
from ..layout import Array
from ..recycling import empty
from .compiled.available import late, missing

WORTH = 2**15
"""Numbers from which on compiled code is used; both give the same."""
_relu, _relu_grad, _channel_sums = (late("pointwise", name) for name in ("relu", "relu_grad", "channel_sums"))


def compiles(*arrays: Array) -> bool:
    """Whether compiled code takes arrays: of one shape and floating type, contiguous, and many numbers."""
    first = arrays[0]
    alike = all(
        array.dtype == first.dtype and array.shape == first.shape and array.flags.c_contiguous for array in arrays
    )
    return first.size >= WORTH and alike and first.dtype.char in "fd" and first.dtype.isnative and missing() is None


def relu(x: Array) -> Array:
    """The positive part; NaN stays."""
    if not compiles(x):
        return np.maximum(x, 0)
    y = empty(x.shape, x.dtype)
    _relu(x, y, get_config().threads)
    return y


def relu_grad(dy: Array, x: Array) -> Array:
    """The gradient dy times one where x is not zero or less, and else times zero."""
    if not compiles(x, dy):
        return np.multiply(dy, ~(x <= 0))
    dx = empty(x.shape, x.dtype)
    _relu_grad(x, dy, dx, get_config().threads)
    return dx


def channel_sums(x: Array, axis: int) -> Array:
    """Sum over all axes but that of channels, in float64 at least, for sums of float32 drift."""
    if compiles(x):
        rows, inner = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
        found: Array = _channel_sums(x, rows, x.shape[axis], inner, get_config().threads)
        return found
    others = tuple(place for place in range(x.ndim) if place != axis)
    total: Array = np.add.reduce(x, others, np.result_type(x.dtype, np.float64))
    return total
