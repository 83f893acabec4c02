"""What the benchmarks call: a public function on the data of a problem string, in a layout, by a strategy.

What the library declines at some commit, or with some packages missing, is skipped for the reason that `explain` gives.
"""

from functools import partial
from statistics import median
from time import perf_counter

import numpy as np

import convkernels as ck
from convkernels.layout import Layout

from .problems import BOTH, GRADIENTS


def prepared(problem, direction, strategy, order, dtype, *, warm=True):
    """The call that a benchmark makes; if `warm` its first run is done."""
    operation, spec = ck.parse_problem(problem)
    if direction not in (GRADIENTS if operation == "conv" else BOTH):
        raise NotImplementedError(f"{operation} has no {direction}")
    make = {"conv": _convolution, "conv_transpose": _transposed, "pool": _pool}.get(operation, _norm)
    run = make(operation, spec, direction, order, dtype, {"strategy": strategy, "threads": 1})
    if warm:
        run()  # compiles, and finds what later runs remember
    return run


def seconds(run, count):
    """The median of so many runs."""
    taken = []
    for _ in range(count):
        start = perf_counter()
        run()
        taken.append(perf_counter() - start)
    return median(taken)


def skip_what_is_declined(name, *arguments, **options):
    """Raise what tells asv to skip."""
    try:
        with np.errstate(all="ignore"):  # explaining computes nothing, so that statistics are whatever lay in memory
            choices = ck.explain(name, *arguments, **options).choices
    except ck.UnknownStrategyError as unknown:  # of a commit that does not have it yet
        raise NotImplementedError(str(unknown)) from None
    for choice in choices:
        if choice.error:
            raise NotImplementedError(choice.error)


def axes(order, rank, leading="NC"):
    """The layout of data, or of weights where OI or IO leads, that has the channels first or last."""
    spatial = "DHW"[3 - rank :]
    if order == "channels_first":
        return leading + spatial
    return f"N{spatial}C" if leading == "NC" else spatial + leading[::-1]


def drawn(shape, dtype, layout=None, seed=0):
    """Data of a canonical shape, contiguous in the layout; the same numbers in each type."""
    array = np.random.default_rng(seed).standard_normal(shape, np.float32).astype(dtype)
    return array if layout is None else np.ascontiguousarray(layout.restore(array))


def _convolution(operation, spec, direction, order, dtype, execution):
    window, rank = spec.window, spec.window.rank
    data, weights = Layout(axes(order, rank)), Layout(axes(order, rank, "OI"), "OI")
    x, dy = drawn(spec.x_shape, dtype, data), drawn(spec.y_shape, dtype, data, seed=1)
    w = drawn(spec.w_shape, dtype, weights)
    name, arguments, options = {
        "forward": ("conv", (x, w), {}),
        "input_grad": ("conv_input_grad", (dy, w), {"x_shape": x.shape}),
        "weight_grad": ("conv_weight_grad", (x, dy), {"kernel_size": window.kernel_size}),
    }[direction]
    options |= {"stride": window.stride, "padding": window.padding, "dilation": window.dilation}
    options |= {"groups": spec.groups, "layout": data.axes} | execution
    skip_what_is_declined(name, *arguments, **options)
    return partial(getattr(ck, name), *arguments, **options)


def _transposed(operation, spec, direction, order, dtype, execution):
    window, rank = spec.window, spec.window.rank
    data, weights = Layout(axes(order, rank)), Layout(axes(order, rank, "IO"), "IO")
    options = {"stride": window.stride, "padding": spec.padding, "output_padding": spec.output_padding}
    arguments = drawn(spec.x_shape, dtype, data), drawn(spec.w_shape, dtype, weights)
    return _one_of("conv_transpose", arguments, options | execution, direction, spec, data)


def _pool(operation, spec, direction, order, dtype, execution):
    data = Layout(axes(order, spec.window.rank))
    name = {"max": "max_pool", "mean": "avg_pool"}[spec.reducer.name]
    options = {"stride": spec.window.stride, "padding": spec.window.padding}
    arguments = drawn(spec.x_shape, dtype, data), spec.window.kernel_size
    return _one_of(name, arguments, options | execution, direction, spec, data)


def _norm(operation, spec, direction, order, dtype, execution):
    data = Layout(axes(order, len(spec.x_shape) - 2))
    channels = drawn(spec.x_shape[1:2], dtype)
    arguments, options = [drawn(spec.x_shape, dtype, data)], {}
    if operation == "local_response_norm":
        name, arguments = operation, [*arguments, spec.size]
    elif spec.kind == "batch":
        name, arguments = operation, [*arguments, channels, channels]
        arguments += [channels, channels**2] if operation == "batch_norm" else []
    else:
        name, arguments = f"{spec.kind}_norm", [*arguments, channels, channels]
        arguments += [spec.groups] if spec.kind == "group" else []
        options |= {"axes": tuple(data.permutation[axis] for axis in spec.axes)} if spec.kind == "layer" else {}
    return _one_of(name, arguments, options | execution, direction, spec, data)


def _one_of(name, arguments, options, direction, spec, data):
    """A function, or the vjp that it returns."""
    options = options | {"layout": data.axes}
    skip_what_is_declined(f"{name}_vjp", *arguments, **options)
    if direction == "forward":
        return partial(getattr(ck, name), *arguments, **options)
    *_, vjp = getattr(ck, f"{name}_vjp")(*arguments, **options)
    return partial(vjp, drawn(spec.y_shape, arguments[0].dtype, data, seed=1))
