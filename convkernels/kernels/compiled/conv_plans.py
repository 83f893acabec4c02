"""Convolutions on arrays that lie like those before: plans are found once, then carried out at other addresses.

Where the weights stay as they are, too, they are rearranged but once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias, TypeVar

import numpy as np

from ...config import Resources
from ...layout import Array
from ...spec import ConvSpec, ConvTransposeSpec
from . import depthwise as channels
from . import direct, weights
from . import winograd as squares
from . import winograd_weights as square_weights
from .machine import address
from .scratch import LINE
from .thread_count import by_threads, usable
from .weighted import Weighted, execute

Run: TypeAlias = Callable[..., None]
Plan = TypeVar("Plan")


def now(find: Callable[..., Plan], spec: ConvSpec, *arrays: Array, resources: Resources) -> Callable[[], Plan]:
    """What gives the plan for arrays that lie like these."""
    how = (spec, *(array.strides for array in arrays), resources.max_workspace)
    return by_threads(resources.threads, spec.flops, lambda threads: find(*how, threads))


def forward(
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


def backward(
    find: Callable[..., Weighted], spec: ConvSpec, dy: Array, w: Array, *, out: Array, resources: Resources
) -> Run:
    """Plan an input gradient."""
    plan = now(find, spec, dy, w, out, resources=resources)
    return lambda dy, w, out: execute(plan(), dy, w, None, out)


def to_weights(
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


def forward_spec(spec: ConvSpec | ConvTransposeSpec) -> ConvSpec:
    """The convolution whose plan it is."""
    return spec.convolution if isinstance(spec, ConvTransposeSpec) else spec


class Kept:
    """A plan with weights that are rearranged already, and the bias."""

    def __init__(self, plan: Weighted, w: Array, b: Array | None) -> None:
        self.plan, self.w, self.b = plan, w, b
        self.memory = np.empty(plan.bytes + LINE, np.uint8)
        start = address(self.memory)
        self.weights = plan.rearrange(w, start + -start % LINE)

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
    found = forward_spec(spec)
    threads = usable(resources.threads, found.flops)
    return Kept(find(found, x.strides, w.strides, out.strides, resources.max_workspace, threads), w, b)


conv = partial(forward, direct.conv_plan)
conv_input_grad = partial(backward, direct.input_grad_plan)
conv_weight_grad = partial(to_weights, weights.weight_grad_plan, weights.run_weights)
conv_transpose = partial(forward, direct.input_grad_plan)
winograd = partial(forward, squares.squares_plan)
winograd_input_grad = partial(backward, squares.squares_grad_plan)
winograd_transpose = partial(forward, squares.squares_grad_plan)
winograd_weight_grad = partial(to_weights, square_weights.squares_plan, square_weights.run_squares)
depthwise = partial(forward, channels.forward_plan)
depthwise_input_grad = partial(backward, channels.input_grad_plan)
depthwise_weight_grad = partial(to_weights, channels.weight_grad_plan, channels.run_depthwise_weights)

keep_conv = partial(keep, direct.conv_plan)
keep_backward = partial(keep, direct.input_grad_plan)
keep_winograd = partial(keep, squares.squares_plan)
keep_winograd_backward = partial(keep, squares.squares_grad_plan)
keep_depthwise = partial(keep, channels.forward_plan)
keep_depthwise_backward = partial(keep, channels.input_grad_plan)
