"""Labels of images -> pairs drawn from them, half genuine and half impostor, no pair twice."""

import numpy as np

from fastface.metrics.folds import NUM_FOLDS, Pairs, make_folds


def count_pairs(labels: np.ndarray) -> tuple[int, int]:
    """Return how many genuine and impostor pairs of distinct images there are."""
    counts = np.unique(labels, return_counts=True)[1].astype(np.int64)
    genuine = int((counts * (counts - 1) // 2).sum())
    return genuine, len(labels) * (len(labels) - 1) // 2 - genuine


def sample_pairs(
    labels: np.ndarray,
    num: int = 100_000,
    seed: int = 0,
    *,
    num_folds: int = NUM_FOLDS,
    balanced: bool = False,
) -> Pairs:
    """Draw num // 2 genuine and as many impostor pairs uniformly, none twice; where fewer exist, all.

    labels int [N] is the person of each image; results hold positions in it, ordered by fold, genuine first.
    With `balanced` both kinds are cut to the rarer one's number. Folds share no person: persons are dealt to
    folds by size, and impostors drawn between persons of one fold. Where one fold's persons cannot supply
    them (few persons, or nearly all pairs wanted), impostors are drawn from all, and `make_folds` does what
    it can. The draw depends on labels and seed only (Philox). Raises ValueError where a kind does not exist.
    """
    labels = np.asarray(labels)
    genuine, impostors = count_pairs(labels)
    if not genuine or not impostors:
        lacking = "two images of one person" if not genuine else "two persons"
        raise ValueError(f"Pairs cannot be drawn from {len(labels)} images: there are no {lacking} among them.")
    if num < 2:
        raise ValueError(f"num {num} must be at least 2: one genuine and one impostor pair.")
    want = [min(num // 2, genuine), min(num // 2, impostors)]
    if balanced:
        want = [min(want)] * 2
    rng = np.random.Generator(np.random.Philox(seed))
    fold = _person_folds(labels, num_folds, rng)
    tables = _tables(labels, fold)
    apart = tables[2].sum() >= want[1] and num_folds > 1
    if not apart:
        tables = _tables(labels, np.zeros(len(labels), dtype=np.int16))
    order, person_start, strangers, fold_start = tables
    pairs = [
        _draw(rng, order, person_start, np.arange(len(labels)) - person_start, want[0]),
        _draw(rng, order, fold_start, strangers, want[1]),
    ]
    ends = np.concatenate(pairs, axis=1)
    first, second = ends.min(axis=0), ends.max(axis=0)
    same = np.repeat([True, False], [pairs[0].shape[1], pairs[1].shape[1]])
    drawn = Pairs(first, second, same)
    if num_folds < 2:
        return drawn
    folds = fold[first] if apart else make_folds(drawn, labels, num_folds)
    folds = np.unique(folds, return_inverse=True)[1].astype(np.int16)  # a fold may have drawn nothing
    row = np.lexsort((~same, folds))
    return Pairs(first[row], second[row], same[row], folds[row])


def _person_folds(labels: np.ndarray, num: int, rng: np.random.Generator) -> np.ndarray:
    """Deal persons, largest first and equals in random order, back and forth over the folds; int16 [N]."""
    _, person, counts = np.unique(labels, return_inverse=True, return_counts=True)
    ranked = np.lexsort((rng.integers(0, 1 << 62, len(counts)), -counts))
    turn, place = np.divmod(np.arange(len(counts)), max(1, num))
    fold = np.empty(len(counts), dtype=np.int16)
    fold[ranked] = np.where(turn % 2, num - 1 - place, place)
    return fold[person]


def _tables(labels: np.ndarray, fold: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Sort images by fold and person, and find for each sorted position where its person and its fold start.

    Returns order, person_start, strangers (images of the fold before the person's first: the impostor
    partners that this position owns) and fold_start, each int64 [N].
    """
    order = np.lexsort((labels, fold))
    starts = []
    for keys in (labels[order], fold[order]):
        new = np.append(True, keys[1:] != keys[:-1])
        starts.append(np.flatnonzero(new)[np.cumsum(new) - 1])
    person_start, fold_start = np.maximum(starts[0], starts[1]), starts[1]
    return order, person_start, person_start - fold_start, fold_start


def _draw(rng: np.random.Generator, order: np.ndarray, start: np.ndarray, count: np.ndarray, num: int) -> np.ndarray:
    """Draw num distinct pairs (position p, partner start[p] + r, r < count[p]) uniformly; int64 [2, num]."""
    ends = np.cumsum(count)  # int64: 1e6 images have 5e11 pairs
    ranks = _distinct(rng, int(ends[-1]), num)
    position = np.searchsorted(ends, ranks, side="right")
    partner = start[position] + ranks - (ends[position] - count[position])
    return np.stack([order[position], order[partner]])


def _distinct(rng: np.random.Generator, high: int, num: int) -> np.ndarray:
    """Draw num distinct integers below high, int64, in random order (in their own where all are wanted)."""
    if num == high:
        return np.arange(high, dtype=np.int64)
    if high <= 4 * num:  # repeats would be common
        return np.argsort(rng.integers(0, 1 << 62, high), kind="stable")[:num]
    found = np.empty(0, dtype=np.int64)
    while len(found) < num:
        found = np.concatenate([found, rng.integers(0, high, num - len(found))])
        found = found[np.sort(np.unique(found, return_index=True)[1])]
    return found
