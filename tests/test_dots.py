"""Windows that take in a whole picture, as products of vectors that lie from end to end."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from importlib import util
from itertools import product

import numpy as np
import pytest
from guard import child, flush_arrays
from test_direct import problem_of

import convkernels as ck
from convkernels.config import Resources
from convkernels.layout import Layout
from convkernels.operation import OPERATIONS
from convkernels.testing.numeric import assert_same
from convkernels.testing.problems import INPUTS, run

if not util.find_spec("numba"):
    pytest.skip("Numba is not installed", allow_module_level=True)

from convkernels.kernels.compiled import direct, isa, thread_count
from convkernels.kernels.compiled.dots import Dots

FIRST, LAST, INNER, FILTERS = ("NCHW", "OIHW"), ("NHWC", "OHWI"), ("CHWN", "OIHW"), ("NHWC", "HWIO")
DOTS = [
    *(f"n{batch}g1i100o{filters}_in1x1_k1x1_s1x1_p0+0x0+0_d1x1" for batch in (1, 2, 3, 7) for filters in (1, 8, 13)),
    "n5g3i192o33_in1x1_k1x1_s1x1_p0+0x0+0_d1x1_bias",
    "n1g1i33o9_in2x3_k2x3_s1x1_p0+0x0+0_d1x1_bias_float64",
    "n2g1i33o9_in4x4_k2x4_s3x1_p-1+0x0+0_d1x1_bias",
    "n2g1i24o30_in5_k3_s1_p0+0_d2",
    "n1g2i48o20_in3x2x2_k3x2x2_s1x1x1_p0+0x0+0x0+0_d1x1x1",
    "n2g3i210o3_in1x1_k1x1_s1x1_p0+0x0+0_d1x1_bias",
]
"""Blocks of every size, groups, windows that leave some cells out, dilation, one axis and three."""


def plan_of(problem):
    """The plan of a convolution."""
    strides = (problem.arrays[role].strides for role in INPUTS["conv"][:2])
    return direct.conv_plan(problem.spec, *strides, problem.outputs()["out"].strides, 2**26, 1)


@pytest.mark.parametrize("order", [FIRST, LAST, INNER, FILTERS], ids="-".join)
@pytest.mark.parametrize("text", DOTS)
def test_a_window_that_takes_in_a_picture(text, order):
    problem = problem_of("conv", text, order)
    got, expected = (run(OPERATIONS["conv"].find(name), problem)["out"] for name in ("direct", "naive"))
    assert_same(got, expected)


def test_what_lies_from_end_to_end_is_not_copied():
    for text, order in product(DOTS, (FIRST, LAST, INNER)):
        assert isinstance(plan_of(problem_of("conv", text, order)), Dots)
    for text in DOTS[:-6]:
        assert isinstance(plan_of(problem_of("conv", text, FILTERS)), Dots) == (isa.host().registers == 32)
    for text, order in (
        ("n2g1i100o17_in1x1_k1x1_s1x1_p0+0x0+0_d1x1", FILTERS),
        ("n2g2i200o16_in1x1_k1x1_s1x1_p0+0x0+0_d1x1", FILTERS),
        ("n2g1i40o8_in1x2_k1x2_s1x1_p0+0x1+0_d1x1", FIRST),
        ("n1g1i40o8_in1x1_k1x1_s1x1_p0+0x0+0_d1x1", FIRST),
        ("n0g1i100o8_in1x1_k1x1_s1x1_p0+0x0+0_d1x1", FIRST),
    ):
        assert not isinstance(plan_of(problem_of("conv", text, order)), Dots)


@pytest.mark.parametrize(("weights", "shape"), [("OIHW", (900, 300, 2, 1)), ("HWIO", (2, 1, 300, 7))])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "CHWN", "CNHW"])
def test_neither_batch_nor_threads_decide_the_bits(layout, weights, shape, monkeypatch):
    monkeypatch.setattr(thread_count, "SERIAL", 0)
    monkeypatch.setattr(thread_count, "LONELY", 0)
    rng = np.random.default_rng(0)
    x = np.ascontiguousarray(Layout(layout).restore(rng.standard_normal((11, 300, 2, 1), np.float32)))
    w = np.ascontiguousarray(rng.standard_normal(shape, np.float32))
    options = {"layout": layout, "weight_layout": weights, "strategy": "direct"}
    y = ck.conv2d(x, w, threads=1, **options)
    np.testing.assert_array_equal(ck.conv2d(x, w, threads=3, **options), y)
    for n in (0, 10):
        one = tuple(slice(n, n + 1) if axis == "N" else slice(None) for axis in layout)
        np.testing.assert_array_equal(ck.conv2d(x[one].copy(), w, **options), y[one])


def test_arrays_may_be_broadcast_and_results_go_to_any_view():
    rng = np.random.default_rng(0)
    x = np.broadcast_to(rng.integers(-4, 5, (1, 100, 1, 1)).astype(np.float32), (3, 100, 1, 1))
    w = np.broadcast_to(rng.integers(-4, 5, (1, 100, 1, 1)).astype(np.float32), (9, 100, 1, 1))
    out = np.zeros((3, 2, 18, 1, 1), np.float32)[:, 1, ::-2]
    assert ck.conv2d(x, w, strategy="direct", out=out) is out
    assert_same(out, ck.conv2d(x, w, strategy="naive"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mprotect is called as Linux has it")
@pytest.mark.parametrize("forced", ["", "avx2", "generic"])
def test_nothing_outside_the_arrays_is_touched(forced):
    """A fault ends the process, so a child makes the calls; by narrower vectors, too."""
    try:
        isa.find(forced)
    except ck.OptionError as error:
        pytest.skip(str(error))
    code = "import sys; sys.path.insert(0, sys.argv[1])\nfrom test_dots import run_flush\nrun_flush()\n"
    child(code, {**os.environ, "CONVKERNELS_ISA": forced})


def run_flush():
    """Every rest of a vector, on arrays that end or begin where memory does."""
    texts = [f"n3g1i{64 + rest}o9_in1x1_k1x1_s1x1_p0+0x0+0_d1x1" for rest in range(16)]
    for text, order in product([*DOTS, *texts, *(f"{text}_float64" for text in texts)], (FIRST, LAST, INNER, FILTERS)):
        problem = problem_of("conv", text, order)
        expected = run(OPERATIONS["conv"].find("naive"), problem)["out"]
        for arrays, outputs in flush_arrays(problem):
            assert_same(run(OPERATIONS["conv"].find("direct"), problem, arrays, outputs)["out"], expected)


def test_a_plan_keeps_the_weights_where_they_are():
    problem = replace(problem_of("conv", DOTS[5], FIRST), data="reals")
    arrays = [problem.arrays.get(role) for role in INPUTS["conv"]]
    out, again = (problem.outputs()["out"] for _ in range(2))
    implementation = OPERATIONS["conv"].find("direct")
    implementation.run(problem.spec, *arrays, out=out, resources=Resources(2**26, 1))
    implementation.keep(problem.spec, *arrays, out=again, resources=Resources(2**26, 1))(*arrays, again)
    np.testing.assert_array_equal(out, again)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("part", [np.s_[..., :3], np.s_[::-1], np.s_[:, :, :, ::2], np.s_[::2, ..., ::-1]])
@pytest.mark.parametrize("layout", ["OIHW", "HWIO", "IHWO"])
def test_a_plan_of_weights_with_gaps_has_the_bits_of_a_call(layout, part, dtype):
    rng = np.random.default_rng(0)
    w = rng.standard_normal({"OIHW": (7, 130, 2, 6), "HWIO": (2, 6, 130, 7), "IHWO": (130, 2, 6, 7)}[layout]).astype(
        dtype
    )
    w = w[part]
    sizes = dict(zip(layout, w.shape, strict=True))
    x = rng.standard_normal((3, sizes["I"], sizes["H"], sizes["W"])).astype(dtype)
    options = {"weight_layout": layout, "strategy": "direct"}
    y = ck.conv2d(x, w, **options)
    np.testing.assert_array_equal(ck.plan("conv2d", x, w, **options)(x), y)
    np.testing.assert_allclose(y, ck.conv2d(x, w, weight_layout=layout, strategy="im2col"), rtol=1e-3, atol=1e-3)
