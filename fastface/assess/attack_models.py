"""RUN or FILE of task liveness or temporal, and a shard set -> its scores of the set's images, or of its clips."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastface.card import read_json
from fastface.clip_scorer import ClipScorer, load_temporal
from fastface.data.image_sets import ShardImages
from fastface.eval_settings import EvalSet
from fastface.liveness_evaluation import open_attacks, score_logits
from fastface.liveness_scorer import LivenessScorer, live_probability, load_liveness
from fastface.metrics.presentations import gather_presentations
from fastface.predictor import find_checkpoint
from fastface.temporal_evaluation import open_clips, score_windows

Scorer = LivenessScorer | ClipScorer


class Scored(NamedTuple):
    """What one model says of the images of a shard set, or of its clips: then a row each, by its first frame."""

    images: ShardImages
    records: np.ndarray  # int64 [N]
    live: np.ndarray  # bool [N]
    attack: list[str] | None  # of each row, "none" for the live ones; None where the set does not say
    clip: np.ndarray | None  # int64 [N]; None for images of their own
    scores: np.ndarray  # float32 [N], NaN where there is none
    about: str

    @property
    def persons(self) -> np.ndarray | None:
        """Column `subject`, int64 [N], -1 where a person is not known; None without that column."""
        subject = self.images.index.columns.get("subject")
        return None if subject is None else np.asarray(subject[self.records], np.int64)


def load_scorers(models: Sequence[Path], device: str) -> dict[str, Scorer]:
    """Load models by a name each: folder/name, as a run's name is its time; the whole path where that is not enough.

    Raises:
        ValueError: where one is missing, given twice, or of another task.
    """
    found: dict[str, Scorer] = {}
    for path in models:
        short = f"{path.absolute().parent.name}/{path.name}"
        name = str(path) if short in found else short
        if name in found:
            raise ValueError(f"{path} is given twice")
        content = (
            read_json(path.with_suffix(".json")) if path.suffix == ".onnx" else find_checkpoint(path).state["card"]
        )
        load = load_temporal if content.get("kind") == "temporal" else load_liveness
        found[name] = load(path, device=device)
    return found


def score_set(path: Path, scorer: Scorer, *, batch: int) -> Scored:
    """Score every image of a shard set, or every clip, by a model of clips."""
    settings = EvalSet(images=path)
    if isinstance(scorer, LivenessScorer):
        opened = open_attacks(settings, scorer.card)
        found = live_probability(score_logits(opened, scorer, batch=batch), scorer.card.live)
        every = np.arange(len(opened.live))
        return Scored(opened.images, every, opened.live, opened.attack, opened.clip, found, opened.about)
    card = scorer.card
    clips = open_clips(settings, card.input_size, card.frames, card.duration_s)
    found = live_probability(score_windows(clips, scorer, batch=batch), card.live)
    images = clips.windows.images
    return by_clip(
        Scored(images, clips.windows.records[:, 0], clips.live, clips.attack, clips.clip, found, clips.about)
    )


def by_clip(scored: Scored) -> Scored:
    """Make a row of each clip, by the mean of its rows' scores, in the order of the clips' numbers.

    Raises:
        ValueError: where images belong to no clip.
    """
    every = scored.images.index.columns.get("clip")
    if scored.clip is None or every is None or (scored.clip < 0).any():
        raise ValueError(f"{scored.images.where} has images of no clip, which a model of clips cannot judge")
    made = gather_presentations(scored.scores, scored.live, scored.attack, scored.clip)
    numbers, first = np.unique(every, return_index=True)
    clip = scored.clip[made.rows]
    return scored._replace(
        records=first[np.searchsorted(numbers, clip)].astype(np.int64),
        live=made.live,
        attack=None if scored.attack is None else [scored.attack[row] for row in made.rows.tolist()],
        clip=clip,
        scores=np.where(np.isfinite(made.scores), made.scores, np.nan).astype(np.float32),
    )
