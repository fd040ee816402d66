"""Neighbours mined on the way: at their steps, from what was learned, the same on any number of processes."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from fastface import checkpoint
from fastface import step as step_module
from fastface.data.batch import Batch
from fastface.data.index import Index
from fastface.data.plan import STREAMS, hash_numbers
from fastface.data.plans.mined import Mined
from fastface.data.plans.neighbours import read_neighbours
from fastface.refresh import chosen_images, sweep
from tests.data.fake_index import fake_index
from tests.data.plain import feistel
from tests.training import (
    assert_same_bits,
    cut_back,
    launch,
    log_lines,
    losses,
    newest_run,
    run_here,
    weights,
    write_people,
    write_task,
)

STEPS, EVERY = 10, 4
ARCFACE = "{name: arcface, s: 16, margin: {name: arcface, m: 0.2}}"
PLAN = f"name: mined, images: 2, neighbours: 1, refresh_steps: {EVERY}, listed: 3, cap: 0.99"
HEAD = f"data: {{plan: {{{PLAN}, source: head}}}}"
EMBEDDINGS = f"data: {{plan: {{{PLAN}, source: embeddings, source_images: 2, scope: global}}}}"
TASKS = {
    "arcface": (ARCFACE, HEAD),
    "arcface, embeddings": (ARCFACE, EMBEDDINGS),
    "sampled, sub-centres": (ARCFACE.replace("s:", "sample_rate: 0.3, sub_centres: 2, s:"), HEAD),
    "triplet": ("{name: triplet}", EMBEDDINGS),
    "supcon": ("{name: supcon}", EMBEDDINGS),
    "pair": ("{name: pair}", EMBEDDINGS.replace("scope: global", "pairs: true")),
}
BASE = (
    "optim: {name: adam, lr: 0.001, warmup_epochs: 0}\n"
    f"train: {{epochs: 50, max_steps: {STEPS}}}\n"
    "checkpoint: {every_steps: 2}\n"
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("people"), people=9, images=4)


def mined_state(run: Path, step: int) -> dict | None:
    return json.loads((run / "checkpoints" / f"step-{step:08d}" / "state.json").read_text())["mined"]


@pytest.mark.parametrize("name", TASKS)
def test_a_restart_anywhere_keeps_every_bit(shards: Path, tmp_path: Path, name: str) -> None:
    """From before the first refresh, from exactly at the second (step 8), and from between (6)."""
    task, *more = TASKS[name]
    config = write_task(tmp_path, shards, task, BASE, *more)
    straight = run_here(config)
    assert list(losses(straight)) == list(range(1, STEPS + 1))
    assert np.isfinite(list(losses(straight).values())).all()
    assert [line["step"] for line in log_lines(straight) if "mined" in line] == [EVERY + 1, 2 * EVERY + 1]
    assert [mined_state(straight, step) and mined_state(straight, step)["step"] for step in (2, 4, 6, 8, 10)] == [
        None, None, 4, 4, 8,
    ]  # fmt: skip
    for middle in (2, 6, 8):
        copy = tmp_path / f"again-{middle}"
        shutil.copytree(straight, copy)
        cut_back(copy, middle)
        run_here(config, resume=str(copy))
        assert (copy / "metrics.jsonl").read_text() == (straight / "metrics.jsonl").read_text()
        assert_same_bits(weights(copy, STEPS), weights(straight, STEPS))
        for file in straight.glob("mined/*"):
            assert (copy / "mined" / file.name).read_bytes() == file.read_bytes()


def test_the_lists_are_those_of_the_centres_of_that_step(shards: Path, tmp_path: Path) -> None:
    run = run_here(write_task(tmp_path, shards, ARCFACE, BASE, HEAD))
    state = mined_state(run, 6)
    assert state
    found = read_neighbours(run / state["file"], Index.open(shards))
    assert found.sha256 == state["sha256"]
    centres = load_file(run / "checkpoints" / "step-00000004" / "model.safetensors")["head.weight"].double().numpy()
    unit = [row / np.sqrt(sum(x * x for x in row)) for row in centres]
    for a in range(9):
        dots = [np.float32(sum(x * y for x, y in zip(unit[a], row, strict=True))) for row in unit]
        cosines = sorted((-dots[b], b) for b in range(9) if b != a)
        assert found.ids[a].tolist() == [b for _, b in cosines[:3]]


def test_a_list_that_was_changed_or_lost_is_refused(shards: Path, tmp_path: Path) -> None:
    config = write_task(tmp_path, shards, ARCFACE, BASE, HEAD)
    run = run_here(config, "--train.max_steps", "6")
    state = mined_state(run, 6)
    assert state
    file = run / state["file"]
    good = file.read_bytes()
    with np.load(file) as arrays:
        changed = {**arrays, "neighbours": np.roll(arrays["neighbours"], 1, axis=1)}
    np.savez(file, **changed)
    with pytest.raises(ValueError, match=r"has sha256 .* resume from a checkpoint up to step 4"):
        run_here(config, resume=str(run))
    file.unlink()
    with pytest.raises(ValueError, match=r"the run's file of neighbours .* does not exist"):
        run_here(config, resume=str(run))
    file.write_bytes(good)
    run_here(config, resume=str(run))


def test_what_cannot_be_mined_is_refused(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"which only task arcface has: set data\.plan\.source: embeddings"):
        run_here(write_task(tmp_path, shards, "{name: supcon}", BASE, HEAD))
    assert not (tmp_path / "runs").exists()
    config = write_task(tmp_path, shards, ARCFACE, BASE, HEAD)
    run = run_here(config, "--train.max_steps", "2")
    with pytest.raises(ValueError, match=r"cannot change which images come.*\n  refreshing: "):
        run_here(config, "--data.plan.refresh_steps", "3", resume=str(run))


def test_batches_follow_the_newest_lists(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is made ahead of its use is never of lists that are no more: every image that arrived is looked at."""
    seen: dict[int, list[int]] = {}

    def noted(*arguments: Any) -> Batch:
        batch = arrive(*arguments)
        seen.setdefault(batch.step, []).extend(batch.records.tolist())
        return batch

    arrive = step_module._next
    monkeypatch.setattr(step_module, "_next", noted)
    run = run_here(write_task(tmp_path, shards, ARCFACE, BASE, HEAD, "data: {ahead: 8}"))
    index = Index.open(shards)
    plan = Mined(index, None, 2, 1, 16, 0)
    random = [plan[step].records.tolist() for step in range(STEPS)]
    for step in range(STEPS):
        if step in (EVERY, 2 * EVERY):
            plan.use(read_neighbours(run / "mined" / f"step-{step:08d}.npz", index))
        assert seen[step] == plan[step].records.tolist()
    assert [seen[step] for step in range(EVERY, STEPS)] != random[EVERY:]


def test_drawn_images_are_what_plain_loops_give() -> None:
    index = fake_index(np.array([0, 1, 1, 2, 2, 2, 2, 2, 3, 3, 3]))
    used = np.array([1, 2, 3])
    key = hash_numbers(7, STREAMS["refresh"], 40)
    expected = []
    for person in used.tolist():
        own = np.flatnonzero(index.label == person).tolist()
        expected += [own[feistel(n, len(own), hash_numbers(key, person))] for n in range(min(3, len(own)))]
    assert chosen_images(index, used, 3, 7, 40).tolist() == expected
    assert chosen_images(index, used, None, 7, 40).tolist() == list(range(1, 11))
    assert chosen_images(index, used, 99, 7, 40).tolist() != chosen_images(index, used, 99, 7, 41).tolist()
    assert sorted(chosen_images(index, used, 99, 7, 40).tolist()) == list(range(1, 11))


def test_only_lists_that_a_checkpoint_goes_on_with_stay(tmp_path: Path) -> None:
    for step in (4, 8, 12, 16, 20, 99):
        (tmp_path / f"step-{step:08d}.npz").touch()
        (tmp_path / f"step-{step:08d}.suspects.csv").touch()
    sweep(tmp_path, 20, [4, 5, 12, 18])  # 4 goes on with nothing; 5 with 4; 12 with 8; 18 with 16
    left = sorted(int(file.stem.removeprefix("step-")) for file in tmp_path.glob("*.npz"))
    assert left == [4, 8, 16, 20, 99]
    assert len(list(tmp_path.glob("*.csv"))) == 5


@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.parametrize("name", ["arcface", "supcon"])
def test_two_processes_mine_the_same_and_go_on_to_the_bit(shards: Path, tmp_path: Path, name: str) -> None:
    """Lists of two processes are those of one, from equal weights; a restart of two keeps every bit."""
    task, *more = TASKS[name]
    config = write_task(tmp_path, shards, task, BASE, *more)
    done = launch(config, processes=2)
    assert done.returncode == 0, done.stderr
    assert "2 process(es)" in done.stdout
    two = newest_run(config)
    copy = tmp_path / "again"
    shutil.copytree(two, copy)
    cut_back(copy, 4)  # exactly at a refresh
    done = launch(config, "--resume", str(copy), processes=2)
    assert done.returncode == 0, done.stderr
    assert (copy / "metrics.jsonl").read_text() == (two / "metrics.jsonl").read_text()
    assert_same_bits(weights(copy, STEPS), weights(two, STEPS))
    alone = tmp_path / "alone"
    shutil.copytree(two, alone)
    cut_back(alone, 4)
    run_here(config, "--train.max_steps", "6", resume=str(alone))
    assert (alone / "mined" / "step-00000004.npz").read_bytes() == (two / "mined" / "step-00000004.npz").read_bytes()
    assert checkpoint.newest(alone / "checkpoints").state["mined"] == mined_state(two, 6)
