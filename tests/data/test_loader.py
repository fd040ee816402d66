"""The loader: the same batches for any number of processes and any start; memory, threads, and its errors."""

import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from fastface.data.augment import Augment
from fastface.data.batch import Batch
from fastface.data.delivery import accumulation
from fastface.data.index import Index
from fastface.data.loader import Loader
from fastface.data.plans import Sequential, Shuffled
from fastface.data.shards import ShardReader
from tests.data import tiny

SIZE = (tiny.WIDTH, tiny.HEIGHT)
CPU_DECODERS = ["torch", pytest.param("dali-cpu", marks=pytest.mark.dali)]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    return tiny.make_shards(tmp_path_factory.mktemp("tiny"))


def loader_of(index: Index, *, batch_size: int = 8, **options: object) -> Loader:
    defaults: dict = {"decoder": "torch", "micro_batch": 2, "size": SIZE, "augment": Augment()}
    return Loader(index, Shuffled(index.num_samples, batch_size, seed=9), **(defaults | options))


def row(batch: Batch) -> tuple:
    """Reduce a batch to what can be kept: its memory is recycled."""
    pixels = zlib.crc32(batch.images.contiguous().numpy())
    return batch.step, batch.micro, batch.records.tolist(), batch.labels.tolist(), pixels


@pytest.fixture(scope="module")
def whole(index: Index) -> list[list[tuple]]:
    """Ten steps of one process, to be found again below: per step, (records, labels, pixels) in order."""
    with loader_of(index, threads=1) as loader:
        rows = [row(batch) for batch in loader.batches(0, 10)]
    assert [r[:2] for r in rows] == [(step, micro) for step in range(10) for micro in range(4)]
    return [[r[2:] for r in rows if r[0] == step] for step in range(10)]


def test_batches_hold_what_the_plan_says(index: Index) -> None:
    """The slowest way: step by step, image by image, from Pillow-free pixels of the reader's bytes."""
    import simplejpeg

    plan, reader, augment = Shuffled(index.num_samples, 8, seed=9), ShardReader(index), Augment()
    with loader_of(index, mean=100.0, std=50.0) as loader:
        for batch in loader.batches(3, 5):
            slots = plan[batch.step].rows(batch.micro * 2, batch.micro * 2 + 2)
            assert batch.records.tolist() == slots.records.tolist()
            assert batch.labels.tolist() == [int(index.label[r]) for r in slots.records]
            assert batch.labels.dtype == torch.int64
            assert batch.images.dtype == torch.float32
            assert batch.images.shape == (2, 3, tiny.HEIGHT, tiny.WIDTH)
            flips = augment.draw(slots).flip
            for image, record, flip in zip(batch.images.numpy(), slots.records, flips, strict=True):
                pixels = simplejpeg.decode_jpeg(reader.view(int(record))).astype(np.float32)
                if flip:
                    pixels = pixels[:, ::-1]
                expected = (pixels - np.float32(100)) * np.float32(1 / 50)
                assert np.array_equal(image, expected.transpose(2, 0, 1))


@pytest.mark.parametrize("decoder", CPU_DECODERS)
@pytest.mark.parametrize("world", [1, 2, 4])
def test_same_batches_for_any_world_decoder_and_start(
    index: Index, whole: list[list[tuple]], decoder: str, world: int
) -> None:
    rng = np.random.default_rng(world)
    loaders = [loader_of(index, decoder=decoder, rank=rank, world=world, threads=1 + rank % 3) for rank in range(world)]
    for start in [0, *rng.integers(1, 9, 2).tolist()]:
        ranks = [[row(batch) for batch in loader.batches(start, 10)] for loader in loaders]
        for step in range(start, 10):
            assert [r[2:] for rank in ranks for r in rank if r[0] == step] == whole[step]
    for loader in loaders:
        loader.close()


def test_threads_and_ahead_change_nothing(index: Index, whole: list[list[tuple]]) -> None:
    for threads, ahead in [(1, 1), (3, 1), (5, 7)]:
        with loader_of(index, threads=threads, ahead=ahead) as loader:
            rows = [row(batch)[2:] for batch in loader.batches(0, 10)]
        assert rows == [r for step in whole for r in step]


def test_a_batch_stays_until_the_next_is_asked_for(index: Index) -> None:
    with loader_of(index, threads=3, ahead=2) as loader:
        places = set()
        for batch in loader.batches(0, 8):
            before = batch.images.clone()
            threading.Event().wait(0.005)  # the threads fill every other buffer meanwhile
            assert torch.equal(batch.images, before)
            places.add(batch.images.data_ptr())
        assert 1 < len(places) <= 4  # max(ahead, threads) + 1 buffers, used again and again


def threads_of_loaders() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("fastface-loader")]


def test_no_thread_survives(index: Index) -> None:
    assert threads_of_loaders() == []
    loader = loader_of(index, threads=3)
    for _ in loader.batches(0, 3):
        pass
    assert threads_of_loaders() == []  # ended of itself
    for _ in loader.batches():
        assert len(threads_of_loaders()) == 3
        break
    assert threads_of_loaders() == []  # left in the middle
    first = loader.batches()
    next(first)
    second = loader.batches(5)
    assert len(threads_of_loaders()) == 3  # the newer ends the older
    with pytest.raises(ValueError, match=r"ended by .* a newer Loader\.batches"):
        next(first)
    assert next(second).step == 5
    loader.close()
    assert threads_of_loaders() == []


def test_an_empty_range_and_a_wrong_one(index: Index) -> None:
    with loader_of(index) as loader:
        assert list(loader.batches(4, 4)) == []
        for start, stop in [(-1, None), (5, 4)]:
            with pytest.raises(ValueError, match="steps count from 0"):
                loader.batches(start, stop)


def test_sequential_delivers_each_record_once(index: Index) -> None:
    plan = Sequential(37, 8)
    seen = []
    for rank in range(2):
        with Loader(
            index, plan, augment=Augment(0), decoder="torch", size=SIZE, micro_batch=2, rank=rank, world=2
        ) as loader:
            seen += [r for batch in loader.batches(0, plan.steps_per_epoch) for r in batch.records.tolist()]
    assert sorted(seen) == list(range(37))


@pytest.mark.parametrize("decoder", CPU_DECODERS)
def test_lossless_shards_keep_every_level(tmp_path: Path, decoder: str) -> None:
    index = tiny.make_shards(tmp_path, people=1, images=6, lossless=True)
    options: dict = {"augment": Augment(0), "decoder": decoder, "size": SIZE, "micro_batch": 3, "mean": 0.0, "std": 1.0}
    with Loader(index, Sequential(6, 6), **options) as loader:
        for batch in loader.batches(0, 1):
            for image, record in zip(batch.images.numpy(), batch.records, strict=True):
                number = int(Path(index.name(int(record))).stem)
                assert np.array_equal(image.transpose(1, 2, 0), tiny.picture(number).astype(np.float32))


def test_timings_count_what_was_delivered(index: Index) -> None:
    with loader_of(index) as loader:
        assert loader.timings.first_batch_s is None
        batches: Iterator[Batch] = loader.batches()
        for _ in range(6):
            next(batches)
        timings = loader.timings
        assert (timings.batches, timings.images) == (6, 12)
        assert timings.first_batch_s is not None
        assert 0 < timings.first_batch_s
        assert 0 < timings.wait_s
        assert 0 <= timings.wait_share <= 1
        assert timings.images_per_s > 0
        timings.reset()
        assert (timings.batches, timings.images, timings.wait_s) == (0, 0, 0.0)


SIZES = {"larger": (32, 16), "smaller": (24, 13), "turned": (16, 24)}


def damage(folder: Path, change: str) -> tuple[Index, int]:
    """Make a shard set and damage the bytes of record 17 in place."""
    index = tiny.make_shards(folder, people=3)
    record = 17
    path = folder / "shards" / index.meta["shards"][int(index.shard[record])]["name"]
    data = bytearray(path.read_bytes())
    start, length = int(index.offset[record]), int(index.length[record])
    if change == "cut":
        data[start + length // 2 : start + length] = bytes(length - length // 2)
    elif change == "text":
        data[start : start + length] = b"x" * length
    elif change in SIZES:
        width, height = SIZES[change]
        other = tiny.encode(np.zeros((height, width, 3), np.uint8), "gray")  # short enough to take the place
        data[start : start + length] = other + bytes(length - len(other))
    else:
        data[start + length - 12] ^= 1
    path.write_bytes(data)
    return index, record


@pytest.mark.parametrize("decoder", CPU_DECODERS)
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("cut", "decode"),
        ("text", "decode"),
        ("larger", "32x16 .*not 24x16"),
        ("smaller", "24x13"),
        ("turned", "16x24"),
    ],
)
def test_a_bad_image_is_named(tmp_path: Path, decoder: str, change: str, reason: str) -> None:
    index, record = damage(tmp_path, change)
    plan = Sequential(24, 4)
    options: dict = {"augment": Augment(), "decoder": decoder, "size": SIZE, "micro_batch": 4, "threads": 2}
    with Loader(index, plan, **options) as loader:
        got = []
        with pytest.raises(ValueError, match=reason) as caught:
            got.extend(batch.step for batch in loader.batches(0, 6))
        assert got == [0, 1, 2, 3]  # all before it arrive
        text = str(caught.value)
        for part in (
            index.meta["shards"][int(index.shard[record])]["name"],
            "member 000000017.jpg",
            f"at byte {int(index.offset[record])}",
            index.name(record),
            f"tools/check_shards.py {index.path}",
        ):
            assert part in text
        assert threads_of_loaders() == []
        assert [batch.step for batch in loader.batches(5, 6)] == [5]  # and the loader still works


def test_a_flipped_bit_is_found_by_its_checksum(tmp_path: Path) -> None:
    index, record = damage(tmp_path, "bit")
    options: dict = {"augment": Augment(), "decoder": "torch", "size": SIZE, "micro_batch": 4}
    with Loader(index, Sequential(24, 4), check_crc=True, **options) as loader:
        with pytest.raises(ValueError, match=f"record {record} .*crc32"):
            list(loader.batches(0, 6))


def test_images_of_another_size_are_refused(index: Index, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"images 24x16, data\.size asks for 112x112.*make_shards\.py.*--size 112x112"):
        loader_of(index, size=(112, 112))
    (tmp_path / "raw" / "person 0").mkdir(parents=True)
    (tmp_path / "raw" / "person 0" / "wide.jpg").write_bytes(tiny.encode(tiny.picture(1, width=40)))
    mixed = tiny.make_shards(tmp_path, people=0)
    assert mixed.image_size == (40, 16)
    (tmp_path / "raw" / "person 0" / "high.jpg").write_bytes(tiny.encode(tiny.picture(1, height=40)))
    (tmp_path / "shards").rename(tmp_path / "before")
    mixed = tiny.make_shards(tmp_path, people=0)
    with pytest.raises(ValueError, match="images of several sizes"):
        loader_of(mixed, batch_size=2)


@pytest.mark.parametrize(("batch_size", "micro_batch", "world"), [(8, 3, 1), (8, 4, 4), (8, 16, 1), (8, 0, 1)])
def test_batch_size_must_divide(batch_size: int, micro_batch: int, world: int) -> None:
    sentence = f"batch_size {batch_size} is not a multiple of train.micro_batch {micro_batch} . {world} processes"
    with pytest.raises(ValueError, match=sentence):
        accumulation(batch_size, micro_batch, world)


def test_accumulation_fills_the_batch() -> None:
    for batch_size, micro_batch, world in [(8, 8, 1), (8, 2, 1), (8, 2, 2), (96, 8, 4)]:
        assert accumulation(batch_size, micro_batch, world) * micro_batch * world == batch_size


def test_wrong_options_are_refused(index: Index) -> None:
    with pytest.raises(ValueError, match="perhaps you meant 'dali-cpu'"):
        loader_of(index, decoder="dali_cpu")
    with pytest.raises(ValueError, match="rank 2 of 2"):
        loader_of(index, rank=2, world=2)
    with pytest.raises(ValueError, match="at least one thread"):
        loader_of(index, threads=0)
    with pytest.raises(ValueError, match="must be positive"):
        loader_of(index, std=0.0)
