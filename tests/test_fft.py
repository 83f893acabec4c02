"""Convolution by transforms where the kit's small problems do not reach: large kernels, many tiles, auto's choice."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np
import pytest
from test_memory import MIB, OBJECTS, peak

import convkernels as ck
from convkernels.config import Resources
from convkernels.kernels import fft, fft_tiles
from convkernels.kernels.compiled import available
from convkernels.layout import Layout
from convkernels.operation import OPERATIONS
from convkernels.testing.bounds import accumulated
from convkernels.testing.numeric import assert_same, assert_within
from convkernels.testing.problems import INPUTS, Problem, run

LARGE = [
    "n2g1i3o4_in3000_k257_s1_p128+128_d1",
    "n1g1i12o10_in2000_k31_s1_p30+0_d1_float64",
    "n1g2i4o6_in900_k63_s4_p31+20_d1",
    "n1g1i2o3_in700_k21_s3_p5+9_d2",
    "n1g1i2o3_in700_k40_s6_p0+11_d4_float64",
    "n2g6i6o6_in90x70_k31x31_s1x1_p15+15x15+15_d1x1",
    "n1g1i9o10_in80x75_k9x11_s1x1_p4+4x5+5_d1x1",
    "n1g3i6o9_in60x61_k13x9_s2x3_p6+2x-3+4_d1x1",
    "n1g1i3o2_in64x50_k7x5_s1x1_p-2+18x8+-1_d3x2",
    "n1g1i2o2_in50x60_k5x4_s7x2_p0+0x3+3_d1x1",
    "n1g1i2o3_in20x24x22_k7x9x5_s1x1x2_p3+3x4+4x0+2_d1x1x1",
]
"""Long and wide kernels, matrix products, groups, strides that share factors with dilations or leave cells out, padding
that crops, three axes."""
MANY = LARGE[1]
"""A problem of so many channels and tiles that its products are of matrices."""
CONVOLUTIONS = ("conv", "conv_input_grad", "conv_weight_grad")
TRANSPOSED = [
    "n2g1i3o4_in500_k257_s1_p128+128_d1_bias",
    "n1g2i4o6_in40x31_k13x9_s2x3_p6+2x1+4_d1x1_op1x2_bias",
    "n1g1i3o2_in30x50_k7x5_s1x1_p2+0x8+1_d3x2_float64",
]
ORDERS = [("NCHW", "OIHW"), ("NHWC", "HWIO"), ("CHWN", "IOHW")]
CASES = [*product(CONVOLUTIONS, LARGE), *product(["conv_transpose"], TRANSPOSED)]


def problem_of(operation, text, order=ORDERS[0]):
    """A problem of real numbers, in one of three memory orders."""
    problem = Problem.read(f"{operation}:{text}")
    data, weights = (axes.replace("H", problem.layout.axes[2:-1]) for axes in order)
    leading = "IO" if operation == "conv_transpose" else "OI"
    return replace(problem, layout=Layout(data), weight_layout=Layout(weights, leading), data="reals")


def truth(problem, change=np.asarray):
    """What columns give in float64, of the arrays or of what a change makes of them."""
    spec = problem.spec
    if problem.operation == "conv_transpose":
        wide = replace(spec, convolution=replace(spec.convolution, dtype=np.dtype(float)))
    else:
        wide = replace(spec, dtype=np.dtype(float))
    given = [problem.arrays[role] for role in INPUTS[problem.operation]]
    arrays = [None if array is None else change(array).astype(float) for array in given]
    out = np.empty(problem.outputs()["out"].shape)
    OPERATIONS[problem.operation].find("im2col").run(wide, *arrays, out=out, resources=Resources(2**28))
    return out


def check(problem, **choices):
    """Within a part of the bound over a tile, which here is the whole problem."""
    got = run(OPERATIONS[problem.operation].find("fft"), problem, **choices)["out"]
    bound = accumulated(problem) * np.finfo(got.dtype).eps * truth(problem, np.abs).max()
    assert_within(got, truth(problem), bound / 4)


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
@pytest.mark.parametrize(("operation", "text"), CASES)
def test_large_kernels(operation, text, order):
    check(problem_of(operation, text, order))


def tiling_of(spec, limit, sums):
    """The plan of a problem, and its tiles."""
    found = fft_tiles.plan(spec, limit, sums)
    return found, [tile for chunk in found.chunks(spec.window.out_size) for tile in chunk]


@pytest.mark.parametrize(("operation", "text"), list(product(CONVOLUTIONS, LARGE)))
def test_tiles_meet_at_their_seams_in_any_memory(operation, text):
    problem, sums = problem_of(operation, text), operation == "conv_weight_grad"
    workspace = OPERATIONS[operation].find("fft").workspace
    least = workspace(problem.spec, 0)
    counts = []
    for limit in (least, 2 * least, 2**26):
        found, tiles = tiling_of(problem.spec, limit, sums)
        counts.append(len(tiles))
        seen = np.zeros(problem.spec.window.out_size, int)
        for tile in tiles:
            seen[tile] += 1
        assert (seen == 1).all()
        assert found.bytes == workspace(problem.spec, limit) <= limit
        check(problem, max_workspace=limit)
    assert counts[0] > 1
    assert counts[0] >= counts[-1]


def test_products_are_of_matrices_where_there_are_many():
    stacked = {text: fft_tiles.plan(problem_of("conv", text).spec, 2**26).stacked for text in LARGE}
    assert stacked[MANY]
    assert not all(stacked.values())


@pytest.mark.parametrize("operation", CONVOLUTIONS)
@pytest.mark.parametrize(
    "text",
    [
        MANY,
        "n1g1i1o1_in90000_k999_s1_p0+0_d1",
        "n2g1i8o70_in60x60_k9x9_s1x1_p4+4x4+4_d1x1",
        "n1g70i70o70_in60x60_k9x9_s2x2_p4+4x4+4_d1x1_float64",
        "n1g1i24o30_in20x24x22_k7x5x5_s1x1x1_p3+3x2+2x2+2_d1x1x1",
        "n2g1i8o20_in2778_k337_s7_p505+505_d3",
    ],
)
def test_scratch_stays_under_the_cap_and_is_what_is_said(operation, text):
    problem = problem_of(operation, text)
    implementation, out = OPERATIONS[operation].find("fft"), problem.outputs()["out"]
    given = [problem.arrays[role] for role in INPUTS[operation]]
    for cap in (max(MIB, implementation.workspace(problem.spec, 0)), 16 * MIB, 64 * MIB):
        said = implementation.workspace(problem.spec, cap)
        assert said <= cap
        taken = peak(partial(implementation.run, problem.spec, *given, out=out, resources=Resources(cap)))
        assert taken <= said + OBJECTS, f"with a cap of {cap}"


def test_fast_lengths_are_the_shortest():
    def smooth(length):
        for prime in (2, 3, 5):
            while length % prime == 0:
                length //= prime
        return length == 1

    for least in range(1, 3000):
        found = fft_tiles.fast_length(least)
        assert smooth(found)
        assert not any(map(smooth, range(least, found)))


@pytest.mark.parametrize("text", [MANY.replace("n1", "n5"), LARGE[0].replace("n2", "n4")])
@pytest.mark.parametrize("operation", ["conv", "conv_input_grad"])
def test_an_image_does_not_depend_on_its_batch(operation, text):
    problem, implementation = problem_of(operation, text), OPERATIONS[operation].find("fft")
    whole = run(implementation, problem)["out"]
    first, w = INPUTS[operation][0], problem.arrays["w"]
    for image in range(len(whole)):
        part = slice(image, image + 1)
        arrays = {first: problem.arrays[first][part], "w": w, "b": None}
        alone = run(implementation, replace(problem, spec=problem.spec.one_image), arrays)["out"]
        assert_same(whole[part], alone)


@pytest.mark.parametrize("largest", [1.0, 1e4])
def test_cells_that_no_window_reads_add_to_no_rounding(largest):
    x, w = np.full((1, 1, 40, 40), largest), np.ones((1, 1, 4, 4))
    x[:, :, ::6] = x[:, :, 1::6] = x[:, :, 2::6] = x[:, :, 3::6] = 1
    got = ck.conv2d(x, w, stride=(6, 1), strategy="fft")
    assert_within(got, ck.conv2d(x, w, stride=(6, 1), strategy="im2col"), 1e-13)


def test_no_rounding_where_no_window_reads_the_input():
    dy, w = np.ones((1, 16, 2)), np.ones((16, 1, 3))
    got = ck.conv1d_input_grad(dy, w, x_shape=(1, 1, 1), stride=2, padding=4, dilation=3, strategy="fft")
    assert not got.any()


def test_taps_that_see_no_cell_have_no_gradient():
    """Of these two, steps and dilation jump over the only column; the other cells of a tile read it all the same."""
    problem = problem_of("conv_weight_grad", "n2g1i1o1_in1x4x1_k1x1x2_s1x1x2_p0+0x0+0x1+4_d1x1x3")
    problem = replace(problem, data="reals")
    assert not run(OPERATIONS["conv_weight_grad"].find("fft"), problem)["out"].any()


def test_what_is_not_finite_spreads_in_silence():
    x, w = np.ones((1, 1, 300), np.float32), np.ones((1, 1, 65), np.float32)
    x[..., 5] = np.inf
    assert not np.isfinite(ck.conv1d(x, w, strategy="fft")[..., 5:]).any()


@pytest.mark.parametrize("call", [ck.conv1d, ck.conv_transpose1d])
def test_half_precision_is_widened(call):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((1, 2, 300)).astype("f2"), rng.standard_normal((2, 2, 65)).astype("f2")
    got = call(x, w, strategy="fft")
    assert got.dtype == np.float16
    assert_within(got, call(x, w, strategy="im2col"), 0.02)


def test_float32_is_computed_in_float32_both_ways():
    spec = problem_of("conv", LARGE[5]).spec
    transforms = fft.Transforms(spec, fft_tiles.plan(spec, 2**26))
    cells, spectra = np.ones((1, 1, 1, 40, 40), np.float32), transforms.empty(1, 1, 1)
    assert peak(lambda: transforms.forward(cells, spectra)) < OBJECTS
    assert spectra.dtype == np.complex64
    assert transforms.backward(spectra, (3, 3)).dtype == np.float32


def test_a_plan_gives_what_a_call_does():
    problem = problem_of("conv", "n1g1i2o3_in9000_k2049_s1_p0+0_d1")
    x, w = problem.arrays["x"], problem.arrays["w"]
    plan = ck.plan("conv1d", x, w)
    assert plan.choice.chosen.name == "fft"
    assert_same(plan(x), ck.conv1d(x, w))


@pytest.mark.parametrize(
    ("operation", "text", "reason"),
    [
        ("conv", "n1g1i4o4_in99_k65_s1_p0+0_d1_int64", "computes float32 and float64, not int64"),
        ("conv", "n1g1i4o4_in99_k65_s1_p0+0_d1_complex64", "computes float32 and float64, not complex64"),
        ("conv", "n1g1i3o9_in99_k5_s1_p0+0_d1", "sums of 15 products are below the 16 that hide its rounding"),
        ("conv_input_grad", "n1g3i9o9_in99_k5_s1_p0+0_d1", "sums of 15 products are below the 16"),
        ("conv_weight_grad", "n1g1i9o9_in79_k65_s1_p0+0_d1", "sums of 15 products are below the 16"),
        ("conv_transpose", "n1g1i3o9_in99_k5_s1_p0+0_d1", "sums of 15 products are below the 16"),
    ],
)
def test_what_it_declines(operation, text, reason):
    choice = ck.explain(f"{operation}:{text}", strategy="fft").choices[0]
    assert choice.chosen is None
    assert reason in choice.error


def test_precision_refuses_it_and_explain_tells_of_its_rounding():
    text = "n1g1i1o1_in65536_k2049_s1_p0+0_d1"
    assert ck.explain(text, precision="highest").choices[0].chosen.name != "fft"
    choice = ck.explain(text).choices[0]
    assert choice.chosen.name == "fft"
    assert "fft may spread NaN and infinities to neighbouring outputs" in choice.notes
    assert "fft does not bound the error of each output by itself" in choice.notes


PREFERRED = {
    "n1g1i1o1_in65536_k513_s1_p256+256_d1": (True, True),
    "n1g64i64o64_in4096_k511_s1_p255+255_d1": (True, True),
    "n1g1i8o8_in4096_k31_s1_p15+15_d1": (False, False),
    "n1g1i16o16_in64x64_k31x31_s1x1_p15+15x15+15_d1x1": (True, True),
    "n1g1i16o16_in64x64_k15x15_s1x1_p7+7x7+7_d1x1": (False, True),
    "n1g64i64o64_in64x64_k15x15_s1x1_p7+7x7+7_d1x1": (False, True),
    "n1g1i64o64_in56x56_k3x3_s1x1_p1+1x1+1_d1x1": (False, False),
    "n1g1i3o64_in224x224_k7x7_s2x2_p3+3x3+3_d1x1": (False, False),
    "n1g1i1o1_in40x40x40_k15x15x15_s1x1x1_p7+7x7+7x7+7_d1x1x1": (True, True),
}
"""Whether it is expected to be faster than what is compiled, and than what is not."""


@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize("dtype", ["", "_float64"])
@pytest.mark.parametrize("operation", CONVOLUTIONS)
def test_auto_takes_it_where_it_pays_whatever_the_batch(operation, dtype, batch, monkeypatch):
    monkeypatch.setattr(fft, "usable", lambda threads, flops: 1)
    implementation, found = OPERATIONS[operation].find("fft"), {}
    for text in PREFERRED:
        spec = ck.parse_problem(text.replace("n1", f"n{batch}") + dtype)[1]
        answers = []
        for missing in (None, "Numba is not installed"):
            monkeypatch.setattr(available, "missing", lambda missing=missing: missing)
            answers.append(implementation.prefers(spec, "channels_first") is None)
        found[text] = tuple(answers)
    assert found == PREFERRED


def test_more_threads_make_what_is_compiled_faster(monkeypatch):
    monkeypatch.setattr(available, "missing", lambda: None)
    spec, found = ck.parse_problem("n1g1i16o16_in64x64_k31x31_s1x1_p15+15x15+15_d1x1")[1], []
    for threads in (1, 64):
        monkeypatch.setattr(fft, "usable", lambda asked, flops, threads=threads: threads)
        found.append(fft.prefers(spec, "channels_first"))
    assert found[0] is None
    assert found[1].endswith("us without transforms")
