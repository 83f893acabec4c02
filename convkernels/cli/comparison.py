"""Every strategy against the definition: time, speed-up and largest difference, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from convkernels.conv import conv2d_vjp
from convkernels.errors import UnsupportedError, WorkspaceError
from convkernels.layout import Array, Layout, data_layout, weight_layout_for
from convkernels.operation import CONV, CONV_INPUT_GRAD, CONV_WEIGHT_GRAD, POOL, POOL_GRAD, Operation
from convkernels.pool import max_pool2d_vjp

DEFINITION = "naive"
REPEATS = 7
SLICE = 5


@dataclass(frozen=True)
class Timed:
    """What one direction took, and its results: first what has a part for each image, then what sums over images."""

    seconds: float
    results: tuple[Array, ...]


@dataclass(frozen=True)
class Case:
    """A function and its gradients on given data, in one layout.

    Parameters
    ----------
    name, layout
        What is compared.
    operations
        Those that the function runs forward, and those that its vjp runs.
    function
        The public function that returns y and the vjp.
    x, dy
        The batch and the gradient by the output, in the layout.
    arguments, options
        What the function takes besides x.
    """

    name: str
    layout: str
    operations: dict[str, tuple[Operation, ...]]
    function: Callable[..., Any]
    x: Array
    dy: Array
    arguments: tuple[Any, ...]
    options: dict[str, int]

    def strategies(self) -> tuple[str, ...]:
        """List the strategies of the forward operation, the preferred first."""
        return self.operations["forward"][0].names()

    def has(self, strategy: str, direction: str) -> bool:
        """Whether the strategy is one of every operation of a direction, so that no other stands in for it."""
        return all(strategy in operation.names() for operation in self.operations[direction])

    def run(self, strategy: str, images: slice = slice(None)) -> dict[str, Timed]:
        """Run a strategy in both directions, on some of the images."""
        x, dy = self.x[images], self.dy[images]
        start = perf_counter()
        y, vjp = self.function(x, *self.arguments, **self.options, layout=self.layout, strategy=strategy)
        between = perf_counter()
        gradients = vjp(dy)
        end = perf_counter()
        gradients = gradients if isinstance(gradients, tuple) else (gradients,)
        return {"forward": Timed(between - start, (y,)), "backward": Timed(end - between, gradients)}

    def run_definition(self, advance: Callable[[int], None]) -> dict[str, Timed]:
        """Run the definition a few images at a time, and tell `advance` how many were done."""
        runs = []
        for start in range(0, len(self.x), SLICE):
            images = slice(start, start + SLICE)
            runs.append(self.run(DEFINITION, images))
            advance(len(self.x[images]))
        return {direction: _joined([run[direction] for run in runs]) for direction in self.operations}


def _joined(parts: Sequence[Timed]) -> Timed:
    each_image, *sums = zip(*(part.results for part in parts), strict=True)
    return Timed(
        sum(part.seconds for part in parts),
        (np.concatenate(each_image), *(np.sum(terms, axis=0) for terms in sums)),
    )


def convolution(images: int, axes: str) -> Case:
    """Make the convolution of CS231n's comparison."""
    normal = np.random.default_rng(0).normal
    x, dy = normal(size=(images, 3, 31, 31)), normal(size=(images, 25, 16, 16))
    w, b = normal(size=(25, 3, 3, 3)), normal(size=25)
    layout = data_layout(axes, 2)
    return Case(
        "conv",
        axes,
        {"forward": (CONV,), "backward": (CONV_INPUT_GRAD, CONV_WEIGHT_GRAD)},
        conv2d_vjp,
        _place(x, layout),
        _place(dy, layout),
        (_place(w, weight_layout_for(layout, None)), b),
        {"stride": 2, "padding": 1},
    )


def pooling(images: int, axes: str) -> Case:
    """Make the max pool of CS231n's comparison."""
    normal = np.random.default_rng(0).normal
    x, dy = normal(size=(images, 3, 32, 32)), normal(size=(images, 3, 16, 16))
    layout = data_layout(axes, 2)
    return Case(
        "pool",
        axes,
        {"forward": (POOL,), "backward": (POOL_GRAD,)},
        max_pool2d_vjp,
        _place(x, layout),
        _place(dy, layout),
        (2,),
        {"stride": 2},
    )


def _place(canonical: Array, layout: Layout) -> Array:
    return np.ascontiguousarray(layout.restore(canonical))


@dataclass(frozen=True)
class Row:
    """One line of the table; where the strategy declined, why, and no numbers."""

    operation: str
    layout: str
    strategy: str
    seconds: float = 0.0
    speedup: float = 0.0
    difference: float = 0.0
    declined: str = ""


def compare(case: Case, advance: Callable[[int], None]) -> Iterator[Row]:
    """Run every strategy of a case; `advance` is told how many images the definition has done."""
    definition = case.run_definition(advance)
    for strategy in case.strategies():
        declined, runs = "", [definition]
        if strategy != DEFINITION:
            try:
                case.run(strategy)  # finds what later runs remember
                runs = [case.run(strategy) for _ in range(REPEATS)]
            except (UnsupportedError, WorkspaceError) as error:
                declined = error.cause
        for direction, expected in definition.items():
            if not case.has(strategy, direction):
                continue
            place = (f"{case.name} {direction}", case.layout, strategy)
            if declined:
                yield Row(*place, declined=declined)
            else:
                seconds = median(run[direction].seconds for run in runs)
                difference = _largest_difference(runs[0][direction].results, expected.results)
                yield Row(*place, seconds, expected.seconds / seconds, difference)


def _largest_difference(found: Sequence[Array], expected: Sequence[Array]) -> float:
    return float(np.max([np.abs(one - other).max() for one, other in zip(found, expected, strict=True)]))


def table(rows: Iterable[Row], title: str) -> Table:
    """Lay the rows out, grouped by operation."""
    result = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for header in ("Operation", "Layout", "Strategy"):
        result.add_column(header, overflow="fold")
    for header in ("Time", "Speed-up", "Largest difference"):
        result.add_column(header, overflow="fold", justify="right")
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.operation, []).append(row)
    for operation, members in groups.items():
        for label, row in zip([operation] + [""] * len(members), members, strict=False):
            result.add_row(label, row.layout, row.strategy, *_cells(row))
        result.add_section()
    return result


def _cells(row: Row) -> tuple[str, ...]:
    if row.declined:
        return ("declines",)
    time = f"{row.seconds:.2f} s" if row.seconds >= 1 else f"{1000 * row.seconds:.2f} ms"
    return time, f"{row.speedup:,.0f}x", f"{row.difference:.2g}"
