"""A fusion and pairs of embeddings -> a table with every simpler way to fuse beside it, the differences, and files."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastface.assess.match import at_card_thresholds
from fastface.checkpoint import write_json
from fastface.config import RunConfig
from fastface.data.embeddings import Embeddings
from fastface.eval_settings import EvalSet
from fastface.evaluation import Result
from fastface.fuser import Fuser, load_fusion
from fastface.fusion_card import FusionCard, draw_embeddings
from fastface.fusion_evaluation import fused_scores, open_fusion_pairs
from fastface.match_evaluation import EmbeddingPairs, figures_of, open_embedding_pairs
from fastface.metrics.accuracy import decide
from fastface.metrics.comparison import compare
from fastface.metrics.dependence import persons_of_pairs
from fastface.metrics.pairs import write_pairs
from fastface.metrics.pictures import verification_picture
from fastface.metrics.report import align, notes_on
from fastface.metrics.score_fusion import (
    average_embeddings,
    equal_weights,
    logistic_weights,
    separating_weights,
)
from fastface.metrics.scores import pair_scores
from fastface.predictor import run_folder_of

FUSION = "trained fusion"
FITTED_ON = 20_000
"""Pairs of the people trained on that weights of scores are fitted to."""


def assess_fusion(
    model: Path,
    *,
    embeddings: Sequence[Path] = (),
    pairs: str,
    trained_on: Sequence[Path] = (),
    seed: int = 0,
    device: str = "cpu",
    out: Path | None = None,
) -> str:
    """Evaluate on pairs of embeddings, simpler ways to fuse beside it, and write everything down; return what to print.

    embeddings: of people not trained on; default, where the run draws its people: those it draws for tests.
    trained_on: the embeddings of the run, where they are no longer where they were; weights of scores are fitted there.
    """
    loaded = load_fusion(model, device=device)
    number = int(pairs) if pairs.isdecimal() else Path(pairs)
    settings = EvalSet(embeddings=tuple(embeddings), drawn=None if embeddings else "test", pairs=number)
    opened = open_fusion_pairs(settings, loaded.card, seed=seed)
    fitting = training_pairs(loaded, trained_on, seed)
    scores, weights, left_out = baselines(opened, fitting)
    scores[FUSION] = fused_scores(opened, loaded.network)
    results = {name: figures_of(opened, values) for name, values in scores.items()}
    folder = out or run_folder_of(model) / "eval" / _name_of(opened, pairs)
    lines = [f"{loaded.origin} on {opened.about}", f"weights fitted on {fitting.about}", ""]
    lines += [*table(results), "", *notes_on(results), *left_out, ""]
    for name, one in weights.items():
        lines.append(f"{name}: scores weighed {', '.join(f'{w:.3f}' for w in one)}")
    found = {name: difference(results[FUSION], result, opened) for name, result in results.items() if name != FUSION}
    lines += ["", f"{FUSION} minus ..., on the same pairs (95 %)", *differences(found)]
    lines += at_card_thresholds(loaded.card.thresholds, results[FUSION])
    folder.mkdir(parents=True, exist_ok=True)
    content = {name: {"metrics": r.metrics, "details": r.details} for name, r in results.items()}
    about = {"model": str(model), "pairs": opened.about, "fitted_on": fitting.about}
    weighed = {name: [float(w) for w in one] for name, one in weights.items()}
    write_json(folder / "metrics.json", {**about, "weights": weighed, "results": content, "fusion_minus": found})
    write_pairs(folder / "pairs.csv", opened.pairs, opened.index.name)
    verification_picture(folder / "verification.png", {name: (r.scores, r.same) for name, r in results.items()})
    lines.append(f"written: {folder}/metrics.json, pairs.csv, verification.png")
    return "\n".join(lines)


def training_pairs(loaded: Fuser, trained_on: Sequence[Path], seed: int) -> EmbeddingPairs:
    """Sample pairs of the people whose embeddings the fusion was trained on."""
    card = loaded.card
    drawn: tuple[Embeddings, ...] = ()
    if not trained_on:
        if card.synthetic is not None:
            drawn = draw_embeddings("train", card.synthetic)
        else:
            trained_on = _folders_of(loaded, card)
    settings = EvalSet(embeddings=tuple(trained_on), drawn="val" if drawn else None, pairs=FITTED_ON)
    return open_embedding_pairs(settings, card.embedding_sizes, seed=seed, drawn=drawn, what="fusion takes")


def _folders_of(loaded: Fuser, card: FusionCard) -> tuple[Path, ...]:
    kept = card.training.get("config")
    if kept is None:  # of a run folder, not of a file that was exported
        state = json.loads((Path(loaded.origin) / "state.json").read_text(encoding="utf-8"))
        kept = state["config"]
    folders = RunConfig.model_validate_json(json.dumps(kept)).data.embeddings
    if missing := [folder for folder in folders if not (folder / "meta.json").is_file()]:
        raise ValueError(
            f"weights of scores are fitted on the people trained on, and {missing[0]} is not there: say where the "
            "run's embeddings are now, --trained-on FOLDER..."
        )
    return folders


def baselines(
    opened: EmbeddingPairs, fitting: EmbeddingPairs
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], list[str]]:
    """Score pairs by each model and by every simple way to fuse: scores, weights of models, and what is left out."""
    cosines, known = cosines_of(opened), cosines_of(fitting)
    index, models = opened.index, len(cosines)
    scores = {f"model {n + 1}": row for n, row in enumerate(cosines)}
    left_out = []
    if models > 1:
        if len(set(index.sizes)) == 1:
            ends, place = np.unique(np.stack([opened.pairs.first, opened.pairs.second]), return_inverse=True)
            first, second = place.reshape(2, -1)
            scores["average"] = pair_scores(average_embeddings(index.read(ends), index.sizes), first, second)
        else:
            left_out.append(f"average: none, embeddings of {' and '.join(map(str, index.sizes))} values have no mean")
    kinds = fitting.pairs.same
    rules = {
        "concatenation": equal_weights(models),
        "weighted concatenation": separating_weights(known, kinds),
        "logistic fusion": logistic_weights(known, kinds),
    }
    for name, rule in rules.items():
        scores[name] = rule(cosines)
    return scores, {name: rule.weights for name, rule in rules.items()}, left_out


def cosines_of(opened: EmbeddingPairs) -> np.ndarray:
    """Score pairs by each model alone, float32 [M, P]."""
    index, pairs = opened.index, opened.pairs
    where = zip(index.folders, index.row, strict=True)
    return np.stack([pair_scores(folder.rows, row[pairs.first], row[pairs.second]) for folder, row in where])


def table(results: dict[str, Result]) -> list[str]:
    """Return a row for each way to fuse."""
    rows = [["", "accuracy", "AUC", "TAR at FAR 1e-2", "TAR at FAR 1e-3"]]
    for name, result in results.items():
        details = result.details
        cells = [_interval(result.metrics["acc"], details["accuracy"]["interval"])]
        cells.append(_interval(details["auc"]["value"], details["auc"]["interval"]))
        for target in (1e-2, 1e-3):
            point = next(p for p in details["tar_at_far"]["points"] if p["target_fmr"] == target)
            cells.append(_interval(point["tar"], point["tar_interval"]) + ("" if point["supported"] else " !"))
        rows.append([name, *cells])
    return align(rows)


def difference(fusion: Result, other: Result, opened: EmbeddingPairs) -> dict[str, object]:
    """Compare the fusion with another way, on the same pairs: see fastface.metrics.comparison.compare."""
    same, folds, label = fusion.same, opened.pairs.fold, opened.index.label
    assert folds is not None
    accepted = np.stack([decide(r.scores, same, folds).accepted for r in (fusion, other)])
    persons = persons_of_pairs(label[opened.pairs.first], label[opened.pairs.second], same)[0]
    return compare(np.stack([fusion.scores, other.scores]), accepted, same, persons=persons)


def differences(found: dict[str, dict]) -> list[str]:
    """Return a row for each comparison."""
    rows = [["", "accuracy", "McNemar p", "AUC", "TAR at FAR 1e-2"]]
    for name, one in found.items():
        figures = one["figures"]
        cells = [
            _interval(f["difference"], f["interval"], "+") for f in (figures[k] for k in ("acc", "auc", "tar_1e-2"))
        ]
        rows.append([name, cells[0], f"{one['mcnemar']['p_value']:.2g}", *cells[1:]])
    return align(rows)


def _interval(value: float, interval: Sequence[float] | None, sign: str = "") -> str:
    text = f"{value:{sign}.4f}"
    return text if interval is None else f"{text} [{interval[0]:{sign}.4f}, {interval[1]:{sign}.4f}]"


def _name_of(opened: EmbeddingPairs, pairs: str) -> str:
    folder = opened.index.folders[0].path.name if "synthetic" not in opened.index.folders[0].meta else "synthetic"
    return folder if pairs.isdecimal() else f"{folder}-{Path(pairs).stem}"
