"""The loop, in this process: the loss falls, any checkpoint goes on to the bit, what cannot be is refused."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from fastface.command import Command, load_config
from fastface.data.index import Index
from fastface.run import build_run
from fastface.run_folder import check_resumable
from tests.data.shard_sets import make_set
from tests.training import assert_same_bits, log_lines, losses, newest_run, run_here, weights, write_config

STEPS = 12  # 48 images, batches of 16, 4 epochs


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("trainer"), people=6, images=8)


@pytest.fixture(scope="module")
def config(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(tmp_path_factory.mktemp("config"), shards)


@pytest.fixture(scope="module")
def straight(config: Path) -> Path:
    return run_here(config)


def test_every_step_has_its_line_and_the_loss_falls(config: Path) -> None:
    run = run_here(config, "--train.epochs", "12")
    lines = log_lines(run)
    assert [line["step"] for line in lines] == list(range(1, 37))
    values = list(losses(run).values())
    assert np.mean(values[-6:]) < 0.7 * np.mean(values[:6])
    assert json.loads((run / "summary.json").read_text())["images_per_s"] > 0


@pytest.mark.parametrize("step", [3, 6, 9])
def test_every_checkpoint_goes_on_to_the_bit(straight: Path, config: Path, step: int, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(straight, copy)
    for later in sorted((copy / "checkpoints").iterdir()):
        if int(later.name.removeprefix("step-")) > step:
            shutil.rmtree(later)
    run_here(config, resume=str(copy))
    assert (copy / "metrics.jsonl").read_text() == (straight / "metrics.jsonl").read_text()
    assert_same_bits(weights(copy, STEPS), weights(straight, STEPS))


def test_a_damaged_checkpoint_is_skipped_and_said(straight: Path, config: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(straight, copy)
    file = copy / "checkpoints" / "step-00000012" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    run_here(config, resume=str(copy))
    assert "skipped: " in (copy / "log.txt").read_text()
    assert_same_bits(weights(copy, STEPS), weights(straight, STEPS))


def test_resume_finds_the_newest_run_of_its_config(shards: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, shards)
    for steps in ("3", "6"):
        folder = run_here(config, "--train.max_steps", steps)
    run = build_run(Command(load_config(config), config.stem, ""))
    assert (run.folder, run.start_step) == (folder, 6)
    run.loader.close()
    run.lock.close()


def test_a_resumed_branch_puts_the_later_one_aside(straight: Path, config: Path, tmp_path: Path) -> None:
    shutil.copytree(straight, tmp_path / "run")
    run_here(config, resume=str(tmp_path / "run" / "checkpoints" / "step-00000006"))
    assert "put aside step-00000012" in (tmp_path / "run" / "log.txt").read_text()
    assert_same_bits(weights(tmp_path / "run", STEPS), weights(straight, STEPS))


def test_a_complete_run_has_nothing_left_to_do(straight: Path, config: Path, tmp_path: Path) -> None:
    shutil.copytree(straight, tmp_path / "run")
    run_here(config, resume=str(tmp_path / "run"))
    assert "nothing left to train" in (tmp_path / "run" / "log.txt").read_text()
    assert (tmp_path / "run" / "summary.json").read_text() == (straight / "summary.json").read_text()


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["--seed", "1"], "seed: 0 -> 1"),
        (["--model.embedding_size", "32"], "model.embedding_size: 16 -> 32"),
        (["--train.batch_size", "32"], "train.batch_size: 16 -> 32"),
        (["--data.augment", "recognition"], "data.augment: 'none' -> 'recognition'"),
    ],
)
def test_resume_refuses_what_would_make_another_run(
    straight: Path, config: Path, overrides: list[str], expected: str
) -> None:
    with pytest.raises(ValueError, match="cannot change these settings") as caught:
        run_here(config, *overrides, resume=str(straight))
    assert expected in str(caught.value)


def test_options_younger_than_a_checkpoint_had_their_defaults(straight: Path, config: Path) -> None:
    state = json.loads((straight / "checkpoints" / "step-00000012" / "state.json").read_text())
    for key in ("augment", "resize", "scales", "cache", "max_damaged"):
        del state["config"]["data"][key]
    assert check_resumable(load_config(config), state, state["dataset_id"]) == []
    with pytest.raises(ValueError, match=r"data\.resize: False -> True"):
        check_resumable(load_config(config, overrides=["--data.resize", "True"]), state, state["dataset_id"])


def test_resume_refuses_other_shards(straight: Path, config: Path, tmp_path: Path) -> None:
    other = make_set(tmp_path, people=6, images=7)
    with pytest.raises(ValueError, match=r"data\.shards is dataset"):
        run_here(config, "--data.shards", str(other), resume=str(straight))


def test_a_changed_learning_rate_is_said(straight: Path, config: Path, tmp_path: Path) -> None:
    shutil.copytree(straight, tmp_path / "run")
    run_here(config, "--optim.lr", "0.03", resume=str(tmp_path / "run"))
    assert "optim.lr 0.02 -> 0.03" in (tmp_path / "run" / "log.txt").read_text()


def test_one_writer_a_run(straight: Path, config: Path) -> None:
    held = build_run(Command(load_config(config), config.stem, str(straight)))
    with pytest.raises(ValueError, match="being written by another run"):
        build_run(Command(load_config(config), config.stem, str(straight)))
    held.loader.close()
    held.lock.close()


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["--data.size", "48", "48"], "--size 48"),
        (["--train.batch_size", "4096", "--train.micro_batch", "8"], "do not fill a batch"),
        (["--data.shards", "/nowhere"], "/nowhere"),
        (["--model.backbone", "iresnet51"], "iresnet50"),
        (["--model.window", "0", "0", "40", "32"], "does not lie inside"),
        (["--runtime.device", "cuda"], "no GPU"),
        (["--model.weights", "/nowhere"], "/nowhere"),
    ],
)
def test_bad_settings_are_refused_before_any_work(config: Path, overrides: list[str], expected: str) -> None:
    import torch

    if "cuda" in overrides and torch.cuda.is_available():
        pytest.skip("this machine has the GPU that the test wants missing")
    with pytest.raises(ValueError, match=r".") as caught:
        run_here(config, *overrides)
    assert expected in str(caught.value)


def test_a_loss_that_is_not_finite_stops_before_it_is_saved(shards: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, shards)
    good = run_here(config, "--train.max_steps", "3")
    with pytest.raises(FloatingPointError, match="not finite in step"):
        run_here(config, "--optim.lr", "1e38", "--optim.clip_norm", "None", resume=str(good))
    assert [p.name for p in (good / "checkpoints").iterdir()] == ["step-00000003"]
    assert all(bool(t.isfinite().all()) for t in weights(good, 3).values())


@pytest.mark.parametrize(
    "overrides",
    [
        ["--optim.name", "adamw", "--optim.lr", "1e-3"],
        ["--optim.schedule", "polynomial"],
        ["--optim.schedule", "multistep", "--optim.milestones", "1", "2"],
        ["--train.precision", "bf16"],
        ["--train.precision", "fp64"],
        ["--train.channels_last", "False"],
        ["--train.deterministic", "True"],
        ["--task.gradient", "straight_through"],
        ["--data.decoder", "dali-cpu"],
    ],
    ids=lambda o: " ".join(o[:2]).replace("--", ""),
)
def test_every_switch_trains_a_step(config: Path, overrides: list[str]) -> None:
    if "dali-cpu" in overrides:
        pytest.importorskip("nvidia.dali")
    run = run_here(config, *overrides, "--train.max_steps", "2")
    assert all(np.isfinite(list(losses(run).values())))
    import torch

    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("options", [["--data.output", "uint8"], ["--data.cache", "memory"], ["--data.cache", "auto"]])
def test_how_images_arrive_changes_no_bit(straight: Path, config: Path, options: list[str]) -> None:
    run = run_here(config, *options)
    assert (run / "metrics.jsonl").read_text() == (straight / "metrics.jsonl").read_text()
    assert_same_bits(weights(run, STEPS), weights(straight, STEPS))


def test_a_damaged_set_is_trained_through(shards: Path, tmp_path: Path) -> None:
    shutil.copytree(shards, tmp_path / "shards")
    index = Index.open(tmp_path / "shards")
    for record in (5, 17, 18):
        path = index.shard_path(int(index.shard[record]))
        data = bytearray(path.read_bytes())
        data[int(index.offset[record]) + 100] ^= 16
        path.write_bytes(data)
    config = write_config(tmp_path, tmp_path / "shards")
    with pytest.raises(ValueError, match=r"more than data\.max_damaged 0\.01 allows; the last is .* --repair"):
        run_here(config)
    assert len((newest_run(config) / "damaged.csv").read_text().splitlines()) == 2  # the header and the one too many
    run = run_here(config, "--data.max_damaged", "0.1")
    assert [line["step"] for line in log_lines(run)] == list(range(1, STEPS + 1))
    with open(run / "damaged.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(int(row["record"]) for row in rows) == [5, 17, 18]
    for row in rows:
        assert row["name"] == index.name(int(row["record"]))
    text = (run / "log.txt").read_text()
    assert f"3 of {len(index)} images found damaged" in text
    assert f"made from {index.name(17)!r}): crc32" in text
