"""The short way of a call that was made before: on arrays of the same shapes, strides and types, with the same options.

A first call validates, makes a spec and chooses an implementation; that takes longer than a small convolution. Where it
made one run of one implementation and returned what that wrote, the next such call goes straight there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from .config import Config, Resources, get_config
from .layout import Array
from .operation import Implementation, Operation
from .recycling import empty

Key: TypeAlias = tuple[Any, ...]
MOST = 1024
"""Calls that a function remembers."""


class Runs(list[tuple[Any, Array]]):
    """The calls of one public function and what they returned; of those it makes after it is over, none."""

    def __init__(self) -> None:
        super().__init__()
        self.over = False

    def note(self, call: Any, result: Array) -> None:
        """Take in a call."""
        if not self.over:
            self.append((call, result))

    def end(self) -> None:
        """Forget them: a vjp keeps its options, and must not keep these."""
        self.over = True
        self.clear()


def key_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Key | None:
    """What a call's course depends on; None for calls that are not remembered.

    Equal keys must mean equal calls, but 1 == 1.0 == True: types are part of a key, and tuples are of integers alone.
    """
    seen: list[Any] = []
    for value in args:
        if type(value) is np.ndarray:
            seen += (value.shape, value.strides, value.dtype)
        elif value is None:
            seen.append(None)
        else:
            return None
    for name, value in kwargs.items():
        kind = type(value)
        if kind is tuple:
            if not all(map(whole, value)):
                return None
        elif kind is not int and kind is not str and kind is not bool and value is not None:
            return None
        seen += (name, kind, value)
    return tuple(seen)


def whole(entry: object) -> bool:
    """Whether an entry is a number, or a tuple of such entries as pairs of padding are."""
    return type(entry) is int or (type(entry) is tuple and all(map(whole, entry)))


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


@dataclass(eq=False)
class Shortcut:
    """One run of an implementation, and when it would still be chosen."""

    operation: Operation
    chosen: Mapping[Any, Implementation]
    config: Config
    run: Callable[..., None]
    spec: Any
    axes: tuple[tuple[int, ...] | None, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    out_axes: tuple[int, ...]
    resources: Resources

    def holds(self) -> bool:
        """Whether nothing was registered or set since."""
        return self.operation.chosen is self.chosen and get_config() is self.config

    def __call__(self, args: tuple[Any, ...]) -> Array:
        """Run on other arrays of the same kind."""
        arrays = [None if axes is None else array.transpose(axes) for array, axes in zip(args, self.axes, strict=False)]
        arrays += [None] * (len(self.axes) - len(arrays))
        result = empty(self.shape, self.dtype)
        self.run(self.spec, *arrays, out=result.transpose(self.out_axes), resources=self.resources)
        return result
