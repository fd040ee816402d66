"""Two models on the same pairs -> how they differ, and whether more than by chance.

Both are drawn together (`bootstrap`), so what makes a pair hard for both cancels. Where persons are not known, pairs
are drawn in their place, which is the least the interval can be.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastface.metrics.bootstrap import METHOD, bootstrap, num_replicates
from fastface.metrics.curve import Curve, area, check_scores, curve, equal_error, tar_at
from fastface.metrics.drop import change

BY_PAIRS = "double-or-nothing bootstrap over pairs, taken as independent"


def compare(
    scores: np.ndarray,
    accepted: np.ndarray,
    same: np.ndarray,
    *,
    persons: np.ndarray | None = None,
    targets: Sequence[float] = (1e-2, 1e-3),
) -> dict[str, Any]:
    """Return first minus second model in accuracy, AUC, EER and TAR, with 95 % intervals and McNemar's test, for JSON.

    scores [2, P], accepted bool [2, P] (the held-out decisions), same bool [P], persons int64 [2, P]. A difference is
    called significant where its interval leaves out 0. Raises ValueError as `check_scores`.
    """
    rows = np.stack([check_scores(row, same)[0] for row in scores])
    same = np.asarray(same, dtype=bool)
    drawn = persons if persons is not None else np.tile(np.arange(len(same)), (2, 1))
    replicates = num_replicates(len(same))

    def figures(curves: list[Curve]) -> list[float]:
        first, second = (
            [area(points), equal_error(points)[0], *(tar_at(points, target) for target in targets)] for points in curves
        )
        return [a - b for a, b in zip(first, second, strict=True)]

    def accuracies(curves: list[Curve]) -> list[float]:
        first, second = (_accuracy(points, float(same.mean())) for points in curves)
        return [first - second]

    found: dict[str, Any] = {}
    for names, values, rule in (
        (["acc"], accepted.astype(np.float32), accuracies),
        (["auc", "eer", *(f"tar_{target:.0e}".replace("e-0", "e-") for target in targets)], rows, figures),
    ):
        differences = rule([curve(row, same) for row in values])
        limits = bootstrap(values, same, drawn, rule, replicates=replicates)
        for k, (name, difference) in enumerate(zip(names, differences, strict=True)):
            interval = None if limits is None else limits[k].tolist()
            apart = None if interval is None else bool(interval[0] > 0 or interval[1] < 0)
            found[name] = {"difference": difference, "interval": interval, "significant": apart}
    return {
        "figures": found,
        "method": METHOD if persons is not None else BY_PAIRS,
        "replicates": replicates,
        "mcnemar": mcnemar(*(accepted == same)),
    }


def mcnemar(first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    """Test whether one of two models is right more often than the other on the same pairs; bool [P] each.

    The exact test of McNemar (1947): of the pairs that only one got right, half are expected to be each one's. It takes
    pairs as independent.
    """
    changed = change(first, second)
    return {"only_first": changed.lost, "only_second": changed.gained, "p_value": changed.p_value}


def _accuracy(decided: Curve, share: float) -> float:
    """Return the accuracy of decisions that were scored 1 for accepted and 0 for rejected.

    share is that of genuine pairs among all: persons drawn keep more of their genuine pairs than of the others.
    """
    k = max(0, int((decided.thresholds >= 1).sum()) - 1)
    return float(share * decided.tar[k] + (1 - share) * (1 - decided.fmr[k]))


def format_comparison(first: str, second: str, found: dict[str, Any]) -> str:
    """Return a few lines for the terminal."""
    lines = [f"{first} minus {second}, on the same pairs (95 %, {found['replicates']:,} draws: {found['method']})"]
    for name, figure in found["figures"].items():
        text = f"  {name:9} {figure['difference']:+.4f}"
        if figure["interval"] is not None:
            low, high = figure["interval"]
            text += f" [{low:+.4f}, {high:+.4f}]" + ("" if figure["significant"] else "  not told apart")
        lines.append(text)
    test = found["mcnemar"]
    lines.append(
        f"  McNemar   p = {test['p_value']:.2g}: only {first} right on {test['only_first']:,} pairs, "
        f"only {second} on {test['only_second']:,}; pairs taken as independent"
    )
    return "\n".join(lines)
