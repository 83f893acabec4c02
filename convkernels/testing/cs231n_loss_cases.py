"""CS231n's dropout and losses, and the mistakes made in them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from .cases import ROUNDED, Arguments, Case, ComplaintError, Forward, Results
from .course_data import Test, numbers, seeds, small

LARGE = (40, 50)
"""An array of which the share of cells that dropout keeps tells p from 1 - p."""
OFF = 0.1
"""How far that share may be from p: ten standard deviations."""


class Dropped(NamedTuple):
    """The sizes and settings of a dropout; `many` cells, in no shape of one's own, to count those kept."""

    sizes: tuple[int, ...]
    many: bool
    p: float
    mode: str
    seed: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of x."""
        return LARGE if self.many else self.sizes


def dropouts(many: st.SearchStrategy[bool]) -> st.SearchStrategy[Dropped]:
    """Sizes and settings."""
    return st.builds(
        Dropped,
        sizes=st.lists(small, min_size=1, max_size=4).map(tuple),
        many=many,
        p=st.sampled_from([0.25, 0.75]),
        mode=st.sampled_from(["train", "train", "test"]),
        seed=seeds,
    )


DROPOUT_REGIMES: dict[str, Test] = {
    "the mode is 'test'": lambda s: s.mode == "test",
    "the mode is 'train'": lambda s: s.mode == "train",
    "x has other than two axes": lambda s: len(s.shape) != 2,
}


def dropout_arguments(s: Dropped) -> Arguments:
    """A dropout's arguments, the course's own mask, and the gradient by its output."""
    a = numbers("float64", s.seed, x=s.shape, dout=s.shape)
    generator = np.random.default_rng([s.seed, 7])
    mask = (generator.random(s.shape) < s.p) / s.p if s.mode == "train" else None
    param = {"mode": s.mode, "p": s.p, "seed": s.seed}
    return {"x": a["x"], "dropout_param": param, "mask": mask, "dout": a["dout"]}


def dropped(a: Arguments, scale: float | None = None) -> Results:
    """What a dropout gives that drops where the one that is checked does."""
    x, p = a["x"], a["dropout_param"]["p"]
    if a["dropout_param"]["mode"] == "test":
        return {"out": x}
    out = a["returned"]["out"]
    share = float(np.mean(out != 0))
    if out.shape == x.shape == LARGE and abs(share - p) > OFF:
        raise ComplaintError(
            f"out keeps {share:.0%} of {x.size} cells, but should keep about {p:.0%}: p is the probability to keep",
            "out",
        )
    return {"out": np.where(out != 0, x / p if scale is None else x * scale, 0) if out.shape == x.shape else x}


def dropped_back(a: Arguments, scale: float | None = None) -> Results:
    """What a dropout's backward gives: the mask of its forward, or the course's, on the gradient."""
    dout, p = a["dout"], a["dropout_param"]["p"]
    if a["dropout_param"]["mode"] == "test":
        return {"dx": dout}
    kept = a["out"] != 0 if "out" in a else a["mask"] != 0
    return {"dx": np.where(kept, dout / p if scale is None else dout * scale, 0)}


def scaled_mask(a: Arguments) -> Results:
    """What a backward gives that divides by p itself, on the course's mask, which is divided already."""
    return dropped_back(a, None if "out" in a else 1 / a["dropout_param"]["p"] ** 2)


DROPOUT = Case(
    "dropout_forward",
    dropouts(st.sampled_from([False] * 7 + [True])),
    dropout_arguments,
    dropped,
    ("x", "dropout_param"),
    mistakes={
        "what is kept is not divided by p, as inverted dropout has it": lambda a: dropped(a, 1.0),
        "what is kept is divided by 1 - p, but p is the probability to keep (once it was that to drop)": lambda a: (
            dropped(a, 1 / (1 - a["dropout_param"]["p"]))
        ),
    },
    regimes=DROPOUT_REGIMES,
    fixed=("x", "mask"),
)
DROPOUT_BACK = Case(
    "dropout_backward",
    dropouts(st.just(False)),
    dropout_arguments,
    dropped_back,
    ("dout", "cache"),
    returns=("dx",),
    forward=Forward("dropout_forward", ("x", "dropout_param"), ("dropout_param", "mask")),
    mistakes={
        "the gradient is not divided by p": lambda a: dropped_back(a, 1.0),
        "the gradient goes through where x was dropped, too": lambda a: {"dx": a["dout"]},
    },
    accepted={"it divides by p, which the course's mask is divided by already": scaled_mask},
    regimes=DROPOUT_REGIMES,
    fixed=("x", "mask"),
)


class Scored(NamedTuple):
    """The sizes of a loss."""

    N: int
    C: int
    large: bool
    seed: int


SCORED = st.builds(Scored, N=small, C=st.integers(2, 4), large=st.booleans(), seed=seeds)
LOSS_REGIMES: dict[str, Test] = {
    "scores are in the thousands (the largest must be subtracted first)": lambda s: s.large,
    "there is more than one image": lambda s: s.N > 1,
    "there are more than two classes": lambda s: s.C > 2,
}


def loss_arguments(s: Scored) -> Arguments:
    """Scores of which no two differ by a whole number, and the right classes."""
    generator = np.random.default_rng(s.seed)
    # Multiples of 0.37, each of its own: no margin is 0, where a hinge has no slope.
    x = generator.permuted(np.tile(np.arange(s.C) * 0.37, (s.N, 1)), axis=1) * generator.choice([-3, 1, 3], (s.N, 1))
    return {"x": x + (5000.0 if s.large else 0.0), "y": generator.integers(0, s.C, s.N)}


def softmax(a: Arguments) -> Results:
    """The softmax loss and its gradient."""
    x, y, rows = a["x"], a["y"], np.arange(len(a["x"]))
    shifted = x - x.max(1, keepdims=True)
    total = np.exp(shifted).sum(1, keepdims=True)
    dx = np.exp(shifted) / total
    dx[rows, y] -= 1
    return {"loss": np.mean(np.log(total[:, 0]) - shifted[rows, y]), "dx": dx / len(x)}


def svm(a: Arguments) -> Results:
    """The multiclass hinge loss with margin 1, and its gradient."""
    x, y, rows = a["x"], a["y"], np.arange(len(a["x"]))
    margins = np.maximum(0, x - x[rows, y][:, None] + 1)
    margins[rows, y] = 0
    dx = (margins > 0).astype(float)
    dx[rows, y] -= dx.sum(1)
    return {"loss": margins.sum() / len(x), "dx": dx / len(x)}


def summed(compute: Callable[[Arguments], Results], names: tuple[str, ...], a: Arguments) -> Results:
    """A loss's results, those named as sums over the images instead of means."""
    return {name: value * (len(a["x"]) if name in names else 1) for name, value in compute(a).items()}


def negative(compute: Callable[[Arguments], Results], a: Arguments) -> Results:
    """A loss's results, with the gradient's sign changed."""
    results = compute(a)
    return {**results, "dx": -results["dx"]}


def all_margins(a: Arguments) -> Results:
    """A hinge loss in which the right class counts, too."""
    results = svm(a)
    return {**results, "loss": results["loss"] + 1}


LOSSES = [
    Case(
        name,
        SCORED,
        loss_arguments,
        compute,
        ("x", "y"),
        returns=("loss", "dx"),
        mistakes={
            "loss and dx are sums over the images, but should be means": partial(summed, compute, ("loss", "dx")),
            "dx is not divided by the number of images": partial(summed, compute, ("dx",)),
            "the loss is a sum over the images, but should be their mean": partial(summed, compute, ("loss",)),
            "dx has the wrong sign": partial(negative, compute),
            "the right class counts as a margin, too": all_margins,
        },
        regimes=LOSS_REGIMES,
        fixed=("x", "y"),
        slack=ROUNDED,
    )
    for name, compute in (("softmax_loss", softmax), ("svm_loss", svm))
]
CASES: dict[str, Case] = {case.name: case for case in (DROPOUT, DROPOUT_BACK, *LOSSES)}
"""By the names of the functions."""
