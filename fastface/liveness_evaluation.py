"""Shard sets of live and spoof -> the figures of a liveness network, while it trains."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from fastface import dist
from fastface.data.attacks import read_attacks
from fastface.data.image_sets import ShardImages
from fastface.data.images import ImageSpec
from fastface.data.index import Index
from fastface.data.selection import select
from fastface.eval_settings import EvalConfig, EvalSet
from fastface.evaluation import OpenedSets, embed_images
from fastface.evaluators import selection_of
from fastface.liveness_card import LivenessCard
from fastface.liveness_scorer import LivenessScorer, live_probability, module_liveness
from fastface.metrics.attacks import attack_figures


class AttackSet(NamedTuple):
    """Images of live faces and of attacks."""

    images: ShardImages
    live: np.ndarray  # bool [N]
    attack: list[str] | None  # of each image, "none" for the live ones; None where the set does not say
    clip: np.ndarray | None  # int64 [N], the clip that each image is a frame of; None for images of their own
    about: str


def open_attacks(settings: EvalSet, card: LivenessCard) -> AttackSet:
    """Open the shard set that an evaluation set names, or what it selects of one; other sizes are resized when read.

    Raises:
        ValueError: where it is no shard set of live and spoof, or has one of both only.
    """
    if settings.images is None or not (settings.images / "meta.json").is_file():
        raise ValueError(
            f"{settings.images or settings.bin} is no shard set: task liveness is evaluated on `images`, a folder made "
            "by tools/make_shards.py liveness"
        )
    index = select([Index.open(settings.images)], selection_of(settings), str(settings.images))[0]
    same_size = index.image_size == card.input_size
    found = read_attacks(index)
    if found.live.all() or not found.live.any():
        raise ValueError(f"{index.path} has live or spoof images only; a liveness model is judged on both")
    attack = None if found.attack is None else [found.names[n] for n in found.attack.tolist()]
    clip = index.columns.get("clip")
    return AttackSet(
        ShardImages(index, None if same_size else ImageSpec(size=card.input_size)),
        found.live,
        attack,
        None if clip is None else np.asarray(clip, np.int64),
        f"{len(index):,} images of {settings.images}" + ("" if same_size else ", resized"),
    )


def score_logits(opened: AttackSet, scorer: LivenessScorer, *, batch: int) -> np.ndarray:
    """Return the logits of all images, float32 [N, C], NaN for those that cannot be read; the same on every process."""
    return embed_images(
        opened.images,
        np.arange(len(opened.live)),
        scorer.logits,
        batch,
        rank=dist.rank(),
        world=dist.world(),
        gather=dist.gather_rows if dist.world() > 1 else None,
        progress=opened.about,
    )


def log_loss(logits: np.ndarray, live: np.ndarray, live_class: int) -> float:
    """Return the mean of -log p(live) of the live and -log(1 - p(live)) of the others, in nats, unread images aside."""
    high = logits.astype(np.float64)
    own = high[:, live_class]
    others = np.logaddexp.reduce(np.delete(high, live_class, axis=1), axis=1)
    losses = np.logaddexp(0.0, np.where(live, others - own, own - others))
    return float(np.nanmean(losses))


class LivenessEvaluators(OpenedSets[AttackSet]):
    """The evaluation sets of a run of task liveness: development sets, whose own EER is the threshold."""

    figures = ("acer", "apcer", "bpcer", "hter", "eer", "auc", "acc", "loss", "bpcer10", "bpcer20", "bpcer100")
    shown = ("acer", "auc", "eer")

    def __init__(self, config: EvalConfig, card: LivenessCard, device: torch.device) -> None:
        self.config, self.card, self.device = config, card, device
        super().__init__(config, lambda settings: open_attacks(settings, card))

    def run(self, network: nn.Module) -> dict[str, float]:
        """Score every set with the network as it is; figures under `set/metric`, the same on every process."""
        scorer = module_liveness(network, self.card, self.device, origin="the network in training")
        values: dict[str, Any] = {}
        for name, opened in self.sets.items():
            logits = score_logits(opened, scorer, batch=self.config.batch_size)
            scores = live_probability(logits, self.card.live)
            metrics = attack_figures(scores, opened.live, opened.attack, opened.clip, None).metrics
            metrics = {**metrics, "loss": log_loss(logits, opened.live, self.card.live)}
            values |= {f"{name}/{key}": value for key, value in metrics.items()}
        return dist.share(values)
