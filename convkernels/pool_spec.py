"""The spec of a pooling problem."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from .errors import OptionError, ShapeError, UnsupportedError
from .grammar import Fields
from .reducer import Count, Reducer
from .reducers import builtin_reducer, find_reducer
from .spec import Shape, check_padding_mode, check_result, check_sizes, compute_dtype, write_window
from .window import Tile, Window, per_axis, whole


@dataclass(frozen=True)
class PoolSpec:
    """A pooling problem.

    Examples
    --------
    >>> spec = PoolSpec.make((1, 3, 8, 8), np.dtype("float32"), kernel_size=3, stride=2, reducer="mean")
    >>> str(spec), spec.y_shape
    ('pool:n1c3_in8x8_k3x3_s2x2_p0+0x0+0_d1x1_mean', (1, 3, 3, 3))
    """

    batch: int
    channels: int
    window: Window
    reducer: Reducer
    count_include_pad: bool = True
    divisor_override: int | None = None
    padding_mode: str = "zeros"
    dtype: np.dtype[Any] = np.dtype(np.float32)  # noqa: RUF009  # immutable

    @classmethod
    def make(
        cls,
        x_shape: Shape,
        dtype: np.dtype[Any],
        *,
        kernel_size: object,
        reducer: Reducer | str,
        stride: object = None,
        padding: object = 0,
        dilation: object = 1,
        ceil_mode: object = False,
        count_include_pad: object = True,
        divisor_override: object = None,
        padding_mode: object = "zeros",
    ) -> PoolSpec:
        """Validate a canonical shape and the options."""
        found = find_reducer(reducer)
        if builtin_reducer(found.name) not in (None, found):
            raise OptionError(f"reducer name {found.name!r} is that of a built-in one: give yours another")
        found.check_dtype(dtype)
        if not isinstance(count_include_pad, bool | np.bool_):
            raise OptionError(f"count_include_pad={count_include_pad!r} must be True or False")
        if divisor_override is not None:
            divisor_override = whole("divisor_override", divisor_override)
            if divisor_override < 1:
                raise OptionError(f"divisor_override={divisor_override} must be at least 1")
        check_padding_mode(padding_mode)
        check_sizes("x", x_shape[1:2], "C")
        batch, channels, *in_size = x_shape
        kernel_size = per_axis("window", kernel_size, len(in_size))
        window = Window.make(
            tuple(in_size),
            kernel_size=kernel_size,
            stride=kernel_size if stride is None else stride,
            padding=padding,
            dilation=dilation,
            ceil_mode=ceil_mode,
        )
        spec = cls(batch, channels, window, found, bool(count_include_pad), divisor_override, str(padding_mode), dtype)
        check_result(spec.y_shape, spec.result_dtype)
        seen = window if spec.padding_mode == "zeros" else window.extended
        empty = seen.empty_window()
        if empty:
            axis, output = empty
            raise ShapeError(
                f"window {output} of spatial axis {axis} would hold no cell of the input, only padding "
                f"(in={window.in_size[axis]}, kernel_size={window.kernel_size[axis]}, stride={window.stride[axis]}, "
                f"padding={window.padding[axis]}, dilation={window.dilation[axis]})"
            )
        if found.pad_value is None and seen.padded:
            raise UnsupportedError(
                f"reducer {found.name!r} has no pad_value: some windows reach beyond the input (in={window.in_size}, "
                f"kernel_size={window.kernel_size}, padding={window.padding}, ceil_mode={window.ceil_mode})"
            )
        return spec

    @cached_property
    def one_image(self) -> PoolSpec:
        """The problem of a batch of one."""
        return replace(self, batch=1)

    @cached_property
    def extended(self) -> PoolSpec:
        """The problem on the input that the padding mode extends; only an overhang is still outside."""
        return replace(self, window=self.window.extended, count_include_pad=False, padding_mode="zeros")

    @cached_property
    def x_shape(self) -> Shape:
        """Canonical shape of the input."""
        return (self.batch, self.channels, *self.window.in_size)

    @cached_property
    def y_shape(self) -> Shape:
        """Canonical shape of the output."""
        return (self.batch, self.channels, *self.window.out_size)

    @cached_property
    def compute_dtype(self) -> np.dtype[Any]:
        """The type in which every array reaches an implementation, and in which it accumulates and writes."""
        if self.dtype.kind in "iu" and not self.reducer.widens:
            return self.dtype
        return compute_dtype(self.dtype)

    @cached_property
    def result_dtype(self) -> np.dtype[Any]:
        """The type the caller gets."""
        return self.dtype if self.dtype.kind == "f" else self.compute_dtype

    @classmethod
    def from_fields(cls, fields: Fields) -> PoolSpec:
        """Make the spec that a problem string describes; what is left of the options names the reducer."""
        batch, channels = fields.sizes("nc")
        ceil_mode, count_include_pad = fields.take("ceil"), not fields.take("nopad")
        padding_mode = fields.padding_mode()
        divisor = fields.take_match(r"div(\d+)")
        reducer = "_".join(fields.options)
        fields.options.clear()
        return cls.make(
            (batch, channels, *fields.in_size),
            fields.dtype,
            kernel_size=fields.kernel_size,
            reducer=reducer,
            stride=fields.stride,
            padding=fields.padding,
            dilation=fields.dilation,
            ceil_mode=ceil_mode,
            count_include_pad=count_include_pad,
            divisor_override=int(divisor[1]) if divisor else None,
            padding_mode=padding_mode,
        )

    def with_dtype(self, dtype: np.dtype[Any]) -> PoolSpec:
        """The same problem for another type, such as a wider gradient's."""
        self.reducer.check_dtype(dtype)
        return replace(self, dtype=dtype)

    def count(self, tile: Tile) -> Count:
        """How many cells of each window of a tile take part: what a mean divides by."""
        if self.divisor_override is not None:
            return self.divisor_override
        if not self.reducer.counts:
            return self.window.taps
        include_padding = self.count_include_pad or self.padding_mode != "zeros"
        return self.window.cell_counts(tile, include_padding=include_padding)

    @property
    def flops(self) -> int:
        """One operation for each cell of each window."""
        return math.prod(self.y_shape) * self.window.taps

    def __str__(self) -> str:
        options = [self.reducer.name]
        options += ["ceil"] if self.window.ceil_mode else []
        options += [] if self.count_include_pad else ["nopad"]
        options += [] if self.divisor_override is None else [f"div{self.divisor_override}"]
        options += [] if self.padding_mode == "zeros" else [self.padding_mode]
        return "pool:" + write_window(f"n{self.batch}c{self.channels}", self.window, options, self.dtype)
