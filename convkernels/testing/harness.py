"""Running a check over drawn problems: what was tried is counted, and what was found can be repeated.

A check that saw nothing must not pass. It fails as *vacuous* where the implementation declined nearly everything, the
definition's results were all zero, the data were constant, or the specs were all of one kind.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, event, given, reject, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from hypothesis.errors import Flaky, Unsatisfiable

from ..norm_spec import LocalNormSpec, NormSpec
from ..operation import Implementation, find_operation
from ..pool_spec import PoolSpec
from ..problem import Spec
from .problems import Problem
from .snippets import snippet

FEW = 10
"""Problems that a check must have run, unless it was asked for fewer examples."""


SMALL, RETRIES = 12, 8
"""Of problems with at most so many cells, how many other seeds are tried while a failure is cut down."""


class KernelError(AssertionError):
    """What a check found.

    Attributes
    ----------
    implementation, check : str
        Their names.
    problem : Problem
        The smallest problem on which it was found.
    finding : str
        What is wrong.
    """

    def __init__(self, implementation: Implementation, check: str, problem: Problem, finding: str) -> None:
        self.implementation, self.check, self.problem, self.finding = implementation.name, check, problem, finding
        lines = (
            f"{problem.operation} by {implementation.name!r} is wrong: {finding}",
            f"problem: {problem}",
            f"check: {check}",
            f"to see it again:\n{snippet(problem, implementation)}",
        )
        super().__init__("\n".join(lines))


class VacuousError(AssertionError):
    """A check that saw too little to say anything."""


@dataclass
class Census:
    """What a check has seen."""

    drawn: int = 0
    run: int = 0
    nonzero: bool = False
    varied: bool = False
    regimes: Counter[frozenset[str]] = field(default_factory=Counter)
    declined: Counter[str] = field(default_factory=Counter)
    failure: KernelError | None = None

    def count(self, problem: Problem) -> None:
        """Count a problem that is to be run; the definition is asked only until it once gives more than zeros."""
        self.run += 1
        self.nonzero = self.nonzero or any(np.any(result != 0) for result in problem.expected.values())
        arrays = (array for array in problem.arrays.values() if array is not None and array.size > 1)
        self.varied = self.varied or any(np.any(array != array.flat[0]) for array in arrays)

    def verify(self, name: str, wanted: int) -> None:
        """Refuse a run that saw too little."""
        least = min(FEW, wanted)
        reasons = ", ".join(f"{reason!r} {times} times" for reason, times in self.declined.most_common(3)) or "none"
        if self.run < least:
            raise VacuousError(f"{name}: only {self.run} of {self.drawn} problems were run (declined: {reasons})")
        if not self.nonzero:
            raise VacuousError(f"{name}: the right results of all {self.run} problems were zero")
        if not self.varied:
            raise VacuousError(f"{name}: the data of all {self.run} problems were constant")
        if self.drawn >= 3 * FEW and len(self.regimes) == 1:
            kind = " ".join(sorted(next(iter(self.regimes))))
            raise VacuousError(f"{name}: all {self.drawn} problems were of one kind ({kind})")


def regimes(spec: Spec) -> set[str]:
    """The kinds of problem that a spec is of.

    Examples
    --------
    >>> import convkernels as ck
    >>> sorted(regimes(ck.parse_problem("n1g2i2o4_in9_k3_s2_p1+0_d1")[1]))
    ['1-D', 'depthwise', 'grouped', 'padded', 'strided']
    """
    rank = f"{len(spec.x_shape) - 2}-D"
    if isinstance(spec, NormSpec):
        chosen = 0 < len(spec.axes) < len(spec.shape) - 1
        return {rank, spec.kind, *(["chosen axes"] if chosen else [])}
    if isinstance(spec, LocalNormSpec):
        return {rank, "even" if spec.size % 2 == 0 else "odd"}
    window = spec.window
    kinds = {
        rank: True,
        "1x1": window.taps == 1,
        "strided": any(step > 1 for step in window.stride),
        "padded": any(lo > 0 or hi > 0 for lo, hi in window.padding),
        "cropped": any(lo < 0 or hi < 0 for lo, hi in window.padding),
        "dilated": any(step > 1 for step in window.dilation),
    }
    if isinstance(spec, PoolSpec):
        kinds |= {spec.reducer.name: True, "ceil": window.ceil_mode, spec.padding_mode: spec.padding_mode != "zeros"}
    else:
        groups, channels = spec.groups, spec.x_shape[1]
        kinds |= {"grouped": groups > 1, "depthwise": groups > 1 and groups == channels, "bias": spec.bias}
    return {kind for kind, holds in kinds.items() if holds}


_sampling: ContextVar[tuple[int | None, dict[str, Any]]] = ContextVar("convkernels_sampling", default=(None, {}))


@contextmanager
def sampling(*, seed: int | None = None, **options: Any) -> Iterator[None]:
    """Draw the problems of the checks inside a ``with`` block by a seed, and with settings of Hypothesis'.

    Examples
    --------
    >>> from convkernels.operation import POOL
    >>> from convkernels.testing.checks import check_repeats_bitwise
    >>> with sampling(seed=1, max_examples=10):
    ...     check_repeats_bitwise(POOL.find("im2col"))
    """
    token = _sampling.set((seed, options))
    try:
        yield
    finally:
        _sampling.reset(token)


def fails(body: Callable[[Problem], None], problem: Problem) -> bool:
    """Whether a problem fails."""
    try:
        body(problem)
    except Exception:  # as in a trial
        return True
    return False


def for_all(
    implementation: Implementation,
    problems: st.SearchStrategy[Problem],
    body: Callable[[Problem], None],
    check: str,
) -> None:
    """Hold an implementation to `body` on every problem that it takes.

    The smallest problem on which `body` raises is reported as a `KernelError`, whatever it raised.
    """
    __tracebackhide__ = True  # from pytest's reports
    operation, census = find_operation(implementation.operation), Census()
    implementation = operation.adapted(implementation)

    def trial(problem: Problem) -> None:
        reason = None
        for candidate in (problem, problem.denser(), problem.depthwise()):
            reason = implementation.supports(candidate.spec)
            if reason is None:
                problem = candidate
                break
        census.drawn += 1
        kinds = regimes(problem.spec)
        census.regimes[frozenset(kinds)] += 1
        for kind in kinds:
            event(kind)
        if reason is not None:
            census.declined[reason] += 1
            reject()
        census.count(problem)
        attempt(problem)
        if census.failure is not None and problem.cells <= SMALL:
            # Hypothesis is cutting a problem down: what is wrong only of some data should not stop it.
            for other in range(RETRIES):
                attempt(replace(problem, seed=other))

    def attempt(problem: Problem) -> None:
        untouched = replace(problem)  # its data are drawn anew, whatever the run does to its inputs
        try:
            body(problem)
        except AssertionError as error:
            census.failure = KernelError(implementation, check, untouched, str(error) or "it raised AssertionError")
            raise census.failure from None
        except Exception as error:  # a stranger's kernel may raise anything, and that is a finding
            finding = f"it raised {type(error).__name__}: {error}"
            census.failure = KernelError(implementation, check, untouched, finding)
            raise census.failure from error

    seed, options = _sampling.get()
    chosen = settings(
        **{
            "report_multiple_bugs": False,
            "deadline": None,
            "print_blob": False,
            "suppress_health_check": [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
            # To explain, Hypothesis would trace each line that runs, and then know no more than the problem says.
            "phases": [phase for phase in settings().phases if phase is not Phase.explain],
            **options,
        }
    )
    name = f"{check} of {implementation.operation} by {implementation.name!r}"
    if seed is None and chosen.derandomize:
        # Left to itself, Hypothesis would draw the same for all checks, which share the trial's source.
        seed = zlib.crc32(name.encode())
    prepared = chosen(given(problems)(trial))
    try:
        (prepared if seed is None else seeded(seed)(prepared))()
    except (KernelError, Flaky) as error:
        found = census.failure
        if found is None:
            raise
        finding = found.finding
        if isinstance(error, Flaky) or not fails(body, replace(found.problem)):
            finding += "; but not each time: the result depends on earlier runs, or on chance"
        # A new error, without what Hypothesis adds: of the problem there is a better account.
        raise KernelError(implementation, check, found.problem, finding) from found.__cause__
    except Unsatisfiable:
        pass  # it declined everything, which the census says better
    census.verify(name, chosen.max_examples)
