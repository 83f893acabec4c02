"""Convolutions, pools and norms: ONNX Runtime's operators agree with ours, which may lie in any layout.

The problems and their data are those of the kit. Whole numbers must come out equal, other results within the kit's
bounds on rounding, twice, for either may be off. ONNX has no word for cutting a border off: that is done beforehand.
"""

from __future__ import annotations

import numpy as np
import pytest
from peers.agreement import agree, every_rank, fuzz, ours, saw

from convkernels.testing.bounds import error_bounds
from convkernels.testing.problems import problems

REASON = "compared with only where it is installed"
onnxruntime = pytest.importorskip("onnxruntime", reason=REASON)
helper = pytest.importorskip("onnx.helper", reason=REASON)

FLOAT = ("float32",)
OPSET = 23
PEER = "(ONNX Runtime)"


def operator(name, inputs, outputs=1, **attributes):
    """The results of one operator; an input of None is left out."""
    given = {f"x{place}": array for place, array in enumerate(inputs) if array is not None}
    places = [f"x{place}" if array is not None else "" for place, array in enumerate(inputs)]
    results = [f"y{place}" for place in range(outputs)]
    node = helper.make_node(name, places, results, **attributes)
    entries = [
        helper.make_tensor_value_info(key, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for key, array in given.items()
    ]
    # The types of the results are inferred.
    exits = [helper.make_empty_tensor_value_info(key) for key in results]
    graph = helper.make_graph([node], name, entries, exits)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {key: np.ascontiguousarray(array) for key, array in given.items()})


def cropped(problem):
    """The input without the cells that negative padding cuts off."""
    x = problem.arrays["x"]
    sizes = zip(problem.spec.window.padding, x.shape[2:], strict=True)
    return x[(..., *(slice(max(0, -lo), size - max(0, -hi)) for (lo, hi), size in sizes))]


def attributes(window, padding):
    """A window as ONNX says it."""
    return {
        "kernel_shape": window.kernel_size,
        "strides": window.stride,
        "dilations": window.dilation,
        "pads": [max(0, end) for side in zip(*padding, strict=True) for end in side],
    }


def compare(function, problem, theirs, **options):
    """Hold our first result to theirs."""
    got = ours(function, problem, **options)
    window = getattr(problem.spec, "window", None)
    if window is not None:
        saw({"strided": max(window.stride) > 1, "dilated": max(window.dilation) > 1})
    bound = 0 if problem.exact else 2 * error_bounds(problem, tile=True)["out"]
    bound = np.reshape(bound, got.shape) if np.ndim(bound) else bound
    agree(function + PEER, (got,), (theirs,), (bound,))


@every_rank
@fuzz
def test_convolution(rank, data):
    problem = data.draw(problems("conv", rank=rank, dtypes=FLOAT, padding_modes=()))
    spec, given = problem.spec, problem.arrays
    saw({"grouped": spec.groups > 1, "bias": spec.bias})
    window = attributes(spec.window, spec.window.padding)
    (y,) = operator("Conv", [cropped(problem), given["w"], given["b"]], **window, group=spec.groups)
    compare(f"conv{rank}d", problem, y)


def known_to_onnxruntime(problem):
    """Whether a transposed convolution is one that ONNX Runtime has."""
    spec = problem.spec
    steps = zip(spec.output_padding, spec.window.stride, strict=True)
    return min(map(min, spec.padding)) >= 0 and all(extra < step for extra, step in steps)


@every_rank
@fuzz
def test_transposed_convolution(rank, data):
    """ONNX has no negative padding, and its runtime no output padding as large as the stride."""
    problem = data.draw(problems("conv_transpose", rank=rank, dtypes=FLOAT).filter(known_to_onnxruntime))
    spec, given = problem.spec, problem.arrays
    saw({"grouped": spec.groups > 1, "bias": spec.bias, "output padding": any(spec.output_padding)})
    window = attributes(spec.window, spec.padding)
    extra = {"group": spec.groups, "output_padding": spec.output_padding}
    (y,) = operator("ConvTranspose", [given["x"], given["w"], given["b"]], **window, **extra)
    compare(f"conv_transpose{rank}d", problem, y)


def pool_known_to_onnxruntime(problem):
    """Whether a pool is one that ONNX Runtime has."""
    window = problem.spec.window
    ends = zip(window.padding, window.kernel_size, strict=True)
    return problem.spec.divisor_override is None and all(max(pair) < taps for pair, taps in ends)


@every_rank
@pytest.mark.parametrize("reducer", ["max", "mean", "lp2"])
@fuzz
def test_pool(reducer, rank, data):
    """ONNX has no divisor of one's own, and its runtime pads by less than there are taps."""
    drawn = problems("pool", rank=rank, dtypes=FLOAT, reducers=(reducer,), padding_modes=())
    problem = data.draw(drawn.filter(pool_known_to_onnxruntime))
    spec = problem.spec
    window = {**attributes(spec.window, spec.window.padding), "ceil_mode": int(spec.window.ceil_mode)}
    saw({"ceil": spec.window.ceil_mode, "padding counts": spec.count_include_pad})
    if reducer == "mean":
        window["count_include_pad"] = int(spec.count_include_pad)
    elif reducer == "lp2":
        window["p"] = 2
    name = {"max": "MaxPool", "mean": "AveragePool", "lp2": "LpPool"}[reducer]
    (y,) = operator(name, [cropped(problem)], **window)
    compare(f"pool{rank}d", problem, y)


def coefficient(problem, role, size):
    """A coefficient for each channel, which ONNX always takes."""
    given = problem.arrays[role]
    return np.full(size, role == "gamma", np.float32) if given is None else given.reshape(-1)


@pytest.mark.parametrize("kind", ["batch", "instance"])
@fuzz
def test_norm(kind, data):
    """ONNX Runtime's group norm is no peer: it loses the variance of data far from 0, as `docs/findings.md` shows."""
    operation = "batch_norm" if kind == "batch" else "group_norm"
    drawn = problems(operation, ("reals",), dtypes=FLOAT)
    problem = data.draw(drawn.filter(lambda problem: problem.spec.kind == kind))
    spec, given = problem.spec, problem.arrays
    x = given["x"].reshape(spec.shape)
    name = {"batch": "BatchNormalization", "instance": "InstanceNormalization"}[kind]
    inputs = [x, *(coefficient(problem, role, x.shape[1]) for role in ("gamma", "beta"))]
    if kind == "batch":
        inputs += [given[role].reshape(-1) for role in ("mean", "var")]
    (y,) = operator(name, inputs, epsilon=spec.eps)
    compare(f"{kind}_norm", problem, y)
