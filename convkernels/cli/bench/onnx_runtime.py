"""ONNX Runtime, forward in float32: a model of one operator, whose weights are constants that it may rearrange."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import onnxruntime

from . import onnx_model
from .contestant import Contestant
from .task import Task

LEVELS = {
    "blocked channels": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    "plain channels": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
}
"""With its own blocked layout, into which and out of which it copies, and without."""


class OnnxRuntime:
    """A peer that infers."""

    name = "ONNX Runtime"

    def version(self) -> str:
        """Return its version."""
        return str(onnxruntime.__version__)

    @contextmanager
    def session(self, threads: int) -> Iterator[None]:
        """Set nothing: a model's threads are its own."""
        del threads
        yield

    def contestants(self, task: Task, threads: int) -> Iterator[Contestant]:
        """Yield the model at each level of optimisation."""
        if task.direction != "forward" or task.spec.dtype != np.float32:
            return
        model = onnx_model.make(task)
        if model is None:
            return
        for variant, level in LEVELS.items():
            run = partial(_session(model.text, level, threads).run, None, {"x": model.x})
            yield Contestant(self.name, variant, run, model.canonical)


def _session(model: bytes, level: Any, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
