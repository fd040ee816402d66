"""YuNet: the faces that OpenCV finds with the same file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from fastface.detection import DetectorSpec
from fastface.detection.yunet import LEAST, STRIDES, YuNet, decode
from tests.detection.people import FOUND, agree, pixels

FILES = ("yunet_n_dynamic.onnx", "yunet_n_320_320.onnx")


@pytest.fixture(scope="module")
def detectors(request: pytest.FixtureRequest) -> dict[str, YuNet]:
    folder = request.getfixturevalue("data") / "weights" / "yunet"
    return {name: YuNet(folder / name) for name in FILES}


@pytest.fixture(scope="module")
def images(request: pytest.FixtureRequest) -> dict[str, np.ndarray]:
    return pixels(request.getfixturevalue("data"))


def test_faces_are_those_of_opencv(detectors: dict[str, YuNet], images: dict[str, np.ndarray]) -> None:
    for name, image in images.items():
        agree(detectors[FILES[0]].detect([image])[0], FOUND[name]["yunet"], 0.01)
        # what lies beyond the padding differs a little: 256 px there, 320 px here
        agree(detectors[FILES[1]].detect([image])[0], FOUND[name]["yunet"], 3)


@pytest.mark.parametrize("name", FILES)
def test_images_of_any_size_go_together(detectors: dict[str, YuNet], images: dict[str, np.ndarray], name: str) -> None:
    image = next(iter(images.values()))
    several = [image, image[:100, :90], image, np.zeros((8, 9, 3), np.uint8), image.repeat(5, 0).repeat(5, 1)]
    together = detectors[name].detect(several)
    for one, each in zip(together, several, strict=True):
        alone = detectors[name].detect([each])[0]
        assert all(np.allclose(a, b, atol=1e-3) for a, b in zip(one, alone, strict=True))
    assert [len(faces.scores) for faces in together[2:4]] == [1, 0]
    assert np.abs(together[4].boxes[0] / 5 - together[0].boxes[0]).max() < 6
    assert detectors[name].detect([]) == []


def test_decoding_is_that_of_a_loop_over_places() -> None:
    rng = np.random.default_rng(0)
    size, heads, expected = (64, 96), {}, []
    for stride in STRIDES:
        rows, columns = size[0] // stride, size[1] // stride
        for head, width in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
            heads[f"{head}_{stride}"] = rng.uniform(-0.2, 1.2, (rows * columns, width)).astype(np.float32)
        for row in range(rows):
            for column in range(columns):
                k = row * columns + column
                sure = [min(max(float(heads[f"{head}_{stride}"][k, 0]), 0), 1) for head in ("cls", "obj")]
                x, y, w, h = (float(v) for v in heads[f"bbox_{stride}"][k])
                x, y = (column + x) * stride, (row + y) * stride
                w, h = np.exp(w) * stride, np.exp(h) * stride
                points = heads[f"kps_{stride}"][k].reshape(5, 2) * stride + [column * stride, row * stride]
                box = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
                expected.append([*box, (sure[0] * sure[1]) ** 0.5, *points.ravel()])
    faces = decode(heads, size)
    rows = np.concatenate([faces.boxes, faces.scores[:, None], faces.landmarks.reshape(-1, 10)], axis=1)
    assert 5 < len(rows) < len(expected)
    for row in rows:
        assert np.abs(np.array(expected) - row).max(axis=1).min() < 1e-3
    assert faces.scores.min() >= LEAST
    assert (np.diff(faces.scores) <= 0).all()
    assert np.isclose(faces.scores[0], max(row[4] for row in expected))


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_bytes(b"hello")
    with pytest.raises(ValueError, match=r"text\.onnx is not an ONNX file that onnxruntime reads"):
        YuNet(tmp_path / "text.onnx")
    shape = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, 8, 8])
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 3, 8, 8])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "relu", [shape], [out])
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "relu.onnx")
    with pytest.raises(ValueError, match=r"relu\.onnx is no YuNet: it lacks the outputs bbox_16"):
        YuNet(tmp_path / "relu.onnx")


def test_detectors_are_named_by_kind_and_files(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"a")
    spec = DetectorSpec.parse(f"yunet:{tmp_path}/a.onnx")
    (tmp_path / "b.onnx").write_bytes(b"a")
    assert spec.essence() == DetectorSpec.parse(f"yunet:{tmp_path}/b.onnx").essence()
    (tmp_path / "b.onnx").write_bytes(b"b")
    assert spec.essence() != DetectorSpec.parse(f"yunet:{tmp_path}/b.onnx").essence()
    for text, message in {
        "yunit:a": "unknown detector 'yunit', perhaps you meant 'yunet'; write one of mtcnn:DIR, yunet:FILE",
        "yunet": "detector 'yunet': write yunet:FILE",
        "ssd:a": "write ssd:PROTOTXT,CAFFEMODEL",
        f"mtcnn:{tmp_path}": "pnet.pt is not a file; write mtcnn:DIR",
    }.items():
        with pytest.raises(ValueError, match=message):
            DetectorSpec.parse(text)
