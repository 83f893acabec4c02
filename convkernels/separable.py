"""Depthwise and separable convolution, thin over `conv`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Unpack

from numpy.typing import ArrayLike

from .call import Call, as_array, check_wrt
from .conv import DOC as CONV_DOC
from .conv import GEOMETRY, ConvGradients, Geometry, forward, layouts, with_gradients
from .errors import ShapeError
from .layout import Array, data_layout
from .public import family, located

DOC = {
    **CONV_DOC,
    "<depthwise>": """x : array_like
        The batch of C channels, in `layout`.
    w : array_like
        The weights, in `weight_layout`, with m * C output channels (the first m see channel 0) and one input channel.
    b : array_like, optional
        The bias, of shape (m * C,).""",
    "<separable>": """x : array_like
        The batch of C channels, in `layout`.
    depthwise_w : array_like
        The weights of the first step, as for `depthwise_conv2d`.
    pointwise_w : array_like
        The weights of the second, a 1x1 convolution of the m * C channels of the first.
    b : array_like, optional
        The bias, of shape (O,), added at the end.""",
}


class SeparableConvGradients(NamedTuple):
    """A separable convolution's gradients; None where one was not asked for, or there is no bias."""

    dx: Array | None
    d_depthwise_w: Array | None
    d_pointwise_w: Array | None
    db: Array | None


def _depthwise_options(x: ArrayLike, options: Any) -> Any:
    channels = data_layout(options["layout"], None).view(as_array("x", x), "x").shape[1]
    return {**options, "groups": max(1, channels)}


def _depthwise_conv(x: ArrayLike, w: ArrayLike, b: ArrayLike | None = None, **options: Unpack[Geometry]) -> Array:
    """Convolve each channel with filters of its own: `conv2d` with a group for each channel.

    Parameters
    ----------
    <depthwise>
    <geometry>
    <execution>

    Returns
    -------
    ndarray
        The output of m * C channels, as from `conv2d`.

    <raises>

    Examples
    --------
    >>> import numpy as np
    >>> import convkernels as ck
    >>> x, w = np.ones((2, 3, 8, 8)), np.ones((6, 1, 3, 3))
    >>> ck.depthwise_conv2d(x, w, padding=1).shape
    (2, 6, 8, 8)
    """
    return forward(x, w, b, _depthwise_options(x, options)).run()


def _depthwise_conv_vjp(
    x: ArrayLike, w: ArrayLike, b: ArrayLike | None = None, **options: Unpack[Geometry]
) -> tuple[Array, Callable[..., ConvGradients]]:
    """Convolve each channel by itself, and return the function that takes gradients back.

    Parameters
    ----------
    <depthwise>
    <geometry>
    <execution>

    Returns
    -------
    y : ndarray
        What `depthwise_conv2d` returns.
    <vjp>

    <raises>

    Examples
    --------
    >>> import numpy as np
    >>> import convkernels as ck
    >>> x, w = np.ones((2, 3, 8, 8)), np.ones((6, 1, 3, 3))
    >>> y, vjp = ck.depthwise_conv2d_vjp(x, w, padding=1)
    >>> vjp(y).dw.shape
    (6, 1, 3, 3)
    """
    complete = _depthwise_options(x, options)
    return with_gradients(forward(x, w, b, complete), complete)


def _separable_conv(
    x: ArrayLike,
    depthwise_w: ArrayLike,
    pointwise_w: ArrayLike,
    b: ArrayLike | None = None,
    **options: Unpack[Geometry],
) -> Array:
    """Convolve each channel by itself, then mix the channels at each position.

    Parameters
    ----------
    <separable>
    <geometry>
    <execution>

    Returns
    -------
    ndarray
        The output, as from `conv2d`.

    <raises>

    Examples
    --------
    >>> import numpy as np
    >>> import convkernels as ck
    >>> x, depthwise_w, pointwise_w = np.ones((2, 3, 8, 8)), np.ones((3, 1, 3, 3)), np.ones((5, 3, 1, 1))
    >>> ck.separable_conv2d(x, depthwise_w, pointwise_w, padding="same").shape
    (2, 5, 8, 8)
    """
    depthwise, pointwise = _separable_options(x, depthwise_w, pointwise_w, options)
    first = forward(x, depthwise_w, None, depthwise)
    return forward(first.run(), pointwise_w, b, pointwise, _inputs(first)).run()


def _inputs(call: Call) -> tuple[Array, ...]:
    return tuple(array for array in call.arrays if array is not None)


def _separable_options(x: ArrayLike, depthwise_w: ArrayLike, pointwise_w: ArrayLike, options: Any) -> tuple[Any, Any]:
    """Check the weights against each other; geometry belongs to the first step, `out` and the bias to the second."""
    layout, weight_layout = layouts(options)
    channels = layout.view(as_array("x", x), "x").shape[1]
    depthwise = weight_layout.view(as_array("depthwise_w", depthwise_w), "depthwise_w").shape
    pointwise = weight_layout.view(as_array("pointwise_w", pointwise_w), "pointwise_w").shape
    if depthwise[1] != 1 or depthwise[0] % max(1, channels):
        raise ShapeError(
            f"depthwise_w has {depthwise[0]} output channels and {depthwise[1]} input channels in a group, "
            f"must have a multiple of in_channels={channels} and 1"
        )
    if pointwise[1] != depthwise[0] or math.prod(pointwise[2:]) != 1:
        raise ShapeError(
            f"pointwise_w has {pointwise[1]} input channels and spatial sizes {pointwise[2:]}, "
            f"must have depthwise_w's {depthwise[0]} output channels and sizes of 1"
        )
    plain = {name: GEOMETRY[name] for name in ("stride", "padding", "dilation", "padding_mode")}
    return {**options, "out": None, "groups": max(1, channels)}, {**options, **plain, "groups": 1}


def _separable_conv_vjp(
    x: ArrayLike,
    depthwise_w: ArrayLike,
    pointwise_w: ArrayLike,
    b: ArrayLike | None = None,
    **options: Unpack[Geometry],
) -> tuple[Array, Callable[..., SeparableConvGradients]]:
    """Convolve separably, and return the function that takes gradients back.

    Parameters
    ----------
    <separable>
    <geometry>
    <execution>

    Returns
    -------
    y : ndarray
        What `separable_conv2d` returns.
    vjp : callable
        ``vjp(dy, wrt=("x", "depthwise_w", "pointwise_w", "b"))`` returns the named tuple (dx, d_depthwise_w,
        d_pointwise_w, db): those asked for, the rest None.

    <raises>

    Examples
    --------
    >>> import numpy as np
    >>> import convkernels as ck
    >>> x, depthwise_w, pointwise_w = np.ones((2, 3, 8, 8)), np.ones((3, 1, 3, 3)), np.ones((5, 3, 1, 1))
    >>> y, vjp = ck.separable_conv2d_vjp(x, depthwise_w, pointwise_w)
    >>> vjp(y).d_pointwise_w.shape
    (5, 3, 1, 1)
    """
    depthwise, pointwise = _separable_options(x, depthwise_w, pointwise_w, options)
    first = forward(x, depthwise_w, None, depthwise)
    middle, first_vjp = with_gradients(first, depthwise)
    y, second_vjp = with_gradients(forward(middle, pointwise_w, b, pointwise, _inputs(first)), pointwise)
    names = ("x", "depthwise_w", "pointwise_w", "b")

    def vjp(dy: ArrayLike, wrt: Sequence[str] = names) -> SeparableConvGradients:
        with located(f"{options['function']}'s vjp", "dy", dy, options["layout"]):  # type: ignore[typeddict-item]
            wanted = check_wrt(wrt, names)
            outer = {"pointwise_w": "w", "b": "b"}
            inner = {"x": "x", "depthwise_w": "w"}
            through = any(name in inner for name in wanted)
            needed = [outer[name] for name in wanted if name in outer] + ["x"] * through
            d_middle, d_pointwise_w, db = second_vjp(dy, needed)
            dx = d_depthwise_w = None
            if through:
                dx, d_depthwise_w, _ = first_vjp(d_middle, [inner[name] for name in wanted if name in inner])
            return SeparableConvGradients(dx, d_depthwise_w, d_pointwise_w, db)

    return y, vjp


depthwise_conv, depthwise_conv1d, depthwise_conv2d, depthwise_conv3d = family(_depthwise_conv, GEOMETRY, DOC)
depthwise_conv_vjp, depthwise_conv1d_vjp, depthwise_conv2d_vjp, depthwise_conv3d_vjp = family(
    _depthwise_conv_vjp, GEOMETRY, DOC
)
separable_conv, separable_conv1d, separable_conv2d, separable_conv3d = family(_separable_conv, GEOMETRY, DOC)
separable_conv_vjp, separable_conv1d_vjp, separable_conv2d_vjp, separable_conv3d_vjp = family(
    _separable_conv_vjp, GEOMETRY, DOC
)
