"""CS231n's norms, and the mistakes made in them.

Every norm is one of rows or columns of a matrix, which some view of x is; the usual mistakes are another view.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from ..layout import Array
from .cases import ROUNDED, Arguments, Case, Forward, Results
from .course_data import Test, numbers, seeds, small

EPS = 1e-5
MOMENTUM = 0.9


class Normed(NamedTuple):
    """The sizes and settings of a norm; what is None is not given."""

    shape: tuple[int, ...]
    groups: int
    mode: str
    eps: float | None
    momentum: float | None
    running: bool
    seed: int


@st.composite
def normed(draw: st.DrawFn, *, axes: int, grouped: bool = False, tests: bool = False, rows: bool = False) -> Normed:
    """Sizes with statistics over at least two values: over the rows' if `rows`, else over the columns'."""
    groups = draw(small) if grouped else 1
    first, channels = draw(small), groups * draw(small)
    shape: tuple[int, ...] = (first, channels + 1) if rows else (first + 1, channels)
    if axes == 4:
        shape = (first, channels, draw(small), draw(st.integers(2, 3)))
    mode = draw(st.sampled_from(["train", "train", "test"])) if tests else "train"
    return Normed(
        shape,
        groups,
        mode,
        draw(st.sampled_from([None, EPS, 0.01, 0.5])),
        draw(st.sampled_from([None, MOMENTUM, 0.25])),
        mode == "test" or draw(st.booleans()),
        draw(seeds),
    )


NORM_REGIMES: dict[str, Test] = {
    "eps is not 1e-5": lambda s: s.eps not in (None, EPS),
    "eps is not given": lambda s: s.eps is None,
    "there is more than one channel": lambda s: s.shape[1] > 1,
    "there is more than one row or image": lambda s: s.shape[0] > 1,
    "height and width differ": lambda s: len(s.shape) > 2 and s.shape[2] != s.shape[3],
    "there is more than one group": lambda s: s.groups > 1,
    "a group has more than one channel": lambda s: s.shape[1] > s.groups,
}
BATCH_REGIMES: dict[str, Test] = {
    "the mode is 'test'": lambda s: s.mode == "test",
    "the mode is 'train'": lambda s: s.mode == "train",
    "the momentum is not 0.9": lambda s: s.mode == "train" and s.momentum not in (None, MOMENTUM),
    "the momentum is not given": lambda s: s.mode == "train" and s.momentum is None,
    "bn_param has running statistics already": lambda s: s.mode == "train" and s.running,
    "bn_param has no running statistics yet": lambda s: not s.running,
    **NORM_REGIMES,
}


@dataclass(frozen=True)
class View:
    """An array as the matrix whose rows (axis 1) or columns (axis 0) are normalised.

    `matrix` makes it, `back` undoes that for a shape. `spread` is what coefficients are multiplied with the matrix as,
    `collect` what their gradient is of the matrix of products.
    """

    axis: int
    matrix: Callable[[Array, int], Array]
    back: Callable[[Array, tuple[int, ...]], Array]
    spread: Callable[[Array, tuple[int, ...], int], Array]
    collect: Callable[[Array, tuple[int, ...]], Array]


def columns(matrix: Callable[[Array, int], Array], back: Callable[[Array, tuple[int, ...]], Array]) -> View:
    """A norm of columns, each with a coefficient of its own."""
    return View(0, matrix, back, lambda c, shape, groups: c, lambda products, shape: products.sum(0))


def by_rows(matrix: Callable[[Array, int], Array], back: Callable[[Array, tuple[int, ...]], Array]) -> View:
    """A norm of rows; coefficients are those of the array's second axis."""

    def spread(c: Array, shape: tuple[int, ...], groups: int) -> Array:
        per_channel = c.reshape(1, -1, *[1] * (len(shape) - 2))
        return matrix(np.broadcast_to(per_channel, shape).copy(), groups)

    def collect(products: Array, shape: tuple[int, ...]) -> Array:
        total: Array = back(products, shape).sum((0, *range(2, len(shape))))
        return total

    return View(1, matrix, back, spread, collect)


def last(x: Array, groups: int) -> Array:
    """Channels moved last, each a column."""
    return np.moveaxis(x, 1, -1).reshape(-1, x.shape[1])


def first(matrix: Array, shape: tuple[int, ...]) -> Array:
    """Columns as the channels of a shape."""
    return np.moveaxis(matrix.reshape(shape[0], *shape[2:], shape[1]), -1, 1)


def reshaped(matrix: Array, shape: tuple[int, ...]) -> Array:
    """The cells in their order, in a shape."""
    return matrix.reshape(shape)


COLUMNS = columns(lambda x, groups: x, reshaped)
ROWS = by_rows(lambda x, groups: x, reshaped)
CHANNELS = columns(last, first)
GROUPS = by_rows(lambda x, groups: x.reshape(len(x) * groups, -1), reshaped)
MIXED = columns(lambda x, groups: x.reshape(-1, x.shape[1]), reshaped)
MIXED_TOO = columns(
    lambda x, groups: x.reshape(x.shape[1], -1).T, lambda matrix, shape: np.ascontiguousarray(matrix.T).reshape(shape)
)
IMAGES = by_rows(lambda x, groups: x.reshape(len(x), -1), reshaped)
EACH = by_rows(lambda x, groups: x.reshape(x.shape[0] * x.shape[1], -1), reshaped)
BATCH_BY_ROW = by_rows(lambda x, groups: x.T, lambda matrix, shape: matrix.T)
INTERLEAVED = by_rows(
    lambda x, groups: x.reshape(len(x), -1, groups, *x.shape[2:]).swapaxes(1, 2).reshape(len(x) * groups, -1),
    lambda matrix, shape: matrix.reshape(shape),
)


class Parts(NamedTuple):
    """What can go wrong in a norm besides the view."""

    eps: float | None = None
    ddof: int = 0
    outside: bool = False
    mean_share: float = 1.0
    var_share: float = 1.0
    momentum: Callable[[float], float] = lambda momentum: momentum
    of_batch: bool = False


ALL_RIGHT = Parts()


def parameters(a: Arguments) -> Mapping[str, Any]:
    """The dictionary among a norm's arguments."""
    return next(value for value in a.values() if isinstance(value, dict))


def deviation(x: Array, var: Array, eps: float, parts: Parts) -> Array:
    """What centred values are divided by."""
    divisor: Array = np.sqrt(var) + eps if parts.outside else np.sqrt(var + eps)
    return divisor


def norm(view: View, a: Arguments, parts: Parts = ALL_RIGHT) -> Results:
    """What a norm's forward gives, with running statistics where it has any."""
    param, groups = parameters(a), a.get("G", 1)
    x = view.matrix(a["x"], groups)
    eps = param.get("eps", EPS) if parts.eps is None else parts.eps
    mean, var = x.mean(view.axis, keepdims=True), x.var(view.axis, keepdims=True, ddof=parts.ddof)
    results: dict[str, Any] = {}
    if "mode" in param:
        found, width = {"running_mean": mean.ravel(), "running_var": var.ravel()}, a["gamma"].size
        before = {key: param.get(key, np.zeros(width)) for key in found}
        if param["mode"] == "train":
            kept = parts.momentum(param.get("momentum", MOMENTUM))
            after = {key: kept * before[key] + (1 - kept) * found[key] for key in found}
        else:
            after = before
            if not parts.of_batch:
                mean, var = before["running_mean"], before["running_var"]
        results = {f"bn_param[{key!r}]": value for key, value in after.items()}
    normal = (x - mean) / deviation(x, var, eps, parts)
    gamma, beta = (view.spread(a[name], a["x"].shape, groups) for name in ("gamma", "beta"))
    return {"out": view.back(normal * gamma + beta, a["x"].shape), **results}


def norm_back(view: View, a: Arguments, parts: Parts = ALL_RIGHT) -> Results:
    """What a norm's backward gives."""
    groups, shape = a.get("G", 1), a["x"].shape
    x, dout = view.matrix(a["x"], groups), view.matrix(a["dout"], groups)
    eps = parameters(a).get("eps", EPS) if parts.eps is None else parts.eps
    mean, var = x.mean(view.axis, keepdims=True), x.var(view.axis, keepdims=True, ddof=parts.ddof)
    divisor = deviation(x, var, eps, parts)
    normal, g = (x - mean) / divisor, dout * view.spread(a["gamma"], shape, groups)
    shares = parts.mean_share * g.mean(view.axis, keepdims=True) + parts.var_share * normal * (g * normal).mean(
        view.axis, keepdims=True
    )
    gradients = {"dgamma": view.collect(dout * normal, shape), "dbeta": view.collect(dout, shape)}
    return {
        "dx": view.back((g - shares) / divisor, shape),
        **{name: gradient.reshape(a["gamma"].shape) for name, gradient in gradients.items()},
    }


def norm_mistakes(
    compute: Callable[..., Results], right: View, views: Mapping[str, View], trains: bool, backward: bool
) -> dict[str, Callable[[Arguments], Results]]:
    """The results of the usual mistakes: other views, and what goes wrong whatever the view."""
    parts = {
        "the variance is divided by n - 1, but should be by n": Parts(ddof=1),
        "eps is added to the deviation, but should be to the variance": Parts(outside=True),
        "eps is taken as 1e-5, whatever was given": Parts(eps=EPS),
        "eps is left out": Parts(eps=0.0),
    }
    if backward:
        parts |= {
            "the part of dx that goes through the mean is left out": Parts(mean_share=0.0),
            "the part of dx that goes through the variance is left out": Parts(var_share=0.0),
            "dx leaves out that the mean and the variance depend on x": Parts(mean_share=0.0, var_share=0.0),
        }
    elif trains:
        parts |= {
            "the momentum is the wrong way round: it is the share that the old statistics keep": Parts(
                momentum=lambda momentum: 1 - momentum
            ),
            "in test mode the batch's own statistics are used, but should be the running ones": Parts(of_batch=True),
        }
    wrong = {
        f"the statistics are over the wrong axes: {words}": partial(compute, view) for words, view in views.items()
    }
    return {**wrong, **{words: partial(compute, right, parts=part) for words, part in parts.items()}}


def norm_arguments(name: str, s: Normed) -> Arguments:
    """A norm's arguments, by the name of its dictionary, and the gradient by its output."""
    coefficient = (1, s.shape[1], 1, 1) if name == "gn_param" else s.shape[1:2]
    a: Arguments = {**numbers("float64", s.seed, x=s.shape, gamma=coefficient, beta=coefficient, dout=s.shape)}
    param: dict[str, Any] = {"mode": s.mode} if name == "bn_param" else {}
    if s.eps is not None:
        param["eps"] = s.eps
    if name == "bn_param":
        if s.momentum is not None:
            param["momentum"] = s.momentum
        if s.running:
            running = numbers("float64", s.seed + 1, mean=s.shape[1:2], var=s.shape[1:2])
            param |= {"running_mean": running["mean"], "running_var": np.abs(running["var"])}
    if name == "gn_param":
        a["G"] = s.groups
    return {**a, name: param}


def norm_cases(prefix: str, param: str, right: View, views: Mapping[str, View], *, axes: int, rows: bool) -> list[Case]:
    """The forward and backward of a norm; batch norm's have running statistics and a test mode."""
    trains, grouped = param == "bn_param", param == "gn_param"
    passed = ("x", "gamma", "beta", *(["G"] if grouped else []), param)
    forward = Case(
        f"{prefix}_forward",
        normed(axes=axes, grouped=grouped, tests=trains, rows=rows),
        partial(norm_arguments, param),
        partial(norm, right),
        passed,
        after=(("bn_param", "running_mean"), ("bn_param", "running_var")) if trains else (),
        changing=("bn_param",),
        mistakes=norm_mistakes(norm, right, views, trains, backward=False),
        regimes=BATCH_REGIMES if trains else NORM_REGIMES,
        fixed=("x", "gamma", "beta", "dout"),
        loose=("bn_param['running_mean']", "bn_param['running_var']"),
        slack=ROUNDED,
    )
    backward = Case(
        f"{prefix}_backward",
        normed(axes=axes, grouped=grouped, rows=rows),
        partial(norm_arguments, param),
        partial(norm_back, right),
        ("dout", "cache"),
        returns=("dx", "dgamma", "dbeta"),
        forward=Forward(f"{prefix}_forward", passed),
        changing=("bn_param",),
        mistakes=norm_mistakes(norm_back, right, views, trains, backward=True),
        regimes=NORM_REGIMES,
        fixed=("x", "gamma", "beta", "dout"),
        slack=ROUNDED,
    )
    return [forward, backward]


IN_BATCH_NORM = {
    "x.reshape(-1, C) mixes the channels, which must be moved last before": MIXED,
    "x.reshape(C, -1) mixes images and channels, which must be moved first before": MIXED_TOO,
    "they are taken of each image, but should be of each channel over all images": IMAGES,
    "they are taken of each channel of each image, but should be over all images": EACH,
}
IN_GROUP_NORM = {
    "a group is of neighbouring channels, and not of every so many-th": INTERLEAVED,
    "they are taken of each channel alone": EACH,
    "they are taken of the whole image, but should be of each group": IMAGES,
    "they are taken over all images, but should be of each image alone": CHANNELS,
}
NORMS = [
    *norm_cases("batchnorm", "bn_param", COLUMNS, {"they are taken of each row": ROWS}, axes=2, rows=False),
    *norm_cases("layernorm", "ln_param", ROWS, {"they are taken of each column": BATCH_BY_ROW}, axes=2, rows=True),
    *norm_cases("spatial_batchnorm", "bn_param", CHANNELS, IN_BATCH_NORM, axes=4, rows=False),
    *norm_cases("spatial_groupnorm", "gn_param", GROUPS, IN_GROUP_NORM, axes=4, rows=False),
]
CASES: dict[str, Case] = {case.name: case for case in NORMS}
CASES["batchnorm_backward_alt"] = replace(CASES["batchnorm_backward"], name="batchnorm_backward_alt")
"""By the names of the functions."""
