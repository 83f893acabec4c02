"""The training loop: batches, steps, history, and checkpoints that go on as if nothing had happened.

What is random hangs on the seed and the number of the epoch or step alone, and dropout on generators whose state a
checkpoint has: so an interrupted training goes on with the very numbers of one that was not.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ..errors import DataError, OptionError, ShapeError
from ..layout import Array
from ..losses import softmax_cross_entropy_vjp
from ..window import whole
from .data import Dataset, batches
from .gradient_check import Loss
from .layer import Layer
from .optimisers import Optimiser, at_least_zero
from .saving import load_arrays, save_arrays

FORMAT = 1
SHUFFLE, AUGMENT = 0, 1
"""Which random numbers a seed is for."""


class Score(NamedTuple):
    """How good a network is on some samples."""

    loss: float
    accuracy: float


class Step(NamedTuple):
    """One step of a training: its epoch and batch, both from 0, and what the batch gave."""

    epoch: int
    batch: int
    loss: float
    accuracy: float


class Trainer:
    """Train a network on a data set.

    Parameters
    ----------
    net : Layer
        Takes a batch of pictures, and returns scores of shape (N, classes).
    data : Dataset
        What it is trained on, and what is held out.
    optimiser : Optimiser
        How parameters change.
    loss : callable
        ``loss(scores, labels)`` returns the loss and its vjp.
    batch_size : int
        The pictures of a step.
    seed : int
        Of the shuffling and the augmentation.
    augment : callable, optional
        ``augment(x, generator)`` makes new pictures of a batch, such as `data.crops_and_flips` makes.
    lr_decay : float
        What the learning rate is multiplied by after each epoch.

    Attributes
    ----------
    step : int
        How many steps there have been.
    history : dict of str to list of float
        "loss" and "accuracy" of each step's batch, and "test_loss" and "test_accuracy" after each epoch.

    Examples
    --------
    >>> from convkernels import nn
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(0, 2, 64)
    >>> x = (rng.normal(size=(64, 1, 4, 4)) + 2 * y[:, None, None, None]).astype(np.float32)
    >>> data = nn.data.Dataset("noise", x, y, x, y, ("dark", "bright"), "nobody")
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2, generator=0))
    >>> trainer = nn.Trainer(net, data, nn.Adam(lr=0.05), batch_size=16)
    >>> trainer.fit(epochs=5).accuracy
    1.0
    >>> len(trainer.history["loss"]), len(trainer.history["test_accuracy"])
    (20, 5)
    """

    def __init__(
        self,
        net: Layer,
        data: Dataset,
        optimiser: Optimiser,
        *,
        loss: Loss = softmax_cross_entropy_vjp,
        batch_size: int = 256,
        seed: int = 0,
        augment: Callable[[Array, np.random.Generator], Array] | None = None,
        lr_decay: float = 1.0,
    ) -> None:
        if whole("batch_size", batch_size) < 1:
            raise OptionError(f"batch_size={batch_size} must be at least 1")
        if whole("seed", seed) < 0:
            raise OptionError(f"seed={seed} must be at least 0")
        if not len(data.train_x):
            raise ShapeError("data has no pictures to train on")
        self.net, self.data, self.optimiser, self.loss = net, data, optimiser, loss
        self.batch_size, self.seed, self.augment = batch_size, seed, augment
        self.first_lr, self.lr_decay = optimiser.lr, at_least_zero("lr_decay", lr_decay)
        self.step = 0
        self.history: dict[str, list[float]] = {name: [] for name in ("loss", "accuracy", "test_loss", "test_accuracy")}

    @property
    def steps_per_epoch(self) -> int:
        """The batches that the training data makes."""
        return -(-len(self.data.train_x) // self.batch_size)

    def fit(self, epochs: int, checkpoint: str | os.PathLike[str] | None = None) -> Score:
        """Train up to so many epochs from the start, and return the score on what is held out.

        Parameters
        ----------
        epochs : int
            All in all: those done already count.
        checkpoint : path, optional
            A .npz that is written after each epoch.

        Returns
        -------
        Score
            Loss and accuracy on the data held out.
        """
        for step in self.steps(epochs):
            if checkpoint is not None and step.batch == self.steps_per_epoch - 1:
                self.save(checkpoint)
        return self.evaluate(self.data.test_x, self.data.test_y)

    def steps(self, epochs: int) -> Iterator[Step]:
        """Train up to so many epochs from the start, step by step.

        After each step the trainer may be saved, or the loop left and taken up again.

        Parameters
        ----------
        epochs : int
            All in all: those done already count.

        Yields
        ------
        Step
            What was done.
        """
        while self.step < whole("epochs", epochs) * self.steps_per_epoch:
            epoch, done = divmod(self.step, self.steps_per_epoch)
            order = np.random.default_rng((self.seed, SHUFFLE, epoch))
            data = batches(self.data.train_x, self.data.train_y, self.batch_size, order, start=done)
            for batch, (x, y) in enumerate(data, start=done):
                loss, accuracy = self._learn(x, y)
                self.step += 1
                if batch == self.steps_per_epoch - 1:
                    self._end_epoch()
                yield Step(epoch, batch, loss, accuracy)

    def evaluate(self, x: Array, y: Array, batch_size: int = 512) -> Score:
        """Take the loss and accuracy of some samples, dropout off and batch norm by running statistics.

        Parameters
        ----------
        x, y : ndarray
            Pictures and their classes.
        batch_size : int
            How many at a time.

        Returns
        -------
        Score
            The means over all of them; NaN of none.
        """
        losses, right = 0.0, 0
        self.net.eval()
        try:
            for part, labels in batches(x, y, batch_size, shuffle=False):
                scores = self.net(part)
                losses += self.loss(scores, labels)[0] * len(part)
                right += int(np.sum(scores.argmax(1) == labels))
        finally:
            self.net.train()
        return Score(losses / len(x), right / len(x)) if len(x) else Score(np.nan, np.nan)

    def predict(self, x: Array) -> Array:
        """Take the class with the best score of each picture, dropout off and batch norm by running statistics."""
        self.net.eval()
        try:
            return np.asarray(self.net(x).argmax(1))
        finally:
            self.net.train()

    def save(self, file: str | os.PathLike[str]) -> None:
        """Write all that going on needs into a .npz: parameters, moments, generators, history.

        Parameters
        ----------
        file : path
            Ends in ".npz".
        """
        about = {
            "format": FORMAT,
            "step": self.step,
            **self._fixed(),
            "history": self.history,
            "generators": [generator.bit_generator.state for generator in self._generators()],
        }
        arrays = {f"net:{name}": array for name, array in self.net.state_dict().items()}
        arrays |= {f"optimiser:{name}": array for name, array in self.optimiser.state_dict().items()}
        save_arrays(file, {**arrays, "about": np.array(json.dumps(about))})

    def load(self, file: str | os.PathLike[str]) -> None:
        """Go on from a checkpoint of the same network, data and settings.

        Parameters
        ----------
        file : path
            What `save` has written.

        Raises
        ------
        ConvkernelsError
            If there is no such file, it is broken, or of another training; then nothing has changed.
        """
        arrays = load_arrays(file)
        about = _about(arrays, file)
        for name, own in self._fixed().items():
            if about.get(name) != own:
                raise DataError(f"{file} is of a training with {name}={about.get(name)!r}, this one has {own!r}")
        generators, states = self._generators(), about["generators"]
        if len(generators) != len(states):
            raise DataError(f"{file} has {len(states)} generators, the network has {len(generators)}")
        parts = {
            kind: {name.removeprefix(kind): array for name, array in arrays.items() if name.startswith(kind)}
            for kind in ("net:", "optimiser:")
        }
        self.net.load_state_dict(parts["net:"])
        self.optimiser.load_state_dict(parts["optimiser:"])
        for generator, state in zip(generators, states, strict=True):
            generator.bit_generator.state = state
        self.step, self.history = about["step"], about["history"]

    def _fixed(self) -> dict[str, Any]:
        """What a checkpoint must have in common with this training."""
        names = {"optimiser": type(self.optimiser).__name__, "data": self.data.name, "samples": len(self.data.train_x)}
        settings = {"batch_size": self.batch_size, "lr": self.first_lr, "lr_decay": self.lr_decay}
        return {**names, **settings, "weight_decay": self.optimiser.weight_decay, "seed": self.seed}

    def _generators(self) -> list[np.random.Generator]:
        """Those of the network's dropouts."""
        return [layer.generator for _, layer in self.net.layers() if hasattr(layer, "generator")]

    def _learn(self, x: Array, y: Array) -> tuple[float, float]:
        """One step: forward, backward, update."""
        if self.augment is not None:
            x = self.augment(x, np.random.default_rng((self.seed, AUGMENT, self.step)))
        scores = self.net(x)
        loss, vjp = self.loss(scores, y)
        self.net.backward(vjp(), input_grad=False)
        self.optimiser.step(self.net)
        accuracy = float(np.mean(scores.argmax(1) == y))
        self.history["loss"].append(loss)
        self.history["accuracy"].append(accuracy)
        return loss, accuracy

    def _end_epoch(self) -> None:
        """Take the score on what is held out, and lower the learning rate."""
        score = self.evaluate(self.data.test_x, self.data.test_y)
        self.history["test_loss"].append(score.loss)
        self.history["test_accuracy"].append(score.accuracy)
        self.optimiser.lr *= self.lr_decay


def _about(arrays: dict[str, Array], file: object) -> dict[str, Any]:
    """What a checkpoint says of itself."""
    try:
        about = json.loads(str(arrays["about"]))
        known = about["format"] == FORMAT and {"step", "history", "generators"} <= set(about)
    except (KeyError, ValueError, TypeError):
        known = False
    if not known:
        raise DataError(f"{file} is no checkpoint of a training")
    return dict(about)
