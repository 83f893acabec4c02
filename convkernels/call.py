"""One run of an operation: its arrays and options, held to what they must be, conversions, and the run itself.

A public function builds a `Call`, which knows the operation, the spec and the canonical arrays, and runs it. The same
function called inside `recording` runs nothing: its calls are collected, which is how `explain` tells what would run.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .config import Config, Resources, get_config
from .errors import DTypeError, IntegerOverflowError, OptionError, OverlapError, ShapeError
from .layout import Array, Layout, Order
from .norm_spec import LocalNormSpec, NormSpec
from .operation import Implementation, Operation, no_plan
from .problem import Spec
from .shortcut import Finish, Made, Run, Shortcut, View, through_views, view_of
from .spec import Shape
from .views import slices
from .window import entries, whole

_recorder: ContextVar[list[Call] | None] = ContextVar("convkernels_recorder", default=None)


@contextmanager
def recording() -> Iterator[list[Call]]:
    """Collect the calls that public functions make in this block instead of running them."""
    calls: list[Call] = []
    token = _recorder.set(calls)
    try:
        yield calls
    finally:
        _recorder.reset(token)


def is_recording() -> bool:
    """Whether calls are collected here, and results are of no account."""
    return _recorder.get() is not None


def as_array(name: str, value: ArrayLike) -> Array:
    """Take an array or anything that makes one, without copying arrays."""
    if type(value) is np.ndarray:
        return value
    if isinstance(value, np.ma.MaskedArray):
        raise DTypeError(f"{name} is a masked array, whose mask would be lost: fill it first")
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ShapeError(f"{name} is no array: {error}") from None


def frozen(name: str, option: object) -> Any:
    """Make an option hashable and its entries ints, so that a spec can be remembered by the options as given.

    Equal keys must mean equal options, but True == 1 == 1.0: inside a sequence only whole numbers pass, and a number
    that stands alone is told apart by its type.
    """
    if type(option) is int or option is None or isinstance(option, bool | np.bool_):
        return option
    if isinstance(option, str):
        return str(option)
    given = entries(option)
    if given is None:
        return whole(name, option)
    return tuple(
        whole(name, entry) if pair is None else tuple(whole(name, number) for number in pair)
        for entry, pair in zip(given, map(entries, given), strict=True)
    )


def flag(name: str, value: object) -> bool:
    """Take a bool."""
    if not isinstance(value, bool | np.bool_):
        raise OptionError(f"{name}={value!r} must be True or False")
    return bool(value)


def check_dy(dy: Array, layout: Layout, y_shape: Shape) -> None:
    """Refuse a gradient that does not have the output's shape."""
    if layout.view(dy, "dy").shape != y_shape:
        raise ShapeError(f"dy has shape {dy.shape}, must have {layout.shape(y_shape)} as the output has")


def check_wrt(wrt: object, names: tuple[str, ...]) -> tuple[str, ...]:
    """Take a choice of gradients."""
    given = tuple(wrt) if isinstance(wrt, Iterable) and not isinstance(wrt, str) else (None,)
    for name in given:
        if name not in names:
            raise OptionError(f"wrt={wrt!r} must be a sequence of {', '.join(map(repr, names))}")
    return given


def magnitude(array: Array) -> int:
    """The largest absolute value of an integer array."""
    return max(abs(int(array.min())), abs(int(array.max()))) if array.size else 0


def check_overflow(bound: int, dtype: np.dtype[Any]) -> None:
    """Refuse integer data whose sums could leave the accumulator."""
    most = int(np.iinfo(dtype).max)
    if bound > most:
        raise IntegerOverflowError(f"sums of this data could reach {bound}, {dtype} holds {most}: convert to float64")


class Instead(NamedTuple):
    """What runs in the place of an implementation, and plans that."""

    chosen: Implementation
    run: Callable[..., None]
    plan: Callable[..., Run | None] = no_plan


@dataclass(eq=False)  # freezing it would take a tenth of a small call's time
class Call:
    """One run of an operation: what to compute, on which arrays, into what.

    Parameters
    ----------
    operation, spec
        What is computed.
    order
        The memory order that the caller's layout stands for.
    arrays
        Canonical views of any type; None for one that is not there.
    shape
        The canonical shape of the result.
    layout
        The layout of the result.
    options
        The keywords of the call.
    bound
        For integers, the largest absolute value that a sum of this data could reach.
    conjugated
        The place of the array that is to be conjugated, if it is complex.
    guarded
        Arrays beside these that the result must not share memory with.
    kept
        The places of arrays that stay in their own type, whatever is computed in.
    seen_shape
        The shape in which implementations see the result, if not its canonical one.
    outputs
        Arrays beside the result that the run fills, by keyword.
    see_output
        What makes of such an array, by its keyword, the view that implementations see.
    sums
        Whether these are sums, in a wider type than the result's, which a plan may write in that type.
    instead
        What runs in the place of an implementation if that is chosen and nothing is converted: what keeps more of the
        run than the result, or needs less for it.
    """

    operation: Operation
    spec: Spec
    order: Order
    arrays: tuple[Array | None, ...]
    shape: Shape
    layout: Layout
    options: Mapping[str, Any]
    bound: Callable[[], int] = lambda: 0
    conjugated: int | None = None
    guarded: tuple[Array, ...] = ()
    kept: tuple[int, ...] = ()
    seen_shape: Shape | None = None
    outputs: Mapping[str, Array | None] = field(default_factory=dict)
    see_output: Callable[[str, Array], Array] = lambda name, array: array
    sums: bool = False
    instead: Instead | None = None

    @property
    def config(self) -> Config:
        """The settings in force for this call."""
        options = self.options
        return get_config().updated(
            max_workspace=options["max_workspace"], threads=options["threads"], precision=options["precision"]
        )

    @property
    def seen_outputs(self) -> dict[str, Array | None]:
        """The arrays beside the result, as implementations see them."""
        return {name: None if each is None else self.see_output(name, each) for name, each in self.outputs.items()}

    def select(self, config: Config, reserved: int) -> Implementation:
        """The implementation that runs, beside so many bytes of conversions."""
        return self.operation.select(
            self.spec,
            self.order,
            self.options["strategy"],
            precision=config.precision,
            limit=config.max_workspace,
            reserved=reserved,
        )

    def run(self) -> Array:
        """Compute, and return the result in the caller's layout."""
        result: Array = self.finished(None, ())
        return result

    def finished(self, finish: Finish | None, given: tuple[Array | None, ...]) -> Any:
        """Compute, and return ``finish(given, result, *outputs)``, which must make no use of other arrays."""
        spec, config = self.spec, self.config
        result = self.checked_out()
        calls = _recorder.get()
        if calls is not None:
            calls.append(self)
            result = np.broadcast_to(spec.result_dtype.type(0), self.layout.shape(self.shape))
            return finish(given, result, *self.outputs.values()) if finish else result
        reserved = self.conversion_bytes
        implementation = self.select(config, reserved)
        if spec.compute_dtype.kind in "iu":
            check_overflow(self.bound(), spec.compute_dtype)
        if result is None:
            result = self.layout.empty(self.shape, spec.result_dtype)
        resources, view = Resources(config.max_workspace - reserved, config.threads), self.layout.view(result)
        if self.seen_shape:
            view = view.reshape(self.seen_shape)  # splits axes, and so is a view
        if reserved:
            self._run_by_image(implementation, view, resources)
        else:
            replaced = self.instead is not None and self.instead.chosen is implementation
            run = self.instead.run if self.instead and replaced else implementation.run
            run(spec, *self.arrays, out=view, resources=resources, **self.seen_outputs)
        returned = finish(given, result, *self.outputs.values()) if finish else result
        runs = self.options.get("runs")
        if runs is not None:
            runs.note(Made(self, result, returned, finish))
        return returned

    def shortcut(
        self, args: tuple[Any, ...], result: Array, finish: Finish | None, *, keep: bool = False
    ) -> Shortcut | None:
        """The short way of this call, which gave that result, if all it took were those arrays.

        It may `keep` what it makes of all but the first of them.
        """
        spec, config, reserved = self.spec, self.config, self.conversion_bytes
        implementation = self.select(config, reserved)
        exact = spec.compute_dtype.kind in "iu"  # whose sums are held to what the type holds, each time
        given, others = args[: len(self.arrays)], args[len(self.arrays) :]
        if exact or reserved or self.options["out"] is not None or any(isinstance(each, np.ndarray) for each in others):
            return None
        given += (None,) * (len(self.arrays) - len(given))
        for array, value in zip(self.arrays, given, strict=True):
            if (array is None) != (value is None) or (array is not None and not _same_start(array, value)):
                return None
        resources = Resources(config.max_workspace, config.threads)
        planned = self._planned(implementation, result, resources, keep=keep)
        run = planned or self._viewed(implementation, given, resources)
        if run is None:
            return None
        outputs = tuple(
            None if each is None else (each.shape, result.dtype if planned and self.sums else each.dtype)
            for each in self.outputs.values()
        )
        return Shortcut(
            *(self.operation, self.operation.chosen, get_config(), run, len(given)),
            *(result.shape, result.dtype, outputs, finish),
        )

    def _planned(
        self, implementation: Implementation, result: Array, resources: Resources, *, keep: bool
    ) -> Run | None:
        """The run of a plan, which takes the caller's own arrays, for it needs no more than their addresses."""
        plans = [implementation.keep, implementation.plan] if keep else [implementation.plan]
        if self.instead is not None and self.instead.chosen is implementation:
            plans = [self.instead.plan]
        out = self.layout.view(result)
        if self.seen_shape:
            out = out.reshape(self.seen_shape)
        found = (plan(self.spec, *self.arrays, out=out, resources=resources, **self.seen_outputs) for plan in plans)
        return next(filter(None, found), None)

    def _viewed(self, implementation: Implementation, given: tuple[Any, ...], resources: Resources) -> Run | None:
        """The run of an implementation that takes the caller's arrays, where it sees views of them."""
        if self.instead:
            return None
        axes = self.layout.permutation
        views = [
            None if array is None else view_of(array, each, axes)
            for array, each in zip(self.arrays, given, strict=True)
        ]
        if any(view is None and each is not None for view, each in zip(views, given, strict=True)):
            return None
        run = functools.partial(implementation.run, self.spec, resources=resources)
        # A result is contiguous, and `seen_shape` only splits its axes, so that its view is no copy.
        result = View(axes, self.seen_shape or self.shape)
        return through_views(run, tuple(views), result, tuple(self.outputs), self.see_output)

    def fill(self) -> None:
        """Compute `outputs` alone, by an implementation that then gets no `out`."""
        config, calls = self.config, _recorder.get()
        if calls is not None:
            calls.append(self)
            return
        resources = Resources(config.max_workspace, config.threads)
        self.select(config, 0).run(self.spec, *self.arrays, out=None, resources=resources, **self.seen_outputs)

    def _converts(self, place: int) -> bool:
        array = self.arrays[place]
        if array is None or place in self.kept:
            return False
        return array.dtype != self.spec.compute_dtype or (place == self.conjugated and array.dtype.kind == "c")

    @property
    def _narrows(self) -> bool:
        return self.spec.result_dtype != self.spec.compute_dtype

    @property
    def conversion_bytes(self) -> int:
        """Scratch memory for arrays in the type that is computed in, an image at a time where they hold images."""
        if not self.operation.converts:
            return 0
        cells, compute = 0, self.spec.compute_dtype
        for place, array in enumerate(self.arrays):
            if array is not None and (array.dtype is not compute or compute.kind == "c") and self._converts(place):
                cells += array.size // (max(1, len(array)) if place in self.operation.batched else 1)
        if cells or self._narrows:
            result = math.prod(self.shape)
            if self.operation.sums:
                cells += 2 * result
            elif self._narrows:
                cells += result // max(1, self.shape[0])
        return cells * self.spec.compute_dtype.itemsize

    def _converted(self, place: int, images: slice) -> Array | None:
        array = self.arrays[place]
        if array is None:
            return None
        array = array[images] if place in self.operation.batched else array
        if place in self.kept:
            return array
        wide = array.astype(self.spec.compute_dtype, copy=False)
        return wide.conj() if place == self.conjugated else wide

    def _run_by_image(self, implementation: Implementation, out: Array, resources: Resources) -> None:
        """Run with a copy of one image at a time; only small arrays are converted whole."""
        assert not isinstance(self.spec, NormSpec | LocalNormSpec), "norms take any type"
        compute, single = self.spec.compute_dtype, self.spec.one_image
        places = range(len(self.arrays))
        whole = {place: self._converted(place, slice(None)) for place in places if place not in self.operation.batched}
        total = np.zeros_like(out, dtype=compute) if self.operation.sums else None
        for image in slices(self.shape[0] if total is None else len(self.arrays[0]), 1):  # type: ignore[arg-type]  # never None
            arrays = [whole[place] if place in whole else self._converted(place, image) for place in places]
            target = out if total is not None else out[image]
            if self._narrows or total is not None:
                target = np.empty_like(target, dtype=compute)
            implementation.run(single, *arrays, out=target, resources=resources)
            if total is not None:
                total += target
            elif self._narrows:
                out[image] = target
            del arrays, target  # before the next are made
        if total is not None:
            out[...] = total

    def checked_out(self) -> Array | None:
        """The caller's `out`, held to what it must be."""
        out = self.options["out"]
        if out is None:
            return None
        shape, dtype = self.layout.shape(self.shape), self.spec.result_dtype
        if not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray):
            raise OptionError(f"out is a {type(out).__name__}, must be an array")
        if out.shape != shape:
            raise ShapeError(f"out has shape {out.shape}, must have {shape}")
        if out.dtype != dtype:
            raise DTypeError(f"out has dtype {out.dtype}, must have {dtype}")
        if not out.flags.writeable:
            raise OptionError("out is read-only, must be writable")
        if self_overlapping(out):
            raise OverlapError(f"out overlaps itself in memory (strides {out.strides}), must not")
        for array in (*self.arrays, *self.guarded):
            if array is not None and overlapping(out, array):
                raise OverlapError("out shares memory with an input, must not")
        return out


def _same_start(array: Array, value: object) -> bool:
    """Whether a value is an array that begins where another does."""
    if not isinstance(value, np.ndarray):
        return False
    return bool(array.__array_interface__["data"][0] == value.__array_interface__["data"][0])


def overlapping(first: Array, second: Array) -> bool:
    """Whether two arrays share an element, or interleave in a way that takes too long to tell."""
    most: Any = 10**6  # of which the stubs of some versions know -1 and 0 alone
    try:
        return np.shares_memory(first, second, max_work=most)
    except np.exceptions.TooHardError:
        return True


def self_overlapping(array: Array) -> bool:
    """Whether two elements may share memory: some stride is shorter than what the shorter strides span.

    Examples
    --------
    >>> self_overlapping(np.zeros((2, 3))), self_overlapping(np.broadcast_to(np.zeros(3), (2, 3)))
    (False, True)
    """
    if not array.size:
        return False
    axes = sorted((abs(stride), size) for stride, size in zip(array.strides, array.shape, strict=True) if size > 1)
    span = array.itemsize
    for stride, size in axes:
        if stride < span:
            return True
        span += stride * (size - 1)
    return False
