"""Numbers taken one by one, and sums by channel, in one pass over memory that threads share."""

from __future__ import annotations

from functools import partial

import numba
import numpy as np

from ...layout import Array
from .machine import address, doubles_at, entry, fixed, singles_at, words_at
from .parallel import run
from .thread_count import now_usable

PIECE = 2**14
"""Numbers that a thread takes at a time."""
PASS = 40
"""Floating-point operations in whose time a number passes through."""
SUMS = 64
"""The most parts, whose sums are added last, however many threads there are."""


@numba.njit(inline="always")  # type: ignore[untyped-decorator]
def positive(x: Array, y: Array) -> None:
    """The positive part; NaN stays."""
    zero = x.dtype.type(0)
    for place in range(x.size):
        y[place] = zero if x[place] <= zero else x[place]  # noqa: FURB136  # max would take zero for NaN


@numba.njit(inline="always")  # type: ignore[untyped-decorator]
def where_positive(x: Array, dy: Array, dx: Array) -> None:
    """Times one for numbers that are not zero or less, and else times zero: NaN stays."""
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for place in range(x.size):
        dx[place] = dy[place] * (zero if x[place] <= zero else one)


@entry
def relu_some(words: int, begin: int, end: int, unused: int) -> None:
    """The positive parts of some pieces: the arguments are two addresses, how many numbers, and their bytes."""
    x, y, count, size = fixed(words_at(words, 4), 4)
    first, last = begin * PIECE, min(count, end * PIECE)
    if size == 4:
        positive(singles_at(x, count)[first:last], singles_at(y, count)[first:last])
    else:
        positive(doubles_at(x, count)[first:last], doubles_at(y, count)[first:last])


@entry
def relu_grad_some(words: int, begin: int, end: int, unused: int) -> None:
    """The gradients of some pieces: the arguments are three addresses, how many numbers, and their bytes."""
    x, dy, dx, count, size = fixed(words_at(words, 5), 5)
    first, last = begin * PIECE, min(count, end * PIECE)
    if size == 4:
        given, where = singles_at(dy, count)[first:last], singles_at(x, count)[first:last]
        where_positive(where, given, singles_at(dx, count)[first:last])
    else:
        given, where = doubles_at(dy, count)[first:last], doubles_at(x, count)[first:last]
        where_positive(where, given, doubles_at(dx, count)[first:last])


@numba.njit(inline="always")  # type: ignore[untyped-decorator]
def adam_step(w: Array, dw: Array, mean: Array, square: Array, rule: Array) -> None:
    """Adam's rule, in the order of operations of NumPy's, so that the numbers are the same."""
    kind = w.dtype.type
    keep_mean, take_mean, keep_square, take_square = kind(rule[0]), kind(rule[1]), kind(rule[2]), kind(rule[3])
    root, eps, rate = kind(rule[4]), kind(rule[5]), kind(rule[6])
    for place in range(w.size):
        mean[place] = mean[place] * keep_mean + take_mean * dw[place]
        square[place] = square[place] * keep_square + dw[place] * dw[place] * take_square
        w[place] -= mean[place] / (np.sqrt(square[place]) / root + eps) * rate


@partial(entry, error_model="numpy")
def adam_some(words: int, begin: int, end: int, unused: int) -> None:
    """Adam's rule on some pieces.

    The arguments are the addresses of weights, their gradient and moments and the rule's numbers, how many weights
    there are, and their bytes.
    """
    at_w, at_dw, at_mean, at_square, rule, count, size = fixed(words_at(words, 7), 7)
    first, last, settings = begin * PIECE, min(count, end * PIECE), doubles_at(rule, 7)
    if size == 4:
        w, dw = singles_at(at_w, last)[first:], singles_at(at_dw, last)[first:]
        adam_step(w, dw, singles_at(at_mean, last)[first:], singles_at(at_square, last)[first:], settings)
    else:
        wide_w, wide_dw = doubles_at(at_w, last)[first:], doubles_at(at_dw, last)[first:]
        adam_step(wide_w, wide_dw, doubles_at(at_mean, last)[first:], doubles_at(at_square, last)[first:], settings)


@numba.njit(inline="always")  # type: ignore[untyped-decorator]
def add_up(x: Array, total: Array, channels: int, inner: int) -> None:
    """Add rows of channels, each of `inner` numbers, to the channels' sums."""
    for start in range(0, x.size, channels * inner):
        row = x[start : start + channels * inner]
        if inner == 1:
            for channel in range(row.size):
                total[channel] += np.float64(row[channel])
        else:
            for channel in range(total.size):
                found = np.float64(0)
                for number in row[channel * inner : (channel + 1) * inner]:
                    found += np.float64(number)
                total[channel] += found


@partial(entry, fastmath={"reassoc"})  # else each number would wait for the sum of those before
def sum_some(words: int, begin: int, end: int, unused: int) -> None:
    """Sums by channel of some parts.

    The arguments are two addresses, how many parts, rows, channels and inner numbers there are, and bytes of a number.
    """
    x, sums, parts, rows, channels, inner, size = fixed(words_at(words, 7), 7)
    for part in range(begin, end):
        first = rows * part // parts * channels * inner
        last = rows * (part + 1) // parts * channels * inner
        total = doubles_at(sums + 8 * part * channels, channels)
        total[:] = 0
        if size == 4:
            add_up(singles_at(x, last)[first:], total, channels, inner)
        else:
            add_up(doubles_at(x, last)[first:], total, channels, inner)


def relu(x: Array, y: Array, threads: int | None) -> None:
    """Write the positive part of contiguous x."""
    words = np.array([address(x), address(y), x.size, x.itemsize])
    run(relu_some, words, -(-x.size // PIECE), now_usable(threads, PASS * x.size))


def relu_grad(x: Array, dy: Array, dx: Array, threads: int | None) -> None:
    """Write dy times the slope at x."""
    words = np.array([address(x), address(dy), address(dx), x.size, x.itemsize])
    run(relu_grad_some, words, -(-x.size // PIECE), now_usable(threads, PASS * x.size))


def adam(w: Array, dw: Array, mean: Array, square: Array, rule: tuple[float, ...], threads: int | None) -> None:
    """Change contiguous w and its moments by Adam's rule."""
    settings = np.array(rule)
    words = np.array([*map(address, (w, dw, mean, square, settings)), w.size, w.itemsize])
    run(adam_some, words, -(-w.size // PIECE), now_usable(threads, PASS * w.size))


def channel_sums(x: Array, rows: int, channels: int, inner: int, threads: int | None) -> Array:
    """Sum contiguous x, seen as rows of channels of inner numbers, by channel, in float64."""
    parts = max(1, min(SUMS, rows))
    sums = np.empty((parts, channels))
    words = np.array([address(x), address(sums), parts, rows, channels, inner, x.itemsize])
    run(sum_some, words, parts, now_usable(threads, PASS * x.size))
    total: Array = np.add.reduce(sums, 0)
    return total
