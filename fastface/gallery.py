"""Embeddings of enrolled people <-> a folder that is searched for the one in a photograph.

GALLERY is a folder of embeddings (fastface.data.embeddings: evaluate.py and audit.py take it too) with non_mated.npy,
the best score of searches whose person is left out; index.faiss where the search is not exact; not_enrolled.csv.
"""

from __future__ import annotations

import csv
import hashlib
import io
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastface.card import Threshold
from fastface.data.embeddings import Embeddings, open_embeddings, write_embeddings
from fastface.durable import fsync_folder, write_durably
from fastface.metrics.curve import RULE_OF_THIRTY, allowed_errors, count_accepted
from fastface.metrics.identification import share_interval
from fastface.mining.search import Kind, Search
from fastface.run_folder import hold
from fastface.ship.thresholds import sha256_of

MOST_SEARCHES = 10_000  # non-mated searches: at FPIR 0.003, the smallest usual, 30 false alarms
NON_MATED, INDEX, NOT_ENROLLED = "non_mated.npy", "index.faiss", "not_enrolled.csv"


class Candidate(NamedTuple):
    """An enrolled person who may be the one searched for."""

    person: str
    score: float
    image: str
    """The likest of the person's enrolled images."""


class GalleryThreshold(NamedTuple):
    """From which score on a candidate is taken for the person, in a gallery of this size."""

    threshold: float
    target_fpir: float | None
    """Share of the searches for people who are not enrolled that may find somebody; None where it was given."""
    supported: bool
    """False where too few searches stand behind it: take it as a guess."""
    source: str

    @property
    def about(self) -> str:
        """What it was chosen for, in words."""
        doubt = "" if self.supported else ", a guess: searches are few"
        return "as given" if self.target_fpir is None else f"for FPIR {self.target_fpir:g}{doubt}"


@dataclass(frozen=True)
class Gallery:
    """People, and what is needed to find one of them."""

    embeddings: Embeddings
    non_mated: np.ndarray  # float32 [K], best score of a search of an enrolled image among the other people
    strangers: np.ndarray  # int64 [K], whose image that was
    search: Search

    @property
    def path(self) -> Path:
        return self.embeddings.path

    @property
    def meta(self) -> dict[str, Any]:
        """Whose embeddings: `model` and `detector` must be those of a search, `system` says where their files lay."""
        return self.embeddings.meta

    @property
    def num_people(self) -> int:
        return len(self.embeddings.classes)

    def find(self, row: np.ndarray, count: int) -> list[Candidate]:
        """Return the `count` people likest to an embedding [D], each by the likest of the images, the likest first."""
        wanted, width = min(count, self.num_people), 0
        found: dict[int, Candidate] = {}
        while len(found) < wanted and width < len(self.embeddings):
            width = min(max(4 * width, 4 * wanted), len(self.embeddings))  # people with many images may come first
            scores, ids = self.search(row[None], width)
            for score, i in zip(scores[0].tolist(), ids[0].tolist(), strict=True):
                label = int(self.embeddings.labels[i])
                if i >= 0 and label not in found:
                    found[label] = Candidate(self.embeddings.classes[label], score, self.embeddings.names[i])
        return list(found.values())[:wanted]

    def threshold(self, target_fpir: float, calibrated: Sequence[Threshold] = ()) -> GalleryThreshold | None:
        """Return the threshold for a rate of false alarms; None where nothing supports any.

        First the gallery's own searches: enrolled images whose person is left out, and the smallest threshold at which
        at most that share finds somebody. Where they are too few (30 expected false alarms), the model's threshold at
        a false match rate of at most target / people: N comparisons of a search raise N false alarms at most. Where
        there is none either, the gallery's own searches, as a guess.
        """
        if not 0 < target_fpir < 1:
            raise ValueError(f"--fpir is {target_fpir}; it is a share of searches, between 0 and 1")
        own = self._own_threshold(target_fpir)
        if own is not None and own.supported:
            return own
        each = target_fpir / max(self.num_people, 1)
        strict = [t for t in calibrated if t.target_fmr <= each and t.supported]
        if strict:
            t = max(strict, key=lambda t: t.target_fmr)
            source = (
                f"the model's threshold for FMR {t.target_fmr:g}, at most {target_fpir:g} / {self.num_people:,} people"
            )
            return GalleryThreshold(t.threshold, target_fpir, True, source)
        return own

    def _own_threshold(self, target: float) -> GalleryThreshold | None:
        scores = self.non_mated
        if not np.isfinite(scores).any():
            return None
        order = np.argsort(-scores, kind="stable")
        points = count_accepted(scores[order], np.zeros(len(scores), bool))
        at = int(np.searchsorted(points.impostors, allowed_errors(target, len(scores)), side="right")) - 1
        threshold, errors = float(points.thresholds[at]), int(points.impostors[at])
        low, high = share_interval(scores >= threshold, self.strangers)
        source = (
            f"FPIR {errors / len(scores):.4f} [{low:.4f}, {high:.4f}]: {errors:,} of {len(scores):,} searches of "
            "enrolled images, their person left out, found somebody"
        )
        return GalleryThreshold(threshold, target, target * len(scores) >= RULE_OF_THIRTY, source)


def open_gallery(path: Path) -> Gallery:
    """Open a gallery; ValueError says what is missing or does not fit."""
    recover(path)
    embeddings = open_embeddings(path)
    about = embeddings.meta.get("gallery")
    if not isinstance(about, dict) or not (path / NON_MATED).is_file():
        raise ValueError(f"{path} holds embeddings, but is no gallery: tools/enrol.py makes one")
    searches = np.load(path / NON_MATED, allow_pickle=False)
    saved = None
    if about["index"] != "flat":
        saved = path / INDEX
        if not saved.is_file() or sha256_of(saved) != about["index_sha256"]:
            raise ValueError(f"{saved} is missing or damaged: enrol again, or add somebody, which builds it anew")
    search = Search(embeddings.rows, about["index"], gpu=False, saved=saved)
    return Gallery(embeddings, searches["score"].astype(np.float32), searches["person"].astype(np.int64), search)


def write_gallery(
    path: Path,
    rows: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    people: Sequence[str],
    about: dict[str, Any],
    *,
    kind: Kind,
    not_enrolled: Sequence[tuple[str, str]],
) -> Gallery:
    """Write a gallery in place of what is there: a stop at any moment leaves the old one or the new one.

    rows float32 [N, D], all usable; labels int64 [N], into `people`; about: `model`, `detector` and `system`.
    """
    staging = _staging(path)
    staging.mkdir(parents=True, exist_ok=True)
    with hold(staging):
        recover(path, locked=True)
        new = staging / "new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        search = Search(rows, kind, gpu=False)
        gallery: dict[str, Any] = {"index": kind}
        if kind != "flat":
            search.save(new / INDEX)
            gallery |= {"index_sha256": sha256_of(new / INDEX), "recall_at_10": search.recall(min(10, len(rows)))}
        np.save(new / NON_MATED, non_mated_searches(search, labels), allow_pickle=False)
        write_durably(new / NOT_ENROLLED, _csv(not_enrolled))
        digest = hashlib.sha256(np.ascontiguousarray(rows, "<f4").tobytes())
        digest.update("\0".join(names).encode("utf-8", "surrogateescape"))
        write_embeddings(
            new, rows, labels, names, people, {"dataset_id": digest.hexdigest(), **about, "gallery": gallery}
        )
        if path.exists():
            path.rename(staging / "old")
        new.rename(path)
        fsync_folder(path.parent)
        shutil.rmtree(staging, ignore_errors=True)
    return open_gallery(path)


def recover(path: Path, *, locked: bool = False) -> None:
    """Put back a gallery that a stop between two renames left aside."""
    old = _staging(path) / "old"
    if old.is_dir() and not path.exists():
        old.rename(path)
        print(f"{path}: a change of it was stopped half way; it is again as it was before", file=sys.stderr)
    elif old.is_dir() and locked:
        shutil.rmtree(old)


def non_mated_searches(search: Search, labels: np.ndarray, *, most: int = MOST_SEARCHES, seed: int = 0) -> np.ndarray:
    """Search for enrolled images among the other people; structured [K]: the best `score`, and the image's `person`.

    Of more than `most` images some are drawn. Empty where there is one person only.
    """
    labels = np.asarray(labels, np.int64)
    drawn = np.sort(np.random.default_rng(seed).permutation(len(labels))[:most])
    found = np.zeros(len(drawn), [("score", "<f4"), ("person", "<i8")])
    found["score"], found["person"] = -np.inf, labels[drawn]
    if len(np.unique(labels)) < 2:
        return found[:0]
    counts = np.bincount(labels)
    for many in np.unique(counts[labels[drawn]]):  # as many images as a person has may come before the first other's
        rows = np.flatnonzero(counts[labels[drawn]] == many)
        scores, ids = search(np.asarray(search.rows[drawn[rows]]), int(many) + 1)
        others = (ids >= 0) & (labels[ids] != labels[drawn[rows]][:, None])
        found["score"][rows] = np.where(others, scores, np.float32(-np.inf)).max(axis=1)
    return found


def read_not_enrolled(path: Path) -> list[tuple[str, str]]:
    """Read the images of a gallery that could not be enrolled, each with its reason."""
    with open(path / NOT_ENROLLED, encoding="utf-8", errors="surrogateescape", newline="") as file:
        return [(row["image"], row["reason"]) for row in csv.DictReader(file)]


def _csv(rows: Sequence[tuple[str, str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("image", "reason"), *rows])
    return text.getvalue().encode("utf-8", "surrogateescape")


def _staging(path: Path) -> Path:
    return path.with_name(f".{path.name}.change")
