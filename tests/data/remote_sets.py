"""What the tests of shards on a server share: a set, short waits, and comparisons."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fastface.data import download
from fastface.data.download import Patience
from fastface.data.index import Index
from fastface.data.shards import ShardReader
from tests.data import tiny

SHORT = Patience(timeout_s=0.3, deadline_s=3, attempts=4, pause_s=0.01)
SHARD = "shard-000001.tar"


def make_set(folder: Path) -> Index:
    """Make ten shards of 13 images."""
    return tiny.make_shards(folder, people=13, images=10)


@contextmanager
def short_waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Wait briefly, ask for small pieces, and see that no thread is left behind."""
    monkeypatch.setattr(download, "PATIENCE", SHORT)
    monkeypatch.setattr(download, "PIECE", 6000)
    monkeypatch.setattr(download, "SMALLEST_PIECE", 1500)
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("fastface")] == []


def same(remote: Index, local: Index) -> None:
    """Every record has the same bytes in both."""
    with ShardReader(remote, check_crc=True) as reader, ShardReader(local) as expected:
        for i in range(len(local)):
            assert reader.view(i).tobytes() == expected.view(i).tobytes()
