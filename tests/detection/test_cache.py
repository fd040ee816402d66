"""The cache of detections: found again, told apart, and mended where it is damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastface.detection import DetectorSpec
from fastface.detection.cache import MERGE, Known, key_of
from fastface.detection.found import Found

NO_FACES = Found.of(np.zeros((0, 4)), np.zeros(0))


def some(seed: int, count: int = 3) -> Found:
    rng = np.random.default_rng(seed)
    landmarks = rng.uniform(0, 100, (count, 5, 2))
    landmarks[-1] = np.nan
    return Found.of(rng.uniform(0, 100, (count, 4)), rng.uniform(0, 1, count), landmarks)


def same(one: Found | None, other: Found) -> bool:
    return one is not None and all(np.array_equal(a, b, equal_nan=True) for a, b in zip(one, other, strict=True))


@pytest.fixture
def spec(tmp_path: Path) -> DetectorSpec:
    (tmp_path / "a.onnx").write_bytes(b"a")
    return DetectorSpec.parse(f"yunet:{tmp_path}/a.onnx")


def test_what_was_added_is_found_by_the_next(tmp_path: Path, spec: DetectorSpec) -> None:
    found = {key_of(b"%d" % i): some(i, 1 + i % 4) for i in range(50)} | {key_of(b"none"): NO_FACES}
    known = Known(tmp_path / "cache", spec)
    assert not (tmp_path / "cache").exists()
    assert (len(known), known.find(key_of(b"0"))) == (0, None)
    known.add(found)
    again = Known(tmp_path / "cache", spec)
    assert len(again) == 51
    assert all(same(again.find(key), faces) for key, faces in found.items())
    assert again.find(key_of(b"other")) is None
    again.add({})
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 1


def test_keys_that_end_in_zeros_are_found(tmp_path: Path, spec: DetectorSpec) -> None:
    ends = next(data for data in (b"%d" % i for i in range(10_000)) if len(key_of(data)) < 16)
    Known(tmp_path, spec).add({key_of(ends): some(1), key_of(b"x"): some(2)})
    assert same(Known(tmp_path, spec).find(key_of(ends)), some(1))


def test_detectors_do_not_share(tmp_path: Path, spec: DetectorSpec) -> None:
    Known(tmp_path / "cache", spec).add({key_of(b"x"): some(1)})
    (tmp_path / "b.onnx").write_bytes(b"b")
    assert Known(tmp_path / "cache", DetectorSpec.parse(f"yunet:{tmp_path}/b.onnx")).find(key_of(b"x")) is None


def test_many_files_become_one_and_the_first_of_two_answers_counts(tmp_path: Path, spec: DetectorSpec) -> None:
    known = Known(tmp_path, spec)
    for i in range(MERGE):
        known.add({key_of(b"%d" % i): some(i), key_of(b"shared"): some(100, 1 + i % 3)})
    merged = Known(tmp_path, spec)
    files = list(merged.folder.glob("*.npy"))
    assert len(files) == 1
    for one in (merged, Known(tmp_path, spec)):
        assert len(one) == MERGE + 1
        assert all(same(one.find(key_of(b"%d" % i)), some(i)) for i in range(MERGE))
        shared = one.find(key_of(b"shared"))
        assert any(same(shared, some(100, count)) for count in (1, 2, 3))


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "pickle"])
def test_a_damaged_file_is_named_deleted_and_looked_at_again(
    tmp_path: Path, spec: DetectorSpec, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    known = Known(tmp_path, spec)
    known.add({key_of(b"lost"): some(1)})
    (file,) = known.folder.glob("*.npy")
    data = file.read_bytes()
    known.add({key_of(b"kept"): some(2)})
    flipped = bytes([*data[:-1], data[-1] ^ 1])
    file.write_bytes({"cut": data[:-9], "flip": flipped, "empty": b"", "pickle": b"\x80\x04N."}[damage])
    again = Known(tmp_path, spec)
    assert f"{file} is damaged" in capsys.readouterr().err
    assert not file.exists()
    assert again.find(key_of(b"lost")) is None
    assert same(again.find(key_of(b"kept")), some(2))
