"""CS231n's functions: the calls that the course's notebooks make, with the values that they print; and the kit."""

from __future__ import annotations

import re

import numpy as np
import pytest

import convkernels as ck
from convkernels.courses import cs231n
from convkernels.testing import check_kernel
from convkernels.testing.kernel import COURSES

CONV = {"stride": 2, "pad": 1}
POOL = {"pool_height": 2, "pool_width": 2, "stride": 2}
VARIANTS = ("fast", "im2col", "strides")
WITHOUT_CACHE = {name: case.forward for name, case in COURSES["cs231n"].items() if case.forward is not None}


def ramp(low, high, *shape):
    return np.linspace(low, high, int(np.prod(shape))).reshape(shape)


def numeric(f, x, dout, h=1e-5):
    """The gradient of sum(f(x) * dout), by central differences, as the course's gradient check has it."""
    gradient = np.zeros_like(x)
    for place in np.ndindex(*x.shape):
        kept = x[place]
        x[place] = kept + h
        above = f(x).copy()
        x[place] = kept - h
        below = f(x).copy()
        x[place] = kept
        gradient[place] = np.sum((above - below) * dout) / (2 * h)
    return gradient


def near(found, expected, most=1e-7):
    assert np.max(np.abs(found - expected) / np.maximum(1e-8, np.abs(found) + np.abs(expected))) < most


@pytest.mark.parametrize("name", sorted(COURSES["cs231n"]))
def test_the_kit_finds_nothing_wrong_and_nothing_unusual(name):
    forward = WITHOUT_CACHE.get(name)
    report = check_kernel(
        getattr(cs231n, name),
        convention="cs231n",
        forward=getattr(cs231n, forward.name) if forward else None,
        examples=25,
    )
    report.check()
    assert not report.remarks


@pytest.mark.parametrize("name", sorted(name for name, forward in WITHOUT_CACHE.items() if forward.cache))
def test_a_backward_takes_the_cache_that_the_course_lays_down(name):
    check_kernel(getattr(cs231n, name), convention="cs231n", examples=25).check()


def test_conv_forward_gives_the_course_s_values():
    x, w, b = ramp(-0.1, 0.5, 2, 3, 4, 4), ramp(-0.2, 0.3, 3, 3, 4, 4), np.linspace(-0.1, 0.2, 3)
    expected = [-0.08759809, -0.10987781, -0.18387192, -0.2109216, 0.21027089, 0.21661097, 0.22847626, 0.23004637]
    expected += [0.50813986, 0.54309974, 0.64082444, 0.67101435, -0.98053589, -1.03143541, -1.19128892, -1.24695841]
    expected += [0.69108355, 0.66880383, 0.59480972, 0.56776003, 2.36270298, 2.36904306, 2.38090835, 2.38247847]
    for variant in ("naive", *VARIANTS):
        out, _ = getattr(cs231n, f"conv_forward_{variant}")(x, w, b, CONV)
        near(out, np.reshape(expected, (2, 3, 2, 2)))


def test_max_pool_forward_gives_the_course_s_values():
    expected = [-0.26315789, -0.24842105, -0.20421053, -0.18947368, -0.14526316, -0.13052632, -0.08631579, -0.07157895]
    expected += [-0.02736842, -0.01263158, 0.03157895, 0.04631579, 0.09052632, 0.10526316, 0.14947368, 0.16421053]
    expected += [0.20842105, 0.22315789, 0.26736842, 0.28210526, 0.32631579, 0.34105263, 0.38526316, 0.4]
    for variant in ("naive", "reshape", *VARIANTS):
        out, _ = getattr(cs231n, f"max_pool_forward_{variant}")(ramp(-0.3, 0.4, 2, 3, 4, 4), POOL)
        near(out, np.reshape(expected, (2, 3, 2, 2)))


def test_affine_and_relu_give_the_course_s_values():
    out, _ = cs231n.affine_forward(ramp(-0.1, 0.5, 2, 4, 5, 6), ramp(-0.2, 0.3, 120, 3), np.linspace(-0.3, 0.1, 3))
    near(out, np.array([[1.49834967, 1.70660132, 1.91485297], [3.25553199, 3.5141327, 3.77273342]]))
    out, _ = cs231n.relu_forward(ramp(-0.5, 0.5, 3, 4))
    expected = [0, 0, 0, 0, 0, 0, 0.04545455, 0.13636364, 0.22727273, 0.31818182, 0.40909091, 0.5]
    near(out, np.reshape(expected, (3, 4)))


def test_gradients_agree_with_differences():
    rng = np.random.default_rng(231)
    x, w, b = rng.normal(size=(4, 3, 5, 5)), rng.normal(size=(2, 3, 3, 3)), rng.normal(size=2)
    dout, param = rng.normal(size=(4, 2, 5, 5)), {"stride": 1, "pad": 1}
    dx, dw, db = cs231n.conv_backward_naive(dout, cs231n.conv_forward_naive(x, w, b, param)[1])
    near(dx, numeric(lambda x: cs231n.conv_forward_fast(x, w, b, param)[0], x, dout), 1e-6)
    near(dw, numeric(lambda w: cs231n.conv_forward_fast(x, w, b, param)[0], w, dout), 1e-6)
    near(db, numeric(lambda b: cs231n.conv_forward_fast(x, w, b, param)[0], b, dout), 1e-6)
    x, dout = rng.normal(size=(3, 2, 8, 8)), rng.normal(size=(3, 2, 4, 4))
    dx = cs231n.max_pool_backward_naive(dout, cs231n.max_pool_forward_naive(x, POOL)[1])
    near(dx, numeric(lambda x: cs231n.max_pool_forward_fast(x, POOL)[0], x, dout), 1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_fast_versions_agree_with_the_naive_one(variant):
    rng = np.random.default_rng(231)
    x, w, b = rng.normal(size=(5, 3, 31, 31)), rng.normal(size=(25, 3, 3, 3)), rng.normal(size=25)
    dout = rng.normal(size=(5, 25, 16, 16))
    out, cache = cs231n.conv_forward_naive(x, w, b, CONV)
    fast, fast_cache = getattr(cs231n, f"conv_forward_{variant}")(x, w, b, CONV)
    near(fast, out)
    found = getattr(cs231n, f"conv_backward_{variant}")(dout, fast_cache)
    assert isinstance(found, tuple)
    for gradient, expected in zip(found, cs231n.conv_backward_naive(dout, cache), strict=True):
        np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-9)
    x = rng.normal(size=(5, 3, 32, 32))
    out, cache = cs231n.max_pool_forward_naive(x, POOL)
    fast, fast_cache = getattr(cs231n, f"max_pool_forward_{variant}")(x, POOL)
    np.testing.assert_array_equal(fast, out)
    found = getattr(cs231n, f"max_pool_backward_{variant}")(out, fast_cache)
    np.testing.assert_array_equal(found, cs231n.max_pool_backward_naive(out, cache))


def test_reshape_shares_the_gradient_among_equal_maxima():
    out, cache = cs231n.max_pool_forward_reshape(np.zeros((1, 1, 2, 2)), POOL)
    assert (cs231n.max_pool_backward_reshape(np.ones_like(out), cache) == 0.25).all()


SANDWICHES = {
    "conv_relu": ({"conv_param": CONV}, ("x", "w", "b")),
    "conv_relu_pool": ({"conv_param": {"stride": 1, "pad": 1}, "pool_param": POOL}, ("x", "w", "b")),
    "conv_bn_relu": (
        {"conv_param": CONV, "bn_param": {"mode": "train", "eps": 0.1}},
        ("x", "w", "b", "gamma", "beta"),
    ),
}


@pytest.mark.parametrize("name", SANDWICHES)
def test_sandwiches_agree_with_differences(name):
    rng, (params, names) = np.random.default_rng(5), SANDWICHES[name]
    shapes = {"x": (2, 3, 8, 8), "w": (3, 3, 3, 3), "b": (3,), "gamma": (3,), "beta": (3,)}
    arrays = {name: rng.normal(size=shapes[name]) for name in names}
    forward = getattr(cs231n, f"{name}_forward")
    out, cache = forward(**arrays, **params)
    dout = rng.normal(size=out.shape)
    for key, gradient in zip(names, getattr(cs231n, f"{name}_backward")(dout, cache), strict=True):
        expected = numeric(lambda array, key=key: forward(**{**arrays, key: array}, **params)[0], arrays[key], dout)
        np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_affine_relu_agrees_with_differences():
    rng = np.random.default_rng(5)
    x, w, b, dout = (rng.normal(size=shape) for shape in ((2, 3, 4), (12, 10), (10,), (2, 10)))
    found = cs231n.affine_relu_backward(dout, cs231n.affine_relu_forward(x, w, b)[1])
    np.testing.assert_allclose(found[0], numeric(lambda x: cs231n.affine_relu_forward(x, w, b)[0], x, dout), atol=1e-7)
    np.testing.assert_allclose(found[1], numeric(lambda w: cs231n.affine_relu_forward(x, w, b)[0], w, dout), atol=1e-7)
    np.testing.assert_allclose(found[2], numeric(lambda b: cs231n.affine_relu_forward(x, w, b)[0], b, dout), atol=1e-7)


def test_norms_have_the_means_and_deviations_that_the_notebooks_print():
    rng = np.random.default_rng(231)
    x = 4 * rng.normal(size=(2, 3, 4, 5)) + 10
    gamma, beta = np.array([3.0, 4.0, 5.0]), np.array([6.0, 7.0, 8.0])
    out, _ = cs231n.spatial_batchnorm_forward(x, gamma, beta, {"mode": "train"})
    near(out.mean((0, 2, 3)), beta)
    near(out.std((0, 2, 3)), gamma, 1e-5)
    bn_param = {"mode": "train"}
    for _ in range(50):
        x = 2.3 * rng.normal(size=(10, 4, 11, 12)) + 13
        cs231n.spatial_batchnorm_forward(x, np.ones(4), np.zeros(4), bn_param)
    bn_param["mode"] = "test"
    out, _ = cs231n.spatial_batchnorm_forward(x, np.ones(4), np.zeros(4), bn_param)
    assert np.abs(out.mean((0, 2, 3))).max() < 0.1
    assert np.abs(out.std((0, 2, 3)) - 1).max() < 0.1
    x = 4 * rng.normal(size=(2, 6, 4, 5)) + 10
    out, _ = cs231n.spatial_groupnorm_forward(x, np.ones((1, 6, 1, 1)), np.zeros((1, 6, 1, 1)), 2, {})
    rows = out.reshape(4, -1)
    np.testing.assert_allclose(rows.mean(1), 0, atol=1e-12)
    np.testing.assert_allclose(rows.std(1), 1, atol=1e-5)


def test_batch_norm_goes_back_with_its_own_eps_and_in_test_mode():
    x, gamma = np.random.default_rng(0).normal(size=(6, 3)), np.array([1.0, 2.0, 3.0])
    for mode in ("train", "test"):
        bn_param = {"mode": mode, "eps": 0.3, "running_var": np.ones(3), "running_mean": np.ones(3)}
        forward = lambda x, param=bn_param: cs231n.batchnorm_forward(x, gamma, gamma, dict(param))  # noqa: E731
        dx, _, _ = cs231n.batchnorm_backward(np.cos(x), forward(x)[1])
        np.testing.assert_allclose(dx, numeric(lambda x, f=forward: f(x)[0], x.copy(), np.cos(x)), atol=1e-8)


def test_dropout_draws_what_the_course_draws():
    np.random.seed(123)  # noqa: NPY002
    expected = (np.random.rand(3, 4) < 0.7) / 0.7  # noqa: NPY002
    np.random.seed(123)  # noqa: NPY002
    x = np.ones((3, 4), np.float32)
    out, (_, mask) = cs231n.dropout_forward(x, {"mode": "train", "p": 0.7})
    assert out.dtype == mask.dtype == np.float32
    np.testing.assert_array_equal(mask, expected.astype(np.float32))
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    again, _ = cs231n.dropout_forward(x, {"mode": "train", "p": 0.7, "seed": 123})
    np.testing.assert_array_equal(again, out)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


W, DW = ramp(-0.4, 0.6, 4, 5), ramp(-0.6, 0.4, 4, 5)


def test_sgd_momentum_gives_the_course_s_values():
    config = {"learning_rate": 1e-3, "velocity": ramp(0.6, 0.9, 4, 5)}
    w, config = cs231n.sgd_momentum(W, DW, config)
    near(w[0], np.array([0.1406, 0.20738947, 0.27417895, 0.34096842, 0.40775789]))
    near(w[3], np.array([1.14244211, 1.20923158, 1.27602105, 1.34281053, 1.4096]))
    near(config["velocity"][1], np.array([0.61138947, 0.62554737, 0.63970526, 0.65386316, 0.66802105]))


def test_rmsprop_gives_the_course_s_values():
    w, config = cs231n.rmsprop(W, DW, {"learning_rate": 1e-2, "cache": ramp(0.6, 0.9, 4, 5)})
    near(w[0], np.array([-0.39223849, -0.34037513, -0.28849239, -0.23659121, -0.18467247]))
    near(config["cache"][3], np.array([0.82883269, 0.84469141, 0.86060554, 0.87657507, 0.8926]))


def test_adam_gives_the_course_s_values():
    config = {"learning_rate": 1e-2, "m": ramp(0.6, 0.9, 4, 5), "v": ramp(0.7, 0.5, 4, 5), "t": 5}
    kept = W.copy()
    w, config = cs231n.adam(W, DW, config)
    near(w[0], np.array([-0.40094747, -0.34836187, -0.29577703, -0.24319299, -0.19060977]), 1e-6)
    near(w[3], np.array([0.38774145, 0.44031188, 0.49288093, 0.54544852, 0.59801459]), 1e-6)
    near(config["v"][0], np.array([0.69966, 0.68908382, 0.67851319, 0.66794809, 0.65738853]))
    near(config["m"][3], np.array([0.77210526, 0.79157895, 0.81105263, 0.83052632, 0.85]))
    assert config["t"] == 6
    np.testing.assert_array_equal(W, kept)


def test_sgd_keeps_no_velocity():
    w, config = cs231n.sgd(W, DW)
    np.testing.assert_allclose(w, W - 1e-2 * DW)
    assert config == {"learning_rate": 1e-2}


def test_the_untrained_loss_is_chance_and_regularisation_raises_it():
    np.random.seed(231)  # noqa: NPY002
    model = cs231n.ThreeLayerConvNet()
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 3, 32, 32)), rng.integers(10, size=50)
    loss, _ = model.loss(x, y)
    assert loss == pytest.approx(np.log(10), abs=1e-3)
    model.reg = 0.5
    assert loss < model.loss(x, y)[0] < loss + 0.5


@pytest.mark.parametrize(("size", "filter_size"), [((7, 9), 3), ((8, 5), 2), ((6, 6), 1)])
def test_the_three_layer_network_agrees_with_differences(size, filter_size):
    np.random.seed(231)  # noqa: NPY002
    model = cs231n.ThreeLayerConvNet((2, *size), 3, filter_size, 7, weight_scale=0.1, reg=0.1, dtype=np.float64)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 2, *size)), rng.integers(10, size=2)
    loss, grads = model.loss(x, y)
    assert isinstance(loss, float)
    for name, w in model.params.items():
        expected = numeric(lambda _: np.array(model.loss(x, y)[0]), w, 1.0)
        np.testing.assert_allclose(grads[name], expected, atol=1e-6, err_msg=name)


def test_float32_stays_float32():
    model = cs231n.ThreeLayerConvNet((1, 4, 4), 2, 3, 3, reg=0.1)
    _, grads = model.loss(np.ones((2, 1, 4, 4)), np.array([0, 1]))
    assert {array.dtype for array in (*grads.values(), *model.params.values())} == {np.dtype(np.float32)}


def small_data(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(40, 1, 6, 6)).astype(np.float32)
    return {"X_train": x, "y_train": rng.integers(3, size=40), "X_val": x[:10], "y_val": rng.integers(3, size=10)}


def solved(**options):
    np.random.seed(0)  # noqa: NPY002
    model = cs231n.ThreeLayerConvNet((1, 6, 6), 8, 3, 20, 3, weight_scale=0.1)
    solver = cs231n.Solver(model, small_data(), **options)
    solver.train()
    return solver


def test_the_solver_overfits_a_small_set(capsys):
    solver = solved(
        update_rule="adam", optim_config={"learning_rate": 1e-2}, num_epochs=50, batch_size=20, print_every=50
    )
    assert solver.train_acc_history[-1] == 1.0
    assert solver.loss_history[-1] < 0.05 < 1 < solver.loss_history[0]
    assert len(solver.loss_history) == 100
    assert len(solver.train_acc_history) == len(solver.val_acc_history) == 51
    assert solver.best_val_acc == max(solver.val_acc_history)
    out = capsys.readouterr().out
    assert re.fullmatch(r"\(Iteration 1 / 100\) loss: 1\.\d{6}", out.splitlines()[0])
    assert len(re.findall(r"^\(Iteration ", out, re.MULTILINE)) == 2
    assert (
        len(re.findall(r"^\(Epoch \d+ / 50\) train acc: [01]\.\d{6}; val_acc: [01]\.\d{6}$", out, re.MULTILINE)) == 51
    )


@pytest.mark.parametrize("rule", ["sgd", "sgd_momentum", "rmsprop", "adam"])
def test_every_rule_lowers_the_loss(rule):
    solver = solved(update_rule=rule, optim_config={"learning_rate": 1e-2}, num_epochs=10, verbose=False, batch_size=20)
    assert np.mean(solver.loss_history[-4:]) < solver.loss_history[0]


def test_the_same_seed_trains_the_same():
    options = {"num_epochs": 2, "batch_size": 10, "verbose": False, "lr_decay": 0.5}
    first, second = solved(**options), solved(**options)
    assert first.loss_history == second.loss_history
    assert first.optim_configs["W1"]["learning_rate"] == 1e-2 * 0.25


def test_checkpoints_are_plain_arrays(tmp_path):
    solver = solved(num_epochs=2, batch_size=20, verbose=False, checkpoint_name=str(tmp_path / "run"))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["run_epoch_1.npz", "run_epoch_2.npz"]
    with np.load(tmp_path / "run_epoch_2.npz", allow_pickle=False) as saved:
        assert saved["loss_history"].tolist() == solver.loss_history
        assert saved["W1"].shape == solver.model.params["W1"].shape


X4, X2 = np.ones((2, 3, 4, 4)), np.ones((2, 3))
# fmt: off
REFUSED = [
    (lambda: cs231n.conv_forward_naive(X4, X4, np.ones(2), {"stride": 1}), ck.OptionError, "conv_param={'stride': 1} must have the key 'pad'"),
    (lambda: cs231n.conv_forward_fast(X4, X4, np.ones(2), None), ck.OptionError, "conv_param is a NoneType, must be a dictionary with the key 'stride'"),
    (lambda: cs231n.conv_forward_fast(X4, np.ones((2, 2, 3, 3)), np.ones(2), CONV), ck.ShapeError, "conv2d_vjp: "),
    (lambda: cs231n.max_pool_forward_naive(X4, {"pool_height": 2, "stride": 2}), ck.OptionError, "must have the key 'pool_width'"),
    (lambda: cs231n.max_pool_forward_naive(X4, {**POOL, "pool_height": 5}), ck.ShapeError, "max_pool2d_vjp"),
    (lambda: cs231n.batchnorm_forward(X2, np.ones(3), np.ones(3), {"mode": "tain"}), ck.OptionError, "bn_param['mode']='tain' must be one of 'train', 'test' (nearest: 'train')"),
    (lambda: cs231n.batchnorm_forward(X4, np.ones(3), np.ones(3), {"mode": "train"}), ck.ShapeError, "x has shape (2, 3, 4, 4), must have (N, D)"),
    (lambda: cs231n.spatial_groupnorm_forward(X4, np.ones(3), np.ones(3), 3, {}), ck.ShapeError, "gamma has shape (3,), must have (1, 3, 1, 1) (x has shape (2, 3, 4, 4))"),
    (lambda: cs231n.dropout_forward(X2, {"mode": "train", "p": 0}), ck.OptionError, "dropout_param['p']=0 must be above 0 and at most 1: it is the probability to keep"),
    (lambda: cs231n.softmax_loss(X2, np.array([0, 3])), ck.OptionError, "labels[1]=3 must be at least 0 and below 3"),
    (lambda: cs231n.ThreeLayerConvNet((3, 32)), ck.OptionError, "input_dim=(3, 32) must be (C, H, W)"),
    (lambda: cs231n.ThreeLayerConvNet((3, 1, 8)), ck.OptionError, "input_dim=(3, 1, 8) is too small for filter_size=7 and the 2x2 pool"),
    (lambda: cs231n.Solver(None, {}), ck.OptionError, "data has [], must have 'X_train'"),
    (lambda: cs231n.Solver(None, small_data(), update_rule="adan"), ck.OptionError, "update_rule='adan' must be one of 'sgd', 'sgd_momentum', 'rmsprop', 'adam' (nearest: 'adam')"),
    (lambda: cs231n.Solver(None, small_data(), batch_size=0), ck.OptionError, "batch_size=0 must be at least 1"),
]
# fmt: on


@pytest.mark.parametrize(("call", "kind", "message"), REFUSED)
def test_bad_arguments_are_refused(call, kind, message):
    with pytest.raises(kind, match=re.escape(message)):
        call()
