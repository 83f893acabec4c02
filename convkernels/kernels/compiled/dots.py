"""Windows that take in a whole picture: each output is a product of two vectors.

    out[i, o] = bias[o] + sum over k of x[i, k] w[o, k]        k: input channels and taps, in the order of w's memory

The filters are what there is to move, 4 MB for 1024 to 1024 channels of one pixel, and a tile would have to turn them
first, for its vectors are of output channels. Here vectors go along k, a few images by a few filters at a time: with so
many vectors of sums for m images and n filters, m + n loads serve m n multiply-adds. In the order of its sum no output
knows of the others: where images lie innermost, numbers of x are gathered, so that a batch of one adds up alike.

Filters lie each in one piece, or a few `inner` to k: then as many vectors of w as there are filters hold as many k as a
vector has lanes, and are multiplied with x spread in the same way. Such sums are of one k modulo the lanes and one
filter in each lane.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir

from ...layout import Array
from ...views import slices
from .axes import Axes
from .filters import split
from .isa import Isa
from .machine import address, address_of, array_in, data_of, entry, fixed, invoke, listed, tables, words_at
from .operands import Memory, Problem, without_gaps
from .parallel import run_at
from .tile import INDEX, WORD, Emitter, Shape, compiled
from .weighted import Weighted, copied

LEAST = 4
"""Vectors of a sum from which on adding up its lanes is little."""
IMAGES, FILTERS = 4, 8
"""The most images and filters of a block."""
PIECE = 2**17
"""Bytes of filters that a thread takes at a time, at least."""
ARGUMENTS = (
    *("x", "w", "init", "out", "whole", "columns", "offsets"),
    *("x_row", "w_row", "init_row", "out_row", "out_column"),
)
"""What a block takes: addresses, whole vectors of k, what is left of it, offsets of numbers of x, strides in bytes."""
WORDS = listed(5)


class Block(Emitter):
    """Emits the products of a few images, whose numbers may lie `apart`, and filters, which may lie `inner`."""

    def __init__(self, images: int, filters: int, itemsize: int, lanes: int, *, apart: bool, inner: bool) -> None:
        super().__init__(Shape(images, 1, itemsize, masked=True), lanes, ARGUMENTS)
        self.filters, self.apart, self.inner = filters, apart, inner
        suffix = f"v{lanes}f{8 * itemsize}"
        self.many = ir.VectorType(WORD, lanes)
        pointers, mask = ir.VectorType(self.element.as_pointer(), lanes), ir.VectorType(ir.IntType(1), lanes)
        given = pointers, INDEX, mask, self.vector
        self.gather = self.declare(f"llvm.masked.gather.{suffix}.v{lanes}p0", self.vector, *given)
        given = self.many.as_pointer(), INDEX, mask, self.many
        self.load_offsets = self.declare(f"llvm.masked.load.v{lanes}i64.p0", self.many, *given)
        self.add_up = self.declare(f"llvm.vector.reduce.fadd.{suffix}", self.element, self.element, self.vector)

    def emit(self) -> str:
        """The block as LLVM assembly."""
        build, given, images, filters = self.build, self.given, range(self.shape.rows), range(self.filters)
        masks, step = self.masks, self.word(self.lanes * self.shape.itemsize)
        x_step = self.word(8 * self.lanes) if self.apart else step
        w_step = self.at(self.word(0), step, self.filters if self.inner else 1)

        def add(_: Any, x: Any, w: Any, *sums: Any) -> list[Any]:
            rows, cells = self.rows(w), self.cells(x)
            every = zip(product(cells, enumerate(rows)), sums, strict=True)
            found = [
                build.call(self.multiply_add, [self.spread_out(cell, n), row, total])
                for (cell, (n, row)), total in every
            ]
            return [build.add(x, x_step), build.add(w, w_step), *found]

        zeros = [ir.Constant(self.vector, [0.0] * self.lanes)] * (len(images) * len(filters))
        self.masks = [None]
        x = given["offsets"] if self.apart else given["x"]
        state = self.loop(given["whole"], [x, given["w"], *zeros], add)
        self.masks = masks
        _, _, *sums = add(None, *state)
        for m, n in product(images, filters):
            init = self.load(self.at(given["init"], given["init_row"], n), self.element)
            found = self.total(sums[m * len(filters) : (m + 1) * len(filters)], n)
            place = self.at(self.at(given["out"], given["out_row"], m), given["out_column"], n)
            stored = build.store(build.fadd(init, found), build.inttoptr(place, self.element.as_pointer()))
            stored.align = self.shape.itemsize
        build.ret_void()
        return str(self.module)

    def rows(self, w: Any) -> list[Any]:
        """A vector of each filter, or of all as they follow each other."""
        if not self.inner:
            return [self.load_row(self.at(w, self.given["w_row"], n))[0] for n in range(self.filters)]
        step, left, found = self.lanes * self.shape.itemsize, self.given["columns"], []
        masks, whole = self.masks, self.masks[0] is None
        for n in range(self.filters):
            if not whole:
                count = self.build.sub(self.at(self.word(0), left, self.filters), self.word(n * self.lanes))
                self.masks = [self.below(count)]
            found += self.load_row(self.build.add(w, self.word(n * step)))
        self.masks = masks
        return found

    def spread_out(self, cell: Any, number: int) -> Any:
        """Numbers of x as a vector of filters that follow each other needs them."""
        if not self.inner:
            return cell
        places = [(number * self.lanes + lane) // self.filters for lane in range(self.lanes)]
        return self.build.shuffle_vector(cell, cell, ir.Constant(ir.VectorType(INDEX, self.lanes), places))

    def total(self, sums: list[Any], filter_: int) -> Any:
        """The sum of a filter."""
        build = self.build
        if not self.inner:  # in halves, quarters and so on
            zero = ir.Constant(self.element, -0.0)
            return build.call(self.add_up, [zero, sums[filter_]], fastmath=("reassoc",))
        places = (divmod(k * self.filters + filter_, self.lanes) for k in range(self.lanes))
        parts = [build.extract_element(sums[vector], ir.Constant(INDEX, lane)) for vector, lane in places]
        while len(parts) > 1:
            parts = [build.fadd(one, other) for one, other in zip(parts[::2], parts[1::2], strict=True)]
        return parts[0]

    def cells(self, x: Any) -> list[Any]:
        """A vector of numbers of each image, or those at a vector of offsets."""
        build, given, images = self.build, self.given, range(self.shape.rows)
        if not self.apart:
            return [self.load_row(self.at(x, given["x_row"], m))[0] for m in images]
        zeros, none = ir.Constant(self.vector, [0.0] * self.lanes), ir.Constant(self.many, [0] * self.lanes)
        mask = self.masks[0] or ir.Constant(ir.VectorType(ir.IntType(1), self.lanes), [1] * self.lanes)
        table = build.inttoptr(x, self.many.as_pointer())
        offsets = build.call(self.load_offsets, [table, ir.Constant(INDEX, 8), mask, none])
        found = []
        for m in images:
            places = build.add(offsets, self.spread(self.at(given["x"], given["x_row"], m), self.many))
            pointers = build.inttoptr(places, ir.VectorType(self.element.as_pointer(), self.lanes))
            found.append(build.call(self.gather, [pointers, self.alignment, mask, zeros]))
        return found


@lru_cache(maxsize=64)
def code(images: int, filters: int, itemsize: int, isa: Isa, *, apart: bool, inner: bool) -> int:
    """Where the code of a block is."""
    block = Block(images, filters, itemsize, isa.lanes(itemsize), apart=apart, inner=inner)
    return compiled(block.emit(), "tile", isa)


class Dots(NamedTuple):
    """Products of pictures and filters, as far as they are known without data; a `Weighted` plan."""

    at: int
    kept: tuple[Array, ...]
    pieces: int
    threads: int
    zeros: Array

    @property
    def bytes(self) -> int:
        """None: weights are read as they lie."""
        return 0

    def rearrange(self, w: Array, target: Array | None) -> Array:
        """Take the weights as they lie."""
        assert target is None, "there are no bytes"
        return w

    def compute(self, x: Array, weights: Array, bias: Array | None, out: Array) -> None:
        """Multiply."""
        given = self.zeros if bias is None else np.ascontiguousarray(bias)
        words = WORDS(self.at, id(x), id(weights), id(given), id(out))
        run_at(multiply, address_of(words), self.pieces, self.threads)


@lru_cache(maxsize=512)
def dots_plan(problem: Problem, axes: Axes, memory: Memory, threads: int, isa: Isa) -> Weighted | None:
    """Plan products of whole pictures, if each output is one, along x and w from end to end."""
    batch, groups, channels, columns, taps, size = problem
    depth, x, lanes = channels * math.prod(taps), memory.x, isa.lanes(size)
    # Filters with gaps are copied, so that a plan, whose copy has none, adds up in the same order.
    given, memory = memory, without_gaps(problem, memory)
    offsets = offsets_of(problem, axes, memory, isa.registers // 2)
    if depth < LEAST * lanes or not batch or offsets is None:
        return None
    apart = not np.array_equal(offsets, size * np.arange(depth))
    inner = columns > 1 and memory.w[0] == size
    height = min(batch, IMAGES)
    width = min(FILTERS, (isa.registers - 1) // (height + 1))  # sums, vectors of filters, and one of an image
    if inner:
        height, width = min(batch, max(1, isa.registers // columns - 1)), columns
    (images, heights), (filters, widths) = split(batch, height), split(columns, width)
    # Blocks are of one size or two.
    shapes = product((heights[0], heights[-1]), (widths[0], widths[-1]))
    codes = [code(m, n, size, isa, apart=apart, inner=inner) for m, n in shapes]
    several = max(1, PIECE // (widths[0] * depth * size)) if threads > 1 else len(widths)
    pieces = [(group, part.start, part.stop) for group in range(groups) for part in slices(len(widths), several)]
    firsts = [
        np.stack([starts, np.array(sizes) < sizes[0]], -1) for starts, sizes in ((images, heights), (filters, widths))
    ]
    lists = tuple(np.array(each, np.int64).reshape(-1) for each in (*firsts, codes, pieces, offsets if apart else []))
    start = sum(axis.lowest * stride for axis, stride in zip(axes, x[3:], strict=True))
    strides = (start, x.group, x.image, memory.w_group, memory.w[0], *memory.y[:3])
    words = np.array([*tables(*lists), depth // lanes, depth % lanes, size, columns, *strides], np.int64)
    zeros = np.zeros(groups * columns, f"f{size}")
    found = Dots(address(words), (words, *lists), len(pieces), threads, zeros)
    gaps = (memory.w_group, *memory.w[1:]) != (given.w_group, *given.w[1:])
    return copied(found, problem, given, memory, isa) if gaps else found


def offsets_of(problem: Problem, axes: Axes, memory: Memory, most: int) -> Array | None:
    """Where the numbers of x are that an image's one output takes, from the first on, in the order of w's memory.

    None where images have other outputs, or neither filters lie in one piece nor at most so many innermost.
    """
    along = [(problem.channels, memory.w[1], memory.x.channel)]
    for axis, count, w, x in zip(axes, problem.taps, memory.w[2:], memory.x[3:], strict=True):
        if axis.outputs != 1 or not axis.inside or [place for place, _ in axis.taps] != list(range(count)):
            return None
        along.append((count, w, x * (axis.taps[-1][1] - axis.lowest) // max(1, count - 1)))
    found, line = np.zeros(1, np.int64), problem.size
    if 1 < problem.columns <= most and memory.w[0] == line and problem.groups == 1:
        line *= problem.columns
    for count, w, x in sorted((each for each in along if each[0] > 1), key=lambda each: each[1]):
        if w != line:
            return None
        found, line = np.add.outer(x * np.arange(count), found).ravel(), line * count
    return found


@entry
def multiply(words: int, begin: int, end: int, unused: int) -> None:
    """Compute some of the pieces.

    The arguments are the address of a plan, and by their ``id`` x, the weights, the bias or zeros, and the results. The
    plan has five tables: the first image of each block and whether that is one of the smaller ones, the same of
    filters, the codes, for each piece its group, its first block of filters, and the one behind the last, and the
    offsets of what is apart in x. Then there are the whole vectors of a sum and what is left of it, the size of an
    element, the filters of a group, where in x to begin, and the strides of x along groups and images, of w along
    groups and filters, and of the results along groups, images and filters.
    """
    arrays = words_at(words, 5)
    given = words_at(arrays[0], 22)
    images, filters, codes, pieces = array_in(given, 0), array_in(given, 1), array_in(given, 2), array_in(given, 3)
    whole, left, size, columns, start = fixed(given[10:], 5)
    x_group, x_image, w_group, w_filter, y_group, y_image, y_filter = fixed(given[15:], 7)
    for place in range(begin, end):
        group, first, last = fixed(pieces[3 * place :], 3)
        x, w, y = (
            data_of(arrays[1]) + start + group * x_group,
            data_of(arrays[2]) + group * w_group,
            data_of(arrays[4]) + group * y_group,
        )
        init = data_of(arrays[3]) + group * columns * size
        for n in range(first, last):
            j, narrow = filters[2 * n], filters[2 * n + 1]
            for m in range(images.size // 2):
                i, low = images[2 * m], images[2 * m + 1]
                invoke(
                    codes[2 * low + narrow],
                    (
                        *(x + i * x_image, w + j * w_filter, init + j * size, y + i * y_image + j * y_filter),
                        *(whole, left, given[8], x_image, w_filter, size, y_image, y_filter),
                    ),
                )
