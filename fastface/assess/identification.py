"""Folders of embeddings -> a report of identification, metrics.json and a picture: who is found in a gallery."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastface import checkpoint
from fastface.data.embeddings import Embeddings, open_embeddings
from fastface.metrics.curve import RULE_OF_THIRTY
from fastface.metrics.identification import TARGETS, Identification, exponent, identification
from fastface.metrics.identification_picture import identification_picture
from fastface.mining.gallery import Searched, Template, draw_gallery, search_distractors, search_gallery
from fastface.mining.search import Kind


def assess_identification(
    embeddings: Path,
    *,
    distractors: Path | None = None,
    gallery_images: int = 1,
    template: Template = "max",
    unenrolled: float | None = None,
    index: Kind = "flat",
    candidates: int = 50,
    rank: int = 1,
    targets: Sequence[float] = TARGETS,
    seed: int = 0,
    device: str = "cpu",
    out: Path | None = None,
) -> str:
    """Search a gallery for the images of a folder, write everything down, return what belongs on the screen.

    The gallery is drawn from the folder (`draw_gallery`), or it is that of `distractors`, with one image of the person
    put in at a time. Written to `out`, or to FOLDER/identification (with distractors: identification-THEIRS).

    Raises:
        ValueError: for folders that are missing or do not fit each other, and for galleries that cannot be drawn.
    """
    probes = open_embeddings(embeddings)
    centre = bool(probes.meta.get("model", {}).get("centre", False))
    rules: dict[str, Any] = {
        "kind": index,
        "listed": candidates,
        "centre": centre,
        "gpu": device != "cpu",
        "seed": seed,
    }
    notes = ["the mean of the gallery is subtracted from all embeddings, as the model asks for"] if centre else []
    if distractors is None:
        split = draw_gallery(probes.labels, images=gallery_images, unenrolled=unenrolled, seed=seed)
        searched = search_gallery(probes.rows, probes.labels, split, template=template, **rules)
        each = f"{gallery_images} image{'s' * (gallery_images > 1)} each"
        each += f" ({'best score' if template == 'max' else 'mean template'})" if gallery_images > 1 else ""
        gallery = f"{searched.enrolled:,} identities, {each}, drawn with seed {seed}"
    else:
        if gallery_images != 1 or template != "max" or unenrolled is not None:
            raise ValueError("among --distractors one image is enrolled at a time: leave out the options of a gallery")
        others = open_embeddings(distractors)
        notes += check_distractors(probes, others)
        searched = search_distractors(probes.rows, probes.labels, others.rows, **rules)
        gallery = f"{len(others):,} distractors of {others.path}, and one image of the person at a time"
    found = identification(searched.searches, targets=targets, rank=rank)
    name = "identification" if distractors is None else f"identification-{distractors.name}"
    folder = out or embeddings / name
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "embeddings": str(embeddings),
        "distractors": None if distractors is None else str(distractors),
        "model": {key: probes.meta.get(key) for key in ("origin", "model")},
        "gallery": {"about": gallery, "enrolled": searched.enrolled, "images": gallery_images, "template": template},
        "index": {"kind": index, "recall_at_10": searched.recall, "searches_per_s": searched.per_second},
        "seed": seed,
        "centre": centre,
        "notes": notes,
    }
    checkpoint.write_json(folder / "metrics.json", {**about, "metrics": found.metrics, "details": found.details})
    picture = f"{embeddings.name}: {searched.enrolled:,} enrolled"
    identification_picture(folder / "identification.png", {embeddings.name: searched.searches}, title=picture)
    text = format_identification(found, searched, gallery, index, notes)
    text = f"{embeddings}: {len(probes):,} images of {len(probes.classes):,} identities\n{text}"
    (folder / "report.txt").write_text(text + "\n", encoding="utf-8")
    return f"{text}\nwritten: {folder}/metrics.json, report.txt, identification.png"


def check_distractors(probes: Embeddings, others: Embeddings) -> list[str]:
    """Raise a ValueError where two folders cannot be compared; return a note where persons may be in both."""
    if probes.rows.shape[1] != others.rows.shape[1] or probes.meta.get("model") != others.meta.get("model"):
        raise ValueError(
            f"{others.path} is not of the model of {probes.path} (weights, flip, normalisation): embed both by the same"
        )
    if probes.dataset_id == others.dataset_id:
        raise ValueError(f"{others.path} holds the images of {probes.path}: nobody's image is a distractor to himself")
    counts = np.bincount(probes.labels, minlength=len(probes.classes))
    searched = {probes.classes[int(i)] for i in np.flatnonzero(counts > 1)}
    shared = sum(name in searched for name in others.classes)
    if not shared:
        return []
    return [
        f"! {shared:,} distractor identities bear the name of a searched one: where they are the same, they are mates"
    ]


def format_identification(
    found: Identification, searched: Searched, gallery: str, index: Kind, notes: Sequence[str]
) -> str:
    """Return the figures as text, each rate with its interval and its counts."""
    details = found.details
    exact = "exact" if index == "flat" else f"recall@10 {searched.recall:.4f}"
    lines = [f"gallery   {gallery}"]
    lines += [f"index     {index} ({exact}), {searched.per_second:,.0f} searches/s"]
    lines += [f"searches  {details['mated']:,} mated, {details['non_mated']:,} non-mated", ""]
    for row in details["ranks"]:
        low, high = row["interval"]
        tail = f"{row['hits']:,}/{details['mated']:,}" + _strict(row)
        lines.append(f"  rank {row['rank']:<14} {row['rate']:.4f} [{low:.4f}, {high:.4f}]  {tail}")
    opened = details["tpir_at_fpir"]
    for point in opened["points"]:
        low, high = point["tpir_interval"]
        mark = " " if point["supported"] else "!"
        alarms = f"{point['errors']:,}/{details['non_mated']:,} false alarms at {point['threshold']:.4f}"
        name = f"TPIR at FPIR {exponent(point['target_fpir'])}"
        lines.append(f"{mark} {name:<19} {point['tpir']:.4f} [{low:.4f}, {high:.4f}]  {alarms}")
    lines += ["", f"ties: {details['ties']}"]
    if opened["points"]:
        lines.append(f"TPIR: mate within rank {opened['rank']} and at or above T; {opened['rule']}")
    else:
        lines.append(
            "no FPIR: every search has a mate; --unenrolled 0.2 keeps a fifth of the identities out of the gallery"
        )
    lines.append("[low, high]: 95 % Wilson interval, by the effective number of searches, since persons recur")
    if not all(point["supported"] for point in opened["points"]):
        lines.append(
            f"! unsupported: fewer than {RULE_OF_THIRTY} false alarms expected at this rate, so take it as a guess"
        )
    if details["mated_without_a_score"]:
        count = f"{details['mated_without_a_score']:,} mated searches"
        lines.append(
            f"{count} have no score for their mate (a failed image, or beyond the candidates): they are misses"
        )
    return "\n".join([*lines, *notes])


def _strict(row: dict[str, Any]) -> str:
    return "" if row["strict_hits"] == row["hits"] else f", {row['strict_hits']:,} where ties lose"
