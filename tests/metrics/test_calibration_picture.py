from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastface.metrics.calibration_picture import calibration_picture


def test_a_picture_shows_every_curve_in_its_colour(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    same = np.arange(400) % 2 == 0
    llrs = rng.normal(size=400) * 2 + np.where(same, 2, -2)
    llrs[3] = np.nan
    calibration_picture(tmp_path / "p.png", {"match": (llrs, same), "cosine": (llrs / 5, same)}, title="both")
    pixels = np.asarray(Image.open(tmp_path / "p.png").convert("RGB")).reshape(-1, 3)
    assert [file.name for file in tmp_path.iterdir()] == ["p.png"]
    for colour in ((11, 95, 165), (224, 123, 0)):
        assert (pixels == colour).all(axis=1).sum() > 100
    assert 0.5 < (pixels == 255).all(axis=1).mean() < 0.97


def test_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one"):
        calibration_picture(tmp_path / "p.png", {})
