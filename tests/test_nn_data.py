"""Pictures from files, and what is said of files that are not what they should be."""

from __future__ import annotations

import contextlib
import gzip
import re

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import convkernels as ck
from convkernels.nn import data
from convkernels.nn.data import readers


def idx(array, kind=8):
    header = bytes([0, 0, kind, array.ndim]) + b"".join(size.to_bytes(4) for size in array.shape)
    return header + array.astype(np.uint8).tobytes()


def bits(*shape, seed=0, high=256):
    return np.random.default_rng(seed).integers(0, high, shape).astype(np.uint8)


@pytest.fixture
def mnist_folder(tmp_path):
    files = {
        "train-images-idx3-ubyte": bits(6, 28, 28),
        "train-labels-idx1-ubyte": bits(6, high=10),
        "t10k-images-idx3-ubyte": bits(2, 28, 28, seed=1),
        "t10k-labels-idx1-ubyte": bits(2, seed=1, high=10),
    }
    for name, array in files.items():
        (tmp_path / name).write_bytes(idx(array))
    return tmp_path


@pytest.mark.parametrize("zipped", [False, True])
def test_mnist(mnist_folder, zipped):
    if zipped:
        for file in list(mnist_folder.iterdir()):
            (mnist_folder / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
            file.unlink()
    found = data.mnist(mnist_folder)
    assert found.picture_shape == (1, 28, 28)
    assert found.train_x.dtype == np.float32
    np.testing.assert_allclose(found.train_x[:, 0] * 255, bits(6, 28, 28), atol=1e-4)
    np.testing.assert_array_equal(found.train_y, bits(6, high=10))
    np.testing.assert_array_equal(found.test_y, bits(2, seed=1, high=10))
    assert found.train_y.dtype == np.int64
    assert found.train_x.max() <= 1


def test_mnist_under_its_other_names(mnist_folder):
    for file in list(mnist_folder.iterdir()):
        file.rename(mnist_folder / file.name.replace("-idx", ".idx"))
    assert len(data.mnist(mnist_folder).train_x) == 6


IMAGES = "train-images-idx3-ubyte"
BROKEN_MNIST = [
    (IMAGES, lambda old: None, "there is no file {}/train-images-idx3-ubyte, nor with .gz"),
    (IMAGES, lambda old: b"", "train-images-idx3-ubyte is no IDX file: it starts with nothing"),
    (IMAGES, lambda old: b"\x89PNG" + old, "train-images-idx3-ubyte is no IDX file: it starts with 89 50 4e 47"),
    (IMAGES, lambda old: idx(np.ones((2, 2), int), 13), "has elements of type 0x0d, must have 0x08, unsigned bytes"),
    (IMAGES, lambda old: old[:10], "is truncated: it ends within its header"),
    (IMAGES, lambda old: old[:-1], "is truncated: it has 4703 bytes of data, its shape (6, 28, 28) needs 4704"),
    (IMAGES, lambda old: old + b"\0", "is too long: there are bytes behind the 4704 of its shape (6, 28, 28)"),
    (
        IMAGES,
        lambda old: old[:4] + b"\xff" * 12,
        "says that its shape is (4294967295, 4294967295, 4294967295), too large",
    ),
    (IMAGES, lambda old: idx(bits(6)), "train-images-idx3-ubyte has 1 axes, must have 3"),
    (IMAGES, lambda old: idx(bits(6, 8, 8)), "pictures are of (8, 8) and of (28, 28) cells"),
    (
        IMAGES,
        lambda old: idx(bits(5, 28, 28)),
        "train-labels-idx1-ubyte has 6 labels, train-images-idx3-ubyte has 5 pictures",
    ),
    (
        "t10k-labels-idx1-ubyte",
        lambda old: old[:-1] + b"\x0a",
        "t10k-labels-idx1-ubyte has the label 10 in place 1, must be at most 9",
    ),
]


@pytest.mark.parametrize(("name", "change", "words"), BROKEN_MNIST)
def test_broken_mnist(mnist_folder, name, change, words):
    file = mnist_folder / name
    new = change(file.read_bytes())
    if new is None:
        file.unlink()
    else:
        file.write_bytes(new)
    with pytest.raises(ck.DataError, match=re.escape(words.format(mnist_folder))):
        data.mnist(mnist_folder)


@pytest.mark.parametrize(
    "change", [lambda old: old[:-9], lambda old: b"nonsense", lambda old: old[:40] + b"x" * 40 + old[80:]]
)
def test_a_broken_archive(tmp_path, change):
    file = tmp_path / "a-idx3-ubyte.gz"
    file.write_bytes(change(gzip.compress(idx(bits(6, 28, 28)))))
    with pytest.raises(ck.DataError, match=r"a-idx3-ubyte\.gz cannot be read: "):
        data.read_idx(file)


def test_a_long_archive_is_not_read_to_its_end(tmp_path):
    file = tmp_path / "a-idx1-ubyte.gz"
    file.write_bytes(gzip.compress(idx(bits(3)) + bytes(10**7)))
    with pytest.raises(ck.DataError, match="is too long"):
        data.read_idx(file)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=4), st.binary(max_size=30), st.integers(0, 90))
@example([0, 0, 0, 0], b"\x00\x04*\x00\x00\x00\xc3\x0c0\xc4", 10)  # large axes beside an empty one
def test_any_idx_file_is_read_or_refused(tmp_path_factory, shape, noise, cut):
    file = tmp_path_factory.mktemp("idx") / "a-idx-ubyte"
    array = bits(*shape)
    file.write_bytes(idx(array))
    np.testing.assert_array_equal(data.read_idx(file), array)
    file.write_bytes(idx(array)[:cut] + noise)
    with contextlib.suppress(ck.DataError):
        data.read_idx(file)


@pytest.fixture
def cifar_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "PER_FILE", 4)
    for seed, name in enumerate([*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]):
        records = bits(4, readers.RECORD, seed=seed)
        records[:, 0] %= 10
        (tmp_path / f"{name}.bin").write_bytes(records.tobytes())
    return tmp_path


def test_cifar10(cifar_folder):
    found = data.cifar10(cifar_folder)
    assert found.train_x.shape == (20, 3, 32, 32)
    assert found.test_x.shape == (4, 3, 32, 32)
    record = bits(4, 3073, seed=1)[2]
    assert found.train_y[6] == record[0] % 10
    assert found.train_x[6, 1, 0, 5] == pytest.approx(record[1 + 1024 + 5] / 255)
    assert found.classes[found.train_y[6]] == readers.CIFAR_CLASSES[record[0] % 10]


BROKEN_CIFAR = [
    (lambda file: file.unlink(), "there is no file {}: the folder must have CIFAR-10's binary version"),
    (lambda file: file.rename(file.with_suffix("")), "binary version; the pickled version is not read"),
    (lambda file: file.write_bytes(file.read_bytes()[:-1]), "{} is truncated: it has 12291 bytes, must have 12292"),
    (lambda file: file.write_bytes(file.read_bytes() + b"x"), "{} is too long: it has 12293 bytes, must have 12292"),
    (
        lambda file: file.write_bytes(b"\x0c" + file.read_bytes()[1:]),
        "{} has the label 12 in picture 0, must be at most 9",
    ),
]


@pytest.mark.parametrize(("change", "words"), BROKEN_CIFAR)
def test_broken_cifar10(cifar_folder, change, words):
    file = cifar_folder / "data_batch_3.bin"
    change(file)
    with pytest.raises(ck.DataError, match=re.escape(words.format(file))):
        data.cifar10(cifar_folder)


def test_the_digits_are_five_splits_of_all_pictures():
    pytest.importorskip("sklearn", reason="needs the extra convkernels[nn]")
    seen = []
    for fold in range(5):
        found = data.digits(fold)
        assert len(found.train_x) + len(found.test_x) == 1797
        share = np.bincount(found.test_y) / np.bincount(np.concatenate([found.train_y, found.test_y]))
        assert np.abs(share - 0.2).max() < 0.01
        assert found.train_x.max() == 1
        seen += [picture.tobytes() for picture in found.test_x]
        assert not {picture.tobytes() for picture in found.test_x[:0]} & {
            picture.tobytes() for picture in found.train_x
        }
    assert len(seen) == 1797
    assert data.digits(2).test_x.tobytes() == data.digits(2).test_x.tobytes()
    with pytest.raises(ck.DataError, match="fold=5 must be from 0 to 4"):
        data.digits(5)


def test_the_photos_have_an_attribution():
    pytest.importorskip("sklearn", reason="needs the extra convkernels[nn]")
    photos = data.sample_images()
    assert {name: photo.shape for name, photo in photos.items()} == dict.fromkeys(("china", "flower"), (427, 640, 3))
    assert "CC BY 2.0" in data.PHOTOS_CREDIT


@given(st.lists(st.integers(0, 3), min_size=2, max_size=40), st.integers(2, 5), st.integers(0, 99))
def test_folds_share_out_every_sample_once_and_each_class_evenly(labels, folds, seed):
    labels = np.array(labels)
    if folds > len(labels):
        return
    parts = data.stratified_folds(labels, folds, generator=seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    for label in range(4):
        counts = [int(np.sum(labels[part] == label)) for part in parts]
        assert max(counts) - min(counts) <= 1


def test_centred_pictures_have_the_mean_of_those_trained_on_subtracted():
    x = np.random.default_rng(0).random((5, 2, 3, 3), np.float32)
    found = data.Dataset("", x[:4], x, x[4:], x, (), "").centred()
    np.testing.assert_allclose(found.train_x.mean(0), 0, atol=1e-7)
    np.testing.assert_allclose(found.test_x[0], x[4] - x[:4].mean(0), atol=1e-7)
    assert found.train_x.dtype == np.float32


def test_batches_shuffle_by_a_generator():
    x = np.arange(10)
    first, again = (list(data.batches(x, x, 4, generator=3)) for _ in range(2))
    assert [len(part) for part, _ in first] == [4, 4, 2]
    assert sorted(np.concatenate([part for part, _ in first]).tolist()) == x.tolist()
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(*one)
    rest = list(data.batches(x, x, 4, generator=3, start=2))
    np.testing.assert_array_equal(rest[0][0], first[2][0])


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_crops_and_flips_move_and_mirror(layout):
    x = np.arange(1, 13, dtype=np.float32).reshape(1, 1, 3, 4)
    order = data.Dataset("", x, x, x, x, (), "").in_layout(layout)
    augment = data.crops_and_flips(1, layout=layout)
    found = {augment(order.train_x, np.random.default_rng(seed)).tobytes() for seed in range(300)}
    padded = np.pad(x[0, 0], 1)
    moved = [padded[row : row + 3, column : column + 4] for row in range(3) for column in range(3)]
    assert found == {one.tobytes() for cut in moved for one in (cut, cut[:, ::-1])}
    still = data.crops_and_flips(0, flip=False, layout=layout)(order.train_x, np.random.default_rng(0))
    np.testing.assert_array_equal(still, order.train_x)


# fmt: off
REFUSED = [
    (lambda: data.mnist("nowhere"), ck.DataError, "there is no folder nowhere"),
    (lambda: data.read_idx("nothing"), ck.DataError, "there is no file nothing"),
    (lambda: data.stratified_folds(np.zeros(3, int), 4), ck.OptionError, "folds=4 must be from 2 to 3, the number of samples"),
    (lambda: list(data.batches(np.zeros(3), np.zeros(2), 1)), ck.ShapeError, "y has shape (2,), must have (3,)"),
    (lambda: list(data.batches(np.zeros(3), np.zeros(3), 0)), ck.OptionError, "size=0 must be at least 1"),
    (lambda: data.crops_and_flips(-1), ck.OptionError, "pad=-1 must be at least 0"),
]
# fmt: on


@pytest.mark.parametrize(("call", "kind", "message"), REFUSED)
def test_bad_arguments_are_refused(call, kind, message):
    with pytest.raises(kind, match=re.escape(message)):
        call()
