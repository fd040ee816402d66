"""The records of a shard set -> units that no split may part: those of a person, of a clip, copies of one image.

Copies are images of one crc32 and length: where two images share both by chance, they only stay together. What holds
for a split holds for every part of it: a person in the development set is in no other.
"""

from __future__ import annotations

import numpy as np

from fastface.data.index import Index
from fastface.data.plan import hash_rows

PARTED = 15  # what the order of units is hashed with, so that it is that of no plan


def units_of(index: Index) -> np.ndarray:
    """Number the units of a shard set and say which each record is of: int64 [N], from 0 on.

    Two records are of one unit where they have the same subject (that is known), clip, or bytes, or where records
    between them link them.
    """
    from scipy.sparse import coo_array  # 60 MB that conversion's workers do without
    from scipy.sparse.csgraph import connected_components

    links = [content_of(index)]
    for column in ("subject", "clip"):
        if column in index.columns:
            links.append(np.asarray(index.columns[column]).astype(np.int64))
    rows, places, first = [], [], 0
    for link in links:
        known = np.flatnonzero(link >= 0)
        values, place = np.unique(link[known], return_inverse=True)
        rows.append(known)
        places.append(place.reshape(-1) + first)
        first += len(values)
    row, place = np.concatenate(rows), np.concatenate(places) + index.num_samples
    size = index.num_samples + first
    graph = coo_array((np.ones(len(row), np.int8), (row, place)), shape=(size, size))
    _, component = connected_components(graph, directed=False)
    return np.unique(component[: index.num_samples], return_inverse=True)[1].reshape(-1).astype(np.int64)


def content_of(index: Index) -> np.ndarray:
    """Number the distinct contents of a shard set's images by crc32 and length: int64 [N], from 0 on."""
    return np.unique(content_keys(index), return_inverse=True)[1].reshape(-1).astype(np.int64)


def content_keys(index: Index) -> np.ndarray:
    """Return what tells the images of any shard set apart, but for chance: crc32 and length as one uint64 [N]."""
    keys = np.asarray(index.columns["crc32"]).astype(np.uint64)
    keys <<= np.uint64(32)
    keys |= np.asarray(index.columns["length"]).astype(np.uint64)
    return keys


def held_out(index: Index, share: float, seed: int = 0) -> np.ndarray:
    """Choose a share of the units of every stratum, and say which records are of them: bool [N].

    A stratum is the units of one source and one set of classes, and, where no subject is known, of attacks. It gives
    round(share x units), at least one of two. The choice follows from the content of the images, not from their order
    or names. ValueError where no unit can be spared.
    """
    unit = units_of(index)
    num_units = int(unit.max()) + 1
    smallest = np.full(num_units, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(smallest, unit, hash_rows(seed, PARTED, content_keys(index)))
    stratum = _strata(index, unit, num_units)
    order = np.lexsort((smallest, stratum))
    starts = np.flatnonzero(np.diff(stratum[order], prepend=-1))
    chosen = np.zeros(num_units, bool)
    for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), num_units], strict=True):
        size = stop - start
        take = min(max(round(share * size), 1), size - 1)
        chosen[order[start : start + take]] = True
    if not chosen.any():
        raise ValueError(
            f"{index.path}: a part cannot be held out, as nothing of one source and class can be parted (a person, a "
            "clip and copies of one image stay together): take more data, or name an evaluation set of its own"
        )
    return chosen[unit]


def _strata(index: Index, unit: np.ndarray, num_units: int) -> np.ndarray:
    """Number the strata of units: int64 [U]."""
    person = np.asarray(index.columns["subject"]) >= 0 if "subject" in index.columns else np.zeros(len(unit), bool)
    source = np.asarray(index.columns["source"]) if "source" in index.columns else np.zeros(len(unit), np.int64)
    attack = np.asarray(index.columns["attack"]) if "attack" in index.columns else np.zeros(len(unit), np.int64)
    described = np.stack([source, index.label[:], np.where(person, -1, attack)], axis=1).astype(np.int64)
    kinds, kind = np.unique(described, axis=0, return_inverse=True)
    pairs = np.unique(np.stack([unit, kind.reshape(-1)], axis=1), axis=0)  # each kind of each unit once
    together = np.zeros(num_units, np.uint64)
    np.add.at(together, pairs[:, 0], hash_rows(PARTED, np.arange(len(kinds)))[pairs[:, 1]])  # of its set of kinds
    return np.unique(together, return_inverse=True)[1].reshape(-1)
