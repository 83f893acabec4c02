"""The text form of a problem: its grammar, read into fields and written from them.

A *problem string* is a spec as text. It names tests and benchmarks, reproduces failures and is the command line's
argument; ``parse_problem(str(spec))`` gives an equal spec. The grammar, by example::

    n1g1i64o64_in56x56_k3x3_s1x1_p1+1x1+1_d1x1                    convolution: batch, groups, input and output channels
    conv_weight_grad:n8g1i3o16_in32_k5_s2_p2+2_d1_bias_float64   another operation, an option, a dtype
    conv_transpose:n1g1i8o4_in7_k3_s2_p1+1_d1_op1                transposed, with output padding
    pool:n1c64_in56x56_k2x2_s2x2_p0+0x0+0_d1x1_max_ceil          pools have channels, and options for their kind
    norm:n8c64g32_in28x28_group                                  norms have no window
    local_response_norm:n1c96_in27x27_size5_bias2.0              but this one has channels

`in`, `k`, `s` and `d` hold one number for each spatial axis, joined by "x"; `p` one `lo+hi`, where a negative number
crops. Options stand in the order in which the spec writes them; the dtype stands last and is left out where it is
float32.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import OptionError
from .window import Ints, Pairs

_SIZES = r"\d{1,18}(?:x\d{1,18}){0,2}"
_PAIR = r"-?\d{1,18}\+-?\d{1,18}"
_PROBLEM = re.compile(
    rf"(?:(?P<operation>[a-z_]+):)?(?P<channels>(?:[a-z]\d{{1,18}})+)_in(?P<in_size>{_SIZES})(?:_k(?P<kernel_size>{_SIZES})"
    rf"_s(?P<stride>{_SIZES})_p(?P<padding>{_PAIR}(?:x{_PAIR}){{0,2}})_d(?P<dilation>{_SIZES}))?(?P<options>(?:_[a-z0-9.\-]+)*)"
)
DTYPES = {dtype.name: dtype for dtype in map(np.dtype, set(np.sctypeDict.values())) if dtype.kind in "iufc"}


@dataclass
class Fields:
    """What a problem string says, before any of it is understood; options are taken out as they are."""

    operation: str
    channels: list[tuple[str, int]]
    in_size: Ints
    kernel_size: Ints
    stride: Ints
    padding: Pairs
    dilation: Ints
    options: list[str]
    dtype: np.dtype[Any]

    def sizes(self, wanted: str) -> list[int]:
        """The batch and channel counts, whose letters must be those wanted."""
        letters = "".join(letter for letter, _ in self.channels)
        if letters != wanted:
            raise OptionError(f"the channels must be given as {'..'.join(wanted)}.., not {'..'.join(letters)}..")
        return [size for _, size in self.channels]

    def take(self, option: str) -> bool:
        """Whether an option is there; it is taken out."""
        return self.take_match(re.escape(option)) is not None

    def padding_mode(self) -> str:
        """The padding mode, "zeros" unless it is said."""
        mode = self.take_match("reflect|replicate|circular")
        return mode[0] if mode else "zeros"

    def take_match(self, pattern: str) -> re.Match[str] | None:
        """The first option of a form, taken out."""
        for place, option in enumerate(self.options):
            match = re.fullmatch(pattern, option)
            if match:
                del self.options[place]
                return match
        return None


def read(text: str) -> Fields:
    """Take a problem string apart.

    Examples
    --------
    >>> fields = read("pool:n1c64_in56_k2_s2_p0+0_d1_max_float64")
    >>> fields.operation, fields.options, fields.dtype
    ('pool', ['max'], dtype('float64'))
    """
    match = _PROBLEM.fullmatch(str(text))
    windowless = match is not None and "norm" in (match["operation"] or "")
    if match is None or windowless != (match["kernel_size"] is None):
        raise OptionError(
            f"problem {text!r} is not of the form "
            "[operation:]n1g1i64o64_in56x56_k3x3_s1x1_p1+1x1+1_d1x1[_option...][_dtype]"
        )
    options = match["options"].split("_")[1:]
    dtype = DTYPES[options.pop()] if options and options[-1] in DTYPES else np.dtype(np.float32)
    fields = Fields(
        match["operation"] or "conv",
        [(letter, int(size)) for letter, size in re.findall(r"([a-z])(\d+)", match["channels"])],
        _sizes(match["in_size"]),
        _sizes(match["kernel_size"]),
        _sizes(match["stride"]),
        tuple((int(lo), int(hi)) for lo, hi in re.findall(r"(-?\d+)\+(-?\d+)", match["padding"] or "")),
        _sizes(match["dilation"]),
        options,
        dtype,
    )
    given = {"k": fields.kernel_size, "s": fields.stride, "p": fields.padding, "d": fields.dilation}
    for name, entries in given.items():
        if not windowless and len(entries) != len(fields.in_size):
            raise OptionError(f"problem {text!r}: {name!r} has {len(entries)} entries, 'in' has {len(fields.in_size)}")
    return fields


def write(
    channels: str,
    in_size: Ints,
    kernel_size: Ints,
    stride: Ints,
    padding: Pairs,
    dilation: Ints,
    options: Sequence[str],
    dtype: np.dtype[Any],
) -> str:
    """Put a problem string together, but for its operation."""
    parts = [
        channels,
        "in" + _joined(in_size),
        "k" + _joined(kernel_size),
        "s" + _joined(stride),
        "p" + "x".join(f"{lo}+{hi}" for lo, hi in padding),
        "d" + _joined(dilation),
        *options,
    ]
    return "_".join(parts if dtype == np.float32 else [*parts, dtype.name])


def _sizes(text: str | None) -> Ints:
    return tuple(map(int, text.split("x"))) if text else ()


def _joined(sizes: Ints) -> str:
    return "x".join(map(str, sizes))
