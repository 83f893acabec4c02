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
_relu, _relu_grad, _adam, _channel_sums = (
    late("pointwise", name) for name in ("relu", "relu_grad", "adam", "channel_sums")
)
BLOCK = 2**16
"""Numbers that NumPy's Adam takes at a time, so that its temporaries stay in the cache."""


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


def adam(
    w: Array,
    dw: Array,
    mean: Array,
    square: Array,
    *,
    betas: tuple[float, float],
    eps: float,
    lr: float,
    steps: int,
) -> None:
    """Change weights and their moments in place by Adam's rule, `steps` counting this one."""
    first, second = betas
    root, rate = math.sqrt(1 - second**steps), lr / (1 - first**steps)
    if compiles(w, dw, mean, square):
        _adam(w, dw, mean, square, (first, 1 - first, second, 1 - second, root, eps, rate), get_config().threads)
        return
    flat = [array.reshape(-1) for array in (w, dw, mean, square)]
    for start in range(0, w.size, BLOCK):
        w, dw, mean, square = (array[start : start + BLOCK] for array in flat)
        mean *= first
        mean += (1 - first) * dw
        change = dw * dw
        change *= 1 - second
        square *= second
        square += change
        np.sqrt(square, out=change)
        change /= root
        change += eps
        np.divide(mean, change, out=change)
        change *= rate
        w -= change


def channel_sums(x: Array, axis: int) -> Array:
    """Sum over all axes but that of channels, in float64 at least, for sums of float32 drift."""
    if compiles(x):
        rows, inner = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
        found: Array = _channel_sums(x, rows, x.shape[axis], inner, get_config().threads)
        return found
    others = tuple(place for place in range(x.ndim) if place != axis)
    total: Array = np.add.reduce(x, others, np.result_type(x.dtype, np.float64))
    return total
