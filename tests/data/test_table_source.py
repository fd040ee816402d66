"""Parquet tables in Hugging Face's layout give the same records as their rows, read one by one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from fastface.conversion.check import check
from fastface.conversion.convert import convert
from fastface.conversion.options import Options
from fastface.data.index import Index
from fastface.data.shards import ShardReader
from fastface.data.sources.kinds import open_source
from tests.data.shard_sets import face

pa = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install pyarrow")
pq = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow: pip install pyarrow")


def write(path: Path, labels: list, start: int = 0, names: list[str] | None = None, struct: bool = True) -> list[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [face(7, start + k) for k in range(len(labels))]
    column = [{"bytes": image, "path": f"{k}.jpg"} for k, image in enumerate(images)] if struct else images
    table = pa.table({"image": column, "label": labels})
    if names is not None:
        info = {"info": {"features": {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    pq.write_table(table, path, row_group_size=3)
    return images


def test_splits_class_names_and_bytes(tmp_path: Path) -> None:
    names = ["zoe", "anna", "bob"]
    a = write(tmp_path / "in/data/train-00000-of-00002.parquet", [0, 1, 2, 0, 1, 1, 2], 0, names)
    b = write(tmp_path / "in/data/train-00001-of-00002.parquet", [2, 2], 50, names)
    write(tmp_path / "in/data/test-00000-of-00001.parquet", [0, 0], 80, names)
    convert(Options("table", tmp_path / "in", tmp_path / "set", workers=2, shard_size=4))
    index = Index.open(tmp_path / "set" / "train")
    assert index.classes == ["anna", "bob", "zoe"]
    assert [index.classes[k] for k in index.label] == [names[k] for k in [0, 1, 2, 0, 1, 1, 2, 2, 2]]
    assert [bytes(view) for view in ShardReader(index).views(np.arange(9))] == a + b
    assert index.name(8) == "train-00001-of-00002.parquet:1"
    assert Index.open(tmp_path / "set" / "test").classes == ["zoe"]
    assert check(tmp_path / "set", decode=True, workers=1, show=str) == []


@pytest.mark.parametrize(("labels", "classes"), [(["x", "y", "x"], ["x", "y"]), ([5, 10, 5], ["05", "10"])])
def test_plain_columns_of_one_file(tmp_path: Path, labels: list, classes: list[str]) -> None:
    images = write(tmp_path / "a.parquet", labels, struct=False)
    source = open_source("table", tmp_path / "a.parquet")[""]
    assert source.classes == classes
    assert [source.read(i) for i in (2, 0, 1)] == [images[i] for i in (2, 0, 1)]


def test_numbers_of_several_files_have_one_width(tmp_path: Path) -> None:
    write(tmp_path / "in/a.parquet", [5, 7])
    write(tmp_path / "in/b.parquet", [1000, 5])
    assert open_source("table", tmp_path / "in")[""].classes == ["0005", "0007", "1000"]


def test_what_cannot_be_used_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"holds no \.parquet file"):
        open_source("table", tmp_path)
    pq.write_table(pa.table({"pixels": [1.0], "who": ["x"]}), tmp_path / "odd.parquet")
    with pytest.raises(
        ValueError, match=r"needs one column of image bytes .* it has pixels \(double\), who \(string\)"
    ):
        open_source("table", tmp_path / "odd.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ValueError, match=r"bad\.parquet is no Parquet file"):
        open_source("table", tmp_path / "bad.parquet")
    write(tmp_path / "none.parquet", ["a", None])
    with pytest.raises(ValueError, match="row 1: label None"):
        open_source("table", tmp_path / "none.parquet")
    write(tmp_path / "s/train-0.parquet", ["a"])
    write(tmp_path / "s/more.parquet", ["a"])
    with pytest.raises(ValueError, match="does not tell its split"):
        open_source("table", tmp_path / "s")
    pq.write_table(pa.table({"image": [{"bytes": None, "path": "x"}], "label": ["a"]}), tmp_path / "path.parquet")
    with pytest.raises(ValueError, match=r"needs one column|no image bytes"):
        open_source("table", tmp_path / "path.parquet")[""].read(0)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ValueError, match="pip install pyarrow"):
        open_source("table", tmp_path / "none.parquet")
