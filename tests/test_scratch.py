"""Scratch memory of compiled code: what is taken of a thread's arena is no more than was said."""

from __future__ import annotations

from importlib import util

import pytest

from convkernels.config import Resources
from convkernels.operation import OPERATIONS
from convkernels.testing.problems import INPUTS, Problem

if not util.find_spec("numba"):
    pytest.skip("Numba is not installed", allow_module_level=True)

from convkernels.kernels.compiled import scratch, thread_count

PROBLEMS = [
    "n2g1i24o40_in30x31_k3x3_s1x1_p1+1x1+1_d1x1_bias",
    "n2g4i16o32_in30x31_k3x3_s2x2_p1+1x1+1_d1x1",
    "n1g1i3o64_in112x112_k7x7_s2x2_p3+3x3+3_d1x1",
    "n40g1i1o32_in28x28_k3x3_s1x1_p1+1x1+1_d1x1",
    "n1g64i64o64_in56x56_k3x3_s1x1_p1+1x1+1_d1x1",
    "n1g1i160o8_in20x20_k3x3_s1x1_p1+1x1+1_d1x1",
    "n1g1i256o512_in7x7_k1x1_s1x1_p0+0x0+0_d1x1",
]


@pytest.fixture
def taken(monkeypatch):
    """The most bytes of an arena that were in use at a time."""
    most, take = [0], scratch.Arena.take

    def noted(arena, size):
        found = take(arena, size)
        most[0] = max(most[0], arena.used)
        return found

    monkeypatch.setattr(scratch.Arena, "take", noted)
    return most


@pytest.mark.parametrize("limit", [2**16, 2**18, 2**20, 2**26])
@pytest.mark.parametrize("text", PROBLEMS)
@pytest.mark.parametrize("strategy", ["direct", "winograd", "depthwise"])
@pytest.mark.parametrize("operation", ["conv", "conv_input_grad", "conv_weight_grad"])
def test_no_more_is_taken_than_was_said(operation, strategy, text, limit, taken, monkeypatch):
    monkeypatch.setattr(thread_count, "SERIAL", 0)
    monkeypatch.setattr(thread_count, "LONELY", 0)
    problem = Problem.read(f"{operation}:{text}")
    implementation = next((each for each in OPERATIONS[operation].implementations if each.name == strategy), None)
    if implementation is None or implementation.supports(problem.spec):
        return
    allowed = max(limit, implementation.workspace(problem.spec, limit))
    arrays, out = [problem.arrays[role] for role in INPUTS[operation]], problem.outputs()["out"]
    for threads in (1, 2, 4):
        taken[0] = 0
        implementation.run(problem.spec, *arrays, out=out, resources=Resources(allowed, threads))
        assert taken[0] <= allowed
        if threads <= thread_count.usable(None, 2**40):
            assert taken[0] <= implementation.workspace(problem.spec, allowed)
