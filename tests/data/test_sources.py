"""Raw datasets of each layout give the same records in the same order, and say what they left out."""

import csv
import io
import os
import pickle
import struct
import tarfile
import unicodedata
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastface.data.sources import Names, Source, include_exclude, split_by_identity, subset
from fastface.data.sources.bin import read_bin
from fastface.data.sources.kinds import open_source
from fastface.data.sources.rec import MAGIC
from tests.data.badfiles import encode, photo

JPEG = encode(photo(16, 16))


def fill(root: Path, names: list[str], data: bytes = JPEG) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data + name.encode("utf-8", "surrogateescape"))


def make_tar(path: Path, root: Path, style: int = tarfile.GNU_FORMAT) -> Path:
    with tarfile.open(path, "w", format=style) as tar:
        tar.add(root, arcname=".")
    return path


def names_of(source: Source) -> list[str]:
    return [source.name(i) for i in range(len(source))]


PEOPLE = ["b/2.jpg", "b/1.JPG", "a b/x.png", "a/deep/er/1.jpg", "a/0.webp", "é/1.jpg", "a-c/1.jpg"]
SORTED = ["a/0.webp", "a/deep/er/1.jpg", "a b/x.png", "a-c/1.jpg", "b/1.JPG", "b/2.jpg", "é/1.jpg"]


@pytest.mark.parametrize("style", [None, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_a_folder_and_its_tar_are_the_same_dataset(tmp_path: Path, style: int | None) -> None:
    root = tmp_path / "in"
    fill(root, PEOPLE)
    path = root if style is None else make_tar(tmp_path / "in.tar", root, style)
    source = open_source("folder", path)[""]
    assert names_of(source) == SORTED
    assert source.classes == ["a", "a b", "a-c", "b", "é"]
    assert source.labels.dtype == np.int64
    assert source.labels.tolist() == [0, 0, 1, 2, 3, 3, 4]
    assert source.skipped == []
    again = pickle.loads(pickle.dumps(source))
    for i, name in enumerate(SORTED):
        assert source.read(i) == again.read(i) == JPEG + name.encode()


def test_names_longer_than_a_tar_header_and_names_that_are_not_utf8(tmp_path: Path) -> None:
    root = tmp_path / "in"
    long_name = "p" * 90 + "/" + "x" * 180 + ".jpg"
    raw = os.fsdecode(b"caf\xe9/\xff.jpg")
    fill(root, [long_name, raw])
    for style in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        source = open_source("folder", make_tar(tmp_path / f"{style}.tar", root, style))[""]
        assert names_of(source) == [raw, long_name]
        assert source.read(0).endswith(b"caf\xe9/\xff.jpg")
    source = open_source("folder", root)[""]
    assert names_of(source) == [raw, long_name]
    assert source.read(0).endswith(b"\xff.jpg")


def test_what_a_folder_scan_leaves_out_is_listed(tmp_path: Path) -> None:
    fill(
        tmp_path,
        ["a/1.jpg", "a/.DS_Store", "a/Thumbs.db", "a/note.txt", "loose.jpg", ".git/x.jpg", "a/n\new.jpg"],
    )
    (tmp_path / "empty").mkdir()
    (tmp_path / "only-text").mkdir()
    (tmp_path / "only-text" / "a.txt").write_text("x")
    (tmp_path / "a" / "link.jpg").symlink_to("1.jpg")
    (tmp_path / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "a" / "pipe.jpg")
    source = open_source("folder", tmp_path)[""]
    assert names_of(source) == ["a/1.jpg"]
    assert source.skipped == sorted([
        ("a/.DS_Store", "hidden"), ("a/Thumbs.db", "system-file"), ("a/note.txt", "not-an-image-extension"),
        ("loose.jpg", "outside-a-class-folder"), (".git", "hidden"), ("a/n\new.jpg", "unsafe-name"),
        ("empty", "no-images"), ("only-text", "no-images"), ("only-text/a.txt", "not-an-image-extension"),
        ("a/link.jpg", "link"), ("loop", "link"), ("a/pipe.jpg", "not-a-file"),
    ])  # fmt: skip


def test_a_file_that_became_a_link_is_not_read(tmp_path: Path) -> None:
    fill(tmp_path, ["in/a/1.jpg", "secret"])
    source = open_source("folder", tmp_path / "in")[""]
    (tmp_path / "in/a/1.jpg").unlink()
    (tmp_path / "in/a/1.jpg").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic"):
        source.read(0)


def test_an_empty_folder_says_what_was_expected(tmp_path: Path) -> None:
    fill(tmp_path, ["photo.jpg", "readme.txt"])
    with pytest.raises(ValueError, match=r"PERSON/IMAGE.jpg.*1 outside-a-class-folder.*1 not-an-image-ext"):
        open_source("folder", tmp_path)


def test_train_and_val_folders_are_two_sources(tmp_path: Path) -> None:
    fill(tmp_path, ["train/b/1.jpg", "train/a/1.jpg", "validation/b/2.jpg", "train/x.jpg", "validation/y.txt"])
    sources = open_source("folder", tmp_path)
    assert {split: names_of(source) for split, source in sources.items()} == {
        "train": ["train/a/1.jpg", "train/b/1.jpg"],
        "val": ["validation/b/2.jpg"],
    }
    assert sources["val"].classes == ["b"]
    assert sources["train"].skipped == [("train/x.jpg", "outside-a-class-folder")]
    assert sources["val"].skipped == [("validation/y.txt", "not-an-image-extension")]
    fill(tmp_path, ["Anna/1.jpg"])
    with pytest.raises(ValueError, match="Anna"):
        open_source("folder", tmp_path)


def test_a_person_may_be_called_train(tmp_path: Path) -> None:
    fill(tmp_path, ["train/1.jpg", "val/1.jpg"])
    assert open_source("folder", tmp_path)[""].classes == ["train", "val"]


def test_names_that_look_equal_are_warned_of(tmp_path: Path) -> None:
    fill(tmp_path, [unicodedata.normalize(form, "Zoé") + "/1.jpg" for form in ("NFC", "NFD")])
    with pytest.warns(UserWarning, match="two persons"):
        source = open_source("folder", tmp_path)[""]
    assert len(source.classes) == 2


def test_a_list_reads_boxes_columns_and_labels(tmp_path: Path) -> None:
    fill(tmp_path, ["img/1.jpg", "img/2.jpg"])
    path = tmp_path / "list.csv"
    path.write_text(
        "\ufeffPath,label,x0,y0,x1,y1,age,score\n"
        'img/1.jpg,"Doe, Jane",1,2,9,10,30,0.5\nimg/1.jpg,Bob,1.5,2,9,10,31,1\n\n'
        "img\\2.jpg,Bob,0,0,8,8,32,1e3\n"
    )
    source = open_source("list", path)[""]
    assert names_of(source) == ["img/1.jpg", "img/1.jpg#2", "img/2.jpg"]
    assert source.classes == ["Bob", "Doe, Jane"]
    assert source.labels.tolist() == [1, 0, 0]
    assert source.boxes is not None
    assert source.boxes.dtype == np.float32
    assert source.boxes.tolist() == [[1, 2, 9, 10], [1.5, 2, 9, 10], [0, 0, 8, 8]]
    assert list(source.columns) == ["age", "score"]
    assert source.columns["age"].dtype == np.int64
    assert source.columns["score"].tolist() == [0.5, 1.0, 1000.0]
    assert source.read(1) == source.read(0) == JPEG + b"img/1.jpg"


def test_a_list_needs_no_header_and_takes_a_root(tmp_path: Path) -> None:
    fill(tmp_path / "root", ["1.jpg", "2.jpg"])
    path = tmp_path / "list.csv"
    path.write_text(f"1.jpg,b\n{tmp_path}/root/2.jpg,a\n")
    source = open_source("list", path, root=tmp_path / "root")[""]
    assert source.classes == ["a", "b"]
    assert [source.read(i)[-5:] for i in range(2)] == [b"1.jpg", b"2.jpg"]
    with pytest.raises(ValueError, match="root"):
        open_source("list", path, root=tmp_path / "rooot")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lists no images"),
        ("path,label\n", "lists no images"),
        ("path,lable\n1.jpg,a\n", "no column 'label', perhaps you meant 'lable'"),
        ("1.jpg,a,5\n", "line 1 has 3 columns"),
        ("1.jpg,a\n2.jpg\n", "line 2: 1 columns"),
        ("1.jpg,a\n1.jpg,b\n", "line 2: '1.jpg' was on line 1"),
        ("path,label\n1.jpg,\n", "line 2"),
        ("path,label,age\n1.jpg,a,5\n2.jpg,a,old\n", "line 3: column 'age' is 'old'"),
        ("path,label,age\n1.jpg,a,nan\n", "line 2: column 'age'"),
        ("path,label,x0,y0,x1\n1.jpg,a,1,2,3\n", "x0,y0,x1,y1"),
        ("path,label,x0,y0,x1,y1\n1.jpg,a,1,2,3,x\n", "line 2: column 'y1'"),
        ("path,label,crc32\n1.jpg,a,5\n", "'crc32'"),
        ("path,label,../age\n1.jpg,a,5\n", "plain name"),
        ('path,label\n"1.jpg,a\n', "line"),
        ("path,label\nnone.jpg,a\n", "none of the first 1 paths exists"),
    ],
)
def test_errors_in_a_list_name_the_line(tmp_path: Path, text: str, message: str) -> None:
    fill(tmp_path, ["1.jpg", "2.jpg"])
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(ValueError, match=r"list\.csv") as caught:
        open_source("list", tmp_path / "list.csv")
    assert message in str(caught.value)


def record(label: float | list[float], image: bytes, key: int = 0) -> bytes:
    """Pack an image record as MXNet does."""
    if isinstance(label, list):
        head = struct.pack("<IfQQ", len(label), 0, key, 0) + struct.pack(f"<{len(label)}f", *label)
    else:
        head = struct.pack("<IfQQ", 0, label, key, 0)
    return head + image


def write_rec(path: Path, contents: list[bytes], index: bool = True) -> Path:
    """Write RecordIO, cutting content where it holds the magic at a multiple of 4 bytes."""
    out, lines, magic = bytearray(), [], struct.pack("<I", MAGIC)
    for key, content in enumerate(contents):
        lines.append(f"{key}\t{len(out)}\n")
        cuts = [k for k in range(0, len(content) - 3, 4) if content[k : k + 4] == magic]
        edges = [(a, b) for a, b in zip([0, *(k + 4 for k in cuts)], [*cuts, len(content)], strict=True)]
        for k, (first, last) in enumerate(edges):
            flag = 0 if len(edges) == 1 else 1 if k == 0 else 3 if k == len(edges) - 1 else 2
            out += magic + struct.pack("<I", flag << 29 | last - first) + content[first:last]
            out += bytes(-len(out) % 4)
    path.write_bytes(out)
    if index:
        path.with_suffix(".idx").write_text("".join(lines))
    return path


@pytest.mark.parametrize("index", [True, False])
def test_records_without_a_header_are_all_images(tmp_path: Path, index: bool) -> None:
    images = [bytes([k]) * (10 + k) for k in range(1, 13)]
    labels = [float(k % 3 * 50) for k in range(12)]
    contents = [record([label, 7.0] if k % 2 else label, images[k]) for k, label in enumerate(labels)]
    write_rec(tmp_path / "train.rec", contents, index)
    source = open_source("rec", tmp_path)[""]
    assert source.classes == ["000", "050", "100"]
    assert source.labels.tolist() == [0, 1, 2] * 4
    assert names_of(source)[11] == "train.rec:11"
    again = pickle.loads(pickle.dumps(source))
    assert [again.read(i) for i in range(12)] == [source.read(i) for i in range(12)] == images


@pytest.mark.parametrize("index", [True, False])
def test_the_header_record_and_identity_ranges_are_no_images(tmp_path: Path, index: bool) -> None:
    images = [record(float(k // 2), b"image%d" % k) for k in range(4)]
    ranges = [record([1.0, 3.0], b""), record([3.0, 5.0], b"")]
    path = write_rec(tmp_path / "faces.rec", [record([5.0, 7.0], b""), *images, *ranges], index)
    source = open_source("rec", path)[""]
    assert names_of(source) == [f"faces.rec:{k}" for k in range(1, 5)]
    assert [source.read(i) for i in range(4)] == [b"image%d" % k for k in range(4)]
    assert source.classes == ["0", "1"]
    assert source.skipped == []


@pytest.mark.parametrize("index", [True, False])
def test_records_that_hold_the_magic_are_joined(tmp_path: Path, index: bool) -> None:
    magic = struct.pack("<I", MAGIC)
    images = [b"ab12" + magic + b"cd34" + magic + magic + b"e", magic, b"x" + magic + b"yz"]
    path = write_rec(tmp_path / "a.rec", [record(1.0, image) for image in images], index)
    assert open_source("rec", path)[""].read(0) == images[0]
    assert [open_source("rec", path)[""].read(i) for i in range(3)] == images


def test_an_index_in_any_order_gives_the_order_of_keys(tmp_path: Path) -> None:
    path = write_rec(tmp_path / "a.rec", [record(float(k), b"im%d" % k) for k in range(5)])
    lines = path.with_suffix(".idx").read_text().splitlines()
    path.with_suffix(".idx").write_text("\n".join(lines[::-1]))
    assert [open_source("rec", path)[""].read(i) for i in range(5)] == [b"im%d" % k for k in range(5)]
    path.with_suffix(".idx").write_text("\n".join(lines[:3]))
    with pytest.warns(UserWarning, match="leaves out 72 of 180 bytes"):
        assert len(open_source("rec", path)[""]) == 3


def test_records_without_an_image_are_listed(tmp_path: Path) -> None:
    path = write_rec(tmp_path / "a.rec", [record(0.0, b"image"), record(1.0, b"")])
    source = open_source("rec", path)[""]
    assert (len(source), source.classes, source.skipped) == (1, ["0"], [("a.rec:1", "empty-file")])


@pytest.mark.parametrize("label", [-1.0, 0.5, float(1 << 24), float("nan"), float("inf")])
def test_labels_that_float32_cannot_hold_are_refused(tmp_path: Path, label: float) -> None:
    path = write_rec(tmp_path / "a.rec", [record(0.0, b"x"), record(label, b"x")])
    with pytest.raises(ValueError, match=r"record 1: label"):
        open_source("rec", path)


def write_bin(path: Path, images: list, same: list, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps((images, same), protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", ["bytes", "array", "column"])
def test_pair_files_of_every_protocol_and_kind(tmp_path: Path, protocol: int, kind: str) -> None:
    blobs = [JPEG + bytes([k]) for k in range(6)]
    arrays = [np.frombuffer(blob, np.uint8).copy() for blob in blobs]
    images = {"bytes": blobs, "array": arrays, "column": [a[:, None] for a in arrays]}[kind]
    for same in ([True, False, True], [np.bool_(True), np.bool_(False), np.bool_(True)], [1, 0, 1]):
        found, flags = read_bin(write_bin(tmp_path / "a.bin", images, same, protocol))
        assert found == blobs
        assert flags.dtype == bool
        assert flags.tolist() == [True, False, True]
    np_flags = np.array([True, False, True])
    (tmp_path / "b.bin").write_bytes(pickle.dumps((images, np_flags), protocol=protocol))
    assert read_bin(tmp_path / "b.bin")[1].tolist() == [True, False, True]


def test_pair_files_of_python_2(tmp_path: Path) -> None:
    """Protocol 2 as Python 2 wrote it: images are BINSTRING, the list of flags NEWTRUE and NEWFALSE."""
    blobs = [JPEG, b"\xff\x00'\n\\"]
    body = b"".join(b"T" + struct.pack("<i", len(blob)) + blob + b"q" + bytes([k + 2]) for k, blob in enumerate(blobs))
    data = b"\x80\x02]q\x01(" + body + b"e]q\x09(\x88e\x86q\x0a."
    assert pickle.loads(data, encoding="bytes") == (blobs, [True])  # the file is what it claims to be
    (tmp_path / "py2.bin").write_bytes(data)
    found, same = read_bin(tmp_path / "py2.bin")
    assert (found, same.tolist()) == (blobs, [True])


def test_a_pair_file_is_an_ordered_source_with_ten_folds(tmp_path: Path) -> None:
    images = [JPEG + bytes([k]) for k in range(46)]
    same = [k % 2 == 0 for k in range(23)]
    source = open_source("bin", write_bin(tmp_path / "a.bin", images, same))[""]
    assert source.ordered
    assert source.classes == sorted(source.classes)
    assert source.classes[22] == "pair-000022"
    assert source.labels.tolist() == [k // 2 for k in range(46)]
    assert source.columns["same"].tolist() == [int(same[k // 2]) for k in range(46)]
    assert source.columns["same"].dtype == np.int8
    assert [source.read(i) for i in range(46)] == images
    folds = [fold for fold in range(10) for _ in range(3 if fold < 3 else 2)]  # the first folds take the rest
    assert source.pairs == [(f"{2 * i:09d}", f"{2 * i + 1:09d}", same[i], folds[i]) for i in range(23)]


def test_subset_renumbers_classes_and_composes(tmp_path: Path) -> None:
    fill(tmp_path, [f"{person}/{k}.jpg" for person in "abcd" for k in range(3)])
    source = open_source("folder", tmp_path)[""]
    part = subset(source, np.array([10, 0, 4, 9]))
    assert names_of(part) == ["d/1.jpg", "a/0.jpg", "b/1.jpg", "d/0.jpg"]
    assert part.classes == ["a", "b", "d"]
    assert part.labels.tolist() == [2, 0, 1, 2]
    deeper = pickle.loads(pickle.dumps(subset(part, np.array([True, False, False, True]))))
    assert (names_of(deeper), deeper.classes) == (["d/1.jpg", "d/0.jpg"], ["d"])
    assert deeper.read(1) == JPEG + b"d/0.jpg"
    with pytest.raises(ValueError, match=r"0\.\.11"):
        subset(source, np.array([12]))


def test_subset_keeps_columns_boxes_and_whole_pairs(tmp_path: Path) -> None:
    source = open_source("bin", write_bin(tmp_path / "a.bin", [JPEG] * 8, [True, False, True, False]))[""]
    part = subset(source, np.array([2, 3, 4, 6, 7]))
    assert part.columns["same"].tolist() == [0, 0, 1, 0, 0]
    assert part.pairs == [("000000002", "000000003", False, 1), ("000000006", "000000007", False, 3)]
    assert part.ordered
    assert part.boxes is None


def test_include_and_exclude(tmp_path: Path) -> None:
    fill(tmp_path / "in", [f"{person}/1.jpg" for person in ("Ann", "Bob", "Cy", "12")])
    source = open_source("folder", tmp_path / "in")[""]
    wanted, unwanted = tmp_path / "wanted.txt", tmp_path / "unwanted.txt"
    wanted.write_text("3\nBob\t4\nCy\t1\nAnn\n\n")
    unwanted.write_text("Cy\r\n")
    assert include_exclude(source, wanted, None).classes == ["Ann", "Bob", "Cy"]
    assert include_exclude(source, wanted, unwanted).classes == ["Ann", "Bob"]
    assert include_exclude(source, None, unwanted).classes == ["12", "Ann", "Bob"]
    assert include_exclude(source, None, None) is source
    wanted.write_text("12\nBob\n")
    assert include_exclude(source, wanted, None).classes == ["12", "Bob"]
    wanted.write_text("Bop\nCy\n")
    with pytest.raises(ValueError, match=r"1 of 2 names .* 'Bop', perhaps you meant 'Bob'"):
        include_exclude(source, wanted, None)
    wanted.write_text("Cy\n")
    with pytest.raises(ValueError, match="no class is left"):
        include_exclude(source, wanted, unwanted)


def test_exclude_takes_a_csv_of_images(tmp_path: Path) -> None:
    odd = os.fsdecode(b"Ann/\xff,2.jpg")  # no UTF-8, and a comma
    fill(tmp_path / "in", ["Ann/1.jpg", odd, "Bob/1.jpg", "Cy/1.jpg", "Cy/2.jpg"])
    source = open_source("folder", tmp_path / "in")[""]
    unwanted, wanted = tmp_path / "exclude.csv", tmp_path / "wanted.txt"

    def write(*names: str) -> None:
        with open(unwanted, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            csv.writer(file).writerows([["kind", "image"], *(["duplicate", name] for name in names)])

    write(odd, "Bob/1.jpg")
    kept = include_exclude(source, None, unwanted)
    assert [kept.name(i) for i in range(len(kept))] == ["Ann/1.jpg", "Cy/1.jpg", "Cy/2.jpg"]
    assert kept.classes == ["Ann", "Cy"]
    assert kept.labels.tolist() == [0, 1, 1]
    assert sorted(kept.skipped) == [(odd, "excluded"), ("Bob/1.jpg", "excluded")]
    wanted.write_text("Cy\n")
    assert include_exclude(source, wanted, unwanted).classes == ["Cy"]
    write()
    assert include_exclude(source, None, unwanted) is source
    write("Ann/1.jpg", "Cy/3.jpg")
    with pytest.raises(ValueError, match=r"1 of 2 images are not in the input, first 'Cy/3.jpg', perhaps you meant"):
        include_exclude(source, None, unwanted)
    write("Ann/1.jpg", odd, "Bob/1.jpg", "Cy/1.jpg", "Cy/2.jpg")
    with pytest.raises(ValueError, match="no image is left"):
        include_exclude(source, None, unwanted)


def test_split_by_identity_depends_on_names_and_seed_alone(tmp_path: Path) -> None:
    fill(tmp_path, [f"p{k:02d}/{j}.jpg" for k in range(20) for j in range(2)])
    source = open_source("folder", tmp_path)[""]
    parts = split_by_identity(source, {"train": 0.7, "val": 0.2, "test": 0.1}, seed=5)
    assert [len(part.classes) for part in parts.values()] == [14, 4, 2]
    assert sorted(name for part in parts.values() for name in part.classes) == source.classes
    assert sorted(name for part in parts.values() for name in names_of(part)) == names_of(source)
    order = sorted(source.classes, key=lambda name: blake2b(f"5:{name}".encode(), digest_size=16).hexdigest())
    assert parts["train"].classes == sorted(order[:14])
    assert parts["test"].classes == sorted(order[18:]) == ["p05", "p08"]
    backwards = split_by_identity(subset(source, np.arange(40)[::-1]), {"train": 0.7, "val": 0.2, "test": 0.1}, seed=5)
    assert all(backwards[name].classes == part.classes for name, part in parts.items())
    other = split_by_identity(source, {"train": 0.7, "val": 0.3}, seed=6)
    assert other["train"].classes != split_by_identity(source, {"train": 0.7, "val": 0.3}, seed=5)["train"].classes
    images = split_by_identity(source, {"a": 0.5, "b": 0.5}, seed=1, by="image")
    assert [len(part) for part in images.values()] == [20, 20]
    assert sorted(name for part in images.values() for name in names_of(part)) == names_of(source)


@pytest.mark.parametrize(
    ("fractions", "by", "message"),
    [
        ({"train": 0.9, "val": 0.2}, "identity", "sum to 1"),
        ({"train": 1.5, "val": -0.5}, "identity", "positive"),
        ({}, "identity", "sum to 1"),
        ({"train": 0.5, "val": 0.5}, "images", "perhaps you meant 'image'"),
        ({"train": 0.99, "val": 0.01}, "identity", "'val'"),
    ],
)
def test_impossible_splits_are_refused(tmp_path: Path, fractions: dict, by: str, message: str) -> None:
    fill(tmp_path, [f"{k}/1.jpg" for k in range(3)])
    with pytest.raises(ValueError, match=message):
        split_by_identity(open_source("folder", tmp_path)[""], fractions, 0, by)


def test_unknown_kinds_and_paths_name_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "faces").mkdir()
    with pytest.raises(ValueError, match="perhaps you meant 'folder'; kinds: folder, list, rec, bin"):
        open_source("foldr", tmp_path)
    with pytest.raises(ValueError, match="perhaps you meant 'faces'"):
        open_source("folder", tmp_path / "face")
    with pytest.raises(ValueError, match="kind list only"):
        open_source("folder", tmp_path, root=tmp_path)


def test_names_come_back_as_they_went_in() -> None:
    names = ["", "a", "é/ü.jpg", os.fsdecode(b"\xff\xfe.jpg"), "z" * 5000]
    packed = pickle.loads(pickle.dumps(Names(iter(names))))
    assert [packed[i] for i in range(len(packed))] == names
    with pytest.raises(IndexError):
        packed[5]


def test_lfw(data: Path) -> None:
    source = open_source("folder", data / "lfw" / "images.tar")[""]
    assert (len(source), len(source.classes)) == (13_233, 5_749)
    assert source.skipped == [(".DS_Store", "hidden")]
    assert (np.bincount(source.labels) >= 2).sum() == 1_680
    with tarfile.open(data / "lfw" / "images.tar") as tar:
        for i in (0, 5000, 13_232):
            member = tar.extractfile("./" + source.name(i))
            assert member is not None
            assert source.read(i) == member.read()
    training = include_exclude(source, data / "lfw" / "peopleDevTrain.txt", None)
    testing = include_exclude(source, data / "lfw" / "peopleDevTest.txt", None)
    assert (len(training), len(training.classes)) == (9_525, 4_038)
    assert (len(testing), len(testing.classes)) == (3_708, 1_711)
    assert not set(training.classes) & set(testing.classes)


def test_real_records(data: Path) -> None:
    source = open_source("rec", data / "records" / "train.rec")[""]
    assert (len(source), source.classes) == (8, ["0", "1"])
    assert source.labels.tolist() == [0] * 4 + [1] * 4
    raw = (data / "records" / "train.rec").read_bytes()
    for i in range(8):
        image = source.read(i)
        assert image[:2] == b"\xff\xd8"
        assert image in raw


def test_real_pairs(data: Path) -> None:
    source = open_source("bin", data / "records" / "small_lfw.bin")[""]
    assert len(source) == 20
    assert source.pairs is not None
    assert len(source.pairs) == 10
    assert {Image.open(io.BytesIO(source.read(i))).size for i in range(20)} == {(112, 112)}
