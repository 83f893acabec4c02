"""A norm as it was called: validated, run on what implementations see, and taken back through its statistics."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from . import catalog  # noqa: F401  # fills the operations
from .call import Call, as_array, check_dy, check_wrt
from .errors import OptionError, ShapeError
from .layout import Array, Layout, data_layout
from .norm_spec import NormSpec, is_number
from .operation import GROUP_NORM, Operation
from .public import Execution, gradient_options, located, shortened
from .shortcut import Finish, Runs, Shortcuts, key_of
from .spec import common_dtype
from .window import entries, whole


class NormKeywords(Execution, total=False):
    """The keywords of a norm."""

    eps: float
    layout: str


class LayerNormKeywords(NormKeywords, total=False):
    """The keywords of a norm over chosen axes."""

    axes: int | Sequence[int] | None


class NormGradients(NamedTuple):
    """A norm's gradients; None where one was not asked for, or there is no such coefficient."""

    dx: Array | None
    dgamma: Array | None
    dbeta: Array | None


Vjp = Callable[..., NormGradients]

_remembered = lru_cache(maxsize=4096, typed=True)(NormSpec.make)

KEYWORDS: dict[str, Any] = {"eps": 1e-5, "layout": "NCHW"}
DOC = {
    "<coefficients>": """gamma, beta : array_like or None
        What the normalised data is multiplied by, and what is added, of shape (C,); None for 1 and 0.""",
    "<options>": """eps : float
        Added to the variance.
    layout : str
        The axes of `x` and of the result, a permutation of "NCHW".""",
    "<y>": """ndarray
        The result, in `layout` and contiguous, of the inputs' common floating type.""",
    "<vjp>": """vjp : callable
        ``vjp(dy, wrt=("x", "gamma", "beta"))`` takes the gradient by `y` and returns the named tuple (dx, dgamma,
        dbeta): those asked for, the rest None. It keeps references to the inputs, which must not change before it is
        called.""",
}


ALL = ("x", "gamma", "beta")
"""What a norm has gradients of."""
NOTHING = np.empty(0)


class Problem(NamedTuple):
    """A norm's spec and canonical data, its coefficients as given, and the axes of x it is over."""

    spec: NormSpec
    layout: Layout
    x: Array
    gamma: Array | None
    beta: Array | None
    axes: tuple[int, ...]

    def of(self, arrays: Sequence[Array | None]) -> Problem:
        """The same problem with other arrays, as given: x, and the coefficients if any were."""
        x, *small = arrays
        gamma, beta = (*small, None, None)[:2]
        return self._replace(x=self.layout.view(x), gamma=gamma, beta=beta)  # type: ignore[arg-type]  # x is there

    @property
    def given(self) -> tuple[Array | None, ...]:
        """The arrays as they were given."""
        return self.layout.restore(self.x), self.gamma, self.beta

    @property
    def bare(self) -> Problem:
        """The problem without its arrays, to be remembered."""
        return self._replace(x=NOTHING, gamma=None, beta=None)

    def seen(self, canonical: Array) -> Array:
        """Canonical data in the shape that implementations see."""
        return canonical.reshape(self.spec.seen_shape)

    def spread(self, name: str, array: Array | None) -> Array | None:
        """A view of a coefficient, (C,) or over x's normalised axes, with axes of one, as implementations see it."""
        if array is None:
            return None
        spec, rank = self.spec, len(self.spec.shape)
        free = spec.kind in ("layer", "rms")
        if array.shape == (spec.shape[1],) and (not free or 1 in spec.axes):
            if spec.kind in ("group", "instance"):
                return array.reshape(1, spec.groups, -1, *[1] * (rank - 2))
            return array.reshape(1, -1, *[1] * (rank - 2))
        sizes = tuple(self.layout.shape(spec.shape)[axis] for axis in self.axes)
        aligned = (1,) * (len(sizes) - array.ndim) + array.shape
        if not free or len(aligned) != len(sizes) or any(a not in (1, b) for a, b in zip(aligned, sizes, strict=True)):
            also = f", or broadcast against the normalised axes' {sizes}" if free else ""
            raise ShapeError(f"{name} has shape {array.shape}, must have ({spec.shape[1]},){also}")
        shape = [1] * rank
        for axis, size in zip(self.axes, aligned, strict=True):
            shape[axis] = size
        return array.reshape(shape).transpose(self.layout.permutation)

    def see_gradient(self, name: str, array: Array) -> Array:
        """The same of a coefficient's gradient."""
        return self.spread(name.removeprefix("d"), array)  # type: ignore[return-value]  # there is one

    def see_statistic(self, _: str, array: Array) -> Array:
        """A view of a statistic, by family end on end, as implementations see it."""
        return array.reshape(self.spec.statistics_shape)


def make_problem(
    x: ArrayLike, gamma: ArrayLike | None, beta: ArrayLike | None, kind: str, options: Any, groups: object = 1
) -> Problem:
    """Validate a norm's arguments."""
    x = as_array("x", x)
    scale = None if gamma is None else as_array("gamma", gamma)
    shift = None if beta is None else as_array("beta", beta)
    layout = data_layout(options["layout"], None)
    data = layout.view(x, "x")
    axes = _axes(options.get("axes"), layout)
    canonical = tuple(sorted(layout.inverse[axis] for axis in axes))
    dtype = common_dtype(x=x, gamma=scale, beta=shift)
    eps = options["eps"]
    make = _remembered if is_number(eps) else NormSpec.make  # which refuses it
    spec = make(data.shape, dtype, kind=kind, groups=whole("groups", groups), axes=canonical, eps=eps)
    return Problem(spec, layout, data, scale, shift, axes)


def _axes(axes: object, layout: Layout) -> tuple[int, ...]:
    """The axes of x that a layer norm is over, in the caller's order: by default all but N."""
    if axes is None:
        return tuple(axis for axis, letter in enumerate(layout.axes) if letter != "N")
    given = entries(axes)
    numbers = [whole("axes", axis) for axis in ((axes,) if given is None else given)]
    rank = len(layout.axes)
    found = sorted(axis % rank for axis in numbers if -rank <= axis < rank)
    if not numbers or len(set(found)) != len(numbers) or "N" in (layout.axes[axis] for axis in found):
        raise OptionError(f"axes={axes!r} must name axes of x, each once, and not the batch (layout {layout.axes!r})")
    return tuple(found)


def train(problem: Problem, operation: Operation, options: Any, finish: Finish) -> Any:
    """Run a norm that takes its own statistics; return ``finish(given, y, mean, var)``, these by family end on end."""
    spec = problem.spec
    # Zeros, as a call that is only explained leaves them, and they are cast to the type of the data.
    mean, var = np.zeros((2, math.prod(spec.statistics_shape)), spec.statistics_dtype)
    arrays = (
        problem.seen(problem.x),
        problem.spread("gamma", problem.gamma),
        problem.spread("beta", problem.beta),
    )
    call = Call(
        operation,
        spec,
        problem.layout.order,
        arrays,
        spec.shape,
        problem.layout,
        options,
        seen_shape=spec.seen_shape,
        outputs={"mean": mean, "var": var},
        see_output=problem.bare.see_statistic,  # which keeps no data alive
    )
    return call.finished(finish, problem.given)


def normalise(problem: Problem, options: Any) -> Array:
    """Run a norm whose statistics nobody asks for."""
    result: Array = train(problem, GROUP_NORM, options, lambda given, y, mean, var: y)
    return result


class Gradients:
    """What takes gradients back through the statistics, for all data of one problem.

    It remembers the short ways of its calls, and no data.
    """

    def __init__(self, problem: Problem, operation: Operation, options: Any) -> None:
        self.problem, self.operation, self.options = problem.bare, operation, options
        self.shortcuts = Shortcuts()

    def of(self, given: Sequence[Array | None], mean: Array, var: Array) -> Vjp:
        """Make the function for a norm's data, as given, and the statistics."""
        function, problem = self.options["function"], self.problem.of(given)

        def vjp(dy: ArrayLike, wrt: Sequence[str] = ALL) -> NormGradients:
            # All else lies as it did in the other calls of this problem.
            key = key_of((dy,), {} if wrt is ALL else {"wrt": wrt})

            def pull_back(runs: Runs) -> NormGradients:
                with located(f"{function}'s vjp", "dy", dy, problem.layout.axes):
                    return self.pull_back(problem, dy, mean, var, wrt, runs)

            return shortened(self.shortcuts, key, (dy, given[0], problem.gamma, mean, var), pull_back)

        return vjp

    def pull_back(
        self, problem: Problem, dy: ArrayLike, mean: Array, var: Array, wrt: Sequence[str], runs: Runs
    ) -> NormGradients:
        """Take a gradient back."""
        layout, spec = problem.layout, problem.spec
        wanted = check_wrt(wrt, ALL)
        given = as_array("dy", dy)
        check_dy(given, layout, spec.shape)
        dtype = common_dtype(dy=given, x=problem.x)
        sums: dict[str, Array | None] = {
            name: np.zeros(array.shape, spec.statistics_dtype) if array is not None and name in wanted else None
            for name, array in (("gamma", problem.gamma), ("beta", problem.beta))
        }

        def narrowed(array: Array | None) -> Array | None:
            if array is None or array.dtype == dtype:
                return array
            with np.errstate(over="ignore"):  # as compiled code is silent of what is not finite
                return array.astype(dtype)

        def finish(_: Any, dx: Array | None, dgamma: Array | None, dbeta: Array | None) -> NormGradients:
            return NormGradients(dx, narrowed(dgamma), narrowed(dbeta))

        arrays = (
            problem.seen(layout.view(given)),
            problem.seen(problem.x),
            problem.spread("gamma", problem.gamma),
            *(array.reshape(spec.statistics_shape) for array in (mean, var)),
        )
        call = Call(
            self.operation,
            NormSpec(spec.shape, spec.kind, spec.groups, spec.axes, spec.eps, dtype),
            layout.order,
            arrays,
            spec.shape,
            layout,
            {**gradient_options(self.options, self.operation), "runs": runs},
            seen_shape=spec.seen_shape,
            outputs={f"d{name}": array for name, array in sums.items()},
            see_output=problem.bare.see_gradient,  # which keeps no data alive
            sums=True,
        )
        if "x" in wanted:
            result: NormGradients = call.finished(finish, ())
            return result
        if any(array is not None for array in sums.values()):
            call.fill()
        return finish((), None, *call.outputs.values())
