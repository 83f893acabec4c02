"""The documentation holds all that is public, and nothing that is not there."""

from __future__ import annotations

import inspect
import re
import runpy
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import convkernels as ck
from convkernels import losses, nn, testing
from convkernels.courses import cs231n, deeplearning_ai
from convkernels.plugins import ENTRY_POINTS
from convkernels.testing.harness import sampling

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(DOCS.glob("*.md"))
MODULES = (ck, losses, testing, nn, nn.data, nn.models, cs231n, deeplearning_ai)


def is_of(value, module):
    """Whether a function or class is a module's own, and not imported."""
    return (inspect.isfunction(value) or inspect.isclass(value)) and value.__module__ == module.__name__


def offered(module):
    """The full names of what a module offers, modules left out."""
    own = getattr(module, "__all__", None)
    if own is None:
        own = [name for name, value in vars(module).items() if name[0] != "_" and is_of(value, module)]
    return {f"{module.__name__}.{name}" for name in own if not inspect.ismodule(getattr(module, name))}


def listed():
    """The full names in the reference's tables, in their order."""
    names, module = [], ""
    for line in (DOCS / "reference" / "index.md").read_text().splitlines():
        found = re.fullmatch(r"\.\. currentmodule:: (\S+)", line)
        if found:
            module = found[1]
        elif re.fullmatch(r"   \w[\w.]*", line):
            names.append(f"{module}.{line.strip()}")
    return names


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_the_reference_has_every_public_name(module):
    missing = offered(module) - set(listed())
    assert not missing


def test_the_reference_has_each_name_once_and_all_of_them_exist():
    names = listed()
    assert len(names) == len(set(names))
    for name in names:
        module, _, attribute = name.rpartition(".")
        assert hasattr(import_module(module), attribute), name


@pytest.mark.parametrize("image", sorted(DOCS.glob("images/*.svg")), ids=lambda path: path.name)
def test_every_picture_is_on_a_page(image):
    assert any(f":file: images/{image.name}\n" in page.read_text() for page in PAGES)


def test_the_pictures_are_what_their_script_draws(tmp_path):
    script = tmp_path / "draw.py"
    script.write_text((DOCS / "images" / "draw.py").read_text())
    runpy.run_path(str(script), run_name="__main__")
    drawn = {path.name: path.read_text() for path in tmp_path.glob("*.svg")}
    assert drawn == {path.name: path.read_text() for path in DOCS.glob("images/*.svg")}
    assert drawn


def files_of(page):
    """The files that a page tells to write, by name."""
    return dict(re.findall(r"```\{code-block\} \w+\n:caption: (\S+)\n\n(.*?)```", page, flags=re.DOTALL))


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A folder with the files of the page on implementations, from which Python imports."""
    page = (DOCS / "implementation.md").read_text()
    for name, text in files_of(page).items():
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path, page
    sys.modules.pop("taps", None)


def test_the_implementation_that_the_how_to_ends_with_is_proven(written):
    taps = import_module("taps")
    checks = testing.checks_for("conv", taps.CLAIMS)
    with sampling(seed=0, max_examples=10):
        for check in checks:
            check(taps.taps)
    tests = runpy.run_path(str(written[0] / "test_taps.py"))
    (mark,) = tests["test_taps"].pytestmark
    assert len(mark.args[1]) == len(checks)
    assert f"{len(checks)} of them" in written[1]


def test_the_how_to_shows_what_its_program_prints(written, capsys):
    folder, page = written
    try:
        runpy.run_path(str(folder / "use.py"))
    finally:
        ck.unregister("conv", "taps")
    assert f"```text\n{capsys.readouterr().out}```" in page


def test_the_how_tos_package_offers_what_its_module_has(written):
    folder, _ = written
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    (entry,) = project["entry-points"][ENTRY_POINTS].values()
    module, _, name = entry.partition(":")
    assert callable(getattr(import_module(module), name))
