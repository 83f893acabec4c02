"""Convolutions with parameters.

Weights have the same shape in every layout, (O, I / groups, spatial), so that a state fits a network of any layout.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import DTypeLike

from ..conv import conv_vjp
from ..conv_transpose import conv_transpose_vjp
from ..errors import OptionError
from ..layout import SPATIAL, Array, data_layout
from ..window import Padding, per_axis, whole
from .layer import Layer, kaiming

Ints = int | Sequence[int]


class _Conv(Layer):
    """What convolutions share: the shape of weights, and a backward for the first that is spared the input's."""

    rank: ClassVar[int]
    leading: ClassVar[Literal["OI", "IO"]] = "OI"
    function: ClassVar[Callable[..., Any]]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Ints,
        groups: int,
        bias: bool,
        dtype: DTypeLike,
        generator: int | np.random.Generator | None,
        options: dict[str, Any],
    ) -> None:
        super().__init__()
        given = {"in_channels": in_channels, "out_channels": out_channels, "groups": groups}
        for name, value in given.items():
            if whole(name, value) < 1:
                raise OptionError(f"{name}={value} must be at least 1")
        for name in ("in_channels", "out_channels"):
            if given[name] % groups:
                raise OptionError(f"{name}={given[name]} must be divisible by groups={groups}")
        data_layout(options["layout"], self.rank)
        sizes = per_axis("kernel_size", kernel_size, self.rank)
        seen = in_channels // groups
        shape = (out_channels, seen) if self.leading == "OI" else (in_channels, out_channels // groups)
        # A transposed convolution's output sees, on the average, one input in each stride**rank taps.
        fan_in = max(1, seen * math.prod(sizes) // self._spread(options))
        self.params["w"] = kaiming((*shape, *sizes), fan_in, dtype, generator)
        if bias:
            self.params["b"] = np.zeros(out_channels, dtype)
        self.options = {**options, "groups": groups, "weight_layout": self.leading + SPATIAL[self.rank]}

    def _spread(self, options: dict[str, Any]) -> int:
        return math.prod(per_axis("stride", options["stride"], self.rank)) if self.leading == "IO" else 1

    def forward(self, x: Array) -> Array:
        """Convolve, and keep the function that takes gradients back."""
        y: Array
        y, self.vjp = type(self).function(x, self.params["w"], self.params.get("b"), **self.options)
        return y

    def backward(self, dy: Array, *, input_grad: bool = True) -> Array | None:
        """Take the gradients by weights, bias and input."""
        dx, dw, db = self.taken_vjp()(dy, wrt=("x", "w", "b") if input_grad else ("w", "b"))
        self.grads["w"] = dw
        if db is not None:
            self.grads["b"] = db
        gradient: Array | None = dx
        return gradient


class _Plain(_Conv):
    """A convolution of some number of axes."""

    function = staticmethod(conv_vjp)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Ints,
        *,
        stride: Ints = 1,
        padding: Padding = 0,
        dilation: Ints = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        layout: str | None = None,
        dtype: DTypeLike = np.float32,
        generator: int | np.random.Generator | None = None,
    ) -> None:
        options = {"stride": stride, "padding": padding, "dilation": dilation, "padding_mode": padding_mode}
        options["layout"] = "NC" + SPATIAL[self.rank] if layout is None else layout
        super().__init__(in_channels, out_channels, kernel_size, groups, bias, dtype, generator, options)


class Conv1d(_Plain):
    """A convolution along one axis.

    Parameters
    ----------
    in_channels, out_channels : int
        The channels of input and output.
    kernel_size : int or sequence of int
        The taps along each axis.
    stride, padding, dilation, groups, padding_mode
        As for `convkernels.conv1d`.
    bias : bool
        Whether a number is added to each output channel.
    layout : str
        The axes of input and output.
    dtype : dtype
        That of the parameters.
    generator : int or numpy.random.Generator, optional
        Where the weights are drawn (He's normal); a number is a seed.

    Examples
    --------
    >>> import numpy as np
    >>> from convkernels import nn
    >>> layer = nn.Conv1d(3, 4, 3, padding="same", generator=0)
    >>> layer(np.ones((2, 3, 8), np.float32)).shape
    (2, 4, 8)
    """

    rank = 1


class Conv2d(_Plain):
    """A convolution over height and width.

    Parameters
    ----------
    in_channels, out_channels : int
        The channels of input and output.
    kernel_size : int or sequence of int
        The taps along each axis.
    stride, padding, dilation, groups, padding_mode
        As for `convkernels.conv2d`.
    bias : bool
        Whether a number is added to each output channel.
    layout : str
        The axes of input and output.
    dtype : dtype
        That of the parameters.
    generator : int or numpy.random.Generator, optional
        Where the weights are drawn (He's normal); a number is a seed.

    Examples
    --------
    >>> import numpy as np
    >>> from convkernels import nn
    >>> layer = nn.Conv2d(3, 4, 3, padding="same", generator=0)
    >>> layer(np.ones((2, 3, 8, 8), np.float32)).shape
    (2, 4, 8, 8)
    """

    rank = 2


class Conv3d(_Plain):
    """A convolution over depth, height and width.

    Parameters
    ----------
    in_channels, out_channels : int
        The channels of input and output.
    kernel_size : int or sequence of int
        The taps along each axis.
    stride, padding, dilation, groups, padding_mode
        As for `convkernels.conv3d`.
    bias : bool
        Whether a number is added to each output channel.
    layout : str
        The axes of input and output.
    dtype : dtype
        That of the parameters.
    generator : int or numpy.random.Generator, optional
        Where the weights are drawn (He's normal); a number is a seed.

    Examples
    --------
    >>> import numpy as np
    >>> from convkernels import nn
    >>> layer = nn.Conv3d(3, 4, 3, padding="same", generator=0)
    >>> layer(np.ones((2, 3, 8, 8, 8), np.float32)).shape
    (2, 4, 8, 8, 8)
    """

    rank = 3


class ConvTranspose2d(_Conv):
    """A transposed convolution, which enlarges height and width by its stride.

    Parameters
    ----------
    in_channels, out_channels : int
        The channels of input and output.
    kernel_size : int or sequence of int
        The taps along each axis.
    stride, padding, output_padding, dilation, groups
        As for `convkernels.conv_transpose2d`.
    bias : bool
        Whether a number is added to each output channel.
    layout : str
        The axes of input and output.
    dtype : dtype
        That of the parameters.
    generator : int or numpy.random.Generator, optional
        Where the weights are drawn (He's normal); a number is a seed.

    Examples
    --------
    >>> import numpy as np
    >>> from convkernels import nn
    >>> layer = nn.ConvTranspose2d(3, 4, 2, stride=2, generator=0)
    >>> layer(np.ones((2, 3, 8, 8), np.float32)).shape
    (2, 4, 16, 16)
    """

    rank = 2
    leading = "IO"
    function = staticmethod(conv_transpose_vjp)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Ints,
        *,
        stride: Ints = 1,
        padding: Padding = 0,
        output_padding: Ints = 0,
        dilation: Ints = 1,
        groups: int = 1,
        bias: bool = True,
        layout: str = "NCHW",
        dtype: DTypeLike = np.float32,
        generator: int | np.random.Generator | None = None,
    ) -> None:
        options: dict[str, Any] = {"stride": stride, "padding": padding, "output_padding": output_padding}
        options |= {"dilation": dilation, "layout": layout}
        super().__init__(in_channels, out_channels, kernel_size, groups, bias, dtype, generator, options)
