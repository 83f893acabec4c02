"""Comparisons that say where, and what it should be."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..layout import Array


def assert_same(got: Array, expected: Array, *, name: str = "out") -> None:
    """Demand the same type, shape and values, NaN equal to NaN; report the first element that differs.

    Raises
    ------
    AssertionError
        With the type, the shape or the element that differs.

    Examples
    --------
    >>> assert_same(np.array([1.0, 2.0]), np.array([1.0, 3.0]))
    Traceback (most recent call last):
    AssertionError: out[1]=2.0, but should be 3.0 (1 of 2 differ, out is float64)
    """
    assert got.dtype == expected.dtype, f"{name}.dtype={got.dtype}, but should be {expected.dtype}"
    assert got.shape == expected.shape, f"{name}.shape={got.shape}, but should be {expected.shape}"
    _report(got, expected, (got == expected) | ((got != got) & (expected != expected)), name)


def assert_within(got: Array, expected: Array, bound: Any, *, name: str = "out") -> None:
    """Demand the same shape and values within `bound`, which broadcasts against them.

    Raises
    ------
    AssertionError
        With the shape or the first element that is too far off.
    """
    assert got.shape == expected.shape, f"{name}.shape={got.shape}, but should be {expected.shape}"
    with np.errstate(invalid="ignore"):  # infinity less itself, equal by the first test
        close = (got == expected) | (np.abs(got - expected) <= bound) | ((got != got) & (expected != expected))
    _report(got, expected, close, name)


def _report(got: Array, expected: Array, good: Array, name: str) -> None:
    if not good.all():
        place = tuple(int(index) for index in np.argwhere(~good)[0])
        raise AssertionError(
            f"{name}[{','.join(map(str, place))}]={got[place]}, but should be {expected[place]} "
            f"({np.sum(~good)} of {good.size} differ, {name} is {got.dtype})"
        )
