"""Weights that do not fit the memory that there may be; windows that are whole pictures, as products of matrices."""

from __future__ import annotations

from dataclasses import replace
from importlib import util
from itertools import product

import numpy as np
import pytest
from test_direct import problem_of

import convkernels as ck
from convkernels.config import Resources
from convkernels.errors import WorkspaceError
from convkernels.operation import OPERATIONS
from convkernels.spec import ConvTransposeSpec
from convkernels.testing.numeric import assert_same
from convkernels.testing.problems import INPUTS, Problem, run

if not util.find_spec("numba"):
    pytest.skip("Numba is not installed", allow_module_level=True)

from convkernels.kernels.compiled import direct, needs, one_tap, thread_count
from convkernels.kernels.compiled.parts import of_many

ORDERS = [("NCHW", "OIHW"), ("NHWC", "HWIO"), ("CHWN", "OHWI"), ("NCHW", "IHWO"), ("NCHW", "HWIO")]
WORKSPACES = {
    "conv": needs.workspace,
    "conv_input_grad": needs.workspace_input_grad,
    "conv_weight_grad": needs.workspace_weight_grad,
}
WIDE = [
    "n3g1i70o200_in9x8_k3x3_s1x1_p1+1x1+1_d1x1",
    "n2g1i200o150_in8x9_k3x2_s2x1_p1+0x0+1_d1x1_bias_float64",
    "n2g1i192o129_in3x3_k3x3_s1x1_p0+0x0+0_d1x1",
    "n1g1i150o300_in12_k1_s1_p0+0_d1",
]
WHOLE = [
    *(f"n{batch}g1i24o40_in4x3_k4x3_s1x1_p0+0x0+0_d1x1" for batch in (1, 2, 5, 33)),
    "n3g1i1o5_in5x7_k5x7_s2x3_p0+0x0+0_d1x1_float64",
    "n2g3i6o24_in3x2_k3x2_s1x1_p0+0x0+0_d1x1",
    "n4g1i16o1_in6_k6_s1_p0+0_d1",
    "n7g1i8o70_in2x3x2_k2x3x2_s1x1x1_p0+0x0+0x0+0_d1x1x1",
    "n2g1i100o30_in1x5_k1x5_s1x1_p0+0x0+0_d1x1_bias",
]
PIXELS = [
    *(f"n{batch}g1i40o24_in1x1_k4x3_s1x1_p0+0x0+0_d1x1_bias" for batch in (1, 2, 33)),
    "n2g3i24o6_in1x1_k3x2_s2x1_p0+0x0+0_d1x1_bias",
    "n2g1i9o4_in1_k7_s1_p0+0_d1_bias_float64",
    "n7g1i70o8_in1x1x1_k2x3x2_s1x1x1_p0+0x0+0x0+0_d1x1x1",
]


def implementation_of(operation):
    return OPERATIONS[operation].find("direct")


def tight(workspace, spec):
    """A limit that has room for the least part alone."""
    limit = workspace(spec, 0)
    assert len(workspace.parts(spec, limit)) > 1
    return limit


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
@pytest.mark.parametrize("text", WIDE)
@pytest.mark.parametrize("operation", WORKSPACES)
def test_parts_are_right(operation, text, order, monkeypatch):
    monkeypatch.setattr(thread_count, "SERIAL", 0)
    problem = problem_of(operation, text, order)
    expected = run(OPERATIONS[operation].find("im2col"), problem)["out"]
    limit = tight(WORKSPACES[operation], problem.spec)
    for threads in (1, 2):
        out = problem.outputs()["out"]
        arrays = [problem.arrays[role] for role in INPUTS[operation]]
        implementation_of(operation).run(problem.spec, *arrays, out=out, resources=Resources(limit, threads))
        assert_same(out, expected)


def test_as_few_parts_as_there_must_be():
    spec = problem_of("conv", WIDE[0], ORDERS[0]).spec
    whole = needs.whole_workspace(of_many(spec), 2**26)
    assert needs.workspace.parts(spec, 2**26) == needs.workspace.parts(spec, whole) == (slice(0, 200),)
    assert needs.workspace.parts(spec, 0) == tuple(slice(place, min(place + 64, 200)) for place in (0, 64, 128, 192))
    assert len(needs.workspace.parts(spec, needs.workspace(spec, 0) - 1)) == 4
    grouped = replace(spec, groups=2)
    assert needs.workspace.parts(grouped, 0) == (slice(0, 200),)
    x, w = np.zeros(spec.x_shape, np.float32), np.zeros((200, 70, 3, 3), np.float32)
    least = needs.workspace(spec, 0)
    assert ck.conv2d(x, w, padding=1, strategy="direct", max_workspace=least).shape == spec.y_shape
    with pytest.raises(WorkspaceError, match=f"{least} would do"):
        ck.conv2d(x, w, padding=1, strategy="direct", max_workspace=least - 1)


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_parts_are_the_same_in_a_plan_and_in_any_batch(order):
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((4, 70, 9, 8), (200, 70, 3, 3)))
    bias = rng.standard_normal(200).astype(np.float32)
    layout = {"layout": order[0], "weight_layout": order[1]}
    places = [[whole.index(axis) for axis in given] for whole, given in zip(("NCHW", "OIHW"), order, strict=True)]
    x, w = x.transpose(places[0]).copy(), w.transpose(places[1]).copy()
    spec = problem_of("conv", WIDE[0], order).spec
    given = {**layout, "padding": 1, "strategy": "direct", "max_workspace": tight(needs.workspace, spec)}
    y = ck.conv2d(x, w, bias, **given)
    np.testing.assert_allclose(y, ck.conv2d(x, w, bias, padding=1, strategy="im2col", **layout), rtol=1e-4, atol=1e-3)
    for threads in (1, 2):
        assert np.array_equal(ck.conv2d(x, w, bias, threads=threads, **given), y)
    planned = ck.plan("conv2d", x, w, bias, **given)
    assert np.array_equal(planned(x), y)
    assert np.array_equal(planned(x), y)
    one = np.take(x, [1], order[0].index("N"))
    assert np.array_equal(ck.conv2d(one, w, bias, **given), np.take(y, [1], order[0].index("N")))


@pytest.mark.parametrize("order", [*ORDERS, ("NHWC", "HWOI")], ids="-".join)
@pytest.mark.parametrize("sizes", [(3, 9, 8), (1, 1, 1)])
def test_plans_of_transposed_convolutions_in_parts(sizes, order):
    """A part of weights that lie end to end has gaps, so these may be copied before they are rearranged."""
    rng = np.random.default_rng(0)
    batch, *cells = sizes
    x, w = (rng.integers(-4, 5, shape).astype(np.float32) for shape in ((batch, 70, *cells), (70, 200, 3, 3)))
    bias = rng.integers(-4, 5, 200).astype(np.float32)
    places = [[whole.index(axis) for axis in given] for whole, given in zip(("NCHW", "IOHW"), order, strict=True)]
    x, w = x.transpose(places[0]).copy(), w.transpose(places[1]).copy()
    given = {"layout": order[0], "weight_layout": order[1]}
    expected = ck.conv_transpose2d(x, w, bias, strategy="im2col", **given)
    spec = ConvTransposeSpec.make((batch, 70, *cells), (70, 200, 3, 3), np.dtype(np.float32), bias=True).convolution
    given |= {"strategy": "direct", "max_workspace": tight(needs.workspace_input_grad, spec)}
    assert_same(ck.conv_transpose2d(x, w, bias, **given), expected)
    planned = ck.plan("conv_transpose2d", x, w, bias, **given)
    for _ in range(2):
        assert_same(planned(x), expected)


@pytest.mark.parametrize("limit", [2**15, 2**17, 2**19, 336_699])
def test_parts_do_not_depend_on_the_batch(limit):
    for text in ("n{}g1i64o200_in4_k4_s1_p0+0_d1", "n{}g1i70o200_in9x8_k3x3_s1x1_p1+1x1+1_d1x1"):
        for operation, workspace in WORKSPACES.items():
            specs = [Problem.read(f"{operation}:{text.format(batch)}").spec for batch in (1, 2, 17, 300)]
            first, *others = (workspace.parts(spec, limit) for spec in specs)
            assert others == [first] * 3


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
@pytest.mark.parametrize(("operation", "text"), [*product(WORKSPACES, WHOLE), *product(["conv_transpose"], PIXELS)])
def test_windows_that_are_whole_pictures(operation, text, order):
    problem = problem_of(operation, text, order)
    got, expected = (run(OPERATIONS[operation].find(name), problem)["out"] for name in ("direct", "naive"))
    assert_same(got, expected)


@pytest.mark.parametrize(
    ("order", "alike"), [(("NHWC", "HWIO"), True), (("NCHW", "HWIO"), True), (("NCHW", "IOHW"), False)]
)
def test_they_are_products_if_cells_are_one_axis_of_the_weights(order, alike, monkeypatch):
    planned, plan = [], one_tap.plan
    monkeypatch.setattr(
        one_tap, "plan", lambda problem, *rest, **more: planned.append(problem) or plan(problem, *rest, **more)
    )
    for operation in ("conv", "conv_input_grad"):
        problem = problem_of(operation, WHOLE[2], order)
        arrays = [problem.arrays[role].strides for role in INPUTS[operation][:2]]
        find = direct.conv_plan if operation == "conv" else direct.input_grad_plan
        find.__wrapped__(problem.spec, *arrays, problem.outputs()["out"].strides, 2**26, 1)
    cells = [(problem.channels, problem.columns) for problem in planned if problem.taps == (1, 1, 1)]
    assert cells == ([(24 * 12, 40), (40, 24 * 12)] if alike else [])


@pytest.mark.parametrize("operation", ["conv2d", "conv2d_input_grad"])
@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_weights_with_gaps_add_up_alike(operation, order):
    rng = np.random.default_rng(0)
    sizes = dict(zip("OIHW", (40, 24, 4, 3), strict=True))
    shape = [sizes[axis] for axis in order[1]]
    w = rng.standard_normal([2 * size for size in shape]).astype(np.float32)[tuple(slice(size) for size in shape)]
    place = {"N": 5, "C": 24 if operation == "conv2d" else 40, "H": 4, "W": 3}
    if operation != "conv2d":
        place |= {"H": 1, "W": 1}
    x = rng.standard_normal([place[axis] for axis in order[0]]).astype(np.float32)
    given = {"layout": order[0], "weight_layout": order[1], "strategy": "direct"}
    if operation != "conv2d":
        x_shape = {"N": 5, "C": 24, "H": 4, "W": 3}
        given["x_shape"] = tuple(x_shape[axis] for axis in order[0])
    function = getattr(ck, operation)
    y = function(x, w, **given)
    assert np.array_equal(function(x, w.copy(), **given), y)
    one = np.take(x, [2], order[0].index("N"))
    if operation != "conv2d":
        given["x_shape"] = tuple({**x_shape, "N": 1}[axis] for axis in order[0])
    assert np.array_equal(function(one, w, **given), np.take(y, [2], order[0].index("N")))
