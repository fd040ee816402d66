"""Scores of calibration pairs -> the threshold table and the calibration of a card, with the evidence for both.

Thresholds are given as operating points, whoever counted the pairs: metrics.curve.calibrate those of a list, and
metrics.all_pairs those of all pairs of a set.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastface.card import RULE, Calibration, Threshold
from fastface.metrics import curve
from fastface.metrics.calibration import cllr, ece, fit_platt, held_out_llrs, min_cllr
from fastface.metrics.dependence import rate_interval
from fastface.metrics.folds import Pairs
from fastface.metrics.intervals import Interval

TARGETS = (1e-2, 1e-3)
"""False match rates that thresholds are chosen for."""


class Evidence(NamedTuple):
    """What thresholds and calibration rest on."""

    source: str
    """The calibration pairs, in words."""
    pairs_sha256: str
    model_sha256: str
    """Of the file that ships."""
    dataset_id: str | None = None


def decide(
    scores: np.ndarray,
    same: np.ndarray,
    folds: np.ndarray,
    targets: Sequence[float],
    evidence: Evidence,
    persons: np.ndarray | None = None,
    *,
    strict: bool = False,
) -> dict[str, Any]:
    """Return the fields `thresholds` and `calibration` of a card, from scored pairs; all [P], persons [2, P]."""
    points = curve.calibrate(scores, same, targets)
    return {
        "thresholds": threshold_table(points, evidence, intervals_of(points, scores, same, persons), strict=strict),
        "calibration": calibration_of(scores, same, folds, evidence),
    }


def intervals_of(
    points: Sequence[curve.Threshold], scores: np.ndarray, same: np.ndarray, persons: np.ndarray | None
) -> list[tuple[Interval, Interval]]:
    """Return the intervals of FMR and TAR at each point, wider where persons [2, P] recur."""
    found = []
    with np.errstate(invalid="ignore"):
        accepted = [scores.astype(np.float64) >= point.threshold for point in points]  # a NaN never is
    for one in accepted:
        matched, missed = (
            rate_interval(wrong[kind], same[kind], None if persons is None else persons[:, kind])
            for wrong, kind in ((one, ~same), (~one, same))
        )
        found.append((matched, Interval(1 - missed.high, 1 - missed.low, missed.method)))
    return found


def threshold_table(
    points: Sequence[curve.Threshold],
    evidence: Evidence,
    intervals: Sequence[tuple[Interval, Interval]],
    *,
    strict: bool = False,
) -> list[Threshold]:
    """Turn operating points, with the intervals of their FMR and TAR, into a card's table.

    Raises:
        ValueError: with `strict`, where fewer than 30 impostor errors are expected at a target.
    """
    doubtful = [p for p in points if not p.supported]
    if strict and doubtful:
        listed = ", ".join(f"{p.target_fmr:g} ({curve.RULE_OF_THIRTY / p.target_fmr:,.0f})" for p in doubtful)
        raise ValueError(
            f"{evidence.source} has {doubtful[0].impostors:,} impostor pairs, too few for these false match rates "
            f"(pairs needed): {listed}. Calibrate on more, leave them out of --targets, or leave out --strict"
        )
    return [
        Threshold(
            **point._asdict(),
            source=evidence.source,
            errors=point.errors,
            fmr_interval=(fmr.low, fmr.high),
            tar_interval=(tar.low, tar.high),
            interval_method=fmr.method,
            rule=RULE,
            dataset_id=evidence.dataset_id,
            pairs_sha256=evidence.pairs_sha256,
            model_sha256=evidence.model_sha256,
        )
        for point, (fmr, tar) in zip(points, intervals, strict=True)
    ]


def calibration_of(scores: np.ndarray, same: np.ndarray, folds: np.ndarray, evidence: Evidence) -> Calibration | None:
    """Fit scores [P] to log-likelihood ratios, and judge such fits on folds that had no part in them.

    None where the pairs are too few: some fold's others lack a kind of pair, or all scores are one.
    """
    try:
        fit, held_out = fit_platt(scores, same), held_out_llrs(scores, same, folds)
    except ValueError:
        return None
    there = np.isfinite(held_out)  # failures have no ratio, and are counted where thresholds are
    return Calibration(
        a=fit.a,
        b=fit.b,
        genuine=fit.genuine,
        impostors=fit.impostors,
        cllr=cllr(held_out[there], same[there]),
        min_cllr=min_cllr(scores[there], same[there]),
        ece=ece(held_out[there], same[there]),
        source=evidence.source,
        dataset_id=evidence.dataset_id,
        pairs_sha256=evidence.pairs_sha256,
        model_sha256=evidence.model_sha256,
    )


def pairs_digest(pairs: Pairs, name: Callable[[int], str]) -> str:
    """Return the SHA-256 of a list of pairs, by the names of their images and what they are."""
    digest = hashlib.sha256()
    for first, second, same in zip(pairs.first.tolist(), pairs.second.tolist(), pairs.same.tolist(), strict=True):
        digest.update(f"{name(first)}\0{name(second)}\0{int(same)}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file."""
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def describe_evidence(thresholds: Sequence[Threshold], calibration: Calibration | None) -> list[str]:
    """Say a card's thresholds and calibration in lines, for the screen."""
    lines = []
    for t in thresholds:
        doubt = "" if t.supported else "  ! fewer than 30 errors expected: a guess"
        errors = "" if t.errors is None else f"{t.errors:,} of "
        lines.append(
            f"  FMR {t.target_fmr:g}: threshold {t.threshold:.4f}, TAR {t.tar:.4f} "
            f"({t.genuine:,} genuine, {errors}{t.impostors:,} impostor pairs){doubt}"
        )
    if calibration is not None:
        c = calibration
        lines.append(
            f"  log-likelihood ratio = {c.a:.4f} * score {c.b:+.4f}; on held-out folds Cllr {c.cllr:.4f} bits "
            f"(of which {c.min_cllr:.4f} by the order of the scores alone), ECE {c.ece:.4f}"
        )
    elif thresholds:
        lines.append("  no log-likelihood ratio: the calibration pairs are too few")
    return lines
