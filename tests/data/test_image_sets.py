import tarfile
from pathlib import Path

import numpy as np
import pytest

from fastface.data.image_sets import BytesImages, FileImages, ShardImages, open_images
from fastface.data.images import ImageSpec, Rejected, load_rgb
from tests.data.shard_sets import face, make_set, write_folder


def archive(folder: Path, path: Path, prefix: str = "./") -> Path:
    with tarfile.open(path, "w") as tar:
        for file in sorted(folder.rglob("*.jpg"), reverse=True):
            tar.add(file, prefix + file.relative_to(folder).as_posix())
    return path


@pytest.mark.parametrize("prefix", ["./", ""])
@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_files_are_found_named_and_prepared(tmp_path: Path, kind: str, prefix: str) -> None:
    folder = write_folder(tmp_path / "raw", 3, 2, (40, 30))
    (folder / "loose.jpg").write_bytes(face(9, 9, 40, 30))
    for ignored in (".hidden.jpg", "person_000/notes.txt", "person_000/._000.jpg"):
        (folder / ignored).write_bytes(b"x")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "a.jpg").write_bytes(b"x")
    spec = ImageSpec(size=(16, 16), crop=0.5)
    path = folder if kind == "folder" else archive(folder, tmp_path / "raw.tar", prefix)
    images = open_images(path, spec)
    assert isinstance(images, FileImages)
    names = [images.name(i) for i in range(len(images))]
    persons = [f"person_{k:03d}" for k in range(3)]
    assert sorted(names) == ["loose.jpg", *(f"{person}/{i:03d}.jpg" for person in persons for i in (0, 1))]
    for i, name in enumerate(names):
        assert np.array_equal(images.load(i), load_rgb((folder / name).read_bytes(), spec))
    same = np.array([[a.split("/")[0] == b.split("/")[0] for a in names] for b in names])
    assert np.array_equal(images.identities[:, None] == images.identities, same)


def test_of_a_name_twice_in_an_archive_the_later_counts(tmp_path: Path) -> None:
    first = write_folder(tmp_path / "a", 1, 1)
    path = archive(first, tmp_path / "twice.tar")
    newer = tmp_path / "newer.jpg"
    newer.write_bytes(face(5, 5))
    with tarfile.open(path, "a") as tar:
        tar.add(newer, "person_000/000.jpg")
    images = open_images(path)
    assert len(images) == 1
    assert np.array_equal(images.load(0), load_rgb(face(5, 5)))


@pytest.mark.parametrize("lossless", [False, True])
def test_shards_give_what_they_hold(tmp_path: Path, lossless: bool) -> None:
    path = make_set(tmp_path, people=3, images=4, spec=ImageSpec(lossless=lossless))
    images = open_images(path, ImageSpec(size=(8, 8)))  # shards are prepared already
    assert isinstance(images, ShardImages)
    assert len(images) == 12
    for i in range(12):
        assert np.array_equal(images.load(i), load_rgb((tmp_path / "raw" / images.name(i)).read_bytes()))
        assert images.index.classes[images.identities[i]] == images.name(i).split("/")[0]
    assert images.find([images.name(7)]).tolist() == [7]


def test_a_damaged_shard_stops_the_evaluation(tmp_path: Path) -> None:
    """A wrong checksum is no failed picture to be counted: the data are not those that were made."""
    path = make_set(tmp_path, people=1, images=2)
    images = open_images(path)
    assert isinstance(images, ShardImages)
    shard = next(path.glob("*.tar"))
    damaged = bytearray(shard.read_bytes())
    damaged[int(images.index.offset[0]) + 100] ^= 1
    shard.write_bytes(damaged)
    with pytest.raises(ValueError, match="crc32") as error:
        open_images(path).load(0)
    assert not isinstance(error.value, Rejected)


def test_pictures_in_memory() -> None:
    images = BytesImages([face(0, 0), face(0, 1)], ImageSpec(size=(16, 16)))
    assert images.load(1).shape == (16, 16, 3)
    assert images.identities.tolist() == [0, 1]
    assert images.name(1) == "000000001"


def test_what_is_not_there_is_named_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "faces").mkdir()
    with pytest.raises(ValueError, match="does not exist, perhaps you meant 'faces'"):
        open_images(tmp_path / "face")
    with pytest.raises(ValueError, match="holds no pictures"):
        open_images(tmp_path / "faces")
