"""relu and sums by channel, compiled and not: the same numbers, NaN and signs of zero included."""

from __future__ import annotations

import numpy as np
import pytest

from convkernels import dense, nn
from convkernels.kernels import pointwise

SHAPES = [(4, 3, 60, 50), (300, 127), (2, 1, 40000), (33000, 1)]


def numbers(shape, dtype, seed=0):
    found = np.random.default_rng(seed).normal(size=shape).astype(dtype)
    found.reshape(-1)[:6] = [np.nan, 0, -0.0, np.inf, -np.inf, -1]
    return found


@pytest.fixture(params=[True, False], ids=["as it is", "NumPy"])
def way(request, monkeypatch):
    if not request.param:
        monkeypatch.setattr(pointwise, "missing", lambda: "not here")
    return request.param


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_relu_and_its_gradient(shape, dtype, way):
    x, dy = numbers(shape, dtype), numbers(shape, dtype, 1)[::-1].copy()
    y, vjp = dense.relu_vjp(x)
    dx = vjp(dy)
    np.testing.assert_array_equal(y, np.maximum(x, 0))
    np.testing.assert_array_equal(dx, dy * ~(x <= 0))
    assert y.dtype == dx.dtype == dtype


@pytest.mark.parametrize("make", [lambda x: x.T, lambda x: x[::2], lambda x: x.astype(">f4"), np.float16])
def test_relu_of_other_arrays(make):
    x = make(numbers((400, 300), np.float32))
    np.testing.assert_array_equal(dense.relu(x), np.maximum(x, 0))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES)
def test_sums_by_channel(shape, dtype, way):
    x = np.random.default_rng(0).integers(-99, 99, shape).astype(dtype)
    for axis in range(x.ndim):
        others = tuple(place for place in range(x.ndim) if place != axis)
        found = pointwise.channel_sums(x, axis)
        np.testing.assert_array_equal(found, x.astype(np.int64).sum(others))
        assert found.dtype == np.float64


def test_sums_by_channel_of_many_equal_numbers_do_not_drift():
    assert pointwise.channel_sums(np.full((2, 2**22), np.float32(0.1)), 0)[0] == np.float64(np.float32(0.1)) * 2**22


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_adam_takes_the_same_steps_compiled_or_not(dtype, monkeypatch):
    results = []
    for _ in range(2):
        rng, rule = np.random.default_rng(0), nn.Adam(1e-2)
        w, mean, square = rng.normal(size=70001).astype(dtype), *np.zeros((2, 70001), dtype)
        for rule.steps in range(1, 5):
            rule.update(w, rng.normal(size=70001).astype(dtype), mean, square)
        results.append((w, mean, square))
        monkeypatch.setattr(pointwise, "missing", lambda: "not here")
    np.testing.assert_array_equal(*results)
