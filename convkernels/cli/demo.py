"""The demonstration: filtered photos, then the comparison of all strategies."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from convkernels.plugins import load_plugins

from . import comparison, pictures, train
from .filters import filtered

LAYOUTS = ("NCHW", "NHWC")
FULL = 100
"""Images that strategies are compared on; on fewer, the training is short, too."""


def run(console: Console, files: Sequence[Path], output: Path, batch: int) -> None:
    """Draw the filtered photos into `output`, then compare the strategies on a batch of so many images."""
    filter_photos(files, output)
    typer.echo(
        f"\nComparing every strategy with {comparison.DEFINITION}, the definition in Python loops, on {batch} images:\n"
        f"  conv  x ({batch}, 3, 31, 31), w (25, 3, 3, 3), b (25,), stride 2, padding 1\n"
        f"  pool  the largest of 2x2 with stride 2 on x ({batch}, 3, 32, 32)\n"
        f"The loops take most of the time, some {0.4 * batch:.0f} seconds.\n"
    )
    rows = compare_strategies(batch)
    console.print(
        comparison.table(rows, f"{batch} images, float64, against {comparison.DEFINITION} in the same layout")
    )
    for row in rows:
        if row.declined:
            typer.echo(f"{row.strategy} declines {row.operation} in {row.layout}: {row.declined}")
    train_on_digits(console, output, 3 if batch < FULL else None)


def train_on_digits(console: Console, output: Path, epochs: int | None) -> None:
    """Train the MNIST network on handwritten digits, and write what came of it beside `output`."""
    folder = output.with_name(f"{output.stem}-training")
    unfinished = (folder / train.CHECKPOINT).is_file()
    typer.echo("\nTraining a network on handwritten digits:\n")
    train.run(console, train.Options(epochs=epochs, output=folder, resume=unfinished))


def filter_photos(files: Sequence[Path], output: Path) -> None:
    """Filter each photo in both layouts, say how far they differ, and save the picture."""
    rows = []
    for photo in map(pictures.read_photo, files) if files else pictures.sample_photos():
        results = {layout: filtered(photo.pixels, layout) for layout in LAYOUTS}
        rows += [(photo, layout, result) for layout, result in results.items()]
        first, second = results.values()
        difference = np.max([np.abs(first[name] - second[name]).max() for name in first])
        typer.echo(f"{photo}: filtered in {' and '.join(LAYOUTS)}, largest difference {difference:.2g}")
    pictures.save(pictures.draw(rows, "" if files else pictures.SAMPLE_CREDIT), output)
    typer.echo(f"The filtered pictures are in {pictures.printable(output)}")


def compare_strategies(batch: int) -> list[comparison.Row]:
    """Run the comparison behind a progress bar, which counts the images that the definition has done."""
    load_plugins()
    stderr = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    rows: list[comparison.Row] = []
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as progress:
        for build in (comparison.convolution, comparison.pooling):
            cases = [build(batch, layout) for layout in LAYOUTS]
            task = progress.add_task(f"{cases[0].name} by {comparison.DEFINITION}", total=batch * len(cases))
            for case in cases:
                rows += comparison.compare(case, partial(progress.advance, task))
    return rows
