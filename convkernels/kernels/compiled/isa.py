"""The processor's vectors: how wide, how many, and for which target to emit code.

The environment variable CONVKERNELS_ISA forces a narrower one, so that each is tested on one machine.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

from ...errors import OptionError, one_of


@dataclass(frozen=True)
class Isa:
    """An instruction set as code for it sees it.

    Parameters
    ----------
    name : str
        What CONVKERNELS_ISA calls it.
    vector_bytes, registers : int
        The width of a vector register, and how many there are.
    needs : tuple of str
        The processor features, in LLVM's names, without which it is not there.
    cpu : str
        The LLVM processor to emit for; of the host if empty.
    """

    name: str
    vector_bytes: int
    registers: int
    needs: tuple[str, ...]
    cpu: str

    def lanes(self, itemsize: int) -> int:
        """Elements in a vector."""
        return self.vector_bytes // itemsize

    @property
    def fused(self) -> bool:
        """Whether products are added to without being rounded."""
        return self.cpu != "generic"

    def rows(self, vectors: int) -> int:
        """The most rows of a tile of so many vectors: one register each, beside a row's vectors and one element."""
        return (self.registers - vectors - 1) // vectors


ISAS = (
    Isa("avx512", 64, 32, ("avx512f", "avx512vl", "avx512dq"), ""),
    Isa("avx2", 32, 16, ("avx2", "fma"), "haswell"),
    Isa("neon", 16, 32, ("neon",), ""),
    Isa("generic", 16, 16, (), "generic"),
)
"""Widest first; NEON is emitted but was never run, for want of such a machine."""


PAIRED = {"skylake-avx512", "cascadelake", "cooperlake", "icelake-server", "znver5"}
"""LLVM's names of processors with two units for multiply-adds of 64 bytes."""


@lru_cache(maxsize=8)
def find(forced: str) -> Isa:
    """The widest instruction set that the host has, or the one of that name."""
    from llvmlite import binding  # noqa: PLC0415  # part of the extra, and slow to import

    names = [isa.name for isa in ISAS]
    if forced and forced not in names:
        raise OptionError(f"CONVKERNELS_ISA={forced!r} must be one of {one_of(names, forced)}")
    features = binding.get_host_cpu_features()
    for isa in ISAS:
        if forced in ("", isa.name):
            if all(features.get(feature) for feature in isa.needs):
                return isa
            if forced:
                raise OptionError(f"CONVKERNELS_ISA={forced!r}: this processor has no {' or '.join(isa.needs)}")
    raise AssertionError("the generic one needs nothing")


def host() -> Isa:
    """The instruction set in use."""
    return find(os.environ.get("CONVKERNELS_ISA", ""))


@cache
def ways() -> int:
    """The lines in a set of the first-level cache, where the system tells; else 8, as in most processors."""
    try:
        return int(Path("/sys/devices/system/cpu/cpu0/cache/index0/ways_of_associativity").read_text())
    except (OSError, ValueError):
        return 8


@lru_cache(maxsize=8)
def paired(isa: Isa) -> bool:
    """Whether the host begins two multiply-adds of 64 bytes a cycle, as Intel's server processors do.

    All else takes the time of more of them there. A matrix unit tells of such a processor, or its name.
    """
    from llvmlite import binding  # noqa: PLC0415  # part of the extra, and slow to import

    features = binding.get_host_cpu_features()
    return isa is ISAS[0] and bool(features.get("amx-tile") or binding.get_host_cpu_name() in PAIRED)
