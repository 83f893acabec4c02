"""The strategy `direct` of weight gradients: the same tile, which now sums over pixels.

Its rows are input channels, its depth runs along the pixels of a row, and its taps are the rows of a block of images:

    dw[tap, c, o] = sum over rows and pixels of x[row * step + offset, pixel * step + offset, c] * dy[row, pixel, o]

Each sum belongs to one thread, which adds the blocks in their order, so the result does not depend on the threads.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numba
import numpy as np
from numba import types

from ...config import Resources
from ...layout import Array
from ...spec import ConvSpec
from ...window import Ints
from .axes import Axes, contiguous, forward_axes, weight_amounts
from .blocks import LIST, SOURCE, SOURCES, TARGET, TARGETS, TURNERS, WORD, fill, move, pack, together, words
from .copies import TURNER, Turner, copy_plan, turner
from .filters import tiling, vectors_for
from .geometry import Array5, Piece, Source, Sums, Target, cells_of, source, target
from .isa import Isa, host
from .machine import address, array_in, entry, fixed, invoke, tables, words_at
from .operands import Problem, lying, sizes, spread
from .parallel import run
from .scratch import arena, rounded
from .thread_count import now_usable

SUMS = len(Sums._fields)


@numba.njit(types.void(SOURCE, TARGET, words(Sums), TURNER, LIST, LIST, *[WORD] * 9), nogil=True, cache=True)  # type: ignore[untyped-decorator]
def weigh_group(
    s: Source,
    t: Target,
    sums: Sums,
    how: Turner,
    codes: Array,
    starts: Array,
    begin: int,
    end: int,
    x: int,
    dy: int,
    total: int,
    zeros: int,
    block: int,
    turned: int,
    group: int,
) -> None:
    """Sum one group's panels from `begin` to `end`; `block` and `turned` are memory for what is copied of x and dy."""
    across = begin * t.width * t.size
    columns = (t.last if end == t.panels else t.width) + (end - begin - 1) * t.width
    a_offsets = np.empty(sums.block_images * sums.block_d * sums.block_h, np.int64)
    b_offsets = np.empty_like(a_offsets)
    init_row = 0
    for image in range(0, sums.images, sums.block_images):
        for d in range(0, sums.outs_d, sums.block_d):
            for h in range(0, sums.outs_h, sums.block_h):
                images = min(sums.block_images, sums.images - image)
                ds, hs = min(sums.block_d, sums.outs_d - d), min(sums.block_h, sums.outs_h - h)
                piece = Piece(group, image, images, d, ds, h, hs)
                origin = x + group * s.group + image * s.image
                read = block
                if s.lies:
                    read = origin + (s.low_d + d * s.out_step_d) * s.d + (s.low_h + h * s.out_step_h) * s.h
                    read += s.low_w * s.w
                else:
                    fill(s, how, piece, origin, block)
                given = dy + group * t.group + image * t.image + d * t.d + h * t.h + begin * t.width * t.channel
                if not t.stored:
                    move(t, how, piece, turned, given, columns, 1)
                    given = turned
                row = 0
                for i in range(images):
                    for j in range(ds):
                        for k in range(hs):
                            a_offsets[row] = i * s.read_image + j * s.step_d * s.read_d + k * s.step_h * s.read_h
                            b_offsets[row] = i * t.kept_image + j * t.kept_d + k * t.kept_h
                            row += 1
                for tap_d in range(sums.taps_d):
                    for panel in range(end - begin):
                        wide = t.last if begin + panel == t.panels - 1 else t.width
                        b = given + panel * t.width * t.size
                        for tap_h in range(sums.taps_h):
                            for tap_w in range(sums.taps_w):
                                a = read + tap_d * sums.tap_d + tap_h * sums.tap_h + tap_w * sums.tap_w
                                c = total + group * sums.group + across + panel * t.width * t.size
                                c += tap_d * sums.d + tap_h * sums.h + tap_w * sums.w
                                for n in range(codes.size):
                                    tile = c + starts[n] * sums.channel
                                    begun = (tile, sums.channel) if init_row else (zeros, 0)
                                    invoke(
                                        codes[n],
                                        (
                                            *(a + starts[n] * s.read_channel, b, tile, begun[0]),
                                            *(a_offsets.ctypes.data, b_offsets.ctypes.data, row, t.outs_w),
                                            *(s.read_channel, s.step_w * s.read_w, t.kept_w, sums.channel, begun[1]),
                                            *(wide, a, 0),
                                        ),
                                    )
                init_row = sums.channel


@entry
def weigh(words: int, begin: int, end: int, block: int) -> None:
    """Sum some of the panels of all groups.

    The arguments are three tables, the address of zeros, the bytes of a block of x, which copies of dy follow, and
    three addresses.
    """
    given = words_at(words, 11)
    numbers, codes, starts = array_in(given, 0), array_in(given, 1), array_in(given, 2)
    zeros, turned, x, dy, total = given[6], block + given[7], given[8], given[9], given[10]
    s, t = Source(*fixed(numbers, SOURCES)), Target(*fixed(numbers[SOURCES:], TARGETS))
    rest = numbers[SOURCES + TARGETS :]
    how, sums = Turner(*fixed(rest, TURNERS)), Sums(*fixed(rest[TURNERS:], SUMS))
    for group in range(begin // t.panels, (end - 1) // t.panels + 1):
        first, last = max(0, begin - group * t.panels), min(t.panels, end - group * t.panels)
        weigh_group(s, t, sums, how, codes, starts, first, last, x, dy, total, zeros, block, turned, group)


class WeightPlan(NamedTuple):
    """A weight gradient as far as it is known without data.

    Arguments lack some addresses at the end; `kept` is what they point to.
    """

    words: Array
    copying: Array
    kept: tuple[Array, ...]
    panels: int
    groups: int
    threads: int
    room: int
    total: int


def weight_plan(
    problem: Problem, axes: Axes, dilation: Ints, x: Array5, dy: Array5, w: Ints, limit: int, threads: int, isa: Isa
) -> WeightPlan:
    """Plan a weight gradient; `w` holds the strides between groups, of output and input channels, and of taps."""
    batch, groups, channels, columns, taps, size = problem
    amounts = weight_amounts(axes, batch, groups, channels, columns, size, limit)
    tile = tiling(channels, columns, vectors_for(channels, columns, size, isa), size, isa)
    given = dy.channel == size or columns == 1
    read = source(axes, amounts, x, channels, size, lies=all(axis.inside for axis in axes), inner=x.channel == size)
    grads = target(axes, amounts, dy, tile, columns, size, stored=given)
    within = contiguous((*taps, channels, columns), size)
    group = math.prod(taps) * channels * columns * size
    numbers = (
        *(*taps, *within[:4], group),
        *(step * stride for step, stride in zip(dilation, (read.read_d, read.read_h, read.read_w), strict=True)),
        *(batch, axes[0].outputs, axes[1].outputs, amounts.images, *amounts.rows),
    )
    sums = Sums._make(numbers)
    counts = (amounts.images, *amounts.rows, axes[2].outputs)
    block = 0 if read.lies else amounts.images * math.prod(cells_of(tuple(a.block for a in axes), amounts)) * channels
    turned = 0 if given else math.prod(counts) * columns
    # (group and) output channel, input channel, taps: from the order of the sums to that of w.
    copy = copy_plan((columns, channels, *taps), w[1:], (size, within[3], *within[:3]), size)
    zeros = np.zeros(tile.width, f"f{size}")
    how = turner(size, isa)
    weighing, copies = together(read, grads, how, sums), together(how, copy, copy)
    words = [*tables(weighing, tile.codes, tile.starts), address(zeros), rounded(block * size), 0, 0, 0]
    copying = [*tables(copies), 1, w[0], 0, group, 0, 0, 0]
    return WeightPlan(
        *(np.array(words, np.int64), np.array(copying, np.int64), (weighing, tile.codes, tile.starts, zeros, copies)),
        *(groups * tile.panels, groups, amounts.threads(threads, limit)),
        *(rounded(block * size) + rounded(turned * size), groups * group),
    )


def run_weights(what: WeightPlan, x: Array, dy: Array, dw: Array) -> None:
    """Run a planned weight gradient."""
    with arena:
        total = arena.reserve(what.total)
        words = what.words.copy()
        words[-3], words[-2], words[-1] = address(x), address(dy), total
        run(weigh, words, what.panels, what.threads, what.room)
        words = what.copying.copy()
        words[-2], words[-1] = address(dw), total
        run(pack, words, what.groups)


@lru_cache(maxsize=512)
def weight_grad_plan(spec: ConvSpec, x: Ints, dy: Ints, out: Ints, limit: int, threads: int) -> WeightPlan:
    """The plan of a weight gradient."""
    ins, outs = spec.group_in, spec.group_out
    dilation = (1,) * (3 - spec.window.rank) + spec.window.dilation
    return weight_plan(
        *(sizes(spec, ins, outs), forward_axes(spec), dilation, lying(x, ins), lying(dy, outs)),
        *((outs * out[0], *spread(out)), limit, threads, host()),
    )


def conv_weight_grad(spec: ConvSpec, x: Array, dy: Array, *, out: Array, resources: Resources) -> None:
    """Sum over images and pixels."""
    if not spec.batch:
        out[...] = 0
        return
    how = (resources.max_workspace, now_usable(resources.threads, spec.flops))
    found = weight_grad_plan(spec, x.strides, dy.strides, out.strides, *how)
    run_weights(found, x, dy, out)
