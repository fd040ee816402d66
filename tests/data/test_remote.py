"""Shards on a server: the same bytes through every fault, within the bound of the cache, by any number of processes."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastface.data.augment import Augment
from fastface.data.batch import Batch
from fastface.data.download import Patience
from fastface.data.index import Index
from fastface.data.loader import Loader
from fastface.data.plan import Slots, hash_numbers, permute, slot_keys
from fastface.data.plans import Shuffled
from fastface.data.remote import RemoteSet
from fastface.data.shard_cache import CacheOptions
from tests.data import tiny
from tests.data.remote_sets import SHARD, make_set, same, short_waits
from tests.data.servers import FaultyServer

pytest.importorskip("fsspec", reason='needs fsspec: pip install "fastface[remote]"')
pytest.importorskip("aiohttp", reason='needs aiohttp: pip install "fastface[remote]"')

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Index:
    return make_set(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def server(local: Index) -> Iterator[FaultyServer]:
    with FaultyServer(local.path) as server:
        yield server


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with short_waits(monkeypatch):
        yield


def gigabytes(local: Index, shards: float) -> float:
    """A cache for so many of the largest shard."""
    return shards * max(local.shard_bytes(k) for k in range(local.num_shards)) / 1e9


def whole(folder: Path, local: Index) -> None:
    """Every shard in the cache is that of the set."""
    for path in folder.glob("*.tar"):
        assert path.read_bytes() == (local.path / path.name).read_bytes()


class Windows:
    """The least that a windowed plan is: pairs of shards in drawn order, their records mixed, no rest kept."""

    unit = 1

    def __init__(self, index: Index, batch_size: int, seed: int = 5, width: int = 2) -> None:
        self.batch_size, self.seed, self.width, self.index = batch_size, seed, width, index
        self.windows = [list(range(k, min(k + width, index.num_shards))) for k in range(0, index.num_shards, width)]
        members = [np.flatnonzero(np.isin(index.shard, window)) for window in self.windows]
        self.members, self.lengths = members, [len(m) // batch_size for m in members]
        self.steps_per_epoch = sum(self.lengths)

    def window(self, step: int) -> tuple[int, int]:
        epoch, position = divmod(step, self.steps_per_epoch)
        for number in permute(np.arange(len(self.windows)), len(self.windows), hash_numbers(self.seed, epoch)):
            if position < self.lengths[number]:
                return int(number), position
            position -= self.lengths[number]
        raise AssertionError(step)

    def shards_of(self, step: int) -> list[int]:
        number, position = self.window(step)
        return list(
            dict.fromkeys(self.windows[number] + self.windows[self.window(step - position + self.lengths[number])[0]])
        )

    def __getitem__(self, step: int) -> Slots:
        number, position = self.window(step)
        order = permute(np.arange(len(self.members[number])), len(self.members[number]), hash_numbers(number, step))
        records = self.members[number][order[: self.batch_size]] + 0 * position
        return Slots(step, 0, records, slot_keys(self.seed, step, self.batch_size))

    def describe(self) -> dict[str, Any]:
        return {"name": "windows", "seed": self.seed}


def load(index: Index, plan: Any, steps: int, seen: Callable[[Batch], None] = lambda batch: None, **more: Any) -> list:
    """Reduce the batches of a loader to lists."""
    options = {"augment": Augment(), "decoder": "torch", "size": (tiny.WIDTH, tiny.HEIGHT), "micro_batch": 2, **more}
    rows = []
    with Loader(index, plan, check_crc=True, **options) as loader:
        for batch in loader.batches(0, steps):
            rows.append((batch.step, batch.records.tolist(), batch.labels.tolist(), batch.images.numpy().tobytes()))
            seen(batch)
    return rows


# --- the cache ---


def test_least_recently_used_goes_first(local: Index, server: FaultyServer, tmp_path: Path) -> None:
    options = CacheOptions(tmp_path, gigabytes(local, 3.5))
    first, other = RemoteSet(server.url, options), RemoteSet(server.url, options)
    for number in range(3):
        first.shard(number)
        time.sleep(0.01)
    other.shard(0)  # in use elsewhere, and used last
    first.pause()
    first.resume()
    names = lambda: sorted(path.name for path in first.folder.glob("*.tar"))  # noqa: E731
    first.shard(3)
    assert len(names()) == 3
    assert "shard-000000.tar" in names()
    first.shard(4)
    assert names() == ["shard-000000.tar", "shard-000003.tar", "shard-000004.tar"]
    with pytest.raises(ValueError, match=r"no room for .*shard-000005.tar .*bytes too few.*raise data.remote_cache_gb"):
        first.shard(5)
    other.pause()
    assert first.shard(5).read_bytes() == (local.path / "shard-000005.tar").read_bytes()
    assert names() == ["shard-000003.tar", "shard-000004.tar", "shard-000005.tar"]
    first.pause()


def test_a_cache_too_small_is_refused(local: Index, server: FaultyServer, tmp_path: Path) -> None:
    remote = Index.open(server.url, CacheOptions(tmp_path, gigabytes(local, 3)))
    with pytest.raises(
        ValueError,
        match=r"data.remote_cache_gb .* too small for http.*two windows, 4 shards .*must fit.*smaller windows",
    ):
        load(remote, Windows(local, 4), 8)
    with pytest.raises(ValueError, match=r"reads shards in any order.* or use data.plan windowed"):
        load(remote, Shuffled(len(local), 4, 0), 8)
    assert not list(remote.path.glob("*.tar"))


# --- training ---


@pytest.mark.parametrize("shards", [4.2, 6, 50])
def test_batches_equal_local_ones_within_the_bound(
    local: Index, server: FaultyServer, tmp_path: Path, shards: float
) -> None:
    plan, sizes = Windows(local, 4), []
    remote = Index.open(server.url, CacheOptions(tmp_path, gigabytes(local, shards)))

    def measure(_: Batch) -> None:
        with contextlib.suppress(FileNotFoundError):  # deleted while we look
            sizes.append(sum(p.stat().st_size for p in remote.path.iterdir() if p.suffix in (".tar", ".part")))

    assert load(remote, plan, 2 * plan.steps_per_epoch, measure) == load(local, plan, 2 * plan.steps_per_epoch)
    assert max(sizes) <= shards * gigabytes(local, 1) * 1e9
    whole(remote.path, local)
    times = [server.starts(f"shard-{k:06d}.tar").count(0) for k in range(10)]
    assert times == [1] * 10 if shards == 50 else sum(times) <= 2 * 10 + 4  # once an epoch, and what would come next


def test_windows_shorter_than_what_is_decoded_ahead(local: Index, server: FaultyServer, tmp_path: Path) -> None:
    """Batches under way then want more shards than the cache holds: those needed first take the room."""
    plan = Windows(local, 4, width=1)
    remote = Index.open(server.url, CacheOptions(tmp_path, gigabytes(local, 2.2)))
    assert load(remote, plan, plan.steps_per_epoch, ahead=9) == load(local, plan, plan.steps_per_epoch)
    assert sum(path.stat().st_size for path in remote.path.glob("shard-*")) <= 2.2 * gigabytes(local, 1) * 1e9


def test_a_plan_without_windows_warns_and_works(local: Index, server: FaultyServer, tmp_path: Path) -> None:
    remote, plan = Index.open(server.url, CacheOptions(tmp_path)), Shuffled(len(local), 4, 7)
    with pytest.warns(UserWarning, match="reads shards in any order.*data.plan windowed"):
        rows = load(remote, plan, 20)
    assert rows == load(local, plan, 20)


def test_the_next_window_is_there_before_it_is_needed(local: Index, server: FaultyServer, tmp_path: Path) -> None:
    remote, plan = RemoteSet(server.url, CacheOptions(tmp_path, gigabytes(local, 6))), Windows(local, 4)
    remote.resume()
    remote.follow(plan, 0, 4)
    soon = {f"shard-{number:06d}.tar" for number in plan.shards_of(0)}
    assert len(soon) == 4
    until = time.monotonic() + 3
    while {path.name for path in remote.folder.glob("*.tar")} != soon:
        assert time.monotonic() < until
        time.sleep(0.01)
    asked = len(server.asked)
    assert [remote.shard(number).name for number in plan.shards_of(0)] != []
    assert len(server.asked) == asked
    remote.pause()


def test_ranks_share_downloads_and_failures_arrive(local: Index, server: FaultyServer, tmp_path: Path) -> None:
    plan, ranks = Windows(local, 8), []
    for rank in range(2):
        remote = Index.open(server.url, CacheOptions(tmp_path))
        ranks.append(load(remote, plan, plan.steps_per_epoch, rank=rank, world=2))
    assert sorted(ranks[0] + ranks[1]) == sorted(load(local, plan, plan.steps_per_epoch))
    assert all(server.starts(f"shard-{k:06d}.tar").count(0) == 1 for k in range(10))
    server.faults = {".tar": ["404*"]}
    remote = Index.open(server.url, CacheOptions(tmp_path / "new"))
    with pytest.raises(ValueError, match=r"shard-00000\d.tar at byte 0: there is no such file"):
        load(remote, plan, 2)


def test_leaving_does_not_wait_for_a_server(local: Index, server: FaultyServer, tmp_path: Path) -> None:
    remote = Index.open(server.url, CacheOptions(tmp_path))
    assert remote.remote is not None
    remote.remote.server.patience = Patience(timeout_s=60, deadline_s=60)
    server.faults = {".tar": ["stall*"]}
    options: Any = {"augment": Augment(), "decoder": "torch", "size": (tiny.WIDTH, tiny.HEIGHT), "micro_batch": 2}
    loader = Loader(remote, Windows(local, 4), **options)
    loader.batches()
    time.sleep(0.2)
    started = time.monotonic()
    loader.close()
    assert time.monotonic() - started < 1.5


# --- several processes ---

READ = """
import sys
from pathlib import Path
from fastface.data import download
from fastface.data.index import Index
from fastface.data.shard_cache import CacheOptions
download.PIECE = 3000
index = Index.open(sys.argv[1], CacheOptions(Path(sys.argv[2])))
print("open", flush=True)
for number in range(int(sys.argv[3])):
    index.shard_path(number)
print("read", flush=True)
"""


def reader(server: FaultyServer, cache: Path, shards: int) -> subprocess.Popen:
    command = [sys.executable, "-c", READ, server.url, str(cache), str(shards)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_processes_share_one_cache(local: Index, server: FaultyServer, tmp_path: Path) -> None:
    server.faults, server.pause_s = {".tar": ["slow*"]}, 0.002
    processes = [reader(server, tmp_path, 4) for _ in range(3)]
    for process in processes:
        assert process.communicate(timeout=20)[0] == "open\nread\n"
        assert process.returncode == 0
    for number in range(4):
        starts = server.starts(f"shard-{number:06d}.tar")
        assert len(starts) == len(set(starts))  # no byte came twice
    for column in local.meta["columns"]:
        assert len(server.starts(f"index/{column}.npy")) == len(set(server.starts(f"index/{column}.npy")))
    whole(tmp_path / local.dataset_id, local)


def test_killed_in_mid_download(local: Index, server: FaultyServer, tmp_path: Path) -> None:
    server.faults, server.pause_s = {SHARD: ["slow*"]}, 0.05
    process = reader(server, tmp_path, 2)
    while len(server.starts(SHARD)) < 3:  # two pieces have come
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (part,) = (tmp_path / local.dataset_id).glob("*.part")
    assert part.stat().st_size >= 3000
    server.faults, server.asked = {}, []
    remote = Index.open(server.url, CacheOptions(tmp_path))
    same(remote, local)
    assert min(server.starts(SHARD)) >= 3000  # went on, did not begin again
    part.write_bytes(bytes(7000))  # what a power failure can leave
    (remote.path / SHARD).unlink()
    remote = Index.open(server.url, CacheOptions(tmp_path))
    same(remote, local)
