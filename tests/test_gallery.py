"""Galleries: what is found, from which score on, and that a stop or another model never spoils one."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from fastface import gallery as gallery_module
from fastface.enrolment import enrol
from fastface.gallery import Gallery, non_mated_searches, open_gallery, write_gallery
from fastface.identifier import COLUMNS, Identifier, identify
from fastface.metrics.scores import unit
from fastface.mining.search import Search
from tests.coloured import THRESHOLD, photograph, system
from tools import enrol as enrol_tool
from tools import identify as identify_tool

__all__ = ["system"]
PEOPLE = {"ann": (250, 20), "ben": (20, 250), "cem": (60, 60)}


def drawn(seed: int = 0, people: int = 20, images: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    own = rng.normal(size=(people, 16))
    rows = own.repeat(images, 0) + 0.4 * rng.normal(size=(people * images, 16))
    return rows.astype(np.float32), np.arange(people).repeat(images)


def written(path: Path, kind: str = "flat", **options: int) -> Gallery:
    rows, labels = drawn(**options)
    names = [f"p{label:02d}/{i}.jpg" for i, label in enumerate(labels)]
    people = [f"p{label:02d}" for label in np.unique(labels)]
    about = {"model": {"sha256": "m"}, "detector": None, "system": {}}
    return write_gallery(path, rows, labels, names, people, about, kind=kind, not_enrolled=[])  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, (red, green) in PEOPLE.items():
        for k in range(2):
            photograph(tmp_path / "people" / name / f"{k}.png", (red, green + 3 * k))
    return tmp_path / "people"


def test_candidates_are_people_by_their_likest_image(tmp_path: Path) -> None:
    gallery = written(tmp_path / "g")
    rows, labels = drawn()
    scores = unit(rows) @ unit(rows[:1] + 0.3)[0]
    best = {label: max(scores[labels == label]) for label in np.unique(labels)}
    order = sorted(best, key=lambda label: -best[label])
    found = gallery.find(rows[0] + 0.3, 6)
    assert [each.person for each in found] == [f"p{label:02d}" for label in order[:6]]
    assert [each.score for each in found] == pytest.approx([best[label] for label in order[:6]], abs=1e-6)
    assert all(each.image.startswith(each.person + "/") for each in found)
    assert len(gallery.find(rows[0], 100)) == 20


@pytest.mark.parametrize("most", [1000, 25])
def test_non_mated_searches_leave_the_person_out(most: int) -> None:
    rows, labels = drawn(images=4)
    labels[3:6] = 0  # one person with more images than others
    searches = non_mated_searches(Search(rows, "flat"), labels, most=most)
    cosine = unit(rows) @ unit(rows).T
    expected = sorted((round(max(cosine[i][labels != labels[i]]), 5), labels[i]) for i in range(len(rows)))
    found = sorted((round(float(score), 5), int(person)) for score, person in searches)
    assert len(found) == min(most, len(rows))
    assert set(found) <= set(expected)
    assert len(non_mated_searches(Search(rows[:3], "flat"), labels[:3])) == 0


@pytest.mark.parametrize("target", [0.5, 0.1, 0.01])
def test_the_threshold_is_the_smallest_that_keeps_false_alarms_rare(tmp_path: Path, target: float) -> None:
    gallery = written(tmp_path / "g", images=5)
    found = gallery.threshold(target)
    assert found is not None
    alarms = [float(np.mean(gallery.non_mated >= t)) for t in (found.threshold, np.nextafter(found.threshold, -1))]
    assert alarms[0] <= target
    below = gallery.non_mated[gallery.non_mated < found.threshold].max()
    assert np.mean(gallery.non_mated >= below) > target
    assert found.supported == (target * 100 >= 30)


def test_few_searches_give_way_to_the_models_own_threshold(tmp_path: Path) -> None:
    """N comparisons raise at most N times the false alarms of one: FMR must be at most FPIR / N."""
    gallery = written(tmp_path / "g")
    strict = THRESHOLD.model_copy(update={"target_fmr": 1e-4, "threshold": 0.97})
    found = gallery.threshold(0.01, [THRESHOLD, strict])
    assert found is not None
    assert (found.threshold, found.supported) == (0.97, True)
    assert "FMR 0.0001, at most 0.01 / 20 people" in found.source
    guess = gallery.threshold(0.01, [THRESHOLD])
    assert guess is not None
    assert not guess.supported
    assert "a guess" in guess.about
    with pytest.raises(ValueError, match="--fpir is 0"):
        gallery.threshold(0)
    assert written(tmp_path / "one", people=1).threshold(0.1) is None


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_an_index_is_kept_and_its_damage_noticed(tmp_path: Path, kind: str) -> None:
    rows, _ = drawn(people=60)
    gallery = written(tmp_path / "g", kind, people=60)
    again = open_gallery(tmp_path / "g")
    expected = Search(rows, kind)(rows[:9], 5)  # type: ignore[arg-type]
    for found in (gallery.search(rows[:9], 5), again.search(rows[:9], 5)):
        assert np.array_equal(found.ids, expected.ids)
        assert np.array_equal(found.scores, expected.scores)
    (tmp_path / "g" / "index.faiss").write_bytes(b"none")
    with pytest.raises(ValueError, match=r"index\.faiss is missing or damaged"):
        open_gallery(tmp_path / "g")
    with pytest.raises(ValueError, match="no index that FAISS reads"):
        Search(rows, kind, saved=tmp_path / "g" / "index.faiss")  # type: ignore[arg-type]
    Search(rows[:50], kind).save(tmp_path / "g" / "index.faiss")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not the"):
        Search(rows, kind, saved=tmp_path / "g" / "index.faiss")  # type: ignore[arg-type]


@pytest.mark.parametrize("stop", ["write_embeddings", "fsync_folder"])
def test_a_stopped_change_leaves_a_whole_gallery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: str) -> None:
    before = written(tmp_path / "g", seed=1)

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(gallery_module, stop, fail)
        with pytest.raises(KeyboardInterrupt):
            written(tmp_path / "g", seed=2)
    after = open_gallery(tmp_path / "g")
    wanted = drawn(seed=1)[0] if stop == "write_embeddings" else drawn(seed=2)[0]
    assert np.array_equal(after.embeddings.rows, wanted)
    assert len(before.embeddings) == 60
    assert np.array_equal(written(tmp_path / "g", seed=3).embeddings.rows, drawn(seed=3)[0])


def test_a_gallery_set_aside_between_two_renames_comes_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path / "g", seed=1)
    (tmp_path / ".g.change").mkdir()
    (tmp_path / "g").rename(tmp_path / ".g.change" / "old")
    assert np.array_equal(open_gallery(tmp_path / "g").embeddings.rows, drawn(seed=1)[0])
    assert "again as it was before" in capsys.readouterr().err


def test_people_are_enrolled_added_and_removed(tmp_path: Path, folder: Path, system: str) -> None:
    (folder / "dan").mkdir()
    (folder / "dan" / "text.jpg").write_text("hello")
    photograph(folder / "dan" / "wall.png")
    photograph(folder / "ann" / "with-others.png", (20, 20), PEOPLE["ann"])
    out = tmp_path / "g"
    said = enrol(out, folder, recognition=[Path("m")], detector=system)
    assert "enrolled 7 images of 3 people" in said
    assert "1 images show several faces" in said
    assert "2 images could not be enrolled" in said
    assert "no image could be, of these images: 1 (dan)" in said
    with open(out / "not_enrolled.csv", encoding="utf-8") as file:
        rows = {row["image"]: row["reason"] for row in csv.DictReader(file)}
    assert rows["dan/text.jpg"].startswith("not-an-image")
    assert rows["dan/wall.png"] == "no face found (blue, score 0.5 or more)"
    photograph(tmp_path / "more" / "eva" / "0.png", (200, 200))
    photograph(tmp_path / "more" / "ann" / "0.png", PEOPLE["ann"])
    said = enrol(out, tmp_path / "more")
    assert "enrolled 1 images of 1 people" in said
    assert "1 images are enrolled already" in said
    assert list(open_gallery(out).embeddings.classes) == ["ann", "ben", "cem", "eva"]
    assert "removed: ben\n" in enrol(out, remove=["ben"])
    gallery = open_gallery(out)
    assert list(gallery.embeddings.classes) == ["ann", "cem", "eva"]
    one = Identifier(out).identify(photograph(tmp_path / "cem.png", PEOPLE["cem"]))
    assert one.candidates[0].person == "cem"
    assert len(gallery.embeddings) == 6
    with pytest.raises(ValueError, match="nobody of the name 'anne', perhaps you meant 'ann'"):
        enrol(out, remove=["anne"])
    with pytest.raises(ValueError, match="nobody is left"):
        enrol(out, remove=["ann", "cem", "eva"])


def test_another_model_or_detector_is_refused(tmp_path: Path, folder: Path, system: str) -> None:
    out = tmp_path / "g"
    enrol(out, folder, recognition=[Path("m")], detector=system)
    with pytest.raises(ValueError, match=r"made by another model: .*digest of m.*digest of n"):
        enrol(out, folder, recognition=[Path("n")])
    with pytest.raises(ValueError, match="another model"):
        Identifier(out, recognition=[Path("n")])
    (tmp_path / "other.txt").write_text("another")
    with pytest.raises(ValueError, match="another detector"):
        Identifier(out, detector=f"blue:{tmp_path}/other.txt")
    with pytest.raises(ValueError, match="give --recognition"):
        enrol(tmp_path / "new", folder)
    with pytest.raises(ValueError, match="is not there: nobody can be removed"):
        enrol(tmp_path / "new", remove=["ann"])
    with pytest.raises(ValueError, match="holds no embeddings"):
        Identifier(tmp_path / "people")


def test_photographs_are_identified_or_not_with_the_reason(tmp_path: Path, folder: Path, system: str) -> None:
    out = tmp_path / "g"
    enrol(out, folder, recognition=[Path("m")], detector=system)
    probes = tmp_path / "probes"
    photograph(probes / "1ann.png", PEOPLE["ann"])
    photograph(probes / "2stranger.png", (128, 128))
    photograph(probes / "3wall.png")
    photograph(probes / "4print.png", PEOPLE["ann"], grey=200)
    (probes / "5text.jpg").write_text("hello")
    found, said = identify(out, [probes], liveness=[Path("l")], threshold=0.95, out=tmp_path / "found.csv")
    assert [each.decision for each in found] == ["identified", "nobody", "refused", "refused", "refused"]
    assert found[0].person == "ann"
    assert "ann scores 1.0000, at or above 0.9500 (as given)" in found[0].reason
    assert "no face found" in found[2].reason
    assert "is not live: 0.2157" in found[3].reason
    assert "cannot be read as an image" in found[4].reason
    assert "5 photographs: 1 identified, 1 nobody, 3 refused" in said
    with open(tmp_path / "found.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert (rows[0]["person"], rows[0]["decision"]) == ("ann", "identified")
    assert float(rows[0]["second_score"]) < float(rows[0]["score"])
    json.dumps([each.as_dict() for each in found])
    one, said = identify(out, [probes / "1ann.png"])
    assert "  1. 1.0000  ann  (ann/0.png)" in said
    assert one[0].steps[-1].name == "search"
    with pytest.raises(ValueError, match="no photograph"):
        identify(out, [tmp_path / ".hidden"][:0])


def test_the_tools(
    tmp_path: Path, folder: Path, system: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "g")
    assert enrol_tool.main(["--out", out, "--detector", system, "--recognition", "m", str(folder)]) == 0
    assert "enrolled 6 images of 3 people" in capsys.readouterr().out
    assert enrol_tool.main(["--out", out, "--remove", "ben"]) == 0
    assert enrol_tool.main(["--out", out, "--remove", "nobody"]) == 2
    ann = str(photograph(tmp_path / "ann.png", PEOPLE["ann"]))
    assert identify_tool.main(["--gallery", out, "--threshold", "0.99", ann]) == 0
    assert "identified: ann" in capsys.readouterr().out
    assert identify_tool.main(["--gallery", out, "--threshold", "2", ann]) == 1
    capsys.readouterr()
    assert identify_tool.main(["--gallery", out, "--threshold", "0.9", "--json", ann]) == 0
    assert json.loads(capsys.readouterr().out)[0]["person"] == "ann"
    assert identify_tool.main(["--gallery", str(tmp_path), ann]) == 2
    monkeypatch.setattr(sys, "argv", ["enrol.py", "--out", out])
    with pytest.raises(SystemExit):
        enrol_tool.main()
