"""Saying before a run what it would do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from .call import Call, recording
from .errors import OptionError, UnsupportedError, WorkspaceError, one_of
from .layout import SPATIAL, Layout, data_layout
from .norm_spec import LocalNormSpec, NormSpec
from .operation import Implementation, Operation, Verdict, find_operation
from .plugins import load_plugins
from .pool_spec import PoolSpec
from .problem import Spec, parse_problem
from .public import EXECUTION, PUBLIC


@dataclass(frozen=True)
class Choice:
    """What became of every implementation in one call, and what the one chosen takes.

    Attributes
    ----------
    operation, spec
        The problem.
    order : str
        The memory order: "channels_first", "channels_last" or "other".
    chosen : Implementation or None
        What would run; None if the call would raise.
    error : str
        What the call would raise; empty if it would run.
    verdicts : tuple of Verdict
        For every implementation why it would not run, and the scratch memory in bytes it would take.
    notes : tuple of str
        What to know about the numbers or the settings.
    """

    operation: Operation
    spec: Spec
    order: str
    chosen: Implementation | None
    error: str
    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...]

    @property
    def workspace_bytes(self) -> int:
        """Scratch memory of what would run."""
        return next((verdict.workspace for verdict in self.verdicts if verdict.implementation is self.chosen), 0)

    @property
    def flops(self) -> int:
        """Operations of the direct method."""
        return self.spec.flops

    def __str__(self) -> str:
        problem = str(self.spec).rpartition(":")[2]
        lines = [f"{self.operation.name}:{problem}", f"  {self.order}, {self.flops:,} flops"]
        for verdict in self.verdicts:
            name = verdict.implementation.name
            if verdict.implementation is self.chosen:
                lines.append(f"  -> {name:<14} runs, with {verdict.workspace:,} bytes of workspace")
            else:
                lines.append(f"     {name:<14} {verdict.reason}")
        if self.error:
            lines.append(f"  would raise {self.error}")
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)


@dataclass(frozen=True)
class Explanation:
    """The choices of one public call, in the order they run; prints as text."""

    choices: tuple[Choice, ...]

    def __str__(self) -> str:
        return "\n".join(map(str, self.choices))

    __repr__ = __str__


def explain(call: str, *args: Any, **kwargs: Any) -> Explanation:
    """Say what a call would run and why each other implementation would not, without running it.

    Parameters
    ----------
    call : str
        The name of a public function, such as "conv2d", or a problem string.
    *args, **kwargs
        What that function would be given; for a problem string its execution keywords and `layout`. A ``_vjp`` is
        explained with its gradients.

    Returns
    -------
    Explanation
        One choice for each operation that would run; it prints as text.

    Raises
    ------
    OptionError
        If there is no function of that name and it is no problem string.
    ConvkernelsError
        Whatever the call itself would raise for its arguments.

    Examples
    --------
    >>> import numpy as np
    >>> import convkernels as ck
    >>> explanation = ck.explain("conv2d", np.ones((1, 3, 8, 8)), np.ones((4, 3, 3, 3)), strategy="stride_tricks")
    >>> explanation.choices[0].chosen.name, explanation.choices[0].flops
    ('stride_tricks', 7776)
    >>> print(ck.explain("pool:n1c64_in56x56_k2x2_s2x2_p0+0x0+0_d1x1_lp3"))
    pool:n1c64_in56x56_k2x2_s2x2_p0+0x0+0_d1x1_lp3
      channels_first, 200,704 flops
         direct         declines: reduces by max, min, sum, mean, lp1, lp2, not by 'lp3'
      -> stride_tricks  runs, with 1,605,632 bytes of workspace
         im2col         not preferred: comes later in the list
         naive          not preferred: the definition, for checking and not for speed
      note: stride_tricks has no threads of its own: `threads` is ignored, BLAS runs as it is set
    """
    if call in PUBLIC:
        with recording() as calls:
            result = PUBLIC[call](*args, **kwargs)
            if call.endswith("_vjp"):
                y, *_, vjp = result
                vjp(y)
    elif re.search(r"\d_in\d", str(call)):
        calls = [_problem_call(call, *args, **kwargs)]
    else:
        raise OptionError(
            f"explain: {call!r} is neither a problem string nor one of {one_of(sorted(PUBLIC), str(call))}"
        )
    return Explanation(tuple(map(_choice, calls)))


def _problem_call(problem: str, *, layout: str | None = None, **execution: Any) -> Call:
    """The call that a problem string stands for, on arrays that take no memory."""
    allowed = [key for key in EXECUTION if key != "out"]
    for key in execution:
        if key not in allowed:
            raise TypeError(f"explain() has no keyword {key!r}; there are {one_of((*allowed, 'layout'), key)}")
    name, spec = parse_problem(problem)
    rank = len(spec.x_shape) - 2
    data = data_layout("NC" + SPATIAL[rank] if layout is None else layout, rank)
    x, y = spec.x_shape, spec.y_shape
    if isinstance(spec, NormSpec | LocalNormSpec):
        shapes, result = [x], x
    elif isinstance(spec, PoolSpec):
        shapes, result = ([x], y) if name == "pool" else ([y, x, y], x)
    else:
        w = spec.w_shape
        shapes, result = {"conv_input_grad": ([y, w], x), "conv_weight_grad": ([x, y], w)}.get(name, ([x, w], y))
    arrays = tuple(np.broadcast_to(spec.dtype.type(0), shape) for shape in shapes)
    laid = Layout("OI" + SPATIAL[rank], "OI") if name == "conv_weight_grad" else data
    return Call(find_operation(name), spec, data.order, arrays, result, laid, {**EXECUTION, **execution})


def _choice(call: Call) -> Choice:
    config, error = call.config, ""
    chosen: Implementation | None = None
    try:
        chosen = call.select(config, call.conversion_bytes)
    except (UnsupportedError, WorkspaceError) as refusal:
        error = f"{type(refusal).__name__}: {refusal.cause}"
    verdicts = call.operation.verdicts(
        chosen,
        call.spec,
        call.order,
        call.options["strategy"],
        precision=config.precision,
        limit=config.max_workspace,
        reserved=call.conversion_bytes,
    )
    return Choice(call.operation, call.spec, call.order, chosen, error, tuple(verdicts), tuple(_notes(call, chosen)))


def _notes(call: Call, chosen: Implementation | None) -> list[str]:
    spec, notes = call.spec, []
    if spec.compute_dtype != spec.dtype:
        notes.append(f"{spec.dtype} computes in {spec.compute_dtype} and returns {spec.result_dtype}")
    if chosen is not None:
        if not chosen.uses_threads:
            notes.append(f"{chosen.name} has no threads of its own: `threads` is ignored, BLAS runs as it is set")
        if "nan_strict" not in chosen.claims:
            notes.append(f"{chosen.name} may spread NaN and infinities to neighbouring outputs")
        if "bounded" not in chosen.claims:
            notes.append(f"{chosen.name} does not bound the error of each output by itself")
    notes += [f"plugin {name} failed to load: {reason}" for name, reason in load_plugins().items()]
    return notes
