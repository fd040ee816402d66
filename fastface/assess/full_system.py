"""A csv of scored attempts -> what match and liveness together let in and refuse, by each way to decide."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastface.assess.attempt_pairs import score_attempts, write_attempts
from fastface.checkpoint import write_json
from fastface.metrics.attacks import threshold_at
from fastface.metrics.attempt_files import read_attempts
from fastface.metrics.curve import RULE_OF_THIRTY
from fastface.metrics.full_system import (
    Attempts,
    Limits,
    accept_both,
    best_and,
    detailed_rates,
    rates_of,
    strictest_needed,
)
from fastface.metrics.full_system_picture import full_system_picture
from fastface.metrics.fused_decision import FUSIONS, fit_llr, fused_scores, match_alone, trade_off
from fastface.metrics.presentations import gather_presentations
from fastface.metrics.report import MARK, align


def assess_full_system(
    scores: Path,
    *,
    model: Path | None = None,
    images: Path | None = None,
    pairs: str = "",
    dev: Sequence[Path] = (),
    at: str = "eer",
    at_fmr: float = 1e-2,
    at_iapar: float = 0.05,
    batch_size: int = 128,
    device: str = "cpu",
    out: Path | None = None,
) -> str:
    """Judge attempts, write metrics.json, attempts.csv and full_system.png, and return what to print.

    scores: a csv of attempts; with `model`, a recognition model, and `images` and a file of `pairs`: the scores.csv of
    --protocol liveness that has their images.
    dev: a csv of other attempts to choose thresholds and to fit fusions on. at: the rule of the liveness threshold
    where both parts are tuned apart; at_fmr and at_iapar: the limits for all ways to decide.
    """
    if model is None:
        attempts, about = read_attempts(scores), str(scores)
    elif images is None or pairs.isdecimal():
        raise ValueError("attempts are made of --images SHARDS and a --pairs FILE: a,b,same, b being enrolled")
    else:
        attempts, about = score_attempts(model, images, Path(pairs), scores, batch=batch_size, device=device)
    if len(dev) > 1:
        raise ValueError(f"--protocol full-system takes one --dev, a csv of attempts; {len(dev)} are given")
    development = read_attempts(dev[0]) if dev else None
    chosen_on = attempts if development is None else development
    where = "these very attempts, which flatters" if development is None else str(dev[0])
    limits = Limits(at_fmr, at_iapar)
    alone, apart = match_alone(chosen_on, at_fmr), _liveness_threshold(chosen_on, at)
    together = best_and(chosen_on, limits)
    accepted = {
        "match alone": np.isfinite(attempts.match) & (attempts.match >= alone.match_threshold),
        f"and, liveness at {at}": accept_both(attempts, alone.match_threshold, apart),
        "and, tuned together": accept_both(attempts, together.match_threshold, together.live_threshold),
    }
    thresholds: dict[str, list[float]] = {
        name: [match, live]
        for name, match, live in zip(
            accepted,
            (alone.match_threshold, alone.match_threshold, together.match_threshold),
            (-np.inf, apart, together.live_threshold),
            strict=True,
        )
    }
    fused = {name: fused_scores(attempts, name, development) for name in FUSIONS}
    for name, values in fused.items():
        tuned = values if development is None else FUSIONS[name](development).scores(development)
        needed = strictest_needed(chosen_on, tuned, limits)
        accepted[f"fused, {name}"] = np.isfinite(values) & (values >= needed)
        thresholds[f"fused, {name}"] = [needed]
    details = {name: detailed_rates(attempts, which) for name, which in accepted.items()}
    rates = {name: rates_of(attempts, which) for name, which in accepted.items()}
    lines = trade_off(attempts, at_fmr, fused)
    llr = fit_llr(chosen_on)
    folder = out or scores.with_name(f"{scores.stem}-full-system")
    folder.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {
        "attempts": about,
        "thresholds_from": where,
        "limits": limits._asdict(),
        "metrics": {name: one._asdict() | {"riapar": one.riapar} for name, one in rates.items()},
        "thresholds": {name: [_finite(value) for value in values] for name, values in thresholds.items()},
        "details": details,
        "llr": {"match": llr.match._asdict(), "live": llr.live._asdict()},
        "trade_off": {name: [point._asdict() for point in points] for name, points in lines.items()},
    }
    write_json(folder / "metrics.json", content)
    full_system_picture(
        folder / "full_system.png",
        attempts,
        lines,
        details,
        rates["match alone"],
        far=at_fmr,
        corner=(together.match_threshold, together.live_threshold),
        contour=(llr, thresholds["fused, llr"][0]),
    )
    write_attempts(folder / "attempts.csv", attempts)
    text = [_about(attempts, about), "", *_table(details, rates, thresholds), ""]
    text += _notes(attempts, limits, where, development is None)
    return "\n".join([*text, f"written: {folder}/metrics.json, attempts.csv, full_system.png"])


def _liveness_threshold(attempts: Attempts, rule: str) -> float:
    """Choose the threshold of liveness as if it stood alone: all bona fide attempts against attacks."""
    names = [attempts.kinds[number] for number in attempts.kind.tolist()]
    return threshold_at(gather_presentations(attempts.live, attempts.kind < 2, names), rule)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _about(attempts: Attempts, where: str) -> str:
    counts = np.bincount(attempts.kind, minlength=len(attempts.kinds)).tolist()
    shown = ", ".join(f"{count:,} {name}" for name, count in zip(attempts.kinds, counts, strict=True))
    persons = "" if attempts.persons is None else f"; {len(np.unique(attempts.persons)):,} persons"
    return f"{len(attempts.kind):,} attempts of {where}: {shown}{persons}"


def _table(details: dict[str, Any], rates: dict[str, Any], thresholds: dict[str, list[float]]) -> list[str]:
    """Return a row for each way to decide; the worst species stands beside its IAPAR."""
    rows = [["", "threshold", "FRR", "FAR", "IAPAR, worst attack", "RIAPAR"]]
    for name, groups in details.items():
        worst = max(groups[2:], key=lambda group: group["rate"])
        shown = " and ".join(f"{value:.4f}" for value in thresholds[name] if np.isfinite(value)) or "none"
        cells = [_rate(groups[0]), _rate(groups[1]), f"{_rate(worst)} {worst['name']}"]
        rows.append([name, shown, *cells, f"{rates[name].riapar:.4f}"])
    return align(rows)


def _rate(group: dict[str, Any]) -> str:
    low, high = group["interval"]
    text = f"{group['rate']:.4f} [{low:.4f}, {high:.4f}]"
    return text if group["supported"] else f"{MARK} {text}"


def _notes(attempts: Attempts, limits: Limits, where: str, own: bool) -> list[str]:
    notes = [
        "FRR: genuine attempts refused by either part; FAR: impostors accepted; IAPAR: attacks accepted;"
        " RIAPAR = IAPAR + FRR (ISO/IEC 30107-3:2023)",
        f"thresholds: lowest FRR with FAR <= {limits.far:g} and (but for the first two) IAPAR <= {limits.iapar:g}, "
        f"chosen on {where}",
    ]
    notes.append("  lines of the picture: the least FRR that these attempts allow; bars and cross: at the thresholds")
    if own:
        notes.append("  fusions are fitted on other persons' attempts (ten folds) all the same; give --dev to report")
    notes.append(f"{MARK} fewer than {RULE_OF_THIRTY} errors; [low, high]: 95 %, Wilson")
    notes[-1] += ", for persons who recur" if attempts.persons is not None else ", attempts taken as independent"
    if silent := int((~(np.isfinite(attempts.match) & np.isfinite(attempts.live))).sum()):
        notes.append(f"{silent:,} attempts have no answer of one part, and are refused")
    return notes
