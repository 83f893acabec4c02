"""Padding modes other than zeros: the input is extended, and the rest is a problem without padding.

With P the linear map that repeats cells beyond the border, y = conv(P x), so dx = P.T dx', where dx' is the gradient by
the extended input, and dw = weight_grad(P x, dy). An implementation that does not say that it heeds the mode itself is
run on the extended input, image by image, so that the copy stays one image large.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from .config import Resources
from .layout import Array
from .pool_spec import PoolSpec
from .spec import ConvSpec
from .views import slices
from .window import Ints, Window

Run = Callable[..., None]


def sources(window: Window, axis: int, mode: str) -> np.ndarray[Any, np.dtype[np.intp]]:
    """The cell of the input that each cell of the extended axis repeats.

    Examples
    --------
    >>> window = Window.make((3,), kernel_size=1, padding=((2, 4),))
    >>> [sources(window, 0, mode).tolist() for mode in ("replicate", "reflect", "circular")]
    [[0, 0, 0, 1, 2, 2, 2, 2, 2], [2, 1, 0, 1, 2, 1, 0, 1, 2], [1, 2, 0, 1, 2, 0, 1, 2, 0]]
    """
    first, stop = window.bounds[axis]
    lo, hi = window.padding[axis]
    places, size = np.arange(-lo, window.in_size[axis] + hi) - first, stop - first
    if mode == "replicate":
        found = np.clip(places, 0, size - 1)
    elif mode == "circular":
        found = places % size
    else:
        # Back and forth, the ends not repeated: a period of 2 (size - 1), and of one cell where there is but one.
        period = max(1, 2 * (size - 1))
        found = places % period
        found = np.minimum(found, period - found)
    return found + first


def extend(x: Array, window: Window, mode: str) -> Array:
    """Copy (N, C, spatial) with its axes extended, in the memory order of x."""
    for axis in range(window.rank):
        x = np.moveaxis(np.moveaxis(x, 2 + axis, 0)[sources(window, axis, mode)], 0, 2 + axis)
    return x


def fold(extended: Array, window: Window, mode: str, out: Array) -> None:
    """Add every cell of the extended axes up where it came from, and write that: the adjoint of `extend`."""
    for axis in range(window.rank):
        cells = np.moveaxis(extended, 2 + axis, 0)
        folded = np.zeros((window.in_size[axis], *cells.shape[1:]), cells.dtype)
        for cell, place in zip(cells, sources(window, axis, mode), strict=True):
            folded[place] += cell
        extended = np.moveaxis(folded, 0, 2 + axis)
    out[...] = extended


def empty_in_order(array: Array, shape: Ints) -> Array:
    """Memory whose axes lie as an array's do, axes of one included, of which `numpy.empty_like` takes no account."""
    order = np.argsort([-abs(stride) for stride in array.strides], kind="stable")
    return np.empty([shape[axis] for axis in order], array.dtype).transpose(np.argsort(order))


def image_bytes(spec: ConvSpec | PoolSpec) -> int:
    """What one image takes extended, and while it is extended or folded axis by axis."""
    extended = spec.extended
    return 2 * math.prod(extended.x_shape[1:]) * spec.compute_dtype.itemsize


def remaining(spec: ConvSpec | PoolSpec, resources: Resources) -> Resources:
    """What the extended image leaves of the scratch memory."""
    return replace(resources, max_workspace=resources.max_workspace - image_bytes(spec))


def conv(run: Run) -> Run:
    """Run a convolution on extended images."""

    def extended(spec: ConvSpec, x: Array, w: Array, b: Array | None, *, out: Array, resources: Resources) -> None:
        inner, left = spec.extended.one_image, remaining(spec, resources)
        for image in slices(spec.batch, 1):
            run(inner, extend(x[image], spec.window, spec.padding_mode), w, b, out=out[image], resources=left)

    return extended


def conv_input_grad(run: Run) -> Run:
    """Run an input gradient on extended images, and fold it."""

    def extended(spec: ConvSpec, dy: Array, w: Array, *, out: Array, resources: Resources) -> None:
        inner, left = spec.extended.one_image, remaining(spec, resources)
        for image in slices(spec.batch, 1):
            dx = empty_in_order(out[image], inner.x_shape)
            run(inner, dy[image], w, out=dx, resources=left)
            fold(dx, spec.window, spec.padding_mode, out[image])

    return extended


def conv_weight_grad(run: Run) -> Run:
    """Sum the weight gradients of extended images."""

    def extended(spec: ConvSpec, x: Array, dy: Array, *, out: Array, resources: Resources) -> None:
        inner, left = spec.extended.one_image, remaining(spec, resources)
        left = replace(left, max_workspace=left.max_workspace - weight_bytes(spec))
        out[...] = 0
        dw = np.empty_like(out)
        for image in slices(spec.batch, 1):
            run(inner, extend(x[image], spec.window, spec.padding_mode), dy[image], out=dw, resources=left)
            out += dw

    return extended


def pool(run: Run) -> Run:
    """Run a pool on extended images."""

    def extended(spec: PoolSpec, x: Array, *, out: Array, resources: Resources) -> None:
        inner, left = spec.extended.one_image, remaining(spec, resources)
        for image in slices(spec.batch, 1):
            run(inner, extend(x[image], spec.window, spec.padding_mode), out=out[image], resources=left)

    return extended


def pool_grad(run: Run) -> Run:
    """Run a pool's gradient on extended images, and fold it."""

    def extended(spec: PoolSpec, dy: Array, x: Array, y: Array, *, out: Array, resources: Resources) -> None:
        inner, left = spec.extended.one_image, remaining(spec, resources)
        for image in slices(spec.batch, 1):
            cells = extend(x[image], spec.window, spec.padding_mode)
            dx = np.empty_like(cells)
            run(inner, dy[image], cells, y[image], out=dx, resources=left)
            fold(dx, spec.window, spec.padding_mode, out[image])

    return extended


def weight_bytes(spec: ConvSpec) -> int:
    """What one weight gradient takes."""
    return math.prod(spec.w_shape) * spec.compute_dtype.itemsize


class Extension(NamedTuple):
    """How an operation runs in a padding mode: the wrapper, and scratch memory besides the extended image."""

    wrap: Callable[[Run], Run]
    extra: Callable[[Any], int] = lambda spec: 0

    def run(self, run: Run) -> Run:
        """Make an implementation's run heed padding modes."""
        extended = self.wrap(run)

        def choose(spec: Any, *arrays: Any, **keywords: Any) -> None:
            (run if spec.padding_mode == "zeros" else extended)(spec, *arrays, **keywords)

        return choose

    def plan(self, plan: Callable[..., Any]) -> Callable[..., Any]:
        """Its plans, which extended inputs have none of."""

        def choose(spec: Any, *arrays: Any, **keywords: Any) -> Any:
            return plan(spec, *arrays, **keywords) if spec.padding_mode == "zeros" else None

        return choose

    def workspace(self, workspace: Callable[[Any, int], int]) -> Callable[[Any, int], int]:
        """Its scratch memory."""

        def needed(spec: Any, limit: int) -> int:
            if spec.padding_mode == "zeros":
                return workspace(spec, limit)
            more = image_bytes(spec) + self.extra(spec)
            return more + workspace(spec.extended.one_image, max(0, limit - more))

        return needed


EXTENSIONS = {
    "conv": Extension(conv),
    "conv_input_grad": Extension(conv_input_grad),
    "conv_weight_grad": Extension(conv_weight_grad, weight_bytes),
    "pool": Extension(pool),
    "pool_grad": Extension(pool_grad, image_bytes),
}
