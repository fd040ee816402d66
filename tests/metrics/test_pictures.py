from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastface.metrics.curve import curve
from fastface.metrics.pictures import _corners, verification_picture


def scored(gap: float, num: int = 400) -> tuple[np.ndarray, np.ndarray]:
    same = np.arange(num) % 2 == 0
    scores = np.random.default_rng(0).normal(size=num) + gap * same
    return scores.astype(np.float32), same


def test_a_picture_shows_every_curve_in_its_colour(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    verification_picture(path, {"trained": scored(3.0), "untrained": scored(0.3)}, np.geomspace(9, 1, 200))
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    assert [file.name for file in tmp_path.iterdir()] == ["picture.png"]
    for colour in ((11, 95, 165), (224, 123, 0)):  # the first two curves
        assert (pixels == colour).all(axis=1).sum() > 300
    assert 0.5 < (pixels == 255).all(axis=1).mean() < 0.97


def test_odd_scores_can_be_drawn(tmp_path: Path) -> None:
    same = np.array([True, False])
    odd = {"equal": [0.5, 0.5], "perfect": [0.9, 0.1], "failed": [np.nan, 0.1]}
    curves = {name: (np.array(scores, np.float32), same) for name, scores in odd.items()}
    verification_picture(tmp_path / "p.png", curves, [np.nan, 1.0], det=True, title="odd")
    pixels = np.asarray(Image.open(tmp_path / "p.png").convert("RGB"))
    assert pixels.shape[1] > 1000
    verification_picture(tmp_path / "one.png", {"one kind": (np.array([0.2, 0.7]), np.array([True, True]))})
    assert Image.open(tmp_path / "one.png").size[0] < 1000, "only the histogram is there"
    assert (pixels.reshape(-1, 3) == (11, 95, 165)).all(axis=1).any()


def test_thinning_keeps_the_curve() -> None:
    scores, same = scored(1.0, 60_000)
    points = curve(scores, same)
    fmr, tar = _corners(points.fmr, points.tar)
    assert len(fmr) <= 4000
    for rate in (1e-3, 1e-2, 0.1, 0.5):
        exact = points.tar[np.searchsorted(points.fmr, rate, side="right") - 1]
        assert tar[np.searchsorted(fmr, rate, side="right") - 1] == pytest.approx(exact, abs=2e-3)


def test_no_curves_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one"):
        verification_picture(tmp_path / "p.png", {})
