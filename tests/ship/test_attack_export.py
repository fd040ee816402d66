"""A trained liveness run -> files that give torch's probabilities, with thresholds of a development set, or none."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from fastface.clip_scorer import load_temporal
from fastface.export import main
from fastface.liveness_scorer import load_liveness
from fastface.metrics.attacks import attack_figures, threshold_at
from fastface.metrics.presentations import gather_presentations
from fastface.ship.attack_acceptance import judge_attacks
from fastface.ship.attack_export import TOLERANCE
from fastface.ship.every_kind import Made, export_model
from tests.attacked import PX, write_attacks
from tests.moving import write_clips
from tests.training import run_here, write_task

BASE = (
    "model: {backbone: mobilenetv3_small_050, embedding_size: 16, dropout: 0}\n"
    "optim: {name: adam, lr: 0.003, warmup_epochs: 0}\ndata: {flip: 0}\n"
    "train: {epochs: 50, max_steps: 12}\ncheckpoint: {every_steps: 12}\n"
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_attacks(tmp_path_factory.mktemp("attacks"))


@pytest.fixture(scope="module")
def run(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    evaluation = f"eval: {{every_epochs: null, sets: {{dev: {{images: {shards / 'val'}}}}}}}"
    folder = tmp_path_factory.mktemp("run")
    return run_here(write_task(folder, shards / "train", "{name: liveness, classes: attack}", BASE, evaluation))


@pytest.fixture(scope="module")
def made(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return export_model(run, ["fp16", "int8"], out=tmp_path_factory.mktemp("out"), max_drop=0.9)


def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (9, PX, PX, 3), dtype=np.uint8)


def test_the_files_give_the_probabilities_of_torch(run: Path, made: Made) -> None:
    expected = load_liveness(run).scores(pictures())
    whole, fp16, int8 = (load_liveness(file.path).scores(pictures()) for file in made.files)
    assert np.abs(whole - expected).max() <= TOLERANCE
    assert np.abs(fp16 - expected).max() < 0.01
    assert np.abs(int8 - expected).max() < 0.5
    assert made.refused == []
    for file in made.files:
        scorer = load_liveness(file.path)
        alone = np.concatenate([scorer.scores(picture[None]) for picture in pictures()])
        assert np.abs(alone - scorer.scores(pictures())).max() < 2e-3


def test_the_files_are_what_they_say(made: Made) -> None:
    for file in made.files:
        model = onnx.load(file.path)
        onnx.checker.check_model(model, full_check=True)
        card = load_liveness(file.path).card
        assert {prop.key: prop.value for prop in model.metadata_props} == {"fastface.precision": card.precision}
        ends = [*model.graph.input, *model.graph.output]
        assert [end.type.tensor_type.shape.dim[0].dim_param for end in ends] == ["batch", "batch"]
        assert [end.name for end in ends] == ["images", "logits"]
        assert file.report().startswith(f"{file.path}  (")
    assert [load_liveness(file.path).card.precision for file in made.files] == ["fp32", "fp16", "int8"]
    assert "36 of 36 images" in load_liveness(made.files[2].path).card.quantisation["images"]


def test_thresholds_are_those_of_each_files_own_scores(shards: Path, made: Made) -> None:
    from fastface.eval_settings import EvalSet
    from fastface.liveness_evaluation import open_attacks

    for file in made.files:
        scorer = load_liveness(file.path)
        opened = open_attacks(EvalSet(images=shards / "val"), scorer.card)
        scores = scorer.scores(np.stack([opened.images.load(i) for i in range(len(opened.live))]))
        presented = gather_presentations(scores, opened.live, opened.attack)
        found = {t.rule: t for t in scorer.card.thresholds}
        assert list(found) == ["eer", "apcer=0.1", "apcer=0.05", "apcer=0.01"]
        for rule, threshold in found.items():
            assert threshold.threshold == pytest.approx(threshold_at(presented, rule), abs=1e-5)
            figures = attack_figures(scores, opened.live, opened.attack, None, threshold.threshold).metrics
            assert (threshold.apcer, threshold.bpcer) == pytest.approx((figures["apcer"], figures["bpcer"]), abs=0.2)
        if scorer.card.precision != "fp32":
            assert scorer.card.quantisation["acer"]["rise"] <= 0.9


@pytest.mark.parametrize("seed", range(3))
def test_what_is_lost_is_counted_attack_by_attack(seed: int) -> None:
    rng = np.random.default_rng(seed)
    live = np.repeat([True, False], 60)
    attack = np.array(["none"] * 60 + ["print", "replay"] * 30)
    before = np.where(live, 0.7, 0.3) + rng.normal(0, 0.15, 120)
    after = before + rng.normal(0, 0.1, 120)
    verdict = judge_attacks(
        *(gather_presentations(s, live, attack) for s in (before, after)), max_drop=0.01, about="these"
    )
    figures = [attack_figures(s, live, attack) for s in (before, after)]
    acers = [f.metrics["acer"] for f in figures]
    assert verdict.rise == pytest.approx(acers[1] - acers[0])
    assert verdict.accepted == (acers[1] - acers[0] <= 0.01)
    for part, kind in zip(verdict.parts, ("none", "print", "replay"), strict=True):
        right = []
        for scores, f in zip((before, after), figures, strict=True):
            right.append([(s >= f.details["threshold"]) == (kind == "none") for s in scores[attack == kind]])
        assert part.changed.lost == sum(old and not new for old, new in zip(*right, strict=True))
        assert part.changed.gained == sum(new and not old for old, new in zip(*right, strict=True))


def test_what_loses_too_much_is_refused_and_not_written(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastface.ship import narrowing

    def ruined(source: Path, out: Path) -> None:
        model = onnx.load(source)
        for weight in model.graph.initializer:
            if weight.name.endswith("classifier.bias"):
                values = onnx.numpy_helper.to_array(weight) + np.float32([30, 0, 0])
                weight.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), weight.name))
            elif "classifier.weight" in weight.name:
                values = np.zeros_like(onnx.numpy_helper.to_array(weight))
                weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        onnx.save(model, out)

    monkeypatch.setattr(narrowing, "to_fp16", ruined)
    monkeypatch.setattr(
        "sys.argv", ["export.py", "--checkpoint", str(run), "--out", str(tmp_path / "out"), "--precision", "fp16"]
    )
    assert main() == 2
    assert "fp16 refused, and not written: ACER rises by" in capsys.readouterr().err
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["model.json", "model.onnx"]


def test_what_has_no_meaning_is_refused(run: Path, shards: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="leave out --images"):
        export_model(run, images=shards, out=tmp_path / "no")
    with pytest.raises(ValueError, match="is no shard set"):
        export_model(run, calibrate_on=tmp_path, out=tmp_path / "no")
    assert not (tmp_path / "no").exists()


CLIPS = "data: {plan: {name: clips, frames: 4}, flip: 0}\ntrain: {batch_size: 16, micro_batch: 16, max_steps: 3}\n"


@pytest.mark.parametrize("over", ["lstm", "gru", "mean"])
def test_models_of_clips_ship_alike(over: str, tmp_path: Path) -> None:
    """Whatever goes over time, and for any number of clips; int8 takes its ranges from training clips."""
    shards = write_clips(tmp_path / "clips", 6)
    evaluation = f"eval: {{every_epochs: null, leakage: tell, sets: {{dev: {{images: {shards}}}}}}}"
    task = f"{{name: temporal, over: {over}, hidden: 8}}"
    run = run_here(write_task(tmp_path, shards, task, BASE, CLIPS, evaluation))
    made = export_model(run, ["fp16", "int8"], out=tmp_path / "out", max_drop=0.99)
    assert made.refused == []
    clips = np.random.default_rng(0).integers(0, 256, (5, 4, PX, PX, 3), dtype=np.uint8)
    expected = load_temporal(run).scores(clips)
    for file, most in zip(made.files, (TOLERANCE, 0.01, 0.3), strict=True):
        onnx.checker.check_model(onnx.load(file.path), full_check=True)
        scorer = load_temporal(file.path)
        assert np.abs(scorer.scores(clips) - expected).max() <= most
        assert np.abs(np.concatenate([scorer.scores(clip[None]) for clip in clips]) - expected).max() <= most
        assert scorer.card.thresholds[0].rule == "eer"
    assert "12 of 12 images" in scorer.card.quantisation["images"]
