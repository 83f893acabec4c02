"""Correlations: what a convolution, its input gradient and a transposed convolution have in common, along each axis.

Output j of a correlation is the sum over taps of ``source[j * step + offset(tap)]``. A convolution is one; an input
gradient of stride s is s of them along an axis, one for each remainder, whose outputs stand s apart. Those of the last
axis are taken together: they read the same rows of the source, and write the same rows in turn.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import compress, pairwise, product
from typing import NamedTuple, TypeAlias

import numpy as np

from ...layout import Array
from ...spec import ConvSpec
from ...window import Ints
from .scratch import LINE

PAGE = 4096
"""Bytes after which the sets of the first-level cache repeat."""
APART = 64
"""Output channels up to which copying what they read takes more than a tenth of the time."""
CUT, LONG = 512, 4
"""The outputs of a piece of a row, and the number of these from which on a row is cut."""
SHORTEST = 32
"""The fewest outputs of a piece of a row that is summed over."""
FEW_CHANNELS = 32
"""Input channels below which it pays to go over the taps of a row together with them."""
SPARED, SHORT = 0.9, 6
"""The part of the work up to which it pays to leave out taps outside, and the fewest outputs that do it together."""


class Axis(NamedTuple):
    """One axis of a correlation: output j reads ``source[j * step + offset]`` for each tap.

    `taps` holds a tap's place in w and its offset, by ascending offset; output j stands at ``first + j * stride``.
    Where the `rests` of a stride are taken together, each has outputs and taps of its own: the axis has as many outputs
    as the first, and all the taps.
    """

    outputs: int
    step: int
    taps: tuple[tuple[int, int], ...]
    size: int
    first: int = 0
    stride: int = 1
    rests: tuple[Stretch, ...] = ()

    @property
    def turns(self) -> int:
        """How many remainders write in turn: so many places further stands a remainder's next output."""
        return len(self.rests) or 1

    @property
    def places(self) -> int:
        """How many outputs stand along the axis."""
        return sum(rest.outputs for rest in self.rests) or self.outputs

    @property
    def lowest(self) -> int:
        """The first place that is read."""
        return min((offset for _, offset in self.taps), default=0)

    def reach(self, outputs: int) -> int:
        """How many places so many outputs next to each other read, from the first to the last."""
        highest = max((offset for _, offset in self.taps), default=0)
        return (outputs - 1) * self.step + highest - self.lowest + 1

    @property
    def span(self) -> int:
        """How many places one output reads, from the first to the last."""
        return self.reach(1)

    @property
    def block(self) -> Axis:
        """The axis in a copied block, which leaves out what lies between the outputs of a single tap."""
        return self._replace(step=1) if len(self.taps) == 1 else self

    @property
    def inside(self) -> bool:
        """Whether no tap reaches outside the source."""
        if self.rests:
            return all(self._replace(outputs=each.outputs, taps=each.taps, rests=()).inside for each in self.rests)
        return self.lowest >= 0 and self.lowest + self.reach(self.outputs) <= self.size

    @property
    def dense(self) -> bool:
        """Whether the taps lie next to each other."""
        return all(b[1] - a[1] == 1 for a, b in pairwise(self.taps))

    @property
    def reached(self) -> tuple[tuple[int, int], ...]:
        """The outputs of each tap that it is inside the source for: the first, and the one behind the last.

        Examples
        --------
        >>> Axis(33, 1, ((0, -12), (1, 0), (2, 40)), 33).reached
        ((12, 33), (0, 33), (0, 0))
        """
        ends = ([-((offset - edge) // self.step) for edge in (0, self.size)] for _, offset in self.taps)
        clipped = ((min(max(end, 0), self.outputs) for end in pair) for pair in ends)
        return tuple((first, last) if first < last else (0, 0) for first, last in clipped)

    @property
    def stretches(self) -> tuple[Stretch, ...]:
        """The outputs in stretches that other taps reach, if leaving out those outside spares enough of the work.

        Examples
        --------
        >>> dilated = Axis(33, 1, ((0, -12), (1, 0), (2, 12)), 33)
        >>> [(stretch.outputs, len(stretch.taps)) for stretch in dilated.stretches]
        [(12, 2), (9, 3), (12, 2)]
        """
        if self.rests:
            return self.rests
        whole = (Stretch(self.outputs, self.taps),)
        reached = self.reached
        edges = sorted({0, self.outputs, *(end for pair in reached for end in pair)})
        if any(end - begin < SHORT for begin, end in pairwise(edges)):
            return whole
        found = []
        for begin, end in pairwise(edges):
            reaching = (first <= begin and end <= last for first, last in reached)
            found.append(Stretch(end - begin, tuple(compress(self.taps, reaching))))
        work = sum(stretch.outputs * len(stretch.taps) for stretch in found)
        return tuple(found) if work < SPARED * self.outputs * len(self.taps) else whole


class Stretch(NamedTuple):
    """Outputs next to each other, or those of one remainder from `first` on, and the taps that are summed for them."""

    outputs: int
    taps: tuple[tuple[int, int], ...]
    first: int = 0


def direction(axis: Axis, count: int) -> int:
    """1 or -1 if an axis uses all of so many taps in their order or the reverse, next to each other; else 0."""
    for way in (1, -1):
        if [place for place, _ in axis.taps] == list(range(count))[::way] and axis.dense:
            return way
    return 0


ONE = Axis(1, 1, ((0, 0),), 1)
Axes: TypeAlias = tuple[Axis, ...]


@lru_cache(maxsize=512)
def forward_axes(spec: ConvSpec) -> Axes:
    """The axes of a convolution, three of them."""
    window = spec.window
    axes = [
        Axis(out, step, tuple((tap, tap * spread - lo) for tap in range(taps)), size)
        for out, step, taps, spread, (lo, _), size in zip(
            window.out_size,
            window.stride,
            window.kernel_size,
            window.dilation,
            window.padding,
            window.in_size,
            strict=True,
        )
    ]
    return (ONE,) * (3 - len(axes)) + tuple(axes)


def mirrored(axes: Axes) -> Axes:
    """The axes of the convolution whose input gradient a correlation without steps is: each cell is one of its outputs.

    Examples
    --------
    >>> mirrored((Axis(6, 1, ((0, -1), (1, 0), (2, 1)), 7),))
    (Axis(outputs=7, step=1, taps=((2, -1), (1, 0), (0, 1)), size=6, first=0, stride=1, rests=()),)
    """
    return tuple(
        Axis(axis.size, 1, tuple((tap, -offset) for tap, offset in reversed(axis.taps)), axis.outputs) for axis in axes
    )


@lru_cache(maxsize=512)
def input_grad_axes(spec: ConvSpec) -> tuple[Axes, ...]:
    """The axes of the correlations that make up an input gradient, one for each remainder but those of the last axis.

    Cell i is read by output j with tap t where ``i = j * stride + t * dilation - lo``.
    """
    window, choices = spec.window, []
    for out, step, taps, spread, (lo, _), size in zip(
        window.out_size, window.stride, window.kernel_size, window.dilation, window.padding, window.in_size, strict=True
    ):
        found = []
        for rest in range(min(step, size)):
            used = [
                (tap, (rest + lo - tap * spread) // step)
                for tap in range(taps)
                if (rest + lo - tap * spread) % step == 0
            ]
            used.sort(key=lambda pair: pair[1])
            found.append(Axis(-(-(size - rest) // step), 1, tuple(used), out, rest, step))
        choices.append(found)
    if len(choices[-1]) > 1:
        rests = choices[-1]
        taps = tuple(sorted({tap for rest in rests for tap in rest.taps}, key=lambda pair: pair[1]))
        every = tuple(Stretch(rest.outputs, rest.taps, rest.first) for rest in rests)
        choices[-1] = [rests[0]._replace(taps=taps, stride=1, rests=every)]
    return tuple((ONE,) * (3 - len(axes)) + axes for axes in product(*choices))


def rests_apart(every: tuple[Axes, ...]) -> tuple[Axes, ...]:
    """The same correlations with one for each remainder of the last axis, too."""

    def apart(axis: Axis) -> list[Axis]:
        rests = [axis._replace(outputs=outputs, taps=taps, first=first) for outputs, taps, first in axis.rests]
        return [rest._replace(stride=len(rests), rests=()) for rest in rests] or [axis]

    return tuple((d, h, rest) for d, h, w in every for rest in apart(w))


def cut(every: tuple[Axes, ...], channels: int) -> tuple[Axes, ...]:
    """Long rows of outputs as several of `CUT`, which caches hold and threads share, and their ends by themselves.

    All but the ends reads nothing outside, and so is not copied for that. The rows lie one behind the other along h,
    which has a single cell then: its strides in the arrays are those of w.
    """
    d, h, w = every[0]
    if len(every) > 1 or d != ONE or h != ONE or w.rests or len(w.taps) < 2 or channels < FEW_CHANNELS:
        return every
    first = max(0, -(w.lowest // w.step))
    rows = (min(w.outputs, (w.size - w.lowest - w.span) // w.step + 1) - first) // CUT
    if rows < LONG:
        return every

    def part(begin: int, outputs: int) -> Axis:
        taps = tuple((tap, offset + begin * w.step) for tap, offset in w.taps)
        return w._replace(outputs=outputs, taps=taps, first=begin)

    behind, step = first + rows * CUT, CUT * w.step
    most = (d, Axis(rows, step, ((0, 0),), rows * step, stride=CUT), part(first, CUT))
    ends = [(d, h, part(begin, count)) for begin, count in ((0, first), (behind, w.outputs - behind)) if count]
    return (most, *ends)


def cut_evenly(axes: Axes, most: int) -> Axes:
    """A row of more outputs, which lies inside, as several of the same length, as `cut` has them; `most` at a time.

    Examples
    --------
    >>> row = Axis(812, 1, ((0, 0),), 812)
    >>> [axis.outputs for axis in cut_evenly((ONE, ONE, row), 256)]
    [1, 4, 203]
    """
    d, h, w = axes
    if d != ONE or h != ONE or w.rests or not w.inside or w.outputs <= most:
        return axes
    many = next((count for count in range(most, SHORTEST - 1, -1) if w.outputs % count == 0), w.outputs)
    if many == w.outputs:
        return axes
    rows, step = w.outputs // many, many * w.step
    return (d, Axis(rows, step, ((0, 0),), rows * step, stride=many), w._replace(outputs=many))


def contiguous(shape: Ints, size: int) -> Ints:
    """The strides of an array in that order."""
    return tuple(math.prod(shape[place + 1 :]) * size for place in range(len(shape)))


@lru_cache(maxsize=512)
def tap_offsets(axes: Axes, strides: Ints) -> Array:
    """The byte offsets of the taps of some axes from the first cell that is read, the last axis innermost."""
    places = [
        [(offset - axis.lowest) * step for _, offset in axis.taps] for axis, step in zip(axes, strides, strict=False)
    ]
    return np.array([sum(each) for each in product(*places)], np.int64)


def pixel_channels(channels: int, size: int) -> int:
    """The channels of a pixel of a block, with some unused where pixels would fall into few sets of the cache."""
    return channels + LINE // size if channels * size % (PAGE // 2) == 0 else channels


def exchanged_sums(axes: Axes, channels: int) -> tuple[Axes, int] | None:
    """The axes of a weight gradient in which x and dy may exchange their roles, and x's channels then.

    Of a single tap, or of a single pixel, whose taps are then channels; None where there is neither, or padding.

    Examples
    --------
    >>> strided = Axis(5, 2, ((0, 0),), 9)
    >>> exchanged_sums((ONE, ONE, strided), 8)[0][2]
    Axis(outputs=5, step=1, taps=((0, 0),), size=5, first=0, stride=1, rests=())
    """
    taps, outputs = math.prod(len(axis.taps) for axis in axes), math.prod(axis.outputs for axis in axes)
    if min(taps, outputs) > 1 or any(axis.lowest or not axis.inside for axis in axes):
        return None
    return tuple(Axis(axis.outputs, 1, ((0, 0),), axis.outputs) for axis in axes), channels * taps
