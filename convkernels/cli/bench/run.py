"""Measuring a selection of cells behind a progress bar, and telling what was found."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from convkernels.cli.errors import CommandError
from convkernels.cli.files import write
from convkernels.plugins import load_plugins

from . import machine
from .cells import Cell, Selection
from .measure import measure
from .peers import find_peers
from .picture import draw
from .problems import sample
from .results import Report, load, merged
from .tables import all_tables
from .timing import Rules

SAVED_EVERY = 30.0
"""Seconds of work that an interruption may cost at most."""
UNDISTURBED = 0.95
"""Of a processor, that a process has if nobody else works."""


@dataclass(frozen=True)
class Request:
    """What the command line asks for.

    Parameters
    ----------
    selection, rules
        What to measure, and how often.
    output, picture : Path
        Where the report and the picture go.
    resume : tuple of Path
        Reports whose rows are taken over and not measured again.
    show : bool
        Whether to measure nothing.
    every_cell : bool
        Whether to print each row.
    """

    selection: Selection
    rules: Rules
    output: Path
    picture: Path
    resume: tuple[Path, ...] = ()
    show: bool = False
    every_cell: bool = False


def run(console: Console, request: Request) -> None:
    """Measure what is missing, save it, and tell."""
    report = started(request)
    if not request.show:
        report = with_missing(request, report)
    if not any(row.seconds is not None for row in report.rows):
        raise CommandError("nothing to show: no cell was measured", 2)
    if request.show:
        report.save(request.output)
    for table in all_tables(report, every_cell=request.every_cell):
        console.print(table)
    console.print(", ".join(f"{name} {value}" for name, value in report.environment.items()))
    if not any(row.peers for row in report.rows):
        console.print("There was nobody to compare with: pip install torch onnxruntime onnx")
    states = sorted({row.source for row in report.rows})
    if len(states) > 1:
        console.print(f"These are rows of {len(states)} states of the source: {', '.join(states)}")
    disturbed = sum(row.processor_share is not None and row.processor_share < UNDISTURBED for row in report.rows)
    if disturbed:
        console.print(f"The machine was busy with other work during {disturbed} of {len(report.rows)} rows")
    console.print(f"The report is in {request.output}")
    figure = draw(report)
    write(request.picture, lambda part: figure.savefig(part, format="png"))
    console.print(f"The picture is in {request.picture}")


def started(request: Request) -> Report:
    """The report to add to: that of the files given, or an empty one."""
    files = request.resume or ((request.output,) if request.show else ())
    return merged([load(file) for file in files], [str(file) for file in files]) if files else Report({}, {})


def with_missing(request: Request, report: Report) -> Report:
    """The report with what it lacked; it is saved as it grows."""
    load_plugins()
    peers = find_peers()
    here = Report(machine.environment(peers), asdict(request.rules))
    report = merged([report, here], [str(request.resume[0]), "this machine"]) if report.rows else here
    saved = -math.inf  # a place that cannot be written is found out after the first cell
    try:
        for cell in tracked(lacking(request.selection, report)):
            rows = measure(cell, request.selection.layouts, request.selection.precisions, peers, request.rules)
            report = replace(report.with_rows(rows), peaks=report.peaks | machine.peaks())
            if perf_counter() - saved > SAVED_EVERY:
                report.save(request.output)
                saved = perf_counter()
    except KeyboardInterrupt:
        raise CommandError(f"interrupted; go on with --resume {request.output}", 130) from None
    finally:  # whatever ends it, hours of measuring are not lost
        if report.rows:
            report.save(request.output)
    return report


def tracked(cells: Sequence[Cell]) -> Iterator[Cell]:
    """Yield the cells behind a progress bar."""
    stderr = Console(stderr=True, markup=False, emoji=False, highlight=False)
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    text = TextColumn("{task.description}", markup=False)
    with Progress(*columns, text, console=stderr, transient=True, disable=not stderr.is_terminal) as progress:
        task = progress.add_task("", total=len(cells))
        for cell in cells:
            progress.update(task, description=str(cell))
            yield cell
            progress.advance(task)


def lacking(selection: Selection, report: Report) -> list[Cell]:
    """The selected cells of which a row is missing."""
    present = {row.key for row in report.rows}
    return [
        cell
        for cell in selection.cells(sample())
        if any(
            (cell.problem, cell.direction, layout, cell.threads, precision) not in present
            for layout in selection.layouts
            for precision in selection.precisions
        )
    ]
