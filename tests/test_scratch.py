"""Scratch memory of compiled code: no more is taken than was said, and no more is written than was taken."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from importlib import util

import numpy as np
import pytest

import convkernels as ck
from convkernels.config import Resources
from convkernels.layout import Layout
from convkernels.operation import OPERATIONS
from convkernels.testing.problems import INPUTS, Problem, run

if not util.find_spec("numba"):
    pytest.skip("Numba is not installed", allow_module_level=True)

from convkernels.kernels.compiled import needs, scratch, thread_count

PROBLEMS = [
    "n2g1i24o40_in30x31_k3x3_s1x1_p1+1x1+1_d1x1_bias",
    "n2g4i16o32_in30x31_k3x3_s2x2_p1+1x1+1_d1x1",
    "n1g1i3o64_in112x112_k7x7_s2x2_p3+3x3+3_d1x1",
    "n40g1i1o32_in28x28_k3x3_s1x1_p1+1x1+1_d1x1",
    "n1g64i64o64_in56x56_k3x3_s1x1_p1+1x1+1_d1x1",
    "n1g1i160o8_in20x20_k3x3_s1x1_p1+1x1+1_d1x1",
    "n1g1i256o512_in7x7_k1x1_s1x1_p0+0x0+0_d1x1",
    "n1g1i600o65_in2x25_k1x1_s1x3_p0+0x0+0_d1x1_bias",
    "n1g1i512o20_in5x6_k3x3_s1x1_p1+1x1+1_d1x1",
    "n1g1i1024o80_in3x7_k1x1_s1x1_p0+0x0+0_d1x1",
    "n1g1i16o1_in64x64_k9x9_s1x1_p4+4x4+4_d1x1_bias",
    "n1g1i1o16_in64x64_k9x9_s1x1_p4+4x4+4_d1x1",
    "n2g1i40o33_in130x1_k3x1_s2x1_p1+1x0+0_d1x1",
    "n2g12i12o12_in130x1_k3x1_s2x1_p1+1x0+0_d1x1",
    "n2g1i70o200_in9x8_k3x3_s1x1_p1+1x1+1_d1x1",
    "n3g1i5o16_in8x8_k8x8_s1x1_p0+0x0+0_d1x1",
]


@pytest.fixture
def taken(monkeypatch):
    """The most bytes of an arena that were in use at a time."""
    most, take = [0], scratch.Arena.take

    def noted(arena, size):
        found = take(arena, size)
        most[0] = max(most[0], arena.used)
        return found

    def free(arena, size):
        with arena:
            memory, start = arena.take(size)
        return memory, memory.ctypes.data + start

    monkeypatch.setattr(scratch.Arena, "take", noted)
    monkeypatch.setattr(scratch.Arena, "free", free)
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


def test_copies_of_weights_with_gaps_are_within_what_was_said(taken, monkeypatch):
    monkeypatch.setattr(needs, "usable", lambda threads, flops: 3)
    monkeypatch.setattr(thread_count, "SERIAL", 0)
    monkeypatch.setattr(thread_count, "LONELY", 0)
    text = "n2g1i8o192_in25x48_k5x3_s2x1_p2+2x1+2_d1x1_float64"
    spec, implementation = ck.parse_problem(text)[1], OPERATIONS["conv_input_grad"].find("direct")
    dy = np.zeros((2, 104, 16, 192))[:, :49, :13].transpose(0, 3, 2, 1)
    w = np.zeros((192, 9, 5, 7))[:, :8, :, :6:2]
    allowed = max(2**18, implementation.workspace(spec, 2**18))
    implementation.run(spec, dy, w, out=np.empty(spec.x_shape), resources=Resources(allowed, 1))
    assert 0 < taken[0] <= allowed


MARK, AROUND = 0xFF, 2**14
"""Bytes of NaN, so that reading what was never written shows, too; and how many there are before and after."""


@pytest.fixture
def marked(monkeypatch):
    """An arena whose pieces lie apart, each within bytes that nobody may change; they are looked at in the end."""
    pieces = []

    def take(arena, size):
        memory = np.full(size + 2 * AROUND, MARK, np.uint8)
        start = AROUND - (memory.ctypes.data + AROUND) % scratch.LINE
        pieces.append((memory, start, start + size))
        return memory, start

    def free(arena, size):
        memory, start = take(arena, size)
        return memory, memory.ctypes.data + start

    monkeypatch.setattr(scratch.Arena, "take", take)
    monkeypatch.setattr(scratch.Arena, "free", free)
    yield
    for memory, start, end in pieces:
        written = np.flatnonzero(memory != MARK)
        assert written.size == 0 or (start <= written[0] and written[-1] < end), (
            f"bytes {written[0] - start} to {written[-1] - start} of a piece of {end - start} were written"
        )


@pytest.mark.parametrize("order", [("NCHW", "OIHW"), ("NHWC", "HWIO"), ("CHWN", "OHWI")], ids="-".join)
@pytest.mark.parametrize("text", PROBLEMS)
@pytest.mark.parametrize("strategy", ["direct", "winograd", "depthwise"])
@pytest.mark.parametrize("operation", ["conv", "conv_input_grad", "conv_weight_grad"])
@pytest.mark.usefixtures("marked")
def test_no_more_is_written_than_was_taken(operation, strategy, text, order, monkeypatch):
    monkeypatch.setattr(thread_count, "SERIAL", 0)
    monkeypatch.setattr(thread_count, "LONELY", 0)
    problem = Problem.read(f"{operation}:{text}")
    problem = replace(problem, layout=Layout(order[0]), weight_layout=Layout(order[1], "OI"))
    implementation = next((each for each in OPERATIONS[operation].implementations if each.name == strategy), None)
    if implementation is None or implementation.supports(problem.spec):
        return
    for threads in (1, 2):
        run(implementation, problem, threads=threads)


def peak_of(run):
    """The most bytes of arrays that were there at a time."""
    tracemalloc.start()
    try:
        run(scratch.Arena())
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_free_memory_within_a_block_is_not_kept_for_its_end():
    def run(arena):
        with arena:
            arena.reserve(2**20)
            for _ in range(8):
                arena.free(2**20)

    assert peak_of(run) < 3 * 2**20


def test_free_memory_is_there_but_once():
    assert peak_of(lambda arena: [arena.free(size * 2**20) for size in (4, 10)][:0]) < 15 * 2**20


def test_free_memory_is_aligned_and_kept_for_the_next():
    arena = scratch.Arena()
    memory, start = arena.free(1000)
    assert start % scratch.LINE == 0
    assert memory.ctypes.data <= start <= memory.ctypes.data + memory.size - 1000
    assert arena.free(1000)[0] is memory
    assert arena.free(scratch.KEPT)[0] is not arena.memory
    assert arena.free(1000)[0] is memory
