"""Shard sets -> the groups of images whose bytes are the same, in a set, under two identities, or in two sets."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastface.data.index import Index
from fastface.data.shards import ShardReader
from fastface.data.units import content_keys
from fastface.durable import write_durably

HEADER = ["group", "set", "record", "name", "identity"]


class Duplicates(NamedTuple):
    """Images with the same bytes."""

    groups: list[list[tuple[int, int]]]  # of (set, record), two or more each
    extra: int  # images that another in their group makes superfluous
    conflicts: int  # groups whose images are under more than one identity
    shared: int  # groups with images in more than one set

    def __str__(self) -> str:
        if not self.groups:
            return "no two images have the same bytes"
        return (
            f"{self.extra:,} images repeat another byte by byte, in {len(self.groups):,} groups: {self.conflicts:,} "
            f"under more than one identity, {self.shared:,} in more than one set"
        )


def find_duplicates(sets: Sequence[Index]) -> Duplicates:
    """Find images of the same bytes: candidates by crc32 and length from the index, then by sha256 of their bytes.

    Memory is 24 bytes an image, 240 MB for ten million; only candidates are read.
    """
    keys = np.concatenate([content_keys(index) for index in sets])
    order = np.argsort(keys, kind="stable")
    ranked = keys[order]
    same = ranked[1:] == ranked[:-1]
    chosen = np.zeros(len(order), bool)
    chosen[1:] |= same
    chosen[:-1] |= same
    starts = np.concatenate([[0], np.cumsum([len(index) for index in sets])])
    readers = [ShardReader(index) for index in sets]
    found: dict[tuple[int, bytes], list[tuple[int, int]]] = {}
    places = np.sort(order[chosen])  # in the order of the disk
    for place, key in zip(places.tolist(), keys[places].tolist(), strict=True):
        number = int(np.searchsorted(starts, place, side="right")) - 1
        record = place - int(starts[number])
        digest = hashlib.sha256(readers[number].view(record).data).digest()
        found.setdefault((key, digest), []).append((number, record))
    groups = sorted(sorted(group) for group in found.values() if len(group) > 1)
    names = [{sets[k].classes[int(sets[k].label[i])] for k, i in group} for group in groups]
    return Duplicates(
        groups,
        extra=sum(len(group) - 1 for group in groups),
        conflicts=sum(len(some) > 1 for some in names),
        shared=sum(len({k for k, _ in group}) > 1 for group in groups),
    )


def write_duplicates(file: Path, sets: Mapping[str, Index], found: Duplicates) -> None:
    """Write one line per image of each group: group, set, record, name, identity."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    titles, opened = list(sets), list(sets.values())
    for number, group in enumerate(found.groups):
        for k, i in group:
            index = opened[k]
            writer.writerow([number, titles[k], i, index.name(i), index.classes[int(index.label[i])]])
    write_durably(file, text.getvalue().encode("utf-8", "surrogateescape"))
