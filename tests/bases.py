"""Right implementations, one line of NumPy a step, for mistakes to be planted in.

Each mistake calls one of these with something changed, or is a copy with a line changed.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np

import convkernels as ck
from convkernels.norm_spec import LocalNormSpec, NormSpec
from convkernels.views import grouped, scatter_windows, windows


def seen(spec, x, window=None):
    """What each window sees of x, or of its groups: (N, G, C, windows, taps)."""
    window = window or spec.window
    found = windows(grouped(x, spec.groups), window)
    return found.reshape(*found.shape[:3], math.prod(window.out_size), window.taps)


def planes(spec, y):
    """Outputs or their gradient: (N, G, O, windows)."""
    y = grouped(y, spec.groups)
    return y.reshape(*y.shape[:3], math.prod(y.shape[3:]))


def weights(spec, w):
    """(G, O, C, taps)."""
    return w.reshape(spec.groups, -1, w.shape[1], math.prod(w.shape[2:]))


def along_channels(b, y):
    """A bias as it is added to y."""
    return np.zeros(1, y.dtype) if b is None else b.reshape(1, -1, *[1] * (y.ndim - 2))


def flipped(w):
    """The filter turned round along every spatial axis."""
    return np.flip(w, tuple(range(2, w.ndim)))


def swapped(window):
    """The window with each axis' padding in front and behind exchanged."""
    return replace(window, padding=tuple((hi, lo) for lo, hi in window.padding))


def unstrided(window):
    """The window with strides of one, and with as many outputs as before."""
    padding = tuple(
        (lo, count - 1 + extent - size - lo)
        for (lo, _), count, extent, size in zip(
            window.padding, window.out_size, window.extent, window.in_size, strict=True
        )
    )
    return replace(window, stride=(1,) * window.rank, padding=padding)


def dense(window):
    """The window without dilation, and with as many outputs as before."""
    padding = tuple(
        (lo, hi - spread * (taps - 1) + taps - 1)
        for (lo, hi), spread, taps in zip(window.padding, window.dilation, window.kernel_size, strict=True)
    )
    return replace(window, dilation=(1,) * window.rank, padding=padding)


def conv(spec, x, w, b, *, out, resources=None, window=None):
    # Copies of one image are alike in memory, whatever the batch: so are the sums over them, bit for bit.
    for image in range(len(x)):
        cells = np.ascontiguousarray(seen(spec, x[image : image + 1], window))
        product = np.einsum("ngcpt,goct->ngop", cells, weights(spec, w))
        out[image] = product.reshape(out.shape[1:]) + along_channels(b, out)[0]


def passed_back(spec, dy, w):
    """What each window passes back to each cell it sees: (N, G, C, windows, taps)."""
    return np.einsum("ngop,goct->ngcpt", planes(spec, dy), weights(spec, w))


def conv_input_grad(spec, dy, w, *, out, resources=None, window=None):
    window = window or spec.window
    cells = passed_back(spec, dy, w).reshape(*out.shape[:2], *window.out_size, *window.kernel_size)
    out[...] = 0
    scatter_windows(cells, window, out)


def conv_weight_grad(spec, x, dy, *, out, resources=None, window=None):
    out[...] = np.einsum("ngcpt,ngop->goct", seen(spec, x, window), planes(spec, dy)).reshape(out.shape)


def conv_transpose(spec, x, w, b, *, out, resources=None):
    conv_input_grad(spec.convolution, x, w, out=out)
    out += along_channels(b, out)


def family(spec):
    """A reducer's name without its parameter or its rule for ties."""
    return spec.reducer.name.partition("_")[0].rstrip("0123456789.-")


def takes_reducer(spec):
    return "logsumexp is not among the bases" if family(spec) == "logsumexp" else None


def identity(spec):
    """What a window is padded with."""
    return spec.reducer.pad_value(spec.compute_dtype)


def pooled(spec, x, fill=0, window=None):
    """What each window sees: (N, C, output, taps)."""
    window = window or spec.window
    found = windows(x, window, fill)
    return found.reshape(*found.shape[: x.ndim], window.taps)


def reduced(spec, cells, count):
    kind = family(spec)
    if kind in ("max", "min"):
        return getattr(cells, kind)(-1)
    if kind == "lp":
        p = float(spec.reducer.name[2:])
        return (np.abs(cells) ** p).sum(-1) ** (1 / p)
    return cells.sum(-1) / count if kind == "mean" else cells.sum(-1)


def pool(spec, x, *, out, resources=None, fill=None, count=None):
    cells = pooled(spec, x, identity(spec) if fill is None else fill)
    out[...] = reduced(spec, cells, spec.count(spec.window.whole) if count is None else count)


def first(wins):
    return wins & (np.cumsum(wins, -1) == 1)


def last(wins):
    return first(wins[..., ::-1])[..., ::-1]


TIES = {"": first, "last": last, "split": lambda wins: wins / wins.sum(-1, keepdims=True), "all": lambda wins: wins}


def winning(spec, x, y):
    """The share of dy that each cell of a maximum's window takes."""
    cells, real = pooled(spec, x), pooled(spec, np.ones(x.shape, bool), False)
    rule = TIES[spec.reducer.name.partition("_ties-")[2]]
    best = y[..., None]
    with np.errstate(invalid="ignore"):  # no cell wins where y is NaN
        return np.where(np.isnan(best), first(np.isnan(cells) & real), rule((cells == best) & real))


def slopes(spec, x, y, count):
    """The slope of each window's result by each of its cells: (N, C, output, taps)."""
    kind = family(spec)
    if kind in ("max", "min"):
        return winning(spec, x, y)
    if kind == "lp":
        cells = pooled(spec, x)
        ratio = np.divide(np.abs(cells), y[..., None], out=np.zeros_like(cells), where=cells != 0)
        return np.sign(cells) * ratio ** (float(spec.reducer.name[2:]) - 1)
    return np.broadcast_to(np.expand_dims(1 / np.asarray(count) if kind == "mean" else 1, -1), (*y.shape, 1))


def pool_grad(spec, dy, x, y, *, out, resources=None, count=None):
    count = spec.count(spec.window.whole) if count is None else count
    if family(spec) == "mean":
        shares = np.broadcast_to((dy / count)[..., None], (*dy.shape, spec.window.taps))
    else:
        shares = dy[..., None] * slopes(spec, x, y, count)
    put_back(spec, shares, out)


def put_back(spec, shares, out, window=None):
    """Add up what each window gives to its cells."""
    window = window or spec.window
    out[...] = 0
    whole = np.broadcast_to(shares, (*shares.shape[:-1], window.taps))
    scatter_windows(whole.reshape(*shares.shape[:-1], *window.kernel_size), window, out)


def or_else(coefficients, value):
    return value if coefficients is None else coefficients


def centred(spec, x, mean):
    return x.astype(spec.statistics_dtype) - (mean if spec.centred else 0)


def statistics(spec, x, axes=None):
    """The mean and the population variance, by a second pass."""
    axes = spec.reduced if axes is None else axes
    mean = x.mean(axes, keepdims=True, dtype=spec.statistics_dtype) if spec.centred else np.zeros(spec.statistics_shape)
    return mean, np.square(centred(spec, x, mean)).mean(axes, keepdims=True)


def norm(spec, x, gamma, beta, *, out, mean, var, resources=None):
    mean[...], var[...] = statistics(spec, x)
    batch_norm(spec, x, gamma, beta, mean, var, out=out)


def batch_norm(spec, x, gamma, beta, mean, var, *, out, resources=None):
    normalised = centred(spec, x, mean) / np.sqrt(var + spec.eps)
    out[...] = normalised * or_else(gamma, 1) + or_else(beta, 0)


def sum_into(total, terms):
    """Sum over the axes that a coefficient has one cell along."""
    if total is not None:
        axes = tuple(axis for axis, size in enumerate(total.shape) if size == 1)
        total[...] = terms.sum(axes, keepdims=True)


def norm_grad(spec, dy, x, gamma, mean, var, *, out, dgamma, dbeta, resources=None, eps=None, passes=("mean", "var")):
    """The gradient of a norm; `passes` are the statistics that a gradient passes through."""
    rstd = 1 / np.sqrt(var + (spec.eps if eps is None else eps))
    normalised = centred(spec, x, mean) * rstd
    sum_into(dbeta, dy.astype(rstd.dtype))
    sum_into(dgamma, dy * normalised)
    given = dy * or_else(gamma, 1)
    total = given.astype(rstd.dtype)
    if "mean" in passes and spec.centred:
        total = total - given.mean(spec.reduced, keepdims=True, dtype=rstd.dtype)
    if "var" in passes:
        total = total - normalised * (given * normalised).mean(spec.reduced, keepdims=True)
    out[...] = total * rstd


batch_norm_grad = partial(norm_grad, passes=())


def window_sums(cells, before, after):
    """Sums over the channels from `before` to `after` of each."""
    padded = np.pad(cells, [(0, 0), (before, after), *[(0, 0)] * (cells.ndim - 2)])
    return sum(padded[:, step : step + cells.shape[1]] for step in range(before + after + 1))


def bases(spec, x):
    wide = x.astype(spec.statistics_dtype)
    return spec.bias + spec.alpha / spec.size * window_sums(wide**2, spec.before, spec.after)


def local_response_norm(spec, x, *, out, resources=None):
    out[...] = x * bases(spec, x) ** -spec.beta


def local_response_norm_grad(spec, dy, x, *, out, resources=None):
    base, cells = bases(spec, x), x.astype(spec.statistics_dtype)
    shares = window_sums(dy * cells * base ** (-spec.beta - 1), spec.after, spec.before)
    out[...] = dy * base**-spec.beta - 2 * spec.alpha * spec.beta / spec.size * cells * shares


NORM_CLAIMS = frozenset({"nan_strict", "bounded"})
CLAIMS = NORM_CLAIMS | {"exact_on_integers"}
"""What the bases claim, and so the mistakes planted in them; that of convolution is batch-invariant too."""

RUNS = {
    "conv": conv,
    "conv_input_grad": conv_input_grad,
    "conv_weight_grad": conv_weight_grad,
    "conv_transpose": conv_transpose,
    "pool": pool,
    "pool_grad": pool_grad,
    "batch_norm": batch_norm,
    "batch_norm_grad": batch_norm_grad,
    "batch_norm_train": norm,
    "batch_norm_train_grad": norm_grad,
    "group_norm": norm,
    "group_norm_grad": norm_grad,
    "local_response_norm": local_response_norm,
    "local_response_norm_grad": local_response_norm_grad,
}
"""The base of each operation."""


def workspace(spec, limit):
    """Scratch bytes that suffice: some float64 copies of every window."""
    seen = spec.size if isinstance(spec, LocalNormSpec) else 1 if isinstance(spec, NormSpec) else spec.window.taps
    return 8 * 4 * (math.prod(spec.x_shape) + math.prod(spec.y_shape)) * (seen + 1)


def based(operation, run=None, **facts):
    """An implementation that claims what its operation's base does."""
    run = run or RUNS[operation]
    claims = NORM_CLAIMS if "norm" in operation else CLAIMS
    facts.setdefault("claims", claims | {"batch_invariant"} if operation == "conv" else claims)
    if operation.startswith("pool"):
        facts.setdefault("supports", takes_reducer)
    name = getattr(run, "__name__", "base")
    return ck.Implementation(name, run, **{"workspace": workspace, **facts}, operation=operation)
