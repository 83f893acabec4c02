"""Pooling in any layout by any reducer, and its gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, Unpack

from numpy.typing import ArrayLike

from . import catalog  # noqa: F401  # fills the operations
from .call import Call, Instead, as_array, check_dy, flag, frozen, magnitude
from .errors import OptionError, UnsupportedError
from .kernels.compiled import pool_blocks
from .layout import Array, data_layout
from .operation import POOL, POOL_GRAD
from .pool_spec import PoolSpec
from .public import Execution, family, gradient_options, located, shortened
from .reducer import Reducer
from .reducers import MEAN, Ties, builtin_reducer, maximum
from .shortcut import Runs, Shortcuts, key_of
from .spec import check_padding_mode, common_dtype
from .window import Padding

PoolVjp = Callable[[ArrayLike], Array]


class MaxPoolKeywords(Execution, total=False):
    """The keywords of a max pool."""

    stride: int | Sequence[int] | None
    padding: Padding
    dilation: int | Sequence[int]
    ceil_mode: bool
    ties: Ties
    layout: str
    padding_mode: str


class PoolKeywords(Execution, total=False):
    """The keywords of a pool whose reducer may divide by the number of cells."""

    stride: int | Sequence[int] | None
    padding: Padding
    dilation: int | Sequence[int]
    ceil_mode: bool
    count_include_pad: bool
    divisor_override: int | None
    layout: str
    padding_mode: str


GEOMETRY: dict[str, Any] = {"stride": None, "padding": 0, "dilation": 1, "ceil_mode": False}
COUNT: dict[str, Any] = {"count_include_pad": True, "divisor_override": None}
LAYOUT: dict[str, Any] = {"layout": "NCHW", "padding_mode": "zeros"}
POOL_DEFAULTS = {**GEOMETRY, **COUNT, **LAYOUT}
MAX_DEFAULTS = {**GEOMETRY, "ties": "first", **LAYOUT}

DOC = {
    "<x>": """x : array_like
        The batch, in `layout`.
    window : int or sequence of int
        The cells of a window along each axis; one number for all axes or one each, in the order D, H, W.""",
    "<geometry>": """stride : int or sequence of int, optional
        Input cells from one window to the next. By default the window, so that windows tile the input.
    padding : int, sequence, or str
        As for `conv2d`. The reducer leaves padding cells out, but a mean may count them (`count_include_pad`). A
        window with no real cell is refused.
    dilation : int or sequence of int
        Input cells from one tap to the next.
    ceil_mode : bool
        Round the number of windows up: the last may hang over the padding, but must start in front of the last
        real cell's end.""",
    "<count>": """count_include_pad : bool
        Whether a mean divides by the cells on the input and its declared padding, or by the real cells alone. The
        overhang of `ceil_mode` counts in neither.
    divisor_override : int, optional
        What a mean divides by instead.""",
    "<layout>": """layout : str
        The axes of `x` and of the result, a permutation of "NCHW".
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
        How the input goes on beyond its border: not at all, so that the reducer leaves the padding out, or as for
        `conv2d`, so that it counts as input.""",
    "<vjp>": """vjp : callable
        ``vjp(dy)`` takes the gradient by `y` and returns dx. It keeps references to the input and to `y`, which must
        not change before it is called.""",
}

COMPILED, COMPILED_GRAD = POOL.find(pool_blocks.NAME), POOL_GRAD.find(pool_blocks.NAME)
"""The implementations for which there is more than a run: one that keeps the winners, and one that is given them."""

_remembered = lru_cache(maxsize=4096, typed=True)(PoolSpec.make)


def forward(x: ArrayLike, window: object, reducer: Reducer | str, options: Any) -> Call:
    """The call of a pool."""
    x = as_array("x", x)
    layout = data_layout(options["layout"], None)
    data = layout.view(x, "x")
    names = ("stride", "padding", "dilation", "divisor_override")
    numbers = {name: frozen(name, options[name]) for name in names if name in options}
    flags = {name: flag(name, options[name]) for name in ("ceil_mode", "count_include_pad") if name in options}
    check_padding_mode(options["padding_mode"])
    if not isinstance(reducer, Reducer | str):
        raise OptionError(f"reducer={reducer!r} must be a Reducer or the name of one")
    # A reducer of one's own is not kept alive by what is remembered of its problems.
    known = isinstance(reducer, str) or builtin_reducer(reducer.name) == reducer
    spec = (_remembered if known else PoolSpec.make)(
        data.shape,
        common_dtype(x=x),
        kernel_size=frozen("window", window),
        reducer=reducer,
        padding_mode=options["padding_mode"],
        **numbers,
        **flags,
    )

    def bound() -> int:
        return spec.window.taps * magnitude(data) if spec.reducer.widens else 0

    return Call(POOL, spec, layout.order, (data,), spec.y_shape, layout, options, bound)


def with_gradient(forward: Call, options: Any) -> tuple[Array, PoolVjp]:
    """Run a pool's call, and make the function that takes the gradient back."""
    spec, layout = forward.spec, forward.layout
    assert isinstance(spec, PoolSpec), "a pool's call"
    if spec.reducer.vjp is None:
        raise UnsupportedError(f"reducer {spec.reducer.name!r} has no gradient")
    winners = pool_blocks.Winners()
    if pool_blocks.extreme(spec) and spec.padding_mode == "zeros":
        forward = replace(forward, instead=Instead(COMPILED, winners.run))
    y = forward.run()
    data, result, shortcuts = forward.arrays[0], layout.view(y), Shortcuts()

    def vjp(dy: ArrayLike) -> Array:
        return shortened(shortcuts, key_of((dy,), {}), (dy, data, result), partial(pull_back, dy))

    def pull_back(dy: ArrayLike, runs: Runs) -> Array:
        with located(f"{options['function']}'s vjp", "dy", dy, layout.axes):
            gradient = as_array("dy", dy)
            check_dy(gradient, layout, spec.y_shape)
            dtype = common_dtype(dy=gradient, x=data)
            taken = spec if dtype == spec.dtype else spec.with_dtype(dtype)

            def bound() -> int:
                return spec.window.taps * magnitude(gradient)

            arrays = (layout.view(gradient), data, result)
            choices = {**gradient_options(options, POOL_GRAD), "runs": runs}
            # Integers are compared as integers, even where dy is floating.
            kept = (1, 2) if data is not None and data.dtype.kind in "iu" else ()
            instead = (
                Instead(COMPILED_GRAD, winners.grad, winners.plan_grad) if winners.codes and taken == spec else None
            )
            return Call(
                POOL_GRAD, taken, layout.order, arrays, spec.x_shape, layout, choices, bound, kept=kept, instead=instead
            ).run()

    return y, vjp


def _pool(x: ArrayLike, window: int | Sequence[int], reducer: Reducer | str, **options: Unpack[PoolKeywords]) -> Array:
    """Reduce every window of each channel to one number, by any reducer.

    Parameters
    ----------
    <x>
    reducer : Reducer or str
        What to do with a window's cells: "max", "mean", "sum", "min", "lp2", "logsumexp1" and their like, or a
        `Reducer` of your own.
    <geometry>
    <count>
    <layout>
    <execution>

    Returns
    -------
    ndarray
        The output, in `layout` and contiguous, of the type of `x`; 64 bits for sums of integers.

    <raises>

    See Also
    --------
    max_pool2d, avg_pool2d : The same for two reducers.
    Reducer : How to write one.

    Examples
    --------
    >>> import numpy as np
    >>> import convkernels as ck
    >>> x = np.ones((2, 3, 8, 8))
    >>> ck.pool2d(x, 2, "sum").shape
    (2, 3, 4, 4)
    >>> float(ck.pool2d(x, 2, ck.lp(3)).max()) > 1
    True
    """
    return forward(x, window, reducer, options).run()


def _pool_vjp(
    x: ArrayLike, window: int | Sequence[int], reducer: Reducer | str, **options: Unpack[PoolKeywords]
) -> tuple[Array, PoolVjp]:
    """Reduce every window, and return the function that takes the gradient back.

    Parameters
    ----------
    <x>
    reducer : Reducer or str
        As for `pool2d`; it must have a gradient.
    <geometry>
    <count>
    <layout>
    <execution>

    Returns
    -------
    y : ndarray
        What `pool2d` returns.
    <vjp>

    <raises>

    Examples
    --------
    >>> import numpy as np
    >>> import convkernels as ck
    >>> x = np.ones((2, 3, 8, 8))
    >>> y, vjp = ck.pool2d_vjp(x, 2, "sum")
    >>> bool((vjp(y) == y.max()).all())
    True
    """
    return with_gradient(forward(x, window, reducer, options), options)


def _max_pool(x: ArrayLike, window: int | Sequence[int], **options: Unpack[MaxPoolKeywords]) -> Array:
    """Take the largest cell of every window; NaN propagates.

    Parameters
    ----------
    <x>
    <geometry>
    ties : {"first", "last", "split", "all"}
        Which of several largest cells takes the gradient, see `maximum`; the result is the same. Integers do not
        split.
    <layout>
    <execution>

    Returns
    -------
    ndarray
        The output, in `layout` and contiguous, of the type of `x`.

    <raises>

    Examples
    --------
    >>> import numpy as np
    >>> import convkernels as ck
    >>> x = np.ones((2, 3, 8, 8))
    >>> ck.max_pool2d(x, 3, stride=2, padding=1).shape
    (2, 3, 4, 4)
    """
    return forward(x, window, maximum(options["ties"]), options).run()


def _max_pool_vjp(
    x: ArrayLike, window: int | Sequence[int], **options: Unpack[MaxPoolKeywords]
) -> tuple[Array, PoolVjp]:
    """Take the largest cells, and return the function that takes the gradient back to them.

    Parameters
    ----------
    <x>
    <geometry>
    ties : {"first", "last", "split", "all"}
        Which of several largest cells takes the gradient, see `maximum`.
    <layout>
    <execution>

    Returns
    -------
    y : ndarray
        What `max_pool2d` returns.
    <vjp>

    <raises>

    Examples
    --------
    >>> import numpy as np
    >>> import convkernels as ck
    >>> x = np.random.default_rng(0).normal(size=(2, 3, 8, 8))
    >>> y, vjp = ck.max_pool2d_vjp(x, 2)
    >>> bool(vjp(np.ones_like(y)).sum() == y.size)
    True
    """
    return with_gradient(forward(x, window, maximum(options["ties"]), options), options)


def _avg_pool(x: ArrayLike, window: int | Sequence[int], **options: Unpack[PoolKeywords]) -> Array:
    """Take the mean of every window.

    Parameters
    ----------
    <x>
    <geometry>
    <count>
    <layout>
    <execution>

    Returns
    -------
    ndarray
        The output, in `layout` and contiguous, of the type of `x`, which must not be integer.

    <raises>

    Examples
    --------
    >>> import numpy as np
    >>> import convkernels as ck
    >>> x = np.ones((2, 3, 8, 8))
    >>> y = ck.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)
    >>> y.shape, bool((y == 1).all())
    ((2, 3, 4, 4), True)
    """
    return forward(x, window, MEAN, options).run()


def _avg_pool_vjp(x: ArrayLike, window: int | Sequence[int], **options: Unpack[PoolKeywords]) -> tuple[Array, PoolVjp]:
    """Take the means, and return the function that takes the gradient back.

    Parameters
    ----------
    <x>
    <geometry>
    <count>
    <layout>
    <execution>

    Returns
    -------
    y : ndarray
        What `avg_pool2d` returns.
    <vjp>

    <raises>

    Examples
    --------
    >>> import numpy as np
    >>> import convkernels as ck
    >>> x = np.ones((2, 3, 8, 8))
    >>> y, vjp = ck.avg_pool2d_vjp(x, 2)
    >>> bool(vjp(y).sum() == y.sum())
    True
    """
    return with_gradient(forward(x, window, MEAN, options), options)


pool, pool1d, pool2d, pool3d = family(_pool, POOL_DEFAULTS, DOC)
pool_vjp, pool1d_vjp, pool2d_vjp, pool3d_vjp = family(_pool_vjp, POOL_DEFAULTS, DOC)
max_pool, max_pool1d, max_pool2d, max_pool3d = family(_max_pool, MAX_DEFAULTS, DOC)
max_pool_vjp, max_pool1d_vjp, max_pool2d_vjp, max_pool3d_vjp = family(_max_pool_vjp, MAX_DEFAULTS, DOC)
avg_pool, avg_pool1d, avg_pool2d, avg_pool3d = family(_avg_pool, POOL_DEFAULTS, DOC)
avg_pool_vjp, avg_pool1d_vjp, avg_pool2d_vjp, avg_pool3d_vjp = family(_avg_pool_vjp, POOL_DEFAULTS, DOC)
