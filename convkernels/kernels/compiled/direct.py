"""The strategy `direct`: a convolution is a correlation, its input gradient one for each remainder of the strides."""

from __future__ import annotations

from functools import lru_cache, partial

from ...spec import ConvSpec
from ...window import Ints
from .axes import forward_axes, input_grad_axes
from .conv_plans import keep, plan_backward, plan_forward, run_backward, run_forward
from .correlation import plan
from .dots import dots_plan
from .isa import host
from .operands import backward, forward
from .scattered import scattered_plan
from .weighted import Weighted


@lru_cache(maxsize=512)
def conv_plan(spec: ConvSpec, x: Ints, w: Ints, out: Ints, limit: int, threads: int, *, kept: bool = False) -> Weighted:
    """The plan of a convolution."""
    (problem, memory), axes = forward(spec, x, w, out), forward_axes(spec)
    dots = dots_plan(problem, axes, memory, threads, host())
    return dots or plan(problem, (axes,), memory, limit, threads, host(), kept=kept)


@lru_cache(maxsize=512)
def input_grad_plan(
    spec: ConvSpec, dy: Ints, w: Ints, out: Ints, limit: int, threads: int, *, kept: bool = False
) -> Weighted:
    """The plan of an input gradient: correlations for the remainders of the strides."""
    problem, memory = backward(spec, dy, w, out)
    given = (memory, limit, threads, host())
    scattered = scattered_plan(problem, forward_axes(spec), *given, kept=kept)
    return scattered or plan(problem, input_grad_axes(spec), *given, kept=kept)


conv = partial(run_forward, conv_plan)
conv_transpose = partial(run_forward, input_grad_plan)
conv_input_grad = partial(run_backward, input_grad_plan)
plan_conv = partial(plan_forward, conv_plan)
plan_input_grad = partial(plan_backward, input_grad_plan)
plan_transpose = partial(plan_forward, input_grad_plan)
keep_conv, keep_backward = (partial(keep, partial(find, kept=True)) for find in (conv_plan, input_grad_plan))
