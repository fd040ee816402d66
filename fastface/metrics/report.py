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
    return "\n".join([*align([["", *results], *figure_rows(results)]), "", *notes_on(results)])


def figure_rows(results: Mapping[str, Figures]) -> list[list[str]]:
    """Return a row per figure: its name, and what each result has of it, with intervals."""
    details = [result.details for result in results.values()]
    rows: list[list[str]] = []
    rows.append(["pairs", *(f"{d['num_genuine']:,} genuine, {d['num_impostors']:,} impostor" for d in details)])
    rows += _accuracy_rows(list(results.values()))
    rows.append(["AUC", *(_figure(d, "auc", 5) for d in details)])
    rows.append(["EER", *(_figure(d, "eer", 4) for d in details)])
    rows.append(["  of the convex hull", *(_figure(d, "eer_hull", 4) for d in details)])
    tars, fnmrs = operating_rows(details)
    rows += [*tars, *fnmrs]
    if any("accuracy" in d for d in details):
        rows.append(["loss", *(f"{r.metrics['loss']:.4f}" if "loss" in r.metrics else "-" for r in results.values())])
    if any(_failed(d) for d in details):
        rows.append(["failed pairs", *(str(_failed(d)) for d in details)])
    return rows


def _accuracy_rows(results: list[Figures]) -> list[list[str]]:
    """Return what folds give; no rows where no result has any."""
    details = [result.details for result in results]
    if not all("accuracy" in d for d in details):
        return []
    return [
        ["accuracy", *(_accuracy(result) for result in results)],
        ["  std, std. error", *(f"{r.metrics['acc_std']:.4f}, {r.metrics['acc_se']:.4f}" for r in results)],
        ["  best, optimistic", *(f"{d['accuracy_optimistic']['acc_best']:.4f}" for d in details)],
        ["  precision, recall, F1", *(_decisions(d) for d in details)],
    ]


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


def _decisions(details: dict[str, Any]) -> str:
    shares = (details["decisions"][key] for key in ("precision", "recall", "f1"))
    return ", ".join("-" if share is None else f"{share:.4f}" for share in shares)


def _figure(details: dict[str, Any], key: str, digits: int) -> str:
    if key not in details:
        return "-"
    text = f"{details[key]['value']:.{digits}f}"
    interval = details[key]["interval"]
    return text if interval is None else f"{text} [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"


def operating_rows(details: list[dict[str, Any]]) -> tuple[list[list[str]], list[list[str]]]:
    """Return rows of TAR at FAR and rows of FNMR at FMR; cells begin with MARK where the data do not support them."""
    points = [point for d in details for point in d["tar_at_far"]["points"]]
    shown = sorted({p["target_fmr"] for p in points if p["supported"] or p["target_fmr"] in SHOWN}, reverse=True)
    tars, fnmrs = [], []
    for target in shown:
        at = f"{target:.0e}".replace("e-0", "e-")
        tars.append([f"TAR at FAR {at}", *(_point(d, target, "tar") for d in details)])
        fnmrs.append([f"FNMR at FMR {at}", *(_point(d, target, "fnmr") for d in details)])
    return tars, fnmrs


def _point(details: dict[str, Any], target: float, key: str) -> str:
    for point in details["tar_at_far"]["points"]:
        if point["target_fmr"] == target:
            low, high = point[f"{key}_interval"]
            text = f"{point[key]:.4f} [{low:.4f}, {high:.4f}]"
            text += f" {point['errors']:,}/{point['impostors']:,}" if key == "tar" else ""
            return text if point["supported"] else f"{MARK} {text}"
    return "-"


def _failed(details: dict[str, Any]) -> int:
    return details["failures"]["genuine"] + details["failures"]["impostors"]


def interval_notes(details: list[dict[str, Any]]) -> list[str]:
    """Say how the intervals were found, and where they allow for persons who recur in the pairs."""
    notes, told = [], [d["intervals"] for d in details if "intervals" in d]
    persons = sorted({i["persons"] for i in told if i["persons"] is not None})
    if persons:
        number = " or ".join(f"{n:,}" for n in persons)
        text = (
            f"[low, high]: 95 %, for {number} persons who recur: accuracy by Wilson with the effective number of pairs"
        )
        draws = sorted({i["bootstrap"]["replicates"] for i in told if i["bootstrap"] is not None})
        drawn = " or ".join(f"{n:,}" for n in draws)
        notes.append(f"{text}; AUC, EER, TAR, FNMR by {drawn} draws of persons" if draws else text)
    if len(told) < len(details) or any(i["persons"] is None for i in told):
        reason = next((d["persons"]["why_not"] for d in details if d.get("persons", {}).get("why_not")), None)
        text = "[low, high]: 95 % by Wilson, pairs taken as independent: if persons recur it is wider"
        notes.append(f"{text} ({reason})" if reason else text)
    return notes


def notes_on(results: Mapping[str, Figures]) -> list[str]:
    """Return sentences on how to read the figures, and the first failed images."""
    details = [result.details for result in results.values()]
    folds = sorted({len(d["accuracy"]["folds"]) for d in details if "accuracy" in d})
    count = " or ".join(str(n) for n in folds)
    notes = [f"accuracy: mean of {count} folds, exact threshold chosen on the other folds; the highest of equals"]
    if any("compat" in d for d in details):
        notes = ["accuracy: InsightFace's rule (squared distance, grid of 0.01); in brackets by exact thresholds"]
    if not folds:
        notes = []
    notes.append(f"TAR: {details[0]['tar_at_far']['rule']}; errors/impostors behind it")
    if any("points" in d["tar_at_far"] and d["tar_at_far"]["points"] for d in details):
        notes.append(f"FNMR: {details[0]['tar_at_far']['fnmr_rule']}")
    notes += interval_notes(details)
    if not all(d["num_genuine"] and d["num_impostors"] for d in details):
        notes.append("-: these figures need both genuine and impostor pairs; accuracy on one kind says little")
    if any(cell.startswith(MARK) for row in operating_rows(details)[0] for cell in row):
        notes.append(f"{MARK} unsupported: fewer than 30 impostor errors expected at this rate, so take it as a guess")
    if any(_failed(d) for d in details):
        notes.append("failed pairs: a picture or embedding failed; genuine ones count as false non-matches")
        for d in details:
            for entry in d.get("failed_images", {}).get("first", [])[:3]:
                notes.append(f"  {entry['name']}: {entry['reason']}")
    return notes
