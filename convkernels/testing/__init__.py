"""Checks that hold any implementation to the definition; needs the extra ``testing`` (Hypothesis)."""

from .harness import KernelError, VacuousError
from .suite import checks_for, parametrize_with_checks

__all__ = ["KernelError", "VacuousError", "checks_for", "parametrize_with_checks"]
