"""Bytes -> a file that is there whole after a crash, or not at all."""

import contextlib
import csv
import io
import os
from collections.abc import Iterable
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


def append_csv(path: Path, header: list[str], rows: Iterable[list[str]]) -> None:
    """Add rows to a csv that several processes may be writing to: one write each, after the header of the first."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    with contextlib.suppress(FileExistsError), open(path, "xb", buffering=0) as file:
        file.write((",".join(header) + "\n").encode())
    with open(path, "ab", buffering=0) as file:
        file.write(text.getvalue().encode("utf-8", "surrogateescape"))
