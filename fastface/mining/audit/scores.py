"""Embeddings -> how alike images and identities are, and the thresholds that follow from it.

One currency for all: the mean cosine between images, of an image and an identity or of two identities. It does not
grow with the number of images, as the cosine of their centres does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy.stats import norm

from fastface.data.embeddings import Embeddings
from fastface.metrics.scores import unit, usable

CHUNK = 16_384  # rows at a time: 64 MB of 512 float64
GENUINE, IMPOSTOR = 200_000, 2_000_000  # pairs drawn
TAIL = 1e-3  # of impostor scores, from which on they are taken to fall as a normal distribution does
OF_ONE = 10  # pairs drawn of one identity at most
ALIKE = 0.9  # least cosine of two images that may be one photograph


class Space:
    """Embeddings [N, D] less a mean, of unit length, read in pieces; rows without direction are NaN."""

    def __init__(self, embeddings: Embeddings, mean: np.ndarray | None = None) -> None:
        self.rows, self.mean = embeddings.rows, mean
        self.labels = np.asarray(embeddings.labels)
        self.num_classes = len(embeddings.classes)
        self.good = usable(self.rows)
        known = np.flatnonzero(self.good)
        self.order = known[np.argsort(self.labels[known], kind="stable")]
        self.counts = np.bincount(self.labels[known], minlength=self.num_classes)
        self.start = np.concatenate([[0], np.cumsum(self.counts)])

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, records: np.ndarray | slice) -> np.ndarray:
        """Return rows of unit length, float32 [n, D]."""
        rows = unit(np.asarray(self.rows[records]))
        return (rows if self.mean is None else unit(rows - self.mean)).astype(np.float32)

    def of(self, identity: int, most: int | None = None) -> np.ndarray:
        """List the records of an identity that have a direction; of more than `most`, evenly spaced ones."""
        records = self.order[self.start[identity] : self.start[identity + 1]]
        if most is None or len(records) <= most:
            return records
        return records[np.linspace(0, len(records) - 1, most).astype(np.int64)]

    def sums(self) -> np.ndarray:
        """Add up the rows of each identity, float32 [C, D]: the mean cosine of a row and an identity is their product
        divided by the identity's count."""
        total = np.zeros((self.num_classes, self.rows.shape[1]), np.float32)
        for part in chunks(len(self)):
            records = np.arange(len(self))[part][self.good[part]]
            if not len(records):
                continue
            labels = self.labels[records]
            order = np.argsort(labels, kind="stable")
            first = np.flatnonzero(np.diff(labels[order], prepend=-1))
            total[labels[order][first]] += np.add.reduceat(self.take(records[order]), first, axis=0)
        return total


def mean_direction(embeddings: Embeddings) -> np.ndarray:
    """Average all rows of unit length, float64 [D]: what faces have in common under this model."""
    total, number = np.zeros(embeddings.rows.shape[1]), 0
    for part in chunks(len(embeddings)):
        rows = np.asarray(embeddings.rows[part])
        rows = unit(rows[usable(rows)])
        total, number = total + rows.sum(axis=0), number + len(rows)
    return total / max(number, 1)


class Drawn(NamedTuple):
    """Scores of pairs of images drawn at random."""

    genuine: np.ndarray  # float32, of images under one label
    impostor: np.ndarray  # float32, of images under two


def draw_scores(space: Space, *, seed: int = 0) -> Drawn:
    """Score pairs within identities (at most OF_ONE of each) and between them."""
    generator = np.random.default_rng(seed)
    many = np.flatnonzero(space.counts > 1)
    many = np.sort(generator.permutation(many)[: GENUINE // OF_ONE])
    first, second = [], []
    for identity in many.tolist():
        records = space.of(identity)
        pairs = min(OF_ONE, len(records) * (len(records) - 1) // 2)
        a = generator.integers(0, len(records), 4 * pairs)
        b = (a + generator.integers(1, len(records), 4 * pairs)) % len(records)
        distinct = np.unique(np.minimum(a, b) * len(records) + np.maximum(a, b))
        distinct = generator.permutation(distinct)[:pairs]
        first.append(records[distinct // len(records)])
        second.append(records[distinct % len(records)])
    nothing = np.empty(0, np.int64)
    genuine = _scores(space, np.concatenate([nothing, *first]), np.concatenate([nothing, *second]))
    known = space.order
    if len(np.flatnonzero(space.counts)) < 2:
        return Drawn(genuine, np.empty(0, np.float32))
    # Blocks of rows against blocks give many pairs for few reads.
    side = min(int(IMPOSTOR**0.5), len(known))
    a, b = (np.sort(generator.permutation(known)[:side]) for _ in range(2))
    product = space.take(a) @ space.take(b).T
    return Drawn(genuine, product[space.labels[a][:, None] != space.labels[b][None, :]])


def tail_threshold(impostor: np.ndarray, comparisons: float) -> float:
    """Find the score that unrelated images are expected to reach once in `comparisons`.

    Beyond the sample's own reach by the normal distribution through its median and its upper TAIL. Quantiles, not
    moments: of the highest scores some are of one person under two names, and these are what is looked for.
    """
    if not len(impostor):
        return 1.0
    share = 1 / max(comparisons, 1.0)
    if share >= TAIL:
        return float(np.quantile(impostor, 1 - share))
    middle, high = (float(value) for value in np.quantile(impostor, (0.5, 1 - TAIL)))
    return min(middle + (high - middle) * float(norm.isf(share) / norm.isf(TAIL)), 1.0)


class Thresholds(NamedTuple):
    """Mean cosines between images."""

    same: float  # from here on, surely one person
    likely: float  # from here on, perhaps one person
    typical: float  # from here on, a group of images holds together
    own: float  # below, an image is unlike the others of its identity
    alike: float  # from here on, two images are perhaps one photograph


def choose_thresholds(
    drawn: Drawn, num_classes: int, given: Mapping[str, float | None]
) -> tuple[Thresholds, dict[str, str]]:
    """Choose what was not given, and say how."""
    genuine, impostor = drawn
    if not len(genuine) and any(given.get(name) is None for name in Thresholds._fields):
        raise ValueError(
            "no identity has two images with an embedding, so nothing says how alike images of one person are: give "
            + ", ".join(f"--{name}" for name in Thresholds._fields)
        )
    pairs = num_classes * (num_classes - 1) / 2
    some = 10 * pairs / max(num_classes, 1)
    low, quarter, top = (float(np.quantile(genuine, q)) if len(genuine) else 0.0 for q in (0.05, 0.25, 0.999))
    once, rarely = tail_threshold(impostor, pairs), tail_threshold(impostor, some)
    unrelated = float(np.quantile(impostor, 0.99)) if len(impostor) else 0.0
    typical = f"{quarter:.3f}, the lowest quarter of pairs under one label"
    reached = "the score that unrelated images are expected to reach"
    found = {
        "same": max(once, quarter),
        "likely": min(max(rarely, quarter), max(once, quarter)),
        "typical": quarter,
        "own": max(low, unrelated),
        "alike": max(top, ALIKE),
    }
    ways = {
        "same": f"the larger of {once:.3f}, {reached} once in all {pairs:,.0f} pairs of identities, and {typical}",
        "likely": f"the larger of {rarely:.3f}, {reached} once for each ten identities, and {typical}; at most same",
        "typical": typical,
        "own": f"the larger of {low:.3f}, the lowest twentieth of pairs under one label, and {unrelated:.3f}, below "
        "which 99 % of unrelated images are",
        "alike": f"the highest thousandth of pairs under one label, at least {ALIKE}",
    }
    for name, value in given.items():
        if value is not None:
            found[name], ways[name] = value, "given"
    return Thresholds(**found), ways


def chunks(total: int) -> list[slice]:
    """Cut rows into pieces."""
    return [slice(start, min(start + CHUNK, total)) for start in range(0, total, CHUNK)]


def _scores(space: Space, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    scores = np.empty(len(first), np.float32)
    for part in chunks(len(first)):
        scores[part] = np.einsum("ij,ij->i", space.take(first[part]), space.take(second[part]))
    return scores
