"""The rule by which convolutions of `problems.txt` are chosen for comparison; prints the chosen lines.

Of the problems, made ones of a batch of one and each counted once, those of more than 8e9 operations are left out, for
a complete run has to end. Each kind (see `convkernels.cli.bench.problems.conv_kind`) then gives a fixed number, evenly
spaced in the order of operations, its cheapest and its dearest included: 60 in all. The choice stands in
`convkernels/cli/bench/problems.txt`, where a test holds it to this rule::

    python benchmarks/peers/sampling.py
"""

from __future__ import annotations

import re
from pathlib import Path

from convkernels.cli.bench.problems import Layer, read

QUOTAS = {
    "1x1": 10,
    "3x3": 9,
    "narrow 3x3": 4,
    "wide": 6,
    "strided": 6,
    "grouped or dilated": 3,
    "stem": 5,
    "depthwise": 7,
    "1-D": 4,
    "3-D": 6,
}
MOST_OPERATIONS = 8_000_000_000

ALL_PROBLEMS = Path(__file__).parents[1] / "problems.txt"


def spaced(count: int, wanted: int) -> list[int]:
    """Evenly spaced places of a list of `count`, both ends included.

    Examples
    --------
    >>> spaced(10, 4), spaced(2, 4)
    ([0, 3, 6, 9], [0, 1])
    """
    wanted = min(count, wanted)
    return [round(place * (count - 1) / max(1, wanted - 1)) for place in range(wanted)]


def sampled(text: str) -> list[Layer]:
    """The layers that the rule chooses, kind by kind."""
    singles: dict[str, Layer] = {}
    for layer in read(text):
        single = Layer(re.sub(r"^n\d+", "n1", layer.problem), layer.source)
        singles.setdefault(single.problem, single)
    kinds: dict[str, list[Layer]] = {kind: [] for kind in QUOTAS}
    for layer in singles.values():
        if layer.spec.flops <= MOST_OPERATIONS:
            kinds[layer.kind].append(layer)
    chosen = []
    for kind, wanted in QUOTAS.items():
        ordered = sorted(kinds[kind], key=lambda layer: (layer.spec.flops, layer.problem))
        chosen += [ordered[place] for place in spaced(len(ordered), wanted)]
    return chosen


if __name__ == "__main__":
    for layer in sampled(ALL_PROBLEMS.read_text(encoding="utf-8")):
        print(f"{layer.problem}\t{layer.source}")
