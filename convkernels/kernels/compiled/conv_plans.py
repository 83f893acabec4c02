"""Convolutions on arrays that lie like those before: plans are found once, then carried out at other addresses.

Where the weights stay as they are, too, they are rearranged but once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, TypeVar

import numpy as np

from ...config import Resources
from ...layout import Array
from ...spec import ConvSpec, ConvTransposeSpec
from .inward import inward, inward_strides
from .machine import address
from .scratch import LINE
from .thread_count import by_threads
from .weighted import Weighted, execute

Run: TypeAlias = Callable[..., None]
Plan = TypeVar("Plan")


def now(find: Callable[..., Plan], spec: ConvSpec, *arrays: Array, resources: Resources) -> Callable[[], Plan]:
    """What gives the plan for arrays that lie like these."""
    strides = (inward_strides(spec.window, array.strides) for array in arrays)
    how = (inward(spec), *strides, resources.max_workspace)
    return by_threads(resources.threads, spec.flops, lambda threads: find(*how, threads))


def plan_forward(
    find: Callable[..., Weighted],
    spec: ConvSpec | ConvTransposeSpec,
    x: Array,
    w: Array,
    b: Array | None,
    *,
    out: Array,
    resources: Resources,
) -> Run:
    """Plan a convolution, transposed or not."""
    plan = now(find, forward_spec(spec), x, w, out, resources=resources)
    return lambda x, w, b, out: execute(plan(), x, w, b, out)


def plan_backward(
    find: Callable[..., Weighted], spec: ConvSpec, dy: Array, w: Array, *, out: Array, resources: Resources
) -> Run:
    """Plan an input gradient."""
    plan = now(find, spec, dy, w, out, resources=resources)
    return lambda dy, w, out: execute(plan(), dy, w, None, out)


def plan_weights(
    find: Callable[..., Plan],
    execute: Callable[[Plan, Array, Array, Array], None],
    spec: ConvSpec,
    x: Array,
    dy: Array,
    *,
    out: Array,
    resources: Resources,
) -> Run | None:
    """Plan a weight gradient."""
    plan = now(find, spec, x, dy, out, resources=resources)
    return (lambda x, dy, out: execute(plan(), x, dy, out)) if spec.batch else None


def run_forward(
    find: Callable[..., Weighted],
    spec: ConvSpec | ConvTransposeSpec,
    x: Array,
    w: Array,
    b: Array | None,
    *,
    out: Array,
    resources: Resources,
) -> None:
    """Convolve, transposed or not."""
    plan_forward(find, spec, x, w, b, out=out, resources=resources)(x, w, b, out)


def run_backward(
    find: Callable[..., Weighted], spec: ConvSpec, dy: Array, w: Array, *, out: Array, resources: Resources
) -> None:
    """Take the gradient by the input."""
    plan_backward(find, spec, dy, w, out=out, resources=resources)(dy, w, out)


def run_to_weights(
    find: Callable[..., Plan],
    execute: Callable[[Plan, Array, Array, Array], None],
    spec: ConvSpec,
    x: Array,
    dy: Array,
    *,
    out: Array,
    resources: Resources,
) -> None:
    """Take the gradient by the weights."""
    run = plan_weights(find, execute, spec, x, dy, out=out, resources=resources)
    if run is None:
        out[...] = 0
    else:
        run(x, dy, out)


def forward_spec(spec: ConvSpec | ConvTransposeSpec) -> ConvSpec:
    """The convolution whose plan it is."""
    return spec.convolution if isinstance(spec, ConvTransposeSpec) else spec


class Kept:
    """A plan with weights that are rearranged already, and the bias."""

    def __init__(self, plan: Weighted, w: Array, b: Array | None) -> None:
        self.plan, self.w, self.b = plan, w, b
        self.memory = np.empty(plan.bytes + LINE, np.uint8)
        start = address(self.memory)
        self.weights = plan.rearrange(w, self.memory[-start % LINE :] if plan.bytes else None)

    def __call__(self, x: Array, *others: Array | None) -> None:
        """Compute: the weights that are given are those that were."""
        *_, out = others
        assert out is not None, "there is a result"
        self.plan.compute(x, self.weights, self.b, out)


def keep(
    find: Callable[..., Weighted],
    spec: ConvSpec | ConvTransposeSpec,
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    out: Array,
    resources: Resources,
) -> Run:
    """Plan a convolution, or an input gradient of it, and keep the weights."""
    plan = now(find, forward_spec(spec), x, w, out, resources=resources)
    return Kept(plan(), w, b)
