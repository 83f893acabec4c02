"""Convolution by the convolution theorem: transforms of tiles, multiplied frequency by frequency.

With F the discrete Fourier transform, which is linear and takes cyclic correlations to products, tiles of outputs
and the cells that they read have, for each frequency,

    F(y)  =  conj(F(w)) F(x)          (O, C) by (C, tiles)
    F(dx) =  F(w).T F(dy)             (C, O) by (O, tiles)
    F(dw) =  conj(F(dy)) F(x).T       (O, tiles) by (tiles, C), summed over images

The transforms are as long as a tile's cells, so that outputs whose windows lie within do not meet the cyclic seam; the
others are dropped (overlap-save), and what tiles give to cells that they share is added up (overlap-add). With a stride
s, tap t of output p reads cell p s + t. Cells and taps of one remainder by s make a convolution of stride 1, a *phase*,
and y is the sum over the phases: they are input channels of their own. A dilation puts zeros between taps, unless it is
the stride's.

A direct convolution takes as many operations as there are taps for each output and channel; this one some ten for each
doubling of the tile, for each channel, and two complex ones for each pair of channels. Sums of many taps hide its
rounding, which is that of the whole tile: NaN and infinities spread over it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import product

import numpy as np

from ..config import Config, Resources
from ..layout import Array, Order
from ..spec import ConvSpec
from ..views import grouped, slices
from ..window import Ints, Tile, Window
from .compiled import available, needs
from .compiled.available import each_image
from .compiled.thread_count import usable
from .fft_tiles import Phase, Plan, corner, cost, depth, phases, plan, reach, reached, rows_at_a_time

Workspace = Callable[[ConvSpec, int], int]

CLAIMS = frozenset({"batch_invariant", "bounded_tile"})
TYPES = (np.dtype(np.float32), np.dtype(np.float64))
LEAST = 16
"""Products whose sum hides the transforms' rounding."""
SILENT = np.errstate(over="ignore", invalid="ignore")
"""As compiled code is silent of what is not finite."""
DIRECT, DEPTHWISE, DEPTHWISE_SUMS, MULTIPLIED = 200.0, 130.0, 80.0, 100.0
"""Operations that a thread does in a nanosecond, the most that were measured in float32: of compiled tiles of
registers, of channels by themselves and of their weight gradients, and of matrix products."""
COLUMN, COLUMN_SUMS = 60.0, 10.0
"""The same of tiles for each channel that comes of a group where these are few, and of their weight gradients."""
COPIED = 0.25
"""Nanoseconds for copying a cell of a column."""
GAIN = 0.8
"""The share of the time from which on less is worth it: of 384 problems of one image, that took 80 from the compiled
ways and 240 from columns, and one of those was slower, by 3 %."""


def supports(spec: ConvSpec) -> str | None:
    """float32 and float64, and sums of many products: here those over taps and input channels."""
    return support(spec, spec.group_in * spec.window.taps)


def supports_input_grad(spec: ConvSpec) -> str | None:
    """The same, of sums over taps and output channels."""
    return support(spec, spec.group_out * spec.window.taps)


def supports_weight_grad(spec: ConvSpec) -> str | None:
    """The same, of sums over outputs; those of no image are zeros."""
    return support(spec, spec.batch * math.prod(spec.window.out_size) or LEAST)


def support(spec: ConvSpec, products: int) -> str | None:
    """Why sums of so many products are not computed."""
    if spec.compute_dtype not in TYPES:
        return f"computes float32 and float64, not {spec.compute_dtype.name}"
    if products < LEAST:
        return f"sums of {products} products are below the {LEAST} that hide its rounding"
    return None


def prefers(spec: ConvSpec, order: Order) -> str | None:
    """Where the transforms take less time than the products of taps."""
    reasons = available.depthwise_prefers(spec, order), available.prefers(spec, order)
    return slower(spec, *reasons, needs.workspace, COLUMN * spec.group_out)


def prefers_input_grad(spec: ConvSpec, order: Order) -> str | None:
    """The same."""
    reasons = available.depthwise_prefers_input_grad(spec, order), available.prefers_input_grad(spec, order)
    return slower(spec, *reasons, needs.workspace_input_grad, COLUMN * spec.group_in)


def prefers_weight_grad(spec: ConvSpec, order: Order) -> str | None:
    """The same."""
    reasons = available.depthwise_prefers_weight_grad(spec, order), available.prefers_weight_grad(spec, order)
    return slower(spec, *reasons, needs.workspace_weight_grad, COLUMN_SUMS * spec.group_out, DEPTHWISE_SUMS)


def slower(
    spec: ConvSpec, depthwise: str | None, direct: str | None, memory: Workspace, tiles: float, rate: float = DEPTHWISE
) -> str | None:
    """Why another way is expected to be faster for one image, given what speaks against the compiled ones.

    Those run at some rate, on each thread, where they take the problem in the usual memory, `tiles` at less if that is;
    columns have to be copied and multiplied.
    """
    flops, usual = each_image(spec), Config().max_workspace
    threads = usable(None, flops)
    if not (depthwise or available.depthwise_supports(spec)):
        other = flops / (rate * threads)
    elif not (direct or available.supports(spec)) and memory(spec, usual) <= usual:
        other = flops / (min(DIRECT, tiles) * threads)
    else:
        other = flops * (1 / (MULTIPLIED * threads) + COPIED / (2 * spec.group_out))
    taken = cost(spec, plan(spec, usual).tiling)
    if taken > GAIN * other:
        return f"{taken / 1000:.0f} us for an image are expected, and {other / 1000:.0f} us without transforms"
    return None


def workspace(spec: ConvSpec, limit: int) -> int:
    """Scratch bytes of `conv` and `conv_input_grad`: transforms of weights, tiles and results, and their cells."""
    return plan(spec, limit).bytes


def workspace_weight_grad(spec: ConvSpec, limit: int) -> int:
    """Scratch bytes of `conv_weight_grad`: those, and a product that is added to the sum over tiles."""
    return plan(spec, limit, sums=True).bytes


class Transforms:
    """Cells to spectra and back: the sizes of one problem, and how its spectra lie in memory.

    Spectra are (G, rows, columns, frequencies). Frequencies lie innermost, or outermost where they are multiplied as
    matrices. NumPy computes float32 in float32, forward and backward, by the norm "ortho" alone; by that norm a product
    of spectra is to be scaled once.
    """

    def __init__(self, spec: ConvSpec, plan: Plan) -> None:
        self.lengths, self.stacked = plan.tiling.lengths, plan.stacked
        self.type = np.result_type(spec.compute_dtype, np.complex64)
        self.shape = (*self.lengths[:-1], self.lengths[-1] // 2 + 1)
        self.scale = math.sqrt(math.prod(self.lengths))

    def empty(self, *lines: int) -> Array:
        """Memory for spectra."""
        frequencies = math.prod(self.shape)
        if self.stacked:
            return np.moveaxis(np.empty((frequencies, *lines), self.type), 0, -1)
        return np.empty((*lines, frequencies), self.type)

    def forward(self, cells: Array, spectra: Array) -> None:
        """Transform cells (G, rows, columns, spatial), with zeros behind."""
        lines, sizes = cells.shape[:3], cells.shape[3:]
        space = np.empty((*lines, *self.shape), self.type) if self.stacked else spectra.reshape(*lines, *self.shape)
        last = len(sizes) - 1
        # Each axis in turn, the last first; along those that are not transformed yet there are still only the cells.
        part = space[:, :, :, *corner(sizes[:last])]
        np.fft.rfft(cells, self.lengths[last], norm="ortho", out=part)
        for axis in reversed(range(last)):
            part = space[:, :, :, *corner(sizes[:axis])]
            np.moveaxis(part, 3 + axis, 0)[sizes[axis] :] = 0
            np.fft.fft(part, axis=3 + axis, norm="ortho", out=part)
        if self.stacked:
            np.copyto(spectra, space.reshape(spectra.shape))

    def backward(self, spectra: Array, sizes: Ints) -> Array:
        """Transform a product of spectra into its first cells; the spectra are lost."""
        space = np.ascontiguousarray(spectra).reshape(*spectra.shape[:3], *self.shape)
        last = len(sizes) - 1
        for axis in range(last):
            np.fft.ifft(space, axis=3 + axis, norm="ortho", out=space)
            space = space[:, :, :, *corner(sizes[: axis + 1])]
        cells: Array = np.fft.irfft(space, self.lengths[last], norm="ortho")[..., : sizes[last]]
        cells *= self.scale
        return cells

    def product(self, left: Array, right: Array) -> Array:
        """Multiply (G, rows, n, frequencies) by (G, n, columns, frequencies), as matrices for each frequency."""
        out = self.empty(left.shape[0], left.shape[1], right.shape[2])
        if self.stacked:
            np.matmul(np.moveaxis(left, -1, 0), np.moveaxis(right, -1, 0), out=np.moveaxis(out, -1, 0))
            return out
        np.multiply(left[:, :, 0, None], right[:, 0, None], out=out)
        for inner in range(1, left.shape[2]):
            out += left[:, :, inner, None] * right[:, inner, None]
        return out


@SILENT
def conv(spec: ConvSpec, x: Array, w: Array, b: Array | None, *, out: Array, resources: Resources) -> None:
    """Multiply the spectra of tiles by those of the weights."""
    found = plan(spec, resources.max_workspace)
    transforms, outputs = Transforms(spec, found), found.tiling.tile
    x, w, out = grouped(x, spec.groups), by_group(spec, w), grouped(out, spec.groups)
    for groups, outs in pieces(spec, found):
        weights = weight_spectra(spec, transforms, w[groups, outs])
        np.conjugate(weights, out=weights)
        for image, tiles in product(range(spec.batch), found.chunks(spec.window.out_size)):
            spectra = input_spectra(spec, transforms, x[image, groups], tiles, outputs)
            cells = transforms.backward(transforms.product(weights, spectra), outputs)
            for number, tile in enumerate(tiles):
                target = out[image, groups, outs, *tile]
                target[...] = cells[:, :, number, *corner(target.shape[2:])]
            del spectra, cells  # before the next
        del weights
    if b is not None:
        out += b.reshape(spec.groups, spec.group_out, *[1] * spec.window.rank)


@SILENT
def conv_input_grad(spec: ConvSpec, dy: Array, w: Array, *, out: Array, resources: Resources) -> None:
    """Multiply the spectra of the tiles' gradients by those of the weights, and add up what overlaps."""
    found = plan(spec, resources.max_workspace)
    transforms, read = Transforms(spec, found), cells_read(spec.window, found.tiling.tile)
    dy, w, dx = grouped(dy, spec.groups), by_group(spec, w), grouped(out, spec.groups)
    every = phases(spec.window)
    out[...] = 0
    if not reached(spec.window):
        return  # else the rounding of what lands in the padding would be all there is
    for groups, outs in pieces(spec, found):
        weights = weight_spectra(spec, transforms, w[groups, outs]).swapaxes(1, 2)
        for image, tiles in product(range(spec.batch), found.chunks(spec.window.out_size)):
            spectra = output_spectra(transforms, dy[image, groups, outs], tiles, found.tiling.tile)
            cells = transforms.backward(transforms.product(weights, spectra), read)
            cells = cells.reshape(len(cells), spec.group_in, len(every), *cells.shape[2:])
            for (number, tile), (place, phase) in product(enumerate(tiles), enumerate(every)):
                if met := meeting(spec.window, tile, phase):
                    inside, real = met
                    dx[image, groups, :, *real] += cells[:, :, place, number, *inside]
            del spectra, cells
        del weights


@SILENT
def conv_weight_grad(spec: ConvSpec, x: Array, dy: Array, *, out: Array, resources: Resources) -> None:
    """Multiply the spectra of the tiles' gradients by those of the tiles, and sum over all of these."""
    found = plan(spec, resources.max_workspace, sums=True)
    transforms, outputs = Transforms(spec, found), found.tiling.tile
    x, dy, dw = grouped(x, spec.groups), grouped(dy, spec.groups), by_group(spec, out)
    if not spec.batch:
        out[...] = 0
    for groups, outs in pieces(spec, found):
        sums = None
        for image, tiles in product(range(spec.batch), found.chunks(spec.window.out_size)):
            given = output_spectra(transforms, dy[image, groups, outs], tiles, outputs)
            np.conjugate(given, out=given)
            spectra = input_spectra(spec, transforms, x[image, groups], tiles, outputs).swapaxes(1, 2)
            products = transforms.product(given, spectra)
            sums = products if sums is None else np.add(sums, products, out=sums)
            del given, spectra, products
        if sums is not None:
            write_weights(spec, transforms, sums, dw[groups, outs])


def pieces(spec: ConvSpec, found: Plan) -> Iterator[tuple[slice, slice]]:
    """The groups and the output channels of each that are worked on at a time."""
    return product(slices(spec.groups, found.groups), slices(spec.group_out, found.outs))


def by_group(spec: ConvSpec, w: Array) -> Array:
    """The weights as (G, O, C, taps)."""
    return w.reshape(spec.groups, spec.group_out, *w.shape[1:])


def weight_spectra(spec: ConvSpec, transforms: Transforms, w: Array) -> Array:
    """The spectra of weights (G, O, C, taps), whose columns are phases of input channels."""
    spectra, every = transforms.empty(*w.shape[:2], depth(spec)), phases(spec.window)
    for rows in slices(w.shape[1], rows_at_a_time(len(w) * depth(spec))):
        some = w[:, rows]
        cells = np.zeros((*some.shape[:3], len(every), *reach(spec.window)), w.dtype)
        for number, phase in enumerate(every):
            cells[:, :, :, number, *places_of(phase)] = some[..., *taps_of(phase)]
        transforms.forward(cells.reshape(*some.shape[:2], -1, *reach(spec.window)), spectra[:, rows])
    return spectra


def write_weights(spec: ConvSpec, transforms: Transforms, spectra: Array, dw: Array) -> None:
    """Write the gradient of weights (G, O, C, taps), given its spectra."""
    every = phases(spec.window)
    for rows in slices(dw.shape[1], rows_at_a_time(len(dw) * depth(spec))):
        some = dw[:, rows]
        cells = transforms.backward(spectra[:, rows], reach(spec.window))
        cells = cells.reshape(*some.shape[:3], len(every), *reach(spec.window))
        for number, phase in enumerate(every):
            some[..., *taps_of(phase)] = cells[:, :, :, number, *places_of(phase)]
        del cells
    for axis, taps in enumerate(blind_taps(spec.window), start=dw.ndim - spec.window.rank):
        np.moveaxis(dw, axis, 0)[taps] = 0


def blind_taps(window: Window) -> Iterator[list[int]]:
    """The taps along each axis that see no cell: their gradient is nothing, and not what rounding leaves of it.

    Examples
    --------
    >>> list(blind_taps(Window.make((1, 4), kernel_size=(3, 2), padding=(1, 0))))
    [[0, 2], []]
    """
    for cells, outputs, taps, stride, spread, (low, _) in zip(
        *(window.in_size, window.out_size, window.kernel_size, window.stride, window.dilation, window.padding),
        strict=True,
    ):
        starts = spread * np.arange(taps) - low
        nearest = np.maximum(0, -(starts // stride))  # the first output for which the tap is not in front of the input
        blind = (nearest >= outputs) | (starts + stride * nearest >= cells)
        yield [*map(int, np.flatnonzero(blind))]


def taps_of(phase: tuple[Phase, ...]) -> Tile:
    """The taps of a phase along each axis."""
    return tuple(axis.taps for axis in phase)


def places_of(phase: tuple[Phase, ...]) -> Tile:
    """Where they lie among the phase's cells."""
    return tuple(axis.places for axis in phase)


def cells_read(window: Window, tile: Ints) -> Ints:
    """The cells of a phase that a tile of this size reads along each axis."""
    return tuple(size + taps - 1 for size, taps in zip(tile, reach(window), strict=True))


def input_spectra(spec: ConvSpec, transforms: Transforms, x: Array, tiles: list[Tile], size: Ints) -> Array:
    """The spectra of what tiles read of x (G, C, spatial): phases of channels by tiles."""
    every = phases(spec.window)
    cells = np.zeros((*x.shape[:2], len(every), len(tiles), *cells_read(spec.window, size)), x.dtype)
    for (number, tile), (place, phase) in product(enumerate(tiles), enumerate(every)):
        if met := meeting(spec.window, tile, phase):
            inside, real = met
            cells[:, :, place, number, *inside] = x[..., *real]
    spectra = transforms.empty(len(x), depth(spec), len(tiles))
    transforms.forward(cells.reshape(len(x), depth(spec), *cells.shape[3:]), spectra)
    return spectra


def output_spectra(transforms: Transforms, dy: Array, tiles: list[Tile], size: Ints) -> Array:
    """The spectra of tiles of dy (G, O, spatial)."""
    cells = np.zeros((*dy.shape[:2], len(tiles), *size), dy.dtype)
    for number, tile in enumerate(tiles):
        part = dy[..., *tile]
        cells[:, :, number, *corner(part.shape[2:])] = part
    spectra = transforms.empty(*dy.shape[:2], len(tiles))
    transforms.forward(cells, spectra)
    return spectra


def meeting(window: Window, tile: Tile, phase: tuple[Phase, ...]) -> tuple[Tile, Tile] | None:
    """Where the cells of a phase that a tile reads are real: their places among those, and in the input.

    None if all lie in the padding.
    """
    inside, real = [], []
    for axis, (outputs, found) in enumerate(zip(tile, phase, strict=True)):
        first, stop = window.bounds[axis]
        step = window.stride[axis]
        start = outputs.start * step + found.remainder - window.padding[axis][0]
        begin = max(0, -((start - first) // step))
        end = min(outputs.stop - outputs.start + found.places.stop - 1, (stop - 1 - start) // step + 1)
        if begin >= end:
            return None
        inside.append(slice(begin, end))
        real.append(slice(begin * step + start, (end - 1) * step + start + 1, step))
    return tuple(inside), tuple(real)
