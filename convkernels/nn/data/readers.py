"""MNIST and CIFAR-10 from the user's own files, read by their formats' descriptions. Nothing is downloaded."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path

import numpy as np

from ...errors import DataError
from ...layout import Array
from .dataset import Dataset

UNSIGNED_BYTES = 0x08
"""IDX' code for the type of its elements."""
MOST = 1 << 32
"""Bytes that no file of these data sets comes near."""
SIDE = 32
RECORD = 1 + 3 * SIDE * SIDE
"""CIFAR-10's bytes for a picture: its class, then the red, green and blue planes."""
PER_FILE = 10_000
CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MNIST_CREDIT = "MNIST: Y. LeCun, C. Cortes, C. J. C. Burges"
CIFAR_CREDIT = "CIFAR-10: A. Krizhevsky, 'Learning Multiple Layers of Features from Tiny Images', 2009"


def mnist(path: str | os.PathLike[str]) -> Dataset:
    """Read MNIST, or data of its format, from the four IDX files.

    Parameters
    ----------
    path : path
        The folder with train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and
        t10k-labels-idx1-ubyte, each as it is or gzipped with the suffix .gz.

    Returns
    -------
    Dataset
        Pictures of shape (N, 1, 28, 28).

    Raises
    ------
    DataError
        If a file is missing, broken, truncated, too long or of another kind; it says which and how.

    Examples
    --------
    >>> mnist("nowhere")
    Traceback (most recent call last):
    convkernels.errors.DataError: there is no folder nowhere
    """
    folder = _folder(path)
    train_x, train_y = _mnist_part(folder, "train")
    test_x, test_y = _mnist_part(folder, "t10k")
    if train_x.shape[1:] != test_x.shape[1:]:
        raise DataError(f"{folder}: pictures are of {train_x.shape[2:]} and of {test_x.shape[2:]} cells")
    return Dataset("mnist", train_x, train_y, test_x, test_y, tuple("0123456789"), MNIST_CREDIT)


def cifar10(path: str | os.PathLike[str]) -> Dataset:
    """Read CIFAR-10 from its binary version. The other one is pickled, and so not read.

    Parameters
    ----------
    path : path
        The folder with data_batch_1.bin to data_batch_5.bin and test_batch.bin.

    Returns
    -------
    Dataset
        Pictures of shape (N, 3, 32, 32).

    Raises
    ------
    DataError
        If a file is missing, of another size, or has a label above 9.

    Examples
    --------
    >>> cifar10("nowhere")
    Traceback (most recent call last):
    convkernels.errors.DataError: there is no folder nowhere
    """
    folder = _folder(path)
    parts = [_cifar_batch(folder / f"data_batch_{number}.bin") for number in range(1, 6)]
    train_x, train_y = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    test_x, test_y = _cifar_batch(folder / "test_batch.bin")
    return Dataset("cifar10", train_x, train_y, test_x, test_y, CIFAR_CLASSES, CIFAR_CREDIT)


def read_idx(file: str | os.PathLike[str]) -> Array:
    """Read an IDX file of unsigned bytes.

    Two zero bytes, one for the type, one for the number of axes; for each axis its size in four bytes, the highest
    first; then the data, the last axis changing fastest.

    Parameters
    ----------
    file : path
        Gzipped if it ends in .gz.

    Returns
    -------
    ndarray of uint8
        Of the shape that the file gives.

    Raises
    ------
    DataError
        If it is missing, broken, truncated, too long or of another kind.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "two-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 2, 5, 7]))
    ...     read_idx(f"{folder}/two-idx1-ubyte")
    array([5, 7], dtype=uint8)
    """
    path = Path(file)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            magic = stream.read(4)
            if len(magic) < 4 or magic[:2] != b"\0\0" or not magic[3]:
                raise DataError(f"{path} is no IDX file: it starts with {magic.hex(' ') or 'nothing'}")
            if magic[2] != UNSIGNED_BYTES:
                raise DataError(f"{path} has elements of type 0x{magic[2]:02x}, must have 0x08, unsigned bytes")
            header = stream.read(4 * magic[3])
            if len(header) < 4 * magic[3]:
                raise DataError(f"{path} is truncated: it ends within its header")
            shape = tuple(int.from_bytes(header[start : start + 4]) for start in range(0, len(header), 4))
            # In Python's whole numbers, which do not overflow. NumPy refuses large axes beside an empty one, too.
            size = math.prod(shape)
            if math.prod(length or 1 for length in shape) > MOST:
                raise DataError(f"{path} says that its shape is {shape}, too large to be true")
            content = stream.read(size + 1)
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if len(content) < size:
        raise DataError(f"{path} is truncated: it has {len(content)} bytes of data, its shape {shape} needs {size}")
    if len(content) > size:
        raise DataError(f"{path} is too long: there are bytes behind the {size} of its shape {shape}")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _folder(path: str | os.PathLike[str]) -> Path:
    folder = Path(path)
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}")
    return folder


def _mnist_part(folder: Path, part: str) -> tuple[Array, Array]:
    """Pictures and labels of one half."""
    pictures, pictures_file = _idx(folder, f"{part}-images-idx3-ubyte", 3)
    labels, labels_file = _idx(folder, f"{part}-labels-idx1-ubyte", 1)
    if len(pictures) != len(labels):
        raise DataError(f"{labels_file} has {len(labels)} labels, {pictures_file.name} has {len(pictures)} pictures")
    if labels.size and labels.max() > 9:
        raise DataError(f"{labels_file} has the label {labels.max()} in place {labels.argmax()}, must be at most 9")
    return _scaled(pictures[:, np.newaxis]), labels.astype(np.int64)


def _idx(folder: Path, name: str, axes: int) -> tuple[Array, Path]:
    """An IDX file as it is or gzipped, and where it was."""
    # Some archives write a dot for the last but one hyphen.
    names = [name, f"{name}.gz", name.replace("-idx", ".idx"), f"{name.replace('-idx', '.idx')}.gz"]
    found = [folder / each for each in names if (folder / each).is_file()]
    if not found:
        raise DataError(f"there is no file {folder / name}, nor with .gz")
    array = read_idx(found[0])
    if array.ndim != axes:
        raise DataError(f"{found[0]} has {array.ndim} axes, must have {axes}")
    return array, found[0]


def _cifar_batch(path: Path) -> tuple[Array, Array]:
    """The pictures and labels of one file."""
    expected = PER_FILE * RECORD
    try:
        size = path.stat().st_size
        if size != expected:
            how = "truncated" if size < expected else "too long"
            raise DataError(f"{path} is {how}: it has {size} bytes, must have {expected}: {PER_FILE} of {RECORD}")
        records = np.fromfile(path, np.uint8).reshape(PER_FILE, RECORD)
    except FileNotFoundError:
        hint = "; the pickled version is not read" if path.with_suffix("").is_file() else ""
        raise DataError(f"there is no file {path}: the folder must have CIFAR-10's binary version{hint}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    labels = records[:, 0].astype(np.int64)
    if labels.max() > 9:
        raise DataError(f"{path} has the label {labels.max()} in picture {labels.argmax()}, must be at most 9")
    return _scaled(records[:, 1:].reshape(-1, 3, SIDE, SIDE)), labels


def _scaled(pictures: Array) -> Array:
    """Bytes as numbers from 0 to 1."""
    scaled = pictures.astype(np.float32)
    scaled /= 255
    return scaled
