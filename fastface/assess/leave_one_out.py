"""A configuration and shards of several sources -> a run for each source on all the others, and one table of them."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastface import dist
from fastface.assess.held_out_source import Fold, finished, fold_of, run_fold, seconds_of_step
from fastface.assess.leave_one_out_report import leave_one_out_picture, leave_one_out_text
from fastface.checkpoint import write_json
from fastface.command import load_config
from fastface.config import RunConfig
from fastface.data.attacks import LIVE
from fastface.data.index import Index
from fastface.data.joined import join_sets, sources_of
from fastface.data.selection import Selection, select
from fastface.data.units import held_out
from fastface.durable import write_durably

HELD_OUT = 0.2  # of the sources that are trained on, unless data.held_out says otherwise
CPU_MINUTES = 30.0  # for all folds, where nobody says how long to train


def assess_leave_one_out(
    *,
    config: Sequence[Path],
    data: Sequence[Path],
    overrides: Sequence[str] = (),
    minutes: float | None = None,
    out: Path | None = None,
) -> str:
    """Train and evaluate every fold that is not done yet, and write the table; return what to print.

    data: a shard set with a column `source`, or several shard sets, each a source. minutes: about so long may all folds
    take, 0 for as long as the configuration asks; on a CPU 30, unless an override sets train.epochs or max_steps.

    Raises:
        ValueError: for settings and data that do not fit, and where a source shares persons or images with the others.
        KeyboardInterrupt: where training was asked to stop; the same call goes on from there.
    """
    if not config:
        raise ValueError("--protocol leave-one-source-out needs --config, such as configs/liveness.yaml")
    settings = load_config(*config, overrides=overrides)
    if settings.task.kind != "liveness":
        raise ValueError(f"leave-one-source-out is for task liveness, {config[0]} has task {settings.task.name}")
    name = "-".join([config[0].stem, *(path.name for path in data)])
    out = out or settings.out / "leave-one-source-out" / name
    shards, index = open_sources(data, out)
    sources = check_sources(index, settings)
    share = settings.data.held_out or HELD_OUT
    held_out(index, share)  # says now what cannot be parted
    settings = _bounded(settings, index, sources, share, minutes, overrides, out)
    folds = [fold_of(settings, shards, index, source, out, share) for source in sources]
    results: list[dict[str, Any]] = []
    done = [finished(fold) for fold in folds]  # before any training: settings that changed are refused
    for number, (fold, result) in enumerate(zip(folds, done, strict=True), start=1):
        _say(f"fold {number} of {len(folds)}, {fold.source} held out: {'done before' if result else 'training'}")
        results.append(result or run_fold(fold, index))
        _say(_line(results[-1]))
    return _written(results, folds, index, share, out)


def open_sources(data: Sequence[Path], out: Path) -> tuple[Path, Index]:
    """Open one shard set that knows its sources; several sets, and splits of one, are joined below `out`."""
    paths = [path for given in data for path in _splits(given)]
    if len(paths) == 1:
        return paths[0], Index.open(paths[0])
    names = {path.name for path in data}
    if len(names) < len(data):
        raise ValueError(f"--data names two folders of one name: {', '.join(map(str, data))}; each is a source")
    parts = [Index.open(path) for path in paths]
    owners = [given.name for given in data for _ in _splits(given)]
    sources = [
        sources_of(part, owner) if len(data) == 1 else [owner] * len(part)
        for part, owner in zip(parts, owners, strict=True)
    ]
    folder = out / "joined"
    if dist.is_main():
        join_sets(parts, sources, folder)
    dist.barrier()
    return folder, Index.open(folder)


def _splits(path: Path) -> list[Path]:
    """Return the shard sets in a folder of splits, or the folder itself."""
    below = sorted(file.parent for file in path.glob("*/meta.json"))
    return below if below and not (path / "meta.json").is_file() else [path]


def check_sources(index: Index, settings: RunConfig) -> list[str]:
    """List the sources that are left by data.only and data.without; ValueError where there are too few."""
    (chosen,) = select([index], Selection(settings.data.only, settings.data.without), "data")
    where = f"{index.path} has no source to hold out"
    if "source" not in chosen.columns:
        raise ValueError(
            f"{where}: make it of folders SOURCE/live and SOURCE/spoof, or give several shard sets as --data"
        )
    of_record = np.array(sources_of(chosen, ""))
    live = np.array([name == LIVE for name in chosen.classes])[chosen.label]
    sources = sorted(set(of_record.tolist()))
    if len(sources) < 2:
        raise ValueError(f"{where} beside others: all is of {sources[0]}; give more --data")
    for source in sources:
        own = live[of_record == source]
        if own.all() or not own.any():
            raise ValueError(
                f"{index.path}: source {source} has {'live' if own.all() else 'spoof'} images only, so nothing can be "
                f"measured on it: leave it out, --data.without source {source}"
            )
    return sources


def _bounded(
    settings: RunConfig,
    index: Index,
    sources: Sequence[str],
    share: float,
    minutes: float | None,
    overrides: Sequence[str],
    out: Path,
) -> RunConfig:
    """Say how long it will take, and train for fewer epochs where that is longer than it may; kept for a restart."""
    kept = out / "protocol.json"
    asked = settings.train.epochs
    given = any(word.split("=")[0] in ("--train.epochs", "--train.max_steps") for word in overrides)
    cpu = settings.runtime.device == "cpu" or not _has_gpu()
    limit = minutes if minutes is not None else CPU_MINUTES if cpu and not given else 0.0
    epochs = _kept_epochs(kept, asked, limit)
    if epochs is None:
        epochs, expected = asked, _expected_minutes(settings, index, len(sources), share)
        steps = _steps(settings, index, len(sources), share)
        text = f"{len(sources)} folds of {steps:,} steps: about {expected:.1f} minutes"
        if limit and expected > limit:
            epochs = max(1.0, float(int(10 * asked * limit / expected)) / 10)
            text += (
                f" for train.epochs {asked:g}; {limit:g} minutes allow {epochs:g}, so train.epochs is {epochs:g} here "
                "(--minutes 0: as the configuration says; --minutes M, --train.epochs N, --train.max_steps N: your own)"
            )
        _say(text)
        if dist.is_main():
            out.mkdir(parents=True, exist_ok=True)
            write_json(kept, {"asked_epochs": asked, "minutes": limit, "epochs": epochs, "expected_minutes": expected})
        epochs = dist.share(epochs)
    if epochs == asked:
        return settings
    return settings.model_copy(update={"train": settings.train.model_copy(update={"epochs": epochs})})


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _kept_epochs(file: Path, asked: float, limit: float) -> float | None:
    """Return the epochs that an earlier call with the same limit chose."""
    import json

    if not file.is_file():
        return None
    kept = json.loads(file.read_text())
    return kept["epochs"] if (kept["asked_epochs"], kept["minutes"]) == (asked, limit) else None


def _steps(settings: RunConfig, index: Index, num_sources: int, share: float) -> int:
    """Return how many steps a fold takes, about."""
    images = len(index) * (1 - 1 / num_sources) * (1 - share)
    steps = int(settings.train.epochs * max(1, round(images / settings.train.batch_size)))
    return min(steps, settings.train.max_steps or steps)


def _expected_minutes(settings: RunConfig, index: Index, num_sources: int, share: float) -> float:
    """Time a step and return how long all folds take, evaluations (a third of a step for as many images) and all."""
    step = seconds_of_step(settings, index) / dist.world()
    steps = _steps(settings, index, num_sources, share)
    return num_sources * step * (steps * (1 + share / 3) + len(index) / settings.train.batch_size / 3) / 60


def _line(result: dict[str, Any]) -> str:
    figures = result["metrics"]
    shown = "  ".join(f"{name.upper()} {figures[name]:.4f}" for name in ("hter", "auc", "apcer", "bpcer", "acer"))
    return f"{result['source']}: {shown}, at threshold {result['threshold']:.4f} of the development set"


def _written(results: list[dict[str, Any]], folds: list[Fold], index: Index, share: float, out: Path) -> str:
    """Write leave-one-source-out.json, .txt and .png; return the text."""
    config, persons = folds[0].config, index.columns.get("subject")
    known = persons is not None and bool((persons >= 0).all())
    about = {
        "data": str(index.path),
        "images": len(index),
        "sources": [fold.source for fold in folds],
        "held_out_for_development": share,
        "epochs": config.train.epochs,
        "config": config.model_dump(mode="json"),
        "leakage_checked": "by person and hash" if known else "by hash only: not every image tells who it shows",
    }
    text = leave_one_out_text(results, about)
    if dist.is_main():
        write_json(out / "leave-one-source-out.json", {**about, "folds": results})
        write_durably(out / "leave-one-source-out.txt", f"{text}\n".encode())
        leave_one_out_picture(out / "leave-one-source-out.png", results)
    return f"{text}\n\nwritten: {out}{os.sep}leave-one-source-out.json, .txt and .png; a folder for each source"


def _say(text: str) -> None:
    if dist.is_main():
        print(text, file=sys.stderr, flush=True)
