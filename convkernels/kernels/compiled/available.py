"""What can be said of the compiled implementations without Numba: whether they run, when, and in what memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module, util
from typing import Any

from ...layout import Order
from ...spec import ConvSpec
from .axes import correlation_amounts, forward_axes, input_grad_axes, weight_amounts
from .parallel import usable

CLAIMS = frozenset({"exact_on_integers", "batch_invariant", "nan_strict", "bounded"})
ENOUGH = 8_000_000
"""Floating-point operations for each image and group, some 0.1 ms, from which on handing blocks to tiles pays."""


@cache
def missing() -> str | None:
    """Why nothing compiled runs here, or None."""
    return None if util.find_spec("numba") else "Numba is not installed: pip install 'convkernels[jit]'"


def supports(spec: ConvSpec) -> str | None:
    """float32 and float64, where Numba is."""
    if spec.compute_dtype.name not in ("float32", "float64"):
        return f"computes float32 and float64, not {spec.compute_dtype.name}"
    return missing()


def prefers(spec: ConvSpec, order: Order) -> str | None:
    """Large problems, whatever their order in memory."""
    each = spec.flops // max(1, spec.batch * spec.groups)
    if each < ENOUGH:
        return f"{each} operations for an image and group are too few to pay for its blocks"
    return None


def late(name: str, module: str = "direct") -> Callable[..., None]:
    """An implementation of this package's that is imported when it is first run."""

    def run(*arguments: Any, **keywords: Any) -> None:
        getattr(import_module(f".{module}", __package__), name)(*arguments, **keywords)

    return run


def workspace(spec: ConvSpec, limit: int) -> int:
    """Scratch bytes of `conv`: weights in panels, and for each thread a block of the input and of the output."""
    size, threads = spec.compute_dtype.itemsize, usable(None, spec.flops)
    pieces = -(-threads // max(1, spec.batch))
    found = correlation_amounts(forward_axes(spec), spec.group_in, spec.group_out, size, limit, pieces)
    return found.bytes(threads, limit)


def workspace_input_grad(spec: ConvSpec, limit: int) -> int:
    """Scratch bytes of `conv_input_grad`: those of the largest of its correlations."""
    size, threads = spec.compute_dtype.itemsize, usable(None, spec.flops)
    pieces = -(-threads // max(1, spec.batch))
    return max(
        correlation_amounts(axes, spec.group_out, spec.group_in, size, limit, pieces).bytes(threads, limit)
        for axes in input_grad_axes(spec)
    )


def workspace_weight_grad(spec: ConvSpec, limit: int) -> int:
    """Scratch bytes of `conv_weight_grad`: the sums, and for each thread a block of the input and of the gradient."""
    size, threads = spec.compute_dtype.itemsize, usable(None, spec.flops)
    found = weight_amounts(forward_axes(spec), spec.group_in, spec.group_out, size, limit)
    return found.bytes(threads, limit)
