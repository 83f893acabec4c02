"""Window arithmetic: what each output sees of the input, per spatial axis.

An output at position o reads, for each tap t of the kernel, the input cell

    o * stride + t * dilation - lo

where `lo` is the padding in front. Everything else in this module follows from that line.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product
from typing import Any, TypeAlias

import numpy as np

from .errors import OptionError, ShapeError, one_of

Ints: TypeAlias = tuple[int, ...]
Pairs: TypeAlias = tuple[tuple[int, int], ...]
# Any, for mypy does not index an array with a starred tuple of ints or slices.
Tap: TypeAlias = tuple[Any, ...]
Tile: TypeAlias = tuple[Any, ...]
Padding: TypeAlias = "int | str | Sequence[int | tuple[int, int]]"

PADDING_NAMES = ("valid", "same", "same_lower", "full", "causal")
LARGEST = 2**31 - 1
"""No option exceeds this, so that no product of an option and a memory stride leaves 64 bits."""


def whole(name: str, value: object) -> int:
    """Take a whole number of Python's or NumPy's as an int; refuse bools and fractions, whatever their value."""
    if type(value) is not int:
        if isinstance(value, bool | np.bool_):
            raise OptionError(f"{name}={value!r} must be a whole number, not a bool")
        try:
            value = operator.index(value)  # type: ignore[arg-type]  # the refusal is the point
        except TypeError:
            raise OptionError(f"{name}={value!r} must be a whole number") from None
    if abs(value) > LARGEST:
        raise OptionError(f"{name}={value} must be at most {LARGEST} in size")
    return value


def entries(value: object) -> tuple[object, ...] | None:
    """The entries of a sequence of numbers, or None of anything else."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return tuple(value) if isinstance(value, tuple | list | range) else None


def per_axis(name: str, value: object, rank: int, least: int = 1) -> Ints:
    """Take one whole number for all axes, or one each."""
    given = entries(value)
    if given is None:
        given = (value,) * rank
    elif len(given) != rank:
        raise OptionError(f"{name}={value!r} has {len(given)} entries, must be one number or {rank}")
    numbers = tuple(whole(name, entry) for entry in given)
    for number in numbers:
        if number < least:
            raise OptionError(f"{name}={value!r} must be at least {least}")
    return numbers


def padding_form(padding: object, rank: int) -> str | Pairs:
    """Bring a padding to a name or to pairs (lo, hi); negative entries, which crop, only in pairs."""
    if isinstance(padding, str):
        if padding not in PADDING_NAMES:
            raise OptionError(f"padding={padding!r} must be numbers or one of {one_of(PADDING_NAMES, padding)}")
        if padding == "causal" and rank != 1:
            raise OptionError(f"padding='causal' is for one spatial axis, here are {rank}")
        return padding
    given = entries(padding)
    if given is None or all(entries(entry) is None for entry in given):
        return tuple((size, size) for size in per_axis("padding", padding, rank, least=-LARGEST))
    pairs = []
    for entry in given:
        pair = entries(entry)
        if pair is None or len(pair) != 2:
            raise OptionError(f"padding={padding!r} must be one number, {rank} numbers or {rank} pairs (lo, hi)")
        pairs.append((whole("padding", pair[0]), whole("padding", pair[1])))
    if len(pairs) != rank:
        raise OptionError(f"padding={padding!r} has {len(pairs)} pairs, must have {rank}, one for each spatial axis")
    return tuple(pairs)


@dataclass(frozen=True)
class Window:
    """The geometry of a convolution or pool: sizes, padding and where each window lies; one entry per spatial axis.

    Parameters
    ----------
    in_size, kernel_size, stride : tuple of int
        Input cells, taps, and the input cells from one window to the next.
    padding : tuple of (int, int)
        Cells added in front of and behind each axis; a negative number crops the input.
    dilation : tuple of int
        The input cells from one tap to the next; 1 is dense.
    ceil_mode : bool
        Round the number of windows up, so that the last may hang over the padding.

    Examples
    --------
    >>> window = Window.make((5,), kernel_size=3, stride=2, padding="same")
    >>> window.padding, window.out_size
    (((1, 1),), (3,))
    """

    in_size: Ints
    kernel_size: Ints
    stride: Ints
    padding: Pairs
    dilation: Ints
    ceil_mode: bool = False

    @classmethod
    def make(
        cls,
        in_size: Ints,
        *,
        kernel_size: object,
        stride: object = 1,
        padding: object = 0,
        dilation: object = 1,
        ceil_mode: object = False,
    ) -> Window:
        """Validate the options and resolve a named padding for this input size."""
        rank = len(in_size)
        kernel_size = per_axis("kernel_size", kernel_size, rank)
        stride = per_axis("stride", stride, rank)
        dilation = per_axis("dilation", dilation, rank)
        if not isinstance(ceil_mode, bool | np.bool_):
            raise OptionError(f"ceil_mode={ceil_mode!r} must be True or False")
        form = padding_form(padding, rank)
        pairs = form if isinstance(form, tuple) else _named_padding(form, in_size, kernel_size, stride, dilation)
        window = cls(in_size, kernel_size, stride, pairs, dilation, bool(ceil_mode))
        window._check()
        return window

    def _check(self) -> None:
        for axis, size in enumerate(self.in_size):
            lo, hi = self.padding[axis]
            if size < 1:
                raise ShapeError(f"the spatial axes have sizes {self.in_size}, each must be at least 1")
            first, stop = self.bounds[axis]
            if first >= stop:
                raise ShapeError(f"padding={(lo, hi)} crops all {size} cells of spatial axis {axis}")
            if self.extent[axis] > size + lo + hi:
                raise ShapeError(
                    f"the window extends over {self.extent[axis]} cells of spatial axis {axis} (kernel_size="
                    f"{self.kernel_size[axis]}, dilation={self.dilation[axis]}), more than the padded input's "
                    f"{size} + {lo} + {hi} = {size + lo + hi}"
                )

    @cached_property
    def _hash(self) -> int:
        return hash((self.in_size, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode))

    def __hash__(self) -> int:
        # Specs are looked up on every call; the hash of the nested tuples takes longer than the look-up.
        return self._hash

    @property
    def rank(self) -> int:
        """The number of spatial axes."""
        return len(self.in_size)

    @cached_property
    def taps(self) -> int:
        """The number of kernel positions."""
        return math.prod(self.kernel_size)

    @cached_property
    def is_whole(self) -> bool:
        """Whether the only window is all of the input, cell by cell."""
        return self.kernel_size == self.in_size and not any(map(any, self.padding))

    @cached_property
    def extent(self) -> Ints:
        """The input cells from a window's first tap to its last, both included."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel_size, self.dilation, strict=True))

    @cached_property
    def bounds(self) -> Pairs:
        """The real cells [first, stop) of each axis: what is left of the input where the padding crops it."""
        return tuple(
            (max(0, -lo), size + min(0, hi)) for size, (lo, hi) in zip(self.in_size, self.padding, strict=True)
        )

    @cached_property
    def out_size(self) -> Ints:
        """The number of windows along each axis."""
        sizes = []
        for axis, size in enumerate(self.in_size):
            lo, hi = self.padding[axis]
            step = self.stride[axis]
            spare = size + lo + hi - self.extent[axis]
            if self.ceil_mode:
                # Rounded up, but without windows that would start behind the last real cell.
                sizes.append(min(-(-spare // step) + 1, -(-(self.bounds[axis][1] + lo) // step)))
            else:
                sizes.append(spare // step + 1)
        return tuple(sizes)

    @cached_property
    def whole(self) -> Tile:
        """The tile of all outputs."""
        return tuple(slice(0, size) for size in self.out_size)

    @cached_property
    def exact(self) -> tuple[Tile, Window]:
        """The part of the input that any window reads, and the problem on that part: no overhang, nothing unread."""
        return self.restrict(self.whole)

    @cached_property
    def padded(self) -> bool:
        """Whether some window reaches beyond the input."""
        return any(lo > 0 or hi > 0 for lo, hi in self.exact[1].padding)

    @cached_property
    def extended(self) -> Window:
        """The same windows on an input that holds the padding too; what is left is the overhang, or cells unread."""
        sizes = tuple(size + lo + hi for size, (lo, hi) in zip(self.in_size, self.padding, strict=True))
        rest = tuple(
            (0, (count - 1) * step + extent - size)
            for size, count, step, extent in zip(sizes, self.out_size, self.stride, self.extent, strict=True)
        )
        return Window(sizes, self.kernel_size, self.stride, rest, self.dilation)

    def kernel_positions(self) -> Iterator[Tap]:
        """Every tap, in row-major order."""
        return product(*map(range, self.kernel_size))

    def starts(self, axis: int) -> range:
        """The input coordinate at which each window along the axis starts."""
        lo, step = self.padding[axis][0], self.stride[axis]
        return range(-lo, self.out_size[axis] * step - lo, step)

    def _starts(self, axis: int) -> Any:
        starts = self.starts(axis)
        return np.arange(starts.start, starts.stop, starts.step)

    def restrict(self, tile: Tile) -> tuple[Tile, Window]:
        """Narrow the problem to a tile of the outputs.

        Returns the part of the input that the tile reads, and the window problem that computes the tile from that
        part; its padding is what the tile needs and no more, so a tile away from the border has none.

        Examples
        --------
        >>> window = Window.make((8,), kernel_size=3, padding=1)
        >>> part, inner = window.restrict((slice(0, 4),))
        >>> part, inner.padding, inner.out_size
        ((slice(0, 5, None),), ((1, 0),), (4,))
        """
        parts, sizes, padding = zip(*(self.restrict_axis(axis, part) for axis, part in enumerate(tile)), strict=True)
        return parts, Window(sizes, self.kernel_size, self.stride, padding, self.dilation)

    def restrict_axis(self, axis: int, outputs: slice) -> tuple[slice, int, tuple[int, int]]:
        """What some outputs read of one axis: the part of the input, its size, and the padding they need."""
        first, stop = self.bounds[axis]
        begin = outputs.start * self.stride[axis] - self.padding[axis][0]
        end = (outputs.stop - 1 - outputs.start) * self.stride[axis] + begin + self.extent[axis]
        # Where all of it lies in the padding, one real cell is kept and cropped away again.
        inside_begin = min(max(begin, first), max(stop - 1, 0))
        inside_end = max(min(end, stop), inside_begin + 1)
        part = slice(inside_begin, inside_end)
        return part, inside_end - inside_begin, (inside_begin - begin, end - inside_end)

    def tap_slices(self, tap: Tap) -> tuple[Tile, Tile] | None:
        """The outputs whose tap falls on a real cell, and those cells: two slices of equal length per axis.

        None if the tap falls outside for every output.
        """
        outputs, cells = [], []
        for axis, position in enumerate(tap):
            first, stop = self.bounds[axis]
            step = self.stride[axis]
            offset = position * self.dilation[axis] - self.padding[axis][0]
            begin = max(0, -((offset - first) // step))
            end = min(self.out_size[axis], (stop - 1 - offset) // step + 1)
            if begin >= end:
                return None
            outputs.append(slice(begin, end))
            cells.append(slice(begin * step + offset, (end - 1) * step + offset + 1, step))
        return tuple(outputs), tuple(cells)

    @cached_property
    def unpadded_pieces(self) -> list[tuple[Tile, Tile, Window]]:
        """Cut the outputs into pieces whose windows see the same taps of real cells, and no padding.

        Of each piece: its outputs, the part of the input it reads, and the smaller window problem between the two.
        There is one piece for the inside and one for each way to hang over the border.

        Examples
        --------
        >>> window = Window.make((4,), kernel_size=3, padding=1)
        >>> [(outputs, inner.kernel_size) for (outputs,), _, inner in window.unpadded_pieces]
        [(slice(0, 1, None), (2,)), (slice(1, 3, None), (3,)), (slice(3, 4, None), (2,))]
        """
        pieces = []
        for runs in product(*(self._equal_runs(axis) for axis in range(self.rank))):
            outputs, parts, taps = zip(*runs, strict=True)
            sizes = tuple(part.stop - part.start for part in parts)
            inner = Window(sizes, taps, self.stride, ((0, 0),) * self.rank, self.dilation)
            pieces.append((outputs, parts, inner))
        return pieces

    def _equal_runs(self, axis: int) -> list[tuple[slice, slice, int]]:
        """Consecutive outputs whose windows lose the same taps to the padding: outputs, cells read, taps left."""
        starts, spread = self._starts(axis), self.dilation[axis]
        low, high = _taps_within(starts, spread, self.kernel_size[axis], *self.bounds[axis])
        changes = np.flatnonzero((low[1:] != low[:-1]) | (high[1:] != high[:-1])) + 1
        runs = []
        for begin, end in pairwise((0, *changes.tolist(), len(starts))):
            first, last = int(low[begin]), int(high[begin]) - 1
            if last >= first:
                cells = slice(int(starts[begin]) + first * spread, int(starts[end - 1]) + last * spread + 1)
                runs.append((slice(begin, end), cells, last - first + 1))
        return runs

    def cell_counts(self, tile: Tile, *, include_padding: bool) -> int | np.ndarray[Any, np.dtype[np.int64]]:
        """How many cells of each window of a tile are real, or lie on the input or its declared padding.

        The overhang of `ceil_mode` never counts. One number if all windows agree, else an array of the tile's size.
        """
        counts: list[np.ndarray[Any, np.dtype[np.int64]]] = []
        for axis, outputs in enumerate(tile):
            first, stop = self.bounds[axis]
            if include_padding:
                lo, hi = self.padding[axis]
                first, stop = -lo, self.in_size[axis] + hi
            starts = self.starts(axis)[outputs]
            places = np.arange(starts.start, starts.stop, starts.step)
            low, high = _taps_within(places, self.dilation[axis], self.kernel_size[axis], first, stop)
            counts.append(high - low)
        if all(np.all(count == count[0]) for count in counts):
            return math.prod(int(count[0]) for count in counts)
        total = np.ones((), np.int64)
        for count in counts:
            total = np.multiply.outer(total, count)
        return total

    def empty_window(self) -> tuple[int, int] | None:
        """The first window along an axis that holds no real cell, as (axis, output), or None."""
        for axis in range(self.rank):
            first, stop = self.bounds[axis]
            if self.dilation[axis] > 1:
                starts = self._starts(axis)
                low, high = _taps_within(starts, self.dilation[axis], self.kernel_size[axis], first, stop)
                if not (high > low).all():
                    return axis, int(np.argmax(high <= low))
            # A dense window that neither ends before the first real cell nor starts behind the last holds one.
            elif self.padding[axis][0] >= self.extent[axis]:
                return axis, 0
            elif self.starts(axis)[-1] >= stop:
                return axis, -(-(stop + self.padding[axis][0]) // self.stride[axis])
        return None


def _taps_within(starts: Any, dilation: int, kernel_size: int, first: int, stop: int) -> tuple[Any, Any]:
    """For each start, the range [low, high) of taps t with first <= start + t * dilation < stop."""
    low = np.clip(-((starts - first) // dilation), 0, kernel_size)
    high = np.clip(-((starts - stop) // dilation), 0, kernel_size)
    return low, high


def _named_padding(name: str, in_size: Ints, kernel_size: Ints, stride: Ints, dilation: Ints) -> Pairs:
    pairs = []
    for size, taps, step, spread in zip(in_size, kernel_size, stride, dilation, strict=True):
        extent = spread * (taps - 1) + 1
        # "same" gives ceil(in / stride) outputs; the odd cell goes to the end, for "same_lower" to the front.
        total = max((-(-size // step) - 1) * step + extent - size, 0)
        pairs.append(
            {
                "valid": (0, 0),
                "same": (total // 2, total - total // 2),
                "same_lower": (total - total // 2, total // 2),
                "full": (extent - 1, extent - 1),
                "causal": (extent - 1, 0),
            }[name]
        )
    return tuple(pairs)
