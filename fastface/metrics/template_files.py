"""Lists of images by template and medium, and of template pairs, in IJB's, IJB-A's, YTF's or our layout -> numbers."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastface.spelling import nearest

_IMAGE_COLUMNS = {  # ours, and IJB-A's metadata
    "name": "name", "template": "template", "media": "media", "score": "score", "subject": "subject",
    "file": "name", "template_id": "template", "media_id": "media", "subject_id": "subject",
}  # fmt: skip
_PAIR_COLUMNS = {  # ours, and splits.txt of YouTube Faces
    "a": "a", "b": "b", "same": "same", "fold": "fold",
    "first name": "a", "second name": "b", "is same": "same", "split number": "fold",
}  # fmt: skip


class Templates(NamedTuple):
    """Which images make up which template; a template is what a person is known by, of one image or many."""

    names: list[str]  # [n] of images
    template: np.ndarray  # int64 [n], 0..T-1
    media: np.ndarray  # int64 [n]: frames of one video share it
    score: np.ndarray | None  # float64 [n], of the face detector
    ids: np.ndarray  # [T], the templates as the file calls them: int64 or str
    subject: np.ndarray | None  # int64 [T], the person


class TemplatePairs(NamedTuple):
    """Templates to compare."""

    first: np.ndarray  # int64 [P], 0..T-1
    second: np.ndarray  # int64 [P]
    same: np.ndarray  # bool [P]
    fold: np.ndarray | None  # int16 [P], 0..K-1


def read_templates(path: Path) -> Templates:
    """Read the images of templates; errors name the line.

    Lines of `image template medium` (IJB-B and IJB-C, *_face_tid_mid.txt), or a csv whose header has name, template
    and media, maybe score and subject; IJB-A's metadata csv is understood, whatever else it holds.
    """
    lines = _lines(path)
    if "," not in lines[0]:
        rows = [_split(path, number, line, 3) for number, line in enumerate(lines, start=1) if line.strip()]
        return _numbered(path, dict(zip(("name", "template", "media"), zip(*rows, strict=True), strict=True)))
    table = _table(path, lines, _IMAGE_COLUMNS, ("name", "template", "media"), strict="TEMPLATE_ID" not in lines[0])
    return _numbered(path, table)


def folder_templates(names: Sequence[str]) -> Templates:
    """Make one template of one medium of each folder of images: the videos of YouTube Faces, by their folders."""
    folders = [os.path.dirname(name) for name in names]
    if not all(folders):
        raise ValueError(f"image {names[folders.index('')]!r} lies in no folder: templates of folders need one each.")
    ids, template = np.unique(folders, return_inverse=True)
    return Templates(list(names), template.astype(np.int64), template.astype(np.int64), None, ids, None)


def with_detector_scores(templates: Templates, path: Path) -> Templates:
    """Add the detector's scores of lines `image x y x y x y x y x y score` (IJB's *_name_5pts_score.txt)."""
    scores = {}
    for number, line in enumerate(_lines(path), start=1):
        cells = _split(path, number, line, 12)
        scores[cells[0]] = _number(path, number, cells[-1])
    missing = [name for name in templates.names if name not in scores]
    if missing:
        raise ValueError(f"{path} has no score for {len(missing)} images, first {missing[0]!r}.")
    return templates._replace(score=np.array([scores[name] for name in templates.names]))


def read_template_pairs(path: Path, templates: Templates) -> TemplatePairs:
    """Read pairs of templates; errors name the line or the template.

    Lines of `template template label` (IJB-B and IJB-C, *_template_pair_label.txt); a csv with the header a, b, same
    and maybe fold; splits.txt of YouTube Faces; or IJB-A's comparisons, two ids a line, same where subjects agree.
    """
    with open(path, encoding="utf-8-sig") as file:
        head = file.readline()
    if "," in head and not head.split(",")[0].strip().isdecimal():
        table = _table(path, _lines(path), _PAIR_COLUMNS, ("a", "b", "same"), strict="split number" not in head.lower())
        first, second = (_find(path, np.array(table[side]), templates) for side in ("a", "b"))
        flags = np.array(table["same"])
        folds = None
        if "fold" in table:
            folds = np.unique([int(_number(path, n, f)) for n, f in enumerate(table["fold"], 2)], return_inverse=True)[
                1
            ]
    else:  # millions of lines: read at once
        try:
            cells = np.loadtxt(path, dtype=np.int64, delimiter="," if "," in head else None, ndmin=2)
        except ValueError as error:
            raise ValueError(f"{path} does not hold whole numbers only: {error}.") from None
        if not len(cells) or cells.shape[1] not in (2, 3):
            raise ValueError(
                f"{path}: expected two templates and a label in a line, or a csv with the header a,b,same."
            )
        first, second = (_find(path, cells[:, side], templates) for side in (0, 1))
        folds = None
        if cells.shape[1] == 3:
            flags = cells[:, 2].astype(str)
        elif templates.subject is not None:
            flags = (templates.subject[first] == templates.subject[second]).astype(int).astype(str)
        else:
            raise ValueError(f"{path} says of no pair whether it is genuine, and the templates have no subject column.")
    bad = ~np.isin(flags, ("0", "1"))
    if bad.any():
        raise ValueError(
            f"{path} pair {int(np.argmax(bad)) + 1}: the label must be 1 or 0, found {str(flags[bad][0])!r}."
        )
    return TemplatePairs(first, second, flags == "1", None if folds is None else folds.astype(np.int16))


def join_splits(parts: Sequence[tuple[Templates, TemplatePairs]]) -> tuple[Templates, TemplatePairs]:
    """Put the splits of a protocol that have files of their own (IJB-A) together, each a fold."""
    if len(parts) == 1:
        return parts[0]
    sets, pairs = zip(*parts, strict=True)
    starts = np.cumsum([0, *(len(t.ids) for t in sets)])
    subjects = None
    if all(t.subject is not None for t in sets):
        subjects = np.concatenate([t.subject for t in sets])
    templates = Templates(
        names=[name for t in sets for name in t.names],
        template=np.concatenate([t.template + start for t, start in zip(sets, starts, strict=False)]),
        media=np.concatenate([t.media for t in sets]),
        score=None if any(t.score is None for t in sets) else np.concatenate([t.score for t in sets]),
        ids=np.concatenate([t.ids.astype(str) for t in sets]),
        subject=subjects,
    )
    first, second = (
        np.concatenate([p[side] + start for p, start in zip(pairs, starts, strict=False)]) for side in (0, 1)
    )
    fold = np.repeat(np.arange(len(pairs), dtype=np.int16), [len(p.same) for p in pairs])
    return templates, TemplatePairs(first, second, np.concatenate([p.same for p in pairs]), fold)


def _numbered(path: Path, table: dict[str, Sequence[str]]) -> Templates:
    ids, template = np.unique(_ids(table["template"]), return_inverse=True)
    media = np.unique(np.array(table["media"]), return_inverse=True)[1]
    subject = None
    if "subject" in table:  # numbered alike in all files: IJB-A's splits share persons
        number = {name: k for k, name in enumerate(dict.fromkeys(table["subject"]))}
        if all(name.isdecimal() for name in number):
            number = {name: int(name) for name in number}
        of_image = np.array([number[name] for name in table["subject"]])
        subject = np.empty(len(ids), dtype=np.int64)
        subject[template] = of_image
        if (subject[template] != of_image).any():
            mixed = ids[template[subject[template] != of_image][0]]
            raise ValueError(f"{path}: template {mixed} has images of two subjects.")
    score = None
    if "score" in table:
        score = np.array([_number(path, line, cell) for line, cell in enumerate(table["score"], start=2)])
    return Templates(list(table["name"]), template, media, score, ids, subject)


def _find(path: Path, wanted: np.ndarray, templates: Templates) -> np.ndarray:
    """Return the numbers of templates by their ids, int64."""
    wanted = _ids(wanted.tolist()) if wanted.dtype.kind != "i" else wanted
    if wanted.dtype.kind != templates.ids.dtype.kind:
        wanted = wanted.astype(str)
    ids = templates.ids.astype(wanted.dtype.kind if wanted.dtype.kind == "U" else np.int64)
    order = np.argsort(ids, kind="stable")
    place = order[np.searchsorted(ids, wanted, sorter=order).clip(0, len(ids) - 1)]
    if (ids[place] != wanted).any():
        missing = wanted[ids[place] != wanted]
        like = nearest(str(missing[0]), [str(name) for name in ids[:100_000]])
        raise ValueError(
            f"{path}: {len(np.unique(missing))} templates have no images, first {str(missing[0])!r}{like}."
        )
    return place.astype(np.int64)


def _ids(cells: Sequence[str]) -> np.ndarray:
    """Return ids as int64 where all are whole numbers, else as they are written."""
    array = np.array([str(cell).strip() for cell in cells])
    return array.astype(np.int64) if all(cell.isdecimal() for cell in array.tolist()) else array


def _table(
    path: Path, lines: list[str], known: dict[str, str], needed: tuple[str, ...], *, strict: bool
) -> dict[str, Sequence[str]]:
    """Read the known columns of a csv by its header."""
    rows = [[cell.strip() for cell in row] for row in csv.reader(lines) if row]
    header = [cell.lower() for cell in rows[0]]
    for cell in header if strict else ():
        if cell not in known:
            raise ValueError(
                f"{path} line 1: unknown column {cell!r}{nearest(cell, known)}; known: {', '.join(known)}."
            )
    titles = [known.get(cell) for cell in header]
    lacking = [title for title in needed if title not in titles]
    if lacking or len(rows) < 2:
        raise ValueError(f"{path}: " + (f"the column {lacking[0]} is missing." if lacking else "no row follows."))
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise ValueError(f"{path} row {number}: expected {len(header)} cells, found {len(row)}.")
    columns = list(zip(*rows[1:], strict=True))
    return {title: columns[k] for k, title in enumerate(titles) if title is not None}


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from None
    if not lines:
        raise ValueError(f"{path} is empty.")
    return lines


def _split(path: Path, number: int, line: str, num: int) -> list[str]:
    cells = line.split()
    if len(cells) != num:
        raise ValueError(f"{path} line {number}: expected {num} words, found {len(cells)}: {line[:80]!r}.")
    return cells


def _number(path: Path, number: int, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        raise ValueError(f"{path} line {number}: {cell!r} is not a number.") from None
    if not np.isfinite(value):
        raise ValueError(f"{path} line {number}: {cell!r} is not finite.")
    return value
