"""The course's three-layer convolutional network."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from convkernels.errors import OptionError
from convkernels.layout import Array
from convkernels.window import whole

from .dense import affine_backward, affine_forward, softmax_loss
from .layer_utils import affine_relu_backward, affine_relu_forward, conv_relu_pool_backward, conv_relu_pool_forward

POOL = {"pool_height": 2, "pool_width": 2, "stride": 2}


class ThreeLayerConvNet:
    """A network of conv - relu - 2x2 max pool - affine - relu - affine - softmax, on (N, C, H, W).

    The weights are normal, drawn from NumPy's global state as in the course: ``np.random.seed`` repeats them.

    Parameters
    ----------
    input_dim : tuple of int
        (C, H, W).
    num_filters : int
        Those of the convolution, which keeps height and width if `filter_size` is odd.
    filter_size : int
        Their height and width.
    hidden_dim : int
        The numbers between the affine layers.
    num_classes : int
        The scores.
    weight_scale : float
        The deviation of the weights; biases start at 0.
    reg : float
        The loss has 0.5 * reg * sum(W**2) added for each of the weights, and not for the biases.
    dtype : dtype
        That of all computation.

    Attributes
    ----------
    params : dict of str to ndarray
        W1, b1, W2, b2, W3, b3.

    Examples
    --------
    >>> model = ThreeLayerConvNet(input_dim=(1, 4, 4), num_filters=2, filter_size=3, hidden_dim=3, weight_scale=0)
    >>> model.loss(np.ones((2, 1, 4, 4))).shape
    (2, 10)
    >>> loss, grads = model.loss(np.ones((2, 1, 4, 4)), np.array([0, 1]))
    >>> round(loss, 4), sorted(grads)
    (2.3026, ['W1', 'W2', 'W3', 'b1', 'b2', 'b3'])
    """

    def __init__(
        self,
        input_dim: tuple[int, int, int] = (3, 32, 32),
        num_filters: int = 32,
        filter_size: int = 7,
        hidden_dim: int = 100,
        num_classes: int = 10,
        weight_scale: float = 1e-3,
        reg: float = 0.0,
        dtype: DTypeLike = np.float32,
    ) -> None:
        if len(input_dim) != 3:
            raise OptionError(f"input_dim={input_dim!r} must be (C, H, W)")
        channels, height, width = (whole("input_dim", size) for size in input_dim)
        self.conv_param = {"stride": 1, "pad": (filter_size - 1) // 2}
        # An even filter leaves one row and column less, and the pool drops what is left over.
        lost = filter_size - 1 - 2 * self.conv_param["pad"]
        pooled = (height - lost) // 2, (width - lost) // 2
        if min(pooled) < 1:
            raise OptionError(f"input_dim={input_dim!r} is too small for filter_size={filter_size} and the 2x2 pool")
        self.reg, self.dtype = reg, np.dtype(dtype)
        shapes = {
            "W1": (num_filters, channels, filter_size, filter_size),
            "W2": (num_filters * pooled[0] * pooled[1], hidden_dim),
            "W3": (hidden_dim, num_classes),
        }
        self.params: dict[str, Array] = {}
        for name, shape in shapes.items():
            outputs = shape[0] if name == "W1" else shape[1]
            self.params[name] = (weight_scale * np.random.standard_normal(shape)).astype(dtype)  # noqa: NPY002
            self.params["b" + name[1]] = np.zeros(outputs, dtype)

    def loss(self, X: Array, y: Array | None = None) -> Any:
        """Compute scores; with the right classes, the loss and its gradients instead.

        Parameters
        ----------
        X : ndarray
            The batch, of shape (N, C, H, W).
        y : ndarray, optional
            The right classes, of shape (N,).

        Returns
        -------
        scores : ndarray
            Of shape (N, num_classes), if `y` is None; else
        loss : float
            With regularisation.
        grads : dict of str to ndarray
            By the names of `params`.

        Raises
        ------
        ConvkernelsError
            If `X` or `y` have not the right shape, or a class is out of range.
        """
        p = self.params
        pooled, first = conv_relu_pool_forward(X.astype(self.dtype), p["W1"], p["b1"], self.conv_param, POOL)
        hidden, second = affine_relu_forward(pooled, p["W2"], p["b2"])
        scores, third = affine_forward(hidden, p["W3"], p["b3"])
        if y is None:
            return scores
        loss, dscores = softmax_loss(scores, y)
        grads: dict[str, Array] = {}
        dhidden, grads["W3"], grads["b3"] = affine_backward(dscores, third)
        dpooled, grads["W2"], grads["b2"] = affine_relu_backward(dhidden, second)
        _, grads["W1"], grads["b1"] = conv_relu_pool_backward(dpooled, first)
        for name in ("W1", "W2", "W3"):
            loss += 0.5 * self.reg * float(np.sum(p[name] * p[name], dtype=np.float64))
            grads[name] += self.reg * p[name]
        return loss, grads
