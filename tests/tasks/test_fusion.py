"""A fusion learns, goes on to the bit, is judged beside simpler ways, ships, and says what is wrong."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fastface.assess.fusion import assess_fusion
from fastface.card import Card
from fastface.command import load_config
from fastface.fuser import load_fusion, pool
from fastface.fusion_card import FusionCard
from fastface.predictor import load_embedder
from fastface.ship.export import export
from fastface.ship.rows_export import ExportedRows
from tests.embedded import write_rows
from tests.training import assert_same_bits, cut_back, log_lines, losses, run_here, weights

STEPS, MIDDLE = 24, 16
PAIRS = {"plan": {"name": "pairs"}}
KINDS: dict[str, dict[str, Any]] = {
    "mlp": {"task": {"network": "mlp", "loss": {"name": "contrastive", "margin": 0.9}}},
    "skip": {"task": {"loss": {"name": "multi-similarity", "beta": 10.0}}},
    "average": {"task": {"batch_norm": True, "dropout": 0.1}, "optim": {"ema_decay": 0.8}},
    "arcface": {"task": {"network": "linear", "loss": {"name": "arcface", "s": 16.0}}},
    "supcon": {"task": {"quality": "gate", "learn_scales": True, "loss": {"name": "supcon"}}},
    "triplet": {"task": {"quality": "norm", "network": "mlp", "loss": {"name": "triplet", "margin": 0.5}}},
    "pair": {"task": {"network": "mlp", "loss": {"name": "pair"}}, "data": PAIRS},
    "sets": {"task": {"network": "mlp", "set_size": 2, "pooling": "attention", "loss": {"name": "supcon"}}},
    "sets arcface": {
        "task": {"network": "mlp", "set_size": 4, "pooling": "norm", "loss": {"name": "arcface", "s": 16.0}}
    },
    "synthetic": {"task": {"network": "mlp", "synthetic": True}, "data": {"embeddings": []}},
}
PEOPLE = {"identities": 30, "samples": 4, "val_identities": 20, "test_identities": 20, "sizes": [8, 8, 6], "code": 6}
PEOPLE |= {"noise": [0.5, 0.6, 0.7]}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make train and other (the same images by another model), and the same of other people, val."""
    folder = tmp_path_factory.mktemp("rows")
    for name, first, failed in (("train", 0, (7,)), ("val", 30, (2,))):
        write_rows(folder / name, people=30, images=4, first_person=first, failed=failed)
        write_rows(folder / f"{name}-other", people=30, images=4, first_person=first, size=6, noisy=2, model="b")
    return folder


def write_fusion(folder: Path, rows: Path, name: str = "skip", **sections: dict[str, Any]) -> Path:
    content: dict[str, Any] = {
        "task": {"name": "fusion", "network": "skip", "hidden": [16], "embedding_size": 8, "people": PEOPLE},
        "data": {"embeddings": ["TRAIN", "TRAIN-other"], "plan": {"name": "per-identity", "images": 4}},
        "optim": {"name": "adam", "lr": 0.02, "weight_decay": 0.0},
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
    path = folder / "fusion.yaml"
    path.write_text(yaml.safe_dump(content).replace("TRAIN", str(rows / "train")).replace("VAL", str(rows / "val")))
    return path


VAL = {"sets": {"val": {"embeddings": ["VAL", "VAL-other"], "pairs": 200}}}
DRAWN = {"sets": {"val": {"drawn": "val", "pairs": 200}}}


@pytest.mark.parametrize("name", KINDS)
def test_the_loss_falls_and_a_restart_keeps_every_bit(rows: Path, tmp_path: Path, name: str) -> None:
    config = write_fusion(tmp_path, rows, name)
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


@pytest.fixture(scope="module")
def learned(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("learned")
    more = {"train": {"max_steps": 60}, "checkpoint": {"every_steps": 1000}, "eval": {**VAL, "best_metric": "val/auc"}}
    return run_here(write_fusion(folder, rows, "arcface", **more))


@pytest.fixture(scope="module")
def judged(learned: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("judged")
    text = assess_fusion(learned, embeddings=[rows / "val", rows / "val-other"], pairs="300", out=folder)
    return text, json.loads((folder / "metrics.json").read_text()), folder


def test_simpler_ways_stand_beside_it(judged: tuple[str, dict[str, Any], Path]) -> None:
    text, found, folder = judged
    results = found["results"]
    ways = ["model 1", "model 2", "concatenation", "weighted concatenation", "logistic fusion", "trained fusion"]
    assert list(results) == ways
    assert "average: none, embeddings of 8 and 6 values have no mean" in text
    assert set(found["fusion_minus"]) == {*ways} - {"trained fusion"}
    gained = results["trained fusion"]["metrics"]["auc"] - results["concatenation"]["metrics"]["auc"]
    assert gained > 0.03  # half the values of the one model, and a third of the other's, say nothing
    one = found["fusion_minus"]["concatenation"]["figures"]["auc"]
    assert one["difference"] == pytest.approx(gained)
    assert one["interval"][0] < gained < one["interval"][1]
    assert "McNemar p" in text
    assert results["trained fusion"]["details"]["failures"]["genuine"] > 0  # row 2 of val failed, and counts
    assert results["model 2"]["details"]["failures"]["genuine"] == 0
    assert {file.name for file in folder.iterdir()} == {"metrics.json", "pairs.csv", "verification.png"}


def test_training_embeddings_are_found_again_or_asked_for(learned: Path, rows: Path, tmp_path: Path) -> None:
    moved = [tmp_path / "a", tmp_path / "b"]
    shutil.copytree(rows / "train", moved[0])
    shutil.copytree(rows / "train-other", moved[1])
    given = {"embeddings": [rows / "val", rows / "val-other"], "pairs": "60"}
    where = load_config(next(iter(learned.glob("config.yaml")))).data.embeddings
    where[0].rename(where[0].with_name("away"))
    try:
        with pytest.raises(ValueError, match="--trained-on FOLDER"):
            assess_fusion(learned, **given, out=tmp_path / "out")
        assert "logistic fusion" in assess_fusion(learned, **given, trained_on=moved, out=tmp_path / "out")
    finally:
        where[0].with_name("away").rename(where[0])


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    return run_here(write_fusion(folder, folder, "synthetic", eval={**DRAWN, "best_metric": "val/acc"}))


def test_drawn_people_need_no_data(drawn: Path, tmp_path: Path) -> None:
    text = assess_fusion(drawn, pairs="200", out=tmp_path)
    assert "synthetic/test/1" in text
    assert "pairs sampled from synthetic/train/1" in text
    (step,) = [line["eval"] for line in log_lines(drawn) if "eval" in line]
    assert 0 <= step["val/acc"] <= 1
    assert json.loads((tmp_path / "metrics.json").read_text())["weights"]["concatenation"] == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("pooling", ["mean", "norm", "attention"])
def test_it_ships(rows: Path, tmp_path: Path, pooling: str) -> None:
    task = {"set_size": 2, "pooling": pooling, "loss": {"name": "supcon"}}
    run = run_here(write_fusion(tmp_path, rows, "skip", task=task, eval=VAL))
    made = export(run, targets=(0.3, 0.01))
    assert isinstance(made, ExportedRows)
    assert made.difference < 1e-5
    card = FusionCard.read(made.path.with_name("model.json"))
    assert card == made.card
    assert (card.kind, card.embedding_sizes, card.embedding_size, card.pooling) == ("fusion", (8, 6), 8, pooling)
    assert [one["model"] for one in card.embeddings] == [{"sha256": "a"}, {"sha256": "b"}]
    assert [t.supported for t in card.thresholds] == [True, False]
    assert card.thresholds[0].model_sha256 == hashlib.sha256(made.path.read_bytes()).hexdigest()
    assert b"site-packages" not in made.path.read_bytes()
    shipped, trained = load_fusion(made.path), load_fusion(run)
    noise = np.random.default_rng(0).normal(size=(9, 14)).astype(np.float32)
    np.testing.assert_allclose(shipped.fuse(noise), trained.fuse(noise), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(shipped.fuse(noise), axis=1), 1, atol=1e-6)
    assert shipped.fuse(noise[:1]).shape == (1, 8)
    np.testing.assert_allclose(shipped.fuse_set(noise), trained.fuse_set(noise), atol=1e-5)
    np.testing.assert_allclose(shipped.fuse_set(noise), shipped.fuse_set(noise[::-1]), atol=1e-6)
    mean = trained.fuse(noise).astype(np.float64).mean(0)
    same_as_mean = np.allclose(trained.fuse_set(noise), mean / np.linalg.norm(mean), atol=1e-6)
    assert same_as_mean == (pooling == "mean")
    given = {"embeddings": [rows / "val", rows / "val-other"], "pairs": "60", "out": tmp_path / "out"}
    assert "at the card's threshold" in assess_fusion(made.path, **given)
    assert "(unit embeddings)" in made.report()


def test_pooling_is_a_weighted_mean() -> None:
    fused, logs = np.random.default_rng(0).normal(size=(4, 3)), np.array([0.0, 500.0, 501.0, 2.0])
    total = sum(np.exp(log - 501) * row for log, row in zip(logs, fused, strict=True))
    np.testing.assert_allclose(pool(fused, logs), total / np.linalg.norm(total), rtol=1e-6)


def test_rows_that_do_not_fit_are_refused(learned: Path, rows: Path, tmp_path: Path) -> None:
    fuser = load_fusion(learned)
    with pytest.raises(ValueError, match=r"8 \+ 6 values side by side, \[B, 14\]; got \[2, 8\]"):
        fuser.fuse(np.ones((2, 8), np.float32))
    bad = np.ones((3, 14), np.float32)
    bad[1, 8:] = 0
    with pytest.raises(ValueError, match="row 1 has an embedding that is zero"):
        fuser.fuse(bad)
    with pytest.raises(ValueError, match="no images"):
        fuser.fuse_set(bad[:0])
    with pytest.raises(ValueError, match=r"embeddings of 8 values, the fusion takes 8 \+ 6"):
        assess_fusion(learned, embeddings=[rows / "val"], pairs="9", out=tmp_path)
    with pytest.raises(ValueError, match="holds no embeddings"):
        assess_fusion(learned, embeddings=[rows / "val", rows / "missing"], pairs="9", out=tmp_path)
    with pytest.raises(ValueError, match="draws no people: give --embeddings"):
        assess_fusion(learned, pairs="9", out=tmp_path)


def test_each_tool_names_what_belongs_to_the_other(learned: Path) -> None:
    with pytest.raises(ValueError, match="fuses embeddings, and takes no images"):
        load_embedder(learned)
    with pytest.raises(ValueError, match="is not the card of a fusion"):
        FusionCard.read(next(learned.rglob("state.json")))
    with pytest.raises(ValueError, match="--protocol fusion does"):
        Card.of({"kind": "fusion"}, "x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {"plan": {"name": "shuffled"}}, "task": {"set_size": 4}}, "data.plan.images a multiple of 4"),
        (
            {"data": {"plan": {"name": "per-identity", "images": 1}}, "train": {"batch_size": 16, "micro_batch": 16}},
            "at most 1 image",
        ),
        ({"task": {"embedding_size": 15}}, "embedding_size 15 is more than the 14 values"),
        ({"task": {"hidden": []}}, "needs hidden layers"),
        ({"task": {"pooling": "attention"}}, "set set_size to 2 or more"),
        ({"task": {"set_size": 2, "loss": {"name": "pair"}}}, "take another loss"),
        ({"task": {"loss": {"name": "arcface", "centres": "x"}}}, "loss.centres"),
        ({"task": {"loss": {"name": "supcon", "distill": {"teacher": "x"}}}}, "loss.distill"),
        ({"task": {"synthetic": True}}, "task.synthetic draws its embeddings"),
        ({"data": {"embeddings": []}}, "go together"),
        ({"data": {"embeddings": [], "shards": "x"}}, "go together"),
        ({"eval": {"sets": {"val": {"drawn": "val"}}}}, "drawn is for task fusion with task.synthetic"),
        ({"eval": {"sets": {"val": {"images": "x"}}}}, "task fusion is evaluated on embeddings"),
        ({"task": {"people": {"sizes": [8, 8], "noise": [1.0]}}}, "give one value for each"),
        ({"task": {"people": {"sizes": [8], "noise": [1.0], "code": 9}}}, "no size may be smaller"),
        ({"model": {"weights": "x"}}, "task fusion has no network of images"),
    ],
)
def test_what_cannot_be_is_refused(rows: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    config = write_fusion(tmp_path, rows)
    content = yaml.safe_load(config.read_text())
    for section, values in change.items():
        content[section] = {**content.get(section, {}), **values}
    config.write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match=r".") as caught:
        run_here(config)
    assert message in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_synthetic_is_an_option_of_the_command_line(rows: Path, tmp_path: Path) -> None:
    config = write_fusion(tmp_path, rows, "synthetic", task={"people": {}})
    found = {}
    for words in (["--task.synthetic", "true"], ["--task.synthetic", "quick"]):
        task: Any = load_config(config, overrides=words).task
        found[words[1]] = (task.drawn.identities, task.drawn.samples)
    assert found == {"true": (200, 20), "quick": (100, 15)}
    task = load_config(config, overrides=["--task.people.identities", "300"]).task
    assert (task.drawn.identities, task.drawn.samples) == (300, 20)
