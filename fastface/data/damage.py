"""Records that turn out bad -> the record that takes the place of each, the list of them, and a limit."""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np

from fastface.data.index import Index

REPAIR = "python tools/check_shards.py {path} --repair --out NEW"


class BadImage(ValueError):
    """An image of a micro-batch that cannot be read or decoded, or is not of the right size."""

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(f"row {row}: {reason}")
        self.row = row  # in the micro-batch
        self.reason = reason


class Bad(NamedTuple):
    """A record found bad."""

    record: int
    shard: str
    member: str  # "" where its header is lost too
    offset: int  # of the image in the shard, bytes
    identity: str
    name: str  # what the source called it
    reason: str

    def __str__(self) -> str:
        member = f"member {self.member}" if self.member else "a member"
        return (
            f"{self.shard}, {member} at byte {self.offset} (record {self.record} of {self.identity!r}, made from "
            f"{self.name!r}): {self.reason}"
        )


class Damage:
    """Knows the bad records found so far and replaces each by the next good one of its identity.

    Which record takes the place of a bad one follows from the bytes of the shards alone, so every process, and a
    resumed run, takes the same: the list is a cache, not a state. `limit` is the share of all records that may be bad;
    one more stops the run.
    """

    def __init__(self, index: Index, limit: float = 0.0) -> None:
        if not 0 <= limit <= 1:
            raise ValueError(f"data.max_damaged is {limit}: it is a share of all images, from 0 to 1")
        self.index, self.limit = index, limit
        self._bad: dict[int, Bad] = {}
        self._known = np.empty(0, np.int64)  # the same; replaced as a whole, so threads may read it
        self._new: list[Bad] = []
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return how many bad records this process has met."""
        return len(self._bad)

    def add(self, record: int, reason: str) -> None:
        """Note a bad record. Raises ValueError, naming it, where there are more than the limit allows."""
        bad = describe(self.index, record, reason)
        with self._lock:
            if record not in self._bad:
                self._bad[record] = bad
                self._new.append(bad)
                self._known = np.fromiter(self._bad, np.int64, len(self._bad))
            count = len(self._bad)
        allowed = int(self.limit * self.index.num_samples)
        if count > allowed:
            what = f"{bad}. Run `python tools/check_shards.py {self.index.path}` to see all that is wrong"
            if self.limit:
                share = f"{count:,} of {self.index.num_samples:,} images are damaged, more than data.max_damaged"
                what = f"{share} {self.limit:g} allows; the last is {what}"
            raise ValueError(f"{what}, and `{REPAIR.format(path=self.index.path)}` to keep what is good")

    def news(self) -> list[Bad]:
        """Return what was found since the last call."""
        with self._lock:
            new, self._new = self._new, []
        return new

    def stand_ins(self, records: np.ndarray) -> np.ndarray:
        """Return the records (int64 [n]) with those known to be bad replaced; the same array where none is."""
        known = self._known
        rows = np.flatnonzero(np.isin(records, known)) if len(known) else known
        if not len(rows):
            return records
        replaced = records.copy()
        replaced[rows] = [self.stand_in(int(record)) for record in records[rows]]
        return replaced

    def stand_in(self, record: int) -> int:
        """Return the next record of the same identity that is not known to be bad, in a circle.

        Where an identity has none left, the search goes on with the identities after it, and so does the label.
        """
        index = self.index
        label = int(index.labels_of(np.array([record]))[0])
        for step in range(index.num_classes):
            current = (label + step) % index.num_classes
            start, stop = int(index.label_start[current]), int(index.label_start[current + 1])
            own = index.by_label[start:stop]  # record ids, ascending
            first = int(np.searchsorted(own, record)) if step == 0 else 0
            for place in range(len(own)):
                candidate = int(own[(first + place) % len(own)])
                if candidate not in self._bad:
                    return candidate
        raise ValueError(f"{index.path}: no good image is left")


def describe(index: Index, record: int, reason: str) -> Bad:
    """Say where a record is and whose, for people to find it."""
    place = index.locate(np.array([record]))
    offset, shard = int(place.offset[0]), index.shard_path(int(place.shard[0]))
    try:
        with open(shard, "rb") as file:
            file.seek(offset - 512)  # the tar header before the image begins with the member's name
            member = file.read(100).split(b"\0")[0].decode("ascii", "backslashreplace")
    except OSError:
        member = ""
    label = int(index.labels_of(np.array([record]))[0])
    return Bad(record, str(shard), member, offset, str(index.classes[label]), index.name(record), reason)
