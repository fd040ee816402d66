"""A shard set, or nothing -> the same images in the layouts that the compared loaders read."""

from __future__ import annotations

import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np


def prepare(work: Path, shards: Path | None, count: int) -> None:
    """Lay out the same images in work/shards, work/images (ImageFolder) and work/idx (DALI's reader)."""
    from fastface.conversion.convert import Options, convert
    from fastface.data.index import Index
    from fastface.data.shards import ShardReader

    if shards is None:
        print(f"drawing {count:,} images", file=sys.stderr)
        draw(work / "drawn", count)
        convert(Options("folder", work / "drawn", work / "shards", shard_size=1000))
    else:
        (work / "shards").symlink_to(shards.resolve())
    index = Index.open(work / "shards")
    if index.image_size is None:
        raise ValueError(f"{shards} holds images of several sizes; make it again with --size")
    reader = ShardReader(index)
    for record in range(index.num_samples):
        folder = work / "images" / f"{index.label[record]:07d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{record:09d}.jpg").write_bytes(reader.view(record))
    (work / "idx").mkdir()
    for shard in sorted((work / "shards").glob("*.tar")):
        write_dali_index(shard, work / "idx" / f"{shard.stem}.idx")


def draw(folder: Path, count: int, distinct: int = 1000) -> None:
    """Draw JPEGs of 112 x 112 px, quality 95, 4:2:0, about 8 kB: soft shapes and grain, as in photographs.

    Each of `distinct` pictures is written several times: drawing costs more than decoding, and the decoder
    does not remember.
    """
    import simplejpeg

    rng = np.random.default_rng(0)
    side = 112
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None, :])
    spectrum = 1 / np.maximum(frequency, 1 / side) ** 1.5  # amplitudes of natural pictures fall with frequency
    for number in range(min(distinct, count)):
        noise = np.fft.fft2(rng.normal(size=(side, side)))
        shape = np.real(np.fft.ifft2(noise * spectrum))
        colour = np.array([1.0, 0.8, 0.7]) * 45 * (shape / shape.std())[..., None] + rng.uniform(90, 160, 3)
        image = np.clip(colour + rng.normal(0, 4.5, (side, side, 1)), 0, 255).astype(np.uint8)
        data = simplejpeg.encode_jpeg(image, 95, colorsubsampling="420")
        for copy in range(number, count, distinct):
            path = folder / f"{copy % 500:05d}" / f"{copy:07d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def write_dali_index(shard: Path, path: Path) -> None:
    """Write the index of a tar as DALI's wds2idx does, version 1.2, without its tool."""
    samples: dict[str, list[str]] = {}
    with tarfile.open(shard) as tar:
        for member in tar:
            key, _, extension = member.name.partition(".")
            samples.setdefault(key, []).append(f"{extension} {member.offset_data} {member.size} {member.name}")
    lines = [f"v1.2 {len(samples)}", *(" ".join(parts) for parts in samples.values())]
    path.write_text("\n".join(lines) + "\n")


def describe_images(work: Path) -> dict[str, Any]:
    """Return count, size and mean length of the images."""
    from fastface.data.index import Index

    index = Index.open(work / "shards")
    return {
        "count": index.num_samples,
        "size": list(index.image_size or ()),
        "mean_bytes": round(float(index.length.mean())),
    }
