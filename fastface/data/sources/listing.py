"""A csv of path,label -> Source; box columns and further numeric columns come along."""

import csv
import os
import re
from pathlib import Path

import numpy as np

from fastface.data.columns import is_reserved
from fastface.data.geometry import NUM_LANDMARKS
from fastface.data.sources import Names, Source, encode_labels, nearest_path, read_file
from fastface.spelling import nearest

_BOX = ("x0", "y0", "x1", "y1")
_LANDMARKS = tuple(f"l{axis}{k}" for k in range(NUM_LANDMARKS) for axis in "xy")  # lx0, ly0, lx1, ...
_INTEGER = re.compile(r"[+-]?\d{1,18}")


class ListSource(Source):
    """Images by a csv; a name is the path written there, with #2, #3 ... where several boxes share it."""

    def __init__(self, root: Path, paths: list[str], persons: list[str], columns: dict[str, np.ndarray]) -> None:
        self._root, self._paths = str(root), Names(paths)
        names = _numbered(paths)
        self._names = self._paths if names is paths else Names(names)
        super().__init__(*encode_labels(persons))
        if "x0" in columns:
            self.boxes = np.stack([columns.pop(name) for name in _BOX], axis=1).astype(np.float32)
        if "lx0" in columns:
            points = np.stack([columns.pop(name) for name in _LANDMARKS], axis=1)
            self.landmarks = points.reshape(-1, NUM_LANDMARKS, 2).astype(np.float32)
        self.columns = columns

    def name(self, i: int) -> str:
        return self._names[i]

    def read(self, i: int) -> bytes:
        """Return the file's bytes; a list names its files on purpose, so links are followed."""
        return read_file(os.path.join(self._root, self._paths[i]), follow=True)


def open_list(path: Path, root: Path | None = None) -> ListSource:
    """Read `path,label` lines, with or without that header.

    With a header also x0,y0,x1,y1 (a box in px of the upright image), lx0,ly0 to lx4,ly4 (five landmarks) and any
    further columns of numbers (int64 where all are whole, else float64). Paths are relative to `root`, by default the
    csv's folder, or absolute. Errors are ValueError and name the line.
    """
    root = path.parent if root is None else root
    if not root.is_dir():
        raise ValueError(f"root {root} is not a directory{nearest_path(root)}")
    header, rows = _rows(path)
    at = {name: k for k, name in enumerate(header)}
    paths, persons, seen = [], [], {}
    for line, row in rows:
        name, person = row[at["path"]].replace("\\", "/"), row[at["label"]]
        if not name or not person or any(ord(c) < 32 for c in name + person):
            raise ValueError(f"{path} line {line}: path {name!r} and label {person!r} must be plain text, not empty")
        if name in seen and "x0" not in at:
            raise ValueError(f"{path} line {line}: {name!r} was on line {seen[name]} already; remove one, or add boxes")
        seen[name] = line
        paths.append(name)
        persons.append(person)
    if not any(os.path.exists(os.path.join(root, name)) for name in paths[:100]):
        raise ValueError(f"{path}: none of the first {len(paths[:100])} paths exists below {root}, as {paths[0]!r}")
    columns = {name: _column(path, name, rows, k) for name, k in at.items() if name not in ("path", "label")}
    return ListSource(root, paths, persons, columns)


def _rows(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Read the csv to a checked header and (line number, stripped cells)."""
    rows: list[tuple[int, list[str]]] = []
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            for cells in reader:
                if cells:
                    rows.append((reader.line_num, [cell.strip() for cell in cells]))
        except csv.Error as error:
            raise ValueError(f"{path} line {reader.line_num}: {error}") from error
    header = [cell.lower() for cell in rows[0][1]] if rows else []
    if "path" in header or "label" in header:
        _check_header(path, header)
        rows = rows[1:]
    elif len(header) > 2:
        raise ValueError(f"{path} line 1 has {len(header)} columns; name them in a first line: path,label,x0,...")
    else:
        header = ["path", "label"]
    if not rows:
        raise ValueError(f"{path} lists no images; write path,label lines")
    for line, cells in rows:
        if len(cells) != len(header):
            raise ValueError(f"{path} line {line}: {len(cells)} columns, expected {len(header)} ({','.join(header)})")
    return header, rows


def _check_header(path: Path, header: list[str]) -> None:
    for needed in ("path", "label"):
        if needed not in header:
            raise ValueError(f"{path} line 1: no column {needed!r}{nearest(needed, header)}")
    for name in header:
        reserved = is_reserved(name) and name != "label"
        if header.count(name) > 1 or reserved or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise ValueError(f"{path} line 1: column {name!r} is repeated, reserved or not a plain name; rename it")
    for what, names in (("box", _BOX), ("landmark", _LANDMARKS)):
        found = [name for name in names if name in header]
        if found and len(found) < len(names):
            raise ValueError(f"{path} line 1: {what} columns must be all of {','.join(names)}; found {','.join(found)}")


def _column(path: Path, name: str, rows: list[tuple[int, list[str]]], k: int) -> np.ndarray:
    if name not in _BOX + _LANDMARKS and all(_INTEGER.fullmatch(cells[k]) for _, cells in rows):
        return np.array([int(cells[k]) for _, cells in rows], np.int64)
    values = np.empty(len(rows), np.float64)
    for i, (line, cells) in enumerate(rows):
        try:
            values[i] = float(cells[k])
        except ValueError:
            values[i] = np.nan
        if not np.isfinite(values[i]):
            raise ValueError(f"{path} line {line}: column {name!r} is {cells[k]!r}, not a number; fix or remove it")
    return values


def _numbered(paths: list[str]) -> list[str]:
    """Append #2, #3 ... to the second, third ... occurrence; the list itself where nothing repeats."""
    if len(set(paths)) == len(paths):
        return paths
    count: dict[str, int] = {}
    names = []
    for path in paths:
        count[path] = count.get(path, 0) + 1
        names.append(path if count[path] == 1 else f"{path}#{count[path]}")
    return names
