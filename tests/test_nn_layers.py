"""Layers: their gradients against differences, the same in every layout, and what they refuse."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import convkernels as ck
from convkernels import nn
from convkernels.layout import Layout

F64 = {"dtype": np.float64, "generator": 0}
LAYOUTS = ["NCHW", "NHWC", "CHWN"]


def put(layout, canonical):
    return np.ascontiguousarray(Layout(layout).restore(canonical))


MAKERS = {
    "conv": lambda at: nn.Conv2d(4, 6, (3, 2), stride=2, padding=1, groups=2, layout=at, **F64),
    "conv without bias": lambda at: nn.Conv2d(
        4, 3, 3, padding="same", padding_mode="reflect", bias=False, layout=at, **F64
    ),
    "conv transpose": lambda at: nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1, groups=2, layout=at, **F64),
    "max pool": lambda at: nn.MaxPool(3, stride=2, padding=1, layout=at),
    "avg pool": lambda at: nn.AvgPool(3, stride=2, padding=1, count_include_pad=False, layout=at),
    "global pool": nn.GlobalAvgPool,
    "batch norm": lambda at: nn.BatchNorm(4, eps=0.1, layout=at, dtype=np.float64),
    "group norm": lambda at: nn.GroupNorm(2, 4, eps=0.1, layout=at, dtype=np.float64),
    "layer norm": lambda at: nn.LayerNorm(4, eps=0.1, layout=at, dtype=np.float64),
    "dropout2d": lambda at: nn.Dropout2d(0.5, layout=at, generator=3),
    "relu": lambda at: nn.ReLU(),
}


def followed(layer, layout, outputs):
    """A network that ends in scores."""
    return nn.Sequential(layer, nn.Flatten(layout), nn.Linear(outputs, 3, **F64))


def scored(name, layout, x):
    layer = MAKERS[name](layout)
    shape = Layout(layout).view(layer(put(layout, x))).shape
    return followed(MAKERS[name](layout), layout, int(np.prod(shape[1:])))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", MAKERS)
def test_gradients_agree_with_differences(name, layout):
    if layout == "CHWN" and name == "conv transpose":
        pytest.skip("the same code as conv")
    rng = np.random.default_rng(1)
    x, labels = rng.normal(size=(3, 4, 6, 5)), rng.integers(0, 3, 3)
    net = scored(name, layout, x)
    for parameter in net.parameters():
        parameter.value[...] += rng.normal(size=parameter.value.shape) / 3
    errors = nn.check_gradients(net, put(layout, x), labels)
    assert {*errors} == {"x", *(parameter.name for parameter in net.parameters())}
    assert max(errors.values()) < 1e-6, errors


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("name", MAKERS)
def test_a_layer_gives_the_same_in_every_layout(name, mode):
    rng = np.random.default_rng(2)
    x, labels = rng.normal(size=(3, 4, 6, 5)), np.array([0, 1, 2])
    found = []
    for layout in LAYOUTS:
        net = scored(name, layout, x).train(mode)
        scores = net(put(layout, x))
        dx = net.backward(ck.losses.softmax_cross_entropy_vjp(scores, labels)[1]())
        grads = {parameter.name: parameter.grad for parameter in net.parameters()}
        found.append({"scores": scores, "dx": Layout(layout).view(dx), **grads, **net.state_dict()})
        assert dx.flags.c_contiguous
    for other in found[1:]:
        assert found[0].keys() == other.keys()
        for key, array in found[0].items():
            np.testing.assert_allclose(array, other[key], atol=1e-12, err_msg=key)


@given(st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_convolutions_of_every_rank_agree_with_the_functions(rank, seed):
    rng = np.random.default_rng(seed)
    layer = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1](2, 3, 2, stride=2, padding=1, generator=seed)
    x = rng.integers(-4, 5, (2, 2, *[3] * rank)).astype(np.float32)
    layer.params["w"][...] = rng.integers(-4, 5, layer.params["w"].shape)
    layer.params["b"][...] = rng.integers(-4, 5, 3)
    axes = "NC" + "DHW"[3 - rank :]
    y, vjp = ck.conv_vjp(x, layer.params["w"], layer.params["b"], stride=2, padding=1, layout=axes)
    np.testing.assert_array_equal(layer(x), y)
    dx, dw, db = vjp(y)
    np.testing.assert_array_equal(layer.backward(y), dx)
    np.testing.assert_array_equal(layer.grads["w"], dw)
    np.testing.assert_array_equal(layer.grads["b"], db)


def test_the_first_layer_is_spared_the_gradient_by_its_input():
    net = nn.Sequential(nn.Conv2d(1, 2, 3, generator=0), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3, generator=0))
    x = np.ones((2, 1, 4, 4), np.float32)
    y = net(x)
    assert net.backward(y, input_grad=False) is None
    spared = {parameter.name: parameter.grad for parameter in net.parameters()}
    net(x)
    assert net.backward(y).shape == x.shape
    for parameter in net.parameters():
        np.testing.assert_array_equal(parameter.grad, spared[parameter.name])


def test_float32_stays_float32():
    net = nn.models.mnist_net((1, 8, 8), batch_norm=True, hdims=(5,), generator=0)
    y = net(np.ones((2, 1, 8, 8), np.float32))
    net.backward(y, input_grad=False)
    arrays = [y, *(parameter.grad for parameter in net.parameters()), *net.state_dict().values()]
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}


def test_evaluation_leaves_dropout_out_and_takes_running_statistics():
    x = np.random.default_rng(0).normal(3, 2, (16, 4, 3, 3))
    norm = nn.BatchNorm(4, momentum=0.0, eps=0, dtype=np.float64)
    y = norm(x)
    np.testing.assert_allclose(norm.eval()(x), y)
    np.testing.assert_allclose(norm(x[:1]), y[:1])
    np.testing.assert_allclose(
        norm.backward(np.ones_like(x[:1])), np.broadcast_to(1 / x.std((0, 2, 3))[:, None, None], (1, 4, 3, 3))
    )
    for layer in (nn.Dropout(0.5, generator=0), nn.Dropout2d(0.5, generator=0)):
        assert 0 in layer(x)
        assert layer.eval()(x) is x
        assert layer.backward(x) is x


def test_a_residual_adds_both_ways():
    net = nn.Residual(nn.Linear(3, 2, **F64), nn.Linear(3, 2, **F64))
    x, dy = np.ones((1, 3)), np.ones((1, 2))
    np.testing.assert_allclose(net(x), 2 * net.body(x))
    np.testing.assert_allclose(net.backward(dy), 2 * dy @ net.body.params["w"].T)
    assert [parameter.name for parameter in net.parameters()] == ["body.w", "body.b", "shortcut.w", "shortcut.b"]
    assert nn.Residual(nn.ReLU()).backward.__self__.parameter_count == 0


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 3]), st.booleans())
def test_a_relu_and_a_max_pool_run_in_the_cheaper_order_to_the_same_bits(seed, stride, strange):
    rng = np.random.default_rng(seed)
    x = rng.integers(-2, 3, (2, 3, 6, 5)).astype(float)
    if strange:
        x[rng.random(x.shape) < 0.05] = np.nan
        x[rng.random(x.shape) < 0.05] = -np.inf
    first, second = nn.ReLU(), nn.MaxPool(3, stride=stride, padding=1)
    order = []
    net = nn.Sequential(nn.ReLU(), nn.MaxPool(3, stride=stride, padding=1))
    for stage in net.stages:
        stage.forward = lambda x, stage=stage: (order.append(stage), type(stage).forward(stage, x))[1]
    y = net(x)
    assert order == list(net.stages[::-1])
    np.testing.assert_array_equal(y, second(first(x)))
    dy = rng.integers(1, 5, y.shape).astype(float)
    np.testing.assert_array_equal(net.backward(dy), first.backward(second.backward(dy)))


def test_kaiming_keeps_the_deviation():
    layer = nn.Conv2d(64, 64, 3, padding=1, generator=0)
    assert layer.params["w"].std() == pytest.approx(np.sqrt(2 / (64 * 9)), rel=0.01)
    assert not layer.params["b"].any()
    wide = nn.ConvTranspose2d(64, 64, 4, stride=2, padding=1, generator=0)
    x = np.maximum(np.random.default_rng(1).normal(size=(1, 64, 16, 16)), 0) * np.sqrt(2)
    for each in (layer, wide):
        assert each(x)[..., 4:-4, 4:-4].std() == pytest.approx(np.sqrt(2), rel=0.1)


def test_weights_do_not_depend_on_the_layout():
    first, second = (nn.models.mnist_net(layout=layout, generator=5).state_dict() for layout in ("NCHW", "NHWC"))
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])


X = np.ones((1, 2, 4, 4), np.float32)
# fmt: off
REFUSED = [
    (lambda: nn.Conv2d(4, 6, 3, groups=4), ck.OptionError, "out_channels=6 must be divisible by groups=4"),
    (lambda: nn.Conv2d(0, 6, 3), ck.OptionError, "in_channels=0 must be at least 1"),
    (lambda: nn.Conv2d(2, 6, 0), ck.OptionError, "kernel_size=0 must be at least 1"),
    (lambda: nn.Conv2d(2, 6, 3, layout="NCW"), ck.LayoutError, "layout='NCW' has the spatial axes 'W', must have 'HW'"),
    (lambda: nn.Conv2d(3, 6, 3)(X), ck.ShapeError, "conv_vjp: "),
    (lambda: nn.Linear(2, 0), ck.OptionError, "out_features=0 must be at least 1"),
    (lambda: nn.Linear(2, 2)(np.ones((3, 4))), ck.ShapeError, "affine_vjp: w has shape (2, 2), must have (4, M)"),
    (lambda: nn.Dropout(1.0), ck.OptionError, "rate=1.0 must be at least 0 and below 1"),
    (lambda: nn.BatchNorm(0), ck.OptionError, "shape=0 must be at least 1"),
    (lambda: nn.Sequential(nn.ReLU(), "relu"), ck.DTypeError, "'relu' must be a Layer"),
    (lambda: nn.ReLU().backward(X), ck.OrderError, "ReLU: backward needs a forward before it"),
    (lambda: next(nn.Linear(2, 2).parameters()).grad, ck.OrderError, "parameter 'w' has no gradient: backward comes first"),
    (lambda: nn.Flatten()(X[:0]), ck.ShapeError, "x has shape (0, 2, 4, 4), must not be empty"),
    (lambda: nn.check_gradients(nn.Linear(2, 2), np.ones((1, 2)), [0]), ck.DTypeError, "w has dtype float32, must be float64: differences need its precision"),
    (lambda: nn.Linear(2, 2).load_state_dict({"w": np.ones((2, 2))}), ck.DataError, "the state has no 'b', which the network has"),
    (lambda: nn.Linear(2, 2).load_state_dict({"w": np.ones((2, 2)), "b": np.ones(2), "c": 1}), ck.DataError, "the state's 'c' must be one of the network's 'w', 'b'"),
    (lambda: nn.Linear(2, 2).load_state_dict({"w": np.ones((2, 3)), "b": np.ones(2)}), ck.ShapeError, "the state's 'w' has shape (2, 3), must have (2, 2)"),
    (lambda: nn.models.mnist_net((1, 3, 8)), ck.OptionError, "xdim=(1, 3, 8) is too small for 2 pools"),
    (lambda: nn.models.lenet5((1, 8, 8)), ck.OptionError, "xdim=(1, 8, 8) is too small"),
    (lambda: nn.models.three_layer_net(filter_size=2), ck.OptionError, "filter_size=2 must be odd"),
]
# fmt: on


@pytest.mark.parametrize(("call", "kind", "message"), REFUSED)
def test_bad_arguments_are_refused(call, kind, message):
    with pytest.raises(kind, match=re.escape(message)):
        call()


def test_a_backward_belongs_to_one_forward():
    layer = nn.ReLU()
    layer.backward(layer(X))
    with pytest.raises(ck.OrderError):
        layer.backward(X)


def test_a_wrong_gradient_is_found():
    class Half(nn.ReLU):
        def backward(self, dy, *, input_grad=True):
            return super().backward(dy, input_grad=input_grad) / 2

    rng = np.random.default_rng(0)
    net = nn.Sequential(nn.Linear(4, 4, **F64), Half(), nn.Linear(4, 3, **F64))
    errors = nn.check_gradients(net, rng.normal(size=(5, 4)), rng.integers(0, 3, 5))
    assert errors["0.w"] > 0.3 < errors["x"]
    assert errors["2.w"] < 1e-6


def test_a_gradient_check_leaves_the_network_as_it_was():
    rng = np.random.default_rng(0)
    net = nn.models.mnist_net((1, 4, 4), (2,), (3,), 3, batch_norm=True, dtype=np.float64, generator=rng)
    before = {name: array.copy() for name, array in net.state_dict().items()}
    for parameter in net.parameters():  # a bias of 0 behind a picture dropped whole is on ReLU's kink
        parameter.value[...] += rng.normal(size=parameter.value.shape) / 3
        before[parameter.name] = parameter.value.copy()
    state = rng.bit_generator.state
    errors = nn.check_gradients(net, np.random.default_rng(1).normal(size=(4, 1, 4, 4)), [0, 1, 2, 0])
    assert max(errors.values()) < 1e-5, errors
    assert rng.bit_generator.state == state
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_pictures_of_another_type_are_promoted():
    assert nn.Linear(2, 2)(np.ones((1, 2))).dtype == np.float64
