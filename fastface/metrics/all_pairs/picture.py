"""Histograms of all pairs -> one picture: ROC over a logarithmic axis, and the scores of both kinds of pair."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from fastface.metrics.all_pairs import AllPairs
from fastface.metrics.curve import RULE_OF_THIRTY
from fastface.metrics.drawing import INK, draw_panels, line_style
from fastface.metrics.pictures import GENUINE, IMPOSTOR

SHOWN = 160  # bins drawn: fewer than pixels


def all_pairs_picture(path: Path, found: AllPairs, title: str = "") -> None:
    """Write a PNG; its ROC has a point for each bin of 2^-15, and is dotted below 30 impostor errors."""
    draw_panels(path, [lambda axes: _roc(axes, found), lambda axes: _histogram(axes, found)], columns=2, title=title)


def _roc(axes: Axes, found: AllPairs) -> None:
    accepted = np.cumsum(found.histogram[:, ::-1], axis=1)  # from the highest bin down
    accepted = accepted[:, np.append(True, np.diff(accepted).any(axis=0))]
    tar, fmr = accepted[0] / found.num_genuine, accepted[1] / found.num_impostors
    floor = 10.0 ** np.floor(np.log10(1 / found.num_impostors))
    first = int(np.searchsorted(accepted[1], RULE_OF_THIRTY))
    for part, dashes, label in ((slice(first + 1), ":", None), (slice(first, None), "-", f"AUC {found.auc.value:.6f}")):
        style: dict[str, Any] = line_style(0) | {"linestyle": dashes}
        axes.step(np.maximum(fmr[part], floor / 10), tar[part], where="post", **style, label=label)
    axes.set_xscale("log")
    axes.set_xlim(floor, 1)
    axes.set_ylim(0, 1.01)
    axes.set_title("ROC")
    axes.set_xlabel("false accept rate (dotted: fewer than 30 errors)")
    axes.set_ylabel("true accept rate")
    axes.legend(loc="best", frameon=True, framealpha=0.85, edgecolor="none", fontsize=8.5)


def _histogram(axes: Axes, found: AllPairs) -> None:
    edges, counts = shown_histogram(found)
    kinds = ((1, IMPOSTOR, "impostor", found.num_impostors), (0, GENUINE, "genuine", found.num_genuine))
    for kind, colour, name, total in kinds:
        share, label = counts[kind] / total, f"{name} ({total:,})"
        axes.stairs(share, edges, fill=True, color=colour, alpha=0.45, label=label, zorder=2)
        axes.stairs(share, edges, color=colour, linewidth=1.2, zorder=3)
    label = f"EER {100 * found.eer:.3g} %"
    axes.axvline(found.equal_threshold, ymax=0.78, color=INK, linewidth=1.2, linestyle="--", label=label)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, axes.get_ylim()[1] * 1.25)  # room for the legend
    axes.set_title("Scores")
    axes.set_xlabel("cosine similarity")
    axes.set_ylabel("share of pairs")
    axes.legend(loc="upper center", ncols=2, frameon=False, fontsize=8.5)


def shown_histogram(found: AllPairs, bins: int = SHOWN) -> tuple[np.ndarray, np.ndarray]:
    """Join bins, as many as there are to a bar, the highest maybe less: edges [K + 1], counts int64 [2, K]."""
    there = np.flatnonzero(found.histogram.any(axis=0))
    first, last = int(there[0]), int(there[-1]) + 1
    starts = np.arange(first, last, -(-(last - first) // bins))
    counts = np.add.reduceat(found.histogram[:, :last], starts, axis=1)
    return found.edges[np.append(starts, last)], counts
