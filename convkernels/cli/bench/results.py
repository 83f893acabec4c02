"""Rows of figures, and reports of them as JSON.

A report is one object::

    schema       "convkernels-bench/1"
    environment  what a figure depends on: processor, versions, a digest of the source (see machine.environment)
    rules        alternations, repeats and the shortest sample (see timing.Rules)
    peaks        the most the machine does, in billions a second: {"GFLOP/s float32 1t": 116.2, ...}
    rows         a list of objects with the fields of `Row`, in the order of their measurement
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from convkernels.cli.errors import CommandError
from convkernels.cli.files import write

SCHEMA = "convkernels-bench/1"
SAME = ("processor", "platform")
"""What must agree for reports to become one."""


@dataclass(frozen=True)
class Timed:
    """A peer's time in the better of its forms."""

    variant: str
    seconds: float
    memory: int | None = None


@dataclass(frozen=True)
class Row:
    """A cell in one of our layouts, at one precision.

    Parameters
    ----------
    problem, direction, layout, threads, precision
        What was measured: by these a row is known.
    kind, dtype, batch
        What they imply, to group by.
    implementation : str
        What `auto` took.
    seconds : float or None
        The median; None where the library declined.
    rate, unit : float, str
        Billions a second, of operations of the direct method or of bytes.
    peak_share : float or None
        The rate over the machine's own peak; above 1 where fewer operations are made.
    memory : int or None
        Bytes at the peak of a call, the result included.
    error : float or None
        The largest error in units of its bound, n eps sum(|x| |w|) of the output; for convolutions in float32.
    peers : dict
        Each peer that has the case.
    peer : str
        The fastest of them; empty if there is none.
    ratio : float or None
        Its time over ours.
    processor_share : float or None
        Seconds of processors that the process had for each second of the race; less than 1 if the machine was busy.
    declined : str
        Why the library did not run.
    source : str
        The digest of the source that ran.
    """

    problem: str
    direction: str
    layout: str
    threads: int
    precision: str
    kind: str
    dtype: str
    batch: int
    implementation: str = ""
    seconds: float | None = None
    rate: float = 0.0
    unit: str = ""
    peak_share: float | None = None
    memory: int | None = None
    error: float | None = None
    peers: dict[str, Timed] = field(default_factory=dict)
    peer: str = ""
    ratio: float | None = None
    processor_share: float | None = None
    declined: str = ""
    source: str = ""

    @property
    def key(self) -> tuple[str, str, str, int, str]:
        """What no two rows of a report share."""
        return self.problem, self.direction, self.layout, self.threads, self.precision


@dataclass(frozen=True)
class Report:
    """Rows, and all that is needed to understand them."""

    environment: dict[str, str]
    rules: dict[str, float]
    peaks: dict[str, float] = field(default_factory=dict)
    rows: tuple[Row, ...] = ()

    def with_rows(self, rows: Iterable[Row]) -> Report:
        """Take rows in; one that is there already is replaced."""
        found = {row.key: row for row in self.rows} | {row.key: row for row in rows}
        return Report(self.environment, self.rules, self.peaks, tuple(found.values()))

    def save(self, file: Path) -> None:
        """Write JSON, in full or not at all."""
        text = json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1, allow_nan=False) + "\n"
        write(file, lambda part: part.write_text(text, encoding="utf-8"))


def load(file: Path) -> Report:
    """Read a report."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CommandError(f"cannot read {file}: {error.strerror or error}") from None
    except ValueError as error:
        raise CommandError(f"{file} holds no JSON: {error}") from None
    schema = found.get("schema") if isinstance(found, dict) else None
    if schema != SCHEMA:
        raise CommandError(f"{file} has the schema {schema!r}, must be {SCHEMA!r}")
    try:
        rows = tuple(map(_row, found["rows"]))
        return Report(found["environment"], found["rules"], found["peaks"], rows)
    except (AttributeError, KeyError, TypeError) as error:
        raise CommandError(f"{file} is no complete report: {type(error).__name__}: {error}") from None


def _row(found: dict[str, Any]) -> Row:
    unknown = set(found) - {known.name for known in fields(Row)}
    if unknown:
        raise TypeError(f"a row has the unknown fields {sorted(unknown)}")
    return Row(**{**found, "peers": {name: Timed(**timed) for name, timed in found["peers"].items()}})


def merged(reports: Sequence[Report], names: Sequence[str]) -> Report:
    """Make one of several reports of one machine: a later one's rows, rules and versions replace an earlier one's."""
    first, *rest = reports
    for other, name in zip(rest, names[1:], strict=True):
        for key in SAME:
            theirs, ours = other.environment.get(key), first.environment.get(key)
            if theirs != ours:
                raise CommandError(f"{name} is of {key} {theirs!r}, {names[0]} of {ours!r}: not comparable")
        both = Report(other.environment, other.rules, first.peaks | other.peaks, first.rows)
        first = both.with_rows(other.rows)
    return first


def geometric_mean(ratios: Iterable[float]) -> float:
    """The mean that treats twice and half alike.

    Examples
    --------
    >>> geometric_mean([0.5, 2.0])
    1.0
    """
    return math.exp(math.fsum(logs) / len(logs)) if (logs := [math.log(ratio) for ratio in ratios]) else math.nan
