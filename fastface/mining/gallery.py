"""Embeddings with labels -> who is enrolled and who searches, and what every search finds, through FAISS."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np

from fastface.metrics.identification import Searches
from fastface.metrics.scores import unit, usable
from fastface.mining.search import QUERIES, Found, Kind, Search

Template = Literal["max", "mean"]
"""Of an identity's gallery images: the best of their scores, or the score of the mean of their unit embeddings."""
MOST_RECALLED = 1_000  # searches that are compared with exact ones
KEPT_OUT = 0.2  # of the identities, where none has too few images to be enrolled


class Split(NamedTuple):
    """Rows of embeddings by what they are for."""

    gallery: np.ndarray  # int64 [G], the enrolled images
    mated: np.ndarray  # int64 [M], searches of enrolled identities, ascending
    non_mated: np.ndarray  # int64 [K], searches of identities that are not enrolled, ascending


class Searched(NamedTuple):
    searches: Searches
    enrolled: int  # identities, or images of nobody in question
    per_second: float  # searches
    recall: float  # share of the ten nearest that the index finds; 1 where it is exact


def draw_gallery(labels: np.ndarray, *, images: int = 1, unenrolled: float | None = None, seed: int = 0) -> Split:
    """Enrol `images` of each identity that has more, drawn by the seed; their others search, and so do all the rest.

    unenrolled: share of these identities, drawn too, that are not enrolled; None: none, or a fifth where every
    identity has enough images, since open-set figures need people whom the gallery does not know.
    """
    if images < 1:
        raise ValueError(f"--gallery-images is {images}; an identity is enrolled by 1 image or more")
    if unenrolled is not None and not 0 <= unenrolled < 1:
        raise ValueError(f"--unenrolled is {unenrolled}; it is a share of the identities, from 0 to below 1")
    labels = np.asarray(labels, np.int64)
    drawn = np.random.default_rng(seed)
    order = drawn.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]  # by identity, and drawn within
    counts = np.bincount(labels) if len(labels) else np.zeros(0, np.int64)
    place = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    enough = counts > images
    if not enough.any():
        raise ValueError(f"no identity has {images + 1} images, {images} to enrol and one to search for")
    if unenrolled is None:
        unenrolled = KEPT_OUT if (enough | (counts == 0)).all() else 0.0
    can = np.flatnonzero(enough)
    enough[drawn.permutation(can)[: int(unenrolled * len(can))]] = False
    known = enough[labels[order]]
    chosen = known & (place < images)
    return Split(order[chosen], np.sort(order[known & ~chosen]), np.sort(order[~known]))


def search_gallery(
    rows: np.ndarray,
    labels: np.ndarray,
    split: Split,
    *,
    kind: Kind = "flat",
    template: Template = "max",
    listed: int = 50,
    centre: bool = False,
    gpu: bool | None = None,
    seed: int = 0,
) -> Searched:
    """Search the enrolled images of rows [N, D] for all others of the split.

    An identity counts once, by its template. centre: the gallery's mean is subtracted from all embeddings first.
    """
    labels = np.asarray(labels, np.int64)
    gallery, own = np.asarray(rows[split.gallery]), labels[split.gallery]
    mean = mean_of(gallery) if centre else None
    gallery = centred(gallery, mean)
    if template == "mean":
        gallery, own = mean_templates(gallery, own)
    enrolled = len(np.unique(own))
    listed = min(listed, enrolled)
    search = _Timed(gallery, kind, (listed + 1) * int(np.bincount(own).max()), gpu, seed)
    mated: list[tuple[np.ndarray, ...]] = []
    non_mated = [np.empty(0, np.float32)]
    for part in _parts(split.mated):
        scores, ids = search(centred(np.asarray(rows[part]), mean))
        mated.append(against_mates(scores, np.where(ids < 0, -1, own[ids]), labels[part]))
    for part in _parts(split.non_mated):
        non_mated.append(search(centred(np.asarray(rows[part]), mean))[0][:, 0])
    mate, ahead, tied = (np.concatenate(column) for column in zip(*mated, strict=True))
    recall = search.recall(rows, np.concatenate([split.mated, split.non_mated]), mean)
    persons = labels[split.mated], labels[split.non_mated]
    searches = Searches(mate, ahead, tied, np.concatenate(non_mated), *persons, listed)
    return Searched(searches, enrolled, search.per_second, recall)


def search_distractors(
    rows: np.ndarray,
    labels: np.ndarray,
    distractors: np.ndarray,
    *,
    kind: Kind = "flat",
    listed: int = 50,
    centre: bool = False,
    gpu: bool | None = None,
    seed: int = 0,
) -> Searched:
    """Search a gallery of distractors [G, D] in which one image of the searched person is put at a time (MegaFace).

    Of an identity of n images, each is searched for with each other one enrolled: n (n - 1) mated searches. Each is
    searched for without a mate as well. Other identities of `rows` are never in the gallery. (Kemelmacher-Shlizerman
    et al., The MegaFace Benchmark, CVPR 2016, section 4.)
    """
    gallery = np.asarray(distractors)
    mean = mean_of(gallery) if centre else None
    gallery = centred(gallery, mean)
    listed = min(listed, len(gallery) + 1)
    search = _Timed(gallery, kind, listed, gpu, seed)
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(np.asarray(labels, np.int64))
    stops = np.cumsum(counts)
    several = np.flatnonzero(counts > 1)
    if not len(several):
        raise ValueError("no identity of the probes has 2 images, one to enrol among the distractors and one to search")
    found: list[tuple[np.ndarray, ...]] = []
    best: list[np.ndarray] = []
    for group in _groups(counts[several]):
        members = [order[stops[c] - counts[c] : stops[c]] for c in several[group]]
        records = np.concatenate(members)
        probes = centred(np.asarray(rows[records]), mean)
        scores, _ = search(probes)
        best.append(scores[:, 0])
        start = 0
        for member in members:
            own = slice(start, start + len(member))
            found.append(_inserted(unit(probes[own]), scores[own]))
            start += len(member)
    mate, ahead, tied = (np.concatenate(column) for column in zip(*found, strict=True))
    probed = np.concatenate([order[stops[c] - counts[c] : stops[c]] for c in several])
    recall = search.recall(rows, probed, mean)
    n = counts[several]
    persons = np.repeat(several, n * (n - 1)), np.repeat(several, n)
    searches = Searches(mate, ahead, tied, np.concatenate(best), *persons, listed)
    return Searched(searches, len(gallery) + 1, search.per_second, recall)


def against_mates(scores: np.ndarray, identities: np.ndarray, own: np.ndarray) -> tuple[np.ndarray, ...]:
    """Find each search's mate among its candidates: its score, and how many other identities are above it or equal.

    scores, identities: [Q, k], the likest first, -inf and -1 where there are no more; own: int64 [Q].
    """
    rows, k = scores.shape
    # An identity counts where it comes first: sorted by identity, later ones follow an equal one.
    order = np.argsort(identities, axis=1, kind="stable")
    ordered = np.take_along_axis(identities, order, 1)
    again = np.zeros((rows, k), bool)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    first = np.empty((rows, k), bool)
    np.put_along_axis(first, order, ~again, 1)
    first &= identities >= 0
    mine = first & (identities == own[:, None])
    mate = np.where(mine, scores, np.float32(-np.inf)).max(axis=1)
    others = first & ~mine
    ahead, tied = others & (scores > mate[:, None]), others & (scores == mate[:, None])
    return mate, ahead.sum(axis=1), tied.sum(axis=1)


def mean_of(rows: np.ndarray) -> np.ndarray:
    """Average the rows that have a direction, float64 [D]."""
    good = usable(rows)
    if not good.any():
        raise ValueError("none of the embeddings to enrol has a direction: all are zero or not finite")
    return rows[good].mean(axis=0, dtype=np.float64)


def centred(rows: np.ndarray, mean: np.ndarray | None) -> np.ndarray:
    """Subtract a mean where there is one: float32 [N, D], NaN where a row has no direction before or after."""
    if mean is None:
        return rows
    return np.where(usable(rows)[:, None], rows - mean, np.nan).astype(np.float32)


def mean_templates(rows: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average the unit embeddings of each identity: float32 [I, D], NaN where none is usable, and int64 [I]."""
    known, place = np.unique(labels, return_inverse=True)
    good = usable(rows)
    sums = np.zeros((len(known), rows.shape[1]))
    np.add.at(sums, place[good], unit(rows[good]))
    sums[np.bincount(place[good], minlength=len(known)) == 0] = np.nan
    return sums.astype(np.float32), known


class _Timed:
    """Searches of a gallery for the k nearest, and the time they took."""

    def __init__(self, gallery: np.ndarray, kind: Kind, k: int, gpu: bool | None, seed: int) -> None:
        self.search, self.k, self.seed = Search(gallery, kind, gpu=gpu, seed=seed), min(k, len(gallery)), seed
        self.seconds, self.searched = 0.0, 0

    def __call__(self, queries: np.ndarray) -> Found:
        began = time.perf_counter()
        found = self.search(queries, self.k)
        self.seconds += time.perf_counter() - began
        self.searched += len(queries)
        return found

    @property
    def per_second(self) -> float:
        return self.searched / max(self.seconds, 1e-9)

    def recall(self, rows: np.ndarray, probes: np.ndarray, mean: np.ndarray | None) -> float:
        """Measure which share of the ten truly nearest is found, over some of the probes, drawn."""
        drawn = np.sort(np.random.default_rng(self.seed).permutation(probes)[:MOST_RECALLED])
        return self.search.recall(min(10, self.search.num), centred(np.asarray(rows[drawn]), mean))


def _inserted(own: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, ...]:
    """Compare the images of one identity with each other, and each such score with the searcher's distractors.

    own: float64 [n, D], of unit length; scores: float32 [n, k], descending. Returns mate, ahead, tied: [n (n - 1)].
    """
    mates = (own @ own.T).astype(np.float32)
    apart = ~np.eye(len(own), dtype=bool)
    ahead, level = np.empty(mates.shape, np.int64), np.empty(mates.shape, np.int64)
    for i, descending in enumerate(-scores):  # ascending, as searchsorted wants it
        ahead[i] = np.searchsorted(descending, -mates[i], "left")
        level[i] = np.searchsorted(descending, -mates[i], "right") - ahead[i]
    return np.where(np.isfinite(mates), mates, np.float32(-np.inf))[apart], ahead[apart], level[apart]


def _parts(ids: np.ndarray) -> list[np.ndarray]:
    return [ids[start : start + QUERIES] for start in range(0, len(ids), QUERIES)]


def _groups(counts: np.ndarray) -> Iterator[np.ndarray]:
    """Cut identities into groups of about QUERIES images, so that a search is worth its call."""
    group = (np.cumsum(counts) - counts) // QUERIES
    return iter(np.split(np.arange(len(counts)), np.flatnonzero(np.diff(group)) + 1))
