"""Ratios as a picture: a dot for each cell, a bar at each geometric mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from .cells import DIRECTIONS
from .problems import KINDS
from .results import Report, Row, geometric_mean

COLOURS = dict(zip(DIRECTIONS, ("#1f77b4", "#17becf", "#2ca02c", "#ff7f0e", "#d62728"), strict=True))
HEIGHT = 0.8
"""Of a kind's line, which its directions share, in units of the distance between lines."""

Point = tuple[Row, float]


def draw(report: Report, precision: str = "default") -> Figure:
    """Draw a panel for each type and layout; right of the line the library is faster than every peer.

    Where no peer took part, the share of the machine's peak is drawn instead.
    """
    ran = [row for row in report.rows if row.seconds is not None and row.precision == precision]
    peers = any(row.ratio is not None for row in ran)
    points = [(row, value) for row in ran if (value := row.ratio if peers else row.peak_share) is not None]
    kinds = [kind for kind in KINDS if any(row.kind == kind for row, _ in points)]
    dtypes = sorted({row.dtype for row, _ in points}) or ["float32"]
    layouts = sorted({row.layout for row, _ in points}) or ["NCHW"]
    size = (1.5 + 4.6 * len(layouts), 1.4 + (0.6 + 0.34 * len(kinds)) * len(dtypes))
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    grid = figure.subplots(len(dtypes), len(layouts), squeeze=False, sharex=True, sharey=True)
    for dtype, line in zip(dtypes, grid, strict=True):
        for layout, axes in zip(layouts, line, strict=True):
            axes.set_title(f"{dtype}, {layout}", fontsize=10)
            _panel(axes, [point for point in points if (point[0].dtype, point[0].layout) == (dtype, layout)], kinds)
    label = "best peer's time / ours (above 1: faster)" if peers else "share of the machine's peak"
    for axes in grid[-1]:
        axes.set_xlabel(label, fontsize=9)
    present = [direction for direction in DIRECTIONS if any(row.direction == direction for row, _ in points)]
    handles = [Line2D([], [], color=COLOURS[name], marker="o", linestyle="", markersize=4) for name in present]
    figure.legend(handles, present, loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    figure.suptitle(title(report, precision), fontsize=9, color="dimgray")
    return figure


def title(report: Report, precision: str) -> str:
    """Where, with what, and against whom."""
    known = report.environment
    libraries = ("convkernels", "PyTorch", "ONNX Runtime", "NumPy")
    versions = [f"{name} {known[name]}" for name in libraries if name in known]
    threads = " and ".join(map(str, sorted({row.threads for row in report.rows})))
    return f"{known.get('processor', '')}, threads: {threads}, precision: {precision}\n{', '.join(versions)}"


def _panel(axes: Any, points: Sequence[Point], kinds: Sequence[str]) -> None:
    for place, kind in enumerate(kinds):
        members = [(row.direction, value) for row, value in points if row.kind == kind]
        shown = [direction for direction in DIRECTIONS if any(found == direction for found, _ in members)]
        for turn, direction in enumerate(shown):
            height = place + HEIGHT * ((turn + 0.5) / len(shown) - 0.5)
            values = [value for found, value in members if found == direction]
            axes.plot(values, [height] * len(values), "o", color=COLOURS[direction], alpha=0.35, markersize=3)
            axes.plot(
                [geometric_mean(values)], [height], "|", color=COLOURS[direction], markersize=9, markeredgewidth=2
            )
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_yticks(range(len(kinds)), kinds, fontsize=8)
    axes.set_ylim(len(kinds) - 0.5, -0.5)  # the first kind on top
    axes.grid(axis="x", alpha=0.3)
    axes.tick_params(axis="x", labelsize=8)
