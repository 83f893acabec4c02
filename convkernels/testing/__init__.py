"""Checks that hold any implementation to the definition; needs the extra ``testing`` (Hypothesis)."""

from .harness import KernelError, VacuousError
from .kernel import check_kernel
from .report import Finding, Report
from .suite import checks_for, parametrize_with_checks

__all__ = [
    "Finding",
    "KernelError",
    "Report",
    "VacuousError",
    "check_kernel",
    "checks_for",
    "parametrize_with_checks",
]
