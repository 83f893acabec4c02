"""Convolution and its gradients by tiles."""

from __future__ import annotations

from ...config import Resources
from ...layout import Array
from ...spec import ConvSpec
from ...window import Ints
from .axes import Axes, forward_axes, input_grad_axes
from .correlation import Memory, Problem, execute, plan
from .geometry import Array5
from .isa import host
from .parallel import usable
from .weights import run_weights, weight_plan


def strides(array: Array) -> Ints:
    """An array's strides with three spatial axes."""
    found = array.strides
    return (*found[:2], *(0,) * (5 - len(found)), *found[2:])


def conv(spec: ConvSpec, x: Array, w: Array, b: Array | None, *, out: Array, resources: Resources) -> None:
    """Correlate."""
    ins, outs = spec.group_in, spec.group_out
    correlated(spec, (forward_axes(spec),), x, strides(w), w, b, out, ins, outs, resources)


def conv_input_grad(spec: ConvSpec, dy: Array, w: Array, *, out: Array, resources: Resources) -> None:
    """Correlate with channels exchanged, for each remainder of the stride."""
    ins, outs = spec.group_out, spec.group_in
    first, second, *rest = strides(w)
    correlated(spec, input_grad_axes(spec), dy, (second, first, *rest), w, None, out, ins, outs, resources)


def conv_weight_grad(spec: ConvSpec, x: Array, dy: Array, *, out: Array, resources: Resources) -> None:
    """Sum over images and pixels."""
    if not spec.batch:
        out[...] = 0
        return
    problem = problem_of(spec, spec.group_in, spec.group_out)
    group = spec.group_out * out.strides[0]
    dilation = (1,) * (3 - spec.window.rank) + spec.window.dilation
    threads = usable(resources.threads, spec.flops)
    found = weight_plan(
        *(problem, forward_axes(spec), dilation, lying(x, spec.group_in), lying(dy, spec.group_out)),
        *((group, *strides(out)), resources.max_workspace, threads, host()),
    )
    run_weights(found, x.ctypes.data, dy.ctypes.data, out.ctypes.data, group)


def problem_of(spec: ConvSpec, ins: int, outs: int) -> Problem:
    """The sizes of a correlation from so many channels of a group to so many."""
    taps = (1,) * (3 - spec.window.rank) + spec.window.kernel_size
    return Problem(spec.batch, spec.groups, ins, outs, taps, spec.compute_dtype.itemsize)


def lying(array: Array, channels: int) -> Array5:
    """How an array lies, and its groups of so many channels."""
    return Array5(channels * array.strides[1], *strides(array))


def correlated(
    spec: ConvSpec,
    every: tuple[Axes, ...],
    x: Array,
    w_strides: Ints,
    w: Array,
    b: Array | None,
    out: Array,
    ins: int,
    outs: int,
    resources: Resources,
) -> None:
    """Plan, or remember, and run."""
    memory = Memory(lying(x, ins), w_strides, lying(out, outs), spec.group_out * w.strides[0])
    threads = usable(resources.threads, spec.flops)
    found = plan(problem_of(spec, ins, outs), every, memory, resources.max_workspace, threads, host())
    execute(found, x.ctypes.data, w.ctypes.data, b, out.ctypes.data)
