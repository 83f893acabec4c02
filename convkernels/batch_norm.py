"""Batch normalisation, in training and at inference, in any layout."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np
from numpy.typing import ArrayLike

from .call import Call, as_array
from .errors import OptionError, ShapeError
from .layout import Array
from .norm_call import DOC, KEYWORDS, Gradients, NormKeywords, Problem, Vjp, make_problem, train
from .norm_spec import NormSpec, is_number
from .operation import BATCH_NORM, BATCH_NORM_GRAD, BATCH_NORM_TRAIN, BATCH_NORM_TRAIN_GRAD
from .public import general, located
from .spec import common_dtype


def _returned_dtype(spec: NormSpec) -> np.dtype[Any]:
    """The type of statistics as the caller gets them: that of the result, or float32."""
    return np.dtype(np.float32) if spec.dtype == np.float16 else spec.dtype


def _batch_norm_train(
    x: ArrayLike, gamma: ArrayLike | None, beta: ArrayLike | None, **options: Unpack[NormKeywords]
) -> tuple[Array, Array, Array]:
    """Normalise each channel by the batch's own mean and variance, and return these.

    Parameters
    ----------
    x : array_like
        The batch, in `layout`.
    <coefficients>
    <options>
    <execution>

    Returns
    -------
    y : ndarray
        The result, in `layout` and contiguous, of the inputs' common floating type.
    mean, var : ndarray
        The statistics over the batch and the spatial axes, of shape (C,); the variance is the population's.

    <raises>

    See Also
    --------
    batch_norm : With given statistics, for inference.
    update_running : The running statistics of training.

    Notes
    -----
    Ioffe and Szegedy, "Batch Normalization" (2015). Two passes, accumulated in float64 for narrower data.

    Examples
    --------
    >>> import numpy as np
    >>> import convkernels as ck
    >>> x = np.random.default_rng(0).normal(3, 2, size=(8, 4, 5, 5))
    >>> y, mean, var = ck.batch_norm_train(x, np.ones(4), np.zeros(4))
    >>> bool(abs(y.mean()) < 1e-12), mean.shape
    (True, (4,))
    """
    problem = training_problem(x, gamma, beta, options)
    dtype = _returned_dtype(problem.spec)

    def finish(_: Any, y: Array, mean: Array, var: Array) -> tuple[Array, Array, Array]:
        return y, mean.astype(dtype), var.astype(dtype)

    result: tuple[Array, Array, Array] = train(problem, BATCH_NORM_TRAIN, options, finish)
    return result


def training_problem(x: ArrayLike, gamma: ArrayLike | None, beta: ArrayLike | None, options: Any) -> Problem:
    """A batch norm's problem, which must have enough values for a variance."""
    problem = make_problem(x, gamma, beta, "batch", options)
    if problem.spec.count < 2:
        raise ShapeError(f"batch statistics need at least 2 values for each channel, here are {problem.spec.count}")
    return problem


def _batch_norm_train_vjp(
    x: ArrayLike, gamma: ArrayLike | None, beta: ArrayLike | None, **options: Unpack[NormKeywords]
) -> tuple[Array, Array, Array, Vjp]:
    """Normalise by the batch's own statistics, and return the function that takes gradients back through them.

    Parameters
    ----------
    x : array_like
        The batch, in `layout`.
    <coefficients>
    <options>
    <execution>

    Returns
    -------
    y, mean, var : ndarray
        What `batch_norm_train` returns.
    <vjp>

    <raises>

    Examples
    --------
    >>> import numpy as np
    >>> import convkernels as ck
    >>> x = np.random.default_rng(0).normal(size=(8, 4, 5, 5))
    >>> y, mean, var, vjp = ck.batch_norm_train_vjp(x, np.ones(4), np.zeros(4))
    >>> dx, dgamma, dbeta = vjp(np.ones_like(y))
    >>> bool(abs(dx).max() < 1e-12), dbeta
    (True, array([200., 200., 200., 200.]))
    """
    problem = training_problem(x, gamma, beta, options)
    dtype, back = _returned_dtype(problem.spec), Gradients(problem, BATCH_NORM_TRAIN_GRAD, options)

    def finish(given: Any, y: Array, mean: Array, var: Array) -> tuple[Any, ...]:
        return y, mean.astype(dtype), var.astype(dtype), back.of(given, mean, var)

    result: tuple[Array, Array, Array, Vjp] = train(problem, BATCH_NORM_TRAIN, options, finish)
    return result


def _given_statistics(problem: Problem, mean: ArrayLike, var: ArrayLike) -> tuple[Array, Array]:
    given = {"mean": as_array("mean", mean), "var": as_array("var", var)}
    common_dtype(x=problem.x, **given)
    channels = problem.spec.shape[1]
    for name, array in given.items():
        if array.shape != (channels,):
            raise ShapeError(f"{name} has shape {array.shape}, must have ({channels},)")
    shape = problem.spec.statistics_shape
    return given["mean"].reshape(shape), given["var"].reshape(shape)


def _inference(problem: Problem, mean: Array, var: Array, options: Any) -> Array:
    arrays = (
        problem.x,
        problem.spread("gamma", problem.gamma),
        problem.spread("beta", problem.beta),
        mean,
        var,
    )
    layout, spec = problem.layout, problem.spec
    return Call(BATCH_NORM, spec, layout.order, arrays, spec.shape, layout, options).run()


def _batch_norm(
    x: ArrayLike,
    gamma: ArrayLike | None,
    beta: ArrayLike | None,
    mean: ArrayLike,
    var: ArrayLike,
    **options: Unpack[NormKeywords],
) -> Array:
    """Normalise each channel by given statistics, as at inference.

    Parameters
    ----------
    x : array_like
        The batch, in `layout`.
    <coefficients>
    mean, var : array_like
        The statistics, of shape (C,).
    <options>
    <execution>

    Returns
    -------
    <y>

    <raises>

    Examples
    --------
    >>> import numpy as np
    >>> import convkernels as ck
    >>> x = np.full((2, 3, 4, 4), 5.0)
    >>> float(ck.batch_norm(x, None, None, np.full(3, 3.0), np.full(3, 4.0), eps=0).max())
    1.0
    """
    problem = make_problem(x, gamma, beta, "batch", options)
    return _inference(problem, *_given_statistics(problem, mean, var), options)


def _batch_norm_vjp(
    x: ArrayLike,
    gamma: ArrayLike | None,
    beta: ArrayLike | None,
    mean: ArrayLike,
    var: ArrayLike,
    **options: Unpack[NormKeywords],
) -> tuple[Array, Vjp]:
    """Normalise by given statistics, and return the function that takes gradients back; the statistics are constants.

    Parameters
    ----------
    x : array_like
        The batch, in `layout`.
    <coefficients>
    mean, var : array_like
        The statistics, of shape (C,).
    <options>
    <execution>

    Returns
    -------
    y : ndarray
        What `batch_norm` returns.
    <vjp>

    <raises>

    Examples
    --------
    >>> import numpy as np
    >>> import convkernels as ck
    >>> y, vjp = ck.batch_norm_vjp(np.ones((2, 3, 4, 4)), np.ones(3), None, np.zeros(3), np.full(3, 4.0), eps=0)
    >>> float(vjp(np.ones_like(y)).dx.max())
    0.5
    """
    problem = make_problem(x, gamma, beta, "batch", options)
    middle, spread = _given_statistics(problem, mean, var)
    y = _inference(problem, middle, spread, options)
    return y, Gradients(problem, BATCH_NORM_GRAD, options).of(problem.given, middle, spread)


def update_running(running: ArrayLike, batch: ArrayLike, momentum: float = 0.9) -> Array:
    """Move a running statistic towards a batch's: momentum * running + (1 - momentum) * batch.

    Parameters
    ----------
    running, batch : array_like
        The statistic so far, and the batch's, of the same shape.
    momentum : float
        How much of the running statistic stays, from 0 to 1, as in CS231n and ONNX; PyTorch's is 1 less this.

    Returns
    -------
    ndarray
        The new running statistic.

    Raises
    ------
    ShapeError, OptionError, DTypeError
        If the shapes differ, `momentum` is outside 0 to 1, or the arrays are not floating.

    Examples
    --------
    >>> import numpy as np
    >>> import convkernels as ck
    >>> ck.update_running(np.zeros(2), np.ones(2), momentum=0.75)
    array([0.25, 0.25])
    """
    old, new = as_array("running", running), as_array("batch", batch)
    with located("update_running", "running", old, None):
        common_dtype(running=old, batch=new)
        if old.shape != new.shape:
            raise ShapeError(f"batch has shape {new.shape}, must have running's {old.shape}")
        if not is_number(momentum) or not 0 <= momentum <= 1:
            raise OptionError(f"momentum={momentum!r} must be a number from 0 to 1")
        result: Array = float(momentum) * old + (1 - float(momentum)) * new
        return result


batch_norm = general(_batch_norm, KEYWORDS, DOC)
batch_norm_vjp = general(_batch_norm_vjp, KEYWORDS, DOC)
batch_norm_train = general(_batch_norm_train, KEYWORDS, DOC)
batch_norm_train_vjp = general(_batch_norm_train_vjp, KEYWORDS, DOC)
