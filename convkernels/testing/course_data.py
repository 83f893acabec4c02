"""What the courses' problems are made of: numbers whose sums are exact, sizes that windows fit, words for kinds."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ..layout import Array

Test = Callable[[Any], bool]
ORDER = "(is a shape unpacked in another order?)"

small = st.integers(1, 3)
seeds = st.integers(0, 2**32 - 1)


def kinds(*integers: str) -> st.SearchStrategy[str]:
    """Types of data: most often float64, then float32, and each of some arrays of integers."""
    return st.sampled_from(["float64"] * 3 + [f"integer {name}" for name in integers] + ["float32"])


def numbers(kind: str, seed: int, **shapes: tuple[int, ...]) -> dict[str, Array]:
    """Arrays of whole numbers from -4 to 4 but 0; beside one of integers, the others are of halves.

    Examples
    --------
    >>> numbers("float32", 0, x=(1, 2))
    {'x': array([[ 4., -3.]], dtype=float32)}
    """
    found = {}
    for place, (name, shape) in enumerate(shapes.items()):
        generator = np.random.default_rng([seed, place])
        drawn = generator.integers(1, 4, shape, endpoint=True) * generator.choice([-1, 1], shape)
        if kind == f"integer {name}":
            found[name] = drawn
        else:
            found[name] = (drawn / 2 if kind.startswith("integer") else drawn).astype(
                np.float32 if kind == "float32" else np.float64
            )
    return found


def tied(shape: tuple[int, ...], seed: int) -> Array:
    """Zeros and ones, so that a maximum is often there twice."""
    return np.random.default_rng([seed, 99]).integers(0, 1, shape, endpoint=True).astype(np.float64)


def fitted(outputs: int, window: int, stride: int, pad: int = 0) -> int:
    """The size of an input that about so many windows fit, with nothing left over.

    Examples
    --------
    >>> fitted(2, 3, 2), fitted(1, 1, 3, 2)
    (5, 3)
    """
    size = stride * (outputs - 1) + window - 2 * pad
    return size if size >= 1 else size + -(-(1 - size) // stride) * stride


def outputs(size: int, window: int, stride: int, pad: int) -> int:
    """How many windows an input holds."""
    return (size + 2 * pad - window) // stride + 1


def in_order(reverse: bool, **entries: Any) -> dict[str, Any]:
    """A dictionary built in the order given, or in the reverse of it."""
    return dict(reversed(entries.items())) if reverse else entries


def _is_of(kind: str, sizes: Any) -> bool:
    return bool(sizes.kind == kind)


def of_type(*integers: str) -> dict[str, Test]:
    """Words for the types of data."""
    found: dict[str, Test] = {f"{name} is of integers": partial(_is_of, f"integer {name}") for name in integers}
    if len(integers) > 1:
        found["an argument is of integers"] = lambda sizes: sizes.kind.startswith("integer")
    return {**found, "the data are float32": partial(_is_of, "float32")}


def wide(array: Array) -> Array:
    """The array in float64, in which the right results are computed."""
    return array.astype(np.float64)
