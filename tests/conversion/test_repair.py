"""Of a damaged set all that is good is saved, with its label and name, and all that is lost is listed."""

from __future__ import annotations

import csv
import json
import os
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fastface.conversion.check import check
from fastface.conversion.convert import convert
from fastface.conversion.options import Options
from fastface.conversion.repair import repair
from fastface.data.images import ImageSpec
from fastface.data.index import Index
from fastface.data.shards import ShardReader
from tests.conversion.test_check import DAMAGE, SHARD, flip, header_of, pristine, shards  # noqa: F401
from tests.data.shard_sets import make_set, raw_bytes
from tests.data.test_annotated_sources import WIDER, wider, write  # noqa: F401

RECORDS = 30
# How many of the 8 records of the harmed shard are gone, where the index is whole; others lose nothing.
GONE = {
    "cut between members": 4, "cut in a header": 4, "cut in data": 4, "bit flipped in an image": 1, "emptied": 8,
    "deleted": 8, "all zeros": 8, "gzip-compressed": 8, "rewritten by tar as pax": 8, "sample repeated": 5,
    "rewritten by tar as GNU": 0, "long names": 8, "shards swapped": 8,
}  # fmt: skip


def contents(path: Path) -> dict[str, tuple[bytes, str]]:
    """Read name -> (bytes, class) of a set."""
    index = Index.open(path)
    views = ShardReader(index, check_crc=True).views(np.arange(len(index)))
    return {index.name(i): (bytes(view), index.classes[index.label[i]]) for i, view in enumerate(views)}


@pytest.mark.parametrize("what", DAMAGE)
def test_every_damage_loses_no_more_than_it_hit(shards: Path, tmp_path: Path, what: str) -> None:  # noqa: F811
    before = contents(shards)
    DAMAGE[what][0](shards)
    report, lost = repair(shards, tmp_path / "new", workers=1)
    after = contents(tmp_path / "new")
    assert check(tmp_path / "new", decode=True, workers=1, show=str) == []
    assert after.items() <= before.items()
    if what == "cut in padding":
        assert 8 - len(lost) >= 1
    else:
        swapped = 8 if what == "shards swapped" else 0  # the shard that was moved away is missing as well
        assert len(lost) == GONE.get(what, 0) + swapped, lost
    assert {line.name for line in lost} == before.keys() - after.keys()
    for line in lost:
        assert line.shard in (SHARD, "shard-000002.tar")
        assert before[line.name][1] == line.identity
        assert line.reason
    with open(tmp_path / "new" / "lost.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["set", "shard", "member", "offset", "identity", "name", "reason"]
    assert len(rows) == len(lost) + 1
    assert str(len(after)) in str(report)


def break_column(name: str) -> Callable[[Path], object]:
    def harm(path: Path) -> None:
        file = path / "index" / f"{name}.npy"
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)

    return harm


def remove(name: str) -> Callable[[Path], object]:
    return lambda path: (path / name).unlink()


@pytest.mark.parametrize(
    "name", ["shard", "offset", "length", "crc32", "label", "names", "names_start", "by_label", "kept"]
)
@pytest.mark.parametrize("how", [break_column, lambda name: remove(f"index/{name}.npy")], ids=["flipped", "missing"])
def test_a_damaged_column_costs_no_image(shards: Path, tmp_path: Path, name: str, how: Callable) -> None:  # noqa: F811
    before = contents(shards)
    how(name)(shards)
    _, lost = repair(shards, tmp_path / "new", workers=1)
    assert check(tmp_path / "new", decode=True, workers=1, show=str) == []
    after = contents(tmp_path / "new")
    assert f"index/{name}.npy" in {line.name for line in lost}
    if name in ("shard", "offset", "names", "names_start"):  # names cannot be told, or not whose they are
        assert sorted(after.values()) == sorted(before.values())
    else:
        assert after == before


@pytest.mark.parametrize("what", DAMAGE)
def test_tars_alone_are_searched(shards: Path, tmp_path: Path, what: str) -> None:  # noqa: F811
    before = contents(shards)
    people = Index.open(shards).classes
    DAMAGE[what][0](shards)
    (shards / "meta.json").unlink()
    _, lost = repair(shards, tmp_path / "new", workers=1)
    assert check(tmp_path / "new", decode=True, workers=1, show=str) == []
    found = contents(tmp_path / "new").values()
    after = [(data, people[int(name.removeprefix("class-"))]) for data, name in found]
    assert lost[0].name == "meta.json"
    if what in ("bit flipped in an image", "label changed"):  # only the index could tell
        assert len(after) >= RECORDS - 1
    else:
        spare = {value for value in after if value not in before.values()}
        assert not spare
    alone = {"cut in padding": 8, "rewritten by tar as pax": 0, "sample repeated": -1}
    gone = alone.get(what, GONE.get(what, 1))
    assert len(after) >= RECORDS - gone - (8 if what == "shards swapped" else 0)


def test_classes_without_a_record_vanish_and_options_stay(tmp_path: Path) -> None:
    path = make_set(tmp_path, people=10, images=3, shuffle=False, shard_size=3, spec=ImageSpec((24, 24), crop=0.5))
    (path / "shard-000004.tar").unlink()
    _, lost = repair(path, tmp_path / "new", workers=1)
    index = Index.open(tmp_path / "new")
    assert index.classes == [f"person_{k:03d}" for k in range(10) if k != 4]
    assert [line.identity for line in lost] == ["person_004"] * 3
    assert index.meta["options"] == Index.open(write_back(path)).meta["options"]
    assert index.meta["options"]["crop"] == 0.5
    assert index.meta["repaired_from"] == json.loads((path / "meta.json").read_text())["dataset_id"]


def write_back(path: Path) -> Path:
    """Make the missing shard exist in its size, so that the set opens."""
    meta = json.loads((path / "meta.json").read_text())
    (path / "shard-000004.tar").write_bytes(bytes(meta["shards"][4]["bytes"]))
    return path


def test_splits_pairs_png_and_boxes_come_along(tmp_path: Path, wider: Path) -> None:  # noqa: F811
    convert(Options("widerface", wider, tmp_path / "boxes", ImageSpec(lossless=True), workers=1, shuffle=False))
    flip_image(tmp_path / "boxes")
    repair(tmp_path / "boxes", tmp_path / "new", workers=1)
    index = Index.open(tmp_path / "new")
    assert [index.name(i) for i in range(2)] == ["images/0--Parade/a.jpg", "images/9--Press/b.jpg"]
    assert index.columns["boxes_start"].tolist() == [0, 2, 3]
    assert index.columns["boxes"].tolist() == [[10, 12, 30, 36], [50, 60, 96, 112], [0, 0, 96, 112]]
    assert index.columns["boxes_blur"].tolist() == [0, 2, 1]
    assert check(tmp_path / "new", decode=True, workers=1, show=str) == []
    path = make_set(tmp_path / "s", people=6, split={"train": 0.5, "val": 0.5})
    before = {name: contents(path / name) for name in ("train", "val")}
    (path / "val" / "shard-000000.tar").unlink()
    _, lost = repair(path, tmp_path / "again", workers=1)
    assert contents(tmp_path / "again" / "train") == before["train"]
    assert len(contents(tmp_path / "again" / "val")) + len(lost) == len(before["val"])
    assert raw_bytes(Index.open(tmp_path / "again" / "train"), tmp_path / "s" / "raw")[0][:2] == b"\xff\xd8"


def flip_image(path: Path, record: int = 1) -> None:
    index = Index.open(path)
    data = bytearray(index.shard_path(0).read_bytes())
    data[int(index.offset[record]) + 40] ^= 1
    index.shard_path(0).write_bytes(data)


def test_nothing_to_repair_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no shards \(\*\.tar\)"):
        repair(tmp_path, tmp_path / "new")
    (tmp_path / "shard-000000.tar").write_bytes(bytes(5000))
    with pytest.raises(ValueError, match="not one good record"):
        repair(tmp_path, tmp_path / "new")


def test_the_tool_repairs_and_refuses_what_it_cannot_mean(shards: Path, tmp_path: Path, capsys) -> None:  # noqa: F811
    from tools.check_shards import main

    flip(lambda path: header_of(path, 11) + 900)(shards)
    assert main([str(shards), "--repair", "--out", str(tmp_path / "new"), "--workers", "1"]) == 0
    assert "1 lines of what is lost" in capsys.readouterr().out
    assert main([str(tmp_path / "new"), "--decode", "--workers", "1"]) == 0
    assert main([str(shards), "--repair", "--out", str(tmp_path / "new")]) == 4  # never overwrites
    with pytest.raises(SystemExit):
        main([str(shards), "--repair"])
    capsys.readouterr()


def test_more_shards_than_files_may_be_open(tmp_path: Path) -> None:
    path = make_set(tmp_path, people=16, images=8, shard_size=1)
    before = contents(path)
    flip_image(path.with_name("set"), record=0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 40, hard))
    try:
        _, lost = repair(path, tmp_path / "new", workers=1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(lost) == 1
    assert len(contents(tmp_path / "new")) == len(before) - 1


def test_names_of_many_classes_are_found_in_their_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastface.data.index_write.MANY_CLASSES", 2)
    path = make_set(tmp_path)
    assert json.loads((path / "meta.json").read_text())["classes"] is None
    before = contents(path)
    flip_image(path)
    _, lost = repair(path, tmp_path / "new", workers=1)
    after = contents(tmp_path / "new")
    assert len(after) == len(before) - 1
    assert after.items() <= before.items()
    assert lost[0].identity.startswith("person_")
    break_column("class_names")(path)
    repair(path, tmp_path / "other", workers=1)
    assert Index.open(tmp_path / "other").classes[0] == "class-000000000"
