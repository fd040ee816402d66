"""A run whose plan mines on the way -> new neighbours at fixed steps, from what was learned by then.

A refresh at step n comes before that step's batch and after the checkpoint of n steps, so that a run restored there
mines again, with the same result. In between a run goes on with the file that its checkpoint names. All processes mine
together, each holding the centres of its own classes, and come to the same lists whatever their number.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from fastface import dist
from fastface.card import Card
from fastface.checkpoint import steps_in
from fastface.data.image_sets import ShardImages
from fastface.data.images import ImageSpec
from fastface.data.index import Index
from fastface.data.plan import STREAMS, hash_numbers, hash_rows, permute
from fastface.data.plans.mined import Mined, Refreshing
from fastface.data.plans.neighbours import Neighbours, write_neighbours
from fastface.evaluation import Embed, embed_images
from fastface.heads.class_rows import ClassRows, shard
from fastface.log import Log
from fastface.mining.centres import class_centres
from fastface.mining.hard import Hard, hard_negatives
from fastface.mining.search import Search, use_threads
from fastface.mining.suspects import first_image, write_suspects
from fastface.predictor import module_embedder
from fastface.run import Run

FOLDER = "mined"
IMAGES_AT_ONCE = 1 << 15  # embedded before their rows are gathered: 67 MB of 512 values on every process


class Rows(NamedTuple):
    """This process's part of the rows that are compared."""

    values: np.ndarray  # float32 [n, D]; rows that take no part are 0
    labels: np.ndarray  # int64 [N], of all processes' rows, ascending
    first: int  # where `values` begin among them


class Refresh:
    """Mine the plan's neighbours anew every `plan.refreshing.steps` steps."""

    def __init__(self, run: Run, plan: Mined, settings: Refreshing) -> None:
        self.run, self.plan, self.settings = run, plan, settings

    def due(self, step: int) -> bool:
        """Say whether neighbours are to be mined before step `step` (counted from 0)."""
        return step > 0 and step % self.settings.steps == 0

    def next(self, step: int) -> int:
        """Return the first step after `step` that must not be prepared before its neighbours are mined."""
        return (step // self.settings.steps + 1) * self.settings.steps

    def __call__(self, step: int, log: Log) -> None:
        """Mine with the weights after `step` steps, write the lists into the run's folder, and let the plan use them.

        All processes must call it, while no batch is being prepared.
        """
        began = time.perf_counter()
        run, settings = self.run, self.settings
        use_threads(torch.get_num_threads())
        rows = head_rows(run, self.plan.used) if settings.source == "head" else self._embedded(step)
        device = run.accelerator.device
        gpu = device.index or 0 if device.type == "cuda" else None
        search = Search(rows.values, "flat", gpu=None if gpu is not None else False, device=gpu)
        hard = hard_negatives(
            rows.values,
            rows.labels,
            run.index.num_classes,
            neighbours=settings.listed,
            cap=settings.cap,
            first=rows.first,
            search=search,
        )
        name, sha256 = f"{FOLDER}/step-{step:08d}.npz", ""
        if dist.is_main():
            folder = run.folder / FOLDER
            folder.mkdir(exist_ok=True)
            sha256 = write_neighbours(run.folder / name, hard.ids, run.index.dataset_id)
            counts, image_of = np.diff(run.index.label_start), first_image(run.index)
            listed = (run.folder / name).with_suffix(".suspects.csv")
            write_suspects(listed, hard.suspects, run.index.classes, counts, image_of)
            sweep(folder, step, steps_in(run.folder / "checkpoints"))
        sha256 = dist.share(sha256)
        self.plan.use(Neighbours(hard.ids, None, sha256))
        run.state["mined"] = {"step": step, "file": name, "sha256": sha256}
        values = figures(hard, len(self.plan.used))
        log.mined(step + 1, values)
        log.say(
            f"step {step}: neighbours mined in {time.perf_counter() - began:.1f} s: mean cosine "
            f"{values['mean_cosine']:.4f}, nearest {values['nearest_cosine']:.4f}; {values['above_cap']:,.0f} pairs "
            f"above {settings.cap:g}; {values['without']:,.0f} identities without neighbours"
        )

    def _embedded(self, step: int) -> Rows:
        """Embed images of the identities in use with the network as it is, all processes together; return centres."""
        run, config = self.run, self.run.config
        card = Card.model_validate(run.state["card"]).model_copy(update={"flip": "none"})
        embedder = module_embedder(run.task.deploy(), card, run.accelerator.device, origin="the network in training")
        first, last = shard(run.index.num_classes, dist.rank(), dist.world())
        spec = ImageSpec(size=config.data.size) if run.index.image_size != config.data.size else None
        images = ShardImages(run.index, spec)
        records = chosen_images(run.index, self.plan.used, self.settings.source_images, config.seed, step)
        blocks = _embed_blocks(images, records, embedder, config.eval.batch_size)
        centres = class_centres(blocks, first, last, card.embedding_size)
        return Rows(np.nan_to_num(centres), np.arange(run.index.num_classes), first)


def refresh_of(run: Run) -> Refresh | None:
    """Return what mines on the way, where the plan says so."""
    if isinstance(run.plan, Mined) and run.plan.refreshing is not None:
        return Refresh(run, run.plan, run.plan.refreshing)
    return None


def head_rows(run: Run, used: np.ndarray) -> Rows:
    """Take this process's class centres, those of identities that are not used left out; sub-centres one by one."""
    head = next(module for module in run.task.modules() if isinstance(module, ClassRows))
    labels = np.repeat(np.arange(head.num_classes), head.sub_centres)
    first = head.first * head.sub_centres
    values = head.weight.detach().float().cpu().numpy().copy()
    values[~np.isin(labels[first : first + len(values)], used)] = 0
    return Rows(values, labels, first)


def chosen_images(index: Index, used: np.ndarray, most: int | None, seed: int, step: int) -> np.ndarray:
    """Return the records of identities, one after the other: all, or `most` of each drawn by (seed, step); int64."""
    count = np.diff(index.label_start)[used]
    width = min(most or int(count.max()), int(count.max()))
    place = np.broadcast_to(np.arange(width), (len(used), width))
    there = place < count[:, None]
    if most is not None:
        keys = hash_rows(hash_numbers(seed, STREAMS["refresh"], step), used)[:, None]
        place = permute(np.minimum(place, count[:, None] - 1), count[:, None], keys)
    return index.by_label[(index.label_start[used][:, None] + place)[there]].astype(np.int64)


def figures(hard: Hard, identities: int) -> dict[str, float]:
    """Return what is logged of a refresh: mean cosine of all neighbours and of the nearest, suspects, empty lists."""
    listed = hard.ids >= 0
    some = listed[:, 0]

    def mean(scores: np.ndarray) -> float:
        return float(scores.mean(dtype=np.float64)) if len(scores) else 0.0

    return {
        "mean_cosine": mean(hard.scores[listed]),
        "nearest_cosine": mean(hard.scores[some, 0]),
        "above_cap": float(len(hard.suspects)),
        "without": float(identities - int(some.sum())),
    }


def sweep(folder: Path, step: int, checkpoints: list[int]) -> None:
    """Remove the lists up to `step` that neither it nor a checkpoint goes on with."""
    files = {int(file.stem.removeprefix("step-")): file for file in folder.glob("step-*.npz")}
    made = sorted(number for number in files if number <= step)
    for number, after in pairwise(made):
        if not any(number < saved <= after for saved in checkpoints):
            files[number].unlink()
            files[number].with_suffix(".suspects.csv").unlink(missing_ok=True)


def _embed_blocks(
    images: ShardImages, records: np.ndarray, embed: Embed, batch: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Embed records a block at a time: rows and labels of each block, on every process."""
    gather: Any = dist.gather_rows if dist.world() > 1 else None
    size = max(1, IMAGES_AT_ONCE // batch) * batch
    for start in range(0, len(records), size):
        block = records[start : start + size]
        rows = embed_images(images, block, embed, batch, rank=dist.rank(), world=dist.world(), gather=gather)
        yield rows, images.index.labels_of(block)
