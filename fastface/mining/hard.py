"""Rows of many identities -> for each the others it is most easily taken for, and pairs too alike to be two people.

The rows are centres, several of each identity (sub-centres), or images. Lists are the same on any number of processes,
each of which may hold a part of the rows.
"""

from __future__ import annotations

import sys
from typing import Literal, NamedTuple

import numpy as np
from tqdm import tqdm

from fastface import dist
from fastface.mining.search import GPU_MOST, QUERIES, Kind, Search

SPARE = 8  # rows looked for beyond those wanted, for suspects
WIDEST = 4  # times as many are looked for where suspects fill a list


class Suspects(NamedTuple):
    """Pairs of identities more alike than the cap, the likest first: probably one person, or an image gone astray."""

    first: np.ndarray  # int32 [S], the smaller class id
    second: np.ndarray  # int32 [S]
    scores: np.ndarray  # float32 [S], of the likest two rows
    first_row: np.ndarray  # int64 [S], these rows
    second_row: np.ndarray  # int64 [S]

    def __len__(self) -> int:
        return len(self.first)


class Hard(NamedTuple):
    """What was mined, the same on every process."""

    ids: np.ndarray  # int32 [C, n], other identities, the likest first; -1 where there are no more
    scores: np.ndarray  # float32 [C, n], of each; -inf where there are no more
    suspects: Suspects  # at most n of each identity, left out of the lists


class Links(NamedTuple):
    """Rows and their nearest rows of other identities, one entry each."""

    row: np.ndarray
    other: np.ndarray
    score: np.ndarray

    def take(self, places: np.ndarray) -> Links:
        return Links(*(column[places] for column in self))


def hard_negatives(
    rows: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    *,
    neighbours: int,
    cap: float,
    per_row: int | None = None,
    by: Literal["best", "mean"] = "best",
    first: int = 0,
    search: Search | None = None,
    kind: Kind = "flat",
    progress: str | None = None,
) -> Hard:
    """Find the `neighbours` other identities nearest to each.

    Each row looks for its `per_row` nearest rows of other identities (None: `neighbours`). by "best": an identity is as
    near as the likest two rows say. "mean": as the mean over the identity's rows of the score of the likest row that
    each found of the other, 0 where it found none: near to many rows counts more than near to one. Ties go to the
    smaller id. Two identities of which any two rows are above `cap` are suspects, and in no list.

    Args:
        rows: [n, D], any length; those without direction (zero, not finite) neither look nor are found.
        labels: int [N], the identity of each row of all processes.
        first: `rows` are those from here on; where there are several processes, labels must ascend.
        search: of `rows`, where there is one already; else `kind` is built.
        progress: label of a bar on stderr, shown on a terminal only.

    All processes must call it alike.
    """
    if not -1.0 < cap <= 1.0:
        raise ValueError(f"cap is {cap}; a cosine above -1 and up to 1 is meant, 0.7 is usual between centres")
    per_row = neighbours if per_row is None else per_row
    if neighbours < 1 or per_row < 1:
        raise ValueError(f"{neighbours} neighbours, {per_row} of each row: one or more are meant")
    finder = Finder(rows, labels, first, search or Search(rows, kind), cap, per_row)
    order = np.argsort(labels, kind="stable")
    assert dist.world() == 1 or (np.diff(labels) >= 0).all(), "rows spread over processes are in class order"
    counts = np.bincount(labels, minlength=num_classes)
    start = np.concatenate([[0], np.cumsum(counts)])
    ids = np.full((num_classes, neighbours), -1, np.int32)
    scores = np.full((num_classes, neighbours), -np.inf, np.float32)
    suspects: list[tuple[np.ndarray, ...]] = []
    quiet = True if progress is None or not dist.is_main() else None  # None: tqdm shows the bar on a terminal only
    with tqdm(total=num_classes, desc=progress, unit=" ids", leave=False, file=sys.stderr, disable=quiet) as bar:
        for low, high in _cuts(start, QUERIES):
            links = finder(order[start[low] : start[high]])
            of, to, best, likest, mean = _between_identities(links, labels, counts)
            calm = best <= cap
            rank = mean if by == "mean" else best
            chosen, place = _first_of_each(of, to, rank, calm, neighbours)
            ids[of[chosen], place] = to[chosen]
            scores[of[chosen], place] = rank[chosen]
            chosen, _ = _first_of_each(of, to, best, ~calm, neighbours)
            suspects.append((of[chosen], to[chosen], best[chosen], likest.row[chosen], likest.other[chosen]))
            bar.update(high - low)
    return Hard(ids, scores, _each_pair_once(suspects))


class Finder:
    """Row numbers -> links to the nearest rows of other identities, up to `per_row` below the cap and all above it."""

    def __init__(
        self, rows: np.ndarray, labels: np.ndarray, first: int, search: Search, cap: float, per_row: int
    ) -> None:
        self.rows, self.labels, self.first, self.search = rows, labels, first, search
        self.cap, self.per_row = cap, per_row
        self.most = min(len(labels), GPU_MOST if search.on_gpu else len(labels))

    def __call__(self, numbers: np.ndarray) -> Links:
        if not len(numbers):
            return Links(numbers, numbers, np.empty(0, np.float32))
        own = numbers[(numbers >= self.first) & (numbers < self.first + len(self.rows))] - self.first
        queries = np.concatenate(dist.gather_rows(np.ascontiguousarray(self.rows[own], np.float32)))
        of = self.labels[numbers]
        largest = int(np.unique(of, return_counts=True)[1].max())
        wide = self.per_row + largest + SPARE
        widest = min(WIDEST * wide, self.most)
        parts: list[Links] = []
        pending = np.arange(len(numbers))
        while len(pending):
            wide = min(wide, widest)
            scores, ids = self._nearest(queries[pending], wide)
            other = (ids >= 0) & (self.labels[ids] != of[pending][:, None])
            calm = other & (scores <= self.cap)
            short = (calm.sum(axis=1) < self.per_row) & (ids[:, -1] >= 0) & (wide < widest)
            kept = (other & ~calm) | (calm & (calm.cumsum(axis=1) <= self.per_row))
            row, place = np.nonzero(kept & ~short[:, None])
            parts.append(Links(numbers[pending[row]], ids[row, place], scores[row, place]))
            pending, wide = pending[short], 2 * wide
        return Links(*map(np.concatenate, zip(*parts, strict=True)))

    def _nearest(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return scores (float32) and row numbers (int64), [q, k], of the k nearest rows of all processes."""
        scores, ids = self.search(queries, k)
        ids = np.where(ids < 0, -1, ids + self.first)
        if dist.world() == 1:
            return scores, ids
        scores, ids = (np.concatenate(dist.gather_rows(part), axis=1) for part in (scores, ids))
        order = np.lexsort((ids, -scores), axis=1)[:, :k]
        return np.take_along_axis(scores, order, 1), np.take_along_axis(ids, order, 1)


def _between_identities(
    links: Links, labels: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Links, np.ndarray]:
    """Gather links by pairs of identities: of, to, the best score, its link, and the mean over the rows of `of`."""
    of, to = labels[links.row], labels[links.other]
    order = np.lexsort((links.other, -links.score, links.row, to, of))
    links, of, to = links.take(order), of[order], to[order]
    fresh = np.ones(len(of), bool)  # the likest of what a row found of another identity
    fresh[1:] = (links.row[1:] != links.row[:-1]) | (to[1:] != to[:-1])
    links, of, to = links.take(np.flatnonzero(fresh)), of[fresh], to[fresh]
    starts = np.flatnonzero(np.concatenate([[True], (of[1:] != of[:-1]) | (to[1:] != to[:-1])])[: len(of)])
    if not len(starts):
        return of, to, links.score, links, links.score
    pair = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(of))))
    likest = links.take(np.lexsort((links.other, links.row, -links.score, pair))[starts])
    sums = np.add.reduceat(np.maximum(links.score, 0).astype(np.float64), starts)
    return of[starts], to[starts], likest.score, likest, (sums / counts[of[starts]]).astype(np.float32)


def _first_of_each(
    of: np.ndarray, to: np.ndarray, rank: np.ndarray, among: np.ndarray, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Choose for each `of` the `most` highest of rank, ties by `to`; return their places and their numbers in lists."""
    places = np.flatnonzero(among)
    places = places[np.lexsort((to[places], -rank[places], of[places]))]
    owner = of[places]
    number = np.arange(len(places)) - np.searchsorted(owner, owner, "left")
    return places[number < most], number[number < most]


def _each_pair_once(found: list[tuple[np.ndarray, ...]]) -> Suspects:
    of, to, scores, row, other = (np.concatenate(column) for column in zip(*found, strict=True))
    turned = of > to
    first, second = np.where(turned, to, of), np.where(turned, of, to)
    rows = np.where(turned, other, row), np.where(turned, row, other)
    order = np.lexsort((*rows, second, first, -scores))
    keys = (first[order].astype(np.int64) << 32) + second[order]
    order = order[np.sort(np.unique(keys, return_index=True)[1])]  # both found each other: the first stays
    return Suspects(
        first[order].astype(np.int32),
        second[order].astype(np.int32),
        scores[order],
        rows[0][order].astype(np.int64),
        rows[1][order].astype(np.int64),
    )


def _cuts(start: np.ndarray, most: int) -> list[tuple[int, int]]:
    """Cut identities into runs [low, high) of at most `most` rows, or of one identity that has more."""
    cuts, low = [], 0
    while low < len(start) - 1:
        high = max(int(np.searchsorted(start, start[low] + most, "right")) - 1, low + 1)
        cuts.append((low, high))
        low = high
    return cuts
