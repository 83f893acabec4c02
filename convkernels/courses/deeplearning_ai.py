"""The functions of deeplearning.ai's "Convolution model: step by step": NHWC, weights (f, f, n_C_prev, n_C).

>>> import numpy as np
>>> from convkernels.courses import deeplearning_ai
>>> A_prev, W, b = np.ones((1, 5, 5, 3)), np.ones((3, 3, 3, 2)), np.zeros((1, 1, 1, 2))
>>> Z, cache = deeplearning_ai.conv_forward(A_prev, W, b, {"stride": 1, "pad": 1})
>>> dA_prev, dW, db = deeplearning_ai.conv_backward(np.ones_like(Z), cache)
>>> Z.shape, dA_prev.shape, dW.shape, db.shape
((1, 5, 5, 2), (1, 5, 5, 3), (3, 3, 3, 2), (1, 1, 1, 2))
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from convkernels.conv import bias_grad, conv2d, conv2d_input_grad, conv2d_weight_grad
from convkernels.errors import OptionError, ShapeError, one_of
from convkernels.layout import Array, data_layout
from convkernels.pool import avg_pool2d_vjp, max_pool2d_vjp
from convkernels.window import whole

Hyperparameters = Mapping[str, int]
ConvCache = tuple[Array, Array, Array, Hyperparameters]
PoolCache = tuple[Array, Hyperparameters]

NHWC = data_layout("NHWC", 2)


def zero_pad(X: Array, pad: int) -> Array:
    """Put zeros around the height and width of a batch.

    Parameters
    ----------
    X : ndarray
        The batch, of shape (m, n_H, n_W, n_C).
    pad : int
        How many on each side.

    Returns
    -------
    X_pad : ndarray
        Of shape (m, n_H + 2 * pad, n_W + 2 * pad, n_C).

    Raises
    ------
    ConvkernelsError
        If `X` has other axes, or `pad` is negative.

    Examples
    --------
    >>> zero_pad(np.ones((1, 1, 1, 1)), 1)[0, :, :, 0]
    array([[0., 0., 0.],
           [0., 1., 0.],
           [0., 0., 0.]])
    """
    NHWC.view(X, "X")
    if whole("pad", pad) < 0:
        raise OptionError(f"pad={pad} must be at least 0")
    return np.pad(X, ((0, 0), (pad, pad), (pad, pad), (0, 0)))


def conv_single_step(a_slice_prev: Array, W: Array, b: Array) -> Any:
    """Multiply a window by a filter, sum, and add the bias.

    Parameters
    ----------
    a_slice_prev, W : ndarray
        Window and filter, of shape (f, f, n_C_prev).
    b : ndarray
        The bias, of shape (1, 1, 1).

    Returns
    -------
    Z : scalar
        One number.

    Raises
    ------
    ConvkernelsError
        If the shapes differ, or there is not one bias.

    Examples
    --------
    >>> float(conv_single_step(np.ones((2, 2, 3)), np.ones((2, 2, 3)), np.ones((1, 1, 1))))
    13.0
    """
    if np.shape(W) != np.shape(a_slice_prev):
        raise ShapeError(f"W has shape {np.shape(W)}, must have a_slice_prev's {np.shape(a_slice_prev)}")
    if np.size(b) != 1:
        raise ShapeError(f"b has shape {np.shape(b)}, must be one number")
    return conv2d(a_slice_prev[np.newaxis], W[..., np.newaxis], np.reshape(b, 1), layout="NHWC")[0, 0, 0, 0]


def conv_forward(A_prev: Array, W: Array, b: Array, hparameters: Hyperparameters) -> tuple[Array, ConvCache]:
    """Convolve a batch.

    Parameters
    ----------
    A_prev : ndarray
        The batch, of shape (m, n_H_prev, n_W_prev, n_C_prev).
    W : ndarray
        The filters, of shape (f, f, n_C_prev, n_C).
    b : ndarray
        The bias, of shape (1, 1, 1, n_C).
    hparameters : dict
        "stride", and "pad": the zeros on each side.

    Returns
    -------
    Z : ndarray
        Of shape (m, n_H, n_W, n_C), n_H being (n_H_prev - f + 2 * pad) // stride + 1.
    cache : tuple
        (A_prev, W, b, hparameters), for the backward.

    Raises
    ------
    ConvkernelsError
        If shapes do not fit each other, or an entry of `hparameters` is missing or out of range.

    Examples
    --------
    >>> A_prev, W, b = np.ones((1, 3, 3, 1)), np.ones((2, 2, 1, 1)), np.zeros((1, 1, 1, 1))
    >>> conv_forward(A_prev, W, b, {"stride": 1, "pad": 0})[0][0, :, :, 0]
    array([[4., 4.],
           [4., 4.]])
    """
    options = _geometry(hparameters)
    if np.ndim(W) != 4 or np.shape(b) != (1, 1, 1, np.shape(W)[3]):
        raise ShapeError(
            f"W and b have shapes {np.shape(W)} and {np.shape(b)}, must have (f, f, n_C_prev, n_C) and (1, 1, 1, n_C)"
        )
    return conv2d(A_prev, W, np.ravel(b), **options), (A_prev, W, b, hparameters)


def conv_backward(dZ: Array, cache: ConvCache) -> tuple[Array, Array, Array]:
    """Take the gradients of `conv_forward`.

    Parameters
    ----------
    dZ : ndarray
        The gradient by the output.
    cache : tuple
        (A_prev, W, b, hparameters).

    Returns
    -------
    dA_prev, dW, db : ndarray
        Of the shapes of A_prev, W and b.

    Raises
    ------
    ConvkernelsError
        If `dZ` has not the output's shape.

    Examples
    --------
    >>> A_prev, W, b = np.ones((1, 3, 3, 1)), np.ones((2, 2, 1, 1)), np.zeros((1, 1, 1, 1))
    >>> Z, cache = conv_forward(A_prev, W, b, {"stride": 1, "pad": 0})
    >>> dA_prev, dW, db = conv_backward(np.ones_like(Z), cache)
    >>> dA_prev[0, :, 1, 0], db
    (array([2., 4., 2.]), array([[[[4.]]]]))
    """
    A_prev, W, _, hparameters = cache
    options = _geometry(hparameters)
    dA_prev = conv2d_input_grad(dZ, W, x_shape=A_prev.shape, **options)
    dW = conv2d_weight_grad(A_prev, dZ, kernel_size=W.shape[:2], **options)
    return dA_prev, dW, bias_grad(dZ, NHWC).reshape(1, 1, 1, -1)


def pool_forward(A_prev: Array, hparameters: Hyperparameters, mode: str = "max") -> tuple[Array, PoolCache]:
    """Reduce every window to its largest cell, or to its mean.

    Parameters
    ----------
    A_prev : ndarray
        The batch, of shape (m, n_H_prev, n_W_prev, n_C_prev).
    hparameters : dict
        "f", the height and width of a window, and "stride".
    mode : {"max", "average"}
        To what.

    Returns
    -------
    A : ndarray
        Of shape (m, n_H, n_W, n_C), n_H being (n_H_prev - f) // stride + 1.
    cache : tuple
        (A_prev, hparameters), for the backward.

    Raises
    ------
    ConvkernelsError
        If a window does not fit, or an entry of `hparameters` is missing or out of range.

    Examples
    --------
    >>> A_prev = np.arange(4.0).reshape(1, 2, 2, 1)
    >>> pool_forward(A_prev, {"f": 2, "stride": 2}, mode="average")[0]
    array([[[[1.5]]]])
    """
    return _pool(A_prev, hparameters, mode)[0], (A_prev, hparameters)


def pool_backward(dA: Array, cache: PoolCache, mode: str = "max") -> Array:
    """Take the gradient of `pool_forward`: to each largest cell of a window in full, or spread evenly.

    Giving it in full to several equal cells is the course's rule, and no subgradient.

    Parameters
    ----------
    dA : ndarray
        The gradient by the output.
    cache : tuple
        (A_prev, hparameters).
    mode : {"max", "average"}
        That of the forward.

    Returns
    -------
    dA_prev : ndarray
        Of the shape of A_prev.

    Raises
    ------
    ConvkernelsError
        If `dA` has not the output's shape, or `mode` is another.

    Examples
    --------
    >>> A, cache = pool_forward(np.zeros((1, 1, 2, 1)), {"f": 1, "stride": 1})
    >>> pool_backward(np.ones_like(A), cache).ravel()
    array([1., 1.])
    """
    dA_prev: Array = _pool(*cache, mode)[1](dA)
    return dA_prev


def create_mask_from_window(x: Array) -> Array:
    """Mark the largest cells of a window, all of them if they are equal.

    Parameters
    ----------
    x : ndarray
        The window.

    Returns
    -------
    mask : ndarray of bool
        Of the shape of `x`.

    Raises
    ------
    ConvkernelsError
        If `x` is empty.

    Examples
    --------
    >>> create_mask_from_window(np.array([[1.0, 3.0], [2.0, 0.0]]))
    array([[False,  True],
           [False, False]])
    """
    x = np.asarray(x)
    if not x.size:
        raise ShapeError(f"x has shape {x.shape}, must not be empty")
    return np.asarray(x == x.max())


def distribute_value(dz: float, shape: tuple[int, int]) -> Array:
    """Spread a number evenly over a window.

    Parameters
    ----------
    dz : float
        The number.
    shape : tuple of int
        The window's height and width.

    Returns
    -------
    a : ndarray
        Of that shape; its sum is `dz`.

    Raises
    ------
    ConvkernelsError
        If the window is empty.

    Examples
    --------
    >>> distribute_value(2, (2, 2))
    array([[0.5, 0.5],
           [0.5, 0.5]])
    """
    height, width = (whole("shape", size) for size in shape)
    if min(height, width) < 1:
        raise ShapeError(f"shape={shape!r} must be of at least 1 each")
    return np.full((height, width), dz / (height * width))


def _entry(hparameters: Hyperparameters, key: str) -> int:
    if key not in hparameters:
        raise OptionError(f"hparameters={dict(hparameters)!r} must have the key {key!r}")
    return hparameters[key]


def _geometry(hparameters: Hyperparameters) -> dict[str, Any]:
    return {"stride": _entry(hparameters, "stride"), "padding": _entry(hparameters, "pad"), "layout": "NHWC"}


def _pool(A_prev: Array, hparameters: Hyperparameters, mode: str) -> Any:
    if mode not in ("max", "average"):
        raise OptionError(f"mode={mode!r} must be one of {one_of(('max', 'average'), str(mode))}")
    f, stride = _entry(hparameters, "f"), _entry(hparameters, "stride")
    if mode == "average":
        return avg_pool2d_vjp(np.asarray(A_prev, np.result_type(A_prev, np.float32)), f, stride=stride, layout="NHWC")
    return max_pool2d_vjp(A_prev, f, stride=stride, ties="all", layout="NHWC")
