"""evaluate.py --pairs all: the figures of a folder of embeddings, printed and written down."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastface import evaluate
from fastface.data.embeddings import write_embeddings
from fastface.metrics.curve import calibrate
from tests.metrics.all_pairs.slow import people, scores_of, slow


def folder_of(path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    rows, labels = people(80, 12)
    rows[7] = np.nan
    labels = np.unique(labels, return_inverse=True)[1]
    names = [f"{i}.jpg" for i in range(80)]
    write_embeddings(path, rows, labels, names, [f"p{c}" for c in range(labels.max() + 1)], {"dataset_id": "d"})
    return path, rows, labels


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["evaluate.py", *map(str, arguments)])
    return evaluate.main()


@pytest.mark.parametrize("precision", ["float32", "half"])
def test_figures_are_printed_and_written(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, rows, labels = folder_of(tmp_path / "set")
    out, state = tmp_path / "out", tmp_path / "state"
    options = ("--pairs", "all", "--embeddings", folder, "--targets", "1e-1,2.5e-3", "--precision", precision)
    assert run(monkeypatch, *options, "--out", out, "--state", state) == 0
    expected = slow(rows, labels)
    points = calibrate(*scores_of(rows, labels), (1e-1, 2.5e-3))
    found = json.loads((out / "metrics.json").read_text())
    assert [(p["threshold"], p["errors"], p["tar"]) for p in found["tar_at_far"]["points"]] == [
        (p.threshold, p.errors, p.tar) for p in points
    ]
    assert (found["eer"]["value"], found["eer"]["threshold"]) == expected.equal
    assert found["failures"] == {"genuine": expected.failures[0], "impostors": expected.failures[1], "embeddings": 1}
    with open(out / "histogram.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    pairs = 79 * 78 // 2
    assert sum(int(line["genuine"]) + int(line["impostors"]) for line in lines) == pairs
    assert Image.open(out / "verification.png").size[0] > 500
    said = capsys.readouterr().out
    assert f"{points[0].errors:,}/{points[0].impostors:,} at {points[0].threshold:.6f}" in said
    assert "TAR at FAR 1e-1" in said
    assert "TAR at FAR 0.0025" in said
    assert "!" in said  # 2.5e-3 of 3,000 impostors are 7
    assert list(state.glob("pass-*/*.npz"))


def test_what_does_not_go_together_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(tmp_path / "set")[0]
    for arguments, message in (
        (
            ("--pairs", "all", "--embeddings", folder, "--compat", "insightface"),
            "--compat has no meaning with --protocol all-pairs",
        ),
        (("--embeddings", folder, "--state", folder), "has no meaning with --protocol pairs"),
        (("--pairs", "all", "--embeddings", folder, "--targets", "a"), "invalid rates value"),
    ):
        with pytest.raises(SystemExit) as stop:
            run(monkeypatch, *arguments)
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
    assert run(monkeypatch, "--pairs", "all", "--images", folder, "--embeddings", folder) == 2
    assert "needs --checkpoint RUN" in capsys.readouterr().err
    assert run(monkeypatch, "--pairs", "all", "--embeddings", tmp_path) == 2
    assert "holds no embeddings" in capsys.readouterr().err
