"""A video file or a folder of frames -> the frames that a model of clips looks at, spread evenly over its time."""

import os
from pathlib import Path

import numpy as np

from fastface.data.headers import Rejected
from fastface.data.images import ImageSpec, load_rgb
from fastface.data.plans.clips import distinct_frames
from fastface.data.sources import read_file
from fastface.data.sources.decode_video import VideoReader, read_timeline
from fastface.data.sources.scan import EXTENSIONS


def read_clip(
    path: str | Path,
    frames: int,
    spec: ImageSpec | None = None,
    *,
    duration_s: float | None = None,
    fps: float | None = None,
    windows: int = 1,
) -> np.ndarray:
    """Read so many frames of a video, each cut and resized by `spec`: uint8 RGB [windows, frames, H, W, 3].

    They are those that evaluation takes (data.plan clips): from the middle of each of `frames` equal segments of the
    video's time, or of its middle `duration_s` seconds; several windows are spread evenly over it. Frames repeat where
    there are too few.

    Args:
        path: a video file, read with PyAV by its time stamps, or a folder of pictures in the order of their names.
        spec: None takes frames as they are.
        fps: the rate at which the pictures of a folder were taken, needed for `duration_s` of a folder.

    Raises:
        ValueError: where there is no such video, no picture in the folder, or a frame cannot be read.
    """
    path, spec = Path(path), spec or ImageSpec()
    if frames < 1 or windows < 1:
        raise ValueError(f"frames {frames} and windows {windows} must be at least 1")
    if not path.exists():
        raise ValueError(f"{path} does not exist; give a video file or a folder of frames")
    try:
        if path.is_dir():
            names = _pictures(path)
            if duration_s is not None and fps is None:
                raise ValueError(f"{path}: pictures carry no times; say with fps at which rate they were taken")
            time_ms = np.arange(len(names)) * 1000 / (fps or 1.0)
            chosen = frames_at(time_ms, frames, duration_s, windows)
            images = {n: load_rgb(read_file(path / names[n], follow=True), spec) for n in np.unique(chosen).tolist()}
        else:
            line = read_timeline(path)
            chosen = frames_at(line.seconds * 1000, frames, duration_s, windows)
            reader, images = VideoReader(os.fspath(path), line.by_order), {}
            try:
                for n in np.unique(chosen).tolist():  # forward, so that each is decoded once
                    images[n] = load_rgb(reader.frame(int(line.stamps[n])), spec)
            finally:
                reader.close()
    except (Rejected, OSError) as error:
        raise ValueError(f"{path} cannot be read as a clip: {error}") from None
    sizes = {image.shape for image in images.values()}
    if len(sizes) > 1:
        raise ValueError(f"{path}: frames differ in size, such as {sorted(sizes)[:2]}; give a spec with a size")
    return np.stack([images[n] for n in chosen.ravel().tolist()]).reshape(*chosen.shape, *sizes.pop())


def frames_at(time_ms: np.ndarray, frames: int, duration_s: float | None = None, windows: int = 1) -> np.ndarray:
    """Choose frames of a clip by their times (float64 [n], rising): int64 [windows, frames], as data.plan clips does.

    Window k shows parts (k + 1/2) / windows of the segments, and starts as far along what the duration leaves.
    """
    count = len(time_ms)
    duration = float(time_ms[-1] - time_ms[0]) * (count / max(count - 1, 1))
    window = duration if duration_s is None else min(duration, 1000 * duration_s)
    place = (np.arange(windows)[:, None] + 0.5) / windows
    times = time_ms[0] + place * (duration - window) + (np.arange(frames) + place) / frames * window
    number = np.maximum(np.searchsorted(time_ms, times, side="right") - 1, 0)
    return number if count < frames else distinct_frames(number, np.array(count))


def _pictures(folder: Path) -> list[str]:
    """Name the pictures that lie in a folder, sorted."""
    names = sorted(
        name for name in os.listdir(folder) if os.path.splitext(name)[1].lower() in EXTENSIONS and name[0] != "."
    )
    if not names:
        raise ValueError(f"{folder} holds no pictures; give a video file or a folder of frames")
    return names
