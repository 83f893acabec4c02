"""The machine: what it is, what is installed, and how fast it could be."""

from __future__ import annotations

import ctypes
import hashlib
import math
import platform
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

import convkernels
from convkernels.kernels.compiled import available
from convkernels.kernels.compiled.scratch import LINE
from convkernels.layout import Array

from .cells import processors
from .contestant import Peer
from .task import FOR_MEMORY, FOR_MULTIPLICATIONS
from .timing import sample

TRIES = 15
DEPTH, TAPS = 128, 512
"""Of the tile that is run for the peak: its panels stay in the first-level cache."""
COPIED = 64 * 2**20
"""Bytes that are copied for the peak of the memory: more than caches hold."""


def environment(peers: Iterable[Peer]) -> dict[str, str]:
    """What a figure depends on."""
    found = {
        "processor": processor(),
        "processors": str(processors()),
        "platform": platform.platform(),
        "Python": platform.python_version(),
        "NumPy": np.__version__,
        "Numba": _numba(),
        "convkernels": convkernels.__version__,
        "source": source(),
    }
    return found | {peer.name: peer.version() for peer in peers}


def processor() -> str:
    """Its name as the system gives it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


@cache
def source() -> str:
    """A digest of the package's code without its command line, by which figures of different states are told apart."""
    root = Path(convkernels.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        if path.relative_to(root).parts[0] not in ("cli", "testing"):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _numba() -> str:
    if available.missing():
        return "not installed"
    from importlib.metadata import version  # noqa: PLC0415  # slow to import

    return version("numba")


_peaks: dict[tuple[str, str, int], float | None] = {}


def peak(unit: str, dtype: str, threads: int) -> float | None:
    """The most that this machine does of a unit, in billions a second; measured when it is first asked for."""
    key = (unit, dtype if unit == FOR_MULTIPLICATIONS else "", threads)
    if key not in _peaks:
        _peaks[key] = _measured_peak(*key)
    return _peaks[key]


def peaks() -> dict[str, float]:
    """The peaks that were measured, by names such as "GFLOP/s float32 1t"."""
    return {
        " ".join(filter(None, (unit, dtype, f"{threads}t"))): found
        for (unit, dtype, threads), found in _peaks.items()
        if found is not None
    }


def _measured_peak(unit: str, dtype: str, threads: int) -> float | None:
    """Multiply-adds of the register tile, or bytes read and written."""
    if unit == FOR_MULTIPLICATIONS:
        return None if available.missing() else _best(*_tile(np.dtype(dtype)), threads)
    assert unit == FOR_MEMORY
    return _best(*_copy(threads), threads)


def _best(make: Callable[[], Callable[[], Any]], amount: float, threads: int) -> float:
    """Billions a second of the best of some tries, all threads at once."""
    runs = [make() for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:

        def together() -> None:
            list(pool.map(lambda run: run(), runs))

        together()
        return threads * amount / min(sample(together) for _ in range(TRIES)) / 1e9


def _tile(dtype: np.dtype[Any]) -> tuple[Callable[[], Callable[[], Any]], float]:
    """Runs of the widest tile on small panels, and its operations."""
    from convkernels.kernels.compiled import isa, tile  # noqa: PLC0415  # parts of the extra

    host, size, vectors = isa.host(), dtype.itemsize, 2
    shape = tile.Shape(host.rows(vectors), vectors, size, masked=False)
    wide = vectors * host.lanes(size)
    function = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * len(tile.ARGUMENTS))(tile.address(shape, host))

    def make() -> Callable[[], Any]:
        a, b, c = (aligned(sizes, dtype) for sizes in ((shape.rows, DEPTH), (DEPTH, wide), (shape.rows, wide)))
        offsets = np.zeros(TAPS, np.int64)
        numbers = {"a": a, "b": b, "c": c, "init": c, "a_offsets": offsets, "b_offsets": offsets}
        given = {name: array.ctypes.data for name, array in numbers.items()}
        given |= {"taps": TAPS, "depth": DEPTH, "columns": wide, "a_row": DEPTH * size, "a_depth": size}
        given |= dict.fromkeys(("b_depth", "c_row", "init_row"), wide * size)
        given |= {"b_ahead": tile.AHEAD * wide * size, "next_c": c.ctypes.data, "ahead": a.ctypes.data}
        given |= {"ahead_step": 0, "ahead_tap": 0}

        def run() -> tuple[Any, ...]:
            function(*(given[name] for name in tile.ARGUMENTS))
            return a, b, c, offsets  # whose memory is the tile's as long as it runs

        return run

    return make, 2 * shape.rows * wide * DEPTH * TAPS


def aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Zeros that begin where a line of the cache does: vectors across two lines take a tenth longer."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.zeros(size + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    return memory[start : start + size].view(dtype).reshape(shape)


def _copy(threads: int) -> tuple[Callable[[], Callable[[], Any]], float]:
    """Copies of large arrays, and the bytes that one reads and writes."""

    def make() -> Callable[[], Any]:
        target, source = (np.ones(COPIED // threads, np.uint8) for _ in range(2))
        return partial(np.copyto, target, source)

    return make, 2 * (COPIED // threads)
