"""The comparison with peers: which layers, which cells of them, and the library's own part."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from helpers import load_script

pytest.importorskip("rich", reason="the comparison needs the extra convkernels[cli]")
pytest.importorskip("threadpoolctl", reason="the comparison needs the extra convkernels[cli]")

import convkernels as ck
from convkernels.cli.bench import ours
from convkernels.cli.bench.cells import Cell, Selection, axes_of, processors
from convkernels.cli.bench.problems import KINDS, Layer, sample
from convkernels.cli.bench.task import Task, even_padding

TRANSPOSED = "conv_transpose:n1g1i4o3_in4x5_k3x3_s2x2_p1+1x1+1_d1x1_op1x1"
CONV = "n1g1i4o6_in6x5_k3x3_s2x1_p1+1x1+1_d1x1"


def cell(problem: str, direction: str = "forward", dtype: str = "float32", batch: int = 1) -> Cell:
    return Cell(Layer(problem, "test"), direction, dtype, batch, 1)


# Problems


def test_the_convolutions_are_those_that_the_rule_chooses():
    sampling = load_script("peers/sampling.py")
    chosen = sampling.sampled(sampling.ALL_PROBLEMS.read_text())
    assert sample()[: len(chosen)] == chosen
    assert len(chosen) == sum(sampling.QUOTAS.values()) == 60
    assert max(layer.spec.flops for layer in chosen) <= sampling.MOST_OPERATIONS
    for kind, wanted in sampling.QUOTAS.items():
        assert sum(layer.kind == kind for layer in chosen) == wanted


def test_the_rule_spaces_by_cost_and_counts_a_problem_once():
    sampling = load_script("peers/sampling.py")
    sizes = [*range(9, 0, -1), 5, 10_000]  # the same twice, and one that is too dear
    lines = [f"n{size}g1i64o64_in{size}x{size}_k1x1_s1x1_p0+0x0+0_d1x1\tnet:{size}" for size in sizes]
    chosen = sampling.sampled("\n".join(["# a comment", *lines]))
    assert [layer.spec.window.in_size[0] for layer in chosen] == list(range(1, 10))
    assert all(layer.spec.batch == 1 for layer in chosen)


def test_layers_are_distinct_and_of_every_kind():
    layers = sample()
    assert len({layer.problem for layer in layers}) == len(layers)
    assert {layer.kind for layer in layers} == set(KINDS)
    for layer in layers:
        assert f":{layer.spec}".endswith(layer.problem)
        assert layer.spec.dtype == np.float32


@pytest.mark.parametrize(
    ("problem", "kind"),
    [
        ("n1g1i64o64_in8x8_k1x1_s1x1_p0+0x0+0_d1x1", "1x1"),
        ("n1g1i64o64_in8x8_k3x3_s1x1_p1+1x1+1_d1x1", "3x3"),
        ("n1g1i64o12_in8x8_k3x3_s1x1_p1+1x1+1_d1x1", "narrow 3x3"),
        ("n1g1i64o64_in8x8_k1x7_s1x1_p0+0x3+3_d1x1", "wide"),
        ("n1g1i64o64_in8x8_k3x3_s1x1_p2+2x2+2_d2x2", "grouped or dilated"),
        ("n1g2i64o64_in8x8_k3x3_s2x2_p1+1x1+1_d1x1", "grouped or dilated"),
        ("n1g1i64o64_in8x8_k1x1_s2x2_p0+0x0+0_d1x1", "strided"),
        ("n1g1i3o64_in8x8_k7x7_s2x2_p3+3x3+3_d1x1", "stem"),
        ("n1g64i64o64_in8x8_k3x3_s2x2_p1+1x1+1_d1x1", "depthwise"),
        ("n1g64i64o64_in8_k3_s2_p1+1_d1", "1-D"),
        ("n1g1i3o64_in8x8x8_k3x3x3_s1x1x1_p1+1x1+1x1+1_d1x1x1", "3-D"),
        ("conv_transpose:n1g1i8o4_in7_k3_s2_p1+1_d1", "transposed"),
        ("pool:n1c64_in8x8_k2x2_s2x2_p0+0x0+0_d1x1_max", "max pool"),
        ("pool:n1c64_in8x8_k2x2_s2x2_p0+0x0+0_d1x1_mean", "average pool"),
        ("norm:n1c64_in8x8_batch", "batch norm"),
        ("norm:n1c64g32_in8x8_group", "group norm"),
        ("norm:n1c64_in8x8_layer_axes1", "layer norm"),
    ],
)
def test_kinds(problem, kind):
    assert Layer(problem, "net").kind == kind


@pytest.mark.parametrize(
    ("problem", "padding"),
    [
        ("n1g1i1o1_in8_k3_s1_p1+1_d1", [1]),
        ("n1g1i1o1_in8_k3_s2_p1+0_d1", [1]),  # one more cell behind is not reached
        ("n1g1i1o1_in8_k1_s2_p0+-1_d1", [0]),
        ("n1g1i1o1_in8_k2_s1_p0+1_d1", None),
        ("n1g1i1o1_in8_k3_s1_p-1+1_d1", None),
    ],
)
def test_the_padding_of_libraries_that_take_one_number_an_axis(problem, padding):
    spec = ck.parse_problem(problem)[1]
    assert even_padding(spec.window) == padding
    if padding is not None:
        x, w = np.arange(8.0).reshape(1, 1, 8), np.arange(1.0, 1 + spec.window.taps).reshape(1, 1, -1)
        found = ck.conv1d(x, w, stride=spec.window.stride, padding=padding)
        np.testing.assert_array_equal(found, ck.conv1d(x, w, stride=spec.window.stride, padding=spec.window.padding))


# Cells


def test_a_cells_problem_holds_batch_and_type():
    assert cell(CONV, dtype="float64", batch=8).problem == f"n8{CONV[2:]}_float64"
    assert cell("norm:n1c64_in8x8_batch").problem == "norm:n1c64_in8x8_batch"
    assert str(cell(CONV, "input_grad")) == f"input_grad {CONV} 1t"


def test_everything_and_a_few():
    layers = sample()
    convolutions = sum(layer.operation.startswith("conv") for layer in layers)
    directions = 4 * convolutions + 2 * (len(layers) - convolutions)
    every = Selection.of(True, threads=[1])
    assert len(every.cells(layers)) == directions * 2 * 2
    few = Selection.of(False)
    assert {one.direction for one in few.cells(layers)} == {"forward", "input_grad", "weight_grad", "backward"}
    assert len(few.layers(layers)) == 2 * len(KINDS)
    assert {(one.dtype, one.batch, one.threads) for one in few.cells(layers)} == {("float32", 1, processors())}
    assert Selection.of(False, dtypes=["float64", "float64"], batches=[]).dtypes == ("float64",)


def test_a_few_layers_are_from_the_middle_of_the_costs():
    layers = [Layer(f"n1g1i64o64_in{size}x{size}_k1x1_s1x1_p0+0x0+0_d1x1", "net") for size in (9, 1, 5, 7, 3)]
    assert [layer.spec.window.in_size[0] for layer in Selection(each=1).layers(layers)] == [5]
    assert [layer.spec.window.in_size[0] for layer in Selection(each=2).layers(layers)] == [3, 7]
    assert len(Selection(each=9).layers(layers)) == 5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kinds": ["2x2"]}, "kinds: '2x2' must be one of '1x1', '3x3'"),
        ({"directions": ["sideways"]}, "directions: 'sideways' must be one of"),
        ({"dtypes": ["float16"]}, "dtypes: 'float16' must be one of 'float32', 'float64'"),
        ({"layouts": ["NCDHW"]}, "layouts: 'NCDHW' must be one of 'NCHW', 'NHWC'"),
        ({"precisions": ["high"]}, r"precisions: 'high' must be one of 'default', 'highest' \(nearest: 'highest'\)"),
        ({"threads": [10_000]}, r"threads: 10000 must be from 1 to \d+, the processors of this process"),
    ],
)
def test_a_selection_that_cannot_be(given, message):
    with pytest.raises(ck.OptionError, match=message):
        Selection(**given)


def test_layouts_of_other_ranks():
    assert [axes_of("NHWC", rank) for rank in (1, 2, 3)] == ["NWC", "NHWC", "NDHWC"]


# Tasks, and the library's own part

PROBLEMS = {
    CONV: ("forward", "planned", "input_grad", "weight_grad"),
    "n1g2i4o6_in7_k3_s1_p2+2_d2": ("forward", "planned", "input_grad", "weight_grad"),
    "n1g1i2o3_in3x4x5_k2x2x2_s1x1x1_p0+0x0+0x0+0_d1x1x1": ("forward", "planned", "input_grad", "weight_grad"),
    TRANSPOSED: ("forward", "planned", "input_grad", "weight_grad"),
    "pool:n1c4_in6x7_k3x3_s2x2_p1+1x1+1_d1x1_max": ("forward", "backward"),
    "pool:n1c4_in6x7_k2x2_s2x2_p0+0x0+0_d1x1_mean": ("forward", "backward"),
    "norm:n1c4_in6x5_batch": ("forward", "backward"),
    "norm:n1c4g2_in6x5_group": ("forward", "backward"),
    "norm:n1c4_in6_layer_axes1": ("forward", "backward"),
}
CASES = [(problem, direction) for problem, directions in PROBLEMS.items() for direction in directions]


@pytest.mark.parametrize(("problem", "direction"), CASES)
def test_our_calls_compute_the_task_in_both_layouts(problem, direction):
    task = Task.make(cell(problem, direction, "float64", batch=2))
    definition = ours.contestant(task, "NCHW", "default", 1, "naive")
    expected = definition.canonical(definition.run())
    assert definition.implementation == "naive"
    for layout in ("NCHW", "NHWC"):
        made = ours.contestant(task, layout, "highest", 1)
        found = made.canonical(made.run())
        assert made.implementation not in ("", "naive")
        assert len(found) == len(expected) == (3 if "norm" in problem and direction == "backward" else 1)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)


def test_calls_say_what_they_must():
    assert doctest.testmod(ours) == doctest.TestResults(failed=0, attempted=1)


def test_data_are_the_same_each_time():
    first, second = (Task.make(cell(CONV, "weight_grad")).arrays for _ in range(2))
    assert first.keys() == {"x", "w", "dy"}
    for role, array in first.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, second[role])


@pytest.mark.parametrize(
    ("problem", "direction", "dtype", "amount", "unit"),
    [
        (CONV, "input_grad", "float64", 2 * 6 * (4 * 9) * (3 * 5), "GFLOP/s"),
        ("pool:n1c4_in6x6_k2x2_s2x2_p0+0x0+0_d1x1_max", "forward", "float64", 8 * 4 * (36 + 9), "GB/s"),
        ("pool:n1c4_in6x6_k2x2_s2x2_p0+0x0+0_d1x1_max", "backward", "float32", 4 * 4 * (36 + 36 + 9), "GB/s"),
        ("pool:n1c4_in6x6_k2x2_s2x2_p0+0x0+0_d1x1_mean", "backward", "float32", 4 * 4 * (36 + 9), "GB/s"),
        ("norm:n1c4_in6x6_batch", "backward", "float32", 4 * 4 * 36 * 3, "GB/s"),
    ],
)
def test_what_there_is_to_do(problem, direction, dtype, amount, unit):
    task = Task.make(cell(problem, direction, dtype))
    assert task.unit == unit
    assert task.amount == pytest.approx(amount / 1e9)


def test_two_precisions_that_come_to_the_same_are_one_contestant():
    found = list(ours.variants(Task.make(cell(CONV)), ("NCHW", "NHWC"), ("default", "highest"), 1))
    assert [(layout, precision) for layout, precision, _ in found] == [
        *(("NCHW", "default"), ("NCHW", "highest"), ("NHWC", "default"), ("NHWC", "highest")),
    ]
    assert found[0][2] is found[1][2]
    assert found[1][2] is not found[2][2]


def test_what_is_declined_is_told():
    task = Task.make(cell(CONV))
    with ck.config_context(max_workspace=0), pytest.raises(ours.DeclinedError, match=r"^WorkspaceError"):
        ours.contestant(task, "NCHW", "default", 1, "im2col")
    with ck.config_context(max_workspace=0):
        ((_, _, refusal),) = ours.variants(task, ("NCHW",), ("default",), 1)
    assert "max_workspace=0 bytes is too small" in str(refusal)
