"""Settings that hold for the process or for a context: scratch memory, threads, precision.

A call's own option comes first, then the innermost `config_context`, then what `set_config` left for the process, then
the environment variable CONVKERNELS_NUM_THREADS.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Literal

from .errors import OptionError, one_of
from .window import whole

Precision = Literal["default", "highest"]
PRECISIONS = ("default", "highest")
THREADS = "CONVKERNELS_NUM_THREADS"


@dataclass(frozen=True)
class Config:
    """The settings in force; `None` for `threads` means the processors this process may use.

    Parameters
    ----------
    max_workspace : int
        Bytes of scratch memory that one call may take.
    threads : int or None
        Threads for the implementations that have their own.
    precision : {"default", "highest"}
        "highest" admits only implementations whose error is bounded for each output by itself and whose result for
        one sample does not depend on the batch around it.
    """

    max_workspace: int = 64 * 2**20
    threads: int | None = None
    precision: Precision = "default"

    def updated(
        self,
        *,
        max_workspace: int | None = None,
        threads: int | None = None,
        precision: Precision | None = None,
    ) -> Config:
        """Validate and take over the settings that are not None."""
        if max_workspace is None and threads is None and precision is None:
            return self
        changed = self
        if max_workspace is not None:
            changed = replace(changed, max_workspace=_bytes(max_workspace))
        if threads is not None:
            if whole("threads", threads) < 1:
                raise OptionError(f"threads={threads} must be at least 1")
            changed = replace(changed, threads=threads)
        if precision is not None:
            if precision not in PRECISIONS:
                raise OptionError(f"precision={precision!r} must be one of {one_of(PRECISIONS, str(precision))}")
            changed = replace(changed, precision=precision)
        return changed


@dataclass(frozen=True)
class Resources:
    """What a run may use: bytes of scratch memory, and threads (None: the processors this process may use)."""

    max_workspace: int
    threads: int | None = None


def _bytes(size: object) -> int:
    # A byte count may well exceed LARGEST, which is a limit for window options.
    try:
        count = -1 if isinstance(size, bool) else operator.index(size)  # type: ignore[arg-type]  # it may refuse
    except TypeError:
        count = -1
    if count < 0:
        raise OptionError(f"max_workspace={size!r} must be a whole number of bytes, at least 0")
    return count


def _from_environment() -> Config:
    given = os.environ.get(THREADS, "")
    if not given:
        return Config()
    if not given.isdecimal() or not int(given):
        raise OptionError(f"the environment variable {THREADS}={given!r} must be a whole number, at least 1")
    return Config().updated(threads=int(given))


_process = _from_environment()
_context: ContextVar[Config | None] = ContextVar("convkernels_config", default=None)


def get_config() -> Config:
    """Return the settings in force here.

    Returns
    -------
    Config
        The innermost `config_context`'s, or the process's.

    Examples
    --------
    >>> import convkernels as ck
    >>> ck.get_config().max_workspace
    67108864
    """
    return _context.get() or _process


def set_config(
    *, max_workspace: int | None = None, threads: int | None = None, precision: Precision | None = None
) -> None:
    """Change settings for the whole process, outside any `config_context`.

    Parameters
    ----------
    max_workspace : int, optional
        Bytes of scratch memory that one call may take.
    threads : int, optional
        Threads for the implementations that have their own.
    precision : {"default", "highest"}, optional
        Which implementations ``strategy="auto"`` may take; see `Config`.

    Raises
    ------
    OptionError
        If a value is not allowed; nothing is changed then.

    Examples
    --------
    >>> import convkernels as ck
    >>> ck.set_config(max_workspace=32 * 2**20)
    >>> ck.get_config().max_workspace
    33554432
    >>> ck.set_config(max_workspace=64 * 2**20)
    """
    global _process
    _process = _process.updated(max_workspace=max_workspace, threads=threads, precision=precision)


def set_threads(threads: int | None) -> None:
    """Set the threads of the implementations that have their own, for the whole process.

    Parameters
    ----------
    threads : int or None
        How many; None for as many as the processors this process may use.

    Raises
    ------
    OptionError
        If it is less than 1, or no whole number; nothing is changed then.

    Notes
    -----
    The environment variable CONVKERNELS_NUM_THREADS says what holds at the start. The threads of NumPy's BLAS are set
    elsewhere, for instance by the package threadpoolctl.

    Examples
    --------
    >>> import convkernels as ck
    >>> ck.set_threads(2)
    >>> ck.get_config().threads
    2
    >>> ck.set_threads(None)
    """
    global _process
    _process = replace(_process, threads=None).updated(threads=threads)


@contextmanager
def config_context(
    *, max_workspace: int | None = None, threads: int | None = None, precision: Precision | None = None
) -> Iterator[Config]:
    """Change settings inside a ``with`` block, for this thread or asynchronous task alone.

    Parameters
    ----------
    max_workspace, threads, precision
        As for `set_config`.

    Yields
    ------
    Config
        The settings in force inside the block.

    Raises
    ------
    OptionError
        If a value is not allowed; nothing is changed then.

    Examples
    --------
    >>> import convkernels as ck
    >>> with ck.config_context(max_workspace=2**20) as config:
    ...     config.max_workspace
    1048576
    """
    with in_force(get_config().updated(max_workspace=max_workspace, threads=threads, precision=precision)) as config:
        yield config


@contextmanager
def in_force(config: Config) -> Iterator[Config]:
    """Have these settings inside a ``with`` block, for this thread or asynchronous task alone."""
    token = _context.set(config)
    try:
        yield config
    finally:
        _context.reset(token)
