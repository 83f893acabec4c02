"""Implementations that other packages bring: functions of an entry-point group, called before the first choice."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from threading import RLock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINTS = "convkernels.implementations"


@dataclass
class _Plugins:
    started: bool = False
    loaded: bool = False
    failures: dict[str, str] = field(default_factory=dict)
    lock: RLock = field(default_factory=RLock)


_plugins = _Plugins()


def load_plugins() -> dict[str, str]:
    """Read the entry-point group once; return the plugins that failed, with the reason for each.

    Each entry point names a function without arguments, which calls `register`. One that fails breaks nothing else.
    """
    if not _plugins.loaded:
        # Other threads wait here; a plugin that convolves while it loads comes back here on its own thread.
        with _plugins.lock:
            if not _plugins.started:
                _plugins.started = True
                for entry in entry_points():
                    reason = _load(entry)
                    if reason:
                        _plugins.failures[f"{entry.name} ({entry.value})"] = reason
                _plugins.loaded = True
    return _plugins.failures


def entry_points() -> Iterable[EntryPoint]:
    """What is installed in the group."""
    from importlib import metadata  # noqa: PLC0415  # takes 19 ms, a third of the package's own import

    return metadata.entry_points(group=ENTRY_POINTS)


def _load(entry: EntryPoint) -> str | None:
    try:
        entry.load()()
    except Exception as error:  # a stranger's code may raise anything, and must not break a call that never named it
        return f"{type(error).__name__}: {error}"
    return None
