"""Scored frames of live faces and of attacks -> presentations: one score each, its kind of attack and its person."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

UNNAMED = "unknown"  # the attack of presentations of which none is known
NO_ATTACK = "none"


class Presentations(NamedTuple):
    """What was held before the camera, one row each; a score that is not finite is a non-response."""

    scores: np.ndarray  # float32 or float64 [P], more is live; non-responses are -inf: accepted at no threshold
    live: np.ndarray  # bool [P]
    species: np.ndarray  # int64 [P], a number into `attacks`, -1 for live
    attacks: list[str]  # the species of attack instruments, in order of their names
    persons: np.ndarray | None  # int64 [P] from 0, those who recur have one number; None where they are not known
    rows: np.ndarray  # int64 [P], the first of the frames behind it

    def take(self, chosen: np.ndarray) -> "Presentations":
        """Return the chosen ones (bool or int64), with the species that are left among them."""
        left, species = np.unique(self.species[chosen], return_inverse=True)
        persons = None if self.persons is None else np.unique(self.persons[chosen], return_inverse=True)[1]
        kept = [self.attacks[k] for k in left.tolist() if k >= 0]
        numbers = species.reshape(-1) - int((left < 0).any())
        return Presentations(self.scores[chosen], self.live[chosen], numbers, kept, persons, self.rows[chosen])


def gather_presentations(
    scores: np.ndarray,
    live: np.ndarray,
    attack: Sequence[str] | np.ndarray | None = None,
    clip: np.ndarray | None = None,
    person: np.ndarray | None = None,
) -> Presentations:
    """Check scored images and make one presentation of each clip, by the mean of its frames' scores.

    scores float [N], live bool [N]; attack [N] names the species of attack instrument (what it says of live rows is
    not read); clip int [N] numbers the video of a frame and person int [N] who is shown, -1 where there is none.
    Frames without a score are left out of the mean; a clip without any is a non-response. Raises ValueError where
    lengths differ, a kind is missing, or a clip shows two kinds, attacks or persons.
    """
    scores, live = np.asarray(scores), np.asarray(live)
    if scores.ndim != 1 or scores.shape != live.shape:
        raise ValueError(f"scores {scores.shape} and live {live.shape} must be one list each, of equal length.")
    if not np.issubdtype(scores.dtype, np.floating):
        scores = scores.astype(np.float64)
    if live.dtype != bool and not np.isin(live, (0, 1)).all():
        raise ValueError("live must hold only True and False (or 1 and 0).")
    live = live.astype(bool)
    if not live.any() or live.all():
        what = "all of them live" if live.any() else "none of them live"
        raise ValueError(f"Attack detection is measured on live faces and attacks, but of {len(live):,} images {what}.")
    species, attacks = _species(live, attack)
    person = None if person is None else _as_numbers(person, "person", len(live))
    rows = np.arange(len(live))
    if clip is not None:
        clip = _fill(_as_numbers(clip, "clip", len(live)))
        rows, number = np.unique(clip, return_index=True, return_inverse=True)[1:]
        for what, values in (("live and attack", species >= 0), ("attacks", species), ("persons", person)):
            if values is not None and (mixed := values != values[rows][number]).any():
                raise ValueError(f"clip {clip[mixed][0]} shows several {what}; number each video by itself")
        scores = _means(scores, number, len(rows))
    scores = np.where(np.isfinite(scores), scores, scores.dtype.type(-np.inf))
    if not np.isfinite(scores).any():
        raise ValueError("No image has a finite score: the model answers to nothing; check it.")
    known = person is not None and (person[rows] >= 0).any()
    persons = np.unique(_fill(person[rows]), return_inverse=True)[1] if person is not None and known else None
    return Presentations(scores, live[rows], species[rows], attacks, persons, rows)


def _species(live: np.ndarray, attack: Sequence[str] | np.ndarray | None) -> tuple[np.ndarray, list[str]]:
    if attack is None:
        return np.where(live, -1, 0), [UNNAMED]
    if len(attack) != len(live):
        raise ValueError(f"attack names {len(attack):,} rows, and there are {len(live):,} scores.")
    named = np.array([name or UNNAMED for name in map(str, np.asarray(attack)[~live].tolist())])
    if wrong := int((named == NO_ATTACK).sum()):
        raise ValueError(
            f"{wrong:,} attacks are called {NO_ATTACK!r}, the name that live faces have; correct the labels"
        )
    attacks, number = np.unique(named, return_inverse=True)
    species = np.full(len(live), -1)
    species[~live] = number
    return species, attacks.tolist()


def _as_numbers(values: np.ndarray, what: str, length: int) -> np.ndarray:
    values = np.asarray(values)
    if values.shape != (length,) or not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f"{what} must be {length:,} whole numbers, not {values.dtype} {values.shape}.")
    return values.astype(np.int64)


def _fill(values: np.ndarray) -> np.ndarray:
    """Give each row that has no number (-1) one of its own."""
    free = max(int(values.max()), -1) + 1
    return np.where(values >= 0, values, free + np.arange(len(values)))


def _means(scores: np.ndarray, number: np.ndarray, num: int) -> np.ndarray:
    """Average the finite scores with each number, in float64; NaN where there are none. Rounds to the scores' type."""
    finite = np.isfinite(scores)
    counts = np.bincount(number[finite], minlength=num)
    sums = np.bincount(number[finite], weights=scores[finite].astype(np.float64), minlength=num)
    return np.divide(sums, counts, out=np.full(num, np.nan), where=counts > 0).astype(scores.dtype)
