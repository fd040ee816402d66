"""Clips: frames spread over the time of a clip, in its order, under one key; in evaluation the same each time."""

from __future__ import annotations

from collections import Counter

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


def frames_of(times: list[int], frames: int, part: float) -> list[int]:
    """Say which frames of a clip are taken, in plain Python."""
    last = times[-1] - times[0]
    duration = last + (last / (len(times) - 1) if len(times) > 1 else 0)
    chosen = []
    for segment in range(frames):
        when = times[0] + (segment + part) / frames * duration
        chosen.append(max([n for n, time in enumerate(times) if time <= when], default=0))
    if len(times) >= frames:  # each once: push on, then back from the end
        for n in range(1, frames):
            chosen[n] = max(chosen[n], chosen[n - 1] + 1)
        chosen = [min(frame, len(times) - frames + n) for n, frame in enumerate(chosen)]
    return chosen


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
            part = (hash_numbers(3, 9, epoch, number) >> 11) / 2**53
            clip = every[number]
            expected += [clip[n] for n in frames_of([int(time[record]) for record in clip], frames, part)]
        slots = plan[step]
        assert slots.records.tolist() == expected
        assert len(set(slots.keys.tolist())) == per_batch


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
