"""Folders of embeddings for tests: people who can be told apart by some dimensions, and not by others."""

from pathlib import Path

import numpy as np

from fastface.data.embeddings import write_embeddings


def write_rows(
    folder: Path,
    people: int = 12,
    images: int = 4,
    *,
    seed: int = 0,
    size: int = 8,
    noisy: int = 4,
    model: str = "a",
    failed: tuple[int, ...] = (),
    first_person: int = 0,
) -> Path:
    """Write embeddings of `size` values of which the last `noisy` say nothing; rows `failed` are NaN.

    Row i is image i % images of person i // images; people of one seed are the same in every folder.
    """
    rows = np.empty((people * images, size))
    for row in range(len(rows)):
        person = first_person + row // images
        own = np.random.default_rng([seed, person]).normal(size=size)
        own[size - noisy :] = 0
        noise = np.random.default_rng([seed, person, row % images, 1]).normal(size=size)
        rows[row] = own + noise * np.where(np.arange(size) < size - noisy, 0.3, 1.5)
    rows[list(failed)] = np.nan
    labels = np.repeat(np.arange(people), images)
    names = [f"p{first_person + n // images:03d}/{n % images}.jpg" for n in range(len(rows))]
    classes = [f"p{first_person + n:03d}" for n in range(people)]
    write_embeddings(folder, rows, labels, names, classes, {"dataset_id": f"set {seed}", "model": {"sha256": model}})
    return folder
