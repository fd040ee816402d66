"""Every task, with every margin and every way to train it: the loss falls, a restart keeps every bit, it exports."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from fastface import checkpoint, trainer
from fastface.predictor import load_embedder, load_network
from fastface.ship.export import TOLERANCE, export
from tests.training import assert_same_bits, cut_back, log_lines, losses, run_here, weights, write_people, write_task

STEPS, MIDDLE = 12, 8
BASE = (
    "optim: {name: adam, lr: 0.001, warmup_epochs: 0}\n"
    "model: {dropout: 0}\n"
    "data: {flip: 0}\n"
    f"train: {{epochs: 50, max_steps: {STEPS}}}\n"
    f"checkpoint: {{every_steps: {MIDDLE}}}\n"
)
IDENTITIES = "data: {plan: {name: per-identity, images: 4}}"
PAIRS = "data: {plan: {name: pairs}}"

ARCFACE = "{name: arcface, s: 16, margin: {name: arcface, m: 0.2}}"
MARGINS = {
    "arcface": "m: 0.2",
    "cosface": "m: 0.2",
    "combined": "m1: 0.9, m2: 0.1, m3: 0.1",
    "adaface": "m: 0.2, t_alpha: 0.3",
    "curricularface": "m: 0.2, alpha: 0.3",
    "magface": "l_margin: 0.1, u_margin: 0.3, l_norm: 1, u_norm: 6, lambda_g: 1",
    "normface": "",
    "softmax": "",
}
TASKS: dict[str, tuple[str, ...]] = {
    **{name: (f"{{name: arcface, s: 16, margin: {{name: {name}, {more}}}}}",) for name, more in MARGINS.items()},
    "straight through": (ARCFACE.replace("s:", "gradient: straight_through, s:"),),
    "filter": (ARCFACE.replace("s:", "filter_above: 0.4, s:"),),
    "sub-centres": (ARCFACE.replace("s:", "sub_centres: 3, s:"),),
    "hardest": (ARCFACE.replace("s:", "keep_hardest: 0.5, keep_hardest_after_epochs: 2, s:"),),
    "ramp": (ARCFACE.replace("s:", "margin_ramp_epochs: 3, s:"),),
    "sampled": (ARCFACE.replace("s:", "sample_rate: 0.3, sub_centres: 2, s:"),),
    "sampled sgd": (ARCFACE.replace("s:", "sample_rate: 0.3, s:"), "optim: {name: sgd, lr: 0.02}"),
    "sampled adagrad": (ARCFACE.replace("s:", "sample_rate: 0.3, s:"), "optim: {name: adagrad, lr: 0.02}"),
    "triplet": ("{name: triplet}", IDENTITIES),
    "triplet hardest": ("{name: triplet, mining: hardest, distance: plain, soft: true}", IDENTITIES),
    "triplet batch-hard": ("{name: triplet, mining: batch-hard, soft: true}", IDENTITIES),
    "triplet distance-weighted": ("{name: triplet, mining: distance-weighted}", IDENTITIES),
    "triplet all": ("{name: triplet, mining: all, chunk: 7}", IDENTITIES),
    "triplet curriculum": ("{name: triplet, mining: all, hardest_after_epochs: 4}", IDENTITIES),
    "supcon": ("{name: supcon}", IDENTITIES),
    "multi-similarity": ("{name: multi-similarity, beta: 10}", IDENTITIES),
    "pair": ("{name: pair}", PAIRS),
    "pair fixed": ("{name: pair, learn_scale: false, keep_hardest: 0.5}", PAIRS),
    "pair contrastive": ("{name: pair, loss: contrastive, margin: 1.0}", PAIRS),
    "mixture": (ARCFACE.replace("s:", "triplet: {mining: batch-hard}, triplet_weight: 2, s:"), IDENTITIES),
    "adamw": (ARCFACE, "optim: {name: adamw}"),
    "adagrad": (ARCFACE, "optim: {name: adagrad, lr: 0.02}"),
    "nesterov": (ARCFACE, "optim: {name: sgd, lr: 0.02, nesterov: true}"),
    "average": (ARCFACE, "optim: {ema_decay: 0.8}"),
    "dropout": (ARCFACE, "model: {dropout: 0.2}"),
    "dropout across": ("{name: supcon}", IDENTITIES, "model: {dropout: 0.2}"),
}
RISES = {"ramp", "triplet curriculum", "hardest", "pair fixed"}
"""The problem becomes harder on the way, or is of a few pairs that come and go."""


@pytest.fixture(autouse=True)
def _no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's picture takes longer than its steps here, and has tests of its own."""
    monkeypatch.setattr(trainer, "try_draw", lambda folder, say: None)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("people"), people=4, images=4)


def assert_goes_on_to_the_bit(config: Path, straight: Path, middle: int, last: int) -> None:
    copy = config.parent / "again"
    shutil.copytree(straight, copy)
    cut_back(copy, middle)
    run_here(config, resume=str(copy))
    assert (copy / "metrics.jsonl").read_text() == (straight / "metrics.jsonl").read_text()
    assert_same_bits(weights(copy, last), weights(straight, last))


@pytest.mark.parametrize("name", TASKS)
def test_the_loss_falls_and_a_restart_keeps_every_bit(shards: Path, tmp_path: Path, name: str) -> None:
    task, *more = TASKS[name]
    config = write_task(tmp_path, shards, task, BASE, *more)
    straight = run_here(config)
    values = list(losses(straight).values())
    assert len(values) == STEPS
    assert np.isfinite(values).all()
    if name not in RISES:
        assert np.mean(values[-4:]) < (0.95 if name == "softmax" else 0.85) * np.mean(values[:4])
    assert_goes_on_to_the_bit(config, straight, MIDDLE, STEPS)


def test_checkpoints_of_whole_epochs_stay(shards: Path, tmp_path: Path) -> None:
    more = "checkpoint: {keep_every_epochs: 4, keep: 1, every_steps: 3}"
    run = run_here(write_task(tmp_path, shards, ARCFACE, BASE, more))
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == [f"step-{n:08d}" for n in (4, 8, 12)]


@pytest.mark.parametrize("name", ["arcface", "pair"])
def test_what_was_learned_is_evaluated_and_exported(shards: Path, tmp_path: Path, name: str) -> None:
    """The average of the weights ships where there is one."""
    task, *more = TASKS[name]
    evaluation = (
        f"eval: {{every_epochs: null, sets: {{val: {{images: {shards}, pairs: 40}}}}}}\noptim: {{ema_decay: 0.8}}"
    )
    run = run_here(write_task(tmp_path, shards, task, BASE, evaluation, *more))
    (values,) = [line["eval"] for line in log_lines(run) if "eval" in line]
    assert values["val/auc"] > 0.8  # chance is 0.5
    saved = checkpoint.newest(run / "checkpoints")
    shipped = load_network(saved).state_dict()
    assert shipped.keys() == saved.average.keys()
    assert_same_bits(shipped, saved.average)
    assert any(not torch.equal(value, saved.model[key]) for key, value in saved.average.items())
    made = export(run)
    assert made.difference <= TOLERANCE
    pictures = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    torch.testing.assert_close(
        torch.from_numpy(load_embedder(made.path)(pictures)),
        torch.from_numpy(load_embedder(run)(pictures)),
        rtol=1e-3,
        atol=1e-3,
    )


def test_a_checkpoint_without_an_average_starts_one_and_says_so(shards: Path, tmp_path: Path) -> None:
    config = write_task(tmp_path, shards, ARCFACE, BASE)
    run = run_here(config, "--train.max_steps", "2")
    run_here(config, "--optim.ema_decay", "0.8", resume=str(run))
    assert (
        "the checkpoint has no average of the weights: it starts from the weights there"
        in (run / "log.txt").read_text()
    )
    assert checkpoint.newest(run / "checkpoints").average


FROZEN = "optim: {freeze_epochs: 6, backbone_lr_scale: 0.1}\ncheckpoint: {every_steps: 3}\n"


@pytest.mark.parametrize("name", ["arcface", "mixture", "pair", "supcon"])
def test_what_was_loaded_stays_until_its_time_comes(shards: Path, tmp_path: Path, name: str) -> None:
    """supcon starts from a file of timm, whose neck is new; the others from a run, all of whose network is loaded."""
    task, *more = TASKS[name]
    (tmp_path / "source").mkdir()
    if name == "supcon":
        source = tmp_path / "source" / "body.safetensors"
        save_file(timm.create_model("test_vit").state_dict(), source)
        more.append(f"model: {{pretrained: {source}}}")
    else:
        source = run_here(write_task(tmp_path / "source", shards, ARCFACE, BASE, "train: {max_steps: 2}"))
        more.append(f"model: {{weights: {source}}}")
    config = write_task(tmp_path, shards, task, BASE, FROZEN, *more)
    run = run_here(config)
    state = json.loads((run / "checkpoints" / "step-00000012" / "state.json").read_text())
    loaded, at = state["loaded"], {step: weights(run, step) for step in (3, 6, 12)}
    assert loaded
    assert_same_bits({key: at[6][key] for key in loaded}, {key: at[3][key] for key in loaded})
    if name != "supcon":
        before = load_file(source / "checkpoints" / "step-00000002" / "model.safetensors")
        assert_same_bits({key: at[6][key] for key in loaded}, {key: before[key] for key in loaded})
        assert not torch.equal(
            at[12]["backbone.neck.features.running_mean"], before["backbone.neck.features.running_mean"]
        )
    new = [key for key in at[3] if "/" not in key and key not in loaded]
    assert any(not torch.equal(at[6][key], at[3][key]) for key in new)
    moved = [key for key in loaded if not torch.equal(at[12][key], at[6][key])]
    assert len(moved) > 0.9 * len(loaded)
    shutil.rmtree(tmp_path / "source")  # a run that goes on needs nothing but its checkpoint
    assert_goes_on_to_the_bit(config, run, 3, STEPS)


@pytest.mark.parametrize(
    ("task", "more", "expected"),
    [
        ("{name: triplet}", (), "set data.plan.name: per-identity"),
        ("{name: supcon}", ("data: {plan: {name: per-identity, images: 1}}",), "at most 1 image(s) each"),
        ("{name: multi-similarity}", ("data: {plan: {name: per-identity, images: 16}}",), "has 1 identities"),
        (ARCFACE.replace("s:", "triplet: {}, s:"), (), "set data.plan.name: per-identity"),
        ("{name: pair}", (), "set data.plan.name: pairs"),
        ("{name: pair}", (PAIRS, "train: {batch_size: 10, micro_batch: 5}"), "take a multiple of 2"),
        (ARCFACE, ("optim: {freeze_epochs: 1}",), "nothing was loaded"),
    ],
)
def test_what_cannot_teach_is_refused(tmp_path: Path, task: str, more: tuple[str, ...], expected: str) -> None:
    people, images = (20, 1) if "pairs" not in str(more) and "16" not in str(more) else (2, 16)
    shards = write_people(tmp_path / "people", people, images)
    with pytest.raises(ValueError, match=r".") as caught:
        run_here(write_task(tmp_path, shards, task, BASE, *more))
    assert expected in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_a_batch_with_little_to_compare_is_said(tmp_path: Path) -> None:
    shards = write_people(tmp_path / "people", people=60, images=2)
    run = run_here(write_task(tmp_path, shards, "{name: triplet}", BASE, "train: {max_steps: 1}"))
    assert "are the only ones of their identity there" in (run / "log.txt").read_text()
