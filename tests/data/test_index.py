"""An index opens at once, says what the shards hold, and refuses what does not fit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fastface.conversion.check import check
from fastface.conversion.convert import convert
from fastface.conversion.options import Options
from fastface.data.columns import RECORD_COLUMNS
from fastface.data.index import Index
from fastface.data.index_write import write_index
from tests.data.shard_sets import face, make_set, write_folder


def test_open_gives_what_a_loop_over_the_names_finds(tmp_path: Path) -> None:
    index = Index.open(make_set(tmp_path, people=5, images=6))
    assert (len(index), index.num_samples, index.num_classes, index.image_size) == (30, 30, 5, (32, 32))
    assert index.classes == [f"person_{i:03d}" for i in range(5)]
    for i in range(30):
        assert index.classes[index.label[i]] == index.name(i).split("/")[0]
    for label in range(5):
        found = index.by_label[index.label_start[label] : index.label_start[label + 1]].tolist()
        assert found == [i for i in range(30) if index.label[i] == label]
    assert index.meta["samples_per_class"] == [6] * 5
    kinds = {name: index.columns[name].dtype.str for name in ("shard", "offset", "label", "crc32", "width", "kept")}
    assert kinds == {
        "shard": "<i4", "offset": "<i8", "label": "<i4", "crc32": "<u4", "width": "<u2", "kept": "|u1"
    }  # fmt: skip
    assert index.offset.base is not None  # a view of the file, not a copy
    assert not index.offset.flags.writeable


def test_mixed_sizes_have_no_image_size(tmp_path: Path) -> None:
    raw = write_folder(tmp_path / "raw", people=2, images=2)
    (raw / "person_000" / "wide.jpg").write_bytes(face(9, 9, 40, 24))
    convert(Options("folder", raw, tmp_path / "set", workers=1))
    index = Index.open(tmp_path / "set")
    wide = index.find(["person_000/wide.jpg"])[0]
    assert index.image_size is None
    assert (index.columns["width"][wide], index.columns["height"][wide]) == (40, 24)


def test_find_is_the_inverse_of_name(tmp_path: Path) -> None:
    index = Index.open(make_set(tmp_path))
    ids = np.random.default_rng(0).permutation(30)
    assert index.find(index.name(i) for i in ids).tolist() == ids.tolist()
    with pytest.raises(
        ValueError, match=r"2 of 3 names are not in it, the first is 'person_0/9.jpg'.*like 'person_000/"
    ):
        index.find(["person_0/9.jpg", index.name(0), "zzz"])
    with pytest.raises(IndexError):
        index.name(30)


def test_names_that_are_not_utf8_survive(tmp_path: Path) -> None:
    raw = write_folder(tmp_path / "raw", people=1, images=1)
    odd = "person_\udcff"  # the byte 0xff, as os.fsdecode gives it
    try:
        (raw / odd).mkdir()
    except OSError:
        pytest.skip("this file system refuses names that are not UTF-8")
    (raw / odd / "naïve \udcfe.jpg").write_bytes(face(1, 1))
    convert(Options("folder", raw, tmp_path / "set", workers=1))
    index = Index.open(tmp_path / "set")
    assert index.classes == ["person_000", odd]
    record = index.find([f"{odd}/naïve \udcfe.jpg"])[0]
    assert index.name(record) == f"{odd}/naïve \udcfe.jpg"
    (tmp_path / "set" / "meta.json").read_bytes().decode("ascii")


def edit_meta(path: Path, **changes: object) -> None:
    meta = json.loads((path / "meta.json").read_text())
    (path / "meta.json").write_text(json.dumps({**meta, **changes}))


def cut_column(path: Path) -> None:
    file = path / "index" / "offset.npy"
    file.write_bytes(file.read_bytes()[:-8])


def other_type(path: Path) -> None:
    np.save(path / "index" / "length.npy", np.zeros(30, np.float64))


def wrong_label(path: Path) -> None:
    labels = np.load(path / "index" / "label.npy")
    labels[3] = 5
    np.save(path / "index" / "label.npy", labels)


def pickled_column(path: Path) -> None:
    np.save(path / "index" / "crc32.npy", np.array([{}] * 30, object), allow_pickle=True)


def wrong_start(path: Path) -> None:
    starts = np.load(path / "index" / "label_start.npy")
    starts[-1] = 29
    np.save(path / "index" / "label_start.npy", starts)


def cut_meta(path: Path) -> None:
    (path / "meta.json").write_text((path / "meta.json").read_text()[:900])


def wrong_name_start(path: Path) -> None:
    starts = np.load(path / "index" / "names_start.npy")
    starts[0] = 1
    np.save(path / "index" / "names_start.npy", starts)


def miscounted_shard(path: Path) -> None:
    shards = json.loads((path / "meta.json").read_text())["shards"]
    shards[1]["samples"] -= 1
    edit_meta(path, shards=shards)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "column cut": (cut_column, r"index/offset.npy cannot be opened|index/offset.npy is"),
    "column missing": (lambda path: (path / "index/label.npy").unlink(), r"index/label.npy cannot be opened"),
    "column of another type": (other_type, r"index/length.npy is <f8 \[30\]"),
    "column with pickles": (pickled_column, r"index/crc32.npy cannot be opened"),
    "label out of range": (wrong_label, r"labels run from 0 to 5, there are 5 classes"),
    "labels not counted": (wrong_start, r"label_start.npy runs from 0 to 29, not from 0 to 30"),
    "names not counted": (wrong_name_start, r"names_start.npy runs from 1 to \d+, not from 0 to"),
    "shard miscounted": (miscounted_shard, r"meta.json counts 30 images and 29 in its shards"),
    "shard cut": (
        lambda path: (path / "shard-000001.tar").write_bytes(b"x"),
        r"shard-000001.tar has 1 bytes, exp",
    ),
    "shard missing": (lambda path: (path / "shard-000003.tar").unlink(), r"shard-000003.tar is missing"),
    "meta cut": (cut_meta, r"meta.json cannot be read"),
    "class names lost": (lambda path: edit_meta(path, classes=["a"]), r"counts 5 classes and names 1"),
    "class names nowhere": (
        lambda path: edit_meta(path, classes=None),
        r"names no classes and lists no column 'class_names'",
    ),
    "meta incomplete": (lambda path: edit_meta(path, columns={}), r"lists no column 'shard'"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_named_with_the_tool_that_tells_more(tmp_path: Path, what: str) -> None:
    path = make_set(tmp_path)
    harm, message = DAMAGE[what]
    harm(path)
    with pytest.raises(ValueError, match=message) as caught:
        Index.open(path)
    assert "tools/check_shards.py" in str(caught.value)


def test_other_formats_and_folders_are_told_apart(tmp_path: Path) -> None:
    path = make_set(tmp_path)
    edit_meta(path, format=2, fastface="9.9")
    with pytest.raises(ValueError, match=r"format 2, this fastface reads format 1: .* \(9\.9\)"):
        Index.open(path)
    (path / "meta.json").write_text('{"name": "something else"}')
    with pytest.raises(ValueError, match="has no format number"):
        Index.open(path)
    with pytest.raises(ValueError, match=r"raw has no meta.json: it is no shard set; make one with"):
        Index.open(tmp_path / "raw")
    with pytest.raises(ValueError, match="does not exist"):
        Index.open(tmp_path / "nothing")
    (tmp_path / "half.partial").mkdir()
    with pytest.raises(ValueError, match=r"half is not complete: run make_shards.py again"):
        Index.open(tmp_path / "half")


def test_a_folder_of_splits_names_them(tmp_path: Path) -> None:
    path = make_set(tmp_path, split={"train": 0.6, "val": 0.4})
    with pytest.raises(ValueError, match=r"holds the splits train, val: open one of them, such as .*/train"):
        Index.open(path)


@pytest.fixture
def many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A set that keeps its class names in columns, as sets of very many identities do."""
    monkeypatch.setattr("fastface.data.index_write.MANY_CLASSES", 4)
    raw = write_folder(tmp_path / "raw", people=5, images=2)
    for old, new in [("person_001", "naïve"), ("person_003", "\U0001f642"), ("person_004", "p\udcff")]:
        try:
            (raw / old).rename(raw / new)
        except OSError:
            pytest.skip("this file system refuses names that are not UTF-8")
    convert(Options("folder", raw, tmp_path / "set", workers=1))
    return tmp_path / "set"


def test_many_classes_are_named_in_columns(many: Path) -> None:
    meta = json.loads((many / "meta.json").read_text())
    assert (meta["format"], meta["classes"], meta["samples_per_class"]) == (1, None, None)
    index = Index.open(many)
    assert list(index.classes) == sorted(["naïve", "person_000", "person_002", "p\udcff", "\U0001f642"])
    assert index.classes[1:3] == list(index.classes)[1:3]
    assert [index.classes[label] for label in index.label] == [index.name(i).split("/")[0] for i in range(10)]
    assert not {"class_names", "class_names_start", "names"} & set(index.columns)
    for beyond in (-1, 5):
        with pytest.raises(IndexError):
            index.classes[beyond]
    assert check(many, decode=True, workers=1) == []


def test_the_same_set_with_classes_in_meta_has_another_id_and_the_same_rows(many: Path, tmp_path: Path) -> None:
    columns = {file.stem: np.load(file) for file in (many / "index").glob("*.npy") if "class" not in file.stem}
    shards = json.loads((many / "meta.json").read_text())["shards"]
    names = list(Index.open(many).classes)
    for shard in shards:
        shutil.copy(many / shard["name"], tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastface.data.index_write.MANY_CLASSES", 5)
        write_index(tmp_path, columns, names, shards, {})
    index = Index.open(tmp_path)
    assert index.classes == names
    assert index.dataset_id != Index.open(many).dataset_id
    assert index.by_label.tolist() == Index.open(many).by_label.tolist()


CLASS_DAMAGE: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "too few": (lambda start: start[:-1], r"class_names_start.npy is <i8 \[5\]|class_names_start.npy cannot be opened"),
    "beyond the end": (lambda start: start + 1, r"class_names_start.npy runs from 1 to \d+, not from 0"),
}


@pytest.mark.parametrize("what", CLASS_DAMAGE)
def test_damaged_class_columns_are_named(many: Path, what: str) -> None:
    harm, message = CLASS_DAMAGE[what]
    file = many / "index" / "class_names_start.npy"
    np.save(file, harm(np.load(file)))
    with pytest.raises(ValueError, match=message):
        Index.open(many)


def test_a_label_out_of_range_is_found_wherever_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_set(tmp_path)
    monkeypatch.setattr("fastface.data.columns.READ_AT_ONCE", 7)  # 30 labels in parts of 7, 7, 7, 7 and 2
    Index.open(path)
    good = np.load(path / "index" / "label.npy")
    for place in (0, 6, 7, 28, 29):
        for wrong in (-1, 5):
            labels = good.copy()
            labels[place] = wrong
            np.save(path / "index" / "label.npy", labels)
            low, high = labels.min(), labels.max()
            with pytest.raises(ValueError, match=f"labels run from {low} to {high}, there are 5 classes"):
                Index.open(path)


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="counts mapped pages, as Linux tells them")
def test_opening_leaves_no_column_in_memory(tmp_path: Path) -> None:
    path = make_set(tmp_path)
    count = 1 << 20  # one part of labels; the columns of such a set take 40 MB
    columns = {name: np.zeros(count, kind) for name, kind in RECORD_COLUMNS.items()}
    columns["width"] += 32
    columns["height"] += 32
    row, ordered = np.arange(count, dtype="<i4"), np.arange(count + 1, dtype="<i8")
    columns |= {"by_label": row, "label_start": np.array([0, count]), "by_name": row}
    columns |= {"names": np.full(count, 97, np.uint8), "names_start": ordered}
    shards = json.loads((path / "meta.json").read_text())["shards"]
    shards[0]["samples"] += count - 30
    write_index(path, columns, ["one"], shards, {})
    index = Index.open(path)
    assert len(index) == count
    assert resident(path / "index") < 2e6, "only the ends of some columns were looked at"
    index.label.max()
    assert resident(path / "index") > 4e6, "or else nothing was measured"


def resident(folder: Path) -> int:
    """Return the bytes of files in `folder` that are mapped and in this process's memory."""
    total, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ")[0]:
            ours = str(folder) in line
        elif ours and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total
