"""Max pooling that says where each maximum stood, and the way back.

An index counts the cells of one plane (one channel of one sample) in row-major order of its spatial axes D, H, W,
whatever the layout, without the padding. This is PyTorch's count; ONNX's MaxPool counts over the whole tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, Unpack

import numpy as np
from numpy.typing import ArrayLike

from .call import Call, Instead, as_array, check_dy, frozen
from .errors import DTypeError, OptionError, ShapeError, UnknownStrategyError, WorkspaceError
from .extension import sources
from .kernels.blocking import Block, choose
from .kernels.compiled.pool_blocks import Indices
from .kernels.pooling import pieces
from .layout import Array, data_layout
from .operation import POOL
from .pool import COMPILED, GEOMETRY, LAYOUT, PoolVjp, forward, with_gradient
from .pool import DOC as POOL_DOC
from .pool_spec import PoolSpec
from .public import Execution, family, located
from .reducers import maximum
from .spec import common_dtype
from .views import windows
from .window import Ints, Padding, per_axis


class IndicesKeywords(Execution, total=False):
    """The keywords of a max pool with indices."""

    stride: int | Sequence[int] | None
    padding: Padding
    dilation: int | Sequence[int]
    ceil_mode: bool
    layout: str
    padding_mode: str


class UnpoolKeywords(Execution, total=False):
    """The keywords of an unpool besides the output's size."""

    layout: str


DOC = {
    **POOL_DOC,
    "<y, indices>": """y : ndarray
        What `max_pool2d` returns; `out` stands for it.
    indices : ndarray of int64
        Where in its plane each maximum stands, in the shape and layout of `y`: row * width + column of `x` without its
        padding, and so on for other numbers of axes. Of several equal maxima the first, of several NaN too; padding
        never wins. With a `padding_mode` other than "zeros", the cell that the padding repeats.""",
    "<unpool>": """x : array_like
        The values, in `layout`: as a rule what `max_pool2d_with_indices` returned, or what was made of it.
    indices : array_like of int
        Where in its plane each value goes, in the shape of `x`: row * width + column, and so on for other numbers of
        axes.
    output_size : int or sequence of int
        The spatial sizes of the output; one number for all axes or one each.""",
}


def _indices(call: Call) -> Callable[[Array], Array]:
    """The function from the maxima to their indices; short memory is refused at once."""
    spec, layout, x = call.spec, call.layout, call.arrays[0]
    assert isinstance(spec, PoolSpec), "a pool's call"
    assert x is not None, "a pool has an input"
    in_size, mode = spec.window.in_size, spec.padding_mode
    if mode == "zeros":
        coordinates = [np.arange(size) for size in in_size]
    else:
        coordinates = [sources(spec.window, axis, mode) for axis in range(spec.window.rank)]
        spec = spec.extended
    block = _block(spec, x.itemsize, call.config.max_workspace)

    def find(y: Array) -> Array:
        indices = layout.empty(spec.y_shape, np.dtype(np.int64))
        best, found = layout.view(y), layout.view(indices)
        for images, channels, outputs, cells, inner in pieces(spec, block):
            grid: tuple[Any, ...] = np.ix_(*(axis[part] for axis, part in zip(coordinates, cells, strict=True)))
            read = x[images, channels, *cells] if mode == "zeros" else x[images, channels][..., *grid]
            values = windows(read, inner)
            places = windows(np.ravel_multi_index(grid, in_size)[None, None], inner)
            piece = (images, channels, *outputs)
            # Backwards, so that the first of several has the last word.
            for tap in reversed(list(inner.kernel_positions())):
                value = values[..., *tap]
                np.copyto(found[piece], places[..., *tap], where=(value == best[piece]) | (value != value))
        return indices

    return find


def _run_with_indices(call: Call, find: Callable[[Array], Array]) -> tuple[Array, Array]:
    """Run a max pool and find the indices, in one go where that is compiled."""
    spec, layout = call.spec, call.layout
    assert isinstance(spec, PoolSpec), "a pool's call"
    if spec.padding_mode != "zeros":
        y = call.run()
        return y, find(y)
    indices = layout.empty(call.shape, np.dtype(np.int64))
    found = Indices(layout.view(indices))
    y = replace(call, instead=Instead(COMPILED, found.run)).run()
    return y, indices if found.written else find(y)


def _block(spec: PoolSpec, itemsize: int, limit: int) -> Block:
    """How much to search at a time: cells are copied with their indices, outputs are compared three times."""
    window = spec.window

    def cost(tile: Ints) -> int:
        reach = (
            (size - 1) * step + extent for size, step, extent in zip(tile, window.stride, window.extent, strict=True)
        )
        return math.prod(reach) * (8 + itemsize) + 3 * math.prod(tile)

    block = choose(spec.batch, spec.channels, window, cost, limit)
    if block.bytes > limit:
        raise WorkspaceError(f"max_workspace={limit} bytes is too small for the indices: {block.bytes} would do")
    return block


def _max_pool_with_indices(
    x: ArrayLike, window: int | Sequence[int], **options: Unpack[IndicesKeywords]
) -> tuple[Array, Array]:
    """Take the largest cell of every window, and say where it stands.

    Parameters
    ----------
    <x>
    <geometry>
    <layout>
    <execution>

    Returns
    -------
    <y, indices>

    <raises>

    See Also
    --------
    max_unpool2d : Puts values back to where their indices say.

    Notes
    -----
    PyTorch counts alike, but takes the last of several NaN. ONNX's MaxPool counts over the whole tensor: add
    (sample * channels + channel) * height * width.

    Examples
    --------
    >>> import numpy as np
    >>> import convkernels as ck
    >>> x = np.ones((2, 3, 8, 8))
    >>> y, indices = ck.max_pool2d_with_indices(x, 4)
    >>> y.shape == indices.shape, int(indices.min())
    (True, 0)
    """
    call = forward(x, window, maximum("first"), options)
    return _run_with_indices(call, _indices(call))


def _max_pool_with_indices_vjp(
    x: ArrayLike, window: int | Sequence[int], **options: Unpack[IndicesKeywords]
) -> tuple[Array, Array, PoolVjp]:
    """Take the largest cells and where they stand, and return the function that takes the gradient back to them.

    Parameters
    ----------
    <x>
    <geometry>
    <layout>
    <execution>

    Returns
    -------
    <y, indices>
    <vjp>

    <raises>

    Examples
    --------
    >>> import numpy as np
    >>> import convkernels as ck
    >>> x = np.random.default_rng(0).normal(size=(2, 3, 8, 8))
    >>> y, indices, vjp = ck.max_pool2d_with_indices_vjp(x, 2)
    >>> bool(vjp(np.ones_like(y)).sum() == y.size)
    True
    """
    call = forward(x, window, maximum("first"), options)
    find = _indices(call)
    y, vjp = with_gradient(call, options)
    return y, _run_with_indices(call, find)[1], vjp


def _unpooled(x: ArrayLike, indices: ArrayLike, output_size: object, options: Any) -> tuple[Call, Array, Array]:
    """The call that the result is that of, and canonical views of the values and their indices."""
    x, indices = as_array("x", x), as_array("indices", indices)
    layout = data_layout(options["layout"], None)
    data = layout.view(x, "x")
    if options["strategy"] != "auto":
        raise UnknownStrategyError(f"strategy={options['strategy']!r} is not one of max_unpool's: 'auto'")
    if indices.dtype.kind not in "iu":
        raise DTypeError(f"indices has dtype {indices.dtype}, must be integer")
    if indices.shape != x.shape:
        raise ShapeError(f"indices has shape {indices.shape}, must have {x.shape} as x has")
    sizes = per_axis("output_size", frozen("output_size", output_size), layout.rank)
    # A pool of single cells has an output of this shape and type.
    spec = PoolSpec.make((*data.shape[:2], *sizes), common_dtype(x=x), kernel_size=1, reducer="max")
    outside = (indices < 0) | (indices >= math.prod(sizes))
    if outside.any():
        place = tuple(np.argwhere(outside)[0].tolist())
        raise OptionError(
            f"indices[{', '.join(map(str, place))}]={indices[place]} must be at least 0 and below "
            f"{math.prod(sizes)}, the number of cells of output_size={sizes}"
        )
    places = layout.view(indices)
    call = Call(POOL, spec, layout.order, (data,), spec.y_shape, layout, options, guarded=(places,))
    limit, plane = call.config.max_workspace, math.prod(sizes) * spec.result_dtype.itemsize
    if plane > limit:
        raise WorkspaceError(f"max_workspace={limit} bytes is too small for a plane of the result: {plane} would do")
    return call, data, places


def _scatter(call: Call, data: Array, places: Array) -> Array:
    result = call.checked_out()
    if result is None:
        result = call.layout.empty(call.shape, call.spec.result_dtype)
    target = call.layout.view(result)
    sizes = call.shape[2:]
    for position in product(*map(range, data.shape[:2])):
        plane = np.zeros(math.prod(sizes), result.dtype)
        # In one dimension, for only there NumPy keeps the order: the last of several values stays.
        plane[places[position].ravel()] = data[position].ravel()
        target[position] = plane.reshape(sizes)
    return result


def _max_unpool(
    x: ArrayLike, indices: ArrayLike, *, output_size: int | Sequence[int], **options: Unpack[UnpoolKeywords]
) -> Array:
    """Put each value to where its index says, in a plane of zeros.

    Parameters
    ----------
    <unpool>
    layout : str
        The axes of `x`, of `indices` and of the result, a permutation of "NCHW".
    <execution>

    Returns
    -------
    ndarray
        The output, in `layout` and contiguous, of the type of `x`. Where several values have the same index, the last
        one in row-major order stays.

    <raises>

    See Also
    --------
    max_pool2d_with_indices : Where the indices come from.

    Notes
    -----
    Which of several values stays is undefined in PyTorch and ONNX. There is one way of computing this: `strategy` must
    be "auto".

    Examples
    --------
    >>> import numpy as np
    >>> import convkernels as ck
    >>> x = np.ones((2, 3, 8, 8))
    >>> y, indices = ck.max_pool2d_with_indices(x, 2)
    >>> back = ck.max_unpool2d(y, indices, output_size=8)
    >>> back.shape == x.shape, bool(back.sum() == y.sum())
    (True, True)
    """
    return _scatter(*_unpooled(x, indices, output_size, options))


def _max_unpool_vjp(
    x: ArrayLike, indices: ArrayLike, *, output_size: int | Sequence[int], **options: Unpack[UnpoolKeywords]
) -> tuple[Array, PoolVjp]:
    """Put each value to where its index says, and return the function that fetches the gradient from there.

    Parameters
    ----------
    <unpool>
    layout : str
        The axes of `x`, of `indices` and of the result, a permutation of "NCHW".
    <execution>

    Returns
    -------
    y : ndarray
        What `max_unpool2d` returns.
    vjp : callable
        ``vjp(dy)`` takes the gradient by `y` and returns dx; a value that another replaced has gradient 0. It keeps a
        reference to `indices`, which must not change before it is called.

    <raises>

    Examples
    --------
    >>> import numpy as np
    >>> import convkernels as ck
    >>> x = np.ones((2, 3, 8, 8))
    >>> y, indices = ck.max_pool2d_with_indices(x, 2)
    >>> back, vjp = ck.max_unpool2d_vjp(y, indices, output_size=8)
    >>> bool((vjp(back) == y).all())
    True
    """
    call, data, places = _unpooled(x, indices, output_size, options)
    layout, cells = call.layout, math.prod(call.shape[2:])

    def vjp(dy: ArrayLike) -> Array:
        with located(f"{options['function']}'s vjp", "dy", dy, layout.axes):  # type: ignore[typeddict-item]
            gradient = as_array("dy", dy)
            check_dy(gradient, layout, call.shape)
            dx = layout.empty(data.shape, common_dtype(dy=gradient, x=data))
            source, target = layout.view(gradient), layout.view(dx)
            for position in product(*map(range, data.shape[:2])):
                place = places[position].ravel()
                order = np.arange(place.size)
                last = np.empty(cells, np.intp)
                last[place] = order
                fetched = np.where(last[place] == order, source[position].ravel()[place], 0)
                target[position] = fetched.reshape(data.shape[2:])
            return dx

    return _scatter(call, data, places), vjp


INDICES_DEFAULTS = {**GEOMETRY, **LAYOUT}
UNPOOL_DEFAULTS = {"layout": "NCHW"}

max_pool_with_indices, max_pool1d_with_indices, max_pool2d_with_indices, max_pool3d_with_indices = family(
    _max_pool_with_indices, INDICES_DEFAULTS, DOC
)
(
    max_pool_with_indices_vjp,
    max_pool1d_with_indices_vjp,
    max_pool2d_with_indices_vjp,
    max_pool3d_with_indices_vjp,
) = family(_max_pool_with_indices_vjp, INDICES_DEFAULTS, DOC)
max_unpool, max_unpool1d, max_unpool2d, max_unpool3d = family(_max_unpool, UNPOOL_DEFAULTS, DOC)
max_unpool_vjp, max_unpool1d_vjp, max_unpool2d_vjp, max_unpool3d_vjp = family(_max_unpool_vjp, UNPOOL_DEFAULTS, DOC)
