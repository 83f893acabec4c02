"""Checks of what trips pools: padding, counting and ties, each over problems that have nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..operation import Implementation
from ..pool_spec import PoolSpec
from .checks import assert_right, drawn
from .harness import for_all
from .problems import Problem

EXTREMES = ("max", "max_ties-last", "min", "min_ties-last")
TIED = ("max", "max_ties-last", "max_ties-split", "max_ties-all", "min", "min_ties-last")


def check_padding_is_neutral(implementation: Implementation) -> None:
    """Padding never wins and never takes the gradient, whatever it is beside: not even cells that nothing exceeds."""

    def body(problem: Problem) -> None:
        spec, x = problem.spec, problem.arrays["x"]
        assert isinstance(spec, PoolSpec)
        assert x is not None
        below = spec.reducer.name.startswith("max")
        beyond = worst(x.dtype, below)
        for cells in (x + x.dtype.type(-1000 if below else 1000), np.full_like(x, beyond)):
            moved = problem.with_x(cells)
            assert_right(implementation, moved)

    problems = drawn(implementation, ("distinct",), reducers=EXTREMES, dtypes=("float32", "float64", "int64"))
    for_all(implementation, problems, body, "padding_is_neutral")


def worst(dtype: np.dtype[Any], below: bool) -> Any:
    """The number that no maximum, or no minimum, prefers to any other.

    Examples
    --------
    >>> worst(np.dtype("float32"), True), worst(np.dtype("int8"), False)
    (-inf, 127)
    """
    if dtype.kind == "f":
        return -np.inf if below else np.inf
    return np.iinfo(dtype).min if below else np.iinfo(dtype).max


def check_counts_what_it_says(implementation: Implementation) -> None:
    """A mean divides by the cells of the input, of its padding too, or by what was given; never by the overhang."""

    def body(problem: Problem) -> None:
        assert_right(implementation, problem)

    problems = drawn(implementation, reducers=("mean",), dtypes=("float64",), padding_modes=("zeros",))
    for_all(implementation, problems, body, "counts_what_it_says")


def check_gives_ties_what_their_rule_says(implementation: Implementation) -> None:
    """Of equal cells, the first, the last or all take the gradient, or share it; zeros of both signs are equal."""

    def body(problem: Problem) -> None:
        assert_right(implementation, problem)

    problems = drawn(implementation, ("tied",), reducers=TIED, dtypes=("float64",), padding_modes=("zeros",))
    for_all(implementation, problems, body, "gives_ties_what_their_rule_says")
