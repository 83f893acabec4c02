"""The algebra of Winograd's convolution: m outputs of r taps by m + r - 1 multiplications instead of m * r.

In the names of "Fast Algorithms for Convolutional Neural Networks" (Lavin and Gray, 2016),

    y = A.T [(G g) * (B.T d)]

for m + r - 1 cells d of the source and r taps g. The algorithm is Toom's and Cook's, transposed: multiply polynomials
by their values at m + r - 2 points and at infinity. Each pair of points p and -p makes rows that are the sum and the
difference of two, so a matrix is written as two factors, of which one is a butterfly.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np

from ...layout import Array

Factors: TypeAlias = tuple[tuple[tuple[float, ...], ...], ...]
"""Matrices, the one applied first in front."""

PAIRS = {6: (2 / 3, 3 / 2), 8: (1 / 2, 1.0, 2.0)}
"""By the number of multiplications, the points besides 0 and infinity, each with its negative.

Of some that were tried, these lose the least: over 40 squares of one channel and 3 x 3 taps an error of at most 4.2
eps * sum(|x| |w|), where 1 and 2 lose 13; over 300 of 7 x 7 taps at most 15.
"""


class Transforms(NamedTuple):
    """The three transforms of one axis, as factors; of an axis with one tap they are the identity."""

    source: Factors
    filter: Factors
    output: Factors


@lru_cache(maxsize=16)
def transforms(outputs: int, taps: int) -> Transforms:
    """The transforms for so many outputs of so many taps.

    Examples
    --------
    >>> found = transforms(4, 3)
    >>> d, g = np.arange(6.0), np.array([1.0, -2.0, 4.0])
    >>> value = {name: np.linalg.multi_dot([*map(np.array, factors[::-1]), of]) if len(factors) > 1 else of
    ...          for name, factors, of in (("d", found.source, d), ("g", found.filter, g))}
    >>> y = value["d"] * value["g"]
    >>> for factor in found.output:
    ...     y = np.array(factor) @ y
    >>> y.round(6).tolist(), np.correlate(d, g).tolist()
    ([6.0, 9.0, 12.0, 15.0], [6.0, 9.0, 12.0, 15.0])
    """
    count = outputs + taps - 1
    if taps == 1:
        same: Factors = (((1.0,),),)
        return Transforms(same, same, same)
    points = [0.0, *(sign * point for point in PAIRS[count] for sign in (1, -1))]
    others = [np.poly([b for b in points if b != a])[::-1] for a in points]
    norms = [float(np.polyval(other[::-1], a)) for a, other in zip(points, others, strict=True)]
    # Rows of B.T and G may exchange any factor: here the one makes the largest entry of each row of B.T one.
    scales = [float(np.abs(other).max()) for other in others]
    source = np.zeros((count, count))
    for row, (other, scale) in enumerate(zip(others, scales, strict=True)):
        source[row, : count - 1] = other / scale
    source[-1] = np.poly(points)[::-1]
    taps_at = np.array(
        [[a**k * scale / norm for k in range(taps)] for a, norm, scale in zip(points, norms, scales, strict=True)]
        + [[0.0] * (taps - 1) + [1.0]]
    )
    output = np.array([[*(a**j for a in points), float(j == outputs - 1)] for j in range(outputs)])
    butterfly = np.eye(count)
    for row in range(1, count - 1, 2):
        butterfly[row : row + 2, row : row + 2] = [[1, 1], [1, -1]]
    half = np.linalg.inv(butterfly)
    return Transforms(
        (rows_of(half @ source), rows_of(butterfly)),
        (rows_of(half @ taps_at), rows_of(butterfly)),
        (rows_of(butterfly), rows_of(output @ half)),
    )


def rows_of(matrix: Array) -> tuple[tuple[float, ...], ...]:
    """A matrix as tuples, with what rounding left of zeros taken out."""
    return tuple(tuple(0.0 if abs(entry) < 1e-12 else float(entry) for entry in row) for row in matrix)
