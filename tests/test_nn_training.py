"""Optimisers, the training loop, and checkpoints that go on as if nothing had happened."""

from __future__ import annotations

import re

import numpy as np
import pytest

import convkernels as ck
from convkernels import nn

OPTIMISERS = {
    "SGD": lambda **more: nn.SGD(lr=0.05, momentum=0.9, **more),
    "RMSProp": lambda **more: nn.RMSProp(lr=0.003, **more),
    "Adam": lambda **more: nn.Adam(lr=0.01, **more),
    "AdamW": lambda **more: nn.AdamW(lr=0.01, **more),
}


def pictures(count=90, classes=3):
    """Noise with a bright bar whose place is the class."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, classes, count)
    x = rng.normal(size=(count, 1, 8, 8)).astype(np.float32)
    x[np.arange(count), 0, 2 * y] += 3
    return nn.data.Dataset("bars", x[20:], y[20:], x[:20], y[:20], ("top", "middle", "bottom"), "nobody")


def trainer(optimiser="Adam", augment=True, **more):
    net = nn.models.mnist_net((1, 8, 8), (4, 8), (16,), 3, batch_norm=True, dropout=0.1, generator=1)
    chosen = nn.data.crops_and_flips(1) if augment else None
    return nn.Trainer(net, pictures(), OPTIMISERS[optimiser](), batch_size=16, augment=chosen, lr_decay=0.9, **more)


def by_hand(rule, w, gradients, lr, decay):
    """Parameters by a rule written out with the loss' gradient, step by step."""
    w, first, second = float(w), 0.0, 0.0
    for step, gradient in enumerate(gradients, start=1):
        g = gradient if rule == "AdamW" else gradient + decay * w
        if rule == "AdamW":
            w -= lr * decay * w
        if rule == "SGD":
            first = 0.9 * first + g
            w -= lr * first
        elif rule == "RMSProp":
            second = 0.99 * second + 0.01 * g * g
            w -= lr * g / (second**0.5 + 1e-8)
        else:
            first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g * g
            w -= lr * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)) ** 0.5 + 1e-8)
    return w


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("rule", OPTIMISERS)
def test_rules_by_hand(rule, decay):
    gradients = [0.3, -2.0, 0.7]
    optimiser = OPTIMISERS[rule](weight_decay=decay)
    net = nn.Linear(300, 300, dtype=np.float64)  # more numbers than a block
    net.params["w"][...] = net.params["b"][...] = 1.5
    for gradient in gradients:
        net.grads = {"w": np.full((300, 300), gradient), "b": np.full(300, gradient)}
        optimiser.step(net)
    expected = [by_hand(rule, 1.5, gradients, optimiser.lr, share) for share in (decay, 0.0)]
    np.testing.assert_allclose(net.params["w"], expected[0], rtol=1e-12)
    np.testing.assert_allclose(net.params["b"], expected[1], rtol=1e-12)


@pytest.mark.parametrize("rule", OPTIMISERS)
def test_float32_stays_float32(rule):
    optimiser, net = OPTIMISERS[rule](weight_decay=0.1), nn.Linear(3, 2, generator=0)
    net.backward(net(np.ones((1, 3), np.float32)))
    optimiser.step(net)
    arrays = [net.params["w"], *optimiser.moments["w"].values()]
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}


@pytest.mark.parametrize("rule", OPTIMISERS)
def test_it_learns(rule):
    found = trainer(rule, augment=False)
    before = found.evaluate(found.data.train_x, found.data.train_y)
    assert before.accuracy < 0.7
    assert found.fit(epochs=15).accuracy >= 0.9
    assert found.net.training
    history = found.history
    assert len(history["loss"]) == len(history["accuracy"]) == 15 * 5
    assert len(history["test_loss"]) == len(history["test_accuracy"]) == 15
    assert np.mean(history["loss"][-5:]) < 0.5 * np.mean(history["loss"][:5])
    assert found.optimiser.lr == pytest.approx(OPTIMISERS[rule]().lr * 0.9**15)
    labels = found.predict(found.data.test_x)
    assert np.mean(labels == found.data.test_y) == history["test_accuracy"][-1]


def test_a_hundred_digits_are_learned_by_heart():
    pytest.importorskip("sklearn", reason="needs the extra convkernels[nn]")
    digits = nn.data.digits()
    data = nn.data.Dataset(
        "a hundred",
        *(digits.train_x[:100], digits.train_y[:100], digits.test_x[:1], digits.test_y[:1]),
        *(digits.classes, digits.credit),
    )
    net = nn.models.three_layer_net((1, 8, 8), filter_size=3, generator=0)
    found = nn.Trainer(net, data, nn.Adam(lr=1e-3), batch_size=50)
    found.fit(epochs=40)
    assert found.evaluate(data.train_x, data.train_y).accuracy == 1.0


@pytest.mark.parametrize("stopped_after", [1, 5, 7, 14])
@pytest.mark.parametrize("rule", OPTIMISERS)
def test_an_interrupted_training_goes_on_exactly(rule, stopped_after, tmp_path):
    whole = trainer(rule)
    whole.fit(epochs=3)
    first = trainer(rule)
    for done, _ in enumerate(first.steps(epochs=3), start=1):
        if done == stopped_after:
            break
    first.save(tmp_path / "stopped.npz")
    second = trainer(rule)
    second.net.load_state_dict({name: array + 1 for name, array in second.net.state_dict().items()})
    second.load(tmp_path / "stopped.npz")
    second.fit(epochs=3)
    assert second.history == whole.history
    for name, array in whole.net.state_dict().items():
        np.testing.assert_array_equal(array, second.net.state_dict()[name], err_msg=name)
    assert [file.name for file in tmp_path.iterdir()] == ["stopped.npz"]


def test_the_same_seed_trains_the_same_and_another_does_not():
    losses = []
    for seed in (0, 0, 1):
        found = trainer(seed=seed)
        found.fit(epochs=1)
        losses.append(found.history["loss"])
    assert losses[0] == losses[1] != losses[2]


def test_each_step_makes_pictures_of_its_own():
    found, drawn = trainer(), []
    found.augment = lambda x, generator: (drawn.append(generator.integers(2**63)), x)[1]
    found.fit(epochs=2)
    assert len(set(drawn)) == 10


def test_every_picture_is_seen_once_an_epoch():
    found, seen = trainer(augment=False), []
    found.loss = lambda scores, labels: (seen.extend(labels), ck.losses.softmax_cross_entropy_vjp(scores, labels))[1]
    for step in found.steps(epochs=1):
        if step.batch == found.steps_per_epoch - 2:
            break
    assert len(seen) == 64
    list(found.steps(epochs=1))
    assert sorted(seen[:70]) == sorted(found.data.train_y.tolist())


def test_a_checkpoint_is_written_after_each_epoch(tmp_path):
    found = trainer()
    found.fit(epochs=2, checkpoint=tmp_path / "run.npz")
    again = trainer()
    again.load(tmp_path / "run.npz")
    assert again.step == 10
    assert again.history == found.history


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (lambda: trainer("SGD"), "is of a training with optimiser='Adam', this one has 'SGD'"),
        (
            lambda: nn.Trainer(nn.ReLU(), pictures(), nn.Adam(0.5), batch_size=16),
            "is of a training with lr=0.01, this one has 0.5",
        ),
        (lambda: trainer(seed=3), "is of a training with seed=0, this one has 3"),
        (
            lambda: nn.Trainer(nn.ReLU(), pictures(80), nn.Adam(0.01), batch_size=16, lr_decay=0.9),
            "samples=70, this one has 60",
        ),
        (
            lambda: nn.Trainer(nn.ReLU(), pictures(), nn.Adam(0.01), batch_size=16, lr_decay=0.9),
            "has 2 generators, the network has 0",
        ),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(other, words, tmp_path):
    trainer().save(tmp_path / "run.npz")
    with pytest.raises(ck.DataError, match=re.escape(words)):
        other().load(tmp_path / "run.npz")


def test_broken_checkpoints_are_refused(tmp_path):
    file = tmp_path / "run.npz"
    with pytest.raises(ck.DataError, match=r"there is no file .*run\.npz"):
        trainer().load(file)
    trainer().save(file)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ck.DataError, match=r"run\.npz is no \.npz of plain arrays"):
        trainer().load(file)
    nn.save_arrays(file, {"w": np.ones(2)})
    with pytest.raises(ck.DataError, match=r"run\.npz is no checkpoint of a training"):
        trainer().load(file)
    with pytest.raises(ck.DataError, match=r"must end in one of '\.npz', '\.safetensors'"):
        trainer().save(tmp_path / "run.pkl")


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_weights_go_to_a_file_and_back(suffix, tmp_path):
    if suffix == ".safetensors":
        pytest.importorskip("safetensors", reason="needs the extra convkernels[nn]")
    file, net = tmp_path / f"weights{suffix}", nn.models.mnist_net((1, 8, 8), batch_norm=True, generator=0)
    nn.save_arrays(file, net.state_dict())
    other = nn.models.mnist_net((1, 8, 8), batch_norm=True, generator=1)
    other.load_state_dict(nn.load_arrays(file))
    for name, array in net.state_dict().items():
        assert other.state_dict()[name].dtype == array.dtype
        np.testing.assert_array_equal(other.state_dict()[name], array)
    file.write_bytes(b"nonsense")
    with pytest.raises(ck.DataError, match=f"is no {suffix}"):
        nn.load_arrays(file)


def test_pickles_are_refused(tmp_path):
    np.savez(tmp_path / "weights.npz", w=np.array([{}], object))
    with pytest.raises(ck.DataError, match=r"is no \.npz of plain arrays: Object arrays cannot be loaded"):
        nn.load_arrays(tmp_path / "weights.npz")
    with pytest.raises(ck.DataError, match="'w' has dtype object, which only a pickle could keep"):
        nn.save_arrays(tmp_path / "weights.npz", {"w": np.array([{}], object)})


def test_a_save_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "weights.npz"
    nn.save_arrays(file, {"w": np.ones(2)})

    def fail(*arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(KeyboardInterrupt):
        nn.save_arrays(file, {"w": np.zeros(2)})
    assert [each.name for each in tmp_path.iterdir()] == ["weights.npz"]
    np.testing.assert_array_equal(nn.load_arrays(file)["w"], np.ones(2))


# fmt: off
REFUSED = [
    (lambda: nn.SGD(lr=-1), ck.OptionError, "lr=-1 must be a finite number, at least 0"),
    (lambda: nn.SGD(momentum=1), ck.OptionError, "momentum=1 must be at least 0 and below 1"),
    (lambda: nn.Adam(betas=(0.9,)), ck.OptionError, "betas=(0.9,) must be two numbers"),
    (lambda: nn.Adam().load_state_dict({"w/velocity": np.ones(2), "lr": np.array(1), "steps": np.array(1)}), ck.DataError, "'w/velocity' must be one of Adam's moments ('mean', 'square')"),
    (lambda: nn.Adam().load_state_dict({"lr": np.array(1)}), ck.DataError, "the state of an optimiser must have the number 'steps'"),
    (lambda: nn.Trainer(nn.ReLU(), pictures(), nn.Adam(0.01), batch_size=0), ck.OptionError, "batch_size=0 must be at least 1"),
    (lambda: nn.Trainer(nn.ReLU(), pictures(), nn.Adam(0.01), seed=-1), ck.OptionError, "seed=-1 must be at least 0"),
    (lambda: nn.Trainer(nn.ReLU(), pictures(20), nn.Adam()), ck.ShapeError, "data has no pictures to train on"),
    (lambda: nn.Adam().step(nn.Linear(2, 2)), ck.OrderError, "parameter 'w' has no gradient: backward comes first"),
]
# fmt: on


@pytest.mark.parametrize(("call", "kind", "message"), REFUSED)
def test_bad_arguments_are_refused(call, kind, message):
    with pytest.raises(kind, match=re.escape(message)):
        call()
