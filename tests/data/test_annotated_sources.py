"""WIDER FACE, CelebA, VGGFace2 and lists with landmarks: boxes and points reach the index, bad ones are told."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from fastface.conversion.check import check
from fastface.conversion.convert import convert
from fastface.conversion.options import Options
from fastface.data.images import ImageSpec
from fastface.data.index import Index
from fastface.data.sources.kinds import open_source
from fastface.data.sources.widerface import read_boxes
from tests.data.badfiles import encode, photo
from tests.data.test_sources import fill, make_tar, names_of

WIDER = """0--Parade/a.jpg
2
10 12 20 24 0 1 0 0 2 1
50 60 100 100 2 0 1 1 0 0
0--Parade/empty.jpg
0
0 0 0 0 0 0 0 0 0 0
9--Press/b.jpg
3
5 5 0 9 0 0 0 0 0 0
300 5 9 9 0 0 0 0 0 0
0 0 96 112 1 1 1 1 1 1
9--Press/gone.jpg
1
1 1 2 2 0 0 0 0 0 0
"""


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def wider(tmp_path: Path) -> Path:
    root = tmp_path / "WIDER_val"
    fill(root / "images", ["0--Parade/a.jpg", "0--Parade/empty.jpg", "9--Press/b.jpg", "9--Press/extra.jpg"], PICTURE)
    write(tmp_path / "wider_face_split" / "wider_face_val_bbx_gt.txt", WIDER)
    return root


PICTURE = encode(photo(96, 112))
PARTS = ("lefteye", "righteye", "nose", "leftmouth", "rightmouth")


@pytest.mark.parametrize("as_tar", [False, True])
def test_wider_keeps_all_boxes_of_whole_images(tmp_path: Path, wider: Path, as_tar: bool) -> None:
    path = make_tar(tmp_path / "WIDER_val.tar", wider) if as_tar else wider
    report = convert(Options("widerface", path, tmp_path / "set", shuffle=False, workers=1))
    index = Index.open(tmp_path / "set")
    assert [index.name(i) for i in range(3)] == [
        f"images/{n}" for n in ("0--Parade/a.jpg", "0--Parade/empty.jpg", "9--Press/b.jpg")
    ]
    assert index.classes == ["0--Parade", "9--Press"]
    assert index.columns["boxes_start"].tolist() == [0, 2, 2, 3]
    assert index.columns["boxes"].tolist() == [[10, 12, 30, 36], [50, 60, 96, 112], [0, 0, 96, 112]]
    assert index.columns["boxes"].dtype == np.float32
    assert [index.columns[f"boxes_{n}"].tolist() for n in ("blur", "expression", "illumination")] == [
        [0, 2, 1], [1, 0, 1], [0, 1, 1],
    ]  # fmt: skip
    assert [index.columns[f"boxes_{n}"].tolist() for n in ("invalid", "occlusion", "pose")] == [
        [0, 1, 1], [2, 0, 1], [1, 0, 1],
    ]  # fmt: skip
    assert index.meta["faces"] == {"box-clipped": 1, "box-empty": 1, "box-outside": 1, "boxes": 3}
    assert "boxes and landmarks: box-clipped 1, box-empty 1, box-outside 1, boxes 3" in str(report)
    with open(tmp_path / "set" / "rejects.csv", newline="") as file:
        rows = {(path, reason): detail for path, reason, detail in list(csv.reader(file))[1:]}
    assert rows["images/9--Press/b.jpg", "box-empty"].startswith("box 1 of 3, 5 5 5 14: ")
    assert rows["images/9--Press/b.jpg", "box-outside"].startswith("box 2 of 3, 300 5 309 14: ")
    assert ("images/9--Press/extra.jpg", "not-annotated") in rows
    assert ("9--Press/gone.jpg", "image-missing") in rows
    assert check(tmp_path / "set", workers=1, decode=True, show=str) == []


def test_wider_boxes_follow_resize_split_and_subset(tmp_path: Path, wider: Path) -> None:
    spec = ImageSpec(size=(48, 56))
    convert(Options("widerface", wider, tmp_path / "set", spec, workers=1, split={"a": 0.5, "b": 0.5}))
    found = {}
    for name in ("a", "b"):
        index = Index.open(tmp_path / "set" / name)
        assert check(index.path, workers=1, show=str) == []
        for i in range(len(index)):
            first, last = index.columns["boxes_start"][i : i + 2]
            found[index.name(i).split("/")[-1]] = index.columns["boxes"][first:last].tolist()
    assert found == {"a.jpg": [[5, 6, 15, 18], [25, 30, 48, 56]], "empty.jpg": [], "b.jpg": [[0, 0, 48, 56]]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0--P/a.jpg\nx\n", "line 2: 'x' is no number of faces"),
        ("0--P/a.jpg\n", "line 2: '' is no number of faces"),
        ("0--P/a.jpg\n2\n1 2 3 4 0 0 0 0 0 0\n", "line 4: expected x y w h"),
        ("0--P/a.jpg\n1\n1 2 3 4 0 0 0 0 0\n", "line 3: expected x y w h"),
        ("0--P/a.jpg\n1\n1 2 3 4 0 0 0 0 0 z\n", "line 3: expected x y w h"),
        ("0--P/a.jpg\n1\n1 2 3 99999999999999999999 0 0 0 0 0 0\n", "line 3: expected x y w h"),
        ("0--P/a.jpg\n0\n1 0 0 0 0 0 0 0 0 0\n", "line 3: expected a line of zeros"),
        ("a.jpg\n0\n", "line 1: 'a.jpg' is no EVENT/IMAGE.jpg"),
        ("0--P/a.jpg\n99999999\n", "line 2: '99999999' is no number"),
        ("0--P/a.jpg\n0\n0 0 0 0 0 0 0 0 0 0\n0--P/a.jpg\n0\n", "line 4: '0--P/a.jpg' is no EVENT"),
    ],
)
def test_a_damaged_wider_list_names_the_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"gt\.txt") as caught:
        list(read_boxes(write(tmp_path / "gt.txt", text)))
    assert message in str(caught.value)


def test_wider_without_its_list_or_images_says_so(tmp_path: Path, wider: Path) -> None:
    with pytest.raises(ValueError, match="none of the 1 images"):
        open_source("widerface", wider, annotations=write(tmp_path / "x.txt", "7--No/z.jpg\n1\n1 1 2 2 0 0 0 0 0 0\n"))
    (tmp_path / "wider_face_split" / "wider_face_val_bbx_gt.txt").unlink()
    with pytest.raises(ValueError, match="found none; say with --annotations"):
        open_source("widerface", wider)
    with pytest.raises(ValueError, match="annotations is for kind widerface only"):
        open_source("folder", wider, annotations=wider)


def celeba(root: Path, folder: str) -> Path:
    fill(root / folder, [f"00000{k}.jpg" for k in range(1, 6)], PICTURE)
    write(root / "Anno/identity_CelebA.txt", "".join(f"00000{k}.jpg {k % 2 + 7}\n" for k in range(1, 5)))
    write(root / "Eval/list_eval_partition.txt", "".join(f"00000{k}.jpg {int(k > 3)}\n" for k in range(1, 6)))
    rows = "".join(f"00000{k}.jpg  {' '.join(str(10 * k + v) for v in range(10))}\n" for k in range(1, 6))
    header = (
        "5\nlefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x rightmouth_y\n"
    )
    write(root / "Anno/list_landmarks_align_celeba.txt", header + rows)
    write(root / "Anno/list_landmarks_celeba.txt", header + rows)
    boxes = "".join(f"00000{k}.jpg  {k} 2 30 40\n" for k in range(1, 6))
    write(root / "Anno/list_bbox_celeba.txt", "5\nimage_id x_1 y_1 width height\n" + boxes)
    return root


@pytest.mark.parametrize("folder", ["img_align_celeba", "img_celeba"])
def test_celeba_gives_identities_splits_landmarks_and_boxes_of_the_right_pixels(tmp_path: Path, folder: str) -> None:
    report = convert(
        Options("celeba", celeba(tmp_path / "in", folder), tmp_path / "set", ImageSpec((48, 56)), workers=1)
    )
    train, val = (Index.open(tmp_path / "set" / name) for name in ("train", "val"))
    assert sorted(train.name(i) for i in range(len(train))) == ["000001.jpg", "000002.jpg", "000003.jpg"]
    assert val.name(0) == "000004.jpg"
    assert (train.classes, val.classes) == (["7", "8"], ["7"])
    i = int(train.find(["000003.jpg"])[0])
    assert train.columns["landmarks"][i].tolist() == [(30 + v) / 2 for v in range(10)]
    assert ("boxes" in train.columns) == (folder == "img_celeba")
    if folder == "img_celeba":
        assert train.columns["boxes"][i].tolist() == [1.5, 1, 16.5, 21]
    assert "1 identities are in both train and val: 7" in str(report)
    assert "000005.jpg,no-identity" in (tmp_path / "set" / "rejects.csv").read_text()
    assert check(tmp_path / "set", workers=1, show=str) == []


def test_celeba_without_lists_or_with_holes_says_what_is_missing(tmp_path: Path) -> None:
    root = celeba(tmp_path / "in", "img_align_celeba")
    (root / "Eval/list_eval_partition.txt").write_text("000001.jpg 0\n")
    with pytest.raises(ValueError, match=r"no line for 3 images, the first is 000002.jpg"):
        open_source("celeba", root)
    (root / "Eval/list_eval_partition.txt").unlink()
    assert list(open_source("celeba", root)) == [""]
    (root / "Anno/identity_CelebA.txt").unlink()
    with pytest.raises(ValueError, match=r"no identity_CelebA\.txt"):
        open_source("celeba", root)
    with pytest.raises(ValueError, match="must hold img_align_celeba or img_celeba"):
        open_source("celeba", tmp_path)


def test_vggface2_adds_loose_boxes_and_landmarks_to_folder(tmp_path: Path) -> None:
    fill(
        tmp_path / "in", ["train/n000002/0001_01.jpg", "train/n000003/0002_01.jpg", "test/n000001/0001_01.jpg"], PICTURE
    )
    write(
        tmp_path / "in/bb_landmark/loose_bb_train.csv",
        'NAME_ID,X,Y,W,H\n"n000002/0001_01",1,2,30,40\nn000003/0002_01,-4,5,6,7\n',
    )
    points = ",".join(str(v) for v in range(10))
    write(
        tmp_path / "in/bb_landmark/loose_landmark_train.csv",
        f"NAME_ID,P1X,P1Y,P2X,P2Y,P3X,P3Y,P4X,P4Y,P5X,P5Y\nn000002/0001_01,{points}\nn000003/0002_01,{points}\n",
    )
    sources = open_source("vggface2", tmp_path / "in")
    train, test = sources["train"], sources["test"]
    assert train.classes == ["n000002", "n000003"]
    assert train.boxes is not None
    assert train.boxes.tolist() == [[1, 2, 31, 42], [-4, 5, 2, 12]]
    assert train.landmarks is not None
    assert train.landmarks[0].tolist() == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert (test.boxes, test.landmarks) == (None, None)
    convert(Options("vggface2", tmp_path / "in", tmp_path / "set", boxes=False, workers=1))
    assert check(tmp_path / "set", workers=1, show=str) == []


def test_casia_and_lfw_are_read_as_folders(tmp_path: Path) -> None:
    fill(tmp_path, ["0000045/001.jpg", "0000045/002.jpg", "0000099/001.jpg", "Aaron_Eckhart/Aaron_Eckhart_0001.jpg"])
    source = open_source("folder", tmp_path)[""]
    assert source.classes == ["0000045", "0000099", "Aaron_Eckhart"]
    assert names_of(source)[0] == "0000045/001.jpg"


def test_a_list_carries_landmarks_and_its_boxes_into_the_index(tmp_path: Path) -> None:
    fill(tmp_path, ["1.jpg", "2.jpg"], PICTURE)
    points = [f"l{axis}{k}" for k in range(5) for axis in "xy"]
    header = "path,label,x0,y0,x1,y1," + ",".join(points)
    rows = [f"{n}.jpg,p,12,8,60,64," + ",".join(str(10 * n + v) for v in range(10)) for n in (1, 2)]
    write(tmp_path / "in.csv", "\n".join([header, *rows]))
    run = {"workers": 1, "shuffle": False}
    convert(Options("list", tmp_path / "in.csv", tmp_path / "set", **run))
    index = Index.open(tmp_path / "set")
    assert index.columns["boxes"].tolist() == [[12, 8, 60, 64]] * 2
    assert index.columns["landmarks"].tolist() == [[10 * n + v for v in range(10)] for n in (1, 2)]
    convert(Options("list", tmp_path / "in.csv", tmp_path / "cut", ImageSpec((24, 28)), boxes=True, **run))
    index = Index.open(tmp_path / "cut")
    assert index.columns["boxes"].tolist() == [[0, 0, 24, 28]] * 2
    assert index.columns["landmarks"][1].tolist() == [(20 + v - (8 if v % 2 else 12)) / 2 for v in range(10)]
    assert index.meta["faces"] == {"boxes": 2, "landmarks": 1, "landmarks-outside": 1}
    write(tmp_path / "bad.csv", "path,label,lx0\n1.jpg,p,1\n")
    with pytest.raises(ValueError, match="landmark columns must be all of lx0,ly0"):
        open_source("list", tmp_path / "bad.csv")


def test_real_wider(tmp_path: Path, data: Path) -> None:
    for split, images, faces in (("train", 150, 881), ("val", 70, 1400)):
        convert(Options("widerface", data / "wider" / f"WIDER_{split}.tar", tmp_path / split, workers=1))
        index = Index.open(tmp_path / split)
        assert len(index) == images
        assert sum(index.meta["faces"][key] for key in index.meta["faces"] if key != "box-clipped") == faces
        assert check(tmp_path / split, workers=1, show=str) == []
