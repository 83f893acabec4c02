"""Pictures of squares: the dense correlations that Winograd's algorithm takes a correlation apart into."""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import product
from typing import NamedTuple, TypeAlias

from ...window import Ints
from .axes import Axes, Axis

PLACES = {2: 6, 3: 6, 4: 6, 5: 6, 6: 8, 7: 8}
"""By the taps of an axis, the cells that a square reads along it: 4 outputs of 3 taps take 6, and 2 of 7 take 8."""


def winograd_axes(axes: Axes, taps: Ints | None = None) -> Axes:
    """The axes of the squares of outputs that Winograd's algorithm takes, for so many taps at least.

    An axis of one tap is left as it is.
    """
    counts = taps or tuple(len(axis.taps) for axis in axes)
    return tuple(axis if count == 1 else _squares(axis, count) for axis, count in zip(axes, counts, strict=True))


def tap_by_tap(axes: Axes) -> list[Axes]:
    """The same with one tap of the first axis each, of which the sums are one for all taps."""
    d, *others = axes
    return [(d._replace(taps=(tap,)), *others) for tap in d.taps]


def _squares(axis: Axis, taps: int) -> Axis:
    places = PLACES[taps]
    step = places - taps + 1
    # What no output reads is not read: it must not add to anyone's rounding.
    size = min(axis.size, axis.lowest + axis.reach(axis.outputs))
    return Axis(-(-axis.outputs // step), step, tuple((place, axis.lowest + place) for place in range(places)), size)


class Phase(NamedTuple):
    """A dense correlation of cells that stand some cells apart.

    Along each axis there are the first of these cells, and how far it is from one to the next.
    """

    axes: Axes
    first: Ints
    spread: Ints


class Picture(NamedTuple):
    """Outputs by squares: dense correlations that are added up, and which of some sets of taps of w they are of."""

    number: int
    sources: tuple[Phase, ...]

    @property
    def axes(self) -> Axes:
        """Those of the outputs."""
        return self.sources[0].axes

    @property
    def taps(self) -> Ints:
        """The most taps along each axis."""
        along = zip(*(source.axes for source in self.sources), strict=True)
        return tuple(max(len(axis.taps) for axis in axes) for axes in along)

    @property
    def squares(self) -> Axes:
        """The axes of squares."""
        return winograd_axes(self.axes, self.taps)

    @property
    def places(self) -> int:
        """The places of a square."""
        return math.prod(axis.span for axis in self.squares)


@lru_cache(maxsize=512)
def pictures(every: tuple[Axes, ...]) -> tuple[tuple[Picture, ...], ...]:
    """Correlations as pictures, those together whose outputs share rows.

    With dilation there is a picture for each remainder of it: outputs a dilation apart see cells as far apart. With
    steps there is one, of several sources: cells a step apart are seen by some taps each. Taps along the first of three
    axes are sources, too, as each sees slices of its own.

    Examples
    --------
    >>> from convkernels.kernels.compiled.axes import ONE
    >>> halves = tuple((ONE, ONE, Axis(4, 1, ((tap, 0),), 4, tap, 2)) for tap in (0, 1))
    >>> [[picture.number for picture in rows] for rows in pictures(halves)]
    [[0, 1]]
    >>> dilated = Axis(5, 1, ((0, -2), (1, 0), (2, 2)), 5)
    >>> [[(one.axes[2].outputs, one.axes[2].taps) for one in rows] for rows in pictures(((ONE, ONE, dilated),))]
    [[(3, ((0, -1), (1, 0), (2, 1))), (2, ((0, -1), (1, 0), (2, 1)))]]
    >>> strided = Axis(4, 2, ((0, -1), (1, 0), (2, 1)), 8)
    >>> [[source.axes[2].taps for source in one.sources] for one in pictures(((ONE, ONE, strided),))[0]]
    [[((1, 0),), ((0, -1), (2, 0))]]
    >>> deep = Axis(4, 1, ((0, -1), (1, 0), (2, 1)), 4)
    >>> [[source.axes[0].taps for source in one.sources] for one in pictures(((deep, ONE, deep),))[0]]
    [[((0, -1),), ((1, 0),), ((2, 1),)]]
    """
    rows: dict[Axes, list[Picture]] = {}
    for number, axes in enumerate(every):
        slices = [(each[0], 0, 1) for each in tap_by_tap(axes)]
        for along in product([slices], *([_sources(axis)] if axis.step > 1 else _phases(axis) for axis in axes[1:])):
            sources = tuple(Phase(*zip(*each, strict=True)) for each in product(*along))
            rows.setdefault(sources[0].axes[:2], []).append(Picture(number, sources))
    return tuple(map(tuple, rows.values()))


Along: TypeAlias = list[tuple[Axis, int, int]]
"""Dense correlations of an axis that are added up: their axes, first cells, and how far apart these are."""


def _phases(axis: Axis) -> list[Along]:
    """The outputs of an axis a dilation apart."""
    spread = axis.taps[1][1] - axis.taps[0][1] if len(axis.taps) > 1 else 1
    if spread == 1:
        return [[(axis, 0, 1)]]
    found: list[Along] = []
    for rest in range(min(spread, axis.outputs)):
        lowest, first = divmod(axis.lowest + rest, spread)
        taps = tuple((place, lowest + number) for number, (place, _) in enumerate(axis.taps))
        outputs, size = (-(-(whole - left) // spread) for whole, left in ((axis.outputs, rest), (axis.size, first)))
        found.append([(Axis(outputs, 1, taps, max(0, size), rest, spread), first, spread)])
    return found


def _sources(axis: Axis) -> Along:
    """Cells a step apart, and the taps that see them."""
    found: Along = []
    step = axis.step
    for first in range(step):
        taps = tuple((place, offset // step) for place, offset in axis.taps if offset % step == first)
        if taps:
            found.append((Axis(axis.outputs, 1, taps, max(0, -(-(axis.size - first) // step))), first, step))
    return found
