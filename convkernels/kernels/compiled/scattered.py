"""Input gradients as products: what each pixel makes of all taps, added up where windows overlap.

    P[pixel, column, tap] = sum over channels of dy[channel, pixel] w[channel, column, tap]
    dx[column, place] = sum of P[pixel, column, tap] over the pixels and taps with pixel * step + tap - low = place

That is the gradient of im2col, and how matrix libraries take it. Tiles of the few columns that pictures have would be
a few rows high; here they have as many rows as there are columns and taps. Rows of pixels are taken a block at a time:
11 x 11 taps of 3 to 96 channels take 3.8 ms in float64, not 8.1, and 2.0 in float32, not 4.0. So are convolutions
without steps to so few columns, as those that make pictures: 4 x 4 taps of 512 channels to one take 0.19 ms, not 0.9.

So are gradients of a few pixels from many channels to many columns: their weights are read as they lie,
once for some images, where others would rearrange them first, which takes longer than all multiplications.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ...layout import Array
from ...window import Ints
from .adding import add_up, tables_of
from .axes import ONE, Axes, contiguous, mirrored
from .blocks import pack, together
from .copies import copy_plan, turner
from .correlation import Plan, plan
from .geometry import Array5
from .isa import Isa
from .machine import (
    address,
    address_of,
    listed,
    tables,
)
from .operands import Memory, Problem, columns_apart, nested, without_gaps
from .parallel import run, run_at
from .scattering import (
    FEW_COLUMNS,
    in_runs,
    pays_apart,
    rows_along,
    scattered_bytes,
    scattered_few_bytes,
    scattered_images,
    scattered_rows,
    scatters,
)
from .scratch import LINE, arena, rounded
from .weighted import BYTE, Weighted, copied, places_of

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
    # Where each block's weights are, if they are rearranged once for many calls, and where the last ones end.
    places: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """None, unless they are kept: each product has the weights as it likes."""
        return self.places[-1]

    def rearrange(self, w: Array, target: Array | None) -> Array:
        """Take the weights as they lie, or rearrange them for each block."""
        if target is None:
            return w
        for block, place in zip((*self.blocks, *self.rest), self.places, strict=False):
            block.product.rearrange(w, target[place:])
        return target

    def compute(self, x: Array, weights: Array, bias: Array | None, out: Array) -> None:
        """Multiply, and add up, one block of an image after the other."""
        given = self.zeros if bias is None else np.ascontiguousarray(bias)
        with arena:
            found = arena.empty((self.room // given.itemsize,), given.dtype)
            line = arena.empty((self.line,), BYTE) if self.line else None
            for first in range(0, self.batch, self.several):
                images = range(first, min(self.batch, first + self.several))
                part = len(images) < self.several
                for number, block in enumerate(self.rest if part else self.blocks, part * len(self.blocks)):
                    # Of arrays only addresses count here, for their axes may be in any order.
                    pixels, start = x, first * self.image + block.start
                    if line is not None and block.copying is not None:
                        words = block.copying.copy()
                        words[-2:] = address(line), address(x) + start
                        run(pack, words, 1, 1)
                        pixels, start = line, 0
                    with arena:
                        if self.bytes:
                            own = weights[self.places[number] :]
                        else:
                            copied = arena.empty((block.product.bytes,), BYTE) if block.product.bytes else None
                            own = block.product.rearrange(weights, copied)
                        block.product.compute(pixels, own, None, found, start)
                    for place, image in enumerate(images):
                        given_words = WORDS(block.at, id(found), id(given), id(out), image, place)
                        run_at(add_up, address_of(given_words), block.pieces, self.threads)


def scattered_plan(
    problem: Problem, axes: Axes, memory: Memory, limit: int, threads: int, isa: Isa, *, kept: bool
) -> Weighted | None:
    """Plan an input gradient so, if that pays, and weights lie as said. The axes are those of the convolution.

    That is said of weights without gaps, as a plan's copy has none; those with gaps are copied first.
    """
    batch, _, channels, columns, taps, size = problem
    dense = without_gaps(problem, memory, backward=True)
    count, (column, channel, *along) = math.prod(taps), dense.w
    limit -= rounded(channels * columns * count * size)  # for weights that are copied
    # Columns with their taps are one axis of the product, or taps with their columns.
    by_columns, by_taps = (
        nested((column, *along), (columns, *taps), size),
        nested((*along, column), (*taps, columns), size),
    )
    unit = by_columns or by_taps
    column_step, tap_step = (count, 1) if by_columns else (1, columns)
    several = scattered_images(axes, problem.groups, channels, columns, size)
    if several and batch and unit:
        steps = (unit, column_step, tap_step)
        few = few_pixels_plan(problem, axes, dense, several, steps, limit, threads, isa, kept=kept)
        return few if dense.w == memory.w else copied(few, problem, memory, dense, isa)
    if not (scatters(axes, problem.groups, channels, columns, size) and batch and unit):
        return None
    inner = columns > 1 and abs(memory.y.channel) < abs(memory.y.w)
    if inner and not pays_apart(axes, channels, columns, size):
        return None
    rows, room, place = scattered_rows(axes, columns, size), scattered_bytes(axes, columns, size), rows_along(axes)
    wide = Problem(1, 1, channels, columns * count, (1, 1, 1), size)
    blocks, arrays, first_row = list[Block](), list[Array](), 0
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
        given = (here, strides, tap_step * step, memory.y[3:], size, columns, threads)
        lists = tables_of(*given, rows=in_runs(axes))
        added = (first_row - begin) * (lists[1].size // max(1, here[place].size))
        numbers = (columns, column_step * step // size, memory.y.channel, memory.y.image, added)
        words = np.array([*tables(*lists), size, *numbers, begin * memory.y[3 + place], room // size, 0], np.int64)
        blocks.append(Block(first * memory.x[3 + place], products, address(words), lists[0].size // 4, None))
        arrays += [words, *lists]
        first_row = last
    zeros = np.zeros(columns, f"f{size}")
    threads = min(block.product.threads for block in blocks)
    found = Scattered(
        tuple(blocks), (), tuple(arrays), batch, 1, memory.x.image, threads, room, line=0, zeros=zeros, places=(0,)
    )
    return found if dense.w == memory.w else copied(found, problem, memory, dense, isa)


def scattered_forward_plan(
    problem: Problem, axes: Axes, memory: Memory, limit: int, threads: int, isa: Isa
) -> Weighted | None:
    """Plan a convolution to a few columns so, if that pays: without steps, it is the input gradient of a mirrored one.

    Weights are copied, so that the columns and taps of a channel are one axis.
    """
    _, _, channels, columns, taps, size = problem
    if columns > FEW_COLUMNS or any(axis.step > 1 for axis in axes):
        return None
    channel, column, *along = contiguous((channels, columns, *taps), size)
    lying = memory._replace(w=(column, channel, *along), w_group=channels * channel)
    found = scattered_plan(problem, mirrored(axes), lying, limit, threads, isa, kept=False)
    return found and copied(found, problem, memory, lying, isa)


def few_pixels_plan(
    problem: Problem,
    axes: Axes,
    memory: Memory,
    several: int,
    steps: Ints,
    limit: int,
    threads: int,
    isa: Isa,
    *,
    kept: bool,
) -> Scattered:
    """Plan an input gradient by so many images together, with weights that are rearranged once if they are `kept`.

    The steps are those from a column of the product to the next in w, and from a column of the gradient and a tap to
    the next in columns of the product.
    """
    batch, _, channels, columns, taps, size = problem
    unit, column_step, tap_step = steps
    count, counts, several = columns * math.prod(taps), tuple(axis.outputs for axis in axes), min(several, batch)
    wide, pixels = Problem(1, 1, channels, count, (1, 1, 1), size), math.prod(counts)
    line, room = scattered_few_bytes(several, pixels, channels, count, size)
    blocks, arrays = list[Block](), list[Array]()
    for images in (several, batch % several):
        if not images:
            continue
        # Of products, pixels lie innermost, or columns if those of w do; then a pixel has an odd number of lines.
        many = images * pixels
        step, place = (size, (count * size // LINE + 1 | 1) * LINE) if unit == size else (many * size, size)
        read, written = Array5(0, 0, many * size, 0, 0, size), Array5(0, 0, step, 0, 0, place)
        every = ((ONE, ONE, ONE._replace(outputs=many, size=many)),)
        lying = Memory(read, (unit, memory.w[1], 0, 0, 0), written, 0)
        # Threads share the columns, for there may be a single panel of pixels.
        parts, lying = columns_apart(wide, lying, threads)
        products = plan(parts, every, lying, limit - line - room, threads, isa, kept=kept)
        given = (axes, contiguous(counts, place), tap_step * step, memory.y[3:], size, columns, threads)
        lists = tables_of(*given, rows=False)
        numbers = (columns, column_step * step // size, memory.y.channel, memory.y.image, 0, 0, room // size)
        words = np.array([*tables(*lists), size, *numbers, pixels * place], np.int64)
        to = (pixels * size, many * size, *contiguous(counts, size))
        copy = copy_plan((images, channels, *counts), to, memory.x[1:], size)
        how = together(turner(size, isa), copy, copy)
        copying = np.array([*tables(how), 1, *[0] * 6], np.int64)
        blocks.append(Block(0, products, address(words), lists[0].size // 4, copying))
        arrays += [words, *lists, how]
    zeros, threads = np.zeros(columns, f"f{size}"), min(block.product.threads for block in blocks)
    places = places_of([block.product for block in blocks], kept=kept)
    full, rest = tuple(blocks[:1]), tuple(blocks[1:])
    return Scattered(full, rest, tuple(arrays), batch, several, memory.x.image, threads, room, line, zeros, places)
