from pathlib import Path

import numpy as np
import pytest

from fastface.data.sources.tar import members
from fastface.metrics.folds import Pairs, make_folds, shared_identities, stratified_folds
from fastface.metrics.pairs import read_pairs, resolve_pairs, write_pairs


class Named:
    """Images that are only names."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def __len__(self) -> int:
        return len(self.names)

    def name(self, i: int) -> str:
        return self.names[i]


class Indexed(Named):
    """Images that can be found without listing them, and must be."""

    def name(self, i: int) -> str:
        raise AssertionError("all names were listed")

    def find(self, names: list[str]) -> np.ndarray:
        try:
            return np.array([self.names.index(name) for name in names])
        except ValueError:
            raise ValueError("missing") from None


def lfw_file(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_pairs_txt_has_folds_and_a_development_list_none(tmp_path: Path) -> None:
    body = ["A B\t1\t2".replace(" ", "_"), "A_B\t1\tC\t12"]
    found = read_pairs(lfw_file(tmp_path / "pairs.txt", "2\t1", *body, "D 3 4", "D 1 C 2"))
    assert found.first == ["A_B/A_B_0001", "A_B/A_B_0001", "D/D_0003", "D/D_0001"]
    assert found.second == ["A_B/A_B_0002", "C/C_0012", "D/D_0004", "C/C_0002"]
    assert found.same.tolist() == [True, False, True, False]
    assert found.fold is not None
    assert found.fold.tolist() == [0, 0, 1, 1]
    assert read_pairs(lfw_file(tmp_path / "dev.txt", "1", *body)).fold is None


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["hello"], "line 1: expected 'FOLDS N'"),
        (["1", "A 1 2"], "announces 2 pairs, but 1 follow"),
        (["1", "A 1 2", "B 1"], "line 3: expected"),
        (["1", "A 1 2", "A x B 1"], "line 3: image numbers"),
        (["1", "A 1 1", "A 1 B 1"], "line 2: an image is paired with itself"),
        (["1", "A 1 2", "A 2 3"], "line 2: the 2 pairs from here hold 2 genuine"),
    ],
)
def test_errors_of_a_pairs_txt_name_the_line(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_pairs(lfw_file(tmp_path / "pairs.txt", *lines))


def test_csv_goes_there_and_back(tmp_path: Path) -> None:
    names = Named("x, y/1.jpg", 'q"uote/2.jpg', "é/3.jpg", "\udce9/4.jpg")
    pairs = Pairs(np.array([0, 2]), np.array([1, 3]), np.array([True, False]), np.array([0, 1], dtype=np.int16))
    for given in (pairs, pairs._replace(fold=None)):
        write_pairs(tmp_path / "pairs.csv", given, names.name)
        found = resolve_pairs(read_pairs(tmp_path / "pairs.csv"), names)
        assert all(np.array_equal(a, b) for a, b in zip(found[:3], given[:3], strict=True))
        assert (found.fold is None) == (given.fold is None)
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.csv"]


def test_csv_columns_come_in_any_order_and_folds_from_any_number(tmp_path: Path) -> None:
    path = lfw_file(tmp_path / "p.csv", "fold,same,b,a", "5,true,x,y", "", "3,0,x,z")
    found = read_pairs(path)
    assert (found.first, found.second, found.same.tolist()) == (["y", "z"], ["x", "x"], [True, False])
    assert found.fold is not None
    assert found.fold.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a,b,same,folds", "x,y,1,0"], "line 1: unknown column 'folds', perhaps you meant 'fold'"),
        (["a,b", "x,y"], "line 1: expected the columns a,b,same"),
        (["a,b,same"], "holds a header and no pair"),
        (["a,b,same", "x,y,1", "x,y"], "line 3: expected 3 cells"),
        (["a,b,same", "x,y,maybe"], "line 2: same must be 1 or 0"),
        (["a,b,same", "x,x,1"], "line 2: an image is missing or paired with itself"),
        (["a,b,same,fold", "x,y,1,-1"], "line 2: fold must be a whole number"),
    ],
)
def test_errors_of_a_csv_name_the_line(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_pairs(lfw_file(tmp_path / "pairs.csv", *lines))


def test_no_file_and_an_empty_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        read_pairs(tmp_path / "none.txt")
    (tmp_path / "empty.txt").touch()
    with pytest.raises(ValueError, match="is empty"):
        read_pairs(tmp_path / "empty.txt")


@pytest.mark.parametrize("there", ["A/A_0001.jpg", "./A/A_0001.png", "A/A_0001"])
@pytest.mark.parametrize("asked", ["A/A_0001", "./A/A_0001.jpg", "A/A_0001.webp"])
def test_names_match_without_dot_slash_and_extension(tmp_path: Path, there: str, asked: str) -> None:
    path = lfw_file(tmp_path / "pairs.csv", "a,b,same", f"{asked},B/x.y.jpg,0")
    found = resolve_pairs(read_pairs(path), Named("C/1.jpg", there, "B/x.y.jpg"))
    assert (found.first.tolist(), found.second.tolist()) == ([1], [2])


def test_the_extension_decides_where_it_must(tmp_path: Path) -> None:
    images = Named("A/1.jpg", "A/1.png", "B/1.jpg")
    path = lfw_file(tmp_path / "pairs.csv", "a,b,same", "A/1.png,B/1,0")
    assert resolve_pairs(read_pairs(path), images).first.tolist() == [1]
    path = lfw_file(tmp_path / "pairs.csv", "a,b,same", "A/1,B/1,0")
    with pytest.raises(ValueError, match=r"'A/1' could be 'A/1.jpg' and 'A/1.png' in the folder"):
        resolve_pairs(read_pairs(path), images, "the folder")


def test_missing_images_are_counted_and_the_nearest_named(tmp_path: Path) -> None:
    path = lfw_file(tmp_path / "pairs.csv", "a,b,same", "Ann/1,Bob/1,0", "Ann/1,Cid/1,0")
    with pytest.raises(ValueError, match=r"2 of 3 images are not in X, first 'Bob/1'; .* look like 'Rob/1.jpg'"):
        resolve_pairs(read_pairs(path), Named("Ann/1.jpg", "Rob/1.jpg"), "X")


def test_an_index_is_asked_rather_than_listed(tmp_path: Path) -> None:
    path = lfw_file(tmp_path / "pairs.txt", "1", "A 1 2", "A 1 B 1")
    found = resolve_pairs(read_pairs(path), Indexed("B/B_0001.jpg", "A/A_0002.jpg", "A/A_0001.jpg"))
    assert (found.first.tolist(), found.second.tolist()) == ([2, 2], [1, 0])


def test_all_pairs_of_lfw_resolve(data: Path) -> None:
    files = [member.name.decode() for member in members(data / "lfw" / "images.tar") if member.kind == "file"]
    images = Named(*files)
    persons = np.unique([name.split("/")[1] for name in files], return_inverse=True)[1]
    for name, count in (("pairs.txt", 6000), ("pairsDevTrain.txt", 2200), ("pairsDevTest.txt", 1000)):
        pairs = resolve_pairs(read_pairs(data / "lfw" / name), images)
        assert (len(pairs.same), int(pairs.same.sum())) == (count, count // 2)
        assert np.array_equal(persons[pairs.first] == persons[pairs.second], pairs.same)
        if pairs.fold is not None:
            assert np.array_equal(pairs.fold, stratified_folds(pairs.same))
        pairs = pairs._replace(fold=make_folds(pairs, persons))
        assert shared_identities(pairs, persons) == 0
        assert np.bincount(pairs.fold).tolist() == [count // 10] * 10
