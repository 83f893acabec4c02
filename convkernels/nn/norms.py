"""Norms with parameters: what is normalised is multiplied by gamma, and beta is added."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..batch_norm import batch_norm_train_vjp, batch_norm_vjp, update_running
from ..layout import Array
from ..norm import group_norm_vjp, layer_norm_vjp
from ..window import per_axis
from .layer import Layer


class _Norm(Layer):
    """What norms share: gamma of ones, beta of zeros, and their gradients."""

    def __init__(self, shape: int | Sequence[int], dtype: DTypeLike, **options: Any) -> None:
        super().__init__()
        sizes = per_axis("shape", shape, 1 if isinstance(shape, int | np.integer) else len(shape))
        self.params = {"gamma": np.ones(sizes, dtype), "beta": np.zeros(sizes, dtype)}
        self.options = options

    def backward(self, dy: Array, *, input_grad: bool = True) -> Array | None:
        """Take the gradients by gamma, beta and the input."""
        wanted = ("x", "gamma", "beta") if input_grad else ("gamma", "beta")
        dx, self.grads["gamma"], self.grads["beta"] = self.taken_vjp()(dy, wrt=wanted)
        gradient: Array | None = dx
        return gradient


class BatchNorm(_Norm):
    """Each channel over the batch and the spatial axes; in evaluation by running statistics.

    Parameters
    ----------
    channels : int
        Those of the input.
    eps : float
        Added to the variance.
    momentum : float
        The share that running statistics keep (PyTorch's is 1 less this).
    layout : str
        The axes of input and output.
    dtype : dtype
        That of parameters and statistics.

    Examples
    --------
    >>> from convkernels import nn
    >>> layer = nn.BatchNorm(3)
    >>> x = np.random.default_rng(0).normal(5, 2, (8, 3, 4, 4)).astype(np.float32)
    >>> bool(abs(layer(x).mean()) < 1e-6), layer.buffers["running_mean"].round(1)
    (True, array([0.5, 0.5, 0.5], dtype=float32))
    """

    def __init__(
        self,
        channels: int,
        *,
        eps: float = 1e-5,
        momentum: float = 0.9,
        layout: str = "NCHW",
        dtype: DTypeLike = np.float32,
    ) -> None:
        super().__init__(channels, dtype, eps=eps, layout=layout)
        self.momentum = momentum
        self.buffers = {"running_mean": np.zeros(channels, dtype), "running_var": np.ones(channels, dtype)}

    def forward(self, x: Array) -> Array:
        """Normalise, and in training move the running statistics."""
        gamma, beta = self.params["gamma"], self.params["beta"]
        mean, var = self.buffers["running_mean"], self.buffers["running_var"]
        if not self.training:
            y, self.vjp = batch_norm_vjp(x, gamma, beta, mean, var, **self.options)
            return y
        y, batch_mean, batch_var, self.vjp = batch_norm_train_vjp(x, gamma, beta, **self.options)
        mean[...] = update_running(mean, batch_mean, self.momentum)
        var[...] = update_running(var, batch_var, self.momentum)
        return y


class GroupNorm(_Norm):
    """Each sample's groups of neighbouring channels; with one for each channel, an instance norm.

    Parameters
    ----------
    groups : int
        Their number, which divides the channels.
    channels : int
        Those of the input.
    eps : float
        Added to the variance.
    layout : str
        The axes of input and output.
    dtype : dtype
        That of the parameters.

    Examples
    --------
    >>> from convkernels import nn
    >>> x = np.random.default_rng(0).normal(5, 2, (2, 4, 3, 3))
    >>> y = nn.GroupNorm(2, 4)(x).reshape(2, 2, 2, 3, 3)
    >>> bool((abs(y.mean((2, 3, 4))) < 1e-12).all())
    True
    """

    def __init__(
        self, groups: int, channels: int, *, eps: float = 1e-5, layout: str = "NCHW", dtype: DTypeLike = np.float32
    ) -> None:
        super().__init__(channels, dtype, groups=groups, eps=eps, layout=layout)

    def forward(self, x: Array) -> Array:
        """Normalise, and keep the function that takes gradients back."""
        y, self.vjp = group_norm_vjp(x, self.params["gamma"], self.params["beta"], **self.options)
        return y


class LayerNorm(_Norm):
    """Each sample, over all its axes.

    Parameters
    ----------
    shape : int or sequence of int
        That of gamma and beta: the channels, or what broadcasts against a sample as it lies.
    eps : float
        Added to the variance.
    layout : str
        The axes of input and output.
    dtype : dtype
        That of the parameters.

    Examples
    --------
    >>> from convkernels import nn
    >>> x = np.random.default_rng(0).normal(5, 2, (2, 4, 3, 3))
    >>> bool((abs(nn.LayerNorm(4)(x).mean((1, 2, 3))) < 1e-12).all())
    True
    """

    def __init__(
        self,
        shape: int | Sequence[int],
        *,
        eps: float = 1e-5,
        layout: str = "NCHW",
        dtype: DTypeLike = np.float32,
    ) -> None:
        super().__init__(shape, dtype, eps=eps, layout=layout)

    def forward(self, x: Array) -> Array:
        """Normalise, and keep the function that takes gradients back."""
        y, self.vjp = layer_norm_vjp(x, self.params["gamma"], self.params["beta"], **self.options)
        return y
