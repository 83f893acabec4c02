"""Problems whose spatial axes of a single cell come first.

A signal may be given as a picture of one column, and a few pixels as a volume. Tiles take outputs that lie next to each
other along the last axis, of which there had better be some: 3 taps over 128 x 1 pixels of 64 channels took 62 us, and
those over 1 x 128 take 28.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, update_wrapper
from typing import Any, Concatenate, ParamSpec, TypeVar

from ...spec import ConvSpec
from ...window import Ints, Window

Given = ParamSpec("Given")
Found = TypeVar("Found")


@lru_cache(maxsize=512)
def places(window: Window) -> Ints:
    """The spatial axes in that order, else in theirs.

    Examples
    --------
    >>> places(Window.make((8, 1, 5), kernel_size=(3, 1, 1))), places(Window.make((8, 1), kernel_size=1, padding=1))
    ((1, 0, 2), (0, 1))
    """
    along = zip(window.in_size, window.out_size, window.kernel_size, window.padding, strict=True)
    several = [max(cells, outputs, taps) > 1 or low != 0 for cells, outputs, taps, (low, _) in along]
    return tuple(sorted(range(window.rank), key=several.__getitem__))


@lru_cache(maxsize=512)
def inward(spec: ConvSpec) -> ConvSpec:
    """The same problem with its axes in that order.

    Examples
    --------
    >>> from convkernels.testing.problems import Problem
    >>> str(inward(Problem.read("conv:n1g1i2o3_in8x1_k3x1_s2x1_p1+1x0+0_d1x1").spec))
    'n1g1i2o3_in1x8_k1x3_s1x2_p0+0x1+1_d1x1'
    """
    window, order = spec.window, places(spec.window)
    if order == tuple(range(window.rank)):
        return spec
    names = ("in_size", "kernel_size", "stride", "padding", "dilation")
    moved: dict[str, Any] = {name: tuple(getattr(window, name)[axis] for axis in order) for name in names}
    return replace(spec, window=replace(window, **moved))


def inward_strides(window: Window, strides: Ints) -> Ints:
    """An array's strides, of which the first two are not of spatial axes, in that order."""
    return (*strides[:2], *(strides[2 + axis] for axis in places(window)))


def of_inward(function: Callable[Concatenate[ConvSpec, Given], Found]) -> Callable[Concatenate[ConvSpec, Given], Found]:
    """Make what is said of a problem that of one with its axes in that order, by which it is computed."""

    def found(spec: ConvSpec, /, *args: Given.args, **kwargs: Given.kwargs) -> Found:
        return function(inward(spec), *args, **kwargs)

    update_wrapper(found, function)
    return found
