"""Pictures with their classes, and batches of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from ...errors import OptionError, ShapeError
from ...layout import Array, Layout, data_layout
from ...window import whole


@dataclass(frozen=True)
class Dataset:
    """Pictures to train on, and pictures held out.

    Parameters
    ----------
    name : str
        What it is called.
    train_x, test_x : ndarray
        Pictures, of four axes; float32 from 0 to 1.
    train_y, test_y : ndarray
        Their classes, from 0.
    classes : tuple of str
        What each class is called.
    credit : str
        Whose pictures they are.
    layout : str
        The axes of the pictures.

    Examples
    --------
    >>> x = np.zeros((4, 1, 2, 2), np.float32)
    >>> data = Dataset("none", x, np.zeros(4, int), x[:2], np.zeros(2, int), ("nothing",), "nobody")
    >>> data.in_layout("NHWC").train_x.shape
    (4, 2, 2, 1)
    """

    name: str
    train_x: Array
    train_y: Array
    test_x: Array
    test_y: Array
    classes: tuple[str, ...]
    credit: str
    layout: str = "NCHW"

    @property
    def picture_shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        _, channels, height, width = data_layout(self.layout, 2).view(self.train_x).shape
        return channels, height, width

    def in_layout(self, layout: str) -> Dataset:
        """Lay the pictures out anew."""
        old, new = data_layout(self.layout, 2), data_layout(layout, 2)

        def laid(x: Array) -> Array:
            return np.ascontiguousarray(new.restore(old.view(x)))

        return replace(self, train_x=laid(self.train_x), test_x=laid(self.test_x), layout=layout)

    def centred(self) -> Dataset:
        """Subtract the mean of the pictures to train on from all, cell by cell."""
        mean = self.train_x.mean(0, np.float64).astype(self.train_x.dtype)
        return replace(self, train_x=self.train_x - mean, test_x=self.test_x - mean)

    def split(self, test: Array) -> Dataset:
        """All pictures, split anew: those whose numbers are in `test` are held out."""
        x = np.concatenate([self.train_x, self.test_x])
        y = np.concatenate([self.train_y, self.test_y])
        held = np.zeros(len(x), bool)
        held[test] = True
        return replace(self, train_x=x[~held], train_y=y[~held], test_x=x[held], test_y=y[held])


def stratified_folds(labels: Array, folds: int, generator: int | np.random.Generator | None = None) -> list[Array]:
    """Deal samples into parts that have the same share of each class, to within one.

    Parameters
    ----------
    labels : ndarray
        The samples' classes.
    folds : int
        How many parts.
    generator : int or numpy.random.Generator, optional
        Who shuffles; a number is a seed.

    Returns
    -------
    list of ndarray
        The numbers of each part's samples.

    Raises
    ------
    OptionError
        If `folds` is below 2 or above the number of samples.

    Examples
    --------
    >>> [sorted(fold.tolist()) for fold in stratified_folds(np.array([0, 0, 1, 1]), 2, generator=1)]
    [[0, 2], [1, 3]]
    """
    if not 2 <= whole("folds", folds) <= len(labels):
        raise OptionError(f"folds={folds} must be from 2 to {len(labels)}, the number of samples")
    rng = np.random.default_rng(generator)
    # Dealt like cards, class after class: the deal goes on where the last class ended.
    shuffled = [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    dealt = np.concatenate(shuffled)
    return [np.sort(dealt[fold::folds]) for fold in range(folds)]


def batches(
    x: Array,
    y: Array,
    size: int,
    generator: int | np.random.Generator | None = None,
    *,
    shuffle: bool = True,
    start: int = 0,
) -> Iterator[tuple[Array, Array]]:
    """Go through samples once, some at a time; the last batch may be smaller.

    Parameters
    ----------
    x, y : ndarray
        Samples and their classes.
    size : int
        The samples of a batch.
    generator : int or numpy.random.Generator, optional
        Who shuffles; a number is a seed.
    shuffle : bool
        Whether they are.
    start : int
        How many batches to leave out.

    Yields
    ------
    x, y : ndarray
        A batch.

    Raises
    ------
    ShapeError, OptionError
        If there are not as many classes as samples, or `size` is below 1.

    Examples
    --------
    >>> [y.tolist() for x, y in batches(np.zeros((5, 1)), np.arange(5), 2, shuffle=False)]
    [[0, 1], [2, 3], [4]]
    """
    if len(x) != len(y):
        raise ShapeError(f"y has shape {y.shape}, must have ({len(x)},): x has shape {x.shape}")
    if whole("size", size) < 1:
        raise OptionError(f"size={size} must be at least 1")
    order = np.random.default_rng(generator).permutation(len(x)) if shuffle else None
    for first in range(start * size, len(x), size):
        chosen = slice(first, first + size) if order is None else order[first : first + size]
        yield x[chosen], y[chosen]


def crops_and_flips(
    pad: int = 4, flip: bool = True, layout: str = "NCHW"
) -> Callable[[Array, np.random.Generator], Array]:
    """Make new pictures of old ones: each is moved by up to `pad` cells, and mirrored half the time.

    Parameters
    ----------
    pad : int
        The zeros put around a picture, of which as much is cut off again.
    flip : bool
        Whether left and right are exchanged.
    layout : str
        The axes of the pictures.

    Returns
    -------
    callable
        ``augment(x, generator)`` returns a new batch.

    Raises
    ------
    OptionError
        If `pad` is negative.

    Examples
    --------
    >>> augment = crops_and_flips(1)
    >>> augment(np.ones((2, 1, 3, 3)), np.random.default_rng(0)).shape
    (2, 1, 3, 3)
    """
    order: Layout = data_layout(layout, 2)
    if whole("pad", pad) < 0:
        raise OptionError(f"pad={pad} must be at least 0")

    def augment(x: Array, generator: np.random.Generator) -> Array:
        seen = order.view(x)
        count, _, height, width = seen.shape
        padded = np.pad(seen, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        rows, columns = generator.integers(0, 2 * pad, (2, count), endpoint=True)
        mirrored = np.less(generator.random(count), 0.5)
        new = np.empty_like(x)
        targets = order.view(new)
        for place in range(count):
            row, column = rows[place], columns[place]
            cut = padded[place, :, row : row + height, column : column + width]
            targets[place] = cut[:, :, ::-1] if flip and mirrored[place] else cut
        return new

    return augment
