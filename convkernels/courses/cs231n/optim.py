"""The course's update rules: new weights from old ones, their gradient and a dictionary of settings and moments."""

from __future__ import annotations

import numpy as np

from convkernels.layout import Array
from convkernels.nn.optimisers import SGD, Adam, Optimiser, RMSProp

from .entries import Param


def sgd(w: Array, dw: Array, config: Param | None = None) -> tuple[Array, Param]:
    """Go down the gradient.

    Parameters
    ----------
    w, dw : ndarray
        The weights and their gradient.
    config : dict, optional
        "learning_rate" (1e-2).

    Returns
    -------
    next_w : ndarray
        The new weights.
    config : dict
        The one given, with what was not in it.

    Raises
    ------
    ConvkernelsError
        If a setting is out of range.

    Examples
    --------
    >>> sgd(np.ones(2), np.array([1.0, 2.0]), {"learning_rate": 0.5})[0]
    array([0.5, 0. ])
    """
    config = _completed(config, learning_rate=1e-2)
    velocity = np.zeros_like(w)  # without momentum it is of this step alone, and not kept
    return _updated(SGD(config["learning_rate"]), w, dw, velocity)[0], config


def sgd_momentum(w: Array, dw: Array, config: Param | None = None) -> tuple[Array, Param]:
    """Go down the gradient with momentum.

    Parameters
    ----------
    w, dw : ndarray
        The weights and their gradient.
    config : dict, optional
        "learning_rate" (1e-2), "momentum" (0.9) and "velocity" (zeros), which is updated.

    Returns
    -------
    next_w : ndarray
        The new weights.
    config : dict
        The one given, updated.

    Raises
    ------
    ConvkernelsError
        If a setting is out of range.

    Examples
    --------
    >>> w, config = sgd_momentum(np.ones(1), np.ones(1), {"learning_rate": 0.5})
    >>> sgd_momentum(w, np.ones(1), config)[0]
    array([-0.45])
    """
    config = _completed(config, learning_rate=1e-2, momentum=0.9, velocity=np.zeros_like(w))
    rule = SGD(config["learning_rate"], config["momentum"])
    next_w, config["velocity"] = _updated(rule, w, dw, config["velocity"])
    return next_w, config


def rmsprop(w: Array, dw: Array, config: Param | None = None) -> tuple[Array, Param]:
    """Divide the gradient by the root of a running mean of its square.

    Parameters
    ----------
    w, dw : ndarray
        The weights and their gradient.
    config : dict, optional
        "learning_rate" (1e-2), "decay_rate" (0.99), "epsilon" (1e-8) and "cache" (zeros), which is updated.

    Returns
    -------
    next_w : ndarray
        The new weights.
    config : dict
        The one given, updated.

    Raises
    ------
    ConvkernelsError
        If a setting is out of range.

    Examples
    --------
    >>> rmsprop(np.ones(1), np.array([5.0]), {"learning_rate": 0.1})[0].round(6)
    array([0.])
    """
    config = _completed(config, learning_rate=1e-2, decay_rate=0.99, epsilon=1e-8, cache=np.zeros_like(w))
    rule = RMSProp(config["learning_rate"], config["decay_rate"], config["epsilon"])
    next_w, config["cache"] = _updated(rule, w, dw, config["cache"])
    return next_w, config


def adam(w: Array, dw: Array, config: Param | None = None) -> tuple[Array, Param]:
    """Divide a running mean of the gradient by the root of one of its square, both corrected for their start.

    Parameters
    ----------
    w, dw : ndarray
        The weights and their gradient.
    config : dict, optional
        "learning_rate" (1e-3), "beta1" (0.9), "beta2" (0.999), "epsilon" (1e-8); "m", "v" (zeros) and "t" (0), which
        are updated.

    Returns
    -------
    next_w : ndarray
        The new weights.
    config : dict
        The one given, updated.

    Raises
    ------
    ConvkernelsError
        If a setting is out of range.

    Examples
    --------
    >>> adam(np.ones(1), np.array([5.0]), {"learning_rate": 0.1})[0].round(6)
    array([0.9])
    """
    config = _completed(config, learning_rate=1e-3, beta1=0.9, beta2=0.999, epsilon=1e-8, t=0)
    config = _completed(config, m=np.zeros_like(w), v=np.zeros_like(w))
    rule = Adam(config["learning_rate"], (config["beta1"], config["beta2"]), config["epsilon"])
    rule.steps = config["t"] = config["t"] + 1
    next_w, config["m"], config["v"] = _updated(rule, w, dw, config["m"], config["v"])
    return next_w, config


def _completed(config: Param | None, **defaults: object) -> Param:
    config = {} if config is None else config
    for key, value in defaults.items():
        config.setdefault(key, value)
    return config


def _updated(rule: Optimiser, w: Array, dw: Array, *moments: Array) -> list[Array]:
    """New weights and moments; the old ones stay as they are."""
    new = [array.copy() for array in (w, *moments)]
    rule.update(new[0], dw, *new[1:])
    return new


RULES = {"sgd": sgd, "sgd_momentum": sgd_momentum, "rmsprop": rmsprop, "adam": adam}
"""By the names that a Solver takes."""
