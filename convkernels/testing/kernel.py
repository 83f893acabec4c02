"""`check_kernel`: hold any function to the definition, and say in words on what it is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import OptionError, one_of
from ..window import whole
from . import cs231n_cases, cs231n_loss_cases, cs231n_norm_cases, cs231n_sandwich_cases, deeplearning_ai_cases
from .cases import Case, Function
from .library_cases import LIBRARIES, library_case
from .report import Report
from .search import search

COURSES: dict[str, Mapping[str, Case]] = {
    "cs231n": {
        **cs231n_cases.CASES,
        **cs231n_norm_cases.CASES,
        **cs231n_loss_cases.CASES,
        **cs231n_sandwich_cases.CASES,
    },
    "deeplearning_ai": deeplearning_ai_cases.CASES,
}
"""By convention, the functions of the courses."""
CONVENTIONS = (*COURSES, *LIBRARIES)
LARGEST_SEED = 2**32 - 1


def operations(convention: str) -> tuple[str, ...]:
    """The names of the functions that a convention knows."""
    return tuple(COURSES[convention] if convention in COURSES else LIBRARIES[convention].names)


def find_case(function: Function, operation: str | None, convention: str) -> tuple[str, Case]:
    """The convention, and what it says of a function."""
    if convention not in ("auto", *CONVENTIONS):
        raise OptionError(f"convention={convention!r} must be one of {one_of(('auto', *CONVENTIONS), str(convention))}")
    searched = ("native", *COURSES) if convention == "auto" else (convention,)
    name = getattr(function, "__name__", "") if operation is None else operation
    for found in searched:
        if name in operations(found):
            case = COURSES[found][name] if found in COURSES else library_case(function, name, found)
            return found, case
    known = [name for found in searched for name in operations(found)]
    given = (
        f"operation={operation!r}" if operation is not None else f"operation=None is the function's name, {name!r}, and"
    )
    raise OptionError(f"{given} must be one of {one_of(known, str(name))}")


def check_kernel(
    fn: Callable[..., Any],
    operation: str | None = None,
    convention: str = "auto",
    *,
    forward: Callable[..., Any] | None = None,
    examples: int = 100,
    seed: int = 0,
) -> Report:
    """Try a function on drawn problems, and report the smallest on which it is wrong.

    Parameters
    ----------
    fn : callable
        The function. It runs in this process: one that never ends is not stopped. The command ``convkernels check``
        does stop it.
    operation : str, optional
        What it should compute, by the name of the convention's own function: "conv2d", "max_pool1d",
        "conv_forward_naive". By default the function's name.
    convention : str
        Whose signature it has: "native" (this package's own; a function with fewer keywords gets the problems it can
        express), "torch", "jax", "onnxruntime", "cs231n" or "deeplearning_ai". By default the first of native,
        cs231n and deeplearning_ai that knows the operation.
    forward : callable, optional
        For a course's backward, the forward whose cache it takes. By default it gets the cache that the course lays
        down, where it does.
    examples : int
        How many problems are tried.
    seed : int
        Which ones: the same seed gives the same problems.

    Returns
    -------
    Report
        Whether the function was right, on how many problems, or where it was wrong; it prints as text, and its method
        ``check`` raises.

    Raises
    ------
    OptionError
        If an argument of this call is not one of those allowed.
    ModuleNotFoundError
        If the convention's library is not installed.

    Examples
    --------
    >>> import convkernels as ck
    >>> print(check_kernel(ck.max_pool2d, examples=20))
    max_pool2d is right on all 20 problems tried.
    >>> def relu_backward(dout, cache):
    ...     return dout * (cache >= 0)
    >>> check_kernel(relu_backward).right
    True
    """
    return run_check(fn, operation, convention, forward=forward, examples=examples, seed=seed)


def run_check(
    fn: Callable[..., Any],
    operation: str | None,
    convention: str,
    *,
    forward: Callable[..., Any] | None = None,
    examples: int = 100,
    seed: int = 0,
    name: str | None = None,
    seconds: float | None = None,
    watch: Callable[[int, str], None] | None = None,
) -> Report:
    """`check_kernel` of a function under a name, in limited time, telling `watch` of problems before they are tried."""
    if not callable(fn):
        raise OptionError(f"fn={fn!r} must be a function")
    if forward is not None and not callable(forward):
        raise OptionError(f"forward={forward!r} must be a function or None")
    if whole("examples", examples) < 1:
        raise OptionError(f"examples={examples} must be at least 1")
    if not 0 <= whole("seed", seed) <= LARGEST_SEED:
        raise OptionError(f"seed={seed} must be from 0 to {LARGEST_SEED}")
    convention, case = find_case(fn, operation, convention)
    if forward is not None and case.forward is None:
        raise OptionError(f"forward={forward!r} must be None: {case.name} takes no cache")
    if forward is None and case.forward is not None and not case.forward.cache:
        raise OptionError(f"forward=None must be {case.forward.name}, whose cache {case.name} takes")
    name = name or str(getattr(fn, "__name__", type(fn).__name__))
    problems, finding, remarks = search(
        case, fn, forward, name=name, examples=examples, seed=seed, seconds=seconds, watch=watch
    )
    return Report(name, case.name, convention, problems, finding, remarks)
