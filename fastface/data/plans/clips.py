"""Columns `clip` and `time_ms` -> clips as neighbouring rows: frames spread evenly over the time of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from fastface.data.index import Index
from fastface.data.plan import STREAMS, Slots, hash_numbers, hash_rows, permute
from fastface.data.plans.drawn import Drawn, check_step, groups_in, in_epochs, shared_keys
from fastface.data.plans.pools import CHUNK, Pools, TooFew, enough
from fastface.data.plans.shares import Shares
from fastface.spelling import nearest

Spacing = Literal["even", "random"]


class Clips(Drawn):
    """Visit every clip once per epoch, `frames` rows of it in the order of time, which share one key.

    The time of a clip, from its first frame to one mean interval after its last, is cut into `frames` equal
    segments, and of each the frame is taken that shows at some part of it: in training at one and the same part of
    all segments, drawn for each visit ("even", which keeps the rhythm), or at a part drawn for each segment
    ("random", as temporal segment networks have it: Wang et al., arXiv 1608.00859, section 3.1); in evaluation at the
    centre. With `duration_s` it is so many seconds of the clip that are cut so, from a start that is drawn for each
    visit in training and from the middle of the clip in evaluation. Frames never repeat while a clip has enough,
    even if the last of them then come after the window or the segment they are for.

    In evaluation the clips come once, in order, and the last step may be shorter; else an epoch is
    clips // (clips in a batch) steps, and those left over differ in every epoch.
    too_few: what becomes of clips with fewer frames, or shorter than duration_s by more than half a frame: "filter"
        leaves them out, "repeat" repeats their frames and takes them whole.
    balance: a column ("label" or another): every value of it has an equal share of the clips of each batch.
    windows: in evaluation, how often each clip comes, one after the other, with other frames: at parts
        (k + 1/2) / windows of its segments, from starts as far along what duration_s leaves.
    """

    def __init__(
        self,
        index: Index,
        frames: int,
        batch_size: int,
        seed: int,
        *,
        too_few: TooFew = "filter",
        duration_s: float | None = None,
        spacing: Spacing = "even",
        balance: str | None = None,
        evaluation: bool = False,
        windows: int = 1,
    ) -> None:
        self.clips = groups_in(batch_size, frames, "data.plan.frames")  # in a batch
        for column in ("clip", "time_ms"):
            if column not in index.columns:
                raise ValueError(
                    f"{index.path} has no column {column!r}, so no clips: make it with make_shards.py video"
                )
        assert windows == 1 or evaluation, "several windows are for evaluation"
        self._time = index.columns["time_ms"]  # int64 [N]
        self._order, self._start = _by_clip(index.columns["clip"], self._time)
        self._check_times(index)

        def name(clip: int) -> str:
            first = int(self._in_order(self._start[clip]))
            return f"clip {index.columns['clip'][first]} ({index.name(first)})"

        self._duration_ms = None if duration_s is None else 1000 * duration_s
        self._used, notes = enough(np.diff(self._start), frames, too_few, "clips", name)
        if self._duration_ms is not None:
            self._used, more = self._long_enough(self._used, self._duration_ms, too_few, name)
            notes += more
        units = len(self._used) * windows
        per_epoch = -(-units // self.clips) if evaluation else units // self.clips
        if not per_epoch:
            raise ValueError(
                f"{len(self._used):,} clips with enough frames do not fill a batch of {self.clips:,} clips x {frames} "
                f"frames: lower train.batch_size, or set data.plan.too_few to repeat"
            )
        super().__init__(batch_size, per_epoch, seed)
        self.unit = self.rows_per_key = frames
        self.notes, self.frames, self.too_few, self.evaluation = notes, frames, too_few, evaluation
        self.duration_s, self.spacing, self.balance, self.windows = duration_s, spacing, balance, windows
        if balance is not None:
            self._pools = self._by_value(index, balance)
            self._shares = Shares(np.ones(len(self._pools.counts)), self.clips, per_epoch, seed)

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

    def _extent(self, clips: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return of clips (int64 [n]): where they start in the order, how many frames, when they begin, how long (ms).

        The last frame shows for the mean interval of the others.
        """
        first = self._start[clips]
        count = self._start[clips + 1] - first
        begin, end = self._time[self._in_order(first)], self._time[self._in_order(first + count - 1)]
        return first, count, begin, (end - begin) * (count / np.maximum(count - 1, 1))

    def _long_enough(
        self, clips: np.ndarray, wanted_ms: float, too_few: TooFew, name: Callable[[int], str]
    ) -> tuple[np.ndarray, list[str]]:
        """Return those of the clips (int64 [n]) that last long enough, or all, and what to tell the user."""
        _, count, _, duration = self._extent(clips)
        short = duration < wanted_ms - duration / (2 * count)
        if not short.any():
            return clips, []
        text = (
            f"{np.count_nonzero(short):,} of {len(clips):,} clips are shorter than {wanted_ms / 1000:g} s, such as "
            f"{name(int(clips[short][0]))} of {duration[short][0] / 1000:.2f} s"
        )
        if too_few == "refuse":
            raise ValueError(f"{text}; set data.plan.too_few to filter or repeat, or lower data.plan.duration_s")
        if too_few == "repeat":
            return clips, [f"{text}; they are taken whole"]
        return clips[~short], [f"{text}; they are left out"]

    def _by_value(self, index: Index, column: str) -> Pools:
        """Group the clips in use by the value that a column has in their first frame."""
        columns = {"label": index.label, **index.columns}
        if column not in columns or columns[column].shape != (index.num_samples,):
            known = [key for key, rows in columns.items() if rows.shape == (index.num_samples,)]
            raise ValueError(
                f"data.plan.balance {column!r}: {index.path} has no such column{nearest(column, known)}; there are "
                f"{', '.join(known)}"
            )
        values = columns[column][self._in_order(self._start[self._used])]
        order = np.argsort(values, kind="stable")
        edges = np.flatnonzero(np.diff(values[order])) + 1
        return Pools(self._used[order], np.concatenate([[0], edges, [len(order)]]).astype(np.int64))

    def __getitem__(self, step: int) -> Slots:
        """Return step `step` of the run; in evaluation IndexError beyond steps_per_epoch."""
        if not self.evaluation:
            return super().__getitem__(step)
        check_step(step)
        if step >= self.steps_per_epoch:
            raise IndexError(f"step {step}: {len(self._used):,} clips end after {self.steps_per_epoch:,} steps")
        last = min((step + 1) * self.clips, len(self._used) * self.windows)
        clip, window = np.divmod(np.arange(step * self.clips, last), self.windows)
        place = (window + 0.5) / self.windows
        records = self._frames(self._used[clip], place, place[:, None]).ravel()
        return Slots(step, 0, records, shared_keys(self.seed, step, len(records), self.frames))

    def draw(self, epochs: np.ndarray, positions: np.ndarray) -> np.ndarray:
        visits = positions[:, None] * self.clips + np.arange(self.clips)
        if self.balance is not None:
            clips = in_epochs(self._balanced, epochs, positions)
            named = (epochs[:, None], clips, visits)  # a clip may come twice in an epoch
        else:
            clips = self._used[permute(visits, len(self._used), hash_rows(self.seed, epochs[:, None]))]
            named = (epochs[:, None], clips)
        place = _fractions(self.seed, STREAMS["cut"], *named).ravel() if self._duration_ms is not None else np.zeros(1)
        if self.spacing == "random":
            segments = (part[..., None] for part in named)
            parts = _fractions(self.seed, STREAMS["segment"], *segments, np.arange(self.frames))
        else:
            parts = _fractions(self.seed, STREAMS["segment"], *named)[..., None]
        frames = self._frames(clips.ravel(), place, parts.reshape(clips.size, -1))
        return frames.reshape(len(positions), self.batch_size)

    def _balanced(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        part, number = self._shares.at(epoch, positions)
        seed = hash_numbers(self.seed, STREAMS["image"])
        return self._pools.visit(part, np.array(epoch), self._shares.most(part), number, seed)

    def _frames(self, clips: np.ndarray, place: np.ndarray, parts: np.ndarray) -> np.ndarray:
        """Return the frames of clips (int64 [n]), int64 [n, frames].

        place: how far along what the duration leaves of a clip its window starts, float64 [n] in [0, 1].
        parts: of the segments, where their frame shows, float64 [n, frames or 1] in [0, 1).
        """
        first, count, begin, duration = self._extent(clips)
        window = duration if self._duration_ms is None else np.minimum(duration, self._duration_ms)
        start = begin + place * (duration - window)
        segments = (np.arange(self.frames) + parts) / self.frames
        number = self._shown_at(first, count, start[:, None] + segments * window[:, None])
        enough = (count >= self.frames)[:, None]
        return self._in_order(first[:, None] + np.where(enough, distinct_frames(number, count[:, None]), number))

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
        asked = {"duration_s": self.duration_s, "spacing": self.spacing, "balance": self.balance}
        plain = {"duration_s": None, "spacing": "even", "balance": None}  # unsaid, as in runs older than these
        return {
            "name": "clips",
            "frames": self.frames,
            "too_few": self.too_few,
            "evaluation": self.evaluation,
            "clips": len(self._used),
            "batch_size": self.batch_size,
            "seed": self.seed,
            **{key: value for key, value in asked.items() if value != plain[key]},
            **({"windows": self.windows} if self.windows > 1 else {}),
        }


def distinct_frames(number: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Push frames (int64 [n, T], not falling) on until none repeats, and back from the end of their clip.

    count: frames of each clip, T or more; it broadcasts to [n, 1].
    """
    order = np.arange(number.shape[1])
    distinct = np.maximum.accumulate(number - order, axis=1) + order
    return np.minimum(distinct, count - number.shape[1] + order)


def _fractions(*numbers: int | np.ndarray) -> np.ndarray:
    """Hash integers, some of them arrays, to fractions in [0, 1): float64 of their common shape."""
    return (hash_rows(*numbers) >> np.uint64(11)) * 2.0**-53


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
