"""Specs and their text: what is printed parses back to an equal spec, and says what the arrays must look like."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import convkernels as ck
from convkernels.grammar import DTYPES
from convkernels.reducers import find_reducer, reducer_names
from convkernels.spec import common_dtype
from convkernels.testing.strategies import conv_specs, pool_specs

CONV_OPERATIONS = ("conv", "conv_input_grad", "conv_weight_grad")
POOL_OPERATIONS = ("pool", "pool_grad")

PROBLEMS = [
    line.partition("\t")[0]
    for line in (Path(__file__).parents[1] / "benchmarks" / "problems.txt").read_text().splitlines()
    if not line.startswith("#")
]
REDUCERS = (
    *(name for name in reducer_names() if "<" not in name),
    *("lp1", "lp2", "lp2.5", "lp0.5", "lp1e-05", "lp1e20", "logsumexp1", "logsumexp-0.5", "logsumexp2.5e-07"),
)
CONV = ck.parse_problem("n2g1i3o4_in8x7_k3x2_s2x1_p1+0x0+1_d1x2_bias_float64")[1]
POOL = ck.parse_problem("pool:n2c3_in8x7_k3x2_s2x1_p1+0x0+1_d1x2_mean_ceil_nopad_div5_float64")[1]


def prefixed(operation, spec):
    """The problem string of one of the spec's operations."""
    return f"{operation}:{str(spec).removeprefix('pool:')}"


@given(spec=conv_specs(dtypes=tuple(sorted(DTYPES))), operation=st.sampled_from(CONV_OPERATIONS))
def test_a_convolution_parses_back_to_an_equal_spec(spec, operation):
    assert ck.parse_problem(str(spec)) == ("conv", spec)
    assert ck.parse_problem(prefixed(operation, spec)) == (operation, spec)
    assert hash(ck.parse_problem(str(spec))[1]) == hash(spec)


@given(spec=pool_specs(reducers=REDUCERS), operation=st.sampled_from(POOL_OPERATIONS), data=st.data())
def test_a_pool_parses_back_to_an_equal_spec(spec, operation, data):
    taken = sorted(name for name, dtype in DTYPES.items() if dtype.kind in spec.reducer.kinds)
    spec = replace(spec, dtype=DTYPES[data.draw(st.sampled_from(taken))])
    assert ck.parse_problem(str(spec)) == ("pool", spec)
    assert ck.parse_problem(prefixed(operation, spec)) == (operation, spec)
    assert hash(ck.parse_problem(str(spec))[1]) == hash(spec)


def test_every_benchmark_problem_parses_and_prints_back():
    assert len(PROBLEMS) >= 283
    for text in PROBLEMS:
        operation, spec = ck.parse_problem(text)
        assert text == (str(spec) if operation in ("conv", "pool") else prefixed(operation, spec))


@pytest.mark.parametrize(
    "text", ["n1g1i64o64_in56x56_k3x3_s1x1_p1+1x1+1_d1x1", "conv:n1g1i64o64_in56x56_k3x3_s1x1_p1+1x1+1_d1x1"]
)
def test_a_convolution_by_its_text(text):
    operation, spec = ck.parse_problem(text)
    window = ck.Window.make((56, 56), kernel_size=3, padding="same")
    assert operation == "conv"
    assert spec == ck.ConvSpec(1, 1, 64, 64, window)
    assert (spec.x_shape, spec.w_shape, spec.y_shape) == ((1, 64, 56, 56), (64, 64, 3, 3), (1, 64, 56, 56))
    assert (spec.group_in, spec.group_out) == (64, 64)
    assert spec.flops == 2 * 64 * 56 * 56 * 64 * 9


def test_a_grouped_convolution_by_its_text():
    operation, spec = ck.parse_problem("conv_weight_grad:n8g2i4o6_in32_k5_s2_p2+-1_d3_bias_float16")
    window = ck.Window.make((32,), kernel_size=5, stride=2, padding=((2, -1),), dilation=3)
    assert operation == "conv_weight_grad"
    assert spec == ck.ConvSpec(8, 2, 4, 6, window, bias=True, dtype=np.dtype(np.float16))
    assert (spec.x_shape, spec.w_shape, spec.y_shape) == ((8, 4, 32), (6, 2, 5), (8, 6, 11))
    assert (spec.group_in, spec.group_out) == (2, 3)
    assert spec.flops == 2 * 8 * 6 * 11 * 2 * 5


def test_a_pool_by_its_text():
    operation, spec = ck.parse_problem("pool:n1c64_in56x56_k2x2_s2x2_p0+0x0+0_d1x1_max_ceil")
    window = ck.Window.make((56, 56), kernel_size=2, stride=2, ceil_mode=True)
    assert operation == "pool"
    assert spec == ck.PoolSpec(1, 64, window, ck.maximum("first"))
    assert (spec.x_shape, spec.y_shape, spec.flops) == ((1, 64, 56, 56), (1, 64, 28, 28), 64 * 28 * 28 * 4)


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ("max_ties-all", {"reducer": ck.maximum("all")}),
        ("min_ties-last", {"reducer": ck.minimum("last")}),
        ("lp2.5", {"reducer": ck.lp(2.5)}),
        ("logsumexp-0.5", {"reducer": ck.logsumexp(-0.5)}),
        ("mean_nopad", {"reducer": find_reducer("mean"), "count_include_pad": False}),
        ("sum_div7_int8", {"reducer": find_reducer("sum"), "divisor_override": 7, "dtype": np.dtype(np.int8)}),
    ],
)
def test_the_options_of_a_pool(options, fields):
    window = ck.Window.make((6,), kernel_size=2, stride=2)
    expected = replace(ck.PoolSpec(1, 3, window, ck.maximum("first")), **fields)
    assert ck.parse_problem(f"pool:n1c3_in6_k2_s2_p0+0_d1_{options}") == ("pool", expected)


@pytest.mark.parametrize(
    "named",
    [
        (ck.maximum, "max"),
        (lambda: ck.maximum(ties="first"), "max"),
        (lambda: ck.maximum(ties="split"), "max_ties-split"),
        (ck.minimum, "min"),
        (lambda: ck.minimum(ties="all"), "min_ties-all"),
        (ck.logsumexp, "logsumexp1"),
        (lambda: ck.logsumexp(t=2), "logsumexp2"),
        (lambda: ck.lp(p=np.float32(2)), "lp2"),
    ],
    ids=lambda named: named[1],
)
def test_however_a_reducer_was_made_its_spec_parses_back(named):
    make, name = named
    spec = ck.PoolSpec.make((1, 2, 6), np.dtype(np.float32), kernel_size=2, reducer=make())
    assert str(spec) == f"pool:n1c2_in6_k2_s2_p0+0_d1_{name}"
    assert ck.parse_problem(str(spec)) == ("pool", spec)


def test_a_spec_stays_equal_to_its_text_however_many_reducers_were_made_since():
    spec = ck.PoolSpec.make((1, 2, 6), np.dtype(np.float32), kernel_size=2, reducer=ck.lp(2))
    for hundredth in range(300, 400):
        ck.lp(hundredth / 100)
    assert ck.parse_problem(str(spec)) == ("pool", spec)


@pytest.mark.parametrize(
    ("spec", "changes"),
    [
        (CONV, {"batch": 3}),
        (CONV, {"groups": 3}),
        (CONV, {"in_channels": 4}),
        (CONV, {"out_channels": 5}),
        (CONV, {"bias": False}),
        (CONV, {"padding_mode": "other"}),
        (CONV, {"dtype": np.dtype(np.float32)}),
        (CONV, {"window": replace(CONV.window, dilation=(1, 1))}),
        (POOL, {"batch": 3}),
        (POOL, {"channels": 4}),
        (POOL, {"reducer": ck.lp(2)}),
        (POOL, {"count_include_pad": True}),
        (POOL, {"divisor_override": 6}),
        (POOL, {"dtype": np.dtype(np.float32)}),
        (POOL, {"window": CONV.window}),
    ],
)
def test_specs_that_differ_in_one_field_differ(spec, changes):
    changed = replace(spec, **changes)
    assert changed != spec
    assert hash(changed) != hash(spec)
    assert str(changed) != str(spec) or "padding_mode" in changes
    assert replace(changed, **{name: getattr(spec, name) for name in changes}) == spec


@pytest.mark.parametrize(
    ("operation", "dtype", "compute", "result"),
    [
        ("conv", "float16", "float32", "float16"),
        ("conv", "float32", "float32", "float32"),
        ("conv", "float64", "float64", "float64"),
        ("conv", "complex64", "complex64", "complex64"),
        ("conv", "int8", "int64", "int64"),
        ("conv", "uint16", "uint64", "uint64"),
        ("max", "int8", "int8", "int8"),
        ("min", "uint32", "uint32", "uint32"),
        ("max", "float16", "float32", "float16"),
        ("sum", "int8", "int64", "int64"),
        ("sum", "uint8", "uint64", "uint64"),
        ("sum", "complex64", "complex64", "complex64"),
        ("mean", "float16", "float32", "float16"),
        ("lp2", "float64", "float64", "float64"),
    ],
)
def test_types_that_sums_accumulate_in_and_that_come_back(operation, dtype, compute, result):
    start = CONV if operation == "conv" else replace(POOL, reducer=find_reducer(operation))
    spec = replace(start, dtype=np.dtype(dtype))
    assert (spec.compute_dtype, spec.result_dtype) == (compute, result)


@pytest.mark.parametrize(
    ("types", "common"),
    [
        (("float32", "float32"), "float32"),
        ((">f4", "<f4"), "float32"),
        ((">f8",), "float64"),
        (("float32", "float64"), "float64"),
        (("float16", "float32"), "float32"),
        (("int8", "uint8"), "int16"),
        (("int64", "float32"), "float64"),
        (("uint64", "float32"), "float64"),
        (("uint64", "uint8"), "uint64"),
        (("float64", "complex64"), "complex128"),
    ],
)
def test_mixed_types_follow_numpys_promotion_in_native_order(types, common):
    dtype = common_dtype(**{f"array{place}": np.zeros(1, of) for place, of in enumerate(types)})
    assert dtype == common
    assert dtype.isnative


@pytest.mark.parametrize("types", [("uint64", "int8"), ("int64", "uint64", "float32")])
def test_uint64_mixed_with_signed_integers_is_refused_unless_something_floats(types):
    arrays = {f"array{place}": np.zeros(1, of) for place, of in enumerate(types)}
    if "float32" in types:
        assert common_dtype(**arrays) == np.float64
    else:
        with pytest.raises(ck.DTypeError, match="uint64 mixed with signed integers has no common integer type"):
            common_dtype(**arrays)


@pytest.mark.parametrize("dtype", ["bool", "O", "U3", "S3", "M8[s]", "m8[s]", "V4"])
def test_types_without_arithmetic_of_their_own_are_refused(dtype):
    with pytest.raises(ck.DTypeError, match=r"^w has dtype .*, must be integer, floating or complex$"):
        common_dtype(x=np.zeros(1), w=np.zeros(1, dtype))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("n1g2i3o4_in8_k2_s1_p0+0_d1", ck.ShapeError),
        ("n1g0i3o4_in8_k2_s1_p0+0_d1", ck.ShapeError),
        ("n1g1i0o4_in8_k2_s1_p0+0_d1", ck.ShapeError),
        ("n1g1i3o4_in8_k9_s1_p0+0_d1", ck.ShapeError),
        ("n1g1i3o4_in8_k2_s0_p0+0_d1", ck.OptionError),
        ("n1g1i3o4_in8_k2_s1_p0+0x0+0_d1", ck.OptionError),
        ("n1g1i3o4_in8_k2_s1_p0+0_d1_bias_bias", ck.OptionError),
        ("n1g1i3o4_in8_k2_s1_p0+0_d1_max", ck.OptionError),
        ("n1g1i3o4_in8_k2_s1_p0+0_d1\n", ck.OptionError),
        ("pool:n1c3_in8_k2_s2_p0+0_d1_mean_int8", ck.DTypeError),
        ("pool:n1c3_in8_k2_s2_p2+2_d1_max", ck.ShapeError),
        ("pool:n1c3_in8_k2_s2_p0+0_d1_max_bias", ck.OptionError),
        ("pool:n1c3_in8_k2_s2_p0+0_d1_mean_div0", ck.OptionError),
        ("pool:n1g1i3o3_in8_k2_s2_p0+0_d1_max", ck.OptionError),
        ("", ck.OptionError),
    ],
)
def test_texts_that_are_no_problem_are_refused(text, error):
    with pytest.raises(error, match=r"^problem "):
        ck.parse_problem(text)
