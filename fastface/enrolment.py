"""person/image.jpg -> a gallery of people, or more people in one; and people taken out of it."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from fastface.capture import Capture
from fastface.data.headers import Rejected
from fastface.data.images import load_rgb
from fastface.data.sources.folder import open_folder
from fastface.face_cut import FaceFinder
from fastface.gallery import Gallery, open_gallery, read_not_enrolled, recover, write_gallery
from fastface.metrics.scores import usable
from fastface.mining.search import Kind
from fastface.recognition import Recognition
from fastface.spelling import nearest

BATCH = 32  # images embedded together
FPIR = 1e-2  # of the threshold that is printed


def enrol(
    out: Path,
    folder: Path | None = None,
    *,
    recognition: Sequence[Path] = (),
    fusion: Path | None = None,
    detector: str | None = None,
    align: str | None = None,
    pick: str = "largest",
    index: Kind | None = None,
    remove: Sequence[str] = (),
    device: str = "cpu",
) -> str:
    """Take people out of a gallery and put the people of a folder or .tar into it; return a report.

    A gallery that is there remembers model and detector; images that are enrolled already, by name, stay as they are.

    Raises:
        ValueError: for what is missing or does not fit, and a gallery made by another model or detector.
    """
    recover(out)
    old = open_gallery(out) if out.exists() else None
    if old is None and remove:
        raise ValueError(f"{out} is not there: nobody can be removed from it")
    kept = _without(old, remove)
    not_enrolled = [] if old is None else [row for row in read_not_enrolled(out) if row[0].split("/")[0] not in remove]
    lines = [f"removed: {', '.join(remove)}"] if remove else []
    about: dict[str, Any] = {} if old is None else {key: old.meta[key] for key in ("model", "detector", "system")}
    taken = None
    if folder is not None:
        system = open_system(
            old, recognition=recognition, fusion=fusion, detector=detector, align=align, pick=pick, device=device
        )
        taken = _embed_people(
            folder, Capture(system.recognition.cuts, system.finder), system.recognition, set(kept.names)
        )
        about = system.about
        fresh = {name for name, _ in taken.failed} | set(taken.names)
        not_enrolled = [row for row in not_enrolled if row[0] not in fresh] + taken.failed
        kept = _joined(kept, taken)
        lines += _told(folder, taken)
    elif not remove:
        raise ValueError("nothing to do: give a folder of people to enrol, or --remove NAME")
    if not kept.names:
        raise ValueError(f"nobody is left to enrol in {out}: " + ("; ".join(lines) or "the folder is empty"))
    people, labels = np.unique([name.split("/")[0] for name in kept.names], return_inverse=True)
    kind = index or (old.meta["gallery"]["index"] if old is not None else "flat")
    made = write_gallery(
        out, kept.rows, labels.reshape(-1), kept.names, people.tolist(), about, kind=kind, not_enrolled=not_enrolled
    )
    return "\n".join([*lines, *describe(made)])


def describe(gallery: Gallery) -> list[str]:
    """Say how large a gallery is, and from which score on somebody is found in it."""
    about = gallery.meta["gallery"]
    exact = "exact" if about["index"] == "flat" else f"recall@10 {about['recall_at_10']:.4f}"
    size = f"{len(gallery.embeddings):,} images of {gallery.num_people:,} people"
    lines = [f"{gallery.path}: {size}, searched by {about['index']} ({exact})"]
    threshold = gallery.threshold(FPIR)
    if threshold is not None:
        lines.append(f"threshold {threshold.threshold:.4f} {threshold.about}; {threshold.source}")
        worst = int(np.argmax(gallery.non_mated))
        person = gallery.embeddings.classes[int(gallery.strangers[worst])]
        lines.append(f"the likest image of two people scores {gallery.non_mated[worst]:.4f}, one of them {person}")
    return lines


class System(NamedTuple):
    """What embeds photographs for a gallery."""

    recognition: Recognition
    finder: FaceFinder | None
    about: dict[str, Any]
    """`model`, `detector`, `system` of the gallery's meta.json."""


def open_system(
    gallery: Gallery | None,
    *,
    recognition: Sequence[Path] = (),
    fusion: Path | None = None,
    detector: str | None = None,
    align: str | None = None,
    pick: str = "largest",
    device: str = "cpu",
) -> System:
    """Load what is given, and for the rest what a gallery was made with; ValueError where that is another."""
    before = {} if gallery is None else gallery.meta["system"]
    models = [str(path) for path in recognition] or before.get("recognition", [])
    if not models:
        raise ValueError("give --recognition, the model that embeds the faces")
    fused = str(fusion) if fusion is not None else before.get("fusion")
    wanted = detector or before.get("detector")
    method = align or before.get("align")
    rule = before.get("pick", pick)
    finder = None if wanted is None else FaceFinder(wanted, rule)
    loaded = Recognition(models, fusion=fused, finder=finder, align=method, device=device)
    if not loaded.one_space:
        raise ValueError(f"{len(models)} recognition models: give --fusion, which makes one embedding of theirs")
    found = None if finder is None else {"name": finder.spec.name, "files": list(finder.spec.digests), "pick": rule}
    about = json.loads(
        json.dumps(
            {
                "model": loaded.identity(),
                "detector": found,
                "system": {"recognition": models, "fusion": fused, "detector": wanted, "align": method, "pick": rule},
            }
        )
    )
    for key in ("model", "detector"):
        if gallery is not None and gallery.meta[key] != about[key]:
            was, is_now = json.dumps(gallery.meta[key]), json.dumps(about[key])
            raise ValueError(
                f"{gallery.path} was made by another {key}: {was}, not {is_now}; embeddings of two cannot be compared: "
                "give the one it was made by, or enrol into a new --out"
            )
    return System(loaded, finder, about)


class _People(NamedTuple):
    names: list[str]  # person/image.jpg
    rows: np.ndarray  # float32 [N, D]
    failed: list[tuple[str, str]]  # image, reason
    skipped: list[tuple[str, str]]  # what the folder holds beside images of people, and why it is left out
    known: int  # images that were enrolled before
    several: int  # images with more than one face


def _without(gallery: Gallery | None, remove: Sequence[str]) -> _People:
    if gallery is None:
        return _People([], np.zeros((0, 0), np.float32), [], [], 0, 0)
    people = list(gallery.embeddings.classes)
    for name in remove:
        if name not in people:
            raise ValueError(f"{gallery.path} has nobody of the name {name!r}{nearest(name, people)}")
    gone = np.array([name in set(remove) for name in people])
    keep = np.flatnonzero(~gone[gallery.embeddings.labels])
    names = [gallery.embeddings.names[int(i)] for i in keep]
    return _People(names, np.asarray(gallery.embeddings.rows[keep]), [], [], 0, 0)


def _joined(one: _People, other: _People) -> _People:
    if not one.names or not other.names:
        return one if one.names else other
    return other._replace(names=one.names + other.names, rows=np.concatenate([one.rows, other.rows]))


def _embed_people(folder: Path, capture: Capture, recognition: Recognition, known: set[str]) -> _People:
    sources = open_folder(folder)
    if list(sources) != [""]:
        raise ValueError(f"{folder} holds {', '.join(sources)}, a set for training: give a folder of PERSON/IMAGE.jpg")
    source = sources[""]
    names = [source.name(i) for i in range(len(source))]
    fresh = [i for i, name in enumerate(names) if name not in known]
    failed: list[tuple[str, str]] = []
    several = 0

    def faces() -> Iterator[tuple[str, list[np.ndarray]]]:
        nonlocal several
        for i in tqdm(fresh, desc=folder.name, unit=" images", mininterval=0.2 if sys.stderr.isatty() else 30):
            try:
                captured = capture.take(names[i], [load_rgb(source.read(i))])
            except Rejected as error:
                failed.append((names[i], f"{error.reason}: {error}"))
                continue
            except OSError as error:
                failed.append((names[i], str(error)))
                continue
            several += captured.num_faces > 1
            if captured.refusals:
                failed.append((names[i], captured.refusals[0].removeprefix(f"{names[i]}: ")))
            else:
                yield names[i], captured.pictures

    done: list[str] = []
    rows: list[np.ndarray] = []
    for batch in _batches(faces()):
        pictures = [np.concatenate(column) for column in zip(*(each for _, each in batch), strict=True)]
        found, _ = recognition.rows(pictures)
        for (name, _), row, good in zip(batch, found, usable(found), strict=True):
            if good:
                done.append(name)
                rows.append(row)
            else:
                failed.append((name, "its embedding is zero or not finite"))
    width = np.stack(rows) if rows else np.zeros((0, 0), np.float32)
    return _People(done, width, failed, source.skipped, len(names) - len(fresh), several)


def _batches(items: Iterator[Any]) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for item in items:
        batch.append(item)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _told(folder: Path, taken: _People) -> list[str]:
    """Say what became of a folder's images: every one that was left out is counted, and listed with its reason."""
    people = {name.split("/")[0] for name in taken.names}
    lines = [f"enrolled {len(taken.names):,} images of {len(people):,} people of {folder}"]
    if taken.known:
        lines.append(
            f"{taken.known:,} images are enrolled already, by name, and stay as they are: --remove the person to take "
            "them anew"
        )
    if taken.several:
        lines.append(f"{taken.several:,} images show several faces: one was taken of each")
    if taken.failed:
        name, reason = taken.failed[0]
        lines.append(
            f"! {len(taken.failed):,} images could not be enrolled, see not_enrolled.csv; the first: {name}: {reason}"
        )
        lost = sorted({name.split("/")[0] for name, _ in taken.failed} - people)
        if lost:
            listed = ", ".join(lost[:5]) + " ..." * (len(lost) > 5)
            lines.append(f"! people of whom no image could be, of these images: {len(lost):,} ({listed})")
    for reason, count in Counter(reason for _, reason in taken.skipped).items():
        lines.append(f"left out of the folder: {count:,} {reason}")
    return lines
