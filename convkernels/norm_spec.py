"""The specs of normalisations: which cells share their statistics, or which channels a window has."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeGuard

import numpy as np

from .errors import DTypeError, OptionError, ShapeError
from .grammar import Fields
from .spec import Shape, compute_dtype
from .window import Ints, whole

KINDS = ("batch", "group", "instance", "layer", "rms")


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a real number and not a bool."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


@dataclass(frozen=True)
class NormSpec:
    """A normalisation problem.

    Parameters
    ----------
    shape : tuple of int
        Canonical shape of the data, (N, C, spatial).
    kind : str
        "batch" (statistics for each channel), "group" (each sample's group of channels), "instance" (each sample's
        channel), "layer" and "rms" (over `axes`; rms without a mean).
    groups : int
        The number of groups; for an instance norm the channels, else 1.
    axes : tuple of int
        The canonical axes that a layer or rms norm normalises over.
    eps : float
        Added to the variance.
    dtype : dtype
        The type of the data.

    Examples
    --------
    >>> spec = NormSpec.make((8, 64, 28, 28), np.dtype("float32"), kind="group", groups=32)
    >>> str(spec), spec.seen_shape, spec.count
    ('norm:n8c64g32_in28x28_group', (8, 32, 2, 28, 28), 1568)
    """

    shape: Shape
    kind: str
    groups: int
    axes: Ints
    eps: float
    dtype: np.dtype[Any]

    @classmethod
    def make(
        cls,
        shape: Shape,
        dtype: np.dtype[Any],
        *,
        kind: str,
        groups: object = 1,
        axes: Ints | None = None,
        eps: object = 1e-5,
    ) -> NormSpec:
        """Validate a canonical shape and the options."""
        if dtype.kind != "f":
            raise DTypeError(f"x has dtype {dtype}, must be floating")
        if not is_number(eps) or not 0 <= eps < math.inf:
            raise OptionError(f"eps={eps!r} must be a finite number, at least 0")
        channels = shape[1]
        if channels < 1 or any(size < 1 for size in shape[2:]):
            raise ShapeError(f"x has canonical shape {shape}: every axis but the batch must have at least 1")
        count = channels if kind == "instance" else whole("groups", groups)
        if count < 1:
            raise OptionError(f"groups={count} must be at least 1")
        if channels % count:
            raise ShapeError(f"channels={channels} must be divisible by groups={count}")
        free = kind in ("layer", "rms")
        everything = tuple(range(1, len(shape)))
        return cls(shape, kind, count, (everything if axes is None else axes) if free else (), float(eps), dtype)

    @classmethod
    def from_fields(cls, fields: Fields) -> NormSpec:
        """Make the spec that a problem string describes."""
        grouped = [letter for letter, _ in fields.channels] == ["n", "c", "g"]
        sizes = fields.sizes("ncg" if grouped else "nc")
        kind = next((name for name in KINDS if fields.take(name)), "")
        if not kind or grouped != (kind == "group"):
            raise OptionError("a norm is one of batch, instance, layer, rms, or with g.. group")
        axes, eps = fields.take_match(r"axes(\d+(?:\.\d+)*)"), fields.take_match(r"eps([\d.e-]+)")
        return cls.make(
            (*sizes[:2], *fields.in_size),
            fields.dtype,
            kind=kind,
            groups=sizes[2] if grouped else 1,
            axes=tuple(map(int, axes[1].split("."))) if axes else None,
            eps=float(eps[1]) if eps else 1e-5,
        )

    @cached_property
    def seen_shape(self) -> Shape:
        """The shape implementations see: with the channels as (groups, C/groups) where there are groups."""
        if self.kind in ("group", "instance"):
            return (self.shape[0], self.groups, self.shape[1] // self.groups, *self.shape[2:])
        return self.shape

    @cached_property
    def reduced(self) -> Ints:
        """The axes of `seen_shape` that statistics are taken over."""
        if self.kind == "batch":
            return (0, *range(2, len(self.shape)))
        return self.axes or tuple(range(2, len(self.seen_shape)))

    @cached_property
    def statistics_shape(self) -> Shape:
        """The shape of the mean and the variance, with axes of one."""
        return tuple(1 if axis in self.reduced else size for axis, size in enumerate(self.seen_shape))

    @cached_property
    def count(self) -> int:
        """How many cells share their statistics."""
        return math.prod(self.seen_shape[axis] for axis in self.reduced)

    @property
    def x_shape(self) -> Shape:
        """Canonical shape of the input."""
        return self.shape

    @property
    def y_shape(self) -> Shape:
        """Canonical shape of the output."""
        return self.shape

    @property
    def centred(self) -> bool:
        """Whether the mean is taken off."""
        return self.kind != "rms"

    @cached_property
    def compute_dtype(self) -> np.dtype[Any]:
        """The type in which every array reaches an implementation, and in which it writes."""
        return compute_dtype(self.dtype)

    @property
    def result_dtype(self) -> np.dtype[Any]:
        """The type the caller gets."""
        return self.dtype

    @cached_property
    def statistics_dtype(self) -> np.dtype[Any]:
        """The type statistics accumulate in: float64, or wider data's own."""
        return np.result_type(self.dtype, np.float64)

    @property
    def flops(self) -> int:
        """Two operations a cell for each of the mean, the variance and the result."""
        return 6 * math.prod(self.shape)

    def __str__(self) -> str:
        batch, channels, *in_size = self.shape
        group = f"g{self.groups}" if self.kind == "group" else ""
        parts = [f"norm:n{batch}c{channels}{group}", "in" + "x".join(map(str, in_size)), self.kind]
        if self.axes and self.axes != tuple(range(1, len(self.shape))):
            parts.append("axes" + ".".join(map(str, self.axes)))
        if self.eps != 1e-5:
            parts.append(f"eps{self.eps!r}".replace("e+", "e"))
        return "_".join(parts if self.dtype == np.float32 else [*parts, self.dtype.name])


@dataclass(frozen=True)
class LocalNormSpec:
    """A local response normalisation problem.

    Parameters
    ----------
    shape : tuple of int
        Canonical shape of the data, (N, C, spatial).
    size : int
        The channels of a window.
    alpha, beta, bias : float
        ``y = x * (bias + alpha / size * sum of x^2) ** -beta``.
    dtype : dtype
        The type of the data.

    Examples
    --------
    >>> spec = LocalNormSpec.make((1, 96, 27, 27), np.dtype("float32"), size=5, bias=2.0)
    >>> str(spec), spec.before, spec.after
    ('local_response_norm:n1c96_in27x27_size5_bias2.0', 2, 2)
    """

    shape: Shape
    size: int
    alpha: float
    beta: float
    bias: float
    dtype: np.dtype[Any]

    @classmethod
    def make(
        cls,
        shape: Shape,
        dtype: np.dtype[Any],
        *,
        size: object,
        alpha: object = 1e-4,
        beta: object = 0.75,
        bias: object = 1.0,
    ) -> LocalNormSpec:
        """Validate a canonical shape and the options."""
        if dtype.kind != "f":
            raise DTypeError(f"x has dtype {dtype}, must be floating")
        if any(length < 1 for length in shape[1:]):
            raise ShapeError(f"x has canonical shape {shape}: every axis but the batch must have at least 1")
        if whole("size", size) < 1:
            raise OptionError(f"size={size} must be at least 1")
        for name, value in (("alpha", alpha), ("beta", beta), ("bias", bias)):
            if not is_number(value) or not math.isfinite(value):
                raise OptionError(f"{name}={value!r} must be a finite number")
        if alpha < 0:  # type: ignore[operator]
            raise OptionError(f"alpha={alpha!r} must be at least 0")
        if bias <= 0:  # type: ignore[operator]
            raise OptionError(f"bias={bias!r} must be more than 0")
        return cls(shape, whole("size", size), float(alpha), float(beta), float(bias), dtype)  # type: ignore[arg-type]

    @classmethod
    def from_fields(cls, fields: Fields) -> LocalNormSpec:
        """Make the spec that a problem string describes."""
        batch, channels = fields.sizes("nc")
        size = fields.take_match(r"size(\d+)")
        if size is None:
            raise OptionError("a local response norm needs its window: size..")
        taken = {name: fields.take_match(rf"{name}(-?[\d.]+(?:e-?\d+)?)") for name in ("alpha", "beta", "bias")}
        given = {name: float(match[1]) for name, match in taken.items() if match}
        return cls.make((batch, channels, *fields.in_size), fields.dtype, size=int(size[1]), **given)

    def with_dtype(self, dtype: np.dtype[Any]) -> LocalNormSpec:
        """The same problem for data of another type."""
        return replace(self, dtype=dtype)

    @property
    def before(self) -> int:
        """The channels of a window before its cell."""
        return (self.size - 1) // 2

    @property
    def after(self) -> int:
        """The channels of a window after its cell."""
        return self.size // 2

    @property
    def x_shape(self) -> Shape:
        """Canonical shape of the input."""
        return self.shape

    @property
    def y_shape(self) -> Shape:
        """Canonical shape of the output."""
        return self.shape

    @cached_property
    def compute_dtype(self) -> np.dtype[Any]:
        """The type in which an implementation writes."""
        return self.dtype

    @property
    def result_dtype(self) -> np.dtype[Any]:
        """The type the caller gets."""
        return self.dtype

    @cached_property
    def statistics_dtype(self) -> np.dtype[Any]:
        """The type it is computed in: float64, or wider data's own."""
        return np.result_type(self.dtype, np.float64)

    @property
    def flops(self) -> int:
        """Two operations a cell for each channel of the window, and four for the rest."""
        return (2 * self.size + 4) * math.prod(self.shape)

    def __str__(self) -> str:
        batch, channels, *in_size = self.shape
        parts = [f"local_response_norm:n{batch}c{channels}", "in" + "x".join(map(str, in_size)), f"size{self.size}"]
        for name, value, usual in (("alpha", self.alpha, 1e-4), ("beta", self.beta, 0.75), ("bias", self.bias, 1.0)):
            if value != usual:
                parts.append(f"{name}{value!r}".replace("e+", "e"))
        return "_".join(parts if self.dtype == np.float32 else [*parts, self.dtype.name])
