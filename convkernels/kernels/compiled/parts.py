"""Problems whose weights do not fit the memory that there may be: some of their channels at a time.

Weights in panels, or their gradient's sums, take what they take; all else is worked on in blocks. Those of 7 x 7 taps
from 512 to 1024 channels are 98 MiB in float32. Without parts, NumPy's way was taken: 8 pictures of as many cells took
37 ms, and 10 so, their input gradients 381 and 14, their weight gradients 316 and 8.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Literal, TypeAlias

from ...spec import ConvSpec
from ...views import slices

Needs: TypeAlias = Callable[[ConvSpec, int], int]
Side: TypeAlias = Literal["out_channels", "in_channels"]

MANY = 1024
"""A batch by which to decide what must not depend on it: memory in use grows no further."""
FEWEST = 64
"""Channels of a part at least, and that those of all but the last are a multiple of: some whole panels."""


def of_many(spec: ConvSpec) -> ConvSpec:
    """The problem of a large batch."""
    return replace(spec, batch=MANY)


@dataclass(frozen=True)
class Workspace:
    """The scratch bytes of an operation within a limit, if it may go over the channels on one side in parts."""

    whole: Needs
    side: Side

    def __call__(self, spec: ConvSpec, limit: int) -> int:
        """What the part takes that takes most."""
        return max(self.whole(some, limit) for some in {self.part(spec, each) for each in self.parts(spec, limit)})

    def part(self, spec: ConvSpec, channels: slice) -> ConvSpec:
        """The problem of some channels."""
        count = channels.stop - channels.start
        return spec if count == getattr(spec, self.side) else replace(spec, **{self.side: count})

    @cached_property
    def parts(self) -> Callable[[ConvSpec, int], tuple[slice, ...]]:
        """The channels of as few parts as fit the limit, halved until they do; of groups there is one part."""

        @lru_cache(maxsize=512)
        def found(spec: ConvSpec, limit: int) -> tuple[slice, ...]:
            channels = step = getattr(spec, self.side)
            many = of_many(spec)
            while spec.groups == 1 and step > FEWEST and self.whole(self.part(many, slice(0, step)), limit) > limit:
                step = -(-step // (2 * FEWEST)) * FEWEST
            return tuple(slices(channels, step))

        return found
