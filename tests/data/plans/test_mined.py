"""Mined: seeds meet identities of their lists, nobody twice in a batch; a file that does not fit is refused."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fastface.data.plan import STREAMS, hash_numbers
from fastface.data.plans import Mined
from fastface.data.plans.neighbours import read_neighbours, write_neighbours
from tests.data.fake_index import fake_index
from tests.data.plain import feistel
from tests.data.plans.small import neighbours_of, small_index

INDEX = small_index()
COUNTS = np.bincount(INDEX.label, minlength=40)


def groups_of(plan: Mined, step: int) -> np.ndarray:
    """Return the identities of a step, int64 [seeds, 1 + neighbours], after looking at its images."""
    records = plan[step].records.reshape(-1, plan.images)
    labels = INDEX.label[records]
    assert (labels == labels[:, :1]).all()
    assert all(len(set(row)) == plan.images for row in records.tolist())
    people = labels[:, 0].astype(np.int64)
    assert len(set(people.tolist())) == len(people)  # nobody twice
    return people.reshape(plan.seeds, -1)


@pytest.mark.parametrize(("images", "neighbours", "batch"), [(2, 1, 16), (2, 3, 32), (3, 2, 18), (1, 4, 10)])
def test_nobody_comes_twice_or_with_too_few_images(tmp_path: Path, images: int, neighbours: int, batch: int) -> None:
    path = neighbours_of(INDEX, tmp_path)
    plan = Mined(INDEX, path, images, neighbours, batch, seed=0)
    assert plan.unit == images * (1 + neighbours)
    assert Mined(INDEX, path, images, neighbours, batch, seed=0, scope="global").unit == 1
    for step in range(2 * plan.steps_per_epoch):
        assert (COUNTS[groups_of(plan, step)] >= images).all()


def test_lists_without_conflicts_are_met_in_full(tmp_path: Path) -> None:
    """Rings of four: with two seeds of different rings every neighbour is free."""
    ring = np.array([[4 * (c // 4) + (c + k) % 4 for k in (1, 2, 3)] for c in range(4000)])
    index = fake_index(np.repeat(np.arange(4000), 2))
    path = tmp_path / "ring.npz"
    write_neighbours(path, ring, index.dataset_id)
    plan = Mined(index, path, 2, 3, 16, seed=1)
    whole = 0
    for step in range(200):
        groups = index.label[plan[step].records].reshape(2, 4, 2)[:, :, 0]
        rings = groups // 4
        if rings[0, 0] != rings[1, 0]:
            whole += 1
            assert (rings == rings[:, :1]).all()
            assert all(len(set(group)) == 4 for group in groups.tolist())
    assert whole > 190
    drawn = Mined(index, path, 2, 1, 16, seed=1)  # one of three: each about as often
    near = Counter()
    for step in range(300):
        for seed, other in index.label[drawn[step].records].reshape(4, 2, 2)[:, :, 0].tolist():
            near[(other - seed) % 4 if other // 4 == seed // 4 else 0] += 1
    assert all(near[k] > 300 for k in (1, 2, 3))
    assert near[0] < 30


def test_every_identity_is_a_seed_once_an_epoch_or_as_its_weight_says(tmp_path: Path) -> None:
    ids = np.full((40, 1), -1)
    path = tmp_path / "n.npz"
    write_neighbours(path, ids, INDEX.dataset_id)
    plan = Mined(INDEX, path, 2, 1, 16, seed=0)  # lists are empty: every neighbour is somebody at random
    people = np.flatnonzero(COUNTS >= 2)
    seeds = Counter(s for step in range(plan.steps_per_epoch) for s in groups_of(plan, step)[:, 0].tolist())
    assert sorted(seeds) == people.tolist()
    assert max(seeds.values()) <= 2
    weights = np.ones(40)
    weights[people[3]] = 10.0
    weights[people[4]] = 0.0
    write_neighbours(path, ids, INDEX.dataset_id, weights)
    plan = Mined(INDEX, path, 2, 1, 8, seed=0)
    seeds = Counter(s for step in range(20 * plan.steps_per_epoch) for s in groups_of(plan, step)[:, 0].tolist())
    total = 20 * plan.steps_per_epoch * 2
    expected = total * 10 / (10 + len(people) - 2)
    assert abs(seeds[int(people[3])] - expected) < 0.2 * expected  # somebody at random may hold its place
    assert seeds[int(people[4])] < total / len(people) / 4


def test_pairs_are_genuine_in_every_second_group_and_look_alike_in_the_others(tmp_path: Path) -> None:
    path = neighbours_of(INDEX, tmp_path)
    plain, plan = (Mined(INDEX, path, 2, 1, 24, seed=3, pairs=pairs) for pairs in (False, True))
    assert plan.describe() == {**plain.describe(), "pairs": True}
    lists = read_neighbours(path, INDEX).ids
    alike = 0
    for step in range(2 * plan.steps_per_epoch):
        groups, given = plan[step].records.reshape(6, 4), plain[step].records.reshape(6, 4)
        for number, (group, was) in enumerate(zip(groups.tolist(), given.tolist(), strict=True)):
            seed, other = INDEX.label[was[0]], INDEX.label[was[2]]
            kinds = [INDEX.label[a] == INDEX.label[b] for a, b in (group[:2], group[2:])]
            impostors = (number + step % plan.steps_per_epoch) % 2 == 1
            assert kinds == ([False, False] if impostors else [True, True])
            assert group == ([was[0], was[2], was[1], was[3]] if impostors else was)
            alike += impostors and other in lists[seed]
    assert alike > 0.4 * plan.steps_per_epoch * 6


def test_lists_can_be_exchanged(tmp_path: Path) -> None:
    """A plan that begins with nobody and is given a file's lists goes on as one that began with the file."""
    path = neighbours_of(INDEX, tmp_path)
    write_neighbours(path, read_neighbours(path, INDEX).ids, INDEX.dataset_id)  # without weights
    begun, later = Mined(INDEX, path, 2, 1, 16, seed=0), Mined(INDEX, None, 2, 1, 16, seed=0)
    assert later[3].records.tolist() != begun[3].records.tolist()
    later.use(read_neighbours(path, INDEX))
    for step in range(50):
        assert later[step].records.tolist() == begun[step].records.tolist()


def test_too_few_images_are_named_as_ever(tmp_path: Path) -> None:
    path = neighbours_of(INDEX, tmp_path)
    assert "identities have fewer than 2 images" in Mined(INDEX, path, 2, 1, 16, 0).notes[0]
    with pytest.raises(ValueError, match=r"set data\.plan\.too_few"):
        Mined(INDEX, path, 2, 1, 16, 0, too_few="refuse")
    plan = Mined(INDEX, path, 2, 1, 16, 0, too_few="repeat")
    assert set(range(40)) - {5} >= set(INDEX.label[plan[0].records].tolist())


def npz(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


GOOD = {"neighbours": np.full((40, 2), -1, np.int32), "dataset_id": np.array(INDEX.dataset_id)}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"neighbours": None}, "no array 'neighbours'"),
        ({"dataset_id": None}, "no array 'dataset_id'"),
        ({"dataset_id": np.array("other")}, "it is for dataset 'other', data.shards is"),
        (
            {"neighbours": np.full((39, 2), -1, np.int32)},
            "neighbours is int32 [39, 2], expected int32 [40, at least 1]",
        ),
        ({"neighbours": np.full((40, 2), -1, np.int64)}, "neighbours is int64"),
        ({"neighbours": np.full((40, 2), 40, np.int32)}, "runs from 40 to 40, there are classes 0 to 39"),
        ({"neighbours": np.tile(np.array([[-1, 3]], np.int32), (40, 1))}, "class 0 has a neighbour after -1"),
        ({"neighbours": np.tile(np.array([[3, -1]], np.int32), (40, 1))}, "class 3 is its own neighbour"),
        ({"weights": np.ones(39)}, "weights is float64 [39]"),
        ({"weights": np.zeros(40)}, "some of them positive"),
        ({"weights": np.full(40, np.nan)}, "must be finite"),
        ({"neighbours": np.array([{"a": 1}], object)}, "no .npz of plain arrays"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_files_that_do_not_fit_are_refused(tmp_path: Path, change: dict, expected: str) -> None:
    path = npz(tmp_path / "n.npz", **{k: v for k, v in (GOOD | change).items() if v is not None})
    with pytest.raises(ValueError, match=r"data\.plan\.file .*mine again") as caught:
        read_neighbours(path, INDEX)
    assert expected in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 nothing", b"\x80\x04.", b"x" * 1000])
def test_files_that_are_no_archives_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "n.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="mine again"):
        read_neighbours(path, INDEX)
    buffer = io.BytesIO()
    np.savez(buffer, **GOOD)
    path.write_bytes(buffer.getvalue()[:-30])
    with pytest.raises(ValueError, match="mine again"):
        read_neighbours(path, INDEX)
    with pytest.raises(ValueError, match="does not exist"):
        read_neighbours(tmp_path / "nothing.npz", INDEX)


def test_the_description_names_the_file_by_its_content(tmp_path: Path) -> None:
    a, b = tmp_path / "a.npz", tmp_path / "b.npz"
    for path in (a, b):
        write_neighbours(path, GOOD["neighbours"], INDEX.dataset_id)
    assert a.read_bytes() == b.read_bytes()
    assert Mined(INDEX, a, 2, 1, 8, 0).describe() == Mined(INDEX, b, 2, 1, 8, 0).describe()
    with pytest.raises(ValueError, match="lists 1 to 2 for each identity"):
        Mined(INDEX, a, 2, 3, 8, 0)
    with pytest.raises(ValueError, match=r"is not a multiple of .* = 4"):
        Mined(INDEX, a, 2, 1, 10, 0)


def slowly(plan: Mined, lists: np.ndarray, step: int) -> list[int]:
    """Draw a step in plain Python; the seeds as Shares (tested by itself) gives them."""
    epoch, position = divmod(step, plan.steps_per_epoch)
    key = hash_numbers(plan.seed, STREAMS["mined"], epoch, position)
    people = [person for person in range(40) if COUNTS[person] >= plan.images]
    seeds = [people[n] for n in plan._shares.at(epoch, np.array([position]))[0][0].tolist()]
    wanted: list[int | None] = list(seeds)
    for seed in seeds:
        listed = [n for n in lists[seed].tolist() if n >= 0 and n in people]
        draw = hash_numbers(key, STREAMS["neighbour"], seed)
        wanted += [listed[feistel(n, len(listed), draw)] if n < len(listed) else None for n in range(plan.neighbours)]
    taken: list[int | None] = []
    for person in wanted:
        taken.append(person if person in people and person not in taken else None)
    first, spare = key % len(people), hash_numbers(plan.seed, STREAMS["spare"])
    turn = (people[feistel((first + n) % len(people), len(people), spare)] for n in range(len(people)))
    fill = (person for person in turn if person not in taken)
    batch = [next(fill) if person is None else person for person in taken]
    others = batch[len(seeds) :]
    records = []
    for n, seed in enumerate(batch[: len(seeds)]):
        for person in [seed, *others[n * plan.neighbours : (n + 1) * plan.neighbours]]:
            own = np.flatnonzero(INDEX.label == person).tolist()
            image = hash_numbers(key, STREAMS["image"], person)
            records += [own[feistel(k % len(own), len(own), image)] for k in range(plan.images)]
    return records


@pytest.mark.parametrize(("images", "neighbours", "batch"), [(2, 1, 16), (2, 3, 48), (3, 2, 18), (1, 4, 30)])
def test_steps_are_what_plain_loops_give(tmp_path: Path, images: int, neighbours: int, batch: int) -> None:
    path = neighbours_of(INDEX, tmp_path)
    plan = Mined(INDEX, path, images, neighbours, batch, seed=2)
    lists = read_neighbours(path, INDEX).ids
    for step in [*range(2 * plan.steps_per_epoch), 777]:
        assert plan[step].records.tolist() == slowly(plan, lists, step)
