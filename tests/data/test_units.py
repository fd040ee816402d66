"""Units: linked records stay together, and every source and class gives its share of them."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from fastface.data.index import Index
from fastface.data.units import held_out, units_of
from tests.data.attack_sets import attack_set
from tests.data.fake_index import fake_index


def linked(keys: list[list[object]]) -> list[set[int]]:
    """Join sets that share a record until none does."""
    groups: list[set[int]] = [{i} for i in range(len(keys))]
    for i in range(len(keys)):
        for j in range(i):
            if set(keys[i]) & set(keys[j]):
                a, b = (next(group for group in groups if k in group) for k in (i, j))
                if a is not b:
                    groups.remove(b)
                    a |= b
    return groups


@pytest.mark.parametrize("seed", range(6))
def test_units_are_what_joining_two_by_two_gives(seed: int) -> None:
    rng = np.random.default_rng(seed)
    subject, clip, crc32 = rng.integers(-1, 12, 40), rng.integers(0, 30, 40), rng.integers(0, 35, 40)
    index = fake_index(
        rng.integers(0, 2, 40),
        classes=["live", "spoof"],
        subject=subject.astype(np.int32),
        clip=clip.astype(np.int32),
        crc32=crc32.astype(np.uint32),
    )
    keys: list[list[object]] = [
        [("clip", clip[i]), ("crc32", crc32[i]), ("subject", subject[i] if subject[i] >= 0 else f"none {i}")]
        for i in range(40)
    ]
    found = defaultdict(set)
    for i, unit in enumerate(units_of(index).tolist()):
        found[unit].add(i)
    assert sorted(map(sorted, found.values())) == sorted(map(sorted, linked(keys)))
    assert sorted(found) == list(range(len(found)))


@pytest.fixture(scope="module", params=[True, False], ids=["known", "unknown"])
def people(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[bool, Index]:
    return request.param, attack_set(tmp_path_factory.mktemp("people"), subjects=8, known=request.param)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_every_source_and_class_gives_its_share(people: tuple[bool, Index], share: float) -> None:
    known, index = people
    out = held_out(index, share)
    units = units_of(index)
    assert len(np.unique(units)) == (24 if known else len(index))
    for unit in np.unique(units):
        assert len(set(out[units == unit].tolist())) == 1
    label, attack, source = (index.columns[name] for name in ("label", "attack", "source"))
    for s in range(3):
        for kind in set(zip(label.tolist(), attack.tolist(), strict=True)):
            own = (source == s) & (label == kind[0]) & (attack == kind[1])
            number = 8 if known else 16
            assert out[own].sum() * number == round(share * number) * own.sum()


def test_the_choice_follows_from_the_content(tmp_path: Path) -> None:
    one, other = attack_set(tmp_path / "a", known=False), attack_set(tmp_path / "b", known=False, sources=("A",))
    first = {one.name(i) for i in np.flatnonzero(held_out(one, 0.3))}
    assert {name for name in first if name.startswith("A/")} == {
        other.name(i) for i in np.flatnonzero(held_out(other, 0.3))
    }


def test_nothing_can_be_spared_of_one_person() -> None:
    index = fake_index(np.array([0, 1, 1, 0]), subject=np.zeros(4, np.int32))
    with pytest.raises(ValueError, match="a part cannot be held out"):
        held_out(index, 0.5)
