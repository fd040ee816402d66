"""Weighted: every value has its share of each batch, and its images are used evenly."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from fastface.data.index import Index
from fastface.data.plan import STREAMS, hash_numbers
from fastface.data.plans import Weighted, build_plan
from fastface.data.plans.pools import by_column
from fastface.plan_settings import WeightedPlan
from tests.data.fake_index import fake_index
from tests.data.plain import feistel
from tests.data.plans.small import small_index

INDEX = small_index()
ATTACK = INDEX.columns["attack"]


def epoch_of(plan: Weighted, number: int) -> np.ndarray:
    """Return the records of an epoch: int64 [steps, B]."""
    first = number * plan.steps_per_epoch
    return np.stack([plan[first + step].records for step in range(plan.steps_per_epoch)])


@pytest.mark.parametrize("batch", [3, 10, 32])
def test_values_of_a_column_share_every_batch_equally(batch: int) -> None:
    plan = Weighted(INDEX, "attack", batch, seed=0)
    assert plan.steps_per_epoch == -(-len(INDEX) // batch)
    for epoch in range(3):
        records = epoch_of(plan, epoch)
        for row in records:
            counts = np.bincount(ATTACK[row], minlength=3)
            assert counts.min() >= batch // 3
            assert counts.max() <= -(-batch // 3)
        for value in range(3):
            own = np.flatnonzero(value == ATTACK)
            uses = Counter(records[ATTACK[records] == value].tolist())
            times = [uses[int(record)] for record in own]
            assert max(times) - min(times) <= 1  # evenly within an epoch, whether it has enough or not


def test_a_value_with_more_than_its_share_goes_on_in_later_epochs() -> None:
    plan = Weighted(INDEX, "attack", 30, seed=0)
    common = np.flatnonzero(ATTACK == 0)
    share = 100  # of 300 rows
    epochs = -(-len(common) // share)
    assert epochs > 1
    seen: set[int] = set()
    for epoch in range(epochs):
        seen |= set(epoch_of(plan, epoch).ravel().tolist())
    assert set(common.tolist()) <= seen


def test_more_classes_than_rows_come_by_turns() -> None:
    plan = Weighted(INDEX, "label", 8, seed=2)
    people = np.flatnonzero(np.bincount(INDEX.label, minlength=40))
    share = plan.steps_per_epoch * 8 / len(people)
    for epoch in range(3):
        records = epoch_of(plan, epoch)
        assert all(len(set(row)) == 8 for row in INDEX.label[records].tolist())  # never one twice
        counts = np.bincount(INDEX.label[records].ravel(), minlength=40)[people]
        assert counts.min() >= np.floor(share)
        assert counts.max() <= np.ceil(share)


def test_weights_are_kept_and_nothing_may_be_left_of_a_value() -> None:
    plan = Weighted(INDEX, "attack", 40, seed=0, weights={"1": 0.5, "2": 0})
    assert plan.size == int((ATTACK < 2).sum())
    for row in epoch_of(plan, 0):
        counts = np.bincount(ATTACK[row], minlength=3)
        assert counts[2] == 0
        assert counts[0] in (26, 27)  # 2/3 of 40
    plan = Weighted(INDEX, "label", 10, seed=0, weights={"person 00": 9.0})
    share = np.mean(INDEX.label[epoch_of(plan, 0)] == 0)
    assert share == pytest.approx(9 / (9 + 38 - sum(c == 0 for c in np.bincount(INDEX.label)[1:39])), abs=0.06)


@pytest.mark.parametrize(
    "column",
    [
        np.array([3, -1, 3, 7, -1, 3], np.int32),
        np.array([-128, 127, 0, 127, 5, 0], np.int8),
        np.array([10**9, 5, 10**9, 2**31 - 1, 5, 5], np.int32),
        np.array([0.5, 0.25, 0.5, 4.0, 0.25, 0.5], np.float32),
    ],
    ids=["narrow", "int8", "wide", "float"],
)
def test_records_are_sorted_by_value(column: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastface.data.plans.pools.CHUNK", 4)
    pools, values = by_column(fake_index(np.zeros(6, int), tone=column), "tone")
    assert values.tolist() == np.unique(column).tolist()
    for group, value in enumerate(values):
        own = pools.order[pools.start[group] : pools.start[group + 1]]
        assert own.tolist() == np.flatnonzero(column == value).tolist()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"column": "atack"}, "no such column to balance, perhaps you meant 'attack'; there are "),
        ({"column": "offset"}, "no such column"),
        ({"column": "attack", "weights": {"4": 1.0}}, "'4', which is no value of attack in fake"),
        ({"column": "label", "weights": {"persn 07": 1.0}}, "perhaps you meant 'person 07'"),
        ({"column": "attack", "weights": {"1": -1.0}}, "1 has weight -1.0"),
        ({"column": "attack", "weights": {"0": 0, "1": 0, "2": 0}}, "leaves no value of attack"),
    ],
)
def test_errors_name_what_there_is(options: dict[str, Any], expected: str) -> None:
    column = options.pop("column")
    with pytest.raises(ValueError, match=r".") as caught:
        Weighted(INDEX, column, 8, 0, **options)
    assert expected in str(caught.value)


@pytest.mark.parametrize(("column", "batch"), [("attack", 10), ("label", 7)])
def test_steps_are_what_plain_loops_give(column: str, batch: int) -> None:
    """Lay out an epoch's rows value by value in its order; every step takes its point of each stratum."""
    plan = Weighted(INDEX, column, batch, seed=6)
    values = np.asarray(INDEX.label if column == "label" else ATTACK)
    own = [np.flatnonzero(values == value).tolist() for value in np.unique(values)]
    steps = -(-len(INDEX) // batch)
    share, rest = divmod(batch * steps, len(own))
    strata = np.argsort(np.argsort([row * (5**0.5 - 1) / 2 % 1 for row in range(batch)])).tolist()
    stride = max(1, round(steps * (5**0.5 - 1) / 2))
    while math.gcd(stride, steps) > 1:
        stride += 1
    for epoch in range(2):
        key = hash_numbers(6, STREAMS["share"], epoch)
        rows: list[int] = []
        for place in range(len(own)):
            value = feistel(place, len(own), key)
            before, after = ((key >> 40) / 2**24 + n * rest / len(own) + 1e-9 for n in (place, place + 1))
            more = math.floor(after) - math.floor(before)
            most, images = share + (rest > 0), own[value]
            cycle, visit = divmod(epoch, -(-len(images) // most))
            image_key = hash_numbers(hash_numbers(6, STREAMS["image"]), value_id(column, value), cycle)
            for number in range(share + more):
                rows.append(images[feistel((visit * most + number) % len(images), len(images), image_key)])
        for step in range(steps):
            expected = [rows[stratum * steps + step * stride % steps] for stratum in strata]
            assert plan[epoch * steps + step].records.tolist() == expected


def value_id(column: str, value: int) -> int:
    """Return the number that a value has: classes have their label, though nobody may have it."""
    return int(np.unique(INDEX.label)[value]) if column == "label" else value


def liveness_like(seed: int) -> Index:
    """Draw live images and, by far fewer, spoofs of three attacks; live has attack 0, spoofs 2, 3 and 7."""
    rng = np.random.default_rng(seed)
    label = (rng.random(200) < 0.3).astype(np.int64)
    attack = np.where(label, rng.choice([2, 3, 7], 200, p=[0.7, 0.2, 0.1]), 0)
    index = fake_index(label, classes=["live", "spoof"], attack=attack.astype(np.int32))
    index.meta["values"] = {"attack": ["none", "cut", "mask", "print"]}
    return index


def nested_shares(rows: list[tuple[int, ...]], weight: Callable[[int, int], float]) -> dict[tuple[int, ...], Fraction]:
    """Share out level by level: `weight(level, value)` among the values that follow one prefix."""
    shares = {(): Fraction(1)}
    for level in range(len(rows[0])):
        below: dict[tuple[int, ...], Fraction] = {}
        for prefix, share in shares.items():
            values = sorted({row[level] for row in rows if row[:level] == prefix})
            total = sum(Fraction(weight(level, value)) for value in values)
            for value in values:
                below[(*prefix, value)] = share * Fraction(weight(level, value)) / total
        shares = below
    return shares


@pytest.mark.parametrize(
    ("columns", "weights"),
    [
        (("label", "attack"), {}),
        (("attack", "label"), {}),
        (("label", "attack"), {"print": 2.0, "live": 3.0}),
        (("label", "attack"), {"mask": 0.0}),
    ],
)
@pytest.mark.parametrize("batch", [8, 12, 32])
def test_each_column_is_shared_out_within_those_before(
    columns: tuple[str, ...], weights: dict[str, float], batch: int
) -> None:
    index = liveness_like(batch)
    names = {"live": ("label", 0), "print": ("attack", 3), "mask": ("attack", 2)}
    given = {names[name]: value for name, value in weights.items()}
    gone = {key for key, value in given.items() if not value}
    values = {column: np.asarray(index.columns[column]) for column in columns}
    every = [tuple(int(values[column][i]) for column in columns) for i in range(len(index))]
    used = [row for row in every if not gone & set(zip(columns, row, strict=True))]
    shares = nested_shares(used, lambda level, value: given.get((columns[level], value), 1.0))
    plan = Weighted(index, columns, batch, seed=1, weights=weights)
    assert plan.size == len(used)
    counts: Counter[tuple[int, ...]] = Counter()
    for step in range(2 * plan.steps_per_epoch):
        own = Counter(every[record] for record in plan[step].records.tolist())
        for row, share in shares.items():
            assert math.floor(batch * share) <= own[row] <= math.ceil(batch * share)
        counts += own
    assert set(counts) == set(shares)
    uses = Counter(record for step in range(plan.steps_per_epoch) for record in plan[step].records.tolist())
    for row in shares:
        times = [uses[i] for i in range(len(index)) if every[i] == row]
        assert max(times) - min(times) <= 1


def test_half_is_live_and_every_attack_has_its_part() -> None:
    index = liveness_like(0)
    plan = build_plan(WeightedPlan(columns=("label", "attack")), index, 30, seed=0)
    for step in range(plan.steps_per_epoch):
        attacks = index.columns["attack"][plan[step].records]
        assert [int((attacks == value).sum()) for value in (0, 2, 3, 7)] == [15, 5, 5, 5]
    assert plan.describe()["column"] == ["label", "attack"]


def test_several_columns_have_their_errors() -> None:
    index = liveness_like(0)
    with pytest.raises(ValueError, match="no such column to balance, perhaps you meant 'attack'"):
        Weighted(index, ("label", "atack"), 8, 0)
    with pytest.raises(ValueError, match=r"'prnt', which is no value of label or attack in .*meant 'print'"):
        Weighted(index, ("label", "attack"), 8, 0, weights={"prnt": 2.0})
    index.meta["values"]["attack"][3] = "spoof"
    with pytest.raises(ValueError, match="'spoof', which is a value of label and of attack"):
        Weighted(index, ("label", "attack"), 8, 0, weights={"spoof": 2.0})
    with pytest.raises(ValueError, match="either column or columns"):
        WeightedPlan(column="attack", columns=("label",))
    with pytest.raises(ValueError, match="name one twice"):
        WeightedPlan(columns=("label", "label"))
