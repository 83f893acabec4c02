"""Checks on a few problems that are larger than registers, blocks and Python's own objects; the others are small."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import numpy as np

from ..config import Resources
from ..layout import Array, Order
from ..operation import Implementation, find_operation
from .checks import strided
from .harness import KernelError
from .numeric import assert_within
from .problems import INPUTS, Problem, run

Arrays = dict[str, Array | None]
SLACK = 2**16
"""Bytes that Python's own objects may take beside the arrays of a run."""

LARGE = {
    **dict.fromkeys(
        ("conv", "conv_input_grad", "conv_weight_grad"),
        (
            "n2g1i24o40_in30x31_k3x3_s1x1_p1+1x1+1_d1x1_bias",
            "n2g4i16o32_in30x31_k3x3_s2x2_p1+1x1+1_d1x1",
            "n6g5i5o15_in18x33_k3x3_s1x1_p2+2x2+2_d2x2",
            "n2g40i40o80_in60x35_k1x4_s1x1_p0+0x2+0_d1x12_bias_float64",
        ),
    ),
    "conv_transpose": (
        "n2g1i24o16_in15x16_k3x3_s2x2_p1+1x1+1_d1x1_op1x1",
        "n6g5i5o5_in18x33_k3x3_s1x1_p2+2x2+2_d2x2",
        "n2g40i40o80_in60x1_k1x4_s1x1_p0+0x2+0_d1x12_bias_float64",
    ),
    **dict.fromkeys(
        ("pool", "pool_grad"),
        (
            "n4c24_in40x41_k3x3_s2x2_p1+1x1+1_d1x1_max",
            "n4c24_in40x41_k2x2_s2x2_p0+0x0+0_d1x1_mean",
            "n4c24_in60x36_k1x4_s1x1_p0+0x1+0_d1x12_lp2",
        ),
    ),
    **dict.fromkeys(
        ("batch_norm", "batch_norm_grad", "batch_norm_train", "batch_norm_train_grad"), ("n8c24_in40x41_batch",)
    ),
    **dict.fromkeys(("group_norm", "group_norm_grad"), ("n8c24g4_in40x41_group", "n8c24_in40x41_layer")),
    **dict.fromkeys(("local_response_norm", "local_response_norm_grad"), ("n8c24_in40x41_size5",)),
}
"""Problems whose scratch memory is far more than Python's objects take; with a group for each channel, and a column."""

LIMITS = 2**18, 2**26
ORDERS: dict[str, Order] = {"NCHW": "channels_first", "NHWC": "channels_last"}


def large_problems(implementation: Implementation) -> Iterator[Problem]:
    """Those that an implementation takes, and would be given, in two orders of memory."""
    for text in LARGE[implementation.operation]:
        for layout, order in ORDERS.items():
            problem = Problem.read(f"{implementation.operation}:{text}", layout=layout)
            if implementation.supports(problem.spec) is None and implementation.prefers(problem.spec, order) is None:
                yield problem


def check_agrees_on_large_problems(implementation: Implementation) -> None:
    """Problems of several blocks come out as another implementation has them, on any number of threads.

    The stride of an axis of one cell is loose. The definition would take minutes. What it has proven right on small
    problems takes its place; where there is no other, an implementation must agree with itself in less memory.
    """
    operation = find_operation(implementation.operation)
    adapted = operation.adapted(implementation)
    others = [other for other in operation.implementations[:-1] if other.name != implementation.name]
    for problem in large_problems(adapted):
        willing = [other for other in others if other.supports(problem.spec) is None] or [adapted]
        expected = run(willing[-1], problem, max_workspace=2**30)
        arrays = {role: None if array is None else strided(array, "loose") for role, array in problem.arrays.items()}
        exact = problem.exact and {"exact_on_integers"} <= adapted.claims & willing[-1].claims
        for threads in (1, 2, 3) if adapted.uses_threads else (None,):
            for allowed in caps(adapted, problem):
                outputs = problem.outputs()
                outputs["out"] = strided(outputs["out"], "loose")  # type: ignore[arg-type]
                got = run(adapted, problem, arrays, outputs, max_workspace=allowed, threads=threads)
                try:
                    for name, result in expected.items():
                        assert_within(got[name], result, 0 if exact else np.abs(result).max() / 1000, name=name)
                except AssertionError as error:
                    finding = f"{error} (max_workspace={allowed}, threads={threads})"
                    raise KernelError(adapted, "agrees_on_large_problems", problem, finding) from None


def check_measured_workspace(implementation: Implementation) -> None:
    """The memory that a run takes is what it said, on problems large enough to tell."""
    adapted = find_operation(implementation.operation).adapted(implementation)
    for problem in large_problems(adapted):
        arrays, outputs = problem.arrays, problem.outputs()
        for allowed in caps(adapted, problem):
            promised = adapted.workspace(problem.spec, allowed)
            peak = traced_peak(adapted, problem, arrays, outputs, allowed)
            if peak > promised + SLACK:
                finding = f"it took {peak} bytes of scratch memory, and had said {promised} (max_workspace={allowed})"
                raise KernelError(implementation, "measured_workspace", problem, finding)


def caps(implementation: Implementation, problem: Problem) -> Iterator[int]:
    """Little scratch memory, as far as an implementation can do with it, and much."""
    for limit in LIMITS:
        yield max(limit, implementation.workspace(problem.spec, limit))


def traced_peak(
    implementation: Implementation, problem: Problem, arrays: Arrays, outputs: Arrays, max_workspace: int
) -> int:
    """The most bytes that a run has allocated at a time."""
    given = [arrays.get(role) for role in INPUTS[problem.operation]]
    resources = Resources(max_workspace)
    implementation.run(problem.spec, *given, **outputs, resources=resources)  # fills caches of plans
    tracemalloc.start()
    try:
        implementation.run(problem.spec, *given, **outputs, resources=resources)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
