"""Speed by the definition's and the machine's, memory, and error."""

from math import prod

import numpy as np

import convkernels as ck

from .calls import prepared, seconds
from .problems import CONVOLUTIONS, CONVOLVED, GRADIENTS, NORMS, POOLS, SMALL, TRANSPOSED

STRATEGIES = [*CONVOLVED, "numpy"]
"""Of any operation."""


class AgainstTheDefinition:
    """How many times faster than Python loops."""

    params = (SMALL, GRADIENTS, CONVOLVED)
    param_names = ("problem", "direction", "strategy")
    timeout = 300

    def setup(self, problem, direction, strategy):
        self.run = prepared(problem, direction, strategy, "channels_first", "float32")
        self.definition = prepared(problem, direction, "naive", "channels_first", "float32", warm=False)

    def track_ratio_to_naive(self, problem, direction, strategy):
        return seconds(self.definition, 1) / seconds(self.run, 51)

    track_ratio_to_naive.unit = "ratio"


class AgainstThePeak:
    """The share of what this machine can do: the register tile in the first-level cache, or a copy of large arrays."""

    params = ([*CONVOLUTIONS, *TRANSPOSED, *POOLS, *NORMS], GRADIENTS)
    param_names = ("problem", "direction")

    def setup(self, problem, direction):
        try:
            from convkernels.cli.bench import machine  # noqa: PLC0415  # commits before this one lack it
        except ImportError as missing:
            raise NotImplementedError(str(missing)) from None
        operation, spec = ck.parse_problem(problem)
        if operation.startswith("conv"):
            self.unit, self.amount = "GFLOP/s", spec.flops
        else:
            self.unit, self.amount = "GB/s", 4 * (prod(spec.x_shape) + prod(spec.y_shape))
        self.peak = machine.peak(self.unit, "float32", 1)
        if self.peak is None:
            raise NotImplementedError("the tile needs Numba")
        self.run = prepared(problem, direction, "auto", "channels_last", "float32")

    def track_share_of_peak(self, problem, direction):
        return self.amount / seconds(self.run, 15) / 1e9 / self.peak

    track_share_of_peak.unit = "share"


class Error:
    """The largest error of a result in units of eps times the largest result, against float64."""

    params = ([*CONVOLUTIONS, *TRANSPOSED, *POOLS[2:], *NORMS], [*GRADIENTS, "backward"], STRATEGIES)
    param_names = ("problem", "direction", "strategy")

    def setup(self, problem, direction, strategy):
        self.run = prepared(problem, direction, strategy, "channels_first", "float32")
        self.exact = prepared(problem, direction, "auto", "channels_first", "float64")

    def track_error(self, problem, direction, strategy):
        exact = first(self.exact())
        scale = np.finfo(np.float32).eps * np.abs(exact).max()
        return float(np.abs(first(self.run()) - exact).max() / scale)

    track_error.unit = "eps"


class Memory:
    """The memory of a process that runs one, and of one that only prepares to."""

    params = ([*CONVOLUTIONS[:3], POOLS[0], NORMS[1]], STRATEGIES)
    param_names = ("problem", "strategy")

    def setup(self, problem, strategy):
        # What is loaded with the first call of all is not this call's.
        prepared(SMALL[0], "forward", "auto", "channels_first", "float32")
        self.run = prepared(problem, "forward", strategy, "channels_first", "float32", warm=False)

    def peakmem_run(self, problem, strategy):
        self.run()

    def peakmem_setup(self, problem, strategy):
        pass


def first(result):
    """The result itself, where statistics come with it, or the gradient of `x`."""
    return result[0] if isinstance(result, tuple) else result
