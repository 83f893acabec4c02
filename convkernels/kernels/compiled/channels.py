"""Loops over the images and channels of a depthwise operation: copies, stencils, and lanes that are added."""

from __future__ import annotations

from typing import NamedTuple

import numba
from numba import types

from ...layout import Array
from .blocks import COPIES, LIST, TURNERS, WORD
from .copies import TURNER, Copy, Turner, copy_array
from .machine import array_in, entry, fixed, invoke, set_bytes, words, words_at


class Steps(NamedTuple):
    """What a thread's loops add to addresses, in bytes, and what they pass on to the stencils."""

    x_image: int
    x_channel: int
    y_image: int
    y_channel: int
    w_channel: int
    bias_channel: int
    # What one channel of x has several of in y: how many, and their strides.
    repeats: int
    y_repeat: int
    w_repeat: int
    bias_repeat: int
    # Rows of cells, and strides of both arrays and of taps, as stencils take them.
    rows: int
    x_h: int
    x_w: int
    w_h: int
    w_w: int
    y_h: int
    y_w: int
    # The channels in a vector and its bytes, where lanes are channels; else 0.
    across: int
    width: int
    # Whether x and y are copied: 1 for y to be written, -1 for one that is read. The images; channels at a time.
    copy_x: int
    copy_y: int
    x_from_image: int
    x_from_channel: int
    y_from_image: int
    y_from_channel: int
    images: int
    chunk: int
    # From a tile to the next along a row.
    x_ahead: int
    y_ahead: int


STEPS, STEPPED = words(Steps), len(Steps._fields)
SCENE = (STEPS, TURNER, *[LIST] * 5)
"""The tables beside: copies, jobs, visits, planes and pieces, of `COPIES`, 8, 3, 2 and 6 numbers a line."""


@numba.njit(types.void(TURNER, LIST, *[WORD] * 3), nogil=True, cache=True)  # type: ignore[untyped-decorator]
def copy_channels(how: Turner, copies: Array, number: int, target: int, source: int) -> None:
    """Copy some channels, as one of a list of plans says."""
    copy_array(how, Copy(*fixed(copies[COPIES * number :], COPIES)), target, source)


@numba.njit(types.void(*SCENE, *[WORD] * 8), nogil=True, cache=True)  # type: ignore[untyped-decorator]
def sweep(
    s: Steps,
    how: Turner,
    copies: Array,
    jobs: Array,
    visits: Array,
    planes: Array,
    pieces: Array,
    number: int,
    image: int,
    x: int,
    w: int,
    y: int,
    bias: int,
    x_block: int,
    y_block: int,
) -> None:
    """Run the stencils of one piece of an image, with copies of x and y where these are needed."""
    piece = pieces[6 * number : 6 * number + 6]
    channel, channels, whole = piece[0], piece[1], int(piece[1] == s.chunk)
    source, target = x + image * s.x_image + channel * s.x_channel, y + image * s.y_image + channel * s.y_channel
    array = y + image * s.y_from_image + channel * s.y_from_channel
    if s.copy_x:
        source, origin = x_block, x + image * s.x_from_image + channel * s.x_from_channel
        copy_channels(how, copies, whole, source, origin)
    if s.copy_y:
        target = y_block
    if s.copy_y < 0:
        copy_channels(how, copies, 2 + whole, target, array)
    vectors = -(-channels // s.across) if s.across else 0
    for visit in range(piece[2], piece[3]):
        depths = planes.ctypes.data + 16 * visits[3 * visit + 1]
        for place in range(piece[4], piece[5]):
            job = jobs[8 * place : 8 * place + 8]
            tiles = (job[4], job[5], job[6], 0, job[7], 0)
            lanes = (vectors, 0, s.width, s.width, s.width, s.width)
            apart = (channels, 0, s.x_channel, s.w_channel, s.y_channel, s.bias_channel)
            inner, outer = (lanes, tiles) if s.across else (tiles, apart)
            for j in range(s.repeats):
                invoke(
                    job[0],
                    (
                        *(source + job[1], w + j * s.w_repeat, target + job[2] + visits[3 * visit] + j * s.y_repeat),
                        *(bias + j * s.bias_repeat, depths, visits[3 * visit + 2], job[3], s.rows),
                        *(s.x_h, s.x_w, s.w_h, s.w_w, s.y_h, s.y_w, channels),
                        *inner,
                        *outer,
                        *(s.x_ahead, s.y_ahead),
                    ),
                )
    if s.copy_y > 0:
        copy_channels(how, copies, 2 + whole, array, target)


@entry
def convolve(words: int, begin: int, end: int, x_block: int) -> None:
    """Compute some of the pieces of all images.

    The arguments are six tables, the first of steps and turner, the bytes of a block of x, which one of y follows, and
    four addresses.
    """
    given = words_at(words, 17)
    numbers, copies, jobs = array_in(given, 0), array_in(given, 1), array_in(given, 2)
    visits, planes, pieces = array_in(given, 3), array_in(given, 4), array_in(given, 5)
    y_block, x, w, y, bias = x_block + given[12], given[13], given[14], given[15], given[16]
    s, how, count = Steps(*fixed(numbers, STEPPED)), Turner(*fixed(numbers[STEPPED:], TURNERS)), len(pieces) // 6
    for place in range(begin, end):
        image, number = place // count, place % count
        channel = pieces[6 * number]
        sweep(
            *(s, how, copies, jobs, visits, planes, pieces, number, image),
            *(x, w + channel * s.w_channel, y, bias + channel * s.bias_channel, x_block, y_block),
        )


@entry
def weigh(words: int, begin: int, end: int, x_block: int) -> None:
    """Sum over all images for the channels of some pieces, in lanes that are added last where these are outputs.

    The arguments are the same tables, the bytes of the blocks of x and y, which the lanes follow, the code that adds
    them, and three addresses.
    """
    given = words_at(words, 18)
    numbers, copies, jobs = array_in(given, 0), array_in(given, 1), array_in(given, 2)
    visits, planes, pieces = array_in(given, 3), array_in(given, 4), array_in(given, 5)
    y_block, fold, x, sums, y = x_block + given[12], given[14], given[15], given[16], given[17]
    lanes = y_block + given[13]
    s, how = Steps(*fixed(numbers, STEPPED)), Turner(*fixed(numbers[STEPPED:], TURNERS))
    for number in range(begin, end):
        channel, channels = pieces[6 * number], pieces[6 * number + 1]
        total = sums + channel * s.w_channel
        if not s.across:
            total = lanes
            set_bytes(lanes, channels * s.w_channel, 0)
        for image in range(s.images):
            sweep(
                *(s, how, copies, jobs, visits, planes, pieces, number, image),
                *(x, total, y, 0, x_block, y_block),
            )
        if not s.across:
            vectors, size = channels * s.w_channel // s.width, how.size
            target = sums + channel * s.w_channel // s.width * size
            invoke(fold, (lanes, target, vectors))
