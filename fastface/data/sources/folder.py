"""person/image.* in a directory or an uncompressed .tar -> Source, or one each for train/ and val/."""

import os
import unicodedata
import warnings
from array import array
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from fastface.data.sources import Names, check_size, encode_labels, printable, read_file
from fastface.data.sources.tar import members

# Files with these names are tried; their first bytes decide. Formats that cannot be read are refused by name.
EXTENSIONS = frozenset(
    """.jpg .jpeg .jpe .jfif .png .apng .webp .bmp .dib .gif .tif .tiff .heic .heif .avif .jp2 .jxl .ppm
    .pgm""".split()
)
_SYSTEM = {"thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin"}
_SPECIAL = {"link": "link", "device": "not-a-file", "sparse": "sparse-file"}  # members of an archive
_MAX_DEPTH = 32  # folders in folders; a path of 4,096 characters could hold 2,000
_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


class _Scan:
    """What a walk over a directory or an archive found: images, folders, and what it left out."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.offsets, self.sizes = array("q"), array("q")  # byte ranges in an archive; empty for a directory
        self.folders: set[str] = set()
        self.skipped: list[tuple[str, str]] = []

    def take(self, keep: list[int]) -> "_Scan":
        part = _Scan()
        part.names = [self.names[i] for i in keep]
        if self.offsets:
            part.offsets = array("q", (self.offsets[i] for i in keep))
            part.sizes = array("q", (self.sizes[i] for i in keep))
        return part


class FolderSource:
    """Images by person: from a directory one open per read, from a .tar one pread per read."""

    def __init__(self, root: Path, scan: _Scan, depth: int, skipped: list[tuple[str, str]]) -> None:
        self._root, self._in_tar, self._file = str(root), len(scan.offsets) > 0, -1
        self._names = Names(scan.names)
        self._offsets = np.array(scan.offsets, np.int64)
        self._sizes = np.array(scan.sizes, np.int64)
        self.classes, self.labels = encode_labels([name.split("/")[depth] for name in scan.names])
        self.columns: dict[str, np.ndarray] = {}
        self.boxes: np.ndarray | None = None
        self.pairs: list[tuple[str, str, bool, int]] | None = None
        self.ordered = False
        self.skipped = skipped
        _warn_of_equal_looks(self.classes, root)

    def __len__(self) -> int:
        return len(self.labels)

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


def open_folder(path: Path) -> dict[str, FolderSource]:
    """Scan a directory or .tar of person/image files: {"": source}, or {"train": ..., "val": ..., "test":
    ...}.

    A person is the first folder (below the split); files deeper down belong to it. Links, hidden and system
    files, unsafe names, files not named as images and folders without images go to `skipped` with the reason.
    Records are sorted by name, folder by folder. Raises ValueError where no image is found or the splits are
    ambiguous.
    """
    scan = _Scan()
    if path.is_dir():
        _walk(str(path), "", scan)
    elif path.is_file():
        scan = _scan_tar(path)
    else:
        raise ValueError(f"{path} is neither a directory nor a .tar file")
    splits = _splits(path, scan.names)
    depth = 1 if splits else 0
    keep = [i for i, name in enumerate(scan.names) if name.count("/") > depth]
    scan.skipped += [(name, "outside-a-class-folder") for name in scan.names if name.count("/") <= depth]
    filled = {"/".join(scan.names[i].split("/")[: depth + 1]) for i in keep}
    scan.skipped += [(name, "no-images") for name in scan.folders - filled if name.count("/") == depth]
    scan.skipped.sort()
    if not keep:
        counts = Counter(reason for _, reason in scan.skipped)
        left_out = ", ".join(f"{count} {reason}" for reason, count in counts.items())
        raise ValueError(
            f"no images found in {path}; expected PERSON/IMAGE.jpg, or train/ and val/ with such folders. "
            f"Left out: {left_out or 'nothing, it is empty'}"
        )
    if not splits:
        return {"": FolderSource(path, scan.take(keep), depth, scan.skipped)}
    sources: dict[str, FolderSource] = {}
    for top, split in splits.items():
        part = [i for i in keep if scan.names[i].startswith(top + "/")]
        if not part:
            raise ValueError(f"{path}/{top} has no PERSON/IMAGE.jpg; fill or remove it")
        mine = {top, *(name for name, _ in scan.skipped if "/" not in name)} if split == "train" else {top}
        skipped = [item for item in scan.skipped if item[0].split("/")[0] in mine]
        sources[split] = FolderSource(path, scan.take(part), depth, skipped)
    return sources


def _splits(path: Path, names: list[str]) -> dict[str, str]:
    """Map top folders to train, val, test where that is the layout; {} where the top folders are persons."""
    deep = {name.split("/")[0] for name in names if name.count("/") > 1}
    tops = {name.split("/")[0] for name in names if "/" in name}
    found = {top: split for top, split in _SPLITS.items() if top in tops}
    if "train" not in deep or (len(found) == 1 and len(tops) > 1):
        return {}
    extra = sorted(tops - set(found))
    if extra:
        listed = ", ".join(map(printable, extra[:3]))
        raise ValueError(f"{path} has {' and '.join(found)} beside {len(extra)} other folders ({listed}); move them")
    if len(set(found.values())) < len(found):
        raise ValueError(f"{path} has several folders for one split: {', '.join(found)}; keep one of each")
    return found


def _reason(part: str, is_folder: bool) -> str | None:
    """Say why a file or folder of this name is left out; None = it is not."""
    if not part or part in (".", "..") or any(ord(c) < 32 or ord(c) == 127 for c in part):
        return "unsafe-name"
    if part.startswith("."):
        return "hidden"
    if part.lower() in _SYSTEM:
        return "system-file"
    if not is_folder and os.path.splitext(part)[1].lower() not in EXTENSIONS:
        return "not-an-image-extension"
    return None


def _walk(root: str, prefix: str, scan: _Scan) -> None:
    """Collect images below root/prefix in the order of names; entries are typed without opening them."""
    try:
        with os.scandir(f"{root}/{prefix}") as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except PermissionError:
        if not prefix:
            raise
        scan.skipped.append((prefix.rstrip("/"), "unreadable-folder"))
        return
    for entry in found:
        name, is_folder = prefix + entry.name, entry.is_dir(follow_symlinks=False)
        reason = "link" if entry.is_symlink() else _reason(entry.name, is_folder)
        if reason is None and not is_folder and not entry.is_file(follow_symlinks=False):
            reason = "not-a-file"
        if reason is not None:
            scan.skipped.append((name, reason))
        elif is_folder and name.count("/") >= _MAX_DEPTH:
            scan.skipped.append((name, "too-deep"))
        elif is_folder:
            scan.folders.add(name)
            _walk(root, name + "/", scan)
        else:
            scan.names.append(name)


def _scan_tar(path: Path) -> _Scan:
    """Collect the images of an archive; of a name that occurs twice the later counts, as when unpacking."""
    scan, found = _Scan(), {}
    for member in members(path):
        name = member.name.decode("utf-8", "surrogateescape")
        while name.startswith("./"):
            name = name[2:]
        name = name[:-1] if name.endswith("/") else name
        if name in ("", ".") and member.kind == "folder":
            continue
        *above, last = name.split("/")
        reasons = [_reason(part, True) for part in above] + [_reason(last, member.kind == "folder")]
        reason = "unsafe-name" if "unsafe-name" in reasons else next(filter(None, reasons), None)
        if reason not in ("unsafe-name", "hidden"):
            reason = _SPECIAL.get(member.kind, reason)
        if reason is not None:
            scan.skipped.append((name, reason))
        elif member.kind == "folder":
            scan.folders.add(name)
        else:
            if name in found:
                scan.skipped.append((name, "duplicate-name"))
            found[name] = member
    scan.names = sorted(found, key=lambda name: name.replace("/", "\0"))  # the order in which _walk finds them
    scan.offsets = array("q", (found[name].offset for name in scan.names))
    scan.sizes = array("q", (found[name].size for name in scan.names))
    return scan


def _warn_of_equal_looks(classes: list[str], root: Path) -> None:
    """Warn of folder names that differ only in how accents are composed: probably one person twice."""
    seen: dict[str, str] = {}
    for name in classes:
        if name.isascii():
            continue
        other = seen.setdefault(unicodedata.normalize("NFC", name), name)
        if other != name:
            text = f"{root}: two folders are both shown as {printable(name)!r} (composed and decomposed accents)"
            warnings.warn(f"{text}; they count as two persons, rename one if they are one", stacklevel=4)
