"""The same network, weights and batches in PyTorch: the same losses, step by step."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from convkernels import nn
from convkernels.losses import softmax_cross_entropy_vjp

STEPS = 50


def twin(net):
    """The network in PyTorch, with copies of its weights."""
    stages = []
    for layer in net.stages:
        if isinstance(layer, nn.Conv2d):
            channels = (layer.params["w"].shape[1], layer.params["w"].shape[0])
            stages.append(torch.nn.Conv2d(*channels, layer.params["w"].shape[2:], padding="same"))
        elif isinstance(layer, nn.BatchNorm):
            stages.append(torch.nn.BatchNorm2d(len(layer.params["gamma"])))
        elif isinstance(layer, nn.Linear):
            stages.append(torch.nn.Linear(*layer.params["w"].shape))
        elif isinstance(layer, nn.ReLU):
            stages.append(torch.nn.ReLU())
        elif isinstance(layer, nn.MaxPool):
            stages.append(torch.nn.MaxPool2d(2))
        elif isinstance(layer, nn.Flatten):
            stages.append(torch.nn.Flatten())
        else:
            assert isinstance(layer, nn.Dropout2d)
            assert layer.rate == 0
            stages.append(torch.nn.Identity())
    other = torch.nn.Sequential(*stages)
    for layer, stage in zip(net.stages, stages, strict=True):
        for parameter, own in zip(stage.parameters(), layer.params.values(), strict=True):
            value = own.T if isinstance(layer, nn.Linear) else own
            parameter.data = torch.tensor(np.ascontiguousarray(value))
    return other.to(stages[0].weight.dtype)  # its running statistics, too


MNIST = partial(nn.models.mnist_net, (1, 8, 8), hdims=(32,), dropout=0)
MAKERS = {
    "mnist": MNIST,
    "mnist with batch norm": partial(MNIST, batch_norm=True),
    "three layers": partial(nn.models.three_layer_net, (1, 8, 8)),
}
RULES = {
    "Adam": (lambda: nn.Adam(1e-3), lambda weights: torch.optim.Adam(weights, 1e-3)),
    "SGD": (lambda: nn.SGD(0.1, 0.9), lambda weights: torch.optim.SGD(weights, 0.1, 0.9)),
    "RMSProp": (lambda: nn.RMSProp(1e-3), lambda weights: torch.optim.RMSprop(weights, 1e-3)),
}


def losses(name, dtype, rule, layout):
    """Ours and PyTorch's, on the same batches of digits."""
    data = nn.data.digits()
    net = MAKERS[name](dtype=dtype, layout=layout, generator=0)
    own, peer = RULES[rule][0](), twin(net)
    optimiser = RULES[rule][1](peer.parameters())
    ours, theirs, rng = [], [], np.random.default_rng(0)
    for _ in range(STEPS):
        chosen = rng.integers(0, len(data.train_x), 64)
        x, y = data.train_x[chosen].astype(dtype), data.train_y[chosen]
        scores = net(x if layout == "NCHW" else np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
        loss, vjp = softmax_cross_entropy_vjp(scores, y)
        net.backward(vjp(), input_grad=False)
        own.step(net)
        ours.append(loss)
        optimiser.zero_grad()
        other = torch.nn.functional.cross_entropy(peer(torch.tensor(x)), torch.tensor(y))
        other.backward()
        optimiser.step()
        theirs.append(other.item())
    return np.array(ours), np.array(theirs)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("name", MAKERS)
def test_float64_losses_agree_to_a_billionth(name, layout):
    ours, theirs = losses(name, np.float64, "Adam", layout)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)
    assert ours[-1] < ours[0] / 1.5


@pytest.mark.parametrize("rule", ["SGD", "RMSProp"])
def test_other_rules_agree_too(rule):
    ours, theirs = losses("mnist", np.float64, rule, "NCHW")
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", MAKERS)
def test_float32_losses_stay_within_a_hundredth(name):
    ours, theirs = losses(name, np.float32, "Adam", "NHWC")
    np.testing.assert_allclose(ours, theirs, rtol=0.01)
