"""What can be said of the compiled norms without compiling anything: whether they run, and in what memory."""

from __future__ import annotations

import math

from ...norm_spec import NormSpec
from .. import norms
from .available import missing

CLAIMS = norms.CLAIMS
ROOM = 16 * 2**20
"""Scratch bytes that are used if they may be; 4 MiB are enough for most problems."""
CELL_BYTES = 1200
"""Scratch bytes for a cell at most: sums and factors of tiny problems are larger than these."""


def supports(spec: NormSpec) -> str | None:
    """float32 and float64, where Numba and so LLVM is."""
    if spec.dtype.name not in ("float32", "float64"):
        return f"computes float32 and float64, not {spec.dtype.name}"
    return missing()


def workspace(spec: NormSpec, limit: int) -> int:
    """Scratch bytes at most, whatever the order of memory: NumPy's way, which is taken where this would need more."""
    cells = math.prod(spec.seen_shape)
    return max(norms.workspace(spec, limit), min(limit, ROOM, CELL_BYTES * cells))
