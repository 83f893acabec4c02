"""The library's own calls, in a layout, at a precision, by a strategy."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

import convkernels as ck
from convkernels.config import Precision
from convkernels.layout import Array, Layout, data_layout, weight_layout_for
from convkernels.planning import Choice

from .cells import axes_of
from .contestant import Contestant
from .task import Task

NAME = "convkernels"


class DeclinedError(Exception):
    """The library refuses a task, for the reason given."""


@contextmanager
def session(threads: int) -> Iterator[None]:
    """Set the threads, as peers' are set: for all calls, of any thread."""
    before = ck.get_config().threads
    ck.set_threads(threads)
    try:
        yield
    finally:
        ck.set_threads(before)


def contestant(
    task: Task, layout: str, precision: Precision, threads: int | None, strategy: str = "auto"
) -> Contestant:
    """Make the library's call for a task, on data contiguous in the layout; of threads those set if that is None."""
    data = data_layout(axes_of(layout, task.rank), task.rank)
    asked = None if precision == ck.get_config().precision else precision
    execution = {"layout": data.axes, "precision": asked, "threads": threads, "strategy": strategy}
    arrays = {role: place(array, _layout(role, task, data)) for role, array in task.arrays.items()}
    run, choice = _CALLS[task.operation](task, arrays, execution)
    if choice.chosen is None:
        raise DeclinedError(choice.error)
    results: tuple[str, ...] = ("dw",) if task.direction == "weight_grad" else ("y",)
    if task.direction == "backward" and task.operation != "pool":
        results = ("dx", "dgamma", "dbeta")

    def canonical(found: Any) -> tuple[Array, ...]:
        listed = [part for part in found if part is not None] if isinstance(found, tuple) else [found]
        # A batch norm in training returns its statistics, too, which peers give in forms of their own.
        return tuple(
            _layout(role, task, data).view(part) if part.ndim > 1 else part
            for role, part in zip(results, listed, strict=False)
        )

    return Contestant(NAME, f"{layout} {precision}", run, canonical, choice.chosen.name)


def variants(
    task: Task, layouts: Sequence[str], precisions: Sequence[Precision], threads: int | None = None
) -> Iterator[tuple[str, Precision, Contestant | DeclinedError]]:
    """Yield the calls of a task; two that come to the same are one contestant."""
    for layout in layouts:
        found: dict[str, Contestant] = {}
        for precision in precisions:
            try:
                made = contestant(task, layout, precision, threads)
            except DeclinedError as refusal:
                yield layout, precision, refusal
            else:
                yield layout, precision, found.setdefault(made.implementation, made)


def place(canonical: Array, layout: Layout | None) -> Array:
    """Copy a canonical array into the memory order of a layout; where that is None it stays."""
    return canonical if layout is None else np.ascontiguousarray(layout.restore(canonical))


def _layout(role: str, task: Task, data: Layout) -> Any:
    if role in ("gamma", "beta"):
        return None
    leading = "IO" if task.operation == "conv_transpose" else "OI"
    return weight_layout_for(data, None, leading) if role in ("w", "dw") else data


Made = tuple[Callable[[], Any], Choice]


def needed(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options of a call that differ from what they are by default: who writes it leaves out the others.

    Examples
    --------
    >>> needed("conv", {"stride": (2, 2), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "layout": "NCHW"})
    {'stride': (2, 2)}
    """
    defaults = {key: one.default for key, one in inspect.signature(getattr(ck, name)).parameters.items()}
    return {key: value for key, value in options.items() if np.any(np.asarray(value) != np.asarray(defaults[key]))}


def _called(name: str, *arguments: Any, **options: Any) -> Made:
    """A public function, and what it would run."""
    options = needed(name, options)
    return partial(getattr(ck, name), *arguments, **options), _choices(name, arguments, options)[0]


def _planned(name: str, *arguments: Any, **options: Any) -> Made:
    """The plan of a public function, and what it runs."""
    try:
        plan = ck.plan(name, *arguments, **options)
    except (ck.UnsupportedError, ck.WorkspaceError) as error:
        raise DeclinedError(error.cause) from None
    return partial(plan, arguments[0]), plan.choice


def _pulled(name: str, dy: Array, arguments: Sequence[Any], options: Any, place: int, **wrt: Any) -> Made:
    """The vjp that a public function returns, and what it would run; `place` counts what that is among all it runs."""
    *_, vjp = getattr(ck, f"{name}_vjp")(*arguments, **options)
    return partial(vjp, dy, **wrt), _choices(f"{name}_vjp", arguments, options)[place]


def _choices(name: str, arguments: Sequence[Any], options: Any) -> tuple[Choice, ...]:
    # Explaining computes nothing, so that a norm's statistics are whatever lay in memory.
    with np.errstate(all="ignore"):
        return ck.explain(name, *arguments, **options).choices


def _conv(task: Task, arrays: dict[str, Array], execution: Any) -> Made:
    window = task.spec.window
    options = {"stride": window.stride, "padding": window.padding, "dilation": window.dilation}
    options |= {"groups": task.spec.groups, **execution}
    if task.direction == "forward":
        return (_planned if task.planned else _called)("conv", arrays["x"], arrays["w"], **options)
    if task.direction == "input_grad":
        return _called("conv_input_grad", arrays["dy"], arrays["w"], x_shape=arrays["x"].shape, **options)
    return _called("conv_weight_grad", arrays["x"], arrays["dy"], kernel_size=window.kernel_size, **options)


def _conv_transpose(task: Task, arrays: dict[str, Array], execution: Any) -> Made:
    spec, window = task.spec, task.spec.window
    options = {"stride": window.stride, "padding": spec.padding, "output_padding": spec.output_padding}
    options |= {"dilation": window.dilation, "groups": spec.groups, **execution}
    given = arrays["x"], arrays["w"]
    if task.direction == "forward":
        return (_planned if task.planned else _called)("conv_transpose", *given, **options)
    wrt, place = {"input_grad": ("x", 1), "weight_grad": ("w", 2)}[task.direction]
    return _pulled("conv_transpose", arrays["dy"], given, options, place, wrt=(wrt,))


def _pool(task: Task, arrays: dict[str, Array], execution: Any) -> Made:
    window = task.spec.window
    name = {"max": "max_pool", "mean": "avg_pool"}[task.spec.reducer.name]
    options = {"stride": window.stride, "padding": window.padding, **execution}
    given = arrays["x"], window.kernel_size
    if task.direction == "forward":
        return _called(name, *given, **options)
    return _pulled(name, arrays["dy"], given, options, 1)


def _norm(task: Task, arrays: dict[str, Array], execution: Any) -> Made:
    spec = task.spec
    given: list[Any] = [arrays["x"], arrays["gamma"], arrays["beta"]]
    options = {"eps": spec.eps, **execution}
    name = {"batch": "batch_norm_train"}.get(spec.kind, f"{spec.kind}_norm")
    if spec.kind == "group":
        given.append(spec.groups)
    if spec.kind == "layer":
        data = data_layout(execution["layout"], task.rank)
        options["axes"] = tuple(data.permutation[axis] for axis in spec.axes)
    if task.direction == "forward":
        return _called(name, *given, **options)
    return _pulled(name, arrays["dy"], given, options, 1)


_CALLS = {
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "pool": _pool,
    "batch_norm_train": _norm,
    "group_norm": _norm,
}
