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

    A line is an image, or a clip by the name of its first frame where a model judges clips. Scores have nine digits,
    which give every float32 back; where there is none the cell is empty.
    """
    first, index = scored.first, scored.index
    attack = first.attack or [UNNAMED] * len(first.live)
    rows = np.arange(len(first.live))
    more: dict[str, list[str]] = {}
    if first.clip is not None:
        more["clip"] = [str(number) for number in first.clip.tolist()]
    if first.persons is not None:
        more["subject"] = scored.values("subject", rows).tolist()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "live", "attack", *more, *scored.scores])
    every = [values.tolist() for values in scored.scores.values()]
    for i in rows.tolist():
        live = bool(first.live[i])
        cells = [f"{values[i]:.9g}" if np.isfinite(values[i]) else "" for values in every]
        known = [values[i] for values in more.values()]
        writer.writerow(
            [index.name(int(first.records[i])), int(live), NO_ATTACK if live else attack[i], *known, *cells]
        )
    write_durably(path, text.getvalue().encode("utf-8", "surrogateescape"))
