"""Settings: a call's own come first, then the context's, then the process's."""

from __future__ import annotations

import asyncio
import contextvars
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

import convkernels as ck
from convkernels import config

x, w = np.ones((1, 2, 6, 6)), np.ones((3, 2, 3, 3))
BAD = [
    {"max_workspace": -1},
    {"max_workspace": 1.0},
    {"max_workspace": True},
    {"max_workspace": "1"},
    {"threads": 0},
    {"threads": -1},
    {"threads": 2.0},
    {"threads": True},
    {"precision": "low"},
    {"precision": 1},
]


@pytest.fixture(autouse=True)
def _process_settings(monkeypatch):
    """Whatever a test sets for the process is gone after it."""
    monkeypatch.setattr(config, "_process", ck.Config())


@pytest.fixture
def seen():
    """What the calls of a test may use, as the implementation sees it."""
    resources_seen = []

    def run(spec, x, w, b, *, out, resources):
        resources_seen.append((resources.max_workspace, resources.threads))
        out[...] = 0

    ck.register("conv", "seeing", run)
    yield resources_seen
    ck.unregister("conv", "seeing")


def test_defaults():
    assert ck.get_config() == ck.Config(max_workspace=64 * 2**20, threads=None, precision="default")


def test_a_call_comes_before_a_context_before_the_process(seen):
    ck.conv2d(x, w)
    ck.set_config(max_workspace=1000, threads=5)
    ck.conv2d(x, w)
    with ck.config_context(max_workspace=2000):
        ck.conv2d(x, w)
        with ck.config_context(threads=2):
            ck.conv2d(x, w)
            ck.conv2d(x, w, max_workspace=3000, threads=1)
        ck.conv2d(x, w)
    ck.conv2d(x, w)
    assert seen == [(64 * 2**20, None), (1000, 5), (2000, 5), (2000, 2), (3000, 1), (2000, 5), (1000, 5)]


def test_the_process_can_be_set_inside_a_context_and_shows_outside():
    with ck.config_context(threads=2):
        ck.set_config(threads=7, precision="highest")
        assert ck.get_config() == ck.Config(threads=2)
    assert ck.get_config() == ck.Config(threads=7, precision="highest")


def test_a_context_yields_the_settings_in_force_and_ends_with_an_error():
    with ck.config_context(precision="highest", max_workspace=7) as inside:
        assert inside is ck.get_config()
        assert inside == ck.Config(max_workspace=7, precision="highest")
    with pytest.raises(ck.OptionError), ck.config_context(threads=3):
        ck.conv2d(x, w, stride=0)
    assert ck.get_config() == ck.Config()


def test_what_is_not_given_stays():
    ck.set_config(max_workspace=5, threads=2, precision="highest")
    ck.set_config()
    ck.set_config(max_workspace=None, threads=None, precision=None)
    with ck.config_context() as inside:
        assert inside == ck.Config(5, 2, "highest")


def test_a_byte_count_may_be_any_integer():
    ck.set_config(max_workspace=np.int64(2**40))
    assert ck.get_config().max_workspace == 2**40
    assert type(ck.get_config().max_workspace) is int
    with ck.config_context(max_workspace=0, threads=np.int8(3)) as inside:
        assert (inside.max_workspace, inside.threads) == (0, 3)


@pytest.mark.parametrize("bad", BAD, ids=str)
def test_a_bad_value_changes_nothing(bad):
    ck.set_config(max_workspace=5, threads=2)
    before = ck.get_config()
    good = {"max_workspace": 9, "threads": 9, "precision": "highest"}
    with pytest.raises(ck.OptionError, match=next(iter(bad))):
        ck.set_config(**{**good, **bad})
    with pytest.raises(ck.OptionError, match=next(iter(bad))), ck.config_context(**{**good, **bad}):
        pytest.fail("the block must not run")
    with pytest.raises(ck.OptionError, match=f"^conv2d: {next(iter(bad))}"):
        ck.conv2d(x, w, **bad)
    assert ck.get_config() is before


def test_settings_cannot_be_written():
    with pytest.raises(FrozenInstanceError):
        ck.get_config().threads = 3


def test_a_context_holds_for_its_own_thread_alone():
    with ThreadPoolExecutor(1) as pool, ck.config_context(threads=2):
        assert pool.submit(ck.get_config).result() == ck.Config()
        assert pool.submit(contextvars.copy_context().run, ck.get_config).result() == ck.Config(threads=2)
        ck.set_config(threads=4)
        assert pool.submit(ck.get_config).result() == ck.Config(threads=4)


def test_a_context_holds_for_its_own_task_alone():
    async def task(threads, entered, other):
        with ck.config_context(threads=threads):
            entered.set()
            await other.wait()
            return ck.get_config().threads

    async def both():
        first, second = asyncio.Event(), asyncio.Event()
        return await asyncio.gather(task(1, first, second), task(2, second, first))

    assert asyncio.run(both()) == [1, 2]


@pytest.mark.parametrize("strategy", ["auto", "im2col", "stride_tricks"])
def test_the_cap_of_a_context_is_honoured(strategy):
    with ck.config_context(max_workspace=8):
        with pytest.raises(ck.WorkspaceError, match="max_workspace=8 bytes is too small"):
            ck.conv2d(x, w, strategy=strategy)
        assert ck.conv2d(x, w, strategy=strategy, max_workspace=2**20).shape == (1, 3, 4, 4)
        assert "WorkspaceError" in ck.explain("conv2d", x, w, strategy=strategy).choices[0].error
    assert ck.conv2d(x, w, strategy=strategy).shape == (1, 3, 4, 4)


def test_the_precision_of_a_context_is_honoured():
    ck.register("conv", "loose", lambda spec, x, w, b, *, out, resources: None)
    try:
        assert ck.explain("conv2d", x, w).choices[0].chosen.name == "loose"
        with ck.config_context(precision="highest"):
            assert ck.explain("conv2d", x, w).choices[0].chosen.name != "loose"
            assert ck.explain("conv2d", x, w, precision="default").choices[0].chosen.name == "loose"
    finally:
        ck.unregister("conv", "loose")


def test_gradients_keep_the_settings_of_their_call():
    _, vjp = ck.conv2d_vjp(x, w, max_workspace=2**20)
    with ck.config_context(max_workspace=8):
        assert vjp(np.ones((1, 3, 4, 4))).dx.shape == x.shape
    _, vjp = ck.conv2d_vjp(x, w)
    with ck.config_context(max_workspace=8), pytest.raises(ck.WorkspaceError, match="conv2d_vjp's vjp: "):
        vjp(np.ones((1, 3, 4, 4)))


def test_threads_can_be_set_for_the_process_and_given_back():
    ck.set_threads(3)
    assert ck.get_config().threads == 3
    ck.set_threads(None)
    assert ck.get_config().threads is None
    with pytest.raises(ck.OptionError, match="threads=0 must be at least 1"):
        ck.set_threads(0)
    with pytest.raises(ck.OptionError, match="threads"):
        ck.set_threads(1.5)
    assert ck.get_config().threads is None


@pytest.mark.parametrize(
    ("given", "expected"),
    [("2", "2"), ("", "None"), ("0", "must be a whole number, at least 1"), ("two", "CONVKERNELS_NUM_THREADS='two'")],
)
def test_the_environment_says_how_many_threads_hold_at_the_start(given, expected):
    code = "import convkernels as ck; print(ck.get_config().threads)"
    environment = {**os.environ, "CONVKERNELS_NUM_THREADS": given}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert expected in result.stdout + result.stderr
    assert (result.returncode == 0) == (expected in ("2", "None"))
