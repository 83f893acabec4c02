"""What every public function shares: its keywords, its docstrings for one to three axes, its errors, its short way.

A family is written once, for any number of axes; its functions are made here.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ParamSpec, TypedDict, TypeVar

from .call import is_recording
from .config import Precision
from .errors import ConvkernelsError, one_of
from .layout import SPATIAL, Array, data_layout
from .operation import Operation
from .problem import Spec
from .shortcut import Key, Runs, Shortcut, Shortcuts, key_of

P = ParamSpec("P")
R = TypeVar("R")


class Execution(TypedDict, total=False):
    """The keywords of every call that say how, not what."""

    strategy: str
    precision: Precision | None
    out: Array | None
    threads: int | None
    max_workspace: int | None


EXECUTION: dict[str, Any] = {
    "strategy": "auto",
    "precision": None,
    "out": None,
    "threads": None,
    "max_workspace": None,
}

COMMON_DOC = {
    "<raises>": """Raises
    ------
    ConvkernelsError
        If the arguments do not fit each other (ShapeError, OptionError, LayoutError, DTypeError, OverlapError), no
        strategy takes the problem (UnknownStrategyError, UnsupportedError, WorkspaceError), or sums of integer data
        might leave 64 bits (IntegerOverflowError).""",
    "<execution>": """strategy : str
        "auto", or the name of an implementation, such as "direct", "im2col" or "naive"; `explain` lists them.
    precision : {"default", "highest"}, optional
        Which implementations "auto" may take; see `Config`. By default the configured one.
    out : ndarray, optional
        Where to write the result: any writable view of its shape and dtype that shares no memory with an input.
    threads : int, optional
        Threads for the implementations that have their own. By default the processors this process may use.
    max_workspace : int, optional
        Bytes of scratch memory that this call may take. By default the configured 64 MiB.""",
}


PUBLIC: dict[str, Callable[..., Any]] = {}
"""Every public function of the families, by name."""
KEEPING: dict[str, Callable[..., Shortcut | None]] = {}
"""By name, what makes a call once for its short way, if it has one, which keeps all arrays but the first."""


def family(function: Callable[P, R], keywords: Mapping[str, Any], doc: Mapping[str, str]) -> tuple[Callable[P, R], ...]:
    """Make the public functions of one n-dimensional function: itself, and under its names for 1, 2 and 3 axes.

    The private function takes its arrays, then all keywords. Its docstring speaks of two axes; each marker in it that
    `doc` has stands for a text that several functions share.
    """
    text = _prepared(function, doc)
    return tuple(_public(function, keywords, rank, text) for rank in (None, 1, 2, 3))


def general(function: Callable[P, R], keywords: Mapping[str, Any], doc: Mapping[str, str]) -> Callable[P, R]:
    """Make the one public function of a family that needs no others."""
    return _public(function, keywords, None, _prepared(function, doc))


def _prepared(function: Callable[..., Any], doc: Mapping[str, str]) -> str:
    function.__qualname__ = function.__name__.lstrip("_")  # for Python's own complaint of a missing argument
    text = function.__doc__ or ""
    for marker, shared in {**doc, **COMMON_DOC}.items():
        text = text.replace(marker, shared)
    return text


def _public(function: Callable[P, R], keywords: Mapping[str, Any], rank: int | None, doc: str) -> Callable[P, R]:
    name = ranked_name(function.__name__.lstrip("_"), rank)
    defaults = {**keywords, "layout": "NC" + SPATIAL[rank or 2], **EXECUTION}
    *explicit, _ = inspect.signature(function).parameters.values()
    allowed = {*defaults, *(parameter.name for parameter in explicit)}
    first = explicit[0].name

    shortcuts = Shortcuts()

    def whole(args: Any, kwargs: Any, *, short: bool, keep: bool) -> tuple[R, Shortcut | None]:
        """Call the function; what it returns, and its short way if that is wanted and there is one."""
        if not allowed.issuperset(kwargs):
            unknown = next(key for key in kwargs if key not in allowed)
            raise TypeError(f"{name}() has no keyword {unknown!r}; there are {one_of(sorted(allowed), unknown)}")
        options: dict[str, Any] = {**defaults, **kwargs}
        try:
            if rank is not None:
                data_layout(options["layout"], rank)
            options["function"] = name
            runs = options["runs"] = Runs()
            result = function(*args, **options)
        except ConvkernelsError as error:
            locate(error, name, first, args[0] if args else kwargs.get(first), options["layout"])
            raise
        found = runs.shortcut(args, result, keep=keep) if short else None
        runs.end()
        return result, found

    @functools.wraps(function)
    def public(*args: P.args, **kwargs: P.kwargs) -> R:
        key = key_of(args, kwargs)
        shortcut = shortcuts.get(key) if key else None
        if shortcut and shortcut.holds() and not is_recording():
            return shortcut(args)  # type: ignore[no-any-return]  # what the function returned before
        result, found = whole(args, kwargs, short=key is not None, keep=False)
        if key and found:
            shortcuts.keep(key, found)
        return result

    PUBLIC[name] = public
    KEEPING[name] = lambda args, kwargs: whole(args, kwargs, short=True, keep=True)[1]
    public.__name__ = public.__qualname__ = name
    public.__doc__ = _ranked_doc(doc, rank)
    public.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # functions have one, says the language
        [
            *explicit,
            *(inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=value) for key, value in defaults.items()),
        ]
    )
    return public


def shortened(shortcuts: Shortcuts, key: Key | None, args: tuple[Any, ...], run: Callable[[Runs], R]) -> R:
    """Take the short way of a call, or run it by ``run(runs)`` and remember the way if there is one."""
    shortcut = shortcuts.get(key) if key else None
    if shortcut and shortcut.holds() and not is_recording():
        return shortcut(args)  # type: ignore[no-any-return]  # what the function returned before
    runs = Runs()
    result = run(runs)
    found = runs.shortcut(args, result) if key else None
    if key and found:
        shortcuts.keep(key, found)
    runs.end()
    return result


def gradient_options(options: Mapping[str, Any], operation: Operation, spec: Spec | None = None) -> dict[str, Any]:
    """A forward call's options for its gradient: the same strategy if that has it, for this `spec`, else "auto"."""
    strategy = options["strategy"]
    named = strategy in operation.names() and (spec is None or operation.find(strategy).supports(spec) is None)
    return {**options, "out": None, "strategy": strategy if named else "auto"}


def locate(error: ConvkernelsError, call: str, name: str, subject: object, layout: object) -> None:
    """Add to an error the public call it was met in, and the array that the call was about."""
    shape = getattr(subject, "shape", None)
    seen = f"{name} has shape {shape}" if shape is not None else f"{name} is a {type(subject).__name__}"
    error.locate(call, f"{seen}, layout {layout!r}")


@contextmanager
def located(call: str, name: str, subject: object, layout: object) -> Iterator[None]:
    """Locate the errors of a block, as `family` does those of a public function."""
    try:
        yield
    except ConvkernelsError as error:
        locate(error, call, name, subject, layout)
        raise


_FAMILY = re.compile(r"(conv_transpose|conv|pool)(2d)?")


def ranked_name(name: str, rank: int | None) -> str:
    """The public name for so many axes, None for the general one.

    Examples
    --------
    >>> ranked_name("conv_input_grad", 3), ranked_name("max_pool2d", None)
    ('conv3d_input_grad', 'max_pool')
    """
    return _FAMILY.sub(rf"\g<1>{f'{rank}d' if rank else ''}", name, count=1)


def _ranked_doc(doc: str, rank: int | None) -> str:
    """Turn a docstring for two axes into one for `rank`: names, layouts, and shapes that end in a square."""
    doc = re.sub(r"(conv_transpose|conv|pool)2d", rf"\g<1>{f'{rank}d' if rank else ''}", doc)
    if rank is None:
        return doc
    doc = re.sub(r"(\d+), \1\)", lambda square: ", ".join([square[1]] * rank) + ")", doc)
    return re.sub(r'(?<="N|"O|NC|OI)HW|"HW(?=[CI])', lambda axes: axes[0].replace("HW", SPATIAL[rank]), doc)
