"""What a pool reads along one axis, as runs: neighbouring targets that read alike.

A run's targets lie evenly, and each reads the same *steps* from an origin that moves evenly too. So the border, where
windows lose taps, and the stride, of which every remainder sees other taps, are data of a few runs, and what computes
has no branch for them. Forwards, targets are outputs and read cells; backwards they are cells and read outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ...pool_spec import PoolSpec
from ...window import Window

Numbers = np.ndarray[Any, np.dtype[np.int64]]


class Step(NamedTuple):
    """One thing to read: how far from the origin, by which tap, and the cells that its window counts."""

    distance: int
    tap: int
    counted: int


@dataclass(frozen=True)
class Run:
    """Targets ``first + i * spacing`` that read the steps from ``origin + i * advance``.

    Where there are several phases, a target is that many neighbours, each with steps of its own; `size` of all exist.
    """

    first: int
    number: int
    spacing: int
    origin: int
    advance: int
    phases: tuple[tuple[Step, ...], ...]
    size: int
    count: int = 1


def counts(spec: PoolSpec, axis: int) -> Numbers:
    """The cells that each window counts along an axis."""
    window, outputs = spec.window, spec.window.out_size[axis]
    if not spec.reducer.counts or spec.divisor_override is not None:
        return np.ones(outputs, np.int64)
    one = Window(
        (window.in_size[axis],),
        (window.kernel_size[axis],),
        (window.stride[axis],),
        (window.padding[axis],),
        (window.dilation[axis],),
        window.ceil_mode,
    )
    found = one.cell_counts((slice(0, outputs),), include_padding=spec.count_include_pad)
    return np.broadcast_to(np.asarray(found, np.int64), (outputs,))


def cuts(*columns: Numbers) -> list[tuple[int, int]]:
    """Where neighbours agree in every column."""
    changes = np.flatnonzero(np.any([column[1:] != column[:-1] for column in columns], axis=0)) + 1
    return list(pairwise((0, *changes.tolist(), len(columns[0]))))


def reading(spec: PoolSpec, axis: int, outputs: slice) -> list[Run]:
    """The runs of some outputs, which read cells."""
    window = spec.window
    step, spread, taps = window.stride[axis], window.dilation[axis], window.kernel_size[axis]
    first, stop = window.bounds[axis]
    places = np.arange(outputs.start, outputs.stop)
    starts = places * step - window.padding[axis][0]
    low = np.clip(-((starts - first) // spread), 0, taps)
    high = np.clip(-((starts - stop) // spread), 0, taps)
    counted = counts(spec, axis)[outputs]
    return [
        Run(
            int(places[begin]),
            end - begin,
            1,
            int(starts[begin]),
            step,
            (tuple(Step(tap * spread, tap, 1) for tap in range(int(low[begin]), int(high[begin]))),),
            end - begin,
            int(counted[begin]),
        )
        for begin, end in cuts(low, high, counted)
    ]


def spreading(spec: PoolSpec, axis: int, cells: slice, *, together: bool, bounded: bool = True) -> list[Run]:
    """The runs of some cells, which read the outputs whose windows hold them.

    If not `bounded`, they read on beyond the first and the last output, as `margins` tells.

    With the stride s, cell ``s * m + r`` is tap t of output ``m + (r + lo - t * dilation) / s`` where s divides that.
    The remainders r are runs of their own, or `together` the phases of common ones; `cells` then starts at a multiple
    of s.
    """
    window = spec.window
    step, outputs = window.stride[axis], window.out_size[axis]
    first, stop = window.bounds[axis]
    lo, counted = window.padding[axis][0], counts(spec, axis)
    runs = []
    for remainders in [range(step)] if together else [[remainder] for remainder in range(step)]:
        groups = np.arange(
            -((remainders[0] - cells.start) // step), -((remainders[0] - cells.stop) // step), dtype=np.int64
        )
        if not len(groups):
            continue
        columns, steps = [groups * 0], []
        for phase, remainder in enumerate(remainders):
            places = groups * step + remainder
            real = (first <= places) & (places < stop)
            for tap in reversed(range(window.kernel_size[axis])):
                distance, rest = divmod(remainder + lo - tap * window.dilation[axis], step)
                if not rest:
                    reached = groups + distance
                    valid = (real & (reached >= 0) & (reached < outputs)) | (not bounded)
                    columns.append(np.where(valid, counted[np.clip(reached, 0, outputs - 1)], 0))
                    steps.append((phase, distance, tap))
        for begin, end in cuts(*columns):
            phases: list[list[Step]] = [[] for _ in remainders]
            for (phase, distance, tap), column in zip(steps, columns[1:], strict=True):
                if column[begin]:
                    phases[phase].append(Step(distance, tap, int(column[begin])))
            origin, number = int(groups[begin]), end - begin
            place = origin * step + remainders[0]
            size = min(number * step, cells.stop - place) if together else number
            runs.append(Run(place, number, step, origin, 1, tuple(map(tuple, phases)), size, int(counted[0])))
    return runs


def margins(window: Window, axis: int, cells: slice) -> range:
    """The outputs along an axis that could hold some of its cells, if there were outputs without end."""
    step, lo = window.stride[axis], window.padding[axis][0]
    first = (lo + 1 - window.extent[axis]) // step + cells.start // step
    return range(first, (step - 1 + lo) // step + (cells.stop - 1) // step + 1)
