"""Shard sets of clips -> windows of frames, their scores and figures: while a model of clips trains, and after."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from fastface import dist
from fastface.clip_scorer import ClipScorer, module_clips
from fastface.data.attacks import read_attacks
from fastface.data.image_sets import ShardImages
from fastface.data.index import Index
from fastface.data.plans import Clips
from fastface.data.selection import select
from fastface.eval_settings import EvalConfig, EvalSet
from fastface.evaluation import OpenedSets, embed_images
from fastface.evaluators import check_image_size, selection_of
from fastface.liveness_evaluation import log_loss
from fastface.liveness_scorer import live_probability
from fastface.metrics.attacks import attack_figures
from fastface.temporal_card import TemporalCard


class Windows:
    """The frames of clips as pictures of one more dimension: an ImageSet of uint8 [T, H, W, 3]."""

    def __init__(self, images: ShardImages, records: np.ndarray) -> None:
        self.images, self.records = images, records  # int64 [W, T]
        self.where = images.where
        self.identities = images.identities[records[:, 0]]

    def __len__(self) -> int:
        return len(self.records)

    def name(self, i: int) -> str:
        return f"the clip of {self.images.name(int(self.records[i, 0]))}"

    def load(self, i: int) -> np.ndarray:
        return np.stack([self.images.load(int(record)) for record in self.records[i]])


class ClipSet(NamedTuple):
    """Clips of live faces and of attacks, each as one or several windows of T frames."""

    windows: Windows
    clip: np.ndarray  # int64 [W]: the clip that each window is of
    live: np.ndarray  # bool [W]
    attack: list[str] | None  # of each window, "none" for the live ones; None where the set does not say
    person: np.ndarray | None  # int64 [W], -1 where not known; None where the set does not say
    about: str
    notes: list[str]


def open_clips(
    settings: EvalSet, size: tuple[int, int], frames: int, duration_s: float | None, *, windows: int | None = None
) -> ClipSet:
    """Open the shard set that an evaluation set names, for models of `frames` frames of `size` (width, height) px.

    Every clip is scored: those with too few frames repeat them, those shorter than the duration are taken whole.
    windows: of each clip; None: as the settings say.

    Raises:
        ValueError: where it is no shard set of live and spoof clips of this size, or has one of both only.
    """
    if settings.images is None or not (settings.images / "meta.json").is_file():
        raise ValueError(
            f"{settings.images or settings.bin} is no shard set: task temporal is evaluated on `images`, a folder of "
            "clips made by tools/make_shards.py"
        )
    index = select([Index.open(settings.images)], selection_of(settings), "eval.sets")[0]
    check_image_size(index, size)
    found = read_attacks(index)
    records, notes = windows_of(index, frames, duration_s, windows or settings.windows)
    first = records[:, 0]
    if found.live[first].all() or not found.live[first].any():
        raise ValueError(f"{index.path} has live or spoof clips only; a model of clips is judged on both")
    attack = None if found.attack is None else [found.names[n] for n in found.attack[first].tolist()]
    subject, clip = index.columns.get("subject"), np.asarray(index.columns["clip"][first], np.int64)
    return ClipSet(
        Windows(ShardImages(index), records),
        clip,
        found.live[first],
        attack,
        None if subject is None else np.asarray(subject[first], np.int64),
        f"{len(np.unique(clip)):,} clips of {settings.images}",
        notes,
    )


def windows_of(index: Index, frames: int, duration_s: float | None, windows: int = 1) -> tuple[np.ndarray, list[str]]:
    """Return the records of every clip's windows, int64 [W, T], and what is to be said of them."""
    plan = Clips(index, frames, frames, 0, too_few="repeat", duration_s=duration_s, evaluation=True, windows=windows)
    return np.stack([plan[step].records for step in range(plan.steps_per_epoch)]), plan.notes


def score_windows(opened: ClipSet, scorer: ClipScorer, *, batch: int) -> np.ndarray:
    """Return the logits of all windows, float32 [W, C]; NaN where a frame cannot be read; the same on every process.

    batch: frames at a time.
    """
    return embed_images(
        opened.windows,
        np.arange(len(opened.windows)),
        scorer.logits,
        max(batch // scorer.card.frames, 1),
        rank=dist.rank(),
        world=dist.world(),
        gather=dist.gather_rows if dist.world() > 1 else None,
        progress=opened.about,
    )


class TemporalEvaluators(OpenedSets[ClipSet]):
    """The evaluation sets of a run of task temporal: development sets, whose own EER is the threshold."""

    figures = ("acer", "apcer", "bpcer", "hter", "eer", "auc", "acc", "loss", "bpcer10", "bpcer20", "bpcer100")
    shown = ("acer", "auc", "eer")

    def __init__(self, config: EvalConfig, card: TemporalCard, device: torch.device) -> None:
        self.config, self.card, self.device = config, card, device
        super().__init__(config, lambda settings: open_clips(settings, card.input_size, card.frames, card.duration_s))

    def run(self, network: nn.Module) -> dict[str, float]:
        """Score every set with the network as it is; figures under `set/metric`, the same on every process."""
        scorer = module_clips(network, self.card, self.device, origin="the network in training")
        values: dict[str, Any] = {}
        for name, opened in self.sets.items():
            logits = score_windows(opened, scorer, batch=self.config.batch_size)
            scores = live_probability(logits, self.card.live)
            metrics = attack_figures(scores, opened.live, opened.attack, opened.clip, None).metrics
            metrics = {**metrics, "loss": log_loss(logits, opened.live, self.card.live)}
            values |= {f"{name}/{key}": value for key, value in metrics.items()}
        return dist.share(values)
