"""Class centres taken over by name: rows against a loop on one and two shards, frozen ones, and what is refused."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fastface import checkpoint, inherited
from fastface.config import DataConfig, RunConfig
from fastface.heads.class_rows import ClassRows, first_centres
from fastface.inherited import digest_of, places, read_rows, start_centres
from fastface.task_settings import ArcFaceTask
from tests.data.shard_sets import make_set
from tests.training import assert_same_bits, run_here, weights, write_config

SIZE = 4
BEFORE = ["ann", "bob", "cid", "dan", "eve"]


def write_run(folder: Path, classes: Sequence[str] = BEFORE, sub_centres: int = 1, **changed: Any) -> Path:
    """Write a run whose centre of class c, sub-centre k, is filled with 10 c + k."""
    lines = [10.0 * c + k for c in range(len(classes)) for k in range(sub_centres)]
    model = {"head.weight": torch.tensor(lines)[:, None].expand(-1, SIZE)}
    model |= changed.pop("model", {})
    config = RunConfig().model_dump(mode="json")
    config["task"]["sub_centres"] = sub_centres
    config["data"] |= {"shards": "shards/old", **changed.pop("data", {})}
    state = {"config": config, "dataset_id": "a" * 64, **changed}
    checkpoint.save(folder / "checkpoints", 7, {k: v for k, v in model.items() if v is not None}, {}, state, keep=1)
    checkpoint.write_json(folder / "classes.json", {"dataset_id": "a" * 64, "classes": list(classes)})
    return folder


def heads_of(
    monkeypatch: pytest.MonkeyPatch, num_classes: int, world: int, sub_centres: int = 1, rate: float = 1.0
) -> list[ClassRows]:
    """Build the head of every process."""
    heads = []
    for rank in range(world):
        monkeypatch.setattr("fastface.dist.rank", lambda rank=rank: rank)
        monkeypatch.setattr("fastface.dist.world", lambda: world)
        heads.append(ClassRows(num_classes, SIZE, sub_centres=sub_centres, sample_rate=rate, seed=3))
    return heads


NAMES = {
    "the same": BEFORE,
    "reordered": ["eve", "ann", "dan", "cid", "bob"],
    "new and dropped": ["abe", "bob", "dan", "fay", "zoe", "ann"],
}


@pytest.mark.parametrize("rate", [1.0, 0.5])
@pytest.mark.parametrize("sub_centres", [1, 3])
@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES.keys())
def test_rows_go_where_their_names_are(
    names: list[str], world: int, sub_centres: int, rate: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inherited, "ROWS_AT_ONCE", 2)  # pieces, as of a large matrix
    run = write_run(tmp_path, sub_centres=sub_centres)
    heads = heads_of(monkeypatch, len(names), world, sub_centres, rate)
    notes = [start_centres(head, names, DataConfig(), run, frozen=False) for head in heads]
    found = torch.cat([head.weight.data for head in heads])
    random = first_centres(0, len(names), sub_centres, SIZE, seed=3)
    for number, name in enumerate(names):
        for k in range(sub_centres):
            line = number * sub_centres + k
            expected = torch.full((SIZE,), 10.0 * BEFORE.index(name) + k) if name in BEFORE else random[line]
            assert torch.equal(found[line], expected), (name, k)
    known = sum(name in BEFORE for name in names)
    counts = f"centres of {known} of {len(names)} identities start from {run / 'checkpoints' / 'step-00000007'}; "
    counts += f"{len(names) - known} are new and start at random, {5 - known} of its 5 are dropped"
    assert notes == [counts] * world
    assert all(head.learning.requires_grad for head in heads)


def test_places_are_those_of_a_search() -> None:
    before, now = ["b", "a", "d"], ["a", "x", "d", "b", ""]
    assert places(before, now).tolist() == [before.index(n) if n in before else -1 for n in now]
    with pytest.raises(ValueError, match="two identities named 'a'"):
        places(["a", "b", "a"], now)


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_rows_are_read_in_any_order(at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inherited, "ROWS_AT_ONCE", at_once)
    matrix = torch.randn(20, 3)
    save_file({"m": matrix}, tmp_path / "m.safetensors")
    for wanted in ([], [7], [19, 0, 0, 5, 4, 6, 12]):
        found = read_rows(tmp_path / "m.safetensors", "m", np.array(wanted, np.int64))
        assert torch.equal(found, torch.stack([matrix[i] for i in wanted]) if wanted else matrix[:0])


SEPARATE = {"labels": "separate", "shards": None, "sources": [{"shards": "x/old"}, {"shards": "x/more"}]}


@pytest.mark.parametrize(
    ("before", "then", "names", "now"),
    [
        (["ann", "bob"], {}, ["more/ann", "old/ann", "old/bob"], SEPARATE),
        (["more/ann", "old/ann", "old/bob"], SEPARATE, ["ann", "bob"], {"shards": "elsewhere/old"}),
        (["more/ann", "old/ann", "old/bob"], SEPARATE, ["old/ann", "old/bob"], SEPARATE),
    ],
)
def test_sources_kept_separate_are_not_mixed_up(
    before: list[str], then: dict[str, Any], names: list[str], now: dict[str, Any], tmp_path: Path
) -> None:
    """ann of `old` is not ann of `more`: a set on its own is known by its folder's name, as a source would be."""
    run = write_run(tmp_path, before, data=then)
    head = ClassRows(len(names), SIZE)
    data = DataConfig.model_validate_json(json.dumps(now))
    note = start_centres(head, names, data, run, frozen=False)
    random = first_centres(0, len(names), 1, SIZE, seed=0)
    for number, name in enumerate(names):
        source = next((b for b in before if b.removeprefix("old/") == name.removeprefix("old/")), None)
        row = random[number] if source is None else torch.full((SIZE,), 10.0 * before.index(source))
        assert torch.equal(head.weight[number], row), name
    assert "centres of 2 of" in note


@pytest.mark.parametrize(
    ("changed", "head", "expected"),
    [
        ({"classes": ["x", "y"]}, {}, "knows none of the identities of these shards: its are named 'x', theirs 'abe'"),
        ({"classes": ["bob", "bob"]}, {}, "two identities named 'bob'"),
        ({"sub_centres": 3}, {}, r"has 3 centre\(s\) an identity, task.sub_centres is 1"),
        ({}, {"embedding_size": 8}, "centres of 4 values, model.embedding_size is 8"),
        ({"model": {"head.weight": None}}, {}, "has no centres, which only task arcface has"),
        ({"model": {"head.weight": torch.zeros(4, SIZE)}}, {}, "4 centres, classes.json 5 identities"),
        ({"dataset_id": "b" * 64}, {}, "classes.json is of dataset aaaaaaaaaaaa, .* learned bbbbbbbbbbbb"),
        ({}, {"frozen": True}, "2 of 3 identities are new to .*, the first 'abe'"),
    ],
)
def test_what_does_not_fit_is_refused(
    changed: dict[str, Any], head: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    run = write_run(tmp_path, **changed)
    rows = ClassRows(3, head.get("embedding_size", SIZE))
    before = rows.weight.detach().clone()
    with pytest.raises(ValueError, match=expected):
        start_centres(rows, ["abe", "bob", "fay"], DataConfig(), run, frozen=head.get("frozen", False))
    assert torch.equal(rows.weight, before)


def test_imported_weights_have_no_identities(tmp_path: Path) -> None:
    (write_run(tmp_path) / "classes.json").unlink()
    with pytest.raises(ValueError, match="imported weights have no identities"):
        start_centres(ClassRows(5, SIZE), BEFORE, DataConfig(), tmp_path, frozen=False)


def test_frozen_centres_are_somebodys() -> None:
    with pytest.raises(ValueError, match="name it as centres"):
        ArcFaceTask(freeze_centres=True)


def test_a_digest_is_of_names_types_shapes_and_values() -> None:
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(1)}
    same = {"b": torch.tensor(1), "a": torch.arange(6.0).view(3, 2).T.reshape(3, 2).T.contiguous()}
    same["a"] = tensors["a"].T.contiguous().T  # another layout in memory
    assert digest_of(same) == digest_of(tensors)
    for other in ({"a": tensors["a"].view(3, 2)}, {"a": tensors["a"] + 1}, {"a": tensors["a"].double()}):
        assert digest_of({**tensors, **other}) != digest_of(tensors)
    assert digest_of({"a": tensors["a"], "c": tensors["b"]}) != digest_of(tensors)


STEPS = 6


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shards = make_set(tmp_path_factory.mktemp("earlier"), people=6, images=8)
    return run_here(write_config(shards.parent, shards), "--train.max_steps", "3")


def centres_of(run: Path, step: int) -> torch.Tensor:
    return load_file(run / "checkpoints" / f"step-{step:08d}" / "model.safetensors")["head.weight"]


@pytest.mark.parametrize("rate", ["1.0", "0.5"])
def test_frozen_centres_keep_their_bits(earlier: Path, rate: str, tmp_path: Path) -> None:
    config = write_config(tmp_path, earlier.parents[2] / "set")
    more = ["--task.centres", str(earlier), "--task.freeze_centres", "True", "--task.sample_rate", rate]
    more += ["--train.max_steps", str(STEPS)]
    run = run_here(config, *more)
    assert torch.equal(centres_of(run, STEPS), centres_of(earlier, 3))
    assert not [name for name in weights(run, STEPS) if name.startswith("head.weight/")]
    shutil.copytree(run, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "checkpoints" / "step-00000006")
    run_here(config, *more, resume=str(tmp_path / "copy"))
    assert_same_bits(weights(tmp_path / "copy", STEPS), weights(run, STEPS))


def test_a_new_list_of_identities_goes_on_from_the_centres_it_shares(earlier: Path, tmp_path: Path) -> None:
    """Five of six people stay; the centres, once taken over, learn."""
    (tmp_path / "people.txt").write_text("".join(f"person_{n:03d}\n" for n in (0, 2, 3, 4, 5, 6)))
    shards = make_set(tmp_path, people=7, images=8, include=tmp_path / "people.txt")
    more = ["--task.centres", str(earlier), "--model.weights", str(earlier), "--checkpoint.every_steps", "1"]
    run = run_here(write_config(tmp_path, shards), *more, "--train.max_steps", "2", "--optim.lr", "1e-6")
    said = (run / "log.txt").read_text()
    assert "centres of 5 of 6 identities start from" in said
    assert "1 are new and start at random, 1 of its 6 are dropped" in said
    now, before = centres_of(run, 2), centres_of(earlier, 3)
    torch.testing.assert_close(now[:5], before[[0, 2, 3, 4, 5]], rtol=1e-3, atol=1e-5)
    assert not torch.equal(now[:5], before[[0, 2, 3, 4, 5]])
