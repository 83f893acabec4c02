"""The comparison with peers, measured: the clock, the judge, the rows; and the scripts beside the package."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
from helpers import load_script

pytest.importorskip("rich", reason="the comparison needs the extra convkernels[cli]")
pytest.importorskip("threadpoolctl", reason="the comparison needs the extra convkernels[cli]")

import convkernels as ck
from convkernels.cli.bench import machine, measure, memory, ours, timing
from convkernels.cli.bench.cells import Cell
from convkernels.cli.bench.contestant import Contestant
from convkernels.cli.bench.judge import Judge, exact
from convkernels.cli.bench.measure import Tried, hopeful, ratio
from convkernels.cli.bench.problems import Layer
from convkernels.cli.bench.task import Task
from convkernels.cli.bench.timing import Rules, race, repetitions
from convkernels.cli.errors import CommandError
from convkernels.kernels.compiled import available

TRANSPOSED = "conv_transpose:n1g1i4o3_in4x5_k3x3_s2x2_p1+1x1+1_d1x1_op1x1"
CONV = "n1g1i4o6_in6x5_k3x3_s2x1_p1+1x1+1_d1x1"


def cell(problem: str, direction: str = "forward", dtype: str = "float32", batch: int = 1) -> Cell:
    return Cell(Layer(problem, "test"), direction, dtype, batch, 1)


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
        assert row.ratio > 0
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
