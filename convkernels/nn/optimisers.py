"""Rules that change parameters by their gradients, in place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from ..differentiable import real
from ..errors import DataError, OptionError
from ..kernels.pointwise import adam
from ..layout import Array
from .layer import Layer


class Optimiser:
    """A rule, its settings, and its moments of each parameter.

    A subclass gives `update`. Weight decay is for weights, the parameters named "w", and not for biases and norms.

    Attributes
    ----------
    lr : float
        The learning rate, which may be changed between steps.
    steps : int
        How many there have been.
    moments : dict of str to dict of str to ndarray
        By parameter and name.
    """

    names: ClassVar[tuple[str, ...]] = ()
    """Those of the moments."""

    def __init__(self, lr: float, weight_decay: float = 0.0) -> None:
        self.lr, self.weight_decay = at_least_zero("lr", lr), at_least_zero("weight_decay", weight_decay)
        self.steps = 0
        self.moments: dict[str, dict[str, Array]] = {}

    def step(self, net: Layer) -> None:
        """Change every parameter of a network by its last gradient."""
        self.steps += 1
        for parameter in net.parameters():
            value, grad = parameter.value, parameter.grad
            if parameter.name not in self.moments:
                self.moments[parameter.name] = {name: np.zeros_like(value) for name in self.names}
            decay = self.weight_decay if parameter.key == "w" else 0.0
            self.decayed(value, grad, decay, *self.moments[parameter.name].values())

    def decayed(self, w: Array, dw: Array, decay: float, *moments: Array) -> None:
        """Update with the gradient of the loss and of decay / 2 * sum(w**2)."""
        self.update(w, dw + decay * w if decay else dw, *moments)

    def update(self, w: Array, dw: Array, *moments: Array) -> None:
        """Change a parameter and its moments in place; `steps` counts this one."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Array]:
        """The moments, each under "parameter/name", and "lr" and "steps"."""
        found = {f"{name}/{key}": array for name, held in self.moments.items() for key, array in held.items()}
        return {**found, "lr": np.array(self.lr), "steps": np.array(self.steps)}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Take the moments of an optimiser of the same kind."""
        moments: dict[str, dict[str, Array]] = {}
        for name, array in state.items():
            parameter, slash, key = name.rpartition("/")
            if slash and key not in self.names:
                raise DataError(f"{name!r} must be one of {type(self).__name__}'s moments {self.names}")
            if slash:
                moments.setdefault(parameter, {})[key] = np.array(array)
        for name in ("lr", "steps"):
            if name not in state or np.shape(state[name]) != ():
                raise DataError(f"the state of an optimiser must have the number {name!r}")
        # In the order in which `step` hands them to `update`, whatever that of the file.
        self.moments = {name: {key: held[key] for key in self.names} for name, held in moments.items()}
        self.lr, self.steps = float(state["lr"]), int(state["steps"])


def at_least_zero(name: str, value: object) -> float:
    """Take a number of 0 or more."""
    number = real(name, value)
    if not 0 <= number < np.inf:
        raise OptionError(f"{name}={value!r} must be a finite number, at least 0")
    return number


def share(name: str, value: object) -> float:
    """Take a number from 0 to below 1."""
    number = real(name, value)
    if not 0 <= number < 1:
        raise OptionError(f"{name}={value!r} must be at least 0 and below 1")
    return number


class SGD(Optimiser):
    """Go down the gradient, with momentum: velocity = momentum * velocity - lr * dw; w += velocity.

    Parameters
    ----------
    lr : float
        The learning rate.
    momentum : float
        The share of its velocity that a parameter keeps.
    weight_decay : float
        What weights are pulled to zero by.

    Examples
    --------
    >>> w, velocity = np.ones(2), np.zeros(2)
    >>> SGD(lr=0.5).update(w, np.array([1.0, 2.0]), velocity)
    >>> w
    array([0.5, 0. ])
    """

    names = ("velocity",)

    def __init__(self, lr: float = 1e-2, momentum: float = 0.0, weight_decay: float = 0.0) -> None:
        super().__init__(lr, weight_decay)
        self.momentum = share("momentum", momentum)

    def update(self, w: Array, dw: Array, *moments: Array) -> None:
        """Change a parameter in place."""
        (velocity,) = moments
        velocity *= self.momentum
        velocity -= self.lr * dw
        w += velocity


class RMSProp(Optimiser):
    """Divide the gradient by the root of a running mean of its square (Hinton, 2012).

    Parameters
    ----------
    lr : float
        The learning rate.
    decay : float
        The share that the running mean keeps.
    eps : float
        Added to the root.
    weight_decay : float
        What weights are pulled to zero by.

    Examples
    --------
    >>> w = np.ones(1)
    >>> RMSProp(lr=0.1).update(w, np.array([5.0]), np.zeros(1))
    >>> w.round(6)
    array([0.])
    """

    names = ("square",)

    def __init__(self, lr: float = 1e-2, decay: float = 0.99, eps: float = 1e-8, weight_decay: float = 0.0) -> None:
        super().__init__(lr, weight_decay)
        self.decay, self.eps = share("decay", decay), at_least_zero("eps", eps)

    def update(self, w: Array, dw: Array, *moments: Array) -> None:
        """Change a parameter in place."""
        (square,) = moments
        square *= self.decay
        square += (1 - self.decay) * dw * dw
        w -= self.lr * dw / (np.sqrt(square) + self.eps)


class Adam(Optimiser):
    """Divide a running mean of the gradient by the root of one of its square, both freed of their start at zero.

    Kingma, Ba, "Adam: A Method for Stochastic Optimization" (2015).

    Parameters
    ----------
    lr : float
        The learning rate.
    betas : tuple of float
        The shares that the two running means keep.
    eps : float
        Added to the root.
    weight_decay : float
        What weights are pulled to zero by, through the gradient.

    Examples
    --------
    >>> rule, w = Adam(lr=0.1), np.ones(1)
    >>> rule.steps = 1
    >>> rule.update(w, np.array([5.0]), np.zeros(1), np.zeros(1))
    >>> w.round(6)
    array([0.9])
    """

    names = ("mean", "square")

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(lr, weight_decay)
        if len(betas) != 2:
            raise OptionError(f"betas={betas!r} must be two numbers")
        self.betas, self.eps = (share("betas", betas[0]), share("betas", betas[1])), at_least_zero("eps", eps)

    def update(self, w: Array, dw: Array, *moments: Array) -> None:
        """Change a parameter in place."""
        mean, square = moments
        adam(w, dw, mean, square, betas=self.betas, eps=self.eps, lr=self.lr, steps=self.steps)


class AdamW(Adam):
    """Adam, with weights pulled to zero beside the gradient and not through it.

    Loshchilov, Hutter, "Decoupled Weight Decay Regularization" (2019).

    Parameters
    ----------
    lr, betas, eps
        As for `Adam`.
    weight_decay : float
        The share of lr by which a step shortens weights.

    Examples
    --------
    >>> AdamW(lr=0.1).weight_decay
    0.01
    """

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(lr, betas, eps, weight_decay)

    def decayed(self, w: Array, dw: Array, decay: float, *moments: Array) -> None:
        """Shorten the weights, then update."""
        if decay:
            w *= 1 - self.lr * decay
        self.update(w, dw, *moments)
