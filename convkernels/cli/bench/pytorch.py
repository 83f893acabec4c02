"""PyTorch, in each of its memory formats."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch

from convkernels.layout import Array

from .contestant import Contestant
from .task import Task, even_padding

# Its operators are made at run time, so that no type is known of them.
aten = cast(Any, torch.ops.aten)

Run = Callable[[], Any]
Tensors = dict[str, Any]


class PyTorch:
    """A peer that computes everything, both ways."""

    name = "PyTorch"

    def version(self) -> str:
        """Return its version."""
        return str(torch.__version__)

    @contextmanager
    def session(self, threads: int) -> Iterator[None]:
        """Set its threads, and tell it that no gradients are to be recorded."""
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            with torch.inference_mode():
                yield
        finally:
            torch.set_num_threads(before)

    def contestants(self, task: Task, threads: int) -> Iterator[Contestant]:
        """Yield the task with its data in each memory format."""
        del threads  # set for the session
        maker = _MAKERS[task.operation]
        # One spatial axis becomes two, as it does within PyTorch, for else there would be no memory formats.
        arrays = {role: array[:, :, None] if array.ndim == 3 else array for role, array in task.arrays.items()}
        tensors = {role: torch.from_numpy(np.ascontiguousarray(array)) for role, array in arrays.items()}
        if task.operation == "group_norm" and task.spec.kind == "layer":
            if task.spec.axes == (1,):
                yield Contestant(self.name, "channels last", *_layer_norm(task, tensors))
            return
        last = torch.channels_last_3d if task.rank == 3 else torch.channels_last
        for variant, memory in {"contiguous": torch.contiguous_format, "channels last": last}.items():
            laid = {
                role: tensor.contiguous(memory_format=memory) if tensor.ndim > 1 else tensor
                for role, tensor in tensors.items()
            }
            run = maker(task, laid)
            if run is None:
                return
            yield Contestant(self.name, variant, run, lambda found: _canonical(found, task.rank))


def _canonical(found: Any, rank: int) -> tuple[Array, ...]:
    listed = found if isinstance(found, tuple | list) else [found]
    arrays = [tensor.numpy() for tensor in listed if tensor is not None]
    return tuple(array.squeeze(2) if rank == 1 and array.ndim == 4 else array for array in arrays)


def _two(sizes: Sequence[int], fill: int) -> list[int]:
    """Sizes of two spatial axes, where there was one."""
    return [fill, *sizes] if len(sizes) == 1 else list(sizes)


def _conv(task: Task, given: Tensors) -> Run | None:
    spec, window = task.spec, task.spec.window
    transposed = task.operation == "conv_transpose"
    if transposed:
        pairs = spec.padding
        padding = [lo for lo, _ in pairs] if all(lo == hi >= 0 for lo, hi in pairs) else None
        extra = spec.output_padding
    else:
        padding, extra = even_padding(window), (0,) * task.rank
    if padding is None:
        return None
    geometry = (
        *(_two(window.stride, 1), _two(padding, 0), _two(window.dilation, 1)),
        *(transposed, _two(extra, 0), spec.groups),
    )
    if task.direction == "forward":
        return lambda: torch.convolution(given["x"], given["w"], None, *geometry)
    place = {"input_grad": 0, "weight_grad": 1}[task.direction]
    wanted = [place == 0, place == 1, False]
    return lambda: aten.convolution_backward(given["dy"], given["x"], given["w"], None, *geometry, wanted)[place]


def _pool(task: Task, given: Tensors) -> Run | None:
    window, padding = task.spec.window, even_padding(task.spec.window)
    if padding is None or task.rank > 2:
        return None
    sizes = _two(window.kernel_size, 1), _two(window.stride, 1), _two(padding, 0)
    if task.spec.reducer.name == "mean":
        counting = (False, task.spec.count_include_pad, task.spec.divisor_override)
        if task.direction == "forward":
            return lambda: aten.avg_pool2d(given["x"], *sizes, *counting)
        return lambda: aten.avg_pool2d_backward(given["dy"], given["x"], *sizes, *counting)
    dilation = _two(window.dilation, 1)
    if task.direction == "forward":
        return lambda: torch.max_pool2d(given["x"], *sizes, dilation)
    _, indices = aten.max_pool2d_with_indices(given["x"], *sizes, dilation)
    return lambda: aten.max_pool2d_with_indices_backward(given["dy"], given["x"], *sizes, dilation, False, indices)


def _batch_norm(task: Task, given: Tensors) -> Run:
    x, gamma, beta = (given[role] for role in ("x", "gamma", "beta"))
    if task.direction == "forward":
        return lambda: torch.native_batch_norm(x, gamma, beta, None, None, True, 0.0, task.spec.eps)[0]
    _, mean, scale = torch.native_batch_norm(x, gamma, beta, None, None, True, 0.0, task.spec.eps)
    return lambda: aten.native_batch_norm_backward(
        given["dy"], x, gamma, None, None, mean, scale, True, task.spec.eps, [True] * 3
    )


def _group_norm(task: Task, given: Tensors) -> Run | None:
    if task.spec.kind != "group":
        return None
    x, gamma, beta = (given[role] for role in ("x", "gamma", "beta"))
    batch, channels, *sizes = x.shape
    geometry = batch, channels, int(np.prod(sizes)), task.spec.groups
    if task.direction == "forward":
        return lambda: torch.native_group_norm(x, gamma, beta, *geometry, task.spec.eps)[0]
    _, mean, scale = torch.native_group_norm(x, gamma, beta, *geometry, task.spec.eps)
    return lambda: aten.native_group_norm_backward(given["dy"], x, mean, scale, gamma, *geometry, [True] * 3)


def _layer_norm(task: Task, given: Tensors) -> tuple[Run, Callable[[Any], tuple[Array, ...]]]:
    """Normalise over the last axis, where PyTorch wants the channels to be."""
    x, gamma, beta = given["x"].movedim(1, -1).contiguous(), given["gamma"], given["beta"]
    shape = [x.shape[-1]]

    def canonical(found: Any) -> tuple[Array, ...]:
        return _canonical(tuple(t.movedim(-1, 1) if t.ndim > 1 else t for t in found), task.rank)

    if task.direction == "forward":
        return lambda: torch.native_layer_norm(x, shape, gamma, beta, task.spec.eps)[:1], canonical
    _, mean, scale = torch.native_layer_norm(x, shape, gamma, beta, task.spec.eps)
    dy = given["dy"].movedim(1, -1).contiguous()
    return (
        lambda: aten.native_layer_norm_backward(dy, x, shape, mean, scale, gamma, beta, [True] * 3),
        canonical,
    )


_MAKERS: dict[str, Callable[[Task, Tensors], Run | None]] = {
    "conv": _conv,
    "conv_transpose": _conv,
    "pool": _pool,
    "batch_norm_train": _batch_norm,
    "group_norm": _group_norm,
}
