"""Losses against definitions in plain Python, and their gradients."""

# ruff: noqa: E501  # messages stand whole, each in a line that can be searched for
from __future__ import annotations

import math

import numpy as np
import pytest
from helpers import assert_refused
from hypothesis import given
from hypothesis import strategies as st

import convkernels as ck
from convkernels import losses
from convkernels.testing.numeric import assert_same, assert_within
from convkernels.testing.strategies import integers, reals, seeds

FLOATS = ("float16", "float32", "float64")
every_dtype = pytest.mark.parametrize("dtype", FLOATS)


def eps(dtype):
    return float(np.finfo(dtype).eps)


def softmax_cross_entropy(scores, labels):
    """Loss and gradient, sample by sample."""
    loss, gradient = 0.0, np.zeros(scores.shape)
    for n, (row, label) in enumerate(zip(scores.astype(float), labels, strict=True)):
        weights = [math.exp(score - max(row)) for score in row]
        loss += math.log(sum(weights)) - (row[label] - max(row))
        for k, weight in enumerate(weights):
            gradient[n, k] = weight / sum(weights) - (k == label)
    return loss / len(scores), gradient / len(scores)


def svm_loss(scores, labels, margin=1.0):
    """Loss and gradient, sample by sample."""
    loss, gradient = 0.0, np.zeros(scores.shape)
    for n, (row, label) in enumerate(zip(scores.astype(float), labels, strict=True)):
        for k, score in enumerate(row):
            hinge = score - row[label] + margin
            if k != label and hinge > 0:
                loss += hinge
                gradient[n, k] += 1
                gradient[n, label] -= 1
    return loss / len(scores), gradient / len(scores)


LOSSES = {"softmax_cross_entropy": softmax_cross_entropy, "svm_loss": svm_loss}
every_loss = pytest.mark.parametrize("name", LOSSES)


@every_loss
@given(
    size=st.integers(1, 6),
    classes=st.integers(1, 5),
    dtype=st.sampled_from(FLOATS),
    kind=st.sampled_from(("int8", "uint64", ">i4")),
    seed=seeds,
)
def test_losses_equal_their_definitions(name, size, classes, dtype, kind, seed):
    f, f_vjp = getattr(losses, name), getattr(losses, name + "_vjp")
    scores = integers((size, classes), np.dtype(dtype), seed)
    labels = np.random.default_rng(seed).integers(0, classes, size).astype(kind)
    expected, gradient = LOSSES[name](scores, labels)
    loss, vjp = f_vjp(scores, labels)
    assert type(loss) is float
    assert loss == f(scores, labels)
    # Whole hinges and their counts are exact, and so is their mean over a power of two.
    exact = name == "svm_loss" and size in (1, 2, 4)
    assert abs(loss - expected) <= (0 if exact else 40 * min(eps(dtype), eps("float32")) * (1 + expected))
    dx = vjp()
    assert dx.dtype == dtype
    assert_within(dx, gradient, 0 if exact else 8 * eps(dtype))
    assert_within(vjp(-2.5), -2.5 * gradient, 20 * eps(dtype) * (1 + np.abs(gradient)))


@every_loss
@given(seed=seeds)
def test_losses_change_as_their_gradients_say(name, seed):
    f, f_vjp = getattr(losses, name), getattr(losses, name + "_vjp")
    # A quarter keeps every hinge of whole scores away from its kink.
    options = {} if name == "softmax_cross_entropy" else {"margin": 1.25}
    scores, step = integers((5, 4), np.dtype(float), seed, most=3), reals((5, 4), np.dtype(float), seed + 1)
    labels = np.random.default_rng(seed).integers(0, 4, 5)
    h = 1e-4
    change = (f(scores + h * step, labels, **options) - f(scores - h * step, labels, **options)) / (2 * h)
    assert math.isclose(change, np.vdot(f_vjp(scores, labels, **options)[1](), step), rel_tol=1e-6, abs_tol=1e-6)


def test_softmax_by_hand():
    loss, vjp = losses.softmax_cross_entropy_vjp(np.log([[1.0, 2.0, 5.0], [1.0, 1.0, 2.0]]), [2, 0])
    assert math.isclose(loss, (math.log(8 / 5) + math.log(4)) / 2)
    assert_within(vjp(), np.array([[1 / 8, 1 / 4, -3 / 8], [-3 / 4, 1 / 4, 1 / 2]]) / 2, 1e-15)


def test_svm_by_hand():
    """CS231n's example: cat, car and frog, whose losses are 2.9, 0 and 12.9."""
    scores = np.array([[3.2, 5.1, -1.7], [1.3, 4.9, 2.0], [2.2, 2.5, -3.1]])
    loss, vjp = losses.svm_loss_vjp(scores, [0, 1, 2])
    assert math.isclose(loss, (2.9 + 0 + 12.9) / 3)
    assert_within(vjp() * 3, np.array([[-1.0, 1, 0], [0, 0, 0], [1, 1, -2]]), 1e-15)
    assert losses.svm_loss(scores, [0, 1, 2], margin=0) == pytest.approx((1.9 + 0 + 10.9) / 3)


def test_a_hinge_at_zero_has_gradient_zero():
    loss, vjp = losses.svm_loss_vjp(np.array([[2.0, 1.0]]), [0])
    assert (loss, vjp().tolist()) == (0, [[0, 0]])


@every_dtype
def test_softmax_does_not_overflow(dtype):
    large = 1e4 if dtype == "float16" else 1e18
    scores = np.array([[large, -large], [-large, -large]], dtype)
    loss, vjp = losses.softmax_cross_entropy_vjp(scores, [0, 1])
    assert math.isclose(loss, math.log(2) / 2, rel_tol=1e-6)
    assert vjp().tolist() == [[0, 0], [0.25, -0.25]]
    assert losses.softmax_cross_entropy(scores[:1], [1]) == 2 * float(scores[0, 0])


def test_infinite_and_nan_scores():
    assert losses.softmax_cross_entropy(np.array([[0.0, -np.inf]]), [0]) == 0
    assert losses.softmax_cross_entropy(np.array([[0.0, -np.inf]]), [1]) == np.inf
    assert losses.svm_loss(np.array([[0.0, np.inf]]), [0]) == np.inf
    for name in LOSSES:
        loss, vjp = getattr(losses, name + "_vjp")(np.array([[0.0, np.nan], [1.0, 0.0]]), [0, 0])
        assert math.isnan(loss)
        assert np.isnan(vjp()).any(1).tolist() == [True, False]


@every_loss
def test_losses_leave_their_inputs_alone(name):
    scores, labels = reals((4, 3), np.dtype(float), 0), np.array([0, 2, 1, 1])
    before = scores.copy(), labels.copy()
    _, vjp = getattr(losses, name + "_vjp")(scores, labels)
    first = vjp()
    assert_same(vjp(), first)
    assert_same(scores, before[0])
    assert_same(labels, before[1])


scores, labels = np.zeros((4, 3)), np.array([0, 1, 2, 0])
# fmt: off
REFUSED = [
    (lambda: losses.softmax_cross_entropy(scores, [0, 1, 2, 3]), ck.OptionError, "softmax_cross_entropy: labels[3]=3 must be at least 0 and below 3, the number of classes (logits has shape (4, 3))"),
    (lambda: losses.softmax_cross_entropy(scores, [0, -1, 2, 3]), ck.OptionError, "softmax_cross_entropy: labels[1]=-1 must be at least 0 and below 3, the number of classes (logits has shape (4, 3))"),
    (lambda: losses.softmax_cross_entropy(scores, labels[:3]), ck.ShapeError, "softmax_cross_entropy: labels has shape (3,), must have (4,): the class of each sample (logits has shape (4, 3))"),
    (lambda: losses.softmax_cross_entropy(scores, labels[:, None]), ck.ShapeError, "softmax_cross_entropy: labels has shape (4, 1), must have (4,): the class of each sample (logits has shape (4, 3))"),
    (lambda: losses.softmax_cross_entropy(scores, labels.astype(float)), ck.DTypeError, "softmax_cross_entropy: labels has dtype float64, must be integer (logits has shape (4, 3))"),
    (lambda: losses.softmax_cross_entropy(scores, np.ma.masked_equal(labels, 0)), ck.DTypeError, "softmax_cross_entropy: labels is a masked array, whose mask would be lost: fill it first (logits has shape (4, 3))"),
    (lambda: losses.softmax_cross_entropy(scores[0], labels), ck.ShapeError, "softmax_cross_entropy: logits has shape (3,), must have (N, K): a score for each of K classes (logits has shape (3,))"),
    (lambda: losses.softmax_cross_entropy(scores[:0], labels[:0]), ck.ShapeError, "softmax_cross_entropy: logits has size 0 along 'N', must have at least 1 (logits has shape (0, 3))"),
    (lambda: losses.softmax_cross_entropy(scores.astype(int), labels), ck.DTypeError, "softmax_cross_entropy: logits has dtype int64, must be float16, float32 or float64 (logits has shape (4, 3))"),
    (lambda: losses.softmax_cross_entropy_vjp(scores, labels)[1]("1"), ck.OptionError, "softmax_cross_entropy_vjp's vjp: dloss='1' must be a number (dloss is a str)"),
    (lambda: losses.svm_loss(scores, labels > 0), ck.DTypeError, "svm_loss: labels has dtype bool, must be integer (scores has shape (4, 3))"),
    (lambda: losses.svm_loss(scores[:, :0], labels), ck.ShapeError, "svm_loss: scores has size 0 along 'K', must have at least 1 (scores has shape (4, 0))"),
    (lambda: losses.svm_loss(scores, labels, margin=None), ck.OptionError, "svm_loss: margin=None must be a number (scores has shape (4, 3))"),
]
# fmt: on


@pytest.mark.parametrize(("call", "error", "message"), REFUSED, ids=[message[:60] for *_, message in REFUSED])
def test_refuses(call, error, message):
    assert_refused(call, error, message)
