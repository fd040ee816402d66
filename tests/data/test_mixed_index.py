"""Several shard sets read as one: every column, name and byte is that of its source; labels apart or merged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastface.data.augment import Augment
from fastface.data.index import Index
from fastface.data.loader import Loader
from fastface.data.mixed_index import Labels, MixedIndex
from fastface.data.plans import Sequential, Weighted
from fastface.data.shards import ShardReader
from tests.data import tiny
from tests.data.fake_index import fake_index
from tests.data.plans.small import small_index

SETS = [small_index(300, seed=0), small_index(90, 12, seed=1), small_index(50, 45, seed=2)]
STARTS = [0, 300, 390, 440]


@pytest.mark.parametrize("labels", ["separate", "merge-by-name"])
def test_columns_are_those_of_the_sources(labels: Labels) -> None:
    mixed = MixedIndex(SETS, labels)
    assert len(mixed) == mixed.num_samples == 440
    records = np.random.default_rng(0).integers(0, 440, (7, 11))
    names = [mixed.classes[int(label)] for label in mixed.labels_of(np.arange(440))]
    shards = np.cumsum([0, *(s.num_shards for s in SETS)])
    for n, source in enumerate(SETS):
        rows = slice(STARTS[n], STARTS[n + 1])
        own = [source.classes[int(label)] for label in source.label]
        assert names[rows] == (own if labels == "merge-by-name" else [f"{source.path}/{name}" for name in own])
        assert mixed.shard[rows].tolist() == (source.shard + shards[n]).tolist()
        assert np.array_equal(mixed.shard_start[shards[n] : shards[n + 1]], source.shard_start[:-1] + STARTS[n])
        for column in ("offset", "length", "crc32", "attack", "clip", "time_ms"):
            assert mixed.columns[column][rows].tolist() == source.columns[column].tolist()
            assert mixed.columns[column].dtype == source.columns[column].dtype
    for name, column in mixed.columns.items():
        whole = np.asarray(column)
        assert len(column) == len(whole)
        assert column[:].tolist() == whole.tolist()
        assert column[280:395].tolist() == whole[280:395].tolist()
        if name != "label_start":
            assert column[records].tolist() == whole[records].tolist()
            assert column[records].dtype == column.dtype
            assert int(column[333]) == whole[333]
    located = mixed.locate(records.ravel())
    assert located.offset.tolist() == np.asarray(mixed.offset)[records.ravel()].tolist()


@pytest.mark.parametrize("labels", ["separate", "merge-by-name"])
def test_records_by_label_are_all_of_a_class(labels: Labels) -> None:
    mixed = MixedIndex(SETS, labels)
    label = np.asarray(mixed.label)
    assert len(mixed.label_start) == mixed.num_classes + 1
    for c in range(mixed.num_classes):
        own = mixed.by_label[np.arange(mixed.label_start[c], mixed.label_start[c + 1])]
        assert own.tolist() == np.flatnonzero(label == c).tolist()
    assert mixed.num_classes == (45 if labels == "merge-by-name" else 40 + 12 + 45)
    assert len(set(mixed.classes)) == mixed.num_classes
    assert mixed.classes == sorted(mixed.classes) or labels == "separate"


def test_nothing_is_copied() -> None:
    mixed = MixedIndex(SETS, "separate")
    for part, source in zip(mixed.columns["offset"].parts, SETS, strict=True):  # type: ignore[attr-defined]
        assert np.shares_memory(part, source.offset)


def test_a_column_that_one_source_lacks_is_left_out() -> None:
    eyes, boxes = np.arange(20.0).reshape(5, 2, 2), np.zeros(7)
    ones = fake_index(np.zeros(5, int), name="ones", eyes=eyes, boxes=boxes, odd=np.zeros((5, 2)))
    more = fake_index(np.zeros(5, int), name="more", eyes=eyes + 100, boxes=boxes, odd=np.zeros((5, 3)))
    mixed = MixedIndex([ones, more], "separate")
    assert mixed.columns["eyes"].shape == (10, 2, 2)
    assert mixed.columns["eyes"][np.array([[4, 5]])].tolist() == [[eyes[4].tolist(), (eyes[0] + 100).tolist()]]
    assert mixed.columns["eyes"][3:7].tolist() == np.concatenate([eyes, eyes + 100])[3:7].tolist()
    assert not {"boxes", "odd"} & set(mixed.columns)  # one value per record, of one shape
    with pytest.raises(ValueError, match="no such column to balance"):
        Weighted(mixed, "eyes", 4, 0)
    mixed = MixedIndex([SETS[0], ones], "separate")
    assert "attack" not in mixed.columns
    with pytest.raises(ValueError, match="no such column to balance"):
        Weighted(mixed, "attack", 4, 0)


def test_columns_of_a_mixture_can_be_balanced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastface.data.plans.pools.CHUNK", 64)
    mixed = MixedIndex(SETS, "separate")
    plan = Weighted(mixed, "attack", 30, 0)
    assert np.bincount(mixed.columns["attack"][plan[3].records]).tolist() == [10, 10, 10]


def test_identity_and_options() -> None:
    ids = {MixedIndex(SETS, "separate").dataset_id, MixedIndex(SETS, "merge-by-name").dataset_id}
    ids |= {MixedIndex(SETS[::-1], "separate").dataset_id, MixedIndex(SETS[:2], "separate").dataset_id}
    assert len(ids) == 4
    assert MixedIndex(SETS, "separate").dataset_id in ids
    assert MixedIndex(SETS, "separate").image_size == (112, 112)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> list[Index]:
    folders = [tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")]
    return [tiny.make_shards(folders[0], people=4), tiny.make_shards(folders[1], people=6, images=5)]


def test_the_reader_and_the_loader_take_it_as_it_is(real: list[Index]) -> None:
    mixed = MixedIndex(real, "merge-by-name")
    assert mixed.num_classes == 6  # person 0 to 3 are in both
    readers = [ShardReader(index) for index in real]
    with ShardReader(mixed, check_crc=True) as reader:
        for record in range(len(mixed)):
            which, own = (0, record) if record < len(real[0]) else (1, record - len(real[0]))
            assert bytes(reader.view(record)) == bytes(readers[which].view(own))
            assert mixed.name(record) == real[which].name(own)
            shard = int(mixed.shard[record])
            assert mixed.shard_path(shard) == real[which].shard_path(int(real[which].shard[own]))
            assert mixed.shard_bytes(shard) == mixed.shard_path(shard).stat().st_size
            assert mixed.classes[int(mixed.label[record])] == mixed.name(record).split("/")[0]
    options: dict = {"augment": Augment(0), "decoder": "torch", "size": (tiny.WIDTH, tiny.HEIGHT), "micro_batch": 2}
    with Loader(mixed, Sequential(len(mixed), 8), **options) as loader:
        seen = [(batch.records, batch.labels.numpy().copy()) for batch in loader.batches(0, 8)]
    assert np.concatenate([records for records, _ in seen]).tolist() == list(range(62))
    assert np.concatenate([labels for _, labels in seen]).tolist() == np.asarray(mixed.label).tolist()


def test_damage_is_named_in_the_source_it_is_in(real: list[Index], tmp_path: Path) -> None:
    other = tiny.make_shards(tmp_path, people=2)
    mixed = MixedIndex([real[0], other], "separate")
    record = len(real[0]) + 3
    path = other.shard_path(0)
    data = bytearray(path.read_bytes())
    data[int(other.offset[3]) + 100] ^= 1
    path.write_bytes(data)
    with ShardReader(mixed, check_crc=True) as reader, pytest.raises(ValueError, match="crc32") as caught:
        reader.view(record)
    for part in (str(path), other.name(3), f"check_shards.py {real[0].path} {other.path}"):
        assert part in str(caught.value)


def test_errors_say_what_to_do(real: list[Index]) -> None:
    with pytest.raises(ValueError, match="two shard sets or more"):
        MixedIndex(SETS[:1], "separate")
    with pytest.raises(ValueError, match="choose separate or merge-by-name"):
        MixedIndex(SETS, "merge")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="twice: give it once, with more weight"):
        MixedIndex([real[0], real[0]], "separate")
    mixed = MixedIndex(real, "separate")
    with pytest.raises(ValueError, match="look for names in one of them"):
        mixed.find(["a"])
    with pytest.raises(IndexError, match="record 62 of 62"):
        mixed.name(62)
