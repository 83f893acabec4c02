"""Affine maps, activations and dropout against definitions in plain Python, and their gradients."""

# ruff: noqa: E501  # messages stand whole, each in a line that can be searched for
from __future__ import annotations

import inspect
import math
from itertools import product

import numpy as np
import pytest
from helpers import assert_refused, lay
from hypothesis import given
from hypothesis import strategies as st

import convkernels as ck
from convkernels import dense
from convkernels.layout import Layout
from convkernels.testing.numeric import assert_same, assert_within
from convkernels.testing.strategies import integers, layouts, ranks, reals, seeds

FLOATS = ("float16", "float32", "float64")
every_dtype = pytest.mark.parametrize("dtype", FLOATS)


def eps(dtype):
    return float(np.finfo(dtype).eps)


# What each activation and its slope are, for one Python float.
def relu(x):
    return max(x, 0.0), float(x > 0)


def leaky_relu(x):
    return (x, 1.0) if x > 0 else (0.01 * x, 0.01)


def sigmoid(x):
    small = math.exp(-abs(x))
    return (1 if x >= 0 else small) / (1 + small), small / (1 + small) ** 2


def tanh(x):
    return math.tanh(x), 4 * sigmoid(2 * x)[1]


def gelu(x):
    probability = math.erfc(-x / math.sqrt(2)) / 2
    return x * probability, probability + x * math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def gelu_tanh(x):
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    probability = sigmoid(2 * inner)[0]
    return x * probability, probability + x * 2 * sigmoid(2 * inner)[1] * math.sqrt(2 / math.pi) * (1 + 0.134145 * x**2)


ACTIVATIONS = {
    "relu": (relu, {}),
    "leaky_relu": (leaky_relu, {}),
    "sigmoid": (sigmoid, {}),
    "tanh": (tanh, {}),
    "gelu": (gelu, {}),
    "gelu_tanh": (gelu_tanh, {"approximate": "tanh"}),
}
every_activation = pytest.mark.parametrize("name", ACTIVATIONS)


def activation(name):
    definition, options = ACTIVATIONS[name]
    public = name.removesuffix("_tanh")
    return getattr(dense, public), getattr(dense, public + "_vjp"), definition, options


def defined(definition, x):
    """Values and slopes, number by number, in float64."""
    pairs = [definition(float(number)) for number in x.ravel()]
    return (np.array(column).reshape(x.shape) for column in zip(*pairs, strict=True))


@every_dtype
@every_activation
def test_activations_equal_their_definitions(name, dtype):
    f, f_vjp, definition, options = activation(name)
    numbers = reals((50, 40), np.dtype(dtype), 1) * np.dtype(dtype).type(4)
    numbers[0, :9] = [0, -0.0, 1, -1, 0.5, -0.5, 1e4, -1e4, 12]
    values, slopes = defined(definition, numbers)
    y, vjp = f_vjp(numbers, **options)
    assert y.dtype == dtype
    assert_same(y, f(numbers, **options))
    # A few roundings, and those of an exponential's argument: the definition's own for gelu, also the other's for tanh.
    near = np.minimum(np.abs(numbers.astype(float)), 40)
    exponent = {"gelu": near**2, "gelu_tanh": near + near**3}.get(name, 0)
    own = eps(dtype) if name == "gelu_tanh" else eps("float64")
    relative = 8 * eps(dtype) + 4 * own * exponent
    # A probability below the normal numbers has lost digits before x multiplies it.
    least = float(np.finfo(dtype).smallest_subnormal) + 64 * float(
        np.finfo(np.result_type(dtype, "float32")).smallest_subnormal
    )
    assert_within(y, values, relative * np.abs(values) + least)
    dy = reals(numbers.shape, np.dtype(dtype), 2)
    dx = vjp(dy)
    assert dx.dtype == dtype
    assert_within(dx, dy * slopes, 16 * eps(dtype) * np.abs(dy) + least)


@every_activation
def test_activations_have_their_limits_and_keep_nan(name):
    f, f_vjp, _, options = activation(name)
    x = np.array([np.nan, np.inf, -np.inf, 1e18, -1e18, 1e4, -1e4])
    nan, *limits = f(x, **options)
    assert math.isnan(nan)
    high, low = {"sigmoid": ([1, 1, 1], 0), "tanh": ([1, 1, 1], -1)}.get(name, ([np.inf, 1e18, 1e4], 0))
    assert limits[0::2] == high
    if name == "leaky_relu":
        assert limits[1::2] == [-np.inf, -1e16, -1e2]
    else:
        assert limits[1::2] == [low] * 3
    slope = f_vjp(x[1:], **options)[1](np.ones(6))
    right, left = {"sigmoid": (0, 0), "tanh": (0, 0), "leaky_relu": (1, 0.01)}.get(name, (1, 0))
    assert slope.tolist() == [right, left] * 3
    assert np.isnan(f_vjp(x, **options)[1](np.full(7, np.nan))).all()
    for dtype in ("float16", "float32"):
        with np.errstate(over="ignore"):
            assert_within(f(x.astype(dtype), **options), f(x, **options).astype(dtype), eps(dtype) * np.abs(x))


@every_activation
def test_activations_take_any_shape_strides_and_byte_order(name):
    f, f_vjp, _, options = activation(name)
    x = reals((3, 4, 5), np.dtype("float32"), 0)
    for taken in (
        x.transpose(2, 0, 1),
        x[::-1, ::2],
        x.astype(">f4"),
        np.broadcast_to(x[0], x.shape),
        x[0, 0, 0],
        x[:0],
    ):
        got, vjp = f_vjp(taken, **options)
        assert got.dtype == np.float32
        assert_same(
            got, np.array([f(number, **options) for number in np.ravel(taken)], np.float32).reshape(taken.shape)
        )
        assert_same(vjp(got), f_vjp(np.array(taken, "float32"), **options)[1](got.copy()))


@every_activation
def test_inputs_are_left_alone(name):
    _, f_vjp, _, options = activation(name)
    x, dy = reals((4, 5), np.dtype(float), 0), reals((4, 5), np.dtype(float), 1)
    before = x.copy(), dy.copy()
    y, vjp = f_vjp(x, **options)
    assert not np.shares_memory(vjp(dy), dy)
    assert not np.shares_memory(y, x)
    assert_same(x, before[0])
    assert_same(dy, before[1])


def test_relu_is_exact_and_its_gradient_at_zero_is_zero():
    x = np.array([-1.0, -0.0, 0.0, 5e-324, np.nan])
    y, vjp = dense.relu_vjp(x)
    assert y[:4].tolist() == [0, 0, 0, 5e-324]
    assert vjp(np.arange(1.0, 6.0)).tolist() == [0, 0, 0, 4, 5]


def test_gelu_equals_the_error_function():
    special = pytest.importorskip("scipy.special")
    for dtype, least in (("float32", -12), ("float64", -37)):
        x = np.linspace(least, 12, 100_001, dtype=dtype)
        wide = x.astype(float)
        # Far out on the left it is the oracle that loses digits.
        exact = wide * special.ndtr(wide)
        assert_within(dense.gelu(x), exact, (8 * eps(dtype) + 4 * eps("float64") * wide**2) * np.abs(exact))
        plain = wide * (1 + special.erf(wide / math.sqrt(2))) / 2
        assert_within(dense.gelu(x), plain, 8 * eps(dtype) * np.abs(wide))


# x * (1 + erf(x / sqrt(2))) / 2, computed with 40 digits.
GELU = {
    -35: -3.9371874726534218539e-267,
    -20: -5.5072482372124673902e-88,
    -10: -7.619853024160526066e-23,
    -5: -1.4332578593959695584e-6,
    -1: -0.15865525393145705141,
    -0.5: -0.15426876936299344818,
    0.5: 0.34573123063700655182,
    1: 0.84134474606854294859,
    2: 1.9544997361036415856,
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gelu_keeps_its_digits_far_out_on_the_left(dtype):
    known = {x: y for x, y in GELU.items() if abs(y) > np.finfo(dtype).tiny}
    exact = np.array(list(known.values()))
    assert_within(dense.gelu(np.array(list(known), dtype)), exact, 4 * eps(dtype) * np.abs(exact))


def test_the_approximation_of_gelu_has_known_values():
    got = dense.gelu(np.array([1.0, -1.0]), approximate="tanh")
    assert_within(got, np.array([0.84119199060827670478, -0.15880800939172329522]), 4 * eps(float))


@every_activation
@given(seed=seeds)
def test_activations_change_as_their_gradients_say(name, seed):
    """The directional difference, away from the kink at 0."""
    f, f_vjp, _, options = activation(name)
    x, step, dy = (reals((20,), np.dtype(float), seed + i) for i in range(3))
    x += np.copysign(0.1, x)
    h = 1e-3 / max(1.0, float(np.abs(step).max()) * 100)
    change = (f(x + h * step, **options) - f(x - h * step, **options)) / (2 * h)
    assert math.isclose(np.vdot(change, dy), np.vdot(f_vjp(x, **options)[1](dy), step), rel_tol=1e-6, abs_tol=1e-6)


def affine_by_definition(x, w, b):
    y = np.zeros((len(x), w.shape[1]))
    for n, m in product(range(len(x)), range(w.shape[1])):
        y[n, m] = sum(number * w[d, m] for d, number in enumerate(x[n].ravel())) + (0 if b is None else b[m])
    return y


samples = st.lists(st.integers(1, 3), min_size=1, max_size=4).map(tuple)


@given(
    batch=st.integers(0, 3),
    sample=samples,
    out=st.integers(1, 4),
    bias=st.booleans(),
    dtype=st.sampled_from(FLOATS),
    seed=seeds,
)
def test_affine_equals_its_definition_and_its_gradients_are_exact_adjoints(batch, sample, out, bias, dtype, seed):
    dtype = np.dtype(dtype)
    x = integers((batch, *sample), dtype, seed, most=3)
    w = integers((math.prod(sample), out), dtype, seed + 1, most=3)
    b = integers((out,), dtype, seed + 2) if bias else None
    dy = integers((batch, out), dtype, seed + 3, most=3)
    y, vjp = dense.affine_vjp(x, w, b)
    assert_same(y, affine_by_definition(x, w, b).astype(dtype))
    assert_same(dense.affine(x, w, b), y)
    dx, dw, db = vjp(dy)
    assert (dx.shape, dw.shape) == (x.shape, w.shape)
    assert dx.dtype == dw.dtype == dtype
    linear = (y.astype(float) if b is None else y.astype(float) - b).ravel()
    pairing = np.vdot(dy.astype(float), linear)
    assert np.vdot(dx.astype(float), x) == pairing
    assert np.vdot(dw.astype(float), w) == pairing
    if b is None:
        assert db is None
    else:
        assert_same(db, dy.astype(float).sum(0).astype(dtype))


def test_affine_computes_only_what_is_asked():
    x, w, b = np.ones((2, 3)), np.ones((3, 4)), np.ones(4)
    _, vjp = dense.affine_vjp(x, w, b)
    assert [gradient is None for gradient in vjp(np.ones((2, 4)), wrt=("w",))] == [True, False, True]
    assert vjp(np.ones((2, 4)), wrt=()) == (None, None, None)


def test_affine_promotes_as_numpy_does_and_sums_float16_in_float32():
    x, w = np.ones((2, 3), np.float32), np.ones((3, 4), np.float64)
    y, vjp = dense.affine_vjp(x, w, np.ones(4, np.float16))
    assert y.dtype == np.float64
    dx, dw, db = vjp(np.ones((2, 4), np.float32))
    assert (dx.dtype, dw.dtype, db.dtype) == (np.float64, np.float32, np.float32)
    small = dense.affine(np.full((1, 4096), 0.1, np.float16), np.ones((4096, 1), np.float16))
    assert small.dtype == np.float16
    assert small.item() == np.float16(4096 * np.float64(np.float16(0.1)))
    assert dense.affine(x.astype(">f4"), w.astype(">f4")).dtype == np.float32


def test_a_long_bias_gradient_does_not_drift():
    _, vjp = dense.affine_vjp(np.ones((300_000, 1), np.float32), np.ones((1, 2), np.float32), np.zeros(2, np.float32))
    db = vjp(np.full((300_000, 2), 0.1, np.float32), wrt=("b",)).db
    assert_same(db, np.full(2, 300_000 * float(np.float32(0.1))).astype(np.float32))


def test_affine_takes_the_samples_in_the_order_of_their_axes():
    x = integers((2, 3, 4), np.dtype(float), 0)
    w = integers((12, 5), np.dtype(float), 1)
    strided = x.transpose(0, 2, 1)
    assert_same(dense.affine(strided, w), affine_by_definition(np.ascontiguousarray(strided), w, None))
    dx = dense.affine_vjp(strided, w)[1](np.ones((2, 5))).dx
    assert dx.shape == strided.shape


@every_dtype
def test_dropout_is_reproducible_and_its_gradient_uses_the_same_mask(dtype):
    x = np.arange(1, 1001, dtype=dtype).reshape(10, 100)
    y = dense.dropout(x, 0.25, np.random.default_rng(7))
    again, vjp = dense.dropout_vjp(x, 0.25, np.random.default_rng(7))
    assert y.dtype == dtype
    assert_same(again, y)
    assert 0 < (y == 0).sum() < y.size
    kept = x.astype(np.result_type(dtype, np.float32)) * np.result_type(dtype, np.float32).type(1 / 0.75)
    assert_same(y, np.where(y == 0, 0, kept).astype(dtype))
    dy = np.ones_like(x)
    assert_same(vjp(dy) == 0, y == 0)
    assert_same(vjp(x), y)
    assert (dense.dropout(x, 0.25, np.random.default_rng(8)) != y).any()


@pytest.mark.parametrize("rate", [0, 0.1, 0.5, 0.9])
def test_dropout_drops_at_its_rate_and_preserves_the_mean(rate):
    y = dense.dropout(np.ones(100_000), rate, np.random.default_rng(1))
    deviation = math.sqrt(rate * (1 - rate) / y.size)
    assert abs((y == 0).mean() - rate) <= 5 * deviation
    assert abs(y.mean() - 1) <= 5 * deviation / (1 - rate)
    assert set(np.unique(y)) <= {0.0, 1 / (1 - rate)}


def test_dropout_at_rate_zero_changes_nothing():
    x = np.array([[[1.0, np.inf, np.nan]]])
    assert_same(dense.dropout(x, 0, np.random.default_rng(0)), x)
    assert_same(dense.dropout2d(x, 0, np.random.default_rng(0), layout="NCW"), x)


def test_dropout_keeps_nan_everywhere():
    assert np.isnan(dense.dropout(np.full(50, np.nan), 0.5, np.random.default_rng(0))).all()


@given(data=st.data(), rank=ranks, seed=seeds)
def test_dropout2d_drops_whole_channels_the_same_in_every_layout(data, rank, seed):
    layout = data.draw(layouts(rank))
    x = np.ones((4, 6, *range(2, 2 + rank)), np.float32)
    y, vjp = dense.dropout2d_vjp(lay(x, layout), 0.5, np.random.default_rng(seed), layout=layout.axes)
    channels = layout.view(y).reshape(4, 6, -1)
    assert (channels == channels[:, :, :1]).all()
    assert set(np.unique(channels)) <= {0.0, 2.0}
    canonical = dense.dropout2d(x, 0.5, np.random.default_rng(seed), layout=Layout("NC" + "DHW"[3 - rank :]).axes)
    assert_same(y, lay(canonical, layout))
    assert_same(vjp(lay(x, layout)), y)


def test_dropout2d_drops_each_channel_at_its_rate():
    y = dense.dropout2d(np.ones((200, 100, 1, 2)), 0.2, np.random.default_rng(0))
    assert abs((y == 0).mean() - 0.2) <= 5 * math.sqrt(0.2 * 0.8 / 20_000)
    assert 0 < (y[0] == 0).sum() < y[0].size
    assert ((y[0] == 0) != (y[1] == 0)).any()


x = np.zeros((2, 3, 4, 4))
w, b = np.zeros((48, 5)), np.zeros(5)
rng = np.random.default_rng(0)
X = "(x has shape (2, 3, 4, 4))"
# fmt: off
REFUSED = [
    (lambda: dense.affine(x, w[:40]), ck.ShapeError, f"affine: w has shape (40, 5), must have (48, M): a row for each number of a sample {X}"),
    (lambda: dense.affine(x, w[:, 0]), ck.ShapeError, f"affine: w has shape (48,), must have (48, M): a row for each number of a sample {X}"),
    (lambda: dense.affine(x, w[:, :0]), ck.ShapeError, f"affine: w has size 0 along 'M', must have at least 1 {X}"),
    (lambda: dense.affine(x[:, :0], w[:0]), ck.ShapeError, "affine: w has size 0 along 'D', must have at least 1 (x has shape (2, 0, 4, 4))"),
    (lambda: dense.affine(x[0, 0, 0], w), ck.ShapeError, "affine: x has 1 axes, must have 2 or more; arrays are batched: add an axis of one for 'N' (x has shape (4,))"),
    (lambda: dense.affine(x, w, b[:4]), ck.ShapeError, f"affine: b has shape (4,), must have (5,): one number for each column of w {X}"),
    (lambda: dense.affine(x, w, b[None]), ck.ShapeError, f"affine: b has shape (1, 5), must have (5,): one number for each column of w {X}"),
    (lambda: dense.affine(x, w.astype(int)), ck.DTypeError, f"affine: w has dtype int64, must be float16, float32 or float64 {X}"),
    (lambda: dense.affine(x, w, b.astype(complex)), ck.DTypeError, f"affine: b has dtype complex128, must be float16, float32 or float64 {X}"),
    (lambda: dense.affine_vjp(x, w, b)[1](np.zeros((2, 4))), ck.ShapeError, "affine_vjp's vjp: dy has shape (2, 4), must have (2, 5) as the output has (dy has shape (2, 4))"),
    (lambda: dense.affine_vjp(x, w, b)[1](np.zeros((2, 5)), wrt="x"), ck.OptionError, "affine_vjp's vjp: wrt='x' must be a sequence of 'x', 'w', 'b' (dy has shape (2, 5))"),
    (lambda: dense.relu(x.astype(np.int32)), ck.DTypeError, f"relu: x has dtype int32, must be float16, float32 or float64 {X}"),
    (lambda: dense.relu([1, 2]), ck.DTypeError, "relu: x has dtype int64, must be float16, float32 or float64 (x is a list)"),
    (lambda: dense.relu([[1.0], [1.0, 2.0]]), ck.ShapeError, "relu: x is no array: setting an array element with a sequence. The requested array has an inhomogeneous shape after 1 dimensions. The detected shape was (2,) + inhomogeneous part. (x is a list)"),
    (lambda: dense.sigmoid(x.astype(complex)), ck.DTypeError, f"sigmoid: x has dtype complex128, must be float16, float32 or float64 {X}"),
    (lambda: dense.tanh(x=x > 0), ck.DTypeError, f"tanh: x has dtype bool, must be float16, float32 or float64 {X}"),
    (lambda: dense.tanh(np.ma.masked_less(x, 1)), ck.DTypeError, f"tanh: x is a masked array, whose mask would be lost: fill it first {X}"),
    (lambda: dense.tanh_vjp(x)[1](x[0]), ck.ShapeError, "tanh_vjp's vjp: dy has shape (3, 4, 4), must have (2, 3, 4, 4) as the output has (dy has shape (3, 4, 4))"),
    (lambda: dense.tanh_vjp(x)[1](1), ck.DTypeError, "tanh_vjp's vjp: dy has dtype int64, must be float16, float32 or float64 (dy is a int)"),
    (lambda: dense.leaky_relu(x, "steep"), ck.OptionError, f"leaky_relu: slope='steep' must be a number {X}"),
    (lambda: dense.leaky_relu(x, slope=True), ck.OptionError, f"leaky_relu: slope=True must be a number {X}"),
    (lambda: dense.gelu(x, approximate="tan"), ck.OptionError, f"gelu: approximate='tan' must be one of 'none', 'tanh' (nearest: 'tanh') {X}"),
    (lambda: dense.gelu_vjp(x, True), ck.OptionError, f"gelu_vjp: approximate=True must be one of 'none', 'tanh' {X}"),
    (lambda: dense.dropout(x, 1.0, rng), ck.OptionError, f"dropout: rate=1.0 must be at least 0 and below 1 {X}"),
    (lambda: dense.dropout(x, -0.5, rng), ck.OptionError, f"dropout: rate=-0.5 must be at least 0 and below 1 {X}"),
    (lambda: dense.dropout(x, math.nan, rng), ck.OptionError, f"dropout: rate=nan must be at least 0 and below 1 {X}"),
    (lambda: dense.dropout(x, "half", rng), ck.OptionError, f"dropout: rate='half' must be a number {X}"),
    (lambda: dense.dropout(x, 0.5, 0), ck.OptionError, f"dropout: generator is a int, must be a numpy.random.Generator: numpy.random.default_rng(seed) makes one {X}"),
    (lambda: dense.dropout_vjp(x, 0.5, rng)[1](x[:1]), ck.ShapeError, "dropout_vjp's vjp: dy has shape (1, 3, 4, 4), must have (2, 3, 4, 4) as the output has (dy has shape (1, 3, 4, 4))"),
    (lambda: dense.dropout2d(x, 0.5, np.random), ck.OptionError, f"dropout2d: generator is a module, must be a numpy.random.Generator: numpy.random.default_rng(seed) makes one {X}"),
    (lambda: dense.dropout2d(x[0], 0.5, rng), ck.ShapeError, "dropout2d: x has 3 axes, layout 'NCHW' has 4; arrays are batched: add an axis of one for 'N' (x has shape (3, 4, 4))"),
    (lambda: dense.dropout2d(x, 0.5, rng, layout="NCXY"), ck.LayoutError, f"dropout2d: layout='NCXY' must name each axis once, in any order: a permutation of 'NCW', 'NCHW', 'NCDHW' {X}"),
]
# fmt: on


@pytest.mark.parametrize(("call", "error", "message"), REFUSED, ids=[message[:60] for *_, message in REFUSED])
def test_refuses(call, error, message):
    assert_refused(call, error, message)


def test_a_missing_argument_is_a_type_error_that_names_it():
    with pytest.raises(TypeError, match=r"^affine\(\) missing 1 required positional argument: 'w'"):
        dense.affine(x)


def test_the_functions_tell_their_names_and_parameters():
    assert dense.leaky_relu_vjp.__name__ == "leaky_relu_vjp"
    assert str(inspect.signature(dense.leaky_relu_vjp)) == "(x: 'ArrayLike', slope: 'float' = 0.01)"
    assert dense.relu_vjp.__doc__.startswith("Value and gradient of `relu`.")
    assert "<" not in dense.relu.__doc__.replace("<BLANKLINE>", "")
