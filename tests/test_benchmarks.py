"""The loaders' benchmark must refuse batches that are not the work agreed, and keep what it laid out."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import torch

from benchmarks import inputs, loader
from benchmarks.case import Case
from benchmarks.check import Checker
from fastface.data.index import Index
from fastface.data.shards import ShardReader

BATCH = 128
ROOT = Path(__file__).resolve().parents[1]


def build(*_: Any) -> Any:
    raise AssertionError("not to be called")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    inputs.prepare(folder, None, 300, None, {"images", "idx", "record-io"})
    return folder


@pytest.fixture
def batch(work: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """128 records at random, every second one mirrored, as uint8 [B, 3, H, W]; and their labels."""
    index = Index.open(work / "shards")
    reader, records = ShardReader(index), np.random.default_rng(0).permutation(len(index))[:BATCH]
    images = np.stack([simplejpeg.decode_jpeg(data).transpose(2, 0, 1) for data in reader.views(records)])
    images[::2] = images[::2, ..., ::-1].copy()
    return torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(index.labels_of(records))


def floats(images: torch.Tensor) -> torch.Tensor:
    return images.float() / 127.5 - 1


def test_right_batches_pass(work: Path, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    images, labels = batch
    Checker(work, Case(build), BATCH)((floats(images), labels))
    Checker(work, Case(build, delivers="uint8"), BATCH)((images, labels))
    channels_last = images.contiguous(memory_format=torch.channels_last)
    Checker(work, Case(build, delivers="uint8"), BATCH)((channels_last, labels))
    Checker(work, Case(build, delivers="nothing"), BATCH)((None, labels))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda x, y: (floats(x), y.roll(1)), "levels from all of that label"),
        (lambda x, y: (floats(torch.cat([x[1:2], x[1:]])), y), "levels from all of that label"),  # one image is wrong
        (lambda x, y: (floats(x.flip(1)), y), "levels from all of that label"),  # blue for red
        (lambda x, y: (floats(x.flip(2)), y), "levels from all of that label"),  # upside down
        (lambda x, y: (floats(x) * 0.95, y), "levels from all of that label"),
        (lambda x, y: (x.float() / 255, y), "values run from"),
        (lambda x, y: (floats(x.contiguous(memory_format=torch.channels_last)), y), "strides"),
        (lambda x, y: (floats(x).permute(0, 2, 3, 1).contiguous(), y), "shape"),
        (lambda x, y: (floats(x).double(), y), "float64"),
        (lambda x, y: (floats(x), y.int()), "int32"),
        (lambda x, y: (floats(x)[:-1], y[:-1]), "shape"),
    ],
)
def test_wrong_batches_do_not(work: Path, batch: tuple[torch.Tensor, torch.Tensor], spoil: Any, says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        Checker(work, Case(build), BATCH)(spoil(*batch))


def test_no_mirroring_no_shuffling_and_repeating_are_seen(work: Path, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    images, labels = batch
    upright = images.clone()
    upright[::2] = upright[::2].flip(-1)
    with pytest.raises(AssertionError, match="0% of the images are mirrored"):
        Checker(work, Case(build), BATCH)((floats(upright), labels))
    in_order = torch.from_numpy(Index.open(work / "shards").labels_of(np.arange(BATCH)))
    with pytest.raises(AssertionError, match="order is that of the files"):
        Checker(work, Case(build, delivers="nothing"), BATCH)((None, in_order))
    check = Checker(work, Case(build), BATCH)
    check((floats(images), labels))
    with pytest.raises(AssertionError, match="came again"):
        check((floats(images), labels))


def test_layouts_hold_the_same_images(work: Path) -> None:
    from benchmarks.peer_formats import RecordIO
    from fastface.data.sources.kinds import open_source

    index = Index.open(work / "shards")
    reader = ShardReader(index)
    files = sorted((work / "images").rglob("*.jpg"), key=lambda path: path.name)
    assert [int(path.parent.name) for path in files] == index.label.tolist()
    assert all(path.read_bytes() == reader.view(record).tobytes() for record, path in enumerate(files))
    dataset = RecordIO(work / "record-io", "pil")
    assert [dataset[record][1] for record in range(len(dataset))] == index.label.tolist()
    (source,) = open_source("rec", work / "record-io/set.rec").values()  # our own reader of the format
    assert len(source) == len(index)


def test_repeats_a_set_and_keeps_it(work: Path, tmp_path: Path) -> None:
    original = Index.open(work / "shards")
    inputs.prepare(tmp_path / "kept", work / "shards", 0, 700, set())
    index = Index.open(tmp_path / "kept/shards")
    assert len(index) == 700
    times = np.bincount(np.unique(index.crc32, return_inverse=True)[1])
    assert sorted(set(times.tolist())) == [2, 3]  # 300 pictures: all twice, 100 of them once more
    of = dict(zip(original.crc32.tolist(), original.label.tolist(), strict=True))
    assert [of[crc] for crc in index.crc32.tolist()] == index.label.tolist()
    before = (tmp_path / "kept/shards/meta.json").stat().st_mtime_ns
    inputs.prepare(tmp_path / "kept", work / "shards", 0, 700, set())
    assert (tmp_path / "kept/shards/meta.json").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="another --work folder"):
        inputs.prepare(tmp_path / "kept", work / "shards", 0, 800, set())
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").touch()
    with pytest.raises(ValueError, match="none of an earlier run"):
        inputs.prepare(tmp_path / "other", None, 300, None, set())
    assert json.loads((tmp_path / "kept/source.json").read_text())["repeat_to"] == 700


def test_cases_are_chosen_by_how_they_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    assert loader.choose(["DALI web", "FFCV JPEG"], []) == ["DALI webdataset reader", "FFCV JPEG", "FFCV JPEG, tuned"]
    assert not {"FFCV raw", "grain"} & set(loader.choose(None, ["FFCV", "grain"]))
    with pytest.raises(ValueError, match="perhaps you meant 'fastface torch'"):
        loader.choose(["fastface torhc"], [])
    with_missing = Case(build, needs=("simplejpeg", "no_such_package.inside"))
    monkeypatch.setattr(loader, "CASES", {"here": Case(build), "missing": with_missing})
    assert loader.installed(["here", "missing"]) == (["here"], {"missing": "no_such_package.inside"})


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_every_script_imports(path: Path) -> None:
    importlib.import_module(f"benchmarks.{path.stem}")
