"""Pairs -> folds: which tenth of them is measured while the others choose the threshold."""

import heapq
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

NUM_FOLDS = 10


class Pairs(NamedTuple):
    """Image couples to compare, in columns of one length."""

    first: np.ndarray  # int64 [P], image ids
    second: np.ndarray  # int64 [P]
    same: np.ndarray  # bool [P], True = genuine
    fold: np.ndarray | None = None  # int16 [P], 0..K-1
    groups: dict[str, np.ndarray] | None = None  # by title, str [P]: what a pair file says of whole pairs


def stratified_folds(same: np.ndarray, num: int = NUM_FOLDS) -> np.ndarray:
    """Cut genuine and impostor pairs, each in the order given, into num equal blocks; int16 [P].

    Gives the official folds of files that alternate equal blocks, such as LFW's pairs.txt.
    """
    same = np.asarray(same, dtype=bool)
    if len(same) == 1:
        raise ValueError("One pair is too few: folds need at least two.")
    num = min(num, max(int(same.sum()), int((~same).sum())))
    folds = np.zeros(len(same), dtype=np.int16)
    for kind in (same, ~same):
        folds[kind] = np.arange(kind.sum()) * num // max(1, kind.sum())
    if num < 2:  # one pair of each kind: leave one out
        folds = np.arange(len(same), dtype=np.int16)
    return folds


def check_folds(folds: np.ndarray, num_pairs: int) -> np.ndarray:
    """Return folds as int16 after checking that they are 0..K-1, K >= 2, none of them empty."""
    folds = np.asarray(folds)
    if folds.shape != (num_pairs,):
        raise ValueError(f"folds {folds.shape} must name one fold for each of the {num_pairs} pairs.")
    present = np.unique(folds)
    if len(present) < 2 or not np.array_equal(present, np.arange(len(present))):
        shown = ", ".join(str(int(f)) for f in present[:12])
        raise ValueError(f"folds must be numbered 0 to K-1 without a gap, two at least; found {shown}.")
    return folds.astype(np.int16)


def make_folds(pairs: Pairs, identities: np.ndarray, num: int = NUM_FOLDS) -> np.ndarray:
    """Deal pairs into folds that share no identity where the pairs allow it; int16 [P].

    identities [images] numbers the person of each image. Persons linked by a chain of pairs stay together,
    and the groups are dealt largest first to the smallest fold. Where impostor pairs link so many persons
    that the folds would be lopsided, only each person's genuine pairs stay together and an impostor pair goes
    to the smaller fold of its two persons; `shared_identities` counts what then crosses. Fewer than two
    persons: `stratified_folds`.
    """
    same = np.asarray(pairs.same, dtype=bool)
    _, persons = np.unique(np.concatenate([identities[pairs.first], identities[pairs.second]]), return_inverse=True)
    a, b = persons.reshape(2, -1)
    group = linked(a, b, len(same))[a]
    sizes = np.bincount(group)
    if len(sizes) >= num and sizes.max() <= 2 * len(same) / num:
        return _compact(np.asarray(_deal(sizes, num))[group])
    known = linked(a[same], b[same], int(persons.max()) + 1)  # persons that genuine pairs call one
    home = np.asarray(_deal(np.bincount(known[a], weights=same, minlength=known.max() + 1), num))[known]
    folds = home[a]
    load = np.bincount(folds[same], minlength=num).tolist()
    for i in np.flatnonzero(~same).tolist():
        one, other = int(home[a[i]]), int(home[b[i]])
        folds[i] = chosen = one if load[one] <= load[other] else other
        load[chosen] += 1
    folds = _compact(folds)
    return folds if folds.max() > 0 else stratified_folds(same, num)


def shared_identities(pairs: Pairs, identities: np.ndarray) -> int:
    """Count the pairs that show a person who is also seen in another fold."""
    if pairs.fold is None:
        raise ValueError("These pairs have no folds; make them with make_folds.")
    _, persons = np.unique(np.concatenate([identities[pairs.first], identities[pairs.second]]), return_inverse=True)
    folds = np.concatenate([pairs.fold, pairs.fold])
    lowest, highest = np.full(persons.max() + 1, np.iinfo(np.int16).max), np.full(persons.max() + 1, -1)
    np.minimum.at(lowest, persons, folds)
    np.maximum.at(highest, persons, folds)
    shared = (lowest != highest)[persons].reshape(2, -1)
    return int(shared.any(axis=0).sum())


def linked(a: np.ndarray, b: np.ndarray, num: int) -> np.ndarray:
    """Number the connected components of a graph of edges (a, b): int [nodes]."""
    num = max(num, int(max(a.max(initial=-1), b.max(initial=-1))) + 1)
    graph = coo_array((np.ones(len(a), dtype=np.int8), (a, b)), shape=(num, num))
    return connected_components(graph, directed=False)[1]


def _deal(weights: np.ndarray, num: int) -> list[int]:
    """Give each weight, largest first, to the lightest of num folds, of equals to that of fewest members."""
    piles = [(0.0, 0, fold) for fold in range(num)]
    folds = [0] * len(weights)
    for item in np.argsort(-weights, kind="stable").tolist():
        weight, members, fold = piles[0]
        folds[item] = fold
        heapq.heapreplace(piles, (weight + float(weights[item]), members + 1, fold))
    return folds


def _compact(folds: np.ndarray) -> np.ndarray:
    return np.unique(folds, return_inverse=True)[1].astype(np.int16)
