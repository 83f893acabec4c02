"""Norms: their definitions in every layout, their gradients, and the accuracy of their statistics."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from helpers import lay
from hypothesis import event, given
from hypothesis import strategies as st

import convkernels as ck
from convkernels import recycling
from convkernels.kernels.compiled import available
from convkernels.layout import Layout
from convkernels.testing.numeric import assert_within
from convkernels.testing.strategies import layouts, reals, seeds

DIRECT = available.missing()
KINDS = ("batch", "group", "instance", "layer", "rms")


@st.composite
def problems(draw):
    """A kind of norm, its data in a drawn layout, coefficients or None, and its options."""
    rank = draw(st.integers(1, 3))
    layout = draw(layouts(rank))
    groups = draw(st.integers(1, 3))
    kind = draw(st.sampled_from(KINDS))
    channels = groups * draw(st.integers(1, 3))
    sizes = tuple(draw(st.integers(1, 3)) for _ in range(rank))
    shape = (draw(st.integers(2 if kind == "batch" else 0, 3)), channels, *sizes)
    dtype = np.dtype(draw(st.sampled_from(["float32", "float64", "float16"])))
    seed = draw(seeds)
    x = lay(reals(shape, dtype, seed) * 3 + 1, layout)
    options = {"layout": layout.axes, "eps": draw(st.sampled_from([1e-5, 1e-2]))}
    normalised = (channels,)
    if kind in ("layer", "rms") and draw(st.booleans()):
        spatial = [axis for axis, letter in enumerate(layout.axes) if letter != "N"]
        axes = draw(st.lists(st.sampled_from(spatial), min_size=1, unique=True))
        options["axes"] = tuple(axes)
        normalised = tuple(x.shape[axis] for axis in sorted(axes))
        event("chosen axes")
    gamma, beta = (draw(st.booleans()) and reals(normalised, dtype, seed + 1 + i) for i in range(2))
    event(kind)
    arguments = [x, None if gamma is False else gamma, None if beta is False else beta]
    if kind == "group":
        options["groups"] = groups
    if kind == "rms":
        del arguments[2]
    return kind, arguments, options, seed


def function(kind, vjp=False):
    name = "batch_norm_train" if kind == "batch" else f"{kind}_norm"
    return getattr(ck, name + "_vjp" * vjp)


def bound(expected, arguments, eps):
    """Eight roundings of a deviation, for the mean, and of both terms of (x - mean) * s + beta, which may cancel.

    The mean itself is rounded in float64, and the deviation from it divided by sqrt(1e-5) at the least.
    """
    gamma, beta = (
        np.abs(array).max() if array is not None else default
        for array, default in zip((*arguments[1:], None)[:2], (1, 0), strict=True)
    )
    mean = np.finfo(float).eps * float(np.abs(arguments[0]).max(initial=0)) / 1e-5**0.5
    return 8 * eps * (np.abs(expected).astype(np.float64) + gamma + 2 * beta) + mean * gamma


@given(problem=problems())
def test_it_equals_the_definition(problem):
    kind, arguments, options, _ = problem
    got = function(kind)(*arguments, **options)
    expected = function(kind)(*arguments, **options, strategy="naive")
    pairs = zip(got, expected, strict=True) if kind == "batch" else [(got, expected)]
    x = arguments[0]
    eps = float(np.finfo(x.dtype).eps)
    for one, other in pairs:
        assert one.dtype == (np.float32 if x.dtype == np.float16 and one.ndim == 1 else x.dtype)
        assert_within(one, other, bound(other, arguments, eps))
    first = got[0] if kind == "batch" else got
    assert first.flags.c_contiguous or not first.size


@given(problem=problems())
def test_gradients_equal_the_whole_jacobian(problem):
    kind, arguments, options, seed = problem
    options = {**options, "eps": 1e-2}
    x = arguments[0]
    dy = reals(x.shape, x.dtype, seed + 7)
    results = []
    for strategy in ("auto", "naive"):
        *_, vjp = function(kind, vjp=True)(*arguments, **options, strategy=strategy)
        results.append(vjp(dy))
    eps = float(np.finfo(x.dtype).eps)
    for name, one, other in zip(results[0]._fields, *results, strict=True):
        assert (one is None) == (other is None), name
        if one is not None:
            assert_within(one, other, 256 * eps * (1 + np.abs(other).astype(np.float64)), name=name)


@given(problem=problems())
def test_gradients_match_differences(problem):
    kind, arguments, options, seed = problem
    arguments = [None if array is None else array.astype(np.float64) for array in arguments]
    options = {**options, "eps": 1e-2}
    x = arguments[0]
    dy, direction = reals(x.shape, x.dtype, seed + 7), reals(x.shape, x.dtype, seed + 8)

    def loss(step):
        result = function(kind)(x + step * direction, *arguments[1:], **options)
        return np.vdot(result[0] if kind == "batch" else result, dy)

    *_, vjp = function(kind, vjp=True)(*arguments, **options)
    step = 1e-5
    difference = (loss(step) - loss(-step)) / (2 * step)
    assert difference == pytest.approx(np.vdot(vjp(dy).dx, direction), rel=1e-4, abs=1e-4)


@given(problem=problems())
def test_only_what_is_asked_for_is_computed(problem):
    kind, arguments, options, seed = problem
    dy = reals(arguments[0].shape, arguments[0].dtype, seed)
    for strategy in ("numpy", "naive", *(["direct"] if not DIRECT and arguments[0].dtype != np.float16 else [])):
        *_, vjp = function(kind, vjp=True)(*arguments, **options, strategy=strategy)
        everything, (dx, dgamma, _) = vjp(dy), vjp(dy, wrt=("gamma",))
        assert dx is None
        assert (dgamma is None) == (arguments[1] is None)
        if dgamma is not None:
            np.testing.assert_array_equal(dgamma, everything.dgamma)
        assert vjp(dy, wrt=()) == (None, None, None)


def test_batch_statistics_are_over_the_batch_and_space():
    """Hand-computed: channel 0 holds 1, 3, 5, 7, channel 1 holds 0, 0, 2, 2."""
    x = np.array([[[1.0, 3.0], [0.0, 0.0]], [[5.0, 7.0], [2.0, 2.0]]])
    for layout, data in (("NCW", x), ("NWC", x.swapaxes(1, 2))):
        y, mean, var = ck.batch_norm_train(data, None, None, layout=layout, eps=0)
        assert mean.tolist() == [4, 1]
        assert var.tolist() == [5, 1]
        got = y if layout == "NCW" else y.swapaxes(1, 2)
        np.testing.assert_allclose(got[0], [[-3 / 5**0.5, -1 / 5**0.5], [-1, -1]])


def test_inference_takes_given_statistics_and_inverts_training():
    x = np.random.default_rng(0).normal(size=(4, 5, 5, 3)).astype(np.float32)
    gamma, beta = np.arange(1.0, 4, dtype=np.float32), np.ones(3, np.float32)
    y, mean, var = ck.batch_norm_train(x, gamma, beta, layout="NHWC")
    for strategy in ("auto", "naive"):
        again = ck.batch_norm(x, gamma, beta, mean, var, layout="NHWC", strategy=strategy)
        np.testing.assert_allclose(again, y, atol=2e-6)
        _, vjp = ck.batch_norm_vjp(x, gamma, beta, mean, var, layout="NHWC", strategy=strategy)
        dx, dgamma, dbeta = vjp(np.ones_like(y))
        np.testing.assert_allclose(dx, np.broadcast_to(gamma / np.sqrt(var + 1e-5), x.shape), rtol=1e-5)
        np.testing.assert_allclose(dgamma, ((x - mean) / np.sqrt(var + 1e-5)).sum((0, 1, 2)), atol=1e-4)
        assert dbeta.tolist() == [100, 100, 100]


def test_running_statistics_keep_the_momentum():
    assert ck.update_running(np.array([10.0]), np.array([20.0]), momentum=0.9).tolist() == [11.0]
    assert ck.update_running(np.zeros(2, np.float32), np.ones(2, np.float32)).dtype == np.float32


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_large_mean_leaves_the_variance_right(layout):
    x = np.random.default_rng(0).normal(1e4, 1, size=(8, 16, 16, 16)).astype(np.float32)
    axes = tuple(axis for axis, letter in enumerate(layout) if letter != "C")
    _, mean, var = ck.batch_norm_train(x, None, None, layout=layout)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(var, exact.var(axes), rtol=1e-5)
    np.testing.assert_allclose(mean, exact.mean(axes), rtol=1e-7)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("kind", ["batch", "instance"])
def test_means_near_and_far_from_zero_side_by_side(kind, layout):
    """Means of 0 to 1e4 deviations: the near ones are not taken off first, on either side of the border."""
    means = np.array([0, -1, 1.9, -2.1, 5, 100, -1e4, 1.99], np.float32)
    x = np.random.default_rng(0).normal(size=(8, 8, 24, 24)).astype(np.float32)
    x += means[:, None, None]
    x = np.ascontiguousarray(x if layout == "NCHW" else np.moveaxis(x, 1, -1))
    exact, axes = x.astype(np.float64), [axis for axis, letter in enumerate(layout) if letter in "HW"]
    axes = tuple(axes) if kind == "instance" else (0, *axes)
    mean, var = exact.mean(axes, keepdims=True), exact.var(axes, keepdims=True)
    got = function(kind)(x, None, None, layout=layout, strategy="numpy")
    if kind == "batch":
        got, found_mean, found_var = got
        np.testing.assert_allclose(found_mean, mean.ravel(), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(found_var, var.ravel(), rtol=5e-6)
    np.testing.assert_allclose(got, (exact - mean) / np.sqrt(var + 1e-5), rtol=5e-6, atol=1e-6)
    *_, vjp = function(kind, vjp=True)(x, None, None, layout=layout, strategy="numpy")
    *_, wide = function(kind, vjp=True)(exact, None, None, layout=layout, strategy="numpy")
    np.testing.assert_allclose(vjp(np.sin(x)).dx, wide(np.sin(exact)).dx, atol=2e-3)


def test_batch_statistics_over_long_samples_of_one_channel():
    x = np.random.default_rng(0).normal(1, 2, size=(4, 1, 41, 40)).astype(np.float32)
    _, mean, var = ck.batch_norm_train(x, None, None, strategy="numpy")
    np.testing.assert_allclose([mean[0], var[0]], [x.mean(dtype=float), x.var(dtype=float)], rtol=2e-6)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("shape", [(2, 512, 7, 7), (3, 6, 48, 48), (2, 5, 40, 32), (3, 1, 30, 30)])
def test_samples_are_summed_whole_however_many_rows_they_are_cut_into(shape, layout):
    x = np.random.default_rng(0).normal(1, 2, size=shape).astype(np.float32)
    exact = x.astype(np.float64)
    data = x if layout == "NCHW" else np.ascontiguousarray(np.moveaxis(x, 1, -1))
    options = {"layout": layout, "strategy": "numpy"}
    for groups in {1, shape[1] // 2 or 1, shape[1]}:
        if shape[1] % groups:
            continue
        families = exact.reshape(shape[0], groups, -1)
        mean, var = families.mean(2, keepdims=True), families.var(2, keepdims=True)
        expected = ((families - mean) / np.sqrt(var + 1e-5)).reshape(shape)
        got = ck.group_norm(data, None, None, groups, **options)
        np.testing.assert_allclose(got if layout == "NCHW" else np.moveaxis(got, -1, 1), expected, rtol=5e-6, atol=2e-6)


def test_the_settings_of_numpy_are_left_as_they_were():
    x = np.ones((2, 3, 4, 4), np.float32)
    with np.errstate(over="raise"):
        np.setbufsize(4096)
        before = np.geterr()
        *_, vjp = ck.batch_norm_train_vjp(x, None, None, strategy="numpy")
        vjp(x)
        ck.batch_norm(x, None, None, np.ones(3), np.ones(3), strategy="numpy")
        assert (np.getbufsize(), np.geterr()) == (4096, before)


@pytest.mark.parametrize("far", [0, 9])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("kind", KINDS)
def test_scratch_is_what_explain_says(kind, layout, far, monkeypatch):
    monkeypatch.setattr(recycling, "LARGE", 2**40)  # so that results are fresh memory, which is seen
    x = np.random.default_rng(0).normal(far, 1, size=(64, 32, 16, 16) if layout == "NCHW" else (64, 16, 16, 32))
    x = x.astype(np.float32)
    arguments = [x, np.ones(32, np.float32), np.ones(32, np.float32)][: 2 if kind == "rms" else 3]
    options = {"layout": layout, "strategy": "numpy", "max_workspace": 2**20} | (
        {"groups": 4} if kind == "group" else {}
    )
    name = function(kind).__name__
    limit = ck.explain(name, *arguments, **options).choices[0].workspace_bytes
    *_, vjp = function(kind, vjp=True)(*arguments, **options)
    for run in (lambda: function(kind)(*arguments, **options), lambda: vjp(x)):
        run()
        tracemalloc.start()
        run()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert x.nbytes <= peak < x.nbytes + limit + 2**17  # for Python's own objects, and the statistics


@pytest.mark.parametrize("kind", KINDS)
def test_values_near_1e18_do_not_overflow(kind):
    x = (np.random.default_rng(0).normal(size=(4, 6, 3, 3)) * 1e18).astype(np.float32)
    arguments = [x, None] if kind == "rms" else [x, None, None]
    *first, vjp = function(kind, vjp=True)(*arguments, **({"groups": 3} if kind == "group" else {}))
    assert np.isfinite(first[0]).all()
    assert np.isfinite(vjp(np.ones_like(x)).dx).all()


def test_the_cases_of_a_group_norm():
    x = np.random.default_rng(0).normal(size=(2, 6, 4, 4))
    np.testing.assert_allclose(ck.group_norm(x, None, None, 1), ck.layer_norm(x, None, None), rtol=1e-12)
    np.testing.assert_allclose(ck.group_norm(x, None, None, 6), ck.instance_norm(x, None, None), rtol=1e-12)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "CHWN", "HNWC"])
@pytest.mark.parametrize("kind", KINDS)
def test_small_blocks_give_the_same(kind, layout):
    x, dy = (lay(reals((3, 6, 5, 7), np.dtype(np.float64), seed), Layout(layout)) for seed in (0, 1))
    coefficients = [np.arange(1.0, 7), np.ones(6)][: 1 if kind == "rms" else 2]
    options = {"layout": layout} | ({"groups": 3} if kind == "group" else {})

    def found(**more):
        *results, vjp = function(kind, vjp=True)(x, *coefficients, **options, **more)
        return [*results, *(gradient for gradient in vjp(dy) if gradient is not None)]

    expected = found(strategy="naive")
    for cells in (1, 7, 40, 300):
        for got, right in zip(found(max_workspace=64 * cells), expected, strict=True):
            np.testing.assert_allclose(got, right, rtol=1e-11, atol=1e-11, err_msg=f"{cells} cells")


@pytest.mark.parametrize("kind", KINDS)
def test_what_overflows_float32_on_the_way_is_computed_in_float64(kind):
    x = (np.random.default_rng(0).normal(size=(4, 6, 3, 3)) * 1e19).astype(np.float32)
    arguments = [x, None] if kind == "rms" else [x, None, None]
    more = {"groups": 3} if kind == "group" else {}
    y, *_, vjp = function(kind, vjp=True)(*arguments, **more)
    exact, *_, exact_vjp = function(kind, vjp=True)(
        *(a if a is None else a.astype(np.float64) for a in arguments), **more
    )
    np.testing.assert_allclose(y, exact, rtol=1e-6)
    np.testing.assert_allclose(vjp(x).dx, exact_vjp(x).dx, atol=1e-6)


@pytest.mark.parametrize("size", [4, 33, 48])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "CHWN", "HNWC"])
@pytest.mark.parametrize("kind", ["group", "instance", "layer", "rms"])
def test_a_sample_does_not_depend_on_its_batch_bit_for_bit(kind, layout, size):
    x, dy = (lay(reals((5, 6, size, size), np.dtype(np.float32), seed), Layout(layout)) for seed in (0, 1))
    options = {"layout": layout, "strategy": "numpy"} | ({"groups": 3} if kind == "group" else {})
    arguments = [None] if kind == "rms" else [None, None]
    y, vjp = function(kind, vjp=True)(x, *arguments, **options)
    dx = vjp(dy).dx
    for image in range(5):
        alone = (*[slice(None)] * layout.index("N"), slice(image, image + 1))
        single, single_vjp = function(kind, vjp=True)(x[alone], *arguments, **options)
        np.testing.assert_array_equal(single, y[alone])
        np.testing.assert_array_equal(single_vjp(dy[alone]).dx, dx[alone])


@pytest.mark.parametrize("axes", [(1,), (3,), (1, 2, 3), ()], ids=["channels", "rows", "samples", "instance"])
@pytest.mark.parametrize("layout", ["NCHW", "CHWN", "CHNW", "CWNH", "HNWC"])
def test_nor_on_where_their_means_lie_or_how_it_is_strided(layout, axes):
    """Samples near zero and far from it, whose axes of one may stand anywhere in memory."""
    letters = [axis for axis, letter in enumerate(layout) if letter != "N"]
    batch = layout.index("N")
    for shape in ((4, 2, 5, 3), (4, 1, 3, 7), (3, 6, 1, 4), (2, 1, 40, 33), (3, 2, 30, 36)):
        x = lay(reals(shape, np.dtype(np.float32), 0), Layout(layout))
        x += 5 * np.arange(shape[0], dtype=np.float32).reshape([-1 if axis == batch else 1 for axis in range(4)])
        options = {"layout": layout, "strategy": "numpy"}
        if axes:
            options["axes"] = tuple(letters[axis - 1] for axis in axes)
        norm_vjp = ck.layer_norm_vjp if axes else ck.instance_norm_vjp
        y, vjp = norm_vjp(x, None, None, **options)
        dx = vjp(x).dx
        for image in range(shape[0]):
            alone = (*[slice(None)] * batch, slice(image, image + 1))
            for sample in (x[alone], x[alone].copy()):
                single, single_vjp = norm_vjp(sample, None, None, **options)
                np.testing.assert_array_equal(single, y[alone])
                np.testing.assert_array_equal(single_vjp(sample).dx, dx[alone])


@pytest.mark.parametrize(
    ("text", "operation"),
    [
        ("norm:n8c64g32_in28x28_group", "group_norm"),
        ("norm:n8c64_in28x28_batch_float64", "batch_norm_train"),
        ("norm:n2c4_in5_instance", "group_norm"),
        ("norm:n2c4_in5x6x7_layer_axes1.3", "group_norm"),
        ("norm:n2c4_in5x6_rms_eps0.001", "group_norm"),
    ],
)
def test_problem_strings_read_back(text, operation):
    found, spec = ck.parse_problem(text)
    assert (found, str(spec)) == (operation, text)
    assert ck.parse_problem(str(spec))[1] == spec
    assert ck.explain(text, strategy="numpy").choices[0].chosen.name == "numpy"


@pytest.mark.parametrize("call", ["batch_norm_train", "batch_norm_train_vjp"])
def test_explaining_casts_no_uninitialised_statistics(monkeypatch, call):
    """Cast to the type of the data, what memory happens to hold may overflow, which warns."""

    def leftovers(shape, dtype=float, **_):
        return np.full(shape, 1e300 if np.dtype(dtype) == float else 0, dtype)

    monkeypatch.setattr(np, "empty", leftovers)
    assert ck.explain(call, np.ones((2, 3, 4, 4), np.float32), None, None).choices


x = np.ones((2, 6, 4, 4))
ones = np.ones(6)
BAD = [
    (lambda: ck.batch_norm_train(x[0], ones, ones), ck.ShapeError, "batch_norm_train: x has 3 axes, layout 'NCHW' has 4; arrays are batched: add an axis of one for 'N' (x has shape (6, 4, 4), layout 'NCHW')"),
    (lambda: ck.batch_norm_train(x[:1, :, :1, :1], ones, ones), ck.ShapeError, "batch_norm_train: batch statistics need at least 2 values for each channel, here are 1 (x has shape (1, 6, 1, 1), layout 'NCHW')"),
    (lambda: ck.batch_norm_train(x[:0], ones, ones), ck.ShapeError, "batch_norm_train: batch statistics need at least 2 values for each channel, here are 0 (x has shape (0, 6, 4, 4), layout 'NCHW')"),
    (lambda: ck.batch_norm_train(x, ones[:5], ones), ck.ShapeError, "batch_norm_train: gamma has shape (5,), must have (6,) (x has shape (2, 6, 4, 4), layout 'NCHW')"),
    (lambda: ck.batch_norm_train(x, ones, ones[None]), ck.ShapeError, "batch_norm_train: beta has shape (1, 6), must have (6,) (x has shape (2, 6, 4, 4), layout 'NCHW')"),
    (lambda: ck.batch_norm_train(x, ones, ones, eps=-1), ck.OptionError, "batch_norm_train: eps=-1 must be a finite number, at least 0 (x has shape (2, 6, 4, 4), layout 'NCHW')"),
    (lambda: ck.batch_norm_train(x, ones, ones, eps="small"), ck.OptionError, "batch_norm_train: eps='small' must be a finite number, at least 0 (x has shape (2, 6, 4, 4), layout 'NCHW')"),
    (lambda: ck.batch_norm_train(x.astype(int), None, None), ck.DTypeError, "batch_norm_train: x has dtype int64, must be floating (x has shape (2, 6, 4, 4), layout 'NCHW')"),
    (lambda: ck.batch_norm_train(x, None, None, strategy="im2col"), ck.UnknownStrategyError, "batch_norm_train: strategy='im2col' is not one of batch_norm_train's: 'auto', 'direct', 'numpy', 'naive' (x has shape (2, 6, 4, 4), layout 'NCHW')"),
    (lambda: ck.batch_norm(x, None, None, ones[:1], ones), ck.ShapeError, "batch_norm: mean has shape (1,), must have (6,) (x has shape (2, 6, 4, 4), layout 'NCHW')"),
    (lambda: ck.group_norm(x, ones, ones, 4), ck.ShapeError, "group_norm: channels=6 must be divisible by groups=4 (x has shape (2, 6, 4, 4), layout 'NCHW')"),
    (lambda: ck.group_norm(x, ones, ones, 0), ck.OptionError, "group_norm: groups=0 must be at least 1 (x has shape (2, 6, 4, 4), layout 'NCHW')"),
    (lambda: ck.group_norm(x, ones, ones, 1.5), ck.OptionError, "group_norm: groups=1.5 must be a whole number (x has shape (2, 6, 4, 4), layout 'NCHW')"),
    (lambda: ck.layer_norm(x, np.ones((6, 4)), None), ck.ShapeError, "layer_norm: gamma has shape (6, 4), must have (6,), or broadcast against the normalised axes' (6, 4, 4) (x has shape (2, 6, 4, 4), layout 'NCHW')"),
    (lambda: ck.layer_norm(x, ones, None, axes=(2, 3)), ck.ShapeError, "layer_norm: gamma has shape (6,), must have (6,), or broadcast against the normalised axes' (4, 4) (x has shape (2, 6, 4, 4), layout 'NCHW')"),
    (lambda: ck.layer_norm(x, None, None, axes=0), ck.OptionError, "layer_norm: axes=0 must name axes of x, each once, and not the batch (layout 'NCHW') (x has shape (2, 6, 4, 4), layout 'NCHW')"),
    (lambda: ck.layer_norm(x, None, None, axes=(1, -3)), ck.OptionError, "layer_norm: axes=(1, -3) must name axes of x, each once, and not the batch (layout 'NCHW') (x has shape (2, 6, 4, 4), layout 'NCHW')"),
    (lambda: ck.layer_norm(x, None, None, axes=4), ck.OptionError, "layer_norm: axes=4 must name axes of x, each once, and not the batch (layout 'NCHW') (x has shape (2, 6, 4, 4), layout 'NCHW')"),
    (lambda: ck.layer_norm_vjp(x, None, None)[1](x[:1]), ck.ShapeError, "layer_norm_vjp's vjp: dy has shape (1, 6, 4, 4), must have (2, 6, 4, 4) as the output has (dy has shape (1, 6, 4, 4), layout 'NCHW')"),
    (lambda: ck.layer_norm_vjp(x, None, None)[1](x, wrt=("w",)), ck.OptionError, "layer_norm_vjp's vjp: wrt=('w',) must be a sequence of 'x', 'gamma', 'beta' (dy has shape (2, 6, 4, 4), layout 'NCHW')"),
    (lambda: ck.update_running(ones, ones[:2]), ck.ShapeError, "update_running: batch has shape (2,), must have running's (6,) (running has shape (6,), layout None)"),
    (lambda: ck.update_running(ones, ones, 1.5), ck.OptionError, "update_running: momentum=1.5 must be a number from 0 to 1 (running has shape (6,), layout None)"),
    (lambda: ck.rms_norm(x, None, max_workspace=1), ck.WorkspaceError, "rms_norm: max_workspace=1 bytes is too small for every fast strategy: 64 would do (x has shape (2, 6, 4, 4), layout 'NCHW')"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[message[:60] for *_, message in BAD])
def test_refuses(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == message


@pytest.mark.parametrize("strategy", ["numpy", "auto"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "CHWN"])
def test_a_sample_with_nan_leaves_the_others_gradients_by_given_statistics_as_they_are(layout, strategy):
    generator = np.random.default_rng(0)
    x, dy = generator.normal(size=(2, 5, 3, 4, 6)).astype(np.float32)[:, :, :, :5]
    small = [np.abs(generator.normal(size=3)).astype(np.float32) for _ in range(4)]
    axes = ["NCHW".index(letter) for letter in layout]
    _, vjp = ck.batch_norm_vjp(x.transpose(axes).copy(), *small, layout=layout, strategy=strategy)
    dirty = dy.copy()
    dirty[1, 0, 2, 3] = np.nan
    clean, got = (np.moveaxis(vjp(each.transpose(axes).copy()).dx, layout.index("N"), 0) for each in (dy, dirty))
    np.testing.assert_array_equal(np.delete(got, 1, 0), np.delete(clean, 1, 0))
    assert np.isnan(got[1]).sum() == 1
