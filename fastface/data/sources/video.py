"""CLASS/CLIP.mp4 or CLASS/CLIP/0001.jpg -> Source of frames: a clip's are neighbours, each with its time."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastface.data.headers import Rejected
from fastface.data.names import Names
from fastface.data.sources import Source, encode_labels
from fastface.data.sources.decode_video import Timeline, VideoReader, read_timeline
from fastface.data.sources.folder import find_splits
from fastface.data.sources.scan import EXTENSIONS, FileSource, Scan, left_out, scan

VIDEOS = frozenset(".mp4 .m4v .mov .3gp .avi .mkv .webm .mpg .mpeg .ts .flv .wmv .asf".split())


def open_video(path: Path, fps: float | None = None) -> Mapping[str, Source]:
    """Scan videos in class folders, or folders of frames in class folders; train/, val/ and test/ give a source each.

    Of a video, `fps` frames a second are taken by their timestamps (all where it is None): at each k / fps the frame
    that is shown then, none twice. Frames in folders carry no times, so there `fps` is the rate they were taken at.
    Columns: clip int32, time_ms int64 from the first frame. Videos that cannot be read, and those that end early
    (what they hold is used), go to `skipped`.
    """
    found = scan(path, VIDEOS | EXTENSIONS)
    is_video = [os.path.splitext(name)[1].lower() in VIDEOS for name in found.names]
    if not found.names:
        raise ValueError(
            f"{path} holds no CLASS/CLIP.mp4 and no CLASS/CLIP/FRAME.jpg. Left out: {left_out(found.skipped)}"
        )
    if any(is_video) and not all(is_video):
        picture = found.names[is_video.index(False)]
        raise ValueError(f"{path} holds videos and pictures, such as {picture}: give a folder with one of the two")
    if is_video[0] and not path.is_dir():
        raise ValueError(f"{path}: videos are read from folders; unpack it first (tar -xf)")
    splits = find_splits(path, found.names) or {"": ""}
    sources: dict[str, Source] = {}
    for top, split in splits.items():
        depth = 1 if top else 0
        deep = depth + (0 if is_video[0] else 1)  # folders above a video, or above a frame's own folder
        keep = [
            i for i, name in enumerate(found.names) if name.startswith(top and top + "/") and name.count("/") > deep
        ]
        part = found.take(keep)
        skipped = [] if sources else found.skipped
        skipped += [(n, "outside-a-class-folder") for n in found.names if n.startswith(top) and n.count("/") <= deep]
        if not keep:
            raise ValueError(f"{path / top} holds no CLASS/CLIP.mp4 and no CLASS/CLIP/FRAME.jpg")
        build = _videos if is_video[0] else _frames
        sources[split] = build(path, part, depth, skipped, fps)
    return sources


def _frames(path: Path, found: Scan, depth: int, skipped: list[tuple[str, str]], fps: float | None) -> Source:
    if fps is None:
        raise ValueError(f"{path}: pictures carry no times; give --fps, the rate at which the frames were taken")
    source = FileSource(path, found, (name.split("/")[depth] for name in found.names), skipped)
    clips, clip = np.unique([name.rpartition("/")[0] for name in found.names], return_inverse=True)
    counts = np.bincount(clip)
    if (np.diff(clip) != 0).sum() != len(clips) - 1:  # a clip with folders of its own, sorted among its frames
        raise ValueError(f"{path}: some folder holds frames and folders of frames; put each clip into its own folder")
    number = np.arange(len(clip)) - np.repeat(np.cumsum(counts) - counts, counts)[np.argsort(clip, kind="stable")]
    source.columns = {"clip": clip.astype(np.int32), "time_ms": np.rint(number * 1000 / fps).astype(np.int64)}
    return source


def _videos(path: Path, found: Scan, depth: int, skipped: list[tuple[str, str]], fps: float | None) -> Source:
    lines = timelines(path, found.names, skipped)
    if not lines:
        raise ValueError(f"{path}: none of {len(found.names):,} videos can be read: {left_out(skipped)}")
    persons = [name.split("/")[depth] for name in lines]
    return VideoSource(path, list(lines), [line.sample(fps) for line in lines.values()], persons, skipped)


def timelines(path: Path, names: list[str], skipped: list[tuple[str, str]]) -> dict[str, Timeline]:
    """List all frames of the videos that can be read; the others, and those that end early, go to `skipped`."""
    lines: dict[str, Timeline] = {}
    for name in names:
        try:
            lines[name] = read_timeline(path / name)
        except Rejected as error:
            skipped.append((name, error.reason))
            continue
        if lines[name].ends_early:
            skipped.append((name, "video-ends-early"))
    return lines


class VideoSource(Source):
    """Frames of videos, decoded one after the other; reading in order costs each frame once."""

    made_with = ("av",)

    def __init__(
        self,
        root: Path,
        clips: list[str],
        lines: list[Timeline],
        persons: list[str],
        skipped: list[tuple[str, str]],
    ) -> None:
        counts = [len(line.stamps) for line in lines]
        clip = np.repeat(np.arange(len(clips)), counts)
        classes, labels = encode_labels(persons)
        super().__init__(classes, labels[clip], skipped)
        self._root, self._clips = str(root), Names(clips)
        self._stamps = np.concatenate([line.stamps for line in lines])
        self._by_order = np.array([line.by_order for line in lines])
        time = np.concatenate([np.rint(line.seconds * 1000).astype(np.int64) for line in lines])
        self.columns = {"clip": clip.astype(np.int32), "time_ms": time}
        self._reader: VideoReader | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_reader": None}  # an open video means nothing in another process

    def name(self, i: int) -> str:
        return f"{self._clips[int(self.columns['clip'][i])]}@{self.columns['time_ms'][i]:09d}ms"

    def read(self, i: int) -> bytes:
        """Return the frame as a BMP, upright; Rejected where the decoder has none or says that it is damaged."""
        clip, stamp = int(self.columns["clip"][i]), int(self._stamps[i])
        path = f"{self._root}/{self._clips[clip]}"
        if self._reader is None or self._reader.path != path or self._reader.at >= stamp:
            self.close()
            self._reader = VideoReader(path, bool(self._by_order[clip]))
        return self._reader.frame(stamp)

    def close(self) -> None:
        """Close the open video."""
        if self._reader is not None:
            self._reader.close()
        self._reader = None
