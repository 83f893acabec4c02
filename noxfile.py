#!/usr/bin/env -S uv run --script
# /// script
# dependencies = ["nox>=2025.2.9"]
# ///
"""Everything a contributor runs; plain ``nox`` runs what a change must pass.

Sessions make their own environments. Python versions that are not installed are left out, and named.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.error_on_missing_interpreters = False

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PROJECT)
EXTRAS = PROJECT["project"]["optional-dependencies"]
# One thread for each of the two workers: small products run no faster on more.
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
# What is compared and drawn unless asked otherwise: what users get by default, and what the dashboard selects at first,
# the first value of each parameter.
LOWER_IS_BETTER = (
    r"^operations.*'auto', 'channels_first', 'float32'",
    r"^training.*first",
    r"^start\.(Dispatch|timeraw|FirstCall.*direct)",
    r"^yardsticks\.Error.*'forward', 'auto'",
    r"^yardsticks\.Memory.*'auto'",
)
HIGHER_IS_BETTER = (r"^yardsticks\.AgainstThePeak.*'forward'", r"^yardsticks\.AgainstTheDefinition.*'auto'")

# What an installed package must be able to do.
TRIAL = """
import numpy as np
import convkernels as ck

x, w = np.arange(2 * 9 * 9 * 3.0).reshape(2, 9, 9, 3) % 7, np.arange(3 * 3 * 3 * 4.0).reshape(3, 3, 3, 4) % 5
options = {"stride": 2, "padding": "same", "layout": "NHWC"}
(y, vjp), (expected, expected_vjp) = (ck.conv2d_vjp(x, w, strategy=name, **options) for name in ("auto", "naive"))
assert np.array_equal(y, expected)
assert all(map(np.array_equal, vjp(y, wrt=("x", "w"))[:2], expected_vjp(y, wrt=("x", "w"))[:2]))
assert np.array_equal(ck.max_pool2d(x, 3, layout="NHWC"), ck.max_pool2d(x, 3, layout="NHWC", strategy="naive"))
print(ck.__file__, ck.__version__, "NumPy", np.__version__)
print(ck.explain("conv2d", x, w, **options))
"""


def group(name: str) -> list[str]:
    """The requirements of a dependency group."""
    return nox.project.dependency_groups(PROJECT, name)


def lowest(requirements: list[str]) -> list[str]:
    """The oldest versions that the requirements allow."""
    return [re.sub(r">=", "==", requirement) for requirement in requirements]


def run_tests(session: nox.Session, profile: str) -> None:
    """Run the suite on two processes, with whatever was given on the command line."""
    session.run("pytest", "-n", "2", f"--hypothesis-profile={profile}", *session.posargs, env=ONE_THREAD)


def selected(patterns: Iterable[str]) -> list[str]:
    """The options that choose benchmarks."""
    return [f"--bench={pattern}" for pattern in patterns]


def asv(session: nox.Session, *arguments: str, **options: Any) -> None:
    """Run asv, which takes the machine as it finds it."""
    session.chdir("benchmarks")
    session.run("asv", "machine", "--yes", silent=True)
    session.run("asv", *arguments, **options)
    session.chdir("..")


def git(*arguments: str) -> str:
    """What git says; nothing if it fails."""
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False).stdout.strip()


def base() -> str:
    """What HEAD is held against: where its branch left main, or on main the last tag, or the commit before."""
    main = git("rev-parse", "--verify", "--quiet", "main") or git("rev-parse", "--verify", "--quiet", "origin/main")
    found = main and git("merge-base", "HEAD", main)
    if not found or found == git("rev-parse", "HEAD"):
        found = git("describe", "--tags", "--abbrev=0", "HEAD^") or git("rev-parse", "HEAD^")
    return found


def milestones(count: int) -> list[str]:
    """Tags and HEAD, or where there are few, commits of which each lies twice as far back as the next."""
    tags = git("tag", "--merged", "HEAD", "--sort=creatordate").split()
    if len(tags) + 1 >= count:
        return [*tags, git("rev-parse", "HEAD")]
    first = git("log", "--reverse", "--format=%H", "--", "benchmarks/suite").partition("\n")[0]
    latest = git("rev-list", "--first-parent", f"{first}..HEAD").split()
    places = {0, *(len(latest) // 2**halving for halving in range(1, count))}
    return [latest[place] for place in sorted(places, reverse=True)]


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The suite, doctests included, with every extra; arguments go to pytest."""
    session.install("-e", ".[cli,jit,nn,testing]", *group("test"))
    run_tests(session, "ci")


@nox.session(python=PYTHONS[0])
def tests_min(session: nox.Session) -> None:
    """The suite with the lowest versions of what it needs, and nothing optional."""
    session.install("-e", ".", *lowest([*PROJECT["project"]["dependencies"], *EXTRAS["testing"], *group("test")]))
    run_tests(session, "brief")


@nox.session(python=PYTHONS[0], default=False)
def thorough(session: nox.Session) -> None:
    """Fuzzing for as long as it takes: thousands of examples of each property."""
    session.install("-e", ".[cli,jit,nn,testing]", *group("test"))
    session.run("pytest", "-n", "2", "--hypothesis-profile=thorough", "tests", *session.posargs, env=ONE_THREAD)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, and the review of the repository as a whole."""
    session.install(*group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("repo-review", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Types, strictly."""
    session.install("-e", ".[cli,testing]", *group("types"))
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """The site, warnings being errors; lands in docs/_build/html."""
    session.install("-e", ".[jit,nn,testing]", *group("docs"))  # the gallery's pages train and draw
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html", *session.posargs)


@nox.session
def build(session: nox.Session) -> None:
    """The source distribution and the wheel, checked; then the session `wheel` tries what was built."""
    session.install("build", "twine", "check-wheel-contents")
    shutil.rmtree("dist", ignore_errors=True)
    session.run("python", "-m", "build")
    built = [str(path) for path in sorted(Path("dist").iterdir())]
    session.run("twine", "check", "--strict", *built)
    session.run("check-wheel-contents", next(path for path in built if path.endswith(".whl")))
    for version in PYTHONS:
        session.notify(f"wheel-{version}")


@nox.session(python=PYTHONS, default=False)
def wheel(session: nox.Session) -> None:
    """The built wheel in an empty environment, with NumPy alone and with the oldest NumPy and Numba."""
    trial = ["python", "-I", "-W", "error", "-c", TRIAL]  # isolated, so that what is imported is the wheel's
    session.install("--force-reinstall", *map(str, Path("dist").glob("*.whl")))
    session.run(*trial)
    session.install(*lowest([*PROJECT["project"]["dependencies"], *EXTRAS["jit"]]))
    session.run(*trial)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """The benchmarks, once each, in this environment; arguments go to asv."""
    session.install("-e", ".[jit]", *group("bench"))
    asv(session, "run", "--quick", "--show-stderr", "--environment=existing:python", *session.posargs)


@nox.session(default=False)
def bench_compare(session: nox.Session) -> None:
    """HEAD against where its branch began, or against the last tag; fails where a benchmark takes 1.3 times as long.

    Arguments go to asv: ``--factor 1.1``, or ``--bench REGEX`` for others than the chosen ones.
    """
    session.install(*group("bench"))
    chosen = [] if "--bench" in session.posargs else selected(LOWER_IS_BETTER)
    asv(session, "continuous", "--factor=1.3", "--interleave-rounds", *chosen, *session.posargs, base(), "HEAD")


@nox.session(default=False)
def dashboard(session: nox.Session) -> None:
    """The history's speed as a site in benchmarks/.asv/html: the tags, or where there are few some commits.

    Arguments, where there are any, are the commits to measure. What was measured before stays.
    """
    session.install(*group("bench"))
    commits = Path(session.create_tmp()).resolve() / "commits"
    commits.write_text("\n".join(session.posargs or milestones(5)) + "\n")
    brief = ["--attribute=rounds=1", "--attribute=repeat=7", "--attribute=warmup_time=0"]
    measured = selected([*LOWER_IS_BETTER, *HIGHER_IS_BETTER])
    # A commit from before what a benchmark calls fails there, and has no point in its graph.
    asv(session, "run", "--skip-existing", *brief, *measured, f"HASHFILE:{commits}", success_codes=[0, 2])
    asv(session, "publish")


@nox.session(default=False)
def peers(session: nox.Session) -> None:
    """Speed against PyTorch and ONNX Runtime: hours, or with --quick minutes; arguments go to `convkernels bench`."""
    session.install("-e", ".[cli,jit]", *group("peers"))
    session.run("convkernels", "bench", "--full", *session.posargs)


@nox.session(default=False)
def yardsticks(session: nox.Session) -> None:
    """Speed against what else runs on NumPy, and the course's comparison."""
    session.install("-e", ".[cli,jit]", *group("peers"))
    session.run("python", "benchmarks/peers/numpy_crowd.py")
    session.run("python", "benchmarks/course.py")


@nox.session(default=False)
def thresholds(session: nox.Session) -> None:
    """From which size on one strategy beats another; arguments go to the script."""
    session.install("-e", ".[cli,jit]")
    session.run("python", "benchmarks/thresholds.py", *session.posargs)


@nox.session(default=False)
def peers_training(session: nox.Session) -> None:
    """A training step of the courses' networks against PyTorch; arguments go to the script."""
    session.install("-e", ".[jit]", *group("peers"))
    session.run("python", "benchmarks/peers/training.py", *session.posargs)


@nox.session(python=PYTHONS[0], default=False)
def peers_agree(session: nox.Session) -> None:
    """Every function against PyTorch on 2,000 fuzzed problems, some against JAX and ONNX Runtime, the findings."""
    session.install("-e", ".[jit,nn,testing]", *group("test"), *group("peers-agree"))
    session.run("pytest", "-n", "2", "tests/peers", *session.posargs, env=ONE_THREAD)


if __name__ == "__main__":
    nox.main()
