"""Reading the dictionaries that the course passes its settings in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from convkernels.errors import OptionError, one_of

Param = dict[str, Any]


def entry(name: str, param: Mapping[str, Any], key: str) -> Any:
    """Take an entry that must be there.

    Examples
    --------
    >>> entry("conv_param", {"stride": 2, "pad": 1}, "pad")
    1
    """
    if not isinstance(param, Mapping):
        raise OptionError(f"{name} is a {type(param).__name__}, must be a dictionary with the key {key!r}")
    if key not in param:
        raise OptionError(f"{name}={dict(param)!r} must have the key {key!r}")
    return param[key]


def mode_of(name: str, param: Mapping[str, Any]) -> str:
    """Take the mode, "train" or "test"."""
    mode = entry(name, param, "mode")
    if mode not in ("train", "test"):
        raise OptionError(f"{name}['mode']={mode!r} must be one of {one_of(('train', 'test'), str(mode))}")
    return str(mode)
