"""What dense layers and losses share: `f` and `f_vjp` made of one function, and arguments as they take them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from .call import as_array
from .errors import ConvkernelsError, DTypeError, OptionError
from .layout import Array
from .spec import common_dtype, compute_dtype

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
S = TypeVar("S")


def locating(function: Callable[P, R], call: str) -> Callable[P, R]:
    """Make the errors of a function say in which call, and on what, they were met."""

    @functools.wraps(function)
    def located(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except ConvkernelsError as error:
            name, subject = next(iter(inspect.signature(function).bind(*args, **kwargs).arguments.items()))
            shape = getattr(subject, "shape", None)
            seen = f"is a {type(subject).__name__}" if shape is None else f"has shape {shape}"
            error.locate(call, f"{name} {seen}")
            raise

    return located


def both(
    function: Callable[P, tuple[R, Callable[Q, S]]], doc: Mapping[str, str]
) -> tuple[Callable[P, R], Callable[P, tuple[R, Callable[Q, S]]]]:
    """Make the public `f` and `f_vjp` of a private `_f`, which returns a value and its vjp."""
    name = function.__name__.lstrip("_")
    function.__qualname__ = name  # for Python's own complaint of a missing argument

    def f(*args: P.args, **kwargs: P.kwargs) -> R:
        return function(*args, **kwargs)[0]

    def f_vjp(*args: P.args, **kwargs: P.kwargs) -> tuple[R, Callable[Q, S]]:
        y, vjp = function(*args, **kwargs)
        return y, locating(vjp, f"{name}_vjp's vjp")

    for marker, shared in doc.items():
        function.__doc__ = (function.__doc__ or "").replace(marker, shared)
    signature = inspect.signature(function).replace(return_annotation=inspect.Signature.empty)
    named: tuple[tuple[Any, str, str], ...] = (
        (f, name, ""),
        (f_vjp, name + "_vjp", f"Value and gradient of `{name}`.\n\n    "),
    )
    for public, public_name, summary in named:
        public.__name__ = public.__qualname__ = public_name
        public.__doc__ = f"{summary}{function.__doc__}"
        public.__signature__ = signature
    return locating(f, name), locating(f_vjp, f"{name}_vjp")


def floating(**arrays: Array | None) -> np.dtype[Any]:
    """The type NumPy promotes the arrays to; refuse all but the three floating ones."""
    for name, array in arrays.items():
        if array is not None and array.dtype.type not in (np.float16, np.float32, np.float64):
            raise DTypeError(f"{name} has dtype {array.dtype}, must be float16, float32 or float64")
    return common_dtype(**arrays)


def widened(array: Array, dtype: np.dtype[Any]) -> Array:
    """The array in the type in which results of `dtype` are computed."""
    return array.astype(compute_dtype(dtype), copy=False)


def taken(name: str, value: ArrayLike) -> tuple[Array, Array]:
    """An argument as an array, and in the type it is computed in."""
    array = as_array(name, value)
    return array, widened(array, floating(**{name: array}))


def real(name: str, value: object) -> float:
    """Take a real number."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        raise OptionError(f"{name}={value!r} must be a number")
    return float(value)
