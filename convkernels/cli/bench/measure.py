"""A cell measured: everybody's result compared, then all timed in turns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # ships no types

import convkernels as ck
from convkernels.cli.errors import CommandError
from convkernels.config import Precision
from convkernels.layout import Array

from . import machine, memory, ours
from .cells import Cell
from .contestant import Contestant, Peer
from .results import Row, Timed
from .task import Task
from .timing import Rules, race, sample

TRIALS = 3
HOPELESS = 1.3
"""How many times slower in its trials a peer's form may be than that peer's best, not to be left out of the race."""
TOLERANCES = {"float32": 1e-3, "float64": 1e-9}
"""How far results may be apart, in units of the largest: enough for any rounding, too little for any mistake."""


@dataclass(frozen=True)
class Tried:
    """A contestant whose result is right, and what its trials took."""

    contestant: Contestant
    memory: int | None
    seconds: float
    error: float | None


def measure(
    cell: Cell, layouts: Sequence[str], precisions: Sequence[Precision], peers: Iterable[Peer], rules: Rules
) -> list[Row]:
    """One row for each layout and precision."""
    peers, task = list(peers), Task.make(cell)
    with ExitStack() as stack:
        stack.enter_context(threadpool_limits(limits=cell.threads))  # BLAS', on which `im2col` runs
        for peer in peers:
            stack.enter_context(peer.session(cell.threads))
        variants = list(ours.variants(task, layouts, precisions, cell.threads))
        mine = [made for _, _, made in variants if isinstance(made, Contestant)]
        theirs = [contestant for peer in peers for contestant in peer.contestants(task, cell.threads)]
        if not mine:
            return [_row(cell, task, *variant) for variant in variants]
        judge = Judge(task)
        tried = {id(made): try_out(made, judge) for made in (*{id(made): made for made in mine}.values(), *theirs)}
        ready = [*(tried[id(made)] for made in mine), *hopeful([tried[id(made)] for made in theirs])]
        runs = {f"{found.contestant.library} {found.contestant.variant}": found.contestant.run for found in ready}
        times = race(runs, rules)
        best = _best_forms([tried[id(made)] for made in theirs], times.medians)
        return [_row(cell, task, *variant, tried=tried, times=times, best=best) for variant in variants]


class Judge:
    """Holds results against each other and, for convolutions in float32, against exact ones."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.exact, self.bound = exact(task)
        self.expected: tuple[Array, ...] | None = None if self.exact is None else (self.exact,)

    def check(self, contestant: Contestant, results: tuple[Array, ...]) -> float | None:
        """Raise if a result is wrong; the largest error in units of its bound, where that is known."""
        if self.expected is None:
            self.expected = results
        tolerance = TOLERANCES[self.task.spec.dtype.name]
        agree = len(results) == len(self.expected) and all(
            one.shape == other.shape
            # Not `all close`: near zero only the size of the terms counts, which is that of the other results.
            and np.abs(one - other).max(initial=0.0) <= tolerance * np.abs(other).max(initial=0.0)
            for one, other in zip(results, self.expected, strict=True)
        )
        if not agree:
            raise CommandError(
                f"{contestant.library} ({contestant.variant}{contestant.implementation and ', '}"
                f"{contestant.implementation}) computes another result: {self.task.direction} {self.task.spec}"
            )
        if self.exact is None or self.bound is None:
            return None
        return float((np.abs(results[0] - self.exact) / self.bound).max(initial=0.0))


def exact(task: Task) -> tuple[Array | None, Array | None]:
    """A convolution's result in float64, and the bound on a float32 result's error; None for all else.

    The bound is n eps sum(|x| |w|) for sums of n products, in any order (Higham, "Accuracy and Stability of Numerical
    Algorithms", chapter 3).
    """
    if task.operation != "conv" or task.spec.dtype != np.float32:
        return None, None
    spec, wide = task.spec, {role: array.astype(np.float64) for role, array in task.arrays.items()}
    window = spec.window
    terms = {
        "forward": spec.group_in * window.taps,
        "input_grad": spec.group_out * window.taps,
        "weight_grad": spec.batch * int(np.prod(window.out_size)),
    }[task.direction]
    options = {"stride": window.stride, "padding": window.padding, "dilation": window.dilation}
    options |= {"groups": spec.groups, "strategy": "im2col"}

    def result(arrays: dict[str, Array]) -> Array:
        axes = "NC" + "DHW"[3 - task.rank :]
        if task.direction == "forward":
            return ck.conv(arrays["x"], arrays["w"], layout=axes, **options)
        if task.direction == "input_grad":
            return ck.conv_input_grad(arrays["dy"], arrays["w"], x_shape=spec.x_shape, layout=axes, **options)
        kernel_size = window.kernel_size
        return ck.conv_weight_grad(arrays["x"], arrays["dy"], kernel_size=kernel_size, layout=axes, **options)

    sizes = result({role: np.abs(array) for role, array in wide.items()})
    # An output without any product must be zero, not nearly.
    return result(wide), np.maximum(terms * float(np.finfo(np.float32).eps) * sizes, np.finfo(np.float64).tiny)


def try_out(contestant: Contestant, judge: Judge) -> Tried:
    """Run a contestant, look at its result, and see how long it takes."""
    contestant.run()  # may compile, which takes memory of its own
    found, peak = memory.peak_of(contestant.run)
    error = judge.check(contestant, contestant.canonical(found))
    return Tried(contestant, peak, min(sample(contestant.run) for _ in range(TRIALS)), error)


def hopeful(tried: Iterable[Tried]) -> list[Tried]:
    """Those that may turn out to be their library's best form."""
    found: dict[str, list[Tried]] = {}
    for one in tried:
        found.setdefault(one.contestant.library, []).append(one)
    return [one for forms in found.values() for one in forms if one.seconds <= HOPELESS * min(f.seconds for f in forms)]


def _best_forms(tried: Iterable[Tried], times: dict[str, list[float]]) -> dict[str, tuple[Tried, list[float]]]:
    """For each peer the fastest of its forms in the race, and its medians."""
    best: dict[str, tuple[Tried, list[float]]] = {}
    for one in tried:
        medians = times.get(f"{one.contestant.library} {one.contestant.variant}")
        present = best.get(one.contestant.library)
        if medians and (present is None or median(medians) < median(present[1])):
            best[one.contestant.library] = one, medians
    return best


def _row(
    cell: Cell,
    task: Task,
    layout: str,
    precision: str,
    made: Contestant | ours.DeclinedError,
    *,
    tried: Any = None,
    times: Any = None,
    best: Any = None,
) -> Row:
    place = (cell.problem, cell.direction, layout, cell.threads, precision, cell.layer.kind, cell.dtype, cell.batch)
    if isinstance(made, ours.DeclinedError):
        return Row(*place, declined=str(made), source=machine.source())
    medians = times.medians[f"{made.library} {made.variant}"]
    seconds = median(medians)
    rate, most = task.amount / seconds, machine.peak(task.unit, cell.dtype, cell.threads)
    name = min(best, key=lambda peer: median(best[peer][1]), default="")
    return Row(
        *place,
        implementation=made.implementation,
        seconds=seconds,
        rate=rate,
        unit=task.unit,
        peak_share=None if most is None else rate / most,
        memory=tried[id(made)].memory,
        error=tried[id(made)].error,
        peers={
            peer: Timed(found.contestant.variant, median(theirs), found.memory)
            for peer, (found, theirs) in best.items()
        },
        peer=name,
        ratio=ratio(best[name][1], medians) if name else None,
        processor_share=times.share,
        source=machine.source(),
    )


def ratio(theirs: Sequence[float], mine: Sequence[float]) -> float:
    """Their time over ours: the median of the repeats'.

    Examples
    --------
    >>> ratio([2.0, 8.0, 3.0], [1.0, 1.0, 1.0])
    3.0
    """
    return median(one / other for one, other in zip(theirs, mine, strict=True))
