"""Synthetic people with planted faults, as a shard set with embeddings that know who is who."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.audit import write
from fastface.conversion.convert import convert
from fastface.conversion.options import Options
from fastface.data.embeddings import write_embeddings
from fastface.data.index import Index
from fastface.data.synthetic import Identity, Shot, photograph, render

WIDTH = 48


def draw_people(number: int, images: int, *, seed: int = 0, size_px: int = 48) -> dict[str, dict[str, bytes]]:
    people = {}
    for n in range(number):
        identity = Identity.draw(seed=seed, number=n)
        shots = [Shot.draw(seed, identity, image=k) for k in range(images)]
        pictures = [photograph(render(identity, shot, size_px=size_px), shot) for shot in shots]
        people[f"person_{n:03d}"] = {f"{k}.jpg": data for k, data in enumerate(pictures)}
    return people


def embedding_of(origin: str, noise: float = 0.35) -> np.ndarray:
    """A direction for the person, whose folder the origin lies in, and a little of one for the image."""
    person, image = (
        np.random.default_rng(zlib.crc32(text.encode())).normal(size=WIDTH) for text in (origin.split("/")[0], origin)
    )
    return 3 * (person / np.linalg.norm(person) + noise * image / np.linalg.norm(image)) + 0.5


def make_set(folder: Path, files: Mapping[str, bytes], origin: Mapping[str, str]) -> tuple[Path, Index]:
    """Write files, shards and embeddings below a folder; return the embeddings and the shards' index."""
    write(files, folder / "raw")
    convert(Options("folder", folder / "raw", folder / "shards", workers=1, shard_size=50))
    index = Index.open(folder / "shards")
    names = [index.name(i) for i in range(len(index))]
    rows = np.stack([embedding_of(origin[name]) for name in names])
    about = {"dataset_id": index.dataset_id, "shards": str(index.path)}
    write_embeddings(folder / "embeddings", rows, index.label, names, index.classes, about)
    return folder / "embeddings", index
