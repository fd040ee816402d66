"""Live and spoof images or videos in a dataset's own layout, or in folders so named -> Source per split."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastface.data.geometry import Faces
from fastface.data.sources import Source, encode_labels
from fastface.data.sources.liveness_boxes import BoxReader
from fastface.data.sources.liveness_layouts import LAYOUTS, Layout
from fastface.data.sources.liveness_lists import Place
from fastface.data.sources.liveness_tree import CLASS_FOLDERS, read_tree
from fastface.data.sources.scan import EXTENSIONS, FileSource, Scan, left_out, scan
from fastface.data.sources.video import VIDEOS, VideoSource, timelines
from fastface.spelling import nearest

CLASSES = ("live", "spoof")  # labels 0 and 1
TREE = "tree"  # folders named live and spoof
SPLITS = ("train", "val", "test", None)
LISTS = frozenset((".txt", ".json", ".face"))  # what tells a layout and is read with it
_DIGITS = re.compile(r"(\d+)")


class File(NamedTuple):
    """A video or a picture."""

    row: int  # of the scan
    name: str
    unit: str  # what is told of: the clip of a frame, else the file itself


def open_liveness(
    path: Path, layout: str | None = None, fps: float | None = None, protocol: str | None = None
) -> dict[str, Source]:
    """Scan a liveness dataset: {"": source}, or one source per split.

    `layout` is a key of LAYOUTS or "tree" ([SOURCE/]SPLIT/live|spoof/...); None finds the one whose files are there
    and says so. Of videos `fps` frames a second are taken (None: all), of folders of frames it is the rate they were
    taken at. In a tree, pictures become clips, one for each folder, where `fps` is given. `protocol` is OULU-NPU's.

    Columns are int32 with names in `values`: attack, source (where there is one), subject (-1 where it is not known)
    and what else the layout tells; clip and time_ms (int64) where there are clips. Boxes come from the layout's face
    files, NaN where they know none. What fits no rule goes to `skipped`.
    """
    found = scan(path, EXTENSIONS | VIDEOS | LISTS)
    name = _layout_of(path, found.names) if layout is None else layout
    if name not in (TREE, *LAYOUTS):
        raise ValueError(f"--layout {name!r}{nearest(name, (TREE, *LAYOUTS))}; layouts: {', '.join((TREE, *LAYOUTS))}")
    if name != TREE and not path.is_dir():
        raise ValueError(f"{path}: layout {name} is read from a folder; unpack it first (tar -xf)")
    told = LAYOUTS.get(name)
    if told is None:
        found.skipped += [(file, "not-an-image-extension") for file in found.names if _extension(file) in LISTS]
    clips = told is not None and told.clips
    files = [File(i, n, _unit(n, clips)) for i, n in enumerate(found.names) if _extension(n) not in LISTS]
    units = dict.fromkeys(file.unit for file in files)
    places = read_tree(units) if told is None else told.read(path, units)
    if fps is not None and told is not None and not told.clips:
        raise ValueError(f"--fps {fps:g}: layout {name} holds images, not videos; leave it out")
    why = "outside-a-class-folder" if told is None else "outside-the-layout"
    found.skipped += [(file.name, why) for file in files if file.unit not in places]
    files = [file for file in files if file.unit in places]
    if protocol is not None:
        if told is None or told.protocol is None:
            raise ValueError(f"--protocol {protocol} is for layout oulu-npu only, not {name}; leave it out")
        places = told.protocol(path, protocol, places)
        found.skipped += [(file.name, "outside-the-protocol") for file in files if file.unit not in places]
        files = [file for file in files if file.unit in places]
    found.skipped.sort()
    _check(path, name, files, places, found.skipped)
    return _sources(path, told, found, files, places, fps)


def _extension(file: str) -> str:
    return os.path.splitext(file)[1].lower()


def _unit(file: str, clips: bool) -> str:
    """Name what a file belongs to: a frame to the clip whose folder it lies in, all else to itself."""
    return file.rpartition("/")[0] if clips and _extension(file) in EXTENSIONS else file


def _layout_of(path: Path, names: list[str]) -> str:
    """Find the layout by its tell-tale files, and say which it is."""
    tells = {name: next(filter(layout.tell.search, names), None) for name, layout in LAYOUTS.items()}
    known = {name: file for name, file in tells.items() if file is not None}
    if len(known) > 1:
        said = ", ".join(f"{name} ({file})" for name, file in known.items())
        raise ValueError(f"{path} holds several datasets: {said}; convert each by itself, or choose with --layout")
    if not known:
        return TREE
    name, file = next(iter(known.items()))
    print(f"{path} is laid out as {name} (it holds {file}); --layout names another", file=sys.stderr)
    return name


def _check(
    path: Path, layout: str, files: list[File], places: Mapping[str, Place], skipped: list[tuple[str, str]]
) -> None:
    """Refuse what cannot be trained on or measured with."""
    units = {file.unit: places[file.unit] for file in files}
    counts = Counter((place.split, place.label) for place in units.values())
    splits = {place.split for place in units.values()}
    for split in splits or {None}:
        live, spoof = (counts[split, name] for name in CLASSES)
        if not live or not spoof:
            expected = f"folders such as train/live and train/spoof (also {', '.join(CLASS_FOLDERS)})"
            expected = expected if layout == TREE else f"layout {layout}: {LAYOUTS[layout].help}"
            others = f". Left out: {left_out(skipped)}" if skipped else ""
            what = "images" if layout == TREE or not LAYOUTS[layout].clips else "clips"
            raise ValueError(
                f"{path} {split or ''}: {live} live and {spoof} spoof {what}; expected both, in {expected}{others}"
            )
    if None in splits and len(splits) > 1:
        stray = next(unit for unit, place in units.items() if place.split is None)
        raise ValueError(f"{path} has splits, but {stray} is in none of them; move it into train, val or test")
    pictures = [file.name for file in files if _extension(file.name) not in VIDEOS]
    if 0 < len(pictures) < len(files):
        raise ValueError(f"{path} holds videos and pictures, such as {pictures[0]}: give a folder with one of the two")
    if not pictures and not path.is_dir():
        raise ValueError(f"{path}: videos are read from folders; unpack it first (tar -xf)")
    if layout != TREE:  # in a tree, which its user made, the report says whom two splits share
        _check_people(path, layout, units)


def _check_people(path: Path, layout: str, places: Mapping[str, Place]) -> None:
    first: dict[str, tuple[str | None, str]] = {}
    for unit, place in places.items():
        split, other = first.setdefault(place.subject or "", (place.split, unit))
        if not place.subject or split == place.split:
            continue
        if LAYOUTS[layout].shares_people:
            said = f"{layout}'s official splits are of sessions and share people, such as {place.subject}"
            print(f"{path}: {said}", file=sys.stderr)
            return
        raise ValueError(
            f"{path}: subject {place.subject} is in {split} ({other}) and in {place.split} ({unit}): {layout}'s "
            "splits share nobody, so one of the two lies in the wrong folder or list"
        )


def _sources(
    path: Path, layout: Layout | None, found: Scan, files: list[File], places: Mapping[str, Place], fps: float | None
) -> dict[str, Source]:
    """Make a source of each split; the numbers of a column mean the same in all."""
    used = list(dict.fromkeys(file.unit for file in files))
    columns, values = _columns([places[unit] for unit in used])
    number = {unit: k for k, unit in enumerate(used)}
    reader = None if layout is None else layout.boxes
    clips = fps is not None if layout is None else layout.clips
    sources: dict[str, Source] = {}
    for split in sorted({places[unit].split for unit in used}, key=SPLITS.index):
        chosen = [file for file in files if places[file.unit].split == split]
        skipped = [] if sources else found.skipped
        if _extension(chosen[0].name) in VIDEOS:
            source, units = _videos(path, chosen, places, skipped, fps, reader)
        elif clips:
            source, units = _frames(path, found, chosen, places, skipped, fps)
        else:
            source, units = _pictures(path, found, chosen, places, skipped), [file.unit for file in chosen]
            if reader is not None:
                boxes = [reader(path, unit, np.zeros(1, np.int64)) for unit in units]
                _add_boxes(source, boxes, [1] * len(units))
        of = np.array([number[unit] for unit in units], np.int64)
        source.columns |= {name: column[of] for name, column in columns.items()}
        source.values |= values
        sources[split or ""] = source
    return sources


def _columns(places: list[Place]) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    """Encode what is told of each unit: int32 columns, and what their numbers mean."""
    columns: dict[str, np.ndarray] = {}
    values: dict[str, list[str]] = {}
    told = {"attack": [place.attack for place in places], "source": [place.source or "" for place in places]}
    told |= {name: [place.details[name] for place in places] for name in places[0].details}
    for name, said in told.items():
        names, numbers = encode_labels(said)
        if names != [""]:
            columns[name], values[name] = numbers.astype(np.int32), names
    people = encode_labels([place.subject for place in places if place.subject])[0]
    number = {name: k for k, name in enumerate(people)}
    columns["subject"] = np.array([number.get(place.subject or "", -1) for place in places], np.int32)
    values["subject"] = people
    return columns, values


def _pictures(
    path: Path, found: Scan, files: list[File], places: Mapping[str, Place], skipped: list[tuple[str, str]]
) -> FileSource:
    rows, labels = [file.row for file in files], [places[file.unit].label for file in files]
    return FileSource(path, found.take(rows), labels, skipped)


def _frames(
    path: Path,
    found: Scan,
    files: list[File],
    places: Mapping[str, Place],
    skipped: list[tuple[str, str]],
    fps: float | None,
) -> tuple[FileSource, list[str]]:
    """Read pictures as frames: those of a folder are a clip, in the order of the numbers in their names."""
    if fps is None:
        raise ValueError(f"{path}: pictures carry no times; give --fps, the rate at which the frames were taken")
    files = sorted(files, key=lambda file: (file.name.rpartition("/")[0], _by_number(file.name), file.name))
    source = _pictures(path, found, files, places, skipped)
    clip = encode_labels([file.name.rpartition("/")[0] for file in files])[1]
    first = np.flatnonzero(np.diff(clip, prepend=-1))
    place = np.arange(len(clip)) - np.repeat(first, np.bincount(clip))
    source.columns = {"clip": clip.astype(np.int32), "time_ms": np.rint(place * 1000 / fps).astype(np.int64)}
    return source, [file.unit for file in files]


def _by_number(name: str) -> list[int]:
    return [int(digits) for digits in _DIGITS.findall(name.rpartition("/")[2])]


def _videos(
    path: Path,
    files: list[File],
    places: Mapping[str, Place],
    skipped: list[tuple[str, str]],
    fps: float | None,
    reader: BoxReader | None,
) -> tuple[VideoSource, list[str]]:
    lines = timelines(path, [file.unit for file in files], skipped)
    labels = [places[unit].label for unit in lines]
    if missing := set(CLASSES) - set(labels):
        raise ValueError(f"{path}: no {missing.pop()} video can be read: {left_out(skipped)}")
    sampled = {unit: line.sample(fps) for unit, line in lines.items()}
    source = VideoSource(path, list(lines), list(sampled.values()), labels, skipped)
    if reader is not None:
        numbers = {unit: np.searchsorted(line.stamps, sampled[unit].stamps) for unit, line in lines.items()}
        _add_boxes(source, [reader(path, unit, k) for unit, k in numbers.items()], [len(k) for k in numbers.values()])
    return source, [unit for unit, line in sampled.items() for _ in line.stamps]


def _add_boxes(source: Source, boxes: list[np.ndarray | None], counts: list[int]) -> None:
    """Join the boxes of all units; nothing where there is no box at all."""
    nothing = [np.full((count, 4), np.nan, np.float32) for count in counts]
    joined = np.concatenate([empty if box is None else box for box, empty in zip(boxes, nothing, strict=True)])
    known = np.isfinite(joined).all(axis=1)
    if known.any():
        source.boxes = joined
        source.faces = Faces(np.concatenate([[0], np.cumsum(known)]).astype(np.int64), joined[known], {})
