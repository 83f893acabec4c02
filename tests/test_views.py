"""Padding, the window view, and its adjoint."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import convkernels as ck
from convkernels.testing.numeric import assert_same
from convkernels.testing.strategies import integers, ranks, seeds, windows
from convkernels.views import blas_takes, flat_view, grouped, pad, readable, scatter_windows, slices
from convkernels.views import windows as view_windows

any_window = ranks.flatmap(lambda rank: windows(rank, ceil=True))
FLOAT = np.dtype(np.float64)


def cell(window, position, tap):
    """The input cell that a tap of an output falls on, or None beside the input."""
    place = tuple(
        p * s + t * d - lo
        for p, s, t, d, (lo, _) in zip(position, window.stride, tap, window.dilation, window.padding, strict=True)
    )
    inside = all(
        0 <= c < size + min(0, hi) for c, size, (_, hi) in zip(place, window.in_size, window.padding, strict=True)
    )
    return place if inside else None


@st.composite
def paddings(draw):
    """Sizes with paddings that leave at least one cell of each axis."""
    axes = []
    for _ in range(draw(ranks)):
        lo, hi = draw(st.integers(-2, 3)), draw(st.integers(-2, 3))
        axes.append((draw(st.integers(1, 4)) - min(lo, 0) - min(hi, 0), (lo, hi)))
    return axes


@given(axes=paddings(), seed=seeds)
def test_pad_adds_and_crops(axes, seed):
    x = integers((2, 3, *(size for size, _ in axes)), FLOAT, seed)
    added = [(max(0, lo), max(0, hi)) for _, (lo, hi) in axes]
    kept = tuple(slice(max(0, -lo), size + min(0, hi)) for size, (lo, hi) in axes)
    expected = np.pad(x[:, :, *kept], [(0, 0), (0, 0), *added], constant_values=-7)
    assert_same(pad(x, tuple(padding for _, padding in axes), -7), expected)


@pytest.mark.parametrize("padding", [((0, 0), (0, 0)), ((-1, 0), (0, -2)), ((-1, -1), (-1, -1))])
def test_pad_is_a_view_where_nothing_is_added(padding):
    x = np.zeros((1, 2, 5, 6))
    assert np.shares_memory(pad(x, padding), x)


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (0, 2, 3, 1), (3, 1, 2, 0), (1, 3, 0, 2)])
def test_pad_keeps_the_memory_order(axes):
    x = np.zeros(tuple(np.array([2, 3, 4, 5])[list(axes)]), np.float32).transpose(np.argsort(axes))
    padded = pad(x, ((1, 0), (0, 2)))
    assert padded.shape == (2, 3, 5, 7)
    assert padded.dtype == np.float32
    assert np.argsort(padded.strides).tolist() == np.argsort(x.strides).tolist()
    assert padded.transpose(axes).flags.c_contiguous


@given(window=any_window, seed=seeds)
def test_windows_show_every_tap_of_every_output(window, seed):
    x = integers((2, 2, *window.in_size), FLOAT, seed)
    seen = view_windows(x, window, -np.inf)
    assert seen.shape == (2, 2, *window.out_size, *window.kernel_size)
    for position in product(*map(range, window.out_size)):
        for tap in window.kernel_positions():
            place = cell(window, position, tap)
            expected = np.full((2, 2), -np.inf) if place is None else x[:, :, *place]
            assert np.array_equal(seen[:, :, *position, *tap], expected)


@given(window=any_window, reversed_rows=st.booleans())
def test_windows_never_copy_where_nothing_is_padded(window, reversed_rows):
    x = np.zeros((2, 2, *window.in_size))
    x = x[..., ::-1] if reversed_rows else x
    seen = view_windows(x, window)
    assert np.shares_memory(seen, x) is not window.padded
    assert not seen.flags.writeable


@given(window=any_window, seed=seeds)
def test_scatter_windows_is_the_exact_adjoint_of_windows(window, seed):
    x = integers((2, 2, *window.in_size), FLOAT, seed)
    seen = view_windows(x, window)
    cells = integers(seen.shape, FLOAT, seed + 1)
    start = integers(x.shape, FLOAT, seed + 2)
    scattered = start.copy()
    scatter_windows(cells, window, scattered)
    assert np.vdot(scattered - start, x) == np.vdot(cells, seen)


def test_scatter_windows_adds_to_what_is_there():
    out = np.full((1, 1, 3), 10.0)
    scatter_windows(np.array([[[[1.0, 2], [3, 4]]]]), ck.Window.make((3,), kernel_size=2), out)
    assert out.tolist() == [[[11, 15, 14]]]


def test_grouped_splits_the_channels_in_order():
    x = np.arange(2 * 6 * 3).reshape(2, 6, 3)
    split = grouped(x, 3)
    assert split.shape == (2, 3, 2, 3)
    assert np.array_equal(split[:, 1], x[:, 2:4])
    assert np.shares_memory(split, x)


MATRIX = np.arange(24.0).reshape(4, 6)


@pytest.mark.parametrize(
    ("matrices", "takes"),
    [
        (MATRIX, True),
        (MATRIX.T, True),
        (MATRIX[:, :3], True),
        (MATRIX[:, :3].T, True),
        (MATRIX[::2], True),
        (np.stack([MATRIX, MATRIX])[:, 1:], True),
        (MATRIX[:, ::2], False),
        (MATRIX[::-1], False),
        (MATRIX[:, ::-1], False),
        (np.broadcast_to(MATRIX[0], (4, 6)), False),
        (np.lib.stride_tricks.sliding_window_view(np.arange(9.0), 3), False),
    ],
)
def test_blas_takes_rows_or_columns_that_lie_in_one_run(matrices, takes):
    assert blas_takes(matrices) is takes
    read = readable(matrices)
    assert np.array_equal(read, matrices)
    assert blas_takes(read)
    assert np.shares_memory(read, matrices) is takes


@given(
    shape=st.tuples(*[st.integers(1, 4)] * 4),
    axes=st.permutations(range(4)),
    step=st.sampled_from([1, 2, -1]),
    lead=st.integers(1, 3),
)
def test_flat_view_is_the_same_memory_in_one_axis_or_nothing(shape, axes, step, lead):
    block = np.arange(np.prod(shape)).reshape(shape).transpose(axes)[..., ::step]
    view = flat_view(block, lead)
    if view is not None:
        assert np.array_equal(view, block.reshape(*block.shape[:lead], -1))
        assert np.shares_memory(view, block)
        assert blas_takes(view)


def test_flat_view_finds_what_there_is():
    assert np.shares_memory(flat_view(MATRIX.reshape(4, 2, 3), 1), MATRIX)
    assert flat_view(MATRIX.reshape(2, 2, 6).transpose(2, 0, 1), 1).shape == (6, 4)
    assert flat_view(MATRIX.reshape(4, 2, 3)[:, :, :2], 1) is None


@given(total=st.integers(0, 20), step=st.integers(1, 7))
def test_slices_cut_a_range_into_runs_of_at_most_a_step(total, step):
    parts = slices(total, step)
    assert [index for part in parts for index in range(part.start, part.stop)] == list(range(total))
    assert all(part.stop - part.start == step for part in parts[:-1])
    assert all(0 < part.stop - part.start <= step for part in parts)
