"""Whatever happens to a shard set after it was made, check_shards finds it and says where."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fastface.conversion.check import check
from fastface.data.index import Index
from fastface.data.index_write import dataset_id, describe_column
from fastface.data.shards import BLOCK, padded, tar_header
from tests.data.shard_sets import make_set

SHARD = "shard-000001.tar"  # records 8 to 15 of 30


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    path = make_set(tmp_path_factory.mktemp("pristine"))
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@pytest.fixture
def shards(pristine: dict[str, bytes], tmp_path: Path) -> Path:
    for name, data in pristine.items():
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(data)
    return tmp_path / "set"


def run(path: Path, **options: bool) -> list[str]:
    return check(path, workers=1, show=lambda line: None, **options)


def header_of(path: Path, record: int) -> int:
    return int(Index.open(path).offset[record]) - BLOCK


@pytest.mark.parametrize("workers", [1, 2])
def test_a_good_set_has_no_problem(shards: Path, workers: int) -> None:
    lines: list[str] = []
    assert check(shards, decode=True, workers=workers, show=lines.append) == []
    assert lines == [f"{shards}: 30 images in 4 shards: all is well"]


def cut(where: Callable[[Path], int]) -> Callable[[Path], None]:
    def harm(path: Path) -> None:
        os.truncate(path / SHARD, where(path))

    return harm


def flip(where: Callable[[Path], int]) -> Callable[[Path], None]:
    def harm(path: Path) -> None:
        data = bytearray((path / SHARD).read_bytes())
        data[where(path)] ^= 1
        (path / SHARD).write_bytes(data)

    return harm


def in_padding(path: Path) -> int:
    index = Index.open(path)
    ends = index.offset[8:16] + index.length[8:16]
    return int(next(end for end in ends if end % BLOCK)) + 1


def rewrite(change: Callable[[bytearray, int], bytes]) -> Callable[[Path], None]:
    """Change the tar by a function of its bytes and of where the header of record 10 starts."""

    def harm(path: Path) -> None:
        at = header_of(path, 10)
        (path / SHARD).write_bytes(change(bytearray((path / SHARD).read_bytes()), at))

    return harm


def rename(name: str) -> Callable[[Path], None]:
    def change(data: bytearray, at: int) -> bytes:
        length = int(data[at + 124 : at + 135], 8)
        data[at : at + BLOCK] = tar_header(name, length)
        return bytes(data)

    return rewrite(change)


def as_written_by(kind: int, long_name: bool = False) -> Callable[[Path], None]:
    def harm(path: Path) -> None:
        out = io.BytesIO()
        with tarfile.open(path / SHARD) as old, tarfile.open(fileobj=out, mode="w", format=kind) as new:
            for member in old.getmembers():
                data = old.extractfile(member)
                member.name = member.name + "x" * 200 if long_name else member.name
                member.mtime = 1.5
                new.addfile(member, data)
        (path / SHARD).write_bytes(out.getvalue())

    return harm


def zip_it(path: Path) -> None:
    (path / SHARD).write_bytes(gzip.compress((path / SHARD).read_bytes()))


def twice(data: bytearray, at: int) -> bytes:
    size = padded(int(data[at + 124 : at + 135], 8)) + 3 * BLOCK
    return bytes(data[: at + size] + data[at : at + size] + data[at + size :])


def swap_label(data: bytearray, at: int) -> bytes:
    text = at + BLOCK + padded(int(data[at + 124 : at + 135], 8)) + BLOCK
    data[text] = ord("0") if data[text] != ord("0") else ord("1")
    return bytes(data)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut between members": (
        cut(lambda path: header_of(path, 12)),
        "the file ends without the two zero blocks",
    ),
    "cut in a header": (cut(lambda path: header_of(path, 12) + 100), "the file ends 100 bytes into a header"),
    "cut in data": (
        cut(lambda path: header_of(path, 12) + 700),
        r"the file ends 188 bytes into the [\d,]+ of 000000012",
    ),
    "cut in padding": (cut(in_padding), "the file ends in the padding behind 0000000"),
    "end blocks missing": (
        cut(lambda p: (p / SHARD).stat().st_size - 1024),
        "ends without the two zero blocks",
    ),
    "one end block missing": (cut(lambda p: (p / SHARD).stat().st_size - 512), "512 zero bytes end the file"),
    "bit flipped in a header": (
        flip(lambda p: header_of(p, 11) + 3),
        r"at byte \d+: the header fails its checksum",
    ),
    "bit flipped in a checksum": (flip(lambda p: header_of(p, 11) + 150), "at byte .*header"),
    "bit flipped in an image": (
        flip(lambda p: header_of(p, 11) + 900),
        r"000000011.jpg at byte \d+: crc32 is",
    ),
    "bit flipped in padding": (flip(in_padding), r"the padding behind 0000000\d\d.jpg is not zero"),
    "header zeroed": (
        rewrite(lambda d, at: d[:at] + bytes(512) + d[at + 512 :]),
        "zeroed header: members follow",
    ),
    "all zeros": (lambda p: (p / SHARD).write_bytes(bytes(9000)), "9,000 zero bytes end the file"),
    "emptied": (lambda p: (p / SHARD).write_bytes(b""), "cannot be read"),
    "deleted": (lambda p: (p / SHARD).unlink(), "cannot be read"),
    "gzip-compressed": (zip_it, "gzip-compressed; shards are plain tars"),
    "rewritten by tar as pax": (as_written_by(tarfile.PAX_FORMAT), "a pax header"),
    "rewritten by tar as GNU": (as_written_by(tarfile.GNU_FORMAT), "an owner, a date or other fields"),
    "long names": (as_written_by(tarfile.GNU_FORMAT, True), "a GNU long name"),
    "sample repeated": (rewrite(twice), r"member 000000010.jpg is there already, at byte \d+"),
    "key used twice": (rename("000000008.jpg"), r"member 000000008.jpg is there already, at byte 0"),
    "upper case extension": (rename("000000008.JPG"), "member '000000008.JPG'|is there already"),
    "key with a dot": (rename("0000.00010.jpg"), "'0000.00010.jpg': names are a key of nine digits"),
    "no extension": (rename("000000010"), "'000000010': names are"),
    "hidden member": (rename("__meta__.cls"), "'__meta__.cls': names are"),
    "keys out of order": (rename("000000099.jpg"), "is followed by 000000010.cls; expected an image"),
    "label changed": (rewrite(swap_label), r"000000010.cls at byte \d+: is not label"),
    "shards swapped": (lambda p: os.replace(p / "shard-000002.tar", p / SHARD), "crc32 is"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damaged_shards_are_found_and_named(shards: Path, what: str) -> None:
    harm, message = DAMAGE[what]
    harm(shards)
    problems = run(shards)
    assert any(SHARD in line for line in problems)
    assert any(re.search(message, line) for line in problems), problems
    assert len([line for line in problems if SHARD in line]) <= 22


def test_every_single_flipped_byte_is_found(shards: Path) -> None:
    good = (shards / SHARD).read_bytes()
    for at in np.random.default_rng(1).integers(0, len(good), 40).tolist():
        data = bytearray(good)
        data[at] ^= 128
        (shards / SHARD).write_bytes(data)
        assert any(SHARD in line for line in run(shards)), at


def edit(path: Path, name: str, change: Callable[[np.ndarray], object], honest: bool) -> None:
    """Change a column; `honest` also rewrites meta.json, as a buggy writer would."""
    array = np.load(path / "index" / f"{name}.npy")
    change(array)
    np.save(path / "index" / f"{name}.npy", array)
    if honest:
        meta = json.loads((path / "meta.json").read_text())
        meta["columns"][name] = describe_column(array)
        meta["dataset_id"] = dataset_id(meta["shards"], meta["columns"], meta["classes"])
        (path / "meta.json").write_text(json.dumps(meta))


def add_one(array: np.ndarray) -> None:
    array[10] += 1


def swap_two(array: np.ndarray) -> None:
    array[[4, 9]] = array[[9, 4]]


COLUMNS = {
    "offset": (add_one, r"000000010.jpg at byte \d+: has"),
    "length": (add_one, r"000000010.jpg at byte \d+: has"),
    "crc32": (add_one, r"at byte \d+: crc32 is"),
    "width": (add_one, "image_size .* is not that of the width"),
    "shard": (add_one, "the shard column does not follow the shards"),
    "by_label": (swap_two, "by_label is not the order"),
    "by_name": (swap_two, "by_name is not in the order"),
    "names_start": (add_one, "by_name is not in the order|names_start"),
    "label_start": (lambda array: array.__setitem__(2, 13), "label_start does not count"),
    "label": (lambda array: array.__setitem__(10, 77), "labels run from 0 to 77"),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_changed_columns_are_found(shards: Path, name: str) -> None:
    change, _ = COLUMNS[name]
    edit(shards, name, change, honest=False)
    assert any(f"{name}.npy: sha256 is" in line for line in run(shards))


@pytest.mark.parametrize("name", COLUMNS)
def test_wrong_columns_with_right_hashes_are_found(shards: Path, name: str) -> None:
    change, message = COLUMNS[name]
    edit(shards, name, change, honest=True)
    problems = run(shards)
    assert any(re.search(message, line) for line in problems), problems


def test_decode_finds_what_the_hashes_bless(shards: Path) -> None:
    """An image replaced together with its crc, hash and index is only found by decoding it."""
    index = Index.open(shards)
    start, length = int(index.offset[10]), int(index.length[10])
    data = bytearray((shards / SHARD).read_bytes())
    data[start + 30 : start + length] = bytes(length - 30)
    (shards / SHARD).write_bytes(data)
    edit(shards, "crc32", lambda a: a.__setitem__(10, zlib.crc32(data[start : start + length])), honest=True)
    meta = json.loads((shards / "meta.json").read_text())
    meta["shards"][1]["sha256"] = hashlib.sha256(data).hexdigest()
    meta["dataset_id"] = dataset_id(meta["shards"], meta["columns"], meta["classes"])
    (shards / "meta.json").write_text(json.dumps(meta))
    assert run(shards) == []
    problems = run(shards, decode=True)
    assert any("000000010.jpg" in line and "cannot be decoded" in line for line in problems)


def test_other_files_are_checked_too(shards: Path) -> None:
    meta = json.loads((shards / "meta.json").read_text())
    (shards / "meta.json").write_text(json.dumps({**meta, "classes": meta["classes"][::-1]}))
    (shards / "shard-000009.tar").write_bytes(b"stray")
    problems = run(shards)
    assert any("dataset id is not that" in line for line in problems)
    assert any("shard-000009.tar: a tar that meta.json does not list" in line for line in problems)


def test_splits_are_checked_each(tmp_path: Path) -> None:
    path = make_set(tmp_path, split={"train": 0.6, "val": 0.4})
    assert run(path) == []
    os.truncate(path / "val" / "shard-000000.tar", 700)
    assert all("val" in line for line in run(path))
    with pytest.raises(ValueError, match="no shard set"):
        run(tmp_path / "raw")
