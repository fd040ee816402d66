"""The finished shards of a set and their notes -> its index, meta.json and lists of pairs and rejects."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastface.conversion.annotate import face_columns
from fastface.conversion.faces import chosen_columns
from fastface.conversion.pack import PACKED, Job, Note, read_note
from fastface.data.columns import RECORD_COLUMNS, is_reserved
from fastface.data.geometry import NUM_LANDMARKS
from fastface.data.index_write import derive_columns, write_index
from fastface.data.shards import padded, relabel, shard_name
from fastface.durable import write_durably

if TYPE_CHECKING:
    from fastface.data.sources import Source


class DataError(ValueError):
    """An input that cannot become a dataset."""

    exit_code = 3


def join_set(job: Job, what: str, more: Mapping[str, Any]) -> dict[str, Any]:
    """Write index, pairs and meta.json into the folder of a set whose shards are all finished; return meta.

    `what` names the set in errors; `more` goes into meta. Identities left without any image vanish from the
    classes, and the shards are then given the new labels.
    """
    every = [read_note(job, shard) for shard in range(job.num_shards)]
    numbers = [k for k, note in enumerate(every) if note.bytes]
    if not numbers:
        listed = write_rejects(job.notes, every)
        raise DataError(f"{what}: every image was rejected: {_reasons(every)}; see {listed}")
    notes = [every[k] for k in numbers]
    samples = [len(note.columns["record"]) for note in notes]
    shards = [
        {"name": shard_name(k), "bytes": note.bytes, "samples": count, "sha256": note.sha256}
        for k, note, count in zip(numbers, notes, samples, strict=True)
    ]
    columns = {name: np.concatenate([note.columns[name] for note in notes]) for name in PACKED}
    record = columns.pop("record")
    old_label = job.source.labels[record]
    alive = np.bincount(old_label, minlength=len(job.source.classes)) > 0
    new_label = np.cumsum(alive) - 1  # of each old one that is alive
    if not alive.all():
        _relabel_shards(job, notes, new_label, shards)
    columns["shard"] = np.repeat(np.arange(len(notes)), samples)
    columns["label"] = new_label[old_label]
    columns = {name: columns[name].astype(kind) for name, kind in RECORD_COLUMNS.items()}
    columns |= {name: column[record] for name, column in job.source.columns.items()}
    columns |= face_columns(job.source, [note.columns for note in notes])
    chosen = [note.columns["face"] for note in notes if "face" in note.columns]
    columns |= chosen_columns(np.concatenate(chosen)) if chosen else {}
    named = list(zip(job.source.classes, alive.tolist(), strict=True))
    classes = [name for name, keep in named if keep]
    names = [job.source.name(i) for i in record.tolist()]
    columns |= derive_columns(columns["label"], len(classes), names)
    lists, files = _write_pairs(job, set(names))
    facts = {
        "kept": int(columns["kept"].sum()),
        "rejected": dict(sorted(Counter(row[1] for note in every for row in note.rejects).items())),
        "faces": dict(sorted(sum((Counter(note.faces) for note in notes), Counter()).items())),
        "without_face": int(np.isnan(np.concatenate(chosen)).all(axis=1).sum()) if chosen else None,
        "values": job.source.values,
        "lost_classes": [name for name, keep in named if not keep],
    }
    return write_index(job.shards, columns, classes, shards, {**facts, **more, **lists, "files": files})


def check_columns(source: Source) -> None:
    """Raise a ValueError for columns of a source that the index cannot take."""
    for name, column in source.columns.items():
        if is_reserved(name) or not name.isidentifier():
            raise ValueError(f"a source cannot add a column {name!r}: the name is taken, or no identifier")
        if column.dtype.kind not in "biuf" or len(column) != len(source):
            raise ValueError(f"column {name!r} is {column.dtype} {column.shape}: one number per image is needed")
    images = len(source)
    shapes = {"boxes": (images, 4), "landmarks": (images, NUM_LANDMARKS, 2)}
    for name, shape in shapes.items():
        array = getattr(source, name)
        assert array is None or array.shape == shape, (name, array.shape)
    if source.faces is not None:
        start, boxes, attributes = source.faces
        assert len(start) == images + 1
        assert start[-1] == len(boxes), (start[-1], len(boxes))
        assert all(len(values) == len(boxes) for values in attributes.values())


def _relabel_shards(job: Job, notes: Sequence[Note], new_label: np.ndarray, shards: list[dict[str, Any]]) -> None:
    """Give each .cls member its new label; may be interrupted and run again, as it starts from the notes."""
    for note, shard in zip(notes, shards, strict=True):
        starts = note.columns["offset"] + [padded(length) for length in note.columns["length"].tolist()]
        labels = new_label[job.source.labels[note.columns["record"]]]
        path = job.shards / shard["name"]
        temporary = path.with_suffix(".tmp")
        size, shard["sha256"] = relabel(path, temporary, zip(starts.tolist(), labels.tolist(), strict=True))
        assert size == note.bytes
        os.replace(temporary, path)


def _write_pairs(job: Job, names: set[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write pairs.csv where the source has pairs, less those that lost an image; return entries of meta."""
    if job.source.pairs is None:
        return {}, {}
    rows = [(a, b, int(same), fold) for a, b, same, fold in job.source.pairs if a in names and b in names]
    data = _csv(["a", "b", "same", "fold"], rows)
    write_durably(job.shards / "pairs.csv", data)
    counts = {"written": len(rows), "left_out": len(job.source.pairs) - len(rows)}
    described = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return {"pairs": counts}, {"pairs.csv": described}


def write_rejects(folder: Path, notes: Iterable[Note], skipped: Iterable[tuple[str, str]] = ()) -> Path:
    """Write rejects.csv (path, reason, detail): images, then boxes that were refused, then what the scan left out."""
    notes = list(notes)
    rows = [row for note in notes for row in note.rejects] + [row for note in notes for row in note.lost]
    rows += [[path, reason, "left out by the scan"] for path, reason in skipped]
    write_durably(folder / "rejects.csv", _csv(["path", "reason", "detail"], rows))
    return folder / "rejects.csv"


def _csv(header: list[str], rows: Iterable[Iterable[Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", "surrogateescape")


def _reasons(notes: Iterable[Note]) -> str:
    counts = Counter(row[1] for note in notes for row in note.rejects)
    return ", ".join(f"{reason} {count:,}" for reason, count in counts.most_common())
