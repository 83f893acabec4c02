"""The functions of CS231n's second assignment, and the mistakes made in them: convolution, pooling, affine, ReLU."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from ..conv import conv2d, conv2d_vjp
from ..layout import Array
from ..pool import max_pool2d, max_pool2d_vjp
from ..reducers import Ties
from .cases import Arguments, Case, Forward, Results
from .course_data import ORDER, Test, fitted, in_order, kinds, numbers, of_type, outputs, seeds, small, tied, wide

VARIANTS = ("naive", "fast", "im2col", "strides")
DEFINITION = "naive"


class Windows(NamedTuple):
    """The sizes of a convolution or pool."""

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

    @property
    def out(self) -> tuple[int, int]:
        """The output's height and width."""
        return outputs(self.H, self.HH, self.stride, self.pad), outputs(self.W, self.WW, self.stride, self.pad)


@st.composite
def windows(draw: st.DrawFn, types: st.SearchStrategy[str], most_padding: int = 0) -> Windows:
    """Sizes in which windows leave nothing over, as the course has it."""
    stride, pad = draw(small), draw(st.integers(0, most_padding))
    tall, broad = draw(small), draw(small)
    return Windows(
        N=draw(small),
        C=draw(small),
        F=draw(small),
        H=fitted(draw(small), tall, stride, pad),
        W=fitted(draw(small), broad, stride, pad),
        HH=tall,
        WW=broad,
        stride=stride,
        pad=pad,
        reverse=draw(st.booleans()),
        kind=draw(types),
        seed=draw(seeds),
    )


def overlapping(s: Windows) -> bool:
    """Whether some input cell is seen by two windows."""
    height, width = s.out
    return (height > 1 and s.stride < s.HH) or (width > 1 and s.stride < s.WW)


GEOMETRY: dict[str, Test] = {
    "the window is not square": lambda s: s.HH != s.WW,
    "the stride is above 1": lambda s: s.stride > 1 and s.out != (1, 1),
    "the output's height and width differ": lambda s: s.out[0] != s.out[1],
    "the input's height and width differ": lambda s: s.H != s.W,
    "the window has more than one cell": lambda s: s.HH * s.WW > 1,
    "there is more than one output cell": lambda s: s.out != (1, 1),
    "there is more than one image": lambda s: s.N > 1,
    "there is more than one channel": lambda s: s.C > 1,
    "windows overlap (the stride is below the window)": overlapping,
}
CONV_REGIMES: dict[str, Test] = {
    **of_type("x", "b"),
    "the padding is 0": lambda s: s.pad == 0,
    "the padding is above 0": lambda s: s.pad > 0,
    "conv_param lists 'pad' before 'stride'": lambda s: s.reverse and s.stride != s.pad,
    "conv_param lists 'stride' before 'pad'": lambda s: not s.reverse and s.stride != s.pad,
    **GEOMETRY,
    "there is more than one filter": lambda s: s.F > 1,
    f"the sizes of the output's axes differ {ORDER}": lambda s: len({s.N, s.F, *s.out}) > 1,
    f"the sizes of the input's axes differ {ORDER}": lambda s: len({s.N, s.C, s.H, s.W}) > 1,
}
POOL_REGIMES: dict[str, Test] = {
    **of_type("x"),
    "a window holds its maximum more than once": lambda s: s.kind == "tied" and s.HH * s.WW > 1,
    "pool_param lists its entries in another order": lambda s: s.reverse and len({s.HH, s.WW, s.stride}) > 1,
    **GEOMETRY,
    f"the sizes of the output's axes differ {ORDER}": lambda s: len({s.N, s.C, *s.out}) > 1,
    f"the sizes of the input's axes differ {ORDER}": lambda s: len({s.N, s.C, s.H, s.W}) > 1,
}


def conv_arguments(s: Windows) -> Arguments:
    """A convolution's arguments, and the gradient by its output."""
    arrays = numbers(
        s.kind, s.seed, x=(s.N, s.C, s.H, s.W), w=(s.F, s.C, s.HH, s.WW), b=(s.F,), dout=(s.N, s.F, *s.out)
    )
    return {**arrays, "conv_param": in_order(s.reverse, stride=s.stride, pad=s.pad)}


def convolved(a: Arguments, **other: Array) -> Results:
    """What a convolution gives."""
    x, w, b = (wide({**a, **other}[name]) for name in ("x", "w", "b"))
    stride, padding = a["conv_param"]["stride"], a["conv_param"]["pad"]
    return {"out": conv2d(x, w, b, stride=stride, padding=padding, strategy=DEFINITION)}


def convolved_back(a: Arguments, **other: Array) -> Results:
    """What a convolution's backward gives."""
    x, w, b, dout = (wide({**a, **other}[name]) for name in ("x", "w", "b", "dout"))
    stride, padding = a["conv_param"]["stride"], a["conv_param"]["pad"]
    gradients: Results = conv2d_vjp(x, w, b, stride=stride, padding=padding, strategy=DEFINITION)[1](dout)._asdict()
    return gradients


def flipped(w: Array) -> Array:
    """The filters upside down and back to front."""
    return w[:, :, ::-1, ::-1]


def swapped(w: Array) -> Array:
    """Filters with height and width exchanged."""
    return w.swapaxes(2, 3)


CONV = Case(
    "conv_forward",
    windows(kinds("x", "b"), 2),
    conv_arguments,
    convolved,
    ("x", "w", "b", "conv_param"),
    mistakes={
        "the bias is left out": lambda a: convolved(a, b=0 * a["b"]),
        "the bias is added once for each tap": lambda a: convolved(a, b=a["b"] * math.prod(a["w"].shape[2:])),
        "the bias is added once for each tap and channel": lambda a: convolved(
            a, b=a["b"] * math.prod(a["w"].shape[1:])
        ),
        "the bias is added once for each channel": lambda a: convolved(a, b=a["b"] * a["w"].shape[1]),
        "the filter is flipped, as in mathematics: here it is not": lambda a: convolved(a, w=flipped(a["w"])),
        "the filters' height and width are swapped": lambda a: convolved(a, w=swapped(a["w"])),
    },
    regimes=CONV_REGIMES,
)
CONV_BACK = Case(
    "conv_backward",
    windows(kinds("x", "b"), 2),
    conv_arguments,
    convolved_back,
    ("dout", "cache"),
    returns=("dx", "dw", "db"),
    forward=Forward("conv_forward", ("x", "w", "b", "conv_param"), ("x", "w", "b", "conv_param")),
    mistakes={
        "dw is transposed: its height and width are swapped": lambda a: {"dw": swapped(convolved_back(a)["dw"])},
        "dw is flipped": lambda a: {"dw": flipped(convolved_back(a)["dw"])},
        "the filter is the wrong way round for dx": lambda a: {"dx": convolved_back(a, w=flipped(a["w"]))["dx"]},
        "the filters' height and width are swapped for dx": lambda a: {
            "dx": convolved_back(a, w=swapped(a["w"]))["dx"]
        },
        "the gradients are divided by the number of images": lambda a: {
            name: gradient / len(a["x"]) for name, gradient in convolved_back(a).items()
        },
    },
    regimes=CONV_REGIMES,
)


def pool_arguments(s: Windows) -> Arguments:
    """A pool's arguments, and the gradient by its output."""
    shape = (s.N, s.C, s.H, s.W)
    arrays = numbers(s.kind, s.seed, x=shape, dout=(s.N, s.C, *s.out))
    if s.kind == "tied":
        arrays["x"] = tied(shape, s.seed)
    return {**arrays, "pool_param": in_order(s.reverse, pool_height=s.HH, pool_width=s.WW, stride=s.stride)}


def pooled(a: Arguments) -> Results:
    """What a max pool gives."""
    param = a["pool_param"]
    window = (param["pool_height"], param["pool_width"])
    return {"out": max_pool2d(wide(a["x"]), window, stride=param["stride"], strategy=DEFINITION)}


def pooled_back(ties: Ties) -> Callable[[Arguments], Results]:
    """What a max pool's backward gives by a rule for ties."""

    def gradient(a: Arguments) -> Results:
        param, x = a["pool_param"], wide(a["x"])
        window = (param["pool_height"], param["pool_width"])
        vjp = max_pool2d_vjp(x, window, stride=param["stride"], ties=ties, strategy=DEFINITION)[1]
        return {"dx": vjp(wide(a["dout"]))}

    return gradient


TIED_KINDS = st.sampled_from(["float64", "float64", "tied", "integer x", "float32"])
POOL = Case("max_pool_forward", windows(TIED_KINDS), pool_arguments, pooled, ("x", "pool_param"), regimes=POOL_REGIMES)
POOL_BACK = Case(
    "max_pool_backward",
    windows(TIED_KINDS),
    pool_arguments,
    pooled_back("first"),
    ("dout", "cache"),
    returns=("dx",),
    forward=Forward("max_pool_forward", ("x", "pool_param"), ("x", "pool_param")),
    mistakes={
        "it differs only on ties: each maximum of a window gets the whole gradient, but one of them may, or all share "
        "it": pooled_back("all")
    },
    accepted={
        "of equal maxima the last one gets the gradient, usual is the first": pooled_back("last"),
        "equal maxima share the gradient, usual is that the first one gets it": pooled_back("split"),
    },
    regimes=POOL_REGIMES,
)


class Rows(NamedTuple):
    """The sizes of an affine map, or of ReLU."""

    N: int
    inner: tuple[int, ...]
    M: int
    kind: str
    seed: int


ROWS_REGIMES: dict[str, Test] = {
    **of_type("x", "b"),
    "there is more than one image": lambda s: s.N > 1,
    "x has more than two axes": lambda s: len(s.inner) > 1,
    "there is more than one output": lambda s: s.M > 1,
}


def rows(*integers: str) -> st.SearchStrategy[Rows]:
    """Sizes with one to three axes beside that of the images."""
    inner = st.lists(small, min_size=1, max_size=3).map(tuple)
    return st.builds(Rows, N=small, inner=inner, M=small, kind=kinds(*integers), seed=seeds)


def affine_arguments(s: Rows) -> Arguments:
    """An affine map's arguments, and the gradient by its output."""
    return {**numbers(s.kind, s.seed, x=(s.N, *s.inner), w=(math.prod(s.inner), s.M), b=(s.M,), dout=(s.N, s.M))}


def affine(a: Arguments) -> Results:
    """What an affine map gives."""
    return {"out": wide(a["x"]).reshape(len(a["x"]), -1) @ wide(a["w"]) + wide(a["b"])}


def affine_back(a: Arguments) -> Results:
    """What an affine map's backward gives."""
    x, w, dout = wide(a["x"]), wide(a["w"]), wide(a["dout"])
    return {"dx": (dout @ w.T).reshape(x.shape), "dw": x.reshape(len(x), -1).T @ dout, "db": dout.sum(0)}


def relu_arguments(s: Rows) -> Arguments:
    """ReLU's argument, and the gradient by its output."""
    return {**numbers(s.kind, s.seed, x=(s.N, *s.inner), dout=(s.N, *s.inner))}


AFFINE = Case(
    "affine_forward",
    rows("x", "b"),
    affine_arguments,
    affine,
    ("x", "w", "b"),
    mistakes={"the bias is left out": lambda a: affine({**a, "b": 0 * a["b"]})},
    regimes=ROWS_REGIMES,
)
AFFINE_BACK = Case(
    "affine_backward",
    rows("x", "b"),
    affine_arguments,
    affine_back,
    ("dout", "cache"),
    returns=("dx", "dw", "db"),
    forward=Forward("affine_forward", ("x", "w", "b"), ("x", "w", "b")),
    mistakes={
        "the gradients are divided by the number of images": lambda a: {
            name: gradient / len(a["x"]) for name, gradient in affine_back(a).items()
        }
    },
    regimes=ROWS_REGIMES,
)
RELU = Case(
    "relu_forward",
    rows("x"),
    relu_arguments,
    lambda a: {"out": np.maximum(wide(a["x"]), 0)},
    ("x",),
    regimes=ROWS_REGIMES,
)
RELU_BACK = Case(
    "relu_backward",
    rows("x"),
    relu_arguments,
    lambda a: {"dx": wide(a["dout"]) * (a["x"] > 0)},
    ("dout", "cache"),
    returns=("dx",),
    forward=Forward("relu_forward", ("x",), "x"),
    mistakes={"the gradient goes through where x is negative, too": lambda a: {"dx": a["dout"]}},
    regimes=ROWS_REGIMES,
    fixed=("x",),  # at 0 either slope is right
)


def variants(case: Case) -> dict[str, Case]:
    """A function under the names that the course gives its versions; only the naive one's cache is laid down."""
    found = {}
    for variant in VARIANTS:
        forward = case.forward
        if forward is not None:
            cache = forward.cache if variant == "naive" else ()
            forward = replace(forward, name=f"{forward.name}_{variant}", cache=cache)
        name = f"{case.name}_{variant}"
        found[name] = replace(case, name=name, forward=forward)
    return found


CASES: dict[str, Case] = {
    **{name: case for base in (CONV, CONV_BACK, POOL, POOL_BACK) for name, case in variants(base).items()},
    **{case.name: case for case in (AFFINE, AFFINE_BACK, RELU, RELU_BACK)},
}
"""By the names of the functions."""
