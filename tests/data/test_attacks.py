"""Who is live and by which attack the others are, by name: from one shard set, several, or a part of one."""

from pathlib import Path

import numpy as np
import pytest

from fastface.conversion.convert import convert
from fastface.conversion.options import Options
from fastface.data.attacks import class_targets, read_attacks
from fastface.data.index import Index
from fastface.data.mixed_index import MixedIndex
from fastface.data.selection import Selection, select
from tests.attacked import write_attacks
from tests.data.badfiles import encode, photo


def write_set(folder: Path, files: list[str]) -> Index:
    for number, name in enumerate(files):
        (folder / "raw" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "raw" / name).write_bytes(encode(photo(112 + number), "PNG"))
    convert(Options("liveness", folder / "raw", folder / "set", workers=1))
    return Index.open(folder / "set")


FIRST = ["live/client1.png", "live/client2.png", "spoof/print/client1.png", "spoof/replay/client2.png", "spoof/odd.png"]
SECOND = ["live/client7.png", "spoof/mask/client8.png", "spoof/print/client9.png"]


def told(index: Index, classes: str) -> dict[str, str]:
    """Return the class of every record by its source's name."""
    targets = class_targets(index, classes)
    return {index.name(i): targets.names[number] for i, number in enumerate(targets.of_record.tolist())}


def test_classes_of_one_set(tmp_path: Path) -> None:
    index = write_set(tmp_path, FIRST)
    assert class_targets(index, "label").names == ["live", "spoof"]
    assert told(index, "label") == {name: name.split("/")[0] for name in FIRST}
    assert class_targets(index, "attack").names == ["live", "print", "replay", "unknown"]
    assert told(index, "attack") == dict(zip(FIRST, ["live", "live", "print", "replay", "unknown"], strict=True))


@pytest.mark.parametrize("labels", ["merge-by-name", "separate"])
def test_several_sets_number_their_attacks_each_in_its_own_way(tmp_path: Path, labels: str) -> None:
    sets = [write_set(tmp_path / "a", FIRST), write_set(tmp_path / "b", SECOND)]
    assert sets[0].meta["values"]["attack"] != sets[1].meta["values"]["attack"]
    mixed = MixedIndex(sets, labels)  # type: ignore[arg-type]
    assert class_targets(mixed, "attack").names == ["live", "mask", "print", "replay", "unknown"]
    expected = [
        name.split("/")[1] if "/odd" not in name and "spoof" in name else "unknown" if "spoof" in name else "live"
        for name in [*FIRST, *SECOND]
    ]
    assert told(mixed, "attack") == dict(zip([*FIRST, *SECOND], expected, strict=True))
    assert told(mixed, "label") == {name: name.split("/")[0] for name in [*FIRST, *SECOND]}


def test_a_part_of_a_set_has_the_classes_that_are_in_it(tmp_path: Path) -> None:
    index = Index.open(write_attacks(tmp_path) / "train")
    (part,) = select([index], Selection(without={"attack": ["print"]}), "data")
    targets = class_targets(part, "attack")
    assert targets.names == ["live", "replay"]
    assert len(targets.of_record) == len(part)
    found = read_attacks(part)
    assert np.array_equal(found.live, targets.of_record == 0)


def test_a_set_without_attacks_can_tell_live_from_spoof_only(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    for n, name in enumerate(["live/1.png", "spoof/2.png"]):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(encode(photo(112 + n), "PNG"))
    convert(Options("folder", folder, tmp_path / "set", workers=1))
    index = Index.open(tmp_path / "set")
    assert told(index, "label") == {"live/1.png": "live", "spoof/2.png": "spoof"}
    with pytest.raises(ValueError, match=r"has no column attack: set task.classes: label"):
        class_targets(index, "attack")


@pytest.mark.parametrize(
    ("folders", "expected"),
    [(("ada", "bob"), r"has the class 'ada'; liveness is about live and spoof"), (("live",), r"has live images only")],
)
def test_other_classes_and_one_alone_are_refused(folders: tuple[str, ...], expected: str, tmp_path: Path) -> None:
    for name in folders:
        (tmp_path / "raw" / name).mkdir(parents=True)
        (tmp_path / "raw" / name / "1.png").write_bytes(encode(photo(), "PNG"))
    convert(Options("folder", tmp_path / "raw", tmp_path / "set", workers=1))
    with pytest.raises(ValueError, match=expected):
        class_targets(Index.open(tmp_path / "set"), "label")
