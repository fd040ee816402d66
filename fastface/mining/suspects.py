"""Pairs of identities too alike to be two -> a csv to look through, with an image of each."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from fastface.data.index import Index
from fastface.durable import write_durably
from fastface.mining.hard import Suspects

HEADER = ["score", "identity_a", "identity_b", "image_a", "image_b", "images_a", "images_b"]
MOST = 100_000  # lines; the likest come first

ImageOf = Callable[[int, int], str]
"""(identity, row) -> the name of an image of that identity: the row's own, where rows are images."""


def write_suspects(
    file: Path, suspects: Suspects, classes: Sequence[str], counts: np.ndarray, image_of: ImageOf
) -> None:
    """Write the likest suspects, at most MOST of them; counts: images of each identity, int [C]."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for a, b, score, row, other in zip(*(column[:MOST].tolist() for column in suspects), strict=True):
        names = classes[a], classes[b], image_of(a, row), image_of(b, other)
        writer.writerow([f"{score:.4f}", *names, int(counts[a]), int(counts[b])])
    write_durably(file, text.getvalue().encode("utf-8", "surrogateescape"))


def first_image(index: Index) -> ImageOf:
    """Name an identity's first image, whatever the row."""
    return lambda identity, _: index.name(int(index.by_label[index.label_start[identity]]))
