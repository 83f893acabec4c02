"""The strategy `direct`: a convolution is a correlation, its input gradient one for each remainder of the strides."""

from __future__ import annotations

from functools import lru_cache, partial

from ...spec import ConvSpec
from ...window import Ints
from .axes import Axes, forward_axes, input_grad_axes
from .choice import choose
from .conv_plans import keep, plan_backward, plan_forward, run_backward, run_forward
from .correlation import plan
from .dots import dots_plan
from .isa import Isa, host
from .needs import workspace, workspace_input_grad
from .one_tap import one_tap_plan
from .operands import Memory, Problem, backward, forward, without_gaps
from .scattered import scattered_forward_plan, scattered_plan
from .ways import Walk
from .weighted import Weighted, copied, in_parts


@lru_cache(maxsize=512)
def conv_plan(spec: ConvSpec, x: Ints, w: Ints, out: Ints, limit: int, threads: int, *, kept: bool = False) -> Weighted:
    """The plan of a convolution."""
    return in_parts(whole_conv_plan, workspace, spec, x, w, out, limit, threads, kept=kept)


def whole_conv_plan(spec: ConvSpec, x: Ints, w: Ints, out: Ints, limit: int, threads: int, *, kept: bool) -> Weighted:
    """The plan of one whose weights fit the limit."""
    (problem, memory), axes = forward(spec, x, w, out), forward_axes(spec)
    given = (memory, limit, threads, host())
    dots = dots_plan(problem, axes, memory, threads, host())
    if found := dots or one_tap_plan(problem, spec, *given, kept=kept):
        return found
    return scattered_forward_plan(problem, axes, *given) or correlations(problem, (axes,), *given, kept=kept)


@lru_cache(maxsize=512)
def input_grad_plan(
    spec: ConvSpec, dy: Ints, w: Ints, out: Ints, limit: int, threads: int, *, kept: bool = False
) -> Weighted:
    """The plan of an input gradient."""
    return in_parts(whole_input_grad_plan, workspace_input_grad, spec, dy, w, out, limit, threads, kept=kept)


def whole_input_grad_plan(
    spec: ConvSpec, dy: Ints, w: Ints, out: Ints, limit: int, threads: int, *, kept: bool
) -> Weighted:
    """The plan of one whose weights fit the limit: correlations for the remainders of the strides."""
    problem, memory = backward(spec, dy, w, out)
    given = (memory, limit, threads, host())
    if found := one_tap_plan(problem, spec, *given, kept=kept, backward=True):
        return found
    scattered = scattered_plan(problem, forward_axes(spec), *given, kept=kept)
    return scattered or correlations(problem, input_grad_axes(spec), *given, kept=kept, backward=True)


def correlations(
    problem: Problem,
    every: tuple[Axes, ...],
    memory: Memory,
    limit: int,
    threads: int,
    isa: Isa,
    *,
    kept: bool,
    backward: bool = False,
) -> Weighted:
    """Plan correlations, by weights that are copied first where those without gaps are read as they lie.

    A plan's copy has no gaps, and must add up in the same order.
    """
    dense = without_gaps(problem, memory, backward=backward)
    if dense.w == memory.w or choose(problem, every, dense, isa)[0].along is not Walk.WINDOWS:
        return plan(problem, every, memory, limit, threads, isa, kept=kept)
    return copied(plan(problem, every, dense, limit, threads, isa, kept=kept), problem, memory, dense, isa)


conv = partial(run_forward, conv_plan)
conv_transpose = partial(run_forward, input_grad_plan)
conv_input_grad = partial(run_backward, input_grad_plan)
plan_conv = partial(plan_forward, conv_plan)
plan_input_grad = partial(plan_backward, input_grad_plan)
plan_transpose = partial(plan_forward, input_grad_plan)
keep_conv, keep_backward = (partial(keep, partial(find, kept=True)) for find in (conv_plan, input_grad_plan))
