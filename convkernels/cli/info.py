"""What a bug report should hold."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_info  # type: ignore[import-untyped]  # ships no types

from convkernels import __version__
from convkernels.config import get_config
from convkernels.operation import OPERATIONS
from convkernels.plugins import load_plugins

OPTIONAL = ("numba", "hypothesis", "scipy", "scikit-learn", "matplotlib", "rich", "typer")

Rows = Iterable[tuple[str, str]]


def show(console: Console) -> None:
    """Print all that matters for how the package behaves here."""
    failures = load_plugins()
    sections: dict[str, Rows] = {
        "Versions": versions(),
        "Machine": machine(),
        "Strategies, the preferred first": [(name, ", ".join(found.names())) for name, found in OPERATIONS.items()],
        "BLAS": blas(),
        "Configuration": configuration(),
        "Plugins that failed to load": failures.items() or [("none", "")],
    }
    for title, rows in sections.items():
        table = Table.grid(padding=(0, 0, 0, 2))
        table.add_column(overflow="fold", min_width=20)
        table.add_column(overflow="fold")
        for row in rows:
            table.add_row(*row)
        console.print(title, style="bold")
        console.print(table)
        console.print()


def versions() -> Rows:
    """List the versions of the package, of what it runs on and of what it can make use of."""
    yield "convkernels", __version__
    yield "Python", platform.python_version()
    yield "NumPy", np.__version__
    for package in OPTIONAL:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            yield package, "not installed"


def machine() -> Rows:
    """Name the platform, and count the processors that this process may use."""
    yield "platform", platform.platform()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield "processors", str(usable)


def blas() -> Rows:
    """Name the BLAS that NumPy was built with, and those loaded with their threads."""
    built = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    yield "NumPy's", " ".join(built[key] for key in ("name", "version") if key in built)
    for library in threadpool_info():
        if library["user_api"] == "blas":
            yield "loaded", f"{library['internal_api']} {library['version']}, threads: {library['num_threads']}"
            yield "", library["filepath"]


def configuration() -> Rows:
    """List the settings in force."""
    for name, value in asdict(get_config()).items():
        yield name, "as many as processors" if value is None else str(value)
