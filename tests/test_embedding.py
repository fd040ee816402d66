"""A folder of embeddings is that of a plain loop, by any number of processes, killed or not, with bad images named."""

import dataclasses
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fastface import embedding
from fastface.card import Card
from fastface.data.embeddings import open_embeddings
from fastface.data.image_sets import ShardImages
from fastface.data.index import Index
from fastface.data.names import Names
from fastface.embedding import embed_into, embed_shards, identity_of
from fastface.embedding_progress import UNFINISHED
from fastface.predictor import Embedder, load_embedder
from tests.data import tiny
from tests.data.shard_sets import make_set
from tests.training import ROOT, environment, run_here, write_config

SIZE = (tiny.WIDTH, tiny.HEIGHT)
CARD = Card(input_size=SIZE, mean=127.5, std=127.5, embedding_size=4, flip="concat")


def network(images: np.ndarray) -> np.ndarray:
    """Project pixels onto four fixed directions, one image after the other; mirroring changes the result."""
    width, height = SIZE
    directions = np.random.default_rng(3).normal(size=(3 * width * height, 4)).astype(np.float32)
    return np.stack([image.reshape(-1) @ directions for image in images])


def embedder(run: Callable[[np.ndarray], np.ndarray] = network) -> Embedder:
    return Embedder(run, CARD, "projection")


def embed(out: Path, index: Index, run: Callable[[np.ndarray], np.ndarray] = network, batch: int = 4) -> str:
    model = embedder(run)
    return embed_into(out, model, index, identity_of(model, "a" * 64, index, batch, "cpu"), threads=2)


def plain(index: Index) -> np.ndarray:
    """Embed image after image."""
    images, model = ShardImages(index), embedder()
    return np.concatenate([model(images.load(i)[None]) for i in range(len(images))])


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    return tiny.make_shards(tmp_path_factory.mktemp("tiny"))  # 40 images in shards of 13


@pytest.mark.parametrize("batch", [1, 4, 7, 40, 64])
def test_rows_are_those_of_a_plain_loop(index: Index, tmp_path: Path, batch: int) -> None:
    said = embed(tmp_path / "out", index, batch=batch)
    found = open_embeddings(tmp_path / "out")
    np.testing.assert_array_equal(found.rows, plain(index))
    np.testing.assert_array_equal(found.labels, index.label)
    assert list(found.names) == [index.name(i) for i in range(len(index))]
    assert list(found.classes) == list(index.classes)
    assert (found.meta["failed"], found.meta["model"]["flip"], found.dataset_id) == (0, "concat", index.dataset_id)
    assert "40 embeddings of 8 values" in said
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        [*(f"{name}.npy" for name in found.meta["arrays"]), "failed.csv", "meta.json"]
    )
    assert "nothing to do" in embed(tmp_path / "out", index, batch=batch)


def damaged(index: Index, folder: Path, records: list[int]) -> Index:
    """Copy a set and turn over a bit in the middle of these records."""
    shutil.copytree(index.path, folder)
    for record in records:
        with open(folder / index.shard_path(int(index.shard[record])).name, "r+b") as file:
            at = int(index.offset[record]) + int(index.length[record]) // 2
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 4]))
    return Index.open(folder)


def test_bad_images_are_named_and_their_rows_are_nan(index: Index, tmp_path: Path) -> None:
    bad = [0, 4, 5, 6, 7, 39]  # a whole batch among them
    broken = damaged(index, tmp_path / "set", bad)
    said = embed(tmp_path / "out", broken)
    found = open_embeddings(tmp_path / "out")
    expected = plain(index)
    expected[bad] = np.nan
    np.testing.assert_array_equal(found.rows, expected)
    lines = (tmp_path / "out" / "failed.csv").read_text().splitlines()
    assert lines[0] == "record,shard,member,offset,identity,name,reason"
    assert [int(line.split(",")[0]) for line in lines[1:]] == bad
    assert all("crc32 is" in line and index.name(i) in line for line, i in zip(lines[1:], bad, strict=True))
    assert f"6 of 40 images failed, their rows are NaN: {tmp_path / 'out'}/failed.csv" in said
    assert found.meta["failed"] == 6


def test_an_embedding_without_direction_is_a_failure(index: Index, tmp_path: Path) -> None:
    def odd(images: np.ndarray) -> np.ndarray:
        rows = network(images)
        if len(rows) > 1:  # not the probe for the width
            rows[1], rows[2, 3] = 0, np.inf
        return rows

    embed(tmp_path / "out", index, odd, batch=20)
    rows = open_embeddings(tmp_path / "out").rows
    assert np.flatnonzero(np.isnan(rows).all(axis=1)).tolist() == [1, 2, 21, 22]
    text = (tmp_path / "out" / "failed.csv").read_text()
    assert text.count("its embedding is zero or not finite") == 4


def test_none_readable(index: Index, tmp_path: Path) -> None:
    broken = damaged(index, tmp_path / "set", list(range(40)))
    with pytest.raises(ValueError, match=r"none of the 40 images of .* could be embedded; the first: .*crc32"):
        embed(tmp_path / "out", broken)


def test_no_images(index: Index, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no images"):
        embed(tmp_path / "out", dataclasses.replace(index, num_samples=0))
    assert not (tmp_path / "out").exists()


def test_killed_at_any_time_and_resumed(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child is killed in the middle of a batch, each start some batches later, until one comes through."""
    broken = damaged(index, tmp_path / "set", [2, 17])
    monkeypatch.setattr(embedding, "FLUSH_ROWS", 8)
    out, kills, seen = tmp_path / "out", 0, []
    for _ in range(20):
        child = os.fork()
        if not child:
            calls = 0

            def dying(images: np.ndarray) -> np.ndarray:
                nonlocal calls
                calls += 1
                if calls > 7:  # one is the probe for the width, and each batch comes mirrored as well
                    os.kill(os.getpid(), signal.SIGKILL)
                return network(images)

            embed(out, broken, dying)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            break
        kills += 1
        seen.append((out / UNFINISHED / "done.bin").read_bytes().count(1))
    assert kills >= 3
    assert seen == sorted(set(seen)), "every start brings the work forward"
    expected = plain(index)
    expected[[2, 17]] = np.nan
    np.testing.assert_array_equal(open_embeddings(out).rows, expected)
    assert len((out / "failed.csv").read_text().splitlines()) == 3


def test_what_was_not_marked_done_is_computed_again(index: Index, tmp_path: Path) -> None:
    """Rows may be on disk in part, as after a power cut: only the mark counts."""
    out = tmp_path / "out"
    stopped_after(out, index, batches=3)
    rows = np.load(out / "embeddings.npy", mmap_mode="r+")
    rows[12:] = 7
    rows.flush()
    embed(out, index)
    np.testing.assert_array_equal(open_embeddings(out).rows, plain(index))


def stopped_after(out: Path, index: Index, batches: int) -> str:
    """Send this process a Ctrl-C while it embeds, and return what it says."""
    calls = 0

    def asking(images: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls == 1 + 2 * batches:
            os.kill(os.getpid(), signal.SIGINT)
        return network(images)

    with pytest.raises(KeyboardInterrupt) as stop:
        embed(out, index, asking)
    return str(stop.value)


def test_ctrl_c_keeps_what_is_done(index: Index, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = stopped_after(out, index, batches=3)
    assert said == f"stopped: 12 of 40 embeddings are kept in {out}; the same command goes on from here"
    with pytest.raises(ValueError, match=r"is not complete: run embed\.py again"):
        open_embeddings(out)
    assert "28 images in" in embed(out, index)
    np.testing.assert_array_equal(open_embeddings(out).rows, plain(index))


@pytest.mark.parametrize("finished", [True, False])
def test_another_model_or_option_is_refused(index: Index, tmp_path: Path, finished: bool) -> None:
    out = tmp_path / "out"
    _ = embed(out, index) if finished else stopped_after(out, index, batches=2)
    before = (out / "embeddings.npy").read_bytes()
    model = embedder()
    own = identity_of(model, "a" * 64, index, 4, "cpu")
    other = {**own, "model": {**own["model"], "sha256": "b" * 64}}
    for changed, key in [(other, "model"), ({**own, "batch_size": 8}, "batch_size"), ({**own, "dataset_id": "x"}, "d")]:
        with pytest.raises(ValueError, match=rf"holds embeddings of something else:\n  {key}.* -> .*\nChoose another"):
            embed_into(out, model, index, changed, 1)
    assert (out / "embeddings.npy").read_bytes() == before


def test_a_folder_of_something_else_is_left_alone(index: Index, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match="holds something else than embeddings: choose a new folder"):
        embed(tmp_path / "out", index)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]


def test_a_full_disk_is_said_before_work(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: os.terminal_size((0, 0)) and type("Free", (), {"free": 100}))
    with pytest.raises(OSError, match=r"0\.0 GB free, and 40 embeddings of 8 values need"):
        embed(tmp_path / "out", index)
    monkeypatch.undo()
    embed(tmp_path / "out", index)  # the folder that was refused for its disk is no other's


def many(index: Index, times: int) -> Index:
    """Let the records of a set's first shard come again and again."""
    one = int(index.meta["shards"][0]["samples"])
    columns = {
        name: np.tile(getattr(index, name)[:one], times) for name in ("shard", "offset", "length", "label", "crc32")
    }
    names = Names(["x"] * one * times)
    meta = {**index.meta, "shards": [{**index.meta["shards"][0], "samples": one * times}]}
    return dataclasses.replace(
        index, meta=meta, num_samples=one * times, _names=names.data, _names_start=names.start, **columns
    )


def test_memory_does_not_grow_with_the_set(index: Index, tmp_path: Path) -> None:
    """400 and 4,000 images of 4,096 values are 6 and 64 MB of rows."""

    def wide(images: np.ndarray) -> np.ndarray:
        return np.full((len(images), 2_048), images[0, 0, 0, 0] + 5, np.float32)

    used = []
    for times in (30, 300):
        child = os.fork()
        if not child:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            embed(tmp_path / str(times), many(index, times), wide, batch=128)
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            (tmp_path / f"{times}.txt").write_text(str(grown))
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        used.append(int((tmp_path / f"{times}.txt").read_text()) / 1024)
    assert used[1] - used[0] < 16, f"grew by {used} MB"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Give a run of one step and its shard set of 30 images."""
    folder = tmp_path_factory.mktemp("trained")
    shards = make_set(folder)
    return run_here(write_config(folder, shards), "--train.max_steps", "1"), shards


def test_a_run_and_its_shards(trained: tuple[Path, Path], tmp_path: Path) -> None:
    run, shards = trained
    said = embed_shards(run, str(shards), tmp_path / "out", batch_size=8, threads=1)
    found = open_embeddings(tmp_path / "out")
    images, model = ShardImages(Index.open(shards)), load_embedder(run)
    for start in range(0, 30, 8):
        pictures = np.stack([images.load(i) for i in range(start, min(start + 8, 30))])
        np.testing.assert_array_equal(found.rows[start : start + 8], model(pictures))
    assert str(model.origin) in said
    assert len(found.meta["model"]["sha256"]) == 64


def test_images_of_another_size(trained: tuple[Path, Path], index: Index, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds images of \(24, 16\), the model takes 32x32: make the shards with"):
        embed_shards(trained[0], str(index.path), tmp_path / "out")
    with pytest.raises(ValueError, match="--batch-size is 0"):
        embed_shards(trained[0], str(index.path), tmp_path / "out", batch_size=0)
    with pytest.raises(ValueError, match="runs on the CPU: leave out --device cuda"):
        embed_shards(Path("model.onnx"), str(index.path), tmp_path / "out", device="cuda:0")
    assert not (tmp_path / "out").exists()


def launch(run: Path, shards: Path, out: Path) -> subprocess.Popen[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    tool = [str(ROOT / "tools" / "embed.py"), "--checkpoint", str(run), "--shards", str(shards), "--out", str(out)]
    return subprocess.Popen(
        [sys.executable, *launcher, *tool, "--batch-size", "4", "--threads", "1"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.slow
@pytest.mark.dist
def test_two_processes_do_what_one_does_and_go_on_after_a_kill(trained: tuple[Path, Path], tmp_path: Path) -> None:
    run, shards = trained
    embed_shards(run, str(shards), tmp_path / "one", batch_size=4, threads=1)
    two = launch(run, shards, tmp_path / "two")
    killed = launch(run, shards, tmp_path / "killed")
    while not (tmp_path / "killed" / UNFINISHED).exists() and killed.poll() is None:
        time.sleep(0.005)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    said, errors = two.communicate(timeout=120)
    assert two.returncode == 0, errors
    assert "2 process(es)" in said
    embed_shards(run, str(shards), tmp_path / "killed", batch_size=4, threads=1)
    whole = (tmp_path / "one" / "embeddings.npy").read_bytes()
    assert (tmp_path / "two" / "embeddings.npy").read_bytes() == whole
    assert (tmp_path / "killed" / "embeddings.npy").read_bytes() == whole
    assert json.loads((tmp_path / "two" / "meta.json").read_text())["last_start"]["processes"] == 2
