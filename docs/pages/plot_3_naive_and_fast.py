"""
Loops and what is faster
========================

The definition in Python loops against this package's other strategies, forward and backward, on one of the course's
problems: x (N, 3, 31, 31), w (25, 3, 3, 3), stride 2, padding 1. Here N is 4, for the loops take long; the figures are
those of the machine that built this site.
"""

from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np

from convkernels.courses import cs231n

rng = np.random.default_rng(0)
x, w, b = rng.normal(size=(4, 3, 31, 31)), rng.normal(size=(25, 3, 3, 3)), rng.normal(size=25)
PROBLEMS = {
    "conv": ((x, w, b, {"stride": 2, "pad": 1}), rng.normal(size=(4, 25, 16, 16))),
    "max_pool": (
        (rng.normal(size=(4, 3, 32, 32)), {"pool_height": 2, "pool_width": 2, "stride": 2}),
        rng.normal(size=(4, 3, 16, 16)),
    ),
}


def timed(function, *arguments):
    """The best of some runs, and the result."""
    times = []
    for _ in range(1 if function.__name__.endswith("naive") else 5):
        start = perf_counter()
        result = function(*arguments)
        times.append(perf_counter() - start)
    return min(times), result


# %%
# Each backward gets the cache of its own forward. What both compute agrees to rounding.
rows = []
for name, (arguments, dout) in PROBLEMS.items():
    found = {}
    for variant in ("naive", "im2col", "strides", "fast"):
        forward, backward = (getattr(cs231n, f"{name}_{way}_{variant}") for way in ("forward", "backward"))
        seconds, (out, cache) = timed(forward, *arguments)
        back_seconds, gradients = timed(backward, dout, cache)
        first = gradients[0] if isinstance(gradients, tuple) else gradients
        found[variant] = (seconds, back_seconds, out, first)
        gap = max(np.abs(found[variant][place] - found["naive"][place]).max() for place in (2, 3))
        rows.append((name, variant, seconds, back_seconds))
        times = f"forward {1000 * seconds:8.2f} ms, backward {1000 * back_seconds:8.2f} ms"
        print(f"{name:8} {variant:7} {times}, largest difference {gap:.1e}")

# %%
# Times on a logarithmic scale: a step is a factor of ten.
figure, places = plt.subplots(1, 2, figsize=(10, 3.5), layout="constrained", sharey=True)
for axes, name in zip(places, PROBLEMS, strict=True):
    chosen = [row for row in rows if row[0] == name]
    spots = np.arange(len(chosen))
    axes.bar(spots - 0.2, [1000 * row[2] for row in chosen], 0.4, label="forward")
    axes.bar(spots + 0.2, [1000 * row[3] for row in chosen], 0.4, label="backward")
    axes.set_xticks(spots, [row[1] for row in chosen])
    axes.set(title=name, yscale="log", ylabel="ms")
    axes.legend()
plt.show()
