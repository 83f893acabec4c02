"""im2col against loops over the windows, col2im as its exact adjoint."""

# ruff: noqa: E501  # messages stand whole, each in a line that can be searched for
from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from helpers import assert_refused, lay
from hypothesis import given
from hypothesis import strategies as st

import convkernels as ck
from convkernels.layout import Layout
from convkernels.patches import col2im, im2col
from convkernels.testing.numeric import assert_same
from convkernels.testing.strategies import integers, layouts, ranks, seeds, windows

NUMBERS = ("float32", "float64", "float16", "complex64", "int8", "uint16", "int64", ">f4")

drawn_windows = ranks.flatmap(windows)
batches = st.tuples(st.integers(0, 2), st.integers(1, 3))


def options(window, layout):
    return {
        "kernel_size": window.kernel_size,
        "stride": window.stride,
        "padding": window.padding,
        "dilation": window.dilation,
        "layout": layout.axes,
    }


def columns_by_definition(x, window):
    """Every column of a canonical batch, cell by cell; what lies outside is 0."""
    samples, channels = x.shape[:2]
    positions = list(product(*map(range, window.out_size)))
    rows = list(product(range(channels), *map(range, window.kernel_size)))
    columns = np.zeros((samples, len(rows), len(positions)), x.dtype.newbyteorder("="))
    for (row, (c, *tap)), (column, position) in product(enumerate(rows), enumerate(positions)):
        cell = tuple(
            p * s + t * d - lo
            for p, s, t, d, (lo, _) in zip(position, window.stride, tap, window.dilation, window.padding, strict=True)
        )
        # A negative padding crops: the cells cut off are outside, too.
        inside = all(
            max(0, -lo) <= i < size + min(0, hi)
            for i, size, (lo, hi) in zip(cell, window.in_size, window.padding, strict=True)
        )
        if inside:
            columns[:, row, column] = x[:, c, *cell]
    return columns


@given(data=st.data(), window=drawn_windows, batch=batches, dtype=st.sampled_from(NUMBERS), seed=seeds)
def test_im2col_equals_the_definition_in_every_layout(data, window, batch, dtype, seed):
    layout = data.draw(layouts(window.rank))
    x = integers((*batch, *window.in_size), np.dtype(dtype), seed)
    got = im2col(lay(x, layout), **options(window, layout))
    assert got.flags.c_contiguous
    assert got.flags.writeable
    assert_same(got, columns_by_definition(x, window))


@given(
    data=st.data(), window=drawn_windows, batch=batches, dtype=st.sampled_from(("float64", "complex128")), seed=seeds
)
def test_col2im_is_the_exact_adjoint(data, window, batch, dtype, seed):
    """<im2col(x), columns> = <x, col2im(columns)>, in whole numbers."""
    layout = data.draw(layouts(window.rank))
    x = lay(integers((*batch, *window.in_size), np.dtype(dtype), seed), layout)
    seen = im2col(x, **options(window, layout))
    columns = integers(seen.shape, np.dtype(dtype), seed + 1)
    back = col2im(columns, x_shape=x.shape, **options(window, layout))
    assert back.flags.c_contiguous
    assert back.shape == x.shape
    assert np.vdot(columns, seen) == np.vdot(back, x)


@given(data=st.data(), window=drawn_windows, dtype=st.sampled_from(NUMBERS), seed=seeds)
def test_the_round_trip_counts_the_windows_that_see_each_cell(data, window, dtype, seed):
    layout = data.draw(layouts(window.rank))
    x = lay(integers((2, 2, *window.in_size), np.dtype(dtype), seed), layout)
    shape = {"x_shape": x.shape, **options(window, layout)}
    count = col2im(im2col(np.ones_like(x), **options(window, layout)), **shape)
    got = col2im(im2col(x, **options(window, layout)), **shape)
    expected = {"i": np.dtype("int64"), "u": np.dtype("uint64")}.get(x.dtype.kind, x.dtype.newbyteorder("="))
    assert got.dtype == expected
    assert_same(got, (x * count).astype(expected))


def test_channels_vary_slowest_and_positions_are_in_row_major_order():
    x = np.arange(18).reshape(1, 2, 3, 3)
    got = im2col(x, 2)
    assert got.shape == (1, 8, 4)
    assert got[0, :, 1].tolist() == [1, 2, 4, 5, 10, 11, 13, 14]
    assert got[0, 0].tolist() == [0, 1, 3, 4]
    assert_same(im2col(x.transpose(0, 2, 3, 1), 2, layout="NHWC"), got)


def test_named_padding_is_a_convolutions():
    x, w = integers((2, 3, 7, 6), np.dtype(float), 0), integers((4, 3, 3, 2), np.dtype(float), 1)
    for padding in ("valid", "same", "same_lower", "full"):
        y = ck.conv2d(x, w, stride=2, padding=padding)
        columns = im2col(x, (3, 2), stride=2, padding=padding)
        assert_same((w.reshape(4, -1) @ columns).reshape(y.shape), y)


def test_the_columns_share_no_memory_with_x():
    x = np.ones((2, 3, 4, 4))
    columns = im2col(x, 1)
    assert not np.shares_memory(columns, x)
    assert not np.shares_memory(col2im(columns, x_shape=x.shape, kernel_size=1), columns)


def test_nan_reaches_exactly_the_windows_that_see_it():
    x = np.zeros((1, 1, 5))
    x[0, 0, 2] = np.nan
    columns = im2col(x, 3, layout="NCW")
    assert np.isnan(columns).sum() == 3
    assert np.isnan(col2im(columns, x_shape=x.shape, kernel_size=3, layout="NCW")).tolist() == [
        [[False, False, True, False, False]]
    ]


def test_float16_sums_in_float32():
    """A hundred windows see the middle cell; one by one in float16 the sum of 0.001 would drift."""
    columns = np.full((1, 101, 101), 0.001, np.float16)
    got = col2im(columns, x_shape=(1, 1, 201), kernel_size=101, layout="NCW")
    assert got.dtype == np.float16
    assert got[0, 0, 100] == np.float16(101 * np.float64(np.float16(0.001)))


@pytest.mark.parametrize("strides", ["negative", "broadcast", "read-only"])
def test_any_strides(strides):
    x = integers((2, 3, 6), np.dtype(float), 0)
    taken = {"negative": x[:, ::-1, ::-1], "broadcast": np.broadcast_to(x[:1], x.shape), "read-only": x}[strides]
    if strides == "read-only":
        x.flags.writeable = False
    got = im2col(taken, 2, layout="NCW")
    assert_same(got, im2col(taken.copy(), 2, layout="NCW"))
    for columns in (np.asfortranarray(got), got[::-1, ::-1, ::-1]):
        back = col2im(columns, x_shape=x.shape, kernel_size=2, layout="NCW")
        assert_same(back, col2im(columns.copy(order="C"), x_shape=x.shape, kernel_size=2, layout="NCW"))


x = np.zeros((2, 3, 5, 6))
columns = np.zeros((2, 12, 20))
X = "(x has shape (2, 3, 5, 6), layout 'NCHW')"
COLUMNS = "(columns has shape (2, 12, 20), layout 'NCHW')"
# fmt: off
REFUSED = [
    (lambda: im2col(x[0], 2), ck.ShapeError, "im2col: x has 3 axes, layout 'NCHW' has 4; arrays are batched: add an axis of one for 'N' (x has shape (3, 5, 6), layout 'NCHW')"),
    (lambda: im2col(x, 0), ck.OptionError, f"im2col: kernel_size=0 must be at least 1 {X}"),
    (lambda: im2col(x, (2, 2, 2)), ck.OptionError, f"im2col: kernel_size=(2, 2, 2) has 3 entries, must be one number or 2 {X}"),
    (lambda: im2col(x, 2, stride=1.5), ck.OptionError, f"im2col: stride=1.5 must be a whole number {X}"),
    (lambda: im2col(x, 2, dilation=True), ck.OptionError, f"im2col: dilation=True must be a whole number, not a bool {X}"),
    (lambda: im2col(x, 2, padding="smae"), ck.OptionError, f"im2col: padding='smae' must be numbers or one of 'valid', 'same', 'same_lower', 'full', 'causal' (nearest: 'same') {X}"),
    (lambda: im2col(x, 6), ck.ShapeError, f"im2col: the window extends over 6 cells of spatial axis 0 (kernel_size=6, dilation=1), more than the padded input's 5 + 0 + 0 = 5 {X}"),
    (lambda: im2col(x, 1, padding=10**9), ck.ShapeError, f"im2col: the result would have canonical shape (2, 3, 4000000022000000030), more than memory can address {X}"),
    (lambda: im2col(x[:, :0], 2), ck.ShapeError, "im2col: x has size 0 along 'C', must have at least 1 (x has shape (2, 0, 5, 6), layout 'NCHW')"),
    (lambda: im2col(x > 0, 2), ck.DTypeError, f"im2col: x has dtype bool, must be integer, floating or complex {X}"),
    (lambda: im2col(np.ma.masked_less(x, 1), 2), ck.DTypeError, f"im2col: x is a masked array, whose mask would be lost: fill it first {X}"),
    (lambda: im2col(x, 2, layout="NCXY"), ck.LayoutError, "im2col: layout='NCXY' must name each axis once, in any order: a permutation of 'NCW', 'NCHW', 'NCDHW' (x has shape (2, 3, 5, 6), layout 'NCXY')"),
    (lambda: col2im(columns, x_shape=x.shape, kernel_size=3), ck.ShapeError, f"col2im: columns has shape (2, 12, 20), must have (2, 27, 12): (N, C * taps, positions) {COLUMNS}"),
    (lambda: col2im(columns, x_shape=(3, 5, 6), kernel_size=2), ck.ShapeError, f"col2im: x_shape=(3, 5, 6) has 3 axes, layout 'NCHW' has 4 {COLUMNS}"),
    (lambda: col2im(columns, x_shape=6, kernel_size=2), ck.OptionError, f"col2im: x_shape=6 must be a sequence of 4 whole numbers {COLUMNS}"),
    (lambda: col2im(columns, x_shape=(2, 3, 5, 6.0), kernel_size=2), ck.OptionError, f"col2im: x_shape=6.0 must be a whole number {COLUMNS}"),
    (lambda: col2im(columns, x_shape=(2, 3, 0, 6), kernel_size=2), ck.ShapeError, f"col2im: the spatial axes have sizes (0, 6), each must be at least 1 {COLUMNS}"),
    (lambda: col2im(columns.astype(object), x_shape=x.shape, kernel_size=2), ck.DTypeError, f"col2im: columns has dtype object, must be integer, floating or complex {COLUMNS}"),
    (lambda: col2im(np.full((2, 12, 20), 2**62), x_shape=x.shape, kernel_size=2), ck.IntegerOverflowError, f"col2im: sums of this data could reach 18446744073709551616, int64 holds 9223372036854775807: convert to float64 {COLUMNS}"),
]
# fmt: on


@pytest.mark.parametrize(("call", "error", "message"), REFUSED, ids=[message[:60] for *_, message in REFUSED])
def test_refuses(call, error, message):
    assert_refused(call, error, message)


def test_a_one_dimensional_causal_window_sees_no_future():
    got = im2col(np.array([[[1.0, 2.0, 3.0]]]), 2, padding="causal", layout=Layout("NCW").axes)
    assert got.tolist() == [[[0.0, 1.0, 2.0], [1.0, 2.0, 3.0]]]
