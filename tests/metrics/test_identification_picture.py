"""The picture of identification is drawn of any searches: with and without non-mated ones, of one rank, of failures."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastface.metrics.identification import Searches
from fastface.metrics.identification_picture import identification_picture
from tests.metrics.test_identification import drawn


@pytest.mark.parametrize(
    ("searches", "panels"),
    [
        (drawn(0), 3),
        (drawn(0)._replace(non_mated=np.empty(0, np.float32)), 1),
        (drawn(0)._replace(non_mated=np.full(3, -np.inf, np.float32)), 1),
        (Searches(np.float32([0.5]), *[np.array([0])] * 2, np.float32([0.5]), *[np.array([0])] * 2, 1), 3),
    ],
)
def test_a_panel_for_what_is_known(searches: Searches, panels: int, tmp_path: Path) -> None:
    identification_picture(tmp_path / "a.png", {"model": searches}, title="gallery")
    with Image.open(tmp_path / "a.png") as picture:
        width, height = picture.size
        shown = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    assert round(width / height * 4.5 / 5.2) == panels
    assert (shown == (0x0B, 0x5F, 0xA5)).all(axis=1).any(), "the first curve has its colour"
