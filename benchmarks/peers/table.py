"""The README's table, from a report of `convkernels bench`: a line for each kind of layer, as Markdown.

Geometric means of the best peer's time over ours, at precision "default"; above 1 the library is faster::

    convkernels bench --full --threads 1 --dtype float32
    python benchmarks/peers/table.py convkernels-bench.json
"""

import sys
from pathlib import Path

from convkernels.cli.bench.results import Report, Row, load
from convkernels.cli.bench.summary import Mean, means

LAYOUTS = ("NCHW", "NHWC")
LIBRARIES = ("PyTorch", "ONNX Runtime", "NumPy", "Numba")


def cell(rows: list[Row], kind: str, layout: str, *, forward: bool) -> str:
    """The mean of a kind in a layout, forward or over all its gradients; bold where the library is faster."""
    chosen = [row for row in rows if (row.kind, row.layout) == (kind, layout)]
    ratio = Mean.of(row for row in chosen if (row.direction == "forward") == forward).ratio
    if ratio is None:
        return "-"
    return f"**{ratio:.2f}**" if ratio > 1 else f"{ratio:.2f}"


def table(report: Report) -> str:
    """The table, and below it where it was measured."""
    rows = [row for row in report.rows if row.precision == "default" and row.seconds is not None]
    headers = ["layers", *(f"{what}, {layout}" for what in ("forward", "gradients") for layout in LAYOUTS)]
    lines = [f"| {' | '.join(headers)} |", "|---|" + "--:|" * 4]
    for (kind,) in means(rows, "kind"):
        cells = [cell(rows, kind, layout, forward=forward) for forward in (True, False) for layout in LAYOUTS]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    known = report.environment
    versions = ", ".join(f"{name} {known[name]}" for name in LIBRARIES if name in known)
    threads, dtypes = ({getattr(row, name) for row in rows} for name in ("threads", "dtype"))
    counts = " and ".join(f"{count} thread{'s' * (count > 1)}" for count in sorted(threads))
    lines += ["", f"{known['processor']}, {counts}, {' and '.join(sorted(dtypes))}; {versions}."]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(load(Path(sys.argv[1]))))
