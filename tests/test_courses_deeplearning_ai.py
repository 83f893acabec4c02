"""deeplearning.ai's functions: the calls that the course's notebook makes, with the values that it prints; the kit."""

from __future__ import annotations

import re

import numpy as np
import pytest

import convkernels as ck
from convkernels.courses import deeplearning_ai as dl
from convkernels.testing import check_kernel
from convkernels.testing.kernel import COURSES


@pytest.fixture
def draw():
    """What the notebook draws: the global state, seeded with 1."""
    np.random.seed(1)  # noqa: NPY002
    return np.random.randn


@pytest.mark.parametrize("name", sorted(COURSES["deeplearning_ai"]))
def test_the_kit_finds_nothing_wrong_and_nothing_unusual(name):
    report = check_kernel(getattr(dl, name), convention="deeplearning_ai", examples=50)
    report.check()
    assert not report.remarks


def test_zero_pad(draw):
    x = draw(4, 3, 3, 2)
    padded = dl.zero_pad(x, 2)
    assert padded.shape == (4, 7, 7, 2)
    assert not padded[1, 1].any()
    np.testing.assert_array_equal(padded[:, 2:-2, 2:-2], x)


def test_conv_single_step(draw):
    assert dl.conv_single_step(draw(4, 4, 3), draw(4, 4, 3), draw(1, 1, 1)) == pytest.approx(-6.99908945068)


def test_conv_forward_and_backward(draw):
    A_prev, W, b = draw(10, 4, 4, 3), draw(2, 2, 3, 8), draw(1, 1, 1, 8)
    Z, cache = dl.conv_forward(A_prev, W, b, {"pad": 2, "stride": 2})
    assert Z.mean() == pytest.approx(0.0489952035289)
    expected = [-0.61490741, -6.7439236, -2.55153897, 1.75698377, 3.56208902, 0.53036437, 5.18531798, 8.75898442]
    np.testing.assert_allclose(Z[3, 2, 1], expected, atol=1e-8)
    np.testing.assert_allclose(cache[0][1][2][3], [-0.20075807, 0.18656139, 0.41005165], atol=1e-8)
    dA, dW, db = dl.conv_backward(Z, cache)
    means = [dA.mean(), dW.mean(), db.mean()]
    np.testing.assert_allclose(means, [1.45243777754, 1.72699145831, 7.83923256462])
    assert db.shape == (1, 1, 1, 8)


def test_conv_forward_of_the_newer_notebook(draw):
    A_prev, W, b = draw(10, 5, 7, 4), draw(3, 3, 4, 8), draw(1, 1, 1, 8)
    Z, _ = dl.conv_forward(A_prev, W, b, {"pad": 1, "stride": 2})
    assert Z.mean() == pytest.approx(0.692360880758)
    np.testing.assert_allclose(Z[3, 2, 1, [0, 4]], [-1.28912231, 8.25132576], atol=1e-8)


def test_pool_forward(draw):
    A_prev, hparameters = draw(2, 4, 4, 3), {"stride": 2, "f": 3}
    A, _ = dl.pool_forward(A_prev, hparameters)
    expected = [[1.74481176, 0.86540763, 1.13376944], [1.13162939, 1.51981682, 2.18557541]]
    np.testing.assert_allclose(A[:, 0, 0], expected, atol=1e-8)
    A, _ = dl.pool_forward(A_prev, hparameters, mode="average")
    expected = [[0.02105773, -0.20328806, -0.40389855], [-0.22154621, 0.51716526, 0.48155844]]
    np.testing.assert_allclose(A[:, 0, 0], expected, atol=1e-8)


def test_create_mask_and_distribute_value(draw):
    assert dl.create_mask_from_window(draw(2, 3)).tolist() == [[True, False, False], [False, False, False]]
    assert dl.distribute_value(2, (2, 2)).tolist() == [[0.5, 0.5], [0.5, 0.5]]


def test_pool_backward(draw):
    A_prev, hparameters = draw(5, 5, 3, 2), {"stride": 1, "f": 2}
    _, cache = dl.pool_forward(A_prev, hparameters)
    dA = draw(5, 4, 2, 2)
    found = dl.pool_backward(dA, cache, mode="max")[1, 1]
    np.testing.assert_allclose(found, [[0, 0], [5.05844394, -1.68282702], [0, 0]], atol=1e-8)
    found = dl.pool_backward(dA, cache, mode="average")[1, 1]
    expected = [[0.08485462, 0.2787552], [1.26461098, -0.25749373], [1.17975636, -0.53624893]]
    np.testing.assert_allclose(found, expected, atol=1e-8)


@pytest.mark.parametrize("mode", ["max", "average"])
def test_whole_numbers_pool(mode):
    A, cache = dl.pool_forward(np.array([[[[1], [2]], [[4], [5]]]]), {"f": 2, "stride": 1}, mode)
    assert A.item() == (5 if mode == "max" else 3)
    assert dl.pool_backward(np.ones((1, 1, 1, 1)), cache, mode).sum() == 1


X, W, B = np.ones((1, 4, 4, 3)), np.ones((2, 2, 3, 5)), np.ones((1, 1, 1, 5))
# fmt: off
REFUSED = [
    (lambda: dl.zero_pad(X[0], 1), ck.ShapeError, "X has 3 axes, layout 'NHWC' has 4"),
    (lambda: dl.zero_pad(X, -1), ck.OptionError, "pad=-1 must be at least 0"),
    (lambda: dl.conv_single_step(W[..., 0], W[..., 0].T, B[..., :1]), ck.ShapeError, "W has shape (3, 2, 2), must have a_slice_prev's (2, 2, 3)"),
    (lambda: dl.conv_single_step(W[..., 0], W[..., 0], B), ck.ShapeError, "b has shape (1, 1, 1, 5), must be one number"),
    (lambda: dl.conv_forward(X, W, B[0], {"stride": 1, "pad": 0}), ck.ShapeError, "W and b have shapes (2, 2, 3, 5) and (1, 1, 5), must have (f, f, n_C_prev, n_C) and (1, 1, 1, n_C)"),
    (lambda: dl.conv_forward(X, W, B, {"stride": 1}), ck.OptionError, "hparameters={'stride': 1} must have the key 'pad'"),
    (lambda: dl.pool_forward(X, {"f": 2, "stride": 1}, "mean"), ck.OptionError, "mode='mean' must be one of 'max', 'average'"),
    (lambda: dl.create_mask_from_window(np.ones((0, 2))), ck.ShapeError, "x has shape (0, 2), must not be empty"),
    (lambda: dl.distribute_value(1.0, (0, 2)), ck.ShapeError, "shape=(0, 2) must be of at least 1 each"),
]
# fmt: on


@pytest.mark.parametrize(("call", "kind", "message"), REFUSED)
def test_bad_arguments_are_refused(call, kind, message):
    with pytest.raises(kind, match=re.escape(message)):
        call()
