"""Any number of processes, before an interrupt and after it, counts the same integers."""

import multiprocessing
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as td

from fastface import dist
from fastface.metrics.all_pairs import AllPairs, all_pairs, engine, passes, search, tally
from fastface.metrics.all_pairs.state import State
from tests.metrics.all_pairs.slow import TARGETS, check, people


def same(one: AllPairs, other: AllPairs) -> bool:
    return all(np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b for a, b in zip(one, other, strict=True))


def small_grid() -> None:
    engine.grid_side = lambda number: 29  # type: ignore[assignment]
    engine.PILOT_FROM = 50


def member(rank: int, world: int, folder: Path) -> None:
    try:
        torch.set_num_threads(1)
        td.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
        small_grid()
        rows, labels = people()
        whole = all_pairs(rows, labels, TARGETS)
        again = all_pairs(rows, labels, TARGETS, state=folder / "state")  # goes on with what the test has left there
        torch.save((whole, again), folder / f"found-{rank}")
        dist.barrier()
        td.destroy_process_group()
    except BaseException:
        (folder / f"failed-{rank}").write_text(traceback.format_exc())
        raise


@pytest.fixture
def interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state that a process has left after two files of its first pass."""
    monkeypatch.setattr(engine, "grid_side", lambda number: 29)
    monkeypatch.setattr(engine, "PILOT_FROM", 50)
    monkeypatch.setattr(engine, "SAVE_EVERY_S", 0.0)
    saved, save = [], State.save

    def save_two(*arguments: Any) -> None:
        if len(saved) == 2:
            raise KeyboardInterrupt
        save(*arguments)
        saved.append(arguments)

    monkeypatch.setattr(State, "save", save_two)
    with pytest.raises(KeyboardInterrupt):
        all_pairs(*people(), TARGETS, state=tmp_path / "state", threads=1)
    monkeypatch.setattr(State, "save", save)
    assert len(list((tmp_path / "state/pass-0").glob("*.npz"))) == 2
    return tmp_path / "state"


def test_after_an_interrupt_only_the_rest_is_counted(interrupted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, labels = people()
    expected = all_pairs(rows, labels, TARGETS)
    counted: list[passes.Unit] = []
    work = passes.Pass.run

    def run(self: passes.Pass, units: list[passes.Unit], seconds: float) -> Any:
        counted.extend(units if seconds == 0 else [])  # the pilot is not kept
        return work(self, units, seconds)

    monkeypatch.setattr(passes.Pass, "run", run)
    found = all_pairs(rows, labels, TARGETS, state=interrupted)
    panels = 6
    assert len(counted) == found.passes * panels * (panels + 1) // 2 - 2
    assert same(found, expected)
    check(found, rows, labels)
    counted.clear()
    assert same(all_pairs(rows, labels, TARGETS, state=interrupted), expected)
    assert counted == []


def test_counts_of_something_else_are_refused(interrupted: Path, tmp_path: Path) -> None:
    rows, labels = people()
    with pytest.raises(ValueError, match="targets differ"):
        all_pairs(rows, labels, (0.1,), state=interrupted)
    rows[5] *= 2
    with pytest.raises(ValueError, match="embeddings differ"):
        all_pairs(rows, labels, TARGETS, state=interrupted)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").touch()
    with pytest.raises(ValueError, match="not empty"):
        all_pairs(rows, labels, TARGETS, state=tmp_path / "mine")


def test_pairs_counted_twice_are_noticed(tmp_path: Path) -> None:
    state = State(tmp_path / "state", {"embeddings": "a"})
    windows = state.windows(0, [search.Window(0, 0, 4, 5, 6, 0)])
    assert state.windows(0, []) == windows
    state.save(0, [(0, 0), (0, 1)], tally.no_counts(windows))
    assert state.load(0, windows)[0] == {(0, 0), (0, 1)}
    state.save(0, [(1, 1), (0, 1)], tally.no_counts(windows))
    with pytest.raises(ValueError, match="two runs"):
        state.load(0, windows)


@pytest.mark.dist
@pytest.mark.parametrize("world", [1, 2, 3])
def test_on_any_number_of_processes(world: int, interrupted: Path) -> None:
    folder = interrupted.parent
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.metrics.all_pairs.test_spread"])
    processes = [context.Process(target=member, args=(rank, world, folder), daemon=True) for rank in range(world)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    said = [path.read_text() for path in folder.glob("failed-*")]
    assert [process.exitcode for process in processes] == [0] * world, "\n".join(said)
    expected = all_pairs(*people(), TARGETS)
    for rank in range(world):
        for found in torch.load(folder / f"found-{rank}", weights_only=False):
            assert same(found, expected)
