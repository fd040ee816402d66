"""WIDER FACE's images and its official list of boxes -> Source: whole images, all faces of each, classes = events."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fastface.data.geometry import Faces
from fastface.data.sources import nearest_path
from fastface.data.sources.scan import FileSource, left_out, scan

# The numbers of a line after x y w h, as readme.txt of wider_face_split.zip names them (invalid = too small or too
# blurred to be judged: neither a face to be found nor background).
ATTRIBUTES = ("blur", "expression", "illumination", "invalid", "occlusion", "pose")
MAX_FACES = 100_000  # in one image; the largest of WIDER FACE has 1,968


def open_widerface(path: Path, annotations: Path | None = None) -> FileSource:
    """Read EVENT/IMAGE.jpg, at any depth of a directory or .tar, with the boxes in wider_face_*_bbx_gt.txt.

    Images that the list says have no face are kept without boxes. Images that are not in the list, and lines of the
    list without their image, go to `skipped`. Boxes are x0 y0 x1 y1 px, as found: the conversion counts bad ones.
    """
    annotations = annotations or _find(path)
    listed = dict(read_boxes(annotations))
    found = scan(path)
    at = {"/".join(name.split("/")[-2:]): i for i, name in enumerate(found.names)}
    if len(at) < len(found.names):
        twice = next(n for i, n in enumerate(found.names) if at["/".join(n.split("/")[-2:])] != i)
        raise ValueError(f"{path}: {twice} is there twice, in two folders; give one split, such as {path}/WIDER_val")
    keep = sorted(at[name] for name in listed if name in at)
    if not keep:
        raise ValueError(
            f"{path} holds none of the {len(listed):,} images that {annotations} lists, such as {next(iter(listed))}. "
            f"Left out: {left_out(found.skipped)}"
        )
    found.skipped += [(name, "image-missing") for name in listed if name not in at]
    found.skipped += [(found.names[i], "not-annotated") for name, i in at.items() if name not in listed]
    found.skipped.sort()
    chosen = found.take(keep)
    keys = ["/".join(name.split("/")[-2:]) for name in chosen.names]
    source = FileSource(path, chosen, (key.split("/")[0] for key in keys), found.skipped)
    rows = np.concatenate([listed[key] for key in keys])  # int64 [M, 4 + attributes]
    boxes = rows[:, :4].astype(np.float32)
    boxes[:, 2:] += boxes[:, :2]
    start = np.concatenate([[0], np.cumsum([len(listed[key]) for key in keys])]).astype(np.int64)
    source.faces = Faces(start, boxes, {name: rows[:, 4 + k].astype(np.int8) for k, name in enumerate(ATTRIBUTES)})
    return source


def _find(path: Path) -> Path:
    """Find the one list beside or in `path`; the official archives put it into wider_face_split/."""
    folders = [path, path.parent, path / "wider_face_split", path.parent / "wider_face_split"]
    lists = sorted({file.resolve() for folder in folders for file in folder.glob("wider_face_*_bbx_gt.txt")})
    mine = [file for file in lists if file.name.split("_")[2] in path.name.lower()]
    chosen = mine if len(mine) == 1 else lists
    if len(chosen) != 1:
        names = ", ".join(file.name for file in lists) or "none"
        raise ValueError(f"{path}: found {names}; say with --annotations which wider_face_*_bbx_gt.txt belongs to it")
    return chosen[0]


def read_boxes(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (EVENT/IMAGE.jpg, int64 [faces, 10]) of a bbx_gt list; the line of zeros of an image without faces is none.

    ValueError with the line number for anything else than the official layout.
    """
    if not path.is_file():
        raise ValueError(f"{path} is no file{nearest_path(path)}")
    lines = path.read_text("utf-8-sig").splitlines()
    at, seen = 0, set[str]()
    while at < len(lines):
        name = lines[at].strip()
        if not name:
            at += 1
            continue
        if name.count("/") != 1 or name in seen or any(ord(c) < 32 for c in name):
            raise ValueError(f"{path} line {at + 1}: {name!r} is no EVENT/IMAGE.jpg, or is there already")
        seen.add(name)
        count = lines[at + 1].strip() if at + 1 < len(lines) else ""
        if not count.isdecimal() or int(count) > MAX_FACES:
            raise ValueError(f"{path} line {at + 2}: {count!r} is no number of faces; the list is cut or damaged")
        values = array("q")
        for number in range(at + 2, at + 2 + max(int(count), 1)):
            row = lines[number].split() if number < len(lines) else []
            try:
                values.extend(map(int, row))
            except (ValueError, OverflowError):
                row = []
            if len(row) != 4 + len(ATTRIBUTES):
                raise ValueError(f"{path} line {number + 1}: expected x y w h and {len(ATTRIBUTES)} attributes")
        faces = np.array(values, np.int64).reshape(-1, 4 + len(ATTRIBUTES))
        if int(count) == 0 and faces.any():
            raise ValueError(f"{path} line {at + 3}: expected a line of zeros behind a count of 0")
        yield name, faces[: int(count)]
        at += 2 + len(faces)
