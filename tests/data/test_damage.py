"""Damaged shards: every bad image is named once and replaced alike everywhere; the run goes on, up to a limit."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import simplejpeg

from fastface.data.augment import Augment
from fastface.data.damage import Damage
from fastface.data.index import Index
from fastface.data.loader import Loader
from fastface.data.mixed_index import MixedIndex
from fastface.data.plan import Plan
from fastface.data.plans import Sequential, Shuffled
from fastface.data.shards import ShardReader
from tests.data import tiny

SIZE = (tiny.WIDTH, tiny.HEIGHT)
CPU_DECODERS = ["torch", pytest.param("dali-cpu", marks=pytest.mark.dali)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Index:
    return tiny.make_shards(tmp_path_factory.mktemp("whole"), people=6)


def copy_of(whole: Index, folder: Path) -> Index:
    shutil.copytree(whole.path, folder / "shards")
    return Index.open(folder / "shards")


def place(index: Index, record: int) -> tuple[Path, int, int]:
    return index.shard_path(int(index.shard[record])), int(index.offset[record]), int(index.length[record])


def write_into(index: Index, record: int, change: Callable[[bytes], bytes]) -> None:
    """Change the bytes of a record in place, without changing their number."""
    path, start, length = place(index, record)
    data = bytearray(path.read_bytes())
    new = change(bytes(data[start : start + length]))
    assert len(new) == length
    data[start : start + length] = new
    path.write_bytes(data)


def flipped_bit(data: bytes) -> bytes:
    return data[:-12] + bytes([data[-12] ^ 4]) + data[-11:]


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "bit": flipped_bit,
    "text": lambda data: b"x" * len(data),
    "zeros": lambda data: bytes(len(data)),
    "half": lambda data: data[: len(data) // 2] + bytes(len(data) - len(data) // 2),
}


def loader_of(index: Index, plan: Plan, **options: object) -> Loader:
    defaults: dict = {"decoder": "torch", "micro_batch": 2, "size": SIZE, "augment": Augment(), "threads": 2}
    return Loader(index, plan, **(defaults | {"check_crc": True, "max_damaged": 0.5} | options))


def expected(whole: Index, plan: Plan, step: int, replaced: dict[int, int]) -> list[tuple[int, int, np.ndarray]]:
    """Make a step the slow way from the undamaged set: (record, label, normalised image)."""
    slots, reader = plan[step], ShardReader(whole)
    rows = []
    for record, flip in zip(slots.records.tolist(), Augment().draw(slots).flip, strict=True):
        record = replaced.get(record, record)
        pixels = simplejpeg.decode_jpeg(reader.view(record)).astype(np.float32)
        planes = (pixels[:, ::-1] if flip else pixels).transpose(2, 0, 1)
        rows.append((record, int(whole.label[record]), (planes - np.float32(127.5)) * np.float32(1 / 127.5)))
    return rows


def assert_steps_equal(loaders: list[Loader], whole: Index, replaced: dict[int, int], start: int, stop: int) -> None:
    ranks = [
        [
            (b.step, r, int(label), image.numpy().copy())
            for b in loader.batches(start, stop)
            for r, label, image in zip(b.records.tolist(), b.labels, b.images, strict=True)
        ]
        for loader in loaders
    ]
    for step in range(start, stop):
        rows = [row[1:] for rank in ranks for row in rank if row[0] == step]
        for got, want in zip(rows, expected(whole, loaders[0].plan, step, replaced), strict=True):
            assert got[:2] == want[:2]
            assert np.array_equal(got[2], want[2])


def next_of_identity(whole: Index, record: int, bad: set[int]) -> int:
    """Look for the stand-in in the most obvious way."""
    own = [r for r in range(len(whole)) if whole.label[r] == whole.label[record]]
    after = own[own.index(record) + 1 :] + own[: own.index(record)]
    return next(r for r in after if r not in bad)


@pytest.mark.parametrize("decoder", CPU_DECODERS)
@pytest.mark.parametrize("world", [1, 2, 4])
def test_bad_images_are_replaced_alike_on_every_rank(whole: Index, tmp_path: Path, decoder: str, world: int) -> None:
    index = copy_of(whole, tmp_path)
    own = [r for r in range(len(index)) if index.label[r] == 2]
    bad = {own[0], own[1], own[-1], 5, 29}  # two neighbours and the end of a circle among them
    for record, change in zip(sorted(bad), [*CHANGES, "bit"], strict=True):
        write_into(index, record, CHANGES[change])
    replaced = {record: next_of_identity(whole, record, bad) for record in bad}
    plan = Shuffled(len(index), 8, seed=3)
    loaders = [loader_of(index, plan, decoder=decoder, rank=rank, world=world) for rank in range(world)]
    for start, stop in [(0, 13), (4, 9)]:  # two epochs, then again from the middle, now knowing
        assert_steps_equal(loaders, whole, replaced, start, stop)
    fresh = [loader_of(index, plan, decoder=decoder, rank=rank, world=world) for rank in range(world)]
    assert_steps_equal(fresh, whole, replaced, 5, 8)  # resumed there, knowing nothing
    met = [found for loader in loaders for found in loader.damage.news()]
    assert {found.record for found in met} == bad
    assert all(loader.damage.news() == [] for loader in loaders)  # each is said once
    for found in met:
        path, offset, _ = place(index, found.record)
        assert (found.shard, found.offset, found.name) == (str(path), offset, whole.name(found.record))
        assert found.member == f"{found.record:09d}.jpg"
        assert found.identity == whole.classes[int(whole.label[found.record])]
        assert "crc32" in found.reason
    for loader in loaders + fresh:
        loader.close()


@pytest.mark.parametrize("decoder", CPU_DECODERS)
def test_without_checksums_what_does_not_decode_is_replaced(whole: Index, tmp_path: Path, decoder: str) -> None:
    index = copy_of(whole, tmp_path)
    for record in (3, 4):
        write_into(index, record, CHANGES["text"])
    replaced = {record: next_of_identity(whole, record, {3, 4}) for record in (3, 4)}
    with loader_of(index, Sequential(len(index), 8), decoder=decoder, check_crc=False) as loader:
        assert_steps_equal([loader], whole, replaced, 0, 6)
        assert all("does not decode" in found.reason for found in loader.damage.news())


def test_an_identity_without_a_good_image_gives_its_place_to_the_next(whole: Index, tmp_path: Path) -> None:
    index = copy_of(whole, tmp_path)
    bad = [r for r in range(len(index)) if index.label[r] == 5]  # the last: the circle of identities closes
    for record in bad:
        write_into(index, record, flipped_bit)
    first = min(r for r in range(len(index)) if index.label[r] == 0)
    with loader_of(index, Sequential(len(index), 8)) as loader:
        assert_steps_equal([loader], whole, dict.fromkeys(bad, first), 0, 6)


def test_a_missing_a_cut_and_a_replaced_shard_are_done_without(whole: Index, tmp_path: Path) -> None:
    index = copy_of(whole, tmp_path)
    paths = [index.shard_path(k) for k in range(3)]
    inside = [np.flatnonzero(index.shard == k).tolist() for k in range(3)]
    paths[0].unlink()
    kept = inside[1][:4]  # the cut goes through the image after these
    end = int(index.offset[inside[1][4]]) + 20
    paths[1].write_bytes(paths[1].read_bytes()[:end])
    shutil.copyfile(index.shard_path(3), paths[2])  # another shard's bytes under this one's name
    with pytest.raises(ValueError, match=r"shard-000000\.tar is missing .and \d more shards: about .* images are lost"):
        Index.open(index.path)
    with pytest.raises(ValueError, match="is missing"):
        Index.open(index.path, lost=0.01)
    tolerant = Index.open(index.path, lost=0.6)
    bad = {*inside[0], *(r for r in inside[1] if r not in kept), *inside[2]}
    replaced = {}
    for record in bad:
        own = [r for r in range(len(whole)) if whole.label[r] == whole.label[record] and r not in bad]
        if own:
            replaced[record] = next_of_identity(whole, record, bad)
    with loader_of(tolerant, Sequential(len(whole), 8), max_damaged=1.0) as loader:
        got = {r for b in loader.batches(0, 6) for r in b.records.tolist()}
        news = {found.record: found for found in loader.damage.news()}
        assert set(news) == bad
        assert got & bad == set()
        assert {record: loader.damage.stand_in(record) for record in replaced} == replaced
    assert "is missing" in news[inside[0][0]].reason
    assert news[inside[0][0]].member == ""
    assert f"has {end:,} bytes, its index says" in news[inside[1][-1]].reason
    assert "crc32" in news[inside[2][0]].reason


def test_more_than_the_limit_stops_and_says_how_many(whole: Index, tmp_path: Path) -> None:
    index = copy_of(whole, tmp_path)
    for record in (1, 9, 20):
        write_into(index, record, flipped_bit)
    with loader_of(index, Sequential(len(index), 8), max_damaged=2 / len(index), threads=1) as loader:
        steps = []
        with pytest.raises(ValueError, match=r"3 of \d+ images are damaged, more than data\.max_damaged .*--out NEW"):
            steps.extend(b.step for b in loader.batches(0, 6))
        assert steps == [step for step in range(20 // 8) for _ in range(4)] + [2] * 2
    with loader_of(index, Sequential(len(index), 8), max_damaged=0.0, threads=1) as loader:
        with pytest.raises(ValueError, match=r"record 1 of .*check_shards\.py .* to see all that is wrong"):
            list(loader.batches(0, 6))
    with pytest.raises(ValueError, match=r"max_damaged is 1\.5: it is a share"):
        Damage(index, 1.5)


def test_nothing_good_left_ends_in_an_error(whole: Index, tmp_path: Path) -> None:
    index = copy_of(whole, tmp_path)
    for record in range(len(index)):
        write_into(index, record, flipped_bit)
    with loader_of(index, Sequential(len(index), 8), max_damaged=1.0) as loader:
        with pytest.raises(ValueError, match="no good image is left"):
            list(loader.batches(0, 6))


@pytest.mark.parametrize("labels", ["separate", "merge-by-name"])
def test_a_mixture_replaces_within_an_identity_too(whole: Index, tmp_path: Path, labels: Literal["separate"]) -> None:
    index = copy_of(whole, tmp_path)
    for record in (5, 29):
        write_into(index, record, flipped_bit)
    mixed = MixedIndex([whole, index], labels)
    bad = {len(whole) + 5, len(whole) + 29}
    with loader_of(mixed, Sequential(len(mixed), 8), max_damaged=1.0) as loader:
        got = np.concatenate([batch.records.copy() for batch in loader.batches(0, len(mixed) // 8)])
        assert {found.record for found in loader.damage.news()} == bad
    for record in range(len(mixed)):
        if record not in bad:
            assert got[record] == record
        else:
            same = [r for r in range(len(mixed)) if mixed.label[r] == mixed.label[record]]
            after = same[same.index(record) + 1 :] + same[: same.index(record)]
            assert got[record] == next(r for r in after if r not in bad)
