"""The proof of restarts can fail: it tells a wrong row, a missing one and junk after the last durable step."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.interruption import ROW, compare, load
from benchmarks.memory import slope
from tests.data import tiny

BATCH = 8


def loaded(shards: Path, work: Path, **changes: object) -> Path:
    """Load two epochs of 40 images in this process, from whatever state `work` holds."""
    work.mkdir(exist_ok=True)
    options = {"shards": shards, "epochs": 2, "batch": BATCH, "seed": 3, "save_every": 2, "images_per_s": 0}
    load(argparse.Namespace(**{**options, "decoder": "torch", "threads": 2, "work": work, **changes}))
    return work / "rows"


def test_a_restart_drops_what_was_not_durable_and_goes_on(tmp_path: Path) -> None:
    shards = tiny.make_shards(tmp_path).path
    whole = loaded(shards, tmp_path / "whole")
    rows = np.fromfile(whole, ROW)
    assert len(rows) == 2 * 40
    assert [sorted(rows["record"][k : k + 40]) for k in (0, 40)] == [list(range(40))] * 2
    assert rows["step"].tolist() == [step for step in range(10) for _ in range(BATCH)]
    assert rows["slot"].tolist() == list(range(BATCH)) * 10
    cut = tmp_path / "cut"
    loaded(shards, cut, epochs=1)
    state = json.loads((cut / "state.json").read_text())
    assert state["step"] == 5
    (cut / "state.json").write_text(json.dumps({**state, "step": 4}))  # the rows of step 4 are there, not its state
    with open(cut / "rows", "ab") as file:
        file.write(b"half a row")
    assert compare(loaded(shards, cut, threads=1), whole)["verdict"] == "equal"
    with pytest.raises(ValueError, match="the state is of another data set or plan"):
        loaded(shards, cut, seed=4)


def test_rows_that_differ_are_named(tmp_path: Path) -> None:
    rows = np.zeros(20, ROW)
    rows["step"] = np.arange(20)
    other = rows.copy()
    other["pixels"][13] = 7
    for name, content in (("rows", rows), ("other", other), ("short", rows[:-1])):
        content.tofile(tmp_path / name)
    assert compare(tmp_path / "rows", tmp_path / "rows")["verdict"] == "equal"
    assert compare(tmp_path / "other", tmp_path / "rows")["verdict"].startswith("row 13 is (13, 0, 0, 0, 7)")
    assert compare(tmp_path / "short", tmp_path / "rows")["verdict"] == "19 rows, undisturbed 20"


def test_slope_is_that_of_the_least_squares_line() -> None:
    values = [3.0, 5.5, 4.0, 9.0]
    x = np.arange(4) - 1.5
    assert slope(values) == pytest.approx(float((x * np.array(values)).sum() / (x**2).sum()))
    assert slope([2.0]) == 0
