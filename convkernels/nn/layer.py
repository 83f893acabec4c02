"""What every part of a network is: a forward, a backward, and the parameters between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, Self

import numpy as np

from ..errors import DataError, OrderError, ShapeError, one_of
from ..layout import Array

Watch = Callable[["Layer", Array, Array], None]

_watcher: ContextVar[Watch | None] = ContextVar("convkernels_nn_watcher", default=None)


@contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Hand over each layer called in this block, once it is done, with its input and output."""
    token = _watcher.set(watch)
    try:
        yield
    finally:
        _watcher.reset(token)


def is_watched() -> bool:
    """Whether layers are handed over here."""
    return _watcher.get() is not None


class Parameter(NamedTuple):
    """A parameter's name in the network, the layer that has it, and its name there."""

    name: str
    layer: Layer
    key: str

    @property
    def value(self) -> Array:
        """The parameter itself, which an optimiser changes in place."""
        return self.layer.params[self.key]

    @property
    def grad(self) -> Array:
        """Its gradient, of the last backward."""
        if self.key not in self.layer.grads:
            raise OrderError(f"parameter {self.name!r} has no gradient: backward comes first")
        return self.layer.grads[self.key]


class Layer:
    """A function with parameters that knows its gradient.

    A subclass gives `forward`, which leaves in `vjp` the function that takes gradients back, and `backward`, which
    calls it, fills `grads` and returns the gradient by the input. Each backward belongs to the last forward.

    Attributes
    ----------
    params, grads : dict of str to ndarray
        What is learned, and the loss' gradient by it.
    buffers : dict of str to ndarray
        What is kept with the parameters, and not learned: running statistics.
    training : bool
        Whether dropout drops, and batch norm takes the batch's own statistics.

    Examples
    --------
    >>> from convkernels import nn
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, generator=0), nn.ReLU())
    >>> [(parameter.name, parameter.value.shape) for parameter in net.parameters()]
    [('1.w', (4, 3)), ('1.b', (3,))]
    >>> y = net.forward(np.ones((2, 1, 2, 2), np.float32))
    >>> net.backward(np.ones_like(y)).shape
    (2, 1, 2, 2)
    """

    def __init__(self) -> None:
        self.params: dict[str, Array] = {}
        self.grads: dict[str, Array] = {}
        self.buffers: dict[str, Array] = {}
        self.training = True
        self.vjp: Callable[..., Any] | None = None

    def forward(self, x: Array) -> Array:
        """Compute the output, and keep what `backward` needs."""
        raise NotImplementedError

    def backward(self, dy: Array, *, input_grad: bool = True) -> Array | None:
        """Take the loss' gradient by the output to those by the parameters and, if wanted, by the input.

        The first layer of a network saves the last one, which in a convolution is a third of its work.
        """
        raise NotImplementedError

    def __call__(self, x: Array) -> Array:
        """Do what `forward` does, seen by whoever watches."""
        y = self.forward(x)
        watch = _watcher.get()
        if watch is not None:
            watch(self, x, y)
        return y

    def children(self) -> Iterator[tuple[str, Layer]]:
        """The layers that this one is made of, and their names."""
        return iter(())

    def flops(self, x: Array, y: Array) -> int:
        """What the forward of these computes besides this package's convolutions, pools and norms."""
        return 0

    def taken_vjp(self) -> Callable[..., Any]:
        """The function that takes gradients back, once: what it holds is then free."""
        vjp, self.vjp = self.vjp, None
        if vjp is None:
            raise OrderError(f"{type(self).__name__}: backward needs a forward before it")
        return vjp

    def layers(self, prefix: str = "") -> Iterator[tuple[str, Layer]]:
        """Go through this layer and all within, each with its name in the network."""
        yield prefix, self
        for name, child in self.children():
            yield from child.layers(f"{prefix}.{name}" if prefix else name)

    def parameters(self) -> Iterator[Parameter]:
        """All parameters, in a fixed order."""
        for name, layer in self.layers():
            for key in layer.params:
                yield Parameter(f"{name}.{key}" if name else key, layer, key)

    @property
    def parameter_count(self) -> int:
        """How many numbers are learned."""
        return sum(parameter.value.size for parameter in self.parameters())

    def train(self, mode: bool = True) -> Self:
        """Set this and all layers within to training."""
        for _, layer in self.layers():
            layer.training = mode
        return self

    def eval(self) -> Self:
        """Set this and all layers within to evaluation: no dropout, running statistics."""
        return self.train(False)

    def state_dict(self) -> dict[str, Array]:
        """Parameters and buffers by name: the arrays themselves, not copies."""
        return {
            f"{name}.{key}" if name else key: array
            for name, layer in self.layers()
            for key, array in {**layer.params, **layer.buffers}.items()
        }

    def load_state_dict(self, state: Mapping[str, Array]) -> Self:
        """Copy parameters and buffers from a network of the same build; nothing changes if something does not fit."""
        own = self.state_dict()
        for name in own:
            if name not in state:
                raise DataError(f"the state has no {name!r}, which the network has")
        for name, array in state.items():
            if name not in own:
                raise DataError(f"the state's {name!r} must be one of the network's {one_of(own, name)}")
            if np.shape(array) != own[name].shape:
                raise ShapeError(f"the state's {name!r} has shape {np.shape(array)}, must have {own[name].shape}")
        for name, array in own.items():
            array[...] = state[name]
        return self


def kaiming(
    shape: tuple[int, ...], fan_in: int, dtype: np.typing.DTypeLike, generator: int | np.random.Generator | None
) -> Array:
    """Draw weights that keep the size of what goes through them and a ReLU: normal, of variance 2 / fan_in.

    He, Zhang, Ren, Sun, "Delving Deep into Rectifiers" (2015).
    """
    drawn: Array = np.random.default_rng(generator).standard_normal(shape)
    drawn *= np.sqrt(2 / fan_in)
    return drawn.astype(dtype, copy=False)
