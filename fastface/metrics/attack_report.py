"""Figures of attack detection -> a table of models, a table of species, and notes on how to read them."""

from collections.abc import Mapping
from typing import Any

from fastface.metrics.attacks import OWN_EER, AttackFigures
from fastface.metrics.curve import RULE_OF_THIRTY
from fastface.metrics.report import MARK, align

AT_THRESHOLD = ("acer", "apcer", "bpcer", "hter", "acc")  # the others choose thresholds of their own
TEST_EER = "test_eer"
TITLES = {
    "apcer": "APCER, worst attack",
    "bpcer": "BPCER",
    "acer": "ACER",
    "hter": "HTER, attacks pooled",
    "acc": "accuracy",
    "eer": "EER",
    "auc": "AUC",
    "bpcer10": "BPCER10 (APCER <= 10 %)",
    "bpcer20": "BPCER20 (APCER <= 5 %)",
    "bpcer100": "BPCER100 (APCER <= 1 %)",
}


def flatters(figures: AttackFigures) -> bool:
    """Say whether the threshold was chosen on the presentations that it is judged by."""
    return figures.details["threshold_rule"] == OWN_EER


def named_metrics(figures: AttackFigures) -> dict[str, float]:
    """Return the metrics, with a name of their own where the threshold was chosen on these presentations."""
    marked = AT_THRESHOLD if flatters(figures) else ()
    return {f"{key}_{TEST_EER}" if key in marked else key: value for key, value in figures.metrics.items()}


def format_attacks(results: Mapping[str, AttackFigures]) -> str:
    """Return all tables and notes for models by name, each on the same presentations."""
    first = next(iter(results.values()))
    lines = align([["", *results], *figure_rows(results)])
    for name, figures in results.items():
        lines += ["", f"by attack{f', {name}' if len(results) > 1 else ''}:"]
        lines += align([list(SPECIES_HEADER), *species_rows(figures)])
    lines += ["", *notes_on(results)]
    points = first.details["bpcer_at_apcer"]
    if weak := [point["name"].upper() for point in points if not point["supported"]]:
        lines.append(
            f"{MARK} {', '.join(weak)}: fewer than {RULE_OF_THIRTY} errors are expected of some attack: a guess"
        )
    return "\n".join(lines)


def figure_rows(results: Mapping[str, AttackFigures]) -> list[list[str]]:
    """Return a row per figure: its name, and what each model has of it."""
    rows = [["threshold", *(f"{figures.details['threshold']:.4f}" for figures in results.values())]]
    own = any(flatters(figures) for figures in results.values())
    for key, title in TITLES.items():
        title += " (test-EER threshold)" if own and key in AT_THRESHOLD else ""
        rows.append([title, *(_cell(figures, key) for figures in results.values())])
    return rows


def _cell(figures: AttackFigures, key: str) -> str:
    details, digits = figures.details, 5 if key == "auc" else 4
    limits = (details["intervals"] or {}).get(key)
    if key == "bpcer":  # a single rate: Wilson's interval is the better one
        limits = details["bona_fide"]["interval"]
    if key == "apcer" and not limits:  # that of the species alone: nothing is said of its being the worst
        limits = next(g["interval"] for g in details["species"] if g["name"] == details["worst_species"])
    supported = all(point["supported"] for point in details["bpcer_at_apcer"] if point["name"] == key)
    text = f"{figures.metrics[key]:.{digits}f}"
    text += f" [{limits[0]:.{digits}f}, {limits[1]:.{digits}f}]" if limits else ""
    text += f" {details['worst_species']}" if key == "apcer" else ""
    return text if supported else f"{MARK} {text}"


SPECIES_HEADER = ("", "presentations", "persons", "errors", "rate", "95 %", "no answer")


def species_rows(figures: AttackFigures) -> list[list[str]]:
    """Return a row for live faces (BPCER), then one of each attack (APCER), with counts and intervals."""
    return [_group_row(group) for group in (figures.details["bona_fide"], *figures.details["species"])]


def _group_row(group: Mapping[str, Any]) -> list[str]:
    low, high = group["interval"]
    return [
        group["name"],
        f"{group['presentations']:,}",
        "-" if group["persons"] is None else f"{group['persons']:,}",
        f"{group['errors']:,}",
        f"{group['rate']:.4f}",
        f"[{low:.4f}, {high:.4f}]",
        f"{group['non_responses']:,}",
    ]


def notes_on(results: Mapping[str, AttackFigures]) -> list[str]:
    """Return sentences on where thresholds and intervals come from."""
    notes = ["accepted as live iff score >= threshold; APCER: attacks accepted, the worst species; BPCER: live refused"]
    rules = {name: figures.details["threshold_rule"] for name, figures in results.items()}
    if len(set(rules.values())) == 1:
        notes.append(f"threshold: {next(iter(rules.values()))}")
    else:
        notes += [f"threshold of {name}: {rule}" for name, rule in rules.items()]
    if any(flatters(figures) for figures in results.values()):
        notes.append(f"{MARK} a threshold chosen on the test set is no result to report: give --threshold-from dev")
    details = [figures.details for figures in results.values()]
    methods = {group["interval_method"] for d in details for group in (d["bona_fide"], *d["species"])}
    notes.append(f"[low, high]: 95 %; of single rates {', or '.join(sorted(methods))}")
    for method, replicates in sorted({(d["intervals_method"], d["replicates"]) for d in details if d["intervals"]}):
        notes.append(f"  of the other figures {method}, {replicates:,} draws")
    if any(d["replicates"] and not d["intervals"] for d in details):
        notes.append("  the other figures have none: too few persons to draw from")
    if any(group["non_responses"] for d in details for group in (d["bona_fide"], *d["species"])):
        notes.append("no answer: images without a score, refused at every threshold (APNRR and BPNRR in metrics.json)")
    return notes
