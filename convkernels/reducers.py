"""The reducers there are: extrema with their rules for ties, sums, means, p-norms, logsumexp, and those registered."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import product
from typing import Any, Literal
from weakref import WeakValueDictionary

import numpy as np

from .errors import OptionError, one_of
from .layout import Array
from .reducer import Axes, Count, Reducer

Ties = Literal["first", "last", "split", "all"]
TIES: tuple[Ties, ...] = ("first", "last", "split", "all")


def cells(windows: Array, axes: Axes) -> Iterator[Array]:
    """Each tap's plane of a window view, in row-major order, the window axes gone.

    Reducing plane by plane is one pass of long inner loops per tap. NumPy's own maximum over the two short window axes
    took 24 to 56 times as long in channels-first memory and 3 to 6 in channels-last (2x2 and 3x3 windows of 64 channels
    of 112x112 float32).
    """
    last = windows.ndim
    assert axes == tuple(range(last - len(axes), last)), "the window axes stand last"
    positions: Iterator[tuple[Any, ...]] = product(*(range(windows.shape[axis]) for axis in axes))
    for position in positions:
        yield windows[..., *position]


def folded(combine: np.ufunc, windows: Array, axes: Axes) -> Array:
    """Combine the cells of each window, plane by plane where a sample has more windows than cells in each."""
    # Which of the two must not depend on the size of the batch. Nor must the order in which NumPy adds: it is that of
    # the cells in memory, and the same for every batch where samples lie one after the other.
    taps = math.prod(windows.shape[axis] for axis in axes)
    others = zip(windows.shape[1:], windows.strides[1:], strict=True)
    apart = all(windows.strides[0] > abs(stride) for size, stride in others if size > 1)
    if apart and taps * taps > windows.size // max(1, len(windows)):
        result: Array = combine.reduce(windows, axes, dtype=windows.dtype)
        return result
    return fold(combine, cells(windows, axes))


def fold(combine: np.ufunc, planes: Iterator[Array]) -> Array:
    """Combine planes one after the other, in memory of the result's own."""
    total = np.array(next(planes))
    for plane in planes:
        combine(total, plane, out=total)
    return total


def _lowest(dtype: np.dtype[Any]) -> Any:
    return np.iinfo(dtype).min if dtype.kind in "iu" else -np.inf


def _highest(dtype: np.dtype[Any]) -> Any:
    return np.iinfo(dtype).max if dtype.kind in "iu" else np.inf


def _zero(dtype: np.dtype[Any]) -> Any:
    return dtype.type(0)


def _extremum_vjp(ties: Ties, dy: Array, windows: Array, y: Array, axes: Axes, count: Count) -> Array:
    planes = list(cells(windows, axes))
    wins = [plane == y for plane in planes]
    lost = y != y
    if lost.any():
        # NaN equals nothing, itself included: where the result is NaN, the first NaN takes the gradient.
        for win, plane in zip(wins, planes, strict=True):
            np.logical_or(win, lost & np.isnan(plane), out=win)
            lost &= ~win
    if ties == "split":
        dy = dy / np.add.reduce(wins, dtype=dy.dtype)
    elif ties != "all":
        free = np.ones(y.shape, bool)
        for win in wins if ties == "first" else reversed(wins):
            np.logical_and(win, free, out=win)
            free ^= win
    shares = np.zeros((*(windows.shape[axis] for axis in axes), *y.shape), dy.dtype)
    for share, win in zip(shares.reshape(-1, *y.shape), wins, strict=True):
        np.copyto(share, dy, where=win)
    return np.moveaxis(shares, range(len(axes)), axes)


def _checked_ties(ties: object) -> Ties:
    for name in TIES:
        if ties == name:
            return name
    raise OptionError(f"ties={ties!r} must be one of {one_of(TIES, str(ties))}")


@lru_cache(maxsize=16)
def _extremum(name: str, ties: Ties, better: np.ufunc, identity: Callable[[np.dtype[Any]], Any]) -> Reducer:
    def take_extremum(windows: Array, axes: Axes, count: Count) -> Array:
        return folded(better, windows, axes)

    def spread_to_winner(dy: Array, windows: Array, y: Array, axes: Axes, count: Count) -> Array:
        return _extremum_vjp(ties, dy, windows, y, axes, count)

    full_name = name if ties == "first" else f"{name}_ties-{ties}"
    # Shares of an integer gradient would not be integers.
    kinds = "f" if ties == "split" else "iuf"
    return Reducer(full_name, identity, take_extremum, spread_to_winner, kinds, counts=False, copies=(0, 3))


def maximum(ties: Ties = "first") -> Reducer:
    """The largest cell; NaN propagates.

    Parameters
    ----------
    ties : {"first", "last", "split", "all"}
        Which of several largest cells takes the gradient: the first or last in row-major order, equal shares (not of
        integers), or the whole gradient to each (which is no subgradient, but what deeplearning.ai's course does).

    Returns
    -------
    Reducer
        Named "max", or "max_ties-last" and so on.

    Raises
    ------
    OptionError
        If `ties` is none of these.

    Examples
    --------
    >>> import numpy as np
    >>> import convkernels as ck
    >>> y, vjp = ck.pool1d_vjp(np.array([[[7.0, 7.0]]]), 2, ck.maximum(ties="split"))
    >>> vjp(np.ones_like(y))
    array([[[0.5, 0.5]]])
    """
    return _extremum("max", _checked_ties(ties), np.maximum, _lowest)


def minimum(ties: Ties = "first") -> Reducer:
    """The smallest cell; NaN propagates.

    Parameters
    ----------
    ties : {"first", "last", "split", "all"}
        Which of several smallest cells takes the gradient, as for `maximum`.

    Returns
    -------
    Reducer
        Named "min", or "min_ties-last" and so on.

    Raises
    ------
    OptionError
        If `ties` is none of these.

    Examples
    --------
    >>> import numpy as np
    >>> import convkernels as ck
    >>> ck.pool1d(np.array([[[7.0, 3.0]]]), 2, ck.minimum())
    array([[[3.]]])
    """
    return _extremum("min", _checked_ties(ties), np.minimum, _highest)


def _sum(windows: Array, axes: Axes, count: Count) -> Array:
    return folded(np.add, windows, axes)


def _sum_vjp(dy: Array, windows: Array, y: Array, axes: Axes, count: Count) -> Array:
    return np.broadcast_to(np.expand_dims(dy, axes), windows.shape)


def _mean(windows: Array, axes: Axes, count: Count) -> Array:
    total = _sum(windows, axes, count)
    return np.divide(total, count, out=total, casting="same_kind")


def _mean_vjp(dy: Array, windows: Array, y: Array, axes: Axes, count: Count) -> Array:
    return _sum_vjp((dy / count).astype(dy.dtype, copy=False), windows, y, axes, count)


SUM = Reducer("sum", _zero, _sum, _sum_vjp, kinds="iufc", widens=True, counts=False, copies=(0, 0))
MEAN = Reducer("mean", _zero, _mean, _mean_vjp, kinds="fc", copies=(0, 0))


def _parameter(name: str, value: object) -> float:
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        raise OptionError(f"{name}={value!r} must be a number")
    number = float(value)
    if not math.isfinite(number):
        raise OptionError(f"{name}={value!r} must be finite")
    return number


# One object for each parameter as long as any is alive: equal specs hold equal reducers, and nothing is kept for good.
_alive: WeakValueDictionary[str, Reducer] = WeakValueDictionary()


def _shared(name: str, make: Callable[[], Reducer]) -> Reducer:
    return _alive.get(name) or _alive.setdefault(name, make())


def _numbered(family: str, value: float) -> str:
    short = f"{value:g}"
    return family + (short if float(short) == value else repr(value)).replace("e+", "e")


def lp(p: float) -> Reducer:
    """The p-norm of the window, ``sum(|x|^p)^(1/p)``; partial windows are not rescaled.

    Parameters
    ----------
    p : float
        The exponent, above 0.

    Returns
    -------
    Reducer
        Named "lp2" for p = 2. Its gradient at a cell of 0 is 0.

    Raises
    ------
    OptionError
        If `p` is not a finite number above 0.

    Notes
    -----
    The cells are divided by the window's largest first, so that only a result that is itself too large overflows.
    This is ONNX's LpPool.

    Examples
    --------
    >>> import numpy as np
    >>> import convkernels as ck
    >>> ck.pool1d(np.array([[[3.0, -4.0]]]), 2, ck.lp(2))
    array([[[5.]]])
    """
    exponent = _parameter("p", p)
    if exponent <= 0:
        raise OptionError(f"p={p!r} must be above 0")
    return _shared(_numbered("lp", exponent), lambda: _lp(exponent))


def _lp(p: float) -> Reducer:
    def norm(windows: Array, axes: Axes, count: Count) -> Array:
        largest = fold(np.maximum, map(np.abs, cells(windows, axes)))
        # An infinite cell stays infinite over 1; a window of zeros stays zero.
        scale = np.where(np.isfinite(largest) & (largest > 0), largest, 1).astype(largest.dtype, copy=False)
        total = fold(np.add, ((np.abs(cell) / scale) ** p for cell in cells(windows, axes)))
        return scale * total ** (1 / p)

    def norm_vjp(dy: Array, windows: Array, y: Array, axes: Axes, count: Count) -> Array:
        size = np.abs(windows)
        y, dy = np.expand_dims(y, axes), np.expand_dims(dy, axes)
        ratio = np.divide(size, y, out=np.ones(windows.shape, windows.dtype), where=size > 0)
        return dy * np.sign(windows) * ratio ** (p - 1)

    return Reducer(_numbered("lp", p), _zero, norm, norm_vjp, kinds="f", counts=False, copies=(0, 7))


def logsumexp(t: float = 1.0) -> Reducer:
    """The smooth maximum of the window, log(sum exp(t x)) / t; a smooth minimum where t is negative.

    Parameters
    ----------
    t : float
        How sharp: towards infinity it is the maximum. Not 0.

    Returns
    -------
    Reducer
        Named "logsumexp1" for t = 1. Its gradient is the softmax of t x.

    Raises
    ------
    OptionError
        If `t` is 0 or not a finite number.

    Examples
    --------
    >>> import numpy as np
    >>> import convkernels as ck
    >>> ck.pool1d(np.zeros((1, 1, 2)), 2, ck.logsumexp(1.0)).round(4)
    array([[[0.6931]]])
    """
    sharpness = _parameter("t", t)
    if sharpness == 0:
        raise OptionError("t=0 has no limit: use the mean")
    return _shared(_numbered("logsumexp", sharpness), lambda: _logsumexp(sharpness))


def _logsumexp(t: float) -> Reducer:
    extreme, pad = (np.maximum, -np.inf) if t > 0 else (np.minimum, np.inf)

    def pad_value(dtype: np.dtype[Any]) -> Any:
        return pad

    def parts(windows: Array, axes: Axes) -> tuple[Array, Callable[[Array], Array]]:
        """The extreme cell, and a plane's exponentials over its; shifted by it, no exponential exceeds 1."""
        most = folded(extreme, windows, axes)
        shift = np.where(np.isfinite(most), most, 0).astype(most.dtype, copy=False)

        def exponential(cell: Array) -> Array:
            with np.errstate(over="ignore"):  # a cell so far off counts 0
                power: Array = np.exp(t * (cell - shift))
            # An infinite extreme is the result; the cells that are it share it.
            return np.where(np.isinf(most), cell == most, power).astype(most.dtype, copy=False)

        return most, exponential

    def smooth(windows: Array, axes: Axes, count: Count) -> Array:
        most, exponential = parts(windows, axes)
        total = fold(np.add, map(exponential, cells(windows, axes)))
        return np.where(np.isinf(most), most, most + np.log(total) / t).astype(most.dtype, copy=False)

    def smooth_vjp(dy: Array, windows: Array, y: Array, axes: Axes, count: Count) -> Array:
        _, exponential = parts(windows, axes)
        powers = [exponential(cell) for cell in cells(windows, axes)]
        share = dy / np.add.reduce(powers)
        shares = np.stack([power * share for power in powers])
        sizes = [windows.shape[axis] for axis in axes]
        return np.moveaxis(shares.reshape(*sizes, *y.shape), range(len(axes)), axes)

    return Reducer(_numbered("logsumexp", t), pad_value, smooth, smooth_vjp, kinds="f", counts=False, copies=(0, 5))


BUILTIN = {
    reducer.name: reducer
    for reducer in (*(maximum(ties) for ties in TIES), *(minimum(ties) for ties in TIES), MEAN, SUM)
}
_FACTORIES: dict[str, Callable[[float], Reducer]] = {"lp": lp, "logsumexp": logsumexp}
_registered: dict[str, Reducer] = {}


def builtin_reducer(name: str) -> Reducer | None:
    """The reducer that comes with the package under this name."""
    family = re.fullmatch(r"(lp|logsumexp)(-?\d+(\.\d+)?(e-?\d+)?)", name)
    return _FACTORIES[family[1]](float(family[2])) if family else BUILTIN.get(name)


def reducer_names() -> tuple[str, ...]:
    """The names that `find_reducer` knows, the families with their parameter's letter.

    Examples
    --------
    >>> reducer_names()[:2]
    ('max', 'max_ties-last')
    """
    return (*BUILTIN, "lp<p>", "logsumexp<t>", *_registered)


def register_reducer(reducer: Reducer) -> None:
    """Let `pool` and problem strings take a reducer by its name.

    Parameters
    ----------
    reducer : Reducer
        The reducer, under a name that is not taken.

    Raises
    ------
    OptionError
        If another reducer has the name.

    Examples
    --------
    >>> import numpy as np
    >>> import convkernels as ck
    >>> ck.register_reducer(ck.Reducer("median", None, lambda windows, axes, count: np.median(windows, axes)))
    >>> ck.pool1d(np.array([[[1.0, 9.0, 2.0]]]), 3, "median")
    array([[[2.]]])
    >>> ck.unregister_reducer("median")
    """
    if not isinstance(reducer, Reducer):
        raise OptionError(f"reducer={reducer!r} must be a Reducer")
    if builtin_reducer(reducer.name) or _registered.get(reducer.name, reducer) != reducer:
        raise OptionError(f"reducer name {reducer.name!r} is taken")
    _registered[reducer.name] = reducer


def unregister_reducer(name: str) -> None:
    """Forget a reducer that was registered.

    Parameters
    ----------
    name : str
        Its name.

    Raises
    ------
    OptionError
        If no reducer was registered under the name.

    Examples
    --------
    >>> import convkernels as ck
    >>> ck.register_reducer(ck.Reducer("mine", None, lambda windows, axes, count: windows.max(axes)))
    >>> ck.unregister_reducer("mine")
    """
    if _registered.pop(str(name), None) is None:
        raise OptionError(f"reducer {name!r} is not registered")


def find_reducer(reducer: Reducer | str) -> Reducer:
    """Take a reducer as it is, or find it by its name."""
    if isinstance(reducer, Reducer):
        return reducer
    if isinstance(reducer, str):
        found = builtin_reducer(reducer) or _registered.get(reducer)
        if found:
            return found
        raise OptionError(f"reducer={reducer!r} is not known; there are {one_of(reducer_names(), reducer)}")
    raise OptionError(f"reducer={reducer!r} must be a Reducer or the name of one: {', '.join(reducer_names())}")
