"""Blocks in which rows of outputs are one line: a tap has what it reads by itself, output by output.

    block[image, d, channel, tap of h, tap of w, row, output]
        = x[image, channel, low_d + d, low_h + row * step_h + tap * spread_h, low_w + output * step_w + tap * spread_w]

Vectors of pixels go on from one row of outputs to the next: of a picture of 14 x 14 just the last is filled in part.
Steps between outputs are gone.

Where the depth goes over all taps with their channels, as weights have them, this is the matrix that im2col makes, of
a few panels at a time, and weights are read where they lie. Elsewhere taps of h are found a row further on in the same
lines, for windows overlap: there is a `tap` of h for each remainder of its step only, with so many rows more. So x is
copied as often as the last axis has taps, and not as often as a window has, which is "MEC: Memory-efficient
Convolution for Deep Neural Network" (Cho and Brand, 2017), by blocks.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
from numba import types

from .amounts import LINES, Amounts, lines_of, lowered_cells, rows_of
from .axes import ONE, Axes, Axis, contiguous
from .copies import TURNER, Turner, copy_matrix
from .filters import Tiling
from .geometry import Array5, Piece, Source, Target, source
from .isa import Isa
from .machine import invoke, set_bytes, words
from .parallel import SHARES
from .spaced import address

TOGETHER = 8
"""Rows that are copied for all taps while the first-level cache has them."""


class Lowering(NamedTuple):
    """How to make a block of rows of outputs in one line."""

    # The code that copies rows of x whose cells follow each other, or 0.
    code: int
    # The taps along h and w that have lines of their own, and from one to the next in x, in cells, and in the block.
    taps_h: int
    taps_w: int
    spread_h: int
    spread_w: int
    apart_h: int
    apart_w: int
    # The outputs of a row, and of all of them; the rows that taps read beyond those of the outputs.
    outputs: int
    line: int
    more: int
    # The steps between outputs.
    step_h: int
    step_w: int


class Lowered(NamedTuple):
    """A correlation whose blocks are lowered.

    The axes that its tiles go along, what they read, how that is made, and how much of the outputs at a time: along d
    the rows of `amounts`, of each so many panels.
    """

    axes: Axes
    read: Source
    how: Lowering
    amounts: Amounts
    panels: int


def lowered(
    axes: Axes,
    x: Array5,
    pieces: int,
    channels: int,
    written: int,
    size: int,
    tile: Tiling,
    amounts: Amounts,
    threads: int,
    isa: Isa,
    *,
    whole: bool,
) -> Lowered:
    """Lower the blocks of a correlation of so many images and groups, the depth of which goes over `whole` windows.

    So many channels are `written` to memory of the same thread, and from there to where they belong.
    """
    d, h, w = axes
    outs_d, panels = d.outputs, tile.panels

    def fits() -> bool:
        outputs = panels * tile.width
        cells = channels * lowered_cells(axes, outs_d, outputs, whole=whole) + written * outs_d * outputs
        few = pieces * -(-d.outputs // outs_d) * -(-tile.panels // panels) < SHARES * threads
        return cells * size + LINES <= amounts.each and not (threads > 1 and few)

    while outs_d * panels > 1 and not fits():
        if outs_d > 1:
            outs_d = -(-outs_d // 2)
        else:
            panels = -(-panels // 2)
    rows = rows_of(axes, panels * tile.width)
    taps_h, more = lines_of(h, whole=whole)
    cells = (1, d.reach(outs_d), channels, taps_h, len(w.taps), rows + more, w.outputs)
    image, at_d, channel, apart_h, apart_w, row, _ = contiguous(cells, size)
    strides = {"read_image": image, "read_d": at_d, "read_channel": channel, "read_h": row, "read_w": apart_w}
    read = source(axes, amounts, x, channels, size, lies=False, inner=False)._replace(**strides)
    line = h.outputs * w.outputs
    how = Lowering(
        *(address(size, isa, w.step) if x.w == size else 0, taps_h, len(w.taps)),
        *(spread(h) if whole else 1, spread(w), apart_h, apart_w, w.outputs, line, more, h.step, w.step),
    )
    lines = (ONE, ONE._replace(outputs=line)) if whole else in_lines(h, w, apart_h // row)
    return Lowered((d, *lines), read, how, amounts._replace(images=1, rows=(outs_d, 1)), panels)


def spread(axis: Axis) -> int:
    """The cells from a tap to the next."""
    return axis.taps[1][1] - axis.taps[0][1] if len(axis.taps) > 1 else 1


def in_lines(h: Axis, w: Axis, apart: int) -> tuple[Axis, Axis]:
    """Two axes as tiles see them: one output along h, and along w those of all rows.

    Taps along h are so many rows further in a block, those a step apart beside each other, and each remainder of the
    step so many rows `apart`; taps along w have lines of their own.

    Examples
    --------
    >>> axis = Axis(4, 2, ((0, -1), (1, 0), (2, 1)), 8)
    >>> [lines.taps for lines in in_lines(axis, axis, 15)]
    [((0, 0), (1, 15), (2, 1)), ((0, 0), (1, 1), (2, 2))]
    """
    places = ((tap, offset - h.lowest) for tap, offset in h.taps)
    taps = tuple((tap, place % h.step * apart + place // h.step) for tap, place in places)
    along = tuple((tap, number) for number, (tap, _) in enumerate(w.taps))
    line = h.outputs * w.outputs
    return Axis(1, 1, taps, h.step * apart), Axis(line, 1, along, line + len(along))


LOWERING, SOURCE, TARGET, PIECE = map(words, (Lowering, Source, Target, Piece))


@numba.njit(types.void(SOURCE, LOWERING, TURNER, PIECE, *[types.int64] * 4), nogil=True, cache=True)  # type: ignore[untyped-decorator]
def lower(s: Source, how: Lowering, turner: Turner, piece: Piece, x: int, block: int, row: int, rows: int) -> None:
    """Copy what some rows of outputs read, of which the first is `row`, with zeros where that is outside the source."""
    line, step, rows = how.outputs * s.size, how.step_h * s.h, rows + how.more
    for d in range((piece.ds - 1) * s.step_d + s.span_d):
        in_d = s.low_d + piece.d * s.out_step_d + d * s.cell_step_d
        height = s.in_h if 0 <= in_d < s.in_d else 0
        origin, start = x + in_d * s.d, block + d * s.read_d
        for begin in range(0, rows, TOGETHER):
            count = min(TOGETHER, rows - begin)
            for tap_h in range(how.taps_h):
                in_h = s.low_h + (row + begin) * how.step_h + tap_h * how.spread_h
                above = min(count, max(0, -(in_h // how.step_h)))
                below = max(above, min(count, (height - 1 - in_h) // how.step_h + 1))
                for tap_w in range(how.taps_w):
                    in_w = s.low_w + tap_w * how.spread_w
                    cell = origin + (in_h + above * how.step_h) * s.h + in_w * s.w
                    to = start + tap_h * how.apart_h + tap_w * how.apart_w + begin * line
                    if how.code:
                        counts = (s.channels, above, below - above, count - below, how.outputs)
                        invoke(how.code, (cell, s.channel, step, to, s.read_channel, line, *counts, in_w, s.in_w))
                        continue
                    left = max(0, -(in_w // how.step_w))
                    right = max(left, min(how.outputs, (s.in_w - 1 - in_w) // how.step_w + 1))
                    for channel in range(s.channels):
                        set_bytes(to + channel * s.read_channel, count * line, 0)
                    for inside in range(below - above):
                        copy_matrix(
                            *(turner, to + (above + inside) * line + left * s.size, s.read_channel, s.size),
                            *(cell + inside * step + left * how.step_w * s.w, s.channel, how.step_w * s.w),
                            *(s.channels, right - left, 0),
                        )


@numba.njit(types.void(TARGET, LOWERING, TURNER, PIECE, *[types.int64] * 5), nogil=True, cache=True)  # type: ignore[untyped-decorator]
def move_lines(
    t: Target, how: Lowering, turner: Turner, piece: Piece, kept: int, array: int, begin: int, end: int, columns: int
) -> None:
    """Copy the outputs of lines from one place to the one before another to where they belong."""
    for d in range(piece.ds):
        for row in range(begin // how.outputs, (end - 1) // how.outputs + 1):
            first, behind = max(begin, row * how.outputs), min(end, (row + 1) * how.outputs)
            to = array + d * t.d + row * t.h + (first - row * how.outputs) * t.w
            here = kept + d * t.kept_d + (first - begin) * t.size
            copy_matrix(turner, to, t.w, t.channel, here, t.size, t.kept_channel, behind - first, columns, 0)
