"""Checking the functions in a file, each in a process that may hang or crash."""

from __future__ import annotations

import difflib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

import convkernels

from .errors import CommandError

try:
    from convkernels.testing.kernel import CONVENTIONS, COURSES, operations
    from convkernels.testing.report import TITLES, Finding, Report
except ModuleNotFoundError as error:
    if error.name != "hypothesis":
        raise
    raise CommandError('checking needs its extra: pip install "convkernels[testing]"', 2) from None

CHOICES = ("auto", *COURSES, "native")
MOST = 10
"""Names that are listed."""
GRACE = 5.0
"""Seconds that a process gets to end by itself when its time is up, and to start."""
START = 60.0

WORKER = """
import sys
sys.path.append({!r})
from convkernels.cli.check_worker import main
main({!r}, {!r}, {!r})
"""
"""Run with -P, so that files beside the one that is checked do not stand in for Python's own."""


@dataclass
class Options:
    """What the command line asks for."""

    convention: str = "auto"
    examples: int = 100
    seed: int = 0
    timeout: float = 20.0


class EndedError(Exception):
    """The process has ended, and how."""


@dataclass
class Worker:
    """A process that has loaded a file, and checks its functions.

    Parameters
    ----------
    path : Path
        The file.
    limit : float
        Seconds for loading it, and for each function.
    """

    path: Path
    limit: float
    names: list[str] = field(default_factory=list)
    killed: bool = False

    def __post_init__(self) -> None:
        root = str(Path(convkernels.__file__).parents[1])
        self.scratch = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", WORKER.format(root, str(self.path), self.limit, self.scratch.name)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env={"MPLBACKEND": "Agg", **os.environ, "PYTHONIOENCODING": "utf-8"},
        )
        self.lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        try:
            for event in self.events(START + self.limit):
                if event["event"] == "failed":
                    raise CommandError(event["words"], 2)
                self.names = event["names"]
        except EndedError as end:
            self.close()
            raise CommandError(f"{self.path.name} cannot be imported: {end}", 2) from None
        except BaseException:
            self.close()
            raise

    def read(self) -> None:
        """Put what the process says where it can be waited for."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def events(self, seconds: float) -> Iterator[dict[str, Any]]:
        """What the process says, up to its answer; an error if it ends or takes too long."""
        until = time.monotonic() + seconds
        while True:
            try:
                line = self.lines.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                line, self.killed = None, True
                self.process.kill()
            if line is None:
                raise EndedError(self.end())
            event: dict[str, Any] = json.loads(line)
            yield event
            if event["event"] != "trying":
                return

    def check(self, name: str, forward: str | None, convention: str, options: Options) -> Iterator[dict[str, Any]]:
        """Have a function checked."""
        assert self.process.stdin is not None
        order = {"name": name, "forward": forward, "convention": convention}
        line = json.dumps({**order, "examples": options.examples, "seed": options.seed})
        with suppress(OSError):  # it has ended; how, the events say
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()
        yield from self.events(self.limit + GRACE)

    def end(self) -> str:
        """How the process ended, and where in the file."""
        code = self.process.wait()
        self.log.seek(0)
        log = self.log.read().decode(errors="replace")
        if self.killed or re.search(r"^Timeout \(\d+:\d\d:\d\d", log, re.MULTILINE):
            how = f"it did not end within {self.limit:g} s"
        elif code < 0:
            how = f"it crashed with {signal.Signals(-code).name}"
        else:
            how = f"it ended the process, with exit code {code}"
        return how + self.place(log)

    def place(self, log: str) -> str:
        """Where in the file the fault handler found it."""
        for file, number in re.findall(r'^  File "(.+)", line (\d+) in ', log, re.MULTILINE):
            if Path(file) == self.path:
                lines = self.path.read_bytes().splitlines()
                text = lines[int(number) - 1].decode(errors="replace").strip() if int(number) <= len(lines) else ""
                return f" (line {number}: {text})"
        return ""

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        self.reader.join(timeout=1)
        for pipe in (self.process.stdin, self.process.stdout, self.log):
            if pipe is not None:
                with suppress(OSError):  # an order that it did not take
                    pipe.close()
        self.scratch.cleanup()


def locate(argument: str) -> tuple[Path, str | None]:
    """The file and the function that the argument names."""
    file, _, name = argument.rpartition(":")
    given = (file, name) if file and name.isidentifier() and not Path(argument).exists() else (argument, None)
    path = Path(given[0]).absolute()
    if path.suffix == ".ipynb":
        raise CommandError(f"{path.name} is a notebook: save it as a Python script first, and check that", 2)
    try:
        source = path.read_bytes()
    except OSError as error:
        raise CommandError(f"cannot read {given[0]}: {error.strerror}", 2) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(source, str(path), "exec", dont_inherit=True)
    except SyntaxError as error:
        line = f"line {error.lineno}: " if error.lineno else ""
        text = f": {error.text.strip()}" if error.text else ""
        raise CommandError(f"{path.name} is no Python: {line}{type(error).__name__}: {error.msg}{text}", 2) from None
    except ValueError as error:  # null bytes, for some versions of Python
        raise CommandError(f"{path.name} is no Python: {error}", 2) from None
    return path, given[1]


@dataclass(frozen=True)
class Choice:
    """A convention, the functions of it that are checked, and how many of others are left out."""

    convention: str
    functions: list[str]
    others: dict[str, int]

    def __str__(self) -> str:
        number = f"{len(self.functions)} function{'s' if len(self.functions) > 1 else ''}"
        left = [f"{count} of {TITLES[one]} left out: --convention {one}" for one, count in self.others.items()]
        return " ".join([number, "of", TITLES[self.convention], *([f"({'; '.join(left)})"] if left else [])])


def choose(path: Path, names: list[str], name: str | None, convention: str) -> Choice:
    """The convention that knows most of a file's functions, and those."""
    searched = CHOICES[1:] if convention == "auto" else (convention,)
    if name is not None and name not in names:
        raise CommandError(f"{path.name} has no function {name}{meant(name, names)}: it has {listed(names)}", 2)
    known = {one: [each for each in operations(one) if each in names and name in (None, each)] for one in searched}
    best = max(searched, key=lambda one: len(known[one]))
    if known[best]:
        return Choice(best, known[best], {one: len(some) for one, some in known.items() if some and one != best})
    titles = " or ".join(TITLES[one] for one in searched)
    every = [each for one in searched for each in operations(one)]
    if name is not None:
        raise CommandError(f"{name} is no function of {titles}{meant(name, every)}", 2)
    unknown = [f"{each}{meant(each, every)}" for each in names]
    raise CommandError(f"{path.name} has no function of {titles}: it has {listed(unknown)}", 2)


def meant(name: str, names: list[str]) -> str:
    """The nearest name there is, as a question."""
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.7)
    return f" (is {nearest[0]} meant?)" if nearest else ""


def listed(names: list[str]) -> str:
    """Some names in a row.

    Examples
    --------
    >>> listed([]), listed(["f", "g"])
    ('none', 'f, g')
    """
    rest = len(names) - MOST
    return ", ".join(names[:MOST]) + (f" and {rest} more" if rest > 0 else "") if names else "none"


def check_functions(
    path: Path, name: str | None, options: Options, progress: Progress
) -> Iterator[tuple[Choice, dict[str, Any]]]:
    """Check a file's functions: what is checked, and what came of one after the other."""
    worker: Worker | None = None
    try:
        worker = Worker(path, options.timeout)
        choice = choose(path, worker.names, name, options.convention)
        task = progress.add_task("", total=len(choice.functions))
        there = set(worker.names)
        usable = set(there)
        for function in choice.functions:
            progress.update(task, description=function)
            case = COURSES.get(choice.convention, {}).get(function)
            forward = case.forward.name if case and case.forward and case.forward.name in usable else None
            if case and case.forward and not forward and not case.forward.cache:
                why = "did not end" if case.forward.name in there else "is not in the file"
                yield choice, refusal(choice, function, f"{case.forward.name}, whose cache it takes, {why}")
                continue
            problems, tried = 0, ""
            try:
                if worker is None:
                    worker = Worker(path, options.timeout)
                for event in worker.check(function, forward, choice.convention, options):
                    if event["event"] == "trying":
                        problems, tried = event["problems"], event["words"]
                        progress.update(task, description=f"{function}, problem {problems}")
            except EndedError as end:
                if worker is not None:
                    worker.close()
                worker = None
                usable.discard(function)  # a backward that took its cache would end the same way
                words = f"{end}, called with {tried}" if tried else str(end)
                report = Report(function, function, choice.convention, problems, Finding(words, "", "", {}, {}, {}, ""))
                event = {"event": "done", "report": report.to_dict(), "text": str(report)}
            progress.advance(task)
            yield choice, refusal(choice, function, event["words"]) if event["event"] == "refused" else event
    finally:
        if worker is not None:
            worker.close()


def refusal(choice: Choice, function: str, words: str) -> dict[str, Any]:
    """What came of a function that cannot be checked."""
    report = {"function": function, "operation": function, "convention": choice.convention, "right": None}
    return {"report": {**report, "error": words}}


def show(event: Mapping[str, Any], width: int, console: Console) -> None:
    """Print a line on what came of a function, and its remarks."""
    report = event["report"]
    verdict, style, words = {
        True: ("right", "green", f"on {report.get('problems')} problems"),
        False: ("wrong", "red", "see below"),
        None: ("skipped", "yellow", report.get("error", "")),
    }[report["right"]]
    say = partial(console.print, soft_wrap=True)
    say(f"  {verdict:7}", style=style, end="")
    say(f" {report['function']:{width}}  {words}")
    if report["right"]:
        for remark in report["remarks"]:
            say(f"          {'':{width}}  {remark}")


def run(console: Console, argument: str, options: Options, as_json: bool) -> int:
    """Check what the argument names; return the exit code: 0 all right, 1 something is wrong, 2 could not check all."""
    if options.convention not in CHOICES:
        raise CommandError(f"--convention {options.convention} must be one of {', '.join(CHOICES)}", 2)
    found: dict[str, Any] = {"file": argument, "convention": options.convention, "functions": []}
    texts: list[str] = []
    stderr = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    try:
        path, name = locate(argument)
        with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as progress:
            for choice, event in check_functions(path, name, options, progress):
                if not as_json and not found["functions"]:
                    console.print(f"{path.name}: {choice}", soft_wrap=True)
                found["convention"] = choice.convention
                found["functions"].append(event["report"])
                if not as_json:
                    show(event, max(map(len, choice.functions)), console)
                    if event["report"]["right"] is False:
                        texts.append(event["text"])
    except KeyboardInterrupt:
        raise CommandError("interrupted", 130) from None
    except CommandError as error:
        if not as_json:
            raise
        typer.echo(json.dumps({**found, "error": str(error)}, indent=2))
        return error.exit_code
    verdicts = [report["right"] for report in found["functions"]]
    if as_json:
        typer.echo(json.dumps({**found, "right": all(verdicts)}, indent=2))
    for text in texts:
        console.print(f"\n{text}", soft_wrap=True)
    if False in verdicts:
        return 1
    return 2 if None in verdicts else 0


assert set(CHOICES[1:]) <= set(CONVENTIONS), "the conventions exist"
