"""Specs: everything about a problem except its data, validated once; they print as problem strings."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from .errors import DTypeError, OptionError, ShapeError, one_of
from .grammar import Fields, write
from .layout import Array
from .window import Ints, Pairs, Window, padding_form, per_axis, whole

Shape: TypeAlias = tuple[int, ...]
PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


def compute_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type sums accumulate in: float32 for float16, 64 bits for integers, else the type itself."""
    if dtype.kind == "i":
        return np.dtype(np.int64)
    if dtype.kind == "u":
        return np.dtype(np.uint64)
    return np.dtype(np.float32) if dtype == np.float16 else dtype


def common_dtype(**arrays: Array | None) -> np.dtype[Any]:
    """The type NumPy promotes the arrays to, in native byte order; refuse what has no arithmetic of its own."""
    given = {name: array.dtype for name, array in arrays.items() if array is not None}
    first, *others = given.values()
    if first.kind in "iufc" and first.isnative and all(dtype is first for dtype in others):
        return first
    for name, dtype in given.items():
        if dtype.kind not in "iufc":
            raise DTypeError(f"{name} has dtype {dtype}, must be integer, floating or complex")
    kinds = {dtype.kind for dtype in given.values()}
    if kinds == {"i", "u"} and any(dtype == np.uint64 for dtype in given.values()):
        listed = ", ".join(f"{name} {dtype}" for name, dtype in given.items())
        raise DTypeError(
            f"uint64 mixed with signed integers has no common integer type ({listed}); convert one of them"
        )
    return np.result_type(*given.values()).newbyteorder("=")


def check_result(shape: Shape, dtype: np.dtype[Any]) -> None:
    """Refuse a result that no memory can hold."""
    if math.prod(shape) * dtype.itemsize > sys.maxsize:
        raise ShapeError(f"the result would have canonical shape {shape}, more than memory can address")


def check_sizes(name: str, shape: Shape, letters: str) -> None:
    """Refuse empty axes."""
    for size, letter in zip(shape, letters, strict=True):
        if size < 1:
            raise ShapeError(f"{name} has size 0 along {letter!r}, must have at least 1")


def check_padding_mode(mode: object) -> None:
    """Refuse an unknown padding mode."""
    if mode not in PADDING_MODES:
        raise OptionError(f"padding_mode={mode!r} must be one of {one_of(PADDING_MODES, str(mode))}")


def write_window(channels: str, window: Window, options: list[str], dtype: np.dtype[Any]) -> str:
    """Put a problem string together for a window."""
    sizes = (window.in_size, window.kernel_size, window.stride, window.padding, window.dilation)
    return write(channels, *sizes, options, dtype)


@dataclass(frozen=True)
class ConvSpec:
    """A convolution problem: the shapes, the window and the type of its three operations.

    Examples
    --------
    >>> spec = ConvSpec.make((1, 3, 8, 8), (4, 3, 3, 3), np.dtype("float32"), stride=2, padding="same")
    >>> str(spec), spec.y_shape
    ('n1g1i3o4_in8x8_k3x3_s2x2_p0+1x0+1_d1x1', (1, 4, 4, 4))
    """

    batch: int
    groups: int
    in_channels: int
    out_channels: int
    window: Window
    bias: bool = False
    padding_mode: str = "zeros"
    dtype: np.dtype[Any] = np.dtype(np.float32)  # noqa: RUF009  # immutable

    @classmethod
    def make(
        cls,
        x_shape: Shape,
        w_shape: Shape,
        dtype: np.dtype[Any],
        *,
        bias: bool = False,
        stride: object = 1,
        padding: object = 0,
        dilation: object = 1,
        groups: object = 1,
        padding_mode: object = "zeros",
    ) -> ConvSpec:
        """Validate canonical shapes against each other and the options."""
        groups = whole("groups", groups)
        if groups < 1:
            raise OptionError(f"groups={groups} must be at least 1")
        check_padding_mode(padding_mode)
        check_sizes("x", x_shape[1:2], "C")
        check_sizes("w", w_shape[:2], "OI")
        batch, in_channels, *in_size = x_shape
        out_channels, group_channels, *kernel_size = w_shape
        for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if channels % groups:
                raise ShapeError(f"{name}={channels} must be divisible by groups={groups}")
        if group_channels * groups != in_channels:
            raise ShapeError(
                f"w has {group_channels} input channels in a group, "
                f"must have in_channels/groups={in_channels}/{groups}={in_channels // groups}"
            )
        window = Window.make(
            tuple(in_size), kernel_size=tuple(kernel_size), stride=stride, padding=padding, dilation=dilation
        )
        spec = cls(batch, groups, in_channels, out_channels, window, bias, str(padding_mode), dtype)
        check_result(spec.y_shape, spec.result_dtype)
        return spec

    @classmethod
    def from_fields(cls, fields: Fields) -> ConvSpec:
        """Make the spec that a problem string describes."""
        batch, groups, in_channels, out_channels = fields.sizes("ngio")
        # Channels that groups do not divide must fail as given, and not on a rounded w.
        for name, size in (("i", in_channels), ("o", out_channels)):
            if groups < 1 or size % groups:
                raise ShapeError(f"{name}{size} must be divisible by g{groups}")
        return cls.make(
            (batch, in_channels, *fields.in_size),
            (out_channels, in_channels // groups, *fields.kernel_size),
            fields.dtype,
            bias=fields.take("bias"),
            groups=groups,
            stride=fields.stride,
            padding=fields.padding,
            dilation=fields.dilation,
            padding_mode=fields.padding_mode(),
        )

    @cached_property
    def _hash(self) -> int:
        channels = (self.batch, self.groups, self.in_channels, self.out_channels)
        return hash((channels, self.window, self.bias, self.padding_mode, self.dtype))

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def x_shape(self) -> Shape:
        """Canonical shape of the input."""
        return (self.batch, self.in_channels, *self.window.in_size)

    @cached_property
    def w_shape(self) -> Shape:
        """Canonical shape of the weights."""
        return (self.out_channels, self.in_channels // self.groups, *self.window.kernel_size)

    @cached_property
    def y_shape(self) -> Shape:
        """Canonical shape of the output."""
        return (self.batch, self.out_channels, *self.window.out_size)

    @cached_property
    def group_in(self) -> int:
        """Input channels of one group."""
        return self.in_channels // self.groups

    @cached_property
    def group_out(self) -> int:
        """Output channels of one group."""
        return self.out_channels // self.groups

    @cached_property
    def one_image(self) -> ConvSpec:
        """The problem of a batch of one."""
        return replace(self, batch=1)

    @cached_property
    def extended(self) -> ConvSpec:
        """The problem without padding on the input that the padding mode extends."""
        return replace(self, window=self.window.extended, padding_mode="zeros")

    @cached_property
    def compute_dtype(self) -> np.dtype[Any]:
        """The type in which every array reaches an implementation, and in which it accumulates and writes."""
        return compute_dtype(self.dtype)

    @cached_property
    def result_dtype(self) -> np.dtype[Any]:
        """The type the caller gets."""
        return self.dtype if self.dtype.kind == "f" else self.compute_dtype

    @property
    def flops(self) -> int:
        """Multiplications and additions of the direct method; the same for each of the three operations."""
        return 2 * math.prod(self.y_shape) * self.group_in * self.window.taps

    def __str__(self) -> str:
        options = [
            name for name, chosen in (("bias", self.bias), (self.padding_mode, self.padding_mode != "zeros")) if chosen
        ]
        channels = f"n{self.batch}g{self.groups}i{self.in_channels}o{self.out_channels}"
        return write_window(channels, self.window, options, self.dtype)


@dataclass(frozen=True)
class ConvTransposeSpec:
    """A transposed convolution problem: the transpose of the convolution that takes its output back to its input.

    Parameters
    ----------
    convolution : ConvSpec
        That convolution. Its input has the shape of this problem's output, its weights are the same.
    output_padding : tuple of int
        Cells at the end of the output, of the convolution's input, that may be out of every window's reach.
    bias : bool
        Whether a bias is added.

    Examples
    --------
    >>> spec = ConvTransposeSpec.make((1, 8, 7, 7), (8, 4, 3, 3), np.dtype("float32"), stride=2, padding="same")
    >>> str(spec), spec.y_shape
    ('conv_transpose:n1g1i8o4_in7x7_k3x3_s2x2_p0+1x0+1_d1x1', (1, 4, 14, 14))
    """

    convolution: ConvSpec
    output_padding: Ints
    padding: Pairs
    bias: bool = False

    @classmethod
    def make(
        cls,
        x_shape: Shape,
        w_shape: Shape,
        dtype: np.dtype[Any],
        *,
        bias: bool = False,
        stride: object = 1,
        padding: object = 0,
        output_padding: object = 0,
        output_size: object = None,
        dilation: object = 1,
        groups: object = 1,
    ) -> ConvTransposeSpec:
        """Validate canonical shapes (weights: I, O/groups, spatial) against each other and the options."""
        groups = whole("groups", groups)
        if groups < 1:
            raise OptionError(f"groups={groups} must be at least 1")
        check_sizes("x", x_shape[1:2], "C")
        check_sizes("w", w_shape[:2], "IO")
        batch, in_channels, *in_size = x_shape
        rank = len(in_size)
        if in_channels % groups:
            raise ShapeError(f"in_channels={in_channels} must be divisible by groups={groups}")
        if w_shape[0] != in_channels:
            raise ShapeError(f"w has {w_shape[0]} input channels, must have x's {in_channels}")
        if min(in_size) < 1:
            raise ShapeError(f"the spatial axes have sizes {tuple(in_size)}, each must be at least 1")
        kernel_size = per_axis("kernel_size", w_shape[2:], rank)
        stride, dilation = per_axis("stride", stride, rank), per_axis("dilation", dilation, rank)
        extent = tuple(spread * (taps - 1) + 1 for taps, spread in zip(kernel_size, dilation, strict=True))
        extra = per_axis("output_padding", output_padding, rank, least=0)
        pairs = padding_form(padding, rank)
        if isinstance(pairs, str):
            if any(extra):
                raise OptionError(f"output_padding={output_padding!r} does not go with padding={pairs!r}")
            pairs, extra = _transposed_padding(pairs, extent, stride)
        least = tuple(
            (size - 1) * step - lo - hi + reach
            for size, step, (lo, hi), reach in zip(in_size, stride, pairs, extent, strict=True)
        )
        if output_size is not None:
            if any(extra):
                raise OptionError(f"output_size={output_size!r} does not go with output_padding={extra}")
            wanted = per_axis("output_size", output_size, rank)
            extra = tuple(size - base for size, base in zip(wanted, least, strict=True))
        for axis, (cells, step, spread) in enumerate(zip(extra, stride, dilation, strict=True)):
            if not 0 <= cells < max(step, spread):
                raise OptionError(
                    f"output_padding={cells} along spatial axis {axis} must be at least 0 and below "
                    f"max(stride, dilation)={max(step, spread)} (without it the output has {least[axis]} cells)"
                )
        out_size = tuple(base + cells for base, cells in zip(least, extra, strict=True))
        if min(out_size) < 1:
            raise ShapeError(f"the output would have spatial sizes {out_size}, each must be at least 1")
        # Output padding of a stride or more would let further windows in, which x has no cells for.
        trimmed = tuple(
            (lo, hi - cells // step * step) for (lo, hi), cells, step in zip(pairs, extra, stride, strict=True)
        )
        window = Window(out_size, kernel_size, stride, trimmed, dilation)
        convolution = ConvSpec(batch, groups, w_shape[1] * groups, in_channels, window, dtype=dtype)
        check_result(convolution.x_shape, convolution.result_dtype)
        return cls(convolution, extra, pairs, bias)

    @classmethod
    def from_fields(cls, fields: Fields) -> ConvTransposeSpec:
        """Make the spec that a problem string describes."""
        batch, groups, in_channels, out_channels = fields.sizes("ngio")
        if groups < 1 or out_channels % groups:
            raise ShapeError(f"o{out_channels} must be divisible by g{groups}")
        extra = fields.take_match(r"op(\d+(?:x\d+){0,2})")
        return cls.make(
            (batch, in_channels, *fields.in_size),
            (in_channels, out_channels // groups, *fields.kernel_size),
            fields.dtype,
            bias=fields.take("bias"),
            groups=groups,
            stride=fields.stride,
            padding=fields.padding,
            output_padding=tuple(map(int, extra[1].split("x"))) if extra else 0,
            dilation=fields.dilation,
        )

    @cached_property
    def _hash(self) -> int:
        return hash((self.convolution, self.output_padding, self.padding, self.bias))

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def one_image(self) -> ConvTransposeSpec:
        """The problem of a batch of one."""
        return replace(self, convolution=self.convolution.one_image)

    @property
    def groups(self) -> int:
        """The groups of `convolution`."""
        return self.convolution.groups

    @property
    def window(self) -> Window:
        """The window of `convolution`."""
        return self.convolution.window

    @property
    def x_shape(self) -> Shape:
        """Canonical shape of the input."""
        return self.convolution.y_shape

    @property
    def w_shape(self) -> Shape:
        """Canonical shape of the weights: I, O/groups, spatial."""
        return self.convolution.w_shape

    @property
    def y_shape(self) -> Shape:
        """Canonical shape of the output."""
        return self.convolution.x_shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the data."""
        return self.convolution.dtype

    @property
    def compute_dtype(self) -> np.dtype[Any]:
        """The type in which every array reaches an implementation, and in which it accumulates and writes."""
        return self.convolution.compute_dtype

    @property
    def result_dtype(self) -> np.dtype[Any]:
        """The type the caller gets."""
        return self.convolution.result_dtype

    @property
    def flops(self) -> int:
        """Multiplications and additions of the direct method."""
        return self.convolution.flops

    def __str__(self) -> str:
        conv, window = self.convolution, self.window
        options = ["bias"] if self.bias else []
        if any(self.output_padding):
            options.append("op" + "x".join(map(str, self.output_padding)))
        channels = f"n{conv.batch}g{conv.groups}i{conv.out_channels}o{conv.in_channels}"
        sizes = (window.out_size, window.kernel_size, window.stride, self.padding, window.dilation)
        return "conv_transpose:" + write(channels, *sizes, options, self.dtype)


def _transposed_padding(name: str, extent: Ints, stride: Ints) -> tuple[Pairs, Ints]:
    """The padding and output padding that a name stands for: "same" gives in * stride outputs."""
    if name not in ("valid", "same", "same_lower"):
        raise OptionError(f"padding={name!r} must be numbers or 'valid', 'same' or 'same_lower'")
    if name == "valid":
        return ((0, 0),) * len(extent), (0,) * len(extent)
    pairs = []
    for reach, step in zip(extent, stride, strict=True):
        total = max(reach - step, 0)
        pairs.append((total // 2, total - total // 2) if name == "same" else (total - total // 2, total // 2))
    return tuple(pairs), tuple(max(step - reach, 0) for reach, step in zip(extent, stride, strict=True))
