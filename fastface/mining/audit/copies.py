"""Looks of one or two shard sets -> groups of images that are the same picture, within and between them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from fastface.data.index import Index
from fastface.mining.audit.duplicates import (
    Pairs,
    correlation,
    detail,
    equal_groups,
    groups_of,
    hashes,
    medians,
    propose,
    thumbnail_correlation,
)
from fastface.mining.audit.findings import Place
from fastface.mining.audit.pixels import Looks, open_reader, read_image

THUMBNAILS = 0.85  # least correlation of the thumbnails of pictures that are decoded and compared
PLAIN = 5.0  # grey levels of contrast below which a picture is all one colour, and like any other such


class Copies(NamedTuple):
    """Groups of images that are one picture."""

    groups: list[tuple[list[Place], bool, float]]  # members; whether their pixels are equal; the least correlation
    unlike: list[tuple[Place, Place, float]]  # pairs proposed by their embeddings whose pictures differ: correlation
    proposed: int  # pairs that hashes or embeddings proposed
    crowded: int  # images whose hash too many others share in part: not all pairs of those were looked at


def find_copies(
    sets: Sequence[tuple[Index, Looks]],
    embedded: Sequence[tuple[int, int]],
    *,
    bits: int,
    least: float,
    threads: int | None = None,
) -> Copies:
    """Find equal and nearly equal pictures of the first set, and those it shares with the second.

    embedded: pairs of records of the first set with nearly equal embeddings. bits: by which hashes may differ.
    least: correlation of their detail from which two pictures are one.
    """
    starts = np.cumsum([0, *(len(index) for index, _ in sets)])
    measures = np.concatenate([np.asarray(looks.measures[["pixels", "contrast"]]) for _, looks in sets])
    equal = equal_groups(measures["pixels"])
    chosen = (measures["pixels"] > 0) & (measures["contrast"] >= PLAIN)
    stands_for = np.arange(len(measures))
    for group in equal:
        chosen[group[1:]] = False  # the first stands for all
        stands_for[group] = group[0]
    middle = medians(sets[0][1].thumbnails[:])
    codes, turned = (
        np.concatenate([hashes(looks.thumbnails, middle, mirrored=mirrored) for _, looks in sets])
        for mirrored in (False, True)
    )
    proposal = propose(codes, turned, chosen, bits)
    pairs = _of_first(proposal.pairs, len(sets[0][0]))
    pairs = _similar(sets, starts, pairs, THUMBNAILS)
    asked = {(int(a), int(b)) for a, b in zip(*pairs, strict=True)}
    near = [(int(stands_for[a]), int(stands_for[b])) for a, b in embedded]
    others = {(min(a, b), max(a, b)) for a, b in near if a != b and chosen[a] and chosen[b]} - asked
    ordered = sorted(asked | others)
    scores = _correlate(sets, starts, ordered, threads)
    same = {pair: score for pair, score in zip(ordered, scores, strict=True) if score >= least}
    links = [*same, *((int(group[0]), int(other)) for group in equal for other in group[1:])]
    groups = []
    joined = groups_of(links)
    number = {i: k for k, members in enumerate(joined) for i in members}
    worst = [1.0] * len(joined)
    for (a, _), score in same.items():
        worst[number[a]] = min(worst[number[a]], score)
    for members, score in zip(joined, worst, strict=True):
        places = [_place(starts, i) for i in members]
        if any(place.set == 0 for place in places):
            groups.append((places, len(set(measures["pixels"][members].tolist())) == 1, score))
    unlike = [
        (_place(starts, a), _place(starts, b), score)
        for (a, b), score in zip(ordered, scores, strict=True)
        if (a, b) in others and score < least
    ]
    return Copies(groups, unlike, len(ordered), proposal.crowded)


def _of_first(pairs: Pairs, size: int) -> Pairs:
    """Leave out pairs that lie in the second set altogether."""
    kept = pairs.first < size
    return Pairs(pairs.first[kept], pairs.second[kept])


def _similar(sets: Sequence[tuple[Index, Looks]], starts: np.ndarray, pairs: Pairs, least: float) -> Pairs:
    """Keep the pairs whose thumbnails correlate, so that few pictures are decoded."""
    places = np.unique(np.concatenate(pairs))
    picked = [looks.thumbnails[places[(places >= a) & (places < b)] - a] for (_, looks), a, b in _spans(sets, starts)]
    small = Pairs(np.searchsorted(places, pairs.first), np.searchsorted(places, pairs.second))
    good = thumbnail_correlation(np.concatenate(picked), small) >= least
    return Pairs(pairs.first[good], pairs.second[good])


def _correlate(
    sets: Sequence[tuple[Index, Looks]], starts: np.ndarray, pairs: list[tuple[int, int]], threads: int | None
) -> list[float]:
    readers = [open_reader(index) for index, _ in sets]

    def small(i: int) -> np.ndarray:
        place = _place(starts, i)
        return detail(read_image(readers[place.set], place.record))

    def score(pair: tuple[int, int]) -> float:
        return correlation(small(pair[0]), small(pair[1]))[0]

    with ThreadPoolExecutor(threads or min(8, os.cpu_count() or 1), "audit-compare") as pool:
        return list(
            tqdm(
                pool.map(score, pairs),
                total=len(pairs),
                desc="pictures compared",
                unit=" pairs",
                file=sys.stderr,
                disable=None,
            )
        )


def _place(starts: np.ndarray, i: int) -> Place:
    number = int(np.searchsorted(starts, i, side="right")) - 1
    return Place(number, int(i - starts[number]))


def _spans(sets: Sequence[tuple[Index, Looks]], starts: np.ndarray) -> list[tuple[tuple[Index, Looks], int, int]]:
    return [(each, int(a), int(b)) for each, a, b in zip(sets, starts[:-1], starts[1:], strict=True)]
