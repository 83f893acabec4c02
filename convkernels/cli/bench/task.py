"""A cell's data, and how much there is to do."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from convkernels.layout import Array
from convkernels.problem import parse_problem

from .cells import Cell

FOR_MULTIPLICATIONS = "GFLOP/s"
FOR_MEMORY = "GB/s"


@dataclass(frozen=True)
class Task:
    """Canonical arrays by the names of the library's parameters, and what is to be done with them."""

    operation: str
    direction: str
    spec: Any
    arrays: dict[str, Array]
    planned: bool = False

    @classmethod
    def make(cls, cell: Cell) -> Task:
        """Draw the data of a cell; the same each time."""
        parsed: tuple[str, Any] = parse_problem(cell.problem)
        operation, spec = parsed
        normal: Callable[..., Array] = np.random.default_rng(0).standard_normal
        shapes = {"x": spec.x_shape}
        if operation.startswith("conv"):
            shapes["w"] = spec.w_shape
        elif operation != "pool":
            shapes["gamma"] = shapes["beta"] = spec.x_shape[1:2]
        planned = cell.direction == "planned"
        direction = "forward" if planned else cell.direction
        if direction != "forward":
            shapes["dy"] = spec.y_shape
        kind = np.float32 if cell.dtype == "float32" else np.float64
        arrays = {role: normal(shape, kind) for role, shape in shapes.items()}
        return cls(operation, direction, spec, arrays, planned)

    @cached_property
    def rank(self) -> int:
        """The number of spatial axes."""
        return len(self.spec.x_shape) - 2

    @cached_property
    def unit(self) -> str:
        """What its rate is counted in: convolutions multiply, all else waits for memory."""
        return FOR_MULTIPLICATIONS if self.operation.startswith("conv") else FOR_MEMORY

    @cached_property
    def amount(self) -> float:
        """What there is to do, in billions: operations of the direct method, or bytes that must be read and written."""
        if self.unit == FOR_MULTIPLICATIONS:
            return float(self.spec.flops) / 1e9
        item = int(self.spec.dtype.itemsize)
        x, y = int(math.prod(self.spec.x_shape)), int(math.prod(self.spec.y_shape))
        if self.direction == "forward":
            return (x + y) * item / 1e9
        # A mean's gradient does not ask for x; all others read dy and x, and write dx.
        reads_x = self.operation != "pool" or self.spec.reducer.name != "mean"
        return (y + (2 if reads_x else 1) * x) * item / 1e9


def even_padding(window: Any) -> list[int] | None:
    """The padding, the same on both sides of an axis, that gives these outputs; None if none does.

    What lies beyond the last window makes no difference.
    """
    padding = []
    for place, (lo, _) in enumerate(window.padding):
        reach = (window.kernel_size[place] - 1) * window.dilation[place]
        outputs = (window.in_size[place] + 2 * lo - reach - 1) // window.stride[place] + 1
        if lo < 0 or outputs != window.out_size[place]:
            return None
        padding.append(lo)
    return padding
