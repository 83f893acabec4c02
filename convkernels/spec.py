"""Specs: everything about a problem except its data, validated once, and their text form.

A *problem string* is a spec as text. It names tests and benchmarks, reproduces failures and is the command line's
argument; ``parse_problem(str(spec))`` gives an equal spec. The grammar, by example::

    n1g1i64o64_in56x56_k3x3_s1x1_p1+1x1+1_d1x1                    convolution: batch, groups, input and output channels
    conv_weight_grad:n8g1i3o16_in32_k5_s2_p2+2_d1_bias_float64   another operation, an option, a dtype
    pool:n1c64_in56x56_k2x2_s2x2_p0+0x0+0_d1x1_max_ceil          pools have channels, and options for their kind

`in`, `k`, `s` and `d` hold one number for each spatial axis, joined by "x"; `p` one `lo+hi`, where a negative number
crops. Options stand in the order of the tables below; the dtype stands last and is left out where it is float32.
"""

from __future__ import annotations

import math
import re
import sys
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from .errors import DTypeError, OptionError, ShapeError, UnsupportedError, one_of
from .layout import Array
from .reducers import Count, Reducer, find_reducer
from .window import Ints, Window, per_axis, whole

Shape: TypeAlias = tuple[int, ...]
PADDING_MODES = ("zeros",)


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


def _check_result(shape: Shape, dtype: np.dtype[Any]) -> None:
    if math.prod(shape) * dtype.itemsize > sys.maxsize:
        raise ShapeError(f"the result would have canonical shape {shape}, more than memory can address")


def _check_sizes(name: str, shape: Shape, letters: str) -> None:
    for size, letter in zip(shape, letters, strict=True):
        if size < 1:
            raise ShapeError(f"{name} has size 0 along {letter!r}, must have at least 1")


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
        if padding_mode not in PADDING_MODES:
            raise OptionError(
                f"padding_mode={padding_mode!r} must be one of {one_of(PADDING_MODES, str(padding_mode))}"
            )
        _check_sizes("x", x_shape[1:2], "C")
        _check_sizes("w", w_shape[:2], "OI")
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
        _check_result(spec.y_shape, spec.result_dtype)
        return spec

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
        return _join(channels, self.window, options, self.dtype)


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
        found.check_dtype(dtype)
        if not isinstance(count_include_pad, bool | np.bool_):
            raise OptionError(f"count_include_pad={count_include_pad!r} must be True or False")
        if divisor_override is not None:
            divisor_override = whole("divisor_override", divisor_override)
            if divisor_override < 1:
                raise OptionError(f"divisor_override={divisor_override} must be at least 1")
        if padding_mode not in PADDING_MODES:
            raise OptionError(
                f"padding_mode={padding_mode!r} must be one of {one_of(PADDING_MODES, str(padding_mode))}"
            )
        _check_sizes("x", x_shape[1:2], "C")
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
        _check_result(spec.y_shape, spec.result_dtype)
        empty = window.empty_window()
        if empty:
            axis, output = empty
            raise ShapeError(
                f"window {output} of spatial axis {axis} would hold no cell of the input, only padding "
                f"(in={window.in_size[axis]}, kernel_size={window.kernel_size[axis]}, stride={window.stride[axis]}, "
                f"padding={window.padding[axis]}, dilation={window.dilation[axis]})"
            )
        if found.pad_value is None and window.padded:
            raise UnsupportedError(
                f"reducer {found.name!r} has no pad_value: some windows reach beyond the input (in={window.in_size}, "
                f"kernel_size={window.kernel_size}, padding={window.padding}, ceil_mode={window.ceil_mode})"
            )
        return spec

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

    def with_dtype(self, dtype: np.dtype[Any]) -> PoolSpec:
        """The same problem for another type, such as a wider gradient's."""
        self.reducer.check_dtype(dtype)
        return replace(self, dtype=dtype)

    @cached_property
    def count(self) -> Count:
        """How many cells of each window take part: what a mean divides by."""
        if self.divisor_override is not None:
            return self.divisor_override
        return self.window.cell_counts(include_padding=self.count_include_pad)

    @property
    def flops(self) -> int:
        """One operation for each cell of each window."""
        return math.prod(self.y_shape) * self.window.taps

    def __str__(self) -> str:
        options = [self.reducer.name]
        options += ["ceil"] if self.window.ceil_mode else []
        options += [] if self.count_include_pad else ["nopad"]
        options += [] if self.divisor_override is None else [f"div{self.divisor_override}"]
        return "pool:" + _join(f"n{self.batch}c{self.channels}", self.window, options, self.dtype)


Spec: TypeAlias = ConvSpec | PoolSpec

_SIZES = r"\d+(?:x\d+){0,2}"
_PAIR = r"-?\d+\+-?\d+"
_PROBLEM = re.compile(
    rf"(?:(?P<operation>[a-z_]+):)?(?P<channels>(?:[a-z]\d+)+)_in(?P<in_size>{_SIZES})_k(?P<kernel_size>{_SIZES})"
    rf"_s(?P<stride>{_SIZES})_p(?P<padding>{_PAIR}(?:x{_PAIR}){{0,2}})_d(?P<dilation>{_SIZES})(?P<options>(?:_[a-z0-9.\-]+)*)"
)
DTYPES = {dtype.name: dtype for dtype in map(np.dtype, set(np.sctypeDict.values())) if dtype.kind in "iufc"}
CONV_OPERATIONS = ("conv", "conv_input_grad", "conv_weight_grad")
POOL_OPERATIONS = ("pool", "pool_grad")


def parse_problem(text: str) -> tuple[str, Spec]:
    """Read a problem string.

    Parameters
    ----------
    text : str
        A problem string; see this module's head for the grammar.

    Returns
    -------
    operation : str
        Which operation it is for, "conv" if it does not say.
    spec : ConvSpec or PoolSpec
        The spec that prints as `text`.

    Raises
    ------
    OptionError, ShapeError, DTypeError, UnsupportedError
        If the text is not of that form, or describes a problem that the operation would refuse.

    Examples
    --------
    >>> import convkernels as ck
    >>> operation, spec = ck.parse_problem("n1g1i64o64_in56x56_k3x3_s1x1_p1+1x1+1_d1x1")
    >>> operation, spec.y_shape
    ('conv', (1, 64, 56, 56))
    """
    match = _PROBLEM.fullmatch(str(text))
    if not match:
        raise OptionError(
            f"problem {text!r} is not of the form "
            "[operation:]n1g1i64o64_in56x56_k3x3_s1x1_p1+1x1+1_d1x1[_option...][_dtype]"
        )
    try:
        return _build(match)
    except (OptionError, ShapeError, DTypeError, UnsupportedError) as error:
        raise type(error)(f"problem {text!r}: {error.cause}") from None


def _build(match: re.Match[str]) -> tuple[str, Spec]:
    operation = match["operation"] or "conv"
    channels = re.findall(r"([a-z])(\d+)", match["channels"])
    letters = "".join(letter for letter, _ in channels)
    sizes = [int(size) for _, size in channels]
    in_size, kernel_size = _sizes(match["in_size"]), _sizes(match["kernel_size"])
    geometry: dict[str, Any] = {"stride": _sizes(match["stride"]), "dilation": _sizes(match["dilation"])}
    geometry["padding"] = tuple((int(lo), int(hi)) for lo, hi in re.findall(r"(-?\d+)\+(-?\d+)", match["padding"]))
    for name, entries in {
        "k": kernel_size,
        "s": geometry["stride"],
        "p": geometry["padding"],
        "d": geometry["dilation"],
    }.items():
        if len(entries) != len(in_size):
            raise OptionError(f"{name!r} has {len(entries)} entries, 'in' has {len(in_size)}")
    options = match["options"].split("_")[1:]
    dtype = _take_dtype(options)
    spec: Spec
    if operation in CONV_OPERATIONS:
        _expect(letters, "ngio")
        batch, groups, in_channels, out_channels = sizes
        # Shapes that groups do not divide must fail on the channels, as given, and not on a rounded w.
        for name, size in (("i", in_channels), ("o", out_channels)):
            if groups < 1 or size % groups:
                raise ShapeError(f"{name}{size} must be divisible by g{groups}")
        w_shape = (out_channels, in_channels // groups, *kernel_size)
        spec = ConvSpec.make(
            (batch, in_channels, *in_size), w_shape, dtype, bias=_take("bias", options), groups=groups, **geometry
        )
    elif operation in POOL_OPERATIONS:
        _expect(letters, "nc")
        flags = {"ceil_mode": _take("ceil", options), "count_include_pad": not _take("nopad", options)}
        divisor = next((option for option in options if re.fullmatch(r"div\d+", option)), None)
        if divisor:
            options.remove(divisor)
        reducer = "_".join(options)
        options.clear()
        spec = PoolSpec.make(
            (sizes[0], sizes[1], *in_size),
            dtype,
            kernel_size=kernel_size,
            reducer=reducer,
            divisor_override=int(divisor[3:]) if divisor else None,
            **flags,
            **geometry,
        )
    else:
        raise OptionError(
            f"operation {operation!r} must be one of {one_of((*CONV_OPERATIONS, *POOL_OPERATIONS), operation)}"
        )
    if options:
        raise OptionError(f"option {options[0]!r} is not one of {operation}'s")
    return operation, spec


def _expect(letters: str, wanted: str) -> None:
    if letters != wanted:
        raise OptionError(f"the channels must be given as {'..'.join(wanted)}.., not {'..'.join(letters)}..")


def _sizes(text: str) -> Ints:
    return tuple(map(int, text.split("x")))


def _take(option: str, options: list[str]) -> bool:
    if option in options:
        options.remove(option)
        return True
    return False


def _take_dtype(options: list[str]) -> np.dtype[Any]:
    return DTYPES[options.pop()] if options and options[-1] in DTYPES else np.dtype(np.float32)


def _join(channels: str, window: Window, options: list[str], dtype: np.dtype[Any]) -> str:
    parts = [
        channels,
        "in" + "x".join(map(str, window.in_size)),
        "k" + "x".join(map(str, window.kernel_size)),
        "s" + "x".join(map(str, window.stride)),
        "p" + "x".join(f"{lo}+{hi}" for lo, hi in window.padding),
        "d" + "x".join(map(str, window.dilation)),
        *options,
    ]
    return "_".join(parts if dtype == np.float32 else [*parts, dtype.name])
