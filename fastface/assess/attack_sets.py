"""Shard sets of live and spoof, as several models want them -> one list of images or clips, scored by each model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastface.assess.attack_models import Scored, Scorer, by_clip, score_set
from fastface.clip_scorer import ClipScorer
from fastface.data.index import Index
from fastface.data.values import values_of
from fastface.metrics.presentations import Presentations, gather_presentations

ENSEMBLE = "ensemble"


class ScoredSet(NamedTuple):
    """Images, or clips where a model judges clips, and what every model says of them."""

    first: Scored  # the first model's
    scores: dict[str, np.ndarray]  # by model, float32 [N], NaN where it has none; an ensemble of several first
    about: str

    @property
    def index(self) -> Index:
        return self.first.images.index

    def presented(self, name: str) -> Presentations:
        """Return a model's presentations: a clip's frames are averaged, all else is one by one."""
        first = self.first
        return gather_presentations(self.scores[name], first.live, first.attack, first.clip, first.persons)

    def values(self, column: str, rows: np.ndarray) -> np.ndarray:
        """Return what a column says of some rows, by name, str [R]. ValueError where there is no such column."""
        found = values_of(self.index, column, "--by")
        place = np.searchsorted(found.numbers, self.index.columns[column][self.first.records[rows]])
        names = ["unknown" if n == -1 else name for n, name in zip(found.numbers.tolist(), found.names, strict=True)]
        return np.array(names)[place]


def score_sets(paths: Sequence[Path], scorers: Mapping[str, Scorer], *, option: str, batch: int) -> ScoredSet:
    """Score a set by all models; paths: one for all of them, or one for each, of the same images under the same names.

    Beside a model of clips, those of images judge a clip by the mean of its frames. Several models get an ensemble in
    front, the mean of their probabilities; what lacks one of them has none. Raises ValueError where sets are missing,
    do not fit a model, or do not hold the same images.
    """
    if len(paths) not in (1, len(scorers)):
        raise ValueError(
            f"{option} names {len(paths)} sets for {len(scorers)} models: give one for all, or one for each in order"
        )
    every = [paths[0]] * len(scorers) if len(paths) == 1 else list(paths)
    parts: dict[str, Scored] = {}
    for path, (name, scorer) in zip(every, scorers.items(), strict=True):
        try:
            parts[name] = score_set(path, scorer, batch=batch)
            if any(isinstance(other, ClipScorer) for other in scorers.values()):
                parts[name] = by_clip(parts[name])
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    first = next(iter(parts.values()))
    scores = {name: part.scores[matched(first, part)] for name, part in parts.items()}
    if len(scores) > 1:
        mean = np.stack(list(scores.values())).astype(np.float64).mean(axis=0).astype(np.float32)
        scores = {f"{ENSEMBLE} of {len(scores)}": mean, **scores}
    return ScoredSet(first, scores, "; ".join(dict.fromkeys(part.about for part in parts.values())))


def matched(first: Scored, other: Scored) -> np.ndarray:
    """Return where the other set has each row of the first, int64 [N], by the source names of the images.

    Raises ValueError where sets do not hold the same images, or hold one twice, or disagree about what is live.
    """
    sets = first.images.index, other.images.index
    if sets[0].path == sets[1].path:
        assert np.array_equal(first.records, other.records), "other rows of one set"
        return np.arange(len(first.records))
    names = [[one.images.index.name(i) for i in one.records.tolist()] for one in (first, other)]
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
    place = {name: row for row, name in enumerate(names[1])}
    found = np.array([place[name] for name in names[0]], np.int64)
    if wrong := int((other.live[found] != first.live).sum()):
        raise ValueError(f"{sets[0].path} and {sets[1].path} disagree about what is live in {wrong:,} images")
    return found
