"""The doctor: which sentence belongs to which figures, peaks by name, and a real run examined in seconds."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
import torch

from benchmarks.diagnosis import Figures, diagnose
from benchmarks.doctor import main
from benchmarks.peaks import PEAKS, TYPES, measured_peak, peak, stated_peak
from tests.data import tiny

CPU = Figures(
    decode_only=12_000,
    loader_only=9_000,
    model_only=500,
    end_to_end=490,
    wait_share=0.01,
    utilisation=0.4,
    threads=2,
    cores=2,
    on_gpu=False,
    decoder="torch",
    compiled=True,
    others=0.0,
)
GPU = CPU._replace(model_only=8_000, cores=16, on_gpu=True, end_to_end=6_000, wait_share=0.25)

CASES: dict[str, tuple[Figures, list[str]]] = {
    "network is the limit": (CPU, ["The network is the limit: loading costs nothing (98% of the network alone)."]),
    "network is the limit, badly used": (
        GPU._replace(end_to_end=7_900, utilisation=0.1),
        ["loading costs nothing (99%", "uses 10% of the GPU's arithmetic", "train.micro_batch"],
    ),
    "network is the limit, well used": (
        GPU._replace(end_to_end=7_900),
        ["loading costs nothing (99% of the network alone)."],
    ),
    "the peak is not known": (GPU._replace(end_to_end=7_900, utilisation=None), ["loading costs nothing"]),
    "cores are shared": (
        CPU._replace(model_only=9_000, end_to_end=4_400),
        ["share 2 cores: loading takes 111 us an image and the network 111 us, and they add up"],
    ),
    "shared cores do not explain it": (
        CPU._replace(end_to_end=300),
        ["60% of the network alone, and loading does not explain it", "lower runtime.decode_threads"],
    ),
    "others were there": (
        CPU._replace(end_to_end=300, others=1.26),
        ["Other processes used 1.3 of 2 cores, so measure again without them; as it was: end to end is 60%", "may."],
    ),
    "others were there, and nothing is odd": (
        CPU._replace(end_to_end=800, others=1.26),
        ["without them; as it was: the network is the limit: loading costs nothing (100% of the network alone)."],
    ),
    "others hardly were": (CPU._replace(others=0.15), ["The network is the limit"]),
    "one more core of decoding": (
        GPU._replace(loader_only=8_000, decode_only=9_000, threads=4),
        ["The loader gives 8,000 images/s and the network takes 8,000", "1 more thread would", "decode_threads to 5."],
    ),
    "many more threads": (
        GPU._replace(loader_only=2_000, decode_only=2_500),
        ["waits on decoding; 8 more threads would keep up: set runtime.decode_threads to 10."],
    ),
    "not enough cores": (
        GPU._replace(loader_only=2_000, decode_only=2_500, cores=6),
        ["decode_threads to all 6 cores, though 10 would be needed"],
    ),
    "all cores decode, beside a GPU": (
        GPU._replace(loader_only=2_000, decode_only=2_500, cores=2),
        ["thread on each of the 2 cores already; data.decoder dali-gpu, more cores (10 would do)"],
    ),
    "all cores decode, no GPU": (
        CPU._replace(loader_only=2_000, decode_only=2_500, model_only=4_000, end_to_end=1_300),
        ["thread on each of the 2 cores already; more cores (5 would do) or smaller JPEGs"],
    ),
    "no numba": (
        GPU._replace(loader_only=2_000, decode_only=8_000, compiled=False),
        ["75% of loading is not decoding", 'pip install "numba'],
    ),
    "slow disk": (
        GPU._replace(loader_only=2_000, decode_only=8_000),
        ["75% of loading is not decoding", "faster disk or in memory"],
    ),
    "the GPU decodes": (
        GPU._replace(loader_only=5_000, decoder="dali-gpu"),
        ["the GPU decodes beside training; try data.decoder torch with 16 threads."],
    ),
    "uneven batches": (
        GPU._replace(loader_only=12_000),
        ["1.5 times the network", "25% of the time", "raise data.ahead"],
    ),
    "threads in the way": (
        GPU._replace(loader_only=12_000, wait_share=0.02),
        ["2 threads keep ahead (2% waiting)", "to 75% of the network alone: lower runtime.decode_threads"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_sentence_says_what_the_figures_say(name: str) -> None:
    figures, parts = CASES[name]
    sentence = diagnose(figures)
    for part in parts:
        assert part in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence


def test_every_sentence_is_another() -> None:
    distinct = {diagnose(figures).split(":")[-1] for figures, _ in CASES.values()}
    assert len(distinct) >= len(CASES) - 6  # some end alike: what differs stands before


def test_threads_that_are_asked_for_would_do() -> None:
    """Whatever is asked for lies above what there is, and gives the network its images by the figures' own rates."""
    for loader in (500, 1_000, 2_000, 4_000, 7_000, 9_500):
        for threads in (1, 2, 4, 15):
            figures = GPU._replace(loader_only=loader, decode_only=loader, threads=threads)
            sentence = diagnose(figures)
            if "would keep up: set" in sentence:
                asked = int(sentence.split("decode_threads to ")[1].rstrip("."))
                assert threads < asked <= figures.cores
                assert asked * loader / threads >= figures.model_only
            else:
                assert "though" in sentence


@pytest.mark.parametrize(
    ("name", "precision", "teraflops"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16", 989),
        ("NVIDIA H100 PCIe", "bf16", 756),
        ("NVIDIA H200", "tf32", 494),
        ("NVIDIA A100-SXM4-80GB", "tf32", 156),
        ("NVIDIA A100-PCIE-40GB", "bf16", 312),
        ("NVIDIA A10", "bf16", 125),
        ("NVIDIA A10G", "bf16", None),
        ("NVIDIA L4", "fp16", 121),
        ("NVIDIA L40S", "bf16", 362),
        ("NVIDIA GeForce RTX 4090", "bf16", 165),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bf16", None),
        ("Tesla V100-SXM2-16GB", "fp16", 125),
        ("Tesla V100-SXM2-16GB", "bf16", None),
        ("Tesla T4", "fp16", 65),
        ("NVIDIA H100 NVL", "bf16", None),
        ("Some GPU", "bf16", None),
    ],
)
def test_peaks_are_those_of_the_device_named(name: str, precision: str, teraflops: float | None) -> None:
    found = stated_peak(name, precision)
    assert found == (None if teraflops is None else teraflops * 1e12)


def test_the_table_of_peaks_orders_its_precisions() -> None:
    for name, figures in PEAKS.items():
        assert figures.keys() <= TYPES.keys(), name
        assert sorted(figures.values(), reverse=True) == list(figures.values()), name


def test_a_measured_peak_is_that_of_a_timed_product() -> None:
    torch.set_num_threads(1)
    found = measured_peak(torch.device("cpu"), torch.float32, seconds=0.05)
    assert 1e8 < found < 1e13, "one core does between 0.1 GFLOP/s and 10 TFLOP/s"
    value, source = peak(torch.device("cpu"), "fp64")
    assert value > 1e8
    assert "fp64 matrix product measured here, 1 threads" in source


def test_a_run_is_examined_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    index = tiny.make_shards(tmp_path)
    (tmp_path / "small.yaml").write_text(
        "model: {backbone: test_resnet, stem: keep, embedding_size: 16}\n"
        f"data: {{shards: {index.path}, size: [{tiny.WIDTH}, {tiny.HEIGHT}]}}\n"
        "train: {batch_size: 8, micro_batch: 4, epochs: 1}\noptim: {lr: 0.001}\n"
        "runtime: {device: cpu, threads: 1}\n"
    )
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path)
    before = {path.name for path in tmp_path.iterdir()}
    arguments = ["--config", "small.yaml", "--seconds", "1", "--out", "result.jsonl", "--data.check_crc", "False"]
    assert main(arguments) == 0
    assert {path.name for path in tmp_path.iterdir()} == before | {"result.jsonl"}
    assert list((tmp_path / "temporary").iterdir()) == []
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("small: test_resnet, ")
    result = json.loads((tmp_path / "result.jsonl").read_text())
    assert result["sentence"] in lines
    figures = Figures(**result["figures"])
    assert min(figures.decode_only, figures.loader_only, figures.model_only, figures.end_to_end) > 0
    assert 0 <= figures.wait_share <= 1
    assert figures.utilisation is not None
    assert 0 < figures.utilisation < 1
    table = {line[:28].strip() for line in lines}
    assert {"loader alone", "network alone", "end to end", "waiting for data", "model FLOP utilisation"} <= table


def test_wrong_settings_are_said_as_train_says_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wrong.yaml").write_text("data: {shards: nowhere}\nruntime: {device: cpu}\n")
    monkeypatch.chdir(tmp_path)
    assert main(["--config", "wrong.yaml"]) == 2
    assert "doctor.py: nowhere does not exist; make one with python tools/make_shards.py" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--config", "wrong.yaml", "--data.shard", "x"])
    assert "--data.shards" in capsys.readouterr().err
