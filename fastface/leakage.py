"""What is trained on and what is evaluated on -> the persons, clips and images that are in both, refused or told.

Persons and clips are compared by name, between shard sets made of one input (or where the name has its source in it):
person 7 of one data set is not person 7 of another. Images are compared by their bytes, between all sets.
"""

import hashlib
from typing import NamedTuple

import numpy as np

from fastface.config import RunConfig
from fastface.data.index import Index
from fastface.data.mixed_index import MixedIndex
from fastface.data.selection import SelectedIndex, select
from fastface.data.shards import ShardReader
from fastface.data.units import content_keys
from fastface.data.values import listed
from fastface.evaluators import selection_of

COMPARED = 1000  # candidates whose bytes are read: crc32 and length differ by chance only once in 2^32 pairs


class Leak(NamedTuple):
    """What two sets share."""

    persons: list[str]
    clips: list[str]
    images: list[str]  # names in the second set

    def __bool__(self) -> bool:
        return any(self)

    def __str__(self) -> str:
        some = zip(self._fields, self, strict=True)
        return "; ".join(f"{len(names):,} {what} ({listed(names)})" for what, names in some if names)


def find_leak(train: Index, test: Index) -> Leak:
    """Compare what is trained on with an evaluation set."""
    if isinstance(train, MixedIndex):
        found = [find_leak(source, test) for source in train.sources]
        return Leak(*(sorted(set().union(*names)) for names in zip(*found, strict=True)))
    pairs = [(names(train), names(test)) for names in (persons_of, clips_of)]
    persons, clips = (sorted(name for _, name in first & second) for first, second in pairs)
    return Leak(persons, clips, _copies(train, test))


def persons_of(index: Index) -> set[tuple[str, str]]:
    """Return the persons of a set that are known: (input, name), the input "" where the name has its source in it."""
    if "subject" not in index.columns:
        return set()
    numbers, table = np.unique(index.columns["subject"]), index.meta.get("values", {}).get("subject", [])
    known = [table[n] if n < len(table) else str(n) for n in numbers.tolist() if n >= 0]
    return {("" if "/" in name else _input(index), name) for name in known}


def clips_of(index: Index) -> set[tuple[str, str]]:
    """Return the clips of a set: (input, name of the video or of the folder of frames)."""
    if "clip" not in index.columns:
        return set()
    first = np.unique(index.columns["clip"], return_index=True)[1].tolist()
    names = [index.name(i) for i in first]
    return {(_input(index), name.rpartition("@" if "@" in name else "/")[0]) for name in names}


def _input(index: Index) -> str:
    if isinstance(index, SelectedIndex):
        return _input(index.base)
    return str(index.meta.get("options", {}).get("input", index.dataset_id))


def _copies(train: Index, test: Index) -> list[str]:
    """Name the images of `test` whose bytes are in `train`: by crc32 and length, then, for the first, by sha256."""
    keys, others = content_keys(test), content_keys(train)
    same = np.flatnonzero(np.isin(keys, others))
    if not len(same):
        return []
    with ShardReader(train) as there, ShardReader(test) as here:
        real = []
        for record in same[:COMPARED].tolist():
            own = hashlib.sha256(here.view(record).data).digest()
            twins = np.flatnonzero(others == keys[record]).tolist()
            if any(hashlib.sha256(there.view(twin).data).digest() == own for twin in twins):
                real.append(record)
    return [test.name(record) for record in [*real, *same[COMPARED:].tolist()]]


def check_leakage(config: RunConfig, index: Index) -> list[str]:
    """Compare what a run trains on with the shard sets that it is evaluated on; return what is to be told.

    Raises:
        ValueError: naming what is in both, unless eval.leakage says tell.
    """
    notes: list[str] = []
    unknown = False
    for name, settings in config.eval.sets.items():
        if settings.images is None or not (settings.images / "meta.json").is_file():
            continue  # the task says that it needs shards
        test = select([Index.open(settings.images)], selection_of(settings), f"eval.sets.{name}")[0]
        leak = find_leak(index, test)
        unknown |= not leak and not (persons_of(test) and _persons_known(index))
        if not leak:
            continue
        text = f"eval.sets.{name} holds what is trained on: {leak}"
        if config.eval.leakage == "refuse":
            raise ValueError(
                f"{text}. Split anew by subject (make_shards.py --split train=0.8,val=0.2 --split-by subject), leave "
                f"them out (data.without), set data.held_out and eval.sets.{name}.held_out to one share, or set "
                "eval.leakage: tell, knowing that the figures are too good"
            )
        notes.append(f"leakage: {text}. Its figures are too good")
    if unknown:
        notes.append(
            "leakage was checked by hash only: nothing tells who is in the images, so the same people may be in "
            "training and evaluation"
        )
    return notes


def _persons_known(index: Index) -> bool:
    return all(map(_persons_known, index.sources)) if isinstance(index, MixedIndex) else bool(persons_of(index))
