"""Problems of norms of some vectors in each direction, in the orders of memory that are compiled."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from convkernels.kernels import norm_gradients, norms
from convkernels.layout import SPATIAL, Layout
from convkernels.norm_spec import NormSpec
from convkernels.operation import OPERATIONS
from convkernels.testing.problems import INPUTS, Problem, run

OPERATION = {"batch": "batch_norm_train"}


BOTH = ["float32", "float64"]


def problem_of(
    operation, shape, kind, layout, *, dtype="float32", groups=1, axes=None, plain=False, seed=0, data="reals"
):
    spec = NormSpec.make(shape, np.dtype(dtype), kind=kind, groups=groups, axes=axes)
    spatial = SPATIAL[len(shape) - 2]
    return Problem(operation, spec, Layout(layout), Layout("OI" + spatial, "OI"), data, seed, plain)


def statistics_of(problem):
    """The gradient's problem, with statistics as NumPy finds them: the definition would take minutes."""
    forward = run(OPERATIONS[problem.operation].find("numpy"), problem)
    gradient = replace(problem, operation=problem.operation + "_grad")
    shape = problem.spec.seen_shape
    arrays = {role: problem.arrays.get(role) for role in INPUTS[gradient.operation]}
    arrays |= {"dy": gradient.laid("dy", gradient.draw("dy", shape, problem.seed + 9))}
    gradient.__dict__["arrays"] = {**arrays, "mean": forward["mean"], "var": forward["var"]}
    return gradient


FORMS = [
    ("batch", "NCHW", "Rows"),
    ("batch", "NHWC", "Columns"),
    ("group", "NCHW", "Rows"),
    ("group", "NHWC", "Columns"),
    ("layer", "NCHW", "Rows"),
    ("layer", "NHWC", "Rows"),
    ("instance", "NHWC", "Columns"),
    ("rms", "NCHW", "Rows"),
    ("pixels", "NHWC", "Rows"),
    ("pixels", "NCHW", "Columns"),
]
"""Kinds (a layer norm of the channels alone is one of pixels), layouts, and the form of the forward if it has one."""


COMPILED = [each for each in FORMS if each[2]]


def standard(kind, layout, *, dtype="float32", shape=(3, 32, 19, 21), **more):
    """A problem of some vectors in each direction."""
    groups = 4 if kind == "group" else 1
    if kind == "pixels":
        kind, more = "layer", {**more, "axes": (1,)}
    return problem_of(OPERATION.get(kind, "group_norm"), shape, kind, layout, dtype=dtype, groups=groups, **more)


def in_float64(problem):
    """The same problem with the same data in the wider type."""
    arrays = {role: None if array is None else array.astype(float) for role, array in problem.arrays.items()}
    return replace(problem, spec=replace(problem.spec, dtype=np.dtype(float))).given(arrays)


def no_numpy(monkeypatch):
    """Let NumPy's way fail, which is taken for other forms."""
    for module, name in (
        (norms, "norm"),
        (norms, "batch_norm"),
        (norm_gradients, "norm_grad"),
    ):
        monkeypatch.setattr(module, name, None)
