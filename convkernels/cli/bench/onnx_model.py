"""Tasks as ONNX models of one operator, whose weights are constants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from convkernels.layout import Array

from .task import Task

OPSET, IR_VERSION = 21, 10


@dataclass(frozen=True)
class Model:
    """A serialised model, and its input as it wants it."""

    text: bytes
    x: Array
    channels_last: bool

    def canonical(self, found: list[Array]) -> tuple[Array, ...]:
        """Make canonical arrays of what it returns."""
        return (np.moveaxis(found[0], -1, 1) if self.channels_last else found[0],)


def make(task: Task) -> Model | None:
    """Make the model of a forward task in float32, or None if ONNX has no operator for it."""
    described = _operator(task)
    if described is None:
        return None
    operator, attributes, constants = described
    moved = operator == "LayerNormalization"
    x = np.ascontiguousarray(np.moveaxis(task.arrays["x"], 1, -1)) if moved else task.arrays["x"]
    return Model(_model(operator, attributes, constants, x.shape), x, moved)


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
