"""Videos become clips: frames at their times, in order, the same for any number of workers; damage is told."""

from __future__ import annotations

import os
import pickle
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fastface.conversion.check import check
from fastface.conversion.convert import convert
from fastface.conversion.options import Options
from fastface.data.headers import Rejected
from fastface.data.images import load_rgb
from fastface.data.index import Index
from fastface.data.shards import ShardReader
from fastface.data.sources import Source
from fastface.data.sources.decode_video import VideoReader, read_timeline
from fastface.data.sources.kinds import open_source
from tests.data.shard_sets import tree
from tests.data.test_sources import JPEG, fill, names_of

av = pytest.importorskip("av", reason="needs PyAV: pip install av")


def cut(fraction: float) -> Callable[[bytes], bytes]:
    return lambda data: data[: int(len(data) * fraction)]


def scramble(data: bytes) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, len(data) // 2, np.uint8).tobytes()
    return data[: len(data) // 4] + noise + data[len(data) // 4 + len(noise) :]


WIDTH, HEIGHT, FRAMES = 64, 48, 30
CODECS = {
    "a.mp4": "libx264",
    "b.avi": "mpeg4",
    "c.avi": "libx264",
    "d.mkv": "libx264",
    "e.mov": "mpeg4",
    "f.webm": "libvpx",
}
HARMS = [cut(0.0), cut(0.05), cut(0.5), cut(0.95), scramble]


def make_video(
    path: Path, codec: str, times: list[int] | None = None, frames: int = FRAMES, size=(WIDTH, HEIGHT)
) -> Path:
    """Encode frames that show their number in bars, at 25 a second or at `times` (in ms)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        if times is not None:
            stream.codec_context.time_base = stream.time_base = av.time_base and __import__("fractions").Fraction(
                1, 1000
            )
        for k in range(frames if times is None else len(times)):
            pixels = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
            for bit in range(8):
                pixels[HEIGHT // 2 :, 8 * bit : 8 * bit + 8] = 230 * (k >> bit & 1)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if times is not None:
                frame.pts = times[k]
                frame.time_base = stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    for k, (name, codec) in enumerate(CODECS.items()):
        make_video(root / f"p{k % 2}" / name, codec)
    return root


def shown(source: Source, i: int) -> int:
    """Read which frame a record is."""
    return number_in(source.read(i))


def number_in(image: bytes) -> int:
    """Read the bars."""
    row = load_rgb(image)[3 * HEIGHT // 4].mean(axis=-1)
    return sum(int(row[8 * bit + 4] > 115) << bit for bit in range(8))


@pytest.mark.parametrize("fps", [None, 10.0, 60.0])
def test_frames_are_those_shown_at_the_times(videos: Path, fps: float | None) -> None:
    source = open_source("video", videos, fps=fps)[""]
    clip, time = source.columns["clip"], source.columns["time_ms"]
    assert (clip.dtype, time.dtype) == (np.int32, np.int64)
    times = [40 * k for k in range(FRAMES)]
    if fps == 10:  # at 0, 100, 200 ms ... the frames of 0, 80, 200 ms ... are shown
        times = [max(t for t in times if t <= 100 * k) for k in range(12)]
    for number in range(len(CODECS)):
        rows = np.flatnonzero(clip == number)
        assert time[rows].tolist() == times, names_of(source)[rows[0]]
        assert [shown(source, int(i)) for i in rows] == [t // 40 for t in times]
    assert source.name(1) == f"p0/a.mp4@{times[1]:09d}ms"
    assert source.classes == ["p0", "p1"]
    again = pickle.loads(pickle.dumps(source))
    assert [again.read(i) for i in (5, 3, 4)] == [source.read(i) for i in (5, 3, 4)]


def test_times_are_timestamps_not_frame_numbers(tmp_path: Path) -> None:
    times = [0, 10, 20, 500, 510, 900, 1300]
    make_video(tmp_path / "p" / "v.mkv", "libx264", times)
    source = open_source("video", tmp_path)[""]
    assert source.columns["time_ms"].tolist() == times
    source = open_source("video", tmp_path, fps=4)[""]
    assert source.columns["time_ms"].tolist() == [0, 20, 500, 510, 900]
    assert [shown(source, i) for i in range(5)] == [0, 2, 3, 4, 5]


def test_clips_are_shuffled_and_their_frames_are_not(tmp_path: Path, videos: Path) -> None:
    run = {"fps": 10, "shard_size": 8}
    convert(Options("video", videos, tmp_path / "one", workers=1, **run))
    convert(Options("video", videos, tmp_path / "two", workers=2, **run))
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    index = Index.open(tmp_path / "one")
    clip, time = index.columns["clip"].tolist(), index.columns["time_ms"].tolist()
    order = list(dict.fromkeys(clip))
    assert order != sorted(order)
    assert clip == [number for number in order for _ in range(clip.count(number))]
    for number in order:
        mine = [t for t, c in zip(time, clip, strict=True) if c == number]
        assert mine == sorted(mine)
    views = ShardReader(index).views(np.arange(len(index)))
    assert [number_in(bytes(view)) for view in views] == [t // 40 for t in time]
    assert check(index.path, decode=True, workers=1, show=str) == []


def test_a_split_by_clip_keeps_clips_whole_and_one_by_image_is_refused(tmp_path: Path, videos: Path) -> None:
    split = {"train": 0.5, "val": 0.5}
    with pytest.raises(ValueError, match=r"frames of one clip are nearly the same image.*--split-by clip"):
        convert(Options("video", videos, tmp_path / "set", workers=1, fps=5, split=split, split_by="image"))
    convert(Options("video", videos, tmp_path / "set", workers=1, fps=5, split=split, split_by="clip"))
    sets = [Index.open(tmp_path / "set" / name) for name in split]
    clips = [{index.name(i).split("@")[0] for i in range(len(index))} for index in sets]
    assert [len(some) for some in clips] == [3, 3]
    assert not clips[0] & clips[1]


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("harm", HARMS, ids=["0", "5", "50", "95", "noise"])
def test_damaged_videos_are_told_and_never_crash(tmp_path: Path, videos: Path, name: str, harm: Callable) -> None:
    good = next(videos.rglob(name)).read_bytes()
    fill(tmp_path / "in", ["p/whole.mp4"], b"")
    (tmp_path / "in/p/whole.mp4").write_bytes((videos / "p0/a.mp4").read_bytes())
    (tmp_path / "in/p" / name).write_bytes(harm(good))
    convert(Options("video", tmp_path / "in", tmp_path / "set", workers=1, shuffle=False))
    index = Index.open(tmp_path / "set")
    kept = sum(name in index.name(i) for i in range(len(index)))
    rejects = (tmp_path / "set/rejects.csv").read_text()
    assert len(index) - kept == FRAMES
    assert kept == FRAMES or f"p/{name}" in rejects, (kept, rejects)
    assert check(index.path, decode=True, workers=1, show=str) == []


def test_playlists_and_pages_named_as_videos_open_nothing(tmp_path: Path, videos: Path, no_network: Path) -> None:
    secret = tmp_path / "secret.ts"
    secret.write_bytes((videos / "p0/a.mp4").read_bytes())
    texts = {
        "hls.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{secret}\n#EXT-X-ENDLIST\n",
        "net.mov": "#EXTM3U\n#EXTINF:9,\nhttp://127.0.0.1:9/x.ts\n",
        "concat.avi": f"ffconcat version 1.0\nfile {secret}\n",
        "page.mkv": "<html>not found</html>",
        "empty.mp4": "",
    }
    for name, text in texts.items():
        fill(tmp_path / "in", [f"p/{name}"])
        (tmp_path / "in/p" / name).write_text(text)
    with pytest.raises(ValueError, match="none of 5 videos can be read: 5 not-an-image"):
        open_source("video", tmp_path / "in")
    (tmp_path / "in/p/ok.mp4").write_bytes((videos / "p0/a.mp4").read_bytes())
    source = open_source("video", tmp_path / "in")[""]
    assert {name.split("@")[0] for name in names_of(source)} == {"p/ok.mp4"}
    assert len(source.skipped) == 5


def test_a_phone_held_upright_gives_upright_frames(tmp_path: Path) -> None:
    """Patch the display matrix of an MP4 (ISO/IEC 14496-12, tkhd) to a quarter turn clockwise."""
    path = make_video(tmp_path / "p" / "v.mp4", "libx264", frames=3)
    data = bytearray(path.read_bytes())
    plain = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    turned = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, HEIGHT << 16, 0, 1 << 30)
    at = data.index(plain, data.index(b"tkhd"))
    data[at : at + len(plain)] = turned
    flat = load_rgb(open_source("video", tmp_path)[""].read(1))
    path.write_bytes(data)
    upright = load_rgb(open_source("video", tmp_path)[""].read(1))
    assert flat.shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(upright, np.rot90(flat, -1))


def test_folders_of_frames_are_clips(tmp_path: Path) -> None:
    fill(
        tmp_path / "in",
        [f"anna/{clip}/{k:04d}.jpg" for clip in ("x", "y") for k in range(4)] + ["anna/stray.jpg"],
        JPEG,
    )
    source = open_source("video", tmp_path / "in", fps=12.5)[""]
    assert source.columns["clip"].tolist() == [0] * 4 + [1] * 4
    assert source.columns["time_ms"].tolist() == [0, 80, 160, 240] * 2
    assert source.skipped == [("anna/stray.jpg", "outside-a-class-folder")]
    convert(Options("video", tmp_path / "in", tmp_path / "set", fps=12.5, workers=1))
    assert check(tmp_path / "set", workers=1, show=str) == []
    with pytest.raises(ValueError, match="pictures carry no times; give --fps"):
        open_source("video", tmp_path / "in")


def test_splits_of_clips_are_sets(tmp_path: Path, videos: Path) -> None:
    for split in ("train", "val"):
        for kind in ("live", "spoof"):
            fill(tmp_path, [f"{split}/{kind}/v.mp4"])
            (tmp_path / split / kind / "v.mp4").write_bytes((videos / "p0/a.mp4").read_bytes())
    sources = open_source("video", tmp_path, fps=1)
    assert list(sources) == ["train", "val"]
    assert all(source.classes == ["live", "spoof"] for source in sources.values())
    assert names_of(sources["val"])[0] == "val/live/v.mp4@000000000ms"


def test_mixed_trees_tars_and_a_missing_pyav_are_explained(tmp_path: Path, videos: Path, monkeypatch) -> None:
    fill(tmp_path / "in", ["p/a.mp4", "p/b/1.jpg"])
    with pytest.raises(ValueError, match=r"videos and pictures, such as p/b/1\.jpg"):
        open_source("video", tmp_path / "in")
    fill(tmp_path / "none", ["p/x.txt"])
    with pytest.raises(ValueError, match=r"holds no CLASS/CLIP\.mp4"):
        open_source("video", tmp_path / "none")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match="pip install av"):
        open_source("video", videos)


def test_reading_far_costs_no_memory_and_large_pictures_are_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("fastface.data.sources.decode_video.MAX_PIXELS", 1000)
    path = make_video(tmp_path / "v.mp4", "libx264", frames=2)
    with pytest.raises(Rejected, match="64 x 48 px"):
        read_timeline(path)
    monkeypatch.setattr("fastface.data.sources.decode_video.MAX_PIXELS", 10**6)
    monkeypatch.setattr("fastface.data.sources.decode_video.MAX_FRAMES", 1)
    with pytest.raises(Rejected, match="cut it into clips"):
        read_timeline(path)
    reader = VideoReader(os.fspath(path), False)
    with pytest.raises(Rejected, match="ends before this frame"):
        reader.frame(1 << 40)


def test_damage_costs_the_frames_to_the_next_key_frame_only(tmp_path: Path) -> None:
    path = tmp_path / "in" / "p" / "v.mp4"
    path.parent.mkdir(parents=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "10", "bf": "0", "sc_threshold": "0"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for k in range(30):
            pixels = np.random.default_rng(k // 10).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
            for bit in range(8):
                pixels[HEIGHT // 2 :, 8 * bit : 8 * bit + 8] = 230 * (k >> bit & 1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size, packet.is_keyframe) for packet in container.demux(video=0) if packet.size]
    assert [key for *_, key in packets] == [k % 10 == 0 for k in range(30)]
    data = bytearray(path.read_bytes())
    at, size, _ = packets[10]
    data[at + 8 : at + size] = bytes(size - 8)  # the second key frame
    path.write_bytes(data)
    source = open_source("video", tmp_path / "in")[""]
    for i in range(30):
        if 10 <= i < 20:
            with pytest.raises(Rejected, match=r"gives no frame for this time|damaged"):
                source.read(i)
        else:
            assert shown(source, i) == i
