"""Who computes the right thing, and how exactly."""

from __future__ import annotations

import numpy as np

from convkernels.cli.errors import CommandError
from convkernels.layout import Array
from convkernels.problem import parse_problem

from . import ours
from .contestant import Contestant
from .task import Task

TOLERANCES = {"float32": 1e-3, "float64": 1e-9}
"""How far results may be apart, in units of the largest: enough for any rounding, too little for any mistake."""


class Judge:
    """Holds results against each other and, for convolutions in float32, against exact ones."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.expected: tuple[Array, ...] | None = None
        self.bound: Array | None = None
        if task.operation.startswith("conv") and task.spec.dtype == np.float32:
            self.expected, self.bound = exact(task)

    def check(self, contestant: Contestant, results: tuple[Array, ...]) -> float | None:
        """Raise if a result is wrong; the largest error in units of its bound, where that is known."""
        if self.expected is None:
            self.expected = results
        if not agree(results, self.expected, TOLERANCES[self.task.spec.dtype.name]):
            raise CommandError(
                f"{contestant.library} ({contestant.variant}{contestant.implementation and ', '}"
                f"{contestant.implementation}) computes another result: {self.task.direction} {self.task.spec}"
            )
        if self.bound is None:
            return None
        return float((np.abs(results[0] - self.expected[0]) / self.bound).max(initial=0.0))


def agree(found: tuple[Array, ...], expected: tuple[Array, ...], tolerance: float) -> bool:
    """Whether results are the same but for a share of the largest: near zero only the size of the terms counts."""
    return len(found) == len(expected) and all(
        one.shape == other.shape and np.abs(one - other).max(initial=0.0) <= tolerance * np.abs(other).max(initial=0.0)
        for one, other in zip(found, expected, strict=True)
    )


def exact(task: Task) -> tuple[tuple[Array], Array]:
    """A convolution's result in float64, and the bound on the error of one in float32.

    The bound is n eps sum(|x| |w|) for sums of at most n products, in any order (Higham, "Accuracy and Stability of
    Numerical Algorithms", chapter 3).
    """
    spec = task.spec
    narrow = spec.x_shape if task.operation == "conv_transpose" else spec.y_shape
    terms = {
        "forward": spec.x_shape[1] // spec.groups * spec.window.taps,
        "input_grad": spec.y_shape[1] // spec.groups * spec.window.taps,
        "weight_grad": spec.x_shape[0] * int(np.prod(narrow[2:])),
    }[task.direction]
    arrays = {role: array.astype(np.float64) for role, array in task.arrays.items()}
    sizes = _in_float64(task, {role: np.abs(array) for role, array in arrays.items()})
    # A result without any product must be zero, not nearly.
    bound = np.maximum(terms * float(np.finfo(np.float32).eps) * sizes, np.finfo(np.float64).tiny)
    return (_in_float64(task, arrays),), bound


def _in_float64(task: Task, arrays: dict[str, Array]) -> Array:
    wide = Task(task.operation, task.direction, parse_problem(f"{task.spec}_float64")[1], arrays)
    made = ours.contestant(wide, "NCHW", "default", 1, "im2col")
    return made.canonical(made.run())[0]
