"""Windows as columns, and columns added up where they came from (im2col and col2im; Chellapilla et al., 2006)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from .call import as_array, check_overflow, magnitude
from .errors import OptionError, ShapeError
from .layout import Array, data_layout
from .public import located
from .spec import Shape, check_result, check_sizes, common_dtype, compute_dtype
from .views import scatter_windows, windows
from .window import Padding, Window, entries, whole


def im2col(
    x: ArrayLike,
    kernel_size: int | Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    layout: str = "NCHW",
) -> Array:
    """Copy every window of a batch into a column: what turns a convolution into a matrix product.

    columns[n, c * taps + t, p] = x[n, c, p * stride + t * dilation - lo]

    Parameters
    ----------
    x : array_like
        The batch, in `layout`, of one to three spatial axes.
    kernel_size : int or sequence of int
        The taps along each axis; one number for all axes or one each.
    stride, dilation : int or sequence of int
        Input cells from one window to the next, and from one tap to the next.
    padding : int, sequence, or str
        Cells of zeros around the input, as for `conv2d`.
    layout : str
        The axes of `x`.

    Returns
    -------
    ndarray
        Columns of shape (N, C * taps, P) and of the type of `x`, whatever its layout: the channels vary slowest among
        the rows, and the P positions of the output lie in row-major order, as in PyTorch's ``unfold``.

    Raises
    ------
    ConvkernelsError
        If the arguments do not fit each other (ShapeError, OptionError, LayoutError, DTypeError).

    See Also
    --------
    col2im : The adjoint.

    Examples
    --------
    >>> import numpy as np
    >>> from convkernels import patches
    >>> patches.im2col(np.array([[[1, 2, 3, 4]]]), 2, padding=((1, 0),), layout="NCW")
    array([[[0, 1, 2, 3],
            [1, 2, 3, 4]]])

    A convolution is a product with these columns:

    >>> import convkernels as ck
    >>> x, w = np.ones((2, 3, 8, 8)), np.ones((4, 3, 5, 5))
    >>> y = w.reshape(4, -1) @ patches.im2col(x, 5)
    >>> bool((y.reshape(2, 4, 4, 4) == ck.conv2d(x, w)).all())
    True
    """
    with located("im2col", "x", x, layout):
        x = as_array("x", x)
        data, dtype = data_layout(layout, None).view(x, "x"), common_dtype(x=x)
        window, shape = _geometry(data.shape, kernel_size, stride, padding, dilation)
        check_result(shape, dtype)
        columns = np.empty(shape, dtype)
        np.copyto(_cells(columns, data.shape, window), windows(data, window))
        return columns


def col2im(
    columns: ArrayLike,
    *,
    x_shape: Sequence[int],
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    layout: str = "NCHW",
) -> Array:
    """Add every column up where `im2col` took it from: the adjoint, and not the inverse.

    ``col2im(im2col(x))`` is `x` times the number of windows that see each cell: 0 where none does.

    Parameters
    ----------
    columns : array_like
        Columns of shape (N, C * taps, P), as `im2col` returns and ONNX's ``Col2Im`` takes.
    x_shape : sequence of int
        The shape of the result, in `layout`.
    kernel_size, stride, padding, dilation
        As for `im2col`; what falls on the padding is dropped.
    layout : str
        The axes of the result.

    Returns
    -------
    ndarray
        The sums, of shape `x_shape` and of the type of `columns`, or 64 bits for integers.

    Raises
    ------
    ConvkernelsError
        If the arguments do not fit each other (ShapeError, OptionError, LayoutError, DTypeError), or sums of integer
        data might leave 64 bits (IntegerOverflowError).

    See Also
    --------
    im2col : The columns of a batch.

    Examples
    --------
    >>> import numpy as np
    >>> from convkernels import patches
    >>> x = np.ones((1, 5, 1))
    >>> columns = patches.im2col(x, 3, layout="NWC")
    >>> patches.col2im(columns, x_shape=x.shape, kernel_size=3, layout="NWC").ravel()
    array([1., 2., 3., 2., 1.])
    """
    with located("col2im", "columns", columns, layout):
        columns = as_array("columns", columns)
        order, dtype = data_layout(layout, None), common_dtype(columns=columns)
        given = entries(x_shape)
        if given is None:
            raise OptionError(f"x_shape={x_shape!r} must be a sequence of {len(order.axes)} whole numbers")
        sizes = tuple(whole("x_shape", size) for size in given)
        canonical = order.canonical_shape(sizes, "x_shape")
        window, shape = _geometry(canonical, kernel_size, stride, padding, dilation)
        if columns.shape != shape:
            raise ShapeError(f"columns has shape {columns.shape}, must have {shape}: (N, C * taps, positions)")
        accumulator = compute_dtype(dtype)
        if accumulator.kind in "iu":
            check_overflow(window.taps * magnitude(columns), accumulator)
        total = np.zeros(sizes, accumulator)
        scatter_windows(_cells(columns, canonical, window), window, order.view(total))
        return total.astype(dtype, copy=False) if dtype.kind == "f" else total


def _geometry(
    x_shape: Shape, kernel_size: object, stride: object, padding: object, dilation: object
) -> tuple[Window, Shape]:
    """The windows of an input of this canonical shape, and the shape of their columns."""
    check_sizes("x", x_shape[1:2], "C")
    batch, channels, *in_size = x_shape
    window = Window.make(tuple(in_size), kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation)
    return window, (batch, channels * window.taps, math.prod(window.out_size))


def _cells(columns: Array, x_shape: Shape, window: Window) -> Array:
    """See columns as `windows` has them: N, C, positions, taps."""
    split = columns.reshape(*x_shape[:2], *window.kernel_size, *window.out_size)
    rank = window.rank
    return split.transpose(0, 1, *range(2 + rank, 2 + 2 * rank), *range(2, 2 + rank))
