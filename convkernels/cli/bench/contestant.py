"""Who computes a cell: the library itself, or a peer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from convkernels.layout import Array

from .task import Task


@dataclass(frozen=True)
class Contestant:
    """One way of computing a task.

    Parameters
    ----------
    library, variant : str
        Who, and in which of its forms.
    run : callable
        Computes, on data that lie ready; this is what is timed.
    canonical : callable
        Makes canonical NumPy arrays of what `run` returned.
    implementation : str
        What the library chose; empty where it does not say.
    """

    library: str
    variant: str
    run: Callable[[], Any]
    canonical: Callable[[Any], tuple[Array, ...]]
    implementation: str = ""

    @property
    def name(self) -> str:
        """Who in which form."""
        return f"{self.library} {self.variant}"


class Peer(Protocol):
    """Another library."""

    name: str

    def version(self) -> str:
        """Return its version."""

    def session(self, threads: int) -> AbstractContextManager[None]:
        """Set its threads, inside a ``with`` block."""

    def contestants(self, task: Task, threads: int) -> Iterator[Contestant]:
        """Yield its forms of a task, each with data that lie as it likes them; none if it lacks the case."""
