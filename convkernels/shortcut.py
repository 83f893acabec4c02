"""The short way of a call that was made before: on arrays of the same shapes, strides and types, with the same options.

A first call validates, makes a spec and chooses an implementation; that takes longer than a small convolution. Where it
made one run of one implementation and returned what that wrote, or what a function it names makes of that, the next
such call goes straight there: to a plan, in which all but the addresses of arrays is worked out, where the
implementation has one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy import ndarray

from .config import Config, get_config
from .layout import Array
from .operation import Implementation, Operation
from .recycling import LARGE, empty

Key: TypeAlias = tuple[Any, ...]
Run: TypeAlias = Callable[..., None]
"""What computes: of a caller's arrays, the result, and what else is filled."""
Finish: TypeAlias = Callable[..., Any]
"""What a function returns, made of its arrays, the result, and what else was filled."""
MOST = 1024
"""Calls that a function remembers."""


class Made(NamedTuple):
    """A call that was run: what it computed, what it returned, and how it came from the one to the other."""

    call: Any
    computed: Array
    returned: Any
    finish: Finish | None


class Runs(list[Made]):
    """The calls of one public function; of those it makes after it is over, none."""

    def __init__(self) -> None:
        super().__init__()
        self.over = False

    def note(self, made: Made) -> None:
        """Take in a call."""
        if not self.over:
            self.append(made)

    def end(self) -> None:
        """Forget them: a vjp keeps its options, and must not keep these."""
        self.over = True
        self.clear()

    def shortcut(self, args: tuple[Any, ...], result: object, *, keep: bool = False) -> Shortcut | None:
        """The short way of a function that was given and returned that, if there is one; see `Call.shortcut`."""
        if len(self) != 1 or self[0].returned is not result:
            return None
        made: Made = self[0]
        found: Shortcut | None = made.call.shortcut(args, made.computed, made.finish, keep=keep)
        return found


class Shortcuts(dict[Key, "Shortcut"]):
    """Those of one function."""

    def keep(self, key: Key, shortcut: Shortcut) -> None:
        """Remember one."""
        if len(self) >= MOST:
            self.clear()
        self[key] = shortcut


def key_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Key | None:
    """What a call's course depends on; None for calls that are not remembered.

    Equal keys must mean equal calls, but 1 == 1.0 == True: an option must be a plain number, text, or tuples of whole
    numbers or texts.
    """
    seen: list[Any] = []
    for value in args:
        kind: Any = type(value)
        if kind is ndarray:  # one by one, which takes less than a tuple of these
            seen.append(value.shape)
            seen.append(value.strides)
            seen.append(value.dtype)
            seen.append(value.flags.aligned)
        elif value is None:
            seen.append(None)
        elif not _plain(value):
            return None
        else:
            seen += (kind, value)
    for name, value in kwargs.items():
        kind = type(value)
        if kind is int or kind is str or value is None:
            seen += (name, value)
        elif _plain(value):
            seen += (name, kind, value)
        else:
            return None
    return tuple(seen)


def _plain(value: object) -> bool:
    """Whether an option is one that can stand in a key."""
    kind: Any = type(value)
    if kind is not tuple:
        return kind is int or kind is str or kind is float or kind is bool
    for entry in value:  # type: ignore[attr-defined]  # it is a tuple
        kind = type(entry)
        if kind is not int and kind is not str and not (kind is tuple and _plain(entry)):
            return False
    return True


def axes_of(view: Array, array: Array) -> tuple[int, ...] | None:
    """The permutation that makes a view of an array, if it is one."""
    left, found = list(range(array.ndim)), []
    for axis in zip(view.shape, view.strides, strict=True):
        for place in left:
            if (array.shape[place], array.strides[place]) == axis:
                left.remove(place)
                found.append(place)
                break
        else:
            return None
    same = not left and view.__array_interface__["data"] == array.__array_interface__["data"]
    return tuple(found) if same else None


class View(NamedTuple):
    """How implementations see an array of the caller's: with its axes in that order, and then in that shape."""

    axes: tuple[int, ...]
    shape: tuple[int, ...]

    def of(self, array: Array) -> Array:
        """The view of an array like the one it was found for."""
        return array.transpose(self.axes).reshape(self.shape)


def view_of(seen: Array, array: Array, permutation: tuple[int, ...]) -> View | None:
    """The view that is seen of an array: its axes in another order, or in that of a layout, and then split or joined.

    None where that would be a copy, or makes other strides.
    """
    if seen.size != array.size:
        return None
    plain = permutation if array.ndim == len(permutation) else tuple(range(array.ndim))
    found = View(axes_of(seen, array) or plain, seen.shape)
    again = found.of(array)
    alike = again.strides == seen.strides
    return found if alike and again.__array_interface__["data"] == seen.__array_interface__["data"] else None


def through_views(
    run: Callable[..., None],
    views: tuple[View | None, ...],
    out: View,
    outputs: tuple[str, ...],
    see_output: Callable[[str, Array], Array],
) -> Run:
    """Make a run on the caller's arrays of what takes their views, and those of further outputs by name."""

    def through(*arrays: Array | None) -> None:
        inputs, (result, *others) = arrays[: len(views)], arrays[len(views) :]
        seen = [
            None if array is None or view is None else view.of(array) for array, view in zip(inputs, views, strict=True)
        ]
        filled = {
            name: None if each is None else see_output(name, each) for name, each in zip(outputs, others, strict=True)
        }
        run(*seen, out=out.of(result), **filled)  # type: ignore[arg-type]  # there is one

    return through


def maker(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Callable[[], Array]:
    """What makes arrays whose numbers are still to be written."""
    small = math.prod(shape) * dtype.itemsize < LARGE
    return partial(np.empty if small else empty, shape, dtype)


@dataclass(eq=False)
class Shortcut:
    """One run of an implementation, and when it would still be chosen.

    It takes so many arrays, those at the end that the caller leaves out being None, a result, and what else it fills.
    """

    operation: Operation
    chosen: Mapping[Any, Implementation]
    config: Config
    run: Run
    count: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    outputs: tuple[tuple[tuple[int, ...], np.dtype[Any]] | None, ...] = ()
    finish: Finish | None = None

    def __post_init__(self) -> None:
        self.fresh = maker(self.shape, self.dtype)
        self.others = [None if like is None else maker(*like) for like in self.outputs]

    def holds(self) -> bool:
        """Whether nothing was registered or set since."""
        return self.operation.chosen is self.chosen and get_config() is self.config

    def __call__(self, args: tuple[Any, ...]) -> Any:
        """Run on other arrays of the same kind."""
        arrays = args[: self.count]
        if len(arrays) < self.count:
            arrays += (None,) * (self.count - len(arrays))
        result = self.fresh()
        if self.finish is None:
            self.run(*arrays, result)
            return result
        outputs = [None if make is None else make() for make in self.others]
        self.run(*arrays, result, *outputs)
        return self.finish(arrays, result, *outputs)
