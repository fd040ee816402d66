"""Leave one source out: figures recomputed, no threshold from the source, a restart, and what is refused."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from fastface.assess import held_out_source
from fastface.assess.leave_one_out import assess_leave_one_out
from fastface.conversion.convert import convert
from fastface.conversion.options import Options
from fastface.data.attacks import read_attacks
from fastface.data.image_sets import ShardImages
from fastface.data.images import ImageSpec
from fastface.data.index import Index
from fastface.data.selection import Selection, select
from fastface.data.units import content_keys
from fastface.liveness_scorer import load_liveness
from tests.data.attack_sets import attack_set, write_sources

CONFIG = """
task: {name: liveness}
model: {backbone: test_resnet, dropout: 0}
data: {size: [24, 24], plan: {name: weighted, columns: [label, attack]}}
optim: {name: adam, lr: 0.001}
train: {epochs: 2, batch_size: 16}
checkpoint: {every_steps: 3}
log: {tensorboard: false}
runtime: {device: cpu, threads: 1}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folds")
    attack_set(folder, subjects=5, known=False)
    (folder / "liveness.yaml").write_text(CONFIG)
    return folder


def assess(place: Path, out: Path, *overrides: str, data: tuple[Path, ...] = (), minutes: float | None = None) -> str:
    with patch("fastface.trainer.try_draw"):  # takes longer than the steps
        return assess_leave_one_out(
            config=[place / "liveness.yaml"],
            data=data or [place / "set"],
            overrides=overrides,
            out=out,
            minutes=minutes,
        )


@pytest.fixture(scope="module")
def done(place: Path) -> tuple[Path, str]:
    return place / "out", assess(place, place / "out")


def result_of(out: Path, source: str) -> dict[str, Any]:
    return json.loads((out / source / "fold.json").read_text())


def scores_on(run: Path, index: Index) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Score a selection image by image, resized as make_shards --size does."""
    images, found, scorer = ShardImages(index, ImageSpec(size=(24, 24))), read_attacks(index), load_liveness(run)
    scores = np.concatenate([scorer.scores(images.load(i)[None]) for i in range(len(images))])
    assert found.attack is not None
    return scores.astype(np.float64), found.live, [found.names[k] for k in found.attack.tolist()]


def eer_gap(scores: np.ndarray, live: np.ndarray) -> tuple[float, float]:
    """Return the interval of thresholds at which FAR and FRR are nearest, going through all."""
    best, gap = (2.0, 2.0), (0.0, 0.0)
    marks = [-np.inf, *np.unique(scores).tolist()]
    for low, high in itertools.pairwise(marks):
        far, frr = float((scores[~live] >= high).mean()), float((scores[live] < high).mean())
        if (abs(far - frr), (far + frr) / 2) < best:
            best, gap = (abs(far - frr), (far + frr) / 2), (low, high)
    return gap


@pytest.mark.parametrize("source", ["A", "B", "C"])
def test_figures_are_those_of_the_source_at_a_threshold_of_the_others(
    place: Path, done: tuple[Path, str], source: str
) -> None:
    result = result_of(done[0], source)
    run = done[0] / source / result["run"]
    whole = Index.open(place / "set")
    without = {"source": [source]}
    (trained,) = select([whole], Selection({}, without, 0.2), "data")
    (development,) = select([whole], Selection({}, without, 0.2, "share"), "data")
    (test,) = select([whole], Selection({"source": [source]}), "data")
    assert len(trained) + len(development) + len(test) == len(whole)
    assert result["trained_on"] == len(trained)
    assert set(content_keys(development).tolist()).isdisjoint(content_keys(trained).tolist())
    scores, live, _ = scores_on(run, development)
    low, high = eer_gap(scores, live)
    assert low <= result["threshold"] <= high or result["threshold"] == pytest.approx((low + high) / 2, abs=1e-6)
    scores, live, attack = scores_on(run, test)
    accepted = scores >= result["threshold"]
    species = {name: accepted[[a == name for a in attack]].mean() for name in ("print", "replay")}
    metrics = result["metrics"]
    assert metrics["bpcer"] == pytest.approx((~accepted[live]).mean())
    assert metrics["apcer"] == pytest.approx(max(species.values()))
    assert metrics["acer"] == pytest.approx((metrics["apcer"] + metrics["bpcer"]) / 2)
    assert metrics["hter"] == pytest.approx((accepted[~live].mean() + (~accepted[live]).mean()) / 2)
    wins = np.mean([(a > b) + (a == b) / 2 for a in scores[live] for b in scores[~live]])
    assert metrics["auc"] == pytest.approx(wins)


def test_the_table_has_every_source_mean_and_spread(done: tuple[Path, str]) -> None:
    out, text = done
    written = json.loads((out / "leave-one-source-out.json").read_text())
    assert [fold["source"] for fold in written["folds"]] == ["A", "B", "C"]
    for figure in ("hter", "auc", "apcer", "bpcer", "acer"):
        values = [result_of(out, source)["metrics"][figure] for source in "ABC"]
        mean = sum(values) / 3
        assert f"{mean:.4f}" in text
        assert f"{(sum((value - mean) ** 2 for value in values) / 2) ** 0.5:.4f}" in text
    assert "by hash only: not every image tells who it shows" in text
    assert text.startswith((out / "leave-one-source-out.txt").read_text().rstrip("\n"))
    assert (out / "leave-one-source-out.png").stat().st_size > 10_000


def test_what_is_done_is_not_done_again_and_what_was_interrupted_goes_on(
    place: Path, done: tuple[Path, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(done[0], out)
    (out / "B" / "fold.json").unlink()  # killed before it was written
    run = next((out / "B").glob("*/checkpoints"))
    for step in sorted(run.iterdir())[1:]:
        shutil.rmtree(step)
    shutil.rmtree(out / "C")
    trained: list[str] = []

    def train(run: Any) -> int:
        trained.append(f"{run.folder.parent.name} from {run.start_step}")
        return held_out_source_train(run)

    held_out_source_train = held_out_source.train
    with patch("fastface.assess.held_out_source.train", train):
        assert assess(place, out).splitlines()[:12] == done[1].splitlines()[:12]
    assert trained == ["B from 3", "C from 0"]
    for source in "BC":
        again, before = result_of(out, source), result_of(done[0], source)
        assert {k: v for k, v in again.items() if k not in ("seconds", "run")} == {
            k: v for k, v in before.items() if k not in ("seconds", "run")
        }


def test_other_settings_or_data_are_refused(place: Path, done: tuple[Path, str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"A.fold.json is the result of other settings or data: choose another --out"):
        assess(place, done[0], "--optim.lr", "0.01")
    other = attack_set(tmp_path, subjects=6, known=False)
    with pytest.raises(ValueError, match="is the result of other settings or data"):
        assess(place, done[0], data=(other.path,))


def test_a_stop_is_told(place: Path, tmp_path: Path) -> None:
    with patch("fastface.assess.held_out_source.train", lambda run: 75):
        with pytest.raises(KeyboardInterrupt, match=r"stopped and saved in .*the same command goes on from here"):
            assess(place, tmp_path / "out")
    assert not list(tmp_path.rglob("fold.json"))


def test_time_is_said_first_and_bounded(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stop = patch("fastface.assess.leave_one_out.run_fold", side_effect=KeyboardInterrupt)
    clock = patch("fastface.assess.leave_one_out.seconds_of_step", lambda *_: 10.0)
    with stop, clock, pytest.raises(KeyboardInterrupt):
        assess(place, tmp_path / "out", minutes=2)
    said = capsys.readouterr().err
    assert "3 folds of 6 steps: about 4.1 minutes for train.epochs 2; 2 minutes allow 1, so train.epochs is 1" in said
    with stop, pytest.raises(KeyboardInterrupt):
        assess(place, tmp_path / "out", minutes=2)  # no clock: what was chosen is kept
    assert "minutes" not in capsys.readouterr().err
    with stop, clock, pytest.raises(KeyboardInterrupt):
        assess(place, tmp_path / "other", "--train.max_steps", "3")  # the user's own word
    assert "so train.epochs" not in capsys.readouterr().err


def test_several_shard_sets_are_sources(place: Path, tmp_path: Path) -> None:
    raw = write_sources(tmp_path / "raw", subjects=3, images=1)
    for name in "ABC":
        spec = ImageSpec(size=(24, 24), lossless=True)
        convert(Options("liveness", raw / name, tmp_path / name, spec, workers=1, seed=ord(name)))
    out = tmp_path / "out"
    stop = patch("fastface.assess.leave_one_out.run_fold", side_effect=KeyboardInterrupt)
    with stop, pytest.raises(KeyboardInterrupt):
        assess(place, out, "--train.epochs", "1", data=tuple(tmp_path / name for name in "ABC"))
    joined = Index.open(out / "joined")
    assert joined.meta["values"]["source"] == ["A", "B", "C"]
    assert joined.meta["values"]["subject"] == [f"{name}/{k:03d}" for name in "ABC" for k in range(3)]
    images = ShardImages(joined)
    row = 0
    for name in "ABC":
        part = Index.open(tmp_path / name)
        for i in range(len(part)):
            assert joined.name(row) == f"{name}/{part.name(i)}"
            assert joined.classes[joined.label[row]] == part.classes[part.label[i]]
            for column in ("attack", "subject", "source"):
                here = joined.meta["values"][column][joined.columns[column][row]]
                there = name if column == "source" else part.meta["values"][column][part.columns[column][i]]
                assert here in (there, f"{name}/{there}")
            assert np.array_equal(images.load(row), ShardImages(part).load(i))
            row += 1
    assert row == len(joined)


def test_a_person_of_another_source_and_a_copied_image_are_refused(place: Path, tmp_path: Path) -> None:
    raw = write_sources(tmp_path / "raw", subjects=3, known=False)
    shutil.copy(raw / "A" / "real" / "xa_0.png", raw / "B" / "real" / "same.png")
    convert(Options("liveness", raw, tmp_path / "set", ImageSpec(lossless=True), workers=1))
    with pytest.raises(ValueError, match=r"source A shares with the others: 1 images \(A/real/xa_0.png\)"):
        assess(place, tmp_path / "out", data=(tmp_path / "set",))


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (("--data.only", "source", "A"), "has no source to hold out beside others: all is of A"),
        (("--data.without", "label", "spoof"), "source A has live images only"),
    ],
)
def test_what_cannot_be_done_is_said(place: Path, tmp_path: Path, overrides: tuple[str, ...], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        assess(place, tmp_path / "out", *overrides)
    (tmp_path / "other.yaml").write_text("task: {name: arcface}\n")
    with pytest.raises(ValueError, match=r"is for task liveness, .* has task arcface"):
        assess_leave_one_out(config=[tmp_path / "other.yaml"], data=[place / "set"])
    with pytest.raises(ValueError, match="needs --config"):
        assess_leave_one_out(config=[], data=[place / "set"])
