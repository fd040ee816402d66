"""A lookup brings in little of a column, however the page cache holds it, and areas are left to others."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from fastface.data import mapping
from fastface.data.index import Index
from fastface.data.mapping import AREA, LARGEST_AREA, count_areas, map_little, open_for_lookups
from tests.data.shard_sets import make_set

linux = pytest.mark.skipif(not mapping.LIMIT.exists(), reason="memory areas are Linux's")
FOLIO = 1 << 21
FOLIOS = 32


def column(folder: Path, size: int) -> Path:
    """Write a column of int32, and have it read as a whole, with large folios where the kernel makes them."""
    file = folder / "column.npy"
    np.save(file, np.arange(size // 4, dtype=np.int32))
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        while os.read(descriptor, 1 << 24):
            pass
    finally:
        os.close(descriptor)
    return file


def resident(file: Path) -> int:
    """Return the bytes of a file that are mapped in this process and in memory."""
    total, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ")[0]:
            ours = line.endswith(str(file))
        elif ours and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


@linux
def test_a_lookup_does_not_map_the_folio_around_it(tmp_path: Path) -> None:
    file = column(tmp_path, FOLIOS * FOLIO)
    opened = open_for_lookups(file)
    map_little([opened])
    values = np.asarray(opened)
    places = np.arange(FOLIOS) * FOLIO // 4 + np.random.default_rng(0).integers(0, FOLIO // 4, FOLIOS)
    places = places.clip(0, len(values) - 1)
    before = resident(file)
    assert np.array_equal(values[places], places)
    grown = resident(file) - before
    assert FOLIOS * 4096 <= grown <= FOLIOS * AREA, f"{FOLIOS} lookups brought in {grown:,} bytes"


@linux
@pytest.mark.parametrize(
    ("room", "size"),
    [(10_000, AREA), (20, 4 * AREA), (4, LARGEST_AREA), (1, None), (0, None), (-5, None)],
    ids=["plenty", "less", "one MB each", "not even that", "none", "over the half already"],
)
def test_half_of_the_areas_are_left_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, size: int | None
) -> None:
    file = column(tmp_path, FOLIO)
    opened = open_for_lookups(file)
    limit = tmp_path / "max_map_count"
    limit.write_text(f"{2 * (count_areas() + room)}\n")
    monkeypatch.setattr(mapping, "LIMIT", limit)
    map_little([opened])
    areas = sum(line.endswith(str(file)) for line in Path("/proc/self/maps").read_text().splitlines())
    assert areas == (-(-file.stat().st_size // size) if size else 1)
    assert np.array_equal(opened, np.arange(len(opened)))


def test_columns_smaller_than_an_area_and_more_than_one(tmp_path: Path) -> None:
    files = [tmp_path / f"{n}.npy" for n in range(3)]
    for n, file in enumerate(files):
        np.save(file, np.arange(10**n + 1) * n)
    columns = [open_for_lookups(file) for file in files]
    map_little(columns)
    map_little([])
    for n, opened in enumerate(columns):
        assert opened.tolist() == [n * k for k in range(10**n + 1)]


RECORDS: dict[str, Callable[[int], np.ndarray]] = {
    "none": lambda n: np.empty(0, np.int64),
    "all": lambda n: np.arange(n),
    "random": lambda n: np.random.default_rng(0).permutation(n),
    "repeated": lambda n: np.array([n - 1, 0, 0, n - 1, 0]),
}


@pytest.mark.parametrize("records", RECORDS)
def test_records_are_located_as_the_columns_have_them(tmp_path: Path, records: str) -> None:
    index = Index.open(make_set(tmp_path))
    assert index.num_shards > 1
    asked = RECORDS[records](len(index))
    with ThreadPoolExecutor(4) as threads:
        for located in threads.map(index.locate, [asked] * 8):
            for name, values in located._asdict().items():
                assert values.tolist() == [int(index.columns[name][i]) for i in asked.tolist()], name
    assert index.labels_of(asked).tolist() == [int(index.label[i]) for i in asked.tolist()]


@pytest.mark.parametrize("record", [30, 10**12])
def test_records_beyond_the_last_are_refused(tmp_path: Path, record: int) -> None:
    index = Index.open(make_set(tmp_path))
    assert len(index) == 30
    with pytest.raises(IndexError):
        index.locate(np.array([0, record]))
