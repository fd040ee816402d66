"""Scored images -> scores.csv, a line for each, to be joined with anything else by name."""

import csv
import io
from pathlib import Path

import numpy as np

from fastface.assess.attack_sets import ScoredSet
from fastface.durable import write_durably
from fastface.metrics.presentations import NO_ATTACK, UNNAMED


def write_scores(path: Path, scored: ScoredSet) -> None:
    """Write name, live (1 or 0), attack, clip and subject where they are known, then each model's score.

    Scores have nine digits, which give every float32 back; an image without one has an empty cell.
    """
    opened, index = scored.opened, scored.index
    attack = opened.attack or [UNNAMED] * len(opened.live)
    rows = np.arange(len(opened.live))
    more: dict[str, list[str]] = {}
    if opened.clip is not None:
        more["clip"] = [str(number) for number in opened.clip.tolist()]
    if scored.persons is not None:
        more["subject"] = scored.values("subject", rows).tolist()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "live", "attack", *more, *scored.scores])
    every = [values.tolist() for values in scored.scores.values()]
    for i in rows.tolist():
        live = bool(opened.live[i])
        cells = [f"{values[i]:.9g}" if np.isfinite(values[i]) else "" for values in every]
        known = [values[i] for values in more.values()]
        writer.writerow([index.name(i), int(live), NO_ATTACK if live else attack[i], *known, *cells])
    write_durably(path, text.getvalue().encode("utf-8", "surrogateescape"))
