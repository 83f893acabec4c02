"""`explain` tells what a call would run, without running it."""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter

import numpy as np
import pytest

import convkernels as ck
from convkernels.operation import OPERATIONS

x, x_last = np.ones((2, 6, 8, 8)), np.ones((2, 8, 8, 6))
w, w_last = np.ones((4, 6, 3, 3)), np.ones((3, 3, 6, 4))
b = np.ones(4)
dy = np.ones((2, 4, 6, 6))
depthwise, pointwise = np.ones((6, 1, 3, 3)), np.ones((5, 6, 1, 1))
VOLUME = "n1g1i32o64_in112x128x128_k3x3x3_s1x1x1_p1+1x1+1x1+1_d1x1x1"

CALLS = [
    ("conv2d", (x, w), {}),
    ("conv2d", (x, w), {"strategy": "stride_tricks"}),
    ("conv2d", (x_last, w_last), {"layout": "NHWC"}),
    ("conv2d", (x, np.ones((4, 3, 3, 3))), {"groups": 2}),
    ("conv2d", (x_last, np.ones((3, 3, 2, 6))), {"layout": "NHWC", "groups": 3}),
    ("conv2d", (x, w), {"max_workspace": 5000}),
    ("conv2d", (x[:1].astype(int), w), {"precision": "highest"}),
    ("conv1d", (np.ones((1, 2, 9)), np.ones((3, 2, 3))), {"padding": "causal"}),
    ("conv", (np.ones((1, 2, 4, 4, 4)), np.ones((3, 2, 3, 3, 3))), {"layout": "NCDHW"}),
    ("conv2d_vjp", (x, w, b), {}),
    ("conv2d_vjp", (x, w, b), {"strategy": "naive"}),
    ("conv2d_vjp", (x_last, np.ones((3, 3, 2, 6))), {"layout": "NHWC", "groups": 3}),
    ("conv2d_input_grad", (dy, w), {"x_shape": x.shape}),
    ("conv2d_weight_grad", (x, dy), {"kernel_size": 3, "strategy": "stride_tricks"}),
    ("depthwise_conv2d", (x, depthwise), {}),
    ("depthwise_conv2d_vjp", (x_last, np.ones((3, 3, 1, 6))), {"layout": "NHWC"}),
    ("separable_conv2d", (x, depthwise, pointwise), {}),
    ("separable_conv2d_vjp", (x, depthwise, pointwise), {}),
    ("max_pool2d", (x, 2), {"layout": "NHWC"}),
    ("max_pool2d_vjp", (x, 2), {}),
    ("max_pool2d_vjp", (x, 3), {"strategy": "im2col", "padding": 1, "ties": "all"}),
    ("avg_pool2d_vjp", (x, 2), {"max_workspace": 2000}),
    ("pool2d", (x, 2, "lp2"), {"strategy": "naive"}),
]


@pytest.fixture
def ran(monkeypatch):
    """Every run of an implementation, as (operation, strategy)."""
    runs = []

    def recorded(name, implementation):
        def run(*args, **kwargs):
            runs.append((name, implementation.name))
            implementation.run(*args, **kwargs)

        return replace(implementation, run=run)

    for name, found in OPERATIONS.items():
        monkeypatch.setattr(found, "implementations", tuple(recorded(name, each) for each in found.implementations))
        monkeypatch.setattr(found, "chosen", {})
    return runs


@pytest.fixture
def plug(request):
    """Register an implementation that must not run; it is gone after the test."""

    def register(operation_name, name, **facts):
        ck.register(operation_name, name, lambda *args, **kwargs: pytest.fail("explain ran it"), **facts)
        request.addfinalizer(lambda: ck.unregister(operation_name, name))

    return register


def only(explanation):
    (choice,) = explanation.choices
    return choice


@pytest.mark.parametrize(("call", "args", "options"), CALLS)
def test_what_it_says_would_run_is_what_runs(ran, call, args, options):
    explained = [(choice.operation.name, choice.chosen.name) for choice in ck.explain(call, *args, **options).choices]
    assert ran == []
    result = getattr(ck, call)(*args, **options)
    if call.endswith("_vjp"):
        result, vjp = result
        vjp(result)
    assert ran == explained


@pytest.mark.parametrize("name", OPERATIONS)
def test_it_computes_nothing(plug, name):
    plug(name, "mine")
    call, args, options = {
        "conv": ("conv2d", (x, w, b), {}),
        "conv_input_grad": ("conv2d_vjp", (x, w, b), {}),
        "conv_weight_grad": ("conv2d_vjp", (x, w, b), {}),
        "conv_transpose": ("conv_transpose2d", (x, np.ones((6, 4, 3, 3))), {}),
        "batch_norm": ("batch_norm", (x, None, None, np.zeros(6), np.ones(6)), {}),
        "batch_norm_grad": ("batch_norm_vjp", (x, None, None, np.zeros(6), np.ones(6)), {}),
        "batch_norm_train": ("batch_norm_train", (x, None, None), {}),
        "batch_norm_train_grad": ("batch_norm_train_vjp", (x, None, None), {}),
        "group_norm": ("instance_norm", (x, None, None), {}),
        "group_norm_grad": ("instance_norm_vjp", (x, None, None), {}),
        "local_response_norm": ("local_response_norm", (x, 3), {}),
        "local_response_norm_grad": ("local_response_norm_vjp", (x, 3), {}),
        "pool": ("max_pool2d", (x, 2), {}),
        "pool_grad": ("max_pool2d_vjp", (x, 2), {}),
    }[name]
    out = np.full((2, 4, 6, 6), 7.0)
    options = {**options, **({"out": out} if name == "conv" else {})}
    assert "-> mine " in str(ck.explain(call, *args, **options))
    assert (out == 7).all()


@pytest.mark.parametrize("call", ["conv2d", "conv2d_vjp"])
def test_it_takes_no_longer_for_a_batch_that_no_memory_could_hold(call):
    batch = np.broadcast_to(np.float32(0), (2**12, 6, 2**10, 2**10))
    started = perf_counter()
    ck.explain(call, batch, w.astype(np.float32), b.astype(np.float32))
    assert perf_counter() - started < 1


def test_calls_run_again_afterwards_whether_or_not_it_raised():
    with pytest.raises(ck.ShapeError, match=r"^conv2d: w has 5 input channels"):
        ck.explain("conv2d", x, w[:, :5])
    ck.explain("conv2d", x, w)
    assert ck.conv2d(x, w).min() == 54


SIZES = "in8x8_k3x3_s1x1_p0+0x0+0_d1x1"
MEAN = {"padding": 1, "ceil_mode": True, "count_include_pad": False}
HOW = {"strategy": "im2col", "threads": 2, "max_workspace": 9000, "precision": "highest"}


@pytest.mark.parametrize(
    ("text", "call", "args", "options", "execution"),
    [
        (f"n2g1i6o4_{SIZES}_float64", "conv2d", (x, w), {}, {}),
        (f"n2g1i6o4_{SIZES}_float64", "conv2d", (x, w), {}, HOW),
        (f"n2g1i6o4_{SIZES}_bias_float64", "conv2d", (x_last, w_last, b), {}, {"layout": "NHWC"}),
        (f"conv_input_grad:n2g1i6o4_{SIZES}_float64", "conv2d_input_grad", (dy, w), {"x_shape": x.shape}, {}),
        (f"conv_weight_grad:n2g1i6o4_{SIZES}_float64", "conv2d_weight_grad", (x, dy), {"kernel_size": 3}, {}),
        ("pool:n2c6_in8x8_k2x2_s2x2_p0+0x0+0_d1x1_max_float64", "max_pool2d", (x, 2), {}, {}),
        (
            "pool:n2c6_in8x8_k3x3_s3x3_p1+1x1+1_d1x1_mean_ceil_nopad_float64",
            *("avg_pool2d", (x_last, 3), MEAN, {"layout": "NHWC"}),
        ),
    ],
)
def test_a_problem_string_is_explained_as_its_call_is(text, call, args, options, execution):
    assert str(ck.explain(text, **execution)) == str(ck.explain(call, *args, **options, **execution))


@pytest.mark.parametrize("prefix", ["", "conv:", "conv_input_grad:", "conv_weight_grad:"])
@pytest.mark.parametrize("layout", [None, "NCHW", "NHWC", "CHWN"])
def test_a_problem_string_is_explained_in_any_layout(prefix, layout):
    problem = f"n2g1i6o4_{SIZES}"
    choice = only(ck.explain(prefix + problem, layout=layout))
    assert choice.order == {"NHWC": "channels_last", "CHWN": "other"}.get(layout, "channels_first")
    assert str(choice).startswith(f"{choice.operation.name}:{problem}\n  {choice.order}, ")


def test_a_pool_gradients_problem_is_explained():
    choice = only(ck.explain("pool_grad:n2c6_in8_k2_s2_p0+0_d1_max"))
    assert choice.operation is OPERATIONS["pool_grad"]
    assert str(choice).startswith("pool_grad:n2c6_in8_k2_s2_p0+0_d1_max\n")


def test_a_keyword_that_a_problem_string_does_not_take_is_a_type_error():
    with pytest.raises(TypeError, match=r"explain\(\) has no keyword 'stride'; there are 'strategy'.*'layout'"):
        ck.explain(VOLUME, stride=2)


@pytest.mark.parametrize("cap", [2**20, 2**22, None])
def test_flops_and_workspace_are_known_before_running(cap):
    choice = only(ck.explain(VOLUME, max_workspace=cap))
    limit = 64 * 2**20 if cap is None else cap
    assert choice.flops == 2 * 112 * 128 * 128 * 64 * 32 * 27
    assert choice.workspace_bytes == choice.chosen.workspace(choice.spec, limit)
    assert 0 < choice.workspace_bytes <= limit
    assert f"runs, with {choice.workspace_bytes:,} bytes of workspace" in str(choice)


def test_every_other_implementation_has_its_reason(plug):
    plug("conv", "picky", supports=lambda spec: "only on Sundays")
    plug("conv", "hungry", workspace=lambda spec, limit: 10**12)
    plug("conv", "reluctant", prefers=lambda spec, order: f"slow in {order}")
    choice = only(ck.explain("conv2d", x.astype(int), w.astype(int)))
    reasons = {verdict.implementation.name: verdict.reason for verdict in choice.verdicts}
    for compiled in ("winograd", "depthwise", "direct"):
        reasons.pop(compiled)
    assert reasons == {
        "reluctant": "not preferred: slow in channels_first",
        "hungry": f"declines: needs {10**12} bytes of workspace, max_workspace is {64 * 2**20}",
        "picky": "declines: only on Sundays",
        "fft": "declines: computes float32 and float64, not int64",
        "im2col": "",
        "stride_tricks": "not preferred: comes later in the list",
        "naive": "not preferred: the definition, for checking and not for speed",
    }
    named = only(ck.explain("conv2d", x, w, strategy="naive"))
    assert {verdict.reason for verdict in named.verdicts if verdict.implementation.name in ("im2col", "reluctant")} == {
        "not asked for: strategy='naive'"
    }


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"strategy": "picky"}, ck.UnsupportedError),
        ({"strategy": "loose", "precision": "highest"}, ck.UnsupportedError),
        ({"max_workspace": 8}, ck.WorkspaceError),
        ({"max_workspace": 8, "strategy": "im2col"}, ck.WorkspaceError),
    ],
)
def test_it_says_what_the_call_would_raise(plug, options, error):
    plug("conv", "picky", supports=lambda spec: "only on Sundays")
    plug("conv", "loose", prefers=lambda spec, order: "slow")
    choice = only(ck.explain("conv2d", x, w, **options))
    assert choice.chosen is None
    assert choice.workspace_bytes == 0
    assert f"\n  would raise {choice.error}" in str(choice)
    with pytest.raises(error) as caught:
        ck.conv2d(x, w, **options)
    assert choice.error == f"{error.__name__}: {caught.value.cause}"


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: ck.explain("conv2d", x, w, strategy="none"), ck.UnknownStrategyError),
        (lambda: ck.explain("conv2d", x, w, stride=0), ck.OptionError),
        (lambda: ck.explain("conv2d", x, w, out=dy[:1]), ck.ShapeError),
        (lambda: ck.explain("n1g1i3o4_in8_k9_s1_p0+0_d1"), ck.ShapeError),
        (lambda: ck.explain("n1g1i3o4_in8", strategy="none"), ck.OptionError),
        (lambda: ck.explain("convolve"), ck.OptionError),
    ],
)
def test_it_raises_what_the_call_raises_for_its_arguments(call, error):
    with pytest.raises(error):
        call()


def test_a_note_says_that_threads_are_ignored_unless_they_are_not(plug):
    assert any(
        "im2col has no threads of its own: `threads` is ignored" in note
        for note in only(ck.explain("conv2d", x.astype(int), w.astype(int))).notes
    )
    plug("conv", "mine", uses_threads=True, claims=("nan_strict", "bounded"))
    assert only(ck.explain("conv2d", x, w)).notes == ()


def test_notes_say_what_is_not_claimed(plug):
    plug("conv", "mine", uses_threads=True)
    assert only(ck.explain("conv2d", x, w)).notes == (
        "mine may spread NaN and infinities to neighbouring outputs",
        "mine does not bound the error of each output by itself",
    )


@pytest.mark.parametrize(
    ("dtype", "note"),
    [
        ("float16", "float16 computes in float32 and returns float16"),
        ("int8", "int8 computes in int64 and returns int64"),
        ("uint16", "uint16 computes in uint64 and returns uint64"),
        ("float32", None),
        ("complex64", None),
    ],
)
def test_a_note_says_where_another_type_computes(dtype, note):
    notes = only(ck.explain("conv2d", x.astype(dtype), w.astype(dtype))).notes
    assert [found for found in notes if "computes in" in found] == ([note] if note else [])


def test_a_note_reports_a_plugin_that_failed(monkeypatch):
    monkeypatch.setattr(ck.plugins, "_plugins", ck.plugins._Plugins(True, True, {"theirs (package:plug)": "no numba"}))
    assert "plugin theirs (package:plug) failed to load: no numba" in only(ck.explain("conv2d", x, w)).notes


def test_several_choices_print_one_after_the_other():
    explanation = ck.explain("conv2d_vjp", x, w)
    assert str(explanation) == repr(explanation) == "\n".join(map(str, explanation.choices))
    assert [choice.operation.name for choice in explanation.choices] == ["conv", "conv_input_grad", "conv_weight_grad"]
