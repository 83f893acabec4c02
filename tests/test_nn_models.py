"""The networks: their parameters, counted by the summary, and that they learn."""

from __future__ import annotations

import numpy as np
import pytest

from convkernels import nn
from convkernels.layout import Layout

models = nn.models
COUNTS = [
    (lambda **more: models.mnist_net(hdims=(32,), **more), (1, 28, 28), 119_530),
    (lambda **more: models.mnist_net(hdims=(32,), batch_norm=True, **more), (1, 28, 28), 119_530 + 2 * 96),
    (models.mnist_net, (1, 28, 28), 320 + 18_496 + 3_212_288 + 131_200 + 1_290),
    (models.three_layer_net, (3, 32, 32), 4_736 + 819_300 + 1_010),
    (lambda **more: models.three_layer_net(hidden_dim=500, **more), (3, 32, 32), 4_736 + 4_096_500 + 5_010),
    (models.lenet5, (1, 28, 28), 61_706),
    (models.resnet, (3, 32, 32), 78_042),
    (lambda **more: models.resnet(blocks=3, **more), (3, 32, 32), 272_474),
]


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(("make", "xdim", "count"), COUNTS)
def test_parameters_and_output(make, xdim, count, layout):
    net = make(layout=layout, generator=0)
    shape = Layout(layout).shape((2, *xdim))
    found = nn.summary(net, shape)
    assert found.parameters == net.parameter_count == count
    assert found.rows[-1].shape == (2, 10)
    assert net.eval()(np.zeros(shape, np.float32)).shape == (2, 10)


def test_the_mnist_network_layer_by_layer():
    found = nn.summary(models.mnist_net(hdims=(32,), generator=0), (1, 1, 28, 28))
    assert [row.parameters for row in found.rows if row.parameters] == [320, 18_496, 100_384, 330]
    kinds = ["Conv2d", "ReLU", "MaxPool", "Dropout2d"]
    assert [row.kind for row in found.rows] == [*kinds, *kinds, "Flatten", "Linear", "ReLU", "Linear"]
    assert found.rows[0].flops == 2 * 9 * 32 * 28 * 28
    assert found.rows[-1].flops == 2 * 320
    assert str(found).splitlines()[-1].split()[:2] == ["all", "119,530"]


def test_the_residual_network_halves_twice():
    found = nn.summary(models.resnet((3, 32, 24), blocks=2, generator=0), (1, 3, 32, 24))
    shapes = [row.shape[1:] for row in found.rows if row.kind == "Residual"]
    assert shapes == [(16, 32, 24)] * 2 + [(32, 16, 12)] * 2 + [(64, 8, 6)] * 2


def test_a_summary_leaves_the_network_as_it_was():
    net = models.mnist_net((1, 8, 8), batch_norm=True, generator=0)
    net[0].training = False
    nn.summary(net, (2, 1, 8, 8))
    assert [layer.training for _, layer in net.layers()] == [True, False, *[True] * (len(net) - 1)]
    assert not net[1].buffers["running_mean"].any()
    assert not any(layer.vjp for _, layer in net.layers())


ALEXNET = {
    "convolutions": [11 * 11 * 3 * 96, 5 * 5 * 48 * 256, 3 * 3 * 256 * 384, 3 * 3 * 192 * 384, 3 * 3 * 192 * 256],
    "dense": [6 * 6 * 256 * 4096, 4096 * 4096, 4096 * 1000],
    "places": [55 * 55, 27 * 27, 13 * 13, 13 * 13, 13 * 13, 1, 1, 1],
}


@pytest.fixture(scope="module")
def dense_alexnet():
    return models.alexnet(generator=0)


def test_alexnet_counted(dense_alexnet):
    assert ALEXNET["convolutions"][:2] == [34_848, 307_200]
    assert ALEXNET["dense"][0] == 37_748_736
    weights = [parameter.value.size for parameter in dense_alexnet.parameters() if parameter.key == "w"]
    assert weights == [*ALEXNET["convolutions"], *ALEXNET["dense"]]
    assert dense_alexnet.parameter_count == 60_965_224
    found = nn.summary(dense_alexnet, (1, 3, 227, 227))
    rows = [row for row in found.rows if row.parameters]
    products = [2 * size * place for size, place in zip(weights, ALEXNET["places"], strict=True)]
    assert [row.flops for row in rows] == products
    assert next(row for row in found.rows if row.kind == "Flatten").shape == (1, 9216)


def test_alexnet_s_dense_layers_are_convolutions(dense_alexnet):
    """Of the same weights, and on a larger picture with a score for each place."""
    net = models.alexnet(convolutional=True, generator=1)
    state = dense_alexnet.state_dict()
    own = net.state_dict()
    dense = [name for name in state if int(name.split(".")[0]) > 12]
    renamed = {f"{int(name.split('.')[0]) - 1}.{name.split('.')[1]}": name for name in dense}
    moved = {name: state[renamed[name]].T.reshape(own[name].shape) if name in renamed else state[name] for name in own}
    net.load_state_dict(moved)
    x = np.random.default_rng(0).normal(size=(1, 3, 227, 227)).astype(np.float32)
    scores = dense_alexnet.eval()(x)
    dense_alexnet.train()
    np.testing.assert_allclose(net.eval()(x)[:, :, 0, 0], scores, atol=1e-3 * np.abs(scores).max())
    assert nn.summary(net, (1, 3, 291, 259)).rows[-1].shape == (1, 1000, 3, 2)
    assert net.parameter_count == 60_965_224


@pytest.mark.parametrize(
    ("make", "xdim"),
    [
        (lambda: models.lenet5((1, 12, 16), 3, dtype=np.float64, generator=0), (1, 12, 16)),
        (lambda: models.resnet((2, 6, 5), (3, 4), 2, 3, dtype=np.float64, generator=0), (2, 6, 5)),
        (lambda: models.three_layer_net((2, 6, 5), 3, 3, 4, 3, dtype=np.float64, generator=0), (2, 6, 5)),
        (
            lambda: models.mnist_net((2, 6, 5), (3, 4), (5,), 3, batch_norm=True, dtype=np.float64, generator=0),
            (2, 6, 5),
        ),
    ],
)
def test_whole_networks_agree_with_differences(make, xdim):
    rng = np.random.default_rng(3)
    errors = nn.check_gradients(make(), rng.normal(size=(6, *xdim)), rng.integers(0, 3, 6), samples=8)
    assert max(errors.values()) < 1e-5, errors
