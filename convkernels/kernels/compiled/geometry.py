"""How the arrays of a correlation lie in memory, and the copies of their blocks: the numbers that compiled loops take.

Arrays have images, channels and three axes d, h and w; all strides are in bytes.
"""

from __future__ import annotations

from typing import NamedTuple

from ...window import Ints
from .amounts import Amounts
from .axes import Axes, contiguous, pixel_channels
from .filters import Tiling
from .scratch import rounded


class Array5(NamedTuple):
    """An array's strides, and that between groups of its channels."""

    group: int
    image: int
    channel: int
    d: int
    h: int
    w: int


class Source(NamedTuple):
    """What is read: the array itself, if it `lies` right, or blocks copied from it."""

    size: int
    channels: int
    lies: int
    # The array's strides.
    group: int
    image: int
    channel: int
    d: int
    h: int
    w: int
    # Its cells, and where the first output's first tap is.
    in_d: int
    in_h: int
    in_w: int
    low_d: int
    low_h: int
    low_w: int
    # The step from an output to the next, and from a cell of a block to the next.
    out_step_d: int
    out_step_h: int
    cell_step_d: int
    cell_step_h: int
    cell_step_w: int
    # In what is read: its strides, the steps of outputs, the cells that an output reads, and those of a row.
    read_image: int
    read_channel: int
    read_d: int
    read_h: int
    read_w: int
    step_d: int
    step_h: int
    step_w: int
    span_d: int
    span_h: int
    cells_w: int


class Target(NamedTuple):
    """What tiles write, or a gradient that they read in its place: the array itself, if `stored`, or blocks of it."""

    size: int
    stored: int
    # The array's strides.
    group: int
    image: int
    channel: int
    d: int
    h: int
    w: int
    # The strides of what is written, and the outputs of a row.
    kept_image: int
    kept_channel: int
    kept_d: int
    kept_h: int
    kept_w: int
    outs_w: int
    # From where a tile's row belongs to where the next does, and to where the next of the tile does.
    row: int
    next_row: int
    # Panels of vectors: how many, and the channels or pixels of each and of the last.
    panels: int
    width: int
    last: int


class Product(NamedTuple):
    """The operands of tiles, and chunks of the depth, which is summed for each tap."""

    # The output channels of a block, if vectors hold pixels, so that A is w; else 0.
    channels: int
    # The groups of a block, and the strides between these in what is read and written.
    members: int
    read_member: int
    kept_member: int
    depth: int
    chunk: int
    w_group: int
    # From a row of A to the next, and from a step of the depth; from a panel of B to the next, and from a step.
    a_row: int
    a_depth: int
    b_panel: int
    b_depth: int
    # How far ahead B is fetched, if that is not some steps.
    b_ahead: int
    # The rows of A that are fetched into the cache ahead of their turn, or 0 if that is the next panel of B, and by how
    # many bytes in a step.
    ahead: int
    ahead_step: int
    # From a tap to the next in B, where these are equally far apart.
    b_tap: int
    # The code that gathers a panel of B, before its tiles run or as the first of them, and that for the last, or 0.
    gather: int
    gather_last: int
    # Whether each panel of w is copied right before its tiles run, in w from one to the next, and the bytes between the
    # lines of a run, and how many these are, in which the next one is fetched meanwhile.
    late: int
    late_panel: int
    late_step: int
    late_count: int
    # Whether blocks are lowered.
    lowered: int
    # Where in w, or in its copy, to begin.
    w_start: int
    # The rows of outputs along h, and of each the stretches that take other taps.
    rows: int
    stretches: int


class Sums(NamedTuple):
    """The sums of a weight gradient, by taps along each axis, input channel and output channel."""

    taps_d: int
    taps_h: int
    taps_w: int
    # The strides of the sums, from group to group and panel to panel those of where they end up, and from a tap's first
    # cell to the next tap's in what is read.
    d: int
    h: int
    w: int
    channel: int
    group: int
    panel: int
    tap_d: int
    tap_h: int
    tap_w: int
    # The outputs along the first two axes and the images, and how many of each are in a block.
    images: int
    outs_d: int
    outs_h: int
    block_images: int
    block_d: int
    block_h: int
    # From a tap to the next along d and h, in cells. In what is read, from a row of a tile to the next. The parts of
    # the sum, and the bytes of each one's sums. Whether panels are worked on one by one, and each one's sums `moved` to
    # where they end up; or else whether tiles go `across` all panels before those below them.
    spread_d: int
    spread_h: int
    row: int
    parts: int
    part: int
    single: int
    moved: int
    across: int
    # From a panel of the gradient to the next in what is read.
    panel_y: int
    # Whether one thread sums all parts, which are then added up one by one.
    alone: int


class Piece(NamedTuple):
    """A block of the outputs of one group: images, and rows along two axes."""

    group: int
    image: int
    images: int
    d: int
    ds: int
    h: int
    hs: int


def source(axes: Axes, amounts: Amounts, x: Array5, channels: int, size: int, *, lies: bool, inner: bool) -> Source:
    """Describe what is read; `inner` says that blocks have the channels innermost, and not outermost."""
    blocks = axes if lies else tuple(axis.block for axis in axes)
    cells = cells_of(blocks, amounts)
    if lies:
        read: Ints = x[1:]
    elif inner:
        image, d, h, w, channel = contiguous((amounts.images, *cells, pixel_channels(channels, size)), size)
        read = (image, channel, d, h, w)
    else:
        read = contiguous((amounts.images, channels, *cells), size)
    numbers = (
        *(size, channels, int(lies), *x),
        *(axis.size for axis in axes),
        *(axis.lowest for axis in axes),
        *(axis.step for axis in axes[:2]),
        *(axis.step // block.step for axis, block in zip(axes, blocks, strict=True)),
        *read,
        *(axis.step for axis in blocks),
        *(axis.span for axis in blocks[:2]),
        cells[2],
    )
    return Source._make(numbers)


def target(
    axes: Axes,
    amounts: Amounts,
    y: Array5,
    tile: Tiling,
    columns: int,
    size: int,
    *,
    stored: bool,
    outputs: int | None = None,
    pixels: bool = False,
) -> Target:
    """Describe what is written, in rows of so many outputs; `pixels` says that vectors hold these, and not channels."""
    counts = (*amounts.rows, outputs or axes[2].places)
    array = (*y[:3], *(stride * axis.stride for stride, axis in zip(y[3:], axes, strict=True)))
    if stored:
        kept = array[1:]
    elif pixels:
        kept = contiguous((amounts.images, columns, *counts), size)
    else:
        image, *places, channel = contiguous((amounts.images, *counts, columns), size)
        kept = (image, channel, *places)
    rows = (kept[1], kept[1]) if pixels else (kept[-1], kept[-1] * axes[2].turns)
    panels = (tile.panels, tile.width, tile.last)
    return Target._make((size, int(stored), *array, *kept, counts[-1], *rows, *panels))


def block_bytes(read: Source, axes: Axes, amounts: Amounts) -> int:
    """The bytes of a block as `source` describes it; none where the source is read as it lies."""
    if read.lies:
        return 0
    places = (amounts.images, *cells_of(tuple(axis.block for axis in axes), amounts), read.channels)
    strides = (read.read_image, read.read_d, read.read_h, read.read_w, read.read_channel)
    return rounded(max(place * stride for place, stride in zip(places, strides, strict=True)))


def cells_of(axes: Axes, amounts: Amounts) -> Ints:
    """The cells of a block along each axis."""
    counts = (*amounts.rows, axes[2].outputs)
    return tuple(axis.reach(count) for axis, count in zip(axes, counts, strict=True))
