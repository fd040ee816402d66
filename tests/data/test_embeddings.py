"""A folder of embeddings comes back as it was written, and says what is wrong with a damaged one."""

import json
from pathlib import Path

import numpy as np
import pytest

from fastface.data.embeddings import open_embeddings, usable, write_embeddings


def written(folder: Path) -> Path:
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    rows[2] = np.nan
    write_embeddings(
        folder, rows, np.array([0, 1, 1, 0]), ["a/1", "b/\u00e9", "b/2", "a/\udcff"], ["a", "b"], {"dataset_id": "d"}
    )
    return folder


def test_written_and_read(tmp_path: Path) -> None:
    found = open_embeddings(written(tmp_path))
    np.testing.assert_array_equal(found.rows, [[0, 1, 2], [3, 4, 5], [np.nan] * 3, [9, 10, 11]])
    assert found.labels.tolist() == [0, 1, 1, 0]
    assert list(found.names) == ["a/1", "b/\u00e9", "b/2", "a/\udcff"]
    assert list(found.classes) == ["a", "b"]
    assert (len(found), found.dataset_id) == (4, "d")
    assert isinstance(found.rows, np.memmap)
    assert not found.rows.flags.writeable


def test_rows_that_are_there_already(tmp_path: Path) -> None:
    rows = np.lib.format.open_memmap(tmp_path / "embeddings.npy", "w+", np.dtype("<f4"), (2, 5))
    rows[:] = 7
    rows.flush()
    write_embeddings(tmp_path, None, np.array([0, 0]), ["x", "y"], ["only"], {"dataset_id": "d"})
    assert open_embeddings(tmp_path).rows.sum() == 70


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_rows_without_a_direction(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr("fastface.data.embeddings.CHUNK", chunk)
    rows = np.array([[1, 0], [0, 0], [np.nan, 1], [np.inf, 1], [0, -2]], np.float32)
    assert usable(rows).tolist() == [True, False, False, False, True]
    assert usable(rows[:0]).tolist() == []


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no embeddings; python tools/embed\.py"):
        open_embeddings(tmp_path)


def test_not_complete(tmp_path: Path) -> None:
    (written(tmp_path) / "meta.json").unlink()
    with pytest.raises(ValueError, match=r"is not complete: run embed\.py again"):
        open_embeddings(tmp_path)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("labels", np.array([0, 1, 2, 0], "<i4"), "labels run from 0 to 2, there are 2 classes"),
        ("labels", np.array([0, 1], "<i4"), r"labels.npy is <i4 \[2\], meta.json says <i4 \[4\]"),
        ("embeddings", np.zeros((4, 3)), r"embeddings.npy is <f8 \[4, 3\], meta.json says <f4"),
        ("labels", np.array([None] * 4), "labels.npy cannot be opened .*Python objects"),
    ],
)
def test_what_does_not_fit(tmp_path: Path, name: str, array: np.ndarray, message: str) -> None:
    np.save(written(tmp_path) / f"{name}.npy", array, allow_pickle=True)
    with pytest.raises(ValueError, match=message):
        open_embeddings(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", json.dumps({"format": 2, "arrays": {"embeddings": [1, 1]}})])
def test_meta_of_another_kind(tmp_path: Path, text: str) -> None:
    (written(tmp_path) / "meta.json").write_text(text)
    with pytest.raises(ValueError, match=r"meta\.json .*mbeddings"):
        open_embeddings(tmp_path)
