"""Scores of live faces and of attacks -> the figures of presentation attack detection, as ISO/IEC 30107-3 has them.

A presentation is accepted as live iff score >= threshold. One without a score (NaN) is a non-response: accepted at no
threshold, so a live face without one is refused and an attack without one did not get through; the standard reports
their shares on their own (APNRR, BPNRR), and so do the details. APCER is that of the worst species of attack
instrument; ACER = (APCER + BPCER) / 2 is common in papers but not in the standard, and HTER pools all attacks.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fastface.metrics.attack_curve import TARGETS, AttackCurve, count_presentations, figures_at, rank
from fastface.metrics.attack_intervals import BY_PERSONS, BY_PRESENTATIONS, draw_figures, limits_of, share_interval
from fastface.metrics.bootstrap import num_replicates
from fastface.metrics.curve import RULE_OF_THIRTY, allowed_errors, equal_error
from fastface.metrics.presentations import Presentations, gather_presentations

BONA_FIDE = "bona fide"
OWN_EER = "EER of these very presentations, which flatters"


class AttackFigures(NamedTuple):
    """Flat figures (acer, apcer, bpcer, auc, eer, hter, acc, bpcer10, bpcer20, bpcer100), and what is behind them."""

    metrics: dict[str, float]
    details: dict[str, Any]  # ready for JSON
    draws: np.ndarray | None = None  # float64 [draws, figures], see `draw_figures`


def attack_figures(
    scores: np.ndarray,
    live: np.ndarray,
    attack: Sequence[str] | np.ndarray | None = None,
    clip: np.ndarray | None = None,
    threshold: float | None = None,
    *,
    person: np.ndarray | None = None,
    rule: str = "",
    draw: bool = False,
) -> AttackFigures:
    """Compute every figure of scored images; arrays as `gather_presentations` takes them, frames averaged by clip.

    threshold None takes that of the EER of these scores, attacks pooled; `rule` says where a given one comes from.
    `draw` adds intervals of the figures that are no single rate, by drawing persons: up to 1,000 times the work.
    """
    return presented_figures(gather_presentations(scores, live, attack, clip, person), threshold, rule=rule, draw=draw)


def presented_figures(
    presented: Presentations, threshold: float | None, *, rule: str = "", draw: bool = False
) -> AttackFigures:
    """Compute what `attack_figures` does, of presentations."""
    points = count_presentations(rank(presented))
    metrics = figures_at(points, threshold)
    own = equal_error(points.pooled)[1]
    at = own if threshold is None else float(threshold)
    replicates = num_replicates(len(presented.scores))
    draws = draw_figures(presented, threshold, replicates=replicates) if draw else None
    drawn = None if draws is None else limits_of(draws, metrics)
    groups = rates_by_species(presented, at)
    if drawn is not None:
        drawn = {name: limits for name, limits in drawn.items() if limits[0] < limits[1]} | _unmoved(presented, drawn)
    persons = presented.persons
    details: dict[str, Any] = {
        "threshold": at,
        "threshold_rule": OWN_EER if threshold is None else rule or "given",
        "eer_threshold": own,
        "num_presentations": len(presented.scores),
        "persons": None if persons is None else int(persons.max()) + 1,
        "bona_fide": groups[0],
        "species": groups[1:],
        "worst_species": max(groups[1:], key=lambda group: group["rate"])["name"],
        "bpcer_at_apcer": [_point(points, name) for name in TARGETS],
        "intervals": drawn,
        "intervals_method": None if drawn is None else BY_PERSONS if persons is not None else BY_PRESENTATIONS,
        "replicates": replicates if draw else 0,
    }
    return AttackFigures(metrics, details, draws)


def _unmoved(presented: Presentations, drawn: dict[str, list[float]]) -> dict[str, list[float]]:
    """Return the intervals of BPCER at an APCER that no draw moved, from its count; other figures have none."""
    points = count_presentations(rank(presented))
    found = {}
    for name, target in TARGETS.items():
        if drawn[name][0] == drawn[name][1]:
            threshold = points.thresholds[points.place_of_apcer(target)]
            refused = presented.scores[presented.live] < threshold
            persons = None if presented.persons is None else presented.persons[presented.live]
            found[name] = list(share_interval(refused, persons)[:2])
    return found


def rates_by_species(presented: Presentations, threshold: float) -> list[dict[str, Any]]:
    """Return BPCER where there are live faces, then APCER of each species, with counts, at a threshold."""
    accepted = presented.scores.astype(np.float64) >= threshold
    accepted &= np.isfinite(presented.scores)
    found = []
    for k, name in enumerate([BONA_FIDE, *presented.attacks], start=-1):
        chosen = presented.species == k
        if not chosen.any():
            continue
        wrong = accepted[chosen] == (k >= 0)
        persons = None if presented.persons is None else presented.persons[chosen]
        interval = share_interval(wrong, persons)
        silent = int((~np.isfinite(presented.scores[chosen])).sum())
        found.append(
            {
                "name": name,
                "rate": float(wrong.mean()),
                "errors": int(wrong.sum()),
                "presentations": len(wrong),
                "persons": None if persons is None else len(np.unique(persons)),
                "interval": [interval.low, interval.high],
                "interval_method": interval.method,
                "supported": int(wrong.sum()) >= RULE_OF_THIRTY,
                "non_responses": silent,
                "non_response_rate": silent / len(wrong),
            }
        )
    return found


def threshold_at(presented: Presentations, rule: str) -> float:
    """Find the threshold of a development set by a rule: eer, apcer=0.05 or bpcer=0.01.

    apcer: the smallest at which no species exceeds it; bpcer: the largest at which it is not exceeded. In the
    precision of the scores. Raises ValueError for an unknown rule, and where non-responses alone exceed a BPCER.
    """
    name, _, text = rule.partition("=")
    points = count_presentations(rank(presented))
    if rule == "eer":
        return equal_error(points.pooled)[1]
    try:
        target = float(text)
    except ValueError:
        target = -1.0
    if name not in ("apcer", "bpcer") or not 0 <= target < 1:
        raise ValueError(f"a threshold is chosen at eer, apcer=RATE or bpcer=RATE with a rate below 1, not {rule!r}")
    if name == "apcer":
        place = points.place_of_apcer(target)
        if place + 1 == len(points.thresholds):
            return float(points.thresholds[-1])
        barred = presented.scores.dtype.type(points.thresholds[place + 1])
        return float(np.nextafter(barred, barred.dtype.type(np.inf)))
    refused = points.num_live - points.live
    good = np.flatnonzero(refused <= allowed_errors(target, points.num_live))
    if not len(good):
        raise ValueError(
            f"{refused[-1]:,} of {points.num_live:,} live faces have no score: no threshold has BPCER <= {target:g}"
        )
    return float(points.thresholds[good[0]])


def _point(points: AttackCurve, name: str) -> dict[str, Any]:
    """Say how much a figure such as BPCER10 can carry: its place, and whether each species has enough attacks."""
    target, place = TARGETS[name], points.place_of_apcer(TARGETS[name])
    fewest = min(allowed_errors(target, num) for num in points.num_attacks.tolist())
    return {
        "name": name,
        "target_apcer": target,
        "bpcer": float(points.bpcer[place]),
        "apcer": float(points.apcer[place]),
        "threshold": float(points.thresholds[place]),
        "supported": fewest >= RULE_OF_THIRTY,
    }
