"""The kit catches every planted mistake on a problem of a few cells, and finds nothing wrong with what is right."""

from __future__ import annotations

import bases
import numpy as np
import planted_convolutions
import planted_gradients
import planted_manners
import planted_norms
import planted_pools
import pytest
from hypothesis import Phase, settings
from planted import Bug

from convkernels.operation import OPERATIONS
from convkernels.testing import KernelError, checks_for
from convkernels.testing.harness import sampling

BUGS = [
    bug
    for module in (planted_convolutions, planted_gradients, planted_pools, planted_norms, planted_manners)
    for bug in vars(module).values()
    if isinstance(bug, Bug)
]
SEEDS = range(1, 11)


def arrays_of(problem):
    return [array for array in problem.arrays.values() if array is not None]


@pytest.mark.parametrize("bug", BUGS, ids=str)
def test_a_planted_mistake_is_caught_on_a_problem_of_a_few_cells(bug):
    with sampling(seed=0, max_examples=200, database=None), pytest.raises(KernelError, match=bug.says) as caught:
        bug.check(bug.implementation)
    error = caught.value
    assert error.implementation == bug.implementation.name
    assert f"check_{error.check}" == bug.check.__name__
    assert f"problem: {error.problem}\n" in str(error)
    if bug.cells:
        assert sum(array.size for array in arrays_of(error.problem)) <= bug.cells
        assert len(arrays_of(error.problem)[0]) <= 2


@pytest.mark.parametrize("bug", BUGS, ids=str)
def test_a_planted_mistake_is_caught_whatever_the_seed(bug):
    for seed in SEEDS:
        with (
            sampling(seed=seed, max_examples=200, database=None, phases=(Phase.generate,)),
            pytest.raises(KernelError, match=bug.says),
        ):
            bug.check(bug.implementation)


def test_mistakes_are_planted_in_every_operation():
    assert {bug.implementation.operation for bug in BUGS} == set(OPERATIONS)
    assert len({str(bug) for bug in BUGS}) == len(BUGS)


def test_every_check_catches_a_planted_mistake():
    assert {bug.check for bug in BUGS} == {check for operation in OPERATIONS for check in checks_for(operation)}


# What is right


def with_a_term_that_is_zero(spec, dy, x, gamma, mean, var, *, out, dgamma, dbeta, resources):
    """The variance's own gradient by the mean is a multiple of the sum of x - mean."""
    bases.norm_grad(spec, dy, x, gamma, mean, var, out=out, dgamma=dgamma, dbeta=dbeta)
    out += bases.centred(spec, x, mean).mean(spec.reduced, keepdims=True) * spec.centred


def in_float64(spec, x, w, b, *, out, resources):
    wide = np.float64 if out.dtype.kind == "f" else out.dtype
    bases.conv(spec, x.astype(wide), w.astype(wide), b, out=out)


def from_the_last_tap_to_the_first(spec, x, *, out, resources):
    cells = bases.pooled(spec, x, bases.identity(spec))
    out[...] = bases.reduced(spec, cells[..., ::-1], spec.count(spec.window.whole))


def for_few_problems(spec, x, w, b, *, out, resources):
    assert spec.window.rank == 1
    bases.conv(spec, x, w, b, out=out)


RIGHT = [
    *(bases.based(operation) for operation in OPERATIONS),
    bases.based("group_norm_grad", with_a_term_that_is_zero),
    bases.based("conv", in_float64),
    bases.based("pool", from_the_last_tap_to_the_first),
    bases.based("conv", for_few_problems, supports=lambda spec: None if spec.window.rank == 1 else "1-D only"),
]
EXAMPLES = 100 if settings.default.max_examples >= 1000 else 10
"""Of each check, which are 20,000 or more in the profile `thorough`."""


@pytest.mark.parametrize("right", RIGHT, ids=lambda right: f"{right.operation}-{right.name}")
def test_what_is_right_passes_every_check(right):
    for check in checks_for(right.operation, right.claims):
        with sampling(max_examples=EXAMPLES, database=None):
            check(right)


def test_what_is_right_is_tried_on_twenty_thousand_problems():
    assert sum(len(checks_for(right.operation, right.claims)) for right in RIGHT) * 100 >= 20_000
