"""OpenCV's SSD: its boxes where its files and OpenCV are there, and what to install where they are not."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pytest

from fastface.detection import DetectorSpec
from fastface.detection.ssd import Ssd
from tests.detection.people import FOUND, pixels


def test_what_is_missing_is_named_with_its_pip_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("net.prototxt", "net.caffemodel"):
        (tmp_path / name).write_bytes(b"no network")
    spec = DetectorSpec.parse(f"ssd:{tmp_path}/net.prototxt,{tmp_path}/net.caffemodel")
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ValueError, match=r'needs OpenCV: pip install "opencv-python-headless<5"'):
        spec.open()
    five = types.SimpleNamespace(__version__="5.0.0", dnn=types.SimpleNamespace())
    monkeypatch.setitem(sys.modules, "cv2", five)
    with pytest.raises(ValueError, match=r"OpenCV 5\.0\.0 reads no Caffe files"):
        spec.open()


def test_boxes_lie_about_the_faces(data: Path) -> None:
    cv2 = pytest.importorskip("cv2", reason='needs OpenCV: pip install "opencv-python-headless<5"')
    files = [
        data / "weights" / "ssd" / name for name in ("deploy.prototxt", "res10_300x300_ssd_iter_140000.caffemodel")
    ]
    if not hasattr(cv2.dnn, "readNetFromCaffe") or not all(file.is_file() for file in files):
        pytest.skip("needs OpenCV below 5 and the two files of the SSD in weights/ssd")
    net = Ssd(*files)
    for name, image in pixels(data).items():
        faces = net.detect([image])[0]
        largest = max(FOUND[name]["yunet"], key=lambda row: (row[2] - row[0]) * (row[3] - row[1]))
        assert np.abs(faces.boxes[0] - largest[:4]).max() < 25
        assert faces.scores[0] > 0.9
        assert np.isnan(faces.landmarks).all()
