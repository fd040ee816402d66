import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fastface.metrics.drawing import DPI
from fastface.run_picture import PANEL_INCHES, PICTURE, draw_run, read_history, try_draw

TERMS = {"loss": 1.0, "active": 0.4, "distance_positive": 0.5, "mean_cosine": 0.1, "grad_norm": 2.0, "num_triplets": 9}


def write(path: Path, lines: list[dict[str, Any]], end: str = "") -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + end)


def steps(number: int, **terms: float) -> list[dict[str, Any]]:
    return [{"step": s, "lr": 0.1 / s, **{k: v / s for k, v in terms.items()}} for s in range(1, number + 1)]


def size_of(columns: int, rows: int) -> tuple[int, int]:
    return round(PANEL_INCHES[0] * columns * DPI), round(PANEL_INCHES[1] * rows * DPI)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def test_every_panel_is_drawn_where_there_is_something(tmp_path: Path) -> None:
    evaluation = {"step": 30, "eval": {"lfw/acc": 0.9, "lfw/auc": 0.95, "lfw/acc_std": 0.1, "lfw/tar_1e-2": 0.5}}
    write(tmp_path / "metrics.jsonl", [*steps(30, **TERMS), evaluation, {**evaluation, "step": 31}])
    parts = {"data": 1.0, "forward": 5.0, "backward": 9.0, "checking": 1.0}
    timing = {"steps": 10, "seconds": 0.2, "images_per_s": 400.0, "data_wait": 0.1, "parts_ms": parts}
    write(tmp_path / "timings.jsonl", [{"step": s, **timing} for s in (10, 20, 30)])
    write(tmp_path / "best.json", [{"metric": "lfw/acc", "step": 30, "value": 0.9}])
    path = draw_run(tmp_path)
    assert path == tmp_path / PICTURE
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        *("best.json", "metrics.jsonl", "timings.jsonl", "training.png")
    ]
    drawn = pixels(path)
    # loss, lr, distances, triplets, cosine, gradient, others; evaluation; parts, speed
    assert (drawn.shape[1], drawn.shape[0]) == size_of(3, 4)
    assert 0.5 < (drawn == 255).all(axis=2).mean() < 0.97


@pytest.mark.parametrize("number", [1, 2, 20, 3000])
def test_any_number_of_steps_can_be_drawn(tmp_path: Path, number: int) -> None:
    write(tmp_path / "metrics.jsonl", steps(number, loss=3.0))
    drawn = pixels(draw_run(tmp_path))
    assert (drawn.shape[1], drawn.shape[0]) == size_of(2, 1)  # loss and learning rate
    blue = (drawn == (11, 95, 165)).all(axis=2)
    half = drawn.shape[1] // 2
    assert blue[:, :half].any()
    assert blue[:, half:].any()


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    write(tmp_path / "metrics.jsonl", steps(5, loss=3.0), end='{"step": 6, "loss": 0.')
    assert read_history(tmp_path).steps.tolist() == [1, 2, 3, 4, 5]


def test_a_bad_line_within_is_named(tmp_path: Path) -> None:
    write(tmp_path / "metrics.jsonl", steps(2, loss=3.0), end='nonsense\n{"step": 4, "loss": 1.0}\n')
    with pytest.raises(ValueError, match="line 3 is not a line of a log: 'nonsense"):
        draw_run(tmp_path)


def test_terms_that_come_and_go_keep_their_steps(tmp_path: Path) -> None:
    lines = [{"step": 1, "a": 1.0}, {"step": 2, "b": 2.0}, {"step": 2, "eval": {"x/acc": 0.5}}, {"step": 3, "a": 3.0}]
    write(tmp_path / "metrics.jsonl", lines)
    history = read_history(tmp_path)
    np.testing.assert_array_equal(history.terms["a"], [1.0, np.nan, 3.0])
    np.testing.assert_array_equal(history.terms["b"], [np.nan, 2.0, np.nan])
    assert history.evaluations["x/acc"] == ([2], [0.5])


def test_losses_that_are_not_finite_leave_gaps(tmp_path: Path) -> None:
    lines = [*steps(4, loss=1.0), {"step": 5, "lr": 0.1, "loss": float("nan")}, {"step": 6, "lr": 0.1, "loss": 1e400}]
    write(tmp_path / "metrics.jsonl", lines)
    assert (pixels(draw_run(tmp_path)) == (11, 95, 165)).all(axis=2).any()


@pytest.mark.parametrize("content", [None, "", '{"step": 1, "lo'])
def test_a_failed_picture_is_said_and_training_goes_on(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "metrics.jsonl").write_text(content)
    with pytest.raises(ValueError, match="has no step yet"):
        draw_run(tmp_path)
    said: list[str] = []
    try_draw(tmp_path, said.append)
    assert len(said) == 1
    assert "was not drawn: ValueError" in said[0]
    assert "has no step yet" in said[0]
    assert not (tmp_path / PICTURE).exists()
