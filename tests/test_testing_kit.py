"""What the kit says: of too little seen, of failures, as a suite; and that what it draws is varied."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import bases
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import convkernels as ck
from convkernels.errors import OptionError
from convkernels.operation import OPERATIONS
from convkernels.testing import KernelError, VacuousError, checks_for, harness, parametrize_with_checks, problems, suite
from convkernels.testing import strategies as drawing
from convkernels.testing.checks import (
    check_fills_every_output_element,
    check_matches_definition_exactly,
    check_repeats_bitwise,
    check_same_in_every_layout,
    check_stays_within_error_bound,
)
from convkernels.testing.harness import regimes, sampling
from convkernels.testing.problems import Problem


def held_to(check, implementation, examples=40):
    with sampling(seed=0, max_examples=examples, database=None):
        check(implementation)


# Too little seen


def test_an_implementation_that_declines_everything_proves_nothing():
    idle = bases.based("conv", supports=lambda spec: "not today")
    with pytest.raises(VacuousError, match=r"by 'conv': only 0 of \d+ problems were run \(declined: 'not today' \d+"):
        held_to(check_fills_every_output_element, idle)


def test_an_implementation_that_takes_a_few_problems_proves_nothing():
    taken = []

    def supports(spec):
        taken.append(spec)
        return None if len(taken) < 5 else "tired"

    with pytest.raises(VacuousError, match=r"only 4 of \d+ problems were run \(declined: 'tired' \d+ times\)"):
        held_to(check_fills_every_output_element, bases.based("conv", supports=supports))


def test_constant_data_prove_nothing(monkeypatch):
    monkeypatch.setitem(drawing.DATA, "integers", lambda shape, dtype, seed: np.full(shape, 2, dtype))
    with pytest.raises(VacuousError, match=r"exactly of conv by 'conv': the data of all 40 problems were constant"):
        held_to(check_matches_definition_exactly, bases.based("conv"))


def test_results_of_zero_prove_nothing(monkeypatch):
    monkeypatch.setitem(drawing.DATA, "integers", lambda shape, dtype, seed: np.zeros(shape, dtype))
    with pytest.raises(VacuousError, match="the right results of all 40 problems were zero"):
        held_to(check_same_in_every_layout, bases.based("pool"))


def test_problems_of_one_kind_prove_nothing(monkeypatch):
    spec = ck.parse_problem("n1g1i2o2_in6x6_k3x3_s1x1_p1+1x1+1_d1x1")[1]
    monkeypatch.setitem(problems.SPECS, "conv", lambda **choices: st.just(spec))
    with pytest.raises(VacuousError, match=r"all 40 problems were of one kind \(2-D padded\)"):
        held_to(check_matches_definition_exactly, bases.based("conv"))


# What is drawn


@given(st.data())
@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
def test_a_smaller_array_has_a_corner_of_a_larger_ones_data(data):
    kind = data.draw(st.sampled_from(["integers", "reals", "tied", "offset"]))
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=3, max_size=5))
    part = tuple(slice(0, data.draw(st.integers(1, size))) for size in sizes)
    large = drawing.DATA[kind](tuple(sizes), np.dtype(float), 3)
    small = drawing.DATA[kind](large[part].shape, np.dtype(float), 3)
    np.testing.assert_array_equal(small, large[part])


def test_data_are_as_they_are_called():
    shape, dtype = (6, 5, 4, 3), np.dtype(float)
    found = {kind: draw(shape, dtype, 1) for kind, draw in drawing.DATA.items()}
    assert set(np.unique(found["integers"])) == {*range(-8, 9)} - {0}
    for axis in range(4):
        assert np.all(np.diff(np.abs(found["integers"]), axis=axis) != 0)
    assert abs(found["reals"].mean()) < 0.2
    assert 0.8 < found["reals"].std() < 1.2
    assert sorted(found["distinct"].ravel()) == list(range(360))
    assert {*map(str, np.unique(found["tied"]))} == {"0.0", "1.0"} or np.signbit(found["tied"]).any()
    assert np.signbit(found["tied"]).any()
    assert 0.02 < np.isnan(found["with_nan"]).mean() < 0.2
    assert np.isnan(drawing.with_nan((1,), dtype, 0)).all()
    assert found["offset"].mean() > 100 * found["offset"].std()
    assert not np.array_equal(found["reals"], drawing.reals(shape, dtype, 2))


REGIMES = {
    "conv": "1-D 2-D 3-D 1x1 strided padded cropped dilated grouped depthwise bias",
    "conv_transpose": "1-D 2-D 3-D 1x1 strided padded cropped dilated grouped depthwise bias",
    "pool": "1-D 2-D 3-D 1x1 strided padded cropped dilated ceil reflect replicate circular max mean min sum",
    "group_norm": "1-D 2-D 3-D group instance layer rms",
    "local_response_norm": "1-D 2-D 3-D even odd",
}


@pytest.mark.parametrize("operation", REGIMES)
def test_every_kind_of_problem_is_drawn(operation):
    seen, sizes = Counter(), set()

    @settings(max_examples=300, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(problems.SPECS[operation]())
    def draw(spec):
        seen.update(regimes(spec))
        sizes.add(spec.x_shape[1])

    draw()
    rare = {kind: seen[kind] for kind in REGIMES[operation].split() if seen[kind] < 6}
    assert not rare
    assert max(sizes) > 16, "more than a vector register holds"


@given(drawing.pool_specs())
def test_every_window_of_a_pool_holds_a_real_cell(spec):
    assert spec.window.empty_window() is None


# How problems are drawn


def seen_under(**options):
    specs = []

    def supports(spec):
        specs.append(spec)

    with sampling(max_examples=12, database=None, **options):
        check_repeats_bitwise(bases.based("pool", supports=lambda spec: bases.takes_reducer(spec) or supports(spec)))
    return specs


def test_a_seed_draws_the_same_problems_again_and_another_others():
    assert seen_under(seed=1) == seen_under(seed=1) != seen_under(seed=2)


def test_checks_that_are_derandomised_draw_each_their_own():
    drawn = {}
    for check in (check_repeats_bitwise, check_fills_every_output_element):
        specs = drawn[check] = []
        note = bases.based("conv", supports=lambda spec, specs=specs: specs.append(spec))
        with sampling(derandomize=True, max_examples=20, database=None):
            check(note)
    assert len({tuple(map(str, specs[:20])) for specs in drawn.values()}) == 2


def test_sampling_ends_with_its_block():
    before = harness._sampling.get()
    with sampling(seed=5, max_examples=10):
        assert harness._sampling.get() == (5, {"max_examples": 10})
    assert harness._sampling.get() == before


# What is said of a failure


def one_more(operation):
    """The base of an operation with a result that is off by one."""
    base = bases.RUNS[operation]

    def off_by_one(spec, *arrays, out, **rest):
        base(spec, *arrays, out=out, **rest)
        out += 1

    return bases.based(operation, off_by_one)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_report_has_code_that_shows_the_two_results(operation, capsys):
    wrong = one_more(operation)
    facts = {"supports": wrong.supports, "workspace": wrong.workspace, "claims": wrong.claims}
    registered = ck.register(operation, wrong.name, wrong.run, **facts)
    try:
        with pytest.raises(KernelError) as caught:
            held_to(check_stays_within_error_bound, registered)
        code = textwrap.dedent(str(caught.value).partition("to see it again:\n")[2])
        exec(compile(code, "report", "exec"), {})
    finally:
        for name in {operation, operation.removesuffix("_grad")} & set(OPERATIONS):
            if wrong.name in OPERATIONS[name].names():
                ck.unregister(name, wrong.name)
    printed = capsys.readouterr().out
    calls = [line for line in code.splitlines() if line.startswith("print")]
    assert [line.partition("strategy=")[2].split("'")[1] for line in calls] == ["off_by_one", "naive"]
    results = printed.splitlines()
    assert len(results) >= 2
    assert results[: len(results) // 2] != results[len(results) // 2 :]


def test_the_code_says_what_must_be_registered():
    with pytest.raises(KernelError) as caught:
        held_to(check_stays_within_error_bound, one_more("conv"))
    assert "ck.register('conv', 'off_by_one', ...)  # the one that was checked" in str(caught.value)


def test_a_problem_that_is_too_large_is_named_and_not_written_out():
    problem = Problem.read("n1g1i9o9_in9x9_k3x3_s1x1_p1+1x1+1_d1x1")
    error = KernelError(bases.based("conv"), "a check", problem, "wrong")
    assert "# too large to write out: Problem(operation='conv'" in str(error)


def test_an_exception_of_the_implementation_is_a_finding_with_its_cause():
    def broken(spec, x, *, out, resources):
        raise IndexError("index 3 is out of bounds")

    with pytest.raises(KernelError, match="it raised IndexError: index 3 is out of bounds") as caught:
        held_to(check_repeats_bitwise, bases.based("pool", broken))
    assert isinstance(caught.value.__cause__, IndexError)


def test_an_assertion_without_words_is_a_finding():
    def broken(spec, x, *, out, resources):
        assert spec is None

    with pytest.raises(KernelError, match=r"is wrong: (it raised AssertionError|assert)"):
        held_to(check_repeats_bitwise, bases.based("pool", broken))


def test_what_fails_by_chance_is_said_to():
    runs = []

    def moody(spec, x, *, out, resources):
        bases.pool(spec, x, out=out)
        runs.append(spec)
        if len(runs) % 7 == 0:
            out += 1

    with pytest.raises(KernelError, match="but not each time: the result depends on earlier runs, or on chance"):
        held_to(check_matches_definition_exactly, bases.based("pool", moody))


def test_an_error_says_what_it_is_about():
    problem = Problem.read("pool:n1c1_in2_k2_s2_p0+0_d1_max")
    error = KernelError(bases.based("pool"), "a check", problem, "out[0]=1, but should be 2")
    assert (error.implementation, error.check, error.problem) == ("pool", "a check", problem)
    assert error.finding == "out[0]=1, but should be 2"
    assert str(error).startswith("pool by 'pool' is wrong: out[0]=1, but should be 2\nproblem: pool:n1c1_in2_k2")


# As a suite


def test_checks_are_those_of_the_operation_and_of_the_claims():
    names = {check.__name__ for check in checks_for("conv")}
    assert {"check_commutes_with_shifts", "check_batch_invariant"} <= names
    assert "check_padding_is_neutral" not in names
    assert "check_padding_is_neutral" in {check.__name__ for check in checks_for("pool_grad")}
    unclaimed = {check.__name__ for check in checks_for("conv", ())}
    assert names - unclaimed == {
        check.__name__ for check, operations, claim in suite.CHECKS if claim and "conv" in operations
    }
    with pytest.raises(OptionError, match="operation='convolve' must be one of"):
        checks_for("convolve")


def test_expected_failures_must_fail_and_say_why():
    @parametrize_with_checks([bases.based("pool")], expected_failures={"check_nan_strict": "drops NaN"})
    def test(check, implementation):
        check(implementation)

    cases = test.pytestmark[0].args[1]
    marked = {case.id: case.marks for case in cases if case.marks}
    assert list(marked) == ["pool-pool-nan_strict"]
    (mark,) = marked["pool-pool-nan_strict"]
    assert (mark.name, mark.kwargs) == ("xfail", {"reason": "drops NaN", "strict": True})
    assert len(cases) == len(checks_for("pool", bases.CLAIMS))


def test_an_expected_failure_of_no_check_is_refused():
    with pytest.raises(OptionError, match="expected_failures names 'check_nothing', which is no check"):
        parametrize_with_checks([bases.based("pool")], expected_failures={"check_nothing": "there is none"})


MINE = """
import numpy as np
from convkernels.kernels.naive import reach

def conv(spec, x, w, b, *, out, resources):
    inputs, filters = (spec.groups, spec.group_in), (spec.groups, spec.group_out, spec.group_in)
    for position in np.ndindex(*spec.window.out_size):
        y = np.zeros((len(x), *filters[:2]), out.dtype)
        for tap, cell in reach(spec, position):
            y += np.einsum("ngi,goi->ngo", x[:, :, *cell].reshape(-1, *inputs), w[:, :, *tap].reshape(filters))
        out[:, :, *position] = y.reshape(out.shape[:2]) + (0 if b is None else b)
"""
SETTINGS = """
from hypothesis import settings
settings.register_profile("quick", max_examples=10, deadline=None, database=None)
settings.load_profile("quick")
"""
WRONG = """
import convkernels as ck
from convkernels.testing import parametrize_with_checks

def zeros(spec, x, w, b, *, out, resources):
    out[...] = 0

@parametrize_with_checks(
    [ck.Implementation("zeros", zeros, operation="conv", claims={"exact_on_integers"})],
    expected_failures={"check_stays_within_error_bound": "zeros", "check_repeats_bitwise": "will not fail"},
)
def test_zeros(check, implementation):
    check(implementation)
"""


def test_a_file_of_five_lines_is_a_suite_and_its_failures_can_be_read(tmp_path):
    example = textwrap.dedent(suite.__doc__.partition("A whole test file:\n")[2])
    files = {"mine.py": MINE, "conftest.py": SETTINGS, "test_mine.py": example, "test_wrong.py": WRONG}
    for name, text in files.items():
        Path(tmp_path, name).write_text(text)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA", "--rootdir", str(tmp_path)]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    lines = ran.stdout.splitlines()
    passed = [line for line in lines if line.startswith("PASSED test_mine.py::test_conv[conv-mine-")]
    assert len(passed) == len(checks_for("conv", ()))
    assert "XFAIL test_wrong.py::test_zeros[conv-zeros-stays_within_error_bound] - zeros" in ran.stdout
    assert "[XPASS(strict)] will not fail" in ran.stdout
    report = ran.stdout.partition("test_zeros[conv-zeros-matches_definition_exactly] _")[2].partition("\n____")[0]
    said = [line[1:].strip() for line in report.splitlines() if line.startswith("E ")]
    assert "conv by 'zeros' is wrong: out[0,0,0]=0" in said[0]
    assert said[1].startswith("problem: n1g1i1o1_in1_k1_s1_p0+0_d1")
    assert said[4:6] == ["import numpy as np", "import convkernels as ck"]
    assert said[-1].endswith("strategy='naive'))")
    assert "harness.py" not in report.replace("harness.KernelError", "")
    assert len(report.splitlines()) < 60
