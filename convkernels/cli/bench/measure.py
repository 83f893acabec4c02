"""A cell measured: everybody's result compared, then all timed in turns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Any

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # ships no types

from convkernels.config import Precision

from . import machine, memory, ours
from .cells import Cell
from .contestant import Contestant, Peer
from .judge import Judge
from .ours import DeclinedError
from .results import Row, Timed
from .task import Task
from .timing import Rules, Times, race, sample

TRIALS = 3
HOPELESS = 1.3
"""How many times slower in its trials a peer's form may be than that peer's best, not to be left out of the race."""


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
        stack.enter_context(ours.session(cell.threads))
        variants = list(ours.variants(task, layouts, precisions))
        mine = [made for _, _, made in variants if isinstance(made, Contestant)]
        theirs = [contestant for peer in peers for contestant in peer.contestants(task, cell.threads)]
        if not mine:
            return [_declined(cell, *variant) for variant in variants]
        judge = Judge(task)
        tried = {id(made): try_out(made, judge) for made in (*{id(made): made for made in mine}.values(), *theirs)}
        ready = [*(tried[id(made)] for made in mine), *hopeful([tried[id(made)] for made in theirs])]
        times = race({found.contestant.name: found.contestant.run for found in ready}, rules)
        best = best_forms([tried[id(made)] for made in theirs], times)
    return [
        _declined(cell, layout, precision, made)
        if isinstance(made, DeclinedError)
        else _ran(cell, layout, precision, tried[id(made)], task, times, best)
        for layout, precision, made in variants
    ]


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


def best_forms(tried: Iterable[Tried], times: Times) -> dict[str, tuple[Tried, list[float]]]:
    """For each peer the fastest of its forms in the race, and its medians."""
    best: dict[str, tuple[Tried, list[float]]] = {}
    for one in tried:
        library = one.contestant.library
        medians = times.medians.get(one.contestant.name)
        if medians and (library not in best or median(medians) < median(best[library][1])):
            best[library] = one, medians
    return best


def _place(cell: Cell, layout: str, precision: Precision) -> dict[str, Any]:
    """What a row is known by."""
    return {
        "problem": cell.problem,
        "direction": cell.direction,
        "layout": layout,
        "threads": cell.threads,
        "precision": precision,
        "kind": cell.layer.kind,
        "dtype": cell.dtype,
        "batch": cell.batch,
        "source": machine.source(),
    }


def _declined(cell: Cell, layout: str, precision: Precision, refusal: object) -> Row:
    return Row(**_place(cell, layout, precision), declined=str(refusal))


def _ran(
    cell: Cell,
    layout: str,
    precision: Precision,
    found: Tried,
    task: Task,
    times: Times,
    best: dict[str, tuple[Tried, list[float]]],
) -> Row:
    medians = times.medians[found.contestant.name]
    seconds = median(medians)
    rate, most = task.amount / seconds, machine.peak(task.unit, cell.dtype, cell.threads)
    name = min(best, key=lambda peer: median(best[peer][1]), default="")
    return Row(
        **_place(cell, layout, precision),
        implementation=found.contestant.implementation,
        seconds=seconds,
        rate=rate,
        unit=task.unit,
        peak_share=None if most is None else rate / most,
        memory=found.memory,
        error=found.error,
        peers={
            peer: Timed(form.contestant.variant, median(theirs), form.memory) for peer, (form, theirs) in best.items()
        },
        peer=name,
        ratio=ratio(best[name][1], medians) if name else None,
        processor_share=times.share,
    )


def ratio(theirs: Sequence[float], mine: Sequence[float]) -> float:
    """Their time over ours: the median of the repeats'.

    Examples
    --------
    >>> ratio([2.0, 8.0, 3.0], [1.0, 1.0, 1.0])
    3.0
    """
    return median(one / other for one, other in zip(theirs, mine, strict=True))
