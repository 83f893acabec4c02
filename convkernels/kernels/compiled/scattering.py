"""When an input gradient had better scatter products, and how many of them at a time; see `scattered`."""

from __future__ import annotations

import math

from ...window import Ints
from .amounts import BLOCK
from .axes import Axes
from .scratch import LINE

COLUMNS, FEW_COLUMNS = 8, 4
"""Columns up to which products of pictures are scattered, and so where pixels do not stand apart or rows are short."""
CHANNELS = 48
"""Channels from which on that pays for short rows."""
STEPPED, DENSE, DENSE_FAR = 5, 16, 8
"""Channels for each column from which on adding up by runs costs less than the tiles of few rows that are spared: some
40 multiply-adds for each product, where pixels stand apart; where they do not; and where these are too many for a
cache.
"""
APART, APART_DOUBLES = 8, 16
"""The same where pixels stand apart, and results of a column are written apart from each other; and in float64 to more
than a few columns.
"""
CACHE = 2**20
"""Bytes of pixels that a second-level cache keeps beside the rest; where results are written apart, products of twice
as many are still slower than tiles.
"""
LEAST_CHANNELS, LEAST_WORK = 8, 2**18
"""The fewest channels of these, and the fewest multiply-adds where pixels do not stand apart."""
RUN = 8
"""Pixels of a row from which on it is added up by runs."""
SPARED_BYTES = 384
"""Bytes of channels from which on adding up by a table pays, or less if few taps come to the same place."""
ROW_BYTES = 8 * BLOCK
"""Bytes of the products of a row of pixels, or a plane of a volume, that is too large to take one at a time."""
PIXELS, ROW, WEIGHTS, TOGETHER = 25, 5, 2**20, 2**21
"""Pixels of an image, and of its rows, up to which products of many columns are scattered, and bytes of weights from
which on; bytes of the products of several images.
"""


def scatters(axes: Axes, groups: int, channels: int, columns: int, size: int) -> bool:
    """Whether an input gradient of so many channels had better scatter products, with `axes` of the convolution.

    Columns are few, as tiles of few rows are slow, and channels many, as each product has to be added.
    """
    pixels, taps, reached, places = counts(axes)
    if groups > 1 or columns > COLUMNS or min(pixels, taps - 1) < 1:
        return False
    # Nearly all taps come to some place, and these are not many more, as each has an entry in tables.
    if 2 * reached < pixels * taps or places > 4 * pixels * taps:
        return False
    if pixels // axes[rows_along(axes)].outputs * columns * taps * size > ROW_BYTES:
        return False
    steps = math.prod(axis.step for axis in axes)
    if not in_runs(axes):
        many = channels >= CHANNELS and (channels * size >= SPARED_BYTES or taps <= 4 * steps)
        return steps > 1 and columns <= FEW_COLUMNS and many
    if steps > 1:
        return channels >= max(LEAST_CHANNELS, STEPPED * columns)
    least = (DENSE_FAR if pixel_bytes(axes, channels, size) > CACHE else DENSE) * columns
    return columns <= FEW_COLUMNS and channels >= least and channels * pixels * taps * columns >= LEAST_WORK


def pays_apart(axes: Axes, channels: int, columns: int, size: int) -> bool:
    """Whether so many channels are enough where results of a column are written apart from each other."""
    if not in_runs(axes):
        return True
    if all(axis.step == 1 for axis in axes):
        return channels >= (DENSE_FAR if pixel_bytes(axes, channels, size) > 2 * CACHE else DENSE) * columns
    return channels >= (APART if size == 4 or columns <= FEW_COLUMNS else APART_DOUBLES) * columns


def pixel_bytes(axes: Axes, channels: int, size: int) -> int:
    """The bytes of all pixels."""
    return math.prod(axis.outputs for axis in axes) * channels * size


def in_runs(axes: Axes) -> bool:
    """Whether products are added up by runs: rows of pixels are long enough, and a block has whole ones."""
    return rows_along(axes) < 2 and axes[2].outputs >= RUN


def scattered_images(axes: Axes, groups: int, channels: int, columns: int, size: int) -> int:
    """How many images to take together in an input gradient of so few pixels that it had better scatter products.

    Rearranging weights would take longer than these products, of which less than two in three are of no use. It is 0
    for other problems.
    """
    pixels, taps, reached, places = counts(axes)
    products = pixels * columns * taps * size
    if (
        groups > 1
        or columns <= FEW_COLUMNS
        or channels < CHANNELS
        or not 0 < pixels <= PIXELS
        or axes[2].outputs > ROW
        or taps == 1
        or channels * columns * taps * size < WEIGHTS
        or 3 * reached < pixels * taps
        or places > 4 * pixels * taps
    ):
        return 0
    return max(1, TOGETHER // products)


def counts(axes: Axes) -> Ints:
    """The pixels, the taps, how many pairs of these come to some place, and the places."""
    along = ((a.outputs, len(a.taps), sum(end - first for first, end in a.reached), a.size) for a in axes)
    return tuple(map(math.prod, zip(*along, strict=True)))


def rows_along(axes: Axes) -> int:
    """The first axis that results have several places along, or the last."""
    return next((number for number, axis in enumerate(axes) if axis.size > 1), 2)


def scattered_rows(axes: Axes, columns: int, size: int) -> int:
    """The rows of pixels whose products are scattered at a time."""
    pixels, taps, *_ = counts(axes)
    rows = axes[rows_along(axes)].outputs
    return max(1, min(rows, BLOCK // (pixels // rows * columns * taps * size)))


def scattered_bytes(axes: Axes, columns: int, size: int) -> int:
    """The bytes of the products of some rows of pixels."""
    pixels, taps, *_ = counts(axes)
    several = pixels // axes[rows_along(axes)].outputs * scattered_rows(axes, columns, size)
    return columns * taps * (several * size + 2 * LINE)


def scattered_few_bytes(images: int, pixels: int, channels: int, count: int, size: int) -> tuple[int, int]:
    """The bytes of the pixels of some images, and of so many products of each."""
    return images * pixels * channels * size, images * pixels * (count * size + 2 * LINE)
