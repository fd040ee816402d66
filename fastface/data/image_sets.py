"""Shards, a folder, a .tar or the images of a pair file -> decoded pictures by id, for evaluation.

Everything is decoded on the CPU by the decoder that deployment uses, whatever decoder training had.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from fastface.data.images import ImageSpec, decode_jpeg, load_rgb
from fastface.data.index import Index
from fastface.data.selection import ALL, Selection, select
from fastface.data.shards import ShardReader
from fastface.data.sources import check_size, nearest_path, read_file
from fastface.data.sources.scan import EXTENSIONS
from fastface.data.sources.tar import members


class ImageSet(Protocol):
    """Pictures with names. `load` may be called from several threads."""

    where: str  # for messages
    identities: np.ndarray  # int64 [N], the person of each picture; one of its own where unknown

    def __len__(self) -> int: ...

    def name(self, i: int) -> str: ...

    def load(self, i: int) -> np.ndarray:
        """Return uint8 RGB [H, W, 3]; raises Rejected or OSError for a picture that cannot be had."""
        ...


class ShardImages:
    """The pictures of a shard set, as they were made, or cut and resized by a spec; each is compared with its CRC."""

    def __init__(self, index: Index, spec: ImageSpec | None = None) -> None:
        self.index, self._spec = index, spec
        self.where = str(index.path)
        self.identities = np.asarray(index.label, dtype=np.int64)
        self._reader = ShardReader(index, check_crc=True)

    def __len__(self) -> int:
        return self.index.num_samples

    def name(self, i: int) -> str:
        return self.index.name(i)

    def find(self, names: list[str]) -> np.ndarray:
        """Return ids by exact name, as Index.find."""
        return self.index.find(names)

    def load(self, i: int) -> np.ndarray:
        data = self._reader.view(i)
        return decode_stored(data) if self._spec is None else load_rgb(data.tobytes(), self._spec)


def decode_stored(data: np.ndarray) -> np.ndarray:
    """Decode an image as a shard keeps it, uint8 [length], to uint8 RGB [H, W, 3]. Raises Rejected."""
    return decode_jpeg(data) if data[:2].tobytes() == b"\xff\xd8" else load_rgb(data.tobytes())


class FileImages:
    """Pictures by path, prepared by a spec; the person is the folder a picture lies in."""

    def __init__(self, where: Path, names: list[str], read: Callable[[int], bytes], spec: ImageSpec) -> None:
        if not names:
            raise ValueError(f"{where} holds no pictures (names ending in .jpg, .png and the like).")
        self.where, self._names, self._read, self._spec = str(where), names, read, spec
        persons = [os.path.dirname(name) or name for name in names]  # loose files are persons of their own
        self.identities = np.unique(persons, return_inverse=True)[1].astype(np.int64)

    def __len__(self) -> int:
        return len(self._names)

    def name(self, i: int) -> str:
        return self._names[i]

    def load(self, i: int) -> np.ndarray:
        return load_rgb(self._read(i), self._spec)


def _folder_images(path: Path, spec: ImageSpec) -> FileImages:
    """List all pictures below a folder, hidden ones and those in hidden folders left out."""
    names = []
    for above, folders, files in os.walk(path):
        folders[:] = sorted(filter(_shown, folders))
        inside = os.path.relpath(above, path).replace(os.sep, "/")
        pictures = sorted(name for name in files if _shown(name) and _is_picture(name))
        names += [name if inside == "." else f"{inside}/{name}" for name in pictures]
    return FileImages(path, names, lambda i: read_file(path / names[i], follow=True), spec)


def _tar_images(path: Path, spec: ImageSpec) -> FileImages:
    """List all pictures of an archive, to be read in place; of a name that occurs twice the later counts."""
    found = {
        member.name.decode("utf-8", "surrogateescape").removeprefix("./"): (member.offset, member.size)
        for member in members(path)
        if member.kind == "file"
    }
    names = sorted(name for name in found if all(map(_shown, name.split("/"))) and _is_picture(name))
    file = open(path, "rb")  # stays open for as long as the reading function lives

    def read(i: int) -> bytes:
        offset, size = found[names[i]]
        check_size(names[i], size)
        return os.pread(file.fileno(), size, offset)

    return FileImages(path, names, read, spec)


class BytesImages:
    """Encoded pictures in memory, such as those of a pair file; nothing is known about persons."""

    def __init__(self, images: list[bytes], spec: ImageSpec | None = None, where: str = "the pair file") -> None:
        self.where, self._images, self._spec = where, images, spec or ImageSpec()
        self.identities = np.arange(len(images), dtype=np.int64)

    def __len__(self) -> int:
        return len(self._images)

    def name(self, i: int) -> str:
        return f"{i:09d}"

    def load(self, i: int) -> np.ndarray:
        return load_rgb(self._images[i], self._spec)


def open_images(
    path: str | Path, spec: ImageSpec | None = None, selection: Selection = ALL
) -> ShardImages | FileImages:
    """Open a shard set, a folder of pictures or an uncompressed .tar of them.

    `spec` cuts and resizes pictures of folders and archives; those of shards have been through that when
    made. A selection is one of shards.
    """
    path, spec = Path(path), spec or ImageSpec()
    if not path.exists():
        raise ValueError(f"{path} does not exist{nearest_path(path)}; give shards, a folder of pictures or a .tar.")
    if path.is_dir() and ((path / "meta.json").is_file() or any(path.glob("*/meta.json"))):
        return ShardImages(select([Index.open(path)], selection, str(path))[0])
    if any(selection[:3]):
        raise ValueError(f"{path} is no shard set: only, without and held_out select by the columns of one")
    if path.is_file():
        return _tar_images(path, spec)
    return _folder_images(path, spec)


def _is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in EXTENSIONS


def _shown(name: str) -> bool:
    return not name.startswith(".")
