"""The operations as the catalog names them: each plans from shapes and strides, or remembers, and runs on addresses."""

from __future__ import annotations

from functools import lru_cache

from ...config import Resources
from ...layout import Array
from ...spec import ConvSpec
from ...window import Ints
from .axes import forward_axes, input_grad_axes
from .correlation import Memory, Plan, Problem, execute, plan
from .geometry import Array5
from .isa import host
from .parallel import usable
from .weights import WeightPlan, run_weights, weight_plan
from .winograd import WinogradPlan, run_winograd, winograd_plan


def spread(strides: Ints) -> Ints:
    """An array's strides, with three spatial axes."""
    return (*strides[:2], *(0,) * (5 - len(strides)), *strides[2:])


def lying(strides: Ints, channels: int) -> Array5:
    """How an array lies, and its groups of so many channels."""
    return Array5(channels * strides[1], *spread(strides))


def sizes(spec: ConvSpec, ins: int, outs: int) -> Problem:
    """The sizes of a correlation from so many channels of a group to so many."""
    taps = (1,) * (3 - spec.window.rank) + spec.window.kernel_size
    return Problem(spec.batch, spec.groups, ins, outs, taps, spec.compute_dtype.itemsize)


def forward(spec: ConvSpec, x: Ints, w: Ints, out: Ints) -> tuple[Problem, Memory]:
    """A convolution of arrays with such strides, as a correlation."""
    ins, outs = spec.group_in, spec.group_out
    return sizes(spec, ins, outs), Memory(lying(x, ins), spread(w), lying(out, outs), outs * w[0])


def backward(spec: ConvSpec, dy: Ints, w: Ints, out: Ints) -> tuple[Problem, Memory]:
    """An input gradient as a correlation: channels are exchanged."""
    ins, outs = spec.group_in, spec.group_out
    first, second, *rest = spread(w)
    return sizes(spec, outs, ins), Memory(lying(dy, outs), (second, first, *rest), lying(out, ins), outs * w[0])


@lru_cache(maxsize=512)
def conv_plan(spec: ConvSpec, x: Ints, w: Ints, out: Ints, limit: int, threads: int) -> Plan:
    """The plan of a convolution."""
    problem, memory = forward(spec, x, w, out)
    return plan(problem, (forward_axes(spec),), memory, limit, threads, host())


@lru_cache(maxsize=512)
def input_grad_plan(spec: ConvSpec, dy: Ints, w: Ints, out: Ints, limit: int, threads: int) -> Plan:
    """The plan of an input gradient: a correlation for each remainder of the stride."""
    problem, memory = backward(spec, dy, w, out)
    return plan(problem, input_grad_axes(spec), memory, limit, threads, host())


@lru_cache(maxsize=512)
def weight_grad_plan(spec: ConvSpec, x: Ints, dy: Ints, out: Ints, limit: int, threads: int) -> WeightPlan:
    """The plan of a weight gradient."""
    ins, outs = spec.group_in, spec.group_out
    dilation = (1,) * (3 - spec.window.rank) + spec.window.dilation
    return weight_plan(
        *(sizes(spec, ins, outs), forward_axes(spec), dilation, lying(x, ins), lying(dy, outs)),
        *((outs * out[0], *spread(out)), limit, threads, host()),
    )


@lru_cache(maxsize=512)
def squares_plan(spec: ConvSpec, x: Ints, w: Ints, out: Ints, limit: int, threads: int) -> WinogradPlan:
    """The plan of a convolution by squares."""
    problem, memory = forward(spec, x, w, out)
    return winograd_plan(problem, forward_axes(spec), memory, limit, threads, host())


@lru_cache(maxsize=512)
def squares_grad_plan(spec: ConvSpec, dy: Ints, w: Ints, out: Ints, limit: int, threads: int) -> WinogradPlan:
    """The plan of an input gradient by squares."""
    problem, memory = backward(spec, dy, w, out)
    return winograd_plan(problem, input_grad_axes(spec)[0], memory, limit, threads, host())


def conv(spec: ConvSpec, x: Array, w: Array, b: Array | None, *, out: Array, resources: Resources) -> None:
    """Correlate."""
    how = (resources.max_workspace, usable(resources.threads, spec.flops))
    found = conv_plan(spec, x.strides, w.strides, out.strides, *how)
    execute(found, x.ctypes.data, w.ctypes.data, b, out.ctypes.data)


def conv_input_grad(spec: ConvSpec, dy: Array, w: Array, *, out: Array, resources: Resources) -> None:
    """Correlate, for each remainder of the stride."""
    how = (resources.max_workspace, usable(resources.threads, spec.flops))
    found = input_grad_plan(spec, dy.strides, w.strides, out.strides, *how)
    execute(found, dy.ctypes.data, w.ctypes.data, None, out.ctypes.data)


def conv_weight_grad(spec: ConvSpec, x: Array, dy: Array, *, out: Array, resources: Resources) -> None:
    """Sum over images and pixels."""
    if not spec.batch:
        out[...] = 0
        return
    how = (resources.max_workspace, usable(resources.threads, spec.flops))
    found = weight_grad_plan(spec, x.strides, dy.strides, out.strides, *how)
    run_weights(found, x.ctypes.data, dy.ctypes.data, out.ctypes.data, spec.group_out * out.strides[0])


def winograd(spec: ConvSpec, x: Array, w: Array, b: Array | None, *, out: Array, resources: Resources) -> None:
    """Correlate by squares."""
    how = (resources.max_workspace, usable(resources.threads, spec.flops))
    found = squares_plan(spec, x.strides, w.strides, out.strides, *how)
    run_winograd(found, x.ctypes.data, w.ctypes.data, b, out.ctypes.data)


def winograd_input_grad(spec: ConvSpec, dy: Array, w: Array, *, out: Array, resources: Resources) -> None:
    """Correlate by squares."""
    how = (resources.max_workspace, usable(resources.threads, spec.flops))
    found = squares_grad_plan(spec, dy.strides, w.strides, out.strides, *how)
    run_winograd(found, dy.ctypes.data, w.ctypes.data, None, out.ctypes.data)
