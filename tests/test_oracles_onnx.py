"""Truth from outside: the cases by which ONNX tests its runtimes, every one of the library's operators."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from onnx_cases import EXPANDED, OPERATORS, read_cases

from convkernels.testing.numeric import assert_same

CASES = read_cases()
FOUND = {name: case for name, case in CASES.items() if case.operators}

RUN = {
    "AveragePool": 27,
    "BatchNormalization": 9,
    "Col2Im": 5,
    "Conv": 33,
    "ConvInteger": 2,
    "ConvTranspose": 14,
    "GlobalAveragePool": 2,
    "GlobalLpPool": 0,
    "GlobalMaxPool": 2,
    "GroupNormalization": 2,
    "InstanceNormalization": 3,
    "LRN": 2,
    "LayerNormalization": 19,
    "LpPool": 8,
    "MaxPool": 28,
    "MaxUnpool": 2,
    "RMSNormalization": 19,
}
"""How many cases of each operator run."""

NOT_RUN = dict.fromkeys(
    (
        "causal_conv_with_state_b1_c1_degenerate_expanded",
        "causal_conv_with_state_basic_expanded",
        "causal_conv_with_state_decode_step_expanded",
        "causal_conv_with_state_fp16_expanded",
        "causal_conv_with_state_kernel_size_one_expanded",
        "causal_conv_with_state_short_input_no_past_state_expanded",
        "causal_conv_with_state_silu_expanded",
        "causal_conv_with_state_silu_fp16_expanded",
        "causal_conv_with_state_silu_with_past_state_expanded",
        "causal_conv_with_state_swish_alias_expanded",
        "causal_conv_with_state_with_bias_and_past_state_expanded",
        "causal_conv_with_state_with_bias_expanded",
        "causal_conv_with_state_with_past_state_expanded",
    ),
    "its Conv is one of ten to eighteen nodes, which define an operator that the library does not have",
)
"""The other cases with a node of these operators, and why."""

EXACT = {"ConvInteger", "GlobalMaxPool", "MaxPool", "MaxUnpool"}
ROUNDED = {"averagepool_2d_ceil_last_window_starts_on_pad"}
"""Cases whose outputs were computed from more digits of the inputs than are stored."""


@pytest.mark.parametrize("name", sorted(FOUND.keys() - NOT_RUN.keys()))
def test_results_are_those_of_onnx(name):
    """What these cases leave open: no axis is given more padding on one side. There SciPy is the oracle."""
    case = FOUND[name]
    for got, expected in zip(case.run(), case.tensors("output"), strict=True):
        if case.operators <= EXACT:
            assert_same(got, expected)
        else:
            assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
            # 1e-3 is what ONNX itself allows.
            np.testing.assert_allclose(got, expected, rtol=1e-3 if name in ROUNDED else 1e-5, atol=1e-7)


def test_every_case_runs_or_is_listed():
    assert NOT_RUN.keys() <= FOUND.keys()
    ran = Counter(operator for name, case in FOUND.items() if name not in NOT_RUN for operator in case.operators)
    assert {operator: ran[operator] for operator in OPERATORS} == RUN


def test_a_run_case_has_one_node_of_the_library():
    for name in FOUND.keys() - NOT_RUN.keys():
        nodes = [node for node in FOUND[name].graph.node if node.op_type in OPERATORS]
        assert len(nodes) == 1, name


def test_expanded_cases_repeat_the_data_of_others():
    repeats = Counter()
    for name, case in CASES.items():
        original, is_expanded, _ = name.partition(EXPANDED)
        if is_expanded and original in FOUND:
            assert contents(case.folder) == contents(FOUND[original].folder), name
            repeats.update(FOUND[original].operators)
    assert repeats == {"GroupNormalization": 2, "LayerNormalization": 38, "RMSNormalization": 19}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}
