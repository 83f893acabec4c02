"""Tiles and what is made of them, where the kit's small problems do not reach: many channels, every width, threads."""

from __future__ import annotations

import doctest
import os
import subprocess
import sys
from dataclasses import replace
from importlib import util
from itertools import product

import numpy as np
import pytest
from guard import child, flush_arrays

import convkernels as ck
from convkernels.config import Resources
from convkernels.layout import Layout
from convkernels.operation import OPERATIONS
from convkernels.testing.numeric import assert_same
from convkernels.testing.problems import INPUTS, Problem, run

if not util.find_spec("numba"):
    pytest.skip("Numba is not installed", allow_module_level=True)

from convkernels.kernels.compiled import (
    adding,
    amounts,
    axes,
    choice,
    copies,
    correlation,
    direct,
    filters,
    geometry,
    isa,
    lowering,
    operands,
    pictures,
    scratch,
    thread_count,
    weights,
)
from convkernels.kernels.compiled.blocks import PRODUCTS, SOURCES, TARGETS
from convkernels.kernels.compiled.parallel import SHARES

WIDE = [
    "n2g1i16o33_in9x20_k3x3_s1x1_p1+1x1+1_d1x1_bias",
    "n1g1i40o72_in6x17_k3x2_s2x1_p1+0x0+1_d1x2",
    "n1g1i17o100_in5x7_k1x1_s1x1_p0+0x0+0_d1x1_bias",
    "n3g1i33o50_in8x16_k1x1_s1x1_p0+0x0+0_d1x1",
    "n2g3i48o60_in7x9_k3x3_s1x1_p1+1x1+1_d1x1",
    "n2g3i48o60_in7x9_k3x3_s1x1_p0+0x0+0_d1x1",
    "n1g1i3o64_in31x33_k7x7_s2x2_p3+3x3+3_d1x1",
    "n1g1i20o16_in40_k9_s3_p4+4_d2_bias",
    "n1g1i18o24_in4x6x15_k3x3x3_s1x2x1_p1+1x1+1x1+1_d1x1x1",
    "n1g1i64o8_in30x61_k3x3_s1x1_p1+1x1+1_d1x1_float64",
    "n2g2i36o40_in5x7_k1x1_s1x1_p0+0x0+0_d1x1_bias",
    "n2g1i6o20_in1x9_k1x1_s1x1_p0+0x0+0_d1x1_bias",
    "n2g1i5o18_in9x20_k3x4_s2x2_p1+1x2+1_d1x1_bias",
    "n1g1i1024o70_in3x17_k1x1_s1x1_p0+0x0+0_d1x1_bias",
    "n1g1i512o40_in5x6_k3x3_s1x1_p1+1x1+1_d1x1",
    "n2g1i20o18_in9x20_k3x3_s1x1_p6+5x7+6_d6x7_bias",
    "n1g2i10o40_in12x41_k1x5_s1x2_p0+0x16+20_d1x8",
    "n1g1i18o24_in3x6x20_k2x3x3_s1x1x1_p1+0x1+1x8+8_d1x1x8",
    "n1g1i18o24_in6x3x5_k3x2x2_s2x1x1_p5+4x0+1x9+0_d4x1x1",
    "n2g1i33o40_in2500_k3_s1_p3+1_d2_bias",
    "n1g1i32o40_in3000_k3_s1_p0+-500_d1",
    "n1g1i32o40_in2600_k3_s1_p300+30_d1",
    "n2g2i20o30_in9x8_k1x1_s2x3_p0+0x0+-1_d1x1",
    "n3g2i20o30_in3x5_k2x3_s1x1_p0+0x0+0_d2x2",
    "n1g1i40o100_in2x3_k2x3_s1x1_p0+0x0+0_d1x1_float64",
]
"""Several panels and none that is full, long runs of channels, weights turned or read where they lie, planes as
matrices, pixels that fall into one set of the cache, taps that only some outputs reach or none, long rows, windows as
large as the image."""

PIXELS = [
    "n2g4i16o12_in9x33_k3x3_s1x1_p1+1x1+1_d1x1_bias",
    "n1g10i20o30_in9x33_k3x3_s1x1_p1+1x1+1_d1x1_bias",
    "n2g1i5o3_in13x40_k4x5_s2x1_p1+2x2+1_d1x1_bias",
    "n2g1i1o20_in7x40_k3x5_s1x1_p1+1x2+2_d1x1_bias",
    "n1g1i20o1_in7x40_k3x5_s1x1_p1+1x2+2_d1x1",
    "n1g1i200o6_in8x33_k3x3_s1x1_p1+1x2+2_d1x2_bias",
    "n2g1i5o7_in300_k3_s1_p0+0_d1_bias",
    "n1g2i6o8_in3x6x31_k2x3x3_s1x1x1_p1+0x1+1x1+1_d1x1x1_float64",
]
"""Vectors of pixels: few channels of groups, a row of panels, taps as the depth, weights in a panel."""
REMAINDERS = ["n1g1i3o16_in31x35_k7x7_s2x2_p3+2x3+3_d1x1", "n2g2i6o20_in9x171_k5x5_s1x4_p2+2x1+0_d1x1_float64"]
"""Input gradients by vectors of pixels, whose remainders are of different lengths."""

ORDERS = [("NCHW", "OIHW"), ("NHWC", "HWIO"), ("CHWN", "OHWI"), ("HNWC", "IOHW")]


LONG = [
    "n2g1i24o17_in9000_k3_s2_p0+0_d1",
    "n1g2i80o160_in4100_k1_s1_p0+0_d2_float64",
    "n3g1i12o9_in9002_k2_s1_p-1+0_d5",
]
"""Rows that are cut where they are summed over: at any step, of two groups, and not where they begin."""


def problem_of(operation, text, order):
    """A problem of many channels, in one of four memory orders."""
    problem = Problem.read(f"{operation}:{text}")
    data, weights = (axes.replace("H", problem.layout.axes[2:-1]) for axes in order)
    return replace(problem, layout=Layout(data), weight_layout=Layout(weights, "OI"))


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
@pytest.mark.parametrize(
    ("operation", "text"),
    [
        *product(["conv", "conv_input_grad"], [*WIDE, *PIXELS, *REMAINDERS]),
        *product(["conv_weight_grad"], [*WIDE, *LONG]),
    ],
)
def test_many_channels(operation, text, order):
    problem = problem_of(operation, text, order)
    got, expected = (run(OPERATIONS[operation].find(name), problem)["out"] for name in ("direct", "im2col"))
    assert_same(got, expected)


@pytest.mark.parametrize(("operation", "text"), [*product(["conv"], PIXELS), *product(["conv_input_grad"], REMAINDERS)])
def test_vectors_hold_pixels_where_channels_are_few(operation, text):
    spec = problem_of(operation, text, ORDERS[0]).spec
    size = spec.compute_dtype.itemsize
    x, w, y = (axes.contiguous(shape, size) for shape in (spec.x_shape, spec.w_shape, spec.y_shape))
    if operation == "conv":
        sizes, memory = operands.forward(spec, x, w, y)
        every = (axes.forward_axes(spec),)
    else:
        sizes, memory = operands.backward(spec, y, w, x)
        every = axes.input_grad_axes(spec)
    way, chosen, _ = choice.choose(sizes, every, memory, isa.ISAS[0])
    assert way.pixels
    assert len(chosen) == len(axes.rests_apart(every))


def test_a_block_of_one_cell_that_is_padding_is_cleared_for_all_channels():
    problem = problem_of("conv_weight_grad", "n2g1i17o2_in1_k1_s2_p1+0_d1", ("CNHW", "OIHW"))
    arrays = [problem.arrays[role] for role in INPUTS["conv_weight_grad"]]
    with scratch.arena:
        scratch.arena.empty((4096,), np.dtype(np.float32))[...] = np.nan
    out = problem.outputs()["out"]
    OPERATIONS["conv_weight_grad"].find("direct").run(problem.spec, *arrays, out=out, resources=Resources(2**26, 1))
    assert not out.any()


def test_pixels_that_fall_into_few_sets_of_the_cache_are_copied_from_afar(monkeypatch):
    monkeypatch.setattr(weights, "FAR", 0)
    weights.weight_grad_plan.cache_clear()
    test_many_channels("conv_weight_grad", "n2g1i512o20_in6x7_k3x2_s1x1_p1+1x0+1_d1x1", ORDERS[1])
    weights.weight_grad_plan.cache_clear()


def test_channels_that_lie_pages_apart_are_copied():
    test_many_channels("conv_weight_grad", "n2g1i16o12_in32x32_k3x2_s1x1_p1+1x0+1_d1x1", ORDERS[0])


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("n1g1i20o30_in5x6_k1x1_s1x1_p0+0x0+0_d1x1", ("NCHW", "OIHW")),
        ("n1g1i20o30_in2x3_k2x3_s1x1_p0+0x0+0_d1x1", ("NCHW", "OIHW")),
        ("n1g1i20o30_in5x6_k3x3_s1x1_p1+1x1+1_d1x1", ("NHWC", "HWIO")),
        ("n1g1i3o40_in5x20_k3x3_s1x1_p1+1x1+1_d1x1", ("NHWC", "IHWO")),
    ],
)
@pytest.mark.parametrize("every", [1, 2])
def test_sums_are_written_to_any_view(text, order, every):
    """As `every` second input channel of an array, of whose other channels nothing changes."""
    problem = problem_of("conv_weight_grad", text, order)
    expected = run(OPERATIONS["conv_weight_grad"].find("im2col"), problem)["out"]
    like = problem.outputs()["out"]
    room = np.full_like(like, 7, shape=(like.shape[0], every * like.shape[1], *like.shape[2:]))
    arrays = [problem.arrays[role] for role in INPUTS["conv_weight_grad"]]
    out = room[:, ::every]
    OPERATIONS["conv_weight_grad"].find("direct").run(problem.spec, *arrays, out=out, resources=Resources(2**26, 1))
    assert_same(out, expected)
    assert (room[:, 1::2] == 7).all() or every == 1


SHARED = [
    "n1g1i24o300_in7x9_k3x3_s1x1_p1+1x1+1_d1x1_bias",  # few rows, many panels
    "n1g1i300o24_in1x50_k1x1_s1x1_p0+0x0+0_d1x1",
    "n40g1i1o32_in28x28_k3x3_s1x1_p1+1x1+1_d1x1",  # few channels: sums are cut into parts
    "n1g1i3o40_in150x90_k7x7_s2x2_p3+3x3+3_d1x1",
    "n3g2i26o34_in40x60_k3x3_s1x1_p1+1x1+1_d1x1",
    "n1g1i16o3_in1x9000_k1x3_s1x1_p0+0x1+1_d1x1_bias",
    "n1g1i160o150_in32x32_k3x3_s1x1_p1+1x1+1_d1x1",  # one block, and fewer panels than threads
    "n2g1i64o600_in14x14_k1x1_s1x1_p0+0x0+0_d1x1",  # several blocks, but no parts
    "n1g1i64o600_in18x18_k3x3_s1x1_p1+1x1+1_d1x1",  # one block, whose outputs alone would fill the cache
]


@pytest.mark.parametrize(
    "text",
    [
        "conv:n0g1i2o3_in4_k1_s1_p0+0_d1_bias",
        "conv_input_grad:n1g1i1o1_in1x1x1_k1x1x1_s1x1x2_p0+0x0+0x1+0_d1x1x1",
        "conv_input_grad:n1g1i1o1_in2_k1_s3_p2+0_d1",
    ],
    ids=["no image", "a pixel that no output reads", "remainders without taps"],
)
def test_planes_that_nothing_is_made_of(text):
    problem = Problem.read(text)
    assert_same(run(OPERATIONS[problem.operation].find("direct"), problem)["out"], problem.expected["out"])


@pytest.mark.parametrize(
    "text",
    [
        "n1g3i3o3_in1x35_k1x4_s1x1_p0+0x2+0_d1x12_float64",
        "n1g3i3o6_in35x1_k4x1_s1x1_p2+0x0+0_d12x1_bias",
        "n1g1i1o18_in1x101_k1x4_s1x9_p0+0x2+0_d1x34",
        "n1g1i20o1_in1x1_k3x3_s1x1_p1+1x1+1_d1x1",
        "n1g1i20o33_in1x1_k1x1_s1x1_p0+0x0+0_d1x1",
    ],
)
@pytest.mark.parametrize("strategy", ["direct", "winograd", "depthwise"])
@pytest.mark.parametrize("operation", ["conv", "conv_input_grad", "conv_weight_grad"])
def test_the_stride_of_a_single_element_may_be_anything(operation, strategy, text):
    problem = Problem.read(f"{operation}:{text}")
    implementation = next((each for each in OPERATIONS[operation].implementations if each.name == strategy), None)
    if implementation is None or implementation.supports(problem.spec):
        return
    for far in (24, 2**40):
        arrays = {role: None if a is None else spread_singles(a, far) for role, a in problem.arrays.items()}
        out = spread_singles(problem.outputs()["out"], far)
        assert_same(run(implementation, problem, arrays, {"out": out})["out"], problem.expected["out"])


def spread_singles(array, far):
    """A view in which the axes of one element have a stride of so many bytes."""
    strides = [far if size == 1 else stride for size, stride in zip(array.shape, array.strides, strict=True)]
    return np.lib.stride_tricks.as_strided(array, array.shape, strides)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("order", ORDERS, ids="-".join)
@pytest.mark.parametrize("text", SHARED)
@pytest.mark.parametrize("operation", ["conv", "conv_input_grad", "conv_weight_grad"])
def test_work_that_is_shared_by_panels_and_parts(operation, text, order, threads, monkeypatch):
    monkeypatch.setattr(thread_count, "LONELY", 0)
    problem = problem_of(operation, text, order)
    out, arrays = problem.outputs()["out"], [problem.arrays[role] for role in INPUTS[operation]]
    OPERATIONS[operation].find("direct").run(problem.spec, *arrays, out=out, resources=Resources(2**26, threads))
    assert_same(out, run(OPERATIONS[operation].find("im2col"), problem)["out"])


@pytest.mark.parametrize(("order", "pieces"), [(ORDERS[0], 2 * SHARES), (ORDERS[1], 1)], ids=["as they lie", "copied"])
def test_a_row_of_pixels_is_shared_only_where_it_is_not_copied(order, pieces):
    problem = problem_of("conv", "n1g1i16o3_in1x9000_k1x3_s1x1_p0+0x0+0_d1x1", order)
    strides = (problem.arrays[role].strides for role in INPUTS["conv"][:2])
    plan = direct.conv_plan(problem.spec, *strides, problem.outputs()["out"].strides, 2**26, 2)
    assert [part.pieces for part in plan.parts] == [pieces]


def test_the_bias_that_is_repeated_for_all_groups_is_counted():
    problem = problem_of("conv", "n1g8i8o512_in16x64_k3x3_s1x1_p1+1x1+1_d1x1_bias", ORDERS[0])
    strides = (problem.arrays[role].strides for role in INPUTS["conv"][:2])
    plan = direct.conv_plan(problem.spec, *strides, problem.outputs()["out"].strides, 2**26, 1)
    counted = amounts.correlation_amounts(axes.forward_axes(problem.spec), 1, 8, 1, 64, 9, 4, 2**26, 1).shared
    assert plan.repeat > 1
    assert plan.bytes + problem.arrays["b"].nbytes * plan.repeat <= counted


@pytest.mark.parametrize("number", [0, 1], ids=["avx512", "avx2"])
def test_the_order_of_sums_does_not_depend_on_the_batch(number):
    orders = set()
    for batch in (1, 32):
        problem = problem_of("conv", f"n{batch}g1i512o24_in4x4_k3x3_s1x1_p1+1x1+1_d1x1", ORDERS[1])
        strides = (problem.arrays[role].strides for role in INPUTS["conv"][:2])
        sizes, memory = operands.forward(problem.spec, *strides, problem.outputs()["out"].strides)
        plan = correlation.plan(sizes, (axes.forward_axes(problem.spec),), memory, 2**26, 1, isa.ISAS[number])
        product_ = geometry.Product._make(plan.parts[0].tables[0][SOURCES + TARGETS :][:PRODUCTS])
        orders.add((product_.depth, product_.chunk))
    assert len(orders) == 1


@pytest.mark.parametrize("width", [5, 9])
@pytest.mark.parametrize("layout", ["CNWH", "CHWN", "HWCN", "WHNC", "NCHW", "NHWC"])
def test_a_sample_taken_out_of_any_batch_has_the_same_bits(layout, width):
    rng = np.random.default_rng(0)
    x = np.ascontiguousarray(Layout(layout).restore(rng.standard_normal((3, 3, 7, width), np.float32)))
    w = rng.standard_normal((12, 3, 1, 5), np.float32)
    options = {"layout": layout, "weight_layout": "OIHW", "strategy": "direct"}
    one = tuple(slice(1, 2) if axis == "N" else slice(None) for axis in layout)
    y = ck.conv2d(x, w, **options)
    dx = ck.conv2d_input_grad(y, w, x_shape=x.shape, **options)
    for sample, dy in ((x[one], y[one]), (x[one].copy(), y[one].copy())):
        np.testing.assert_array_equal(ck.conv2d(sample, w, **options), y[one])
        alone = ck.conv2d_input_grad(dy, w, x_shape=sample.shape, **options)
        np.testing.assert_array_equal(alone, dx[one])


@pytest.mark.parametrize("operation", ["conv", "conv_input_grad", "conv_weight_grad"])
@pytest.mark.parametrize("text", [WIDE[0], WIDE[3], WIDE[5]])
def test_results_do_not_depend_on_the_threads(operation, text, monkeypatch):
    monkeypatch.setattr(thread_count, "SERIAL", 0)
    monkeypatch.setattr(thread_count, "LONELY", 0)
    problem = replace(problem_of(operation, text, ORDERS[0]), data="reals")
    implementation = OPERATIONS[operation].find("direct")
    arrays = [problem.arrays[role] for role in INPUTS[operation]]
    results = []
    for threads in (1, 2, 3, 7):
        out = problem.outputs()["out"]
        implementation.run(problem.spec, *arrays, out=out, resources=Resources(2**26, threads))
        results.append(out.tobytes())
    assert len(set(results)) == 1


def test_many_callers_at_once():
    x, w = (np.random.default_rng(0).integers(-8, 9, s).astype(np.float32) for s in ((2, 32, 24, 24), (48, 32, 3, 3)))
    expected = ck.conv2d(x, w, padding=1, strategy="im2col")
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    with ThreadPoolExecutor(6) as pool:
        for got in pool.map(lambda _: ck.conv2d(x, w, padding=1, strategy="direct", threads=2), range(24)):
            assert_same(got, expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes do not fork here")
def test_a_forked_process_has_threads_of_its_own():
    code = (
        "import os, numpy as np, convkernels as ck\n"
        "x, w = np.ones((1, 64, 56, 56), 'f'), np.ones((64, 64, 3, 3), 'f')\n"
        "def sums(): return float(ck.conv2d(x, w, strategy='direct', threads=2).sum())\n"
        "want = sums()\n"
        "child = os.fork()\n"
        "if not child: os._exit(0 if sums() == want else 3)\n"
        "raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=120, check=False).returncode == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mprotect is called as Linux has it")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nothing_outside_the_arrays_is_touched(dtype):
    """A fault ends the process, so a child makes the calls."""
    child(f"import sys; sys.path.insert(0, sys.argv[1])\nfrom test_direct import run_flush\nrun_flush({dtype!r})\n")


def run_flush(dtype):
    """Every operation, in two orders, on arrays that end or begin where memory does."""
    windows = (
        "in5x6_k3x3_s1x1_p1+1x1+1_d1x1",
        "in5x6_k1x1_s1x1_p0+0x0+0_d1x1",
        "in7x6_k2x3_s2x1_p0+0x0+0_d1x1",
        "in2x3_k2x3_s1x1_p0+0x0+0_d1x1",
    )
    operations = ("conv", "conv_input_grad", "conv_weight_grad")
    for columns, operation, order, window in product((1, 7, 16, 17, 31, 33), operations, ORDERS[:2], windows):
        text = f"n1g1i{columns}o{columns}_{window}" + ("" if dtype == "float32" else f"_{dtype}")
        problem = problem_of(operation, text, order)
        expected = run(OPERATIONS[operation].find("im2col"), problem)["out"]
        for arrays, outputs in flush_arrays(problem):
            assert_same(run(OPERATIONS[operation].find("direct"), problem, arrays, outputs)["out"], expected)


@pytest.mark.parametrize("forced", ["avx2", "generic"])
def test_narrower_instruction_sets(forced):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_direct import ORDERS, WIDE, test_many_channels\n"
        "from convkernels.kernels.compiled import isa\n"
        f"assert isa.host().name == {forced!r}\n"
        "for operation in ('conv', 'conv_input_grad', 'conv_weight_grad'):\n"
        "    for text in WIDE[:6]:\n"
        "        for order in ORDERS[:2]: test_many_channels(operation, text, order)\n"
        "from pytest import MonkeyPatch\n"
        "from test_lowering import FEW, ROWS, test_lines_of_pixels_give_the_definition as lines\n"
        "for text in ROWS[:6]: lines(text, False, 1, MonkeyPatch())\n"
        "for text in FEW[:3]: lines(text, True, 1, MonkeyPatch())\n"
    )
    try:
        isa.find(forced)
    except ck.OptionError as error:
        pytest.skip(str(error))
    environment = {**os.environ, "CONVKERNELS_ISA": forced}
    child(code, environment)


def test_the_loops_run_uncompiled_too():
    """For debugging and coverage; the tiles themselves are machine code all the same."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_direct import ORDERS, test_many_channels\n"
        "from convkernels.kernels.compiled import blocks\n"
        "assert not hasattr(blocks.correlate, 'signatures')\n"
        "for operation in ('conv', 'conv_input_grad', 'conv_weight_grad'):\n"
        "    for order in ORDERS[:2]:\n"
        "        test_many_channels(operation, 'n2g2i6o10_in5x9_k3x3_s1x2_p1+1x1+0_d1x1', order)\n"
        "from test_winograd import check\n"
        "check('conv', 'n1g1i4o6_in7x9_k3x3_s1x1_p1+1x1+1_d1x1', ORDERS[0])\n"
        "from pytest import MonkeyPatch\n"
        "import test_scattered as scattered\n"
        "for text in (scattered.THIN[0], scattered.THIN[-1]):\n"
        "    scattered.test_products_are_scattered_where_columns_are_few(text, 'OIHW', 2**12, MonkeyPatch())\n"
        "scattered.test_products_are_scattered_where_pixels_are_few(scattered.FEW[1], 'HWIO', 1, MonkeyPatch())\n"
        "from test_lowering import FEW, test_lines_of_pixels_give_the_definition as lines\n"
        "for windows in (False, True): lines(FEW[0], windows, 1, MonkeyPatch())\n"
    )
    child(code, {**os.environ, "NUMBA_DISABLE_JIT": "1"})


@pytest.mark.parametrize("module", [adding, amounts, axes, copies, filters, lowering, operands, pictures])
def test_examples(module):
    failed, attempted = doctest.testmod(module)
    assert attempted
    assert not failed


def test_auto_takes_tiles_unless_they_are_nearly_empty():
    for text in ("n1g1i64o64_in56x56_k3x3_s2x2_p1+1x1+1_d1x1", "n1g1i1o1_in8x8_k3x3_s1x1_p1+1x1+1_d1x1"):
        assert ck.explain(text).choices[0].chosen.name == "direct"
    reason = "not preferred: groups of {} channels to {} leave vectors nearly empty"
    for text, channels, columns in (
        ("n8g2i258o4_in56x56_k3x3_s1x1_p1+1x1+1_d1x1", 129, 2),
        ("n1g1i64o1_in156x156_k1x1_s1x1_p0+0x0+0_d1x1", 64, 1),
    ):
        reasons = {verdict.implementation.name: verdict.reason for verdict in ck.explain(text).choices[0].verdicts}
        assert reasons["direct"] == reason.format(channels, columns)
    for text in ("n8g2i256o4_in56x56_k3x3_s1x1_p1+1x1+1_d1x1", "n8g1i512o1_in56x56_k3x3_s2x2_p1+1x1+1_d1x1"):
        assert ck.explain(text).choices[0].chosen.name == "direct"


def test_without_numba_it_declines(monkeypatch):
    from convkernels.kernels.compiled import available  # noqa: PLC0415

    monkeypatch.setattr(available, "missing", lambda: "Numba is not installed: pip install 'convkernels[jit]'")
    x, w = np.ones((1, 64, 56, 56), np.float32), np.ones((64, 64, 3, 3), np.float32)
    assert ck.explain("conv2d", x, w).choices[0].chosen.name == "im2col"
    with pytest.raises(ck.UnsupportedError, match=r"Numba is not installed: pip install 'convkernels\[jit\]'"):
        ck.conv2d(x, w, strategy="direct")


def test_other_types_are_declined():
    with pytest.raises(ck.UnsupportedError, match="computes float32 and float64, not int64"):
        ck.conv2d(np.ones((1, 1, 3, 3), int), np.ones((1, 1, 2, 2), int), strategy="direct")
