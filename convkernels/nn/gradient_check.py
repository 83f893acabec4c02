"""A whole network's gradients against central differences."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import DTypeError
from ..layout import Array
from ..losses import softmax_cross_entropy_vjp
from .layer import Layer

Loss = Callable[[Array, Any], tuple[float, Callable[..., Array]]]


def check_gradients(
    net: Layer,
    x: Array,
    labels: ArrayLike,
    *,
    loss: Loss = softmax_cross_entropy_vjp,
    samples: int = 20,
    step: float = 1e-6,
    seed: int = 0,
) -> dict[str, float]:
    """Compare a network's gradients with differences of its loss.

    Each difference is taken over the same dropout, and the network is left as it was. Where a step crosses the kink of
    a ReLU or of a max pool, the difference is off: on data drawn at random that is rare.

    Parameters
    ----------
    net : Layer
        The network, of float64.
    x : ndarray
        A batch, of float64.
    labels : array_like
        What the loss takes beside the network's output.
    loss : callable
        ``loss(y, labels)`` returns the loss and its vjp.
    samples : int
        How many numbers of each parameter are tried.
    step : float
        By how much they change.
    seed : int
        Which numbers.

    Returns
    -------
    dict of str to float
        For each parameter, and for the input "x", the largest difference relative to its largest gradient, or to a
        thousandth of the largest of all.

    Raises
    ------
    DTypeError
        If a parameter or `x` is not float64, which a difference needs.

    Examples
    --------
    >>> from convkernels import nn
    >>> rng = np.random.default_rng(0)
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(8, 3, dtype=np.float64, generator=rng))
    >>> errors = nn.check_gradients(net, rng.normal(size=(4, 2, 2, 2)), rng.integers(0, 3, 4))
    >>> list(errors), max(errors.values()) < 1e-6
    (['1.w', '1.b', 'x'], True)
    """
    net = copy.deepcopy(net)
    arrays = {**{parameter.name: parameter.value for parameter in net.parameters()}, "x": np.array(x)}
    for name, array in arrays.items():
        if array.dtype != np.float64:
            raise DTypeError(f"{name} has dtype {array.dtype}, must be float64: differences need its precision")
    generators = {id(layer.generator): layer.generator for _, layer in net.layers() if hasattr(layer, "generator")}
    states = {key: generator.bit_generator.state for key, generator in generators.items()}

    def value() -> tuple[float, Callable[..., Array]]:
        for key, generator in generators.items():
            generator.bit_generator.state = states[key]
        return loss(net(arrays["x"]), labels)

    dx = net.backward(value()[1]())
    assert dx is not None, "the input's gradient is asked for"
    gradients = {**{parameter.name: parameter.grad for parameter in net.parameters()}, "x": dx}
    rng = np.random.default_rng(seed)
    # A gradient that is 0 by construction, as of a bias before a batch norm, has no size of its own to compare with.
    least = 1e-3 * max(float(np.abs(gradient).max()) for gradient in gradients.values())
    errors = {}
    for name, array in arrays.items():
        places = rng.choice(array.size, min(samples, array.size), replace=False)
        differences = [_difference(lambda: value()[0], array, int(place), step) for place in places]
        gradient = gradients[name].ravel()
        off = np.abs(gradient[places] - differences).max()
        errors[name] = float(off / max(np.abs(gradient).max(), least, 1e-300))
    return errors


def _difference(value: Callable[[], float], array: Array, place: int, step: float) -> float:
    """The slope of a value along one number of an array."""
    flat = array.reshape(-1)
    kept = flat[place]
    found = []
    for moved in (kept + step, kept - step):
        flat[place] = moved
        found.append(value())
    flat[place] = kept
    return (found[0] - found[1]) / (2 * step)
