"""Problems with their data: what an implementation is run on, and what the definition makes of it.

An operation takes arrays in *roles* ("x", "w", "dy", ...) and fills others. Data come from a drawn seed and lie in
memory as a drawn layout has them; implementations see canonical views.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ..config import Resources
from ..layout import SPATIAL, Array, Layout
from ..norm_spec import LocalNormSpec, NormSpec
from ..operation import Implementation, find_operation
from ..pool_spec import PoolSpec
from ..problem import Spec, parse_problem
from ..spec import ConvSpec, ConvTransposeSpec, Shape
from . import strategies

INPUTS: dict[str, tuple[str, ...]] = {
    "conv": ("x", "w", "b"),
    "conv_input_grad": ("dy", "w"),
    "conv_weight_grad": ("x", "dy"),
    "conv_transpose": ("x", "w", "b"),
    "pool": ("x",),
    "pool_grad": ("dy", "x", "y"),
    "batch_norm": ("x", "gamma", "beta", "mean", "var"),
    "batch_norm_grad": ("dy", "x", "gamma", "mean", "var"),
    "batch_norm_train": ("x", "gamma", "beta"),
    "batch_norm_train_grad": ("dy", "x", "gamma", "mean", "var"),
    "group_norm": ("x", "gamma", "beta"),
    "group_norm_grad": ("dy", "x", "gamma", "mean", "var"),
    "local_response_norm": ("x",),
    "local_response_norm_grad": ("dy", "x"),
}
"""The roles of the arrays that an operation's `run` takes, in its order."""

RESULT = {
    **dict.fromkeys(("conv", "conv_transpose", "pool"), "y"),
    "conv_weight_grad": "w",
}
"""The role whose shape `out` has; that of x where it is not said."""

WEIGHTS_LEAD = {"conv_transpose": "IO"}
"""The first two axes of w in canonical order, "OI" where it is not said."""

DIVISIBLE = math.lcm(*range(1, 28))
"""What gradients are multiplied by where they are shared out: 8e10, exact in float64, and divisible by any count."""


@dataclass(frozen=True)
class Problem:
    """A spec, the layouts of its arrays in memory, and the seed of their data.

    Examples
    --------
    >>> problem = Problem.read("n1g1i1o1_in3_k2_s1_p0+0_d1", layout="NWC")
    >>> problem.arrays["x"].shape, problem.expected["out"].shape
    ((1, 1, 3), (1, 1, 2))
    """

    operation: str
    spec: Spec
    layout: Layout
    weight_layout: Layout
    data: str = "integers"
    seed: int = 0
    plain: bool = False

    @classmethod
    def read(cls, text: str, *, layout: str | None = None, data: str = "integers", seed: int = 0) -> Problem:
        """Make a problem from a problem string."""
        operation, spec = parse_problem(text)
        spatial, leading = SPATIAL[len(spec.x_shape) - 2], WEIGHTS_LEAD.get(operation, "OI")
        return cls(operation, spec, Layout(layout or "NC" + spatial), Layout(leading + spatial, leading), data, seed)

    def denser(self) -> Problem:
        """The same problem with every cell in reach and some channels, which most specialised kernels ask for.

        Strides and dilations are 1, windows have 3 taps along each axis, and a group 4 channels on either side.
        """
        spec = self.spec
        if not isinstance(spec, ConvSpec | ConvTransposeSpec):
            return self
        groups = min(spec.groups, 2)
        shapes = (
            (spec.x_shape[0], 4 * groups, *(max(3, size) for size in spec.x_shape[2:])),
            (4 * groups, 4, *(3,) * spec.window.rank),
        )
        padding = tuple((max(0, min(lo, 2)), max(0, min(hi, 2))) for lo, hi in spec.window.padding)
        if isinstance(spec, ConvTransposeSpec):
            cut = tuple((min(lo, 1), min(hi, 1)) for lo, hi in padding)
            return replace(
                self, spec=ConvTransposeSpec.make(*shapes, spec.dtype, bias=spec.bias, padding=cut, groups=groups)
            )
        dense = ConvSpec.make(
            *(*shapes, spec.dtype), bias=spec.bias, padding=padding, groups=groups, padding_mode=spec.padding_mode
        )
        return replace(self, spec=dense)

    def depthwise(self) -> Problem:
        """The same problem with each input channel in a group of its own."""
        spec = self.spec
        if not isinstance(spec, ConvSpec):
            return self
        window, channels = spec.window, spec.in_channels
        multiple = max(1, spec.out_channels // channels)
        apart = ConvSpec.make(
            *(spec.x_shape, (channels * multiple, 1, *window.kernel_size), spec.dtype),
            bias=spec.bias,
            stride=window.stride,
            padding=window.padding,
            dilation=window.dilation,
            groups=channels,
            padding_mode=spec.padding_mode,
        )
        return replace(self, spec=apart)

    @property
    def out_role(self) -> str:
        """The role whose shape `out` has."""
        return RESULT.get(self.operation, "x")

    def shape(self, role: str) -> Shape | None:
        """The shape in which implementations see an array, or None if the problem has none."""
        spec = self.spec
        if role in ("x", "dx"):
            return spec.seen_shape if isinstance(spec, NormSpec) else spec.x_shape
        if role in ("y", "dy"):
            return spec.seen_shape if isinstance(spec, NormSpec) else spec.y_shape
        if isinstance(spec, ConvSpec | ConvTransposeSpec):
            if role == "b":
                return (spec.y_shape[1],) if spec.bias else None
            return spec.w_shape
        assert isinstance(spec, NormSpec), role
        if role in ("mean", "var"):
            return spec.statistics_shape
        if self.plain or (role == "beta" and not spec.centred):
            return None
        return coefficient_shape(spec)

    def memory(self, role: str) -> Layout | None:
        """The layout of an array, or None for one whose axes are in no order of the caller's."""
        if role in ("x", "y", "dy", "dx"):
            return self.layout
        return self.weight_layout if role == "w" else None

    def laid(self, role: str, canonical: Array) -> Array:
        """A copy of an array in the memory order of its layout, seen as implementations see it."""
        layout = self.memory(role)
        if layout is None:
            return canonical.copy()
        plain = canonical.reshape(self.spec.x_shape) if isinstance(self.spec, NormSpec) else canonical
        copy = layout.view(np.ascontiguousarray(layout.restore(plain)))
        return copy.reshape(canonical.shape)

    @cached_property
    def arrays(self) -> dict[str, Array | None]:
        """The inputs by role, as implementations see them; an earlier operation's results by the definition."""
        found: dict[str, Array | None] = {}
        for place, role in enumerate(INPUTS[self.operation]):
            shape = self.shape(role)
            found[role] = None if shape is None else self.laid(role, self.draw(role, shape, self.seed + place))
        return {**found, **self.passed_on(found.get("x"))}

    @property
    def cells(self) -> int:
        """The cells of all arrays that go in."""
        return sum(array.size for array in self.arrays.values() if array is not None)

    def passed_on(self, x: Array | None) -> dict[str, Array | None]:
        """What a gradient is given of the forward's results, by the definition."""
        forward = replace(self, operation=self.operation.removesuffix("_grad"), plain=True)
        if self.operation == "pool_grad":
            return {"y": forward.defined({"x": x}, self.spec.compute_dtype)["out"]}
        if self.operation in ("batch_norm_train_grad", "group_norm_grad"):
            results = forward.defined({"x": x})
            return {name: results[name] for name in ("mean", "var")}
        return {}

    def with_x(self, x: Array) -> Problem:
        """The same problem with other data in x, and what follows from them."""
        return self.given({"x": x, **self.passed_on(x)})

    def given(self, arrays: Mapping[str, Array | None]) -> Problem:
        """The same problem with other arrays of the same shapes and types."""
        changed = replace(self)
        changed.__dict__["arrays"] = {**self.arrays, **arrays}
        return changed

    def draw(self, role: str, shape: Shape, seed: int) -> Array:
        """Data for a role."""
        dtype = self.spec.compute_dtype
        if role in ("mean", "var", "gamma", "beta") or isinstance(self.spec, NormSpec | LocalNormSpec):
            kind = self.data if role == "x" and self.data in ("with_nan", "offset") else "reals"
            drawn = strategies.DATA[kind](shape, dtype, seed)
            return np.abs(drawn) + dtype.type(0.5) if role == "var" else drawn
        kind = self.data if role == "x" or self.data in ("integers", "reals") else "integers"
        drawn = strategies.DATA[kind](shape, dtype, seed)
        return drawn * dtype.type(DIVISIBLE) if role == "dy" and self.shares and self.data != "reals" else drawn

    @property
    def shares(self) -> bool:
        """Whether a pool's gradient divides what it passes back."""
        return isinstance(self.spec, PoolSpec) and self.spec.reducer.name in (
            "mean",
            "max_ties-split",
            "min_ties-split",
        )

    @property
    def exact(self) -> bool:
        """Whether whole numbers give whole numbers."""
        if isinstance(self.spec, NormSpec | LocalNormSpec):
            return False
        if not isinstance(self.spec, PoolSpec):
            return True
        if self.shares and self.operation == "pool_grad":
            return self.spec.dtype == np.float64
        return self.spec.reducer.name in strategies.SELECTING + strategies.SUMMING

    def outputs(self, dtype: np.dtype[Any] | None = None) -> dict[str, Array | None]:
        """Arrays of NaN (or of a number no sum gives) for the results, laid out as the caller's layout has them."""
        spec = self.spec
        shape = self.shape(self.out_role)
        assert shape is not None
        empty = self.laid(self.out_role, np.empty(shape, dtype or spec.compute_dtype))
        results: dict[str, Array | None] = {"out": empty}
        if isinstance(spec, NormSpec):
            if self.operation.endswith("_grad"):
                for role in ("gamma", "beta"):
                    small = self.shape(role)
                    results[f"d{role}"] = None if small is None else np.empty(small, spec.statistics_dtype)
            elif self.operation != "batch_norm":
                results |= {role: np.empty(spec.statistics_shape, spec.statistics_dtype) for role in ("mean", "var")}
        for result in results.values():
            if result is not None:
                result[...] = np.nan if result.dtype.kind in "fc" else 77777
        return results

    def defined(self, arrays: Mapping[str, Array | None], dtype: np.dtype[Any] | None = None) -> dict[str, Array]:
        """What the definition makes of arrays, by default in the widest type."""
        wide = np.dtype({"f": np.float64, "c": np.complex128}.get(self.spec.compute_dtype.kind, np.int64))
        definition = find_operation(self.operation).implementations[-1]
        return run(definition, self, arrays, self.outputs(dtype or wide))

    @cached_property
    def expected(self) -> dict[str, Array]:
        """What the definition makes of the problem, in its own type."""
        return self.defined(self.arrays, self.spec.compute_dtype)

    def __str__(self) -> str:
        text = str(self.spec)
        prefix = text.partition(":")[0] if ":" in text else "conv"
        if prefix != self.operation:
            text = f"{self.operation}:{text.removeprefix(prefix + ':')}"
        weights = f", weights {self.weight_layout.axes}" if isinstance(self.spec, ConvSpec | ConvTransposeSpec) else ""
        return f"{text} (layout {self.layout.axes}{weights}, {self.spec.dtype}, data {self.data!r} of seed {self.seed})"


def coefficient_shape(spec: NormSpec) -> Shape:
    """The shape of gamma and beta with axes of one: per channel, or the normalised axes' without the channels."""
    if spec.kind in ("layer", "rms") and 1 not in spec.axes:
        return tuple(size if axis in spec.axes else 1 for axis, size in enumerate(spec.shape))
    if spec.kind in ("group", "instance"):
        return (1, spec.groups, spec.shape[1] // spec.groups, *[1] * (len(spec.shape) - 2))
    return (1, spec.shape[1], *[1] * (len(spec.shape) - 2))


def run(
    implementation: Implementation,
    problem: Problem,
    arrays: Mapping[str, Array | None] | None = None,
    outputs: Mapping[str, Array | None] | None = None,
    *,
    max_workspace: int = 2**26,
    threads: int | None = None,
) -> dict[str, Array]:
    """Run an implementation, made to heed padding modes, on a problem's arrays, or others; what it fills, by name."""
    implementation = find_operation(problem.operation).adapted(implementation)
    arrays = problem.arrays if arrays is None else arrays
    results = problem.outputs() if outputs is None else dict(outputs)
    given = [arrays.get(role) for role in INPUTS[problem.operation]]
    implementation.run(problem.spec, *given, **results, resources=Resources(max_workspace, threads))
    return {name: result for name, result in results.items() if result is not None}


SPECS: dict[str, Callable[..., st.SearchStrategy[Any]]] = {
    **dict.fromkeys(("conv", "conv_input_grad", "conv_weight_grad"), strategies.conv_specs),
    "conv_transpose": strategies.conv_transpose_specs,
    **dict.fromkeys(("pool", "pool_grad"), strategies.pool_specs),
    **dict.fromkeys(("batch_norm", "batch_norm_grad"), lambda **some: strategies.norm_specs(("batch",), **some)),
    **dict.fromkeys(
        ("batch_norm_train", "batch_norm_train_grad"), lambda **some: strategies.norm_specs(("batch",), **some)
    ),
    **dict.fromkeys(
        ("group_norm", "group_norm_grad"),
        lambda **some: strategies.norm_specs(("group", "instance", "layer", "rms"), **some),
    ),
    **dict.fromkeys(("local_response_norm", "local_response_norm_grad"), strategies.local_norm_specs),
}
"""How the specs of each operation are drawn."""


@st.composite
def problems(draw: st.DrawFn, /, operation: str, data: Iterable[str] = ("integers",), **choices: Any) -> Problem:
    """Problems of an operation: a spec (`choices` go to its strategy), layouts, a kind of data, and a seed."""
    spec: Spec = draw(SPECS[operation](**choices))
    rank = len(spec.x_shape) - 2
    leading = WEIGHTS_LEAD.get(operation, "OI")
    weighted = isinstance(spec, ConvSpec | ConvTransposeSpec)
    return Problem(
        operation,
        spec,
        draw(strategies.layouts(rank)),
        draw(strategies.layouts(rank, leading)) if weighted else Layout(leading + SPATIAL[rank], leading),
        draw(strategies.among(*data)),
        draw(strategies.seeds),
        plain=isinstance(spec, NormSpec) and not draw(st.booleans()),
    )
