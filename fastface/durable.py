"""Bytes -> a file that is there whole after a crash, or not at all."""

import contextlib
import os
from pathlib import Path


def write_durably(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, fsync it, rename it into place, fsync its folder."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    fsync_folder(path.parent)


def fsync_file(path: Path) -> None:
    """Make the content of a file that is already written durable."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable, on file systems where folders can be synced."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)
