"""What several test files share: laying canonical data out, calling the library for a spec, loading a script."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

import convkernels as ck
from convkernels.layout import Array, Layout

STRATEGIES = ("im2col", "stride_tricks")


def lay(canonical: Array, layout: Layout) -> Array:
    """A contiguous copy in the layout's own order."""
    return np.ascontiguousarray(layout.restore(canonical))


def conv_options(spec: ck.ConvSpec, layout: Layout, weight_layout: Layout) -> dict[str, Any]:
    """The keywords that pose a spec's problem."""
    window = spec.window
    return {
        "stride": window.stride,
        "padding": window.padding,
        "dilation": window.dilation,
        "groups": spec.groups,
        "padding_mode": spec.padding_mode,
        "layout": layout.axes,
        "weight_layout": weight_layout.axes,
    }


def pool_options(spec: ck.PoolSpec, layout: Layout) -> dict[str, Any]:
    """The keywords that pose a spec's problem, but for the window and the reducer."""
    window = spec.window
    return {
        "stride": window.stride,
        "padding": window.padding,
        "dilation": window.dilation,
        "ceil_mode": window.ceil_mode,
        "count_include_pad": spec.count_include_pad,
        "divisor_override": spec.divisor_override,
        "padding_mode": spec.padding_mode,
        "layout": layout.axes,
    }


def load_script(path: str) -> ModuleType:
    """Import a file of `benchmarks`, as if PyTorch were not there."""
    file = Path(__file__).parents[1] / "benchmarks" / path
    spec = spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    with patch.dict(sys.modules, {"torch": None}):
        spec.loader.exec_module(module)
    return module


def assert_refused(call: Callable[[], object], error: type[Exception], message: str) -> None:
    """The call raises just this error, and says just that."""
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    assert str(caught.value) == message
