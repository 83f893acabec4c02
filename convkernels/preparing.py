"""Calls that are prepared once, for data of one kind."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .call import as_array
from .config import get_config, in_force
from .errors import ConvkernelsError, DTypeError, LayoutError, OptionError, ShapeError, one_of
from .layout import Array
from .planning import Choice, explain
from .public import KEEPING, PUBLIC

DATA = ("x", "dy")
"""Arrays that are given with each call."""
KEPT = ("w", "b", "gamma", "beta", "mean", "var")
"""Arrays that a plan keeps."""


class Like(NamedTuple):
    """What data must be like."""

    name: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]


class Plan:
    """A call that is prepared, made by `plan`: on data of one shape and type, with the same weights.

    Attributes
    ----------
    call : str
        The function.
    choice : Choice
        What it runs, and why.
    """

    def __init__(self, call: str, choice: Choice, run: Callable[[tuple[Any, ...]], Any], like: Iterable[Like]):
        self.call, self.choice = call, choice
        self._run, self._like = run, tuple(like)

    @property
    def workspace_bytes(self) -> int:
        """Scratch memory that a call may take."""
        return self.choice.workspace_bytes

    def __str__(self) -> str:
        return f"{self.call}: {self.choice}"

    def __call__(self, *data: ArrayLike) -> Any:
        """Call the function with other data, which lie in memory as those did that it was planned for."""
        if len(data) != len(self._like):
            names = ", ".join(like.name for like in self._like)
            raise TypeError(f"the plan of {self.call} takes {names}, and was given {len(data)} arrays")
        try:
            arrays = tuple(checked(value, like) for value, like in zip(data, self._like, strict=True))
        except ConvkernelsError as error:
            error.locate(f"the plan of {self.call}", str(self.choice.spec))
            raise
        return self._run(arrays)


def checked(value: ArrayLike, like: Like) -> Array:
    """Take an array that is what a plan was made for; strides of axes of one cell are of no account."""
    if type(value) is np.ndarray and (value.shape, value.strides, value.dtype) == like[1:] and value.flags.aligned:
        return value
    array = as_array(like.name, value)
    if array.shape != like.shape:
        raise ShapeError(f"{like.name} has shape {array.shape}, was planned for {like.shape}")
    if array.dtype != like.dtype:
        raise DTypeError(f"{like.name} has dtype {array.dtype}, was planned for {like.dtype}")
    if array.strides != like.strides and array.size:
        axes = zip(array.shape, array.strides, like.strides, strict=True)
        if any(size > 1 and stride != planned for size, stride, planned in axes):
            raise LayoutError(f"{like.name} has strides {array.strides}, was planned for {like.strides}: copy it")
    if not array.flags.aligned:
        raise LayoutError(f"{like.name} is not aligned in memory: copy it")
    return array


def plan(call: str, *args: Any, **kwargs: Any) -> Plan:
    """Prepare a call for data of one kind: what runs is chosen, compiled, and has rearranged the weights already.

    Parameters
    ----------
    call : str
        The name of a public function, such as "conv2d".
    *args, **kwargs
        What that function would be given. Weights, coefficients and statistics are copied, and stay what they are;
        of the data (`x`, `dy`) shape, type and memory order count, not what they hold.

    Returns
    -------
    Plan
        ``plan(x)``, or ``plan(x, dy)`` for a weight gradient, returns what the function does.

    Raises
    ------
    OptionError
        If there is no function of that name, or it makes several runs, or `out` is given.
    ConvkernelsError
        Whatever the call itself would raise; and from the plan, if data are not of the kind it was made for.

    Notes
    -----
    It makes the call once, so that everything is compiled. The settings are those in force when it was made. Several
    threads may use it at once.

    Examples
    --------
    >>> import numpy as np
    >>> import convkernels as ck
    >>> x, w = np.ones((2, 3, 8, 8), np.float32), np.ones((4, 3, 3, 3), np.float32)
    >>> plan = ck.plan("conv2d", x, w, padding=1)
    >>> bool((plan(2 * x) == ck.conv2d(2 * x, w, padding=1)).all())
    True
    >>> plan(x[:1])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    convkernels.errors.ShapeError: the plan of conv2d: x has shape (1, 3, 8, 8), was planned for (2, 3, 8, 8) (...
    """
    planned = sorted(name for name in PUBLIC if _plannable(name))
    if call not in planned:
        raise OptionError(f"plan: {call!r} is not one of {one_of(planned, str(call))}")
    if kwargs.get("out") is not None:
        raise OptionError("plan: out cannot be planned: each call of a plan returns an array of its own")
    function = PUBLIC[call]
    signature = inspect.signature(function)
    try:
        given = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{call}(): {error}") from None
    names = [name for name in signature.parameters if name in given.arguments]
    arrays = {
        name: as_array(name, value) if name in DATA else _copied(name, value)
        for name, value in zip(names, given.args, strict=False)
    }
    options, values = given.kwargs, tuple(arrays.values())
    data = [Like(name, x.shape, x.strides, x.dtype) for name, x in arrays.items() if name in DATA]
    for value, like in zip(values, data, strict=False):
        checked(value, like)
    shortcut = KEEPING[call](values, options)
    choice, rest, config = explain(call, *values, **options).choices[0], values[len(data) :], get_config()
    if shortcut is not None:
        return Plan(call, choice, lambda found: shortcut((*found, *rest)), data)
    assert choice.chosen is not None, "it ran"
    named = {**options, "strategy": choice.chosen.name}

    def run(found: tuple[Any, ...]) -> Any:
        with in_force(config):
            return function(*found, *rest, **named)

    return Plan(call, choice, run, data)


def _copied(name: str, value: Any) -> Any:
    """A copy of what is an array of the caller's, in its order in memory."""
    return np.array(as_array(name, value)) if name in KEPT and value is not None else value


def _plannable(name: str) -> bool:
    """Whether a function makes one run, and returns no function."""
    parameters = inspect.signature(PUBLIC[name]).parameters.values()
    arrays = [each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD]
    others = ("window", "reducer", "size", "groups")
    return not name.endswith("_vjp") and all(each in DATA + KEPT + others for each in arrays)
