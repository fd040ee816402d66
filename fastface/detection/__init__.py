"""Detector files of the user's -> a detector: uint8 RGB images in, boxes, five landmarks and scores out.

Nothing is ever downloaded, and no detector's library is imported before one of its kind is opened.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from fastface.detection.found import Found
from fastface.spelling import nearest


class Detector(Protocol):
    """What finds faces. One thread; a result may depend, in its last bits, on what shares the batch."""

    def detect(self, images: Sequence[np.ndarray]) -> list[Found]:
        """Find the faces in images (uint8 RGB [H, W, 3], each of its own size)."""
        ...


class Kind(NamedTuple):
    """A kind of detector."""

    about: str
    files: tuple[str, ...]  # what the user gives after the colon, as shown in messages
    members: tuple[str, ...]  # of a folder that is given: the files in it
    least: float  # the smallest score it reports
    landmarks: bool
    packages: tuple[str, ...]  # whose versions may change a result
    revision: int  # of our part; raised when it changes a result
    open: Callable[[Sequence[Path]], Detector]


def _open_mtcnn(files: Sequence[Path]) -> Detector:
    from fastface.models.mtcnn import Mtcnn

    return Mtcnn.open(files)


def _open_yunet(files: Sequence[Path]) -> Detector:
    from fastface.detection.yunet import YuNet

    return YuNet(files[0])


def _open_ssd(files: Sequence[Path]) -> Detector:
    from fastface.detection.ssd import Ssd

    return Ssd(*files)


DETECTORS: dict[str, Kind] = {
    "mtcnn": Kind(
        "MTCNN, the public weights pnet.pt, rnet.pt, onet.pt or ones of that form",
        ("DIR",),
        ("pnet.pt", "rnet.pt", "onet.pt"),
        0.7,  # the last threshold of its paper's cascade
        True,
        ("torch",),
        1,
        _open_mtcnn,
    ),
    "yunet": Kind("YuNet, an .onnx file", ("FILE",), (), 0.3, True, ("onnxruntime",), 1, _open_yunet),
    "ssd": Kind(
        "OpenCV's SSD on ResNet-10, 300x300; boxes only",
        ("PROTOTXT", "CAFFEMODEL"),
        (),
        0.3,
        False,
        ("opencv-python-headless",),
        1,
        _open_ssd,
    ),
}


@dataclass(frozen=True)
class DetectorSpec:
    """A detector by name and files, not opened: may be pickled, hashed and compared."""

    name: str
    files: tuple[Path, ...]
    digests: tuple[str, ...]  # sha256 of each file

    @classmethod
    def parse(cls, text: str) -> DetectorSpec:
        """Read NAME:FILE[,FILE]; ValueError where the kind is unknown or a file is not there."""
        name, _, rest = text.partition(":")
        if name not in DETECTORS:
            usual = ", ".join(f"{key}:{','.join(kind.files)}" for key, kind in DETECTORS.items())
            raise ValueError(f"unknown detector {name!r}{nearest(name, DETECTORS)}; write one of {usual}")
        kind = DETECTORS[name]
        given = [Path(part) for part in rest.split(",") if part]
        if len(given) != len(kind.files):
            raise ValueError(f"detector {text!r}: write {name}:{','.join(kind.files)} ({kind.about})")
        files = [given[0] / member for member in kind.members] if kind.members else given
        for file in files:
            if not file.is_file():
                raise ValueError(f"detector {name}: {file} is not a file; write {name}:{','.join(kind.files)}")
        return cls(name, tuple(files), tuple(hashlib.sha256(file.read_bytes()).hexdigest() for file in files))

    @property
    def kind(self) -> Kind:
        return DETECTORS[self.name]

    def open(self) -> Detector:
        """Load the detector; ValueError where a file is not what it should be or a package is missing."""
        return self.kind.open(self.files)

    def essence(self) -> dict[str, Any]:
        """Return what decides its results, as plain values; the same wherever the files lie."""
        versions = {package: _version(package) for package in self.kind.packages}
        return {"name": self.name, "revision": self.kind.revision, "files": list(self.digests), "made_with": versions}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None  # another package may bring the same module; opening tells
