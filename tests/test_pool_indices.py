"""Max pools with indices, and unpools: equal to loops that share no code with them."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from helpers import STRATEGIES, lay, pool_options
from hypothesis import event, given
from hypothesis import strategies as st

import convkernels as ck
from convkernels.layout import Layout
from convkernels.testing.numeric import assert_same
from convkernels.testing.strategies import distinct, integers, layouts, pool_specs, ranks, seeds
from convkernels.unpool import (
    max_pool1d_with_indices,
    max_pool2d_with_indices,
    max_pool2d_with_indices_vjp,
    max_pool3d_with_indices,
    max_pool_with_indices,
    max_pool_with_indices_vjp,
    max_unpool,
    max_unpool1d,
    max_unpool2d,
    max_unpool2d_vjp,
    max_unpool_vjp,
)

NUMBERS = ("float32", "float64", "float16", "int8", "uint16", "int64")
MAX = ("max",)
NUMPY_NAMES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def options_of(spec, layout):
    options = pool_options(spec, layout)
    del options["count_include_pad"], options["divisor_override"]
    return options


def cells_along(size, lo, hi, mode):
    """The cell at each place of a padded axis, None where there is none."""
    kept = list(range(max(0, -lo), size + min(0, hi)))
    if mode == "zeros":
        return [None] * lo + kept + [None] * hi
    return np.pad(kept, (max(0, lo), max(0, hi)), NUMPY_NAMES[mode]).tolist()


def seen_by(spec, position):
    """The cells that a window sees, in row-major order of its taps."""
    window = spec.window
    for tap in product(*map(range, window.kernel_size)):
        cell = []
        for axis, size in enumerate(window.in_size):
            along = cells_along(size, *window.padding[axis], spec.padding_mode)
            place = position[axis] * window.stride[axis] + tap[axis] * window.dilation[axis]
            cell.append(along[place] if place < len(along) else None)
        if None not in cell:
            yield tuple(cell)


def defined(spec, x):
    """The maxima of a canonical x, and where they stand: cell by cell, the first of several."""
    y, indices = np.empty(spec.y_shape, x.dtype), np.empty(spec.y_shape, np.int64)
    for position in product(*map(range, spec.window.out_size)):
        seen = list(seen_by(spec, position))
        for plane in np.ndindex(x.shape[:2]):
            best = seen[0]
            for cell in seen[1:]:
                value, champion = x[*plane, *cell], x[*plane, *best]
                if champion == champion and (value > champion or value != value):
                    best = cell
            flat = 0
            for place, size in zip(best, spec.window.in_size, strict=True):
                flat = flat * size + place
            y[*plane, *position], indices[*plane, *position] = x[*plane, *best], flat
    return y, indices


@pytest.mark.parametrize("strategy", ["auto", *STRATEGIES, "naive"])
@given(data=st.data(), spec=pool_specs(reducers=MAX, dtypes=NUMBERS), seed=seeds)
def test_equals_the_definition(strategy, data, spec, seed):
    """In every layout and type, on data of so few values that ties are everywhere."""
    event(spec.padding_mode)
    event("overhanging" if spec.window.padded else "inside")
    layout = data.draw(layouts(spec.window.rank))
    x = integers(spec.x_shape, spec.dtype, seed, most=2)
    y, indices = defined(spec, x)
    got = max_pool_with_indices(lay(x, layout), spec.window.kernel_size, **options_of(spec, layout), strategy=strategy)
    assert_same(got[0], lay(y, layout))
    assert_same(got[1], lay(indices, layout), name="indices")
    assert got[1].flags.c_contiguous


@given(data=st.data(), spec=pool_specs(reducers=MAX, dtypes=("float32", "float16")), seed=seeds)
def test_special_values(data, spec, seed):
    layout = data.draw(layouts(spec.window.rank))
    few = np.array([-np.inf, -np.inf, np.nan, -0.0, 0.0, np.inf], spec.dtype)
    x = few[np.random.default_rng(seed).integers(0, len(few), spec.x_shape)]
    y, indices = defined(spec, x)
    got = max_pool_with_indices(lay(x, layout), spec.window.kernel_size, **options_of(spec, layout))
    assert_same(got[0], lay(y, layout))
    assert_same(got[1], lay(indices, layout), name="indices")


@given(data=st.data(), spec=pool_specs(reducers=MAX), seed=seeds)
def test_little_memory_gives_the_same(data, spec, seed):
    layout = data.draw(layouts(spec.window.rank))
    x = integers(spec.x_shape, spec.dtype, seed, most=2)
    window, options = spec.window.kernel_size, options_of(spec, layout)
    expected = max_pool_with_indices(lay(x, layout), window, **options)
    limit = 1
    for _ in range(3):
        try:
            got = max_pool_with_indices(lay(x, layout), window, **options, max_workspace=limit)
            break
        except ck.WorkspaceError as error:
            limit = int(error.cause.split(": ")[-1].split()[0])
    for first, second in zip(got, expected, strict=True):
        assert_same(first, second)


@given(data=st.data(), spec=pool_specs(reducers=MAX, dtypes=("float32", "float64", "int64")), seed=seeds)
def test_gradient_goes_to_the_indices(data, spec, seed):
    layout = data.draw(layouts(spec.window.rank))
    x, dy = integers(spec.x_shape, spec.dtype, seed, most=3), integers(spec.y_shape, spec.dtype, seed + 1)
    options = options_of(spec, layout)
    y, indices, vjp = max_pool_with_indices_vjp(lay(x, layout), spec.window.kernel_size, **options)
    places = layout.view(indices)
    expected = np.zeros((*spec.x_shape[:2], int(np.prod(spec.window.in_size))), spec.dtype)
    for place in np.ndindex(spec.y_shape):
        expected[*place[:2], places[place]] += dy[place]
    dx = vjp(lay(dy, layout))
    assert_same(dx, lay(expected.reshape(spec.x_shape), layout), name="dx")
    right, right_vjp = ck.max_pool_vjp(lay(x, layout), spec.window.kernel_size, **options)
    assert_same(y, right)
    assert_same(dx, right_vjp(lay(dy, layout)), name="dx")


@given(data=st.data(), spec=pool_specs(reducers=MAX), seed=seeds)
def test_unpool_puts_the_maxima_back(data, spec, seed):
    layout = data.draw(layouts(spec.window.rank))
    x = distinct(spec.x_shape, spec.dtype, seed) + 1
    y, indices = max_pool_with_indices(lay(x, layout), spec.window.kernel_size, **options_of(spec, layout))
    back = layout.view(max_unpool(y, indices, output_size=spec.window.in_size, layout=layout.axes))
    assert_same(back, np.where(np.isin(x, y), x, 0).astype(x.dtype))


@st.composite
def unpools(draw):
    """Shapes, a layout, and indices with and without repetitions."""
    rank = draw(ranks)
    lead = (draw(st.integers(0, 2)), draw(st.integers(1, 3)))
    sizes, out_sizes = (tuple(draw(st.integers(1, 4)) for _ in range(rank)) for _ in range(2))
    places = np.random.default_rng(draw(seeds)).integers(0, np.prod(out_sizes), (*lead, *sizes))
    return lead, sizes, out_sizes, places, draw(layouts(rank))


@given(case=unpools(), seed=seeds, dtype=st.sampled_from(NUMBERS), kind=st.sampled_from(["int64", "uint8", "uint64"]))
def test_unpool_equals_the_definition(case, seed, dtype, kind):
    lead, sizes, out_sizes, places, layout = case
    x = integers((*lead, *sizes), np.dtype(dtype), seed)
    expected = np.zeros((*lead, int(np.prod(out_sizes))), dtype)
    for place in np.ndindex(x.shape):
        expected[*place[:2], places[place]] = x[place]
    got = max_unpool(lay(x, layout), lay(places.astype(kind), layout), output_size=out_sizes, layout=layout.axes)
    assert_same(got, lay(expected.reshape(*lead, *out_sizes), layout))
    assert got.flags.c_contiguous


@given(case=unpools(), seed=seeds, dtype=st.sampled_from(("float32", "float64", "int64")))
def test_unpool_gradient_is_the_exact_adjoint(case, seed, dtype):
    lead, sizes, out_sizes, places, layout = case
    x = lay(integers((*lead, *sizes), np.dtype(dtype), seed), layout)
    dy = lay(integers((*lead, *out_sizes), np.dtype(dtype), seed + 1), layout)
    y, vjp = max_unpool_vjp(x, lay(places, layout), output_size=out_sizes, layout=layout.axes)
    dx = vjp(dy)
    assert dx.dtype == dtype
    assert dx.shape == x.shape
    assert np.vdot(dx, x) == np.vdot(dy, y)


def square(*values):
    side = round(len(values) ** 0.5)
    return np.array(values, float).reshape(1, 1, side, side)


def test_the_first_of_several_equal_maxima():
    assert max_pool2d_with_indices(square(1, 7, 7, 7), 2)[1].item() == 1
    assert max_pool2d_with_indices(square(-0.0, 0.0, -0.0, 0.0), 2)[1].item() == 0


def test_the_first_nan():
    y, indices, vjp = max_pool2d_with_indices_vjp(square(9, np.nan, np.nan, np.inf), 2)
    assert np.isnan(y.item())
    assert indices.item() == 1
    assert vjp(np.ones_like(y)).ravel().tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8"])
def test_padding_never_wins(dtype):
    least = -np.inf if dtype == "float32" else np.iinfo(dtype).min
    x = np.full((1, 1, 2, 2), least, dtype)
    y, indices = max_pool2d_with_indices(x, 2, stride=1, padding=1)
    assert (y == least).all()
    assert indices.ravel().tolist() == [0, 0, 1, 0, 0, 1, 2, 2, 3]


def test_ceil_mode():
    x = np.arange(6.0).reshape(1, 1, 6)
    y, indices = max_pool1d_with_indices(x, 4, ceil_mode=True)
    assert y.ravel().tolist() == [3, 5]
    assert indices.ravel().tolist() == [3, 5]


def test_dilation_and_cropping():
    x = np.array([[[9.0, 1, 8, 2, 7, 9]]])
    assert max_pool1d_with_indices(x, 2, stride=1, dilation=3)[1].ravel().tolist() == [0, 4, 5]
    assert max_pool1d_with_indices(x, 2, stride=2, padding=((-1, -1),))[1].ravel().tolist() == [2, 4]


@pytest.mark.parametrize(
    ("mode", "expected"), [("reflect", [1, 1, 2]), ("replicate", [0, 1, 2]), ("circular", [2, 1, 2])]
)
def test_padding_modes_name_the_cell_that_is_repeated(mode, expected):
    """Three windows (before, 0), (0, 1) and (1, 2) of growing cells."""
    x = np.array([[[1.0, 2, 3]]])
    y, indices = max_pool1d_with_indices(x, 2, stride=1, padding=((1, 0),), padding_mode=mode)
    assert indices.ravel().tolist() == expected
    assert_same(y.ravel(), x.ravel()[expected])


def test_empty_batch():
    y, indices, vjp = max_pool2d_with_indices_vjp(np.zeros((0, 3, 4, 4)), 2)
    assert y.shape == indices.shape == (0, 3, 2, 2)
    assert vjp(y).shape == (0, 3, 4, 4)
    assert max_unpool2d(y, indices, output_size=4).shape == (0, 3, 4, 4)


def test_indices_count_in_canonical_order_whatever_the_layout():
    x = np.zeros((1, 3, 2, 4, 5))
    x[0, 1, 1, 2, 3] = 1
    place = (1 * 4 + 2) * 5 + 3
    assert max_pool3d_with_indices(x, (2, 4, 5))[1].ravel().tolist() == [0, place, 0]
    layout = Layout("WDCHN")
    assert max_pool3d_with_indices(lay(x, layout), (2, 4, 5), layout="WDCHN")[1].ravel().tolist() == [0, place, 0]


def test_pytorch_documents_this_unpool():
    """The example of torch.nn.MaxUnpool2d, once with the size of the pooled image and once with a larger one."""
    x = square(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16)
    y, indices = max_pool2d_with_indices(x, 2, stride=2)
    assert indices.ravel().tolist() == [5, 7, 13, 15]
    assert_same(max_unpool2d(y, indices, output_size=4), square(0, 0, 0, 0, 0, 6, 0, 8, 0, 0, 0, 0, 0, 14, 0, 16))
    larger = np.zeros((1, 1, 5, 5))
    larger.ravel()[[5, 7, 13, 15]] = 6, 8, 14, 16
    assert_same(max_unpool2d(y, indices, output_size=(5, 5)), larger)


def test_pytorch_documents_this_unpool_of_one_axis():
    """The example of torch.nn.MaxUnpool1d, whose input has a cell that no window reads."""
    x = np.arange(1.0, 10).reshape(1, 1, 9)
    y, indices = max_pool1d_with_indices(x, 2, stride=2)
    assert max_unpool1d(y, indices, output_size=9).ravel().tolist() == [0, 2, 0, 4, 0, 6, 0, 8, 0]


def test_out_takes_the_result():
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 4))
    out, back = np.empty((2, 3, 2, 2)), np.full((2, 4, 4, 3), np.nan).transpose(0, 3, 1, 2)
    y, indices = max_pool2d_with_indices(x, 2, out=out)
    assert y is out
    assert max_unpool2d(y, indices, output_size=4, out=back) is back
    assert_same(back, max_unpool2d(y, indices, output_size=4))


def test_inputs_of_any_strides():
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(">f4")[::-1, :, ::2, ::-1]
    x.flags.writeable = False
    y, indices = max_pool2d_with_indices(x, 2)
    expected, places = max_pool2d_with_indices(np.ascontiguousarray(x, "f4"), 2)
    assert_same(y, expected)
    assert_same(indices, places)
    flipped = max_unpool2d(y[..., ::-1], indices.astype(">i8")[..., ::-1], output_size=(4, 8))
    assert_same(flipped, max_unpool2d(y, indices, output_size=(4, 8)))


def test_a_value_that_another_replaced_has_no_gradient():
    x, indices = np.array([[[[1.0, 2]]]]), np.array([[[[3, 3]]]])
    y, vjp = max_unpool2d_vjp(x, indices, output_size=2)
    assert y.ravel().tolist() == [0, 0, 0, 2]
    assert vjp(np.full_like(y, 5)).ravel().tolist() == [0, 5]


values, places = np.zeros((2, 3, 2, 2)), np.zeros((2, 3, 2, 2), np.int64)
beyond, negative = places.copy(), places.copy()
beyond[0, 2, 1, 0], beyond[1] = 16, 99
negative[1, 0, 0, 1] = -1

# fmt: off
BAD_UNPOOL = [
    (values, beyond, {}, ck.OptionError, "indices[0, 2, 1, 0]=16 must be at least 0 and below 16, the number of cells of output_size=(4, 4)"),
    (values, negative, {}, ck.OptionError, "indices[1, 0, 0, 1]=-1 must be at least 0 and below 16, the number of cells of output_size=(4, 4)"),
    (values, np.full_like(places, 2**64 - 1, np.uint64), {}, ck.OptionError, "indices[0, 0, 0, 0]=18446744073709551615 must be at least 0 and below 16, the number of cells of output_size=(4, 4)"),
    (values, places[:1], {}, ck.ShapeError, "indices has shape (1, 3, 2, 2), must have (2, 3, 2, 2) as x has"),
    (values, places.astype(float), {}, ck.DTypeError, "indices has dtype float64, must be integer"),
    (values, places > 0, {}, ck.DTypeError, "indices has dtype bool, must be integer"),
    (values > 0, places, {}, ck.DTypeError, "x has dtype bool, must be integer, floating or complex"),
    (values * 1j, places, {}, ck.DTypeError, "reducer 'max' takes signed integer, unsigned integer, floating elements, not complex128"),
    (values, places, {"output_size": (4, 4, 4)}, ck.OptionError, "output_size=(4, 4, 4) has 3 entries, must be one number or 2"),
    (values, places, {"output_size": 0}, ck.OptionError, "output_size=0 must be at least 1"),
    (values, places, {"output_size": 4.5}, ck.OptionError, "output_size=4.5 must be a whole number"),
    (values, places, {"output_size": None}, ck.OptionError, "output_size=None must be a whole number"),
    (values, places, {"strategy": "im2col"}, ck.UnknownStrategyError, "strategy='im2col' is not one of max_unpool's: 'auto'"),
    (values, places, {"threads": 0}, ck.OptionError, "threads=0 must be at least 1"),
    (values, places, {"precision": "low"}, ck.OptionError, "precision='low' must be one of 'default', 'highest'"),
    (values, places, {"max_workspace": 100}, ck.WorkspaceError, "max_workspace=100 bytes is too small for a plane of the result: 128 would do"),
    (values, places, {"out": np.zeros((2, 3, 4, 5))}, ck.ShapeError, "out has shape (2, 3, 4, 5), must have (2, 3, 4, 4)"),
    (values, places, {"out": np.zeros((2, 3, 4, 4), "f4")}, ck.DTypeError, "out has dtype float32, must have float64"),
]
BAD_POOL = [
    ({"window": 0}, ck.OptionError, "window=0 must be at least 1"),
    ({"window": 2, "padding": 2}, ck.ShapeError, "window 0 of spatial axis 0 would hold no cell of the input, only padding (in=4, kernel_size=2, stride=2, padding=(2, 2), dilation=1)"),
    ({"window": 2, "padding_mode": "mirror"}, ck.OptionError, "padding_mode='mirror' must be one of 'zeros', 'reflect', 'replicate', 'circular'"),
    ({"window": 2, "max_workspace": 60}, ck.WorkspaceError, "max_workspace=60 bytes is too small for the indices: 67 would do"),
    ({"window": 2, "out": np.zeros((2, 3, 2, 2), np.int64)}, ck.DTypeError, "out has dtype int64, must have float64"),
]
# fmt: on


@pytest.mark.parametrize(
    ("x", "indices", "options", "error", "cause"), BAD_UNPOOL, ids=[case[-1][:60] for case in BAD_UNPOOL]
)
def test_unpool_refuses(x, indices, options, error, cause):
    with pytest.raises(error) as caught:
        max_unpool2d(x, indices, **{"output_size": 4, **options})
    assert str(caught.value) == f"max_unpool2d: {cause} (x has shape (2, 3, 2, 2), layout 'NCHW')"


@pytest.mark.parametrize(("options", "error", "cause"), BAD_POOL, ids=[case[-1][:60] for case in BAD_POOL])
def test_pool_refuses(options, error, cause):
    with pytest.raises(error) as caught:
        max_pool2d_with_indices(np.zeros((2, 3, 4, 4)), **options)
    assert str(caught.value) == f"max_pool2d_with_indices: {cause} (x has shape (2, 3, 4, 4), layout 'NCHW')"


def test_refuses_what_does_not_fit():
    with pytest.raises(ck.ShapeError, match=r"^max_unpool2d: x has 3 axes, layout 'NCHW' has 4; arrays are batched"):
        max_unpool2d(values[0], places[0], output_size=4)
    with pytest.raises(ck.ShapeError, match=r"^max_unpool2d: x has size 0 along 'C', must have at least 1"):
        max_unpool2d(values[:, :0], places[:, :0], output_size=4)
    y, vjp = max_unpool2d_vjp(values, places, output_size=4)
    with pytest.raises(
        ck.ShapeError, match=r"^max_unpool2d_vjp's vjp: dy has shape \(2, 3, 4, 3\), must have \(2, 3, 4, 4\)"
    ):
        vjp(y[..., :3])
    out = np.zeros((2, 3, 4, 4))
    with pytest.raises(ck.OverlapError, match=r"^max_unpool2d: out shares memory with an input, must not"):
        max_unpool2d(out[..., :2, :2], places, output_size=4, out=out)
    with pytest.raises(TypeError, match="output_size"):
        max_unpool2d(values, places)
    with pytest.raises(
        ck.UnknownStrategyError, match=r"^max_pool2d_with_indices: strategy='im2cool' is not one of pool's"
    ):
        max_pool2d_with_indices(np.zeros((2, 3, 4, 4)), 2, strategy="im2cool")
    with pytest.raises(TypeError, match=r"max_pool2d_with_indices\(\) has no keyword 'ties'"):
        max_pool2d_with_indices(np.zeros((2, 3, 4, 4)), 2, ties="last")
