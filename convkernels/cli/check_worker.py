"""The process that runs a stranger's file: it loads it, checks its functions as it is asked to, and speaks JSON.

A line of JSON in names a function; lines of JSON out say what is being tried, and what came of it. What the file
itself prints goes nowhere. Where time runs out, or the process crashes, Python's fault handler leaves on stderr where.
"""

from __future__ import annotations

import faulthandler
import importlib.util
import json
import os
import sys
import traceback
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from hypothesis.configuration import set_hypothesis_home_dir

from convkernels.testing.kernel import run_check

SHARE = 0.5
"""Of the time limit, what goes by before no further problems are tried; the rest is for the one being tried."""


def main(path: str, limit: float, scratch: str) -> None:
    """Load a file, then check one function after the other, each within a limit of seconds."""
    orders, say = connect()
    log = os.fdopen(os.dup(2), "w")  # the file may put something else for sys.stderr
    set_hypothesis_home_dir(scratch)  # else it leaves a folder where the user is
    faulthandler.enable(log)
    sys.dont_write_bytecode = True
    faulthandler.dump_traceback_later(limit, exit=True, file=log)
    try:
        module = load(Path(path))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a stranger's file may raise anything, SystemExit too
        say(event="failed", words=import_failure(error, Path(path)))
        return
    functions = {name: value for name, value in vars(module).items() if is_theirs(value, Path(path).parent)}
    faulthandler.cancel_dump_traceback_later()
    say(event="loaded", names=list(functions))
    for line in orders:
        order = json.loads(line)
        name, forward = order.pop("name"), order.pop("forward")
        faulthandler.dump_traceback_later(limit, exit=True, file=log)
        try:
            report = run_check(
                functions[name],
                name,
                **order,
                forward=functions.get(forward),
                name=name,
                seconds=SHARE * limit,
                watch=lambda problems, words: say(event="trying", problems=problems, words=words),
            )
        except Exception as error:  # not the function's: what that raises is in the report
            say(event="refused", words=f"the check itself failed: {type(error).__name__}: {error}")
        else:
            say(event="done", report=report.to_dict(), text=str(report))
        faulthandler.cancel_dump_traceback_later()


def connect() -> tuple[Any, Callable[..., None]]:
    """Keep stdin and stdout for the conversation, and leave the file that is loaded empty ones."""
    orders, answers = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):
        os.dup2(nothing, descriptor)

    def say(**event: Any) -> None:
        print(json.dumps(event), file=answers, flush=True)

    return orders, say


def load(path: Path) -> ModuleType:
    """Import a file by its path, as a package that is its folder: so it finds what is beside it, dot or no dot."""
    folder, name = path.parent, path.stem
    root = folder
    while (root / "__init__.py").exists():
        root = root.parent
    sys.path[:0] = list(dict.fromkeys([str(folder), str(root)]))
    if name in sys.modules:
        name += "_"
    loader = SourceFileLoader(name, str(path))
    spec = importlib.util.spec_from_file_location(name, path, loader=loader, submodule_search_locations=[str(folder)])
    assert spec is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def is_theirs(value: Any, folder: Path) -> bool:
    """Whether a value is a function, and of a file in a folder, not of a library that the file imports."""
    if not isinstance(value, FunctionType | BuiltinFunctionType):
        return callable(value) and not isinstance(value, type)
    file = getattr(sys.modules.get(value.__module__ or ""), "__file__", None)
    return file is not None and folder in Path(file).parents


def import_failure(error: BaseException, path: Path) -> str:
    """Why a file cannot be imported, in a sentence."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).parent == path.parent
    ]
    file, line = (Path(frames[-1].filename), frames[-1].lineno) if frames else (path, None)
    words = f"it raised {type(error).__name__}: {error}"
    if isinstance(error, SyntaxError):
        file, line, words = Path(error.filename or path), error.lineno, f"{type(error).__name__}: {error.msg}"
    elif isinstance(error, ModuleNotFoundError) and error.name:
        package, _, inner = error.name.partition(".")
        if package == path.stem and inner:
            words = f"it imports .{inner}, but there is no {inner.replace('.', '/')}.py beside it"
        else:
            words = f"it imports {error.name}, which is neither installed nor beside it"
    elif isinstance(error, NameError) and error.name == "get_ipython":
        words = "it calls get_ipython, which exists in notebooks only: take such lines out"
    where = [*([file.name] if file != path else []), *([f"line {line}"] if line else [])]
    return ": ".join([f"{path.name} cannot be imported", *([", ".join(where)] if where else []), words])
