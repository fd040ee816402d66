"""Shards in an S3 bucket (moto's server in a process of its own, faults injected on the way to it)."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastface.data.index import Index
from fastface.data.shard_cache import CacheOptions
from tests.data.remote_sets import SHARD, SHORT, make_set, same, short_waits
from tests.data.servers import FaultyServer, s3_server

for package in ("fsspec", "s3fs", "moto", "flask", "flask_cors"):
    pytest.importorskip(package, reason=f'needs {package}: pip install "fastface[remote,dev]"')


@pytest.fixture(scope="module")
def moto() -> Iterator[int]:
    with s3_server() as port:
        yield port


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, moto: int) -> Index:
    """A set, uploaded to s3://faces/sets/tiny."""
    index = make_set(tmp_path_factory.mktemp("tiny"))
    connection = http.client.HTTPConnection("127.0.0.1", moto, timeout=10)
    files = {f"/faces/sets/tiny/{p.relative_to(index.path)}": p for p in index.path.rglob("*") if p.is_file()}
    for place, body in [("/faces", b""), *((place, path.read_bytes()) for place, path in files.items())]:
        connection.request(
            "PUT", place, body, {"Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request"}
        )
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200, (place, answer.status)
    return index


@pytest.fixture
def server(moto: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FaultyServer]:
    """Pass everything on to moto, and have everyone who asks for S3 come here."""
    with FaultyServer(upstream=moto) as server, short_waits(monkeypatch):
        for name, value in {
            "AWS_ENDPOINT_URL": server.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "a-secret",
            "AWS_EC2_METADATA_DISABLED": "true",
            "HOME": str(tmp_path),
        }.items():
            monkeypatch.setenv(name, value)
        yield server


URL = "s3://faces/sets/tiny"


def test_the_same_bytes(local: Index, server: FaultyServer, tmp_path: Path) -> None:
    same(Index.open(URL, CacheOptions(tmp_path)), local)
    assert server.starts(SHARD)[:2] == [0, 6000]


@pytest.mark.parametrize("fault", ["stall", "truncate", "reset", "500", "503", "wrong"])
def test_faults_that_pass(local: Index, server: FaultyServer, tmp_path: Path, fault: str) -> None:
    remote = Index.open(URL, CacheOptions(tmp_path))
    server.faults = {SHARD: ["", fault]}
    if fault == "wrong":
        remote.shard_path(1)
    else:
        with pytest.warns(UserWarning, match=rf"{URL}/{SHARD} at byte 6,000: attempt 1 of 4 failed with"):
            remote.shard_path(1)
        assert server.starts(SHARD)[:4] == [0, 6000, 6000, 9000]  # one attempt of ours is one request
    same(remote, local)


def test_a_bucket_that_stalls_for_good_is_given_up(local: Index, server: FaultyServer, tmp_path: Path) -> None:
    remote = Index.open(URL, CacheOptions(tmp_path))
    server.faults = {SHARD: ["stall*"]}
    started = time.monotonic()
    with pytest.raises(ValueError, match=rf"{URL}/{SHARD} at byte 0: given up after attempt 4 .*imeout"):
        remote.shard_path(1)
    assert 4 * SHORT.timeout_s < time.monotonic() - started < 3.5
    assert len(server.starts(SHARD)) == 4


def test_refusals_are_not_repeated(
    local: Index, server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"s3://faces/nothing/meta.json at byte 0: there is no such file .*1, not rep"):
        Index.open("s3://faces/nothing", CacheOptions(tmp_path))
    with pytest.raises(ValueError, match=r"s3://nobody/meta.json at byte 0: .*attempt 1, not repeated"):
        Index.open("s3://nobody", CacheOptions(tmp_path))
    server.faults = {"meta.json": ["403*"]}
    with pytest.raises(ValueError, match=r"meta.json at byte 0: PermissionError.*AWS_ACCESS_KEY_ID") as caught:
        Index.open(URL, CacheOptions(tmp_path))
    assert "a-secret" not in str(caught.value)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(ValueError, match=r"meta.json at byte 0: NoCredentialsError.*AWS_ACCESS_KEY_ID"):
        Index.open(URL, CacheOptions(tmp_path))


def test_no_thread_of_ours_is_left(local: Index, server: FaultyServer, tmp_path: Path) -> None:
    same(Index.open(URL, CacheOptions(tmp_path)), local)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fastface")]
