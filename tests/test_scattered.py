"""Gradients by pictures, and convolutions to some, as products that are added up where windows overlap."""

from __future__ import annotations

import itertools
from dataclasses import replace
from importlib import util

import numpy as np
import pytest

import convkernels as ck
from convkernels.errors import WorkspaceError
from convkernels.layout import Layout
from convkernels.testing.numeric import assert_same
from convkernels.testing.problems import INPUTS, Problem, run

if not util.find_spec("numba"):
    pytest.skip("Numba is not installed", allow_module_level=True)

from convkernels.kernels.compiled import direct, scattered, scattering
from convkernels.kernels.compiled.weighted import execute
from convkernels.operation import OPERATIONS

THIN = [
    "n2g1i3o64_in30x37_k4x4_s2x2_p1+1x1+1_d1x1",
    "n1g1i3o48_in119x120_k9x8_s4x4_p2+3x0+1_d1x1_float64",
    "n1g1i2o50_in150x111_k3x3_s4x3_p0+0x1+0_d2x1_float64",
    "n1g1i1o60_in3000_k50_s7_p3+2_d1_float64",
    "n1g1i4o48_in9x14x21_k3x4x5_s2x1x2_p1+0x1+1x2+2_d1x1x1_float64",
    "n2g1i3o48_in30x37_k3x3_s1x1_p1+1x1+1_d1x1",
    "n1g1i8o64_in21x40_k3x4_s2x3_p1+1x2+0_d1x2",
    "n1g1i2o64_in20x40_k3x4_s1x1_p5+4x1+1_d1x1",
    "n1g1i1o8_in9x12x31_k2x3x5_s1x1x2_p1+0x1+1x2+2_d1x1x1_float64",
    "n3g1i3o50_in2x3_k2x2_s1x2_p0+0x0+-1_d1x1",
]
"""Blocks of pixels, between which windows overlap or leave rows that none reaches, or which see padding alone; 1-D
and 3-D; one pixel."""


FEW = [
    "n7g1i6o64_in8x8_k4x4_s2x2_p1+1x1+1_d1x1",
    "n1g1i9o50_in4x4_k3x3_s1x1_p1+1x1+1_d1x1",
    "n4g1i7o49_in5x3_k2x3_s1x1_p0+1x1+1_d1x1_float64",
    "n5g1i5o48_in9_k4_s2_p1+2_d1",
    "n3g1i17o48_in2x3x4_k2x3x2_s1x2x1_p0+1x1+1x0+0_d1x1x1_float64",
    "n2g1i5o53_in9x4_k3x2_s2x1_p0+0x0+0_d2x1",
]
"""Few pixels from many channels to more than four columns."""

FORWARD = [
    "n2g1i64o3_in30x37_k3x3_s1x1_p1+1x1+1_d1x1",
    "n1g1i65o4_in41x40_k4x2_s1x1_p0+3x2+-1_d2x1_float64",
    "n3g1i48o1_in20x40_k5x6_s1x1_p-1+1x0+7_d1x1",
    "n1g1i200o2_in9x150_k1x3_s1x1_p0+0x1+1_d1x2_float64",
    "n2g1i33o1_in9x14x21_k3x1x5_s1x1x1_p0+1x1+1x2+2_d1x2x1",
]
"""Convolutions without steps of many channels to few, with padding and crops of all kinds."""


def plan_of(problem, **options):
    """The plan of an input gradient."""
    strides = (problem.arrays[role].strides for role in INPUTS["conv_input_grad"][:2])
    return direct.input_grad_plan(problem.spec, *strides, problem.outputs()["out"].strides, 2**26, 2, **options)


@pytest.mark.parametrize("block", [2**12, 2**19])
@pytest.mark.parametrize(("text", "order"), [*itertools.product(THIN, ["OIHW", "HWIO", "OHWI", "HOWI"])])
def test_products_are_scattered_where_columns_are_few(text, order, block, monkeypatch):
    problem = Problem.read(f"conv_input_grad:{text}")
    given = replace(problem, weight_layout=Layout(order.replace("HW", problem.layout.axes[2:]), "OI"))
    if "OW" in order:
        given = replace(problem, weight_layout=Layout(problem.layout.axes[2:-1] + "OWI", "OI"))
    monkeypatch.setattr(scattering, "BLOCK", block)
    expected = run(OPERATIONS["conv_input_grad"].find("im2col"), problem)["out"]
    dy, w = (given.arrays[role] for role in INPUTS["conv_input_grad"][:2])
    for threads in (1, 3):
        out = np.full_like(expected, np.nan)
        plan = direct.input_grad_plan.__wrapped__(given.spec, dy.strides, w.strides, out.strides, 2**26, threads)
        assert isinstance(plan, scattered.Scattered) == (order != "HOWI" or given.spec.window.rank == 1)
        if order == "OIHW" and text != THIN[-1]:
            assert block == 2**19 or len(plan.blocks) > 1
        execute(plan, dy, w, None, out)
        assert_same(out, expected)


@pytest.mark.parametrize("block", [2**12, 2**19])
@pytest.mark.parametrize(("text", "order"), [*itertools.product(FORWARD, ["NCHW", "NHWC", "CNWH"])])
def test_convolutions_to_few_channels_are_the_gradients_of_mirrored_ones(text, order, block, monkeypatch):
    problem = Problem.read(f"conv:{text}")
    monkeypatch.setattr(scattering, "BLOCK", block)
    spatial = problem.layout.axes[2:]
    layout = order.replace("HW", spatial).replace("WH", spatial[::-1])
    given = replace(problem, layout=Layout(layout), weight_layout=Layout(spatial + "IO", "OI"))
    x, w, b = (given.arrays[role] for role in INPUTS["conv"])
    expected = run(OPERATIONS["conv"].find("im2col"), given)["out"]
    for threads in (1, 3):
        out = np.full_like(expected, np.nan)
        plan = direct.conv_plan.__wrapped__(given.spec, x.strides, w.strides, out.strides, 2**26, threads)
        assert isinstance(plan.inner, scattered.Scattered)
        for _ in range(2):
            execute(plan, x, w, b, out)
            assert_same(out, expected)


@pytest.mark.parametrize(("layout", "order"), [("NCHW", "OIHW"), ("NHWC", "HWIO"), ("WHNC", "IWOH")])
def test_convolutions_to_few_channels_have_the_same_bits_in_any_batch_by_a_plan_and_by_weights_with_gaps(layout, order):
    """And when they are made again."""
    rng = np.random.default_rng(0)
    counts = {"N": 3, "C": 100, "H": 30, "W": 21}
    x = rng.standard_normal([counts[axis] for axis in layout]).astype(np.float32)
    sizes = {"O": 3, "I": 100, "H": 3, "W": 8}
    w = rng.standard_normal([sizes[axis] for axis in order]).astype(np.float32)
    w = w[tuple(np.s_[::2] if axis == "W" else np.s_[:] for axis in order)]
    b = rng.standard_normal(3).astype(np.float32)
    options = {"padding": 1, "layout": layout, "weight_layout": order, "strategy": "direct"}
    called = ck.conv2d(x, w, b, **options)
    np.testing.assert_allclose(called, ck.conv2d(x, w, b, **{**options, "strategy": "im2col"}), rtol=0, atol=1e-3)
    for threads in (1, 2):
        for _ in range(3):
            assert np.array_equal(called, ck.conv2d(x, w.copy(), b, threads=threads, **options))
        assert np.array_equal(called, ck.plan("conv2d", x, w, b, threads=threads, **options)(x))
        for image in range(3):
            one, expected = (np.take(each, [image], axis=layout.index("N")) for each in (x, called))
            assert np.array_equal(expected, ck.conv2d(one, w, b, threads=threads, **options))


@pytest.mark.parametrize("together", [1, 3 * 2**14])
@pytest.mark.parametrize(("text", "order"), [*itertools.product(FEW, ["OIHW", "HWIO", "OHWI", "IOHW"])])
def test_products_are_scattered_where_pixels_are_few(text, order, together, monkeypatch):
    """One image or several at a time, of which there may be fewer at last; by weights whose columns are one axis."""
    monkeypatch.setattr(scattering, "WEIGHTS", 0)
    monkeypatch.setattr(scattering, "TOGETHER", together)
    problem = Problem.read(f"conv_input_grad:{text}")
    given = replace(problem, weight_layout=Layout(order.replace("HW", problem.layout.axes[2:]), "OI"))
    expected = run(OPERATIONS["conv_input_grad"].find("im2col"), problem)["out"]
    dy, w = (given.arrays[role] for role in INPUTS["conv_input_grad"][:2])
    for place, threads in itertools.product(itertools.permutations(range(dy.ndim)), (1, 3)):
        order_of = np.argsort(place)
        here, out = (np.ascontiguousarray(each.transpose(place)).transpose(order_of) for each in (dy, expected))
        out = np.full_like(out, np.nan)
        plan = direct.input_grad_plan.__wrapped__(given.spec, here.strides, w.strides, out.strides, 2**26, threads)
        assert isinstance(plan, scattered.Scattered) == (order != "IOHW")
        if order != "IOHW":
            assert together == 1 or plan.several > 1 or given.spec.batch == 1
        for _ in range(2):
            execute(plan, here, w, None, out)
            assert_same(out, expected)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "CHWN"])
@pytest.mark.parametrize("order", ["IOHW", "HWOI"])
@pytest.mark.parametrize(("channels", "images"), [(256, 9), (257, 4)])
def test_few_pixels_have_the_same_bits_in_any_batch_by_a_plan_and_by_weights_with_gaps(
    layout, order, channels, images, monkeypatch
):
    """One image is left of some at a time: 10 pixels, whose panels have another width by 32 registers."""
    monkeypatch.setattr(scattering, "TOGETHER", images * 10 * 80 * 16 * 4)
    rng = np.random.default_rng(0)
    counts, sizes = {"N": 9, "C": channels, "H": 5, "W": 2}, {"I": channels, "O": 80, "H": 4, "W": 4}
    x = rng.standard_normal([counts[axis] for axis in layout]).astype(np.float32)
    w = rng.standard_normal([sizes[axis] for axis in order]).astype(np.float32)
    gaps = np.repeat(w, 2, axis=0)[::2]
    b = rng.standard_normal(80).astype(np.float32)
    options = {"stride": 2, "padding": 1, "strategy": "direct", "layout": layout, "weight_layout": order}
    called = ck.conv_transpose2d(x, w, b, **options)
    expected = ck.conv_transpose2d(
        x.astype(float), w.astype(float), b.astype(float), **{**options, "strategy": "im2col"}
    )
    np.testing.assert_allclose(called, expected, rtol=0, atol=2e-3)
    for threads in (1, 2):
        assert np.array_equal(called, ck.conv_transpose2d(x, gaps, b, threads=threads, **options))
        assert np.array_equal(called, ck.plan("conv_transpose2d", x, gaps, b, threads=threads, **options)(x))
        for image in (0, 8):
            one = np.take(x, [image], axis=layout.index("N"))
            found = ck.conv_transpose2d(one, w, b, threads=threads, **options)
            assert np.array_equal(found, np.take(called, [image], axis=layout.index("N")))


@pytest.mark.parametrize(
    ("text", "layout", "threads"), [*itertools.product([*THIN[:3], THIN[-1]], ["NCHW", "NHWC"], [1, 3])]
)
def test_a_transposed_convolution_adds_its_bias_once(text, layout, threads):
    spec = Problem.read(f"conv_input_grad:{text}").spec
    rng = np.random.default_rng(0)
    shapes = [tuple(spec.y_shape["NCHW".index(axis)] for axis in layout), spec.w_shape, spec.x_shape[1:2]]
    x, w, b = (rng.integers(-3, 4, shape).astype(spec.dtype) for shape in shapes)
    window = spec.window
    size = {"output_size": window.in_size} if all(step > 1 for step in window.stride) else {}
    options = {"stride": window.stride, "padding": window.padding, "dilation": window.dilation, **size}
    options |= {"layout": layout, "weight_layout": "IOHW"}
    got = ck.conv_transpose2d(x, w, b, strategy="direct", threads=threads, **options)
    assert_same(got, ck.conv_transpose2d(x, w, b, strategy="im2col", **options))
    planned = ck.plan("conv_transpose2d", x, w, b, strategy="direct", threads=threads, **options)
    assert_same(planned(x), got)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "CNHW", "CHWN", "HWNC", "WHCN"])
@pytest.mark.parametrize(("size", "batch"), [((6, 4), 3), ((120, 62), 2)])
def test_calls_made_again_and_plans_are_right_in_all_layouts(layout, size, batch):
    rng = np.random.default_rng(0)
    counts = {"N": batch, "C": 64, "H": size[0] // 2, "W": size[1] // 2}
    dy = rng.integers(-3, 4, [counts[axis] for axis in layout]).astype(np.float32)
    w = rng.integers(-3, 4, (64, 3, 4, 4)).astype(np.float32)
    options = {"stride": 2, "padding": 1, "layout": layout}
    shape = tuple({**counts, "C": 3, "H": size[0], "W": size[1]}[axis] for axis in layout)
    expected = ck.conv2d_input_grad(dy, w, x_shape=shape, weight_layout="OIHW", strategy="im2col", **options)
    for threads in (1, 2):
        backward = {**options, "weight_layout": "OIHW", "x_shape": shape, "strategy": "direct", "threads": threads}
        for _ in range(3):
            assert_same(ck.conv2d_input_grad(dy, w, **backward), expected)
        transposed = {**options, "weight_layout": "IOHW", "strategy": "direct", "threads": threads}
        planned = ck.plan("conv_transpose2d", dy, w, **transposed)
        for _ in range(3):
            assert_same(ck.conv_transpose2d(dy, w, **transposed), expected)
            assert_same(planned(dy), expected)


@pytest.mark.parametrize("view", [np.s_[..., ::2], np.s_[:, ::-1, :, :4], np.s_[:, ::-1, ::-1, 3::-1]], ids=str)
def test_a_plan_has_the_bits_of_a_call_by_weights_with_gaps(view):
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((1, 300, 3, 2), (300, 3, 4, 8)))
    options = {"stride": 2, "padding": 1, "weight_layout": "IOHW", "strategy": "direct"}
    called = ck.conv_transpose2d(x, w[view], **options)
    assert np.array_equal(called, ck.plan("conv_transpose2d", x, w[view], **options)(x))
    assert np.array_equal(called, ck.conv_transpose2d(x, w[view].copy(), **options))


@pytest.mark.parametrize(
    "text",
    [
        "n1g1i5o64_in10x6_k4x4_s2x2_p1+1x1+1_d1x1",
        "n1g1i3o40_in10x6_k4x4_s2x2_p1+1x1+1_d1x1",
        "n1g2i6o128_in10x6_k4x4_s2x2_p1+1x1+1_d1x1",
        "n1g1i3o64_in10x6_k3x3_s1x1_p1+1x1+1_d1x1",
        "n1g1i3o64_in10x16_k5x5_s2x2_p1+1x1+1_d1x1",
        "n1g1i9o64_in30x30_k5x5_s2x2_p1+1x1+1_d1x1",
        "n1g1i3o14_in30x30_k5x5_s2x2_p1+1x1+1_d1x1",
        "n1g1i3o47_in30x30_k3x3_s1x1_p1+1x1+1_d1x1",
        "n1g1i3o64_in9x9_k3x3_s1x1_p1+1x1+1_d1x1",
        "n1g1i3o64_in10x6_k1x1_s2x2_p0+-1x0+-1_d1x1",
        "n1g1i3o64_in500x500_k2x2_s100x100_p0+-98x0+-98_d1x1",
        "n1g1i3o64_in1x1_k3x3_s2x2_p1+1x1+1_d1x1",
        "n0g1i3o64_in10x6_k4x4_s2x2_p1+1x1+1_d1x1",
    ],
)
def test_they_are_not_elsewhere(text):
    """For many columns, few channels, groups, few products, single taps, far steps, padding, or no image."""
    assert not isinstance(plan_of(Problem.read(f"conv_input_grad:{text}")), scattered.Scattered)


def test_one_image_has_the_bits_of_many():
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((5, 100, 3, 2), (100, 3, 4, 4)))
    options = {"stride": 2, "padding": 1, "strategy": "direct", "weight_layout": "IOHW"}
    many = ck.conv_transpose2d(x, w, **options)
    for image in range(5):
        assert np.array_equal(many[image : image + 1], ck.conv_transpose2d(x[image : image + 1], w, **options))


@pytest.mark.parametrize(
    "text",
    [
        "n1g1i64o5_in30x37_k3x3_s1x1_p1+1x1+1_d1x1",
        "n1g1i64o3_in30x37_k3x3_s2x1_p1+1x1+1_d1x1",
        "n1g1i47o3_in30x37_k3x3_s1x1_p1+1x1+1_d1x1",
        "n1g2i128o6_in30x37_k3x3_s1x1_p1+1x1+1_d1x1",
        "n1g1i64o3_in30x37_k1x1_s1x1_p0+0x0+0_d1x1",
        "n1g1i64o1_in8x8_k3x3_s1x1_p1+1x1+1_d1x1",
        "n0g1i64o3_in30x37_k3x3_s1x1_p1+1x1+1_d1x1",
    ],
)
def test_convolutions_are_not_elsewhere(text):
    """To many channels, with steps, from few channels, in groups, by single taps, of few operations, or no image."""
    problem = Problem.read(f"conv:{text}")
    strides = (each.strides for each in (problem.arrays["x"], problem.arrays["w"], problem.outputs()["out"]))
    plan = direct.conv_plan(problem.spec, *strides, 2**26, 2)
    assert not hasattr(plan, "inner")


@pytest.mark.parametrize("text", [THIN[0], "n5g1i40o256_in8x8_k4x4_s2x2_p1+1x1+1_d1x1"])
def test_memory_is_as_promised(text):
    problem = Problem.read(f"conv_input_grad:{text}")
    implementation = OPERATIONS["conv_input_grad"].find("direct")
    needed = implementation.workspace(problem.spec, 0)
    x, w = (problem.arrays[role] for role in INPUTS["conv_input_grad"][:2])
    options = {"x_shape": problem.spec.x_shape, "stride": 2, "padding": 1, "strategy": "direct"}
    expected = run(OPERATIONS["conv_input_grad"].find("naive"), problem)["out"]
    assert_same(ck.conv2d_input_grad(x, w, max_workspace=needed, **options), expected)
    with pytest.raises(WorkspaceError, match="max_workspace"):
        ck.conv2d_input_grad(x, w, max_workspace=needed - 1, **options)
