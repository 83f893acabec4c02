"""What every implementation must hold to: one idea a function, each over drawn problems.

Each check takes an implementation and raises a `KernelError` with the smallest problem on which the idea does not hold.
Whole numbers make most of them exact: no tolerance, and nothing hides in one. The definition, in plain loops, says
what is right; it shares no code with what is checked.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ..config import Resources
from ..layout import Array, Layout
from ..norm_spec import LocalNormSpec, NormSpec
from ..operation import Implementation, find_operation
from ..pool_spec import PoolSpec
from ..spec import ConvSpec, ConvTransposeSpec
from . import strategies
from .bounds import error_bounds
from .harness import KernelError, for_all
from .numeric import assert_same, assert_within
from .problems import INPUTS, Problem, problems, run

Arrays = dict[str, Array | None]
FLOATS = ("float32", "float64")
WHOLE = ("max", "max_ties-last", "max_ties-all", "min", "min_ties-last", "sum")
"""Reducers that take integers."""
GUARD = 3
"""Cells around `out` that must stay as they are."""
SLACK = 2**16
"""Bytes that Python's own objects may take beside the arrays of a run."""


def drawn(
    implementation: Implementation, data: tuple[str, ...] = ("integers",), **choices: Any
) -> st.SearchStrategy[Problem]:
    """Problems of the implementation's operation."""
    return problems(implementation.operation, data, **choices)


def compare(got: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    """Demand the same results, by name."""
    for name, result in expected.items():
        assert_same(got[name], result, name=name)


def agree(problem: Problem, got: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    """Demand the same results where whole numbers are exact, else results within twice the bound."""
    if problem.exact:
        compare(got, expected)
        return
    for name, bound in error_bounds(problem, tile=False).items():
        assert_within(got[name], expected[name], 2 * bound, name=name)


def check_matches_definition_exactly(implementation: Implementation) -> None:
    """Whole numbers give exactly what the definition gives, in every type."""

    def body(problem: Problem) -> None:
        if problem.exact:
            compare(run(implementation, problem), problem.expected)

    pools = implementation.operation.startswith("pool")
    kinds = ("integers", "tied", "distinct") if pools else ("integers",)
    floating = drawn(implementation, kinds, dtypes=FLOATS if pools else (*FLOATS, "complex128"))
    whole = drawn(implementation, kinds, dtypes=("int64",), **({"reducers": WHOLE} if pools else {}))
    for_all(implementation, floating | floating | whole, body, "matches_definition_exactly")


def check_stays_within_error_bound(implementation: Implementation) -> None:
    """Rounding stays below n_acc * eps * sum(|x| |w|), of each result or, unless claimed, of the largest one."""

    def body(problem: Problem) -> None:
        got, exact = run(implementation, problem), problem.defined(problem.arrays)
        for name, bound in error_bounds(problem, tile="bounded" not in implementation.claims).items():
            assert_within(got[name], exact[name], bound, name=name)

    smooth = {"reducers": strategies.SMOOTH + strategies.SUMMING} if implementation.operation.startswith("pool") else {}
    for_all(implementation, drawn(implementation, ("reals",), **smooth), body, "stays_within_error_bound")


def check_fills_every_output_element(implementation: Implementation) -> None:
    """What `out` held before does not matter."""

    def body(problem: Problem) -> None:
        fresh = problem.outputs()
        for result in fresh.values():
            if result is not None:
                result[...] = 5
        got, again = run(implementation, problem), run(implementation, problem, outputs=fresh)
        for name, result in got.items():
            unwritten = result != result if result.dtype.kind in "fc" else result == 77777
            assert not unwritten.any(), f"{name}{np.argwhere(unwritten)[0].tolist()} was not written"
            assert_same(again[name], result, name=f"{name} (which held 5 before the run)")

    for_all(implementation, drawn(implementation), body, "fills_every_output_element")


def check_touches_nothing_outside_out(implementation: Implementation) -> None:
    """Memory around `out` keeps its values."""

    def body(problem: Problem) -> None:
        outputs = problem.outputs()
        inner = outputs["out"]
        assert inner is not None
        order = sorted(range(inner.ndim), key=lambda axis: -abs(inner.strides[axis]))
        around = np.full([inner.shape[axis] + 2 * GUARD for axis in order], 12345, inner.dtype)
        place = (slice(GUARD, -GUARD),) * inner.ndim
        target = around[place].transpose(np.argsort(order))
        target[...] = 0
        got = run(implementation, problem, outputs={**outputs, "out": target})
        agree(problem, got, problem.expected)
        around[place] = 12345
        touched = np.argwhere(around != 12345)
        assert not touched.size, f"memory beside out was written, {(touched[0] - GUARD).tolist()} from its first cell"

    for_all(implementation, drawn(implementation), body, "touches_nothing_outside_out")


def check_leaves_inputs_unchanged(implementation: Implementation) -> None:
    """The inputs hold the same after the run."""

    def body(problem: Problem) -> None:
        before = {role: array.copy() for role, array in problem.arrays.items() if array is not None}
        run(implementation, problem)
        for role, copy in before.items():
            after = problem.arrays[role]
            assert after is not None
            assert_same(after, copy, name=f"{role} after the run")

    for_all(implementation, drawn(implementation), body, "leaves_inputs_unchanged")


def strided(array: Array, form: str) -> Array:
    """The same cells in other memory."""
    if form == "reversed":
        turned = (slice(None, None, -1),) * array.ndim
        return np.ascontiguousarray(array[turned])[turned]
    if form == "spread":
        wide = np.full([2 * size for size in array.shape], 99, array.dtype)
        place = (slice(None, None, 2),) * array.ndim
        wide[place] = array
        return wide[place]
    shifted = np.empty(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    shifted[...] = array
    return shifted


def check_accepts_any_strides(implementation: Implementation) -> None:
    """Arrays reversed, spread, unaligned, broadcast and read-only give the same, and so do such results."""

    def body(problem: Problem) -> None:
        for form in ("reversed", "spread", "unaligned"):
            arrays = {role: None if a is None else strided(a, form) for role, a in problem.arrays.items()}
            for array in arrays.values():
                if array is not None:
                    array.flags.writeable = False
            outputs = problem.outputs()
            assert outputs["out"] is not None
            outputs["out"] = strided(outputs["out"], form)
            agree(problem, run(implementation, problem, arrays, outputs), problem.expected)
        role = INPUTS[problem.operation][0]
        first = problem.arrays[role]
        if first is not None and first.size and problem.operation != "pool_grad":
            repeated = problem.given({role: np.broadcast_to(first[:1, :1], first.shape)})
            agree(repeated, run(implementation, repeated), repeated.expected)

    for_all(implementation, drawn(implementation), body, "accepts_any_strides")


def check_same_in_every_layout(implementation: Implementation) -> None:
    """The order of memory does not change the result."""

    def body(problem: Problem) -> None:
        turned = replace(problem, layout=Layout(problem.layout.axes[::-1]))
        agree(problem, run(implementation, turned), run(implementation, problem))

    for_all(implementation, drawn(implementation), body, "same_in_every_layout")


def check_handles_empty_batch(implementation: Implementation) -> None:
    """A batch of none gives a batch of none, and a weight gradient of zeros."""

    def body(problem: Problem) -> None:
        spec = problem.spec
        if isinstance(spec, ConvTransposeSpec):
            empty: Any = replace(spec, convolution=replace(spec.convolution, batch=0))
        elif isinstance(spec, ConvSpec | PoolSpec):
            empty = replace(spec, batch=0)
        else:
            empty = replace(spec, shape=(0, *spec.shape[1:]))
        if implementation.supports(empty) is None:
            result = run(implementation, replace(problem, spec=empty))["out"]
            assert not result.any(), "the weight gradient of an empty batch is not zero"

    for_all(implementation, drawn(implementation), body, "handles_empty_batch")


def check_keeps_dtype(implementation: Implementation) -> None:
    """float64 is computed in float64: sums of 40 bits come out exactly."""

    def body(problem: Problem) -> None:
        role = INPUTS[problem.operation][0]
        first = problem.arrays[role]
        assert first is not None
        if problem.operation == "pool_grad" or not problem.exact:
            return
        wide = problem.given({role: first * 2.0**36 + np.sign(first)})
        compare(run(implementation, wide), wide.expected)

    for_all(implementation, drawn(implementation, dtypes=("float64",)), body, "keeps_dtype")


def check_repeats_bitwise(implementation: Implementation) -> None:
    """The same run gives the same bits."""

    def body(problem: Problem) -> None:
        first, second = run(implementation, problem), run(implementation, problem)
        for name, result in first.items():
            assert result.tobytes() == second[name].tobytes(), f"{name} differs from one run to the next"

    for_all(implementation, drawn(implementation, ("reals",)), body, "repeats_bitwise")


def check_batch_invariant(implementation: Implementation) -> None:
    """A sample's result does not depend on the batch around it, bit for bit."""

    def body(problem: Problem) -> None:
        spec = problem.spec
        if isinstance(spec, NormSpec | LocalNormSpec):
            single: Any = replace(spec, shape=(1, *spec.shape[1:]))
        else:
            single = spec.one_image
        whole = run(implementation, problem)["out"]
        alone = replace(problem, spec=single)
        for image in range(len(whole)):
            arrays = {
                role: a[image : image + 1] if a is not None and len(a) == len(whole) and role not in ("w", "b") else a
                for role, a in problem.arrays.items()
            }
            one = run(implementation, alone, arrays)["out"]
            assert_same(whole[image : image + 1], one, name=f"out of sample {image}")

    for_all(implementation, drawn(implementation, ("reals",)), body, "batch_invariant")


def check_nan_strict(implementation: Implementation) -> None:
    """NaN reaches exactly the results whose windows hold it, and the others are as without."""

    def body(problem: Problem) -> None:
        if problem.exact or isinstance(problem.spec, NormSpec | LocalNormSpec):
            agree(problem, run(implementation, problem), problem.expected)

    for_all(implementation, drawn(implementation, ("with_nan", "integers")), body, "nan_strict")


def check_stays_within_workspace(implementation: Implementation) -> None:
    """What it says it needs is at most what it may take, or would do; and it takes no more."""

    def body(problem: Problem) -> None:
        spec = problem.spec
        for limit in (0, 100, 1000, 2**26):
            needed = implementation.workspace(spec, limit)
            assert needed >= 0, f"workspace(spec, {limit}) is {needed}"
            if needed > limit:
                again = implementation.workspace(spec, needed)
                assert again <= needed, (
                    f"workspace(spec, {limit}) says that {needed} would do, and then that {again} would"
                )
            got = run(implementation, problem, max_workspace=max(limit, needed))
            agree(problem, got, problem.expected)

    for_all(implementation, drawn(implementation), body, "stays_within_workspace")


def check_measured_workspace(implementation: Implementation) -> None:
    """The memory that a run takes is what it said, on problems large enough to tell."""
    operation = find_operation(implementation.operation)
    adapted = operation.adapted(implementation)
    for text in LARGE.get(operation.name, ()):
        problem = Problem.read(f"{operation.name}:{text}", data="reals")
        if adapted.supports(problem.spec) is not None or adapted.prefers(problem.spec, "channels_first") is not None:
            continue
        arrays, outputs = problem.arrays, problem.outputs()
        for limit in (2**18, 2**26):
            allowed = max(limit, adapted.workspace(problem.spec, limit))
            promised = adapted.workspace(problem.spec, allowed)
            peak = traced_peak(adapted, problem, arrays, outputs, allowed)
            if peak > promised + SLACK:
                finding = f"it took {peak} bytes of scratch memory, and had said {promised} (max_workspace={allowed})"
                raise KernelError(implementation, "measured_workspace", problem, finding)


LARGE = {
    **dict.fromkeys(
        ("conv", "conv_input_grad", "conv_weight_grad"),
        ("n2g1i24o40_in30x31_k3x3_s1x1_p1+1x1+1_d1x1_bias", "n2g4i16o32_in30x31_k3x3_s2x2_p1+1x1+1_d1x1"),
    ),
    "conv_transpose": ("n2g1i24o16_in15x16_k3x3_s2x2_p1+1x1+1_d1x1_op1x1",),
    **dict.fromkeys(
        ("pool", "pool_grad"),
        ("n4c24_in40x41_k3x3_s2x2_p1+1x1+1_d1x1_max", "n4c24_in40x41_k2x2_s2x2_p0+0x0+0_d1x1_mean"),
    ),
    **dict.fromkeys(
        ("batch_norm", "batch_norm_grad", "batch_norm_train", "batch_norm_train_grad"), ("n8c24_in40x41_batch",)
    ),
    **dict.fromkeys(("group_norm", "group_norm_grad"), ("n8c24g4_in40x41_group", "n8c24_in40x41_layer")),
    **dict.fromkeys(("local_response_norm", "local_response_norm_grad"), ("n8c24_in40x41_size5",)),
}
"""Problems whose scratch memory is far more than Python's objects take."""


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


def check_declines_with_a_reason(implementation: Implementation) -> None:
    """`supports` gives None or a reason in words, the same each time, and never raises."""

    def body(problem: Problem) -> None:
        reason, again = (implementation.supports(problem.spec) for _ in range(2))
        assert reason is None or str(reason).strip(), f"supports gives {reason!r}"
        assert reason == again, f"supports says {reason!r}, and then {again!r}"

    for_all(replace(implementation, supports=lambda spec: None), drawn(implementation), body, "declines_with_a_reason")
