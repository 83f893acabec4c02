"""Convolutions on arrays that lie like those before: plans are found once, then carried out at other addresses."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias, TypeVar

from ...config import Resources
from ...layout import Array
from ...spec import ConvSpec
from . import depthwise as channels
from . import direct, weights
from . import winograd as squares
from .thread_count import by_threads
from .weighted import Weighted, execute

Run: TypeAlias = Callable[..., None]
Plan = TypeVar("Plan")


def now(find: Callable[..., Plan], spec: ConvSpec, *arrays: Array, resources: Resources) -> Callable[[], Plan]:
    """What gives the plan for arrays that lie like these."""
    how = (spec, *(array.strides for array in arrays), resources.max_workspace)
    return by_threads(resources.threads, spec.flops, lambda threads: find(*how, threads))


def forward(
    find: Callable[..., Weighted],
    spec: ConvSpec,
    x: Array,
    w: Array,
    b: Array | None,
    *,
    out: Array,
    resources: Resources,
) -> Run:
    """Plan a convolution."""
    plan = now(find, spec, x, w, out, resources=resources)
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


conv = partial(forward, direct.conv_plan)
conv_input_grad = partial(backward, direct.input_grad_plan)
conv_weight_grad = partial(to_weights, weights.weight_grad_plan, weights.run_weights)
winograd = partial(forward, squares.squares_plan)
winograd_input_grad = partial(backward, squares.squares_grad_plan)
depthwise = partial(forward, channels.forward_plan)
depthwise_input_grad = partial(backward, channels.input_grad_plan)
depthwise_weight_grad = partial(to_weights, channels.weight_grad_plan, channels.run_depthwise_weights)
