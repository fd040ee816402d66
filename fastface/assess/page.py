"""Figures of one or several models on pairs -> one HTML page to be looked at, with the faces behind the errors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastface import __version__
from fastface.data.headers import Rejected
from fastface.data.image_sets import ImageSet
from fastface.evaluation import Result
from fastface.evaluators import PairSet
from fastface.metrics.calibration import cllr, ece, held_out_llrs, min_cllr
from fastface.metrics.calibration_picture import calibration_picture
from fastface.metrics.curve import RULE_OF_THIRTY, curve, equal_error
from fastface.metrics.page import (
    Face,
    Html,
    file_uri,
    finding,
    findings,
    folded,
    heading,
    jpeg_uri,
    paragraph,
    picture,
    section,
    table,
    tiles,
    write_page,
)
from fastface.metrics.report import MARK, figure_rows, notes_on
from fastface.mining.search import Search

MOST_PAIRS = 12  # errors of a kind shown of a model
PROBES, NEIGHBOURS = 8, 6


def write_report(
    path: Path,
    curves: Path,
    opened: Mapping[str, PairSet],
    results: Mapping[str, Result],
    compared: Mapping[str, Any],
    origins: Mapping[str, str],
) -> None:
    """Write the page of models by name, all on the same pairs.

    curves: the picture of ROC, scores and DET; opened: the pairs as each model saw them (the image sizes of models
    differ); compared: as `compare_with_first` gives it; origins: where models come from, without the baselines.
    """
    first = next(iter(results))
    parts: list[Html] = [
        tiles(_headline(results[first])),
        _figures(results, origins),
        *([_comparison(first, compared)] if compared else []),
        section("Curves and scores", picture(file_uri(curves), "ROC, scores, DET")),
        _thresholds(results),
        *_breakdowns(results),
        *_calibration(path.with_name("calibration.png"), results),
    ]
    for name, result in results.items():
        if name not in origins:  # of a baseline the figures are enough
            continue
        about = f": {name}" if len(origins) > 1 else ""
        parts.append(section(f"Worst errors{about}", *errors(opened[name], result.scores, result.same)))
        failed = result.details["failed_images"]
        if failed["number"]:
            listed = table(["image", "reason"], [[entry["name"], entry["reason"]] for entry in failed["first"]])
            parts.append(section(f"Images that failed{about}: {failed['number']:,}", listed))
        if result.rows is not None and result.ids is not None:
            near = _neighbours(opened[name].images, result.ids, result.rows)
            parts.append(section(f"Nearest neighbours{about}", *near))
    title = f"Verification: {opened[first].title}"
    write_page(path, title, *parts, lead=f"{opened[first].about}. fastface {__version__}.")


def _headline(result: Result) -> list[tuple[Any, str]]:
    metrics, details = result.metrics, result.details
    shown: list[tuple[Any, str]] = [(f"{100 * metrics['acc']:.2f} %", "accuracy, mean of the folds")]
    if "auc" in metrics:
        shown += [(f"{metrics['auc']:.5f}", "AUC"), (f"{100 * metrics['eer']:.2f} %", "equal error rate")]
    for point in details["tar_at_far"]["points"]:
        if point["target_fmr"] in (1e-2, 1e-3):
            doubt = "" if point["supported"] else ", a guess"
            shown.append((f"{100 * point['tar']:.2f} %", f"TAR at FAR {point['target_fmr']:g}{doubt}"))
    return [*shown, (details["num_genuine"] + details["num_impostors"], "pairs")]


def _figures(results: Mapping[str, Result], origins: Mapping[str, str]) -> Html:
    rows = figure_rows(results)
    marked = any(cell.startswith(MARK) for row in rows for cell in row)
    models = table(["model", "read from"], [[name, origins[name]] for name in results if name in origins])
    body = [table(["", *results], [[row[0].strip(), *row[1:]] for row in rows])]
    if marked:
        body.append(paragraph(f"{MARK} fewer than 30 impostor errors are expected at this rate: take it as a guess."))
    return section(
        "Figures", *body, models, folded("How to read them", *(paragraph(note) for note in notes_on(results)))
    )


def _comparison(first: str, compared: Mapping[str, Any]) -> Html:
    """Say how much the first model is better than each of the others, and whether that is more than chance."""
    lines = []
    for name, found in compared.items():
        for figure, of in found["figures"].items():
            low, high = of["interval"] or (None, None)
            between = "-" if low is None else f"{low:+.4f} to {high:+.4f}"
            verdict = {True: "yes", False: "no", None: "-"}[of["significant"]]
            lines.append([name, figure, f"{of['difference']:+.4f}", between, verdict])
    methods = sorted({found["method"] for found in compared.values()})
    about = f"{first} minus each of the others, on the same pairs; intervals: {', '.join(methods)}."
    return section("Differences", paragraph(about), table(["other", "figure", first, "95 %", "beyond chance"], lines))


def _thresholds(results: Mapping[str, Result]) -> Html:
    header = ["model", "FMR target", "threshold", "FMR", "errors / impostors", "TAR", "95 %", "supported"]
    lines = []
    for name, result in results.items():
        for point in result.details["tar_at_far"]["points"]:
            low, high = point["tar_interval"]
            if lines and lines[-1][:1] == [name] and lines[-1][2] == f"{point['threshold']:.6f}":
                continue  # no impostor is left to set a stricter one
            lines.append(
                [
                    name,
                    f"{point['target_fmr']:g}",
                    f"{point['threshold']:.6f}",
                    f"{point['fmr']:.2e}",
                    f"{point['errors']:,} / {point['impostors']:,}",
                    f"{point['tar']:.4f}",
                    f"{low:.4f} to {high:.4f}",
                    "yes" if point["supported"] else "no",
                ]
            )
    about = "The smallest threshold whose false match rate is at most the target; a pair is accepted at equality."
    return section("Thresholds", paragraph(about), table(header, lines))


def errors(opened: PairSet, scores: np.ndarray, same: np.ndarray) -> list[Html]:
    """Show the impostors that score highest and the genuine pairs that score lowest, wrong at the EER's threshold."""
    if same.all() or not same.any():
        return [paragraph("The pairs are all of one kind: there is no threshold to be wrong at.")]
    threshold = equal_error(curve(scores, same))[1]
    wrong = np.flatnonzero(np.isfinite(scores) & ~same & (scores >= threshold))
    missed = np.flatnonzero(np.isfinite(scores) & same & (scores < threshold))
    parts = [paragraph(f"At the threshold of equal rates, {threshold:.4f}.")]
    for kind, chosen, total in (
        ("False accepts, the most alike first", wrong[np.argsort(-scores[wrong], kind="stable")], int((~same).sum())),
        ("False rejects, the least alike first", missed[np.argsort(scores[missed], kind="stable")], int(same.sum())),
    ):
        parts.append(heading(f"{kind}: {len(chosen):,} of {total:,}"))
        parts.append(findings(_pair(opened, i, float(scores[i])) for i in chosen[:MOST_PAIRS].tolist()))
    return parts


def _pair(opened: PairSet, i: int, score: float) -> Html:
    ends = (int(opened.pairs.first[i]), int(opened.pairs.second[i]))
    return finding(f"{score:.4f}", [_face(opened.images, end) for end in ends])


def _neighbours(images: ImageSet, ids: np.ndarray, rows: np.ndarray) -> list[Html]:
    """Show the images that are nearest to some: those with the likest stranger first, then some drawn."""
    identities = images.identities[ids]
    found = Search(rows)(rows, NEIGHBOURS + 1)
    own = found.ids == np.arange(len(ids))[:, None]
    scores = np.where(own | (found.ids < 0), -np.inf, found.scores)
    strangers = np.where(identities[found.ids] != identities[:, None], scores, -np.inf).max(axis=1)
    hardest = np.argsort(-strangers, kind="stable")[:PROBES]
    hardest = hardest[np.isfinite(strangers[hardest])]
    drawn = np.random.default_rng(0).permutation(len(ids))[:PROBES]
    parts = []
    for about, probes in (("The likest strangers", hardest), ("Drawn at random", drawn)):
        parts.append(heading(about))
        for probe in probes.tolist():
            near = [(float(s), int(j)) for s, j in zip(scores[probe], found.ids[probe], strict=True) if np.isfinite(s)]
            faces = [_face(images, int(ids[probe]), caption="this image: ")]
            for score, j in near[:NEIGHBOURS]:
                mark = "good" if identities[j] == identities[probe] else "bad"
                faces.append(_face(images, int(ids[j]), mark=mark, caption=f"{score:.3f} "))
            parts.append(finding("", faces))
    about = "By cosine, among all images of the pairs. Green: the same identity; red: another."
    return [paragraph(about), *parts]


def _face(images: ImageSet, i: int, *, mark: str = "", caption: str = "") -> Face:
    name = images.name(i)
    try:
        return Face(jpeg_uri(images.load(i)), caption + name, mark)
    except (Rejected, OSError) as error:
        return Face("", f"{caption}{name}: {error}", mark)


def _calibration(path: Path, results: Mapping[str, Result]) -> list[Html]:
    """Draw how well probabilities fit that follow from each model's scores, each pair judged by the other folds."""
    llrs = {}
    for name, result in results.items():
        if result.folds is not None and result.same.any() and not result.same.all():
            llrs[name] = held_out_llrs(result.scores, result.same, result.folds), result.same
    if not llrs:
        return []
    calibration_picture(path, llrs)
    rows = []
    for name, (ratios, same) in llrs.items():
        there = np.isfinite(ratios)
        least = min_cllr(results[name].scores[there], same[there])
        rows.append([name, f"{cllr(ratios[there], same[there]):.4f}", f"{least:.4f}", f"{ece(ratios, same):.4f}"])
    about = (
        "Log-likelihood ratios by logistic regression on the other folds (Platt). Cllr: bits lost a decision, 1 "
        "without information; the least is what the order of the scores allows. ECE: mean gap of stated and observed."
    )
    shown = table(["model", "Cllr", "least Cllr", "ECE"], rows)
    return [section("Calibration", paragraph(about), shown, picture(file_uri(path), "calibration, and ratios"))]


def _breakdowns(results: Mapping[str, Result]) -> list[Html]:
    parts = []
    for name, result in results.items():
        for attribute, found in result.details.get("breakdown", {}).items():
            about = f"{attribute}, {name}" if len(results) > 1 else attribute
            parts.append(section(f"Breakdown: {about}", *_groups(found)))
    return parts


def _groups(found: dict[str, Any]) -> list[Html]:
    """Show the rates of each group, and of each two, at the one threshold that is in use for all."""
    header = ["group", "genuine", "FNMR", "95 %", "impostors", "FMR", "95 %"]
    across = sorted(found["across"], key=lambda cell: (-(cell["fmr"] or 0), -cell["impostors"]))
    named = [("all pairs", found["all"]), *((cell["group"], cell) for cell in found["groups"])]
    rows = [_group(name, cell) for name, cell in [*named, *((" x ".join(cell["groups"]), cell) for cell in across)]]
    parts = [paragraph(f"One threshold for all, {found['threshold']:.4f}: {found['rule']}."), table(header, rows)]
    for rate, spread in (("FNMR", found["summary"]["fnmr"]), ("FMR", found["summary"]["fmr"])):
        if spread["ratio"] is not None:
            ratio = f"{spread['highest']} / {spread['lowest']} = {spread['ratio']:.2f}"
            parts.append(paragraph(f"{rate}: {ratio}, Gini coefficient {spread['gini']:.3f}."))
    return [*parts, paragraph(f"{MARK} fewer than {RULE_OF_THIRTY} errors: too few to compare groups by.", soft=True)]


def _group(name: str, cell: dict[str, Any]) -> list[Any]:
    row: list[Any] = [name]
    for rate, count in (("fnmr", "genuine"), ("fmr", "impostors")):
        if cell[rate] is None:
            row += [0, "-", ""]
            continue
        low, high = cell[f"{rate}_interval"]
        mark = "" if cell[f"{rate}_supported"] else f"{MARK} "
        row += [cell[count], f"{mark}{cell[rate]:.4f}", f"{low:.4f} to {high:.4f}"]
    return row
