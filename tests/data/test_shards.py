"""Shards hold what was put in, for us and for everyone who reads webdataset tars."""

from __future__ import annotations

import os
import resource
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from fastface.data.index import Index
from fastface.data.shards import ShardReader, ShardWriter, relabel, tar_header
from tests.data.shard_sets import face, make_set, raw_bytes


def write_shard(path: Path, count: int = 3) -> tuple[list[bytes], list[int]]:
    writer = ShardWriter(path)
    images = [face(i, 0) + bytes(i) for i in range(count)]
    offsets = [writer.add(10 * i, image, "jpg", 7 * i) for i, image in enumerate(images)]
    writer.close()
    return images, offsets


@pytest.mark.parametrize(("name", "length"), [("000000000.jpg", 0), ("123456789.cls", 1), ("000000001.png", 2**33 - 1)])
def test_header_says_to_tarfile_what_we_meant(name: str, length: int) -> None:
    info = tarfile.TarInfo.frombuf(tar_header(name, length), "ascii", "strict")
    assert (info.name, info.size, info.mode, info.type) == (name, length, 0o644, tarfile.REGTYPE)
    assert (info.mtime, info.uid, info.gid, info.uname, info.gname) == (0, 0, 0, "", "")


def test_tarfile_reads_members_at_the_offsets_told(tmp_path: Path) -> None:
    images, offsets = write_shard(tmp_path / "s.tar")
    with tarfile.open(tmp_path / "s.tar") as tar:
        members = tar.getmembers()
        names = [member.name for member in members]
        read = [tar.extractfile(member).read() for member in members]  # pyright: ignore[reportOptionalMemberAccess]
    assert names == [f"{10 * i:09d}.{kind}" for i in range(3) for kind in ("jpg", "cls")]
    assert read == [part for i in range(3) for part in (images[i], b"%d" % (7 * i))]
    assert offsets == [member.offset_data for member in members[::2]]


def test_abandoned_shard_leaves_nothing(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path / "s.tar")
    writer.add(0, b"x" * 5000, "jpg", 1)
    writer.abandon()
    assert os.listdir(tmp_path) == []


def test_webdataset_reads_bytes_and_labels(tmp_path: Path) -> None:
    wds = pytest.importorskip("webdataset")
    path = make_set(tmp_path)
    index = Index.open(path)
    pattern = str(path / "shard-{000000..000003}.tar")
    samples = list(wds.WebDataset(pattern, shardshuffle=False).decode().to_tuple("cls", "__key__"))
    assert [label for label, _ in samples] == index.label.tolist()
    assert [key for _, key in samples] == [f"{i:09d}" for i in range(30)]
    undecoded = [sample["jpg"] for sample in wds.WebDataset(pattern, shardshuffle=False)]
    assert undecoded == raw_bytes(index, tmp_path / "raw")


@pytest.mark.dali
def test_dali_reads_bytes_and_labels(tmp_path: Path) -> None:
    fn = pytest.importorskip("nvidia.dali.fn", reason="DALI is not installed")
    from nvidia.dali import pipeline_def

    path = make_set(tmp_path)
    index = Index.open(path)

    @pipeline_def(batch_size=30, num_threads=1, device_id=None)
    def pipeline():
        shards = [str(path / shard["name"]) for shard in index.meta["shards"]]
        return tuple(fn.readers.webdataset(paths=shards, ext=["jpg", "cls"], missing_component_behavior="error"))

    images, labels = pipeline().run()
    assert [bytes(images.at(i)) for i in range(30)] == raw_bytes(index, tmp_path / "raw")
    assert [int(bytes(labels.at(i))) for i in range(30)] == index.label.tolist()


def test_views_are_the_original_bytes(tmp_path: Path) -> None:
    index = Index.open(make_set(tmp_path))
    expected = raw_bytes(index, tmp_path / "raw")
    reader = ShardReader(index, check_crc=True)
    assert [bytes(reader.view(i)) for i in range(30)] == expected
    ids = np.array([29, 0, 17, 17, 3])
    views = reader.views(ids)
    reader.close()  # views outlive it
    assert [bytes(view) for view in views] == [expected[i] for i in ids]
    assert not views[0].flags.writeable


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 16
    path.write_bytes(data)


def test_crc_error_names_shard_member_offset_source_and_remedy(tmp_path: Path) -> None:
    path = make_set(tmp_path)
    index = Index.open(path)
    record = 19
    offset = int(index.offset[record])
    flip(path / "shard-000002.tar", offset + 40)
    assert len(ShardReader(index).view(record)) == index.length[record]  # unchecked, it is not noticed
    with pytest.raises(ValueError, match="crc32 is") as caught:
        ShardReader(index, check_crc=True).view(record)
    text = str(caught.value)
    for part in (
        "shard-000002.tar",
        "000000019.jpg",
        f"byte {offset}",
        index.name(record),
        "tools/check_shards.py",
    ):
        assert part in text


def test_changed_and_missing_shards_are_named_on_first_use(tmp_path: Path) -> None:
    path = make_set(tmp_path)
    index = Index.open(path)
    os.truncate(path / "shard-000001.tar", 5000)
    (path / "shard-000002.tar").unlink()
    reader = ShardReader(index)
    reader.view(0)
    with pytest.raises(ValueError, match=r"shard-000001.tar has 5,000 bytes, its index says"):
        reader.view(8)
    with pytest.raises(ValueError, match=r"shard-000002.tar is missing"):
        reader.views(np.array([0, 16]))


@pytest.mark.parametrize("how", ["deleted", "replaced", "cut"])
def test_check_unchanged_notices_what_happened_to_a_mapped_shard(tmp_path: Path, how: str) -> None:
    path = make_set(tmp_path)
    reader = ShardReader(Index.open(path))
    before = bytes(reader.view(3))
    reader.check_unchanged()
    shard = path / "shard-000000.tar"
    if how == "cut":
        os.truncate(shard, 1024)
    else:
        data = shard.read_bytes()
        shard.unlink()
        if how == "replaced":
            shard.write_bytes(data)
        assert bytes(reader.view(3)) == before  # the old file lives on while mapped
    with pytest.raises(ValueError, match=r"shard-000000.tar was (changed|deleted) while in use"):
        reader.check_unchanged()


def test_relabel_changes_labels_of_any_length_and_nothing_else(tmp_path: Path) -> None:
    images, offsets = write_shard(tmp_path / "s.tar")
    places = [offset + -(-len(image) // 512) * 512 for offset, image in zip(offsets, images, strict=True)]
    size, _ = relabel(tmp_path / "s.tar", tmp_path / "t.tar", zip(places, [1234567, 0, 8], strict=True))
    assert size == (tmp_path / "s.tar").stat().st_size
    with tarfile.open(tmp_path / "t.tar") as tar:
        read = [tar.extractfile(member).read() for member in tar]  # pyright: ignore[reportOptionalMemberAccess]
    assert read[1::2] == [b"1234567", b"0", b"8"]
    assert read[::2] == images


def test_index_columns_describe_the_bytes(tmp_path: Path) -> None:
    index = Index.open(make_set(tmp_path))
    for i, data in enumerate(raw_bytes(index, tmp_path / "raw")):
        with tarfile.open(index.path / index.meta["shards"][index.shard[i]]["name"]) as tar:
            member = tar.getmember(f"{i:09d}.jpg")
        assert (member.offset_data, member.size) == (index.offset[i], index.length[i])
        assert zlib.crc32(data) == index.crc32[i]
        assert (index.columns["width"][i], index.columns["height"][i], index.columns["kept"][i]) == (
            32,
            32,
            1,
        )


def test_more_shards_than_files_may_be_open_are_read(tmp_path: Path) -> None:
    index = Index.open(make_set(tmp_path, people=5, images=8, shard_size=1))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1024:
        pytest.skip(f"this machine allows {hard} open files")
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 10, hard))  # ten more files at most
    try:
        views = ShardReader(index, check_crc=True).views(np.arange(40))
        assert [bytes(view) for view in views] == raw_bytes(index, tmp_path / "raw")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_limit_that_cannot_be_raised_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = Index.open(make_set(tmp_path))
    monkeypatch.setattr(resource, "getrlimit", lambda which: (100, 515))
    with pytest.raises(ValueError, match=r"has 4 shards and this process may open 515 files: allow 516 \(ulimit -n\)"):
        ShardReader(index)
