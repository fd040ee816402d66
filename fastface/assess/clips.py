"""Models of clips and of single images, on one set of clips -> figures of attack detection, side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastface.card import read_json
from fastface.checkpoint import write_json
from fastface.clip_scorer import ClipScorer, load_temporal
from fastface.data.attacks import read_attacks
from fastface.data.image_sets import ShardImages
from fastface.data.index import Index
from fastface.eval_settings import EvalSet
from fastface.evaluators import check_image_size
from fastface.liveness_evaluation import AttackSet, score_logits
from fastface.liveness_scorer import LivenessScorer, live_probability, load_liveness
from fastface.metrics.attack_picture import Judged, attack_picture
from fastface.metrics.attack_report import format_attacks, named_metrics
from fastface.metrics.attacks import presented_figures, threshold_at
from fastface.metrics.presentations import Presentations, gather_presentations
from fastface.predictor import find_checkpoint, run_folder_of
from fastface.temporal_evaluation import open_clips, score_windows


class Loaded(NamedTuple):
    """A model by what it scores."""

    scorer: ClipScorer | LivenessScorer
    what: str
    """How a clip gets its score."""


def assess_clips(
    model: Sequence[Path],
    *,
    images: Path,
    dev: Path | None = None,
    at: str = "eer",
    windows: int = 1,
    batch_size: int = 128,
    device: str = "cpu",
    out: Path | None = None,
) -> str:
    """Judge models on the clips of a shard set, write everything down and return what to print.

    A model of task liveness scores every frame, and the mean over the clip is its baseline for those of task temporal.

    Args:
        dev: a shard set of other people, whose scores choose each model's threshold by the rule `at` (see
            `threshold_at`); None takes the EER of the test set, and the figures are marked.
        windows: of each clip, for models of clips.

    Raises:
        ValueError: for models or sets that are missing or do not fit.
    """
    if dev is None and at != "eer":
        raise ValueError(f"without --dev the threshold is the EER of the test set; --at {at} needs --dev SHARDS")
    loaded = {name: load(path, device) for name, path in names_of(model).items()}
    if dev is not None and Index.open(dev).dataset_id == Index.open(images).dataset_id:
        raise ValueError(f"{dev} and {images} are the same clips: a threshold is chosen on others")
    judged: dict[str, Judged] = {}
    for name, one in loaded.items():
        threshold = None
        if dev is not None:
            threshold = threshold_at(presentations(one.scorer, dev, windows, batch_size), at)
        presented = presentations(one.scorer, images, windows, batch_size)
        figures = presented_figures(presented, threshold, rule=f"{at} of {dev}" if dev else "", draw=True)
        judged[name] = Judged(presented, figures)
    results = {name: one.figures for name, one in judged.items()}
    folder = out or run_folder_of(model[0]) / "eval" / images.name
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "models": {name: {"model": one.scorer.origin, "scores": one.what} for name, one in loaded.items()},
        "images": str(images),
        "dev": None if dev is None else str(dev),
        "windows": windows,
        **{name: {"metrics": named_metrics(one), "details": one.details} for name, one in results.items()},
    }
    write_json(folder / "metrics.json", content)
    first = next(iter(judged.values())).presented
    attack_picture(folder / "attacks.png", judged, title=f"{len(first.scores):,} clips of {images.name}")
    persons = "persons not known" if first.persons is None else f"{int(first.persons.max()) + 1:,} persons"
    lines = [f"{name}: {one.scorer.origin}, {one.what}" for name, one in loaded.items()]
    lines += [f"on {len(first.scores):,} clips of {images}; {persons}", "", format_attacks(results)]
    return "\n".join([*lines, f"written: {folder}/metrics.json, attacks.png"])


def names_of(models: Sequence[Path]) -> dict[str, Path]:
    """Name models in short, as folder/name, since a run's name is its time; in full where that is not enough."""
    found: dict[str, Path] = {}
    for path in models:
        short = f"{path.absolute().parent.name}/{path.name}"
        name = str(path) if short in found else short
        if name in found:
            raise ValueError(f"{path} is given twice")
        found[name] = path
    return found


def load(path: Path, device: str) -> Loaded:
    """Load a model of task temporal or of task liveness."""
    content = read_json(path.with_suffix(".json")) if path.suffix == ".onnx" else find_checkpoint(path).state["card"]
    if content.get("kind") == "liveness":
        return Loaded(load_liveness(path, device=device), "the mean over all frames of a clip")
    scorer = load_temporal(path, device=device)
    card = scorer.card
    span = f" of {card.duration_s:g} s" if card.duration_s else ""
    return Loaded(scorer, f"{card.frames} frames{span} of a clip")


def presentations(scorer: ClipScorer | LivenessScorer, images: Path, windows: int, batch: int) -> Presentations:
    """Score every clip of a shard set by a model: one score each."""
    settings = EvalSet(images=images)
    if isinstance(scorer, ClipScorer):
        card = scorer.card
        clips = open_clips(settings, card.input_size, card.frames, card.duration_s, windows=windows)
        scores = live_probability(score_windows(clips, scorer, batch=batch), card.live)
        return gather_presentations(scores, clips.live, clips.attack, clips.clip, clips.person)
    frames, person = _frames(images, scorer)
    scores = live_probability(score_logits(frames, scorer, batch=batch), scorer.card.live)
    return gather_presentations(scores, frames.live, frames.attack, frames.clip, person)


def _frames(path: Path, scorer: LivenessScorer) -> tuple[AttackSet, np.ndarray | None]:
    """Open all frames of a shard set of clips as single images, and who is shown (int64 [N]) where it is known."""
    index = Index.open(path)
    check_image_size(index, scorer.card.input_size)
    found = read_attacks(index)
    if "clip" not in index.columns:
        raise ValueError(f"{path} has no column clip, so no clips to average over: make it from videos")
    attack = None if found.attack is None else [found.names[n] for n in found.attack.tolist()]
    clip, subject = np.asarray(index.columns["clip"], np.int64), index.columns.get("subject")
    opened = AttackSet(ShardImages(index), found.live, attack, clip, f"{len(index):,} frames of {path}")
    return opened, None if subject is None else np.asarray(subject, np.int64)
