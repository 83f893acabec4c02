"""Arrays by name, to a file and back: .npz, or .safetensors. Never pickled; written in full or not at all."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, one_of
from ..layout import Array

SUFFIXES = (".npz", ".safetensors")


def save_arrays(file: str | os.PathLike[str], arrays: Mapping[str, Array]) -> None:
    """Write arrays by name; the file's suffix says how.

    Parameters
    ----------
    file : path
        Ends in ".npz", or in ".safetensors", which needs the extra ``convkernels[nn]``.
    arrays : mapping of str to ndarray
        Such as a network's ``state_dict()``.

    Raises
    ------
    DataError
        If the suffix is another, or an array holds objects.

    Examples
    --------
    >>> import tempfile
    >>> from convkernels import nn
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     nn.save_arrays(f"{folder}/weights.npz", nn.Linear(2, 3).state_dict())
    ...     state = nn.load_arrays(f"{folder}/weights.npz")
    >>> sorted(state)
    ['b', 'w']
    """
    path = _checked(file)
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise DataError(f"{name!r} has dtype {array.dtype}, which only a pickle could keep")
    # What is written is complete before it has the name: a reader never meets half a file.
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        if path.suffix == ".npz":
            with part.open("wb") as stream:
                np.savez(stream, **arrays)  # type: ignore[arg-type]  # the stub lacks the mapping
        else:
            whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
            _safetensors().save_file(whole, part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def load_arrays(file: str | os.PathLike[str]) -> dict[str, Array]:
    """Read what `save_arrays` has written.

    Parameters
    ----------
    file : path
        Ends in ".npz" or ".safetensors".

    Returns
    -------
    dict of str to ndarray
        The arrays by name.

    Raises
    ------
    DataError
        If there is no such file, or it is not of that kind.

    Examples
    --------
    >>> from convkernels import nn
    >>> nn.load_arrays("nothing.npz")
    Traceback (most recent call last):
    convkernels.errors.DataError: there is no file nothing.npz
    """
    path = _checked(file)
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    if path.suffix == ".npz":
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                return dict(arrays)
        except (ValueError, OSError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
            raise DataError(f"{path} is no .npz of plain arrays: {error}") from None
    library = _safetensors()
    try:
        return dict(library.load_file(path))
    except Exception as error:
        raise DataError(f"{path} is no .safetensors file: {error}") from None


def _checked(file: str | os.PathLike[str]) -> Path:
    path = Path(file)
    if path.suffix not in SUFFIXES:
        raise DataError(f"file={str(path)!r} must end in one of {one_of(SUFFIXES, path.suffix)}")
    return path


def _safetensors() -> Any:
    try:
        import safetensors.numpy  # noqa: PLC0415  # optional
    except ModuleNotFoundError:
        raise DataError('.safetensors needs its extra: pip install "convkernels[nn]"') from None
    return safetensors.numpy
