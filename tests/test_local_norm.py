"""Local response normalisation: the definition in every layout, its gradient, its window, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import lay
from hypothesis import event, given
from hypothesis import strategies as st

import convkernels as ck
from convkernels.testing.numeric import assert_within
from convkernels.testing.strategies import layouts, reals, seeds


@st.composite
def problems(draw):
    """Data in a drawn layout, a gradient, and the options."""
    rank = draw(st.integers(1, 3))
    layout = draw(layouts(rank))
    shape = (draw(st.integers(0, 2)), draw(st.integers(1, 6)), *(draw(st.integers(1, 3)) for _ in range(rank)))
    dtype = np.dtype(draw(st.sampled_from(["float64", "float32", "float16"])))
    seed = draw(seeds)
    x, dy = (lay(reals(shape, dtype, seed + step), layout) for step in range(2))
    size = draw(st.integers(1, 8))
    event("even" if size % 2 == 0 else "odd")
    event("wider than the channels" if size > 2 * shape[1] else "narrow")
    options = {
        "layout": layout.axes,
        "alpha": draw(st.sampled_from([1e-4, 0.0, 1.0])),
        "beta": draw(st.sampled_from([0.75, 0.0, 1.0, -0.5])),
        "bias": draw(st.sampled_from([1.0, 2.0, 0.5])),
    }
    return x, dy, size, options


@given(problem=problems(), cells=st.sampled_from([None, 1, 8]))
def test_it_equals_the_definition(problem, cells):
    x, dy, size, options = problem
    channels = x.shape[options["layout"].index("C")]
    cap = None if cells is None else {"max_workspace": 32 * cells * channels}
    results = []
    for how in (cap or {}, {"strategy": "naive"}):
        y, vjp = ck.local_response_norm_vjp(x, size, **options, **how)
        results.append((y, vjp(dy)))
    eps = float(np.finfo(x.dtype).eps)
    for got, expected in zip(*results, strict=True):
        assert got.dtype == x.dtype
        assert got.flags.c_contiguous
        assert_within(got, expected, 2 * eps * np.abs(expected).astype(np.float64) + 1e-13)


@given(problem=problems())
def test_the_gradient_matches_differences(problem):
    x, dy, size, options = problem
    x, dy = x.astype(np.float64), dy.astype(np.float64)
    direction, step = reals(x.shape, x.dtype, 5), 1e-6
    plus, minus = (np.vdot(ck.local_response_norm(x + s * direction, size, **options), dy) for s in (step, -step))
    _, vjp = ck.local_response_norm_vjp(x, size, **options)
    assert (plus - minus) / (2 * step) == pytest.approx(np.vdot(vjp(dy), direction), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("strategy", ["auto", "naive"])
@pytest.mark.parametrize(
    ("size", "sums"), [(1, [1, 4, 9, 16]), (2, [5, 13, 25, 16]), (3, [5, 14, 29, 25]), (4, [14, 30, 29, 25])]
)
def test_the_odd_channel_of_an_even_window_comes_after_the_cell(size, sums, strategy):
    x = np.array([1.0, 2, 3, 4]).reshape(1, 4, 1)
    y = ck.local_response_norm(x, size, alpha=size, beta=1.0, bias=1.0, layout="NCW", strategy=strategy)
    np.testing.assert_allclose(y.ravel(), x.ravel() / (1 + np.array(sums)), rtol=1e-15)


def test_squares_that_float32_cannot_hold():
    x = np.full((1, 3, 1, 1), 1e30, np.float32)
    y, vjp = ck.local_response_norm_vjp(x, 3, beta=0.5)
    np.testing.assert_allclose(y.ravel(), np.sqrt(3e4 / np.array([2, 3, 2])), rtol=1e-6)
    assert np.isfinite(vjp(np.ones_like(x))).all()


def test_nan_reaches_exactly_the_outputs_whose_windows_hold_it():
    x = np.ones((1, 6, 1, 1))
    x[0, 2] = np.nan
    y = ck.local_response_norm(x, 4)
    assert np.isnan(y).ravel().tolist() == [True, True, True, True, False, False]


def test_the_problem_string_reads_back():
    text = "local_response_norm:n1c96_in27x27_size5_alpha1e-05_beta-0.5_bias2.0_float64"
    operation, spec = ck.parse_problem(text)
    assert (operation, str(spec)) == ("local_response_norm", text)
    assert (spec.alpha, spec.beta, spec.bias) == (1e-5, -0.5, 2.0)
    assert ck.explain(text).choices[0].chosen.name == "numpy"
    with pytest.raises(ck.OptionError, match=r"needs its window: size\.\."):
        ck.parse_problem("local_response_norm:n1c96_in27x27")


x = np.ones((2, 6, 4, 4))
END = " (x has shape (2, 6, 4, 4), layout 'NCHW')"
BAD = [
    (lambda: ck.local_response_norm(x, 0), ck.OptionError, "size=0 must be at least 1" + END),
    (lambda: ck.local_response_norm(x, 2.5), ck.OptionError, "size=2.5 must be a whole number" + END),
    (lambda: ck.local_response_norm(x, 3, alpha=-1), ck.OptionError, "alpha=-1 must be at least 0" + END),
    (lambda: ck.local_response_norm(x, 3, bias=0), ck.OptionError, "bias=0 must be more than 0" + END),
    (lambda: ck.local_response_norm(x, 3, beta=np.inf), ck.OptionError, "beta=inf must be a finite number" + END),
    (lambda: ck.local_response_norm(x, 3, beta="1"), ck.OptionError, "beta='1' must be a finite number" + END),
    (lambda: ck.local_response_norm(x.astype(int), 3), ck.DTypeError, "x has dtype int64, must be floating" + END),
    (
        lambda: ck.local_response_norm(x[:, :1, :, :0], 3),
        ck.ShapeError,
        "x has canonical shape (2, 1, 4, 0): every axis but the batch must have at least 1 (x has shape (2, 1, 4, 0), layout 'NCHW')",
    ),
    (
        lambda: ck.local_response_norm(x, 3, max_workspace=100),
        ck.WorkspaceError,
        "max_workspace=100 bytes is too small for every fast strategy: 192 would do" + END,
    ),
    (lambda: ck.local_response_norm(x, 3, out=x), ck.OverlapError, "out shares memory with an input, must not" + END),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[message[:40] for *_, message in BAD])
def test_refuses(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == f"local_response_norm: {message}"


def test_the_gradient_refuses_another_shape():
    _, vjp = ck.local_response_norm_vjp(x, 3)
    with pytest.raises(ck.ShapeError, match=r"local_response_norm_vjp's vjp: dy has shape \(1, 6, 4, 4\), must have"):
        vjp(x[:1])
