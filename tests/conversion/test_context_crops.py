"""make_shards --crop box --context: faces with their surroundings, by a layout's boxes or a detector's, remembered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastface.conversion.check import check
from fastface.conversion.faces import Alignment
from fastface.data.context import Context, context_box, cut_context
from fastface.data.images import load_rgb
from fastface.data.index import Index
from fastface.data.shards import ShardReader
from tests.data.test_liveness_layouts import celeba, lines
from tests.detection.people import photographs
from tools.make_shards import main, parse


def spoofs(root: Path) -> Path:
    """Give six images of 64 x 112 px, all but one with a box of 112 x 56 in 224 x 224: 32 x 28 px at 16, 14."""
    celeba(root)
    for image in sorted(root.rglob("*.png"))[1:]:
        lines(image.with_name(image.stem + "_BB.txt"), "56 28 112 56 0.99")
    return root


def read(path: Path) -> dict[str, np.ndarray]:
    index = Index.open(path)
    reader = ShardReader(index)
    return {index.name(i): load_rgb(bytes(reader.view(i))) for i in range(len(index))}


@pytest.mark.parametrize("stretch", [False, True])
def test_boxes_of_the_layout_are_cut_out_with_their_surroundings(tmp_path: Path, stretch: bool) -> None:
    root = spoofs(tmp_path / "in")
    more = ["--stretch"] if stretch else []
    command = ["liveness", str(root), "--crop", "box", "--context", "1.5", "--size", "40", "--workers", "1", *more]
    assert main([*command, "--out", str(tmp_path / "set")]) == 0
    context = Context(1.5, stretch)
    assert check(tmp_path / "set" / "train", decode=True, workers=1, show=str) == []
    index, pictures = Index.open(tmp_path / "set" / "train"), read(tmp_path / "set" / "train")
    assert index.meta["options"]["crop"] == str(context)
    assert Context.parse(index.meta["options"]["crop"]) == context
    assert index.meta["image_size"] == [40, 40]
    box = np.array([16.0, 14, 48, 42])
    for i in range(len(index)):
        whole = load_rgb((root / index.name(i)).read_bytes())
        wanted, part = cut_context(whole, box, context, (40, 40))
        np.testing.assert_array_equal(pictures[index.name(i)], wanted)
        scale = 40 / (part[2:] - part[:2])
        moved = (box.reshape(2, 2) - part[:2]) * scale
        np.testing.assert_allclose(index.columns["box"][i], moved.ravel(), rtol=1e-5)
    names = [name for part in ("train", "test") for name in read(tmp_path / "set" / part)]
    assert len(names) == 5  # the image without a box shows a whole scene, and would tell itself apart by that
    assert "no-face" in (tmp_path / "set" / "rejects.csv").read_text()


def test_without_a_size_the_pixels_are_kept(tmp_path: Path) -> None:
    root = spoofs(tmp_path / "in")
    command = ["liveness", str(root), "--crop", "box", "--context", "1", "--workers", "1"]
    assert main([*command, "--out", str(tmp_path / "set")]) == 0
    left, top, right, bottom = context_box((64, 112), np.array([16.0, 14, 48, 42]), Context(1.0)).tolist()
    assert (right - left, bottom - top) == (33, 33)
    for name, picture in read(tmp_path / "set" / "train").items():
        np.testing.assert_array_equal(picture, load_rgb((root / name).read_bytes())[top:bottom, left:right])
    assert main([*command, "--out", str(tmp_path / "all"), "--no-face", "whole"]) == 0
    shapes = [picture.shape for part in ("train", "test") for picture in read(tmp_path / "all" / part).values()]
    assert sorted(shapes) == [(33, 33, 3)] * 5 + [(112, 64, 3)]


def test_a_detector_finds_the_boxes_where_there_are_none(tmp_path: Path, data: Path) -> None:
    images = list(photographs(data, count=4).values())
    for k, picture in enumerate(images):
        path = tmp_path / "in" / ("live" if k % 2 else "spoof") / f"{k}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture)
    detector = f"yunet:{data}/weights/yunet/yunet_n_dynamic.onnx"
    command = ["liveness", str(tmp_path / "in"), "--crop", "box", "--context", "2.7", "--size", "80"]
    assert main([*command, "--out", str(tmp_path / "none"), "--workers", "1"]) == 2
    assert main([*command, "--out", str(tmp_path / "set"), "--workers", "1", "--detector", detector]) == 0
    index = Index.open(tmp_path / "set")
    assert len(index) == 4
    assert index.meta["options"]["crop"] == "context-2.7"
    boxes = np.asarray(index.columns["box"])
    sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    assert (sides > 80 / 2.7 - 1.5).all(), "where the image ends early less is seen, never more"


def test_the_command_line_says_what_goes_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = ["liveness", str(tmp_path), "--out", str(tmp_path / "set")]
    fields = parse([*start, "--crop", "box", "--context", "2.7"])
    assert fields["align"] == Alignment("context", no_face="reject", context=Context(2.7))
    assert fields["boxes"] is False
    assert parse([*start, "--crop", "box"])["boxes"] is True
    for arguments, message in (
        (["--context", "2.7"], "--context enlarges the box of --crop box"),
        (["--crop", "box", "--context", "2.7", "--align", "crop", "--size", "80"], "and no --align"),
        (["--crop", "box", "--context", "0"], "--context 0 must lie in 0.1 to 20"),
        (["--crop", "box", "--stretch"], "--stretch is for --crop box --context S"),
        (["--crop", "box", "--context", "1", "--stretch"], "--stretch needs a target: add --size 80"),
    ):
        with pytest.raises(SystemExit):
            parse([*start, *arguments])
        assert message in capsys.readouterr().err
