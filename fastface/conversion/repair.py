"""A damaged shard set -> a new, complete one of all that is still good, and a list of what is lost."""

from __future__ import annotations

import csv
import io
import mmap
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastface.conversion.convert import convert
from fastface.conversion.options import Options
from fastface.conversion.report import Report
from fastface.conversion.walk import search
from fastface.data.columns import CLASS_COLUMNS, OTHER_COLUMNS, RECORD_COLUMNS, is_face_column, read_meta
from fastface.data.geometry import NUM_LANDMARKS, Faces
from fastface.data.images import ImageSpec, Rejected, prepare
from fastface.data.index_write import dataset_id, describe_column
from fastface.data.names import Names
from fastface.data.shards import BLOCK, padded, tar_header
from fastface.data.sources import Source

LOST = ["set", "shard", "member", "offset", "identity", "name", "reason"]


class Lost(NamedTuple):
    """A record, or a whole file, that could not be saved."""

    shard: str
    member: str
    offset: int
    identity: str
    name: str
    reason: str


class Found(NamedTuple):
    """Where a record lies, and what is known of it."""

    shard: int
    offset: int
    length: int
    label: int
    row: int  # in the columns of the index; -1 where the index cannot be used


def repair(path: Path, out: Path, *, workers: int | None = None) -> tuple[Report, list[Lost]]:
    """Write the good records of the shard set (or folder of sets) in `path` to a new one, `out`.

    Where the index is whole, each record is taken that has its crc32, whatever happened to the tar around it. Else
    the tars are searched for members, and each image is decoded. Records keep their order; keys and shards are
    numbered anew; identities without a record are no classes any more. out/lost.csv lists what is lost.
    """
    folders = {"": path}
    if not (path / "meta.json").exists() and not any(path.glob("*.tar")):
        folders = {each.name: each for each in sorted(path.iterdir()) if any(each.glob("*.tar"))}
    if not folders:
        raise ValueError(f"{path} holds no shards (*.tar): there is nothing to repair")
    sets = {name: Damaged(folder) for name, folder in folders.items()}
    for name, damaged in sets.items():
        if not len(damaged):
            raise ValueError(f"{folders[name]}: not one good record was found")
    table = io.StringIO()
    rows = [(name, *line) for name, damaged in sets.items() for line in damaged.lost]
    csv.writer(table, lineterminator="\n").writerows([LOST, *rows])
    first = next(iter(sets.values()))
    spec = ImageSpec(lossless=first.read(0)[:4] == b"\x89PNG")  # what is stored fits, so its bytes are kept
    options = Options("repair", path, out, spec, shard_size=first.shard_size, workers=workers)
    facts = {name: damaged.facts for name, damaged in sets.items()}
    more = {"lost.csv": table.getvalue().encode("utf-8", "surrogateescape")}
    report = convert(options, sets, facts=facts, files=more)
    return report, [line for damaged in sets.values() for line in damaged.lost]


class Damaged(Source):
    """The records of a damaged set that are good, in their order."""

    def __init__(self, folder: Path) -> None:
        self.lost: list[Lost] = []
        self._folder = folder
        self._maps: dict[int, np.ndarray] = {}
        self._meta, whole = _read_index(folder, self.lost)
        self._shards = [shard["name"] for shard in self._meta.get("shards", [])]
        self._shards += sorted(file.name for file in folder.glob("*.tar") if file.name not in self._shards)
        known: Sequence[str] = self._meta.get("classes") or _names("class_names", whole)
        names = _names("names", whole)
        usable = {"shard", "offset", "length", "crc32"} <= set(whole)
        found = list((self._by_index if usable else self._by_search)(whole, names, known))
        labels = np.array([record.label for record in found], np.int64)
        used = np.unique(labels)
        listed = bool(len(used)) and bool(known) and int(used[-1]) < len(known)
        if len(used) and not listed:
            self.lost.append(Lost("", "", 0, "", "meta.json", "the names of the classes are lost: class-LABEL stands"))
        # where the names are lost, numbers of one width keep the order of the labels
        classes: list[str] = [str(known[k]) if listed else f"class-{k:09d}" for k in used.tolist()]
        super().__init__(classes, np.searchsorted(used, labels))
        self.ordered = True
        self._found = found
        rows = np.array([record.row for record in found], np.int64)
        self._names = Names(
            names[record.row] if record.row >= 0 and len(names) else f"{self._shards[record.shard]}@{record.offset}"
            for record in found
        )
        if len(rows) and rows.min() >= 0:
            self._take_columns(whole, rows)
        self.values = self._meta.get("values", {})
        self._take_pairs()
        self.shard_size = self._meta.get("options", {}).get("shard_size")
        self.facts = {key: self._meta[key] for key in ("options",) if key in self._meta}
        self.facts["repaired_from"] = self._meta.get("dataset_id")

    def name(self, i: int) -> str:
        return self._names[i]

    def read(self, i: int) -> bytes:
        record = self._found[i]
        return self._bytes(record.shard)[record.offset : record.offset + record.length].tobytes()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_maps": {}}

    def _bytes(self, shard: int) -> np.ndarray:
        """Map a shard (uint8 [bytes]), which is empty where there is none; one at a time, as each holds a file open."""
        if shard not in self._maps:
            try:
                with open(self._folder / self._shards[shard], "rb") as file:
                    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                self._maps = {shard: np.frombuffer(mapped, np.uint8)}
            except (FileNotFoundError, ValueError):  # mmap refuses an empty file
                self._maps = {shard: np.zeros(0, np.uint8)}
        return self._maps[shard]

    def _by_index(self, whole: Mapping[str, np.ndarray], names: Sequence[str], known: Sequence[str]) -> Iterator[Found]:
        """Yield the records whose bytes have the crc32 that the index says."""
        columns = [whole[name].tolist() for name in ("shard", "offset", "length", "crc32")]
        for row, (shard, offset, length, crc32) in enumerate(zip(*columns, strict=True)):
            data = self._bytes(shard)
            image, label = data[offset : offset + length], _label_behind(data, offset, length)
            if "label" in whole:
                label = int(whole["label"][row])
            reason = ""
            if not len(data):
                reason = "the shard is missing or empty"
            elif len(image) < length:
                reason = f"the shard ends at byte {len(data):,}"
            elif zlib.crc32(image.data) != crc32:
                reason = "its crc32 is another"
            elif label < 0:
                reason = "its label is lost"
            if reason:
                self._lose(shard, offset, label, row, reason, names, known)
            else:
                yield Found(shard, offset, length, label, row)

    def _by_search(
        self, whole: Mapping[str, np.ndarray], names: Sequence[str], known: Sequence[str]
    ) -> Iterator[Found]:
        """Yield what can be decoded of all images that are found at block boundaries of the tars."""
        rows: dict[tuple[int, int], int] = {}  # (shard, offset) -> row of the index, as far as that is known
        if {"shard", "offset"} <= set(whole):
            places = zip(whole["shard"].tolist(), whole["offset"].tolist(), strict=True)
            rows = {place: row for row, place in enumerate(places)}
        listed = self._meta.get("shards", [])
        for shard in range(len(self._shards)):
            data = self._bytes(shard)
            members = list(search(data))
            images = [k for k, member in enumerate(members) if not member[0].endswith(".cls")]
            for k in images:
                name, offset, length = members[k]
                row = rows.pop((shard, offset), -1)
                label = _label_in(data, name, members[k + 1]) if k + 1 < len(members) else -1
                if "label" in whole and row >= 0:
                    label = int(whole["label"][row])
                if reason := _unfit(data[offset : offset + length], length, len(data), label):
                    self._lose(shard, offset, label, row, reason, names, known)
                else:
                    yield Found(shard, offset, length, label, row)
            expected = listed[shard]["samples"] if shard < len(listed) else len(images)
            if len(images) < expected and not rows:
                reason = f"{expected - len(images):,} of its {expected:,} records are not found"
                self.lost.append(Lost(self._shards[shard], "", 0, "", "", reason))
        for (shard, offset), row in rows.items():
            label = int(whole["label"][row]) if "label" in whole else -1
            self._lose(shard, offset, label, row, "not found", names, known)

    def _lose(
        self, shard: int, offset: int, label: int, row: int, reason: str, names: Sequence[str], known: Sequence[str]
    ) -> None:
        identity = "" if label < 0 else known[label] if label < len(known) else f"class-{label:09d}"
        name = names[row] if row >= 0 and len(names) else ""
        member = _member_at(self._bytes(shard), offset)
        self.lost.append(Lost(self._shards[shard], member, offset, identity, name, reason))

    def _take_columns(self, whole: Mapping[str, np.ndarray], rows: np.ndarray) -> None:
        """Bring along what the index says of the records beyond what the conversion finds itself."""
        for name, column in whole.items():
            if name not in {*RECORD_COLUMNS, *OTHER_COLUMNS, *CLASS_COLUMNS} and not is_face_column(name):
                self.columns[name] = column[rows]
        if "landmarks" in whole:
            self.landmarks = whole["landmarks"][rows].reshape(-1, NUM_LANDMARKS, 2)
        if {"boxes", "boxes_start"} <= set(whole):
            more = {n.removeprefix("boxes_"): v for n, v in whole.items() if n.startswith("boxes_")}
            more.pop("start")
            self.faces = Faces(whole["boxes_start"], whole["boxes"], more).take(rows)

    def _take_pairs(self) -> None:
        file = self._folder / "pairs.csv"
        if not self._meta.get("pairs") or not file.exists():
            return
        with open(file, encoding="utf-8", errors="surrogateescape", newline="") as text:
            rows = list(csv.reader(text))[1:]
        mine = {self.name(i) for i in range(len(self))}
        self.pairs = [(a, b, same == "1", int(fold)) for a, b, same, fold in rows if a in mine and b in mine]


def _names(column: str, whole: Mapping[str, np.ndarray]) -> Sequence[str]:
    """Return the strings that a column and its starts hold; none where they are damaged."""
    ends = f"{column}_start"
    return Names.of_columns(whole[column], whole[ends]) if {column, ends} <= set(whole) else []


def _read_index(folder: Path, lost: list[Lost]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return meta.json ({} where it cannot be read) and the columns whose values have the hash that it lists."""
    try:
        meta = read_meta(folder)
    except (ValueError, OSError) as error:
        lost.append(Lost("", "", 0, "", "meta.json", f"cannot be used: {error}"))
        return {}, {}
    if dataset_id(meta["shards"], meta["columns"], meta["classes"]) != meta["dataset_id"]:
        lost.append(Lost("", "", 0, "", "meta.json", "was changed after it was made: compare the names of the classes"))
    whole = {}
    for name, described in meta["columns"].items():
        try:
            array = np.load(folder / "index" / f"{name}.npy", allow_pickle=False)
            good = describe_column(array) == described
        except (OSError, ValueError, EOFError, KeyError):
            good = False
        if good:
            whole[name] = array
        else:
            lost.append(Lost("", "", 0, "", f"index/{name}.npy", "damaged or missing"))
    return meta, whole


def _member_at(data: np.ndarray, offset: int) -> str:
    """Read the name in the header before an image, as far as it is there."""
    header = data[max(offset - BLOCK, 0) : offset].tobytes()
    return header[:100].split(b"\0")[0].decode("ascii", "backslashreplace") if len(header) == BLOCK else ""


def _label_behind(data: np.ndarray, offset: int, length: int) -> int:
    """Read the label from the .cls member behind an image; -1 where there is none."""
    at = offset + padded(length)
    text = data[at + BLOCK : at + BLOCK + 10].tobytes().split(b"\0")[0]
    header = data[at : at + BLOCK].tobytes()
    name = header[:100].split(b"\0")[0].decode("ascii", "replace")
    whole = text.isdigit() and name.endswith(".cls") and name.isascii() and header == tar_header(name, len(text))
    return int(text) if whole and text == b"%d" % int(text) else -1


def _label_in(data: np.ndarray, image: str, member: tuple[str, int, int]) -> int:
    """Read the label from the member behind an image; -1 where that is none of this image."""
    name, offset, length = member
    text = data[offset : offset + length].tobytes() if length < 10 else b""
    return int(text) if name == image.split(".")[0] + ".cls" and text.isdigit() and len(text) == length else -1


def _unfit(image: np.ndarray, length: int, shard_bytes: int, label: int) -> str:
    """Say why an image of a tar without an index cannot be taken, or nothing."""
    if len(image) < length:
        return f"the shard ends at byte {shard_bytes:,}"
    if label < 0:
        return "its label is lost"
    try:
        prepare(image.tobytes(), ImageSpec())
    except Rejected as error:
        return f"{error.reason}, {error}"
    return ""
