"""ONNX Runtime, forward in float32: a model of one operator, whose weights are constants that it may rearrange."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from convkernels.layout import Array

from .contestant import Contestant
from .task import Task

OPSET, IR_VERSION = 21, 10
LEVELS = {
    "blocked channels": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    "plain channels": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
}
"""With its own blocked layout, into which and out of which it copies, and without."""


class OnnxRuntime:
    """A peer that infers."""

    name = "ONNX Runtime"

    def version(self) -> str:
        """Return its version."""
        return str(onnxruntime.__version__)

    @contextmanager
    def session(self, threads: int) -> Iterator[None]:
        """Set nothing: a model's threads are its own."""
        del threads
        yield

    def contestants(self, task: Task, threads: int) -> Iterator[Contestant]:
        """Yield the model at each level of optimisation."""
        if task.direction != "forward" or task.spec.dtype != np.float32:
            return
        described = _operator(task)
        if described is None:
            return
        operator, attributes, constants = described
        # A layer norm's channels come last.
        moved = operator == "LayerNormalization"
        x = np.ascontiguousarray(np.moveaxis(task.arrays["x"], 1, -1)) if moved else task.arrays["x"]
        model = _model(operator, attributes, constants, x.shape)
        for variant, level in LEVELS.items():
            run = partial(_session(model, level, threads).run, None, {"x": x})
            yield Contestant(self.name, variant, run, partial(_canonical, moved=moved))


def _canonical(found: list[Array], *, moved: bool) -> tuple[Array, ...]:
    return (np.moveaxis(found[0], -1, 1) if moved else found[0],)


Described = tuple[str, dict[str, Any], dict[str, Array]]


def _operator(task: Task) -> Described | None:
    """The operator's name, its attributes, and its constant inputs; None if there is none."""
    spec = task.spec
    if task.operation in ("conv", "conv_transpose", "pool"):
        attributes = {
            "kernel_shape": spec.window.kernel_size,
            "strides": spec.window.stride,
            "dilations": spec.window.dilation,
        }
        # What lies beyond the last window makes no difference; ONNX cannot crop.
        pairs = spec.padding if task.operation == "conv_transpose" else spec.window.padding
        if any(lo < 0 for lo, _ in pairs):
            return None
        attributes["pads"] = [lo for lo, _ in pairs] + [max(0, hi) for _, hi in pairs]
        if task.operation == "pool":
            if spec.reducer.name == "max":
                return "MaxPool", attributes, {}
            return "AveragePool", attributes | {"count_include_pad": int(spec.count_include_pad)}, {}
        attributes["group"] = spec.groups
        if task.operation == "conv":
            return "Conv", attributes, {"w": task.arrays["w"]}
        return "ConvTranspose", attributes | {"output_padding": spec.output_padding}, {"w": task.arrays["w"]}
    coefficients = {role: task.arrays[role] for role in ("gamma", "beta")}
    if task.operation == "group_norm" and spec.kind == "group":
        return "GroupNormalization", {"num_groups": spec.groups, "epsilon": spec.eps}, coefficients
    if task.operation == "group_norm" and spec.kind == "layer" and spec.axes == (1,):
        return "LayerNormalization", {"axis": -1, "epsilon": spec.eps}, coefficients
    return None


def _model(operator: str, attributes: dict[str, Any], constants: dict[str, Array], shape: tuple[int, ...]) -> bytes:
    values = [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in constants.items()]
    node = helper.make_node(operator, ["x", *constants], ["y"], **attributes)
    graph = helper.make_graph(
        [node],
        operator,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        values,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return bytes(made.SerializeToString())


def _session(model: bytes, level: Any, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
