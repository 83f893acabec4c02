"""The course's comparison: x (100, 3, 31, 31), w (25, 3, 3, 3), stride 2, padding 1, float64, forward and backward.

Ours against PyTorch, in both its memory formats and where it is installed, and against the loop that the course's
write-ups begin with: for each image, filter and output a slice of the input times the filter, summed. Prints how many
times longer the others take::

    python benchmarks/course.py
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from statistics import median

import numpy as np
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

import convkernels as ck
from convkernels.cli.bench.cells import axes_of, processors
from convkernels.cli.bench.timing import Rules, race, sample
from convkernels.layout import Array, Layout

try:
    import torch
except ImportError:
    torch = None

STRIDE, PADDING = 2, 1
LAYOUTS = ("NCHW", "NHWC")
LOOP = "the write-ups' loop"

Runs = dict[str, Callable[[], object]]


def data() -> tuple[Array, ...]:
    """The course's arrays: x, w, b and dy."""
    normal = np.random.default_rng(0).standard_normal
    return normal((100, 3, 31, 31)), normal((25, 3, 3, 3)), normal(25), normal((100, 25, 16, 16))


def loop_forward(x: Array, w: Array, b: Array) -> Array:
    """The write-ups' forward pass."""
    x = np.pad(x, ((0, 0), (0, 0), (PADDING, PADDING), (PADDING, PADDING)))
    filters, _, rows, columns = w.shape
    height = (x.shape[2] - rows) // STRIDE + 1
    width = (x.shape[3] - columns) // STRIDE + 1
    y = np.zeros((len(x), filters, height, width))
    for n in range(len(x)):
        for f in range(filters):
            for i in range(height):
                for j in range(width):
                    window = x[n, :, i * STRIDE : i * STRIDE + rows, j * STRIDE : j * STRIDE + columns]
                    y[n, f, i, j] = np.sum(window * w[f]) + b[f]
    return y


def loop_backward(dy: Array, x: Array, w: Array) -> tuple[Array, Array, Array]:
    """The write-ups' backward pass."""
    x = np.pad(x, ((0, 0), (0, 0), (PADDING, PADDING), (PADDING, PADDING)))
    filters, _, rows, columns = w.shape
    dx, dw, db = np.zeros_like(x), np.zeros_like(w), np.zeros(filters)
    for n in range(len(x)):
        for f in range(filters):
            for i in range(dy.shape[2]):
                for j in range(dy.shape[3]):
                    place = np.s_[n, :, i * STRIDE : i * STRIDE + rows, j * STRIDE : j * STRIDE + columns]
                    dx[place] += dy[n, f, i, j] * w[f]
                    dw[f] += dy[n, f, i, j] * x[place]
                    db[f] += dy[n, f, i, j]
    return dx[:, :, PADDING:-PADDING, PADDING:-PADDING], dw, db


def ours(layout: str, threads: int) -> tuple[Runs, Callable[[object], list[Array]]]:
    """Our two passes in a layout, and how to see their results in canonical order."""
    x, w, b, dy = data()
    axes = Layout(axes_of(layout, 2))
    weights = Layout({"NCHW": "OIHW", "NHWC": "HWIO"}[layout], "OI")
    x, dy = (np.ascontiguousarray(axes.restore(array)) for array in (x, dy))
    w = np.ascontiguousarray(weights.restore(w))
    options = {"stride": STRIDE, "padding": PADDING, "layout": layout, "threads": threads}
    _, vjp = ck.conv2d_vjp(x, w, b, **options)

    def canonical(found: object) -> list[Array]:
        if not isinstance(found, tuple):
            return [axes.view(found)]
        return [axes.view(found[0]), weights.view(found[1]), found[2]]

    return {"forward": lambda: ck.conv2d(x, w, b, **options), "backward": lambda: vjp(dy)}, canonical


def pytorch(memory_format: str) -> Runs:
    """PyTorch's two passes."""
    formats = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
    tensors = [torch.from_numpy(array) for array in data()]
    x, w, b, dy = (t.contiguous(memory_format=formats[memory_format]) if t.ndim == 4 else t for t in tensors)
    geometry = ([STRIDE] * 2, [PADDING] * 2, [1, 1], False, [0, 0], 1)
    sizes, wanted = [len(b)], [True] * 3
    return {
        "forward": lambda: torch.convolution(x, w, b, *geometry),
        "backward": lambda: torch.ops.aten.convolution_backward(dy, x, w, sizes, *geometry, wanted),
    }


def check(name: str, found: list[Array], expected: list[Array]) -> None:
    """Nobody's speed counts whose result is wrong."""
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9, err_msg=name)


def compare(threads: int, expected: dict[str, list[Array]], rules: Rules) -> dict[str, dict[str, float]]:
    """Seconds of each contestant in each direction."""
    contestants: dict[str, Runs] = {}
    with ExitStack() as stack:
        stack.enter_context(threadpool_limits(limits=threads))
        if torch is not None:
            stack.enter_context(torch.inference_mode())
            torch.set_num_threads(threads)
            contestants = {f"PyTorch, {name}": pytorch(name) for name in ("contiguous", "channels last")}
        for name, runs in contestants.items():
            for direction, run in runs.items():
                made = run()
                listed = [made] if direction == "forward" else list(made)
                check(name, [tensor.numpy() for tensor in listed], expected[direction])
        for layout in LAYOUTS:
            runs, canonical = ours(layout, threads)
            for direction, run in runs.items():
                check(layout, canonical(run()), expected[direction])
            contestants[f"convkernels, {layout}"] = runs
        seconds: dict[str, dict[str, float]] = {name: {} for name in contestants}
        for direction in expected:
            times = race({name: runs[direction] for name, runs in contestants.items()}, rules)
            for name, medians in times.medians.items():
                seconds[name][direction] = median(medians)
    return seconds


def main() -> None:
    """Run the loop once, the rest in turns, and print both directions."""
    x, w, b, dy = data()
    expected: dict[str, list[Array]] = {}
    loop = {
        "forward": sample(lambda: expected.update(forward=[loop_forward(x, w, b)])),
        "backward": sample(lambda: expected.update(backward=list(loop_backward(dy, x, w)))),
    }
    table = Table(title="The course's comparison, float64: time, and how many times longer others take")
    table.add_column("Threads", justify="right")
    table.add_column("Who")
    for direction in ("forward", "backward"):
        for header in (direction, *(f"over {layout}" for layout in LAYOUTS)):
            table.add_column(header, justify="right")
    for threads in sorted({1, processors()}):
        seconds = compare(threads, expected, Rules())
        for name, found in ({LOOP: loop} | seconds).items():
            cells = [str(threads), name]
            for direction, taken in found.items():
                cells.append(f"{1e3 * taken:,.3f} ms")
                cells += [f"{taken / seconds[f'convkernels, {layout}'][direction]:,.2f}" for layout in LAYOUTS]
            table.add_row(*cells)
        table.add_section()
    Console().print(table)


if __name__ == "__main__":
    main()
