"""Problems as code to paste: public calls on literal arrays."""

from __future__ import annotations

from typing import Any

from ..layout import Array
from ..norm_spec import LocalNormSpec, NormSpec
from ..operation import Implementation, find_operation
from ..pool_spec import PoolSpec
from ..spec import ConvTransposeSpec
from .problems import INPUTS, Problem

CALLS = {
    "conv": "ck.conv(x, w, b, {})",
    "conv_input_grad": "ck.conv_input_grad(dy, w, {})",
    "conv_weight_grad": "ck.conv_weight_grad(x, dy, {})",
    "conv_transpose": "ck.conv_transpose(x, w, b, {})",
    "pool": "ck.pool(x, {})",
    "pool_grad": "ck.pool_vjp(x, {})[1](dy)",
    "batch_norm": "ck.batch_norm(x, gamma, beta, mean, var, {})",
    "batch_norm_grad": "ck.batch_norm_vjp(x, gamma, gamma, mean, var, {})[1](dy)",
    "batch_norm_train": "ck.batch_norm_train(x, gamma, beta, {})",
    "batch_norm_train_grad": "ck.batch_norm_train_vjp(x, gamma, gamma, {})[3](dy)",
    **{f"{kind}_norm": f"ck.{kind}_norm(x, gamma, beta, {{}})" for kind in ("group", "instance", "layer")},
    **{
        f"{kind}_norm_grad": f"ck.{kind}_norm_vjp(x, gamma, gamma, {{}})[1](dy)"
        for kind in ("group", "instance", "layer")
    },
    "rms_norm": "ck.rms_norm(x, gamma, {})",
    "rms_norm_grad": "ck.rms_norm_vjp(x, gamma, {})[1](dy)",
    "local_response_norm": "ck.local_response_norm(x, {})",
    "local_response_norm_grad": "ck.local_response_norm_vjp(x, {})[1](dy)",
}
"""The public call that reaches an operation; of beta, a gradient only knows whether there is one."""

LONGEST = 200
"""Cells of an array that are still written out."""


def literal(array: Array) -> str:
    """An array as an expression.

    Examples
    --------
    >>> import numpy as np
    >>> literal(np.array([[1, 2]], np.float32))
    "np.array([[1.0, 2.0]], 'float32')"
    """
    if not array.size:
        return f"np.zeros({array.shape}, {array.dtype.name!r})"
    values = repr(array.tolist()).replace("nan", "np.nan").replace("inf", "np.inf")
    return f"np.array({values}, {array.dtype.name!r})"


def as_given(problem: Problem, role: str) -> Array | None:
    """An array as a caller passes it: in its layout, coefficients without axes of one."""
    array = problem.arrays[role]
    if array is None:
        return None
    layout, spec = problem.memory(role), problem.spec
    if layout is not None:
        return layout.restore(array.reshape(spec.x_shape) if isinstance(spec, NormSpec) else array)
    if role in ("mean", "var") or (isinstance(spec, NormSpec) and 1 in spec.axes) or array.ndim == 1:
        return array.reshape(-1)
    if isinstance(spec, NormSpec) and spec.kind in ("layer", "rms"):
        return problem.layout.restore(array).squeeze(caller_axes(problem, inverted=True))
    return array.reshape(-1)


def caller_axes(problem: Problem, *, inverted: bool = False) -> tuple[int, ...]:
    """The caller's axes that a layer norm is over, or those that it is not."""
    assert isinstance(problem.spec, NormSpec)
    chosen = [axis in problem.spec.axes for axis in problem.layout.inverse]
    return tuple(place for place, among in enumerate(chosen) if among != inverted)


def options(problem: Problem) -> dict[str, Any]:
    """The keywords that pose a spec's problem to the public call."""
    spec, layout = problem.spec, {"layout": problem.layout.axes}
    if isinstance(spec, NormSpec):
        given: dict[str, Any] = {"eps": spec.eps, **layout}
        if spec.kind == "group":
            given["groups"] = spec.groups
        if spec.kind in ("layer", "rms"):
            given["axes"] = caller_axes(problem)
        return given
    if isinstance(spec, LocalNormSpec):
        return {"size": spec.size, "alpha": spec.alpha, "beta": spec.beta, "bias": spec.bias, **layout}
    window = spec.window
    plain: dict[str, Any] = {"stride": window.stride, "padding": window.padding, "dilation": window.dilation}
    if isinstance(spec, PoolSpec):
        return {
            "window": window.kernel_size,
            "reducer": spec.reducer.name,
            **plain,
            "ceil_mode": window.ceil_mode,
            "count_include_pad": spec.count_include_pad,
            "divisor_override": spec.divisor_override,
            "padding_mode": spec.padding_mode,
            **layout,
        }
    plain |= {"groups": spec.groups, **layout, "weight_layout": problem.weight_layout.axes}
    if isinstance(spec, ConvTransposeSpec):
        return {**plain, "padding": spec.padding, "output_padding": spec.output_padding}
    extra = {
        "conv_input_grad": {"x_shape": problem.layout.shape(spec.x_shape)},
        "conv_weight_grad": {"kernel_size": window.kernel_size},
    }
    return {**extra.get(problem.operation, {}), **plain, "padding_mode": spec.padding_mode}


def call(problem: Problem, strategy: str) -> str:
    """The public call that poses the problem, as code."""
    spec, name = problem.spec, problem.operation
    if isinstance(spec, NormSpec) and name.startswith("group_norm"):
        name = name.replace("group", spec.kind)
    keywords = {**options(problem), "strategy": strategy}
    return CALLS[name].format(", ".join(f"{key}={value!r}" for key, value in keywords.items()))


def snippet(problem: Problem, implementation: Implementation) -> str:
    """Code that shows what an implementation and the definition make of a problem."""
    lines = ["import numpy as np", "import convkernels as ck"]
    for role in INPUTS[problem.operation]:
        array = as_given(problem, role)
        if array is not None and array.size > LONGEST:
            return f"    # too large to write out: {problem!r}"
        if role != "y":
            lines.append(f"{role} = {None if array is None else literal(array)}")
    name, forward = implementation.name, problem.operation.removesuffix("_grad")
    if name not in find_operation(problem.operation).names():
        lines.append(f"ck.register({problem.operation!r}, {name!r}, ...)  # the one that was checked")
    if "vjp" in CALLS[problem.operation] and name not in find_operation(forward).names():
        # A gradient takes the strategy that its forward is named: it must have a forward of that name.
        lines.append("from convkernels.operation import find_operation")
        definition = f"find_operation({forward!r}).find('naive').run"
        lines.append(f"ck.register({forward!r}, {name!r}, {definition}, padding_modes=True)")
    lines += [f"print({call(problem, name)})" for name in (implementation.name, "naive")]
    return "\n".join(f"    {line}" for line in lines)
