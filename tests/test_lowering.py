"""Blocks in which rows of outputs are one line, and the choice between them and other ways."""

from __future__ import annotations

import ctypes
import tracemalloc
from importlib import util
from itertools import product

import numpy as np
import pytest
from guard import flush_arrays
from test_direct import problem_of

import convkernels as ck
from convkernels.operation import OPERATIONS
from convkernels.testing.numeric import assert_same
from convkernels.testing.problems import INPUTS, Problem, run

if not util.find_spec("numba"):
    pytest.skip("Numba is not installed", allow_module_level=True)

from convkernels.kernels.compiled import amounts, axes, choice, correlation, direct, isa, operands, spaced
from convkernels.kernels.compiled.ways import Walk
from convkernels.kernels.compiled.weighted import execute

LIMIT = 2**26
ROWS = [
    "n2g1i5o7_in9x20_k3x3_s1x1_p1+1x1+1_d1x1_bias",
    "n1g1i3o20_in31x33_k3x3_s2x2_p0+1x1+0_d1x1",
    "n2g3i9o30_in14x14_k3x3_s1x1_p1+1x1+1_d1x1_bias",
    "n1g1i2o40_in23x60_k7x7_s2x2_p3+2x3+2_d1x1",
    "n1g1i4o6_in30x37_k5x4_s3x4_p7+0x0+9_d2x3_bias",
    "n2g2i6o10_in11x17_k2x3_s4x1_p1+3x6+6_d3x6_float64",
    "n1g1i40o9_in15x8_k3x3_s1x1_p1+1x1+1_d1x1_float64",
    "n1g1i3o5_in41_k4_s3_p2+5_d2_bias",
    "n2g1i3o8_in5x7x9_k3x2x3_s2x1x2_p1+1x1+0x1+2_d1x2x1_bias",
    "n1g1i8o16_in16x16_k1x1_s2x2_p0+-1x0+-1_d1x1",
    "n1g1i1o3_in3x50_k1x3_s1x1_p0+0x1+1_d1x1",
]
"""Padding on each side, none, and more than windows reach; steps with remainders; groups; taps far apart; 1-D, 3-D."""
FEW = [
    "n2g1i5o7_in9x20_k3x3_s1x1_p1+1x1+1_d1x1_bias",
    "n2g1i40o70_in9x9_k3x2_s2x2_p1+1x0+1_d1x1_bias",
    "n1g2i24o36_in7x7_k3x3_s1x1_p1+1x1+1_d1x1_float64",
    "n1g1i9o33_in13x13_k1x3_s1x3_p0+0x4+4_d1x2",
    "n1g1i9o24_in3x8x8_k1x3x3_s2x1x1_p0+0x1+1x1+1_d1x1x1_bias",
    "n1g1i7o12_in50_k5_s2_p2+2_d1",
]
"""Few pixels."""


def forced(along):
    """A choice of lowered blocks for that walk, or for those that are not of windows."""

    def choose(problem, every, memory, host):
        ways = choice.pixel_ways(problem, every, memory, choice.in_order(problem, every, memory))
        return next((way, *rest) for way, *rest in ways if way.lowered and (way.along is Walk.WINDOWS) == along)

    return choose


def laid(array, order):
    """The same numbers with their axes in another order in memory, from the outermost to the innermost."""
    places = [order.index(axis) for axis in range(array.ndim)]
    return np.ascontiguousarray(array.transpose(order)).transpose(places)


def strides(problem):
    return [problem.arrays[role].strides for role in INPUTS["conv"][:2]]


def first_parts(problem):
    """A convolution as a correlation: its problem, memory and axes."""
    out = problem.outputs()["out"].strides
    return *operands.forward(problem.spec, *strides(problem), out), (axes.forward_axes(problem.spec),)


@pytest.mark.parametrize(("text", "windows"), [*product(ROWS, [False]), *product(FEW, [True])], ids=str)
@pytest.mark.parametrize("threads", [1, 3])
def test_lines_of_pixels_give_the_definition(text, windows, threads, monkeypatch):
    problem = Problem.read(f"conv:{text}")
    monkeypatch.setattr(correlation, "choose", forced(windows))
    expected = run(OPERATIONS["conv"].find("im2col"), problem)["out"]
    x, w, b = (problem.arrays.get(role) for role in INPUTS["conv"])
    rank = x.ndim
    last = tuple(range(rank))
    # Rows of x that are gaps apart, pixels that are channels apart, and rows of outputs that channels lie between.
    wide = np.zeros((*x.shape[:-1], x.shape[-1] + 3), x.dtype)
    wide[..., : x.shape[-1]] = x
    between = (0, *range(2, rank - 1), 1, rank - 1)
    given = [(x, last), (wide[..., : x.shape[-1]], last), (laid(x, (0, *range(2, rank), 1)), last), (x, between)]
    for source, order in given:
        for limit in (LIMIT, 0):
            out = laid(np.full(expected.shape, np.nan, expected.dtype), order)
            axes_of = axes.forward_axes(problem.spec)
            found, _, _ = first_parts(problem)
            counts = (*found[:4], np.prod(found.taps), found.size)
            least = amounts.correlation_amounts(axes_of, *counts, 0, threads).bytes(1, 0)
            plan = direct.conv_plan.__wrapped__(
                problem.spec, source.strides, w.strides, out.strides, max(limit, least), threads
            )
            rooms = [part.room for part in plan.parts]
            promised = amounts.correlation_amounts(axes_of, *counts, max(limit, least), threads)
            assert plan.bytes + plan.threads * max(rooms) <= promised.bytes(threads, max(limit, least))
            execute(plan, source, w, b, out)
            assert_same(out, expected)


@pytest.mark.parametrize(("text", "windows"), [*product(ROWS[:6], [False]), *product(FEW[:4], [True])], ids=str)
def test_nothing_outside_of_arrays_is_touched(text, windows, monkeypatch):
    problem = Problem.read(f"conv:{text}")
    monkeypatch.setattr(correlation, "choose", forced(windows))
    expected = run(OPERATIONS["conv"].find("im2col"), problem)["out"]
    for arrays, outputs in flush_arrays(problem):
        (x, w, b), out = (arrays.get(role) for role in INPUTS["conv"]), outputs["out"]
        plan = direct.conv_plan.__wrapped__(problem.spec, x.strides, w.strides, out.strides, LIMIT, 1)
        execute(plan, x, w, b, out)
        assert_same(out, expected)


@pytest.mark.parametrize("view", [np.s_[..., :3], np.s_[:, ::-1, :, :3], np.s_[:, ::-1, ::-1, 2::-1]], ids=str)
def test_a_plan_has_the_bits_of_a_call_by_weights_with_gaps(view):
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((1, 256, 10, 6), (128, 256, 3, 4)))
    called = ck.conv2d(x, w[view], stride=(3, 1), strategy="direct")
    assert np.array_equal(called, ck.plan("conv2d", x, w[view], stride=(3, 1), strategy="direct")(x))
    assert np.array_equal(called, ck.conv2d(x, w[view].copy(), stride=(3, 1), strategy="direct"))


def test_the_bias_of_all_groups_is_within_what_is_promised():
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((1, 64, 9, 9), (64 * 96, 1, 3, 3)))
    b, out = np.ones(64 * 96, np.float32), np.empty((1, 64 * 96, 7, 7), np.float32)
    for _ in range(2):
        ck.conv2d(x, w, b, groups=64, strategy="direct", threads=1, out=out)
    tracemalloc.start()
    ck.conv2d(x, w, b, groups=64, strategy="direct", threads=1, out=out)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    spec = Problem.read("conv:n1g64i64o6144_in9x9_k3x3_s1x1_p0+0x0+0_d1x1").spec
    assert peak <= OPERATIONS["conv"].find("direct").workspace(spec, LIMIT)


@pytest.mark.parametrize(
    ("text", "along"),
    [
        ("n1g1i3o32_in224x224_k3x3_s2x2_p1+0x1+0_d1x1", Walk.CHANNELS),
        ("n1g32i512o512_in14x14_k3x3_s1x1_p1+1x1+1_d1x1", Walk.CHANNELS),
        ("n1g1i192o320_in17x17_k3x3_s2x2_p0+0x0+0_d1x1", Walk.WINDOWS),
    ],
)
def test_blocks_are_lowered_where_that_was_measured_to_be_faster(text, along):
    problem = problem_of("conv", text, ("NCHW", "OIHW"))
    found, memory, every = first_parts(problem)
    way = choice.choose(found, every, memory, isa.ISAS[0])[0]
    assert (way.lowered, way.along) == (True, along)


@pytest.mark.parametrize("text", [ROWS[1], FEW[1], "n1g1i3o32_in224x224_k3x3_s2x2_p1+0x1+0_d1x1"])
def test_the_way_depends_neither_on_the_batch_nor_on_gaps(text):
    problem = problem_of("conv", text, ("NCHW", "OIHW"))
    found, memory, every = first_parts(problem)
    ways = set()
    for batch, gap in product((1, 2, 50), (0, 64)):
        x, y = (each._replace(h=each.h + gap, channel=each.channel + gap) for each in (memory.x, memory.y))
        given = found._replace(batch=batch), every, memory._replace(x=x, y=y)
        ways.add(choice.choose(*given, isa.ISAS[0])[0])
    assert len(ways) == 1


@pytest.mark.parametrize(
    "host", [each for each in isa.ISAS if each.name in {"avx512", "avx2"}], ids=lambda host: host.name
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_rows_of_cells_some_steps_apart(host, dtype, step):
    if isa.ISAS.index(isa.host()) > isa.ISAS.index(host):
        pytest.skip(f"no {host.name} here")
    size, rng = np.dtype(dtype).itemsize, np.random.default_rng(step)
    copy = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * len(spaced.ARGUMENTS))(spaced.address(size, host, step))
    for first, cells, columns in [(0, 40, 9), (-5, 40, 16), (-70, 30, 40), (3, 20, 33), (19, 20, 5), (0, 1, 1)]:
        x = rng.standard_normal((2, 6, cells)).astype(dtype)
        target = np.full((2, 7, columns + 3), np.nan, dtype)
        rows = (1, 3, 2)
        copy(
            *(x.ctypes.data + first * size, x.strides[0], 2 * x.strides[1]),
            *(target.ctypes.data, *target.strides[:2], 2, *rows, columns, first, cells),
        )
        places = first + step * np.arange(columns)
        inside = (places >= 0) & (places < cells)
        expected = np.where(inside, x[:, :6:2, np.clip(places, 0, cells - 1)], 0)
        assert np.array_equal(target[:, 1:4, :columns], expected)
        assert not target[:, [0, 4, 5], :columns].any()
        assert np.isnan(target[:, 6]).all()
        assert np.isnan(target[..., columns:]).all()
