"""Two models on the same presentations -> how they differ in attack detection, and whether more than by chance."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastface.metrics.attack_intervals import BY_PERSONS, BY_PRESENTATIONS, limits_of
from fastface.metrics.attack_picture import Judged
from fastface.metrics.report import align

SHOWN = ("acer", "hter", "eer", "auc", "bpcer20")


def compare_attacks(first: Judged, second: Judged) -> dict[str, Any]:
    """Return first minus second in every figure, with 95 % intervals where both were drawn, for JSON.

    Both are drawn together, so what makes a person hard for both cancels. A difference is called significant where its
    interval leaves out 0.
    """
    assert np.array_equal(first.presented.rows, second.presented.rows), "figures of different presentations"
    draws = first.figures.draws, second.figures.draws
    limits = None
    if draws[0] is not None and draws[1] is not None and draws[0].shape == draws[1].shape:
        limits = limits_of(draws[0] - draws[1], first.figures.metrics)
    figures = {}
    for name, value in first.figures.metrics.items():
        interval = None if limits is None else limits[name]
        apart = None if interval is None else interval[0] > 0 or interval[1] < 0
        difference = value - second.figures.metrics[name]
        figures[name] = {"difference": difference, "interval": interval, "significant": apart}
    method = BY_PRESENTATIONS if first.presented.persons is None else BY_PERSONS
    return {"figures": figures, "method": method, "replicates": first.figures.details["replicates"]}


def format_comparisons(first: str, compared: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a table of the differences to each other model, and how they were found."""
    rows = [[f"{first} minus", *(name.upper() for name in SHOWN)]]
    for other, found in compared.items():
        rows.append([other, *(_cell(found["figures"][name]) for name in SHOWN)])
    methods = sorted({f"{found['method']}, {found['replicates']:,} draws" for found in compared.values()})
    return "\n".join([*align(rows), f"* beyond chance: the 95 % interval leaves out 0 ({'; '.join(methods)})"])


def _cell(figure: Mapping[str, Any]) -> str:
    text = f"{figure['difference']:+.4f}"
    if figure["interval"] is None:
        return text
    low, high = figure["interval"]
    return f"{text} [{low:+.4f}, {high:+.4f}]{' *' if figure['significant'] else ''}"
