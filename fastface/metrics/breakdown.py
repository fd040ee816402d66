"""Scored pairs and groups -> both error rates of each group, and of each two groups, at one threshold for all.

The differential performance of ISO/IEC 19795-10: the threshold is global, as it is in use; counts and intervals stand
beside every rate; ratios come after the table and leave out groups with fewer than 30 errors.
"""

from typing import Any

import numpy as np

from fastface.metrics.attributes import Sides
from fastface.metrics.curve import RULE_OF_THIRTY, check_scores
from fastface.metrics.dependence import rate_interval

MARK = "!"
MOST_ACROSS = 12  # couples of groups shown in text


def breakdown(
    scores: np.ndarray, same: np.ndarray, sides: Sides, threshold: float, *, persons: np.ndarray | None = None
) -> dict[str, Any]:
    """Return rates, counts and intervals for all pairs, within each group, and across each two groups, for JSON.

    scores [P], same bool [P]; persons int64 [2, P] widen intervals as in `dependence`. A genuine pair across groups
    is one person in two of them, such as two ages.
    """
    scores, same = check_scores(scores, same, one_kind=True)
    wrong = (scores.astype(np.float64) >= threshold) != same
    failed = ~np.isfinite(scores)
    wrong[failed] = same[failed]
    names, number = np.unique(np.stack(sides), return_inverse=True)
    low, high = np.sort(number.reshape(2, -1), axis=0)

    def rates(cell: np.ndarray) -> dict[str, Any]:
        found: dict[str, Any] = {"failed": int((failed & cell).sum())}
        for rate, count, kind in (("fnmr", "genuine", same & cell), ("fmr", "impostors", ~same & cell)):
            num, errors = int(kind.sum()), int(wrong[kind].sum())
            found |= {count: num, f"{rate}_errors": errors, f"{rate}_supported": errors >= RULE_OF_THIRTY}
            found |= {rate: None, f"{rate}_interval": None, f"{rate}_interval_method": None}
            if num:
                interval = rate_interval(wrong[kind], same[kind], None if persons is None else persons[:, kind])
                found |= {rate: errors / num, f"{rate}_interval": [interval.low, interval.high]}
                found[f"{rate}_interval_method"] = interval.method
        return found

    groups = [{"group": str(names[g]), **rates((low == g) & (high == g))} for g in np.unique(low[low == high]).tolist()]
    couples = np.unique(np.stack([low, high])[:, low != high], axis=1).T.tolist()
    across = [{"groups": [str(names[a]), str(names[b])], **rates((low == a) & (high == b))} for a, b in couples]
    summary: dict[str, Any] = {rate: _spread(groups, rate) for rate in ("fnmr", "fmr")}
    gini = [summary[rate]["gini"] for rate in ("fmr", "fnmr")]
    summary["garbe"] = None if None in gini else sum(gini) / 2  # alpha = 1/2
    return {
        "threshold": float(threshold),
        "all": rates(np.ones(len(same), dtype=bool)),
        "groups": groups,
        "across": across,
        "summary": summary,
    }


def gini(rates: np.ndarray) -> float:
    """Return the Gini coefficient of n rates times n / (n - 1): 0 where all are equal, 1 where one has everything."""
    n = len(rates)
    if not rates.any():
        return 0.0
    return float(np.abs(rates[:, None] - rates).sum() / (2 * n * n * rates.mean()) * n / (n - 1))


def _spread(groups: list[dict[str, Any]], rate: str) -> dict[str, Any]:
    """Compare a rate between groups with enough errors; None where there are not two of them."""
    kept = [group for group in groups if group[f"{rate}_supported"]]
    left_out = [group["group"] for group in groups if not group[f"{rate}_supported"]]
    if len(kept) < 2:
        return {"ratio": None, "gini": None, "left_out": left_out}
    most, least = max(kept, key=lambda group: group[rate]), min(kept, key=lambda group: group[rate])
    return {
        "ratio": most[rate] / least[rate],  # 30 errors at least: never by zero
        "highest": most["group"],
        "lowest": least["group"],
        "gini": gini(np.array([group[rate] for group in kept])),
        "left_out": left_out,
    }


def format_breakdown(title: str, found: dict[str, Any]) -> str:
    """Return the table of one attribute for the terminal, with what it sums up to; its `rule` says where T is from."""
    across = sorted(found["across"], key=lambda cell: (-(cell["fmr"] or 0), -cell["impostors"]))
    rows = [("", "genuine", "FNMR", "errors", "impostor", "FMR", "errors")]
    rows += [_row(cell.get("group", "all pairs"), cell) for cell in (found["all"], *found["groups"])]
    rows += [_row(" x ".join(cell["groups"]), cell) for cell in across[:MOST_ACROSS]]
    widths = [max(len(row[c]) for row in rows) for c in range(7)]
    lines = [f"{title}: one threshold for all, T = {found['threshold']:.4f} ({found['rule']})"]
    lines += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(2, "-" * max(map(len, lines[1:])))
    if len(across) > MOST_ACROSS:
        lines.append(f"... and {len(across) - MOST_ACROSS} couples of groups with lower FMR, in metrics.json")
    lines += [_sentence(rate.upper(), found["summary"][rate]) for rate in ("fnmr", "fmr")]
    if found["summary"]["garbe"] is not None:
        lines.append(f"GARBE (mean of both Gini coefficients) {found['summary']['garbe']:.3f}")
    if any(not cell[f"{rate}_supported"] for cell in (*found["groups"], *across) for rate in ("fnmr", "fmr")):
        lines.append(f"{MARK} fewer than {RULE_OF_THIRTY} errors: too few to compare groups by")
    return "\n".join(lines)


def _row(name: str, cell: dict[str, Any]) -> tuple[str, ...]:
    row = [name]
    for rate, count in (("fnmr", "genuine"), ("fmr", "impostors")):
        if cell[rate] is None:
            row += ["0", "  -", ""]
            continue
        low, high = cell[f"{rate}_interval"]
        mark = " " if cell[f"{rate}_supported"] else MARK
        row += [f"{cell[count]:,}", f"{mark} {cell[rate]:.4f} [{low:.4f}, {high:.4f}]", f"{cell[f'{rate}_errors']:,}"]
    return tuple(row)


def _sentence(rate: str, spread: dict[str, Any]) -> str:
    left_out = f"; left out: {', '.join(spread['left_out'])}" if spread["left_out"] else ""
    if spread["ratio"] is None:
        return f"{rate}: groups are not compared, fewer than two have {RULE_OF_THIRTY} errors"
    highest, lowest = spread["highest"], spread["lowest"]
    return f"{rate}: {highest} / {lowest} = {spread['ratio']:.2f}, Gini {spread['gini']:.3f}{left_out}"
