"""Every strategy in every layout equals the definition, exactly; the gradients are adjoints."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import STRATEGIES, conv_options, lay
from hypothesis import event, given
from hypothesis import strategies as st

import convkernels as ck
from convkernels.testing.numeric import assert_same, assert_within
from convkernels.testing.strategies import conv_specs, integers, layouts, reals, seeds

every_strategy = pytest.mark.parametrize("strategy", STRATEGIES)
NUMBERS = ("float32", "float64", "float16", "complex64", "complex128", "int8", "uint16", "int64")


def regime(spec: ck.ConvSpec) -> None:
    window = spec.window
    event(f"rank {window.rank}")
    event("grouped" if spec.groups > 1 else "dense")
    for name, holds in {
        "depthwise": spec.groups == spec.in_channels > 1,
        "pointwise": window.taps == 1,
        "strided": max(window.stride) > 1,
        "dilated": max(window.dilation) > 1,
        "padded": any(max(pair) > 0 for pair in window.padding),
        "cropped": any(min(pair) < 0 for pair in window.padding),
    }.items():
        if holds:
            event(name)


def drawn(spec, layout, weight_layout, seed):
    x = lay(integers(spec.x_shape, spec.dtype, seed), layout)
    w = lay(integers(spec.w_shape, spec.dtype, seed + 1), weight_layout)
    b = integers((spec.out_channels,), spec.dtype, seed + 2) if spec.bias else None
    return x, w, b


@every_strategy
@given(data=st.data(), spec=conv_specs(dtypes=NUMBERS), seed=seeds)
def test_forward_equals_the_definition(strategy, data, spec, seed):
    regime(spec)
    layout = data.draw(layouts(spec.window.rank))
    weight_layout = data.draw(layouts(spec.window.rank, "OI"))
    x, w, b = drawn(spec, layout, weight_layout, seed)
    options = conv_options(spec, layout, weight_layout)
    got = ck.conv(x, w, b, **options, strategy=strategy)
    assert got.flags.c_contiguous or not got.size
    assert_same(got, ck.conv(x, w, b, **options, strategy="naive"))


@every_strategy
@given(data=st.data(), spec=conv_specs(dtypes=NUMBERS), seed=seeds)
def test_gradients_equal_the_definitions(strategy, data, spec, seed):
    layout = data.draw(layouts(spec.window.rank))
    weight_layout = data.draw(layouts(spec.window.rank, "OI"))
    x, w, _ = drawn(spec, layout, weight_layout, seed)
    dy = lay(integers(spec.y_shape, spec.dtype, seed + 3), layout)
    options = conv_options(spec, layout, weight_layout)
    dx, expected = (
        ck.conv_input_grad(dy, w, x_shape=x.shape, **options, strategy=name) for name in (strategy, "naive")
    )
    assert_same(dx, expected, name="dx")
    sizes = spec.window.kernel_size
    dw, expected = (
        ck.conv_weight_grad(x, dy, kernel_size=sizes, **options, strategy=name) for name in (strategy, "naive")
    )
    assert_same(dw, expected, name="dw")


@every_strategy
@given(data=st.data(), spec=conv_specs(dtypes=("float64", "complex128")), seed=seeds)
def test_gradients_are_exact_adjoints(strategy, data, spec, seed):
    """<conv(x, w), dy> = <x, input_grad(dy, w)> = <w, weight_grad(x, dy)>, in whole numbers."""
    layout = data.draw(layouts(spec.window.rank))
    weight_layout = data.draw(layouts(spec.window.rank, "OI"))
    x, w, b = drawn(spec, layout, weight_layout, seed)
    dy = lay(integers(spec.y_shape, spec.dtype, seed + 3), layout)
    y, vjp = ck.conv_vjp(x, w, b, **conv_options(spec, layout, weight_layout), strategy=strategy)
    dx, dw, db = vjp(dy)
    linear = y if b is None else y - np.expand_dims(b, tuple(np.arange(1, y.ndim - layout.axes.index("C"))))
    pairing = np.vdot(dy, linear)
    assert np.vdot(dx, x) == pairing
    assert np.vdot(dw, w) == pairing
    if b is None:
        assert db is None
    else:
        assert np.vdot(db, b) == np.vdot(dy, y) - pairing


@every_strategy
@given(spec=conv_specs(dtypes=("float32", "float64", "complex64")), seed=seeds)
def test_error_stays_within_the_componentwise_bound(strategy, spec, seed):
    x, w = reals(spec.x_shape, spec.dtype, seed), reals(spec.w_shape, spec.dtype, seed + 1)
    options = conv_options(spec, ck.layout.Layout("NC" + "DHW"[3 - spec.window.rank :]), WEIGHTS[spec.window.rank])
    got = ck.conv(x, w, **options, strategy=strategy)
    wide = np.result_type(spec.dtype, np.float64)
    exact = ck.conv(x.astype(wide), w.astype(wide), **options, strategy="naive")
    size = ck.conv(np.abs(x).astype(np.float64), np.abs(w).astype(np.float64), **options, strategy="naive")
    terms = spec.group_in * spec.window.taps + 2
    assert_within(got, exact, terms * float(np.finfo(spec.dtype).eps) * size)


WEIGHTS = {rank: ck.layout.Layout("OI" + "DHW"[3 - rank :], "OI") for rank in (1, 2, 3)}
