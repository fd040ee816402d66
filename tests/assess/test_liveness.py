"""evaluate.py --protocol liveness on tiny runs: figures, files, ensembles, and refusals that say why."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastface.assess.attack_models import score_set
from fastface.assess.attack_sets import matched, score_sets
from fastface.assess.liveness import assess_liveness
from fastface.conversion.convert import convert
from fastface.conversion.options import Options
from fastface.eval_settings import EvalSet
from fastface.evaluate import main
from fastface.liveness_card import LivenessCard
from fastface.liveness_evaluation import open_attacks
from fastface.liveness_scorer import LivenessScorer, load_liveness
from fastface.metrics.attacks import attack_figures, presented_figures, threshold_at
from tests.attacked import PX, write_attacks
from tests.training import run_here, write_task

BASE = (
    "optim: {name: adam, lr: 0.001, warmup_epochs: 0}\n"
    "model: {backbone: test_resnet, dropout: 0}\n"
    "data: {flip: 0, plan: {name: weighted}}\n"
    "checkpoint: {every_steps: 100}\n"
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_attacks(tmp_path_factory.mktemp("attacks"), people=8)


@pytest.fixture(scope="module")
def runs(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    found = []
    for steps in (4, 8):
        folder = tmp_path_factory.mktemp("run")
        limit = f"train: {{epochs: 50, max_steps: {steps}, micro_batch: 8}}\n"
        found.append(run_here(write_task(folder, shards / "train", "{name: liveness}", BASE, limit)))
    return found


def brightness(size: int = PX) -> LivenessScorer:
    """Take bright images for live: a model whose scores can be recomputed by hand."""
    card = LivenessCard(input_size=(size, size), mean=0.0, std=255.0, classes=("live", "spoof"))

    def network(planar: np.ndarray) -> np.ndarray:
        mean = planar.reshape(len(planar), -1).mean(axis=1)
        return np.stack([mean, np.zeros_like(mean)], axis=1).astype(np.float32)

    return LivenessScorer(network, card, "brightness")


def test_a_run_is_judged_at_the_development_sets_threshold(shards: Path, runs: list[Path], tmp_path: Path) -> None:
    text = assess_liveness(runs[:1], images=[shards / "val"], dev=[shards / "train"], at="bpcer=0.1", out=tmp_path)
    scorers = {"run": load_liveness(runs[0])}
    test = score_sets([shards / "val"], scorers, option="--images", batch=7)
    dev = score_sets([shards / "train"], scorers, option="--dev", batch=7)
    expected = presented_figures(test.presented("run"), threshold_at(dev.presented("run"), "bpcer=0.1")).metrics
    content = json.loads((tmp_path / "metrics.json").read_text())
    (name,) = content["models"]
    assert content[name]["metrics"] == expected
    assert f"bpcer=0.1 of {shards / 'train'}" in text
    assert content[name]["details"]["persons"] == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["attacks.png", "metrics.json", "scores.csv"]


def test_scores_csv_gives_the_figures_back(shards: Path, runs: list[Path], tmp_path: Path) -> None:
    """A user's own few lines over scores.csv find what metrics.json says."""
    assess_liveness(runs, images=[shards / "val"], threshold_from="test-eer", out=tmp_path)
    content = json.loads((tmp_path / "metrics.json").read_text())
    with open(tmp_path / "scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    live = np.array([row["live"] == "1" for row in rows])
    attack = [row["attack"] for row in rows]
    people = sorted({row["subject"] for row in rows})
    assert len(people) == 4
    names = [name for name in content if isinstance(content[name], dict) and "metrics" in content[name]]
    assert len(names) == 3
    for name in names:
        scores = np.array([row[name] for row in rows], np.float32)
        found = attack_figures(scores, live, attack).metrics
        assert content[name]["metrics"]["acer_test_eer"] == found["acer"]
        assert content[name]["metrics"]["auc"] == found["auc"]
        assert "acer" not in content[name]["metrics"]
    singles = np.array([[row[name] for name in names[1:]] for row in rows], np.float64)
    np.testing.assert_allclose([float(row[names[0]]) for row in rows], singles.mean(axis=1), rtol=1e-6)


def test_the_command_with_groups_columns_and_a_page(
    shards: Path, runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["--protocol", "liveness", "--checkpoint", *runs, "--images", shards / "val", "--dev", shards / "train"]
    line += ["--by", "subject", "--attack-groups", "2d=print,replay", "--report", tmp_path / "page"]
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *map(str, line)])
    assert main() == 0
    text = capsys.readouterr().out
    for words in ("ensemble of 2", "by attack", "2d", "by subject", "ensemble of 2 minus", "report.html"):
        assert words in text
    page = (tmp_path / "page" / "report.html").read_text()
    assert page.count("data:image/") > 1
    assert "Accepted attacks" in page
    assert "Live faces refused" in page
    assert (tmp_path / "page" / "metrics.json").is_file()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "its card has no threshold, not for eer: give --dev"),
        (["--threshold-from", "dev"], "needs a development set"),
        (["--threshold-from", "test-eer", "--at", "bpcer=0.1"], "needs --dev"),
        (["--threshold-from", "test-eer", "--dev", "SET/train"], "--dev has no meaning"),
        (["--dev", "SET/val"], "are the same images"),
        (["--dev", "SET/train", "--by", "sourc"], "--by 'sourc'"),
        (["--dev", "SET/train", "--attack-groups", "2d=print,mask"], "no attack 'mask'"),
        (["--dev", "SET/train", "SET/train"], "2 sets for 1 models"),
        (["--dev", "SET/none"], "is no shard set"),
        (["--dev", "SET/train", "--at", "apcer"], "a threshold is chosen at"),
    ],
)
def test_refusals(
    shards: Path,
    runs: list[Path],
    more: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = ["--protocol", "liveness", "--checkpoint", runs[0], "--images", shards / "val"]
    line += [one.replace("SET", str(shards)) for one in more]
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *map(str, line)])
    assert main() == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--checkpoint", "--images"])
def test_other_protocols_take_one(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluate.py", "--checkpoint", "a", option, "b", "c"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2


def smaller(shards: Path, folder: Path, *, without: str = "") -> Path:
    """Make the val set again at half the size, from the pictures it was made of."""
    raw = shards.parent / "raw"
    for file in sorted((raw / "val").rglob("*.png")):
        place = folder / "raw" / file.relative_to(raw)
        place.parent.mkdir(parents=True, exist_ok=True)
        if file.name != without:
            Image.open(file).resize((PX // 2, PX // 2)).save(place)
    convert(Options("liveness", folder / "raw", folder / "set", shard_size=5, workers=1))
    return folder / "set" / "val"


def test_models_that_take_other_sizes_judge_the_same_images(shards: Path, tmp_path: Path) -> None:
    small = smaller(shards, tmp_path)
    scorers = {"large": brightness(), "small": brightness(PX // 2)}
    found = score_sets([shards / "val", small], scorers, option="--images", batch=16)
    opened = open_attacks(EvalSet(images=small), scorers["small"].card)
    for i, name in enumerate(found.index.name(i) for i in range(len(found.index))):
        pixels = opened.images.load(int(opened.images.index.find([name])[0]))
        expected = 1 / (1 + np.exp(-float(pixels.mean()) / 255))
        assert found.scores["small"][i] == pytest.approx(expected, abs=1e-6)
    mean = (found.scores["large"].astype(np.float64) + found.scores["small"]) / 2
    np.testing.assert_array_equal(found.scores["ensemble of 2"], mean.astype(np.float32))


def test_rows_are_matched_by_name(shards: Path, tmp_path: Path) -> None:
    here = score_set(shards / "val", brightness(), batch=16)
    there = score_set(smaller(shards, tmp_path), brightness(PX // 2), batch=16)
    order = np.random.default_rng(0).permutation(len(there.records))
    shuffled = there._replace(records=there.records[order], live=there.live[order], scores=there.scores[order])
    for row, place in enumerate(matched(here, shuffled).tolist()):
        assert there.images.name(int(shuffled.records[place])) == here.images.name(int(here.records[row]))
    with pytest.raises(ValueError, match="disagree about what is live in 36 images"):
        matched(here, there._replace(live=~there.live))


def test_sets_of_other_images_are_refused(shards: Path, tmp_path: Path) -> None:
    scorers = {"large": brightness(), "small": brightness(PX // 2)}
    part = smaller(shards, tmp_path, without="client009_1.png")
    for paths in ([shards / "val", part], [part, shards / "val"]):
        with pytest.raises(ValueError, match=r"3 of 36 images of .* the first is '.*client009_1.png'"):
            score_sets(paths, scorers, option="--images", batch=16)
