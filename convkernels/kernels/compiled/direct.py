"""The operations as the catalog names them: each plans from shapes and strides, or remembers, and runs on addresses."""

from __future__ import annotations

from ...config import Resources
from ...layout import Array
from ...spec import ConvSpec
from ...window import Ints
from .axes import forward_axes, input_grad_axes
from .correlation import Memory, Problem, execute, plan
from .cover import Lying
from .depthwise import DepthwisePlan, Task, depthwise_plan, run_depthwise, run_depthwise_weights
from .geometry import Array5
from .isa import host
from .parallel import usable
from .reach import Reaches, backward_reaches, depthwise_amounts, forward_reaches
from .weights import run_weights, weight_plan
from .winograd import run_winograd, winograd_plan


def strides(array: Array) -> Ints:
    """An array's strides with three spatial axes."""
    found = array.strides
    return (*found[:2], *(0,) * (5 - len(found)), *found[2:])


def lying(array: Array, channels: int) -> Array5:
    """How an array lies, and its groups of so many channels."""
    return Array5(channels * array.strides[1], *strides(array))


def sizes(spec: ConvSpec, ins: int, outs: int) -> Problem:
    """The sizes of a correlation from so many channels of a group to so many."""
    taps = (1,) * (3 - spec.window.rank) + spec.window.kernel_size
    return Problem(spec.batch, spec.groups, ins, outs, taps, spec.compute_dtype.itemsize)


def forward(spec: ConvSpec, x: Array, w: Array, out: Array) -> tuple[Problem, Memory]:
    """A convolution as a correlation."""
    ins, outs = spec.group_in, spec.group_out
    return sizes(spec, ins, outs), Memory(lying(x, ins), strides(w), lying(out, outs), outs * w.strides[0])


def backward(spec: ConvSpec, dy: Array, w: Array, out: Array) -> tuple[Problem, Memory]:
    """An input gradient as a correlation: channels are exchanged."""
    ins, outs = spec.group_in, spec.group_out
    first, second, *rest = strides(w)
    memory = Memory(lying(dy, outs), (second, first, *rest), lying(out, ins), outs * w.strides[0])
    return sizes(spec, outs, ins), memory


def conv(spec: ConvSpec, x: Array, w: Array, b: Array | None, *, out: Array, resources: Resources) -> None:
    """Correlate."""
    problem, memory = forward(spec, x, w, out)
    how = (resources.max_workspace, usable(resources.threads, spec.flops), host())
    execute(plan(problem, (forward_axes(spec),), memory, *how), x.ctypes.data, w.ctypes.data, b, out.ctypes.data)


def conv_input_grad(spec: ConvSpec, dy: Array, w: Array, *, out: Array, resources: Resources) -> None:
    """Correlate, for each remainder of the stride."""
    problem, memory = backward(spec, dy, w, out)
    how = (resources.max_workspace, usable(resources.threads, spec.flops), host())
    execute(plan(problem, input_grad_axes(spec), memory, *how), dy.ctypes.data, w.ctypes.data, None, out.ctypes.data)


def conv_weight_grad(spec: ConvSpec, x: Array, dy: Array, *, out: Array, resources: Resources) -> None:
    """Sum over images and pixels."""
    if not spec.batch:
        out[...] = 0
        return
    ins, outs = spec.group_in, spec.group_out
    group = outs * out.strides[0]
    dilation = (1,) * (3 - spec.window.rank) + spec.window.dilation
    how = (resources.max_workspace, usable(resources.threads, spec.flops), host())
    what = weight_plan(
        *(sizes(spec, ins, outs), forward_axes(spec), dilation, lying(x, ins), lying(dy, outs)),
        *((group, *strides(out)), *how),
    )
    run_weights(what, x.ctypes.data, dy.ctypes.data, out.ctypes.data, group)


def winograd(spec: ConvSpec, x: Array, w: Array, b: Array | None, *, out: Array, resources: Resources) -> None:
    """Correlate by squares."""
    problem, memory = forward(spec, x, w, out)
    how = (resources.max_workspace, usable(resources.threads, spec.flops), host())
    what = winograd_plan(problem, forward_axes(spec), memory, *how)
    run_winograd(what, x.ctypes.data, w.ctypes.data, b, out.ctypes.data)


def winograd_input_grad(spec: ConvSpec, dy: Array, w: Array, *, out: Array, resources: Resources) -> None:
    """Correlate by squares."""
    problem, memory = backward(spec, dy, w, out)
    how = (resources.max_workspace, usable(resources.threads, spec.flops), host())
    what = winograd_plan(problem, input_grad_axes(spec)[0], memory, *how)
    run_winograd(what, dy.ctypes.data, w.ctypes.data, None, out.ctypes.data)


def depthwise(spec: ConvSpec, x: Array, w: Array, b: Array | None, *, out: Array, resources: Resources) -> None:
    """Correlate each channel by itself."""
    what = depthwise_of(spec, forward_reaches(spec), x, out, w, resources)
    run_depthwise(what, x.ctypes.data, w.ctypes.data, b, out.ctypes.data)


def depthwise_input_grad(spec: ConvSpec, dy: Array, w: Array, *, out: Array, resources: Resources) -> None:
    """Correlate, with the cells that each output took."""
    what = depthwise_of(spec, backward_reaches(spec), dy, out, w, resources)
    run_depthwise(what, dy.ctypes.data, w.ctypes.data, None, out.ctypes.data)


def depthwise_weight_grad(spec: ConvSpec, x: Array, dy: Array, *, out: Array, resources: Resources) -> None:
    """Sum over images and pixels for each channel by itself."""
    what = depthwise_of(spec, forward_reaches(spec), x, dy, out, resources, weights=True)
    run_depthwise_weights(what, x.ctypes.data, dy.ctypes.data, out.ctypes.data)


def depthwise_of(
    spec: ConvSpec, reaches: Reaches, x: Array, y: Array, w: Array, resources: Resources, *, weights: bool = False
) -> DepthwisePlan:
    """Plan a depthwise operation."""
    threads = usable(resources.threads, spec.flops)
    chunk, amounts = depthwise_amounts(spec, resources.max_workspace, threads)
    taps = (1,) * (3 - spec.window.rank) + spec.window.kernel_size
    task = Task(weights, spec.batch, spec.groups, spec.group_out, taps, spec.compute_dtype.itemsize)
    first, _, *rest = strides(w)
    lying_x, lying_y = (Lying(*lying(array, 1)[1:], array.shape[1] // spec.groups) for array in (x, y))
    how = (chunk, amounts.threads(threads, resources.max_workspace), host())
    return depthwise_plan(task, reaches, lying_x, lying_y, (first, *rest), *how)
