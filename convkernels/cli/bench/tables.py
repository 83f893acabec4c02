"""Reports as tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich import box
from rich.table import Table

from .results import Report, Row
from .summary import DIMENSIONS, Mean, errors, means, worst

WORST = 20


def all_tables(report: Report, *, every_cell: bool) -> Iterator[Table]:
    """Everything worth seeing, from the whole to the single cell."""
    ran = [row for row in report.rows if row.seconds is not None]
    measured = any(row.ratio is not None for row in ran)
    for precision, rows in together(ran).items():
        yield by_kind(rows, precision, ratios=measured)
    yield by_dimension(ran)
    if errors(ran):
        yield largest_errors(ran)
    if measured:
        yield cells(worst(ran, WORST), "The least ratios")
    if every_cell:
        yield cells(ran, "Every cell")
    declined = [row for row in report.rows if row.seconds is None]
    if declined:
        yield refusals(declined)


def together(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows of each precision; of several as one where they are all the same measurements."""
    precisions: dict[str, list[Row]] = {}
    for row in rows:
        precisions.setdefault(row.precision, []).append(row)
    found: dict[str, list[Row]] = {}
    for precision, members in precisions.items():
        same = next((name for name, others in found.items() if _measured(others) == _measured(members)), None)
        if same is None:
            found[precision] = members
        else:
            found[f"{same}, {precision}"] = found.pop(same)
    return found


def _measured(rows: Iterable[Row]) -> set[tuple[object, ...]]:
    return {_measurement(row) for row in rows}


def _measurement(row: Row) -> tuple[object, ...]:
    """What two rows share if they differ in nothing but the precision that was asked for."""
    return row.problem, row.direction, row.layout, row.threads, row.implementation, row.seconds


def _table(title: str, left: Iterable[str], right: Iterable[str]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for header in left:
        table.add_column(header, overflow="fold")
    for header in right:
        table.add_column(header, justify="right", no_wrap=True)
    return table


def number(value: float | None) -> str:
    """A ratio to two digits behind the point, or one that counts; a dash where there is none."""
    if value is None:
        return "-"
    return f"{value:.2f}" if value >= 0.095 else f"{value:.1g}"


def by_kind(rows: Sequence[Row], precision: str, *, ratios: bool) -> Table:
    """A line for each kind and direction, a column for each type, layout and number of threads."""
    columns = list(means(rows, "dtype", "layout", "threads"))
    what = "best peer's time over ours" if ratios else "share of the machine's peak"
    table = _table(
        f"{what}, geometric means, precision {precision}",
        ("Kind", "Direction"),
        (f"{dtype}\n{layout}\n{threads} thread{'s' * (threads > 1)}" for dtype, layout, threads in columns),
    )
    found = means(rows, "kind", "direction", "dtype", "layout", "threads")
    before = ""
    for kind, direction in means(rows, "kind", "direction"):
        picked = [found.get((kind, direction, *column)) for column in columns]
        values = [None if mean is None else mean.ratio if ratios else mean.share for mean in picked]
        table.add_row("" if kind == before else kind, direction, *(number(value) for value in values))
        before = kind
    return table


def by_dimension(rows: Sequence[Row]) -> Table:
    """The means over all that one thing is common to."""
    table = _table("Geometric means", ("Over", ""), ("Cells", "Ratio", "Least", "Below 1", "Of peak"))
    for dimension in DIMENSIONS:
        label = dimension
        for (value,), mean in means(rows, dimension).items():
            table.add_row(label, str(value), *_figures(mean))
            label = ""
        table.add_section()
    table.add_row("all", "", *_figures(Mean.of(rows)))
    return table


def _figures(mean: Mean) -> tuple[str, ...]:
    return str(mean.count), number(mean.ratio), number(mean.worst), str(mean.slower), number(mean.share)


def largest_errors(rows: Sequence[Row]) -> Table:
    """How far results are from the exact ones."""
    table = _table("Largest errors of float32 convolutions", ("Implementation",), ("In units of n eps sum|x||w|",))
    for implementation, error in errors(rows).items():
        table.add_row(implementation, f"{error:.2g}")
    return table


def cells(rows: Iterable[Row], title: str) -> Table:
    """Two lines for each row, or for several that are the same measurement."""
    table = _table(title, ("Cell",), ("Time,\nmemory", "Rate,\nof peak", "Best peer,\nits time", "Ratio"))
    found: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(_measurement(row), []).append(row)
    for row, *others in found.values():
        peer = row.peers.get(row.peer)
        precisions = ", ".join(one.precision for one in (row, *others))
        table.add_row(
            f"{row.problem}\n  {row.direction} {row.layout} {row.threads}t {row.implementation} ({precisions})",
            f"{_time(row.seconds)}\n{_size(row.memory)}",
            f"{row.rate:.1f} {row.unit}\n{number(row.peak_share)}",
            f"{row.peer}\n{_time(peer.seconds)}" if peer else "-",
            number(row.ratio),
        )
    return table


def refusals(rows: Iterable[Row]) -> Table:
    """What the library declined to compute."""
    table = _table("Declined", ("Problem", "Direction", "Layout", "Precision", "Reason"), ())
    for row in rows:
        table.add_row(row.problem, row.direction, row.layout, row.precision, row.declined)
    return table


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{1e3 * seconds:.2f} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.1f} us"


def _size(size: int | None) -> str:
    return "-" if size is None else f"{size / 2**20:.1f} MiB"
