"""Selections: what is read of a shard set is what a loop over its records would take, by every column and plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastface.data.augment import Augment
from fastface.data.image_sets import open_images
from fastface.data.index import Index
from fastface.data.loader import Loader
from fastface.data.mixed_index import MixedIndex
from fastface.data.plans import PerIdentity, Sequential, Shuffled, Weighted, Windowed
from fastface.data.selection import SelectedIndex, Selection, select
from fastface.data.shards import ShardReader
from fastface.data.units import held_out
from tests.data.attack_sets import attack_set
from tests.data.fake_index import fake_index
from tests.data.plans.small import small_index


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Index:
    return attack_set(tmp_path_factory.mktemp("whole"))


def names_in(index: Index, column: str) -> list[str]:
    """Return the value of every record, by name."""
    if column == "label":
        return [index.classes[k] for k in index.label[:].tolist()]
    return [index.meta["values"][column][k] for k in index.columns[column][:].tolist()]


def taken(index: Index, only: Mapping[str, Sequence[str]], without: Mapping[str, Sequence[str]]) -> list[int]:
    """Go through the records one by one."""
    columns = {column: names_in(index, column) for column in {*only, *without}}
    return [
        i
        for i in range(len(index))
        if all(columns[column][i] in values for column, values in only.items())
        and not any(columns[column][i] in values for column, values in without.items())
    ]


CHOICES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"source": ["A", "C"]}, {}),
    ({"source": ["B"], "attack": ["none", "print"]}, {}),
    ({}, {"attack": ["replay"], "source": ["A"]}),
    ({"label": ["spoof"]}, {"attack": ["print"]}),
    ({"subject": ["A/000", "B/002"]}, {}),
]


@pytest.mark.parametrize(("only", "without"), CHOICES)
def test_records_columns_and_names_are_those_of_a_loop(whole: Index, only: Any, without: Any) -> None:
    (index,) = select([whole], Selection(only, without), "data")
    expected = taken(whole, only, without)
    assert isinstance(index, SelectedIndex)
    assert index.kept.tolist() == expected
    assert len(index) == index.num_samples == len(expected) < len(whole)
    assert [index.name(i) for i in range(len(index))] == [whole.name(i) for i in expected] == list(index.names)
    assert names_in(index, "label") == [names_in(whole, "label")[i] for i in expected]
    assert index.classes == sorted(set(names_in(index, "label")))
    for name, column in whole.columns.items():
        if len(column) == len(whole) and name not in ("label", "by_label"):
            assert (
                index.columns[name][:].tolist() == np.asarray(index.columns[name]).tolist() == column[expected].tolist()
            )
            assert index.columns[name].shape == (len(index),)
    for c in range(index.num_classes):
        own = index.by_label[index.label_start[c] : index.label_start[c + 1]]
        assert own.tolist() == np.flatnonzero(index.label == c).tolist()
    assert index.find([index.name(i) for i in range(len(index))]).tolist() == list(range(len(index)))
    with pytest.raises(ValueError, match="1 of 1 names are not in it"):
        index.find([whole.name(next(i for i in range(len(whole)) if i not in expected))])
    with ShardReader(index, check_crc=True) as reader, ShardReader(whole) as other:
        assert [bytes(v) for v in reader.views(np.arange(len(index)))] == [bytes(other.view(i)) for i in expected]


def test_what_was_taken_is_what_names_the_data_set(whole: Index) -> None:
    def chosen(*selection: Any) -> Index:
        return select([whole], Selection(*selection), "data")[0]

    some = chosen({"source": ["A", "B"]})
    assert some.dataset_id == chosen({}, {"source": ["C"]}).dataset_id
    assert len({whole.dataset_id, some.dataset_id, chosen({"source": ["A"]}).dataset_id}) == 3
    assert chosen({"source": ["A", "B", "C"]}) is whole
    assert chosen({"source": ["A"]}).image_size == (24, 24)  # the sources differ in size
    assert whole.image_size is None


@pytest.mark.parametrize("seed", range(4))
def test_numbers_without_names_are_values_too(seed: int) -> None:
    index = small_index(seed=seed)
    (some,) = select([index], Selection({"attack": ["0", "2"]}, {"label": ["person 03", "person 07"]}), "data")
    expected = [i for i in range(300) if index.columns["attack"][i] != 1 and index.label[i] not in (3, 7)]
    assert some.columns["attack"][:].tolist() == index.columns["attack"][expected].tolist()
    there = sorted({int(index.label[i]) for i in expected})
    assert some.classes == [index.classes[k] for k in there]


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_plans_take_a_selection_as_any_other_set(shards: int) -> None:
    index = fake_index(np.arange(60) // 6, shards=10, tone=(np.arange(60) // 6 % 3).astype(np.int32))
    (some,) = select([index], Selection({"tone": ["1"]}), "data")
    assert some.num_shards == 10  # seven of them, or so, hold nothing of it
    for plan in (
        Shuffled(len(some), 6, 0),
        Windowed(some, shards, 6, 0),
        PerIdentity(some, 2, 6, 0),
        Weighted(some, "tone", 6, 0),
    ):
        seen = [plan[step].records for step in range(plan.steps_per_epoch)]
        assert (index.columns["tone"][some.kept[np.concatenate(seen)]] == 1).all()
    windowed = Windowed(some, shards, 6, 0)
    full = {shard for shard in range(10) if some.meta["shards"][shard]["samples"]}
    for step in range(7):
        located = some.locate(windowed[step].records)
        assert set(located.shard.tolist()) <= set(windowed.shards_of(step)) <= full
        assert located.offset.tolist() == index.offset[some.kept[windowed[step].records]].tolist()


def test_a_mixture_of_selections(whole: Index) -> None:
    other = small_index(90, 12, seed=1)
    first, second = select([whole, other], Selection({}, {"label": ["live", "person 03"]}), "data")
    mixed = MixedIndex([first, second], "separate")
    names = [mixed.classes[k].split("/")[-1] for k in mixed.label[:].tolist()]
    assert len(mixed) == len(first) + len(second) < len(whole) + 90
    assert not {"live", "person 03"} & set(names)
    assert mixed.columns["attack"][:].tolist() == [*first.columns["attack"][:], *second.columns["attack"][:]]
    records = np.random.default_rng(0).integers(0, len(mixed), 50)
    assert mixed.locate(records).offset.tolist() == np.asarray(mixed.offset)[records].tolist()


def test_the_loader_reads_it_and_damage_is_replaced_within_it(tmp_path: Path) -> None:
    index = attack_set(tmp_path, size=24)
    (some,) = select([index], Selection({"source": ["B"], "label": ["live"]}), "data")
    record = int(some.kept[2])
    path = index.shard_path(int(index.shard[record]))
    data = bytearray(path.read_bytes())
    data[int(index.offset[record]) + 100] ^= 1
    path.write_bytes(data)
    options: dict = {"augment": Augment(0), "decoder": "torch", "size": (24, 24), "micro_batch": 2, "max_damaged": 0.2}
    with Loader(some, Sequential(len(some), 4), **options) as loader:
        seen = np.concatenate([batch.records for batch in loader.batches(0, 2)])
        assert [bad.name for bad in loader.damage.news()] == [some.name(2)]
    assert seen.tolist() == [0, 1, 3, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection({"sorce": ["A"]}), r"data.only 'sorce': .* no such column, perhaps you meant 'source'; there are "),
        (
            Selection({}, {"attack": ["prnt"]}),
            r"data.without.attack 'prnt': .* perhaps you meant 'print'; there are none",
        ),
        (Selection({"offset": ["1"]}), "no such column"),
        (Selection({"source": ["A"]}, {"source": ["A"]}), r"only .*'A'.* and without .* leave nothing of "),
    ],
)
def test_errors_name_what_there_is(whole: Index, selection: Selection, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        select([whole], selection, "data")


def test_an_evaluation_set_takes_a_selection_of_shards_only(whole: Index, tmp_path: Path) -> None:
    images = open_images(whole.path, selection=Selection({"source": ["A"]}))
    assert [images.name(i)[0] for i in range(len(images))] == ["A"] * 24
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match="no shard set: only, without and held_out select by the columns of one"):
        open_images(tmp_path, selection=Selection({"source": ["A"]}))


def test_what_is_held_out_is_what_training_leaves(whole: Index) -> None:
    (rest,) = select([whole], Selection(share=0.25), "data")
    (share,) = select([whole], Selection(share=0.25, part="share"), "data")
    assert isinstance(rest, SelectedIndex)
    assert isinstance(share, SelectedIndex)
    assert sorted([*rest.kept.tolist(), *share.kept.tolist()]) == list(range(len(whole)))
    assert share.kept.tolist() == np.flatnonzero(held_out(whole, 0.25)).tolist()
    assert set(names_in(share, "subject")).isdisjoint(names_in(rest, "subject"))
