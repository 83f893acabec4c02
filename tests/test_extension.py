"""Padding modes: what NumPy's pad does, at any size, and its adjoint."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import STRATEGIES
from hypothesis import given
from hypothesis import strategies as st

import convkernels as ck
from convkernels.extension import extend, fold
from convkernels.testing.numeric import assert_same
from convkernels.testing.strategies import integers, seeds

NUMPY = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
every_mode = pytest.mark.parametrize("mode", NUMPY)
every_strategy = pytest.mark.parametrize("strategy", [*STRATEGIES, "naive"])
axes = st.tuples(st.integers(1, 4), st.tuples(st.integers(0, 9), st.integers(0, 9)))


@every_mode
@given(shape=st.lists(axes, min_size=1, max_size=3), seed=seeds)
def test_extend_is_numpys_pad_and_fold_its_adjoint(mode, shape, seed):
    sizes, padding = zip(*shape, strict=True)
    window = ck.Window.make(sizes, kernel_size=1, padding=padding)
    x = integers((2, 3, *sizes), np.dtype("float64"), seed)
    extended = extend(x, window, mode)
    assert_same(extended, np.pad(x, [(0, 0), (0, 0), *padding], mode=NUMPY[mode]))
    g = integers(extended.shape, np.dtype("float64"), seed + 1)
    folded = np.empty_like(x)
    fold(g, window, mode, folded)
    assert np.vdot(folded, x) == np.vdot(g, extended)


@every_mode
@every_strategy
@pytest.mark.parametrize("padding", [((1, 2), (2, 0)), ((4, 5), (7, 1))])
def test_convolution_and_pools_see_the_extended_input(mode, strategy, padding):
    """Also where the padding is larger than the input (3x4), which then is repeated more than once."""
    x = integers((2, 3, 3, 4), np.dtype("float64"), 0)
    w = integers((4, 3, 2, 3), np.dtype("float64"), 1)
    padded = np.pad(x, [(0, 0), (0, 0), *padding], mode=NUMPY[mode])
    options = {"padding": padding, "padding_mode": mode, "strategy": strategy}
    assert_same(ck.conv2d(x, w, **options), ck.conv2d(padded, w))
    for pool in (ck.max_pool2d, ck.avg_pool2d):
        assert_same(pool(x, 2, stride=1, **options), pool(padded, 2, stride=1))
    last = ck.conv2d(x.transpose(0, 2, 3, 1), w.transpose(2, 3, 1, 0), layout="NHWC", **options)
    assert_same(last.transpose(0, 3, 1, 2), ck.conv2d(padded, w))


@every_mode
@every_strategy
def test_cells_that_the_padding_crops_are_not_repeated(mode, strategy):
    x, w = np.arange(6.0).reshape(1, 1, 6), np.ones((1, 1, 1))
    got = ck.conv1d(x, w, padding=((-2, 3),), padding_mode=mode, strategy=strategy)
    assert_same(got, np.pad(x[..., 2:], [(0, 0), (0, 0), (0, 3)], mode=NUMPY[mode]))


@every_strategy
def test_a_mean_counts_repeated_cells_but_no_overhang(strategy):
    x = np.array([[[2.0, 4.0, 6.0]]])
    got = ck.avg_pool1d(x, 3, stride=2, padding=1, ceil_mode=True, padding_mode="circular", strategy=strategy)
    assert got.ravel().tolist() == [4.0, 4.0]
    x = np.array([[[2.0, 4.0, 6.0, 8.0]]])
    # Windows of the extended 8 2 4 6 8 2: (8 2 4), (4 6 8), and (8 2) with an overhang of one.
    got = ck.avg_pool1d(x, 3, stride=2, padding=1, ceil_mode=True, padding_mode="circular", strategy=strategy)
    assert got.ravel().tolist() == [14 / 3, 6.0, 5.0]


@every_strategy
def test_a_median_has_nothing_against_repeated_cells(strategy):
    middle = ck.Reducer("middle", None, lambda windows, axes, count: np.median(windows, axes))
    x = np.array([[[5.0, 1.0, 3.0]]])
    got = ck.pool1d(x, 3, middle, stride=1, padding=1, padding_mode="replicate", strategy=strategy)
    assert got.ravel().tolist() == [5.0, 3.0, 3.0]


def test_an_own_implementation_gets_the_extended_input():
    seen = []

    def spy(spec, x, w, b, *, out, resources):
        seen.append((spec.padding_mode, x.shape))
        out[...] = 0

    ck.register("conv", "spy", spy, before="naive")
    try:
        ck.conv1d(np.ones((2, 1, 3)), np.ones((1, 1, 3)), padding=1, padding_mode="reflect", strategy="spy")
    finally:
        ck.unregister("conv", "spy")
    assert seen == [("zeros", (1, 1, 5))] * 2


def test_the_copy_of_an_image_counts_as_workspace():
    x, w = np.ones((4, 8, 32, 32)), np.ones((8, 8, 3, 3))
    options = {"padding": 1, "padding_mode": "reflect"}
    with pytest.raises(ck.WorkspaceError, match="would do"):
        ck.conv2d(x, w, **options, max_workspace=8 * 34 * 34 * 8)
    assert ck.explain("conv2d", x, w, **options).choices[0].workspace_bytes > 8 * 34 * 34 * 8
