"""What a planted mistake is; the modules whose names begin with `planted_` have them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import bases

import convkernels as ck

ELEMENT = r"is wrong: \w[^\n]*\[[\d,]*\]=\S+, but should be \S+ \(\d+ of \d+ differ"
"""How a report names the first element that differs."""


@dataclass(frozen=True)
class Bug:
    """A wrong implementation, the check that must catch it, and how large its smallest example may be.

    `cells` counts those of all arrays that go in, and is 0 where the check draws no problems; `says` is what the
    report must say.
    """

    implementation: ck.Implementation
    check: Callable[[ck.Implementation], None]
    cells: int
    says: str

    def __str__(self):
        return f"{self.implementation.operation}-{self.implementation.name}"


def planted(operation, check, cells, says=ELEMENT, **facts):
    """Make a bug of the function that computes an operation wrongly; `facts` are of its implementation."""
    return lambda run: Bug(bases.based(operation, run, **facts), check, cells, says)
