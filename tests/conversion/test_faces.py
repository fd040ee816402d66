"""Faces in a conversion: where they come to lie, the same bytes however it is run, and nothing looked at twice."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fastface.conversion import faces as module
from fastface.conversion.check import check
from fastface.conversion.convert import convert
from fastface.conversion.faces import Alignment, Face, Finder, choose, face_of_source, prepare_face
from fastface.conversion.options import Options
from fastface.data.align import TEMPLATE_112, similarity, template
from fastface.data.geometry import move_points
from fastface.data.images import ImageSpec, Rejected, load_rgb
from fastface.data.index import Index
from fastface.data.shards import ShardReader
from fastface.data.sources.folder import open_folder
from fastface.detection import DetectorSpec
from fastface.detection.found import Found
from tests.data.shard_sets import face, tree
from tests.detection.people import FOUND, photographs
from tools.make_shards import parse

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def raw(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give 24 photographs and one picture without a face."""
    folder = tmp_path_factory.mktemp("faces") / "raw"
    for name, data in photographs(request.getfixturevalue("data"), count=24).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / "Nobody").mkdir()
    (folder / "Nobody" / "0001.jpg").write_bytes(face(0, 0, 200, 120))
    return folder


@pytest.fixture(scope="module")
def yunet(request: pytest.FixtureRequest) -> DetectorSpec:
    return DetectorSpec.parse(f"yunet:{request.getfixturevalue('data')}/weights/yunet/yunet_n_dynamic.onnx")


@pytest.fixture(scope="module")
def mtcnn(request: pytest.FixtureRequest) -> DetectorSpec:
    return DetectorSpec.parse(f"mtcnn:{request.getfixturevalue('data')}/weights/mtcnn")


def make(raw: Path, out: Path, align: Alignment, size: tuple[int, int] = (112, 112), **more: Any) -> Index:
    convert(Options("folder", raw, out, ImageSpec(size), align=align, **{"shard_size": 7, "workers": 2, **more}))
    assert check(out, show=lambda line: None) == []
    return Index.open(out)


@pytest.mark.parametrize("kind", ["yunet", "mtcnn"])
def test_eyes_nose_and_mouth_come_to_lie_on_the_template(
    raw: Path, tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    detector = request.getfixturevalue(kind)
    index = make(raw, tmp_path / "set", Alignment("five-point", detector), workers=1)
    landmarks = index.columns["landmarks"].reshape(-1, 5, 2)
    nobody = np.isnan(landmarks).any(axis=(1, 2))
    assert [index.name(int(i)) for i in np.flatnonzero(nobody)] == ["Nobody/0001.jpg"]
    assert index.meta["without_face"] == 1
    assert np.isnan(index.columns["box"][nobody]).all()
    assert (index.columns["detection_score"][~nobody] >= 0.5).all()
    away = np.linalg.norm(landmarks[~nobody] - TEMPLATE_112, axis=2)
    assert away.mean() < 4
    assert np.median(away[:, :2]) < 3
    # and the detector sees them there in the pictures themselves
    reader, found = ShardReader(index), detector.open()
    again = [found.detect([load_rgb(reader.view(int(i)).tobytes())])[0] for i in np.flatnonzero(~nobody)]
    seen = np.array([faces.landmarks[0] + 0.5 for faces in again if len(faces.landmarks)])
    assert len(seen) >= 20
    assert np.median(np.linalg.norm(seen - TEMPLATE_112, axis=2)[:, :2]) < 5  # MTCNN has noses 5 px lower


def test_cut_boxes_lie_in_the_middle_with_their_margin(raw: Path, tmp_path: Path, yunet: DetectorSpec) -> None:
    for method, size in (("crop", (112, 112)), ("pad", (160, 160)), ("crop", (96, 112))):
        index = make(raw, tmp_path / f"{method}{size[0]}", Alignment(method, yunet, margin=0.25), size)
        box = index.columns["box"][index.columns["detection_score"] > 0]
        assert len(box) == 24
        assert index.image_size == size
        sides = box[:, 2:] - box[:, :2]
        longest = (sides / size).max(axis=1)  # 1 / 1.25 of the picture, unless pad met the edge of the image
        assert np.median(np.abs(longest - 0.8)) < 5e-3
        if method == "crop":
            assert np.allclose((box[:, :2] + box[:, 2:]) / 2, np.array(size) / 2, atol=1e-3)


def test_padding_is_black_and_keeps_the_aspect(tmp_path: Path) -> None:
    image = np.full((60, 100, 3), 200, np.uint8)
    data = io.BytesIO()
    Image.fromarray(image).save(data, "PNG")
    spec, align = ImageSpec((160, 160), lossless=True), Alignment("pad", margin=0.0)
    box = Face(np.array([30.0, 10, 50, 50]), np.full((5, 2), 40.0), 0.9)
    made = prepare_face(data.getvalue(), spec, align, lambda image: box)
    picture = load_rgb(made.data)
    assert (picture[:, 40:120] == 200).all()
    assert not picture[:, :40].any()
    assert not picture[:, 120:].any()
    assert made.face is not None
    assert made.face[:4].tolist() == [40, 0, 120, 160]
    assert made.face[4:6].tolist() == [80, 120]
    whole = load_rgb(prepare_face(data.getvalue(), spec, align, lambda image: None).data)
    assert whole[:, :, 0].any(axis=1).sum() == 96  # 160 * 60 / 100 rows of the image, all columns
    assert whole[:, :, 0].any(axis=0).all()


def test_bytes_are_the_same_for_any_number_of_workers_and_with_the_cache(
    raw: Path, tmp_path: Path, yunet: DetectorSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = tree(make(raw, tmp_path / "a" / "set", Alignment("five-point", yunet), workers=1).path)
    two = tree(make(raw, tmp_path / "b" / "set", Alignment("five-point", yunet), workers=2).path)
    assert one == two
    for k in (1, 0):
        convert(
            Options(
                *("folder", raw, tmp_path / "c" / "set", ImageSpec((112, 112))),
                align=Alignment("five-point", yunet),
                shard_size=7,
                part=(k, 2),
                workers=1,
            )
        )
    joined = make(raw, tmp_path / "c" / "set", Alignment("five-point", yunet), join=True)
    assert tree(joined.path) == one
    # every image is known now: a detector that cannot be opened is not missed
    monkeypatch.setattr(Finder, "_open", lambda finder: (_ for _ in ()).throw(AssertionError("looked again")))
    assert tree(make(raw, tmp_path / "b" / "again", Alignment("five-point", yunet)).path) == one
    make(raw, tmp_path / "b" / "pad", Alignment("pad", yunet), (160, 160))
    with pytest.raises(AssertionError, match="looked again"):
        make(raw, tmp_path / "d" / "set", Alignment("pad", yunet), (160, 160))


def test_a_column_of_the_source_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(face(0, 0))
    listed = tmp_path / "list.csv"
    listed.write_text("path,label,x0,y0,x1,y1,detection_score\na.jpg,a,0,0,9,9,0.5\n")
    with pytest.raises(ValueError, match=r"writes a column 'detection_score', and .*list\.csv has one .*: rename it"):
        convert(Options("list", listed, tmp_path / "out", ImageSpec((16, 16)), align=Alignment("crop"), workers=1))


def test_an_interrupted_conversion_keeps_what_it_found(
    raw: Path, tmp_path: Path, yunet: DetectorSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    original: Callable = Finder.find
    looked = iter(range(10))

    def tired(finder: Finder, data: bytes, image: np.ndarray) -> Found:
        if next(looked, None) is None:
            raise KeyboardInterrupt
        return original(finder, data, image)

    monkeypatch.setattr(Finder, "find", tired)
    with pytest.raises(KeyboardInterrupt):
        make(raw, tmp_path / "set", Alignment("crop", yunet), workers=1)
    monkeypatch.undo()
    assert len(Finder(yunet, tmp_path / "detections").known) == 10
    interrupted = tree(make(raw, tmp_path / "set", Alignment("crop", yunet)).path)
    assert interrupted == tree(make(raw, tmp_path / "b" / "set", Alignment("crop", yunet)).path)


def test_images_without_a_face_are_rejected_where_that_is_asked_for(
    raw: Path, tmp_path: Path, yunet: DetectorSpec
) -> None:
    index = make(raw, tmp_path / "set", Alignment("five-point", yunet, no_face="reject"))
    assert index.num_samples == 24
    assert index.meta["rejected"] == {"no-face": 1}
    assert "Nobody/0001.jpg,no-face,no face was found" in (tmp_path / "set" / "rejects.csv").read_text()


@pytest.mark.slow
def test_the_parent_loads_no_torch_and_one_that_has_may_fork(raw: Path, tmp_path: Path, mtcnn: DetectorSpec) -> None:
    """With torch's threads started in the parent, a worker that used them would wait for ever."""
    code = (
        "import sys; from pathlib import Path\n"
        "from fastface.conversion.convert import convert; from fastface.conversion.options import Options\n"
        "from fastface.conversion.faces import Alignment; from fastface.data.images import ImageSpec\n"
        "from fastface.detection import DetectorSpec\n"
        "raw, weights, here = map(Path, sys.argv[1:])\n"
        "align = Alignment('five-point', DetectorSpec.parse(f'mtcnn:{weights}'))\n"
        "def go(out, workers):\n"
        "    convert(Options('folder', raw, here / out / 'set', ImageSpec((112, 112)), align=align, workers=workers))\n"
        "go('a', 1); assert 'torch' not in sys.modules\n"
        "import torch; torch.set_num_threads(2); x = torch.rand(600, 600); (x @ x).sum()\n"
        "go('b', 1)\n"
    )
    where = [str(raw), str(mtcnn.files[0].parent), str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", code, *where], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "a" / "set") == tree(tmp_path / "b" / "set")


# Choices


def test_the_largest_or_the_most_central_face_is_chosen() -> None:
    boxes = np.array([[0, 0, 50, 50], [40, 40, 60, 62], [70, 0, 100, 100], [45, 45, 55, 55]])
    found = Found.of(boxes, np.array([0.9, 0.8, 0.6, 0.4]), np.arange(40).reshape(4, 5, 2))
    spec = DetectorSpec("yunet", (), ())

    def box(**more: Any) -> list[float] | None:
        chosen = choose(found, Alignment("crop", spec, **more), 100, 100)
        return None if chosen is None else chosen.box.tolist()

    assert box() == [70, 0, 100, 100]
    assert box(least=0.7) == [0, 0, 50, 50]
    assert box(pick="centre") == [40, 40, 60, 62]
    assert box(pick="centre", least=0.3) == [45, 45, 55, 55]
    assert box(least=0.95) is None
    chosen = choose(found, Alignment("crop", spec), 100, 100)
    assert chosen is not None
    assert chosen.landmarks.ravel().tolist() == [value + 0.5 for value in range(20, 30)]
    assert chosen.score == pytest.approx(0.6)


def test_landmarks_of_a_source_need_no_detector(raw: Path) -> None:
    data = next(raw.rglob("*_0001.jpg")).read_bytes()
    size = (160, 160)
    points = template(size) * 0.7 + [30, 20]
    made = prepare_face(
        data, ImageSpec(size), Alignment("five-point"), lambda _: Face(np.full(4, np.nan), points, np.nan)
    )
    assert made.face is not None
    assert np.allclose(made.face[4:14].reshape(5, 2), template(size), atol=1e-4)
    assert np.isnan(made.face[:4]).all()
    same = Face(np.full(4, np.nan), np.full((5, 2), 7.0), np.nan)
    with pytest.raises(Rejected, match="do not span a face"):
        prepare_face(data, ImageSpec(size), Alignment("five-point"), lambda _: same)
    outside = Face(np.array([300.0, 0, 400, 10]), np.full((5, 2), np.nan), np.nan)
    with pytest.raises(Rejected, match="is not in the image"):
        prepare_face(data, ImageSpec(size), Alignment("crop"), lambda _: outside)


def test_landmarks_of_a_source_go_through_a_whole_conversion(data: Path, tmp_path: Path) -> None:
    for name, image in photographs(data, list(FOUND)).items():
        (tmp_path / "raw" / name).parent.mkdir(parents=True)
        (tmp_path / "raw" / name).write_bytes(image)
    source: Any = dict(open_folder(tmp_path / "raw"))[""]
    points = {name: np.array(rows["mtcnn"][-1][5:]).reshape(5, 2) for name, rows in FOUND.items()}
    source.landmarks = np.stack([points[source.name(i)] for i in range(len(source))]).astype(np.float32)
    options = Options(
        "folder", tmp_path / "raw", tmp_path / "set", ImageSpec((112, 112)), align=Alignment("five-point")
    )
    convert(options, {"": source})
    index = Index.open(tmp_path / "set")
    for i, landmarks in enumerate(index.columns["landmarks"].reshape(-1, 5, 2)):
        given = points[index.name(i)]
        assert np.allclose(landmarks, move_points(given, similarity(given, TEMPLATE_112)), atol=1e-3)
    assert np.isnan(index.columns["detection_score"]).all()


def test_what_a_source_does_not_know_of_a_face_is_no_face() -> None:
    class Told:
        boxes = np.array([[1, 2, 30, 40], [1, 2, 30, 40], [np.nan] * 4])
        landmarks = np.array([np.arange(10).reshape(5, 2), np.full((5, 2), np.nan), np.arange(10).reshape(5, 2)])

    def found(method: str) -> list[bool]:
        return [face_of_source(Told(), i, Alignment(method)) is not None for i in range(3)]  # type: ignore[arg-type]

    assert found("five-point") == [True, False, True]
    assert found("crop") == found("pad") == [True, True, False]


def test_a_list_with_boxes_needs_no_detector_for_a_crop(raw: Path, tmp_path: Path) -> None:
    names = sorted(str(path.relative_to(raw)) for path in raw.rglob("*_0001.jpg"))
    rows = [f"{name},{name.split('/')[0]},60,60,160,190" for name in names]
    (tmp_path / "boxes.csv").write_text("path,label,x0,y0,x1,y1\n" + "\n".join(rows) + "\n")
    out = tmp_path / "set"
    source = ("list", tmp_path / "boxes.csv", out, ImageSpec((112, 112)))
    convert(Options(*source, align=Alignment("crop", margin=0.0), root=raw))
    assert np.allclose(
        Index.open(out).columns["box"], [(112 - 112 / 1.3) / 2, 0, (112 + 112 / 1.3) / 2, 112], atol=1e-3
    )
    with pytest.raises(ValueError, match=r"--align five-point: .*boxes\.csv has no landmarks; add --detector"):
        convert(Options(*source[:2], tmp_path / "b", source[3], align=Alignment("five-point"), root=raw))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "five-points"}, "--align 'five-points', perhaps you meant 'five-point'"),
        ({"method": "crop", "pick": "biggest"}, "--pick 'biggest'"),
        ({"method": "crop", "no_face": "drop"}, "--no-face 'drop'"),
        ({"method": "crop", "margin": -1.0}, "--margin -1.0 must lie in 0 to 10"),
        ({"method": "crop", "least": 1.5}, "--detect-min 1.5 must lie in 0 to 1"),
        ({"method": "crop", "least": 0.1, "detector": "yunet"}, "yunet reports no face below 0.3"),
        ({"method": "five-point", "detector": "ssd"}, "ssd finds boxes only"),
    ],
)
def test_settings_that_make_no_sense_are_refused(arguments: dict[str, Any], message: str) -> None:
    if "detector" in arguments:
        arguments = {**arguments, "detector": DetectorSpec(arguments["detector"], (), ())}
    with pytest.raises(ValueError, match=message):
        Alignment(**arguments)


def test_a_target_is_needed_and_one_way_of_cutting(tmp_path: Path) -> None:
    align = Alignment("crop")
    with pytest.raises(ValueError, match="--align crop needs a target: add --size 112"):
        Options("folder", tmp_path, tmp_path / "set", align=align)
    with pytest.raises(ValueError, match="--align and --crop exclude each other"):
        Options("folder", tmp_path, tmp_path / "set", ImageSpec((112, 112), crop=0.5), align=align)


def test_what_decides_the_bytes_is_in_the_essence(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"a")
    (tmp_path / "b.onnx").write_bytes(b"b")
    a, b = (DetectorSpec.parse(f"yunet:{tmp_path}/{name}.onnx") for name in "ab")
    every = [
        Alignment("crop", a),
        Alignment("crop", b),
        Alignment("crop"),
        Alignment("pad", a),
        Alignment("crop", a, least=0.6),
        Alignment("crop", a, pick="centre"),
        Alignment("crop", a, no_face="reject"),
        Alignment("crop", a, margin=0.0),
    ]
    essences = [
        repr(Options("folder", tmp_path, tmp_path, ImageSpec((9, 9)), align=align).essence()) for align in every
    ]
    assert len(set(essences)) == len(every)
    assert str(tmp_path) not in essences[0]
    assert module.WIDTH == 15


def test_the_command_line_says_how_faces_are_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.onnx").write_bytes(b"a")
    start = ["folder", str(tmp_path), "--out", str(tmp_path / "set"), "--size", "160"]
    detector = ["--detector", f"yunet:{tmp_path}/a.onnx"]
    fields = parse([*start, *detector, "--align", "pad", "--detect-min", "0.6", "--no-face", "reject"])
    spec = DetectorSpec.parse(detector[1])
    assert fields["align"] == Alignment("pad", spec, 0.6, "largest", "reject")
    assert Options(**fields).spec == ImageSpec((160, 160))
    assert parse(start)["align"] is None
    for arguments, message in (
        (detector, "--detector finds faces: add --align crop, pad or five-point, or --crop box"),
        (["--detector", "yunet:nowhere.onnx"], "nowhere.onnx is not a file; write yunet:FILE"),
        (["--align", "crop", "--crop", "0.5"], "--align and --crop exclude each other"),
    ):
        with pytest.raises(SystemExit):
            parse([*start, *arguments])
        assert message in capsys.readouterr().err
