"""How right compiled norms are: data far from zero, of any magnitude, with outliers and NaN."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import convkernels as ck
from convkernels.kernels.compiled import available

if available.missing():
    pytest.skip(available.missing(), allow_module_level=True)

from norm_problems import COMPILED, FORMS, in_float64, standard, statistics_of

from convkernels.operation import OPERATIONS
from convkernels.testing.numeric import assert_within
from convkernels.testing.problems import run


@pytest.mark.parametrize(("kind", "layout", "form"), FORMS)
def test_coefficients_gradients_of_data_far_from_zero_are_right_to_some_roundings(kind, layout, form):
    """Sums of float32 are about the rounded mean, half a thousandth off here: 0.05 of them if that were forgotten."""
    problem = standard(kind, layout)
    problem = problem.with_x(problem.arrays["x"] + np.float32(1e4))
    gradient = statistics_of(problem)
    gradient = gradient.given({"dy": np.abs(gradient.arrays["dy"])})
    got = run(OPERATIONS[gradient.operation].find("direct"), gradient)
    expected = run(OPERATIONS[gradient.operation].find("numpy"), in_float64(gradient))
    terms = problem.arrays["x"].size // expected["dgamma"].size * float(gradient.arrays["dy"].mean())
    for name, result in expected.items():
        assert_within(got[name], result, 2e-5 if name == "out" else 3e-6 * terms, name=name)


@pytest.mark.parametrize(("kind", "layout", "form"), FORMS)
def test_sums_that_float32_does_not_hold_are_float64s(kind, layout, form):
    problem = standard(kind, layout)
    gradient = statistics_of(problem)
    dy = gradient.arrays["dy"]
    dy = dy * (np.float32(3e38) / np.abs(dy).max())
    gradient = gradient.given({"dy": dy})
    got = run(OPERATIONS[gradient.operation].find("direct"), gradient)
    expected = run(OPERATIONS[gradient.operation].find("numpy"), in_float64(gradient))
    for name in expected.keys() - {"out"}:  # which float32 does not hold
        assert_within(got[name], expected[name], 1e-6 * np.abs(dy).sum(dtype=float), name=name)


@pytest.mark.parametrize(("kind", "layout", "form"), FORMS)
def test_products_that_vanish_in_float32_count_where_eps_is_tiny(kind, layout, form):
    problem = standard(kind, layout)
    problem = replace(problem, spec=replace(problem.spec, eps=1e-50)).with_x(problem.arrays["x"] * np.float32(1e-23))
    gradient = statistics_of(problem)
    gradient = gradient.given({"dy": gradient.arrays["dy"] * np.float32(1e-23)})
    got = run(OPERATIONS[gradient.operation].find("direct"), gradient)
    expected = run(OPERATIONS[gradient.operation].find("numpy"), in_float64(gradient))
    for name, result in expected.items():
        assert_within(got[name], result, 1e-6 * np.abs(result).max(), name=name)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-7), ("float64", 1e-13)])
def test_a_large_mean_leaves_the_variance_right(layout, dtype, rtol):
    """Also where what the sums are about lies far from the mean."""
    x = np.random.default_rng(0).normal(1e4, 1, size=(8, 16, 16, 16)).astype(dtype)
    x[0, 0, 0, 0] = -1e5 if layout == "NCHW" else 1e4
    axes = tuple(axis for axis, letter in enumerate(layout) if letter != "C")
    _, mean, var = ck.batch_norm_train(x, None, None, layout=layout, strategy="direct")
    exact = x.astype(np.longdouble)
    np.testing.assert_allclose(var, exact.var(axes).astype(float), rtol=rtol)
    np.testing.assert_allclose(mean, exact.mean(axes).astype(float), rtol=rtol)


def test_an_outlier_where_the_sums_begin_does_not_spoil_them():
    x = np.random.default_rng(0).normal(size=(16, 4, 64, 64))
    x[0, :, 0, 0] = 250
    for layout in ("NCHW", "NHWC"):
        data = np.ascontiguousarray(x if layout == "NCHW" else np.moveaxis(x, 1, -1))
        _, _, var = ck.batch_norm_train(data, None, None, layout=layout, strategy="direct")
        np.testing.assert_allclose(var, x.astype(np.longdouble).var((0, 2, 3)).astype(float), rtol=1e-14)


def test_a_centre_far_from_the_mean_is_found_out():
    """A channel's sums are about the mean of some numbers, which may happen to be the only large ones."""
    x = np.random.default_rng(0).normal(size=(1, 256, 256, 4)).astype(np.float32)
    x.reshape(8, -1, 4)[:, 0, 3] = 1e5
    for layout in ("NCHW", "NHWC"):
        data = np.ascontiguousarray(np.moveaxis(x, -1, 1)) if layout == "NCHW" else x
        _, _, var = ck.batch_norm_train(data, None, None, layout=layout, strategy="direct")
        np.testing.assert_allclose(var, x.astype(float).var((0, 1, 2)), rtol=1e-6)


@pytest.mark.parametrize("factor", [0.0, 1e-25, 1e-15, 1.0])
def test_sums_of_a_gradient_may_leave_float32_where_coefficients_hide_that(factor):
    """Each half of dy adds up to more than float32 holds, and both to nothing."""
    x = np.random.default_rng(0).standard_normal((16, 64, 1), np.float32)
    dy = np.full(x.shape, 2e38, np.float32)
    dy[8:] *= -1
    gamma, beta = np.full(64, factor, np.float32), np.zeros(64, np.float32)
    _, vjp = ck.layer_norm_vjp(x, gamma, beta, layout="NCW", strategy="direct")
    np.testing.assert_array_equal(vjp(dy)[2], np.zeros(64, np.float32))


def test_a_channel_of_zeros_leaves_the_others_to_float32():
    x = np.random.default_rng(0).normal(size=(1, 64, 64, 16)).astype(np.float32)
    y, *_ = ck.batch_norm_train(x, None, None, layout="NHWC", strategy="direct")
    x[..., 5] = 0
    z, _, var = ck.batch_norm_train(x, None, None, layout="NHWC", strategy="direct")
    assert not z[..., 5].any()
    assert var[5] == 0
    np.testing.assert_array_equal(np.delete(z, 5, -1), np.delete(y, 5, -1))


@pytest.mark.parametrize("size", [1e-40, 1e-30, 1e-12, 1e12, 1e18, 1e30, 3e37])
@pytest.mark.parametrize(("kind", "layout", "form"), COMPILED)
def test_what_leaves_float32_on_the_way_is_computed_in_float64(kind, layout, form, size):
    problem = standard(kind, layout, plain=True)
    x = (problem.arrays["x"] * np.float32(size)).astype(np.float32)
    spec = replace(problem.spec, eps=0.0)
    scaled = replace(problem, spec=spec).given({"x": x})
    exact = replace(problem, spec=replace(spec, dtype=np.dtype(float))).given({"x": x.astype(float)})
    got = run(OPERATIONS[problem.operation].find("direct"), scaled)["out"]
    expected = run(OPERATIONS[problem.operation].find("numpy"), exact)["out"]
    np.testing.assert_allclose(got, expected, atol=2e-6)
    if size < 1e-30:
        return  # gradients are larger than float32 holds
    scaled, exact = statistics_of(scaled), statistics_of(exact)
    got = run(OPERATIONS[scaled.operation].find("direct"), scaled)["out"]
    dy = scaled.arrays["dy"].astype(float)
    expected = run(OPERATIONS[exact.operation].find("numpy"), exact.given({"dy": dy}))["out"]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(("kind", "layout", "form"), COMPILED)
def test_a_sample_with_nan_leaves_the_others_as_they_are(kind, layout, form):
    if kind == "batch":
        return
    problem = standard(kind, layout)
    x = problem.arrays["x"].copy(order="K")
    x[1] = np.nan
    implementation = OPERATIONS[problem.operation].find("direct")
    clean, dirty = run(implementation, problem)["out"], run(implementation, problem.given({"x": x}))["out"]
    np.testing.assert_array_equal(dirty[[0, 2]], clean[[0, 2]])
    assert np.isnan(dirty[1]).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("layer_norm", {"layout": "NHWC", "axes": 3}),
        ("layer_norm", {"layout": "NCHW", "axes": 1}),
        ("instance_norm", {"layout": "NCHW"}),
        ("instance_norm", {"layout": "NHWC"}),
    ],
)
def test_a_sample_comes_to_the_same_alone_as_beside_others(name, options, dtype):
    """Wherever it falls among rows that are taken together, of which a sample has no whole number."""
    random = np.random.default_rng(0)
    x, dy = (random.normal(size=(5, 7, 7, 7)).astype(dtype) for _ in range(2))
    gamma, beta = random.normal(size=(2, 7)).astype(dtype)
    y, vjp = getattr(ck, f"{name}_vjp")(x, gamma, beta, strategy="direct", **options)
    dx = vjp(dy).dx
    for place in range(5):
        one = slice(place, place + 1)
        alone, pull_back = getattr(ck, f"{name}_vjp")(x[one], gamma, beta, strategy="direct", **options)
        np.testing.assert_array_equal(alone, y[one])
        np.testing.assert_array_equal(pull_back(dy[one]).dx, dx[one])


def test_what_other_data_left_behind_does_not_count():
    """Rows that are summed along together have places, of which those of fewer rows keep what was there."""
    random = np.random.default_rng(0)

    def pull_back(channels):
        x, gamma = random.normal(size=(1, channels, 9, 9)).astype(np.float32), np.ones(channels, np.float32)
        return ck.layer_norm_vjp(x, gamma, gamma, axes=1, strategy="direct")[1]

    few, many, dy = pull_back(7), pull_back(16), random.normal(size=(1, 7, 9, 9)).astype(np.float32)
    found = []
    for before in (0, np.inf) * 2:
        many(np.full((1, 16, 9, 9), before, np.float32))
        found.append(tuple(part.tobytes() for part in few(dy)))
    assert len(set(found)) == 1


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_gradients_by_given_statistics_of_large_numbers_do_not_depend_on_the_batch(layout):
    gradient = replace(standard("batch", layout, shape=(9, 32, 4, 8)), operation="batch_norm_grad")
    dy = np.abs(gradient.arrays["dy"]) * np.float32(5e27)  # of which some sums are ordinary numbers, and others not
    implementation = OPERATIONS["batch_norm_grad"].find("direct")
    whole = run(implementation, gradient.given({"dy": dy}))["out"]
    for place in range(len(dy)):
        part = slice(place, place + 1)
        one = replace(gradient, spec=replace(gradient.spec, shape=(1, *gradient.spec.shape[1:])))
        one = one.given({**gradient.arrays, "x": gradient.arrays["x"][part], "dy": dy[part]})
        np.testing.assert_array_equal(run(implementation, one)["out"], whole[part])
