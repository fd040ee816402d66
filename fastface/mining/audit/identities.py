"""Embeddings with labels -> labels to doubt: one person under two names, images of somebody else, split identities."""

from __future__ import annotations

import sys
from typing import NamedTuple

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from tqdm import tqdm

from fastface.mining.audit.scores import Space, Thresholds, chunks
from fastface.mining.search import Search

NEIGHBOURS = 10  # identities looked at for each image and identity
EVIDENCE = 30  # images of an identity that are compared with those of another
CLUSTERED = 1_000  # images of an identity that are compared with each other
FLAT = 200_000  # identities up to which the search is exact
QUERIES = 2_048  # rows at a time: 10 neighbours' sums of 512 float32 take 42 MB


class Compared(NamedTuple):
    """Each image beside its own identity and the likest other; mean cosines, NaN where there is none."""

    own: np.ndarray  # float32 [N], with the other images of its identity
    other: np.ndarray  # float32 [N]
    who: np.ndarray  # int32 [N], that other identity; -1 where there is none


class Match(NamedTuple):
    """Two identities, of one set or of two."""

    first: int
    second: int
    score: float  # mean cosine of their images
    best: float  # the largest
    above: int  # pairs of images at or above Thresholds.same
    pairs: int  # pairs of images compared

    def sure(self, same: float) -> bool:
        """Say whether all images are on average as alike as `same`, or two pairs, and half of them, are.

        Fewer may come from one image under a wrong label.
        """
        return self.score >= same or self.above >= max(2, self.pairs / 2)


class Odd(NamedTuple):
    """An image that seems to show somebody else than its label says."""

    record: int
    own: float
    other: float
    who: int  # the identity it resembles; -1: nobody


class Split(NamedTuple):
    """An identity that falls into two or more groups of images."""

    identity: int
    groups: list[np.ndarray]  # records, the largest group first
    between: float  # mean cosine between the two largest


def search_over(sums: np.ndarray, gpu: bool | None = None) -> Search:
    """Make the identities [C, D] searchable: exactly up to FLAT of them, by inverted lists beyond."""
    return Search(sums, "flat" if len(sums) <= FLAT else "ivf", gpu=gpu, probes=None if len(sums) <= FLAT else 64)


def compare_images(space: Space, sums: np.ndarray, search: Search) -> Compared:
    """Compare every image with its own identity and the NEIGHBOURS nearest others: N x C products, never N x N."""
    size = len(space)
    own, other, who = np.full(size, np.nan, np.float32), np.full(size, np.nan, np.float32), np.full(size, -1, np.int32)
    counts = space.counts.astype(np.float32)
    with tqdm(total=size, desc="images and identities", unit=" images", file=sys.stderr, disable=None) as bar:
        for part in _small(size):
            records = np.arange(part.start, part.stop)[space.good[part]]
            bar.update(part.stop - part.start)
            if not len(records):
                continue
            rows, labels = space.take(records), space.labels[records]
            left = counts[labels] - 1
            with np.errstate(invalid="ignore", divide="ignore"):
                mine = np.einsum("ij,ij->i", rows, sums[labels] - rows) / left
            own[records] = np.where(left > 0, mine, np.nan)
            ids = search(rows, min(NEIGHBOURS, len(sums))).ids
            scores = np.einsum("ij,ikj->ik", rows, sums[ids]) / np.maximum(counts[ids], 1)
            scores[(ids < 0) | (ids == labels[:, None]) | (counts[ids] == 0)] = -np.inf
            best = scores.argmax(axis=1)
            top = np.take_along_axis(scores, best[:, None], 1)[:, 0]
            found = np.isfinite(top)
            other[records[found]] = top[found]
            who[records[found]] = np.take_along_axis(ids, best[:, None], 1)[found, 0]
    return Compared(own, other, who)


def same_person(space: Space, sums: np.ndarray, search: Search, compared: Compared, limits: Thresholds) -> list[Match]:
    """Find pairs of identities whose images are as alike as those of one person, all or some; the likest first."""
    # The mean cosine of two identities' images is at most the cosine of their centres.
    proposed = _neighbours(sums, search, limits.likely, same=True)
    strong = np.flatnonzero(compared.other >= limits.same)
    proposed |= {_sorted(int(space.labels[i]), int(compared.who[i])) for i in strong.tolist()}
    found = [match(space, space, sums, sums, a, b, limits.same) for a, b in proposed]
    return _likeliest(found, limits)


def shared_people(
    here: Space, there: Space, sums: tuple[np.ndarray, np.ndarray], search: Search, limits: Thresholds
) -> list[Match]:
    """Find identities of `there` (second) that are in `here` (first), whatever their names."""
    found = [
        match(here, there, *sums, a, b, limits.same) for b, a in _neighbours(sums[1], search, limits.own, same=False)
    ]
    return _likeliest(found, limits)


def _likeliest(found: list[Match], limits: Thresholds) -> list[Match]:
    """Keep pairs as alike as one person, on average or in more than a quarter of their images; the sure ones first."""
    kept = (m for m in found if m.score >= limits.likely or 4 * m.above > m.pairs)
    return sorted(kept, key=lambda m: (not m.sure(limits.same), -m.score, m.first, m.second))


def nearest_identity(sums: np.ndarray, search: Search) -> np.ndarray:
    """Return the identity of the search nearest to each of sums [C, D], int64; -1 where there is none."""
    return np.concatenate([np.empty(0, np.int64), *(search(sums[part], 1).ids[:, 0] for part in chunks(len(sums)))])


def match(
    here: Space, there: Space, first_sums: np.ndarray, second_sums: np.ndarray, a: int, b: int, same: float
) -> Match:
    """Compare two identities by all their images, and up to EVIDENCE of each one by one."""
    mean = float(first_sums[a] @ second_sums[b]) / max(int(here.counts[a]) * int(there.counts[b]), 1)
    scores = here.take(here.of(a, EVIDENCE)) @ there.take(there.of(b, EVIDENCE)).T
    return Match(a, b, mean, float(scores.max(initial=-1.0)), int((scores >= same).sum()), scores.size)


def resembling(compared: Compared, limits: Thresholds) -> float:
    """Say from where on an image resembles another identity: what nine of ten images stay below, at most `likely`."""
    known = compared.other[np.isfinite(compared.other)]
    return min(limits.likely, float(np.quantile(known, 0.9))) if len(known) else limits.likely


def mislabelled(compared: Compared, own: float, other: float) -> list[Odd]:
    """Find images no liker to their own identity than `own`, and as like to another as `other`; the clearest first."""
    return _odd(compared, np.flatnonzero((compared.own <= own) & (compared.other >= other)))


def clusters(space: Space, compared: Compared, limits: Thresholds) -> tuple[list[Split], list[Odd]]:
    """Look into identities of three or more images where one is unlike the rest: groups of images, and loners.

    Average linkage, cut where groups are on average as unlike as `limits.own`. An identity is split where two groups
    of two or more hold together by `limits.typical`. A loner is outside a group of more than half.
    """
    low = np.flatnonzero(compared.own <= limits.own)
    splits, loners = [], []
    for identity in np.unique(space.labels[low]).tolist():
        records = space.of(identity, CLUSTERED)
        if len(records) < 3:
            continue
        rows = space.take(records)
        scores = rows @ rows.T
        away = 1 - (scores + scores.T) / 2
        np.fill_diagonal(away, 0)
        tree = linkage(squareform(np.maximum(away, 0), checks=False), "average")
        groups = fcluster(tree, 1 - limits.own, "distance")
        parts = sorted((np.flatnonzero(groups == g) for g in np.unique(groups)), key=lambda part: (-len(part), part[0]))
        tight = [part for part in parts if len(part) > 1 and _within(scores, part) >= limits.typical]
        if len(tight) > 1:
            between = float(scores[np.ix_(tight[0], tight[1])].mean())
            splits.append(Split(identity, [records[part] for part in tight], between))
        if 2 * len(parts[0]) > len(records):
            for part in parts[1:]:
                if len(part) == 1:
                    loners.append(int(records[part[0]]))
    return sorted(splits, key=lambda split: split.between), _odd(compared, np.array(loners, np.int64))


def _odd(compared: Compared, records: np.ndarray) -> list[Odd]:
    found = [Odd(i, float(compared.own[i]), float(compared.other[i]), int(compared.who[i])) for i in records.tolist()]
    return sorted(found, key=lambda odd: (odd.own - odd.other, odd.record))


def _within(scores: np.ndarray, part: np.ndarray) -> float:
    inner = scores[np.ix_(part, part)]
    return float((inner.sum() - np.trace(inner)) / (len(part) * (len(part) - 1)))


def _neighbours(sums: np.ndarray, search: Search, least: float, *, same: bool) -> set[tuple[int, int]]:
    """Pair each of sums [C, D] with the nearest of the search, of a cosine of `least`; within one set once only."""
    pairs: set[tuple[int, int]] = set()
    for part in chunks(len(sums)):
        found = search(sums[part], min(NEIGHBOURS, search.num))
        rows, columns = np.nonzero((found.scores >= least) & (found.ids >= 0))
        for row, i in zip((rows + part.start).tolist(), found.ids[rows, columns].tolist(), strict=True):
            if not same:
                pairs.add((row, i))
            elif i != row:
                pairs.add(_sorted(row, i))
    return pairs


def _sorted(a: int, b: int) -> tuple[int, int]:
    return (a, b) if a < b else (b, a)


def _small(total: int) -> list[slice]:
    return [slice(start, min(start + QUERIES, total)) for start in range(0, total, QUERIES)]


def alike_images(space: Space, compared: Compared, limits: Thresholds) -> list[tuple[int, int, float]]:
    """Find pairs of images with nearly equal embeddings, within an identity or in the one that an image resembles."""
    found: dict[tuple[int, int], float] = {}
    for identity in np.flatnonzero(space.counts > 1).tolist():
        records = space.of(identity, CLUSTERED)
        rows = space.take(records)
        scores = np.triu(rows @ rows.T, 1)
        for a, b in zip(*np.nonzero(scores >= limits.alike), strict=True):
            found[_sorted(int(records[a]), int(records[b]))] = float(scores[a, b])
    for record in np.flatnonzero(compared.other >= limits.likely).tolist():
        others = space.of(int(compared.who[record]), EVIDENCE)
        scores = space.take(others) @ space.take(np.array([record]))[0]
        for place in np.flatnonzero(scores >= limits.alike).tolist():
            found[_sorted(record, int(others[place]))] = float(scores[place])
    return [(a, b, score) for (a, b), score in sorted(found.items())]
