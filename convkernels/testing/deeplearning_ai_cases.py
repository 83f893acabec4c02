"""The functions of deeplearning.ai's "Convolution model: step by step", and the mistakes made in them."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from ..conv import conv2d, conv2d_vjp
from ..layout import Array
from ..pool import avg_pool2d, avg_pool2d_vjp, max_pool2d, max_pool2d_vjp
from ..reducers import Ties
from .cases import Arguments, Case, Forward, Results
from .course_data import ORDER, Test, fitted, in_order, kinds, numbers, of_type, outputs, seeds, small, tied, wide

LAYOUT: dict[str, Any] = {"layout": "NHWC", "strategy": "naive"}


class Steps(NamedTuple):
    """The sizes of a convolution or pool; `rest` are the cells that no window reaches."""

    m: int
    channels: int
    filters: int
    height: int
    width: int
    f: int
    stride: int
    pad: int
    mode: str
    reverse: bool
    kind: str
    seed: int

    @property
    def out(self) -> tuple[int, int]:
        """The output's height and width."""
        height, width = (outputs(size, self.f, self.stride, self.pad) for size in (self.height, self.width))
        return height, width


@st.composite
def steps(draw: st.DrawFn, types: st.SearchStrategy[str], most_padding: int = 0) -> Steps:
    """Sizes of square windows; some leave cells over, which the course's floor allows."""
    f, stride, pad = draw(small), draw(small), draw(st.integers(0, most_padding))
    return Steps(
        m=draw(small),
        channels=draw(small),
        filters=draw(small),
        height=fitted(draw(small), f, stride, pad) + draw(st.sampled_from([0, 0, stride - 1])),
        width=fitted(draw(small), f, stride, pad) + draw(st.sampled_from([0, 0, stride - 1])),
        f=f,
        stride=stride,
        pad=pad,
        mode=draw(st.sampled_from(["max", "average"])),
        reverse=draw(st.booleans()),
        kind=draw(types),
        seed=draw(seeds),
    )


GEOMETRY: dict[str, Test] = {
    "the stride is above 1": lambda s: s.stride > 1 and s.out != (1, 1),
    "the output's height and width differ": lambda s: s.out[0] != s.out[1],
    "the input's height and width differ": lambda s: s.height != s.width,
    "the window has more than one cell": lambda s: s.f > 1,
    "there is more than one output cell": lambda s: s.out != (1, 1),
    "windows leave a rest of the input over": lambda s: any(
        (size + 2 * s.pad - s.f) % s.stride for size in (s.height, s.width)
    ),
    "windows overlap (the stride is below f)": lambda s: s.f > s.stride and s.out != (1, 1),
    "there is more than one image": lambda s: s.m > 1,
    "there is more than one channel": lambda s: s.channels > 1,
}
PADDING: dict[str, Test] = {
    "the padding is 0": lambda s: s.pad == 0,
    "the padding is above 0": lambda s: s.pad > 0,
}
CONV_REGIMES: dict[str, Test] = {
    **of_type("A_prev", "b"),
    **PADDING,
    "hparameters lists 'pad' before 'stride'": lambda s: s.reverse and s.stride != s.pad,
    "hparameters lists 'stride' before 'pad'": lambda s: not s.reverse and s.stride != s.pad,
    **GEOMETRY,
    "there is more than one filter": lambda s: s.filters > 1,
    f"the sizes of the output's axes differ {ORDER}": lambda s: len({s.m, *s.out, s.filters}) > 1,
    f"the sizes of the input's axes differ {ORDER}": lambda s: len({s.m, s.height, s.width, s.channels}) > 1,
}
POOL_REGIMES: dict[str, Test] = {
    **of_type("A_prev"),
    "the mode is 'max'": lambda s: s.mode == "max",
    "the mode is 'average'": lambda s: s.mode == "average",
    "hparameters lists 'stride' before 'f'": lambda s: s.reverse and s.stride != s.f,
    "hparameters lists 'f' before 'stride'": lambda s: not s.reverse and s.stride != s.f,
    **GEOMETRY,
    f"the sizes of the output's axes differ {ORDER}": lambda s: len({s.m, *s.out, s.channels}) > 1,
    f"the sizes of the input's axes differ {ORDER}": lambda s: len({s.m, s.height, s.width, s.channels}) > 1,
}


def conv_arguments(s: Steps) -> Arguments:
    """A convolution's arguments, and the gradient by its output."""
    a = numbers(
        s.kind,
        s.seed,
        A_prev=(s.m, s.height, s.width, s.channels),
        W=(s.f, s.f, s.channels, s.filters),
        b=(1, 1, 1, s.filters),
        dZ=(s.m, *s.out, s.filters),
    )
    return {**a, "hparameters": in_order(s.reverse, stride=s.stride, pad=s.pad)}


def geometry(a: Arguments) -> dict[str, Any]:
    """The keywords of a convolution."""
    return {"stride": a["hparameters"]["stride"], "padding": a["hparameters"]["pad"], **LAYOUT}


def convolved(a: Arguments, **other: Array) -> Results:
    """What a convolution gives."""
    x, w, b = (wide({**a, **other}[name]) for name in ("A_prev", "W", "b"))
    return {"Z": conv2d(x, w, b.ravel(), **geometry(a))}


def convolved_back(a: Arguments, **other: Array) -> Results:
    """What a convolution's backward gives."""
    x, w, dy = (wide({**a, **other}[name]) for name in ("A_prev", "W", "dZ"))
    dx, dw, db = conv2d_vjp(x, w, np.zeros(w.shape[3]), **geometry(a))[1](dy)
    assert db is not None
    return {"dA_prev": dx, "dW": dw, "db": db.reshape(1, 1, 1, -1)}


def flipped(w: Array) -> Array:
    """The filters upside down and back to front."""
    return w[::-1, ::-1]


def swapped(w: Array) -> Array:
    """Filters with height and width exchanged."""
    return w.swapaxes(0, 1)


def biased(times: Callable[[Array], int], a: Arguments) -> Results:
    """What a convolution gives that adds its bias more often, or never."""
    return convolved(a, b=a["b"] * times(a["W"]))


BIAS_TIMES: dict[str, Callable[[Array], int]] = {
    "the bias is left out": lambda w: 0,
    "the bias is added once for each cell of the window": lambda w: math.prod(w.shape[:3]),
    "the bias is added once for each tap": lambda w: math.prod(w.shape[:2]),
    "the bias is added once for each channel": lambda w: w.shape[2],
}
CONV = Case(
    "conv_forward",
    steps(kinds("A_prev", "b"), 2),
    conv_arguments,
    convolved,
    ("A_prev", "W", "b", "hparameters"),
    returns=("Z", "cache"),
    mistakes={
        **{words: partial(biased, times) for words, times in BIAS_TIMES.items()},
        "the filter is flipped, as in mathematics: here it is not": lambda a: convolved(a, W=flipped(a["W"])),
        "the filters' height and width are swapped": lambda a: convolved(a, W=swapped(a["W"])),
    },
    regimes=CONV_REGIMES,
)
CONV_BACK = Case(
    "conv_backward",
    steps(kinds("A_prev", "b"), 2),
    conv_arguments,
    convolved_back,
    ("dZ", "cache"),
    returns=("dA_prev", "dW", "db"),
    forward=Forward("conv_forward", ("A_prev", "W", "b", "hparameters"), ("A_prev", "W", "b", "hparameters")),
    mistakes={
        "dW is transposed: its height and width are swapped": lambda a: {"dW": swapped(convolved_back(a)["dW"])},
        "dW is flipped": lambda a: {"dW": flipped(convolved_back(a)["dW"])},
        "the filter is the wrong way round for dA_prev": lambda a: {
            "dA_prev": convolved_back(a, W=flipped(a["W"]))["dA_prev"]
        },
        "the gradients are divided by the number of images": lambda a: {
            name: gradient / len(a["A_prev"]) for name, gradient in convolved_back(a).items()
        },
    },
    regimes=CONV_REGIMES,
)


def pool_arguments(s: Steps) -> Arguments:
    """A pool's arguments, and the gradient by its output."""
    shape = (s.m, s.height, s.width, s.channels)
    a = numbers(s.kind, s.seed, A_prev=shape, dA=(s.m, *s.out, s.channels))
    if s.kind == "tied":
        a["A_prev"] = tied(shape, s.seed)
    return {**a, "hparameters": in_order(s.reverse, f=s.f, stride=s.stride), "mode": s.mode}


def pooled(a: Arguments) -> Results:
    """What a pool gives."""
    param, pool = a["hparameters"], max_pool2d if a["mode"] == "max" else avg_pool2d
    return {"A": pool(wide(a["A_prev"]), param["f"], stride=param["stride"], **LAYOUT)}


def pooled_back(a: Arguments, ties: Ties = "all") -> Results:
    """What a pool's backward gives by a rule for ties."""
    x, dy, param = wide(a["A_prev"]), wide(a["dA"]), a["hparameters"]
    if a["mode"] == "max":
        vjp = max_pool2d_vjp(x, param["f"], stride=param["stride"], ties=ties, **LAYOUT)[1]
    else:
        vjp = avg_pool2d_vjp(x, param["f"], stride=param["stride"], **LAYOUT)[1]
    return {"dA_prev": vjp(dy)}


def multiplied(compute: Callable[[Arguments], Results], factor: Callable[[int], float], a: Arguments) -> Results:
    """A pool's results, those of an average multiplied."""
    return {
        name: result * (factor(a["hparameters"]["f"]) if a["mode"] == "average" else 1)
        for name, result in compute(a).items()
    }


TIES: dict[str, Ties] = {"the first one gets": "first", "the last one gets": "last", "all share": "split"}
TIED_KINDS = st.sampled_from(["float64", "float64", "tied", "integer A_prev", "float32"])
DIVISORS: dict[str, Callable[[int], float]] = {
    "an average is divided by f + f, but should be by f * f": lambda f: f * f / (2 * f),
    "an average is divided by f, but should be by f * f": lambda f: f,
    "an average is not divided by f * f": lambda f: f * f,
}
POOL = Case(
    "pool_forward",
    steps(TIED_KINDS),
    pool_arguments,
    pooled,
    ("A_prev", "hparameters", "mode"),
    returns=("A", "cache"),
    mistakes={words: partial(multiplied, pooled, factor) for words, factor in DIVISORS.items()},
    regimes=POOL_REGIMES,
)
POOL_BACK = Case(
    "pool_backward",
    steps(TIED_KINDS),
    pool_arguments,
    pooled_back,
    ("dA", "cache", "mode"),
    returns=("dA_prev",),
    forward=Forward("pool_forward", ("A_prev", "hparameters", "mode"), ("A_prev", "hparameters")),
    mistakes={words: partial(multiplied, pooled_back, factor) for words, factor in DIVISORS.items()},
    accepted={
        f"of equal maxima {words} the gradient; the course's mask gives it to each": partial(pooled_back, ties=ties)
        for words, ties in TIES.items()
    },
    regimes=POOL_REGIMES,
)


def pad_arguments(s: Steps) -> Arguments:
    """A batch to pad."""
    return {**numbers(s.kind, s.seed, X=(s.m, s.height, s.width, s.channels)), "pad": s.pad}


def padded(a: Arguments, pairs: Callable[[int], Any] = lambda p: ((0, 0), (p, p), (p, p), (0, 0))) -> Results:
    """A batch with zeros around each image."""
    return {"X_pad": np.pad(a["X"], pairs(a["pad"]))}


PAD = Case(
    "zero_pad",
    steps(kinds("X"), 3),
    pad_arguments,
    padded,
    ("X", "pad"),
    returns=("X_pad",),
    mistakes={
        "the height is not padded": lambda a: padded(a, lambda p: ((0, 0), (0, 0), (p, p), (0, 0))),
        "the width is not padded": lambda a: padded(a, lambda p: ((0, 0), (p, p), (0, 0), (0, 0))),
        "images and height are padded, but should be height and width": lambda a: padded(
            a, lambda p: ((p, p), (p, p), (0, 0), (0, 0))
        ),
        "width and channels are padded, but should be height and width": lambda a: padded(
            a, lambda p: ((0, 0), (0, 0), (p, p), (p, p))
        ),
        "images and channels are padded, too": lambda a: padded(a, lambda p: p),
        "only one side is padded": lambda a: padded(a, lambda p: ((0, 0), (p, 0), (p, 0), (0, 0))),
    },
    regimes={**of_type("X"), **PADDING, **GEOMETRY},
)


def step_arguments(s: Steps) -> Arguments:
    """A window, a filter and a bias."""
    shape = (s.f, s.f, s.channels)
    return {**numbers(s.kind, s.seed, a_slice_prev=shape, W=shape, b=(1, 1, 1))}


def one_step(a: Arguments, bias: float = 1.0) -> Results:
    """A sum of products, and the bias."""
    return {"Z": np.sum(wide(a["a_slice_prev"]) * a["W"]) + bias * float(a["b"].item())}


STEP = Case(
    "conv_single_step",
    steps(kinds("a_slice_prev", "b")),
    step_arguments,
    one_step,
    ("a_slice_prev", "W", "b"),
    returns=("Z",),
    mistakes={
        "the bias is left out": lambda a: one_step(a, 0.0),
        "the bias is added once for each cell of the window": lambda a: one_step(a, a["W"].size),
    },
    regimes={**of_type("a_slice_prev", "b"), **GEOMETRY},
    loose=("Z",),
)


def mask_arguments(s: Steps) -> Arguments:
    """A window."""
    shape = (s.height, s.width)
    x = tied(shape, s.seed) if s.kind == "tied" else numbers(s.kind, s.seed, x=shape)["x"]
    return {"x": x}


def first_maximum(a: Arguments) -> Results:
    """A mask of the first maximum alone."""
    mask = np.zeros(a["x"].shape, bool)
    mask.flat[np.argmax(a["x"])] = True
    return {"mask": mask}


MASK = Case(
    "create_mask_from_window",
    steps(st.sampled_from(["float64", "tied", "integer x"])),
    mask_arguments,
    lambda a: {"mask": a["x"] == a["x"].max()},
    ("x",),
    returns=("mask",),
    mistakes={"each row has its own maximum": lambda a: {"mask": a["x"] == a["x"].max(1, keepdims=True)}},
    accepted={"of equal maxima only the first is marked; the course's mask marks each": first_maximum},
    regimes={**of_type("x"), **GEOMETRY},
)


def spread_arguments(s: Steps) -> Arguments:
    """A number, and the shape to spread it over."""
    return {"dz": float(numbers("float64", s.seed, dz=(1,))["dz"][0]), "shape": (s.height, s.width)}


def spread(a: Arguments, cells: Callable[[int, int], float] = lambda height, width: height * width) -> Results:
    """An equal share of the number in each cell."""
    return {"a": np.full(a["shape"], a["dz"] / cells(*a["shape"]))}


SPREAD = Case(
    "distribute_value",
    steps(kinds()),
    spread_arguments,
    spread,
    ("dz", "shape"),
    returns=("a",),
    mistakes={
        "it is divided by the sum of the sizes, but should be by their product": lambda a: spread(
            a, lambda height, width: height + width
        ),
        "it is not divided by the number of cells": lambda a: spread(a, lambda height, width: 1),
    },
    regimes=GEOMETRY,
)
CASES: dict[str, Case] = {case.name: case for case in (PAD, STEP, CONV, POOL, CONV_BACK, MASK, SPREAD, POOL_BACK)}
"""By the names of the functions, in the course's order."""
