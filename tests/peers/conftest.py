"""The table of what was compared, at the end of a run; a function short of its problems fails the run."""

import re

import pytest
from peers.agreement import PROBLEMS, compared, regimes, wanted

import convkernels as ck
from convkernels import dense, losses
from convkernels.public import ranked_name

SETTINGS = {"config_context", "explain", "get_config", "parse_problem", "set_config", "set_threads"}
REGISTRIES = {"register", "register_reducer", "unregister", "unregister_reducer"}
REDUCERS = {"logsumexp", "lp", "maximum", "minimum"}
# Which numbers are dropped is up to NumPy's generator.
RANDOM = {"dropout", "dropout_vjp", "dropout2d", "dropout2d_vjp"}


def functions():
    """The name of every public function that computes."""
    names = {name for name in ck.__all__ if name.islower()} - SETTINGS - REGISTRIES - REDUCERS
    # `conv` is `conv1d`, `conv2d` and `conv3d` under one name.
    names = {name for name in names if re.search(r"[123]d", name) or ranked_name(name, 2) not in names - {name}}
    for module in (dense, losses):
        names |= {name + end for name in vars(module) for end in ("", "_vjp") if name + "_vjp" in vars(module)}
    return sorted(names - RANDOM)


results = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    compared.clear()
    regimes.clear()
    result = yield
    # With its report this reaches the process that prints the table, whichever one ran the test.
    item.user_properties.append(("agreement", (dict(compared), dict(regimes.most_common()))))
    return result


def pytest_runtest_logreport(report):
    if report.when == "call" and report.passed:
        results.extend(value for name, value in report.user_properties if name == "agreement")


def short():
    """What was compared on fewer problems than it should be, and on how many."""
    counts = {function: count for found, _ in results for function, count in found.items()}
    missing = set(functions()) - {function.partition("(")[0] for function in counts}
    counts |= dict.fromkeys(sorted(missing), 0)
    return {function: count for function, count in counts.items() if count < wanted(function)}


def pytest_sessionfinish(session, exitstatus):
    is_worker = hasattr(session.config, "workerinput")
    if not is_worker and exitstatus == pytest.ExitCode.OK and results and short():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter):
    if not results:
        return
    terminalreporter.section("problems on which the peers agree")
    for found, kinds in results:
        for function, count in found.items():
            terminalreporter.line(f"{count:7,}  {function}")
        terminalreporter.line(" " * 9 + ", ".join(f"{kind} {count:,}" for kind, count in kinds.items()))
    lacking = short()
    if lacking:
        counts = ", ".join(f"{function} {count:,}" for function, count in lacking.items())
        terminalreporter.line(f"too few: {counts}", red=True)
    else:
        terminalreporter.line(f"all {len(functions())} functions, on {PROBLEMS:,} problems or more each", green=True)
