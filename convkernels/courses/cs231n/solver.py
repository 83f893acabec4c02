"""The course's Solver: it trains a model that has `params` and `loss`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from convkernels.errors import OptionError, one_of
from convkernels.layout import Array
from convkernels.nn.saving import save_arrays

from .optim import RULES


class Model(Protocol):
    """What can be trained."""

    params: dict[str, Array]

    def loss(self, X: Array, y: Array | None = None) -> Any:
        """Scores, or loss and gradients."""


class Solver:
    """Train a model on batches drawn at random, and keep the parameters that did best on the validation data.

    The batches are drawn from NumPy's global state, as in the course: ``np.random.seed`` repeats them.

    Parameters
    ----------
    model
        Has ``params``, a dictionary of arrays, and ``loss(X, y)``, which returns loss and gradients, or scores without
        `y`.
    data : dict of str to ndarray
        X_train, y_train, X_val, y_val.
    update_rule : {"sgd", "sgd_momentum", "rmsprop", "adam"}
        How parameters change.
    optim_config : dict, optional
        The rule's settings, such as "learning_rate".
    lr_decay : float
        What the learning rate is multiplied by after each epoch.
    batch_size, num_epochs : int
        The samples of a batch, and how often the training data is gone through.
    num_train_samples, num_val_samples : int, optional
        How many samples accuracies are taken on, drawn at random; None for all.
    checkpoint_name : str, optional
        After each epoch, ``<checkpoint_name>_epoch_<n>.npz`` gets the parameters and histories. Never pickled.
    print_every : int
        Iterations between two lines of print.
    verbose : bool
        Whether anything is printed.

    Attributes
    ----------
    loss_history, train_acc_history, val_acc_history : list of float
        Of each iteration, and of each epoch and the start.
    best_val_acc, best_params
        The best validation accuracy, and the parameters that had it.

    Examples
    --------
    >>> from convkernels.courses.cs231n import ThreeLayerConvNet
    >>> x, y = np.random.default_rng(0).normal(size=(8, 1, 4, 4)), np.arange(8) % 2
    >>> model = ThreeLayerConvNet((1, 4, 4), num_filters=2, filter_size=3, hidden_dim=4, num_classes=2)
    >>> data = {"X_train": x, "y_train": y, "X_val": x, "y_val": y}
    >>> solver = Solver(model, data, update_rule="adam", num_epochs=2, batch_size=4, verbose=False)
    >>> solver.train()
    >>> len(solver.loss_history), len(solver.val_acc_history)
    (4, 3)
    """

    def __init__(
        self,
        model: Model,
        data: Mapping[str, Array],
        *,
        update_rule: str = "sgd",
        optim_config: Mapping[str, Any] | None = None,
        lr_decay: float = 1.0,
        batch_size: int = 100,
        num_epochs: int = 10,
        num_train_samples: int | None = 1000,
        num_val_samples: int | None = None,
        checkpoint_name: str | None = None,
        print_every: int = 10,
        verbose: bool = True,
    ) -> None:
        for name in ("X_train", "y_train", "X_val", "y_val"):
            if name not in data:
                raise OptionError(f"data has {sorted(data)}, must have {name!r}")
        if update_rule not in RULES:
            raise OptionError(f"update_rule={update_rule!r} must be one of {one_of(RULES, str(update_rule))}")
        for name, value in (("batch_size", batch_size), ("print_every", print_every)):
            if value < 1:
                raise OptionError(f"{name}={value!r} must be at least 1")
        self.model = model
        self.X_train, self.y_train = data["X_train"], data["y_train"]
        self.X_val, self.y_val = data["X_val"], data["y_val"]
        self.update_rule, self.lr_decay = RULES[update_rule], lr_decay
        self.batch_size, self.num_epochs = batch_size, num_epochs
        self.num_train_samples, self.num_val_samples = num_train_samples, num_val_samples
        self.checkpoint_name, self.print_every, self.verbose = checkpoint_name, print_every, verbose
        self.epoch, self.best_val_acc = 0, 0.0
        self.best_params: dict[str, Array] = {}
        self.loss_history: list[float] = []
        self.train_acc_history: list[float] = []
        self.val_acc_history: list[float] = []
        self.optim_configs: dict[str, dict[str, Any]] = {name: dict(optim_config or {}) for name in model.params}

    def train(self) -> None:
        """Train for all epochs; the model is left with its best parameters."""
        per_epoch = max(len(self.X_train) // self.batch_size, 1)
        total = self.num_epochs * per_epoch
        for step in range(total):
            self._step()
            if self.verbose and step % self.print_every == 0:
                print(f"(Iteration {step + 1} / {total}) loss: {self.loss_history[-1]:f}")
            ended = (step + 1) % per_epoch == 0
            if ended:
                self.epoch += 1
                for config in self.optim_configs.values():
                    config["learning_rate"] *= self.lr_decay
            if step == 0 or ended:
                self._judge()
            if ended and self.checkpoint_name is not None:
                self._save()
        if self.best_params:
            self.model.params = self.best_params

    def check_accuracy(
        self,
        X: Array,
        y: Array,
        num_samples: int | None = None,
        batch_size: int = 100,
    ) -> float:
        """Take the share of samples whose best score is that of the right class.

        Parameters
        ----------
        X : ndarray
            The samples.
        y : ndarray
            Their right classes.
        num_samples : int, optional
            How many to draw at random; by default all.
        batch_size : int
            How many at a time.

        Returns
        -------
        float
            From 0 to 1.
        """
        if num_samples is not None and num_samples < len(X):
            chosen = np.random.choice(len(X), num_samples)  # noqa: NPY002  # the course seeds the global state
            X, y = X[chosen], y[chosen]
        starts = range(0, len(X), batch_size)
        found = [np.argmax(self.model.loss(X[start : start + batch_size]), axis=1) for start in starts]
        return float(np.mean(np.concatenate(found) == y))

    def _step(self) -> None:
        """Change all parameters once, by a batch drawn at random."""
        chosen = np.random.choice(len(self.X_train), self.batch_size)  # noqa: NPY002
        loss, grads = self.model.loss(self.X_train[chosen], self.y_train[chosen])
        self.loss_history.append(float(loss))
        for name, w in self.model.params.items():
            self.model.params[name], config = self.update_rule(w, grads[name], self.optim_configs[name])
            self.optim_configs[name] = config

    def _judge(self) -> None:
        """Take both accuracies, and keep the parameters if they are the best so far."""
        train = self.check_accuracy(self.X_train, self.y_train, self.num_train_samples)
        val = self.check_accuracy(self.X_val, self.y_val, self.num_val_samples)
        self.train_acc_history.append(train)
        self.val_acc_history.append(val)
        if self.verbose:
            print(f"(Epoch {self.epoch} / {self.num_epochs}) train acc: {train:f}; val_acc: {val:f}")
        if val > self.best_val_acc:
            self.best_val_acc = val
            self.best_params = {name: w.copy() for name, w in self.model.params.items()}

    def _save(self) -> None:
        """Write a checkpoint."""
        histories = {
            name: np.array(getattr(self, name)) for name in ("loss_history", "train_acc_history", "val_acc_history")
        }
        file = Path(f"{self.checkpoint_name}_epoch_{self.epoch}.npz")
        save_arrays(file, {**self.model.params, **histories})
