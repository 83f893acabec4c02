"""What the comparisons with peers share: how many problems, which layouts, and what is counted.

Hypothesis draws each problem, its layout, and a seed for its data. Where sums and products suffice, the data are whole
numbers, and results must be equal; elsewhere the test states a bound and its reason. Nothing is filtered out: where
a peer means something else, or has no such option, the drawing says so and leaves it out.
"""

from __future__ import annotations

import functools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import convkernels as ck
from convkernels.layout import SPATIAL, Layout
from convkernels.testing.numeric import assert_within
from convkernels.testing.problems import INPUTS
from convkernels.testing.snippets import as_given, options
from convkernels.testing.strategies import layouts, seeds

torch.set_num_threads(1)

PROBLEMS = 2000
"""Compared for every function."""
FEWER = {"JAX": 200}
"""Compared with a peer that takes a tenth of a second to compile each problem."""

compared: Counter[str] = Counter()
"""The problems that the running test has compared, by function."""
regimes: Counter[str] = Counter()
"""How many of them were strided, and so on."""
_regimes_of_one: list[str] = []

every_rank = pytest.mark.parametrize("rank", [1, 2, 3])


def wanted(function):
    """On how many problems a function is compared, perhaps with the peer that stands last in parentheses."""
    return FEWER.get(function.rpartition("(")[2].removesuffix(")"), PROBLEMS)


def fuzz(test, most=PROBLEMS):
    """Run a test for so many problems, each drawn from its `data`."""

    @functools.wraps(test)
    def counted(*args, **kwargs):
        _regimes_of_one.clear()
        test(*args, **kwargs)
        regimes.update(_regimes_of_one)

    return settings(max_examples=most, deadline=None, print_blob=True)(given(data=st.data())(counted))


def saw(found):
    """Note the regimes that a problem is in; they count once it is compared."""
    _regimes_of_one.extend(name for name, is_so in found.items() if is_so)


def typed(draw):
    """A type for the data and a seed."""
    name = draw(st.sampled_from(["float32", "float64"]))
    saw({name: True})
    return np.dtype(name), draw(seeds)


def agree(function, got, expected, bounds=None):
    """Demand the types, the shapes and the values of a peer's results, None for None; count one problem.

    Parameters
    ----------
    function : str
        Ours, perhaps with a reducer in parentheses.
    got, expected : tuple
        Our canonical arrays, and tensors or arrays of the peer's.
    bounds : tuple, optional
        How far each may be off; by default not at all.
    """
    for place, (ours, theirs, bound) in enumerate(zip(got, expected, bounds or (0,) * len(got), strict=True)):
        name = f"result {place} of {function}"
        if theirs is None:
            assert ours is None, name
            continue
        truth = theirs.detach().numpy() if isinstance(theirs, torch.Tensor) else theirs
        assert ours.dtype == truth.dtype, f"{name} is {ours.dtype}, but should be {truth.dtype}"
        assert_within(ours, truth, bound, name=name)
    compared[function] += 1


def ours(function, problem, **chosen):
    """What a function of ours makes of a problem of the kit's, in canonical order."""
    arrays = [as_given(problem, role) for role in INPUTS[problem.operation]]
    result = getattr(ck, function)(*arrays, **options(problem) | chosen)
    return problem.memory(problem.out_role).view(result)


def leaf(array):
    """A tensor on an array's memory and strides, to take a gradient by; None for None."""
    return None if array is None else torch.from_numpy(array).requires_grad_()


def gradients(y, dy, *inputs):
    """PyTorch's gradients by the inputs, None by one that is None."""
    found = iter(torch.autograd.grad(y, [tensor for tensor in inputs if tensor is not None], torch.from_numpy(dy)))
    return tuple(None if tensor is None else next(found) for tensor in inputs)


@st.composite
def data_layouts(draw, rank):
    """Channels first, channels last, or any permutation."""
    usual = st.sampled_from([Layout("NC" + SPATIAL[rank]), Layout("N" + SPATIAL[rank] + "C")])
    layout = draw(usual | layouts(rank))
    saw({"other layouts" if layout.order == "other" else layout.order.replace("_", " "): True})
    return layout


def common_multiple(sizes):
    """What the number of cells of any window divides that has at most so many along each axis."""
    return math.prod(math.lcm(*range(1, size + 1)) for size in sizes)
