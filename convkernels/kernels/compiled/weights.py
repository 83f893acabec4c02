"""The strategy `direct` of weight gradients: the same tile, which now sums over pixels.

Its rows are input channels, its depth runs along the pixels of a row, and its taps are the rows of a block of images:

    dw[tap, c, o] = sum over rows and pixels of x[row * step + offset, pixel * step + offset, c] * dy[row, pixel, o]

Each sum of each part of the blocks belongs to one thread, which adds them in their order; so the result does not depend
on the threads.
"""

from __future__ import annotations

import math
from functools import lru_cache, partial
from typing import NamedTuple

import numba
import numpy as np
from numba import types

from ...layout import Array
from ...spec import ConvSpec
from ...window import Ints
from .amounts import PANEL, pieces_of, weight_amounts
from .axes import PAGE, Axes, contiguous, forward_axes
from .blocks import COPIES, LIST, SOURCE, SOURCES, TARGET, TARGETS, TURNERS, WORD, fill, following, move, pack, together
from .conv_plans import plan_weights, run_to_weights
from .copies import TURNER, Copy, Turner, copy_array, copy_plan, turner
from .filters import PACK_SERIAL, tallest, tiling, vectors_for
from .geometry import Array5, Piece, Source, Sums, Target, block_bytes, source, target
from .isa import Isa, host
from .machine import address, array_in, behind, doubles_at, entry, fixed, invoke, singles_at, tables, words, words_at
from .needs import workspace_weight_grad
from .operands import LOW_TILE, Memory, Problem, exchange, lying, rows_together, sizes, spread
from .parallel import run
from .scratch import LINE, arena, rounded
from .tile import AHEAD

GATHERED = 64
"""Rows of sums from which on copying the row of dy that they all read takes a few hundredths of the time."""
TURNED = 128
"""Output channels from which on turning the channels of x outside pays: what a tile reads are runs of pixels then, and
not a line of the cache, or a page, for each.
"""
SUMS = len(Sums._fields)
NEAR, FAR = 7 * 2**18, 2**22
"""Bytes of a block up to which a second-level cache keeps it, and of the input above which it does not stay near."""


@numba.njit(types.void(SOURCE, TARGET, words(Sums), TURNER, LIST, LIST, LIST, *[WORD] * 11), nogil=True, cache=True)  # type: ignore[untyped-decorator]
def weigh_group(
    s: Source,
    t: Target,
    sums: Sums,
    how: Turner,
    codes: Array,
    starts: Array,
    spans: Array,
    begin: int,
    end: int,
    x: int,
    dy: int,
    total: int,
    zeros: int,
    block: int,
    turned: int,
    part: int,
    group: int,
    filled: int,
) -> None:
    """Sum one part for a group's panels from `begin` to `end`, the first one's at `total`.

    `spans` has for each tap of the last axis the first pixel of a row that it reaches, and the one behind the last.
    `block` and `turned` are for copies of x and dy, of which that of x may be `filled` already.
    """
    a_offsets = np.empty(sums.block_images * sums.block_d * sums.block_h, np.int64)
    b_offsets = np.empty_like(a_offsets)
    along_h, along_d = -(-sums.outs_h // sums.block_h), -(-sums.outs_d // sums.block_d)
    blocks = -(-sums.images // sums.block_images) * along_d * along_h
    init_row, step = 0, s.step_w * s.read_w
    behind = blocks * (part + 1) // sums.parts
    for number in range(blocks * part // sums.parts, behind):
        h = number % along_h * sums.block_h
        d = number // along_h % along_d * sums.block_d
        image = number // (along_h * along_d) * sums.block_images
        images = min(sums.block_images, sums.images - image)
        ds, hs = min(sums.block_d, sums.outs_d - d), min(sums.block_h, sums.outs_h - h)
        piece = Piece(group, image, images, d, ds, h, hs)
        origin = x + group * s.group + image * s.image
        read = block
        if s.lies:
            read = origin + (s.low_d + d * s.out_step_d) * s.d + (s.low_h + h * s.out_step_h) * s.h + s.low_w * s.w
        elif not filled:
            fill(s, how, piece, origin, block)
        given = dy + group * t.group + image * t.image + d * t.d + h * t.h + begin * t.width * t.channel
        # What the next block reads is fetched meanwhile, a line in each step, and of dy under the same conditions.
        coming_x, bytes_x = following(s, piece)
        coming_x, coming_y, bytes_y, fetched = origin + coming_x, given + hs * t.h, 0, 0
        if t.channel == t.size and t.w <= 2 * t.panels * t.width * t.size:
            bytes_y = images * hs * t.h
        if number == behind - 1:
            bytes_x = bytes_y = 0
        if not t.stored:
            for panel in range(end - begin):
                columns = t.last if begin + panel == t.panels - 1 else t.width
                there = given + panel * t.width * t.channel
                move(t, how, piece, turned + panel * sums.panel_y, there, columns, 1)
            given = turned
        for tap in range(sums.taps_d * sums.taps_h):
            tap_d, tap_h = tap // sums.taps_h, tap % sums.taps_h
            # Other rows would only add zeros, as would other pixels of a row.
            first_d = s.low_d + d * s.out_step_d + tap_d * sums.spread_d
            first_h = s.low_h + h * s.out_step_h + tap_h * sums.spread_h
            low_d, high_d = -(first_d // s.out_step_d), (s.in_d - 1 - first_d) // s.out_step_d + 1
            low_h, high_h = -(first_h // s.out_step_h), (s.in_h - 1 - first_h) // s.out_step_h + 1
            row = 0
            for i in range(images):
                for j in range(max(0, low_d), min(ds, high_d)):
                    for k in range(max(0, low_h), min(hs, high_h)):
                        a_offsets[row] = i * s.read_image + j * s.step_d * s.read_d + k * s.step_h * s.read_h
                        b_offsets[row] = i * t.kept_image + j * t.kept_d + k * t.kept_h
                        row += 1
            for one in range(starts.size if sums.across else end - begin):
                for tap_w in range(sums.taps_w):
                    first, depth = spans[2 * tap_w], spans[2 * tap_w + 1] - spans[2 * tap_w]
                    a = read + tap_d * sums.tap_d + tap_h * sums.tap_h + tap_w * sums.tap_w + first * step
                    c = total + tap_d * sums.d + tap_h * sums.h + tap_w * sums.w
                    for other in range(end - begin if sums.across else starts.size):
                        panel, n = (other, one) if sums.across else (one, other)
                        is_last = begin + panel == t.panels - 1
                        wide, code = (t.last, starts.size) if is_last else (t.width, 0)
                        b = given + panel * sums.panel_y + first * t.kept_w
                        tile = c + panel * t.width * t.size + starts[n] * sums.channel
                        init = tile if init_row else zeros
                        ahead, ahead_step = coming_x + fetched, LINE
                        if fetched >= bytes_x + bytes_y:
                            ahead, ahead_step = a, 0
                        elif fetched >= bytes_x:
                            ahead = coming_y + fetched - bytes_x
                        fetched += row * depth * LINE
                        invoke(
                            codes[code + n],
                            (
                                *(a + starts[n] * sums.row, b, tile, init),
                                *(a_offsets.ctypes.data, b_offsets.ctypes.data, row, depth),
                                *(sums.row, step, t.kept_w, AHEAD * t.kept_w, sums.channel, init_row),
                                *(wide, tile, ahead, ahead_step, 0),
                            ),
                        )
        init_row = sums.channel


@numba.njit(inline="always")  # type: ignore[untyped-decorator]
def add(totals: Array, sums: Array) -> None:
    """Add numbers to others."""
    for place in range(totals.size):
        totals[place] += sums[place]


@entry
def weigh(words: int, begin: int, end: int, block: int) -> None:
    """Sum some of the panels of all groups of all parts.

    The arguments are four tables, the address of zeros, the bytes of a block of x, which copies of dy follow, where
    behind them there is room for a panel's sums, the number of groups, and three addresses.
    """
    given = words_at(words, 15)
    numbers, codes, starts, spans = array_in(given, 0), array_in(given, 1), array_in(given, 2), array_in(given, 3)
    zeros, turned, kept, groups = given[8], block + given[9], block + given[10], given[11]
    x, dy, out = given[12], given[13], given[14]
    s, t = Source(*fixed(numbers, SOURCES)), Target(*fixed(numbers[SOURCES:], TARGETS))
    rest = numbers[SOURCES + TARGETS :]
    how, sums = Turner(*fixed(rest, TURNERS)), Sums(*fixed(rest[TURNERS:], SUMS))
    copies = rest[TURNERS + SUMS :]
    for place in range(begin // t.panels, (end - 1) // t.panels + 1):
        first, last = max(0, begin - place * t.panels), min(t.panels, end - place * t.panels)
        part, group = place // groups, place % groups
        several, slot = last - first, part
        if sums.single:
            several = 1
        if sums.alone:
            slot = min(1, part)
        for panel in range(first, last, several):
            there = out + slot * sums.part + group * sums.group + panel * sums.panel
            total = kept if sums.moved else there
            weigh_group(
                *(s, t, sums, how, codes, starts, spans, panel, panel + several, x, dy, total),
                *(zeros, block, turned, part, group, panel > first),
            )
            if sums.moved:
                copy_array(how, Copy(*fixed(copies[(panel == t.panels - 1) * COPIES :], COPIES)), there, total)
        if sums.alone and part > 0:
            one, count = out + group * sums.group, sums.group // s.size
            if s.size == 4:
                add(singles_at(one, count), singles_at(one + sums.part, count))
            else:
                add(doubles_at(one, count), doubles_at(one + sums.part, count))


class WeightPlan(NamedTuple):
    """A weight gradient as far as it is known without data.

    Arguments lack some addresses at the end; `kept` is what they point to. Sums that are made elsewhere than in w need
    memory for `totals`, and `copying`: they are of some parts, which threads share.
    """

    words: Array
    copying: Array
    kept: tuple[Array, ...]
    panels: int
    threads: int
    room: int
    totals: Ints
    exchanged: bool
    parts: int


def weight_plan(
    problem: Problem,
    axes: Axes,
    dilation: Ints,
    x: Array5,
    dy: Array5,
    w: Ints,
    limit: int,
    threads: int,
    isa: Isa,
    *,
    exchanged: bool = False,
) -> WeightPlan:
    """Plan a weight gradient; `w` holds the strides between groups, of output and input channels, and of taps."""
    batch, groups, channels, columns, taps, size = problem
    all_of_x = batch * math.prod(axis.size for axis in axes) * x.w
    if (pieces := pieces_of(axes, channels + columns, size)) != axes:
        axes, x, dy = pieces, x._replace(h=x.w), dy._replace(h=dy.w)
    amounts, parts = weight_amounts(axes, batch, groups, channels, columns, size, limit)
    threads = amounts.threads(threads, limit)
    (axes,), memory, several = rows_together((axes,), Memory(x, (), dy, 0), amounts.rows[1])
    x, dy, amounts = memory.x, memory.y, amounts._replace(rows=(amounts.rows[0], amounts.rows[1] // several))
    counts = (amounts.images, *amounts.rows, axes[2].outputs)
    cuts = [-(-many // each) for many, each in zip((batch, axes[0].outputs, axes[1].outputs), counts, strict=False)]
    parts = min(parts, math.prod(cuts))
    # Threads share the panels of all groups and parts, of which there had better be one for each.
    shared = -(-columns // -(-threads // (groups * parts)))
    # Panels of dy that many rows of tiles read had better be copied, from rows that lie apart.
    apart = columns * size > PANEL
    given = (dy.channel == size or columns == 1) and not (apart and channels * math.prod(taps) >= GATHERED)
    turned = channels >= LOW_TILE and columns >= TURNED
    inner = channels < LOW_TILE or (x.channel == size and not turned)
    # Pixels that fall into few sets of the cache had better be copied where they come from far.
    scattered = axes[2].step * x.w % (PAGE // 2) == 0 and all_of_x > FAR
    # Few channels' rows of tiles run over taps, too, which must exist; and more rows had better not lie pages apart.
    vectors = vectors_for(channels, shared, size, isa)
    many = channels >= LOW_TILE and min(channels, isa.rows(vectors)) <= tallest(vectors, x.channel, isa)
    lies = not scattered and not (turned and x.channel == size) and (many or all(axis.inside for axis in axes))
    read = source(axes, amounts, x, channels, size, lies=lies, inner=inner)
    steps = [step * stride for step, stride in zip(dilation, (read.read_d, read.read_h, read.read_w), strict=True)]
    # Few channels make rows of tiles together with the taps of the last axis, where these follow each other.
    merged = channels < LOW_TILE and (channels == 1 or steps[2] == channels * read.read_channel)
    rows, taps_w, row = channels, taps[2], read.read_channel
    spans = np.array(axes[2].reached, np.int64).ravel()
    if merged:
        spans = np.array([0, axes[2].outputs])
        rows, taps_w, row = channels * taps[2], 1, steps[2] if channels == 1 else row
    tile = tiling((rows,), columns, vectors_for(rows, shared, size, isa), size, isa)
    # Where the output channels of w follow each other, tiles write to it. Else the sums of a panel are moved there once
    # they are complete, from the cache, if there is but one block, and x stays there; else those of all panels at last.
    straight, once = parts == 1 and w[1] == size and not merged, math.prod(cuts) == 1
    cells = (min(axis.size, axis.block.reach(count)) for axis, count in zip(axes, counts[1:], strict=True))
    bytes_x = amounts.images * math.prod(cells) * channels * size
    bytes_y = math.prod(counts) * columns * size
    moved = once and not straight and bytes_x <= NEAR and threads * tile.width <= max(tile.width, groups * columns)
    # Tiles had better go along the rows of w if dy stays in the cache, or is read for one tap alone and x does not.
    # Else they go over all taps of a panel.
    across = not moved and bytes_y <= max(NEAR, bytes_x if math.prod(taps) == 1 else 0)
    single = moved or (once and straight and not across)
    wide = min(tile.width, columns) if single else columns
    grads = target(axes, amounts, dy, tile, tile.width if apart else wide, size, stored=given)
    block_y = grads.kept_image * amounts.images
    panel_y = block_y if apart and not given else tile.width * size
    # Sums lie in the order of w where rows of tiles allow: where its taps lie within channels, these are then one axis.
    if straight:
        within: Ints = (*w[3:], w[2])
    elif not merged and w[2] > max(w[3:]):
        channel, *strides = contiguous((channels, *taps, wide), size)[:4]
        within = (*strides, channel)
    else:
        within = contiguous((*taps, channels, wide), size)[:4]
    group = math.prod(taps) * channels * columns * size
    ends = (w[0], tile.width * w[1]) if straight or moved else (group, tile.width * size)
    numbers = (
        *(*taps[:2], taps_w, *within, *ends, *steps),
        *(batch, axes[0].outputs, axes[1].outputs, amounts.images, *amounts.rows),
        *(*dilation[:2], row, parts, groups * group, int(single), int(moved), int(across), panel_y),
        int(threads == 1 < parts),
    )
    sums = Sums._make(numbers)
    block = block_bytes(read, axes, amounts)
    copy_y = 0 if given else rounded(block_y * (tile.panels if apart and not single else 1))
    # (group and) output channel, input channel, taps: from the order of the sums to that of w.
    order = (size, within[3], *within[:3])
    whole, last = (copy_plan((count, channels, *taps), w[1:], order, size) for count in (tile.width, tile.last))
    zeros = np.zeros(tile.width, f"f{size}")
    how = turner(size, isa)
    weighing, copies = together(read, grads, how, sums, whole, last), together(how, whole, last)
    words = [*tables(weighing, tile.codes, tile.starts, spans), address(zeros), block, block + copy_y, groups, 0, 0, 0]
    copying = [*tables(copies), tile.panels, w[0], tile.width * w[1], group, tile.width * size, 0, 0]
    panel = math.prod(taps) * channels * wide * size if moved else 0
    return WeightPlan(
        *(
            np.array(words, np.int64),
            np.array(copying, np.int64),
            (weighing, tile.codes, tile.starts, spans, zeros, copies),
        ),
        *(groups * tile.panels, threads, block + copy_y + rounded(panel)),
        *(() if straight or moved else (min(parts, 2) if threads == 1 else parts, groups * group // size), exchanged),
        parts,
    )


def run_weights(what: WeightPlan, x: Array, dy: Array, dw: Array) -> None:
    """Run one part."""
    words = what.words.copy()
    words[-3:] = (address(dy), address(x), 0) if what.exchanged else (address(x), address(dy), 0)
    if not what.totals:
        words[-1] = address(dw)
        run(weigh, words, what.panels, what.threads, what.room)
        return
    with arena:
        totals = arena.empty(what.totals, x.dtype)
        words[-1] = address(totals)
        run(weigh, words, what.parts * what.panels, what.threads, what.room)
        for part in totals[1:] if what.threads > 1 else ():
            totals[0] += part
        words = what.copying.copy()
        words[-2], words[-1] = address(dw), address(totals)
        run(pack, words, what.panels, what.threads if totals[0].nbytes > PACK_SERIAL else 1)


class Part(NamedTuple):
    """The weights to some output channels: their plan, and where they begin in dy and in dw, in bytes."""

    plan: WeightPlan
    read: int
    written: int


@lru_cache(maxsize=512)
def weight_grad_plan(spec: ConvSpec, x: Ints, dy: Ints, out: Ints, limit: int, threads: int) -> tuple[Part, ...]:
    """The plan of a weight gradient, in parts if the limit has no room for all sums."""

    def part(channels: slice) -> Part:
        whole = whole_plan(workspace_weight_grad.part(spec, channels), x, dy, out, limit, threads)
        return Part(whole, channels.start * dy[1], channels.start * out[0])

    return tuple(map(part, workspace_weight_grad.parts(spec, limit)))


def whole_plan(spec: ConvSpec, x: Ints, dy: Ints, out: Ints, limit: int, threads: int) -> WeightPlan:
    """The plan of one whose sums fit the limit."""
    ins, outs = spec.group_in, spec.group_out
    dilation = (1,) * (3 - spec.window.rank) + spec.window.dilation
    given = (
        *(sizes(spec, ins, outs), forward_axes(spec), dilation, lying(x, ins), lying(dy, outs)),
        (outs * out[0], *spread(out)),
    )
    other = exchange(*given)
    return weight_plan(*(other or given), limit, threads, host(), exchanged=other is not None)


def run_parts(parts: tuple[Part, ...], x: Array, dy: Array, dw: Array) -> None:
    """Run a planned weight gradient."""
    for plan, read, written in parts:
        run_weights(plan, x, behind(dy, read), behind(dw, written))


conv_weight_grad = partial(run_to_weights, weight_grad_plan, run_parts)
plan_weight_grad = partial(plan_weights, weight_grad_plan, run_parts)
