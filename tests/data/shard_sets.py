"""Small raw datasets and shard sets that the tests of conversion, index and reading share."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fastface.conversion.convert import convert
from fastface.conversion.options import Options
from fastface.data.index import Index


def face(person: int, number: int, width: int = 32, height: int = 32, quality: int = 90) -> bytes:
    """Encode a JPEG that no other person and number gives."""
    pixels = np.random.default_rng([person, number]).integers(0, 256, (4, 4, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def write_folder(folder: Path, people: int = 5, images: int = 6, size: tuple[int, int] = (32, 32)) -> Path:
    """Write person_000/000.jpg ... and return the folder."""
    for person in range(people):
        (folder / f"person_{person:03d}").mkdir(parents=True)
        for number in range(images):
            (folder / f"person_{person:03d}" / f"{number:03d}.jpg").write_bytes(face(person, number, *size))
    return folder


def make_set(tmp_path: Path, people: int = 5, images: int = 6, **options: Any) -> Path:
    """Convert such a folder and return the shard set; shards hold 8 images unless said otherwise."""
    options = {"shard_size": 8, "workers": 1, **options}
    convert(Options("folder", write_folder(tmp_path / "raw", people, images), tmp_path / "set", **options))
    return tmp_path / "set"


def tree(folder: Path) -> dict[str, bytes]:
    """Read every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def raw_bytes(index: Index, raw: Path) -> list[bytes]:
    """Read each record's original file."""
    return [(raw / index.name(i)).read_bytes() for i in range(len(index))]
