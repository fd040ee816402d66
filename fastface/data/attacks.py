"""A shard set of liveness -> who is live, by which attack the others are, and what each is to be learned as."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastface.data.index import Index
from fastface.data.mixed_index import MixedIndex

LIVE, SPOOF = "live", "spoof"
UNKNOWN = "unknown"


class Attacks(NamedTuple):
    """What is known of the records of a shard set."""

    live: np.ndarray  # bool [N]
    attack: np.ndarray | None  # int16 [N], places in `names`; None where the set has no column `attack`
    names: list[str]  # "none" of the live among them


class ClassTargets(NamedTuple):
    """Classes to tell apart, and the one that each record belongs to."""

    names: list[str]  # the first is live
    of_record: np.ndarray  # int16 [N]


def read_attacks(index: Index) -> Attacks:
    """Read labels and column `attack` of a shard set, or of several as one, by their names.

    Raises:
        ValueError: for classes other than live and spoof, and a column of numbers without names.
    """
    if isinstance(index, MixedIndex):
        return _joined([read_attacks(source) for source in index.sources])
    odd = sorted(set(index.classes) - {LIVE, SPOOF})
    if odd:
        raise ValueError(
            f"{index.path} has the class {odd[0]!r}; liveness is about {LIVE} and {SPOOF}: make the shards with "
            "tools/make_shards.py liveness"
        )
    live = np.array([name == LIVE for name in index.classes])[np.asarray(index.label)]
    if "attack" not in index.columns:
        return Attacks(live, None, [])
    column = np.asarray(index.columns["attack"])
    names = index.meta.get("values", {}).get("attack")
    if not names or column.max() >= len(names):
        raise ValueError(f"{index.path}: column attack has no names for its numbers; make the shards again")
    names = [*names, UNKNOWN] if UNKNOWN not in names else list(names)
    return Attacks(live, np.where(column < 0, names.index(UNKNOWN), column).astype(np.int16), names)


def _joined(parts: list[Attacks]) -> Attacks:
    """Put the records of several sets end to end; sets number their attacks each in its own way."""
    live = np.concatenate([part.live for part in parts])
    if any(part.attack is None for part in parts):
        return Attacks(live, None, [])
    names = sorted({name for part in parts for name in part.names})
    place = {name: number for number, name in enumerate(names)}
    attack = [np.array([place[name] for name in p.names], np.int16)[p.attack] for p in parts if p.attack is not None]
    return Attacks(live, np.concatenate(attack), names)


def class_targets(index: Index, classes: str) -> ClassTargets:
    """Return the classes of "label" (live, spoof) or "attack" (live, then each attack by name) and every record's.

    Raises:
        ValueError: where one of both kinds is missing, or attacks are not known.
    """
    found = read_attacks(index)
    if found.live.all() or not found.live.any():
        only = LIVE if found.live.any() else SPOOF
        raise ValueError(f"{index.path} has {only} images only: live is learned beside attacks")
    if classes == "label":
        return ClassTargets([LIVE, SPOOF], np.where(found.live, 0, 1).astype(np.int16))
    if found.attack is None:
        raise ValueError(
            f"{index.path} has no column attack: set task.classes: label, or make the shards from folders that name "
            "the attacks"
        )
    counts = np.bincount(found.attack[~found.live], minlength=len(found.names))
    there = np.flatnonzero(counts)  # in the order of the names, so sorted
    place = np.zeros(len(found.names), np.int16)
    place[there] = np.arange(1, len(there) + 1)
    names = [LIVE, *(found.names[number] for number in there)]
    return ClassTargets(names, np.where(found.live, 0, place[found.attack]).astype(np.int16))
