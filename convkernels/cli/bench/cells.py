"""Cells: what is computed, by everyone alike; and the choice of those to measure."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from convkernels.config import PRECISIONS, Precision
from convkernels.errors import OptionError, one_of
from convkernels.layout import SPATIAL

from .problems import KINDS, Layer

DIRECTIONS = ("forward", "planned", "input_grad", "weight_grad", "backward")
"""A convolution has the first four, of which `planned` is forward by a plan, which has rearranged the weights as ONNX
Runtime's sessions have; of what else there is, all gradients together are `backward`.
"""
DTYPES = ("float32", "float64")
LAYOUTS = ("NCHW", "NHWC")
"""By their names in 2-D; of another rank the layout with the channels in the same place is meant."""
FEW = 2
"""Layers of each kind for those who will not wait."""


def directions_of(layer: Layer) -> tuple[str, ...]:
    """What can be measured of a layer."""
    return DIRECTIONS[:-1] if layer.operation.startswith("conv") else (DIRECTIONS[0], DIRECTIONS[-1])


def axes_of(layout: str, rank: int) -> str:
    """The layout of that rank with the channels in the same place.

    Examples
    --------
    >>> axes_of("NHWC", 1), axes_of("NCHW", 3)
    ('NWC', 'NCDHW')
    """
    return {"NCHW": "NC" + SPATIAL[rank], "NHWC": "N" + SPATIAL[rank] + "C"}[layout]


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Cell:
    """One problem in one direction on so many threads: what all contestants compute."""

    layer: Layer
    direction: str
    dtype: str
    batch: int
    threads: int

    @property
    def problem(self) -> str:
        """The problem string, batch and type included.

        Examples
        --------
        >>> Cell(Layer("pool:n1c4_in8_k2_s2_p0+0_d1_max", "net"), "forward", "float64", 8, 1).problem
        'pool:n8c4_in8_k2_s2_p0+0_d1_max_float64'
        """
        text = re.sub(r"^([a-z_]+:)?n\d+", rf"\g<1>n{self.batch}", self.layer.problem)
        return text if self.dtype == "float32" else f"{text}_{self.dtype}"

    def __str__(self) -> str:
        return f"{self.direction} {self.problem} {self.threads}t"


@dataclass(frozen=True)
class Selection:
    """Which cells are measured, and in which of our layouts and precisions.

    Parameters
    ----------
    kinds, directions, dtypes, batches, threads
        Which cells.
    layouts, precisions
        Which rows of each.
    each : int or None
        How many layers of each kind, spread over their costs; None for all.
    """

    kinds: Sequence[str] = KINDS
    directions: Sequence[str] = DIRECTIONS
    dtypes: Sequence[str] = DTYPES
    batches: Sequence[int] = (1, 8)
    threads: Sequence[int] = (1,)
    layouts: Sequence[str] = LAYOUTS
    precisions: Sequence[Precision] = ("default", "highest")
    each: int | None = None

    def __post_init__(self) -> None:
        allowed = {"kinds": KINDS, "directions": DIRECTIONS, "dtypes": DTYPES}
        for name, known in (allowed | {"layouts": LAYOUTS, "precisions": PRECISIONS}).items():
            for value in getattr(self, name):
                if value not in known:
                    raise OptionError(f"{name}: {value!r} must be one of {one_of(known, value)}")
        for count in self.threads:
            if not 1 <= count <= processors():
                raise OptionError(f"threads: {count} must be from 1 to {processors()}, the processors of this process")

    @classmethod
    def of(cls, full: bool, **chosen: Any) -> Selection:
        """Everything, or what takes minutes; but what was chosen (is not None) as chosen."""
        usual: dict[str, Any] = {"threads": tuple(sorted({1, min(2, processors())}))}
        if not full:
            usual = {"dtypes": ("float32",), "batches": (1,), "threads": (processors(),), "each": FEW}
            usual["directions"] = tuple(direction for direction in DIRECTIONS if direction != "planned")
        given = {name: tuple(dict.fromkeys(values)) for name, values in chosen.items() if values}
        return cls(**usual | given)

    def cells(self, layers: Iterable[Layer]) -> list[Cell]:
        """The cells, those of one layer together."""
        return [
            Cell(layer, direction, dtype, batch, threads)
            for layer in self.layers(layers)
            for direction, dtype, batch, threads in product(
                (direction for direction in directions_of(layer) if direction in self.directions),
                *(self.dtypes, self.batches, self.threads),
            )
        ]

    def layers(self, layers: Iterable[Layer]) -> list[Layer]:
        """Those of the kinds asked for; a few of each are from the middle of their costs."""
        chosen = []
        members: dict[str, list[Layer]] = {kind: [] for kind in self.kinds}
        for layer in layers:
            members.get(layer.kind, []).append(layer)
        for group in members.values():
            ordered = sorted(group, key=lambda layer: layer.spec.flops)
            count = len(ordered) if self.each is None else min(self.each, len(ordered))
            chosen += [ordered[(2 * place + 1) * len(ordered) // (2 * count)] for place in range(count)]
        return chosen
