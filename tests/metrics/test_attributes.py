from pathlib import Path

import numpy as np
import pytest

from fastface.metrics.attributes import groups_by_attribute, groups_of_pairs, read_attributes, unused_rows
from fastface.metrics.pairs import Pairs, read_pairs, resolve_pairs, write_pairs


class Images:
    """Two persons of two images each, and a loose one."""

    names = ("Ann/1.jpg", "Ann/2.jpg", "Bob/1.jpg", "Bob/2.jpg", "x.jpg")

    def __len__(self) -> int:
        return len(self.names)

    def name(self, i: int) -> str:
        return self.names[i]


PAIRS = Pairs(np.array([0, 0, 2]), np.array([1, 3, 3]), np.array([True, False, True]))


def written(folder: Path, text: str) -> Path:
    path = folder / "table.csv"
    path.write_text(text)
    return path


def test_a_row_is_for_an_image_or_for_all_of_a_folder(tmp_path: Path) -> None:
    """The image's own row counts before its person's."""
    text = "name,sex,age\nAnn,f,old\nAnn/2,f,young\n./Bob/1.jpg,m,\nBob/,m,old\nEve,f,old\n"
    table = read_attributes(written(tmp_path, text))
    sides = groups_by_attribute(PAIRS, table, Images())
    assert [side.tolist() for side in sides["sex"]] == [["f", "f", "m"], ["f", "m", "m"]]
    assert [side.tolist() for side in sides["age"]] == [["old", "old", "(not given)"], ["young", "old", "old"]]
    assert unused_rows(PAIRS, table, Images()) == 1


def test_an_image_without_a_row_is_named(tmp_path: Path) -> None:
    table = read_attributes(written(tmp_path, "name,sex\nAnn,f\nBobb,m\n"))
    with pytest.raises(ValueError, match=r"2 of 4 images .* first 'Bob/1.jpg', perhaps you meant 'Bobb'"):
        groups_by_attribute(PAIRS, table, Images())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nam,sex\nAnn,f\n", "line 1: expected name .* perhaps you meant 'nam'"),
        ("name\nAnn\n", "line 1: expected name and one column"),
        ("name,sex,sex\nAnn,f,f\n", "line 1"),
        ("name,sex\nAnn\n", "line 2: expected 2 cells, found 1"),
        ("name,sex\nAnn,f\nAnn/,f\n", "line 3: 'Ann' stands twice"),
        ("name,sex\n,f\n", "line 2: the name is missing"),
        ("name,sex\n", "a header and no row"),
        ("", "line 1"),
    ],
)
def test_a_table_that_says_too_little_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_attributes(written(tmp_path, text))


def test_a_missing_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        read_attributes(tmp_path / "none.csv")


def test_a_pair_file_groups_its_pairs(tmp_path: Path) -> None:
    text = "a,b,same,group,group_age\nAnn/1,Ann/2,1,north,old\nAnn/1,Bob/1,0,south,old\n"
    pairs = resolve_pairs(read_pairs(written(tmp_path, text)), Images())
    sides = groups_of_pairs(pairs)
    assert sides["group"].first.tolist() == sides["group"].second.tolist() == ["north", "south"]
    assert sides["group_age"].first.tolist() == ["old", "old"]
    write_pairs(tmp_path / "again.csv", pairs, Images().name)
    again = resolve_pairs(read_pairs(tmp_path / "again.csv"), Images())
    assert groups_of_pairs(again)["group"].first.tolist() == ["north", "south"]
    assert groups_of_pairs(PAIRS) == {}
    with pytest.raises(ValueError, match="line 2: the group is missing"):
        read_pairs(written(tmp_path, "a,b,same,group\nAnn/1,Ann/2,1,\n"))
