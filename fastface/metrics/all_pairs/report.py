"""Figures of all pairs -> text for the terminal, and what a JSON file keeps of them."""

from __future__ import annotations

from typing import Any

from fastface.metrics.all_pairs import AllPairs
from fastface.metrics.curve import Threshold
from fastface.metrics.intervals import wilson
from fastface.metrics.report import MARK, align
from fastface.metrics.verification import RULE


def format_all_pairs(found: AllPairs, name: str = "all pairs") -> str:
    """Return a table of the figures, then notes on how to read it."""
    equal = found.equal
    rows = [
        ["", name],
        ["pairs", f"{found.num_genuine:,} genuine, {found.num_impostors:,} impostor"],
        ["AUC", f"{found.auc.value:.6f}, exact to {found.auc.error:.1e}"],
        ["EER", f"{found.eer:.6f} at {found.equal_threshold:.6f}"],
        ["  errors", f"{equal.false_matches:,} false matches, {equal.false_non_matches:,} false non-matches"],
    ]
    for point in found.points:
        low, high = _interval(point)
        text = f"{point.tar:.6f} [{low:.6f}, {high:.6f}] {point.errors:,}/{point.impostors:,} at {point.threshold:.6f}"
        short = f"{point.target_fmr:.0e}"
        target = short if float(short) == point.target_fmr else f"{point.target_fmr:g}"
        rows.append([f"TAR at FAR {target.replace('e-0', 'e-')}", text if point.supported else f"{MARK} {text}"])
    if found.failed_rows:
        genuine, impostors = found.failures
        rows.append(["failed embeddings", f"{found.failed_rows:,}: {genuine:,} genuine, {impostors:,} impostor pairs"])
    notes = [
        f"TAR: {RULE}; errors/impostors behind it, at the threshold T",
        "[low, high]: 95 % Wilson interval, pairs taken as independent (persons recur, so it is the least)",
    ]
    if not all(point.supported for point in found.points):
        notes.append(f"{MARK} unsupported: fewer than 30 impostor errors expected at this rate, so take it as a guess")
    if found.failed_rows:
        notes.append("failed embeddings: zero or not finite; their genuine pairs count as false non-matches")
    share = found.rescored / (found.num_genuine + found.num_impostors)
    times = "once" if found.passes == 1 else f"{found.passes} times"
    notes.append(f"every pair multiplied {times}; {share:.2%} as many scored in float64, so that all counts are exact")
    return "\n".join([*align(rows), "", *notes])


def all_pairs_details(found: AllPairs) -> dict[str, Any]:
    """Return what a JSON file keeps: all but the histogram."""
    return {
        "num_genuine": found.num_genuine,
        "num_impostors": found.num_impostors,
        "failures": {"genuine": found.failures[0], "impostors": found.failures[1], "embeddings": found.failed_rows},
        "auc": found.auc._asdict(),
        "eer": {"value": found.eer, "threshold": found.equal_threshold, **found.equal._asdict()},
        "tar_at_far": {
            "rule": RULE,
            "points": [
                {**point._asdict(), "errors": point.errors, "tar_interval": list(_interval(point))}
                for point in found.points
            ],
        },
        "passes": found.passes,
        "rescored": found.rescored,
    }


def _interval(point: Threshold) -> tuple[float, float]:
    return wilson(round(point.tar * point.genuine), point.genuine)
