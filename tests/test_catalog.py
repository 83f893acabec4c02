"""Every implementation of the catalog, held to every check of its operation."""

from __future__ import annotations

from convkernels.kernels.compiled import available
from convkernels.operation import OPERATIONS
from convkernels.testing import parametrize_with_checks

COMPILED = ("direct", "winograd", "depthwise")
EVERY = [each for operation in OPERATIONS.values() for each in operation.implementations]
RUNNING = [each for each in EVERY if each.name not in COMPILED or not available.missing()]


@parametrize_with_checks(RUNNING)
def test_catalog(check, implementation):
    check(implementation)
