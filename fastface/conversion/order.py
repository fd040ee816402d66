"""A raw source and a seed -> the order of its records, and a fingerprint of what the scan found."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from fastface.data.sources import Source


def parse_split(text: str) -> dict[str, float]:
    """Parse 'train=0.9,val=0.1' into fractions that add up to 1."""
    fractions: dict[str, float] = {}
    for item in text.split(","):
        name, _, value = (piece.strip() for piece in item.partition("="))
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or name == "index" or name in fractions:
            raise ValueError(f"--split {text!r}: {name!r} is no name for a split (letters, digits, _ and -, each once)")
        try:
            fractions[name] = float(value)
        except ValueError:
            raise ValueError(f"--split {text!r}: write name=fraction, such as train=0.9,val=0.1") from None
    if not all(0 < fraction <= 1 for fraction in fractions.values()) or abs(sum(fractions.values()) - 1) > 1e-6:
        raise ValueError(
            f"--split {text!r}: fractions must be positive and add up to 1, not {sum(fractions.values()):g}"
        )
    return fractions


def shuffled(size: int, seed: int) -> np.ndarray:
    """Return a permutation of range(size) (int64) by plain arithmetic, which no library's version can change.

    Records sorted by splitmix64 (Steele, Lea, Flood 2014, doi 10.1145/2714064.2660195) of seed and number.
    """
    start = int.from_bytes(hashlib.blake2b(b"%d" % seed, digest_size=8).digest(), "little")
    z = np.arange(size, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(start)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.argsort(z ^ (z >> np.uint64(31)), kind="stable")


def order_of(source: Source, seed: int, shuffle: bool) -> np.ndarray:
    """Return the order (int64 [N]) in which records go into shards: clips are shuffled, their frames are not."""
    if not shuffle or source.ordered:
        return np.arange(len(source))
    if "clip" not in source.columns:
        return shuffled(len(source), seed)
    clips, clip_of = np.unique(source.columns["clip"], return_inverse=True)
    place = np.empty(len(clips), np.int64)
    place[shuffled(len(clips), seed)] = np.arange(len(clips))
    return np.argsort(place[clip_of.reshape(-1)], kind="stable")


def auto_shard_size(size: int) -> int:
    """Choose images per shard: 64 shards keep many cores busy to the end, within 256 to 10,000 images each.

    It depends on nothing but the number of images, so that every machine makes the same shards.
    """
    return min(max(-(-size // 64), 256), 10_000)


def shared_identities(sources: Mapping[str, Source]) -> dict[tuple[str, str], list[str]]:
    """List the people (subjects where a column tells them, else classes) that two sets share, for every two that do."""
    names = list(sources)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    people = {name: _people(source) for name, source in sources.items()}
    found = {(a, b): sorted(people[a] & people[b]) for a, b in pairs}
    return {pair: shared for pair, shared in found.items() if shared}


def _people(source: Source) -> set[str]:
    if "subject" not in source.columns:
        return set(source.classes)
    return {source.values["subject"][k] for k in np.unique(source.columns["subject"]).tolist() if k >= 0}


def fingerprint(source: Source) -> str:
    """Hash what the scan found: names, labels, classes, columns, boxes and pairs, but not the image bytes."""
    digest = hashlib.sha256()
    digest.update("\0".join(source.classes).encode("utf-8", "surrogateescape"))
    for start in range(0, len(source), 65536):
        names = [source.name(i) for i in range(start, min(start + 65536, len(source)))]
        digest.update("\0".join(names).encode("utf-8", "surrogateescape") + b"\0")
    digest.update(np.ascontiguousarray(source.labels, "<i8").data)
    extra = {**source.columns, "boxes": source.boxes, "landmarks": source.landmarks}
    if source.faces is not None:
        extra |= {"faces start": source.faces.start, "faces": source.faces.boxes}
        extra |= {f"faces {name}": values for name, values in source.faces.attributes.items()}
    extra = {name: values for name, values in extra.items() if values is not None}
    for name in sorted(extra):
        digest.update(f"{name} {extra[name].dtype.str}".encode())
        digest.update(np.ascontiguousarray(extra[name]).data)
    digest.update(repr(source.values).encode("utf-8", "surrogateescape"))
    digest.update(repr(source.pairs).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
