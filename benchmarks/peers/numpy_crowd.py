"""Forward convolution against what else runs on NumPy alone, one thread, float32, NCHW, one image.

- *plain im2col*: the windows of the whole batch copied into a matrix, then one product a group;
- *onnx reference*: Conv of `onnx.reference.ReferenceEvaluator`;
- *scipy.signal*: `correlate` of each filter with its channels, strided outputs picked from all;
- *one product*: no convolution at all but the matrix product that im2col needs, whose operands lie ready.

A layer from the middle of each kind's costs; ratios are their times over ours ("auto"), and over our "im2col"::

    python benchmarks/peers/numpy_crowd.py
"""

from __future__ import annotations

import os

for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ[variable] = "1"

from collections.abc import Callable
from functools import partial
from statistics import median

import numpy as np
import scipy.signal
from onnx.reference import ReferenceEvaluator
from rich.console import Console
from rich.progress import track
from rich.table import Table

from convkernels.cli.bench import onnx_model, ours
from convkernels.cli.bench.cells import Cell, Selection
from convkernels.cli.bench.problems import DENSE, sample
from convkernels.cli.bench.task import Task
from convkernels.cli.bench.timing import Rules, race
from convkernels.cli.bench.timing import sample as seconds_of

KINDS = (*DENSE, "depthwise")
PATIENCE = 1.0
"""Seconds of a run from which on that one run is all there is."""
RULES = Rules(alternations=5, repeats=1)


def padded(task: Task) -> np.ndarray:
    """The input with its zeros; cells that no window reaches, written as negative padding, are left."""
    pairs = [(lo, max(0, hi)) for lo, hi in task.spec.window.padding]
    return np.pad(task.arrays["x"], ((0, 0), (0, 0), *pairs))


def plain_im2col(task: Task) -> np.ndarray:
    """Copy the windows of all images at once, and multiply."""
    spec, window, w = task.spec, task.spec.window, task.arrays["w"]
    extent = tuple(d * (k - 1) + 1 for k, d in zip(window.kernel_size, window.dilation, strict=True))
    views = np.lib.stride_tricks.sliding_window_view(padded(task), extent, axis=(2, 3))
    (down, across), (low, aside), (height, width) = window.stride, window.dilation, window.out_size
    views = views[:, :, ::down, ::across, ::low, ::aside][:, :, :height, :width]
    columns = views.transpose(1, 4, 5, 0, 2, 3).reshape(spec.groups, spec.group_in * window.taps, -1)
    rows = w.reshape(spec.groups, spec.group_out, -1)
    product = (rows @ columns).reshape(spec.out_channels, spec.batch, height, width)
    return np.ascontiguousarray(product.swapaxes(0, 1))


def scipy_signal(task: Task) -> np.ndarray:
    """Correlate each image with each filter."""
    spec, window, x = task.spec, task.spec.window, padded(task)
    extent = [d * (k - 1) + 1 for k, d in zip(window.kernel_size, window.dilation, strict=True)]
    spread = np.zeros((*task.arrays["w"].shape[:2], *extent), x.dtype)
    spread[:, :, :: window.dilation[0], :: window.dilation[1]] = task.arrays["w"]
    y = np.empty(spec.y_shape, x.dtype)
    for image, filters in np.ndindex(*y.shape[:2]):
        group = filters // spec.group_out * spec.group_in
        every = scipy.signal.correlate(x[image, group : group + spec.group_in], spread[filters], mode="valid")[0]
        y[image, filters] = every[:: window.stride[0], :: window.stride[1]][: y.shape[2], : y.shape[3]]
    return y


def one_product(task: Task) -> Callable[[], np.ndarray]:
    """The product alone."""
    spec, window = task.spec, task.spec.window
    depth, positions = spec.group_in * window.taps, spec.batch * int(np.prod(window.out_size))
    rows = np.ones((spec.groups, spec.group_out, depth), np.float32)
    return partial(np.matmul, rows, np.ones((spec.groups, depth, positions), np.float32))


def onnx_reference(task: Task) -> Callable[[], np.ndarray]:
    """The evaluator's run, ready to be called."""
    model = onnx_model.make(task)
    run = ReferenceEvaluator(model.text).run
    return lambda: run(None, {"x": model.x})[0]


def compare(task: Task) -> dict[str, float]:
    """Seconds by name; every result was held against ours."""
    mine = ours.contestant(task, "NCHW", "default", 1)
    runs = {
        "convkernels": mine.run,
        "convkernels, im2col": ours.contestant(task, "NCHW", "default", 1, "im2col").run,
        "plain im2col": partial(plain_im2col, task),
        "onnx reference": onnx_reference(task),
        "scipy.signal": partial(scipy_signal, task),
    }
    (expected,) = mine.canonical(mine.run())
    seconds = {}
    for name, run in runs.items():
        np.testing.assert_allclose(run(), expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max(), err_msg=name)
        seconds[name] = seconds_of(run)
    runs["one product"] = one_product(task)
    quick = {name: run for name, run in runs.items() if seconds.get(name, 0.0) < PATIENCE}
    return seconds | {name: median(found) for name, found in race(quick, RULES).medians.items()}


def main() -> None:
    """Print a line for each layer."""
    peers = ("plain im2col", "onnx reference", "scipy.signal", "one product")
    table = Table(title="Times over ours, forward, float32, one thread", title_justify="left")
    table.add_column("Problem", overflow="fold")
    for header in ("ours", "im2col", *peers, "product / im2col"):
        table.add_column(header, justify="right")
    for layer in track(Selection(kinds=KINDS, each=1).layers(sample()), console=Console(stderr=True), transient=True):
        found = compare(Task.make(Cell(layer, "forward", "float32", 1, 1)))
        mine, columns = found["convkernels"], found["convkernels, im2col"]
        ratios = (f"{found[peer] / mine:.2f}" for peer in peers)
        own = f"{1e3 * mine:.2f} ms", f"{1e3 * columns:.2f} ms"
        table.add_row(layer.problem, *own, *ratios, f"{found['one product'] / columns:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
