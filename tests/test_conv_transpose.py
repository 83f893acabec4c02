"""Transposed convolution: equal to its definition in every layout, and the transpose of a convolution."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import STRATEGIES, lay
from hypothesis import event, given
from hypothesis import strategies as st

import convkernels as ck
from convkernels.testing.numeric import assert_same
from convkernels.testing.strategies import conv_transpose_specs, integers, layouts, seeds

every_strategy = pytest.mark.parametrize("strategy", STRATEGIES)
NUMBERS = ("float32", "float64", "float16", "complex128", "int8", "uint16")


def drawn(data, spec, seed):
    """Arrays laid out anyhow, and the options that pose the spec's problem."""
    rank = spec.window.rank
    layout, weight_layout = data.draw(layouts(rank)), data.draw(layouts(rank, "IO"))
    options = {
        "stride": spec.window.stride,
        "padding": spec.padding,
        "output_padding": spec.output_padding,
        "dilation": spec.window.dilation,
        "groups": spec.convolution.groups,
        "layout": layout.axes,
        "weight_layout": weight_layout.axes,
    }
    x = lay(integers(spec.x_shape, spec.dtype, seed), layout)
    w = lay(integers(spec.w_shape, spec.dtype, seed + 1), weight_layout)
    b = integers(spec.y_shape[1:2], spec.dtype, seed + 2) if spec.bias else None
    dy = lay(integers(spec.y_shape, spec.dtype, seed + 3), layout)
    return x, w, b, dy, options


@every_strategy
@given(data=st.data(), spec=conv_transpose_specs(dtypes=NUMBERS), seed=seeds)
def test_forward_equals_the_definition(strategy, data, spec, seed):
    event("output padding" if any(spec.output_padding) else "no output padding")
    x, w, b, _, options = drawn(data, spec, seed)
    got = ck.conv_transpose(x, w, b, **options, strategy=strategy)
    assert got.flags.c_contiguous or not got.size
    assert_same(got, ck.conv_transpose(x, w, b, **options, strategy="naive"))


@every_strategy
@given(data=st.data(), spec=conv_transpose_specs(dtypes=("float64", "complex128")), seed=seeds)
def test_gradients_are_exact_adjoints(strategy, data, spec, seed):
    x, w, b, dy, options = drawn(data, spec, seed)
    y, vjp = ck.conv_transpose_vjp(x, w, b, **options, strategy=strategy)
    dx, dw, db = vjp(dy)
    linear = ck.conv_transpose(x, w, **options)
    pairing = np.vdot(dy, linear)
    assert np.vdot(dx, x) == pairing
    assert np.vdot(dw, w) == pairing
    if b is None:
        assert db is None
    else:
        assert np.vdot(db, b) == np.vdot(dy, y) - pairing


@given(spec=conv_transpose_specs(), seed=seeds)
def test_it_takes_back_the_shape_that_the_convolution_makes(spec, seed):
    """The convolution of the same options takes the output's shape to the input's, where no window more fits."""
    assert spec.convolution.y_shape == spec.x_shape
    assert ck.parse_problem(str(spec)) == ("conv_transpose", spec)


@pytest.mark.parametrize("size", [1, 4, 5])
@pytest.mark.parametrize("taps", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("step", [1, 2, 3])
@pytest.mark.parametrize("padding", ["same", "same_lower"])
def test_same_gives_in_times_stride(size, taps, step, padding):
    x, w = np.ones((1, 1, size)), np.ones((1, 1, taps))
    assert ck.conv_transpose1d(x, w, stride=step, padding=padding).shape == (1, 1, size * step)


def test_same_takes_the_odd_cell_off_the_end():
    x, w = np.array([[[1.0, 10.0]]]), np.array([[[1.0, 2.0, 4.0]]])
    whole = ck.conv_transpose1d(x, w, stride=2)
    assert whole.ravel().tolist() == [1, 2, 4 + 10, 20, 40]
    assert ck.conv_transpose1d(x, w, stride=2, padding="same").ravel().tolist() == [1, 2, 14, 20]
    assert ck.conv_transpose1d(x, w, stride=2, padding="same_lower").ravel().tolist() == [2, 14, 20, 40]


def test_output_padding_and_output_size_say_the_same():
    x, w = np.ones((1, 2, 4, 5)), np.ones((2, 3, 3, 3))
    padded = ck.conv_transpose2d(x, w, stride=(2, 3), padding=1, output_padding=(1, 2))
    sized = ck.conv_transpose2d(x, w, stride=(2, 3), padding=1, output_size=(8, 15))
    assert padded.shape == (1, 3, 8, 15)
    assert_same(padded, sized)


def test_it_is_the_transpose_and_not_the_adjoint():
    x, w = np.array([[[1.0 + 0j]]]), np.array([[[1j]]])
    assert ck.conv_transpose1d(x, w).item() == 1j
    assert ck.conv1d_input_grad(x, w, x_shape=(1, 1, 1)).item() == -1j


def test_weights_follow_the_layout():
    """NHWC takes HWOI, as Keras; the same problem in NCHW takes IOHW, as PyTorch."""
    x, w = np.random.default_rng(0).normal(size=(2, 3, 4, 5)), np.random.default_rng(1).normal(size=(3, 6, 2, 3))
    first = ck.conv_transpose2d(x, w, stride=2)
    last = ck.conv_transpose2d(x.transpose(0, 2, 3, 1), w.transpose(2, 3, 1, 0), stride=2, layout="NHWC")
    np.testing.assert_allclose(last.transpose(0, 3, 1, 2), first, rtol=1e-13)


BAD = [
    ({"output_padding": 2}, ck.OptionError, "output_padding=2 along spatial axis 0 must be at least 0 and below max(stride, dilation)=2 (without it the output has 9 cells)"),
    ({"output_padding": -1}, ck.OptionError, "output_padding=-1 must be at least 0"),
    ({"output_size": 8}, ck.OptionError, "output_padding=-1 along spatial axis 0 must be at least 0 and below max(stride, dilation)=2 (without it the output has 9 cells)"),
    ({"output_size": 11}, ck.OptionError, "output_padding=2 along spatial axis 0 must be at least 0 and below max(stride, dilation)=2 (without it the output has 9 cells)"),
    ({"output_size": (9,)}, ck.OptionError, "output_size=(9,) has 1 entries, must be one number or 2"),
    ({"output_size": 9, "output_padding": 1}, ck.OptionError, "output_size=9 does not go with output_padding=(1, 1)"),
    ({"padding": "same", "output_padding": 1}, ck.OptionError, "output_padding=1 does not go with padding='same'"),
    ({"padding": "full"}, ck.OptionError, "padding='full' must be numbers or 'valid', 'same' or 'same_lower'"),
    ({"padding": 5}, ck.ShapeError, "the output would have spatial sizes (-1, -1), each must be at least 1"),
    ({"groups": 3}, ck.ShapeError, "in_channels=4 must be divisible by groups=3"),
    ({"groups": 0}, ck.OptionError, "groups=0 must be at least 1"),
    ({"stride": 0}, ck.OptionError, "stride=0 must be at least 1"),
    ({"weight_layout": "HWO"}, ck.LayoutError, "weight_layout='HWO' must name each axis once, in any order: a permutation of 'IOW', 'IOHW', 'IODHW'"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "error", "cause"), BAD, ids=[cause[:50] for *_, cause in BAD])
def test_refuses(options, error, cause):
    x, w = np.zeros((2, 4, 4, 4)), np.zeros((4, 3, 3, 3))
    with pytest.raises(error) as caught:
        ck.conv_transpose2d(x, w, **{"stride": 2, **options})
    assert str(caught.value) == f"conv_transpose2d: {cause} (x has shape (2, 4, 4, 4), layout 'NCHW')"


def test_refuses_arrays_that_do_not_fit():
    x, w = np.zeros((2, 4, 4, 4)), np.zeros((4, 3, 3, 3))
    with pytest.raises(ck.ShapeError, match=r"w has 3 input channels, must have x's 4"):
        ck.conv_transpose2d(x, w[:3])
    with pytest.raises(ck.ShapeError, match=r"b has shape \(4,\), must have \(3,\)"):
        ck.conv_transpose2d(x, w, np.zeros(4))
    with pytest.raises(ck.ShapeError, match=r"conv_transpose2d_vjp's vjp: dy has shape .* must have \(2, 3, 6, 6\)"):
        ck.conv_transpose2d_vjp(x, w)[1](np.zeros((2, 3, 6, 5)))
    with pytest.raises(ck.OptionError, match="wrt='w' must be a sequence"):
        ck.conv_transpose2d_vjp(x, w)[1](np.zeros((2, 3, 6, 6)), wrt="w")
