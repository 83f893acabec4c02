"""Looking for the smallest problem on which a function is wrong, and for when it is wrong.

Hypothesis draws sizes and shrinks them; then the data of the smallest are made zeros and ones where they may be. When
a function is wrong is found by trying: a kind of problem explains the failures if every problem of that kind fails,
and no other does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import seed as seeded

from ..errors import ConvkernelsError
from .cases import Arguments, Case, Function, Outcome, examine, first_difference
from .report import Finding, expression
from .snippets import LONGEST

SEEDS = 4
"""Data that each kind of problem is tried with, for what shows on some data only."""
GO = 10
"""Problems that are drawn in one go."""
KINDS = 40
"""Kinds of problem that are tried to find out when a function is wrong."""
LIKE = 10
"""Kinds of problem that failed on the way to the smallest, and are tried, too."""
ATTEMPTS = 200
"""Runs that making the data simple may take."""
ENOUGH = 3
"""Problems, failing and passing, that a kind of problem must explain to be believed; two kinds together, twice that."""
SPARE = 0.3
"""The passing problems, as a share of the failing ones, that may be of the same kind all the same, by luck."""
SAME = 30
"""Failures that a known mistake is held against."""


class _WrongError(Exception):
    """Tells Hypothesis that a problem fails."""


@dataclass
class Search:
    """The problems that a function was tried on, and what came of them.

    Parameters
    ----------
    case, function, forward
        What is called, and whose cache it takes.
    name : str
        What the function is called in code to paste.
    seconds : float, optional
        After so long no further problems are tried.
    watch : callable, optional
        Called before each problem with how many were tried, and the problem in words.
    """

    case: Case
    function: Function
    forward: Function | None = None
    name: str = ""
    seconds: float | None = None
    watch: Callable[[int, str], None] | None = None
    outcomes: dict[Any, Outcome] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    @property
    def late(self) -> bool:
        """Whether time is up."""
        return self.seconds is not None and time.monotonic() - self.started > self.seconds

    def attempt(self, sizes: Any) -> Outcome | None:
        """What comes of a problem; None if it was never tried, and time is up."""
        if sizes not in self.outcomes:
            if self.late and self.outcomes:
                return None
            self.outcomes[sizes] = self.examined(self.case.arguments(sizes))
        return self.outcomes[sizes]

    def examined(self, arguments: Arguments) -> Outcome:
        """What comes of arguments."""
        if self.watch:
            self.watch(len(self.outcomes), described(self.case, self.forward, arguments))
        return examine(self.case, self.function, self.forward, arguments)

    def fails(self, sizes: Any) -> bool:
        """Whether a problem was tried and is got wrong."""
        outcome = self.attempt(sizes)
        return outcome is not None and bool(outcome.words)

    def smallest(self, examples: int, seed: int) -> Any:
        """The sizes of the smallest problem that is got wrong, or None."""
        found: list[Any] = []

        def trial(sizes: Any) -> None:
            if len(self.outcomes) >= examples and not found:
                return
            if self.fails(sizes):
                found.append(sizes)
                raise _WrongError

        with suppress(_WrongError):
            draw_all(self.case, trial, lambda: examples - len(self.outcomes), seed, shrink=True)
        return found[-1] if found else None

    def finding(self, sizes: Any, seed: int) -> Finding:
        """What is wrong on the smallest problem, its data made simple, and when it is wrong."""
        hint = "; ".join(self.hints(sizes, seed))
        outcome = self.simplified(self.outcomes[sizes])
        case, wrong = self.case, outcome.name
        return Finding(
            outcome.words,
            outcome.where,
            hint,
            {name: outcome.arguments[name] for name in used(case, self.forward, outcome.arguments)},
            {wrong: outcome.expected[wrong]} if wrong in outcome.expected else {},
            {wrong: outcome.got[wrong]} if wrong in outcome.expected and wrong in outcome.got else {},
            snippet(case, self.function, self.forward, outcome, self.name),
        )

    def simplified(self, outcome: Outcome) -> Outcome:
        """The same failure on arrays with as many zeros and ones as it takes."""
        budget = ATTEMPTS
        for name, value in list(outcome.arguments.items()):
            plainest = isinstance(value, np.ndarray) and value.dtype.kind in "fiu"
            if not plainest or name in self.case.fixed or (name == "out" and self.case.backward):
                continue
            for index in np.ndindex(value.shape):
                for number in (0, 1):
                    current = outcome.arguments[name]
                    if current[index] in range(number + 1) or not budget or self.late:
                        continue
                    budget -= 1
                    simpler = current.copy()
                    simpler[index] = number
                    again = self.examined({**outcome.arguments, name: simpler})
                    if again.words and again.name == outcome.name:
                        outcome = again
        return outcome

    def hints(self, sizes: Any, seed: int) -> Iterator[str]:
        """When it is wrong, and which known mistake gives the same."""
        kinds: dict[Any, list[Any]] = {}

        def spread(drawn: Any) -> None:
            alike = [drawn, *(self.case.reseed(drawn, number) for number in range(SEEDS))]
            kinds.setdefault(alike[1], alike)

        for failed in [sizes, *(tried for tried, outcome in self.outcomes.items() if outcome.words)][:LIKE]:
            spread(failed)
        most = len(kinds) + KINDS
        draw_all(self.case, spread, lambda: most - len(kinds), seed + 1)
        failing: list[Any] = []
        passing: list[Any] = []
        for kind, alike in kinds.items():
            fails = any(map(self.fails, alike))
            if self.late:
                break
            (failing if fails else passing).append(kind)
        failures = [outcome for outcome in self.outcomes.values() if outcome.words]
        mistake = self.mistake(failures)
        if mistake:
            yield mistake
        regime = explanation(self.case.regimes, failing, passing)
        if regime:
            yield f"it is wrong only when {regime} ({len(failing)} of {len(failing) + len(passing)} kinds of problem)"
        elif not passing and len(failing) >= ENOUGH and self.outcomes[sizes].name not in ("signature", "result"):
            yield f"it is wrong on all {len(failing)} kinds of problem"

    def mistake(self, failures: list[Outcome]) -> str | None:
        """The known mistake whose results every failure that gave results has."""
        given = [outcome for outcome in failures if outcome.expected][:SAME]
        if 2 * len(given) < min(len(failures), SAME):
            return None
        for words, results in self.case.mistakes.items():
            if all(made(self.case, outcome, results) for outcome in given):
                return words
        return None


def draw_all(
    case: Case, trial: Callable[[Any], None], missing: Callable[[], int], seed: int, *, shrink: bool = False
) -> None:
    """Give a function sizes of a case until none are missing, or hardly any new ones come.

    In one go, Hypothesis draws much that is like what it drew before, and whole kinds never; so there are many short
    ones, each of which begins with the smallest sizes.
    """
    most = missing()
    for go in range(2 + 2 * most // (GO - 1)):
        if missing() <= 0:
            break
        chosen = settings(
            max_examples=GO,
            phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
            database=None,
            deadline=None,
            derandomize=False,
            print_blob=False,
            report_multiple_bugs=False,
            verbosity=Verbosity.quiet,
            suppress_health_check=list(HealthCheck),
        )
        seeded(f"{seed} {go}")(chosen(given(case.sizes)(trial)))()


def made(case: Case, outcome: Outcome, mistake: Callable[[Arguments], Any]) -> bool:
    """Whether what was wrong is what a mistake gives, and the results that it does not touch are right."""
    try:
        with np.errstate(all="ignore"):
            mistaken = mistake(outcome.arguments)
    except (ConvkernelsError, ValueError):  # on this problem it cannot be made
        return False
    compared = {**outcome.expected, **mistaken}
    return outcome.name in mistaken and not first_difference(case, outcome.arguments, outcome.got, compared)


def explanation(regimes: Any, failing: list[Any], passing: list[Any]) -> str | None:
    """The kind of problem, or the two together, that all failing problems are of and hardly a passing one is."""
    for number, spare in ((1, 0.0), (2, 0.0), (1, SPARE)):
        if min(len(failing), len(passing)) < number * ENOUGH:
            return None
        found = []
        for chosen in combinations(regimes.items(), number):
            tests = [test for _, test in chosen]
            others = sum(all(test(sizes) for test in tests) for sizes in passing)
            if others <= spare * len(failing) and all(test(sizes) for sizes in failing for test in tests):
                found.append((others, " and ".join(words for words, _ in chosen)))
        if found:
            return min(found, key=lambda one: one[0])[1]
    return None


def used(case: Case, forward: Function | None, arguments: Arguments) -> list[str]:
    """The names of the arguments that a call is made of, those of the forward first."""
    before: tuple[str, ...] = ()
    if case.forward is not None:
        cache = case.forward.cache
        before = case.forward.passed if forward is not None else (cache,) if isinstance(cache, str) else cache
    return [name for name in dict.fromkeys((*before, *case.passed, *case.keywords)) if name in arguments]


def described(case: Case, forward: Function | None, arguments: Arguments) -> str:
    """A call's arguments in a line: shapes, and all that is no array."""
    values = {name: arguments[name] for name in used(case, forward, arguments)}
    return ", ".join(
        f"{name} of shape {value.shape}" if isinstance(value, np.ndarray) else f"{name}={expression(value)}"
        for name, value in values.items()
    )


def snippet(case: Case, function: Function, forward: Function | None, outcome: Outcome, name: str) -> str:
    """Code that makes the call again, and prints what is wrong with it."""
    source, arguments = case.forward, outcome.arguments
    names = [name, *([source.name] if forward is not None and source else [])]
    module = getattr(function, "__module__", None) or "__main__"
    lines = ["import numpy as np"]
    if module != "__main__" and module.replace(".", "").isidentifier():
        lines.append(f"from {module} import {', '.join(names)}")
    for key in used(case, forward, arguments):
        if key not in case.keywords:
            value = arguments[key]
            if isinstance(value, np.ndarray):
                code = expression(value) if value.size <= LONGEST else "..."
                lines.append(f"{key} = {code}  # shape {value.shape}")
            else:
                lines.append(f"{key} = {expression(value)}")
    if source is not None:
        if forward is not None:
            lines.append(f"out, cache = {source.name}({', '.join(source.passed)})")
        else:
            cache = source.cache if isinstance(source.cache, str) else f"({', '.join(source.cache)})"
            lines.append(f"cache = {cache}")
    keywords = [f"{key}={expression(arguments[key])}" for key in case.keywords if key in arguments]
    places = [case.wrapped.format(key) if isinstance(arguments.get(key), np.ndarray) else key for key in case.passed]
    lines.append(f"{', '.join(case.returns)} = {name}({', '.join([*places, *keywords])})")
    wrong = outcome.name if outcome.name in outcome.expected else ""
    if wrong:
        lines.append(f"print({wrong})")
    return "\n".join(lines)


def search(
    case: Case,
    function: Function,
    forward: Function | None,
    *,
    name: str,
    examples: int,
    seed: int,
    seconds: float | None = None,
    watch: Callable[[int, str], None] | None = None,
) -> tuple[int, Finding | None, tuple[str, ...]]:
    """Try a function: how many problems it was tried on, what is wrong, and remarks."""
    run = Search(case, function, forward, name, seconds, watch)
    sizes = run.smallest(examples, seed)
    tried = len(run.outcomes)
    remarks = dict.fromkeys(remark for outcome in run.outcomes.values() for remark in outcome.remarks)
    if sizes is None and run.late:
        remarks[f"time was up after {tried} of {examples} problems"] = None
    finding = None if sizes is None else run.finding(sizes, seed)
    return tried, finding, tuple(remarks)
