"""Convolution and max pooling under the course's names: naive, and by each strategy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from convkernels.conv import bias_grad, conv2d_input_grad, conv2d_vjp, conv2d_weight_grad
from convkernels.layout import Array, data_layout
from convkernels.pool import max_pool2d_vjp
from convkernels.reducers import Ties

from .entries import Param, entry

F = TypeVar("F", bound=Callable[..., Any])
Gradients = tuple[Array, Array, Array]
ConvCache = tuple[Array, Array, Array, Param]
PoolCache = tuple[Array, Param]

NCHW = data_layout("NCHW", 2)


def conv_forward_naive(x: Array, w: Array, b: Array, conv_param: Param) -> tuple[Array, ConvCache]:
    """Convolve by the definition, in Python loops.

    Parameters
    ----------
    x : ndarray
        The batch, of shape (N, C, H, W).
    w : ndarray
        The filters, of shape (F, C, HH, WW).
    b : ndarray
        The bias, of shape (F,).
    conv_param : dict
        "stride", and "pad": the zeros on each side.

    Returns
    -------
    out : ndarray
        Of shape (N, F, 1 + (H + 2 * pad - HH) // stride, 1 + (W + 2 * pad - WW) // stride).
    cache : tuple
        (x, w, b, conv_param), for the backward.

    Raises
    ------
    ConvkernelsError
        If shapes do not fit each other, or an entry of `conv_param` is missing or out of range.

    Examples
    --------
    >>> import numpy as np
    >>> x, w, b = np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2)), np.zeros(1)
    >>> out, cache = conv_forward_naive(x, w, b, {"stride": 1, "pad": 0})
    >>> out
    array([[[[4., 4.],
             [4., 4.]]]])
    """
    return _convolve(x, w, b, conv_param, "naive")[0], (x, w, b, conv_param)


def conv_backward_naive(dout: Array, cache: ConvCache) -> Gradients:
    """Take a convolution's gradients by the definition, in Python loops.

    Parameters
    ----------
    dout : ndarray
        The gradient by the output.
    cache : tuple
        (x, w, b, conv_param), as `conv_forward_naive` returns it.

    Returns
    -------
    dx, dw, db : ndarray
        Of the shapes of x, w and b.

    Raises
    ------
    ConvkernelsError
        If `dout` has not the output's shape.

    Examples
    --------
    >>> import numpy as np
    >>> x, w, b = np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2)), np.zeros(1)
    >>> out, cache = conv_forward_naive(x, w, b, {"stride": 1, "pad": 0})
    >>> dx, dw, db = conv_backward_naive(np.ones_like(out), cache)
    >>> dx[0, 0, 1], dw[0, 0, 0], db
    (array([2., 4., 2.]), array([4., 4.]), array([4.]))
    """
    x, w, _, conv_param = cache
    options = {**_geometry(conv_param), "strategy": "naive"}
    dx = conv2d_input_grad(dout, w, x_shape=x.shape, **options)
    dw = conv2d_weight_grad(x, dout, kernel_size=w.shape[2:], **options)
    return dx, dw, bias_grad(dout, NCHW)


def max_pool_forward_naive(x: Array, pool_param: Param) -> tuple[Array, PoolCache]:
    """Take the largest cell of every window by the definition, in Python loops.

    Parameters
    ----------
    x : ndarray
        The batch, of shape (N, C, H, W).
    pool_param : dict
        "pool_height", "pool_width" and "stride".

    Returns
    -------
    out : ndarray
        Of shape (N, C, 1 + (H - pool_height) // stride, 1 + (W - pool_width) // stride).
    cache : tuple
        (x, pool_param), for the backward.

    Raises
    ------
    ConvkernelsError
        If a window does not fit, or an entry of `pool_param` is missing or out of range.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.arange(8.0).reshape(1, 1, 2, 4)
    >>> out, cache = max_pool_forward_naive(x, {"pool_height": 2, "pool_width": 2, "stride": 2})
    >>> out
    array([[[[5., 7.]]]])
    """
    return _pool(x, pool_param, "naive")[0], (x, pool_param)


def max_pool_backward_naive(dout: Array, cache: PoolCache) -> Array:
    """Take a max pool's gradient by the definition: of equal maxima the first in row-major order gets it.

    Parameters
    ----------
    dout : ndarray
        The gradient by the output.
    cache : tuple
        (x, pool_param), as `max_pool_forward_naive` returns it.

    Returns
    -------
    dx : ndarray
        Of the shape of x.

    Raises
    ------
    ConvkernelsError
        If `dout` has not the output's shape.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.arange(8.0).reshape(1, 1, 2, 4)
    >>> out, cache = max_pool_forward_naive(x, {"pool_height": 2, "pool_width": 2, "stride": 2})
    >>> max_pool_backward_naive(np.ones_like(out), cache)
    array([[[[0., 0., 0., 0.],
             [0., 1., 0., 1.]]]])
    """
    x, pool_param = cache
    return _pool(x, pool_param, "naive")[1](dout)


def _geometry(conv_param: Param) -> dict[str, Any]:
    return {key: entry("conv_param", conv_param, of) for key, of in (("stride", "stride"), ("padding", "pad"))}


def _convolve(x: Array, w: Array, b: Array, conv_param: Param, strategy: str) -> tuple[Array, Callable[..., Any]]:
    return conv2d_vjp(x, w, b, strategy=strategy, **_geometry(conv_param))


def _pool(x: Array, pool_param: Param, strategy: str, ties: Ties = "first") -> tuple[Array, Callable[..., Array]]:
    height, width, stride = (entry("pool_param", pool_param, key) for key in ("pool_height", "pool_width", "stride"))
    return max_pool2d_vjp(x, (height, width), stride=stride, ties=ties, strategy=strategy)


def _conv_by(
    strategy: str, variant: str
) -> tuple[Callable[[Array, Array, Array, Param], tuple[Array, Any]], Callable[[Array, Any], Gradients]]:
    """The convolution of a strategy, forward and backward; the cache is the function that takes gradients back."""

    def forward(x: Array, w: Array, b: Array, conv_param: Param) -> tuple[Array, Any]:
        return _convolve(x, w, b, conv_param, strategy)

    def backward(dout: Array, cache: Any) -> Gradients:
        dx, dw, db = cache(dout)
        return dx, dw, db

    return _named(forward, "conv_forward", variant), _named(backward, "conv_backward", variant)


def _pool_by(
    strategy: str, variant: str, ties: Ties = "first"
) -> tuple[Callable[[Array, Param], tuple[Array, Any]], Callable[[Array, Any], Array]]:
    """The max pool of a strategy, forward and backward; the cache is the function that takes the gradient back."""

    def forward(x: Array, pool_param: Param) -> tuple[Array, Any]:
        return _pool(x, pool_param, strategy, ties)

    def backward(dout: Array, cache: Any) -> Array:
        dx: Array = cache(dout)
        return dx

    return _named(forward, "max_pool_forward", variant), _named(backward, "max_pool_backward", variant)


def _named(function: F, name: str, variant: str) -> F:
    function.__name__ = function.__qualname__ = f"{name}_{variant}"
    ties = ", but equal maxima share the gradient" if (name, variant) == ("max_pool_backward", "reshape") else ""
    how = {
        "fast": "by what suits it best",
        "im2col": "by windows copied into columns",
        "strides": "by strided views of the windows",
        "reshape": "by strided views of the windows",
    }[variant]
    function.__doc__ = f"The same as `{name}_naive`, {how}{ties}; the cache is for the backward of this name."
    return function


conv_forward_fast, conv_backward_fast = _conv_by("auto", "fast")
conv_forward_im2col, conv_backward_im2col = _conv_by("im2col", "im2col")
conv_forward_strides, conv_backward_strides = _conv_by("stride_tricks", "strides")
max_pool_forward_fast, max_pool_backward_fast = _pool_by("auto", "fast")
max_pool_forward_im2col, max_pool_backward_im2col = _pool_by("im2col", "im2col")
max_pool_forward_strides, max_pool_backward_strides = _pool_by("stride_tricks", "strides")
max_pool_forward_reshape, max_pool_backward_reshape = _pool_by("stride_tricks", "reshape", ties="split")
