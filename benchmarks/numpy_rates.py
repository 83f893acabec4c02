"""How near the NumPy strategies come to one matrix product, and how they compare with PyTorch; one thread.

For each 2-D problem of `problems.txt` with 64 or more channels a group, at batch 1:

- float32, NCHW and NHWC: the time of one `numpy.matmul` of the problem's own M = output channels, N = output positions,
  K = channels * taps (for each group), over the time of ``conv2d(strategy="im2col")``. The target is 0.75.
- float64: the time of PyTorch's conv2d over ours, in the same memory format and in the better of its two. The target
  is above 1.

Each figure is a ratio of medians of alternating runs in one process. Run it with::

    python benchmarks/numpy_rates.py            # all problems, about ten minutes; PyTorch where it is installed
    python benchmarks/numpy_rates.py --every 6  # each sixth problem
"""

import argparse
import os
from pathlib import Path
from time import perf_counter

for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np

import convkernels as ck
from convkernels.layout import Layout

try:
    import torch
except ImportError:
    torch = None

LAYOUTS = {"NCHW": Layout("OIHW", "OI"), "NHWC": Layout("HWIO", "OI")}


def problems():
    """The problems' strings with batch 1, each once."""
    lines = Path(__file__).with_name("problems.txt").read_text().splitlines()
    specs = (ck.parse_problem(line.split("\t")[0])[1] for line in lines if not line.startswith("#"))
    wide = (spec for spec in specs if spec.window.rank == 2 and spec.group_in >= 64)
    return list(dict.fromkeys(f"n1g{str(spec).split('g', 1)[1]}" for spec in wide))


def ratio(first, second, seconds):
    """The median time of `first` over that of `second`, run in turns, and the latter."""
    first(), second()
    times = [], []
    end = perf_counter() + seconds
    while perf_counter() < end or len(times[0]) < 5:
        for run, taken in zip((first, second), times, strict=True):
            start = perf_counter()
            run()
            taken.append(perf_counter() - start)
    return np.median(times[0]) / np.median(times[1]), np.median(times[1])


def against_matmul(spec, layout, seconds):
    """One matmul over im2col, float32, and our GFLOP/s."""
    x, w, options = arrays(spec, layout, np.float32)
    rows, depth, columns = spec.group_out, spec.group_in * spec.window.taps, int(np.prod(spec.window.out_size))
    rng = np.random.default_rng(0)
    left, right = (rng.random((spec.groups, *shape), np.float32) for shape in ((rows, depth), (depth, columns)))
    if layout == "NHWC":
        left, right = np.ascontiguousarray(right.swapaxes(1, 2)), np.ascontiguousarray(left.swapaxes(1, 2))
    product, y = left @ right, ck.conv2d(x, w, **options)
    found, time = ratio(
        lambda: np.matmul(left, right, out=product),
        lambda: ck.conv2d(x, w, **options, strategy="im2col", out=y),
        seconds,
    )
    return found, spec.flops / time / 1e9


def against_torch(spec, layout, seconds):
    """PyTorch over ours ("auto"), float64: in the same memory format, and in the better of its two."""
    x, w, options = arrays(spec, layout, np.float64)
    canonical_x, canonical_w = (
        torch.from_numpy(np.ascontiguousarray(chosen.view(array)))
        for chosen, array in ((Layout(layout), x), (LAYOUTS[layout], w))
    )
    (top, bottom), (left, right) = spec.window.padding
    # Cells that no window reaches, written as negative padding, make no difference to PyTorch's own count.
    trimmed = canonical_x[:, :, : spec.window.in_size[0] + min(bottom, 0), : spec.window.in_size[1] + min(right, 0)]
    padded = torch.nn.functional.pad(trimmed, (max(left, 0), max(right, 0), max(top, 0), max(bottom, 0)))
    even = top == bottom and left == right
    data, padding = (canonical_x, (top, left)) if even else (padded, 0)

    def run(memory_format):
        given = [array.contiguous(memory_format=memory_format) for array in (data, canonical_w)]
        return lambda: torch.nn.functional.conv2d(
            *given, stride=spec.window.stride, padding=padding, groups=spec.groups
        )

    y = ck.conv2d(x, w, **options)
    assert np.allclose(Layout(layout).view(y), run(torch.contiguous_format)().numpy())
    ours = lambda: ck.conv2d(x, w, **options, out=y)  # noqa: E731
    found = {kind: ratio(run(kind), ours, seconds)[0] for kind in (torch.contiguous_format, torch.channels_last)}
    same = torch.contiguous_format if layout == "NCHW" else torch.channels_last
    return found[same], min(found.values())


def arrays(spec, layout, dtype):
    """Data and weights in the layout's own order, and the options of the problem."""
    rng = np.random.default_rng(1)
    x = rng.random(Layout(layout).shape(spec.x_shape)).astype(dtype)
    w = rng.random(LAYOUTS[layout].shape(spec.w_shape)).astype(dtype)
    window = spec.window
    options = {"stride": window.stride, "padding": window.padding, "groups": spec.groups, "layout": layout}
    return x, w, options


def geometric_mean(ratios):
    """The mean that treats twice and half alike."""
    return float(np.exp(np.mean(np.log(ratios))))


def main():
    """Print a line a problem, then the geometric means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1, help="take each EVERY-th problem")
    parser.add_argument("--seconds", type=float, default=0.3, help="how long to measure each pair")
    parser.add_argument("--no-torch", action="store_true", help="only the matrix product")
    given = parser.parse_args()
    chosen = problems()[:: given.every]
    peers = torch is not None and not given.no_torch
    if torch is not None:
        torch.set_num_threads(1)
    found = {}
    print(f"{len(chosen)} problems; matmul/im2col float32 (GFLOP/s), PyTorch/ours float64")
    for problem in chosen:
        spec = ck.parse_problem(problem)[1]
        line = []
        for layout in LAYOUTS:
            value, rate = against_matmul(spec, layout, given.seconds)
            found.setdefault(("matmul", layout), []).append(value)
            line.append(f"{layout} {value:5.2f} ({rate:4.0f})")
            if peers:
                same, better = against_torch(spec, layout, given.seconds)
                found.setdefault(("PyTorch, same format", layout), []).append(same)
                found.setdefault(("PyTorch, better format", layout), []).append(better)
                line.append(f"{same:5.2f} {better:5.2f}")
        print(f"{problem:60} {'  '.join(line)}", flush=True)
    for (peer, layout), ratios in found.items():
        print(f"geometric mean {peer:22} {layout}: {geometric_mean(ratios):.3f}   worst {min(ratios):.2f}")


if __name__ == "__main__":
    main()
