"""A shard set, or nothing -> the same images in the layouts that the compared loaders read, kept for another run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.check import write_signatures
from benchmarks.layouts import LAYOUTS

SIDE = 112  # px of the drawn images


def prepare(work: Path, shards: Path | None, count: int, repeat_to: int | None, layouts: Collection[str]) -> None:
    """Lay out the same images in work/shards and in what `layouts` names; what is there already stays.

    Without `shards`, `count` images are drawn; with it, `repeat_to` repeats its images, in turn, to that number.
    """
    from fastface.conversion.convert import Options, convert
    from fastface.data.index import Index

    describe_source(work, shards, count, repeat_to)
    if not (work / "shards").exists():
        if shards is not None and repeat_to is None:
            (work / "shards").symlink_to(shards.resolve())
        else:
            if shards is None:
                print(f"drawing {count:,} images", file=sys.stderr)
                draw(work / "raw", count)
            else:
                write_files(Index.open(shards), work / "raw", repeat_to)
            convert(Options("folder", work / "raw", work / "shards", shard_size=1000))
            shutil.rmtree(work / "raw")
    index = Index.open(work / "shards")
    if index.image_size is None:
        raise ValueError(f"{shards} holds images of several sizes; make it again with --size")
    if not (work / "signatures.npy").exists():
        write_signatures(work)
    if "images" in layouts and not (work / "images").exists():
        write_files(index, work / "images.partial")
        (work / "images.partial").rename(work / "images")
    if "idx" in layouts and not (work / "idx").exists():
        (work / "idx").mkdir()
        for shard in sorted((work / "shards").glob("*.tar")):
            write_dali_index(shard, work / "idx" / f"{shard.stem}.idx")
    for name in sorted(set(layouts) & set(LAYOUTS)):
        if not (work / name).exists():
            print(f"writing {name}", file=sys.stderr)  # in a process of its own: writers fork, and change settings
            command = [sys.executable, str(Path(__file__).with_name("layouts.py")), name, str(work)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def describe_source(work: Path, shards: Path | None, count: int, repeat_to: int | None) -> None:
    """Note where the images of a work folder come from; ValueError if it holds those of another source."""
    from fastface.data.index import Index

    if shards is None:
        source: dict[str, Any] = {"drawn": count}
    else:
        source = {"dataset_id": Index.open(shards).dataset_id, "repeat_to": repeat_to}
    note = work / "source.json"
    if not note.exists():
        work.mkdir(parents=True, exist_ok=True)
        if any(work.iterdir()):
            raise ValueError(f"{work} holds files, but none of an earlier run: name an empty or a new folder")
        note.write_text(json.dumps(source))
    elif (found := json.loads(note.read_text())) != source:
        raise ValueError(f"{work} holds images of {found}, not of {source}: name another --work folder or delete it")


def write_files(index: Any, folder: Path, count: int | None = None) -> None:
    """Write `count` images of a shard set, beginning again after the last, as a folder per label."""
    from fastface.data.shards import ShardReader

    shutil.rmtree(folder, ignore_errors=True)
    reader = ShardReader(index)
    for number in range(index.num_samples if count is None else count):
        record = number % index.num_samples
        path = folder / f"{index.label[record]:07d}" / f"{number:09d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(reader.view(record))


def draw(folder: Path, count: int, distinct: int = 1000) -> None:
    """Draw JPEGs of 112 x 112 px, quality 95, 4:2:0, about 8 kB: soft shapes and grain, as in photographs.

    Each of `distinct` pictures is written several times: drawing costs more than decoding, and the decoder
    does not remember.
    """
    import simplejpeg

    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.fftfreq(SIDE)[None, :])
    spectrum = 1 / np.maximum(frequency, 1 / SIDE) ** 1.5  # amplitudes of natural pictures fall with frequency
    for number in range(min(distinct, count)):
        noise = np.fft.fft2(rng.normal(size=(SIDE, SIDE)))
        shape = np.real(np.fft.ifft2(noise * spectrum))
        colour = np.array([1.0, 0.8, 0.7]) * 45 * (shape / shape.std())[..., None] + rng.uniform(90, 160, 3)
        image = np.clip(colour + rng.normal(0, 4.5, (SIDE, SIDE, 1)), 0, 255).astype(np.uint8)
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
    """Return source, count, size and mean length of the images."""
    from fastface.data.index import Index

    index = Index.open(work / "shards")
    return {
        **json.loads((work / "source.json").read_text()),
        "count": index.num_samples,
        "identities": index.num_classes,
        "size": list(index.image_size or ()),
        "mean_bytes": round(float(index.length.mean())),
    }
