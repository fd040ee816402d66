"""A folder of embeddings, or a RUN's class centres -> the neighbours of every identity, for data.plan mined."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from safetensors import safe_open

from fastface.data.embeddings import Embeddings, open_embeddings, usable
from fastface.data.index import Index
from fastface.data.plans.neighbours import write_neighbours
from fastface.mining.centres import class_centres, in_class_order
from fastface.mining.hard import Hard, hard_negatives
from fastface.mining.search import Kind, Search
from fastface.mining.suspects import ImageOf, first_image, write_suspects
from fastface.predictor import find_checkpoint


class People(NamedTuple):
    """Identities and the rows they are known by."""

    rows: np.ndarray  # [n, D]
    labels: np.ndarray  # int64 [n], the identity of each row
    classes: Sequence[str]
    counts: np.ndarray  # int64 [C], images of each identity
    image: ImageOf
    dataset_id: str
    where: str

    def without(self, identities: np.ndarray) -> People:
        """Leave the rows of some identities out (bool [C]); those that stay are copied, unless all do."""
        if not identities[self.labels].any():
            return self
        keep = np.flatnonzero(~identities[self.labels])
        image = self.image
        return self._replace(
            rows=self.rows[keep],
            labels=self.labels[keep],
            image=lambda identity, row: image(identity, int(keep[row])),
        )


class Report(NamedTuple):
    """What was mined, in figures."""

    hard: Hard
    people: People
    unusable: list[str]  # names of identities without any embedding that has a direction
    recall: float
    seconds: float
    cap: float

    def __str__(self) -> str:
        hard, count = self.hard, len(self.people.classes)
        listed = hard.ids >= 0
        nearest = hard.scores[listed[:, 0], 0]
        lines = [
            f"identities      {count:,}, {int(listed.any(axis=1).sum()):,} with neighbours, "
            f"{listed.sum() / max(count, 1):.1f} of them on average",
        ]
        if self.unusable:
            named = ", ".join(map(repr, self.unusable[:5]))
            lines.append(f"left out        {len(self.unusable):,} without a usable embedding: {named}")
        if len(nearest):
            low, middle, high, top = np.percentile(nearest, [5, 50, 95, 99])
            lines += [
                f"mean cosine     {hard.scores[listed].mean(dtype=np.float64):.4f} of all neighbours",
                f"nearest         {low:.4f}, {middle:.4f}, {high:.4f}, {top:.4f} (5, 50, 95, 99 % of identities)",
            ]
        above = f"above {self.cap:g}"
        lines += [
            f"{above:<16}{len(hard.suspects):,} pairs of identities, left out as probably one person",
            f"recall          {self.recall:.4f}",
            f"time            {self.seconds:.1f} s",
        ]
        return "\n".join(lines)


def mine(
    out: Path,
    *,
    embeddings: Path | None = None,
    run: Path | None = None,
    shards: Path | None = None,
    neighbours: int = 50,
    kind: Kind = "flat",
    probes: int | None = None,
    cap: float = 0.7,
    by: Literal["centre", "instance"] = "centre",
    per_image: int = 20,
    min_images: int = 1,
    gpu: bool | None = None,
) -> Report:
    """Mine hard negatives; write OUT (.npz) and OUT with the ending .suspects.csv, and return the figures.

    Args:
        embeddings: a folder of embeddings, or else
        run: RUN or step folder of task arcface, for its class centres.
        shards: what they were made of; None: where the run found it, or nothing is compared.
        by: "centre", or "instance": each image looks for its `per_image` nearest images of other identities.
        min_images: identities with fewer images are left out.

    Raises:
        ValueError: where there is nothing to mine, or parts are of different datasets.
    """
    began = time.perf_counter()
    if (embeddings is None) == (run is None):
        raise ValueError("mine either a folder of embeddings or a run")
    if out.suffix != ".npz":
        raise ValueError(f"--out {out} must end in .npz")
    if run is not None and by == "instance":
        raise ValueError("a run has centres only: make embeddings with tools/embed.py to mine by instance")
    people = of_run(run, shards) if run is not None else of_embeddings(_opened(embeddings, shards), by)
    people = people.without(people.counts < min_images)
    good = np.bincount(people.labels[usable(people.rows)], minlength=len(people.classes)) > 0
    lost = np.flatnonzero(~good & (people.counts >= max(min_images, 1)))
    if good.sum() < 2:
        raise ValueError(
            f"{people.where}: {int(good.sum())} identities with {min_images} or more images have a usable embedding, "
            "and neighbours need two or more"
        )
    search = Search(people.rows, kind, probes=probes, gpu=gpu)
    hard = hard_negatives(
        people.rows,
        people.labels,
        len(people.classes),
        neighbours=neighbours,
        cap=cap,
        per_row=neighbours if by == "centre" else per_image,
        by="mean" if by == "instance" else "best",
        search=search,
        progress="mining",
    )
    recall = search.recall(min(neighbours, len(people.rows)))
    write_neighbours(out, hard.ids, people.dataset_id)
    write_suspects(out.with_suffix(".suspects.csv"), hard.suspects, people.classes, people.counts, people.image)
    unusable = [people.classes[int(c)] for c in lost]
    return Report(hard, people, unusable, recall, time.perf_counter() - began, cap)


def of_embeddings(found: Embeddings, by: Literal["centre", "instance"]) -> People:
    """Take the images of a folder of embeddings as rows, or the centres of their identities."""
    labels, num = np.asarray(found.labels, np.int64), len(found.classes)
    counts = np.bincount(labels, minlength=num)
    about = (found.classes, counts, lambda _, row: found.names[row], found.dataset_id, str(found.path))
    if by == "instance":
        return People(found.rows, labels, *about)
    centres = class_centres(in_class_order(found.rows, labels), 0, num, found.rows.shape[1])
    first = np.full(num, -1)
    first[labels[::-1]] = np.arange(len(labels))[::-1]
    return People(centres, np.arange(num), *about)._replace(image=lambda identity, _: found.names[int(first[identity])])


def of_run(run: Path, shards: Path | None) -> People:
    """Take the class centres of a run's checkpoint (its best, else its newest) as rows."""
    saved = find_checkpoint(run)
    config, trained = saved.state["config"], saved.state.get("dataset_id")
    place = shards or config["data"]["shards"]
    if trained is None or place is None:
        why = "are imported weights" if trained is None else "learned from several sources, and plans mine one set"
        raise ValueError(f"{run}: these {why}: make embeddings with tools/embed.py and mine those")
    index = Index.open(place)
    if index.dataset_id != trained:
        raise ValueError(
            f"{saved.path} learned dataset {trained[:12]}, {place} is {index.dataset_id[:12]}: give --shards, the set "
            "it learned from"
        )
    with safe_open(saved.path / "model.safetensors", "np") as file:
        if "head.weight" not in file.keys():
            raise ValueError(
                f"{saved.path} has no class centres, which only task arcface has: make embeddings with tools/embed.py"
            )
        rows = file.get_tensor("head.weight")
    each = len(rows) // index.num_classes  # sub-centres
    labels = np.repeat(np.arange(index.num_classes), each)
    counts = np.diff(index.label_start)
    return People(rows, labels, index.classes, counts, first_image(index), index.dataset_id, str(saved.path))


def _opened(folder: Path | None, shards: Path | None) -> Embeddings:
    assert folder is not None
    found = open_embeddings(folder)
    if shards is not None and (wanted := Index.open(shards).dataset_id) != found.dataset_id:
        raise ValueError(
            f"{folder} is of dataset {found.dataset_id[:12]}, {shards} is {wanted[:12]}: make the embeddings of these "
            "shards with tools/embed.py"
        )
    return found
