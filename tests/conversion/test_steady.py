"""--steady: every frame of a clip is cut at one place, the median of where its faces are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastface.conversion.faces import NOBODY, Face
from fastface.conversion.steady import ClipFaces
from fastface.data.context import Context, context_box
from fastface.data.images import load_rgb
from fastface.data.index import Index
from fastface.data.sources import Source
from fastface.data.sources.kinds import open_source
from tests.conversion.test_context_crops import read
from tests.data.test_liveness_layouts import lines
from tools.make_shards import main


def test_a_clip_has_the_median_of_its_faces() -> None:
    source = Source(["x"], np.zeros(6, np.int64))
    source.columns = {"clip": np.array([4, 4, 4, 4, 2, 2], np.int32)}
    rng = np.random.default_rng(0)
    faces = {k: Face(rng.uniform(0, 9, 4), rng.uniform(0, 9, (5, 2)), float(k)) for k in (0, 1, 3)}
    asked: list[int] = []

    def find(record: int) -> Face | None:
        asked.append(record)
        return faces.get(record)

    clips = ClipFaces()
    for record in (1, 0, 2):
        face = clips.of(source, record, find)
        assert face is not None
        for corner in range(4):
            assert face.box[corner] == sorted(each.box[corner] for each in faces.values())[1]
        for point in range(10):
            values = sorted(each.landmarks.ravel()[point] for each in faces.values())
            assert face.landmarks.ravel()[point] == values[1]
        assert face.score == 1
    assert asked == [0, 1, 2, 3], "a clip is looked through once"
    assert clips.of(source, 5, find) is None
    assert clips.of(source, 0, lambda record: NOBODY if record else faces[0]) is not None


def test_frames_of_a_clip_show_one_part_for_any_division_into_shards(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="needs PyAV: pip install av")
    assert av
    from tests.data.test_video_source import make_video

    for k in (1, 3):
        make_video(tmp_path / f"in/train_release/1/{k}.avi", "mpeg4", frames=7)
    lines(tmp_path / "in/train_release/1/1.face", *(f"{k} {10 + 2 * k} 12 20 20" for k in (0, 1, 2, 5, 6)))
    lines(tmp_path / "in/train_release/1/3.face", "0 20 12 20 20")
    command = ["liveness", str(tmp_path / "in"), "--crop", "box", "--context", "1", "--workers", "1", "--steady"]
    assert main([*command, "--out", str(tmp_path / "set")]) == 0
    assert main([*command, "--out", str(tmp_path / "small"), "--shard-size", "3"]) == 0
    pictures, again = (read(tmp_path / name / "train") for name in ("set", "small"))
    assert len(pictures) == 14, "frames without a box of their own have the clip's"
    source = open_source("liveness", tmp_path / "in")["train"]
    for i in range(14):
        start = 14.0 if "1/1.avi" in source.name(i) else 20.0  # the median of 10, 12, 14, 20 and 22
        left, top, right, bottom = context_box((64, 48), np.array([start, 12, start + 20, 32]), Context(1.0)).tolist()
        wanted = load_rgb(source.read(i))[top:bottom, left:right]
        np.testing.assert_array_equal(pictures[source.name(i)], wanted)
        np.testing.assert_array_equal(again[source.name(i)], wanted)
    assert Index.open(tmp_path / "set" / "train").meta["options"]["align"]["steady"] is True


def test_steady_is_for_clips_that_are_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines(tmp_path / "in/live/1.png"), lines(tmp_path / "in/spoof/1.png")
    command = ["liveness", str(tmp_path / "in"), "--out", str(tmp_path / "set"), "--steady"]
    with pytest.raises(SystemExit):
        main(command)
    assert "--steady is for faces that are cut out" in capsys.readouterr().err
    assert main([*command, "--crop", "box", "--context", "2.7"]) == 2
    assert "--steady is for the frames of clips, and" in capsys.readouterr().err
