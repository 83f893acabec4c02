"""Neither the cap, which cuts a problem into blocks, nor how many channels there are changes a result."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers import STRATEGIES, conv_options, lay, pool_options
from hypothesis import event, given
from hypothesis import strategies as st

import convkernels as ck
from convkernels.kernels.im2col import FEW, forward_scatters, input_grad_gathers
from convkernels.layout import Layout
from convkernels.operation import OPERATIONS
from convkernels.testing.numeric import assert_same
from convkernels.testing.strategies import SELECTING, conv_specs, integers, pool_specs, seeds

every_strategy = pytest.mark.parametrize("strategy", STRATEGIES)
CHANNELS = st.sampled_from([1, 2, 7, FEW, FEW + 1])
"""In a group: enough for every way in which columns are made, on the side with fewer."""


@st.composite
def wide_specs(draw):
    spec = draw(conv_specs(rank=draw(st.integers(1, 2)), dtypes=("float64",)))
    channels = {"in_channels": spec.groups * draw(CHANNELS), "out_channels": spec.groups * draw(CHANNELS)}
    stride = draw(st.sampled_from([(1,) * spec.window.rank, spec.window.stride]))
    return replace(spec, batch=draw(st.integers(1, 2)), window=replace(spec.window, stride=stride), **channels)


@st.composite
def data_layouts(draw, rank):
    return Layout(draw(st.sampled_from(["NC{}", "N{}C", "C{}N"])).format("HW"[2 - rank :]))


def capped(operation, spec, strategy, spare):
    """The keywords of a run in little more than it needs."""
    least = OPERATIONS[operation].find(strategy).workspace(spec, 0)
    return {"strategy": strategy, "max_workspace": least + spare}


spares = st.sampled_from([0, 8, 100, 1000, 10_000])


@every_strategy
@given(spec=wide_specs(), spare=spares, seed=seeds, drawn=st.data())
def test_convolution_equals_the_definition_in_blocks_of_any_size(strategy, spec, spare, seed, drawn):
    event("forward scatters" if forward_scatters(spec) else "forward gathers")
    event("gradient gathers" if input_grad_gathers(spec) else "gradient scatters")
    layout = drawn.draw(data_layouts(spec.window.rank))
    weights = Layout({"N": "OI{}", "C": "I{}O"}[layout.axes[0]].format("HW"[2 - spec.window.rank :]), "OI")
    shapes = ((spec.x_shape, layout), (spec.w_shape, weights), (spec.y_shape, layout))
    x, w, dy = (lay(integers(shape, spec.dtype, seed + k), its) for k, (shape, its) in enumerate(shapes))
    b = integers((spec.out_channels,), spec.dtype, seed) if spec.bias else None
    options = conv_options(spec, layout, weights)

    def same(operation, call):
        assert_same(call(**capped(operation, spec, strategy, spare)), call(strategy="naive"), name=operation)

    same("conv", lambda **how: ck.conv(x, w, b, **options, **how))
    same("conv_input_grad", lambda **how: ck.conv_input_grad(dy, w, x_shape=x.shape, **options, **how))
    sizes = spec.window.kernel_size
    same("conv_weight_grad", lambda **how: ck.conv_weight_grad(x, dy, kernel_size=sizes, **options, **how))


@every_strategy
@given(spec=pool_specs(rank=2, reducers=(*SELECTING, "sum")), spare=spares, seed=seeds, drawn=st.data())
def test_pooling_equals_the_definition_in_blocks_of_any_size(strategy, spec, spare, seed, drawn):
    layout = drawn.draw(data_layouts(2))
    x = lay(integers(spec.x_shape, spec.dtype, seed, most=3), layout)
    dy = lay(integers(spec.y_shape, spec.dtype, seed + 1) * 12, layout)
    options, window = pool_options(spec, layout), spec.window.kernel_size
    got = ck.pool(x, window, spec.reducer, **options, **capped("pool", spec, strategy, spare))
    y, definition = ck.pool_vjp(x, window, spec.reducer, **options, strategy="naive")
    assert_same(got, y)
    # The gradient needs more than the forward, whose cap is its own too.
    how = capped("pool_grad", spec, strategy, spare)
    how["max_workspace"] += capped("pool", spec, strategy, 0)["max_workspace"]
    _, vjp = ck.pool_vjp(x, window, spec.reducer, **options, **how)
    if spec.reducer.name == "max_ties-split":
        assert np.allclose(vjp(dy), definition(dy), rtol=1e-5, atol=1e-5)
    else:
        assert_same(vjp(dy), definition(dy), name="dx")


@pytest.mark.parametrize("order", ["NC{}", "N{}C"])
@pytest.mark.parametrize("bias", ["", "_bias"])
@pytest.mark.parametrize("padding", ["1+1x0+2", "0+0x0+0", "-1+2x3+-1"])
def test_few_output_channels_are_scattered_exactly(padding, bias, order):
    """More than three input channels for each output channel, with stride 1."""
    _, spec = ck.parse_problem(f"n2g2i20o4_in7x6_k3x2_s1x1_p{padding}_d1x2{bias}_float64")
    assert forward_scatters(spec)
    layout, weights = Layout(order.format("HW")), Layout("OIHW", "OI")
    x, w = lay(integers(spec.x_shape, spec.dtype, 0), layout), integers(spec.w_shape, spec.dtype, 1)
    b = integers((4,), spec.dtype, 2) if spec.bias else None
    options = conv_options(spec, layout, weights)
    expected = ck.conv2d(x, w, b, **options, strategy="naive")
    assert_same(ck.conv2d(x, w, b, **options, strategy="im2col"), expected)
    assert_same(ck.conv2d(x, w, b, **options, **capped("conv", spec, "im2col", 50)), expected)
