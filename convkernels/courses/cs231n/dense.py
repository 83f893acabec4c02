"""The course's layers without windows: affine maps, ReLU, dropout, and the losses."""

from __future__ import annotations

from typing import Any

import numpy as np

from convkernels.dense import affine_vjp, relu_vjp
from convkernels.errors import OptionError
from convkernels.layout import Array
from convkernels.losses import softmax_cross_entropy_vjp, svm_loss_vjp

from .entries import Param, entry, mode_of

AffineCache = tuple[Array, Array, Array]
DropoutCache = tuple[Param, Array | None]


def affine_forward(x: Array, w: Array, b: Array) -> tuple[Array, AffineCache]:
    """Multiply each sample, flattened, by a matrix, and add a bias.

    Parameters
    ----------
    x : ndarray
        The batch, of shape (N, ...): N samples of D numbers.
    w : ndarray
        The weights, of shape (D, M).
    b : ndarray
        The bias, of shape (M,).

    Returns
    -------
    out : ndarray
        Of shape (N, M).
    cache : tuple
        (x, w, b), for the backward.

    Raises
    ------
    ConvkernelsError
        If shapes do not fit each other.

    Examples
    --------
    >>> affine_forward(np.ones((1, 2, 2)), np.ones((4, 3)), np.zeros(3))[0]
    array([[4., 4., 4.]])
    """
    return affine_vjp(_floating(x), _floating(w), _floating(b))[0], (x, w, b)


def affine_backward(dout: Array, cache: AffineCache) -> tuple[Array, Array, Array]:
    """Take the gradients of `affine_forward`.

    Parameters
    ----------
    dout : ndarray
        The gradient by the output, of shape (N, M).
    cache : tuple
        (x, w, b).

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
    >>> out, cache = affine_forward(np.ones((1, 2)), np.ones((2, 3)), np.zeros(3))
    >>> affine_backward(np.ones_like(out), cache)[0]
    array([[3., 3.]])
    """
    x, w, b = map(_floating, cache)
    dx, dw, db = affine_vjp(x, w, b)[1](dout)
    assert dx is not None and dw is not None and db is not None, "all are asked for"  # noqa: PT018
    return dx, dw, db


def relu_forward(x: Array) -> tuple[Array, Array]:
    """Take the positive part.

    Parameters
    ----------
    x : ndarray
        Numbers of any shape.

    Returns
    -------
    out : ndarray
        Of the shape of `x`.
    cache : ndarray
        `x`, for the backward.

    Raises
    ------
    ConvkernelsError
        If `x` is not an array of numbers.

    Examples
    --------
    >>> relu_forward(np.array([-1.0, 2.0]))[0]
    array([0., 2.])
    """
    return relu_vjp(_floating(x))[0], x


def relu_backward(dout: Array, cache: Array) -> Array:
    """Take the gradient of `relu_forward`: `dout` where x is positive.

    Parameters
    ----------
    dout : ndarray
        The gradient by the output.
    cache : ndarray
        x.

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
    >>> relu_backward(np.array([5.0, 6.0]), np.array([-1.0, 2.0]))
    array([0., 6.])
    """
    return relu_vjp(_floating(cache))[1](dout)


def dropout_forward(x: Array, dropout_param: Param) -> tuple[Array, DropoutCache]:
    """Keep each number with probability p, divided by p, and set the others to 0.

    Parameters
    ----------
    x : ndarray
        Numbers of any shape.
    dropout_param : dict
        "p", the probability to keep; "mode", "train" or "test", which keeps all; and if wanted "seed". Without one the
        numbers are those of NumPy's global state, as in the course.

    Returns
    -------
    out : ndarray
        Of the shape of `x`.
    cache : tuple
        (dropout_param, mask), for the backward; in test mode the mask is None.

    Raises
    ------
    ConvkernelsError
        If an entry of `dropout_param` is missing or out of range.

    Examples
    --------
    >>> out, cache = dropout_forward(np.ones(6), {"mode": "train", "p": 0.5, "seed": 0})
    >>> out
    array([0., 0., 0., 0., 2., 0.])
    """
    p, mask = entry("dropout_param", dropout_param, "p"), None
    if not 0 < p <= 1:
        raise OptionError(f"dropout_param['p']={p!r} must be above 0 and at most 1: it is the probability to keep")
    if mode_of("dropout_param", dropout_param) == "test":
        return x, (dropout_param, mask)
    x = _floating(x)
    seed = dropout_param.get("seed")
    drawn = np.random.random_sample if seed is None else np.random.RandomState(seed).random_sample
    mask = ((drawn(x.shape) < p) / p).astype(x.dtype)
    return x * mask, (dropout_param, mask)


def dropout_backward(dout: Array, cache: DropoutCache) -> Array:
    """Take the gradient of `dropout_forward`.

    Parameters
    ----------
    dout : ndarray
        The gradient by the output.
    cache : tuple
        (dropout_param, mask).

    Returns
    -------
    dx : ndarray
        Of the shape of x.

    Raises
    ------
    ConvkernelsError
        If the mode is neither "train" nor "test".

    Examples
    --------
    >>> out, cache = dropout_forward(np.ones(6), {"mode": "train", "p": 0.5, "seed": 0})
    >>> bool((dropout_backward(np.ones(6), cache) == out).all())
    True
    """
    dropout_param, mask = cache
    return dout * mask if mode_of("dropout_param", dropout_param) == "train" and mask is not None else dout


def softmax_loss(x: Array, y: Array) -> tuple[float, Array]:
    """Take the mean cross-entropy of a softmax, and its gradient.

    Parameters
    ----------
    x : ndarray
        Scores, of shape (N, C).
    y : ndarray
        The right classes, of shape (N,), integers from 0 to C - 1.

    Returns
    -------
    loss : float
        The mean over the batch.
    dx : ndarray
        Its gradient by the scores.

    Raises
    ------
    ConvkernelsError
        If shapes do not fit each other, or a class is out of range.

    Examples
    --------
    >>> loss, dx = softmax_loss(np.zeros((1, 2)), np.array([0]))
    >>> round(loss, 4), dx
    (0.6931, array([[-0.5,  0.5]]))
    """
    loss, vjp = softmax_cross_entropy_vjp(_floating(x), y)
    return loss, vjp()


def svm_loss(x: Array, y: Array) -> tuple[float, Array]:
    """Take the mean multiclass hinge loss with margin 1, and its gradient.

    Parameters
    ----------
    x : ndarray
        Scores, of shape (N, C).
    y : ndarray
        The right classes, of shape (N,), integers from 0 to C - 1.

    Returns
    -------
    loss : float
        The mean over the batch.
    dx : ndarray
        Its gradient by the scores.

    Raises
    ------
    ConvkernelsError
        If shapes do not fit each other, or a class is out of range.

    Examples
    --------
    >>> svm_loss(np.zeros((1, 2)), np.array([0]))
    (1.0, array([[-1.,  1.]]))
    """
    loss, vjp = svm_loss_vjp(_floating(x), y)
    return loss, vjp()


def _floating(array: Any) -> Array:
    """The array, whole numbers in float64: homework often starts with them."""
    given: Array = np.asarray(array)
    return given.astype(np.float64) if given.dtype.kind in "iu" else given
