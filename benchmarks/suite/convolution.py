"""Convolution: the three operations by every strategy, in both common layouts, on layers of well-known networks."""

import os

for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

from statistics import median
from time import perf_counter

import numpy as np

import convkernels as ck

from .calls import ORDERS, convolution

PROBLEMS = [
    "n1g1i64o64_in56x56_k3x3_s1x1_p1+1x1+1_d1x1",  # ResNet-50
    "n1g1i3o64_in224x224_k7x7_s2x2_p3+2x3+2_d1x1",  # GoogLeNet's stem
    "n1g1i256o512_in28x28_k1x1_s2x2_p0+-1x0+-1_d1x1",  # ResNet-50's shortcut
    "n1g128i128o128_in56x56_k3x3_s1x1_p1+1x1+1_d1x1",  # MobileNet, depthwise
    "n1g1i32o32_in8435_k2_s1_p0+0_d1",  # WaveNet
    "n1g1i16o32_in8x28x28_k3x3x3_s1x1x1_p1+1x1+1x1+1_d1x1x1",  # I3D
]
SMALL = [
    "n1g1i16o12_in32x32_k3x3_s1x1_p1+1x1+1_d1x1",  # DenseNet
    "n1g1i192o16_in28x28_k1x1_s1x1_p0+0x0+0_d1x1",  # GoogLeNet, before its 5x5
]
"""Of which the definition, in Python loops, comes to an end."""
STRATEGIES = ["direct", "im2col", "stride_tricks"]
DIRECTIONS = ["forward", "input_grad", "weight_grad"]


class Time:
    """Each operation."""

    params = (PROBLEMS, DIRECTIONS, STRATEGIES, ORDERS)
    param_names = ("problem", "direction", "strategy", "order")
    dtype = "float32"

    def setup(self, problem, direction, strategy, order):
        self.run = convolution(problem, direction, strategy, order, self.dtype)

    def time_run(self, problem, direction, strategy, order):
        self.run()


class TimeFloat64(Time):
    """Some of them in the other type."""

    params = (PROBLEMS[:2], DIRECTIONS, STRATEGIES, ORDERS)
    dtype = "float64"


class Memory:
    """The memory of a process that runs one, and of one that only prepares to."""

    params = (PROBLEMS[:3], STRATEGIES)
    param_names = ("problem", "strategy")

    def setup(self, problem, strategy):
        # What is loaded with the first call of all is not this call's.
        convolution(SMALL[0], "forward", strategy, "channels_first", "float32")
        self.run = convolution(problem, "forward", strategy, "channels_first", "float32", warm=False)

    def peakmem_run(self, problem, strategy):
        self.run()

    def peakmem_setup(self, problem, strategy):
        pass


class AgainstTheDefinition:
    """How many times faster than Python loops."""

    params = (SMALL, DIRECTIONS)
    param_names = ("problem", "direction")
    timeout = 300

    def setup(self, problem, direction):
        self.run = convolution(problem, direction, "auto", "channels_first", "float32")
        self.definition = convolution(problem, direction, "naive", "channels_first", "float32")

    def track_ratio_to_naive(self, problem, direction):
        return seconds(self.definition, 1) / seconds(self.run, 51)

    track_ratio_to_naive.unit = "ratio"


class AgainstThePeak:
    """The share of what the register tile does on data that stay in the first-level cache."""

    params = (PROBLEMS, DIRECTIONS)
    param_names = ("problem", "direction")

    def setup(self, problem, direction):
        try:
            from convkernels.cli.bench import machine  # noqa: PLC0415  # commits before this one lack it
        except ImportError as missing:
            raise NotImplementedError(str(missing)) from None
        self.peak = machine.peak("GFLOP/s", "float32", 1)
        if self.peak is None:
            raise NotImplementedError("the tile needs Numba")
        self.run = convolution(problem, direction, "auto", "channels_last", "float32")

    def track_share_of_peak(self, problem, direction):
        return ck.parse_problem(problem)[1].flops / seconds(self.run, 15) / 1e9 / self.peak

    track_share_of_peak.unit = "share"


class Error:
    """The largest error, in units of eps times the largest result."""

    params = (PROBLEMS, DIRECTIONS, STRATEGIES)
    param_names = ("problem", "direction", "strategy")

    def setup(self, problem, direction, strategy):
        self.run = convolution(problem, direction, strategy, "channels_first", "float32")
        self.exact = convolution(problem, direction, "im2col", "channels_first", "float64")

    def track_error(self, problem, direction, strategy):
        exact = self.exact()
        scale = np.finfo(np.float32).eps * np.abs(exact).max()
        return float(np.abs(self.run() - exact).max() / scale)

    track_error.unit = "eps"


def seconds(run, count):
    """The median of so many runs."""
    taken = []
    for _ in range(count):
        start = perf_counter()
        run()
        taken.append(perf_counter() - start)
    return median(taken)
