"""Input gradients of few pixels with steps between them: what each makes of all columns and taps, then added up.

    P[pixel, column, tap] = sum over channels of dy[channel, pixel] w[channel, column, tap]
    dx[column, place] = sum of P[pixel, column, tap] over the pixels and taps with pixel * step + tap - low = place

The first is a product of matrices, whose second one are the weights as they lie in OIHW, or IOHW for transposed
convolutions; the other ways would turn all of them for a few pixels each. That is the gradient of im2col, and how
matrix libraries take it: 512 to 256 channels of 4 x 4 taps from 4 x 4 pixels in 0.8 ms, where turning weights took 2.1.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np

from ...layout import Array
from ...window import Ints
from .amounts import scattered_bytes, scatters
from .axes import ONE, Axes
from .correlation import Plan, plan
from .geometry import Array5
from .isa import Isa
from .machine import address, address_of, array_in, data_of, doubles_at, entry, listed, singles_at, tables, words_at
from .operands import Memory, Problem, window_step
from .parallel import SHARES, run_at
from .scratch import LINE, arena

WORDS = listed(5)


class Scattered(NamedTuple):
    """An input gradient by a product and sums of it; a `Weighted` plan."""

    product: Plan
    # Where the numbers of the sums are, and what these point to.
    at: int
    kept: tuple[Array, ...]
    batch: int
    pieces: int
    threads: int
    # The bytes of the product, and zeros in place of a bias.
    room: int
    zeros: Array

    @property
    def bytes(self) -> int:
        """Of the weights rearranged."""
        return self.product.bytes

    def rearrange(self, w: Array, target: Array | None) -> Array:
        """Rearrange the weights as the product has them."""
        return self.product.rearrange(w, target)

    def compute(self, x: Array, weights: Array, bias: Array | None, out: Array) -> None:
        """Multiply, and add up, one image after the other."""
        given = self.zeros if bias is None else np.ascontiguousarray(bias)
        with arena:
            found = arena.empty((self.room // x.itemsize,), x.dtype)
            for image in range(self.batch):
                self.product.compute(x[image : image + 1], weights, None, found)
                words = WORDS(self.at, id(found), id(given), id(out), image)
                run_at(add_up, address_of(words), self.pieces, self.threads)


def scattered_plan(
    problem: Problem, axes: Axes, memory: Memory, limit: int, threads: int, isa: Isa, *, kept: bool
) -> Scattered | None:
    """Plan an input gradient so, if pixels are few for their channels, and weights lie as said.

    The axes are those of the convolution.
    """
    batch, _, channels, columns, taps, size = problem
    count, pixels = math.prod(taps), tuple(axis.outputs for axis in axes)
    columns_of_w = memory._replace(w=(0, memory.w[0], *memory.w[2:]))
    lies = window_step(problem._replace(channels=columns), columns_of_w) == size
    if not (scatters(axes, problem.groups, channels) and lies and batch):
        return None
    row = columns * count * size + LINE  # an odd number of lines, as pixels would fall into one set of the cache else
    strides = (pixels[1] * pixels[2] * row, pixels[2] * row, row)
    wide = Problem(1, 1, channels, columns * count, (1, 1, 1), size)
    lying = Memory(memory.x, (size, memory.w[1], 0, 0, 0), Array5(0, 0, size, *strides), 0)
    every = tuple(ONE._replace(outputs=each, size=each) for each in pixels)
    room = scattered_bytes(axes, columns, size)
    product = plan(wide, (every,), lying, limit - room, threads, isa, kept=kept)
    parts = min(columns, SHARES * threads)
    edges = np.arange(parts + 1) * columns // parts
    lists = (edges, *terms(axes, strides, memory.y[3:], size))
    words = np.array([*tables(*lists), size, columns, count, memory.y.channel, memory.y.image], np.int64)
    zeros = np.zeros(columns, f"f{size}")
    return Scattered(product, address(words), (words, *lists), batch, parts, product.threads, room, zeros)


def terms(axes: Axes, pixels: Ints, places: Ints, size: int) -> tuple[Array, Array, Array]:
    """Where results of a column lie, in bytes, the first of each one's terms, and where all these lie in its products.

    Examples
    --------
    >>> from convkernels.kernels.compiled.axes import Axis
    >>> axis = Axis(2, 2, ((0, -1), (1, 0), (2, 1)), 4)  # 4 results of 2 pixels with 3 taps
    >>> [each.tolist() for each in terms((ONE, ONE, axis), (0, 0, 12), (0, 0, 4), 4)]
    [[0, 4, 8, 12], [0, 1, 3, 4, 5], [1, 2, 3, 4, 5]]
    """
    results, found, taps = np.zeros(1, np.int64), np.zeros((1, 2), np.int64), 1
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
    """Add up some pieces of the columns.

    The arguments are the address of a plan, by their ``id`` the products, the bias or zeros, and the results, and the
    image. The plan has four tables: the columns at which pieces begin, and those of `terms`. Then there are the size of
    an element, the columns and the taps, and strides of the results along columns and images.
    """
    arrays = words_at(words, 5)
    given = words_at(arrays[0], 13)
    edges, results, starts, terms = array_in(given, 0), array_in(given, 1), array_in(given, 2), array_in(given, 3)
    size, columns, taps = given[8], given[9], given[10]
    products, bias, out = data_of(arrays[1]), data_of(arrays[2]), data_of(arrays[3]) + arrays[4] * given[12]
    for column in range(edges[begin], edges[end]):
        y, p = out + column * given[11], products + column * taps * size
        if size == 4:
            first, singles = singles_at(bias, columns)[column], singles_at(p, taps)
            for place in range(results.size):
                found = total(singles, terms, starts[place], starts[place + 1], first)
                singles_at(y + results[place], 1)[0] = found
        else:
            start, doubles = doubles_at(bias, columns)[column], doubles_at(p, taps)
            for place in range(results.size):
                doubles_at(y + results[place], 1)[0] = total(doubles, terms, starts[place], starts[place + 1], start)
