"""Transposed convolution in any layout, and its gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Unpack

from numpy.typing import ArrayLike

from . import catalog  # noqa: F401  # fills the operations
from .call import Call, as_array, check_dy, check_wrt, frozen, magnitude
from .conv import DOC as CONV_DOC
from .conv import ConvGradients, bias_grad
from .errors import ShapeError
from .layout import Array, data_layout, weight_layout_for
from .operation import CONV, CONV_TRANSPOSE, CONV_WEIGHT_GRAD
from .public import Execution, family, gradient_options, located
from .spec import ConvTransposeSpec, common_dtype
from .window import Padding


class ConvTransposeKeywords(Execution, total=False):
    """The keywords of a transposed convolution."""

    stride: int | Sequence[int]
    padding: Padding
    output_padding: int | Sequence[int]
    output_size: int | Sequence[int] | None
    dilation: int | Sequence[int]
    groups: int
    layout: str
    weight_layout: str | None


KEYWORDS: dict[str, Any] = {
    "stride": 1,
    "padding": 0,
    "output_padding": 0,
    "output_size": None,
    "dilation": 1,
    "groups": 1,
    "layout": "NCHW",
    "weight_layout": None,
}
DOC = {
    "<geometry>": """stride, dilation : int or sequence of int
        Output cells from one input cell's window to the next, and from one tap to the next.
    padding : int, sequence, or str
        Cells taken off the output: one number, one for each axis, or pairs (lo, hi). Or "valid" (none), "same"
        (in * stride outputs, the odd cell taken off the end) or "same_lower" (taken off the front).
    output_padding : int or sequence of int
        Cells added at the end of the output, below max(stride, dilation): which of the inputs that a strided
        convolution maps to this size is meant.
    output_size : int or sequence of int, optional
        The spatial sizes of the output instead, no smaller than without output padding.
    groups : int
        Divides the channels into groups that do not see each other.
    layout : str
        The axes of `x` and of the result, a permutation of "NCHW".
    weight_layout : str, optional
        The axes of the weights, a permutation of "IOHW". By default "IOHW" where `layout` is "NCHW" (PyTorch, ONNX),
        and "HWOI" where it is "NHWC" (Keras).""",
    "<vjp>": CONV_DOC["<vjp>"],
}

_remembered = lru_cache(maxsize=4096, typed=True)(ConvTransposeSpec.make)


def _forward(x: ArrayLike, w: ArrayLike, b: ArrayLike | None, options: Any) -> Call:
    x, w, b = as_array("x", x), as_array("w", w), None if b is None else as_array("b", b)
    layout = data_layout(options["layout"], None)
    data, weights = layout.view(x, "x"), weight_layout_for(layout, options["weight_layout"], "IO").view(w, "w")
    names = ("stride", "padding", "output_padding", "output_size", "dilation", "groups")
    numbers = {name: frozen(name, options[name]) for name in names}
    spec = _remembered(data.shape, weights.shape, common_dtype(x=x, w=w, b=b), bias=b is not None, **numbers)
    if b is not None and b.shape != spec.y_shape[1:2]:
        raise ShapeError(f"b has shape {b.shape}, must have {spec.y_shape[1:2]}: one number for each output channel")

    def bound() -> int:
        terms = spec.convolution.group_out * spec.window.taps
        return terms * magnitude(data) * magnitude(weights) + (0 if b is None else magnitude(b))

    return Call(CONV_TRANSPOSE, spec, layout.order, (data, weights, b), spec.y_shape, layout, options, bound)


def _conv_transpose(
    x: ArrayLike, w: ArrayLike, b: ArrayLike | None = None, **options: Unpack[ConvTransposeKeywords]
) -> Array:
    """Convolve transposed: each input adds its window, times the weights, to the output.

    y[n, o, p * stride + t * dilation - lo] = b[o] + sum over c, p and t of x[n, c, p] * w[c, o, t]

    Parameters
    ----------
    x : array_like
        The batch, in `layout`.
    w : array_like
        The weights, in `weight_layout`: I input channels, and the output channels of one group.
    b : array_like, optional
        The bias, of shape (O,).
    <geometry>
    <execution>

    Returns
    -------
    ndarray
        The output, in `layout` and contiguous; along each axis (in - 1) * stride - lo - hi + dilation * (k - 1) + 1 +
        output_padding cells.

    <raises>

    See Also
    --------
    conv2d_input_grad : The same up to the names of the channels, and conjugated for complex weights.

    Notes
    -----
    This is the transpose of a convolution, not its adjoint: complex weights are not conjugated. It runs as the input
    gradient of that convolution; no zeros are put between the cells of the input.

    Examples
    --------
    >>> import numpy as np
    >>> import convkernels as ck
    >>> x, w = np.ones((2, 4, 5, 5)), np.ones((4, 3, 3, 3))
    >>> ck.conv_transpose2d(x, w, stride=2, padding="same").shape
    (2, 3, 10, 10)
    """
    return _forward(x, w, b, options).run()


def _conv_transpose_vjp(
    x: ArrayLike, w: ArrayLike, b: ArrayLike | None = None, **options: Unpack[ConvTransposeKeywords]
) -> tuple[Array, Callable[..., ConvGradients]]:
    """Convolve transposed, and return the function that takes gradients back.

    Parameters
    ----------
    x, w, b
        As for `conv_transpose2d`.
    <geometry>
    <execution>

    Returns
    -------
    y : ndarray
        What `conv_transpose2d` returns.
    <vjp>

    <raises>

    Examples
    --------
    >>> import numpy as np
    >>> import convkernels as ck
    >>> x, w = np.ones((2, 4, 5, 5)), np.ones((4, 3, 3, 3))
    >>> y, vjp = ck.conv_transpose2d_vjp(x, w, stride=2)
    >>> dx, dw, db = vjp(y)
    >>> dx.shape == x.shape, dw.shape == w.shape, db is None
    (True, True, True)
    """
    call = _forward(x, w, b, options)
    y, layout, spec = call.run(), call.layout, call.spec
    assert isinstance(spec, ConvTransposeSpec), "a transposed convolution's call"
    data, weights, bias = call.arrays
    assert data is not None, "a transposed convolution has an input"
    assert weights is not None, "and weights"
    x_view, w_view = data, weights
    weight_layout = weight_layout_for(layout, options["weight_layout"], "IO")

    def vjp(dy: ArrayLike, wrt: Sequence[str] = ("x", "w", "b")) -> ConvGradients:
        with located(f"{options['function']}'s vjp", "dy", dy, layout.axes):  # type: ignore[typeddict-item]
            wrt = check_wrt(wrt, ("x", "w", "b"))
            dy = as_array("dy", dy)
            check_dy(dy, layout, spec.y_shape)
            gradient, back = layout.view(dy), spec.convolution
            dx = dw = db = None
            if "x" in wrt:
                # The transpose of the transpose is the convolution itself.
                there = replace(back, dtype=common_dtype(dy=dy, w=w_view))
                chosen = gradient_options(options, CONV, there)

                def x_bound() -> int:
                    return back.group_in * back.window.taps * magnitude(gradient) * magnitude(w_view)

                arrays = (gradient, w_view, None)
                shape = back.y_shape
                dx = Call(CONV, there, layout.order, arrays, shape, layout, chosen, x_bound, conjugated=1).run()
            if "w" in wrt:
                there = replace(back, dtype=common_dtype(dy=dy, x=x_view))
                chosen = gradient_options(options, CONV_WEIGHT_GRAD, there)

                def w_bound() -> int:
                    return back.batch * math.prod(back.window.out_size) * magnitude(gradient) * magnitude(x_view)

                pair, shape = (gradient, x_view), back.w_shape
                dw = Call(
                    CONV_WEIGHT_GRAD, there, layout.order, pair, shape, weight_layout, chosen, w_bound, conjugated=1
                ).run()
            if "b" in wrt and bias is not None:
                db = bias_grad(dy, layout)
            return ConvGradients(dx, dw, db)

    return y, vjp


conv_transpose, conv_transpose1d, conv_transpose2d, conv_transpose3d = family(_conv_transpose, KEYWORDS, DOC)
conv_transpose_vjp, conv_transpose1d_vjp, conv_transpose2d_vjp, conv_transpose3d_vjp = family(
    _conv_transpose_vjp, KEYWORDS, DOC
)
