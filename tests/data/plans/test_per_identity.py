"""P x K: every identity once an epoch, no image twice while there are others, and who has too few is named."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from fastface.data.plan import hash_numbers
from fastface.data.plans import PerIdentity
from tests.data.fake_index import fake_index
from tests.data.plain import feistel
from tests.data.plans.small import small_index

INDEX = small_index()
COUNTS = np.bincount(INDEX.label, minlength=INDEX.num_classes)


def slowly(k: int, batch: int, seed: int, step: int) -> list[int]:
    """Draw a step in plain Python, as the docstrings say it."""
    people = [c for c in range(INDEX.num_classes) if COUNTS[c] >= k]
    per_batch = batch // k
    epoch, position = divmod(step, -(-len(people) // per_batch))
    records = []
    for number in range(position * per_batch, (position + 1) * per_batch):
        again, number = divmod(number, len(people))
        person = people[feistel(number, len(people), hash_numbers(seed, epoch))]
        own = [int(r) for r in np.flatnonzero(INDEX.label == person)]
        cycle, visit = divmod(epoch + again, -(-len(own) // k))
        key = hash_numbers(hash_numbers(seed, 2), person, cycle)
        records += [own[feistel((visit * k + item) % len(own), len(own), key)] for item in range(k)]
    return records


@pytest.mark.parametrize(("k", "batch"), [(1, 8), (2, 32), (3, 9), (5, 20)])
def test_steps_are_what_plain_loops_give(k: int, batch: int) -> None:
    plan = PerIdentity(INDEX, k, batch, seed=3)
    for step in [*range(2 * plan.steps_per_epoch), 1000]:
        assert plan[step].records.tolist() == slowly(k, batch, 3, step)


@pytest.mark.parametrize(("k", "batch"), [(2, 32), (4, 16), (5, 20)])
def test_an_epoch_visits_every_identity_with_images_of_its_own(k: int, batch: int) -> None:
    plan = PerIdentity(INDEX, k, batch, seed=0)
    people = np.flatnonzero(k <= COUNTS)
    again = plan.steps_per_epoch * batch // k - len(people)
    assert 0 <= again < batch // k
    twice = []
    for epoch in range(4):
        visits: Counter[int] = Counter()
        for step in range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch):
            records = plan[step].records.reshape(-1, k)
            labels = INDEX.label[records]
            assert (labels == labels[:, :1]).all()  # neighbouring rows
            assert len(set(labels[:, 0].tolist())) == batch // k
            assert all(len(set(row)) == k for row in records.tolist())
            visits.update(labels[:, 0].tolist())
        assert sorted(visits) == people.tolist()
        assert sorted(visits.values()) == [1] * (len(people) - again) + [2] * again
        twice.append(tuple(person for person, count in visits.items() if count == 2))
    assert len(set(twice)) > 1 or not again


def test_all_images_come_to_be_used_and_about_equally_often() -> None:
    k, epochs = 3, 60
    plan = PerIdentity(INDEX, k, 9, seed=1)
    used: Counter[int] = Counter()
    for step in range(epochs * plan.steps_per_epoch):
        used.update(plan[step].records.tolist())
    for person in np.flatnonzero(k <= COUNTS):
        images = np.flatnonzero(INDEX.label == person)
        cycle = -(-len(images) // k)  # visits after which every image was used
        uses = [used[int(i)] for i in images]
        assert min(uses) >= epochs // cycle
        assert max(uses) <= 2 * (-(-epochs // cycle)) + epochs // 4


def test_too_few_images_are_left_out_repeated_or_refused_and_named() -> None:
    index = fake_index(np.array([0, 0, 0, 1, 2, 2, 2, 2, 4]), classes=["Ada", "Bo", "Cy", "Di", "Eve"])
    plan = PerIdentity(index, 3, 6, 0)
    assert plan.notes == ["2 of 4 identities have fewer than 3 images: 'Bo', 'Eve'; they are left out"]
    assert set(index.label[plan[0].records].tolist()) == {0, 2}
    plan = PerIdentity(index, 3, 12, 0, too_few="repeat")
    assert plan.notes == ["2 of 4 identities have fewer than 3 images: 'Bo', 'Eve'; their images are repeated"]
    records = plan[0].records.reshape(-1, 3)
    assert sorted(index.label[records[:, 0]].tolist()) == [0, 1, 2, 4]  # nobody who has no image
    assert [3, 3, 3] in records.tolist()
    with pytest.raises(ValueError, match=r"2 of 4 identities .* 'Bo', 'Eve'; set data\.plan\.too_few"):
        PerIdentity(index, 3, 6, 0, too_few="refuse")
    many = fake_index(np.arange(9), classes=list("abcdefghi"))
    with pytest.raises(ValueError, match=re.escape("'a', 'b', 'c', 'd', 'e' and 4 more")):
        PerIdentity(many, 2, 2, 0, too_few="refuse")
    repeated = PerIdentity(fake_index(np.array([0, 0, 1, 1])), 5, 10, 0, too_few="repeat")
    for step in range(20):  # two images in five rows: twice and three times, never one image alone
        for row in repeated[step].records.reshape(2, 5).tolist():
            assert sorted(Counter(row).values()) == [2, 3]


def test_the_scope_says_which_rows_stay_together() -> None:
    rank, batch = PerIdentity(INDEX, 4, 16, 0), PerIdentity(INDEX, 4, 16, 0, scope="global")
    assert (rank.unit, batch.unit) == (4, 1)
    assert rank[3].records.tolist() == batch[3].records.tolist()


@pytest.mark.parametrize("steps", [1, 7, 1000])
def test_another_length_of_an_epoch_changes_no_step(steps: int) -> None:
    usual, named = PerIdentity(INDEX, 3, 9, 5), PerIdentity(INDEX, 3, 9, 5, steps_per_epoch=steps)
    assert named.steps_per_epoch == steps
    for step in [*range(2 * usual.steps_per_epoch + 1), 5000]:
        assert named[step].records.tolist() == usual[step].records.tolist() == slowly(3, 9, 5, step)


def test_errors_say_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"batch_size 250 is not a multiple of data\.plan\.images = 4"):
        PerIdentity(INDEX, 4, 250, 0)
    with pytest.raises(ValueError, match=r"128 rows is 64 identities x 2 images, and fake has \d+ identities"):
        PerIdentity(INDEX, 2, 128, 0)
