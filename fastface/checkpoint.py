"""Tensors and state -> a verified step folder on disk, and back: never a half-written one, never a silent skip."""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fastface.durable import fsync_file, fsync_folder, write_durably

MANIFEST = "manifest.json"
FORMAT = 1


class Checkpoint(NamedTuple):
    path: Path
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    average: dict[str, Tensor]
    """Of the network's weights over the steps, which ships in their place; empty where none was kept."""
    state: dict[str, Any]
    skipped: list[str]
    """Newer folders that failed verification, with the reason."""


def step_folder(step: int) -> str:
    return f"step-{step:08d}"


def save(
    folder: Path,
    step: int,
    model: Mapping[str, Tensor],
    optimizer: Mapping[str, Tensor],
    state: Mapping[str, Any],
    *,
    average: Mapping[str, Tensor] | None = None,
    keep: int,
    protect: Collection[int] = (),
) -> Path:
    """Write FOLDER/step-XXXXXXXX and then remove all but the `keep` newest (and the `protect`ed steps).

    The files are written under a temporary name, each fsynced, the manifest with their sizes and SHA-256 last;
    then the folder is renamed into place and its parent fsynced. Killed at any moment, this leaves every earlier
    checkpoint whole.

    Raises:
        OSError: naming the folder and the bytes needed, when the disk is full or read-only.
    """
    final = folder / step_folder(step)
    temporary = folder / f".tmp-{step_folder(step)}-{os.getpid()}"
    tensors = {"model.safetensors": model, "optimizer.safetensors": optimizer}
    if average is not None:
        tensors["average.safetensors"] = average
    try:
        temporary.mkdir(parents=True, exist_ok=True)
        for name, content in tensors.items():
            _save_tensors(content, temporary / name)
            fsync_file(temporary / name)
        write_durably(temporary / "state.json", _json({"format": FORMAT, "step": step, **state}))
        files = [*tensors, "state.json"]
        entries = {n: {"size": (temporary / n).stat().st_size, "sha256": _sha256(temporary / n)} for n in files}
        write_durably(temporary / MANIFEST, _json({"format": FORMAT, "step": step, "files": entries}))
        if final.exists():  # a damaged folder that was skipped on resume: it makes room only now
            shutil.rmtree(_aside(final))
        os.rename(temporary, final)
        fsync_folder(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        needed = sum(t.numel() * t.element_size() for content in tensors.values() for t in content.values())
        free = shutil.disk_usage(folder).free if folder.exists() else 0
        raise OSError(
            error.errno,
            f"cannot write checkpoint {final}: {error.strerror} (needs about {needed / 1e6:.0f} MB, "
            f"{free / 1e6:.0f} MB free); free space or change `out`, then go on with --resume",
        ) from error
    _rotate(folder, step, keep, protect)
    return final


def newest(folder: Path, *, tensors: bool = True) -> Checkpoint:
    """Load the newest step folder whose manifest verifies; what is skipped is listed with its reason.

    tensors: False leaves them in their files, for a reader that wants only some.

    Raises:
        FileNotFoundError: where no folder verifies, with the reasons.
    """
    skipped: list[str] = []
    for path in sorted(_steps(folder), reverse=True):
        try:
            return load(path, tensors=tensors)._replace(skipped=skipped)
        except ValueError as error:
            skipped.append(str(error))
    reasons = "".join(f"\n  {reason}" for reason in skipped)
    raise FileNotFoundError(f"no complete checkpoint in {folder}{':' if skipped else ''}{reasons}")


def load(path: Path, *, tensors: bool = True) -> Checkpoint:
    """Load one step folder after checking every file against its manifest.

    tensors: see `newest`.

    Raises:
        ValueError: naming the file that is missing, of another size or of another hash.
    """
    verify(path)
    state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    if state.get("format", 0) > FORMAT:
        raise ValueError(f"{path} has checkpoint format {state['format']}; this fastface reads up to {FORMAT}: upgrade")
    if not tensors:
        return Checkpoint(path, {}, {}, {}, state, [])
    model, optimizer = load_file(path / "model.safetensors"), load_file(path / "optimizer.safetensors")
    average = path / "average.safetensors"
    return Checkpoint(path, model, optimizer, load_file(average) if average.is_file() else {}, state, [])


def verify(path: Path) -> None:
    """Check that every file the manifest lists is there with its size and SHA-256."""
    try:
        entries = json.loads((path / MANIFEST).read_text(encoding="utf-8"))["files"]
    except FileNotFoundError:
        raise ValueError(f"{path} has no {MANIFEST}: it is not a checkpoint or was not finished") from None
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path / MANIFEST} is damaged") from None
    for name, entry in entries.items():
        file = path / name
        if not file.is_file():
            raise ValueError(f"{file} is missing")
        if file.stat().st_size != entry["size"]:
            raise ValueError(f"{file} has {file.stat().st_size} bytes, its manifest says {entry['size']}")
        if _sha256(file) != entry["sha256"]:
            raise ValueError(f"{file} is damaged: its SHA-256 is not the manifest's")


def sweep(folder: Path) -> list[str]:
    """Remove what an interrupted save of ours left behind (`.tmp-step-*`, `.old-step-*`); return the names."""
    left = [p for kind in ("tmp", "old") for p in folder.glob(f".{kind}-step-*")]
    for path in left:
        shutil.rmtree(path, ignore_errors=True)
    return [p.name for p in left]


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file so that a reader sees the old or the new one, never half of it."""
    write_durably(path, _json(content))


def put_aside(folder: Path, step: int) -> list[str]:
    """Rename step folders later than `step`, damaged or abandoned, so that they are never taken for the newest."""
    later = [path for path in _steps(folder) if path.name > step_folder(step)]
    for path in later:
        os.rename(path, path.with_name(f".superseded-{path.name}-{os.getpid()}"))
    return [path.name for path in later]


def steps_in(folder: Path) -> list[int]:
    """Return the steps of the checkpoints in a folder, in no order."""
    return [int(path.name.removeprefix("step-")) for path in _steps(folder)]


def _steps(folder: Path) -> list[Path]:
    return [p for p in folder.glob("step-*") if re.fullmatch(r"step-\d{8,}", p.name) and p.is_dir()]


def _rotate(folder: Path, step: int, keep: int, protect: Collection[int]) -> None:
    """Remove checkpoints older than the `keep` newest up to this step; later ones are not this run's to count."""
    kept = {step_folder(step), *map(step_folder, protect)}
    for path in sorted(p for p in _steps(folder) if p.name <= step_folder(step))[:-keep]:
        # Only what carries our manifest is ours to delete.
        if path.name not in kept and (path / MANIFEST).is_file():
            shutil.rmtree(_aside(path), ignore_errors=True)


def _aside(path: Path) -> Path:
    """Rename before deleting, so that a half-deleted folder is never taken for a checkpoint."""
    aside = path.with_name(f".old-{path.name}-{os.getpid()}")
    os.rename(path, aside)
    return aside


def _save_tensors(content: Mapping[str, Tensor], path: Path) -> None:
    try:
        save_file({k: v.detach().cpu().contiguous() for k, v in content.items()}, path)
    except SafetensorError as error:  # not an OSError, though it wraps one
        full = "os error 28" in str(error)
        raise OSError(errno.ENOSPC if full else errno.EIO, "no space left" if full else str(error)) from error


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode("ascii")  # any file name survives as an escape


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
