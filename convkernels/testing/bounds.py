"""How far a right result may be from the definition's, by rounding alone.

A sum of n products, in any order, is off by at most n * eps * sum(|x| |w|) to first order (Higham, "Accuracy and
Stability of Numerical Algorithms", chapter 3). Norms have no such sum for each result; their bounds are a few
roundings of the terms that are added.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ..layout import Array
from ..norm_spec import LocalNormSpec, NormSpec
from ..pool_spec import PoolSpec
from .problems import Problem


def error_bounds(problem: Problem, *, tile: bool) -> dict[str, Array | float]:
    """Bounds for the results by name; of a `tile`, the largest holds for all."""
    spec = problem.spec
    eps = float(np.finfo(spec.compute_dtype).eps)
    if isinstance(spec, NormSpec):
        return _norm_bounds(problem, spec, eps)
    if isinstance(spec, LocalNormSpec):
        sizes = _sizes(problem)
        return {"out": 8 * eps * sizes + 1e-12}
    if isinstance(spec, PoolSpec):
        terms = 64 * (spec.window.taps + 8)
        if problem.operation == "pool_grad":
            terms *= math.prod(spec.window.kernel_size)
        return {"out": terms * eps * float(_largest(problem))}
    sizes = problem.defined(
        {role: None if a is None else np.abs(a).astype(np.float64) for role, a in problem.arrays.items()}
    )["out"]
    bound = (accumulated(problem) + 2) * eps * sizes
    return {"out": np.full_like(bound, bound.max(initial=0.0)) if tile else bound}


def accumulated(problem: Problem) -> int:
    """The most products in a sum."""
    spec = problem.spec
    assert not isinstance(spec, NormSpec | LocalNormSpec)
    if isinstance(spec, PoolSpec):
        return spec.window.taps
    if problem.operation == "conv_weight_grad":
        return math.prod((spec.y_shape[0], *spec.y_shape[2:]))
    channels = {"conv": spec.x_shape[1], "conv_input_grad": spec.y_shape[1]}.get(problem.operation, spec.x_shape[1])
    return channels // spec.groups * spec.window.taps


def _largest(problem: Problem) -> float:
    """What a pool's results and gradients cannot exceed by much."""
    sizes = [float(np.abs(array).max(initial=0.0)) for array in problem.arrays.values() if array is not None]
    return math.prod(1 + size for size in sizes)


def _sizes(problem: Problem) -> Array:
    """The size of each result of a local norm and of the terms it is the sum of."""
    exact = np.abs(problem.defined(problem.arrays)["out"])
    if problem.operation == "local_response_norm":
        return exact
    plain = replace(problem, operation="local_response_norm")
    return exact + np.abs(problem.arrays["dy"]) + np.abs(plain.defined(problem.arrays)["out"])  # type: ignore[arg-type]


def _norm_bounds(problem: Problem, spec: NormSpec, eps: float) -> dict[str, Array | float]:
    """Some roundings of a deviation, of gamma's size, and of beta; a gradient's terms are as large as 1 / sqrt(eps)."""
    arrays, exact = problem.arrays, problem.defined(problem.arrays)
    given = {role: arrays.get(role) for role in ("gamma", "beta")}
    gamma, beta = (
        default if array is None else float(np.abs(array).max())
        for array, default in zip(given.values(), (1.0, 0.0), strict=True)
    )
    x = arrays["x"]
    assert x is not None

    def rstd(var: Array | None) -> float:
        return 1 / math.sqrt(float(np.min(var, initial=np.inf)) + spec.eps)  # type: ignore[arg-type]

    # The mean is off by a rounding of x itself, whatever is done: that much of x's condition enters.
    largest = float(np.abs(x).max(initial=0.0))
    if problem.operation == "batch_norm":
        offset = largest + float(np.abs(arrays["mean"]).max(initial=0.0))  # type: ignore[arg-type]
        return {"out": 8 * eps * (offset * rstd(arrays["var"]) * gamma + 2 * beta)}
    if problem.operation in ("batch_norm_train", "group_norm"):
        return {
            "out": 16 * eps * (np.abs(exact["out"]) + gamma * (1 + largest * rstd(exact["var"])) + 2 * beta),
            "mean": 8 * eps * (largest + np.abs(exact["mean"])),
            "var": 16 * eps * (exact["var"] + eps * largest**2),
        }
    dy = float(np.abs(arrays["dy"]).max(initial=0.0))  # type: ignore[arg-type]
    steep = rstd(arrays["var"])
    count, spread = x.size, 1 + (largest + float(np.abs(arrays["mean"]).max(initial=0.0))) * steep  # type: ignore[arg-type]
    bounds: dict[str, Array | float] = {"out": 64 * eps * steep * gamma * dy * spread**2}
    if "dgamma" in exact:
        bounds["dgamma"] = 16 * count * eps * dy * spread
    if "dbeta" in exact:
        bounds["dbeta"] = 16 * count * eps * dy
    return bounds
