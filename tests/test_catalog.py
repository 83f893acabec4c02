"""Every implementation of the catalog, held to every check of its operation."""

from __future__ import annotations

from convkernels.operation import OPERATIONS
from convkernels.testing import parametrize_with_checks


@parametrize_with_checks([each for operation in OPERATIONS.values() for each in operation.implementations])
def test_catalog(check, implementation):
    check(implementation)
