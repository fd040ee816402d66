"""Conversion: the same bytes however it is run, nothing lost without a word, and nothing half done."""

from __future__ import annotations

import csv
import errno
import hashlib
import itertools
import os
import subprocess
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fastface.conversion.check import check
from fastface.conversion.convert import convert
from fastface.conversion.join import DataError
from fastface.conversion.options import Options
from fastface.conversion.order import auto_shard_size, parse_split, shuffled
from fastface.conversion.partial import Partial, StorageError
from fastface.data.images import ImageSpec, prepare
from fastface.data.index import Index
from fastface.data.shards import ShardReader
from fastface.data.sources import Source
from tests.data.badfiles import write_bad_files, write_odd_but_good
from tests.data.shard_sets import face, make_set, raw_bytes, tree, write_folder


class ListSource(Source):
    """A source held in memory; what is no bytes is raised by read, or called."""

    def __init__(self, images: list, labels: list[int] | None = None) -> None:
        labels = labels or [0] * len(images)
        self.images = images
        super().__init__([f"c{i:02d}" for i in range(max(labels) + 1)], np.array(labels, np.int64))

    def name(self, i: int) -> str:
        return f"image:{i}"

    def read(self, i: int) -> bytes:
        image = self.images[i]() if callable(self.images[i]) else self.images[i]
        if isinstance(image, Exception):
            raise image
        return image


def options(tmp_path: Path, **more) -> Options:
    return Options("list", tmp_path / "in.csv", tmp_path / "set", **{"shard_size": 8, "workers": 1, **more})


def rejects(path: Path) -> list[list[str]]:
    with open(path / "rejects.csv", newline="") as file:
        return list(csv.reader(file))[1:]


# The order and the bytes


def test_order_is_a_permutation_that_no_library_can_change() -> None:
    assert shuffled(10, 0).tolist() == [5, 4, 9, 8, 1, 2, 3, 7, 0, 6]
    start = int.from_bytes(hashlib.blake2b(b"77", digest_size=8).digest(), "little")
    assert shuffled(500, 77).tolist() == sorted(range(500), key=lambda i: splitmix64(start, i))
    for size in (1, 2, 1000, 65537):
        assert np.array_equal(np.sort(shuffled(size, 7)), np.arange(size))
    assert shuffled(1000, 1).tolist() != shuffled(1000, 2).tolist()
    displaced = np.abs(shuffled(10_000, 3) - np.arange(10_000)).mean()
    assert 3200 < displaced < 3460  # a third of the size on average: the whole dataset is mixed


def splitmix64(start: int, i: int) -> int:
    z = (i * 0x9E3779B97F4A7C15 + start) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


@pytest.mark.parametrize(("size", "expected"), [(1, 256), (20_000, 313), (64 * 5000, 5000), (10**7, 10_000)])
def test_shard_size_follows_the_dataset(size: int, expected: int) -> None:
    assert auto_shard_size(size) == expected


def test_records_are_the_files_in_shuffled_order(tmp_path: Path) -> None:
    index = Index.open(make_set(tmp_path))
    files = sorted(str(path.relative_to(tmp_path / "raw")) for path in (tmp_path / "raw").rglob("*.jpg"))
    assert [index.name(i) for i in range(30)] == [files[i] for i in shuffled(30, 0)]
    assert [bytes(view) for view in ShardReader(index).views(np.arange(30))] == raw_bytes(index, tmp_path / "raw")
    kept = Index.open(make_set(tmp_path / "b", shuffle=False))
    assert [kept.name(i) for i in range(30)] == files


@pytest.mark.parametrize("spec", [ImageSpec(), ImageSpec(size=(24, 24), crop=0.8)])
def test_bytes_are_the_same_for_any_number_of_workers(tmp_path: Path, spec: ImageSpec) -> None:
    one = make_set(tmp_path / "a", spec=spec)
    two = make_set(tmp_path / "b", spec=spec, workers=2)
    assert tree(one) == tree(two)
    assert tree(one) != tree(make_set(tmp_path / "c", spec=spec, seed=1))


def test_parts_and_join_make_the_bytes_of_one_run(tmp_path: Path) -> None:
    whole = make_set(tmp_path / "a", people=7, split={"train": 0.7, "val": 0.3})
    raw = write_folder(tmp_path / "b" / "raw", people=7)
    run = {"spec": ImageSpec(), "split": {"train": 0.7, "val": 0.3}, "shard_size": 8, "workers": 1}
    out = tmp_path / "b" / "set"
    report = convert(Options("folder", raw, out, part=(1, 2), **run))
    assert "part 1/2" in str(report)
    assert not out.exists()
    with pytest.raises(ValueError, match=r"--join: 3 of 6 shards are not made yet, the first is 0"):
        convert(Options("folder", raw, out, join=True, **run))
    convert(Options("folder", raw, out, part=(0, 2), **run))
    report = convert(Options("folder", raw, out, join=True, **run))
    assert (report.made, report.reused) == (0, 6)
    assert tree(out) == tree(whole)


def test_what_is_asked_is_what_is_stored(tmp_path: Path) -> None:
    spec = ImageSpec(size=(20, 24), crop=0.75, quality=80)
    index = Index.open(make_set(tmp_path, spec=spec))
    assert index.image_size == (20, 24)
    reader = ShardReader(index, check_crc=True)
    for i, data in enumerate(raw_bytes(index, tmp_path / "raw")):
        assert bytes(reader.view(i)) == prepare(data, spec).data
    assert index.meta["options"]["crop"] == 0.75
    assert not index.columns["kept"].any()


def test_lossless_members_are_png(tmp_path: Path) -> None:
    path = make_set(tmp_path, people=1, images=2, spec=ImageSpec(lossless=True))
    with tarfile.open(path / "shard-000000.tar") as tar:
        assert [name.split(".")[1] for name in tar.getnames()] == ["png", "cls"] * 2
    assert check(path, decode=True, workers=1, show=lambda line: None) == []


def test_boxes_crop_each_image(tmp_path: Path) -> None:
    images = [face(i, 0, 48, 48) for i in range(3)]
    source = ListSource(images)
    with pytest.raises(ValueError, match=r"--crop box: .* has no boxes"):
        convert(options(tmp_path, boxes=True), {"": source})
    source.boxes = np.array([[0, 0, 20, 30], [10, 10, 40, 40], [5, 5, 48, 48]], np.float32)
    convert(options(tmp_path, boxes=True, shuffle=False), {"": source})
    index = Index.open(tmp_path / "set")
    assert list(zip(index.columns["width"], index.columns["height"], strict=True)) == [
        (20, 30),
        (30, 30),
        (43, 43),
    ]


def test_columns_of_the_source_follow_their_records(tmp_path: Path) -> None:
    source = ListSource([face(i, 0) for i in range(20)])
    source.columns = {"camera": np.arange(20, dtype=np.int16)}
    source.images[3] = b""
    convert(options(tmp_path), {"": source})
    index = Index.open(tmp_path / "set")
    assert [f"image:{camera}" for camera in index.columns["camera"]] == [index.name(i) for i in range(19)]
    source.columns = {"offset": np.arange(20)}
    with pytest.raises(ValueError, match="cannot add a column 'offset'"):
        convert(Options("list", tmp_path / "in.csv", tmp_path / "other"), {"": source})


# Nothing is lost without a word


def test_bad_files_are_left_out_each_with_its_reason(tmp_path: Path) -> None:
    expected = write_bad_files(tmp_path / "raw" / "person")
    good = write_odd_but_good(tmp_path / "raw" / "person")
    report = convert(Options("folder", tmp_path / "raw", tmp_path / "set", spec=ImageSpec(size=(112, 112)), workers=2))
    index = Index.open(tmp_path / "set")
    assert sorted(index.name(i) for i in range(len(index))) == [f"person/{name}" for name in good]
    listed = {path: reason for path, reason, _ in rejects(tmp_path / "set")}
    assert listed == {f"person/{name}": reason for name, reason in expected.items()}
    assert Counter(index.meta["rejected"]) + Counter(index.meta["skipped"]) == Counter(expected.values())
    assert report.rejected == sum(index.meta["rejected"].values()) > 20
    assert "truncated" in str(report)
    assert check(tmp_path / "set", decode=True, workers=1, show=lambda line: None) == []


def test_files_that_cannot_be_read_are_rejected_and_trouble_of_ours_is_not(tmp_path: Path) -> None:
    gone, denied = FileNotFoundError(errno.ENOENT, "gone"), PermissionError(errno.EACCES, "denied")
    tries = itertools.cycle([OSError(errno.EIO, "flaky"), face(2, 0)])
    images = [face(0, 0), gone, denied, lambda: next(tries), ValueError("record is cut")]
    convert(options(tmp_path, shuffle=False), {"": ListSource(images)})
    assert [row[:2] for row in rejects(tmp_path / "set")] == [[f"image:{i}", "unreadable"] for i in (1, 2, 4)]
    assert "record is cut" in rejects(tmp_path / "set")[2][2]
    images = [face(0, 0)] * 40 + [OSError(errno.EMFILE, "too many open files")]
    with pytest.raises(StorageError, match="too many open files"):
        convert(
            Options("list", tmp_path / "in.csv", tmp_path / "b", workers=1, shuffle=False),
            {"": ListSource(images)},
        )


def test_identities_without_a_readable_image_vanish_from_classes_and_labels(tmp_path: Path) -> None:
    labels = [i // 3 for i in range(36)]
    images = [b"" if label in (0, 4, 11) else face(i, 0) for i, label in enumerate(labels)]
    report = convert(options(tmp_path), {"": ListSource(images, labels)})
    index = Index.open(tmp_path / "set")
    assert index.classes == [f"c{i:02d}" for i in range(12) if i not in (0, 4, 11)]
    for i in range(len(index)):
        original = labels[int(index.name(i).split(":")[1])]
        assert index.classes[index.label[i]] == f"c{original:02d}"
    assert index.meta["lost_classes"] == ["c00", "c04", "c11"]
    assert "3 identities have no readable image" in str(report)
    assert [line for line in check(tmp_path / "set", workers=1, show=lambda line: None) if "sorted" not in line] == []


class Interrupting(list):
    """Pairs that stop the conversion when they are about to be written, after the shards were relabelled."""

    def __iter__(self):
        raise KeyboardInterrupt


def test_relabelling_can_be_interrupted(tmp_path: Path) -> None:
    source = ListSource([b""] * 3 + [face(i, 0) for i in range(21)], [i // 3 for i in range(24)])
    source.pairs = [("image:4", "image:5", True, 0)]
    convert(Options("list", tmp_path / "in.csv", tmp_path / "clean", shard_size=8, workers=1), {"": source})
    source.pairs = Interrupting(source.pairs)
    with pytest.raises(KeyboardInterrupt):
        convert(options(tmp_path), {"": source})
    assert not (tmp_path / "set").exists()
    source.pairs = list.copy(source.pairs)
    assert convert(options(tmp_path), {"": source}).reused == 3
    assert tree(tmp_path / "set") == tree(tmp_path / "clean")


def test_a_shard_without_any_good_image_is_left_out(tmp_path: Path) -> None:
    images = [face(i, 0) for i in range(24)]
    images[8:16] = [b""] * 8
    convert(options(tmp_path, shuffle=False), {"": ListSource(images)})
    index = Index.open(tmp_path / "set")
    assert [shard["name"] for shard in index.meta["shards"]] == ["shard-000000.tar", "shard-000002.tar"]
    assert sorted(path.name for path in (tmp_path / "set").glob("*.tar")) == [
        "shard-000000.tar",
        "shard-000002.tar",
    ]
    views = ShardReader(index, check_crc=True).views(np.arange(16))
    assert [bytes(view) for view in views] == images[:8] + images[16:]
    assert check(tmp_path / "set", decode=True, workers=1, show=lambda line: None) == []


def test_all_rejected_is_an_error_and_too_many_too(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"every image was rejected: empty-file 5; see .*rejects.csv"):
        convert(options(tmp_path), {"": ListSource([b""] * 5)})
    source = ListSource([b"", *[face(i, 0) for i in range(9)]])
    few = Options("list", tmp_path / "in.csv", tmp_path / "few", workers=1, max_rejects=0.05)
    with pytest.raises(DataError, match=r"1 of 10 images were rejected, more than --max-rejects 0.05"):
        convert(few, {"": source})
    assert not few.out.exists()
    more = Options("list", tmp_path / "in.csv", tmp_path / "few", workers=1, max_rejects=0.1)
    assert convert(more, {"": source}).reused == 1  # nothing is made twice


def test_pairs_lose_only_those_whose_image_is_bad(tmp_path: Path) -> None:
    source = ListSource([face(0, 0), face(0, 1), b"", face(1, 1)], [0, 0, 1, 1])
    source.ordered = True
    source.pairs = [
        ("image:0", "image:1", True, 0),
        ("image:2", "image:3", False, 1),
        ("image:3", "image:0", False, 1),
    ]
    report = convert(options(tmp_path), {"": source})
    assert (tmp_path / "set" / "pairs.csv").read_text() == "a,b,same,fold\nimage:0,image:1,1,0\nimage:3,image:0,0,1\n"
    assert [Index.open(tmp_path / "set").name(i) for i in range(3)] == ["image:0", "image:1", "image:3"]
    assert "2 pairs, 1 left out" in str(report)
    (tmp_path / "set" / "pairs.csv").write_text("a,b,same,fold\n")
    assert any("pairs.csv" in line for line in check(tmp_path / "set", workers=1, show=lambda line: None))


# Splits


@pytest.mark.parametrize("by", ["identity", "image"])
def test_split_divides_everything_once(tmp_path: Path, by: str) -> None:
    path = make_set(tmp_path, people=10, images=4, split={"train": 0.7, "val": 0.3}, split_by=by)
    sets = {name: Index.open(path / name) for name in ("train", "val")}
    names = {key: {index.name(i) for i in range(len(index))} for key, index in sets.items()}
    assert len(names["train"]) == 28
    assert len(names["train"] | names["val"]) == 40
    shared = set(sets["train"].classes) & set(sets["val"].classes)
    assert bool(shared) == (by == "image")
    assert sets["train"].meta["identities_shared_with"] == ({"val": len(shared)} if shared else {})
    assert check(path, workers=1, show=lambda line: None) == []


def test_imagefolder_splits_become_sets_and_shared_people_are_told(tmp_path: Path) -> None:
    write_folder(tmp_path / "raw" / "train", people=3)
    write_folder(tmp_path / "raw" / "val", people=1)
    report = convert(Options("folder", tmp_path / "raw", tmp_path / "set", workers=1))
    assert [Index.open(tmp_path / "set" / name).num_classes for name in ("train", "val")] == [3, 1]
    assert "1 identities are in both train and val: person_000" in str(report)
    with pytest.raises(ValueError, match="has the splits train, val already"):
        convert(Options("folder", tmp_path / "raw", tmp_path / "b", split={"a": 0.5, "b": 0.5}))


def test_include_and_exclude_choose_classes(tmp_path: Path) -> None:
    (tmp_path / "some.txt").write_text("3\nperson_000\t6\nperson_002\t6\nperson_004\t6\n")
    (tmp_path / "not.txt").write_text("person_002\n")
    path = make_set(tmp_path, include=tmp_path / "some.txt", exclude=tmp_path / "not.txt")
    assert Index.open(path).classes == ["person_000", "person_004"]
    (tmp_path / "not.txt").write_text("person_02\n")
    with pytest.raises(ValueError, match="perhaps you meant 'person_002'"):
        convert(Options("folder", tmp_path / "raw", tmp_path / "b", exclude=tmp_path / "not.txt"))
    with pytest.raises(ValueError, match=r"cannot read .*gone.txt: No such file"):
        convert(Options("folder", tmp_path / "raw", tmp_path / "b", exclude=tmp_path / "gone.txt"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["not.txt", "raw", "set", "some.txt"]


def test_excluded_images_are_counted_and_listed(tmp_path: Path) -> None:
    (tmp_path / "not.csv").write_text("kind,image,identity\nduplicate,person_000/001.jpg,person_000\n")
    path = make_set(tmp_path, people=2, images=3, exclude=tmp_path / "not.csv")
    index = Index.open(path)
    names = {index.name(i) for i in range(len(index))}
    assert names == {f"person_{p:03d}/{i:03d}.jpg" for p in range(2) for i in range(3)} - {"person_000/001.jpg"}
    assert [row[:2] for row in rejects(path)] == [["person_000/001.jpg", "excluded"]]
    assert check(path) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train=0.9", "add up to 1, not 0.9"),
        ("train=0.9,val", "write name=fraction"),
        ("a=0.5,a=0.5", "each once"),
        ("../x=1", "no name for a split"),
        ("index=1", "no name for a split"),
        ("a=1.5,b=-0.5", "must be positive"),
    ],
)
def test_split_mistakes_are_explained(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_split(text)


# Nothing is half done


def test_existing_output_is_never_touched(tmp_path: Path) -> None:
    path = make_set(tmp_path)
    before = tree(path)
    with pytest.raises(StorageError, match=r"exists already and is never overwritten: delete it \(rm -r"):
        convert(Options("folder", tmp_path / "raw", path))
    assert tree(path) == before
    assert sorted(os.listdir(tmp_path)) == ["raw", "set"]


def test_stopped_conversion_goes_on_and_refuses_other_options(tmp_path: Path) -> None:
    def stop() -> bytes:
        raise KeyboardInterrupt

    good = ListSource([face(i, 0) for i in range(30)])
    clean = tmp_path / "clean"
    convert(Options("list", tmp_path / "in.csv", clean, shard_size=8, workers=1), {"": good})
    source = ListSource(list(good.images))
    source.images[shuffled(30, 0)[20]] = stop
    source.read = _not_while_estimating(source)  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt, match=r"2 of 4 shards are finished and kept in .*set.partial; the same"):
        convert(options(tmp_path), {"": source})
    assert not (tmp_path / "set").exists()
    assert not list((tmp_path / "set.partial").rglob("*.tmp"))
    with pytest.raises(ValueError, match=r"(?s)unfinished conversion of something else:\n.*options.seed was 0, now 5"):
        convert(options(tmp_path, seed=5), {"": good})
    report = convert(options(tmp_path), {"": good})
    assert (report.made, report.reused) == (2, 2)
    assert "2 shards were found finished" in str(report)
    assert tree(tmp_path / "set") == tree(clean)
    assert not (tmp_path / "set.partial").exists()


def _not_while_estimating(source: ListSource):
    """Let the first 32 reads, which only estimate the size, meet a good image."""
    reads = iter(range(10**6))
    plain = ListSource.read
    return lambda i: face(0, 0) if next(reads) < 32 else plain(source, i)


def test_a_changed_input_is_noticed(tmp_path: Path) -> None:
    raw = write_folder(tmp_path / "raw")
    convert(Options("folder", raw, tmp_path / "set", shard_size=8, workers=1, part=(0, 2)))
    (raw / "person_000" / "new.jpg").write_bytes(face(8, 8))
    with pytest.raises(ValueError, match=r"sets..images was 30, now 31"):
        convert(Options("folder", raw, tmp_path / "set", shard_size=8, workers=1, part=(1, 2)))


def test_a_damaged_leftover_shard_is_made_again(tmp_path: Path) -> None:
    clean = make_set(tmp_path / "a")
    raw, out = write_folder(tmp_path / "b" / "raw"), tmp_path / "b" / "set"
    convert(Options("folder", raw, out, shard_size=8, workers=1, part=(0, 1)))
    os.truncate(out.with_name("set.partial") / "made" / "shard-000001.tar", 2000)
    (out.with_name("set.partial") / "made" / "999-000001.tmp").write_bytes(b"left by a killed process")
    report = convert(Options("folder", raw, out, shard_size=8, workers=1))
    assert (report.made, report.reused) == (1, 3)
    assert tree(out) == tree(clean)


def test_two_writers_are_kept_apart_and_the_holder_is_named(tmp_path: Path) -> None:
    raw = write_folder(tmp_path / "raw")
    partial = Partial(tmp_path / "set")
    held = rf"is being made by another process \(pid {os.getpid()} on "
    with partial.lock(None):
        for part in (None, (0, 2)):
            with pytest.raises(StorageError, match=held):
                convert(Options("folder", raw, tmp_path / "set", workers=1, part=part))
    with partial.lock((0, 2)):
        with pytest.raises(StorageError, match=held + r".*, part 0 of 2"):
            convert(Options("folder", raw, tmp_path / "set", workers=1))
        with pytest.raises(StorageError, match=held):
            convert(Options("folder", raw, tmp_path / "set", workers=1, part=(0, 2)))
        convert(Options("folder", raw, tmp_path / "set", workers=1, part=(1, 2)))
    convert(Options("folder", raw, tmp_path / "set", workers=1))


def test_bad_input_leaves_no_trace(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        convert(Options("folder", tmp_path / "nothing", tmp_path / "deep" / "set"))
    assert os.listdir(tmp_path / "deep") == []


def test_unwritable_output_is_noticed_before_the_scan(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StorageError, match="cannot write to"):
        convert(Options("folder", tmp_path / "not even looked at", tmp_path / "file" / "set"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("needs the right to mount a small tmpfs; RLIMIT_FSIZE is tested instead, in test_make_shards.py")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_full_disk_is_foreseen(tmp_path: Path, small_disk: Path) -> None:
    source = ListSource([face(i, 0, 112, 112, 95) for i in range(200)])
    with pytest.raises(StorageError, match=r"200 images need about [\d,]+ bytes, [\d,]+ are free on the disk of"):
        convert(Options("list", tmp_path / "in.csv", small_disk / "set", workers=1), {"": source})


@pytest.mark.parametrize("workers", [1, 2])
def test_full_disk_is_survived(tmp_path: Path, small_disk: Path, workers: int) -> None:
    images = [face(i, 0) for i in range(60)]
    run = {"workers": workers, "shard_size": 8, "shuffle": False}
    convert(Options("list", tmp_path / "in.csv", tmp_path / "clean", **run), {"": ListSource(images)})

    def fill() -> bytes:  # someone else fills the disk while we are at it
        with open(small_disk / "other", "wb") as file:
            try:
                file.write(bytes(400_000))
                file.flush()
            except OSError:
                pass
        return images[29]

    source = ListSource([*images[:29], fill, *images[30:]])
    source.read = _not_while_estimating(source)  # type: ignore[method-assign]
    out = Options("list", tmp_path / "in.csv", small_disk / "set", **run)
    with pytest.raises(
        StorageError, match=r"No space left .*: about [\d,]+ bytes more are needed, 0 are free; finished"
    ):
        convert(out, {"": source})
    (small_disk / "other").unlink()
    report = convert(out, {"": ListSource(images)})
    assert report.reused >= 1
    assert tree(small_disk / "set") == tree(tmp_path / "clean")


def test_identities_with_too_few_images_are_left_out_and_listed(tmp_path: Path) -> None:
    raw = write_folder(tmp_path / "raw", people=4, images=3)
    for number in (1, 2):
        (raw / "person_002" / f"{number:03d}.jpg").unlink()
    report = convert(Options("folder", raw, tmp_path / "set", workers=1, min_images=2))
    index = Index.open(tmp_path / "set")
    assert index.classes == ["person_000", "person_001", "person_003"]
    assert len(index) == 9
    assert report.skipped["identity-too-small"] == 1
    assert "person_002/000.jpg,identity-too-small" in (tmp_path / "set" / "rejects.csv").read_text()
