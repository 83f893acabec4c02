"""CS231n's sandwiches, layers that are often used together, and the mistakes made in putting them together.

A quarter is added to the bias of whole numbers, so that no input of ReLU is 0, where either slope is right.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from ..reducers import Ties
from .cases import ROUNDED, Arguments, Case, Forward, Results
from .course_data import Test, fitted, in_order, kinds, numbers, outputs, seeds, small
from .cs231n_cases import (
    CONV_REGIMES,
    ROWS_REGIMES,
    Rows,
    Windows,
    affine,
    affine_arguments,
    affine_back,
    conv_arguments,
    convolved,
    convolved_back,
    pooled,
    pooled_back,
    rows,
)
from .cs231n_norm_cases import CHANNELS, norm, norm_back

Compute = Callable[[Arguments], Results]


class Sandwich(NamedTuple):
    """The sizes of a convolution, and of a pool of its result."""

    N: int
    C: int
    F: int
    H: int
    W: int
    HH: int
    WW: int
    stride: int
    pad: int
    reverse: bool
    kind: str
    seed: int
    tall: int
    broad: int
    step: int
    mode: str

    @property
    def conv(self) -> Windows:
        """The sizes of the convolution."""
        return Windows(*(getattr(self, name) for name in Windows._fields))

    @property
    def out(self) -> tuple[int, int]:
        """The height and width of the convolution's output."""
        return self.conv.out


@st.composite
def sandwiches(draw: st.DrawFn, types: st.SearchStrategy[str], *, tests: bool = False) -> Sandwich:
    """Sizes in which windows leave nothing over."""
    tall, broad, step = draw(small), draw(small), draw(small)
    high, wide = (step * (draw(st.integers(1, 2)) - 1) + size for size in (tall, broad))
    taps, stride, pad = (draw(small), draw(small)), draw(small), draw(st.integers(0, 2))
    sizes = Sandwich(
        N=draw(small),
        C=draw(small),
        F=draw(small),
        H=fitted(high, taps[0], stride, pad),
        W=fitted(wide, taps[1], stride, pad),
        HH=taps[0],
        WW=taps[1],
        stride=stride,
        pad=pad,
        reverse=draw(st.booleans()),
        kind=draw(types),
        seed=draw(seeds),
        tall=tall,
        broad=broad,
        step=step,
        mode=draw(st.sampled_from(["train", "train", "test"])) if tests else "train",
    )
    # Very wide padding alone gives more outputs than were asked for: then the window of the pool is the whole picture.
    return sizes if sizes.out == (high, wide) else sizes._replace(tall=sizes.out[0], broad=sizes.out[1])


def off_whole(a: Arguments, name: str) -> Arguments:
    """Arguments with one of them moved away from whole numbers."""
    return {**a, name: a[name] + a[name].dtype.type(0.25)}


def affine_relu_arguments(s: Rows) -> Arguments:
    """An affine map's, and the gradient by the output of ReLU."""
    return off_whole(affine_arguments(s), "b")


def conv_relu_arguments(s: Sandwich) -> Arguments:
    """A convolution's, and the gradient by the output of ReLU."""
    return off_whole(conv_arguments(s.conv), "b")


def conv_relu_pool_arguments(s: Sandwich) -> Arguments:
    """A convolution's and a pool's, and the gradient by the pool's output."""
    param = in_order(s.reverse, pool_height=s.tall, pool_width=s.broad, stride=s.step)
    shape = (
        s.N,
        s.F,
        *(outputs(size, window, s.step, 0) for size, window in zip(s.out, (s.tall, s.broad), strict=True)),
    )
    return {**conv_relu_arguments(s), "pool_param": param, **numbers(s.kind, s.seed + 1, dout=shape)}


def conv_bn_relu_arguments(s: Sandwich) -> Arguments:
    """A convolution's and a batch norm's, and the gradient by the output of ReLU."""
    param: dict[str, Any] = {"mode": s.mode}
    if s.mode == "test":
        running = numbers(s.kind, s.seed + 2, running_mean=(s.F,), running_var=(s.F,))
        param |= {"running_mean": running["running_mean"], "running_var": np.abs(running["running_var"])}
    coefficients = off_whole(numbers(s.kind, s.seed + 1, gamma=(s.F,), beta=(s.F,)), "beta")
    return {**conv_arguments(s.conv), **coefficients, "bn_param": param}


def activated(layer: Compute, a: Arguments) -> Results:
    """What a layer and ReLU give."""
    results = layer(a)
    return {**results, "out": np.maximum(results["out"], 0)}


def activated_back(layer: Compute, back: Compute, a: Arguments) -> Results:
    """What goes back through ReLU and a layer."""
    return back({**a, "dout": a["dout"] * (layer(a)["out"] > 0)})


def hidden(a: Arguments) -> Arguments:
    """A pool's arguments after a convolution and ReLU."""
    return {**a, "x": activated(convolved, a)["out"]}


def conv_relu_pool(a: Arguments) -> Results:
    """What a convolution, ReLU and a pool give."""
    return pooled(hidden(a))


def conv_relu_pool_back(ties: Ties, a: Arguments, through: Callable[..., Results] = activated_back) -> Results:
    """What goes back through a pool, by a rule for ties, and the rest."""
    dout = pooled_back(ties)(hidden(a))["dx"]
    return through(convolved, convolved_back, {**a, "dout": dout})


def normed_arguments(a: Arguments) -> Arguments:
    """A batch norm's arguments after a convolution."""
    kept = {name: a[name] for name in ("gamma", "beta", "bn_param", "dout")}
    return {**kept, "x": convolved(a)["out"]}


def conv_bn(a: Arguments) -> Results:
    """What a convolution and a batch norm give."""
    return norm(CHANNELS, normed_arguments(a))


def conv_bn_back(a: Arguments) -> Results:
    """What goes back through a batch norm and a convolution."""
    gradients = norm_back(CHANNELS, normed_arguments(a))
    inner = convolved_back({**a, "dout": gradients["dx"]})
    return {**inner, "dgamma": gradients["dgamma"], "dbeta": gradients["dbeta"]}


def straight(layer: Compute, back: Compute, a: Arguments) -> Results:
    """What goes back through a layer alone."""
    return back(a)


LEFT_OUT = "ReLU is left out"
ROUND = "the gradient goes past ReLU, not through it"
CONV = ("x", "w", "b")
POOL_REGIMES: dict[str, Test] = {**CONV_REGIMES, "the pool's window is not square": lambda s: s.tall != s.broad}
BN_REGIMES: dict[str, Test] = {
    **CONV_REGIMES,
    "the mode is 'test'": lambda s: s.mode == "test",
    "the mode is 'train'": lambda s: s.mode == "train",
}


def varied(s: Sandwich) -> bool:
    """Whether a channel has two values at least, to take statistics of."""
    return s.N * s.out[0] * s.out[1] > 1


FORWARDS = (
    Case(
        "affine_relu_forward",
        rows(),
        affine_relu_arguments,
        partial(activated, affine),
        CONV,
        mistakes={LEFT_OUT: affine},
        regimes=ROWS_REGIMES,
        fixed=("b",),
    ),
    Case(
        "conv_relu_forward",
        sandwiches(kinds()),
        conv_relu_arguments,
        partial(activated, convolved),
        (*CONV, "conv_param"),
        mistakes={LEFT_OUT: convolved},
        regimes=CONV_REGIMES,
        fixed=("b",),
    ),
    Case(
        "conv_relu_pool_forward",
        sandwiches(kinds()),
        conv_relu_pool_arguments,
        conv_relu_pool,
        (*CONV, "conv_param", "pool_param"),
        mistakes={LEFT_OUT: lambda a: pooled({**a, "x": convolved(a)["out"]})},
        regimes=POOL_REGIMES,
        fixed=("b",),
    ),
    Case(
        "conv_bn_relu_forward",
        sandwiches(st.just("float64"), tests=True).filter(varied),
        conv_bn_relu_arguments,
        partial(activated, conv_bn),
        (*CONV, "gamma", "beta", "conv_param", "bn_param"),
        after=(("bn_param", "running_mean"), ("bn_param", "running_var")),
        changing=("bn_param",),
        mistakes={LEFT_OUT: conv_bn},
        regimes=BN_REGIMES,
        fixed=(*CONV, "gamma", "beta"),
        loose=("bn_param['running_mean']", "bn_param['running_var']"),
        slack=ROUNDED,
    ),
)
FORWARD = {case.name: case for case in FORWARDS}


def backward(prefix: str, back: Compute, past: Compute, returns: tuple[str, ...] = ("dx", "dw", "db")) -> Case:
    """The backward of a sandwich, what it gives, and what it gives past ReLU; it takes its own forward's cache."""
    forward = FORWARD[f"{prefix}_forward"]
    ties = "pool" in prefix
    return Case(
        f"{prefix}_backward",
        forward.sizes if prefix != "conv_bn_relu" else sandwiches(st.just("float64")).filter(varied),
        forward.arguments,
        back,
        ("dout", "cache"),
        returns=returns,
        forward=Forward(forward.name, forward.passed),
        changing=forward.changing,
        mistakes={ROUND: past},
        accepted={
            f"of equal maxima {words}": partial(conv_relu_pool_back, rule) for words, rule in TIES.items() if ties
        },
        regimes=forward.regimes,
        fixed=forward.fixed,
        slack=forward.slack,
    )


TIES: dict[str, Ties] = {
    "the last one gets the gradient, usual is the first": "last",
    "all share the gradient, usual is that the first one gets it": "split",
}
BACKWARDS = (
    backward("affine_relu", partial(activated_back, affine, affine_back), affine_back),
    backward("conv_relu", partial(activated_back, convolved, convolved_back), convolved_back),
    backward(
        "conv_relu_pool",
        partial(conv_relu_pool_back, "first"),
        partial(conv_relu_pool_back, "first", through=straight),
    ),
    backward(
        "conv_bn_relu",
        partial(activated_back, conv_bn, conv_bn_back),
        conv_bn_back,
        ("dx", "dw", "db", "dgamma", "dbeta"),
    ),
)
CASES: dict[str, Case] = {case.name: case for case in (*FORWARDS, *BACKWARDS)}
"""By the names of the functions."""
