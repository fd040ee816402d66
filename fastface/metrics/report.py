"""Figures of several embedders or sets -> one aligned text table for the terminal."""

from collections.abc import Mapping
from typing import Any, Protocol


class Figures(Protocol):
    """What a table needs of a result."""

    @property
    def metrics(self) -> dict[str, float]: ...

    @property
    def details(self) -> dict[str, Any]: ...


SHOWN = (1e-1, 1e-2, 1e-3)  # lower rates are shown where the impostors support them
MARK = "!"


def format_report(results: Mapping[str, Figures]) -> str:
    """Return a table of figures (rows) by results (columns), then notes on how to read it."""
    if not results:
        raise ValueError("There are no results to print.")
    details = [result.details for result in results.values()]
    rows: list[list[str]] = [["", *results]]
    rows.append(["pairs", *(f"{d['num_genuine']:,} genuine, {d['num_impostors']:,} impostor" for d in details)])
    rows.append(["accuracy", *(_accuracy(result) for result in results.values())])
    rows.append(
        [
            "  std, std. error",
            *(f"{r.metrics['acc_std']:.4f}, {r.metrics['acc_se']:.4f}" for r in results.values()),
        ]
    )
    rows.append(["  best, optimistic", *(f"{d['accuracy_optimistic']['acc_best']:.4f}" for d in details)])
    rows.append(["AUC", *(_figure(result, "auc", 5) for result in results.values())])
    rows.append(["EER", *(_figure(result, "eer", 4) for result in results.values())])
    marked = False
    for target in _targets(details):
        cells = [_point(d, target) for d in details]
        marked |= any(cell.startswith(MARK) for cell in cells)
        rows.append([f"TAR at FAR {target:.0e}".replace("e-0", "e-"), *cells])
    rows.append(["loss", *(_figure(result, "loss", 4) for result in results.values())])
    if any(_failed(d) for d in details):
        rows.append(["failed pairs", *(str(_failed(d)) for d in details)])
    return "\n".join([*align(rows), "", *_notes(details, marked)])


def align(rows: list[list[str]]) -> list[str]:
    cells = [[row[0], *(cell if cell[:1] == MARK else f"  {cell}" for cell in row[1:])] for row in rows]
    widths = [max(len(row[c]) for row in cells) for c in range(len(cells[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def _accuracy(result: Figures) -> str:
    low, high = result.details["accuracy"]["interval"]
    if "compat" in result.details:
        return f"{result.metrics['acc']:.4f} (exact: {result.details['accuracy']['mean']:.4f})"
    return f"{result.metrics['acc']:.4f} [{low:.4f}, {high:.4f}]"


def _figure(result: Figures, key: str, digits: int) -> str:
    return f"{result.metrics[key]:.{digits}f}" if key in result.metrics else "-"


def _targets(details: list[dict[str, Any]]) -> list[float]:
    points = [point for d in details for point in d["tar_at_far"]["points"]]
    return sorted({p["target_fmr"] for p in points if p["supported"] or p["target_fmr"] in SHOWN}, reverse=True)


def _point(details: dict[str, Any], target: float) -> str:
    for point in details["tar_at_far"]["points"]:
        if point["target_fmr"] == target:
            low, high = point["tar_interval"]
            text = f"{point['tar']:.4f} [{low:.4f}, {high:.4f}] {point['errors']:,}/{point['impostors']:,}"
            return text if point["supported"] else f"{MARK} {text}"
    return "-"


def _failed(details: dict[str, Any]) -> int:
    return details["failures"]["genuine"] + details["failures"]["impostors"]


def _notes(details: list[dict[str, Any]], marked: bool) -> list[str]:
    folds = sorted({len(d["accuracy"]["folds"]) for d in details})
    count = " or ".join(str(n) for n in folds)
    notes = [f"accuracy: mean of {count} folds, exact threshold chosen on the other folds; the highest of equals"]
    if any("compat" in d for d in details):
        notes = ["accuracy: InsightFace's rule (squared distance, grid of 0.01); in brackets by exact thresholds"]
    notes.append(f"TAR: {details[0]['tar_at_far']['rule']}; errors/impostors behind it")
    notes.append("[low, high]: 95 % Wilson interval, pairs taken as independent (persons recur, so it is the least)")
    if not all(d["num_genuine"] and d["num_impostors"] for d in details):
        notes.append("-: these figures need both genuine and impostor pairs; accuracy on one kind says little")
    if marked:
        notes.append(f"{MARK} unsupported: fewer than 30 impostor errors expected at this rate, so take it as a guess")
    if any(_failed(d) for d in details):
        notes.append("failed pairs: a picture or embedding failed; genuine ones count as false non-matches")
        for d in details:
            for entry in d.get("failed_images", {}).get("first", [])[:3]:
                notes.append(f"  {entry['name']}: {entry['reason']}")
    return notes
