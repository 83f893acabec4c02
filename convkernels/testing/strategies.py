"""Hypothesis' strategies: specs are drawn, so that they shrink; data comes from a drawn seed.

Arrays drawn element by element came out nearly constant in nine examples of ten. A seeded generator's never do.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from ..layout import SPATIAL, Array, Layout
from ..norm_spec import LocalNormSpec, NormSpec
from ..pool_spec import PoolSpec
from ..reducers import Reducer, builtin_reducer, find_reducer
from ..spec import PADDING_MODES, ConvSpec, ConvTransposeSpec, Shape
from ..window import Window

SELECTING = ("max", "max_ties-last", "max_ties-split", "max_ties-all", "min", "min_ties-last")
SUMMING = ("sum", "mean")
SMOOTH = ("lp1", "lp2", "lp3.5", "logsumexp1", "logsumexp-0.5")

ranks = st.integers(1, 3)
seeds = st.integers(0, 2**32 - 1)


def layouts(rank: int, leading: str = "NC") -> st.SearchStrategy[Layout]:
    """Any permutation of the axes; shrinks to channels first."""
    return st.permutations(leading + SPATIAL[rank]).map(lambda axes: Layout("".join(axes), leading))


@st.composite
def windows(draw: st.DrawFn, rank: int, *, ceil: bool = False, pool: bool = False) -> Window:
    """Window problems small enough for the definition, in every regime: padded, cropped, strided, dilated, 1x1.

    A pool's windows each hold a real cell.
    """
    in_size, kernel_size, stride, padding, dilation = [], [], [], [], []
    most = {1: 9, 2: 4, 3: 3}[rank]
    for _ in range(rank):
        taps, spread = draw(st.integers(1, most)), draw(st.sampled_from([1, 1, 2, 3]))
        extent = spread * (taps - 1) + 1
        furthest = (extent - 1 if spread == 1 else 0) if pool else extent + 1
        lo, hi = draw(st.integers(-1, furthest)), draw(st.integers(-1, furthest))
        least = max(1, extent - lo - hi, 1 - min(lo, 0) - min(hi, 0))
        step = draw(st.integers(1, 3))
        size = draw(st.integers(least, least + most + 1))
        if pool:
            # The last window must start on a real cell.
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
    window = draw(windows(draw(ranks) if rank is None else rank))
    padding_mode = draw(st.sampled_from(["zeros", "zeros", *padding_modes]))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    return ConvSpec(
        batch=draw(st.integers(0, 3)),
        groups=groups,
        in_channels=groups * draw(st.integers(1, 3)),
        out_channels=groups * draw(st.integers(1, 3)),
        window=window,
        bias=draw(st.booleans()),
        padding_mode=padding_mode,
        dtype=np.dtype(draw(st.sampled_from(dtypes))),
    )


@st.composite
def conv_transpose_specs(
    draw: st.DrawFn, rank: int | None = None, dtypes: tuple[str, ...] = ("float32", "float64")
) -> ConvTransposeSpec:
    """Transposed convolution problems: every output padding, and padding down to one cell of output."""
    axes = []
    rank = draw(ranks) if rank is None else rank
    for _ in range(rank):
        size, taps = draw(st.integers(1, 4)), draw(st.integers(1, 3 if rank > 1 else 6))
        step, spread = draw(st.integers(1, 3)), draw(st.sampled_from([1, 1, 2, 3]))
        extra = draw(st.integers(0, max(step, spread) - 1))
        most = (size - 1) * step + spread * (taps - 1) + extra  # leaves one cell
        lo = draw(st.integers(-1, most))
        axes.append((size, taps, step, (lo, draw(st.integers(-1, most - max(lo, 0)))), extra, spread))
    in_size, kernel_size, stride, padding, output_padding, dilation = zip(*axes, strict=True)
    groups = draw(st.sampled_from([1, 1, 2]))
    in_channels = groups * draw(st.integers(1, 3))
    return ConvTransposeSpec.make(
        (draw(st.integers(0, 2)), in_channels, *in_size),
        (in_channels, draw(st.integers(1, 3)), *kernel_size),
        np.dtype(draw(st.sampled_from(dtypes))),
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
    reducers: tuple[str | Reducer, ...] = SELECTING + SUMMING,
    dtypes: tuple[str, ...] = ("float32", "float64"),
    padding_modes: tuple[str, ...] = PADDING_MODES,
) -> PoolSpec:
    """Pooling problems: every rounding and counting rule."""
    reducer = find_reducer(draw(st.sampled_from(reducers)))
    return PoolSpec(
        batch=draw(st.integers(0, 2)),
        channels=draw(st.integers(1, 3)),
        window=draw(windows(draw(ranks) if rank is None else rank, ceil=True, pool=True)),
        reducer=reducer,
        count_include_pad=draw(st.booleans()),
        divisor_override=draw(st.sampled_from([None, None, 3])),
        padding_mode=draw(st.sampled_from(["zeros", "zeros", *padding_modes])),
        dtype=np.dtype(draw(st.sampled_from(dtypes))),
    )


@st.composite
def norm_specs(
    draw: st.DrawFn,
    kinds: tuple[str, ...] = ("batch", "group", "instance", "layer", "rms"),
    dtypes: tuple[str, ...] = ("float32", "float64"),
) -> NormSpec:
    """Norms, layer and rms norms over chosen axes too; each has statistics over at least two values."""
    kind = draw(st.sampled_from(kinds))
    rank, groups = draw(ranks), draw(st.integers(1, 3)) if kind == "group" else 1
    channels = groups * draw(st.integers(1, 3))
    shape = (draw(st.integers(1, 3)), channels, *(draw(st.integers(1, 3)) for _ in range(rank - 1)), 2)
    everything = tuple(range(1, len(shape)))
    chosen = draw(st.sampled_from([everything, everything, (1,), everything[1:], (1, len(shape) - 1)]))
    if kind in ("layer", "rms") and chosen == (1,) and channels == 1:
        chosen = everything
    return NormSpec.make(
        shape,
        np.dtype(draw(st.sampled_from(dtypes))),
        kind=kind,
        groups=groups,
        axes=chosen,
        eps=draw(st.sampled_from([1e-5, 1e-2])),
    )


@st.composite
def local_norm_specs(draw: st.DrawFn, dtypes: tuple[str, ...] = ("float32", "float64")) -> LocalNormSpec:
    """Local response norms: windows odd, even, and wider than the channels."""
    shape = (draw(st.integers(0, 2)), draw(st.integers(1, 6)), *(draw(st.integers(1, 2)) for _ in range(draw(ranks))))
    return LocalNormSpec.make(
        shape,
        np.dtype(draw(st.sampled_from(dtypes))),
        size=draw(st.integers(1, 8)),
        alpha=draw(st.sampled_from([1e-4, 1.0])),
        beta=draw(st.sampled_from([0.75, 1.0])),
        bias=draw(st.sampled_from([1.0, 2.0])),
    )


def integers(shape: Shape, dtype: np.dtype[Any], seed: int, most: int = 8) -> Array:
    """Whole numbers of size up to `most` in any type: their products and short sums are exact in all of them."""
    generator = np.random.default_rng(seed)
    low = 0 if dtype.kind == "u" else -most
    drawn = generator.integers(low, most, shape, endpoint=True).astype(dtype)
    if dtype.kind == "c":
        drawn = drawn + 1j * generator.integers(low, most, shape, endpoint=True).astype(dtype)
    return drawn.astype(dtype)


def reals(shape: Shape, dtype: np.dtype[Any], seed: int) -> Array:
    """Normally distributed numbers."""
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def distinct(shape: Shape, dtype: np.dtype[Any], seed: int) -> Array:
    """Whole numbers of which no two are equal, so that a maximum has no ties."""
    size = int(np.prod(shape))
    return np.random.default_rng(seed).permutation(size).reshape(shape).astype(dtype)


def tied(shape: Shape, dtype: np.dtype[Any], seed: int) -> Array:
    """Few different whole numbers, so that most windows have ties."""
    return integers(shape, dtype, seed, 1)


def with_nan(shape: Shape, dtype: np.dtype[Any], seed: int) -> Array:
    """Whole numbers, a tenth of them NaN."""
    drawn = integers(shape, dtype, seed)
    drawn[np.random.default_rng(seed + 1).random(shape) < 0.1] = np.nan
    return drawn


DATA = {"integers": integers, "reals": reals, "distinct": distinct, "tied": tied, "with_nan": with_nan}
"""The kinds of data, by name."""

assert all(map(builtin_reducer, SELECTING + SUMMING + SMOOTH)), "the names exist"
