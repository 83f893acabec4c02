"""The strategy `direct`: a convolution is a correlation, its input gradient one for each remainder of the strides."""

from __future__ import annotations

from functools import lru_cache, partial

from ...config import Resources
from ...layout import Array
from ...spec import ConvSpec, ConvTransposeSpec
from ...window import Ints
from .axes import forward_axes, input_grad_axes
from .conv_plans import keep, plan_backward, plan_forward
from .correlation import Plan, plan
from .isa import host
from .operands import backward, forward
from .thread_count import now_usable
from .weighted import execute


@lru_cache(maxsize=512)
def conv_plan(spec: ConvSpec, x: Ints, w: Ints, out: Ints, limit: int, threads: int) -> Plan:
    """The plan of a convolution."""
    problem, memory = forward(spec, x, w, out)
    return plan(problem, (forward_axes(spec),), memory, limit, threads, host())


@lru_cache(maxsize=512)
def input_grad_plan(spec: ConvSpec, dy: Ints, w: Ints, out: Ints, limit: int, threads: int) -> Plan:
    """The plan of an input gradient: correlations for the remainders of the strides."""
    problem, memory = backward(spec, dy, w, out)
    return plan(problem, input_grad_axes(spec), memory, limit, threads, host())


def conv(spec: ConvSpec, x: Array, w: Array, b: Array | None, *, out: Array, resources: Resources) -> None:
    """Correlate."""
    how = (resources.max_workspace, now_usable(resources.threads, spec.flops))
    execute(conv_plan(spec, x.strides, w.strides, out.strides, *how), x, w, b, out)


def conv_transpose(
    spec: ConvTransposeSpec, x: Array, w: Array, b: Array | None, *, out: Array, resources: Resources
) -> None:
    """Correlate as an input gradient does, with a bias."""
    convolution = spec.convolution
    how = (resources.max_workspace, now_usable(resources.threads, convolution.flops))
    execute(input_grad_plan(convolution, x.strides, w.strides, out.strides, *how), x, w, b, out)


def conv_input_grad(spec: ConvSpec, dy: Array, w: Array, *, out: Array, resources: Resources) -> None:
    """Correlate, for each remainder of the strides."""
    how = (resources.max_workspace, now_usable(resources.threads, spec.flops))
    execute(input_grad_plan(spec, dy.strides, w.strides, out.strides, *how), dy, w, None, out)


plan_conv = partial(plan_forward, conv_plan)
plan_input_grad = partial(plan_backward, input_grad_plan)
plan_transpose = partial(plan_forward, input_grad_plan)
keep_conv, keep_backward = partial(keep, conv_plan), partial(keep, input_grad_plan)
