"""The right solutions of both courses' assignments as functions, and their check."""

from __future__ import annotations

from homework import SOURCES, solved

from convkernels.testing import Report, check_kernel
from convkernels.testing.kernel import COURSES

SOLUTIONS = {course: solved(source) for course, source in SOURCES.items()}
SOLVED = [
    (course, name) for course, solution in SOLUTIONS.items() for name in COURSES[course] if hasattr(solution, name)
]


def check(solution, course, name, *, own_cache=True, **options) -> Report:
    """Check a function of a solution, with its own forward's cache or the course's."""
    forward = COURSES[course][name].forward
    given = getattr(solution, forward.name) if forward and own_cache else None
    return check_kernel(getattr(solution, name), name, course, forward=given, **options)
