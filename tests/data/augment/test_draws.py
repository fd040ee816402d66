"""Draws: Philox by its published vectors, and parameters that depend on the key of a slot alone."""

from pathlib import Path

import numpy as np
import pytest

from fastface.data.augment import Augment, Draws, draw
from fastface.data.augment.draw import ITEMS, draw_operator
from fastface.data.augment.operator import Operator
from fastface.data.augment.philox import STREAMS, philox4x32, philox_rounds, uniform
from fastface.data.augment.presets import PRESETS, operators
from fastface.data.compiled import Kernel
from fastface.data.loader import Loader
from fastface.data.plan import Slots, slot_keys
from fastface.data.plans import Shuffled
from tests.data import tiny
from tests.data.augment.photographs import every_operator

# kat_vectors of the Random123 distribution: counter, key, result of philox4x32 with 10 rounds
KNOWN = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


def test_philox_matches_published_vectors() -> None:
    counter, key, expected = (np.array(part, np.uint64).T for part in zip(*KNOWN, strict=True))
    assert philox_rounds(counter, key).tolist() == expected.tolist()


def philox(key: int, stream: int, block: int) -> list[int]:
    """Philox4x32-10 in plain integers."""
    c, k = [block, stream, 0, 0], [key & 0xFFFFFFFF, key >> 32]
    for _ in range(10):
        p, q = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [q >> 32 ^ c[1] ^ k[0], q & 0xFFFFFFFF, p >> 32 ^ c[3] ^ k[1], p & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


@pytest.mark.parametrize("compiled", [True, False])
def test_philox_takes_key_stream_and_block(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiled:
        monkeypatch.setattr(Kernel, "function", None)
    keys = np.array([0, 1, 2**32, 2**64 - 1, 0x0123456789ABCDEF], np.uint64)
    for stream, block in [(0, 0), (3, 0), (0, 5)]:
        expected = [philox(int(key), stream, block) for key in keys]
        assert philox4x32(keys, stream, block).T.tolist() == expected


def test_uniform_is_uniform() -> None:
    numbers = uniform(np.arange(20_000, dtype=np.uint64), "flip")  # keys in a row: the worst a caller can do
    assert numbers.shape == (4, 20_000)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts, _ = np.histogram(numbers, bins=16, range=(0, 1))
    expected = numbers.size / 16
    assert ((counts - expected) ** 2 / expected).sum() < 45  # 15 degrees of freedom: 99.99 % lie below 45
    assert np.abs(np.corrcoef(numbers) - np.eye(4)).max() < 0.04


@pytest.mark.parametrize("parts", [1, 2, 4, 8])
def test_draws_do_not_depend_on_the_split(parts: int) -> None:
    plan, augment = Shuffled(1000, 64, seed=3), Augment(flip=0.3)
    whole = augment.draw(plan[7])
    split = [augment.draw(plan[7].split(part, parts)) for part in range(parts)]
    assert np.concatenate([draws.flip for draws in split]).tolist() == whole.flip.tolist()
    expected = [philox(int(key), 0, 0)[0] / 2**32 < 0.3 for key in plan[7].keys]
    assert whole.flip.tolist() == expected


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.5, 1.0])
def test_flip_has_its_probability(probability: float) -> None:
    keys = np.random.default_rng(0).integers(0, 2**63, 20_000).astype(np.uint64)
    flip = Augment(flip=probability).draw(Slots(0, 0, np.zeros(20_000, np.int64), keys)).flip
    assert flip.dtype == np.bool_
    assert abs(flip.mean() - probability) <= 4 * (probability * (1 - probability) / 20_000) ** 0.5


def test_probability_is_checked() -> None:
    for wrong in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"augment\.flip is .*from 0 to 1"):
            Augment(flip=wrong)


def equal(a: Draws, b: Draws) -> bool:
    """Compare what matters: the parameters of rows that were drawn."""
    same = np.array_equal(a.flip, b.flip) and len(a.operators) == len(b.operators)
    for mine, other in zip(a.operators, b.operators, strict=True):
        same &= mine.operator == other.operator and np.array_equal(mine.chosen, other.chosen)
        same &= all(np.array_equal(values, other.parameters[name]) for name, values in mine.parameters.items())
    return same


def joined(parts: list[Draws]) -> Draws:
    together = []
    for drawn in zip(*[part.operators for part in parts], strict=True):
        parameters = {name: np.concatenate([d.parameters[name] for d in drawn]) for name in drawn[0].parameters}
        together.append(drawn[0]._replace(chosen=np.concatenate([d.chosen for d in drawn]), parameters=parameters))
    return Draws(np.concatenate([part.flip for part in parts]), tuple(together))


@pytest.mark.parametrize("preset", PRESETS)
def test_no_split_of_a_batch_changes_a_draw(preset: str) -> None:
    plan, augment = Shuffled(1000, 64, seed=3), Augment(0.4, operators(preset))
    whole = augment.draw(plan[7])
    for parts in (2, 4, 64):
        assert equal(joined([augment.draw(plan[7].split(part, parts)) for part in range(parts)]), whole)
        rows = 64 // parts
        assert equal(joined([whole.rows(part * rows, (part + 1) * rows) for part in range(parts)]), whole)


@pytest.mark.parametrize("operator", every_operator(0.5), ids=lambda o: o.name)
def test_draws_are_those_of_plain_numbers(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = np.concatenate([slot_keys(0, 3, 5), np.array([0, 2**64 - 1], np.uint64)])
    drawn = [draw_operator(operator, keys, occurrence) for occurrence in (0, 1)]

    def one_by_one(keys: np.ndarray, field: str, block: int = 0) -> np.ndarray:
        return np.array([philox(int(key), STREAMS[field], block) for key in keys]).T / 2**32

    monkeypatch.setattr(draw, "uniform", one_by_one)
    for occurrence in (0, 1):
        first = [philox(int(key), STREAMS[operator.name], occurrence * ITEMS)[0] / 2**32 for key in keys]
        assert drawn[occurrence].chosen.tolist() == [word < 0.5 for word in first]
        for row in range(len(keys)):
            alone = draw_operator(operator, keys[row : row + 1], occurrence)
            for name, values in drawn[occurrence].parameters.items():
                assert np.array_equal(values[row], alone.parameters[name][0])
    differ = [(drawn[0].parameters[name] != drawn[1].parameters[name]).any() for name in drawn[0].parameters]
    assert all(differ)  # the second of a kind in a list draws its own


def test_streams_never_collide(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(set(STREAMS.values())) == len(STREAMS)
    used: list[tuple[str, int]] = []

    def noted(keys: np.ndarray, field: str, block: int = 0) -> np.ndarray:
        used.append((field, block))
        return uniform(keys, field, block)

    monkeypatch.setattr(draw, "uniform", noted)
    every = [operator for operator in every_operator(0.5) for _ in range(2)]
    Augment(0.5, every).draw(Slots(0, 0, np.zeros(2, np.int64), slot_keys(0, 0, 2)))
    assert len(set(used)) == len(used)
    assert {field for field, _ in used} == STREAMS.keys() - {"noise/table", "scales"}


@pytest.mark.parametrize("operator", every_operator(0.3), ids=lambda o: o.name)
def test_probability_and_ranges_are_honoured(operator: Operator) -> None:
    rows = 40_000
    drawn = draw_operator(operator, slot_keys(1, 1, rows))
    assert abs(drawn.chosen.mean() - 0.3) < 4 * (0.3 * 0.7 / rows) ** 0.5
    limits = {name: value for name, value in operator if isinstance(value, tuple)}
    if operator.name == "affine":
        aspect = drawn.parameters["scale_x"] / drawn.parameters["scale_y"]
        scale = np.sqrt(drawn.parameters["scale_x"] * drawn.parameters["scale_y"])
        numbers = [drawn.parameters["angle"], scale, drawn.parameters["shift_x"], aspect]
    else:
        numbers = [np.abs(values) if name == "sigma" else values for name, values in drawn.parameters.items()]
    names = {"noise": {"sigma": 1}, "cutout": {"side": 2}}.get(operator.name, dict(zip(limits, range(9), strict=False)))
    for name, place in names.items():
        values, (low, high) = numbers[place], limits[name]
        assert low - 1e-9 <= values.min() <= low + 0.01 * (high - low)
        assert high + 1e-9 >= values.max() >= high - 0.01 * (high - low)
        if low == high:
            continue
        log = name in ("ratio", "gamma") or (operator.name == "affine" and name in ("scale", "aspect"))
        middle = np.sqrt(low * high) if log else (low + high) / 2
        assert abs((values < middle).mean() - 0.5) < 0.015 or operator.name == "jpeg"
        by_chance = np.corrcoef(values.reshape(rows, -1)[:, 0], drawn.chosen)[0, 1]
        assert abs(by_chance) < 0.025  # what is drawn does not depend on whether it is


def test_rows_of_one_key_are_drawn_alike() -> None:
    keys = np.repeat(slot_keys(0, 0, 6), 4)  # the frames of six clips
    draws = Augment(0.5, operators("liveness_aggressive")).draw(Slots(0, 0, np.zeros(24, np.int64), keys))
    for drawn in draws.operators:
        for values in (drawn.chosen, *drawn.parameters.values()):
            frames = values.reshape(6, 4, *values.shape[1:])
            assert (frames == frames[:, :1]).all()
    assert (draws.flip.reshape(6, 4) == draws.flip.reshape(6, 4)[:, :1]).all()


def test_batches_are_the_same_for_any_processes_threads_and_micro_batches(tmp_path: Path) -> None:
    index = tiny.make_shards(tmp_path)
    augment = Augment(0.5, operators("liveness_aggressive"))
    size = (tiny.WIDTH, tiny.HEIGHT)

    def run(world: int, threads: int, micro: int) -> np.ndarray:
        every = []
        for rank in range(world):
            plan = Shuffled(index.num_samples, 8, seed=9)
            options = {"size": size, "micro_batch": micro, "rank": rank, "world": world, "threads": threads}
            with Loader(index, plan, augment=augment, decoder="torch", **options) as loader:
                batches = [batch.images.numpy().copy() for batch in loader.batches(2, 5)]
            every.append(np.concatenate(batches).reshape(3, 8 // world, 3, tiny.HEIGHT, tiny.WIDTH))
        return np.concatenate(every, 1)

    expected = run(1, 1, 8)
    assert len(np.unique(expected.reshape(24, -1), axis=0)) == 24
    for world, threads, micro in [(1, 2, 8), (1, 3, 2), (2, 1, 4), (2, 2, 1), (4, 2, 2)]:
        assert np.array_equal(run(world, threads, micro), expected)


@pytest.mark.parametrize("place", ["memory", "file"])
def test_a_cache_changes_no_pixel(place: str, tmp_path: Path) -> None:
    index = tiny.make_shards(tmp_path)
    augment = Augment(0.5, operators("liveness_aggressive"), ((24, 16), (30, 20)))
    size = (tiny.WIDTH, tiny.HEIGHT)

    def run(cache: str) -> list[np.ndarray]:
        plan = Shuffled(index.num_samples, 8, seed=9)
        options = {"size": size, "micro_batch": 8, "cache": cache}
        with Loader(index, plan, augment=augment, decoder="torch", **options) as loader:
            return [batch.images.numpy().copy() for batch in loader.batches(0, 12)]  # two epochs and more

    cache = "memory" if place == "memory" else str(tmp_path / "cache")
    assert all(map(np.array_equal, run(cache), run("none")))


def test_a_cache_on_the_device_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    index = tiny.make_shards(tmp_path)
    with pytest.raises(ValueError, match=r"data\.cache device only mirrors.*data\.augment to none"):
        Loader(
            index,
            Shuffled(40, 8, 0),
            augment=Augment(0.5, operators("recognition")),
            decoder="torch",
            size=(tiny.WIDTH, tiny.HEIGHT),
            micro_batch=8,
            cache="device",
        )


def test_bytes_are_augmented_like_floats(tmp_path: Path) -> None:
    index = tiny.make_shards(tmp_path)
    augment = Augment(0.5, operators("liveness"), ((24, 16), (20, 20)))
    batches = []
    for output in ("uint8", "float32"):
        options = {"decoder": "torch", "size": (24, 16), "micro_batch": 8, "mean": 0.0, "std": 1.0, "output": output}
        with Loader(index, Shuffled(40, 8, 2), augment=augment, **options) as loader:
            batches.append([batch.images.numpy().copy() for batch in loader.batches(0, 4)])
    assert batches[0][0].dtype == np.uint8
    assert all(map(np.array_equal, *batches))
