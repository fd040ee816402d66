"""An earlier RUN -> what a new one takes over from it: a teacher to learn from, the centres of its identities."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from fastface.card import Card
from fastface.checkpoint import Checkpoint
from fastface.config import DataConfig
from fastface.heads.class_rows import ClassRows
from fastface.predictor import find_checkpoint, load_network
from fastface.tasks.distill import Teacher

ROWS_AT_ONCE = 1 << 16
"""Rows of another run's centres in memory beside a process's own: 134 MB at 512 values each."""


def load_teacher(run: Path, data: DataConfig, crop: float | str | None) -> tuple[Teacher, list[str]]:
    """Load the network of a RUN or step folder as a teacher for images prepared as `data` says; return notes on it.

    Of its checkpoint only the network is read, never the optimizer or the centres. crop: how the images were cut.

    Raises:
        ValueError: for what is no run, and for images of another aspect than the teacher's.
    """
    if run.suffix == ".onnx":
        raise ValueError(
            f"task.distill.teacher {run} is an .onnx file, which would run on the CPU alone: give the RUN it was "
            "exported from, or import its weights with tools/import_weights.py"
        )
    saved = find_checkpoint(run)
    card = Card.of(saved.state["card"], str(saved.path))
    network = load_network(saved)
    (width, height), (own_width, own_height) = card.input_size, data.size
    if width * own_height != height * own_width:
        raise ValueError(
            f"task.distill.teacher {run} takes images of {width}x{height}, data.size is {own_width}x{own_height}: "
            "resizing would distort the faces; make data.size of the teacher's aspect, with model.window to cut it"
        )
    teacher = Teacher(
        network,
        size=card.input_size,
        mean=card.mean,
        std=card.std,
        student_mean=data.mean,
        student_std=data.std,
        embedding_size=card.embedding_size,
        sha256=digest_of(network.state_dict()),
    )
    notes = [f"teacher: {saved.path}, {card.embedding_size} values, weights {teacher.sha256[:12]}"]
    if card.crop is not None and card.crop != crop:
        notes.append(
            f"the teacher learned from faces cut by {card.crop!r}, these shards are cut by {crop!r}: it may place them "
            "badly; make the shards as its were"
        )
    return teacher, notes


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of named tensors: their names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def start_centres(head: ClassRows, classes: Sequence[str], data: DataConfig, run: Path, *, frozen: bool) -> str:
    """Let a head's rows start from those of a RUN or step folder, by class name; return a line that counts them.

    Every process reads the rows of its own classes, ROWS_AT_ONCE at a time. The optimizer's moments are not taken over.

    Args:
        classes: names of the head's classes, in their order.
        data: where they come from, which says what their names mean.
        frozen: refuse classes that the run does not know, whose random rows would never learn.

    Raises:
        ValueError: where the run has no centres, none for these classes, or others than the head's.
    """
    saved = find_checkpoint(run)
    before, file = classes_of(saved), saved.path / "model.safetensors"
    theirs, ours = saved.state["config"]["data"], data.model_dump(mode="json")
    place = places(_named(before, theirs, ours), _named(classes, ours, theirs))  # int64 [all classes of the head]
    new, dropped = int((place < 0).sum()), len(before) - len(set(place[place >= 0].tolist()))
    known = len(place) - new
    if not known:
        raise ValueError(
            f"task.centres {run} knows none of the identities of these shards: its are named {before[0]!r}, theirs "
            f"{classes[0]!r}; take the run of a set that shares them, or leave task.centres out"
        )
    if frozen and new:
        first = classes[int(np.flatnonzero(place < 0)[0])]
        raise ValueError(
            f"task.freeze_centres: {new:,} of {len(place):,} identities are new to {run}, the first {first!r}: their "
            "random centres would never learn; train on identities it knows, or set freeze_centres: false"
        )
    _check_shape(file, len(before), saved.state["config"]["task"].get("sub_centres", 1), head)
    own = place[head.first : head.last]
    to = _lines(np.flatnonzero(own >= 0), head.sub_centres)
    rows = read_rows(file, "head.weight", _lines(own[own >= 0], head.sub_centres))
    with torch.no_grad():
        head.weight[torch.from_numpy(to)] = rows.to(head.weight)
    return (
        f"centres of {known:,} of {len(place):,} identities start from {saved.path}; {new:,} are new and start "
        f"at random, {dropped:,} of its {len(before):,} are dropped"
    )


def classes_of(saved: Checkpoint) -> list[str]:
    """Return the names of the classes that a checkpoint's run learned, in their order."""
    file = saved.path.parent.parent / "classes.json"
    if not file.is_file():
        raise ValueError(f"{file} is missing: imported weights have no identities, a training run has; name one")
    listed = json.loads(file.read_text(encoding="utf-8"))
    trained = saved.state["dataset_id"]
    if listed["dataset_id"] != trained:
        raise ValueError(f"{file} is of dataset {listed['dataset_id'][:12]}, {saved.path} learned {trained[:12]}")
    return listed["classes"]


def places(before: Iterable[str], now: Iterable[str]) -> np.ndarray:
    """Return where each name of `now` stands in `before`, int64; -1 for what is not there.

    Raises:
        ValueError: for a name that is in `before` twice.
    """
    place: dict[str, int] = {}
    for number, name in enumerate(before):
        if place.setdefault(name, number) != number:
            raise ValueError(f"the earlier run has two identities named {name!r}: which one is meant?")
    return np.fromiter((place.get(name, -1) for name in now), np.int64)


def read_rows(file: Path, name: str, wanted: np.ndarray) -> Tensor:
    """Read rows of a matrix in a safetensors file, those at `wanted` (int64 [n], any order) -> [n, D]."""
    with safe_open(file, "pt") as opened:
        matrix = opened.get_slice(name)
        rows = torch.empty(len(wanted), matrix.get_shape()[1], dtype=matrix[:0].dtype)
        order = np.argsort(wanted, kind="stable")
        ranked, start = wanted[order], 0
        while start < len(ranked):
            first = int(ranked[start])
            stop = int(np.searchsorted(ranked, first + ROWS_AT_ONCE))
            block = matrix[first : int(ranked[stop - 1]) + 1]
            rows[torch.from_numpy(order[start:stop])] = block[torch.from_numpy(ranked[start:stop] - first)]
            start = stop
    return rows


def _named(classes: Sequence[str], data: Mapping[str, Any], other: Mapping[str, Any]) -> Iterable[str]:
    """Name classes as another data section does: as SOURCE/NAME where only that one keeps its sources separate."""
    shards = data.get("shards")
    if other.get("labels") != "separate" or data.get("labels") == "separate" or shards is None:
        return classes
    source = Path(shards).name  # as MixedIndex has it
    return (f"{source}/{name}" for name in classes)


def _check_shape(file: Path, num_classes: int, sub_centres: int, head: ClassRows) -> None:
    with safe_open(file, "pt") as opened:
        shape = opened.get_slice("head.weight").get_shape() if "head.weight" in opened.keys() else None
    if shape is None:
        raise ValueError(f"task.centres: {file} has no centres, which only task arcface has; name a run of it")
    if sub_centres != head.sub_centres:
        # K equal rows would share every gradient and stay equal, or only the first would ever be the nearest.
        raise ValueError(
            f"task.centres: {file} has {sub_centres} centre(s) an identity, task.sub_centres is {head.sub_centres}: "
            "make them equal"
        )
    if shape[1] != head.weight.shape[1]:
        raise ValueError(
            f"task.centres: {file} has centres of {shape[1]} values, model.embedding_size is {head.weight.shape[1]}: "
            "make them equal"
        )
    if shape[0] != num_classes * sub_centres:
        raise ValueError(f"{file} has {shape[0]} centres, classes.json {num_classes} identities: one is not its run's")


def _lines(classes: np.ndarray, sub_centres: int) -> np.ndarray:
    """Return the rows of classes, int64 [n * sub_centres]."""
    return (classes[:, None] * sub_centres + np.arange(sub_centres)).ravel()
