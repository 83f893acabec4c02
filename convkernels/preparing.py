"""Calls that are prepared once, for data of one kind."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .call import as_array
from .errors import ConvkernelsError, DTypeError, LayoutError, OptionError, ShapeError, one_of
from .layout import Array
from .planning import Choice, explain
from .public import KEEPING, PUBLIC

DATA = ("x", "dy")
"""Arrays that are given with each call."""
KEPT = ("w", "b", "gamma", "beta", "mean", "var")
"""Arrays that a plan keeps."""


class Plan:
    """A call that is prepared, made by `plan`: on data of one shape and type, with the same weights.

    Attributes
    ----------
    call : str
        The function.
    choice : Choice
        What it runs, and why.
    """

    def __init__(self, call: str, choice: Choice, run: Callable[[tuple[Any, ...]], Any], like: Mapping[str, Array]):
        self.call, self.choice = call, choice
        self._run, self._like = run, tuple(like.items())

    @property
    def workspace_bytes(self) -> int:
        """Scratch memory that a call may take."""
        return self.choice.workspace_bytes

    def __str__(self) -> str:
        return f"{self.call}: {self.choice}"

    def __call__(self, *data: ArrayLike) -> Any:
        """Call the function with other data, which lie in memory as those did that it was planned for."""
        if len(data) != len(self._like):
            names = ", ".join(name for name, _ in self._like)
            raise TypeError(f"the plan of {self.call} takes {names}, and was given {len(data)} arrays")
        return self._run(tuple(self._checked(value, *like) for value, like in zip(data, self._like, strict=True)))

    def _checked(self, value: ArrayLike, name: str, like: Array) -> Array:
        try:
            array = as_array(name, value)
            if array.strides != like.strides or array.shape != like.shape:
                check_alike(name, array, like)
            if array.dtype != like.dtype:
                raise DTypeError(f"{name} has dtype {array.dtype}, was planned for {like.dtype}")
            if not array.flags.aligned:
                raise LayoutError(f"{name} is not aligned in memory: copy it")
        except ConvkernelsError as error:
            error.locate(f"the plan of {self.call}", str(self.choice.spec))
            raise
        return array


def check_alike(name: str, array: Array, like: Array) -> None:
    """Refuse an array that does not lie as another does; strides of axes of one cell are of no account."""
    if array.shape != like.shape:
        raise ShapeError(f"{name} has shape {array.shape}, was planned for {like.shape}")
    axes = zip(array.shape, array.strides, like.strides, strict=True)
    if array.size and any(size > 1 and stride != planned for size, stride, planned in axes):
        raise LayoutError(f"{name} has strides {array.strides}, was planned for {like.strides}: copy it")


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
    given = inspect.signature(function).bind(*args, **kwargs)
    names = [name for name in inspect.signature(function).parameters if name in given.arguments]
    arrays = {
        name: as_array(name, value) if name in DATA else _copied(name, value)
        for name, value in zip(names, given.args, strict=False)
    }
    options, values = given.kwargs, tuple(arrays.values())
    shortcut = KEEPING[call](values, options)
    choices = explain(call, *values, **options).choices
    data = {name: array for name, array in arrays.items() if name in DATA}
    rest = values[len(data) :]
    if shortcut is None:
        return Plan(call, choices[0], lambda found: function(*found, *rest, **options), data)
    return Plan(call, choices[0], lambda found: shortcut((*found, *rest)), data)


def _copied(name: str, value: Any) -> Any:
    """A copy of what is an array of the caller's, in its order in memory."""
    return np.array(as_array(name, value)) if name in KEPT and value is not None else value


def _plannable(name: str) -> bool:
    """Whether a function makes one run, and returns no function."""
    parameters = inspect.signature(PUBLIC[name]).parameters.values()
    arrays = [each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD]
    others = ("window", "reducer", "size", "groups")
    return not name.endswith("_vjp") and all(each in DATA + KEPT + others for each in arrays)
