"""A video file -> the times of its frames, and its frames as upright BMP images, in order, through PyAV."""

from __future__ import annotations

import importlib
import os
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from fastface.data.headers import MAX_PIXELS, MAX_SIDE, Rejected

MAX_FRAMES = 100_000  # in one video, an hour at 25 a second: a frame is reached by decoding all before it
PIP = "reading videos needs PyAV: pip install av"

# The format is chosen by these bytes, never guessed by FFmpeg: among what it would guess are playlists, which name
# other files and addresses to read.
_MAGIC = {b"RIFF": "avi", b"\x1a\x45\xdf\xa3": "matroska", b"\0\0\1\xba": "mpeg", b"FLV\1": "flv", b"0&\xb2u": "asf"}
_ATOMS = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"}  # of QuickTime and MP4


class Timeline(NamedTuple):
    """The frames of a video in the order in which they are shown."""

    seconds: np.ndarray  # float64 [n], from the first frame, rising
    stamps: np.ndarray  # int64 [n]: the frame's presentation time stamp, or its number where by_order
    by_order: bool  # the file's stamps do not tell frames apart (AVI has none for reordered frames)
    ends_early: bool  # fewer frames are there than the file announces

    def sample(self, fps: float | None) -> Timeline:
        """Take at each k / fps the frame that is shown then, none twice; None takes all."""
        if fps is None:
            return self
        last = float(np.median(np.diff(self.seconds))) if len(self.seconds) > 1 else 0.0  # how long it is shown
        steps = np.arange(max(int(np.ceil((self.seconds[-1] + last) * fps - 1e-6)), 1))
        chosen = np.unique(np.searchsorted(self.seconds, steps / fps + 1e-6, side="right") - 1)
        return self._replace(seconds=self.seconds[chosen], stamps=self.stamps[chosen])


def read_timeline(path: str | os.PathLike[str]) -> Timeline:
    """List the frames of a video without decoding them; Rejected says why a file is none that can be read."""
    with _Opened(path) as opened:
        stream: Any = opened.stream
        stamps: list[int | None] = []
        try:
            for packet in opened.container.demux(stream):
                if packet.size and not packet.is_discard:
                    stamps.append(packet.dts if packet.pts is None else packet.pts)
                if len(stamps) > MAX_FRAMES:
                    raise Rejected("too-large", f"more than {MAX_FRAMES:,} frames; cut it into clips")
        except opened.errors:
            pass  # the file is damaged from here on; what it announces tells how much is missing
        if not stamps:
            raise Rejected("empty-file", "no frames")
        announced = stream.frames or _matroska_frames(stream)
        by_order = opened.format in ("avi", "flv", "asf") or None in stamps
        if by_order:
            rate = float(stream.average_rate or stream.base_rate or 25)
            numbers = np.arange(len(stamps))
            return Timeline(numbers / rate, numbers, True, announced > len(stamps))
        known = np.unique(np.array(stamps, np.int64))
        seconds = (known - known[0]) * float(stream.time_base)
        distinct = np.diff(np.rint(seconds * 1000), prepend=-1) > 0  # two frames in one ms are one to us
        return Timeline(seconds[distinct], known[distinct], False, announced > len(stamps))


def _matroska_frames(stream: Any) -> int:
    """Estimate from the DURATION tag (HH:MM:SS.ns), rounded down, how many frames a Matroska file announces."""
    hours, _, rest = stream.metadata.get("DURATION", "").partition(":")
    minutes, _, seconds = rest.partition(":")
    try:
        return int((int(hours) * 3600 + int(minutes) * 60 + float(seconds)) * float(stream.average_rate or 0)) - 1
    except ValueError:
        return 0


class VideoReader:
    """The frames of one video, forward only."""

    def __init__(self, path: str, by_order: bool) -> None:
        self.path = path
        self.at = -(1 << 62)  # stamp of the last frame delivered
        self._by_order = by_order
        self._end: Rejected | None = None  # why nothing comes any more
        self._opened = _Opened(path)
        self._frames = self._decode()
        self._next = next(self._frames, None)

    def frame(self, stamp: int) -> bytes:
        """Return the frame with this stamp as a BMP; Rejected where there is none or it is damaged."""
        while self._next is not None and self._next[0] < stamp:
            self._next = next(self._frames, None)
        if self._next is None:
            raise self._end or Rejected("truncated", "the video ends before this frame")
        if self._next[0] > stamp:
            raise Rejected("corrupt", "the decoder gives no frame for this time")
        self.at = stamp
        frame = self._next[1]
        if frame.is_corrupt:
            raise Rejected("corrupt", "the decoder says that the frame is damaged")
        if frame.width * frame.height > MAX_PIXELS or max(frame.width, frame.height) > MAX_SIDE:
            raise Rejected("too-large", f"a frame of {frame.width} x {frame.height} px")
        # FFmpeg tells the angle by which the picture is to be turned anticlockwise to stand upright, as numpy turns
        return encode_bmp(np.rot90(self._opened.to_bgr(frame), frame.rotation // 90 % 4))

    def _decode(self) -> Iterator[tuple[int, Any]]:
        """Yield (stamp, frame); after damage nothing until the next key frame: what is predicted from it is wrong."""
        number, whole = 0, True
        packets = iter(self._opened.container.demux(self._opened.stream))
        while True:
            packet = None
            try:
                packet = next(packets, None)
                frames = [] if packet is None else packet.decode()
            except self._opened.errors as error:
                self._end = Rejected("corrupt", f"the decoder met damaged data: {error}")
                if packet is None or self._by_order:  # the file ends, or nobody knows how many frames are lost
                    return
                whole = False
                continue
            if packet is None:
                return
            for frame in frames:
                stamp = number if self._by_order else frame.pts
                number += 1
                whole = whole or frame.key_frame
                if whole and stamp is not None:
                    yield stamp, frame

    def close(self) -> None:
        """Close the file."""
        self._opened.container.close()


class _Opened:
    """An open container and its video stream, of known format, decoded by one thread."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        try:
            av: Any = importlib.import_module("av")
            importlib.import_module("av.video.reformatter")
        except ImportError:
            raise ValueError(PIP) from None
        self.errors = (av.error.FFmpegError, UnicodeDecodeError)
        self.format = _format(path)
        how = av.video.reformatter.Interpolation
        self._how = how.BILINEAR | how.ACCURATE_RND | how.BITEXACT  # the same bytes on every processor
        self._reformatter = av.video.reformatter.VideoReformatter()
        av.logging.set_level(None)  # damaged files would fill the terminal; what is wrong is in rejects.csv
        try:
            limits = {"protocol_whitelist": "file"}  # no other file or address is ever opened
            self.container = av.open(os.fspath(path), format=self.format, options=limits, metadata_errors="ignore")
        except self.errors as error:
            raise Rejected("corrupt", f"cannot be opened as {self.format}: {error}") from None
        try:
            if not self.container.streams.video:
                raise Rejected("not-an-image", "no video in it")
            self.stream: Any = self.container.streams.video[0]
            codec = self.stream.codec_context
            if codec is None:
                raise Rejected("unsupported-format", "a codec that this PyAV cannot decode")
            if codec.width * codec.height > MAX_PIXELS or max(codec.width, codec.height) > MAX_SIDE:
                raise Rejected("too-large", f"{codec.width} x {codec.height} px; at most {MAX_PIXELS} px")
            codec.thread_type, codec.thread_count = "NONE", 1  # a worker process has one core
            codec.options = {"err_detect": "explode"}  # damage is told, not painted over
        except Rejected:
            self.container.close()
            raise

    def to_bgr(self, frame: Any) -> np.ndarray:
        """Convert a frame to uint8 [H, W, 3]; by one thread, as a forked worker hangs on threads of its parent."""
        return self._reformatter.reformat(frame, format="bgr24", interpolation=self._how, threads=1).to_ndarray()

    def __enter__(self) -> _Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.container.close()


def _format(path: str | os.PathLike[str]) -> str:
    with open(path, "rb") as file:
        head = file.read(12)
    if head[4:8] in _ATOMS:
        return "mov"
    if head[:1] == b"\x47" and os.path.getsize(path) % 188 == 0:
        return "mpegts"
    found = _MAGIC.get(head[:4])
    if found is None or (found == "avi" and head[8:12] not in (b"AVI ", b"AVIX")):
        raise Rejected("not-an-image", f"the first bytes {head[:8].hex(' ')} are those of no video format")
    return found


def encode_bmp(pixels: np.ndarray) -> bytes:
    """Wrap uint8 [H, W, 3] BGR into an uncompressed BMP, whose rows go up and end at multiples of 4 bytes."""
    height, width = pixels.shape[:2]
    rows = np.zeros((height, -(-3 * width // 4) * 4), np.uint8)
    rows[:, : 3 * width] = pixels[::-1].reshape(height, 3 * width)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, rows.size, 0, 0, 0, 0)
    return struct.pack("<2sIHHI", b"BM", 54 + rows.size, 0, 0, 54) + info + rows.tobytes()
