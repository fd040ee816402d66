"""A shard set -> the list of all that is wrong with it, by shard, member and byte offset."""

from __future__ import annotations

import hashlib
import mmap
import multiprocessing
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastface.conversion.walk import Damage, Member, walk
from fastface.conversion.workers import num_cores
from fastface.data.columns import OTHER_COLUMNS, RECORD_COLUMNS, class_names, read_meta
from fastface.data.geometry import NUM_LANDMARKS
from fastface.data.images import ImageSpec, Rejected, prepare
from fastface.data.index_write import common_size, dataset_id, describe_column

SHOWN = 20  # problems listed per shard; a damaged tar can have one per image


def check(path: Path, *, decode: bool = False, workers: int | None = None, show: Callable = print) -> list[str]:
    """Verify the shard set in `path`, or each set right below it; return what is wrong, line by line.

    Every byte is read: sha256 per shard and column, tar structure against the index, labels, crc32 per image,
    and with `decode` the pixels. `show` gets one line per set. ValueError where there is no shard set at all.
    """
    if (folders := sets_in(path)) != [path]:
        return [line for each in folders for line in check(each, decode=decode, workers=workers, show=show)]
    meta = read_meta(path)
    columns, wrong = _load_columns(path, meta)
    if not wrong:
        wrong = [f"{path}/index: {what}" for what in _check_columns(path, meta, columns)]
    bounds: list[tuple[int, int] | None] = [None] * len(meta["shards"])
    if wrong:
        wrong.append(f"{path}: the index is not used to check the shards, only their sha256 is")
    else:
        edges = np.searchsorted(columns["shard"], np.arange(len(bounds) + 1)).tolist()
        bounds = list(pairwise(edges))
    if dataset_id(meta["shards"], meta["columns"], meta["classes"]) != meta["dataset_id"]:
        wrong.append(f"{path}/meta.json: the dataset id is not that of the hashes and classes it lists")
    wrong += _check_files(path, meta)
    tasks = [Task(path, shard, rows, decode) for shard, rows in zip(meta["shards"], bounds, strict=True)]
    wrong += [line for lines in _run(tasks, workers) for line in lines]
    verdict = f"{len(wrong):,} problems" if wrong else "all is well"
    show(f"{path}: {meta['num_samples']:,} images in {len(tasks):,} shards: {verdict}")
    return wrong


def sets_in(path: Path) -> list[Path]:
    """Return the shard set in `path`, or those right below it."""
    below = [file.parent for file in sorted(path.glob("*/meta.json"))]
    return below if below and not (path / "meta.json").exists() else [path]


class Task(NamedTuple):
    """One shard to check."""

    path: Path
    shard: dict[str, Any]  # its row in meta.json
    rows: tuple[int, int] | None  # its records, from and to; None where the index cannot be trusted
    decode: bool


def _run(tasks: list[Task], workers: int | None) -> Iterator[list[str]]:
    workers = workers or num_cores()
    if min(workers, len(tasks)) <= 1:
        yield from map(check_shard, tasks)
        return
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(min(workers, len(tasks)), context) as pool:
        yield from pool.map(check_shard, tasks)


def _load_columns(path: Path, meta: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], list[str]]:
    columns, wrong = {}, []
    for name in [*RECORD_COLUMNS, *OTHER_COLUMNS]:
        if name not in meta["columns"]:
            wrong.append(f"{path}/meta.json: lists no column {name!r}")
    for name, described in meta["columns"].items():
        file = path / "index" / f"{name}.npy"
        try:
            columns[name] = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            wrong.append(f"{file}: cannot be opened ({error})")
            continue
        found = describe_column(columns[name])
        for key in ("dtype", "shape", "sha256"):
            if found[key] != described[key]:
                wrong.append(f"{file}: {key} is {found[key]}, meta.json says {described[key]}")
    return columns, wrong


def _check_columns(path: Path, meta: Mapping[str, Any], columns: Mapping[str, np.ndarray]) -> Iterator[str]:
    """Yield what contradicts itself in columns whose hashes are right: whoever wrote them made a mistake."""
    samples, classes, label = meta["num_samples"], meta["num_classes"], np.asarray(columns["label"])
    named = list(class_names(path, meta, columns))
    for name in [*RECORD_COLUMNS, "by_label", "by_name"]:
        if columns[name].shape != (samples,):
            yield f"{name} has shape {columns[name].shape}, there are {samples:,} images"
            return
    if label.min() < 0 or label.max() >= classes or len(named) != classes:
        yield f"labels run from {label.min()} to {label.max()}, {len(named):,} classes have a name"
        return
    counts = np.bincount(label, minlength=classes)
    if not np.array_equal(np.diff(columns["label_start"]), counts) or columns["label_start"][0] != 0:
        yield "label_start does not count the labels"
    if not np.array_equal(columns["by_label"], np.argsort(label, kind="stable")):
        yield "by_label is not the order of the labels"
    if meta["samples_per_class"] not in (None, counts.tolist()):
        yield "samples_per_class in meta.json does not count the labels"
    if named != sorted(named) or not counts.all():
        yield "classes are not sorted by code point, or one has no image"
    shards = np.bincount(columns["shard"], minlength=len(meta["shards"])).tolist()
    if shards != [shard["samples"] for shard in meta["shards"]] or (np.diff(columns["shard"]) < 0).any():
        yield "the shard column does not follow the shards"
    if meta["image_size"] != common_size(columns["width"], columns["height"]):
        yield f"image_size {meta['image_size']} is not that of the width and height columns"
    yield from _check_names(samples, columns)
    yield from _check_faces(columns)
    yield from _check_clips(columns)


def _check_faces(columns: Mapping[str, np.ndarray]) -> Iterator[str]:
    """Yield what is wrong with boxes and landmarks; landmarks may be unknown, which is NaN."""
    width, height = np.asarray(columns["width"]), np.asarray(columns["height"])
    if any(name.startswith("boxes") for name in columns):
        start, boxes = columns.get("boxes_start", np.zeros(0)), columns.get("boxes", np.zeros(0))
        runs = len(start) == len(width) + 1 and start[0] == 0 and (np.diff(start) >= 0).all()
        if not runs or start[-1] != len(boxes) or boxes.shape[1:] != (4,):
            yield "boxes_start does not run over boxes [M, 4]"
            return
        for name, values in columns.items():
            if name.startswith("boxes_") and name != "boxes_start" and len(values) != len(boxes):
                yield f"{name} has {len(values):,} values for {len(boxes):,} boxes"
        image = np.repeat(np.arange(len(width)), np.diff(start))
        inside = (boxes >= 0).all(axis=1) & (boxes[:, 2] <= width[image]) & (boxes[:, 3] <= height[image])
        good = inside & (boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3])
        if not good.all():
            k = int(np.argmin(good))
            yield f"{(~good).sum():,} boxes are no rectangles inside their image, first box {k} of record {image[k]}"
    if "landmarks" in columns and columns["landmarks"].shape != (len(width), 2 * NUM_LANDMARKS):
        yield f"landmarks has shape {columns['landmarks'].shape}, expected [N, {2 * NUM_LANDMARKS}]"


def _check_clips(columns: Mapping[str, np.ndarray]) -> Iterator[str]:
    """Yield what is wrong with clips: their frames must be neighbours, in the order of time."""
    if "clip" not in columns or "time_ms" not in columns:
        return
    clip, time = np.asarray(columns["clip"]), np.asarray(columns["time_ms"])
    change = np.flatnonzero(np.diff(clip)) + 1
    if len(np.unique(clip)) != len(change) + 1:
        yield "the frames of a clip are not neighbours"
    if ((np.diff(time) <= 0) & (np.diff(clip) == 0)).any():
        yield "time_ms does not rise within every clip"


def _check_names(samples: int, columns: Mapping[str, np.ndarray]) -> Iterator[str]:
    starts, by_name = np.asarray(columns["names_start"]), columns["by_name"]
    if (
        len(starts) != samples + 1
        or starts[0] != 0
        or starts[-1] != len(columns["names"])
        or (np.diff(starts) < 0).any()
    ):
        yield "names_start does not run over names"
        return
    if not np.array_equal(np.sort(by_name), np.arange(samples)):
        yield "by_name does not list every record once"
        return
    block, edges = columns["names"].tobytes(), starts.tolist()
    before = b""
    for record in by_name.tolist():
        name = block[edges[record] : edges[record + 1]]
        if name < before:
            yield f"by_name is not in the order of the names at record {record}"
            return
        before = name


def _check_files(path: Path, meta: Mapping[str, Any]) -> Iterator[str]:
    for name, expected in meta.get("files", {}).items():
        try:
            data = (path / name).read_bytes()
        except OSError as error:
            yield f"{path / name}: cannot be read ({error.strerror})"
            continue
        if hashlib.sha256(data).hexdigest() != expected["sha256"]:
            yield f"{path / name}: {len(data):,} bytes whose sha256 is not that in meta.json"
    known = {shard["name"] for shard in meta["shards"]}
    for file in sorted(path.glob("*.tar")):
        if file.name not in known:
            yield f"{file}: a tar that meta.json does not list"


def check_shard(task: Task) -> list[str]:
    """Return what is wrong with one shard, at most SHOWN lines and a count of the rest."""
    file = task.path / task.shard["name"]
    try:
        with open(file, "rb") as handle:
            data = np.frombuffer(mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    except (OSError, ValueError) as error:  # mmap refuses an empty file
        return [f"{file}: cannot be read ({error}), expected {task.shard['bytes']:,} bytes"]
    problems = _problems(task, data)
    wrong = [f"{file}: {what}" for what in islice(problems, SHOWN)]
    if more := sum(1 for _ in problems):
        wrong.append(f"{file}: and {more:,} problems more")
    if wrong:
        wrong.append(
            f"{file}: copy this shard from a good copy, make the set again with tools/make_shards.py, or save what is "
            "good of it with --repair --out NEW"
        )
    return wrong


def _problems(task: Task, data: np.ndarray) -> Iterator[str]:
    expected = task.shard
    if len(data) != expected["bytes"]:
        yield f"has {len(data):,} bytes, expected {expected['bytes']:,}"
    if hashlib.sha256(data.data).hexdigest() != expected["sha256"]:
        yield f"sha256 is not {expected['sha256']}"
    members = []
    try:
        for member in walk(data):
            members.append(member)
    except Damage as damage:
        yield str(damage)
    if len(members) != 2 * expected["samples"]:
        yield f"{len(members) / 2:g} samples can be read in order, expected {expected['samples']:,}"
    if task.rows is not None:
        names = ("offset", "length", "label", "crc32", "width", "height")
        folder = task.path / "index"
        rows = [np.load(folder / f"{name}.npy", mmap_mode="r")[slice(*task.rows)].tolist() for name in names]
        yield from _compare(data, members, list(zip(*rows, strict=True)))
        yield from _check_images(data, rows, task.decode)


def _compare(data: np.ndarray, members: list[Member], rows: list[tuple[int, ...]]) -> Iterator[str]:
    """Compare the members that could be read with the rows of the index, in order."""
    last = -1
    for (image, text), (offset, length, label, *_) in zip(
        zip(members[::2], members[1::2], strict=False), rows, strict=False
    ):
        key = image.name.split(".")[0]
        where = f"member {image.name} at byte {image.offset}"
        if (image.offset, image.length) != (offset, length):
            yield f"{where}: has {image.length:,} bytes; the index says {length:,} bytes at {offset}"
        if text.name != f"{key}.cls" or image.name.endswith(".cls") or int(key) <= last:
            yield f"{where}: is followed by {text.name}; expected an image, its .cls, then a higher key"
        elif data[text.offset : text.offset + text.length].tobytes() != b"%d" % label:
            yield f"member {text.name} at byte {text.offset}: is not label {label}, as in the index"
        last = int(key)


def _check_images(data: np.ndarray, rows: list[list[int]], decode: bool) -> Iterator[str]:
    for offset, length, _, crc32, width, height in zip(*rows, strict=True):
        image = data[offset : offset + length].tobytes()
        name = data[max(offset - 512, 0) :][:100].tobytes().split(b"\0")[0].decode("ascii", "backslashreplace")
        where = f"member {name} at byte {offset}"
        if zlib.crc32(image) != crc32:
            yield f"{where}: crc32 is {zlib.crc32(image):08x}, the index says {crc32:08x}"
        elif decode:
            try:
                found = prepare(image, ImageSpec())
            except Rejected as error:
                yield f"{where}: cannot be decoded: {error.reason}, {error}"
                continue
            if (found.width, found.height) != (width, height):
                yield f"{where}: is {found.width}x{found.height}, the index says {width}x{height}"
