"""Pools by every reducer: equality with the definition, gradients, ties, counting."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import STRATEGIES, lay, pool_options
from hypothesis import assume, event, given
from hypothesis import strategies as st

import convkernels as ck
from convkernels.testing.numeric import assert_same, assert_within
from convkernels.testing.strategies import (
    SELECTING,
    SMOOTH,
    SUMMING,
    distinct,
    integers,
    layouts,
    pool_specs,
    reals,
    seeds,
)

every_strategy = pytest.mark.parametrize("strategy", STRATEGIES)


def regime(spec: ck.PoolSpec) -> None:
    event(spec.reducer.name)
    event("overhanging" if spec.window.padded else "inside")
    event("counts differ" if not isinstance(spec.count(spec.window.whole), int) else "one count")


@every_strategy
@given(data=st.data(), spec=pool_specs(dtypes=("float32", "float64", "float16")), seed=seeds)
def test_forward_and_gradient_equal_the_definition(strategy, data, spec, seed):
    """Exactly, on data of so few values that ties are everywhere."""
    regime(spec)
    layout = data.draw(layouts(spec.window.rank))
    x = lay(integers(spec.x_shape, spec.dtype, seed, most=3), layout)
    dy = lay(integers(spec.y_shape, spec.dtype, seed + 1) * 12, layout)
    options = pool_options(spec, layout)
    y, vjp = ck.pool_vjp(x, spec.window.kernel_size, spec.reducer, **options, strategy=strategy)
    expected, definition = ck.pool_vjp(x, spec.window.kernel_size, spec.reducer, **options, strategy="naive")
    assert_same(y, expected)
    dx, right = vjp(dy), definition(dy)
    if spec.reducer.name in ("mean", "max_ties-split"):
        # Fractions add up in another order: each share has a rounding, and so has each addition.
        assert_within(dx, right, 200 * spec.window.taps * float(np.finfo(spec.dtype).eps), name="dx")
    else:
        assert_same(dx, right, name="dx")


@every_strategy
@given(spec=pool_specs(reducers=("max", "min", "sum"), dtypes=("int8", "uint8", "int64", "uint32")), seed=seeds)
def test_integers_keep_their_type_or_widen(strategy, spec, seed):
    x = integers(spec.x_shape, spec.dtype, seed, most=100)
    window = spec.window.kernel_size
    options = pool_options(spec, ck.layout.data_layout("NC" + "DHW"[3 - spec.window.rank :], None))
    got = ck.pool(x, window, spec.reducer, **options, strategy=strategy)
    assert_same(got, ck.pool(x, window, spec.reducer, **options, strategy="naive"))
    assert got.dtype == (spec.dtype if spec.reducer.name != "sum" else np.dtype(f"{spec.dtype.kind}8"))


@every_strategy
@given(spec=pool_specs(reducers=SMOOTH), seed=seeds)
def test_smooth_reducers_stay_within_their_bound(strategy, spec, seed):
    x = reals(spec.x_shape, spec.dtype, seed)
    window = spec.window.kernel_size
    options = pool_options(spec, ck.layout.data_layout("NC" + "DHW"[3 - spec.window.rank :], None))
    y, vjp = ck.pool_vjp(x, window, spec.reducer, **options, strategy=strategy)
    expected, definition = ck.pool_vjp(x, window, spec.reducer, **options, strategy="naive")
    eps = float(np.finfo(spec.dtype).eps)
    # Each cell's power or exponential is right to a few eps, and the largest cell bounds them all.
    size = 1 + np.abs(expected)
    assert_within(y, expected, 8 * (spec.window.taps + 4) * eps * size)
    dy = reals(spec.y_shape, spec.dtype, seed + 1)
    assert_within(vjp(dy), definition(dy), 64 * (spec.window.taps + 8) * eps * spec.window.taps, name="dx")


@every_strategy
@given(spec=pool_specs(reducers=("max", "min", "lp2", "lp3.5", "logsumexp1"), dtypes=("float64",)), seed=seeds)
def test_gradients_match_differences(strategy, spec, seed):
    assume(spec.batch)
    away_from_kinks = distinct(spec.x_shape, spec.dtype, seed) + 1
    x = away_from_kinks if spec.reducer.name in ("max", "min") else away_from_kinks / away_from_kinks.size
    options = pool_options(spec, ck.layout.data_layout("NC" + "DHW"[3 - spec.window.rank :], None))
    direction = reals(spec.x_shape, spec.dtype, seed + 1)
    dy = reals(spec.y_shape, spec.dtype, seed + 2)

    def loss(step):
        return np.vdot(ck.pool(x + step * direction, spec.window.kernel_size, spec.reducer, **options), dy)

    _, vjp = ck.pool_vjp(x, spec.window.kernel_size, spec.reducer, **options, strategy=strategy)
    step = 1e-5
    difference = (loss(step) - loss(-step)) / (2 * step)
    assert difference == pytest.approx(np.vdot(vjp(dy), direction), rel=1e-5, abs=1e-5)


@every_strategy
@given(spec=pool_specs(reducers=("sum",), dtypes=("float64", "complex128")), seed=seeds)
def test_sum_gradient_is_the_exact_adjoint(strategy, spec, seed):
    x, dy = (integers(shape, spec.dtype, seed) for shape in (spec.x_shape, spec.y_shape))
    options = pool_options(spec, ck.layout.data_layout("NC" + "DHW"[3 - spec.window.rank :], None))
    y, vjp = ck.pool_vjp(x, spec.window.kernel_size, "sum", **options, strategy=strategy)
    assert np.vdot(vjp(dy), x) == np.vdot(dy, y)


def median(windows, axes, count):
    return np.median(windows, axes)


@every_strategy
def test_own_reducer_runs_everywhere(strategy):
    reducer = ck.Reducer("middle", None, median)
    x = np.random.default_rng(0).normal(size=(2, 9, 9, 3))
    got = ck.pool2d(x, 3, reducer, stride=2, layout="NHWC", strategy=strategy)
    assert_same(got, ck.pool2d(x, 3, reducer, stride=2, layout="NHWC", strategy="naive"))
    assert got[0, 0, 0, 0] == np.median(x[0, :3, :3, 0])


@every_strategy
def test_own_reducer_with_gradient_and_padding(strategy):
    def square_sum(windows, axes, count):
        return (windows**2).sum(axes)

    def square_sum_vjp(dy, windows, y, axes, count):
        return 2 * windows * np.expand_dims(dy, axes)

    reducer = ck.Reducer("squares", lambda dtype: 0, square_sum, square_sum_vjp)
    x = integers((2, 3, 6, 7), np.dtype("float64"), 0)
    results = []
    for name in (strategy, "naive"):
        y, vjp = ck.pool2d_vjp(x, (3, 2), reducer, stride=2, padding=((1, 1), (0, 1)), strategy=name)
        results.append((y, vjp(y)))
    assert_same(results[0][0], results[1][0])
    assert_same(results[0][1], results[1][1])


@pytest.mark.parametrize(
    ("ties", "expected"),
    [("first", [1, 0, 0, 0]), ("last", [0, 0, 0, 1]), ("split", [0.5, 0, 0, 0.5]), ("all", [1, 0, 0, 1])],
)
@pytest.mark.parametrize("strategy", [*STRATEGIES, "naive"])
def test_ties(strategy, ties, expected):
    x = np.array([7.0, 1, 2, 7]).reshape(1, 1, 2, 2)
    y, vjp = ck.max_pool2d_vjp(x, 2, ties=ties, strategy=strategy)
    assert y.item() == 7
    assert vjp(np.ones_like(y)).ravel().tolist() == expected


def test_reducers_that_exist_are_all_drawn():
    names = {name.partition("_")[0].rstrip("0123456789.-") for name in SELECTING + SUMMING + SMOOTH}
    assert names == {name.partition("_")[0].partition("<")[0] for name in ck.reducers.BUILTIN} | {"lp", "logsumexp"}
