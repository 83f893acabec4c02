"""Adaptive and global pools by every reducer: equal to loops that share no code with them."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from helpers import STRATEGIES, lay
from hypothesis import assume, event, given
from hypothesis import strategies as st

import convkernels as ck
from convkernels.adaptive import (
    adaptive_pool,
    adaptive_pool1d,
    adaptive_pool1d_vjp,
    adaptive_pool2d,
    adaptive_pool2d_vjp,
    adaptive_pool_vjp,
    global_pool,
    global_pool2d,
    global_pool2d_vjp,
    global_pool_vjp,
)
from convkernels.testing.numeric import assert_same, assert_within
from convkernels.testing.strategies import SELECTING, SMOOTH, SUMMING, integers, layouts, ranks, reals, seeds

every_strategy = pytest.mark.parametrize("strategy", ["auto", *STRATEGIES, "naive"])


@st.composite
def problems(draw):
    """A canonical shape, the output's sizes, below and above the input's, and a layout."""
    rank = draw(ranks)
    most = {1: 11, 2: 6, 3: 4}[rank]
    in_size, out_size = (tuple(draw(st.integers(1, most)) for _ in range(rank)) for _ in range(2))
    divides = not any(size % count for size, count in zip(in_size, out_size, strict=True))
    event("ordinary" if divides else "uneven")
    return (draw(st.integers(0, 2)), draw(st.integers(1, 3)), *in_size), out_size, draw(layouts(rank))


def seen_by(position, in_size, out_size):
    """The cells that an output sees, in row-major order."""
    ranges = []
    for i, size, count in zip(position, in_size, out_size, strict=True):
        ranges.append(range(math.floor(i * size / count), math.ceil((i + 1) * size / count)))
    return list(product(*ranges))


def reduced(name, values):
    """What a reducer makes of a list of numbers."""
    kind = name.partition("_")[0]
    if kind in ("max", "min"):
        return next((value for value in values if value != value), {"max": max, "min": min}[kind](values))
    if kind in ("sum", "mean"):
        return sum(values) / (len(values) if kind == "mean" else 1)
    if kind.startswith("lp"):
        p = float(kind[2:])
        return sum(abs(value) ** p for value in values) ** (1 / p)
    t = float(kind[9:])
    return math.log(sum(math.exp(t * value) for value in values)) / t


def shares(name, values, dy):
    """How a reducer's gradient falls on the numbers."""
    kind, _, ties = name.partition("_ties-")
    y = reduced(name, values)
    if kind in ("max", "min"):
        winners = [place for place, value in enumerate(values) if value == y]
        winners = {"": winners[:1], "last": winners[-1:]}.get(ties, winners)
        dy = dy / len(winners) if ties == "split" else dy
        return [dy if place in winners else 0 for place in range(len(values))]
    if kind in ("sum", "mean"):
        return [dy / (len(values) if kind == "mean" else 1)] * len(values)
    if kind.startswith("lp"):
        p = float(kind[2:])
        return [dy * math.copysign(abs(value / y) ** (p - 1), value) if value else 0.0 for value in values]
    t = float(kind[9:])
    return [dy * math.exp(t * (value - y)) for value in values]


def defined(name, x, out_size, dtype):
    y = np.empty((*x.shape[:2], *out_size), dtype)
    for place in np.ndindex(y.shape):
        cells = seen_by(place[2:], x.shape[2:], out_size)
        y[place] = reduced(name, [x.item(*place[:2], *cell) for cell in cells])
    return y


def defined_gradient(name, x, dy):
    dx = np.zeros(x.shape)
    for place in np.ndindex(dy.shape):
        cells = seen_by(place[2:], x.shape[2:], dy.shape[2:])
        values = [x.item(*place[:2], *cell) for cell in cells]
        for cell, share in zip(cells, shares(name, values, dy.item(*place)), strict=True):
            dx[*place[:2], *cell] += share
    return dx


@every_strategy
@pytest.mark.parametrize("name", ["max", "min_ties-last", "sum"])
@given(
    problem=problems(), seed=seeds, dtype=st.sampled_from(["float32", "float64", "float16", "int8", "uint16", "int64"])
)
def test_selecting_and_summing_equal_the_definition(strategy, name, problem, seed, dtype):
    shape, out_size, layout = problem
    x = integers(shape, np.dtype(dtype), seed, most=3)
    kind = np.dtype(dtype).kind
    result = np.dtype(f"{kind}8") if name == "sum" and kind in "iu" else np.dtype(dtype)
    got = adaptive_pool(lay(x, layout), out_size, name, layout=layout.axes, strategy=strategy)
    assert_same(got, lay(defined(name, x, out_size, result), layout))
    assert got.flags.c_contiguous


@pytest.mark.parametrize("name", SELECTING + SUMMING)
@given(problem=problems(), seed=seeds, dtype=st.sampled_from(["float32", "float64", "float16"]))
def test_gradients_equal_the_definition(name, problem, seed, dtype):
    """Exactly, but for the fractions of a mean and of a split."""
    shape, out_size, layout = problem
    x, dy = integers(shape, np.dtype(dtype), seed, most=3), integers((*shape[:2], *out_size), np.dtype(dtype), seed + 1)
    y, vjp = adaptive_pool_vjp(lay(x, layout), out_size, name, layout=layout.axes)
    fractions = name == "mean" or name.endswith("split")
    eps = float(np.finfo(dtype).eps)
    assert_within(layout.view(y), defined(name, x, out_size, np.float64), 8 * eps if name == "mean" else 0)
    dx = vjp(lay(dy, layout))
    assert dx.dtype == dtype
    # Shares of up to 8, a rounding each, and no cell in more windows than there are.
    bound = 16 * eps * math.prod(out_size) if fractions else 0
    assert_within(layout.view(dx), defined_gradient(name, x, dy), bound, name="dx")


@pytest.mark.parametrize("name", SMOOTH)
@given(problem=problems(), seed=seeds, dtype=st.sampled_from(["float32", "float64"]))
def test_smooth_reducers_stay_within_their_bound(name, problem, seed, dtype):
    shape, out_size, layout = problem
    x, dy = reals(shape, np.dtype(dtype), seed), reals((*shape[:2], *out_size), np.dtype(dtype), seed + 1)
    y, vjp = adaptive_pool_vjp(lay(x, layout), out_size, name, layout=layout.axes)
    eps, taps = float(np.finfo(dtype).eps), math.prod(shape[2:])
    expected = defined(name, x, out_size, np.float64)
    # Each cell's power or exponential is right to a few eps, and the largest cell bounds them all.
    assert_within(layout.view(y), expected, 8 * (taps + 4) * eps * (1 + np.abs(expected)))
    bound = 64 * (taps + 8) * eps * math.prod(out_size)
    assert_within(layout.view(vjp(lay(dy, layout))), defined_gradient(name, x, dy), bound, name="dx")


@every_strategy
@pytest.mark.parametrize("name", SELECTING + SUMMING + SMOOTH)
@given(problem=problems(), seed=seeds)
def test_global_is_one_window_over_everything(strategy, name, problem, seed):
    shape, _, layout = problem
    x = integers(shape, np.dtype("float64"), seed, most=3)
    ones = (1,) * layout.rank
    y, vjp = global_pool_vjp(lay(x, layout), name, layout=layout.axes, strategy=strategy)
    dy = integers((*shape[:2], *ones), np.dtype("float64"), seed + 1)
    exact = name in SELECTING and "split" not in name
    bound = 0 if exact else 1e-12 * math.prod(shape[2:])
    assert_within(layout.view(y), defined(name, x, ones, np.float64), bound)
    assert_within(layout.view(vjp(lay(dy, layout))), defined_gradient(name, x, dy), bound, name="dx")
    assert_same(global_pool(lay(x, layout), name, layout=layout.axes, strategy=strategy), y)


@given(problem=problems(), seed=seeds)
def test_sum_gradient_is_the_exact_adjoint_of_complex_data(problem, seed):
    shape, out_size, layout = problem
    x = lay(integers(shape, np.dtype("complex128"), seed), layout)
    y, vjp = adaptive_pool_vjp(x, out_size, "sum", layout=layout.axes)
    dy = lay(integers((*shape[:2], *out_size), np.dtype("complex128"), seed + 1), layout)
    assert np.vdot(vjp(dy), x) == np.vdot(dy, y)


@given(problem=problems(), seed=seeds)
def test_little_memory_gives_the_same(problem, seed):
    shape, out_size, layout = problem
    assume(shape[0])
    x = lay(integers(shape, np.dtype("float64"), seed, most=3), layout)
    expected, right = adaptive_pool_vjp(x, out_size, "max", layout=layout.axes)
    # A chunk of one plane, and no more.
    enough = (
        2 * 8 * 8 * math.prod(max(size, 2 * size, 2 * count) for size, count in zip(shape[2:], out_size, strict=True))
    )
    y, vjp = adaptive_pool_vjp(x, out_size, "max", layout=layout.axes, max_workspace=enough)
    assert_same(y, expected)
    assert_same(vjp(y), right(y))


@given(problem=problems(), seed=seeds)
def test_what_divides_is_an_ordinary_pool(problem, seed):
    shape, factors, layout = problem
    in_size = tuple(size * factor for size, factor in zip(shape[2:], factors, strict=True))
    x = lay(reals((*shape[:2], *in_size), np.dtype("float32"), seed), layout)
    assert_same(
        adaptive_pool(x, shape[2:], "mean", layout=layout.axes), ck.pool(x, factors, "mean", layout=layout.axes)
    )


def test_own_reducer():
    reducer = ck.Reducer("middle", None, lambda windows, axes, count: np.median(windows, axes))
    x = np.array([[[1.0, 9, 2, 3, 8]]])
    assert adaptive_pool1d(x, 3, reducer).ravel().tolist() == [5, 3, 5.5]
    with pytest.raises(ck.UnsupportedError, match=r"^adaptive_pool1d_vjp: reducer 'middle' has no gradient"):
        adaptive_pool1d_vjp(x, 3, reducer)


def test_none_keeps_the_size():
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    assert_same(adaptive_pool2d(x, None, "max"), x)
    assert_same(adaptive_pool2d(x, (None, 2), "max"), adaptive_pool2d(x, (4, 2), "max"))
    assert_same(adaptive_pool2d(x, [3, None], "max"), adaptive_pool2d(x, (3, 5), "max"))


def test_windows_overlap_as_pytorch_has_them():
    """adaptive_avg_pool1d of 0 to 9 to 7 and to 4 outputs, and adaptive_max_pool1d of 0 to 2 to 5."""
    x = np.arange(10.0).reshape(1, 1, 10)
    assert adaptive_pool1d(x, 7, "mean").ravel().tolist() == [0.5, 1.5, 3, 4.5, 6, 7.5, 8.5]
    assert adaptive_pool1d(x, 4, "mean").ravel().tolist() == [1, 3, 6, 8]
    assert adaptive_pool1d(x[..., :3], 5, "max").ravel().tolist() == [0, 1, 1, 2, 2]


def test_nan_reaches_the_windows_that_hold_it():
    x = np.arange(5.0).reshape(1, 1, 5)
    x[0, 0, 1] = np.nan
    y, vjp = adaptive_pool1d_vjp(x, 3, "max")
    assert np.isnan(y).ravel().tolist() == [True, True, False]
    assert vjp(np.ones_like(y)).ravel().tolist() == [0, 2, 0, 0, 1]


def test_overlapping_gradients_of_half_precision_add_up_in_single():
    """2048 and two ones: added one by one in half precision, either one would be lost."""
    x = np.zeros((1, 1, 1), np.float16)
    _, vjp = adaptive_pool1d_vjp(x, 3, "sum")
    assert vjp(np.array([[[2048, 1, 1]]], np.float16)).item() == 2050
    x = np.zeros((1, 1, 3, 2), np.float16)
    _, vjp = adaptive_pool2d_vjp(x, (2, 3), "sum")
    dy = np.array([[[[2048, 1, 0], [1, 0, 0]]]], np.float16)
    assert vjp(dy)[0, 0, 1, 0] == 2050


def test_out_takes_the_result():
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 5))
    for size in (1, 2, 5):
        out = np.full((2, size, size, 3), np.nan).transpose(0, 3, 1, 2)
        assert adaptive_pool2d(x, size, "max", out=out) is out
        assert_same(out, adaptive_pool2d(x, size, "max"))


def test_empty_batch():
    x = np.zeros((0, 3, 5, 5))
    for size in (1, 2):
        y, vjp = adaptive_pool2d_vjp(x, size, "mean")
        assert y.shape == (0, 3, size, size)
        assert vjp(y).shape == x.shape


def test_explained_as_the_pools_that_it_is():
    x = np.zeros((1, 3, 6, 5))
    assert len(ck.explain("adaptive_pool2d", x, (3, 5), "max").choices) == 1
    assert len(ck.explain("adaptive_pool2d", x, (4, 3), "max").choices) == 2


x = np.zeros((2, 3, 5, 4))
BAD = [
    (lambda: adaptive_pool2d(x, 0, "max"), ck.OptionError, "adaptive_pool2d: output_size=0 must be at least 1"),
    (lambda: adaptive_pool2d(x, (2, 2, 2), "max"), ck.OptionError, "adaptive_pool2d: output_size=(2, 2, 2) has 3 "),
    (lambda: adaptive_pool2d(x, (2, 1.5), "max"), ck.OptionError, "adaptive_pool2d: output_size=1.5 must be a whole"),
    (lambda: adaptive_pool2d(x, True, "max"), ck.OptionError, "adaptive_pool2d: output_size=True must be a whole"),
    (lambda: adaptive_pool2d(x, 2, "maxx"), ck.OptionError, "adaptive_pool2d: reducer='maxx' is not known; there are"),
    (lambda: adaptive_pool2d(x, 2, max), ck.OptionError, "adaptive_pool2d: reducer=<built-in function max> must be a"),
    (lambda: adaptive_pool2d(x, 1, max), ck.OptionError, "adaptive_pool2d: reducer=<built-in function max> must be a"),
    (lambda: adaptive_pool2d(x[0], 2, "max"), ck.ShapeError, "adaptive_pool2d: x has 3 axes, layout 'NCHW' has 4; arr"),
    (lambda: adaptive_pool2d(x[:, :0], 2, "max"), ck.ShapeError, "adaptive_pool2d: x has size 0 along 'C', must have"),
    (lambda: global_pool2d(x[:, :, :0], "max"), ck.ShapeError, "global_pool2d: x has size 0 along 'H', must have at"),
    (
        lambda: adaptive_pool2d(x.astype(int), 2, "mean"),
        ck.DTypeError,
        "adaptive_pool2d: reducer 'mean' takes floating",
    ),
    (lambda: adaptive_pool2d(x > 0, 2, "max"), ck.DTypeError, "adaptive_pool2d: x has dtype bool, must be integer"),
    (
        lambda: adaptive_pool2d(x, 2, "max", layout="NCW"),
        ck.LayoutError,
        "adaptive_pool2d: layout='NCW' has the spatial",
    ),
    (
        lambda: adaptive_pool2d(x, 2, "max", strategy="a"),
        ck.UnknownStrategyError,
        "adaptive_pool2d: strategy='a' is not",
    ),
    (
        lambda: adaptive_pool2d(x[:0], 2, "max", strategy="a"),
        ck.UnknownStrategyError,
        "adaptive_pool2d: strategy='a' is not",
    ),
    (
        lambda: adaptive_pool2d(x, 2, "max", out=np.zeros((2, 3, 2, 3))),
        ck.ShapeError,
        "adaptive_pool2d: out has shape (2, 3, 2, 3), must have (2, 3, 2, 2) (x has shape (2, 3, 5, 4), layout 'NCHW')",
    ),
    (
        lambda: adaptive_pool2d(x, 2, "max", max_workspace=100),
        ck.WorkspaceError,
        "adaptive_pool2d: max_workspace=100 bytes is too small: 3072 would do (x has shape (2, 3, 5, 4), ",
    ),
    (
        lambda: adaptive_pool2d(np.full((1, 1, 3, 3), 2**62), 2, "sum"),
        ck.IntegerOverflowError,
        "adaptive_pool2d: sums of this data could reach 18446744073709551616, int64 holds 9223372036854775807",
    ),
    (
        lambda: adaptive_pool2d_vjp(x, 2, "max")[1](np.zeros((2, 3, 2, 3))),
        ck.ShapeError,
        "adaptive_pool2d_vjp's vjp: dy has shape (2, 3, 2, 3), must have (2, 3, 2, 2) as the output has",
    ),
    (
        lambda: global_pool2d_vjp(x, "max")[1](np.zeros((2, 3, 2, 3))),
        ck.ShapeError,
        "global_pool2d_vjp's vjp: dy has shape (2, 3, 2, 3), must have (2, 3, 1, 1) as the output has",
    ),
    (
        lambda: adaptive_pool1d_vjp(np.zeros((1, 1, 3), np.int8), 2, "max")[1](np.full((1, 1, 2), 100, np.int8)),
        ck.IntegerOverflowError,
        "adaptive_pool1d_vjp's vjp: sums of this data could reach 200, int8 holds 127",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[case[-1][:70] for case in BAD])
def test_refuses(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value).startswith(message)
