"""Liveness models and shard sets -> figures of attack detection by ISO/IEC 30107-3, as text, files and a picture."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastface.assess.attack_files import write_scores
from fastface.assess.attack_models import Scorer, load_scorers
from fastface.assess.attack_page import write_page_of
from fastface.assess.attack_sets import ScoredSet, score_sets
from fastface.checkpoint import write_json
from fastface.metrics.attack_comparison import compare_attacks, format_comparisons
from fastface.metrics.attack_groups import by_groups, by_values, format_groups, parse_groups
from fastface.metrics.attack_picture import Judged, attack_picture
from fastface.metrics.attack_report import format_attacks, named_metrics
from fastface.metrics.attacks import presented_figures, threshold_at
from fastface.predictor import run_folder_of


class Rule(NamedTuple):
    """A threshold, and where it comes from; None is the EER of the test set itself."""

    threshold: float | None
    source: str


def assess_liveness(
    model: Sequence[Path],
    *,
    images: Sequence[Path],
    dev: Sequence[Path] = (),
    threshold_from: str | None = None,
    at: str = "eer",
    by: Sequence[str] = (),
    attack_groups: Sequence[str] = (),
    batch_size: int = 128,
    device: str = "cpu",
    out: Path | None = None,
    report: Path | None = None,
) -> str:
    """Judge models and, of several, their ensemble; write everything down and return what to print.

    images, dev: test and development sets, one for all models or one for each. threshold_from: dev, card or test-eer,
    by default dev where one is given and the card otherwise; at: the rule of `threshold_at`. by: columns to break
    figures down by; attack_groups: such as 2d=print,replay. report: also write a page to look at into this folder.

    Raises:
        ValueError: for models or sets that are missing or do not fit, and where no threshold can be had.
    """
    if not images:
        raise ValueError("give the test set: --images SHARDS, as tools/make_shards.py liveness makes them")
    groups = parse_groups(attack_groups)
    scorers = load_scorers(model, device)
    source = threshold_from or ("dev" if dev else "card")
    if source == "dev" and not dev:
        raise ValueError("--threshold-from dev needs a development set: give --dev SHARDS")
    if source != "dev" and dev:
        raise ValueError(f"--dev has no meaning with --threshold-from {source}")
    scored = score_sets(images, scorers, option="--images", batch=batch_size)
    rules = choose(source, at, scored, scorers, dev, batch_size)
    judged: dict[str, Judged] = {}
    for name in scored.scores:
        presented = scored.presented(name)
        judged[name] = Judged(
            presented, presented_figures(presented, rules[name].threshold, rule=rules[name].source, draw=True)
        )
    results = {name: one.figures for name, one in judged.items()}
    (name, first), *others = judged.items()
    compared = {other: compare_attacks(first, one) for other, one in others}
    grouped = by_groups(first.presented, groups, first.figures.details["threshold"]) if groups else []
    broken = {
        column: by_values(
            first.presented, scored.values(column, first.presented.rows), first.figures.details["threshold"]
        )
        for column in by
    }
    folder = out or report or run_folder_of(model[0]) / "eval" / images[0].name
    folder.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {
        "models": {key: scorer.origin for key, scorer in scorers.items()},
        "images": [str(path) for path in images],
        "dev": [str(path) for path in dev],
        **{key: {"metrics": named_metrics(one), "details": one.details} for key, one in results.items()},
        **({"first_minus": compared} if compared else {}),
        **({"attack_groups": grouped} if grouped else {}),
        **({"by": broken} if broken else {}),
    }
    write_json(folder / "metrics.json", content)
    write_scores(folder / "scores.csv", scored)
    attack_picture(folder / "attacks.png", judged, title=re.sub(r"\S+/", "", scored.first.about))
    lines = [*_about(scored, scorers, first), "", format_attacks(results)]
    if compared:
        lines += ["", format_comparisons(name, compared)]
    if grouped:
        lines += ["", format_groups("by group of attacks", grouped)]
    for column, parts in broken.items():
        lines += ["", format_groups(f"by {column}, {name}" if others else f"by {column}", parts)]
    lines.append(f"written: {folder}/metrics.json, scores.csv, attacks.png")
    if report is not None:
        report.mkdir(parents=True, exist_ok=True)
        write_page_of(report / "report.html", folder / "attacks.png", scored, judged, "\n".join(lines))
        lines.append(f"a page to look at: {report}/report.html")
    return "\n".join(lines)


def choose(
    source: str, at: str, scored: ScoredSet, scorers: dict[str, Scorer], dev: Sequence[Path], batch: int
) -> dict[str, Rule]:
    """Return the threshold of each scoring, an ensemble's included."""
    if source == "test-eer":
        if at != "eer":
            raise ValueError(f"--threshold-from test-eer is the EER of the test set; --at {at} needs --dev")
        return {name: Rule(None, "") for name in scored.scores}
    if source == "card":
        return {name: _of_card(name, at, scorers) for name in scored.scores}
    development = score_sets(dev, scorers, option="--dev", batch=batch)
    if development.index.dataset_id == scored.index.dataset_id:
        raise ValueError(f"{dev[0]} and the test set are the same images: a threshold is chosen on others")
    where = f"{at} of {dev[0]}"
    return {name: Rule(threshold_at(development.presented(name), at), where) for name in scored.scores}


def _of_card(name: str, at: str, scorers: dict[str, Scorer]) -> Rule:
    if name not in scorers:
        raise ValueError("an ensemble has no card to take a threshold from: give --dev SHARDS, of other persons")
    known = scorers[name].card.thresholds
    for one in known:
        if one.rule == at:
            return Rule(one.threshold, f"{at} of {one.source}, from the model's card")
    has = f"has thresholds for {', '.join(one.rule for one in known)}" if known else "has no threshold"
    raise ValueError(
        f"{name}: its card {has}, not for {at}: give --dev SHARDS of a development set, or --threshold-from test-eer, "
        "whose figures are marked, since a threshold chosen on the test set flatters"
    )


def _about(scored: ScoredSet, scorers: dict[str, Scorer], first: Judged) -> list[str]:
    lines = [f"{name}: {scorer.origin}" for name, scorer in scorers.items()]
    if len(scorers) > 1:
        lines.append(f"{next(iter(scored.scores))}: the mean of their probabilities")
    presented = first.presented
    persons = "persons not known" if presented.persons is None else f"{int(np.ptp(presented.persons)) + 1:,} persons"
    judged = " (a clip is judged by the mean of its scores)" if scored.first.clip is not None else ""
    return [*lines, f"on {scored.about}: {len(presented.scores):,} presentations{judged}; {persons}"]
