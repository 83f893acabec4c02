"""Every error the package raises, and the one form they all take.

Inner code raises the cause ("in_channels=6 must be divisible by groups=4"); the public call adds where it
happened, so that a user reads one line::

    conv2d: in_channels=6 must be divisible by groups=4 (x has shape (2, 8, 8, 6), layout 'NHWC')
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ConvkernelsError(Exception):
    """Base of every error the package raises on purpose.

    Attributes
    ----------
    cause : str
        What is wrong, without the call it went wrong in.
    """

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause

    def locate(self, call: str, subject: str) -> None:
        """Say in which public call, and on what, the cause was met; the innermost call that a user made wins."""
        self.args = (f"{call}: {self.cause} ({subject})",)


class ShapeError(ConvkernelsError, ValueError):
    """Array shapes that disagree with each other, with the layout or with the options."""


class OptionError(ConvkernelsError, ValueError):
    """An option whose value is not one of those allowed."""


class LayoutError(ConvkernelsError, ValueError):
    """A layout that does not name each axis once, or has the wrong number of spatial axes."""


class DTypeError(ConvkernelsError, TypeError):
    """An element type the operation does not take."""


class IntegerOverflowError(ConvkernelsError, OverflowError):
    """Integer data so large that its sum of products might not fit the 64-bit accumulator."""


class OverlapError(ConvkernelsError, ValueError):
    """An ``out`` that shares memory with an input or with itself."""


class UnknownStrategyError(ConvkernelsError, ValueError):
    """A strategy name that no implementation of the operation has."""


class UnsupportedError(ConvkernelsError, NotImplementedError):
    """A problem that the named implementation, or every one, declines; a line for each says why."""


class DataError(ConvkernelsError, ValueError):
    """A file, or a saved state, that is missing, broken, or of something else."""


class OrderError(ConvkernelsError, RuntimeError):
    """A call that another must come before: a layer's backward without its forward."""


class WorkspaceError(ConvkernelsError, MemoryError):
    """A ``max_workspace`` too small to work in; the message says how much would do."""


def one_of(names: Iterable[str], given: str) -> str:
    """Spell out the names allowed, and the nearest to the one given.

    Examples
    --------
    >>> one_of(["valid", "same"], "smae")
    "'valid', 'same' (nearest: 'same')"
    """
    allowed = list(names)
    listed = ", ".join(map(repr, allowed))
    nearest = difflib.get_close_matches(given, allowed, n=1, cutoff=0.5)
    return f"{listed} (nearest: {nearest[0]!r})" if nearest else listed
