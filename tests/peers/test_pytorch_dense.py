"""Affine maps, activations and losses: equal to PyTorch's, forward and backward; exactly, or within their rounding."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from peers.agreement import agree, fuzz, gradients, leaf, saw, typed
from torch.nn import functional

from convkernels import dense, losses
from convkernels.testing.strategies import integers, reals


def eps(array):
    """The distance from 1 to the next number."""
    return float(np.finfo(array.dtype).eps)


@fuzz
def test_affine(data):
    """PyTorch's linear map of the flattened samples, which has the weights transposed; whole numbers, exactly."""
    shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=4)))
    outputs, biased, (dtype, seed) = data.draw(st.integers(1, 5)), data.draw(st.booleans()), typed(data.draw)
    saw({"bias": biased, "flattened": len(shape) > 2})
    x, w = integers(shape, dtype, seed), integers((math.prod(shape[1:]), outputs), dtype, seed + 1)
    b = integers((outputs,), dtype, seed + 2) if biased else None
    tensors = leaf(x), leaf(w), leaf(b)
    y = functional.linear(tensors[0].flatten(1), tensors[1].T, tensors[2])
    dy = integers(tuple(y.shape), dtype, seed + 3)
    agree("affine", (dense.affine(x, w, b),), (y,))
    got, vjp = dense.affine_vjp(x, w, b)
    agree("affine_vjp", (got, *vjp(dy)), (y, *gradients(y, dy, *tensors)))


# PyTorch's, and how many units its value and its slope may be off.
ACTIVATIONS = {
    # One product or none: exact.
    "relu": (functional.relu, 0, 0),
    "leaky_relu": (functional.leaky_relu, 0, 0),
    # PyTorch's slopes are differences from 1.
    "sigmoid": (functional.sigmoid, 2, 4),
    "tanh": (functional.tanh, 2, 4),
    # So is its weight, and its slope has 1 - tanh(u)**2 times x times the slope of u: up to 60 until the first is 0.
    "gelu": (functional.gelu, 8, 128),
}
OPTIONS = {
    "leaky_relu": st.fixed_dictionaries({"slope": st.sampled_from([0.0, 0.01, 0.2, 0.5])}),
    "gelu": st.fixed_dictionaries({"approximate": st.sampled_from(["none", "tanh"])}),
}
THEIR_NAMES = {"slope": "negative_slope"}


@pytest.mark.parametrize("name", ACTIVATIONS)
@fuzz
def test_activation(name, data):
    theirs, units, slope_units = ACTIVATIONS[name]
    options = data.draw(OPTIONS.get(name, st.just({})))
    shape = tuple(data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4)))
    (dtype, seed), scale = typed(data.draw), data.draw(st.sampled_from([0.01, 1, 5, 100]))
    saw({f"scale {scale}": True} | {f"{option} {value}": True for option, value in options.items()})
    # Some zeros, where a rectifier has its kink.
    x = (reals(shape, dtype, seed) * scale * (reals(shape, dtype, seed + 1) > -1)).astype(dtype)
    dy = reals(shape, dtype, seed + 2)
    tensor = leaf(x)
    y = theirs(tensor, **{THEIR_NAMES.get(option, option): value for option, value in options.items()})
    bounds = units * eps(x) * np.maximum(np.abs(x), 1), slope_units * eps(x) * np.abs(dy)
    agree(name, (getattr(dense, name)(x, **options),), (y,), bounds[:1])
    got, vjp = getattr(dense, name + "_vjp")(x, **options)
    agree(name + "_vjp", (got, vjp(dy)), (y, *gradients(y, dy, tensor)), bounds)


def agree_on_loss(name, scores, labels, options, theirs, unit, dloss):
    """Compare a loss, and then its vjp, with PyTorch's value and gradient."""
    tensor, number = leaf(scores), scores.dtype.type
    loss = theirs(tensor, torch.from_numpy(labels))
    expected = (loss, *gradients(loss, np.array(dloss, scores.dtype), tensor))
    bounds = unit, unit * abs(dloss)
    agree(name, (number(getattr(losses, name)(scores, labels, **options)),), expected[:1], bounds[:1])
    got, vjp = getattr(losses, name + "_vjp")(scores, labels, **options)
    agree(name + "_vjp", (number(got), vjp(dloss)), expected, bounds)


@st.composite
def classified(draw):
    """Scores and labels of some samples and classes, and what the loss's gradient is."""
    samples, classes, (dtype, seed) = draw(st.integers(1, 8)), draw(st.integers(2, 6)), typed(draw)
    labels = np.random.default_rng(seed).integers(0, classes, samples)
    saw({"two classes": classes == 2, "one sample": samples == 1})
    return (samples, classes), labels, dtype, seed, draw(st.sampled_from([1.0, 0.5, -3.0]))


@fuzz
def test_softmax_cross_entropy(data):
    shape, labels, dtype, seed, dloss = data.draw(classified())
    scale = data.draw(st.sampled_from([0.1, 1, 10, 100]))
    saw({f"scale {scale}": True})
    logits = (reals(shape, dtype, seed) * scale).astype(dtype)
    # An exponential magnifies the rounding of its argument, a difference of two logits, by as much as that is large.
    unit = 8 * eps(logits) * (1 + np.abs(logits).max())
    agree_on_loss("softmax_cross_entropy", logits, labels, {}, functional.cross_entropy, unit, dloss)


@fuzz
def test_svm_loss(data):
    """PyTorch's multi-margin loss divides by the number of classes too; whole numbers put many hinges at 0."""
    shape, labels, dtype, seed, dloss = data.draw(classified())
    margin = data.draw(st.sampled_from([0, 1, 2, 0.5]))
    saw({f"margin {margin}": True})
    scores = integers(shape, dtype, seed, most=4)

    def theirs(tensor, target):
        return shape[1] * functional.multi_margin_loss(tensor, target, margin=margin)

    # Means of whole and half numbers of at most 10, a few of each sample.
    unit = eps(scores) * 10 * shape[1]
    agree_on_loss("svm_loss", scores, labels, {"margin": margin}, theirs, unit, dloss)
