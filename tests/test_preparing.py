"""A plan returns what the function does, for data of one kind, and keeps what it was given otherwise."""

from __future__ import annotations

import gc
import re
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import convkernels as ck
from convkernels.kernels.compiled import available
from convkernels.testing.strategies import integers

SINGLE = np.dtype(np.float32)
compiled = pytest.mark.skipif(available.missing() is not None, reason="Numba is not installed")


def drawn(shape, seed=0, dtype=SINGLE):
    return integers(shape, dtype, seed)


x, w, b = drawn((2, 8, 9, 9)), drawn((4, 8, 3, 3), 1), drawn((4,), 2)
dy, each = drawn((2, 4, 7, 7), 3), drawn((8, 1, 3, 3), 4)
last, w_last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)), np.ascontiguousarray(w.transpose(2, 3, 1, 0))
gamma, beta, mean, var = (drawn((8,), seed) + 9 for seed in (5, 6, 7, 8))

CALLS = {
    "conv": ("conv2d", (x, w, b), {"padding": 1}),
    "channels last": ("conv2d", (last, w_last), {"stride": 2, "layout": "NHWC"}),
    "groups": ("conv2d", (x, drawn((6, 4, 3, 3)), drawn((6,))), {"groups": 2}),
    "one thread": ("conv2d", (x, w, b), {"threads": 1}),
    "strided view": ("conv2d", (x[:, :, ::-1, 1:], w[..., ::-1]), {}),
    "weights by name": ("conv2d", (x,), {"w": w, "b": b}),
    "mode": ("conv2d", (x, w, b), {"padding": 2, "padding_mode": "reflect"}),
    "integers": ("conv2d", (x.astype(int), w.astype(int), b.astype(int)), {}),
    "mixed": ("conv2d", (x, w.astype(float), b), {}),
    "depthwise": ("depthwise_conv2d", (x, each), {"padding": 1}),
    "input gradient": ("conv2d_input_grad", (dy, w), {"x_shape": x.shape}),
    "input gradient of a stride": ("conv2d_input_grad", (drawn((2, 4, 4, 4)), w), {"x_shape": x.shape, "stride": 2}),
    "weight gradient": ("conv2d_weight_grad", (x, dy), {"kernel_size": 3}),
    "transposed": ("conv_transpose2d", (dy, w), {"stride": 2}),
    "transposed, bias": ("conv_transpose2d", (dy, w, drawn((8,))), {"stride": 2, "output_padding": 1}),
    "max pool": ("max_pool2d", (x, 2), {}),
    "max pool, indices": ("max_pool2d_with_indices", (x, 3), {"padding": 1}),
    "any pool": ("pool2d", (x, 2, "lp3"), {}),
    "global pool": ("global_pool2d", (x, "mean"), {}),
    "batch norm": ("batch_norm", (x, gamma, beta, mean, var), {}),
    "batch norm in training": ("batch_norm_train", (x, gamma, beta), {}),
    "group norm": ("group_norm", (x, None, beta, 4), {}),
    "layer norm": ("layer_norm", (last, gamma, None), {"layout": "NHWC"}),
}


def same(got, expected):
    listed = [found if isinstance(found, tuple) else (found,) for found in (got, expected)]
    for one, other in zip(*listed, strict=True):
        np.testing.assert_array_equal(one, other, strict=True)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_it_returns_what_the_function_does(call):
    name, args, options = call
    plan = ck.plan(name, *args, **options)
    data = 2 if name == "conv2d_weight_grad" else 1
    for factor in (1, 3):
        others = [factor * array for array in args[:data]]
        # Multiples lie end on end, in the same order; views are copied into the strides they had.
        given = [laid_like(*pair) for pair in zip(others, args, strict=False)]
        same(plan(*given), getattr(ck, name)(*given, *args[data:], **options))


def laid_like(array, like):
    """A copy whose strides are those of another array, which may be a view."""
    base = np.zeros(like.base.shape if like.base is not None else like.shape, like.dtype)
    if like.base is None or base.strides != like.base.strides:
        return array
    offset = like.__array_interface__["data"][0] - like.base.__array_interface__["data"][0]
    view = np.ndarray(like.shape, like.dtype, base, offset, like.strides)
    view[...] = array
    return view


@compiled
@pytest.mark.parametrize("size", [12, 70])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "CHWN"])
@pytest.mark.parametrize(("strategy", "groups"), [("direct", 1), ("direct", 2), ("winograd", 1), ("depthwise", 16)])
@pytest.mark.parametrize("name", ["conv2d", "conv2d_input_grad", "conv_transpose2d"])
def test_compiled_plans_have_rearranged_the_weights(name, strategy, groups, layout, size, monkeypatch):
    shape = [{"N": 2, "C": 16}.get(axis, size) for axis in layout]
    leading = "IOHW" if name == "conv_transpose2d" else "OIHW"
    data, weights = drawn(shape), drawn((16, 16 // groups, 3, 3), 1)
    bias = () if name == "conv2d_input_grad" else (drawn((16,), 2),)
    options = {"padding": 1, "groups": groups, "layout": layout, "weight_layout": leading, "strategy": strategy}
    options |= {"x_shape": tuple(shape)} if name == "conv2d_input_grad" else {}
    plan = ck.plan(name, data, weights, *bias, **options)
    other = drawn(shape, 7)
    expected = getattr(ck, name)(other, weights, *bias, **options | {"strategy": "im2col"})
    if (name, strategy) != ("conv_transpose2d", "depthwise"):
        for module in ("correlation.Plan", "winograd.WinogradPlan", "depthwise.DepthwisePlan"):
            monkeypatch.setattr(f"convkernels.kernels.compiled.{module}.rearrange", None)
    assert np.array_equal(np.rint(plan(other)), expected)


def test_weights_stay_what_they_were():
    weights, bias = w.copy(), b.copy()
    plan = ck.plan("conv2d", x, weights, bias)
    expected = ck.conv2d(x, w, b)
    weights[...], bias[...] = 7, 8
    assert np.array_equal(plan(x), expected)


def test_settings_are_those_it_was_made_in():
    with ck.config_context(precision="highest"):
        plan = ck.plan("conv2d", *(drawn(shape) for shape in ((1, 64, 56, 56), (64, 64, 3, 3))), padding=1)
    assert plan.choice.chosen.name == ck.explain(str(plan.choice.spec), precision="highest").choices[0].chosen.name
    assert plan.workspace_bytes == plan.choice.workspace_bytes > 0
    assert str(plan).startswith("conv2d: conv:n1g1i64o64")


@pytest.mark.parametrize("dtype", ["float16", "float32", "int64"])
def test_settings_are_those_it_was_made_in_whatever_the_type(dtype):
    data, weights = drawn((1, 16, 40, 40), dtype=np.dtype(dtype)), drawn((16, 16, 3, 3), dtype=np.dtype(dtype))
    with ck.config_context(precision="highest"):
        plan = ck.plan("conv2d", data, weights)
        expected = ck.conv2d(data, weights)
    with ck.config_context(max_workspace=1):
        assert np.array_equal(plan(data), expected)


def test_it_keeps_no_data():
    data = x.copy()
    plan = ck.plan("conv2d", data, w)
    gone = weakref.ref(data)
    del data
    gc.collect()
    assert gone() is None
    assert plan(x).shape == (2, 4, 7, 7)


@pytest.mark.filterwarnings("ignore:Setting the shape:DeprecationWarning")  # as NumPy 2.5 does
def test_an_array_that_was_given_another_shape_is_refused():
    data = x.copy()
    plan = ck.plan("conv2d", data, w)
    data.shape = (2, 8, 81, 1)
    with pytest.raises(ck.ShapeError, match=r"x has shape \(2, 8, 81, 1\), was planned for \(2, 8, 9, 9\)"):
        plan(data)
    assert plan(x).shape == (2, 4, 7, 7)


def test_results_are_new_arrays():
    plan = ck.plan("conv2d", x, w)
    first = plan(x)
    assert not np.shares_memory(first, plan(x))


def test_threads_may_share_it():
    data = [drawn((1, 16, 40, 40), seed) for seed in range(8)]
    weights = drawn((16, 16, 3, 3))
    plan = ck.plan("conv2d", data[0], weights)
    with ThreadPoolExecutor(4) as pool:
        for one, got in zip(data * 4, pool.map(plan, data * 4), strict=True):
            np.testing.assert_allclose(got, ck.conv2d(one, weights), atol=1e-3)


def test_strides_of_axes_of_one_cell_are_of_no_account():
    plan = ck.plan("conv2d", x[:1].copy(), w)
    assert np.array_equal(plan(x[1:]), ck.conv2d(x[1:], w))
    assert np.array_equal(plan(x[1][None]), ck.conv2d(x[1:], w))


def test_an_empty_batch_has_a_plan():
    assert ck.plan("conv2d", x[:0], w)(x[:0]).shape == (0, 4, 7, 7)


def unaligned():
    memory = np.zeros(x.nbytes + 1, np.uint8)
    return memory[1:].view(SINGLE).reshape(x.shape)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ((x[:1],), ck.ShapeError, "x has shape (1, 8, 9, 9), was planned for (2, 8, 9, 9)"),
        ((x[..., ::-1],), ck.LayoutError, "x has strides (2592, 324, 36, -4), was planned for (2592"),
        ((x.astype(np.int32),), ck.DTypeError, "x has dtype int32, was planned for float32"),
        ((unaligned(),), ck.LayoutError, "x is not aligned in memory"),
        (([[1, 2], [3]],), ck.ShapeError, "x is no array"),
    ],
    ids=["shape", "strides", "dtype", "unaligned", "ragged"],
)
def test_data_of_another_kind_are_refused(given, error, message):
    plan = ck.plan("conv2d", x, w)
    with pytest.raises(error, match=re.escape(f"the plan of conv2d: {message}")):
        plan(*given)


@pytest.mark.parametrize("count", [0, 2])
def test_too_many_and_too_few_data_are_refused(count):
    plan = ck.plan("conv2d", x, w)
    with pytest.raises(TypeError, match=rf"the plan of conv2d takes x, and was given {count} arrays"):
        plan(*[x] * count)


@pytest.mark.parametrize(
    ("call", "args", "options", "error", "message"),
    [
        ("conv2", (x, w), {}, ck.OptionError, "plan: 'conv2' is not one of"),
        ("conv2d_vjp", (x, w), {}, ck.OptionError, "plan: 'conv2d_vjp' is not one of"),
        ("separable_conv2d", (x, each, w), {}, ck.OptionError, "plan: 'separable_conv2d' is not one of"),
        ("conv2d", (x, w), {"out": np.empty((2, 4, 7, 7), SINGLE)}, ck.OptionError, "plan: out cannot be planned"),
        ("conv2d", (x, w), {"groups": 3}, ck.ShapeError, "conv2d: "),
        ("conv2d", (unaligned(), w), {}, ck.LayoutError, "x is not aligned in memory: copy it"),
        ("conv2d", (x, w), {"strategy": "fastest"}, ck.UnknownStrategyError, "conv2d: strategy='fastest'"),
    ],
)
def test_what_has_no_plan_is_refused(call, args, options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        ck.plan(call, *args, **options)


def test_missing_and_unknown_arguments_are_complained_of():
    with pytest.raises(TypeError, match=r"conv2d\(\): missing a required argument: 'w'"):
        ck.plan("conv2d", x)
    with pytest.raises(TypeError, match=r"conv2d\(\): got an unexpected keyword argument 'strid'"):
        ck.plan("conv2d", x, w, strid=2)
