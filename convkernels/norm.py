"""Normalisation in any layout, and its gradients."""

from __future__ import annotations

from typing import Any, Unpack

from numpy.typing import ArrayLike

from . import catalog  # noqa: F401  # fills the operations
from .layout import Array
from .norm_call import (
    DOC,
    KEYWORDS,
    Gradients,
    LayerNormKeywords,
    NormKeywords,
    Problem,
    Vjp,
    make_problem,
    normalise,
    train,
)
from .operation import GROUP_NORM, GROUP_NORM_GRAD
from .public import general


def _group_norm(
    x: ArrayLike, gamma: ArrayLike | None, beta: ArrayLike | None, groups: int = 32, **options: Unpack[NormKeywords]
) -> Array:
    """Normalise each sample's groups of channels by their own mean and variance.

    Parameters
    ----------
    x : array_like
        The batch, in `layout`.
    <coefficients>
    groups : int
        The number of groups, which divides the channels.
    <options>
    <execution>

    Returns
    -------
    <y>

    <raises>

    Notes
    -----
    Wu and He, "Group Normalization" (2018). One group makes a layer norm, a group for each channel an instance norm.

    Examples
    --------
    >>> import numpy as np
    >>> import convkernels as ck
    >>> x = np.random.default_rng(0).normal(size=(2, 6, 4, 4))
    >>> y = ck.group_norm(x, np.ones(6), np.zeros(6), groups=3)
    >>> bool(abs(y[0, :2].mean()) < 1e-12)
    True
    """
    return normalise(make_problem(x, gamma, beta, "group", options, groups), options)


def _group_norm_vjp(
    x: ArrayLike, gamma: ArrayLike | None, beta: ArrayLike | None, groups: int = 32, **options: Unpack[NormKeywords]
) -> tuple[Array, Vjp]:
    """Normalise groups of channels, and return the function that takes gradients back.

    Parameters
    ----------
    x : array_like
        The batch, in `layout`.
    <coefficients>
    groups : int
        The number of groups, which divides the channels.
    <options>
    <execution>

    Returns
    -------
    y : ndarray
        What `group_norm` returns.
    <vjp>

    <raises>

    Examples
    --------
    >>> import numpy as np
    >>> import convkernels as ck
    >>> y, vjp = ck.group_norm_vjp(np.random.default_rng(0).normal(size=(2, 6, 4, 4)), np.ones(6), None, groups=3)
    >>> vjp(y).dgamma.shape
    (6,)
    """
    return _normalise_vjp(make_problem(x, gamma, beta, "group", options, groups), options)


def _normalise_vjp(problem: Problem, options: Any) -> tuple[Array, Vjp]:
    back = Gradients(problem, GROUP_NORM_GRAD, options)
    result: tuple[Array, Vjp] = train(
        problem, GROUP_NORM, options, lambda given, y, mean, var: (y, back.of(given, mean, var))
    )
    return result


def _instance_norm(
    x: ArrayLike, gamma: ArrayLike | None, beta: ArrayLike | None, **options: Unpack[NormKeywords]
) -> Array:
    """Normalise each sample's channels by their own mean and variance.

    Parameters
    ----------
    x : array_like
        The batch, in `layout`.
    <coefficients>
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
    >>> y = ck.instance_norm(np.random.default_rng(0).normal(size=(2, 6, 4, 4)), None, None)
    >>> bool(abs(y[1, 5].mean()) < 1e-12)
    True
    """
    return normalise(make_problem(x, gamma, beta, "instance", options), options)


def _instance_norm_vjp(
    x: ArrayLike, gamma: ArrayLike | None, beta: ArrayLike | None, **options: Unpack[NormKeywords]
) -> tuple[Array, Vjp]:
    """Normalise channels by themselves, and return the function that takes gradients back.

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
        What `instance_norm` returns.
    <vjp>

    <raises>

    Examples
    --------
    >>> import numpy as np
    >>> import convkernels as ck
    >>> y, vjp = ck.instance_norm_vjp(np.random.default_rng(0).normal(size=(2, 6, 4, 4)), None, None)
    >>> vjp(y).dgamma is None
    True
    """
    return _normalise_vjp(make_problem(x, gamma, beta, "instance", options), options)


def _layer_norm(
    x: ArrayLike, gamma: ArrayLike | None, beta: ArrayLike | None, **options: Unpack[LayerNormKeywords]
) -> Array:
    """Normalise each sample over its channels and spatial axes, or over chosen axes.

    Parameters
    ----------
    x : array_like
        The batch, in `layout`.
    gamma, beta : array_like or None
        What the normalised data is multiplied by, and what is added: of shape (C,), or anything that broadcasts
        against the normalised axes of `x` in their order there; None for 1 and 0.
    axes : int or sequence of int, optional
        The axes of `x` to normalise over, by their place in `layout`. By default all but the batch.
    <options>
    <execution>

    Returns
    -------
    <y>

    <raises>

    Notes
    -----
    Ba, Kiros and Hinton, "Layer Normalization" (2016).

    Examples
    --------
    Over the channels alone, as transformers do:

    >>> import numpy as np
    >>> import convkernels as ck
    >>> x = np.random.default_rng(0).normal(size=(2, 4, 4, 6))
    >>> y = ck.layer_norm(x, np.ones(6), np.zeros(6), axes=-1, layout="NHWC")
    >>> bool(abs(y[0, 1, 2].mean()) < 1e-12)
    True
    """
    return normalise(make_problem(x, gamma, beta, "layer", options), options)


def _layer_norm_vjp(
    x: ArrayLike, gamma: ArrayLike | None, beta: ArrayLike | None, **options: Unpack[LayerNormKeywords]
) -> tuple[Array, Vjp]:
    """Normalise each sample, and return the function that takes gradients back.

    Parameters
    ----------
    x, gamma, beta, axes
        As for `layer_norm`.
    <options>
    <execution>

    Returns
    -------
    y : ndarray
        What `layer_norm` returns.
    <vjp>

    <raises>

    Examples
    --------
    >>> import numpy as np
    >>> import convkernels as ck
    >>> x = np.random.default_rng(0).normal(size=(2, 6, 4, 4))
    >>> y, vjp = ck.layer_norm_vjp(x, np.ones((6, 4, 4)), None)
    >>> vjp(y).dgamma.shape
    (6, 4, 4)
    """
    return _normalise_vjp(make_problem(x, gamma, beta, "layer", options), options)


def _rms_norm(x: ArrayLike, gamma: ArrayLike | None, **options: Unpack[LayerNormKeywords]) -> Array:
    """Divide each sample by the root of its mean square over its channels and spatial axes, or over chosen axes.

    Parameters
    ----------
    x : array_like
        The batch, in `layout`.
    gamma : array_like or None
        What the result is multiplied by, as for `layer_norm`.
    axes : int or sequence of int, optional
        The axes of `x` to normalise over, as for `layer_norm`.
    <options>
    <execution>

    Returns
    -------
    <y>

    <raises>

    Notes
    -----
    Zhang and Sennrich, "Root Mean Square Layer Normalization" (2019).

    Examples
    --------
    >>> import numpy as np
    >>> import convkernels as ck
    >>> y = ck.rms_norm(np.full((2, 6, 4, 4), -3.0), None, eps=0)
    >>> bool((y == -1).all())
    True
    """
    return normalise(make_problem(x, gamma, None, "rms", options), options)


def _rms_norm_vjp(x: ArrayLike, gamma: ArrayLike | None, **options: Unpack[LayerNormKeywords]) -> tuple[Array, Vjp]:
    """Divide by the root mean square, and return the function that takes gradients back.

    Parameters
    ----------
    x, gamma, axes
        As for `rms_norm`.
    <options>
    <execution>

    Returns
    -------
    y : ndarray
        What `rms_norm` returns.
    <vjp>

    <raises>

    Examples
    --------
    >>> import numpy as np
    >>> import convkernels as ck
    >>> y, vjp = ck.rms_norm_vjp(np.random.default_rng(0).normal(size=(2, 6, 4, 4)), np.ones(6))
    >>> vjp(y).dgamma.shape
    (6,)
    """
    return _normalise_vjp(make_problem(x, gamma, None, "rms", options), options)


LAYER_KEYWORDS = {"axes": None, **KEYWORDS}
group_norm = general(_group_norm, KEYWORDS, DOC)
group_norm_vjp = general(_group_norm_vjp, KEYWORDS, DOC)
instance_norm = general(_instance_norm, KEYWORDS, DOC)
instance_norm_vjp = general(_instance_norm_vjp, KEYWORDS, DOC)
layer_norm = general(_layer_norm, LAYER_KEYWORDS, DOC)
layer_norm_vjp = general(_layer_norm_vjp, LAYER_KEYWORDS, DOC)
rms_norm = general(_rms_norm, LAYER_KEYWORDS, DOC)
rms_norm_vjp = general(_rms_norm_vjp, LAYER_KEYWORDS, DOC)
