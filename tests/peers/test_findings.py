"""The page of findings, run again: what each program prints, in its own process, where its library is installed."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "findings.md"
SECTION = re.compile(
    r"^### (?P<title>.+)\n\nSeen with (?P<library>\w+) (?P<versions>[\d.]+\d(?: and [\d.]+\d)*)(?P<where>.*)\.\n\n"
    r"```python\n(?P<program>(?s:.*?))```\n\n```text\n(?P<prints>(?s:.*?))```$",
    re.MULTILINE,
)
LINES = 10
ONE_THREAD = {"OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}


class Finding(NamedTuple):
    """A section of the page."""

    title: str
    library: str
    versions: str
    where: str
    program: str
    prints: str


FINDINGS = [Finding(**match.groupdict()) for match in SECTION.finditer(PAGE.read_text())]


def wanting(finding):
    """Why a program cannot show here what it showed, or None."""
    imports = [node for node in ast.walk(ast.parse(finding.program)) if isinstance(node, ast.Import)]
    for library in {finding.library, *(alias.name.partition(".")[0] for node in imports for alias in node.names)}:
        if importlib.util.find_spec(library) is None:
            return f"{library} is not installed"
    installed = metadata.version(finding.library).partition("+")[0]
    if installed not in finding.versions.split(" and "):
        return f"seen with {finding.library} {finding.versions}, and this is {installed}"
    cpu = Path("/proc/cpuinfo")
    flags = cpu.read_text() if cpu.exists() else ""
    for name in re.findall(r"AVX\S*\d+", finding.where):
        if name.lower().replace("-", "") in flags:
            return None
    return f"it takes a processor{finding.where.removeprefix(', on')}" if finding.where else None


def printed(program):
    """What a program prints, and how it ends, if not well."""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, **ONE_THREAD},
        timeout=120,
        check=False,
    )
    if run.returncode < 0:
        return run.stdout + signal.strsignal(-run.returncode) + "\n"
    return run.stdout + (run.stderr.rstrip().rpartition("\n")[2] + "\n" if run.returncode else "")


def test_every_section_is_read():
    assert len(FINDINGS) == PAGE.read_text().count("\n### ") == PAGE.read_text().count("\n```python\n")


@pytest.mark.parametrize("finding", FINDINGS, ids=[finding.title for finding in FINDINGS])
def test_finding(finding):
    assert finding.program.count("\n") <= LINES
    reason = wanting(finding)
    if reason:
        pytest.skip(reason)
    got = printed(finding.program)
    # Exceptions of extension modules come under their full names.
    assert re.sub(r"^[\w.]*\.(\w+: )", r"\1", got, flags=re.MULTILINE) == finding.prints
