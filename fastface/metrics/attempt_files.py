"""A csv of scored attempts -> Attempts: match_score, liveness_score, kind, and what else is known of each."""

import csv
from pathlib import Path

import numpy as np

from fastface.metrics.full_system import Attempts, gather_attempts
from fastface.spelling import nearest

NEEDED = ("match_score", "liveness_score", "kind")
KNOWN = (*NEEDED, "attack", "person", "reference")


def read_attempts(path: str | Path) -> Attempts:
    """Read attempts; errors name the line.

    kind is genuine, impostor or attack, attack the species of an attack; person is who is before the camera, or shown
    by the attack, and reference the person who is enrolled; one of both columns will do. An empty score is no answer.
    Further columns are not read.
    """
    path = Path(path)
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            rows = list(csv.reader(file, strict=True))
    except OSError as error:
        raise ValueError(f"The scores file {path} cannot be read: {error.strerror}.") from None
    except csv.Error as error:
        raise ValueError(f"{path} is not a csv file: {error}.") from None
    header = [cell.strip() for cell in rows[0]] if rows else []
    for name in NEEDED:
        if name not in header:
            hint = nearest(name, header) if header else ""
            raise ValueError(f"{path} line 1: expected {','.join(NEEDED)}, found {','.join(header)!r}{hint}.")
    if len(set(header)) < len(header):
        raise ValueError(f"{path} line 1: a column stands twice in {','.join(header)!r}.")
    table: dict[str, list[str]] = {name: [] for name in header}
    for number, cells in enumerate(rows[1:], start=2):
        if not cells:
            continue
        if len(cells) != len(header):
            raise ValueError(f"{path} line {number}: expected {len(header)} cells, found {len(cells)}.")
        for name, cell in zip(header, cells, strict=True):
            table[name].append(cell.strip())
    match, live = ([_number(cell, name, path, k) for k, cell in enumerate(table[name])] for name in NEEDED[:2])
    try:
        return gather_attempts(np.array(match), np.array(live), table["kind"], table.get("attack"), _persons(table))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _number(cell: str, name: str, path: Path, k: int) -> float:
    try:
        return float(cell) if cell else np.nan
    except ValueError:
        raise ValueError(f"{path}: {name} of attempt {k + 1} is {cell!r}, not a number.") from None


def _persons(table: dict[str, list[str]]) -> np.ndarray | None:
    """Number the persons of attempts from 0, int64 [1 or 2, N]; those without a name are each one of their own."""
    known = [table[name] for name in ("person", "reference") if name in table]
    if not known or not any(any(column) for column in known):
        return None
    whole = [column for column in known if any(column)]
    sides = [[cell or f"\0{k}" for k, cell in enumerate(column)] for column in whole]
    return np.unique(np.array(sides), return_inverse=True)[1].reshape(len(sides), -1).astype(np.int64)
