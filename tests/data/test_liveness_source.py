"""Liveness folders: labels, splits, attacks, sources and subjects come from the path, or are said to be unknown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastface.conversion.check import check
from fastface.conversion.convert import convert
from fastface.conversion.options import Options
from fastface.conversion.order import shared_identities
from fastface.data.images import load_rgb
from fastface.data.index import Index
from fastface.data.shards import ShardReader
from fastface.data.sources import Source
from fastface.data.sources.kinds import KINDS, open_source
from tests.data.badfiles import encode, photo
from tests.data.test_sources import fill, make_tar, names_of


def told(source: Source, column: str) -> dict[str, str | None]:
    numbers = source.columns[column].tolist()
    names = [None if number < 0 else source.values[column][number] for number in numbers]
    return dict(zip(names_of(source), names, strict=True))


def test_splits_classes_and_attacks_are_read_from_the_path(tmp_path: Path) -> None:
    names = [
        "train/real/client001_a.jpg", "train/attack/fixed/attack_print_client001_x.jpg", "train/attack/mask/7.jpg",
        "devel/Live/0003/1.jpg", "devel/Fake/0003/replay/1.jpg", "devel/fake/9.jpg", "test/genuine/1.jpg",
        "test/spoof/3D_mask/s.jpg", "test/other/1.jpg", "readme.txt",
    ]  # fmt: skip
    fill(tmp_path, names)
    sources = open_source("liveness", tmp_path)
    assert list(sources) == ["train", "val", "test"]
    train, val, test = sources.values()
    assert train.classes == val.classes == test.classes == ["live", "spoof"]
    assert {name: int(label) for name, label in zip(names_of(train), train.labels, strict=True)} == {
        "train/real/client001_a.jpg": 0,
        "train/attack/fixed/attack_print_client001_x.jpg": 1,
        "train/attack/mask/7.jpg": 1,
    }
    assert told(train, "attack") == {names[0]: "none", names[1]: "print", names[2]: "mask"}
    assert told(train, "subject") == {names[0]: "001", names[1]: "001", names[2]: None}
    assert told(val, "attack") == {names[3]: "none", names[4]: "replay", names[5]: "unknown"}
    assert told(val, "subject") == {names[3]: "0003", names[4]: "0003", names[5]: None}
    assert told(test, "attack") == {names[6]: "none", names[7]: "mask"}
    assert "source" not in train.columns
    skipped = [item for source in sources.values() for item in source.skipped]
    assert skipped == [("readme.txt", "not-an-image-extension"), ("test/other/1.jpg", "outside-a-class-folder")]
    assert names_of(open_source("liveness", make_tar(tmp_path.parent / "live.tar", tmp_path))["train"]) == names_of(
        train
    )


def test_sources_are_the_top_folders_and_keep_their_people_apart(tmp_path: Path) -> None:
    """CelebA-Spoof has SPLIT/SUBJECT/live/IMAGE, NUAA-like sets live/SUBJECT/IMAGE."""
    names = [
        "A/train/10/live/1.png", "A/train/10/spoof/1.png", "B/train/real/0010/1.png", "B/train/fake/0010/1.png",
        "B/test/real/0011/1.png", "B/test/fake/0012/screen/1.png",
    ]  # fmt: skip
    fill(tmp_path, names)
    sources = open_source("liveness", tmp_path)
    train = sources["train"]
    assert told(train, "source") == dict(zip(sorted(names[:4]), ["A", "A", "B", "B"], strict=True))
    assert set(told(train, "subject").values()) == {"A/10", "B/0010"}
    assert told(sources["test"], "attack") == {names[4]: "none", names[5]: "replay"}
    assert train.values["source"] == sources["test"].values["source"] == ["A", "B"]
    assert shared_identities(sources) == {}
    fill(tmp_path, ["B/test/real/0010/9.png"])
    assert shared_identities(open_source("liveness", tmp_path)) == {("train", "test"): ["B/0010"]}


def test_without_splits_people_stay_whole_and_unknown_people_cannot_be_split(tmp_path: Path) -> None:
    fill(
        tmp_path / "a",
        [f"{kind}/{person:04d}/{k}.jpg" for kind in ("live", "spoof") for person in range(10) for k in "ab"],
    )
    convert(Options("liveness", tmp_path / "a", tmp_path / "set", split={"train": 0.7, "val": 0.3}, workers=1))
    people = []
    for name in ("train", "val"):
        index = Index.open(tmp_path / "set" / name)
        assert index.classes == ["live", "spoof"]
        people.append({index.meta["values"]["subject"][k] for k in index.columns["subject"]})
    assert (len(people[0]), len(people[1])) == (7, 3)
    assert not people[0] & people[1]
    fill(tmp_path / "b", ["live/x.jpg", "live/y.jpg", "spoof/x.jpg", "spoof/y.jpg"])
    with pytest.raises(ValueError, match=r"do not tell whose face .*--split-by image"):
        convert(Options("liveness", tmp_path / "b", tmp_path / "no", split={"train": 0.5, "val": 0.5}, workers=1))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train/live/1.jpg"], "train: 1 live and 0 spoof images; expected both"),
        (["train/live/1.jpg", "train/spoof/1.jpg", "val/spoof/1.jpg"], "val: 0 live and 1 spoof"),
        (["train/live/1.jpg", "train/spoof/1.jpg", "live/1.jpg", "spoof/1.jpg"], "live/1.jpg is in none of them"),
        (["anna/1.jpg"], "0 live and 0 spoof images.*1 outside-a-class-folder"),
    ],
)
def test_trees_that_cannot_train_are_refused(tmp_path: Path, names: list[str], message: str) -> None:
    fill(tmp_path, names)
    with pytest.raises(ValueError, match=message):
        open_source("liveness", tmp_path)


def test_the_command_keeps_every_pixel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tools.make_shards import main

    assert KINDS["liveness"].lossless
    for k, kind in enumerate(("live", "spoof")):
        (tmp_path / "in" / kind).mkdir(parents=True)
        (tmp_path / "in" / kind / "a.jpg").write_bytes(encode(photo(40 + k, 40), quality=80))
        (tmp_path / "in" / kind / "b.png").write_bytes(encode(photo(50 + k, 40), "PNG"))

    def make(name: str, *more: str) -> int:
        return main(["liveness", str(tmp_path / "in"), "--out", str(tmp_path / name), "--workers", "1", *more])

    assert make("set") == 0
    index = Index.open(tmp_path / "set")
    reader = ShardReader(index)
    for i in range(4):
        raw = (tmp_path / "in" / index.name(i)).read_bytes()
        np.testing.assert_array_equal(load_rgb(bytes(reader.view(i))), load_rgb(raw))
        assert bytes(reader.view(i)[:4]) == b"\x89PNG"
    assert check(tmp_path / "set", decode=True, workers=1, show=str) == []
    assert (
        main(["liveness", str(tmp_path / "in"), "--out", str(tmp_path / "jpg"), "--no-lossless", "--workers", "1"]) == 0
    )
    assert bytes(ShardReader(Index.open(tmp_path / "jpg")).view(0)[:2]) == b"\xff\xd8"
    assert (
        main(["liveness", str(tmp_path / "in"), "--out", str(tmp_path / "q"), "--quality", "80", "--workers", "1"]) == 0
    )
    capsys.readouterr()


def test_with_a_rate_every_folder_of_images_is_a_clip_with_times(tmp_path: Path) -> None:
    names = [
        "A/live/id-3/clip-0/0000.png", "A/live/id-3/clip-0/0001.png", "A/live/id-3/clip-1/0000.png",
        "A/spoof/planar/id-3/clip-2/0000.png", "A/spoof/planar/id-3/clip-2/0001.png",
        "A/spoof/planar/id-3/clip-2/0002.png", "A/spoof/still/id-4/clip-0/0000.png",
    ]  # fmt: skip
    fill(tmp_path, names)
    source = open_source("liveness", tmp_path, fps=12.0)[""]
    assert names_of(source) == names
    assert source.columns["clip"].tolist() == [0, 0, 1, 2, 2, 2, 3]
    assert source.columns["time_ms"].tolist() == [0, 83, 0, 0, 83, 167, 0]
    assert source.columns["time_ms"].dtype == np.int64
    assert told(source, "attack") == dict(zip(names, ["none"] * 3 + ["planar"] * 3 + ["still"], strict=True))
    assert set(told(source, "subject").values()) == {"A/3", "A/4"}
    assert "clip" not in open_source("liveness", tmp_path)[""].columns
