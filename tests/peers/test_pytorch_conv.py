"""Convolutions, transposed ones, and windows as columns: equal to PyTorch's, forward and backward.

The data are small whole numbers, whose sums are exact in float32, so that nothing may differ.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from helpers import lay
from hypothesis import strategies as st
from peers.agreement import agree, data_layouts, every_rank, fuzz, gradients, leaf, saw, typed
from torch.nn import functional

import convkernels as ck
from convkernels.layout import weight_layout_for
from convkernels.testing.strategies import integers, layouts

MODES = ("zeros", "zeros", "zeros", "reflect", "replicate", "circular")
CUTS = ((0, 0), (0, 0), (1, 0), (0, 1), (1, 1))
FORMS = ("pairs", "numbers", "same", "valid")
MOST_TAPS = {1: 6, 2: 4, 3: 3}
# By name too, for the problems are too small for "auto" to take the compiled strategy.
STRATEGIES = ("auto", "direct", "im2col", "stride_tricks")


class Problem(NamedTuple):
    """A convolution, transposed or not, but for its channels."""

    in_size: tuple[int, ...]
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: str | tuple
    dilation: tuple[int, ...]
    mode: str = "zeros"
    output_padding: tuple[int, ...] = ()

    @property
    def options(self):
        """The keywords that both libraries take, besides the padding."""
        return {"stride": self.stride, "dilation": self.dilation}

    def padded(self, x):
        """The input with the padding that PyTorch's convolution does not take, and the padding that it takes."""
        if self.mode == "zeros" and not isinstance(self.padding[0], tuple):
            return x, self.padding
        pairs = [pair if isinstance(pair, tuple) else (pair, pair) for pair in self.padding]
        mode = "constant" if self.mode == "zeros" else self.mode
        return functional.pad(x, [size for pair in reversed(pairs) for size in pair], mode), 0


@st.composite
def convolutions(draw, rank, modes=MODES, forms=FORMS):
    """Windows that fit the padded input: strided, dilated, cropped, and padded in every way that PyTorch knows."""
    mode = draw(st.sampled_from(modes))
    # PyTorch pads by name with zeros, and "same" only where the stride is 1.
    form = draw(st.sampled_from(forms if mode == "zeros" else forms[:2]))
    axes = []
    for _ in range(rank):
        size = draw(st.integers(1, 9 if rank == 1 else 5))
        cut = draw(st.sampled_from(CUTS)) if form == "pairs" and size > 2 else (0, 0)
        # PyTorch mirrors the input once, and repeats it once. It mirrors what the other side then cuts off, too, and
        # leaves memory unset when it repeats more than is left: here no padding reaches that far.
        kept = size - sum(cut)
        most = st.integers(0, {"zeros": 3, "replicate": 3, "reflect": kept - 1, "circular": kept}[mode])
        lo = hi = draw(most) if form == "numbers" else 0
        if form == "pairs":
            lo, hi = (-1 if cells else draw(most) for cells in cut)
        spread = draw(st.sampled_from([1, 1, 2, 3]))
        fitting = MOST_TAPS[rank] if form == "same" else (size + lo + hi - 1) // spread + 1
        taps = draw(st.integers(1, min(fitting, MOST_TAPS[rank])))
        stride = 1 if form == "same" else draw(st.integers(1, 3))
        axes.append((size, taps, stride, lo if form == "numbers" else (lo, hi), spread))
    in_size, kernel_size, stride, padding, dilation = zip(*axes, strict=True)
    padding = form if form in ("same", "valid") else padding
    saw({f"padding {form}": True, mode: mode != "zeros", "strided": max(stride) > 1, "dilated": max(dilation) > 1})
    return Problem(in_size, kernel_size, stride, padding, dilation, mode)


@st.composite
def conv_transposes(draw, rank):
    """Every output padding, and padding down to one cell of output; the same on both sides, or not."""
    symmetric = draw(st.booleans())
    axes = []
    for _ in range(rank):
        size, taps = draw(st.integers(1, 4)), draw(st.integers(1, MOST_TAPS[rank]))
        step, spread = draw(st.integers(1, 3)), draw(st.sampled_from([1, 1, 2, 3]))
        extra = draw(st.integers(0, max(step, spread) - 1))
        most = (size - 1) * step + spread * (taps - 1) + extra  # leaves one cell
        if symmetric:
            padding = draw(st.integers(0, most // 2))
        else:
            lo = draw(st.integers(-1, most))
            padding = (lo, draw(st.integers(-1, most - max(lo, 0))))
        axes.append((size, taps, step, padding, spread, extra))
    in_size, kernel_size, stride, padding, dilation, extra = zip(*axes, strict=True)
    saw({"padding numbers": symmetric, "padding pairs": not symmetric, "output padding": any(extra)})
    saw({"strided": max(stride) > 1, "dilated": max(dilation) > 1, "width 1": in_size[-1] == 1})
    return Problem(in_size, kernel_size, stride, padding, dilation, output_padding=extra)


def plain(canonical):
    """A tensor in canonical order in memory too, to take a gradient by; `docs/findings.md` shows what else is at risk.

    Where data or weights lie channels last, PyTorch 2.13 ends the process in some float32 convolutions with a bias,
    and gets some gradients wrong. It refuses gradients of some weights as they lie.
    """
    return leaf(canonical.copy())


@st.composite
def placed(draw, rank, leading="OI"):
    """A layout for the data, the one for the weights, and the options that say so and how to compute."""
    layout = draw(data_layouts(rank))
    chosen = draw(layouts(rank, leading) if layout.order == "other" else st.none() | layouts(rank, leading))
    weight_layout = weight_layout_for(layout, None if chosen is None else chosen.axes, leading)
    strategy = draw(st.sampled_from(STRATEGIES))
    saw({f"by {strategy}": True})
    return layout, weight_layout, {"layout": layout.axes, "weight_layout": chosen and chosen.axes, "strategy": strategy}


def channels(draw):
    """The batch, the groups, and the channels of a group, in and out."""
    batch, groups = draw(st.integers(1, 3)), draw(st.sampled_from([1, 1, 2, 3]))
    group_in, group_out = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    saw({"grouped": groups > 1})
    return batch, groups, group_in, group_out


def bias(draw, size, dtype, seed):
    """One whole number for each output channel, or None."""
    chosen = draw(st.booleans())
    saw({"bias": chosen})
    return integers((size,), dtype, seed) if chosen else None


# PyTorch says that "same" may copy the input.
@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
@every_rank
@fuzz
def test_convolution(rank, data):
    draw = data.draw
    problem, (batch, groups, group_in, group_out) = draw(convolutions(rank)), channels(draw)
    (layout, weight_layout, chosen), (dtype, seed) = draw(placed(rank)), typed(draw)
    x = lay(integers((batch, groups * group_in, *problem.in_size), dtype, seed), layout)
    w = lay(integers((groups * group_out, group_in, *problem.kernel_size), dtype, seed + 1), weight_layout)
    b = bias(draw, groups * group_out, dtype, seed + 2)

    tensors = plain(layout.view(x)), plain(weight_layout.view(w)), leaf(b)
    padded, padding = problem.padded(tensors[0])
    y = getattr(functional, f"conv{rank}d")(padded, *tensors[1:], padding=padding, groups=groups, **problem.options)
    dy = integers(tuple(y.shape), dtype, seed + 3)
    expected = (y, *gradients(y, dy, *tensors))

    options = {"padding": problem.padding, "padding_mode": problem.mode, "groups": groups, **problem.options, **chosen}
    agree_on(f"conv{rank}d", (x, w, b), options, layout, weight_layout, expected, dy)
    dy = lay(dy, layout)
    got = getattr(ck, f"conv{rank}d_input_grad")(dy, w, x_shape=x.shape, **options)
    agree(f"conv{rank}d_input_grad", (layout.view(got),), expected[1:2])
    got = getattr(ck, f"conv{rank}d_weight_grad")(x, dy, kernel_size=problem.kernel_size, **options)
    agree(f"conv{rank}d_weight_grad", (weight_layout.view(got),), expected[2:3])


def agree_on(function, arrays, options, layout, weight_layout, theirs, dy):
    """Compare a convolution, and then its vjp, with PyTorch's result and gradients."""
    y = getattr(ck, function)(*arrays, **options)
    agree(function, (layout.view(y),), theirs[:1])
    y, vjp = getattr(ck, function + "_vjp")(*arrays, **options)
    dx, *dws, db = vjp(lay(dy, layout))
    agree(function + "_vjp", (layout.view(y), layout.view(dx), *map(weight_layout.view, dws), db), theirs)


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
@every_rank
@fuzz
def test_depthwise_and_separable_convolution(rank, data):
    """PyTorch's convolution with a group for each channel, and its 1x1 convolution of that."""
    draw = data.draw
    problem, batch, count = draw(convolutions(rank)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    multiplier, out_channels = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    (layout, weight_layout, chosen), (dtype, seed) = draw(placed(rank)), typed(draw)
    saw({"several outputs a channel": multiplier > 1})
    x = lay(integers((batch, count, *problem.in_size), dtype, seed), layout)
    w = lay(integers((multiplier * count, 1, *problem.kernel_size), dtype, seed + 1), weight_layout)
    mix = lay(integers((out_channels, multiplier * count, *[1] * rank), dtype, seed + 2), weight_layout)
    options = {"padding": problem.padding, "padding_mode": problem.mode, **problem.options, **chosen}

    theirs = getattr(functional, f"conv{rank}d")
    b = bias(draw, multiplier * count, dtype, seed + 3)
    tensors = plain(layout.view(x)), plain(weight_layout.view(w)), leaf(b)
    padded, padding = problem.padded(tensors[0])
    middle = theirs(padded, *tensors[1:], padding=padding, groups=count, **problem.options)
    dy = integers(tuple(middle.shape), dtype, seed + 4)
    expected = (middle, *gradients(middle, dy, *tensors))
    agree_on(f"depthwise_conv{rank}d", (x, w, b), options, layout, weight_layout, expected, dy)

    b = integers((out_channels,), dtype, seed + 5)
    tensors = plain(layout.view(x)), plain(weight_layout.view(w)), plain(weight_layout.view(mix)), leaf(b)
    padded, padding = problem.padded(tensors[0])
    middle = theirs(padded, tensors[1], padding=padding, groups=count, **problem.options)
    y = theirs(middle, *tensors[2:])
    dy = integers(tuple(y.shape), dtype, seed + 6)
    expected = (y, *gradients(y, dy, *tensors))
    agree_on(f"separable_conv{rank}d", (x, w, mix, b), options, layout, weight_layout, expected, dy)


@every_rank
@fuzz
def test_transposed_convolution(rank, data):
    draw = data.draw
    problem, (batch, groups, group_in, group_out) = draw(conv_transposes(rank)), channels(draw)
    (layout, weight_layout, chosen), (dtype, seed) = draw(placed(rank, "IO")), typed(draw)
    x = lay(integers((batch, groups * group_in, *problem.in_size), dtype, seed), layout)
    w = lay(integers((groups * group_in, group_out, *problem.kernel_size), dtype, seed + 1), weight_layout)
    b = bias(draw, groups * group_out, dtype, seed + 2)

    tensors = plain(layout.view(x)), plain(weight_layout.view(w)), leaf(b)
    symmetric = not isinstance(problem.padding[0], tuple)
    shared = {"output_padding": problem.output_padding, "groups": groups, **problem.options}
    theirs = getattr(functional, f"conv_transpose{rank}d")
    if symmetric:
        y = theirs(*tensors, padding=problem.padding, **shared)
    else:
        # Cut off, or added where the padding is negative, afterwards; the bias reaches the cells that are added.
        cut = [-size for pair in reversed(problem.padding) for size in pair]
        y = functional.pad(theirs(*tensors[:2], **shared), cut)
        y = y if b is None else y + tensors[2].reshape(-1, *[1] * rank)
    dy = integers(tuple(y.shape), dtype, seed + 3)
    expected = (y, *gradients(y, dy, *tensors))
    options = {"padding": problem.padding, **shared, **chosen}
    agree_on(f"conv_transpose{rank}d", (x, w, b), options, layout, weight_layout, expected, dy)


@fuzz
def test_columns(data):
    """PyTorch's unfold and fold, which take two spatial axes."""
    draw = data.draw
    problem = draw(convolutions(2, modes=("zeros",), forms=("numbers",)))
    layout, (dtype, seed) = draw(data_layouts(2)), typed(draw)
    x = integers((draw(st.integers(1, 3)), draw(st.integers(1, 3)), *problem.in_size), dtype, seed)
    options = {"kernel_size": problem.kernel_size, "padding": problem.padding, **problem.options}
    columns = functional.unfold(torch.from_numpy(x), **options)
    agree("im2col", (ck.im2col(lay(x, layout), **options, layout=layout.axes),), (columns,))
    values = integers(tuple(columns.shape), dtype, seed + 1)
    back = ck.col2im(values, x_shape=layout.shape(x.shape), **options, layout=layout.axes)
    agree("col2im", (layout.view(back),), (functional.fold(torch.from_numpy(values), problem.in_size, **options),))
