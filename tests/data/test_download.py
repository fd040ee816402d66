"""A server that stalls, cuts, refuses, drips, lies or dies: the same bytes in the end, or an error that says all."""

from __future__ import annotations

import shutil
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastface.data.index import Index
from fastface.data.shard_cache import CacheOptions
from tests.data.remote_sets import SHARD, SHORT, make_set, same, short_waits
from tests.data.servers import FaultyServer

pytest.importorskip("fsspec", reason='needs fsspec: pip install "fastface[remote]"')
pytest.importorskip("aiohttp", reason='needs aiohttp: pip install "fastface[remote]"')


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


@pytest.mark.parametrize("fault", ["stall", "truncate", "reset", "500", "429", "503"])
def test_a_fault_that_passes_costs_an_attempt(local: Index, server: FaultyServer, tmp_path: Path, fault: str) -> None:
    remote = Index.open(server.url, CacheOptions(tmp_path))
    server.faults = {SHARD: ["", fault, fault]}
    with pytest.warns(UserWarning, match=rf"{SHARD} at byte 6,000: attempt 2 of 4 failed with: .*again in"):
        path = remote.shard_path(1)
    assert path.read_bytes() == (local.path / SHARD).read_bytes()
    assert server.starts(SHARD)[:5] == [0, 6000, 6000, 6000, 7500]  # goes on where it was, in smaller pieces
    same(remote, local)


def test_slow_is_no_fault(local: Index, server: FaultyServer, tmp_path: Path) -> None:
    server.faults = {SHARD: ["slow"] * 9}
    remote = Index.open(server.url, CacheOptions(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert remote.shard_path(1).read_bytes() == (local.path / SHARD).read_bytes()
    remote.remote.pause()


def test_a_server_without_ranges(local: Index, server: FaultyServer, tmp_path: Path) -> None:
    server.faults = {".tar": ["whole*"], ".npy": ["whole*"]}
    remote = Index.open(server.url, CacheOptions(tmp_path))
    same(remote, local)
    assert set(server.starts(SHARD)) == {0}
    assert len(server.starts(SHARD)) == 1


def test_wrong_bytes_are_fetched_again_once(local: Index, server: FaultyServer, tmp_path: Path) -> None:
    server.faults = {SHARD: ["wrong"]}
    remote = Index.open(server.url, CacheOptions(tmp_path))
    same(remote, local)
    assert server.starts(SHARD).count(0) == 2


def test_damage_is_named(local: Index, server: FaultyServer, tmp_path: Path) -> None:
    server.faults = {SHARD: ["wrong*"]}
    remote = Index.open(server.url, CacheOptions(tmp_path))
    sentence = rf"{server.url}/{SHARD} is damaged: all [\d,]+ bytes came twice, and .* sha256 .*upload it again"
    with pytest.raises(ValueError, match=sentence):
        remote.shard_path(1)
    assert server.starts(SHARD).count(0) == 2
    assert not list(remote.path.glob(f"{SHARD}*"))
    server.faults.clear()
    same(remote, local)  # once it is mended there, nothing needs to be done here


@pytest.mark.parametrize(
    ("status", "advice"), [("403", "AWS_ACCESS_KEY_ID"), ("401", "netrc"), ("404", "uploaded whole")]
)
def test_a_refusal_is_not_repeated(server: FaultyServer, tmp_path: Path, status: str, advice: str) -> None:
    remote = Index.open(server.url, CacheOptions(tmp_path))
    server.faults = {SHARD: [f"{status}*"]}
    with pytest.raises(ValueError, match=rf"{server.url}/{SHARD} at byte 0: .*attempt 1, not repeated.*{advice}"):
        remote.shard_path(1)
    assert len(server.starts(SHARD)) == 1
    server.faults = {"meta.json": [status]}
    with pytest.raises(ValueError, match=rf"{server.url}/meta.json at byte 0: .*{advice}"):
        Index.open(server.url, CacheOptions(tmp_path))


def test_a_server_that_stalls_for_good_is_given_up(server: FaultyServer, tmp_path: Path) -> None:
    remote = Index.open(server.url, CacheOptions(tmp_path))
    server.faults = {SHARD: ["", "stall*"]}
    started = time.monotonic()
    with pytest.raises(ValueError, match=rf"{SHARD} at byte 6,000: given up after attempt 4 and .*Timeout.*--resume"):
        remote.shard_path(1)
    assert 4 * SHORT.timeout_s < time.monotonic() - started < 3


def test_a_server_that_drips_is_given_up(server: FaultyServer, tmp_path: Path) -> None:
    """Each read succeeds in time, and no piece ever ends."""
    remote = Index.open(server.url, CacheOptions(tmp_path))
    remote.remote.server.patience = SHORT._replace(deadline_s=0.5)
    server.faults, server.pause_s = {SHARD: ["slow*"]}, 0.25
    with pytest.raises(ValueError, match=r"no whole piece within 0\.5 s"):
        remote.shard_path(1)


def test_a_server_that_dies_and_returns(local: Index, tmp_path: Path) -> None:
    with FaultyServer(local.path) as server:
        remote = Index.open(server.url, CacheOptions(tmp_path))
        remote.shard_path(0)
    with pytest.raises(ValueError, match=rf"{SHARD} at byte 0: given up after attempt 4.*Cannot connect"):
        remote.shard_path(1)
    with pytest.raises(ValueError, match=r"meta.json at byte 0: given up"):
        Index.open(server.url, CacheOptions(tmp_path))
    with FaultyServer(local.path, port=server.port) as again:
        same(remote, local)
        assert again.starts("shard-000000.tar") == []


def test_a_file_that_was_cut_on_the_server(local: Index, tmp_path: Path) -> None:
    shutil.copytree(local.path, tmp_path / "set")
    data = (local.path / SHARD).read_bytes()
    (tmp_path / "set" / SHARD).write_bytes(data[:7000])
    with FaultyServer(tmp_path / "set") as server:
        remote = Index.open(server.url, CacheOptions(tmp_path / "cache"))
        with pytest.raises(ValueError, match=rf"{SHARD} at byte 7,000: HTTP 416.*was cut or replaced"):
            remote.shard_path(1)
        remote.remote.pause()


def test_meta_and_index_are_verified(local: Index, tmp_path: Path) -> None:
    place = tmp_path / "set"
    shutil.copytree(local.path, place)
    meta = (place / "meta.json").read_text()
    with FaultyServer(place) as server:
        for old, new, message in [
            ('"person 3"', '"person 33"', "was changed: its dataset_id is that of something else"),
            (SHARD, "../" + SHARD, "names files as make_shards never does"),
            ('"format": 1', '"format": 2', "has format 2"),
            (meta[-400:], "", "meta.json cannot be read"),
        ]:
            assert old in meta
            (place / "meta.json").write_text(meta.replace(old, new))
            with pytest.raises(ValueError, match=message):
                Index.open(server.url, CacheOptions(tmp_path / "cache"))
        (place / "meta.json").write_text(meta)
        server.faults = {"label.npy": ["wrong*"]}
        with pytest.raises(ValueError, match=r"index/label.npy is damaged: all [\d,]+ bytes came twice"):
            Index.open(server.url, CacheOptions(tmp_path / "cache"))
        server.faults.clear()
        same(Index.open(server.url, CacheOptions(tmp_path / "cache")), local)


def test_urls_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ["https://me:secret@host/set", "https://host/set?sig=secret"]:
        with pytest.raises(ValueError, match=r"https://host/set must be given without user") as caught:
            Index.open(url, CacheOptions(tmp_path))
        assert "secret" not in str(caught.value)
    with pytest.raises(ValueError, match=r"fsspec cannot read from htp://"):
        Index.open("htp://host/set", CacheOptions(tmp_path))
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(ValueError, match=r'need more packages.*pip install "fastface\[remote\]"'):
        Index.open("https://host/set", CacheOptions(tmp_path))
