"""A function as a convention knows it: how it is called, what it must give, and how it is known to go wrong.

`examine` calls a function once and compares. Nothing here draws problems or shrinks them: that is `search`.
"""

from __future__ import annotations

import copy
import inspect
import linecache
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ..layout import Array
from .report import expression

Arguments = dict[str, Any]
Results = Mapping[str, Any]
Function = Callable[..., Any]

EXACT = 2.0**10
"""Roundings allowed where whole numbers and halves come out exactly, but for those who go through a transform."""
ROUNDED = 2.0**28
"""Roundings allowed where a formula has divisions and roots."""


@dataclass(frozen=True)
class Forward:
    """The function whose cache a backward takes.

    Parameters
    ----------
    name : str
        What it is called.
    passed : tuple of str
        The names of its arguments.
    cache : tuple of str, or str
        The names of what the course says the cache holds, or of what it is; empty where that is left open.
    """

    name: str
    passed: tuple[str, ...]
    cache: tuple[str, ...] | str = ()


def _reseeded(sizes: Any, seed: int) -> Any:
    return sizes._replace(seed=seed)


@dataclass(frozen=True)
class Case:
    """A function that is known by name.

    Parameters
    ----------
    name : str
        What it is called.
    sizes : Hypothesis' strategy
        Everything about a problem but its data, which come from its `seed`; hashable.
    arguments : callable
        The arguments for such sizes, and what else the right results follow from, by name.
    expected : callable
        The right results for such arguments, by name. It also finds "returned", what the function gave, and "out", what
        a forward of the user's own gave; and may complain.
    passed, keywords : tuple of str
        The names of the arguments that the function is called with, by place and by keyword.
    returns : tuple of str
        The names of what it returns; all but "cache" are compared.
    after : tuple of (str, str)
        An argument and the key under which the call leaves a result in it.
    changing : tuple of str
        Arguments that the call, or that of its forward, may change.
    forward : Forward, optional
        Where "cache" among the arguments comes from.
    mistakes : mapping
        Known mistakes: what is wrong, and the results that it gives.
    accepted : mapping
        Other results that are right: the remark they earn, and the results.
    regimes : mapping
        Kinds of problem: "it is wrong only when ...", and whether sizes are of that kind.
    fixed : tuple of str
        Arrays that are not simplified cell by cell.
    loose : tuple of str
        Results for which axes of one may be missing or too many.
    slack : float
        Roundings that results may differ by.
    bounds : callable, optional
        Bounds for the results for such arguments instead, by name; None where a result must be exact.
    strict : bool
        Whether it is a library's function: types are kept, no argument changes, and results repeat bit for bit.
    reseed : callable
        Sizes and a seed to the sizes with that seed.
    enters, leaves : callable
        What becomes of an array before the call, and of a result after it.
    wrapped : str
        How `enters` is written in code; "{}" is the array.
    """

    name: str
    sizes: st.SearchStrategy[Any]
    arguments: Callable[[Any], Arguments]
    expected: Callable[[Arguments], Results]
    passed: tuple[str, ...]
    keywords: tuple[str, ...] = ()
    returns: tuple[str, ...] = ("out", "cache")
    after: tuple[tuple[str, str], ...] = ()
    changing: tuple[str, ...] = ()
    forward: Forward | None = None
    mistakes: Mapping[str, Callable[[Arguments], Results]] = field(default_factory=dict)
    accepted: Mapping[str, Callable[[Arguments], Results]] = field(default_factory=dict)
    regimes: Mapping[str, Callable[[Any], bool]] = field(default_factory=dict)
    fixed: tuple[str, ...] = ()
    loose: tuple[str, ...] = ()
    slack: float = EXACT
    bounds: Callable[[Arguments], Mapping[str, Any]] | None = None
    strict: bool = False
    reseed: Callable[[Any, int], Any] = _reseeded
    enters: Callable[[Any], Any] = lambda value: value
    leaves: Callable[[Any], Any] = lambda value: value
    wrapped: str = "{}"

    @property
    def backward(self) -> bool:
        """Whether it is a gradient that takes a cache."""
        return self.forward is not None


@dataclass(frozen=True)
class Outcome:
    """What came of a call; `words` say what is wrong, and are empty if nothing is.

    `name` tells failures apart: it is that of the first result that is wrong, or of an exception.
    """

    arguments: Arguments
    words: str = ""
    where: str = ""
    name: str = ""
    got: Results = field(default_factory=dict)
    expected: Results = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


class ComplaintError(Exception):
    """Something wrong with a result before its values are looked at."""

    def __init__(self, words: str, name: str = "") -> None:
        super().__init__(words)
        self.words, self.name = words, name


def examine(case: Case, function: Function, forward: Function | None, arguments: Arguments) -> Outcome:
    """Call a function on arguments, and compare what it gives with what is right."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return _examined(case, function, forward, arguments)


def _examined(case: Case, function: Function, forward: Function | None, arguments: Arguments) -> Outcome:
    given = copy.deepcopy(arguments)
    try:
        got, extra = called(case, function, forward, given)
        again = called(case, function, forward, copy.deepcopy(arguments))[0] if case.strict else got
    except ComplaintError as complaint:
        return Outcome(arguments, complaint.words, complaint.name, complaint.name or "result")
    except (Exception, SystemExit) as error:  # a stranger's function may raise anything, and that is a finding
        words = f"it raised {type(error).__name__}: {error}{place(error, function)}"
        return Outcome(arguments, words, name=type(error).__name__)
    known = {**arguments, **extra, "returned": got}
    try:
        expected, remarks = case.expected(known), list(changes(case, arguments, given))
    except ComplaintError as complaint:
        return Outcome(known, complaint.words, complaint.name, complaint.name)
    if case.strict or not case.backward:
        for words in remarks:  # what a forward is given is used again, by the backward and by others
            return Outcome(known, words, name="argument", got=got, expected=expected)
    wrong = first_difference(case, known, got, expected)
    if wrong:
        for remark, other in case.accepted.items():
            if not first_difference(case, known, got, other(known)):
                wrong, remarks = None, [*remarks, remark]
                break
    if wrong:
        words, where, name = wrong
        return Outcome(known, words, where, name, got, expected, tuple(remarks))
    for name, result in got.items():
        if case.strict and result.tobytes() != again[name].tobytes():
            return Outcome(known, f"{name} differs from one call to the next", name, "repeats", got, expected)
    return Outcome(known, got=got, expected=expected, remarks=(*remarks, *curiosities(case, known, got, expected)))


def called(
    case: Case, function: Function, forward: Function | None, given: Arguments
) -> tuple[dict[str, Array], Results]:
    """Call a function; the results that are compared, by name, and what its forward gave."""
    extra: dict[str, Any] = {}
    if case.forward is not None:
        given["cache"], extra = cache_of(case.forward, forward, given)
    positional = [case.enters(given[name]) for name in case.passed]
    keywords = {name: given[name] for name in case.keywords if name in given}
    check_signature(function, case, positional, keywords)
    returned = function(*positional, **keywords)
    values = zip(case.returns, unpacked(case, returned), strict=True)
    results = {name: as_result(name, case.leaves(value)) for name, value in values if name != "cache"}
    for holder, key in case.after:
        name = f"{holder}[{key!r}]"
        if key in given[holder]:
            results[name] = as_result(name, given[holder][key])
    return results, extra


def cache_of(source: Forward, forward: Function | None, given: Arguments) -> tuple[Any, dict[str, Any]]:
    """The cache for a backward: that of the user's own forward, with its result, or else the one of the course."""
    if forward is not None:
        try:
            out, cache = forward(*(given[name] for name in source.passed))
            if cache is not None and isinstance(out, np.ndarray):
                return cache, {"out": out.copy()}
            raise ComplaintError(f"it cannot be tried: {source.name}, whose cache it takes, returned None")
        except Exception as error:
            if not source.cache:
                if isinstance(error, ComplaintError):
                    raise
                raise ComplaintError(
                    f"it cannot be tried: {source.name}, whose cache it takes, raised {type(error).__name__}: {error}"
                ) from error
    if isinstance(source.cache, str):
        return given[source.cache], {}
    return tuple(given[name] for name in source.cache), {}


def check_signature(function: Function, case: Case, positional: list[Any], keywords: Results) -> None:
    """Complain of a function that cannot be called as the convention has it."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some built-in functions have none
        return
    try:
        signature.bind(*positional, **keywords)
    except TypeError:
        wanted = ", ".join([*case.passed, *(f"{name}=..." for name in keywords)])
        takes = "(" + ", ".join(map(str, signature.parameters.values())) + ")"
        raise ComplaintError(f"it takes {takes}, but is called as {case.name}({wanted})", "signature") from None


def unpacked(case: Case, returned: Any) -> list[Any]:
    """What a function returned, as the values that it should return."""
    names = case.returns
    if returned is None:
        raise ComplaintError(
            f"it returns None, but should return {', '.join(names)}: is a `return` missing, or `pass` still there?"
        )
    if len(names) == 1:
        return [returned]
    if not isinstance(returned, tuple | list):
        raise ComplaintError(f"it returns one {kind_of(returned)}, but should return {len(names)}: {', '.join(names)}")
    if len(returned) != len(names):
        raise ComplaintError(f"it returns {len(returned)} values, but should return {len(names)}: {', '.join(names)}")
    return list(returned)


def kind_of(value: Any) -> str:
    """What a value is, in a word."""
    return "array" if isinstance(value, np.ndarray) else type(value).__name__


def as_result(name: str, value: Any) -> Array:
    """A result as an array of numbers; complain of what is none."""
    if value is None:
        raise ComplaintError(f"{name} is None: was it never computed?", name)
    if isinstance(value, np.ma.MaskedArray) and not np.ma.is_masked(value):
        value = value.data
    if not isinstance(value, np.ndarray | np.generic | float | int):
        raise ComplaintError(f"{name} is a {type(value).__name__}, but should be an array", name)
    array = np.asarray(value)
    if array.dtype.kind not in "biufc":
        raise ComplaintError(f"{name} is an array of {array.dtype}, but should be one of numbers", name)
    return array


def changes(case: Case, before: Arguments, after: Arguments) -> Iterator[str]:
    """The arguments that a call has changed and must not."""
    for name, value in before.items():
        if name not in case.changing and not alike(value, after[name]):
            yield f"it changes its argument {name} in place"


def alike(one: Any, other: Any) -> bool:
    """Whether two arguments hold the same."""
    if isinstance(one, dict):
        return list(one) == list(other) and all(alike(value, other[key]) for key, value in one.items())
    return np.array_equal(one, other) if isinstance(one, np.ndarray) else bool(one == other)


def first_difference(case: Case, arguments: Arguments, got: Results, expected: Results) -> tuple[str, str, str] | None:
    """The first result that is wrong: in words, where, and its name."""
    bounds = case.bounds(arguments) if case.bounds else None
    for name, right in expected.items():
        if name not in got:
            return f"{name} is not there after the call", name, name
        bound = allowance(case, arguments, got[name], right) if bounds is None else bounds[name]
        words, where = difference(name, got[name], np.asarray(right), bound, case)
        if words:
            return words, where, name
    return None


def allowance(case: Case, arguments: Arguments, got: Array, expected: Any) -> float:
    """How far a result may be off: some roundings, in the coarsest type there is, of the largest result."""
    types = [value.dtype for value in (got, *arguments.values()) if isinstance(value, np.ndarray)]
    eps = max((float(np.finfo(dtype).eps) for dtype in types if dtype.kind == "f"), default=2.0**-52)
    return case.slack * eps * (1 + float(np.max(np.abs(expected), initial=0.0)))


def difference(name: str, got: Array, expected: Array, bound: Any, case: Case) -> tuple[str, str]:
    """What is wrong with one result, in words and where; two empty strings if nothing is."""
    if case.strict and got.dtype != expected.dtype:
        return f"{name} is {got.dtype}, but should be {expected.dtype}", name
    loose = name in case.loose and got.size == expected.size and squeezed(got) == squeezed(expected)
    if got.shape != expected.shape and not loose:
        return f"{name} has shape {got.shape}, but should have {expected.shape}", name
    got = got.reshape(expected.shape)
    with np.errstate(invalid="ignore"):  # infinity less itself, equal by the first test
        wide = got.astype(np.result_type(got, np.float64)) if got.dtype.kind in "biu" and bound is not None else got
        good = (got == expected) | ((got != got) & (expected != expected))
        if bound is not None:
            good |= np.abs(wide - expected) <= bound
    if good.all():
        return "", ""
    index = tuple(int(i) for i in np.argwhere(~good)[0])
    where = f"{name}[{','.join(map(str, index))}]" if index else name
    count = f" ({np.sum(~good)} of {good.size} differ)" if good.size > 1 else ""
    is_, should = (expression(array[index]) for array in (got, expected))
    return f"{where} is {is_}, but should be {should}{count}", where


def squeezed(array: Array) -> tuple[int, ...]:
    """A shape without its axes of one."""
    return tuple(size for size in array.shape if size != 1)


def curiosities(case: Case, arguments: Arguments, got: Results, expected: Results) -> Iterator[str]:
    """What is worth a remark in results that are right."""
    given = [value for key, value in arguments.items() if isinstance(value, np.ndarray) and key != "out"]
    floats = {array.dtype for array in given if array.dtype.kind == "f"}
    odd: dict[str, list[str]] = {}
    for name, right in expected.items():
        result, axes = got[name], np.ndim(right)
        if result.ndim != axes:
            odd.setdefault(f"{result.ndim} axes, where the usual number is {axes}", []).append(name)
        if floats == {np.dtype(np.float32)} and result.dtype == np.float64:
            odd.setdefault("type float64 for float32 arguments", []).append(name)
        if floats == {np.dtype(np.float64)} and result.dtype.kind == "f" and result.dtype != np.float64:
            odd.setdefault(f"type {result.dtype} for float64 arguments, which loses precision", []).append(name)
    for words, names in odd.items():
        *most, last = names
        yield f"{', '.join(most)} and {last} have {words}" if most else f"{last} has {words}"


def place(error: BaseException, function: Function) -> str:
    """Where in a function's own file an exception came from."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    frames = traceback.extract_tb(error.__traceback__)
    for frame in reversed(frames):
        if code is not None and frame.filename == code.co_filename:
            line = linecache.getline(frame.filename, frame.lineno or 0).strip()
            return f" (line {frame.lineno}{f': {line}' if line else ''})"
    return ""
