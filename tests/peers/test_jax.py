"""Convolutions and pools: JAX's, which take any layout as well, agree with ours, gradients included.

Of a convolution's axes JAX keeps the order in which the layout of the weights names them.

The problems and their data are those of the kit, whole numbers, which must come out equal.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import replace

import numpy as np
import pytest
from peers.agreement import FEWER, agree, every_rank, fuzz, ours, saw

import convkernels as ck
from convkernels.testing.problems import INPUTS, problems
from convkernels.testing.snippets import as_given, options

jax = pytest.importorskip("jax", reason="compared with only where it is installed")
jax.config.update("jax_platforms", "cpu")

FLOAT = ("float32",)
PEER = "(JAX)"
FORGOTTEN = 200
"""Problems after which JAX's programs are let go."""
GIVEN = itertools.count(1)
few = functools.partial(fuzz, most=FEWER["JAX"])


def given(problem):
    """A problem's arrays in its layouts, those that it has.

    JAX keeps what it compiles, and ends the process when some thousand programs have taken all memory maps.
    """
    if next(GIVEN) % FORGOTTEN == 0:
        jax.clear_caches()
    arrays = (as_given(problem, role) for role in INPUTS[problem.operation])
    return [np.ascontiguousarray(array) for array in arrays if array is not None]


def with_gradients(function, arrays, seed):
    """The result of a function of JAX's, a gradient by it, and what that makes of the arguments."""
    y, vjp = jax.vjp(function, *arrays)
    dy = np.random.default_rng(seed).integers(-8, 9, y.shape).astype(np.float32)
    return np.asarray(y), dy, list(map(np.asarray, vjp(dy)))


def compare(function, problem, theirs, dy, gradients, **chosen):
    """Hold our result to theirs, and our gradients."""
    window = problem.spec.window
    saw({problem.layout.order: True, "strided": max(window.stride) > 1, "dilated": max(window.dilation) > 1})
    view = problem.layout.view
    agree(function + PEER, (ours(function, problem, **chosen),), (view(theirs),))
    arrays = [as_given(problem, role) for role in INPUTS[problem.operation]]
    y, vjp = getattr(ck, function + "_vjp")(*arrays, **options(problem) | chosen)
    found = vjp(dy)
    found = list(found) if isinstance(found, tuple) else [found]
    found = [gradient for gradient, array in zip(found, arrays, strict=True) if array is not None]
    agree(function + "_vjp" + PEER, (y, *found), (theirs, *gradients))


def in_place(layout, values):
    """Values of the spatial axes in the order in which a layout names these."""
    axes = [axis for axis in layout.axes if axis in "DHW"]
    return [values[sorted(axes).index(axis)] for axis in axes]


def biased(problem, y, b):
    """A result with the bias, which JAX's convolutions do not take."""
    shape = [1] * y.ndim
    shape[problem.layout.axes.index("C")] = -1
    return y + b[0].reshape(shape) if b else y


def right(window, padding):
    """Whether JAX's gradients are: not where one end of an axis is cropped and the other padded; see the findings.

    The gradient by the input is again a convolution, padded by as much as the window lacks of its length.
    """
    mirrored = [(extent - 1 - lo, extent - 1 - hi) for extent, (lo, hi) in zip(window.extent, padding, strict=True)]
    return not any(lo * hi < 0 for lo, hi in (*padding, *mirrored))


@every_rank
@few
def test_convolution(rank, data):
    drawn = problems("conv", rank=rank, dtypes=FLOAT, padding_modes=())
    problem = data.draw(drawn.filter(lambda problem: right(problem.spec.window, problem.spec.window.padding)))
    spec, window = problem.spec, problem.spec.window
    saw({"grouped": spec.groups > 1, "bias": spec.bias})

    def conv(x, w, *b):
        y = jax.lax.conv_general_dilated(
            x,
            w,
            in_place(problem.weight_layout, window.stride),
            in_place(problem.weight_layout, window.padding),
            rhs_dilation=in_place(problem.weight_layout, window.dilation),
            feature_group_count=spec.groups,
            dimension_numbers=(problem.layout.axes, problem.weight_layout.axes, problem.layout.axes),
        )
        return biased(problem, y, b)

    compare(f"conv{rank}d", problem, *with_gradients(conv, given(problem), problem.seed))


def their_padding(spec):
    """What JAX pads, or crops, of the input of a transposed convolution."""
    ends = zip(spec.window.extent, spec.padding, spec.output_padding, strict=True)
    return [(extent - 1 - lo, extent - 1 - hi + extra) for extent, (lo, hi), extra in ends]


@every_rank
@few
def test_transposed_convolution(rank, data):
    """JAX's convolution of an input with zeros in between, its filters flipped; it has no groups."""
    drawn = problems("conv_transpose", rank=rank, dtypes=FLOAT)
    drawn = drawn.filter(lambda problem: problem.spec.groups == 1)
    drawn = drawn.filter(lambda problem: right(problem.spec.window, their_padding(problem.spec)))
    problem = data.draw(drawn)
    spec = problem.spec
    window = spec.window
    saw({"bias": spec.bias, "output padding": any(spec.output_padding)})
    padding = their_padding(spec)
    spatial = [place for place, axis in enumerate(problem.weight_layout.axes) if axis not in "IO"]

    def conv(x, w, *b):
        y = jax.lax.conv_general_dilated(
            x,
            jax.numpy.flip(w, spatial),
            (1,) * rank,
            in_place(problem.weight_layout, padding),
            lhs_dilation=in_place(problem.weight_layout, window.stride),
            rhs_dilation=in_place(problem.weight_layout, window.dilation),
            dimension_numbers=(problem.layout.axes, problem.weight_layout.axes, problem.layout.axes),
        )
        return biased(problem, y, b)

    compare(f"conv_transpose{rank}d", problem, *with_gradients(conv, given(problem), problem.seed))


def plainer(problem):
    """A pool made one that JAX has, with its gradient: not dilated, cropped or rounded up, and no window in padding."""
    spec, window = problem.spec, problem.spec.window
    ends = zip(window.padding, window.kernel_size, strict=True)
    padding = tuple(tuple(min(max(end, 0), taps - 1) for end in pair) for pair, taps in ends)
    options = {"kernel_size": window.kernel_size, "stride": window.stride, "padding": padding}
    return replace(problem, spec=ck.PoolSpec.make(spec.x_shape, spec.dtype, reducer=spec.reducer, **options))


@every_rank
@pytest.mark.parametrize("reducer", ["max", "sum"])
@few
def test_pool(reducer, rank, data):
    """JAX does not round up, and has no gradient of a maximum over dilated windows or a cropped input."""
    drawn = problems("pool", ("distinct",), rank=rank, dtypes=FLOAT, reducers=(reducer,), padding_modes=())
    problem = data.draw(drawn.map(plainer))
    window = problem.spec.window
    saw({reducer: True})
    start, combine = {"max": (-np.inf, jax.lax.max), "sum": (0.0, jax.lax.add)}[reducer]

    def along(values, other):
        """Values of the spatial axes at their places in the layout."""
        left = iter(in_place(problem.layout, values))
        return [other if axis in "NC" else next(left) for axis in problem.layout.axes]

    def pool(x):
        return jax.lax.reduce_window(
            x,
            start,
            combine,
            along(window.kernel_size, 1),
            along(window.stride, 1),
            along(window.padding, (0, 0)),
            window_dilation=along(window.dilation, 1),
        )

    compare(f"pool{rank}d", problem, *with_gradients(pool, given(problem), problem.seed))
