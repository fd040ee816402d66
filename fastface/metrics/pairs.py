"""Pair files -> Pairs of image ids: LFW's pairs.txt, its development lists, and csv."""

import csv
import difflib
import io
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from fastface.durable import write_durably
from fastface.metrics.folds import Pairs, check_folds, make_folds, shared_identities, stratified_folds
from fastface.metrics.sampling import count_pairs, sample_pairs
from fastface.spelling import nearest

__all__ = [
    "NamedPairs",
    "Pairs",
    "check_folds",
    "count_pairs",
    "make_folds",
    "read_pairs",
    "resolve_pairs",
    "sample_pairs",
    "shared_identities",
    "stratified_folds",
    "write_pairs",
]

_COLUMNS = ("a", "b", "same", "fold")
_FLAGS = {"1": True, "true": True, "0": False, "false": False}


class NamedPairs(NamedTuple):
    """Pairs by the names of their images."""

    first: list[str]
    second: list[str]
    same: np.ndarray  # bool [P]
    fold: np.ndarray | None  # int16 [P], 0..K-1
    groups: dict[str, np.ndarray] | None = None  # by title, str [P]


class Names(Protocol):
    """What images are found in by name, such as a shard set's Index."""

    def __len__(self) -> int: ...

    def name(self, i: int) -> str: ...


def read_pairs(path: str | Path) -> NamedPairs:
    """Read a pairs file; errors name the line.

    LFW's layout: a first line `FOLDS N` or `N`, then for each fold N genuine lines `Name I J` and N impostor
    lines `Name I Other J`, which stand for Name/Name_0001 (no extension). csv: a header with a, b, same (1 or
    0) and maybe fold, names as the images are called; columns called group or group_ANYTHING say to which group of a
    breakdown a pair belongs. Folds are None where the file has none.
    """
    path = Path(path)
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:  # names: any bytes
            lines = file.read().splitlines()
    except OSError as error:
        raise ValueError(f"The pairs file {path} cannot be read: {error.strerror}.") from None
    if not lines:
        raise ValueError(f"The pairs file {path} is empty.")
    if path.suffix.lower() == ".csv" or "," in lines[0]:
        return _read_csv(path, lines)
    return _read_lfw(path, lines)


def resolve_pairs(pairs: NamedPairs, images: Names, where: str = "the images") -> Pairs:
    """Find the pairs' images by name: leading ./ never counts, the extension only if two differ by it.

    Raises ValueError naming the first image that is missing or ambiguous, and how many are missing.
    """
    found = find_images([*pairs.first, *pairs.second], images, where)
    first, second = (np.array([found[name] for name in names], dtype=np.int64) for names in pairs[:2])
    return Pairs(first, second, pairs.same, pairs.fold, pairs.groups)


def find_images(names: Iterable[str], images: Names, where: str) -> dict[str, int]:
    """Return the id of each image by name, as `resolve_pairs` finds them."""
    wanted = list(dict.fromkeys(names))
    found = _find_exact(wanted, images) or _scan(wanted, images, where)
    missing = [name for name in wanted if name not in found]
    if missing:
        there = {_stem(plain_name(images.name(i))): i for i in range(min(len(images), 10_000))}
        near = difflib.get_close_matches(_stem(plain_name(missing[0])), there, n=1) or list(there)[:1]
        like = f"; names there look like {images.name(there[near[0]])!r}" if near else ""
        raise ValueError(f"{len(missing)} of {len(wanted)} images are not in {where}, first {missing[0]!r}{like}.")
    return found


def write_pairs(path: str | Path, pairs: Pairs, name: Callable[[int], str]) -> None:
    """Write pairs as csv (a, b, same; fold and groups where known), whole or not at all; `name` maps an image id."""
    columns = {"a": pairs.first.tolist(), "b": pairs.second.tolist(), "same": pairs.same.tolist()}
    columns |= {} if pairs.fold is None else {"fold": pairs.fold.tolist()}
    columns |= {title: values.tolist() for title, values in (pairs.groups or {}).items()}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for a, b, same, *rest in zip(*columns.values(), strict=True):
        writer.writerow([name(a), name(b), int(same), *rest])
    write_durably(Path(path), text.getvalue().encode("utf-8", "surrogateescape"))


def _read_lfw(path: Path, lines: list[str]) -> NamedPairs:
    head = lines[0].split()
    if len(head) not in (1, 2) or not all(part.isdecimal() and int(part) > 0 for part in head):
        raise ValueError(f"{path} line 1: expected 'FOLDS N' or 'N' (or a csv header a,b,same), found {lines[0]!r}.")
    folds, num = (int(head[0]), int(head[1])) if len(head) == 2 else (1, int(head[0]))
    body = [(number, line) for number, line in enumerate(lines[1:], start=2) if line.strip()]
    if len(body) != 2 * folds * num:
        raise ValueError(f"{path} line 1 announces {2 * folds * num} pairs, but {len(body)} follow; get it whole.")
    rows = [_lfw_row(path, number, line) for number, line in body]
    first, second, same = zip(*rows, strict=True)
    for k in range(folds):
        genuine = sum(same[2 * num * k : 2 * num * (k + 1)])
        if genuine != num:
            at = body[2 * num * k][0]
            raise ValueError(f"{path} line {at}: the {2 * num} pairs from here hold {genuine} genuine ones, not {num}.")
    fold = (np.arange(len(rows)) // (2 * num)).astype(np.int16) if folds > 1 else None
    return NamedPairs(list(first), list(second), np.array(same, dtype=bool), fold)


def _lfw_row(path: Path, number: int, line: str) -> tuple[str, str, bool]:
    parts = line.strip().split("\t") if "\t" in line.strip() else line.split()
    if len(parts) not in (3, 4) or not parts[0]:
        raise ValueError(f"{path} line {number}: expected 'Name I J' or 'Name I Other J', found {line!r}.")
    numbers = parts[1:] if len(parts) == 3 else parts[1::2]
    if not all(part.strip().isdecimal() for part in numbers):
        raise ValueError(f"{path} line {number}: image numbers must be whole, found {line!r}.")
    other = parts[0] if len(parts) == 3 else parts[2]
    a, b = (f"{name}/{name}_{int(i):04d}" for name, i in zip((parts[0], other), numbers, strict=True))
    if a == b:
        raise ValueError(f"{path} line {number}: an image is paired with itself: {line!r}.")
    return a, b, len(parts) == 3


def _read_csv(path: Path, lines: list[str]) -> NamedPairs:
    rows = csv.reader(lines, strict=True)
    columns = [cell.strip() for cell in next(rows)]
    for cell in columns:
        if cell not in _COLUMNS and not _is_group(cell):
            hint = nearest(cell, _COLUMNS)
            expected = "expected a,b,same and maybe fold and group columns"
            raise ValueError(f"{path} line 1: unknown column {cell!r}{hint}; {expected}.")
    if len(set(columns)) < len(columns) or not {"a", "b", "same"} <= set(columns):
        raise ValueError(f"{path} line 1: expected the columns a,b,same and maybe fold, found {lines[0]!r}.")
    read = list(_csv_rows(path, rows, columns))
    if not read:
        raise ValueError(f"{path} holds a header and no pair.")
    first, second, same, fold, *groups = zip(*read, strict=True)
    folds = None
    if "fold" in columns:
        folds = np.unique(np.array(fold, dtype=np.int64), return_inverse=True)[1].astype(np.int16)
    by_title = dict(zip(filter(_is_group, columns), map(np.array, groups), strict=True)) or None
    return NamedPairs(list(first), list(second), np.array(same, dtype=bool), folds, by_title)


def _is_group(column: str) -> bool:
    return column == "group" or column.startswith("group_")


def _csv_rows(path: Path, rows: Iterable[list[str]], columns: list[str]) -> Iterator[tuple[Any, ...]]:
    number = 1
    try:
        for cells in rows:
            number += 1
            if cells:
                yield _csv_row(dict(zip(columns, cells, strict=True)), cells)
    except (ValueError, csv.Error) as error:
        text = f"expected {len(columns)} cells" if "zip()" in str(error) else str(error)
        raise ValueError(f"{path} line {number}: {text}.") from None


def _csv_row(row: dict[str, str], cells: list[str]) -> tuple[Any, ...]:
    flag, fold = row["same"].strip().lower(), row.get("fold", "0").strip()
    if flag not in _FLAGS:
        raise ValueError(f"same must be 1 or 0, found {row['same']!r}")
    if not fold.isdecimal():
        raise ValueError(f"fold must be a whole number, found {fold!r}")
    if not row["a"] or not row["b"] or row["a"] == row["b"]:
        raise ValueError(f"an image is missing or paired with itself: {','.join(cells)!r}")
    groups = [value.strip() for column, value in row.items() if _is_group(column)]
    if not all(groups):
        raise ValueError(f"the group is missing: {','.join(cells)!r}")
    return row["a"], row["b"], _FLAGS[flag], int(fold), *groups


def _find_exact(wanted: list[str], images: Names) -> dict[str, int] | None:
    """Ask an index, which finds without reading all names, for names as written and with .jpg."""
    find = getattr(images, "find", None)
    if find is None:
        return None
    for extension in ("", ".jpg"):
        try:
            return dict(zip(wanted, find([plain_name(name) + extension for name in wanted]).tolist(), strict=True))
        except ValueError:
            continue
    return None


def _scan(wanted: Iterable[str], images: Names, where: str) -> dict[str, int]:
    """Go through all names once and keep those that are wanted, whole or without their extension."""
    whole = {plain_name(name) for name in wanted}
    stems = whole | {_stem(name) for name in whole}
    by_name: dict[str, int] = {}
    by_stem: dict[str, list[int]] = {}
    for i in range(len(images)):
        name = plain_name(images.name(i))
        if name in whole:
            by_name[name] = i
        if _stem(name) in stems:
            by_stem.setdefault(_stem(name), []).append(i)
    found: dict[str, int] = {}
    for name in wanted:
        plain = plain_name(name)
        alike = by_stem.get(plain) or by_stem.get(_stem(plain), [])
        if plain in by_name:
            found[name] = by_name[plain]
        elif len(alike) == 1:
            found[name] = alike[0]
        elif alike:
            both = " and ".join(repr(images.name(i)) for i in alike[:2])
            raise ValueError(f"{name!r} could be {both} in {where}; write the pairs with extensions.")
    return found


def plain_name(name: str) -> str:
    """Drop leading ./, which never counts."""
    while name.startswith("./"):
        name = name[2:]
    return name


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]
