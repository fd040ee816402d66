"""Models of clips and of images, judged on the same clips."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastface.assess.attack_files import write_scores
from fastface.assess.attack_models import Scorer, score_set
from fastface.assess.attack_sets import score_sets
from fastface.clip_scorer import ClipScorer
from fastface.conversion.convert import convert
from fastface.conversion.options import Options
from fastface.data.image_sets import ShardImages
from fastface.data.images import ImageSpec
from fastface.data.index import Index
from fastface.temporal_card import TemporalCard
from tests.assess.test_liveness import brightness
from tests.attacked import PX

FRAMES = 3


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make 4 clips of 5 to 8 grey frames each."""
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    for number in range(4):
        for frame in range(5 + number):
            place = folder / "raw" / ("live", "spoof")[number % 2] / f"clip{number}" / f"{frame:03d}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((PX, PX, 3), rng.integers(20, 230), np.uint8)).save(place)
    convert(
        Options(
            "video", folder / "raw", folder / "set", fps=10.0, shard_size=9, workers=1, spec=ImageSpec(lossless=True)
        )
    )
    return folder / "set"


def clip_brightness() -> ClipScorer:
    """Take clips with a bright middle frame for live."""
    card = TemporalCard(input_size=(PX, PX), mean=0.0, std=255.0, frames=FRAMES, classes=("live", "spoof"))

    def network(planar: np.ndarray) -> np.ndarray:
        middle = planar[:, FRAMES // 2].reshape(len(planar), -1).mean(axis=1)
        return np.stack([middle, np.zeros_like(middle)], axis=1).astype(np.float32)

    return ClipScorer(network, card, "the middle frame")


def probability(pixels: np.ndarray) -> float:
    return float(1 / (1 + np.exp(-pixels.mean() / 255)))


@pytest.mark.parametrize("order", [("clips", "images"), ("images", "clips")])
def test_both_judge_clips(clips: Path, tmp_path: Path, order: tuple[str, ...]) -> None:
    scorers: dict[str, Scorer] = {"clips": clip_brightness(), "images": brightness()}
    found = score_sets([clips], {name: scorers[name] for name in order}, option="--images", batch=6)
    index = Index.open(clips)
    images, numbers = ShardImages(index), np.asarray(index.columns["clip"])
    rows = [np.flatnonzero(numbers == number) for number in range(4)]
    assert found.first.records.tolist() == [int(row[0]) for row in rows]
    means = [np.mean([probability(images.load(i)) for i in row.tolist()]) for row in rows]
    assert found.scores["images"].tolist() == pytest.approx(means, abs=1e-6)
    # The middle of 3 segments' middles is the middle of the clip.
    middles = [probability(images.load(int(row[len(row) // 2]))) for row in rows]
    assert found.scores["clips"].tolist() == pytest.approx(middles, abs=1e-6)
    ensemble = [(a + b) / 2 for a, b in zip(means, middles, strict=True)]
    made = found.presented("ensemble of 2")
    assert made.scores.tolist() == pytest.approx(ensemble, abs=1e-6)
    assert made.live.tolist() == [index.name(int(row[0])).startswith("live") for row in rows]
    write_scores(tmp_path / "scores.csv", found)
    with open(tmp_path / "scores.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["name"] for line in lines] == [index.name(int(row[0])) for row in rows]


def test_images_alone_are_scored_each_and_averaged_later(clips: Path) -> None:
    found = score_sets([clips], {"images": brightness()}, option="--images", batch=6)
    assert len(found.scores["images"]) == len(Index.open(clips)) == 26
    together = score_sets([clips], {"images": brightness(), "clips": clip_brightness()}, option="--images", batch=6)
    np.testing.assert_allclose(found.presented("images").scores, together.presented("images").scores, rtol=1e-6)


def test_images_of_no_clip_are_refused(tmp_path: Path) -> None:
    for name in ("live", "spoof"):
        (tmp_path / "raw" / name).mkdir(parents=True)
        Image.fromarray(np.zeros((PX, PX, 3), np.uint8)).save(tmp_path / "raw" / name / "a.png")
    convert(Options("liveness", tmp_path / "raw", tmp_path / "set", workers=1))
    with pytest.raises(ValueError, match=r"images: .* of no clip"):
        score_sets([tmp_path / "set"], {"images": brightness(), "clips": clip_brightness()}, option="--images", batch=6)
    assert len(score_set(tmp_path / "set", brightness(), batch=6).scores) == 2
