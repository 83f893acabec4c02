"""Kinds of the kit's problems, in the words that finish "it is wrong only when ..."."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .course_data import Test


def _window(test: Callable[[Any], bool]) -> Test:
    return lambda problem: hasattr(problem.spec, "window") and test(problem.spec.window)


def _padding(test: Callable[[Any], bool]) -> Test:
    # A transposed convolution's is not that of its window.
    return lambda problem: (
        hasattr(problem.spec, "window") and test(getattr(problem.spec, "padding", problem.spec.window.padding))
    )


def _spec(test: Callable[[Any], bool]) -> Test:
    return lambda problem: test(problem.spec)


REGIMES: dict[str, Test] = {
    "the stride is above 1": _window(lambda window: max(window.stride) > 1 and max(window.out_size) > 1),
    "the padding is above 0": _padding(lambda pairs: any(max(pair) > 0 for pair in pairs)),
    "the padding is 0": _padding(lambda pairs: not any(map(any, pairs))),
    "the padding is negative": _padding(lambda pairs: any(min(pair) < 0 for pair in pairs)),
    "padding differs in front and behind": _padding(lambda pairs: any(lo != hi for lo, hi in pairs)),
    "the dilation is above 1": _window(
        lambda window: any(
            step > 1 and taps > 1 for step, taps in zip(window.dilation, window.kernel_size, strict=True)
        )
    ),
    "the strides differ": _window(lambda window: len(set(window.stride)) > 1),
    "the window is not square": _window(lambda window: len(set(window.kernel_size)) > 1),
    "the window has more than one cell": _window(lambda window: window.taps > 1),
    "the input's spatial sizes differ": _window(lambda window: len(set(window.in_size)) > 1),
    "the output's spatial sizes differ": _window(lambda window: len(set(window.out_size)) > 1),
    "windows are rounded up (ceil_mode)": _window(lambda window: window.ceil_mode),
    "padding is not counted (count_include_pad)": _spec(lambda spec: not getattr(spec, "count_include_pad", True)),
    "there is a padding mode": _spec(lambda spec: getattr(spec, "padding_mode", "zeros") != "zeros"),
    "there is more than one group": _spec(lambda spec: getattr(spec, "groups", 1) > 1),
    "there is a bias": _spec(lambda spec: bool(getattr(spec, "bias", False))),
    "there is no bias": _spec(lambda spec: not getattr(spec, "bias", True)),
    "the batch is empty": _spec(lambda spec: spec.x_shape[0] == 0),
    "there is more than one image": _spec(lambda spec: spec.x_shape[0] > 1),
    "there is more than one channel": _spec(lambda spec: spec.x_shape[1] > 1),
    "there is more than one filter": _spec(lambda spec: spec.y_shape[1] > 1),
    "there are other than two spatial axes": _spec(lambda spec: len(spec.x_shape) != 4),
    "channels do not come first": lambda problem: problem.layout.order != "channels_first",
    "channels do not come last": lambda problem: problem.layout.order != "channels_last",
    "the data are float32": _spec(lambda spec: spec.dtype == np.float32),
    "the data are float64": _spec(lambda spec: spec.dtype == np.float64),
}
