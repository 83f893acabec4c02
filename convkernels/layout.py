"""Axis layouts: which letter stands for which axis, and zero-copy views in canonical order.

A layout is a permutation. Kernels see *canonical* views only (N, C, spatial; for weights O, I, spatial), whose
strides are whatever the caller's memory has, so no kernel ever knows a layout's name.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from . import recycling
from .errors import LayoutError, ShapeError

Array: TypeAlias = NDArray[Any]
Order = Literal["channels_first", "channels_last", "other"]

SPATIAL = ("", "W", "HW", "DHW")
"""The letters of the spatial axes, by their number, in canonical order."""


@dataclass(frozen=True)
class Layout:
    """An axis order, such as "NHWC" for data or "HWIO" for weights.

    Parameters
    ----------
    axes : str
        The letters in the caller's order.
    leading : str
        The two letters that stand first in canonical order: "NC" for data, "OI" for a convolution's weights.

    Examples
    --------
    >>> layout = Layout("NHWC")
    >>> layout.rank, layout.permutation, layout.order
    (2, (0, 3, 1, 2), 'channels_last')
    >>> layout.view(np.zeros((2, 5, 6, 3))).shape
    (2, 3, 5, 6)
    """

    axes: str
    leading: str = "NC"

    def __post_init__(self) -> None:
        if not isinstance(self.axes, str):
            raise LayoutError(f"layout={self.axes!r} must be a string of axis letters, such as {self.leading + 'HW'!r}")
        rank = len(self.axes) - 2
        if not (1 <= rank <= 3 and sorted(self.axes) == sorted(self.leading + SPATIAL[rank])):
            examples = ", ".join(repr(self.leading + spatial) for spatial in SPATIAL[1:])
            raise LayoutError(
                f"layout={self.axes!r} must name each axis once, in any order: a permutation of {examples}"
            )

    @property
    def rank(self) -> int:
        """The number of spatial axes."""
        return len(self.axes) - 2

    @cached_property
    def permutation(self) -> tuple[int, ...]:
        """For each canonical axis, the caller's axis that holds it."""
        return tuple(self.axes.index(letter) for letter in self.leading + SPATIAL[self.rank])

    @cached_property
    def inverse(self) -> tuple[int, ...]:
        """For each axis of the caller's, its canonical place."""
        canonical = self.leading + SPATIAL[self.rank]
        return tuple(canonical.index(letter) for letter in self.axes)

    @cached_property
    def order(self) -> Order:
        """Where the channels lie in memory, for an array contiguous in this layout."""
        spatial = SPATIAL[self.rank]
        if self.axes == self.leading + spatial:
            return "channels_first"
        if self.axes == self.leading[0] + spatial + self.leading[1]:
            return "channels_last"
        return "other"

    def view(self, array: Array, name: str = "x") -> Array:
        """See an array of this layout in canonical order, without copying.

        Raises
        ------
        ShapeError
            If the array has another number of axes.
        """
        if array.ndim != len(self.axes):
            hint = ""
            if array.ndim == len(self.axes) - 1 and name in ("x", "dy"):
                hint = f"; arrays are batched: add an axis of one for {self.leading[0]!r}"
            raise ShapeError(f"{name} has {array.ndim} axes, layout {self.axes!r} has {len(self.axes)}{hint}")
        return array.transpose(self.permutation)

    def restore(self, canonical: Array) -> Array:
        """See a canonical array in the caller's order, without copying; the inverse of `view`."""
        return canonical.transpose(self.inverse)

    def shape(self, canonical: tuple[int, ...]) -> tuple[int, ...]:
        """Put a canonical shape into the caller's order."""
        return tuple(canonical[place] for place in self.inverse)

    def canonical_shape(self, shape: tuple[int, ...], name: str) -> tuple[int, ...]:
        """Put a shape of the caller's order into the canonical one."""
        if len(shape) != len(self.axes):
            raise ShapeError(f"{name}={shape} has {len(shape)} axes, layout {self.axes!r} has {len(self.axes)}")
        return tuple(shape[axis] for axis in self.permutation)

    def empty(self, canonical: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Allocate an array contiguous in this layout, from its canonical shape."""
        return recycling.empty(self.shape(canonical), dtype)


@lru_cache(maxsize=256)
def _parsed(axes: str, leading: str) -> Layout:
    return Layout(axes, leading)


def parsed(axes: object, leading: str) -> Layout:
    """Parse a layout; the same text gives the same object."""
    return _parsed(str(axes), leading) if isinstance(axes, str) else Layout(axes, leading)  # type: ignore[arg-type]


def data_layout(axes: str, rank: int | None) -> Layout:
    """Parse a data layout, which must have `rank` spatial axes unless that is None."""
    layout = parsed(axes, "NC")
    if rank is not None and layout.rank != rank:
        raise LayoutError(
            f"layout={axes!r} has the spatial axes {SPATIAL[layout.rank]!r}, must have {SPATIAL[rank]!r}: "
            f"a permutation of {'NC' + SPATIAL[rank]!r}"
        )
    return layout


def weight_layout_for(data: Layout, axes: str | None, leading: str = "OI") -> Layout:
    """Parse the layout of weights, or take the one that goes with the data's; "IO" leads in the transposed case."""
    if axes is None:
        spatial = SPATIAL[data.rank]
        usual = {"channels_first": leading + spatial, "channels_last": spatial + leading[::-1]}
        if data.order == "other":
            raise LayoutError(
                f"layout={data.axes!r} has no usual weight layout: say weight_layout, "
                f"a permutation of {leading + spatial!r}"
            )
        return parsed(usual[data.order], leading)
    try:
        layout = parsed(axes, leading)
    except LayoutError as error:
        raise LayoutError("weight_" + error.cause) from None
    if layout.rank != data.rank:
        raise LayoutError(
            f"weight_layout={axes!r} has the spatial axes {SPATIAL[layout.rank]!r}, "
            f"layout={data.axes!r} has {SPATIAL[data.rank]!r}"
        )
    return layout
