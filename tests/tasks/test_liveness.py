"""Task liveness: what it sees of a batch, what it compares it with, where it starts from, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fastface.command import Command, load_config
from fastface.data.attacks import class_targets
from fastface.data.batch import Batch
from fastface.data.index import Index
from fastface.data.plan import hash_numbers
from fastface.kinds import KINDS
from fastface.liveness_card import LivenessCard
from fastface.liveness_scorer import load_liveness
from fastface.losses.fourier import spectrum
from fastface.predictor import load_embedder
from fastface.run import Run, build_run
from fastface.step import _next, backpropagate
from fastface.tasks.base import StepInfo
from fastface.tasks.liveness import PATCH, Liveness
from fastface.timing import silent
from tests.attacked import PX, write_attacks
from tests.training import run_here, weights, write_task

BASE = (
    "optim: {name: adam, lr: 0.001, warmup_epochs: 0}\n"
    "model: {backbone: test_resnet, dropout: 0}\n"
    "data: {plan: {name: weighted}}\n"
    "train: {epochs: 50, max_steps: 2, micro_batch: 8}\n"
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_attacks(tmp_path_factory.mktemp("attacks"))


def build(folder: Path, shards: Path, task: str, *more: str) -> Run:
    config = write_task(folder, shards / "train", f"{{name: liveness, {task}}}", BASE, *more)
    return build_run(Command(load_config(config), config.stem, None))


def task_of(run: Run) -> Liveness:
    assert isinstance(run.task, Liveness)
    return run.task


def test_targets_follow_the_records_that_came(tmp_path: Path, shards: Path) -> None:
    run = build(tmp_path, shards, "classes: attack", "data: {plan: {name: weighted, column: attack}}")
    task, batch = task_of(run), next(iter(run.loader.batches(0, 1)))
    found = [task.classes.names[n] for n in task.targets(batch)["labels"].tolist()]
    names = [run.index.name(int(record)) for record in batch.records]
    assert found == ["live" if "/live/" in name else name.split("/")[2] for name in names]  # train/spoof/print/...
    assert len(set(found)) == 3
    run.loader.close()


@pytest.mark.parametrize("patch", ["", "patch_px: 24, "])
def test_the_spectrum_is_that_of_the_image_the_network_sees(tmp_path: Path, shards: Path, patch: str) -> None:
    """After all augmentation, mirroring and cutting; not of the image in the shard, as in the published trainer."""
    augment = "data: {augment: liveness_aggressive, flip: 0.5, output: uint8}"
    run = build(tmp_path, shards, f"{patch}fourier_weight: 0.5", augment)
    plain = build(tmp_path, shards, f"{patch}fourier_weight: 0.5", "data: {augment: none, flip: 0, output: uint8}")
    batch, untouched = (_next(one, one.loader.batches(0, 1), 0, 0) for one in (run, plain))
    task = task_of(run)
    seen, found = task.inputs(batch), task.targets(batch)["spectrum"]
    size = task.backbone.map_size
    assert found.shape == (8, 1, size[1], size[0])
    torch.testing.assert_close(found, spectrum(seen, size, mean=127.5, std=127.5))
    assert np.array_equal(batch.records, untouched.records)
    other = task_of(plain).targets(untouched)["spectrum"]
    assert all(float((mine - theirs).abs().max()) > 0.02 for mine, theirs in zip(found, other, strict=True))
    run.loader.close()
    plain.loader.close()


def test_patches_depend_on_step_and_record_alone(tmp_path: Path, shards: Path) -> None:
    task = task_of(build(tmp_path, shards, "patch_px: 16"))
    records = np.array([5, 2, 9, 2])
    images = torch.rand(4, 3, PX, PX)
    batch = Batch(images, torch.zeros(4, dtype=torch.int64), records, 7, 0)
    found = task.inputs(batch)
    for n, record in enumerate(records.tolist()):
        key = hash_numbers(0, 7, record, PATCH)
        y, x = key % 17, (key >> 32) % 17
        assert torch.equal(found[n], images[n, :, y : y + 16, x : x + 16])
    half = batch._replace(images=images[2:], labels=batch.labels[2:], records=records[2:], micro=1)
    assert torch.equal(task.inputs(half), found[2:])
    assert not torch.equal(task.inputs(batch._replace(step=8)), found)


def test_the_hardest_are_chosen_from_their_epoch_on(tmp_path: Path, shards: Path) -> None:
    task = task_of(build(tmp_path, shards, "keep_hardest: 0.25, keep_hardest_after_epochs: 3"))
    logits, labels = torch.randn(8, 2), torch.tensor([0, 1] * 4)
    each = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    optimizer = torch.optim.SGD(task.parameters(), 0.1)
    for epoch, expected in ((2.9, each.mean()), (3.0, each.topk(2).values.mean())):
        task.before_step(StepInfo(0, epoch, 8, lambda: labels.numpy()), optimizer)
        torch.testing.assert_close(task.loss(logits, {"labels": labels}).loss, expected)


def test_what_is_looked_at_is_the_rate_of_each_kind(tmp_path: Path, shards: Path) -> None:
    task = task_of(build(tmp_path, shards, "classes: attack"))
    logits = torch.eye(3)[[0, 0, 1, 2, 0, 2]]  # live, live, print, replay, live, replay
    terms = task.loss(logits, {"labels": torch.tensor([0, 1, 1, 1, 2, 0])}).terms
    assert terms["live_right"].item() == pytest.approx(1 / 2)
    assert terms["spoof_right"].item() == pytest.approx(2 / 4)  # a print taken for a replay is right
    assert terms["live"].item() == pytest.approx(2 / 6)


def test_the_head_of_the_spectrum_learns_and_does_not_ship(tmp_path: Path, shards: Path) -> None:
    run = build(tmp_path, shards, "fourier_weight: 0.5", "train: {batch_size: 8}")
    terms = backpropagate(run, run.loader.batches(0, 1), 0, silent)
    assert float(terms["loss"]) == pytest.approx(0.5 * float(terms["class_loss"]) + 0.5 * float(terms["spectrum_loss"]))
    head = task_of(run).spectrum_head
    assert head is not None
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())
    assert not any("spectrum" in name for name in run.task.deploy().state_dict())
    run.loader.close()


def test_a_run_starts_from_a_body_or_from_all_of_another(tmp_path: Path, shards: Path) -> None:
    source = run_here(write_task(tmp_path, shards / "train", "{name: liveness}", BASE))
    before = weights(source, 2)
    names = sorted(name for name in before if name.startswith("backbone.") and "/" not in name)
    same = build(tmp_path, shards, "", f"model: {{weights: {source}}}")
    assert same.state["loaded"] == names
    state = same.task.state_dict()
    assert all(torch.equal(state[name], before[name]) for name in names)
    more = build(tmp_path, shards, "classes: attack", f"model: {{weights: {source}}}")
    assert more.state["loaded"] == [name for name in names if "classifier" not in name]
    people = write_task(tmp_path, shards / "train", "{name: arcface, s: 16}", BASE)
    embeds = run_here(people)
    third = build(tmp_path, shards, "", f"model: {{weights: {embeds}}}")
    assert third.state["loaded"] == [name for name in names if "classifier" not in name]
    with pytest.raises(ValueError, match="tells live faces from attacks, and embeds nothing"):
        load_embedder(source)
    with pytest.raises(ValueError, match="is a model of kind 'recognition', and one of task liveness"):
        load_liveness(embeds)


def test_the_card_says_how_the_model_sees(tmp_path: Path, shards: Path) -> None:
    run = build(tmp_path, shards, "classes: attack, patch_px: 16")
    card = LivenessCard.model_validate(json.loads(json.dumps(run.state["card"])))
    assert card == KINDS["liveness"].card(run.config, run.index)
    assert card.classes == tuple(class_targets(Index.open(shards / "train"), "attack").names)
    assert (card.input_size, card.patch_px, card.crop, card.kind) == ((PX, PX), 16, None, "liveness")


@pytest.mark.parametrize(
    ("task", "more", "expected"),
    [
        ("", "data: {plan: {name: pairs}}", "chooses among identities"),
        ("patch_px: 32", "", "task.patch_px 32 must be below the sides of the image, 32x32"),
        ("keep_hardest_after_epochs: 2", "", "says when keep_hardest begins"),
        ("fourier_weight: 0.5", "model: {backbone: test_vit}", "has no feature map"),
        ("loss: {name: focal, smoothing: 0.1}", "", "smoothing"),
        ("", "eval: {flip: sum}", "eval.flip and eval.centre are for networks that embed"),
        ("", "eval: {sets: {val: {images: VAL}}, best_metric: val/tar_1e-2}", "this task has no tar_1e-2; it has acer"),
        ("", "eval: {sets: {val: {images: /nowhere}}}", "is no shard set"),
        ("", "data: {shards: null, embeddings: [x]}", "task liveness takes images, data.shards"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, shards: Path, task: str, more: str, expected: str) -> None:
    overlays = [more.replace("VAL", str(shards / "val"))] if more else []
    with pytest.raises(ValueError, match=r".") as caught:
        run_here(write_task(tmp_path, shards / "train", f"{{name: liveness, {task}}}", BASE, *overlays))
    assert expected in str(caught.value)
