"""What a network is made of: layer by layer its output's shape, parameters and operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..call import recording
from ..layout import Array
from ..window import per_axis
from .layer import Layer, watching


@dataclass(frozen=True)
class Row:
    """A layer: its name in the network, its kind, its output's shape, and its own parameters and operations."""

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    flops: int


@dataclass(frozen=True)
class Summary:
    """The rows of a network; it prints as a table.

    Parameters
    ----------
    rows : tuple of Row
        The layers that are not made of layers, in the order in which they run.
    """

    rows: tuple[Row, ...]

    @property
    def parameters(self) -> int:
        """How many numbers are learned."""
        return sum(row.parameters for row in self.rows)

    @property
    def flops(self) -> int:
        """The operations of a forward, a product and a sum being two."""
        return sum(row.flops for row in self.rows)

    def __str__(self) -> str:
        head = ("layer", "", "output", "parameters", "operations")
        lines = [(r.name, r.kind, str(r.shape), f"{r.parameters:,}", f"{r.flops:,}") for r in self.rows]
        lines.append(("all", "", "", f"{self.parameters:,}", f"{self.flops:,}"))
        widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if place < 3 else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in (head, *lines)
        )


def summary(net: Layer, input_shape: Sequence[int]) -> Summary:
    """Count a network's parameters and operations.

    Convolutions, pools and norms are not run for it: their specs say what they would compute.

    Parameters
    ----------
    net : Layer
        The network, which is left as it was.
    input_shape : sequence of int
        The shape of a batch.

    Returns
    -------
    Summary
        Prints as a table.

    Raises
    ------
    ConvkernelsError
        If the network does not take such a batch.

    Examples
    --------
    >>> from convkernels import nn
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10))
    >>> print(nn.summary(net, (1, 3, 8, 8)))
    layer           output        parameters  operations
    0      Conv2d   (1, 8, 8, 8)         224      27,648
    1      ReLU     (1, 8, 8, 8)           0         512
    2      Flatten  (1, 512)               0           0
    3      Linear   (1, 10)            5,130      10,240
    all                                5,354      38,400
    """
    given = tuple(input_shape)
    x: Array = np.zeros(per_axis("input_shape", given, len(given)), _dtype(net))
    names = {layer: name for name, layer in net.layers()}
    modes = {layer: layer.training for layer in names}
    rows: list[Row] = []

    def watch(layer: Layer, x: Array, y: Array) -> None:
        """Add a row; what was recorded since the last one is this layer's."""
        flops = layer.flops(x, y) + sum(call.spec.flops for call in calls)
        calls.clear()
        if flops or not any(layer.children()):
            own = sum(array.size for array in layer.params.values())
            rows.append(Row(names[layer], type(layer).__name__, y.shape, own, flops))

    try:
        net.eval()
        with recording() as calls, watching(watch):
            net(x)
    finally:
        for layer, mode in modes.items():
            layer.training, layer.vjp = mode, None
    return Summary(tuple(rows))


def _dtype(net: Layer) -> np.dtype[Any]:
    """The type of a network's numbers."""
    return next((parameter.value.dtype for parameter in net.parameters()), np.dtype(np.float32))
