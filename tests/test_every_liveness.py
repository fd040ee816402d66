"""Task liveness with every loss and every way to see an image: the loss falls, a restart keeps every bit."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from fastface.data.attacks import read_attacks
from fastface.data.image_sets import ShardImages
from fastface.data.index import Index
from fastface.liveness_scorer import load_liveness
from fastface.metrics.attacks import attack_figures
from tests.attacked import PX, write_attacks
from tests.training import assert_same_bits, cut_back, log_lines, losses, run_here, weights, write_task

STEPS, MIDDLE = 12, 8
BASE = (
    "optim: {name: adam, lr: 0.001, warmup_epochs: 0}\n"
    "model: {backbone: test_resnet, dropout: 0}\n"
    "data: {flip: 0, plan: {name: weighted}}\n"
    f"train: {{epochs: 50, max_steps: {STEPS}, micro_batch: 8}}\n"
    f"checkpoint: {{every_steps: {MIDDLE}}}\n"
)
FOURIER = "fourier_weight: 0.5"
TASKS: dict[str, tuple[str, ...]] = {
    "cross entropy": ("",),
    "smoothed": ("loss: {name: cross-entropy, smoothing: 0.1}",),
    "focal": ("loss: {name: focal}",),
    "am-softmax": ("loss: {name: am-softmax, s: 10}",),
    "attacks": ("classes: attack", "data: {plan: {name: weighted, column: attack}}"),
    "hardest": ("keep_hardest: 0.5, keep_hardest_after_epochs: 2",),
    "fourier": (FOURIER,),
    "patches": ("patch_px: 16",),
    "patches fourier": (f"patch_px: 24, {FOURIER}, classes: attack",),
    "shuffled": ("", "data: {plan: {name: shuffled}}"),
    "average": ("", "optim: {ema_decay: 0.8}"),
    "minifasnet": (FOURIER, "model: {backbone: minifasnet_v2se, embedding_size: 128, dropout: 0.2}"),
    "mobilenet": (FOURIER, "model: {backbone: mobilenetv3_small_050}"),
    "augmented": (FOURIER, "data: {flip: 0.5, augment: liveness_aggressive}"),
}
RISES = {"hardest", "mobilenet", "minifasnet", "augmented"}
"""Of a few images that come and go, or with dropout, or too few steps for the network."""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_attacks(tmp_path_factory.mktemp("attacks"))


@pytest.mark.parametrize("name", TASKS)
def test_the_loss_falls_and_a_restart_keeps_every_bit(shards: Path, tmp_path: Path, name: str) -> None:
    task, *more = TASKS[name]
    config = write_task(tmp_path, shards / "train", f"{{name: liveness, {task}}}", BASE, *more)
    straight = run_here(config)
    values = list(losses(straight).values())
    assert len(values) == STEPS
    assert np.isfinite(values).all()
    if name not in RISES:
        assert np.mean(values[-4:]) < 0.85 * np.mean(values[:4])
    copy = tmp_path / "again"
    shutil.copytree(straight, copy)
    cut_back(copy, MIDDLE)
    run_here(config, resume=str(copy))
    assert (copy / "metrics.jsonl").read_text() == (straight / "metrics.jsonl").read_text()
    assert_same_bits(weights(copy, STEPS), weights(straight, STEPS))


@pytest.mark.parametrize("name", ["cross entropy", "am-softmax", "attacks", "patches fourier"])
def test_what_was_learned_is_evaluated_and_loads(shards: Path, tmp_path: Path, name: str) -> None:
    """The figures of the last evaluation are those of the scores that the saved run gives; the best run is loaded."""
    task, *more = TASKS[name]
    evaluation = f"eval: {{every_epochs: 2, best_metric: val/acer, sets: {{val: {{images: {shards / 'val'}}}}}}}"
    config = write_task(tmp_path, shards / "train", f"{{name: liveness, {task}}}", BASE, evaluation, *more)
    run = run_here(config)
    lines = [line for line in log_lines(run) if "eval" in line]
    best = json.loads((run / "best.json").read_text())
    assert best["value"] == min(line["eval"]["val/acer"] for line in lines)
    scorer = load_liveness(run)
    assert f"step-{best['step']:08d}" in scorer.origin
    images, live, attack = read_all(shards / "val")
    scores = scorer.scores(images)
    assert scores.dtype == np.float32
    assert scores.shape == (len(live),)
    assert ((scores >= 0) & (scores <= 1)).all()
    (line,) = [line["eval"] for line in lines if line["step"] == best["step"]]
    found = attack_figures(scores, live, attack, None, None).metrics
    assert {key.removeprefix("val/"): value for key, value in line.items() if key != "val/loss"} == pytest.approx(found)
    p = np.where(live, scores, 1 - scores.astype(np.float64))
    assert line["val/loss"] == pytest.approx(-np.log(p).mean(), rel=1e-4)
    expected = ("live", "print", "replay") if "classes: attack" in task else ("live", "spoof")
    assert (scorer.card.classes, scorer.card.live, scorer.card.input_size) == (expected, 0, (PX, PX))


def read_all(folder: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return the images uint8 [N, H, W, 3] of a shard set, who is live, and the attacks."""
    images = ShardImages(Index.open(folder))
    found = read_attacks(images.index)
    assert found.attack is not None
    pictures = np.stack([images.load(i) for i in range(len(images))])
    return pictures, found.live, [found.names[number] for number in found.attack]
