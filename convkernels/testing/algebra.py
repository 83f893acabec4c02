"""Checks by algebra: what holds of an operation whatever its data, and needs no second opinion to be tested.

A convolution is linear in each of its arrays, moves with its input, falls apart into its groups, and its gradients are
its adjoints; so most of these are exact in whole numbers.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from ..layout import Array
from ..norm_spec import LocalNormSpec, NormSpec
from ..operation import Implementation
from ..spec import ConvSpec, ConvTransposeSpec
from ..window import Window
from . import strategies
from .checks import drawn
from .harness import for_all
from .numeric import assert_same
from .problems import INPUTS, Problem, run

Arrays = dict[str, Array | None]


def unbiased(problem: Problem) -> Problem:
    """The same problem without a bias."""
    spec = problem.spec
    assert isinstance(spec, ConvSpec | ConvTransposeSpec)
    return replace(problem, spec=replace(spec, bias=False)).given({**problem.arrays, "b": None})


def check_is_linear_in_x(implementation: Implementation) -> None:
    """f(x + 2 x') = f(x) + 2 f(x'), of the first array; a bias comes once."""
    _check_linear(implementation, 0, "is_linear_in_x")


def check_is_linear_in_w(implementation: Implementation) -> None:
    """f(w + 2 w') = f(w) + 2 f(w'), of the second array; a bias comes once."""
    _check_linear(implementation, 1, "is_linear_in_w")


def _check_linear(implementation: Implementation, place: int, check: str) -> None:
    def body(problem: Problem) -> None:
        role = INPUTS[problem.operation][place]
        one, without = problem.arrays[role], unbiased(problem)
        assert one is not None
        other = problem.draw(role, one.shape, problem.seed + 17)
        parts = [run(implementation, without.given({role: part}))["out"] for part in (one, other)]
        whole = run(implementation, problem.given({role: one + 2 * other}))["out"]
        expected = parts[0] + 2 * parts[1]
        bias = problem.arrays.get("b")
        if bias is not None:
            expected = expected + bias.reshape(1, -1, *[1] * (expected.ndim - 2))
        assert_same(whole, expected)

    for_all(implementation, drawn(implementation), body, check)


def check_commutes_with_shifts(implementation: Implementation) -> None:
    """Zeros in front of the input move the output, by a cell for each stride of them; transposed, the other way."""

    def body(problem: Problem) -> None:
        spec, x = problem.spec, problem.arrays["x"]
        assert isinstance(spec, ConvSpec | ConvTransposeSpec)
        assert x is not None
        window = spec.window
        if isinstance(spec, ConvSpec) and (spec.padding_mode != "zeros" or min(lo for lo, _ in window.padding) < 0):
            return
        for axis in range(2, x.ndim):
            step = window.stride[axis - 2]
            zeros, moved = (step, 1) if isinstance(spec, ConvSpec) else (1, step)
            before = list(x.shape)
            before[axis] = zeros
            longer = np.concatenate([np.zeros(before, x.dtype), x], axis)
            wider = problem_of_size(problem, axis - 2, longer.shape[axis])
            if implementation.supports(wider.spec) is not None:
                continue
            got = run(implementation, wider, {**problem.arrays, "x": longer})["out"]
            seen = [slice(None)] * x.ndim
            expected = problem.expected["out"]
            seen[axis] = slice(moved, moved + expected.shape[axis])
            assert_same(got[tuple(seen)], expected, name=f"out for zeros in front of spatial axis {axis - 2}")

    for_all(implementation, drawn(implementation), body, "commutes_with_shifts")


def problem_of_size(problem: Problem, axis: int, size: int) -> Problem:
    """The same problem for another length of a spatial axis of x."""
    spec = problem.spec
    x_shape = (*spec.x_shape[: 2 + axis], size, *spec.x_shape[3 + axis :])
    if isinstance(spec, ConvTransposeSpec):
        window = spec.window
        resized: Any = ConvTransposeSpec.make(
            x_shape,
            spec.w_shape,
            spec.dtype,
            bias=spec.bias,
            stride=window.stride,
            padding=spec.padding,
            output_padding=spec.output_padding,
            dilation=window.dilation,
            groups=spec.groups,
        )
    else:
        assert isinstance(spec, ConvSpec)
        window = replace(spec.window, in_size=x_shape[2:])
        resized = replace(spec, window=window)
    return replace(problem, spec=resized)


def check_groups_equal_separate_convolutions(implementation: Implementation) -> None:
    """Each group is a convolution of its own."""

    def body(problem: Problem) -> None:
        spec = problem.spec
        assert isinstance(spec, ConvSpec | ConvTransposeSpec)
        if spec.groups == 1:
            return
        if isinstance(spec, ConvSpec):
            single: Any = replace(spec, groups=1, in_channels=spec.group_in, out_channels=spec.group_out)
        else:
            inner = spec.convolution
            single = replace(
                spec, convolution=replace(inner, groups=1, in_channels=inner.group_in, out_channels=inner.group_out)
            )
        alone = replace(problem, spec=single)
        whole = run(implementation, problem)["out"]
        for group in range(spec.groups):
            arrays = {role: part_of(problem, role, array, group) for role, array in problem.arrays.items()}
            one = run(implementation, alone, arrays)["out"]
            expected = part_of(problem, problem.out_role, whole, group)
            assert expected is not None
            assert_same(expected, one, name=f"out of group {group}")

    for_all(implementation, drawn(implementation), body, "groups_equal_separate_convolutions")


def part_of(problem: Problem, role: str, array: Array | None, group: int) -> Array | None:
    """What of an array belongs to a group: of w and b the first axis, of the others the second."""
    if array is None:
        return None
    axis = 0 if role in ("w", "b") else 1
    size = array.shape[axis] // problem.spec.groups  # type: ignore[union-attr]  # convolutions have them
    place = (slice(None),) * axis + (slice(group * size, (group + 1) * size),)
    return array[place]


def check_dilation_equals_zero_stuffed_weight(implementation: Implementation) -> None:
    """A dilated filter is a wider one with zeros between its taps; the gradient of w is at its taps."""

    def body(problem: Problem) -> None:
        spec = problem.spec
        assert isinstance(spec, ConvSpec)
        window = spec.window
        if all(step == 1 for step in window.dilation):
            return
        dense = Window(
            window.in_size, window.extent, window.stride, window.padding, (1,) * window.rank, window.ceil_mode
        )
        stuffed = replace(problem, spec=replace(spec, window=dense))
        taps = (slice(None), slice(None), *(slice(None, None, step) for step in window.dilation))
        arrays = dict(problem.arrays)
        w = arrays.get("w")
        if w is not None:
            holey = np.zeros((*w.shape[:2], *window.extent), w.dtype)
            holey[taps] = w
            arrays["w"] = holey
        wide = run(implementation, stuffed, arrays)["out"]
        expected = wide[taps] if problem.out_role == "w" else wide
        assert_same(run(implementation, problem)["out"], expected)

    for_all(implementation, drawn(implementation), body, "dilation_equals_zero_stuffed_weight")


def forward_of(problem: Problem) -> Problem:
    """The convolution, without a bias, whose adjoint a gradient is, or whose transpose a transposed convolution."""
    spec = problem.spec.convolution if isinstance(problem.spec, ConvTransposeSpec) else problem.spec
    assert isinstance(spec, ConvSpec)
    return replace(problem, operation="conv", spec=replace(spec, bias=False))


def check_input_grad_is_adjoint(implementation: Implementation) -> None:
    """<conv(t, w), dy> = <t, dx> for every t, in whole numbers; the transposed convolution's output takes dx's part."""

    def body(problem: Problem) -> None:
        role = "x" if isinstance(problem.spec, ConvTransposeSpec) else "dy"
        given, w, bias = problem.arrays[role], problem.arrays["w"], problem.arrays.get("b")
        assert given is not None
        forward = forward_of(problem)
        shape = forward.shape("x")
        assert shape is not None
        dx = run(implementation, problem)["out"]
        if bias is not None:
            dx = dx - bias.reshape(1, -1, *[1] * (dx.ndim - 2))
        test = strategies.integers(shape, given.dtype, problem.seed + 11)
        through = forward.defined({"x": test, "w": w}, given.dtype)["out"]
        left, right = (through * given).sum(), (test * dx).sum()
        assert left == right, f"<conv(t, w), {role}> is {left}, but <t, out> is {right}"

    for_all(implementation, drawn(implementation, dtypes=("float64",)), body, "input_grad_is_adjoint")


def check_weight_grad_is_adjoint(implementation: Implementation) -> None:
    """<conv(x, t), dy> = <t, dw> for every t, in whole numbers."""

    def body(problem: Problem) -> None:
        x, dy, forward = problem.arrays["x"], problem.arrays["dy"], forward_of(problem)
        assert dy is not None
        dw = run(implementation, problem)["out"]
        test = strategies.integers(dw.shape, dw.dtype, problem.seed + 11)
        through = forward.defined({"x": x, "w": test}, dw.dtype)["out"]
        left, right = (through * dy).sum(), (test * dw).sum()
        assert left == right, f"<conv(x, t), dy> is {left}, but <t, out> is {right}"

    for_all(implementation, drawn(implementation, dtypes=("float64",)), body, "weight_grad_is_adjoint")


def check_gradient_matches_differences(implementation: Implementation) -> None:
    """The gradient's product with a direction is the definition's own slope along it."""

    def body(problem: Problem) -> None:
        spec, x, dy = problem.spec, problem.arrays["x"], problem.arrays["dy"]
        assert x is not None
        assert dy is not None
        forward = replace(problem, operation=problem.operation.removesuffix("_grad"))
        direction = strategies.reals(x.shape, x.dtype, problem.seed + 11)
        step = 1e-6 if isinstance(spec, NormSpec | LocalNormSpec) else 2.0**-10

        def value(distance: float) -> float:
            arrays = {**problem.arrays, "x": x + distance * direction, "beta": None}
            return float((forward.defined(arrays)["out"] * dy).sum())

        slope = (value(step) - value(-step)) / (2 * step)
        product = float((run(implementation, problem)["out"] * direction).sum())
        scale = 1 + float(np.abs(dy).sum()) * (1 + (1 / math.sqrt(spec.eps) if isinstance(spec, NormSpec) else 0))
        assert abs(slope - product) <= 1e-4 * scale, f"the slope is {slope}, but <direction, out> is {product}"

    pools = implementation.operation == "pool_grad"
    choices = {"reducers": ("max", "min", "mean", "sum")} if pools else {}
    kinds = ("distinct",) if pools else ("reals",)
    for_all(
        implementation,
        drawn(implementation, kinds, dtypes=("float64",), **choices),
        body,
        "gradient_matches_differences",
    )
