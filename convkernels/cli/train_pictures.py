"""What came of a training: curves, a grid of predictions, the confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from rich import box
from rich.table import Table

from convkernels.layout import Array, Layout
from convkernels.nn import Trainer
from convkernels.nn.data import Dataset

SIDE = 5
PICTURE = Layout("NHWC")


def predicted(trainer: Trainer, size: int = 512) -> Array:
    """The classes that a network gives to the pictures held out."""
    x = trainer.data.test_x
    return np.concatenate([trainer.predict(x[start : start + size]) for start in range(0, len(x), size)])


def curves(history: Mapping[str, Sequence[float]], steps_per_epoch: int) -> Figure:
    """Draw the loss of each step, and the accuracies of each epoch.

    Parameters
    ----------
    history : mapping of str to sequence of float
        A trainer's.
    steps_per_epoch : int
        The steps between two of its test scores.
    """
    figure = Figure(figsize=(10, 4), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    steps = np.arange(1, len(history["loss"]) + 1) / steps_per_epoch
    epochs = np.arange(1, len(history["test_loss"]) + 1)
    left.plot(steps, history["loss"], ".", color="lightsteelblue", label="each batch")
    left.plot(epochs, history["test_loss"], "o-", color="darkorange", label="test")
    left.set(xlabel="epoch", ylabel="loss", yscale="log")
    means = [
        float(np.mean(history["accuracy"][epoch * steps_per_epoch : (epoch + 1) * steps_per_epoch]))
        for epoch in range(len(epochs))
    ]
    right.plot(epochs, means, "o-", color="steelblue", label="training")
    right.plot(epochs, history["test_accuracy"], "o-", color="darkorange", label="test")
    right.set(xlabel="epoch", ylabel="accuracy")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def predictions(data: Dataset, found: Array) -> Figure:
    """Draw a grid of pictures held out, with what they were taken for; wrong ones first, and red.

    Parameters
    ----------
    data : Dataset
        The pictures.
    found : ndarray
        The class that each of those held out was taken for.
    """
    wrong = np.flatnonzero(found != data.test_y)[: SIDE * SIDE // 2]
    right = np.flatnonzero(found == data.test_y)[: SIDE * SIDE - len(wrong)]
    figure = Figure(figsize=(2 * SIDE, 2.2 * SIDE), dpi=100, layout="constrained")
    shown = PICTURE.restore(Layout(data.layout).view(data.test_x))
    low, high = float(shown.min()), float(shown.max())
    for axes in figure.subplots(SIDE, SIDE).flat:
        axes.set_axis_off()
    for axes, number in zip(figure.axes, [*wrong, *right], strict=False):
        picture = (shown[number] - low) / max(high - low, 1e-12)
        axes.imshow(picture if picture.shape[-1] == 3 else picture[..., 0], cmap="gray_r", vmin=0, vmax=1)
        label, guess = data.classes[data.test_y[number]], data.classes[found[number]]
        ok = label == guess
        axes.set_title(guess if ok else f"{guess}, is {label}", color="black" if ok else "crimson", fontsize=11)
    figure.supxlabel(data.credit, fontsize=7, color="dimgray", wrap=True)
    return figure


def confusion(data: Dataset, found: Array) -> Table:
    """Count how often pictures of each class were taken for each.

    Parameters
    ----------
    data : Dataset
        The pictures.
    found : ndarray
        The class that each of those held out was taken for.
    """
    classes = len(data.classes)
    counts = np.bincount(data.test_y * classes + found, minlength=classes * classes).reshape(classes, classes)
    table = Table(title="Pictures of each class (rows), by what they were taken for", box=box.SIMPLE, pad_edge=False)
    table.add_column("", style="bold", no_wrap=True)
    for name in data.classes:
        table.add_column(name[:5], justify="right", no_wrap=True)
    for place, row in enumerate(counts):
        table.add_row(data.classes[place], *(str(count) if count else "." for count in row))
    return table
