"""A directory or an uncompressed .tar -> the names and places of its files, and what was left out and why."""

from __future__ import annotations

import os
import re
from array import array
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from fastface.data.names import Names
from fastface.data.sources import Source, check_size, encode_labels, read_file
from fastface.data.sources.tar import Member, members

# Files with these names are tried; their first bytes decide. Formats that cannot be read are refused by name.
EXTENSIONS = frozenset(
    """.jpg .jpeg .jpe .jfif .png .apng .webp .bmp .dib .gif .tif .tiff .heic .heif .avif .jp2 .jxl .ppm
    .pgm""".split()
)
_SYSTEM = {"thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin"}
_SPECIAL = {"link": "link", "device": "not-a-file", "sparse": "sparse-file"}  # members of an archive
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MAX_DEPTH = 32  # folders in folders; a path of 4,096 characters could hold 2,000


def scan(path: Path, extensions: frozenset[str] = EXTENSIONS) -> Scan:
    """List the files with these extensions below a directory or in a .tar, sorted by name, folder by folder.

    Links, hidden and system files, unsafe names and other extensions go to `skipped` with the reason.
    """
    if path.is_dir():
        found = Scan(extensions)
        _walk(str(path), "", found)
        return found
    if path.is_file():
        return _scan_tar(path, extensions)
    raise ValueError(f"{path} is neither a directory nor a .tar file")


def left_out(skipped: list[tuple[str, str]]) -> str:
    """Count what was skipped, for an error that says why nothing is left."""
    counts = Counter(reason for _, reason in skipped)
    return ", ".join(f"{count} {reason}" for reason, count in counts.items()) or "nothing, it is empty"


class Scan:
    """What a walk over a directory or an archive found: images, folders, and what it left out."""

    def __init__(self, extensions: frozenset[str]) -> None:
        self.extensions = extensions
        self.names: list[str] = []
        self.offsets, self.sizes = array("q"), array("q")  # byte ranges in an archive; empty for a directory
        self.folders: set[str] = set()
        self.skipped: list[tuple[str, str]] = []

    def take(self, keep: list[int]) -> Scan:
        part = Scan(self.extensions)
        part.names = [self.names[i] for i in keep]
        if self.offsets:
            part.offsets = array("q", (self.offsets[i] for i in keep))
            part.sizes = array("q", (self.sizes[i] for i in keep))
        return part


class FileSource(Source):
    """Files of a scan with a class each: of a directory one open per read, of a .tar one pread per read."""

    def __init__(self, root: Path, found: Scan, persons: Iterable[str], skipped: list[tuple[str, str]]) -> None:
        self._root, self._in_tar, self._file = str(root), len(found.offsets) > 0, -1
        self._names = Names(found.names)
        self._offsets = np.array(found.offsets, np.int64)
        self._sizes = np.array(found.sizes, np.int64)
        super().__init__(*encode_labels(list(persons)), skipped)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": -1}  # a file descriptor means nothing in another process

    def __del__(self) -> None:
        if getattr(self, "_file", -1) >= 0:
            os.close(self._file)

    def name(self, i: int) -> str:
        return self._names[i]

    def read(self, i: int) -> bytes:
        """Return the file's bytes; OSError, or ValueError where it became a link, a device or shorter."""
        if not self._in_tar:
            return read_file(f"{self._root}/{self._names[i]}")
        size = int(self._sizes[i])
        check_size(self._names[i], size)
        if self._file < 0:
            self._file = os.open(self._root, os.O_RDONLY)
        data = os.pread(self._file, size, int(self._offsets[i]))
        if len(data) != size:
            raise ValueError(f"{self._root}: {self.name(i)} has {len(data)} of {size} bytes; did the file change?")
        return data


def _reason(part: str, is_folder: bool, extensions: frozenset[str]) -> str | None:
    """Say why a file or folder of this name is left out; None = it is not."""
    if not part or part in (".", "..") or _CONTROL.search(part):
        return "unsafe-name"
    if part.startswith("."):
        return "hidden"
    if part.lower() in _SYSTEM:
        return "system-file"
    if not is_folder and os.path.splitext(part)[1].lower() not in extensions:
        return "not-an-image-extension"
    return None


def _walk(root: str, prefix: str, found: Scan) -> None:
    """Collect images below root/prefix in the order of names; entries are typed without opening them."""
    try:
        with os.scandir(f"{root}/{prefix}") as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
    except PermissionError:
        if not prefix:
            raise
        found.skipped.append((prefix.rstrip("/"), "unreadable-folder"))
        return
    for entry in listed:
        name, is_folder = prefix + entry.name, entry.is_dir(follow_symlinks=False)
        reason = "link" if entry.is_symlink() else _reason(entry.name, is_folder, found.extensions)
        if reason is None and not is_folder and not entry.is_file(follow_symlinks=False):
            reason = "not-a-file"
        if reason is not None:
            found.skipped.append((name, reason))
        elif is_folder and name.count("/") >= _MAX_DEPTH:
            found.skipped.append((name, "too-deep"))
        elif is_folder:
            found.folders.add(name)
            _walk(root, name + "/", found)
        else:
            found.names.append(name)


def _scan_tar(path: Path, extensions: frozenset[str]) -> Scan:
    """Collect the images of an archive; of a name that occurs twice the later counts, as when unpacking."""
    found, files = Scan(extensions), dict[str, Member]()
    for member in members(path):
        name = member.name.decode("utf-8", "surrogateescape")
        while name.startswith("./"):
            name = name[2:]
        name = name[:-1] if name.endswith("/") else name
        if name in ("", ".") and member.kind == "folder":
            continue
        *above, last = name.split("/")
        reasons = [_reason(part, True, extensions) for part in above] + [
            _reason(last, member.kind == "folder", extensions)
        ]
        reason = "unsafe-name" if "unsafe-name" in reasons else next(filter(None, reasons), None)
        if reason not in ("unsafe-name", "hidden"):
            reason = _SPECIAL.get(member.kind, reason)
        if reason is not None:
            found.skipped.append((name, reason))
        elif member.kind == "folder":
            found.folders.add(name)
        else:
            if name in files:
                found.skipped.append((name, "duplicate-name"))
            files[name] = member
    found.names = sorted(files, key=lambda name: name.replace("/", "\0"))  # the order in which _walk finds them
    found.offsets = array("q", (files[name].offset for name in found.names))
    found.sizes = array("q", (files[name].size for name in found.names))
    return found
