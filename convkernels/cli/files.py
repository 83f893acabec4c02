"""Writing files in full or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from .errors import CommandError


def write(file: Path, put: Callable[[Path], object]) -> None:
    """Write a file by what `put` writes to the path it is given; the file appears when that is complete."""
    try:
        # Replacing would destroy a device, and cannot replace a directory.
        if file.exists() and not file.is_file():
            raise CommandError(f"cannot write {file}: it is {'a directory' if file.is_dir() else 'no regular file'}")
        part = file.with_name(f".{file.name}.{os.getpid()}.part")
        try:
            put(part)
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise CommandError(f"cannot write {file}: {error.strerror or error}") from None
