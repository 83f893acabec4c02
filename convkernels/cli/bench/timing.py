"""A race: callables run in turns in one process, so that what the machine does meanwhile meets all of them alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from time import perf_counter, process_time, sleep
from typing import Any

STILL = 0.1
"""The share of a processor below which the process counts as idle."""
LONGEST_WAIT = 0.1
"""Seconds after which a contestant's threads are no longer waited for."""


@dataclass(frozen=True)
class Rules:
    """How long a race is.

    Parameters
    ----------
    alternations : int
        How often each runs in turn.
    repeats : int
        How often all of that is done; a ratio is the median of the repeats'.
    shortest : float
        Seconds that a sample takes at least, by repetition if need be: well above the timer's noise.
    """

    alternations: int = 9
    repeats: int = 3
    shortest: float = 0.002


@dataclass(frozen=True)
class Times:
    """What a race took.

    Parameters
    ----------
    medians : dict
        By name the median seconds of each repeat.
    share : float
        Seconds of processors that this process had for each second of samples: below 1 if others kept it waiting.
    """

    medians: dict[str, list[float]]
    share: float


def race(runs: Mapping[str, Callable[[], Any]], rules: Rules) -> Times:
    """Run each in turn, as often as the rules say.

    Each runs untimed for half as long before it is timed, for others have had the caches since, and its threads sleep.
    Every second turn goes in reverse.

    Parameters
    ----------
    runs : mapping
        By name what to run; all of them ran before.
    rules : Rules
        How often.
    """
    counts = {name: repetitions(run, rules.shortest) for name, run in runs.items()}
    medians: dict[str, list[float]] = {name: [] for name in runs}
    used = passed = 0.0
    for _ in range(rules.repeats):
        samples: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range(rules.alternations):
            for name in list(runs)[:: -1 if turn % 2 else 1]:
                settle()
                sample(runs[name], -(-counts[name] // 2))
                before = process_time()
                samples[name].append(sample(runs[name], counts[name]))
                used += process_time() - before
                passed += samples[name][-1] * counts[name]
        for name, found in samples.items():
            medians[name].append(median(found))
    return Times(medians, used / passed)


def sample(run: Callable[[], Any], count: int = 1) -> float:
    """Seconds of one run, taken over so many."""
    start = perf_counter()
    for _ in range(count):
        run()
    return (perf_counter() - start) / count


def repetitions(run: Callable[[], Any], shortest: float) -> int:
    """How many runs take at least that long; it runs until it has seen them do so."""
    count = 1
    while True:
        found = sample(run, count) * count
        if found >= shortest / 2:
            return max(1, math.ceil(count * shortest / found))
        count *= 4


def settle() -> None:
    """Wait until this process is idle: OpenMP's and BLAS' threads spin for a while after their work is done."""
    end = perf_counter() + LONGEST_WAIT
    while (start := perf_counter()) < end:
        used = process_time()
        sleep(0.001)
        if process_time() - used < STILL * (perf_counter() - start):
            return
