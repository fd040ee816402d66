"""Boxes, landmarks and clips that a buggy writer got wrong are found, though every hash agrees."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fastface.conversion.check import check
from fastface.conversion.convert import convert
from fastface.conversion.options import Options
from fastface.data.geometry import Faces
from fastface.data.index import Index
from fastface.data.sources import Source
from tests.conversion.test_check import edit
from tests.data.shard_sets import face


class Annotated(Source):
    """Six images of two clips, with boxes, an attribute and landmarks."""

    def __init__(self) -> None:
        super().__init__(["a"], np.zeros(6, np.int64))
        self.columns = {"clip": np.repeat([4, 9], 3).astype(np.int32), "time_ms": np.array([0, 40, 80, 0, 10, 20])}
        boxes = np.tile(np.array([[2, 3, 20, 30]], np.float32), (6, 1))
        self.faces = Faces(np.array([0, 2, 2, 3, 4, 6, 6]), boxes, {"blur": np.arange(6)})
        self.landmarks = np.full((6, 5, 2), 7, np.float32)

    def name(self, i: int) -> str:
        return f"{i}"

    def read(self, i: int) -> bytes:
        return face(i, 0)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    convert(Options("list", tmp_path / "in", tmp_path / "set", workers=1), {"": Annotated()})
    return tmp_path / "set"


def put(at: object, value: float) -> Callable[[np.ndarray], object]:
    return lambda array: array.__setitem__(at, value)


WRONG = {
    "box beyond the edge": ("boxes", put((3, 2), 33), r"1 boxes are no rectangles inside their image, first box 3 of"),
    "box turned round": ("boxes", put((0, 0), 25), r"1 boxes are no rectangles .* first box 0 of record 0"),
    "box of NaN": ("boxes", put((5, 1), np.nan), "1 boxes are no rectangles"),
    "starts fall": ("boxes_start", put(2, 6), "boxes_start does not run over boxes"),
    "starts end early": ("boxes_start", put(-1, 5), "boxes_start does not run over boxes|has shape"),
    "clips mixed": ("clip", put(0, 77), "the frames of a clip are not neighbours|does not rise"),
    "time stands still": ("time_ms", put(1, 0), "time_ms does not rise within every clip"),
}


def test_a_good_set_passes(made: Path) -> None:
    assert check(made, decode=True, workers=1, show=str) == []
    index = Index.open(made)
    assert index.columns["boxes"].shape == (6, 4)
    assert index.columns["boxes_blur"].dtype == np.int64


@pytest.mark.parametrize("what", WRONG)
def test_wrong_faces_and_clips_are_found(made: Path, what: str) -> None:
    name, change, message = WRONG[what]
    if what == "clips mixed":  # the middle frame of a clip is given to the other one
        clip = Index.open(made).columns["clip"]
        change = put(1, int(clip[clip != clip[1]][0]))
    edit(made, name, change, honest=True)
    problems = check(made, workers=1, show=str)
    assert any(re.search(message, line) for line in problems), problems


def test_an_index_whose_boxes_do_not_fit_does_not_open(made: Path) -> None:
    edit(made, "boxes_start", put(-1, 3), honest=True)
    with pytest.raises(ValueError, match=r"index/boxes(_blur)?\.npy has shape"):
        Index.open(made)
