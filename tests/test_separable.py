"""Depthwise and separable convolution are convolutions: with a group for each channel, and one after the other."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import STRATEGIES, lay
from hypothesis import given
from hypothesis import strategies as st

import convkernels as ck
from convkernels.layout import Layout
from convkernels.testing.numeric import assert_same
from convkernels.testing.strategies import integers, seeds

FLOAT = np.dtype(float)
LAYOUTS = [
    ("NCW", "OIW"),
    ("NWC", "WIO"),
    ("NCHW", "OIHW"),
    ("NHWC", "HWIO"),
    ("CHWN", "IHWO"),
    ("NCDHW", "OIDHW"),
    ("NDHWC", "DHWIO"),
]
every_case = pytest.mark.parametrize("strategy", ["auto", *STRATEGIES])


@st.composite
def problems(draw):
    """Arrays of a separable convolution in some layout, and its keywords."""
    data_axes, weight_axes = draw(st.sampled_from(LAYOUTS))
    data, weights = Layout(data_axes), Layout(weight_axes, "OI")
    channels, multiplier, outs = (draw(st.integers(1, 3)) for _ in range(3))
    seed, sizes = draw(seeds), draw(st.tuples(*[st.integers(3, 5)] * data.rank))
    kernel_size = draw(st.tuples(*[st.integers(1, 3)] * data.rank))
    shapes = [
        (draw(st.integers(0, 2)), channels, *sizes),
        (multiplier * channels, 1, *kernel_size),
        (outs, multiplier * channels, *[1] * data.rank),
    ]
    x, depthwise_w, pointwise_w = (
        lay(integers(shape, FLOAT, seed + place), layout)
        for place, (shape, layout) in enumerate(zip(shapes, (data, weights, weights), strict=True))
    )
    b = integers((outs,), FLOAT, seed) if draw(st.booleans()) else None
    how = {"layout": data.axes, "weight_layout": weights.axes}
    geometry = {"stride": draw(st.integers(1, 2)), "padding": draw(st.sampled_from([0, 1, "same"])), "dilation": 1}
    return x, depthwise_w, pointwise_w, b, channels, {**how, **geometry}, how


@every_case
@given(problem=problems())
def test_depthwise_is_a_convolution_with_a_group_for_each_channel(strategy, problem):
    x, w, _, _, channels, options, _ = problem
    b = integers((w.shape[options["weight_layout"].index("O")],), FLOAT, 0)
    y, vjp = ck.depthwise_conv_vjp(x, w, b, **options, strategy=strategy)
    expected, conv_vjp = ck.conv_vjp(x, w, b, groups=channels, **options, strategy="naive")
    assert_same(y, expected)
    assert_same(ck.depthwise_conv(x, w, b, **options, strategy=strategy), expected)
    for got, right in zip(vjp(y), conv_vjp(y), strict=True):
        assert_same(got, right)


@every_case
@given(problem=problems())
def test_separable_is_one_convolution_after_the_other(strategy, problem):
    x, depthwise_w, pointwise_w, b, channels, options, how = problem
    y, vjp = ck.separable_conv_vjp(x, depthwise_w, pointwise_w, b, **options, strategy=strategy)
    middle, first = ck.conv_vjp(x, depthwise_w, groups=channels, **options, strategy="naive")
    expected, second = ck.conv_vjp(middle, pointwise_w, b, **how, strategy="naive")
    assert_same(y, expected)
    assert_same(ck.separable_conv(x, depthwise_w, pointwise_w, b, **options, strategy=strategy), expected)
    gradients, outer = vjp(y), second(y)
    inner = first(outer.dx)
    assert_same(gradients.dx, inner.dx)
    assert_same(gradients.d_depthwise_w, inner.dw)
    assert_same(gradients.d_pointwise_w, outer.dw)
    assert (gradients.db is None) == (b is None)
    if b is not None:
        assert_same(gradients.db, outer.db)


def test_the_first_channels_filters_come_first():
    x, w = np.array([[[1.0], [10.0]]]), np.array([[[1.0]], [[2.0]], [[3.0]], [[4.0]]])
    assert ck.depthwise_conv1d(x, w).ravel().tolist() == [1, 2, 30, 40]


def test_out_takes_the_end_and_nothing_in_between():
    x, depthwise_w, pointwise_w = np.ones((2, 3, 5, 5)), np.ones((3, 1, 3, 3)), np.ones((4, 3, 1, 1))
    out = np.full((2, 4, 5, 5), np.nan)
    y, vjp = ck.separable_conv2d_vjp(x, depthwise_w, pointwise_w, padding=1, out=out)
    assert y is out
    assert out[0, 0, 2, 2] == 27
    assert vjp(y).dx.shape == x.shape
