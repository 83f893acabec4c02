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

from convkernels.kernels.compiled import amounts, available, axes, isa, pictures, thread_count, toom_cook, winograd

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
    "n2g1i9o17_in4x7x9_k3x3x3_s1x1x1_p1+1x1+1x1+0_d1x1x1_bias",
    "n1g2i12o20_in9x6x7_k2x4x1_s2x1x1_p0+1x2+1x0+0_d3x1x1",
    "n1g1i64o40_in70x66_k3x3_s1x1_p1+1x1+1_d1x1",
]
"""Squares cut on either side, several images in a block, one to three axes, dilations, several panels and blocks."""

STRIDED = [
    "n2g1i16o17_in9x20_k4x4_s2x2_p1+1x1+1_d1x1",
    "n1g1i20o33_in30x17_k3x3_s2x2_p1+1x0+1_d1x1",
    "n1g2i32o40_in13x11_k5x9_s1x3_p2+2x4+0_d3x1",
    "n3g1i17o16_in31_k7_s2_p3+3_d1",
    "n1g1i24o16_in2x10x9_k1x4x3_s1x2x1_p0+0x2+1x1+1_d1x1x2_float64",
    "n1g1i16o16_in20x2_k7x3_s3x3_p4+0x1+1_d1x1",
    "n2g1i16o18_in5x9x6_k3x3x4_s2x2x1_p1+1x1+1x1+2_d1x1x1",
]
"""Remainders of strides with as many taps or fewer, beside dilations, along one to three axes, and with a few cells."""


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


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
@pytest.mark.parametrize("text", STRIDED)
@pytest.mark.parametrize("operation", ["conv", "conv_input_grad"])
def test_strided_windows(operation, text, order):
    check(operation, text, order)


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
@pytest.mark.parametrize(
    "text", ["n2g1i3o20_in25x31_k11x7_s4x2_p0+0x3+2_d1x1", "n1g1i4o16_in9x20_k1x3_s2x4_p0+0x1+0_d1x1"]
)
def test_stems(text, order):
    check("conv", text, order)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_transposed_convolution_adds_its_bias(layout):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 16, 7, 9), np.float32)
    w, b = rng.standard_normal((16, 20, 4, 4), np.float32), rng.standard_normal(20, np.float32)
    options = {"stride": 2, "padding": 1, "layout": layout, "weight_layout": "IOHW"}
    x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if layout == "NHWC" else x
    got, expected = (ck.conv_transpose2d(x, w, b, strategy=name, **options) for name in ("winograd", "im2col"))
    np.testing.assert_allclose(got, expected, atol=1e-4)


@pytest.mark.parametrize("limit", [0, 2**18, 2**26])
@pytest.mark.parametrize(
    ("operation", "text"), [("conv", SQUARES[-1]), ("conv", STRIDED[1]), ("conv_input_grad", STRIDED[1])]
)
def test_squares_in_little_memory(operation, text, limit):
    problem = problem_of(operation, text, ORDERS[0])
    implementation = OPERATIONS[operation].find("winograd")
    allowed = max(limit, implementation.workspace(problem.spec, limit))
    plenty, little = (run(implementation, problem, max_workspace=most)["out"] for most in (2**28, allowed))
    assert plenty.tobytes() == little.tobytes()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("limit", [0, 2**18, 2**26])
@pytest.mark.parametrize("order", ORDERS[:2], ids="-".join)
@pytest.mark.parametrize("text", SQUARES + STRIDED)
@pytest.mark.parametrize("operation", ["conv", "conv_input_grad"])
def test_scratch_memory_is_what_was_said(operation, text, order, limit, threads):
    problem = problem_of(operation, text, order)
    strides = [problem.arrays[role].strides for role in INPUTS[operation][:2]]
    most = max(limit, OPERATIONS[operation].find("winograd").workspace(problem.spec, limit))
    find = winograd.squares_plan if operation == "conv" else winograd.squares_grad_plan
    plan = find(problem.spec, *strides, problem.outputs()["out"].strides, most, threads)
    used = max(part.room for part in plan.parts)
    assert plan.bytes + plan.threads * max(used, *(each.room for each in plan.weights)) <= most


@pytest.mark.parametrize(
    "text", ["n1g1i16o16_in8x8_k3x3_s1x1_p1+1x1+1_d1x1", "n3g1i17o16_in37x11_k1x3_s1x2_p1+1x1+1_d1x1"]
)
@pytest.mark.parametrize("operation", ["conv", "conv_input_grad"])
def test_every_limit_from_the_least_on_is_enough(operation, text):
    spec, find = ck.parse_problem(text)[1], OPERATIONS[operation].find("winograd")
    least = find.workspace(spec, 0)
    assert all(find.workspace(spec, limit) <= limit for limit in range(least, 12 * least, 97))


@pytest.mark.parametrize(
    ("operation", "text"),
    [
        *product(("conv", "conv_input_grad"), (SQUARES[0], SQUARES[1], SQUARES[9], SQUARES[-3], SQUARES[-1])),
        *product(("conv", "conv_input_grad"), (STRIDED[0], STRIDED[2])),
    ],
)
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


@pytest.mark.parametrize(("taps", "places"), pictures.PLACES.items())
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
    assert doctest.testmod(winograd) == doctest.TestResults(failed=0, attempted=1)


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
        "in7x6_k4x4_s2x2_p1+1x1+1_d1x1",
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
        "from test_winograd import ORDERS, SQUARES, STRIDED, check\n"
        "for operation in ('conv', 'conv_input_grad'):\n"
        "    for text in (*SQUARES[:5], *SQUARES[6:10]):\n"
        "        for order in ORDERS[:2]: check(operation, text, order)\n"
        "    for text in STRIDED:\n"
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
        ("n1g1i16o16_in9x9_k3x3_s2x1_p0+0x0+0_d2x1", r"last two axes, not both: \(2, 1\) and \(2, 1\)"),
        ("n1g1i16o16_in9x9_k3x2_s4x2_p0+0x0+0_d1x1", r"or one, not \(3, 2\) in steps of \(4, 2\)"),
        ("n1g1i3o16_in9x9_k3x3_s2x2_p0+0x0+0_d1x1", "groups of 12 channels are below the 16 whose sums hide"),
        ("n1g1i8o8_in9x9_k8x3_s1x1_p0+0x0+0_d1x1", r"2 to 7 taps along the last two axes, or one, not \(8, 3\)"),
        ("n1g1i8o8_in9x9_k1x1_s1x1_p0+0x0+0_d1x1", r"2 to 7 taps along the last two axes, or one, not \(1, 1\)"),
        ("n1g1i8o8_in9x9x9_k3x3x8_s1x1x1_p0+0x0+0x0+0_d1x1x1", r"or one, not \(3, 3, 8\)"),
        ("n1g1i8o8_in9x9x9_k3x1x1_s1x1x1_p0+0x0+0x0+0_d1x1x1", r"or one, not \(3, 1, 1\)"),
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


@pytest.mark.parametrize(
    ("kernel_size", "options", "reason"),
    [
        (4, {"stride": 2, "dilation": 2}, r"takes strides or dilations along the last two axes, not both"),
        (3, {"stride": 4}, r"2 to 7 taps along the last two axes, or one, not \(3, 3\) in steps of \(4, 4\)"),
        (2, {"stride": 2}, r"2 to 7 taps along the last two axes, or one, not \(2, 2\) in steps of \(2, 2\)"),
    ],
)
def test_what_it_declines_backward(kernel_size, options, reason):
    x, w = np.zeros((1, 16, 9, 9), np.float32), np.zeros((16, 16, kernel_size, kernel_size), np.float32)
    with pytest.raises(ck.UnsupportedError, match=reason):
        ck.conv_transpose2d(x, w, strategy="winograd", **options)


def test_an_input_gradient_without_taps_for_a_remainder_along_the_first_axis_is_declined():
    x, w = np.zeros((1, 16, 3, 9, 9), np.float32), np.zeros((16, 16, 1, 3, 3), np.float32)
    with pytest.raises(ck.UnsupportedError, match=r"takes taps for each remainder of a stride, not \(1, 3, 3\)"):
        ck.conv_transpose3d(x, w, strategy="winograd", stride=(2, 1, 1))


@pytest.mark.parametrize(
    "text", ["n1g1i64o64_in56x56_k3x3_s1x1_p1+1x1+1_d1x1", "n1g1i32o64_in8x14x14_k3x3x3_s1x1x1_p1+1x1+1x1+1_d1x1x1"]
)
def test_auto_takes_it_where_it_pays_and_precision_refuses_it(text):
    assert ck.explain(text).choices[0].chosen.name == "winograd"
    assert ck.explain(text, precision="highest").choices[0].chosen.name == "direct"
    x, w = np.ones((1, 8, 9, 9), np.float32), np.ones((8, 8, 3, 3), np.float32)
    with pytest.raises(ck.UnsupportedError, match="precision='highest' needs the claims bounded"):
        ck.conv2d(x, w, strategy="winograd", precision="highest")


@pytest.mark.parametrize("layout", ["OIHW", "HWIO"])
@pytest.mark.parametrize("axes", [(0,), (1, 2), (0, 3), (0, 1, 2, 3)])
def test_weights_may_be_views_in_reverse(layout, axes):
    rng = np.random.default_rng(0)
    shape = {"OIHW": (40, 33, 3, 5), "HWIO": (3, 5, 33, 40)}[layout]
    w = rng.integers(-4, 5, shape).astype(np.float64)[
        tuple(slice(None, None, -1) if axis in axes else slice(None) for axis in range(4))
    ]
    x = rng.integers(-4, 5, (2, 33, 7, 9)).astype(np.float64)
    options = {"padding": (1, 2), "weight_layout": layout}
    y = ck.conv2d(x, w, strategy="winograd", **options)
    np.testing.assert_allclose(y, ck.conv2d(x, w, strategy="im2col", **options), atol=1e-9)
    dx, expected = (
        ck.conv2d_input_grad(y, w, x_shape=x.shape, strategy=name, **options) for name in ("winograd", "im2col")
    )
    np.testing.assert_allclose(dx, expected, atol=1e-6)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_groups_that_threads_share_unevenly_take_what_was_promised(threads):
    problem = problem_of("conv", "n8g9i72o288_in9x9_k3x3_s1x1_p1+1x1+1_d1x1", ORDERS[1])
    strides = [problem.arrays[role].strides for role in INPUTS["conv"][:2]]
    for limit in (2**26, 3_005_056):
        given = problem.spec, *strides, problem.outputs()["out"].strides, limit, threads
        plan = winograd.squares_plan(*given)
        sizes = (problem.spec.batch, problem.spec.groups, problem.spec.group_in, problem.spec.group_out, 4, limit)
        found = amounts.squares_amounts((axes.forward_axes(problem.spec),), *sizes, threads)
        rooms = max(part.room for part in plan.parts)
        assert plan.bytes + plan.threads * rooms <= max(each.bytes(threads, limit) for each in found)


LATE = [
    ("n1g2i160o132_in9x10_k3x3_s1x1_p1+1x1+1_d1x1", 1),
    ("n1g1i192o192_in9x10_k3x3_s1x1_p1+1x1+1_d1x1", 2),
    ("n1g2i96o84_in3x6x10_k3x3x3_s1x1x1_p1+1x1+1x1+1_d1x1x1", 1),
]
"""Weights that one block of each group reads, and how many threads share those of a group."""


@pytest.mark.parametrize(("text", "shares"), LATE)
@pytest.mark.parametrize("order", ORDERS[:2], ids="-".join)
@pytest.mark.parametrize("operation", ["conv", "conv_input_grad"])
def test_weights_that_one_block_reads_are_transformed_panel_by_panel(operation, order, text, shares, monkeypatch):
    monkeypatch.setattr(thread_count, "SERIAL", 0)
    monkeypatch.setattr(thread_count, "LONELY", 0)
    problem = problem_of(operation, text, order)
    find = winograd.squares_plan if operation == "conv" else winograd.squares_grad_plan
    strides = (problem.arrays[role].strides for role in INPUTS[operation][:2])
    given, threads = (problem.spec, *strides, problem.outputs()["out"].strides, 2**26), shares * problem.spec.groups
    once, kept = find(*given, threads), find(*given, threads, kept=True)
    assert once.bytes == 0 < kept.bytes
    assert once.parts[0].pieces == threads == once.threads
    assert once.weights[0].chunk < kept.weights[0].chunk  # parts of sums are added up
    assert once.threads * once.parts[0].room <= kept.bytes + kept.threads * kept.parts[0].room
    check(operation, text, order)
    arrays = [problem.arrays.get(role) for role in INPUTS[operation]]
    found = [problem.outputs()["out"] for _ in range(3)]
    implementation, resources = OPERATIONS[operation].find("winograd"), Resources(2**26, threads)
    implementation.run(problem.spec, *arrays, out=found[0], resources=resources)
    implementation.run(problem.spec, *arrays, out=found[1], resources=Resources(2**26, 1))
    implementation.keep(problem.spec, *arrays, out=found[2], resources=resources)(*arrays, found[2])
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


@pytest.mark.parametrize(
    ("text", "reasons"),
    [
        ("n1g1i256o384_in13x13_k3x3_s1x1_p1+1x1+1_d1x1", (False, False)),
        ("n1g1i64o128_in128x128_k3x3_s2x2_p1+1x1+1_d1x1", (False, True)),
        ("n1g1i256o160_in7x7_k3x3_s1x1_p1+1x1+1_d1x1", (True, True)),
    ],
)
def test_strided_squares_have_to_save_more_where_multiplications_take_less(text, reasons, monkeypatch):
    spec, found = problem_of("conv", text, ORDERS[0]).spec, OPERATIONS["conv"].find("winograd")
    for paired, declined in zip((False, True), reasons, strict=True):
        monkeypatch.setattr(available, "paired", lambda isa, paired=paired: paired)
        assert (found.prefers(spec, "channels_first") is not None) == declined


def test_narrower_vectors_do_not_pair():
    assert not any(isa.paired(each) for each in isa.ISAS[1:])
