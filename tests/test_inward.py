"""Problems whose spatial axes of one cell are not the first are those that are."""

from __future__ import annotations

import doctest
from dataclasses import replace
from importlib import util

import numpy as np
import pytest

import convkernels as ck
from convkernels.layout import Layout
from convkernels.operation import OPERATIONS
from convkernels.testing.numeric import assert_same
from convkernels.testing.problems import Problem, run

if not util.find_spec("numba"):
    pytest.skip("Numba is not installed", allow_module_level=True)

from convkernels.kernels.compiled import inward

COLUMNS = [
    "n2g1i40o33_in30x1_k3x1_s1x1_p1+1x0+0_d1x1",
    "n1g2i32o64_in41x1_k5x1_s2x7_p2+1x0+3_d1x4_float64",
    "n2g1i24o17_in7x1x9_k3x1x2_s1x1x1_p1+1x0+0x0+1_d1x1x1",
    "n3g1i130o9_in5x1x1_k1x1x1_s1x1x1_p0+0x0+0x0+0_d1x1x1",
    "n2g6i6o12_in25x1_k4x1_s2x1_p1+1x0+0_d1x1",
    "n1g1i64o2_in33x20x1_k3x3x1_s1x1x1_p1+1x1+1x0+0_d1x1x1",
]


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "WCHN"])
@pytest.mark.parametrize("strategy", ["direct", "winograd", "depthwise"])
@pytest.mark.parametrize("text", COLUMNS)
@pytest.mark.parametrize("operation", ["conv", "conv_input_grad", "conv_weight_grad"])
def test_a_column_is_right(operation, text, strategy, layout):
    problem = Problem.read(f"{operation}:{text}")
    spatial = problem.layout.axes[2:]
    problem = replace(problem, layout=Layout(layout.replace("HW", spatial).replace("WCH", f"{spatial[::-1]}C")))
    implementation = next((each for each in OPERATIONS[operation].implementations if each.name == strategy), None)
    if implementation is None or implementation.supports(problem.spec):
        return
    expected = run(OPERATIONS[operation].find("im2col"), problem)["out"]
    for _ in range(2):
        found = run(implementation, problem)["out"]
        if strategy == "winograd":
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-2)
        else:
            assert_same(found, expected)


def test_a_column_has_the_bits_of_a_row():
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 70, 50, 1), (40, 70, 3, 1)))
    column = ck.conv2d(x, w, padding=(1, 0))
    assert np.array_equal(column.swapaxes(2, 3), ck.conv2d(x.swapaxes(2, 3), w.swapaxes(2, 3), padding=(0, 1)))
    assert np.array_equal(column, ck.plan("conv2d", x, w, padding=(1, 0))(x))


@pytest.mark.parametrize(
    "text",
    [
        "n1g1i8o8_in30x1_k3x3_s1x1_p1+1x1+1_d1x1",
        "n1g1i8o8_in30x1_k3x1_s1x1_p1+1x1+1_d1x1",
        "n1g1i8o8_in30x2_k3x2_s1x1_p1+1x0+0_d1x1",
        "n1g1i8o8_in1x30_k1x3_s1x1_p0+0x1+1_d1x1",
    ],
)
def test_others_stay_as_they_are(text):
    spec = Problem.read(f"conv:{text}").spec
    assert inward.inward(spec) is spec


def test_examples():
    failed, attempted = doctest.testmod(inward)
    assert attempted
    assert not failed
