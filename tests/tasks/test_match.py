"""What compares embeddings learns, goes on to the bit, beats the cosine where it can, ships, and says what is wrong."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from fastface.assess.match import assess_matcher
from fastface.card import Card, MatchCard
from fastface.command import load_config
from fastface.comparator import load_matcher
from fastface.data.batch import Batch
from fastface.data.embedding_index import EmbeddingIndex
from fastface.data.plans.neighbours import write_neighbours
from fastface.models.matcher import Matcher
from fastface.predictor import find_checkpoint, load_embedder
from fastface.ship.export import export
from fastface.ship.rows_export import ExportedRows, calibration_pairs
from fastface.tasks.match import Match
from tests.embedded import write_rows
from tests.training import assert_same_bits, cut_back, log_lines, losses, run_here, weights

STEPS, MIDDLE = 24, 16
KINDS: dict[str, dict[str, Any]] = {
    "cosine": {"task": {"features": "cosine"}},
    "linear": {"task": {"centre": True}},
    "perceptron": {"task": {"hidden": [16], "dropout": 0.1}, "optim": {"ema_decay": 0.8}},
    "hardest": {"task": {"keep_hardest": 0.5}, "data": {"plan": {"name": "pairs", "genuine": 0.25}}},
    "all": {"task": {"pairs": "all"}, "data": {"plan": {"name": "per-identity", "images": 4}}},
    "mined": {"task": {"pairs": "all"}, "data": {"plan": {"name": "mined", "images": 4, "neighbours": 1}}},
    "two models": {"task": {"hidden": [8]}, "data": {"embeddings": ["ROWS", "OTHER"]}},
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make train, other (the same images by another model), val (other people), and a miner's file."""
    folder = tmp_path_factory.mktemp("rows")
    write_rows(folder / "train", people=30, images=4, failed=(7,))
    write_rows(folder / "other", people=30, images=4, size=6, noisy=2, model="b")
    write_rows(folder / "val", people=20, images=4, first_person=30, failed=(2,))
    index = EmbeddingIndex([folder / "train"])
    write_neighbours(folder / "mined.npz", (np.arange(30)[:, None] + [1, 2]) % 30, index.dataset_id)
    return folder


def write_match(folder: Path, rows: Path, name: str = "linear", **sections: dict[str, Any]) -> Path:
    content: dict[str, Any] = {
        "task": {"name": "match", "scale": 4.0, "bias": 0.0},
        "data": {"embeddings": "ROWS", "plan": {"name": "pairs"}},
        "optim": {"name": "adam", "lr": 0.03, "weight_decay": 0.0},
        "train": {"epochs": 50, "batch_size": 64, "micro_batch": 32, "max_steps": STEPS},
        "eval": {"every_epochs": None},
        "checkpoint": {"every_steps": MIDDLE},
        "log": {"every_steps": 2, "tensorboard": False},
        "runtime": {"device": "cpu", "threads": 1},
        "out": str(folder / "runs"),
    }
    for overlay in (KINDS[name], sections):
        for section, values in overlay.items():
            content[section] = {**content[section], **values}
    if content["data"]["plan"]["name"] == "mined":
        content["data"]["plan"]["file"] = str(rows / "mined.npz")
    text = yaml.safe_dump(content).replace("ROWS", str(rows / "train")).replace("OTHER", str(rows / "other"))
    path = folder / "match.yaml"
    path.write_text(text.replace("VAL", str(rows / "val")))
    return path


VAL = {"sets": {"val": {"embeddings": "VAL", "pairs": 200}}}


@pytest.mark.parametrize("name", KINDS)
def test_the_loss_falls_and_a_restart_keeps_every_bit(rows: Path, tmp_path: Path, name: str) -> None:
    config = write_match(tmp_path, rows, name)
    straight = run_here(config)
    values = list(losses(straight).values())
    assert len(values) == STEPS
    assert np.mean(values[-8:]) < 0.95 * np.mean(values[:8])
    copy = tmp_path / "again"
    shutil.copytree(straight, copy)
    cut_back(copy, MIDDLE)
    run_here(config, resume=str(copy))
    assert (copy / "metrics.jsonl").read_text() == (straight / "metrics.jsonl").read_text()
    assert_same_bits(weights(copy, STEPS), weights(straight, STEPS))


def slow_loss(logits: list[float], labels: list[int], pairs: list[tuple[int, int]], share: float, keep: float) -> float:
    found = []
    for logit, (a, b) in zip(logits, pairs, strict=True):
        same = labels[a] == labels[b]
        weight = 0.5 / share if same else 0.5 / (1 - share)
        found.append(weight * np.logaddexp(0, -logit if same else logit))
    kept = sorted(found, reverse=True)[: round(keep * len(found))]
    return float(np.mean(kept))


@pytest.mark.parametrize("keep", [1.0, 0.5])
def test_the_loss_weighs_both_kinds_alike(keep: float) -> None:
    labels = [0, 0, 1, 2, 3, 3, 4, 5]
    rows = torch.randn(8, 6, dtype=torch.float64)
    neighbours = [(0, 1), (2, 3), (4, 5), (6, 7)]
    every = [(a, b) for a in range(8) for b in range(a + 1, 8)]
    for pairs, chosen, share in (("neighbours", neighbours, 0.25), ("all", every, 2 / 28)):
        task = Match(Matcher((6,), pairs=pairs), genuine=0.25, keep_hardest=keep).double()  # type: ignore[arg-type]
        batch = Batch(rows, torch.tensor(labels), np.arange(8), 0, 0)
        logits = task.backbone(task.inputs(batch))
        out = task.loss(logits, task.targets(batch))
        assert out.loss.item() == pytest.approx(slow_loss(logits.tolist(), labels, chosen, share, keep))
    assert out.terms["genuine"].item() == pytest.approx(2 / 28)
    right = {True: [], False: []}
    for logit, (a, b) in zip(logits.tolist(), every, strict=True):
        right[labels[a] == labels[b]].append((logit > 0) == (labels[a] == labels[b]))
    assert out.terms["accuracy"].item() == pytest.approx((np.mean(right[True]) + np.mean(right[False])) / 2)


@pytest.fixture(scope="module")
def learned(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("learned")
    more = {"train": {"max_steps": 150}, "checkpoint": {"every_steps": 1000}, "eval": {**VAL, "best_metric": "val/auc"}}
    return run_here(write_match(folder, rows, "linear", **more))


def test_it_learns_which_values_count_and_is_better_than_the_cosine_on_other_people(
    learned: Path, rows: Path, tmp_path: Path
) -> None:
    text = assess_matcher(learned, embeddings=[rows / "val"], pairs="400", out=tmp_path)
    found = json.loads((tmp_path / "metrics.json").read_text())
    match, cosine = found["match"], found["cosine"]
    assert match["metrics"]["auc"] > cosine["metrics"]["auc"] + 0.05
    assert match["calibration"]["cllr"] < cosine["calibration"]["cllr"]
    assert match["details"]["failures"]["genuine"] > 0  # row 2 of val failed, and counts
    accuracy = cosine["match_beside_it"][0]
    assert accuracy["changed"]["gained"] > accuracy["changed"]["lost"]
    assert accuracy["gain"] == pytest.approx(match["metrics"]["acc"] - cosine["metrics"]["acc"], abs=0.01)
    assert accuracy["interval"][0] < accuracy["gain"] < accuracy["interval"][1]
    assert "match beside it, accuracy" in text
    assert cosine["tuned"]["F1"]["f1"] < match["tuned"]["F1"]["f1"]
    assert {file.name for file in tmp_path.iterdir()} == {
        "metrics.json",
        "pairs.csv",
        "verification.png",
        "calibration.png",
    }
    (step,) = [line["eval"] for line in log_lines(learned) if "eval" in line]
    assert step["val/auc"] > 0.9


@pytest.fixture(scope="module")
def made(learned: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportedRows:
    found = export(learned, out=tmp_path_factory.mktemp("export"), targets=(0.3, 0.01))
    assert isinstance(found, ExportedRows)
    return found


def test_it_ships(learned: Path, made: ExportedRows, rows: Path, tmp_path: Path) -> None:
    assert made.difference < 1e-5
    card = MatchCard.read(made.path.with_name("model.json"))
    assert card == made.card
    assert (card.kind, card.embedding_sizes, card.embeddings[0]["model"]) == ("match", (8,), {"sha256": "a"})
    assert [t.target_fmr for t in card.thresholds] == [0.3, 0.01]
    assert [t.supported for t in card.thresholds] == [True, False]
    assert card.calibration is not None
    assert card.thresholds[0].model_sha256 == card.calibration.model_sha256
    assert card.thresholds[0].model_sha256 == hashlib.sha256(made.path.read_bytes()).hexdigest()
    shipped, trained = load_matcher(made.path), load_matcher(learned)
    first, second = np.random.default_rng(0).normal(size=(2, 9, 8)).astype(np.float32)
    np.testing.assert_allclose(shipped.score(first, second), trained.score(first, second), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(shipped.score(first, second), shipped.score(second, first))
    assert shipped.score(first[:1], second[:1]).shape == (1,)
    report = made.report()
    assert "log-likelihood ratio =" in report
    assert "a guess" in report
    again = assess_matcher(made.path, embeddings=[rows / "val"], pairs="200", out=tmp_path)
    assert "at the card's threshold" in again


def test_calibrated_on_other_pairs(learned: Path, rows: Path, tmp_path: Path) -> None:
    lines = ["a,b,same"]
    lines += [f"p{p:03d}/1.jpg,p{q:03d}/3.jpg,{int(p == q)}" for p in range(30, 40) for q in range(30, 40)]
    (tmp_path / "pairs.csv").write_text("\n".join(lines) + "\n")
    saved, card = find_checkpoint(learned), load_matcher(learned).card
    chosen = calibration_pairs(saved, card, tmp_path / "pairs.csv", rows / "val")
    assert chosen is not None
    assert (int(chosen.pairs.same.sum()), int((~chosen.pairs.same).sum())) == (10, 90)
    with pytest.raises(ValueError, match="say where they are: --images EMBEDDINGS"):
        calibration_pairs(saved, card, tmp_path / "pairs.csv", None)
    sampled = calibration_pairs(saved, card, rows / "val", None)
    assert sampled is not None
    assert "pairs sampled from" in sampled.about
    default = calibration_pairs(saved, card, None, None)
    assert default is not None
    assert default.about.startswith("200 pairs")


def test_each_tool_names_what_belongs_to_the_other(
    learned: Path, made: ExportedRows, rows: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="compares embeddings, and takes no images"):
        load_embedder(learned)
    with pytest.raises(ValueError, match="compares embeddings, and takes no images"):
        Card.read(made.path.with_name("model.json"))
    with pytest.raises(ValueError, match=r"embeddings of 6 values, the matcher compares 8"):
        assess_matcher(learned, embeddings=[rows / "other"], pairs="9", out=tmp_path)


def test_other_embeddings_do_not_go_on(rows: Path, tmp_path: Path) -> None:
    run = run_here(write_match(tmp_path, rows), "--train.max_steps", "2")
    other = write_rows(tmp_path / "other", people=30, images=4, model="c", failed=(7,))
    with pytest.raises(ValueError, match=r"data\.embeddings are of another model"):
        run_here(write_match(tmp_path, rows), "--data.embeddings", str(other), resume=str(run))


def test_left_out_rows_are_said(rows: Path, tmp_path: Path) -> None:
    run = run_here(write_match(tmp_path, rows), "--train.max_steps", "1")
    assert "1 of 120 rows left out" in (run / "log.txt").read_text()


ONE_EACH = {"plan": {"name": "per-identity", "images": 1}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {"plan": {"name": "shuffled"}}}, "set data.plan.name: pairs"),
        ({"data": {"plan": {"name": "pairs", "genuine": 1.0}}}, "set data.plan.name: pairs"),
        (
            {
                "task": {"pairs": "all"},
                "data": ONE_EACH,
                "train": {"batch_size": 16, "micro_batch": 16},
            },
            "at most 1 image",
        ),
        ({"train": {"batch_size": 30, "micro_batch": 15}}, "take a multiple of 2"),
        ({"data": {"shards": "x"}}, "either shards or sources or embeddings"),
        ({"data": {"embeddings": []}}, "go together"),
        ({"data": {"embeddings": [], "shards": "x"}}, "go together"),
        ({"task": {"features": "cosine", "hidden": [4]}}, "leaves nothing to combine"),
        ({"eval": {"sets": {"val": {"images": "x"}}}}, "is evaluated on embeddings"),
        ({"eval": {"sets": {"val": {"images": "x", "embeddings": "y"}}}}, "images (with pairs) or bin or embeddings"),
        ({"eval": {"flip": "sum"}}, "is evaluated as it is"),
        ({"model": {"weights": "x"}}, "has no network of images"),
    ],
)
def test_what_cannot_be_is_refused(rows: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    config = write_match(tmp_path, rows)
    content = yaml.safe_load(config.read_text())
    for section, values in change.items():
        content[section] = {**content.get(section, {}), **values}
    config.write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match=r".") as caught:
        run_here(config)
    assert message in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_images_are_not_evaluated_as_embeddings(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("eval: {sets: {val: {embeddings: x}}}")
    with pytest.raises(ValueError, match="task arcface is evaluated on images"):
        load_config(tmp_path / "c.yaml")


def test_one_folder_or_several_on_the_command_line(rows: Path, tmp_path: Path) -> None:
    config = write_match(tmp_path, rows)
    both = load_config(config, overrides=["--data.embeddings", "a", "b"]).data.embeddings
    assert both == (Path("a"), Path("b"))
    again = tmp_path / "again.yaml"
    again.write_text(load_config(config).dump())
    assert load_config(again) == load_config(config)
