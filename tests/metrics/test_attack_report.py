from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastface.metrics.attack_picture import Judged, attack_picture
from fastface.metrics.attack_report import AT_THRESHOLD, flatters, format_attacks, named_metrics
from fastface.metrics.attacks import presented_figures
from fastface.metrics.presentations import Presentations, gather_presentations


def presented(seed: int, species: int = 2, num: int = 200) -> Presentations:
    rng = np.random.default_rng(seed)
    live = rng.random(num) < 0.5
    scores = (1 / (1 + np.exp(-rng.normal(4.0 * live - 2.0)))).astype(np.float32)
    scores[:3] = np.nan
    attack = np.where(live, "none", rng.choice([f"kind{k}" for k in range(species)], num))
    return gather_presentations(scores, live, attack, None, rng.integers(0, 9, num))


def test_tables_say_what_stands_behind_the_figures() -> None:
    made = presented(0)
    found = presented_figures(made, 0.4, rule="eer of the development set", draw=True)
    text = format_attacks({"model": found})
    live = found.details["bona_fide"]
    cells = [f"{live['presentations']}", "9", f"{live['errors']}", f"{live['rate']:.4f}"]
    row = next(line.split() for line in text.splitlines() if line.startswith("bona fide"))
    assert row[2:6] == cells
    assert "threshold: eer of the development set" in text
    assert "test-EER" not in text
    for name in ("kind0", "kind1", "no answer", "1,000 draws"):
        assert name in text
    low, high = found.details["intervals"]["acer"]
    assert f"{found.metrics['acer']:.4f} [{low:.4f}, {high:.4f}]" in text


def test_a_threshold_of_the_test_set_is_named_so() -> None:
    own, given = (presented_figures(presented(1), t, rule="given") for t in (None, 0.5))
    assert (flatters(own), flatters(given)) == (True, False)
    assert named_metrics(given) == given.metrics
    named = named_metrics(own)
    assert {key for key in named if key.endswith("_test_eer")} == {f"{key}_test_eer" for key in AT_THRESHOLD}
    assert named["acer_test_eer"] == own.metrics["acer"]
    assert named["eer"] == own.metrics["eer"]
    text = format_attacks({"model": own})
    assert "ACER (test-EER threshold)" in text
    assert "is no result to report" in text


@pytest.mark.parametrize(("models", "species"), [(1, 1), (2, 3), (1, 20)])
def test_the_picture_draws_any_number_of_models_and_attacks(tmp_path: Path, models: int, species: int) -> None:
    judged = {}
    for k in range(models):
        made = presented(k, species)
        judged[f"model {k}"] = Judged(made, presented_figures(made, 0.5))
    attack_picture(tmp_path / "a.png", judged, title="a test")
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    assert pixels.shape[1] > 2 * pixels.shape[0]
    third = pixels.shape[1] // 3
    assert all((pixels[:, k * third : (k + 1) * third] != 255).mean() > 0.02 for k in range(3))
    assert list(tmp_path.iterdir()) == [tmp_path / "a.png"]
