"""Convolution in any layout, and its gradients.

What deep learning calls a convolution is a cross-correlation: the window is not flipped, unlike in `numpy.convolve`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Unpack

import numpy as np
from numpy.typing import ArrayLike

from . import catalog  # noqa: F401  # fills the operations
from .call import Call, as_array, check_dy, check_overflow, check_wrt, frozen, is_recording, magnitude
from .errors import OptionError, ShapeError
from .kernels.pointwise import channel_sums
from .layout import Array, Layout, data_layout, weight_layout_for
from .operation import CONV, CONV_INPUT_GRAD, CONV_WEIGHT_GRAD
from .public import Execution, family, gradient_options, located
from .spec import ConvSpec, Shape, check_padding_mode, common_dtype, compute_dtype
from .window import Padding, entries, per_axis, whole


class Geometry(Execution, total=False):
    """The keywords of a depthwise or separable convolution."""

    stride: int | Sequence[int]
    padding: Padding
    dilation: int | Sequence[int]
    layout: str
    weight_layout: str | None
    padding_mode: str


class ConvKeywords(Geometry, total=False):
    """The keywords of a convolution."""

    groups: int


GEOMETRY: dict[str, Any] = {
    "stride": 1,
    "padding": 0,
    "dilation": 1,
    "layout": "NCHW",
    "weight_layout": None,
    "padding_mode": "zeros",
}
KEYWORDS: dict[str, Any] = {**GEOMETRY, "groups": 1}
DOC = {
    "<geometry>": """stride, dilation : int or sequence of int
        Input cells from one window to the next, and from one tap to the next; one number for all axes or one each,
        in the order D, H, W.
    padding : int, sequence, or str
        Cells added around the input: one number, one for each axis, or pairs (lo, hi), in which a negative number
        crops. Or "valid" (none), "same" (ceil(in / stride) outputs, the odd cell at the end), "same_lower" (the odd
        cell in front), "full" (every output that sees any input) and, for one axis, "causal".
    layout : str
        The axes of `x` and of the result, a permutation of "NCHW".
    weight_layout : str, optional
        The axes of the weights, a permutation of "OIHW". By default "OIHW" where `layout` is "NCHW", and "HWIO" where
        it is "NHWC"; other layouts want it said.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
        What the padding holds: zeros, the input mirrored at its outermost cells, its outermost cells repeated, or the
        input repeated; as often as it takes.""",
    "<vjp>": """vjp : callable
        ``vjp(dy, wrt=("x", "w", "b"))`` takes the gradient by `y` and returns the named tuple (dx, dw, db): those asked
        for in `wrt`, the rest None. It keeps references to the inputs, which must not change before it is called.""",
}


class ConvGradients(NamedTuple):
    """A convolution's gradients; None where one was not asked for, or there is no bias."""

    dx: Array | None
    dw: Array | None
    db: Array | None


_remembered = lru_cache(maxsize=4096, typed=True)(ConvSpec.make)


def _spec(x_shape: Shape, w_shape: Shape, dtype: np.dtype[Any], bias: bool, options: Any) -> ConvSpec:
    check_padding_mode(options["padding_mode"])
    numbers = {name: frozen(name, options[name]) for name in ("stride", "padding", "dilation", "groups")}
    return _remembered(x_shape, w_shape, dtype, bias=bias, padding_mode=options["padding_mode"], **numbers)


def layouts(options: Any) -> tuple[Layout, Layout]:
    """The layouts of the data and of the weights."""
    layout = data_layout(options["layout"], None)
    return layout, weight_layout_for(layout, options["weight_layout"])


def forward(x: ArrayLike, w: ArrayLike, b: ArrayLike | None, options: Any, guarded: tuple[Array, ...] = ()) -> Call:
    """The call of a convolution, whose result must not share memory with its arrays or those guarded."""
    x, w, b = as_array("x", x), as_array("w", w), None if b is None else as_array("b", b)
    layout, weight_layout = layouts(options)
    data, weights = layout.view(x, "x"), weight_layout.view(w, "w")
    spec = _spec(data.shape, weights.shape, common_dtype(x=x, w=w, b=b), b is not None, options)
    if b is not None and b.shape != (spec.out_channels,):
        raise ShapeError(f"b has shape {b.shape}, must have {(spec.out_channels,)}: one number for each output channel")

    def bound() -> int:
        products = spec.group_in * spec.window.taps * magnitude(data) * magnitude(weights)
        return products + (0 if b is None else magnitude(b))

    arrays = (data, weights, b)
    return Call(CONV, spec, layout.order, arrays, spec.y_shape, layout, options, bound, guarded=guarded)


def _input_grad_call(dy: ArrayLike, w: ArrayLike, x_shape: object, options: Any) -> Call:
    dy, w = as_array("dy", dy), as_array("w", w)
    layout, weight_layout = layouts(options)
    gradient, weights = layout.view(dy, "dy"), weight_layout.view(w, "w")
    given = entries(x_shape)
    if given is None:
        raise OptionError(f"x_shape={x_shape!r} must be a sequence of {len(layout.axes)} whole numbers")
    shape = tuple(whole("x_shape", size) for size in given)
    dtype = common_dtype(dy=dy, w=w)
    spec = _spec(layout.canonical_shape(shape, "x_shape"), weights.shape, dtype, False, options)
    check_dy(dy, layout, spec.y_shape)

    def bound() -> int:
        return spec.group_out * spec.window.taps * magnitude(gradient) * magnitude(weights)

    arrays = (gradient, weights)
    return Call(CONV_INPUT_GRAD, spec, layout.order, arrays, spec.x_shape, layout, options, bound, conjugated=1)


def _weight_grad_call(x: ArrayLike, dy: ArrayLike, kernel_size: object, options: Any) -> Call:
    x, dy = as_array("x", x), as_array("dy", dy)
    layout, weight_layout = layouts(options)
    data, gradient = layout.view(x, "x"), layout.view(dy, "dy")
    sizes = per_axis("kernel_size", kernel_size, layout.rank)
    groups = max(1, whole("groups", options["groups"]))  # what is too small, the spec refuses
    w_shape = (gradient.shape[1], max(1, data.shape[1] // groups), *sizes)
    spec = _spec(data.shape, w_shape, common_dtype(x=x, dy=dy), False, options)
    check_dy(dy, layout, spec.y_shape)

    def bound() -> int:
        return spec.batch * math.prod(spec.window.out_size) * magnitude(data) * magnitude(gradient)

    arrays, order = (data, gradient), layout.order
    return Call(CONV_WEIGHT_GRAD, spec, order, arrays, spec.w_shape, weight_layout, options, bound, conjugated=0)


def bias_grad(dy: ArrayLike, layout: Layout) -> Array:
    """Sum the gradient over everything but the channels."""
    gradient = layout.view(as_array("dy", dy), "dy")
    common_dtype(dy=gradient)
    if is_recording():
        return np.zeros(gradient.shape[1], gradient.dtype)
    accumulator = compute_dtype(gradient.dtype)
    if accumulator.kind in "iu":
        terms = math.prod(gradient.shape) // gradient.shape[1]
        check_overflow(terms * magnitude(gradient), accumulator)
        total: Array = np.add.reduce(gradient, (0, *range(2, gradient.ndim)), accumulator)
        return total
    return channel_sums(as_array("dy", dy), layout.axes.index("C")).astype(gradient.dtype.newbyteorder("="))


def _conv(x: ArrayLike, w: ArrayLike, b: ArrayLike | None = None, **options: Unpack[ConvKeywords]) -> Array:
    """Convolve a batch: each output sums the products of the weights with the window it sees.

    y[n, o, p] = b[o] + sum over c and t of x[n, c, p * stride + t * dilation - lo] * w[o, c, t]

    Parameters
    ----------
    x : array_like
        The batch, in `layout`.
    w : array_like
        The weights, in `weight_layout`: O output channels, and the input channels of one group.
    b : array_like, optional
        The bias, of shape (O,).
    groups : int
        Divides the channels into groups that do not see each other.
    <geometry>
    <execution>

    Returns
    -------
    ndarray
        The output, in `layout` and contiguous. Its type is NumPy's promotion of the inputs', or 64 bits for integers.

    <raises>

    See Also
    --------
    conv2d_vjp : The same with its gradients.
    explain : What would run, and why.

    Notes
    -----
    This is the cross-correlation of deep learning: the window is not flipped, as `numpy.convolve` flips it.

    Examples
    --------
    >>> import numpy as np
    >>> import convkernels as ck
    >>> x, w = np.ones((2, 3, 8, 8)), np.ones((4, 3, 3, 3))
    >>> ck.conv2d(x, w, stride=2, padding="same").shape
    (2, 4, 4, 4)
    """
    return forward(x, w, b, options).run()


def _conv_vjp(
    x: ArrayLike, w: ArrayLike, b: ArrayLike | None = None, **options: Unpack[ConvKeywords]
) -> tuple[Array, Callable[..., ConvGradients]]:
    """Convolve a batch, and return the function that takes gradients back.

    Parameters
    ----------
    x, w, b
        As for `conv2d`.
    groups : int
        As for `conv2d`.
    <geometry>
    <execution>

    Returns
    -------
    y : ndarray
        What `conv2d` returns.
    <vjp>

    <raises>

    Notes
    -----
    The convolution is linear in `x` and in `w`, so its gradients are its adjoints; for complex data they conjugate. A
    named `strategy` binds the forward; each gradient takes the implementation of that name if it has one that takes the
    problem, else what "auto" takes.

    Examples
    --------
    >>> import numpy as np
    >>> import convkernels as ck
    >>> x, w = np.ones((2, 3, 8, 8)), np.ones((4, 3, 3, 3))
    >>> y, vjp = ck.conv2d_vjp(x, w, np.zeros(4))
    >>> dx, dw, db = vjp(np.ones_like(y))
    >>> dx.shape == x.shape, dw.shape == w.shape, db.shape
    (True, True, (4,))
    >>> vjp(np.ones_like(y), wrt=("w",)).dx is None
    True
    """
    return with_gradients(forward(x, w, b, options), options)


def with_gradients(forward: Call, options: Any) -> tuple[Array, Callable[..., ConvGradients]]:
    """Run a convolution's call, and make the function that takes gradients back."""
    y = forward.run()
    layout, weight_layout = layouts(options)
    data, weights, b = forward.arrays
    assert data is not None, "a convolution has an input"
    assert weights is not None, "and weights"
    x, w = layout.restore(data), weight_layout.restore(weights)
    sizes = weights.shape[2:]

    def vjp(dy: ArrayLike, wrt: Sequence[str] = ("x", "w", "b")) -> ConvGradients:
        with located(f"{options['function']}'s vjp", "dy", dy, layout.axes):
            wrt = check_wrt(wrt, ("x", "w", "b"))
            check_dy(as_array("dy", dy), layout, forward.shape)
            dx = dw = db = None
            if "x" in wrt:
                dx = _input_grad_call(dy, w, x.shape, gradient_options(options, CONV_INPUT_GRAD, forward.spec)).run()
            if "w" in wrt:
                dw = _weight_grad_call(x, dy, sizes, gradient_options(options, CONV_WEIGHT_GRAD, forward.spec)).run()
            if "b" in wrt and b is not None:
                db = bias_grad(dy, layout)
            return ConvGradients(dx, dw, db)

    return y, vjp


def _conv_input_grad(dy: ArrayLike, w: ArrayLike, *, x_shape: Sequence[int], **options: Unpack[ConvKeywords]) -> Array:
    """Gradient of a convolution by its input.

    Parameters
    ----------
    dy : array_like
        The gradient by the output, in `layout`.
    w : array_like
        The weights, in `weight_layout`.
    x_shape : sequence of int
        The shape of the input, in `layout`.
    groups : int
        As for `conv2d`.
    <geometry>
    <execution>

    Returns
    -------
    ndarray
        The gradient dx, of shape `x_shape`; 0 where no window reaches.

    <raises>

    Examples
    --------
    >>> import numpy as np
    >>> import convkernels as ck
    >>> dy, w = np.ones((2, 4, 6, 6)), np.ones((4, 3, 3, 3))
    >>> ck.conv2d_input_grad(dy, w, x_shape=(2, 3, 8, 8)).shape
    (2, 3, 8, 8)
    """
    return _input_grad_call(dy, w, x_shape, options).run()


def _conv_weight_grad(
    x: ArrayLike, dy: ArrayLike, *, kernel_size: int | Sequence[int], **options: Unpack[ConvKeywords]
) -> Array:
    """Gradient of a convolution by its weights.

    Parameters
    ----------
    x : array_like
        The input, in `layout`.
    dy : array_like
        The gradient by the output, in `layout`.
    kernel_size : int or sequence of int
        The spatial sizes of the weights; the other two follow from the channels and `groups`.
    groups : int
        As for `conv2d`.
    <geometry>
    <execution>

    Returns
    -------
    ndarray
        The gradient dw, in `weight_layout`.

    <raises>

    Examples
    --------
    >>> import numpy as np
    >>> import convkernels as ck
    >>> x, dy = np.ones((2, 3, 8, 8)), np.ones((2, 4, 6, 6))
    >>> ck.conv2d_weight_grad(x, dy, kernel_size=3).shape
    (4, 3, 3, 3)
    """
    return _weight_grad_call(x, dy, kernel_size, options).run()


conv, conv1d, conv2d, conv3d = family(_conv, KEYWORDS, DOC)
conv_vjp, conv1d_vjp, conv2d_vjp, conv3d_vjp = family(_conv_vjp, KEYWORDS, DOC)
conv_input_grad, conv1d_input_grad, conv2d_input_grad, conv3d_input_grad = family(_conv_input_grad, KEYWORDS, DOC)
conv_weight_grad, conv1d_weight_grad, conv2d_weight_grad, conv3d_weight_grad = family(_conv_weight_grad, KEYWORDS, DOC)
