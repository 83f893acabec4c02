"""Pools whose windows follow from the output's size: adaptive ones, and one window over everything.

Along an axis, output i of n sees the cells from floor(i * size / n) to ceil((i + 1) * size / n). Where n divides the
size this is an ordinary pool. Elsewhere the windows overlap here and there, but they have no more than a few different
sizes: those of one size, copied one behind the other, are an ordinary pool again, with a stride of that size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, NamedTuple, TypeAlias, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .call import Call, as_array, check_dy, magnitude
from .config import get_config
from .errors import UnsupportedError, WorkspaceError
from .layout import SPATIAL, Array, Layout, data_layout
from .operation import POOL, POOL_GRAD
from .pool import DOC as POOL_DOC
from .pool import POOL_DEFAULTS, PoolVjp, forward, with_gradient
from .pool_spec import PoolSpec
from .public import Execution, family, gradient_options, located
from .reducer import Reducer
from .reducers import find_reducer
from .spec import Shape, check_result, check_sizes, common_dtype
from .views import slices
from .window import Ints, per_axis

Places: TypeAlias = NDArray[np.intp]

COPIES = 8
"""Arrays of the largest group's cells that a chunk takes, forward or backward, besides what its pool works in."""


class AdaptiveKeywords(Execution, total=False):
    """The keywords of an adaptive or global pool."""

    layout: str


DOC = {
    **POOL_DOC,
    "<x>": """x : array_like
        The batch, in `layout`.""",
    "<output_size>": """output_size : int or sequence of int or None
        The spatial sizes of the output; one number for all axes or one each. None keeps the input's size.""",
    "<reducer>": """reducer : Reducer or str
        What to do with a window's cells, as for `pool2d`.""",
    "<layout>": """layout : str
        The axes of `x` and of the result, a permutation of "NCHW".""",
}


class Run(NamedTuple):
    """Windows of one size along an axis: their outputs, their cells one behind the other, and that size."""

    outputs: Places
    cells: Places
    taps: int


def runs(size: int, count: int) -> list[Run]:
    """Gather the windows of an axis by their size.

    Examples
    --------
    >>> [(run.outputs.tolist(), run.cells.tolist(), run.taps) for run in runs(5, 3)]
    [([0, 2], [0, 1, 3, 4], 2), ([1], [1, 2, 3], 3)]
    """
    outputs = np.arange(count)
    first, stop = outputs * size // count, -(-(outputs + 1) * size // count)
    found = []
    for taps in np.unique(stop - first).tolist():
        same = np.flatnonzero(stop - first == taps)
        found.append(Run(same, (first[same, None] + np.arange(taps)).ravel(), taps))
    return found


class Group(NamedTuple):
    """Windows of one shape: the grids of their outputs and of their cells, and the shape."""

    outputs: tuple[Any, ...]
    cells: tuple[Any, ...]
    taps: Ints

    @property
    def sizes(self) -> Ints:
        """How many cells there are along each axis."""
        return tuple(places.size for places in self.cells)

    def spec(self, lead: Shape, reducer: Reducer, dtype: np.dtype[Any]) -> PoolSpec:
        """The ordinary pool that they are."""
        return PoolSpec.make((*lead, *self.sizes), dtype, kernel_size=self.taps, reducer=reducer)


@dataclass(frozen=True, eq=False)
class Uneven:
    """An adaptive pool whose windows differ in size: an ordinary pool for each shape that they have."""

    data: Array
    out_size: Ints
    reducer: Reducer
    layout: Layout
    options: Any

    @cached_property
    def y_shape(self) -> Shape:
        """Canonical shape of the output."""
        return (*self.data.shape[:2], *self.out_size)

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The type of the input."""
        return common_dtype(x=self.data)

    @cached_property
    def groups(self) -> list[Group]:
        """The windows by their shape."""
        groups = []
        for combination in product(*map(runs, self.data.shape[2:], self.out_size)):
            outputs, cells, taps = zip(*combination, strict=True)
            groups.append(Group(np.ix_(*outputs), np.ix_(*cells), taps))
        return groups

    def chunks(self, spec: PoolSpec) -> Iterator[tuple[tuple[slice, slice], Any]]:
        """As many planes at a time as half the scratch memory holds, and the options of the pools of the rest."""
        limit = get_config().updated(max_workspace=self.options["max_workspace"]).max_workspace
        largest = max(math.prod(group.sizes) for group in self.groups)
        cells = max(largest, math.prod(self.data.shape[2:]))
        plane = COPIES * cells * max(spec.compute_dtype.itemsize, self.data.itemsize)
        planes = limit // 2 // plane
        if planes < 1:
            raise WorkspaceError(f"max_workspace={limit} bytes is too small: {2 * plane} would do")
        batch, channels = self.data.shape[:2]
        options = {**self.options, "out": None, "max_workspace": limit - limit // 2}
        # An empty batch runs too, so that its options are checked.
        for images in slices(batch, max(1, planes // channels)) or [slice(0, 0)]:
            for part in slices(channels, planes):
                yield (images, part), options

    def run(self) -> Array:
        """Compute, and return the result in the caller's layout."""
        layout, reducer = self.layout, self.reducer
        spec = self.groups[0].spec(self.data.shape[:2], reducer, self.dtype)
        check_result(self.y_shape, spec.result_dtype)
        y = Call(POOL, spec, layout.order, (self.data,), self.y_shape, layout, self.options).checked_out()
        if y is None:
            y = layout.empty(self.y_shape, spec.result_dtype)
        result = layout.view(y)
        for planes, options in self.chunks(spec):
            for group in self.groups:
                cells = self.data[planes][..., *group.cells]
                taps = math.prod(group.taps) if reducer.widens else 0

                def bound(cells: Array = cells, taps: int = taps) -> int:
                    return taps * magnitude(cells)

                inner = group.spec(cells.shape[:2], reducer, self.dtype)
                pooled = Call(POOL, inner, layout.order, (cells,), inner.y_shape, layout, options, bound).run()
                result[planes][..., *group.outputs] = layout.view(pooled)
        return y

    def with_gradient(self) -> tuple[Array, PoolVjp]:
        """Compute, and return the function that takes the gradient back."""
        layout, data, reducer = self.layout, self.data, self.reducer
        if reducer.vjp is None:
            raise UnsupportedError(f"reducer {reducer.name!r} has no gradient")
        y = self.run()
        result = layout.view(y)
        # A cell is in so many windows at most.
        overlap: int = math.prod(
            -(-count // size) + 1 for count, size in zip(self.out_size, data.shape[2:], strict=True)
        )

        def vjp(dy: ArrayLike) -> Array:
            with located(f"{self.options['function']}'s vjp", "dy", dy, layout.axes):
                given = as_array("dy", dy)
                check_dy(given, layout, self.y_shape)
                gradient = layout.view(given)
                spec = self.groups[0].spec(data.shape[:2], reducer, common_dtype(dy=given, x=data))
                wide = spec.compute_dtype
                dx = layout.empty(data.shape, spec.result_dtype)

                def bound() -> int:
                    return overlap * magnitude(gradient)

                for planes, options in self.chunks(spec):
                    chosen = gradient_options(options, POOL_GRAD)
                    total = np.zeros(data[planes].shape, wide)
                    for group in self.groups:
                        cells = data[planes][..., *group.cells]
                        dy_part, y_part = (array[planes][..., *group.outputs] for array in (gradient, result))
                        # In the wide type: the shares of overlapping windows are still to be added.
                        inner = group.spec(cells.shape[:2], reducer, wide)
                        arrays, shape = (dy_part, cells, y_part), inner.x_shape
                        shares = Call(POOL_GRAD, inner, layout.order, arrays, shape, layout, chosen, bound).run()
                        total += folded(layout.view(shares), group.cells, data.shape[2:])
                    layout.view(dx)[planes] = total
                return dx

        return y, vjp


def folded(shares: Array, places: tuple[Any, ...], sizes: Shape) -> Array:
    """Add every cell of the spatial axes up where it came from.

    Examples
    --------
    >>> folded(np.array([[[1, 2, 3, 4]]]), (np.array([0, 1, 1, 2]),), (4,))
    array([[[1, 5, 4, 0]]])
    """
    for axis, (cells, size) in enumerate(zip(places, sizes, strict=True)):
        moved = np.moveaxis(shares, 2 + axis, 0)
        total = np.zeros((size, *moved.shape[1:]), shares.dtype)
        for share, place in zip(moved, cells.ravel().tolist(), strict=True):
            total[place] += share
        shares = np.moveaxis(total, 0, 2 + axis)
    return shares


def _sizes(output_size: object, in_size: Ints) -> Ints:
    """The output's size along each axis, the input's where None was given."""
    if not isinstance(output_size, tuple | list):
        output_size = in_size if output_size is None else output_size
    elif len(output_size) == len(in_size):
        output_size = tuple(size if given is None else given for given, size in zip(output_size, in_size, strict=True))
    return per_axis("output_size", output_size, len(in_size))


def _adapted(x: ArrayLike, output_size: object, reducer: Reducer | str, options: Any) -> Call | Uneven:
    """The ordinary pool that it is, or the several."""
    x = as_array("x", x)
    layout = data_layout(options["layout"], None)
    data = layout.view(x, "x")
    in_size = data.shape[2:]
    out_size = _sizes(output_size, in_size)
    check_sizes("x", data.shape[1:], "C" + SPATIAL[layout.rank])
    if any(size % count for size, count in zip(in_size, out_size, strict=True)):
        return Uneven(data, out_size, find_reducer(reducer), layout, options)
    window = tuple(size // count for size, count in zip(in_size, out_size, strict=True))
    return forward(x, window, reducer, {**POOL_DEFAULTS, **options})


def _with_vjp(adapted: Call | Uneven, options: Any) -> tuple[Array, PoolVjp]:
    return with_gradient(adapted, options) if isinstance(adapted, Call) else adapted.with_gradient()


def _adaptive_pool(
    x: ArrayLike,
    output_size: int | Sequence[int | None] | None,
    reducer: Reducer | str,
    **options: Unpack[AdaptiveKeywords],
) -> Array:
    """Reduce the input to a given size by any reducer, whatever its own size.

    Along an axis of `size` cells, output i of n sees the cells from floor(i * size / n) to ceil((i + 1) * size / n).

    Parameters
    ----------
    <x>
    <output_size>
    <reducer>
    <layout>
    <execution>

    Returns
    -------
    ndarray
        The output, in `layout` and contiguous, of the type of `x`; 64 bits for sums of integers.

    <raises>

    See Also
    --------
    pool2d : The same where the size of the windows is given.
    global_pool2d : The same for one window over everything.

    Notes
    -----
    The windows are PyTorch's. With the reducers "mean" and "max" these are its adaptive average and max pools.

    Examples
    --------
    >>> import numpy as np
    >>> import convkernels as ck
    >>> x = np.ones((2, 3, 8, 8))
    >>> ck.adaptive_pool2d(x, 5, "mean").shape
    (2, 3, 5, 5)
    """
    return _adapted(x, output_size, reducer, options).run()


def _adaptive_pool_vjp(
    x: ArrayLike,
    output_size: int | Sequence[int | None] | None,
    reducer: Reducer | str,
    **options: Unpack[AdaptiveKeywords],
) -> tuple[Array, PoolVjp]:
    """Reduce the input to a given size, and return the function that takes the gradient back.

    Parameters
    ----------
    <x>
    <output_size>
    <reducer>
    <layout>
    <execution>

    Returns
    -------
    y : ndarray
        What `adaptive_pool2d` returns.
    <vjp>

    <raises>

    Examples
    --------
    >>> import numpy as np
    >>> import convkernels as ck
    >>> x = np.random.default_rng(0).normal(size=(2, 3, 8, 8))
    >>> y, vjp = ck.adaptive_pool2d_vjp(x, 5, "max")
    >>> bool(vjp(np.ones_like(y)).sum() == y.size)
    True
    """
    return _with_vjp(_adapted(x, output_size, reducer, options), options)


def _global_pool(x: ArrayLike, reducer: Reducer | str, **options: Unpack[AdaptiveKeywords]) -> Array:
    """Reduce each channel of each sample to one number by any reducer.

    Parameters
    ----------
    <x>
    <reducer>
    <layout>
    <execution>

    Returns
    -------
    ndarray
        The output, in `layout`, its spatial axes of size 1; of the type of `x`, 64 bits for sums of integers.

    <raises>

    Examples
    --------
    >>> import numpy as np
    >>> import convkernels as ck
    >>> x = np.ones((2, 3, 8, 8))
    >>> ck.global_pool2d(x, "mean").shape
    (2, 3, 1, 1)
    """
    return _adapted(x, 1, reducer, options).run()


def _global_pool_vjp(
    x: ArrayLike, reducer: Reducer | str, **options: Unpack[AdaptiveKeywords]
) -> tuple[Array, PoolVjp]:
    """Reduce each channel of each sample to one number, and return the function that takes the gradient back.

    Parameters
    ----------
    <x>
    <reducer>
    <layout>
    <execution>

    Returns
    -------
    y : ndarray
        What `global_pool2d` returns.
    <vjp>

    <raises>

    Examples
    --------
    >>> import numpy as np
    >>> import convkernels as ck
    >>> x = np.ones((2, 3, 8, 8))
    >>> y, vjp = ck.global_pool2d_vjp(x, "sum")
    >>> bool((vjp(y) == y.max()).all())
    True
    """
    return _with_vjp(_adapted(x, 1, reducer, options), options)


DEFAULTS = {"layout": "NCHW"}
adaptive_pool, adaptive_pool1d, adaptive_pool2d, adaptive_pool3d = family(_adaptive_pool, DEFAULTS, DOC)
adaptive_pool_vjp, adaptive_pool1d_vjp, adaptive_pool2d_vjp, adaptive_pool3d_vjp = family(
    _adaptive_pool_vjp, DEFAULTS, DOC
)
global_pool, global_pool1d, global_pool2d, global_pool3d = family(_global_pool, DEFAULTS, DOC)
global_pool_vjp, global_pool1d_vjp, global_pool2d_vjp, global_pool3d_vjp = family(_global_pool_vjp, DEFAULTS, DOC)
