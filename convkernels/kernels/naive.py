"""The definitions: every operation as its formula says, in plain Python loops.

They are the oracle that all other implementations are held to, so they share nothing with them: no padding, no views,
no reducer's code, and a bounds test of their own. Sums run in Python's own numbers (float64 for float32 data, unbounded
for integers). A hundred to a thousand times slower than anything else here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np

from ..config import Resources
from ..layout import Array, Order
from ..pool_spec import PoolSpec
from ..reducer import Reducer
from ..reducers import builtin_reducer
from ..spec import ConvSpec, ConvTransposeSpec
from ..window import Ints

Reach = list[tuple[Ints, Ints]]
CLAIMS = frozenset({"exact_on_integers", "batch_invariant", "nan_strict", "bounded"})


def reach(spec: ConvSpec | PoolSpec, position: Ints) -> Reach:
    """The taps of the window at `position` that fall on the input, each with the cell it falls on."""
    window, found = spec.window, []
    for tap in product(*map(range, window.kernel_size)):
        cell = []
        for axis, size in enumerate(window.in_size):
            lo, hi = window.padding[axis]
            place = position[axis] * window.stride[axis] + tap[axis] * window.dilation[axis] - lo
            if spec.padding_mode != "zeros" and place < size + hi:
                place = moved_inside(place, max(0, -lo), size - 1 + min(0, hi), spec.padding_mode)
            if place < 0 or place >= size or place >= size + hi:
                break
            cell.append(place)
        else:
            found.append((tap, tuple(cell)))
    return found


def moved_inside(place: int, first: int, last: int, mode: str) -> int:
    """The cell from first to last that a place beyond the border repeats."""
    while not first <= place <= last:
        if mode == "replicate" or first == last:
            place = first if place < first else last
        elif mode == "circular":
            place += (last - first + 1) if place < first else -(last - first + 1)
        else:
            place = 2 * (first if place < first else last) - place
    return place


def conv(spec: ConvSpec, x: Array, w: Array, b: Array | None, *, out: Array, resources: Resources) -> None:
    """y[n, o, p] = b[o] + sum over c, t of x[n, c, p * stride + t * dilation - lo] * w[o, c, t]."""
    for position in product(*map(range, spec.window.out_size)):
        seen = reach(spec, position)
        for n, o in product(range(spec.batch), range(spec.out_channels)):
            first = o // spec.group_out * spec.group_in
            total = 0 if b is None else b[o].item()
            for c in range(spec.group_in):
                for tap, cell in seen:
                    total += x.item(n, first + c, *cell) * w.item(o, c, *tap)
            out[n, o, *position] = total


def conv_input_grad(spec: ConvSpec, dy: Array, w: Array, *, out: Array, resources: Resources) -> None:
    """dx[n, c, cell] = sum of dy[n, o, p] * w[o, c, t] over all o, p, t that read the cell."""
    readers: dict[Ints, Reach] = {cell: [] for cell in product(*map(range, spec.window.in_size))}
    for position in product(*map(range, spec.window.out_size)):
        for tap, cell in reach(spec, position):
            readers[cell].append((tap, position))
    for cell, reads in readers.items():
        for n, channel in product(range(spec.batch), range(spec.in_channels)):
            group, c = divmod(channel, spec.group_in)
            total = 0
            for o in range(group * spec.group_out, (group + 1) * spec.group_out):
                for tap, position in reads:
                    total += dy.item(n, o, *position) * w.item(o, c, *tap)
            out[n, channel, *cell] = total


def conv_weight_grad(spec: ConvSpec, x: Array, dy: Array, *, out: Array, resources: Resources) -> None:
    """dw[o, c, t] = sum of x[n, c, cell] * dy[n, o, p] over all n, p whose tap t reads the cell."""
    uses: dict[Ints, Reach] = {tap: [] for tap in product(*map(range, spec.window.kernel_size))}
    for position in product(*map(range, spec.window.out_size)):
        for tap, cell in reach(spec, position):
            uses[tap].append((position, cell))
    for o, c in product(range(spec.out_channels), range(spec.group_in)):
        channel = o // spec.group_out * spec.group_in + c
        for tap, pairs in uses.items():
            total = 0
            for n in range(spec.batch):
                for position, cell in pairs:
                    total += x.item(n, channel, *cell) * dy.item(n, o, *position)
            out[o, c, *tap] = total


def conv_transpose(
    spec: ConvTransposeSpec, x: Array, w: Array, b: Array | None, *, out: Array, resources: Resources
) -> None:
    """y[n, o, p * stride + t * dilation - lo] = b[o] + sum of x[n, c, p] * w[c, o, t] over all that fall there."""
    groups, (in_channels, group_out) = spec.convolution.groups, w.shape[:2]
    group_in = in_channels // groups
    out[...] = 0
    for position in product(*map(range, x.shape[2:])):
        for tap in product(*map(range, w.shape[2:])):
            cell = tuple(
                p * step + t * spread - lo
                for p, step, t, spread, (lo, _) in zip(
                    position, spec.window.stride, tap, spec.window.dilation, spec.padding, strict=True
                )
            )
            if all(0 <= place < size for place, size in zip(cell, out.shape[2:], strict=True)):
                for n, channel in product(range(x.shape[0]), range(out.shape[1])):
                    group, o = divmod(channel, group_out)
                    for c in range(group * group_in, (group + 1) * group_in):
                        out[n, channel, *cell] += x.item(n, c, *position) * w.item(c, o, *tap)
    if b is not None:
        for channel in range(out.shape[1]):
            out[:, channel] += b[channel]


Values = list[Any]


def _winners(values: Values, best: Any) -> list[int]:
    nans = [place for place, value in enumerate(values) if value != value]
    return nans[:1] or [place for place, value in enumerate(values) if value == best]


def _extremum_define(better: Callable[[Values], Any]) -> Callable[[Values, int], Any]:
    def define(values: Values, count: int) -> Any:
        nans = [value for value in values if value != value]
        return nans[0] if nans else better(values)

    return define


def _extremum_grad(ties: str) -> Callable[[Any, Values, Any, int], Values]:
    def grad(dy: Any, values: Values, y: Any, count: int) -> Values:
        winners = _winners(values, y)
        shares = {"first": winners[:1], "last": winners[-1:]}.get(ties, winners)
        share = dy / len(winners) if ties == "split" else dy
        return [share if place in shares else 0 for place in range(len(values))]

    return grad


def _lp_define(p: float) -> Callable[[Values, int], Any]:
    def define(values: Values, count: int) -> Any:
        largest = max(map(abs, values))
        if largest == 0 or not math.isfinite(largest):
            return largest if all(value == value for value in values) else math.nan
        try:
            return largest * math.fsum((abs(value) / largest) ** p for value in values) ** (1 / p)
        except OverflowError:
            return math.inf

    return define


def _lp_grad(p: float) -> Callable[[Any, Values, Any, int], Values]:
    def grad(dy: Any, values: Values, y: Any, count: int) -> Values:
        return [0 if value == 0 else dy * math.copysign((abs(value) / y) ** (p - 1), value) for value in values]

    return grad


def _logsumexp_define(t: float) -> Callable[[Values, int], Any]:
    def define(values: Values, count: int) -> Any:
        most = max(values) if t > 0 else min(values)
        if not math.isfinite(most) or any(value != value for value in values):
            return most if all(value == value for value in values) else math.nan
        return most + math.log(math.fsum(math.exp(t * (value - most)) for value in values)) / t

    return define


def _logsumexp_grad(t: float) -> Callable[[Any, Values, Any, int], Values]:
    def grad(dy: Any, values: Values, y: Any, count: int) -> Values:
        if any(value != value for value in values):
            return [math.nan] * len(values)
        most = max(values) if t > 0 else min(values)
        if math.isinf(most):
            weights = [float(value == most) for value in values]
        else:
            weights = [math.exp(t * (value - most)) for value in values]
        return [dy * weight / math.fsum(weights) for weight in weights]

    return grad


Definition = Callable[[Values, int], Any]
GradDefinition = Callable[[Any, Values, Any, int], Values]


def definition(reducer: Reducer) -> tuple[Definition, GradDefinition]:
    """A reducer's result and gradient on a list of real cells; a user's own reducer is run on the cells alone."""
    if reducer != builtin_reducer(reducer.name):
        return _run_on_cells(reducer)
    name, _, ties = reducer.name.partition("_ties-")
    family = re.fullmatch(r"(lp|logsumexp)(-?[\d.e-]+)", name)
    if family:
        parameter = float(family[2])
        if family[1] == "lp":
            return _lp_define(parameter), _lp_grad(parameter)
        return _logsumexp_define(parameter), _logsumexp_grad(parameter)
    if name in ("max", "min"):
        return _extremum_define(max if name == "max" else min), _extremum_grad(ties or "first")
    if name == "sum":
        return lambda values, count: sum(values), lambda dy, values, y, count: [dy] * len(values)
    return lambda values, count: sum(values) / count, lambda dy, values, y, count: [dy / count] * len(values)


def _run_on_cells(reducer: Reducer) -> tuple[Definition, GradDefinition]:
    def define(values: Values, count: int) -> Any:
        return reducer.reduced(np.array(values)[None], (1,), count)[0]

    def grad(dy: Any, values: Values, y: Any, count: int) -> Values:
        return list(reducer.shares(np.array([dy]), np.array(values)[None], np.array([y]), (1,), count)[0])

    return define, grad


def counted(spec: PoolSpec, position: Ints) -> int:
    """The cells of a window that take part: real ones, or those on the input and its declared padding."""
    if spec.divisor_override is not None:
        return spec.divisor_override
    if not spec.count_include_pad:
        return len(reach(spec, position))
    total = 0
    for tap in product(*map(range, spec.window.kernel_size)):
        inside = True
        for axis, size in enumerate(spec.window.in_size):
            lo, hi = spec.window.padding[axis]
            place = position[axis] * spec.window.stride[axis] + tap[axis] * spec.window.dilation[axis]
            inside = inside and place < lo + size + hi
        total += inside
    return total


def pool(spec: PoolSpec, x: Array, *, out: Array, resources: Resources) -> None:
    """y[n, c, p] = the reducer's definition on the real cells of the window at p."""
    define, _ = definition(spec.reducer)
    for position in product(*map(range, spec.window.out_size)):
        seen = reach(spec, position)
        count = counted(spec, position)
        for n, c in product(range(spec.batch), range(spec.channels)):
            out[n, c, *position] = define([x.item(n, c, *cell) for _, cell in seen], count)


def pool_grad(spec: PoolSpec, dy: Array, x: Array, y: Array, *, out: Array, resources: Resources) -> None:
    """dx[n, c, cell] = the sum, over the windows that hold the cell, of what the reducer's gradient gives it."""
    _, grad = definition(spec.reducer)
    out[...] = 0
    for position in product(*map(range, spec.window.out_size)):
        seen = reach(spec, position)
        count = counted(spec, position)
        for n, c in product(range(spec.batch), range(spec.channels)):
            values = [x.item(n, c, *cell) for _, cell in seen]
            shares = grad(dy.item(n, c, *position), values, y.item(n, c, *position), count)
            for (_, cell), share in zip(seen, shares, strict=True):
                out[n, c, *cell] += share


def prefers(spec: Any, order: Order) -> str:
    """Never by itself."""
    return "the definition, for checking and not for speed"
