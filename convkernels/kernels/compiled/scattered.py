"""Input gradients by pictures from pixels that stand apart, as products: what each makes of all taps, added up.

    P[pixel, column, tap] = sum over channels of dy[channel, pixel] w[channel, column, tap]
    dx[column, place] = sum of P[pixel, column, tap] over the pixels and taps with pixel * step + tap - low = place

That is the gradient of im2col, and how matrix libraries take it. Tiles of the three columns that pictures have would be
three rows high; here they have as many rows as there are columns and taps. Rows of pixels are taken a block at a time:
11 x 11 taps of 3 to 96 channels take 4.3 ms in float64, not 8.1, and 2.9 in float32, not 4.0.

So are gradients by pictures of a few pixels from many channels to many columns: their weights are read as they lie,
once for some images, where others would rearrange them first, which takes longer than all multiplications.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise, product
from typing import NamedTuple

import numba
import numpy as np

from ...layout import Array
from ...window import Ints
from .amounts import rows_along, scattered_bytes, scattered_few_bytes, scattered_images, scattered_rows, scatters
from .axes import ONE, Axes, contiguous
from .blocks import pack, together
from .copies import copy_plan, turner
from .correlation import Plan, plan
from .geometry import Array5
from .isa import Isa
from .machine import (
    address,
    address_of,
    array_in,
    data_of,
    doubles_at,
    entry,
    fixed,
    listed,
    singles_at,
    tables,
    words_at,
)
from .operands import Memory, Problem, nested, without_gaps
from .parallel import SHARES, run, run_at
from .scratch import LINE, arena
from .weighted import BYTE, Copied, Weighted

WORDS = listed(6)


class Block(NamedTuple):
    """Some rows of pixels: how far in dy they begin, their products, and where the numbers of sums are, with pieces.

    Pixels of several images are copied first, so that they are one line: arguments of that but for two addresses.
    """

    start: int
    product: Plan
    at: int
    pieces: int
    copying: Array | None


class Scattered(NamedTuple):
    """An input gradient by products and sums of them; a `Weighted` plan."""

    # For some images at a time, and for as many as are left at last.
    blocks: tuple[Block, ...]
    rest: tuple[Block, ...]
    # What the numbers of blocks point to.
    kept: tuple[Array, ...]
    batch: int
    several: int
    # How far it is from an image to the next.
    image: int
    threads: int
    # The bytes of products, and of pixels that are copied, and zeros in place of a bias.
    room: int
    line: int
    zeros: Array

    @property
    def bytes(self) -> int:
        """None: each product has the weights as it likes."""
        return 0

    def rearrange(self, w: Array, _: Array | None) -> Array:
        """Take the weights as they lie."""
        return w

    def compute(self, x: Array, weights: Array, bias: Array | None, out: Array) -> None:
        """Multiply, and add up, one block of an image after the other."""
        given = self.zeros if bias is None else np.ascontiguousarray(bias)
        with arena:
            found = arena.empty((self.room // given.itemsize,), given.dtype)
            line = arena.empty((self.line,), BYTE) if self.line else None
            for first in range(0, self.batch, self.several):
                images = range(first, min(self.batch, first + self.several))
                for block in self.blocks if len(images) == self.several else self.rest:
                    # Of arrays only addresses count here, for their axes may be in any order.
                    pixels, start = x, first * self.image + block.start
                    if line is not None and block.copying is not None:
                        words = block.copying.copy()
                        words[-2:] = address(line), address(x) + start
                        run(pack, words, 1, 1)
                        pixels, start = line, 0
                    with arena:
                        copied = arena.empty((block.product.bytes,), BYTE) if block.product.bytes else None
                        own = block.product.rearrange(weights, copied)
                        block.product.compute(pixels, own, None, found, start)
                    for place, image in enumerate(images):
                        given_words = WORDS(block.at, id(found), id(given), id(out), image, place)
                        run_at(add_up, address_of(given_words), block.pieces, self.threads)


def scattered_plan(problem: Problem, axes: Axes, memory: Memory, limit: int, threads: int, isa: Isa) -> Weighted | None:
    """Plan an input gradient so, if that pays, and weights lie as said. The axes are those of the convolution.

    That is said of weights without gaps, as a plan's copy has none; those with gaps are copied first.
    """
    batch, _, channels, columns, taps, size = problem
    dense = without_gaps(problem, memory, backward=True)
    count, (column, channel, *along) = math.prod(taps), dense.w
    # Columns with their taps are one axis of the product, or taps with their columns.
    by_columns, by_taps = (
        nested((column, *along), (columns, *taps), size),
        nested((*along, column), (*taps, columns), size),
    )
    unit = by_columns or by_taps
    column_step, tap_step = (count, 1) if by_columns else (1, columns)
    several = scattered_images(axes, problem.groups, channels, columns, size)
    if several and batch and unit:
        few = few_pixels_plan(problem, axes, dense, several, (unit, column_step, tap_step), limit, threads, isa)
        return few if dense.w == memory.w else Copied(few, channels * columns * count * size)
    if not (scatters(axes, problem.groups, channels, columns, size) and batch and unit):
        return None
    rows, room, place = scattered_rows(axes, columns, size), scattered_bytes(axes, columns, size), rows_along(axes)
    wide = Problem(1, 1, channels, columns * count, (1, 1, 1), size)
    blocks, kept_arrays, first_row = list[Block](), list[Array](), 0
    for first in range(0, axes[place].outputs, rows):
        behind = min(axes[place].outputs, first + rows)
        pixels = tuple(behind - first if number == place else axis.outputs for number, axis in enumerate(axes))
        # A plane for each column and tap, of an odd number of lines, or they would fall into few sets of the cache.
        step = (-(-math.prod(pixels) * size // LINE) | 1) * LINE
        strides = (pixels[1] * pixels[2] * size, pixels[2] * size, size)
        lying = Memory(memory.x, (unit, channel, 0, 0, 0), Array5(0, 0, step, *strides), 0)
        every = tuple(ONE._replace(outputs=each, size=each) for each in pixels)
        products = plan(wide, (every,), lying, limit - room, threads, isa)
        # Rows of results that other pixels have come to already are added to.
        axis = axes[place]
        lowest = max(0, first * axis.step + axis.lowest)
        last = (
            axis.size if behind == axis.outputs else min(axis.size, (behind - 1) * axis.step + axis.lowest + axis.span)
        )
        begin, last = min(lowest, first_row), max(last, first_row)
        shifted = tuple((tap, offset + first * axis.step - begin) for tap, offset in axis.taps)
        some = axis._replace(outputs=behind - first, taps=shifted, size=last - begin)
        here = tuple(some if number == place else axis for number, axis in enumerate(axes))
        lists = terms(here, strides, tap_step * step, memory.y[3:], size)
        pieces = shares(columns, lists[0].size, threads)
        added = (first_row - begin) * math.prod(axis.size for axis in here[place + 1 :])
        numbers = (columns, column_step * step, memory.y.channel, memory.y.image, added, begin * memory.y[3 + place])
        words = np.array([*tables(pieces, *lists), size, *numbers, lists[2].max(initial=0) + 1, 0], np.int64)
        blocks.append(Block(first * memory.x[3 + place], products, address(words), pieces.size // 4, None))
        kept_arrays += [words, pieces, *lists]
        first_row = last
    zeros = np.zeros(columns, f"f{size}")
    threads = min(block.product.threads for block in blocks)
    found = Scattered(tuple(blocks), (), tuple(kept_arrays), batch, 1, memory.x.image, threads, room, 0, zeros)
    return found if dense.w == memory.w else Copied(found, channels * columns * count * size)


def few_pixels_plan(
    problem: Problem, axes: Axes, memory: Memory, several: int, steps: Ints, limit: int, threads: int, isa: Isa
) -> Scattered:
    """Plan an input gradient by so many images together.

    The steps are those from a column of the product to the next in w, and from a column of the gradient and a tap to
    the next in columns of the product.
    """
    batch, _, channels, columns, taps, size = problem
    unit, column_step, tap_step = steps
    count, counts, several = columns * math.prod(taps), tuple(axis.outputs for axis in axes), min(several, batch)
    wide, pixels = Problem(1, 1, channels, count, (1, 1, 1), size), math.prod(counts)
    line, room = scattered_few_bytes(several, pixels, channels, count, size)
    blocks, kept = list[Block](), list[Array]()
    for images in (several, batch % several):
        if not images:
            continue
        # Of products, pixels lie innermost, or columns if those of w do; then a pixel has an odd number of lines.
        many = images * pixels
        step, place = (size, (count * size // LINE + 1 | 1) * LINE) if unit == size else (many * size, size)
        read, written = Array5(0, 0, many * size, 0, 0, size), Array5(0, 0, step, 0, 0, place)
        every = ((ONE, ONE, ONE._replace(outputs=many, size=many)),)
        lying = Memory(read, (unit, memory.w[1], 0, 0, 0), written, 0)
        products = plan(wide, every, lying, limit - line - room, threads, isa)
        lists = terms(axes, contiguous(counts, place), tap_step * step, memory.y[3:], size)
        pieces = shares(columns, lists[0].size, threads)
        numbers = (columns, column_step * step, memory.y.channel, memory.y.image, 0, 0, lists[2].max() + 1)
        words = np.array([*tables(pieces, *lists), size, *numbers, pixels * place], np.int64)
        to = (pixels * size, many * size, *contiguous(counts, size))
        copy = copy_plan((images, channels, *counts), to, memory.x[1:], size)
        how = together(turner(size, isa), copy, copy)
        copying = np.array([*tables(how), 1, *[0] * 6], np.int64)
        blocks.append(Block(0, products, address(words), pieces.size // 4, copying))
        kept += [words, pieces, *lists, how]
    zeros, threads = np.zeros(columns, f"f{size}"), min(block.product.threads for block in blocks)
    full, rest = tuple(blocks[:1]), tuple(blocks[1:])
    return Scattered(full, rest, tuple(kept), batch, several, memory.x.image, threads, room, line, zeros)


def shares(columns: int, places: int, threads: int) -> Array:
    """Pieces for threads to share: the first column of each and the one behind its last, and the same of places."""
    parts = min(columns, SHARES * threads)
    cuts = -(-SHARES * threads // parts) if threads > 1 else 1
    along = (
        [number * many // count for number in range(count + 1)] for many, count in ((columns, parts), (places, cuts))
    )
    ends = [list(pairwise(each)) for each in along]
    return np.array([(*some, *these) for some, these in product(*ends)], np.int64).ravel()


@lru_cache(maxsize=16)
def terms(axes: Axes, pixels: Ints, step: int, places: Ints, size: int) -> tuple[Array, Array, Array]:
    """Where results of a column lie, in bytes, the first of each one's terms, and where all these lie in its products.

    Pixels and places are so many bytes apart along the axes, taps are by a `step`.

    Examples
    --------
    >>> from convkernels.kernels.compiled.axes import Axis
    >>> axis = Axis(2, 2, ((0, -1), (1, 0), (2, 1)), 4)  # 4 results of 2 pixels with 3 taps
    >>> [each.tolist() for each in terms((ONE, ONE, axis), (0, 0, 12), 4, (0, 0, 4), 4)]
    [[0, 4, 8, 12], [0, 1, 3, 4, 5], [1, 2, 3, 4, 5]]
    """
    results, found, taps = np.zeros(1, np.int64), np.zeros((1, 2), np.int64), step // size
    for axis, pixel, place in zip(reversed(axes), reversed(pixels), reversed(places), strict=True):
        along = [
            (output * axis.step + offset, output * pixel // size + tap * taps)
            for output in range(axis.outputs)
            for tap, offset in axis.taps
            if 0 <= output * axis.step + offset < axis.size
        ]
        inner = results.size
        table = np.array(along, np.int64).reshape(-1, 1, 2) * (inner, 1) + found
        results = np.add.outer(place * np.arange(axis.size), results).ravel()
        found, taps = table.reshape(-1, 2), taps * len(axis.taps)
    found = found[np.argsort(found[:, 0], kind="stable")]
    return results, np.searchsorted(found[:, 0], np.arange(results.size + 1)), np.ascontiguousarray(found[:, 1])


@numba.njit(inline="always")  # type: ignore[untyped-decorator]
def total(products: Array, terms: Array, begin: int, end: int, start: float) -> float:
    """The sum of some terms."""
    for term in range(begin, end):
        start += products[terms[term]]
    return start


@entry
def add_up(words: int, begin: int, end: int, unused: int) -> None:
    """Add up some pieces.

    The arguments are the address of a plan, by their ``id`` the products, the bias or zeros, and the results, the
    image, and its place among those of the products. The plan has four tables: `shares`, and those of `terms`. Then
    there are the size of an element, the columns, the strides of products along columns and of results along columns
    and images, how many places are added to what is there, where in the results to begin, how many products of a column
    may be read, and the stride of products along images.
    """
    arrays = words_at(words, 6)
    given = words_at(arrays[0], 17)
    pieces, results, starts, terms = array_in(given, 0), array_in(given, 1), array_in(given, 2), array_in(given, 3)
    size, columns, added = given[8], given[9], given[13]
    products, bias = data_of(arrays[1]) + arrays[5] * given[16], data_of(arrays[2])
    out = data_of(arrays[3]) + arrays[4] * given[12] + given[14]
    for piece in range(begin, end):
        first, behind, low, high = fixed(pieces[4 * piece :], 4)
        for column in range(first, behind):
            y, p = out + column * given[11], products + column * given[10]
            if size == 4:
                singles = singles_at(p, given[15])
                for place in range(low, high):
                    single = singles_at(y + results[place], 1)
                    start = single[0] if place < added else singles_at(bias, columns)[column]
                    single[0] = total(singles, terms, starts[place], starts[place + 1], start)
            else:
                doubles = doubles_at(p, given[15])
                for place in range(low, high):
                    double = doubles_at(y + results[place], 1)
                    begun = double[0] if place < added else doubles_at(bias, columns)[column]
                    double[0] = total(doubles, terms, starts[place], starts[place + 1], begun)
