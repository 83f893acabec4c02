"""Any function held to the definition: what is found wrong, and how it is reported."""

from __future__ import annotations

import json

import numpy as np
import pytest
from homework import CS231N, planted, solved
from solutions import SOLUTIONS, check

import convkernels as ck
from convkernels.errors import OptionError
from convkernels.testing import check_kernel
from convkernels.testing.kernel import operations, run_check


def pad_forgotten(dout, cache):
    x, w, b, conv_param = cache
    dx, dw, db = ck.conv2d_vjp(x, w, b, stride=conv_param["stride"], padding=conv_param["pad"])[1](dout)
    pad = conv_param["pad"]
    return dx[:, :, pad:-pad, pad:-pad] if pad == 0 else dx, dw, db


def test_the_text_says_it_all():
    report = check_kernel(pad_forgotten, "conv_backward_naive")
    assert str(report).splitlines() == [
        "pad_forgotten is wrong: dx has shape (1, 1, 0, 0), but should have (1, 1, 1, 1).",
        f"  hint: {report.finding.hint}",
        "  dx should be [[[[0.0]]]]",
        "  dx is        an array of shape (1, 1, 0, 0)",
        "Paste this to see it again:",
        "    import numpy as np",
        f"    from {__name__} import pad_forgotten",
        "    x = np.array([[[[0.0]]]])  # shape (1, 1, 1, 1)",
        "    w = np.array([[[[0.0]]]])  # shape (1, 1, 1, 1)",
        "    b = np.array([0.0])  # shape (1,)",
        "    conv_param = {'stride': 1, 'pad': 0}",
        "    dout = np.array([[[[0.0]]]])  # shape (1, 1, 1, 1)",
        "    cache = (x, w, b, conv_param)",
        "    dx, dw, db = pad_forgotten(dout, cache)",
        "    print(dx)",
    ]


def test_snippets_show_it_again(capsys):
    made = solved(planted(CS231N, ("flat % pw] += dout", "flat % pw] = dout")))
    finding = check(made, "cs231n", "max_pool_backward_naive").finding
    first, second, *rest = finding.snippet.splitlines()
    assert (first, second) == (
        "import numpy as np",
        "from homework import max_pool_backward_naive, max_pool_forward_naive",
    )
    exec("\n".join([first, *rest]), vars(made).copy())
    assert capsys.readouterr().out.strip() == str(finding.got["dx"])


def test_reports_are_json():
    report = check_kernel(pad_forgotten, "conv_backward_naive")
    found = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert found["right"] is False
    assert found["operation"] == "conv_backward_naive"
    assert found["convention"] == "cs231n"
    assert found["finding"]["arguments"]["conv_param"] == {"stride": 1, "pad": 0}
    assert found["finding"]["arguments"]["x"] == {"shape": [1, 1, 1, 1], "dtype": "float64", "values": [[[[0.0]]]]}
    assert found["finding"]["where"] == "dx"
    overflowing = check_kernel(solved(planted(CS231N, ("x - x.max(axis=1, keepdims=True)", "x"))).softmax_loss)
    assert json.loads(json.dumps(overflowing.to_dict(), allow_nan=False))["finding"]["got"]["loss"]["values"] == "nan"


def test_the_same_seed_finds_the_same():
    first, again = (str(check_kernel(pad_forgotten, "conv_backward_naive", seed=5)) for _ in range(2))
    assert first == again


def test_time_can_be_limited():
    seen = []
    report = run_check(
        SOLUTIONS["cs231n"].relu_forward, None, "auto", seconds=0.0, watch=lambda number, words: seen.append(words)
    )
    assert report.right
    assert report.problems == len(seen) == 1
    assert report.remarks == ("time was up after 1 of 100 problems",)
    run_check(
        SOLUTIONS["cs231n"].relu_forward, None, "auto", examples=3, watch=lambda number, words: seen.append(words)
    )
    assert seen[0] == "x of shape (1, 1)"


NATIVE = [name for name in operations("native") if not ("1d" in name or "3d" in name or name in ("conv", "max_pool"))]


@pytest.mark.parametrize("name", NATIVE)
def test_our_own_functions_pass(name):
    check_kernel(getattr(ck, name), examples=15).check()


def plain_conv2d(x, w, b=None, *, stride: int = 1, padding: int = 0):
    """Only square strides and paddings, only NCHW, no groups, no dilation."""
    wide = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(wide, w.shape[2:], axis=(2, 3))[:, :, ::stride, ::stride]
    y = np.einsum("nchwij,ocij->nohw", windows, w)
    return y if b is None else y + b[:, None, None]


def test_functions_get_only_what_their_signature_expresses():
    check_kernel(plain_conv2d, "conv2d", examples=50).check()
    check_kernel(lambda x, w: ck.conv(x, w, layout="NC" + "DHW"[5 - x.ndim :]), "conv", examples=30).check()
    check_kernel(
        lambda x, window, stride=1, padding=0: ck.max_pool2d(x, window, stride=stride, padding=padding), "max_pool2d"
    ).check()


def test_a_pool_without_a_stride_tiles_the_input():
    check_kernel(
        lambda x, window: ck.avg_pool(x, window, layout="NC" + "DHW"[5 - x.ndim :]), "avg_pool", examples=30
    ).check()


def wrong_native(**changes):
    """Our own convolution with mistakes made on purpose."""

    def conv2d(x, w, b=None, **options):
        for change in changes.values():
            x, w, b, options = change(x, w, b, options)
        return ck.conv2d(x, w, b, **options)

    return conv2d


def other_group_first(x, w, b, options):
    axis, count = options["weight_layout"].index("O"), options["groups"]
    parts = np.split(w, count, axis)
    return x, np.concatenate(parts[::-1], axis), b, options


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (lambda x, w, b, options: (x, w, b, {**options, "stride": 1}), "y has shape"),
        (lambda x, w, b, options: (x, w, b, {**options, "dilation": 1}), "only when the dilation is above 1"),
        (lambda x, w, b, options: (x, w, None, options), "the bias is left out"),
        (other_group_first, "the groups' filters are in reverse order"),
        (
            lambda x, w, b, options: (
                x.astype("float32"),
                w.astype("float32"),
                b if b is None else b.astype("float32"),
                options,
            ),
            "only when the data are float64",
        ),
        (lambda x, w, b, options: (x if len(x) > 0 else 1 / 0, w, b, options), "only when the batch is empty"),
        (lambda x, w, b, options: (x, w, b, {**options, "padding_mode": "zeros"}), "only when there is a padding mode"),
    ],
)
def test_wrong_kernels_are_found(change, hint):
    finding = check_kernel(wrong_native(change=change)).finding
    assert hint in f"{finding.words}; {finding.hint}"
    assert "conv2d(x, w, b, stride=" in finding.snippet


def test_kernels_must_leave_their_arguments():
    def conv2d(x, w, b=None):
        x += 1
        return ck.conv2d(x, w, b)

    assert check_kernel(conv2d).finding.words == "it changes its argument x in place"


def test_kernels_must_keep_types():
    def conv2d(x, w, b=None):
        return ck.conv2d(x, w, b).astype(float)

    assert check_kernel(conv2d).finding.words == "y is float64, but should be float32"


def test_kernels_must_repeat_bit_for_bit():
    calls = []

    def conv2d(x, w, b=None):
        calls.append(x)
        y = ck.conv2d(x, w, b)
        return np.nextafter(y, y.dtype.type(np.inf)) if len(calls) % 2 else y

    assert check_kernel(conv2d).finding.words == "y differs from one call to the next"


def test_padding_of_zeros_is_named():
    def max_pool2d(x, window, *, stride=1, padding: int = 0):
        wide = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
        return ck.max_pool2d(wide, window, stride=stride)

    assert "padding is taken for zeros" in check_kernel(max_pool2d).finding.hint


@pytest.mark.parametrize("name", ["conv2d", "conv_transpose1d", "max_pool2d", "avg_pool2d", "batch_norm", "group_norm"])
def test_torch_agrees(name):
    functional = pytest.importorskip("torch.nn.functional")
    check_kernel(getattr(functional, name), name, "torch", examples=15).check()


def test_torch_is_held_to_the_definition():
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    finding = check_kernel(lambda x, w, b, *_: functional.conv2d(x, w, b), "conv2d", "torch").finding
    assert "torch.from_numpy(x)" in finding.snippet


def onnx_conv(x, w, b=None, *, kernel_shape, strides, pads, dilations, group):
    pairs = tuple(zip(pads[: len(strides)], pads[len(strides) :], strict=True))
    layout = "NC" + "DHW"[3 - len(strides) :]
    return ck.conv(x, w, b, stride=strides, padding=pairs, dilation=dilations, groups=group, layout=layout)


def test_onnx_attributes():
    check_kernel(onnx_conv, "Conv", "onnxruntime", examples=30).check()
    finding = check_kernel(
        lambda x, w, b, **given: onnx_conv(x, w, b, **{**given, "group": 1}), "Conv", "onnxruntime"
    ).finding
    assert "only when there is more than one group" in finding.hint


def test_a_missing_library_is_an_import_error(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "jax", None)
    with pytest.raises(ModuleNotFoundError, match="jax"):
        check_kernel(plain_conv2d, "conv2d", "jax")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"fn": 3}, "fn=3 must be a function"),
        ({"operation": "conv_foward_naive"}, "(nearest: 'conv_forward_naive')"),
        ({"convention": "cs231"}, "convention='cs231' must be one of 'auto', 'cs231n'"),
        ({"examples": 0}, "examples=0 must be at least 1"),
        ({"examples": 1.5}, "examples=1.5 must be a whole number"),
        ({"seed": -1}, "seed=-1 must be from 0 to 4294967295"),
        ({"forward": 3}, "forward=3 must be a function or None"),
        ({"forward": len}, "must be None: relu_forward takes no cache"),
        ({"operation": "batchnorm_backward"}, "forward=None must be batchnorm_forward, whose cache"),
        ({"operation": None}, "operation=None is the function's name, 'some_function', and must be one of"),
    ],
)
def test_bad_arguments_are_named(arguments, words):
    def some_function(x):
        return x, x

    given = {"fn": some_function, "operation": "relu_forward", **arguments}
    with pytest.raises(OptionError) as raised:
        check_kernel(**given)
    assert words in str(raised.value)
