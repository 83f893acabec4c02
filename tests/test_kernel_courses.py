"""The courses' functions held to the definition: right ones pass, planted mistakes are found, and named."""

from __future__ import annotations

import pytest
from homework import CS231N, DEEPLEARNING_AI, SOURCES, planted, solved
from solutions import SOLUTIONS, SOLVED, check

from convkernels.testing import check_kernel
from convkernels.testing.kernel import COURSES


@pytest.mark.parametrize(("course", "name"), SOLVED)
def test_right_solutions_pass(course, name):
    report = check(SOLUTIONS[course], course, name, examples=30)
    assert report, report
    assert report.problems == 30
    assert str(report).startswith(f"{report.function} is right on all 30 problems tried.")


@pytest.mark.parametrize(
    ("course", "name"), [one for one in SOLVED if (case := COURSES[one[0]][one[1]]).forward and case.forward.cache]
)
def test_right_backwards_take_the_courses_cache(course, name):
    check(SOLUTIONS[course], course, name, own_cache=False, examples=30).check()


@pytest.mark.parametrize("course", COURSES)
def test_no_function_of_the_course_is_left_out(course):
    missing = set(COURSES[course]) - {name for where, name in SOLVED if where == course}
    assert all(name.endswith(("_strides", "_fast", "_im2col")) for name in missing)


FLAT = (
    ("x.transpose(0, 2, 3, 1).reshape(-1, C)", "x.reshape(-1, C)"),
    ("out.reshape(N, H, W, C).transpose(0, 3, 1, 2)", "out.reshape(N, C, H, W)"),
    ("dout.transpose(0, 2, 3, 1).reshape(-1, C)", "dout.reshape(-1, C)"),
    ("dx.reshape(N, H, W, C).transpose(0, 3, 1, 2)", "dx.reshape(N, C, H, W)"),
)
MIXED = "the statistics are over the wrong axes: x.reshape(-1, C) mixes the channels"
STRIDE_AND_PAD = '    stride = hparameters["stride"]\n    pad = hparameters["pad"]\n    n_H ='
IN_CS231N = [
    (
        "affine_relu_backward",
        [("affine_backward(relu_backward(dout, relu_cache), fc_cache)", "affine_backward(dout, fc_cache)")],
        "the gradient goes past ReLU",
    ),
    (
        "affine_relu_forward",
        [
            (
                "    out, relu_cache = relu_forward(a)\n    return out, (fc",
                "    out, relu_cache = a, a\n    return out, (fc",
            )
        ],
        "ReLU is left out",
    ),
    (
        "conv_relu_forward",
        [("relu_forward(a)\n    return out, (conv", "(np.abs(a), a)\n    return out, (conv")],
        "",
    ),
    (
        "conv_relu_backward",
        [("return conv_backward_fast(relu_backward(dout, relu_cache)", "return conv_backward_fast(dout")],
        "the gradient goes past ReLU",
    ),
    (
        "conv_relu_pool_backward",
        [("conv_backward_fast(relu_backward(ds, relu_cache)", "conv_backward_fast(ds")],
        "the gradient goes past ReLU",
    ),
    (
        "conv_relu_pool_forward",
        [("max_pool_forward_naive(s, pool_param)", "max_pool_forward_naive(a, pool_param)")],
        "ReLU is left out",
    ),
    ("conv_bn_relu_forward", [("out, relu_cache = relu_forward(an)", "out, relu_cache = an, an")], "ReLU is left out"),
    (
        "conv_bn_relu_backward",
        [("dan = relu_backward(dout, relu_cache)", "dan = dout")],
        "the gradient goes past ReLU",
    ),
    (
        "conv_backward_naive",
        [("dx = dx_pad[:, :, pad : pad + H, pad : pad + W]", "dx = dx_pad[:, :, pad:-pad, pad:-pad]")],
        "only when the padding is 0",
    ),
    ("max_pool_backward_naive", [("flat // pw", "flat // ph")], "only when the window is not square"),
    ("spatial_batchnorm_forward", FLAT, MIXED),
    ("spatial_batchnorm_backward", FLAT, MIXED),
    ("spatial_batchnorm_forward", FLAT, "only when there is more than one channel"),
    (
        "max_pool_backward_naive",
        [("    N, C, H_out, W_out = dout.shape", "    H_out, W_out, C, N = dout.shape")],
        "is a shape unpacked in another order?",
    ),
    (
        "conv_forward_naive",
        [('    stride, pad = conv_param["stride"], conv_param["pad"]\n', "    stride, pad = conv_param.values()\n")],
        "only when conv_param lists 'pad' before 'stride'",
    ),
    ("conv_backward_naive", [("dx_pad = np.zeros(x_pad.shape)", "dx_pad = np.zeros_like(x_pad)")], "x is of integers"),
    (
        "conv_forward_naive",
        [("out = np.zeros((N, F, H_out, W_out))", "out = np.zeros((N, F, H_out, W_out), b.dtype)")],
        "only when b is of integers",
    ),
    ("max_pool_backward_naive", [("dx = np.zeros(x.shape)", "dx = np.zeros_like(x)")], "only when x is of integers"),
    (
        "max_pool_forward_naive",
        [("W_out = 1 + (W - pw) // stride", "W_out = H_out")],
        "only when the output's height and width differ",
    ),
    (
        "batchnorm_backward",
        [("(x_hat, gamma, std)\n    else", "(x_hat, gamma, np.sqrt(var + 1e-5))\n    else")],
        "eps is",
    ),
    (
        "layernorm_forward",
        [('eps = ln_param.get("eps", 1e-5)', "eps = 1e-5")],
        "eps is taken as 1e-5, whatever was given",
    ),
    ("layernorm_forward", [('ln_param.get("eps", 1e-5)', 'ln_param.get("eps", 1e-3)')], "only when eps is not given"),
    (
        "conv_backward_naive",
        [("top, left = i * stride, j * stride", "top, left = i, j")],
        "only when the stride is above 1",
    ),
    (
        "conv_forward_naive",
        [("np.sum(window * w[f]) + b[f]", "np.sum(window * w[f] + b[f])")],
        "once for each tap and channel",
    ),
    ("conv_forward_naive", [("np.sum(window * w[f]) + b[f]", "np.sum(window * w[f])")], "the bias is left out"),
    ("conv_forward_naive", [("window * w[f])", "window * w[f, :, ::-1, ::-1])")], "the filter is flipped"),
    (
        "conv_backward_naive",
        [("return dx, dw, db\n\n\ndef conv", "return dx, dw.swapaxes(2, 3), db\n\n\ndef conv")],
        "dw is transposed",
    ),
    (
        "conv_forward_naive",
        [("((0, 0), (0, 0), (pad, pad), (pad, pad))", "((0, 0), (0, 0), (pad, pad), (0, 0))")],
        "padding is above 0",
    ),
    ("max_pool_backward_naive", [("flat % pw] += dout", "flat % pw] = dout")], "only when windows overlap"),
    (
        "max_pool_backward_naive",
        [
            ("flat = window.argmax()", "rows, cols = np.nonzero(window == window.max())"),
            (
                "dx[n, c, i * stride + flat // pw, j * stride + flat % pw] +=",
                "dx[n, c, i * stride + rows, j * stride + cols] +=",
            ),
        ],
        "it differs only on ties",
    ),
    (
        "batchnorm_forward",
        [
            ("momentum * running_mean + (1 - momentum) * mean", "(1 - momentum) * running_mean + momentum * mean"),
            ("momentum * running_var + (1 - momentum) * var", "(1 - momentum) * running_var + momentum * var"),
        ],
        "the momentum is the wrong way round",
    ),
    ("batchnorm_forward", [("x.var(axis=0)", "x.var(axis=0, ddof=1)")], "the variance is divided by n - 1"),
    ("batchnorm_forward", [('    if mode == "train":', "    if True:")], "only when the mode is 'test'"),
    ("batchnorm_backward", [(" + dmean / N", "")], "through the mean is left out"),
    ("batchnorm_backward", [(" + dvar * 2 * x_hat * std / N", "")], "through the variance is left out"),
    ("layernorm_forward", [("axis=1, keepdims=True)", "axis=0, keepdims=True)")], "they are taken of each column"),
    ("spatial_groupnorm_backward", [(" + dmean / count", "")], "through the mean is left out"),
    ("spatial_groupnorm_backward", [(" + dvar * 2 * centred / count", "")], "through the variance is left out"),
    (
        "spatial_groupnorm_forward",
        [
            ("groups = x.reshape(N, G, C // G, H, W)", "groups = x.reshape(N, C // G, G, H, W)"),
            ("axis=(2, 3, 4)", "axis=(1, 3, 4)"),
        ],
        "only when there is more than one group and a group has more than one channel",
    ),
    ("dropout_forward", [("< p) / p", "< p)")], "what is kept is not divided by p"),
    ("dropout_forward", [("< p) / p", "> p) / (1 - p)")], "p is the probability to keep"),
    (
        "dropout_backward",
        [('dout * mask if dropout_param["mode"] == "train" else dout', "dout")],
        "where x was dropped, too",
    ),
    ("softmax_loss", [("x - x.max(axis=1, keepdims=True)", "x")], "only when scores are in the thousands"),
    ("softmax_loss", [("return loss, dx / N", "return loss, dx")], "dx is not divided by the number of images"),
    ("svm_loss", [("    margins[np.arange(N), y] = 0\n", "")], "the right class counts as a margin, too"),
    ("affine_forward", [("x.reshape(x.shape[0], -1) @ w", "x @ w")], "only when x has more than two axes"),
    ("relu_backward", [("np.where(cache > 0, dout, 0)", "dout")], "where x is negative, too"),
]
IN_DEEPLEARNING_AI = [
    (
        "conv_backward",
        [("dA_prev_pad[:, pad : pad + n_H_prev, pad : pad + n_W_prev, :]", "dA_prev_pad[:, pad:-pad, pad:-pad, :]")],
        "only when the padding is 0",
    ),
    (
        "pool_backward",
        [("m, n_H, n_W, n_C = dA.shape", "n_H, n_W, n_C, m = dA.shape")],
        "is a shape unpacked in another order?",
    ),
    (
        "conv_forward",
        [(STRIDE_AND_PAD, "    stride, pad = [v for k, v in hparameters.items()]\n    n_H =")],
        "lists 'pad' before 'stride'",
    ),
    (
        "pool_forward",
        [
            (
                '    f = hparameters["f"]\n    stride = hparameters["stride"]\n    n_H',
                "    stride, f = hparameters.values()\n    n_H",
            )
        ],
        "lists 'f' before 'stride'",
    ),
    ("conv_backward", [("db = np.zeros((1, 1, 1, n_C))", "db = np.zeros_like(b)")], "only when b is of integers"),
    ("conv_forward", [("n_W = int((n_W_prev", "n_W = int((n_H_prev")], "height and width differ"),
    ("conv_forward", [("    Z = Z + float(b[0, 0, 0])\n", "")], "the bias is left out"),
    ("conv_forward", [("s = a_slice_prev * W\n", "s = a_slice_prev * W + b\n")], "wrong"),
    (
        "conv_single_step",
        [("s = a_slice_prev * W\n", "s = a_slice_prev * W + b\n"), ("    Z = Z + float(b[0, 0, 0])\n", "")],
        "once for each cell of the window",
    ),
    ("distribute_value", [("(n_H * n_W)", "(n_H + n_W)")], "by the sum of the sizes, but should be by their product"),
    ("pool_backward", [("(n_H * n_W)", "(n_H + n_W)")], "an average is divided by f + f"),
    ("pool_forward", [("np.mean(window)", "np.max(window)")], "the mode is 'average'"),
    ("zero_pad", [("(pad, pad), (pad, pad), (0, 0)", "(pad, pad), (0, 0), (0, 0)")], "the width is not padded"),
    (
        "conv_forward",
        [("(pad, pad), (pad, pad), (0, 0)", "(pad, pad), (0, 0), (0, 0)")],
        "only when the padding is above 0",
    ),
    (
        "create_mask_from_window",
        [("x == np.max(x)", "x == np.max(x, axis=1, keepdims=True)")],
        "each row has its own maximum",
    ),
]


@pytest.mark.parametrize(
    ("course", "name", "changes", "hint"),
    [
        pytest.param(course, name, changes, hint, id=f"{name}-{hint}")
        for course, table in (("cs231n", IN_CS231N), ("deeplearning_ai", IN_DEEPLEARNING_AI))
        for name, changes, hint in table
    ],
)
def test_planted_mistakes_are_found_and_named(course, name, changes, hint):
    report = check(solved(planted(SOURCES[course], *changes)), course, name)
    assert not report
    assert hint in f"{report.finding.words}; {report.finding.hint}"
    with pytest.raises(AssertionError, match=f"{name} is wrong: "):
        report.check()


ODD_BUT_RIGHT = [
    (
        CS231N,
        "batchnorm_forward",
        [("mean, var = x.mean(axis=0), x.var(axis=0)", "mean, var = np.ma.average(x, axis=0), x.var(axis=0)")],
        None,
    ),
    (
        CS231N,
        "spatial_groupnorm_backward",
        [
            (
                "rstd, axis=axes, keepdims=True)\n    dx",
                "rstd, axis=axes, keepdims=True)\n    -2 * dvar * centred.sum()\n    dx",
            )
        ],
        None,
    ),
    (
        CS231N,
        "batchnorm_forward",
        [('    bn_param["running_mean"] = running_mean', '    bn_param["running_mean"] = running_mean[None]')],
        "bn_param['running_mean'] has 2 axes, where the usual number is 1",
    ),
    (
        CS231N,
        "relu_backward",
        [("return np.where(cache > 0, dout, 0)", "dout[cache < 0] = 0\n    return dout")],
        "it changes its argument dout in place",
    ),
    (
        CS231N,
        "max_pool_backward_naive",
        [("flat = window.argmax()", "flat = window.size - 1 - window[::-1, ::-1].argmax()")],
        "the last one gets the gradient",
    ),
    (
        CS231N,
        "max_pool_backward_naive",
        [
            ("flat = window.argmax()", "mask = window == window.max()"),
            (
                "dx[n, c, i * stride + flat // pw, j * stride + flat % pw] += dout[n, c, i, j]",
                "dx[n, c, i * stride :][:ph, j * stride : j * stride + pw] += mask / mask.sum() * dout[n, c, i, j]",
            ),
        ],
        "equal maxima share the gradient",
    ),
    (
        CS231N,
        "dropout_backward",
        [
            ("(np.random.rand(*x.shape) < p) / p", "np.random.rand(*x.shape) < p"),
            ("out = x * mask", "out = x * mask / p"),
            ("return dout * mask", "return dout * mask / dropout_param['p']"),
        ],
        None,
    ),
    (
        DEEPLEARNING_AI,
        "create_mask_from_window",
        [("mask = x == np.max(x)", "mask = np.arange(x.size).reshape(x.shape) == x.argmax()")],
        "only the first is marked",
    ),
    (
        DEEPLEARNING_AI,
        "pool_backward",
        [("mask = x == np.max(x)", "mask = np.arange(x.size).reshape(x.shape) == x.argmax()")],
        "the first one gets the gradient",
    ),
    (DEEPLEARNING_AI, "conv_single_step", [("float(b[0, 0, 0])", "b")], "Z has 3 axes, where the usual number is 0"),
    (
        CS231N,
        "conv_forward_naive",
        [("pad), (pad, pad)))\n    out", "pad), (pad, pad))).astype(x.dtype)\n    out")],
        "out has type float64 for float32 arguments",
    ),
]


@pytest.mark.parametrize(
    ("source", "name", "changes", "remark"), [pytest.param(*one, id=f"{one[1]}-{one[3]}") for one in ODD_BUT_RIGHT]
)
def test_oddities_are_remarks_at_most(source, name, changes, remark):
    course = "cs231n" if source is CS231N else "deeplearning_ai"
    report = check(solved(planted(source, *changes)), course, name)
    report.check()
    assert remark is None or any(remark in one for one in report.remarks), report.remarks


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("pass", "it returns None, but should return out, cache: is a `return` missing, or `pass` still there?"),
        ("return None, x", "out is None: was it never computed?"),
        ("return x", "it returns one array, but should return 2: out, cache"),
        ("return x, x, x", "it returns 3 values, but should return 2: out, cache"),
        ("return x.tolist(), x", "out is a list, but should be an array"),
        ("return 'text', x", "out is a str, but should be an array"),
        ("return np.array(['text']), x", "out is an array of <U4, but should be one of numbers"),
        ("return np.maximum(x, 0)[0], x", "out has shape (1,), but should have (1, 1)"),
        ("x[x < 0] = 0; return x, x", "it changes its argument x in place"),
        ("raise SystemExit('no')", "it raised SystemExit: no"),
        ("return x.nothing", "it raised AttributeError: 'numpy.ndarray' object has no attribute 'nothing'"),
    ],
)
def test_what_is_returned_must_be_what_the_course_says(body, words):
    made = solved(f"import numpy as np\ndef relu_forward(x):\n    {body}\n")
    finding = check_kernel(made.relu_forward).finding
    assert finding.words.startswith(words)


def test_another_signature_is_named():
    made = solved("def conv_forward_naive(x, w, b):\n    pass\n")
    finding = check_kernel(made.conv_forward_naive).finding
    assert finding.words == "it takes (x, w, b), but is called as conv_forward_naive(x, w, b, conv_param)"


def test_a_forward_that_fails_is_not_the_backwards_fault():
    made = solved(
        planted(
            CS231N,
            (
                "def conv_forward_naive(x, w, b, conv_param):\n",
                "def conv_forward_naive(x, w, b, conv_param):\n    1 / 0\n",
            ),
        )
    )
    check(made, "cs231n", "conv_backward_naive", examples=20).check()
    made = solved(planted(CS231N, ('    mode = bn_param["mode"]\n', "    1 / 0\n")))
    words = check(made, "cs231n", "batchnorm_backward").finding.words
    assert (
        words
        == "it cannot be tried: batchnorm_forward, whose cache it takes, raised ZeroDivisionError: division by zero"
    )
