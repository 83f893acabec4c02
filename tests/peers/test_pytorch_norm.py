"""Norms: equal to PyTorch's within their rounding, forward and backward.

PyTorch computes in float64, whatever the type of ours. The data are halves, no two of them equal and none 0, times a
power of 2: few variances are so small beside the data that they are mostly rounding, and `eps` matters for some.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from helpers import lay
from hypothesis import strategies as st
from peers.agreement import agree, data_layouts, fuzz, gradients, leaf, saw, typed
from torch.nn import functional

import convkernels as ck
from convkernels.layout import Array, Layout
from convkernels.testing.strategies import distinct, integers, ranks, reals

MOST_CELLS = {1: 6, 2: 4, 3: 3}


class Problem(NamedTuple):
    """A norm's canonical data, where they lie, and a seed for the rest."""

    x: Array
    layout: Layout
    eps: float
    seed: int

    @property
    def unit(self):
        """What a few roundings lose of 1; in float64 those of both sides."""
        return 4 * float(np.finfo(self.x.dtype).eps)

    @property
    def options(self):
        """Our keywords."""
        return {"eps": self.eps, "layout": self.layout.axes}

    @property
    def spatial(self):
        """The canonical places of the spatial axes."""
        return tuple(range(2, self.x.ndim))


@st.composite
def problems(draw, groups=1):
    """Samples of several cells each, for PyTorch refuses to take the statistics of a single one."""
    rank = draw(ranks)
    *rows, columns = (draw(st.integers(1, MOST_CELLS[rank])) for _ in range(rank))
    shape = (draw(st.integers(1, 3)), groups * draw(st.integers(1, 3)), *rows, columns + 1)
    scale, eps = draw(st.sampled_from([1, 2.0**-7])), draw(st.sampled_from([1e-5, 1e-2, 0.5]))
    dtype, seed = typed(draw)
    x = (distinct(shape, dtype, seed) - math.prod(shape) // 2 + 0.5) * scale
    saw({f"{rank} spatial axes": True, "small": scale < 1, "one sample": shape[0] == 1})
    return Problem(x.astype(dtype), draw(data_layouts(rank)), eps, seed)


def coefficients(draw, problem, shapes):
    """Whole numbers of each shape, or None."""
    found = []
    for name, shape in zip(("gamma", "beta"), shapes, strict=False):
        given = draw(st.booleans())
        saw({name: given})
        found.append(integers(shape, problem.x.dtype, problem.seed + 1 + len(found)) if given else None)
    return found


def wide(array):
    """A float64 tensor of its own, to take a gradient by; None for None."""
    return None if array is None else leaf(array.astype(np.float64))


def agree_on(function, problem, given, theirs, bounds, arguments=(), options=None, statistics=()):
    """Compare a norm, and then its vjp, with PyTorch's result, statistics and gradients by x and what is given."""
    layout, dtype = problem.layout, problem.x.dtype
    tensors = tuple(map(wide, (problem.x, *given)))
    y = theirs(*tensors)
    dy = integers(tuple(y.shape), dtype, problem.seed + 3)
    found = (y, *statistics, *gradients(y, dy.astype(np.float64), *tensors))
    expected = tuple(None if tensor is None else tensor.to(leaf(problem.x).dtype) for tensor in found)
    call = (lay(problem.x, layout), *given, *arguments)
    options = problem.options if options is None else options

    got = getattr(ck, function)(*call, **options)
    y, *own = got if statistics else (got,)
    count = 1 + len(statistics)
    agree(function, (layout.view(y), *own), expected[:count], bounds[:count])
    y, *own, vjp = getattr(ck, function + "_vjp")(*call, **options)
    dx, *rest = vjp(lay(dy, layout))
    got = (layout.view(y), *own, layout.view(dx), *rest)
    agree(function + "_vjp", got[: len(expected)], expected, bounds[: len(expected)])


def rounding(problem, var, mean=0):
    """Bounds of a norm's result and of its gradients by x, gamma and beta; whole numbers are summed exactly.

    Every term has a coefficient or a gradient of at most 8, or both, and a number that was rounded before a mean was
    taken off it, or that mean was.
    """
    factor = 1 / math.sqrt(var.min() + problem.eps)
    number = 4 + (np.abs(problem.x).max() + mean) * factor
    unit = problem.unit
    return unit * 8 * number, unit * 64 * number * factor, unit * 8 * number * problem.x.size, 0


@fuzz
def test_batch_norm(data):
    problem = data.draw(problems())
    x, channels = problem.x, problem.x.shape[1]
    given = coefficients(data.draw, problem, [(channels,)] * 2)
    mean = integers((channels,), x.dtype, problem.seed + 4)
    var = np.abs(integers((channels,), x.dtype, problem.seed + 5))

    def theirs(x, gamma, beta):
        given = (torch.from_numpy(array.astype(np.float64)) for array in (mean, var))
        return functional.batch_norm(x, *given, gamma, beta, eps=problem.eps)

    agree_on("batch_norm", problem, given, theirs, rounding(problem, var, np.abs(mean).max()), (mean, var))


@fuzz
def test_batch_norm_in_training(data):
    """PyTorch's momentum is 1 less ours, and its running variance is that of a sample, not of a population."""
    problem = data.draw(problems())
    x, channels = problem.x, problem.x.shape[1]
    given = coefficients(data.draw, problem, [(channels,)] * 2)
    momentum = data.draw(st.sampled_from([0.0, 0.25, 0.9]))
    old = [np.abs(integers((channels,), x.dtype, problem.seed + place)) for place in (4, 5)]
    running = [torch.from_numpy(array.astype(np.float64)) for array in old]

    def theirs(x, gamma, beta):
        return functional.batch_norm(x, *running, gamma, beta, True, 1 - momentum, problem.eps)

    axes = (0, *problem.spatial)
    statistics = torch.var_mean(wide(x), axes, correction=0)[::-1]
    size = np.abs(x).max()
    y, *bounds = rounding(problem, x.var(axes))
    moments = problem.unit * size, problem.unit * size**2
    agree_on("batch_norm_train", problem, given, theirs, (y, *moments, *bounds), statistics=statistics)

    _, mean, var = ck.batch_norm_train(lay(x, problem.layout), None, None, **problem.options)
    count = x.size // channels
    new = mean, (var * (count / (count - 1))).astype(x.dtype)
    got = tuple(ck.update_running(*pair, momentum) for pair in zip(old, new, strict=True))
    expected = tuple(tensor.to(leaf(x).dtype) for tensor in running)
    agree("update_running", got, expected, [problem.unit * (8 + size**2)] * 2)


@fuzz
def test_group_norm(data):
    groups = data.draw(st.integers(1, 3))
    problem = data.draw(problems(groups))
    x, channels = problem.x, problem.x.shape[1]
    saw({"one group": groups == 1, "a group for each channel": groups == channels})
    given = coefficients(data.draw, problem, [(channels,)] * 2)

    def theirs(x, gamma, beta):
        # PyTorch's gradient fails where there is a beta and no gamma.
        gamma = x.new_ones(channels) if gamma is None else gamma
        return functional.group_norm(x, groups, gamma, beta, problem.eps)

    var = x.reshape(len(x), groups, -1).var(-1)
    agree_on("group_norm", problem, given, theirs, rounding(problem, var), (groups,))


@fuzz
def test_instance_norm(data):
    problem = data.draw(problems())
    x, channels = problem.x, problem.x.shape[1]
    given = coefficients(data.draw, problem, [(channels,)] * 2)

    def theirs(x, gamma, beta):
        return functional.instance_norm(x, weight=gamma, bias=beta, eps=problem.eps)

    agree_on("instance_norm", problem, given, theirs, rounding(problem, x.var(problem.spatial)))


class Over(NamedTuple):
    """The axes that a norm is over, by their places in a layout, and their sizes."""

    layout: Layout
    axes: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def order(self):
        """The axes of the layout, these last, as PyTorch has them."""
        kept = (axis for axis in range(len(self.layout.axes)) if axis not in self.axes)
        return (*kept, *self.axes)

    def last(self, x):
        """Canonical data with these axes last."""
        return x.permute(self.layout.inverse).permute(self.order)

    def canonical(self, y):
        """The way back."""
        return y.permute(tuple(np.argsort(self.order))).permute(self.layout.permutation)

    def spread(self, coefficient):
        """A coefficient for each cell of these axes: each channel's where its shape allows that, else broadcast."""
        if coefficient is None:
            return None
        letters = [self.layout.axes[axis] for axis in self.axes]
        if "C" in letters and coefficient.shape == (self.sizes[letters.index("C")],):
            coefficient = coefficient.reshape([-1 if letter == "C" else 1 for letter in letters])
        return coefficient.expand(self.sizes)


@st.composite
def axes_and_shapes(draw, problem):
    """Some axes of x, or all but the batch; the shapes of two coefficients for them; and the options that say so."""
    layout, sizes = problem.layout, problem.layout.shape(problem.x.shape)
    free = [axis for axis, letter in enumerate(layout.axes) if letter != "N"]
    named = draw(st.none() | st.lists(st.sampled_from(free), min_size=1, unique=True))
    over = Over(layout, *zip(*((axis, sizes[axis]) for axis in sorted(named or free)), strict=True))
    with_channels = layout.axes.index("C") in over.axes
    saw({"axes named": named is not None, "over the channels too": with_channels})
    shapes = []
    for _ in ("gamma", "beta"):
        trailing = over.sizes[draw(st.integers(0, len(over.sizes) - 1)) :]
        forms = {
            "of each cell": over.sizes,
            "broadcast": tuple(draw(st.sampled_from([1, size])) for size in trailing),
            "of each channel": problem.x.shape[1:2] if with_channels else over.sizes,
        }
        shapes.append(forms[draw(st.sampled_from(list(forms)))])
    return over, shapes, {**problem.options, "axes": named}


@fuzz
def test_layer_norm(data):
    """PyTorch's is over the last axes, and takes a coefficient for each of their cells."""
    problem = data.draw(problems())
    over, shapes, options = data.draw(axes_and_shapes(problem))
    given = coefficients(data.draw, problem, shapes)

    def theirs(x, *given):
        spread = map(over.spread, given)
        return over.canonical(functional.layer_norm(over.last(x), over.sizes, *spread, problem.eps))

    var = lay(problem.x, problem.layout).var(over.axes)
    agree_on("layer_norm", problem, given, theirs, rounding(problem, var), options=options)


@fuzz
def test_rms_norm(data):
    problem = data.draw(problems())
    over, shapes, options = data.draw(axes_and_shapes(problem))
    given = coefficients(data.draw, problem, shapes[:1])

    def theirs(x, gamma):
        return over.canonical(functional.rms_norm(over.last(x), over.sizes, over.spread(gamma), problem.eps))

    square = np.square(lay(problem.x, problem.layout)).mean(over.axes)
    agree_on("rms_norm", problem, given, theirs, rounding(problem, square), options=options)


@fuzz
def test_local_response_norm(data):
    """Of an even number of channels, PyTorch takes the larger half in front, and ours behind, as ONNX: we mirror it."""
    problem = data.draw(problems())
    layout, dtype = problem.layout, problem.x.dtype
    size = data.draw(st.integers(1, 6))
    alpha, beta, bias = (data.draw(st.sampled_from(numbers)) for numbers in ([1e-4, 0.1, 1], [0.5, 0.75, 1], [1, 2]))
    saw({"even": size % 2 == 0, "wider than the channels": size // 2 >= problem.x.shape[1]})
    x = reals(problem.x.shape, dtype, problem.seed)
    tensor = wide(x)
    mirrored = (1,) if size % 2 == 0 else ()
    y = functional.local_response_norm(tensor.flip(mirrored), size, alpha, beta, bias).flip(mirrored)
    dy = integers(x.shape, dtype, problem.seed + 1)
    found = y, *gradients(y, dy.astype(np.float64), tensor)
    expected = tuple(result.to(leaf(x).dtype) for result in found)
    # Over 1 or more; a gradient has a second term, of up to 2 * alpha * x**2 times the first.
    most = np.abs(x).max()
    bounds = problem.unit * most, problem.unit * 8 * (1 + 2 * most**2)
    options = {"alpha": alpha, "beta": beta, "bias": bias, "layout": layout.axes}
    got = ck.local_response_norm(lay(x, layout), size, **options)
    agree("local_response_norm", (layout.view(got),), expected[:1], bounds[:1])
    got, vjp = ck.local_response_norm_vjp(lay(x, layout), size, **options)
    agree("local_response_norm_vjp", (layout.view(got), layout.view(vjp(lay(dy, layout)))), expected, bounds)
