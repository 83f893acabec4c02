"""What can be said of the compiled implementations without Numba: whether they run, and when."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from importlib import import_module, util
from typing import Any

import numpy as np

from ...layout import Order
from ...spec import ConvSpec
from .axes import Axes, forward_axes, input_grad_axes, rests_apart
from .inward import of_inward
from .isa import host, paired
from .pictures import PLACES, pictures, tap_by_tap
from .scattering import (
    scatters,
)

CLAIMS = frozenset({"exact_on_integers", "batch_invariant", "nan_strict", "bounded"})
WINOGRAD_CLAIMS = frozenset({"batch_invariant", "bounded_tile"})
TYPES = (np.dtype(np.float32), np.dtype(np.float64))
SMALL, FEW, FOR_EACH = 1_000_000, 3, 64
"""Operations from which on it matters how full tiles are, channels of a group that leave them too empty, and how many
for each of these are too many then.
"""
POINT = 131_072
"""Operations of a single pixel, some 256 to 256 channels, up to which a call costs less than BLAS gains."""
WORTH, WEIGHTS_WORTH = 4_500_000, 2_000_000
"""Operations, some 0.06 ms of the direct method, below which Winograd's transforms cost more than they save; and those
of weight gradients, some 0.02 ms."""
WEIGHTS_TAPS, LEAST_OUTPUTS = (1, 3, 4, 5), 64
"""The taps of weight gradients by squares, and the outputs whose sums hide their rounding."""
LEAST_CHANNELS = {2: 16, 3: 4, 4: 4, 5: 4, 6: 16, 7: 16}
"""By the taps of an axis, the channels whose sums hide the rounding of transforms."""
TRANSFORM = 22.0
"""Operations that transforming one place of a square of one channel takes the time of."""
WEIGHTS, FAR = 22.0, 30.0
"""The same for one place of a weight, with packing it; and where all of them do not fit `CACHE`."""
READ_APART, WRITTEN_APART = 1.6, 1.25
"""How many times as many all are, with those of products, where cells a stride apart are read or written, and two
multiply-adds of whole vectors begin in a cycle.
"""
PHASE = 500_000
"""The same for beginning another of the correlations that dilation makes of one."""
VECTOR = 64
"""Bytes of a vector, which transforms and tiles fill with channels."""
CACHE = 2**24
"""Bytes of transformed weights that stay in a third-level cache."""
GAIN = 0.96
"""The share of the operations from which on fewer are worth it."""


DEPTHWISE_WORTH = 20_000
"""Operations below which compiling a depthwise convolution is not worth it, though it is faster once compiled."""
MANY = 16
"""Outputs of a single channel from which on a matrix product was measured to be as fast, or up to 8 times faster."""
MANY_TO_ONE = 32
"""Channels of a gradient by one channel from which on products are faster, 1.1 to 4 times."""
DEPTHWISE_TAPS = 64
"""Taps along the last axis up to which there is code for each."""


@cache
def missing() -> str | None:
    """Why nothing compiled runs here, or None."""
    return None if util.find_spec("numba") else "Numba is not installed: pip install 'convkernels[jit]'"


def supports(spec: ConvSpec) -> str | None:
    """float32 and float64, where Numba is."""
    if spec.compute_dtype not in TYPES:
        return f"computes float32 and float64, not {spec.compute_dtype.name}"
    return missing()


@of_inward
def prefers(spec: ConvSpec, order: Order) -> str | None:
    """Nearly all: even the smallest call is over in half the time of one matrix product and its copies."""
    return thin(spec, spec.group_in, spec.group_out, grouped=spec.groups > 1 == max(spec.window.stride))


@of_inward
def prefers_input_grad(spec: ConvSpec, order: Order) -> str | None:
    """The same, where the columns are the input channels; in NHWC columns of few in groups take longer still."""
    return thin(spec, spec.group_out, spec.group_in, grouped=spec.groups > 1 and order != "channels_last")


@of_inward
def prefers_weight_grad(spec: ConvSpec, order: Order) -> str | None:
    """All but a matrix by a vector."""
    if each_image(spec) > SMALL and spec.window.taps == spec.group_out == 1:
        return f"groups of {spec.group_in} channels to one are a matrix by a vector"
    return None


def each_image(spec: ConvSpec) -> int:
    """The operations of one image, by which to choose: bits differ between strategies, and must not with the batch."""
    return spec.flops // max(1, spec.batch)


def thin(spec: ConvSpec, channels: int, columns: int, *, grouped: bool) -> str | None:
    """Why a correlation from so many channels to so many takes longer than products of matrices by columns."""
    empty = columns == 1 if spec.window.taps == 1 else grouped and channels > FOR_EACH * columns
    if each_image(spec) > SMALL and columns < FEW and empty:
        return f"groups of {channels} channels to {columns} leave vectors nearly empty"
    if each_image(spec) > POINT and spec.window.taps == math.prod(spec.window.out_size) == 1:
        return "a single pixel of a single tap is one matrix product"
    return None


@of_inward
def winograd_supports(spec: ConvSpec) -> str | None:
    """Windows of strides or dilations."""
    return squares_support(spec, (forward_axes(spec),), spec.group_in, spec.group_out)


@of_inward
def winograd_supports_backward(spec: ConvSpec) -> str | None:
    """The same, where each remainder of a stride has some taps."""
    return squares_support(spec, rests_apart(input_grad_axes(spec)), spec.group_out, spec.group_in)


@of_inward
def winograd_supports_weight_grad(spec: ConvSpec) -> str | None:
    """Three to five taps along the last two axes, or one, and sums that hide the rounding: here those over outputs.

    The error was some 10 eps max(sum |x| |dy|), and 16 at most, however many outputs: a sixth of the bound for 64.
    """
    window, reason = spec.window, supports(spec)
    if reason:
        return reason
    if any(step != 1 for step in (*window.stride[-2:], *window.dilation[-2:])):
        return f"takes strides and dilations of 1 along the last two axes, not {window.stride} and {window.dilation}"
    last = window.kernel_size[-2:]
    if not all(taps in WEIGHTS_TAPS for taps in last) or math.prod(last) == 1:
        return f"takes 3 to 5 taps along the last two axes, or one, not {window.kernel_size}"
    outputs = spec.batch * math.prod(window.out_size)
    if 0 < outputs < LEAST_OUTPUTS:
        return f"{outputs} outputs are below the {LEAST_OUTPUTS} whose sums hide its rounding"
    return None


def squares_support(spec: ConvSpec, every: tuple[Axes, ...], reads: int, writes: int) -> str | None:
    """Two to seven taps along the last two axes, or one, and sums that hide the transforms' rounding.

    In 20,000 squares of each window, some with single cells 1e6 times the others, the error was at most 0.7 of the
    bound over as many channels as are asked for; over fewer it may exceed it.
    """
    reason, window = supports(spec), spec.window
    if reason:
        return reason
    kernel_size, steps = window.kernel_size, window.stride
    if any(step > 1 and spread > 1 for step, spread in zip(steps[-2:], window.dilation[-2:], strict=True)):
        return f"takes strides or dilations along the last two axes, not both: {steps} and {window.dilation}"
    if not all(axes[0].taps for axes in every):
        apart = f"in steps of {steps}, dilated by {window.dilation}"
        return f"takes taps for each remainder of a stride, not {kernel_size} {apart}"
    taps = {-(-len(axis.taps) // axis.step) for axes in every for axis in axes[1:]}
    if not taps <= {1, *PLACES} or taps == {1}:
        strided = f" in steps of {steps}" if math.prod(steps) > 1 else ""
        return f"takes 2 to 7 taps along the last two axes, or one, not {kernel_size}{strided}"
    sources = min(len(one.sources) for rows in pictures(every) for one in rows)
    least, needed = min(sources * reads, writes), max(LEAST_CHANNELS[count] for count in taps - {1})
    if least < needed:
        return f"groups of {least} channels are below the {needed} whose sums hide its rounding"
    return None


@of_inward
def winograd_prefers(spec: ConvSpec, order: Order) -> str | None:
    """Where fewer multiplications pay for the transforms."""
    return squares_cost(spec, (forward_axes(spec),), spec.group_in, spec.group_out)


@of_inward
def winograd_prefers_backward(spec: ConvSpec, order: Order) -> str | None:
    """The same, for each remainder of the strides."""
    return squares_cost(spec, rests_apart(input_grad_axes(spec)), spec.group_out, spec.group_in)


@of_inward
def winograd_prefers_weight_grad(spec: ConvSpec, order: Order) -> str | None:
    """The same: transforming the sums into weights costs what transforming weights does."""
    return squares_cost(spec, tuple(tap_by_tap(forward_axes(spec))), spec.group_in, spec.group_out, WEIGHTS_WORTH)


def squares_cost(spec: ConvSpec, every: tuple[Axes, ...], reads: int, writes: int, worth: int = WORTH) -> str | None:
    """Why correlations by squares from so many channels to so many take longer, in operations of the direct method."""
    images, channels = spec.batch * spec.groups, reads * writes
    lanes = VECTOR // spec.compute_dtype.itemsize
    read, written = (-(-count // lanes) * lanes for count in (reads, writes))
    direct = sum(
        2 * images * channels * math.prod(axis.outputs * len(axis.taps) for axis in axes) * inside(axes)
        for axes in every
    )
    if direct < worth:
        return f"{int(direct)} operations are too few to pay for the transforms"
    more = 1.0
    if paired(host()) and max(spec.window.stride) > 1:
        more = READ_APART if any(axis.step > 1 for axes in every for axis in axes) else WRITTEN_APART
    total, transformed, count = 0.0, 0, 0
    for axes in every:
        ones = [one for rows in pictures((axes,)) for one in rows]
        places, sources = math.prod(axis.span for axis in ones[0].squares), len(ones[0].sources)
        tiles = images * sum(math.prod(axis.outputs for axis in one.squares) for one in ones)
        transformed += places * sources * spec.groups * channels
        each = 2 * sources * reads * written + TRANSFORM * (sources * read + written)
        total += places * tiles * each * more
        count += len(ones)
    near = transformed * spec.compute_dtype.itemsize <= CACHE
    total += transformed * (WEIGHTS if near else FAR) * more + PHASE * (count - 1)
    if total > GAIN * direct:
        return f"{int(total)} operations with those of the transforms, {int(direct)} without"
    return None


def inside(axes: Axes) -> float:
    """The part of a correlation's operations that `direct` does not leave out for a tap is outside."""
    *outer, last = axes
    sums = [sum(end - first for first, end in axis.reached) for axis in outer]
    sums.append(sum(stretch.outputs * len(stretch.taps) for stretch in last.stretches))
    return math.prod(found / (axis.outputs * len(axis.taps)) for found, axis in zip(sums, axes, strict=True))


@of_inward
def depthwise_supports(spec: ConvSpec) -> str | None:
    """Groups of one input channel."""
    if spec.group_in != 1:
        return f"takes groups of one input channel, not {spec.group_in}"
    if spec.window.kernel_size[-1] > DEPTHWISE_TAPS:
        return f"takes up to {DEPTHWISE_TAPS} taps along the last axis, not {spec.window.kernel_size[-1]}"
    return supports(spec)


@of_inward
def depthwise_prefers(spec: ConvSpec, order: Order) -> str | None:
    """All but small problems, and one channel that becomes many: that is a product."""
    if spec.group_out >= MANY:
        return f"{spec.group_out} outputs of one channel are a product"
    return too_small(spec)


@of_inward
def depthwise_prefers_weight_grad(spec: ConvSpec, order: Order) -> str | None:
    """The same, but of several groups products are not faster."""
    return depthwise_prefers(spec, order) if spec.groups == 1 else too_small(spec)


@of_inward
def depthwise_prefers_input_grad(spec: ConvSpec, order: Order) -> str | None:
    """All but small problems, and large ones of many channels that come to one by a product."""
    channels, size = spec.group_out, spec.compute_dtype.itemsize
    product = spec.window.taps == 1 or scatters(forward_axes(spec), spec.groups, channels, 1, size)
    if channels >= MANY_TO_ONE and product and each_image(spec) > SMALL:
        return f"{channels} channels for one are a product"
    return too_small(spec)


def too_small(spec: ConvSpec) -> str | None:
    """Whether code for it alone would not pay."""
    if each_image(spec) < DEPTHWISE_WORTH:
        return f"{each_image(spec)} operations of an image are too few to pay for code of their own"
    return None


def late(module: str, name: str) -> Callable[..., Any]:
    """A function of this package's whose module is imported when it is first run."""

    @cache
    def found() -> Callable[..., Any]:
        imported: Callable[..., Any] = getattr(import_module(f".{module}", __package__), name)
        return imported

    def run(*arguments: Any, **keywords: Any) -> Any:
        return found()(*arguments, **keywords)

    return run
