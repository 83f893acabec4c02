"""Calls made again take a short way: it gives the same, and is taken only while nothing that matters has changed."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import convkernels as ck
from convkernels.kernels.compiled import available
from convkernels.layout import Layout
from convkernels.shortcut import Shortcut, View, key_of, view_of
from convkernels.testing.strategies import integers

x, w, b = (integers(shape, np.dtype("float32"), 0) for shape in ((2, 3, 8, 8), (4, 3, 3, 3), (4,)))
dy = integers((2, 4, 6, 6), np.dtype("float32"), 1)


@pytest.fixture
def taken(monkeypatch):
    """How often the short way was taken."""
    times = []
    original = Shortcut.__call__

    def counted(self, args):
        times.append(args)
        return original(self, args)

    monkeypatch.setattr(Shortcut, "__call__", counted)
    return times


CALLS = {
    "conv2d": lambda **how: ck.conv2d(x, w, b, **how),
    "conv2d without bias": lambda **how: ck.conv2d(x, w, **how),
    "conv2d, strided input": lambda **how: ck.conv2d(x[:, :, ::-1, ::1], w, None, **how),
    "input gradient": lambda **how: ck.conv2d_input_grad(dy, w, x_shape=(2, 3, 8, 8), **how),
    "weight gradient": lambda **how: ck.conv2d_weight_grad(x, dy, kernel_size=3, **how),
    "transposed": lambda **how: ck.conv_transpose2d(dy, w, stride=2, **how),
    "NHWC": lambda **how: ck.conv2d(x.transpose(0, 2, 3, 1), w.transpose(2, 3, 1, 0), b, layout="NHWC", **how),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_it_gives_the_same(taken, call):
    first = call(strategy="im2col")
    assert not taken or len(taken) == 1  # another test may have made this call
    before = len(taken)
    again = call(strategy="im2col")
    assert len(taken) == before + 1
    assert again is not first
    assert again.tobytes() == first.tobytes()
    assert again.strides == first.strides
    assert again.dtype == first.dtype


def test_other_data_of_the_same_kind_take_it(taken):
    ck.conv2d(x, w, strategy="stride_tricks")
    before = len(taken)
    got = ck.conv2d(x + 1, w - 2, strategy="stride_tricks")
    assert len(taken) == before + 1
    assert np.array_equal(got, ck.conv2d(x + 1, w - 2, strategy="naive"))


@pytest.mark.skipif(available.missing() is not None, reason="Numba is not installed")
@pytest.mark.parametrize("size", [9, 60])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "CHWN"])
@pytest.mark.parametrize(("strategy", "groups"), [("direct", 1), ("direct", 2), ("winograd", 1), ("depthwise", 8)])
def test_compiled_convolutions_of_other_data_take_it(taken, strategy, groups, layout, size):
    options = {"padding": 1, "groups": groups, "layout": layout, "weight_layout": "OIHW", "threads": 2}
    for seed in (0, 20):
        shape = Layout(layout).shape((2, 8, size, size))
        x, w, b, dy = (
            integers(each, np.dtype("float32"), seed + place)
            for place, each in enumerate((shape, (8, 8 // groups, 3, 3), (8,), shape))
        )
        given = {"conv2d": (x, w, b), "conv2d_input_grad": (dy, w), "conv2d_weight_grad": (x, dy)}
        more = {"conv2d_input_grad": {"x_shape": x.shape}, "conv2d_weight_grad": {"kernel_size": 3}}
        for name, arrays in given.items():
            if strategy == "winograd" and name == "conv2d_weight_grad":
                continue
            before, how = len(taken), {**options, **more.get(name, {})}
            got = getattr(ck, name)(*arrays, **how, strategy=strategy)
            assert len(taken) == before + (seed > 0)
            assert np.array_equal(np.rint(got), getattr(ck, name)(*arrays, **how, strategy="im2col"))


@pytest.mark.parametrize(
    "other",
    [
        lambda: ck.conv2d(x[:1], w),
        lambda: ck.conv2d(x.astype(float), w),
        lambda: ck.conv2d(np.asfortranarray(x), w),
        lambda: ck.conv2d(x, w, b),
        lambda: ck.conv2d(x, w, padding=1),
        lambda: ck.conv2d(x, w, padding=(1, 0)),
    ],
)
def test_what_differs_is_another_call(other):
    ck.conv2d(x, w)
    got = other()
    with ck.config_context(threads=1):  # in which nothing was called
        assert np.array_equal(other(), got)


def test_arrays_that_could_be_permuted_in_several_ways_are_told_apart():
    square = integers((1, 3, 3, 3), np.dtype("float32"), 2)
    ck.conv2d(np.broadcast_to(np.float32(1), (1, 3, 3, 3)), square, layout="NHWC")
    got = ck.conv2d(square, square.reshape(1, 3, 3, 3), layout="NHWC")
    assert np.array_equal(got, ck.conv2d(square, square, layout="NHWC", strategy="naive"))


def test_options_that_are_equal_but_not_the_same_are_still_refused():
    ck.conv2d(x, w, stride=1)
    for stride in (1.0, True, (1, 1.0), "1"):
        with pytest.raises(ck.OptionError):
            ck.conv2d(x, w, stride=stride)
    with pytest.raises(TypeError, match="no keyword 'strde'"):
        ck.conv2d(x, w, strde=1)


def test_what_is_registered_later_is_taken():
    ck.conv2d(x, w)
    ck.conv2d(x, w)
    runs = []

    def mine(spec, x, w, b, *, out, resources):
        runs.append(resources)
        out[...] = 7

    ck.register("conv", "mine", mine)
    try:
        assert (ck.conv2d(x, w) == 7).all()
        assert (ck.conv2d(x, w) == 7).all()
        assert len(runs) == 2
        with ck.config_context(max_workspace=12345, threads=3):
            ck.conv2d(x, w)
        assert (runs[-1].max_workspace, runs[-1].threads) == (12345, 3)
    finally:
        ck.unregister("conv", "mine")
    assert np.array_equal(ck.conv2d(x, w), ck.conv2d(x, w, strategy="naive"))


def test_explain_computes_nothing_after_a_call(taken):
    ck.conv2d(x, w)
    ck.conv2d(x, w)
    before = len(taken)
    assert ck.explain("conv2d", x, w).choices[0].chosen is not None
    assert len(taken) == before


def test_whole_numbers_are_held_to_what_they_sum_to_each_time():
    small, large = np.ones((1, 1, 2, 2), np.int64), np.full((1, 1, 2, 2), 2**62)
    ck.conv2d(small, small)
    ck.conv2d(small, small)
    with pytest.raises(ck.IntegerOverflowError):
        ck.conv2d(large, large)


def test_nothing_is_kept_alive():
    data, weights = x.copy(), w.copy()
    ck.conv2d(data, weights)
    y, vjp = ck.conv2d_vjp(data, weights)
    result = weakref.ref(vjp(y).dx)
    seen = [weakref.ref(data), weakref.ref(weights), weakref.ref(y)]
    del y
    gc.collect()
    assert result() is None
    assert seen[2]() is None, "the vjp keeps the inputs, and not the output"
    del data, weights, vjp
    gc.collect()
    assert [each() for each in seen] == [None] * 3


def data(*shape, seed=0, dtype="float32"):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


many, slope, shift, level, spread = data(2, 16, 17, 33), data(16), data(16, seed=1), data(16), abs(data(16)) + 1
last = np.ascontiguousarray(many.transpose(0, 2, 3, 1))
PLANNED = {
    "batch norm in training": ("batch_norm_train", (many, slope, shift), {}),
    "batch norm in training, NHWC": ("batch_norm_train", (last, slope, shift), {"layout": "NHWC"}),
    "batch norm": ("batch_norm", (many, slope, shift, level, spread), {}),
    "batch norm, float64 statistics": (
        "batch_norm",
        (many.astype(float), slope.astype(float), shift.astype(float), level.astype(float), spread.astype(float)),
        {},
    ),
    "group norm": ("group_norm", (many, slope, shift, 4), {}),
    "group norm without coefficients, NHWC": ("group_norm", (last, None, None, 4), {"layout": "NHWC", "eps": 1e-3}),
    "instance norm": ("instance_norm", (many, slope, None), {}),
    "layer norm": ("layer_norm", (many, slope, shift), {}),
    "layer norm of the channels": ("layer_norm", (many, slope, shift), {"axes": 1}),
    "layer norm of the channels, NHWC": ("layer_norm", (last, slope, shift), {"axes": (3,), "layout": "NHWC"}),
    "layer norm of cells": ("layer_norm", (last, data(17, 33, 16), data(17, 33, 16, seed=2)), {"layout": "NHWC"}),
    "layer norm, one coefficient for all": ("layer_norm", (many, data(16, 1, 1), data(16, 17, 33)), {}),
    "rms norm": ("rms_norm", (many, slope), {"axes": 1}),
    "max pool": ("max_pool2d", (many, 2), {"padding": ((0, 1), (1, 0))}),
    "max pool, NHWC": ("max_pool2d", (last, (3, 2)), {"stride": 2, "layout": "NHWC", "ties": "split"}),
    "average pool": ("avg_pool2d", (many, 3), {"stride": 1, "padding": 1, "count_include_pad": False}),
    "whole planes": ("avg_pool2d", (many, (17, 33)), {}),
    "lp pool": ("pool2d", (many, 2, "lp2"), {"ceil_mode": True}),
    "reflected": ("avg_pool2d", (many, 3), {"padding": 1, "padding_mode": "reflect"}),
}


def listed(results):
    return [each for each in (results if isinstance(results, tuple) else (results,)) if isinstance(each, np.ndarray)]


def assert_same(got, expected):
    for one, other in zip(listed(got), listed(expected), strict=True):
        assert (one.shape, one.strides, one.dtype) == (other.shape, other.strides, other.dtype)
        assert one.tobytes() == other.tobytes()


LONG = "layer norm of cells"
"""Whose coefficients are split and then permuted, which only a plan knows."""


@pytest.mark.parametrize("strategy", ["auto", "plain"])
@pytest.mark.parametrize("case", PLANNED)
def test_pools_and_norms_made_again_give_the_same(taken, case, strategy):
    (name, args, options), before = PLANNED[case], len(taken)
    if strategy == "plain":
        options = {**options, "strategy": "stride_tricks" if "pool" in name else "numpy"}
    again = [array.copy() if isinstance(array, np.ndarray) else array for array in args]
    other = [array[..., ::-1].copy() if isinstance(array, np.ndarray) else array for array in args]
    function, pulled = getattr(ck, name), getattr(ck, f"{name}_vjp")
    first, _ = function(*args, **options), function(*other, **options)
    assert_same(function(*again, **options), first)
    *results, vjp = pulled(*args, **options)
    *repeated, next_vjp = pulled(*again, **options)
    assert_same(tuple(results), first)
    assert_same(tuple(repeated), first)
    dy = data(*results[0].shape, seed=3, dtype=results[0].dtype)
    gradients, _ = vjp(dy), vjp(dy[::-1].copy())
    for each in (vjp, next_vjp):
        assert_same(each(dy.copy()), gradients)
    if case != LONG or (strategy == "auto" and not available.missing()):
        assert len(taken) >= before + 4


@pytest.mark.parametrize("wrt", [(), ("x",), ("gamma",), ("beta", "x"), ["x", "beta"]])
def test_gradients_that_are_not_asked_for_are_not_there(wrt):
    *_, vjp = ck.group_norm_vjp(many, slope, shift, 4)
    whole = vjp(many)
    for _ in range(3):
        got = vjp(many, wrt=wrt)
        for name in ("x", "gamma", "beta"):
            found = getattr(got, f"d{name}")
            assert (found is None) == (name not in wrt)
            assert found is None or np.array_equal(found, getattr(whole, f"d{name}"))


def test_a_vjp_refuses_after_a_short_way_what_it_refused_before():
    *_, vjp = ck.layer_norm_vjp(many, slope, shift)
    _, pool_vjp = ck.max_pool2d_vjp(many, 2)
    for _ in range(2):
        vjp(many)
        pool_vjp(many[:, :, :8, :16].copy())
    with pytest.raises(ck.ShapeError, match="dy has shape"):
        vjp(many[:1])
    with pytest.raises(ck.OptionError, match="wrt"):
        vjp(many, wrt="x")
    with pytest.raises(ck.ShapeError, match="dy has shape"):
        pool_vjp(many)
    assert vjp(many.astype(float)).dx.dtype == float


def test_other_settings_and_threads_are_other_calls():
    expected, *statistics = ck.batch_norm_train(last, slope, shift, layout="NHWC", threads=1)
    for threads in (1, 2, 3):
        for _ in range(2):
            got = ck.batch_norm_train(last, slope, shift, layout="NHWC", threads=threads)
            assert_same(got, (expected, *statistics))
    with ck.config_context(max_workspace=2**12, threads=2):
        assert_same(ck.max_pool2d(many, 3), ck.max_pool2d(many, 3, threads=1))


def test_norms_and_pools_keep_nothing_alive():
    arrays = [many.copy(), slope.copy(), shift.copy()]
    ck.batch_norm_train(*arrays)
    y, mean, var, vjp = ck.batch_norm_train_vjp(*arrays)
    pooled, pool_vjp = ck.max_pool2d_vjp(arrays[0], 2)
    seen = [weakref.ref(each) for each in (*arrays, y, mean, var, *vjp(arrays[0]), pooled, pool_vjp(pooled))]
    vjp(arrays[0])
    pool_vjp(pooled)
    del arrays, y, mean, var, vjp, pooled, pool_vjp
    gc.collect()
    assert [each() for each in seen] == [None] * len(seen)


def test_an_array_that_is_not_aligned_is_another_call():
    memory = np.zeros(many.nbytes + 1, np.uint8)
    shifted = memory[1:].view(np.float32).reshape(many.shape)
    shifted[...] = many
    assert not shifted.flags.aligned
    assert key_of((shifted,), {}) != key_of((many,), {})
    expected = ck.group_norm(many, slope, shift, 4)
    for _ in range(2):
        assert np.allclose(ck.group_norm(shifted, slope, shift, 4), expected, rtol=1e-4, atol=1e-5)


def test_options_of_other_types_are_other_calls():
    ck.group_norm(many, slope, shift, 1)
    with pytest.raises(ck.OptionError, match="groups"):
        ck.group_norm(many, slope, shift, 1.0)
    ck.avg_pool2d(many, 3, padding=((1, 1), (0, 1)), ceil_mode=True)
    for bad in ({"ceil_mode": 1}, {"padding": ((1, 1), (0, 1.0))}, {"padding": ((1, True), (0, 1))}):
        with pytest.raises(ck.OptionError):
            ck.avg_pool2d(many, 3, **{"padding": ((1, 1), (0, 1)), "ceil_mode": True, **bad})


def test_what_makes_a_key():
    assert key_of((x, 2, (2, 3)), {"padding": ((0, 1), (1, 1)), "eps": 1e-5, "ceil_mode": True}) is not None
    for one, other in (((1,), (True,)), ((1,), (1.0,))):
        assert key_of((x, *one), {}) != key_of((x, *other), {})
        assert key_of((x,), {"n": one[0]}) != key_of((x,), {"n": other[0]})
        assert key_of((x,), {"n": other}) is None
    assert key_of((x, None), {"stride": 2, "layout": "NCHW", "padding": (1, 1)}) is not None
    assert key_of((x,), {"padding": ((1, 1), (0, 2))}) is not None
    assert key_of((x,), {"ceil_mode": True}) != key_of((x,), {"ceil_mode": 1})
    for padding in ((1.0, 1), ((True, 1), (1, 1)), ((1, 1), [1, 1])):
        assert key_of((x,), {"padding": padding}) is None
    for args, kwargs in (((x.tolist(),), {}), ((x,), {"stride": [1, 1]}), ((x,), {"out": x}), ((np.ma.array(x),), {})):
        assert key_of(args, kwargs) is None


def test_a_view_is_a_permutation_or_splits_and_joins_axes():
    order = (0, 3, 1, 2)
    joined, split = x.reshape(2, 3, 64), x.transpose(order).reshape(2, 2, 4, 3, 8)
    assert view_of(x.transpose(0, 2, 3, 1), x, order) == View((0, 2, 3, 1), (2, 8, 8, 3))
    assert view_of(b.reshape(1, 4, 1, 1), b, order) == View((0,), (1, 4, 1, 1))
    assert view_of(split, x, order) == View(order, split.shape)
    assert np.shares_memory(View(order, split.shape).of(x), x)
    for seen in (x[:, :, 1:], x.copy(), joined, x.transpose(order).reshape(2, 24, 8)):
        assert view_of(seen, x, order) is None
    assert view_of(joined, x, (0, 1, 2, 3)) == View((0, 1, 2, 3), joined.shape)
