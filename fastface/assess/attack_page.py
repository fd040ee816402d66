"""Figures of attack detection -> one HTML page to look at, with the attacks accepted and the live faces refused."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fastface import __version__
from fastface.assess.attack_sets import ScoredSet
from fastface.data.headers import Rejected
from fastface.metrics.attack_picture import Judged
from fastface.metrics.attack_report import SPECIES_HEADER, figure_rows, notes_on, species_rows
from fastface.metrics.page import (
    Face,
    Html,
    escape,
    file_uri,
    folded,
    heading,
    jpeg_uri,
    paragraph,
    picture,
    section,
    strip,
    table,
    tiles,
    write_page,
)

MOST_FACES = 16  # errors of a kind shown of a model


def write_page_of(path: Path, curves: Path, scored: ScoredSet, judged: Mapping[str, Judged], printed: str) -> None:
    """Write the page of models by name; curves: their picture; printed: the report as text, folded at the end."""
    results = {name: one.figures for name, one in judged.items()}
    first = next(iter(results.values()))
    metrics, live = first.metrics, first.details["bona_fide"]
    shown = [
        (_percent(metrics["apcer"]), f"APCER, worst attack: {first.details['worst_species']}"),
        (_percent(metrics["bpcer"]), "BPCER, live refused"),
        (_percent(metrics["acer"]), "ACER"),
        (_percent(metrics["eer"]), "equal error rate"),
        (f"{metrics['auc']:.5f}", "AUC"),
        (live["presentations"], "live presentations"),
        (first.details["num_presentations"] - live["presentations"], "attack presentations"),
    ]
    rows = [[row[0], *row[1:]] for row in figure_rows(results)]
    parts: list[Html] = [
        tiles(shown),
        section(
            "Figures",
            table(["", *results], rows),
            *(paragraph(note, soft=True) for note in notes_on(results)),
        ),
        section("Scores and errors", picture(file_uri(curves), "scores by attack, error rates, APCER by attack")),
    ]
    for name, one in judged.items():
        about = f": {name}" if len(judged) > 1 else ""
        parts.append(section(f"By attack{about}", table(["kind", *SPECIES_HEADER[1:]], species_rows(one.figures))))
    for name, one in judged.items():
        about = f": {name}" if len(judged) > 1 else ""
        parts.append(section(f"Worst errors{about}", *errors(scored, one)))
    parts.append(section("As text", folded("the report as it was printed", Html(f"<pre>{escape(printed)}</pre>"))))
    title = f"Attack detection: {scored.index.path.name}"
    write_page(path, title, *parts, lead=f"{scored.about}. fastface {__version__}.")


def errors(scored: ScoredSet, judged: Judged) -> list[Html]:
    """Show, at the threshold in use, the attacks of each species that score highest and the live that score lowest."""
    presented, details = judged.presented, judged.figures.details
    accepted = presented.scores.astype(np.float64) >= details["threshold"]
    parts = [paragraph(f"At the threshold {details['threshold']:.4f}. Of a clip, its first frame is shown.")]
    refused = np.flatnonzero(presented.live & ~accepted)
    refused = refused[np.argsort(presented.scores[refused], kind="stable")]
    parts.append(heading(f"Live faces refused, least live first: {len(refused):,} of {int(presented.live.sum()):,}"))
    parts.append(strip(_face(scored, judged, i) for i in refused[:MOST_FACES].tolist()))
    for group in sorted(details["species"], key=lambda group: (-group["rate"], group["name"])):
        mine = presented.species == presented.attacks.index(group["name"])
        wrong = np.flatnonzero(mine & accepted)
        wrong = wrong[np.argsort(-presented.scores[wrong], kind="stable")]
        about = f"Accepted attacks, {group['name']}, the most live first"
        parts.append(heading(f"{about}: {len(wrong):,} of {int(mine.sum()):,}"))
        parts.append(strip(_face(scored, judged, i) for i in wrong[:MOST_FACES].tolist()))
    return parts


def _face(scored: ScoredSet, judged: Judged, i: int) -> Face:
    images, row = scored.first.images, int(scored.first.records[judged.presented.rows[i]])
    score = float(judged.presented.scores[i])
    caption = f"{score:.3f} {images.name(row)}" if np.isfinite(score) else f"no answer {images.name(row)}"
    try:
        return Face(jpeg_uri(images.load(row)), caption, "bad")
    except (Rejected, OSError) as error:
        return Face("", f"{caption}: {error}", "bad")


def _percent(rate: float) -> str:
    return f"{100 * rate:.2f} %"
