"""Calls made again take a short way: it gives the same, and is taken only while nothing that matters has changed."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import convkernels as ck
from convkernels.shortcut import Shortcut, axes_of, key_of
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


def test_what_makes_a_key():
    assert key_of((x, None), {"stride": 2, "layout": "NCHW", "padding": (1, 1)}) is not None
    assert key_of((x,), {"padding": ((1, 1), (0, 2))}) is not None
    assert key_of((x,), {"ceil_mode": True}) != key_of((x,), {"ceil_mode": 1})
    for padding in ((1.0, 1), ((True, 1), (1, 1)), ((1, 1), [1, 1])):
        assert key_of((x,), {"padding": padding}) is None
    for args, kwargs in (((x.tolist(),), {}), ((x,), {"stride": [1, 1]}), ((x,), {"out": x}), ((np.ma.array(x),), {})):
        assert key_of(args, kwargs) is None


def test_a_view_that_is_no_permutation_has_no_axes():
    assert axes_of(x.transpose(0, 2, 3, 1), x) == (0, 2, 3, 1)
    assert axes_of(x[:, :, 1:], x) is None
    assert axes_of(x.reshape(2, 3, 64), x) is None
    assert axes_of(x.copy(), x) is None
