"""A run on a selection of a shard set: its checkpoint knows which, and what is evaluated is what was held out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastface.command import load_config
from fastface.run import open_data
from tests.training import assert_same_bits, cut_back, run_here, weights, write_config, write_people


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("selection")
    evaluation = "eval: {every_epochs: null, sets: {val: {images: SET, pairs: 20, held_out: 0.25}}}"
    return write_config(folder, write_people(folder), evaluation.replace("SET", str(folder / "set")))


PEOPLE = ("--data.only", "label", *(f"person_{k:03d}" for k in range(4)))


def test_a_run_goes_on_with_its_selection_and_with_no_other(config: Path) -> None:
    more = (*PEOPLE, "--data.held_out", "0.25", "--train.epochs", "5")
    run = run_here(config, *more)
    assert json.loads((run / "classes.json").read_text())["classes"] == [f"person_{k:03d}" for k in range(4)]
    steps = sorted(folder.name for folder in (run / "checkpoints").iterdir())
    last = weights(run, int(steps[-1].removeprefix("step-")))
    cut_back(run, int(steps[0].removeprefix("step-")))
    with pytest.raises(ValueError, match="the same choice of them"):
        run_here(config, *PEOPLE, "--train.epochs", "5", resume=str(run))
    with pytest.raises(ValueError, match="the same choice of them"):
        run_here(config, "--data.only", "label", "person_000", "person_001", resume=str(run))
    assert len(steps) > 1
    run_here(config, *more, resume=str(run))
    assert_same_bits(last, weights(run, int(steps[-1].removeprefix("step-"))))


def test_sources_are_selected_from_together(config: Path, tmp_path: Path) -> None:
    other = write_people(tmp_path, people=3)
    one = f"shards: {config.parent / 'set'}"
    text = config.read_text().replace(f"{{{one},", f"{{sources: [{{{one}}}, {{shards: {other}}}], labels: separate,")
    (tmp_path / "mixed.yaml").write_text(text)
    without = ("--data.without", "label", "person_001", "person_005")
    index = open_data(load_config(tmp_path / "mixed.yaml", overrides=without))
    assert len(index) == 4 * 8 + 2 * 8
    assert not any(name.endswith(("person_001", "person_005")) for name in index.classes)
