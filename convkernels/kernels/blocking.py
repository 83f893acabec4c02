"""How much to work on at a time, so that scratch memory stays under the cap and, better, in the cache.

Every NumPy implementation walks over blocks: some images, some groups (or channels), and a tile of the output area.
`choose` takes the largest block that fits. Its tile depends on the problem's sizes but never on the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product
from typing import NamedTuple

from ..views import slices
from ..window import Ints, Pairs, Tile, Window

TARGET = 4 * 2**20
"""Bytes of scratch to work in where more is allowed: 1 to 16 MiB differed by 2 %, 0.5 MiB cost 5 % (2 MiB of L2)."""

ENOUGH = 256
"""Outputs in a tile below which `TARGET` does not shrink it further: a product this thin runs slower."""


class Part(NamedTuple):
    """A tile of the outputs, the cells it reads, and the window problem between the two."""

    tile: Tile
    cells: Tile
    window: Window


@dataclass(frozen=True)
class Block:
    """The largest amounts worked on at a time, and the scratch memory that takes."""

    window: Window
    images: int
    groups: int
    tile: Ints
    bytes: int

    @cached_property
    def _axes(self) -> list[list[tuple[slice, slice, int, tuple[int, int]]]]:
        # A large area has thousands of tiles, but each axis few pieces and few that differ in more than their place.
        window = self.window
        return [
            [(part, *window.restrict_axis(axis, part)) for part in slices(size, step)]
            for axis, (size, step) in enumerate(zip(window.out_size, self.tile, strict=True))
        ]

    def parts(self) -> Iterator[Part]:
        """Cut the area into tiles, in row-major order."""
        for pieces in product(*self._axes):
            tile, cells, sizes, padding = zip(*pieces, strict=True)
            yield Part(tile, cells, _part_window(self.window, sizes, padding))

    def walk(self, batch: int, groups: int) -> Iterator[tuple[slice, slice, Part]]:
        """Every block of the problem, the groups outermost."""
        for group_slice in slices(groups, self.groups):
            for image_slice, part in self.images_and_parts(batch):
                yield image_slice, group_slice, part

    def images_and_parts(self, batch: int) -> Iterator[tuple[slice, Part]]:
        """Every block of one block of groups."""
        for image_slice in slices(batch, self.images):
            for part in self.parts():
                yield image_slice, part


@lru_cache(maxsize=4096)
def _part_window(window: Window, sizes: Ints, padding: Pairs) -> Window:
    return Window(sizes, window.kernel_size, window.stride, padding, window.dilation)


def choose(batch: int, groups: int, window: Window, cost: Callable[[Ints], int], limit: int, fixed: int = 0) -> Block:
    """Fit a block into `limit` bytes, where a tile of one image and one group costs ``cost(tile)``.

    Each group costs `fixed` bytes besides, whatever the images and the tile. If not even one output fits, the block is
    that one output, and its `bytes` exceed the limit.
    """
    tile = list(window.out_size)

    def shrink(most: int, fewest: int) -> None:
        # The leading axes first: rows stay whole as long as they can, so that copies have long runs.
        for axis in range(len(tile)):
            while tile[axis] > 1 and math.prod(tile) > fewest and cost(tuple(tile)) > most:
                tile[axis] = -(-tile[axis] // 2)

    shrink(min(limit - fixed, TARGET), ENOUGH)
    shrink(limit - fixed, 1)
    single = max(1, cost(tuple(tile)))
    uncut = tuple(tile) == window.out_size
    group_count = max(1, min(groups, TARGET // single, limit // (single + fixed))) if uncut else 1
    room = min(TARGET, limit - fixed * group_count) // (single * group_count)
    images = max(1, min(batch, room)) if uncut and group_count == groups else 1
    return Block(window, images, group_count, tuple(tile), (single * images + fixed) * group_count)


def padded_cells(window: Window, tile: Ints) -> int:
    """The input cells that a tile of this size reads at most, padding included; 0 if the problem pads nothing."""
    if not window.padded:
        return 0
    return math.prod(
        (size - 1) * step + extent for size, step, extent in zip(tile, window.stride, window.extent, strict=True)
    )
