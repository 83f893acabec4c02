"""`convkernels train`: a network trained on real pictures, with what came of it in files."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from convkernels import nn
from convkernels.nn import data as pictures
from convkernels.nn import models

from . import train_pictures
from .errors import CommandError
from .pictures import printable, save

CHECKPOINT = "checkpoint.npz"


@dataclass(frozen=True)
class Plan:
    """How a data set is usually trained: what the command line does not say."""

    net: str
    epochs: int
    batch_size: int
    lr: float
    lr_decay: float = 1.0
    weight_decay: float = 0.0
    shift: int = 0
    flip: bool = False


PLANS = {
    "digits": Plan("mnist-bn", 40, 32, 3e-3, lr_decay=0.94),
    "mnist": Plan("mnist", 10, 256, 1e-3),
    "cifar10": Plan("three-layer", 1, 50, 1e-3, weight_decay=1e-3),
}
NETS: dict[str, Callable[[tuple[int, int, int], str, int], nn.Sequential]] = {
    "mnist": lambda xdim, layout, seed: models.mnist_net(xdim, hdims=(32,), layout=layout, generator=seed),
    "mnist-bn": lambda xdim, layout, seed: models.mnist_net(
        xdim, hdims=(32,), batch_norm=True, layout=layout, generator=seed
    ),
    "three-layer": lambda xdim, layout, seed: models.three_layer_net(
        xdim, hidden_dim=500, layout=layout, generator=seed
    ),
    "lenet5": lambda xdim, layout, seed: models.lenet5(xdim, layout=layout, generator=seed),
    "resnet": lambda xdim, layout, seed: models.resnet(xdim, layout=layout, generator=seed),
}


@dataclass(frozen=True)
class Options:
    """What the command line says; None is what is usual for the data."""

    data: str = "digits"
    path: Path | None = None
    net: str | None = None
    layout: str = "NHWC"
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    seed: int = 0
    output: Path = Path("convkernels-train")
    resume: bool = False


def run(console: Console, options: Options) -> None:
    """Train, and write weights and pictures; if interrupted, a checkpoint to go on from."""
    plan = PLANS[options.data]
    epochs = options.epochs or plan.epochs
    checkpoint = options.output / CHECKPOINT
    check_folder(options.output, checkpoint, options.resume)
    trainer = make_trainer(options, plan)
    typer.echo(nn.summary(trainer.net, trainer.data.test_x[:1].shape))
    if options.resume:
        trainer.load(checkpoint)
        typer.echo(f"\nGoing on after {trainer.step} steps")
    else:
        score = trainer.evaluate(trainer.data.test_x, trainer.data.test_y)
        chance = 1 / len(trainer.data.classes)
        typer.echo(f"\nUntrained: test accuracy {score.accuracy:.4f}, where guessing has {chance:.2f}")
    if not train(trainer, epochs, checkpoint):
        raise CommandError(
            f"interrupted after {trainer.step} steps: --resume goes on from {printable(checkpoint)}", 130
        )
    finish(console, trainer, options.output)
    checkpoint.unlink(missing_ok=True)


def check_folder(folder: Path, checkpoint: Path, resume: bool) -> None:
    """Make the folder for the results; an unfinished training in it is gone on with, or let be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"cannot write into {printable(folder)}: {error.strerror or error}") from None
    if resume and not checkpoint.is_file():
        raise CommandError(f"there is no {printable(checkpoint)} to go on from", 2)
    if not resume and checkpoint.exists():
        raise CommandError(
            f"{printable(checkpoint)} is an unfinished training: --resume goes on with it, --output starts elsewhere", 2
        )


def read_data(options: Options) -> pictures.Dataset:
    """The pictures, in the layout asked for."""
    if options.data == "digits":
        if options.path is not None:
            raise CommandError("the digits come with scikit-learn: --data is for mnist and cifar10", 2)
        return pictures.digits().in_layout(options.layout)
    if options.path is None:
        raise CommandError(f"{options.data} is read from your own copy: --data says in which folder its files are", 2)
    if options.data == "mnist":
        return pictures.mnist(options.path).in_layout(options.layout)
    return pictures.cifar10(options.path).centred().in_layout(options.layout)


def make_trainer(options: Options, plan: Plan) -> nn.Trainer:
    """The network on its data."""
    data = read_data(options)
    net = NETS[options.net or plan.net](data.picture_shape, options.layout, options.seed)
    augment = pictures.crops_and_flips(plan.shift, plan.flip, options.layout) if plan.shift or plan.flip else None
    return nn.Trainer(
        net,
        data,
        nn.Adam(options.lr or plan.lr, weight_decay=plan.weight_decay),
        batch_size=options.batch_size or plan.batch_size,
        seed=options.seed,
        augment=augment,
        lr_decay=plan.lr_decay,
    )


def train(trainer: nn.Trainer, epochs: int, checkpoint: Path) -> bool:
    """Train behind a progress bar, with a line for each epoch; whether it came to its end."""
    stderr = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    total = epochs * trainer.steps_per_epoch
    start = time.perf_counter()
    with (
        Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as progress,
        watched_for_interrupts() as interrupted,
    ):
        task = progress.add_task("training", total=total, completed=trainer.step)
        for step in trainer.steps(epochs):
            progress.update(task, completed=trainer.step, description=f"loss {step.loss:.4f}")
            if step.batch == trainer.steps_per_epoch - 1:
                typer.echo(epoch_line(trainer, step.epoch, epochs, time.perf_counter() - start))
                trainer.save(checkpoint)
                start = time.perf_counter()
            if interrupted() and trainer.step < total:
                trainer.save(checkpoint)
                return False
    return True


def epoch_line(trainer: nn.Trainer, epoch: int, epochs: int, seconds: float) -> str:
    """What an epoch came to."""
    history, batches = trainer.history, trainer.steps_per_epoch
    loss, accuracy = (
        sum(history[name][epoch * batches : (epoch + 1) * batches]) / batches for name in ("loss", "accuracy")
    )
    return (
        f"epoch {epoch + 1:{len(str(epochs))}}/{epochs}: training loss {loss:.4f}, accuracy {accuracy:.4f}; "
        f"test loss {history['test_loss'][epoch]:.4f}, accuracy {history['test_accuracy'][epoch]:.4f}; {seconds:.1f} s"
    )


@contextmanager
def watched_for_interrupts() -> Iterator[Callable[[], bool]]:
    """Note a first Ctrl-C, so that the step under way is finished; a second one is Python's own."""
    seen: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(seen)
    finally:
        signal.signal(signal.SIGINT, before)


def finish(console: Console, trainer: nn.Trainer, folder: Path) -> None:
    """Write the weights and the pictures, and print the confusion matrix."""
    data = trainer.data
    weights = folder / "weights.npz"
    nn.save_arrays(weights, trainer.net.state_dict())
    save(train_pictures.curves(trainer.history, trainer.steps_per_epoch), folder / "curves.png")
    found = train_pictures.predicted(trainer)
    save(train_pictures.predictions(data, found), folder / "predictions.png")
    console.print(train_pictures.confusion(data, found))
    right = int((found == data.test_y).sum())
    typer.echo(f"Test accuracy {right / len(found):.4f}: {right} of {len(found)}")
    typer.echo(f"The weights and pictures are in {printable(folder)}")
