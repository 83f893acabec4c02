"""Which checks an operation's implementations are held to, and the decorator that makes tests of them.

A whole test file:

    import convkernels as ck
    from convkernels.testing import parametrize_with_checks
    from mine import conv

    @parametrize_with_checks([ck.Implementation("mine", conv, operation="conv")])
    def test_conv(check, implementation):
        check(implementation)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from ..errors import OptionError
from ..operation import OPERATIONS, Implementation, find_operation
from . import algebra, checks, large, pooling

F = TypeVar("F", bound=Callable[..., Any])
Check = Callable[[Implementation], None]

CONVOLUTIONS = ("conv", "conv_input_grad", "conv_weight_grad")
LINEAR = (*CONVOLUTIONS, "conv_transpose")
POOLS = ("pool", "pool_grad")
NORM_GRADIENTS = ("batch_norm_grad", "batch_norm_train_grad", "group_norm_grad", "local_response_norm_grad")
EVERY = tuple(OPERATIONS)
BY_SAMPLE = tuple(
    name for name in EVERY if name not in ("conv_weight_grad", "batch_norm_train", "batch_norm_train_grad")
)

CHECKS: tuple[tuple[Check, tuple[str, ...], str], ...] = (
    (checks.check_declines_with_a_reason, EVERY, ""),
    (checks.check_matches_definition_exactly, LINEAR + POOLS, "exact_on_integers"),
    (checks.check_stays_within_error_bound, EVERY, ""),
    (checks.check_fills_every_output_element, EVERY, ""),
    (checks.check_touches_nothing_outside_out, EVERY, ""),
    (checks.check_leaves_inputs_unchanged, EVERY, ""),
    (checks.check_accepts_any_strides, EVERY, ""),
    (checks.check_same_in_every_layout, EVERY, ""),
    (algebra.check_is_linear_in_x, LINEAR, "exact_on_integers"),
    (algebra.check_is_linear_in_w, LINEAR, "exact_on_integers"),
    (algebra.check_commutes_with_shifts, ("conv", "conv_transpose"), "exact_on_integers"),
    (algebra.check_groups_equal_separate_convolutions, LINEAR, "exact_on_integers"),
    (algebra.check_dilation_equals_zero_stuffed_weight, CONVOLUTIONS, "exact_on_integers"),
    (checks.check_handles_empty_batch, LINEAR + POOLS, ""),
    (checks.check_keeps_dtype, LINEAR + POOLS[:1], "exact_on_integers"),
    (checks.check_repeats_bitwise, EVERY, ""),
    (checks.check_batch_invariant, BY_SAMPLE, "batch_invariant"),
    (checks.check_nan_strict, EVERY, "nan_strict"),
    (checks.check_stays_within_workspace, EVERY, ""),
    (large.check_measured_workspace, EVERY, ""),
    (large.check_agrees_on_large_problems, EVERY, ""),
    (algebra.check_input_grad_is_adjoint, ("conv_input_grad", "conv_transpose"), "exact_on_integers"),
    (algebra.check_weight_grad_is_adjoint, ("conv_weight_grad",), "exact_on_integers"),
    (algebra.check_gradient_matches_differences, ("pool_grad", *NORM_GRADIENTS), ""),
    (pooling.check_padding_is_neutral, POOLS, ""),
    (pooling.check_counts_what_it_says, POOLS, "exact_on_integers"),
    (pooling.check_gives_ties_what_their_rule_says, ("pool_grad",), "exact_on_integers"),
)
"""Each check, the operations it is for, and the claim without which it does not apply."""


def checks_for(operation: str, claims: Iterable[str] | None = None) -> list[Check]:
    """The checks of an operation's implementations.

    Parameters
    ----------
    operation : str
        The operation's name.
    claims : iterable of str, optional
        What the implementation claims; checks of other claims are left out. By default none is.

    Returns
    -------
    list of callable
        Each takes an implementation, and raises an AssertionError if something is wrong.

    Examples
    --------
    >>> [check.__name__ for check in checks_for("conv")][:2]
    ['check_declines_with_a_reason', 'check_matches_definition_exactly']
    """
    find_operation(operation)
    held = None if claims is None else set(claims)
    return [
        check
        for check, operations, claim in CHECKS
        if operation in operations and (held is None or not claim or claim in held)
    ]


def parametrize_with_checks(
    implementations: Iterable[Implementation], *, expected_failures: Mapping[str, str] | None = None
) -> Callable[[F], F]:
    """Make a test of each check of each implementation; the function takes `check` and `implementation`.

    Parameters
    ----------
    implementations : iterable of Implementation
        Registered ones, or ones whose `operation` says what they are for.
    expected_failures : mapping, optional
        For checks that are known to fail, by name, why: their tests must fail.

    Returns
    -------
    callable
        A decorator for a function that pytest collects.

    Examples
    --------
    >>> import convkernels as ck
    >>> from convkernels.operation import CONV
    >>> @parametrize_with_checks([CONV.find("im2col")])
    ... def test_conv(check, implementation):
    ...     check(implementation)
    """
    import pytest  # noqa: PLC0415  # whoever decorates tests has it, whoever runs checks may not

    reasons, known = dict(expected_failures or {}), {check.__name__ for check, *_ in CHECKS}
    for name in reasons:
        if name not in known:
            raise OptionError(f"expected_failures names {name!r}, which is no check")
    cases = []
    for implementation in implementations:
        for check in checks_for(implementation.operation, implementation.claims):
            name = check.__name__
            marks = [pytest.mark.xfail(reason=reasons[name], strict=True)] if name in reasons else []
            title = f"{implementation.operation}-{implementation.name}-{name.removeprefix('check_')}"
            cases.append(pytest.param(check, implementation, id=title, marks=marks))
    return pytest.mark.parametrize(("check", "implementation"), cases)
