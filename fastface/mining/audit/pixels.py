"""A shard set -> what its pixels say of every image: sharpness, light, size, a hash, and a thumbnail, kept in a folder.

One pass over the shards in the order of the disk, decoded in threads. FOLDER/measures.npy and thumbnails.npy are filled
as it goes, so memory stays bounded; done.json, which is written last, says of what set they are.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from fastface.data.damage import BadImage
from fastface.data.headers import Rejected
from fastface.data.images import decode_jpeg, load_rgb
from fastface.data.index import Index
from fastface.data.shards import ShardReader
from fastface.durable import fsync_file, write_durably

FORMAT = 1
BLOCK = 64  # images a thread takes at a time
THUMB = 16  # px a side
MEASURES = np.dtype(
    [
        ("pixels", "<u8"),  # of size and pixels, blake2b; 0 where the image cannot be decoded
        ("width", "<u2"),
        ("height", "<u2"),
        ("sharpness", "<f4"),  # log10 of the variance of the Laplacian over that of the grey levels
        ("brightness", "<f4"),  # mean grey level, 0 to 255
        ("contrast", "<f4"),  # standard deviation of grey levels
        ("colour", "<f4"),  # mean distance between red, green and blue; about 0 in a grey image
    ]
)


class Looks(NamedTuple):
    """What the pixels of a shard set say; arrays are mapped."""

    measures: np.ndarray  # MEASURES [N]
    thumbnails: np.ndarray  # uint8 [N, THUMB, THUMB], grey
    failed: dict[int, str]  # record -> why it could not be decoded

    def decoded(self) -> np.ndarray:
        """Say which records could be decoded, bool [N]."""
        return self.measures["width"] > 0


def look_at(index: Index, folder: Path, *, threads: int | None = None) -> Looks:
    """Measure every image of a shard set, or take what `folder` holds of the same set: 288 bytes an image."""
    done = folder / "done.json"
    if not _is_of(done, index):
        folder.mkdir(parents=True, exist_ok=True)
        done.unlink(missing_ok=True)
        failed = _measure(index, folder, threads or min(8, os.cpu_count() or 1))
        text = json.dumps({"format": FORMAT, "dataset_id": index.dataset_id, "failed": failed})
        write_durably(done, text.encode())
    failed = json.loads(done.read_text(encoding="utf-8"))["failed"]
    measures, thumbnails = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("measures", "thumbnails"))
    return Looks(measures, thumbnails, {int(record): reason for record, reason in failed.items()})


def read_image(reader: ShardReader, record: int) -> np.ndarray:
    """Decode a record as training does: uint8 [H, W, 3]. Raises Rejected, BadImage or OSError."""
    data = reader.view(record)
    return decode_jpeg(data) if data[:2].tobytes() == b"\xff\xd8" else load_rgb(data.tobytes())


def open_reader(index: Index) -> ShardReader:
    """Open a shard set so that damage is an image's, not the whole audit's."""
    return ShardReader(index, check_crc=True, tolerant=True)


def measure(image: np.ndarray) -> tuple[tuple, np.ndarray]:
    """Measure uint8 [H, W, 3]: a row of MEASURES, and its thumbnail uint8 [THUMB, THUMB] (boxes averaged)."""
    height, width = image.shape[:2]
    digest = blake2b(np.ascontiguousarray(image).data, digest_size=8, salt=f"{width}x{height}".encode()).digest()
    picture = Image.fromarray(image).convert("L")  # luma of ITU-R BT.601, in C and without the GIL
    light = np.asarray(picture, np.int16)
    # The Laplacian's 5-point stencil inside the border; its variance falls where focus is lost (Pech-Pacheco 2000), and
    # with contrast: divided by that, dark images are not called blurred.
    edges = light[:-2, 1:-1] + light[2:, 1:-1] + light[1:-1, :-2] + light[1:-1, 2:] - 4 * light[1:-1, 1:-1]
    few = image[::4, ::4]
    colour = float(np.mean(few.max(axis=2) - few.min(axis=2)))
    sharpness = float(np.log10(max(edges.var() / max(light.var(), 1e-3), 1e-3))) if edges.size else -3.0
    brightness, contrast = float(light.mean()), float(light.std())
    thumbnail = np.asarray(picture.resize((THUMB, THUMB), Image.Resampling.BOX))
    number = int.from_bytes(digest, "little") or 1
    return (number, width, height, sharpness, brightness, contrast, colour), thumbnail


def _measure(index: Index, folder: Path, threads: int) -> dict[int, str]:
    size = len(index)
    measures = np.lib.format.open_memmap(folder / "measures.npy", "w+", MEASURES, (size,))
    thumbnails = np.lib.format.open_memmap(folder / "thumbnails.npy", "w+", np.uint8, (size, THUMB, THUMB))
    failed: dict[int, str] = {}
    reader = open_reader(index)

    def block(start: int) -> int:
        end = min(start + BLOCK, size)
        for record in range(start, end):
            try:
                row, small = measure(read_image(reader, record))
            except (Rejected, BadImage, OSError) as error:
                failed[record] = getattr(error, "reason", "") or str(error)
                continue
            measures[record], thumbnails[record] = row, small
        return end - start

    # None: tqdm shows the bar on a terminal only.
    with tqdm(total=size, desc=f"pixels of {index.path.name}", unit=" images", file=sys.stderr, disable=None) as bar:
        for count in _ahead(block, range(0, size, BLOCK), threads):
            bar.update(count)
    reader.close()
    for array in (measures, thumbnails):
        array.flush()
    for name in ("measures", "thumbnails"):
        fsync_file(folder / f"{name}.npy")
    return dict(sorted(failed.items()))


def _ahead(work: Callable[[int], int], items: range, threads: int) -> Iterator[int]:
    """Run work(item) in threads, in order, never more than four items a thread ahead."""
    with ThreadPoolExecutor(threads, "audit-pixels") as pool:
        waiting: list[Future[int]] = []
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > 4 * threads:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()


def _is_of(done: Path, index: Index) -> bool:
    try:
        found = json.loads(done.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return found.get("format") == FORMAT and found.get("dataset_id") == index.dataset_id
