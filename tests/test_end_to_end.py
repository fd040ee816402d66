"""A run with an evaluation set -> its best checkpoint, a report, an ONNX file with thresholds, two faces compared."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from fastface.assess.page import errors
from fastface.assess.pairs import assess
from fastface.card import Card
from fastface.data.index import Index
from fastface.data.shards import ShardReader
from fastface.eval_settings import EvalSet
from fastface.evaluators import open_pairs
from fastface.foreign import import_weights
from fastface.metrics.curve import curve, equal_error
from fastface.predictor import find_checkpoint, load_embedder
from fastface.ship.export import export
from fastface.verifier import Verifier
from tests.data.shard_sets import make_set
from tests.training import ROOT, environment, log_lines, run_here, write_config

OPTIONS = {
    "images": None,
    "pairs": "200",
    "bin": None,
    "crop": "as-trained",
    "flip": None,
    "compat": None,
    "baselines": False,
    "seed": 0,
    "batch_size": 16,
    "device": "cpu",
    "out": None,
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("faces"), people=12, images=6)


@pytest.fixture(scope="module")
def run(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    measured = f"eval: {{every_epochs: 1, best_metric: val/auc, sets: {{val: {{images: {shards}, pairs: 300}}}}}}"
    config = write_config(tmp_path_factory.mktemp("run"), shards, measured)
    return run_here(config)


def test_the_best_checkpoint_is_kept_and_found(run: Path) -> None:
    figures = {line["step"]: line["eval"] for line in log_lines(run) if "eval" in line}
    assert len(figures) == 4
    best = json.loads((run / "best.json").read_text())
    assert best["value"] == max(values["val/auc"] for values in figures.values())
    assert find_checkpoint(run).state["step"] == best["step"]
    assert set(figures[best["step"]]) >= {"val/acc", "val/eer", "val/tar_1e-2", "val/acc_se"}


def test_killed_after_its_best_it_goes_on_as_if_nothing_had_happened(run: Path, tmp_path: Path) -> None:
    """The checkpoint knows the best so far; a best.json that is older or newer than it does not count."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    for later in sorted((copy / "checkpoints").iterdir()):
        if int(later.name.removeprefix("step-")) > 4:
            shutil.rmtree(later)
    (copy / "best.json").write_text('{"metric": "val/auc", "step": 1, "value": 2.0, "waited": 0}')
    run_here(run.parent.parent.parent / "tiny.yaml", resume=str(copy))
    assert (copy / "metrics.jsonl").read_text() == (run / "metrics.jsonl").read_text()
    assert (copy / "best.json").read_text() == (run / "best.json").read_text()


def test_early_stop(run: Path, shards: Path, tmp_path: Path) -> None:
    sets = f"sets: {{val: {{images: {shards}, pairs: 100}}}}"
    config = write_config(
        tmp_path, shards, f"eval: {{every_epochs: 0.25, best_metric: val/acc_std, patience: 2, {sets}}}"
    )
    stopped = run_here(config, "--train.epochs", "50")
    assert "stopping early" in (stopped / "log.txt").read_text()
    assert log_lines(stopped)[-1]["step"] < 200


def test_the_report_has_baselines_and_files(run: Path, shards: Path, tmp_path: Path) -> None:
    persons = sorted({os.path.dirname(name) for name in map(Index.open(shards).name, range(72))})
    table = tmp_path / "attributes.csv"
    table.write_text("name,half\n" + "".join(f"{person},{k % 2}\n" for k, person in enumerate(persons)) + "Eve,1\n")
    options = {"images": shards, "baselines": True, "det": True, "against": [run], "attributes": table, "at_fmr": 0.1}
    text = assess(run, **{**OPTIONS, **options, "out": tmp_path})
    for word in ("trained", "untrained", "raw pixels", "TAR at FAR", "FNMR at FMR", "accuracy", "impostor"):
        assert word in text
    for words in ("for 12 persons who recur", "half: one threshold", "1 of 13 rows", "trained minus raw pixels"):
        assert words in text
    figures = json.loads((tmp_path / "metrics.json").read_text())
    same = figures["first_minus"][f"against {run.parent.name}/{run.name}"]
    assert same["figures"]["auc"] == {"difference": 0.0, "interval": [0.0, 0.0], "significant": False}
    cells = figures["trained"]["details"]["breakdown"]["half"]
    assert sum(cell["genuine"] for cell in cells["groups"]) == figures["trained"]["details"]["num_genuine"]
    assert 0.4 < figures["raw pixels"]["metrics"]["auc"] < 0.7  # random pictures: nobody looks like himself
    assert (tmp_path / "verification.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "pairs.csv").read_text().startswith("a,b,same,fold\n")


def test_the_page_shows_figures_and_the_faces_behind_them(run: Path, shards: Path, tmp_path: Path) -> None:
    options = {**OPTIONS, "images": shards, "baselines": True, "against": [run], "report": tmp_path / "page"}
    text = assess(run, **options)
    assert f"a page to look at: {tmp_path / 'page' / 'report.html'}" in text
    page = (tmp_path / "page" / "report.html").read_text(encoding="utf-8")
    figures = json.loads((tmp_path / "page" / "metrics.json").read_text())
    for name in ("trained", "untrained", "raw pixels"):
        assert f"{figures[name]['metrics']['acc']:.4f}" in page
    titles = ("Figures", "Differences", "Curves and scores", "Thresholds", "Calibration", "Worst errors: trained")
    for title in (*titles, "Nearest neighbours: trained", f"Worst errors: against {run.parent.name}/{run.name}"):
        assert f"<h2>{title}</h2>" in page
    assert "Worst errors: raw pixels" not in page
    assert page.count("data:image/jpeg") > 20  # faces
    assert page.count("data:image/png") == 2  # curves, calibration
    assert 'src="http' not in page
    assert "<script" not in page


def test_the_page_lists_errors_in_their_order(run: Path, shards: Path) -> None:
    """By a loop: impostors at or above the threshold of equal rates, the highest first."""
    opened = open_pairs(EvalSet(images=shards, pairs=60), load_embedder(run).card)
    same, scores = opened.pairs.same, np.random.default_rng(0).normal(size=len(opened.pairs.same)).astype(np.float32)
    scores[:3] = np.nan
    found = str(errors(opened, scores, same))
    threshold = equal_error(curve(scores, same))[1]
    wrong = sorted((float(s) for s, g in zip(scores, same, strict=True) if not g and s >= threshold), reverse=True)
    missed = sorted(float(s) for s, g in zip(scores, same, strict=True) if g and s < threshold)
    shown = [float(text) for text in re.findall(r'class="finding"><p>(-?[0-9.]+)</p>', found)]
    assert shown == pytest.approx([*wrong[:12], *missed[:12]], abs=5e-5)
    assert f"False accepts, the most alike first: {len(wrong)} of {int((~same).sum())}" in found


def test_export_agrees_is_calibrated_and_verifies(run: Path, shards: Path, tmp_path: Path) -> None:
    made = export(run, out=tmp_path)
    assert made.difference < 1e-5
    onnx.checker.check_model(str(made.path), full_check=True)
    card = Card.read(tmp_path / "model.json")
    assert card == made.card
    assert [t.target_fmr for t in card.thresholds] == [1e-2, 1e-3]
    assert not card.thresholds[1].supported
    assert all(t.fmr <= t.target_fmr for t in card.thresholds)
    assert card.training["num_classes"] == 12
    index = Index.open(shards)
    reader = ShardReader(index)
    same = index.by_label[:2]
    for i, record in enumerate(same):
        (tmp_path / f"{i}.jpg").write_bytes(reader.view(int(record)).tobytes())
    verifier = Verifier(made.path)
    found = verifier.compare(tmp_path / "0.jpg", tmp_path / "1.jpg")
    rows = [verifier.embed(tmp_path / f"{i}.jpg") for i in (0, 1)]
    assert found.similarity == pytest.approx(float(rows[0] @ rows[1]), abs=1e-6)
    assert found.same == (found.similarity >= card.thresholds[0].threshold)
    torch_says = Verifier(run).compare(tmp_path / "0.jpg", tmp_path / "1.jpg")
    assert torch_says.similarity == pytest.approx(found.similarity, abs=1e-5)
    assert torch_says.same is None
    assert "no decision" in str(torch_says)
    again = verifier.compare(tmp_path / "0.jpg", tmp_path / "0.jpg")
    assert again.similarity == pytest.approx(1.0)
    with pytest.raises(ValueError, match=r"no threshold for FMR 0\.5"):
        Verifier(made.path, target_fmr=0.5)


def test_the_commands_work_and_explain_themselves(run: Path, shards: Path, tmp_path: Path) -> None:
    def call(*words: object) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, str(ROOT / "fastface" / str(words[0])), *map(str, words[1:])]
        return subprocess.run(line, env=environment(), capture_output=True, text=True, check=False)

    missing = call("verify.py", "--recognition", tmp_path / "none.onnx", "a.jpg", "b.jpg")
    assert missing.returncode == 2
    assert "no such file" in missing.stderr
    done = call("evaluate.py", "--checkpoint", run, "--images", shards, "--pairs", "100", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "TAR at FAR" in done.stdout


def test_images_of_another_size_are_refused(run: Path) -> None:
    with pytest.raises(ValueError, match="takes 32x32 RGB images, got 40x40"):
        load_embedder(run)(np.zeros((1, 40, 40, 3), np.uint8))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "give --images"),
        ({"images": Path("/nowhere")}, "does not exist"),
        ({"bin": Path("/nowhere.bin")}, "/nowhere.bin"),
    ],
)
def test_what_is_missing_is_named(run: Path, change: dict, expected: str) -> None:
    with pytest.raises((ValueError, OSError)) as caught:
        assess(run, **{**OPTIONS, **change})
    assert expected in str(caught.value)


def test_no_run_at_all(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="neither a run folder"):
        find_checkpoint(tmp_path)


def test_a_pair_file_of_one_kind_has_an_accuracy(data: Path, run: Path, tmp_path: Path) -> None:
    """records/small_lfw.bin: ten genuine pairs, no impostor."""
    text = assess(run, **{**OPTIONS, "bin": data / "records" / "small_lfw.bin", "out": tmp_path})
    assert "10 genuine, 0 impostor" in text
    metrics = json.loads((tmp_path / "metrics.json").read_text())["model"]["metrics"]
    assert set(metrics) == {"acc", "acc_std", "acc_se"}


@pytest.mark.slow
def test_the_public_mobilefacenet_gives_its_published_accuracy(data: Path, tmp_path: Path) -> None:
    """200 pairs of LFW's first fold here, to keep it short; README.md has the whole protocol."""
    weights = data / "weights" / "mobilefacenet_128d" / "068.ckpt"
    import_weights("mobilefacenet_128d", weights, tmp_path / "run")
    lines = (data / "lfw112" / "pairs.txt").read_text().splitlines()[1:601]
    halves = [lines[k : k + 50] + lines[300 + k : 350 + k] for k in (0, 50)]
    (tmp_path / "pairs.txt").write_text("\n".join(["2\t50", *halves[0], *halves[1]]) + "\n")
    options = {"images": data / "lfw112" / "images.tar", "pairs": str(tmp_path / "pairs.txt"), "batch_size": 128}
    assess(tmp_path / "run", **{**OPTIONS, **options, "out": tmp_path})
    found = json.loads((tmp_path / "metrics.json").read_text())["model"]
    assert 0.97 <= found["metrics"]["acc"] <= 1.0
    assert os.path.getsize(tmp_path / "verification.png") > 10_000
