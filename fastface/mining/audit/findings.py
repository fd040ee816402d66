"""What an audit finds -> rows of findings.csv, and which images exclude.csv takes out."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from fastface.durable import write_durably

KINDS = {  # in the order of the report: kind -> what it is
    "duplicate": "the same pixels twice under one name",
    "duplicate-conflict": "the same pixels under two names",
    "near-duplicate": "one photograph twice under one name: encoded again, resized, mirrored",
    "near-duplicate-conflict": "one photograph under two names",
    "alike": "nearly equal embeddings, other pixels: perhaps one photograph, cut otherwise",
    "same-person": "two names whose images are as alike as those of one person",
    "mislabelled": "an image unlike its own identity and as like another's as images of one person are",
    "loner": "an image unlike the rest of its identity, like nobody else's",
    "split": "an identity whose images fall into groups as unlike as different people",
    "shared-name": "an identity of this name is in the other set",
    "shared-image": "an image that is in the other set",
    "shared-person": "an identity that looks like one of the other set, under another name",
    "empty": "an identity without images",
    "tiny": "an identity with one image",
    "unreadable": "an image that cannot be decoded",
    "no-embedding": "an image whose embedding is missing, zero or not finite",
    "blurred": "an image without fine detail",
    "dark": "a dark image",
    "bright": "a bright image",
    "flat": "an image without contrast",
    "small": "an image smaller than the others",
    "grey": "an image without colour",
}
FINDINGS = ["kind", "sure", "score", "image", "identity", "other_image", "other_identity", "other"]
EXCLUDED = ["image", "identity", "kind", "score"]


class Place(NamedTuple):
    """An image: of which set (0: the audited, 1: the one it is held against), and its record."""

    set: int
    record: int


class Finding(NamedTuple):
    """One thing found; images and identities say where, the first are what it is about."""

    kind: str  # of KINDS
    sure: bool  # by the surer of two thresholds
    score: float  # NaN where there is none
    images: tuple[Place, ...] = ()
    identities: tuple[tuple[int, int], ...] = ()  # (set, label)
    note: str = ""
    drop: tuple[int, ...] = ()  # records of set 0 that exclude.csv lists


def write_csv(path: Path, header: list[str], rows: Iterable[Sequence[object]]) -> None:
    """Write rows durably; names that are no UTF-8 stay as they are."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_durably(path, text.getvalue().encode("utf-8", "surrogateescape"))
