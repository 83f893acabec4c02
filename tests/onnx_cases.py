"""The cases by which ONNX tests its runtimes, read as data, and its operators in terms of the library's calls.

A case is a model, as a rule of one node, its inputs, and what a runtime must make of them. Nothing of ONNX runs here
but its readers: its reference evaluator is no oracle, for it is wrong where a last window hangs over the border.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convkernels as ck
from convkernels.layout import Array

onnx = pytest.importorskip("onnx", reason="ONNX's test data is the oracle here")

DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"
FOLDERS = ("node", "pytorch-converted", "pytorch-operator", "simple")  # the others hold whole networks
EXPANDED = "_expanded"
"""In the name of a case that repeats another's data: its model has, for the operator, what that is defined by."""

LAYOUTS = {1: "NCW", 2: "NCHW", 3: "NCDHW"}
AUTO_PADS = {b"VALID": "valid", b"SAME_UPPER": "same", b"SAME_LOWER": "same_lower"}

# Operators take their attributes by name: a case with one that nothing is made of fails.


def layout(x):
    return LAYOUTS[x.ndim - 2]


def geometry(rank, *, strides=1, dilations=1, pads=None, auto_pad=None):
    """The keywords that pose a window's problem."""
    padding = 0
    if pads is not None:
        padding = list(zip(pads[:rank], pads[rank:], strict=True))
    if auto_pad is not None:
        padding = AUTO_PADS[auto_pad]
    return {"stride": strides, "dilation": dilations, "padding": padding, "layout": LAYOUTS[rank]}


def conv(x, w, b=None, *, kernel_shape=None, group=1, **window):
    # The shape of w says what kernel_shape does.
    return ck.conv(x, w, b, groups=group, **geometry(x.ndim - 2, **window))


def conv_integer(x, w, x_zero=0, w_zero=0, **attributes):
    # Widened, for the difference may be negative; padded behind it, so that padding stands for x_zero.
    x = x.astype(np.int64) - x_zero
    w = w.astype(np.int64) - np.reshape(w_zero, (-1, *[1] * (w.ndim - 1)))
    return conv(x, w, **attributes).astype(np.int32)


def conv_transpose(x, w, b=None, *, kernel_shape=None, group=1, output_padding=0, output_shape=None, **window):
    # Less than comes without padding would pad, for ONNX; the library refuses that, and no case wants it.
    extra = {"output_padding": output_padding} if output_shape is None else {"output_size": output_shape}
    return ck.conv_transpose(x, w, b, groups=group, **extra, **geometry(x.ndim - 2, **window))


def pool_options(x, *, kernel_shape, ceil_mode=0, **window):
    return {"window": kernel_shape, "ceil_mode": bool(ceil_mode), **geometry(x.ndim - 2, **window)}


def max_pool(x, *, storage_order=0, **attributes):
    options, sizes = pool_options(x, **attributes), x.shape[2:]
    _, indices = ck.max_pool_with_indices(x, **options)
    if storage_order == 1:
        indices = np.ravel_multi_index(np.unravel_index(indices, sizes), sizes, order="F")
    # The library counts the cells of one plane, ONNX those of the whole tensor.
    planes = np.arange(math.prod(x.shape[:2])).reshape(*x.shape[:2], *[1] * len(sizes))
    return ck.max_pool(x, **options), planes * math.prod(sizes) + indices


def max_unpool(x, indices, output_shape=None, *, kernel_shape, strides):
    cells = zip(x.shape[2:], strides, kernel_shape, strict=True)
    sizes = [(size - 1) * step + taps for size, step, taps in cells]
    y = ck.max_unpool(x, indices % math.prod(sizes), output_size=sizes, layout=layout(x))
    if output_shape is None:
        return y
    # The indices count the cells of the output that there would be without; a larger one has zeros at its end.
    return np.pad(y, [(0, wanted - size) for wanted, size in zip(output_shape, y.shape, strict=True)])


def average_pool(x, *, count_include_pad=0, **attributes):
    return ck.avg_pool(x, count_include_pad=bool(count_include_pad), **pool_options(x, **attributes))


def lp_pool(x, *, p=2, **attributes):
    return ck.pool(x, reducer=ck.lp(p), **pool_options(x, **attributes))


def batch_norm(x, gamma, beta, mean, var, *, epsilon=1e-5, momentum=0.9, training_mode=0, is_test=1):
    options = {"eps": epsilon, "layout": layout(x)}
    if is_test and not training_mode:
        return ck.batch_norm(x, gamma, beta, mean, var, **options)
    y, *statistics = ck.batch_norm_train(x, gamma, beta, **options)
    pairs = zip((mean, var), statistics, strict=True)
    return y, *(ck.update_running(running, batch, momentum) for running, batch in pairs)


def group_norm(x, gamma, beta, *, num_groups, epsilon=1e-5):
    # As of opset 21, of which the cases are: before, each group had its coefficients, now each channel has.
    return ck.group_norm(x, gamma, beta, num_groups, eps=epsilon, layout=layout(x))


def instance_norm(x, gamma, beta, *, epsilon=1e-5):
    return ck.instance_norm(x, gamma, beta, eps=epsilon, layout=layout(x))


def trailing_axes(x, axis, epsilon):
    """The data as a batch of one, for the axes from `axis` on may be all, and the keywords to normalise over them."""
    batch = x[np.newaxis]
    return batch, {"axes": tuple(range(axis % x.ndim + 1, batch.ndim)), "eps": epsilon, "layout": layout(batch)}


def layer_norm(x, gamma, beta, *, axis=-1, epsilon=1e-5):
    batch, options = trailing_axes(x, axis, epsilon)
    [y] = ck.layer_norm(batch, gamma, beta, **options)
    # Of its statistics the library returns a batch norm's: to it, what is normalised together is a channel.
    outer = x.shape[: axis % x.ndim]
    _, mean, var = ck.batch_norm_train(x.reshape(1, math.prod(outer), -1), None, None, layout="NCW")
    shape = (*outer, *[1] * (x.ndim - len(outer)))
    return y, mean.reshape(shape), (1 / np.sqrt(var + epsilon)).reshape(shape)


def rms_norm(x, gamma, *, axis=-1, epsilon=1e-5):
    batch, options = trailing_axes(x, axis, epsilon)
    [y] = ck.rms_norm(batch, gamma, **options)
    return y


def local_response_norm(x, *, size, **attributes):
    return ck.local_response_norm(x, size, **attributes, layout=layout(x))


def col2im(columns, image_shape, block_shape, **window):
    batch, rows, _ = columns.shape
    x_shape = (batch, rows // math.prod(block_shape), *image_shape)
    return ck.col2im(columns, x_shape=x_shape, kernel_size=block_shape, **geometry(len(image_shape), **window))


OPERATORS = {
    "AveragePool": average_pool,
    "BatchNormalization": batch_norm,
    "Col2Im": col2im,
    "Conv": conv,
    "ConvInteger": conv_integer,
    "ConvTranspose": conv_transpose,
    "GlobalAveragePool": lambda x: ck.global_pool(x, "mean", layout=layout(x)),
    "GlobalLpPool": lambda x, p=2: ck.global_pool(x, ck.lp(p), layout=layout(x)),
    "GlobalMaxPool": lambda x: ck.global_pool(x, "max", layout=layout(x)),
    "GroupNormalization": group_norm,
    "InstanceNormalization": instance_norm,
    "LRN": local_response_norm,
    "LayerNormalization": layer_norm,
    "LpPool": lp_pool,
    "MaxPool": max_pool,
    "MaxUnpool": max_unpool,
    "RMSNormalization": rms_norm,
}
RESHAPING = {
    "Squeeze": lambda x, axes: np.squeeze(x, tuple(axes)),
    "Unsqueeze": lambda x, axes: np.expand_dims(x, tuple(axes)),
}
"""What some models put around a pool of one axis."""


@dataclass(frozen=True, eq=False)
class Case:
    """A model's graph, and the folder of its inputs and outputs."""

    graph: Any
    folder: Path

    @classmethod
    def read(cls, path: Path) -> Case:
        """The case of a model, which has one set of data."""
        [folder] = path.parent.glob("test_data_set_*")
        return cls(onnx.load(path).graph, folder)

    @property
    def operators(self) -> set[str]:
        """The model's, as far as they are the library's."""
        return {node.op_type for node in self.graph.node} & OPERATORS.keys()

    def tensors(self, kind: str) -> list[Array]:
        """The inputs or the outputs, in the graph's order."""
        return [onnx.numpy_helper.to_array(onnx.load_tensor(path)) for path in sorted(self.folder.glob(f"{kind}_*.pb"))]

    def run(self) -> list[Array]:
        """What the library makes of the inputs."""
        values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in self.graph.initializer}
        given = [value.name for value in self.graph.input if value.name not in values]
        values.update(zip(given, self.tensors("input"), strict=True))
        for node in self.graph.node:
            attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
            results = (OPERATORS | RESHAPING)[node.op_type](*(values[name] for name in node.input), **attributes)
            results = results if isinstance(results, tuple) else (results,)
            values.update(zip(node.output, results, strict=False))  # a node may leave out its last outputs
        return [values[value.name] for value in self.graph.output]


def read_cases() -> dict[str, Case]:
    """Every case by its name, whatever its operators."""
    paths = [path for folder in FOLDERS for path in sorted((DATA / folder).glob("*/model.onnx"))]
    return {path.parent.name.removeprefix("test_"): Case.read(path) for path in paths}
