"""A fusion and embeddings of people's images -> what sets of several images are worth, by how they are pooled."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastface.assess.fusion import difference, differences, table
from fastface.checkpoint import write_json
from fastface.data.embedding_index import EmbeddingIndex
from fastface.eval_settings import EvalSet
from fastface.evaluation import Result
from fastface.fuser import load_fusion, pool
from fastface.fusion_evaluation import fused_rows, open_fusion_pairs
from fastface.metrics.dependence import persons_of_pairs
from fastface.metrics.folds import Pairs, make_folds
from fastface.metrics.report import notes_on
from fastface.metrics.scores import pair_scores
from fastface.metrics.verification import verification
from fastface.predictor import run_folder_of

STRANGERS = 10
"""Impostor pairs of sets for each genuine one."""


def assess_sets(
    model: Path, *, embeddings: Sequence[Path], images: int, seed: int = 0, device: str = "cpu", out: Path | None = None
) -> str:
    """Compare sets of up to `images` images, two of each person who has two or more; return what to print.

    embeddings: as of `assess_fusion`. Images of fused embeddings are pooled in four ways: the set's first image alone;
    their mean; their mean weighted by the geometric mean of the models' lengths; and as the fusion has learned.
    """
    loaded = load_fusion(model, device=device)
    settings = EvalSet(embeddings=tuple(embeddings), drawn=None if embeddings else "test", pairs=2)
    opened = open_fusion_pairs(settings, loaded.card, seed=seed)
    index = opened.index
    fused, learned = fused_rows(index, np.arange(len(index)), loaded.network)
    sets = draw_sets(index.label, np.asarray(np.isfinite(fused).all(1)), images, seed)
    label = index.label[[records[0] for records in sets]]
    pairs = pairs_of_sets(label, seed)
    lengths = log_lengths(index)
    nothing = np.zeros(len(index))
    ways = {
        "first image": [fused[records[0]] for records in sets],
        "mean": [pool(fused[r], nothing[r]) for r in sets],
        "norm-weighted mean": [pool(fused[r], lengths[r]) for r in sets],
        f"learned ({loaded.card.pooling})": [pool(fused[r], learned[r]) for r in sets],
    }
    persons = persons_of_pairs(label[pairs.first], label[pairs.second], pairs.same)[0]
    results: dict[str, Result] = {}
    for name, rows in ways.items():
        scores = pair_scores(np.stack(rows), pairs.first, pairs.second)
        found = verification(scores, pairs.same, pairs.fold, persons=persons)
        results[name] = Result(found.metrics, found.details, scores, pairs.same)
    counts = np.array([len(records) for records in sets])
    about = f"{len(sets):,} sets of {counts.min()} to {counts.max()} images, {counts.mean():.1f} on average"
    lines = [f"{loaded.origin} on {about}, of {index.path}, seed {seed}", "", *table(results), ""]
    lines += [*notes_on(results), ""]
    last = list(results)[-1]
    assert pairs.fold is not None
    others = {name: one for name, one in results.items() if name != last}
    compared = {name: difference(results[last], one, pairs.fold, persons) for name, one in others.items()}
    lines += [f"{last} minus ..., on the same pairs (95 %)", *differences(compared)]
    folder = out or run_folder_of(model) / "eval" / f"sets-{images}"
    folder.mkdir(parents=True, exist_ok=True)
    content = {name: {"metrics": r.metrics, "details": r.details} for name, r in results.items()}
    write_json(folder / "metrics.json", {"model": str(model), "sets": about, "results": content, "minus": compared})
    return "\n".join([*lines, f"written: {folder}/metrics.json"])


def draw_sets(label: np.ndarray, usable: np.ndarray, images: int, seed: int) -> list[np.ndarray]:
    """Draw two sets of up to `images` records of each person with two usable ones or more; no record is in both.

    Sets 2i and 2i + 1 are of one person. ValueError where fewer than two people have two images.
    """
    if images < 1:
        raise ValueError(f"--set-images {images}: a set has at least one image")
    rng = np.random.Generator(np.random.Philox(seed))
    sets: list[np.ndarray] = []
    for person in np.unique(label[usable]):
        records = rng.permutation(np.flatnonzero((label == person) & usable))
        if len(records) >= 2:
            half = min(images, len(records) // 2)
            sets += [records[:half], records[half : 2 * half]]
    if len(sets) < 4:
        raise ValueError("sets are compared between people, and fewer than two have two usable images")
    return sets


def pairs_of_sets(label: np.ndarray, seed: int) -> Pairs:
    """Pair the two sets of each person, and the first of each with sets of other people; places of sets, int64."""
    rng = np.random.Generator(np.random.Philox([seed, 1]))
    people = len(label) // 2
    mates = np.arange(people)
    wanted = min(STRANGERS, people - 1)
    steps = np.stack([1 + rng.permutation(people - 1)[:wanted] for _ in mates])  # each stranger once
    strangers = (mates[:, None] + steps) % people
    first = np.concatenate([2 * mates, np.repeat(2 * mates, wanted)])
    second = np.concatenate([2 * mates + 1, 2 * strangers.reshape(-1) + 1])
    pairs = Pairs(first, second, np.repeat([True, False], [people, people * wanted]))
    return pairs._replace(fold=make_folds(pairs, label))


def log_lengths(index: EmbeddingIndex) -> np.ndarray:
    """Return the logarithm of the geometric mean of the models' lengths of each record, float64 [N]."""
    records, total = np.arange(len(index)), np.zeros(len(index))
    for folder in range(len(index.folders)):
        norms = np.linalg.norm(index.read_of(folder, records).astype(np.float64), axis=1)
        total += np.log(np.maximum(np.nan_to_num(norms), 1e-12))
    return total / len(index.folders)
