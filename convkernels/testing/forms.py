"""What a function's signature can express, and problems cut down to that."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ..errors import ConvkernelsError
from ..layout import SPATIAL, Layout
from ..norm_spec import LocalNormSpec, NormSpec
from ..pool_spec import PoolSpec
from ..problem import Spec
from ..spec import ConvSpec, ConvTransposeSpec
from .problems import Problem

USUAL: dict[str, Any] = {"stride": 1, "dilation": 1, "padding": (0, 0), "output_padding": 0}
"""What an option is that a signature does not have; but a pool's stride is then its window."""
KEYWORDS = (
    *USUAL,
    *("groups", "ceil_mode", "count_include_pad", "divisor_override", "padding_mode", "layout", "weight_layout"),
    *("x_shape", "kernel_size", "eps", "axes", "size", "alpha", "beta", "bias"),
)
"""The options of this package's own functions."""


@dataclass(frozen=True)
class Form:
    """What a signature can express.

    Parameters
    ----------
    names : frozenset of str
        The options that it has; of others there is only what is usual, such as no padding and one group.
    single : frozenset of str
        Options that are one whole number for all axes.
    symmetric : bool
        Whether padding is the same in front and behind, and never crops.
    half : bool
        Whether padding is at most half the window's taps.
    bias : bool
        Whether there may be one.
    dtypes : tuple of str
        The types of data.
    """

    names: frozenset[str]
    single: frozenset[str] = frozenset()
    symmetric: bool = True
    half: bool = False
    bias: bool = True
    dtypes: tuple[str, ...] = ("float32", "float64")


def native_form(function: Callable[..., Any]) -> Form:
    """What a function expresses: the options it names, as one number where it is annotated as an int.

    Examples
    --------
    >>> def conv(x, w, *, stride: int = 1, padding=0): ...
    >>> form = native_form(conv)
    >>> sorted(form.names), sorted(form.single), form.bias
    (['padding', 'stride'], ['stride'], False)
    """
    everything = frozenset(KEYWORDS)
    try:
        parameters = tuple(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # some built-in functions have none
        return Form(everything, symmetric=False)
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        names = everything
    else:
        names = everything & {one.name for one in parameters}
    single = frozenset(one.name for one in parameters if one.annotation in (int, "int"))
    places = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    many = any(one.kind is one.VAR_POSITIONAL for one in parameters)
    bias = many or len([one for one in places if one.name not in everything]) > 2
    return Form(names, single, "padding" in single, bias=bias)


def fitted(problem: Problem, form: Form) -> Problem | None:
    """The problem as near as a form expresses it; None if that has no right answer."""
    layout, weights = problem.layout, problem.weight_layout
    rank, lead = layout.rank, weights.leading
    if "layout" not in form.names:
        layout = Layout("NC" + SPATIAL[rank])
    elif layout.order == "other" and "weight_layout" not in form.names:
        layout = Layout(f"N{SPATIAL[rank]}C")  # others have no usual weight layout
    if "weight_layout" not in form.names:
        weights = Layout(SPATIAL[rank] + lead[::-1] if layout.order == "channels_last" else lead + SPATIAL[rank], lead)
    try:
        spec = fitted_spec(problem.spec, form)
    except ConvkernelsError:
        return None
    return replace(problem, spec=spec, layout=layout, weight_layout=weights, plain=False)


def fitted_spec(spec: Spec, form: Form) -> Spec:
    """The spec as near as a form expresses it; an error if that has no right answer."""
    if isinstance(spec, NormSpec):
        everything = tuple(range(1, len(spec.x_shape)))
        chosen = spec.kind in ("layer", "rms") and "axes" not in form.names
        return replace(spec, axes=everything) if chosen else spec
    if isinstance(spec, LocalNormSpec):
        return spec
    numbers = fitted_numbers(spec, form)
    mode = "zeros" if isinstance(spec, ConvTransposeSpec) or "padding_mode" not in form.names else spec.padding_mode
    if isinstance(spec, PoolSpec):
        size = spec.window.kernel_size
        return PoolSpec.make(
            (*spec.x_shape[:2], *reached(spec, numbers)),
            spec.dtype,
            kernel_size=size[0] if "window" in form.single else size,
            reducer=spec.reducer,
            padding_mode=mode,
            ceil_mode=spec.window.ceil_mode and "ceil_mode" in form.names,
            count_include_pad=spec.count_include_pad or "count_include_pad" not in form.names,
            divisor_override=spec.divisor_override if "divisor_override" in form.names else None,
            **numbers,
        )
    groups = spec.groups if "groups" in form.names else 1
    bias = spec.bias and form.bias
    if isinstance(spec, ConvTransposeSpec):
        return ConvTransposeSpec.make(spec.x_shape, spec.w_shape, spec.dtype, bias=bias, groups=groups, **numbers)
    x_shape = (*spec.x_shape[:2], *reached(spec, numbers))
    w_shape = (spec.out_channels, spec.in_channels // groups, *spec.window.kernel_size)
    return ConvSpec.make(x_shape, w_shape, spec.dtype, bias=bias, groups=groups, padding_mode=mode, **numbers)


def fitted_numbers(spec: ConvSpec | ConvTransposeSpec | PoolSpec, form: Form) -> dict[str, Any]:
    """The options that are numbers for each axis."""
    window = spec.window
    numbers: dict[str, Any] = {"stride": window.stride, "dilation": window.dilation, "padding": window.padding}
    if isinstance(spec, ConvTransposeSpec):
        numbers |= {"padding": spec.padding, "output_padding": spec.output_padding}
    if form.symmetric or "padding" in form.single:
        numbers["padding"] = tuple((max(0, lo),) * 2 for lo, _ in numbers["padding"])
    for name, values in numbers.items():
        if name not in form.names and name == "stride" and isinstance(spec, PoolSpec):
            numbers[name] = None  # windows tile the input
        elif name not in form.names:
            numbers[name] = (USUAL[name],) * len(values)
        elif name in form.single:
            numbers[name] = values[:1] * len(values)
    if form.half:
        ends = zip(numbers["padding"], window.kernel_size, strict=True)
        numbers["padding"] = tuple((min(lo, taps // 2), min(hi, taps // 2)) for (lo, hi), taps in ends)
    if isinstance(spec, ConvTransposeSpec):
        most = [max(pair) - 1 for pair in zip(numbers["stride"], numbers["dilation"], strict=True)]
        numbers["output_padding"] = tuple(map(min, numbers["output_padding"], most))
    return numbers


def reached(spec: ConvSpec | PoolSpec, numbers: dict[str, Any]) -> tuple[int, ...]:
    """The input's sizes, enlarged to what a window then needs."""
    window = spec.window
    axes = zip(window.in_size, window.kernel_size, numbers["dilation"], numbers["padding"], strict=True)
    return tuple(max(size, spread * (taps - 1) + 1 - lo - hi) for size, taps, spread, (lo, hi) in axes)
