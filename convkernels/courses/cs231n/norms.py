"""The course's norms: batch norm of features and of channels, layer norm, group norm."""

from __future__ import annotations

from typing import Any

import numpy as np

from convkernels.batch_norm import batch_norm_train_vjp, batch_norm_vjp, update_running
from convkernels.errors import ShapeError
from convkernels.layout import Array
from convkernels.norm import group_norm_vjp, layer_norm_vjp

from .entries import Param, mode_of

Gradients = tuple[Array, Array, Array]

EPS = 1e-5
MOMENTUM = 0.9


def spatial_batchnorm_forward(x: Array, gamma: Array, beta: Array, bn_param: Param) -> tuple[Array, Any]:
    """Normalise each channel, over the batch, height and width.

    Parameters
    ----------
    x : ndarray
        The batch, of shape (N, C, H, W).
    gamma, beta : ndarray
        What the normalised data is multiplied by, and what is added, of shape (C,).
    bn_param : dict
        "mode", "train" or "test"; and if wanted "eps" (1e-5), "momentum" (0.9, the share that running statistics keep),
        "running_mean" and "running_var" (zeros), which the call sets.

    Returns
    -------
    out : ndarray
        Of the shape of `x`.
    cache
        For the backward.

    Raises
    ------
    ConvkernelsError
        If shapes do not fit each other, or an entry of `bn_param` is missing or out of range.

    Examples
    --------
    >>> import numpy as np
    >>> x, bn_param = np.arange(8.0).reshape(2, 1, 2, 2), {"mode": "train"}
    >>> out, cache = spatial_batchnorm_forward(x, np.ones(1), np.zeros(1), bn_param)
    >>> bool(abs(out.mean()) < 1e-12), bn_param["running_mean"]
    (True, array([0.35]))
    """
    return _batch_norm(np.asarray(x), gamma, beta, bn_param, "NCHW")


def spatial_batchnorm_backward(dout: Array, cache: Any) -> Gradients:
    """Take the gradients of `spatial_batchnorm_forward`, with the eps and in the mode that it had.

    Parameters
    ----------
    dout : ndarray
        The gradient by the output.
    cache
        What the forward returned.

    Returns
    -------
    dx, dgamma, dbeta : ndarray
        Of the shapes of x, gamma and beta.

    Raises
    ------
    ConvkernelsError
        If `dout` has not the output's shape.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.arange(8.0).reshape(2, 1, 2, 2)
    >>> out, cache = spatial_batchnorm_forward(x, np.ones(1), np.zeros(1), {"mode": "train"})
    >>> dx, dgamma, dbeta = spatial_batchnorm_backward(np.ones_like(x), cache)
    >>> bool(abs(dx).max() < 1e-12), dbeta
    (True, array([8.]))
    """
    dx, dgamma, dbeta = cache(dout)
    return dx, dgamma, dbeta


def batchnorm_forward(x: Array, gamma: Array, beta: Array, bn_param: Param) -> tuple[Array, Any]:
    """Normalise each feature over the batch; otherwise as `spatial_batchnorm_forward`.

    Parameters
    ----------
    x : ndarray
        The batch, of shape (N, D).
    gamma, beta : ndarray
        Of shape (D,).
    bn_param : dict
        As there.

    Returns
    -------
    out : ndarray
        Of the shape of `x`.
    cache
        For the backward.

    Raises
    ------
    ConvkernelsError
        As there.

    Examples
    --------
    >>> import numpy as np
    >>> out, cache = batchnorm_forward(np.array([[1.0], [3.0]]), np.ones(1), np.zeros(1), {"mode": "train"})
    >>> out.round(4)
    array([[-1.],
           [ 1.]])
    """
    out, vjp = _batch_norm(_spatial(x), gamma, beta, bn_param, "NCW")
    return out[:, :, 0], vjp


def batchnorm_backward(dout: Array, cache: Any) -> Gradients:
    """Take the gradients of `batchnorm_forward`.

    Parameters
    ----------
    dout : ndarray
        The gradient by the output, of shape (N, D).
    cache
        What the forward returned.

    Returns
    -------
    dx, dgamma, dbeta : ndarray
        Of the shapes of x, gamma and beta.

    Raises
    ------
    ConvkernelsError
        If `dout` has not the output's shape.

    Examples
    --------
    >>> import numpy as np
    >>> out, cache = batchnorm_forward(np.array([[1.0], [3.0]]), np.ones(1), np.zeros(1), {"mode": "train"})
    >>> batchnorm_backward(np.ones((2, 1)), cache)[2]
    array([2.])
    """
    dx, dgamma, dbeta = cache(_spatial(dout, "dout"))
    return dx[:, :, 0], dgamma, dbeta


batchnorm_backward_alt = batchnorm_backward
"""The course has the gradients derived a second time, simplified: they are the same."""


def layernorm_forward(x: Array, gamma: Array, beta: Array, ln_param: Param) -> tuple[Array, Any]:
    """Normalise each sample over its features.

    Parameters
    ----------
    x : ndarray
        The batch, of shape (N, D).
    gamma, beta : ndarray
        Of shape (D,).
    ln_param : dict
        "eps", if not 1e-5.

    Returns
    -------
    out : ndarray
        Of the shape of `x`.
    cache
        For the backward.

    Raises
    ------
    ConvkernelsError
        If shapes do not fit each other, or eps is negative.

    Examples
    --------
    >>> import numpy as np
    >>> out, cache = layernorm_forward(np.array([[1.0, 3.0]]), np.ones(2), np.zeros(2), {})
    >>> out.round(4)
    array([[-1.,  1.]])
    """
    options = {"eps": ln_param.get("eps", EPS), "layout": "NCW"}
    out, vjp = layer_norm_vjp(_spatial(x), gamma, beta, **options)
    return out[:, :, 0], vjp


def layernorm_backward(dout: Array, cache: Any) -> Gradients:
    """Take the gradients of `layernorm_forward`.

    Parameters
    ----------
    dout : ndarray
        The gradient by the output, of shape (N, D).
    cache
        What the forward returned.

    Returns
    -------
    dx, dgamma, dbeta : ndarray
        Of the shapes of x, gamma and beta.

    Raises
    ------
    ConvkernelsError
        If `dout` has not the output's shape.

    Examples
    --------
    >>> import numpy as np
    >>> out, cache = layernorm_forward(np.array([[1.0, 3.0]]), np.ones(2), np.zeros(2), {})
    >>> layernorm_backward(np.ones((1, 2)), cache)[2]
    array([1., 1.])
    """
    return batchnorm_backward(dout, cache)


def spatial_groupnorm_forward(x: Array, gamma: Array, beta: Array, G: int, gn_param: Param) -> tuple[Array, Any]:
    """Normalise each sample's groups of neighbouring channels.

    Parameters
    ----------
    x : ndarray
        The batch, of shape (N, C, H, W).
    gamma, beta : ndarray
        Of shape (1, C, 1, 1).
    G : int
        The number of groups, which divides C.
    gn_param : dict
        "eps", if not 1e-5.

    Returns
    -------
    out : ndarray
        Of the shape of `x`.
    cache
        For the backward.

    Raises
    ------
    ConvkernelsError
        If shapes do not fit each other, `G` does not divide the channels, or eps is negative.

    Examples
    --------
    >>> import numpy as np
    >>> x, one = np.arange(8.0).reshape(1, 2, 2, 2), np.ones((1, 2, 1, 1))
    >>> out, cache = spatial_groupnorm_forward(x, one, 0 * one, 2, {})
    >>> bool((abs(out.mean((2, 3))) < 1e-12).all())
    True
    """
    x, gamma, beta = np.asarray(x), np.asarray(gamma), np.asarray(beta)
    channels = x.shape[1] if x.ndim > 1 else 0
    for name, array in (("gamma", gamma), ("beta", beta)):
        if array.shape != (1, channels, 1, 1):
            raise ShapeError(f"{name} has shape {array.shape}, must have {(1, channels, 1, 1)} (x has shape {x.shape})")
    return group_norm_vjp(x, gamma.ravel(), beta.ravel(), G, eps=gn_param.get("eps", EPS))


def spatial_groupnorm_backward(dout: Array, cache: Any) -> Gradients:
    """Take the gradients of `spatial_groupnorm_forward`.

    Parameters
    ----------
    dout : ndarray
        The gradient by the output.
    cache
        What the forward returned.

    Returns
    -------
    dx, dgamma, dbeta : ndarray
        Of the shapes of x, gamma and beta.

    Raises
    ------
    ConvkernelsError
        If `dout` has not the output's shape.

    Examples
    --------
    >>> import numpy as np
    >>> x, one = np.arange(8.0).reshape(1, 2, 2, 2), np.ones((1, 2, 1, 1))
    >>> out, cache = spatial_groupnorm_forward(x, one, 0 * one, 2, {})
    >>> spatial_groupnorm_backward(np.ones_like(x), cache)[2].shape
    (1, 2, 1, 1)
    """
    dx, dgamma, dbeta = cache(dout)
    return dx, dgamma.reshape(1, -1, 1, 1), dbeta.reshape(1, -1, 1, 1)


def _spatial(x: Array, name: str = "x") -> Array:
    """Features as channels of one cell."""
    x = np.asarray(x)
    if x.ndim != 2:
        raise ShapeError(f"{name} has shape {x.shape}, must have (N, D)")
    return x[:, :, np.newaxis]


def _batch_norm(x: Array, gamma: Array, beta: Array, bn_param: Param, layout: str) -> tuple[Array, Any]:
    training = mode_of("bn_param", bn_param) == "train"
    eps = bn_param.get("eps", EPS)
    running_mean = bn_param.get("running_mean", np.zeros(x.shape[1:2], x.dtype))
    running_var = bn_param.get("running_var", np.zeros(x.shape[1:2], x.dtype))
    if training:
        momentum = bn_param.get("momentum", MOMENTUM)
        out, mean, var, vjp = batch_norm_train_vjp(x, gamma, beta, eps=eps, layout=layout)
        running_mean = update_running(running_mean, mean, momentum)
        running_var = update_running(running_var, var, momentum)
    else:
        out, vjp = batch_norm_vjp(x, gamma, beta, running_mean, running_var, eps=eps, layout=layout)
    bn_param["running_mean"], bn_param["running_var"] = running_mean, running_var
    return out, vjp
