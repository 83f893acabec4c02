"""`convkernels train`: what it prints and writes, and that an interrupted training goes on exactly."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("typer", reason="the command line needs the extra convkernels[cli]")
pytest.importorskip("matplotlib", reason="the command line needs the extra convkernels[cli]")
pytest.importorskip("sklearn", reason="the command line needs the extra convkernels[cli]")

from PIL import Image

from convkernels import nn
from convkernels.cli import app, main, train, train_pictures
from convkernels.nn.data import readers

WRITTEN = ["curves.png", "predictions.png", "weights.npz"]


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Run a command line in an empty folder; return its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: object) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["convkernels", "train", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        return stopped.value.code, *capsys.readouterr()

    return run


def files(folder):
    return sorted(file.name for file in folder.iterdir())


def test_the_choices_are_those_that_there_are():
    assert set(app.DATA) == set(train.PLANS)
    assert set(app.NETS) == set(train.NETS) >= {plan.net for plan in train.PLANS.values()}


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_training_on_the_digits(command, tmp_path, layout):
    code, out, err = command("--epochs", 2, "--layout", layout, "--output", tmp_path / "run", "--net", "lenet5x")
    assert (code, out) == (2, "")
    assert "'lenet5x' is not one of 'mnist', 'mnist-bn', 'three-layer', 'lenet5', 'resnet' (nearest: 'lenet5')" in err
    code, out, err = command("--epochs", 2, "--layout", layout, "--output", tmp_path / "run", "--net", "three-layer")
    assert (code, err) == (0, "")
    assert out.startswith("layer ")
    assert re.search(r"^Untrained: test accuracy 0\.\d{4}, where guessing has 0\.10$", out, re.MULTILINE)
    epochs = re.findall(
        r"^epoch (\d)/2: training loss \d\.\d{4}, accuracy 0\.\d{4}; test loss .* s$", out, re.MULTILINE
    )
    assert epochs == ["1", "2"]
    accuracy, right = re.search(r"^Test accuracy (0\.\d{4}): (\d+) of 360$", out, re.MULTILINE).groups()
    assert float(accuracy) == round(int(right) / 360, 4) > 0.8
    assert files(tmp_path / "run") == WRITTEN
    for picture in WRITTEN[:2]:
        with Image.open(tmp_path / "run" / picture) as opened:
            assert opened.format == "PNG"
            assert min(opened.size) >= 400
    state = nn.load_arrays(tmp_path / "run" / "weights.npz")
    net = nn.models.three_layer_net((1, 8, 8), hidden_dim=500, generator=9)
    net.load_state_dict(state)
    data = nn.data.digits()
    assert np.sum(net.eval()(data.test_x).argmax(1) == data.test_y) == int(right)


def test_ctrl_c_leaves_a_checkpoint_that_goes_on_exactly(command, tmp_path):
    whole = [*command("--epochs", 4, "--output", tmp_path / "whole")[1].splitlines()]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    program = "from convkernels.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "train", "--epochs", "4", "--output", str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    for line in process.stdout:
        if line.startswith("epoch 2/4"):
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.fullmatch(r"error: interrupted after \d+ steps: --resume goes on from .*checkpoint\.npz\n", err)
    assert files(tmp_path / "run") == ["checkpoint.npz"]
    code, _, err = command("--epochs", 4, "--output", tmp_path / "run")
    assert code == 2
    assert "is an unfinished training: --resume goes on with it, --output starts elsewhere" in err
    code, out, _ = command("--epochs", 4, "--output", tmp_path / "run", "--resume")
    assert code == 0
    assert files(tmp_path / "run") == WRITTEN
    strip = lambda line: line.rpartition(";")[0]  # noqa: E731  # all but the time
    assert [strip(line) for line in out.splitlines() if line.startswith("epoch 4")] == [
        strip(line) for line in whole if line.startswith("epoch 4")
    ]
    first, second = (nn.load_arrays(tmp_path / name / "weights.npz") for name in ("whole", "run"))
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name], err_msg=name)


@pytest.fixture
def python_s_own():
    """Python's handling of interrupts, which a process started in the background by a shell ignores."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("python_s_own")
def test_an_interrupt_is_noted_once_and_then_python_s_own():
    with train.watched_for_interrupts() as interrupted:
        assert not interrupted()
        signal.raise_signal(signal.SIGINT)
        assert interrupted()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["mnst"], "'mnst' is not one of 'digits', 'mnist', 'cifar10' (nearest: 'mnist')"),
        (["mnist"], "error: mnist is read from your own copy: --data says in which folder its files are"),
        (["digits", "--data", "."], "error: the digits come with scikit-learn: --data is for mnist and cifar10"),
        (["mnist", "--data", "nowhere"], "error: there is no folder nowhere"),
        (["mnist", "--data", "."], "error: there is no file train-images-idx3-ubyte, nor with .gz"),
        (
            ["cifar10", "--data", "."],
            "error: there is no file data_batch_1.bin: the folder must have CIFAR-10's binary",
        ),
        (["--layout", "NCW"], "error: layout='NCW' has the spatial axes 'W', must have 'HW'"),
        (["--resume"], "error: there is no convkernels-train/checkpoint.npz to go on from"),
        (["--net", "lenet5"], "error: xdim=(1, 8, 8) is too small"),
        (["--epochs", "0"], "Invalid value for '--epochs': "),
    ],
)
def test_what_cannot_be_trained_is_one_sentence(command, arguments, words):
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert "Traceback" not in err


def test_a_folder_that_cannot_be_made(command, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = command("--output", tmp_path / "file")
    assert code == 1
    assert re.fullmatch(r"error: cannot write into .*file: File exists\n", err)


def test_mnist_files_are_trained_on(command, tmp_path):
    digits = nn.data.digits()
    for part, x, y in (("train", digits.train_x, digits.train_y), ("t10k", digits.test_x, digits.test_y)):
        pictures = np.zeros((100, 28, 28), np.uint8)
        pictures[:, 6:22, 6:22] = 255 * np.repeat(np.repeat(x[:100, 0], 2, 1), 2, 2)
        for name, array in ((f"{part}-images-idx3-ubyte", pictures), (f"{part}-labels-idx1-ubyte", y[:100])):
            header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4) for size in array.shape)
            (tmp_path / name).write_bytes(header + array.astype(np.uint8).tobytes())
    code, out, err = command("mnist", "--data", tmp_path, "--epochs", 1, "--batch-size", 50)
    assert (code, err) == (0, "")
    assert "119,530" in out
    assert files(tmp_path / "convkernels-train") == WRITTEN


def test_cifar10_files_are_trained_on(command, tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "PER_FILE", 10)
    for seed, name in enumerate([*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]):
        records = np.random.default_rng(seed).integers(0, 256, (10, readers.RECORD)).astype(np.uint8)
        records[:, 0] = np.arange(10)
        (tmp_path / f"{name}.bin").write_bytes(records.tobytes())
    code, out, err = command("cifar10", "--data", tmp_path, "--net", "resnet")
    assert (code, err) == (0, "")
    assert "78,042" in out
    assert "epoch 1/1: training loss" in out
    assert "airplane" in out
    assert files(tmp_path / "convkernels-train") == WRITTEN


def test_the_grid_shows_what_is_wrong_first_and_in_red():
    data = nn.data.digits()
    found = data.test_y.copy()
    found[30] = (found[30] + 1) % 10
    titles = [axes.title for axes in train_pictures.predictions(data, found).axes]
    assert len(titles) == 25
    assert titles[0].get_text() == f"{found[30]}, is {data.test_y[30]}"
    assert [title.get_color() for title in titles] == ["crimson"] + ["black"] * 24


def test_the_confusion_matrix_counts_every_picture():
    data = nn.data.digits()
    found = (data.test_y + (np.arange(len(data.test_y)) % 7 == 0)) % 10
    columns = [list(column.cells) for column in train_pictures.confusion(data, found).columns[1:]]
    counts = np.array([[0 if cell == "." else int(cell) for cell in column] for column in columns]).T
    assert counts.sum() == len(found)
    np.testing.assert_array_equal(np.trace(counts), np.sum(found == data.test_y))
    np.testing.assert_array_equal(counts.sum(1), np.bincount(data.test_y))
