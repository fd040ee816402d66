"""Pictures, pairs and an embedder -> scores and the figures of verification."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from PIL import Image
from torch import nn
from tqdm import tqdm

from fastface.data.headers import Rejected
from fastface.data.image_sets import ImageSet
from fastface.eval_settings import EvalConfig, EvalSet
from fastface.metrics.dependence import persons_of_pairs
from fastface.metrics.folds import Pairs, check_folds, make_folds, shared_identities
from fastface.metrics.report import format_report
from fastface.metrics.scores import centred_scores, pair_distances, pair_scores, unit, usable
from fastface.metrics.verification import TARGETS, metric_direction, verification

__all__ = [
    "Embed",
    "Gather",
    "Result",
    "centred_scores",
    "embed_images",
    "evaluate_pairs",
    "format_report",
    "pair_distances",
    "pair_scores",
    "raw_pixels",
    "unit",
]

Opened = TypeVar("Opened")
Embed = Callable[[np.ndarray], np.ndarray]
"""uint8 RGB [B, H, W, 3] -> float [B, D]."""
Gather = Callable[[np.ndarray], list[np.ndarray]]
"""This process's rows [n, D] -> every process's rows, in rank order."""

MOST_SHOWN = 20  # failed pictures named in the details


@dataclass(frozen=True)
class Result:
    """The figures of one set of pairs."""

    metrics: dict[str, float]  # keys of METRIC_DIRECTION
    details: dict[str, Any]  # what stands behind them, ready for JSON
    scores: np.ndarray  # float32 [P]; NaN where a picture or its embedding failed
    same: np.ndarray  # bool [P]
    accepted: np.ndarray | None = None  # bool [P], at the threshold that the other folds chose; None without folds
    persons: np.ndarray | None = None  # int64 [2, P] from 0 on; None where unknown
    ids: np.ndarray | None = None  # int64 [M], the distinct pictures of the pairs; None where templates are compared
    rows: np.ndarray | None = None  # float32 [M, D], their embeddings, NaN where one failed
    folds: np.ndarray | None = None  # int16 [P]


class OpenedSets(Generic[Opened]):
    """The evaluation sets of a run, opened at its start, so that a missing file is found before any training."""

    figures: tuple[str, ...] = ("acc", "acc_std", "acc_se", "auc", "eer", "tar_1e-2", "tar_1e-3", "loss")
    """What is measured of each set: keys of METRIC_DIRECTION."""
    shown: tuple[str, ...] = ("acc", "auc", "tar_1e-2")
    """Those worth a place on the console."""

    def __init__(self, config: EvalConfig, open_one: Callable[[EvalSet], Opened]) -> None:
        self.sets = {name: open_one(settings) for name, settings in config.sets.items()}
        if config.best_metric:
            metric_direction(config.best_metric)
            figure = config.best_metric.split("/", 1)[-1]
            if figure not in self.figures:
                known = ", ".join(self.figures)
                raise ValueError(f"eval.best_metric {config.best_metric}: this task has no {figure}; it has {known}")

    def __bool__(self) -> bool:
        return bool(self.sets)

    @property
    def headline(self) -> set[str]:
        """The keys worth a line on the console."""
        return {f"{name}/{key}" for name in self.sets for key in self.shown}

    def run(self, network: nn.Module) -> dict[str, float]:
        """Measure what ships as it is; figures under `set/metric`, the same on every process."""
        raise NotImplementedError


def evaluate_pairs(
    images: ImageSet,
    pairs: Pairs,
    embed: Embed,
    *,
    batch: int = 128,
    centre: bool = False,
    compat: str | None = None,
    targets: Sequence[float] = TARGETS,
    one_kind: bool = False,
    intervals: bool = True,
    rank: int = 0,
    world: int = 1,
    gather: Gather | None = None,
    threads: int | None = None,
    progress: str | None = None,
) -> Result:
    """Embed the pictures of the pairs, score the pairs, and compute the figures; the same on every process.

    A score is the float64 dot product of unit embeddings, rounded to float32. With `centre`, fold by fold the
    mean embedding of the other folds' pairs is subtracted before. compat "insightface": see `verification`.
    Folds are those of the pairs, else made by `make_folds`. `one_kind` admits pairs that are all genuine or all
    impostor, with the figures that this leaves. Intervals allow for persons who recur where the images tell who is
    who; `intervals` False leaves out those that take time.
    """
    if compat and centre:
        raise ValueError(f"compat {compat} knows no mean subtraction; leave out one of the two.")
    given = pairs.fold is not None
    folds = make_folds(pairs, images.identities) if pairs.fold is None else check_folds(pairs.fold, len(pairs.same))
    pairs = pairs._replace(fold=folds)
    ids, place = np.unique(np.concatenate([pairs.first, pairs.second]), return_inverse=True)
    first, second = place.reshape(2, -1)
    rows = embed_images(
        images, ids, embed, batch, rank=rank, world=world, gather=gather, threads=threads, progress=progress
    )
    rows[~usable(rows)] = np.nan  # a zero row less a mean would look like an embedding
    if centre:
        by_fold = centred_scores(rows, first, second, folds)
        scores = np.take_along_axis(by_fold, folds[None].astype(np.int64), axis=0)[0]
    else:
        by_fold = scores = pair_scores(rows, first, second)
    distances = pair_distances(rows, first, second) if compat else None
    persons, unknown = persons_of_pairs(images.identities[pairs.first], images.identities[pairs.second], pairs.same)
    found = verification(
        by_fold,
        pairs.same,
        folds,
        targets=targets,
        compat=compat,
        distances=distances,
        one_kind=one_kind,
        persons=persons,
        intervals=intervals,
    )
    details = {
        **found.details,
        "folds": {
            "given": given,
            "number": int(folds.max()) + 1,
            "pairs_with_a_person_of_another_fold": shared_identities(pairs, images.identities),
        },
        "persons": {"known": not unknown, "why_not": unknown or None},
        "centre": centre,
        "num_images": len(ids),
        "failed_images": _failures(images, ids, rows),
    }
    with np.errstate(invalid="ignore"):  # a failure, NaN, is accepted at no threshold
        accepted = scores.astype(np.float64) >= np.array(found.details["accuracy"]["thresholds"])[folds]
    return Result(
        found.metrics, details, scores, np.asarray(pairs.same, dtype=bool), accepted, persons, ids, rows, folds
    )


def embed_images(
    images: ImageSet,
    ids: np.ndarray,
    embed: Embed,
    batch: int = 128,
    *,
    rank: int = 0,
    world: int = 1,
    gather: Gather | None = None,
    threads: int | None = None,
    progress: str | None = None,
) -> np.ndarray:
    """Embed each distinct picture once; float32 [len(ids), D], NaN rows for pictures that cannot be read.

    Processes take whole batches in turn, so a batch holds the same pictures on any number of them and the
    result does not depend on it. The next two batches are decoded by `threads` while one is embedded.
    `progress` labels a bar on stderr, shown on a terminal only. Raises ValueError where pictures differ in
    size or none can be read.
    """
    if world > 1 and gather is None:
        raise ValueError(f"{world} processes need a gather; pass fastface.dist.gather_rows.")
    distinct, place = np.unique(np.asarray(ids, dtype=np.int64), return_inverse=True)
    batches = np.split(distinct, range(batch, len(distinct), batch))
    mine = batches[rank::world]
    parts: list[np.ndarray | int] = []  # rows, or how many pictures of a batch failed altogether
    sizes: set[tuple[int, ...]] = set()
    quiet = True if progress is None or rank else None  # None: tqdm shows the bar on a terminal only
    with tqdm(
        total=sum(map(len, mine)), desc=progress, unit=" images", leave=False, file=sys.stderr, disable=quiet
    ) as bar:
        for loaded in _load(images, mine, threads):
            parts.append(_embed_batch(images, loaded, embed, sizes))
            bar.update(len(loaded))
    width = next((part.shape[1] for part in parts if isinstance(part, np.ndarray)), None)
    if width is None:
        width = _width(images, batches, embed, threads)
    rows = [np.full((part, width), np.nan, np.float32) if isinstance(part, int) else part for part in parts]
    local = np.concatenate([np.empty((0, width), np.float32), *rows])
    if gather is None or world == 1:
        return local[place.reshape(-1)]
    order = np.concatenate([ids for r in range(world) for ids in batches[r::world]])  # as the ranks hold them
    return np.concatenate(gather(local))[np.argsort(order)][place.reshape(-1)]


def raw_pixels(size: tuple[int, int] | None = None) -> Embed:
    """Return the baseline without any learning: an embedder that takes the pixels themselves.

    Each picture, resized to `size` (width, height; bilinear, antialiased) where given, becomes the list of
    its values minus their mean, scaled to length 1: the score of a pair is the correlation of the two
    pictures.
    """

    def embed(images: np.ndarray) -> np.ndarray:
        if size is not None and images.shape[1:3] != (size[1], size[0]):
            images = np.stack([np.asarray(Image.fromarray(i).resize(size, Image.Resampling.BILINEAR)) for i in images])
        pixels = images.reshape(len(images), -1).astype(np.float32)
        pixels -= pixels.mean(axis=1, keepdims=True)
        return pixels / np.maximum(np.linalg.norm(pixels, axis=1, keepdims=True), np.float32(1e-12))

    return embed


def _load(images: ImageSet, batches: list[np.ndarray], threads: int | None) -> Iterator[list[np.ndarray | None]]:
    """Yield the pictures of each batch, None for those that cannot be read, loading two batches ahead."""

    def load(i: int) -> np.ndarray | None:
        try:
            return images.load(i)
        except (Rejected, OSError):
            return None  # the row becomes NaN, the reason is asked for again in _failures

    with ThreadPoolExecutor(threads or min(8, os.cpu_count() or 1), "evaluation-decode") as pool:
        ahead: list[list[Future[np.ndarray | None]]] = []
        for ids in batches:
            ahead.append([pool.submit(load, i) for i in ids.tolist()])
            if len(ahead) > 2:
                yield [future.result() for future in ahead.pop(0)]
        for futures in ahead:
            yield [future.result() for future in futures]


def _embed_batch(
    images: ImageSet, loaded: list[np.ndarray | None], embed: Embed, sizes: set[tuple[int, ...]]
) -> np.ndarray | int:
    """Embed what could be loaded: float32 [B, D], or B where nothing could; `sizes` collects those seen."""
    there = [i for i, picture in enumerate(loaded) if picture is not None]
    pictures = [picture for picture in loaded if picture is not None]
    if not pictures:
        return len(loaded)
    sizes |= {picture.shape[:2] for picture in pictures}
    if len(sizes) > 1:
        shown = " and ".join(f"{w}x{h}" for h, w in sorted(sizes)[:2])
        raise ValueError(f"{images.where}: pictures differ in size ({shown}); resize them to the model's input.")
    embedded = np.asarray(embed(np.stack(pictures)), dtype=np.float32)
    if embedded.ndim != 2 or len(embedded) != len(pictures):
        raise ValueError(f"The embedder gave {embedded.shape} for {len(pictures)} pictures; it must give [B, D].")
    rows = np.full((len(loaded), embedded.shape[1]), np.nan, np.float32)
    rows[there] = embedded
    return rows


def _width(images: ImageSet, batches: list[np.ndarray], embed: Embed, threads: int | None) -> int:
    """Find D by the first readable batch, for a process that has none of its own."""
    for loaded in _load(images, batches, threads):
        rows = _embed_batch(images, loaded, embed, set())
        if isinstance(rows, np.ndarray):
            return rows.shape[1]
    if not len(batches[0]):
        raise ValueError(f"No pictures of {images.where} were asked for.")
    raise ValueError(f"None of the pictures of {images.where} can be read: {_reason(images, batches[0][0])}.")


def _failures(images: ImageSet, ids: np.ndarray, rows: np.ndarray) -> dict[str, Any]:
    """Name the pictures without a usable embedding, with the reason; the same on every process."""
    failed = ids[~usable(rows)].tolist()
    named = [{"name": images.name(i), "reason": _reason(images, i)} for i in failed[:MOST_SHOWN]]
    return {"number": len(failed), "first": named}


def _reason(images: ImageSet, i: int) -> str:
    try:
        images.load(int(i))
    except (Rejected, OSError) as error:
        return str(error)
    return "its embedding is zero or not finite"
