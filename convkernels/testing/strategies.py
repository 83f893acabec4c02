"""Hypothesis' strategies: specs are drawn, so that they shrink; data comes from a drawn seed.

Arrays drawn element by element came out nearly constant in nine examples of ten. A seeded generator's never do.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import permutations
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ..layout import SPATIAL, Array, Layout
from ..norm_spec import LocalNormSpec, NormSpec
from ..pool_spec import PoolSpec
from ..reducer import Reducer
from ..reducers import builtin_reducer, find_reducer
from ..spec import PADDING_MODES, ConvSpec, ConvTransposeSpec, Shape
from ..window import Window

SELECTING = ("max", "max_ties-last", "max_ties-split", "max_ties-all", "min", "min_ties-last")
SUMMING = ("sum", "mean")
SMOOTH = ("lp1", "lp2", "lp3.5", "logsumexp1", "logsumexp-0.5")

MOST = 5000
"""Products that the definition may take for a problem of many channels."""
FEW = 100
"""Cells of a norm with many channels or long rows; the definition of its gradient goes through all pairs of them."""

ranks = st.integers(1, 3)
seeds = st.integers(0, 999)
batches = st.sampled_from([1, 2, 3, 1, 2, 3, 0])
sizes = st.sampled_from([1, 2, 3, 1, 2, 3, 1, 2, 3, 17])
"""Sizes of a channel axis. One in ten is more than a vector register holds."""


@lru_cache(typed=True)
def among(*values: Any) -> st.SearchStrategy[Any]:
    """One of some values; made once, since making a strategy takes as long as drawing from it."""
    return st.sampled_from(values)


@lru_cache
def layouts(rank: int, leading: str = "NC") -> st.SearchStrategy[Layout]:
    """Any permutation of the axes; shrinks to channels first."""
    orders = permutations(leading + SPATIAL[rank])
    return st.sampled_from([Layout("".join(axes), leading) for axes in orders])


axes = st.tuples(
    st.integers(1, 9),
    st.sampled_from([1, 1, 2, 3]),
    st.sampled_from([0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, -1]),
    st.sampled_from([0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, -1]),
    st.integers(1, 3),
    st.integers(0, 10),
)
"""Of a spatial axis: taps, dilation, padding in front and behind, stride, and cells beyond the fewest."""


def folded(drawn: int, least: int, most: int) -> int:
    """Bring a number that was drawn into a range that is known only now; one that is in it stays.

    Examples
    --------
    >>> [folded(drawn, -1, 2) for drawn in range(-1, 7)]
    [-1, 0, 1, 2, -1, 0, 1, 2]
    """
    return least + (drawn - least) % (most - least + 1)


@st.composite
def windows(draw: st.DrawFn, rank: int | None = None, *, ceil: bool = False, pool: bool = False) -> Window:
    """Window problems small enough for the definition, in every regime: padded, cropped, strided, dilated, 1x1.

    A pool's windows each hold a real cell.
    """
    # A list, from which whole axes can be left out to make a problem smaller.
    drawn = draw(st.lists(axes, min_size=rank or 1, max_size=rank or 3))
    most = {1: 9, 2: 4, 3: 3}[len(drawn)]
    in_size, kernel_size, stride, padding, dilation = [], [], [], [], []
    for axis in drawn:
        taps, spread, lo, hi, step, spare = axis
        taps = folded(taps, 1, most)
        extent = spread * (taps - 1) + 1
        furthest = extent - 1 if pool else extent + 1
        lo, hi = folded(lo, -1, furthest), folded(hi, -1, furthest)
        # Where taps lie no further apart than there are real cells, none of a pool's windows steps over all of them.
        real = spread if pool else 1
        size = max(extent - lo - hi, real - min(lo, 0) - min(hi, 0)) + folded(spare, 0, most + 1)
        if pool:
            # Its last window must start on a real cell.
            while (size + lo + hi - extent) // step * step - lo >= size + min(hi, 0):
                hi -= 1
        in_size.append(size)
        kernel_size.append(taps)
        stride.append(step)
        padding.append((lo, hi))
        dilation.append(spread)
    return Window.make(
        tuple(in_size),
        kernel_size=tuple(kernel_size),
        stride=tuple(stride),
        padding=tuple(padding),
        dilation=tuple(dilation),
        ceil_mode=ceil and draw(st.booleans()),
    )


@st.composite
def conv_specs(
    draw: st.DrawFn,
    rank: int | None = None,
    dtypes: tuple[str, ...] = ("float32", "float64"),
    padding_modes: tuple[str, ...] = PADDING_MODES,
) -> ConvSpec:
    """Convolution problems: grouped, depthwise, with and without bias."""
    window, batch = draw(windows(rank)), draw(batches)
    groups, group_in, group_out = draw(among(1, 1, 2, 3, 17)), draw(sizes), draw(sizes)
    if batch * groups * group_in * group_out * math.prod(window.out_size) * window.taps > MOST:
        groups, group_in, group_out = min(groups, 3), min(group_in, 3), min(group_out, 3)
    return ConvSpec(
        batch=batch,
        groups=groups,
        in_channels=groups * group_in,
        out_channels=groups * group_out,
        window=window,
        bias=draw(st.booleans()),
        padding_mode=draw(among(*["zeros"] * 4, *padding_modes)),
        dtype=np.dtype(draw(among(*dtypes))),
    )


@st.composite
def conv_transpose_specs(
    draw: st.DrawFn, rank: int | None = None, dtypes: tuple[str, ...] = ("float32", "float64")
) -> ConvTransposeSpec:
    """Transposed convolution problems: every output padding, and padding down to one cell of output."""
    drawn = draw(st.lists(axes, min_size=rank or 1, max_size=rank or 3))
    found = []
    for axis in drawn:
        taps, spread, lo, hi, step, spare = axis
        taps, size = folded(taps, 1, 3 if len(drawn) > 1 else 6), folded(spare, 0, 3) + 1
        extra = draw(st.integers(0, max(step, spread) - 1))
        most = (size - 1) * step + spread * (taps - 1) + extra  # leaves one cell
        lo = folded(lo, -1, most)
        found.append((size, taps, step, (lo, folded(hi, -1, most - max(lo, 0))), extra, spread))
    in_size, kernel_size, stride, padding, output_padding, dilation = zip(*found, strict=True)
    batch, groups = draw(batches), draw(among(1, 1, 2, 17))
    group_in, group_out = draw(sizes), draw(sizes)
    if batch * groups * group_in * group_out * math.prod((*in_size, *kernel_size)) > MOST:
        groups, group_in, group_out = min(groups, 2), min(group_in, 3), min(group_out, 3)
    return ConvTransposeSpec.make(
        (batch, groups * group_in, *in_size),
        (groups * group_in, group_out, *kernel_size),
        np.dtype(draw(among(*dtypes))),
        bias=draw(st.booleans()),
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        dilation=dilation,
        groups=groups,
    )


@st.composite
def pool_specs(
    draw: st.DrawFn,
    rank: int | None = None,
    reducers: tuple[str | Reducer, ...] = SUMMING + SELECTING,
    dtypes: tuple[str, ...] = ("float32", "float64"),
    padding_modes: tuple[str, ...] = PADDING_MODES,
) -> PoolSpec:
    """Pooling problems: every rounding and counting rule."""
    window, batch, channels = draw(windows(rank, ceil=True, pool=True)), draw(batches), draw(sizes)
    if batch * channels * math.prod(window.out_size) * window.taps > MOST:
        channels = min(channels, 3)
    rule = draw(among((True, None), (True, None), (True, None), (False, None), (False, None), (True, 3)))
    return PoolSpec(
        batch=batch,
        channels=channels,
        window=window,
        reducer=find_reducer(draw(among(*reducers))),
        count_include_pad=rule[0],
        divisor_override=rule[1],
        padding_mode=draw(among(*["zeros"] * 4, *padding_modes)),
        dtype=np.dtype(draw(among(*dtypes))),
    )


@st.composite
def norm_specs(
    draw: st.DrawFn,
    kinds: tuple[str, ...] = ("batch", "group", "instance", "layer", "rms"),
    dtypes: tuple[str, ...] = ("float32", "float64"),
) -> NormSpec:
    """Norms, layer and rms norms over chosen axes too; each has statistics over at least two values."""
    kind = draw(among(*kinds))
    groups = draw(st.integers(1, 3)) if kind == "group" else 1
    batch, group_channels = draw(st.integers(1, 3)), draw(sizes)
    lengths = (*draw(st.lists(st.integers(1, 3), max_size=2)), draw(among(2, 2, 3, 17)))
    if batch * groups * group_channels * math.prod(lengths) > FEW:
        group_channels, lengths = min(group_channels, 3), (*lengths[:-1], 2)
    channels = groups * group_channels
    shape = (batch, channels, *lengths)
    everything = tuple(range(1, len(shape)))
    chosen = draw(among(everything, everything, (1,), everything[1:], (1, len(shape) - 1)))
    if kind in ("layer", "rms") and chosen == (1,) and channels == 1:
        chosen = everything
    return NormSpec.make(
        shape,
        np.dtype(draw(among(*dtypes))),
        kind=kind,
        groups=groups,
        axes=chosen,
        eps=draw(among(1e-5, 1e-2)),
    )


@st.composite
def local_norm_specs(draw: st.DrawFn, dtypes: tuple[str, ...] = ("float32", "float64")) -> LocalNormSpec:
    """Local response norms: windows odd, even, and wider than the channels."""
    lengths = (*draw(st.lists(st.integers(1, 2), max_size=2)), draw(among(1, 2, 1, 2, 17)))
    channels = draw(among(1, 2, 3, 4, 5, 6, 17))
    shape = (draw(batches), channels if channels * math.prod(lengths) <= 2 * FEW else 2, *lengths)
    return LocalNormSpec.make(
        shape,
        np.dtype(draw(among(*dtypes))),
        size=draw(st.integers(1, 8)),
        alpha=draw(among(1e-4, 1.0)),
        beta=draw(among(0.75, 1.0)),
        bias=draw(among(1.0, 2.0)),
    )


ODD = tuple(pow(0x9E3779B97F4A7C15, power, 2**64) for power in range(1, 9))
"""What a cell's number grows by along an axis, and from one seed to the next."""


def bits(shape: Shape, seed: int) -> Array:
    """64 random bits for each cell, by its place and the seed alone (the finish of SplitMix64).

    A smaller array has a corner of a larger one's: what is wrong stays wrong while Hypothesis cuts a problem down.

    Examples
    --------
    >>> bool((bits((2, 3, 4), 7)[:1, :, :2] == bits((1, 3, 2), 7)).all())
    True
    """
    mixed = np.full(shape, (seed + 1) * ODD[0] % 2**64, np.uint64)
    for axis, size in enumerate(shape):
        # The spatial axes count from the last, so that one of them may go too.
        step = np.uint64(ODD[1 + axis] if axis < 2 else ODD[axis - len(shape)])
        mixed += (np.arange(size, dtype=np.uint64) * step).reshape(-1, *[1] * (len(shape) - 1 - axis))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        mixed ^= mixed >> np.uint64(shift)
        mixed *= np.uint64(factor)
    return mixed


def uniform(shape: Shape, seed: int) -> Array:
    """Numbers above 0, up to 1."""
    drawn: Array = ((bits(shape, seed) >> np.uint64(11)) + np.uint64(1)) * 2.0**-53
    return drawn


def integers(shape: Shape, dtype: np.dtype[Any], seed: int, most: int = 8) -> Array:
    """Whole numbers of size up to `most` in any type: their products and short sums are exact in all of them.

    None is 0, for a product with 0 shows nothing, and neighbours differ in size.
    """
    drawn, places = bits(shape, seed), np.indices(shape, np.uint64).sum(0, np.uint64)
    size = np.uint64(1) + (drawn % np.uint64((most + 1) // 2) * np.uint64(2) + places % np.uint64(2)) % np.uint64(most)
    whole: Array = size if dtype.kind == "u" else np.where(drawn >> np.uint64(63), -1, 1) * size.astype(np.int64)
    if dtype.kind == "c":
        whole = whole + 1j * integers(shape, np.dtype(np.int64), seed + 10**6, most)
    return whole.astype(dtype)


def reals(shape: Shape, dtype: np.dtype[Any], seed: int) -> Array:
    """Normally distributed numbers."""
    turns = 2 * np.pi * uniform(shape, seed + 10**6)
    drawn: Array = np.sqrt(-2 * np.log(uniform(shape, seed))) * np.cos(turns)
    return drawn.astype(dtype)


def distinct(shape: Shape, dtype: np.dtype[Any], seed: int) -> Array:
    """Whole numbers of which no two are equal, so that a maximum has no ties."""
    return np.argsort(np.argsort(bits(shape, seed), axis=None)).reshape(shape).astype(dtype)


def tied(shape: Shape, dtype: np.dtype[Any], seed: int) -> Array:
    """Ones, and zeros of both signs, so that most windows have ties."""
    drawn: Array = np.array([1, 1, 0, -0.0])[bits(shape, seed) >> np.uint64(62)]
    return drawn.astype(dtype)


def with_nan(shape: Shape, dtype: np.dtype[Any], seed: int) -> Array:
    """Whole numbers, one of them NaN and a tenth of the others."""
    drawn, chances = integers(shape, dtype, seed), uniform(shape, seed + 10**6)
    drawn[(chances < 0.1) | (chances == chances.min(initial=1))] = np.nan
    return drawn


def offset(shape: Shape, dtype: np.dtype[Any], seed: int) -> Array:
    """Numbers whose mean is far larger than their deviation from it."""
    return (reals(shape, dtype, seed) + 1000).astype(dtype)


DATA = {
    "integers": integers,
    "reals": reals,
    "distinct": distinct,
    "tied": tied,
    "with_nan": with_nan,
    "offset": offset,
}
"""The kinds of data, by name."""

assert all(map(builtin_reducer, SELECTING + SUMMING + SMOOTH)), "the names exist"
