"""Layers of well-known networks as problem strings, and the kinds they are of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from typing import Any

from convkernels.norm_spec import NormSpec
from convkernels.pool_spec import PoolSpec
from convkernels.problem import parse_problem
from convkernels.spec import ConvSpec

KINDS = (
    *("1x1", "3x3", "narrow 3x3", "wide", "strided", "grouped or dilated", "stem", "depthwise", "1-D", "3-D"),
    *("transposed", "max pool", "average pool", "batch norm", "group norm", "layer norm"),
)
"""In the order in which they are told of: convolutions first."""

DENSE = ("1x1", "3x3", "narrow 3x3", "wide", "strided", "grouped or dilated", "stem")
"""The kinds of 2-D convolutions in which each output takes more than one channel."""

NARROW = 64
"""Channels, of the input or the output, below which a 3x3 convolution is a kind of its own."""


@dataclass(frozen=True)
class Layer:
    """A problem string for a batch of one in float32, and the network it is of."""

    problem: str
    source: str

    @cached_property
    def parsed(self) -> tuple[str, Any]:
        """The operation and the spec."""
        return parse_problem(self.problem)

    @property
    def operation(self) -> str:
        """What it computes."""
        return self.parsed[0]

    @property
    def spec(self) -> Any:
        """What it computes it on."""
        return self.parsed[1]

    @cached_property
    def kind(self) -> str:
        """One of `KINDS`."""
        return kind_of(self.spec)


def kind_of(spec: Any) -> str:
    """The kind of a problem: what decides how fast it can be."""
    if isinstance(spec, NormSpec):
        return f"{spec.kind} norm"
    if isinstance(spec, PoolSpec):
        return {"max": "max pool", "mean": "average pool"}[spec.reducer.name]
    return conv_kind(spec) if isinstance(spec, ConvSpec) else "transposed"


def conv_kind(spec: ConvSpec) -> str:
    """The kind of a convolution; the first that fits."""
    window = spec.window
    kinds = {
        f"{window.rank}-D": window.rank != 2,
        "depthwise": spec.groups > 1 and spec.group_in == 1,
        "grouped or dilated": spec.groups > 1 or max(window.dilation) > 1,
        "stem": spec.group_in <= 4,
        "strided": max(window.stride) > 1,
        "1x1": window.taps == 1,
        "narrow 3x3": window.kernel_size == (3, 3) and min(spec.group_in, spec.group_out) < NARROW,
        "3x3": window.kernel_size == (3, 3),
        "wide": True,
    }
    return next(kind for kind, fits in kinds.items() if fits)


def read(text: str) -> list[Layer]:
    """Layers from lines of a problem string, a tab and a source; # starts a comment."""
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return [Layer(*line.split("\t")) for line in lines]


def sample() -> list[Layer]:
    """The layers that the package brings along."""
    return read(resources.files(__package__).joinpath("problems.txt").read_text(encoding="utf-8"))
