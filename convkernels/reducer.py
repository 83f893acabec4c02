"""What a reducer is: two plain functions over a window view, `reduce` and `vjp`, and a few facts about it.

Padding enters as `pad_value`, a number that cannot change the result; what a mean divides by enters as `count`. So no
pooling loop has a branch for a kind of pool.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from .errors import DTypeError, OptionError, ShapeError
from .layout import Array

Axes: TypeAlias = tuple[int, ...]
Count: TypeAlias = "int | Array"

NAME = re.compile(r"[a-z][a-z0-9.\-]*(_ties-[a-z]+)?")


@dataclass(frozen=True)
class Reducer:
    """A way to reduce each window to one number, with its gradient.

    Parameters
    ----------
    name : str
        Lower-case letters, digits, dots and dashes; what users and problem strings call it.
    pad_value : callable or None
        ``pad_value(dtype)`` is the number that padding is filled with, which must not change any result. With None,
        every problem that needs padding is declined (a median has no such number).
    reduce : callable
        ``reduce(windows, axes, count)`` reduces the given trailing axes of a read-only window view. `count` is how
        many cells take part, an int or an array that broadcasts against the result.
    vjp : callable or None
        ``vjp(dy, windows, y, axes, count)`` returns the gradient of each window's cells, in the shape of `windows`.
        With None there is no gradient, and asking for one is refused.
    kinds : str
        NumPy's kind codes of the element types it takes: "i", "u", "f", "c".
    widens : bool
        Whether integers accumulate in, and return, 64 bits, with a check against overflow.
    counts : bool
        Whether `reduce` and `vjp` read `count`; if not, it is not worked out.
    copies : tuple of int
        How many arrays of the windows' size `reduce` and `vjp` make, for scratch memory to be kept under its cap.

    Examples
    --------
    A range pool, the largest cell less the smallest, without padding or gradient:

    >>> import numpy as np
    >>> import convkernels as ck
    >>> def spread(windows, axes, count):
    ...     return windows.max(axes) - windows.min(axes)
    >>> x = np.array([[[1.0, 5.0, 2.0, 2.5]]])
    >>> ck.pool1d(x, 2, ck.Reducer("range", None, spread))
    array([[[4. , 0.5]]])
    """

    name: str
    pad_value: Callable[[np.dtype[Any]], Any] | None
    reduce: Callable[[Array, Axes, Count], Array]
    vjp: Callable[[Array, Array, Array, Axes, Count], Array] | None = None
    kinds: str = "iuf"
    widens: bool = False
    counts: bool = True
    copies: tuple[int, int] = (3, 8)

    def __post_init__(self) -> None:
        if not NAME.fullmatch(str(self.name)) or _reserved(self.name):
            raise OptionError(
                f"reducer name {self.name!r} must be lower-case letters, digits, dots and dashes, and not a word "
                f"that problem strings use otherwise ({', '.join(RESERVED)}, a dtype)"
            )

        optional: tuple[object, ...] = (self.pad_value, self.vjp)
        for function in (self.reduce, *(function for function in optional if function is not None)):
            if not callable(function):
                raise OptionError(f"reducer {self.name!r} has {function!r} where a function must be")
        if not self.kinds or not set(self.kinds) <= set(KIND_NAMES):
            raise OptionError(f"kinds={self.kinds!r} of reducer {self.name!r} must be letters of 'iufc'")

    def reduced(self, windows: Array, axes: Axes, count: Count) -> Array:
        """Reduce, and hold what a reducer returns to its contract."""
        result = self.reduce(windows, axes, count)
        return self._checked("reduce", result, windows.shape[: axes[0]], windows.dtype)

    def shares(self, dy: Array, windows: Array, y: Array, axes: Axes, count: Count) -> Array:
        """Take the gradient, and hold it to the contract."""
        assert self.vjp is not None, "a reducer without a gradient is refused before it gets here"
        return self._checked("vjp", self.vjp(dy, windows, y, axes, count), windows.shape, dy.dtype)

    def _checked(self, function: str, result: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        what = f"{function} of reducer {self.name!r} returned"
        if np.shape(result) != shape:
            raise ShapeError(f"{what} shape {np.shape(result)}, must return {shape}")
        if not np.can_cast(result.dtype, dtype, "same_kind"):
            raise DTypeError(f"{what} {result.dtype} for {dtype} cells: see `kinds`")
        return result

    def check_dtype(self, dtype: np.dtype[Any]) -> None:
        """Refuse an element type that this reducer does not take."""
        if dtype.kind not in self.kinds:
            kinds = ", ".join(KIND_NAMES[kind] for kind in self.kinds)
            raise DTypeError(f"reducer {self.name!r} takes {kinds} elements, not {dtype}")


KIND_NAMES = {"i": "signed integer", "u": "unsigned integer", "f": "floating", "c": "complex"}
RESERVED = ("bias", "ceil", "nopad", "zeros", "reflect", "replicate", "circular", "auto")


def _reserved(name: str) -> bool:
    return name in RESERVED or name in np.sctypeDict or bool(re.fullmatch(r"(div|op)\d.*", name))
