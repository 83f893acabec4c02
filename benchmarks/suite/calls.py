"""What the benchmarks call: a public function on the data of a problem string, in a layout, by a strategy.

Parameters are literal, so that a result always means the same problem; what the library declines at some commit, or
with some packages missing, is skipped for the reason that `explain` gives.
"""

from functools import partial

import numpy as np

import convkernels as ck
from convkernels.layout import Layout

ORDERS = ["channels_first", "channels_last"]


def axes(order, rank, leading="NC"):
    """The layout of data, or of weights where OI or IO leads, that has the channels first or last."""
    first, second = leading
    spatial = "DHW"[3 - rank :]
    if order == "channels_first":
        return first + second + spatial
    return f"N{spatial}C" if leading == "NC" else spatial + second + first


def drawn(shape, dtype, layout=None):
    """Data of a canonical shape, contiguous in the layout; the same numbers in each type."""
    array = np.random.default_rng(0).standard_normal(shape, np.float32).astype(dtype)
    return array if layout is None else np.ascontiguousarray(layout.restore(array))


def skip_what_is_declined(name, *arguments, **options):
    """Raise what tells asv to skip."""
    with np.errstate(all="ignore"):  # explaining computes nothing, so that statistics are whatever lay in memory
        explained = ck.explain(name, *arguments, **options)
    for choice in explained.choices:
        if choice.error:
            raise NotImplementedError(choice.error)


def convolution(problem, direction, strategy, order, dtype, *, warm=True):
    """One of a convolution's three operations, ready to run; if `warm` its first run is done."""
    spec = ck.parse_problem(problem)[1]
    window, rank = spec.window, spec.window.rank
    data, weights = Layout(axes(order, rank)), Layout(axes(order, rank, "OI"), "OI")
    x, dy = (drawn(shape, dtype, data) for shape in (spec.x_shape, spec.y_shape))
    w = drawn(spec.w_shape, dtype, weights)
    options = {"stride": window.stride, "padding": window.padding, "dilation": window.dilation}
    options |= {"groups": spec.groups, "layout": data.axes, "strategy": strategy, "threads": 1}
    name, arguments, more = {
        "forward": ("conv", (x, w), {}),
        "input_grad": ("conv_input_grad", (dy, w), {"x_shape": x.shape}),
        "weight_grad": ("conv_weight_grad", (x, dy), {"kernel_size": window.kernel_size}),
    }[direction]
    options |= more
    skip_what_is_declined(name, *arguments, **options)
    run = partial(getattr(ck, name), *arguments, **options)
    if warm:
        run()  # compiles, and finds what later runs remember
    return run


def transposed(problem, order, dtype):
    """A transposed convolution, forward and backward."""
    spec = ck.parse_problem(problem)[1]
    window, rank = spec.window, spec.window.rank
    data, weights = Layout(axes(order, rank)), Layout(axes(order, rank, "IO"), "IO")
    options = {"stride": window.stride, "padding": spec.padding, "output_padding": spec.output_padding}
    arguments = drawn(spec.x_shape, dtype, data), drawn(spec.w_shape, dtype, weights)
    return _both("conv_transpose", arguments, options | {"groups": spec.groups}, drawn(spec.y_shape, dtype, data), data)


def pool(problem, order, dtype):
    """A max or average pool, forward and backward."""
    spec = ck.parse_problem(problem)[1]
    data = Layout(axes(order, spec.window.rank))
    name = {"max": "max_pool", "mean": "avg_pool"}[spec.reducer.name]
    options = {"stride": spec.window.stride, "padding": spec.window.padding}
    arguments = drawn(spec.x_shape, dtype, data), spec.window.kernel_size
    return _both(name, arguments, options, drawn(spec.y_shape, dtype, data), data)


def norm(problem, order, dtype):
    """A batch, group or layer norm in training, forward and backward."""
    spec = ck.parse_problem(problem)[1]
    data = Layout(axes(order, len(spec.x_shape) - 2))
    gamma, beta = (drawn(spec.x_shape[1:2], dtype) for _ in range(2))
    arguments = [drawn(spec.x_shape, dtype, data), gamma, beta, *([spec.groups] if spec.kind == "group" else [])]
    options = {"axes": tuple(data.permutation[axis] for axis in spec.axes)} if spec.kind == "layer" else {}
    name = "batch_norm_train" if spec.kind == "batch" else f"{spec.kind}_norm"
    return _both(name, arguments, options, drawn(spec.y_shape, dtype, data), data)


def _both(name, arguments, options, dy, data):
    options = options | {"layout": data.axes, "threads": 1}
    skip_what_is_declined(f"{name}_vjp", *arguments, **options)
    *_, vjp = getattr(ck, f"{name}_vjp")(*arguments, **options)
    vjp(dy)
    return {"forward": partial(getattr(ck, name), *arguments, **options), "backward": partial(vjp, dy)}
