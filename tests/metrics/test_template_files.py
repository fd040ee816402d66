from pathlib import Path

import numpy as np
import pytest

from fastface.metrics.template_files import (
    folder_templates,
    join_splits,
    read_template_pairs,
    read_templates,
    with_detector_scores,
)

IJB = "1.jpg 7 500\n2.jpg 7 500\n3.jpg 7 501\n4.jpg 9 500\n"


def written(folder: Path, text: str, name: str = "t.txt") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_ijbs_files_are_read(tmp_path: Path) -> None:
    t = read_templates(written(tmp_path, IJB))
    assert t.names == ["1.jpg", "2.jpg", "3.jpg", "4.jpg"]
    assert t.ids.tolist() == [7, 9]
    assert t.template.tolist() == [0, 0, 0, 1]
    assert t.media.tolist() == [0, 0, 1, 0]
    points = "".join(f"{name} {'1.5 ' * 10}{0.1 * k}\n" for k, name in enumerate(reversed(t.names)))
    assert with_detector_scores(t, written(tmp_path, points)).score == pytest.approx([0.3, 0.2, 0.1, 0.0])
    pairs = read_template_pairs(written(tmp_path, "7 9 0\n9 9 1\n"), t)
    assert (pairs.first.tolist(), pairs.second.tolist()) == ([0, 1], [1, 1])
    assert pairs.same.tolist() == [False, True]
    assert pairs.fold is None


def test_ijb_as_files_are_read_and_its_splits_joined(tmp_path: Path) -> None:
    head = "TEMPLATE_ID,SUBJECT_ID,FILE,MEDIA_ID,SIGHTING_ID,FACE_X\n"
    parts = []
    for split in range(2):
        rows = [f"{t},{subject},img/{t}{split}.jpg,{t}0,1,3.5\n" for t, subject in ((1, 70), (2, 70), (3 + split, 80))]
        t = read_templates(written(tmp_path, head + "".join(rows)))
        parts.append((t, read_template_pairs(written(tmp_path, f"1,2\n2,{3 + split}\n", "c.csv"), t)))
    t, pairs = join_splits(parts)
    assert len(t.ids) == 6
    assert t.names == ["img/10.jpg", "img/20.jpg", "img/30.jpg", "img/11.jpg", "img/21.jpg", "img/41.jpg"]
    assert t.template.tolist() == [0, 1, 2, 3, 4, 5]
    assert pairs.first.tolist() == [0, 1, 3, 4]
    assert pairs.second.tolist() == [1, 2, 4, 5]
    assert pairs.same.tolist() == [True, False, True, False]
    assert pairs.fold is not None
    assert pairs.fold.tolist() == [0, 0, 1, 1]
    assert t.subject is not None
    assert t.subject.tolist() == [70, 70, 80, 70, 70, 80], "persons are shared between splits"


def test_youtube_faces_files_are_read(tmp_path: Path) -> None:
    t = folder_templates(["Ann/0/0.1.jpg", "Ann/0/0.2.jpg", "Ann/1/1.1.jpg", "Bob/3/3.7.jpg"])
    assert t.ids.tolist() == ["Ann/0", "Ann/1", "Bob/3"]
    assert t.template.tolist() == t.media.tolist() == [0, 0, 1, 2]
    text = "split number, first name, second name, L2, is same\n1, Ann/0, Ann/1, 0.1, 1\n2, Bob/3, Ann/1, 0.2, 0\n"
    pairs = read_template_pairs(written(tmp_path, text), t)
    assert (pairs.first.tolist(), pairs.second.tolist()) == ([0, 2], [1, 1])
    assert pairs.same.tolist() == [True, False]
    assert pairs.fold is not None
    assert pairs.fold.tolist() == [0, 1]
    with pytest.raises(ValueError, match="lies in no folder"):
        folder_templates(["a.jpg"])


def test_a_csv_of_ours_is_read(tmp_path: Path) -> None:
    text = "name,template,media,score,subject\nx,p1,m,0.5,ann\ny,p1,m,1,ann\nz,p2,n,0.25,bob\n"
    t = read_templates(written(tmp_path, text))
    assert t.ids.tolist() == ["p1", "p2"]
    assert t.score is not None
    assert t.score.tolist() == [0.5, 1.0, 0.25]
    assert t.subject is not None
    assert t.subject[0] != t.subject[1]
    pairs = read_template_pairs(written(tmp_path, "a,b,same,fold\np2,p1,0,0\np1,p1,1,1\n"), t)
    assert pairs.first.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("1.jpg 7 500\n2.jpg 7\n", "line 2: expected 3 words, found 2"),
        ("name,template\nx,1\n", "column media is missing"),
        ("name,template,media,scor\nx,1,1,1\n", "'scor', perhaps you meant 'score'"),
        ("name,template,media\nx,1\n", "row 2: expected 3 cells"),
        ("name,template,media\n", "no row follows"),
        ("name,template,media,score\nx,1,1,high\n", "line 2: 'high' is not a number"),
        ("name,template,media,score\nx,1,1,nan\n", "line 2: 'nan' is not finite"),
        ("name,template,media,subject\nx,1,1,ann\ny,1,2,bob\n", "template 1 has images of two subjects"),
    ],
)
def test_templates_that_say_too_little_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_templates(written(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("7 8 1\n", "1 templates have no images, first '8'"),
        ("7 9 2\n", "pair 1: the label must be 1 or 0, found '2'"),
        ("7 9 x\n", "whole numbers only"),
        ("7 9\n", "no subject column"),
        ("7\n", "expected two templates and a label"),
        ("a,b\n7,9\n", "column same is missing"),
        ("a,b,same,fould\n7,9,1,0\n", "'fould', perhaps you meant 'fold'"),
    ],
)
def test_pairs_that_say_too_little_are_refused(tmp_path: Path, text: str, message: str) -> None:
    t = read_templates(written(tmp_path, IJB))
    with pytest.raises(ValueError, match=message):
        read_template_pairs(written(tmp_path, text, "p.txt"), t)


def test_a_missing_detector_score_is_named(tmp_path: Path) -> None:
    t = read_templates(written(tmp_path, IJB))
    with pytest.raises(ValueError, match=r"no score for 3 images, first '2.jpg'"):
        with_detector_scores(t, written(tmp_path, f"1.jpg {'1 ' * 10}0.9\n"))
    assert np.isfinite(t.template).all()
