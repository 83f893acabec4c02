"""The comparison with peers: which problems, who takes part, what is timed and what is made of the times."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from helpers import load_script

pytest.importorskip("rich", reason="the comparison needs the extra convkernels[cli]")
pytest.importorskip("threadpoolctl", reason="the comparison needs the extra convkernels[cli]")

import convkernels as ck
from convkernels.cli.bench import machine, measure, memory, ours, timing
from convkernels.cli.bench.cells import Cell, Selection, axes_of, processors
from convkernels.cli.bench.contestant import Contestant
from convkernels.cli.bench.judge import Judge, exact
from convkernels.cli.bench.measure import Tried, hopeful, ratio
from convkernels.cli.bench.problems import KINDS, Layer, sample
from convkernels.cli.bench.task import Task, even_padding
from convkernels.cli.bench.timing import Rules, race, repetitions
from convkernels.cli.errors import CommandError
from convkernels.kernels.compiled import available

ROOT = Path(__file__).parents[1]
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
    directions = 3 * convolutions + 2 * (len(layers) - convolutions)
    every = Selection.of(True, threads=[1])
    assert len(every.cells(layers)) == directions * 2 * 2
    few = Selection.of(False)
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


# Tasks, and the library's own part

PROBLEMS = {
    CONV: ("forward", "input_grad", "weight_grad"),
    "n1g2i4o6_in7_k3_s1_p2+2_d2": ("forward", "input_grad", "weight_grad"),
    "n1g1i2o3_in3x4x5_k2x2x2_s1x1x1_p0+0x0+0x0+0_d1x1x1": ("forward", "input_grad", "weight_grad"),
    TRANSPOSED: ("forward", "input_grad", "weight_grad"),
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


# Timing


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only when it is told to."""
    now = [0.0]
    monkeypatch.setattr(timing, "perf_counter", lambda: now[0])
    monkeypatch.setattr(timing, "process_time", lambda: now[0] / 2)
    monkeypatch.setattr(timing, "settle", lambda: None)

    def advance(seconds: float) -> None:
        now[0] += seconds

    return advance


def test_a_race_gives_medians_and_the_share_of_the_processor(clock):
    fast, slow = count(1), count(1)
    runs = {"fast": lambda: clock(0.01 * next(fast)), "slow": lambda: clock(1.0 if next(slow) % 5 else 9.0)}
    times = race(runs, Rules(alternations=3, repeats=2, shortest=0.0))
    assert {name: len(medians) for name, medians in times.medians.items()} == {"fast": 2, "slow": 2}
    # One run to count repetitions; then each second one, the others being to warm up.
    assert times.medians["fast"] == pytest.approx([0.05, 0.11])
    assert times.medians["slow"] == pytest.approx([1.0, 1.0])
    assert times.share == pytest.approx(0.5)


def test_turns_alternate_in_both_orders(clock):
    order = []

    def runner(name):
        def run():
            order.append(name)
            clock(1.0)

        return run

    race({"a": runner("a"), "b": runner("b")}, Rules(alternations=3, repeats=1))
    assert "".join(order) == "ab" + "aabb" + "bbaa" + "aabb"


@pytest.mark.parametrize(("seconds", "times"), [(1.0, 1), (1e-3, 2), (1e-4, 20), (3e-6, 667)])
def test_short_runs_are_repeated_until_the_timer_can_tell(clock, seconds, times):
    assert repetitions(lambda: clock(seconds), 2e-3) == times


def test_settling_ends():
    timing.settle()


def test_a_ratio_is_the_median_of_the_repeats_ratios():
    assert ratio([1.0, 2.0, 30.0], [1.0, 4.0, 10.0]) == 1.0  # and not the ratio of medians, 0.5


# Measuring


class Fake:
    """A peer that has two forms of a convolution, which it computes by the definition."""

    name = "Fake"

    def __init__(self, result=lambda y: y):
        self.result = result
        self.sessions = []
        self.asked = []

    def version(self):
        return "1"

    def session(self, threads):
        self.sessions.append(threads)
        return ck.config_context()

    def contestants(self, task, threads):
        self.asked.append(threads)
        x, w = task.arrays["x"], task.arrays["w"]
        window = task.spec.window
        options = {"stride": window.stride, "padding": window.padding, "strategy": "naive"}
        for form in ("first", "second"):
            yield Contestant("Fake", form, lambda: ck.conv2d(x, w, **options), lambda y: (self.result(y),))


BRIEF = Rules(alternations=1, repeats=3, shortest=0.0)


def test_a_cell_gives_a_row_for_each_layout_and_precision():
    peer = Fake()
    rows = measure.measure(cell(CONV), ("NCHW", "NHWC"), ("default", "highest"), [peer], BRIEF)
    assert peer.sessions == peer.asked == [1]
    assert len({row.key for row in rows}) == 4
    for row in rows:
        assert (row.problem, row.direction, row.kind, row.batch) == (CONV, "forward", "stem", 1)
        assert row.peer == "Fake"
        assert row.peers["Fake"].variant in ("first", "second")
        assert row.seconds > 0
        assert row.ratio > 1  # than Python's loops
        assert row.rate == pytest.approx(2 * 6 * (4 * 9) * (3 * 5) / 1e9 / row.seconds)
        assert 0 <= row.error < 1
        assert row.source == machine.source()
        assert not row.declined


def test_without_peers_there_are_times_but_no_ratios():
    (row,) = measure.measure(cell(CONV, "weight_grad", "float64"), ("NCHW",), ("default",), [], BRIEF)
    assert row.seconds > 0
    assert (row.ratio, row.peer, row.peers, row.error) == (None, "", {}, None)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda y: y * 1.01,
        lambda y: y[..., :-1],
        lambda y: np.where(y == y.max(), np.nan, y),
        lambda y: y.swapaxes(0, 1),
    ],
)
def test_a_wrong_result_is_not_timed(wrong):
    with pytest.raises(CommandError, match=r"Fake \(first\) computes another result: forward n1g1i4o6"):
        measure.measure(cell(CONV), ("NCHW",), ("default",), [Fake(wrong)], BRIEF)


def test_what_the_library_declines_is_a_row_without_times():
    with ck.config_context(max_workspace=0):
        (row,) = measure.measure(cell(CONV), ("NCHW",), ("default",), [Fake()], BRIEF)
    assert row.seconds is None
    assert "max_workspace=0" in row.declined


@pytest.mark.parametrize(
    ("problem", "direction", "terms"),
    [
        (CONV, "forward", 4 * 9),
        (CONV, "input_grad", 6 * 9),
        (CONV, "weight_grad", 2 * 3 * 5),
        (TRANSPOSED, "forward", 4 * 9),
        (TRANSPOSED, "input_grad", 3 * 9),
        (TRANSPOSED, "weight_grad", 2 * 4 * 5),
    ],
)
def test_errors_are_in_units_of_the_bound(problem, direction, terms):
    task = Task.make(cell(problem, direction, batch=2))
    (result,), bound = exact(task)
    made = ours.contestant(task, "NCHW", "default", 1, "naive")
    (found,) = made.canonical(made.run())
    np.testing.assert_allclose(found, result, rtol=1e-4, atol=1e-5)
    ones = replace(task, arrays={role: np.ones_like(array) for role, array in task.arrays.items()})
    # Of ones a sum is the count of its products, which is all of them somewhere, but where strides leave taps out.
    strided = (problem, direction) in ((CONV, "input_grad"), (TRANSPOSED, "forward"))
    largest = exact(ones)[1].max() / np.finfo(np.float32).eps / terms
    assert largest < terms if strided else largest == terms
    judge = Judge(task)
    assert judge.check(made, (result,)) == 0
    place = np.unravel_index(np.argmax(bound), bound.shape)
    shifted = result.copy()
    shifted[place] += 0.5 * bound[place]
    assert judge.check(made, (shifted,)) == pytest.approx(0.5)


def test_only_forms_that_may_be_the_best_of_their_library_race():
    def tried(library, seconds):
        return Tried(Contestant(library, str(seconds), lambda: None, lambda y: ()), None, seconds, None)

    found = hopeful([tried("a", 1.0), tried("a", 1.2), tried("a", 2.0), tried("b", 9.0)])
    assert [(one.contestant.library, one.seconds) for one in found] == [("a", 1.0), ("a", 1.2), ("b", 9.0)]


# The machine


def test_the_peak_of_memory_holds_the_result():
    size = 2**24
    found, peak = memory.peak_of(lambda: np.ones(size, np.uint8))
    assert found.sum() == size
    if peak is not None:
        assert 0.9 * size < peak < 3 * size


def test_where_the_system_does_not_tell_there_is_no_peak(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "PROCESS", tmp_path / "absent")
    assert memory.peak_of(lambda: 7) == (7, None)


def test_a_failure_while_memory_is_watched_is_raised():
    with pytest.raises(ZeroDivisionError):
        memory.peak_of(lambda: 1 / 0)


def test_peaks_have_names(monkeypatch):
    monkeypatch.setattr(machine, "_peaks", {})
    monkeypatch.setattr(machine, "TRIES", 1)
    monkeypatch.setattr(machine, "COPIED", 2**16)
    assert machine.peak("GB/s", "float32", 1) == machine.peak("GB/s", "float64", 1)
    flops = machine.peak("GFLOP/s", "float64", 1)
    assert (flops is None) == bool(available.missing())
    names = {"GB/s 1t"} if flops is None else {"GB/s 1t", "GFLOP/s float64 1t"}
    assert machine.peaks().keys() == names
    assert all(0 < found < math.inf for found in machine.peaks().values())


def test_the_environment_tells_what_figures_depend_on():
    found = machine.environment([Fake()])
    assert found["Fake"] == "1"
    assert found["NumPy"] == np.__version__
    assert found["processor"]
    assert len(found["source"]) == 12


def test_layouts_of_other_ranks():
    assert [axes_of("NHWC", rank) for rank in (1, 2, 3)] == ["NWC", "NHWC", "NDHWC"]


# What stands beside the package


def test_thresholds_cost_least():
    script = load_script("thresholds.py")
    points = [{"size": size, "ratio": found} for size, found in ((1, 0.5), (2, 0.9), (4, 2.0), (8, 0.8), (16, 4.0))]
    size, cost = script.threshold(points)
    assert size == 4
    assert cost == pytest.approx(1.25**0.2)
    assert script.threshold([{"size": 4, "ratio": 2.0}, {"size": 8, "ratio": 2.0}]) == (4, 1.0)
    assert script.threshold([{"size": 4, "ratio": 0.5}, {"size": 8, "ratio": 0.5}]) == (None, 1.0)


def test_the_table_of_thresholds():
    script = load_script("thresholds.py")
    place = {"direction": "forward", "order": "channels_last", "dtype": "float32"}
    other = place | {"order": "channels_first", "size": 1, "ratio": 0.1}
    points = [place | {"size": 1, "ratio": 0.5}, place | {"size": 2, "ratio": 2.0}, other]
    assert script.table_of(points) == {
        "forward": {
            "channels_last": {"float32": {"size": 2, "cost": 1.0, "points": 2}},
            "channels_first": {"float32": {"size": None, "cost": 1.0, "points": 1}},
        }
    }


def test_a_point_of_the_thresholds():
    script = load_script("thresholds.py")
    point = script.measure(cell(CONV, "weight_grad"), "channels_last", "im2col", "stride_tricks", BRIEF)
    assert point["size"] == 2 * 6 * (4 * 9) * (3 * 5)
    assert point["ratio"] > 0
    with ck.config_context(max_workspace=0):
        assert script.measure(cell(CONV), "channels_last", "im2col", "naive", BRIEF) is None


def test_the_loops_of_the_course_are_right():
    script = load_script("course.py")
    x, w, b, dy = (array[:2] if array.ndim == 4 and len(array) == 100 else array for array in script.data())
    options = {"stride": script.STRIDE, "padding": script.PADDING}
    y, vjp = ck.conv2d_vjp(x, w, b, **options, strategy="naive")
    np.testing.assert_allclose(script.loop_forward(x, w, b), y, rtol=1e-12, atol=1e-12)
    for found, expected in zip(script.loop_backward(dy, x, w), vjp(dy), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
    with pytest.raises(AssertionError, match="somebody"):
        script.check("somebody", [y], [y + 1])
