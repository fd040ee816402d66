"""Real processes: killed, asked to stop, one or two of them; what comes out is the same to the bit, or to 1e-9."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.data.shard_sets import make_set
from tests.training import (
    ROOT,
    assert_same_bits,
    command,
    environment,
    launch,
    log_lines,
    losses,
    newest_run,
    run_here,
    weights,
    write_config,
)

pytestmark = [pytest.mark.slow, pytest.mark.dist]
LONG = ("--train.epochs", "12", "--log.every_steps", "1")  # 36 steps
PREEMPTED = 75


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("launch"), people=6, images=8)


def start(config: Path, *arguments: str, processes: int = 1) -> subprocess.Popen[str]:
    """Start a run in a process group of its own."""
    return subprocess.Popen(
        command(config, *arguments, processes=processes),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for_step(config: Path, step: int, process: subprocess.Popen[str], run: Path | None = None) -> Path:
    """Wait until the run has logged a step; return its folder."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[0]
        runs = [run] if run else sorted((config.parent / "runs" / config.stem).glob("*"))
        if runs and (runs[-1] / "metrics.jsonl").exists() and len(log_lines(runs[-1])) >= step:
            return runs[-1]
        time.sleep(0.01)
    raise AssertionError(f"step {step} was not reached in 120 s")


@pytest.mark.parametrize("processes", [1, 2])
def test_killed_twice_and_resumed_is_the_same_to_the_bit(shards: Path, tmp_path: Path, processes: int) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    measured = f"eval: {{every_epochs: 4, best_metric: val/auc, sets: {{val: {{images: {shards}, pairs: 100}}}}}}"
    whole = write_config(tmp_path / "a", shards, measured)
    done = launch(whole, *LONG, processes=processes)
    assert done.returncode == 0, done.stderr
    assert f"{processes} process(es)" in done.stdout
    killed = write_config(tmp_path / "b", shards, measured)
    for step, resume in ((7, ()), (20, ("--resume",))):
        process = start(killed, *LONG, *resume, processes=processes)
        wait_for_step(killed, step, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    done = launch(killed, *LONG, "--resume", processes=processes)
    assert done.returncode == 0, done.stderr
    assert "resuming from" in done.stdout
    assert log_lines(newest_run(killed)) == log_lines(newest_run(whole))  # losses and evaluations
    assert (newest_run(killed) / "best.json").read_text() == (newest_run(whole) / "best.json").read_text()
    assert_same_bits(weights(newest_run(killed), 36), weights(newest_run(whole), 36))


def test_one_process_and_two_see_the_same_and_learn_the_same(shards: Path, tmp_path: Path) -> None:
    """float64: two micro-batches of 8 on one process, or one on each of two; then one half on each number."""
    double = ("--train.precision", "fp64", "--train.epochs", "8")
    (tmp_path / "two").mkdir()
    one = write_config(tmp_path, shards)
    two = write_config(tmp_path / "two", shards)
    alone = losses(run_here(one, *double))
    done = launch(two, *double, processes=2)
    assert done.returncode == 0, done.stderr
    both = losses(newest_run(two))
    assert len(alone) == 24
    for step in range(1, 21):
        assert both[step] == pytest.approx(alone[step], rel=1e-9), step
    run = newest_run(one)
    for folder in sorted((run / "checkpoints").iterdir()):
        if int(folder.name.removeprefix("step-")) > 12:
            shutil.rmtree(folder)
    done = launch(one, *double, "--resume", processes=2)
    assert done.returncode == 0, done.stderr
    changed = losses(run)
    assert {s: changed[s] for s in range(1, 13)} == {s: alone[s] for s in range(1, 13)}
    for step in range(13, 25):
        assert changed[step] == pytest.approx(alone[step], rel=1e-9), step


def test_two_machines_are_two_processes(shards: Path, tmp_path: Path) -> None:
    """Two agents of torchrun, as on two machines that share a disk: the same bits as one agent with two processes."""
    (tmp_path / "apart").mkdir()
    together, apart = write_config(tmp_path, shards), write_config(tmp_path / "apart", shards)
    done = launch(together, "--runtime.threads", "1", processes=2)
    assert done.returncode == 0, done.stderr
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    train = [str(ROOT / "fastface" / "train.py"), "--config", str(apart), "--runtime.threads", "1"]
    meeting = ["--nnodes=2", "--nproc_per_node=1", "--master_addr=127.0.0.1", f"--master_port={port}"]
    agents = [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *meeting, f"--node_rank={rank}", *train],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (0, 1)
    ]
    said = [agent.communicate(timeout=600)[0] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], said
    assert "2 process(es)" in said[0]
    assert log_lines(newest_run(apart)) == log_lines(newest_run(together))
    last = max(losses(newest_run(apart)))
    assert_same_bits(weights(newest_run(apart), last), weights(newest_run(together), last))


@pytest.mark.parametrize("who", ["launcher", "terminal", "rank", "process"])
def test_sigterm_or_ctrl_c_saves_and_ends_every_process(shards: Path, tmp_path: Path, who: str) -> None:
    config = write_config(tmp_path, shards)
    long = ("--train.epochs", "4000", "--log.every_steps", "1", "--checkpoint.every_steps", "100000")
    if who in ("launcher", "terminal"):  # accelerate's own, whose single child does not get the signal from it
        words = command(config, *long)
        words[1:1] = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1"]
        process = subprocess.Popen(
            words,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )
    else:
        process = start(config, *long, processes=2 if who == "rank" else 1)
    run = wait_for_step(config, 5, process)
    target = process.pid if who != "rank" else max(children(process.pid))
    if who == "terminal":  # Ctrl-C reaches the whole group, and then the launcher's death its child again
        os.killpg(process.pid, signal.SIGINT)
    else:
        os.kill(target, signal.SIGTERM)
    process.wait(60)
    deadline = time.monotonic() + 60
    while group_members(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not group_members(process.pid), "a process outlived its run"
    saved = sorted((run / "checkpoints").iterdir())
    assert len(saved) == 1
    assert saved[0].name.startswith("step-")
    assert "asked to stop" in (run / "log.txt").read_text()
    if who == "process":
        assert process.returncode == PREEMPTED


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def group_members(group: int) -> list[int]:
    """Living processes of a process group."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(int(folder.name))
    return found


def test_a_contradicting_launcher_is_refused(shards: Path, tmp_path: Path) -> None:
    words = command(write_config(tmp_path, shards))
    words[1:1] = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", "--mixed_precision", "bf16"]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "the launcher asks for mixed precision bf16, the configuration for fp32" in done.stderr


def test_training_needs_no_network(shards: Path, tmp_path: Path, no_network: Path) -> None:
    environ = {**environment(), "PYTHONPATH": os.environ["PYTHONPATH"] + os.pathsep + str(ROOT)}
    environ["FASTFACE_TEST_NETWORK_LOG"] = str(no_network)
    words = command(write_config(tmp_path, shards), "--train.max_steps", "2")
    done = subprocess.run(words, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
