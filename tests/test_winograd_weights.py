"""Weight gradients by squares where the kit's small problems do not reach: many squares, blocks, stripes, threads."""

from __future__ import annotations

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

from convkernels.kernels.compiled import isa, thread_count, toom_cook, winograd_weights

WEIGHT_GRAD = OPERATIONS["conv_weight_grad"]
SQUARES = [
    "n2g1i16o33_in9x20_k3x3_s1x1_p1+1x1+1_d1x1",
    "n5g1i8o64_in7x7_k3x3_s1x1_p1+1x1+1_d1x1",
    "n1g2i20o28_in11x7_k5x3_s1x1_p0+2x1+1_d1x1",
    "n1g3i3o6_in70_k3_s1_p2+1_d1",
    "n3g1i24o50_in6x17_k1x5_s1x1_p0+0x0+1_d1x1_float64",
    "n1g1i7o9_in3x10x9_k1x4x4_s1x1x1_p0+0x1+2x3+3_d1x1x1",
    "n2g1i65o100_in9x8_k3x3_s1x1_p1+1x-1+-1_d1x1",
    "n2g1i9o17_in4x7x9_k3x3x3_s1x1x1_p1+1x1+1x1+0_d1x1x1",
    "n1g2i6o10_in11x6x7_k2x3x4_s2x1x1_p0+1x2+1x0+0_d3x1x1",
    "n2g2i50o70_in60x46_k3x1_s1x1_p1+1x0+0_d1x1_float64",
]
"""Squares that are cut on either side, several images in a piece, one axis, three axes, input that is cropped, several
stripes and panels of which the last are smaller, several blocks."""
SEVERAL_BLOCKS = SQUARES[-1]


def reals(text, order):
    """A problem of real numbers."""
    return replace(problem_of("conv_weight_grad", text, order), data="reals")


def check(text, order, **choices):
    """Within the bound of the direct method, over all weights together."""
    problem = reals(text, order)
    got = run(WEIGHT_GRAD.find("winograd"), problem, **choices)["out"]
    sizes = {role: np.abs(array) for role, array in problem.arrays.items()}
    expected, most = (run(WEIGHT_GRAD.find("im2col"), problem, arrays)["out"] for arrays in (None, sizes))
    assert_within(got, expected, accumulated(problem) * np.finfo(got.dtype).eps * float(most.max()))


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
@pytest.mark.parametrize("text", SQUARES)
def test_many_squares(text, order):
    check(text, order)


def blocks_of(text, limit):
    """How many blocks the squares of a problem of one or two axes make."""
    problem = problem_of("conv_weight_grad", text, ORDERS[0])
    strides = [problem.arrays[role].strides for role in ("x", "dy")]
    out = problem.outputs()["out"].strides
    [(plan, _)] = winograd_weights.squares_plan(problem.spec, *strides, out, limit, 1)
    return len(plan.blocks)


def test_squares_make_blocks():
    assert blocks_of(SQUARES[0], 2**26) == 1
    assert blocks_of(SEVERAL_BLOCKS, 2**26) > 1


@pytest.mark.parametrize("limit", [0, 2**18, 2**20, 2**22])
@pytest.mark.parametrize("text", [SQUARES[0], SQUARES[3], SEVERAL_BLOCKS])
def test_squares_in_little_memory(text, limit):
    spec = problem_of("conv_weight_grad", text, ORDERS[0]).spec
    allowed = max(limit, WEIGHT_GRAD.find("winograd").workspace(spec, limit))
    check(text, ORDERS[0], max_workspace=allowed)
    assert blocks_of(text, allowed) >= blocks_of(text, 2**26)


@pytest.mark.parametrize("text", [SQUARES[0], SQUARES[2], SQUARES[6], SQUARES[7], SEVERAL_BLOCKS])
def test_results_do_not_depend_on_the_threads(text, monkeypatch):
    monkeypatch.setattr(thread_count, "SERIAL", 0)
    monkeypatch.setattr(thread_count, "LONELY", 0)
    problem, implementation = reals(text, ORDERS[0]), WEIGHT_GRAD.find("winograd")
    arrays = [problem.arrays[role] for role in INPUTS["conv_weight_grad"]]
    for limit in (2**22, 2**26):
        results = set()
        for threads in (1, 2, 3, 7):
            out = problem.outputs()["out"]
            implementation.run(problem.spec, *arrays, out=out, resources=Resources(limit, threads))
            results.add(out.tobytes())
        assert len(results) == 1


@pytest.mark.parametrize("taps", [3, 4, 5])
def test_transforms_are_those_of_sums_over_a_square(taps):
    cells = 7 - taps
    found = toom_cook.transforms(taps, cells)
    rng = np.random.default_rng(taps)
    x, dy = rng.standard_normal(6), rng.standard_normal(cells)

    def applied(factors, values):
        for factor in factors:
            values = np.array(factor) @ values
        return values

    sums = applied(found.output, applied(found.source, x) * applied(found.filter, dy))
    np.testing.assert_allclose(sums, [x[tap : tap + cells] @ dy for tap in range(taps)], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("largest", [1.0, 1e4])
def test_zeros_and_large_cells_where_no_gradient_reaches(largest):
    """Cells that no window reads, and those cropped, add to no one's rounding."""
    x, dy = np.zeros((1, 4, 13, 13), np.float32), np.ones((1, 4, 9, 9), np.float32)
    x[...] = largest
    x[:, :, 1:12, 1:12] = 1
    options = {"kernel_size": 3, "padding": -1}
    expected = np.full((4, 4, 3, 3), 81, np.float32)
    dw = ck.conv2d_weight_grad(x, dy, strategy="winograd", **options)
    np.testing.assert_allclose(dw, expected, rtol=1e-5)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mprotect is called as Linux has it")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nothing_outside_the_arrays_is_touched(dtype):
    """A fault ends the process, so a child makes the calls."""
    folder = "import sys; sys.path.insert(0, sys.argv[1])\n"
    child(f"{folder}from test_winograd_weights import run_flush\nrun_flush({dtype!r})\n")


def run_flush(dtype):
    """In two orders, on arrays that end or begin where memory does."""
    windows = ("in8x9_k3x3_s1x1_p1+1x1+1_d1x1", "in13x7_k5x1_s1x1_p0+0x0+0_d1x1")
    for columns, order, window in product((1, 4, 7, 16, 17, 33), ORDERS[:2], windows):
        text = f"n2g1i{columns}o{columns + 1}_{window}" + ("" if dtype == "float32" else f"_{dtype}")
        problem = problem_of("conv_weight_grad", text, order)
        expected = run(WEIGHT_GRAD.find("im2col"), problem)["out"]
        for arrays, outputs in flush_arrays(problem):
            got = run(WEIGHT_GRAD.find("winograd"), problem, arrays, outputs)["out"]
            np.testing.assert_array_equal(np.rint(got), expected)


@pytest.mark.parametrize("forced", ["avx2", "generic"])
def test_narrower_instruction_sets(forced):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_winograd_weights import ORDERS, SQUARES, check\n"
        "for text in SQUARES:\n"
        "    for order in ORDERS[:2]: check(text, order)\n"
    )
    try:
        isa.find(forced)
    except ck.OptionError as error:
        pytest.skip(str(error))
    child(code, {**os.environ, "CONVKERNELS_ISA": forced})


def test_the_loops_run_uncompiled_too():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_winograd_weights import ORDERS, check, winograd_weights\n"
        "assert not hasattr(winograd_weights.transform_squares, 'signatures')\n"
        "for order in ORDERS[:2]: check('n2g2i10o6_in7x9_k3x3_s1x1_p1+1x1+1_d1x1', order)\n"
    )
    child(code, {**os.environ, "NUMBA_DISABLE_JIT": "1"})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "n1g1i8o8_in19x9_k3x3_s2x1_p0+0x0+0_d1x1",
            r"1 along the last two axes, not \(2, 1\) and \(1, 1\)",
        ),
        ("n1g1i8o8_in19x9_k7x3_s1x1_p0+0x0+0_d1x1", r"3 to 5 taps along the last two axes, or one, not \(7, 3\)"),
        ("n1g1i8o8_in9x9_k3x3_s1x1_p0+0x0+0_d1x1", "49 outputs are below the 64 whose sums hide its rounding"),
    ],
)
def test_what_it_declines(text, reason):
    problem = problem_of("conv_weight_grad", text, ORDERS[0])
    window = problem.spec.window
    options = {"kernel_size": window.kernel_size, "stride": window.stride, "dilation": window.dilation}
    with pytest.raises(ck.UnsupportedError, match=reason):
        ck.conv2d_weight_grad(problem.arrays["x"], problem.arrays["dy"], strategy="winograd", **options)


def test_a_named_forward_leaves_a_gradient_that_declines_to_auto():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((1, 8, 7, 7)).astype("f4"), rng.standard_normal((8, 8, 3, 3)).astype("f4")
    y, vjp = ck.conv2d_vjp(x, w, padding=1, strategy="winograd")
    expected = ck.conv2d_weight_grad(x, y, kernel_size=3, padding=1, strategy="direct")
    np.testing.assert_array_equal(vjp(y).dw, expected)
    explained = ck.explain("conv2d_vjp", x, w, padding=1, strategy="winograd")
    assert [choice.chosen.name for choice in explained.choices] == ["winograd", "winograd", "direct"]


def test_auto_takes_it_where_it_pays_and_precision_refuses_it():
    takes = {
        "n1g1i64o64_in56x56_k3x3_s1x1_p1+1x1+1_d1x1": "winograd",
        "n8g1i512o512_in7x7_k3x3_s1x1_p1+1x1+1_d1x1": "winograd",
        "n1g1i512o512_in8x8_k3x3_s1x1_p1+1x1+1_d1x1": "direct",
        "n1g1i16o16_in16x16_k3x3_s1x1_p1+1x1+1_d1x1": "direct",
        "n1g1i3o64_in56x56_k3x3_s1x1_p1+1x1+1_d1x1": "direct",
    }
    chosen = {text: ck.explain(f"conv_weight_grad:{text}").choices[0].chosen.name for text in takes}
    assert chosen == takes
    text = f"conv_weight_grad:{next(iter(takes))}"
    assert ck.explain(text, precision="highest").choices[0].chosen.name == "direct"
