"""Faults are planted as said, and findings are graded as a loop would."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.audit import FOUND, Planted, grade, plant, table
from tests.data.shard_sets import face


def people(number: int = 15, images: int = 4) -> dict[str, dict[str, bytes]]:
    return {f"p{p:02d}": {f"{i}.jpg": face(p, i) for i in range(images)} for p in range(number)}


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(float)


def test_every_fault_is_where_the_truth_says() -> None:
    before = people()
    planted = plant(before, each=1)
    assert {what: len(found) for what, found in planted.truth.items()} == {
        **dict.fromkeys(FOUND, 1),
        "copies": 4,
        "wrong person": 2,
    }
    assert planted.files.keys() == planted.origin.keys()
    for path, source in planted.origin.items():
        if path == source:
            continue
        who, name = source.split("/")
        same = planted.files[path] == before[who][name]
        assert same == (not any(change in path for change in ("quality", "size", "mirror", "conflict")))
    for pair in planted.truth["copies"]:
        assert len({path.split("/")[0] for path in pair}) == 1
    for pair in planted.truth["copies under two names"]:
        assert len({path.split("/")[0] for path in pair}) == 2
    for path in planted.truth["dark"]:
        assert isinstance(path, str)
        who, name = path.split("/")
        assert pixels(planted.files[path]).mean() < 0.2 * pixels(before[who][name]).mean()
    assert plant(before, each=1).files == planted.files
    with pytest.raises(ValueError, match="2 faults of every kind need 28 identities of 4 or more images, not 15"):
        plant(before, each=2)


def test_findings_are_graded(tmp_path: Path) -> None:
    truth = {what: set() for what in FOUND}
    truth["copies"] = {frozenset(("a", "b")), frozenset(("c", "d"))}
    truth["blurred"] = {"x"}
    (tmp_path / "f.csv").write_text(
        "kind,sure,image,other_image,identity,other_identity\n"
        "duplicate,sure,b,a,,\nnear-duplicate,check,c,d,,\nnear-duplicate,check,c,e,,\n"
        "blurred,check,x,,,\nblurred,check,y,,,\nblurred,check,soft,,,\nloner,check,z,,,\n"
    )
    planted = Planted({}, {}, truth, {"soft"})
    counts = grade(tmp_path / "f.csv", planted)
    assert (counts["copies"], counts["blurred"], counts["dark"]) == ((2, 2, 3), (1, 1, 2), (0, 0, 0))
    assert grade(tmp_path / "f.csv", planted, sure=True)["copies"] == (2, 1, 1)
    assert "copies                         2    1.000       3      0.667" in table(counts)
