"""What can be said of compiled pools without Numba: whether they run, when, and in what memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from ...config import Resources
from ...layout import Array, Order
from ...pool_spec import PoolSpec
from ...reducers import builtin_reducer
from .available import missing
from .runs import margins
from .thread_count import usable

CLAIMS = frozenset({"exact_on_integers", "batch_invariant", "nan_strict", "bounded"})
REDUCERS = ("max", "min", "sum", "mean", "lp1", "lp2")
BITS = 64
"""The most taps whose winners fit a set."""
CELL = 16
"""Floating-point operations in the time in which memory gives one element: 110 GFLOP/s over 28 GB/s of float32."""
TARGET = 2**18
"""Bytes of codes to work on at a time, an eighth of the cache beside what is read and written."""
MOST = 2**16
"""Bytes of a buffer of rows at most."""
TURNED = 2**18
"""Bytes of planes that are turned at most, with what they are pooled to: 2**17 were as fast where these were enough."""
EACH = MOST + TURNED
"""Bytes of both at most."""
ROOM = 16 * EACH
"""Scratch bytes without which there are no buffers, whatever the threads: sums would depend on their number."""
SLACK = 64
"""Bytes that aligning an array may take."""
LANES = 64
"""Channels below which a block is rather cut elsewhere."""


def loaded(module: str = "pooling") -> Any:
    """A module that needs Numba."""
    return import_module(f".{module}", __package__)


NAME = "direct"
"""What the compiled implementations are called."""


@dataclass
class Winners:
    """Runs a pool of extrema and keeps where they stood, for its gradient need not find them again."""

    codes: Any = None

    def run(self, spec: PoolSpec, x: Array, *, out: Array, resources: Resources) -> None:
        """Run the pool."""
        self.codes = loaded().pool_keeping(spec, x, out=out, resources=resources)

    def grad(self, spec: PoolSpec, dy: Array, *forward: Array, out: Array, resources: Resources) -> None:
        """Run its gradient, without what went into the pool and came out."""
        assert len(forward) == 2, "x and y"
        loaded().pool_grad_kept(spec, dy, self.codes, out=out, resources=resources)

    def plan_grad(self, spec: PoolSpec, dy: Array, *forward: Array, out: Array, resources: Resources) -> Any:
        """Plan its gradient."""
        assert len(forward) == 2, "x and y"
        return loaded("pool_plans").pool_grad_kept(spec, dy, self.codes, out=out, resources=resources)


@dataclass
class Indices:
    """Runs a max pool that says where in its plane each maximum stands."""

    indices: Array
    written: bool = False

    def run(self, spec: PoolSpec, x: Array, *, out: Array, resources: Resources) -> None:
        """Run the pool."""
        loaded().pool_with_indices(spec, x, out=out, indices=self.indices, resources=resources)
        self.written = True


def family(spec: PoolSpec) -> str:
    """The reducer's name without its rule for ties."""
    return spec.reducer.name.partition("_")[0]


def rule(spec: PoolSpec) -> str:
    """The rule for ties."""
    return spec.reducer.name.partition("_ties-")[2] or "first"


def extreme(spec: PoolSpec) -> bool:
    """Whether the reducer chooses a cell."""
    return family(spec) in ("max", "min")


def supports(spec: PoolSpec) -> str | None:
    """The reducers that vectors compute, of numbers that they hold."""
    if family(spec) not in REDUCERS or builtin_reducer(spec.reducer.name) != spec.reducer:
        return f"reduces by {', '.join(REDUCERS)}, not by {spec.reducer.name!r}"
    kind, size = spec.compute_dtype.kind, spec.compute_dtype.itemsize
    if kind not in "iuf" or size > 8:
        return f"computes real numbers of at most 64 bits, not {spec.compute_dtype.name}"
    return missing()


def supports_grad(spec: PoolSpec) -> str | None:
    """The same, where the winners of a window that share have room."""
    if extreme(spec) and rule(spec) in ("split", "all") and spec.window.taps > BITS:
        return f"keeps the winners of at most {BITS} taps that tie, not of {spec.window.taps}"
    return supports(spec)


def prefers(spec: PoolSpec, order: Order) -> str | None:
    """Whatever it supports: 256 cells took 43 us, by NumPy 52, and backwards 52 us for 109."""
    return None


def work_of(spec: PoolSpec) -> int:
    """The time of a pool in floating-point operations: memory's, mostly."""
    return max(spec.flops, CELL * (math.prod(spec.x_shape) + math.prod(spec.y_shape)))


def code_size(spec: PoolSpec) -> int:
    """Bytes of the code of a window's winner."""
    if rule(spec) in ("split", "all"):
        return 4 if spec.window.taps <= BITS // 2 else 8
    return 1 if spec.window.taps < 2**8 else 4


@dataclass(frozen=True)
class Block:
    """How much of a gradient is worked on at a time: images, channels, and cells along the first spatial axis."""

    images: int
    channels: int
    cells: int


def takes(spec: PoolSpec, images: int, channels: int, cells: int) -> int:
    """Bytes of the codes of all windows that hold cells of a block."""
    window = spec.window
    outputs = len(margins(window, 0, slice(0, cells)))
    across = (len(margins(window, axis, slice(0, window.in_size[axis]))) for axis in range(1, window.rank))
    return images * channels * outputs * math.prod(across) * code_size(spec) + SLACK


def least(spec: PoolSpec) -> int:
    """Bytes of the smallest block's codes."""
    return takes(spec, 1, 1, spec.window.stride[0])


def pool_threads(spec: PoolSpec, wanted: int | None, limit: int) -> int:
    """How many threads to use, which is as many as there is room for the buffers of."""
    threads = usable(wanted, work_of(spec))
    return min(threads, limit // EACH) if limit >= ROOM else threads


def grad_threads(spec: PoolSpec, wanted: int | None, limit: int) -> int:
    """How many threads to use, which is as many as there is room for the codes of."""
    if not extreme(spec):
        return pool_threads(spec, wanted, limit)
    return max(1, min(usable(wanted, work_of(spec)), limit // least(spec)))


def block(spec: PoolSpec, batch: int, channels: int, limit: int, threads: int) -> Block:
    """The largest block whose codes stay in the cache, and within `limit` for all threads; a multiple of the stride."""
    step, rows = spec.window.stride[0], spec.window.in_size[0]
    room = min(TARGET, limit // threads)
    cells = -(-rows // step) * step
    while channels > LANES and takes(spec, 1, channels, cells) > room:
        channels = -(-channels // 2)
    while cells > step and takes(spec, 1, channels, cells) > room:
        cells = -(-(cells // step) // 2) * step
    while channels > 1 and takes(spec, 1, channels, cells) > room:
        channels = -(-channels // 2)
    images = max(1, min(-(-batch // threads), room // takes(spec, 1, channels, cells))) if cells >= rows else 1
    return Block(images, channels, cells)


def workspace(spec: PoolSpec, limit: int) -> int:
    """Scratch bytes at most of a pool: each thread's buffers, without which it also works."""
    return EACH * min(usable(None, work_of(spec)), limit // EACH) if limit >= ROOM else 0


def workspace_grad(spec: PoolSpec, limit: int) -> int:
    """Scratch bytes of a gradient: of extrema, the codes of each thread's block, in any order of memory."""
    if not extreme(spec):
        return workspace(spec, limit)
    fewest, threads = least(spec), grad_threads(spec, None, limit)
    every = takes(spec, max(1, spec.batch), spec.channels, spec.window.in_size[0])
    return threads * max(fewest, min(every, TARGET, limit // threads))
