from pathlib import Path

import numpy as np
import pytest

from fastface.metrics.attempt_files import read_attempts

HEADER = "match_score,liveness_score,kind,attack,person,reference\n"
ROWS = "0.9,0.8,genuine,,ada,ada\n0.1,,impostor,,bob,ada\n0.7,0.2,attack,print,ada,ada\n\n,0.3,attack,,bob,bob\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "scores.csv"
    path.write_text(text)
    return path


def test_columns_become_attempts(tmp_path: Path) -> None:
    found = read_attempts(written(tmp_path, HEADER + ROWS))
    np.testing.assert_array_equal(found.match, [0.9, 0.1, 0.7, np.nan])
    np.testing.assert_array_equal(found.live, [0.8, np.nan, 0.2, 0.3])
    assert [found.kinds[number] for number in found.kind] == ["genuine", "impostor", "print", "unknown"]
    assert found.persons is not None
    assert found.persons.tolist() == [[0, 1, 0, 1], [0, 0, 0, 1]]


@pytest.mark.parametrize("column", ["person", "reference"])
def test_one_column_of_persons_will_do(tmp_path: Path, column: str) -> None:
    text = f"kind,{column},match_score,liveness_score,note\ngenuine,ada,1,1,x\nimpostor,,0,1,y\nattack,,1,0,z\n"
    found = read_attempts(written(tmp_path, text))
    assert found.persons is not None
    assert found.persons.shape == (1, 3)
    assert len(set(found.persons[0].tolist())) == 3  # two without a name are two persons
    assert read_attempts(written(tmp_path, text.replace("ada", ""))).persons is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: expected match_score"),
        ("match_scores,liveness_score,kind\n", "perhaps you meant 'match_scores'"),
        ("kind," + HEADER + ROWS, "stands twice"),
        (HEADER + "0.9,0.8,genuine\n", "line 2: expected 6 cells, found 3"),
        (HEADER + ROWS.replace("0.8", "high"), "liveness_score of attempt 1 is 'high'"),
        (HEADER + ROWS.replace("impostor", "imposter"), "perhaps you meant 'impostor'"),
        (HEADER + ROWS.replace("bob,ada", "ada,ada"), "attempt 2 is of kind 'impostor', but of the person"),
        (HEADER + ROWS.replace("print,ada,ada", "print,bob,ada"), "attempt 3 is of kind 'attack', but of another"),
        (HEADER + ROWS.replace("attack,print", "genuine,").replace("attack,,bob", "genuine,,bob"), "no attack attempt"),
    ],
)
def test_refusals_name_file_and_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_attempts(written(tmp_path, text))
    assert "scores.csv" in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        read_attempts(tmp_path / "none.csv")
