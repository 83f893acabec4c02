"""Gradients of coefficients: the shares of pieces or blocks in them added up, and written in the data's type.

NumPy would take some five calls for each coefficient, 3 to 10 us in all, as much as small norms themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from ...norm_spec import NormSpec
from ...window import Ints
from .code import Code
from .function import Function, Step
from .isa import Isa
from .norm_forms import Columns, Rows
from .tile import compiled

ARGUMENTS = ("shares", "count", "step", "second", "places", "gamma", "beta", "first", "last", "other")
"""What the function takes: where the shares are, how many, from one to the next, from gamma's to beta's, the places of
each, and where the totals go. The rest it makes no use of."""


class Shares(NamedTuple):
    """Shares in both sums as float64 numbers in scratch memory: how many, from one to the next, and to the second."""

    name: str
    number: int
    step: int
    second: int
    gamma_first: bool = True


def add_up(form: Rows | Columns, spec: NormSpec, shares: Shares, later: Sequence[str], isa: Isa) -> Step:
    """Add up shares, where arrays of those names are given, and the totals of gamma and beta behind them."""
    names = {"dgamma": "gamma", "dbeta": "beta"} if shares.gamma_first else {"dgamma": "beta", "dbeta": "gamma"}
    names[shares.name] = "shares"
    arguments = {
        "count": shares.number,
        "step": 8 * shares.step,
        "second": 8 * shares.second,
        "places": math.prod(form.varying),
    }
    function = compiled_for(spec.compute_dtype.itemsize, isa)
    return function.step(
        arguments, [names.get(name, "other") for name in (*later, "dgamma", "dbeta")], 1, 1, ("first", "last")
    )


@lru_cache(maxsize=8)
def compiled_for(itemsize: int, isa: Isa) -> Function:
    """The function, compiled."""
    code = Code("totals", ARGUMENTS, itemsize, isa)
    build = code.build

    def strip(places: list[tuple[Any, Any]]) -> None:
        (place,) = places
        for name, start in (("gamma", code["shares"]), ("beta", build.add(code["shares"], code["second"]))):

            def add(number: Any, total: Any, start: Any = start) -> list[Any]:
                return [build.fadd(total, code.load(code.at(start, (number, code["step"])), *place, code.wide))]

            first = code.load(start, *place, code.wide)
            (total,) = code.loop(code.word(1), code["count"], code.word(1), [first], add)
            code.store(code.fit(total, wide=False), code[name], *place)

    code.strips(code.word(0), code["places"], 1, strip)
    return Function(compiled(code.finish(), "totals", isa), ARGUMENTS)


def leading(alike: Ints, sizes: Ints) -> int | None:
    """How many shares there are, if the axes that are summed over come first; None if not."""
    first = tuple(range(len(alike)))
    return math.prod(sizes[axis] for axis in first) if alike == first else None
