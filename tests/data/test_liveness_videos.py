"""Liveness datasets of videos: each line of what is known of a frame, and its box, is what their makers say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastface.conversion.check import check
from fastface.conversion.convert import convert
from fastface.conversion.options import Options
from fastface.data.images import ImageSpec, load_rgb
from fastface.data.index import Index
from fastface.data.shards import ShardReader
from fastface.data.sources.kinds import open_source
from fastface.data.sources.liveness_boxes import EYE_BOX

av = pytest.importorskip("av", reason="needs PyAV: pip install av")

from tests.data.test_liveness_layouts import lines, rows_of  # noqa: E402
from tests.data.test_video_source import make_video  # noqa: E402


def videos(root: Path, *names: str, frames: int = 3) -> Path:
    for name in names:
        make_video(root / name, "mpeg4", frames=frames)
    return root


def test_casia_fasd(tmp_path: Path) -> None:
    """Two of 25 frames a second; boxes lie below face-locations, as bob packs them; frame 1 has none."""
    shown = [*range(1, 9), *(f"HR_{k}" for k in range(1, 5))]
    videos(tmp_path, *(f"train_release/20/{k}.avi" for k in shown), "test_release/1/1.avi", "test_release/1/8.avi")
    lines(tmp_path / "face-locations/train_release/20/1.face", "0 10 12 20 30", "1 0 0 0 0", "2 11 12 20 30")
    sources = open_source("liveness", tmp_path)
    first = {
        name: rest
        for name, *rest, at in rows_of(sources, "attack", "device", "subject", "source", "time_ms")["train"]
        if at == 0
    }
    attacks = {"1": "none", "2": "none", "3": "warp", "4": "warp", "5": "cut", "6": "cut", "7": "replay", "8": "replay"}
    attacks |= {"HR_1": "none", "HR_2": "warp", "HR_3": "cut", "HR_4": "replay"}
    assert first == {
        f"train_release/20/{name}.avi@000000000ms": [
            "live" if attack == "none" else "spoof",
            attack,
            "high-quality" if "HR" in name else ["low-quality", "normal-quality"][int(name) % 2],
            "train-20",
            "casia-fasd",
        ]
        for name, attack in attacks.items()
    }
    assert rows_of(sources, "subject", "clip", "time_ms")["test"] == [
        (f"test_release/1/{k}.avi@{ms:09d}ms", label, "test-1", clip, ms)
        for clip, (k, label) in enumerate([(1, "live"), (8, "spoof")])
        for ms in (0, 40, 80)
    ]
    source = sources["train"]
    assert source.boxes is not None
    assert source.faces is not None
    assert source.boxes[[0, 2]].tolist() == [[10, 12, 30, 42], [11, 12, 31, 42]]
    assert np.isnan(np.delete(source.boxes, [0, 2], axis=0)).all()
    assert source.faces.start.tolist() == [0, 1, 1] + [2] * (len(source) - 2)
    assert sources["test"].boxes is None


REPLAY = {  # name: label, attack, medium, support, illumination, session, subject
    "train/attack/fixed/attack_highdef_client001_session01_highdef_photo_adverse.mov": (
        "spoof", "replay", "highdef-photo", "fixed", "adverse", "1", "001",
    ),
    "train/attack/hand/attack_mobile_client001_session01_mobile_video_controlled.mov": (
        "spoof", "replay", "mobile-video", "hand", "controlled", "1", "001",
    ),
    "train/attack/hand/attack_print_client002_session01_highdef_photo_adverse.mov": (
        "spoof", "print", "print-photo", "hand", "adverse", "1", "002",
    ),
    "train/real/client001_session02_webcam_authenticate_adverse_1.mov": (
        "live", "none", "none", "none", "adverse", "2", "001",
    ),
}  # fmt: skip


def test_replay_attack(tmp_path: Path) -> None:
    others = {split: [name.replace("train", split).replace("client0", f"client{k}") for name in REPLAY]
              for k, split in enumerate(("devel", "test"), 1)}  # fmt: skip
    names = [*others["devel"], *others["test"]]
    videos(tmp_path, *REPLAY, *names, "enroll/train/client001_session01_webcam_enroll_adverse_1.mov", frames=1)
    lines(tmp_path / "face-locations" / list(REPLAY)[3].replace(".mov", ".face"), "0 5 6 10 20")
    sources = open_source("liveness", tmp_path)
    assert list(sources) == ["train", "val", "test"]
    columns = ("attack", "medium", "support", "illumination", "session", "subject")
    assert rows_of(sources, *columns)["train"] == [(f"{name}@000000000ms", *rest) for name, rest in REPLAY.items()]
    assert [row[0] for row in rows_of(sources)["val"]] == [f"{name}@000000000ms" for name in names[:4]]
    boxes = sources["train"].boxes
    assert boxes is not None
    assert boxes[3].tolist() == [5, 6, 15, 26]
    assert [reason for _, reason in sources["train"].skipped] == ["outside-the-layout"]


OULU = {
    "Train_files/1_1_01_1.avi": ("live", "none", "none", "phone-1", "1", "01"),
    "Train_files/2_3_01_2.avi": ("spoof", "print", "print-1", "phone-2", "3", "01"),
    "Train_files/6_1_02_3.avi": ("spoof", "print", "print-2", "phone-6", "1", "02"),
    "Train_files/6_1_02_4.avi": ("spoof", "replay", "display-1", "phone-6", "1", "02"),
    "Train_files/6_2_02_5.avi": ("spoof", "replay", "display-2", "phone-6", "2", "02"),
}
OULU_REST = ["Dev_files/1_1_21_1.avi", "Dev_files/1_1_21_2.avi", "Test_files/1_3_36_1.avi", "Test_files/1_3_36_5.avi"]


@pytest.fixture(scope="module")
def oulu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("oulu")
    videos(root, *OULU, *OULU_REST, frames=2)
    lines(root / "Train_files/1_1_01_1.txt", "0,24,20,34,20", "1,0,0,0,0")
    lines(root / "Protocols/Protocol_1/Train.txt", "+1,1_1_01_1", "-1,2_3_01_2", "-2,6_2_02_5", "+1,5_1_09_1")
    lines(root / "Protocols/Protocol_1/Dev.txt", "+1,1_1_21_1", "-1,1_1_21_2")
    lines(root / "Protocols/Protocol_1/Test.txt", "+1,1_3_36_1", "-2,1_3_36_5")
    return root


def test_oulu_npu(oulu: Path) -> None:
    sources = open_source("liveness", oulu)
    rows = rows_of(sources, "attack", "medium", "device", "session", "subject")
    assert rows["train"][::2] == [(f"{name}@000000000ms", *rest) for name, rest in OULU.items()]
    assert [row[0] for row in rows["val"] + rows["test"]][::2] == [f"{name}@000000000ms" for name in OULU_REST]
    boxes = sources["train"].boxes
    assert boxes is not None
    wanted = [29 + 10 * EYE_BOX[0], 20 + 10 * EYE_BOX[1], 29 + 10 * EYE_BOX[2], 20 + 10 * EYE_BOX[3]]
    np.testing.assert_allclose(boxes[0], wanted, rtol=1e-6)
    assert np.isnan(boxes[1:]).all()


def test_a_protocol_of_oulu_npu_chooses_its_videos(oulu: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sources = open_source("liveness", oulu, protocol="1")
    assert [row[0].split("@")[0] for row in rows_of(sources)["train"]][::2] == [
        "Train_files/1_1_01_1.avi",
        "Train_files/2_3_01_2.avi",
        "Train_files/6_2_02_5.avi",
    ]
    assert "Train.txt: 1 of the 4 that it lists are not there" in capsys.readouterr().err
    assert ("Train_files/6_1_02_3.avi", "outside-the-protocol") in sources["train"].skipped
    with pytest.raises(ValueError, match=r"'5' is none of 1, 2, 3.1"):
        open_source("liveness", oulu, protocol="5")
    with pytest.raises(ValueError, match="no folder Protocol_2"):
        open_source("liveness", oulu, protocol="2")
    with pytest.raises(ValueError, match=r"there is no .*Train_3.txt, perhaps you meant 'Train.txt'"):
        open_source("liveness", oulu, protocol="1.3")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-1,1_1_21_1", r"Dev.txt line 2: label -1 contradicts the name 1_1_21_1"),
        ("-2,1_1_21_2", r"Dev.txt line 2: label -2 contradicts the name 1_1_21_2"),
        ("1_1_21_2", r"Dev.txt line 2: expected \+1,1_1_01_1, found '1_1_21_2'"),
        ("+1,1_1_01_1", r"Dev.txt line 2: 1_1_01_1 lies in another split"),
    ],
)
def test_protocols_that_contradict_the_videos_are_refused(oulu: Path, line: str, message: str) -> None:
    file = oulu / "Protocols/Protocol_1/Dev.txt"
    before = file.read_text()
    try:
        lines(file, "+1,1_1_21_1", line)
        with pytest.raises(ValueError, match=message):
            open_source("liveness", oulu, protocol="1")
    finally:
        file.write_text(before)


SIW = {
    "Train/live/003/003-1-1-1-1.mov": ("live", "none", "none", "canon-eos-t6", "1", "003"),
    "Train/spoof/003/003-2-2-1-2.mov": ("spoof", "print", "print-1", "logitech-c920", "2", "003"),
    "Train/spoof/003/003-2-3-4-1.mov": ("spoof", "replay", "replay-4", "logitech-c920", "1", "003"),
}


def test_siw(tmp_path: Path) -> None:
    videos(tmp_path, *SIW, "Test/live/165/165-1-1-1-1.mov", "Test/spoof/165/165-1-2-1-1.mov", frames=2)
    lines(tmp_path / "Train/live/003/003-1-1-1-1.face", "0 0 0 0", "4 5 24 35")
    sources = open_source("liveness", tmp_path)
    rows = rows_of(sources, "attack", "medium", "device", "session", "subject")
    assert list(rows) == ["train", "test"]
    assert rows["train"][::2] == [(f"{name}@000000000ms", *rest) for name, rest in SIW.items()]
    boxes = sources["train"].boxes
    assert boxes is not None
    assert boxes[1].tolist() == [4, 5, 24, 35]
    assert np.isnan(boxes[[0, 2, 3, 4, 5]]).all()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["Train/live/003/003-1-2-1-1.mov"], "the folder says class live, the file name spoof"),
        (["Train/live/004/003-1-1-1-1.mov"], "the folder says subject 004, the file name 003"),
        (
            [f"{split}/{kind}/003/003-1-{1 + (kind == 'spoof')}-1-1.mov" for split in ("Train", "Test")
             for kind in ("live", "spoof")],
            "subject 003 is in (train|test) .* siw's splits share nobody",
        ),
    ],
)  # fmt: skip
def test_names_that_contradict_their_folder_are_refused(tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        lines(tmp_path / name)
    with pytest.raises(ValueError, match=message):
        open_source("liveness", tmp_path)


def test_a_damaged_face_file_is_refused_with_its_line(tmp_path: Path) -> None:
    names = [f"train_release/1/{k}.avi" for k in (1, 3)]
    videos(tmp_path, *names, frames=1)
    for text, said in (
        ("0 1 2 3 4 5", "'0 1 2 3 4 5'"),
        ("0 1 2 3 x", "'0 1 2 3 x'"),
        ("0 1 2 3 nan", "'0 1 2 3 nan'"),
    ):
        lines(tmp_path / "train_release/1/1.face", "0 1 1 5 5", text)
        with pytest.raises(ValueError, match=rf"1.face line 2: expected FRAME X Y WIDTH HEIGHT, found {said}"):
            open_source("liveness", tmp_path)


def test_boxes_follow_the_frames_that_are_taken(tmp_path: Path) -> None:
    """Of 25 frames a second every fifth is taken: its box is that of its own number."""
    videos(tmp_path, "train_release/1/1.avi", "train_release/1/3.avi", frames=11)
    lines(tmp_path / "train_release/1/1.face", *(f"{k} {k} 0 10 10" for k in range(11)))
    source = open_source("liveness", tmp_path, fps=5)["train"]
    assert source.columns["time_ms"].tolist() == [0, 200, 400] * 2
    assert source.boxes is not None
    assert source.boxes[:3, 0].tolist() == [0, 5, 10]


def test_videos_in_a_tree_become_lossless_frames_of_clips(tmp_path: Path) -> None:
    videos(tmp_path / "in", "live/client003/a.mov", "spoof/client003/print_b.mov", frames=5)
    spec = ImageSpec(lossless=True)
    convert(Options("liveness", tmp_path / "in", tmp_path / "set", spec, fps=12.5, workers=1, shuffle=False))
    index = Index.open(tmp_path / "set")
    reader, source = ShardReader(index), open_source("liveness", tmp_path / "in", fps=12.5)[""]
    for i in range(6):
        np.testing.assert_array_equal(load_rgb(bytes(reader.view(i))), load_rgb(source.read(i)))
    assert index.columns["clip"].tolist() == [0, 0, 0, 1, 1, 1]
    assert index.columns["time_ms"].tolist() == [0, 80, 160] * 2
    assert [index.meta["values"]["attack"][k] for k in index.columns["attack"]] == ["none"] * 3 + ["print"] * 3
    assert check(tmp_path / "set", decode=True, workers=1, show=str) == []
