"""Pools as layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..adaptive import global_pool_vjp
from ..layout import Array
from ..pool import avg_pool_vjp, max_pool_vjp
from ..window import Padding
from .layer import Layer


class _Pool(Layer):
    """What pools share: no parameters, and one gradient."""

    def _reduced(self, pool: Callable[..., Any], *arguments: Any, **options: Any) -> Array:
        y: Array
        y, self.vjp = pool(*arguments, **options)
        return y

    def backward(self, dy: Array, *, input_grad: bool = True) -> Array | None:
        """Take the gradient to the cells of each window."""
        gradient: Array = self.taken_vjp()(dy)
        return gradient


class MaxPool(_Pool):
    """The largest cell of every window.

    Parameters
    ----------
    window : int or sequence of int
        Its cells along each axis.
    stride : int or sequence of int, optional
        By default the window.
    padding, layout
        As for `convkernels.max_pool`.

    Examples
    --------
    >>> import numpy as np
    >>> from convkernels import nn
    >>> nn.MaxPool(2)(np.ones((1, 3, 8, 8))).shape
    (1, 3, 4, 4)
    """

    def __init__(
        self,
        window: int | Sequence[int],
        *,
        stride: int | Sequence[int] | None = None,
        padding: Padding = 0,
        layout: str = "NCHW",
    ) -> None:
        super().__init__()
        self.window = window
        self.options: dict[str, Any] = {"stride": stride, "padding": padding, "layout": layout}

    def forward(self, x: Array) -> Array:
        """Reduce, and keep the function that takes the gradient back."""
        return self._reduced(max_pool_vjp, x, self.window, **self.options)


class AvgPool(_Pool):
    """The mean of every window.

    Parameters
    ----------
    window : int or sequence of int
        Its cells along each axis.
    stride : int or sequence of int, optional
        By default the window.
    padding, count_include_pad, layout
        As for `convkernels.avg_pool`.

    Examples
    --------
    >>> import numpy as np
    >>> from convkernels import nn
    >>> nn.AvgPool(2, layout="NHWC")(np.ones((1, 8, 8, 3))).shape
    (1, 4, 4, 3)
    """

    def __init__(
        self,
        window: int | Sequence[int],
        *,
        stride: int | Sequence[int] | None = None,
        padding: Padding = 0,
        count_include_pad: bool = True,
        layout: str = "NCHW",
    ) -> None:
        super().__init__()
        self.window = window
        self.options: dict[str, Any] = {"stride": stride, "padding": padding, "layout": layout}
        self.options["count_include_pad"] = count_include_pad

    def forward(self, x: Array) -> Array:
        """Reduce, and keep the function that takes the gradient back."""
        return self._reduced(avg_pool_vjp, x, self.window, **self.options)


class GlobalAvgPool(_Pool):
    """The mean of each channel of a sample, with spatial axes of one.

    Parameters
    ----------
    layout : str
        The axes of input and output.

    Examples
    --------
    >>> import numpy as np
    >>> from convkernels import nn
    >>> nn.GlobalAvgPool()(np.ones((1, 3, 8, 8))).shape
    (1, 3, 1, 1)
    """

    def __init__(self, layout: str = "NCHW") -> None:
        super().__init__()
        self.layout = layout

    def forward(self, x: Array) -> Array:
        """Reduce, and keep the function that takes the gradient back."""
        return self._reduced(global_pool_vjp, x, "mean", layout=self.layout)
