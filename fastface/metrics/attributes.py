"""A csv of attributes, or the group columns of a pair file -> the group of each side of each pair."""

import csv
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastface.metrics.folds import Pairs
from fastface.metrics.pairs import Names, plain_name
from fastface.spelling import nearest

NOT_GIVEN = "(not given)"  # the group of an empty cell


class Attributes(NamedTuple):
    """What a file says about images or persons."""

    names: dict[str, int]  # of an image, with or without its extension, or of a person's folder -> row
    columns: dict[str, np.ndarray]  # attribute -> its value in each row, str [rows]
    where: str


class Sides(NamedTuple):
    """The groups of the two images of each pair."""

    first: np.ndarray  # str [P]
    second: np.ndarray  # str [P]


def read_attributes(path: str | Path) -> Attributes:
    """Read a csv with a header: name, then a column for each attribute; errors name the line."""
    path = Path(path)
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            rows = list(csv.reader(file, strict=True))
    except OSError as error:
        raise ValueError(f"The attributes file {path} cannot be read: {error.strerror}.") from None
    except csv.Error as error:
        raise ValueError(f"{path} is not a csv file: {error}.") from None
    header = [cell.strip() for cell in rows[0]] if rows else []
    if "name" not in header or len(header) < 2 or len(set(header)) < len(header):
        hint = nearest("name", header) if header and "name" not in header else ""
        raise ValueError(f"{path} line 1: expected name and one column an attribute, found {','.join(header)!r}{hint}.")
    names: dict[str, int] = {}
    kept = []
    for number, cells in enumerate(rows[1:], start=2):
        if not cells:
            continue
        if len(cells) != len(header):
            raise ValueError(f"{path} line {number}: expected {len(header)} cells, found {len(cells)}.")
        name = plain_name(cells[header.index("name")].strip()).rstrip("/")
        if not name or name in names:
            raise ValueError(f"{path} line {number}: {f'{name!r} stands twice' if name else 'the name is missing'}.")
        names[name] = len(kept)
        kept.append([cell.strip() or NOT_GIVEN for cell in cells])
    if not kept:
        raise ValueError(f"{path} holds a header and no row.")
    table = np.array(kept, dtype=object)
    columns = {title: table[:, k].astype(str) for k, title in enumerate(header) if title != "name"}
    return Attributes(names, columns, str(path))


def groups_by_attribute(pairs: Pairs, attributes: Attributes, images: Names) -> dict[str, Sides]:
    """Look up the images of the pairs: by name, without extension, or by a folder they lie in, the innermost first.

    Raises ValueError naming the first image without a row, and how many there are.
    """
    ids, place = np.unique(np.stack([pairs.first, pairs.second]), return_inverse=True)
    found = np.array([_row(images.name(i), attributes.names) for i in ids.tolist()])
    if (found < 0).any():
        missing = images.name(int(ids[int(np.argmax(found < 0))]))
        raise ValueError(
            f"{int((found < 0).sum())} of {len(ids)} images of the pairs have no row in {attributes.where}, first "
            f"{missing!r}{nearest(os.path.dirname(missing) or missing, attributes.names)}; names there look like "
            f"{next(iter(attributes.names))!r}. Give each image, or the folder of each person, a row."
        )
    first, second = found[place.reshape(2, -1)]
    return {title: Sides(values[first], values[second]) for title, values in attributes.columns.items()}


def groups_of_pairs(pairs: Pairs) -> dict[str, Sides]:
    """Return the groups that a pair file gives to whole pairs, which both images then have."""
    return {title: Sides(values, values) for title, values in (pairs.groups or {}).items()}


def unused_rows(pairs: Pairs, attributes: Attributes, images: Names) -> int:
    """Count the rows that no image of the pairs needed."""
    used = {_row(images.name(i), attributes.names) for i in np.unique([pairs.first, pairs.second]).tolist()}
    return len(attributes.names) - len(used - {-1})


def _row(name: str, names: dict[str, int]) -> int:
    name = plain_name(name)
    for key in (name, os.path.splitext(name)[0]):
        if key in names:
            return names[key]
    while name := os.path.dirname(name):
        if name in names:
            return names[name]
    return -1
