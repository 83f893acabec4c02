"""Functions with the signature of a library: this package's own, PyTorch's, JAX's, ONNX Runtime's.

Problems are those of the kit, cut down to what the signature can express, and put as its library puts them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ..layout import Array
from ..norm_spec import NormSpec
from ..pool_spec import PoolSpec
from ..spec import ConvSpec, ConvTransposeSpec
from .bounds import error_bounds
from .cases import Arguments, Case, Function, Results
from .forms import KEYWORDS, USUAL, Form, fitted, native_form
from .problem_kinds import REGIMES
from .problems import INPUTS, Problem, problems
from .snippets import as_given, options

WINDOWED = frozenset({*USUAL, "groups", "ceil_mode", "count_include_pad"})
RETURNS = {"batch_norm_train": ("y", "mean", "var"), "conv_input_grad": ("dx",), "conv_weight_grad": ("dw",)}
"""The names of what a function returns, ("y",) where it is not said."""


class Posed:
    """The problem that arguments pose, among them; it is never copied, and prints as a problem string."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def __deepcopy__(self, memo: object) -> Posed:
        return self

    def __repr__(self) -> str:
        return str(self.problem)


@dataclass(frozen=True)
class Library:
    """A convention.

    Parameters
    ----------
    places : mapping
        The names of a function's arguments by place, by the function's name without a number of axes.
    ranks : tuple of str
        What numbers of axes stand in the names of the functions of windows; "" where there may be none.
    form : callable
        What the signature of a function expresses, from the function and its name.
    call : callable
        The arguments by name that put a problem; those that `keywords` names and the form has go by keyword.
    keywords : tuple of str
        Arguments that go by keyword.
    module : str
        What is imported for `enters`.
    enters, leaves : callable
        The module and an array to what goes in; what comes out to an array.
    wrapped : str
        How `enters` is written in code.
    """

    places: Mapping[str, tuple[str, ...]]
    ranks: tuple[str, ...]
    form: Callable[[Function, str], Form]
    call: Callable[[Problem], Arguments]
    keywords: tuple[str, ...] = ()
    module: str = ""
    enters: Callable[[Any, Array], Any] = lambda module, array: array
    leaves: Callable[[Any], Any] = lambda result: np.asarray(result) if hasattr(result, "__array__") else result
    wrapped: str = "{}"

    @property
    def names(self) -> dict[str, tuple[str, int | None]]:
        """The functions, each with its name without a number of axes, and that number."""
        found: dict[str, tuple[str, int | None]] = {}
        for base in self.places:
            for head in ("conv_transpose", "conv", "max_pool", "avg_pool"):
                if base.startswith(head):
                    found |= {head + r + base[len(head) :]: (base, int(r[0]) if r else None) for r in self.ranks}
                    break
            else:
                found[base] = base, None
        return found


def native_call(problem: Problem) -> Arguments:
    """The arguments of this package's own function."""
    given = {**options(problem), **arrays(problem)}
    for name in ("window", *USUAL):
        if name in given:
            given[name] = plainest(given[name])
    return given


def plainest(value: Any) -> Any:
    """An option as one number where all axes have the same, and padding without pairs where both ends have.

    Examples
    --------
    >>> plainest(((1, 1), (1, 1))), plainest(((0, 0), (2, 2))), plainest(((0, 1),))
    (1, (0, 2), ((0, 1),))
    """
    if isinstance(value[0], tuple):
        if any(lo != hi or lo < 0 for lo, hi in value):
            return value
        value = tuple(lo for lo, _ in value)
    return value[0] if len(set(value)) == 1 else value


def arrays(problem: Problem) -> Arguments:
    """The arrays of a problem as a caller has them, and the problem."""
    return {**{role: as_given(problem, role) for role in INPUTS[problem.operation]}, "problem": Posed(problem)}


def torch_call(problem: Problem) -> Arguments:
    """The arguments of PyTorch's function."""
    given, spec = options(problem), problem.spec
    if isinstance(spec, NormSpec):
        return {**arrays(problem), "groups": spec.groups, "training": False, "momentum": 0.1, "eps": spec.eps}
    padding = tuple(lo for lo, _ in given["padding"])
    return {**given, **arrays(problem), "kernel_size": given.get("window"), "padding": padding}


def jax_call(problem: Problem) -> Arguments:
    """The arguments of ``jax.lax.conv_general_dilated``."""
    given = options(problem)
    renamed = {"rhs_dilation": given["dilation"], "feature_group_count": given["groups"]}
    return {**arrays(problem), "window_strides": given["stride"], "padding": given["padding"], **renamed}


def onnx_call(problem: Problem) -> Arguments:
    """The inputs and attributes of ONNX's operator."""
    given, spec = options(problem), problem.spec
    assert isinstance(spec, ConvSpec | ConvTransposeSpec | PoolSpec)
    attributes: Arguments = {
        "kernel_shape": list(spec.window.kernel_size),
        "strides": list(given["stride"]),
        "pads": [end for side in zip(*given["padding"], strict=True) for end in side],
        "dilations": list(given["dilation"]),
    }
    if isinstance(spec, PoolSpec):
        mean = spec.reducer.name == "mean"
        counts = {"count_include_pad": int(spec.count_include_pad)} if mean else {}
        attributes |= {"ceil_mode": int(spec.window.ceil_mode), **counts}
    else:
        attributes["group"] = spec.groups
    if isinstance(spec, ConvTransposeSpec):
        attributes["output_padding"] = list(spec.output_padding)
    return {**arrays(problem), **attributes}


CONV, POOL, NORM = ("x", "w", "b"), ("x", "window"), ("x", "gamma", "beta")
TORCH_POOL = ("x", "kernel_size", "stride", "padding")
LIBRARIES: dict[str, Library] = {
    "native": Library(
        {
            "conv": CONV,
            "conv_input_grad": ("dy", "w"),
            "conv_weight_grad": ("x", "dy"),
            "conv_transpose": CONV,
            "max_pool": POOL,
            "avg_pool": POOL,
            "batch_norm": (*NORM, "mean", "var"),
            "batch_norm_train": NORM,
            "group_norm": (*NORM, "groups"),
            "instance_norm": NORM,
            "layer_norm": NORM,
            "rms_norm": ("x", "gamma"),
            "local_response_norm": ("x",),
        },
        ("", "1d", "2d", "3d"),
        lambda function, name: native_form(function),
        native_call,
        KEYWORDS,
    ),
    "torch": Library(
        {
            "conv": (*CONV, "stride", "padding", "dilation", "groups"),
            "conv_transpose": (*CONV, "stride", "padding", "output_padding", "groups", "dilation"),
            "max_pool": (*TORCH_POOL, "dilation", "ceil_mode"),
            "avg_pool": (*TORCH_POOL, "ceil_mode", "count_include_pad"),
            "batch_norm": ("x", "mean", "var", "gamma", "beta", "training", "momentum", "eps"),
            "group_norm": ("x", "groups", "gamma", "beta", "eps"),
        },
        ("1d", "2d", "3d"),
        lambda function, name: Form(
            WINDOWED - ({"dilation"} if name.startswith("avg") else set()), half="pool" in name
        ),
        torch_call,
        module="torch",
        enters=lambda torch, array: torch.from_numpy(array),
        leaves=lambda result: result.detach().numpy() if hasattr(result, "detach") else result,
        wrapped="torch.from_numpy({})",
    ),
    "jax": Library(
        {"conv": ("x", "w", "window_strides", "padding")},
        ("", "1d", "2d", "3d"),
        lambda function, name: Form(WINDOWED, symmetric=False, bias=False, dtypes=("float32",)),
        jax_call,
        ("rhs_dilation", "feature_group_count"),
        module="jax",
        enters=lambda jax, array: jax.numpy.asarray(array),
        wrapped="jax.numpy.asarray({})",
    ),
    "onnxruntime": Library(
        {"Conv": CONV, "ConvTranspose": CONV, "MaxPool": ("x",), "AveragePool": ("x",)},
        ("",),
        lambda function, name: Form(
            WINDOWED - {"AveragePool": {"dilation", "ceil_mode"}, "ConvTranspose": {"dilation"}}.get(name, set()),
            half="Pool" in name,
            dtypes=("float32",),
        ),
        onnx_call,
        ("kernel_shape", "strides", "pads", "dilations", "group", "output_padding", "ceil_mode", "count_include_pad"),
    ),
}
"""By convention."""
OPERATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    **dict.fromkeys(("max_pool", "MaxPool"), ("pool", {"reducers": ("max",)})),
    **dict.fromkeys(("avg_pool", "AveragePool"), ("pool", {"reducers": ("mean",)})),
    **dict.fromkeys(("instance_norm", "layer_norm", "rms_norm"), ("group_norm", {})),
    "Conv": ("conv", {}),
    "ConvTranspose": ("conv_transpose", {}),
}
"""The operation of a function whose name is another, and what its problems are limited to."""


def canonical(problem: Problem, role: str, array: Array) -> Array | None:
    """An array of the caller's as the kit sees it; coefficients, which stay as they were drawn, as drawn."""
    layout, shape = problem.memory(role), problem.shape(role)
    if role != "b" and (layout is None or shape is None):
        return problem.arrays[role]
    return array if layout is None else layout.view(array).reshape(shape)


def posed(a: Arguments) -> Problem:
    """The problem on the arrays that arguments hold."""
    problem: Problem = a["problem"].problem
    roles = {role: a[role] for role in INPUTS[problem.operation]}
    return problem.given(
        {role: None if array is None else canonical(problem, role, array) for role, array in roles.items()}
    )


def as_returned(problem: Problem, returns: tuple[str, ...], results: Mapping[str, Any]) -> Results:
    """The kit's results, or bounds of them, as the caller's."""
    found = {}
    for name, kit in zip(returns, ("out", "mean", "var"), strict=False):
        value = results[kit]
        if isinstance(value, np.ndarray) and value.ndim:
            layout = problem.memory(problem.out_role) if kit == "out" else None
            shape = problem.spec.x_shape if isinstance(problem.spec, NormSpec) else value.shape
            # Statistics come in the type of the data.
            value = layout.restore(value.reshape(shape)) if layout else value.reshape(-1).astype(problem.spec.dtype)
        found[name] = value
    return found


def expected(returns: tuple[str, ...], a: Arguments) -> Results:
    """What the definition gives."""
    problem = posed(a)
    return as_returned(problem, returns, problem.expected)


def bounds(returns: tuple[str, ...], a: Arguments) -> Mapping[str, Any]:
    """What rounding can do; a maximum has none."""
    problem = posed(a)
    if isinstance(problem.spec, PoolSpec) and problem.spec.reducer.name == "max":
        return dict.fromkeys(returns)
    return as_returned(problem, returns, error_bounds(problem, tile=True))


def changed(returns: tuple[str, ...], change: Callable[[Problem], Arguments]) -> Callable[[Arguments], Results]:
    """What the definition gives with some arrays changed."""

    def results(a: Arguments) -> Results:
        problem = posed(a)
        return as_returned(problem, returns, problem.given(change(problem)).expected)

    return results


def reversed_groups(problem: Problem) -> Arguments:
    """The filters of the last group first."""
    w = problem.arrays["w"]
    assert isinstance(problem.spec, ConvSpec)
    assert w is not None
    return {"w": w.reshape(problem.spec.groups, -1, *w.shape[1:])[::-1].reshape(w.shape)}


def opposite(problem: Problem) -> Arguments:
    """The filters flipped along every spatial axis."""
    w = problem.arrays["w"]
    assert w is not None
    return {"w": w[(slice(None), slice(None), *[slice(None, None, -1)] * (w.ndim - 2))]}


def unbiased(problem: Problem) -> Arguments:
    """A bias of zeros where there is one."""
    b = problem.arrays["b"]
    return {"b": None if b is None else 0 * b}


def zeros_around(a: Arguments) -> Results:
    """What a maximum gives that takes padding for zeros."""
    problem = posed(a)
    spec, x = problem.spec, problem.arrays["x"]
    assert isinstance(spec, PoolSpec)
    assert x is not None
    window = spec.window
    wider = np.pad(x, [(0, 0), (0, 0), *((max(0, lo), max(0, hi)) for lo, hi in window.padding)])
    without = PoolSpec.make(
        wider.shape,
        spec.dtype,
        kernel_size=window.kernel_size,
        reducer=spec.reducer,
        stride=window.stride,
        padding=tuple((min(0, lo), min(0, hi)) for lo, hi in window.padding),
        dilation=window.dilation,
        ceil_mode=window.ceil_mode,
    )
    return as_returned(problem, ("y",), replace(problem, spec=without).given({"x": wider}).expected)


MISTAKES: dict[str, dict[str, Callable[[Arguments], Results]]] = {
    "conv": {
        "the filter is flipped, as in mathematics: here it is not": changed(("y",), opposite),
        "the bias is left out": changed(("y",), unbiased),
        "the groups' filters are in reverse order": changed(("y",), reversed_groups),
    },
    "max_pool": {"padding is taken for zeros, but must never win": zeros_around},
}


def library_case(function: Function, name: str, convention: str) -> Case:
    """What a convention says of one of its functions."""
    library = LIBRARIES[convention]
    base, rank = library.names[name]
    form = library.form(function, name)
    operation, choices = OPERATIONS.get(base, (base, {}))
    limited = {"rank": rank} if rank is not None else {}
    drawn: st.SearchStrategy[Any] = problems(operation, ("integers", "reals"), dtypes=form.dtypes, **choices, **limited)
    if operation == "group_norm":
        drawn = drawn.filter(lambda problem: problem.spec.kind == base.removesuffix("_norm"))
    taken = form.names if convention == "native" else frozenset(library.keywords)
    passed = tuple(place for place in library.places[base] if place != "b" or form.bias)
    returns = RETURNS.get(base, ("y",))
    module = importlib.import_module(library.module) if library.module else None
    return Case(
        name,
        drawn.map(partial(fitted, form=form)).filter(bool),
        library.call,
        partial(expected, returns),
        passed,
        tuple(key for key in library.keywords if key in taken and key not in passed),
        returns,
        mistakes=MISTAKES.get(base, {}),
        regimes=REGIMES,
        fixed=("gamma", "beta", "mean", "var"),
        bounds=partial(bounds, returns),
        strict=True,
        reseed=lambda problem, seed: replace(problem, seed=seed),
        enters=lambda value: library.enters(module, value) if isinstance(value, np.ndarray) else value,
        leaves=library.leaves,
        wrapped=library.wrapped,
    )
