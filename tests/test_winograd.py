"""Winograd's algorithm where the kit's small problems do not reach: many squares, every remainder, threads, widths."""

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
from test_direct import ORDERS, problem_of

import convkernels as ck
from convkernels.config import Resources
from convkernels.operation import OPERATIONS
from convkernels.testing.bounds import accumulated
from convkernels.testing.numeric import assert_within
from convkernels.testing.problems import INPUTS, run

if not util.find_spec("numba"):
    pytest.skip("Numba is not installed", allow_module_level=True)

from convkernels.kernels.compiled import axes, isa, thread_count, toom_cook

SQUARES = [
    "n2g1i16o33_in9x20_k3x3_s1x1_p1+1x1+1_d1x1_bias",
    "n5g1i8o64_in7x7_k3x3_s1x1_p1+1x1+1_d1x1",
    "n1g2i20o28_in11x7_k5x3_s1x1_p0+2x1+1_d1x1",
    "n1g1i4o5_in33_k3_s1_p2+1_d1_bias",
    "n3g1i24o50_in6x17_k1x5_s1x1_p0+0x0+1_d1x1_float64",
    "n1g1i7o9_in3x10x9_k1x4x4_s1x1x1_p0+0x1+2x3+3_d1x1x1",
    "n1g1i20o24_in9x11_k7x6_s1x1_p3+3x2+3_d1x1_bias",
    "n2g1i16o17_in13x40_k1x7_s1x1_p0+0x3+3_d1x1",
    "n2g2i8o20_in17x11_k3x3_s1x1_p4+3x2+0_d3x2_bias",
    "n1g1i6o10_in30_k4_s1_p9+2_d7",
    "n1g1i64o40_in70x66_k3x3_s1x1_p1+1x1+1_d1x1",
]
"""Squares cut on either side, several images in a block, one to three axes, dilations, several panels and blocks."""


def check(operation, text, order):
    """Within the bound of the direct method, over all outputs together."""
    problem = replace(problem_of(operation, text, order), data="reals")
    find = OPERATIONS[operation].find
    got, expected = (run(find(name), problem)["out"] for name in ("winograd", "im2col"))
    sizes = {role: None if array is None else np.abs(array) for role, array in problem.arrays.items()}
    most = run(find("im2col"), problem, sizes)["out"].max()
    assert_within(got, expected, accumulated(problem) * np.finfo(got.dtype).eps * float(most))


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
@pytest.mark.parametrize("text", SQUARES)
@pytest.mark.parametrize("operation", ["conv", "conv_input_grad"])
def test_many_squares(operation, text, order):
    check(operation, text, order)


@pytest.mark.parametrize("limit", [0, 2**18, 2**26])
def test_squares_in_little_memory(limit):
    problem = problem_of("conv", SQUARES[-1], ORDERS[0])
    implementation = OPERATIONS["conv"].find("winograd")
    allowed = max(limit, implementation.workspace(problem.spec, limit))
    plenty, little = (run(implementation, problem, max_workspace=most)["out"] for most in (2**28, allowed))
    assert plenty.tobytes() == little.tobytes()


@pytest.mark.parametrize("operation", ["conv", "conv_input_grad"])
@pytest.mark.parametrize("text", [SQUARES[0], SQUARES[1], SQUARES[-1]])
def test_results_do_not_depend_on_the_threads(operation, text, monkeypatch):
    monkeypatch.setattr(thread_count, "SERIAL", 0)
    monkeypatch.setattr(thread_count, "LONELY", 0)
    problem = replace(problem_of(operation, text, ORDERS[0]), data="reals")
    implementation = OPERATIONS[operation].find("winograd")
    arrays = [problem.arrays[role] for role in INPUTS[operation]]
    results = set()
    for threads in (1, 2, 3, 7):
        out = problem.outputs()["out"]
        implementation.run(problem.spec, *arrays, out=out, resources=Resources(2**26, threads))
        results.add(out.tobytes())
    assert len(results) == 1


@pytest.mark.parametrize(("taps", "places"), axes.PLACES.items())
def test_transforms_are_those_of_a_correlation(taps, places):
    found = toom_cook.transforms(places - taps + 1, taps)
    rng = np.random.default_rng(taps)
    cells, weights = rng.standard_normal(places), rng.standard_normal(taps)

    def applied(factors, values):
        for factor in factors:
            values = np.array(factor) @ values
        return values

    product = applied(found.source, cells) * applied(found.filter, weights)
    np.testing.assert_allclose(applied(found.output, product), np.correlate(cells, weights), rtol=1e-12, atol=1e-12)


def test_examples():
    assert doctest.testmod(toom_cook) == doctest.TestResults(failed=0, attempted=6)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mprotect is called as Linux has it")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nothing_outside_the_arrays_is_touched(dtype):
    """A fault ends the process, so a child makes the calls."""
    child(f"import sys; sys.path.insert(0, sys.argv[1])\nfrom test_winograd import run_flush\nrun_flush({dtype!r})\n")


def run_flush(dtype):
    """Forward and input gradient in two orders, on arrays that end or begin where memory does."""
    windows = (
        "in5x6_k3x3_s1x1_p1+1x1+1_d1x1",
        "in9x7_k5x1_s1x1_p0+0x0+0_d1x1",
        "in7x8_k3x3_s1x1_p1+2x2+2_d2x2",
        "in9x1_k7x1_s1x1_p1+0x0+0_d1x1",
    )
    operations = ("conv", "conv_input_grad")
    for columns, operation, order, window in product((4, 7, 16, 17, 33), operations, ORDERS[:2], windows):
        text = f"n1g1i{columns}o{columns}_{window}" + ("" if dtype == "float32" else f"_{dtype}")
        problem = problem_of(operation, text, order)
        expected = run(OPERATIONS[operation].find("im2col"), problem)["out"]
        for arrays, outputs in flush_arrays(problem):
            got = run(OPERATIONS[operation].find("winograd"), problem, arrays, outputs)["out"]
            np.testing.assert_array_equal(np.rint(got), expected)


@pytest.mark.parametrize("forced", ["avx2", "generic"])
def test_narrower_instruction_sets(forced):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_winograd import ORDERS, SQUARES, check\n"
        "for operation in ('conv', 'conv_input_grad'):\n"
        "    for text in (*SQUARES[:5], *SQUARES[6:10]):\n"
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
        ("n1g1i8o8_in9x9_k3x3_s2x1_p0+0x0+0_d1x1", r"takes strides of 1, not \(2, 1\)"),
        ("n1g1i8o8_in9x9_k8x3_s1x1_p0+0x0+0_d1x1", r"3 to 7 taps along the last two axes, or one, not \(8, 3\)"),
        ("n1g1i8o8_in9x9_k1x1_s1x1_p0+0x0+0_d1x1", r"3 to 7 taps along the last two axes, or one, not \(1, 1\)"),
        ("n1g1i8o8_in9x9x9_k3x3x3_s1x1x1_p0+0x0+0x0+0_d1x1x1", r"or one, not \(3, 3, 3\)"),
        (
            "n1g4i8o16_in9x9_k3x3_s1x1_p0+0x0+0_d1x1",
            "groups of 2 channels are below the 4 whose sums hide its rounding",
        ),
        ("n1g1i15o16_in9_k7_s1_p0+0_d1", "groups of 15 channels are below the 16 whose sums hide its rounding"),
    ],
)
def test_what_it_declines(text, reason):
    spec = ck.parse_problem(text)[1]
    x, w = np.zeros(spec.x_shape, np.float32), np.zeros(spec.w_shape, np.float32)
    options = {"stride": spec.window.stride, "dilation": spec.window.dilation, "groups": spec.groups}
    layout = {1: "NCW", 2: "NCHW", 3: "NCDHW"}[spec.window.rank]
    with pytest.raises(ck.UnsupportedError, match=reason):
        ck.conv(x, w, layout=layout, strategy="winograd", **options)


def test_auto_takes_it_where_it_pays_and_precision_refuses_it():
    text = "n1g1i64o64_in56x56_k3x3_s1x1_p1+1x1+1_d1x1"
    assert ck.explain(text).choices[0].chosen.name == "winograd"
    assert ck.explain(text, precision="highest").choices[0].chosen.name == "direct"
    x, w = np.ones((1, 8, 9, 9), np.float32), np.ones((8, 8, 3, 3), np.float32)
    with pytest.raises(ck.UnsupportedError, match="precision='highest' needs the claims bounded"):
        ck.conv2d(x, w, strategy="winograd", precision="highest")
