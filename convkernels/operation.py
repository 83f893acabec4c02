"""Operations, their implementations, and the choice between them.

An *operation* fixes one signature; an *implementation* is one way of computing it. Implementations get canonical views
with arbitrary strides, all of the spec's ``compute_dtype``, and write every element of `out`:

====================  ==================================================================================
operation             signature
====================  ==================================================================================
``conv``              ``run(spec, x, w, b, *, out, resources)``; `b` is None where the spec has no bias
``conv_input_grad``   ``run(spec, dy, w, *, out, resources)``
``conv_weight_grad``  ``run(spec, x, dy, *, out, resources)``
``conv_transpose``    ``run(spec, x, w, b, *, out, resources)``
``pool``              ``run(spec, x, *, out, resources)``
``pool_grad``         ``run(spec, dy, x, y, *, out, resources)``
``batch_norm``        ``run(spec, x, gamma, beta, mean, var, *, out, resources)``
``batch_norm_train``  ``run(spec, x, gamma, beta, *, out, mean, var, resources)``; `gamma`, `beta` may be None
``group_norm``        the same; layer, instance and rms norms are its cases
``local_response_norm``  ``run(spec, x, *, out, resources)``; its ``_grad`` ``run(spec, dy, x, *, out, resources)``
the norms' ``_grad``  ``run(spec, dy, x, gamma, mean, var, *, out, dgamma, dbeta, resources)``; any of these may be None
====================  ==================================================================================

Norms see arrays of ``spec.seen_shape``, coefficients and statistics with axes of one, in any floating types. The
convolutions' gradients are bilinear as they stand: for complex data the caller conjugates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from threading import RLock
from typing import Any

from .config import Precision
from .errors import OptionError, UnknownStrategyError, UnsupportedError, WorkspaceError, one_of
from .extension import EXTENSIONS
from .layout import Order
from .plugins import load_plugins
from .problem import Spec

CLAIMS = ("exact_on_integers", "batch_invariant", "nan_strict", "bounded", "bounded_tile")
REMEMBERED = 4096
"""Choices that an operation remembers at most."""


def _always(spec: Any, order: Order) -> None:
    return None


def _anything(spec: Any) -> None:
    return None


def no_plan(spec: Any, *arrays: Any, **keywords: Any) -> None:
    """Have no plan."""


def _nothing_needed(spec: Any, limit: int) -> int:
    return 0


@dataclass(frozen=True, eq=False)
class Implementation:
    """One way of computing an operation.

    Parameters
    ----------
    name : str
        What users pass as `strategy`.
    run : callable
        The computation; the operation's row in this module's table gives its signature.
    supports : callable
        ``supports(spec)`` is None, or the reason why it cannot run.
    prefers : callable
        ``prefers(spec, order)`` is None, or the reason why ``strategy="auto"`` should look further.
    workspace : callable
        ``workspace(spec, limit)`` is the scratch memory in bytes that it takes if it may take `limit`: at most
        `limit`, or, where that is too little, the least that would do.
    claims : frozenset of str
        What it promises: "exact_on_integers" (integer-valued floats give exact results), "batch_invariant" (a sample's
        result does not depend on the batch, bit for bit), "nan_strict" (NaN and infinities reach exactly the outputs
        whose windows hold them), "bounded" (each output's error stays within ``n_acc * eps * sum(|x| |w|)``) or
        "bounded_tile" (that bound over the tile computed together).
    uses_threads : bool
        Whether it heeds `threads`.
    padding_modes : bool
        Whether `run` heeds ``spec.padding_mode``. If not, it is run on the extended input, and sees zeros only.
    operation : str
        The name of the operation it is for, which registering it says.
    plan : callable
        ``plan(...)`` takes what `run` does, and is None or a run for arrays that lie alike, wherever they are: it takes
        the arrays, `out` and the other results, by their places, in any order of axes, and uses their addresses alone.
        Sums that `run` adds up in a wider type, as gradients of a norm's coefficients, it writes in the type of `out`.
    keep : callable
        ``keep(...)`` is the same where all arrays but the first stay as they are: the run makes no use of what it is
        given for them.
    """

    name: str
    run: Callable[..., None]
    supports: Callable[[Any], str | None] = _anything
    prefers: Callable[[Any, Order], str | None] = _always
    workspace: Callable[[Any, int], int] = _nothing_needed
    claims: frozenset[str] = frozenset()
    uses_threads: bool = False
    padding_modes: bool = False
    operation: str = ""
    plan: Callable[..., Callable[..., None] | None] = no_plan
    keep: Callable[..., Callable[..., None] | None] = no_plan

    def __post_init__(self) -> None:
        if str(self.name) != self.name or self.name in ("", "auto"):
            raise OptionError(f"strategy name {self.name!r} must be a non-empty string other than 'auto'")
        for name in ("run", "supports", "prefers", "workspace", "plan", "keep"):
            if not callable(getattr(self, name)):
                raise OptionError(f"{name}={getattr(self, name)!r} must be callable")
        for claim in self.claims:
            if claim not in CLAIMS:
                raise OptionError(f"claim {claim!r} must be one of {one_of(CLAIMS, str(claim))}")

    def takes(self, spec: Spec, limit: int, reserved: int) -> int:
        """Scratch bytes, those reserved for conversions included."""
        return reserved + self.workspace(spec, max(0, limit - reserved))

    def declines(self, spec: Spec, precision: Precision) -> str | None:
        """Why it cannot run, or may not at this precision; None if it can."""
        reason = self.supports(spec)
        if reason is None and precision == "highest":
            missing = {"bounded", "batch_invariant"} - self.claims
            if missing:
                return f"precision='highest' needs the claims {' and '.join(sorted(missing))}"
        return reason


@dataclass(frozen=True)
class Verdict:
    """What became of one implementation in a choice; `reason` is empty for the one chosen."""

    implementation: Implementation
    reason: str
    workspace: int


@dataclass(eq=False)
class Operation:
    """One computation with a fixed signature, and its implementations: the preferred first, the definition last.

    `batched` are the places of the arrays that hold an image each; `sums` says that the result sums over them.
    `converts` says that arrays reach implementations in the type that is computed in. `chosen` remembers choices; it is
    another object whenever the list of implementations is another.
    """

    name: str
    implementations: tuple[Implementation, ...] = ()
    batched: tuple[int, ...] = ()
    sums: bool = False
    converts: bool = True
    _lock: RLock = field(default_factory=RLock, repr=False)
    chosen: dict[tuple[Any, ...], Implementation] = field(default_factory=dict, repr=False)

    def names(self) -> tuple[str, ...]:
        """The strategies it has."""
        return tuple(implementation.name for implementation in self.implementations)

    def find(self, name: object) -> Implementation:
        """The implementation of that name; names are exact."""
        for implementation in self.implementations:
            if implementation.name == name:
                return implementation
        load_plugins()
        for implementation in self.implementations:
            if implementation.name == name:
                return implementation
        listed = one_of(("auto", *self.names()), str(name))
        raise UnknownStrategyError(f"strategy={name!r} is not one of {self.name}'s: {listed}")

    def adapted(self, implementation: Implementation) -> Implementation:
        """The implementation made to heed padding modes, if it does not by itself and the operation has them."""
        implementation = replace(implementation, operation=self.name)
        if implementation.padding_modes or self.name not in EXTENSIONS:
            return implementation
        extension = EXTENSIONS[self.name]
        return replace(
            implementation,
            run=extension.run(implementation.run),
            workspace=extension.workspace(implementation.workspace),
            plan=extension.plan(implementation.plan),
            keep=extension.plan(implementation.keep),
            padding_modes=True,
        )

    def fill(self, implementations: Iterable[Implementation]) -> None:
        """Set the list."""
        self._set(tuple(map(self.adapted, implementations)))

    def _set(self, implementations: tuple[Implementation, ...]) -> None:
        # A new dictionary: a choice that is being made among the old ones must not be remembered.
        self.implementations, self.chosen = implementations, {}

    def insert(self, implementation: Implementation, before: str | None) -> Implementation:
        """Take in an implementation, in front of the one named or of all."""
        with self._lock:
            names = self.names()
            if implementation.name in names:
                raise OptionError(f"{self.name} has a strategy {implementation.name!r} already")
            if before is not None and before not in names:
                raise UnknownStrategyError(
                    f"before={before!r} is not one of {self.name}'s: {one_of(names, str(before))}"
                )
            place = 0 if before is None else names.index(before)
            present, adapted = self.implementations, self.adapted(implementation)
            self._set((*present[:place], adapted, *present[place:]))
            return adapted

    def remove(self, name: str) -> None:
        """Drop the implementation of that name."""
        dropped = self.find(name)  # may load plugins, which must not wait for this lock
        with self._lock:
            self._set(tuple(kept for kept in self.implementations if kept is not dropped))

    def select(
        self,
        spec: Spec,
        order: Order,
        strategy: str = "auto",
        *,
        precision: Precision = "default",
        limit: int,
        reserved: int = 0,
    ) -> Implementation:
        """Choose the implementation that runs: the one named, which may decline, or the first that prefers to.

        Of `limit` bytes of scratch memory, `reserved` are taken already. Memory is never short in silence: where an
        implementation would be preferred but for the limit, that is an error and not a slow run. What was chosen is
        remembered: what implementations say of a spec must always be the same.
        """
        remembered, key = self.chosen, (spec, order, strategy, precision, limit, reserved)
        found = remembered.get(key)
        if found is not None:
            return found
        found = self._select(spec, order, strategy, precision, limit, reserved)
        if len(remembered) >= REMEMBERED:
            remembered.clear()
        remembered[key] = found
        return found

    def _select(
        self, spec: Spec, order: Order, strategy: str, precision: Precision, limit: int, reserved: int
    ) -> Implementation:
        if strategy != "auto":
            implementation = self.find(strategy)
            reason = implementation.declines(spec, precision)
            if reason:
                raise UnsupportedError(f"strategy={strategy!r} declines {spec}: {reason}")
            needed = implementation.takes(spec, limit, reserved)
            if needed > limit:
                raise WorkspaceError(
                    f"max_workspace={limit} bytes is too small for strategy={strategy!r}: {needed} would do"
                )
            return implementation
        load_plugins()
        reasons, willing, too_small = [], [], []
        for implementation in self.implementations:
            reason = implementation.declines(spec, precision)
            if reason:
                reasons.append(f"\n  {implementation.name}: {reason}")
                continue
            needed = implementation.takes(spec, limit, reserved)
            if needed > limit:
                too_small.append(needed)
            elif implementation.prefers(spec, order) is None:
                return implementation
            else:
                willing.append(implementation)
        if too_small:
            raise WorkspaceError(
                f"max_workspace={limit} bytes is too small for every fast strategy: {min(too_small)} would do"
            )
        if willing:
            return willing[0]
        raise UnsupportedError(f"no strategy of {self.name} takes {spec}:{''.join(reasons)}")

    def verdicts(
        self,
        chosen: Implementation | None,
        spec: Spec,
        order: Order,
        strategy: str,
        *,
        precision: Precision,
        limit: int,
        reserved: int = 0,
    ) -> list[Verdict]:
        """Say for each implementation why it was not the one chosen."""
        found = []
        for implementation in self.implementations:
            declined = implementation.declines(spec, precision)
            needed = 0 if declined else implementation.takes(spec, limit, reserved)
            if implementation is chosen:
                reason = ""
            elif declined:
                reason = f"declines: {declined}"
            elif needed > limit:
                reason = f"declines: needs {needed} bytes of workspace, max_workspace is {limit}"
            elif strategy != "auto":
                reason = f"not asked for: strategy={strategy!r}"
            else:
                reason = f"not preferred: {implementation.prefers(spec, order) or 'comes later in the list'}"
            found.append(Verdict(implementation, reason, needed))
        return found


CONV = Operation("conv", batched=(0,))
CONV_INPUT_GRAD = Operation("conv_input_grad", batched=(0,))
CONV_WEIGHT_GRAD = Operation("conv_weight_grad", batched=(0, 1), sums=True)
CONV_TRANSPOSE = Operation("conv_transpose", batched=(0,))
POOL = Operation("pool", batched=(0,))
POOL_GRAD = Operation("pool_grad", batched=(0, 1, 2))
BATCH_NORM = Operation("batch_norm", converts=False)
BATCH_NORM_GRAD = Operation("batch_norm_grad", converts=False)
BATCH_NORM_TRAIN = Operation("batch_norm_train", converts=False)
BATCH_NORM_TRAIN_GRAD = Operation("batch_norm_train_grad", converts=False)
GROUP_NORM = Operation("group_norm", converts=False)
GROUP_NORM_GRAD = Operation("group_norm_grad", converts=False)
LOCAL_RESPONSE_NORM = Operation("local_response_norm", converts=False)
LOCAL_RESPONSE_NORM_GRAD = Operation("local_response_norm_grad", converts=False)
OPERATIONS = {
    operation.name: operation
    for operation in (
        *(CONV, CONV_INPUT_GRAD, CONV_WEIGHT_GRAD, CONV_TRANSPOSE, POOL, POOL_GRAD),
        *(BATCH_NORM, BATCH_NORM_GRAD, BATCH_NORM_TRAIN, BATCH_NORM_TRAIN_GRAD, GROUP_NORM, GROUP_NORM_GRAD),
        *(LOCAL_RESPONSE_NORM, LOCAL_RESPONSE_NORM_GRAD),
    )
}


def find_operation(name: object) -> Operation:
    """The operation of that name."""
    if name not in OPERATIONS:
        raise OptionError(f"operation={name!r} must be one of {one_of(OPERATIONS, str(name))}")
    return OPERATIONS[str(name)]


def register(
    operation: str,
    name: str,
    run: Callable[..., None],
    *,
    supports: Callable[[Any], str | None] = _anything,
    prefers: Callable[[Any, Order], str | None] = _always,
    workspace: Callable[[Any, int], int] = _nothing_needed,
    claims: Iterable[str] = (),
    uses_threads: bool = False,
    padding_modes: bool = False,
    before: str | None = None,
) -> Implementation:
    """Plug an implementation into an operation, as a strategy that users can name and "auto" can take.

    Parameters
    ----------
    operation : str
        The name of an operation of the table in `convkernels.operation`.
    name : str
        The strategy's name, which the operation must not have yet.
    run : callable
        The computation, with the operation's signature (see `convkernels.operation`). It gets canonical views of any
        strides and must write every element of `out`.
    supports, prefers, workspace, claims, uses_threads, padding_modes
        As for `Implementation`.
    before : str, optional
        The strategy in front of which it stands when "auto" looks for one. By default it stands first.

    Returns
    -------
    Implementation
        What was registered.

    Raises
    ------
    OptionError
        If the operation is unknown, the name taken, or a claim is none of those that exist.
    UnknownStrategyError
        If `before` names no strategy of the operation.

    Examples
    --------
    >>> import numpy as np
    >>> import convkernels as ck
    >>> def pointwise(spec, x, w, b, *, out, resources):
    ...     np.einsum("nchw,oc->nohw", x, w[:, :, 0, 0], out=out)
    >>> def supports(spec):
    ...     plain = spec.window.taps == 1 and spec.window.rank == 2 and spec.groups == 1 and not spec.bias
    ...     return None if plain and spec.y_shape[2:] == spec.x_shape[2:] else "only plain 1x1 convolutions"
    >>> _ = ck.register("conv", "pointwise", pointwise, supports=supports, before="naive")
    >>> ck.conv2d(np.ones((1, 3, 2, 2)), np.ones((1, 3, 1, 1)), strategy="pointwise")
    array([[[[3., 3.],
             [3., 3.]]]])
    >>> ck.unregister("conv", "pointwise")
    """
    implementation = Implementation(
        name, run, supports, prefers, workspace, frozenset(claims), uses_threads, padding_modes
    )
    return find_operation(operation).insert(implementation, before)


def unregister(operation: str, name: str) -> None:
    """Take a strategy out of an operation again.

    Parameters
    ----------
    operation, name : str
        As given to `register`.

    Raises
    ------
    OptionError, UnknownStrategyError
        If there is no such operation, or no such strategy.

    Examples
    --------
    >>> import convkernels as ck
    >>> _ = ck.register("pool", "mine", lambda spec, x, *, out, resources: None)
    >>> ck.unregister("pool", "mine")
    """
    find_operation(operation).remove(name)
