"""What every implementation must hold to: one idea a function, each over drawn problems.

Each check takes an implementation and raises a `KernelError` with the smallest problem on which the idea does not hold.
Whole numbers make most of them exact: no tolerance, and nothing hides in one. The definition, in plain loops, says
what is right; it shares no code with what is checked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any, get_args

import numpy as np
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided

from ..layout import Array, Layout, Order
from ..norm_spec import LocalNormSpec, NormSpec
from ..operation import Implementation, find_operation
from ..pool_spec import PoolSpec
from ..spec import ConvSpec, ConvTransposeSpec
from . import strategies
from .bounds import accumulated, error_bounds
from .harness import for_all
from .numeric import assert_same, assert_within
from .problems import INPUTS, Problem, problems, run

Arrays = dict[str, Array | None]
FLOATS = ("float32", "float64")
WHOLE = ("max", "max_ties-last", "max_ties-all", "min", "min_ties-last", "sum")
"""Reducers that take integers."""
GUARD = 3
"""Cells around `out` that must stay as they are."""


def drawn(
    implementation: Implementation, data: tuple[str, ...] = ("integers",), **choices: Any
) -> st.SearchStrategy[Problem]:
    """Problems of the implementation's operation."""
    return problems(implementation.operation, data, **choices)


def compare(got: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    """Demand the same results, by name."""
    for name, result in expected.items():
        assert_same(got[name], result, name=name)


def assert_right(implementation: Implementation, problem: Problem) -> None:
    """Demand what the definition makes of the problem, before a run may have changed its inputs."""
    expected = problem.expected
    compare(run(implementation, problem), expected)


def agree(
    implementation: Implementation, problem: Problem, got: Mapping[str, Array], expected: Mapping[str, Array]
) -> None:
    """Demand the same results where whole numbers are exact, else results within twice the bound."""
    tile = "bounded_tile" in implementation.claims
    if problem.exact and not tile:
        compare(got, expected)
        return
    for name, bound in error_bounds(problem, tile=tile).items():
        assert_within(got[name], expected[name], 2 * bound, name=name)


def check_matches_definition_exactly(implementation: Implementation) -> None:
    """Whole numbers give exactly what the definition gives, in every type."""

    def body(problem: Problem) -> None:
        if problem.exact:
            assert_right(implementation, problem)

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
    kinds = ("reals", "offset") if "norm" in implementation.operation else ("reals",)
    for_all(implementation, drawn(implementation, kinds, **smooth), body, "stays_within_error_bound")


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
        outputs, expected = problem.outputs(), problem.expected
        inner = outputs["out"]
        assert inner is not None
        order = sorted(range(inner.ndim), key=lambda axis: -abs(inner.strides[axis]))
        around = np.full([inner.shape[axis] + 2 * GUARD for axis in order], 12345, inner.dtype)
        place = (slice(GUARD, -GUARD),) * inner.ndim
        target = around[place].transpose(np.argsort(order))
        target[...] = 0
        got = run(implementation, problem, outputs={**outputs, "out": target})
        agree(implementation, problem, got, expected)
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
    if form == "loose":
        around = np.full(4 * array.size, 99, array.dtype)  # a kernel that trusts a loose stride reads this
        order = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
        dense = around[: array.size].reshape([array.shape[axis] for axis in order]).transpose(np.argsort(order))
        dense[...] = array
        strides = [
            3 * array.itemsize if size == 1 else stride for size, stride in zip(array.shape, dense.strides, strict=True)
        ]
        return as_strided(around, array.shape, strides)
    shifted = np.empty(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    shifted[...] = array
    return shifted


def check_accepts_any_strides(implementation: Implementation) -> None:
    """Arrays reversed, spread, unaligned, broadcast and read-only give the same, and so do such results.

    The stride of an axis of one cell is loose: NumPy may have anything there.
    """

    def body(problem: Problem) -> None:
        every = (*problem.arrays.values(), problem.outputs()["out"])
        singles = any(1 in array.shape for array in every if array is not None)
        for form in ("reversed", "spread", "unaligned", *(["loose"] if singles else [])):
            arrays = {role: None if a is None else strided(a, form) for role, a in problem.arrays.items()}
            for array in arrays.values():
                if array is not None:
                    array.flags.writeable = False
            outputs = problem.outputs()
            assert outputs["out"] is not None
            outputs["out"] = strided(outputs["out"], form)
            agree(implementation, problem, run(implementation, problem, arrays, outputs), problem.expected)
        role = INPUTS[problem.operation][0]
        first = problem.arrays[role]
        if first is not None and first.size and problem.operation != "pool_grad":
            repeated = problem.given({role: np.broadcast_to(first[:1, :1], first.shape)})
            agree(implementation, repeated, run(implementation, repeated), repeated.expected)

    for_all(implementation, drawn(implementation), body, "accepts_any_strides")


def check_same_in_every_layout(implementation: Implementation) -> None:
    """The order of memory does not change the result."""

    def body(problem: Problem) -> None:
        turned = replace(problem, layout=Layout(problem.layout.axes[::-1]))
        agree(implementation, problem, run(implementation, turned), run(implementation, problem))

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
    """float64 is computed in float64 and int64 in int64: sums of 40 bits come out exactly, and of whole ones 62."""

    def body(problem: Problem) -> None:
        role = INPUTS[problem.operation][0]
        first = problem.arrays[role]
        assert first is not None
        if not problem.exact:
            return
        terms = accumulated(problem)
        if isinstance(problem.spec, ConvSpec) and problem.spec.padding_mode != "zeros":
            # A gradient's cell also takes what its copies in the padding get.
            terms *= math.prod(1 + abs(lo) + abs(hi) for lo, hi in problem.spec.window.padding)
        bits = 36 if first.dtype.kind == "f" else 62 - (64 * terms).bit_length()
        wide = problem.given({role: first * first.dtype.type(2**bits) + np.sign(first)})
        assert_right(implementation, wide)

    floating = drawn(implementation, dtypes=("float64",))
    whole = {"reducers": WHOLE} if implementation.operation == "pool" else {}
    for_all(implementation, floating | drawn(implementation, dtypes=("int64",), **whole), body, "keeps_dtype")


def check_repeats_bitwise(implementation: Implementation) -> None:
    """The same run gives the same bits, whatever was run between."""
    turn = count(1)

    def body(problem: Problem) -> None:
        first, spec = run(implementation, problem), problem.spec
        if isinstance(spec, ConvSpec):
            # What an old run has left in the middle of a buffer lies in the padding of this one.
            padding = tuple((hi, lo) for lo, hi in spec.window.padding)
            spec = replace(spec, window=replace(spec.window, padding=padding))
        if implementation.supports(spec) is None:
            # Each time on other data, or it would find again what it left the last time.
            run(implementation, replace(problem, spec=spec, seed=problem.seed + next(turn)))
        second = run(implementation, problem)
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
    """NaN reaches exactly the results whose windows, or whose statistics, hold it, and the others are as without."""

    def body(problem: Problem) -> None:
        if problem.exact:
            assert_right(implementation, problem)
        if not isinstance(problem.spec, NormSpec | LocalNormSpec):
            return
        x = problem.arrays["x"]
        assert x is not None
        got, clean = run(implementation, problem), problem.with_x(np.nan_to_num(x, nan=1))
        for name, bound in error_bounds(clean, tile=False).items():
            expected = np.where(np.isnan(problem.expected[name]), np.nan, clean.expected[name])
            assert_within(got[name], expected, 2 * bound, name=name)

    for_all(implementation, drawn(implementation, ("with_nan", "integers")), body, "nan_strict")


def check_stays_within_workspace(implementation: Implementation) -> None:
    """What it says it needs is at most what it may take, or would do; and with that much it is right."""
    implementation = find_operation(implementation.operation).adapted(implementation)

    def body(problem: Problem) -> None:
        spec = problem.spec
        expected, enough = problem.expected, max(0, implementation.workspace(spec, 2**26))
        # Between the least and the most, the last of its chunks is smaller than the others.
        for limit in sorted({0, 1000, enough // 3, 2 * enough // 3, 2**26}):
            needed = implementation.workspace(spec, limit)
            assert needed >= 0, f"workspace(spec, {limit}) is {needed}"
            if needed > limit:
                again = implementation.workspace(spec, needed)
                assert again <= needed, (
                    f"workspace(spec, {limit}) says that {needed} would do, and then that {again} would"
                )
            got = run(implementation, problem, max_workspace=max(limit, needed))
            agree(implementation, problem, got, expected)

    for_all(implementation, drawn(implementation), body, "stays_within_workspace")


def check_declines_with_a_reason(implementation: Implementation) -> None:
    """`supports` and `prefers` give None or a reason in words, the same each time, and never raise."""

    def body(problem: Problem) -> None:
        def held(name: str, ask: Callable[[], object]) -> object:
            reason, again = ask(), ask()
            assert reason is None or (isinstance(reason, str) and reason.strip()), f"{name} gives {reason!r}"
            assert reason == again, f"{name} says {reason!r}, and then {again!r}"
            return reason

        if held("supports", lambda: implementation.supports(problem.spec)) is None:
            for order in get_args(Order):
                held("prefers", partial(implementation.prefers, problem.spec, order))

    for_all(replace(implementation, supports=lambda spec: None), drawn(implementation), body, "declines_with_a_reason")
