"""CelebA's and VGGFace2's lists beside their images -> Source: identities, splits, boxes and landmarks."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fastface.data.geometry import NUM_LANDMARKS
from fastface.data.sources import Source, subset
from fastface.data.sources.folder import open_folder
from fastface.data.sources.scan import FileSource, left_out, scan

_PARTITIONS = ("train", "val", "test")  # list_eval_partition.txt: 0, 1, 2
_IMAGES = {  # folder or .tar of images -> its list of landmarks, and of boxes where they belong to these pixels
    "img_align_celeba": ("list_landmarks_align_celeba.txt", None),
    "img_celeba": ("list_landmarks_celeba.txt", "list_bbox_celeba.txt"),
}


def open_celeba(path: Path) -> dict[str, Source]:
    """Read a folder with img_align_celeba or img_celeba (a folder or .tar) and CelebA's lists, at its top or in Anno/
    and Eval/.

    identity_CelebA.txt is needed. list_eval_partition.txt divides into train, val and test. The boxes of
    list_bbox_celeba.txt are those of img_celeba; the aligned images have landmarks only.
    """
    images = [path / (name + end) for name in _IMAGES for end in ("", ".tar") if (path / (name + end)).exists()]
    if len(images) != 1:
        listed = ", ".join(image.name for image in images) or "neither"
        raise ValueError(f"{path} must hold img_align_celeba or img_celeba, a folder or .tar, not both: {listed}")
    landmarks_name, boxes_name = _IMAGES[images[0].name.removesuffix(".tar")]
    identities = _find(path, "identity_CelebA.txt")
    if identities is None:
        raise ValueError(f"{path} has no identity_CelebA.txt: without it nobody knows who is who")
    person_of = {name: row[0] for name, row in _table(identities, 1).items()}
    found = scan(images[0])
    files = [name.split("/")[-1] for name in found.names]
    found.skipped += [(name, "no-identity") for name, f in zip(found.names, files, strict=True) if f not in person_of]
    keep = [i for i, file in enumerate(files) if file in person_of]
    if not keep:
        raise ValueError(f"{images[0]} has no image that {identities} names. Left out: {left_out(found.skipped)}")
    files = [files[i] for i in keep]
    width = max(map(len, person_of.values()))
    persons = [person_of[file].zfill(width) for file in files]
    source = FileSource(images[0], found.take(keep), persons, found.skipped)
    if table := _find(path, landmarks_name):
        values = _numbers(table, _table(table, 2 * NUM_LANDMARKS), files)
        source.landmarks = values.reshape(-1, NUM_LANDMARKS, 2)
    if boxes_name and (table := _find(path, boxes_name)):
        source.boxes = _numbers(table, _table(table, 4), files)
        source.boxes[:, 2:] += source.boxes[:, :2]
    partition = _find(path, "list_eval_partition.txt")
    if partition is None:
        return {"": source}
    part = _numbers(partition, _table(partition, 1), files)[:, 0]
    if not np.isin(part, range(len(_PARTITIONS))).all():
        raise ValueError(
            f"{partition}: image {files[int(np.argmin(np.isin(part, [0, 1, 2])))]} is in no partition 0 to 2"
        )
    sets = {name: subset(source, part == k) for k, name in enumerate(_PARTITIONS) if (part == k).any()}
    for name in list(sets)[1:]:
        sets[name].skipped = []
    return sets


def open_vggface2(path: Path) -> dict[str, Source]:
    """Read train/ and test/ (or one of them) with n000001/0001_01.jpg as `folder` does, and the loose boxes and
    landmarks of loose_bb_SPLIT.csv and loose_landmark_SPLIT.csv where they lie at the top or in bb_landmark/.
    """
    sources: dict[str, Source] = dict(open_folder(path))
    for split, source in sources.items():
        keys = [source.name(i) for i in range(len(source))]
        keys = ["/".join(key.split("/")[-2:]).rsplit(".", 1)[0] for key in keys]  # n000001/0001_01
        which = split or path.name
        if table := _find(path, f"loose_bb_{which}.csv"):
            source.boxes = _numbers(table, _table(table, 4), keys)
            source.boxes[:, 2:] += source.boxes[:, :2]
        if table := _find(path, f"loose_landmark_{which}.csv"):
            source.landmarks = _numbers(table, _table(table, 2 * NUM_LANDMARKS), keys).reshape(-1, NUM_LANDMARKS, 2)
    return sources


def _find(path: Path, name: str) -> Path | None:
    folders = (path, path / "Anno", path / "Eval", path / "bb_landmark", path.parent, path.parent / "bb_landmark")
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def _table(path: Path, columns: int) -> dict[str, list[str]]:
    """Read lines of a name and `columns` cells, by blanks or (.csv) commas, below a count and a header if there are."""
    split: Callable[[str], list[str]] = str.split
    if path.suffix == ".csv":
        split = lambda line: next(csv.reader([line]), [])  # noqa: E731
    rows: dict[str, list[str]] = {}
    for number, line in enumerate(path.read_text("utf-8-sig").splitlines(), 1):
        name, *cells = split(line) or [""]
        if len(cells) == columns and cells[0].lstrip("-").replace(".", "", 1).isdecimal():
            if name in rows:
                raise ValueError(f"{path} line {number}: {name!r} is there already")
            rows[name] = cells
        elif number > 2 and name:
            raise ValueError(f"{path} line {number}: expected a name and {columns} numbers, found {line[:60]!r}")
    return rows


def _numbers(path: Path, rows: dict[str, list[str]], names: list[str]) -> np.ndarray:
    """Return the numbers of each name, float32 [N, columns]."""
    missing = [name for name in names if name not in rows]
    if missing:
        raise ValueError(f"{path} has no line for {len(missing):,} images, the first is {missing[0]}")
    try:
        return np.array([rows[name] for name in names]).astype(np.float32)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
