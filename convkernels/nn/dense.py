"""What stands between and behind the convolutions: linear maps, ReLU, dropout, flattening."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..dense import affine_vjp, dropout2d_vjp, dropout_vjp, relu_vjp
from ..errors import OptionError, ShapeError
from ..layout import Array, data_layout
from ..window import whole
from .layer import Layer, kaiming


class Linear(Layer):
    """A matrix product and a sum: y = x w + b.

    Parameters
    ----------
    in_features, out_features : int
        The numbers of a sample before and after.
    bias : bool
        Whether b is added.
    dtype : dtype
        That of the parameters.
    generator : int or numpy.random.Generator, optional
        Where the weights are drawn (He's normal); a number is a seed.

    Examples
    --------
    >>> from convkernels import nn
    >>> nn.Linear(3, 2, generator=0)(np.ones((5, 3))).shape
    (5, 2)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        dtype: DTypeLike = np.float32,
        generator: int | np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("in_features", in_features), ("out_features", out_features)):
            if whole(name, value) < 1:
                raise OptionError(f"{name}={value} must be at least 1")
        self.params["w"] = kaiming((in_features, out_features), in_features, dtype, generator)
        if bias:
            self.params["b"] = np.zeros(out_features, dtype)

    def forward(self, x: Array) -> Array:
        """Multiply, and keep the function that takes gradients back."""
        y, self.vjp = affine_vjp(x, self.params["w"], self.params.get("b"))
        return y

    def backward(self, dy: Array, *, input_grad: bool = True) -> Array | None:
        """Take the gradients by weights, bias and input."""
        dx, dw, db = self.taken_vjp()(dy, wrt=("x", "w", "b") if input_grad else ("w", "b"))
        self.grads["w"] = dw
        if db is not None:
            self.grads["b"] = db
        gradient: Array | None = dx
        return gradient

    def flops(self, x: Array, y: Array) -> int:
        """A product and a sum for each weight; as a convolution's, without the bias."""
        return 2 * len(x) * self.params["w"].size


class _Function(Layer):
    """A function without parameters."""

    def backward(self, dy: Array, *, input_grad: bool = True) -> Array | None:
        """Take the gradient by the input."""
        gradient: Array = self.taken_vjp()(dy)
        return gradient


class ReLU(_Function):
    """The positive part: y = max(x, 0).

    Examples
    --------
    >>> from convkernels import nn
    >>> nn.ReLU()(np.array([-1.0, 2.0]))
    array([0., 2.])
    """

    def forward(self, x: Array) -> Array:
        """Take the positive part, and keep where it is."""
        y, self.vjp = relu_vjp(x)
        return y

    def flops(self, x: Array, y: Array) -> int:
        """A comparison for each number."""
        return y.size


class _Dropout(_Function):
    """What dropouts share: a rate, a generator, and that evaluation leaves them out."""

    def __init__(self, rate: float, generator: int | np.random.Generator | None) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise OptionError(f"rate={rate!r} must be at least 0 and below 1")
        self.rate = rate
        self.generator = np.random.default_rng(generator)

    def dropped(self, x: Array) -> tuple[Array, Callable[..., Any]]:
        """The input with some of it dropped, and the function that takes the gradient back."""
        raise NotImplementedError

    def forward(self, x: Array) -> Array:
        """In training drop, else pass on."""
        if not self.training or not self.rate:
            self.vjp = lambda dy: dy
            return x
        y, self.vjp = self.dropped(x)
        return y


class Dropout(_Dropout):
    """Drop numbers at random in training, and divide the others by 1 - rate.

    Parameters
    ----------
    rate : float
        The probability of a drop.
    generator : int or numpy.random.Generator, optional
        Where the randomness comes from; a number is a seed.

    Examples
    --------
    >>> from convkernels import nn
    >>> layer = nn.Dropout(0.5, generator=0)
    >>> layer(np.ones(4)), layer.eval()(np.ones(4))
    (array([2., 0., 0., 0.]), array([1., 1., 1., 1.]))
    """

    def __init__(self, rate: float = 0.5, *, generator: int | np.random.Generator | None = None) -> None:
        super().__init__(rate, generator)

    def dropped(self, x: Array) -> tuple[Array, Callable[..., Any]]:
        """Numbers dropped."""
        return dropout_vjp(x, self.rate, self.generator)


class Dropout2d(_Dropout):
    """Drop whole channels of samples at random in training, and divide the others by 1 - rate.

    Parameters
    ----------
    rate : float
        The probability of a drop.
    layout : str
        The axes of input and output.
    generator : int or numpy.random.Generator, optional
        Where the randomness comes from; a number is a seed.

    Examples
    --------
    >>> from convkernels import nn
    >>> nn.Dropout2d(0.5, generator=1)(np.ones((1, 3, 2, 2)))[0, :, 0, 0]
    array([2., 2., 0.])
    """

    def __init__(
        self, rate: float = 0.5, *, layout: str = "NCHW", generator: int | np.random.Generator | None = None
    ) -> None:
        super().__init__(rate, generator)
        self.layout = layout

    def dropped(self, x: Array) -> tuple[Array, Callable[..., Any]]:
        """Channels dropped."""
        return dropout2d_vjp(x, self.rate, self.generator, self.layout)


class Flatten(_Function):
    """Make each sample a row, of channels first, so that what follows fits every layout.

    Parameters
    ----------
    layout : str
        The axes of the input; any but channels first costs a copy.

    Examples
    --------
    >>> from convkernels import nn
    >>> nn.Flatten("NHWC")(np.arange(6).reshape(1, 1, 3, 2))
    array([[0, 2, 4, 1, 3, 5]])
    """

    def __init__(self, layout: str = "NCHW") -> None:
        super().__init__()
        self.layout = data_layout(layout, None)

    def forward(self, x: Array) -> Array:
        """Make rows."""
        canonical = self.layout.view(x)
        if not canonical.size:
            raise ShapeError(f"x has shape {x.shape}, must not be empty")

        def vjp(dy: Array) -> Array:
            return np.ascontiguousarray(self.layout.restore(dy.reshape(canonical.shape)))

        self.vjp = vjp
        return canonical.reshape(len(canonical), math.prod(canonical.shape[1:]))
