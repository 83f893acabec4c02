"""Settings that hold for the process or for a context: scratch memory, threads, precision.

A call's own option comes first, then the innermost `config_context`, then what `set_config` left for the process.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Literal

from .errors import OptionError, one_of
from .window import whole

Precision = Literal["default", "highest"]
PRECISIONS = ("default", "highest")


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


_process = Config()
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
    config = get_config().updated(max_workspace=max_workspace, threads=threads, precision=precision)
    token = _context.set(config)
    try:
        yield config
    finally:
        _context.reset(token)
