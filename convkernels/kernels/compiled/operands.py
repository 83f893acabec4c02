"""An operation's arrays as a correlation takes them: sizes, strides, and which channels are whose."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from ...spec import ConvSpec
from ...window import Ints
from .axes import ONE, Axes, Axis, contiguous, exchanged_sums
from .geometry import Array5

LOW_TILE = 14
"""Input channels below which they are rows of tiles together with taps; half of the tallest tile."""


class Problem(NamedTuple):
    """The sizes of a correlation: images, groups, a group's channels and columns, w's taps, bytes of an element."""

    batch: int
    groups: int
    channels: int
    columns: int
    taps: Ints
    size: int


class Memory(NamedTuple):
    """How the arrays of a correlation lie; of w the strides along columns, channels and taps, and between groups."""

    x: Array5
    w: Ints
    y: Array5
    w_group: int


def spread(strides: Ints) -> Ints:
    """An array's strides, with three spatial axes."""
    return (*strides[:2], *(0,) * (5 - len(strides)), *strides[2:])


def lying(strides: Ints, channels: int) -> Array5:
    """How an array lies, and its groups of so many channels."""
    return Array5(channels * strides[1], *spread(strides))


def sizes(spec: ConvSpec, ins: int, outs: int) -> Problem:
    """The sizes of a correlation from so many channels of a group to so many."""
    taps = (1,) * (3 - spec.window.rank) + spec.window.kernel_size
    return Problem(spec.batch, spec.groups, ins, outs, taps, spec.compute_dtype.itemsize)


def ordered(problem: Problem, w: Ints) -> Ints:
    """Strides of w with those of one column or channel, which are of no account, as they are best."""
    columns, channels, *taps = w
    return (problem.size if problem.columns == 1 else columns, taps[-1] if problem.channels == 1 else channels, *taps)


def forward(spec: ConvSpec, x: Ints, w: Ints, out: Ints) -> tuple[Problem, Memory]:
    """A convolution of arrays with such strides, as a correlation."""
    ins, outs = spec.group_in, spec.group_out
    problem = sizes(spec, ins, outs)
    return problem, Memory(lying(x, ins), ordered(problem, spread(w)), lying(out, outs), outs * w[0])


def backward(spec: ConvSpec, dy: Ints, w: Ints, out: Ints) -> tuple[Problem, Memory]:
    """An input gradient as a correlation: channels are exchanged."""
    ins, outs = spec.group_in, spec.group_out
    first, second, *rest = spread(w)
    problem = sizes(spec, outs, ins)
    return problem, Memory(lying(dy, outs), ordered(problem, (second, first, *rest)), lying(out, ins), outs * w[0])


def in_one_line(axes: Axes, memory: Memory, size: int) -> tuple[tuple[Axes], Memory] | None:
    """A correlation by one tap with all pixels of an image on one axis; None where they do not lie in one line."""
    x, y, pixels = memory.x, memory.y, math.prod(axis.outputs for axis in axes)
    if any(axis.taps != ((0, 0),) or axis.outputs != axis.size or axis.step > 1 or axis.rests for axis in axes):
        return None
    inner = contiguous(tuple(axis.size for axis in axes), size)
    if any(
        stride != step
        for array in (x, y)
        for axis, stride, step in zip(axes, array[3:], inner, strict=True)
        if axis.size > 1
    ):
        return None
    line = (ONE, ONE, Axis(pixels, 1, ((0, 0),), pixels))
    return (line,), memory._replace(x=x._replace(d=0, h=0, w=size), y=y._replace(d=0, h=0, w=size))


def line_of(memory: Memory, taps: Ints, size: int) -> int:
    """The elements of w that follow each other, if these are its taps; else 0."""
    along = sorted((stride, count) for stride, count in zip(memory.w[2:], taps, strict=True) if count > 1)
    line = 1
    for stride, count in along:
        if stride != line * size:
            break
        line *= count
    return line if line > 1 else 0


def without_gaps(problem: Problem, memory: Memory, *, backward: bool = False) -> Memory:
    """The same with weights from end to end, in their order; groups are of columns, or `backward` of channels.

    Examples
    --------
    >>> array = Array5(*[4] * 6)
    >>> without_gaps(Problem(1, 2, 8, 16, (1, 3, 3), 4), Memory(array, (320, -40, 40, 12, 4), array, 5120)).w
    (288, 36, 40, 12, 4)
    """
    counts, strides, place = [problem.columns, problem.channels, *problem.taps], list(memory.w), int(backward)
    each = counts[place]
    counts[place], strides[place], step = problem.groups * each, memory.w_group // each, problem.size
    for axis in sorted(range(len(counts)), key=lambda axis: (abs(strides[axis]), -axis)):
        if counts[axis] > 1:
            strides[axis], step = step, step * counts[axis]
    return memory._replace(w=tuple(strides), w_group=each * strides[place])


def nested(strides: Sequence[int], counts: Sequence[int], size: int) -> int:
    """The stride of the innermost of some axes if each steps over all of the next, as if they were one; else 0.

    Examples
    --------
    >>> nested((36, 12, 4), (8, 3, 3), 4), nested((40, 12, 4), (8, 3, 3), 4), nested((8, 0), (5, 1), 4)
    (4, 0, 8)
    """
    along = [(stride, count) for stride, count in zip(strides, counts, strict=True) if count > 1]
    step = expected = along[-1][0] if along else size
    for stride, count in reversed(along):
        if stride != expected:
            return 0
        expected = stride * count
    return step


def window_step(problem: Problem, memory: Memory) -> int:
    """How far apart the elements of a window in w are, channel by channel, if all are equally far; else 0."""
    return nested(memory.w[1:], (problem.channels, *problem.taps), problem.size)


def columns_apart(problem: Problem, memory: Memory, parts: int) -> tuple[Problem, Memory]:
    """A correlation of one group as one of some, which read the same channels, where columns are enough for that.

    Examples
    --------
    >>> array, problem = Array5(*[4] * 6), Problem(1, 1, 8, 16, (1, 3, 3), 4)
    >>> found, memory = columns_apart(problem, Memory(array, (288, 36, 36, 12, 4), array, 0), 2)
    >>> found.groups, found.columns, memory.x.group, memory.w_group, memory.y.group
    (2, 8, 0, 2304, 32)
    """
    if problem.groups > 1 or problem.columns % parts:
        return problem, memory
    columns = problem.columns // parts
    x, y = memory.x._replace(group=0), memory.y._replace(group=columns * memory.y.channel)
    return problem._replace(groups=parts, columns=columns), Memory(x, memory.w, y, columns * memory.w[0])


def rows_together(every: tuple[Axes, ...], memory: Memory, most: int) -> tuple[tuple[Axes, ...], Memory, int]:
    """A correlation by one tap, some rows of whose outputs are one, and how many: one, where they cannot be together.

    So a row has as many outputs as tiles like best, and not as many as the picture happens to have.

    Examples
    --------
    >>> axis = Axis(14, 1, ((0, 0),), 14)
    >>> dense = Array5(0, 0, 4, 0, 14 * 64, 64)
    >>> [found], memory, several = rows_together(((ONE, axis, axis),), Memory(dense, (), dense, 0), 13)
    >>> found[1].outputs, found[2].outputs, several, memory.x.h == 7 * 14 * 64
    (2, 98, 7, True)
    """
    (d, h, w), x, y = every[0], memory.x, memory.y
    plain = all(
        axis.taps == ((0, 0),) and axis.outputs == axis.size and axis.step == axis.stride == 1 for axis in (h, w)
    )
    if len(every) > 1 or not plain or w.rests or (x.h, y.h) != (w.size * x.w, w.size * y.w):
        return every, memory, 1
    several = next(count for count in range(min(most, h.size), 0, -1) if h.size % count == 0)
    h, w = (Axis(count, 1, ((0, 0),), count) for count in (h.size // several, several * w.size))
    memory = memory._replace(x=x._replace(h=several * x.h), y=y._replace(h=several * y.h))
    return ((d, h, w),), memory, several


def images_together(
    problem: Problem, every: tuple[Axes, ...], memory: Memory
) -> tuple[Problem, tuple[Axes, ...], Memory]:
    """The same with images as rows of one, if all the outputs of each are a row, as `rows_together` leaves them.

    So tiles may go on from one small image to the next.

    Examples
    --------
    >>> line, dense = Axis(16, 1, ((0, 0),), 16), Array5(0, 16 * 64, 4, 0, 0, 64)
    >>> problem, [axes], memory = images_together(
    ...     Problem(8, 1, 16, 16, (1, 1, 1), 4), ((ONE, ONE, line),), Memory(dense, (), dense, 0))
    >>> problem.batch, axes[1].outputs, axes[2].outputs, memory.x.h == 16 * 64
    (1, 8, 16, True)
    """
    (d, h, w), x, y = every[0], memory.x, memory.y
    if problem.batch < 2 or len(every) > 1 or (d, h) != (ONE, ONE) or w.taps != ((0, 0),) or w.stride != 1 or w.rests:
        return problem, every, memory
    images = Axis(problem.batch, 1, ((0, 0),), problem.batch)
    memory = memory._replace(x=x._replace(h=x.image), y=y._replace(h=y.image))
    return problem._replace(batch=1), ((d, images, w),), memory


def own_taps(problem: Problem, axes: Axes, memory: Memory) -> tuple[tuple[Problem, Axes, Memory], int]:
    """A correlation by some taps of w as one by all of a smaller w, and where in w that begins.

    Examples
    --------
    >>> rest = Axis(4, 1, ((3, -1), (1, 0)), 4, 0, 2)
    >>> memory = Memory(Array5(*[0] * 6), (4, 64, 0, 48, 12), Array5(*[0] * 6), 0)
    >>> (smaller, axes, memory), start = own_taps(Problem(1, 1, 8, 16, (1, 4, 4), 4), (ONE, rest, ONE), memory)
    >>> smaller.taps, axes[1].taps, memory.w, start
    ((1, 2, 1), ((1, -1), (0, 0)), (4, 64, 0, 96, 12), 48)
    """
    counts, found, strides, start = list(problem.taps), list(axes), list(memory.w), 0
    for place, axis in enumerate(axes):
        used = sorted(tap for tap, _ in axis.taps)
        if axis.rests or len(used) in (0, counts[place]):
            continue
        step = used[1] - used[0] if len(used) > 1 else 1
        start += used[0] * strides[2 + place]
        counts[place], strides[2 + place] = len(used), step * strides[2 + place]
        found[place] = axis._replace(taps=tuple(((tap - used[0]) // step, offset) for tap, offset in axis.taps))
    return (problem._replace(taps=tuple(counts)), tuple(found), memory._replace(w=tuple(strides))), start


def exchange(
    problem: Problem, axes: Axes, dilation: Ints, x: Array5, dy: Array5, w: Ints
) -> tuple[Problem, Axes, Ints, Array5, Array5, Ints] | None:
    """A weight gradient with the roles of x and dy exchanged, or None; then w has columns where x's channels follow.

    So tiles can write to it in OIHW, too, if x's channels and taps lie as those of w do, or there is but one tap.
    """
    batch, groups, channels, columns, taps, size = problem
    found, pixels = exchanged_sums(axes, channels), batch * math.prod(axis.outputs for axis in axes)
    # A few rows leave the multiplier waiting, in sums of more than a few.
    if found is None or w[1] == size or (columns < LOW_TILE < pixels):
        return None
    reads = (x.channel, *(step * each for step, each in zip(dilation, x[3:], strict=True)))
    step = size
    for to, count, read in sorted(zip(w[2:], (channels, *taps), reads, strict=True)):
        if count > 1 and (to != step or (read != to and math.prod(taps) > 1)):
            return None
        step *= count
    channel = x.channel if math.prod(taps) == 1 else size
    # It pays if copying x with pixels outermost costs less than that of dy and moving the sums.
    if found[1] * pixels * (channel != size) > columns * (found[1] + pixels * (dy.channel != size)):
        return None
    strides = (axis.step * stride for axis, stride in zip(axes, x[3:], strict=True))
    return (
        *(Problem(batch, groups, columns, found[1], (1, 1, 1), size), found[0], (1, 1, 1)),
        *(dy, Array5(x.group, x.image, channel, *strides), (w[0], size, w[1], 0, 0, 0)),
    )
