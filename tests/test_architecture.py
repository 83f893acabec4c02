"""Imports point down and run in no circle; every public name is there, and says what it does."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

import convkernels as ck
from convkernels import nn
from convkernels.courses import cs231n, deeplearning_ai
from convkernels.public import PUBLIC

PACKAGE = Path(ck.__file__).parent
LEVELS = {
    **dict.fromkeys(("errors", "recycling"), 0),
    **dict.fromkeys(("layout", "window", "reducer", "reducers", "config", "grammar", "plugins"), 1),
    **dict.fromkeys(("spec", "pool_spec", "norm_spec", "problem", "views", "extension", "operation"), 2),
    **dict.fromkeys(("kernels", "shortcut"), 3),
    **dict.fromkeys(("catalog", "call", "public", "differentiable"), 4),
    **dict.fromkeys(("conv", "separable", "conv_transpose"), 5),
    **dict.fromkeys(
        ("pool", "unpool", "adaptive", "norm_call", "norm", "batch_norm", "local_norm", "dense", "losses", "patches"), 5
    ),
    **dict.fromkeys(("planning", "preparing", "__init__"), 6),
    "nn": 7,
    **dict.fromkeys(("courses", "testing"), 8),
    "cli": 9,
}
"""Of each module and subpackage, by its name under `convkernels`."""

OPTIONAL = "numba hypothesis scipy matplotlib rich typer sklearn safetensors dask torch"


def module_name(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def level(module):
    return LEVELS[module.partition(".")[0]]


def imported(module):
    """The modules of the package that one imports anywhere in it, also within functions."""
    package = MODULES[module].relative_to(PACKAGE).parent.parts
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = ("convkernels", *package)[: len(package) + 2 - node.level] if node.level else ()
            origin = ".".join([*above, *([node.module] if node.module else [])])
            names = [f"{origin}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.partition(".")[0] == "convkernels":
                yield nearest_module(name.removeprefix("convkernels").lstrip("."))


def nearest_module(name):
    """The module that a dotted name is, or that it is in."""
    while name not in MODULES:
        if not name:
            return "__init__"
        name = name.rpartition(".")[0]
    return name


GRAPH = {module: set(imported(module)) - {module} for module in MODULES}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_every_module_has_a_level_and_imports_no_higher_one(module):
    assert module.partition(".")[0] in LEVELS, "say in LEVELS where the new module belongs"
    higher = {other for other in GRAPH[module] if level(other) > level(module)}
    assert not higher


def test_no_imports_run_in_a_circle():
    order = list(TopologicalSorter(GRAPH).static_order())
    assert set(order) == set(MODULES)


def test_a_strategy_does_not_compile_the_loops_of_another():
    strategies = {
        f"kernels.compiled.{name}" for name in ("direct", "weights", "winograd", "winograd_weights", "depthwise")
    }

    def reached(module, seen):
        for other in GRAPH[module] - seen:
            seen.add(other)
            reached(other, seen)
        return seen

    for strategy in strategies:
        assert reached(strategy, {strategy}) & strategies == {strategy}


def test_the_graph_is_read_as_it_is_written():
    assert GRAPH["errors"] == set()
    assert {"call", "public", "errors", "layout", "kernels.pointwise"} < GRAPH["conv"]
    assert {"config", "layout", "spec", "views", "window", "kernels.blocking"} == GRAPH["kernels.im2col"]
    assert {"kernels.im2col", "kernels.naive", "operation"} < GRAPH["catalog"]
    assert {"config", "conv", "errors", "planning", "window"} < GRAPH["__init__"]
    assert GRAPH["cli"] >= {"cli.app", "cli.errors", "errors"}


def test_every_level_is_of_something_that_exists():
    assert {module.partition(".")[0] for module in MODULES} == set(LEVELS)


PUBLIC_NAMES = [name for name, value in vars(ck).items() if name[0] != "_" and not isinstance(value, ModuleType)]
FUNCTIONS = [name for name in ck.__all__ if not inspect.isclass(getattr(ck, name, None))]


def test_all_names_what_is_public_once_and_in_order():
    assert sorted(PUBLIC_NAMES) == sorted(ck.__all__)
    assert len(set(ck.__all__)) == len(ck.__all__)
    by_case = sorted(ck.__all__, key=lambda name: (not name[0].isupper(), name))
    assert by_case == ck.__all__
    assert set(PUBLIC) <= set(ck.__all__)


def public(module):
    """The functions and classes that a module offers."""
    own = getattr(module, "__all__", [name for name in vars(module) if name[0] != "_"])
    found = [
        name for name in own if callable(getattr(module, name)) and not isinstance(getattr(module, name), ModuleType)
    ]
    return [name for name in found if getattr(module, name).__module__.startswith(module.__name__)]


def sections(name):
    """The numpydoc sections of a docstring, by their titles."""
    text = inspect.getdoc(getattr(ck, name)) or ""
    _, *parts = re.split(r"^(\w[\w ]*)\n-+$", text, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def described(section):
    """The names that a section describes: those that start a line which is not indented."""
    heads = re.findall(r"^(\S[^:\n]*)", section, re.MULTILINE)
    return {name.strip(" *") for head in heads for name in head.split(",")}


@pytest.mark.parametrize("name", ck.__all__)
def test_every_public_name_says_what_it_is(name):
    text = inspect.getdoc(getattr(ck, name)) or ""
    first, *rest = text.splitlines()
    assert re.fullmatch(r"[A-Z].*\.", first), "the summary is one sentence in one line"
    assert not rest or rest[0] == ""
    assert not re.search(r"<[a-z]+>", text.replace("<p>", "").replace("<t>", "")), "a marker was left in"


OTHERS = [(module, name) for module in (nn, nn.data, nn.models, cs231n, deeplearning_ai) for name in public(module)]


@pytest.mark.parametrize(("module", "name"), OTHERS, ids=lambda value: getattr(value, "__name__", value))
def test_every_layer_reader_network_and_course_function_says_what_it_is(module, name):
    first, *rest = (inspect.getdoc(getattr(module, name)) or "").splitlines()
    assert re.fullmatch(r"[A-Z].*\.", first)
    assert not rest or rest[0] == ""
    if name[0].islower() and module is not cs231n:
        titles = {
            "Raises",
            "Examples",
            *(["Parameters"] if inspect.signature(getattr(module, name)).parameters else []),
        }
        assert titles <= set(re.findall(r"^(\w+)\n-+$", "\n".join(rest), re.MULTILINE))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_documents_its_parameters_results_errors_and_use(name):
    function, found = getattr(ck, name), sections(name)
    signature = inspect.signature(function)
    parameters = {parameter.strip("*") for parameter in signature.parameters}
    missing = parameters - described(found.get("Parameters", ""))
    assert not missing
    assert described(found.get("Parameters", "")) <= parameters
    assert ("Raises" in found) == bool(parameters)
    assert ("Returns" in found or "Yields" in found) == (signature.return_annotation not in (None, "None"))
    assert f"{name}(" in found["Examples"]


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_functions_of_one_family_speak_of_their_own_axes(name):
    rank = re.search(r"([123])d", name)
    others = re.findall(r"\b\w+([123])d\w*", inspect.getdoc(PUBLIC[name]))
    assert set(others) <= ({rank[1]} if rank else set())
    assert PUBLIC[name].__name__ == PUBLIC[name].__qualname__ == name


def test_importing_the_package_imports_nothing_that_is_optional():
    code = "import sys, convkernels; print(*{name.partition('.')[0] for name in sys.modules})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ran.stdout.split())
    assert {"convkernels", "numpy"} <= loaded
    assert not loaded & set(OPTIONAL.split())


def test_networks_and_courses_need_nothing_that_is_optional():
    modules = "convkernels.nn, convkernels.courses.cs231n, convkernels.courses.deeplearning_ai"
    code = f"import sys, {modules}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(ran.stdout.split()) & set(OPTIONAL.split())


def test_importing_the_package_reads_no_entry_points():
    code = "import sys, convkernels; print('importlib.metadata' in sys.modules, convkernels.plugins._plugins.started)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "False"]


def test_the_package_says_that_it_is_typed():
    assert (PACKAGE / "py.typed").is_file()
    assert Path(find_spec("convkernels").origin).parent == PACKAGE
