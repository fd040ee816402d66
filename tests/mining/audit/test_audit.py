"""Planted faults are found, what is shared by two sets is found, and the lists do what they say."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks.audit import FOUND, Planted, grade, plant
from fastface.conversion.convert import convert
from fastface.conversion.options import Options
from fastface.data.embeddings import write_embeddings
from fastface.data.index import Index
from fastface.mining.audit import audit, plain_name
from tests.mining.planted import draw_people, make_set
from tools.audit import main

LIMITS = {"blurred": -1.0}  # drawn faces differ more than photographs do, and are few


class Made:
    """A set with one fault of every kind, and its audit."""

    def __init__(self, folder: Path) -> None:
        people = draw_people(16, 4)
        people["alone"] = {"0.jpg": people["person_015"].pop("3.jpg")}
        self.planted: Planted = plant(people, each=1, seed=3)
        self.folder = folder
        self.embeddings, self.index = make_set(folder, self.planted.files, self.planted.origin)
        self.out = folder / "audit"
        self.text = audit(self.embeddings, self.out, threads=2, limits=LIMITS)
        self.html = (self.out / "audit.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("audit"))


def rows(file: Path) -> list[dict[str, str]]:
    with open(file, encoding="utf-8", errors="surrogateescape", newline="") as text:
        return list(csv.DictReader(text))


@pytest.mark.parametrize("what", FOUND)
def test_what_was_planted_is_found(made: Made, what: str) -> None:
    planted, hit, found = grade(made.out / "findings.csv", made.planted)[what]
    assert planted == hit == {"copies": 4, "wrong person": 2}.get(what, 1)
    assert found <= planted + (3 if what in ("blurred", "grey", "dark") else 0)


def test_exclude_is_what_is_sure_and_make_shards_takes_it(made: Made, tmp_path: Path) -> None:
    truth = made.planted.truth
    listed = {row["image"] for row in rows(made.out / "exclude.csv")}
    for pair in truth["copies"]:
        assert isinstance(pair, frozenset)
        assert len(pair & listed) == 1
    assert truth["wrong person"] <= listed
    assert len(listed) == 4 + 2
    convert(Options("folder", made.folder / "raw", tmp_path / "clean", workers=1, exclude=made.out / "exclude.csv"))
    left = Index.open(tmp_path / "clean")
    assert {left.name(i) for i in range(len(left))} == made.planted.files.keys() - listed


def test_small_identities_are_counted(made: Made) -> None:
    tiny = {row["identity"] for row in rows(made.out / "findings.csv") if row["kind"] == "tiny"}
    counts = np.bincount(made.index.label)
    assert tiny == {name for k, name in enumerate(made.index.classes) if counts[k] == 1}
    assert "alone" in tiny


def test_the_page_shows_it_and_needs_nothing(made: Made) -> None:
    assert not re.search(r'(src|href)="(?!data:|#)', made.html)
    assert "<script" not in made.html
    for kind in ("near-duplicate", "mislabelled", "split", "same-person"):
        assert f"<h3>{kind}</h3>" in made.html
    assert made.html.count("data:image/jpeg;base64,") > 20
    assert (made.out / "summary.txt").read_text(encoding="utf-8") == made.text
    assert re.search(r"same 0\.\d{3}: the larger of .* that unrelated images", made.text)


def test_a_second_audit_decodes_nothing_and_finds_the_same(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (made.out / "findings.csv").read_bytes()
    monkeypatch.setattr("fastface.mining.audit.pixels.measure", None)
    assert audit(made.embeddings, made.out, limits=LIMITS) == made.text
    assert (made.out / "findings.csv").read_bytes() == before


def test_thresholds_are_options(made: Made, tmp_path: Path) -> None:
    given = {"same": 0.999, "likely": 0.998, "typical": 0.99, "own": -0.9, "alike": 2.0}
    text = audit(made.embeddings, tmp_path / "audit", thresholds=given, bits=0, correlation=1.1, limits={"dark": -1.0})
    assert "same 0.999: given" in text
    kinds = {row["kind"] for row in rows(tmp_path / "audit/findings.csv")}
    assert not kinds & {"mislabelled", "same-person", "split", "near-duplicate", "near-duplicate-conflict", "dark"}
    assert "duplicate" in kinds


def test_two_sets_are_held_against_each_other(made: Made, tmp_path: Path) -> None:
    """The other set: a person of the same name in other photographs, one under another name, one same picture."""
    people = draw_people(16, 6)
    files = {f"Person-{n:03d}/{k}.jpg": people[f"person_{n:03d}"][f"{k}.jpg"] for n in (14, 15) for k in (4, 5)}
    origin = {path: path.replace("Person-", "person_") for path in files}
    fresh = draw_people(3, 2, seed=7)
    for name, images in fresh.items():
        for k, data in images.items():
            files[f"new_{name}/{k}"], origin[f"new_{name}/{k}"] = data, f"new_{name}/{k}"
    changed = {path.split("/")[0] for path, source in made.planted.origin.items() if path != source}
    changed |= {source.split("/")[0] for path, source in made.planted.origin.items() if path != source}
    copied, alias = sorted(
        {path.split("/")[0] for path in made.planted.files} - changed - {"alone", "person_014", "person_015"}
    )[:2]
    files["other_name/0.jpg"] = people[alias]["5.jpg"]
    origin["other_name/0.jpg"] = f"{alias}/5.jpg"
    files["new_person_000/copy.jpg"] = made.planted.files[f"{copied}/0.jpg"]
    origin["new_person_000/copy.jpg"] = f"{copied}/0.jpg"
    against, other = make_set(tmp_path, files, origin)
    text = audit(made.embeddings, tmp_path / "audit", against=against)
    found = rows(tmp_path / "audit/findings.csv")
    named = {(row["identity"], row["other_identity"]) for row in found if row["kind"] == "shared-name"}
    assert named == {("person_014", "Person-014"), ("person_015", "Person-015")}
    pictures = [row for row in found if row["kind"] == "shared-image"]
    assert {(row["image"], row["other_image"]) for row in pictures} == {("new_person_000/copy.jpg", f"{copied}/0.jpg")}
    people_found = {(row["identity"], row["other_identity"]) for row in found if row["kind"] == "shared-person"}
    assert (alias, "other_name") in people_found
    assert not any(b in ("new_person_001", "new_person_002") for _, b in people_found)
    assert f"of the {len(other.classes):,} identities of the other set 2 are here by name; of these 2 have" in text
    listed = (tmp_path / "audit/shared_identities.txt").read_text().split("\n")
    assert {"person_014", "person_015", alias, copied} == set(listed) - {""}


def test_the_tool_says_what_is_wrong(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--embeddings", str(tmp_path), "--out", str(tmp_path / "o")]) == 2
    assert "holds no embeddings" in capsys.readouterr().err
    other = make_set(tmp_path / "b", {"a/1.jpg": draw_people(1, 1)["person_000"]["0.jpg"]}, {"a/1.jpg": "a/1.jpg"})[0]
    arguments = ["--embeddings", str(other), "--shards", str(made.folder / "shards"), "--out", str(tmp_path / "o")]
    assert main(arguments) == 2
    assert "holds embeddings of another set than" in capsys.readouterr().err
    assert main(["--embeddings", str(other), "--out", str(tmp_path / "o")]) == 2
    assert "no identity has two images" in capsys.readouterr().err
    thresholds = [
        f"--{name}={value}"
        for name, value in {"same": 0.9, "likely": 0.8, "typical": 0.7, "own": 0.1, "alike": 0.99}.items()
    ]
    assert main(["--embeddings", str(other), "--out", str(tmp_path / "o"), *thresholds]) == 0
    assert "1 images of 1 identities" in capsys.readouterr().out


def test_images_that_failed_are_listed(tmp_path: Path) -> None:
    """A damaged image and a missing embedding: both are findings, neither stops the audit."""
    people = draw_people(3, 3)
    files = {f"{who}/{name}": data for who, images in people.items() for name, data in images.items()}
    embeddings, index = make_set(tmp_path, files, {path: path for path in files})
    names = [index.name(i) for i in range(len(index))]
    rows_ = np.load(embeddings / "embeddings.npy")
    rows_[2], rows_[4] = np.nan, 0
    about = {"dataset_id": index.dataset_id, "shards": str(index.path)}
    write_embeddings(embeddings, rows_, index.label, names, index.classes, about)
    shard = index.shard_path(0)
    data = bytearray(shard.read_bytes())
    data[int(index.offset[6]) + 200] ^= 0xFF
    shard.write_bytes(data)
    audit(embeddings, tmp_path / "audit")
    found = rows(tmp_path / "audit/findings.csv")
    assert {row["image"] for row in found if row["kind"] == "unreadable"} == {names[6]}
    assert {row["image"] for row in found if row["kind"] == "no-embedding"} == {names[2], names[4]}
    assert [row["image"] for row in rows(tmp_path / "audit/exclude.csv")] == [names[6]]


@pytest.mark.parametrize(
    ("a", "b"), [("Ada_Lovelace", "ada lovelace"), ("Hu Jin-tao", "HU_JINTAO"), ("n000012", "N000012"), ("__", "__")]
)
def test_names_are_compared_as_people_do(a: str, b: str) -> None:
    assert plain_name(a) == plain_name(b)
