"""Pools and their inverses: equal to PyTorch's, forward and backward.

No two numbers of a maximum's data are equal, and none is NaN: of several PyTorch does not promise which takes the
gradient, and of several NaN it takes the last. All are below 0, so that a padding of zeros would win. A mean's data are
multiples of every number of cells that a window can have, so that it is whole, and so are the shares of its gradient.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from helpers import lay
from hypothesis import strategies as st
from peers.agreement import agree, common_multiple, data_layouts, every_rank, fuzz, gradients, leaf, saw, typed
from torch.nn import functional

import convkernels as ck
from convkernels.testing.strategies import distinct, integers, reals

MOST_TAPS = {1: 6, 2: 4, 3: 3}
MOST_CELLS = {1: 11, 2: 6, 3: 4}


class Problem(NamedTuple):
    """A pool, its data aside."""

    x_shape: tuple[int, ...]
    window: tuple[int, ...]
    options: dict


@st.composite
def pools(draw, rank, *, dilated=False, padded=True, averaged=False):
    """Windows that each hold a real cell."""
    axes = []
    for _ in range(rank):
        spread, taps = draw(st.sampled_from([1, 1, 2, 3])) if dilated else 1, draw(st.integers(1, MOST_TAPS[rank]))
        # PyTorch pads by half the window at most, and the same on both sides.
        padding = draw(st.integers(0, taps // 2)) if padded else 0
        # An input no shorter than the dilation has a cell under every window that reaches over it.
        least = max(spread, spread * (taps - 1) + 1 - 2 * padding)
        if averaged and rank == 3:
            least = taps  # which PyTorch asks for, whatever the padding
        axes.append((draw(st.integers(least, least + 4)), taps, draw(st.integers(1, 3)), padding, spread))
    in_size, window, stride, padding, dilation = zip(*axes, strict=True)
    options = {"stride": draw(st.sampled_from([stride, stride, None]))}
    saw({"tiled": options["stride"] is None, "strided": options["stride"] is not None and max(stride) > 1})
    if padded:
        options |= {"padding": padding, "ceil_mode": draw(st.booleans())}
        saw({"padded": any(padding), "ceil": options["ceil_mode"]})
    if dilated:
        options["dilation"] = dilation
        saw({"dilated": max(dilation) > 1})
    return Problem((*draw(leading), *in_size), window, options)


leading = st.tuples(st.integers(1, 3), st.integers(1, 3))


def posed(draw, rank, **kind):
    """A pool, a layout, a type and a seed."""
    return draw(pools(rank, **kind)), draw(data_layouts(rank)), *typed(draw)


def below_zero(shape, dtype, seed):
    """Whole numbers of which no two are equal."""
    return distinct(shape, dtype, seed) - math.prod(shape)


def peer(name, rank):
    """A function of PyTorch's for so many axes."""
    return getattr(functional, f"{name}{rank}d")


def agree_on(function, arguments, options, layout, x, seed, theirs, bounds=(0, 0), scale=1):
    """Compare a pool, and then its vjp, with PyTorch's result and gradient."""
    tensor = leaf(layout.view(x))
    y = theirs(tensor)
    dy = scale * integers(tuple(y.shape), x.dtype, seed + 1)
    expected = (y, *gradients(y, dy, tensor))
    name, _, kind = function.partition("(")
    options = {**options, "layout": layout.axes}
    got = getattr(ck, name)(x, *arguments, **options)
    agree(function, (layout.view(got),), expected[:1], bounds[:1])
    got, vjp = getattr(ck, name + "_vjp")(x, *arguments, **options)
    vjp_name = f"{name}_vjp({kind}" if kind else f"{name}_vjp"
    agree(vjp_name, (layout.view(got), layout.view(vjp(lay(dy, layout)))), expected, bounds)


@every_rank
@fuzz
def test_max_pool(rank, data):
    problem, layout, dtype, seed = posed(data.draw, rank, dilated=True)
    x = lay(below_zero(problem.x_shape, dtype, seed), layout)

    def theirs(tensor):
        return peer("max_pool", rank)(tensor, problem.window, **problem.options)

    agree_on(f"max_pool{rank}d", (problem.window,), problem.options, layout, x, seed, theirs)


@every_rank
@fuzz
def test_max_pool_with_indices(rank, data):
    problem, layout, dtype, seed = posed(data.draw, rank, dilated=True)
    x = lay(below_zero(problem.x_shape, dtype, seed), layout)
    tensor = leaf(layout.view(x))
    y, indices = peer("max_pool", rank)(tensor, problem.window, **problem.options, return_indices=True)
    dy = integers(tuple(y.shape), dtype, seed + 1)
    expected = (y, indices, *gradients(y, dy, tensor))
    name, options = f"max_pool{rank}d_with_indices", {**problem.options, "layout": layout.axes}
    agree(name, tuple(map(layout.view, getattr(ck, name)(x, problem.window, **options))), expected[:2])
    *got, vjp = getattr(ck, name + "_vjp")(x, problem.window, **options)
    agree(name + "_vjp", tuple(map(layout.view, (*got, vjp(lay(dy, layout))))), expected)


@every_rank
@fuzz
def test_max_unpool(rank, data):
    """Every index stands once: where two are equal, PyTorch does not say which value stays."""
    lead, layout, (dtype, seed) = data.draw(leading), data.draw(data_layouts(rank)), typed(data.draw)
    axes = []
    for _ in range(rank):
        size, step = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
        # PyTorch takes output sizes less than a stride away from size * stride.
        axes.append((size, step, size * step + data.draw(st.integers(1 - step, step - 1))))
    in_size, stride, out_size = zip(*axes, strict=True)
    saw({"larger": math.prod(out_size) > math.prod(in_size), "strided": max(stride) > 1})
    generator, cells = np.random.default_rng(seed), math.prod(out_size)
    planes = [generator.permutation(cells)[: math.prod(in_size)] for _ in range(math.prod(lead))]
    indices, x = np.reshape(planes, (*lead, *in_size)), integers((*lead, *in_size), dtype, seed)

    tensor = leaf(x)
    y = peer("max_unpool", rank)(tensor, torch.from_numpy(indices), stride, output_size=out_size)
    dy = integers(tuple(y.shape), dtype, seed + 1)
    expected = (y, *gradients(y, dy, tensor))
    arrays, options = (lay(x, layout), lay(indices, layout)), {"output_size": out_size, "layout": layout.axes}
    name = f"max_unpool{rank}d"
    agree(name, (layout.view(getattr(ck, name)(*arrays, **options)),), expected[:1])
    got, vjp = getattr(ck, name + "_vjp")(*arrays, **options)
    agree(name + "_vjp", (layout.view(got), layout.view(vjp(lay(dy, layout)))), expected)


def average(tensor, window, *, stride, padding, **options):
    """PyTorch's average pool; over one axis that of images of height 1, which takes a divisor."""
    if len(window) > 1:
        return peer("avg_pool", len(window))(tensor, window, stride, padding, **options)
    stride, padding = stride and (1, *stride), (0, *padding)
    return functional.avg_pool2d(tensor.unsqueeze(2), (1, *window), stride, padding, **options).squeeze(2)


@every_rank
@fuzz
def test_average_pool(rank, data):
    problem, layout, dtype, seed = posed(data.draw, rank, averaged=True)
    divisor = data.draw(st.none() | st.integers(1, 5))
    options = {**problem.options, "count_include_pad": data.draw(st.booleans())}
    saw({"divisor": divisor is not None, "padding counts": options["count_include_pad"]})
    scale = common_multiple(problem.window) * (divisor or 1)
    x = lay(scale * integers(problem.x_shape, dtype, seed), layout)

    def theirs(tensor):
        if divisor is None:
            return peer("avg_pool", rank)(tensor, problem.window, **options)
        return average(tensor, problem.window, **options, divisor_override=divisor)

    ours = {**options, "divisor_override": divisor}
    agree_on(f"avg_pool{rank}d", (problem.window,), ours, layout, x, seed, theirs, scale=scale)


@every_rank
@fuzz
def test_lp_pool(rank, data):
    """PyTorch's pool has no padding, and scales the windows of a rounded-up size as if they were whole; ours do not.

    It raises the numbers themselves to a power, ours their sizes: any numbers for an even power, else positive ones.
    """
    problem, layout, dtype, seed = posed(data.draw, rank, padded=False)
    p = data.draw(st.sampled_from([1, 1.5, 2, 3, 4]))
    saw({f"p = {p}": True})
    x = reals(problem.x_shape, dtype, seed)
    # Away from 0, where PyTorch's gradient is NaN.
    x = np.copysign(np.abs(x) + 1, x if p % 2 == 0 else 1).astype(dtype)

    def theirs(tensor):
        window = problem.window if rank > 1 else problem.window[0]  # where PyTorch takes no tuple
        return peer("lp_pool", rank)(tensor, p, window, **problem.options)

    # Sums of positive terms, each right to some units in the last place, and of as many shares of a gradient at most.
    taps = math.prod(problem.window)
    unit = (taps + 8) * float(np.finfo(dtype).eps)
    bounds = unit * np.abs(x).max() * taps, unit * 8 * taps
    name, arguments = f"pool{rank}d(lp)", (problem.window, ck.lp(p))
    agree_on(name, arguments, problem.options, layout, lay(x, layout), seed, theirs, bounds)


@every_rank
@fuzz
def test_sum_and_minimum_pool(rank, data):
    """PyTorch's average pool with a divisor of 1, and its max pool of negated data."""
    problem, layout, dtype, seed = posed(data.draw, rank, averaged=True)
    window, options = problem.window, problem.options

    def total(tensor):
        return average(tensor, window, **options, divisor_override=1)

    def least(tensor):
        return -peer("max_pool", rank)(-tensor, window, **options)

    x = lay(integers(problem.x_shape, dtype, seed), layout)
    agree_on(f"pool{rank}d(sum)", (window, "sum"), options, layout, x, seed, total)
    x = lay(-below_zero(problem.x_shape, dtype, seed), layout)
    agree_on(f"pool{rank}d(min)", (window, "min"), options, layout, x, seed, least)


@every_rank
@fuzz
def test_logsumexp_pool(rank, data):
    """PyTorch's logsumexp over its windows, which have no padding and no dilation."""
    problem, layout, dtype, seed = posed(data.draw, rank, padded=False)
    t = data.draw(st.sampled_from([-2.0, -0.5, 0.5, 1.0, 3.0]))
    x = lay(reals(problem.x_shape, dtype, seed), layout)

    def theirs(tensor):
        strides = problem.options["stride"] or problem.window
        for axis, (size, step) in enumerate(zip(problem.window, strides, strict=True), start=2):
            tensor = tensor.unfold(axis, size, step)
        return torch.logsumexp(t * tensor, tuple(range(-rank, 0))) / t

    # Exponentials of at most 1 after the largest is taken off, right to some units in the last place, their sum, and a
    # logarithm of at least 0.
    taps = math.prod(problem.window)
    unit = (taps + 8) * float(np.finfo(dtype).eps)
    bounds = unit * (1 + np.abs(x).max()), unit * 8 * taps * (1 + abs(t) * np.abs(x).max())
    name, arguments = f"pool{rank}d(logsumexp)", (problem.window, ck.logsumexp(t))
    agree_on(name, arguments, problem.options, layout, x, seed, theirs, bounds)


@every_rank
@pytest.mark.parametrize("reducer", ["max", "mean"])
@fuzz
def test_adaptive_pool(reducer, rank, data):
    in_size, out_size = (tuple(data.draw(st.integers(1, MOST_CELLS[rank])) for _ in range(rank)) for _ in ("in", "out"))
    x_shape, layout, (dtype, seed) = (*data.draw(leading), *in_size), data.draw(data_layouts(rank)), typed(data.draw)
    pairs = list(zip(in_size, out_size, strict=True))
    saw({"windows of one size": not any(size % count for size, count in pairs)})
    saw({"more outputs than cells": any(size < count for size, count in pairs)})
    scale = common_multiple(in_size) if reducer == "mean" else 1
    x = scale * integers(x_shape, dtype, seed) if reducer == "mean" else below_zero(x_shape, dtype, seed)
    name, arguments = f"adaptive_pool{rank}d({reducer})", (out_size, reducer)

    def theirs(tensor):
        return peer({"max": "adaptive_max_pool", "mean": "adaptive_avg_pool"}[reducer], rank)(tensor, out_size)

    agree_on(name, arguments, {}, layout, lay(x, layout), seed, theirs, scale=scale)


REDUCTIONS = {"max": torch.amax, "mean": torch.mean, "min": torch.amin, "sum": torch.sum}


@every_rank
@pytest.mark.parametrize("reducer", REDUCTIONS)
@fuzz
def test_global_pool(reducer, rank, data):
    in_size = tuple(data.draw(st.integers(1, MOST_CELLS[rank])) for _ in range(rank))
    x_shape, layout, (dtype, seed) = (*data.draw(leading), *in_size), data.draw(data_layouts(rank)), typed(data.draw)
    whole = reducer in ("mean", "sum")
    scale = math.prod(in_size) if reducer == "mean" else 1
    x = scale * integers(x_shape, dtype, seed) if whole else below_zero(x_shape, dtype, seed)

    def theirs(tensor):
        return REDUCTIONS[reducer](tensor, tuple(range(2, 2 + rank)), keepdim=True)

    agree_on(f"global_pool{rank}d({reducer})", (reducer,), {}, layout, lay(x, layout), seed, theirs, scale=scale)
