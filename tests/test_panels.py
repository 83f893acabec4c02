"""Panels: rows of B gathered from where they lie, weights copied right before their tiles, and the memory for both."""

from __future__ import annotations

from importlib import util

import numpy as np
import pytest
from test_direct import ORDERS, problem_of
from test_direct import test_many_channels as check

import convkernels as ck
from convkernels.config import Resources
from convkernels.operation import OPERATIONS
from convkernels.testing.numeric import assert_same
from convkernels.testing.problems import INPUTS, run

if not util.find_spec("numba"):
    pytest.skip("Numba is not installed", allow_module_level=True)

from convkernels.kernels.compiled import amounts, axes, direct, operands

GATHERED = [
    ("n2g1i40o70_in7x19_k1x1_s1x1_p0+0x0+0_d1x1_bias", ("NCHW", "OIHW")),
    ("n2g2i40o130_in5x19_k1x1_s1x1_p0+0x0+0_d1x1_float64", ("NCHW", "OIHW")),
    ("n1g1i900o70_in1x90_k1x1_s1x1_p0+0x0+0_d1x1", ("NCHW", "OIHW")),
    ("n2g1i40o100_in5x9_k1x1_s1x1_p0+0x0+0_d1x1_bias", ("NHWC", "HWIO")),
    ("n5g1i900o100_in1x33_k1x1_s1x1_p0+0x0+0_d1x1", ("NHWC", "HWIO")),
    ("n1g2i900o70_in11x11_k1x1_s2x2_p0+0x0+0_d1x1", ("NHWC", "HWIO")),
]
"""Panels whose rows lie apart: planes of pixels, and weights that are read where they lie; in one chunk and several."""


@pytest.mark.parametrize(("limit", "threads"), [(2**26, 1), (2**20, 32)])
@pytest.mark.parametrize(("text", "order"), GATHERED)
def test_panels_are_gathered_where_there_is_memory(text, order, limit, threads):
    problem = problem_of("conv", text, order)
    strides = (problem.arrays[role].strides for role in INPUTS["conv"][:2])
    plan = direct.conv_plan(problem.spec, *strides, problem.outputs()["out"].strides, limit, threads)
    rooms = [part.room for part in plan.parts]
    if threads == 1:
        assert min(rooms) > 0
    found = operands.sizes(problem.spec, problem.spec.group_in, problem.spec.group_out)
    counts = (*found[:4], 1, found.size, limit, threads)
    promised = amounts.correlation_amounts(axes.forward_axes(problem.spec), *counts)
    assert plan.bytes + plan.threads * max(rooms) <= promised.bytes(threads, limit)
    check("conv", text, order)


LATE = [
    ("conv", "n1g2i80o130_in6x7_k3x3_s1x1_p1+1x1+1_d1x1_bias", ("NHWC", "OIHW")),
    ("conv", "n2g1i40o70_in9x9_k3x2_s2x2_p1+1x0+1_d1x1", ("NHWC", "OIHW")),
    ("conv_input_grad", "n1g1i70o40_in7x8_k4x4_s2x2_p1+1x1+1_d1x1", ORDERS[1]),
    ("conv_input_grad", "n1g1i70o40_in7x8_k2x5_s3x1_p0+0x2+2_d1x1", ORDERS[1]),
]
"""Weights that one block reads, panels of which are copied right before; remainders along h have taps of their own."""


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("operation", "text", "order"), LATE)
def test_weights_that_one_block_reads_are_copied_panel_by_panel(operation, text, order, threads):
    problem = problem_of(operation, text, order)
    find = direct.conv_plan if operation == "conv" else direct.input_grad_plan
    strides = (problem.arrays[role].strides for role in INPUTS[operation][:2])
    given = problem.spec, *strides, problem.outputs()["out"].strides, 2**26, 1
    once, kept = find(*given), find(*given, kept=True)
    assert once.bytes == 0 < kept.bytes
    rooms = [part.room for part in once.parts if part.room]  # those of remainders without taps read no weights
    assert min(rooms) > max(part.room for part in kept.parts)
    resources = Resources(2**26, threads)
    arrays = [problem.arrays.get(role) for role in INPUTS[operation]]
    expected = run(OPERATIONS[operation].find("im2col"), problem)["out"]
    found = [problem.outputs()["out"] for _ in range(2)]
    implementation = OPERATIONS[operation].find("direct")
    implementation.run(problem.spec, *arrays, out=found[0], resources=resources)
    implementation.keep(problem.spec, *arrays, out=found[1], resources=resources)(*arrays, found[1])
    for out in found:
        assert_same(out, expected)


@pytest.mark.parametrize("axis", range(4))
def test_weights_may_be_one_along_any_axis(axis):
    x, rng = np.ones((1, 7, 7, 64), np.float32), np.random.default_rng(0)
    shape = [3, 3, 64, 96]
    shape[axis] = 1
    w = np.broadcast_to(rng.integers(-3, 4, shape).astype(np.float32), (3, 3, 64, 96))
    options = {"layout": "NHWC", "weight_layout": "HWIO", "padding": 1}
    y, expected = (ck.conv2d(x, w, strategy=name, **options) for name in ("direct", "im2col"))
    assert np.array_equal(y, expected)
    backward = {"x_shape": x.shape, **options}
    dx, expected = (ck.conv2d_input_grad(y, w, strategy=name, **backward) for name in ("direct", "im2col"))
    assert np.array_equal(dx, expected)


@pytest.mark.parametrize(
    "text", ["n1g1i512o65_in25x17_k1x1_s1x1_p0+0x0+0_d1x1", "n1g1i600o70_in9x33_k1x1_s1x1_p0+0x0+0_d1x1"]
)
@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_rows_that_are_taken_together_take_no_more_memory(text, threads):
    problem = problem_of("conv", text, ("NCHW", "OIHW"))
    spec = problem.spec
    last = problem_of("conv", text, ("NHWC", "OIHW")).outputs()["out"].strides
    strides = (problem.arrays[role].strides for role in INPUTS["conv"][:2])
    plan = direct.conv_plan(spec, *strides, last, 2**26, threads)
    counts = (1, 1, spec.group_in, spec.group_out, 1, 4, 2**26, threads)
    promised = amounts.correlation_amounts(axes.forward_axes(spec), *counts).bytes(threads, 2**26)
    assert plan.bytes + plan.threads * max(part.room for part in plan.parts) <= promised
