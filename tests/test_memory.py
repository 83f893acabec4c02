"""Scratch memory stays under the cap, and is what `explain` says; NumPy tells tracemalloc what it takes."""

from __future__ import annotations

import re
import tracemalloc
from math import prod

import numpy as np
import pytest
from helpers import STRATEGIES
from hypothesis import given
from hypothesis import strategies as st

import convkernels as ck
from convkernels.kernels.blocking import choose
from convkernels.operation import OPERATIONS
from convkernels.testing.strategies import conv_specs, integers, pool_specs, ranks, windows

MIB = 2**20
OBJECTS = 2**16
"""What Python's own objects may take besides."""

VOLUME = "n1g1i32o64_in{}_k3x3x3_s1x1x1_p1+1x1+1x1+1_d1x1x1"
CONVOLUTIONS = {
    "dense": "n2g1i32o48_in40x40_k3x3_s1x1_p1+1x1+1_d1x1",
    "few inputs": "n2g1i3o64_in60x60_k7x7_s2x2_p3+3x3+3_d1x1_bias",
    "few outputs": "n2g1i64o3_in40x40_k3x3_s1x1_p1+1x1+1_d1x1_bias",
    "pointwise": "n2g1i64o96_in40x40_k1x1_s1x1_p0+0x0+0_d1x1",
    "strided pointwise": "n4g1i64o96_in40x40_k1x1_s2x2_p0+0x0+0_d1x1",
    "as large as the image": "n2g1i64o96_in5x5_k5x5_s1x1_p0+0x0+0_d1x1",
    "grouped": "n1g4i64o64_in40x40_k3x3_s1x1_p2+2x2+2_d2x2_float64",
    "depthwise": "n1g64i64o64_in40x40_k5x5_s1x1_p2+2x2+2_d1x1",
    "long": "n2g1i8o16_in9000_k9_s1_p8+0_d1",
    "large weights": "n1g1i128o160_in5x5_k3x3_s1x1_p1+1x1+1_d1x1_complex64",
    "volume": VOLUME.format("10x12x12"),
}
POOLS = {
    "tiling": "n4c32_in80x80_k2x2_s2x2_p0+0x0+0_d1x1_max",
    "overlapping": "n2c32_in60x60_k3x3_s1x1_p1+1x1+1_d1x1_max_ties-split",
    "averaging": "n2c32_in60x60_k5x5_s2x2_p2+2x2+2_d1x1_mean_ceil_nopad",
    "power": "n2c16_in60x60_k3x3_s2x2_p1+1x1+1_d1x1_lp2.5_float64",
    "smooth": "n1c6_in10x20x20_k3x3x3_s1x1x1_p1+1x1+1x1+1_d1x1x1_logsumexp1",
}
MEASURED = [
    *((name, text) for name in ("conv", "conv_input_grad", "conv_weight_grad") for text in CONVOLUTIONS),
    *((name, text) for name in ("pool", "pool_grad") for text in POOLS),
]
MEMORY_ORDERS = {
    "channels first": np.ones,
    "channels last": lambda shape: np.moveaxis(np.ones((shape[0], *shape[2:], shape[1])), -1, 1),
    "batch innermost": lambda shape: np.ones(shape[::-1]).T,
}
SIGNATURES = {
    "conv": ("x w b", "y"),
    "conv_input_grad": ("y w", "x"),
    "conv_weight_grad": ("x y", "w"),
    "pool": ("x", "y"),
    "pool_grad": ("y x y", "x"),
}


def spec_of(name):
    return ck.parse_problem(CONVOLUTIONS.get(name) or "pool:" + POOLS[name])[1]


def peak(run):
    """The most bytes that a call took at a time, beside what it leaves: plans, and what Python keeps to use again."""
    run()
    tracemalloc.start()
    try:
        run()
        kept, most = tracemalloc.get_traced_memory()
        return most - kept
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("order", MEMORY_ORDERS)
@pytest.mark.parametrize(("operation", "problem"), MEASURED)
def test_scratch_stays_under_the_cap_and_is_what_is_said(operation, problem, order, strategy):
    spec, implementation = spec_of(problem), OPERATIONS[operation].find(strategy)
    names, result = SIGNATURES[operation]

    def ones(name):
        if name == "b":
            return np.ones(spec.out_channels, spec.dtype) if spec.bias else None
        return MEMORY_ORDERS[order](getattr(spec, f"{name}_shape")).astype(spec.dtype)

    given_arrays, out = [ones(name) for name in names.split()], ones(result)

    def taken(cap):
        return peak(lambda: implementation.run(spec, *given_arrays, out=out, resources=ck.Resources(cap)))

    for cap in (MIB, 64 * MIB):
        said = implementation.workspace(spec, cap)
        assert said <= cap
        assert taken(cap) <= said + OBJECTS, f"with a cap of {cap}"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_public_call_takes_nothing_beside_what_explain_says(strategy):
    _, spec = ck.parse_problem(VOLUME.format("28x32x32"))
    x, w = (np.ones(shape, spec.dtype) for shape in (spec.x_shape, spec.w_shape))
    out, how = np.empty(spec.y_shape, spec.dtype), {"padding": 1, "strategy": strategy, "max_workspace": MIB}
    (choice,) = ck.explain("conv3d", x, w, **how).choices
    assert str(choice.spec) == str(spec)
    assert choice.workspace_bytes <= MIB
    assert peak(lambda: ck.conv3d(x, w, **how, out=out)) <= choice.workspace_bytes + OBJECTS
    assert out.max() == 32 * 27


@pytest.mark.parametrize("strategy", ["auto", *STRATEGIES])
@pytest.mark.parametrize("operation", ["conv", "conv_input_grad", "conv_weight_grad"])
def test_a_layer_whose_columns_take_gigabytes_fits_the_default_cap(operation, strategy):
    (choice,) = ck.explain(f"{operation}:{VOLUME.format('112x128x128')}", strategy=strategy).choices
    columns = prod(choice.spec.window.out_size) * choice.spec.group_in * choice.spec.window.taps * 4
    assert columns > 5 * 2**30
    assert not choice.error
    assert 0 < choice.workspace_bytes <= ck.get_config().max_workspace


@given(spec=conv_specs() | pool_specs(), limit=st.integers(0, 2**16))
def test_workspace_says_exactly_what_suffices(spec, limit):
    """At most the limit where that suffices, else the least that does: one byte less does not."""
    for name, (names, _) in SIGNATURES.items():
        if ("w" in names or name == "conv_weight_grad") is not isinstance(spec, ck.ConvSpec):
            continue
        for implementation in OPERATIONS[name].implementations:
            if implementation.supports(spec):
                continue
            least = implementation.workspace(spec, 0)
            assert implementation.workspace(spec, least) == least
            assert implementation.workspace(spec, max(0, least - 1)) >= least
            assert implementation.workspace(spec, limit) <= max(limit, least)


LARGEST = ck.Reducer("largest", lambda dtype: -np.inf, lambda windows, axes, count: windows.max(axes))
"""A reducer that only windows in NumPy compute, which take memory."""


@pytest.mark.parametrize("strategy", ["auto", *STRATEGIES])
@pytest.mark.parametrize("call", ["conv", "input_grad", "weight_grad", "pool"])
def test_a_refusal_names_the_bytes_that_suffice(call, strategy):
    x, w, dy = (integers(shape, np.dtype(float), 0) for shape in ((2, 6, 9, 8), (4, 6, 3, 3), (2, 4, 9, 8)))
    run = {
        "conv": lambda **how: ck.conv2d(x, w, padding=1, **how),
        "input_grad": lambda **how: ck.conv2d_input_grad(dy, w, x_shape=x.shape, padding=1, **how),
        "weight_grad": lambda **how: ck.conv2d_weight_grad(x, dy, kernel_size=3, padding=1, **how),
        "pool": lambda **how: ck.pool2d(x, 3, LARGEST, padding=1, **how),
    }[call]
    with pytest.raises(ck.WorkspaceError) as caught:
        run(strategy=strategy, max_workspace=1)
    enough = int(re.search(r"(\d+) would do", str(caught.value))[1])
    with pytest.raises(ck.WorkspaceError, match=f"max_workspace={enough - 1} bytes is too small"):
        run(strategy=strategy, max_workspace=enough - 1)
    assert np.array_equal(run(strategy=strategy, max_workspace=enough), run(strategy="naive"))


@given(
    window=ranks.flatmap(lambda rank: windows(rank, ceil=True)),
    batch=st.integers(0, 4),
    groups=st.integers(1, 4),
    limit=st.integers(0, 2000),
    fixed=st.sampled_from([0, 50]),
)
def test_blocks_cover_every_output_once_and_fit(window, batch, groups, limit, fixed):
    def cost(tile):
        return 8 * prod(tile)

    block = choose(batch, groups, window, cost, limit, fixed)
    seen = np.zeros((batch, groups, *window.out_size), int)
    for images, some_groups, part in block.walk(batch, groups):
        assert (part.cells, part.window) == window.restrict(part.tile)
        block_seen = seen[images, some_groups, *part.tile]
        block_seen += 1
        taken = (cost(part.window.out_size) * block_seen.shape[0] + fixed) * block_seen.shape[1]
        assert taken <= block.bytes
    assert (seen == 1).all()
    assert block.bytes <= max(limit, 8 + fixed)
    assert choose(batch + 1, groups, window, cost, limit, fixed).tile == block.tile
