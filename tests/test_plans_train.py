"""Every plan trains: through YAML, loader and loop, and goes on from a checkpoint to the bit."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from fastface.data.index import Index
from fastface.data.index_write import write_index
from fastface.data.plans.neighbours import write_neighbours
from tests.data.shard_sets import make_set
from tests.training import assert_same_bits, log_lines, losses, run_here, weights, write_config

STEPS = 6


def with_columns(folder: Path, **columns: np.ndarray) -> None:
    """Give a shard set further columns, as a source of videos or attacks does."""
    index = Index.open(folder)
    mapped = {name: np.load(folder / "index" / f"{name}.npy") for name in index.meta["columns"]}
    kept = {k: v for k, v in index.meta.items() if k in ("options", "fastface", "source")}
    write_index(folder, mapped | columns, index.classes, index.meta["shards"], kept)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    first = make_set(tmp_path_factory.mktemp("first"), people=6, images=8)
    second = make_set(tmp_path_factory.mktemp("second"), people=9, images=4)
    count = len(Index.open(first))
    label = np.array(Index.open(first).label)
    clip = (label * 2 + np.arange(count) % 2).astype(np.int32)
    with_columns(
        first, attack=(np.arange(count) % 5 // 3).astype(np.uint8), clip=clip, time_ms=np.arange(count, dtype=np.int64)
    )
    neighbours = first.parent / "neighbours.npz"
    write_neighbours(neighbours, (np.arange(6)[:, None] + [1, 2]) % 6, Index.open(first).dataset_id)
    return {"first": first, "second": second, "neighbours": neighbours}


DATA = {
    "per-identity": "{shards: FIRST, plan: {name: per-identity, images: 4}}",
    "weighted": "{shards: FIRST, plan: {name: weighted, column: attack, weights: {1: 2.0}}}",
    "pairs": "{shards: FIRST, plan: {name: pairs, genuine: 0.25}}",
    "clips": "{shards: FIRST, plan: {name: clips, frames: 2}}",
    "windowed": "{shards: FIRST, plan: {name: windowed, shards: 2}}",
    "mined": "{shards: FIRST, plan: {name: mined, file: NEIGHBOURS, images: 4, neighbours: 1}}",
    "mixture": "{sources: [{shards: FIRST, weight: 3.0}, {shards: SECOND}], labels: merge-by-name}",
    "mixture of identities": "{sources: [{shards: FIRST}, {shards: SECOND}], labels: separate, "
    "plan: {name: per-identity, images: 2}}",
}


def config_of(folder: Path, sets: dict[str, Path], name: str) -> Path:
    """Write a configuration with this data section, size included."""
    text = DATA[name].replace("FIRST", str(sets["first"])).replace("SECOND", str(sets["second"]))
    text = text.replace("NEIGHBOURS", str(sets["neighbours"])).replace("{", "{size: [32, 32], ", 1)
    file = write_config(folder, sets["first"])
    lines = [f"data: {text}" if line.startswith("data:") else line for line in file.read_text().splitlines()]
    file.write_text("\n".join(lines).replace("epochs: 4", f"epochs: 50, max_steps: {STEPS}"))
    return file


@pytest.mark.parametrize("name", DATA)
def test_every_plan_trains_and_goes_on_to_the_bit(sets: dict[str, Path], tmp_path: Path, name: str) -> None:
    config = config_of(tmp_path, sets, name)
    straight = run_here(config)
    assert len(losses(straight)) == STEPS
    assert np.isfinite(list(losses(straight).values())).all()
    state = json.loads((straight / "checkpoints" / f"step-{STEPS:08d}" / "state.json").read_text())
    assert state["plan"]["name"] == name.split(" ")[0]
    copy = tmp_path / "again"
    shutil.copytree(straight, copy)
    shutil.rmtree(copy / "checkpoints" / f"step-{STEPS:08d}")
    run_here(config, resume=str(copy))
    assert log_lines(copy) == log_lines(straight)
    assert_same_bits(weights(copy, STEPS), weights(straight, STEPS))


def test_resume_refuses_another_plan(sets: dict[str, Path], tmp_path: Path) -> None:
    config = config_of(tmp_path, sets, "per-identity")
    run = run_here(config, "--train.max_steps", "3")
    with pytest.raises(ValueError, match=r"cannot change which images come.*\n  images: 4 -> 8"):
        run_here(config, "--data.plan.images", "8", resume=str(run))
    config = config_of(tmp_path, sets, "mixture")
    run = run_here(config, "--train.max_steps", "3")
    with pytest.raises(ValueError, match=r"weights: \[3\.0, 1\.0\] -> \[3\.0, 2\.0\]"):
        run_here(config, "--data.sources.1.weight", "2", resume=str(run))


def test_a_newer_mined_file_is_said_on_resume(sets: dict[str, Path], tmp_path: Path) -> None:
    config = config_of(tmp_path, sets, "mined")
    run = run_here(config, "--train.max_steps", "3")
    newer = tmp_path / "newer.npz"
    write_neighbours(newer, (np.arange(6)[:, None] + [3, 4]) % 6, Index.open(sets["first"]).dataset_id)
    run_here(config, "--data.plan.file", str(newer), resume=str(run))
    assert "not as before: data.plan.file has sha256" in (run / "log.txt").read_text()


def test_what_a_plan_leaves_out_is_said(sets: dict[str, Path], tmp_path: Path) -> None:
    config = config_of(tmp_path, sets, "mixture of identities")
    run = run_here(config, "--data.plan.images", "8", "--data.plan.too_few", "repeat", "--train.max_steps", "1")
    assert "9 of 9 identities have fewer than 8 images" in (run / "log.txt").read_text()


@pytest.mark.parametrize(
    ("name", "overrides", "expected"),
    [
        ("per-identity", ["--data.plan.images", "3"], "not a multiple of data.plan.images = 3"),
        ("per-identity", ["--data.plan.images", "1", "--train.batch_size", "8"], "6 identities to take"),
        ("clips", ["--train.micro_batch", "1", "--train.batch_size", "16"], "would part rows that belong together"),
        ("weighted", ["--data.plan.column", "atack"], "perhaps you meant 'attack'"),
        ("mined", ["--data.plan.file", "/nowhere.npz"], "/nowhere.npz does not exist"),
        ("mixture", ["--data.sources.1.shards", "/nowhere"], "/nowhere does not exist"),
    ],
)
def test_bad_plans_are_refused_before_any_work(
    sets: dict[str, Path], tmp_path: Path, name: str, overrides: list[str], expected: str
) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        run_here(config_of(tmp_path, sets, name), *overrides)
    assert expected in str(caught.value)
    assert not (tmp_path / "runs").exists()
