"""Local response normalisation in any layout, and its gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Unpack

from numpy.typing import ArrayLike

from . import catalog  # noqa: F401  # fills the operations
from .call import Call, as_array, check_dy
from .layout import Array, Layout, data_layout
from .norm_spec import LocalNormSpec
from .operation import LOCAL_RESPONSE_NORM, LOCAL_RESPONSE_NORM_GRAD
from .public import Execution, general, gradient_options, located
from .spec import common_dtype


class LocalNormKeywords(Execution, total=False):
    """The keywords of a local response norm."""

    alpha: float
    beta: float
    bias: float
    layout: str


Vjp = Callable[[ArrayLike], Array]

KEYWORDS: dict[str, Any] = {"alpha": 1e-4, "beta": 0.75, "bias": 1.0, "layout": "NCHW"}
DOC = {
    "<options>": """alpha : float
        What the mean square of the window is multiplied by, at least 0.
    beta : float
        The power that divides.
    bias : float
        What is added first, more than 0; "k" elsewhere.
    layout : str
        The axes of `x` and of the result, a permutation of "NCHW".""",
}


def _problem(x: ArrayLike, size: object, options: Any) -> tuple[LocalNormSpec, Layout, Array]:
    layout = data_layout(options["layout"], None)
    data = layout.view(as_array("x", x), "x")
    parameters = {name: options[name] for name in ("alpha", "beta", "bias")}
    return LocalNormSpec.make(data.shape, common_dtype(x=data), size=size, **parameters), layout, data


def _local_response_norm(x: ArrayLike, size: int, **options: Unpack[LocalNormKeywords]) -> Array:
    """Divide each cell by a power of the mean square of the channels near it.

    With n = `size`, ``y[c] = x[c] / (bias + alpha / n * sum(x[c - (n - 1) // 2 : c + n // 2 + 1] ** 2)) ** beta``; at
    the ends the sum has fewer terms, and n stays.

    Parameters
    ----------
    x : array_like
        The batch, in `layout`.
    size : int
        The channels of a window. Of an even number, the odd one comes after the cell, as in ONNX; in PyTorch before.
    <options>
    <execution>

    Returns
    -------
    ndarray
        The result, in `layout` and contiguous, of the dtype of `x`.

    <raises>

    Notes
    -----
    Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural Networks" (2012), section
    3.3, whose alpha is not divided by `size`: there n = 5, alpha = 5e-4 here, and bias = 2. TensorFlow's `alpha` is not
    divided either, and its `depth_radius` is ``(size - 1) / 2``.

    Examples
    --------
    >>> import numpy as np
    >>> import convkernels as ck
    >>> x = np.full((1, 4, 1, 1), 3.0)
    >>> ck.local_response_norm(x, 3, alpha=1.0, beta=1.0).ravel()
    array([0.42857143, 0.3       , 0.3       , 0.42857143])
    """
    spec, layout, data = _problem(x, size, options)
    return Call(LOCAL_RESPONSE_NORM, spec, layout.order, (data,), spec.shape, layout, options).run()


def _local_response_norm_vjp(x: ArrayLike, size: int, **options: Unpack[LocalNormKeywords]) -> tuple[Array, Vjp]:
    """Normalise by the channels near by, and return the function that takes gradients back.

    Parameters
    ----------
    x : array_like
        The batch, in `layout`.
    size : int
        The channels of a window, as for `local_response_norm`.
    <options>
    <execution>

    Returns
    -------
    y : ndarray
        What `local_response_norm` returns.
    vjp : callable
        ``vjp(dy)`` takes the gradient by `y` and returns that by `x`. It keeps a reference to `x`, which must not
        change before it is called.

    <raises>

    Examples
    --------
    >>> import numpy as np
    >>> import convkernels as ck
    >>> y, vjp = ck.local_response_norm_vjp(np.ones((1, 1, 1, 1)), 1, alpha=1.0, beta=1.0)
    >>> y.item(), vjp(np.ones_like(y)).item()  # d/dx x / (1 + x^2) = (1 - x^2) / (1 + x^2)^2
    (0.5, 0.0)
    """
    spec, layout, data = _problem(x, size, options)
    y = Call(LOCAL_RESPONSE_NORM, spec, layout.order, (data,), spec.shape, layout, options).run()

    def vjp(dy: ArrayLike) -> Array:
        with located(f"{options['function']}'s vjp", "dy", dy, layout.axes):  # type: ignore[typeddict-item]
            given = as_array("dy", dy)
            check_dy(given, layout, spec.shape)
            wider = spec.with_dtype(common_dtype(dy=given, x=data))
            arrays = (layout.view(given), data)
            further = gradient_options(options, LOCAL_RESPONSE_NORM_GRAD)
            return Call(LOCAL_RESPONSE_NORM_GRAD, wider, layout.order, arrays, spec.shape, layout, further).run()

    return y, vjp


local_response_norm = general(_local_response_norm, KEYWORDS, DOC)
local_response_norm_vjp = general(_local_response_norm_vjp, KEYWORDS, DOC)
