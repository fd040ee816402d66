"""What compares embeddings, and pairs of them -> a report and files, with the plain cosine beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fastface.card import Threshold
from fastface.checkpoint import write_json
from fastface.comparator import load_matcher
from fastface.eval_settings import EvalSet
from fastface.evaluation import Result
from fastface.match_evaluation import (
    EmbeddingPairs,
    cosine_scores,
    figures_of,
    open_embedding_pairs,
    score_pairs,
)
from fastface.metrics.calibration import (
    ENOUGH_FOR_ISOTONIC,
    calibration_curve,
    cllr,
    ece,
    fit_isotonic,
    held_out_llrs,
    min_cllr,
)
from fastface.metrics.calibration_picture import calibration_picture
from fastface.metrics.curve import rates
from fastface.metrics.drop import Drop, drops
from fastface.metrics.pairs import write_pairs
from fastface.metrics.pictures import verification_picture
from fastface.metrics.report import format_report
from fastface.metrics.tuning import Tuned, tune
from fastface.predictor import run_folder_of


def assess_matcher(
    model: Path,
    *,
    embeddings: Sequence[Path],
    pairs: str,
    seed: int = 0,
    device: str = "cpu",
    out: Path | None = None,
) -> str:
    """Evaluate on pairs of embeddings, the cosine beside it, and write everything down; return what to print."""
    loaded = load_matcher(model, device=device)
    settings = EvalSet(embeddings=tuple(embeddings), pairs=int(pairs) if pairs.isdecimal() else Path(pairs))
    opened = open_embedding_pairs(settings, loaded.card.embedding_sizes, seed=seed)
    scores = {"match": score_pairs(opened, loaded.score), **cosine_scores(opened)}
    results = {name: figures_of(opened, values) for name, values in scores.items()}
    folder = out or run_folder_of(model) / "eval" / _name_of(embeddings, pairs)
    lines = [f"{loaded.origin} on {opened.about}", "", format_report(results), ""]
    content: dict[str, object] = {"model": str(model), "pairs": opened.about}
    llrs: dict[str, np.ndarray] = {}
    for name, result in results.items():
        against = [] if name == "match" else drops(result.scores, scores["match"], result.same, _folds(opened))
        llrs[name] = held_out_llrs(result.scores, result.same, _folds(opened))
        tuned = tune(result.scores, result.same, _folds(opened))
        facts = _calibration_facts(result, llrs[name], _folds(opened))
        lines += [*_said(name, tuned, facts, against), ""]
        content[name] = {
            "metrics": result.metrics,
            "details": result.details,
            "tuned": {rule: one._asdict() for rule, one in tuned.items()},
            "calibration": facts,
            **({"match_beside_it": [_as_json(drop) for drop in against]} if against else {}),
        }
    lines += at_card_thresholds(loaded.card.thresholds, results["match"])
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "metrics.json", content)
    write_pairs(folder / "pairs.csv", opened.pairs, opened.index.name)
    curves = {name: (r.scores, r.same) for name, r in results.items()}
    verification_picture(folder / "verification.png", curves)
    calibration_picture(folder / "calibration.png", {name: (llrs[name], r.same) for name, r in results.items()})
    lines.append(f"written: {folder}/metrics.json, pairs.csv, verification.png, calibration.png")
    return "\n".join(lines)


def _folds(opened: EmbeddingPairs) -> np.ndarray:
    assert opened.pairs.fold is not None
    return opened.pairs.fold


def _calibration_facts(result: Result, llrs: np.ndarray, folds: np.ndarray) -> dict[str, object]:
    there = np.isfinite(llrs)
    values, same = llrs[there], result.same[there]
    facts: dict[str, object] = {
        "rule": "Platt's fit on the other folds",
        "cllr": cllr(values, same),
        "min_cllr": min_cllr(result.scores[there], same),
        "ece": ece(values, same),
        "failures": int((~there).sum()),
        "curve": [one._asdict() for one in calibration_curve(values, same)],
    }
    if min(int(same[folds[there] != fold].sum()) for fold in np.unique(folds)) >= ENOUGH_FOR_ISOTONIC:
        facts["cllr_isotonic"] = cllr(held_out_llrs(result.scores[there], same, folds[there], fit_isotonic), same)
    return facts


def _said(name: str, tuned: Mapping[str, Tuned], facts: Mapping[str, object], against: Sequence[Drop]) -> list[str]:
    head = (
        f"{name}: held-out Cllr {facts['cllr']:.4f} bits (order alone {facts['min_cllr']:.4f}), ECE {facts['ece']:.4f}"
    )
    if "cllr_isotonic" in facts:
        head += f"; by isotonic regression Cllr {facts['cllr_isotonic']:.4f}"
    lines = [head, "  threshold chosen by  range over folds     accuracy  precision  recall      F1     FMR"]
    for rule, t in tuned.items():
        span = f"{t.lowest:.4f} to {t.highest:.4f}"
        lines.append(
            f"  {rule:19}  {span:19}  {t.accuracy:8.4f}  {t.precision:9.4f}  {t.recall:6.4f}  {t.f1:6.4f}  {t.fmr:6.4f}"
        )
    for drop in against:
        c, (low, high) = drop.changed, drop.changed.interval
        lines.append(
            f"  match beside it, {drop.figure}: {drop.before:.4f} -> {drop.after:.4f}, a gain of {-c.drop:+.4f} "
            f"[{-high:+.4f}, {-low:+.4f}]; of {c.total:,} pairs {c.gained:,} won, {c.lost:,} lost, McNemar p "
            f"{c.p_value:.2g}{'' if drop.supported else '  ! fewer than 30 errors expected'}"
        )
    return lines


def _as_json(drop: Drop) -> dict[str, object]:
    changed = drop.changed
    figures = {"interval": [-changed.interval[1], -changed.interval[0]], "p_value": changed.p_value}
    return drop._asdict() | {"changed": changed._asdict(), "gain": -changed.drop, **figures}


def at_card_thresholds(thresholds: list[Threshold], result: Result) -> list[str]:
    """Say what thresholds fixed beforehand do on these pairs."""
    lines = []
    for t in thresholds:
        r = rates(result.scores, result.same, t.threshold)
        lines.append(
            f"at the card's threshold {t.threshold:.4f}, for FMR {t.target_fmr:g}: FMR {r.fmr:.4f} "
            f"({r.false_matches:,} errors), FNMR {r.fnmr:.4f} ({r.false_non_matches:,})"
        )
    return lines


def _name_of(embeddings: Sequence[Path], pairs: str) -> str:
    first = embeddings[0].stem
    return first if pairs.isdecimal() else f"{first}-{Path(pairs).stem}"
