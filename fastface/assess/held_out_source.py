"""One source held out -> a run on the others, and its figures there, at the threshold of what training left out.

The held-out source takes no part in anything but the last line of the table: the best checkpoint and the threshold are
those of a development set, a share of the other sources that no person, clip or copy of an image has in common with
what is trained on.
"""

import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate.state import AcceleratorState

from fastface import dist
from fastface.checkpoint import write_json
from fastface.command import Command
from fastface.config import RunConfig
from fastface.data.index import Index
from fastface.data.selection import Selection, select
from fastface.eval_settings import EvalSet
from fastface.leakage import find_leak
from fastface.liveness_evaluation import AttackSet, open_attacks, score_logits
from fastface.liveness_scorer import LivenessScorer, live_probability, load_liveness
from fastface.metrics.attacks import presented_figures, threshold_at
from fastface.metrics.presentations import Presentations, gather_presentations
from fastface.run import Run, build_run
from fastface.run_folder import find_resumable
from fastface.trainer import train

DEVELOPMENT = "development"
DONE = "fold.json"


class Stopped(KeyboardInterrupt):
    """Training was asked to stop, and has saved."""


class Fold(NamedTuple):
    """One source, and where everything about it goes."""

    source: str
    config: RunConfig
    folder: Path
    dataset_id: str
    """Of the shards of all sources."""


def essence(config: RunConfig) -> dict[str, Any]:
    """Return what a fold's result follows from, beside the data."""
    return config.model_dump(mode="json", exclude={"out", "log", "checkpoint", "runtime"})


def fold_of(config: RunConfig, shards: Path, index: Index, source: str, out: Path, share: float) -> Fold:
    """Turn a configuration into that of a run without one source; `share` of the others is the development set."""
    without = {**config.data.without, "source": (*config.data.without.get("source", ()), source)}
    development = EvalSet(images=shards, only=config.data.only, without=without, held_out=share)
    metric = (config.eval.best_metric or "/acer").rpartition("/")[2]
    changed = {"sets": {DEVELOPMENT: development}, "best_metric": f"{DEVELOPMENT}/{metric}"}
    data = {"shards": shards, "sources": (), "labels": None, "without": without, "held_out": share}
    data["resize"] = config.data.resize or index.image_size != config.data.size
    made = config.model_copy(
        update={
            "out": out,
            "data": config.data.model_copy(update=data),
            "eval": config.eval.model_copy(update=changed),
        }
    )
    return Fold(source, RunConfig.model_validate_json(made.model_dump_json()), out / source, index.dataset_id)


def finished(fold: Fold) -> dict[str, Any] | None:
    """Return the result of a fold that is done; ValueError where it is that of other settings or data."""
    path = fold.folder / DONE
    if not path.is_file():
        return None
    found = json.loads(path.read_text())
    before = RunConfig.model_validate_json(json.dumps(found["config"]))  # which fills in options that are younger
    if essence(before) != essence(fold.config) or found["dataset_id"] != fold.dataset_id:
        raise ValueError(
            f"{path} is the result of other settings or data: choose another --out, or take {fold.folder.parent} away"
        )
    return found


def run_fold(fold: Fold, shards: Index) -> dict[str, Any]:
    """Train what is left to train of a fold, score the source it held out, and write the result down.

    Raises:
        Stopped: where training was asked to stop; the next call goes on from there.
        ValueError: where persons, clips or images of the source are in the others, unless eval.leakage says tell.
    """
    began = time.monotonic()
    leak = check_fold(fold, shards)
    run = start(fold)
    if train(run):
        raise Stopped(f"stopped and saved in {run.folder}: the same command goes on from here")
    scorer = load_liveness(run.folder, device=run.accelerator.device)
    batch = fold.config.eval.batch_size
    development = presentations_of(open_attacks(fold.config.eval.sets[DEVELOPMENT], scorer.card), scorer, batch)
    test = presentations_of(open_attacks(held_out_set(fold), scorer.card), scorer, batch)
    threshold = middle_of_gap(development, threshold_at(development, "eer"))
    rule = "EER of the development set, which is of the other sources"
    on_development = presented_figures(development, threshold, rule=rule)
    on_test = presented_figures(test, threshold, rule=rule, draw=True)
    result = {
        "source": fold.source,
        "config": essence(fold.config),
        "dataset_id": fold.dataset_id,
        "run": run.folder.name,
        "step": run.best.get("step"),
        "steps": run.total_steps,
        "trained_on": run.index.num_samples,
        "threshold": threshold,
        "metrics": on_test.metrics,
        "details": on_test.details,
        "development": {"metrics": on_development.metrics, "details": on_development.details},
        "leak": leak,
        "seconds": time.monotonic() - began,
    }
    if dist.is_main():
        write_json(fold.folder / DONE, result)
    dist.barrier()
    return result


def middle_of_gap(development: Presentations, threshold: float) -> float:
    """Move a threshold to the middle of the gap between scores that it lies at the upper end of.

    Every threshold of the gap makes the same decisions on these presentations; its end would refuse other live faces
    for being a trifle less live than the least live of these.
    """
    below = development.scores[np.isfinite(development.scores) & (development.scores < threshold)]
    return (float(below.max()) + threshold) / 2 if len(below) and np.isfinite(threshold) else threshold


def start(fold: Fold) -> Run:
    """Build the fold's run, or go on with the one that was interrupted."""
    AcceleratorState._reset_state()  # it keeps the precision of the first run of a process
    new, going_on = Command(fold.config, fold.source, None), Command(fold.config, fold.source, "")
    try:
        find_resumable(going_on)
    except ValueError:
        return build_run(new)
    return build_run(going_on)


def held_out_set(fold: Fold) -> EvalSet:
    """Return the source's images, of those that the configuration selects."""
    data = fold.config.data
    others = tuple(name for name in data.without["source"] if name != fold.source)
    without = {**{k: v for k, v in data.without.items() if k != "source"}, **({"source": others} if others else {})}
    assert isinstance(data.shards, Path)
    return EvalSet(images=data.shards, only={**data.only, "source": (fold.source,)}, without=without)


def check_fold(fold: Fold, shards: Index) -> str:
    """Compare the source with the others; return what they share, where that is only told."""
    data, test = fold.config.data, held_out_set(fold)
    (train_set,) = select([shards], Selection(data.only, data.without), "data")
    (test_set,) = select([shards], Selection(test.only, test.without), "data")
    leak = find_leak(train_set, test_set)
    if leak and fold.config.eval.leakage == "refuse":
        raise ValueError(
            f"{shards.path}: source {fold.source} shares with the others: {leak}. What is trained on must not be "
            "tested on: leave them out (data.without, or make the shards anew), or set --eval.leakage tell, knowing "
            "that the figures are too good"
        )
    return str(leak) if leak else ""


def presentations_of(opened: AttackSet, scorer: LivenessScorer, batch: int) -> Presentations:
    """Score a set; clips are one presentation each, and persons are told apart where they are known."""
    scores = live_probability(score_logits(opened, scorer, batch=batch), scorer.card.live)
    person = opened.images.index.columns.get("subject")
    person = None if person is None else np.asarray(person, np.int64)
    return gather_presentations(scores, opened.live, opened.attack, opened.clip, person)


def seconds_of_step(run_config: RunConfig, index: Index) -> float:
    """Time a training step on drawn pixels, forwards and backwards, by a network that is then thrown away."""
    from fastface.data.batch import Batch
    from fastface.restored import restored_task

    config = run_config.model_copy(update={"model": run_config.model.model_copy(update={"pretrained": False})})
    task = restored_task(config, index, None, []).task
    size, rows = config.data.size, config.train.batch_size
    device = torch.device("cuda" if torch.cuda.is_available() and config.runtime.device != "cpu" else "cpu")
    task.to(device).train()
    records = np.arange(rows) % len(index)
    labels = torch.from_numpy(index.labels_of(records)).to(device)
    batch = Batch(torch.randn(rows, 3, size[1], size[0], device=device), labels, records, 0, 0)
    took = []
    for _ in range(3):
        began = time.monotonic()
        task.objective(task.backbone(task.inputs(batch)), task.targets(batch)).loss.backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        took.append(time.monotonic() - began)
    return min(took)
