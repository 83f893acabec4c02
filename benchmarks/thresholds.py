"""From which size on one strategy of convolution beats another: the table behind `prefers`.

Both run in turns, on one thread and one image, over a grid of channels, sizes and kernels; forward, input gradient and
weight gradient, channels first and last, float32 and float64. For each of these the size, in operations for an image
and group, is chosen from which on taking the first strategy costs least: the geometric mean over the grid of the time
taken over that of the better one, which is told, too. Prints a table and writes JSON::

    python benchmarks/thresholds.py --output thresholds.json            # direct against im2col, some ten minutes
    python benchmarks/thresholds.py --first winograd --second direct
    python benchmarks/thresholds.py --every 5                           # a fifth of the grid

    {"first": "direct", "second": "im2col", "environment": {...},
     "thresholds": {"forward": {"channels_first": {"float32": {"size": 1600000, "cost": 1.02, "points": 70}, ...
     "points": [{"problem": ..., "direction": ..., "order": ..., "dtype": ..., "size": ..., "ratio": ...}, ...]}

A ratio is the second's time over the first's. A size of null says that the first never pays.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
from threadpoolctl import threadpool_limits

from convkernels.cli.bench import machine, ours
from convkernels.cli.bench.cells import DIRECTIONS, DTYPES, Cell
from convkernels.cli.bench.judge import TOLERANCES
from convkernels.cli.bench.measure import ratio
from convkernels.cli.bench.problems import Layer
from convkernels.cli.bench.results import geometric_mean
from convkernels.cli.bench.task import Task
from convkernels.cli.bench.timing import Rules, race
from convkernels.planning import explain

ORDERS = {"channels_first": "NCHW", "channels_last": "NHWC"}
CHANNELS = ((3, 32), (8, 8), (16, 16), (32, 32), (64, 64), (64, 256), (256, 64), (128, 128), (256, 256))
SIZES = (4, 7, 14, 28, 56)
KERNELS = ((1, 1), (1, 2), (3, 1), (3, 2), (5, 1))
"""Kernel sizes, and strides."""
LARGEST = 300_000_000
"""Operations beyond which there is no question."""

Point = dict[str, Any]


def grid() -> Iterator[Layer]:
    """The problems, dense and depthwise."""
    for (ins, outs), size, (kernel, stride) in product(CHANNELS, SIZES, KERNELS):
        pad, groups = kernel // 2, {1}
        if ins == outs and kernel > 1:
            groups.add(ins)
        for count in sorted(groups):
            geometry = f"in{size}x{size}_k{kernel}x{kernel}_s{stride}x{stride}_p{pad}+{pad}x{pad}+{pad}_d1x1"
            layer = Layer(f"n1g{count}i{ins}o{outs}_{geometry}", "grid")
            if layer.spec.flops <= LARGEST:
                yield layer


def measure(cell: Cell, order: str, first: str, second: str, rules: Rules) -> Point | None:
    """The point of a cell, or None where one of the strategies declines."""
    task = Task.make(cell)
    try:
        pair = [ours.contestant(task, ORDERS[order], "default", 1, strategy) for strategy in (first, second)]
    except ours.DeclinedError:
        return None
    results = [made.canonical(made.run())[0] for made in pair]
    scale = float(np.abs(results[1]).max())
    np.testing.assert_allclose(*results, rtol=0, atol=scale * TOLERANCES[cell.dtype], err_msg=str(cell))
    medians = race({"first": pair[0].run, "second": pair[1].run}, rules).medians
    return {
        "problem": cell.problem,
        "direction": cell.direction,
        "order": order,
        "dtype": cell.dtype,
        "size": task.spec.flops // (task.spec.batch * task.spec.groups),
        "ratio": ratio(medians["second"], medians["first"]),
    }


def threshold(points: Iterable[Point]) -> tuple[int | None, float]:
    """The size from which on to take the first strategy, None for never, and what that costs.

    Examples
    --------
    >>> threshold([{"size": 1, "ratio": 0.5}, {"size": 2, "ratio": 2.0}, {"size": 3, "ratio": 4.0}])
    (2, 1.0)
    >>> threshold([{"size": 1, "ratio": 0.5}])
    (None, 1.0)
    """
    found = sorted(points, key=lambda point: point["size"])

    def cost(size: float) -> float:
        # Whoever takes the slower of the two pays the ratio, or its inverse.
        taken = ((point["ratio"], point["size"] >= size) for point in found)
        return geometric_mean(max(1.0, 1 / ratio if first else ratio) for ratio, first in taken)

    best = min([*(point["size"] for point in found), math.inf], key=cost)
    return None if best == math.inf else best, cost(best)


def table_of(points: Iterable[Point]) -> dict[str, dict[str, dict[str, Any]]]:
    """The threshold of each direction, order and type."""
    groups: dict[tuple[str, str, str], list[Point]] = {}
    for point in points:
        groups.setdefault((point["direction"], point["order"], point["dtype"]), []).append(point)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for (direction, order, dtype), members in groups.items():
        size, cost = threshold(members)
        entry = {"size": size, "cost": round(cost, 4), "points": len(members)}
        found.setdefault(direction, {}).setdefault(order, {})[dtype] = entry
    return found


def show(found: dict[str, dict[str, dict[str, Any]]], first: str, second: str) -> Table:
    """The thresholds as a table."""
    table = Table(title=f"From how many operations for an image and group on {first} beats {second}")
    for header in ("Direction", "Order", "Type"):
        table.add_column(header)
    for header in ("Size", "Cost", "Points"):
        table.add_column(header, justify="right")
    for direction, orders in found.items():
        for order, dtypes in orders.items():
            for dtype, entry in dtypes.items():
                size = "never" if entry["size"] is None else f"{entry['size']:,}"
                table.add_row(direction, order, dtype, size, f"{entry['cost']:.3f}", str(entry["points"]))
    return table


def main() -> None:
    """Measure the grid."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--first", default="direct", help="the strategy for large problems")
    parser.add_argument("--second", default="im2col", help="the strategy for small ones")
    parser.add_argument("--every", type=int, default=1, help="take each EVERY-th problem of the grid")
    parser.add_argument("--output", type=Path, default=Path("thresholds.json"), help="where the JSON goes")
    given = parser.parse_args()
    for strategy in (given.first, given.second):
        explain("n1g1i1o1_in8x8_k3x3_s1x1_p1+1x1+1_d1x1", strategy=strategy)  # an unknown one is refused here
    layers = list(grid())[:: given.every]
    cells = list(product(layers, DIRECTIONS[:3], DTYPES, ORDERS))
    points = []
    with threadpool_limits(limits=1):
        for layer, direction, dtype, order in track(cells, console=Console(stderr=True), transient=True):
            cell = Cell(layer, direction, dtype, 1, 1)
            point = measure(cell, order, given.first, given.second, Rules(repeats=1))
            if point is not None:
                points.append(point)
    found = table_of(points)
    report = {"first": given.first, "second": given.second, "environment": machine.environment([])}
    given.output.write_text(json.dumps(report | {"thresholds": found, "points": points}, indent=1) + "\n")
    Console().print(show(found, given.first, given.second))
    print(f"The points are in {given.output}")


if __name__ == "__main__":
    main()
