"""Shard sets of live and spoof, as several models want them -> one list of images, scored by each model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastface.data.index import Index
from fastface.data.values import values_of
from fastface.eval_settings import EvalSet
from fastface.liveness_evaluation import AttackSet, open_attacks, score_logits
from fastface.liveness_scorer import LivenessScorer, live_probability
from fastface.metrics.presentations import Presentations, gather_presentations

ENSEMBLE = "ensemble"


class ScoredSet(NamedTuple):
    """Images and what every model says of them."""

    opened: AttackSet  # the first model's
    persons: np.ndarray | None  # int64 [N], -1 where a person is not known; None without a column `subject`
    scores: dict[str, np.ndarray]  # by model, float32 [N], NaN for images without a score; an ensemble of several first

    @property
    def index(self) -> Index:
        return self.opened.images.index

    def presented(self, name: str) -> Presentations:
        """Return a model's presentations: a clip's frames are averaged, all else is one by one."""
        opened = self.opened
        return gather_presentations(self.scores[name], opened.live, opened.attack, opened.clip, self.persons)

    def values(self, column: str, rows: np.ndarray) -> np.ndarray:
        """Return what a column says of some images, by name, str [R]. ValueError where there is no such column."""
        found = values_of(self.index, column, "--by")
        place = np.searchsorted(found.numbers, self.index.columns[column][rows])
        names = ["unknown" if n == -1 else name for n, name in zip(found.numbers.tolist(), found.names, strict=True)]
        return np.array(names)[place]


def score_sets(paths: Sequence[Path], scorers: Mapping[str, LivenessScorer], *, option: str, batch: int) -> ScoredSet:
    """Score a set by all models; paths: one for all of them, or one for each, of the same images under the same names.

    Several models get an ensemble in front, the mean of their probabilities; an image without one of them has none.
    Raises ValueError where sets are missing, of another size, or do not hold the same images.
    """
    if len(paths) not in (1, len(scorers)):
        raise ValueError(
            f"{option} names {len(paths)} sets for {len(scorers)} models: give one for all, or one for each in order"
        )
    every = [paths[0]] * len(scorers) if len(paths) == 1 else list(paths)
    opened = [_open(path, name, scorer) for path, (name, scorer) in zip(every, scorers.items(), strict=True)]
    first = opened[0]
    scores: dict[str, np.ndarray] = {}
    for one, (name, scorer) in zip(opened, scorers.items(), strict=True):
        found = live_probability(score_logits(one, scorer, batch=batch), scorer.card.live)
        scores[name] = found if one.images.index.path == first.images.index.path else found[matched(first, one)]
    if len(scores) > 1:
        mean = np.stack(list(scores.values())).astype(np.float64).mean(axis=0).astype(np.float32)
        scores = {f"{ENSEMBLE} of {len(scores)}": mean, **scores}
    subject = first.images.index.columns.get("subject")
    persons = None if subject is None else np.asarray(subject, np.int64)
    return ScoredSet(first, persons, scores)


def _open(path: Path, name: str, scorer: LivenessScorer) -> AttackSet:
    try:
        return open_attacks(EvalSet(images=path), scorer.card)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def matched(first: AttackSet, other: AttackSet) -> np.ndarray:
    """Return where the other set has each image of the first, int64 [N], by source name.

    Raises ValueError where sets do not hold the same images, or hold one twice, or disagree about what is live.
    """
    sets = first.images.index, other.images.index
    names = [[index.name(i) for i in range(len(index))] for index in sets]
    for index, listed in zip(sets, names, strict=True):
        if len(set(listed)) < len(listed):
            raise ValueError(f"{index.path} holds two images of one name, so it cannot be matched with another set")
    for here, there in ((0, 1), (1, 0)):
        if missing := sorted(set(names[here]) - set(names[there])):
            raise ValueError(
                f"{len(missing):,} of {len(names[here]):,} images of {sets[here].path} are not in {sets[there].path}, "
                f"the first is {missing[0]!r}: models of an ensemble judge the same images, so make both sets from one "
                "source (rejected images are listed in rejects.csv)"
            )
    found = sets[1].find(names[0])
    if wrong := int((other.live[found] != first.live).sum()):
        raise ValueError(f"{sets[0].path} and {sets[1].path} disagree about what is live in {wrong:,} images")
    return found
