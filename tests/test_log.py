import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from tqdm import tqdm

from fastface import log as log_module
from fastface.collapse import Collapse
from fastface.log import Log
from fastface.timing import Stopwatch


def open_log(folder: Path, start: int = 0, **options: Any) -> Log:
    settings = {"total_steps": 20, "every_steps": 5, "images_per_step": 8, "board": False, **options}
    return Log(folder, start_step=start, **settings)


def terms(step: int) -> dict[str, Tensor]:
    return {"loss": torch.tensor(1.0 / step), "mean_cosine": torch.tensor(0.1)}


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def train(log: Log, first: int, last: int) -> None:
    for step in range(first, last + 1):
        log.step(step, terms(step), 0.1 / step, 0.0)


def test_a_resumed_log_equals_one_never_stopped(tmp_path: Path) -> None:
    for name in ("straight", "killed"):
        (tmp_path / name).mkdir()
    log = open_log(tmp_path / "straight")
    train(log, 1, 20)
    log.close()
    killed = open_log(tmp_path / "killed", watch=Stopwatch(torch.device("cpu")))
    train(killed, 1, 13)
    killed.flush()
    killed.close()
    for name in ("metrics.jsonl", "timings.jsonl"):
        with (tmp_path / "killed" / name).open("ab") as file:
            file.write(b'{"step": 14, "lo\xff')  # torn by a power cut
    resumed = open_log(tmp_path / "killed", 7)
    assert [row["step"] for row in rows(tmp_path / "killed" / "timings.jsonl")] == [5]
    train(resumed, 8, 20)
    resumed.close()
    straight, again = (tmp_path / name / "metrics.jsonl" for name in ("straight", "killed"))
    assert straight.read_bytes() == again.read_bytes()
    assert [row["step"] for row in rows(straight)] == list(range(1, 21))
    assert [(row["step"], row["steps"]) for row in rows(tmp_path / "killed" / "timings.jsonl")] == [
        (5, 5),
        (10, 3),
        (15, 5),
        (20, 5),
    ]


def test_timings_have_a_file_of_their_own(tmp_path: Path) -> None:
    watch = Stopwatch(torch.device("cpu"))
    log = open_log(tmp_path, watch=watch, board=True)
    for step in range(1, 6):
        with watch("forward"):
            pass
        log.step(step, terms(step), 0.1, 0.01)
    log.close()
    (timing,) = rows(tmp_path / "timings.jsonl")
    assert timing["parts_ms"].keys() == {"forward"}
    assert timing["data_wait"] == pytest.approx(0.05 / timing["seconds"])
    assert timing["images_per_s"] == pytest.approx(5 * 8 / timing["seconds"])
    assert all(row.keys() == {"step", "lr", "loss", "mean_cosine"} for row in rows(tmp_path / "metrics.jsonl"))
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert set(board.Tags()["scalars"]) == {
        *("train/loss", "train/mean_cosine", "train/lr"),
        *("timing/images_per_s", "timing/data_wait", "timing/forward_ms"),
    }
    assert board.Scalars("train/loss")[0].value == pytest.approx(sum(1 / s for s in range(1, 6)) / 5)


def test_terms_may_change_within_an_interval(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    train(log, 1, 2)
    for step in (3, 4, 5):
        log.step(step, {"loss": torch.tensor(2.0), "active": torch.tensor(0.5)}, 0.1, 0.0)
    log.close()
    assert [set(row) - {"step", "lr", "loss"} for row in rows(tmp_path / "metrics.jsonl")] == [
        {"mean_cosine"},
        {"mean_cosine"},
        {"active"},
        {"active"},
        {"active"},
    ]


@pytest.mark.parametrize(("percent", "steps"), [(5.0, [5, 10, 15, 20]), (50.0, [5, 10, 20]), (100.0, [5, 20])])
def test_progress_comes_every_so_many_percent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], percent: float, steps: list[int]
) -> None:
    log = open_log(tmp_path, every_percent=percent)
    train(log, 1, 20)
    log.close()
    said = [line for line in capsys.readouterr().out.splitlines() if "step" in line]
    assert [int(line.split("step ")[1].split("/")[0]) for line in said] == steps
    assert all("images/s  data wait" in line for line in said)


@pytest.mark.parametrize("percent", [0.0, -1.0, 101.0])
def test_impossible_percents_are_refused(tmp_path: Path, percent: float) -> None:
    with pytest.raises(ValueError, match="every_percent"):
        open_log(tmp_path, every_percent=percent)


def test_slow_steps_show_life(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(log_module.time, "perf_counter", lambda: now[0])
    log = open_log(tmp_path, total_steps=1000, every_steps=100)
    for step in range(1, 26):
        now[0] += 60.0
        log.step(step, terms(step), 0.1, 0.0)
    log.close()
    assert capsys.readouterr().out.splitlines() == ["[  1 %] step 11/1000", "[  2 %] step 22/1000"]


def test_the_bar_counts_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(log_module, "tqdm", lambda **options: tqdm(file=io.StringIO(), **options))
    log = open_log(tmp_path, 3)
    assert log._bar.n == 3
    train(log, 4, 4)
    assert log._bar.n == 4
    train(log, 5, 12)
    assert log._bar.n == 12
    log.close()


def intervals(log: Log, cosines: list[float], loss: float) -> None:
    step = log._last
    for cosine in cosines:
        for _ in range(5):
            step += 1
            log.step(step, {"loss": torch.tensor(loss), "mean_cosine": torch.tensor(cosine)}, 0.1, 0.0)


@pytest.mark.parametrize(
    ("cosines", "loss", "since"),
    [
        ([0.1, 0.995, 0.999, 0.999], 0.15, 6),
        ([0.1, 0.5, 0.95, 0.97], 0.2005, 11),  # within 1 % of the margin
        ([0.1, 0.5, 0.95, 0.97], 0.15, None),
        ([-0.06, 0.02, 0.01, 0.0], 0.2, None),  # a healthy start may have the margin's loss
    ],
)
def test_a_collapse_is_said_once(tmp_path: Path, cosines: list[float], loss: float, since: int | None) -> None:
    log = open_log(tmp_path, collapsed_loss=0.2)
    intervals(log, cosines, loss)
    log.close()
    warnings = [line for line in (tmp_path / "log.txt").read_text().splitlines() if "WARNING" in line]
    assert len(warnings) == (since is not None)
    if since is not None:
        assert f"since step {since} " in warnings[0]
        assert "optim.lr" in warnings[0]
        assert "semi-hard" in warnings[0]


def test_other_losses_are_judged_by_their_cosine_alone() -> None:
    assert Collapse().look(1, 5, {"loss": 0.2, "mean_cosine": 0.95}) is None
    assert Collapse(0.2).look(1, 5, {"loss": 0.2}) is None
    assert Collapse(0.2).look(1, 5, {"loss": float("nan"), "mean_cosine": float("nan")}) is None
    assert "since step 1 " in str(Collapse().look(1, 5, {"loss": 9.0, "mean_cosine": 0.999}))
