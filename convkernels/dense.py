"""The parts of a network between its convolutions: affine maps, activations and dropout.

Each is written once, as a private function that returns its value and its vjp; `both` makes the two public functions
of it, `f` and `f_vjp`. Numbers are float16, which computes in float32, float32 or float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.polynomial.chebyshev import cheb2poly
from numpy.typing import ArrayLike

from .call import as_array, check_wrt
from .differentiable import both, floating, real, taken, widened
from .errors import OptionError, ShapeError, one_of
from .kernels.pointwise import relu as positive_part
from .kernels.pointwise import relu_grad
from .kernels.products import product, product_input_grad, product_weight_grad
from .layout import Array, data_layout
from .recycling import empty
from .spec import check_sizes

Vjp = Callable[[ArrayLike], Array]

DOC = {
    "<x>": """Parameters
    ----------
    x : array_like
        Numbers of any shape.""",
    "<y>": """Returns
    -------
    y : ndarray
        Of the shape and type of `x`.
    vjp : callable
        From the ``_vjp`` function only: ``vjp(dy)`` takes the gradient by `y` and returns dx. It keeps references to
        the input and the result, which must not change before it is called.

    Raises
    ------
    ConvkernelsError
        If an array is not floating (DTypeError), has the wrong shape (ShapeError), or an option is not allowed
        (OptionError).

    Examples
    --------
    >>> import numpy as np
    >>> from convkernels import dense""",
    "<rate>": """rate : float
        The probability of a drop, at least 0 and below 1.
    generator : numpy.random.Generator
        Where the randomness comes from: one of the same seed drops the same.""",
}


def _check_dy(dy: Array, shape: tuple[int, ...]) -> None:
    if dy.shape != shape:
        raise ShapeError(f"dy has shape {dy.shape}, must have {shape} as the output has")


class AffineGradients(NamedTuple):
    """An affine map's gradients; None where one was not asked for, or there is no bias."""

    dx: Array | None
    dw: Array | None
    db: Array | None


def _affine(x: ArrayLike, w: ArrayLike, b: ArrayLike | None = None) -> tuple[Array, Callable[..., AffineGradients]]:
    """Multiply each sample, flattened, by a matrix: y = x w + b.

    Parameters
    ----------
    x : array_like
        The batch, of shape (N, ...): N samples of D numbers, taken in the order of the axes of `x`.
    w : array_like
        The weights, of shape (D, M).
    b : array_like, optional
        The bias, of shape (M,).

    Returns
    -------
    y : ndarray
        Of shape (N, M), and of the type NumPy promotes the inputs to.
    vjp : callable
        From `affine_vjp` only: ``vjp(dy, wrt=("x", "w", "b"))`` takes the gradient by `y` and returns the named tuple
        (dx, dw, db): those asked for in `wrt`, the rest None. It keeps references to the inputs, which must not change
        before it is called.

    Raises
    ------
    ConvkernelsError
        If an array is not floating (DTypeError), the shapes do not fit each other or an axis is empty (ShapeError), or
        `wrt` names something else (OptionError). N may be 0.

    Examples
    --------
    >>> import numpy as np
    >>> from convkernels import dense
    >>> x, w = np.ones((2, 3, 4, 4)), np.ones((48, 5))
    >>> y, vjp = dense.affine_vjp(x, w, np.zeros(5))
    >>> dx, dw, db = vjp(np.ones_like(y))
    >>> y.shape, dx.shape, dw.shape, db.shape
    ((2, 5), (2, 3, 4, 4), (48, 5), (5,))
    """
    x, w, b = as_array("x", x), as_array("w", w), None if b is None else as_array("b", b)
    dtype = floating(x=x, w=w, b=b)
    if x.ndim < 2:
        raise ShapeError(f"x has {x.ndim} axes, must have 2 or more; arrays are batched: add an axis of one for 'N'")
    rows = x.reshape(len(x), math.prod(x.shape[1:]))
    if w.ndim != 2 or len(w) != rows.shape[1]:
        raise ShapeError(f"w has shape {w.shape}, must have ({rows.shape[1]}, M): a row for each number of a sample")
    check_sizes("w", w.shape, "DM")
    if b is not None and b.shape != w.shape[1:]:
        raise ShapeError(f"b has shape {b.shape}, must have {w.shape[1:]}: one number for each column of w")
    bias = None if b is None else widened(b, dtype)
    y = product(widened(rows, dtype), widened(w, dtype), bias).astype(dtype, copy=False)

    def vjp(dy: ArrayLike, wrt: Sequence[str] = ("x", "w", "b")) -> AffineGradients:
        wrt = check_wrt(wrt, ("x", "w", "b"))
        dy = as_array("dy", dy)
        by_x, by_w = floating(dy=dy, w=w), floating(dy=dy, x=x)
        _check_dy(dy, y.shape)
        dx = dw = db = None
        if "x" in wrt:
            dx = product_input_grad(widened(dy, by_x), widened(w, by_x)).astype(by_x, copy=False).reshape(x.shape)
        if "w" in wrt:
            dw = product_weight_grad(widened(rows, by_w), widened(dy, by_w)).astype(by_w, copy=False)
        if "b" in wrt and b is not None:
            # NumPy does not sum pairwise along this axis; a long float32 sum would drift.
            db = dy.sum(0, np.float64).astype(floating(dy=dy))
        return AffineGradients(dx, dw, db)

    return y, vjp


def multiplied(first: Array, second: Array) -> Array:
    """The product of an array and one that is no larger, in memory that is used again."""
    product: Array = np.multiply(first, second, out=empty(first.shape, np.result_type(first, second)))
    return product


def _elementwise(x: Array, y: Array, slope: Callable[[], Array]) -> tuple[Array, Vjp]:
    """The value in the type of x, and the vjp of a function that takes each number by itself, given its slope."""

    def vjp(dy: ArrayLike) -> Array:
        dy = as_array("dy", dy)
        dtype = floating(dy=dy, x=x)
        _check_dy(dy, x.shape)
        return np.asarray(multiplied(widened(dy, dtype), slope()), dtype)

    return np.asarray(y, floating(x=x)), vjp


def _relu(x: ArrayLike) -> tuple[Array, Vjp]:
    """Take the positive part: y = max(x, 0); NaN stays.

    The gradient is dy where x > 0, and 0 elsewhere, at 0 too; NaN takes the gradient.

    <x>

    <y>
    >>> y, vjp = dense.relu_vjp(np.array([-2.0, 0.0, 3.0]))
    >>> y, vjp(np.array([5.0, 6.0, 7.0]))
    (array([0., 0., 3.]), array([0., 0., 7.]))
    """
    x, wide = taken("x", x)

    def vjp(dy: ArrayLike) -> Array:
        dy = as_array("dy", dy)
        dtype = floating(dy=dy, x=x)
        _check_dy(dy, x.shape)
        return np.asarray(relu_grad(widened(dy, dtype), wide), dtype)

    return np.asarray(positive_part(wide), floating(x=x)), vjp


def _leaky_relu(x: ArrayLike, slope: float = 0.01) -> tuple[Array, Vjp]:
    """Scale what is not positive: y = x where x > 0, else slope * x.

    <x>
    slope : float
        The factor, also at 0 (Maas, Hannun, Ng, 2013).

    <y>
    >>> y, vjp = dense.leaky_relu_vjp(np.array([-2.0, 3.0]), slope=0.5)
    >>> y, vjp(np.ones(2))
    (array([-1.,  3.]), array([0.5, 1. ]))
    """
    x, wide = taken("x", x)
    factor = np.where(wide <= 0, wide.dtype.type(real("slope", slope)), wide.dtype.type(1))
    return _elementwise(x, wide * factor, lambda: factor)


def _logistic(x: Array) -> Array:
    """1 / (1 + exp(-x)), where no exponential exceeds 1."""
    return np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x)))  # type: ignore[no-any-return]


def _sigmoid(x: ArrayLike) -> tuple[Array, Vjp]:
    """Take the logistic function: y = 1 / (1 + exp(-x)), without overflow.

    <x>

    <y>
    >>> y, vjp = dense.sigmoid_vjp(np.array([-1e4, 0.0, 1e4]))
    >>> y, vjp(np.ones(3))
    (array([0. , 0.5, 1. ]), array([0.  , 0.25, 0.  ]))
    """
    x, wide = taken("x", x)
    y = _logistic(wide)
    return _elementwise(x, y, lambda: y * _logistic(-wide))


def _tanh(x: ArrayLike) -> tuple[Array, Vjp]:
    """Take the hyperbolic tangent, whose slope is 1 - y**2.

    <x>

    <y>
    >>> y, vjp = dense.tanh_vjp(np.array([0.0, 1e4]))
    >>> y, vjp(np.ones(2))
    (array([0., 1.]), array([1., 0.]))
    """
    x, wide = taken("x", x)
    y = np.tanh(wide)
    return _elementwise(x, y, lambda: 1 - y * y)


# (1 + 2z) exp(z**2) erfc(z) for z >= 0 by Chebyshev polynomials of (z - 3) / (z + 3), a form due to Shepherd and
# Laframboise (Math. Comp. 36, 1981, 249-253); computed with 60 digits. The first 12 do for float32.
# fmt: off
_SERIES = [
    1.17756257419656, 0.005353904539615676, -0.09377550342284209, 0.05436652555744322, -0.018976596707845208,
    0.004453426061462712, -0.0006335531710553147, 1.7661719523171593e-05, 1.2841532864056671e-05,
    -2.0072285659059913e-06, -1.807522790414837e-07, 7.549828343825093e-08, 1.885668523838603e-09,
    -2.699519049798364e-09, -1.460079119939105e-11, 1.0361607445969489e-10, 1.475715976623473e-12,
    -4.277340064396911e-12, -2.07922492859799e-13, 1.8134502003176963e-13, 1.973425574544739e-14,
    -7.287943737592673e-15, -1.5169878690228116e-15, 2.3514112258781403e-16, 1.0006111691821667e-16,
]
# fmt: on
_COEFFICIENTS = {np.float32: cheb2poly(_SERIES[:12]).tolist(), np.float64: cheb2poly(_SERIES).tolist()}
_FAR = 40.0
"""Beyond this many deviations the normal distribution is 0 or 1 in every type."""


def _normal(x: Array) -> tuple[Array, Array]:
    """The standard normal distribution and its density; x from -_FAR to _FAR."""
    z = np.abs(x) * math.sqrt(0.5)
    t = (z - 3) / (z + 3)
    *rest, highest = _COEFFICIENTS[x.dtype.type]
    scaled = np.full_like(t, highest)
    for coefficient in reversed(rest):
        scaled *= t
        scaled += coefficient
    # Near is x to four binary places: its square is exact, so that the exponential keeps its digits for large x.
    near = np.trunc(x * 16) / 16
    bell = np.exp(-0.5 * near * near) * np.exp(-0.5 * (x - near) * (x + near))
    tail = 0.5 * bell * scaled / (1 + 2 * z)
    return np.abs((x > 0) - tail), bell / math.sqrt(2 * math.pi)


def _gelu(x: ArrayLike, approximate: Literal["none", "tanh"] = "none") -> tuple[Array, Vjp]:
    """Weigh each number by the probability that a normal one is smaller: y = x * (1 + erf(x / sqrt(2))) / 2.

    <x>
    approximate : {"none", "tanh"}
        The exact function, to a few units in the last place, or the approximation
        y = x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))) / 2 (both by Hendrycks, Gimpel, 2016).

    <y>
    >>> y, vjp = dense.gelu_vjp(np.array([-1.0, 0.0, 1e4]))
    >>> y.round(4), vjp(np.ones(3)).round(4)
    (array([-1.587e-01,  0.000e+00,  1.000e+04]), array([-0.0833,  0.5   ,  1.    ]))
    """
    if approximate not in ("none", "tanh"):
        raise OptionError(f"approximate={approximate!r} must be one of {one_of(('none', 'tanh'), str(approximate))}")
    x, wide = taken("x", x)
    near = np.clip(wide, -_FAR, _FAR)
    if approximate == "none":
        weight, density = _normal(near)
    else:
        square = near * near  # a power would take 20 times as long
        scale = 2 * math.sqrt(2 / math.pi)  # (1 + tanh(u)) / 2 is the logistic function of 2u
        inner = scale * near * (1 + 0.044715 * square)
        weight = _logistic(inner)
        density = weight * _logistic(-inner) * scale * (1 + 3 * 0.044715 * square)
    return _elementwise(x, np.maximum(wide, -_FAR) * weight, lambda: weight + near * density)


def _kept(shape: tuple[int, ...], rate: object, generator: object) -> tuple[Array, float]:
    """Draw what is kept, and the factor that preserves the mean."""
    number = real("rate", rate)
    if not 0 <= number < 1:
        raise OptionError(f"rate={rate!r} must be at least 0 and below 1")
    if not isinstance(generator, np.random.Generator):
        raise OptionError(
            f"generator is a {type(generator).__name__}, must be a numpy.random.Generator: "
            "numpy.random.default_rng(seed) makes one"
        )
    return generator.random(shape) >= number, 1 / (1 - number)


def _dropout(x: ArrayLike, rate: float, generator: np.random.Generator) -> tuple[Array, Vjp]:
    """Set numbers to 0 at random, and divide the others by 1 - rate, which preserves the mean.

    For training; in evaluation, leave it out. NaN and infinity are NaN where they are dropped.

    <x>
    <rate>

    <y>
    >>> dense.dropout(np.ones(8), 0.5, np.random.default_rng(0))
    array([2., 0., 0., 0., 2., 2., 2., 2.])
    """
    x, wide = taken("x", x)
    kept, factor = _kept(x.shape, rate, generator)
    mask = np.multiply(kept, factor, dtype=wide.dtype)
    return _elementwise(x, multiplied(wide, mask), lambda: mask)


def _dropout2d(x: ArrayLike, rate: float, generator: np.random.Generator, layout: str = "NCHW") -> tuple[Array, Vjp]:
    """Set whole channels of samples to 0 at random, and divide the others by 1 - rate (Tompson et al., 2015).

    For training; in evaluation, leave it out. NaN and infinity are NaN where they are dropped.

    Parameters
    ----------
    x : array_like
        The batch, in `layout`.
    <rate> In every layout it drops the same channels.
    layout : str
        The axes of `x`, of one to three spatial ones.

    <y>
    >>> dense.dropout2d(np.ones((1, 2, 2, 3)), 0.5, np.random.default_rng(1), layout="NHWC")[0, :, :, 0]
    array([[2., 2.],
           [2., 2.]])
    """
    x, wide = taken("x", x)
    order = data_layout(layout, None)
    shape = order.view(x, "x").shape
    kept, factor = _kept((*shape[:2], *[1] * order.rank), rate, generator)
    mask = order.restore(np.multiply(kept, factor, dtype=wide.dtype))
    return _elementwise(x, multiplied(wide, mask), lambda: mask)


affine, affine_vjp = both(_affine, DOC)
relu, relu_vjp = both(_relu, DOC)
leaky_relu, leaky_relu_vjp = both(_leaky_relu, DOC)
sigmoid, sigmoid_vjp = both(_sigmoid, DOC)
tanh, tanh_vjp = both(_tanh, DOC)
gelu, gelu_vjp = both(_gelu, DOC)
dropout, dropout_vjp = both(_dropout, DOC)
dropout2d, dropout2d_vjp = both(_dropout2d, DOC)
