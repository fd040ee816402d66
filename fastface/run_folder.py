"""Command -> run folder: made new or found again, locked, its past put in order."""

import errno
import fcntl
import os
import platform
import shutil
import time
from pathlib import Path
from typing import Any

from torch import nn

from fastface import checkpoint, dist
from fastface.command import Command
from fastface.config import RunConfig
from fastface.data.index import Index
from fastface.resharding import whole_bytes


def new_folder(command: Command, task: nn.Module) -> Path:
    """Make OUT/<stem>/<UTC time> on rank 0, with room for its checkpoints, and tell the others its name."""
    name = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    folder = command.config.out / command.stem / name
    if dist.is_main():
        try:
            while folder.exists():  # two runs within one second
                folder = folder.with_name(folder.name + "b")
            (folder / "checkpoints").mkdir(parents=True)
            (folder / "checkpoints" / ".probe").touch()
            (folder / "checkpoints" / ".probe").unlink()
        except OSError as error:
            raise ValueError(f"cannot write to {folder}: {error.strerror}; change `out` in the config") from None
        # Weights, up to two moments of each and perhaps their average, for the kept checkpoints, the best, and the one
        # being written.
        keep, every = command.config.checkpoint.keep, command.config.checkpoint.keep_every_epochs
        count = keep + 2 + (int(command.config.train.epochs / every) if every else 0)
        needed = (4 if command.config.optim.ema_decay else 3) * whole_bytes(task) * count
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise OSError(
                errno.ENOSPC,
                f"{folder} has {free / 1e9:.1f} GB free and its checkpoints need up to {needed / 1e9:.1f} GB: "
                "free space, change `out`, or keep fewer (checkpoint.keep, keep_every_epochs)",
            )
    return Path(dist.share(str(folder)))


def settle(folder: Path, config: RunConfig, start: int, best: dict[str, Any], index: Index) -> list[str]:
    """Write down what the run is from here on; say what was put aside. Rank 0, with the lock held."""
    (folder / "config.yaml").write_text(config.dump(), encoding="utf-8")
    checkpoint.write_json(folder / "classes.json", {"dataset_id": index.dataset_id, "classes": list(index.classes)})
    # best.json only repeats what the checkpoint says: a kill between the two would leave it a step behind.
    if best:
        checkpoint.write_json(folder / "best.json", best)
    else:
        (folder / "best.json").unlink(missing_ok=True)
    notes = [f"removed {name}, left by an interrupted save" for name in checkpoint.sweep(folder / "checkpoints")]
    later = checkpoint.put_aside(folder / "checkpoints", start)
    return notes + [f"put aside {name}: it is later than the checkpoint this run goes on from" for name in later]


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return a line for each circumstance that may change the last bits of the result."""
    keys = ("world", "threads", "decoder", "versions")
    return [f"not as before: {k} {before.get(k)!r} -> {now[k]!r}" for k in keys if before.get(k) != now[k]]


def find_resumable(command: Command) -> tuple[Path, checkpoint.Checkpoint]:
    """Find the run to go on with, and its newest verified checkpoint; what was skipped is noted in it."""
    runs = command.config.out / command.stem
    if command.resume:
        path = Path(command.resume)
        if (path / checkpoint.MANIFEST).is_file():
            return path.parent.parent, checkpoint.load(path)
        candidates = [path]
    else:
        candidates = sorted((p for p in runs.glob("*") if (p / "checkpoints").is_dir()), reverse=True)
    reasons: list[str] = []
    for folder in candidates:
        try:
            found = checkpoint.newest(folder / "checkpoints")
            return folder, found._replace(skipped=reasons + found.skipped)
        except FileNotFoundError as error:
            reasons.append(str(error))
    raise ValueError("nothing to resume: " + ("\n".join(reasons) or f"no run in {runs}") + "\nStart without --resume.")


def hold(folder: Path) -> Any:
    """Lock the run folder on rank 0 until the process ends; the kernel releases it even after SIGKILL."""
    if not dist.is_main():
        return None
    file = (folder / "lock").open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        raise ValueError(
            f"{folder} is being written by another run (process {file.read().strip()}): stop it first"
        ) from None
    file.truncate(0)
    file.write(f"{os.getpid()} on {platform.node()}")
    file.flush()
    return file


def check_resumable(
    config: RunConfig, state: dict[str, Any], dataset_id: str, embeddings: str | None = None
) -> list[str]:
    """Refuse what would make another run of it; return a line per harmless difference."""
    if "dataset_id" not in state:
        raise ValueError("this run folder holds imported weights, not a run: start a new run with --model.weights")
    if state["dataset_id"] != dataset_id:
        raise ValueError(
            f"data.{'embeddings' if embeddings else 'shards'} is dataset {dataset_id[:12]}, the checkpoint was trained "
            f"on {state['dataset_id'][:12]}: "
            "resume with the same data and the same choice of them (data.only, without, held_out), or start a new run "
            "with model.weights"
        )
    if state.get("embeddings") != embeddings:
        raise ValueError(
            "data.embeddings are of another model, or of other images, than the checkpoint was trained on: resume with "
            "the same, or start a new run"
        )
    defaults = _leaves(RunConfig().model_dump(mode="json"))  # of options that are younger than the checkpoint
    before, now = defaults | _leaves(state["config"]), _leaves(config.model_dump(mode="json"))
    changed = {k: (before.get(k), now[k]) for k in now if before.get(k) != now[k]}
    fixed = ("seed", "task.", "model.", "data.size", "data.flip", "data.mean", "data.std", "optim.name")
    fixed += ("data.resize", "data.augment", "data.scales", "train.batch_size", "train.precision")
    # What was read at the start is not read again, and a teacher is known by its weights.
    places = ("model.weights", "model.pretrained", "task.centres", "task.distill.teacher")
    fatal = {k: v for k, v in changed.items() if k.startswith(fixed) and k not in places}
    if fatal:
        table = "".join(f"\n  {k}: {a!r} -> {b!r}" for k, (a, b) in fatal.items())
        raise ValueError(f"--resume cannot change these settings:{table}\nStart a new run, or restore them.")
    return [f"changed since the checkpoint: {k} {a!r} -> {b!r}" for k, (a, b) in changed.items()]


def check_plan(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Refuse a plan that would bring other images; return a line where only the miner's file is a newer one."""
    changed: dict[str, Any] = {k: (before.get(k), now.get(k)) for k in {**before, **now} if before.get(k) != now.get(k)}
    before_sha, sha = changed.pop("file_sha256", ("", "")) if before["name"] == now["name"] else ("", "")
    if changed:
        table = "".join(f"\n  {k}: {a!r} -> {b!r}" for k, (a, b) in changed.items())
        raise ValueError(
            f"--resume cannot change which images come (data.plan, data.sources):{table}\n"
            "Start a new run, or restore them."
        )
    return [f"not as before: data.plan.file has sha256 {before_sha[:12]} -> {sha[:12]}"] if sha else []


def _leaves(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
