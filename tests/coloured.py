"""People who are a colour, photographs of them, a detector and models that see colours: for the ways through a system.

Everything but the networks is the real thing: files are read, faces cut, thresholds applied.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastface import live_check, recognition
from fastface.card import Card, Threshold
from fastface.data.align import template
from fastface.detection import DETECTORS, Kind
from fastface.detection.found import Found
from fastface.fusion_card import FusionCard
from fastface.liveness_card import LivenessCard, LiveThreshold
from fastface.metrics.scores import unit
from fastface.predictor import Embedder
from fastface.temporal_card import TemporalCard

SIDE = 16  # px of a drawn face
THRESHOLD = Threshold(
    target_fmr=0.01,
    threshold=0.9,
    fmr=0.01,
    tar=1,
    genuine=100,
    impostors=6000,
    supported=True,
    source="colours",
)
CARD = Card(input_size=(8, 8), mean=128, std=1, crop="box", embedding_size=3, thresholds=[THRESHOLD])
LIVE_CARD = LivenessCard(
    input_size=(8, 8),
    mean=0,
    std=1,
    crop="context-2",
    classes=("live", "spoof"),
    thresholds=[LiveThreshold(rule="bpcer=0.01", threshold=0.5, apcer=0.1, bpcer=0.01, source="colours")],
)


def photograph(path: Path, *faces: tuple[int, int], grey: int = 100, side: int = SIDE) -> Path:
    """Draw a row of faces, each a square of red and green with blue 255, on grey; the later ones are larger."""
    pixels = np.full((64, 40 * max(len(faces), 1) + 40, 3), grey, np.uint8)
    for k, (red, green) in enumerate(faces):
        wide = side + 4 * k
        pixels[20 : 20 + wide, 40 * k + 20 : 40 * k + 20 + wide] = (red, green, 255)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


class BlueDetector:
    """Find squares of blue 255."""

    def detect(self, images: Sequence[np.ndarray]) -> list[Found]:
        found = []
        for image in images:
            blue = image[..., 2] == 255
            edges = np.flatnonzero(np.diff(np.concatenate([[0], blue.any(axis=0).astype(int), [0]])))
            boxes = []
            for left, right in edges.reshape(-1, 2):
                rows = np.flatnonzero(blue[:, left:right].any(axis=1))
                boxes.append([left, rows[0], right, rows[-1] + 1])
            corner = np.array(boxes, np.float32).reshape(-1, 4)
            side = (corner[:, 2] - corner[:, 0])[:, None, None]
            points = corner[:, None, :2] + template((112, 112)) / 112 * side - 0.5
            found.append(Found.of(corner, np.full(len(boxes), 0.9), points))
        return found


class Sums:
    """Fuse the embeddings of a model and one of twice the size: their sum, of unit length."""

    origin = "sums"
    card = FusionCard(embedding_sizes=(3, 6), embeddings=[], embedding_size=3, thresholds=[THRESHOLD])

    def fuse(self, rows: np.ndarray) -> np.ndarray:
        return unit(rows.reshape(len(rows), 3, 3).sum(axis=1)).astype(np.float32)


class GreyClips:
    """Live is a clip whose wall is dark at its end."""

    origin = "grey clips"
    card = TemporalCard(
        **LIVE_CARD.model_dump(include={"input_size", "mean", "std", "crop", "classes", "thresholds"}), frames=4
    )

    def scores(self, clips: np.ndarray) -> np.ndarray:
        assert clips.shape[1:] == (4, 8, 8, 3)
        return 1 - clips[:, -1, 0, 0, 0].astype(np.float32) / 255


class GreyScorer:
    """Live is what stands before dark grey."""

    card, origin = LIVE_CARD, "grey"

    def scores(self, images: np.ndarray) -> np.ndarray:
        return 1 - images[:, 0, 0, 0].astype(np.float32) / 255


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give a detector's spec; model names with "tall" in them make 6 values of 3, all others 3."""
    kind = Kind("blue squares", ("FILE",), (), 0.3, True, (), 1, lambda files: BlueDetector())
    monkeypatch.setitem(DETECTORS, "blue", kind)
    (tmp_path / "blue.txt").write_text("blue")

    def open_model(model: Path, device: str) -> tuple[Embedder, str]:
        if "missing" in model.name:
            raise ValueError(f"no such file: {model}")
        card = CARD if "uncut" not in model.name else CARD.model_copy(update={"crop": None})
        if "five" in model.name:
            card = CARD.model_copy(update={"crop": "five-point"})
        if "tall" in model.name:
            card = CARD.model_copy(update={"flip": "concat"})
        return Embedder(lambda images: images.mean((2, 3)) * [1, 1, 0.01], card, model.name), f"digest of {model.name}"

    monkeypatch.setattr(recognition, "open_model", open_model)
    monkeypatch.setattr(live_check, "load_liveness", lambda model, device: GreyScorer())
    monkeypatch.setattr(recognition, "load_fusion", lambda model, device: Sums())
    monkeypatch.setattr(live_check, "load_temporal", lambda model, device: GreyClips())
    return f"blue:{tmp_path}/blue.txt"
