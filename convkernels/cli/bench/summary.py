"""What many rows come to: geometric means by what they have in common, and the worst of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .cells import DIRECTIONS
from .problems import KINDS
from .results import Row, geometric_mean

TOLD = {name: place for place, name in enumerate((*KINDS, *DIRECTIONS))}
"""The order in which names are told of."""
DIMENSIONS = ("kind", "direction", "dtype", "layout", "threads", "batch", "precision")


@dataclass(frozen=True)
class Mean:
    """The rows of a group in a few figures; a figure that no row has is None.

    Parameters
    ----------
    count : int
        How many rows ran.
    ratio, worst : float or None
        The geometric mean and the least of their ratios.
    slower : int
        How many ratios are below 1.
    share : float or None
        The geometric mean of their shares of the machine's peak.
    """

    count: int
    ratio: float | None
    worst: float | None
    slower: int
    share: float | None

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Mean:
        """Summarise rows; those that declined count for nothing."""
        ran = [row for row in rows if row.seconds is not None]
        ratios = [row.ratio for row in ran if row.ratio is not None]
        shares = [row.peak_share for row in ran if row.peak_share is not None]
        return cls(
            len(ran),
            geometric_mean(ratios) if ratios else None,
            min(ratios, default=None),
            sum(ratio < 1 for ratio in ratios),
            geometric_mean(shares) if shares else None,
        )


def means(rows: Iterable[Row], *dimensions: str) -> dict[tuple[Any, ...], Mean]:
    """The mean of each group of rows that agree in the dimensions; kinds and directions in their own order."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(getattr(row, dimension) for dimension in dimensions), []).append(row)

    def order(values: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(TOLD.get(value, value) for value in values)

    return {values: Mean.of(groups[values]) for values in sorted(groups, key=order)}


def worst(rows: Iterable[Row], count: int) -> list[Row]:
    """The rows of the least ratios, the least first."""
    known = [row for row in rows if row.ratio is not None]
    return sorted(known, key=lambda row: row.ratio or 0.0)[:count]


def errors(rows: Iterable[Row]) -> dict[str, float]:
    """The largest error of each implementation, in units of its bound."""
    found: dict[str, float] = {}
    for row in rows:
        if row.error is not None:
            found[row.implementation] = max(row.error, found.get(row.implementation, 0.0))
    return found
