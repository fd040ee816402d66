"""The command line: what it prints, how it exits, and that killing it costs no finished shard."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fastface.data.index import Index
from fastface.data.shards import ShardReader
from tests.data.shard_sets import face, tree, write_folder

ROOT = Path(__file__).resolve().parents[2]


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / "tools" / "make_shards.py"), *map(str, arguments)]


def run(*arguments: object, **more) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=60, **more)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keep a process busy for seconds: 240 images of 256x256."""
    folder = tmp_path_factory.mktemp("big") / "raw"
    pictures = [face(i, 0, 256, 256) for i in range(8)]
    for person in range(20):
        (folder / f"p{person:02d}").mkdir(parents=True)
        for number in range(12):
            (folder / f"p{person:02d}" / f"{number:02d}.jpg").write_bytes(pictures[(person + number) % 8])
    return folder


@pytest.fixture(scope="module")
def clean(raw: Path) -> dict[str, bytes]:
    done = run("folder", raw, "--out", raw.parent / "clean", "--size", 300, "--shard-size", 10, "--workers", 1)
    assert done.returncode == 0, done.stderr
    return tree(raw.parent / "clean")


def start_and_wait(raw: Path, out: Path, workers: int) -> subprocess.Popen[str]:
    """Start a conversion and wait until some of its 24 shards are finished."""
    arguments = command("folder", raw, "--out", out, "--size", 300, "--shard-size", 10, "--workers", workers)
    # What runs in the background of a script ignores Ctrl-C, and so would its children.
    process = subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 50
    while len(list(out.parent.glob("*.partial/notes/*.npz"))) < 3:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    return process


def alive(text: str) -> list[int]:
    """List processes whose command line holds `text`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                if text.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "workers"), [(signal.SIGKILL, 1), (signal.SIGKILL, 2), (signal.SIGINT, 2), (signal.SIGTERM, 1)]
)
def test_killed_conversion_goes_on_to_the_same_bytes(
    tmp_path: Path, raw: Path, clean: dict[str, bytes], how: signal.Signals, workers: int
) -> None:
    out = tmp_path / "set"
    for _ in range(10):  # on busy cores a conversion can be done before the signal comes
        process = start_and_wait(raw, out, workers)
        process.send_signal(how)
        _, errors = process.communicate(timeout=30)
        if process.returncode != 0:
            break
        shutil.rmtree(out)
    if how == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 130, errors
        assert "shards are finished and kept in" in errors
        assert "Traceback" not in errors
    deadline = time.monotonic() + 10
    while alive(str(out)):  # workers notice within a quarter of a second
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not out.exists()
    done = run("folder", raw, "--out", out, "--size", 300, "--shard-size", 10, "--workers", 2)
    assert done.returncode == 0, done.stderr
    assert "going on: " in done.stderr
    assert "shards were found finished" in done.stdout
    assert tree(out) == clean


@pytest.mark.slow
def test_parts_in_processes_at_the_same_time_then_join(tmp_path: Path, raw: Path, clean: dict[str, bytes]) -> None:
    base = ("folder", raw, "--out", tmp_path / "set", "--size", 300, "--shard-size", 10, "--workers", 1)
    parts = [subprocess.Popen(command(*base, "--part", f"{k}/2"), stderr=subprocess.PIPE) for k in (0, 1)]
    for part in parts:
        _, errors = part.communicate(timeout=60)
        assert part.returncode == 0, errors
    done = run(*base, "--join")
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "set") == clean


@pytest.mark.slow
def test_a_file_that_may_not_grow_is_told_as_a_full_disk(tmp_path: Path, raw: Path, clean: dict[str, bytes]) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))

    base = ("folder", raw, "--out", tmp_path / "set", "--size", 300, "--shard-size", 10)
    done = run(*base, "--workers", 2, preexec_fn=limit)
    assert done.returncode == 4
    assert "File too large while writing to" in done.stderr
    assert "bytes more are needed" in done.stderr
    assert "Traceback" not in done.stderr
    done = run(*base)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "set") == clean


def test_prints_what_it_did_and_refuses_to_do_it_again(tmp_path: Path) -> None:
    raw = write_folder(tmp_path / "raw", people=3, images=4)
    (raw / "person_001" / "page.jpg").write_bytes(b"<html>")
    (raw / "person_001" / ".DS_Store").write_bytes(b"x")
    done = run("folder", raw, "--out", tmp_path / "set", "--split", "train=0.67,val=0.33")
    assert done.returncode == 0, done.stderr
    for text in (
        "set/train: 8 images (32x32, 8 with their bytes as found) of 2 identities in 1 shards",
        "images/s",
    ):
        assert text in done.stdout
    assert "rejected: not-an-image 1" in done.stdout
    assert "left out by the scan: hidden 1" in done.stdout
    assert (
        (tmp_path / "set" / "rejects.csv").read_text().splitlines()[1].startswith("person_001/page.jpg,not-an-image,")
    )
    again = run("folder", raw, "--out", tmp_path / "set")
    assert (again.returncode, again.stdout) == (4, "")
    assert "never overwritten" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["folders", "x", "--out", "y"], 2, "invalid choice: 'folders'"),
        (["folder", "x"], 2, "--out"),
        (["folder", "x", "--out", "y", "--size", "112x"], 2, "does not exist"),
        (["folder", "x", "--out", "y", "--size", "big"], 2, "neither a side such as 112"),
        (["folder", "x", "--out", "y", "--crop", "1.5"], 2, "must be a fraction"),
        (["folder", "x", "--out", "y", "--crop", "boxes"], 2, "nor the word box"),
        (["folder", "x", "--out", "y", "--split", "a=0.2"], 2, "add up to 1"),
        (["folder", "x", "--out", "y", "--part", "2/2"], 2, "K runs from 0 to N - 1"),
        (["folder", "x", "--out", "y", "--part", "0/2", "--join"], 2, "exclude each other"),
        (["folder", "x", "--out", "y", "--workers", "0"], 2, "at least 1"),
        (["folder", "x", "--out", "y"], 2, "does not exist"),
    ],
)
def test_mistakes_end_with_code_2_and_a_reason(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments,
    code,
    message,
) -> None:
    from tools.make_shards import main

    monkeypatch.chdir(tmp_path)
    try:
        returned = main(arguments)
    except SystemExit as stop:
        returned = stop.code
    assert returned == code
    assert message in capsys.readouterr().err


def test_unusable_data_ends_with_code_3(tmp_path: Path) -> None:
    (tmp_path / "raw" / "p").mkdir(parents=True)
    (tmp_path / "raw" / "p" / "a.jpg").write_bytes(b"")
    done = run("folder", tmp_path / "raw", "--out", tmp_path / "set")
    assert done.returncode == 3
    assert "every image was rejected: empty-file 1" in done.stderr


def test_check_shards_exit_codes(tmp_path: Path) -> None:
    raw = write_folder(tmp_path / "raw", people=2, images=4)
    assert run("folder", raw, "--out", tmp_path / "set").returncode == 0
    tool = [sys.executable, str(ROOT / "tools" / "check_shards.py")]
    good = subprocess.run([*tool, str(tmp_path / "set"), "--decode"], capture_output=True, text=True)
    assert (good.returncode, good.stdout) == (0, f"{tmp_path}/set: 8 images in 1 shards: all is well\n")
    os.truncate(tmp_path / "set" / "shard-000000.tar", 3000)
    bad = subprocess.run([*tool, str(tmp_path / "set")], capture_output=True, text=True)
    assert bad.returncode == 3
    assert "shard-000000.tar: has 3,000 bytes, expected" in bad.stdout
    none = subprocess.run([*tool, str(raw)], capture_output=True, text=True)
    assert none.returncode == 2
    assert "no shard set" in none.stderr


def test_conversion_does_not_load_torch() -> None:
    code = "import sys; import tools.make_shards, tools.check_shards; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


# Real input, through the same command


@pytest.fixture
def data() -> Path:
    if "FASTFACE_TEST_DATA" not in os.environ:
        pytest.skip("set FASTFACE_TEST_DATA to a folder with real faces to run this")
    return Path(os.environ["FASTFACE_TEST_DATA"])


def test_real_record_file(tmp_path: Path, data: Path) -> None:
    done = run("rec", data / "records" / "train.rec", "--out", tmp_path / "set")
    assert done.returncode == 0, done.stderr
    index = Index.open(tmp_path / "set")
    assert (len(index), index.num_classes, index.image_size) == (8, 2, (112, 112))
    assert index.columns["kept"].all()
    record = (data / "records" / "train.rec").read_bytes()
    assert all(bytes(view) in record for view in ShardReader(index, check_crc=True).views(np.arange(8)))


def test_real_pair_file(tmp_path: Path, data: Path) -> None:
    done = run("bin", data / "records" / "small_lfw.bin", "--out", tmp_path / "set")
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "set" / "pairs.csv").read_text().splitlines()
    index = Index.open(tmp_path / "set")
    assert lines[0] == "a,b,same,fold"
    assert len(lines) == 11
    ids = index.find([name for line in lines[1:] for name in line.split(",")[:2]])
    assert ids.tolist() == list(range(20))


@pytest.mark.slow
def test_real_folder_in_a_tar(tmp_path: Path, data: Path) -> None:
    some = tmp_path / "some.txt"
    some.write_text("".join((data / "lfw" / "peopleDevTrain.txt").read_text().splitlines(keepends=True)[1:200]))
    out = tmp_path / "set"
    done = run("folder", data / "lfw" / "images.tar", "--include", some, "--crop", 0.5, "--size", 112, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "left out by the scan: hidden 1" in done.stdout
    index = Index.open(out)
    assert (index.num_classes, index.image_size) == (199, (112, 112))
    assert (
        subprocess.run([sys.executable, str(ROOT / "tools" / "check_shards.py"), str(out), "--decode"]).returncode == 0
    )
