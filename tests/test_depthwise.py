"""Stencils where the kit's small problems do not reach: many channels, every tail, strides, tall windows, threads."""

from __future__ import annotations

import doctest
import os
import sys
from dataclasses import replace
from importlib import util
from itertools import product

import numpy as np
import pytest
from guard import child, flush_arrays
from hypothesis import given
from hypothesis import strategies as st
from test_direct import ORDERS, problem_of

import convkernels as ck
from convkernels.config import Resources
from convkernels.operation import OPERATIONS
from convkernels.testing.numeric import assert_same
from convkernels.testing.problems import INPUTS, Problem, run

if not util.find_spec("numba"):
    pytest.skip("Numba is not installed", allow_module_level=True)

from convkernels.kernels.compiled import isa, reach, thread_count

APART = [
    "n2g16i16o16_in9x20_k3x3_s1x1_p1+1x1+1_d1x1_bias",
    "n1g40i40o40_in6x17_k3x2_s2x1_p1+0x0+1_d1x2",
    "n2g17i17o17_in7x7_k5x5_s2x2_p2+2x2+2_d1x1",
    "n1g33i33o33_in30x61_k3x3_s1x1_p1+1x1+1_d1x1_float64",
    "n3g5i5o15_in8x37_k3x3_s1x2_p1+1x1+1_d2x1_bias",
    "n2g6i6o6_in40_k9_s3_p4+4_d2_bias",
    "n1g1i1o3_in9x19_k3x4_s1x1_p0+0x3+3_d1x1_bias",
    "n1g18i18o18_in4x6x15_k3x3x3_s1x2x1_p1+1x1+1x1+1_d1x1x1",
    "n1g3i3o6_in4x17x19_k2x7x7_s2x6x3_p0+0x3+3x5+6_d2x1x1_bias",
    "n1g20i20o20_in14x17_k13x11_s1x1_p6+5x3+3_d1x1_bias",
    "n1g9i9o9_in20x40_k7x7_s1x1_p3+3x3+3_d1x1",
    "n2g4i4o4_in3x150_k1x3_s1x1_p0+0x16+16_d1x16",
]
"""Vectors and tiles that are cut anywhere, several outputs of a channel, one axis, three, cells that no tap reaches."""

OPERATION = ["conv", "conv_input_grad", "conv_weight_grad"]


def check(operation, text, order):
    problem = problem_of(operation, text, order)
    got, expected = (run(OPERATIONS[operation].find(name), problem)["out"] for name in ("depthwise", "im2col"))
    assert_same(got, expected)


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
@pytest.mark.parametrize("text", APART)
@pytest.mark.parametrize("operation", OPERATION)
def test_many_channels(operation, text, order):
    check(operation, text, order)


@given(
    channels=st.integers(1, 35),
    rows=st.integers(1, 20),
    columns=st.integers(1, 70),
    taps=st.tuples(*[st.integers(1, 7)] * 2),
    stride=st.tuples(*[st.integers(1, 4)] * 2),
    order=st.sampled_from(ORDERS),
    operation=st.sampled_from(OPERATION),
)
def test_every_tail(channels, rows, columns, taps, stride, order, operation):
    lo, hi = (-(-taps[0] // 2), taps[1] - 1)
    sizes = f"in{rows + taps[0]}x{columns}_k{taps[0]}x{taps[1]}_s{stride[0]}x{stride[1]}_p{lo}+0x{hi}+{hi}_d1x1"
    check(operation, f"n1g{channels}i{channels}o{channels}_{sizes}", order)


@pytest.mark.parametrize("order", ORDERS[:3], ids="-".join)
def test_transposed(order):
    data, weights = order
    rng = np.random.default_rng(0)
    x, w, b = (rng.integers(-5, 6, shape).astype(np.float32) for shape in ((2, 6, 7, 9), (6, 1, 3, 4), (6,)))
    place = ["NCHW".index(axis) for axis in data]
    leading = weights.replace("O", "o").replace("I", "O").replace("o", "I")
    arrays = (
        np.ascontiguousarray(x.transpose(place)),
        np.ascontiguousarray(w.transpose(["IOHW".index(axis) for axis in leading])),
    )
    options = {"stride": (2, 3), "padding": 1, "groups": 6, "layout": data, "weight_layout": leading}
    got, expected = (ck.conv_transpose2d(*arrays, b, strategy=name, **options) for name in ("depthwise", "im2col"))
    assert_same(got, expected)


@pytest.mark.parametrize("order", ORDERS[:3], ids="-".join)
@pytest.mark.parametrize("operation", OPERATION)
@pytest.mark.parametrize("text", [APART[0], APART[4], APART[7]])
def test_results_do_not_depend_on_the_threads(operation, text, order, monkeypatch):
    monkeypatch.setattr(thread_count, "SERIAL", 0)
    monkeypatch.setattr(thread_count, "LONELY", 0)
    problem = replace(problem_of(operation, text, order), data="reals")
    implementation = OPERATIONS[operation].find("depthwise")
    arrays = [problem.arrays[role] for role in INPUTS[operation]]
    results = set()
    for threads in (1, 2, 3, 7):
        out = problem.outputs()["out"]
        implementation.run(problem.spec, *arrays, out=out, resources=Resources(2**26, threads))
        results.add(out.tobytes())
    assert len(results) == 1


@pytest.mark.parametrize("limit", [0, 2**14, 2**16])
@pytest.mark.parametrize("operation", OPERATION)
def test_few_channels_are_copied_at_a_time_in_little_memory(operation, limit):
    problem = problem_of(operation, APART[0], ORDERS[2])
    implementation = OPERATIONS[operation].find("depthwise")
    allowed = max(limit, implementation.workspace(problem.spec, limit))
    got = run(implementation, problem, max_workspace=allowed)["out"]
    assert_same(got, run(OPERATIONS[operation].find("im2col"), problem)["out"])


@given(
    outputs=st.integers(1, 40),
    taps=st.integers(1, 5),
    stride=st.integers(1, 4),
    dilation=st.integers(1, 3),
    lo=st.integers(0, 6),
)
def test_an_input_gradient_reaches_what_the_convolution_does_the_other_way_round(outputs, taps, stride, dilation, lo):
    cells = max(1, (outputs - 1) * stride + dilation * (taps - 1) + 1 - lo)
    offsets = tuple(tap * dilation - lo for tap in range(taps))
    forward = reach.Reach(outputs, cells, stride, 1, offsets)
    backward = reach.Reach(cells, outputs, 1, stride, tuple(-offset for offset in offsets))
    there = {(output, tap, cell) for output in range(outputs) for tap, cell in forward.existing(output)}
    back = {(output, tap, cell) for cell in range(cells) for tap, output in backward.existing(cell)}
    assert there == back


def test_a_single_column_is_read_again_by_tiles_further_on():
    dy, w = np.ones((1, 1, 2)), np.ones((4, 1, 2))
    options = {"x_shape": (1, 35, 1), "layout": "NWC", "weight_layout": "WIO", "dilation": 12, "padding": ((2, 0),)}
    results = [ck.conv1d_input_grad(dy, w, strategy=strategy, **options) for strategy in ("depthwise", "naive")]
    assert_same(*results)


def test_examples():
    assert doctest.testmod(reach) == doctest.TestResults(failed=0, attempted=1)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mprotect is called as Linux has it")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nothing_outside_the_arrays_is_touched(dtype):
    """A fault ends the process, so a child makes the calls."""
    child(f"import sys; sys.path.insert(0, sys.argv[1])\nfrom test_depthwise import run_flush\nrun_flush({dtype!r})\n")


def run_flush(dtype):
    """Every operation, in two orders, on arrays that end or begin where memory does."""
    windows = (
        "in5x6_k3x3_s1x1_p1+1x1+1_d1x1",
        "in9x35_k3x3_s2x2_p1+1x1+1_d1x1",
        "in7x40_k2x5_s1x3_p0+0x0+0_d1x1",
    )
    for channels, operation, order, window in product((1, 7, 17), OPERATION, ORDERS[:2], windows):
        text = f"n1g{channels}i{channels}o{channels}_{window}" + ("" if dtype == "float32" else f"_{dtype}")
        problem = problem_of(operation, text, order)
        expected = run(OPERATIONS[operation].find("im2col"), problem)["out"]
        for arrays, outputs in flush_arrays(problem):
            assert_same(run(OPERATIONS[operation].find("depthwise"), problem, arrays, outputs)["out"], expected)


@pytest.mark.parametrize("forced", ["avx2", "generic"])
def test_narrower_instruction_sets(forced):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_depthwise import APART, OPERATION, ORDERS, check\n"
        "for operation in OPERATION:\n"
        "    for text in APART[:7]:\n"
        "        for order in ORDERS[:2]: check(operation, text, order)\n"
    )
    try:
        isa.find(forced)
    except ck.OptionError as error:
        pytest.skip(str(error))
    child(code, {**os.environ, "CONVKERNELS_ISA": forced})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("n1g4i8o8_in9x9_k3x3_s1x1_p0+0x0+0_d1x1", "takes groups of one input channel, not 2"),
        ("n1g2i2o2_in99_k65_s1_p0+0_d1", "takes up to 64 taps along the last axis, not 65"),
        ("n1g2i2o2_in9_k3_s1_p0+0_d1_int64", "computes float32 and float64, not int64"),
    ],
)
def test_what_it_declines(text, reason):
    problem = Problem.read(text)
    spec, arrays = problem.spec, problem.arrays
    with pytest.raises(ck.UnsupportedError, match=reason):
        ck.conv(arrays["x"], arrays["w"], groups=spec.groups, layout=problem.layout.axes, strategy="depthwise")


def test_auto_takes_it():
    text = "n1g32i32o32_in56x56_k3x3_s1x1_p1+1x1+1_d1x1"
    assert ck.explain(text).choices[0].chosen.name == "depthwise"
    assert ck.explain(text, precision="highest").choices[0].chosen.name == "depthwise"
