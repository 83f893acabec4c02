"""Truth from outside: SciPy's correlations and filters, on whole numbers, exactly."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import STRATEGIES, conv_options, pool_options
from hypothesis import assume, given

import convkernels as ck
from convkernels.layout import Layout
from convkernels.testing.numeric import assert_same
from convkernels.testing.strategies import conv_specs, conv_transpose_specs, integers, pool_specs, seeds

reason = "SciPy is the oracle here"
signal = pytest.importorskip("scipy.signal", reason=reason)
ndimage = pytest.importorskip("scipy.ndimage", reason=reason)

every_strategy = pytest.mark.parametrize("strategy", [*STRATEGIES, "naive"])


def reaches(window):
    """The cells from the first window's first to the last window's last."""
    axes = zip(window.out_size, window.stride, window.extent, strict=True)
    return [(size - 1) * step + extent for size, step, extent in axes]


def padded(x, window, value=0.0):
    """The trailing axes as the windows see them: cropped, then padded, with the overhang of ceil_mode."""
    leading = [(0, 0)] * (x.ndim - window.rank)
    kept, added = [], []
    for size, (lo, hi), reach in zip(window.in_size, window.padding, reaches(window), strict=True):
        first, stop = max(0, -lo), size + min(0, hi)
        kept.append(slice(first, stop))
        added.append((max(0, lo), max(0, hi, reach - max(0, lo) - (stop - first))))
    return np.pad(x[..., *kept], [*leading, *added], constant_values=value)


def dilated(w, window):
    """The trailing axes with zeros between the taps."""
    stuffed = np.zeros((*w.shape[: -window.rank], *window.extent), w.dtype)
    stuffed[..., *(slice(None, None, step) for step in window.dilation)] = w
    return stuffed


def strided(y, window):
    """Every stride-th of the outputs that there would be with stride 1."""
    ends = zip(window.out_size, window.stride, strict=True)
    return y[tuple(slice(0, (size - 1) * step + 1, step) for size, step in ends)]


def overlapped(cells, w, stride):
    """SciPy's convolution, at full overlap, of cells with zeros between them."""
    spread = np.zeros([(size - 1) * step + 1 for size, step in zip(cells.shape, stride, strict=True)])
    spread[tuple(slice(None, None, step) for step in stride)] = cells
    return signal.convolve(spread, w, "full", "direct")


def by_scipy(spec, x, w):
    """Each output channel is the sum of its group's channels, each correlated with its own weights."""
    x, w, y = padded(x, spec.window), dilated(w, spec.window), np.zeros(spec.y_shape)
    for n, o, c in np.ndindex(spec.batch, spec.out_channels, spec.group_in):
        channel = x[n, o // spec.group_out * spec.group_in + c]
        y[n, o] += strided(signal.correlate(channel, w[o, c], "valid", "direct"), spec.window)
    return y


def options_of(spec):
    letters = "DHW"[3 - spec.window.rank :]
    return conv_options(spec, Layout("NC" + letters), Layout("OI" + letters, "OI"))


@every_strategy
@given(spec=conv_specs(padding_modes=("zeros",), dtypes=("float64",)), seed=seeds)
def test_convolution_is_scipys_correlation(strategy, spec, seed):
    x, w = integers(spec.x_shape, spec.dtype, seed), integers(spec.w_shape, spec.dtype, seed + 1)
    assert_same(ck.conv(x, w, **options_of(spec), strategy=strategy), by_scipy(spec, x, w))


@every_strategy
@given(spec=conv_specs(padding_modes=("zeros",), dtypes=("float64",)), seed=seeds)
def test_input_gradient_is_scipys_convolution(strategy, spec, seed):
    """Of dy; what falls into the padding is cut off."""
    window = spec.window
    assume(all(lo >= 0 and hi >= 0 for lo, hi in window.padding))
    dy, w = integers(spec.y_shape, spec.dtype, seed), integers(spec.w_shape, spec.dtype, seed + 1)
    stuffed, expected = dilated(w, window), np.zeros(spec.x_shape)
    # The full overlap covers the input from the padding in front to the last cell that a window reaches.
    own = tuple(slice(lo, lo + size) for (lo, _), size in zip(window.padding, window.in_size, strict=True))
    for n, o, c in np.ndindex(spec.batch, spec.out_channels, spec.group_in):
        full = np.zeros([max(reach, cells.stop) for reach, cells in zip(reaches(window), own, strict=True)])
        full[tuple(map(slice, reaches(window)))] = overlapped(dy[n, o], stuffed[o, c], window.stride)
        expected[n, o // spec.group_out * spec.group_in + c] += full[own]
    got = ck.conv_input_grad(dy, w, x_shape=spec.x_shape, **options_of(spec), strategy=strategy)
    assert_same(got, expected)


@every_strategy
@given(spec=conv_transpose_specs(dtypes=("float64",)), seed=seeds)
def test_transposed_convolution_is_scipys_convolution(strategy, spec, seed):
    """Of x; the padding is cut off, or zeros are added where it is negative and for the output padding."""
    back, window = spec.convolution, spec.window  # the convolution takes the output back to the input
    x, w = integers(spec.x_shape, spec.dtype, seed), integers(spec.w_shape, spec.dtype, seed + 1)
    stuffed, expected = dilated(w, window), np.zeros(spec.y_shape)
    sides = zip(spec.padding, spec.output_padding, strict=True)
    added = [(max(0, -lo), max(0, -hi) + extra) for (lo, hi), extra in sides]
    kept = zip(spec.padding, spec.y_shape[2:], strict=True)
    own = tuple(slice(max(0, lo), max(0, lo) + size) for (lo, _), size in kept)
    for n, i, o in np.ndindex(back.batch, back.out_channels, back.group_in):
        full = np.pad(overlapped(x[n, i], stuffed[i, o], window.stride), added)
        expected[n, i // back.group_out * back.group_in + o] += full[own]
    letters = "DHW"[3 - window.rank :]
    options = {"stride": window.stride, "padding": spec.padding, "output_padding": spec.output_padding}
    options |= {"dilation": window.dilation, "groups": back.groups, "layout": "NC" + letters}
    assert_same(ck.conv_transpose(x, w, **options, strategy=strategy), expected)


FILTERS = {
    "max": (-np.inf, lambda x, **how: ndimage.maximum_filter(x, mode="constant", cval=-np.inf, **how)),
    "min": (np.inf, lambda x, **how: ndimage.minimum_filter(x, mode="constant", cval=np.inf, **how)),
    "sum": (0, lambda x, footprint: ndimage.correlate(x, footprint.astype(float), mode="constant")),
}


@every_strategy
@pytest.mark.parametrize("name", FILTERS)
@given(spec=pool_specs(padding_modes=("zeros",), reducers=("max",), dtypes=("float64",)), seed=seeds)
def test_pooling_is_scipys_filter(strategy, name, spec, seed):
    pad_value, scipy_filter = FILTERS[name]
    window, x = spec.window, integers(spec.x_shape, spec.dtype, seed)
    footprint = dilated(np.ones(window.kernel_size, bool), window)
    # SciPy's windows lie around their output, which is the cell at half the extent.
    centred = tuple(slice(size // 2, None) for size in footprint.shape)
    expected = np.zeros(spec.y_shape)
    for n, c in np.ndindex(spec.batch, spec.channels):
        filtered = scipy_filter(padded(x[n, c], window, pad_value), footprint=footprint)
        expected[n, c] = strided(filtered[centred], window)
    options = pool_options(spec, Layout("NC" + "DHW"[3 - window.rank :]))
    assert_same(ck.pool(x, window.kernel_size, name, **options, strategy=strategy), expected)


@every_strategy
@pytest.mark.parametrize("window", [2, (2, 4), (1, 8)])
def test_average_is_scipys_uniform_filter(strategy, window):
    x = integers((2, 3, 9, 10), np.dtype(float), 0)
    rows, columns = np.broadcast_to(window, 2)
    filtered = ndimage.uniform_filter(x, (0, 0, rows, columns), mode="constant")
    expected = filtered[:, :, rows // 2 :, columns // 2 :][:, :, : 10 - rows, : 11 - columns]
    assert_same(ck.avg_pool2d(x, window, stride=1, strategy=strategy), expected)


@every_strategy
def test_a_median_of_ones_own_is_scipys(strategy):
    x = integers((2, 3, 9, 10), np.dtype(float), 0)
    median = ck.Reducer("median", None, lambda windows, axes, count: np.median(windows, axes))
    expected = ndimage.median_filter(x, (1, 1, 3, 5))[:, :, 1:-1, 2:-2]
    assert_same(ck.pool2d(x, (3, 5), median, stride=1, strategy=strategy), expected)
