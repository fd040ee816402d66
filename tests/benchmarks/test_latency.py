"""benchmarks/latency.py on a network of milliseconds: every row is checked against torch, and kept."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import latency


def run(tmp_path: Path) -> tuple[int, dict]:
    words = [
        "--networks",
        "mobilenetv3_small_050",
        "--size",
        "32",
        "--rounds",
        "2",
        "--seconds",
        "0",
        "--batches",
        "1",
        "3",
    ]
    code = latency.main([*words, "--threads", "1", "--out", str(tmp_path / "out.jsonl")])
    return code, json.loads((tmp_path / "out.jsonl").read_text())


def test_every_row_is_measured_and_agrees(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, record = run(tmp_path)
    assert code == 0, capsys.readouterr().err
    (table,) = record["tables"]
    assert list(table["rows"]) == ["torch", "onnxruntime fp32", "onnxruntime fp16", "onnxruntime int8"]
    for row in table["rows"].values():
        assert 0 < row["batch_1"]["lowest"] <= row["batch_1"]["ms"] <= row["batch_1"]["highest"]
        assert row["batch_3"]["ratio"] > 0
    sizes = [row["mb"] for row in table["rows"].values()][1:]
    assert sizes[0] > sizes[1] > 0
    assert "| onnxruntime int8 |" in capsys.readouterr().out


def test_a_row_that_computes_something_else_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = latency.open_onnx

    def spoiled(path, card, **options):
        embedder = opened(path, card, **options)
        if card.precision == "fp16":
            network = embedder.network
            embedder.network = lambda images: np.roll(network(images), 1, axis=1)
        return embedder

    monkeypatch.setattr(latency, "open_onnx", spoiled)
    code, record = run(tmp_path)
    assert code == 1
    assert record["tables"][0]["wrong"] == ["onnxruntime fp16"]
