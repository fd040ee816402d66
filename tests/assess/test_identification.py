"""Folders of embeddings through evaluate.py --protocol identification: figures, files, and refusals that say why."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from fastface import evaluate
from fastface.assess.identification import assess_identification
from fastface.data.embeddings import write_embeddings
from fastface.mining.gallery import draw_gallery

MODEL = {"sha256": "a" * 64, "flip": "none", "centre": False}


def write(folder: Path, labels: np.ndarray, seed: int = 0, prefix: str = "person", **about: object) -> Path:
    """Write embeddings around a centre for each identity."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(int(labels.max()) + 1, 16))[labels] + 0.5 * rng.normal(size=(len(labels), 16))
    names = [f"{prefix} {label}/{i}.jpg" for i, label in enumerate(labels)]
    classes = [f"{prefix} {i}" for i in range(int(labels.max()) + 1)]
    write_embeddings(folder, rows, labels, names, classes, {"dataset_id": folder.name, "model": MODEL, **about})
    return folder


@pytest.fixture
def probes(tmp_path: Path) -> Path:
    return write(tmp_path / "probes", np.repeat(np.arange(60), [1, 2, 4] * 20))


def rank_one(folder: Path, mean: bool = False) -> tuple[int, int]:
    """Count first ranks by a loop over the searches of the gallery of seed 0."""
    rows = np.load(folder / "embeddings.npy").astype(np.float64)
    labels = np.load(folder / "labels.npy")
    split = draw_gallery(labels)
    if mean:
        rows -= rows[split.gallery].mean(axis=0)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    hits = 0
    for i in split.mated.tolist():
        best = max(split.gallery.tolist(), key=lambda j: float(rows[i] @ rows[j]))
        hits += int(labels[best] == labels[i])
    return hits, len(split.mated)


@pytest.mark.parametrize("centre", [False, True])
def test_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, centre: bool
) -> None:
    folder = write(tmp_path / "probes", np.repeat(np.arange(60), [1, 2, 4] * 20), model={**MODEL, "centre": centre})
    line = ["evaluate.py", "--embeddings", str(folder), "--protocol", "identification", "--targets", "0.5,1e-2"]
    monkeypatch.setattr(sys, "argv", line)
    assert evaluate.main() == 0
    said = capsys.readouterr().out
    out = folder / "identification"
    written = json.loads((out / "metrics.json").read_text())
    hits, total = rank_one(folder, centre)
    assert written["metrics"]["rank_1"] == hits / total
    assert written["details"]["mated"] == total == 20 + 60
    assert written["details"]["non_mated"] == 20
    assert written["index"]["kind"] == "flat"
    assert written["index"]["recall_at_10"] == 1
    assert f"{hits}/{total}" in said
    assert "gallery   40 identities, 1 image each, drawn with seed 0" in said
    assert "! TPIR at FPIR 1e-2" in said
    assert "fewer than 30 false alarms expected" in said
    assert ("the mean of the gallery is subtracted" in said) == centre
    assert said.startswith((out / "report.txt").read_text().strip())
    assert (out / "identification.png").read_bytes()[:4] == b"\x89PNG"


def test_among_distractors(probes: Path, tmp_path: Path) -> None:
    others = write(tmp_path / "others", np.arange(300), seed=5, prefix="stranger")
    said = assess_identification(probes, distractors=others)
    assert "300 distractors of" in said
    assert "280 mated, 120 non-mated" in said  # 20 * 2 * 1 + 20 * 4 * 3 and 20 * 2 + 20 * 4
    assert (probes / "identification-others" / "metrics.json").is_file()
    assert "bear the name" not in said
    same = write(tmp_path / "same", np.arange(300), seed=5)
    assert "! 40 distractor identities bear the name of a searched one" in assess_identification(
        probes, distractors=same
    )


def test_no_one_unknown(probes: Path) -> None:
    folder = write(probes.parent / "all", np.repeat(np.arange(30), 3))
    said = assess_identification(folder, unenrolled=0.0)
    assert "no FPIR: every search has a mate; --unenrolled 0.2" in said
    assert "48 mated, 18 non-mated" in assess_identification(folder, unenrolled=0.2)


def test_what_does_not_fit(probes: Path, tmp_path: Path) -> None:
    labels = np.arange(50)
    other = write(tmp_path / "other", labels, model={**MODEL, "sha256": "b" * 64})
    with pytest.raises(ValueError, match=r"is not of the model of .*: embed both by the same"):
        assess_identification(probes, distractors=other)
    with pytest.raises(ValueError, match="nobody's image is a distractor to himself"):
        assess_identification(probes, distractors=write(tmp_path / "again", labels, dataset_id="probes"))
    with pytest.raises(ValueError, match="leave out the options of a gallery"):
        assess_identification(probes, distractors=other, gallery_images=2)
    assert not (probes / "identification").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ([], "--protocol identification needs --embeddings"),
        (["--embeddings", "nowhere", "--baselines"], "--baselines has no meaning with --protocol identification"),
        (["--embeddings", "nowhere", "--targets", "1e-2,few"], "invalid rates value: '1e-2,few'"),
        (["--embeddings", "nowhere"], "nowhere holds no embeddings"),
    ],
)
def test_flags_that_do_not_fit(
    line: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluate.py", "--protocol", "identification", *line])
    try:
        code = evaluate.main()
    except SystemExit as error:  # argparse ends that way
        code = error.code
    assert code == 2
    assert message in capsys.readouterr().err
