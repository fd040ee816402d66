"""Columns `clip` and `time_ms` -> clips as neighbouring rows: frames spread evenly over the time of each."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastface.data.index import Index
from fastface.data.plan import STREAMS, Slots, hash_rows, permute
from fastface.data.plans.drawn import Drawn, check_step, groups_in, shared_keys
from fastface.data.plans.pools import CHUNK, TooFew, enough


class Clips(Drawn):
    """Visit every clip once per epoch, `frames` rows of it in the order of time, which share one key.

    The time of a clip, from its first frame to one mean interval after its last, is cut into `frames` equal
    segments. Of each the frame that shows at one and the same part of the segment is taken: at a part drawn for each
    visit in training, at the centre in evaluation. Frames never repeat while a clip has enough.

    In evaluation the clips come once, in order, and the last step may be shorter; else an epoch is
    clips // (clips in a batch) steps, and those left over differ in every epoch.
    too_few: what becomes of clips with fewer frames: "filter" leaves them out, "repeat" repeats their frames.
    """

    def __init__(
        self,
        index: Index,
        frames: int,
        batch_size: int,
        seed: int,
        *,
        too_few: TooFew = "filter",
        evaluation: bool = False,
    ) -> None:
        self.clips = groups_in(batch_size, frames, "data.plan.frames")  # in a batch
        for column in ("clip", "time_ms"):
            if column not in index.columns:
                raise ValueError(
                    f"{index.path} has no column {column!r}, so no clips: make it with make_shards.py video"
                )
        self._time = index.columns["time_ms"]  # int64 [N]
        self._order, self._start = _by_clip(index.columns["clip"], self._time)
        self._check_times(index)

        def name(clip: int) -> str:
            first = int(self._in_order(self._start[clip]))
            return f"clip {index.columns['clip'][first]} ({index.name(first)})"

        self._used, notes = enough(np.diff(self._start), frames, too_few, "clips", name)
        per_epoch = -(-len(self._used) // self.clips) if evaluation else len(self._used) // self.clips
        if not per_epoch:
            raise ValueError(
                f"{len(self._used):,} clips with enough frames do not fill a batch of {self.clips:,} clips x {frames} "
                f"frames: lower train.batch_size, or set data.plan.too_few to repeat"
            )
        super().__init__(batch_size, per_epoch, seed)
        self.unit = self.rows_per_key = frames
        self.notes, self.frames, self.too_few, self.evaluation = notes, frames, too_few, evaluation

    def _in_order(self, place: np.ndarray) -> np.ndarray:
        return place if self._order is None else self._order[place].astype(np.int64)

    def _check_times(self, index: Index) -> None:
        several = np.flatnonzero(np.diff(self._start) > 1)
        first, last = self._in_order(self._start[several]), self._in_order(self._start[several + 1] - 1)
        still = np.flatnonzero(self._time[first] >= self._time[last])
        if len(still):
            raise ValueError(
                f"{index.path}: {len(still):,} clips have several frames and no time, the first is that of "
                f"{index.name(int(first[still[0]]))!r}: make the shards again, so that column time_ms is filled"
            )

    def __getitem__(self, step: int) -> Slots:
        """Return step `step` of the run; in evaluation IndexError beyond steps_per_epoch."""
        if not self.evaluation:
            return super().__getitem__(step)
        check_step(step)
        if step >= self.steps_per_epoch:
            raise IndexError(f"step {step}: {len(self._used):,} clips end after {self.steps_per_epoch:,} steps")
        clips = self._used[step * self.clips : (step + 1) * self.clips]
        records = self._frames(clips, np.full(len(clips), 0.5)).ravel()
        return Slots(step, 0, records, shared_keys(self.seed, step, len(records), self.frames))

    def draw(self, epochs: np.ndarray, positions: np.ndarray) -> np.ndarray:
        visits = positions[:, None] * self.clips + np.arange(self.clips)
        clips = self._used[permute(visits, len(self._used), hash_rows(self.seed, epochs[:, None]))]
        parts = (hash_rows(self.seed, STREAMS["segment"], epochs[:, None], clips) >> np.uint64(11)) * 2.0**-53
        return self._frames(clips.ravel(), parts.ravel()).reshape(len(positions), self.batch_size)

    def _frames(self, clips: np.ndarray, parts: np.ndarray) -> np.ndarray:
        """Return the frames of clips (int64 [n]) at these parts of their segments (float64 [n]): int64 [n, frames]."""
        first = self._start[clips]
        count = self._start[clips + 1] - first
        begin, end = self._time[self._in_order(first)], self._time[self._in_order(first + count - 1)]
        duration = (end - begin) * (count / np.maximum(count - 1, 1))  # ms, with the last frame's own interval
        segments = (np.arange(self.frames) + parts[:, None]) / self.frames
        number = self._shown_at(first, count, begin[:, None] + segments * duration[:, None])
        enough = (count >= self.frames)[:, None]
        place = np.arange(self.frames)
        distinct = np.maximum.accumulate(number - place, axis=1) + place
        distinct = np.minimum(distinct, count[:, None] - self.frames + place)
        return self._in_order(first[:, None] + np.where(enough, distinct, number))

    def _shown_at(self, first: np.ndarray, count: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Return which frame of each clip (first, count: int64 [n]) shows at times (float64 [n, T], ms): int64 [n, T].

        The last that is not later, by bisection of all at once.
        """
        low = np.zeros(times.shape, np.int64)  # not later, or the first
        high = np.broadcast_to(count[:, None], times.shape).copy()  # later, or none
        while (high - low > 1).any():
            middle = (low + high) // 2
            later = self._time[self._in_order(first[:, None] + np.minimum(middle, count[:, None] - 1))] > times
            high = np.where(later, middle, high)
            low = np.where(later, low, middle)
        return low

    def describe(self) -> dict[str, Any]:
        return {
            "name": "clips",
            "frames": self.frames,
            "too_few": self.too_few,
            "evaluation": self.evaluation,
            "clips": len(self._used),
            "batch_size": self.batch_size,
            "seed": self.seed,
        }


def _by_clip(clip: np.ndarray, time: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
    """Return the records by clip and time (None: as they lie), and where each clip starts among them, int64 [C + 1]."""
    starts, sorted_already = [np.zeros(1, np.int64)], True
    for n in range(0, len(clip), CHUNK):
        step = np.diff(clip[n : n + CHUNK + 1].astype(np.int64))
        starts.append(np.flatnonzero(step) + n + 1)
        back = np.diff(time[n : n + CHUNK + 1]) < 0
        sorted_already = sorted_already and not ((step < 0) | ((step == 0) & back)).any()
    if sorted_already:
        return None, np.concatenate([*starts, [len(clip)]])
    order = np.lexsort((time[:], clip[:])).astype(np.int32 if len(clip) < 2**31 else np.int64)
    return order, np.concatenate([[0], np.flatnonzero(np.diff(clip[order])) + 1, [len(clip)]])
