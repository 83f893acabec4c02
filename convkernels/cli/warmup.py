"""Compiling ahead of the first call."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from time import perf_counter

from rich.console import Console
from rich.progress import track

from convkernels.kernels import compiled
from convkernels.kernels.compiled.available import missing

from .errors import CommandError


def run(console: Console) -> None:
    """Import every module that compiles as it is imported."""
    reason = missing()
    if reason:
        raise CommandError(reason)
    names = sorted(module.name for module in pkgutil.iter_modules(compiled.__path__))
    begun = perf_counter()
    for name in track(names, "Compiling", console=console, transient=True):
        import_module(f"{compiled.__name__}.{name}")
    console.print(f"{len(names)} modules are compiled and kept ({perf_counter() - begun:.1f} s)")
