"""Clips: frames spread over the time of a clip, in its order, under one key; in evaluation the same each time."""

from __future__ import annotations

from collections import Counter
from typing import Literal

import numpy as np
import pytest

from fastface.data.index import Index
from fastface.data.plan import hash_numbers
from fastface.data.plans import Clips
from tests.data.fake_index import fake_index
from tests.data.plain import feistel
from tests.data.plans.small import small_index

INDEX = small_index()


def clips_of(index: Index) -> list[list[int]]:
    """List the records of every clip by time, clips by their number."""
    clip, time = index.columns["clip"], index.columns["time_ms"]
    return [
        sorted(np.flatnonzero(clip == c).tolist(), key=lambda record: int(time[record]))
        for c in sorted(set(clip.tolist()))
    ]


def frames_of(
    times: list[int], frames: int, parts: list[float], seconds: float | None = None, at: float = 0
) -> list[int]:
    """Say which frames of a clip are taken, in plain Python: `at` is where the window starts in what it leaves."""
    last = times[-1] - times[0]
    duration = last + (last / (len(times) - 1) if len(times) > 1 else 0)
    window = duration if seconds is None else min(duration, seconds * 1000)
    start = times[0] + at * (duration - window)
    chosen = []
    for segment in range(frames):
        when = start + (segment + parts[segment]) / frames * window
        chosen.append(max([n for n, time in enumerate(times) if time <= when], default=0))
    if len(times) >= frames:  # each once: push on, then back from the end
        for n in range(1, frames):
            chosen[n] = max(chosen[n], chosen[n - 1] + 1)
        chosen = [min(frame, len(times) - frames + n) for n, frame in enumerate(chosen)]
    return chosen


def fraction(*numbers: int) -> float:
    return (hash_numbers(*numbers) >> 11) / 2**53


@pytest.mark.parametrize(("frames", "batch", "too_few"), [(1, 8, "filter"), (3, 12, "filter"), (4, 16, "repeat")])
def test_steps_are_what_plain_loops_give(frames: int, batch: int, too_few: str) -> None:
    plan = Clips(INDEX, frames, batch, seed=3, too_few=too_few)  # type: ignore[arg-type]
    time = INDEX.columns["time_ms"]
    every = clips_of(INDEX)
    used = [n for n, clip in enumerate(every) if len(clip) >= frames or too_few == "repeat"]
    per_batch = batch // frames
    assert plan.steps_per_epoch == len(used) // per_batch
    assert plan.unit == frames
    for step in range(2 * plan.steps_per_epoch):
        epoch, position = divmod(step, plan.steps_per_epoch)
        expected = []
        for visit in range(position * per_batch, (position + 1) * per_batch):
            number = used[feistel(visit, len(used), hash_numbers(3, epoch))]
            part = fraction(3, 9, epoch, number)
            clip = every[number]
            expected += [clip[n] for n in frames_of([int(time[record]) for record in clip], frames, [part] * frames)]
        slots = plan[step]
        assert slots.records.tolist() == expected
        assert len(set(slots.keys.tolist())) == per_batch


@pytest.mark.parametrize("spacing", ["even", "random"])
@pytest.mark.parametrize("seconds", [None, 0.12])
@pytest.mark.parametrize("balance", [None, "attack"])
def test_windows_and_drawn_segments_are_what_plain_loops_give(
    spacing: Literal["even", "random"], seconds: float | None, balance: str | None
) -> None:
    frames, per_batch = 3, 4
    plan = Clips(INDEX, frames, 12, 3, too_few="repeat", duration_s=seconds, spacing=spacing, balance=balance)
    time, every = INDEX.columns["time_ms"], clips_of(INDEX)
    number_of = {record: number for number, clip in enumerate(every) for record in clip}
    moved = False
    for step in range(2 * plan.steps_per_epoch):
        epoch, position = divmod(step, plan.steps_per_epoch)
        for row, records in enumerate(plan[step].records.reshape(-1, frames).tolist()):
            visit = position * per_batch + row
            number = number_of[records[0]]
            if balance is None:
                assert number == feistel(visit, len(every), hash_numbers(3, epoch))
            named = (epoch, number) if balance is None else (epoch, number, visit)
            drawn = [(n,) if spacing == "random" else () for n in range(frames)]
            parts = [fraction(3, 9, *named, *segment) for segment in drawn]
            times = [int(time[record]) for record in every[number]]
            at = fraction(3, 15, *named) if seconds else 0
            expected = frames_of(times, frames, parts, seconds, at)
            assert records == [every[number][n] for n in expected]
            moved |= expected != frames_of(times, frames, parts)
    assert moved == (seconds is not None)


def test_values_of_a_column_share_every_batch() -> None:
    clip = np.repeat(np.arange(20), 4).astype(np.int32)
    attack = np.where(clip < 15, 0, np.where(clip < 18, 1, 2)).astype(np.uint8)  # 15, 3 and 2 clips
    index = fake_index(np.zeros(80, int), clip=clip, attack=attack, time_ms=np.tile(np.arange(4) * 40, 20))
    plan = Clips(index, 2, 18, 0, balance="attack")
    assert plan.steps_per_epoch == 2
    for start in (0, 6):  # three epochs of 2 x 3 go once through the 15, and wrap around
        first = np.concatenate([plan[step].records[::2] for step in range(start, start + 6)]).reshape(6, 9)
        assert [np.bincount(attack[step]).tolist() for step in first] == [[3, 3, 3]] * 6
        seen = Counter(clip[first].ravel().tolist())
        assert {seen[n] for n in range(15)} == {1, 2}
        assert [seen[n] for n in range(15, 20)] == [6, 6, 6, 9, 9]
    with pytest.raises(ValueError, match=r"data\.plan\.balance 'atack'.*no such column.*'attack'"):
        Clips(index, 2, 18, 0, balance="atack")


def test_an_evaluation_takes_the_middle_or_several_windows() -> None:
    index = fake_index(np.zeros(100, int), clip=np.zeros(100, np.int32), time_ms=np.arange(100) * 40)  # 4 s
    assert Clips(index, 2, 2, 0, duration_s=2.0, evaluation=True)[0].records.tolist() == [37, 62]
    several = Clips(index, 2, 4, 0, duration_s=2.0, evaluation=True, windows=4)
    windows = np.concatenate([several[step].records for step in range(several.steps_per_epoch)]).reshape(-1, 2)
    for k, window in enumerate(windows.tolist()):
        place = (k + 0.5) / 4
        assert window == frames_of(list(range(0, 4000, 40)), 2, [place] * 2, 2.0, place)
    whole = Clips(index, 2, 4, 0, evaluation=True, windows=2)
    assert whole[0].records.tolist() == [12, 62, 37, 87]


def test_clips_shorter_than_the_duration_follow_the_policy() -> None:
    clip = np.repeat([0, 1, 2], [10, 20, 19]).astype(np.int32)
    time = np.concatenate([np.arange(n) * 50 for n in (10, 20, 19)])  # 0.5 s, 1 s, and half a frame less than 1 s
    index = fake_index(np.zeros(49, int), clip=clip, time_ms=time)
    object.__setattr__(index, "_names", np.frombuffer(b"abcdefg" * 7, np.uint8))
    object.__setattr__(index, "_names_start", np.arange(50))
    left = Clips(index, 4, 4, 0, duration_s=0.97, evaluation=True)
    assert left.notes == ["1 of 3 clips are shorter than 0.97 s, such as clip 0 (a) of 0.50 s; they are left out"]
    assert [clip[left[n].records[0]] for n in range(left.steps_per_epoch)] == [1, 2]
    whole = Clips(index, 4, 4, 0, duration_s=0.97, evaluation=True, too_few="repeat")
    assert whole.notes[0].endswith("they are taken whole")
    assert whole[0].records.tolist() == [1, 3, 6, 8]
    with pytest.raises(ValueError, match=r"shorter than 0\.97 s.*lower data\.plan\.duration_s"):
        Clips(index, 4, 4, 0, duration_s=0.97, too_few="refuse")


def test_frames_follow_the_time_not_the_count() -> None:
    times = np.array([0, 10, 20, 30, 40, 50, 1000, 2000, 3000, 4000])  # fast at first
    index = fake_index(np.zeros(10, int), clip=np.zeros(10, np.int32), time_ms=times)
    assert Clips(index, 4, 4, 0, evaluation=True)[0].records.tolist() == [5, 6, 7, 8]
    even = fake_index(np.zeros(12, int), clip=np.zeros(12, np.int32), time_ms=np.arange(12) * 40)
    assert Clips(even, 4, 4, 0, evaluation=True)[0].records.tolist() == [1, 4, 7, 10]
    seen = Counter(tuple(Clips(even, 4, 4, 0)[step].records.tolist()) for step in range(60))
    assert set(seen) == {(0, 3, 6, 9), (1, 4, 7, 10), (2, 5, 8, 11)}  # any part of the segments, the rhythm kept
    assert min(seen.values()) > 10


def test_frames_come_once_while_there_are_enough() -> None:
    plan = Clips(INDEX, 4, 16, 0)
    for step in range(3 * plan.steps_per_epoch):
        for row in plan[step].records.reshape(-1, 4):
            assert len(set(row.tolist())) == 4
            assert (np.diff(INDEX.columns["time_ms"][row]) > 0).all()
            assert len(set(INDEX.columns["clip"][row].tolist())) == 1


def test_records_that_lie_by_clip_and_time_are_not_sorted_again() -> None:
    order = np.concatenate(clips_of(INDEX))
    lying = fake_index(INDEX.label[order], clip=INDEX.columns["clip"][order], time_ms=INDEX.columns["time_ms"][order])
    sorted_already, scattered = Clips(lying, 3, 12, 0), Clips(INDEX, 3, 12, 0)
    assert sorted_already._order is None
    assert scattered._order is not None
    for step in range(10):
        assert order[sorted_already[step].records].tolist() == scattered[step].records.tolist()


def test_an_evaluation_sees_every_clip_once_in_order() -> None:
    plan = Clips(INDEX, 3, 12, 0, evaluation=True)
    steps = [plan[step].records for step in range(plan.steps_per_epoch)]
    clips = [clip for clip in clips_of(INDEX) if len(clip) >= 3]
    assert len(steps[-1]) == (len(clips) % 4 or 4) * 3
    seen = INDEX.columns["clip"][np.concatenate(steps)].reshape(-1, 3)
    assert seen.tolist() == [[int(INDEX.columns["clip"][clip[0]])] * 3 for clip in clips]


def test_short_clips_are_left_out_repeated_or_refused_and_named() -> None:
    clip = np.array([7, 7, 7, 9, 12, 12, 12, 12], np.int32)
    index = fake_index(np.zeros(8, int), clip=clip, time_ms=np.arange(8) * 40)
    object.__setattr__(index, "_names", np.frombuffer(b"abcdefgh", np.uint8))
    object.__setattr__(index, "_names_start", np.arange(9))
    assert Clips(index, 3, 3, 0).notes == ["1 of 3 clips have fewer than 3 images: 'clip 9 (d)'; they are left out"]
    repeated = Clips(index, 3, 9, 0, too_few="repeat", evaluation=True)
    assert repeated[0].records.tolist() == [0, 1, 2, 3, 3, 3, 4, 6, 7]
    with pytest.raises(ValueError, match=r"clip 9 \(d\).*set data\.plan\.too_few"):
        Clips(index, 3, 3, 0, too_few="refuse")
    with pytest.raises(ValueError, match="2 clips with enough frames do not fill a batch of 3 clips x 3 frames"):
        Clips(index, 3, 9, 0)
    still = fake_index(np.zeros(3, int), clip=np.zeros(3, np.int32), time_ms=np.zeros(3, np.int64))
    object.__setattr__(still, "_names", np.frombuffer(b"abc", np.uint8))
    object.__setattr__(still, "_names_start", np.arange(4))
    with pytest.raises(ValueError, match="1 clips have several frames and no time, the first is that of 'a'"):
        Clips(still, 2, 2, 0)
    with pytest.raises(ValueError, match=r"no column 'clip'.*make_shards\.py video"):
        Clips(fake_index(np.zeros(3, int)), 2, 2, 0)
