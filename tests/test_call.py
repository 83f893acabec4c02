"""What every public call shares: the bounds of integers, the types of gradients, `out`, and vjp's."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import STRATEGIES

import convkernels as ck
from convkernels.call import overlapping, self_overlapping
from convkernels.public import PUBLIC
from convkernels.testing.numeric import assert_same
from convkernels.testing.strategies import integers

every_strategy = pytest.mark.parametrize("strategy", ["auto", *STRATEGIES, "naive"])
x, w, dy = (integers(shape, np.dtype(float), 0) for shape in ((2, 4, 6, 5), (6, 4, 3, 2), (2, 6, 4, 4)))
b = np.arange(6.0)


def bias_grad(big, one):
    return ck.conv2d_vjp(np.zeros_like(big[:, :1]), one, one[:, 0, 0, 0])[1](big, wrt=("b",)).db


# Each sums its first array, all one number, eightfold; the second holds ones.
EIGHTFOLD = {
    "conv": ((1, 2, 2, 2), (1, 2, 2, 2), ck.conv2d),
    "grouped conv": ((1, 4, 2, 2), (2, 2, 2, 2), lambda big, one: ck.conv2d(big, one, groups=2)),
    "dx": ((1, 2, 2, 2), (2, 1, 2, 2), lambda big, one: ck.conv2d_input_grad(big, one, x_shape=(1, 1, 3, 3))),
    "dw": ((2, 1, 2, 2), (2, 1, 2, 2), lambda big, one: ck.conv2d_weight_grad(big, one, kernel_size=1)),
    "db": ((2, 3, 2, 2), (3, 1, 1, 1), bias_grad),
    "sum": ((1, 2, 2, 4), (), lambda big, one: ck.pool2d(big, (2, 4), "sum")),
    "dsum": ((1, 1, 2, 4), (1, 1, 3, 7), lambda big, one: ck.pool2d_vjp(one, (2, 4), "sum", stride=1)[1](big)),
    "dmax": ((1, 1, 2, 4), (1, 1, 3, 7), lambda big, one: ck.max_pool2d_vjp(one, (2, 4), ties="all", stride=1)[1](big)),
}


@pytest.mark.parametrize("name", EIGHTFOLD)
@pytest.mark.parametrize(("dtype", "most"), [("int64", 2**60), ("uint64", 2**61)])
def test_integers_are_refused_exactly_where_their_sum_could_overflow(name, dtype, most):
    shape, ones, run = EIGHTFOLD[name]
    fits = run(np.full(shape, most - 1, dtype), np.ones(ones, dtype))
    assert int(fits.max()) == 8 * (most - 1)
    with pytest.raises(ck.IntegerOverflowError, match=f"could reach {8 * most}, {dtype} holds {8 * most - 1}"):
        run(np.full(shape, most, dtype), np.ones(ones, dtype))


def test_negative_integers_are_as_large_as_positive_ones():
    one = np.ones((1, 2, 2, 2), np.int64)
    assert ck.conv2d(-(2**60 - 1) * one, one).item() == -(2**63 - 8)
    with pytest.raises(ck.IntegerOverflowError):
        ck.conv2d(one, -(2**60) * one)


def test_a_bias_counts_towards_the_bound():
    one = np.ones((1, 2, 2, 2), np.int64)
    assert ck.conv2d((2**60 - 1) * one, one, np.array([7])).item() == 2**63 - 1
    with pytest.raises(ck.IntegerOverflowError, match=f"could reach {2**63}"):
        ck.conv2d((2**60 - 1) * one, one, np.array([8]))


@every_strategy
def test_gradients_come_in_the_wider_of_two_types(strategy):
    narrow = [array.astype(np.float32) for array in (x, w, b)]
    finely = dy + 2.0**-40  # exact in sums of products with small whole numbers, but not in float32
    expected = ck.conv2d_vjp(x, w, b, strategy=strategy)[1](finely)
    for got, wide in zip(ck.conv2d_vjp(*narrow, strategy=strategy)[1](finely), expected, strict=True):
        assert_same(got, wide)
    for reducer in ("max", "sum", "mean"):
        _, vjp = ck.pool2d_vjp(narrow[0], (2, 1), reducer, strategy=strategy)
        _, expected = ck.pool2d_vjp(x, (2, 1), reducer, strategy=strategy)
        assert_same(vjp(finely[:, :4, :3, [0, 1, 2, 3, 0]]), expected(finely[:, :4, :3, [0, 1, 2, 3, 0]]))


@pytest.mark.parametrize("dtype", ["float32", ">f4", "float16", "complex64"])
def test_a_long_sum_of_the_bias_gradient_does_not_drift(dtype):
    """The channels lie innermost, where NumPy adds one number after the other."""
    _, vjp = ck.conv1d_vjp(np.ones((1, 200_000, 1), "f4"), np.ones((1, 1, 2), "f4"), np.ones(2, "f4"), layout="NWC")
    db = vjp(np.full((1, 200_000, 2), 0.1, dtype), wrt=("b",)).db
    assert db.dtype == np.dtype(dtype).newbyteorder("=")
    assert db == pytest.approx([20_000] * 2, rel=1e-6 if dtype != "float16" else 1e-3)


@pytest.mark.parametrize("asked", [(), ("x",), ("w",), ("b",), ("b", "x"), ["w", "x"], {"x", "w", "b"}])
def test_only_the_gradients_asked_for_are_computed(asked, request):
    for letter, operation in (("x", "conv_input_grad"), ("w", "conv_weight_grad")):
        if letter not in asked:
            ck.register(operation, "unwanted", lambda *args, **kwargs: pytest.fail("not asked for"))
            request.addfinalizer(lambda operation=operation: ck.unregister(operation, "unwanted"))
    _, vjp = ck.conv2d_vjp(x, w, b)
    for letter, gradient, like in zip("xwb", vjp(dy, wrt=asked), (x, w, b), strict=True):
        assert (gradient is not None) == (letter in asked)
        assert gradient is None or gradient.shape == like.shape


@pytest.mark.parametrize("call", [ck.conv2d_vjp, ck.depthwise_conv2d_vjp])
def test_out_is_for_the_output_and_not_for_its_gradients(call):
    weights = w if call is ck.conv2d_vjp else w[[0, 1, 2, 3], :1]
    expected, _ = call(x, weights)
    out = np.empty_like(expected)
    y, vjp = call(x, weights, out=out)
    assert y is out
    first, second = vjp(y), vjp(y)
    assert np.array_equal(out, expected)
    assert all(np.array_equal(once, again) for once, again in zip(first, second, strict=True) if once is not None)
    y, vjp = ck.max_pool2d_vjp(x, 2, out=np.empty((2, 4, 3, 2)))
    assert vjp(y).shape == x.shape


def test_out_may_lie_between_the_cells_of_an_input_but_not_on_them():
    memory = np.zeros((2, 4, 6, 10))
    memory[..., ::2] = x
    given, between = memory[..., ::2], memory[..., 1::2]
    one = np.ones((4, 1, 1, 1))
    assert np.array_equal(ck.depthwise_conv2d(given, one, out=between), x)
    for taken in (given, given[..., ::-1], memory[..., :5]):
        with pytest.raises(ck.OverlapError, match="out shares memory with an input"):
            ck.depthwise_conv2d(given, one, out=taken)
    assert overlapping(given, given[:, 1:])
    assert not overlapping(given, between)


@pytest.mark.parametrize(
    ("array", "overlaps"),
    [
        (np.zeros((2, 3)), False),
        (np.zeros((2, 3)).T, False),
        (np.zeros((4, 3))[::-2, ::-1], False),
        (np.zeros((0, 3)), False),
        (np.broadcast_to(np.zeros(3), (1, 3)), False),
        (np.broadcast_to(np.zeros(3), (2, 3)), True),
        (np.broadcast_to(np.zeros((2, 1)), (2, 3)), True),
        (np.lib.stride_tricks.sliding_window_view(np.zeros(9), 3), True),
        (np.lib.stride_tricks.sliding_window_view(np.zeros(9), 3)[::3], False),
    ],
)
def test_an_out_that_overlaps_itself_is_told_apart(array, overlaps):
    assert self_overlapping(array) is overlaps


def test_anything_that_makes_an_array_is_taken():
    assert ck.conv1d([[[1, 2, 3]]], [[[1.5, 2]]], (4,)).tolist() == [[[9.5, 13]]]
    y, vjp = ck.max_pool1d_vjp([[[1, 2, 3]]], 3)
    assert (y.tolist(), vjp([[[5]]]).tolist()) == ([[[3]]], [[[0, 0, 5]]])


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_an_unknown_keyword_is_refused_by_name(name):
    with pytest.raises(TypeError, match=rf"^{name}\(\) has no keyword 'strategie'.*\(nearest: 'strategy'\)$"):
        getattr(ck, name)(x, strategie="auto")
