"""mine.py: embeddings or a run's centres in, a file that data.plan reads and a list of suspects out."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from safetensors.torch import load_file

from fastface.data.embeddings import write_embeddings
from fastface.data.index import Index
from fastface.data.plans import Mined
from fastface.data.plans.neighbours import read_neighbours
from tests.training import ROOT, run_here, write_people, write_task

PEOPLE, IMAGES = 8, 4


def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mine", ROOT / "tools" / "mine.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("people"), PEOPLE, IMAGES)


@pytest.fixture
def folder(shards: Path, tmp_path: Path) -> Path:
    """Embeddings of those people: 2 is nearly 3, one image of 5 is one of 6, and 7 has none that can be used."""
    index = Index.open(shards)
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(PEOPLE, 16))
    centres[3] = centres[2] + 0.1 * rng.normal(size=16)
    rows = centres[index.label] + 0.3 * rng.normal(size=(len(index), 16))
    six = np.flatnonzero(index.label == 6)[0]
    rows[np.flatnonzero(index.label == 5)[1]] = rows[six]
    rows[index.label == 7] = np.nan
    names = [index.name(i) for i in range(len(index))]
    write_embeddings(tmp_path / "e", rows, index.label, names, index.classes, {"dataset_id": index.dataset_id})
    return tmp_path / "e"


def suspects_of(file: Path) -> list[list[str]]:
    with open(file.with_suffix(".suspects.csv"), newline="", encoding="utf-8") as opened:
        header, *lines = csv.reader(opened)
    assert header == ["score", "identity_a", "identity_b", "image_a", "image_b", "images_a", "images_b"]
    return lines


@pytest.mark.parametrize("by", ["centre", "instance"])
def test_embeddings_become_lists_and_suspects(
    shards: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], by: str
) -> None:
    out = tmp_path / "n.npz"
    words = ["--embeddings", str(folder), "--out", str(out), "--neighbours", "4", "--by", by, "--cap", "0.95"]
    assert tool().main([*words, "--shards", str(shards)]) == 0
    index = Index.open(shards)
    found = read_neighbours(out, index)
    assert found.ids.shape == (PEOPLE, 4)
    assert (found.ids[7] == -1).all()
    assert not (found.ids == 7).any()
    assert 3 not in found.ids[2]
    assert 2 not in found.ids[3]
    lines = suspects_of(out)
    pairs = [tuple(line[1:3]) for line in lines]
    if by == "centre":
        assert pairs == [("person_002", "person_003")]
        first = [index.name(int(np.flatnonzero(index.label == person)[0])) for person in (2, 3)]
        assert lines[0][3:] == [*first, "4", "4"]
    else:
        assert set(pairs) == {("person_002", "person_003"), ("person_005", "person_006")}
        line = lines[pairs.index(("person_005", "person_006"))]
        assert line[0] == "1.0000"
        assert [name.split("/")[0] for name in line[3:5]] == ["person_005", "person_006"]
        assert 6 not in found.ids[5]
    said = capsys.readouterr().out
    assert "1 without a usable embedding: 'person_007'" in said
    assert f"above 0.95      {len(lines)} pairs of identities" in said
    assert "recall          1.0000" in said
    Mined(index, out, 2, 1, 8, seed=0)[0]  # a plan takes it


def test_centres_of_a_run_are_mined_class_by_class(shards: Path, tmp_path: Path) -> None:
    task = "{name: arcface, s: 16, sub_centres: 2, margin: {name: arcface, m: 0.2}}"
    run = run_here(write_task(tmp_path, shards, task, "train: {max_steps: 2}"))
    out = tmp_path / "n.npz"
    assert tool().main(["--checkpoint", str(run), "--out", str(out), "--neighbours", "3", "--cap", "1"]) == 0
    weight = load_file(run / "checkpoints" / "step-00000002" / "model.safetensors")["head.weight"].double().numpy()
    unit = weight / np.sqrt((weight**2).sum(axis=1, keepdims=True))
    found = read_neighbours(out, Index.open(shards)).ids
    for a in range(PEOPLE):
        scores = {
            b: max(float(unit[2 * a + i] @ unit[2 * b + j]) for i in (0, 1) for j in (0, 1)) for b in range(PEOPLE)
        }
        others = sorted((b for b in scores if b != a), key=lambda b: -scores[b])
        assert found[a].tolist() == others[:3]


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_other_indices_say_what_they_find(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    words = ["--embeddings", str(folder), "--out", str(tmp_path / "n.npz"), "--index", kind, "--cap", "1"]
    assert tool().main([*words, "--neighbours", "3", "--probes", "8"]) == 0
    (recall,) = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("recall")]
    assert float(recall) > 0.9


def test_identities_with_few_images_can_be_left_out(shards: Path, folder: Path, tmp_path: Path) -> None:
    index = Index.open(shards)
    rows = np.array(np.load(folder / "embeddings.npy"))
    keep = np.ones(len(rows), bool)
    keep[np.flatnonzero(index.label == 0)[1:]] = False  # 0 has one image left
    names = [index.name(int(i)) for i in np.flatnonzero(keep)]
    about = {"dataset_id": index.dataset_id}
    write_embeddings(tmp_path / "few", rows[keep], index.label[keep], names, index.classes, about)
    for by in ("centre", "instance"):
        out = tmp_path / f"{by}.npz"
        words = ["--embeddings", str(tmp_path / "few"), "--out", str(out), "--neighbours", "6", "--cap", "1"]
        assert tool().main([*words, "--by", by, "--min-images", "2"]) == 0
        found = read_neighbours(out, index).ids
        assert (found[0] == -1).all()
        assert not (found == 0).any()
        assert sorted(found[1][found[1] >= 0].tolist()) == [2, 3, 4, 5, 6]
    assert tool().main([*words, "--min-images", "9"]) == 2


def test_what_does_not_fit_is_said(
    shards: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_people(tmp_path / "other", 4, 2)
    out = str(tmp_path / "n.npz")
    run = run_here(write_task(tmp_path, shards, "{name: pair}", "data: {plan: {name: pairs}}", "train: {max_steps: 1}"))
    capsys.readouterr()  # what making them said
    for words, message in (
        (["--embeddings", str(folder), "--shards", str(other)], "make the embeddings of these shards"),
        (["--embeddings", str(shards)], "is not that of embeddings in format 1"),
        (["--checkpoint", str(run)], "has no class centres, which only task arcface has"),
        (["--checkpoint", str(run), "--shards", str(other)], "give --shards, the set it learned from"),
        (["--checkpoint", str(run), "--by", "instance"], "a run has centres only"),
        (["--checkpoint", str(tmp_path)], "neither a run folder, a step folder"),
    ):
        assert tool().main([*words, "--out", out]) == 2
        said = capsys.readouterr().err
        assert said.startswith("mine: ")
        assert message in said
    assert tool().main(["--embeddings", str(folder), "--out", str(tmp_path / "n.txt")]) == 2
    assert tool().main(["--embeddings", str(folder), "--out", str(tmp_path / "nowhere" / "n.npz")]) == 4
    assert not Path(out).exists()
