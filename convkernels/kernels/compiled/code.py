"""What kernels over rows of numbers are written with: loops that carry values, and rows taken a vector at a time.

The end of a row goes through a mask, so that nothing outside is read or written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from ..norm_blocks import LEAST_EPS
from .values import Numbers, Values


class Code(Numbers):
    """One function, as it is written."""

    def loop(self, start: Any, stop: Any, step: Any, state: Values, body: Callable[..., Values]) -> list[Any]:
        """``for index in range(start, stop, step): state = body(index, *state)``; what the state is at the end."""
        build = self.build
        before, head, inside, after = build.block, *(build.append_basic_block() for _ in range(3))
        build.branch(head)
        build.position_at_end(head)
        index, *carried = (build.phi(value.type) for value in (start, *state))
        build.cbranch(build.icmp_signed("<", index, stop), inside, after)
        build.position_at_end(inside)
        results = body(index, *carried)
        following = build.add(index, step)
        for variable, first, last in zip((index, *carried), (start, *state), (following, *results), strict=True):
            variable.add_incoming(first, before)
            variable.add_incoming(last, build.block)
        build.branch(head)
        build.position_at_end(after)
        return carried

    def each(self, stop: Any, state: Values, body: Callable[..., Values]) -> list[Any]:
        """``for index in range(stop)``."""
        return self.loop(self.word(0), stop, self.word(1), state, body)

    def few(self, count: int, state: Callable[[], Values], go: Callable[[Values, bool], Values]) -> list[Any]:
        """``go(state(), True)``, which adds to `count` wide vectors: by float32's sums of a few numbers, if these do.

        They do if no lane overflows, and `eps` is not so small that it matters what vanishes in float32. Where `wide`
        is not true, ``go(state, wide)`` goes on from a state in float32. The other is looked at behind that, for there
        are no registers for both.
        """
        if self.itemsize == 8:
            return [*go(state(), True)]
        found = go([ir.Constant(self.narrow, [0.0] * self.lanes)] * count, False)

        def widened() -> Values:
            return [
                self.build.fadd(old, self.build.fpext(new, self.wide)) for old, new in zip(state(), found, strict=True)
            ]

        large = self.build.fcmp_ordered(">=", self.number("eps"), self.double(LEAST_EPS))
        holds = self.build.and_(large, self.all_finite(*found))
        return self.choice(holds, widened, lambda: go(state(), True))

    def least(self, first: Any, second: Any) -> Any:
        """The smaller integer."""
        return self.build.select(self.build.icmp_signed("<", first, second), first, second)

    def choice(self, holds: Any, one: Callable[[], Values], other: Callable[[], Values]) -> list[Any]:
        """``one() if holds else other()``."""
        build = self.build
        ways: list[tuple[Values, Any]] = []
        with build.if_else(holds) as (then, otherwise):
            for way, compute in ((then, one), (otherwise, other)):
                with way:
                    ways.append((compute(), build.block))
        chosen = [build.phi(value.type) for value in ways[0][0]]
        for values, block in ways:
            for variable, value in zip(chosen, values, strict=True):
                variable.add_incoming(value, block)
        return chosen

    def narrow_or_wide(self, ordinary: Any, body: Callable[[bool], None]) -> None:
        """``body(False)`` where all is ordinary, ``body(True)`` in float64 where it is not, or the data is."""
        if self.itemsize == 8:
            body(True)
            return
        with self.build.if_else(ordinary) as (then, otherwise):
            with then:
                body(False)
            with otherwise:
                body(True)

    def columns(self, start: Any, stop: Any, unroll: int, state: Values, body: Callable[..., Values]) -> list[Any]:
        """Go over a part of a row: ``state = body(column, mask, *state)``, the mask None where a vector is full.

        `unroll` vectors at a time have states of their own, which need not wait for each other and are added up in the
        end; what a vector takes must not depend on the state.
        """
        build, size = self.build, len(state)
        others = [ir.Constant(value.type, [0.0] * self.lanes) for value in state] * (unroll - 1)

        def several(column: Any, *states: Any) -> list[Any]:
            found: list[Any] = []
            for place in range(unroll):
                found += body(self.at(column, (place, self.lanes)), None, *states[place * size : (place + 1) * size])
            return found

        def one(column: Any, *now: Any) -> Values:
            return body(column, None, *now)

        count = build.sub(stop, start)
        full, end = (build.sub(stop, build.srem(count, self.word(n * self.lanes))) for n in (unroll, 1))
        states = self.loop(start, full, self.word(unroll * self.lanes), [*state, *others], several)
        last = states[:size]
        for place in range(1, unroll):
            last = [build.fadd(a, b) for a, b in zip(last, states[place * size : (place + 1) * size], strict=True)]
        last = self.loop(full, end, self.word(self.lanes), last, one)
        return self._rest(end, stop, last, body)

    def vectors(self, count: Any, state: Values, body: Callable[..., Values]) -> list[Any]:
        """Go over a row a vector at a time: ``state = body(column, mask, *state)``."""
        end = self.build.sub(count, self.build.srem(count, self.word(self.lanes)))
        last = self.loop(self.word(0), end, self.word(self.lanes), state, lambda column, *now: body(column, None, *now))
        return self._rest(end, count, last, body)

    def strips(self, start: Any, stop: Any, many: int, body: Callable[..., None]) -> None:
        """Go over a part of a row `many` vectors at a time: ``body([(column, mask), ...])``; the rest goes together.

        Each time costs as much as some vectors: rows of 49 columns were summed in 11 us one by one, and in 6 so.
        """
        build, count = self.build, self.build.sub(stop, start)

        def some(column: Any, many: int, mask: Any = None) -> Values:
            places = [self.at(column, (place, self.lanes)) for place in range(many)]
            body([*((place, None) for place in places[:-1]), (places[-1], mask)])
            return []

        full = build.sub(stop, build.srem(count, self.word(many * self.lanes)))
        self.loop(start, full, self.word(many * self.lanes), [], lambda column: some(column, many))
        left = build.sub(stop, full)
        for vectors in range(1, many + 1):
            behind = build.sub(left, self.word((vectors - 1) * self.lanes))
            more, enough = (
                build.icmp_signed(sign, behind, self.word(limit)) for sign, limit in ((">", 0), ("<=", self.lanes))
            )
            with build.if_then(build.and_(more, enough)):
                some(full, vectors, self.first_lanes(behind))

    def _rest(self, column: Any, count: Any, state: Values, body: Callable[..., Values]) -> list[Any]:
        """The columns that do not fill a vector, if there are any."""
        mask = self.first_lanes(self.build.sub(count, column))
        return self.loop(column, count, self.word(self.lanes), state, lambda place, *now: body(place, mask, *now))
