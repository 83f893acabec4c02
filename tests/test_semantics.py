"""Semantics that trip people, in numbers small enough to check by hand; by every strategy, in two layouts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from helpers import STRATEGIES, conv_options, lay, pool_options
from hypothesis import assume, given

import convkernels as ck
from convkernels.layout import Layout
from convkernels.testing.numeric import assert_same
from convkernels.testing.strategies import (
    SELECTING,
    SMOOTH,
    SUMMING,
    conv_specs,
    integers,
    pool_specs,
    reals,
    seeds,
)

nan, inf = np.nan, np.inf
ALL = [*STRATEGIES, "naive"]
every_strategy = pytest.mark.parametrize("strategy", ALL)
canonical = {rank: (Layout("NC" + "DHW"[3 - rank :]), Layout("OI" + "DHW"[3 - rank :], "OI")) for rank in (1, 2, 3)}


@dataclass
class Calls:
    """Two-dimensional calls on canonical data, a list being one row; results are canonical, axes of one dropped."""

    strategy: str
    layout: Layout
    weight_layout: Layout

    def laid(self, values, layout=None, dtype=None):
        array = np.asarray(values, dtype)
        return lay(array.reshape((1,) * (4 - array.ndim) + array.shape), layout or self.layout)

    def seen(self, array, layout=None):
        assert array.flags.c_contiguous
        return (layout or self.layout).view(array, "result").squeeze().tolist()

    def conv(self, x, w, b=None, dy=None, **options):
        """The output, and the gradients dx, dw and db for dy, by default ones."""
        b = None if b is None else np.asarray(b)
        options |= {"layout": self.layout.axes, "weight_layout": self.weight_layout.axes, "strategy": self.strategy}
        y, vjp = ck.conv2d_vjp(self.laid(x), self.laid(w, self.weight_layout), b, **options)
        dx, dw, db = vjp(np.ones_like(y) if dy is None else self.laid(dy))
        return self.seen(y), self.seen(dx), self.seen(dw, self.weight_layout), None if db is None else db.tolist()

    def pool(self, x, window, reducer="max", dy=None, dtype=None, **options):
        """The output, and the gradient for dy, by default ones."""
        options |= {"layout": self.layout.axes, "strategy": self.strategy}
        y, vjp = ck.pool2d_vjp(self.laid(x, dtype=dtype), window, reducer, **options)
        return self.seen(y), self.seen(vjp(np.ones_like(y) if dy is None else self.laid(dy, dtype=dtype)))


@pytest.fixture(params=[(strategy, layout) for strategy in ALL for layout in ("NCHW", "NHWC")], ids="-".join)
def calls(request):
    strategy, layout = request.param
    return Calls(strategy, Layout(layout), Layout({"NCHW": "OIHW", "NHWC": "HWIO"}[layout], "OI"))


ONE_TO_SIX = [1.0, 2, 3, 4, 5, 6]


def test_ceil_overhang_is_outside_and_does_not_count(calls):
    """Windows 1 2 3 4 and 5 6: the mean of the second is 11/2, whatever count_include_pad says."""
    for include in (True, False):
        mean = calls.pool(ONE_TO_SIX, (1, 4), "mean", ceil_mode=True, count_include_pad=include)
        assert mean == ([2.5, 5.5], [0.25] * 4 + [0.5] * 2)
    assert calls.pool(ONE_TO_SIX, (1, 4), "max", ceil_mode=True) == ([4, 6], [0, 0, 0, 1, 0, 1])
    assert calls.pool(ONE_TO_SIX, (1, 4), "mean") == (2.5, [0.25] * 4 + [0, 0])


def test_declared_padding_counts_where_the_overhang_behind_it_does_not(calls):
    """The second window holds 5, 6, one cell of padding, and one of overhang."""
    options = {"ceil_mode": True, "padding": ((0, 0), (0, 1)), "dy": [4.0, 6.0]}
    assert calls.pool(ONE_TO_SIX, (1, 4), "mean", **options) == ([2.5, 11 / 3], [1, 1, 1, 1, 2, 2])
    without = calls.pool(ONE_TO_SIX, (1, 4), "mean", count_include_pad=False, **options)
    assert without == ([2.5, 5.5], [1, 1, 1, 1, 3, 3])


def test_ceil_mode_drops_an_output_that_would_start_behind_the_input(calls):
    """With padding 1 windows start at -1, 1 and 3; one at 5 would lie in the padding."""
    options = {"stride": 2, "padding": ((0, 0), (1, 1)), "ceil_mode": True}
    x = ONE_TO_SIX[:5]
    assert calls.pool(x, (1, 2), "max", **options) == ([1, 3, 5], [1, 0, 1, 0, 1])
    assert calls.pool(x, (1, 2), "mean", **options) == ([0.5, 2.5, 4.5], [0.5] * 5)
    without = calls.pool(x, (1, 2), "mean", count_include_pad=False, **options)
    assert without == ([1, 2.5, 4.5], [1, 0.5, 0.5, 0.5, 0.5])


@pytest.mark.parametrize(
    ("size", "padding", "y", "dx"),
    [
        (4, "same", [6, 7], [1, 1, 2, 1]),
        (4, "same_lower", [3, 9], [1, 2, 1, 1]),
        (5, "same", [3, 9, 9], [1, 2, 1, 2, 1]),
        (5, "same_lower", [3, 9, 9], [1, 2, 1, 2, 1]),
        (6, "same", [6, 12, 11], [1, 1, 2, 1, 2, 1]),
        (6, "same_lower", [3, 9, 15], [1, 2, 1, 2, 1, 1]),
    ],
)
def test_same_depends_on_the_input_size_when_strided(calls, size, padding, y, dx):
    x = ONE_TO_SIX[:size]
    assert calls.conv(x, [1.0, 1, 1], stride=2, padding=padding)[:2] == (y, dx)
    assert calls.pool(x, (1, 3), "sum", stride=(1, 2), padding=padding) == (y, dx)


def test_padding_0_keeps_everything_and_windows_need_not_be_square(calls):
    x = np.arange(12.0).reshape(3, 4)
    y, dx, dw, _ = calls.conv(x, [1.0, 10, 100], padding=0)
    assert y == [[210, 321], [654, 765], [1098, 1209]]
    assert dx == [[1, 11, 110, 100]] * 3
    assert dw == [27, 33, 39]
    assert calls.pool(x, (3, 2)) == ([9, 11], [[0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 1]])
    assert calls.pool(x, (2, 3), "sum", padding=((1, 0), (0, 2))) == ([[3, 3], [42, 18]], [[1] * 4] * 3)


def test_a_tail_that_no_window_reaches_gets_no_gradient(calls):
    x = [1.0, 2, 3, 4, 5, 6, 7]
    assert calls.conv(x, [1.0, 2], stride=3, dy=[1.0, 10])[:3] == ([5, 14], [1, 2, 0, 10, 20, 0, 0], [41, 52])
    for reducer in ("max", "sum", "mean", "lp1", "logsumexp1"):
        assert calls.pool(x[:5], (1, 3), reducer)[1][3:] == [0, 0]


@pytest.mark.parametrize(
    ("ties", "dx"),
    [
        ("", [1, 10, 100, 0]),
        ("_ties-last", [0, 1, 110, 0]),
        ("_ties-split", [0.5, 5.5, 105, 0]),
        ("_ties-all", [1, 11, 110, 0]),
    ],
)
def test_overlapping_windows_accumulate_what_their_ties_give(calls, ties, dx):
    options = {"stride": 1, "dy": [1.0, 10, 100]}
    assert calls.pool([7.0, 7, 7, 3], (1, 2), f"max{ties}", **options) == ([7, 7, 7], dx)
    assert calls.pool([-7.0, -7, -7, -3], (1, 2), f"min{ties}", **options) == ([-7, -7, -7], dx)


@pytest.mark.parametrize("reducer", SELECTING)
def test_the_first_nan_of_each_window_takes_its_gradient(calls, reducer):
    y, dx = calls.pool([nan, 1, nan, nan], (1, 2), reducer, stride=1, dy=[1.0, 10, 100])
    assert np.isnan(y).all()
    assert dx == [1, 0, 110, 0]


def test_minus_zero_ties_with_zero(calls):
    x, dy = [-0.0, 0.0, -0.0], [1.0, 10]
    for extreme in ("max", "min"):
        assert calls.pool(x, (1, 2), extreme, stride=1, dy=dy) == ([0, 0], [1, 10, 0])
        assert calls.pool(x, (1, 2), f"{extreme}_ties-split", stride=1, dy=dy) == ([0, 0], [0.5, 5.5, 5])


@pytest.mark.parametrize(
    ("extreme", "dtype", "worst"),
    [
        ("max", "float32", -inf),
        ("min", "float32", inf),
        ("max", "int8", -128),
        ("min", "int64", 2**63 - 1),
        ("max", "uint8", 0),
    ],
)
def test_padding_never_wins_not_even_over_the_identity(calls, extreme, dtype, worst):
    options = {"stride": 1, "padding": ((0, 0), (1, 1)), "dy": [1, 10, 20], "dtype": dtype}
    split = ["_ties-split"] if dtype == "float32" else []  # integers cannot be
    for ties in ("", "_ties-last", "_ties-all", *split):
        assert calls.pool([worst, 5], (1, 2), extreme + ties, **options) == ([worst, 5, 5], [1, 30])
        assert calls.pool([5, worst], (1, 2), extreme + ties, **options) == ([5, 5, worst], [11, 20])


def test_a_convolution_window_with_no_real_cell_gives_the_bias(calls):
    """Windows start at -3 to 3; those at -1, 0 and 1 hold a cell of 1 2."""
    y, dx, dw, db = calls.conv([1.0, 2], [10.0, 100], [7.0], padding=((0, 0), (3, 3)))
    assert y == [7, 7, 107, 217, 27, 7, 7]
    assert (dx, dw, db) == ([110, 110], [3, 3], [7])
    assert calls.conv([1.0, 2], [10.0, 100], padding=((0, 0), (3, 3)))[0] == [0, 0, 100, 210, 20, 0, 0]
    assert calls.conv([5.0], [3.0], [7.0], stride=2, padding=((0, 0), (1, 0))) == (7, 0, 0, [1])


def test_a_pool_window_with_no_real_cell_is_refused(calls):
    with pytest.raises(ck.ShapeError, match="window 0 of spatial axis 1 would hold no cell of the input"):
        calls.pool([1.0, 2], (1, 2), padding=((0, 0), (2, 0)))


def test_an_empty_batch(calls):
    layout, weights = calls.layout, calls.weight_layout
    options = {"layout": layout.axes, "strategy": calls.strategy}
    x, w = layout.empty((0, 2, 5, 6), np.dtype(float)), lay(np.ones((3, 2, 2, 3)), weights)
    y, vjp = ck.conv2d_vjp(x, w, np.ones(3), **options)
    assert layout.view(y).shape == (0, 3, 4, 4)
    dx, dw, db = vjp(y)
    assert (dx.shape, dw.shape, db.tolist()) == (x.shape, w.shape, [0, 0, 0])
    assert not dw.any()
    for reducer in ("max", "mean", "lp2", "logsumexp1"):
        y, vjp = ck.pool2d_vjp(x, 2, reducer, padding=1, **options)
        assert layout.view(y).shape == (0, 2, 3, 4)
        assert vjp(y).shape == x.shape


@every_strategy
@pytest.mark.parametrize("value", [nan, inf, -inf])
@given(spec=conv_specs(dtypes=("float64",)), place=seeds)
def test_nan_and_infinity_reach_exactly_what_reads_them(strategy, value, spec, place):
    assume(spec.batch)
    options = conv_options(spec, *canonical[spec.window.rank])
    # Nothing is 0, so that an infinity stays one.
    w, x, dy = (np.abs(integers(shape, spec.dtype, place)) + 1 for shape in (spec.w_shape, spec.x_shape, spec.y_shape))

    def reaches(call, array, other):
        """Where the result of a bad array is bad, and where by the definition it depends on the bad element."""
        bad, mark = array.copy(), np.zeros(array.shape)
        bad.flat[place % bad.size], mark.flat[place % bad.size] = value, 1
        with np.errstate(invalid="ignore"):  # BLAS computes more than it returns
            result = call(bad, other, strategy)
        assert np.array_equal(~np.isfinite(result), call(mark, other, "naive") > 0)

    def input_grad(dy, w, strategy):
        return ck.conv_input_grad(dy, w, x_shape=spec.x_shape, **options, strategy=strategy)

    def weight_grad(x, dy, strategy):
        return ck.conv_weight_grad(x, dy, kernel_size=spec.window.kernel_size, **options, strategy=strategy)

    reaches(lambda x, w, strategy: ck.conv(x, w, **options, strategy=strategy), x, w)
    reaches(input_grad, dy, w)
    reaches(weight_grad, x, dy)


@every_strategy
@given(spec=pool_specs(reducers=SELECTING + SUMMING + SMOOTH, dtypes=("float64",)), place=seeds)
def test_nan_reaches_exactly_the_pool_windows_that_hold_it(strategy, spec, place):
    assume(spec.batch)
    options = pool_options(spec, canonical[spec.window.rank][0])
    x, mark = integers(spec.x_shape, spec.dtype, place), np.zeros(spec.x_shape)
    x.flat[place % x.size], mark.flat[place % x.size] = nan, 1
    y = ck.pool(x, spec.window.kernel_size, spec.reducer, **options, strategy=strategy)
    assert np.array_equal(np.isnan(y), ck.pool(mark, spec.window.kernel_size, "sum", **options, strategy="naive") > 0)


def test_the_gradient_of_a_power_is_0_at_0(calls):
    for p in ("lp0.5", "lp1", "lp2", "lp3.5"):
        assert calls.pool([0.0, -2, 0, 0], (1, 2), p) == ([2, 0], [0, -1, 0, 0])
    assert calls.pool([0.0, 3, 0, 4], (1, 4), "lp2") == (5, [0, 0.6, 0, 0.8])


def test_float16_sums_in_float32(calls):
    ones = np.ones((1, 1, 60, 50), np.float16)
    assert calls.conv(ones, ones)[0] == 3000
    assert calls.pool(ones, (60, 50), "sum", dtype=np.float16)[0] == 3000
    assert calls.pool(ones, (60, 50), "mean", dtype=np.float16)[0] == 1


def test_gradients_of_complex_data_conjugate_and_the_output_does_not(calls):
    y, dx, dw, db = calls.conv([1 + 2j], [3 + 4j], [5j], dy=[1j])
    assert y == (1 + 2j) * (3 + 4j) + 5j
    assert (dx, dw, db) == (1j * (3 - 4j), 1j * (1 - 2j), [1j])
    assert calls.pool([1 + 2j, 3j], (1, 2), "mean", dy=[2j]) == (0.5 + 2.5j, [1j, 1j])


@every_strategy
@pytest.mark.parametrize(
    ("given_types", "result"),
    [
        ("bbb", "int64"),
        ("BBB", "uint64"),
        ("bBb", "int64"),
        ("hil", "int64"),
        ("eee", "float16"),
        ("eff", "float32"),
        ("eie", "float64"),
        ("ffd", "float64"),
        ("lff", "float64"),
        ("fFf", "complex64"),
        ("dFf", "complex128"),
    ],
)
def test_types_of_results(strategy, given_types, result):
    """Of x, w and b; sums of integers leave the type they came in."""
    x, w, b = (np.full(shape, 10, code) for shape, code in zip([(1, 2, 3), (1, 2, 3), 1], given_types, strict=True))
    y, vjp = ck.conv1d_vjp(x, w, b, strategy=strategy)
    assert (y.dtype, y.item()) == (result, 610)
    dx, dw, db = vjp(y)
    assert (dx.dtype, dw.dtype, db.dtype) == (result, result, result)


CONV = {"groups": 2, "stride": (1, 2), "padding": ((1, 0), (0, 1))}
POOL = {"stride": (2, 1), "padding": 1}
SHAPES = {"x": (3, 4, 6, 5), "w": (6, 2, 3, 2), "dy": (3, 6, 5, 3), "pooled": (3, 4, 4, 6)}
RUNS = {
    "conv": lambda a, **how: ck.conv2d(a["x"], a["w"], **CONV, **how),
    "conv_input_grad": lambda a, **how: ck.conv2d_input_grad(a["dy"], a["w"], x_shape=a["x"].shape, **CONV, **how),
    "conv_weight_grad": lambda a, **how: ck.conv2d_weight_grad(a["x"], a["dy"], kernel_size=(3, 2), **CONV, **how),
    "pool": lambda a, **how: ck.max_pool2d(a["x"], 2, **POOL, **how),
    "sum": lambda a, **how: ck.pool2d(a["x"], 2, "sum", **POOL, **how),
    "pool_grad": lambda a, **how: ck.max_pool2d_vjp(a["x"], 2, **POOL, **how)[1](a["pooled"]),
}
FORMS = {
    "reversed": lambda a: np.flip(np.flip(a).copy()),
    "every other": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "fortran": np.asfortranarray,
    "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "unaligned": lambda a: np.frombuffer(b"?" + a.tobytes(), a.dtype, offset=1).reshape(a.shape),
    "broadcast": lambda a: np.broadcast_to(a[..., :1], a.shape),
}


def arrays(calls):
    letters = {"w": calls.weight_layout}
    return {
        name: calls.laid(integers(shape, np.dtype(float), seed), letters.get(name))
        for seed, (name, shape) in enumerate(SHAPES.items())
    }


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", RUNS)
def test_arrays_of_any_form_give_the_same_and_are_never_written(calls, name, form):
    formed = {key: FORMS[form](array) for key, array in arrays(calls).items()}
    plain = {key: np.array(array, float, order="C") for key, array in formed.items()}
    for array in formed.values():
        array.flags.writeable = False
    how = {"layout": calls.layout.axes, "strategy": calls.strategy}
    result = RUNS[name](formed, **how)
    assert result.flags.c_contiguous
    assert_same(result, RUNS[name](plain, **how))
    assert all(np.array_equal(plain[key], formed[key]) for key in plain)


@pytest.mark.parametrize("form", ["inside", "every other", "reversed", "transposed"])
@pytest.mark.parametrize("name", [name for name in RUNS if name != "pool_grad"])
def test_out_may_be_any_view_and_nothing_around_it_is_touched(calls, name, form):
    given_arrays, how = arrays(calls), {"layout": calls.layout.axes, "strategy": calls.strategy}
    expected = RUNS[name](given_arrays, **how)
    step = 2 if form == "every other" else 1
    sizes = [step * size + 2 for size in expected.shape]
    around = np.full(sizes[::-1], nan).T if form == "transposed" else np.full(sizes, nan)
    out = around[tuple(slice(1, 1 + step * size, step) for size in expected.shape)]
    out = np.flip(out) if form == "reversed" else out
    assert RUNS[name](given_arrays, **how, out=out) is out
    assert_same(out, expected)
    assert np.isnan(around).sum() == around.size - out.size


SMALL = [
    "n3g1i5o7_in9x8_k3x3_s1x1_p1+1x1+1_d1x1",
    "n3g1i16o2_in9x8_k3x3_s1x1_p1+1x1+1_d1x1",
    "n3g2i6o8_in9x8_k3x2_s2x1_p1+0x0+2_d1x2",
    "n3g6i6o6_in9x8_k3x3_s1x1_p1+1x1+1_d1x1",
    "n3g1i24o16_in5x5_k1x1_s1x1_p0+0x0+0_d1x1",
    "pool:n3c5_in9x8_k3x3_s2x2_p1+1x1+1_d1x1_mean",
    "pool:n3c5_in9x8_k3x3_s2x2_p1+1x1+1_d1x1_lp2.5",
    "pool:n3c5_in9x8_k3x3_s1x1_p1+1x1+1_d1x1_logsumexp1",
]
LARGE = ["n4g1i33o47_in20x19_k3x3_s1x1_p1+1x1+1_d1x1", "n4g1i64o3_in20x19_k3x3_s1x1_p1+1x1+1_d1x1"]


@pytest.mark.parametrize("cap", [30_000, 2**26])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(
    ("strategy", "problem"), [*((name, text) for name in ALL for text in SMALL), *(("im2col", text) for text in LARGE)]
)
def test_a_samples_result_depends_on_nothing_else_bit_for_bit(strategy, problem, layout, cap):
    """Neither on the batch around it nor on the run."""
    _, spec = ck.parse_problem(problem)
    data, how = Layout(layout), {"strategy": strategy, "max_workspace": cap}
    x, dy = (lay(reals(shape, spec.dtype, 0), data) for shape in (spec.x_shape, spec.y_shape))

    def results(images):
        if isinstance(spec, ck.PoolSpec):
            options = {**pool_options(spec, data), **how}
            y, vjp = ck.pool2d_vjp(x[images], spec.window.kernel_size, spec.reducer, **options)
            return y, vjp(dy[images])
        weights = Layout("OIHW", "OI")
        options = {**conv_options(spec, data, weights), **how}
        y, vjp = ck.conv2d_vjp(x[images], reals(spec.w_shape, spec.dtype, 1), **options)
        return y, vjp(dy[images], wrt=("x",)).dx

    together = results(slice(None))
    for again, once in zip(results(slice(None)), together, strict=True):
        assert again.tobytes() == once.tobytes()
    for image in range(spec.batch):
        for alone, shared in zip(results(slice(image, image + 1)), together, strict=True):
            assert alone.tobytes() == shared[image].tobytes()


def among_others_and_alone(function, samples, **options):
    """The results of samples whose cells alternate in memory, and of each by itself."""
    whole = function(samples, **options)
    alone = [function(np.ascontiguousarray(samples[..., [n]]), **options) for n in range(samples.shape[-1])]
    return whole, np.concatenate(alone, axis=-1)


@pytest.mark.parametrize(("width", "mode"), [(2, "zeros"), (1, "reflect")])
def test_a_product_rounds_alike_where_blas_can_use_it_in_place_and_where_not(width, mode):
    """BLAS rounds otherwise when it reads, or writes, rows for columns."""
    generator = np.random.default_rng(0)
    options = {"layout": "WCN", "weight_layout": "OIW", "strategy": "im2col", "padding_mode": mode}
    options["padding"] = ((0, 2 - width),)
    x, dy = generator.standard_normal((width, 17, 4)), generator.standard_normal((2, 17, 4))
    assert_same(*among_others_and_alone(lambda x: ck.conv1d(x, np.ones((2, 17, 1)) / 3, **options), x))

    def input_grad(dy):
        w = np.linspace(1.0, 2.0, 34).reshape(17, 2, 1)
        return ck.conv1d_input_grad(dy, w, x_shape=(width, 2, dy.shape[-1]), **options)

    assert_same(*among_others_and_alone(input_grad, dy))


@pytest.mark.parametrize("reducer", ["sum", "mean"])
@pytest.mark.parametrize("strategy", ["im2col", "stride_tricks"])
def test_cells_are_added_in_one_order_where_samples_lie_between_them(reducer, strategy):
    """Where no sample lies between, NumPy takes the two planes of cells for one, and adds in another order."""
    x = np.random.default_rng(0).standard_normal((1, 2, 9, 2, 1), np.float32)
    options = {"layout": "CDNHW", "strategy": strategy}
    whole = ck.pool3d(x, (2, 2, 1), reducer, **options)
    for sample in range(9):
        alone = np.ascontiguousarray(x[:, :, [sample]])
        assert_same(whole[:, :, [sample]], ck.pool3d(alone, (2, 2, 1), reducer, **options))
